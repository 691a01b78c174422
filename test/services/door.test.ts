// The door over the memory store, in both ways that a store can treat event ids: what EventStoreDB does is what the door
// has to make up for.
import { createHash } from 'node:crypto';
import fc from 'fast-check';
import type { CloudEvent, Decoded } from '../../schemas/cloudevent.ts';
import { isWorkspaceId, type WorkspaceKeys, workspaceKeys } from '../../schemas/identity.ts';
import { readRecorded } from '../../schemas/recorded.ts';
import { parseInstant } from '../../schemas/time.ts';
import { MemoryEventStore } from '../../services/adapters/memory-events.ts';
import { MemoryViewStore } from '../../services/adapters/memory-views.ts';
import { Door, type DoorLimits, OTHER_SOURCES, type Receipt } from '../../services/door.ts';
import { OperatingError } from '../../services/errors.ts';
import type { AppendResult, EventStore, ExpectedRevision, NewEvent, RecordedEvent } from '../../services/ports.ts';

const NOW = Date.UTC(2026, 2, 2, 9);
const keysOf = (id: string): WorkspaceKeys => {
  if (!isWorkspaceId(id)) throw new Error('not an id');
  return workspaceKeys(id, Buffer.alloc(32, 7));
};
const keys = keysOf('shop');

interface Given { readonly id?: string; readonly identity?: string; readonly source?: string; readonly data?: string; readonly time?: string; readonly workspace?: string }
function event(given: Given = {}): Decoded {
  const { id = 'e1', identity = 'ana@example.com', source = 'pbx', data = '{}', time, workspace } = given;
  const attributes = { specversion: '1.0', id, source, type: 'test.said', identity, identitytype: 'email', ...(time === undefined ? {} : { time }), ...(workspace === undefined ? {} : { workspace }) };
  const cloudEvent: CloudEvent = { id, source, type: 'test.said', time: time === undefined ? null : parseInstant(time), attributes, dataKind: 'json', data: Buffer.from(data) };
  return { kind: 'event', event: cloudEvent };
}
const events = (count: number, given: Given = {}, prefix = 'e'): Decoded[] => Array.from({ length: count }, (_, i) => event({ ...given, id: `${prefix}${i}` }));
const rejectedEvent: Decoded = { kind: 'rejected', source: 'pbx', rejection: { code: 'missingAttribute', attribute: 'id', reason: 'id is missing' } };

/** The store as a test wants it: counts calls, and can lose replies or fail. */
class Staged implements EventStore {
  readonly inner: EventStore;
  readonly calls = { append: 0, read: 0, readEvents: 0 };
  readonly appends: number[] = [];
  /** Called before and after each append; throws to stage a fault. */
  before: (call: number) => void | Promise<void> = () => undefined;
  after: (call: number) => void = () => undefined;
  constructor(inner: EventStore) { this.inner = inner; }
  get storeId(): string { return this.inner.storeId; }
  get idsAreUnique(): boolean { return this.inner.idsAreUnique; }
  async append(stream: string, expected: ExpectedRevision, added: readonly NewEvent[]): Promise<AppendResult> {
    const call = (this.calls.append += 1);
    this.appends.push(added.length);
    await this.before(call);
    const answer = await this.inner.append(stream, expected, added);
    this.after(call);
    return answer;
  }
  async readStream(stream: string, options: Parameters<EventStore['readStream']>[1]): Promise<readonly RecordedEvent[]> {
    this.calls.read += 1;
    const found = await this.inner.readStream(stream, options);
    this.calls.readEvents += found.length;
    return found;
  }
  head(): ReturnType<EventStore['head']> { return this.inner.head(); }
  gap(position: Parameters<EventStore['gap']>[0]): ReturnType<EventStore['gap']> { return this.inner.gap(position); }
  subscribe(options: Parameters<EventStore['subscribe']>[0]): ReturnType<EventStore['subscribe']> { return this.inner.subscribe(options); }
  stats(): ReturnType<EventStore['stats']> { return this.inner.stats(); }
  close(): Promise<void> { return this.inner.close(); }
}

