// Ingest over a broker and stores in memory: what becomes of every record, whatever fails, moves or dies.
import { setImmediate as turn } from 'node:timers/promises';
import fc from 'fast-check';
import { isWorkspaceId, type WorkspaceKeys, workspaceKeys } from '../../schemas/identity.ts';
import { readRecorded } from '../../schemas/recorded.ts';
import { MemoryBroker } from '../../services/adapters/memory-source.ts';
import { MemoryEventStore } from '../../services/adapters/memory-events.ts';
import { MemoryViewStore } from '../../services/adapters/memory-views.ts';
import { coordinatesOf, readDeadLetterTopic } from '../../services/dead-letter.ts';
import { Door, type DoorLimits } from '../../services/door.ts';
import { OperatingError } from '../../services/errors.ts';
import { createIngest, type Ingest, type IngestOptions } from '../../services/ingest/ingest.ts';
import type { AppendResult, Delivery, EventStore, ExpectedRevision, NewEvent, OutgoingRecord, Source, Topic } from '../../services/ports.ts';

const NOW = Date.UTC(2026, 2, 2, 9);
const TOPIC = 'cx';
const LETTERS = 'cx.dead-letter';
const keysFor = (id: string): WorkspaceKeys => {
  if (!isWorkspaceId(id)) throw new Error('not an id');
  return workspaceKeys(id, Buffer.alloc(32, 7));
};
const utf8 = (text: string): Uint8Array => Buffer.from(text);
const textOf = (value: Uint8Array | null): string => (value === null ? '' : Buffer.from(value).toString('utf8'));

interface Given { readonly id: string; readonly identity?: string; readonly partition?: number; readonly workspace?: string; readonly data?: unknown; readonly headers?: OutgoingRecord['headers'] }
function structured({ id, identity = 'ana', partition = 0, workspace, data = {}, headers = {} }: Given): OutgoingRecord {
  const event = { specversion: '1.0', id, source: 'pbx', type: 'test.said', identity: `${identity}@example.com`, identitytype: 'email', data, ...(workspace === undefined ? {} : { workspace }) };
  return { key: utf8(identity), value: utf8(JSON.stringify(event)), headers: { 'content-type': utf8('application/cloudevents+json'), ...headers }, partition };
}
function binary(id: string, identity = 'ana', partition = 0): OutgoingRecord {
  const headers = { ce_specversion: '1.0', ce_id: id, ce_source: 'pbx', ce_type: 'test.said', ce_identity: `${identity}@example.com`, ce_identitytype: 'email', 'content-type': 'application/json' };
  return { key: utf8(identity), value: utf8('{}'), headers, partition };
}
const poison = (text = 'no event at all', partition = 0): OutgoingRecord => ({ key: utf8('k'), value: utf8(text), headers: { 'content-type': utf8('application/cloudevents+json'), kept: utf8('as it was') }, partition });

/** A store of which every append can be staged. */
class Staged implements EventStore {
  readonly inner: MemoryEventStore;
  readonly idsAreUnique: boolean;
  readonly storeId = 'test';
  /** Ids of the CloudEvents that stand. */
  readonly standing = new Set<string>();
  appends = 0;
  before: (call: number) => void | Promise<void> = () => undefined;
  after: (call: number) => void | Promise<void> = () => undefined;
  constructor(unique: boolean) {
    this.idsAreUnique = unique;
    this.inner = new MemoryEventStore({ storeId: 'test', idsAreUnique: unique });
  }
  async append(stream: string, expected: ExpectedRevision, events: readonly NewEvent[]): Promise<AppendResult> {
    const call = (this.appends += 1);
    await this.before(call);
    const answer = await this.inner.append(stream, expected, events);
    if (answer.kind === 'appended') for (const event of events) this.standing.add(cloudId(event));
    await this.after(call);
    return answer;
  }
  readStream(...args: Parameters<EventStore['readStream']>): ReturnType<EventStore['readStream']> { return this.inner.readStream(...args); }
  head(): ReturnType<EventStore['head']> { return this.inner.head(); }
  gap(...args: Parameters<EventStore['gap']>): ReturnType<EventStore['gap']> { return this.inner.gap(...args); }
  subscribe(...args: Parameters<EventStore['subscribe']>): ReturnType<EventStore['subscribe']> { return this.inner.subscribe(...args); }
  stats(): ReturnType<EventStore['stats']> { return this.inner.stats(); }
  close(): Promise<void> { return this.inner.close(); }
}
const cloudId = ({ metadata }: Pick<NewEvent, 'metadata'>): string => (JSON.parse(textOf(metadata)) as { a: { id: string } }).a.id;

