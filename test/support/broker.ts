// A real Kafka broker as a process of its own: the jars that infra/servers.sh installs, one node in KRaft mode, everything
// on 127.0.0.1, free ports, its data in a temporary folder. It can be killed, frozen and started again on the same port.
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, cpSync, existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { type KafkaPlace, ensureKafkaTopic, examineKafka } from '../../services/adapters/kafka.ts';
import { until } from './serve.ts';

const ROOT = resolve(import.meta.dirname, '../..');
const CACHE = join(ROOT, '.cache/kafka');
const INSTALL_MS = 250_000;

export interface Broker {
  readonly port: number;
  /** `127.0.0.1:port` */
  readonly url: string;
  /** `127.0.0.1:port` of the listener with TLS and SASL, where one was asked for. */
  readonly secure: { readonly url: string; readonly caFile: string } | null;
  pid(): number;
  /** SIGKILL unless another is given; resolves when the process has gone. The data stays. */
  kill(signal?: NodeJS.Signals): Promise<void>;
  /** SIGSTOP: connections stand, nothing is answered. */
  freeze(): void;
  thaw(): void;
  /** On the same port and data; resolves when it answers. */
  restart(): Promise<void>;
  /** Ends it and removes its data. */
  stop(): Promise<void>;
  createTopic(name: string, partitions: number): Promise<void>;
}

/** Who may log in at the secure listener. */
export const SECURE_USER = { username: 'throughline', password: 'a-secret-of-tests' } as const;

/** Why no broker can run here, in one line; null when one can. Installs the jars when they are missing. */
export function brokerAbsent(): string | null {
  const have = (): string | null => {
    const { status, stdout } = spawnSync('sh', ['infra/servers.sh', 'have', 'kafka'], { cwd: ROOT, encoding: 'utf8' });
    return status === 0 ? null : stdout.trim() || 'infra/servers.sh cannot tell';
  };
  if (have() === null) return null;
  const { stderr } = spawnSync('sh', ['infra/servers.sh', 'install', 'kafka'], { cwd: ROOT, encoding: 'utf8', timeout: INSTALL_MS });
  const why = have();
  return why === null ? null : stderr.trim() || why;
}

/** `describe` where a broker can run; else skipped with the reason in its name, or failing where REQUIRE names kafka. */
export function describeWithBroker(name: string, declare: () => void): void {
  const absent = brokerAbsent();
  if (absent === null) describe(name, declare);
  else if ((process.env['REQUIRE'] ?? '').split(',').includes('kafka')) test(`${name}: REQUIRE names kafka`, () => { throw new Error(absent); });
  else describe.skip(`${name} (absent: ${absent})`, declare);
}

export function placeOf(broker: Pick<Broker, 'url'>, given: Partial<KafkaPlace> = {}): KafkaPlace {
  return { kind: 'kafka', brokers: [broker.url], topic: 'events', group: 'throughline', workspaces: ['default'], tls: null, sasl: null, ...given };
}

async function freePorts(count: number): Promise<readonly number[]> {
  const servers = await Promise.all(Array.from({ length: count }, async () => {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    return server;
  }));
  const ports = servers.map((server) => (server.address() as { port: number }).port);
  await Promise.all(servers.map((server) => new Promise((done) => server.close(done))));
  return ports;
}

const java = (options: readonly string[], main: string, args: readonly string[]): readonly string[] =>
  [...options, '-XX:TieredStopAtLevel=1', '-XX:+UseSerialGC', '-cp', join(CACHE, 'libs/*'), main, ...args];

interface Template { readonly data: string; readonly classes: string }
const templateIn = (folder: string): Template => ({ data: join(folder, 'data'), classes: join(folder, 'classes.jsa') });

/**
 * A formatted folder, which is copied, and the classes that a broker loads, which Java maps (a start takes 2.5 s instead of
 * 6 s on a busy machine). Made once: no port and no path stands in either. The name says what it was made of.
 */
async function template(): Promise<Template> {
  const made = join(CACHE, 'template-2');
  if (existsSync(made)) return templateIn(made);
  mkdirSync(CACHE, { recursive: true });
  const fresh = mkdtempSync(join(CACHE, 'template-fresh-'));
  const { data, classes } = templateIn(fresh);
  const properties = join(fresh, 'server.properties');
  const ports = await freePorts(2);
  writeFileSync(properties, propertiesOf({ data, ports, keys: null }));
  const scram = ['SCRAM-SHA-256', 'SCRAM-SHA-512'].flatMap((mechanism) => ['--add-scram', `${mechanism}=[name=${SECURE_USER.username},password=${SECURE_USER.password}]`]);
  execFileSync('java', java(['-Xmx128m'], 'kafka.tools.StorageTool', ['format', '-t', 'dGhyb3VnaGxpbmUtdGVzdA', '-c', properties, ...scram]), { stdio: ['ignore', 'ignore', 'pipe'] });
  cpSync(data, join(fresh, 'formatted'), { recursive: true });
  const child = spawn('java', java(['-Xmx512m', `-XX:ArchiveClassesAtExit=${classes}`], 'kafka.Kafka', [properties]), { cwd: fresh, stdio: 'ignore' });
  const gone = once(child, 'exit');
  await until('the broker accepts', () => child.exitCode !== null || accepts(ports[0] ?? 0), 60_000);
  child.kill('SIGTERM');
  await gone;
  rmSync(data, { recursive: true });
  renameSync(join(fresh, 'formatted'), data);
  try {
    renameSync(fresh, made);
  } catch (error) {
    // Somebody else was first.
    if (!existsSync(made)) throw error;
    rmSync(fresh, { recursive: true, force: true });
  }
  return templateIn(made);
}

