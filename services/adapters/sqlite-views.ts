// The view store in SQLite: `views/control.sqlite` says which generations there are, which of them is live and what the
// door counted; each generation and shard is a file of its own, `views/<group>-<generation>-<shard>.sqlite`. The search
// index is laid out as in measurements.md section 9; postings.ts says what it holds and answers from it.
//
// Several threads and processes open the same files. Each view has one writer at a time (SQLite's write lock) and any
// number of readers, who read inside a transaction and so see documents, index and position of one commit. View files are
// written with synchronous=NORMAL: a power cut may take the last commits, but whole ones and from the end, and as the
// position goes with them the log folds them again. The control file, which cannot be refolded, is FULL.
import assert from 'node:assert';
import { existsSync, mkdirSync, renameSync, rmSync, statfsSync, statSync } from 'node:fs';
import path from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { OperatingError } from '../errors.ts';
import { type Clock, type Commit, type CommitResult, type Generation, type Hold, HOLD_MS, type Position, type SearchQuery, type SearchResult, type Tally, type View, type ViewStore, type Walked } from '../ports.ts';
import { checkCommit, checkQuery, EMPTY_DIGEST, mergeTally, scanEnd } from './postings.ts';
import { checkFormat, Connection, FORMAT, guarded, isBusy, openExisting } from './sqlite-file.ts';
import { INDEX_SCHEMA, IndexReader, IndexWriter, Names, type ViewWork } from './sqlite-index.ts';

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

const PAGE_SIZE = 8192;
const CONTROL_WAIT_MS = 5_000;
const READ_WAIT_MS = 5_000;
/** Nobody takes a lease for longer. */
const LEASE_MAX_MS = 600_000;
const LOCK_WAIT_MS = 250;
const CACHE_BYTES = 32 * 1024 * 1024;
/** Of a file's pages, for who searches; and for who folds, and asks for each document when its customer comes again. */
const [READ_CACHE_KIB, FOLD_CACHE_KIB] = [16_384, 4096] as const;
/** Documents that one call draws. */
const DRAWN = 200;
const CHECKPOINT_PAGES = 4_000;

const CONTROL_SCHEMA = `
  CREATE TABLE IF NOT EXISTS groups (name TEXT PRIMARY KEY, live INTEGER, made INTEGER NOT NULL, previous INTEGER) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS generations (name TEXT NOT NULL, id INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (name, id)) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS versions (number INTEGER PRIMARY KEY, name TEXT NOT NULL, version TEXT NOT NULL, UNIQUE (name, version)) STRICT;
  CREATE TABLE IF NOT EXISTS tallies (workspace TEXT NOT NULL, source TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (workspace, source)) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS leases (name TEXT PRIMARY KEY, holder TEXT NOT NULL, ends INTEGER NOT NULL) STRICT, WITHOUT ROWID;
  PRAGMA user_version = ${FORMAT};`;

