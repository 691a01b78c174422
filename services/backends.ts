// The places that a process can be pointed at, each by its URL, and the adapters that open them. Parsing loads no driver:
// an adapter is loaded when its place is opened, so a verb that needs none pays for none. Nothing of a URL but the names of
// its parameters is ever told: anything else may be, or be next to, a password.
import type { EventStoreDbPlace } from './adapters/eventstoredb.ts';
import type { KafkaPlace } from './adapters/kafka.ts';
import type { RedisPlace } from './adapters/redis.ts';
import { foreignStore, liveOf } from './generations.ts';
import type { Clock, EventStore, Finding, RandomBytes, RateLimiter, Source, Topic, ViewStore } from './ports.ts';
import { LocalLimiter } from './rate-limit.ts';
import { isWorkspaceId } from '../schemas/identity.ts';

export interface FolderPlace { readonly kind: 'sqlite'; readonly folder: string }
export type EventsPlace = FolderPlace | EventStoreDbPlace;
export type ViewsPlace = FolderPlace | RedisPlace;
export type SourcePlace = KafkaPlace;

/** What an adapter noticed and dealt with (a connection lost, a script cut): for the log and the metrics. Never a credential. */
export type OnNotice = (message: string, fields: Record<string, unknown>) => void;

export type Parsed<T> = { readonly kind: 'place'; readonly place: T } | { readonly kind: 'problems'; readonly problems: readonly string[] };

// ---- opening ---------------------------------------------------------------------------------------------------------

/** `serve`: appends by many and follows; `write`: a verb that appends a little; `read`: never appends (a projector, a verb that looks). */
export type EventsUse = 'serve' | 'write' | 'read';

/** Throws OperatingError: what the store throws that cannot be opened. */
export async function openEvents(place: EventsPlace, options: { readonly use: EventsUse; readonly random: RandomBytes; readonly onNotice?: OnNotice }): Promise<EventStore> {
  const { use, random, onNotice } = options;
  switch (place.kind) {
    case 'sqlite': {
      const { openSqliteEventStore } = await import('./adapters/sqlite-events.ts');
      return openSqliteEventStore(use === 'read' ? { folder: place.folder, mode: 'read' } : { folder: place.folder, mode: use === 'serve' ? 'write' : 'direct', random });
    }
    case 'eventstoredb': {
      const { openEventStoreDb } = await import('./adapters/eventstoredb.ts');
      return openEventStoreDb(place, { random, role: use === 'read' ? 'follow' : 'both', ...(onNotice === undefined ? {} : { onNotice }) });
    }
  }
}

export async function openViews(place: ViewsPlace, options: { readonly clock: Clock; readonly onNotice?: OnNotice }): Promise<ViewStore> {
  const { clock, onNotice } = options;
  switch (place.kind) {
    case 'sqlite': {
      const { openSqliteViewStore } = await import('./adapters/sqlite-views.ts');
      return openSqliteViewStore({ folder: place.folder, clock });
    }
    case 'redis': {
      const { openRedisViewStore } = await import('./adapters/redis.ts');
      return openRedisViewStore(place, { clock, ...(onNotice === undefined ? {} : { onNotice }) });
    }
  }
}

/** Exact over every process that names the same Redis; in a folder each process counts for itself. `clock` only ever goes forward. */
export async function openLimiter(place: ViewsPlace, options: { readonly clock: Clock; readonly onNotice?: OnNotice }): Promise<RateLimiter> {
  const { clock, onNotice } = options;
  if (place.kind === 'sqlite') return new LocalLimiter(clock);
  const { openRedisLimiter } = await import('./adapters/redis.ts');
  return openRedisLimiter(place, onNotice === undefined ? {} : { onNotice });
}

export async function openSource(place: SourcePlace, told: { readonly onNotice: OnNotice }): Promise<Source> {
  const { openKafkaSource } = await import('./adapters/kafka.ts');
  return openKafkaSource(place, told);
}

/** A topic of the source's brokers: its own, or that of its dead letters. */
export async function openTopic(place: SourcePlace, name: string, told?: { readonly onNotice: OnNotice }): Promise<Topic> {
  const { openKafkaTopic } = await import('./adapters/kafka.ts');
  return openKafkaTopic(place, name, ...(told === undefined ? [] : [told] as const));
}