interface Setup { readonly door: Door; readonly store: Staged; readonly views: MemoryViewStore; readonly clock: { now: () => number; at: number }; readonly slept: number[] }
/** Sleeps of the back-off end at once; the second between two writes of the counts never does before the door is drained. */
function setup(options: { unique?: boolean; store?: Staged; limits?: Partial<DoorLimits> } = {}): Setup {
  const store = options.store ?? new Staged(new MemoryEventStore({ storeId: 'test', idsAreUnique: options.unique ?? true }));
  const views = new MemoryViewStore();
  const clock = { at: NOW, now: () => clock.at };
  const slept: number[] = [];
  const sleep = (ms: number, signal?: AbortSignal): Promise<void> => {
    if (signal === undefined) { slept.push(ms); return Promise.resolve(); }
    return new Promise((resolve) => {
      if (signal.aborted) resolve();
      else signal.addEventListener('abort', () => resolve(), { once: true });
    });
  };
  const door = new Door({ store, clock, random: (size) => new Uint8Array(size), sleep, tallies: views, ...(options.limits === undefined ? {} : { limits: options.limits }) });
  return { door, store, views, clock, slept };
}

const kinds = (receipts: readonly Receipt[]): string[] => receipts.map((receipt) => receipt.kind);
const streamOf = (receipts: readonly Receipt[]): string => {
  const [first] = receipts;
  if (first === undefined || first.kind === 'rejected') throw new Error('nothing was accepted');
  return first.stream;
};
async function stored(store: EventStore, stream: string): Promise<string[]> {
  const found = await store.readStream(stream, { direction: 'forward', limit: 1_000_000 });
  return found.map(({ metadata }) => (JSON.parse(Buffer.from(metadata).toString('utf8')) as { a: { id: string } }).a.id);
}

