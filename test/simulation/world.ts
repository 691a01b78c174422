// Time and order in a simulation's hands. Whatever a process asks of the world (a store, a topic, a sleep) is a task, and
// one task at a time is released, by the schedule's choice; the clock moves only when nothing else can run. A process that
// is killed is never released again: its memory is lost, and what it did to the stores stands.
import { setImmediate } from 'node:timers';
import { OperatingError } from '../../services/errors.ts';
import type { Clock } from '../../services/ports.ts';

/** What may be asked of the world, as faults name it. */
export const OPS = [
  'append', 'readStream', 'head', 'gap', 'page', 'views', 'position', 'digest', 'load', 'commit', 'promotion', 'tally', 'letter', 'deliver', 'offset', 'request', 'response', 'wake',
] as const;
export type Op = (typeof OPS)[number];

/**
 * What becomes of a call: nothing is done and it throws; it is done and throws; it throws and is done later; it is done late,
 * or answered late; whoever asks dies before it is done, or when it is done and not answered; a hold stands in its way; what
 * was to go on ends.
 */
export type What = 'lost' | 'unanswered' | 'afterwards' | 'late' | 'lateReply' | 'crash' | 'crashAfter' | 'held' | 'ends';
export interface Fault {
  readonly op: Op;
  /** The first call of its kind that it meets, counted from 0 over all processes, and how many after one another. */
  readonly nth: number;
  readonly times: number;
  readonly what: What;
  /** How late. */
  readonly ms: number;
}

/** One life of a process. */
export class Process {
  readonly name: string;
  alive = true;
  readonly #onKill: (() => void)[] = [];

  constructor(name: string) { this.name = name; }

