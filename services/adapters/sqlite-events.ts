// The event store in one SQLite file, `events.sqlite` (WAL, synchronous=FULL). Layout and sizes: measurements.md 2.2-2.4.
//
//   streams(id, name)                    a stream's name stands once; ids are 1, 2, 3 …
//   events(position, stream_id, …)       positions are 1, 2, 3 … without a hole, so that a hole is corruption and a gap a subtraction
//   unique (stream_id, revision)         reads of a stream
//   unique (stream_id, id)               an event's id decides its stream (design.md section 3), so that uniqueness per stream is uniqueness;
//                                        and this index is written where its stream was written last, a global one all over the file
//   position where category <> identity  so that a follower of decisions, erasures or workspaces never walks over customers' events
//
// Writes go through one thread and as many at a time as are waiting (group commit); other processes may append too, so
// nothing that a writer remembers survives a commit that was not its own. Reads are made in the calling thread, a
// page at a time, because a checkpoint cannot pass a reader that stays.
import assert from 'node:assert/strict';
import { closeSync, existsSync, fsyncSync, mkdirSync, openSync, readFileSync, realpathSync, rmSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { DatabaseSync, type StatementSync } from 'node:sqlite';
import { setImmediate as turn } from 'node:timers/promises';
import { BroadcastChannel, type MessagePort, Worker } from 'node:worker_threads';
import { type ErrorCode, OperatingError } from '../errors.ts';
import type { AppendResult, EventStore, ExpectedRevision, NewEvent, Position, RandomBytes, RecordedEvent, SubscriptionBatch } from '../ports.ts';
import { cutShort, damaged, guarded } from './sqlite-file.ts';

const FILE = 'events.sqlite';
const SCHEMA_VERSION = 1;
const PAGE_SIZE = 8192;
const CHECKPOINT_PAGES = 10_000;
/** Past this the WAL is emptied by force: readers that overlap without end would otherwise keep a checkpoint from ever finishing. */
const WAL_LIMIT_BYTES = 4 * CHECKPOINT_PAGES * PAGE_SIZE;
const WAL_LOOK_COMMITS = 16;
const WAL_WAIT_MS = 500;
/** While some reader holds on to an old state (a backup), waiting for it again and again would hold up every append. */
const WAL_RETRY_COMMITS = 4_096;
const GROUP_EVENTS = 2_000;
const GROUP_BYTES = 8 * 1024 * 1024;
/** A second message is sent ahead to a busy writer once this much waits: it then never idles, and small loads still share one fsync. */
const AHEAD_EVENTS = 256;
const READ_ROWS = 1_000;
const BATCH_BYTES = 8 * 1024 * 1024;
/** A subscription that finds nothing hands over its position at least this often. */
const SCAN_ROWS = 5 * READ_ROWS;
const POLL_MS = 50;
const KNOWN_STREAMS = 50_000;

const SCHEMA = `
  CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID, STRICT;
  CREATE TABLE streams (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
  CREATE TABLE events (
    position INTEGER PRIMARY KEY, stream_id INTEGER NOT NULL, revision INTEGER NOT NULL, category INTEGER NOT NULL,
    id BLOB NOT NULL, type TEXT NOT NULL, metadata BLOB NOT NULL, data BLOB NOT NULL,
    UNIQUE (stream_id, revision), UNIQUE (stream_id, id)
  ) STRICT;
  CREATE INDEX events_beside ON events (position) WHERE category = 1;`;

/** The category that is nearly everything; all others stand in `events_beside`. */
const BULK = 'identity.';
function categoryOf(stream: string): number {
  return stream.startsWith(BULK) ? 0 : 1;
}

function positionOf(place: number): Position {
  return String(place).padStart(20, '0') as Position;
}
function placeOf(position: Position | null): number {
  if (position === null) return 0;
  assert(/^\d{20}$/.test(position), 'a position of this store has twenty digits');
  return Number(position);
}

// ---- errors ----------------------------------------------------------------------------------------------------------

function messageOf(error: unknown): string {
  return typeof error === 'object' && error !== null && 'message' in error ? String(error.message) : String(error);
}

// ---- the file --------------------------------------------------------------------------------------------------------

function connect(file: string, options: { readonly readOnly: boolean; readonly busyTimeoutMs: number; readonly cacheKiB: number }): DatabaseSync {
  const db = new DatabaseSync(file, { readOnly: options.readOnly, timeout: options.busyTimeoutMs });
  db.exec(`PRAGMA cache_size = -${options.cacheKiB}; PRAGMA cell_size_check = ON; PRAGMA temp_store = MEMORY`);
  return db;
}

function connectWriter(file: string, options: WriterOptions): DatabaseSync {
  const db = connect(file, { readOnly: false, busyTimeoutMs: options.busyTimeoutMs, cacheKiB: 8 * 1024 });
  db.exec(`PRAGMA page_size = ${PAGE_SIZE}; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
    PRAGMA wal_autocheckpoint = ${CHECKPOINT_PAGES}; PRAGMA journal_size_limit = ${CHECKPOINT_PAGES * PAGE_SIZE}`);
  if (options.maxPages !== undefined) db.exec(`PRAGMA max_page_count = ${options.maxPages}`);
  return db;
}

/** Makes the tables where there are none, in a transaction of its own: of two processes that come first, one makes them and the other finds them. */
function create(db: DatabaseSync, random: RandomBytes): void {
  const made = (): boolean => db.prepare("SELECT 1 FROM sqlite_schema WHERE name = 'meta'").get() !== undefined;
  if (made()) return;
  db.exec('BEGIN IMMEDIATE');
  try {
    if (!made()) {
      db.exec(SCHEMA);
      const insert = db.prepare('INSERT INTO meta VALUES (?, ?)');
      insert.run('schema_version', String(SCHEMA_VERSION));
      insert.run('store_id', randomUuid(random));
    }
    db.exec('COMMIT');
  } catch (error) {
    if (db.isTransaction) db.exec('ROLLBACK');
    throw error;
  }
}

function randomUuid(random: RandomBytes): string {
  const bytes = Uint8Array.from(random(16));
  bytes[6] = (bytes[6]! & 0x0f) | 0x40;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  return dashed(Buffer.from(bytes).toString('hex'));
}

function dashed(hex: string): string {
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}

/** A new folder holds customers' data: only its owner enters. Its own entry is made durable, SQLite sees to what is inside. */
function makeFolder(folder: string): void {
  if (mkdirSync(folder, { recursive: true, mode: 0o700 }) === undefined) return;
  const parent = openSync(path.dirname(folder), 'r');
  try {
    fsyncSync(parent);
  } finally {
    closeSync(parent);
  }
}

function sizeOf(file: string): number {
  return statSync(file, { throwIfNoEntry: false })?.size ?? 0;
}

// ---- writing ---------------------------------------------------------------------------------------------------------

/** What a writing thread is started with. `maxPages`: the file does not grow past so many pages of 8 KiB, more is storeFull. */
export interface WriterOptions { readonly file: string; readonly channel: string; readonly busyTimeoutMs: number; readonly maxPages: number | undefined }

interface Append { readonly stream: string; readonly expected: ExpectedRevision; readonly events: readonly NewEvent[] }
/** `first` and those of `found` are places: positions as numbers. */
type Outcome =
  | { readonly kind: 'appended'; readonly revision: number; readonly first: number; readonly count: number }
  | { readonly kind: 'conflict'; readonly revision: number }
  | { readonly kind: 'duplicate'; readonly found: readonly (readonly [id: string, place: number])[] };

/** A stream as the writer knows it; id 0 and revision -1 when it is not there yet. */
interface Tail { id: number; revision: number }

class Writer {
  readonly #file: string;
  readonly #busyTimeoutMs: number;
  readonly #db: DatabaseSync;
  readonly #channel: BroadcastChannel;
  readonly #sql: Readonly<Record<'version' | 'head' | 'lastStream' | 'tail' | 'find' | 'insert' | 'undo' | 'newStream', StatementSync>>;
  /** Least recently used first. Valid as long as nobody else commits. */
  readonly #tails = new Map<string, Tail>();
  #head = 0;
  #lastStream = 0;
  #version = -1;
  /** Commits until the WAL's size is looked at. */
  #look = WAL_LOOK_COMMITS;
  #fault: unknown = null;

  constructor(options: WriterOptions) {
    this.#file = options.file;
    this.#busyTimeoutMs = options.busyTimeoutMs;
    this.#db = guarded(options.file, () => connectWriter(options.file, options));
    this.#channel = new BroadcastChannel(options.channel);
    this.#channel.unref();
    this.#sql = guarded(options.file, () => ({
      version: this.#db.prepare('PRAGMA data_version'),
      head: this.#db.prepare('SELECT max(position) AS head FROM events'),
      lastStream: this.#db.prepare('SELECT max(id) AS id FROM streams'),
      tail: this.#db.prepare('SELECT id, (SELECT max(revision) FROM events WHERE stream_id = streams.id) AS revision FROM streams WHERE name = ?'),
      find: this.#db.prepare('SELECT position FROM events WHERE stream_id = ? AND id = ?'),
      insert: this.#db.prepare('INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (stream_id, id) DO NOTHING'),
      undo: this.#db.prepare('DELETE FROM events WHERE position > ?'),
      newStream: this.#db.prepare('INSERT INTO streams VALUES (?, ?)'),
    }));
  }

  /** One transaction for all; each append stands or falls by itself. Returns when it is durable. A throw: nothing is known of any of them. */
  write(appends: readonly Append[]): readonly Outcome[] {
    return guarded(this.#file, () => {
      this.#raiseFault();
      try {
        this.#db.exec('BEGIN IMMEDIATE');
        this.#noticeOthers();
        const outcomes = appends.map((append) => this.#append(append));
        this.#db.exec('COMMIT');
        if (outcomes.some(({ kind }) => kind === 'appended')) this.#committed();
        return outcomes;
      } catch (error) {
        this.#version = -1;
        // After some faults (a full disk) SQLite has rolled back already.
        if (this.#db.isTransaction) this.#db.exec('ROLLBACK');
        throw error;
      }
    });
  }

  close(): void {
    this.#channel.close();
    this.#db.close();
  }

  /** Inside the write lock: if somebody else committed since our last transaction, or ours failed, everything is read anew. */
  #noticeOthers(): void {
    const version = Number(this.#sql.version.get()!['data_version']);
    if (version === this.#version) return;
    this.#version = version;
    this.#tails.clear();
    this.#head = Number(this.#sql.head.get()!['head'] ?? 0);
    this.#lastStream = Number(this.#sql.lastStream.get()!['id'] ?? 0);
  }

  #append({ stream, expected, events }: Append): Outcome {
    const tail = this.#tail(stream);
    if ((expected === 'no_stream' ? -1 : expected) !== tail.revision) {
      const found = this.#find(tail, events);
      return found.length > 0 ? { kind: 'duplicate', found } : { kind: 'conflict', revision: tail.revision };
    }
    const before = this.#head;
    if (tail.id === 0) {
      tail.id = this.#lastStream += 1;
      this.#sql.newStream.run(tail.id, stream);
    }
    const category = categoryOf(stream);
    let revision = tail.revision;
    for (const { id, type, metadata, data } of events) {
      const { changes } = this.#sql.insert.run(this.#head + 1, tail.id, revision + 1, category, Buffer.from(id.replaceAll('-', ''), 'hex'), type, metadata, data);
      if (changes === 0) {
        this.#sql.undo.run(before);
        this.#head = before;
        const found = this.#find(tail, events);
        assert(found.length > 0, 'an id that was refused is in its stream');
        return { kind: 'duplicate', found };
      }
      this.#head += 1;
      revision += 1;
    }
    tail.revision = revision;
    return { kind: 'appended', revision, first: before + 1, count: events.length };
  }

  #tail(stream: string): Tail {
    const known = this.#tails.get(stream);
    if (known !== undefined) {
      this.#tails.delete(stream);
      this.#tails.set(stream, known);
      return known;
    }
    const row = this.#sql.tail.get(stream);
    if (row?.['revision'] === null) throw damaged(this.#file, 'a stream without events');
    const tail = { id: Number(row?.['id'] ?? 0), revision: Number(row?.['revision'] ?? -1) };
    if (this.#tails.size >= KNOWN_STREAMS) this.#tails.delete(this.#tails.keys().next().value!);
    this.#tails.set(stream, tail);
    return tail;
  }

  #find(tail: Tail, events: readonly NewEvent[]): readonly (readonly [string, number])[] {
    if (tail.id === 0) return [];
    const found: (readonly [string, number])[] = [];
    for (const { id } of events) {
      const row = this.#sql.find.get(tail.id, Buffer.from(id.replaceAll('-', ''), 'hex'));
      if (row !== undefined) found.push([id, Number(row['position'])]);
    }
    return found;
  }

  /** Tells the readers of this process, and keeps the WAL bounded. What was committed is durable, so nothing here fails it. */
  #committed(): void {
    this.#channel.postMessage(0);
    this.#look -= 1;
    if (this.#look > 0) return;
    this.#look = WAL_LOOK_COMMITS;
    if (sizeOf(`${this.#file}-wal`) < WAL_LIMIT_BYTES) return;
    try {
      this.#db.exec(`PRAGMA busy_timeout = ${WAL_WAIT_MS}`);
      if (this.#db.prepare('PRAGMA wal_checkpoint(RESTART)').get()!['busy'] !== 0) this.#look = WAL_RETRY_COMMITS;
    } catch (error) {
      this.#fault = error;
    } finally {
      this.#db.exec(`PRAGMA busy_timeout = ${this.#busyTimeoutMs}`);
    }
  }

  /** SQLite keeps silent when the checkpoint of a commit fails (a file that can no longer be written), and the WAL grows. What ours met is told to the next group, once. */
  #raiseFault(): void {
    const fault = this.#fault;
    this.#fault = null;
    if (fault !== null) throw fault as Error;
  }
}

