// The view store in memory: Maps and linear filters, nothing clever. It is what tests run on and the oracle that the
// indexed adapters are compared with.
import assert from 'node:assert';
import type { RecordChange, RecordState, SubRecord } from '../../projections/projection.ts';
import { type Clause, type Clock, type Commit, type CommitResult, type Generation, type Hold, HOLD_MS, type Position, type SearchQuery, type SearchResult, type SearchRow, type Tally, type View, type ViewStore, type Walked } from '../ports.ts';
import { OperatingError } from '../errors.ts';
import { checkCommit, checkQuery, compareText, EMPTY_DIGEST, mergeTally, scanEnd } from './postings.ts';

interface StoredRecord { readonly state: RecordState; readonly chunks: ReadonlyMap<number, readonly SubRecord[]> }
interface Group {
  readonly generations: Map<number, { readonly generation: Generation; readonly views: readonly MemoryView[] }>;
  live: number | null;
  previous: number | null;
  readonly seen: Set<string>;
  /** Whether commits to the live generation are held now. */
  isHeld(): boolean;
  /** Ids given so far: an id is never given twice, also after its generation was dropped. */
  made: number;
}

export class MemoryViewStore implements ViewStore {
  readonly #clock: Clock;
  readonly #groups = new Map<string, Group>();
  readonly #tallies = new Map<string, Map<string, Tally>>();
  readonly #holds = new Map<string, { readonly hold: Hold; readonly endsMs: number }>();
  readonly #leases = new Map<string, { readonly holder: string; readonly endsMs: number }>();

  constructor(options: { readonly clock?: Clock } = {}) {
    this.#clock = options.clock ?? Date;
  }

