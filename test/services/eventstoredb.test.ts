// The adapter of EventStoreDB where servers and connections fail, over the double: what the contract suite cannot stage.
import { randomBytes } from 'node:crypto';
import { inspect } from 'node:util';
import { binaryEvent, EventStoreDBClient, jsonEvent } from '@eventstore/db-client';
import { examineEventStoreDb, type EventStoreDbLimits, type EventStoreDbOptions, openEventStoreDb } from '../../services/adapters/eventstoredb.ts';
import { MemoryViewStore } from '../../services/adapters/memory-views.ts';
import { Door } from '../../services/door.ts';
import { sleep } from '../../services/lifecycle.ts';
import type { EventStore, NewEvent, Position, RecordedEvent, SubscriptionBatch } from '../../services/ports.ts';
import type { CloudEvent, Decoded } from '../../schemas/cloudevent.ts';
import { isWorkspaceId, type WorkspaceKeys, workspaceKeys } from '../../schemas/identity.ts';
import { newEvent } from '../contract/event-store.ts';
import { type EventStoreDouble, startEventStoreDouble } from '../support/eventstoredb/double.ts';
import { until } from '../support/serve.ts';

/** What falls silent is noticed within tenths of a second; how long appends and reads may take is for the tests of that. */
const QUICK: Partial<EventStoreDbLimits> = { appendTimeoutMs: 20_000, pollMs: 50, silenceMs: 200 };

let double: EventStoreDouble;
let notices: { readonly message: string; readonly fields: Record<string, unknown> }[];
const opened: EventStore[] = [];
beforeAll(async () => { double = await startEventStoreDouble(); });
afterAll(() => double.stop());
beforeEach(async () => {
  notices = [];
  await double.wipe();
});
afterEach(async () => {
  await Promise.all(opened.splice(0).map((store) => store.close()));
  double.thaw();
  await double.slow(0);
  await double.mute(false);
});

async function open(limits: Partial<EventStoreDbLimits> = QUICK, options: Partial<EventStoreDbOptions> & { readonly url?: string } = {}): Promise<EventStore> {
  const { url = double.url, ...given } = options;
  const store = await openEventStoreDb({ kind: 'eventstoredb', url }, { random: randomBytes, limits, onNotice: (message, fields) => notices.push({ message, fields }), ...given });
  opened.push(store);
  return store;
}
const events = (count: number): NewEvent[] => Array.from({ length: count }, () => newEvent());
const idsOf = (of: readonly { readonly id: string }[]): string[] => of.map(({ id }) => id);
const noticed = (part: string): boolean => notices.some(({ message, fields }) => `${message} ${JSON.stringify(fields)}`.includes(part));

/** Everything that the filter lets through, until so many events have come or `enough` says so. */
async function follow(store: EventStore, options: { readonly prefixes?: readonly string[]; readonly maxBatch?: number; readonly after?: Position | null; readonly each?: (events: readonly RecordedEvent[], batch: SubscriptionBatch) => unknown }, enough: number | ((batch: SubscriptionBatch) => boolean)): Promise<RecordedEvent[]> {
  const all: RecordedEvent[] = [];
  for await (const batch of store.subscribe({ after: options.after ?? null, prefixes: options.prefixes ?? [], maxBatch: options.maxBatch ?? 100, signal: new AbortController().signal })) {
    all.push(...batch.events);
    await options.each?.(all, batch);
    if (typeof enough === 'number' ? all.length >= enough : enough(batch)) break;
  }
  return all;
}

