// Dead letters as a form, and as the operator sees them: listed, shown and retried on a topic in memory, through a door over
// a store that does not know its ids.
import fc from 'fast-check';
import type { Headers } from '../../schemas/cloudevent.ts';
import { isWorkspaceId, type WorkspaceKeys, workspaceKeys } from '../../schemas/identity.ts';
import { encodeOwnEvent } from '../../services/adapters/cloudevents.ts';
import { MemoryBroker } from '../../services/adapters/memory-source.ts';
import { MemoryEventStore } from '../../services/adapters/memory-events.ts';
import { MemoryViewStore } from '../../services/adapters/memory-views.ts';
import { readDeadLetterTopic, resolutionEvent, toDeadLetter } from '../../services/dead-letter.ts';
import { Door } from '../../services/door.ts';
import { OperatingError } from '../../services/errors.ts';
import { deadLetters, type DeadLettersOptions, talliesOfRetry } from '../../services/ops/dead-letters.ts';
import type { Io } from '../../services/ops/terminal.ts';
import type { Delivery, OutgoingRecord, Topic } from '../../services/ports.ts';

const NOW = Date.UTC(2026, 2, 2, 9);
const LETTERS = 'cx.dead-letter';
const keysFor = (id: string): WorkspaceKeys => {
  if (!isWorkspaceId(id)) throw new Error('not an id');
  return workspaceKeys(id, Buffer.alloc(32, 7));
};
const utf8 = (text: string): Uint8Array => Buffer.from(text);

interface Given { readonly offset: number; readonly partition?: number; readonly identity?: string; readonly workspace?: string; readonly value?: Uint8Array | null; readonly topic?: string; readonly data?: unknown; readonly headers?: Headers }
function delivery({ offset, partition = 0, identity = 'ana', workspace, value, topic = 'cx', data = {}, headers = {} }: Given): Delivery {
  const event = { specversion: '1.0', id: `e${partition}-${offset}`, source: 'pbx', type: 'test.said', identity: `${identity}@example.com`, identitytype: 'email', data, ...(workspace === undefined ? {} : { workspace }) };
  return { topic, partition, offset: String(offset), timestampMs: NOW, key: utf8(identity), value: value === undefined ? utf8(JSON.stringify(event)) : value, headers: { 'content-type': utf8('application/cloudevents+json'), ...headers } };
}
const wrongWorkspace = { code: 'wrongWorkspace', attribute: 'workspace', reason: 'the topic is for several workspaces, and the event names none' } as const;
const notJson = { code: 'notJson', attribute: null, reason: 'the body is not valid JSON' } as const;
const badUtf8 = { code: 'badUtf8', attribute: null, reason: 'the event is not valid UTF-8' } as const;

