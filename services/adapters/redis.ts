// The view store in Redis 7 or later, standalone or Cluster: connections, generations, leases, tallies, the rate limiter,
// and what a server must be like. The view itself is in redis-view.ts, its index in redis-index.ts, what runs inside Redis in
// redis-scripts.ts. This is the only file that imports the driver.
//
// The keys of one shard of a generation share a hash tag; so does what says which generations there are (control), and the
// tallies. In a Cluster the pointer to the live generation is therefore on another node than the shards, and a commit
// cannot read it: each shard is told its own role. A promotion takes an epoch from the control key, tells the old shards
// that they are not live (and holds their commits meanwhile), flips the pointer if no other promotion has taken an epoch
// since, and only then tells the new ones. A shard takes a word only of an epoch that is not before the last it took; so
// once the pointer is flipped every old shard has this epoch and no earlier word can bring it back, and before that no
// new one was told. No two generations are live for commits at any moment, whoever crashes where. A shard that was not
// told although its generation is live finds out at its next commit (`claim`), with an epoch of its own, which makes a
// promotion that is under way begin again.
import assert from 'node:assert';
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { Cluster, Redis, type RedisOptions } from 'ioredis';
import { OperatingError } from '../errors.ts';
import { type Clock, type Finding, type Generation, type Hold, HOLD_MS, type RandomBytes, type RateLimiter, type Tally, type ViewStore } from '../ports.ts';
import { compareText, mergeTally } from './postings.ts';
import type { Reply } from './redis-index.ts';
import {
  BEGIN_DROP, BEGIN_PROMOTION, CLAIM, CREATE_GENERATION, DEMOTE, ENLIVEN, EXPIRE_SLICE, FLIP, HIT, HOLD, LEASE, LEASES, MAKE_SHARD, MARK_GONE, NOTE_VERSIONS, RELEASE, type Script, TALLY, UNHOLD,
} from './redis-scripts.ts';
import { type Link, RedisView } from './redis-view.ts';

export interface RedisPlace {
  readonly kind: 'redis';
  /** One; of a Cluster any that are there. */
  readonly nodes: readonly { readonly host: string; readonly port: number }[];
  readonly cluster: boolean;
  readonly username: string | null;
  readonly password: string | null;
  readonly db: number;
  readonly tls: { readonly caFile: string | null; readonly certFile: string | null; readonly keyFile: string | null; readonly verify: boolean } | null;
  /** Every key begins with it, inside its hash tag. */
  readonly prefix: string;
  /** Of generations made from now on; whoever makes one says it. */
  readonly shards: number;
}
export interface RedisViewOptions {
  readonly clock: Clock;
  readonly random?: RandomBytes;
  readonly onNotice?: (message: string, fields: Record<string, unknown>) => void;
  /** How often it is looked whether the server has become unfit. */
  readonly fitMs?: number;
  /** Postings and columns kept decoded, per view and process. */
  readonly cacheBytes?: number;
}

/** Functions, EXPIRE's NX, EVALSHA_RO. */
const VERSION_MIN = 7;
const CONNECT_MS = 5_000;
/**
 * The driver leaves promises unsettled in some faults (library-limits.md D.3), and a server may be frozen: each command
 * has an end. What a writer sends may be many megabytes.
 */
const READ_MS = 5_000;
const WRITE_MS = 20_000;
const RECONNECT_MS = 50;
const RECONNECT_MAX_MS = 1_000;
/** A reader is told at once that Redis is away; a writer's commands outlast a connection that broke. */
const READ_RETRIES = 1;
const WRITE_RETRIES = 3;
const PROMOTION_ATTEMPTS = 5;
const FIT_MS = 10_000;
/**
 * Keys of a dropped generation go by themselves after this time: readers who hold it finish first (they read the pointer
 * again every 200 ms), nobody waits for anything to be deleted, and no process must stay to do it.
 */
const DROPPED_KEPT_MS = 60_000;
/** Keys that one call looks at: well under a millisecond. */
const SLICE_KEYS = 500;
const TALLY_ATTEMPTS = 20;
const MEMORY_WARN = 0.8;
const MEMORY = 'memory';

// ---- connections -----------------------------------------------------------------------------------------------------

type Client = Redis | Cluster;
type Use = 'read' | 'write' | 'examine';

/**
 * What was on its way when a connection broke is sent again by the driver once it is back (`autoResendUnfulfilledCommands`):
 * switched off, its promises would never settle. That is sound because no write here minds being carried out twice: a
 * commit, a seal and a chunk look for themselves (redis-view.ts), a role carries its epoch, a generation its incarnation,
 * a tally what it was read as, and the rest sets what is set. Nothing depends on two commands being carried out together.
 */
