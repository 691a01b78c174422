// A verb of the operator's as a process of its own, on the stores of a line: to its end, or killed on its way.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import type { Places } from './programs.ts';
import { cleanEnvironment, ROOT } from './serve.ts';

const MAIN = join(ROOT, 'services/main.ts');

export interface Verb {
  readonly stdout: () => string;
  readonly stderr: () => string;
  /** The exit code (null: by a signal), once it has ended; undefined while it runs. */
  readonly exited: () => number | null | undefined;
  readonly ended: Promise<unknown>;
  /** SIGKILL; resolves when it has gone. */
  kill(): Promise<void>;
}

/** What a verb is told of where the stores are. */
export function throughlineArguments(places: Places, args: readonly string[], stores: readonly ('events' | 'views' | 'source')[] = ['events', 'views']): readonly string[] {
  const named = stores.flatMap((store) => { const url = places[store]; return url === null || url === '' ? [] : [`--${store}`, url]; });
  return [...args, ...named, ...(places.events === null || places.views === null ? ['--data', places.folder] : [])];
}

export function startVerb(args: readonly string[], places: Places): Verb {
  const child = spawn(process.execPath, [MAIN, ...args], { cwd: ROOT, stdio: ['ignore', 'pipe', 'pipe'], env: cleanEnvironment({ NODE_COMPILE_CACHE: join(ROOT, 'node_modules/.cache/compile'), THROUGHLINE_MASTER_KEY: places.masterKey }) });
  let [stdout, stderr] = ['', ''];
  let exited: number | null | undefined;
  child.stdout.setEncoding('utf8').on('data', (text: string) => { stdout += text; });
  child.stderr.setEncoding('utf8').on('data', (text: string) => { stderr += text; });
  const ended = once(child, 'close').then(([code]) => { exited = code as number | null; });
  return {
    stdout: () => stdout, stderr: () => stderr, exited: () => exited, ended,
    kill: async () => {
      if (exited === undefined) child.kill('SIGKILL');
      await ended;
    },
  };
}
