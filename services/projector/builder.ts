// A generation that nobody reads, folded from the log up to the positions that its builder names, shard by shard: to stand
// exactly where another generation stands, and be compared with it.
//
// One subscription stays open all the time and is read ahead of the fold, so that the last events before a promotion are
// at hand when commits are held: opening one, or waiting until a quiet store says how far it has been read, would take
// longer than a hold may.
import type { Projection } from '../../projections/projection.ts';
import type { WorkspaceKeys } from '../../schemas/identity.ts';
import { workspaceOfStream } from '../../schemas/identity.ts';
import { OperatingError } from '../errors.ts';
import type { Clock, EventStore, Generation, Position, SubscriptionBatch, View, ViewStore } from '../ports.ts';
import { highestOf, isBefore, lowestOf } from '../positions.ts';
import { Crew, type Slot } from './crew.ts';
import { type Gathered, Pace, PAGE_MAX } from './intake.ts';
import { PREFIXES, read, type Room } from './projector.ts';

export interface BuilderOptions {
  readonly events: EventStore;
  readonly views: ViewStore;
  readonly projection: Projection;
  readonly generation: Generation;
  /** Of the generation that is live meanwhile. */
  readonly live: number;
  readonly keysOf: (workspace: string) => Promise<WorkspaceKeys>;
  readonly room: Room;
  /** False: what nobody searches needs no index, which is half of the work. */
  readonly indexed?: boolean;
  readonly clock: Clock;
  /** Resolves after so many milliseconds, or when the signal aborts. */
  readonly wait: (ms: number, signal: AbortSignal) => Promise<void>;
  readonly signal: AbortSignal;
}

/** `moved`: somebody else folds this generation, or it is gone or live: open it anew, if it is still to be built. `late`: not by the given time. */
export type Built = 'there' | 'late' | 'stopped' | 'moved';
/** What a step of it came to. */
export interface BuildStep { readonly events: number; readonly through: Position }

export class Builder {
  readonly #options: BuilderOptions;
  readonly #crew: Crew;
  readonly #pace: Pace;
  readonly #tail: Tail;

  private constructor(options: BuilderOptions, crew: Crew) {
    this.#options = options;
    this.#crew = crew;
    this.#pace = new Pace(options.room);
    this.#tail = new Tail(options, crew);
  }

  /** Takes it up where it stands. Close it at the end. */
  static async open(options: BuilderOptions): Promise<Builder> {
    const { views, projection, generation, live, room, clock, indexed = true } = options;
    const crew = await Crew.open(views, [{ projection, generation, role: 'build', live }], { owned: 'all', shards: generation.shards, room, clock, indexed });
    return new Builder(options, crew);
  }

