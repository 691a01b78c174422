import fc from 'fast-check';
import type { AttributeValue, CloudEvent } from '../../schemas/cloudevent.ts';
import type { Identified } from '../../schemas/identity.ts';
import { isWorkspaceId, workspaceKeys } from '../../schemas/identity.ts';
import type { Delivery, StoredEvent } from '../../schemas/recorded.ts';
import { readRecorded, toNewEvent } from '../../schemas/recorded.ts';
import { instantOf, parseInstant } from '../../schemas/time.ts';

const W = 'acme';
if (!isWorkspaceId(W)) throw new Error('not a workspace id');
const KEYS = workspaceKeys(W, Buffer.alloc(32, 1));
const RECORDED_AT = instantOf(1_700_000_000_000);
const BY_HTTP: Delivery = { recordedAt: RECORDED_AT, origin: null };

function eventOf(more: Record<string, AttributeValue>, dataKind: CloudEvent['dataKind'] = 'none', data: string | Uint8Array = ''): CloudEvent {
  const attributes: Record<string, AttributeValue> = { specversion: '1.0', id: '1', source: '/s', type: 't', ...more };
  const time = attributes['time'];
  return { id: '1', source: '/s', type: 't', time: time === undefined ? null : parseInstant(String(time)), attributes, dataKind, data: typeof data === 'string' ? Buffer.from(data) : data };
}
function identify(event: CloudEvent): Identified {
  const identified = KEYS.identify(event);
  if (identified.kind === 'rejected') throw new Error(identified.rejection.code);
  return identified;
}
function recordedAs(stored: StoredEvent, stream: string): { id: string; stream: string; data: Uint8Array; metadata: Uint8Array } {
  return { id: stored.id, stream, data: stored.data, metadata: stored.metadata };
}
const ANA = { identity: 'Ana@example.com', identitytype: 'Email' };

describe('the stored form', () => {
  const value = fc.oneof(fc.string({ unit: 'grapheme' }), fc.boolean(), fc.integer());
  const who = fc.oneof(
    fc.record({ identity: fc.constantFrom('Ana@example.com', 'unknown', 12345), identitytype: fc.constantFrom('Email', ' phone', 'customerId') }),
    fc.record({ subject: fc.constantFrom('s', 'order 1', 'unknown') }),
  );
  const when = fc.option(fc.record({ time: fc.constantFrom('2023-08-02T22:01:43.123456789+05:30', '2023-08-02t22:01:43z') }), { nil: {} });
  const more = fc.dictionary(fc.stringMatching(/^x[a-z0-9]{1,8}$/), value, { maxKeys: 4 });
  const kind = fc.constantFrom('none' as const, 'json' as const, 'text' as const, 'binary' as const);
  const origin = fc.option(fc.record({ topic: fc.string(), partition: fc.nat(), offset: fc.bigInt({ min: 0n, max: 2n ** 63n - 1n }).map(String) }));

  test('gives back everything that was put in', () => {
    fc.assert(fc.property(who, when, more, kind, fc.uint8Array(), origin, (identity, time, extensions, dataKind, data, from) => {
      const event = eventOf({ ...extensions, ...identity, ...time }, dataKind, Buffer.from(data));
      const identified = identify(event);
      const stored = toNewEvent(event, identified, { recordedAt: RECORDED_AT, origin: from });
      expect([stored.id, stored.type, stored.data]).toEqual([identified.eventId, event.type, event.data]);
      const { json, ...recorded } = readRecorded(recordedAs(stored, identified.stream));
      expect(recorded).toEqual({
        eventId: identified.eventId, workspace: W, stream: identified.stream,
        identity: { key: identified.key, type: identified.type, value: identified.value, evidence: identified.evidence, anonymous: identified.anonymous },
        event, at: event.time ?? RECORDED_AT, recordedAt: RECORDED_AT, origin: from,
      });
      expect(typeof json).toBe('function');
    }), { numRuns: 300 });
  });

  test('gives back an identity that its attributes do not name', () => {
    const event = eventOf(ANA);
    const identified: Identified = { ...identify(event), type: 'other', value: 'another', evidence: false, anonymous: true };
    const { identity } = readRecorded(recordedAs(toNewEvent(event, identified, BY_HTTP), identified.stream));
    expect(identity).toEqual({ key: identified.key, type: 'other', value: 'another', evidence: false, anonymous: true });
  });

  test('is compact: beyond the attributes it says what they do not', () => {
    const event = eventOf(ANA);
    const metadata = Buffer.from(toNewEvent(event, identify(event), BY_HTTP).metadata).toString();
    expect(metadata).toBe(`{"a":${JSON.stringify(event.attributes)},"d":"n","k":"${identify(event).key}","f":1,"r":"${RECORDED_AT}"}`);
  });

  test('holds the data’s own bytes and no position', () => {
    const data = '{"n":9007199254740993, "n":1.0}';
    const event = eventOf(ANA, 'json', data);
    const identified = identify(event);
    const recorded = readRecorded({ ...recordedAs(toNewEvent(event, identified, BY_HTTP), identified.stream), position: '7', revision: 7 } as Parameters<typeof readRecorded>[0]);
    expect(Buffer.from(recorded.event.data).toString()).toBe(data);
    expect(Object.keys(recorded).sort()).toEqual(['at', 'event', 'eventId', 'identity', 'json', 'origin', 'recordedAt', 'stream', 'workspace']);
  });

  test('is read from any view of bytes', () => {
    const event = eventOf(ANA, 'json', '{"a":"é"}');
    const identified = identify(event);
    const stored = toNewEvent(event, identified, BY_HTTP);
    const shifted = (bytes: Uint8Array): Uint8Array => new Uint8Array([1, 2, 3, ...bytes, 4]).subarray(3, 3 + bytes.length);
    const recorded = readRecorded({ id: stored.id, stream: identified.stream, data: shifted(stored.data), metadata: shifted(stored.metadata) });
    expect(recorded.json()).toEqual({ a: 'é' });
    expect(recorded.event.attributes).toEqual(event.attributes);
  });
});

