// Between the subscription and the folds: events are read, and interpreted, while the batch before is being committed, and
// gathered until it pays to fold them. What keeps up is folded as it comes; what is behind is gathered to a large batch,
// since a fold writes each journey once per batch however many of its events stand in it.
import type { Position, RecordedEvent, SubscriptionBatch } from '../ports.ts';
import { workspaceOfStream } from '../../schemas/identity.ts';
import type { Crew } from './crew.ts';
import type { Room } from './projector.ts';
import type { Arrival } from './target.ts';

/** Events that one read of the subscription brings at most; also the first batch of all, so that progress shows soon. */
export const PAGE_MAX = 500;
/** Where commits are cut small anyhow, a larger batch writes nothing less. */
export const BATCH_CUT_MAX = 2000;
/**
 * So many of a batch are interpreted while the one before is being committed, once for all groups. Of a larger batch the
 * others are kept as they were read, and each group interprets them when it comes to them: 13 µs more, which is less than
 * moving their objects to the old generation and out of it.
 */
const KEPT_EVENTS = 4000;
/** Folding a batch is to take no longer: progress is told after it. Whoever is to stop or to take up another shard meanwhile gives it up half-way (target.ts). */
export const FOLD_MS_MAX = 20_000;
/** What a batch is made to take, as far as the one before can tell, which of a small first one is little: so it grows by steps. */
const FOLD_MS_AIM = 10_000;
const GROWTH_MAX = 8;
/** Nothing more came for so long: whatever the store said of being caught up, what there is gets folded. Pages of a store that has more come within a few milliseconds. */
const QUIET_MS = 25;

/** Gathered, and not folded yet. */
export interface Pending {
  readonly arrivals: readonly Arrival[];
  /** Those to which something happened, of this worker's. */
  readonly workspaces: ReadonlySet<string>;
  /** Everything up to here is among them. */
  readonly position: Position;
  readonly caughtUp: boolean;
  /** Whether it ended because no more was to be gathered. */
  readonly full: boolean;
}

/** How much is gathered: as long as batches are full, what takes FOLD_MS_AIM to fold; half as much when one took far too long. */
export class Pace {
  readonly #most: Pick<Room, 'batchMax' | 'batchBytesMax'>;
  #events: number;

  constructor(most: Pick<Room, 'batchMax' | 'batchBytesMax'>) {
    this.#most = most;
    this.#events = Math.min(PAGE_MAX, most.batchMax);
  }

  get events(): number { return this.#events; }

  isFull({ isCut }: Pick<Crew, 'isCut'>, events: number, bytes: number): boolean {
    return bytes >= this.#most.batchBytesMax || events >= (isCut ? Math.min(this.#events, BATCH_CUT_MAX) : this.#events);
  }

  took({ full }: Pick<Pending, 'full'>, ms: number): void {
    const { batchMax } = this.#most;
    if (ms > FOLD_MS_MAX) this.#events = Math.max(Math.min(PAGE_MAX, batchMax), this.#events / 2);
    else if (full && ms < FOLD_MS_AIM) this.#events = Math.min(batchMax, Math.floor(this.#events * Math.min(GROWTH_MAX, FOLD_MS_AIM / Math.max(1, ms))));
  }
}

export interface Gathered extends Arrival {
  /** Interprets it now, once for all who ask. */
  keep(): void;
}

export interface IntakeOptions {
  readonly crew: Crew;
  readonly pace: Pace;
  /** None for those that no group folds. */
  readonly read: (event: RecordedEvent) => readonly Gathered[];
  readonly wait: (ms: number, signal: AbortSignal) => Promise<void>;
}

/** One reader (`read`) and one folder (`take`). At most one batch is in the folder's hands and one gathered beside it. */
export class Intake {
  readonly #options: IntakeOptions;
  readonly #end = new AbortController();
  #arrivals: Arrival[] = [];
  #workspaces = new Set<string>();
  #bytes = 0;
  /** Null: nothing is gathered. */
  #position: Position | null = null;
  #caughtUp = false;
  #pages = 0;
  #ended: 'not yet' | 'by itself' | { readonly fault: unknown } = 'not yet';
  #onNews: () => void = nobody;
  #onRoom: () => void = nobody;

