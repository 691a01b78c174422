// The search index in a view's SQLite file: its tables, reading it for the executor of postings.ts, and changing it.
import assert from 'node:assert';
import type { RecordChange, RecordState, SubRecord } from '../../projections/projection.ts';
import { OperatingError } from '../errors.ts';
import type { Clause, Commit, Generation, SearchQuery, SearchResult, SearchRow } from '../ports.ts';
import {
  type Day, DAY_MS, Days, DecodedCache, decodePosting, type Row, type Fetched, findRows, type Found, type IndexQuery, Page, PAGE_ENTRIES, type Posting, PostingEdit, ROWS_SHARE, SEGMENT_SIZE, type StoredSegment, type Wanted, compareRows, compareText,
} from './postings.ts';
import { type Connection, damaged } from './sqlite-file.ts';

/** Names of terms that are remembered per view and process. */
const NAMES_MAX = 25_000;
const DIRECTORIES_MAX = 64;
/** What the writer keeps open from commit to commit. */
const KEPT_POSTING_BYTES = 8 * 1024 * 1024;
const KEPT_PAGES = 256;
const KEPT_SEGMENTS = 20_000;
/** A posting's key is segment * TERMS_MAX + term, a locator segment * 65,536 + ordinal, a page's key segment * 16 + page: all below 2^53. */
const TERMS_MAX = 2 ** 30;
const SEGMENTS_MAX = 2 ** 23;
const PAGES_PER_SEGMENT = SEGMENT_SIZE / PAGE_ENTRIES;
/** The term that every living record has. The lowest bit of a term's number says that its field is dense. */
const EVERY = 1;

/**
 * Postings by segment first: the small ones of a day, which a commit touches together, share pages. Ids of records are
 * JSON, because SQLite's text cannot hold every string that JSON can.
 */
export const INDEX_SCHEMA = `
  CREATE TABLE workspaces (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
  CREATE TABLE fields (id INTEGER PRIMARY KEY, workspace INTEGER NOT NULL, sub INTEGER NOT NULL, name TEXT NOT NULL, UNIQUE (workspace, sub, name)) STRICT;
  CREATE TABLE terms (field INTEGER NOT NULL, term TEXT NOT NULL, id INTEGER NOT NULL, PRIMARY KEY (field, term)) STRICT, WITHOUT ROWID;
  CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
  INSERT INTO counters VALUES ('terms', 1);
  CREATE TABLE segments (id INTEGER PRIMARY KEY, workspace INTEGER NOT NULL, sub INTEGER NOT NULL, day INTEGER NOT NULL, no INTEGER NOT NULL,
    size INTEGER NOT NULL, alive INTEGER NOT NULL, version INTEGER NOT NULL, UNIQUE (workspace, sub, day, no)) STRICT;
  CREATE INDEX segments_moved ON segments (workspace, version);
  CREATE TABLE postings (id INTEGER PRIMARY KEY, data BLOB NOT NULL) STRICT;
  CREATE TABLE pages (id INTEGER PRIMARY KEY, data BLOB NOT NULL) STRICT;
  CREATE TABLE keyed (field INTEGER NOT NULL, term TEXT NOT NULL, locator INTEGER NOT NULL, PRIMARY KEY (field, term, locator)) STRICT, WITHOUT ROWID;
  CREATE TABLE records (locator INTEGER PRIMARY KEY, workspace INTEGER NOT NULL, key TEXT NOT NULL, time INTEGER NOT NULL, id TEXT NOT NULL, terms TEXT NOT NULL,
    document INTEGER, UNIQUE (workspace, key)) STRICT;
  CREATE TABLE chunks (record INTEGER NOT NULL, number INTEGER NOT NULL, subs TEXT NOT NULL, PRIMARY KEY (record, number)) STRICT, WITHOUT ROWID;`;

/** So many records are read at once, documents included; a value of more goes by the general plan. */
const KEYED_ROWS_MAX = 100;
const KEYED_ROWS = `SELECT r.key AS key, r.time AS time, r.id AS id, d.value AS document FROM keyed k JOIN records r ON r.locator = k.locator
  LEFT JOIN documents d ON d.key = ? || r.key WHERE k.field = ? AND k.term = ? LIMIT ${KEYED_ROWS_MAX + 1}`;

