// How a process starts and ends: parts in order, ended in the reverse order within a deadline, and what the world gives
// to a verb. The only file that listens to signals.
import { randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import { setTimeout as pause } from 'node:timers/promises';
import { OperatingError } from './errors.ts';
import type { Log } from './log.ts';
import type { Io } from './ops/terminal.ts';
import type { Clock, RandomBytes } from './ports.ts';

export const DRAIN_MS = 10_000;

/** Something that runs until it is stopped. `ended` settles by itself only when it can no longer do its work: then all is stopped. */
export interface Part {
  readonly name: string;
  stop(): Promise<void>;
  readonly ended?: Promise<unknown>;
}

export type Sleep = Io['sleep'];
/** Never rejects: an aborted sleep is one that ended. */
export const sleep: Sleep = (ms, signal) => pause(ms, undefined, signal === undefined ? {} : { signal }).then(() => undefined, () => undefined);

/** Read anew each time: what a loop has seen before says nothing after it waited. */
export function isAborted(signal: AbortSignal): boolean { return signal.aborted; }

/** Names this process where several hold leases: unlike any other there is or was. */
export function holderOf(random: RandomBytes): string { return `${hostname()}-${String(process.pid)}-${Buffer.from(random(4)).toString('hex')}`; }

/** Whether the process of this machine that named itself so is no more. Of another machine's nothing is known. */
export function hasEnded(holder: string): boolean {
  const own = `${hostname()}-`;
  const pid = holder.startsWith(own) ? /^(\d+)-[0-9a-f]+$/.exec(holder.slice(own.length))?.[1] : undefined;
  if (pid === undefined) return false;
  try {
    process.kill(Number(pid), 0);
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ESRCH';
  }
}

/** For how long something has taken: it only ever goes forward, however the machine's clock is set. Its instants mean nothing elsewhere. */
export const steady: Clock = { now: () => performance.now() };

/**
 * Starts the parts one after the other, runs until the signal aborts or a part ends by itself, then stops those that
 * started, the last first. Exit code 0; 1 when a part ended by itself, failed to stop, or did not stop within `drainMs`.
 * A part that cannot start stops those before it, and its error is thrown; one that was told to end while it still
 * waited for a server has not failed.
 */
export async function run(starts: readonly (() => Promise<Part>)[], options: { readonly signal: AbortSignal; readonly log: Log; readonly sleep: Sleep; readonly drainMs?: number }): Promise<number> {
  const { signal, log } = options;
  const parts: Part[] = [];
  let code = 0;
  try {
    for (const start of starts) {
      if (signal.aborted) break;
      parts.push(await start());
    }
    code = await untilAsked(parts, signal, log);
  } catch (fault) {
    if (!signal.aborted) throw fault;
    log.info('told to end before all had started', { ...toldBy(signal), ...(fault === signal.reason ? {} : { fault }) });
  } finally {
    const drained = await stopAll(parts, options);
    if (!drained) code = 1;
  }
  if (code === 0) log.info('all has ended well');
  return code;
}

/** A server that is away when a process starts may be starting itself; longer than this, and whoever supervises us should know. */
export const AWAIT_MS = 60_000;
const AWAIT_STEP_MS = 250;
const AWAIT_STEP_MAX_MS = 5_000;

/**
 * Opens something that a server has to answer for, and tries again while it is away: for a minute at most, and not once
 * the signal has aborted. `onWait` is told of each try that failed. Throws what the last try threw, with `advice`, in the end.
 */
export async function awaited<T>(what: string, advice: string, open: () => Promise<T>, options: { readonly signal: AbortSignal; readonly clock: Clock; readonly sleep: Sleep; readonly onWait: (fault: OperatingError) => void; readonly waitMs?: number }): Promise<T> {
  const { signal, clock, sleep: wait, onWait, waitMs = AWAIT_MS } = options;
  const until = clock.now() + waitMs;
  for (let step = AWAIT_STEP_MS; ; step = Math.min(step * 2, AWAIT_STEP_MAX_MS)) {
    try {
      return await orAborted(open(), signal);
    } catch (fault) {
      if (!(fault instanceof OperatingError) || !fault.retriable || signal.aborted) throw fault;
      if (clock.now() + step > until) throw new OperatingError(fault.code, `${what} did not answer within ${String(Math.round(waitMs / 1000))} s (${fault.message}): ${advice}`, { cause: fault });
      onWait(fault);
      await wait(step, signal);
    }
  }
}

/** An opening that hangs must not keep the process from ending when it is told to; it is left to itself then. */
function orAborted<T>(opening: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason as Error);
    if (signal.aborted) onAbort();
    signal.addEventListener('abort', onAbort, { once: true });
    opening.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}