/** Every sleep is over at the loop's next turn, so that whatever waits lets others go on and no test takes time. */
const soon = (ms: number, signal?: AbortSignal): Promise<void> => (signal?.aborted === true || ms < 0 ? Promise.resolve() : turn());

interface World {
  readonly broker: MemoryBroker; readonly store: Staged; readonly topic: Topic; readonly letters: Topic; readonly clock: { at: number; now(): number };
  /** Writes of dead letters are staged by this: it throws to stage a fault, before and after they stand. */
  readonly lettersStage: { before(call: number): void | Promise<void>; after(call: number): void };
}
function world(options: { readonly partitions?: number; readonly unique?: boolean; readonly letterPartitions?: number } = {}): World {
  const clock = { at: NOW, now: () => clock.at };
  const broker = new MemoryBroker({ clock, sleep: soon });
  broker.createTopic(TOPIC, options.partitions ?? 1);
  broker.createTopic(LETTERS, options.letterPartitions ?? options.partitions ?? 1);
  const inner = broker.topic(LETTERS);
  const lettersStage: World['lettersStage'] = { before: () => undefined, after: () => undefined };
  let writes = 0;
  const letters: Topic = {
    ...inner, name: inner.name, look: () => inner.look(), read: (given) => inner.read(given), close: () => inner.close(),
    write: async (records) => {
      const call = (writes += 1);
      await lettersStage.before(call);
      await inner.write(records);
      lettersStage.after(call);
    },
  };
  return { broker, store: new Staged(options.unique ?? false), topic: broker.topic(TOPIC), letters, clock, lettersStage };
}

interface Process { readonly ingest: Ingest; readonly door: Door; readonly faults: string[]; readonly stop: () => Promise<void>; readonly ended: Promise<void>; readonly pauses: number[] }
/** One ingest with a door of its own, as a process has it. */
function start(made: World, given: Partial<IngestOptions> & { readonly limits?: Partial<DoorLimits>; readonly maxBatch?: number; readonly wrap?: (source: Source) => IngestOptions['source'] } = {}): Process {
  const { limits, maxBatch, wrap = (source: Source) => source, ...options } = given;
  const idle = (_ms: number, signal?: AbortSignal): Promise<void> => (signal === undefined ? turn() : new Promise((resolve) => { signal.addEventListener('abort', () => resolve(), { once: true }); }));
  const door = new Door({ store: made.store, clock: made.clock, random: (size) => new Uint8Array(size), sleep: idle, tallies: new MemoryViewStore(), limits: { faultsMax: 2, ...limits } });
  const faults: string[] = [];
  const pauses: number[] = [];
  const source = made.broker.source({ topic: TOPIC, group: 'throughline', ...(maxBatch === undefined ? {} : { maxBatch }) });
  const ingest = createIngest({
    source: wrap(source), deadLetters: made.letters, door, keysOf: keysFor, workspaces: ['shop'], maxEventBytes: 4096, clock: made.clock, sleep: soon,
    onFault: (_fault, { ms, reason }) => { faults.push(reason); pauses.push(ms); }, ...options,
  });
  const stopping = new AbortController();
  const ended = ingest.run(stopping.signal);
  ended.catch(() => undefined);
  return {
    ingest, door, faults, pauses, ended,
    stop: async () => {
      stopping.abort();
      await ended;
      await door.drain();
    },
  };
}