/** Makes a topic beside the source's where it is missing, with as many partitions. */
export async function ensureTopic(place: SourcePlace, name: string): Promise<void> {
  const { ensureKafkaTopic } = await import('./adapters/kafka.ts');
  await ensureKafkaTopic(place, name, 'as source');
}

/** The views of these events. Throws foreignStore. */
export async function openViewsOf(events: Pick<EventStore, 'storeId'>, ...opening: Parameters<typeof openViews>): Promise<ViewStore> {
  const views = await openViews(...opening);
  try {
    for (const group of ['journeys', 'persons'] as const) {
      const generation = await liveOf(views, group);
      if (generation !== null && generation.storeId !== events.storeId) throw foreignStore(generation, events.storeId);
    }
    return views;
  } catch (fault) {
    await views.close();
    throw fault;
  }
}

/** What `doctor` asks of a backend by itself. Never throws for what it finds. */
export async function examine(place: EventsPlace | ViewsPlace | SourcePlace): Promise<readonly Finding[]> {
  switch (place.kind) {
    case 'sqlite': return (await import('./adapters/sqlite-folder.ts')).examineFolder(place.folder);
    case 'eventstoredb': return (await import('./adapters/eventstoredb.ts')).examineEventStoreDb(place);
    case 'redis': return (await import('./adapters/redis.ts')).examineRedis(place);
    case 'kafka': return (await import('./adapters/kafka.ts')).examineKafka(place);
  }
}

/** How a place is called where people read it: no address, no credential. */
export function nameOf(place: EventsPlace | ViewsPlace | SourcePlace): string {
  switch (place.kind) {
    case 'sqlite': return `the data folder ${place.folder}`;
    case 'eventstoredb': return 'EventStoreDB';
    case 'redis': return 'Redis';
    case 'kafka': return `Kafka topic ${place.topic}`;
  }
}

/** Shards of a generation that is made in these views (a number fixed when it is made). */
export function shardsOf(place: ViewsPlace): number { return place.kind === 'redis' ? place.shards : 1; }

// ---- URLs ------------------------------------------------------------------------------------------------------------

/**
 * New generations on Redis. A shard is what one `project` process takes by lease and what one hash slot of a Cluster
 * holds; a workspace is one shard's, whole. Eight let as many processes or nodes share the work; an idle shard costs one
 * commit every few seconds, so more are for who has more workspaces at work than eight.
 */
export const REDIS_SHARDS_DEFAULT = 8;
/** Each is a hash tag with its own position and scripts; beyond this the idle commits alone are hundreds a second. */
export const REDIS_SHARDS_MAX = 256;
const REDIS_PREFIX_DEFAULT = 'throughline';
const KAFKA_GROUP_DEFAULT = 'throughline';
/** Of a topic's name; what the dead-letter topic adds to it must fit as well (Kafka: `Topic.legalChars`, 249). */
const TOPIC_LENGTH_MAX = 249 - '.dead-letter'.length;
const SASL = ['plain', 'scram-sha-256', 'scram-sha-512'] as const;

/** `esdb://` or `esdb+discover://`: the driver's own connection string, checked here because the driver prints what it does not like, credentials and all. */
export function parseEventsUrl(text: string): Parsed<EventStoreDbPlace> {
  const url = new UrlReader(text, ['esdb', 'esdb+discover'], 2113);
  for (const name of ESDB_WORDS) url.take(name);
  for (const name of ESDB_NUMBERS) if (!/^(-1|\d{1,9})?$/.test(url.take(name) ?? '')) url.problem(`${name} must be a whole number`);
  url.flag('tls', true);
  if (!url.flag('tlsVerifyCert', true)) url.problem('tlsVerifyCert=false is not supported by the driver: name the authority with tlsCAFile');
  if (!url.flag('throwOnAppendFailure', true)) url.problem('throwOnAppendFailure=false is not supported: the driver answers wrong revisions then');
  if (url.colons > 1) url.problem('has a colon in its password: write it as %3A');
  if ((url.username === null) !== (url.password === null)) url.problem('needs a user and a password, or neither');
  if (url.bracketed) url.problem('has an IPv6 address, which the driver does not take: use a name');
  if (url.path !== '') url.problem('has a path: there is none in an EventStoreDB URL');
  return url.done(() => ({ kind: 'eventstoredb', url: text.trim() }));
}
const ESDB_WORDS = ['connectionName', 'nodePreference', 'tlsCAFile', 'userCertFile', 'userKeyFile'] as const;
const ESDB_NUMBERS = ['maxDiscoverAttempts', 'discoveryInterval', 'gossipTimeout', 'defaultDeadline', 'keepAliveInterval', 'keepAliveTimeout'] as const;