describe('appends', () => {
  test('G1: a server killed with appends in flight rejects them all as unknown, and afterwards the tails tell what stands', async () => {
    const store = await open();
    await store.append('s-0', 'no_stream', events(1));
    await double.slow(60_000);
    const sent = events(64);
    const results = sent.map((event, i) => store.append(`k-${String(i)}`, 'no_stream', [event]).then(() => 'answered', (fault: unknown) => fault));
    while ((await double.tell()).delayed < 64);
    await double.kill();
    for (const result of await Promise.all(results)) expect(result).toMatchObject({ code: 'storeUnavailable', retriable: true });
    await double.restart();
    await Promise.all(sent.map(async (event, i) => {
      const tail = await store.readStream(`k-${String(i)}`, { direction: 'backward', limit: 10 });
      expect([[], [event.id]]).toContainEqual(idsOf(tail));
      const again = await store.append(`k-${String(i)}`, 'no_stream', [event]);
      expect(again.kind).not.toBe('conflict');
      expect(idsOf(await store.readStream(`k-${String(i)}`, { direction: 'forward', limit: 10 }))).toEqual([event.id]);
    }));
  });

  test('a frozen server: appends are given up in our time, stand once it goes on, and their late answers end nothing', async () => {
    const store = await open({ ...QUICK, appendTimeoutMs: 1_000 });
    const first = await store.append('s-0', 'no_stream', events(1));
    expect(first.kind).toBe('appended');
    double.freeze();
    const sent = events(64);
    const startedMs = performance.now();
    const results = await Promise.all(sent.map((event, i) => store.append(`f-${String(i)}`, 'no_stream', [event]).then(() => 'answered', (fault: unknown) => fault)));
    expect(performance.now() - startedMs).toBeLessThan(10_000);
    for (const result of results) expect(result).toMatchObject({ code: 'storeUnavailable' });
    double.thaw();
    // What the frozen server had been sent, it takes up again.
    const stored = await follow(store, { prefixes: ['f-'] }, 64);
    expect(idsOf(stored).sort()).toEqual(idsOf(sent).sort());
    expect(await store.append('f-0', 'no_stream', [sent[0]!])).toMatchObject({ kind: 'duplicate' });
  });

  test('an answer after its append was given up finds nobody, and ends nothing', async () => {
    const store = await open({ ...QUICK, appendTimeoutMs: 1_000 });
    await store.append('s-0', 'no_stream', events(1));
    await double.slow(1_500);
    const late = store.append('s-1', 'no_stream', events(1)).catch((fault: unknown) => fault);
    // Answered between the two: the connection lives, so it is not cut, and the late answer comes over it.
    while ((await double.tell()).delayed < 1);
    await double.slow(0);
    expect(await store.append('s-2', 'no_stream', events(1))).toMatchObject({ kind: 'appended' });
    expect(await late).toMatchObject({ code: 'storeUnavailable' });
    await until('the late answer is told of', () => noticed('answered after they had been given up'));
    expect(await store.append('s-2', 0, events(1))).toMatchObject({ kind: 'appended', revision: 1 });
  });

  test('a connection that is cut takes down its own appends alone, whatever other stores the process has open', async () => {
    const other = await startEventStoreDouble();
    try {
      const [store, doomed] = [await open(), await open(QUICK, { url: other.url })];
      await Promise.all([store.append('s-0', 'no_stream', events(1)), doomed.append('s-0', 'no_stream', events(1))]);
      await Promise.all([double.slow(1_000), other.slow(60_000)]);
      const mine = Promise.all(Array.from({ length: 20 }, (_, i) => store.append(`t-${String(i)}`, 'no_stream', events(1))));
      const lost = doomed.append('s-0', 0, events(1)).catch((fault: unknown) => fault);
      while ((await double.tell()).delayed < 20 || (await other.tell()).delayed < 1);
      await other.kill();
      expect(await lost).toMatchObject({ code: 'storeUnavailable' });
      // Their answers come after the cut, which in the driver's own calls is an error out of an event handler.
      expect((await mine).map(({ kind }) => kind)).toEqual(Array.from({ length: 20 }, () => 'appended'));
    } finally {
      await other.stop();
    }
  });

  test('of thousands at once only so many are in flight, and none of a stream overtakes another', async () => {
    const store = await open({ ...QUICK, inFlightMax: 16 });
    const results = await Promise.all(Array.from({ length: 2_000 }, (_, i) => store.append(`q-${String(i % 20)}`, i < 20 ? 'no_stream' : Math.floor(i / 20) - 1, events(1))));
    expect(results.every(({ kind }, i) => kind === 'appended' && results[i]!.kind === 'appended')).toBe(true);
    expect(await store.readStream('q-7', { direction: 'forward', limit: 1_000 })).toHaveLength(100);
  });

  test('a repeat of what was seen before is a duplicate with the first positions', async () => {
    const store = await open();
    const [one, two, three] = events(3);
    const first = await store.append('s-1', 'no_stream', [one!, two!]);
    if (first.kind !== 'appended') throw new Error(first.kind);
    expect(await store.append('s-1', 1, [three!])).toMatchObject({ kind: 'appended', revision: 2 });
    expect(await store.append('s-1', 'no_stream', [one!, two!])).toEqual({ kind: 'duplicate', found: new Map([[one!.id, first.positions[0]], [two!.id, first.positions[1]]]) });
    const again = await open();
    expect(await again.append('s-1', 1, [three!])).toMatchObject({ kind: 'duplicate' });
  });

  test('too large an append, a tombstone and a store opened for following are refused by name', async () => {
    const store = await open();
    await expect(store.append('s-1', 'no_stream', [newEvent({ data: new Uint8Array(1024 * 1024 + 1) })])).rejects.toMatchObject({ code: 'eventTooLarge', retriable: false });
    await store.append('s-2', 'no_stream', events(1));
    const client = EventStoreDBClient.connectionString(double.url);
    await client.tombstoneStream('s-2');
    await client.dispose();
    await expect(store.append('s-2', 0, events(1))).rejects.toMatchObject({ code: 'streamDeleted', retriable: false });
    await expect(store.readStream('s-2', { direction: 'forward', limit: 1 })).rejects.toMatchObject({ code: 'streamDeleted' });
    const follower = await open(QUICK, { role: 'follow' });
    await expect(follower.append('s-1', 'no_stream', events(1))).rejects.toMatchObject({ code: 'storeReadOnly' });
  });
});

