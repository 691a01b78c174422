// The programs as an operator runs them: `throughline ingest|project|api|serve`, each a process of its own with the flags
// that the launcher gives it, on places that a test names. Started when they are ready, killed, frozen and ended by process id.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { cleanEnvironment, ROOT, TEST_KEY, until } from './serve.ts';

const MAIN = join(ROOT, 'services/main.ts');
const LAUNCHED = JSON.parse(readFileSync(join(ROOT, 'infra/node-flags.json'), 'utf8')) as { readonly flags: Readonly<Partial<Record<string, readonly string[]>>>; readonly environment: Readonly<Record<string, string>> };
/** A program is ready within a second where the machine is free; others may be at work on it. */
const READY_MS = 30_000;

export type ProgramName = 'serve' | 'ingest' | 'project' | 'api';

/** Where a line runs: what each program of it is told. */
export interface Places {
  /** A topic's URL; '': none. */
  readonly source: string;
  /** An EventStoreDB's URL; null: SQLite in `folder`. */
  readonly events: string | null;
  /** A Redis's URL; null: SQLite in `folder`. */
  readonly views: string | null;
  readonly folder: string;
  /** 64 hex digits each. */
  readonly masterKey: string;
  readonly workspaceSecret: string;
}

export interface Program {
  readonly name: ProgramName;
  readonly pid: number;
  /** Where it listens: the api's every path, or health and metrics alone. */
  readonly url: string;
  readonly stdout: () => string;
  readonly stderr: () => string;
  /** Both. */
  readonly output: () => string;
  /** The exit code (null: by a signal), once it has ended; undefined while it runs. */
  readonly exited: () => number | null | undefined;
  /** Sends the signal and waits until the process has gone; its exit code. */
  end(signal?: NodeJS.Signals): Promise<number | null>;
  freeze(): void;
  thaw(): void;
  /** `/readyz`: null while it does not answer. */
  readiness(): Promise<{ readonly ok: boolean; readonly reasons: readonly string[] } | null>;
  /** One metric by its name, and labels where it has any: `name{label="value"}`; null where there is none. */
  metric(name: string): Promise<number | null>;
  request(path: string, init?: RequestInit & { key?: string }): Promise<Response>;
}

interface Launch { readonly args?: readonly string[]; readonly env?: Readonly<Record<string, string>>; readonly logLevel?: string }

/** What runs, so that `endAll` leaves nothing behind however a test ended. */
export class Programs {
  readonly #running = new Set<Program>();

  /** Resolves once it is ready; `whenReady: false`: once it says where it listens. */
  async start(name: ProgramName, places: Places, options: Launch & { readonly whenReady?: boolean } = {}): Promise<Program> {
    const program = await launch(name, places, options);
    this.#running.add(program);
    if (options.whenReady === false) return program;
    let last: unknown = null;
    await until(`${name} is ready`, async () => {
      alive(program);
      last = await program.readiness();
      return last !== null && (last as { ok: boolean }).ok;
    }, READY_MS).catch((fault: unknown) => { throw new Error(`${String(fault)}: ${JSON.stringify(last)}\n${program.output()}`); });
    return program;
  }

