// Kafka behind the ports Source and Topic: kafkajs 2.2.4, which speaks to brokers from 0.11 to 4.x in the classic group
// protocol. kafkajs is no longer maintained and pinned; what it does wrong is worked around here, each time with the reason:
//
//  · One slow batch holds up every partition of its broker, since kafkajs fetches again only when all batches of a fetch are
//    handled. So a batch that takes long is left to itself: its partition is paused, the fetching goes on (`Following`).
//  · Heartbeats go out only when asked for: a timer asks while batches are under way.
//  · It restarts itself for ever, or stops for good with one event: neither is left to it. A crash ends a consumer here, and
//    the loop in `Following` begins another, within bounds.
//  · A ~1 ms timer for ever on every connection (`containTimerFault`).
//  · It fails on a header without a value (`containHeaderFault`), and its headers are an object: several of one name come
//    together, and which stood before which of another name is lost.
//
// What is read of kafkajs beyond its documented API (`kafkajs/src/...`) is the request queue and the encoder, for these, and the
// cluster, since reading a topic without a consumer group has no documented way.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import kafkajs, { type Admin, type ConfigResourceTypes, type Consumer, type EachBatchPayload, type IHeaders, type Kafka, type KafkaConfig, type KafkaMessage, type Producer } from 'kafkajs';
import { type Headers, headerValues } from '../../schemas/cloudevent.ts';
import { OperatingError } from '../errors.ts';
import { sleep } from '../lifecycle.ts';
import type { Delivery, DeliveryBatch, Finding, Handled, OutgoingRecord, Source, Topic, TopicLook } from '../ports.ts';
import { CODECS, type Codec } from './kafka-compression.ts';
import { DEAD_LETTER_ROOM, type KafkaFault, type TopicFound, type TopicShape, type TopicsFound, brokerFindings, isCertificateFault, saidOf, topicFindings, unreachableFinding, unreadableFinding, versionFindings, well } from './kafka-findings.ts';

export interface KafkaPlace {
  readonly kind: 'kafka';
  /** `host:port` each; any of them leads to the others. */
  readonly brokers: readonly string[];
  readonly topic: string;
  readonly group: string;
  /** The workspaces that the topic may write to: judged by whoever takes the deliveries. */
  readonly workspaces: readonly string[];
  readonly tls: { readonly caFile: string | null; readonly certFile: string | null; readonly keyFile: string | null; readonly verify: boolean } | null;
  readonly sasl: { readonly mechanism: 'plain' | 'scram-sha-256' | 'scram-sha-512'; readonly username: string; readonly password: string } | null;
}

/** Where kafkajs's own warnings go: never a payload, a key or a credential among the fields. */
export type OnNotice = (message: string, fields: Record<string, unknown>) => void;
const SILENT: OnNotice = () => undefined;

const REBALANCING = 'The group is rebalancing, so a rejoin is needed';
const NO_COORDINATOR = 'The group coordinator is not available';
/** kafkajs tells as errors what every group goes through: a member that comes or goes, and a coordinator that is chosen when the first asks for it. */
const isOrdinary = (error: unknown, times: number): boolean => error === REBALANCING || (error === NO_COORDINATOR && times === 1);

/** kafkajs says the same at every try: it is told at the first, second, fourth, eighth … time since all was last well. */
class Notices {
  readonly #onNotice: OnNotice;
  readonly #times = new Map<string, number>();
  /** All that kafkajs ever said: while it says something it does not hang. */
  heard = 0;

