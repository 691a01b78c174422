// Topics in memory, with partitions and consumer groups: for tests, and the yardstick for Kafka's adapter. A member that
// joins or leaves moves partitions at once, without asking who had them: the batch under way there becomes a zombie's, as
// with a consumer that learns too late. What a zombie commits is refused, as a broker refuses an old generation.
import { setImmediate } from 'node:timers/promises';
import { type Headers, type HeaderValue, headerValues } from '../../schemas/cloudevent.ts';
import { OperatingError } from '../errors.ts';
import type { Clock, Delivery, DeliveryBatch, Handled, OutgoingRecord, Source, Topic, TopicLook } from '../ports.ts';

export interface MemoryBrokerOptions {
  readonly clock: Clock;
  /** Resolves after `ms`, early when the signal aborts; never rejects. */
  readonly sleep: (ms: number, signal?: AbortSignal) => Promise<void>;
}

/** Records a source hands over at once, unless told otherwise. */
const BATCH_MAX = 500;
/** As of a broker that was told nothing. */
const RECORD_BYTES = 1024 * 1024;

/** All topics, with what every group committed; sources and topics are opened on it. */
export class MemoryBroker {
  readonly #options: MemoryBrokerOptions;
  readonly #logs = new Map<string, Log>();
  readonly #groups = new Map<string, Group>();