describe('a door before it', () => {
  const keys = ((id: string): WorkspaceKeys => {
    if (!isWorkspaceId(id)) throw new Error('not an id');
    return workspaceKeys(id, Buffer.alloc(32, 7));
  })('shop');
  function delivery(index: number): Decoded {
    const attributes = { specversion: '1.0', id: `e${String(index)}`, source: 'pbx', type: 'test.said', identity: `${String(index % 40)}@example.com`, identitytype: 'email' };
    const event: CloudEvent = { id: attributes.id, source: 'pbx', type: 'test.said', time: null, attributes, dataKind: 'json', data: Buffer.from('{}') };
    return { kind: 'event', event };
  }

  test.each([
    { how: 'killed and started again', strike: () => double.kill(), mend: () => double.restart() },
    { how: 'frozen for longer than appends wait', strike: async (givenUp: () => boolean) => { double.freeze(); await until('a call is given up', givenUp); }, mend: async () => double.thaw() },
  ])('G1, G4: whatever was acknowledged stands once, with the server $how in the middle', async ({ strike, mend }) => {
    const store = await open({ ...QUICK, appendTimeoutMs: 1_000, readTimeoutMs: 1_000 });
    const clock = { now: () => Date.now() };
    let faults = 0;
    const door = new Door({
      store, clock, random: randomBytes, tallies: new MemoryViewStore(),
      // Without a signal it is the wait after a fault.
      sleep: (ms, signal) => {
        if (signal === undefined) faults += 1;
        return sleep(ms, signal);
      },
    });
    const acknowledged: string[] = [];
    const begun = Promise.withResolvers<undefined>();
    let sent = 0;
    const send = async (): Promise<void> => {
      while (sent < 800) {
        const batch = Array.from({ length: 10 }, () => delivery(sent++));
        const receipts = await door.receive(keys, batch);
        for (const receipt of receipts) if (receipt.kind !== 'rejected') acknowledged.push(receipt.eventId);
        if (acknowledged.length > 100) begun.resolve(undefined);
      }
    };
    const senders = Promise.all(Array.from({ length: 8 }, send));
    await begun.promise;
    const before = faults;
    await strike(() => faults > before);
    await mend();
    await senders;
    await door.drain();
    const stored = idsOf(await follow(store, { prefixes: ['identity.'] }, (batch) => batch.caughtUp));
    expect(new Set(stored).size).toBe(stored.length);
    expect([...stored].sort()).toEqual([...acknowledged].sort());
    const { recorded, duplicates, failed } = door.counts();
    expect([recorded, duplicates, failed]).toEqual([800, 0, 0]);
  });
});