interface World {
  readonly topic: Topic; readonly store: MemoryEventStore; readonly views: MemoryViewStore; readonly stage: { write(records: readonly OutgoingRecord[]): void };
  run(given: Partial<DeadLettersOptions> & Pick<DeadLettersOptions, 'action'>): Promise<{ readonly code: number; readonly out: string; readonly err: string }>;
  /** What is stored, by the events' ids, in the order of the log. */
  stored(): Promise<readonly string[]>;
  json(given: Partial<DeadLettersOptions> & Pick<DeadLettersOptions, 'action'>): Promise<Record<string, unknown>>;
}
function world(partitions = 2): World {
  const clock = { at: NOW, now: () => (clock.at += 1000) };
  const sleep = (): Promise<void> => Promise.resolve();
  const broker = new MemoryBroker({ clock, sleep });
  broker.createTopic(LETTERS, partitions);
  const inner = broker.topic(LETTERS);
  const stage: World['stage'] = { write: () => undefined };
  const topic: Topic = { name: inner.name, look: () => inner.look(), read: (given) => inner.read(given), close: () => inner.close(), write: async (records) => { stage.write(records); await inner.write(records); } };
  const store = new MemoryEventStore({ storeId: 'test', idsAreUnique: false });
  const views = new MemoryViewStore();
  const run: World['run'] = async (given) => {
    let out = '';
    let err = '';
    const io: Io = {
      stdout: { write: (text, done) => { out += text; done?.(); return true; } }, stderr: { write: (text, done) => { err += text; done?.(); return true; } },
      stdin: (async function* () { /* nothing comes */ })(), isTty: false, signal: new AbortController().signal, clock, random: (size) => new Uint8Array(size), sleep, fetch,
    };
    const openDoor: DeadLettersOptions['openDoor'] = async () => {
      const idle = (_ms: number, signal?: AbortSignal): Promise<void> => (signal === undefined ? Promise.resolve() : new Promise((resolve) => { signal.addEventListener('abort', () => resolve(), { once: true }); }));
      const door = new Door({ store, clock, random: io.random, sleep: idle, tallies: talliesOfRetry(views) });
      return { door, keysOf: (id) => (id === 'gone' ? null : keysFor(id)), close: () => door.drain() };
    };
    const code = await deadLetters({ id: null, code: null, json: false, topic: 'cx', rules: { workspaces: ['shop'], maxEventBytes: 4096 }, openTopic: async (name) => { expect(name).toBe(LETTERS); return topic; }, openDoor, ...given }, io);
    return { code, out, err };
  };
  return {
    topic, store, views, stage, run,
    stored: async () => {
      const ids: string[] = [];
      if ((await store.head()) === null) return ids;
      const stop = new AbortController();
      for await (const { events, caughtUp } of store.subscribe({ after: null, prefixes: [], maxBatch: 1000, signal: stop.signal })) {
        ids.push(...events.map(({ metadata }) => (JSON.parse(Buffer.from(metadata).toString('utf8')) as { a: { id: string } }).a.id));
        if (caughtUp) stop.abort();
      }
      return ids;
    },
    json: async (given) => JSON.parse((await run({ ...given, json: true })).out) as Record<string, unknown>,
  };
}

async function recordsOf(topic: Topic): Promise<readonly Delivery[]> {
  const all: Delivery[] = [];
  for await (const records of topic.read({ signal: new AbortController().signal })) all.push(...records);
  return all;
}
/** As it lies on a topic: every header's value as bytes. */
const wire = (headers: Headers): unknown => Object.entries(headers).filter(([, value]) => value !== undefined).map(([name, value]) => [name, (Array.isArray(value) ? value : [value]).map((one: string | Uint8Array | null) => (one === null ? null : Buffer.from(one).toString('hex')))]).filter(([, values]) => values!.length > 0);

