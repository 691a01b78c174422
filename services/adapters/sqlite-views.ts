// The view store in SQLite: `views/control.sqlite` says which generations there are, which of them is live and what the
// door counted; each generation and shard is a file of its own, `views/<group>-<generation>-<shard>.sqlite`. The search
// index is laid out as in measurements.md section 9; postings.ts says what it holds and answers from it.
//
// Several threads and processes open the same files. Each view has one writer at a time (SQLite's write lock) and any
// number of readers, who read inside a transaction and so see documents, index and position of one commit. View files are
// written with synchronous=NORMAL: a power cut may take the last commits, but whole ones and from the end, and as the
// position goes with them the log folds them again. The control file, which cannot be refolded, is FULL.
import assert from 'node:assert';
import { existsSync, mkdirSync, renameSync, rmSync, statSync } from 'node:fs';
import path from 'node:path';
import { DatabaseSync, type SQLInputValue, type StatementSync } from 'node:sqlite';
import { pathToFileURL } from 'node:url';
import type { RecordChange, RecordState, SubRecord } from '../../projections/projection.ts';
import { type ErrorCode, OperatingError } from '../errors.ts';
import type { Clause, Clock, Commit, CommitResult, Generation, Position, SearchQuery, SearchResult, Tally, View, ViewStore } from '../ports.ts';
import {
  checkCommit, checkQuery, type Day, DAY_MS, decodePosting, EMPTY_DIGEST, type Fetched, findRows, type Found, type IndexQuery, mergeTally, PAGE_ENTRIES, type Posting,
  PostingEdit, scanEnd, type Segment, SEGMENT_SIZE, type Wanted,
} from './postings.ts';

export interface SqliteViewOptions {
  /** The data folder; the files stand in its folder `views`. */
  readonly folder: string;
  readonly clock?: Clock;
  /** How long a commit waits for a view's write lock before it answers `held`. It blocks the thread meanwhile. */
  readonly lockWaitMs?: number;
  /** Postings and columns kept decoded, per view and process. */
  readonly cacheBytes?: number;
  /** Pages of 8 KB that a view's file may grow to, where an operator must bound it. */
  readonly maxPages?: number;
}

const FORMAT = 1;
const PAGE_SIZE = 8192;
const CONTROL_WAIT_MS = 5_000;
const READ_WAIT_MS = 5_000;
const LOCK_WAIT_MS = 250;
const CACHE_BYTES = 64 * 1024 * 1024;
const CHECKPOINT_PAGES = 4_000;
/** Names of terms that are remembered per view and process. */
const NAMES_MAX = 200_000;
const DIRECTORIES_MAX = 64;
/** A posting's key is segment * TERMS_MAX + term, a locator segment * 65,536 + ordinal, a page's key segment * 16 + page: all below 2^53. */
const TERMS_MAX = 2 ** 30;
const SEGMENTS_MAX = 2 ** 23;
const PAGES_PER_SEGMENT = SEGMENT_SIZE / PAGE_ENTRIES;
/** The term that every living record has. The lowest bit of a term's number says that its field is dense. */
const EVERY = 1;

const CONTROL_SCHEMA = `
  CREATE TABLE IF NOT EXISTS groups (name TEXT PRIMARY KEY, live INTEGER, made INTEGER NOT NULL) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS generations (name TEXT NOT NULL, id INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (name, id)) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS tallies (workspace TEXT NOT NULL, source TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (workspace, source)) STRICT, WITHOUT ROWID;
  PRAGMA user_version = ${FORMAT};`;

