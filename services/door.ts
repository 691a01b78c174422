// The door: whatever comes in (HTTP, a file, Kafka) passes here, under the same rules (design.md sections 3 and 7).
// Decoded CloudEvents are identified, appended to their identity's stream, and answered once they are durable.
//
// Each stream has a lane: at most one append of a lane is in flight, what arrives meanwhile waits in order and goes as
// one append. Lanes run beside each other. A lane remembers the next revision and the last 256 event ids of its stream,
// so that the usual append is one call, and the usual redelivery is none.
import { hash } from 'node:crypto';
import type { CloudEvent, Decoded, Rejection, RejectionCode } from '../schemas/cloudevent.ts';
import { compareFacts, type Fact, type Instant } from '../schemas/facts.ts';
import type { Identified, WorkspaceKeys } from '../schemas/identity.ts';
import { type DeliveryOrigin, readRecorded, toNewEvent } from '../schemas/recorded.ts';
import { instantOf, msOf } from '../schemas/time.ts';
import { interpret } from '../schemas/vocabularies/index.ts';
import { OperatingError } from './errors.ts';
import { type AppendResult, type Clock, type EventStore, EXAMPLES_MAX, type NewEvent, type Position, type RandomBytes, type RecordedEvent, type Tally, type TallyExample, type ViewStore } from './ports.ts';

/** What became of one delivery. `position` is null for a duplicate that was found by its id alone. */
export type Receipt =
  | { readonly kind: 'recorded' | 'duplicate'; readonly id: string; readonly eventId: string; readonly stream: string; readonly position: Position | null }
  | { readonly kind: 'rejected'; readonly rejection: Rejection };

/** What a caller that goes on before the whole call is answered is told of it, as it happens. Neither may throw. */
export interface Told {
  /** A delivery, by its index in the call, is durable or refused for good. */
  readonly receipt?: (index: number, receipt: Receipt) => void;
  /**
   * A delivery could not be made durable. Told before anything of its identity that is handed over from now on could be
   * written, so that who hands over nothing more keeps every identity's order (G2).
   */
  readonly fault?: (fault: OperatingError) => void;
}
/** Where deliveries came from: one for all of a call, or one each. */
export type Origins = DeliveryOrigin | null | readonly (DeliveryOrigin | null)[];

/** What an event would become, nothing stored. `why` says why no fact came out, null when one did. */
export type DryRun =
  | {
    readonly kind: 'event'; readonly id: string; readonly eventId: string; readonly stream: string; readonly at: Instant; readonly vocabulary: string | null;
    readonly facts: readonly Fact[]; readonly why: { readonly code: 'noVocabulary' | 'saysNothing' | 'unreadable'; readonly reason: string } | null;
  }
  | { readonly kind: 'rejected'; readonly rejection: Rejection };

/** Resolves after `ms`, early when the signal aborts; never rejects. */
export type Sleep = (ms: number, signal?: AbortSignal) => Promise<void>;

export interface DoorLimits {
  /** Streams whose end is remembered. */
  readonly streamsMax: number;
  /** Event ids remembered over all streams (some 250 bytes each). */
  readonly rememberedMax: number;
  /** Accepted and not yet answered; beyond either, `receive` refuses. */
  readonly inFlightEventsMax: number;
  readonly inFlightBytesMax: number;
  /** One append (library-limits.md D.2: 512 KiB pass every server generation). */
  readonly appendEventsMax: number;
  readonly appendBytesMax: number;
  /** Tries of an append whose outcome is unknown, and of one that met a conflict. */
  readonly faultsMax: number;
  readonly conflictsMax: number;
  /** Distinct sources counted by name in one workspace; the rest are one. */
  readonly sourcesMax: number;
}
export const DOOR_LIMITS: DoorLimits = {
  streamsMax: 10_000, rememberedMax: 40_000, inFlightEventsMax: 50_000, inFlightBytesMax: 64 * 1024 * 1024,
  appendEventsMax: 500, appendBytesMax: 512 * 1024, faultsMax: 8, conflictsMax: 100, sourcesMax: 1000,
};

export interface DoorOptions {
  readonly store: EventStore;
  readonly clock: Clock;
  readonly random: RandomBytes;
  readonly sleep: Sleep;
  /** Where the counts by source go, once a second while there are any. */
  readonly tallies: Pick<ViewStore, 'addTallies' | 'tallies'>;
  readonly limits?: Partial<DoorLimits>;
  /** Told of every durable append. */
  readonly onAppend?: (seconds: number, events: number) => void;
  /** Told when counts could not be written; they are kept and tried again. */
  readonly onTallyFault?: (fault: unknown) => void;
}

/** Since this door was made. received = recorded + duplicates + rejected + failed (G4); `failed` were answered by an error, not acknowledged. */
export interface DoorCounts {
  readonly recorded: number;
  readonly duplicates: number;
  readonly reusedIds: number;
  readonly rejected: Readonly<Record<string, number>>;
  readonly failed: number;
  readonly conflicts: number;
  readonly faults: number;
  readonly inFlightEvents: number;
  readonly inFlightBytes: number;
  readonly streams: number;
  readonly remembered: number;
}