/**
 * Records by locator, each with its document: one statement, since each call into SQLite costs more than a look-up in it.
 * A record remembers the number of its document, where that is known: neighbours in time are neighbours in the file then,
 * while their keys are spread over an index that no cache holds. Whether it is that document still, its key says.
 */
const RECORD_ROWS = (byNumber: boolean): string => `SELECT j.key AS place, r.key AS key, r.id AS id, r.time AS time, d.number AS number, d.key AS name, d.value AS document FROM json_each(?2) j CROSS JOIN records r ON r.locator = j.value
  LEFT JOIN documents d ON ${byNumber ? 'd.number = r.document' : 'd.key = ?1 || r.key'}`;
/** Of records that are known, the documents alone. */
const DOCUMENT_ROWS = 'SELECT d.key AS name, d.value AS document FROM json_each(?) j CROSS JOIN documents d ON d.number = j.value';
/** Views made before records remembered it lack the column. */
function hasNumbers(connection: Connection): boolean { return connection.get("SELECT 1 FROM pragma_table_info('records') WHERE name = 'document'") !== undefined; }
interface Documents { readonly prefix: string; readonly found: Map<string, string> }
/** A record as a reader keeps it, with the number of its document where it had one. */
interface KeptRow extends Row { readonly number: number | null }

/** What a view did so far, counted: for metrics, and for tests that hold work instead of seconds. */
export interface ViewWork {
  postingsRead: number; postingsWritten: number; pagesRead: number; pagesWritten: number;
  recordsRead: number; recordsWritten: number; chunksRead: number; chunksWritten: number; cacheHits: number;
}

// ---- names -----------------------------------------------------------------------------------------------------------

interface FieldNames { readonly id: number; readonly terms: Map<string, number> }
interface WorkspaceNames { readonly id: number; readonly name: string; readonly fields: Map<string, FieldNames>; readonly subFields: Map<string, FieldNames> }
type Of = 'fields' | 'subFields';

/**
 * The numbers that stand for workspaces, fields and terms. Once committed they never change and are never given anew, so
 * what was found may be remembered; what was not found may not. A term outlives its last record: it is a keyed hash, and
 * a rebuild drops it.
 */
export class Names {
  readonly #workspaces = new Map<string, WorkspaceNames>();
  #size = 0;

  clear(): void {
    this.#workspaces.clear();
    this.#size = 0;
  }

  workspace(connection: Connection, name: string): WorkspaceNames | undefined {
    return this.#workspaces.get(name) ?? this.#keepWorkspace(name, connection.get<{ id: number }>('SELECT id FROM workspaces WHERE name = ?', name));
  }

  field(connection: Connection, workspace: WorkspaceNames, of: Of, name: string): FieldNames | undefined {
    return workspace[of].get(name)
      ?? keepField(workspace[of], name, connection.get<{ id: number }>('SELECT id FROM fields WHERE workspace = ? AND sub = ? AND name = ?', workspace.id, of === 'fields' ? 0 : 1, name));
  }

  term(connection: Connection, field: FieldNames, term: string): number | undefined {
    const known = field.terms.get(term);
    if (known !== undefined) return known;
    const found = connection.get<{ id: number }>('SELECT id FROM terms WHERE field = ? AND term = ?', field.id, term)?.id;
    if (found !== undefined) this.#keepTerm(field, term, found);
    return found;
  }

  makeWorkspace(writer: Connection, name: string): WorkspaceNames {
    return this.workspace(writer, name) ?? this.#keepWorkspace(name, writer.get<{ id: number }>('INSERT INTO workspaces (name) VALUES (?) RETURNING id', name))!;
  }

  makeField(writer: Connection, workspace: WorkspaceNames, of: Of, name: string): FieldNames {
    return this.field(writer, workspace, of, name)
      ?? keepField(workspace[of], name, writer.get<{ id: number }>('INSERT INTO fields (workspace, sub, name) VALUES (?, ?, ?) RETURNING id', workspace.id, of === 'fields' ? 0 : 1, name))!;
  }