/** Appends on their way to the writer: all bytes in one buffer, which is handed over and not copied. */
interface Parcel {
  readonly appends: readonly { readonly stream: string; readonly expected: ExpectedRevision; readonly count: number }[];
  readonly ids: readonly string[];
  readonly types: readonly string[];
  /** Two per event: of the metadata and of the data, which stand in `bytes` one after the other. */
  readonly lengths: readonly number[];
  readonly bytes: Uint8Array<ArrayBuffer>;
}
type Reply =
  | { readonly kind: 'done'; readonly outcomes: readonly Outcome[] }
  | { readonly kind: 'failed'; readonly code: ErrorCode | null; readonly message: string };

function pack(appends: readonly Append[]): Parcel {
  const events = appends.flatMap((append) => append.events);
  const bytes = new Uint8Array(events.reduce((sum, { metadata, data }) => sum + metadata.length + data.length, 0));
  const lengths: number[] = [];
  let offset = 0;
  for (const { metadata, data } of events) {
    bytes.set(metadata, offset);
    bytes.set(data, offset + metadata.length);
    offset += metadata.length + data.length;
    lengths.push(metadata.length, data.length);
  }
  return {
    appends: appends.map(({ stream, expected, events: { length } }) => ({ stream, expected, count: length })),
    ids: events.map(({ id }) => id), types: events.map(({ type }) => type), lengths, bytes,
  };
}