describe('following', () => {
  async function fill(store: EventStore, prefix: string, from: number, count: number): Promise<void> {
    await Promise.all(Array.from({ length: count }, (_, i) => store.append(`${prefix}${String(from + i)}`, 'no_stream', [newEvent({ type: `n${String(from + i)}` })])));
  }
  const inOrder = (all: readonly RecordedEvent[]): void => {
    expect(all.map(({ position }) => position)).toEqual([...new Set(all.map(({ position }) => position))].sort());
  };

  test('a subscription goes on over kills and a freeze of the server, with nothing lost and nothing twice', async () => {
    const store = await open({ ...QUICK, readTimeoutMs: 500 });
    await fill(store, 'a-', 0, 50);
    const takenUp = (): number => notices.filter(({ message }) => message.includes('taken up again')).length;
    const restarted = async (): Promise<void> => { await double.kill(); await double.restart(); };
    const frozen = async (): Promise<void> => {
      const before = takenUp();
      double.freeze();
      await until('the frozen server is given up', () => takenUp() > before);
      double.thaw();
    };
    const strikes = [restarted, frozen, restarted];
    const struck: Promise<void>[] = [];
    const all = await follow(store, {
      prefixes: ['a-'], maxBatch: 20, each: (seen) => {
        const strike = seen.length >= 50 * (4 - strikes.length) ? strikes.shift() : undefined;
        // Beside the following, which goes on meanwhile, as it must to find out.
        const from = seen.length;
        if (strike !== undefined) struck.push(strike().then(() => fill(store, 'a-', from, 50)));
      },
    }, 200);
    await Promise.all(struck);
    expect(all).toHaveLength(200);
    inOrder(all);
    expect(noticed('taken up again')).toBe(true);
  });

  test('a server that is gone for good is told of after so many tries', async () => {
    const store = await open({ ...QUICK, followTriesMax: 3 });
    await store.append('a-0', 'no_stream', events(1));
    await expect(follow(store, { each: () => double.kill() }, 2)).rejects.toMatchObject({ code: 'storeUnavailable', retriable: true });
    expect(notices.filter(({ message }) => message.includes('taken up again'))).toHaveLength(3);
    await double.restart();
  });

  test('a connection that stands and says nothing is noticed by what stands in the log', async () => {
    const store = await open();
    await fill(store, 'a-', 0, 3);
    const all = await follow(store, {
      each: async (seen, batch) => {
        if (!batch.caughtUp || seen.length > 3) return;
        await double.mute(true);
        await fill(store, 'a-', 3, 3);
        void until('the silence is noticed', () => noticed('silent')).then(() => double.mute(false));
      },
    }, 6);
    expect(all).toHaveLength(6);
    inOrder(all);
  });

  test('a caller slower than the writers is dropped by the server, and reads everything on in order', async () => {
    const store = await open({ ...QUICK, silenceMs: 10_000 });
    await store.append('a-0', 'no_stream', events(1));
    const writer = EventStoreDBClient.connectionString(double.url);
    const large = (): ReturnType<typeof binaryEvent> => binaryEvent({ type: 'test.said', data: new Uint8Array(8_000) });
    let revision = 0;
    const all = await follow(store, {
      maxBatch: 50, each: async (_seen, batch) => {
        if (!batch.caughtUp || revision > 0) return;
        // Nothing is asked for meanwhile: what is read ahead is bounded, and then the socket fills.
        const { dropped } = await double.tell();
        while ((await double.tell()).dropped === dropped) {
          const { nextExpectedRevision } = await writer.appendToStream('a-0', Array.from({ length: 100 }, large), { expectedRevision: BigInt(revision) });
          revision = Number(nextExpectedRevision);
        }
        await writer.dispose();
      },
    }, (batch) => revision > 0 && batch.events.at(-1)?.revision === revision);
    expect(all.map((event) => event.revision)).toEqual(Array.from({ length: revision + 1 }, (_, i) => i));
    expect(noticed('timeout')).toBe(true);
  });

  test('checkpoints move the position through what the filter keeps back, beyond what a look at the head can see', async () => {
    const store = await open();
    for (let i = 0; i < 8; i += 1) await store.append(`b-${String(i)}`, 'no_stream', events(500));
    const positions: Position[] = [];
    const head = await store.head();
    const all = await follow(store, { prefixes: ['a-'], each: (_seen, batch) => positions.push(batch.position) }, (batch) => batch.caughtUp);
    expect(all).toEqual([]);
    expect(positions.at(-1)).toBe(head);
    expect(positions.length).toBeGreaterThan(1);
    expect(positions).toEqual([...new Set(positions)].sort());
  });

  test('G3: no position is ever handed over ahead of an event still to come, where the server sends checkpoints too early', async () => {
    const hasty = await startEventStoreDouble({ hasty: true });
    try {
      const store = await open(QUICK, { url: hasty.url });
      for (let i = 0; i < 60; i += 1) await store.append(i % 3 === 0 ? `a-${String(i)}` : `b-${String(i)}`, 'no_stream', events(1));
      const batches: SubscriptionBatch[] = [];
      const all = await follow(store, { prefixes: ['a-'], maxBatch: 3, each: (_seen, batch) => batches.push(batch) }, (batch) => batch.caughtUp);
      expect(all).toHaveLength(20);
      for (const [i, { position }] of batches.entries()) expect(batches.slice(i + 1).flatMap((later) => later.events).every((event) => event.position > position)).toBe(true);
    } finally {
      await hasty.stop();
    }
  });
});