/** How many of a stream's last ids a lane remembers, and reads when it must look (design.md section 3). */
const WINDOW = 256;
const READ_PAGE = 1000;
const FLUSH_MS = 1000;
const SOURCE_LENGTH_MAX = 256;
export const OTHER_SOURCES = '(others)';
const UNKNOWN_SOURCE = '(unknown)';
/** Upper bounds in seconds. */
const LATENESS_BOUNDS = [1, 10, 60, 600, 3600, 86_400] as const;

interface Remembered { readonly position: Position; readonly content: number }

class Lane {
  readonly stream: string;
  /** Of the stream's last event as far as this door knows; -1: none. */
  revision = -1;
  /** What is known may not be so any more: read the tail before the next append. */
  stale = false;
  /** The last 256 ids at most, oldest first. */
  readonly recent = new Map<string, Remembered>();
  /** Fingerprint of (source, id) → event id, of those in `recent`. */
  readonly contents = new Map<number, string>();
  /** `<topic>/<partition>` → newest offset seen in this stream. */
  readonly offsets = new Map<string, bigint>();
  /** Every id of the stream, once a redelivery older than the window made it necessary. */
  all: Set<string> | null = null;
  queue: Item[] = [];

  constructor(stream: string) { this.stream = stream; }

  get remembered(): number { return this.recent.size + (this.all?.size ?? 0); }

  /** Takes in one stored event, in stream order. */
  remember(id: string, position: Position, content: number, origin: DeliveryOrigin | null): void {
    this.recent.set(id, { position, content });
    this.contents.set(content, id);
    this.all?.add(id);
    if (origin !== null) {
      const partition = partitionOf(origin);
      const offset = BigInt(origin.offset);
      if (offset > (this.offsets.get(partition) ?? -1n)) this.offsets.set(partition, offset);
    }
    if (this.recent.size <= WINDOW) return;
    for (const [oldest, { content: old }] of this.recent) {
      this.recent.delete(oldest);
      if (this.contents.get(old) === oldest) this.contents.delete(old);
      return;
    }
  }

  /** Whether only the whole stream can tell if this record was stored: it is no newer than what its partition brought, and the stream is longer than the window. */
  needsWhole(id: string, origin: DeliveryOrigin | null): boolean {
    if (origin === null || this.all !== null || this.revision < this.recent.size || this.recent.has(id)) return false;
    const newest = this.offsets.get(partitionOf(origin));
    return newest === undefined || BigInt(origin.offset) <= newest;
  }
}

/**
 * Lanes at rest: at least the half of the bounds that rested last, never more than the bounds, and always the last one.
 * Two halves, of which the older goes when the younger is full: an order of last use would cost a walk over what was
 * taken out of it. What is forgotten costs a conflict, no duplicate.
 */
class RestingLanes {
  readonly #streamsMax: number;
  readonly #rememberedMax: number;
  #young = new Half();
  #old = new Half();

  constructor({ streamsMax, rememberedMax }: DoorLimits) {
    this.#streamsMax = streamsMax / 2;
    this.#rememberedMax = rememberedMax / 2;
  }

