// The raw parts that the line on servers is built of, each by its bare client and nothing else: consume a topic, append to
// a store, read all of it, send Redis the calls that a projector sent. One part a process, told over IPC; what it cost is
// counted from the first record asked for to the last answered, as for ours.
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { binaryEvent, EventStoreDBClient, NO_STREAM, START, streamNameFilter } from '@eventstore/db-client';
import { Redis } from 'ioredis';
import kafkajs from 'kafkajs';
import * as scripts from '../../services/adapters/redis-scripts.ts';
import { readCommands } from './recorder.ts';

export type RawPart =
  /** `count` records of a topic, each batch committed. */
  | { readonly kind: 'consume'; readonly broker: string; readonly topic: string; readonly count: number }
  /** The rows of `folder`'s events.sqlite into a file of the same tables and settings, `batch` a transaction. */
  | { readonly kind: 'append to SQLite'; readonly folder: string; readonly batch: number }
  /** The same rows, one an append (that is what a platform's events in the order of time come to), so many in flight. */
  | { readonly kind: 'append to EventStoreDB'; readonly folder: string; readonly url: string; readonly inFlight: number }
  | { readonly kind: 'read SQLite'; readonly folder: string }
  /** The same read, JSON.parse, and one plain 600-byte upsert an event by its stream, 500 a transaction or pipeline: what the least of replays would do. */
  | { readonly kind: 'upsert'; readonly folder: string; /** Of a Redis; null: a SQLite file. */ readonly port: number | null }
  | { readonly kind: 'subscribe to EventStoreDB'; readonly url: string; readonly count: number }
  /** A recording of what a projector said to an empty Redis, said to another: what it wrote, or all of it. */
  | { readonly kind: 'commit to Redis'; readonly port: number; readonly recording: string; readonly calls: 'writes' | 'all' };

/** `count`: records, events or calls. */
export interface RawDone { readonly count: number; readonly seconds: number; readonly cpuSeconds: number }

/** As one page of the projector. */
const PAGE = 500;
/** As many as the view store has on their way at most; they stay in order, since a connection does. */
const CALLS_IN_FLIGHT = 8;