// Documents in a rowid table: in a WITHOUT ROWID one every value past 2 KB would take overflow pages. Postings by segment
// first: the small ones of a day, which a commit touches together, share pages. Ids of records are JSON, because SQLite's
// text cannot hold every string that JSON can.
const VIEW_SCHEMA = `
  CREATE TABLE state (only INTEGER PRIMARY KEY CHECK (only = 1), position TEXT, digest TEXT NOT NULL, commits INTEGER NOT NULL, documents INTEGER NOT NULL, records INTEGER NOT NULL) STRICT;
  INSERT INTO state VALUES (1, NULL, '${EMPTY_DIGEST}', 0, 0, 0);
  CREATE TABLE documents (number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, value TEXT NOT NULL) STRICT;
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
    UNIQUE (workspace, key)) STRICT;
  CREATE TABLE chunks (record INTEGER NOT NULL, number INTEGER NOT NULL, subs TEXT NOT NULL, PRIMARY KEY (record, number)) STRICT, WITHOUT ROWID;
  PRAGMA user_version = ${FORMAT};`;

// ---- errors ----------------------------------------------------------------------------------------------------------

/** By primary result code (https://sqlite.org/rescode.html). Anything else is a fault of ours and passes as it is. */
const CODES: Readonly<Record<number, ErrorCode>> = {
  3: 'storeReadOnly', 5: 'storeBusy', 6: 'storeBusy', 7: 'storeUnavailable', 8: 'storeReadOnly', 10: 'storeUnavailable', 11: 'storeCorrupt', 13: 'storeFull', 14: 'storeUnavailable', 26: 'storeCorrupt',
};
const SYSTEM_CODES: Readonly<Record<string, ErrorCode>> = { ENOSPC: 'storeFull', EDQUOT: 'storeFull', EACCES: 'storeReadOnly', EPERM: 'storeReadOnly', EROFS: 'storeReadOnly', ERR_INVALID_STATE: 'storeClosed' };
const SHORT_READ = 522;
const BUSY = 5;

/** Runs work on a file; what SQLite and the file system throw becomes an operating error that names the file. */
function guarded<T>(file: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    const { errcode, code } = error as { readonly errcode?: number; readonly code?: string };
    const known = errcode === SHORT_READ ? 'storeCorrupt' : errcode === undefined ? SYSTEM_CODES[code ?? ''] : CODES[errcode & 0xff];
    if (known === undefined || error instanceof OperatingError) throw error;
    if (known === 'storeCorrupt') throw damaged(file, (error as Error).message, error);
    throw new OperatingError(known, `${file}: ${(error as Error).message}`, { cause: error });
  }
}

function damaged(file: string, what: string, cause?: unknown): OperatingError {
  const remedy = path.basename(file) === 'control.sqlite' ? 'restore it from a backup' : 'delete it together with its -wal and -shm files and it is folded again from the log, or replay its group';
  return new OperatingError('storeCorrupt', `${file} is damaged (${what}): ${remedy}`, { cause });
}

function checkFormat(file: string, db: DatabaseSync): void {
  const { user_version: format } = db.prepare('PRAGMA user_version').get() as { user_version: number };
  if (format > FORMAT) throw new OperatingError('storeTooNew', `${file} has format ${format}, this version reads up to ${FORMAT}`);
  if (format < FORMAT) throw damaged(file, 'it holds no view');
}

type Optional<Row> = Row | undefined;
/** Statements of one connection, prepared when they are first used. */
class Connection {
  readonly db: DatabaseSync;
  readonly #statements = new Map<string, StatementSync>();

  constructor(db: DatabaseSync) {
    this.db = db;
  }

  get<Row>(sql: string, ...values: SQLInputValue[]): Optional<Row> {
    return this.#statement(sql).get(...values) as Optional<Row>;
  }

  all<Row>(sql: string, ...values: SQLInputValue[]): Row[] {
    return this.#statement(sql).all(...values) as Row[];
  }

