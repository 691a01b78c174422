// One batch on its way from the source through the door: decoded and handed over in slices, rejected records written to the
// dead letters, and the source told of the prefix that needs no delivery any more, as it grows.
import { setImmediate } from 'node:timers/promises';
import type { Rejection } from '../../schemas/cloudevent.ts';
import type { WorkspaceKeys } from '../../schemas/identity.ts';
import { toDeadLetter } from '../dead-letter.ts';
import { byWorkspace, type TopicRules, type WorkspaceDeliveries, workspaceMissing } from '../deliveries.ts';
import type { Door, Receipt, Sleep } from '../door.ts';
import { OperatingError } from '../errors.ts';
import type { Delivery, DeliveryBatch, Topic } from '../ports.ts';

/** Decoded and handed over without letting anything else run: some 20 µs each, so 10 ms. */
const SLICE = 500;
/** How often and how long a full door is asked again before the partition is paused: a pause costs fetching the batch anew. Together 5 s, well under a rebalance. */
const BUSY_TRIES = 50;
const BUSY_MS = 100;
/** One write of dead letters: half of what a broker takes in one request as it comes (message.max.bytes 1,048,588), and one letter more however long. */
const LETTERS_AT_ONCE = 500;
const LETTER_BYTES_AT_ONCE = 512 * 1024;
/** Told to stop, what is under way may still become durable and pass, so that fewer are delivered again: half of what a process has to end (lifecycle.ts). */
const STOP_MS = 5000;

export interface Counting {
  received: number; recorded: number; duplicates: number; deadLettered: number; returned: number; underWay: number; keyless: number;
  readonly rejected: Partial<Record<string, number>>;
}

export interface AttemptOptions {
  readonly door: Pick<Door, 'receive'>;
  readonly deadLetters: Pick<Topic, 'write'>;
  readonly keysOf: (workspace: string) => WorkspaceKeys | null;
  readonly rules: TopicRules;
  readonly sleep: Sleep;
  /** Aborts when the ingest is told to stop, before the batch's own signal does; the batch's alone: the partition is another's. */
  readonly stopping: AbortSignal;
  readonly counting: Counting;
  /** Offsets of this partition that stand as dead letters though they were not passed; grows. */
  readonly written: Set<string>;
}

/** How a batch ended. `stopped`: what was not passed must be delivered again, and why; `left`: whoever has the partition now will be given it. */
export type Ended =
  | { readonly kind: 'done' | 'left'; readonly passed: number }
  | { readonly kind: 'stopped'; readonly passed: number; readonly stop: Stop };
export interface Stop { readonly fault: unknown; /** In our own words. */ readonly reason: string; /** Whether trying again can help. */ readonly retriable: boolean }

/** By their index in the batch. */
type Group = WorkspaceDeliveries<number>;
interface Letter { readonly index: number; readonly delivery: Delivery; readonly rejection: Rejection }

/**
 * Order (G2): slices go to the door in the order of their offsets, each before the one before is answered; the door keeps
 * an identity's events in the order in which it took them, and tells a fault before anything behind it could be written.
 * From then on nothing more is handed over, so nothing overtakes what failed; all of it is delivered again.
 */
export class Attempt {
  readonly #batch: DeliveryBatch;
  readonly #options: AttemptOptions;
  /** 1: durable, or a dead letter. */
  readonly #settled: Uint8Array;
  /** How many of the first are settled, one after the other. */
  #passed = 0;
  #unsettled = 0;
  #stop: Stop | null = null;
  /** The partition is another's. */
  #lost = false;
  #letters: Letter[] = [];
  #writing: Promise<void> | null = null;
  readonly #calls: Promise<void>[] = [];
  /** Letters that this attempt wrote, by code; those that stood already are not among them. */
  readonly deadLettered = new Map<string, number>();