describe('the form of a dead letter', () => {
  test('G4: any record is read back as it was, also one that was a dead letter before, and again', async () => {
    const bytes = fc.uint8Array({ maxLength: 20 });
    const value = fc.oneof(bytes, fc.string(), fc.constant(null));
    const name = fc.oneof(fc.string({ maxLength: 12 }), fc.constantFrom('__connect.errors.topic', 'throughline.code', 'throughline.attribute', 'content-type', 'toString', 'constructor'));
    const headers = fc.uniqueArray(fc.tuple(name, fc.oneof(value, fc.array(value, { minLength: 2, maxLength: 3 }))), { maxLength: 5, selector: ([one]) => one }).map((all) => Object.fromEntries(all) as Headers);
    await fc.assert(fc.asyncProperty(fc.option(bytes), fc.option(bytes), headers, fc.integer({ min: 1, max: 3 }), async (key, body, given, times) => {
      const { topic } = world(3);
      let current: Delivery = { topic: 'cx', partition: 2, offset: '9007199254740993', timestampMs: NOW, key, value: body, headers: given };
      const before: Delivery[] = [];
      for (let time = 0; time < times; time += 1) {
        before.push(current);
        await topic.write([toDeadLetter(current, notJson)]);
        current = { ...(await recordsOf(topic)).at(-1)!, topic: 'cx', offset: String(time) };
        expect(current.partition).toBe(2);
      }
      for (const original of before.toReversed()) {
        const read = readDeadLetterTopic(current);
        if (read.kind !== 'deadLetter') throw new Error('a dead letter');
        expect(read.deadLetter).toMatchObject({ origin: { topic: 'cx', partition: 2, offset: original.offset }, code: 'notJson', attribute: null });
        expect([read.deadLetter.key, read.deadLetter.value].map((one) => (one === null ? null : Buffer.from(one).toString('hex')))).toEqual([original.key, original.value].map((one) => (one === null ? null : Buffer.from(one).toString('hex'))));
        expect(wire(read.deadLetter.headers)).toEqual(wire(original.headers));
        current = { ...current, headers: read.deadLetter.headers };
      }
    }), { numRuns: 150 });
  });

  test('whatever else stands on the topic is told apart, and never a fault', () => {
    const anything = fc.record({ headers: fc.dictionary(fc.oneof(fc.string({ maxLength: 8 }), fc.constantFrom('content-type', '__connect.errors.topic', '__connect.errors.offset', 'throughline.code')), fc.oneof(fc.string(), fc.uint8Array(), fc.constant('application/cloudevents+json'))), value: fc.option(fc.oneof(fc.uint8Array(), fc.json().map(utf8))) });
    fc.assert(fc.property(anything, ({ headers, value }) => {
      expect(readDeadLetterTopic({ topic: LETTERS, partition: 0, offset: '0', timestampMs: NOW, key: null, value, headers }).kind).toBe('foreign');
    }), { numRuns: 200 });
    const letter = toDeadLetter(delivery({ offset: 3 }), notJson);
    for (const broken of [{ '__connect.errors.offset': 'x' }, { '__connect.errors.partition': '-1' }, { 'throughline.code': 'no code' }, { '__connect.errors.topic': '' }]) {
      expect(readDeadLetterTopic({ ...delivery({ offset: 0 }), headers: { ...letter.headers, ...broken } }).kind).toBe('foreign');
    }
  });

  test('a resolution is a CloudEvent that the SDK encodes, and names the coordinates', () => {
    const origin = { topic: 'cx', partition: 1, offset: '9007199254740993' };
    const record = encodeOwnEvent(resolutionEvent({ origin, how: 'recorded' }, NOW));
    expect(JSON.parse(Buffer.from(record.value!).toString('utf8'))).toEqual({
      specversion: '1.0', id: `cx/1/9007199254740993/${NOW}`, source: '/throughline/dead-letters', type: 'org.throughline.deadletter.resolved', time: '2026-03-02T09:00:00.000Z',
      subject: 'cx/1/9007199254740993', datacontenttype: 'application/json', data: { ...origin, how: 'recorded' },
    });
    expect(readDeadLetterTopic({ topic: LETTERS, partition: 0, offset: '0', timestampMs: NOW, ...record })).toEqual({ kind: 'resolution', resolution: { origin, how: 'recorded' } });
  });
});