describe.each([{ name: 'a store that knows its ids', unique: true }, { name: 'a store that does not', unique: false }])('the door before $name', ({ unique }) => {
  test('answers in the order of the input, once everything is durable', async () => {
    const { door, store } = setup({ unique });
    const receipts = await door.receive(keys, [event({ id: 'a' }), rejectedEvent, event({ id: 'b', identity: 'ben@example.com' }), event({ id: 'c' })]);
    expect(kinds(receipts)).toEqual(['recorded', 'rejected', 'recorded', 'recorded']);
    expect(receipts.map((receipt) => (receipt.kind === 'rejected' ? receipt.rejection.code : receipt.id))).toEqual(['a', 'missingAttribute', 'b', 'c']);
    expect(await stored(store, streamOf(receipts))).toEqual(['a', 'c']);
    expect(store.appends.sort()).toEqual([1, 2]);
  });

  test('G1: a redelivery is a duplicate at the position of the first, within a call, over calls and after the door forgot', async () => {
    const { door, store } = setup({ unique });
    const [first] = await door.receive(keys, [event()]);
    const again = await door.receive(keys, [event(), event()]);
    expect(kinds(again)).toEqual(['duplicate', 'duplicate']);
    const elsewhere = setup({ store });
    // A new door tries the stream as new and learns what it holds. A store without unique ids may take exactly the same
    // append for its own retry: it stands once all the same.
    const later = await elsewhere.door.receive(keys, [event({ id: 'other' }), event()]);
    expect(kinds(later)).toEqual(['recorded', 'duplicate']);
    for (const receipt of [...again, later[1]]) expect(receipt).toMatchObject({ position: first?.kind === 'recorded' ? first.position : 'none' });
    expect(await stored(store, streamOf(again))).toEqual(['e1', 'other']);
  });

  test('the same id with other content is kept, and counted as reused', async () => {
    const { door, store, views } = setup({ unique });
    const receipts = await door.receive(keys, [event({ data: '1' }), event({ data: '2' }), event({ data: '1' }), event({ data: '3', source: 'other' })]);
    expect(kinds(receipts)).toEqual(['recorded', 'recorded', 'duplicate', 'recorded']);
    expect(await stored(store, streamOf(receipts))).toHaveLength(3);
    expect(door.counts()).toMatchObject({ recorded: 3, duplicates: 1, reusedIds: 1 });
    await door.drain();
    expect(await views.tallies('shop')).toMatchObject([{ source: 'other', recorded: 1, reusedIds: 0 }, { source: 'pbx', recorded: 2, duplicates: 1, reusedIds: 1 }]);
  });

  test('a second door in the same stream costs conflicts, no duplicates', async () => {
    const one = setup({ unique });
    const two = setup({ store: one.store });
    for (let round = 0; round < 5; round += 1) {
      await one.door.receive(keys, events(3, {}, `one${round}-`));
      await two.door.receive(keys, [...events(3, {}, `one${round}-`), event({ id: `two${round}` })]);
    }
    const receipts = await one.door.receive(keys, [event({ id: 'last' })]);
    const ids = await stored(one.store, streamOf(receipts));
    expect(new Set(ids).size).toBe(ids.length);
    expect(ids).toHaveLength(21);
    expect(one.door.counts()).toMatchObject({ recorded: 16, duplicates: 0 });
    expect(two.door.counts()).toMatchObject({ recorded: 5, duplicates: 15 });
    expect(two.door.counts().conflicts).toBeGreaterThan(0);
  });

  test('G1: an append whose answer is lost is found, counted as recorded and not written again', async () => {
    const { door, store } = setup({ unique });
    store.after = (call) => { if (call === 2) throw new Error('the connection was reset'); };
    await door.receive(keys, [event({ id: 'a' })]);
    const receipts = await door.receive(keys, [event({ id: 'b' }), event({ id: 'c' })]);
    expect(kinds(receipts)).toEqual(['recorded', 'recorded']);
    expect(receipts.every((receipt) => receipt.kind === 'recorded' && receipt.position !== null)).toBe(true);
    expect(await stored(store, streamOf(receipts))).toEqual(['a', 'b', 'c']);
    expect(door.counts()).toMatchObject({ recorded: 3, duplicates: 0, reusedIds: 0, faults: 1 });
  });

  test('an append that never arrived is sent again', async () => {
    const { door, store, slept } = setup({ unique });
    store.before = (call) => { if (call <= 3) throw new OperatingError('storeBusy', 'busy'); };
    const receipts = await door.receive(keys, events(2));
    expect(kinds(receipts)).toEqual(['recorded', 'recorded']);
    expect(await stored(store, streamOf(receipts))).toEqual(['e0', 'e1']);
    expect(slept).toEqual([10, 20, 40]);
  });

  test('G2: what waits behind a failed append fails too, so that nothing overtakes it', async () => {
    const { door, store } = setup({ unique, limits: { faultsMax: 2 } });
    // Up again in time for b and c: they must not be written while a is not.
    store.before = (call) => { if (call <= 2) throw new OperatingError('storeUnavailable', 'down'); };
    const calls = [door.receive(keys, [event({ id: 'a' })]), door.receive(keys, [event({ id: 'b' })]), door.receive(keys, [event({ id: 'c' })])];
    const outcomes = await Promise.allSettled(calls);
    expect(outcomes.map(({ status }) => status)).toEqual(['rejected', 'rejected', 'rejected']);
    await expect(calls[0]).rejects.toMatchObject({ code: 'storeUnavailable', retriable: true });
    expect(door.counts()).toMatchObject({ recorded: 0, failed: 3, inFlightEvents: 0, inFlightBytes: 0 });
    const receipts = await Promise.all([door.receive(keys, [event({ id: 'a' })]), door.receive(keys, [event({ id: 'b' })])]);
    expect(await stored(store, streamOf(receipts.flat()))).toEqual(['a', 'b']);
  });

  test('a fault that no retry helps is told at once, as it is', async () => {
    const { door, store } = setup({ unique });
    store.before = () => { throw new OperatingError('storeFull', 'the disk is full'); };
    await expect(door.receive(keys, [event()])).rejects.toMatchObject({ code: 'storeFull' });
    expect(store.calls.append).toBe(1);
  });

  test('a hundred calls for one identity go in order, in few appends, one at a time', async () => {
    const { door, store } = setup({ unique });
    let inside = 0;
    let most = 0;
    store.before = async () => { inside += 1; most = Math.max(most, inside); await Promise.resolve(); };
    store.after = () => { inside -= 1; };
    const all = await Promise.all(Array.from({ length: 100 }, (_, i) => door.receive(keys, [event({ id: `n${i}` })])));
    expect(kinds(all.flat())).toEqual(Array<string>(100).fill('recorded'));
    expect(await stored(store, streamOf(all.flat()))).toEqual(Array.from({ length: 100 }, (_, i) => `n${i}`));
    expect(most).toBe(1);
    expect(store.calls.append).toBe(2);
  });

  test('an append holds no more events and bytes than it may', async () => {
    const { door, store } = setup({ unique, limits: { appendEventsMax: 4, appendBytesMax: 3000 } });
    await door.receive(keys, events(10));
    expect(store.appends).toEqual([4, 4, 2]);
    await door.receive(keys, events(4, { identity: 'ben@example.com', data: JSON.stringify('x'.repeat(2000)) }));
    expect(store.appends.slice(3)).toEqual([1, 1, 1, 1]);
  });

  test('what is remembered is bounded, and what was forgotten is no duplicate for it', async () => {
    const { door, store } = setup({ unique, limits: { streamsMax: 10, rememberedMax: 30 } });
    for (let i = 0; i < 50; i += 1) await door.receive(keys, events(3, { identity: `c${i}@example.com` }));
    expect(door.counts().streams).toBeLessThanOrEqual(10);
    expect(door.counts().remembered).toBeLessThanOrEqual(30);
    const again = await door.receive(keys, [...events(3, { identity: 'c0@example.com' }), event({ id: 'new', identity: 'c0@example.com' })]);
    expect(kinds(again)).toEqual(['duplicate', 'duplicate', 'duplicate', 'recorded']);
    expect(await stored(store, streamOf(again))).toHaveLength(4);
  });

  test('G1, G2, G4: two doors, random redeliveries and lost replies: each event stands once, in order, and everything is counted', async () => {
    const delivery = fc.record({ door: fc.integer({ min: 0, max: 1 }), identity: fc.integer({ min: 0, max: 2 }), upTo: fc.integer({ min: 0, max: 11 }), from: fc.integer({ min: 0, max: 11 }) });
    await fc.assert(fc.asyncProperty(fc.array(delivery, { minLength: 1, maxLength: 25 }), fc.array(fc.integer({ min: 1, max: 40 }), { maxLength: 6 }), fc.boolean(), async (deliveries, lost, together) => {
      const one = setup({ unique });
      const doors = [one.door, setup({ store: one.store }).door];
      one.store.after = (call) => { if (lost.includes(call)) throw new Error('lost'); };
      let received = 0;
      const pending: Promise<readonly Receipt[]>[] = [];
      // A producer of one identity sends its events in order, and now and then again from an earlier one.
      const sent = [0, 0, 0];
      for (const { door, identity, from, upTo } of deliveries) {
        const next = Math.max(sent[identity] ?? 0, upTo + 1);
        const batch = Array.from({ length: next }, (_, i) => event({ id: `${identity}-${i}`, identity: `c${identity}@example.com` })).slice(Math.min(from, sent[identity] ?? 0));
        sent[identity] = next;
        received += batch.length + 1;
        const call = doors[door]?.receive(keys, [...batch, rejectedEvent]) ?? Promise.resolve([]);
        pending.push(call);
        if (!together) await call;
      }
      await Promise.all(pending);
      for (const identity of [0, 1, 2]) {
        const probe = await one.door.receive(keys, [event({ id: 'probe', identity: `c${identity}@example.com` })]);
        const ids = (await stored(one.store, streamOf(probe))).filter((id) => id !== 'probe');
        const expected = Array.from({ length: sent[identity] ?? 0 }, (_, i) => `${identity}-${i}`);
        // Through two doors at once only the set is promised; one after the other, the order too.
        expect(together ? ids.toSorted() : ids).toEqual(together ? expected.toSorted() : expected);
      }
      const counts = doors.map((door) => door.counts());
      const sum = counts.reduce((total, { recorded, duplicates, rejected, failed }) => total + recorded + duplicates + failed + Object.values(rejected).reduce((all, n) => all + n, 0), 0);
      expect(sum).toBe(received + 3);
      expect(counts.map(({ failed }) => failed)).toEqual([0, 0]);
    }), { numRuns: 60 });
  });
});