function optionsOf(place: RedisPlace, use: Use) {
  const { username, password, tls } = place;
  return {
    protocol: 2, db: place.db, connectionName: 'throughline', connectTimeout: CONNECT_MS, commandTimeout: use === 'write' ? WRITE_MS : READ_MS,
    autoResendUnfulfilledCommands: true, maxRetriesPerRequest: use === 'write' ? WRITE_RETRIES : READ_RETRIES,
    // After a failover the old master is a replica: another connection finds the new one where an address stands for both.
    reconnectOnError: (error: Error) => error.message.startsWith('READONLY'),
    ...(username === null ? {} : { username }), ...(password === null ? {} : { password }), ...(tls === null ? {} : { tls: tlsOf(tls) }),
  } as const satisfies RedisOptions;
}

function tlsOf({ caFile, certFile, keyFile, verify }: NonNullable<RedisPlace['tls']>): NonNullable<RedisOptions['tls']> {
  const read = (file: string): Buffer => {
    try {
      return readFileSync(file);
    } catch (cause) {
      throw new OperatingError('badConfiguration', `${file}, named for TLS to Redis, cannot be read`, { cause });
    }
  };
  return { rejectUnauthorized: verify, ...(caFile === null ? {} : { ca: read(caFile) }), ...(certFile === null ? {} : { cert: read(certFile) }), ...(keyFile === null ? {} : { key: read(keyFile) }) };
}

/** `wasThere`: a server that was never reached is not tried again, so that whoever opens it hears of it, and nothing is left behind. */
function clientOf(place: RedisPlace, use: Use, wasThere: () => boolean): Client {
  const options = optionsOf(place, use);
  const backoff = (times: number): number | null => (wasThere() ? Math.min(RECONNECT_MS * 2 ** Math.min(times, 10), RECONNECT_MAX_MS) : null);
  const enableOfflineQueue = use === 'write';
  if (!place.cluster) return new Redis({ ...options, ...place.nodes[0]!, enableOfflineQueue, lazyConnect: true, retryStrategy: backoff });
  return new Cluster(place.nodes.map((node) => ({ ...node })), { redisOptions: options, enableOfflineQueue, lazyConnect: true, clusterRetryStrategy: backoff, slotsRefreshTimeout: CONNECT_MS });
}

async function connect(place: RedisPlace, use: Use, told: RedisViewOptions['onNotice']): Promise<Connection> {
  const met: { fault: Error | null; unselected: Error | null; ready: boolean; lost: boolean } = { fault: null, unselected: null, ready: false, lost: false };
  const client = clientOf(place, use, () => met.ready || met.lost);
  const connection = new Connection(client, addressOf(place));
  // Without a listener the driver prints what it meets.
  client.on('error', (error: Error) => {
    const refused = isOfSelect(error);
    // Why the connection is given up; what follows from that says nothing more.
    if (met.unselected === null || refused) met.fault = error;
    if (!refused) return;
    if (met.lost && met.unselected === null) told?.('Redis is there again, and its database cannot be selected', { use, error: error.message });
    met.unselected = error;
    // The driver would go on with database 0, somebody else's perhaps.
    client.disconnect(true);
  });
  client.on('ready', () => {
    if (met.lost) told?.('Redis is there again', { use });
    [met.ready, met.lost, met.unselected] = [true, false, null];
  });
  client.on('close', () => {
    if (met.ready && !connection.isClosed) told?.('the connection to Redis is lost', { use });
    [met.ready, met.lost] = [false, met.ready || met.lost];
  });
  try {
    await client.connect();
    return connection;
  } catch (error) {
    connection.close();
    throw met.unselected === null ? operating(met.fault ?? error, addressOf(place)) : unselected(met.unselected, place);
  }
}

/** Of what the driver sends by itself when it connects. */
function isOfSelect(error: Error): boolean {
  const { command } = error as { readonly command?: { readonly name?: string } };
  return error.name === 'ReplyError' && command?.name === 'select';
}

function unselected(error: unknown, place: RedisPlace): OperatingError {
  const why = whyUnselected(error, place);
  return why === null ? operating(error, addressOf(place)) : new OperatingError('storeUnfit', `Redis at ${addressOf(place)}: ${why.found}: ${why.advice}`, { cause: new Error(messageOf(error)) });
}