  constructor(onNotice: OnNotice) { this.#onNotice = onNotice; }

  tell(message: string, fields: Record<string, unknown>): void {
    this.heard += 1;
    const { error } = fields;
    const said = typeof error === 'string' ? `${message}: ${error}` : message;
    const times = (this.#times.get(said) ?? 0) + 1;
    // Messages carry a broker's address or a client's error, so that there are few; should there be many, they are counted anew.
    if (this.#times.size >= 1_000) this.#times.clear();
    this.#times.set(said, times);
    if ((times & (times - 1)) === 0 && !isOrdinary(error, times)) this.#onNotice(message, times === 1 ? fields : { ...fields, times });
  }
  well(): void { this.#times.clear(); }
}

/** What a test shortens; the defaults are what a deployment has. Milliseconds. */
export interface KafkaTimes {
  readonly sessionMs?: number;
  readonly heartbeatMs?: number;
  readonly awayMs?: number;
  readonly hangMs?: number;
  readonly holdMs?: number;
  readonly stopMs?: number;
}

// ---- limits ------------------------------------------------------------------------------------------------------------

/**
 * A member that says nothing for so long is taken for dead and its partitions are given away. The least that a broker allows
 * unless it is told otherwise (group.min.session.timeout.ms): a take-over is this, a heartbeat by which the others learn of
 * it, and their joining, and has to be over within ten seconds. Kafka's own default, 45 s, spares needless rebalances; here
 * one costs a few repeats (the store fences).
 */
export const SESSION_MS = 6_000;
/** A quarter of the session: three may be lost. */
export const HEARTBEAT_MS = 1_500;
/** How long the others wait for a member to come back to a rebalance: a batch told to stop has GRACE_MS, so this is ample. */
const REBALANCE_MS = 30_000;
/** No sign of life from the broker for so long ends `follow`: a broker that is away for a minute, or a cluster's rolling restart, is sat out with room to spare; then the process should end and be looked at. */
export const AWAY_MS = 300_000;
/** No sign of life for so long is told as trouble: a rebalance is over by then. */
const QUIET_MS = REBALANCE_MS + 10_000;
/** No sign of life and no error either for so long: kafkajs hangs (library-limits D.1). More than the longest it may rightly be quiet: a rebalance (30 s), or a frozen broker's requests timing out one after the other (5 × 10 s). */
export const HANG_MS = 120_000;
/** A topic that is not there is waited for so long: a broker that has just started may not know it yet. */
const MISSING_MS = 15_000;
/** A batch under way keeps the others of its broker waiting so long at most; then it is left to itself (see Following). Most batches are done before: 1 MiB is some 1,500 events. */
const HOLD_MS = 500;
/** What was under way when the partition was lost may finish and be committed within this. */
const GRACE_MS = 5_000;
/** Passed records are committed at most this often, in one request for all partitions: a commit costs about as much as appending twenty events, and what a crash repeats of a tenth of a second is recognised. */
const COMMIT_MS = 100;
/** A batch that was done and passed nothing comes again after this, so that nothing turns in circles at full speed. */
const NO_PROGRESS_MS = 100;
/** How long the broker may keep a fetch open when there is nothing: also how long a partition that was left to itself may wait to be fetched again. Five requests a second when idle. */
const FETCH_WAIT_MS = 200;
/** Bytes of one partition in one fetch: kafkajs's default; one batch that `handle` gets. A larger record comes alone. */
const PARTITION_BYTES = 1024 * 1024;
/** Bytes of one fetch. Keys and values are views into it, so that a batch left to itself keeps all of it: memory is at most (MAX_LEFT + brokers) × this, some 70 MB, whatever stands on the topic. */
const FETCH_BYTES = 4 * 1024 * 1024;
/** Batches left to themselves at once; beyond, fetching waits for them. */
const MAX_LEFT = 16;
/** Batches of one fetch handled beside each other. */
const CONCURRENT_PARTITIONS = 64;
/** Between one consumer and the next. */
const RETRY_FIRST_MS = 250;
const RETRY_MAX_MS = 2_000;
/** The watchdog counts its own ticks, not a clock: a process that was frozen (SIGSTOP) for an hour has missed them too, and is not taken for hanging. */
const TICK_MS = 1_000;
/** Ending a consumer waits so long for a broker that may be gone; then its session runs out. */
const STOP_MS = 5_000;

const CONNECT_MS = 5_000;
const REQUEST_MS = 10_000;
/** Within kafkajs: 0.2 + 0.4 + 0.8 s between tries, one after the other. Longer absences are the loop's. */
const RETRY = { initialRetryTime: 200, multiplier: 2, factor: 0.2, maxRetryTime: 2_000, retries: 3 } as const;
/** One request to write, with all of kafkajs's tries. */
const WRITE_MS = 30_000;
/** Bytes of one batch that a topic takes unless it is told otherwise (max.message.bytes). */
const MESSAGE_BYTES = 1_048_588;
/** Bytes of one request to write: the records of one partition in it are one batch. */
const WRITE_BYTES = 900 * 1024;
/** What a record adds to its key, value and headers in a batch, at most (Kafka's record format v2). */
const RECORD_OVERHEAD = 70;
/** What a batch of one record adds to it: its header, its record and those of its headers. */
const BATCH_OVERHEAD = 256;
/** One in so many bytes: twice what gzip adds to what it cannot make smaller. */
const GZIP_SHARE = 2048;
const READ_TRIES = 6;
/** What a call for an answer (gaps, doctor) may take. */
const ASK_MS = 15_000;
/** Loading a group takes a broker some tenths of a second. */
const LOADING_MS = 100;

/** Dead letters are kept this long, if the topic is made here: long enough for a quarter's review, not for ever, since they hold customers' data. */
const DEAD_LETTER_RETENTION_MS = 90 * 24 * 3_600_000;

// ---- kafkajs's inside --------------------------------------------------------------------------------------------------

interface RequestQueue {
  throttledUntil: number;
  throttleCheckTimeoutId: NodeJS.Timeout | null;
  readonly pending: readonly unknown[];
  checkPendingRequests(): void;
}
interface PartitionData { readonly partition: number; readonly highWatermark: string; readonly messages: readonly KafkaMessage[] }
interface FetchedBatch { readonly messages: readonly KafkaMessage[]; readonly rawMessages: readonly unknown[]; lastOffset(): string }
interface ClusterBroker {
  readonly versions: Readonly<Record<number, { readonly minVersion: number; readonly maxVersion: number } | undefined>>;
  fetch(options: { maxWaitTime: number; minBytes: number; maxBytes: number; isolationLevel: number; topics: readonly { topic: string; partitions: readonly { partition: number; fetchOffset: string; maxBytes: number }[] }[] }): Promise<{ readonly responses: readonly { readonly partitions: readonly PartitionData[] }[] }>;
}
interface Cluster {
  connect(): Promise<void>;
  disconnect(): Promise<void>;
  addTargetTopic(topic: string): Promise<void>;
  refreshMetadata(): Promise<void>;
  getNodeIds(): readonly string[];
  findBroker(options: { nodeId: number | string }): Promise<ClusterBroker>;
  findTopicPartitionMetadata(topic: string): readonly { readonly partitionId: number; readonly leader: number }[];
  fetchTopicsOffset(topics: readonly { topic: string; fromBeginning: boolean; partitions: readonly { partition: number }[] }[]): Promise<readonly { readonly partitions: readonly { readonly partition: number; readonly offset: string }[] }[]>;
}
const inside = createRequire(import.meta.url);
const READ_COMMITTED = 1;
const PENDING_CHECK_MS = 10;

/**
 * kafkajs's request queue sets a timer of a negative time, which Node takes for 1 ms, after every response, and again when
 * it fires, for ever (KafkaJS issues 1751, 1604, 1556): 900 wake-ups a second and connection. What it is for, sending what
 * waits because the broker asked for a pause, needs a timer only while something waits. Called before any client is made;
 * a second time it changes nothing.
 */
export function containTimerFault(): void {
  const { prototype } = inside('kafkajs/src/network/requestQueue') as { readonly prototype: { scheduleCheckPendingRequests(this: RequestQueue): void } };
  prototype.scheduleCheckPendingRequests = function schedule() {
    if (this.pending.length === 0 || this.throttleCheckTimeoutId !== null) return;
    this.throttleCheckTimeoutId = setTimeout(() => {
      this.throttleCheckTimeoutId = null;
      this.checkPendingRequests();
    }, Math.max(this.throttledUntil - Date.now(), PENDING_CHECK_MS));
  };
}

/** Stands for a header without a value where something is handed to kafkajs to write. */
const NO_VALUE = Buffer.alloc(0);
const ENCODER = inside('kafkajs/src/protocol/encoder') as { readonly prototype: { writeVarIntBytes(value: unknown): unknown } };
const { writeVarIntBytes } = ENCODER.prototype;

/** kafkajs reads a header without a value and cannot write one: it measures what is null (`sizeOfHeaders`). An empty value takes as many bytes, so that it is measured, and what is written is none. */
function containHeaderFault(): void {
  ENCODER.prototype.writeVarIntBytes = function write(value) {
    return writeVarIntBytes.call(this, value === NO_VALUE ? null : value);
  };
}

/** kafkajs reads gzip alone; producers that compress otherwise are read too. */
function readCompressed(): void {
  const { CompressionCodecs, CompressionTypes } = kafkajs as unknown as { CompressionCodecs: Record<number, () => Codec>; CompressionTypes: Record<keyof typeof CODECS, number> };
  for (const [name, codec] of Object.entries(CODECS)) CompressionCodecs[CompressionTypes[name as keyof typeof CODECS]] = () => codec;
}

// ---- a client ----------------------------------------------------------------------------------------------------------

async function fileOf(file: string | null): Promise<string | undefined> {
  if (file === null) return undefined;
  try {
    return await readFile(file, 'utf8');
  } catch (cause) {
    throw new OperatingError('fileUnreadable', `a file that kafka's TLS needs cannot be read: ${file}`, { cause });
  }
}

interface Client { readonly kafka: Kafka; readonly config: KafkaConfig }

/** Opens no connection yet. */
async function clientOf(place: KafkaPlace, notices: Notices, retries: number = RETRY.retries): Promise<Client> {
  containTimerFault();
  containHeaderFault();
  readCompressed();
  const { tls } = place;
  const [ca, cert, key] = tls === null ? [] : await Promise.all([fileOf(tls.caFile), fileOf(tls.certFile), fileOf(tls.keyFile)]);
  const config: KafkaConfig = {
    clientId: 'throughline',
    brokers: [...place.brokers],
    connectionTimeout: CONNECT_MS, authenticationTimeout: CONNECT_MS, requestTimeout: REQUEST_MS,
    retry: { ...RETRY, retries },
    logLevel: kafkajs.logLevel.WARN,
    logCreator: () => ({ log }) => notices.tell(`kafka: ${log.message}`, noticeFields(log)),
    ...(tls === null ? {} : { ssl: { rejectUnauthorized: tls.verify, ...(ca === undefined ? {} : { ca }), ...(cert === undefined ? {} : { cert }), ...(key === undefined ? {} : { key }) } }),
    ...(place.sasl === null ? {} : { sasl: { mechanism: place.sasl.mechanism, username: place.sasl.username, password: place.sasl.password } as NonNullable<KafkaConfig['sasl']> }),
  };
  return { kafka: new kafkajs.Kafka(config), config };
}

const NOTICE_FIELDS = ['broker', 'topic', 'partition', 'groupId', 'retryCount'];
/** The named ones alone: kafkajs logs whole payloads and objects beside them. */
function noticeFields(log: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const fields = Object.fromEntries(NOTICE_FIELDS.flatMap((name) => (typeof log[name] === 'string' || typeof log[name] === 'number' ? [[name, log[name]]] : [])));
  return typeof log['error'] === 'string' ? { ...fields, error: log['error'] } : fields;
}

const isFault = (error: unknown): error is KafkaFault => error instanceof Error || (typeof error === 'object' && error !== null && 'message' in error);
/** kafkajs wraps errors: what stands at the bottom. */
function originalOf(error: unknown): KafkaFault {
  if (!isFault(error)) return { name: 'Error', message: String(error) };
  return isFault(error.cause) && error.cause !== error ? originalOf(error.cause) : error;
}
const MEMBERSHIP = new Set(['REBALANCE_IN_PROGRESS', 'ILLEGAL_GENERATION', 'UNKNOWN_MEMBER_ID', 'FENCED_INSTANCE_ID', 'NOT_COORDINATOR_FOR_GROUP']);
/** Not retriable in kafkajs's table, and passing all the same. */
const TRANSIENT = new Set([...MEMBERSHIP, 'BROKER_NOT_AVAILABLE', 'UNKNOWN']);

/** Whether trying again can help, by kafkajs's own rule for restarting and what it misjudges. */
function canPass(error: unknown): boolean {
  const original = originalOf(error);
  if (isCertificateFault(original)) return false;
  return original.retriable === true || TRANSIENT.has(original.type ?? '') || (isFault(error) && error.name === 'KafkaJSNumberOfRetriesExceeded');
}

function unavailable(what: string, cause: unknown): OperatingError {
  if (cause instanceof OperatingError) return cause;
  const original = originalOf(cause);
  // A listener without logins will not take one later.
  return new OperatingError(original.type === 'ILLEGAL_SASL_STATE' ? 'badConfiguration' : 'sourceUnavailable', `${what}: ${saidOf(original)}`, { cause });
}

/** Rejects after `ms`; what the work itself does then is nobody's any more. */
async function within<T>(ms: number, what: string, work: Promise<T>): Promise<T> {
  const over = new AbortController();
  work.catch(() => undefined);
  try {
    return await Promise.race([work, sleep(ms, over.signal).then((): never => { throw new OperatingError('sourceUnavailable', `${what}: no answer within ${ms} ms`); })]);
  } finally {
    over.abort();
  }
}
const quietly = (ms: number, work: Promise<unknown>): Promise<unknown> => within(ms, 'kafka', work).catch(() => undefined);

// ---- records -----------------------------------------------------------------------------------------------------------

function deliveryOf(topic: string, partition: number, message: KafkaMessage): Delivery {
  return { topic, partition, offset: message.offset, timestampMs: Number(message.timestamp), key: message.key, value: message.value, headers: headersOf(message.headers) };
}

const isText = (value: unknown): value is string | Uint8Array => value instanceof Uint8Array || typeof value === 'string';
/** As they come, but for what cannot be a header's value: kafkajs gives for a header called as a method of Object is (`toString`) that method as its first value. */
function headersOf(headers: IHeaders | undefined): Headers {
  if (headers === undefined) return {};
  for (const name of Object.keys(headers)) {
    if (isText(headers[name])) continue;
    return Object.fromEntries(Object.entries(headers).map(([each, value]) => {
      const values = (Array.isArray(value) ? value as readonly unknown[] : [value]).filter((one) => one === null || isText(one));
      return [each, values.length > 1 ? values : values[0]];
    }));
  }
  return headers;
}

/** kafkajs takes Buffers; other byte arrays it would spell as text. A view, no copy. */
function bufferOf(value: Uint8Array | string): Buffer {
  return typeof value === 'string' ? Buffer.from(value) : Buffer.isBuffer(value) ? value : Buffer.from(value.buffer, value.byteOffset, value.byteLength);
}
interface Message { readonly key: Buffer | null; readonly value: Buffer | null; readonly headers: Record<string, Buffer | Buffer[]>; readonly partition?: number }
function messageOf({ key, value, headers, partition }: OutgoingRecord): { readonly message: Message; readonly bytes: number } {
  let bytes = RECORD_OVERHEAD + (key?.length ?? 0) + (value?.length ?? 0);
  const written: [string, Buffer | Buffer[]][] = [];
  for (const [name, sent] of Object.entries(headers)) {
    const values = headerValues(sent).map((one) => (one === null ? NO_VALUE : bufferOf(one)));
    if (values.length === 0) continue;
    for (const one of values) bytes += Buffer.byteLength(name) + one.length + RECORD_OVERHEAD / 7;
    written.push([name, values.length === 1 ? values[0]! : values]);
  }
  return {
    message: { key: key === null ? null : bufferOf(key), value: value === null ? null : bufferOf(value), headers: Object.fromEntries(written), ...(partition === undefined ? {} : { partition }) },
    bytes,
  };
}

/** kafkajs sends a record for a partition that the topic does not have nowhere, and says that it was written. Such a record goes by its key. */
function partitionerOf(): ReturnType<typeof kafkajs.Partitioners.DefaultPartitioner> {
  const standard = kafkajs.Partitioners.DefaultPartitioner();
  return ({ topic, partitionMetadata, message: { partition, ...message } }) => {
    const isThere = partition !== undefined && partitionMetadata.some(({ partitionId }) => partitionId === partition);
    return standard({ topic, partitionMetadata, message: isThere ? { ...message, partition } : message });
  };
}

/** Requests of at most WRITE_BYTES, in order. */
function* requestsOf(records: readonly OutgoingRecord[]): Generator<{ readonly messages: readonly Message[]; readonly bytes: number }> {
  let messages: Message[] = [];
  let total = 0;
  for (const record of records) {
    const { message, bytes } = messageOf(record);
    if (total + bytes > WRITE_BYTES && messages.length > 0) {
      yield { messages, bytes: total };
      messages = [];
      total = 0;
    }
    messages.push(message);
    total += bytes;
  }
  if (messages.length > 0) yield { messages, bytes: total };
}

// ---- following ---------------------------------------------------------------------------------------------------------

/** One partition that is spoken for: a batch of it is under way, or it rests after `paused`. */
interface Lane {
  readonly partition: number;
  /** The membership that it was taken in: what it passes counts only as long as that stands. */
  readonly membership: number;
  readonly aborting: AbortController;
  /** Settles, never rejects, when its batch is handled. */
  done: Promise<void>;
  /** Lets the fetching go on though the batch is not done. */
  readonly leave: () => void;
  /** HOLD_MS have gone by. */
  long: boolean;
  /** Fetching goes on without it: its partition is paused. */
  left: boolean;
  rest: NodeJS.Timeout | null;
}

interface Times { readonly sessionMs: number; readonly heartbeatMs: number; readonly awayMs: number; readonly hangMs: number; readonly holdMs: number; readonly stopMs: number }
interface FollowOptions { readonly kafka: Kafka; readonly place: KafkaPlace; readonly notices: Notices; readonly times: Times; readonly signal: AbortSignal; readonly handle: (batch: DeliveryBatch) => Promise<Handled> }

/**
 * One `follow`: consumer after consumer until it is told to stop or cannot go on.
 *
 * How a batch goes: kafkajs calls `#take` for each partition of a fetch and fetches again when all have returned. `#take`
 * waits for the batch, at most HOLD_MS while another partition could be fetched instead; then it pauses the partition and
 * returns, and when the batch is done, its partition is resolved and resumed. At any time a partition has one lane at most,
 * also over a rebalance or another consumer: a fetch of a partition that has one is put aside, and comes again.
 *
 * What is passed is committed by whoever holds the membership that it was delivered in. The broker refuses a commit of an
 * older generation; that is how a consumer that was frozen learns that it is out.
 */
class Following {
  readonly #kafka: Kafka;
  readonly #place: KafkaPlace;
  readonly #notices: Notices;
  readonly #times: Times;
  readonly #handle: FollowOptions['handle'];
  /** Aborts when the follow is to end, for whatever reason. */
  readonly #ending = new AbortController();
  readonly #lanes = new Map<number, Lane>();
  /** Partition → offset of the next record wanted. */
  readonly #uncommitted = new Map<number, string>();
  #consumer: Consumer | null = null;
  #heartbeat: (() => Promise<void>) | null = null;
  #membership = 0;
  #assigned: readonly number[] = [];
  #committing: Promise<void> | null = null;
  #commitTimer: NodeJS.Timeout | null = null;
  #fault: { readonly error: unknown } | null = null;
  /** Ticks since the broker last answered, and since that or the last fault or start. */
  #silent = 0;
  #still = 0;
  #heard = 0;
  /** Ticks since this consumer was begun. */
  #age = 0;
  /** What the last consumer, or a request of this one, ended with; null once the broker has answered again. */
  #met: string | null = null;

  constructor({ kafka, place, notices, times, signal, handle }: FollowOptions) {
    this.#kafka = kafka;
    this.#place = place;
    this.#notices = notices;
    this.#times = times;
    this.#handle = handle;
    signal.addEventListener('abort', () => this.#end(), { once: true });
  }

  get assigned(): readonly number[] { return this.#assigned; }

  trouble(): string | null {
    const why = this.#met ?? (this.#silent * TICK_MS >= QUIET_MS ? 'the brokers do not answer' : null);
    return why === null ? null : `the topic cannot be read since ${this.#silent} s: ${why}`;
  }

  async run(): Promise<void> {
    const watch = setInterval(() => this.#tick(), TICK_MS);
    try {
      let backoff = RETRY_FIRST_MS;
      while (!this.#over()) {
        this.#still = 0;
        this.#age = 0;
        const error = await this.#attend();
        if (this.#over()) break;
        const fatal = this.#fatal(error);
        if (fatal !== null) throw fatal;
        backoff = this.#age * TICK_MS >= SESSION_MS ? RETRY_FIRST_MS : Math.min(backoff * 2, RETRY_MAX_MS);
        this.#met = saidOf(originalOf(error));
        this.#notices.tell('kafka: the consumer ended and is begun again', { topic: this.#place.topic, error: this.#met, waitMs: backoff });
        await sleep(backoff, this.#ending.signal);
      }
    } finally {
      clearInterval(watch);
      this.#end();
      await this.#handled();
    }
    if (this.#fault !== null) throw this.#fault.error;
  }

  /** Why another consumer would not help, if so. */
  #fatal(error: unknown): OperatingError | null {
    const what = `kafka topic ${this.#place.topic}`;
    if (!canPass(error)) return unavailable(what, error);
    const silentMs = this.#silent * TICK_MS;
    if (silentMs >= this.#times.awayMs) return unavailable(`${what}: no answer from the brokers for ${Math.round(silentMs / 1000)} s`, error);
    if (originalOf(error).type === 'UNKNOWN_TOPIC_OR_PARTITION' && silentMs >= Math.min(MISSING_MS, this.#times.awayMs)) return unavailable(what, error);
    return null;
  }

  #tick(): void {
    this.#silent += 1;
    this.#still += 1;
    this.#age += 1;
    if (this.#notices.heard !== this.#heard) this.#still = 0;
    this.#heard = this.#notices.heard;
    if (this.#still * TICK_MS < this.#times.hangMs) return;
    this.#fail(new OperatingError('sourceUnavailable', `kafka topic ${this.#place.topic}: the consumer hangs: neither an answer nor an error for ${Math.round(this.#times.hangMs / 1000)} s`));
  }
  #sign(): void {
    this.#silent = 0;
    this.#still = 0;
    this.#met = null;
  }

  #fail(error: unknown): void {
    this.#fault ??= { error };
    this.#end();
  }

  #over(): boolean {
    return this.#ending.signal.aborted;
  }

  /** Nothing new is taken, and what is under way is told. */
  #end(): void {
    this.#ending.abort();
    this.#dropped();
    for (const lane of this.#lanes.values()) if (lane.rest !== null) this.#release(lane);
    // Paused as a whole, so that kafkajs does not turn in circles over what nobody takes while the last batches are handled.
    this.#told((consumer) => consumer.pause([{ topic: this.#place.topic }]));
  }

  async #handled(): Promise<void> {
    while (this.#lanes.size > 0) await Promise.all([...this.#lanes.values()].map(({ done }) => done));
  }

  // ---- a consumer ----

  /** One consumer's life: resolves with the error that ended it, or null when told to end; then it has left its group. */
  async #attend(): Promise<unknown> {
    const { sessionMs, heartbeatMs, stopMs } = this.#times;
    const consumer = this.#kafka.consumer({
      groupId: this.#place.group, sessionTimeout: sessionMs, rebalanceTimeout: REBALANCE_MS, heartbeatInterval: heartbeatMs,
      maxBytesPerPartition: PARTITION_BYTES, maxBytes: FETCH_BYTES, minBytes: 1, maxWaitTimeInMs: FETCH_WAIT_MS, allowAutoTopicCreation: false,
      retry: { ...RETRY, restartOnFailure: async () => false },
    });
    this.#consumer = consumer;
    const over = Promise.withResolvers<unknown>();
    this.#listen(consumer, over.resolve);
    const starting = this.#start(consumer).catch(over.resolve);
    const beating = setInterval(() => void this.#beat(), heartbeatMs / 2);
    const ended = new Promise<null>((resolve) => {
      if (this.#over()) resolve(null);
      this.#ending.signal.addEventListener('abort', () => resolve(null), { once: true });
    });
    const error = await Promise.race([over.promise, ended]);
    if (error === null) {
      await this.#handled();
      await quietly(stopMs, this.#flush());
    }
    clearInterval(beating);
    this.#moved([]);
    this.#consumer = null;
    this.#heartbeat = null;
    // A consumer that is disconnected while it joins would go on as if it were not (kafkajs's runner looks only before).
    await quietly(stopMs, starting);
    const gone = starting.then(() => consumer.disconnect());
    await quietly(stopMs, gone);
    return error;
  }

  async #start(consumer: Consumer): Promise<void> {
    await consumer.connect();
    await consumer.subscribe({ topics: [this.#place.topic], fromBeginning: true });
    if (this.#over()) return;
    await consumer.run({ autoCommit: false, eachBatchAutoResolve: false, partitionsConsumedConcurrently: CONCURRENT_PARTITIONS, eachBatch: (payload) => this.#take(payload) });
  }

  #listen(consumer: Consumer, crashed: (error: unknown) => void): void {
    const { events } = consumer;
    const current = (listener: () => void) => () => {
      if (this.#consumer === consumer) listener();
    };
    consumer.on(events.CRASH, ({ payload }) => crashed(payload.error));
    for (const event of [events.FETCH, events.HEARTBEAT, events.COMMIT_OFFSETS] as const) consumer.on(event as typeof events.FETCH, current(() => this.#sign()));
    // What holds nothing but the marks of transactions, or aborted ones, is never handed over: kafkajs passes it by, and the group's place moves along.
    consumer.on(events.END_BATCH_PROCESS, ({ payload }) => {
      if (this.#consumer === consumer && payload.batchSize === 0) this.#commitSoon(payload.partition, String(BigInt(payload.lastOffset) + 1n));
    });
    // The consumer tries again by itself, for longer than an operator should wait to learn of a broker that is frozen.
    consumer.on(events.REQUEST_TIMEOUT, ({ payload: { broker } }) => { if (this.#consumer === consumer) this.#met = `the broker ${broker} does not answer`; });
    consumer.on(events.REBALANCING, current(() => this.#dropped()));
    consumer.on(events.GROUP_JOIN, ({ payload }) => {
      if (this.#consumer !== consumer) return;
      this.#sign();
      this.#notices.well();
      this.#moved(payload.memberAssignment[this.#place.topic] ?? []);
      for (const { partition } of this.#lanes.values()) this.#told(() => consumer.pause([{ topic: this.#place.topic, partitions: [partition] }]));
    });
  }

  /** Pausing and resuming where there may be no consumer running: then there is nothing to pause. */
  #told(change: (consumer: Consumer) => void): void {
    if (this.#consumer === null) return;
    try {
      change(this.#consumer);
    } catch (error) {
      if (originalOf(error).name !== 'KafkaJSNonRetriableError') throw error;
    }
  }

  /** A new membership: what was taken in the one before counts no more, and is told so. */
  #moved(assigned: readonly number[]): void {
    this.#dropped();
    this.#membership += 1;
    this.#assigned = assigned;
    this.#uncommitted.clear();
  }

  /** This consumer is out, or about to be: what is under way may finish within GRACE_MS and be committed. */
  #dropped(): void {
    for (const lane of this.#lanes.values()) {
      if (lane.aborting.signal.aborted) continue;
      lane.aborting.abort();
      setTimeout(lane.leave, GRACE_MS).unref();
    }
  }

  /** While kafkajs waits for a batch, nobody else asks for heartbeats. It sends one only when one is due. */
  async #beat(): Promise<void> {
    if (this.#lanes.size === 0) return;
    try {
      await this.#heartbeat?.();
    } catch (error) {
      // Others are kafkajs's own to find: its next request meets them too.
      if (MEMBERSHIP.has(originalOf(error).type ?? '')) this.#dropped();
    }
  }

  // ---- a batch ----

  async #take(payload: EachBatchPayload): Promise<void> {
    const { partition } = payload.batch;
    this.#heartbeat = payload.heartbeat;
    if (this.#over() || this.#lanes.has(partition)) {
      payload.pause();
      return;
    }
    const leaving = Promise.withResolvers<'left'>();
    const lane: Lane = { partition, membership: this.#membership, aborting: new AbortController(), done: Promise.resolve(), leave: () => leaving.resolve('left'), long: false, left: false, rest: null };
    this.#lanes.set(partition, lane);
    const long = setTimeout(() => {
      lane.long = true;
      this.#review();
    }, this.#times.holdMs);
    lane.done = this.#work(lane, payload).finally(() => {
      clearTimeout(long);
      this.#review();
    });
    const how = await Promise.race([lane.done.then(() => 'done' as const), leaving.promise]);
    if (how === 'done' || lane.membership !== this.#membership) return;
    lane.left = true;
    payload.pause();
  }

  /** Who has been waited for long is left to itself, if another partition could be fetched meanwhile. */
  #review(): void {
    let left = 0;
    for (const lane of this.#lanes.values()) if (lane.left && lane.rest === null) left += 1;
    for (const lane of this.#lanes.values()) {
      if (lane.left || !lane.long || lane.rest !== null) continue;
      if (left >= MAX_LEFT || this.#lanes.size >= this.#assigned.length) return;
      lane.leave();
      left += 1;
    }
  }

  async #work(lane: Lane, payload: EachBatchPayload): Promise<void> {
    const { batch } = payload;
    const deliveries = batch.messages.map((message) => deliveryOf(batch.topic, batch.partition, message));
    const last = deliveries.length - 1;
    let passed = -1;
    /** The last record stands for what follows it in the batch and is never delivered: the marks of transactions. */
    const offsetOf = (index: number): string => (index === last ? batch.lastOffset() : deliveries[index]!.offset);
    const given: DeliveryBatch = {
      topic: batch.topic, partition: batch.partition, deliveries, gap: Number(batch.offsetLag()), signal: lane.aborting.signal,
      passed: (index) => {
        assert(Number.isInteger(index) && index >= 0 && index <= last, `no delivery ${index} in a batch of ${deliveries.length}`);
        if (index <= passed) return;
        passed = index;
        if (lane.membership === this.#membership) this.#commitSoon(lane.partition, String(BigInt(offsetOf(index)) + 1n));
      },
    };
    let restMs = 0;
    try {
      const handled = await this.#handle(given);
      if (handled.kind === 'paused') restMs = handled.ms;
      else if (passed < 0) restMs = NO_PROGRESS_MS;
    } catch (error) {
      this.#fail(error);
    }
    // kafkajs itself goes beyond the last record of the batch when that is resolved.
    if (lane.membership === this.#membership && passed >= 0) payload.resolveOffset(deliveries[passed]!.offset);
    if (restMs > 0 && passed < last && !this.#over()) this.#rest(lane, restMs);
    else this.#release(lane);
  }

  #rest(lane: Lane, ms: number): void {
    lane.left = true;
    this.#told((consumer) => consumer.pause([{ topic: this.#place.topic, partitions: [lane.partition] }]));
    lane.rest = setTimeout(() => this.#release(lane), ms);
  }

  #release(lane: Lane): void {
    if (lane.rest !== null) clearTimeout(lane.rest);
    this.#lanes.delete(lane.partition);
    if (!this.#over()) this.#told((consumer) => consumer.resume([{ topic: this.#place.topic, partitions: [lane.partition] }]));
  }

  // ---- commits ----

  #commitSoon(partition: number, next: string): void {
    this.#uncommitted.set(partition, next);
    if (this.#committing !== null) return;
    this.#commitTimer ??= setTimeout(() => void this.#commit(), COMMIT_MS);
  }

  /** One at a time, for all partitions that have something: a later one could otherwise be overtaken by an earlier one. */
  #commit(): Promise<void> {
    if (this.#commitTimer !== null) clearTimeout(this.#commitTimer);
    this.#commitTimer = null;
    this.#committing ??= this.#commitNow().finally(() => {
      this.#committing = null;
      if (this.#uncommitted.size > 0 && this.#consumer !== null) this.#commitTimer ??= setTimeout(() => void this.#commit(), COMMIT_MS);
    });
    return this.#committing;
  }

  async #commitNow(): Promise<void> {
    const consumer = this.#consumer;
    const membership = this.#membership;
    const offsets = [...this.#uncommitted].map(([partition, offset]) => ({ topic: this.#place.topic, partition, offset }));
    if (consumer === null || offsets.length === 0) return;
    this.#uncommitted.clear();
    try {
      await consumer.commitOffsets(offsets);
    } catch (error) {
      if (membership !== this.#membership) return;
      if (MEMBERSHIP.has(originalOf(error).type ?? '')) this.#dropped();
      for (const { partition, offset } of offsets) if (!this.#uncommitted.has(partition)) this.#uncommitted.set(partition, offset);
    }
  }

  /** Everything that is passed, as far as the broker takes it. */
  async #flush(): Promise<void> {
    if (this.#committing !== null) await this.#committing;
    await this.#commit();
    if (this.#commitTimer !== null) clearTimeout(this.#commitTimer);
    this.#commitTimer = null;
  }
}

// ---- the source --------------------------------------------------------------------------------------------------------

/**
 * A consumer group's member on `place.topic`; a group that is new begins with the first record kept. Connects when it is
 * first used. What is passed is committed within a tenth of a second, and before `follow` resolves.
 */
export async function openKafkaSource(place: KafkaPlace, told: { readonly onNotice: OnNotice }, times: KafkaTimes = {}): Promise<Source> {
  const notices = new Notices(told.onNotice);
  const { kafka } = await clientOf(place, notices);
  return new KafkaSource(kafka, place, notices, { sessionMs: SESSION_MS, heartbeatMs: HEARTBEAT_MS, awayMs: AWAY_MS, hangMs: HANG_MS, holdMs: HOLD_MS, stopMs: STOP_MS, ...times });
}

class KafkaSource implements Source {
  readonly #kafka: Kafka;
  readonly #place: KafkaPlace;
  readonly #notices: Notices;
  readonly #times: Times;
  readonly #closing = new AbortController();
  #following: { readonly follower: Following; readonly ended: Promise<void> } | null = null;
  #admin: Promise<Admin> | null = null;

  constructor(kafka: Kafka, place: KafkaPlace, notices: Notices, times: Times) {
    this.#kafka = kafka;
    this.#place = place;
    this.#notices = notices;
    this.#times = times;
  }

  async follow({ signal, handle }: Parameters<Source['follow']>[0]): Promise<void> {
    assert(this.#following === null, 'a source is followed once at a time');
    const until = AbortSignal.any([signal, this.#closing.signal]);
    if (until.aborted) return;
    const follower = new Following({ kafka: this.#kafka, place: this.#place, notices: this.#notices, times: this.#times, signal: until, handle });
    this.#following = { follower, ended: follower.run() };
    try {
      await this.#following.ended;
    } finally {
      this.#following = null;
    }
  }

  assigned(): readonly { readonly topic: string; readonly partition: number }[] {
    return (this.#following?.follower.assigned ?? []).map((partition) => ({ topic: this.#place.topic, partition }));
  }

  trouble(): string | null { return this.#following?.follower.trouble() ?? null; }

  async gaps(): Promise<readonly { readonly partition: number; readonly gap: number }[]> {
    const { topic, group } = this.#place;
    const what = `kafka topic ${topic}`;
    try {
      return await within(ASK_MS, what, (async () => {
        const admin = await this.#asking();
        const [heads, [committed]] = await Promise.all([admin.fetchTopicOffsets(topic), committedOffsets(admin, group, topic)]);
        const next = new Map(committed?.partitions.map(({ partition, offset }) => [partition, BigInt(offset)]));
        return heads.map(({ partition, high, low }) => {
          // Negative where the group has committed nothing; below `low` where retention was faster: either way the first one kept is next.
          const at = next.get(partition) ?? -1n;
          return { partition, gap: Number(BigInt(high) - (at < BigInt(low) ? BigInt(low) : at)) };
        }).map(({ partition, gap }) => ({ partition, gap: Math.max(gap, 0) })).sort((a, b) => a.partition - b.partition);
      })());
    } catch (error) {
      throw unavailable(what, error);
    }
  }

  /** One connection, kept: an idle one costs nothing. */
  #asking(): Promise<Admin> {
    this.#admin ??= connectedAdmin(this.#kafka).catch((error: unknown) => {
      this.#admin = null;
      throw error;
    });
    return this.#admin;
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await this.#following?.ended.catch(() => undefined);
    const admin = this.#admin;
    this.#admin = null;
    if (admin !== null) await quietly(STOP_MS, admin.then((connected) => connected.disconnect()));
  }
}

/** A broker that has just started, or taken a group over, loads what the group committed first, and says so until it has; one that gave it away is asked before that is known here. */
const PASSING = new Set<unknown>(['GROUP_LOAD_IN_PROGRESS', 'NOT_COORDINATOR_FOR_GROUP', 'GROUP_COORDINATOR_NOT_AVAILABLE']);
async function committedOffsets(admin: Admin, groupId: string, topic: string): ReturnType<Admin['fetchOffsets']> {
  for (let waitedMs = 0; ; waitedMs += LOADING_MS) {
    try {
      return await admin.fetchOffsets({ groupId, topics: [topic] });
    } catch (error) {
      if (!PASSING.has((error as { readonly type?: string }).type) || waitedMs >= ASK_MS) throw error;
      await new Promise((resolve) => { setTimeout(resolve, LOADING_MS); });
    }
  }
}

async function connectedAdmin(kafka: Kafka): Promise<Admin> {
  const admin = kafka.admin();
  await admin.connect();
  return admin;
}

// ---- a topic -----------------------------------------------------------------------------------------------------------

/** Connects when it is first used, one connection each for writing and reading. */
export async function openKafkaTopic(place: KafkaPlace, name: string, told: { readonly onNotice: OnNotice } = { onNotice: SILENT }): Promise<Topic> {
  return new KafkaTopic(await clientOf(place, new Notices(told.onNotice)), name);
}

/** Asked anew: it may have changed while the reader had what was yielded. */
const hasAborted = (signal: AbortSignal): boolean => signal.aborted;

interface Range { readonly partition: number; readonly low: bigint; readonly high: bigint }

class KafkaTopic implements Topic {
  readonly name: string;
  readonly #client: Client;
  #producer: Promise<Producer> | null = null;
  #cluster: Promise<Cluster> | null = null;

  constructor(client: Client, name: string) {
    this.#client = client;
    this.name = name;
  }

  /**
   * Requests of bounded size, one after the other, so that the order per partition holds through kafkajs's own retries. Not
   * idempotent: kafkajs's sequence numbers go astray when a request fails (its issues 1166, 598), and a record written twice
   * is recognised by whoever reads (a redelivery, a dead letter's origin).
   */
  async write(records: readonly OutgoingRecord[]): Promise<void> {
    for (const { messages, bytes } of requestsOf(records)) {
      // Larger than a request should be: one record that needs all of it. What was compressed when it came must fit again.
      const compression = bytes > WRITE_BYTES ? kafkajs.CompressionTypes.GZIP : kafkajs.CompressionTypes.None;
      await this.#ask(WRITE_MS, async () => {
        const producer = await this.#writing();
        await producer.send({ topic: this.name, acks: -1, timeout: REQUEST_MS, compression, messages: messages as Message[] });
      });
    }
  }

  async #ask<T>(ms: number, work: () => Promise<T>): Promise<T> {
    const what = `kafka topic ${this.name}`;
    try {
      return await within(ms, what, work());
    } catch (error) {
      throw unavailable(what, error);
    }
  }

  #writing(): Promise<Producer> {
    this.#producer ??= (async () => {
      const producer = this.#client.kafka.producer({ allowAutoTopicCreation: false, createPartitioner: partitionerOf, retry: RETRY });
      await producer.connect();
      return producer;
    })().catch((error: unknown) => {
      this.#producer = null;
      throw error;
    });
    return this.#producer;
  }

  async look(): Promise<TopicLook | null> {
    const admin = this.#client.kafka.admin();
    try {
      return await this.#ask(ASK_MS, async () => {
        await admin.connect();
        if (await shapeOf(admin, this.name) === null) return null;
        const taken = Number((await settingsOf(admin, kafkajs.ConfigResourceTypes.TOPIC, this.name, ['max.message.bytes']))?.get('max.message.bytes') ?? MESSAGE_BYTES);
        return { recordBytes: Math.max(0, taken - Math.ceil(taken / GZIP_SHARE) - BATCH_OVERHEAD) };
      });
    } finally {
      await quietly(STOP_MS, admin.disconnect());
    }
  }

  /** A partition after the other, without a consumer group; memory holds one fetch. */
  async *read({ signal }: { readonly signal: AbortSignal }): AsyncIterable<readonly Delivery[]> {
    if (signal.aborted) return;
    const ranges = await this.#ask(ASK_MS, async () => rangesOf(await this.#reading(), this.name));
    for (const { partition, low, high } of ranges) {
      let next = low;
      while (next < high) {
        const fetched = await this.#fetch(partition, next, high);
        next = fetched.next;
        if (fetched.deliveries.length > 0) yield fetched.deliveries;
        if (hasAborted(signal)) return;
      }
    }
  }

  #reading(): Promise<Cluster> {
    this.#cluster ??= connectedCluster(this.#client).catch((error: unknown) => {
      this.#cluster = null;
      throw error;
    });
    return this.#cluster;
  }

  /** Tries again over a leader's change and a broker's absence; what retention took away meanwhile is stepped over. */
  async #fetch(partition: number, next: bigint, high: bigint): Promise<{ readonly deliveries: readonly Delivery[]; readonly next: bigint }> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        const fetched = await within(ASK_MS, 'kafka', fetchOnce(await this.#reading(), this.name, { partition, low: next, high }));
        if (fetched !== null) return fetched;
      } catch (error) {
        if (originalOf(error).type === 'OFFSET_OUT_OF_RANGE') {
          const kept = (await this.#ask(ASK_MS, async () => rangesOf(await this.#reading(), this.name))).find((range) => range.partition === partition)?.low ?? high;
          if (kept > next) return { deliveries: [], next: kept };
        }
        if (attempt >= READ_TRIES || (!canPass(error) && !(error instanceof OperatingError))) throw unavailable(`kafka topic ${this.name}`, error);
        await quietly(ASK_MS, this.#reading().then((cluster) => cluster.refreshMetadata()));
      }
      if (attempt >= READ_TRIES) throw new OperatingError('sourceUnavailable', `kafka topic ${this.name}: partition ${partition} ends before ${high}, where it ended when the reading began`);
      await sleep(RETRY_FIRST_MS * attempt);
    }
  }

  async close(): Promise<void> {
    const [producer, cluster] = [this.#producer, this.#cluster];
    this.#producer = null;
    this.#cluster = null;
    await quietly(STOP_MS, Promise.all([producer?.then((one) => one.disconnect()), cluster?.then((one) => one.disconnect())]));
  }
}

async function connectedCluster({ kafka, config }: Client): Promise<Cluster> {
  const ClusterOf = inside('kafkajs/src/cluster') as new (options: object) => Cluster;
  const cluster = new ClusterOf({
    ...config, logger: kafka.logger(), socketFactory: (inside('kafkajs/src/network/socketFactory') as () => unknown)(),
    metadataMaxAge: AWAY_MS, allowAutoTopicCreation: false, maxInFlightRequests: null, isolationLevel: READ_COMMITTED, enforceRequestTimeout: true, offsets: new Map(),
  });
  await cluster.connect();
  return cluster;
}

/** First record kept and head per partition, those that hold nothing left out. The head is the last stable offset: what an open transaction holds back has not been said yet. */
async function rangesOf(cluster: Cluster, topic: string): Promise<readonly Range[]> {
  await cluster.addTargetTopic(topic);
  await cluster.refreshMetadata();
  const partitions = cluster.findTopicPartitionMetadata(topic).map(({ partitionId }) => ({ partition: partitionId }));
  const [[heads], [firsts]] = await Promise.all([false, true].map((fromBeginning) => cluster.fetchTopicsOffset([{ topic, fromBeginning, partitions }]))) as [[{ partitions: { partition: number; offset: string }[] }], [{ partitions: { partition: number; offset: string }[] }]];
  const low = new Map(firsts.partitions.map(({ partition, offset }) => [partition, BigInt(offset)]));
  return heads.partitions.map(({ partition, offset }) => ({ partition, low: low.get(partition) ?? 0n, high: BigInt(offset) }))
    .filter((range) => range.low < range.high).sort((a, b) => a.partition - b.partition);
}

/** Null: the broker that answered does not have so much of the partition yet (it has just become its leader). */
async function fetchOnce(cluster: Cluster, topic: string, { partition, low: next, high }: Range): Promise<{ readonly deliveries: readonly Delivery[]; readonly next: bigint } | null> {
  const leader = cluster.findTopicPartitionMetadata(topic).find(({ partitionId }) => partitionId === partition)?.leader;
  const broker = await cluster.findBroker({ nodeId: leader ?? -1 });
  const { responses } = await broker.fetch({
    maxWaitTime: FETCH_WAIT_MS, minBytes: 1, maxBytes: PARTITION_BYTES, isolationLevel: READ_COMMITTED,
    topics: [{ topic, partitions: [{ partition, fetchOffset: String(next), maxBytes: PARTITION_BYTES }] }],
  });
  const data = responses[0]?.partitions[0];
  if (data === undefined) return null;
  const BatchOf = inside('kafkajs/src/consumer/batch') as new (topic: string, offset: string, data: PartitionData) => FetchedBatch;
  const batch = new BatchOf(topic, String(next), data);
  // Nothing at all below a head that the broker knows: what stood here was compacted away, or is the mark of a transaction.
  if (batch.rawMessages.length === 0) return BigInt(data.highWatermark) >= high ? { deliveries: [], next: high } : null;
  const deliveries = batch.messages.map((message) => deliveryOf(topic, partition, message)).filter(({ offset }) => BigInt(offset) < high);
  const after = BigInt(batch.lastOffset()) + 1n;
  return { deliveries, next: after > next ? after : next + 1n };
}

// ---- topics made and looked at -----------------------------------------------------------------------------------------

async function shapeOf(admin: Admin, topic: string): Promise<TopicShape | null> {
  try {
    const { topics: [found] } = await admin.fetchTopicMetadata({ topics: [topic] });
    if (found === undefined || found.partitions.length === 0) return null;
    return { partitions: found.partitions.length, replicas: Math.min(...found.partitions.map(({ replicas }) => replicas.length)), inSync: Math.min(...found.partitions.map(({ isr }) => isr.length)) };
  } catch (error) {
    if (originalOf(error).type === 'UNKNOWN_TOPIC_OR_PARTITION') return null;
    throw error;
  }
}

/** Settings of a topic or a broker by name; null where we may not see them. */
async function settingsOf(admin: Admin, type: ConfigResourceTypes, name: string, names: readonly string[]): Promise<ReadonlyMap<string, string> | null> {
  try {
    const { resources } = await admin.describeConfigs({ includeSynonyms: false, resources: [{ type, name, configNames: [...names] }] });
    return new Map(resources[0]?.configEntries.map(({ configName, configValue }) => [configName, configValue]));
  } catch {
    return null;
  }
}
const TOPIC_SETTINGS = ['retention.ms', 'retention.bytes', 'cleanup.policy', 'max.message.bytes', 'min.insync.replicas', 'unclean.leader.election.enable'];

/**
 * Makes the topic when it is missing. `as source`: with as many partitions and replicas as the place's own topic, room in a
 * record for what a dead letter has more, and a retention of its own. Nothing is changed of a topic that is there.
 */
export async function ensureKafkaTopic(place: KafkaPlace, name: string, partitions: number | 'as source'): Promise<void> {
  // Who cannot be reached at all has nothing to do with this topic.
  let what = 'kafka';
  const { kafka } = await clientOf(place, new Notices(SILENT));
  const admin = kafka.admin();
  try {
    await within(WRITE_MS, what, (async () => {
      await admin.connect();
      what = `kafka topic ${name}`;
      if (await shapeOf(admin, name) !== null) return;
      const source = await shapeOf(admin, place.topic);
      if (partitions === 'as source' && source === null) throw new OperatingError('sourceUnavailable', `kafka topic ${place.topic}: there is no such topic; create it, or check its name`);
      const { brokers } = await admin.describeCluster();
      const taken = Number((await settingsOf(admin, kafkajs.ConfigResourceTypes.TOPIC, place.topic, TOPIC_SETTINGS))?.get('max.message.bytes') ?? MESSAGE_BYTES);
      const configEntries = partitions !== 'as source' ? [] : [
        { name: 'cleanup.policy', value: 'delete' },
        { name: 'retention.ms', value: String(DEAD_LETTER_RETENTION_MS) },
        { name: 'max.message.bytes', value: String(taken + DEAD_LETTER_ROOM) },
      ];
      // False where it is there by now: another of us made it.
      await admin.createTopics({
        waitForLeaders: true, timeout: REQUEST_MS,
        topics: [{ topic: name, numPartitions: partitions === 'as source' ? source?.partitions ?? 1 : partitions, replicationFactor: source?.replicas ?? Math.min(brokers.length, 3), configEntries }],
      });
    })());
  } catch (error) {
    throw unavailable(what, error);
  } finally {
    await quietly(STOP_MS, admin.disconnect());
  }
}

/** What `doctor` says of the brokers, the topic and its dead-letter topic. */
export async function examineKafka(place: KafkaPlace): Promise<readonly Finding[]> {
  let client: Client;
  try {
    client = await clientOf(place, new Notices(SILENT), 1);
  } catch (error) {
    return [unreadableFinding(originalOf(error).message)];
  }
  const opened: { disconnect(): Promise<void> }[] = [];
  try {
    return await within(WRITE_MS, 'kafka', (async () => {
      const cluster = await connectedCluster(client);
      opened.push(cluster);
      const admin = await connectedAdmin(client.kafka);
      opened.push(admin);
      const { brokers } = await admin.describeCluster();
      await cluster.refreshMetadata();
      return [
        well('reachable', `${brokers.length} broker${brokers.length === 1 ? '' : 's'}`),
        ...versionFindings((await cluster.findBroker({ nodeId: cluster.getNodeIds()[0] ?? '' })).versions),
        ...topicFindings(await topicsOf(admin, place), brokers.length),
        ...brokerFindings(await settingsOf(admin, kafkajs.ConfigResourceTypes.BROKER, String(brokers[0]?.nodeId ?? 0), ['auto.create.topics.enable'])),
      ];
    })());
  } catch (error) {
    return [unreachableFinding(originalOf(error))];
  } finally {
    await Promise.all(opened.map((one) => quietly(STOP_MS, one.disconnect())));
  }
}

async function topicsOf(admin: Admin, place: KafkaPlace): Promise<TopicsFound> {
  const found = async (name: string): Promise<TopicFound> => {
    const shape = await shapeOf(admin, name);
    return { name, shape, settings: shape === null ? null : await settingsOf(admin, kafkajs.ConfigResourceTypes.TOPIC, name, TOPIC_SETTINGS) };
  };
  return { source: await found(place.topic), deadLetters: await found(`${place.topic}.dead-letter`) };
}