  whenKilled(work: () => void): void { this.#onKill.push(work); }

  kill(): void {
    if (!this.alive) return;
    this.alive = false;
    for (const work of this.#onKill) work();
  }
}

interface Task { readonly process: Process | null; readonly op: Op; readonly run: () => void }
interface Timer { readonly dueMs: number; readonly task: Task }

export interface Failure { readonly guarantee: string; readonly message: string }
export interface WorldOptions {
  readonly startMs: number;
  /** Which of the tasks that are ready goes next, modulo their number; 0, the one that waits longest, once they are used up. */
  readonly choices: readonly number[];
  readonly faults: readonly Fault[];
  /** Told of each step, where somebody wants to read them. */
  readonly onStep?: (text: string) => void;
}

/** A run that takes longer will not come to rest: some fifty times what most take. */
const STEPS_MAX = 40_000;
/** Turns of the loop without a task before the clock moves: more than any chain of turns by which a program lets others go on. */
const QUIET_TURNS = 4;

export class World {
  readonly clock: Clock;
  readonly #options: WorldOptions;
  #nowMs: number;
  steps = 0;
  kills = 0;
  failure: Failure | null = null;
  /** Faults that were met. */
  met = 0;
  /** Over every step: equal hashes are equal runs. */
  #hash = 0x811c9dc5;
  readonly #ready: Task[] = [];
  readonly #timers: Timer[] = [];
  readonly #calls = new Map<Op, number>();
  readonly #faults = new Map<Op, Fault[]>();
  readonly #names = new Map<string, number>();

  constructor(options: WorldOptions) {
    this.#options = options;
    this.#nowMs = options.startMs;
    this.clock = { now: () => this.#nowMs };
    for (const fault of options.faults) this.#faults.set(fault.op, [...(this.#faults.get(fault.op) ?? []), fault]);
  }

  get trace(): string { return (this.#hash >>> 0).toString(16).padStart(8, '0'); }

  /** The first counts. */
  fail(guarantee: string, message: string): void { this.failure ??= { guarantee, message }; }

  note(text: string): void { this.#options.onStep?.(`${String(this.#nowMs - this.#options.startMs).padStart(6)} ms  ${text}`); }

  /** Starts a process, and again so long after each of its deaths. */
  spawn(name: string, restartMs: number, start: (process: Process) => Promise<void>): Process {
    const process = new Process(name);
    process.whenKilled(() => {
      this.kills += 1;
      this.note(`${name} dies`);
      this.after(restartMs, () => { this.spawn(name, restartMs, start); });
    });
    this.note(`${name} starts`);
    start(process).catch((fault: unknown) => {
      if (process.alive) this.fail('a process ended by itself', `${name}: ${fault instanceof Error ? fault.stack ?? fault.message : String(fault)}`);
    });
    return process;
  }

  /** Work of nobody who could die. */
  after(ms: number, work: () => void): void { this.#put({ process: null, op: 'wake', run: work }, ms); }

  /** As programs sleep: resolves when it is over or aborted, never rejects. */
  sleep(process: Process | null): (ms: number, signal?: AbortSignal) => Promise<void> {
    return (ms, signal) => new Promise((resolve) => {
      if (signal?.aborted === true) {
        resolve();
        return;
      }
      const timer = this.#put({ process, op: 'wake', run: () => { signal?.removeEventListener('abort', over); resolve(); } }, Math.max(1, ms));
      const over = (): void => {
        this.#forget(timer);
        resolve();
      };
      signal?.addEventListener('abort', over, { once: true });
    });
  }

  /** A task of a process at once, without faults: something that comes to it. */
  task(process: Process | null, op: Op, run: () => void): void { this.#put({ process, op, run }, 0); }

  /** The fault that the next call of its kind meets. */
  faultOf(op: Op): Fault | null {
    const call = this.#calls.get(op) ?? 0;
    this.#calls.set(op, call + 1);
    const fault = this.#faults.get(op)?.find(({ nth, times }) => call >= nth && call < nth + times) ?? null;
    if (fault !== null) this.met += 1;
    return fault;
  }

  /**
   * One call of a port. `perform` does it, at the moment that it is released; a call that changes something is answered by
   * a task of its own, so that anything may happen between what it did and who hears of it.
   */
  call<T>(process: Process, op: Op, changes: boolean, perform: () => Promise<T>, held?: T): Promise<T> {
    // Whoever is dead asks nothing; its promise is never heard of again.
    if (!process.alive) return new Promise(() => undefined);
    const fault = this.faultOf(op);
    const what = fault?.what;
    return new Promise<T>((resolve, reject) => {
      const fails = (): void => reject(new OperatingError(op === 'letter' ? 'sourceUnavailable' : 'storeUnavailable', `${what ?? ''} in the simulation`));
      const reply = (settle: () => void): void => {
        if (what === 'lateReply') this.#put({ process, op, run: settle }, fault?.ms ?? 0);
        else if (changes) this.#put({ process, op, run: settle }, 0);
        else settle();
      };
      const done = (): void => {
        perform().then((value) => {
          if (what === 'crashAfter') process.kill();
          else reply(what === 'unanswered' ? fails : () => resolve(value));
        }, (thrown: unknown) => reply(() => reject(thrown instanceof Error ? thrown : new Error(String(thrown)))));
      };
      this.#put({ process, op, run: () => {
        if (fault !== null) this.note(`${process.name}: ${op} ${String(fault.nth)} ${fault.what}`);
        if (what === 'crash') process.kill();
        else if (what === 'held' && held !== undefined) resolve(held);
        else if (what === 'lost' || what === 'held' || what === 'ends' || (what === 'afterwards' && !changes)) fails();
        else if (what === 'afterwards') {
          fails();
          // Nobody hears of it any more.
          this.after(fault?.ms ?? 0, () => { perform().catch(() => undefined); });
        } else done();
      } }, what === 'late' ? fault?.ms ?? 0 : 0);
    });
  }

  /** Until it is done (asked whenever nothing can run), or something failed; null when it never came to rest. */
  async run(isDone: () => Promise<boolean>): Promise<boolean> {
    return new Promise((resolve) => {
      let quiet = 0;
      const turn = (): void => {
        if (this.failure !== null || this.steps >= STEPS_MAX) { resolve(false); return; }
        if (this.#ready.length > 0) {
          quiet = 0;
          this.#step();
        } else quiet += 1;
        if (quiet > QUIET_TURNS) {
          quiet = 0;
          void isDone().then((done) => {
            if (done) resolve(true);
            else if (!this.#advance()) resolve(false);
            else setImmediate(turn);
          });
        } else setImmediate(turn);
      };
      turn();
    });
  }

  #step(): void {
    const choice = this.#options.choices[this.steps] ?? 0;
    this.steps += 1;
    const [task] = this.#ready.splice(choice % this.#ready.length, 1);
    if (task === undefined || task.process?.alive === false) return;
    this.#mix(this.#numberOf(task.process?.name ?? ''), OPS.indexOf(task.op));
    task.run();
  }

  #advance(): boolean {
    const first = this.#timers[0];
    if (first === undefined) return false;
    this.#nowMs = Math.max(this.#nowMs, first.dueMs);
    let due = 0;
    for (const { dueMs } of this.#timers) { if (dueMs > this.#nowMs) break; due += 1; }
    for (const { task } of this.#timers.splice(0, due)) this.#ready.push(task);
    this.#mix(0, this.#nowMs);
    return true;
  }

  #put(task: Task, ms: number): Timer | null {
    if (ms <= 0) {
      this.#ready.push(task);
      return null;
    }
    const timer = { dueMs: this.#nowMs + ms, task };
    let at = this.#timers.length;
    while (at > 0 && (this.#timers[at - 1]?.dueMs ?? 0) > timer.dueMs) at -= 1;
    this.#timers.splice(at, 0, timer);
    return timer;
  }

  #forget(timer: Timer | null): void {
    const at = timer === null ? -1 : this.#timers.indexOf(timer);
    if (at >= 0) this.#timers.splice(at, 1);
  }

  #numberOf(name: string): number {
    let number = this.#names.get(name);
    if (number === undefined) this.#names.set(name, number = this.#names.size + 1);
    return number;
  }

  #mix(...numbers: readonly number[]): void {
    for (const number of numbers) this.#hash = Math.imul(this.#hash ^ (number & 0x7fffffff), 0x01000193) ^ (this.#hash >>> 15);
  }
}
