// The ports: what the programs need of a source of deliveries, an event store and a view store. Every adapter passes the
// same contract suite (test/contract/). Positions, generations and shards are shaped for EventStoreDB and Redis as much as
// for SQLite.
import type { FieldKind, RecordChange } from '../projections/projection.ts';
import type { Headers } from '../schemas/cloudevent.ts';

// ---- a source of deliveries (a Kafka topic) --------------------------------------------------------------------------

/** One record of a topic as it was delivered, perhaps again. */
export interface Delivery {
  readonly topic: string;
  readonly partition: number;
  /** Decimal digits. */
  readonly offset: string;
  /** Milliseconds since 1970: when the producer or broker says it was written. */
  readonly timestampMs: number;
  readonly key: Uint8Array | null;
  /** Null: a record without a value. */
  readonly value: Uint8Array | null;
  readonly headers: Headers;
}

/** Deliveries of one partition, in the order of their offsets, none left out. */
export interface DeliveryBatch {
  readonly topic: string;
  readonly partition: number;
  readonly deliveries: readonly Delivery[];
  /** How many records stand behind the last of these, as far as the source knows. */
  readonly gap: number | null;
  /** Aborts when this consumer learns that the partition is another's now (or is told to stop): what is under way may be finished or dropped; whoever has it now gets the same again. */
  readonly signal: AbortSignal;
  /** Everything up to this one (its index among the deliveries) needs no delivery any more. Only ever a growing, contiguous prefix. Committed soon after, and before `follow` resolves. */
  passed(index: number): void;
}

/** What became of a batch. `paused`: what was not passed could not be dealt with now; the partition is left alone for so many milliseconds and goes on from there. */
export type Handled = { readonly kind: 'done' } | { readonly kind: 'paused'; readonly ms: number };

export interface Source {
  /**
   * Hands batches over until the signal aborts: partitions beside each other, one batch of a partition at a time. While
   * `handle` works the membership of the group is kept up, however long that takes. Resolves after the batches under way
   * are handled and their offsets committed. Throws OperatingError: `sourceUnavailable` when it cannot go on by itself.
   */
  follow(options: { readonly signal: AbortSignal; readonly handle: (batch: DeliveryBatch) => Promise<Handled> }): Promise<void>;
  /** The partitions that whoever follows has now; none where nobody does. */
  assigned(): readonly { readonly topic: string; readonly partition: number }[];
  /** Why the topic cannot be read now though it is followed, and since when; null when it can. It may pass by itself: `follow` throws what does not. */
  trouble(): string | null;
  /** Records behind, per partition of the topic: head less what the group committed. */
  gaps(): Promise<readonly { readonly partition: number; readonly gap: number }[]>;
  close(): Promise<void>;
}

/** A record as it is to be written. */
export interface OutgoingRecord {
  readonly key: Uint8Array | null;
  readonly value: Uint8Array | null;
  readonly headers: Headers;
  /** Left out, or one that the topic does not have: chosen by the key, or any. */
  readonly partition?: number;
}

/** `recordBytes`: that key, value and headers of one record may have together; what brokers take unless told otherwise where that is not said. */
export interface TopicLook { readonly recordBytes: number }

/** Writes to and reads through one topic: the dead letters, and the topic itself for `publish`. */
export interface Topic {
  readonly name: string;
  /** Resolves once every record is durable on every in-sync replica (acks=all), in the order given per partition. Throws `sourceUnavailable`: then none, some or all may stand. */
  write(records: readonly OutgoingRecord[]): Promise<void>;
  /** What it takes; null where there is no such topic. Throws `sourceUnavailable`. */
  look(): Promise<TopicLook | null>;
  /** Every record from the first one kept to the heads as they are now, in order per partition. */
  read(options: { readonly signal: AbortSignal }): AsyncIterable<readonly Delivery[]>;
  close(): Promise<void>;
}

// ---- the event store -------------------------------------------------------------------------------------------------

/** Where an event stands in its store's one order: a fixed-width string, so that string order is position order. SQLite: 20 digits; EventStoreDB: commit and prepare, 20 digits each. Opaque outside the adapter, but for a share of the log. */
export type Position = string & { readonly __brand: 'Position' };

/** `no_stream`, or the revision of the last event that the writer believes in. */
export type ExpectedRevision = number | 'no_stream';