  async generations(group: string): Promise<readonly Generation[]> {
    return [...this.#group(group).generations.values()].map((made) => made.generation);
  }

  async live(group: string): Promise<number | null> {
    return this.#group(group).live;
  }

  async createGeneration(generation: Omit<Generation, 'id' | 'createdAt'>): Promise<Generation> {
    const group = this.#group(generation.group);
    group.made += 1;
    const made: Generation = { ...generation, id: group.made, createdAt: new Date(this.#clock.now()).toISOString() };
    const views = Array.from({ length: made.shards }, (_, shard) => new MemoryView(made, shard, group));
    group.generations.set(made.id, { generation: made, views });
    return made;
  }

  async previous(group: string): Promise<number | null> {
    const { previous, generations } = this.#group(group);
    return previous !== null && generations.has(previous) ? previous : null;
  }

  async seen(group: string, version: string): Promise<readonly string[]> {
    const { seen, generations } = this.#group(group);
    for (const { generation } of generations.values()) seen.add(generation.version);
    return [...seen.add(version)];
  }

  async promote(group: string, from: number | null, to: number, hold?: Hold): Promise<boolean> {
    const found = this.#group(group);
    if (found.live !== from || (hold !== undefined && !this.#isHeld(group, hold))) return false;
    if (!found.generations.has(to)) throw new OperatingError('viewMissing', `generation ${to} of ${group} does not exist`);
    found.live = to;
    found.previous = from;
    return true;
  }

  async hold(group: string): Promise<Hold | null> {
    const { live } = this.#group(group);
    if (live === null || this.#isHeld(group)) return null;
    const hold: Hold = { generation: live, release: async () => { if (this.#holds.get(group)?.hold === hold) this.#holds.delete(group); } };
    this.#holds.set(group, { hold, endsMs: this.#clock.now() + HOLD_MS });
    return hold;
  }

  /** Whether any stands, or the one given. */
  #isHeld(group: string, hold?: Hold): boolean {
    const standing = this.#holds.get(group);
    return standing !== undefined && standing.endsMs > this.#clock.now() && (hold === undefined || standing.hold === hold);
  }

  async dropGeneration(group: string, id: number): Promise<boolean> {
    const found = this.#group(group);
    if (found.live === id) return false;
    found.generations.delete(id);
    return true;
  }

  async lease(name: string, holder: string, ms: number): Promise<boolean> {
    const now = this.#clock.now();
    const standing = this.#leases.get(name);
    if (standing !== undefined && standing.holder !== holder && standing.endsMs > now) return false;
    this.#leases.set(name, { holder, endsMs: now + ms });
    return true;
  }

  async release(name: string, holder: string): Promise<void> {
    if (this.#leases.get(name)?.holder === holder) this.#leases.delete(name);
  }

  async leases(prefix: string): Promise<readonly { readonly name: string; readonly holder: string }[]> {
    const now = this.#clock.now();
    for (const [name, { endsMs }] of this.#leases) if (endsMs <= now) this.#leases.delete(name);
    return [...this.#leases].filter(([name]) => name.startsWith(prefix)).map(([name, { holder }]) => ({ name, holder })).sort((a, b) => compareText(a.name, b.name));
  }

  async view(group: string, generation: number, shard: number): Promise<View> {
    const found = this.#group(group).generations.get(generation);
    if (found === undefined) throw new OperatingError('viewMissing', `generation ${generation} of ${group} does not exist`);
    const view = found.views[shard];
    assert(view !== undefined, `generation ${generation} of ${group} has no shard ${shard}`);
    return view;
  }

  async addTallies(tallies: readonly Tally[]): Promise<void> {
    for (const tally of tallies) {
      const sources = this.#tallies.get(tally.workspace) ?? new Map<string, Tally>();
      sources.set(tally.source, mergeTally(sources.get(tally.source) ?? null, tally));
      this.#tallies.set(tally.workspace, sources);
    }
  }

  async tallies(workspace: string): Promise<readonly Tally[]> {
    return [...(this.#tallies.get(workspace)?.values() ?? [])].sort((a, b) => compareText(a.source, b.source));
  }

  async free(): Promise<number | null> { return null; }

  async close(): Promise<void> {
    // Nothing is held open.
  }

  #group(name: string): Group {
    const group = this.#groups.get(name) ?? { generations: new Map(), live: null, previous: null, seen: new Set(), made: 0, isHeld: () => this.#isHeld(name) };
    this.#groups.set(name, group);
    return group;
  }
}

class MemoryView implements View {
  readonly generation: Generation;
  readonly shard: number;
  readonly commitMax = null;
  readonly #group: Group;
  readonly #documents = new Map<string, string>();
  readonly #records = new Map<string, Map<string, StoredRecord>>();
  #position: Position | null = null;
  #digest = EMPTY_DIGEST;

  constructor(generation: Generation, shard: number, group: Group) {
    this.generation = generation;
    this.shard = shard;
    this.#group = group;
  }

  async position(): Promise<Position | null> {
    return this.#position;
  }

  async digest(): Promise<string> {
    return this.#digest;
  }

  async load(keys: readonly string[]): Promise<readonly (string | null)[]> {
    return keys.map((key) => this.#documents.get(key) ?? null);
  }

  async walk(from: string | null, limit: number): Promise<Walked> {
    const keys = [...this.#documents.keys()].filter((key) => from === null || key > from).sort(compareText).slice(0, limit);
    return { documents: keys.map((key) => ({ key, value: this.#documents.get(key) ?? '' })), next: keys.length < limit ? null : keys.at(-1) ?? null };
  }

  async draw(chance: () => number): Promise<readonly string[]> {
    const keys = [...this.#documents.keys()];
    const key = keys[Math.floor(chance() * keys.length)];
    return key === undefined ? [] : [key];
  }

  async scan(from: string, to: string, limit: number): Promise<readonly { readonly key: string; readonly value: string }[]> {
    const end = scanEnd(this.generation, from, to);
    const keys = [...this.#documents.keys()].filter((key) => key >= from && key < end).sort(compareText).slice(0, limit);
    return keys.map((key) => ({ key, value: this.#documents.get(key) ?? '' }));
  }

  async commit(commit: Commit): Promise<CommitResult> {
    checkCommit(this.generation, commit);
    const { live, generations } = this.#group;
    const mine = generations.has(this.generation.id) && (live === this.generation.id) === (commit.role === 'live');
    if (mine && commit.role === 'live' && this.#group.isHeld()) return { kind: 'held' };
    if (!mine || this.#position !== commit.expected) return { kind: 'moved', position: this.#position, live };
    // Staged first, so that a change that asserts leaves nothing behind.
    const staged = [...commit.records].map(([workspace, changes]) => [workspace, stage(this.#records.get(workspace), changes)] as const);
    for (const [workspace, records] of staged) this.#apply(workspace, records);
    for (const [key, value] of commit.documents) {
      if (value === null) this.#documents.delete(key);
      else this.#documents.set(key, value);
    }
    this.#digest = commit.digest;
    this.#position = commit.position;
    return { kind: 'committed' };
  }

  #apply(workspace: string, staged: ReadonlyMap<string, StoredRecord | null>): void {
    const records = this.#records.get(workspace) ?? new Map<string, StoredRecord>();
    this.#records.set(workspace, records);
    for (const [key, record] of staged) {
      if (record === null) records.delete(key);
      else records.set(key, record);
    }
  }

  async search(query: SearchQuery, documentSpace: string): Promise<SearchResult> {
    checkQuery(this.generation, query);
    const sign = query.direction === 'asc' ? 1 : -1;
    const { after } = query;
    const matches = [...(this.#records.get(query.workspace)?.entries() ?? [])].filter(([, record]) => matchesQuery(record, query))
      .map(([key, { state }]) => ({ key, time: state.time, id: state.id }))
      .sort((a, b) => sign * compareRows(a, b));
    const rest = after === null ? matches : matches.filter((row) => sign * (row.time - after.time || compareText(row.id, after.id)) > 0);
    const rows: SearchRow[] = rest.slice(0, query.limit)
      .map((row) => ({ ...row, document: this.#documents.get(`${query.workspace}/${documentSpace}/${row.key}`) ?? null }));
    return { rows, total: query.total ?? matches.length, more: rest.length > query.limit };
  }

  async stats(): Promise<{ readonly documents: number; readonly records: number; readonly bytes: number }> {
    let bytes = 0;
    for (const [key, value] of this.#documents) bytes += key.length + value.length;
    let records = 0;
    for (const stored of this.#records.values()) records += stored.size;
    return { documents: this.#documents.size, records, bytes };
  }
}

function stage(stored: ReadonlyMap<string, StoredRecord> | undefined, changes: readonly RecordChange[]): Map<string, StoredRecord | null> {
  const staged = new Map<string, StoredRecord | null>();
  for (const change of changes) {
    const before = staged.has(change.key) ? staged.get(change.key) : stored?.get(change.key);
    staged.set(change.key, change.state === null ? null : changed(before ?? null, change.state, change.subs));
  }
  return staged;
}

function changed(before: StoredRecord | null, state: RecordState | undefined, subs: RecordChange['subs']): StoredRecord {
  const now = state ?? before?.state;
  assert(now !== undefined, 'sub-records were given for a record that does not stand');
  const chunks = new Map(before?.chunks);
  for (const [number, chunk] of subs ?? []) {
    if (chunk === null || chunk.length === 0) chunks.delete(number);
    else chunks.set(number, chunk);
  }
  return { state: now, chunks };
}

function compareRows(a: { time: number; id: string; key: string }, b: { time: number; id: string; key: string }): number {
  return a.time - b.time || compareText(a.id, b.id) || compareText(a.key, b.key);
}

function meets(terms: SubRecord, clauses: readonly Clause[]): boolean {
  return clauses.every((clause) => clause.terms.some((term) => terms[clause.field]?.includes(term) ?? false));
}

function matchesQuery({ state, chunks }: StoredRecord, query: SearchQuery): boolean {
  if (state.time < query.from || state.time > query.to || !meets(state.terms, query.clauses)) return false;
  if (query.sub.length === 0) return true;
  for (const subs of chunks.values()) if (subs.some((sub) => meets(sub, query.sub))) return true;
  return false;
}