  /** Kills what still runs. */
  async endAll(): Promise<void> {
    await Promise.all([...this.#running].map((program) => program.end('SIGKILL')));
    this.#running.clear();
  }
}

function alive(program: Program): void {
  const code = program.exited();
  if (code !== undefined) throw new Error(`${program.name} ended with ${String(code)}: ${program.output()}`);
}

function argumentsOf(name: ProgramName, places: Places, logLevel: string): string[] {
  const source = (name === 'serve' || name === 'ingest') && places.source !== '' ? ['--source', places.source] : [];
  const events = places.events === null ? [] : ['--events', places.events];
  const views = places.views === null ? [] : ['--views', places.views];
  const folder = places.events === null || places.views === null ? ['--data', places.folder] : [];
  return [name, ...source, ...events, ...views, ...folder, '--port', '0', '--log-level', logLevel];
}

async function launch(name: ProgramName, places: Places, { args = [], env = {}, logLevel = 'warn' }: Launch): Promise<Program> {
  const secrets = { THROUGHLINE_MASTER_KEY: places.masterKey, ...(name === 'serve' || name === 'api' ? { THROUGHLINE_API_KEY: TEST_KEY, THROUGHLINE_WORKSPACE_SECRET: places.workspaceSecret } : {}) };
  const child = spawn(process.execPath, [...(LAUNCHED.flags[name] ?? LAUNCHED.flags['any'] ?? []), MAIN, ...argumentsOf(name, places, logLevel), ...args], {
    cwd: ROOT, stdio: ['ignore', 'pipe', 'pipe'],
    env: cleanEnvironment({ ...LAUNCHED.environment, NODE_COMPILE_CACHE: join(ROOT, 'node_modules/.cache/compile'), ...secrets, ...env }),
  });
  const seen = watch(child);
  const address = (): string | undefined => /http:\/\/127\.0\.0\.1:\d+/.exec(seen.output())?.[0];
  await until(`${name} says where it listens`, () => {
    if (seen.exited() !== undefined) throw new Error(`${name} ended with ${String(seen.exited())}: ${seen.output()}`);
    return address() !== undefined;
  }, READY_MS);
  return programOf(name, child, address() ?? '', seen);
}

/** The last of what it printed is kept: a program that fails for long says so for long. */
const OUTPUT_MAX = 1 << 20;

type Seen = Pick<Program, 'stdout' | 'stderr' | 'output' | 'exited'>;

function watch(child: ChildProcess): Seen {
  let [stdout, stderr] = ['', ''];
  let exited: number | null | undefined;
  child.stdout?.setEncoding('utf8').on('data', (text: string) => { stdout = (stdout + text).slice(-OUTPUT_MAX); });
  child.stderr?.setEncoding('utf8').on('data', (text: string) => { stderr = (stderr + text).slice(-OUTPUT_MAX); });
  child.on('close', (code) => { exited = code; });
  return { stdout: () => stdout, stderr: () => stderr, output: () => stdout + stderr, exited: () => exited };
}

function programOf(name: ProgramName, child: ChildProcess, url: string, seen: Seen): Program {
  if (child.pid === undefined) throw new Error(`${name} was not started`);
  const signal = (sent: NodeJS.Signals): void => { if (seen.exited() === undefined) child.kill(sent); };
  const request: Program['request'] = (path, { key = TEST_KEY, ...init } = {}) => {
    const headers = new Headers(init.headers);
    if (!headers.has('x-api-key') && key !== '') headers.set('x-api-key', key);
    return fetch(url + path, { ...init, headers });
  };
  return {
    name, pid: child.pid, url, stdout: seen.stdout, stderr: seen.stderr, output: seen.output, exited: seen.exited, request,
    end: async (sent = 'SIGTERM') => {
      const known = seen.exited();
      if (known !== undefined) return known;
      const closed = once(child, 'close');
      signal(sent);
      // A frozen process takes no other signal than this one.
      if (sent !== 'SIGKILL') signal('SIGCONT');
      const [code] = (await closed) as [number | null];
      return code;
    },
    freeze: () => signal('SIGSTOP'),
    thaw: () => signal('SIGCONT'),
    readiness: async () => {
      try {
        const answer = await fetch(`${url}/readyz`, { signal: AbortSignal.timeout(5000) });
        const body = (await answer.json()) as { readonly reasons?: readonly string[] };
        return { ok: answer.status === 200, reasons: body.reasons ?? [] };
      } catch {
        return null;
      }
    },
    metric: async (metric) => {
      const text = await (await request('/metrics', { signal: AbortSignal.timeout(5000) })).text();
      const line = text.split('\n').find((one) => one.startsWith(`${metric} `));
      return line === undefined ? null : Number(line.slice(metric.length + 1));
    },
  };
}