interface Keys { readonly store: string; readonly caFile: string }
function propertiesOf({ data, ports: [port, controller, secure], keys }: { readonly data: string; readonly ports: readonly number[]; readonly keys: Keys | null }): string {
  const listeners = [`PLAINTEXT://127.0.0.1:${port}`, ...(keys === null ? [] : [`SECURE://127.0.0.1:${secure}`])];
  return [
    'process.roles=broker,controller', 'node.id=1', `controller.quorum.voters=1@127.0.0.1:${controller}`, 'controller.listener.names=CONTROLLER',
    `listeners=${[...listeners, `CONTROLLER://127.0.0.1:${controller}`].join(',')}`, `advertised.listeners=${listeners.join(',')}`,
    'listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL', 'inter.broker.listener.name=PLAINTEXT',
    `log.dirs=${data}`, 'auto.create.topics.enable=false', 'num.partitions=1', 'offsets.topic.num.partitions=1',
    'offsets.topic.replication.factor=1', 'transaction.state.log.replication.factor=1', 'transaction.state.log.min.isr=1', 'transaction.state.log.num.partitions=1',
    'share.coordinator.state.topic.replication.factor=1', 'share.coordinator.state.topic.min.isr=1',
    // Groups come together at once, and may have sessions as short as a test wants them.
    'group.initial.rebalance.delay.ms=0', 'group.min.session.timeout.ms=200', 'log.cleaner.enable=false',
    // A broker that was killed may come back as soon as its old session is over: nine seconds by default.
    'broker.session.timeout.ms=2000', 'broker.heartbeat.interval.ms=300',
    'num.network.threads=2', 'num.io.threads=4', 'background.threads=2', 'num.recovery.threads.per.data.dir=2', 'metadata.log.max.record.bytes.between.snapshots=100000000',
    ...(keys === null ? [] : [
      `listener.name.secure.ssl.keystore.location=${keys.store}`, 'listener.name.secure.ssl.keystore.type=PEM',
      'listener.name.secure.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512',
      `listener.name.secure.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_${SECURE_USER.username}="${SECURE_USER.password}";`,
      'listener.name.secure.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;',
      'listener.name.secure.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;',
    ]),
  ].join('\n');
}

/** A certificate for 127.0.0.1 that is its own authority. */
function makeKeys(folder: string): Keys {
  const [key, caFile, store] = [join(folder, 'key.pem'), join(folder, 'ca.pem'), join(folder, 'store.pem')];
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-keyout', key, '-out', caFile, '-days', '2', '-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1'], { stdio: 'pipe' });
  writeFileSync(store, readFileSync(key, 'utf8') + readFileSync(caFile, 'utf8'));
  return { store, caFile };
}

/** Starts a broker and waits until it answers (some two seconds). `secure`: a second listener with TLS and SASL (plain, scram) for SECURE_USER. */
export async function startBroker(options: { readonly secure?: boolean } = {}): Promise<Broker> {
  const folder = mkdtempSync(join(tmpdir(), 'throughline-kafka-'));
  const data = join(folder, 'data');
  const { data: formatted, classes } = await template();
  cpSync(formatted, data, { recursive: true });
  const keys = options.secure === true ? makeKeys(folder) : null;
  const ports = await freePorts(3);
  const [port, , secure] = ports as [number, number, number];
  const url = `127.0.0.1:${port}`;
  const properties = join(folder, 'server.properties');
  writeFileSync(properties, propertiesOf({ data, ports, keys }));
  const place = placeOf({ url });

  let child: ChildProcess | null = null;
  const end = (): void => void child?.kill('SIGKILL');
  const start = async (): Promise<void> => {
    const log = openSync(join(folder, 'out.log'), 'a');
    const started = spawn('java', java(['-Xmx512m', '-Xms128m', `-XX:SharedArchiveFile=${classes}`, '-Xlog:disable', '-Xlog:all=off'], 'kafka.Kafka', [properties]), { cwd: folder, stdio: ['ignore', log, log] });
    closeSync(log);
    child = started;
    await until('the broker answers', async () => {
      if (started.exitCode !== null || started.signalCode !== null) throw new Error(`the broker ended: ${readFileSync(join(folder, 'out.log'), 'utf8').slice(-2_000)}`);
      return await accepts(port) && (await examineKafka(place)).some(({ what, level }) => what === 'reachable' && level === 'ok');
    }, 180_000);
  };
  const kill = async (signal: NodeJS.Signals = 'SIGKILL'): Promise<void> => {
    if (child === null || child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, 'exit');
    child.kill(signal);
    if (signal !== 'SIGKILL') child.kill('SIGCONT');
    await gone;
  };
  process.on('exit', end);
  await start();
  return {
    port, url, secure: keys === null ? null : { url: `127.0.0.1:${secure}`, caFile: keys.caFile },
    pid: () => child?.pid ?? -1,
    kill,
    freeze: () => void child?.kill('SIGSTOP'),
    thaw: () => void child?.kill('SIGCONT'),
    restart: async () => {
      await kill();
      await start();
    },
    stop: async () => {
      process.off('exit', end);
      await kill();
      rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
    },
    createTopic: (name, partitions) => ensureKafkaTopic(place, name, partitions),
  };
}

async function accepts(port: number): Promise<boolean> {
  return new Promise((answer) => {
    const socket = connect({ port, host: '127.0.0.1' });
    socket.once('connect', () => {
      socket.destroy();
      answer(true);
    });
    socket.once('error', () => answer(false));
  });
}