  /** How many rows it changed. */
  run(sql: string, ...values: SQLInputValue[]): number {
    return Number(this.#statement(sql).run(...values).changes);
  }

  /** All or nothing. */
  transaction<T>(begin: 'BEGIN' | 'BEGIN IMMEDIATE', work: () => T): T {
    this.run(begin);
    try {
      const result = work();
      this.run('COMMIT');
      return result;
    } catch (error) {
      // A full disk or a damaged page may have ended it already.
      if (this.db.isTransaction) this.run('ROLLBACK');
      throw error;
    }
  }

  #statement(sql: string): StatementSync {
    let statement = this.#statements.get(sql);
    if (statement === undefined) this.#statements.set(sql, statement = this.db.prepare(sql));
    return statement;
  }
}

// ---- the store -------------------------------------------------------------------------------------------------------

/** Opens or makes `<folder>/views`. Throws OperatingError. */
export async function openSqliteViewStore(options: SqliteViewOptions): Promise<SqliteViewStore> {
  const folder = path.join(options.folder, 'views');
  const file = path.join(folder, 'control.sqlite');
  return guarded(file, () => {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    const db = new DatabaseSync(file, { timeout: CONTROL_WAIT_MS });
    db.exec(`PRAGMA page_size = ${PAGE_SIZE}; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL`);
    const control = new Connection(db);
    const { user_version: format } = control.get<{ user_version: number }>('PRAGMA user_version')!;
    // Two processes may come first: the second finds the tables made.
    if (format === 0) control.transaction('BEGIN IMMEDIATE', () => db.exec(CONTROL_SCHEMA));
    checkFormat(file, db);
    return new SqliteViewStore(folder, control, options);
  });
}

export class SqliteViewStore implements ViewStore {
  readonly #folder: string;
  readonly #file: string;
  readonly #control: Connection;
  readonly #options: SqliteViewOptions;
  readonly #views = new Map<string, SqliteView>();

  constructor(folder: string, control: Connection, options: SqliteViewOptions) {
    this.#folder = folder;
    this.#file = path.join(folder, 'control.sqlite');
    this.#control = control;
    this.#options = options;
  }

