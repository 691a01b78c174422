import { createHash, createHmac } from 'node:crypto';
import fc from 'fast-check';
import type { AttributeValue, CloudEvent } from '../../schemas/cloudevent.ts';
import type { Identified, WorkspaceId } from '../../schemas/identity.ts';
import {
  ANONYMOUS_STREAMS, anonymousStreams, apiKeyId, foldType, hashApiKey, identityStream, isAnonymous, isWorkspaceId, makeApiKey, nodeKey, normaliseIdentity,
  personIdOf, previousIdentity, sameHash, unwrapSecret, workspaceKeys, workspaceOfStream, wrapSecret,
} from '../../schemas/identity.ts';

const SECRET = Buffer.alloc(32, 1);
const W = workspaceId('acme_1');
const KEYS = workspaceKeys(W, SECRET);

function workspaceId(text: string): WorkspaceId {
  if (!isWorkspaceId(text)) throw new Error('not a workspace id');
  return text;
}
function eventOf(more: Record<string, AttributeValue>, data: Uint8Array = Buffer.from('{"a":1}')): CloudEvent {
  const attributes = { specversion: '1.0', id: '1', source: '/s', type: 't', ...more };
  return { id: '1', source: '/s', type: 't', time: null, attributes, dataKind: 'json', data };
}
function identify(event: CloudEvent, keys = KEYS): Identified {
  const identified = keys.identify(event);
  if (identified.kind === 'rejected') throw new Error(identified.rejection.code);
  return identified;
}
function rejection(event: CloudEvent): unknown {
  const identified = KEYS.identify(event);
  return identified.kind === 'rejected' ? [identified.rejection.code, identified.rejection.attribute] : identified;
}
function hmac(json: string, secret: Uint8Array = SECRET): string {
  return createHmac('sha256', secret).update(json).digest('hex').slice(0, 32);
}

describe('normaliseIdentity', () => {
  test.each([
    ['email', '  Ana.Doe@Example.COM ', 'email', 'ana.doe@example.com'],
    [' EMail', 'a@b', 'email', 'a@b'],
    ['phone', '+1 (555) 010-0100', 'phone', '15550100100'],
    ['phone', '15550100100', 'phone', '15550100100'],
    ['Phone', '+49.30/1234-567', 'phone', '49301234567'],
    ['phone', '\u202a+1\u00a0555\u2011010\u20110100\u202c', 'phone', '15550100100'],
    ['phone', '12345', 'phone', '12345'],
    ['phone', ' 1234 ', 'phone', '1234'],
    ['phone', '12-34', 'phone', '12-34'],
    ['phone', 'sip:Ana@example.com', 'phone', 'sip:Ana@example.com'],
    ['phone', 'tel:+15550100100', 'phone', 'tel:+15550100100'],
    ['phone', '1-800-FLOWERS', 'phone', '1-800-FLOWERS'],
    ['phone', '*67 555 0100', 'phone', '*67 555 0100'],
    ['phone', '0015550100100', 'phone', '0015550100100'],
    ['customerId', ' AbC-1 ', 'customerid', 'AbC-1'],
    ['subject', 'A b', 'subject', 'A b'],
  ])('%s %j is %s %j', (type, value, foldedType, normal) => {
    expect(normaliseIdentity(type, value)).toEqual({ type: foldedType, value: normal });
  });

  test('what is normalised stays as it is', () => {
    fc.assert(fc.property(fc.constantFrom('email', 'phone', 'customerId', 'X'), fc.oneof(fc.string({ unit: 'grapheme' }), fc.stringMatching(/^[+() 0-9-]{0,15}$/)), (type, value) => {
      const once = normaliseIdentity(type, value);
      expect(normaliseIdentity(once.type, once.value)).toEqual(once);
    }));
  });

  test('what stands between a phone’s digits makes no other key', () => {
    const separators = fc.stringMatching(/^[ ().+/-]{0,2}$/);
    fc.assert(fc.property(fc.array(fc.tuple(fc.integer({ min: 0, max: 9 }), separators), { minLength: 5, maxLength: 15 }), (parts) => {
      const digits = parts.map(([digit]) => digit).join('');
      fc.pre(!/^0+$/.test(digits) && digits !== '266696687');
      expect(KEYS.identityKey('phone', parts.map(([digit, separator]) => `${digit}${separator}`).join(''))).toBe(hmac(`["phone","${digits}"]`));
    }));
  });
});

