// Real Redis servers as processes of their own: standalone, or three that are a Cluster; on 127.0.0.1, free ports, data in
// a temporary folder. One can be killed, frozen and started again on the same port and data.
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { connect, createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import type { RedisPlace } from '../../services/adapters/redis.ts';
import { until } from './serve.ts';

const ROOT = resolve(import.meta.dirname, '../..');
const START_MS = 20_000;
/** A node of a Cluster talks to the others on its port and this much above. */
const BUS = 10_000;
const SLOTS = 16_384;

export interface RedisServer {
  readonly port: number;
  /** `redis://127.0.0.1:port/0` */
  readonly url: string;
  /** Where its certificate and key are, where it speaks TLS on `port`. */
  readonly tls: { readonly caFile: string; readonly keyFile: string } | null;
  pid(): number;
  /** SIGKILL unless another is given; resolves when the process has gone. The data stays. */
  kill(signal?: NodeJS.Signals): Promise<void>;
  /** SIGSTOP: connections stand, nothing is answered. */
  freeze(): void;
  thaw(): void;
  /** On the same port and data; resolves when it answers. */
  restart(): Promise<void>;
  /** Sends one command as an operator would; its answer as redis-cli prints it, line by line. */
  say(...words: readonly string[]): readonly string[];
  /** Ends it and removes its data. */
  stop(): Promise<void>;
}
export interface RedisServerOptions {
  /** AOF, every write of it on disk before the next is answered: what was answered survives a kill. Without: nothing is kept. */
  readonly persistent?: boolean;
  readonly password?: string;
  readonly tls?: boolean;
  /** Further settings, by the names of redis.conf. */
  readonly settings?: Readonly<Record<string, string>>;
}

/** Why no Redis can run here, in one line; null when one can. Installs it when it is missing and can be. */
export function redisAbsent(): string | null {
  const have = (): string | null => {
    const { status, stdout } = spawnSync('sh', ['infra/servers.sh', 'have', 'redis'], { cwd: ROOT, encoding: 'utf8' });
    return status === 0 ? null : stdout.trim() || 'infra/servers.sh cannot tell';
  };
  if (have() === null) return null;
  const { stderr } = spawnSync('sh', ['infra/servers.sh', 'install', 'redis'], { cwd: ROOT, encoding: 'utf8' });
  const why = have();
  return why === null ? null : stderr.trim() || why;
}

/** `describe` where Redis can run; else skipped with the reason in its name, or failing where REQUIRE names redis. */
export function describeWithRedis(name: string, declare: () => void): void {
  const absent = redisAbsent();
  if (absent === null) describe(name, declare);
  else if ((process.env['REQUIRE'] ?? '').split(',').includes('redis')) test(`${name}: REQUIRE names redis`, () => { throw new Error(absent); });
  else describe.skip(`${name} (absent: ${absent})`, declare);
}

export function redisPlace({ port }: { readonly port: number }, given: Partial<RedisPlace> = {}): RedisPlace {
  return { kind: 'redis', nodes: [{ host: '127.0.0.1', port }], cluster: false, username: null, password: null, db: 0, tls: null, prefix: 'tl', shards: 1, ...given };
}

/** Starts a server and waits until it answers. */
export async function startRedis(options: RedisServerOptions = {}): Promise<RedisServer> {
  return start(options, await freePort());
}

/** Three masters that hold the slots among them. */
export async function startRedisCluster(): Promise<{ readonly nodes: readonly RedisServer[]; readonly place: RedisPlace; stop(): Promise<void> }> {
  const nodes: RedisServer[] = [];
  const stop = async (): Promise<void> => { for (const node of nodes) await node.stop(); };
  try {
    for (let node = 0; node < 3; node += 1) nodes.push(await start({ settings: { 'cluster-enabled': 'yes', 'cluster-config-file': 'nodes.conf', 'cluster-node-timeout': '2000' } }, await freePort(BUS)));
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

async function start(options: RedisServerOptions, port: number): Promise<RedisServer> {
  const folder = mkdtempSync(join(tmpdir(), 'throughline-redis-'));
  const data = join(folder, 'data');
  mkdirSync(data);
  const tls = options.tls === true ? makeKeys(folder) : null;
  const settings: Readonly<Record<string, string>> = {
    ...(tls === null ? { port: String(port) } : { port: '0', 'tls-port': String(port), 'tls-cert-file': tls.caFile, 'tls-key-file': tls.keyFile, 'tls-ca-cert-file': tls.caFile, 'tls-auth-clients': 'no' }),
    bind: '127.0.0.1', dir: data, save: '', logfile: join(folder, 'redis.log'), appendonly: options.persistent === true ? 'yes' : 'no', appendfsync: 'always',
    ...(options.password === undefined ? {} : { requirepass: options.password }), ...options.settings,
  };
  let child: ChildProcess | null = null;
  const end = (): void => void child?.kill('SIGKILL');
  const run = async (): Promise<void> => {
    const started = spawn('redis-server', Object.entries(settings).flatMap(([name, value]) => [`--${name}`, value]), { stdio: 'ignore' });
    child = started;
    await until('Redis answers', async () => {
      if (started.exitCode !== null || started.signalCode !== null) throw new Error(`Redis ended: ${readFileSync(join(folder, 'redis.log'), 'utf8').slice(-2_000)}`);
      return (await accepts(port)) && /PONG|NOAUTH/.test(cli('ping'));
    }, START_MS);
  };
  const cli = (...words: readonly string[]): string => spawnSync('redis-cli', [
    '-p', String(port), ...(tls === null ? [] : ['--tls', '--cacert', tls.caFile]), ...(options.password === undefined ? [] : ['--no-auth-warning', '-a', options.password]), ...words,
  ], { encoding: 'utf8' }).stdout;
  const kill = async (signal: NodeJS.Signals = 'SIGKILL'): Promise<void> => {
    if (child === null || child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, 'exit');
    child.kill(signal);
    if (signal !== 'SIGKILL') child.kill('SIGCONT');
    await gone;
  };
  process.on('exit', end);
  await run();
  return {
    port, url: `redis${tls === null ? '' : 's'}://127.0.0.1:${port}/0`, tls,
    pid: () => child?.pid ?? -1,
    kill,
    freeze: () => void child?.kill('SIGSTOP'),
    thaw: () => void child?.kill('SIGCONT'),
    restart: async () => {
      await kill();
      await run();
    },
    say: (...words) => cli(...words).split('\n').filter((line) => line !== ''),
    stop: async () => {
      process.off('exit', end);
      await kill();
      rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}

/** A certificate for 127.0.0.1 that is its own authority. */
function makeKeys(folder: string): { readonly caFile: string; readonly keyFile: string } {
  const [keyFile, caFile] = [join(folder, 'key.pem'), join(folder, 'ca.pem')];
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-keyout', keyFile, '-out', caFile, '-days', '2', '-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1'], { stdio: 'pipe' });
  return { caFile, keyFile };
}

async function accepts(port: number): Promise<boolean> {
  return new Promise((answer) => {
    const socket = connect({ port, host: '127.0.0.1' });
    socket.once('connect', () => { socket.destroy(); answer(true); });
    socket.once('error', () => answer(false));
  });
}

/** Below 65,536 - `above`, so that a second one `above` it exists. */
async function freePort(above = 0): Promise<number> {
  for (;;) {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    server.close();
    await once(server, 'close');
    if (port + above < 65_536) return port;
  }
}
