// One shard of one generation of a group, as the worker that folds it sees it: where it stands, the documents it holds in
// memory, and the one step fold → commit.
import { Packer } from '../../projections/packing.ts';
import type { Changes, Interpreted, Json, Projection, RecordChange } from '../../projections/projection.ts';
import type { WorkspaceKeys } from '../../schemas/identity.ts';
import { OperatingError } from '../errors.ts';
import type { Position, View } from '../ports.ts';
import { addHash, type Digest, digestText, DocumentHasher, EMPTY_DIGEST, parseDigest, removeHash, sameHash } from './digest.ts';

/** An event that a batch brought. `interpreted` may be worked out whenever it is asked for: a large batch is held as it was read, which is a fifth as much. */
export interface Arrival {
  readonly position: Position;
  readonly workspace: string;
  /** The same for all events of one identity. */
  readonly identity: string;
  readonly interpreted: Interpreted;
}

export type StepResult =
  | { readonly kind: 'committed'; readonly events: number; readonly documents: number }
  | { readonly kind: 'held' }
  /** The signal aborted before it was committed. */
  | { readonly kind: 'stopped' }
  /** Somebody else moved the view on, or promoted another generation: what is in memory no longer counts. */
  | { readonly kind: 'moved'; readonly live: number | null };

/** `text`: as it was read, until it is written; its hash is worked out when it is asked for, since most of what is only looked at is never replaced. */
interface Cached { value: Json; text: string | null; hash: Digest | null; readonly size: number; step: number }

/**
 * Text that the targets of one worker keep in memory together. Whoever has work has nearly all of it: one workspace alone
 * is two shards of many, and with an even share of each it would read again what it has just written.
 */
export class CacheRoom {
  readonly #sizeMax: number;
  /** Those that were used last at the end. */
  readonly #caches = new Set<DocumentCache>();