describe('isAnonymous', () => {
  test.each(['unknown', 'Anonymous', 'WITHHELD', '0', '000000', '+0', 'Private Number', 'private_number', 'no-caller-id', 'n/a', '-', '---', 'null', 'anonymous@anonymous.invalid', '266696687', ''])('%j is nobody', (value) => {
    expect(isAnonymous(value)).toBe(true);
  });
  test.each(['15550100100', 'ana@example.com', 'unknown@example.com', '00000001', 'Anonymous Bosch', '7', 'private-banking-4711', 'x'.repeat(10_000)])('%.20j is somebody', (value) => {
    expect(isAnonymous(value)).toBe(false);
  });
});

describe('keys', () => {
  test('an identity’s key is 32 hex digits of HMAC-SHA-256 over the JSON of its folded type and normal value', () => {
    expect(KEYS.identityKey('Email', ' ANA@example.com')).toBe(hmac('["email","ana@example.com"]'));
    expect(KEYS.identityKey('customerId', 'Ünïcode "q"')).toBe(hmac(JSON.stringify(['customerid', 'Ünïcode "q"'])));
    expect(KEYS.hash('node', 'x')).toBe(hmac('["node","x"]'));
  });

  test('nobody and nothing have no key', () => {
    expect(['', '  ', 'unknown', '0'].map((value) => KEYS.identityKey('phone', value))).toEqual([null, null, null, null]);
    expect(KEYS.identityKey(' ', 'ana')).toBeNull();
  });

  test('G8: another workspace’s secret gives other keys, terms, cursor keys and streams', () => {
    const other = workspaceKeys(W, Buffer.alloc(32, 2));
    expect(other.hash('a')).not.toBe(KEYS.hash('a'));
    expect(other.term('a', 'b')).not.toBe(KEYS.term('a', 'b'));
    expect(other.cursorKey).not.toEqual(KEYS.cursorKey);
    expect(KEYS.cursorKey).toHaveLength(32);
    expect(identify(eventOf({ identity: 'a', identitytype: 'x' }), other).stream).not.toBe(identify(eventOf({ identity: 'a', identitytype: 'x' })).stream);
  });

  test('parts cannot run into each other', () => {
    fc.assert(fc.property(fc.array(fc.string({ maxLength: 3 }), { maxLength: 3 }), fc.array(fc.string({ maxLength: 3 }), { maxLength: 3 }), (a, b) => {
      expect(KEYS.hash(...a) === KEYS.hash(...b)).toBe(JSON.stringify(a) === JSON.stringify(b));
    }));
  });

  test('a term is 16 characters of base64url, of its field and value alone', () => {
    expect(KEYS.term('queue', 'Support')).toMatch(/^[A-Za-z0-9_-]{16}$/);
    expect(KEYS.term('queue', 'Support')).toBe(KEYS.term('queue', 'Support'));
    expect(new Set([KEYS.term('a', 'bc'), KEYS.term('ab', 'c'), KEYS.term('a', 'b'), KEYS.term('term', 'a')]).size).toBe(4);
  });

  test('what is remembered is bounded and changes no answer', () => {
    const tiny = workspaceKeys(W, SECRET, { cachedHashes: 4 });
    const wanted = Array.from({ length: 50 }, (_, index) => hmac(`["x","${index % 7}"]`));
    expect(wanted.map((_, index) => tiny.hash('x', String(index % 7)))).toEqual(wanted);
    expect(tiny.term('x', '1')).toBe(KEYS.term('x', '1'));
  });

  test('a node’s key is the hash of its id, and stands for itself', () => {
    const key = nodeKey(KEYS, 'wxcc:1d17ff05');
    expect(key).toBe(KEYS.hash('node', 'wxcc:1d17ff05'));
    expect(nodeKey(KEYS, key)).toBe(key);
    expect(nodeKey(KEYS, key.toUpperCase())).not.toBe(key.toUpperCase());
  });

  test('a person’s id is the first 24 digits of a key', () => {
    expect(personIdOf('0123456789abcdef0123456789abcdef')).toBe('0123456789abcdef01234567');
  });
});

