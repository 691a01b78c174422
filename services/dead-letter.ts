// The form of a dead letter: the record that was rejected, its bytes, key and headers untouched, and beside them why. The
// headers are those of Kafka Connect's dead letter queues, so that tools which show those show these; what is ours alone
// begins with `throughline.`. Written by ingest, read by the operator's verbs.
import { z } from 'zod';
import { decodeMessage, headerValues, type Headers, type Rejection, type RejectionCode } from '../schemas/cloudevent.ts';
import type { DeliveryOrigin } from '../schemas/recorded.ts';
import type { Delivery, OutgoingRecord } from './ports.ts';

/** The topic of the dead letters of a topic. */
export function deadLetterTopicOf(topic: string): string { return `${topic}.dead-letter`; }

/** `<topic>/<partition>/<offset>`: how dead letters are named and counted, since a crash may have one written twice. */
export function coordinatesOf({ topic, partition, offset }: DeliveryOrigin): string { return `${topic}/${String(partition)}/${offset}`; }

/** Every header that we add, on every dead letter, so that what the record had of the same names can be told from ours: ours is the last. */
const NAMES = {
  topic: '__connect.errors.topic',
  partition: '__connect.errors.partition',
  offset: '__connect.errors.offset',
  connector: '__connect.errors.connector.name',
  stage: '__connect.errors.stage',
  class: '__connect.errors.class.name',
  exception: '__connect.errors.exception.class.name',
  message: '__connect.errors.exception.message',
  code: 'throughline.code',
  attribute: 'throughline.attribute',
} as const;
type Said = Readonly<Record<keyof typeof NAMES, string>>;
const FIELDS = Object.entries(NAMES) as readonly (readonly [keyof Said, string])[];

/** Kafka Connect's own names of stages: reading the record's value, and handing it on. */
export type Stage = 'VALUE_CONVERTER' | 'TASK_PUT';
/** What is judged once the event has been read; everything else is found in reading it. */
const JUDGED_AFTER_READING: ReadonlySet<RejectionCode> = new Set(['wrongWorkspace', 'missingIdentity', 'emptyIdentity', 'erased']);
const stageOf = (code: RejectionCode): Stage => (JUDGED_AFTER_READING.has(code) ? 'TASK_PUT' : 'VALUE_CONVERTER');

/** The record to write to the dead-letter topic, on the partition that it came from. No value of the event stands in what is added (see Rejection). */
export function toDeadLetter(delivery: Delivery, { code, attribute, reason }: Rejection): OutgoingRecord {
  const said: Said = {
    topic: delivery.topic, partition: String(delivery.partition), offset: delivery.offset, connector: 'throughline', stage: stageOf(code),
    class: 'org.throughline.Ingest', exception: `org.throughline.Rejected.${code}`, message: reason, code, attribute: attribute ?? '',
  };
  const headers: Record<string, Headers[string]> = { ...delivery.headers };
  for (const [field, name] of FIELDS) {
    const before = headerValues(headers[name]);
    const ours = Buffer.from(said[field]);
    // A record may carry such headers already: a dead letter that somebody put back on the topic as it was.
    headers[name] = before.length === 0 ? ours : [...before, ours];
  }
  return { key: delivery.key, value: delivery.value, headers, partition: delivery.partition };
}


export interface DeadLetter {
  readonly origin: DeliveryOrigin;
  /** A rejection's code; of a later version perhaps one unknown to this. */
  readonly code: string;
  readonly attribute: string | null;
  readonly reason: string;
  readonly stage: string;
  /** When it was written to the dead-letter topic. */
  readonly writtenMs: number;
  /** The record as it was: what we added is taken away. */
  readonly key: Uint8Array | null;
  readonly value: Uint8Array | null;
  readonly headers: Headers;
}

/** What a record of a dead-letter topic is. */
export type OnDeadLetterTopic =
  | { readonly kind: 'deadLetter'; readonly deadLetter: DeadLetter }
  | { readonly kind: 'resolution'; readonly resolution: Resolution }
  /** Neither of ours: somebody else writes here too. */
  | { readonly kind: 'foreign' };

