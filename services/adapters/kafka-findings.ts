// What `doctor` says of a Kafka cluster: from what was found there to findings with advice. Pure.
import { DEFAULT_MAX_EVENT_BYTES } from '../../schemas/cloudevent.ts';
import type { Finding } from '../ports.ts';

/** What a dead letter has more than its record: the headers that say where it came from and why. */
export const DEAD_LETTER_ROOM = 64 * 1024;
/** What the largest event may need as a record beyond its own bytes: its spelling, and headers. */
const EVENT_ROOM = 64 * 1024;
/** Less is too little to mend anything in before it is gone. */
const RETENTION_MIN_MS = 24 * 3_600_000;

/** An error of kafkajs, or of Node's below it. */
export interface KafkaFault { readonly name: string; readonly message: string; readonly type?: string; readonly code?: string | number; readonly retriable?: boolean; readonly cause?: unknown; readonly broker?: string }
/** The fewest replicas, and in sync, that any of its partitions has. */
export interface TopicShape { readonly partitions: number; readonly replicas: number; readonly inSync: number }
/** Settings as the broker spells them; null where they may not be seen. */
type Settings = ReadonlyMap<string, string> | null;
export interface TopicFound { readonly name: string; readonly shape: TopicShape | null; readonly settings: Settings }
export interface TopicsFound { readonly source: TopicFound; readonly deadLetters: TopicFound }
/** By key of the protocol's request. */
type Versions = Readonly<Record<number, { readonly minVersion: number; readonly maxVersion: number } | undefined>>;

export const well = (what: string, found: string): Finding => ({ level: 'ok', what, found, advice: null });
const warn = (what: string, found: string, advice: string): Finding => ({ level: 'warn', what, found, advice });
const bad = (what: string, found: string, advice: string): Finding => ({ level: 'bad', what, found, advice });

const CERTIFICATE = /^(ERR_TLS_|ERR_SSL_|CERT_|DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_)/;
export function isCertificateFault({ code }: KafkaFault): boolean {
  return CERTIFICATE.test(String(code ?? ''));
}

/** What an operator can do something with. Node has no message where a name has several addresses and none answers, and kafkajs none that names the broker. */
export function saidOf({ name, message, type, code, broker }: KafkaFault): string {
  if (type === 'UNKNOWN_TOPIC_OR_PARTITION') return 'there is no such topic; create it, or check its name';
  if (type === 'ILLEGAL_SASL_STATE') return 'the broker wants no login here: leave the login (SASL) out, or name the port that takes one';
  if (name === 'KafkaJSSASLAuthenticationError') return 'the broker refuses the credentials (SASL)';
  if (type === 'INVALID_SESSION_TIMEOUT') return 'the broker allows no session as short as ours: set its group.min.session.timeout.ms to 6000 or less';
  if (message === 'No broker available') return 'none of the brokers that were named can be reached';
  if (name !== 'KafkaJSConnectionError' || broker === undefined) return message;
  const why = message.replace(/^Connection error: ?/, '');
  return `the broker ${broker} cannot be reached (${why === '' ? String(code ?? 'no address of it answers') : why})`;
}

export function unreadableFinding(message: string): Finding {
  return bad('TLS files', message, 'name files that this process may read');
}

export function unreachableFinding(fault: KafkaFault): Finding {
  const { name, message, type } = fault;
  if (name === 'KafkaJSSASLAuthenticationError') return bad('credentials', message, 'check user name, password and mechanism (SASL) with whoever runs the brokers');
  if (type === 'ILLEGAL_SASL_STATE') return bad('credentials', 'the broker wants no login here', 'leave the login (SASL) out, or name the port that takes one');
  if (isCertificateFault(fault)) return bad('certificate', message, 'name the authority that signed the brokers\' certificate (the CA file), and connect by a name that stands in it');
  if (type?.endsWith('AUTHORIZATION_FAILED') === true) return bad('authorisation', message, 'allow this user to describe and read the topic and the group');
  return bad('reachable', saidOf(fault), 'check the brokers\' addresses, that they run, and whether they want TLS or SASL; every broker must advertise an address that this machine can reach');
}

/** Keys and generations of Kafka's protocol: Fetch below 4 went in 4.0 (KIP-896). */
export function versionFindings(versions: Versions): readonly Finding[] {
  const fetch = versions[1];
  const produce = versions[0];
  if (fetch === undefined || produce === undefined) return [];
  const found = `${fetch.minVersion >= 4 ? 'Kafka 4.0 or later' : 'Kafka before 4.0'} (Fetch ${fetch.minVersion}-${fetch.maxVersion}, Produce ${produce.minVersion}-${produce.maxVersion})`;
  // kafkajs 2.2.4 speaks Fetch up to 11 and Produce up to 7, and needs records with headers (Fetch 4).
  if (fetch.maxVersion < 4 || fetch.minVersion > 11 || produce.minVersion > 7) return [bad('version', found, 'use brokers from Kafka 0.11 to 4.x')];
  return [well('version', found)];
}