describe('identify', () => {
  test('an identity is evidence, shown as received, and names its stream by its key alone', () => {
    const key = hmac('["phone","15550100100"]');
    expect(KEYS.identify(eventOf({ identity: '+1 (555) 010-0100', identitytype: 'Phone', subject: 's' }))).toEqual({
      kind: 'identified', stream: `identity.acme_1-${key}`, eventId: expect.any(String), key, type: 'phone', value: '+1 (555) 010-0100', evidence: true, anonymous: false,
    });
  });

  test('without an identity the subject stands in, never as evidence', () => {
    const identified = identify(eventOf({ subject: 'order 12' }));
    expect(identified).toMatchObject({ key: hmac('["subject","order 12"]'), type: 'subject', value: 'order 12', evidence: false, anonymous: false });
    expect(identified.stream).toBe(identityStream(W, identified.key));
    expect(identify(eventOf({ subject: 'Unknown' }))).toMatchObject({ evidence: false, anonymous: true });
  });

  test('identities of JSON’s other types are their canonical strings', () => {
    expect(identify(eventOf({ identity: 12345, identitytype: 'phone' })).key).toBe(hmac('["phone","12345"]'));
    expect(identify(eventOf({ identity: true, identitytype: 'x' })).key).toBe(hmac('["x","true"]'));
  });

  test('what says nobody at all is rejected, each with its code and attribute', () => {
    expect(rejection(eventOf({}))).toEqual(['missingIdentity', 'identity']);
    expect(rejection(eventOf({ identity: '  ', identitytype: 'email' }))).toEqual(['emptyIdentity', 'identity']);
    expect(rejection(eventOf({ identity: '', identitytype: 'email', subject: 's' }))).toEqual(['emptyIdentity', 'identity']);
    expect(rejection(eventOf({ identity: 'a', identitytype: ' ' }))).toEqual(['emptyIdentity', 'identitytype']);
    expect(rejection(eventOf({ subject: ' ' }))).toEqual(['emptyIdentity', 'subject']);
  });

  test('anonymous values keep their own key, are nobody’s evidence and are spread over all 64 streams', () => {
    const streams = anonymousStreams(W, SECRET);
    expect(new Set(streams).size).toBe(ANONYMOUS_STREAMS);
    expect(streams[5]).toBe(identityStream(W, hmac('["anonymous",5]')));
    const used = Array.from({ length: 1500 }, (_, index) => identify(eventOf({ identity: 'Withheld', identitytype: 'phone', n: index })));
    expect(new Set(used.map(({ key, evidence, anonymous }) => JSON.stringify({ key, evidence, anonymous })))).toEqual(new Set([JSON.stringify({ key: hmac('["phone","Withheld"]'), evidence: false, anonymous: true })]));
    expect(new Set(used.map(({ stream }) => stream))).toEqual(new Set(streams));
  });

  test('an anonymous event is always in the same one of them', () => {
    const event = eventOf({ identity: 'unknown', identitytype: 'phone' });
    expect(identify(event)).toEqual(identify(event, workspaceKeys(W, SECRET)));
  });

  test('no identity of a type called anonymous shares a stream with nobody', () => {
    const streams = new Set(anonymousStreams(W, SECRET));
    for (let index = 0; index < 64; index += 1) expect(streams.has(identify(eventOf({ identity: `${index + 1}`, identitytype: 'anonymous' })).stream)).toBe(false);
  });
});