async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
  for (let turns = 0; !(await holds()); turns += 1) {
    if (turns > 20_000) throw new Error('it never came to hold');
    await turn();
  }
}
const gapsOf = (made: World): ReturnType<Source['gaps']> => made.broker.source({ topic: TOPIC, group: 'throughline' }).gaps();
const drained = async (made: World): Promise<boolean> => (await gapsOf(made)).every(({ gap }) => gap === 0);
async function recordsOf(topic: Topic): Promise<readonly Delivery[]> {
  const all: Delivery[] = [];
  for await (const deliveries of topic.read({ signal: new AbortController().signal })) all.push(...deliveries);
  return all;
}
/** Ids of the CloudEvents in the order of the log, by identity. */
async function storedBy(made: World): Promise<ReadonlyMap<string, readonly string[]>> {
  const stored = new Map<string, string[]>();
  const stop = new AbortController();
  if ((await made.store.head()) === null) return stored;
  for await (const { events, caughtUp } of made.store.subscribe({ after: null, prefixes: ['identity.'], maxBatch: 1000, signal: stop.signal })) {
    for (const event of events) {
      const { identity } = readRecorded(event);
      stored.set(identity.value, [...(stored.get(identity.value) ?? []), cloudId(event)]);
    }
    if (caughtUp) stop.abort();
  }
  return stored;
}
const isBalanced = ({ ingest }: Process): boolean => {
  const { received, recorded, duplicates, deadLettered, returned, underWay } = ingest.counts();
  return received === recorded + duplicates + deadLettered + returned + underWay;
};