/** `redis://user:password@host:6379/db?prefix=…&shards=…`; `rediss://` is TLS; a Cluster is several hosts with `?cluster=true`. */
export function parseViewsUrl(text: string): Parsed<RedisPlace> {
  const url = new UrlReader(text, ['redis', 'rediss'], 6379);
  const cluster = url.flag('cluster', false);
  const db = url.path === '' ? 0 : /^\d{1,4}$/.test(url.path) ? Number(url.path) : url.problem('has a path that is no database number');
  const prefix = url.take('prefix') ?? REDIS_PREFIX_DEFAULT;
  const shards = url.take('shards') ?? String(REDIS_SHARDS_DEFAULT);
  if (!/^[A-Za-z0-9_.:-]{1,64}$/.test(prefix)) url.problem('prefix must be 1 to 64 of A-Z, a-z, 0-9, _, ., : and -');
  if (!/^\d{1,4}$/.test(shards) || Number(shards) < 1 || Number(shards) > REDIS_SHARDS_MAX) url.problem(`shards must be a number from 1 to ${String(REDIS_SHARDS_MAX)}`);
  if (cluster && db !== 0) url.problem('names a database: a Cluster has only database 0');
  if (!cluster && url.hosts.length > 1) url.problem('names several hosts: that is a Cluster, say so with ?cluster=true');
  const tls = url.tls(url.scheme === 'rediss', 'the scheme rediss://');
  return url.done(() => ({ kind: 'redis', nodes: url.hosts, cluster, username: url.username, password: url.password, db: db ?? 0, tls, prefix, shards: Number(shards) }));
}

/** `kafka://user:password@host:9092,host:9092/topic?workspaces=a,b&group=…&tls=true&caFile=…&sasl=scram-sha-512`. */
export function parseSourceUrl(text: string): Parsed<KafkaPlace> {
  const url = new UrlReader(text, ['kafka'], 9092);
  const group = url.take('group') ?? KAFKA_GROUP_DEFAULT;
  const workspaces = [...new Set((url.take('workspaces') ?? 'default').split(','))];
  const named = url.take('sasl')?.toLowerCase() ?? null;
  const mechanism = SASL.find((one) => one === named);
  const tls = url.tls(url.flag('tls', false), 'tls=true');
  if (url.path === '') url.problem('has no topic: kafka://host:9092/topic');
  else if (url.path.length > TOPIC_LENGTH_MAX || !/^[A-Za-z0-9._-]+$/.test(url.path) || /^\.\.?$/.test(url.path)) url.problem(`has a path that is no topic: 1 to ${String(TOPIC_LENGTH_MAX)} of A-Z, a-z, 0-9, ., _ and -`);
  if (!/^[\x21-\x7e]{1,200}$/.test(group)) url.problem('group must be 1 to 200 printable characters');
  if (!workspaces.every(isWorkspaceId)) url.problem('workspaces must be ids (1 to 64 of a-z, 0-9 and _), separated by commas');
  if (named !== null && mechanism === undefined) url.problem(`sasl must be one of ${SASL.join(', ')}`);
  const { username, password } = url;
  if (named !== null && (username === null || password === null)) url.problem('has sasl without user:password@ before the host');
  if (named === null && (username !== null || password !== null)) url.problem(`has a user without the way to log in: add sasl=${SASL.join(' or ')}`);
  return url.done(() => ({
    kind: 'kafka', brokers: url.hosts.map(({ host, port }) => `${host.includes(':') ? `[${host}]` : host}:${String(port)}`), topic: url.path, group, workspaces, tls,
    sasl: mechanism === undefined || username === null || password === null ? null : { mechanism, username, password },
  }));
}

interface Tls { readonly caFile: string | null; readonly certFile: string | null; readonly keyFile: string | null; readonly verify: boolean }

/**
 * Takes a URL with one or several hosts apart (`new URL` takes no second host) and collects what is wrong with it. Each
 * parameter is asked for by name; `done` refuses those that nobody asked for.
 */
