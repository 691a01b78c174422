// ---- names -----------------------------------------------------------------------------------------------------------

/** The numbers that stand for workspaces, fields and terms. Once committed they never change and are never given anew, so what was found may be remembered; what was not found may not. A term outlives its last record: it is a keyed hash, and a rebuild drops it. */
class Names {
  readonly #known = new Map<string, number>();

  clear(): void {
    this.#known.clear();
  }

  workspace(connection: Connection, name: string): number | undefined {
    return this.#remember(`w/${name}`, () => connection.get<{ id: number }>('SELECT id FROM workspaces WHERE name = ?', name)?.id);
  }

  field(connection: Connection, workspace: number, sub: 0 | 1, name: string): number | undefined {
    return this.#remember(`${workspace}/${sub}/${name}`, () => connection.get<{ id: number }>('SELECT id FROM fields WHERE workspace = ? AND sub = ? AND name = ?', workspace, sub, name)?.id);
  }

  term(connection: Connection, field: number, term: string): number | undefined {
    return this.#remember(`${field}/${term}`, () => connection.get<{ id: number }>('SELECT id FROM terms WHERE field = ? AND term = ?', field, term)?.id);
  }

  makeWorkspace(writer: Connection, name: string): number {
    return this.workspace(writer, name) ?? this.#remember(`w/${name}`, () => writer.get<{ id: number }>('INSERT INTO workspaces (name) VALUES (?) RETURNING id', name)!.id)!;
  }

  makeField(writer: Connection, workspace: number, sub: 0 | 1, name: string): number {
    return this.field(writer, workspace, sub, name)
      ?? this.#remember(`${workspace}/${sub}/${name}`, () => writer.get<{ id: number }>('INSERT INTO fields (workspace, sub, name) VALUES (?, ?, ?) RETURNING id', workspace, sub, name)!.id)!;
  }

  makeTerm(writer: Connection, field: number, term: string, dense: boolean): number {
    return this.term(writer, field, term) ?? this.#remember(`${field}/${term}`, () => {
      const { value } = writer.get<{ value: number }>("UPDATE counters SET value = value + 1 WHERE name = 'terms' RETURNING value")!;
      const id = value * 2 + (dense ? 1 : 0);
      if (id >= TERMS_MAX) throw new OperatingError('storeFull', 'a view holds no more than 536 million terms: replay its group into more shards');
      writer.run('INSERT INTO terms VALUES (?, ?, ?)', field, term, id);
      return id;
    })!;
  }

  #remember(key: string, find: () => number | undefined): number | undefined {
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    const found = find();
    if (this.#known.size >= NAMES_MAX) this.#known.clear();
    if (found !== undefined) this.#known.set(key, found);
    return found;
  }
}

// ---- reading the index -----------------------------------------------------------------------------------------------

interface SegmentRow extends Segment { readonly id: number; readonly day: number; readonly sub: 0 | 1; readonly version: number }
const SEGMENT_COLUMNS = 'id, day, sub, no, size, alive, version';

/** The days and segments of one workspace, kept up to the commit that it last saw. */
class Directory {
  #seen = -1;
  #days: { readonly day: number; readonly records: SegmentRow[]; readonly subs: SegmentRow[] }[] = [];
  readonly #byDay = new Map<number, { readonly day: number; readonly records: SegmentRow[]; readonly subs: SegmentRow[] }>();
  readonly #byId = new Map<number, SegmentRow>();