describe('what becomes of a record', () => {
  test('structured and binary events are recorded in order, with where they came from, and nothing is left on the topic', async () => {
    const made = world({ partitions: 2 });
    await made.topic.write([structured({ id: 'a' }), binary('b'), structured({ id: 'c', identity: 'ben', partition: 1 }), structured({ id: 'd' })]);
    const process = start(made);
    await until(() => drained(made));
    expect(await storedBy(made)).toEqual(new Map([['ana@example.com', ['a', 'b', 'd']], ['ben@example.com', ['c']]]));
    const [first] = await made.store.readStream((await firstStream(made)) ?? '', { direction: 'forward', limit: 3 });
    expect(readRecorded(first!).origin).toEqual({ topic: TOPIC, partition: 0, offset: '0' });
    expect(process.ingest.counts()).toEqual({
      received: 4, recorded: 4, duplicates: 0, deadLettered: 0, rejected: {}, returned: 0, underWay: 0, keyless: 0, batches: 2,
      partitions: [{ topic: TOPIC, partition: 0, paused: false, gap: 0 }, { topic: TOPIC, partition: 1, paused: false, gap: 0 }],
    });
    expect(process.ingest.readiness()).toEqual({ ok: true, reasons: [] });
    await process.stop();
    expect(process.ingest.readiness()).toEqual({ ok: false, reasons: ['the topic is not followed'] });
  });

  test('G4: a rejected record goes to the dead letters with its original bytes, key and headers, on its own partition, with the reason', async () => {
    const made = world({ partitions: 3 });
    const bytes = Buffer.from([0xff, 0x00, 0xfe, 0x7b]);
    const binaryHeaders = { 'content-type': bytes, twice: [utf8('one'), bytes], empty: new Uint8Array(0) };
    await made.topic.write([poison('x', 2), { key: bytes, value: bytes, headers: binaryHeaders, partition: 2 }, { key: null, value: null, headers: {}, partition: 2 }, structured({ id: 'a', partition: 2 })]);
    const process = start(made);
    await until(() => drained(made));
    const originals = await recordsOf(made.topic);
    const letters = await recordsOf(made.letters);
    expect(letters.map(({ partition }) => partition)).toEqual([2, 2, 2]);
    const read = letters.map((letter) => readDeadLetterTopic(letter));
    for (const [i, one] of read.entries()) {
      const { key, value, headers } = originals[i]!;
      expect(one).toMatchObject({ kind: 'deadLetter', deadLetter: { key, value, headers, origin: { topic: TOPIC, partition: 2, offset: String(i) } } });
      expect(letters[i]).toMatchObject({ key, value, headers });
    }
    const headersOf = (letter: Delivery): Record<string, string> => Object.fromEntries(Object.entries(letter.headers).filter(([name]) => /^(__connect|throughline)\./.test(name)).map(([name, value]) => [name, textOf(value as Uint8Array)]));
    expect(headersOf(letters[0]!)).toEqual({
      '__connect.errors.topic': TOPIC, '__connect.errors.partition': '2', '__connect.errors.offset': '0', '__connect.errors.connector.name': 'throughline',
      '__connect.errors.stage': 'VALUE_CONVERTER', '__connect.errors.class.name': 'org.throughline.Ingest', '__connect.errors.exception.class.name': 'org.throughline.Rejected.notJson',
      '__connect.errors.exception.message': 'the body is not valid JSON', 'throughline.code': 'notJson', 'throughline.attribute': '',
    });
    expect(process.ingest.counts()).toMatchObject({ received: 4, recorded: 1, deadLettered: 3, rejected: { notJson: 1, badUtf8: 1, notACloudEvent: 1 }, keyless: 1 });
    await process.stop();
  });

  test('a dead letter that is put back on the topic as it was is rejected again, and read back as what it was', async () => {
    const made = world();
    await made.topic.write([poison()]);
    const process = start(made);
    await until(() => drained(made));
    const [letter] = await recordsOf(made.letters);
    await made.topic.write([{ key: letter!.key, value: letter!.value, headers: letter!.headers, partition: 0 }]);
    await until(async () => (await recordsOf(made.letters)).length === 2);
    const [, again] = await recordsOf(made.letters);
    const read = readDeadLetterTopic(again!);
    expect(read).toMatchObject({ kind: 'deadLetter', deadLetter: { origin: { topic: TOPIC, partition: 0, offset: '1' }, headers: letter!.headers, value: letter!.value } });
    await process.stop();
  });

  test('G8: an event goes to the workspace that it names among those listed; without a name, or with another, it is rejected', async () => {
    const made = world();
    await made.topic.write([structured({ id: 'a', workspace: 'shop' }), structured({ id: 'b', workspace: 'bank' }), structured({ id: 'c' }), structured({ id: 'd', workspace: 'spy' })]);
    const process = start(made, { workspaces: ['shop', 'bank'] });
    await until(() => drained(made));
    expect(process.ingest.counts()).toMatchObject({ recorded: 2, deadLettered: 2, rejected: { wrongWorkspace: 2 } });
    const letters = (await recordsOf(made.letters)).map((letter) => readDeadLetterTopic(letter));
    expect(letters).toMatchObject([{ deadLetter: { code: 'wrongWorkspace', attribute: 'workspace', stage: 'TASK_PUT', origin: { offset: '2' } } }, { deadLetter: { origin: { offset: '3' } } }]);
    await process.stop();

    const alone = world();
    await alone.topic.write([structured({ id: 'a', workspace: 'shop' }), structured({ id: 'b', workspace: 'bank' })]);
    const single = start(alone);
    await until(() => drained(alone));
    expect(single.ingest.counts()).toMatchObject({ recorded: 1, rejected: { wrongWorkspace: 1 } });
    expect(single.door.counts().rejected).toEqual({ wrongWorkspace: 1 });
    const [letter] = await recordsOf(alone.letters);
    expect(readDeadLetterTopic(letter!)).toMatchObject({ deadLetter: { code: 'wrongWorkspace', attribute: 'workspace', reason: 'the event names a workspace that the topic may not write to' } });
    await single.stop();
  });

  test('reasons on dead letters hold no value of the event', async () => {
    const made = world();
    const secret = 'ana.secret@example.com';
    const event = { specversion: '1.0', id: 'x', source: 'pbx', type: 't', identity: secret, identitytype: 'email' };
    const bad: object[] = [
      { ...event, time: secret }, { ...event, specversion: secret }, { ...event, datacontenttype: secret }, { ...event, [secret]: 'x' }, { ...event, identitytype: null },
      { ...event, id: [secret] }, { ...event, data_base64: secret }, { ...event, workspace: secret }, { ...event, identity: `${secret}\u0000` }, { ...event, subject: '' }, { ...event, age: 1e300 },
    ];
    await made.topic.write([...bad.map((one) => JSON.stringify(one)), `{"a":"${secret}"`, `["${secret}"]`, secret].map((text) => poison(text)));
    const process = start(made);
    await until(() => drained(made));
    const letters = await recordsOf(made.letters);
    expect(letters).toHaveLength(14);
    for (const { headers } of letters) for (const [name, value] of Object.entries(headers)) expect(`${name}: ${textOf(value as Uint8Array)}`).not.toMatch(/secret|example\.com/);
    await process.stop();
  });

  test('who writes dead letters says so once a batch: the partition, how many and the codes; what stands already is not told again', async () => {
    const made = world({ partitions: 2 });
    const told: unknown[] = [];
    const tombstone = { key: utf8('k'), value: null, headers: { 'content-type': 'application/cloudevents+json' }, partition: 1 };
    await made.topic.write([poison('x', 1), structured({ id: 'a', partition: 1 }), structured({ id: 'b', partition: 1, workspace: 'bank' }), tombstone, structured({ id: 'c', identity: 'ben' })]);
    let away = true;
    made.store.before = () => { if (away) throw new OperatingError('storeUnavailable', 'the store is away'); };
    const process = start(made, { onDeadLetters: (one) => void told.push(one) });
    await until(() => process.pauses.length > 4);
    away = false;
    await until(() => drained(made));
    expect(told).toEqual([{ partition: 1, count: 3, codes: { notJson: 2, wrongWorkspace: 1 } }]);
    expect((await recordsOf(made.letters)).map((letter) => readDeadLetterTopic(letter))).toContainEqual(expect.objectContaining({ deadLetter: expect.objectContaining({ reason: 'the record is empty' }) }));
    await process.stop();
  });

  test('a dead-letter topic with fewer partitions takes them all the same', async () => {
    const made = world({ partitions: 4, letterPartitions: 1 });
    await made.topic.write([poison('a', 3), poison('b', 1)]);
    const process = start(made);
    await until(() => drained(made));
    expect(await recordsOf(made.letters)).toHaveLength(2);
    await process.stop();
  });
});