describe('an event’s id', () => {
  const base = { identity: 'Ana@example.com', identitytype: 'email' };
  const id = (more: Record<string, AttributeValue>, data?: Uint8Array): string => identify(eventOf({ ...base, ...more }, data)).eventId;

  test('is a version 8 UUID from SHA-256 over workspace, sorted attributes with the identity’s key, and the data’s hash', () => {
    const key = hmac('["email","ana@example.com"]');
    const attributes = [['id', '1'], ['identity', key], ['identitytype', 'email'], ['n', '12'], ['source', '/s'], ['specversion', '1.0'], ['type', 't'], ['x', 'true']];
    const data = createHash('sha256').update('{"a":1}').digest('hex');
    const hex = createHash('sha256').update(JSON.stringify(['acme_1', attributes, data])).digest('hex');
    const eventId = id({ x: true, n: 12 });
    expect(eventId).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    const plain = eventId.replaceAll('-', '');
    expect(plain.slice(0, 12) + plain.slice(13, 16) + plain.slice(17)).toBe(hex.slice(0, 12) + hex.slice(13, 16) + hex.slice(17, 32));
  });

  test('is the same for every spelling of the identity, in any order, however it was traced', () => {
    expect(id({ identity: ' ana@EXAMPLE.com' })).toBe(id({}));
    expect(id({ traceparent: '00-1-2-01', tracestate: 'a=b' })).toBe(id({}));
    expect(identify(eventOf({ identitytype: 'email', x: 'y', identity: 'ana@example.com' })).eventId).toBe(id({ x: 'y' }));
  });

  test('is the same for an integer and its string: a binary and a structured delivery are one event', () => {
    expect(id({ n: 12, b: false })).toBe(id({ n: '12', b: 'false' }));
  });

  test('is another for other content, also under the same source and id', () => {
    const others = [id({}), id({ x: '' }), id({ x: 'y' }), id({ subject: 's' }), id({ time: '2023-01-01T00:00:00Z' }), id({ time: '2023-01-01T00:00:00.0Z' }), id({}, Buffer.from('{"a":1.0}')), id({}, Buffer.from('{"a": 1}')), id({}, Buffer.alloc(0)), id({ identity: 'bob@example.com' }), id({ identitytype: 'Email' })];
    expect(new Set(others).size).toBe(others.length);
    expect(identify(eventOf(base), workspaceKeys(workspaceId('other'), SECRET)).eventId).not.toBe(id({}));
  });

  test('depends on nothing but what is named', () => {
    const attribute = fc.tuple(fc.stringMatching(/^[a-z0-9]{1,5}$/), fc.oneof(fc.string(), fc.boolean(), fc.integer()));
    fc.assert(fc.property(fc.uniqueArray(attribute, { selector: ([name]) => name, maxLength: 5 }), fc.uint8Array(), (more, data) => {
      const forward = eventOf({ ...Object.fromEntries(more), ...base }, data);
      const backward: CloudEvent = { ...eventOf(base, data), attributes: Object.fromEntries(Object.entries(forward.attributes).reverse()), dataKind: 'binary' };
      expect(identify(backward)).toEqual(identify(forward));
    }));
  });
});

describe('previousIdentity', () => {
  test.each([
    ['the extension says the type', { previousidentity: '12345678', previousidentitytype: 'CustomerId' }, { type: 'customerid', value: '12345678' }],
    ['e-mail if it has @', { previousidentity: 'Ana@example.com', identity: 'x', identitytype: 'phone' }, { type: 'email', value: 'Ana@example.com' }],
    ['phone if it is 7 to 15 digits', { previousidentity: '+1 (555) 010-0100', identity: 'x', identitytype: 'email' }, { type: 'phone', value: '+1 (555) 010-0100' }],
    ['seven digits', { previousidentity: '5550100', identity: 'x', identitytype: 'email' }, { type: 'phone', value: '5550100' }],
    ['a number of JSON’s', { previousidentity: 5_550_100, identity: 'x', identitytype: 'email' }, { type: 'phone', value: '5550100' }],
    ['six digits: as the identity', { previousidentity: '555010', identity: 'x', identitytype: 'CustomerId' }, { type: 'customerid', value: '555010' }],
    ['sixteen digits: as the identity', { previousidentity: '1234567890123456', identity: 'x', identitytype: 'cookie' }, { type: 'cookie', value: '1234567890123456' }],
    ['other text: as the identity', { previousidentity: 'abc', identity: 'x', identitytype: 'cookie' }, { type: 'cookie', value: 'abc' }],
    ['an empty type says nothing', { previousidentity: 'a@b', previousidentitytype: ' ' }, { type: 'email', value: 'a@b' }],
    ['no type can be told', { previousidentity: 'abc', subject: 's' }, null],
    ['none', { identity: 'x', identitytype: 'cookie' }, null],
    ['an empty one', { previousidentity: ' ', identity: 'x', identitytype: 'cookie' }, null],
  ] as [string, Record<string, AttributeValue>, unknown][])('%s', (_name, attributes, expected) => {
    expect(previousIdentity(eventOf(attributes))).toEqual(expected);
  });
});