describe('json()', () => {
  function jsonOf(dataKind: CloudEvent['dataKind'], data: string): unknown {
    const event = eventOf(ANA, dataKind, data);
    const identified = identify(event);
    return readRecorded(recordedAs(toNewEvent(event, identified, BY_HTTP), identified.stream)).json();
  }

  test('is the parsed data, null included', () => {
    expect([jsonOf('json', '{"a":[1]}'), jsonOf('json', 'null'), jsonOf('json', ' "x" ')]).toEqual([{ a: [1] }, null, 'x']);
  });

  test('is undefined for other data and for what cannot be read', () => {
    expect([jsonOf('none', ''), jsonOf('text', '{}'), jsonOf('binary', '{}'), jsonOf('json', '{')]).toEqual([undefined, undefined, undefined, undefined]);
  });

  test('is parsed once', () => {
    const event = eventOf(ANA, 'json', '{"a":1}');
    const identified = identify(event);
    const recorded = readRecorded(recordedAs(toNewEvent(event, identified, BY_HTTP), identified.stream));
    expect(recorded.json()).toBe(recorded.json());
  });
});

describe('metadata that we cannot have written', () => {
  const event = eventOf(ANA);
  const identified = identify(event);
  const stored = recordedAs(toNewEvent(event, identified, BY_HTTP), identified.stream);
  const good = JSON.parse(Buffer.from(stored.metadata).toString()) as Record<string, unknown>;

  test.each([
    ['no JSON', '{'], ['empty', ''], ['null', 'null'], ['a number', '1'], ['an array', '[]'],
    ['no attributes', JSON.stringify({ ...good, a: undefined })], ['null attributes', JSON.stringify({ ...good, a: null })], ['no id', JSON.stringify({ ...good, a: { source: '/s', type: 't' } })], ['an origin that is none', JSON.stringify({ ...good, o: 'topic' })], ['no key', JSON.stringify({ ...good, k: 1 })],
    ['no flags', JSON.stringify({ ...good, f: undefined })], ['no recorded time', JSON.stringify({ ...good, r: undefined })],
    ['an unknown kind of data', JSON.stringify({ ...good, d: 'z' })], ['a kind that objects inherit', JSON.stringify({ ...good, d: 'toString' })],
  ])('%s is an assertion', (_name, metadata) => {
    expect(() => readRecorded({ ...stored, metadata: Buffer.from(metadata) })).toThrow('assertion');
  });

  test('a stream that names no workspace is an assertion', () => {
    expect(() => readRecorded({ ...stored, stream: 'elsewhere' })).toThrow('assertion');
  });
});