describe('a Kafka redelivery before a store that does not know its ids', () => {
  const origin = (offset: number, partition = 0): { topic: string; partition: number; offset: string } => ({ topic: 'cx', partition, offset: String(offset) });
  async function filled(): Promise<Setup> {
    const made = setup({ unique: false });
    for (let i = 0; i < 600; i += 1) await made.door.receive(keys, [event({ id: `k${i}` })], origin(i));
    return made;
  }

  test('G1: is dropped at any age, after one read of the whole stream', async () => {
    const { store } = await filled();
    const { door } = setup({ store });
    // The first delivery after a restart, far older than the window: the tail is read, then the whole.
    expect(kinds(await door.receive(keys, [event({ id: 'k3' })], origin(3)))).toEqual(['duplicate']);
    const { readEvents } = store.calls;
    for (let i = 4; i < 300; i += 1) expect(kinds(await door.receive(keys, [event({ id: `k${i}` })], origin(i)))).toEqual(['duplicate']);
    expect(store.calls.readEvents).toBe(readEvents);
    expect(kinds(await door.receive(keys, [event({ id: 'k600' })], origin(600)))).toEqual(['recorded']);
    expect(door.counts()).toMatchObject({ recorded: 1, duplicates: 297 });
  });

  test('a newer offset costs no read, and an unseen partition or a retried dead letter is recorded when it is new', async () => {
    const { door, store } = await filled();
    const before = store.calls.read;
    await door.receive(keys, [event({ id: 'k600' })], origin(600));
    expect(store.calls.read).toBe(before);
    expect(kinds(await door.receive(keys, [event({ id: 'from-elsewhere' })], origin(0, 1)))).toEqual(['recorded']);
    expect(kinds(await door.receive(keys, [event({ id: 'dead-letter' })], origin(17)))).toEqual(['recorded']);
    expect(kinds(await door.receive(keys, [event({ id: 'dead-letter' })], origin(17)))).toEqual(['duplicate']);
  });

  test('what another door wrote meanwhile is known again, also where it reaches past the window', async () => {
    const { door, store } = await filled();
    expect(kinds(await door.receive(keys, [event({ id: 'k3' })], origin(3)))).toEqual(['duplicate']);
    const other = setup({ store });
    for (let i = 600; i < 1000; i += 1) await other.door.receive(keys, [event({ id: `k${i}` })], origin(i));
    expect(kinds(await door.receive(keys, [event({ id: 'k610' })], origin(610)))).toEqual(['duplicate']);
    expect(kinds(await door.receive(keys, [event({ id: 'k1000' })], origin(1000)))).toEqual(['recorded']);
    expect(kinds(await door.receive(keys, [event({ id: 'k611' })], origin(611)))).toEqual(['duplicate']);
  });

  test('offsets beyond 2^53 are compared exactly', async () => {
    const { door } = setup({ unique: false });
    for (let i = 0; i < 300; i += 1) await door.receive(keys, [event({ id: `k${i}` })], { topic: 'cx', partition: 0, offset: String(9_007_199_254_740_993n + BigInt(i)) });
    expect(kinds(await door.receive(keys, [event({ id: 'k0' })], { topic: 'cx', partition: 0, offset: '9007199254740993' }))).toEqual(['duplicate']);
  });
});

