// One shard of one generation of a group, as the worker that folds it sees it: where it stands, the documents it holds in
// memory, and the one step fold → commit.
import type { Changes, Interpreted, Json, Projection, RecordChange } from '../../projections/projection.ts';
import type { WorkspaceKeys } from '../../schemas/identity.ts';
import { OperatingError } from '../errors.ts';
import type { Position, View } from '../ports.ts';
import { addHash, type Digest, digestText, DocumentHasher, EMPTY_DIGEST, parseDigest, removeHash, sameHash } from './digest.ts';

/** An event that a batch brought, read once and folded by every group. */
export interface Arrival { readonly position: Position; readonly workspace: string; readonly interpreted: Interpreted }

export type StepResult =
  | { readonly kind: 'committed'; readonly events: number; readonly documents: number }
  | { readonly kind: 'held' }
  /** Somebody else moved the view on, or promoted another generation: what is in memory no longer counts. */
  | { readonly kind: 'moved'; readonly live: number | null };

interface Cached { value: Json; hash: Digest | null; size: number }

/** Documents by full key. Bounded by the length of their JSON, oldest use first; what a refused commit touched is forgotten with everything else. */
class DocumentCache {
  readonly #entries = new Map<string, Cached>();
  readonly #sizeMax: number;
  #size = 0;
  constructor(sizeMax: number) { this.#sizeMax = sizeMax; }

  get size(): number { return this.#size; }

  get(key: string): Cached | undefined {
    const found = this.#entries.get(key);
    if (found === undefined) return undefined;
    this.#entries.delete(key);
    this.#entries.set(key, found);
    return found;
  }
  set(key: string, entry: Cached): void {
    this.#size += entry.size - (this.#entries.get(key)?.size ?? 0);
    this.#entries.delete(key);
    this.#entries.set(key, entry);
  }
  /** Called between batches only: a fold may still hold what it loaded. */
  trim(): void {
    for (const [key, entry] of this.#entries) {
      if (this.#size <= this.#sizeMax) return;
      this.#entries.delete(key);
      this.#size -= entry.size;
    }
  }
  clear(): void { this.#entries.clear(); this.#size = 0; }
}

/** What an entry holds besides its JSON; of a document that is not there, all of it. */
const ENTRY_SIZE = 100;

/** Characters of JSON that a step of several events may read: as objects some three times as much, well within the heap of the projector's thread. */
const STEP_BYTES_MAX = 16 * 1024 * 1024;
const LOAD_KEYS = 256;

export class Target {
  readonly projection: Projection;
  readonly view: View;
  readonly #role: 'live' | 'build';
  readonly #cache: DocumentCache;
  readonly #stepBytesMax: number;
  /** Characters of JSON read for the step under way. */
  #stepBytes = 0;
  #position: Position | null = null;
  #digest: Digest = EMPTY_DIGEST;
  readonly #hasher = new DocumentHasher();
  /** Documents written and events folded since the start: for metrics, and for tests that count work. */
  readonly work = { events: 0, documents: 0, bytes: 0, loaded: 0, commits: 0 };

  constructor(options: { projection: Projection; view: View; role: 'live' | 'build'; cacheBytesMax: number; stepBytesMax?: number }) {
    this.projection = options.projection;
    this.view = options.view;
    this.#role = options.role;
    this.#cache = new DocumentCache(options.cacheBytesMax);
    this.#stepBytesMax = options.stepBytesMax ?? STEP_BYTES_MAX;
  }

  get position(): Position | null { return this.#position; }
  /** Characters of JSON held in memory, bounded between two steps. */
  get cached(): number { return this.#cache.size; }

  /** Reads where the view stands; forgets what memory says of it. */
  async resume(): Promise<void> {
    this.#cache.clear();
    this.#position = await this.view.position();
    this.#digest = parseDigest(await this.view.digest());
  }

  /**
   * Folds the arrivals that this view lacks and commits them with `position`. Nothing is stored unless all of it is. What a
   * store throws is passed on; whether the commit stands is then unknown, and another `step` finds out: it is `moved` if so.
   */
  async step(arrivals: readonly Arrival[], position: Position, keysOf: (workspace: string) => Promise<WorkspaceKeys>): Promise<StepResult> {
    try {
      const result = await this.#step(arrivals, position, keysOf);
      return result.kind === 'tooMuch' ? await this.#halves(arrivals, position, keysOf) : result;
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
    }
  }

  /** What a step needs in memory has a bound: past it the events are folded in two commits. The result is the same, since no fold depends on how events are split. */
  async #halves(arrivals: readonly Arrival[], position: Position, keysOf: (workspace: string) => Promise<WorkspaceKeys>): Promise<StepResult> {
    this.#cache.clear();
    const middle = arrivals.length >> 1;
    const first = await this.step(arrivals.slice(0, middle), arrivals[middle - 1]?.position ?? position, keysOf);
    if (first.kind !== 'committed') return first;
    const second = await this.step(arrivals.slice(middle), position, keysOf);
    return second.kind !== 'committed' ? second : { kind: 'committed', events: first.events + second.events, documents: first.documents + second.documents };
  }

  async #step(arrivals: readonly Arrival[], position: Position, keysOf: (workspace: string) => Promise<WorkspaceKeys>): Promise<StepResult | { readonly kind: 'tooMuch' }> {
    const from = this.#position;
    if (from !== null && position <= from) return { kind: 'committed', events: 0, documents: 0 };
    const wanted = from === null ? arrivals : arrivals.filter((arrival) => arrival.position > from);
    const documents = new Map<string, string | null>();
    const records = new Map<string, readonly RecordChange[]>();
    let digest = this.#digest;
    this.#stepBytes = wanted.length > 1 ? 0 : Number.NEGATIVE_INFINITY;
    for (const [workspace, events] of byWorkspace(wanted)) {
      const changes = await this.#fold(workspace, events, await keysOf(workspace));
      if (changes === null) return { kind: 'tooMuch' };
      const moved = await this.#put(workspace, changes, documents, digest);
      if (moved === null) return { kind: 'tooMuch' };
      digest = moved;
      if (changes.records.length > 0) records.set(workspace, changes.records);
    }
    const result = await this.view.commit({ expected: from, position, role: this.#role, documents, records, digest: digestText(digest) });
    // As after a throw, and the position may be another.
    if (result.kind !== 'committed') {
      await this.resume();
      return result.kind === 'held' ? { kind: 'held' } : { kind: 'moved', live: result.live };
    }
    this.#position = position;
    this.#digest = digest;
    this.#cache.trim();
    this.work.events += wanted.length;
    this.work.documents += documents.size;
    this.work.commits += 1;
    return { kind: 'committed', events: wanted.length, documents: documents.size };
  }

  /** Null when it asks for more than a step may hold; its work so far is void then. */
  async #fold(workspace: string, events: readonly Interpreted[], keys: WorkspaceKeys): Promise<Changes | null> {
    const fold = this.projection.fold(events, keys);
    let step = fold.next();
    while (step.done !== true) {
      const asked = step.value;
      if (!(await this.#load(asked.map((key) => `${workspace}/${key}`)))) return null;
      step = fold.next(new Map(asked.map((key) => [key, this.#cache.get(`${workspace}/${key}`)?.value ?? null])));
    }
    return step.value;
  }

  /** Brings documents into memory; false when a step would hold too much, which is noticed between two reads of at most LOAD_KEYS. */
  async #load(keys: readonly string[]): Promise<boolean> {
    const missing = keys.filter((key) => this.#cache.get(key) === undefined);
    for (let start = 0; start < missing.length; start += LOAD_KEYS) {
      const some = missing.slice(start, start + LOAD_KEYS);
      const texts = await this.view.load(some);
      this.work.loaded += some.length;
      for (const text of texts) this.#stepBytes += text?.length ?? 0;
      if (this.#stepBytes > this.#stepBytesMax) return false;
      some.forEach((key, i) => {
        const text = texts[i] ?? null;
        if (text === null) this.#cache.set(key, { value: null, hash: null, size: ENTRY_SIZE });
        else this.#cache.set(key, { value: this.projection.unpack(key.slice(key.indexOf('/') + 1), text), hash: this.#hasher.hash(key, text), size: ENTRY_SIZE + text.length });
      });
    }
    return true;
  }

  /** Adds a fold's documents to the commit and moves the digest; those whose text did not change are left out. Null when what they replace is more than a step may hold. */
  async #put(workspace: string, changes: Changes, documents: Map<string, string | null>, before: Digest): Promise<Digest | null> {
    if (!(await this.#load([...changes.documents.keys()].map((key) => `${workspace}/${key}`)))) return null;
    let digest = before;
    for (const [name, value] of changes.documents) {
      const key = `${workspace}/${name}`;
      const old = this.#cache.get(key)?.hash ?? null;
      const text = value === null ? null : this.projection.pack(name, value);
      const now = text === null ? null : this.#hasher.hash(key, text);
      this.#cache.set(key, { value, hash: now, size: ENTRY_SIZE + (text?.length ?? 0) });
      if (old === null && now === null) continue;
      if (old !== null && now !== null && sameHash(old, now)) continue;
      if (old !== null) digest = removeHash(digest, old);
      if (now !== null) digest = addHash(digest, now);
      documents.set(key, text);
      this.work.bytes += text?.length ?? 0;
    }
    return digest;
  }
}

function byWorkspace(arrivals: readonly Arrival[]): Map<string, Interpreted[]> {
  const groups = new Map<string, Interpreted[]>();
  for (const { workspace, interpreted } of arrivals) {
    const group = groups.get(workspace);
    if (group === undefined) groups.set(workspace, [interpreted]);
    else group.push(interpreted);
  }
  return groups;
}