  constructor(batch: DeliveryBatch, options: AttemptOptions) {
    this.#batch = batch;
    this.#options = options;
    this.#settled = new Uint8Array(batch.deliveries.length);
    this.#unsettled = batch.deliveries.length;
  }

  async run(): Promise<Ended> {
    const { signal } = this.#batch;
    const { counting } = this.#options;
    counting.received += this.#unsettled;
    counting.underWay += this.#unsettled;
    const told = Promise.withResolvers<undefined>();
    const onAbort = (): void => {
      this.#lost ||= !this.#options.stopping.aborted;
      told.resolve(undefined);
    };
    if (signal.aborted) onAbort();
    signal.addEventListener('abort', onAbort, { once: true });
    await this.#handAll();
    const over = this.#underWay().then(() => this.#close());
    // Nobody waits for a store that does not answer when the partition is lost; what it answers later is counted.
    await Promise.race([over, told.promise.then(() => (this.#lost ? undefined : this.#lastMoment(over)))]);
    signal.removeEventListener('abort', onAbort);
    const passed = this.#passed;
    if (this.#stop !== null) return { kind: 'stopped', passed, stop: this.#stop };
    return { kind: this.#lost || passed < this.#settled.length ? 'left' : 'done', passed };
  }

  async #lastMoment(over: Promise<void>): Promise<void> {
    const settled = new AbortController();
    await Promise.race([over, this.#options.sleep(STOP_MS, settled.signal)]);
    settled.abort();
    // What becomes durable after this is delivered again: the source may have committed already.
    this.#lost = true;
  }

  #goesOn(): boolean { return this.#stop === null && !this.#batch.signal.aborted; }

  // ---- handing over --------------------------------------------------------------------------------------------------

  async #handAll(): Promise<void> {
    for (let from = 0; from < this.#settled.length && this.#goesOn(); from += SLICE) {
      for (const [workspace, group] of this.#read(from)) {
        if (!this.#goesOn()) return;
        await this.#hand(workspace, group);
      }
      await setImmediate();
    }
  }

  #read(from: number): ReadonlyMap<string, Group> {
    const slice = this.#batch.deliveries.slice(from, from + SLICE);
    for (const { key } of slice) if (key === null) this.#options.counting.keyless += 1;
    const deliveries = slice.map((delivery, i) => ({ of: from + i, delivery, origin: { topic: delivery.topic, partition: delivery.partition, offset: delivery.offset } }));
    return byWorkspace(deliveries, this.#options.rules, (index, rejection) => this.#reject(index, rejection));
  }

  /** Returns once the door has taken the group, which it answers later, or when nothing more may be handed over. */
  async #hand(workspace: string, group: Group): Promise<void> {
    const keys = this.#options.keysOf(workspace);
    if (keys === null) {
      this.#stopFor(workspaceMissing(workspace));
      return;
    }
    for (let tries = 1; this.#goesOn(); tries += 1) {
      const call = this.#call(keys, group);
      // A door that is full says so before it takes anything: known before the timers' next turn, and so before anything behind this is handed over.
      const busy = await Promise.race([call, setImmediate(null)]);
      if (busy === null) {
        this.#calls.push(call.then((late) => { if (late !== null) this.#stopFor(late); }));
        return;
      }
      if (tries >= BUSY_TRIES) this.#stopFor(busy);
      else await this.#options.sleep(BUSY_MS, this.#batch.signal);
    }
  }

  /** Resolves with `storeBusy` where the door took nothing, else with null once all is answered. */
  async #call(keys: WorkspaceKeys, { of: indices, decoded, origins }: Group): Promise<OperatingError | null> {
    const indexOf = (i: number): number => indices[i] ?? -1;
    try {
      await this.#options.door.receive(keys, decoded, origins, { receipt: (i, receipt) => this.#answered(indexOf(i), receipt), fault: (fault) => this.#stopFor(fault) });
    } catch (fault) {
      if (fault instanceof OperatingError && fault.code === 'storeBusy') return fault;
      this.#stopFor(fault);
    }
    return null;
  }

  #answered(index: number, receipt: Receipt): void {
    switch (receipt.kind) {
      case 'recorded': this.#options.counting.recorded += 1; this.#settle(index); return;
      case 'duplicate': this.#options.counting.duplicates += 1; this.#settle(index); return;
      case 'rejected': this.#reject(index, receipt.rejection);
    }
  }

  // ---- dead letters --------------------------------------------------------------------------------------------------

  #reject(index: number, rejection: Rejection): void {
    const delivery = this.#batch.deliveries[index];
    if (delivery === undefined) throw new Error('assertion: a receipt for a delivery of the batch');
    const letter = { index, delivery, rejection };
    // Delivered again because something before it could not pass: one letter is enough, however long that takes.
    if (this.#options.written.has(delivery.offset)) {
      this.#buried(letter);
      return;
    }
    this.#letters.push(letter);
    this.#writing ??= this.#write();
  }

  /** One write at a time, in order; what is rejected meanwhile goes with the next. */
  async #write(): Promise<void> {
    await Promise.resolve();
    while (this.#letters.length > 0 && this.#stop === null && !this.#lost) {
      const letters = this.#nextLetters();
      try {
        await this.#options.deadLetters.write(letters.map(({ delivery, rejection }) => toDeadLetter(delivery, rejection)));
      } catch (fault) {
        // Some of them may stand. They are written again then, and counted by their coordinates.
        this.#stopFor(fault, 'dead letters cannot be written');
        break;
      }
      for (const letter of letters) {
        const { delivery: { offset }, rejection: { code } } = letter;
        this.#options.written.add(offset);
        this.deadLettered.set(code, (this.deadLettered.get(code) ?? 0) + 1);
        this.#buried(letter);
      }
    }
    this.#writing = null;
  }

  #nextLetters(): readonly Letter[] {
    let bytes = 0;
    let end = 0;
    for (const { delivery } of this.#letters.slice(0, LETTERS_AT_ONCE)) {
      bytes += (delivery.value?.length ?? 0) + (delivery.key?.length ?? 0);
      if (end > 0 && bytes > LETTER_BYTES_AT_ONCE) break;
      end += 1;
    }
    return this.#letters.splice(0, end);
  }

  #buried({ index, rejection: { code } }: Letter): void {
    const { counting } = this.#options;
    counting.deadLettered += 1;
    counting.rejected[code] = (counting.rejected[code] ?? 0) + 1;
    this.#settle(index);
  }