  constructor(options: MemoryBrokerOptions) { this.#options = options; }

  createTopic(name: string, partitions: number): void {
    if (this.#logs.has(name)) throw new Error('there is a topic of this name already');
    this.#logs.set(name, new Log(name, partitions, this.#options.clock));
  }

  /** Whoever follows it stays, and cannot read. */
  deleteTopic(name: string): void {
    this.#log(name).gone = true;
    this.#logs.delete(name);
  }

  topic(name: string): Topic { return new MemoryTopic(this.#log(name)); }

  /** A member of a group once it follows. */
  source(options: { readonly topic: string; readonly group: string; readonly maxBatch?: number }): Source {
    const log = this.#log(options.topic);
    const name = JSON.stringify([options.group, options.topic]);
    let group = this.#groups.get(name);
    if (group === undefined) this.#groups.set(name, (group = new Group(log)));
    return new MemorySource(log, group, this.#options.sleep, options.maxBatch ?? BATCH_MAX);
  }

  #log(name: string): Log {
    const log = this.#logs.get(name);
    if (log === undefined) throw new OperatingError('sourceUnavailable', `there is no topic ${name}`);
    return log;
  }
}

// ---- the log -----------------------------------------------------------------------------------------------------------

class Log {
  readonly name: string;
  readonly partitions: readonly Delivery[][];
  gone = false;
  readonly #clock: Clock;
  readonly #waiting = new Set<() => void>();

  constructor(name: string, partitions: number, clock: Clock) {
    this.name = name;
    this.partitions = Array.from({ length: partitions }, () => []);
    this.#clock = clock;
  }

  append(record: OutgoingRecord): void {
    const partition = this.#partitionOf(record);
    const records = this.#of(partition);
    // Copies, as a broker would make: what the caller does to its buffers later changes nothing here.
    records.push({
      topic: this.name, partition, offset: String(records.length), timestampMs: this.#clock.now(),
      key: copy(record.key), value: copy(record.value), headers: copyHeaders(record.headers),
    });
  }

  wake(): void { for (const done of [...this.#waiting]) done(); }

  head(partition: number): number { return this.#of(partition).length; }
  slice(partition: number, from: number, to: number): readonly Delivery[] { return this.#of(partition).slice(from, to); }

  /** Resolves on the next append, or on abort. */
  news(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        this.#waiting.delete(done);
        signal.removeEventListener('abort', done);
        resolve();
      };
      this.#waiting.add(done);
      signal.addEventListener('abort', done);
      if (signal.aborted) done();
    });
  }

  #of(partition: number): Delivery[] {
    const records = this.partitions[partition];
    if (records === undefined) throw new Error('assertion: a partition of the topic');
    return records;
  }

  #partitionOf({ partition, key }: OutgoingRecord): number {
    if (partition !== undefined && partition < this.partitions.length) return partition;
    let hash = 0x811c9dc5;
    for (const byte of key ?? []) hash = Math.imul(hash ^ byte, 0x01000193);
    return (hash >>> 0) % this.partitions.length;
  }
}

const copy = (bytes: Uint8Array | null): Uint8Array | null => (bytes === null ? null : Buffer.from(bytes));
const copyOf = (value: HeaderValue): Uint8Array | null => (typeof value === 'string' ? Buffer.from(value) : copy(value));
/** As a broker hands them over: one value of a name alone, several together. */
function copyHeaders(headers: Headers): Headers {
  return Object.fromEntries(Object.entries(headers).flatMap(([name, value]) => {
    const copies = headerValues(value).map(copyOf);
    const [first] = copies;
    return first === undefined ? [] : [[name, copies.length === 1 ? first : copies] as const];
  }));
}

class MemoryTopic implements Topic {
  readonly name: string;
  readonly #log: Log;

  constructor(log: Log) {
    this.name = log.name;
    this.#log = log;
  }

  async write(records: readonly OutgoingRecord[]): Promise<void> {
    for (const record of records) this.#log.append(record);
    this.#log.wake();
  }

  async look(): Promise<TopicLook | null> { return this.#log.gone ? null : { recordBytes: RECORD_BYTES }; }

  async *read({ signal }: { readonly signal: AbortSignal }): AsyncGenerator<readonly Delivery[], void, undefined> {
    const heads = this.#log.partitions.map((records) => records.length);
    for (const [partition, head] of heads.entries()) {
      for (let from = 0; from < head && !signal.aborted; from += BATCH_MAX) yield this.#log.slice(partition, from, Math.min(head, from + BATCH_MAX));
    }
  }

  async close(): Promise<void> {
    // Nothing is held.
  }
}

// ---- groups ------------------------------------------------------------------------------------------------------------

/** One member's time with one partition. */
interface Tenure { readonly partition: number; readonly member: Member; readonly lost: AbortController; /** Another has it, or will. */ revoked: boolean }
interface Member { take(tenure: Tenure): void }

class Group {
  readonly #log: Log;
  readonly #committed: number[];
  readonly #members: Member[] = [];
  readonly #tenures = new Map<number, Tenure>();

  constructor(log: Log) {
    this.#log = log;
    this.#committed = log.partitions.map(() => 0);
  }

  partitionsOf(member: Member): readonly number[] { return [...this.#tenures.values()].filter((tenure) => tenure.member === member).map(({ partition }) => partition); }

  committed(partition: number): number { return this.#committed[partition] ?? 0; }

  commit({ partition, revoked }: Tenure, offset: number): void {
    if (!revoked) this.#committed[partition] = offset;
  }

  join(member: Member): void {
    this.#members.push(member);
    this.#rebalance();
  }

  leave(member: Member): void {
    this.#members.splice(this.#members.indexOf(member), 1);
    this.#rebalance();
  }

  #rebalance(): void {
    for (const partition of this.#log.partitions.keys()) {
      const owner = this.#members[partition % Math.max(1, this.#members.length)];
      const before = this.#tenures.get(partition);
      if (before?.member === owner) continue;
      if (before !== undefined) {
        before.revoked = true;
        this.#tenures.delete(partition);
        before.lost.abort();
      }
      if (owner === undefined) continue;
      const tenure = { partition, member: owner, lost: new AbortController(), revoked: false };
      this.#tenures.set(partition, tenure);
      owner.take(tenure);
    }
  }
}

class MemorySource implements Source {
  readonly #log: Log;
  readonly #group: Group;
  readonly #sleep: MemoryBrokerOptions['sleep'];
  readonly #maxBatch: number;
  #member: Member | null = null;

  constructor(log: Log, group: Group, sleep: MemoryBrokerOptions['sleep'], maxBatch: number) {
    this.#log = log;
    this.#group = group;
    this.#sleep = sleep;
    this.#maxBatch = maxBatch;
  }

  async follow({ signal, handle }: Parameters<Source['follow']>[0]): Promise<void> {
    if (signal.aborted) return;
    const ending = new AbortController();
    const over = AbortSignal.any([signal, ending.signal]);
    /** By partition what this member works on there: a partition that comes back waits until its last batch is handled. */
    const working = new Map<number, Promise<void>>();
    let fault: { readonly error: unknown } | null = null;
    const member: Member = {
      take: (tenure) => {
        const before = working.get(tenure.partition) ?? Promise.resolve();
        working.set(tenure.partition, before.then(() => this.#work(tenure, over, handle)).catch((error: unknown) => {
          fault ??= { error };
          ending.abort();
        }));
      },
    };
    this.#member = member;
    this.#group.join(member);
    await new Promise<void>((resolve) => {
      if (over.aborted) resolve();
      else over.addEventListener('abort', () => resolve(), { once: true });
    });
    await Promise.all(working.values());
    this.#group.leave(member);
    this.#member = null;
    // TypeScript does not see that the callback above sets it.
    const met = fault as { readonly error: unknown } | null;
    if (met !== null) throw met.error;
  }

  assigned(): readonly { readonly topic: string; readonly partition: number }[] {
    return this.#member === null ? [] : this.#group.partitionsOf(this.#member).map((partition) => ({ topic: this.#log.name, partition }));
  }

  trouble(): string | null { return this.#member !== null && this.#log.gone ? 'the topic cannot be read: there is no such topic' : null; }

  async gaps(): Promise<readonly { readonly partition: number; readonly gap: number }[]> {
    return this.#log.partitions.map((_, partition) => ({ partition, gap: this.#log.head(partition) - this.#group.committed(partition) }));
  }

  async close(): Promise<void> {
    // Whoever follows leaves by its signal.
  }

  /** Hands over one partition for as long as this member has it. */
  async #work(tenure: Tenure, over: AbortSignal, handle: (batch: DeliveryBatch) => Promise<Handled>): Promise<void> {
    const signal = AbortSignal.any([over, tenure.lost.signal]);
    const { partition } = tenure;
    let at = this.#group.committed(partition);
    while (!signal.aborted) {
      const head = this.#log.head(partition);
      if (at >= head) {
        await this.#log.news(signal);
        continue;
      }
      const deliveries = this.#log.slice(partition, at, Math.min(head, at + this.#maxBatch));
      const from = at;
      const passed = (index: number): void => {
        if (from + index + 1 <= at) return;
        at = from + index + 1;
        this.#group.commit(tenure, at);
      };
      const handled = await handle({ topic: this.#log.name, partition, deliveries, gap: head - at - deliveries.length, signal, passed });
      if (handled.kind === 'paused') await this.#sleep(handled.ms, signal);
      // The loop may turn over microtasks alone: others get their turn.
      await setImmediate();
    }
  }
}
