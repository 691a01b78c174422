// The stored form of an event: data as its own bytes, everything else as compact JSON in the metadata. Nothing here says
// where the event stands in the log: no position may enter a fold (design.md section 1).
import type { AttributeValue, CloudEvent } from './cloudevent.ts';
import type { Instant } from './facts.ts';
import { foldType, workspaceOfStream } from './identity.ts';
import type { Identified, WorkspaceId } from './identity.ts';
import { parseInstant } from './time.ts';

/** Where a delivery came from; null for HTTP and import. The offset is a decimal string, as Kafka's are 64 bits wide. */
export interface DeliveryOrigin { readonly topic: string; readonly partition: number; readonly offset: string }
export interface Delivery { readonly recordedAt: Instant; readonly origin: DeliveryOrigin | null }

/** What an event store appends. The shape of the port's NewEvent, which schemas may not import. */
export interface StoredEvent { readonly id: string; readonly type: string; readonly data: Uint8Array; readonly metadata: Uint8Array }

export interface RecordedCloudEvent {
  readonly eventId: string;
  readonly workspace: WorkspaceId;
  readonly stream: string;
  readonly identity: { readonly key: string; readonly type: string; readonly value: string; readonly evidence: boolean; readonly anonymous: boolean };
  readonly event: CloudEvent;
  /** `time`, else the recorded time; a vocabulary's own timestamp is put between the two by `interpret`. */
  readonly at: Instant;
  readonly recordedAt: Instant;
  readonly origin: DeliveryOrigin | null;
  /** The data parsed as JSON, once; undefined where it is not JSON or cannot be read. */
  readonly json: () => unknown;
}

/**
 * The metadata as written, one letter a field, since it is stored with every event for ever. `t` and `v` (the identity's
 * type and value) stand there only where the attributes do not say the same.
 */
interface Metadata {
  readonly a: Readonly<Record<string, AttributeValue>>;
  /** Kind of the data: `n`one, `j`son, `t`ext, `b`inary. */
  readonly d: keyof typeof KIND_OF;
  readonly k: string;
  /** 1: evidence, 2: anonymous. */
  readonly f: number;
  readonly t?: string;
  readonly v?: string;
  readonly r: Instant;
  readonly o?: readonly [topic: string, partition: number, offset: string];
}
const KIND_OF = { n: 'none', j: 'json', t: 'text', b: 'binary' } as const satisfies Record<string, CloudEvent['dataKind']>;
const LETTER_OF = { none: 'n', json: 'j', text: 't', binary: 'b' } as const satisfies Record<CloudEvent['dataKind'], keyof typeof KIND_OF>;
const EVIDENCE = 1;
const ANONYMOUS = 2;

/** What the door appends to `identified.stream`. */
export function toNewEvent(event: CloudEvent, identified: Identified, delivery: Delivery): StoredEvent {
  const said = saidIdentity(event.attributes);
  const origin = delivery.origin;
  const metadata: Metadata = {
    a: event.attributes,
    d: LETTER_OF[event.dataKind],
    k: identified.key,
    f: (identified.evidence ? EVIDENCE : 0) | (identified.anonymous ? ANONYMOUS : 0),
    ...(identified.type === said.type ? {} : { t: identified.type }),
    ...(identified.value === said.value ? {} : { v: identified.value }),
    r: delivery.recordedAt,
    ...(origin === null ? {} : { o: [origin.topic, origin.partition, origin.offset] as const }),
  };
  return { id: identified.eventId, type: event.type, data: event.data, metadata: Buffer.from(JSON.stringify(metadata)) };
}

/** The way back. Asserts that the metadata is of our own writing. */
export function readRecorded(recorded: { readonly id: string; readonly stream: string; readonly data: Uint8Array; readonly metadata: Uint8Array }): RecordedCloudEvent {
  const metadata = readMetadata(recorded.metadata);
  const workspace = workspaceOfStream(recorded.stream);
  if (workspace === null) throw new Error('assertion: the stream of a recorded event names no workspace');
  const { a: attributes, r: recordedAt } = metadata;
  const said = saidIdentity(attributes);
  const time = attributes['time'] === undefined ? null : parseInstant(String(attributes['time']));
  const event: CloudEvent = {
    id: attributes['id'] as string, source: attributes['source'] as string, type: attributes['type'] as string, time, attributes,
    dataKind: KIND_OF[metadata.d], data: recorded.data,
  };
  const origin = metadata.o;
  return {
    eventId: recorded.id,
    workspace,
    stream: recorded.stream,
    identity: {
      key: metadata.k, type: metadata.t ?? said.type, value: metadata.v ?? said.value,
      evidence: (metadata.f & EVIDENCE) !== 0, anonymous: (metadata.f & ANONYMOUS) !== 0,
    },
    event,
    at: time ?? recordedAt,
    recordedAt,
    origin: origin === undefined ? null : { topic: origin[0], partition: origin[1], offset: origin[2] },
    json: lazyJson(event),
  };
}

function readMetadata(bytes: Uint8Array): Metadata {
  let metadata: unknown;
  try {
    metadata = JSON.parse(textOf(bytes));
  } catch (cause) {
    throw new Error('assertion: the metadata of a recorded event is not JSON', { cause });
  }
  if (!isMetadata(metadata)) throw new Error('assertion: the metadata of a recorded event is not of our writing');
  return metadata;
}

/** By hand, not by a schema: it stands in the projector's way for every event. */
function isMetadata(value: unknown): value is Metadata {
  if (!isObject(value) || !isObject(value['a'])) return false;
  const { d, k, f, r, o } = value;
  const a = value['a'];
  return typeof a['id'] === 'string' && typeof a['source'] === 'string' && typeof a['type'] === 'string' && typeof k === 'string'
    && typeof f === 'number' && typeof r === 'string' && typeof d === 'string' && Object.hasOwn(KIND_OF, d) && (o === undefined || Array.isArray(o));
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}

/** The identity that the attributes name: (identitytype, identity), else (`subject`, subject). */
function saidIdentity(attributes: Readonly<Record<string, AttributeValue>>): { type: string; value: string } {
  const value = attributes['identity'];
  if (value === undefined) return { type: 'subject', value: String(attributes['subject'] ?? '') };
  return { type: foldType(String(attributes['identitytype'] ?? '')), value: String(value) };
}

function lazyJson(event: CloudEvent): () => unknown {
  let parsed: unknown;
  let done = event.dataKind !== 'json';
  return () => {
    if (!done) {
      done = true;
      try {
        parsed = JSON.parse(textOf(event.data));
      } catch {
        parsed = undefined;
      }
    }
    return parsed;
  };
}

function textOf(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8');
}