  makeTerm(writer: Connection, field: FieldNames, term: string, dense: boolean): number {
    const known = field.terms.get(term) ?? this.term(writer, field, term);
    if (known !== undefined) return known;
    const { value } = writer.get<{ value: number }>("UPDATE counters SET value = value + 1 WHERE name = 'terms' RETURNING value")!;
    const id = value * 2 + (dense ? 1 : 0);
    if (id >= TERMS_MAX) throw new OperatingError('storeFull', 'a view holds no more than 536 million terms: so large a store needs views in Redis, in more shards');
    writer.run('INSERT INTO terms VALUES (?, ?, ?)', field.id, term, id);
    this.#keepTerm(field, term, id);
    return id;
  }

  #keepWorkspace(name: string, row: { id: number } | undefined): WorkspaceNames | undefined {
    if (row === undefined) return undefined;
    const names: WorkspaceNames = { id: row.id, name, fields: new Map(), subFields: new Map() };
    this.#keep();
    this.#workspaces.set(name, names);
    return names;
  }

  #keepTerm(field: FieldNames, term: string, id: number): void {
    this.#keep();
    field.terms.set(term, id);
  }

  #keep(): void {
    if (this.#size >= NAMES_MAX) this.clear();
    this.#size += 1;
  }
}

function keepField(fields: Map<string, FieldNames>, name: string, row: { id: number } | undefined): FieldNames | undefined {
  if (row === undefined) return undefined;
  const names: FieldNames = { id: row.id, terms: new Map() };
  fields.set(name, names);
  return names;
}

// ---- reading the index -----------------------------------------------------------------------------------------------

interface SegmentRow extends StoredSegment { readonly sub: 0 | 1 }
const SEGMENT_COLUMNS = 'id, day, sub, no, size, alive, version';

/** The days and segments of one workspace. */
class Directory {
  #seen = -1;
  readonly days = new Days<SegmentRow>();

