// What Throughline itself says on a topic, encoded by the CloudEvents SDK. What others say never passes here: the SDK
// invents ids and times, rounds numbers and rewrites instants (library-limits.md D.4), so reading has a decoder of its own.
import { CloudEvent, Kafka } from 'cloudevents';
import type { OutgoingRecord } from '../ports.ts';

export interface OwnEvent {
  readonly id: string;
  readonly source: string;
  readonly type: string;
  /** RFC 3339 in UTC with milliseconds: the SDK keeps no more. */
  readonly time: string;
  readonly subject: string;
  /** Becomes JSON. */
  readonly data: object;
}

/** A structured event as a record without a key. Throws the SDK's ValidationError for an event that is none: a bug of ours. */
export function encodeOwnEvent(event: OwnEvent): OutgoingRecord {
  const { headers, value } = Kafka.structured(new CloudEvent({ ...event, datacontenttype: 'application/json' }));
  const contentType = headers['content-type'];
  if (typeof value !== 'string' || typeof contentType !== 'string') throw new Error('assertion: the SDK encodes a structured event as text, with its content type');
  return { key: null, value: Buffer.from(value), headers: { 'content-type': contentType } };
}
