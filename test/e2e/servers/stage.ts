// A line on a real broker and a real Redis, for the tests of this folder: started once a file, one topic, group and key prefix a
// test, every place reached through a proxy, so that a test can make any network bad. SQLite is the event store, or the double
// of an EventStoreDB; which one says the test.
import { createHash } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { once } from 'node:events';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { openTopic } from '../../../services/backends.ts';
import { OperatingError } from '../../../services/errors.ts';
import { type Broker, startBroker } from '../../support/broker.ts';
import type { EventStoreDouble } from '../../support/eventstoredb/double.ts';
import { inPieces, load, type LoadRecord } from '../../support/load.ts';
import { type Account, account, type Answer, answersOf, exportLog, settled, sourcePlace, type Spoken, statusOf, takenInElsewhere } from '../../support/oracle.ts';
import { type Places, type Program, Programs } from '../../support/programs.ts';
import { type Proxy, startProxy } from '../../support/proxy.ts';
import { type RedisServer, startRedis } from '../../support/redis-server.ts';
import { folded, removeFolder, type RunResult, serve, type Served, temporaryFolder, TEST_KEY, throughline, until } from '../../support/serve.ts';

/** What a stage stands on, for `describeOn`. */
export const SERVERS = ['kafka', 'redis'] as const;

/** What a run is repeated by: printed by every test, set by SEED=… of `make faults` and `make test-servers`. */
export const SEED = Number(process.env['THROUGHLINE_TEST_SEED'] ?? Date.now() % 1_000_000);

const PIECE = 500;
const PIECES_A_SECOND = 20;
/** A line comes to rest within seconds; others may be at work on the machine. */
const REST_MS = 90_000;

export class Stage {
  readonly broker: Broker;
  readonly redis: RedisServer;
  readonly eventServer: EventStoreDouble | null;
  readonly proxies: { readonly kafka: Proxy; readonly redis: Proxy; readonly events: Proxy | null };
  readonly folder = temporaryFolder();
  #made = 0;

  private constructor(broker: Broker, redis: RedisServer, eventServer: EventStoreDouble | null, proxies: Stage['proxies']) {
    this.broker = broker;
    this.redis = redis;
    this.eventServer = eventServer;
    this.proxies = proxies;
  }

  static async open(startEvents: (() => Promise<EventStoreDouble>) | null = null): Promise<Stage> {
    const [broker, redis, events] = await Promise.all([startBroker(), startRedis({ persistent: true }), startEvents === null ? null : startEvents()]);
    const [toKafka, toRedis, toEvents] = await Promise.all([
      startProxy({ port: broker.port, advertised: true }), startProxy({ port: redis.port }), events === null ? null : startProxy({ port: events.port }),
    ]);
    return new Stage(broker, redis, events, { kafka: toKafka, redis: toRedis, events: toEvents });
  }

  /** A topic, a group, an event store and views of their own, through the proxies. */
  async line(options: { readonly partitions?: number; readonly workspaces?: string; readonly shards?: number } = {}): Promise<Line> {
    const name = `t${String(this.#made += 1)}`;
    await this.eventServer?.wipe();
    await this.broker.createTopic(`${name}.events`, options.partitions ?? 6);
    const folder = join(this.folder, name);
    const secret = (what: string): string => createHash('sha256').update(`${String(SEED)} ${name} ${what}`).digest('hex');
    return new Line(this, {
      source: `kafka://127.0.0.1:${String(this.proxies.kafka.port)}/${name}.events?group=${name}${options.workspaces === undefined ? '' : `&workspaces=${options.workspaces}`}`,
      events: this.proxies.events === null ? null : `esdb://127.0.0.1:${String(this.proxies.events.port)}?tls=false`,
      views: `redis://127.0.0.1:${String(this.proxies.redis.port)}/0?prefix=${name}&shards=${String(options.shards ?? 2)}`,
      folder, masterKey: secret('master key'), workspaceSecret: secret('workspace'),
    });
  }

  clear(): void { for (const proxy of [this.proxies.kafka, this.proxies.redis, this.proxies.events]) proxy?.set({ kind: 'pass' }); }