  /** Reads what later commits touched. */
  refresh(connection: Connection, workspace: number, commits: number): void {
    if (commits === this.#seen) return;
    const moved = new Map<number, { readonly day: number; readonly records: SegmentRow[]; readonly subs: SegmentRow[] }>();
    for (const row of connection.all<SegmentRow>(`SELECT ${SEGMENT_COLUMNS} FROM segments WHERE workspace = ? AND version > ?`, workspace, this.#seen)) {
      let day = moved.get(row.day);
      if (day === undefined) {
        const { records, subs } = this.days.day(row.day) ?? { records: [], subs: [] };
        moved.set(row.day, day = { day: row.day, records: [...records], subs: [...subs] });
      }
      (row.sub === 1 ? day.subs : day.records)[row.no] = row;
    }
    for (const day of moved.values()) this.days.put(day);
    this.#seen = commits;
  }
}

export class IndexReader {
  readonly connection: Connection;
  readonly #file: string;
  readonly #names: Names;
  readonly #generation: Generation;
  readonly #cache: DecodedCache<number>;
  /** By locator. Of each, the version of its segment says whether it stands as it was; of its document, nothing does. */
  readonly #rows: DecodedCache<number, KeptRow>;
  readonly #work: ViewWork;
  readonly #directories = new Map<number, Directory>();
  readonly #recordRows: string;

  constructor(file: string, connection: Connection, names: Names, generation: Generation, cacheBytes: number, work: ViewWork) {
    this.#file = file;
    this.connection = connection;
    this.#names = names;
    this.#generation = generation;
    this.#cache = new DecodedCache(cacheBytes * (1 - ROWS_SHARE));
    this.#rows = new DecodedCache(cacheBytes * ROWS_SHARE);
    this.#work = work;
    this.#recordRows = RECORD_ROWS(hasNumbers(connection));
  }

  /** In the order of the keys, null where there is none. One statement for all: each call into SQLite costs more than a look-up in it. */
  documents(keys: readonly string[]): (string | null)[] {
    const found: (string | null)[] = new Array<string | null>(keys.length).fill(null);
    const rows = this.connection.all<{ place: number; value: string }>('SELECT j.key AS place, d.value AS value FROM json_each(?) j CROSS JOIN documents d ON d.key = j.value', JSON.stringify(keys));
    for (const { place, value } of rows) found[place] = value;
    return found;
  }

  /**
   * A query of one value of one keyed field (a contact's number, an interaction's id): the records themselves, read by one
   * statement, which is one snapshot and far less than the general plan. Null where it is another query, or finds too many.
   */
  searchKeyed(query: SearchQuery, documentSpace: string): SearchResult | null {
    const [clause] = query.clauses;
    const [term] = clause?.terms ?? [];
    if (clause === undefined || term === undefined || query.clauses.length + query.sub.length > 1 || clause.terms.length > 1 || this.#generation.fields[clause.field] !== 'keyed') return null;
    const workspace = this.#names.workspace(this.connection, query.workspace);
    const field = workspace === undefined ? undefined : this.#names.field(this.connection, workspace, 'fields', clause.field);
    if (field === undefined) return null;
    const found = this.connection.arrays<[key: string, time: number, id: string, document: string | null]>(KEYED_ROWS, `${query.workspace}/${documentSpace}/`, field.id, term);
    if (found.length > KEYED_ROWS_MAX) return null;
    this.#work.recordsRead += found.length;
    const sign = query.direction === 'desc' ? -1 : 1;
    const rows: SearchRow[] = [];
    for (const [key, time, id, document] of found) if (time >= query.from && time <= query.to) rows.push({ key, time, id: readId(id), document });
    rows.sort((a, b) => sign * compareRows(a, b));
    const { after } = query;
    const ahead = after === null ? rows : rows.filter((row) => sign * (row.time - after.time || compareText(row.id, after.id)) > 0);
    return { rows: ahead.slice(0, query.limit), total: query.total ?? rows.length, more: ahead.length > query.limit };
  }

  /** Rows with their documents, which are read together with the records that name them. */
  search(query: SearchQuery, documentSpace: string, commits: number): SearchResult {
    const documents: Documents = { prefix: `${query.workspace}/${documentSpace}/`, found: new Map() };
    const { rows, total, more } = this.#search(query, documents, commits);
    return { rows: rows.map(({ key, id, time }) => ({ key, id, time, document: documents.found.get(key) ?? null })), total, more };
  }

  #search(query: SearchQuery, documents: Documents, commits: number): Found {
    const nothing: Found = { rows: [], total: query.total ?? 0, more: false };
    const workspace = this.#names.workspace(this.connection, query.workspace);
    if (workspace === undefined) return nothing;
    const directory = this.#directory(workspace.id, commits);
    const isKeyed = (clause: Clause): boolean => this.#generation.fields[clause.field] === 'keyed';
    const clauses = query.clauses.filter((clause) => !isKeyed(clause)).map((clause) => this.#terms(workspace, 'fields', clause));
    const sub = query.sub.map((clause) => this.#terms(workspace, 'subFields', clause));
    if ([...clauses, ...sub].some((terms) => terms.length === 0)) return nothing;
    const located = query.clauses.filter(isKeyed).map((clause) => this.#locate(workspace, clause, directory));
    const found = directory.days.of(query, located[0]);
    return this.#answer({ ...query, every: EVERY, clauses, sub, located }, found, documents);
  }

  /** The numbers of a clause's terms; one that was never used matches nothing. */
  #terms(workspace: WorkspaceNames, of: Of, clause: Clause): number[] {
    const field = this.#names.field(this.connection, workspace, of, clause.field);
    return field === undefined ? [] : [...new Set(clause.terms)].flatMap((term) => this.#names.term(this.connection, field, term) ?? []);
  }

  /** The records of a keyed clause, by segment. */
  #locate(workspace: WorkspaceNames, clause: Clause, directory: Directory): Map<SegmentRow, Uint16Array> {
    const field = this.#names.field(this.connection, workspace, 'fields', clause.field);
    const bySegment = new Map<SegmentRow, number[]>();
    for (const term of field === undefined ? [] : new Set(clause.terms)) {
      for (const { locator } of this.connection.all<{ locator: number }>('SELECT locator FROM keyed WHERE field = ? AND term = ?', field!.id, term)) {
        const segment = directory.days.segment(Math.floor(locator / SEGMENT_SIZE));
        if (segment === undefined) throw damaged(this.#file, 'a locator points nowhere');
        const ordinals = bySegment.get(segment) ?? [];
        bySegment.set(segment, ordinals);
        ordinals.push(locator % SEGMENT_SIZE);
      }
    }
    return new Map([...bySegment].map(([segment, ordinals]) => [segment, Uint16Array.from(ordinals)]));
  }

  #answer(query: IndexQuery<SegmentRow, number>, days: readonly Day<SegmentRow>[], documents: Documents): Found {
    const search = findRows(query, days);
    let step = search.next();
    while (step.done !== true) step = search.next(this.#fetch(step.value, documents));
    return step.value;
  }

  #fetch(wanted: Wanted<SegmentRow, number>, documents: Documents): Fetched {
    return {
      postings: wanted.postings.map(({ segment, term }) => this.#posting(segment, term)),
      pages: wanted.pages.map(({ segment, page }) => this.#page(segment, page)),
      records: this.#records(wanted.records, documents),
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

  #page(segment: SegmentRow, page: number): Page {
    const key = segment.id * PAGES_PER_SEGMENT + page;
    // Pages share the cache under negative keys, which no posting has.
    const cached = this.#cache.get(-1 - key, segment.version) as Page | undefined;
    if (cached !== undefined) {
      this.#work.cacheHits += 1;
      return cached;
    }
    this.#work.pagesRead += 1;
    const found = new Page(readPage(this.#file, this.connection, key) ?? new Uint32Array(0));
    this.#cache.set(-1 - key, segment.version, found, found.entries.byteLength);
    return found;
  }

  /** Those that are not known are read with their documents, of the others the documents alone. */
  #records(wanted: Wanted<SegmentRow, number>['records'], documents: Documents): Row[] {
    const places = wanted.map(({ segment, ordinal }) => ({ locator: segment.id * SEGMENT_SIZE + ordinal, version: segment.version }));
    const rows = places.map(({ locator, version }) => this.#rows.get(locator, version));
    const unknown = places.flatMap((place, at) => (rows[at] === undefined ? [{ ...place, at }] : []));
    if (unknown.length > 0) {
      this.#work.recordsRead += unknown.length;
      const found = this.connection.arrays<[place: number, key: string, id: string, time: number, number: number | null, name: string | null, document: string | null]>(this.#recordRows, documents.prefix, `[${unknown.map(({ locator }) => locator).join()}]`);
      if (found.length !== unknown.length) throw damaged(this.#file, 'the index names a record that is not there');
      for (const [place, key, id, time, number, name, document] of found) {
        const { at, locator, version } = unknown[place]!;
        const isIts = name === documents.prefix + key;
        const row = rows[at] = { key, id: readId(id), time, number: isIts ? number : null };
        this.#rows.set(locator, version, row, key.length + id.length);
        if (isIts && document !== null) documents.found.set(key, document);
      }
    }
    const all = rows as KeptRow[];
    this.#readDocuments(all.filter(({ key }) => !documents.found.has(key)), documents);
    return all;
  }

  /** Where they stood when their rows were read; those that do not stand there (deleted and written anew, or written after their record) by their keys. */
  #readDocuments(rows: readonly KeptRow[], { prefix, found }: Documents): void {
    const numbers = rows.flatMap(({ number }) => number ?? []);
    if (numbers.length > 0) {
      for (const [name, document] of this.connection.arrays<[name: string, document: string]>(DOCUMENT_ROWS, `[${numbers.join()}]`)) {
        if (name.startsWith(prefix)) found.set(name.slice(prefix.length), document);
      }
    }
    const missing = rows.filter(({ key }) => !found.has(key));
    if (missing.length === 0) return;
    this.documents(missing.map(({ key }) => prefix + key)).forEach((document, i) => { if (document !== null) found.set(missing[i]!.key, document); });
  }

  #directory(workspace: number, commits: number): Directory {
    const directory = this.#directories.get(workspace) ?? new Directory();
    this.#directories.delete(workspace);
    this.#directories.set(workspace, directory);
    const [oldest] = this.#directories.keys();
    if (this.#directories.size > DIRECTORIES_MAX && oldest !== undefined) this.#directories.delete(oldest);
    directory.refresh(this.connection, workspace, commits);
    return directory;
  }
}

/** An id as its record keeps it. Nearly all need no unescaping. */
function readId(stored: string): string {
  return stored.includes('\\') ? JSON.parse(stored) as string : stored.slice(1, -1);
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

interface SegmentEdit { readonly id: number; readonly day: number; readonly no: number; size: number; alive: number; changed: boolean }
interface RecordRow { readonly locator: number; readonly time: number; readonly id: string; readonly terms: string }
/** Numbers of the terms in postings, ascending; and the keyed ones, as [field, term]. What an update is compared with. */
interface TermList { readonly posted: readonly number[]; readonly keyed: readonly (readonly [number, string])[] }
/** [locator, ...terms]: a sub-record as its chunk keeps it. */
type StoredSub = readonly [number, ...number[]];

/**
 * Changes the index, inside the transaction of a commit. Each posting, page and segment is read at most once and written
 * once per commit; what was open stays open for the next commit, as long as the last one was this writer's own. Ordinals
 * of what was deleted are not given again: a rebuild closes the holes.
 */
export class IndexWriter {
  readonly #file: string;
  readonly #writer: Connection;
  readonly #names: Names;
  readonly #generation: Generation;
  readonly #work: ViewWork;
  readonly #hasNumbers: boolean;
  /** Number of the commit that everything kept open stands at, -1 for none. */
  #version = -1;
  #records = 0;
  readonly #segments = new Map<number, SegmentEdit>();
  readonly #newest = new Map<number, SegmentEdit>();
  readonly #postings = new Kept<PostingEdit>(KEPT_POSTING_BYTES);
  readonly #pages = new Kept<PageEdit>(KEPT_PAGES * PAGE_ENTRIES * 4);

  constructor(file: string, writer: Connection, names: Names, generation: Generation, work: ViewWork) {
    this.#file = file;
    this.#writer = writer;
    this.#names = names;
    this.#generation = generation;
    this.#work = work;
    this.#hasNumbers = hasNumbers(writer);
  }

  /** `commits` were made before this one. Answers how many records there are more. */
  write(changes: Commit['records'], commits: number): number {
    // Somebody else committed since: what is open here may be older than what is stored.
    if (this.#version !== commits) this.#close();
    this.#version = commits + 1;
    this.#records = 0;
    for (const [name, records] of changes) {
      for (const change of records) this.#apply(this.#names.makeWorkspace(this.#writer, name), change);
    }
    this.#flush();
    return this.#records;
  }

  /** After a commit that failed: nothing that is open or named here was kept. */
  forget(): void {
    this.#close();
    this.#names.clear();
  }

  #close(): void {
    this.#version = -1;
    this.#segments.clear();
    this.#newest.clear();
    this.#postings.clear();
    this.#pages.clear();
  }

  #apply(workspace: WorkspaceNames, change: RecordChange): void {
    const stored = this.#writer.get<RecordRow>('SELECT locator, time, id, terms FROM records WHERE workspace = ? AND key = ?', workspace.id, change.key);
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
  #flush(): void {
    for (const [key, posting] of this.#postings.settle()) {
      const bytes = posting.encode();
      if (bytes === null) this.#writer.run('DELETE FROM postings WHERE id = ?', key);
      else this.#writer.run('INSERT OR REPLACE INTO postings VALUES (?, ?)', key, bytes);
      this.#work.postingsWritten += 1;
    }
    for (const [key, page] of this.#pages.settle()) {
      this.#writer.run('INSERT OR REPLACE INTO pages VALUES (?, ?)', key, page.encode());
      this.#work.pagesWritten += 1;
    }
    for (const segment of this.#segments.values()) {
      if (segment.changed) this.#writer.run('UPDATE segments SET size = ?, alive = ?, version = ? WHERE id = ?', segment.size, segment.alive, this.#version, segment.id);
      segment.changed = false;
    }
    if (this.#segments.size > KEPT_SEGMENTS) {
      this.#segments.clear();
      this.#newest.clear();
    }
  }

  #insertRecord(workspace: WorkspaceNames, key: string, state: RecordState): number {
    const terms = this.#recordTerms(workspace, state.terms);
    const locator = this.#allot(workspace, 0, dayOf(state.time));
    this.#setColumn(locator, state.time - dayOf(state.time) * DAY_MS);
    this.#post(locator, [], [EVERY]);
    this.#changeTerms(locator, { posted: [], keyed: [] }, terms);
    const row = [locator, workspace.id, key, state.time, JSON.stringify(state.id), JSON.stringify(terms)];
    const { recordSpace } = this.#generation;
    if (!this.#hasNumbers) this.#writer.run('INSERT INTO records VALUES (?, ?, ?, ?, ?, ?)', ...row);
    // The documents of a commit are written before its records. One that comes later is found by its key.
    else this.#writer.run('INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, (SELECT number FROM documents WHERE key = ?))', ...row, recordSpace === undefined ? null : `${workspace.name}/${recordSpace}/${key}`);
    this.#work.recordsWritten += 1;
    this.#records += 1;
    return locator;
  }

  /** Touches no posting whose term stays. */
  #updateRecord(workspace: WorkspaceNames, stored: RecordRow, state: RecordState): number {
    const terms = this.#recordTerms(workspace, state.terms);
    const id = JSON.stringify(state.id);
    const text = JSON.stringify(terms);
    if (stored.time === state.time && stored.id === id && stored.terms === text) return stored.locator;
    if (stored.time !== state.time) this.#setColumn(stored.locator, state.time - dayOf(state.time) * DAY_MS);
    if (stored.terms !== text) this.#changeTerms(stored.locator, JSON.parse(stored.terms) as TermList, terms);
    // Another id touches no posting and no page, but readers keep it.
    this.#change(segmentOf(stored.locator));
    this.#writer.run('UPDATE records SET time = ?, id = ?, terms = ? WHERE locator = ?', state.time, id, text, stored.locator);
    this.#work.recordsWritten += 1;
    return stored.locator;
  }

  /** To another day: all of it goes along, the stored chunks too, but for those that the change replaces anyway. */
  #moveRecord(workspace: WorkspaceNames, stored: RecordRow, state: RecordState, replaced: RecordChange['subs']): number {
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
    this.#records -= 1;
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
  #replaceChunk(workspace: WorkspaceNames, record: number, number: number, subs: readonly (readonly number[])[], fresh: boolean): void {
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

  #recordTerms(workspace: WorkspaceNames, terms: RecordState['terms']): TermList {
    const posted: number[] = [];
    const keyed: [number, string][] = [];
    for (const [name, values] of Object.entries(terms)) {
      const kind = this.#generation.fields[name];
      const field = this.#names.makeField(this.#writer, workspace, 'fields', name);
      if (kind === 'keyed') for (const value of new Set(values)) keyed.push([field.id, value]);
      else for (const value of values) posted.push(this.#names.makeTerm(this.#writer, field, value, kind === 'dense'));
    }
    return { posted: ascending(posted), keyed };
  }

  #subTerms(workspace: WorkspaceNames, sub: SubRecord): readonly number[] {
    const posted: number[] = [];
    for (const [name, values] of Object.entries(sub)) {
      const field = this.#names.makeField(this.#writer, workspace, 'subFields', name);
      for (const value of values) posted.push(this.#names.makeTerm(this.#writer, field, value, this.#generation.subFields[name] === 'dense'));
    }
    return ascending(posted);
  }

  /** The next ordinal of a workspace's day, as a locator. A full segment is followed by a new one. */
  #allot(workspace: WorkspaceNames, sub: 0 | 1, day: number): number {
    const name = (workspace.id * 2 + sub) * 2 ** 28 + day + 2 ** 27;
    let segment = this.#newest.get(name) ?? this.#findNewest(workspace, sub, day);
    if (segment === null || segment.size === SEGMENT_SIZE) segment = this.#makeSegment(workspace, sub, day, segment === null ? 0 : segment.no + 1);
    this.#newest.set(name, segment);
    segment.size += 1;
    segment.alive += 1;
    segment.changed = true;
    return segment.id * SEGMENT_SIZE + segment.size - 1;
  }

  #findNewest(workspace: WorkspaceNames, sub: 0 | 1, day: number): SegmentEdit | null {
    const row = this.#writer.get<{ id: number }>('SELECT id FROM segments WHERE workspace = ? AND sub = ? AND day = ? ORDER BY no DESC LIMIT 1', workspace.id, sub, day);
    return row === undefined ? null : this.#segment(row.id);
  }

  #makeSegment(workspace: WorkspaceNames, sub: 0 | 1, day: number, no: number): SegmentEdit {
    const { id } = this.#writer.get<{ id: number }>(
      'INSERT INTO segments (workspace, sub, day, no, size, alive, version) VALUES (?, ?, ?, ?, 0, 0, ?) RETURNING id', workspace.id, sub, day, no, this.#version)!;
    if (id >= SEGMENTS_MAX) throw new OperatingError('storeFull', `${this.#file} holds no more than 8 million days of workspaces: so large a store needs views in Redis, in more shards`);
    const segment = { id, day, no, size: 0, alive: 0, changed: true };
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
    const segment = { ...row, changed: false };
    this.#segments.set(id, segment);
    return segment;
  }

  #posting(segment: number, term: number): PostingEdit {
    const key = segment * TERMS_MAX + term;
    const open = this.#postings.get(key);
    if (open?.changed === true) return open.edit;
    this.#change(segment);
    return this.#postings.change(key, open?.edit ?? this.#readPosting(key, term % 2 === 1));
  }

  #readPosting(key: number, dense: boolean): PostingEdit {
    this.#work.postingsRead += 1;
    const bytes = this.#writer.get<{ data: Uint8Array }>('SELECT data FROM postings WHERE id = ?', key)?.data;
    return new PostingEdit(bytes === undefined ? null : readPosting(this.#file, bytes), dense);
  }

  #setColumn(locator: number, value: number): void {
    const ordinal = locator % SEGMENT_SIZE;
    const key = segmentOf(locator) * PAGES_PER_SEGMENT + Math.floor(ordinal / PAGE_ENTRIES);
    const open = this.#pages.get(key);
    this.#change(segmentOf(locator));
    const page = open?.edit ?? this.#readPage(key);
    this.#pages.change(key, page).set(ordinal % PAGE_ENTRIES, value);
  }

  #readPage(key: number): PageEdit {
    this.#work.pagesRead += 1;
    return new PageEdit(readPage(this.#file, this.#writer, key) ?? new Uint32Array(0));
  }
}

interface Edit { readonly bytes: number }
interface Open<E extends Edit> { readonly edit: E; bytes: number; changed: boolean }

/** What a writer has open, by key. What changed is handed over to be written at the end of a commit; past the limit, what was not changed for longest is closed. */
class Kept<E extends Edit> {
  readonly #limit: number;
  readonly #open = new Map<number, Open<E>>();
  #changed: number[] = [];
  #bytes = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  clear(): void {
    this.#open.clear();
    this.#changed = [];
    this.#bytes = 0;
  }

  get(key: number): Open<E> | undefined {
    return this.#open.get(key);
  }

  change(key: number, edit: E): E {
    const open = this.#open.get(key) ?? { edit, bytes: 0, changed: false };
    if (!open.changed) {
      open.changed = true;
      this.#changed.push(key);
      this.#open.delete(key);
      this.#open.set(key, open);
    }
    return open.edit;
  }

  /** What changed, by key; it counts as written once it was handed over. */
  *settle(): Generator<[number, E]> {
    for (const key of Float64Array.from(this.#changed).sort()) {
      const open = this.#open.get(key)!;
      yield [key, open.edit];
      this.#bytes += open.edit.bytes - open.bytes;
      open.bytes = open.edit.bytes;
      open.changed = false;
    }
    this.#changed = [];
    for (const [key, open] of this.#open) {
      if (this.#bytes <= this.#limit) break;
      this.#open.delete(key);
      this.#bytes -= open.bytes;
    }
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

  get bytes(): number {
    return this.#entries.byteLength;
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

  /** A view on its memory: to be written before the next change. */
  encode(): Uint8Array {
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
