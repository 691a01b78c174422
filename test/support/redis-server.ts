// Real Redis servers as processes of their own: standalone, or three that are a Cluster; on 127.0.0.1, free ports, data in
// a temporary folder.
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { RedisPlace } from '../../services/adapters/redis.ts';
import { freePorts, type Keys, type LocalServer, makeKeys, startLocalServer, untilAnswered, whyAbsent } from './local-server.ts';
import { until } from './serve.ts';

const START_MS = 20_000;
/** A node of a Cluster talks to the others on its port and this much above. */
const BUS = 10_000;
const SLOTS = 16_384;

export interface RedisServer extends LocalServer {
  readonly port: number;
  /** `redis://127.0.0.1:port/0` */
  readonly url: string;
  /** Where its certificate and key are, where it speaks TLS on `port`. */
  readonly tls: Keys | null;
  /** Sends one command as an operator would; its answer as redis-cli prints it, line by line. */
  say(...words: readonly string[]): readonly string[];
}
export interface RedisServerOptions {
  /** AOF, every write of it on disk before the next is answered: what was answered survives a kill. Without: nothing is kept. */
  readonly persistent?: boolean;
  readonly password?: string;
  readonly tls?: boolean;
  /** Further settings, by the names of redis.conf. */
  readonly settings?: Readonly<Record<string, string>>;
}

export const redisAbsent = (): string | null => whyAbsent('redis');

export function redisPlace({ port }: { readonly port: number }, given: Partial<RedisPlace> = {}): RedisPlace {
  return { kind: 'redis', nodes: [{ host: '127.0.0.1', port }], cluster: false, username: null, password: null, db: 0, tls: null, prefix: 'tl', shards: 1, ...given };
}

/** Starts a server and waits until it answers. */
export async function startRedis(options: RedisServerOptions = {}): Promise<RedisServer> {
  return start(options, 0);
}

/** Three masters that hold the slots among them. */
export async function startRedisCluster(): Promise<{ readonly nodes: readonly RedisServer[]; readonly place: RedisPlace; stop(): Promise<void> }> {
  const nodes: RedisServer[] = [];
  const stop = async (): Promise<void> => { for (const node of nodes) await node.stop(); };
  try {
    for (let node = 0; node < 3; node += 1) nodes.push(await start({ settings: { 'cluster-enabled': 'yes', 'cluster-config-file': 'nodes.conf', 'cluster-node-timeout': '2000' } }, BUS));
    execFileSync('redis-cli', ['--cluster', 'create', ...nodes.map(({ port }) => `127.0.0.1:${port}`), '--cluster-yes'], { stdio: 'pipe' });
    await until('every node sees the Cluster', () => nodes.every(({ port }) => isWhole(port)), START_MS);
    return { nodes, place: redisPlace(nodes[0]!, { cluster: true, nodes: nodes.map(({ port }) => ({ host: '127.0.0.1', port })) }), stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

function isWhole(port: number): boolean {
  const info = execFileSync('redis-cli', ['-p', String(port), 'cluster', 'info'], { encoding: 'utf8' });
  return info.includes('cluster_state:ok') && info.includes(`cluster_slots_ok:${SLOTS}`) && info.includes('cluster_known_nodes:3');
}

async function start(options: RedisServerOptions, above: number): Promise<RedisServer> {
  const folder = mkdtempSync(join(tmpdir(), 'throughline-redis-'));
  const [data, log] = [join(folder, 'data'), join(folder, 'redis.log')];
  mkdirSync(data);
  const [port] = await freePorts(1, above) as [number];
  const tls = options.tls === true ? makeKeys(folder) : null;
  const settings: Readonly<Record<string, string>> = {
    ...(tls === null ? { port: String(port) } : { port: '0', 'tls-port': String(port), 'tls-cert-file': tls.caFile, 'tls-key-file': tls.keyFile, 'tls-ca-cert-file': tls.caFile, 'tls-auth-clients': 'no' }),
    bind: '127.0.0.1', dir: data, save: '', logfile: log, appendonly: options.persistent === true ? 'yes' : 'no', appendfsync: 'always',
    ...(options.password === undefined ? {} : { requirepass: options.password }), ...options.settings,
  };
  const cli = (...words: readonly string[]): string => spawnSync('redis-cli', [
    '-p', String(port), ...(tls === null ? [] : ['--tls', '--cacert', tls.caFile]), ...(options.password === undefined ? [] : ['--no-auth-warning', '-a', options.password]), ...words,
  ], { encoding: 'utf8' }).stdout;
  const server = await startLocalServer({
    folder,
    launch: () => spawn('redis-server', Object.entries(settings).flatMap(([name, value]) => [`--${name}`, value]), { stdio: 'ignore' }),
    answers: (child) => untilAnswered('Redis', child, { port, log, withinMs: START_MS }, () => /PONG|NOAUTH/.test(cli('ping'))),
  });
  return { ...server, port, url: `redis${tls === null ? '' : 's'}://127.0.0.1:${port}/0`, tls, say: (...words) => cli(...words).split('\n').filter((line) => line !== '') };
}