  async close(): Promise<void> {
    await Promise.all([this.proxies.kafka.close(), this.proxies.redis.close(), this.proxies.events?.close()]);
    await Promise.all([this.broker.stop(), this.redis.stop(), this.eventServer?.stop()]);
    removeFolder(this.folder);
  }
}

export interface Pace { /** Null: as fast as it goes. */ readonly perSecond?: number | null; readonly onWritten?: (written: number) => void }

/** `wrong`: everything that is not as it should be, in words. */
export interface Verdict { readonly account: Account; readonly answers: readonly Answer[]; readonly groups: Awaited<ReturnType<typeof statusOf>>; readonly wrong: readonly string[] }

/** Where the log of these places is exported to, for the oracle. */
export const logOf = ({ folder }: Pick<Places, 'folder'>): string => `${folder}.export.ndjson`;

/**
 * Waits until all is done, then holds everything against the oracle: the log as `export` writes it against what was published
 * and acknowledged, and the views against those that the same log gives in an empty embedded folder. Of a line on servers and
 * of an embedded `serve` alike.
 */
export async function judged(places: Places, programs: Programs, running: readonly Program[], { spoken, withinMs = REST_MS }: { readonly spoken?: Spoken; readonly withinMs?: number } = {}): Promise<Verdict> {
  await settled(places, running, withinMs);
  const log = logOf(places);
  await exportLog(places, log);
  const api = running.find(({ name }) => name === 'api' || name === 'serve');
  if (api === undefined) throw new Error('no api runs');
  const [found, groups, answers, elsewhere] = await Promise.all([account(places, log, spoken), statusOf(places), answersOf(api), takenInElsewhere(log, places, programs, withinMs)]);
  const differs = (what: string, ours: unknown, theirs: unknown): readonly string[] => (isDeepStrictEqual(ours, theirs) ? [] : [`${what} differ from those of the same log in an empty folder: ${JSON.stringify(ours)} and ${JSON.stringify(theirs)}`]);
  return { account: found, answers, groups, wrong: [...found.wrong, ...differs('the views', groups, elsewhere.groups), ...differs('the answers', answers, elsewhere.answers)] };
}

export class Line {
  readonly stage: Stage;
  readonly places: Places;
  readonly programs = new Programs();
  readonly file: string;
  readonly #lines: ReturnType<typeof createWriteStream>;

  constructor(stage: Stage, places: Places) {
    this.stage = stage;
    this.places = places;
    this.file = `${places.folder}.ndjson`;
    this.#lines = createWriteStream(this.file);
  }

  /** An api first, since it makes the workspace; then whatever is asked for. */
  async start(...names: readonly ('ingest' | 'project')[]): Promise<readonly [Program, ...Program[]]> { return this.startLogging('warn', ...names); }

  async startLogging(logLevel: string, ...names: readonly ('ingest' | 'project')[]): Promise<readonly [Program, ...Program[]]> {
    const api = await this.programs.start('api', this.places, { logLevel });
    return [api, ...await Promise.all(names.map((name) => this.programs.start(name, this.places, { logLevel })))];
  }