export interface NewEvent {
  /** A UUID (design.md section 3, "Event id"). */
  readonly id: string;
  /** The CloudEvent's type: what a store's own tools show. */
  readonly type: string;
  /** The bytes of the CloudEvent's data, as received. */
  readonly data: Uint8Array;
  /** JSON: the attributes and where the delivery came from (schemas/recorded.ts). */
  readonly metadata: Uint8Array;
}
export interface RecordedEvent extends NewEvent {
  readonly stream: string;
  /** 0 for the first event of its stream. */
  readonly revision: number;
  readonly position: Position;
}

export type AppendResult =
  /** Durable. `revision` is that of the last event appended; one position per event. */
  | { readonly kind: 'appended'; readonly revision: number; readonly positions: readonly Position[] }
  /** Nothing was written: the stream ends at `revision` (-1: there is none). */
  | { readonly kind: 'conflict'; readonly revision: number }
  /** Nothing was written: these ids are in the stream already. Where ids are not unique, only as far as the store recognises a repeat at the same revision. */
  | { readonly kind: 'duplicate'; readonly found: ReadonlyMap<string, Position> };

export interface SubscriptionBatch {
  readonly events: readonly RecordedEvent[];
  /** Everything up to here that the filter lets through has been handed over, this batch included. */
  readonly position: Position;
  /** True when nothing more was there at the time of reading. */
  readonly caughtUp: boolean;
}

export interface EventStore {
  /** Made once with the store; a view knows by it whose events it folded. */
  readonly storeId: string;
  /** Whether a stream refuses an event id that it already holds, however old. If not, the door reads the tail after every refusal. */
  readonly idsAreUnique: boolean;
  /** Appends all or nothing. A throw means that the outcome is unknown: read the tail. */
  append(stream: string, expected: ExpectedRevision, events: readonly NewEvent[]): Promise<AppendResult>;
  /** Forward: from `from` (default 0) upward. Backward: from `from` (default the end) downward. At most `limit` events. A missing stream is empty. */
  readStream(stream: string, options: { readonly direction: 'forward' | 'backward'; readonly from?: number; readonly limit: number }): Promise<readonly RecordedEvent[]>;
  /** Position of the last event of the store, null when it is empty. Freshly read. */
  head(): Promise<Position | null>;
  /** How many events stand after `position` (null: all), for the gap that an operator sees; null where the store cannot say. */
  gap(position: Position | null): Promise<number | null>;
  /** Events after `after` (null: from the start), in order, whose stream begins with one of `prefixes` (empty: all). Pull-based: the next batch is read when it is asked for. Ends when the signal aborts; a fault throws. When nothing comes, an empty batch with a moved position may be given so that a reader's checkpoint moves along. */
  subscribe(options: { readonly after: Position | null; readonly prefixes: readonly string[]; readonly maxBatch: number; readonly signal: AbortSignal }): AsyncIterable<SubscriptionBatch>;
  /** Events, streams and bytes on disk, for `status`; null what the store cannot say. */
  stats(): Promise<{ readonly events: number | null; readonly streams: number | null; readonly bytes: number }>;
  close(): Promise<void>;
}

// ---- views -----------------------------------------------------------------------------------------------------------

export interface Generation {
  readonly group: string;
  /** 1, 2, 3 … per group. */
  readonly id: number;
  /** Version of the projection that folds it. */
  readonly version: string;
  readonly shards: number;
  readonly storeId: string;
  /** Head of the log when it was made: readable once its position is not before this. Null: readable at once. */
  readonly target: Position | null;
  readonly createdAt: string;
  readonly fields: Readonly<Record<string, FieldKind>>;
  readonly subFields: Readonly<Record<string, Exclude<FieldKind, 'keyed'>>>;
  readonly ordered: readonly string[];
  /** The projection's own: a store may remember where the documents stand that searches bring along. */
  readonly recordSpace?: string;
}