describe('the store itself', () => {
  test('has one id however many start at once, and keeps it; its own event and the server\'s are nobody\'s', async () => {
    const stores = await Promise.all([open(), open(), open()]);
    const store = stores[0];
    expect(new Set(stores.map(({ storeId }) => storeId)).size).toBe(1);
    expect(await store.head()).toBeNull();
    await store.append('s-1', 'no_stream', events(1));
    const client = EventStoreDBClient.connectionString(double.url);
    const head = await store.head();
    // The server's own: a delete writes an event of a stream whose name begins with $$.
    await client.appendToStream('$own', jsonEvent({ type: 'x', data: {} }));
    await client.deleteStream('$own');
    await client.dispose();
    expect(await store.head()).toBe(head);
    expect((await follow(store, { prefixes: ['t', 's'] }, (batch) => batch.caughtUp)).map(({ stream }) => stream)).toEqual(['s-1']);
    await double.kill();
    await double.restart();
    expect((await open()).storeId).toBe(store.storeId);
  });

  test('is reached by every form of address: one node, nodes of which one is gone, and a cluster that is asked who leads', async () => {
    const node = `127.0.0.1:${String(double.port)}`;
    const ids = [];
    for (const url of [`esdb://${node}?tls=false`, `esdb://127.0.0.1:1,${node}?tls=false`, `esdb+discover://${node}?tls=false`]) {
      const store = await open(QUICK, { url });
      expect(await store.append(`u-${String(ids.length)}`, 'no_stream', events(1))).toMatchObject({ kind: 'appended' });
      ids.push(store.storeId);
    }
    expect(new Set(ids).size).toBe(1);
  });

  test('is reached over TLS with an account, and turns away a wrong one by name', async () => {
    const secure = await startEventStoreDouble({ account: { username: 'ops', password: 'hunter2' } });
    try {
      const store = await open(QUICK, { url: secure.url });
      expect(await store.append('s-1', 'no_stream', events(3))).toMatchObject({ kind: 'appended' });
      expect(await follow(store, {}, 3)).toHaveLength(3);
      const stranger = await open(QUICK, { url: secure.url.replace('hunter2', 'wrong-word') }).then(() => null, (error: unknown) => error);
      expect(stranger).toMatchObject({ code: 'storeUnfit', retriable: false });
      expect(inspect(stranger, { depth: 10, showHidden: true })).not.toContain('wrong-word');
    } finally {
      await secure.stop();
    }
  });

  test('no error shows the credentials of the address', async () => {
    for (const url of ['esdb://ops:hunter2@127.0.0.1:1?tls=false', 'esdb://ops:hunter2@127.0.0.1:1?tls=maybe', 'esdb://ops:hunter2@?x', 'esdb+discover://ops:hunter2@127.0.0.1:1?maxDiscoverAttempts=1&gossipTimeout=1']) {
      const fault = await open(QUICK, { url }).then(() => null, (error: unknown) => error);
      expect(fault).toMatchObject({ code: expect.stringMatching(/^(storeUnavailable|badConfiguration)$/) });
      expect(inspect(fault, { depth: 10, showHidden: true })).not.toContain('hunter2');
    }
  });

  test('examining tells what an operator should know, and writes nothing', async () => {
    const place = { kind: 'eventstoredb', url: double.url } as const;
    const before = await examineEventStoreDb(place);
    expect(before.map(({ level, what }) => `${what} ${level}`)).toEqual(['reachable ok', 'version ok', 'leader ok', 'store ok', 'appends ok', 'disk ok', 'clock ok']);
    expect(before.find(({ what }) => what === 'store')?.found).toMatch(/^not yet/);
    const { storeId } = await open();
    expect((await examineEventStoreDb(place)).find(({ what }) => what === 'store')?.found).toBe(storeId);
    const gone = await examineEventStoreDb({ kind: 'eventstoredb', url: 'esdb://ops:hunter2@127.0.0.1:1?tls=false' });
    expect(gone.map(({ level, what }) => `${what} ${level}`)).toEqual(['reachable bad', 'credentials warn']);
    expect(JSON.stringify(gone)).not.toContain('hunter2');
    expect(gone.every(({ advice }) => advice !== null)).toBe(true);
  });
});