class UrlReader {
  readonly scheme: string;
  readonly hosts: { readonly host: string; readonly port: number }[] = [];
  readonly username: string | null = null;
  readonly password: string | null = null;
  /** Of the part before the @. */
  readonly colons: number = 0;
  readonly bracketed: boolean = false;
  /** Without its slash. */
  readonly path: string = '';
  readonly #query = new Map<string, string>();
  readonly #problems: string[] = [];
  /** It cannot be taken apart: whatever else was found wrong would be found in the wrong place. */
  readonly #broken: boolean = false;

  constructor(text: string, schemes: readonly string[], defaultPort: number) {
    const [, scheme = '', authority = '', path = '', query = ''] = /^([a-z][a-z+.-]*):\/\/([^/?#]*)(?:\/([^?#]*))?(?:\?([^#]*))?$/i.exec(text.trim()) ?? [];
    this.scheme = scheme.toLowerCase();
    if (!schemes.includes(this.scheme)) {
      // What cannot be taken apart is a `#`, or no URL at all; neither says where a password would stand.
      this.problem(`must be a URL that begins with ${schemes.map((one) => `${one}://`).join(' or ')}${text.includes('#') ? ', without # (in a password: %23)' : ''}`);
      this.#broken = true;
      return;
    }
    if (path.includes('@') || query.includes('@')) {
      this.problem('has an @ behind its hosts: in a user or password write / as %2F, ? as %3F and @ as %40');
      this.#broken = true;
      return;
    }
    const at = authority.lastIndexOf('@');
    if (at >= 0) {
      const [user = '', ...rest] = authority.slice(0, at).split(':');
      this.colons = rest.length;
      this.username = this.#decoded(user);
      this.password = rest.length === 0 ? null : this.#decoded(rest.join(':'));
    }
    for (const host of authority.slice(at + 1).split(',')) {
      const [, six, name, port] = /^(?:\[([0-9a-f:.]+)\]|([A-Za-z0-9._-]+))(?::(\d{1,5}))?$/i.exec(host) ?? [];
      const number = port === undefined ? defaultPort : Number(port);
      if ((six ?? name) === undefined || number < 1 || number > 65_535) this.problem(host === '' ? 'has a host that is empty' : 'has a host that is not name:port, with a port from 1 to 65535');
      else this.hosts.push({ host: six ?? name ?? '', port: number });
      if (six !== undefined) this.bracketed = true;
    }
    this.path = this.#decoded(path.replace(/\/$/, '')) ?? '';
    for (const pair of query.split('&').filter((one) => one !== '')) {
      const [name = '', ...value] = pair.split('=');
      if (this.#query.has(name)) this.problem('has a parameter twice');
      this.#query.set(name, this.#decoded(value.join('=')) ?? '');
    }
  }

  problem(text: string): null {
    if (!this.#broken) this.#problems.push(text);
    return null;
  }

  /** A parameter's value; null where it is not given, or given empty. */
  take(name: string): string | null {
    const value = this.#query.get(name) ?? '';
    this.#query.delete(name);
    return value === '' ? null : value;
  }

  flag(name: string, standard: boolean): boolean {
    const value = this.take(name);
    if (value !== null && value !== 'true' && value !== 'false') this.problem(`${name} must be true or false`);
    return value === null ? standard : value === 'true';
  }

  /** Files and `verify`; told when they are given without TLS, so that nobody believes a line safe that is not. */
  tls(on: boolean, by: string): Tls | null {
    const [caFile, certFile, keyFile] = [this.take('caFile'), this.take('certFile'), this.take('keyFile')];
    const verify = this.flag('verify', true);
    if ((certFile === null) !== (keyFile === null)) this.problem('needs certFile and keyFile together');
    if (!on && (caFile !== null || certFile !== null || keyFile !== null || !verify)) this.problem(`has settings of TLS without TLS: add ${by}`);
    return on ? { caFile, certFile, keyFile, verify } : null;
  }

  done<T>(place: () => T): Parsed<T> {
    // Names of parameters alone, and only such as could be one: a piece of a password does not look like that.
    for (const name of this.#query.keys()) this.problem(`has an unknown parameter${/^[A-Za-z]{1,24}$/.test(name) ? ` ${name}` : ''}`);
    return this.#problems.length > 0 ? { kind: 'problems', problems: this.#problems } : { kind: 'place', place: place() };
  }

  #decoded(text: string): string | null {
    if (text === '') return null;
    try {
      return decodeURIComponent(text);
    } catch {
      return this.problem('has a % that encodes nothing: write it as %25');
    }
  }
}