describe('a store that calls a repeat at its own revisions a duplicate, as EventStoreDB does', () => {
  const repeating = (): Staged => new Staged(new MemoryEventStore({ storeId: 'test', idsAreUnique: false }));

  test('G1: a repeat is a duplicate, and the door looks where the stream ends now instead of believing the old end for ever', async () => {
    const store = repeating();
    const one = setup({ store });
    const two = setup({ store });
    await one.door.receive(keys, [event({ id: 'a' })]);
    await two.door.receive(keys, [event({ id: 'a' })]);
    // Both stand at the same end. The other writes on, and this one repeats what was written.
    await one.door.receive(keys, [event({ id: 'b' })]);
    await one.door.receive(keys, [event({ id: 'c' })]);
    expect(kinds(await two.door.receive(keys, [event({ id: 'b' })]))).toEqual(['duplicate']);
    const reads = store.calls.read;
    const receipts = await two.door.receive(keys, [event({ id: 'c' }), event({ id: 'd' })]);
    expect(kinds(receipts)).toEqual(['duplicate', 'recorded']);
    expect(store.calls.read).toBe(reads + 1);
    expect(two.door.counts()).toMatchObject({ recorded: 1, duplicates: 3, conflicts: 0 });
    expect(await stored(store, streamOf(receipts))).toEqual(['a', 'b', 'c', 'd']);
  });

  test('an append that comes to stand between our reading and our next try is ours, and counted as recorded', async () => {
    const store = repeating();
    const { door } = setup({ store });
    await door.receive(keys, [event({ id: 'a' })]);
    // Held up on its way: it is written only when the next try is on its way too.
    let late: (() => Promise<unknown>) | null = null;
    const write = store.inner.append.bind(store.inner);
    store.inner.append = async (...args) => {
      if (late === null) {
        late = () => write(...args);
        throw new Error('timed out');
      }
      return write(...args);
    };
    const append = store.append.bind(store);
    store.append = async (...args) => {
      await late?.();
      return append(...args);
    };
    const receipts = await door.receive(keys, [event({ id: 'b' }), event({ id: 'c' })]);
    expect(kinds(receipts)).toEqual(['recorded', 'recorded']);
    expect(await stored(store, streamOf(receipts))).toEqual(['a', 'b', 'c']);
    expect(door.counts()).toMatchObject({ recorded: 3, duplicates: 0 });
  });
});