export interface Commit {
  /** Position and, through the view, generation that this worker read. */
  readonly expected: Position | null;
  readonly position: Position;
  /** `live` commits only while its generation is the live one and nobody holds it; `build` only while it is not. */
  readonly role: 'live' | 'build';
  /** Key → JSON text; null deletes. Keys begin with `<workspace>/`. */
  readonly documents: ReadonlyMap<string, string | null>;
  /** By workspace. */
  readonly records: ReadonlyMap<string, readonly RecordChange[]>;
  /** Digest after this commit: 32 hex digits (the sum is moved by the projector, which knows the old documents). */
  readonly digest: string;
}
export type CommitResult =
  | { readonly kind: 'committed' }
  /** Somebody else committed first, or this is no longer the live generation: nothing was written; start again from what is there. */
  | { readonly kind: 'moved'; readonly position: Position | null; readonly live: number | null }
  /** A promotion holds the shard for a moment: try again. */
  | { readonly kind: 'held' };

export interface Clause { readonly field: string; readonly terms: readonly string[] }
export interface SearchQuery {
  readonly workspace: string;
  /** Milliseconds, both inclusive. */
  readonly from: number;
  readonly to: number;
  /** AND of clauses, each an OR of terms. A record matches when every clause does. */
  readonly clauses: readonly Clause[];
  /** AND of clauses that must all hold in one and the same sub-record. */
  readonly sub: readonly Clause[];
  readonly direction: 'asc' | 'desc';
  readonly limit: number;
  /** Keyset: rows strictly after this one in the order (time, id), both in `direction`. */
  readonly after: { readonly time: number; readonly id: string } | null;
  /** The total that the first page counted, carried on; null counts. */
  readonly total: number | null;
}
export interface SearchRow { readonly key: string; readonly time: number; readonly id: string; /** The document `<workspace>/<recordSpace>/<key>`, see `View.search`. */ readonly document: string | null }
export interface SearchResult {
  readonly rows: readonly SearchRow[];
  readonly total: number;
  /** Whether rows follow the last one (known by looking one further). */
  readonly more: boolean;
}

/** What one commit may hold: documents and records together, and the length of the documents' JSON. */
export interface CommitSize { readonly changes: number; readonly bytes: number }

export interface Walked { readonly documents: readonly { readonly key: string; readonly value: string }[]; readonly next: string | null }

export interface View {
  readonly generation: Generation;
  readonly shard: number;
  /**
   * What a commit to a view that readers see should keep to, so that none of them waits for it; one event whose effect is
   * larger goes whole. Null: a commit of any size keeps nobody waiting. Commits with positions before the generation's
   * target, which nobody reads yet, may be of any size.
   */
  readonly commitMax: CommitSize | null;
  position(): Promise<Position | null>;
  /** 32 hex digits; zeros when empty. */
  digest(): Promise<string>;
  /** JSON texts in the order of the keys, null where there is none. One snapshot. */
  load(keys: readonly string[]): Promise<readonly (string | null)[]>;
  /**
   * Some of all documents, in an order of the store's own: from the beginning (null) or from where the answer before
   * left off. One that stands from the first call to the last is given at least once. `next` is null at the end.
   */
  walk(from: string | null, limit: number): Promise<Walked>;
  /**
   * Keys of some documents by chance, each as likely as every other; `chance` gives 0 to 1. A few hundred at most, some of them
   * perhaps twice, perhaps none: who wants more asks again. A store that has no way to them but `walk` gives none.
   */
  draw(chance: () => number): Promise<readonly string[]>;
  /** Documents with from <= key < to, in key order, in a space declared as ordered. */
  scan(from: string, to: string, limit: number): Promise<readonly { readonly key: string; readonly value: string }[]>;
  commit(commit: Commit): Promise<CommitResult>;
  /** `documentSpace` names the documents to bring along: row.document is that of key `<workspace>/<documentSpace>/<row.key>`, read in the same snapshot. */
  search(query: SearchQuery, documentSpace: string): Promise<SearchResult>;
  stats(): Promise<{ readonly documents: number; readonly records: number; readonly bytes: number }>;
}

/** How long a hold stands at most: readers see nothing of it, and what is committed late is visible late (design.md section 5). */
export const HOLD_MS = 2000;
/** Commits are held up for a promotion. */
export interface Hold {
  /** The live generation that is held. */
  readonly generation: number;
  /** As often as one likes, also when it has ended by itself. */
  release(): Promise<void>;
}

/** Examples that are kept of each rejection code. */
export const EXAMPLES_MAX = 5;
/** What was refused, as far as it may be kept: whoever has the bytes can tell that it is these. */
export interface TallyExample {
  /** Of the bytes received: 64 hex digits. */
  readonly sha256: string;
  /** ISO instant of its latest delivery. */
  readonly at: string;
}

