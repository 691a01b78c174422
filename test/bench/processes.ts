// What a process costs, as Linux counts it: all of its threads, whether they still live or not. And a raw part of the bench,
// run as a process of its own, so that its cost is its own too.
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { RawDone, RawPart } from './raw.ts';

/** Of /proc's times: `USER_HZ`, 100 wherever Linux runs Node. */
const TICKS_A_SECOND = 100;

/** User and system time so far, of a process that runs. */
export function cpuSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${String(pid)}/stat`, 'utf8');
  // The name, in parentheses, may hold blanks. Behind it utime and stime are the twelfth and thirteenth field.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / TICKS_A_SECOND;
}

export function peakMb(pid: number): number {
  return Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${String(pid)}/status`, 'utf8'))?.[1] ?? Number.NaN) / 1024;
}

/** Runs a raw part to its end. Node as it comes: the flags of ours are ours. */
export async function runRaw(part: RawPart): Promise<RawDone> {
  const child = fork(join(import.meta.dirname, 'raw.ts'), [], { execArgv: ['--disable-warning=TimeoutNegativeWarning', '--max-old-space-size=8192'], stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
  const ended = once(child, 'exit').then(([code]) => { throw new Error(`the raw part "${part.kind}" ended with ${String(code)}`); });
  child.send(part);
  const [done] = (await Promise.race([once(child, 'message'), ended])) as [RawDone];
  ended.catch(() => undefined);
  const gone = once(child, 'exit');
  child.send('end');
  await gone;
  return done;
}