  constructor(sizeMax: number) { this.#sizeMax = sizeMax; }

  join(cache: DocumentCache): void { this.#caches.add(cache); }

  /** Between two folds of `current`. What others have beyond an even share goes first, but of those that are at rest alone: a fold holds what it loaded. */
  fit(current: DocumentCache): void {
    this.#caches.delete(current);
    const share = this.#sizeMax / (this.#caches.size + 1);
    let over = current.size - this.#sizeMax;
    for (const { size } of this.#caches) over += size;
    for (const cache of this.#caches) {
      if (over <= 0) break;
      if (!cache.isUsed) over -= cache.cut(Math.max(share, cache.size - over));
    }
    current.cut(over <= 0 ? Infinity : Math.max(share, current.size - over));
    this.#caches.add(current);
  }
}

/** Documents by full key, oldest use first; what a refused commit touched is forgotten with everything else. */
class DocumentCache {
  readonly #entries = new Map<string, Cached>();
  #size = 0;
  /** Number of the step: an entry is moved to the end once in each that uses it. */
  #step = 0;
  /** A fold is under way. */
  isUsed = false;

  get size(): number { return this.#size; }

  get(key: string): Cached | undefined {
    const found = this.#entries.get(key);
    if (found === undefined || found.step === this.#step) return found;
    found.step = this.#step;
    this.#entries.delete(key);
    this.#entries.set(key, found);
    return found;
  }
  set(key: string, { value, text, hash, length }: { value: Json; text: string | null; hash: Digest | null; length: number }): void {
    const old = this.#entries.get(key);
    const size = ENTRY_SIZE + length;
    this.#size += size - (old?.size ?? 0);
    if (old !== undefined && old.step !== this.#step) this.#entries.delete(key);
    this.#entries.set(key, { value, text, hash, size, step: this.#step });
  }
  /** Between folds only. How much went. */
  cut(sizeMax: number): number {
    const before = this.#size;
    this.#step += 1;
    for (const [key, entry] of this.#entries) {
      if (this.#size <= sizeMax) break;
      this.#entries.delete(key);
      this.#size -= entry.size;
    }
    return before - this.#size;
  }
  clear(): void { this.#entries.clear(); this.#size = 0; }
}

/** What an entry holds besides its text; of a document that is not there, all of it. */
const ENTRY_SIZE = 100;

/**
 * Characters of stored text that the fold under way may have read where a step has several events: as objects some eight
 * times as much (measured: 11 KB a journey of ten events), well within the heap of the projector's thread. What the step
 * wrote so far stays text, with index terms about as long, and counts a quarter.
 */
const STEP_BYTES_MAX = 12 * 1024 * 1024;
const WRITTEN_SHARE = 4;
const LOAD_KEYS = 256;
/** Characters of text kept from part to part: what many journeys share, such as the cells that count them. What belongs to one customer is not asked for again. */
const PART_CACHE_BYTES = 512 * 1024;

const NO_RECORDS: ReadonlyMap<string, readonly RecordChange[]> = new Map();

type KeysOf = (workspace: string) => Promise<WorkspaceKeys>;
/** What a step is done by. The signal is heard between two parts. */
interface By { readonly keysOf: KeysOf; readonly signal: AbortSignal | undefined }

/** What a step may come to. */
interface Bounds { readonly read: number; readonly changes: number; readonly bytes: number }
/** Of a bound, how much is aimed at: events differ, and a step that comes out too large is folded again. */
const AIM = 0.8;
/** Events of the first step whose commit is bounded, while nothing is known of their effect. */
const FIRST_EVENTS = 32;

/** How many events go into a step, by what those of the steps before came to. */
class Portions {
  /** Of one event. */
  #effect: Bounds | null = null;
  /** What came out too large was cut in halves; what did not grows again. */
  #most = Infinity;

  next(bounds: Bounds): number {
    const effect = this.#effect;
    if (effect === null) return Math.min(this.#most, bounds.changes === Infinity ? Infinity : FIRST_EVENTS);
    const fits = Math.min(bounds.read / effect.read, bounds.changes / effect.changes, bounds.bytes / effect.bytes);
    return Math.max(1, Math.min(this.#most, Math.floor(fits * AIM)));
  }

  /** The last effect counts half, and at once where it is larger. */
  came(events: number, { read, changes, bytes }: Bounds): void {
    const old = this.#effect;
    const moved = (before: number | undefined, total: number): number => {
      const now = total / events;
      return before === undefined || now > before ? now : (before + now) / 2;
    };
    this.#effect = { read: moved(old?.read, read), changes: moved(old?.changes, changes), bytes: moved(old?.bytes, bytes) };
    this.#most = Math.max(this.#most, events * 2);
  }

  tooMany(events: number): void { this.#most = Math.max(1, events >> 1); }
}

export class Target {
  readonly projection: Projection;
  readonly view: View;
  readonly role: 'live' | 'build';
  readonly #indexed: boolean;
  readonly #cacheRoom: CacheRoom;
  readonly #cache = new DocumentCache();
  readonly #stepBytesMax: number;
  readonly #foldMax: number;
  readonly #portions = new Portions();
  /** Of the step under way: characters of text that it holds, and how many it may hold. */
  #stepBytes = 0;
  #stepMost = Infinity;
  /** What it will commit. */
  #documents = new Map<string, string | null>();
  #position: Position | null = null;
  #digest: Digest = EMPTY_DIGEST;
  readonly #hasher = new DocumentHasher();
  readonly #packer = new Packer();
  /** Documents written and events folded since the start, and of those how many a vocabulary knew and could not read: for metrics, and for tests that count work. */
  readonly work = { events: 0, unreadable: 0, documents: 0, bytes: 0, loaded: 0, commits: 0 };

  constructor(options: { projection: Projection; view: View; role: 'live' | 'build'; indexed?: boolean; cache: CacheRoom; stepBytesMax?: number; foldMax?: number }) {
    this.projection = options.projection;
    this.view = options.view;
    this.role = options.role;
    this.#indexed = options.indexed ?? true;
    this.#cacheRoom = options.cache;
    this.#cacheRoom.join(this.#cache);
    this.#stepBytesMax = options.stepBytesMax ?? STEP_BYTES_MAX;
    this.#foldMax = options.foldMax ?? Infinity;
  }

  get position(): Position | null { return this.#position; }
  /** Characters of text held in memory (as objects, some eight times as much), bounded between two steps. */
  get cached(): number { return this.#cache.size; }

  /** Reads where the view stands; forgets what memory says of it. */
  async resume(): Promise<void> {
    this.#cache.clear();
    this.#position = await this.view.position();
    this.#digest = parseDigest(await this.view.digest());
  }

  /**
   * Folds the arrivals that this view lacks and commits them with `position`: at once, or where that would be more than a
   * commit or memory may hold, in several commits one after the other, each of whole events. The result is the same, since
   * no fold depends on how events are split; of a step that is not `committed` some commits may stand, and what they hold
   * is left out when it is asked for again. What a store throws is passed on; whether the commit stands is then unknown,
   * and another `step` finds out: it is `moved` if so.
   */
  async step(arrivals: readonly Arrival[], position: Position, keysOf: KeysOf, signal?: AbortSignal): Promise<StepResult> {
    this.#cache.isUsed = true;
    try {
      return await this.#portion(arrivals, position, { keysOf, signal });
    } catch (fault) {
      // A fold changes documents in place: whatever was not committed must not be seen by the next fold.
      this.#cache.clear();
      // A step reads in several snapshots. When another worker commits between two of them the fold sees documents that
      // never stood together, and its assertions say so: that is no bug while the view is no longer where the step began.
      if (fault instanceof OperatingError) throw fault;
      const from = this.#position;
      await this.resume();
      if (this.#position === from) throw fault;
      return { kind: 'moved', live: null };
    } finally {
      this.#cache.isUsed = false;
    }
  }

  async #portion(arrivals: readonly Arrival[], position: Position, by: By): Promise<StepResult> {
    const start = this.#position;
    const done = { events: 0, documents: 0 };
    if (start !== null && position <= start) return { kind: 'committed', ...done };
    const wanted = start === null ? arrivals : arrivals.filter((arrival) => arrival.position > start);
    for (let from = 0; from < wanted.length;) {
      const bounds = this.#bounds(wanted[from]?.position ?? position);
      const size = this.#alike(wanted, from, Math.min(wanted.length - from, this.#portions.next(bounds)));
      const events = wanted.slice(from, from + size);
      const last = events.at(-1)?.position ?? position;
      const reaches = from + size === wanted.length && this.#isUnread(last) === this.#isUnread(position);
      const result = await this.#step(events, reaches ? position : last, bounds, by);
      if (result.kind === 'tooMuch') {
        this.#cache.clear();
        this.#portions.tooMany(size);
        continue;
      }
      if (result.kind !== 'committed') return result;
      done.events += result.events;
      done.documents += result.documents;
      from += size;
    }
    if (this.#position !== null && this.#position >= position) return { kind: 'committed', ...done };
    const result = await this.#step([], position, this.#bounds(position), by);
    return result.kind === 'tooMuch' || result.kind === 'committed' ? { kind: 'committed', ...done } : result;
  }

  #isUnread(position: Position): boolean {
    const { target } = this.view.generation;
    return this.role === 'build' || this.view.commitMax === null || (target !== null && position < target);
  }

  #bounds(position: Position): Bounds {
    const most = this.view.commitMax;
    const read = this.#stepBytesMax;
    return most === null || this.#isUnread(position) ? { read, changes: Infinity, bytes: Infinity } : { read, ...most };
  }

  /** How many of so many events, from this one on, have its bounds: what nobody reads yet and what somebody does are not committed together. */
  #alike(wanted: readonly Arrival[], from: number, size: number): number {
    const isUnread = this.#isUnread(wanted[from]?.position as Position);
    let count = 1;
    while (count < size && this.#isUnread(wanted[from + count]?.position as Position) === isUnread) count += 1;
    return count;
  }

  /** One commit; `tooMuch` when it would be more than the bounds allow, which one event alone never is. */
  async #step(wanted: readonly Arrival[], position: Position, bounds: Bounds, by: By): Promise<StepResult | { readonly kind: 'tooMuch' }> {
    const from = this.#position;
    const made = await this.#foldParts(wanted, bounds, by);
    if (made === null) return { kind: 'tooMuch' };
    if (made === 'stopped') {
      this.#cache.clear();
      return { kind: 'stopped' };
    }
    const { records, digest, came, unreadable } = made;
    const documents = this.#documents;
    const result = await this.view.commit({ expected: from, position, role: this.role, documents, records: this.#indexed ? records : NO_RECORDS, digest: digestText(digest) });
    // As after a throw, and the position may be another.
    if (result.kind !== 'committed') {
      await this.resume();
      return result.kind === 'held' ? { kind: 'held' } : { kind: 'moved', live: result.live };
    }
    this.#position = position;
    this.#digest = digest;
    this.#cacheRoom.fit(this.#cache);
    if (wanted.length > 0) this.#portions.came(wanted.length, came);
    this.work.events += wanted.length;
    this.work.unreadable += unreadable;
    this.work.documents += documents.size;
    this.work.bytes += came.bytes;
    this.work.commits += 1;
    return { kind: 'committed', events: wanted.length, documents: documents.size };
  }

  /** What a commit of these will hold; its documents are in `#documents`. Null when that is too much. */
  async #foldParts(wanted: readonly Arrival[], bounds: Bounds, { keysOf, signal }: By): Promise<{ readonly records: ReadonlyMap<string, readonly RecordChange[]>; readonly digest: Digest; readonly came: Bounds; readonly unreadable: number } | 'stopped' | null> {
    const records = new Map<string, readonly RecordChange[]>();
    const isBounded = wanted.length > 1;
    let [digest, changes, bytes, read, unreadable] = [this.#digest, 0, 0, 0, 0];
    this.#documents = new Map();
    this.#stepMost = isBounded ? bounds.read : Infinity;
    for (const [workspace, events] of byWorkspace(wanted)) {
      const merged = new RecordChanges();
      const parts = partsOf(events, this.#foldMax);
      for (const part of parts) {
        if (signal?.aborted === true) return 'stopped';
        this.#stepBytes = bytes / WRITTEN_SHARE;
        const said = part.map(({ interpreted }) => interpreted);
        unreadable += said.reduce((sum, { customerFacts }) => sum + (customerFacts.some(({ kind }) => kind === 'unreadable') ? 1 : 0), 0);
        const folded = await this.#fold(workspace, said, await keysOf(workspace));
        const moved = folded === null ? null : await this.#put(workspace, folded, digest);
        if (folded === null || moved === null || !merged.add(folded.records)) return null;
        digest = moved.digest;
        bytes += moved.bytes;
        read = Math.max(read, this.#stepBytes);
        if (isBounded && (this.#documents.size + changes + merged.size > bounds.changes || bytes > bounds.bytes)) return null;
        if (parts.length > 1) this.#cache.cut(PART_CACHE_BYTES);
      }
      changes += merged.size;
      if (merged.size > 0) records.set(workspace, merged.all());
    }
    return { records, digest, came: { read, changes: this.#documents.size + changes, bytes }, unreadable };
  }

  /** Null when it asks for more than a step may hold; its work so far is void then. */
  async #fold(workspace: string, events: readonly Interpreted[], keys: WorkspaceKeys): Promise<Changes | null> {
    const fold = this.projection.fold(events, keys);
    let step = fold.next();
    while (step.done !== true) {
      const asked = step.value;
      const found = new Map<string, Json>();
      if (!(await this.#load(workspace, asked, found))) return null;
      step = fold.next(found);
    }
    return step.value;
  }

  /** Brings documents into memory, and into `found` by their names; false when a step would hold too much, which is noticed between two reads of at most LOAD_KEYS. */
  async #load(workspace: string, names: Iterable<string>, found: Map<string, Json> | null): Promise<boolean> {
    const missing: string[] = [];
    for (const name of names) {
      const known = this.#cache.get(`${workspace}/${name}`);
      if (known !== undefined) found?.set(name, known.value);
      else if (!this.#takeWritten(`${workspace}/${name}`, name, found)) missing.push(name);
    }
    for (let start = 0; start < missing.length; start += LOAD_KEYS) {
      const some = missing.slice(start, start + LOAD_KEYS);
      const keys = some.map((name) => `${workspace}/${name}`);
      const texts = await this.view.load(keys);
      this.work.loaded += some.length;
      for (const text of texts) this.#stepBytes += text?.length ?? 0;
      if (this.#stepBytes > this.#stepMost) return false;
      some.forEach((name, i) => this.#take(keys[i] ?? '', name, texts[i] ?? null, found));
    }
    return true;
  }

  /** What an earlier part of the step under way wrote; false where none did. */
  #takeWritten(key: string, name: string, found: Map<string, Json> | null): boolean {
    const text = this.#documents.get(key);
    if (text === undefined) return false;
    this.#take(key, name, text, found);
    return true;
  }

  #take(key: string, name: string, text: string | null, found: Map<string, Json> | null): void {
    const value = text === null ? null : this.projection.unpack(name, text);
    this.#cache.set(key, { value, text, hash: null, length: text?.length ?? 0 });
    found?.set(name, value);
  }

  /** Adds a fold's documents to the commit and moves the digest; those whose text did not change are left out. Null when what they replace is more than a step may hold. */
  async #put(workspace: string, changes: Changes, before: Digest): Promise<{ readonly digest: Digest; readonly bytes: number } | null> {
    if (!(await this.#load(workspace, changes.documents.keys(), null))) return null;
    let digest = before;
    let bytes = 0;
    for (const [name, value] of changes.documents) {
      const key = `${workspace}/${name}`;
      const stored = this.#cache.get(key);
      const text = value === null ? null : this.projection.pack(name, value, this.#packer);
      // Not written since it was read: its text tells whether it changed. Else its hash does.
      const old = stored === undefined ? null : (stored.hash ?? (stored.text === null || stored.text === text ? null : this.#hasher.hash(key, stored.text)));
      const now = text === null ? null : this.#hasher.hash(key, text);
      const isSame = text === null ? old === null : stored?.text === text || (old !== null && now !== null && sameHash(old, now));
      this.#cache.set(key, { value, text: null, hash: now, length: text?.length ?? 0 });
      if (isSame) continue;
      if (old !== null) digest = removeHash(digest, old);
      if (now !== null) digest = addHash(digest, now);
      this.#documents.set(key, text);
      bytes += text?.length ?? 0;
    }
    return { digest, bytes };
  }
}

function byWorkspace(arrivals: readonly Arrival[]): Map<string, Arrival[]> {
  const groups = new Map<string, Arrival[]>();
  for (const arrival of arrivals) {
    const group = groups.get(arrival.workspace);
    if (group === undefined) groups.set(arrival.workspace, [arrival]);
    else group.push(arrival);
  }
  return groups;
}

/** All at once, or cut into parts of about so many, none of which has only some of an identity's: what is said of a journey comes from one customer's events, nearly always. */
function partsOf(arrivals: readonly Arrival[], size: number): readonly (readonly Arrival[])[] {
  if (arrivals.length <= size) return [arrivals];
  const identities = new Map<string, Arrival[]>();
  for (const arrival of arrivals) {
    const some = identities.get(arrival.identity);
    if (some === undefined) identities.set(arrival.identity, [arrival]);
    else some.push(arrival);
  }
  const parts: Arrival[][] = [];
  let part: Arrival[] = [];
  for (const some of identities.values()) {
    for (const arrival of some) part.push(arrival);
    if (part.length < size) continue;
    parts.push(part);
    part = [];
  }
  if (part.length > 0) parts.push(part);
  return parts;
}

/** Changes of records by several folds, as those of one: a record once. */
class RecordChanges {
  readonly #changes = new Map<string, RecordChange>();

  get size(): number { return this.#changes.size; }

  all(): readonly RecordChange[] { return [...this.#changes.values()]; }

  /** False for what one change cannot say: that a record goes with all its sub-records, and another comes under its key. The step is folded in smaller portions then. */
  add(changes: readonly RecordChange[]): boolean {
    for (const change of changes) {
      const before = this.#changes.get(change.key);
      if (before?.state === null && change.state !== null) return false;
      this.#changes.set(change.key, before === undefined || change.state === null ? change : joined(before, change));
    }
    return true;
  }
}

function joined(before: RecordChange, { key, state, subs }: RecordChange): RecordChange {
  const now = state ?? before.state;
  const all = before.subs === undefined ? subs : new Map([...before.subs, ...(subs ?? [])]);
  return { key, ...(now === undefined ? {} : { state: now }), ...(all === undefined ? {} : { subs: all }) };
}