describe('dead-letters list', () => {
  test('counts each by topic, partition and offset, however often it was written, by code, and others apart', async () => {
    const { topic, run, json } = world();
    expect(await run({ action: 'list' })).toEqual({ code: 0, out: 'cx.dead-letter: 0 open, 0 resolved\n', err: '' });
    const twice = toDeadLetter(delivery({ offset: 5 }), wrongWorkspace);
    await topic.write([twice, toDeadLetter(delivery({ offset: 6, value: utf8('no event') }), notJson), { key: null, value: utf8('{}'), headers: {} }, twice, toDeadLetter(delivery({ offset: 5, partition: 1 }), badUtf8)]);
    const listed = await json({ action: 'list' });
    expect(listed).toMatchObject({ topic: LETTERS, open: 3, resolved: 0, foreign: 1, codes: { badUtf8: 1, notJson: 1, wrongWorkspace: 1 } });
    expect(listed['deadLetters']).toMatchObject([
      { id: 'cx/0/5', code: 'wrongWorkspace', message: wrongWorkspace.reason, times: 2, bytes: twice.value!.length }, { id: 'cx/0/6', code: 'notJson', times: 1 }, { id: 'cx/1/5', code: 'badUtf8' },
    ]);
    const { out } = await run({ action: 'list' });
    expect(out).toContain('cx/0/6');
    expect(out).toContain('cx.dead-letter: 3 open, 0 resolved, 1 records of others');
    expect(out).not.toMatch(/example\.com|no event/);
    expect(await json({ action: 'list', code: 'badUtf8' })).toMatchObject({ open: 1, codes: { badUtf8: 1 } });
  });

  test('says of which attribute a reason speaks', async () => {
    const { topic, run, json } = world();
    await topic.write([toDeadLetter(delivery({ offset: 5 }), { code: 'missingAttribute', attribute: 'type', reason: 'the attribute is required' })]);
    expect((await run({ action: 'list' })).out).toMatch(/ missingAttribute \(type\) .* the attribute is required\n/);
    expect((await json({ action: 'list' }))['deadLetters']).toMatchObject([{ code: 'missingAttribute', attribute: 'type' }]);
  });

  test('a resolution settles what stands before it; what is written behind it is open again', async () => {
    const { topic, json } = world();
    const letter = toDeadLetter(delivery({ offset: 5 }), notJson);
    const resolved = { ...encodeOwnEvent(resolutionEvent({ origin: { topic: 'cx', partition: 0, offset: '5' }, how: 'duplicate' }, NOW)), partition: 0 };
    await topic.write([letter, letter, resolved, resolved]);
    expect(await json({ action: 'list' })).toMatchObject({ open: 0, resolved: 1, foreign: 0 });
    await topic.write([letter]);
    expect(await json({ action: 'list' })).toMatchObject({ open: 1, resolved: 1 });
  });
});

describe('a dead-letter topic that is not made yet', () => {
  const absent = (name: string): Topic => ({
    name, look: async () => null, close: async () => undefined, write: async () => { throw new Error('nothing is written'); },
    read: () => { throw new OperatingError('sourceUnavailable', `there is no topic ${name}`); },
  });

  test('is as good as empty where there is the topic, and told where there is not', async () => {
    const { topic, run, json } = world();
    const openTopic = async (name: string): Promise<Topic> => (name === LETTERS ? absent(name) : { ...absent(name), look: () => topic.look() });
    expect(await run({ action: 'list', openTopic })).toEqual({ code: 0, out: 'cx.dead-letter: 0 open, 0 resolved\n', err: '' });
    expect(await json({ action: 'retry', openTopic })).toMatchObject({ retried: 0, complete: true });
    expect(await run({ action: 'show', id: '0/7', openTopic })).toMatchObject({ code: 1, err: 'throughline dead-letters: cx.dead-letter has no dead letter 0/7\n' });
    expect(await run({ action: 'list', openTopic: async (name) => absent(name) })).toMatchObject({ code: 1, err: expect.stringContaining('there is no topic cx: create it, or check its name (sourceUnavailable)') });
  });
});

