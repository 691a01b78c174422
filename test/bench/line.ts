// The line on servers, for the bench: a broker started once; a Redis, a topic and an event store of its own for each run; the
// programs as processes, as the README starts them. What a run did is held against the traffic that it was given.
import { once } from 'node:events';
import { createWriteStream, openSync, readSync, closeSync, fstatSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { Redis } from 'ioredis';
import kafkajs, { type Producer } from 'kafkajs';
import { journeys } from '../../projections/journeys.ts';
import { persons } from '../../projections/persons.ts';
import { MemoryViewStore } from '../../services/adapters/memory-views.ts';
import { openEvents, REDIS_SHARDS_DEFAULT } from '../../services/backends.ts';
import { runProjector } from '../../services/projector/projector.ts';
import { shardOf } from '../../services/shards.ts';
import { DEFAULT_WORKSPACE, loadWorkspaceKeys } from '../../services/workspaces.ts';
import type { Broker } from '../support/broker.ts';
import { type EventStoreDouble, startEventStoreDouble } from '../support/eventstoredb/double.ts';
import { inPieces } from '../support/load.ts';
import { type Digests, digestsOf } from '../support/oracle.ts';
import { type Places, type Program, Programs } from '../support/programs.ts';
import { type RedisServer, startRedis } from '../support/redis-server.ts';
import { removeFolder, temporaryFolder, throughline, until } from '../support/serve.ts';
import { traffic } from './events.ts';
import { cpuSeconds, peakMb } from './processes.ts';
import { startRecorder, type Recorder } from './recorder.ts';

export const PARTITIONS = 6;
const OPEN = 5_000;
const PIECE = 1_000;
/** How often the views are looked at: two short commands to Redis. */
const LOOK_MS = 20;
const COUNT_LOOK_MS = 250;
/** A run that stands still is a fault, not a figure. */
const RUN_MS = 600_000;
/** One for all runs: the same events then stand in the same streams and fold to the same digests. */
const SECRETS = { masterKey: 'b1'.repeat(32), workspaceSecret: 'b2'.repeat(32) } as const;

export type Store = 'SQLite' | 'EventStoreDB';

/** Traffic of so many events, ten an interaction, 5,000 of them open at once (fewer in a short run). */
export interface Corpus { readonly events: number; readonly open: number; readonly interactions: number }
export function corpusOf(events: number): Corpus {
  const open = Math.max(1, Math.min(OPEN, Math.floor(events / 10)));
  // Lanes take turns: of each, every tenth event begins another interaction.
  const interactions = Array.from({ length: open }, (_, lane) => Math.ceil(Math.ceil((events - lane) / open) / 10)).reduce((sum, one) => sum + one, 0);
  return { events, open, interactions };
}

interface Told { readonly identity: string }
interface Record { readonly key: string; readonly value: string; readonly headers: { readonly 'content-type': string } }
const recordOf = (line: string): Record => ({ key: (JSON.parse(line) as Told).identity, value: line, headers: { 'content-type': 'application/cloudevents+json' } });

// ---- the topic ---------------------------------------------------------------------------------------------------------

/**
 * Records on a topic that nobody sees yet: the transaction is open, and consumers read what is committed. So a line stands
 * ready and idle until `reveal`, and then has all of it before it, with no producer beside it.
 */
async function hiddenTraffic(broker: Broker, topic: string, lines: Iterable<string>): Promise<{ reveal(): Promise<void>; close(): Promise<void> }> {
  const kafka = new kafkajs.Kafka({ clientId: 'bench', brokers: [broker.url], logLevel: kafkajs.logLevel.NOTHING });
  const producer = kafka.producer({ transactionalId: `bench-${topic}`, maxInFlightRequests: 1, idempotent: true, transactionTimeout: 600_000, createPartitioner: kafkajs.Partitioners.DefaultPartitioner });
  await producer.connect();
  const transaction = await producer.transaction();
  for (const piece of inPieces(lines, PIECE)) await transaction.send({ topic, messages: piece.map(recordOf) });
  return { reveal: () => transaction.commit(), close: () => producer.disconnect() };
}

export async function openProducer(broker: Broker): Promise<Producer> {
  const producer = new kafkajs.Kafka({ clientId: 'bench', brokers: [broker.url], logLevel: kafkajs.logLevel.NOTHING }).producer({ createPartitioner: kafkajs.Partitioners.DefaultPartitioner });
  await producer.connect();
  return producer;
}
export async function publish(producer: Producer, topic: string, lines: readonly string[]): Promise<void> {
  await producer.send({ topic, acks: -1, messages: lines.map(recordOf) });
}

// ---- a run -------------------------------------------------------------------------------------------------------------

/** As `make up` starts it: what was answered is on disk within a second. */
export function startRedisAsRun(): Promise<RedisServer> { return startRedis({ settings: { appendonly: 'yes', appendfsync: 'everysec' } }); }

let runs = 0;
const openRuns = new Set<Run>();
/** Ends what a bench that is cut short would leave behind. */
export async function closeRuns(): Promise<void> { for (const run of openRuns) await run.close(); }

/** Places of its own, each server but the broker too. */
export class Run {
  readonly broker: Broker;
  readonly store: Store;
  readonly topic: string;
  readonly redis: RedisServer;
  readonly double: EventStoreDouble | null;
  readonly recorder: Recorder | null;
  readonly places: Places;
  readonly programs = new Programs();

  private constructor(broker: Broker, store: Store, topic: string, redis: RedisServer, double: EventStoreDouble | null, recorder: Recorder | null, folder: string) {
    this.broker = broker;
    this.store = store;
    this.topic = topic;
    this.redis = redis;
    this.double = double;
    this.recorder = recorder;
    this.places = {
      source: `kafka://${broker.url}/${topic}?group=${topic}`, events: double?.url ?? null,
      views: `redis://127.0.0.1:${String(recorder?.port ?? redis.port)}/0`, folder, ...SECRETS,
    };
  }

  /** `recording`: what is said to Redis goes into this file. `folder`: one that has a log already. */
  static async open(broker: Broker, store: Store, options: { readonly recording?: string | null; readonly folder?: string } = {}): Promise<Run> {
    const topic = `bench-${String(runs += 1)}`;
    await broker.createTopic(topic, PARTITIONS);
    const redis = await startRedisAsRun();
    const double = store === 'EventStoreDB' ? await startEventStoreDouble() : null;
    const recorder = options.recording == null ? null : await startRecorder(redis.port, options.recording);
    const run = new Run(broker, store, topic, redis, double, recorder, options.folder ?? temporaryFolder());
    openRuns.add(run);
    return run;
  }

  /** The api makes the workspace, and is not needed then. */
  async makeWorkspace(): Promise<void> { await (await this.programs.start('api', this.places)).end(); }

  /** Past the recorder, if there is one. */
  get direct(): Places { return { ...this.places, views: `redis://127.0.0.1:${String(this.redis.port)}/0` }; }

  /** `keep`: the folder, for what reads its log afterwards. */
  async close(options: { readonly keep?: boolean } = {}): Promise<void> {
    openRuns.delete(this);
    await this.programs.endAll();
    await this.recorder?.close();
    await this.redis.stop();
    await this.double?.stop();
    if (options.keep !== true) removeFolder(this.places.folder);
  }
}

function alive(programs: readonly Program[]): void {
  for (const { name, exited, output } of programs) if (exited() !== undefined) throw new Error(`${name} ended with ${String(exited())}: ${output()}`);
}

// ---- how far the views are ---------------------------------------------------------------------------------------------

interface Look { readonly at: bigint; /** The lower of the two groups; '' while there is none. */ readonly position: string }

/**
 * Where the workspace's shard of both groups stands, as Redis has it. Read past the adapter, which would lend a hand:
 * whoever reads a view finishes what is sealed in it and not applied yet.
 */
export class FoldWatch {
  readonly looks: Look[] = [];
  readonly #redis: Redis;
  readonly #stop = new AbortController();
  readonly #watching: Promise<void>;
  #keys: readonly string[] = [];

  constructor(port: number) {
    this.#redis = new Redis({ host: '127.0.0.1', port });
    this.#watching = this.#watch();
  }

  /** Waits until both views are at `head`; nanoseconds when that was seen first. */
  async reached(head: string, programs: readonly Program[]): Promise<bigint> {
    let found: Look | undefined;
    await until(`the views stand at ${head}`, () => {
      alive(programs);
      found = this.looks.find(({ position }) => position >= head);
      return found !== undefined;
    }, RUN_MS);
    return found?.at ?? 0n;
  }

  async known(programs: readonly Program[]): Promise<void> {
    await until('the views are made', () => {
      alive(programs);
      return this.#keys.length === 2;
    }, 30_000);
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await this.#watching;
    this.#redis.disconnect();
  }

  async #watch(): Promise<void> {
    const shard = shardOf(DEFAULT_WORKSPACE, REDIS_SHARDS_DEFAULT);
    while (!this.#stop.signal.aborted) {
      // Looked for while there are few keys, so that this costs nothing.
      if (this.#keys.length < 2) this.#keys = (await this.#redis.keys('{*}s')).filter((key) => new RegExp(`:(?:journeys|persons)-\\d+-${String(shard)}-`).test(key));
      const positions = await Promise.all(this.#keys.map((key) => this.#redis.hget(key, 'pos')));
      const position = positions.length < 2 ? '' : positions.map((one) => one ?? '').sort()[0] ?? '';
      if (position !== (this.looks.at(-1)?.position ?? '')) this.looks.push({ at: process.hrtime.bigint(), position });
      await pause(LOOK_MS, undefined, { signal: this.#stop.signal }).catch(() => undefined);
    }
  }
}

/** The log's head, and of a fold's end what must be true of any: as many journeys as interactions, and the digests. */
export async function headOf(places: Places): Promise<string> {
  const events = await openEvents(eventsOf(places), { use: 'read', random: (size) => new Uint8Array(size) });
  try { return (await events.head()) ?? ''; } finally { await events.close(); }
}
const eventsOf = (places: Places): Parameters<typeof openEvents>[0] => (places.events === null ? { kind: 'sqlite', folder: places.folder } : { kind: 'eventstoredb', url: places.events });

export interface Outcome { readonly digests: Digests; readonly documents: number; readonly bytesPerJourney: number }

/** What `status` says of a run that has come to rest. Throws where it is not what the traffic comes to. */
export async function outcomeOf(run: Run, corpus: Corpus): Promise<Outcome> {
  const { code, stdout, stderr } = await throughline(['status', ...(run.direct.events === null ? [] : ['--events', run.direct.events]), '--views', run.direct.views ?? '', ...(run.direct.events === null ? ['--data', run.direct.folder] : []), '--json'], { env: { THROUGHLINE_MASTER_KEY: SECRETS.masterKey } });
  if (code !== 0) throw new Error(`status ended with ${String(code)}: ${stderr}${stdout}`);
  const status = JSON.parse(stdout) as { readonly bytesPerJourney: number; readonly groups: readonly { readonly group: string; readonly records: number; readonly documents: number }[] };
  const found = status.groups.find(({ group }) => group === 'journeys')?.records;
  if (found !== corpus.interactions) throw new Error(`${String(found)} journeys were folded of ${corpus.interactions} interactions`);
  return { digests: await digestsOf(run.direct), documents: status.groups.reduce((sum, { documents }) => sum + documents, 0), bytesPerJourney: status.bytesPerJourney };
}

export function sameDigests(what: string, one: Digests, other: Digests): void {
  if (JSON.stringify(one) !== JSON.stringify(other)) throw new Error(`${what}: the digests differ, ${JSON.stringify(one)} and ${JSON.stringify(other)}`);
}

/** The log of a folder folded in this process, into views in memory: what every other fold of it must come to. */
export async function foldInProcess(folder: string): Promise<Digests> {
  const events = await openEvents({ kind: 'sqlite', folder }, { use: 'read', random: (size) => new Uint8Array(size) });
  const views = new MemoryViewStore();
  const stop = new AbortController();
  const masterKey = Buffer.from(SECRETS.masterKey, 'hex');
  const head = (await events.head()) ?? '';
  await runProjector({
    events, views, projections: [journeys, persons], keysOf: (workspace) => loadWorkspaceKeys(events, workspace, masterKey), shards: 1, owned: 'all', patience: 'bounded',
    room: { batchMax: 4096, batchBytesMax: 24 * 1024 * 1024, cacheBytesMax: 64 * 1024 * 1024, stepBytesMax: 48 * 1024 * 1024, foldMax: 4096, lanes: 1 }, clock: { now: () => Date.now() }, signal: stop.signal,
    wait: async (ms, signal) => { await pause(ms, undefined, { signal }).catch(() => undefined); },
    onProgress: (groups) => { if (groups.length === 2 && groups.every(({ position }) => position !== null && position >= head)) stop.abort(); },
    onFault: (fault) => { throw fault as Error; },
  });
  await events.close();
  const digest = async (group: string): Promise<string> => (await views.view(group, (await views.live(group)) ?? 0, 0)).digest();
  return { journeys: await digest('journeys'), persons: await digest('persons') };
}

// ---- the whole line ----------------------------------------------------------------------------------------------------

export interface LineFigures {
  readonly seconds: number;
  /** Of each process, from the first record to the last fold. */
  readonly cpu: { readonly ingest: number; readonly project: number };
  readonly peakMb: { readonly ingest: number; readonly project: number };
  readonly outcome: Outcome;
  /** Events a transaction of SQLite, on average; null on another store. */
  readonly batch: number | null;
}

/** `ingest` and `project` on a topic that shows all of its records at once, until the last is folded. */
export async function runLine(run: Run, corpus: Corpus): Promise<LineFigures> {
  await run.makeWorkspace();
  const hidden = await hiddenTraffic(run.broker, run.topic, traffic(corpus.events, corpus.open));
  const running = [await run.programs.start('ingest', run.places), await run.programs.start('project', run.places)] as const;
  const [ingest, project] = running;
  const watch = new FoldWatch(run.redis.port);
  const transactions = run.store === 'SQLite' ? new TransactionCount(run.places.folder) : null;
  try {
    await watch.known(running);
    await joined(run.broker, run.topic);
    const before = [cpuSeconds(ingest.pid), cpuSeconds(project.pid)] as const;
    const began = process.hrtime.bigint();
    await hidden.reveal();
    let counted = 0;
    const deadline = Date.now() + RUN_MS;
    while (counted < corpus.events) {
      await pause(COUNT_LOOK_MS);
      alive(running);
      if (Date.now() > deadline) throw new Error(`ingest recorded ${counted} of ${corpus.events}: ${ingest.output()}`);
      counted = (await ingest.metric('throughline_ingest_recorded_total')) ?? 0;
      transactions?.look(counted);
    }
    const ended = await watch.reached(await headOf(run.direct), running);
    const cpu = { ingest: cpuSeconds(ingest.pid) - before[0], project: cpuSeconds(project.pid) - before[1] };
    const peaks = { ingest: peakMb(ingest.pid), project: peakMb(project.pid) };
    if (counted !== corpus.events) throw new Error(`${counted} events were recorded of ${corpus.events}`);
    const outcome = await outcomeOf(run, corpus);
    return { seconds: Number(ended - began) / 1e9, cpu, peakMb: peaks, outcome, batch: transactions?.mean() ?? null };
  } finally {
    await watch.close();
    await hidden.close();
    await Promise.all(running.map((program) => program.end()));
  }
}

/** Until the group has its member, and the member its partitions. */
async function joined(broker: Broker, group: string): Promise<void> {
  const admin = new kafkajs.Kafka({ clientId: 'bench', brokers: [broker.url], logLevel: kafkajs.logLevel.NOTHING }).admin();
  await admin.connect();
  try {
    await until('the group is stable', async () => (await admin.describeGroups([group])).groups.every(({ state, members }) => state === 'Stable' && members.length === 1), 60_000);
  } finally {
    await admin.disconnect();
  }
}

/**
 * How many transactions the adapter made of its events: each leaves one frame in the WAL that says how large the file is
 * after it (SQLite's file format, section 4.1). Counted between two looks at the same WAL: it begins anew after a checkpoint.
 */
class TransactionCount {
  readonly #file: string;
  #last: { readonly salt: string; readonly commits: number; readonly events: number } | null = null;
  #events = 0;
  #commits = 0;

  constructor(folder: string) { this.#file = join(folder, 'events.sqlite-wal'); }

  look(events: number): void {
    const { salt, commits } = this.#read();
    if (this.#last?.salt === salt && commits >= this.#last.commits) {
      this.#events += events - this.#last.events;
      this.#commits += commits - this.#last.commits;
    }
    this.#last = { salt, commits, events };
  }

  mean(): number | null { return this.#commits === 0 ? null : Math.max(1, Math.round(this.#events / this.#commits)); }

  #read(): { readonly salt: string; readonly commits: number } {
    const file = openSync(this.#file, 'r');
    try {
      const header = Buffer.alloc(32);
      if (readSync(file, header, 0, 32, 0) < 32) return { salt: '', commits: 0 };
      const [pageSize, salt] = [header.readUInt32BE(8), header.toString('hex', 16, 24)];
      const frame = Buffer.alloc(24);
      const { size } = fstatSync(file);
      let commits = 0;
      for (let at = 32; at + 24 + pageSize <= size; at += 24 + pageSize) {
        readSync(file, frame, 0, 24, at);
        if (frame.toString('hex', 8, 16) !== salt) break;
        if (frame.readUInt32BE(4) !== 0) commits += 1;
      }
      return { salt, commits };
    } finally {
      closeSync(file);
    }
  }
}

// ---- catching up -------------------------------------------------------------------------------------------------------

/** A folder whose log holds the traffic, and no view of it; its head. */
export async function makeLog(corpus: Corpus): Promise<{ readonly folder: string; readonly head: string }> {
  const [folder, work] = [temporaryFolder(), temporaryFolder()];
  try {
    const file = join(work, 'traffic.ndjson');
    const out = createWriteStream(file);
    for (const piece of inPieces(traffic(corpus.events, corpus.open), PIECE)) if (!out.write(`${piece.join('\n')}\n`)) await once(out, 'drain');
    out.end();
    await once(out, 'close');
    const { code, stdout, stderr } = await throughline(['import', file, '--data', folder, '--json'], { env: { THROUGHLINE_MASTER_KEY: SECRETS.masterKey, THROUGHLINE_WORKSPACE_SECRET: SECRETS.workspaceSecret } });
    if (code !== 0 || (JSON.parse(stdout) as { readonly recorded: number }).recorded !== corpus.events) throw new Error(`the import ended with ${String(code)}: ${stdout}${stderr}`);
    return { folder, head: await headOf({ folder, events: null, views: null, source: '', ...SECRETS }) };
  } finally {
    removeFolder(work);
  }
}

export interface CatchUpFigures {
  /** From the start of the process. */
  readonly seconds: number;
  /** Events a second between the first commit and the last, and of the second half alone. */
  readonly folding: number;
  readonly secondHalf: number;
  readonly cpu: number;
  readonly peakMb: number;
  readonly outcome: Outcome;
}

/** `project` alone: a log, an empty Redis. */
export async function catchUp(run: Run, corpus: Corpus, head: string): Promise<CatchUpFigures> {
  const watch = new FoldWatch(run.redis.port);
  const began = process.hrtime.bigint();
  const project = await run.programs.start('project', run.places, { whenReady: false });
  try {
    const ended = await watch.reached(head, [project]);
    const [cpu, peak] = [cpuSeconds(project.pid), peakMb(project.pid)];
    // Positions of SQLite are 1, 2, 3 …; before the traffic stands what made the workspace.
    const first = Number(head) - corpus.events;
    const rateFrom = (events: number): number => {
      const from = watch.looks.find(({ position }) => position !== '' && Number(position) - first >= events) ?? watch.looks.at(-1);
      return from === undefined || from.at === ended ? Number.NaN : (Number(head) - Number(from.position)) / (Number(ended - from.at) / 1e9);
    };
    const figures = { seconds: Number(ended - began) / 1e9, folding: rateFrom(1), secondHalf: rateFrom(corpus.events / 2), cpu, peakMb: peak };
    return { ...figures, outcome: await outcomeOf(run, corpus) };
  } finally {
    await watch.close();
    await project.end();
  }
}