  async generations(group: string): Promise<readonly Generation[]> {
    return guarded(this.#file, () => this.#control.all<{ body: string }>('SELECT body FROM generations WHERE name = ? ORDER BY id', group).map(({ body }) => JSON.parse(body) as Generation));
  }

  async live(group: string): Promise<number | null> {
    return guarded(this.#file, () => this.#control.get<{ live: number | null }>('SELECT live FROM groups WHERE name = ?', group)?.live ?? null);
  }

  async createGeneration(generation: Omit<Generation, 'id' | 'createdAt'>): Promise<Generation> {
    assert(/^[a-z][a-zA-Z0-9]*$/.test(generation.group), `a group's name is part of a file's: ${generation.group}`);
    const createdAt = new Date((this.#options.clock ?? Date).now()).toISOString();
    return this.#change(() => {
      // An id is never given twice, so that nobody mistakes a new file for one that was dropped.
      const { made } = this.#control.get<{ made: number }>('INSERT INTO groups VALUES (?, NULL, 1) ON CONFLICT (name) DO UPDATE SET made = made + 1 RETURNING made', generation.group)!;
      const created: Generation = { ...generation, id: made, createdAt };
      this.#control.run('INSERT INTO generations VALUES (?, ?, ?)', generation.group, made, JSON.stringify(created));
      return created;
    });
  }

  async promote(group: string, from: number | null, to: number): Promise<boolean> {
    return this.#change(() => {
      if (this.#generation(group, to) === null) throw new OperatingError('viewMissing', `generation ${to} of ${group} does not exist`);
      return this.#control.run('UPDATE groups SET live = ? WHERE name = ? AND live IS ?', to, group, from) === 1;
    });
  }

  /** Readers that have the files open go on reading what they had: the names go, the files when the last one closes them. */
  async dropGeneration(group: string, id: number): Promise<boolean> {
    const dropped = this.#change(() => {
      const generation = this.#generation(group, id);
      if (this.#control.get('SELECT 1 FROM groups WHERE name = ? AND live = ?', group, id) !== undefined) return false;
      // Files first: should this process die here, the generation is still listed and can be dropped again.
      for (let shard = 0; shard < (generation?.shards ?? 0); shard += 1) removeFiles(this.#path(group, id, shard));
      this.#control.run('DELETE FROM generations WHERE name = ? AND id = ?', group, id);
      return true;
    });
    if (dropped) for (const [key, view] of this.#views) if (view.generation.group === group && view.generation.id === id) this.#views.delete(key);
    return dropped;
  }

  async view(group: string, generation: number, shard: number): Promise<SqliteView> {
    const file = this.#path(group, generation, shard);
    const known = this.#views.get(file);
    if (known !== undefined) return known;
    // Under the control file's write lock, so that nobody drops the generation while its file is made.
    const found = this.#change(() => {
      const stored = this.#generation(group, generation);
      if (stored === null) throw new OperatingError('viewMissing', `generation ${generation} of ${group} does not exist`);
      assert(shard >= 0 && shard < stored.shards, `generation ${generation} of ${group} has no shard ${shard}`);
      if (!existsSync(file)) guarded(file, () => makeView(file));
      return new SqliteView(file, stored, shard, () => this.#status(group, generation), this.#options);
    });
    this.#views.set(file, found);
    return found;
  }

  async addTallies(tallies: readonly Tally[]): Promise<void> {
    this.#change(() => {
      for (const tally of tallies) {
        const stored = this.#control.get<{ body: string }>('SELECT body FROM tallies WHERE workspace = ? AND source = ?', tally.workspace, tally.source);
        const merged = mergeTally(stored === undefined ? null : JSON.parse(stored.body) as Tally, tally);
        this.#control.run('INSERT OR REPLACE INTO tallies VALUES (?, ?, ?)', tally.workspace, tally.source, JSON.stringify(merged));
      }
    });
  }

  async tallies(workspace: string): Promise<readonly Tally[]> {
    return guarded(this.#file, () => this.#control.all<{ body: string }>('SELECT body FROM tallies WHERE workspace = ? ORDER BY source', workspace).map(({ body }) => JSON.parse(body) as Tally));
  }

  async close(): Promise<void> {
    for (const view of this.#views.values()) view.close();
    this.#views.clear();
    if (this.#control.db.isOpen) guarded(this.#file, () => this.#control.db.close());
  }

  #change<T>(work: () => T): T {
    return guarded(this.#file, () => this.#control.transaction('BEGIN IMMEDIATE', work));
  }

  #generation(group: string, id: number): Generation | null {
    const row = this.#control.get<{ body: string }>('SELECT body FROM generations WHERE name = ? AND id = ?', group, id);
    return row === undefined ? null : JSON.parse(row.body) as Generation;
  }

  /** What a commit must know of its generation, freshly read. */
  #status(group: string, id: number): Status {
    return guarded(this.#file, () => {
      const row = this.#control.get<{ live: number | null; stands: number }>(
        'SELECT live, EXISTS (SELECT 1 FROM generations WHERE name = groups.name AND id = ?) AS stands FROM groups WHERE name = ?', id, group);
      return { live: row?.live ?? null, stands: row?.stands === 1 };
    });
  }

  #path(group: string, generation: number, shard: number): string {
    return path.join(this.#folder, `${group}-${generation}-${shard}.sqlite`);
  }
}

interface Status { readonly live: number | null; readonly stands: boolean }

function removeFiles(file: string): void {
  for (const suffix of ['', '-wal', '-shm']) rmSync(file + suffix, { force: true });
}

/** Made beside and renamed, so that an empty or half-made file under the real name is damage and never taken for a new view. */
function makeView(file: string): void {
  const draft = `${file}.new`;
  removeFiles(draft);
  const db = new DatabaseSync(draft);
  db.exec(`PRAGMA page_size = ${PAGE_SIZE}; PRAGMA journal_mode = WAL; BEGIN; ${VIEW_SCHEMA} COMMIT`);
  db.close();
  // What a deleted file left behind must not be taken for the new one's log.
  removeFiles(file);
  renameSync(draft, file);
}