class Watch {
  readonly #at = process.hrtime.bigint();
  readonly #cpu = process.cpuUsage();
  done(count: number): RawDone {
    const { user, system } = process.cpuUsage(this.#cpu);
    return { count, seconds: Number(process.hrtime.bigint() - this.#at) / 1e9, cpuSeconds: (user + system) / 1e6 };
  }
}

async function run(part: RawPart): Promise<RawDone> {
  switch (part.kind) {
    case 'consume': return consume(part.broker, part.topic, part.count);
    case 'append to SQLite': return appendToSqlite(part.folder, part.batch);
    case 'append to EventStoreDB': return appendToEventStoreDb(part.folder, part.url, part.inFlight);
    case 'read SQLite': return readSqlite(part.folder);
    case 'upsert': return upsert(part.folder, part.port);
    case 'subscribe to EventStoreDB': return subscribe(part.url, part.count);
    case 'commit to Redis': return replay(part.port, part.recording, part.calls);
  }
}

// ---- the least of replays ------------------------------------------------------------------------------------------------

async function upsert(folder: string, port: number | null): Promise<RawDone> {
  const events = new DatabaseSync(join(folder, 'events.sqlite'), { readOnly: true });
  const read = events.prepare('SELECT * FROM events WHERE position > ? ORDER BY position LIMIT ?');
  const own = mkdtempSync(join(tmpdir(), 'throughline-raw-'));
  const into = new DatabaseSync(join(own, 'views.sqlite'));
  into.exec('PRAGMA page_size = 8192; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; CREATE TABLE documents (number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, value TEXT NOT NULL) STRICT');
  const put = into.prepare('INSERT INTO documents (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value');
  const redis = port === null ? null : new Redis({ port, host: '127.0.0.1', lazyConnect: true });
  await redis?.connect();
  const watch = new Watch();
  let [position, count] = [0, 0];
  for (;;) {
    const page = read.all(position, PAGE) as { position: number; stream_id: number; data: Uint8Array }[];
    if (page.length === 0) break;
    const pipeline = redis?.pipeline();
    if (redis === null) into.exec('BEGIN');
    for (const row of page) {
      const text = Buffer.from(row.data.buffer, row.data.byteOffset, row.data.byteLength).toString();
      const value = JSON.stringify({ last: JSON.parse(text) as unknown, count, pad: '' }).padEnd(600).slice(0, 600);
      if (pipeline === undefined) put.run(String(row.stream_id), value);
      else pipeline.set(`raw:${String(row.stream_id)}`, value);
      count += 1;
    }
    if (redis === null) into.exec('COMMIT');
    else await pipeline?.exec();
    position = page.at(-1)?.position ?? position;
  }
  const done = watch.done(count);
  await redis?.quit();
  into.close();
  events.close();
  rmSync(own, { recursive: true });
  return done;
}

// ---- Kafka -------------------------------------------------------------------------------------------------------------

async function consume(broker: string, topic: string, count: number): Promise<RawDone> {
  const kafka = new kafkajs.Kafka({ clientId: 'bench', brokers: [broker], logLevel: kafkajs.logLevel.NOTHING });
  const consumer = kafka.consumer({ groupId: `raw-${String(process.pid)}`, maxWaitTimeInMs: 200 });
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  let watch = new Watch();
  consumer.on(consumer.events.GROUP_JOIN, () => { watch = new Watch(); });
  const done = await new Promise<RawDone>((resolve, reject) => {
    let seen = 0;
    consumer.run({
      autoCommit: false, eachBatchAutoResolve: false, partitionsConsumedConcurrently: 64,
      eachBatch: async ({ batch, resolveOffset, heartbeat }) => {
        resolveOffset(batch.lastOffset());
        await heartbeat();
        await consumer.commitOffsets([{ topic, partition: batch.partition, offset: String(BigInt(batch.lastOffset()) + 1n) }]);
        seen += batch.messages.length;
        if (seen >= count) resolve(watch.done(seen));
      },
    }).catch(reject);
  });
  await consumer.disconnect();
  return done;
}

// ---- the event stores --------------------------------------------------------------------------------------------------

interface Row { readonly position: number; readonly stream_id: number; readonly revision: number; readonly category: number; readonly id: Uint8Array; readonly type: string; readonly metadata: Uint8Array; readonly data: Uint8Array; readonly name: string }

/** Events of identities, in the order of the log. */
function rowsOf(folder: string): readonly Row[] {
  const db = new DatabaseSync(join(folder, 'events.sqlite'), { readOnly: true });
  const rows = db.prepare("SELECT events.*, name FROM events JOIN streams ON streams.id = stream_id WHERE category = 0 ORDER BY position").all() as unknown as readonly Row[];
  db.close();
  return rows;
}

/** The tables and settings of the adapter, taken from its own file. */
function emptyLike(from: string, file: string): DatabaseSync {
  const source = new DatabaseSync(join(from, 'events.sqlite'), { readOnly: true });
  const setting = (name: string): string => String(Object.values(source.prepare(`PRAGMA ${name}`).get() ?? {})[0]);
  const db = new DatabaseSync(file);
  db.exec(`PRAGMA page_size = ${setting('page_size')}; PRAGMA cache_size = -8192; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 10000`);
  for (const { sql } of source.prepare('SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL').all()) db.exec(String(sql));
  source.close();
  return db;
}

function appendToSqlite(folder: string, batch: number): RawDone {
  const rows = rowsOf(folder);
  const into = mkdtempSync(join(tmpdir(), 'throughline-raw-'));
  const db = emptyLike(folder, join(into, 'events.sqlite'));
  const [stream, event] = [db.prepare('INSERT INTO streams VALUES (?, ?)'), db.prepare('INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)')];
  const watch = new Watch();
  for (let from = 0; from < rows.length; from += batch) {
    db.exec('BEGIN IMMEDIATE');
    for (const { position, stream_id, revision, category, id, type, metadata, data, name } of rows.slice(from, from + batch)) {
      if (revision === 0) stream.run(stream_id, name);
      event.run(position, stream_id, revision, category, id, type, metadata, data);
    }
    db.exec('COMMIT');
  }
  const done = watch.done(rows.length);
  db.close();
  rmSync(into, { recursive: true });
  return done;
}

async function appendToEventStoreDb(folder: string, url: string, inFlight: number): Promise<RawDone> {
  const rows = rowsOf(folder);
  const client = EventStoreDBClient.connectionString(url);
  // What it asks of the server before its first call is not its work.
  await client.appendToStream('raw', binaryEvent({ type: 'first', data: Buffer.alloc(0) }));
  let next = 0;
  const lane = async (): Promise<void> => {
    for (let row = rows[next++]; row !== undefined; row = rows[next++]) {
      const id = Buffer.from(row.id).toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
      await client.appendToStream(row.name, binaryEvent({ id, type: row.type, data: row.data, metadata: row.metadata }), { expectedRevision: row.revision === 0 ? NO_STREAM : BigInt(row.revision - 1) });
    }
  };
  const watch = new Watch();
  await Promise.all(Array.from({ length: inFlight }, lane));
  const done = watch.done(rows.length);
  await client.dispose();
  return done;
}

function readSqlite(folder: string): RawDone {
  const db = new DatabaseSync(join(folder, 'events.sqlite'), { readOnly: true });
  const page = db.prepare('SELECT events.*, name FROM events CROSS JOIN streams ON streams.id = stream_id WHERE position > ? ORDER BY position LIMIT ?');
  const watch = new Watch();
  let [after, count] = [0, 0];
  for (let rows = page.all(after, PAGE); rows.length > 0; rows = page.all(after, PAGE)) {
    after = Number(rows.at(-1)?.['position']);
    count += rows.length;
  }
  const done = watch.done(count);
  db.close();
  return done;
}

async function subscribe(url: string, count: number): Promise<RawDone> {
  const client = EventStoreDBClient.connectionString(url);
  await client.appendToStream('raw', binaryEvent({ type: 'first', data: Buffer.alloc(0) }));
  const watch = new Watch();
  const subscription = client.subscribeToAll({ fromPosition: START, filter: streamNameFilter({ prefixes: ['identity.'] }) });
  let seen = 0;
  for await (const { event } of subscription) {
    if (event !== undefined) seen += 1;
    if (seen === count) break;
  }
  const done = watch.done(seen);
  await subscription.unsubscribe().catch(() => undefined);
  await client.dispose();
  return done;
}

// ---- Redis -------------------------------------------------------------------------------------------------------------

interface Call { readonly name: string; readonly args: readonly Buffer[] }

const ALL_SCRIPTS = Object.values(scripts).filter((one): one is scripts.Script => typeof one === 'object');
/** Leases and counts by source: not of the fold, and bound to a clock. */
const BESIDE: readonly scripts.Script[] = [scripts.LEASE, scripts.LEASES, scripts.RELEASE, scripts.TALLY, scripts.MEASURE_SLICE];
const PLAIN_WRITES = ['SET', 'HDEL', 'UNLINK', 'DEL'];
const PLAIN_READS = ['HMGET', 'HGETALL', 'MGET', 'GET'];

/** The calls of a recording that are to be made, each script by its digest. */
function callsOf(recording: string, calls: 'writes' | 'all'): readonly Call[] {
  const found: Call[] = [];
  // The Redis of the recording was empty: it refused a script's digest until it had been given its text.
  const known = new Set<scripts.Script>();
  for (const [first, ...args] of readCommands(readFileSync(recording))) {
    const name = first?.toString().toUpperCase() ?? '';
    if (name.startsWith('EVAL')) {
      const text = args[0]?.toString();
      const script = ALL_SCRIPTS.find(({ sha, lua }) => text === (name.startsWith('EVALSHA') ? sha : lua));
      if (script === undefined) throw new Error(`the recording has a script that nobody knows: ${String(text).slice(0, 80)}`);
      if (!name.startsWith('EVALSHA')) known.add(script);
      if (!known.has(script)) continue;
      if (BESIDE.includes(script) || (script.readOnly && calls === 'writes')) continue;
      found.push({ name: script.readOnly ? 'EVALSHA_RO' : 'EVALSHA', args: [Buffer.from(script.sha), ...args.slice(1)] });
    } else if (PLAIN_WRITES.includes(name) || (calls === 'all' && PLAIN_READS.includes(name))) {
      found.push({ name, args });
    }
  }
  return found;
}

async function replay(port: number, recording: string, which: 'writes' | 'all'): Promise<RawDone> {
  const calls = callsOf(recording, which);
  const redis = new Redis({ host: '127.0.0.1', port });
  for (const { lua } of ALL_SCRIPTS) await redis.script('LOAD', lua);
  let next = 0;
  const lane = async (): Promise<void> => {
    for (let call = calls[next++]; call !== undefined; call = calls[next++]) await redis.callBuffer(call.name, ...call.args);
  };
  const watch = new Watch();
  await Promise.all(Array.from({ length: CALLS_IN_FLIGHT }, lane));
  const done = watch.done(calls.length);
  redis.disconnect();
  return done;
}

if (process.send !== undefined) {
  const [part] = (await once(process, 'message')) as [RawPart];
  process.send(await run(part));
  // The answer is read before this ends.
  await once(process, 'message');
  process.exit();
}