export function readDeadLetterTopic(record: Delivery): OnDeadLetterTopic {
  const said = readSaid(record.headers);
  if (said === null) return readResolution(record);
  const { topic, partition, offset, code, message, stage, attribute } = said;
  const isOurs = topic !== '' && /^\d{1,10}$/.test(partition) && /^\d{1,19}$/.test(offset) && /^[A-Za-z0-9]{1,64}$/.test(code);
  if (!isOurs) return { kind: 'foreign' };
  return {
    kind: 'deadLetter',
    deadLetter: {
      origin: { topic, partition: Number(partition), offset: String(BigInt(offset)) }, code, attribute: attribute === '' ? null : attribute, reason: message, stage,
      writtenMs: record.timestampMs, key: record.key, value: record.value, headers: withoutOurs(record.headers),
    },
  };
}

/** The last value of each of our headers; null unless all are there. */
function readSaid(headers: Headers): Said | null {
  const said: Partial<Record<keyof Said, string>> = {};
  for (const [field, name] of FIELDS) {
    // Names that anybody can send: `constructor` is no header unless it was sent.
    const last = Object.hasOwn(headers, name) ? headerValues(headers[name]).at(-1) : undefined;
    if (last === undefined || last === null) return null;
    said[field] = typeof last === 'string' ? last : Buffer.from(last.buffer, last.byteOffset, last.byteLength).toString('utf8');
  }
  return said as Said;
}

function withoutOurs(headers: Headers): Headers {
  const rest: Record<string, Headers[string]> = { ...headers };
  for (const [, name] of FIELDS) {
    const before = headerValues(rest[name]).slice(0, -1);
    const [only] = before;
    if (only === undefined) Reflect.deleteProperty(rest, name);
    else rest[name] = before.length === 1 ? only : before;
  }
  return rest;
}

// ---- resolutions -------------------------------------------------------------------------------------------------------

export const RESOLVED_TYPE = 'org.throughline.deadletter.resolved';

/**
 * A CloudEvent on the dead-letter topic: the dead letters of these coordinates that stand before it on its own partition
 * were retried, and this is what became of them. One that is written behind it (a redelivery after a crash, a topic made
 * anew whose offsets begin again) stands open again: retrying it once more is harmless, hiding it would not be.
 */
export interface Resolution { readonly origin: DeliveryOrigin; readonly how: 'recorded' | 'duplicate' }

const resolutionSchema = z.object({
  topic: z.string().min(1), partition: z.int().nonnegative(), offset: z.string().regex(/^\d{1,19}$/), how: z.enum(['recorded', 'duplicate']),
});

/** The attributes and the data of a resolution, to be encoded as what Throughline itself says. */
export function resolutionEvent({ origin, how }: Resolution, nowMs: number): { readonly id: string; readonly source: string; readonly type: string; readonly time: string; readonly subject: string; readonly data: object } {
  const coordinates = coordinatesOf(origin);
  return { id: `${coordinates}/${String(nowMs)}`, source: '/throughline/dead-letters', type: RESOLVED_TYPE, time: new Date(nowMs).toISOString(), subject: coordinates, data: { ...origin, how } };
}

/** Longer than any resolution: a record past it is none, and is not decoded to find out. */
const RESOLUTION_BYTES_MAX = 4096;

function readResolution(record: Delivery): OnDeadLetterTopic {
  if (record.value === null || record.value.length > RESOLUTION_BYTES_MAX) return { kind: 'foreign' };
  const message = decodeMessage({ headers: record.headers, body: record.value }, { binding: 'kafka', maxEventBytes: RESOLUTION_BYTES_MAX });
  if (message.kind === 'batch' || message.decoded.kind === 'rejected') return { kind: 'foreign' };
  const { type, dataKind, data } = message.decoded.event;
  if (type !== RESOLVED_TYPE || dataKind !== 'json') return { kind: 'foreign' };
  const parsed = resolutionSchema.safeParse(JSON.parse(Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString('utf8')));
  if (!parsed.success) return { kind: 'foreign' };
  const { how, ...origin } = parsed.data;
  return { kind: 'resolution', resolution: { origin, how } };
}
