// What an operator's verb has of the world, and how it shows things: tables and a progress bar for people, JSON for
// programs.
import type { Clock, RandomBytes } from '../ports.ts';
import { OperatingError } from '../errors.ts';

export interface Out {
  /** `done` is called when the text has left: who writes much waits for it. */
  write(text: string, done?: (error?: Error | null) => void): unknown;
}

/** Everything that a verb takes from outside beside its options. A verb answers with the process's exit code: 0 done, 1 could not, 2 asked wrongly. */
export interface Io {
  readonly stdout: Out;
  readonly stderr: Out;
  readonly stdin: AsyncIterable<Uint8Array>;
  /** Whether stderr is a terminal: only then a progress bar is drawn. */
  readonly isTty: boolean;
  /** Aborts when the process is told to end. */
  readonly signal: AbortSignal;
  readonly clock: Clock;
  readonly random: RandomBytes;
  /** Resolves after `ms`, early when the signal aborts; never rejects. */
  readonly sleep: (ms: number, signal?: AbortSignal) => Promise<void>;
  readonly fetch: typeof fetch;
}

/** A reader that has what it wanted (`| head`) goes away, a terminal is closed; what is written after that ends with the third. */
const READER_GONE: readonly unknown[] = ['EPIPE', 'EIO', 'ERR_STREAM_DESTROYED'];

/** Resolves when the text has left, so that a slow reader is waited for and not buffered for; also when nobody reads any more, which is no fault: the process is told of it by its signal. */
export function print(out: Out, text: string): Promise<void> {
  return new Promise((resolve, reject) => {
    out.write(text, (error) => {
      if (error === undefined || error === null || READER_GONE.includes((error as NodeJS.ErrnoException).code)) resolve();
      else reject(error);
    });
  });
}

export function printJson(out: Out, value: unknown): Promise<void> { return print(out, `${JSON.stringify(value)}\n`); }

/** What went wrong, for people; the code stands with it, so that it can be looked up. Anything but an operating error is thrown on. */
export function explainFault(fault: unknown): { readonly code: string; readonly message: string } {
  if (!(fault instanceof OperatingError)) throw fault;
  return { code: fault.code, message: fault.message };
}

/** Runs a verb; what went wrong is told on stderr, with exit code 1. */
export async function orExplain(verb: string, io: Io, work: () => Promise<number>): Promise<number> {
  try {
    return await work();
  } catch (fault) {
    const { code, message } = explainFault(fault);
    await print(io.stderr, `throughline ${verb}: ${message} (${code})\n`);
    return 1;
  }
}

/** Columns as wide as their widest cell, numbers to the right, a line under the head. Ends with a line break. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const cells = rows.map((row) => row.map(printable));
  const widths = head.map((name, column) => cells.reduce((width, row) => Math.max(width, widthOf(row[column] ?? '')), widthOf(name)));
  const toRight = head.map((_, column) => cells.length > 0 && cells.every((row) => NUMBER.test(row[column] ?? '')));
  const line = (row: readonly string[]): string => widths.map((width, column) => {
    const cell = row[column] ?? '';
    const blank = ' '.repeat(width - widthOf(cell));
    return toRight[column] === true ? blank + cell : cell + blank;
  }).join('  ').trimEnd();
  return `${[line(head), line(widths.map((width) => '-'.repeat(width))), ...cells.map(line)].join('\n')}\n`;
}
const NUMBER = /^(-?[\d,.]+( ?(ms|s|%|B|KiB|MiB|GiB))?|-|)$/;
const widthOf = (text: string): number => Array.from(text).length;
/** Text of an event may hold what would drive a terminal; nothing of it gets there. */
export function printable(text: string): string { return text.replace(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, '\u00b7'); }

export function count(value: number): string { return value.toLocaleString('en-US'); }
export function bytes(value: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB'] as const;
  const step = value < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(value) / 10));
  return step === 0 ? `${String(value)} B` : `${(value / 1024 ** step).toFixed(1)} ${units[step] ?? ''}`;
}

export function duration(seconds: number): string {
  const whole = Math.round(seconds);
  if (whole < 60) return `${String(whole)} s`;
  return whole < 3600 ? `${String(Math.floor(whole / 60))} min ${String(whole % 60)} s` : `${String(Math.floor(whole / 3600))} h ${String(Math.round((whole % 3600) / 60))} min`;
}