function unpack({ appends, ids, types, lengths, bytes }: Parcel): readonly Append[] {
  let offset = 0;
  const take = (length: number): Uint8Array => bytes.subarray(offset, (offset += length));
  let index = 0;
  return appends.map(({ stream, expected, count }) => {
    const events: NewEvent[] = [];
    for (const end = index + count; index < end; index += 1) {
      const metadata = take(lengths[2 * index]!);
      events.push({ id: ids[index]!, type: types[index]!, metadata, data: take(lengths[2 * index + 1]!) });
    }
    return { stream, expected, events };
  });
}

/** The writing thread: answers each parcel with one reply, in order; null closes the file and ends the thread. */
export function serveWrites(port: MessagePort, options: WriterOptions): void {
  let writer: Writer | null = null;
  port.on('message', (parcel: Parcel | null) => {
    if (parcel === null) {
      writer?.close();
      port.close();
      return;
    }
    let reply: Reply;
    try {
      writer ??= new Writer(options);
      reply = { kind: 'done', outcomes: writer.write(unpack(parcel)) };
    } catch (error) {
      reply = { kind: 'failed', code: error instanceof OperatingError ? error.code : null, message: messageOf(error) };
    }
    port.postMessage(reply);
  });
}

/** Whoever writes groups: this thread or another. One group after the other; a rejection leaves the outcome of its group unknown. */
interface Writing {
  /** How many groups it takes at a time. */
  readonly ahead: number;
  write(appends: readonly Append[]): Promise<readonly Outcome[]>;
  close(): Promise<void>;
}