async function firstStream(made: World): Promise<string | null> {
  const stop = new AbortController();
  for await (const { events } of made.store.subscribe({ after: null, prefixes: [], maxBatch: 1, signal: stop.signal })) return events[0]?.stream ?? null;
  return null;
}

describe('when something is slow or gone', () => {
  test('a topic that cannot be read makes it unready, and says why', async () => {
    const made = world();
    const process = start(made);
    expect(process.ingest.readiness()).toEqual({ ok: true, reasons: [] });
    made.broker.deleteTopic(TOPIC);
    expect(process.ingest.readiness()).toEqual({ ok: false, reasons: ['the topic cannot be read: there is no such topic'] });
    await process.stop();
    expect(process.ingest.readiness().reasons).toEqual(['the topic is not followed']);
  });

  test('the partitions that it counts are those assigned to it, before anything came of them and after one moved', async () => {
    const made = world({ partitions: 2 });
    const first = start(made);
    const assigned = ({ ingest }: Process): readonly number[] => ingest.counts().partitions.map(({ partition }) => partition);
    expect(assigned(first)).toEqual([0, 1]);
    await made.topic.write([structured({ id: 'a', partition: 1 })]);
    await until(() => drained(made));
    const second = start(made);
    expect([assigned(first), assigned(second)]).toEqual([[0], [1]]);
    await Promise.all([first.stop(), second.stop()]);
    expect([assigned(first), assigned(second)]).toEqual([[], []]);
  });

  test('G1: a store that is gone pauses the partition, longer each time up to a bound, says so, and drops nothing', async () => {
    const made = world({ partitions: 2 });
    let down = true;
    made.store.before = () => { if (down) throw new OperatingError('storeUnavailable', 'the store is away'); };
    await made.topic.write([structured({ id: 'a' }), structured({ id: 'b', identity: 'ben', partition: 1 })]);
    const process = start(made);
    await until(() => process.pauses.length >= 20);
    expect(process.pauses.filter((_, i) => i % 2 === 0).slice(0, 8)).toEqual([250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
    expect(process.ingest.readiness().ok).toBe(false);
    expect(process.ingest.readiness().reasons).toContain('partition 0 of cx stands still: the event store did not take the events in time (storeUnavailable)');
    expect(process.ingest.counts()).toMatchObject({ recorded: 0, deadLettered: 0, partitions: [{ paused: true, gap: 1 }, { paused: true, gap: 1 }] });
    expect((await gapsOf(made)).map(({ gap }) => gap)).toEqual([1, 1]);
    down = false;
    await until(() => drained(made));
    await until(() => process.ingest.readiness().ok);
    expect(process.ingest.counts()).toMatchObject({ recorded: 2, underWay: 0 });
    expect(isBalanced(process)).toBe(true);
    await process.stop();
  });

  test('G4: a dead letter that cannot be written stops its partition, and only that; what stands is not written again', async () => {
    const made = world({ partitions: 2 });
    let broken = true;
    // The first write stands though its answer is lost; the partition's later ones are refused.
    made.lettersStage.before = (call) => { if (broken && call > 1) throw new OperatingError('sourceUnavailable', 'the broker is away'); };
    made.lettersStage.after = (call) => { if (call === 1) throw new OperatingError('sourceUnavailable', 'the answer is lost'); };
    await made.topic.write([structured({ id: 'a' }), poison(), structured({ id: 'b' }), structured({ id: 'c', identity: 'ben', partition: 1 })]);
    const process = start(made);
    await until(() => process.pauses.length >= 4);
    expect((await gapsOf(made)).map(({ gap }) => gap)).toEqual([2, 0]);
    expect(process.ingest.readiness().reasons).toEqual(['partition 0 of cx stands still: dead letters cannot be written: the broker is away (sourceUnavailable)']);
    expect(process.pauses).toEqual([250, 250, 500, 1000]);
    broken = false;
    await until(() => drained(made));
    const letters = (await recordsOf(made.letters)).map((letter) => readDeadLetterTopic(letter));
    expect(letters.map((one) => (one.kind === 'deadLetter' ? coordinatesOf(one.deadLetter.origin) : one.kind))).toEqual(['cx/0/1', 'cx/0/1']);
    await until(() => process.ingest.readiness().ok);
    expect(isBalanced(process)).toBe(true);
    await process.stop();
  });

  test('a record behind one that cannot be stored is dead-lettered once, however often they are delivered', async () => {
    const made = world();
    let down = true;
    made.store.before = () => { if (down) throw new OperatingError('storeUnavailable', 'the store is away'); };
    await made.topic.write([structured({ id: 'a' }), poison(), poison('y')]);
    const process = start(made);
    await until(() => process.pauses.length >= 5);
    down = false;
    await until(() => drained(made));
    expect(await recordsOf(made.letters)).toHaveLength(2);
    expect(isBalanced(process)).toBe(true);
    await process.stop();
  });

  test('a door that is full is asked again, and then the partition is paused', async () => {
    const made = world();
    const gate = Promise.withResolvers<undefined>();
    made.store.before = () => gate.promise;
    const limits = { inFlightEventsMax: 600 };
    await made.topic.write(Array.from({ length: 1200 }, (_, i) => structured({ id: `e${i}`, identity: `c${i % 7}` })));
    const process = start(made, { limits, maxBatch: 2000 });
    await until(() => process.door.counts().inFlightEvents === 500);
    for (let turns = 0; turns < 200; turns += 1) await turn();
    gate.resolve(undefined);
    await until(() => drained(made));
    expect(process.ingest.counts()).toMatchObject({ recorded: 1200, deadLettered: 0, underWay: 0 });
    const stored = await storedBy(made);
    for (let c = 0; c < 7; c += 1) expect(stored.get(`c${c}@example.com`)).toEqual(Array.from({ length: 1200 }, (_, i) => `e${i}`).filter((_, i) => i % 7 === c));
    expect(isBalanced(process)).toBe(true);
    await process.stop();
  });

  test('a fault that no retry helps ends the ingest, with nothing passed', async () => {
    const made = world();
    made.store.before = () => { throw new OperatingError('storeFull', 'the disk is full'); };
    await made.topic.write([structured({ id: 'a' })]);
    const process = start(made);
    await expect(process.ended).rejects.toMatchObject({ code: 'storeFull' });
    expect((await gapsOf(made))[0]?.gap).toBe(1);
    expect(process.ingest.readiness().ok).toBe(false);
  });

  test('a workspace that is not there yet pauses the partition until it is', async () => {
    const made = world();
    let there = false;
    await made.topic.write([structured({ id: 'a' })]);
    const process = start(made, { keysOf: (id) => (there ? keysFor(id) : null) });
    await until(() => process.pauses.length >= 2);
    expect(process.ingest.readiness().reasons[0]).toContain('workspaces create shop');
    there = true;
    await until(() => drained(made));
    expect(process.ingest.counts()).toMatchObject({ recorded: 1 });
    await process.stop();
  });

  test('a batch that does not become durable is told of, and a lost partition has nothing more to say', async () => {
    const made = world();
    const gate = Promise.withResolvers<undefined>();
    made.store.before = () => gate.promise;
    await made.topic.write([structured({ id: 'a' })]);
    const process = start(made);
    await until(() => made.store.appends === 1);
    made.clock.at += 31_000;
    expect(process.ingest.readiness().reasons).toEqual(['partition 0 of cx has waited 31 s for a batch to become durable']);
    // Joins, and the partition is moved: a member of one partition keeps it, so the first has to leave.
    const other = start(made);
    const left = process.stop();
    gate.resolve(undefined);
    await left;
    await until(() => drained(made));
    expect(other.ingest.readiness().ok).toBe(true);
    await other.stop();
    expect(await storedBy(made)).toEqual(new Map([['ana@example.com', ['a']]]));
  });

  test('told to stop, what is under way still passes, so that it is not delivered again', async () => {
    const made = world();
    const gate = Promise.withResolvers<undefined>();
    made.store.before = () => gate.promise;
    await made.topic.write([structured({ id: 'a' }), poison(), structured({ id: 'b' })]);
    // The last moment is a real one here: it ends when what is under way has.
    const process = start(made, { sleep: (_ms, signal) => new Promise((resolve) => { signal?.addEventListener('abort', () => resolve(), { once: true }); }) });
    await until(() => made.store.appends === 1);
    const stopped = process.stop();
    gate.resolve(undefined);
    await stopped;
    expect(await drained(made)).toBe(true);
  });

  test('a large batch lets others have their turn while it is decoded', async () => {
    const made = world();
    await made.topic.write(Array.from({ length: 5000 }, (_, i) => structured({ id: `e${i}`, identity: `c${i % 100}` })));
    const process = start(made, { maxBatch: 5000 });
    let turns = 0;
    await until(() => { turns += 1; return process.ingest.counts().recorded + process.ingest.counts().underWay >= 5000 && process.door.counts().recorded >= 4500; });
    expect(turns).toBeGreaterThan(8);
    await until(() => drained(made));
    await process.stop();
  });
});

// ---- whatever happens ----------------------------------------------------------------------------------------------------

/** What a topic is sent: by identity, in order, each perhaps again; poison between. */
interface Sent { readonly record: OutgoingRecord; readonly identity: string; readonly id: string | null }
const IDENTITIES = ['ana', 'ben', 'cleo', 'dan'];

/** A source whose consumer can be cut off as by SIGKILL: what it passes from then on never arrives. Checks what is passed at the moment when it is (G1). */
function fragile(source: Source, made: World, sentAt: (delivery: Delivery) => Sent, dead: { is: boolean }, buried: ReadonlySet<string>, wrong: string[]): IngestOptions['source'] {
  return {
    assigned: () => source.assigned(), trouble: () => source.trouble(),
    follow: ({ signal, handle }) => source.follow({
      signal,
      handle: (batch) => handle({
        ...batch,
        passed: (index) => {
          if (dead.is) return;
          for (const delivery of batch.deliveries.slice(0, index + 1)) {
            const { id } = sentAt(delivery);
            if (id === null ? !buried.has(coordinatesOf(delivery)) : !made.store.standing.has(id)) wrong.push(coordinatesOf(delivery));
          }
          batch.passed(index);
        },
      }),
    }),
  };
}

describe.each([{ name: 'a store that knows its ids', unique: true }, { name: 'a store that does not', unique: false }])('before $name', ({ unique }) => {
  test('G1, G2, G4: whatever fails, moves or dies, every record is stored once and in order, or stands as a dead letter, and no offset passes before', async () => {
    const step = fc.oneof(
      { weight: 4, arbitrary: fc.record({ kind: fc.constant('send' as const), what: fc.array(fc.record({ identity: fc.nat(3), kind: fc.constantFrom('new', 'new', 'new', 'again', 'poison') }), { minLength: 1, maxLength: 12 }) }) },
      { weight: 2, arbitrary: fc.record({ kind: fc.constantFrom('join', 'leave', 'kill') }) },
      { weight: 3, arbitrary: fc.record({ kind: fc.constant('wait' as const), turns: fc.nat(30) }) },
    );
    const calls = fc.array(fc.integer({ min: 1, max: 30 }), { maxLength: 6 });
    const options = fc.record({ steps: fc.array(step, { minLength: 3, maxLength: 25 }), appendLost: calls, appendFailed: calls, letterLost: calls, letterFailed: calls, maxBatch: fc.integer({ min: 1, max: 9 }) });
    await fc.assert(fc.asyncProperty(options, async ({ steps, appendLost, appendFailed, letterLost, letterFailed, maxBatch }) => {
      const made = world({ partitions: 3, unique });
      const gone = (): never => { throw new OperatingError('storeUnavailable', 'away'); };
      made.store.before = async (call) => { await turn(); if (appendFailed.includes(call)) gone(); };
      made.store.after = async (call) => { await turn(); if (appendLost.includes(call)) gone(); };
      made.lettersStage.before = async (call) => { await turn(); if (letterFailed.includes(call)) gone(); };
      made.lettersStage.after = (call) => { if (letterLost.includes(call)) gone(); };
      const sent: Sent[][] = [[], [], []];
      const buried = new Set<string>();
      // Looked up in what stands, however it came there.
      const inner = made.letters.write.bind(made.letters);
      const letters: Topic = { ...made.letters, write: async (records) => {
        try {
          await inner(records);
        } finally {
          for (const letter of await recordsOf(made.broker.topic(LETTERS))) {
            const read = readDeadLetterTopic(letter);
            if (read.kind === 'deadLetter') buried.add(coordinatesOf(read.deadLetter.origin));
          }
        }
      } };
      const wrong: string[] = [];
      const alive: { process: Process; dead: { is: boolean } }[] = [];
      const all: Process[] = [];
      const join = (): void => {
        const dead = { is: false };
        const process = start(made, { maxBatch, deadLetters: letters, wrap: (source) => fragile(source, made, ({ partition, offset }) => sent[partition]![Number(offset)]!, dead, buried, wrong) });
        alive.push({ process, dead });
        all.push(process);
      };
      join();
      let next = 0;
      for (const one of steps) {
        switch (one.kind) {
          case 'send': {
            const records: OutgoingRecord[] = [];
            for (const { identity: at, kind } of one.what) {
              const identity = IDENTITIES[at]!;
              const partition = at % 3;
              const before = sent[partition]!.filter((other) => other.id !== null && other.identity === identity);
              const id = kind === 'poison' ? null : kind === 'again' && before.length > 0 ? before[before.length - 1]!.id : `e${(next += 1)}`;
              const record = id === null ? poison(`poison ${(next += 1)}`, partition) : structured({ id, identity, partition });
              sent[partition]!.push({ record, identity, id });
              records.push(record);
            }
            await made.topic.write(records);
            break;
          }
          case 'join': if (alive.length < 3) join(); break;
          case 'leave': if (alive.length > 1) await alive.shift()!.process.stop(); break;
          case 'kill': {
            const gone = alive.shift()!;
            gone.dead.is = true;
            // Nobody waits for one that was killed; what it has in flight may still arrive.
            void gone.process.stop();
            if (alive.length === 0) join();
            break;
          }
          case 'wait': for (let turns = 0; turns < one.turns; turns += 1) await turn();
        }
      }
      await until(() => drained(made));
      await Promise.all(all.map((process) => process.stop()));
      expect(wrong).toEqual([]);
      const stored = await storedBy(made);
      for (const [at, identity] of IDENTITIES.entries()) {
        const expected = [...new Set(sent[at % 3]!.filter((one) => one.identity === identity && one.id !== null).map(({ id }) => id))];
        expect(stored.get(`${identity}@example.com`) ?? []).toEqual(expected);
      }
      const poisoned = sent.flatMap((records, partition) => records.flatMap(({ id }, offset) => (id === null ? [`${TOPIC}/${partition}/${offset}`] : [])));
      expect([...buried].sort()).toEqual(poisoned.sort());
      expect(all.every(isBalanced)).toBe(true);
      expect(all.every(({ ingest }) => ingest.counts().underWay === 0)).toBe(true);
      const originals = new Map((await recordsOf(made.topic)).map((record) => [coordinatesOf(record), record]));
      for (const letter of await recordsOf(made.letters)) {
        const read = readDeadLetterTopic(letter);
        if (read.kind !== 'deadLetter') throw new Error('a dead letter');
        const original = originals.get(coordinatesOf(read.deadLetter.origin))!;
        expect(read.deadLetter).toMatchObject({ key: original.key, value: original.value, headers: original.headers });
      }
    }), { numRuns: 60 });
  });
});