describe('dead-letters show', () => {
  test('prints the reason, the headers and the body as they came: text as text, bytes in base64', async () => {
    const { topic, run, json } = world();
    await topic.write([
      toDeadLetter(delivery({ offset: 7, value: utf8('line one\nline \u001b[31mtwo'), headers: { twice: [utf8('a'), utf8('b')] } }), notJson),
      toDeadLetter({ ...delivery({ offset: 8 }), value: Buffer.from([0xff, 0]), key: null, headers: { raw: Buffer.from([0xfe]), none: null } }, badUtf8),
    ]);
    const { out, code } = await run({ action: 'show', id: 'cx/0/7' });
    expect(code).toBe(0);
    for (const said of ['dead letter          cx/0/7', 'notJson', 'VALUE_CONVERTER', 'header twice         a', 'header twice         b', 'header content-type  application/cloudevents+json', '\nline one\nline \u00b7[31mtwo\n']) expect(out).toContain(said);
    expect(out).not.toContain('__connect');
    expect(await json({ action: 'show', id: '0/8' })).toMatchObject({ id: 'cx/0/8', code: 'badUtf8', key: null, headers: [{ name: 'raw', value_base64: '/g==' }, { name: 'none', value: null }], body_base64: '/wA=', resolved: null, times: 1 });
    expect((await run({ action: 'show', id: '0/8' })).out).toContain('(base64) /wA=');
  });

  test('says what it cannot find or tell apart', async () => {
    const { topic, run } = world();
    await topic.write([toDeadLetter(delivery({ offset: 7 }), notJson), toDeadLetter(delivery({ offset: 7, topic: 'other' }), notJson)]);
    expect(await run({ action: 'show', id: '0/9' })).toMatchObject({ code: 1, err: 'throughline dead-letters: cx.dead-letter has no dead letter 0/9\n' });
    expect((await run({ action: 'show', id: '0/7' })).err).toContain('more than one topic');
    expect((await run({ action: 'show' })).code).toBe(1);
    expect((await run({ action: 'show', id: 'other/0/7' })).code).toBe(0);
  });
});