  /** Of each shard, as it was committed. */
  positions(): readonly (Position | null)[] { return this.#crew.slots.map(({ target }) => target.position); }
  /** Events folded here that a vocabulary knew and could not read. */
  get unreadable(): number { return this.#crew.slots.reduce((sum, { target }) => sum + target.work.unreadable, 0); }
  view(shard: number): View { return this.#slot(shard).target.view; }

  async close(): Promise<void> { await this.#tail.close(); }

  /**
   * Folds each shard to exactly its position; one of null, or that stands further already, is left alone. Until so many
   * milliseconds since 1970, when that is given. Throws what the stores throw.
   */
  async foldTo(positions: readonly (Position | null)[], each: (step: BuildStep) => Promise<void> = nothing, untilMs = Infinity): Promise<Built> {
    const { clock, signal } = this.#options;
    const wanted = this.#crew.slots.filter((slot) => isBefore(slot.target.position, positions[slot.target.view.shard] ?? null));
    const last = highestOf(wanted.map((slot) => positions[slot.target.view.shard] ?? null));
    if (last === null) return 'there';
    for (;;) {
      // What shards keep that are not wanted now, or have come as far as they are to, is neither waited for nor taken again.
      const after = lowestOf(wanted.filter((slot) => isBefore(slot.target.position, positions[slot.target.view.shard] ?? null)).map(({ target }) => target.position));
      await this.#tail.gathered(after, (count, bytes) => this.#pace.isFull(this.#crew, count, bytes), last, untilMs);
      if (signal.aborted) return 'stopped';
      if (clock.now() >= untilMs && isBefore(this.#tail.position, last)) return 'late';
      const startedMs = clock.now();
      const { arrivals, reached } = this.#tail.first(after, this.#pace.events);
      for (const slot of wanted) {
        const own = positions[slot.target.view.shard] ?? null;
        const result = reached === null || own === null ? 'there' : await this.#step(slot, arrivals, own < reached ? own : reached);
        if (result !== 'there') return result;
      }
      this.#pace.took({ full: arrivals.length > 0 && isBefore(reached, last) }, clock.now() - startedMs);
      if (reached !== null) await each({ events: this.#tail.forget(), through: reached });
      if (!isBefore(reached, last)) return 'there';
    }
  }

  async #step(slot: Slot, arrivals: readonly Gathered[], to: Position): Promise<Built> {
    if (!isBefore(slot.target.position, to)) return 'there';
    const ours = this.#crew.ours(slot, arrivals).filter(({ position }) => position <= to);
    const { kind } = await slot.target.step(ours, to, this.#options.keysOf, this.#options.signal);
    if (kind !== 'committed') return kind === 'stopped' ? 'stopped' : 'moved';
    slot.through = to;
    return 'there';
  }

  #slot(shard: number): Slot {
    const slot = this.#crew.slots[shard];
    if (slot === undefined) throw new Error('assertion: a shard of its generation');
    return slot;
  }
}

async function nothing(): Promise<void> { await Promise.resolve(); }

/** Reads ahead; what is read is kept until every shard has it. */
class Tail {
  readonly #crew: Crew;
  readonly #mostEvents: number;
  readonly #mostBytes: number;
  readonly #end = new AbortController();
  readonly #clock: Clock;
  readonly #wait: BuilderOptions['wait'];
  readonly #running: Promise<void>;
  #arrivals: Gathered[] = [];
  #bytes = 0;
  /** Events read and not told yet. */
  #untold = 0;
  #position: Position | null;
  /** What is taken next stands after this. */
  #after: Position | null = null;
  #fault: Error | null = null;
  #wake: () => void = nobody;
  #onRoom: () => void = nobody;

  constructor({ events, room, clock, wait, signal }: BuilderOptions, crew: Crew) {
    this.#crew = crew;
    this.#clock = clock;
    this.#wait = wait;
    // A batch in the fold, and another.
    [this.#mostEvents, this.#mostBytes] = [room.batchMax * 2, room.batchBytesMax * 2];
    this.#position = lowestOf(crew.slots.map(({ through }) => through));
    signal.addEventListener('abort', this.#stop);
    if (signal.aborted) this.#stop();
    this.#running = this.#read(events.subscribe({ after: this.#position, prefixes: PREFIXES, maxBatch: PAGE_MAX, signal: this.#end.signal })).finally(() => signal.removeEventListener('abort', this.#stop));
  }

  /** Everything up to here was read. */
  get position(): Position | null { return this.#position; }

  /** So many of what is kept after a position, and how far they reach. */
  first(after: Position | null, most: number): { readonly arrivals: readonly Gathered[]; readonly reached: Position | null } {
    const from = this.#indexAfter(after);
    const arrivals = this.#arrivals.slice(from, from + most);
    return { arrivals, reached: from + arrivals.length < this.#arrivals.length ? arrivals.at(-1)?.position ?? null : this.#position };
  }

  #indexAfter(position: Position | null): number {
    let [low, high] = [0, this.#arrivals.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (isBefore(position, this.#arrivals[middle]?.position ?? null)) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  /** Lets go of what every shard has; how many events were read since this was asked before. */
  forget(): number {
    const kept = this.#arrivals.filter(({ workspace, position }) => this.#crew.lacks(workspace, position));
    this.#bytes *= kept.length / Math.max(1, this.#arrivals.length);
    this.#arrivals = kept;
    const told = this.#untold;
    this.#untold = 0;
    this.#onRoom();
    return told;
  }

  /** Until enough is gathered after a position, `to` is reached, or it is late. Throws what the reading failed with. */
  async gathered(after: Position | null, isEnough: (count: number, bytes: number) => boolean, to: Position, untilMs: number): Promise<void> {
    this.#after = after;
    this.#onRoom();
    while (!this.#end.signal.aborted && isBefore(this.#position, to) && !this.#has(isEnough) && this.#clock.now() < untilMs) {
      if (this.#fault !== null) throw this.#fault;
      const news = new Promise<void>((resolve) => { this.#wake = resolve; });
      // Where time is bounded, the clock is looked at again even if nothing comes.
      const over = new AbortController();
      await Promise.race([news, ...(untilMs === Infinity ? [] : [this.#wait(LOOK_MS, over.signal)])]);
      over.abort();
    }
    if (this.#fault !== null) throw this.#fault;
  }

  async close(): Promise<void> {
    this.#stop();
    await this.#running;
  }

  readonly #stop = (): void => {
    this.#end.abort();
    this.#onRoom();
    this.#wake();
  };

  /** What can be taken. What is kept for a shard that stands still does not count: the others would wait for room, and it for nobody. */
  #ahead(): { readonly count: number; readonly bytes: number } {
    const count = this.#arrivals.length - this.#indexAfter(this.#after);
    // Each as large as the others: near enough for a bound on memory.
    return { count, bytes: (this.#bytes * count) / Math.max(1, this.#arrivals.length) };
  }

  #has(isEnough: (count: number, bytes: number) => boolean): boolean {
    const { count, bytes } = this.#ahead();
    return isEnough(count, bytes);
  }

  #isFull(): boolean {
    const { count, bytes } = this.#ahead();
    return count >= this.#mostEvents || bytes >= this.#mostBytes;
  }

  async #read(pages: AsyncIterable<SubscriptionBatch>): Promise<void> {
    try {
      for await (const page of pages) {
        this.#add(page);
        while (this.#isFull() && !this.#end.signal.aborted) await new Promise<void>((resolve) => { this.#onRoom = resolve; });
        if (this.#end.signal.aborted) return;
      }
      this.#fault = new OperatingError('storeUnavailable', 'the subscription ended by itself');
    } catch (fault) {
      this.#fault = fault instanceof Error ? fault : new Error(String(fault));
    }
    this.#wake();
  }

  #add({ events, position }: SubscriptionBatch): void {
    for (const event of events) {
      const workspace = workspaceOfStream(event.stream);
      if (workspace === null || !this.#crew.lacks(workspace, event.position)) continue;
      this.#bytes += event.data.length + event.metadata.length;
      this.#arrivals.push(...read(event));
    }
    if (this.#bytes > this.#mostBytes * KEPT_MAX) throw new OperatingError('storeBusy', 'a shard of the live generation stands still while others go on, and what is read for it fills the memory: start a project that folds it, then try again');
    this.#untold += events.length;
    this.#position = position;
    this.#wake();
  }
}

const LOOK_MS = 20;
/** Times what is read ahead: kept for shards that stand still, some 256 MB of events. */
const KEPT_MAX = 4;
const nobody = (): void => undefined;