class DirectWriting implements Writing {
  readonly ahead = 1;
  readonly #writer: Writer;
  constructor(options: WriterOptions) {
    this.#writer = new Writer(options);
  }
  async write(appends: readonly Append[]): Promise<readonly Outcome[]> {
    return this.#writer.write(appends);
  }
  async close(): Promise<void> {
    this.#writer.close();
  }
}

class ThreadWriting implements Writing {
  readonly ahead = 2;
  readonly #options: WriterOptions;
  #worker: Worker | null;
  /** Groups at the writer, oldest first. */
  readonly #sent: { resolve(outcomes: readonly Outcome[]): void; reject(error: Error): void }[] = [];

  constructor(options: WriterOptions) {
    this.#options = options;
    // Now and not with the first append, which would wait for it.
    this.#worker = this.#start();
  }

  write(appends: readonly Append[]): Promise<readonly Outcome[]> {
    const worker = (this.#worker ??= this.#start());
    return new Promise((resolve, reject) => {
      this.#sent.push({ resolve, reject });
      const parcel = pack(appends);
      worker.postMessage(parcel, [parcel.bytes.buffer]);
    });
  }

  async close(): Promise<void> {
    const worker = this.#worker;
    if (worker === null) return;
    const gone = new Promise((resolve) => worker.once('exit', resolve));
    worker.postMessage(null);
    await gone;
  }

  #start(): Worker {
    const worker = new Worker(new URL('./sqlite-events-writer.ts', import.meta.url), { workerData: this.#options, execArgv: [] });
    worker.on('message', (reply: Reply) => this.#answered(reply));
    // A thread that dies takes its groups with it: their outcome is unknown. The next group starts another thread.
    let cause: unknown = null;
    worker.on('error', (error: unknown) => (cause = error));
    worker.on('exit', () => {
      this.#worker = null;
      for (const { reject } of this.#sent.splice(0)) reject(new OperatingError('storeUnavailable', `${this.#options.file}: the writing thread ended`, { cause }));
    });
    return worker;
  }

  #answered(reply: Reply): void {
    const group = this.#sent.shift();
    assert(group !== undefined, 'the writer answers what it was sent');
    if (reply.kind === 'done') group.resolve(reply.outcomes);
    else group.reject(reply.code === null ? new Error(reply.message) : new OperatingError(reply.code, reply.message));
  }
}

interface Waiting { readonly append: Append; readonly bytes: number; resolve(outcome: Outcome): void; reject(error: unknown): void }

/** Group commit: what comes while the writer is busy goes together, as one message and one transaction. How much waits, its callers bound. */
class GroupCommit {
  readonly #writing: Writing;
  readonly #queue: Waiting[] = [];
  #queuedEvents = 0;
  #busy = 0;
  #flushing = false;
  #idle: (() => void) | null = null;

  constructor(writing: Writing) {
    this.#writing = writing;
  }

  append(append: Append): Promise<Outcome> {
    const bytes = append.events.reduce((sum, { metadata, data }) => sum + metadata.length + data.length, 0);
    return new Promise((resolve, reject) => {
      this.#queue.push({ append, bytes, resolve, reject });
      this.#queuedEvents += append.events.length;
      if (this.#flushing || this.#busy === this.#writing.ahead) return;
      this.#flushing = true;
      // Not at once: what else this turn of the event loop appends shall share the commit.
      setImmediate(() => {
        this.#flushing = false;
        this.#send();
      });
    });
  }

  /** Writes what is waiting, then ends the writer. */
  async close(): Promise<void> {
    if (this.#busy > 0 || this.#queue.length > 0) await new Promise<void>((resolve) => (this.#idle = resolve));
    await this.#writing.close();
  }

  /** A busy writer is sent a second group only when it is worth a commit of its own. */
  #send(): void {
    while (this.#queue.length > 0 && this.#busy < this.#writing.ahead && (this.#busy === 0 || this.#queuedEvents >= AHEAD_EVENTS)) {
      void this.#write(this.#takeGroup());
    }
    if (this.#busy === 0) this.#idle?.();
  }

  async #write(group: readonly Waiting[]): Promise<void> {
    this.#busy += 1;
    try {
      const outcomes = await this.#writing.write(group.map(({ append }) => append));
      group.forEach(({ resolve }, index) => resolve(outcomes[index]!));
    } catch (error) {
      for (const { reject } of group) reject(error);
    }
    this.#busy -= 1;
    // Those answered just now append again before the next group is cut, since their continuations run first.
    setImmediate(() => this.#send());
  }

  #takeGroup(): readonly Waiting[] {
    let count = 0;
    let events = 0;
    let bytes = 0;
    for (const waiting of this.#queue) {
      if (count > 0 && (events + waiting.append.events.length > GROUP_EVENTS || bytes + waiting.bytes > GROUP_BYTES)) break;
      events += waiting.append.events.length;
      bytes += waiting.bytes;
      count += 1;
    }
    this.#queuedEvents -= events;
    return this.#queue.splice(0, count);
  }
}

// ---- reading ---------------------------------------------------------------------------------------------------------

type Row = readonly [position: number, revision: number, id: string, type: string, name: string, metadataLength: number, dataLength: number];
interface Read { readonly rows: StatementSync; readonly bytes: StatementSync }

/** Two statements over the same rows, the last parameter of each their limit: one for what is small, one for all their bytes as a single
 *  blob, since handing over a blob costs more than everything else about a row (2 µs each). All the bytes pass as they are: SQLite takes
 *  `||` and group_concat of blobs byte by byte, and the length is compared. */
function prepareRead(db: DatabaseSync, from: string, order: string): Read {
  return {
    rows: db.prepare(`SELECT position, revision, lower(hex(events.id)), type, name, length(metadata), length(data) ${from} ORDER BY ${order} LIMIT ?`, { returnArrays: true }),
    bytes: db.prepare(`SELECT CAST(group_concat(body, '') AS BLOB) AS bytes FROM (SELECT CAST(metadata AS BLOB) || data AS body ${from} ORDER BY ${order} LIMIT ?)`),
  };
}

function recordedOf([position, revision, id, type, stream, metadataLength, dataLength]: Row, bytes: Uint8Array, offset: number): RecordedEvent {
  const metadata = bytes.subarray(offset, offset + metadataLength);
  const data = bytes.subarray(offset + metadataLength, offset + metadataLength + dataLength);
  return { id: dashed(id), type, metadata, data, stream, revision, position: positionOf(position) };
}

type Way = 'all' | 'beside' | 'forward' | 'backward';
/** What one read gave: the events of the streams that were wanted, how many rows it saw, the last one's position, the bytes of all, and whether it may have left some. */
interface Rows { readonly events: readonly RecordedEvent[]; readonly rows: number; readonly last: number; readonly bytes: number; readonly more: boolean }

/** One batch as read: `place` is how far it looked. */
interface Page { readonly events: readonly RecordedEvent[]; readonly place: number; readonly caughtUp: boolean }

class Reader {
  readonly storeId: string;
  readonly #file: string;
  readonly #db: DatabaseSync;
  readonly #sql: Readonly<Record<'begin' | 'end' | 'version' | 'head' | 'lastStream', StatementSync>>;
  readonly #reads: Readonly<Record<Way, Read>>;

  constructor(file: string, busyTimeoutMs: number) {
    this.#file = file;
    if (sizeOf(file) === 0) throw new OperatingError('storeUnavailable', `${file}: there is no event store`);
    const db = (this.#db = guarded(file, () => connect(file, { readOnly: true, busyTimeoutMs, cacheKiB: 2 * 1024 })));
    try {
      this.storeId = this.#checked();
      this.#sql = guarded(file, () => ({
        begin: db.prepare('BEGIN'),
        end: db.prepare('COMMIT'),
        version: db.prepare('PRAGMA data_version'),
        head: db.prepare('SELECT max(position) AS head FROM events'),
        lastStream: db.prepare('SELECT max(id) AS id FROM streams'),
      }));
      const named = 'CROSS JOIN streams ON streams.id = stream_id';
      const ofStream = 'FROM streams CROSS JOIN events ON stream_id = streams.id WHERE name = ?';
      this.#reads = guarded(file, () => ({
        all: prepareRead(db, `FROM events ${named} WHERE position > ? AND position <= ?`, 'position'),
        beside: prepareRead(db, `FROM events INDEXED BY events_beside ${named} WHERE category = 1 AND position > ? AND position <= ?`, 'position'),
        forward: prepareRead(db, `${ofStream} AND revision >= ?`, 'revision'),
        backward: prepareRead(db, `${ofStream} AND revision <= ?`, 'revision DESC'),
      }));
      this.#probe();
    } catch (error) {
      db.close();
      throw error;
    }
  }

  head(): number {
    return guarded(this.#file, () => Number(this.#sql.head.get()!['head'] ?? 0));
  }

  streams(): number {
    return guarded(this.#file, () => Number(this.#sql.lastStream.get()!['id'] ?? 0));
  }

  /** Changes when another connection, of this process or another, has committed. */
  version(): number {
    return guarded(this.#file, () => Number(this.#sql.version.get()!['data_version']));
  }

  /** The next events of a stream from a revision on, as many as one read takes; `more` when it stopped before the stream's end. */
  stream(name: string, direction: 'forward' | 'backward', from: number, limit: number): { readonly events: readonly RecordedEvent[]; readonly more: boolean } {
    const { events, more } = this.#read(direction, [name, from], limit, limit, () => true);
    const step = direction === 'forward' ? 1 : -1;
    if (events.some(({ revision }, index) => revision !== events[0]!.revision + step * index)) throw damaged(this.#file, `an event of stream ${name} is missing`);
    return { events, more };
  }

  /** The next events after a place; bounded by their number, their bytes and the rows looked at. */
  page(after: number, prefixes: readonly string[], maxBatch: number): Page {
    const head = this.head();
    if (after > head) throw new OperatingError('positionPastHead', `${this.#file}: position ${after} lies past the end, ${head}`);
    const keep = (name: string): boolean => prefixes.length === 0 || prefixes.some((prefix) => name.startsWith(prefix));
    const beside = prefixes.length > 0 && prefixes.every((prefix) => !prefix.startsWith(BULK) && !BULK.startsWith(prefix));
    const events: RecordedEvent[] = [];
    let place = after;
    let bytes = 0;
    let rows = 0;
    let width = maxBatch;
    while (place < head && events.length < maxBatch && bytes < BATCH_BYTES && rows < SCAN_ROWS) {
      const wanted = maxBatch - events.length;
      const read = beside ? this.#read('beside', [place, head], width, wanted, keep) : this.#window(place, Math.min(head, place + width), wanted, keep);
      events.push(...read.events);
      bytes += read.bytes;
      rows += read.rows;
      // Where little gets through, reads widen; where all does, none reads what it will not hand over.
      width = 2 * read.events.length < read.rows ? Math.min(2 * width, READ_ROWS) : maxBatch - events.length;
      // When the index beside holds nothing more, all the rest is of the other category.
      place = beside && !read.more ? head : read.last;
    }
    return { events, place, caughtUp: place === head };
  }

  close(): void {
    this.#db.close();
  }

  /** The first events after `from` up to `to`. Every position is there, or the file is damaged. */
  #window(from: number, to: number, wanted: number, keep: (stream: string) => boolean): Rows {
    const read = this.#read('all', [from, to], to - from, wanted, keep);
    if (read.rows === 0 || read.last !== from + read.rows) throw damaged(this.#file, `an event after position ${from} is missing`);
    return read;
  }

  /** One read: at most READ_ROWS rows and, but for the first, BATCH_BYTES; of them the events of the streams to keep, until there are as many as wanted. */
  #read(way: Way, where: readonly (string | number)[], limit: number, wanted: number, keep: (stream: string) => boolean): Rows {
    return guarded(this.#file, () => {
      // One snapshot for both statements: between them somebody may append.
      this.#sql.begin.run();
      try {
        const most = Math.min(limit, READ_ROWS);
        const found = this.#reads[way].rows.all(...where, most) as unknown as readonly Row[];
        const { count, length } = fitting(found);
        const bytes = count === 0 ? new Uint8Array() : (this.#reads[way].bytes.get(...where, count)!['bytes'] as Uint8Array);
        if (bytes.length !== length) throw damaged(this.#file, 'events are shorter than they were');
        const events: RecordedEvent[] = [];
        let offset = 0;
        let rows = 0;
        while (rows < count && events.length < wanted) {
          const row = found[rows]!;
          if (keep(row[4])) events.push(recordedOf(row, bytes, offset));
          offset += row[5] + row[6];
          rows += 1;
        }
        return { events, rows, last: found[rows - 1]?.[0] ?? 0, bytes: length, more: found.length === most || rows < found.length };
      } finally {
        // After some faults SQLite has ended it already.
        if (this.#db.isTransaction) this.#sql.end.run();
      }
    });
  }

  /** Ours, of a version we know, and as long as its own header says; returns the store's id. */
  #checked(): string {
    return guarded(this.#file, () => {
      const meta = this.#db.prepare("SELECT 1 FROM sqlite_schema WHERE name = 'meta'").get();
      if (meta === undefined) throw damaged(this.#file, 'it is no event store');
      const values = new Map(this.#db.prepare('SELECT key, value FROM meta').all().map((row) => [row['key'], row['value']]));
      const version = Number(values.get('schema_version'));
      if (version > SCHEMA_VERSION) throw new OperatingError('storeTooNew', `${this.#file} was written by a newer Throughline (schema ${version}, this one reads ${SCHEMA_VERSION})`);
      const id = values.get('store_id');
      if (version !== SCHEMA_VERSION || typeof id !== 'string') throw damaged(this.#file, 'its description cannot be read');
      const what = cutShort(this.#file, this.#db);
      if (what !== null) throw damaged(this.#file, what);
      return id;
    });
  }

  /** Sixteen places over the whole file, the newest among them, each by both of its ways: a bounded look for what was torn off. */
  #probe(): void {
    const head = this.head();
    for (let index = 1; index <= 16 && head > 0; index += 1) {
      const place = Math.ceil((head * index) / 16);
      const event = this.#window(place - 1, place, 1, () => true).events[0]!;
      const [same] = this.stream(event.stream, 'forward', event.revision, 1).events;
      if (same?.position !== event.position) throw damaged(this.#file, `position ${place} is not where its stream has it`);
    }
  }
}

/** How many rows one read takes along: the first always, the others as long as their bytes fit. */
function fitting(rows: readonly Row[]): { readonly count: number; readonly length: number } {
  let length = 0;
  for (const [count, row] of rows.entries()) {
    const size = row[5] + row[6];
    if (count > 0 && length + size > BATCH_BYTES) return { count, length };
    length += size;
  }
  return { count: rows.length, length };
}

/** Wakes who waits for news: at once on a commit of this process, within POLL_MS on one of another. */
class News {
  readonly #reader: Reader;
  readonly #channel: BroadcastChannel;
  readonly #waiting = new Set<() => void>();
  #timer: NodeJS.Timeout | null = null;
  #version = -1;

  constructor(channel: string, reader: Reader) {
    this.#reader = reader;
    this.#channel = new BroadcastChannel(channel);
    this.#channel.onmessage = () => this.wake();
    this.#channel.unref();
  }

  /** Call it in the same turn as the read that found nothing: news that comes later is then always seen. */
  wait(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        this.#waiting.delete(done);
        signal.removeEventListener('abort', done);
        if (this.#waiting.size === 0) this.#rest();
        resolve();
      };
      this.#waiting.add(done);
      signal.addEventListener('abort', done);
      this.#timer ??= setInterval(() => this.#poll(), POLL_MS).unref();
    });
  }

  wake(): void {
    for (const done of [...this.#waiting]) done();
  }

  close(): void {
    this.#channel.close();
    this.wake();
  }

  #rest(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
  }

  #poll(): void {
    let version = -1;
    try {
      version = this.#reader.version();
    } catch (error) {
      // Whoever is woken reads for himself and meets the fault.
      assert(error instanceof OperatingError);
    }
    if (version === this.#version && version !== -1) return;
    this.#version = version;
    this.wake();
  }
}

// ---- the store -------------------------------------------------------------------------------------------------------

export type SqliteEventStoreOptions = {
  readonly folder: string;
  /** How long to wait for another process's transaction before storeBusy; default 5,000. */
  readonly busyTimeoutMs?: number;
} & (
  | {
    /** write: appends in a thread of their own; direct: in the calling one, for a verb that does nothing else. */
    readonly mode?: 'write' | 'direct';
    /** For the store's id, made once. */
    readonly random: RandomBytes;
    /** The file does not grow past so many pages of 8 KiB; more is storeFull. */
    readonly maxPages?: number;
  }
  | { /** Appends are refused (storeReadOnly); the store must be there. */ readonly mode: 'read' }
);

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

class SqliteEventStore implements EventStore {
  readonly storeId: string;
  readonly idsAreUnique = true;
  readonly #file: string;
  readonly #reader: Reader;
  readonly #news: News;
  readonly #commit: GroupCommit | null;
  #closed = false;

  constructor(file: string, channel: string, reader: Reader, commit: GroupCommit | null) {
    this.#file = file;
    this.storeId = reader.storeId;
    this.#reader = reader;
    this.#news = new News(channel, reader);
    this.#commit = commit;
  }

  async append(stream: string, expected: ExpectedRevision, events: readonly NewEvent[]): Promise<AppendResult> {
    this.#open();
    if (this.#commit === null) throw new OperatingError('storeReadOnly', `${this.#file} was opened for reading`);
    assert(events.length > 0, 'an append holds at least one event');
    assert(events.every(({ id }) => UUID.test(id)), 'an event id is a UUID in lower case');
    assert(events.length === 1 || new Set(events.map(({ id }) => id)).size === events.length, 'the ids of one append differ');
    const outcome = await this.#commit.append({ stream, expected, events });
    switch (outcome.kind) {
      case 'appended':
        return { kind: 'appended', revision: outcome.revision, positions: Array.from({ length: outcome.count }, (_, index) => positionOf(outcome.first + index)) };
      case 'conflict':
        return outcome;
      case 'duplicate':
        return { kind: 'duplicate', found: new Map(outcome.found.map(([id, place]) => [id, positionOf(place)])) };
    }
  }

  async readStream(name: string, options: { readonly direction: 'forward' | 'backward'; readonly from?: number; readonly limit: number }): Promise<readonly RecordedEvent[]> {
    const { direction, limit } = options;
    const events: RecordedEvent[] = [];
    let from = options.from ?? (direction === 'forward' ? 0 : Number.MAX_SAFE_INTEGER);
    while (events.length < limit) {
      this.#open();
      const page = this.#reader.stream(name, direction, from, limit - events.length);
      events.push(...page.events);
      if (!page.more || events.length === limit) break;
      from = events.at(-1)!.revision + (direction === 'forward' ? 1 : -1);
      await turn();
    }
    return events;
  }

  async head(): Promise<Position | null> {
    this.#open();
    const head = this.#reader.head();
    return head === 0 ? null : positionOf(head);
  }

  async gap(position: Position | null): Promise<number | null> {
    this.#open();
    return Math.max(0, this.#reader.head() - placeOf(position));
  }

  async *subscribe(options: { readonly after: Position | null; readonly prefixes: readonly string[]; readonly maxBatch: number; readonly signal: AbortSignal }): AsyncGenerator<SubscriptionBatch, void, undefined> {
    const { prefixes, maxBatch, signal } = options;
    let place = placeOf(options.after);
    let told = false;
    while (!signal.aborted) {
      this.#open();
      const page = this.#reader.page(place, prefixes, maxBatch);
      if (page.place > place || (page.caughtUp && !told && page.place > 0)) {
        place = page.place;
        told ||= page.caughtUp;
        yield { events: page.events, position: positionOf(place), caughtUp: page.caughtUp };
        // The loop turns over microtasks alone: without this a reader that catches up would keep timers and sockets waiting.
        await turn();
      } else {
        await this.#news.wait(signal);
      }
    }
  }

  async stats(): Promise<{ readonly events: number; readonly streams: number; readonly bytes: number }> {
    this.#open();
    return { events: this.#reader.head(), streams: this.#reader.streams(), bytes: sizeOf(this.#file) + sizeOf(`${this.#file}-wal`) };
  }

  /** Appends under way are finished first. Waiting subscriptions throw storeClosed. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#news.close();
    // The reader first: the last to close empties the WAL, and a reader cannot.
    this.#reader.close();
    await this.#commit?.close();
  }

  #open(): void {
    if (this.#closed) throw new OperatingError('storeClosed', `${this.#file} is closed`);
  }
}

/** Close it when done: its writing thread keeps the process alive. Events that come in one page share one buffer, so whoever keeps a few of many copies them.
 *  Opens the store of a folder; `write` and `direct` make it where there is none. Errors: storeCorrupt, storeTooNew, storeReadOnly, storeUnavailable, storeBusy. */
export async function openSqliteEventStore(options: SqliteEventStoreOptions): Promise<EventStore> {
  const busyTimeoutMs = options.busyTimeoutMs ?? 5_000;
  if (options.mode !== 'read') guarded(options.folder, () => makeFolder(options.folder));
  const file = path.join(guarded(options.folder, () => realpathSync(options.folder)), FILE);
  const channel = `throughline:${file}`;
  if (options.mode === 'read') return new SqliteEventStore(file, channel, new Reader(file, busyTimeoutMs), null);
  checkNotEmptied(file);
  const writing: WriterOptions = { file, channel, busyTimeoutMs, maxPages: options.maxPages };
  const db = guarded(file, () => connectWriter(file, writing));
  try {
    guarded(file, () => create(db, options.random));
    const reader = new Reader(file, busyTimeoutMs);
    return new SqliteEventStore(file, channel, reader, new GroupCommit(options.mode === 'direct' ? new DirectWriting(writing) : new ThreadWriting(writing)));
  } finally {
    db.close();
  }
}

/**
 * A file of no bytes beside what is made only once there is a store (the master key, views) was one, and is not taken for a
 * new folder: what is folded from it would be the views of another store.
 */
function checkNotEmptied(file: string): void {
  if (!existsSync(file) || sizeOf(file) > 0 || sizeOf(`${file}-wal`) > 0) return;
  const folder = path.dirname(file);
  if (['master.key', path.join('views', 'control.sqlite')].some((beside) => existsSync(path.join(folder, beside)))) throw damaged(file, 'it is empty, and what stands beside it belongs to a store');
}

// ---- the folder ------------------------------------------------------------------------------------------------------

/** Keeps every other process, and every other caller in this one, out of a data folder until released or until this process dies. Throws storeLocked. */
export function holdFolder(folder: string): { release(): void } {
  guarded(folder, () => makeFolder(folder));
  const file = path.join(folder, 'lock.sqlite');
  const note = path.join(folder, 'lock.pid');
  const db = guarded(file, () => new DatabaseSync(file, { timeout: 0 }));
  try {
    // The lock is the operating system's, on an open file, so that it cannot outlive us; the process id beside it is only for the message.
    guarded(file, () => db.exec('BEGIN EXCLUSIVE'));
  } catch (error) {
    db.close();
    if (!(error instanceof OperatingError) || error.code !== 'storeBusy') throw error;
    throw new OperatingError('storeLocked', `${folder} is held by ${holderOf(note)}`, { cause: error });
  }
  try {
    guarded(folder, () => writeFileSync(note, String(process.pid)));
  } catch (error) {
    db.close();
    throw error;
  }
  return {
    release() {
      if (!db.isOpen) return;
      rmSync(note, { force: true });
      db.close();
    },
  };
}

function holderOf(note: string): string {
  try {
    return `process ${readFileSync(note, 'utf8')}`;
  } catch {
    // It has the lock and has not written its id yet, or is just leaving.
    return 'another process';
  }
}