async function untilAsked(parts: readonly Part[], signal: AbortSignal, log: Log): Promise<number> {
  const asked = new Promise<null>((resolve) => {
    if (signal.aborted) resolve(null);
    signal.addEventListener('abort', () => resolve(null), { once: true });
  });
  const ends = parts.flatMap(({ name, ended }) => (ended === undefined ? [] : [ended.then(() => ({ name, fault: undefined }), (fault: unknown) => ({ name, fault }))]));
  const first = await Promise.race([asked, ...ends]);
  if (first === null) {
    log.info('told to end', toldBy(signal));
    return 0;
  }
  log.error('a part ended by itself', { part: first.name, fault: first.fault });
  return 1;
}

async function stopAll(parts: readonly Part[], { log, sleep: wait, drainMs = DRAIN_MS }: { readonly log: Log; readonly sleep: Sleep; readonly drainMs?: number }): Promise<boolean> {
  const over = new AbortController();
  let failed = false;
  const stopping = (async () => {
    for (const part of parts.toReversed()) {
      try {
        await part.stop();
      } catch (fault) {
        failed = true;
        log.error('a part did not stop well', { part: part.name, fault });
      }
    }
    over.abort();
    return true;
  })();
  const inTime = await Promise.race([stopping, wait(drainMs, over.signal).then(() => over.signal.aborted)]);
  if (!inTime) log.error('not everything stopped in time: cut off', { ms: drainMs });
  return inTime && !failed;
}

/** Why a process ends: what its signal was aborted with. */
class ToldToEnd extends Error {
  /** The signal's name, or what else told it. */
  readonly by: string;
  constructor(by: string) {
    super(`told to end: ${by}`);
    this.name = 'ToldToEnd';
    this.by = by;
  }
}

function toldBy({ reason }: AbortSignal): { readonly signal?: string } { return reason instanceof ToldToEnd ? { signal: reason.by } : {}; }

/** Ctrl-C goes to every process of the terminal, and comes once more from the launcher: two so close are one. */
const IMPATIENT_MS = 1000;

/**
 * The signal that aborts on the first SIGTERM, SIGINT or SIGHUP, on the reader of stdout or stderr going away, and on the
 * launcher's end: it is our parent, with a channel to us. Another signal, a second or more after the first, ends the process
 * at once. An error that nobody expected is logged and ends it with 1.
 */
export function listenToProcess(log: Log): AbortSignal {
  const ending = new AbortController();
  let firstMs: number | null = null;
  const onSignal = (name: NodeJS.Signals): void => {
    const nowMs = performance.now();
    if (firstMs !== null && nowMs - firstMs >= IMPATIENT_MS) process.exit(1);
    firstMs ??= nowMs;
    ending.abort(new ToldToEnd(name));
  };
  for (const name of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(name, onSignal);
  if (process.connected) {
    process.on('disconnect', () => ending.abort(new ToldToEnd('the launcher has gone')));
    // Listening must not keep a process that has nothing left to do.
    process.channel?.unref();
  }
  const onFault = (fault: unknown): void => {
    log.error('an error that nobody expected', { fault });
    process.exit(1);
  };
  process.on('uncaughtException', onFault);
  process.on('unhandledRejection', onFault);
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => ending.abort(new ToldToEnd('nobody reads its output')));
  return ending.signal;
}

/** The world as a verb sees it. */
export function processIo(signal: AbortSignal): Io {
  return {
    stdout: process.stdout, stderr: process.stderr, stdin: process.stdin, isTty: process.stderr.isTTY, signal,
    clock: { now: () => Date.now() }, random: (size) => randomBytes(size), sleep, fetch,
  };
}