describe('dead-letters retry', () => {
  test('G2: records in the original order, behind what is stored; what is rejected again stays', async () => {
    const { topic, run, json, stored } = world();
    // Written in another order than theirs, the ninth before the tenth only as numbers.
    await topic.write([10, 9, 2].map((offset) => toDeadLetter(delivery({ offset }), wrongWorkspace)));
    await topic.write([toDeadLetter(delivery({ offset: 1, partition: 1 }), wrongWorkspace), toDeadLetter(delivery({ offset: 4, value: utf8('no event') }), notJson)]);
    expect(await json({ action: 'retry' })).toEqual({ topic: LETTERS, retried: 5, recorded: 4, duplicate: 0, rejected: 1, codes: { notJson: 1 }, complete: true });
    expect(await stored()).toEqual(['e0-2', 'e0-9', 'e0-10', 'e1-1']);
    expect(await json({ action: 'list' })).toMatchObject({ open: 1, resolved: 4, codes: { notJson: 1 } });
    expect((await run({ action: 'retry' })).out).toBe('cx.dead-letter: 0 recorded, 0 duplicate, 1 still rejected (notJson 1)\n');
    expect(await stored()).toHaveLength(4);
  });

  test('counts by source what it records, and not again what is rejected again', async () => {
    const { topic, run, views } = world();
    await topic.write([toDeadLetter(delivery({ offset: 1 }), badUtf8), toDeadLetter(delivery({ offset: 2, workspace: 'bank' }), wrongWorkspace), toDeadLetter(delivery({ offset: 3, value: utf8('no event') }), notJson)]);
    expect((await run({ action: 'retry' })).out).toContain('1 recorded, 0 duplicate, 2 still rejected');
    expect(await views.tallies('shop')).toMatchObject([{ source: 'pbx', recorded: 1, duplicates: 0, rejected: {} }]);
    await run({ action: 'retry' });
    expect(await views.tallies('shop')).toMatchObject([{ source: 'pbx', recorded: 1, duplicates: 0, rejected: {} }]);
  });

  test('one alone, or those of one code', async () => {
    const { topic, run, json, stored } = world();
    await topic.write([1, 2, 3].map((offset) => toDeadLetter(delivery({ offset }), offset === 3 ? badUtf8 : wrongWorkspace)));
    expect(await json({ action: 'retry', id: 'cx/0/2' })).toMatchObject({ retried: 1, recorded: 1 });
    expect(await run({ action: 'retry', id: 'cx/0/2' })).toMatchObject({ code: 1, err: 'throughline dead-letters: cx.dead-letter has no open dead letter cx/0/2\n' });
    expect(await json({ action: 'retry', code: 'badUtf8' })).toMatchObject({ retried: 1, recorded: 1 });
    expect(await stored()).toEqual(['e0-2', 'e0-3']);
    expect(await json({ action: 'list' })).toMatchObject({ open: 1, resolved: 2 });
  });

  test('G1: a retry that dies before it could say so is taken up again, and records nothing twice', async () => {
    const { topic, run, json, stage, stored } = world();
    await topic.write([1, 2].map((offset) => toDeadLetter(delivery({ offset }), wrongWorkspace)));
    stage.write = () => { throw new OperatingError('sourceUnavailable', 'the broker is away'); };
    expect(await run({ action: 'retry' })).toMatchObject({ code: 1, err: 'throughline dead-letters: the broker is away (sourceUnavailable)\n' });
    expect(await stored()).toEqual(['e0-1', 'e0-2']);
    stage.write = () => undefined;
    expect(await json({ action: 'retry' })).toMatchObject({ retried: 2, recorded: 0, duplicate: 2, rejected: 0 });
    expect(await stored()).toHaveLength(2);
    expect(await json({ action: 'list' })).toMatchObject({ open: 0, resolved: 2 });
  });

  test('is judged by the rules of now: a larger event, a workspace that the topic lists since', async () => {
    const { topic, json, run } = world();
    await topic.write([toDeadLetter(delivery({ offset: 1, data: 'x'.repeat(5000) }), notJson), toDeadLetter(delivery({ offset: 2, workspace: 'bank' }), wrongWorkspace)]);
    expect(await json({ action: 'retry' })).toMatchObject({ recorded: 0, rejected: 2, codes: { tooLarge: 1, wrongWorkspace: 1 } });
    expect(await json({ action: 'retry', rules: { workspaces: ['shop', 'bank'], maxEventBytes: 8192 } })).toMatchObject({ recorded: 1, rejected: 1, codes: { wrongWorkspace: 1 } });
    expect(await json({ action: 'retry', rules: { workspaces: ['shop'], maxEventBytes: 8192 } })).toMatchObject({ recorded: 1, rejected: 0 });
    await topic.write([toDeadLetter(delivery({ offset: 3 }), notJson)]);
    expect((await run({ action: 'retry', rules: { workspaces: ['gone'], maxEventBytes: 8192 } })).err).toContain('workspaces create gone');
  });

  test('two records of the same coordinates, of a topic made anew, are both recorded', async () => {
    const { topic, json, stored } = world();
    const old = { ...delivery({ offset: 1 }), value: utf8(Buffer.from(delivery({ offset: 1 }).value!).toString('utf8').replace('e0-1', 'old')) };
    await topic.write([toDeadLetter(old, wrongWorkspace), toDeadLetter(delivery({ offset: 1 }), wrongWorkspace), toDeadLetter(delivery({ offset: 1 }), wrongWorkspace)]);
    expect(await json({ action: 'retry' })).toMatchObject({ retried: 1, recorded: 1 });
    expect(await stored()).toEqual(['old', 'e0-1']);
    expect(await json({ action: 'list' })).toMatchObject({ open: 0, resolved: 1 });
  });

  test('more than may be held at once goes part after part, in order', async () => {
    const { topic, json, stored } = world();
    const offsets = Array.from({ length: 40 }, (_, i) => (i * 7) % 40);
    const large = 'x'.repeat(1024 * 1024);
    await topic.write(offsets.map((offset) => toDeadLetter(delivery({ offset, data: large }), wrongWorkspace)));
    expect(await json({ action: 'retry', rules: { workspaces: ['shop'], maxEventBytes: 2 * 1024 * 1024 } })).toMatchObject({ retried: 40, recorded: 40 });
    expect(await stored()).toEqual(Array.from({ length: 40 }, (_, offset) => `e0-${offset}`));
  });
});