  constructor(options: IntakeOptions) { this.#options = options; }

  /** For the subscription: aborts with `close`. */
  get signal(): AbortSignal { return this.#end.signal; }

  /** Ends the reading; what is gathered is forgotten. */
  close(): void {
    this.#end.abort();
    this.#onRoom();
    this.#onNews();
  }

  /** Reads until the subscription ends, is closed or fails; never rejects: `take` tells. Waits while as much is gathered as is to be folded at once. */
  async read(subscription: AsyncIterable<SubscriptionBatch>): Promise<void> {
    try {
      for await (const page of subscription) {
        if (this.#isClosed()) break;
        this.#add(page);
        while (this.#isFull() && !this.#isClosed()) await new Promise<void>((resolve) => { this.#onRoom = resolve; });
      }
      this.#ended = 'by itself';
    } catch (fault) {
      this.#ended = { fault };
    }
    this.#onNews();
  }

  /**
   * What is to be folded next: at once when the store has no more, else when enough is gathered or no more comes. What was
   * gathered before the subscription ended is handed over first, then `ended` is said, or what it failed with thrown.
   * `idle`: nothing came for so long.
   */
  async take(idleMs: number): Promise<Pending | 'idle' | 'ended'> {
    while (!this.#isClosed()) {
      const gathered = this.#position;
      if (gathered !== null && (this.#caughtUp || this.#isFull() || this.#ended !== 'not yet')) return this.#handOver(gathered);
      if (typeof this.#ended === 'object') throw this.#ended.fault;
      if (this.#ended === 'by itself') break;
      if (await this.#newsWithin(gathered === null ? idleMs : QUIET_MS)) continue;
      return gathered === null ? 'idle' : this.#handOver(gathered);
    }
    return 'ended';
  }

  #isClosed(): boolean { return this.#end.signal.aborted; }

  #isFull(): boolean { return this.#position !== null && this.#options.pace.isFull(this.#options.crew, this.#arrivals.length, this.#bytes); }

  #add({ events, position, caughtUp }: SubscriptionBatch): void {
    for (const event of events) {
      const workspace = workspaceOfStream(event.stream);
      // What no shard of this worker lacks is left alone.
      if (workspace === null || !this.#options.crew.lacks(workspace, event.position)) continue;
      this.#workspaces.add(workspace);
      this.#bytes += event.data.length + event.metadata.length;
      for (const gathered of this.#options.read(event)) {
        if (this.#arrivals.length < KEPT_EVENTS) gathered.keep();
        this.#arrivals.push(gathered);
      }
    }
    this.#position = position;
    this.#caughtUp = caughtUp;
    this.#pages += 1;
    this.#onNews();
  }

  #handOver(position: Position): Pending {
    const pending: Pending = { arrivals: this.#arrivals, workspaces: this.#workspaces, position, caughtUp: this.#caughtUp, full: this.#isFull() };
    this.#arrivals = [];
    this.#workspaces = new Set();
    this.#bytes = 0;
    this.#position = null;
    this.#onRoom();
    return pending;
  }

  /** False when so many milliseconds passed without any. */
  async #newsWithin(ms: number): Promise<boolean> {
    const pages = this.#pages;
    const over = new AbortController();
    const news = new Promise<void>((resolve) => { this.#onNews = resolve; });
    await Promise.race([news, this.#options.wait(ms, over.signal)]);
    over.abort();
    this.#onNews = nobody;
    return this.#pages !== pages || this.#ended !== 'not yet' || this.#isClosed();
  }
}

const nobody = (): void => undefined;