/** Null where it says nothing of the database: a script is running, say. */
function whyUnselected(error: unknown, { db }: RedisPlace): { readonly found: string; readonly advice: string } | null {
  const message = messageOf(error);
  if (message.startsWith('NOPERM')) return { found: `this user may not SELECT ${db}`, advice: 'allow it (ACL SETUSER ... +select), or name database 0' };
  if (/DB index/i.test(message)) return { found: `it has no database ${db}`, advice: 'name one that it has, or raise "databases" in redis.conf' };
  return /SELECT is not allowed/i.test(message) ? { found: `it has no database ${db}`, advice: 'a Cluster has database 0 alone' } : null;
}

function addressOf({ nodes }: RedisPlace): string { return nodes.map(({ host, port }) => `${host}:${port}`).join(','); }

class Connection implements Link {
  readonly client: Client;
  readonly address: string;
  isClosed = false;

  constructor(client: Client, address: string) {
    this.client = client;
    this.address = address;
  }

  close(): void {
    this.isClosed = true;
    // One that has ended by itself would be waited for.
    if (this.client.status !== 'end') this.client.disconnect();
  }

  async run(script: Script, keys: readonly string[], args: readonly (string | number | Buffer)[]): Promise<Reply> {
    const [command, fallback] = script.readOnly ? ['EVALSHA_RO', 'EVAL_RO'] : ['EVALSHA', 'EVAL'];
    const rest = [keys.length, ...keys, ...args];
    try {
      return await this.client.callBuffer(command, script.sha, ...rest) as Reply;
    } catch (error) {
      if (!messageOf(error).startsWith('NOSCRIPT')) throw operating(error, this.address);
    }
    // A server that was started anew, or a master that took over, does not know it yet.
    return this.#asked(this.client.callBuffer(fallback, script.lua, ...rest));
  }

  async call(command: string, args: readonly (string | number | Buffer)[]): Promise<Reply> {
    return this.#asked(this.client.callBuffer(command, ...args));
  }

  async #asked(reply: Promise<unknown>): Promise<Reply> {
    try {
      return await reply as Reply;
    } catch (error) {
      throw operating(error, this.address);
    }
  }
}

function messageOf(error: unknown): string { return error instanceof Error ? error.message : String(error); }