  get size(): number { return this.#young.lanes.size + this.#old.lanes.size; }
  get remembered(): number { return this.#young.remembered + this.#old.remembered; }

  take(stream: string): Lane | null { return this.#young.take(stream) ?? this.#old.take(stream); }

  put(lane: Lane): void {
    this.#young.lanes.set(lane.stream, lane);
    this.#young.remembered += lane.remembered;
    if (this.#young.lanes.size < this.#streamsMax && this.#young.remembered < this.#rememberedMax) return;
    this.#old = this.#young;
    this.#young = new Half();
  }
}

class Half {
  readonly lanes = new Map<string, Lane>();
  remembered = 0;

  take(stream: string): Lane | null {
    const lane = this.lanes.get(stream);
    if (lane === undefined) return null;
    this.lanes.delete(stream);
    this.remembered -= lane.remembered;
    return lane;
  }
}

interface Call {
  readonly receipts: (Receipt | undefined)[];
  left: number;
  fault: OperatingError | null;
  readonly told: Told;
  readonly settle: () => void;
}

/** One delivery on its way. */
interface Item {
  readonly call: Call;
  readonly index: number;
  readonly workspace: string;
  readonly stream: string;
  readonly event: NewEvent;
  readonly cloudEvent: CloudEvent;
  readonly received: Uint8Array | undefined;
  readonly recordedMs: number;
  readonly origin: DeliveryOrigin | null;
  /** The revision that an append of it expected which was sent and never answered (-1: no stream); null: there is none. If that append stands, or comes to stand, then right behind this revision. */
  sentAfter: number | null;
  /** Deliveries of the same event that came into the same append. */
  readonly followers: Item[];
}

/** What one try led to; `rest` are the items still without an answer. */
type Step =
  | { readonly kind: 'done' }
  | { readonly kind: 'again'; readonly rest: readonly Item[] }
  | { readonly kind: 'conflict'; readonly rest: readonly Item[]; readonly revision: number }
  | { readonly kind: 'fault'; readonly rest: readonly Item[]; readonly fault: unknown };

export class Door {
  readonly #options: DoorOptions;
  readonly #limits: DoorLimits;
  readonly #tallies: Tallies;
  /** Lanes with work, which are never forgotten, and those at rest. */
  readonly #busy = new Map<string, Lane>();
  readonly #resting: RestingLanes;
  #inFlightEvents = 0;
  #inFlightBytes = 0;
  #calls = 0;
  #draining = false;
  readonly #whenEmpty: (() => void)[] = [];
  readonly #counts = { recorded: 0, duplicates: 0, reusedIds: 0, failed: 0, conflicts: 0, faults: 0 };
  readonly #rejected: Partial<Record<RejectionCode, number>> = {};

  constructor(options: DoorOptions) {
    this.#options = options;
    this.#limits = { ...DOOR_LIMITS, ...options.limits };
    this.#tallies = new Tallies(options, this.#limits.sourcesMax);
    this.#resting = new RestingLanes(this.#limits);
  }

  counts(): DoorCounts {
    return {
      ...this.#counts, rejected: { ...this.#rejected }, inFlightEvents: this.#inFlightEvents, inFlightBytes: this.#inFlightBytes,
      streams: this.#busy.size + this.#resting.size, remembered: [...this.#busy.values()].reduce((sum, lane) => sum + lane.remembered, this.#resting.remembered),
    };
  }

  /**
   * Records what was decoded under one workspace's keys; receipts in the order of the input, after everything is durable.
   * Calls are taken in the order in which they are made, before the first await, so a caller need not wait for one
   * answer to keep an identity's events in order. Throws OperatingError `storeBusy` before taking anything when too much
   * is in flight or the door is closing, and the store's error (`storeUnavailable` after bounded tries) when an event
   * could not be made durable: then some of the call may be recorded, and sending all of it again is safe. It is thrown
   * once nothing of the call is under way any more.
   */
  async receive(keys: WorkspaceKeys, decoded: readonly Decoded[], origins: Origins = null, told: Told = {}): Promise<readonly Receipt[]> {
    this.#admit(decoded.length);
    const { promise, resolve } = Promise.withResolvers<undefined>();
    const call: Call = { receipts: new Array<Receipt | undefined>(decoded.length), left: decoded.length, fault: null, told, settle: () => resolve(undefined) };
    const recordedMs = this.#options.clock.now();
    const taken = decoded.map((one, index) => this.#prepare(keys, one, { call, index, recordedMs, origin: originOf(origins, index) }));
    const bytes = taken.reduce((sum, one) => sum + (one.kind === 'rejected' ? 0 : sizeOf(one.item)), 0);
    this.#inFlightEvents += decoded.length;
    this.#inFlightBytes += bytes;
    this.#calls += 1;
    this.#enqueue(keys, taken, call, recordedMs);
    if (decoded.length > 0) await promise;
    this.#inFlightEvents -= decoded.length;
    this.#inFlightBytes -= bytes;
    this.#calls -= 1;
    if (this.#calls === 0) for (const wake of this.#whenEmpty.splice(0)) wake();
    if (call.fault !== null) throw call.fault;
    return call.receipts.filter((receipt) => receipt !== undefined);
  }

  /** What the events would become, by the same rules; nothing is stored or counted. */
  dryRun(keys: WorkspaceKeys, decoded: readonly Decoded[]): readonly DryRun[] {
    return dryRun(keys, decoded, this.#options.clock.now());
  }

  /** Takes nothing more, waits until everything taken is answered, and writes the counts. */
  async drain(): Promise<void> {
    this.#draining = true;
    if (this.#calls > 0) await new Promise<void>((resolve) => this.#whenEmpty.push(resolve));
    await this.#tallies.close();
  }

  // ---- taking in ----------------------------------------------------------------------------------------------------

  #admit(events: number): void {
    if (this.#draining) throw new OperatingError('storeBusy', 'the door is closing: nothing more is taken in');
    // One call larger than the bound is let through when it is alone, else it could never be.
    const tooMany = this.#inFlightEvents > 0 && this.#inFlightEvents + events > this.#limits.inFlightEventsMax;
    if (tooMany || this.#inFlightBytes > this.#limits.inFlightBytesMax) {
      throw new OperatingError('storeBusy', `${String(this.#inFlightEvents)} events wait to become durable: try again`);
    }
  }

  #prepare(keys: WorkspaceKeys, decoded: Decoded, delivery: Pick<Item, 'call' | 'index' | 'recordedMs' | 'origin'>): Prepared {
    const known = identify(keys, decoded);
    if (known.kind === 'rejected') return known;
    const event = toNewEvent(known.event, known.identified, { recordedAt: instantOf(delivery.recordedMs), origin: delivery.origin });
    return { kind: 'item', item: { ...delivery, workspace: keys.id, stream: known.identified.stream, event, cloudEvent: known.event, received: decoded.received, sentAfter: null, followers: [] } };
  }

  /** Answers the rejected at once, puts the others into their lanes, and starts those that rest: all of the call first, so that a stream's events go as one append. */
  #enqueue(keys: WorkspaceKeys, taken: readonly Prepared[], call: Call, nowMs: number): void {
    const woken: Lane[] = [];
    taken.forEach((one, index) => {
      if (one.kind === 'item') {
        const { lane, resting } = this.#lane(one.item.stream);
        lane.queue.push(one.item);
        if (resting) woken.push(lane);
        return;
      }
      this.#countRejection(keys.id, one.source, one.rejection.code, nowMs, one.received);
      answer(call, index, { kind: 'rejected', rejection: one.rejection });
    });
    for (const lane of woken) void this.#run(lane);
  }

  #lane(stream: string): { readonly lane: Lane; readonly resting: boolean } {
    const busy = this.#busy.get(stream);
    if (busy !== undefined) return { lane: busy, resting: false };
    const lane = this.#resting.take(stream) ?? new Lane(stream);
    this.#busy.set(stream, lane);
    return { lane, resting: true };
  }

  // ---- a lane -------------------------------------------------------------------------------------------------------

  /** Works off a lane's queue. Rejects for a programmer error only: whatever the store says is some call's answer. */
  async #run(lane: Lane): Promise<void> {
    while (lane.queue.length > 0) {
      const queue = lane.queue;
      lane.queue = [];
      for (let from = 0; from < queue.length;) {
        const { items, next } = this.#nextAppend(queue, from);
        const fault = await this.#write(lane, items);
        from = next;
        if (fault === null) continue;
        // What waits behind must not overtake what failed: whoever sent both will send both again, in order (G2).
        this.#fail([...queue.slice(next), ...lane.queue.splice(0)], fault);
        from = queue.length;
      }
    }
    this.#busy.delete(lane.stream);
    this.#resting.put(lane);
  }

  #nextAppend(queue: readonly Item[], from: number): { readonly items: readonly Item[]; readonly next: number } {
    const items = new Map<string, Item>();
    let bytes = 0;
    let next = from;
    // Where ids are not unique, an append whose answer is lost must lie in the window whole: else who sends all of it again would have a part of it recorded twice.
    const eventsMax = this.#options.store.idsAreUnique ? this.#limits.appendEventsMax : Math.min(WINDOW, this.#limits.appendEventsMax);
    for (; next < queue.length && items.size < eventsMax; next += 1) {
      const item = queue[next];
      if (item === undefined) break;
      const first = items.get(item.event.id);
      if (first !== undefined) { first.followers.push(item); continue; }
      bytes += sizeOf(item);
      if (bytes > this.#limits.appendBytesMax && items.size > 0) break;
      items.set(item.event.id, item);
    }
    return { items: [...items.values()], next };
  }

  /**
   * Makes the items durable, in order, each once. Returns the fault that ended it, which the items left were told of.
   *
   * Interleavings: another door may append to the stream at any time: then ours conflicts, and what it wrote is looked
   * up (or refused by the store, where ids are unique) before the next try. An append whose answer was lost may or may
   * not stand, or come to stand later, also between our reading and our next try, which is a repeat then. Where it would
   * stand is known, and an event found there with the very metadata that we sent is ours.
   */
  async #write(lane: Lane, items: readonly Item[]): Promise<OperatingError | null> {
    let rest = items;
    let conflicts = 0;
    let faults = 0;
    for (;;) {
      const step = await this.#step(lane, rest);
      if (step.kind === 'done') return null;
      rest = step.rest;
      switch (step.kind) {
        case 'again': break;
        case 'conflict':
          conflicts += 1;
          this.#counts.conflicts += 1;
          if (conflicts >= this.#limits.conflictsMax) return this.#giveUp(lane, rest, new OperatingError('storeUnavailable', 'others write the stream without pause'));
          if (!this.#options.store.idsAreUnique || rest.some((item) => item.sentAfter !== null)) lane.stale = true;
          else lane.revision = step.revision;
          // One conflict is news; more of them are two doors in step with each other.
          if (conflicts > 2) await this.#backOff(conflicts - 3);
          break;
        case 'fault':
          faults += 1;
          this.#counts.faults += 1;
          lane.stale = true;
          if (step.fault instanceof OperatingError && step.fault.code === 'eventTooLarge') return this.#writeEach(lane, rest);
          if (step.fault instanceof OperatingError && !step.fault.retriable) return this.#giveUp(lane, rest, step.fault);
          if (faults >= this.#limits.faultsMax) return this.#giveUp(lane, rest, new OperatingError('storeUnavailable', 'the event store did not take the events in time', { cause: step.fault }));
          await this.#backOff(faults - 1);
      }
    }
  }

  /** The store takes no append of this size: one by one then, and who is too large alone is refused, since no other try would end otherwise. */
  async #writeEach(lane: Lane, items: readonly Item[]): Promise<OperatingError | null> {
    const [only] = items;
    if (only !== undefined && items.length === 1) {
      this.#refuse(only, { code: 'tooLarge', attribute: null, reason: 'the event store takes no event of this size' });
      return null;
    }
    for (let i = 0; i < items.length; i += 1) {
      const fault = await this.#write(lane, items.slice(i, i + 1));
      if (fault === null) continue;
      this.#fail(items.slice(i + 1), fault);
      return fault;
    }
    return null;
  }

  /** One try: look where the lane is in doubt, drop what is there, append the rest. */
  async #step(lane: Lane, items: readonly Item[]): Promise<Step> {
    const { store } = this.#options;
    let rest = items;
    if (lane.stale) {
      const tail = await outcome(() => store.readStream(lane.stream, { direction: 'backward', limit: WINDOW }));
      if (tail.kind === 'fault') return { ...tail, rest };
      const below = tail.value.at(-1)?.revision ?? 0;
      const place = await outcome(() => this.#readPlace(lane, rest, below));
      if (place.kind === 'fault') return { ...place, rest };
      rest = this.#refresh(lane, this.#dropStanding(lane, rest, place.value), tail.value.toReversed());
    }
    if (!store.idsAreUnique && rest.some((item) => lane.needsWhole(item.event.id, item.origin))) {
      const ids = await outcome(() => this.#readIds(lane.stream));
      if (ids.kind === 'fault') return { ...ids, rest };
      lane.all = ids.value;
    }
    rest = this.#dropKnown(lane, rest);
    if (rest.length === 0) return { kind: 'done' };
    const startedMs = this.#options.clock.now();
    const answered = await outcome(() => store.append(lane.stream, lane.revision < 0 ? 'no_stream' : lane.revision, rest.map((item) => item.event)));
    if (answered.kind === 'fault') {
      for (const item of rest) item.sentAfter = lane.revision;
      return { ...answered, rest };
    }
    switch (answered.value.kind) {
      case 'appended':
        this.#options.onAppend?.((this.#options.clock.now() - startedMs) / 1000, rest.length);
        this.#appended(lane, rest, answered.value);
        return { kind: 'done' };
      case 'conflict': return { kind: 'conflict', rest, revision: answered.value.revision };
      case 'duplicate': return this.#repeated(lane, rest, answered.value.found);
    }
  }

  /** The store has some of these events, and wrote none. */
  async #repeated(lane: Lane, items: readonly Item[], found: ReadonlyMap<string, Position>): Promise<Step> {
    // Where a repeat is known by its revision alone, the stream ends further on than this lane believes: it would conflict, or be a repeat, for ever.
    if (!this.#options.store.idsAreUnique) lane.stale = true;
    const place = await outcome(() => this.#readPlace(lane, items, Infinity));
    if (place.kind === 'fault') return { ...place, rest: items };
    const rest = this.#dropFound(this.#dropStanding(lane, items, place.value), found);
    if (rest.length === items.length) throw new Error('a store called an append duplicate and named none of its events');
    return { kind: 'again', rest };
  }

  /** What stands where an unanswered append of these items would stand, below a revision. The tail may not reach down to it: others may have written behind it. */
  async #readPlace(lane: Lane, items: readonly Item[], below: number): Promise<readonly RecordedEvent[]> {
    const sentAfter = items.find((item) => item.sentAfter !== null)?.sentAfter ?? null;
    const limit = sentAfter === null ? 0 : Math.min(this.#limits.appendEventsMax, below - sentAfter - 1);
    return sentAfter === null || limit <= 0 ? [] : this.#options.store.readStream(lane.stream, { direction: 'forward', from: sentAfter + 1, limit });
  }

  /** Answers those items of an unanswered append that stand in its place: as recorded where they are the very ones sent, else somebody else's were first. */
  #dropStanding(lane: Lane, items: readonly Item[], place: readonly RecordedEvent[]): readonly Item[] {
    const standing = new Map(place.map((stored) => [stored.id, stored]));
    return items.filter((item) => {
      const stored = item.sentAfter === null ? undefined : standing.get(item.event.id);
      if (stored === undefined) return true;
      if (isOurs(stored, item)) this.#recorded(lane, item, stored.position);
      else this.#duplicate(item, stored.position);
      return false;
    });
  }

  #appended(lane: Lane, items: readonly Item[], { revision, positions }: Extract<AppendResult, { kind: 'appended' }>): void {
    lane.revision = revision;
    items.forEach((item, i) => {
      const position = positions[i];
      if (position === undefined) throw new Error('a store answered an append with fewer positions than events');
      this.#recorded(lane, item, position);
      lane.remember(item.event.id, position, fingerprint(item.cloudEvent), item.origin);
    });
  }

  /** Starts a lane again from the stream's tail (oldest first), and answers those items that an unanswered append of ours had written. */
  #refresh(lane: Lane, items: readonly Item[], tail: readonly RecordedEvent[]): readonly Item[] {
    const read = tail.map((stored) => ({ stored, ...readRecorded(stored) }));
    // The whole set of ids stays whole only if the tail reaches down to what was known.
    if ((tail[0]?.revision ?? 0) > lane.revision + 1) lane.all = null;
    const doubtful = new Map(items.filter((item) => item.sentAfter !== null).map((item) => [item.event.id, item]));
    const done = new Set<Item>();
    lane.recent.clear();
    lane.contents.clear();
    for (const { stored, event, origin } of read) {
      const item = doubtful.get(stored.id);
      if (item !== undefined && isOurs(stored, item)) {
        this.#recorded(lane, item, stored.position);
        done.add(item);
      }
      lane.remember(stored.id, stored.position, fingerprint(event), origin);
    }
    lane.revision = tail.at(-1)?.revision ?? -1;
    lane.stale = false;
    const rest = items.filter((item) => !done.has(item));
    // An append that expected an end which is none any more can never come to stand.
    for (const item of rest) if (item.sentAfter !== null && item.sentAfter < lane.revision) item.sentAfter = null;
    return rest;
  }

  #dropKnown(lane: Lane, items: readonly Item[]): readonly Item[] {
    return items.filter((item) => {
      const known = lane.recent.get(item.event.id);
      if (known === undefined && lane.all?.has(item.event.id) !== true) return true;
      this.#duplicate(item, known?.position ?? null);
      return false;
    });
  }

  #dropFound(items: readonly Item[], found: ReadonlyMap<string, Position>): readonly Item[] {
    return items.filter((item) => {
      const position = found.get(item.event.id);
      if (position !== undefined) this.#duplicate(item, position);
      return position === undefined;
    });
  }

  async #readIds(stream: string): Promise<Set<string>> {
    const ids = new Set<string>();
    for (let from = 0; ;) {
      const page = await this.#options.store.readStream(stream, { direction: 'forward', from, limit: READ_PAGE });
      for (const event of page) ids.add(event.id);
      const last = page.at(-1);
      if (last === undefined) return ids;
      from = last.revision + 1;
    }
  }

  #backOff(step: number): Promise<void> {
    const spread = 0.5 + (this.#options.random(1)[0] ?? 0) / 512;
    return this.#options.sleep(Math.min(1000, 20 * 2 ** step) * spread);
  }

  #giveUp(lane: Lane, items: readonly Item[], fault: OperatingError): OperatingError {
    lane.stale = true;
    this.#fail(items, fault);
    return fault;
  }

