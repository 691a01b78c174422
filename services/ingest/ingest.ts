// Ingest: a topic's records through the door, partitions beside each other (design.md sections 2, 3 and 7). It passes
// nothing that is not durable in the store or on the dead-letter topic, and drops nothing: a partition that cannot go on
// stands still, says why, and tries again.
import type { WorkspaceKeys } from '../../schemas/identity.ts';
import type { Door, Sleep } from '../door.ts';
import type { Clock, DeliveryBatch, Handled, Source, Topic } from '../ports.ts';
import { Attempt, type Counting, type Stop } from './attempt.ts';

/** How long a partition that could not go on is left alone: doubled with each time that nothing passed. The most is what an operator waits for after a repair. */
const PAUSE_MIN_MS = 250;
const PAUSE_MAX_MS = 10_000;
/** A partition that should have been handed over again so long ago is another's. */
const FORGOTTEN_MS = 60_000;
/** A batch that takes longer is told of: longer than a store's own timeouts (environment.md: 16 s for an append to a frozen server). */
const SLOW_MS = 30_000;

export interface IngestOptions {
  readonly source: Pick<Source, 'follow' | 'assigned' | 'trouble'>;
  readonly deadLetters: Pick<Topic, 'write'>;
  readonly door: Pick<Door, 'receive'>;
  /** Null: there is no such workspace (yet). */
  readonly keysOf: (workspace: string) => WorkspaceKeys | null;
  /** Those that the topic may write to, at least one. */
  readonly workspaces: readonly string[];
  readonly maxEventBytes: number;
  readonly clock: Clock;
  readonly sleep: Sleep;
  /** Told whenever a partition is paused, and why. */
  readonly onFault?: (fault: unknown, paused: { readonly partition: number; readonly ms: number; readonly reason: string }) => void;
  /** Told of each batch of which records were written to the dead letters: how many, by the code of their rejection. */
  readonly onDeadLetters?: (told: { readonly partition: number; readonly count: number; readonly codes: Readonly<Record<string, number>> }) => void;
}

/** Since it was made. received = recorded + duplicates + deadLettered + returned + underWay (G4): each delivery by what became of it, one that comes again anew. */
export interface IngestCounts {
  readonly received: number;
  readonly recorded: number;
  readonly duplicates: number;
  readonly deadLettered: number;
  /** Those dead-lettered, by the rejection's code. */
  readonly rejected: Readonly<Record<string, number>>;
  /** Neither, and not passed: the source delivers them again, to us or to another. */
  readonly returned: number;
  readonly underWay: number;
  /** Without a key: a producer that does not key by identity has no order to be kept. */
  readonly keyless: number;
  readonly batches: number;
  /** Those that are this process's now, whether or not it was handed anything of them. */
  readonly partitions: readonly { readonly topic: string; readonly partition: number; readonly paused: boolean; /** Records not passed, as far as is known. */ readonly gap: number | null }[];
}

export interface Ingest {
  /** Resolves when the signal has aborted and what was under way is passed or left. Throws what no retry helps: the process ends then. */
  run(signal: AbortSignal): Promise<void>;
  counts(): IngestCounts;
  readiness(): { readonly ok: boolean; readonly reasons: readonly string[] };
}

interface Partition {
  readonly topic: string;
  readonly partition: number;
  gap: number | null;
  /** Since when a batch is under way. */
  busySinceMs: number | null;
  /** Times in a row that nothing passed. */
  failures: number;
  /** Why it stands still, and until when. */
  stop: { readonly reason: string; readonly untilMs: number } | null;
  /** Offsets behind what was passed that stand as dead letters already. */
  readonly written: Set<string>;
  /** The signal that tells of its loss, once it is listened to. */
  watched: AbortSignal | null;
}

export function createIngest(options: IngestOptions): Ingest {
  if (options.workspaces.length === 0) throw new Error('assertion: a topic lists the workspaces that it may write to');
  return new Following(options);
}

class Following implements Ingest {
  readonly #options: IngestOptions;
  readonly #partitions = new Map<string, Partition>();
  readonly #counting: Counting = { received: 0, recorded: 0, duplicates: 0, deadLettered: 0, returned: 0, underWay: 0, keyless: 0, rejected: {} };
  #batches = 0;
  #running = false;
  /** What ended it, where no retry helps. */
  #fatal: Stop | null = null;