/** What Redis or the driver says, by the first word of its answer. The driver's error is not kept: it carries the command with its arguments, a password among them. */
const ANSWERS: readonly (readonly [RegExp, OperatingError['code'], string])[] = [
  [/^-?OOM /, 'storeFull', 'has no memory left: raise maxmemory'],
  [/^MISCONF/, 'storeReadOnly', 'refuses writes because it cannot save to its disk: see its log, and its disk'],
  [/^READONLY/, 'storeUnavailable', 'is a replica now: a failover is under way, or it is not the master that was named'],
  [/^(LOADING|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|NOREPLICAS|BUSY|UNBLOCKED|Cluster)/, 'storeUnavailable', 'is not ready'],
  [/isn't writeable|Connection is closed|ECONNREFUSED/, 'storeUnavailable', 'cannot be reached: is it running?'],
  [/^(NOAUTH|WRONGPASS|NOPERM)|without any password/, 'storeUnfit', 'refuses the login, or what this user may do: name a user with its password who may run scripts and write under the prefix'],
  [/^WRONGTYPE|^ERR .*script/, 'storeCorrupt', 'holds what we cannot have written: stop every project, delete the keys under the prefix (or name another with prefix=) and start it again; they are folded anew from the log'],
];

function operating(error: unknown, address: string): OperatingError {
  if (error instanceof OperatingError) return error;
  const message = messageOf(error);
  const cause = new Error(message);
  const known = ANSWERS.find(([pattern]) => pattern.test(message));
  if (known !== undefined) return new OperatingError(known[1], `Redis at ${address} ${known[2]}`, { cause });
  return new OperatingError('storeUnavailable', `Redis at ${address} does not answer (${message})`, { cause });
}

// ---- the store -------------------------------------------------------------------------------------------------------

/** Throws `storeUnavailable`, `storeReadOnly` for a replica, `storeUnfit` with what is wrong and what to do. */
export async function openRedisViewStore(place: RedisPlace, options: RedisViewOptions): Promise<RedisViewStore> {
  const address = addressOf(place);
  const reading = await connect(place, 'read', options.onNotice);
  try {
    const findings = await lookAt(reading.client, place);
    // A full one can be read, and takes writes again by itself once there is room.
    const bad = findings.filter(({ level, what }) => level === 'bad' && !what.startsWith(MEMORY));
    if (bad.length > 0) {
      const replica = bad.some(({ what }) => what === 'role');
      throw new OperatingError(replica ? 'storeReadOnly' : 'storeUnfit', `Redis at ${address}: ${bad.map(({ what, found, advice }) => `${what} is ${found}: ${advice ?? ''}`).join('; ')}`);
    }
    for (const { level, what, found, advice } of findings) if (level !== 'ok') options.onNotice?.(`Redis: ${what} is ${found}`, { advice });
    return new RedisViewStore(place, reading, await connect(place, 'write', options.onNotice), options);
  } catch (error) {
    reading.close();
    throw operating(error, address);
  }
}

/** As it is stored; `incarnation` tells it from one that had its number before Redis was emptied: no key, and so nothing in anybody's memory, is common to both. */
interface StoredGeneration { readonly generation: Omit<Generation, 'id'>; readonly incarnation: string }

export class RedisViewStore implements ViewStore {
  readonly #prefix: string;
  readonly #cluster: boolean;
  readonly #reading: Connection;
  readonly #writing: Connection;
  readonly #options: RedisViewOptions;
  readonly #random: RandomBytes;
  readonly #views = new Map<string, RedisView>();
  #fitted: { readonly atMs: number; readonly look: Promise<void> } | null = null;
  /** Keys thrown away by each run of a server before this looked first. */
  readonly #evicted = new Map<string, number>();

  constructor(place: RedisPlace, reading: Connection, writing: Connection, options: RedisViewOptions) {
    this.#prefix = place.prefix;
    this.#cluster = place.cluster;
    this.#reading = reading;
    this.#writing = writing;
    this.#options = options;
    this.#random = options.random ?? randomBytes;
  }

  async generations(group: string): Promise<readonly Generation[]> {
    return [...(await this.#stored(group, 'g:'))].map(([id, { generation }]) => ({ ...generation, id })).sort((a, b) => a.id - b.id);
  }

  /** Every reader and every worker asks for it every few seconds: so that is where a Redis that has become unfit is noticed. */
  async live(group: string): Promise<number | null> {
    await this.#fit();
    const [live] = await this.#reading.call('HMGET', [this.#group(group), 'live']) as readonly (Buffer | null)[];
    return live == null ? null : Number(live);
  }

  /** Throws storeUnfit where the server has been told to throw keys away, or has done so since this was opened: parts of views may be gone. */
  async #fit(): Promise<void> {
    const nowMs = performance.now();
    if (this.#fitted === null || nowMs - this.#fitted.atMs >= (this.#options.fitMs ?? FIT_MS)) this.#fitted = { atMs: nowMs, look: this.#lookForEviction() };
    await this.#fitted.look;
  }

  async #lookForEviction(): Promise<void> {
    const { client, address } = this.#reading;
    for (const node of client instanceof Cluster ? client.nodes('master') : [client]) {
      // One that is away says so by itself, in what comes next.
      const info = await readInfo(node).catch(() => null);
      const policy = info?.get('maxmemory_policy');
      if (info === null || policy === undefined) continue;
      if (policy !== 'noeviction') throw new OperatingError('storeUnfit', `Redis at ${address} would throw away parts of views (maxmemory-policy is ${policy}): CONFIG SET maxmemory-policy noeviction, and in redis.conf`);
      const run = info.get('run_id') ?? '';
      const evicted = Number(info.get('evicted_keys') ?? 0);
      const before = this.#evicted.get(run) ?? evicted;
      this.#evicted.set(run, before);
      if (evicted > before) throw new OperatingError('storeUnfit', `Redis at ${address} has thrown away ${evicted - before} keys since it was opened, and some may be parts of views: stop every project, delete the keys under the prefix and start again; they are folded anew from the log`);
    }
  }

  async createGeneration(given: Omit<Generation, 'id' | 'createdAt'>): Promise<Generation> {
    assert(/^[a-z][a-zA-Z0-9]*$/.test(given.group), `a group's name is part of keys: ${given.group}`);
    await this.#sweep(given.group);
    const generation = { ...given, createdAt: new Date(this.#options.clock.now()).toISOString() };
    const stored: StoredGeneration = { generation, incarnation: this.#token(4) };
    const id = await this.#writing.run(CREATE_GENERATION, [this.#group(given.group)], [stored.incarnation, JSON.stringify(stored)]) as number;
    for (const tag of this.#tags(id, stored)) await this.#writing.run(MAKE_SHARD, [`${tag}s`], []);
    return { ...generation, id };
  }

  async previous(group: string): Promise<number | null> {
    const [previous] = await this.#reading.call('HMGET', [this.#group(group), 'previous']) as readonly (Buffer | null)[];
    return previous == null || previous.length === 0 || !(await this.#stored(group, 'g:')).has(Number(previous)) ? null : Number(previous);
  }

  async seen(group: string, version: string): Promise<readonly string[]> {
    const standing = (await this.generations(group)).map((generation) => generation.version);
    const found = (await this.#writing.run(NOTE_VERSIONS, [this.#group(group)], [...standing, version]) as readonly Buffer[]).map(String);
    return [...pairs(found)].sort(([, a], [, b]) => Number(a) - Number(b)).map(([one]) => one);
  }

  /** Each shard has its hold in a key of its own; those that were taken go when one is another's. */
  async hold(group: string): Promise<Hold | null> {
    const live = await this.live(group);
    const stored = live === null ? undefined : (await this.#stored(group, 'g:')).get(live);
    if (live === null || stored === undefined) return null;
    const hold = new ShardHold(live, this.#token(9), this.#tags(live, stored), this.#writing);
    for (const tag of hold.tags) {
      if (await this.#writing.run(HOLD, [`${tag}s`], [hold.token, HOLD_MS]) === 1) continue;
      await hold.release();
      return null;
    }
    // The time of all counts from the first.
    return hold;
  }

  async promote(group: string, from: number | null, to: number, hold?: Hold): Promise<boolean> {
    if (hold !== undefined && (!(hold instanceof ShardHold) || hold.generation !== from)) return false;
    for (let attempt = 1; attempt <= PROMOTION_ATTEMPTS; attempt += 1) {
      const flipped = await this.#promote(group, from, to, hold?.token ?? '');
      if (flipped !== 'again') return flipped;
    }
    throw new OperatingError('storeBusy', `others promote generations of ${group} at the same time`);
  }

  /** One epoch's try: see the head of this file. `again` when somebody took a later epoch. */
  async #promote(group: string, from: number | null, to: number, held: string): Promise<boolean | 'again'> {
    const key = this.#group(group);
    const missing = (): OperatingError => new OperatingError('viewMissing', `generation ${to} of ${group} does not exist`);
    const epoch = await this.#writing.run(BEGIN_PROMOTION, [key], [from ?? '', to]) as number;
    if (epoch === -1) throw missing();
    if (epoch === 0) return false;
    const generations = await this.#stored(group, 'g:');
    const tagsOf = (id: number | null): readonly string[] => {
      const stored = id === null ? undefined : generations.get(id);
      return id === null || stored === undefined ? [] : this.#tags(id, stored);
    };
    const token = held === '' ? this.#token(9) : held;
    const old = tagsOf(from);
    // Where one's hold has ended, those before it find out at their next commits that the pointer did not move.
    for (const tag of old) if (await this.#writing.run(DEMOTE, [`${tag}s`], [epoch, token, HOLD_MS, held]) === -1) return false;
    const flipped = await this.#writing.run(FLIP, [key], [from ?? '', to, epoch]);
    if (flipped === 1) for (const tag of tagsOf(to)) await this.#writing.run(ENLIVEN, [`${tag}s`], [epoch]);
    for (const tag of old) await this.#writing.run(UNHOLD, [`${tag}s`], [token]);
    if (flipped === -1) throw missing();
    return flipped === -2 ? 'again' : flipped === 1;
  }

  /** Readers that hold it go on reading what they had for DROPPED_KEPT_MS; no commit is made to it any more. */
  async dropGeneration(group: string, id: number): Promise<boolean> {
    if (await this.#writing.run(BEGIN_DROP, [this.#group(group)], [id]) === 0) return false;
    await this.#sweep(group);
    return true;
  }

  /** Gives the keys of dropped generations an end, those too that a process left which died meanwhile. */
  async #sweep(group: string): Promise<void> {
    for (const [id, stored] of await this.#stored(group, 'x:')) {
      for (const tag of this.#tags(id, stored)) {
        await this.#writing.run(MARK_GONE, [`${tag}s`], []);
        let cursor = '0';
        do cursor = String(await this.#writing.run(EXPIRE_SLICE, [`${tag}s`], [cursor, `${tag}*`, SLICE_KEYS, DROPPED_KEPT_MS]));
        while (cursor !== '0');
        this.#views.delete(tag);
      }
      await this.#writing.call('HDEL', [this.#group(group), `x:${id}`, `i:${stored.incarnation}`]);
    }
  }

  async view(group: string, id: number, shard: number): Promise<RedisView> {
    const generations = await this.#stored(group, 'g:');
    const stored = generations.get(id);
    if (stored === undefined) throw new OperatingError('viewMissing', `generation ${id} of ${group} does not exist`);
    assert(shard >= 0 && shard < stored.generation.shards, `generation ${id} of ${group} has no shard ${shard}`);
    const tag = this.#tags(id, stored)[shard]!;
    // What generations that are no more left in memory; whoever holds one of their views may go on with it.
    const standing = new Set([...generations].flatMap(([each, other]) => this.#tags(each, other)));
    for (const [name, { generation }] of this.#views) if (generation.group === group && !standing.has(name)) this.#views.delete(name);
    // Whoever made the generation may have died before its shards, or the node that held this one lost it.
    await this.#writing.run(MAKE_SHARD, [`${tag}s`], []);
    const known = this.#views.get(tag);
    if (known !== undefined) return known;
    const { cacheBytes } = this.#options;
    const view = new RedisView({
      generation: { ...stored.generation, id }, shard, tag, cluster: this.#cluster, reading: this.#reading, writing: this.#writing, random: this.#random,
      live: () => this.live(group), claim: async () => await this.#writing.run(CLAIM, [this.#group(group)], [id]) as number,
      ...(cacheBytes === undefined ? {} : { cacheBytes }),
    });
    this.#views.set(tag, view);
    return view;
  }

  async lease(name: string, holder: string, ms: number): Promise<boolean> {
    return await this.#writing.run(LEASE, [this.#control('leases')], [name, holder, ms]) === 1;
  }

  async release(name: string, holder: string): Promise<void> {
    await this.#writing.run(RELEASE, [this.#control('leases')], [name, holder]);
  }

  async leases(prefix: string): Promise<readonly { readonly name: string; readonly holder: string }[]> {
    const found = (await this.#reading.run(LEASES, [this.#control('leases')], []) as readonly Buffer[]).map(String);
    return pairs(found).map(([name, holder]) => ({ name, holder })).filter(({ name }) => name.startsWith(prefix)).sort((a, b) => compareText(a.name, b.name));
  }

  /** Read, summed here, and written if nobody else wrote meanwhile. What is written carries a token, so that a script that is sent twice knows its own. */
  async addTallies(tallies: readonly Tally[]): Promise<void> {
    if (tallies.length === 0) return;
    const workspaces = [...new Set(tallies.map(({ workspace }) => workspace))];
    for (let attempt = 1; attempt <= TALLY_ATTEMPTS; attempt += 1) {
      const before = new Map<string, string>();
      const after = new Map<string, Tally>();
      for (const workspace of workspaces) {
        const sources = [...new Set(tallies.filter((tally) => tally.workspace === workspace).map(({ source }) => source))];
        const found = await this.#reading.call('HMGET', [this.#tallies(workspace), ...sources]) as readonly (Buffer | null)[];
        sources.forEach((source, i) => before.set(`${workspace}\n${source}`, found[i]?.toString() ?? ''));
      }
      for (const tally of tallies) {
        const name = `${tally.workspace}\n${tally.source}`;
        const text = before.get(name)!;
        after.set(name, mergeTally(after.get(name) ?? (text === '' ? null : readTally(text)), tally));
      }
      const token = this.#token(6);
      const args = [...after].flatMap(([name, tally]) => [workspaces.indexOf(tally.workspace) + 1, tally.source, before.get(name)!, `${token} ${JSON.stringify(tally)}`]);
      if (await this.#writing.run(TALLY, workspaces.map((workspace) => this.#tallies(workspace)), args) === 1) return;
    }
    throw new OperatingError('storeBusy', 'others count deliveries at the same time');
  }

  async tallies(workspace: string): Promise<readonly Tally[]> {
    const found = (await this.#reading.call('HGETALL', [this.#tallies(workspace)]) as readonly Buffer[]).map(String);
    return pairs(found).map(([, text]) => readTally(text)).sort((a, b) => compareText(a.source, b.source));
  }

  /** The least that a node has left, times the nodes: a Cluster's shards are spread over them. */
  async free(): Promise<number | null> {
    const nodes = this.#reading.client instanceof Cluster ? this.#reading.client.nodes('master') : [this.#reading.client];
    const left: number[] = [];
    for (const node of nodes) {
      const info = await readInfo(node).catch((error: unknown) => { throw operating(error, this.#reading.address); });
      const most = Number(info?.get('maxmemory') ?? 0) || Number(info?.get('total_system_memory') ?? 0);
      if (info === null || most === 0) return null;
      left.push(Math.max(0, most - Number(info.get('used_memory') ?? 0)));
    }
    return left.length === 0 ? null : Math.min(...left) * left.length;
  }

  /** What is under way ends first. */
  async close(): Promise<void> {
    for (const view of this.#views.values()) await view.close();
    this.#views.clear();
    this.#reading.close();
    this.#writing.close();
  }

  /** Generations by id: those that stand (`g:`), or those whose keys must still be given an end (`x:`). */
  async #stored(group: string, kind: 'g:' | 'x:'): Promise<ReadonlyMap<number, StoredGeneration>> {
    const found = (await this.#reading.call('HGETALL', [this.#group(group)]) as readonly Buffer[]).map(String);
    return new Map(pairs(found).filter(([field]) => field.startsWith(kind)).map(([field, body]) => [Number(field.slice(kind.length)), JSON.parse(body) as StoredGeneration]));
  }

  #tags(id: number, { generation, incarnation }: StoredGeneration): readonly string[] {
    return Array.from({ length: generation.shards }, (_, shard) => `{${this.#prefix}:${generation.group}-${id}-${shard}-${incarnation}}`);
  }

  #control(name: string): string { return `{${this.#prefix}:control}${name}`; }
  #group(group: string): string { return this.#control(`group:${group}`); }
  #tallies(workspace: string): string { return `{${this.#prefix}:tallies}${workspace}`; }
  #token(bytes: number): string { return Buffer.from(this.#random(bytes)).toString('base64url'); }
}

/** A token in a key of each shard, which goes by itself after HOLD_MS. */
class ShardHold implements Hold {
  readonly generation: number;
  readonly token: string;
  readonly tags: readonly string[];
  readonly #link: Link;

  constructor(generation: number, token: string, tags: readonly string[], link: Link) {
    this.generation = generation;
    this.token = token;
    this.tags = tags;
    this.#link = link;
  }

  async release(): Promise<void> { for (const tag of this.tags) await this.#link.run(UNHOLD, [`${tag}s`], [this.token]); }
}

function readTally(text: string): Tally { return JSON.parse(text.slice(text.indexOf(' ') + 1)) as Tally; }

function pairs(flat: readonly string[]): readonly (readonly [string, string])[] {
  return Array.from({ length: flat.length / 2 }, (_, i) => [flat[i * 2]!, flat[i * 2 + 1]!] as const);
}

// ---- the rate limiter --------------------------------------------------------------------------------------------------

/** On a connection of its own, so that a hit never waits behind what a search reads. Throws `storeUnavailable`. */
export async function openRedisLimiter(place: RedisPlace, options: { readonly random?: RandomBytes; readonly onNotice?: RedisViewOptions['onNotice'] } = {}): Promise<RateLimiter> {
  const { random = randomBytes, onNotice } = options;
  const connection = await connect(place, 'read', onNotice);
  return {
    hit: async (key, { hits, windowMs }) => {
      // Each key has its own hash tag: a Cluster spreads them over its nodes.
      const name = `{${place.prefix}:rate:${key}}${String(hits)}/${String(windowMs)}`;
      return await connection.run(HIT, [name], [hits, windowMs, Buffer.from(random(9)).toString('base64url')]) as number;
    },
    close: () => {
      connection.close();
      return Promise.resolve();
    },
  };
}

// ---- what a server must be like ----------------------------------------------------------------------------------------

/** For `doctor`: never throws for what it finds. */
export async function examineRedis(place: RedisPlace): Promise<readonly Finding[]> {
  let connection: Connection;
  try {
    // The database is looked at by itself, so that the rest is told too.
    connection = await connect({ ...place, db: 0 }, 'examine', undefined);
  } catch (error) {
    return [{ level: 'bad', what: 'reachable', found: messageOf(error), advice: 'start Redis, or name the address, user and TLS that it has' }];
  }
  try {
    return [{ level: 'ok', what: 'reachable', found: addressOf(place), advice: null }, ...await lookAt(connection.client, place), ...await lookAtDatabase(connection.client, place)];
  } catch (error) {
    return [{ level: 'bad', what: 'answers', found: messageOf(operating(error, addressOf(place))), advice: 'see the log of Redis' }];
  } finally {
    connection.close();
  }
}

type Info = ReadonlyMap<string, string>;

async function lookAt(client: Client, place: RedisPlace): Promise<readonly Finding[]> {
  const nodes = client instanceof Cluster ? client.nodes('master') : [client];
  const findings: Finding[] = client instanceof Cluster ? [await lookAtCluster(client)] : [];
  for (const node of nodes) {
    const of = nodes.length > 1 ? ` (${node.options.host ?? ''}:${node.options.port ?? ''})` : '';
    const info = await readInfo(node);
    if (info === null) {
      findings.push({ level: 'warn', what: `INFO${of}`, found: 'forbidden', advice: `version, eviction and persistence could not be checked: they must be ${VERSION_MIN} or later, noeviction, and on` });
      continue;
    }
    findings.push(...[version(info), mode(info, place), role(info), eviction(info), await persistence(info, node), memory(info)].map((finding) => ({ ...finding, what: `${finding.what}${of}` })));
  }
  return findings;
}

async function lookAtDatabase(client: Client, place: RedisPlace): Promise<readonly Finding[]> {
  if (place.db === 0 || client instanceof Cluster) return [];
  try {
    await client.select(place.db);
    return [{ level: 'ok', what: 'database', found: String(place.db), advice: null }];
  } catch (error) {
    const why = whyUnselected(error, place);
    if (why === null) throw error;
    return [{ level: 'bad', what: 'database', ...why }];
  }
}

/** Null where it is forbidden. Other faults are thrown. */
async function readInfo(node: Redis): Promise<Info | null> {
  try {
    return fieldsOf(await node.info());
  } catch (error) {
    if (messageOf(error).startsWith('NOPERM')) return null;
    throw error;
  }
}

function fieldsOf(text: string): Info {
  return new Map(text.split('\r\n').filter((line) => line.includes(':')).map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1)]));
}

async function lookAtCluster(client: Cluster): Promise<Finding> {
  const state = fieldsOf(await client.cluster('INFO')).get('cluster_state') ?? 'unknown';
  return { level: state === 'ok' ? 'ok' : 'bad', what: 'cluster_state', found: state, advice: state === 'ok' ? null : 'each of the 16,384 slots needs a node that serves it: redis-cli --cluster check' };
}

function version(info: Info): Finding {
  const found = info.get('redis_version') ?? 'unknown';
  const fit = Number.parseInt(found, 10) >= VERSION_MIN;
  return { level: fit ? 'ok' : 'bad', what: 'version', found, advice: fit ? null : `Redis ${VERSION_MIN} or later is needed` };
}

function mode(info: Info, { cluster }: RedisPlace): Finding {
  const found = info.get('redis_mode') ?? 'standalone';
  const fit = (found === 'cluster') === cluster;
  return { level: fit ? 'ok' : 'bad', what: 'mode', found, advice: fit ? null : cluster ? 'this is no Cluster: leave out ?cluster=true' : 'this is a Cluster: say so with ?cluster=true' };
}

function role(info: Info): Finding {
  const found = info.get('role') ?? 'unknown';
  return { level: found === 'slave' ? 'bad' : 'ok', what: 'role', found: found === 'slave' ? 'replica' : found, advice: found === 'slave' ? 'name the master: a replica takes no writes' : null };
}

function eviction(info: Info): Finding {
  const found = info.get('maxmemory_policy');
  if (found === undefined) return { level: 'warn', what: 'maxmemory-policy', found: 'not told', advice: 'it must be noeviction: make sure that it is' };
  const fit = found === 'noeviction';
  return { level: fit ? 'ok' : 'bad', what: 'maxmemory-policy', found, advice: fit ? null : 'Redis would throw away parts of views when memory is short: CONFIG SET maxmemory-policy noeviction, and in redis.conf' };
}

/** A view can always be folded anew, so that persistence is a matter of how long that takes. */
async function persistence(info: Info, node: Redis): Promise<Finding> {
  const what = 'persistence';
  const advice = 'after a restart every view is folded anew from the log: set appendonly yes';
  if (info.get('aof_enabled') === '1') return { level: 'ok', what, found: 'AOF', advice: null };
  try {
    const [, points] = await node.config('GET', 'save') as [string, string];
    return points === '' ? { level: 'warn', what, found: 'off', advice } : { level: 'ok', what, found: `RDB (${points})`, advice: null };
  } catch (error) {
    if (!/^(NOPERM|ERR)/.test(messageOf(error))) throw error;
    return { level: 'warn', what, found: 'no AOF; whether it saves snapshots could not be checked', advice: `make sure that it does; else ${advice}` };
  }
}

function memory(info: Info): Finding {
  const used = Number(info.get('used_memory') ?? 0);
  const most = Number(info.get('maxmemory') ?? 0);
  const found = `${Math.round(used / 1e6)} MB used of ${most === 0 ? 'what the machine has' : `${Math.round(most / 1e6)} MB`}`;
  // As Redis itself counts when it refuses a write.
  if (most > 0 && used - Number(info.get('mem_not_counted_for_evict') ?? 0) >= most) return { level: 'bad', what: MEMORY, found, advice: 'it is full and takes no writes: raise maxmemory' };
  const short = most > 0 && used > most * MEMORY_WARN;
  return { level: short ? 'warn' : 'ok', what: MEMORY, found, advice: short ? 'raise maxmemory before it is full: a rebuild needs room for a second generation' : null };
}