  #fail(items: readonly Item[], fault: OperatingError): void {
    for (const item of items.flatMap((one) => [one, ...one.followers])) {
      this.#counts.failed += 1;
      item.call.fault ??= fault;
      item.call.told.fault?.(fault);
      item.call.left -= 1;
      if (item.call.left === 0) item.call.settle();
    }
  }

  // ---- answers and counts -------------------------------------------------------------------------------------------

  #recorded(lane: Lane, item: Item, position: Position): void {
    const same = lane.contents.get(fingerprint(item.cloudEvent));
    const reused = same !== undefined && same !== item.event.id;
    this.#counts.recorded += 1;
    if (reused) this.#counts.reusedIds += 1;
    this.#tallies.accepted(item, reused ? 'reusedId' : 'recorded');
    answer(item.call, item.index, receiptOf('recorded', item, position));
    for (const follower of item.followers) this.#duplicate(follower, position);
  }

  #refuse(item: Item, rejection: Rejection): void {
    for (const one of [item, ...item.followers]) {
      this.#countRejection(one.workspace, one.cloudEvent.source, rejection.code, one.recordedMs, one.received);
      answer(one.call, one.index, { kind: 'rejected', rejection });
    }
  }

  #countRejection(workspace: string, source: string | null, code: RejectionCode, nowMs: number, received: Uint8Array | undefined): void {
    this.#rejected[code] = (this.#rejected[code] ?? 0) + 1;
    this.#tallies.rejected(workspace, source, code, nowMs, received);
  }

  #duplicate(item: Item, position: Position | null): void {
    for (const one of [item, ...item.followers]) {
      this.#counts.duplicates += 1;
      this.#tallies.accepted(one, 'duplicate');
      answer(one.call, one.index, receiptOf('duplicate', one, position));
    }
  }
}