/** Counts of what the door saw, by workspace and source; a crash may lose the last second. */
export interface Tally {
  readonly workspace: string;
  readonly source: string;
  readonly recorded: number;
  readonly duplicates: number;
  readonly reusedIds: number;
  /** Rejection code → count. */
  readonly rejected: Readonly<Record<string, number>>;
  /** Rejection code → the last few of different content, the latest last. Left out where there is none (tallies of earlier versions have none). */
  readonly examples?: Readonly<Record<string, readonly TallyExample[]>>;
  /** Deliveries by how late they came (recorded time less `time`): upper bound in seconds → count; 'inf' for later. */
  readonly lateness: Readonly<Record<string, number>>;
  /** ISO instant of the latest delivery. */
  readonly lastSeen: string;
}

export interface ViewStore {
  generations(group: string): Promise<readonly Generation[]>;
  live(group: string): Promise<number | null>;
  createGeneration(generation: Omit<Generation, 'id' | 'createdAt'>): Promise<Generation>;
  /** The generation that was live before the one that is; null while there was none, and when it is dropped. */
  previous(group: string): Promise<number | null>;
  /**
   * Versions of the group's projection in the order in which they were first seen: those of the generations that stand, the
   * one given, which is noted with this, and all that were noted before. They are never forgotten.
   */
  seen(group: string, version: string): Promise<readonly string[]>;
  /** Flips the pointer if it stands at `from`, and, with a hold, only while that stands; answers whether it did. */
  promote(group: string, from: number | null, to: number, hold?: Hold): Promise<boolean>;
  /**
   * Lets no commit to the live generation through, in any of its shards: each answers `held`. It ends when it is released,
   * with whoever took it, and after HOLD_MS. Null while another stands, a commit is taking long, or nothing is live.
   */
  hold(group: string): Promise<Hold | null>;
  /** Drops a generation that is not live; false when it is. */
  dropGeneration(group: string, id: number): Promise<boolean>;
  /**
   * Takes or renews a lease for so many milliseconds; false while another holder has it. Leases save work and say who does
   * it; correctness never rests on them, since commits are fenced by position.
   */
  lease(name: string, holder: string, ms: number): Promise<boolean>;
  /** Gives a lease back, if it is this holder's. */
  release(name: string, holder: string): Promise<void>;
  /** The leases that stand now, whose names begin with the prefix, by name. */
  leases(prefix: string): Promise<readonly { readonly name: string; readonly holder: string }[]>;
  view(group: string, generation: number, shard: number): Promise<View>;
  /** Adds (counts are summed, lastSeen is the later). */
  addTallies(tallies: readonly Tally[]): Promise<void>;
  tallies(workspace: string): Promise<readonly Tally[]>;
  /** Bytes by which the views may still grow, as far as the store can tell; null where it cannot. */
  free(): Promise<number | null>;
  close(): Promise<void>;
}

// ---- how often one may ask -------------------------------------------------------------------------------------------

/** So many hits in any stretch of time of this length. */
export interface RateLimit { readonly hits: number; readonly windowMs: number }

export interface RateLimiter {
  /**
   * 0: the hit is within the limit, and counts until it is `windowMs` old. Else it does not count, and this is the time in
   * milliseconds until the earliest that counts is that old. One key under two limits is two windows. Throws
   * OperatingError: then it may or may not count.
   */
  hit(key: string, limit: RateLimit): Promise<number>;
  close(): Promise<void>;
}

// ---- examining a backend ---------------------------------------------------------------------------------------------

/** One thing that `doctor` looked at. Each server's adapter exports an `examine…` that never throws for what it finds. */
export interface Finding {
  /** `bad`: it will not work, or lose something; `warn`: it works, and an operator should know. */
  readonly level: 'ok' | 'warn' | 'bad';
  /** What was looked at, in a few words: `reachable`, `version`, `maxmemory-policy`. */
  readonly what: string;
  readonly found: string;
  /** What to do; null where all is well. */
  readonly advice: string | null;
}

// ---- what the world gives --------------------------------------------------------------------------------------------

export interface Clock {
  /** Milliseconds since 1970. */
  now(): number;
}
export type RandomBytes = (size: number) => Uint8Array;