export function brokerFindings(settings: Settings): readonly Finding[] {
  if (settings?.get('auto.create.topics.enable') !== 'true') return [];
  return [warn('auto.create.topics.enable', 'true', 'set it to false: a misspelt topic name makes an empty topic instead of an error')];
}

export function topicFindings({ source, deadLetters }: TopicsFound, brokers: number): readonly Finding[] {
  return [
    source.shape === null ? bad(`topic ${source.name}`, 'missing', 'create it with as many partitions as ingest processes will ever share it') : well(`topic ${source.name}`, shapeText(source.shape)),
    deadLetters.shape === null ? warn(`topic ${deadLetters.name}`, 'missing', 'ingest makes it when it starts, if it may; else create it with the partitions and replicas of the topic') : well(`topic ${deadLetters.name}`, shapeText(deadLetters.shape)),
    ...[source, deadLetters].flatMap((topic) => [...replicaFindings(topic, brokers), ...keepingFindings(topic)]),
    ...sizeFindings(source, deadLetters),
    ...(source.shape !== null && source.settings === null ? [warn('topic settings', 'not visible', 'allow this user DescribeConfigs on the topics, so that they can be checked')] : []),
  ];
}

function sizeFindings(source: TopicFound, deadLetters: TopicFound): readonly Finding[] {
  const sizeOf = ({ settings }: TopicFound): number => Number(settings?.get('max.message.bytes') ?? Number.NaN);
  const [largest, letter] = [sizeOf(source), sizeOf(deadLetters)];
  return [
    ...(largest < DEFAULT_MAX_EVENT_BYTES + EVENT_ROOM ? [warn(`max.message.bytes of ${source.name}`, String(largest), `set at least ${DEFAULT_MAX_EVENT_BYTES + EVENT_ROOM}: the largest event, ${DEFAULT_MAX_EVENT_BYTES} bytes, does not fit a record`)] : []),
    ...(letter < largest + DEAD_LETTER_ROOM ? [warn(`max.message.bytes of ${deadLetters.name}`, String(letter), `set at least ${largest + DEAD_LETTER_ROOM}: a dead letter is its record and the reason; one that does not fit stops its partition`)] : []),
  ];
}
const shapeText = ({ partitions, replicas, inSync }: TopicShape): string => `${partitions} partition${partitions === 1 ? '' : 's'}, ${replicas} replica${replicas === 1 ? '' : 's'}, ${inSync} in sync`;

function replicaFindings({ name, shape, settings }: TopicFound, brokers: number): readonly Finding[] {
  if (shape === null) return [];
  const minimum = Number(settings?.get('min.insync.replicas') ?? Number.NaN);
  return [
    ...(shape.replicas === 1 ? [warn(`replicas of ${name}`, '1', brokers > 1 ? 'give it three replicas: with the one broker its records are gone' : 'run three brokers and three replicas where records must outlive a disk')] : []),
    ...(shape.inSync < shape.replicas ? [warn(`replicas of ${name}`, `${shape.inSync} of ${shape.replicas} in sync`, 'a broker is down or behind: bring it back')] : []),
    ...(shape.replicas > 2 && minimum < 2 ? [warn(`min.insync.replicas of ${name}`, String(minimum), 'set 2: with 1, what was acknowledged may stand on one disk only')] : []),
    ...(shape.inSync < minimum ? [bad(`min.insync.replicas of ${name}`, `${minimum}, and ${shape.inSync} in sync`, 'nothing can be written until a broker is back')] : []),
    ...(settings?.get('unclean.leader.election.enable') === 'true' ? [warn(`unclean.leader.election.enable of ${name}`, 'true', 'set it to false: a leader that was behind drops what was acknowledged')] : []),
  ];
}

function keepingFindings({ name, settings }: TopicFound): readonly Finding[] {
  if (settings === null) return [];
  const [ms, bytes, policy] = [Number(settings.get('retention.ms')), Number(settings.get('retention.bytes')), settings.get('cleanup.policy') ?? ''];
  if (policy.includes('compact')) return [bad(`cleanup.policy of ${name}`, policy, 'set it to delete: compaction keeps one record of each key, and every event counts')];
  const found = `${ms < 0 ? 'for ever' : `${Math.round(ms / 36e5)} h`}${bytes < 0 ? '' : `, at most ${bytes} bytes of a partition`}`;
  if (ms >= 0 && ms < RETENTION_MIN_MS) return [warn(`retention of ${name}`, found, 'keep a day at least: what is not stored by then is lost')];
  return [well(`retention of ${name}`, found)];
}