describe.each([{ name: 'a store that knows its ids', unique: true }, { name: 'a store that does not', unique: false }])('what a topic needs of the door, before $name', ({ unique }) => {
  test('every delivery of a call has an origin of its own', async () => {
    const { door, store } = setup({ unique });
    const origins = [{ topic: 'cx', partition: 1, offset: '7' }, null, { topic: 'cx', partition: 1, offset: '9' }];
    const receipts = await door.receive(keys, events(3), origins);
    const found = await store.readStream(streamOf(receipts), { direction: 'forward', limit: 9 });
    expect(found.map((one) => readRecorded(one).origin)).toEqual(origins);
  });

  test('each delivery is told of as it is settled, without waiting for the slowest of its call', async () => {
    const { door, store } = setup({ unique });
    const gate = Promise.withResolvers<undefined>();
    store.before = (call) => (call === 1 ? gate.promise : undefined);
    const told: [number, string][] = [];
    const call = door.receive(keys, [event({ id: 'a' }), event({ id: 'b', identity: 'ben@example.com' }), rejectedEvent], null, { receipt: (index, { kind }) => told.push([index, kind]) });
    while (told.length < 2) await Promise.resolve();
    expect(told).toEqual([[2, 'rejected'], [1, 'recorded']]);
    gate.resolve(undefined);
    await call;
    expect(told[2]).toEqual([0, 'recorded']);
  });

  test('G2: a fault is told before anything that is handed over from then on could be written', async () => {
    const { door, store } = setup({ unique, limits: { faultsMax: 1 } });
    const gate = Promise.withResolvers<undefined>();
    store.before = async (call) => {
      if (call === 1) throw new OperatingError('storeUnavailable', 'down');
      await gate.promise;
    };
    const told: OperatingError[] = [];
    let handedOver = 0;
    // The first call fails for one identity while the other keeps it from being answered.
    const slow = door.receive(keys, [event({ id: 'a0' }), event({ id: 'b0', identity: 'ben@example.com' })], null, { fault: (fault) => told.push(fault) });
    for (let i = 1; told.length === 0; i += 1) {
      handedOver += 1;
      void door.receive(keys, [event({ id: `a${i}` })]).catch(() => undefined);
      await Promise.resolve();
    }
    gate.resolve(undefined);
    await expect(slow).rejects.toMatchObject({ code: 'storeUnavailable' });
    expect(handedOver).toBeGreaterThan(0);
    const probe = await door.receive(keys, [event({ id: 'probe' })]);
    expect(await stored(store, streamOf(probe))).toEqual(['probe']);
  });

  test('G1: an append longer than the window whose answer is lost is found whole, also behind what others wrote since', async () => {
    const { door, store } = setup({ unique });
    const other = setup({ store });
    await door.receive(keys, [event({ id: 'first' })]);
    let lost = false;
    store.after = () => {
      if (lost) return;
      lost = true;
      // Written before our reading: an end further on than the window reaches.
      throw new Error('the connection was reset');
    };
    const read = store.readStream.bind(store);
    let interfered = false;
    store.readStream = async (...args) => {
      if (!interfered) {
        interfered = true;
        for (let i = 0; i < 300; i += 50) await other.door.receive(keys, events(50, {}, `other${i}-`));
      }
      return read(...args);
    };
    const receipts = await door.receive(keys, events(250));
    expect(new Set(kinds(receipts))).toEqual(new Set(['recorded']));
    const ids = await stored(store, streamOf(receipts));
    expect(ids).toHaveLength(551);
    expect(new Set(ids).size).toBe(551);
    expect(ids.slice(1, 251)).toEqual(events(250).map((one) => (one.kind === 'event' ? one.event.id : '')));
  });

  test('an event that the store takes in no size is refused, alone, and what came with it is recorded in order', async () => {
    const { door, store, views } = setup({ unique });
    const append = store.append.bind(store);
    store.append = (stream, expected, added) => {
      if (added.some(({ data }) => data.length > 1000)) return Promise.reject(new OperatingError('eventTooLarge', 'too large for this server'));
      return append(stream, expected, added);
    };
    const large = event({ id: 'large', data: JSON.stringify('x'.repeat(2000)) });
    const receipts = await door.receive(keys, [event({ id: 'a' }), large, event({ id: 'b' }), large]);
    expect(receipts.map((receipt) => (receipt.kind === 'rejected' ? receipt.rejection.code : receipt.kind))).toEqual(['recorded', 'tooLarge', 'recorded', 'tooLarge']);
    expect(await stored(store, streamOf(receipts))).toEqual(['a', 'b']);
    expect(door.counts()).toMatchObject({ recorded: 2, rejected: { tooLarge: 2 }, failed: 0 });
    await door.drain();
    expect(await views.tallies('shop')).toMatchObject([{ recorded: 2, rejected: { tooLarge: 2 } }]);
  });
});