// Documents in a rowid table: in a WITHOUT ROWID one every value past 2 KB would take overflow pages.
const VIEW_SCHEMA = `
  CREATE TABLE state (only INTEGER PRIMARY KEY CHECK (only = 1), position TEXT, digest TEXT NOT NULL,
    commits INTEGER NOT NULL, documents INTEGER NOT NULL, records INTEGER NOT NULL) STRICT;
  INSERT INTO state VALUES (1, NULL, '${EMPTY_DIGEST}', 0, 0, 0);
  CREATE TABLE documents (number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, value TEXT NOT NULL) STRICT;
  ${INDEX_SCHEMA}
  PRAGMA user_version = ${FORMAT};`;

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
    // Two processes may come first: the second finds the tables made. Folders made before there were leases lack that table, later
    // ones the column of what was live before, or the table of versions; those that made them mind none, so the format's number stays.
    const lacks = (sql: string): boolean => control.get(sql) === undefined;
    const lacksPrevious = (): boolean => lacks("SELECT 1 FROM pragma_table_info('groups') WHERE name = 'previous'");
    const isOld = (): boolean => lacks("SELECT 1 FROM sqlite_schema WHERE name = 'leases'") || lacksPrevious() || lacks("SELECT 1 FROM sqlite_schema WHERE name = 'versions'");
    if (format === 0 || (format === FORMAT && isOld())) {
      control.transaction('BEGIN IMMEDIATE', () => {
        db.exec(CONTROL_SCHEMA);
        if (lacksPrevious()) db.exec('ALTER TABLE groups ADD COLUMN previous INTEGER');
      });
    }
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
    return guarded(this.#file, () => this.#control.all<{ body: string }>('SELECT body FROM generations WHERE name = ? ORDER BY id', group)
      .map(({ body }) => JSON.parse(body) as Generation));
  }

  async live(group: string): Promise<number | null> {
    return guarded(this.#file, () => this.#control.get<{ live: number | null }>('SELECT live FROM groups WHERE name = ?', group)?.live ?? null);
  }

  async createGeneration(generation: Omit<Generation, 'id' | 'createdAt'>): Promise<Generation> {
    assert(/^[a-z][a-zA-Z0-9]*$/.test(generation.group), `a group's name is part of a file's: ${generation.group}`);
    const createdAt = new Date((this.#options.clock ?? Date).now()).toISOString();
    return this.#change(() => {
      // An id is never given twice, so that nobody mistakes a new file for one that was dropped.
      const { made } = this.#control.get<{ made: number }>('INSERT INTO groups (name, made) VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET made = made + 1 RETURNING made', generation.group)!;
      const created: Generation = { ...generation, id: made, createdAt };
      // But files may stand there whose control file was deleted: what they hold is of who knows which version.
      for (let shard = 0; shard < generation.shards; shard += 1) removeFiles(this.#path(generation.group, made, shard));
      this.#control.run('INSERT INTO generations VALUES (?, ?, ?)', generation.group, made, JSON.stringify(created));
      return created;
    });
  }

  async previous(group: string): Promise<number | null> {
    return guarded(this.#file, () => this.#control.get<{ previous: number }>(
      'SELECT previous FROM groups JOIN generations ON generations.name = groups.name AND id = previous WHERE groups.name = ?', group)?.previous ?? null);
  }

  async seen(group: string, version: string): Promise<readonly string[]> {
    const known = (): readonly string[] => this.#control.all<{ version: string }>('SELECT version FROM versions WHERE name = ? ORDER BY number', group).map((one) => one.version);
    const before = guarded(this.#file, known);
    if (before.includes(version)) return before;
    return this.#change(() => {
      for (const { body } of this.#control.all<{ body: string }>('SELECT body FROM generations WHERE name = ? ORDER BY id', group)) this.#note(group, (JSON.parse(body) as Generation).version);
      this.#note(group, version);
      return known();
    });
  }

  #note(group: string, version: string): void {
    this.#control.run('INSERT INTO versions (name, version) VALUES (?, ?) ON CONFLICT DO NOTHING', group, version);
  }

  /** A hold is the write lock of the live files: while it stands no commit to them can be under way, and none be made before the pointer has moved. */
  async promote(group: string, from: number | null, to: number, hold?: Hold): Promise<boolean> {
    return this.#change(() => {
      if (this.#generation(group, to) === null) throw new OperatingError('viewMissing', `generation ${to} of ${group} does not exist`);
      if (hold !== undefined && !(hold instanceof FileHold && hold.stands)) return false;
      return this.#control.run('UPDATE groups SET live = ?, previous = live WHERE name = ? AND live IS ?', to, group, from) === 1;
    });
  }

  async hold(group: string): Promise<Hold | null> {
    const live = await this.live(group);
    const stored = live === null ? null : guarded(this.#file, () => this.#generation(group, live));
    if (live === null || stored === null) return null;
    const hold = new FileHold(live);
    for (let shard = 0; shard < stored.shards; shard += 1) {
      const file = this.#path(group, live, shard);
      // One that nothing was ever folded into has no file, and is made by its first commit alone.
      if (existsSync(file) && !hold.take(file, this.#options.lockWaitMs ?? LOCK_WAIT_MS)) return null;
    }
    if ((await this.live(group)) === live) return hold;
    await hold.release();
    return null;
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

  async lease(name: string, holder: string, ms: number): Promise<boolean> {
    const now = this.#now();
    return this.#change(() => {
      // What ran out is of no use to anybody; a worker's lease has a name of its own, so nobody else would ever overwrite it.
      // One that ends further ahead than anybody takes it for was taken before the machine's clock was set back.
      this.#control.run('DELETE FROM leases WHERE ends <= ? OR ends > ?', now, now + LEASE_MAX_MS);
      return this.#control.run('INSERT INTO leases VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET ends = excluded.ends WHERE holder = excluded.holder', name, holder, now + ms) === 1;
    });
  }

  async release(name: string, holder: string): Promise<void> {
    this.#change(() => this.#control.run('DELETE FROM leases WHERE name = ? AND holder = ?', name, holder));
  }

  async leases(prefix: string): Promise<readonly { readonly name: string; readonly holder: string }[]> {
    return guarded(this.#file, () => this.#control.all<{ name: string; holder: string }>(
      'SELECT name, holder FROM leases WHERE ends > ? AND substr(name, 1, length(?)) = ? ORDER BY name', this.#now(), prefix, prefix).map(({ name, holder }) => ({ name, holder })));
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
    return guarded(this.#file, () => this.#control.all<{ body: string }>('SELECT body FROM tallies WHERE workspace = ? ORDER BY source', workspace)
      .map(({ body }) => JSON.parse(body) as Tally));
  }

  async free(): Promise<number | null> {
    const { bavail, bsize } = guarded(this.#file, () => statfsSync(this.#folder));
    return bavail * bsize;
  }

  async close(): Promise<void> {
    for (const view of this.#views.values()) view.close();
    this.#views.clear();
    if (this.#control.db.isOpen) guarded(this.#file, () => this.#control.db.close());
  }

  #now(): number {
    return Math.trunc((this.#options.clock ?? Date).now());
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

/** The write locks of a generation's files. They go with this process at the latest, by themselves after HOLD_MS. */
class FileHold implements Hold {
  readonly generation: number;
  readonly #locked: DatabaseSync[] = [];
  readonly #end: NodeJS.Timeout;
  stands = true;

  constructor(generation: number) {
    this.generation = generation;
    this.#end = setTimeout(() => { this.#release(); }, HOLD_MS).unref();
  }

  /** False where a commit has the lock for longer than is waited; then nothing is held any more. */
  take(file: string, waitMs: number): boolean {
    try {
      const db = guarded(file, () => openExisting(file, { readOnly: false, timeout: waitMs }, ''));
      this.#locked.push(db);
      db.exec('BEGIN IMMEDIATE');
      return this.stands;
    } catch (error) {
      this.#release();
      if (isBusy(error)) return false;
      throw error;
    }
  }

  async release(): Promise<void> { this.#release(); }

  #release(): void {
    this.stands = false;
    clearTimeout(this.#end);
    // Closing one ends its transaction, and with it the lock.
    for (const db of this.#locked.splice(0)) db.close();
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

// ---- a view ----------------------------------------------------------------------------------------------------------

interface StateRow { readonly position: Position | null; readonly digest: string; readonly commits: number; readonly documents: number; readonly records: number }
const READ_STATE = 'SELECT position, digest, commits, documents, records FROM state';

export class SqliteView implements View {
  readonly generation: Generation;
  readonly shard: number;
  readonly commitMax = null;
  /** What it did so far in this process. */
  readonly work: ViewWork = { postingsRead: 0, postingsWritten: 0, pagesRead: 0, pagesWritten: 0, recordsRead: 0, recordsWritten: 0, chunksRead: 0, chunksWritten: 0, cacheHits: 0 };
  readonly #file: string;
  readonly #status: () => Status;
  readonly #options: SqliteViewOptions;
  /** Shared by reader and writer: neither waits for anything, so in one thread they never run at the same time. */
  readonly #names = new Names();
  readonly #reader: IndexReader;
  #writer: { readonly connection: Connection; readonly index: IndexWriter } | null = null;
  #closed = false;

  constructor(file: string, generation: Generation, shard: number, status: () => Status, options: SqliteViewOptions) {
    this.generation = generation;
    this.shard = shard;
    this.#file = file;
    this.#status = status;
    this.#options = options;
    // Opened at once: a reader keeps its files even when the generation is dropped.
    this.#reader = guarded(file, () => {
      const connection = new Connection(openExisting(file, { readOnly: true, timeout: READ_WAIT_MS }, `PRAGMA cache_size = -${READ_CACHE_KIB}`));
      return new IndexReader(file, connection, this.#names, generation, options.cacheBytes ?? CACHE_BYTES, this.work);
    });
  }

  async position(): Promise<Position | null> {
    return this.#read(({ state }) => state.position);
  }

  async digest(): Promise<string> {
    return this.#read(({ state }) => state.digest);
  }

  async load(keys: readonly string[]): Promise<readonly (string | null)[]> {
    return this.#read(({ reader }) => reader.documents(keys));
  }

  async walk(from: string | null, limit: number): Promise<Walked> {
    const documents = this.#read(({ reader }) => reader.connection.all<{ key: string; value: string }>(
      'SELECT key, value FROM documents WHERE key > ? ORDER BY key LIMIT ?', from ?? '', limit).map(({ key, value }) => ({ key, value })));
    return { documents, next: documents.length < limit ? null : documents.at(-1)?.key ?? null };
  }

  /** By their numbers, of which one that was deleted is missed: no index has to be read but the way to the row. */
  async draw(chance: () => number): Promise<readonly string[]> {
    return this.#read(({ reader: { connection } }) => {
      const last = connection.get<{ last: number | null }>('SELECT max(number) AS last FROM documents')?.last ?? 0;
      return Array.from({ length: DRAWN }, () => connection.get<{ key: string }>('SELECT key FROM documents WHERE number = ?', 1 + Math.floor(chance() * last))).flatMap((row) => row?.key ?? []);
    });
  }

  async scan(from: string, to: string, limit: number): Promise<readonly { readonly key: string; readonly value: string }[]> {
    const end = scanEnd(this.generation, from, to);
    return this.#read(({ reader }) => reader.connection.all<{ key: string; value: string }>(
      'SELECT key, value FROM documents WHERE key >= ? AND key < ? ORDER BY key LIMIT ?', from, end, limit));
  }

  async stats(): Promise<{ readonly documents: number; readonly records: number; readonly bytes: number }> {
    const { documents, records } = this.#read(({ state }) => state);
    const bytes = [this.#file, `${this.#file}-wal`].reduce((sum, file) => sum + (statSync(file, { throwIfNoEntry: false })?.size ?? 0), 0);
    return { documents, records, bytes };
  }

  async search(query: SearchQuery, documentSpace: string): Promise<SearchResult> {
    checkQuery(this.generation, query);
    this.#assertOpen();
    const keyed = guarded(this.#file, () => this.#reader.searchKeyed(query, documentSpace));
    if (keyed !== null) return keyed;
    return this.#read(({ reader, state }) => reader.search(query, documentSpace, state.commits));
  }

  async commit(commit: Commit): Promise<CommitResult> {
    checkCommit(this.generation, commit);
    return guarded(this.#file, () => {
      this.#assertOpen();
      // The file of a dropped generation may be gone: only one that stands is opened for writing.
      const { live, stands } = this.#status();
      if (!stands) return { kind: 'moved', position: this.#read(({ state }) => state.position), live };
      const { connection, index } = this.#writer ??= this.#openWriter();
      // A promotion holds the live file's write lock. Once this commit has the lock, no promotion is under way, and the
      // pointer that it reads after that stands until it is done: the next promotion must take the lock first.
      try {
        connection.run('BEGIN IMMEDIATE');
      } catch (error) {
        if (isBusy(error)) return { kind: 'held' };
        throw error;
      }
      try {
        const result = this.#write(connection, index, commit);
        connection.run(result.kind === 'committed' ? 'COMMIT' : 'ROLLBACK');
        return result;
      } catch (error) {
        index.forget();
        if (connection.db.isTransaction) connection.run('ROLLBACK');
        throw error;
      }
    });
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#reader.connection.db.close();
    // The writer last: the last one to leave empties the WAL into the file, and only a writer can.
    this.#writer?.connection.db.close();
  }

  #write(connection: Connection, index: IndexWriter, commit: Commit): CommitResult {
    const state = connection.get<StateRow>(READ_STATE)!;
    const { live, stands } = this.#status();
    const mine = stands && (live === this.generation.id) === (commit.role === 'live');
    if (!mine || state.position !== commit.expected) return { kind: 'moved', position: state.position, live };
    const documents = state.documents + writeDocuments(connection, commit.documents);
    const records = state.records + index.write(commit.records, state.commits);
    connection.run('UPDATE state SET documents = ?, records = ?, commits = ?, digest = ?, position = ?', documents, records, state.commits + 1, commit.digest, commit.position);
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

  #openWriter(): { connection: Connection; index: IndexWriter } {
    const { lockWaitMs, maxPages } = this.#options;
    const pragmas = `PRAGMA synchronous = NORMAL; PRAGMA cache_size = -${FOLD_CACHE_KIB};
      PRAGMA wal_autocheckpoint = ${CHECKPOINT_PAGES}; PRAGMA journal_size_limit = ${CHECKPOINT_PAGES * PAGE_SIZE};
      ${maxPages === undefined ? '' : `PRAGMA max_page_count = ${maxPages}`}`;
    const connection = new Connection(openExisting(this.#file, { readOnly: false, timeout: lockWaitMs ?? LOCK_WAIT_MS }, pragmas));
    this.#reader.connection.db.exec(`PRAGMA cache_size = -${FOLD_CACHE_KIB}`);
    return { connection, index: new IndexWriter(this.#file, connection, this.#names, this.generation, this.work) };
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