/** The counts by workspace and source on their way to the view store. Bounded by the number of sources counted by name. */
class Tallies {
  readonly #options: DoorOptions;
  readonly #sourcesMax: number;
  readonly #pending = new Map<string, Map<string, Counting>>();
  /** Sources that have their own row, per workspace: those of earlier runs included, read when a workspace is first written. */
  readonly #named = new Map<string, Set<string>>();
  readonly #stop = new AbortController();
  #timer: Promise<void> | null = null;

  constructor(options: DoorOptions, sourcesMax: number) {
    this.#options = options;
    this.#sourcesMax = sourcesMax;
  }

  accepted(item: Item, as: 'recorded' | 'reusedId' | 'duplicate'): void {
    const counting = this.#counting(item.workspace, item.cloudEvent.source, item.recordedMs);
    if (as === 'duplicate') counting.duplicates += 1;
    else counting.recorded += 1;
    if (as === 'reusedId') counting.reusedIds += 1;
    if (item.cloudEvent.time === null) return;
    const bound = latenessBound((item.recordedMs - msOf(item.cloudEvent.time)) / 1000);
    counting.lateness[bound] = (counting.lateness[bound] ?? 0) + 1;
  }

  rejected(workspace: string, source: string | null, code: RejectionCode, nowMs: number, received: Uint8Array | undefined): void {
    const counting = this.#counting(workspace, source ?? UNKNOWN_SOURCE, nowMs);
    counting.rejected[code] = (counting.rejected[code] ?? 0) + 1;
    if (received !== undefined) addExamples(counting, code, [[hash('sha256', received), nowMs]]);
  }