describe('what the door lets in', () => {
  test('an event that names another workspace is rejected, and so is one without an identity', async () => {
    const { door } = setup();
    const nobody: Decoded = { kind: 'event', event: { id: 'x', source: 's', type: 't', time: null, attributes: { specversion: '1.0', id: 'x', source: 's', type: 't' }, dataKind: 'none', data: new Uint8Array() } };
    const receipts = await door.receive(keys, [event({ workspace: 'bank' }), event({ workspace: 'shop' }), nobody]);
    expect(receipts).toMatchObject([{ kind: 'rejected', rejection: { code: 'wrongWorkspace', attribute: 'workspace' } }, { kind: 'recorded' }, { kind: 'rejected', rejection: { code: 'missingIdentity' } }]);
    expect(door.counts()).toMatchObject({ recorded: 1, rejected: { wrongWorkspace: 1, missingIdentity: 1 } });
  });

  test('G8: two workspaces never share a stream', async () => {
    const { door } = setup();
    const [ours, theirs] = await Promise.all([door.receive(keys, [event()]), door.receive(keysOf('bank'), [event()])]);
    expect(streamOf(ours)).not.toBe(streamOf(theirs));
  });

  test('beyond its bounds it refuses before it takes anything, and takes again when there is room', async () => {
    const { door, store } = setup({ limits: { inFlightEventsMax: 5 } });
    const gate = Promise.withResolvers<undefined>();
    store.before = () => gate.promise;
    const first = door.receive(keys, events(4));
    await expect(door.receive(keys, events(2, {}, 'x'))).rejects.toMatchObject({ code: 'storeBusy', retriable: true });
    expect(door.counts()).toMatchObject({ inFlightEvents: 4, failed: 0 });
    gate.resolve(undefined);
    await first;
    expect(kinds(await door.receive(keys, events(2, {}, 'x')))).toEqual(['recorded', 'recorded']);
    // Larger than the bound, but alone.
    expect(await door.receive(keys, events(9, {}, 'y'))).toHaveLength(9);
    expect(door.counts()).toMatchObject({ inFlightEvents: 0, inFlightBytes: 0 });
  });

  test('bytes are bounded as well', async () => {
    const { door, store } = setup({ limits: { inFlightBytesMax: 1000 } });
    const gate = Promise.withResolvers<undefined>();
    store.before = () => gate.promise;
    const first = door.receive(keys, [event({ data: JSON.stringify('x'.repeat(2000)) })]);
    await expect(door.receive(keys, [event({ id: 'next' })])).rejects.toMatchObject({ code: 'storeBusy' });
    gate.resolve(undefined);
    await first;
  });

  test('an empty call is answered with nothing', async () => {
    expect(await setup().door.receive(keys, [])).toEqual([]);
  });

  test('draining waits for what was taken, takes nothing more, and writes the counts', async () => {
    const { door, store, views } = setup();
    const gate = Promise.withResolvers<undefined>();
    store.before = () => gate.promise;
    const taken = door.receive(keys, [event({ time: '2026-03-02T08:59:30Z' }), rejectedEvent]);
    let drained = false;
    const draining = door.drain().then(() => { drained = true; });
    await expect(door.receive(keys, [event()])).rejects.toMatchObject({ code: 'storeBusy' });
    expect(drained).toBe(false);
    gate.resolve(undefined);
    expect(kinds(await taken)).toEqual(['recorded', 'rejected']);
    await draining;
    expect(await views.tallies('shop')).toEqual([{ workspace: 'shop', source: 'pbx', recorded: 1, duplicates: 0, reusedIds: 0, rejected: { missingAttribute: 1 }, lateness: { 60: 1 }, lastSeen: '2026-03-02T09:00:00.000Z' }]);
  });
});