/** Never makes the file: one that is gone was dropped. */
function openExisting(file: string, options: { readonly readOnly: boolean; readonly timeout: number }, pragmas: string): DatabaseSync {
  const url = pathToFileURL(file);
  url.searchParams.set('mode', options.readOnly ? 'ro' : 'rw');
  const db = new DatabaseSync(url, options);
  db.exec(pragmas);
  checkFormat(file, db);
  return db;
}

// ---- a view ----------------------------------------------------------------------------------------------------------

/** What a view did so far, counted: for metrics, and for tests that hold work instead of seconds. */
export interface ViewWork {
  postingsRead: number; postingsWritten: number; pagesRead: number; pagesWritten: number;
  recordsRead: number; recordsWritten: number; chunksRead: number; chunksWritten: number; cacheHits: number;
}
interface StateRow { readonly position: Position | null; readonly digest: string; readonly commits: number; readonly documents: number; readonly records: number }
const READ_STATE = 'SELECT position, digest, commits, documents, records FROM state';

export class SqliteView implements View {
  readonly generation: Generation;
  readonly shard: number;
  readonly work: ViewWork = { postingsRead: 0, postingsWritten: 0, pagesRead: 0, pagesWritten: 0, recordsRead: 0, recordsWritten: 0, chunksRead: 0, chunksWritten: 0, cacheHits: 0 };
  readonly #file: string;
  readonly #status: () => Status;
  readonly #options: SqliteViewOptions;
  /** Shared by reader and writer, which never run at the same time in one thread; forgotten when a commit fails, since it may have named what was not kept. */
  readonly #names = new Names();
  readonly #reader: IndexReader;
  #writer: Connection | null = null;
  #closed = false;