describe('names', () => {
  test('a workspace id is lower-case letters, digits and underscores, at most 64', () => {
    expect(['a', 'default', 'a_1', '0', 'x'.repeat(64)].map(isWorkspaceId)).toEqual([true, true, true, true, true]);
    expect(['', 'A', 'a-b', 'a.b', 'a\n', 'é', 'x'.repeat(65)].map(isWorkspaceId)).toEqual([false, false, false, false, false, false, false]);
  });

  test('every stream of ours names its workspace, others none', () => {
    const streams = [identityStream(W, KEYS.hash('a')), 'decisions.acme_1-0123', 'erasures.acme_1-log', 'workspace-acme_1'];
    expect(streams.map(workspaceOfStream)).toEqual([W, W, W, W]);
    expect(['identity.acme_1', 'identity.acme_1-', 'identity.Acme-1', 'workspace-', 'workspace-a-b', '$all', '', 'xidentity.a-b'].map(workspaceOfStream)).toEqual([null, null, null, null, null, null, null, null]);
  });

  test('nothing that names anything holds the address', () => {
    const identified = identify(eventOf({ identity: 'ana@example.com', identitytype: 'email' }));
    expect(`${identified.stream} ${identified.eventId} ${identified.key} ${KEYS.term('identity', 'ana@example.com')}`).not.toContain('ana');
    expect(foldType(' Email ')).toBe('email');
  });
});

describe('the workspace’s secret', () => {
  const master = Buffer.alloc(32, 9);
  const iv = Buffer.alloc(12, 3);
  const wrapped = wrapSecret(SECRET, master, iv);

  test('comes back under its master key, as plain text that a setting can hold', () => {
    expect(wrapped).toMatch(/^1\.[A-Za-z0-9_-]+$/);
    expect(Buffer.from(unwrapSecret(wrapped, master)!)).toEqual(SECRET);
    expect(wrapSecret(SECRET, master, iv)).toBe(wrapped);
    expect(wrapSecret(SECRET, master, Buffer.alloc(12, 4))).not.toBe(wrapped);
  });

  test('is null under another key, and when anything was altered or cut', () => {
    expect(unwrapSecret(wrapped, Buffer.alloc(32, 8))).toBeNull();
    expect(unwrapSecret(wrapped, Buffer.alloc(16, 9))).toBeNull();
    fc.assert(fc.property(fc.integer({ min: 2, max: wrapped.length - 1 }), fc.constantFrom('A', 'b', '9', '_', ''), (at, put) => {
      const altered = wrapped.slice(0, at) + put + wrapped.slice(at + 1);
      fc.pre(Buffer.from(altered.slice(2), 'base64url').compare(Buffer.from(wrapped.slice(2), 'base64url')) !== 0);
      expect(unwrapSecret(altered, master)).toBeNull();
    }));
    for (const text of ['', '1.', '2.AAAA', wrapped.slice(2), `${wrapped} `, '1.AAAA', '1.!!!!']) expect(unwrapSecret(text, master)).toBeNull();
  });

  test('asserts the sizes that the cipher needs', () => {
    expect(() => wrapSecret(SECRET, Buffer.alloc(16), iv)).toThrow('assertion');
    expect(() => wrapSecret(SECRET, master, Buffer.alloc(16))).toThrow('assertion');
  });
});

describe('API keys', () => {
  const token = makeApiKey((size) => Buffer.alloc(size, 0xfb));

  test('are 32 random bytes behind a prefix that secret scanners can know', () => {
    expect(token).toMatch(/^tl_[A-Za-z0-9_-]{43}$/);
    expect(makeApiKey((size) => Buffer.alloc(size, 1))).not.toBe(token);
  });

  test('are stored as their SHA-256, and named by a hash that gives none of it away', () => {
    expect(hashApiKey(token)).toBe(createHash('sha256').update(token).digest('hex'));
    expect(apiKeyId(token)).toMatch(/^[0-9a-f]{12}$/);
    expect(hashApiKey(token).startsWith(apiKeyId(token))).toBe(false);
    expect(apiKeyId('an operator’s own')).toMatch(/^[0-9a-f]{12}$/);
  });

  test('are compared whole', () => {
    expect(sameHash(hashApiKey(token), hashApiKey(token))).toBe(true);
    expect(sameHash(hashApiKey(token), hashApiKey('other'))).toBe(false);
    expect(sameHash('ab', 'abc')).toBe(false);
  });
});