describe('the counts by source', () => {
  test('lateness falls into buckets; a time in the future is not late', async () => {
    const { door, views } = setup();
    await door.receive(keys, ['2026-03-02T10:00:00Z', '2026-03-02T08:59:59.5Z', '2026-03-02T08:30:00Z', '2025-03-02T09:00:00Z'].map((time, i) => event({ id: `t${i}`, time })));
    await door.receive(keys, [event({ id: 'without' })]);
    await door.drain();
    expect((await views.tallies('shop'))[0]?.lateness).toEqual({ 1: 2, 3600: 1, inf: 1 });
  });

  test('what is refused leaves the hash of its bytes and when it came, by code, and nothing else of it', async () => {
    const { door, views } = setup();
    const received = (text: string): { readonly received: Uint8Array } => ({ received: Buffer.from(text) });
    await door.receive(keys, [{ ...rejectedEvent, ...received('one') }, { ...rejectedEvent, ...received('two') }, { ...rejectedEvent, ...received('one') }, { ...event({ workspace: 'rival' }), ...received('three') }, rejectedEvent]);
    await door.drain();
    const [row] = await views.tallies('shop');
    const at = '2026-03-02T09:00:00.000Z';
    const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex');
    expect(row?.rejected).toEqual({ missingAttribute: 4, wrongWorkspace: 1 });
    expect(row?.examples?.['missingAttribute']?.toSorted((a, b) => (a.sha256 < b.sha256 ? -1 : 1))).toEqual([sha256('one'), sha256('two')].toSorted().map((hash) => ({ sha256: hash, at })));
    expect(row?.examples?.['wrongWorkspace']).toEqual([{ sha256: sha256('three'), at }]);
  });

  test('sources past the bound are counted together, also over restarts', async () => {
    const { store, views } = setup();
    for (let run = 0; run < 3; run += 1) {
      const door = new Door({ store, clock: { now: () => NOW }, random: (size) => new Uint8Array(size), sleep: (_, signal) => new Promise((resolve) => signal?.addEventListener('abort', () => resolve(), { once: true })), tallies: views, limits: { sourcesMax: 3 } });
      await door.receive(keys, Array.from({ length: 5 }, (_, i) => event({ id: `r${run}-${i}`, source: `s${run}-${i}` })));
      await door.drain();
    }
    const rows = await views.tallies('shop');
    expect(rows.length).toBeLessThanOrEqual(4);
    expect(rows.reduce((sum, row) => sum + row.recorded, 0)).toBe(15);
    expect(rows.find((row) => row.source === OTHER_SOURCES)?.recorded).toBe(12);
  });

  test('a source is cut to a length that a name may have', async () => {
    const { door, views } = setup();
    await door.receive(keys, [event({ source: 'x'.repeat(5000) })]);
    await door.drain();
    expect((await views.tallies('shop'))[0]?.source).toHaveLength(256);
  });

  test('counts that cannot be written are kept and written with the next', async () => {
    const store = new Staged(new MemoryEventStore({ storeId: 'test' }));
    const views = new MemoryViewStore();
    const faults: unknown[] = [];
    const wake: (() => void)[] = [];
    let broken = true;
    const door = new Door({
      store, clock: { now: () => NOW }, random: (size) => new Uint8Array(size), onTallyFault: (fault) => faults.push(fault),
      sleep: (_, signal) => new Promise((resolve) => { wake.push(resolve); signal?.addEventListener('abort', () => resolve(), { once: true }); }),
      tallies: { addTallies: async (tallies) => { if (broken) throw new Error('locked'); await views.addTallies(tallies); }, tallies: (workspace) => views.tallies(workspace) },
    });
    await door.receive(keys, [event()]);
    wake[0]?.();
    while (faults.length === 0) await Promise.resolve();
    broken = false;
    await door.receive(keys, [event()]);
    await door.drain();
    expect(await views.tallies('shop')).toMatchObject([{ recorded: 1, duplicates: 1 }]);
    expect(faults).toHaveLength(1);
  });
});

test('a dry run says what would come of an event and stores nothing', async () => {
  const { door, store } = setup();
  const known: Decoded = { kind: 'event', event: { id: 'x', source: 's', type: 'task:new', time: parseInstant('2026-03-02T09:00:00Z'), attributes: { specversion: '1.0', id: 'x', source: 's', type: 'task:new', time: '2026-03-02T09:00:00Z', identity: 'ana@example.com', identitytype: 'email' }, dataKind: 'json', data: Buffer.from('{"taskId":"t-1","channelType":"telephony","direction":"INBOUND"}') } };
  const [unknown, read, refused] = door.dryRun(keys, [event(), known, rejectedEvent]);
  expect(unknown).toMatchObject({ kind: 'event', id: 'e1', vocabulary: null, facts: [], why: { code: 'noVocabulary' } });
  expect(read).toMatchObject({ kind: 'event', vocabulary: 'wxcc', why: null });
  expect(read?.kind === 'event' ? read.facts.length : 0).toBeGreaterThan(0);
  expect(refused).toEqual({ kind: 'rejected', rejection: { code: 'missingAttribute', attribute: 'id', reason: 'id is missing' } });
  expect((await store.stats()).events).toBe(0);
  // And what it said is what happens.
  const [recorded] = await door.receive(keys, [event()]);
  expect(recorded).toMatchObject({ kind: 'recorded', eventId: unknown?.kind === 'event' ? unknown.eventId : '', stream: unknown?.kind === 'event' ? unknown.stream : '' });
});

test('one constant id sent twenty thousand times to one identity costs work in proportion', async () => {
  const { door, store } = setup();
  for (let round = 0; round < 20; round += 1) {
    await Promise.all(Array.from({ length: 10 }, (_, call) => door.receive(keys, Array.from({ length: 100 }, (_, i) => event({ id: 'constant', data: String(round * 1000 + call * 100 + i) })))));
  }
  expect(door.counts()).toMatchObject({ recorded: 20_000, reusedIds: 19_999, conflicts: 0, faults: 0 });
  expect(door.counts().remembered).toBe(256);
  expect(store.calls.read).toBe(0);
  expect(store.calls.append).toBeLessThanOrEqual(80);
});