  /** Reads what later commits touched. */
  refresh(connection: Connection, workspace: number, commits: number): void {
    if (commits === this.#seen) return;
    const before = this.#byDay.size;
    for (const row of connection.all<SegmentRow>(`SELECT ${SEGMENT_COLUMNS} FROM segments WHERE workspace = ? AND version > ?`, workspace, this.#seen)) {
      const day = this.#byDay.get(row.day) ?? { day: row.day, records: [], subs: [] };
      this.#byDay.set(row.day, day);
      (row.sub === 1 ? day.subs : day.records)[row.no] = row;
      this.#byId.set(row.id, row);
    }
    if (this.#byDay.size > before) this.#days = [...this.#byDay.values()].sort((a, b) => a.day - b.day);
    this.#seen = commits;
  }

  segment(id: number): SegmentRow | undefined {
    return this.#byId.get(id);
  }

  /** Existing days only, ascending, however wide the range. */
  between(first: number, last: number): readonly Day<SegmentRow>[] {
    return this.#days.slice(this.#indexOf(first), this.#indexOf(last + 1));
  }

  day(day: number): Day<SegmentRow> {
    return this.#byDay.get(day)!;
  }

  /** Of the first day that is not before this one. */
  #indexOf(day: number): number {
    let low = 0;
    let high = this.#days.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#days[middle]!.day < day) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/** Decoded postings and pages by key, each valid for one version of its segment; the ones not used for longest go first. */
class Cache {
  readonly #entries = new Map<number, { readonly version: number; readonly value: Posting | Uint32Array | null; readonly bytes: number }>();
  readonly #limit: number;
  #bytes = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  get(key: number, version: number): Posting | Uint32Array | null | undefined {
    const entry = this.#entries.get(key);
    if (entry?.version !== version) return undefined;
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    return entry.value;
  }

  set(key: number, version: number, value: Posting | Uint32Array | null, size: number): void {
    const bytes = size + 200;
    this.#bytes += bytes - (this.#entries.get(key)?.bytes ?? 0);
    this.#entries.delete(key);
    this.#entries.set(key, { version, value, bytes });
    for (const [oldest, entry] of this.#entries) {
      if (this.#bytes <= this.#limit) break;
      this.#entries.delete(oldest);
      this.#bytes -= entry.bytes;
    }
  }
}

class IndexReader {
  readonly connection: Connection;
  readonly #file: string;
  readonly #names: Names;
  readonly #generation: Generation;
  readonly #cache: Cache;
  readonly #work: ViewWork;
  readonly #directories = new Map<number, Directory>();

  constructor(file: string, connection: Connection, names: Names, generation: Generation, cache: Cache, work: ViewWork) {
    this.#file = file;
    this.connection = connection;
    this.#names = names;
    this.#generation = generation;
    this.#cache = cache;
    this.#work = work;
  }

  document(key: string): string | null {
    return this.connection.get<{ value: string }>('SELECT value FROM documents WHERE key = ?', key)?.value ?? null;
  }

  search(query: SearchQuery, commits: number): Found {
    const nothing: Found = { rows: [], total: query.total ?? 0, more: false };
    const workspace = this.#names.workspace(this.connection, query.workspace);
    if (workspace === undefined) return nothing;
    const directory = this.#directory(workspace, commits);
    const isKeyed = (clause: Clause): boolean => this.#generation.fields[clause.field] === 'keyed';
    const clauses = query.clauses.filter((clause) => !isKeyed(clause)).map((clause) => this.#terms(workspace, 0, clause));
    const sub = query.sub.map((clause) => this.#terms(workspace, 1, clause));
    if ([...clauses, ...sub].some((terms) => terms.length === 0)) return nothing;
    const located = query.clauses.filter(isKeyed).map((clause) => this.#locate(workspace, clause, directory));
    const found = located[0] === undefined ? directory.between(Math.floor(query.from / DAY_MS), Math.floor(query.to / DAY_MS)) : daysOf(located[0], directory, query);
    return this.#answer({ ...query, every: EVERY, clauses, sub, located }, found);
  }

  /** The numbers of a clause's terms; one that was never used matches nothing. */
  #terms(workspace: number, sub: 0 | 1, clause: Clause): number[] {
    const field = this.#names.field(this.connection, workspace, sub, clause.field);
    return field === undefined ? [] : [...new Set(clause.terms)].flatMap((term) => this.#names.term(this.connection, field, term) ?? []);
  }

  /** The records of a keyed clause, by segment. */
  #locate(workspace: number, clause: Clause, directory: Directory): Map<SegmentRow, Uint16Array> {
    const field = this.#names.field(this.connection, workspace, 0, clause.field);
    const bySegment = new Map<SegmentRow, number[]>();
    for (const term of field === undefined ? [] : new Set(clause.terms)) {
      for (const { locator } of this.connection.all<{ locator: number }>('SELECT locator FROM keyed WHERE field = ? AND term = ?', field!, term)) {
        const segment = directory.segment(Math.floor(locator / SEGMENT_SIZE));
        if (segment === undefined) throw damaged(this.#file, 'a locator points nowhere');
        const ordinals = bySegment.get(segment) ?? [];
        bySegment.set(segment, ordinals);
        ordinals.push(locator % SEGMENT_SIZE);
      }
    }
    return new Map([...bySegment].map(([segment, ordinals]) => [segment, Uint16Array.from(ordinals)]));
  }

  #answer(query: IndexQuery<SegmentRow, number>, days: readonly Day<SegmentRow>[]): Found {
    const search = findRows(query, days);
    let step = search.next();
    while (step.done !== true) step = search.next(this.#fetch(step.value));
    return step.value;
  }

  #fetch(wanted: Wanted<SegmentRow, number>): Fetched {
    return {
      postings: wanted.postings.map(({ segment, term }) => this.#posting(segment, term)),
      pages: wanted.pages.map(({ segment, page }) => this.#page(segment, page)),
      records: wanted.records.map(({ segment, ordinal }) => this.#record(segment.id * SEGMENT_SIZE + ordinal)),
    };
  }

  #posting(segment: SegmentRow, term: number): Posting | null {
    const key = segment.id * TERMS_MAX + term;
    const cached = this.#cache.get(key, segment.version) as Posting | null | undefined;
    if (cached !== undefined) {
      this.#work.cacheHits += 1;
      return cached;
    }
    this.#work.postingsRead += 1;
    const bytes = this.connection.get<{ data: Uint8Array }>('SELECT data FROM postings WHERE id = ?', key)?.data;
    const posting = bytes === undefined ? null : readPosting(this.#file, bytes);
    this.#cache.set(key, segment.version, posting, bytes?.length ?? 0);
    return posting;
  }

  #page(segment: SegmentRow, page: number): Uint32Array {
    const key = segment.id * PAGES_PER_SEGMENT + page;
    // Pages share the cache under negative keys, which no posting has.
    const cached = this.#cache.get(-1 - key, segment.version) as Uint32Array | undefined;
    if (cached !== undefined) {
      this.#work.cacheHits += 1;
      return cached;
    }
    this.#work.pagesRead += 1;
    const entries = readPage(this.#file, this.connection, key) ?? new Uint32Array(0);
    this.#cache.set(-1 - key, segment.version, entries, entries.byteLength);
    return entries;
  }

  #record(locator: number): { readonly key: string; readonly id: string } {
    this.#work.recordsRead += 1;
    const row = this.connection.get<{ key: string; id: string }>('SELECT key, id FROM records WHERE locator = ?', locator);
    if (row === undefined) throw damaged(this.#file, 'the index names a record that is not there');
    return { key: row.key, id: JSON.parse(row.id) as string };
  }

  #directory(workspace: number, commits: number): Directory {
    const directory = this.#directories.get(workspace) ?? new Directory();
    this.#directories.delete(workspace);
    this.#directories.set(workspace, directory);
    if (this.#directories.size > DIRECTORIES_MAX) for (const oldest of this.#directories.keys()) { this.#directories.delete(oldest); break; }
    directory.refresh(this.connection, workspace, commits);
    return directory;
  }
}

/** The days in the query's range on which a keyed clause found something, ascending. */
function daysOf(located: ReadonlyMap<SegmentRow, Uint16Array>, directory: Directory, query: SearchQuery): readonly Day<SegmentRow>[] {
  const days = new Set([...located.keys()].map((segment) => segment.day));
  return [...days].filter((day) => (day + 1) * DAY_MS > query.from && day * DAY_MS <= query.to).sort((a, b) => a - b).map((day) => directory.day(day));
}

function readPosting(file: string, bytes: Uint8Array): Posting {
  const posting = decodePosting(bytes);
  if (posting === null) throw damaged(file, 'a posting cannot be read');
  return posting;
}

function readPage(file: string, connection: Connection, key: number): Uint32Array | null {
  const bytes = connection.get<{ data: Uint8Array }>('SELECT data FROM pages WHERE id = ?', key)?.data;
  if (bytes === undefined) return null;
  if (bytes.length % 4 !== 0) throw damaged(file, 'a page of a column cannot be read');
  const { buffer, byteOffset, length } = bytes.byteOffset % 4 === 0 ? bytes : bytes.slice();
  return new Uint32Array(buffer, byteOffset, length / 4);
}

// ---- changing the index ----------------------------------------------------------------------------------------------

interface SegmentEdit { readonly id: number; readonly day: number; readonly no: number; size: number; alive: number; changed?: true }
interface RecordRow { readonly locator: number; readonly time: number; readonly id: string; readonly terms: string }
/** Numbers of the terms in postings, ascending; and the keyed ones, as [field, term]. What an update is compared with. */
interface TermList { readonly posted: readonly number[]; readonly keyed: readonly (readonly [number, string])[] }
/** [locator, ...terms]: a sub-record as its chunk keeps it. */
type StoredSub = readonly [number, ...number[]];

/** The index changes of one commit, gathered so that each posting, page and segment is read once and written once. Ordinals of what was deleted are not given again: a rebuild closes the holes. */
class IndexEdit {
  recordsAdded = 0;
  readonly #file: string;
  readonly #writer: Connection;
  readonly #names: Names;
  readonly #generation: Generation;
  readonly #version: number;
  readonly #work: ViewWork;
  readonly #segments = new Map<number, SegmentEdit>();
  readonly #newest = new Map<string, SegmentEdit>();
  readonly #postings = new Map<number, PostingEdit>();
  readonly #pages = new Map<number, PageEdit>();

  constructor(file: string, writer: Connection, names: Names, generation: Generation, version: number, work: ViewWork) {
    this.#file = file;
    this.#writer = writer;
    this.#names = names;
    this.#generation = generation;
    this.#version = version;
    this.#work = work;
  }

  apply(workspaceName: string, change: RecordChange): void {
    const workspace = this.#names.makeWorkspace(this.#writer, workspaceName);
    const stored = this.#writer.get<RecordRow>('SELECT locator, time, id, terms FROM records WHERE workspace = ? AND key = ?', workspace, change.key);
    if (change.state === null) {
      if (stored !== undefined) this.#deleteRecord(stored);
      return;
    }
    assert(change.state !== undefined || stored !== undefined, 'sub-records were given for a record that does not stand');
    const locator = change.state === undefined ? stored!.locator
      : stored === undefined ? this.#insertRecord(workspace, change.key, change.state)
        : dayOf(stored.time) === dayOf(change.state.time) ? this.#updateRecord(workspace, stored, change.state)
          : this.#moveRecord(workspace, stored, change.state, change.subs);
    for (const [number, subs] of change.subs ?? []) this.#replaceChunk(workspace, locator, number, (subs ?? []).map((sub) => this.#subTerms(workspace, sub)), stored === undefined);
  }

  /** Ordered by key, so that neighbours in the file are written together. */
  flush(): void {
    for (const [key, posting] of [...this.#postings].sort((a, b) => a[0] - b[0])) {
      const bytes = posting.encode();
      if (bytes === null) this.#writer.run('DELETE FROM postings WHERE id = ?', key);
      else this.#writer.run('INSERT OR REPLACE INTO postings VALUES (?, ?)', key, bytes);
    }
    for (const [key, page] of this.#pages) this.#writer.run('INSERT OR REPLACE INTO pages VALUES (?, ?)', key, page.bytes());
    for (const segment of this.#segments.values()) if (segment.changed) this.#writer.run('UPDATE segments SET size = ?, alive = ?, version = ? WHERE id = ?', segment.size, segment.alive, this.#version, segment.id);
    this.#work.postingsWritten += this.#postings.size;
    this.#work.pagesWritten += this.#pages.size;
  }

  #insertRecord(workspace: number, key: string, state: RecordState): number {
    const terms = this.#recordTerms(workspace, state.terms);
    const locator = this.#allot(workspace, 0, dayOf(state.time));
    this.#setColumn(locator, state.time - dayOf(state.time) * DAY_MS);
    this.#post(locator, [], [EVERY]);
    this.#changeTerms(locator, { posted: [], keyed: [] }, terms);
    this.#writer.run('INSERT INTO records VALUES (?, ?, ?, ?, ?, ?)', locator, workspace, key, state.time, JSON.stringify(state.id), JSON.stringify(terms));
    this.#work.recordsWritten += 1;
    this.recordsAdded += 1;
    return locator;
  }

  /** Touches no posting whose term stays. */
  #updateRecord(workspace: number, stored: RecordRow, state: RecordState): number {
    const terms = this.#recordTerms(workspace, state.terms);
    const id = JSON.stringify(state.id);
    const text = JSON.stringify(terms);
    if (stored.time === state.time && stored.id === id && stored.terms === text) return stored.locator;
    if (stored.time !== state.time) this.#setColumn(stored.locator, state.time - dayOf(state.time) * DAY_MS);
    if (stored.terms !== text) this.#changeTerms(stored.locator, JSON.parse(stored.terms) as TermList, terms);
    // Another id reorders its day, which no cached posting knows of: nothing to touch, ids are read with the page.
    this.#writer.run('UPDATE records SET time = ?, id = ?, terms = ? WHERE locator = ?', state.time, id, text, stored.locator);
    this.#work.recordsWritten += 1;
    return stored.locator;
  }

  /** To another day: all of it goes along, the stored chunks too, but for those that the change replaces anyway. */
  #moveRecord(workspace: number, stored: RecordRow, state: RecordState, replaced: RecordChange['subs']): number {
    const terms = this.#recordTerms(workspace, state.terms);
    const chunks = this.#removeChunks(stored.locator);
    this.#unpost(stored.locator, JSON.parse(stored.terms) as TermList);
    const locator = this.#allot(workspace, 0, dayOf(state.time));
    this.#setColumn(locator, state.time - dayOf(state.time) * DAY_MS);
    this.#post(locator, [], [EVERY]);
    this.#changeTerms(locator, { posted: [], keyed: [] }, terms);
    this.#writer.run('UPDATE records SET locator = ?, time = ?, id = ?, terms = ? WHERE locator = ?', locator, state.time, JSON.stringify(state.id), JSON.stringify(terms), stored.locator);
    this.#work.recordsWritten += 1;
    for (const { number, subs } of chunks) if (replaced?.has(number) !== true) this.#replaceChunk(workspace, locator, number, subs.map(([, ...posted]) => posted), true);
    return locator;
  }

  #deleteRecord(stored: RecordRow): void {
    this.#removeChunks(stored.locator);
    this.#unpost(stored.locator, JSON.parse(stored.terms) as TermList);
    this.#writer.run('DELETE FROM records WHERE locator = ?', stored.locator);
    this.#work.recordsWritten += 1;
    this.recordsAdded -= 1;
  }

  #unpost(locator: number, terms: TermList): void {
    this.#changeTerms(locator, terms, { posted: [], keyed: [] });
    this.#post(locator, [EVERY], []);
    this.#change(segmentOf(locator)).alive -= 1;
  }

  #changeTerms(locator: number, old: TermList, now: TermList): void {
    this.#post(locator, old.posted, now.posted);
    const kept = new Set(old.keyed.map(([field, term]) => `${field}/${term}`));
    for (const [field, term] of now.keyed) if (!kept.delete(`${field}/${term}`)) this.#writer.run('INSERT INTO keyed VALUES (?, ?, ?)', field, term, locator);
    for (const [field, term] of old.keyed) if (kept.has(`${field}/${term}`)) this.#writer.run('DELETE FROM keyed WHERE field = ? AND term = ? AND locator = ?', field, term, locator);
  }

  /** The difference of two ascending lists of terms, for one ordinal. */
  #post(locator: number, old: readonly number[], now: readonly number[]): void {
    const segment = segmentOf(locator);
    const ordinal = locator % SEGMENT_SIZE;
    let a = 0;
    let b = 0;
    while (a < old.length || b < now.length) {
      const from = old[a] ?? Infinity;
      const to = now[b] ?? Infinity;
      if (from < to) this.#posting(segment, from).remove(ordinal);
      else if (to < from) this.#posting(segment, to).add(ordinal);
      if (from <= to) a += 1;
      if (to <= from) b += 1;
    }
  }

  /** Compares by place within the chunk: what stands where it stood keeps its ordinal, and its postings as far as its terms are the same. */
  #replaceChunk(workspace: number, record: number, number: number, subs: readonly (readonly number[])[], fresh: boolean): void {
    const text = fresh ? undefined : this.#writer.get<{ subs: string }>('SELECT subs FROM chunks WHERE record = ? AND number = ?', record, number)?.subs;
    if (!fresh) this.#work.chunksRead += 1;
    const stored = text === undefined ? [] : JSON.parse(text) as StoredSub[];
    const { day, no } = this.#segment(segmentOf(record));
    const kept = subs.map((posted, place): StoredSub => {
      const [known, ...old] = stored[place] ?? [];
      const locator = known ?? this.#allot(workspace, 1, day);
      if (known === undefined) this.#setColumn(locator, no * SEGMENT_SIZE + record % SEGMENT_SIZE);
      this.#post(locator, old, posted);
      return [locator, ...posted];
    });
    this.#removeSubs(stored.slice(subs.length));
    const now = JSON.stringify(kept);
    if (now === text || (text === undefined && kept.length === 0)) return;
    if (kept.length === 0) this.#writer.run('DELETE FROM chunks WHERE record = ? AND number = ?', record, number);
    else this.#writer.run('INSERT OR REPLACE INTO chunks VALUES (?, ?, ?)', record, number, now);
    this.#work.chunksWritten += 1;
  }

  /** Removes all chunks of a record, and hands them back. */
  #removeChunks(record: number): { readonly number: number; readonly subs: readonly StoredSub[] }[] {
    const chunks = this.#writer.all<{ number: number; subs: string }>('SELECT number, subs FROM chunks WHERE record = ?', record)
      .map(({ number, subs }) => ({ number, subs: JSON.parse(subs) as StoredSub[] }));
    for (const { subs } of chunks) this.#removeSubs(subs);
    this.#writer.run('DELETE FROM chunks WHERE record = ?', record);
    this.#work.chunksRead += chunks.length;
    return chunks;
  }

  #removeSubs(subs: readonly StoredSub[]): void {
    for (const [locator, ...posted] of subs) {
      this.#post(locator, posted, []);
      this.#change(segmentOf(locator)).alive -= 1;
    }
  }

  #recordTerms(workspace: number, terms: RecordState['terms']): TermList {
    const posted: number[] = [];
    const keyed: [number, string][] = [];
    for (const [name, values] of Object.entries(terms)) {
      const kind = this.#generation.fields[name];
      const field = this.#names.makeField(this.#writer, workspace, 0, name);
      if (kind === 'keyed') for (const value of new Set(values)) keyed.push([field, value]);
      else for (const value of values) posted.push(this.#names.makeTerm(this.#writer, field, value, kind === 'dense'));
    }
    return { posted: ascending(posted), keyed };
  }

  #subTerms(workspace: number, sub: SubRecord): readonly number[] {
    const posted: number[] = [];
    for (const [name, values] of Object.entries(sub)) {
      const field = this.#names.makeField(this.#writer, workspace, 1, name);
      for (const value of values) posted.push(this.#names.makeTerm(this.#writer, field, value, this.#generation.subFields[name] === 'dense'));
    }
    return ascending(posted);
  }

  /** The next ordinal of a workspace's day, as a locator. A full segment is followed by a new one. */
  #allot(workspace: number, sub: 0 | 1, day: number): number {
    const name = `${workspace}/${sub}/${day}`;
    let segment = this.#newest.get(name) ?? this.#findNewest(workspace, sub, day);
    if (segment === null || segment.size === SEGMENT_SIZE) segment = this.#makeSegment(workspace, sub, day, segment === null ? 0 : segment.no + 1);
    this.#newest.set(name, segment);
    segment.size += 1;
    segment.alive += 1;
    segment.changed = true;
    return segment.id * SEGMENT_SIZE + segment.size - 1;
  }

  #findNewest(workspace: number, sub: 0 | 1, day: number): SegmentEdit | null {
    const row = this.#writer.get<{ id: number }>('SELECT id FROM segments WHERE workspace = ? AND sub = ? AND day = ? ORDER BY no DESC LIMIT 1', workspace, sub, day);
    return row === undefined ? null : this.#segment(row.id);
  }