const BAR_WIDTH = 24;
const REDRAW_MS = 100;
const TICKS_MAX = 1000;
/** Ticks after the first that did something, before a speed is told; and those that it is told over at least, where there are as many. */
const TICKS_LEAST = 2;
const TICKS_SMOOTHED = 4;
/** So much slower than its pace, it is something else that holds it up. */
const SLOWER = 1.25;
interface Tick { readonly atMs: number; readonly share: number; readonly events: number }

/** One line on the terminal's stderr, redrawn at most ten times a second; silent elsewhere. */
export class ProgressBar {
  readonly #io: Pick<Io, 'stderr' | 'isTty' | 'clock'>;
  readonly #title: string;
  readonly #total: number | null;
  readonly #startedMs: number;
  #drawnMs = -Infinity;
  #drawn = false;
  /** Events a second at most, where somebody said so. */
  readonly #pace: number | null;
  /** How far it was when. */
  readonly #ticks: Tick[] = [];
  #events = 0;

  /** `total` in the unit of `done`; null when it cannot be known (stdin). */
  constructor(io: Pick<Io, 'stderr' | 'isTty' | 'clock'>, title: string, total: number | null, pace: number | null = null) {
    this.#io = io;
    this.#title = title;
    this.#total = total;
    this.#pace = pace;
    this.#startedMs = io.clock.now();
  }

  /** `events` null: it is not events that are counted. `what` stands in for the title. */
  show(done: number, events: number | null, what = this.#title): void {
    const nowMs = this.#io.clock.now();
    this.#events = events ?? 0;
    this.#tick(this.#share(done));
    if (!this.#io.isTty || nowMs - this.#drawnMs < REDRAW_MS) return;
    this.#drawnMs = nowMs;
    this.#drawn = true;
    const seconds = Math.max(0.001, (nowMs - this.#startedMs) / 1000);
    const counted = events === null ? '' : `${count(events)} events, ${count(Math.round(events / seconds))}/s`;
    const left = this.secondsLeft(done);
    this.#io.stderr.write(`\r\u001b[K${what} ${this.#bar(done)}${counted}${left === null ? '' : `, ${duration(left)} left`}`);
  }

  /**
   * By how fast it went in the later half of the time since something was first done, over several ticks at least, since
   * they are uneven: what came before that is how a program starts. Null while too little is done. Where a pace is kept to,
   * by that, unless it goes slower.
   */
  secondsLeft(done: number): number | null {
    const [began, base] = this.#ticks;
    const share = this.#share(done);
    if (this.#total === null || began === undefined || base === undefined || share <= began.share) return null;
    const measured = this.#measured(base, share);
    if (this.#pace === null || this.#events <= began.events) return measured;
    const paced = (this.#events - began.events) * (1 - share) / (share - began.share) / this.#pace;
    return measured !== null && measured > paced * SLOWER ? measured : paced;
  }

  #measured(base: Tick, share: number): number | null {
    const last = this.#ticks.length - 1;
    if (last - 1 < TICKS_LEAST || share - base.share < 0.1 * (1 - base.share)) return null;
    const nowMs = this.#io.clock.now();
    const half = this.#ticks.findLastIndex(({ atMs }) => atMs <= (base.atMs + nowMs) / 2);
    const since = this.#ticks[Math.max(1, Math.min(half, last - TICKS_SMOOTHED))] ?? base;
    return (nowMs - since.atMs) / 1000 * (1 - share) / (share - since.share);
  }

  /** The first, the first that went further, and then those that did, so far apart. */
  #tick(share: number): void {
    const atMs = this.#io.clock.now();
    const last = this.#ticks.at(-1);
    const isDue = last === undefined || (share > last.share && (this.#ticks.length === 1 || atMs - last.atMs >= REDRAW_MS));
    if (!isDue) return;
    this.#ticks.push({ atMs, share, events: this.#events });
    // Every other one says as much of a long time.
    if (this.#ticks.length > TICKS_MAX) this.#ticks.splice(0, this.#ticks.length, ...this.#ticks.filter((_, i) => i < 2 || i % 2 === 0));
  }

  clear(): void {
    if (this.#drawn) this.#io.stderr.write('\r\u001b[K');
    this.#drawn = false;
  }

  #share(done: number): number { return this.#total === null || this.#total === 0 ? 0 : Math.min(1, done / this.#total); }

  #bar(done: number): string {
    if (this.#total === null || this.#total === 0) return '';
    const share = this.#share(done);
    const filled = Math.round(share * BAR_WIDTH);
    return `[${'#'.repeat(filled)}${'.'.repeat(BAR_WIDTH - filled)}] ${String(Math.floor(share * 100)).padStart(3)}%  `;
  }
}