  constructor(options: IngestOptions) { this.#options = options; }

  async run(signal: AbortSignal): Promise<void> {
    const ending = new AbortController();
    const stopping = AbortSignal.any([signal, ending.signal]);
    this.#running = true;
    try {
      await this.#options.source.follow({ signal: stopping, handle: (batch) => this.#handle(batch, stopping, ending) });
    } finally {
      this.#running = false;
    }
    if (this.#fatal !== null) throw this.#fatal.fault;
  }

  counts(): IngestCounts {
    this.#forget();
    const { rejected, ...counts } = this.#counting;
    return {
      ...counts, rejected: Object.fromEntries(Object.entries(rejected).map(([code, count]) => [code, count ?? 0])), batches: this.#batches,
      partitions: this.#assigned().map(({ topic, partition, known }) => ({ topic, partition, gap: known?.gap ?? null, paused: (known?.stop ?? null) !== null })),
    };
  }

  readiness(): { readonly ok: boolean; readonly reasons: readonly string[] } {
    this.#forget();
    const reasons = this.#assigned().flatMap(({ topic, partition, known }) => {
      const why = known === undefined ? null : this.#whyNot(known);
      return why === null ? [] : [`partition ${String(partition)} of ${topic} ${why}`];
    });
    const trouble = this.#running ? this.#options.source.trouble() : 'the topic is not followed';
    if (trouble !== null) reasons.unshift(trouble);
    return { ok: reasons.length === 0, reasons };
  }

  /** What is known of partitions that were another's meanwhile says nothing. */
  #assigned(): readonly { readonly topic: string; readonly partition: number; readonly known: Partition | undefined }[] {
    return [...this.#options.source.assigned()].sort((a, b) => a.partition - b.partition)
      .map(({ topic, partition }) => ({ topic, partition, known: this.#partitions.get(nameOf(topic, partition)) }));
  }

  #whyNot({ stop, busySinceMs }: Partition): string | null {
    if (stop !== null) return `stands still: ${stop.reason}`;
    const busyMs = busySinceMs === null ? 0 : this.#options.clock.now() - busySinceMs;
    return busyMs > SLOW_MS ? `has waited ${String(Math.floor(busyMs / 1000))} s for a batch to become durable` : null;
  }

  /** Never throws for what the world does: to a source that is a broken consumer, and it would start the next one into the same. */
  async #handle(batch: DeliveryBatch, stopping: AbortSignal, ending: AbortController): Promise<Handled> {
    const { door, deadLetters, keysOf, workspaces, maxEventBytes, sleep } = this.#options;
    const partition = this.#partition(batch);
    const { length } = batch.deliveries;
    partition.gap = batch.gap === null ? null : batch.gap + length;
    partition.busySinceMs = this.#options.clock.now();
    this.#batches += 1;
    const attempt = new Attempt(batch, { door, deadLetters, keysOf, rules: { workspaces, maxEventBytes }, sleep, stopping, counting: this.#counting, written: partition.written });
    const ended = await attempt.run();
    const codes = Object.fromEntries(attempt.deadLettered);
    const count = Object.values(codes).reduce((sum, one) => sum + one, 0);
    if (count > 0) this.#options.onDeadLetters?.({ partition: batch.partition, count, codes });
    partition.gap = batch.gap === null ? null : batch.gap + length - ended.passed;
    partition.busySinceMs = null;
    switch (ended.kind) {
      case 'done':
        partition.failures = 0;
        partition.stop = null;
        partition.written.clear();
        return { kind: 'done' };
      case 'left':
        this.#forgetPartition(partition);
        return { kind: 'done' };
      case 'stopped': break;
    }
    for (const { offset } of batch.deliveries.slice(0, ended.passed)) partition.written.delete(offset);
    return this.#pause(partition, ended.passed, ended.stop, batch.signal, ending);
  }

  #pause(partition: Partition, passed: number, stop: Stop, signal: AbortSignal, ending: AbortController): Handled {
    if (!stop.retriable) {
      this.#fatal ??= stop;
      ending.abort();
    }
    partition.failures = passed > 0 ? 0 : partition.failures + 1;
    const ms = Math.min(PAUSE_MAX_MS, PAUSE_MIN_MS * 2 ** Math.min(16, Math.max(0, partition.failures - 1)));
    partition.stop = { reason: stop.reason, untilMs: this.#options.clock.now() + ms };
    // Who loses the partition while it stands still has nothing more to say of it.
    if (signal.aborted) this.#forgetPartition(partition);
    else if (partition.watched !== signal) {
      partition.watched = signal;
      signal.addEventListener('abort', () => this.#forgetPartition(partition), { once: true });
    }
    this.#options.onFault?.(stop.fault, { partition: partition.partition, ms, reason: stop.reason });
    return { kind: 'paused', ms };
  }

  #partition({ topic, partition }: DeliveryBatch): Partition {
    const name = nameOf(topic, partition);
    let known = this.#partitions.get(name);
    if (known === undefined) this.#partitions.set(name, (known = { topic, partition, gap: null, busySinceMs: null, failures: 0, stop: null, written: new Set(), watched: null }));
    return known;
  }

  #forgetPartition(partition: Partition): void {
    const name = nameOf(partition.topic, partition.partition);
    if (this.#partitions.get(name) === partition) this.#partitions.delete(name);
  }

  #forget(): void {
    const nowMs = this.#options.clock.now();
    for (const partition of this.#partitions.values()) if (partition.stop !== null && partition.busySinceMs === null && nowMs > partition.stop.untilMs + FORGOTTEN_MS) this.#forgetPartition(partition);
  }
}

const nameOf = (topic: string, partition: number): string => `${topic}/${String(partition)}`;
