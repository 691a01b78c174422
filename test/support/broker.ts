// A real Kafka broker as a process of its own: the jars that infra/servers.sh installs, one node in KRaft mode, everything
// on 127.0.0.1, free ports, its data in a temporary folder.
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, cpSync, existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import kafkajs from 'kafkajs';
import { type KafkaPlace, ensureKafkaTopic, examineKafka } from '../../services/adapters/kafka.ts';
import { accepts, freePorts, type LocalServer, makeKeys, startLocalServer, untilAnswered, whyAbsent } from './local-server.ts';
import { ROOT, until } from './serve.ts';

const CACHE = join(ROOT, '.cache/kafka');
const START_MS = 180_000;

export interface Broker extends LocalServer {
  readonly port: number;
  /** `127.0.0.1:port` */
  readonly url: string;
  /** `127.0.0.1:port` of the listener with TLS and SASL, where one was asked for. */
  readonly secure: { readonly url: string; readonly caFile: string } | null;
  createTopic(name: string, partitions: number): Promise<void>;
  deleteTopic(name: string): Promise<void>;
}

/** Who may log in at the secure listener. */
export const SECURE_USER = { username: 'throughline', password: 'a-secret-of-tests' } as const;

export const brokerAbsent = (): string | null => whyAbsent('kafka');

export function placeOf(broker: Pick<Broker, 'url'>, given: Partial<KafkaPlace> = {}): KafkaPlace {
  return { kind: 'kafka', brokers: [broker.url], topic: 'events', group: 'throughline', workspaces: ['default'], tls: null, sasl: null, ...given };
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
  writeFileSync(properties, propertiesOf({ data, ports, store: null }));
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

/** `store`: the file of its key and certificate, where it listens securely as well. */
function propertiesOf({ data, ports: [port, controller, secure], store }: { readonly data: string; readonly ports: readonly number[]; readonly store: string | null }): string {
  const listeners = [`PLAINTEXT://127.0.0.1:${port}`, ...(store === null ? [] : [`SECURE://127.0.0.1:${secure}`])];
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
    ...(store === null ? [] : [
      `listener.name.secure.ssl.keystore.location=${store}`, 'listener.name.secure.ssl.keystore.type=PEM',
      'listener.name.secure.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512',
      `listener.name.secure.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_${SECURE_USER.username}="${SECURE_USER.password}";`,
      'listener.name.secure.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;',
      'listener.name.secure.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;',
    ]),
  ].join('\n');
}

/** Starts a broker and waits until it answers (some two seconds). `secure`: a second listener with TLS and SASL (plain, scram) for SECURE_USER. */
export async function startBroker(options: { readonly secure?: boolean } = {}): Promise<Broker> {
  const folder = mkdtempSync(join(tmpdir(), 'throughline-kafka-'));
  const data = join(folder, 'data');
  const { data: formatted, classes } = await template();
  cpSync(formatted, data, { recursive: true });
  const keys = options.secure === true ? makeKeys(folder) : null;
  const store = keys === null ? null : join(folder, 'store.pem');
  if (keys !== null && store !== null) writeFileSync(store, readFileSync(keys.keyFile, 'utf8') + readFileSync(keys.caFile, 'utf8'));
  const ports = await freePorts(3);
  const [port, , secure] = ports as [number, number, number];
  const url = `127.0.0.1:${port}`;
  const properties = join(folder, 'server.properties');
  writeFileSync(properties, propertiesOf({ data, ports, store }));
  const place = placeOf({ url });
  const log = join(folder, 'out.log');
  const server = await startLocalServer({
    folder,
    launch: () => {
      const output = openSync(log, 'a');
      const child = spawn('java', java(['-Xmx512m', '-Xms128m', `-XX:SharedArchiveFile=${classes}`, '-Xlog:disable', '-Xlog:all=off'], 'kafka.Kafka', [properties]), { cwd: folder, stdio: ['ignore', output, output] });
      closeSync(output);
      return child;
    },
    answers: (child) => untilAnswered('the broker', child, { port, log, withinMs: START_MS }, async () => (await examineKafka(place)).some(({ what, level }) => what === 'reachable' && level === 'ok')),
  });
  return {
    ...server, port, url, secure: keys === null ? null : { url: `127.0.0.1:${secure}`, caFile: keys.caFile },
    createTopic: (name, partitions) => ensureKafkaTopic(place, name, partitions),
    deleteTopic: async (name) => {
      const admin = new kafkajs.Kafka({ clientId: 'test', brokers: [url], logLevel: kafkajs.logLevel.NOTHING }).admin();
      await admin.connect();
      await admin.deleteTopics({ topics: [name] });
      await admin.disconnect();
    },
  };
}