  /**
   * Straight to the broker, past the proxy: what the platforms do is none of the fault's business. A write that fails is
   * written again, as an at-least-once producer does, and may then stand twice. Kept as a file too, for `import`. Answers how many were written.
   */
  async publish(records: Iterable<LoadRecord>, { perSecond = null, onWritten = () => undefined }: Pace = {}): Promise<number> {
    const direct = sourcePlace({ source: this.places.source.replace(`:${String(this.stage.proxies.kafka.port)}/`, `:${String(this.stage.broker.port)}/`) });
    const topic = await openTopic(direct, direct.topic);
    let written = 0;
    const began = Date.now();
    try {
      for (const piece of inPieces(records, perSecond === null ? PIECE : Math.ceil(perSecond / PIECES_A_SECOND))) {
        // The pace of the load itself, not a wait for something.
        if (perSecond !== null) await pause(Math.max(0, began + (written / perSecond) * 1000 - Date.now()));
        await until('the broker takes the load', () => topic.write(piece).then(() => true, (fault: unknown) => { if (fault instanceof OperatingError) return false; throw fault; }), REST_MS);
        for (const { line } of piece) if (line !== null && !this.#lines.write(`${line}\n`)) await once(this.#lines, 'drain');
        written += piece.length;
        onWritten(written);
      }
    } finally {
      await topic.close();
    }
    return written;
  }

  /** `records` of the load, by this run's seed. */
  publishLoad(records: number, pace?: Pace): Promise<number> { return this.publish(load({ seed: SEED, records }), pace); }

  /** What the oracle says once all is done. Fails with what is wrong. */
  async judge(running: readonly Program[], withinMs = REST_MS): Promise<Verdict> {
    this.stage.clear();
    const verdict = await judged(this.places, this.programs, running, { withinMs });
    expect({ wrong: verdict.wrong, seed: SEED }).toMatchObject({ wrong: [] });
    return verdict;
  }

  /** The same as lines of a file, as far as a file can hold them: what this line published. */
  async published(): Promise<string> {
    this.#lines.end();
    await once(this.#lines, 'close');
    return this.file;
  }

  async end(): Promise<void> {
    this.#lines.destroy();
    await this.programs.endAll();
  }
}

/** What a test of the api needs of whatever answers it: one embedded `serve`, or an api with its programs on servers. */
export interface House extends Pick<Served, 'url' | 'key' | 'request' | 'stdout' | 'stderr' | 'folded'> {
  /** `/metrics`; of several programs one after the other, those first that take in and fold. */
  metrics(): Promise<string>;
  /** A verb of the operator's, on the stores of this house. */
  verb(args: readonly string[]): Promise<RunResult>;
  /** Takes a file of events in by the way that this house has, until all of it is recorded. */
  takeIn(file: string): Promise<RunResult>;
  close(): Promise<void>;
}

/** One `serve` over a folder: `takeIn` imports over HTTP. */
export async function openEmbeddedHouse(): Promise<House> {
  const one = await serve();
  return {
    ...one,
    metrics: async () => (await fetch(`${one.url}/metrics`)).text(),
    verb: (args) => throughline([...args, '--data', one.folder]),
    takeIn: (file) => throughline(['import', file, '--to', one.url, '--json'], { env: { THROUGHLINE_API_KEY: one.key } }),
    close: async () => {
      await one.kill('SIGTERM');
      removeFolder(one.folder);
    },
  };
}

/** Programs of their own over a broker and a Redis of their own: `takeIn` publishes on the topic. */
export async function openHouseOnServers(): Promise<House> {
  const stage = await Stage.open();
  const line = await stage.line();
  const programs = await line.startLogging('info', 'project', 'ingest');
  return {
    ...houseOf(programs, line.places),
    takeIn: async (file) => {
      const published = await throughline(['publish', file, '--source', line.places.source, '--json']);
      await settled(line.places, programs, REST_MS);
      return published;
    },
    close: async () => {
      await line.end();
      await stage.close();
    },
  };
}

/** An api and a project over a Redis of their own: `takeIn` imports over HTTP. */
export async function openHouseOnRedis(): Promise<House> {
  const redis = await startRedis({ persistent: true });
  const folder = temporaryFolder();
  const running = new Programs();
  const places: Places = { source: '', events: null, views: redis.url, folder, masterKey: '5a'.repeat(32), workspaceSecret: 'a5'.repeat(32) };
  const programs = [await running.start('api', places), await running.start('project', places)] as const;
  return {
    ...houseOf(programs, places),
    close: async () => {
      await running.endAll();
      await redis.stop();
      removeFolder(folder);
    },
  };
}

function houseOf(programs: readonly [Program, ...Program[]], places: Places): Omit<House, 'close'> {
  const [api] = programs;
  return {
    url: api.url, key: TEST_KEY, request: api.request, stdout: api.stdout, stderr: () => programs.map(({ stderr }) => stderr()).join(''),
    folded: () => folded(api.request),
    metrics: async () => (await Promise.all(programs.toReversed().map(async ({ url }) => (await fetch(`${url}/metrics`)).text()))).join(''),
    verb: (args) => throughline([...args, '--data', places.folder], { env: { THROUGHLINE_MASTER_KEY: places.masterKey } }),
    takeIn: (file) => throughline(['import', file, '--to', api.url, '--json'], { env: { THROUGHLINE_API_KEY: TEST_KEY } }),
  };
}