  constructor(file: string, generation: Generation, shard: number, status: () => Status, options: SqliteViewOptions) {
    this.generation = generation;
    this.shard = shard;
    this.#file = file;
    this.#status = status;
    this.#options = options;
    // Opened at once: a reader keeps its files even when the generation is dropped.
    this.#reader = guarded(file, () => {
      const connection = new Connection(openExisting(file, { readOnly: true, timeout: READ_WAIT_MS }, 'PRAGMA cache_size = -16384'));
      return new IndexReader(file, connection, this.#names, generation, new Cache(options.cacheBytes ?? CACHE_BYTES), this.work);
    });
  }

  async position(): Promise<Position | null> {
    return this.#read(({ state }) => state.position);
  }

  async digest(): Promise<string> {
    return this.#read(({ state }) => state.digest);
  }

  async load(keys: readonly string[]): Promise<readonly (string | null)[]> {
    return this.#read(({ reader }) => keys.map((key) => reader.document(key)));
  }

  async scan(from: string, to: string, limit: number): Promise<readonly { readonly key: string; readonly value: string }[]> {
    const end = scanEnd(this.generation, from, to);
    return this.#read(({ reader }) => reader.connection.all<{ key: string; value: string }>('SELECT key, value FROM documents WHERE key >= ? AND key < ? ORDER BY key LIMIT ?', from, end, limit));
  }

  async stats(): Promise<{ readonly documents: number; readonly records: number; readonly bytes: number }> {
    const { documents, records } = this.#read(({ state }) => state);
    const bytes = [this.#file, `${this.#file}-wal`].reduce((sum, file) => sum + (statSync(file, { throwIfNoEntry: false })?.size ?? 0), 0);
    return { documents, records, bytes };
  }

  async search(query: SearchQuery, documentSpace: string): Promise<SearchResult> {
    checkQuery(this.generation, query);
    return this.#read(({ reader, state }) => {
      const { rows, total, more } = reader.search(query, state.commits);
      return { rows: rows.map((row) => ({ ...row, document: reader.document(`${query.workspace}/${documentSpace}/${row.key}`) })), total, more };
    });
  }

  async commit(commit: Commit): Promise<CommitResult> {
    checkCommit(this.generation, commit);
    return guarded(this.#file, () => {
      this.#assertOpen();
      // The file of a dropped generation may be gone: only one that stands is opened for writing.
      const { live, stands } = this.#status();
      if (!stands) return { kind: 'moved', position: this.#read(({ state }) => state.position), live };
      const writer = this.#writer ??= this.#openWriter();
      // A promotion holds the live file's write lock. Once this commit has the lock, no promotion is under way, and the
      // pointer that it reads after that stands until it is done: the next promotion must take the lock first.
      try {
        writer.run('BEGIN IMMEDIATE');
      } catch (error) {
        if (((error as { errcode?: number }).errcode ?? 0) % 256 === BUSY) return { kind: 'held' };
        throw error;
      }
      try {
        const result = this.#write(writer, commit);
        writer.run(result.kind === 'committed' ? 'COMMIT' : 'ROLLBACK');
        return result;
      } catch (error) {
        this.#names.clear();
        if (writer.db.isTransaction) writer.run('ROLLBACK');
        throw error;
      }
    });
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#reader.connection.db.close();
    // The writer last: the last one to leave empties the WAL into the file, and only a writer can.
    this.#writer?.db.close();
  }

  #write(writer: Connection, commit: Commit): CommitResult {
    const state = writer.get<StateRow>(READ_STATE)!;
    const { live, stands } = this.#status();
    const mine = stands && (live === this.generation.id) === (commit.role === 'live');
    if (!mine || state.position !== commit.expected) return { kind: 'moved', position: state.position, live };
    const documents = state.documents + writeDocuments(writer, commit.documents);
    const edit = new IndexEdit(this.#file, writer, this.#names, this.generation, state.commits + 1, this.work);
    for (const [workspace, changes] of commit.records) for (const change of changes) edit.apply(workspace, change);
    edit.flush();
    writer.run('UPDATE state SET documents = ?, records = ?, commits = ?, digest = ?, position = ?', documents, state.records + edit.recordsAdded, state.commits + 1, commit.digest, commit.position);
    return { kind: 'committed' };
  }

  /** One snapshot: nothing of another commit is seen until `work` returns. It must not wait for anything. */
  #read<T>(work: (snapshot: { reader: IndexReader; state: StateRow }) => T): T {
    return guarded(this.#file, () => {
      this.#assertOpen();
      const { connection } = this.#reader;
      return connection.transaction('BEGIN', () => work({ reader: this.#reader, state: connection.get<StateRow>(READ_STATE)! }));
    });
  }

  #openWriter(): Connection {
    const { lockWaitMs, maxPages } = this.#options;
    return new Connection(openExisting(this.#file, { readOnly: false, timeout: lockWaitMs ?? LOCK_WAIT_MS }, `PRAGMA synchronous = NORMAL; PRAGMA cache_size = -32768;
      PRAGMA wal_autocheckpoint = ${CHECKPOINT_PAGES}; PRAGMA journal_size_limit = ${CHECKPOINT_PAGES * PAGE_SIZE}; ${maxPages === undefined ? '' : `PRAGMA max_page_count = ${maxPages}`}`));
  }

  #assertOpen(): void {
    if (this.#closed) throw new OperatingError('storeClosed', `${this.#file} is closed`);
  }
}

/** How many documents there are more. Tries the update first, because most documents are written more than once. */
function writeDocuments(writer: Connection, documents: ReadonlyMap<string, string | null>): number {
  let added = 0;
  for (const [key, value] of documents) {
    if (value === null) added -= writer.run('DELETE FROM documents WHERE key = ?', key);
    else if (writer.run('UPDATE documents SET value = ? WHERE key = ?', value, key) === 0) added += writer.run('INSERT INTO documents (key, value) VALUES (?, ?)', key, value);
  }
  return added;
}

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