  /** Writes what is left, after whatever write is under way. */
  async close(): Promise<void> {
    this.#stop.abort();
    await this.#timer;
    if (this.#pending.size > 0) await this.#flush();
  }

  #counting(workspace: string, source: string, seenMs: number): Counting {
    let sources = this.#pending.get(workspace);
    if (sources === undefined) this.#pending.set(workspace, (sources = new Map<string, Counting>()));
    const short = source.slice(0, SOURCE_LENGTH_MAX);
    const name = sources.has(short) || sources.size < this.#sourcesMax ? short : OTHER_SOURCES;
    let counting = sources.get(name);
    if (counting === undefined) sources.set(name, (counting = { recorded: 0, duplicates: 0, reusedIds: 0, rejected: {}, examples: new Map(), lateness: {}, seenMs }));
    counting.seenMs = Math.max(counting.seenMs, seenMs);
    if (!this.#stop.signal.aborted) this.#timer ??= this.#flushLater();
    return counting;
  }

  async #flushLater(): Promise<void> {
    await this.#options.sleep(FLUSH_MS, this.#stop.signal);
    await this.#flush();
    this.#timer = this.#pending.size > 0 && !this.#stop.signal.aborted ? this.#flushLater() : null;
  }

  /** A write that fails puts its counts back; one whose answer was lost counts twice, which a tally may. */
  async #flush(): Promise<void> {
    const taken = new Map(this.#pending);
    this.#pending.clear();
    try {
      const tallies: Tally[] = [];
      for (const [workspace, sources] of taken) tallies.push(...tallyRows(workspace, sources, await this.#namedIn(workspace), this.#sourcesMax));
      await this.#options.tallies.addTallies(tallies);
    } catch (fault) {
      for (const [workspace, sources] of taken) for (const [source, counting] of sources) addInto(this.#counting(workspace, source, counting.seenMs), counting);
      this.#options.onTallyFault?.(fault);
    }
  }

  async #namedIn(workspace: string): Promise<Set<string>> {
    let named = this.#named.get(workspace);
    if (named === undefined) {
      named = new Set((await this.#options.tallies.tallies(workspace)).map((tally) => tally.source));
      this.#named.set(workspace, named);
    }
    return named;
  }
}

interface Counting {
  recorded: number; duplicates: number; reusedIds: number; seenMs: number;
  rejected: Partial<Record<string, number>>; lateness: Partial<Record<string, number>>;
  /** Rejection code → hash of what was refused → when it came last, the latest last. */
  examples: Map<string, Map<string, number>>;
}

function addExamples(into: Counting, code: string, examples: Iterable<readonly [sha256: string, atMs: number]>): void {
  let known = into.examples.get(code);
  if (known === undefined) into.examples.set(code, (known = new Map<string, number>()));
  for (const [sha256, atMs] of examples) {
    const before = known.get(sha256) ?? 0;
    known.delete(sha256);
    known.set(sha256, Math.max(before, atMs));
  }
  for (const oldest of known.keys()) {
    if (known.size <= EXAMPLES_MAX) break;
    known.delete(oldest);
  }
}

function examplesOf(counting: Pick<Counting, 'examples'>): Pick<Tally, 'examples'> {
  if (counting.examples.size === 0) return {};
  return { examples: Object.fromEntries([...counting.examples].map(([code, found]) => [code, [...found].map(([sha256, atMs]): TallyExample => ({ sha256, at: new Date(atMs).toISOString() }))])) };
}

/** Rows to add; a source that comes after the bound was reached joins the others. */
function tallyRows(workspace: string, sources: ReadonlyMap<string, Counting>, named: Set<string>, sourcesMax: number): Tally[] {
  const rows = new Map<string, Counting>();
  for (const [source, counting] of sources) {
    if (!named.has(source) && named.size < sourcesMax) named.add(source);
    const name = named.has(source) ? source : OTHER_SOURCES;
    const row = rows.get(name);
    if (row === undefined) rows.set(name, counting);
    else addInto(row, counting);
  }
  return [...rows].map(([source, { seenMs, rejected, lateness, examples, ...counts }]) => ({
    workspace, source, ...counts, ...examplesOf({ examples }), rejected: defined(rejected), lateness: defined(lateness), lastSeen: new Date(seenMs).toISOString(),
  }));
}

function addInto(into: Counting, more: Counting): void {
  into.recorded += more.recorded;
  into.duplicates += more.duplicates;
  into.reusedIds += more.reusedIds;
  into.seenMs = Math.max(into.seenMs, more.seenMs);
  for (const [code, examples] of more.examples) addExamples(into, code, examples);
  for (const [code, count] of Object.entries(more.rejected)) into.rejected[code] = (into.rejected[code] ?? 0) + (count ?? 0);
  for (const [bound, count] of Object.entries(more.lateness)) into.lateness[bound] = (into.lateness[bound] ?? 0) + (count ?? 0);
}

const defined = (counts: Partial<Record<string, number>>): Record<string, number> => Object.fromEntries(Object.entries(counts).map(([name, count]) => [name, count ?? 0]));
const latenessBound = (seconds: number): string => String(LATENESS_BOUNDS.find((bound) => seconds <= bound) ?? 'inf');
const partitionOf = (origin: DeliveryOrigin): string => `${origin.topic}/${String(origin.partition)}`;
const isOurs = (stored: RecordedEvent, item: Item): boolean => Buffer.from(stored.metadata).equals(item.event.metadata);
const originOf = (origins: Origins, index: number): DeliveryOrigin | null => (isEach(origins) ? origins[index] ?? null : origins);
const isEach = (origins: Origins): origins is readonly (DeliveryOrigin | null)[] => Array.isArray(origins);
const sizeOf = (item: Item): number => item.event.data.length + item.event.metadata.length;

function answer(call: Call, index: number, receipt: Receipt): void {
  call.receipts[index] = receipt;
  call.told.receipt?.(index, receipt);
  call.left -= 1;
  if (call.left === 0) call.settle();
}

function receiptOf(kind: 'recorded' | 'duplicate', item: Item, position: Position | null): Receipt {
  return { kind, id: item.cloudEvent.id, eventId: item.event.id, stream: item.stream, position };
}

/** A store's answer, or that it threw: which says nothing of whether it did what was asked. */
async function outcome<T>(ask: () => Promise<T>): Promise<{ readonly kind: 'value'; readonly value: T } | { readonly kind: 'fault'; readonly fault: unknown }> {
  try {
    return { kind: 'value', value: await ask() };
  } catch (fault) {
    return { kind: 'fault', fault };
  }
}

/** 53 bits of (source, id): tells a reused id by chance of a false alarm below 2^-40 in a window, for a hundredth of a cryptographic hash's time (two multiply-xor lanes over the code units). */
function fingerprint({ source, id }: CloudEvent): number {
  let high = 0x9e3779b9;
  let low = 0x85ebca6b;
  const text = `${source}\n${id}`;
  for (let i = 0; i < text.length; i += 1) {
    const unit = text.charCodeAt(i);
    high = Math.imul(high ^ unit, 0x5bd1e995);
    low = Math.imul(low ^ unit, 0x1b873593);
    high ^= high >>> 15;
    low ^= low >>> 13;
  }
  return ((high >>> 11) * 0x1_0000_0000) + (low >>> 0);
}

type Prepared = { readonly kind: 'item'; readonly item: Item } | Refused;
interface Refused { readonly kind: 'rejected'; readonly rejection: Rejection; readonly source: string | null; readonly received: Uint8Array | undefined }

/** Whose event it is, under the keys of the workspace that it came in by. */
function identify(keys: WorkspaceKeys, decoded: Decoded): { readonly kind: 'known'; readonly event: CloudEvent; readonly identified: Identified } | Refused {
  const { received } = decoded;
  if (decoded.kind === 'rejected') return { ...decoded, received };
  const { event } = decoded;
  const named = event.attributes['workspace'];
  if (named !== undefined && String(named) !== keys.id) {
    return { kind: 'rejected', source: event.source, received, rejection: { code: 'wrongWorkspace', attribute: 'workspace', reason: 'the event names another workspace than the key it came with' } };
  }
  const identified = keys.identify(event);
  return identified.kind === 'rejected' ? { ...identified, source: event.source, received } : { kind: 'known', event, identified };
}

/** What events would become under these keys if they were received at `nowMs`. Pure. */
export function dryRun(keys: WorkspaceKeys, decoded: readonly Decoded[], nowMs: number): readonly DryRun[] {
  return decoded.map((one) => {
    const known = identify(keys, one);
    if (known.kind === 'rejected') return { kind: 'rejected', rejection: known.rejection };
    const { stream } = known.identified;
    const event = toNewEvent(known.event, known.identified, { recordedAt: instantOf(nowMs), origin: null });
    return { kind: 'event', id: known.event.id, eventId: event.id, stream, ...factsOf({ ...event, stream }) };
  });
}

/** The facts of a stored event in the order of every fold, and why there is none. */
export function factsOf(stored: Pick<RecordedEvent, 'id' | 'stream' | 'data' | 'metadata'>): Pick<Extract<DryRun, { kind: 'event' }>, 'at' | 'vocabulary' | 'facts' | 'why'> {
  const { vocabulary, interpreted } = interpret(readRecorded(stored));
  const facts = [...interpreted.interactionFacts, ...interpreted.customerFacts].sort(compareFacts);
  return { at: interpreted.at, vocabulary, facts, why: whyNothing(vocabulary, interpreted.type, facts) };
}

function whyNothing(vocabulary: string | null, type: string, facts: readonly Fact[]): Extract<DryRun, { kind: 'event' }>['why'] {
  if (vocabulary === null) return { code: 'noVocabulary', reason: `no vocabulary knows the type ${type}: the event is kept in its customer's history and says nothing of a journey` };
  const unreadable = facts.find((fact) => fact.kind === 'unreadable');
  if (unreadable !== undefined) return { code: 'unreadable', reason: unreadable.reason };
  return facts.length > 0 ? null : { code: 'saysNothing', reason: `the vocabulary ${vocabulary} knows the type ${type} and takes no fact from this event` };
}