  // ---- the prefix ----------------------------------------------------------------------------------------------------

  #settle(index: number): void {
    this.#settled[index] = 1;
    this.#unsettled -= 1;
    this.#options.counting.underWay -= 1;
    const before = this.#passed;
    while (this.#settled[this.#passed] === 1) this.#passed += 1;
    if (this.#passed > before && !this.#lost) this.#batch.passed(this.#passed - 1);
  }

  /** The first reason stands. */
  #stopFor(fault: unknown, what?: string): void {
    const isOperating = fault instanceof OperatingError;
    const said = isOperating ? `${fault.message} (${fault.code})` : 'an error that nobody expected';
    // Whatever keeps dead letters from being written, nothing may pass meanwhile; anything else that no retry helps ends the ingest.
    this.#stop ??= { fault, reason: what === undefined ? said : `${what}: ${said}`, retriable: isOperating && (fault.retriable || what !== undefined) };
  }

  async #underWay(): Promise<void> {
    while (this.#calls.length > 0 || this.#writing !== null) {
      await Promise.all(this.#calls.splice(0));
      await this.#writing;
    }
  }

  /** Nothing is under way: what has no answer goes back to the source. */
  #close(): void {
    const { counting } = this.#options;
    counting.returned += this.#unsettled;
    counting.underWay -= this.#unsettled;
    this.#unsettled = 0;
  }
}