  #makeSegment(workspace: number, sub: 0 | 1, day: number, no: number): SegmentEdit {
    const { id } = this.#writer.get<{ id: number }>('INSERT INTO segments (workspace, sub, day, no, size, alive, version) VALUES (?, ?, ?, ?, 0, 0, ?) RETURNING id', workspace, sub, day, no, this.#version)!;
    if (id >= SEGMENTS_MAX) throw new OperatingError('storeFull', `${this.#file} holds no more than 8 million days of workspaces: replay its group into more shards`);
    const segment = { id, day, no, size: 0, alive: 0 };
    this.#segments.set(id, segment);
    return segment;
  }

  /** For whoever changes something in a segment: its version moves with this commit, and what readers cached of it is read again. */
  #change(id: number): SegmentEdit {
    const segment = this.#segment(id);
    segment.changed = true;
    return segment;
  }

  #segment(id: number): SegmentEdit {
    const known = this.#segments.get(id);
    if (known !== undefined) return known;
    const row = this.#writer.get<SegmentEdit>('SELECT id, day, no, size, alive FROM segments WHERE id = ?', id);
    if (row === undefined) throw damaged(this.#file, 'a record stands in no segment');
    this.#segments.set(id, row);
    return row;
  }

  #posting(segment: number, term: number): PostingEdit {
    const key = segment * TERMS_MAX + term;
    const known = this.#postings.get(key);
    if (known !== undefined) return known;
    this.#change(segment);
    this.#work.postingsRead += 1;
    const bytes = this.#writer.get<{ data: Uint8Array }>('SELECT data FROM postings WHERE id = ?', key)?.data;
    const posting = new PostingEdit(bytes === undefined ? null : readPosting(this.#file, bytes), term % 2 === 1);
    this.#postings.set(key, posting);
    return posting;
  }

  #setColumn(locator: number, value: number): void {
    const segment = segmentOf(locator);
    const ordinal = locator % SEGMENT_SIZE;
    const key = segment * PAGES_PER_SEGMENT + Math.floor(ordinal / PAGE_ENTRIES);
    let page = this.#pages.get(key);
    if (page === undefined) {
      this.#change(segment);
      this.#work.pagesRead += 1;
      page = new PageEdit(readPage(this.#file, this.#writer, key) ?? new Uint32Array(0));
      this.#pages.set(key, page);
    }
    page.set(ordinal % PAGE_ENTRIES, value);
  }
}

/** A page of a column while a commit changes it. */
class PageEdit {
  #entries: Uint32Array;
  #used: number;

  constructor(stored: Uint32Array) {
    this.#entries = stored.slice();
    this.#used = stored.length;
  }

  set(at: number, value: number): void {
    if (at >= this.#entries.length) {
      const grown = new Uint32Array(Math.min(PAGE_ENTRIES, Math.max(at + 1, this.#entries.length * 2)));
      grown.set(this.#entries);
      this.#entries = grown;
    }
    this.#entries[at] = value;
    this.#used = Math.max(this.#used, at + 1);
  }

  bytes(): Uint8Array {
    return new Uint8Array(this.#entries.buffer, 0, this.#used * 4);
  }
}

function segmentOf(locator: number): number {
  return Math.floor(locator / SEGMENT_SIZE);
}

function dayOf(time: number): number {
  return Math.floor(time / DAY_MS);
}

function ascending(numbers: readonly number[]): readonly number[] {
  return numbers.length < 2 ? numbers : [...new Set(numbers)].sort((a, b) => a - b);
}
