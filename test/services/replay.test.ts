// Replays: the next generation beside the live one, compared at one position, promoted in a hold or refused; and back again.
import { setImmediate, setTimeout as pause } from 'node:timers/promises';
import { journeys } from '../../projections/journeys.ts';
import { persons } from '../../projections/persons.ts';
import type { Projection } from '../../projections/projection.ts';
import { decodeStructured } from '../../schemas/cloudevent.ts';
import { MemoryViewStore } from '../../services/adapters/memory-views.ts';
import { openRedisViewStore } from '../../services/adapters/redis.ts';
import { Door } from '../../services/door.ts';
import type { EventStore, Generation, View, ViewStore } from '../../services/ports.ts';
import type { Builder } from '../../services/projector/builder.ts';
import { compare, type CompareOptions } from '../../services/projector/compare.ts';
import { addHash, digestText, DocumentHasher, parseDigest, removeHash } from '../../services/projector/digest.ts';
import { replay, replayLease, type ReplayOptions, type ReplayProgress, type ReplayResult } from '../../services/projector/replay.ts';
import { fieldsOf } from '../../services/replay.ts';
import { shardOf } from '../../services/shards.ts';
import { ADAPTERS, freshFold, keysOf, liveView, MANY, type Opened, position, project, recorded, ROOM } from '../support/folds.ts';
import { describeOn } from '../support/local-server.ts';
import { redisPlace, type RedisServer, startRedis } from '../support/redis-server.ts';
import { through, throughStore } from '../support/views.ts';

const wait: ReplayOptions['wait'] = (ms, signal) => pause(Math.min(ms, 2), undefined, { signal }).catch(() => undefined);

interface Told { readonly result: ReplayResult; readonly told: readonly ReplayProgress[] }

async function replayed(events: EventStore, views: ViewStore, more: Partial<ReplayOptions> = {}): Promise<Told> {
  const told: ReplayProgress[] = [];
  const result = await replay({
    events, views, projection: journeys, keysOf, to: 'next', anew: false, dryRun: false, accept: false, rate: null, room: ROOM, holder: 'test', clock: Date, wait,
    signal: new AbortController().signal, onProgress: (progress) => { told.push(progress); }, ...more,
  });
  return { result, told };
}

/** Another text for one of the documents, as a fault would have written it; with or without the digest moved along. */
async function plant(views: ViewStore, change: (text: string) => string, movesDigest = true): Promise<string> {
  const view = await liveView(views, 'journeys');
  const { documents } = await view.walk(null, 1000);
  const found = documents.find(({ key }) => key.includes('/j/'));
  if (found === undefined) throw new Error('no journey to change');
  const { key, value } = found;
  const hasher = new DocumentHasher();
  const before = parseDigest(await view.digest());
  const digest = movesDigest ? digestText(addHash(removeHash(before, hasher.hash(key, value)), hasher.hash(key, change(value)))) : digestText(before);
  const expected = await view.position();
  if (expected === null) throw new Error('nothing folded');
  expect(await view.commit({ expected, position: expected, role: 'live', documents: new Map([[key, change(value)]]), records: new Map(), digest })).toEqual({ kind: 'committed' });
  return key;
}
/** What a text is changed to: one digit of its first number, so that it stays JSON. */
const otherwise = (text: string): string => text.replace(/\d(?=\D)/, (digit) => String((Number(digit) + 1) % 10));

async function expectLive(events: EventStore, views: ViewStore, generation: number): Promise<void> {
  expect(await views.live('journeys')).toBe(generation);
  await project(events, views, { shards: (await liveView(views, 'journeys')).generation.shards });
  const { generation: { shards } } = await liveView(views, 'journeys');
  if (shards === 1) expect(await (await liveView(views, 'journeys')).digest()).toBe((await freshFold(events))[0]);
}

/** As a program of that version runs, until its own generation answers. */
async function upgrade(events: EventStore, views: ViewStore, projection: Projection): Promise<void> {
  const stop = new AbortController();
  let now = 0;
  const onProgress = async (): Promise<void> => { if ((await liveView(views, 'journeys')).generation.version === projection.version) stop.abort(); };
  await project(events, views, { projections: [projection], signal: stop.signal, clock: { now: () => (now += 3000) }, onProgress: () => { void onProgress(); } });
}

function replaysOver(open: () => Promise<Opened>): void {
  let opened: Opened;
  let events: EventStore;
  beforeEach(async () => { opened = await open(); });
  afterEach(async () => opened.dispose());
  const folded = async (count: number, shards = 1): Promise<ViewStore> => {
    events = await recorded(31, count, MANY);
    await project(events, opened.views, { shards });
    return opened.views;
  };

  test('G5: the next generation is folded beside the live one, found equal, promoted; the old one is kept, an older one goes', async () => {
    const views = await folded(120, 2);
    const { result, told } = await replayed(events, views);
    expect(result).toMatchObject({ kind: 'promoted', from: { id: 1 }, to: { id: 2, shards: 2 }, compared: { equal: true, differences: [], more: false } });
    expect(told.at(-1)?.events).toBe(120);
    expect(told[0]?.share).toBe(0);
    expect(told.some(({ share }) => share === 1)).toBe(true);
    expect([await views.live('journeys'), await views.previous('journeys')]).toEqual([2, 1]);
    for (let shard = 0; shard < 2; shard += 1) {
      const [old, next] = [await views.view('journeys', 1, shard), await views.view('journeys', 2, shard)];
      expect([await next.position(), await next.digest()]).toEqual([await old.position(), await old.digest()]);
    }
    await replayed(events, views);
    expect((await views.generations('journeys')).map(({ id }) => id)).toEqual([2, 3]);
  });

  test('a shard that stands still, because nobody folds it, keeps no other from being built, however small the batches', async () => {
    const views = await folded(100, 2);
    await recorded(32, 1200, MANY, events);
    await project(events, views, { shards: 2, owned: [0] });
    const { result } = await replayed(events, views, { room: { ...ROOM, batchMax: 20 } });
    expect(result).toMatchObject({ kind: 'promoted', to: { id: 2 }, compared: { equal: true } });
    const positions = await Promise.all([0, 1].map(async (shard) => (await views.view('journeys', 2, shard)).position()));
    expect((positions[0] ?? '') > (positions[1] ?? '')).toBe(true);
    // What it has not read of the one that stood still, the next worker folds.
    await expectLive(events, views, 2);
    expect(await Promise.all([0, 1].map(async (shard) => (await views.view('journeys', 2, shard)).digest()))).toEqual(await Promise.all([0, 1].map((shard) => freshFold(events, (workspace) => shardOf(workspace, 2) === shard).then(([digest]) => digest))));
  }, 20_000);

  test('G5: a difference is refused and named, document by document; accept promotes it all the same', async () => {
    const views = await folded(60);
    const key = await plant(views, otherwise);
    const { result } = await replayed(events, views);
    if (result.kind !== 'refused') throw new Error(result.kind);
    expect(result.compared).toMatchObject({ equal: false, more: false });
    expect(result.compared.differences.map((one) => one.key)).toEqual([key]);
    const [difference] = result.compared.differences;
    expect(difference?.live).toBe(otherwise(difference?.built ?? ''));
    expect(await views.live('journeys')).toBe(1);
    const accepted = await replayed(events, views, { accept: true });
    // What was folded is not folded again.
    expect(accepted.told.at(-1)?.events).toBe(0);
    expect(accepted.result).toMatchObject({ kind: 'promoted', to: { id: 2 }, compared: { equal: false } });
    await expectLive(events, views, 2);
  });

  test('G5: a document that was changed where it lies, and moved no digest, is found too', async () => {
    const views = await folded(60);
    const key = await plant(views, otherwise, false);
    const { result } = await replayed(events, views);
    expect(result).toMatchObject({ kind: 'refused', compared: { equal: false, differences: [{ key }] } });
    expect(await views.live('journeys')).toBe(1);
  });

  test('a digest that was moved wrongly is a difference too, with no document to show', async () => {
    const views = await folded(40);
    const view = await liveView(views, 'journeys');
    const expected = await view.position();
    if (expected === null) throw new Error('nothing folded');
    await view.commit({ expected, position: expected, role: 'live', documents: new Map(), records: new Map(), digest: 'f'.repeat(32) });
    expect((await replayed(events, views, { dryRun: true })).result).toMatchObject({ kind: 'compared', compared: { equal: false, differences: [], more: false } });
    expect(await views.live('journeys')).toBe(1);
  });

  test('a dry run promotes nothing; the replay after it goes on from what was folded, or, anew, from the start', async () => {
    const views = await folded(80);
    expect((await replayed(events, views, { dryRun: true })).result).toMatchObject({ kind: 'compared', live: { id: 1 }, built: { id: 2 }, compared: { equal: true } });
    expect([await views.live('journeys'), (await views.generations('journeys')).length]).toEqual([1, 2]);
    const anew = await replayed(events, views, { dryRun: true, anew: true });
    expect(anew.told.at(-1)?.events).toBe(80);
    expect((await views.generations('journeys')).map(({ id }) => id)).toEqual([1, 3]);
    const on = await replayed(events, views);
    expect([on.result.kind, on.told.at(-1)?.events]).toEqual(['promoted', 0]);
    await expectLive(events, views, 3);
  });

  test('G3: stopped between any two steps and started again, it ends with the same generation, and readers had the old one until then', async () => {
    const views = await folded(90);
    const fresh = (await freshFold(events))[0];
    let stops = 0;
    for (let after = 1; ; after += 1) {
      const stop = new AbortController();
      let steps = 0;
      const { result } = await replayed(events, views, { signal: stop.signal, room: { ...ROOM, batchMax: 7 }, onProgress: () => { if ((steps += 1) > after) stop.abort(); } });
      if (result.kind === 'promoted') break;
      expect(result).toEqual({ kind: 'stopped' });
      expect(await views.live('journeys')).toBe(1);
      stops += 1;
    }
    expect(stops).toBeGreaterThan(2);
    expect((await views.generations('journeys')).map(({ id }) => id)).toEqual([1, 2]);
    expect(await (await liveView(views, 'journeys')).digest()).toBe(fresh);
  });

  test('G3: while the live projector goes on and its log grows, nothing that was committed is missing after the promotion', async () => {
    const views = await folded(30);
    const stop = new AbortController();
    const live = project(events, await opened.again(), { signal: stop.signal, wait, clock: Date, onProgress: () => undefined });
    // Each round records more than the one before left.
    const growing = (async () => { for (let n = 0; n < 5 && !stop.signal.aborted; n += 1) { await recorded(32 + n, 40, MANY, events); await setImmediate(); } })();
    const { result } = await replayed(events, views);
    expect(result).toMatchObject({ kind: 'promoted', compared: { equal: true } });
    await growing;
    stop.abort();
    await live;
    await expectLive(events, views, 2);
  });

  test('a rollback catches up with what came since, and can be taken back; what is of another version stands as it was', async () => {
    const views = await folded(50);
    await replayed(events, views);
    await recorded(40, 30, MANY, events);
    await project(events, views);
    const { result, told } = await replayed(events, views, { to: 'back' });
    expect(result).toMatchObject({ kind: 'promoted', from: { id: 2 }, to: { id: 1 }, compared: { equal: true } });
    expect(told.at(-1)?.events).toBeGreaterThan(0);
    await expectLive(events, views, 1);
    expect((await replayed(events, views, { to: 'back' })).result).toMatchObject({ kind: 'promoted', to: { id: 2 } });
    // A program of another version finds what it cannot fold.
    const newer: Projection = { ...journeys, version: 'newer' };
    const before = await (await views.view('journeys', 1, 0)).position();
    expect((await replayed(events, views, { to: 'back', projection: newer })).result).toMatchObject({ kind: 'promoted', from: { id: 2 }, to: { id: 1 }, compared: null });
    expect([await views.live('journeys'), await (await liveView(views, 'journeys')).position()]).toEqual([1, before]);
  });

  test.each(['next', 'back'] as const)('G5: an upgrade that is promoted meanwhile is not undone by what was begun before it (%s)', async (to) => {
    const views = await folded(40);
    if (to === 'back') await replayed(events, views);
    const old = await views.live('journeys');
    let upgrades = 0;
    // The moment before commits are held for the promotion.
    const upgraded = throughStore(views, { hold: async (group) => {
      if ((upgrades += 1) === 1) await upgrade(events, views, { ...journeys, version: 'newer' });
      return views.hold(group);
    } });
    const { result } = await replayed(events, upgraded, { to });
    expect(result).toMatchObject({ kind: 'nothing', why: expect.stringContaining('of version newer, was promoted meanwhile') });
    expect([(await liveView(views, 'journeys')).generation.version, await views.previous('journeys'), upgrades]).toEqual(['newer', old, 1]);
  });

  test('after an upgrade and a rollback the newer one comes back, though it stands further than what nobody folds', async () => {
    const views = await folded(40);
    const newer: Projection = { ...journeys, version: 'newer' };
    await upgrade(events, views, newer);
    await recorded(41, 30, MANY, events);
    await project(events, views, { projections: [newer] });
    expect((await replayed(events, views, { to: 'back', projection: newer })).result).toMatchObject({ kind: 'promoted', from: { id: 2 }, to: { id: 1 }, compared: null });
    expect((await replayed(events, views, { to: 'back', projection: newer, dryRun: true })).result).toMatchObject({ kind: 'nothing' });
    expect((await replayed(events, views, { to: 'back', projection: newer })).result).toMatchObject({ kind: 'promoted', from: { id: 1 }, to: { id: 2, version: 'newer' }, compared: null });
    expect([await views.live('journeys'), await views.previous('journeys')]).toEqual([2, 1]);
  });

  test('what a vocabulary knows and cannot read is counted, live and in a replay alike', async () => {
    const views = await folded(20);
    const door = new Door({ store: events, clock: Date, random: (size) => new Uint8Array(size), sleep: async () => undefined, tallies: views });
    const unreadable = ['text', '{"interactionId":null}', '{"interactionId":"i1"}'].map((data, n) => JSON.stringify({ specversion: '1.0', id: `u-${String(n)}`, source: 's', type: 'org.throughline.interaction.ended', identity: 'c0@example.com', identitytype: 'email', data: n === 0 ? data : JSON.parse(data) as unknown }));
    await door.receive(await keysOf('acme'), unreadable.map((text) => decodeStructured(Buffer.from(text), { maxEventBytes: 4096 })));
    const { told } = await project(events, views);
    expect(told.at(-1)?.map((group) => [group.group, group.unreadable])).toEqual([['journeys', 2], ['persons', 2]]);
    const again = await replayed(events, views);
    expect([again.result.kind, again.told.at(-1)?.events, again.told.at(-1)?.unreadable]).toEqual(['promoted', 23, 2]);
  });

  test('one that stands when another begins keeps it out; what it held for a promotion is given back', async () => {
    const views = await folded(20);
    await views.lease(replayLease('journeys'), 'other', 60_000);
    expect((await replayed(events, views)).result).toEqual({ kind: 'busy', holder: 'other' });
    await views.release(replayLease('journeys'), 'other');
    expect((await replayed(events, views)).result.kind).toBe('promoted');
    expect(await views.leases('replay/')).toEqual([]);
    const hold = await views.hold('journeys');
    expect(hold?.generation).toBe(2);
    await hold?.release();
  });
}

describe.each(ADAPTERS)('a replay over %s', (_name, _runs, open) => { replaysOver(open); });

describeOn(['redis'], 'a replay over a Redis', () => {
  let server: RedisServer;
  beforeAll(async () => { server = await startRedis(); });
  afterAll(async () => server.stop());
  replaysOver(async () => {
    const views: ViewStore[] = [];
    const again = async (): Promise<ViewStore> => {
      const store = await openRedisViewStore(redisPlace(server), { clock: Date });
      views.push(store);
      return store;
    };
    return {
      views: await again(), again,
      dispose: async () => {
        for (const store of views) await store.close();
        server.say('flushall', 'async');
      },
    };
  });
});

describe('a replay', () => {
  test('refuses to begin where a second generation would not fit, where there is none yet, and where it is still being built', async () => {
    const events = await recorded(50, 20);
    const views = new MemoryViewStore();
    expect((await replayed(events, views)).result).toMatchObject({ kind: 'nothing', why: expect.stringContaining('no generation of journeys yet') as string });
    const stop = new AbortController();
    await project(events, views, { signal: stop.signal, onProgress: () => stop.abort() });
    expect((await replayed(events, views)).result).toMatchObject({ kind: 'nothing', why: expect.stringContaining('still being built') as string });
    await project(events, views);
    const { bytes } = await (await liveView(views, 'journeys')).stats();
    const full = throughStore(views, { free: async () => bytes });
    expect((await replayed(events, full)).result).toEqual({ kind: 'noRoom', needed: Math.ceil(bytes * 1.1), free: bytes });
    expect((await views.generations('journeys')).length).toBe(1);
    expect((await replayed(events, throughStore(views, { free: async () => bytes * 2 }))).result.kind).toBe('promoted');
  });

  test('keeps to the rate that it is given', async () => {
    const events = await recorded(51, 60);
    const views = new MemoryViewStore();
    await project(events, views);
    let now = 0;
    const { result, told } = await replayed(events, views, { rate: 20, clock: { now: () => now }, wait: async (ms) => { now += ms; await setImmediate(); } });
    expect(result.kind).toBe('promoted');
    expect(now).toBeGreaterThanOrEqual(3000);
    // By half a second's worth: what was told at any moment is no more than was due.
    expect(told.filter(({ phase }) => phase === 'building').every(({ events: done }) => done <= now / 1000 * 20 + 10)).toBe(true);
  });

  test('gives way while the live generation falls further behind, and not to one that nobody folds', async () => {
    const events = await recorded(52, 120);
    const views = new MemoryViewStore();
    await project(events, views);
    let [now, looks] = [0, 0];
    const head = await events.head();
    /** The live one stands still further back each time, or does not move; a step of time passes with each look. */
    const behind = (moves: boolean): ViewStore => throughStore(views, { generations: async (group) => (await views.generations(group)).map((one) => ({ ...one, target: null })), view: async (group, id, shard) => {
      const view = await views.view(group, id, shard);
      if (id !== 1) return view;
      const place = moves && looks < 40 ? Math.min(100, (looks += 1)) : Number(head);
      return through(view, { position: async () => String(moves ? place : 120).padStart(20, '0') as NonNullable<typeof head> });
    } });
    const steps = { clock: { now: () => (now += 300) }, room: { ...ROOM, batchMax: 5 } };
    const { told } = await replayed(events, behind(true), { ...steps, dryRun: true });
    expect(told.some(({ phase }) => phase === 'paused')).toBe(true);
    const idle = await replayed(events, behind(false), { ...steps, dryRun: true, anew: true });
    expect(idle.told.some(({ phase }) => phase === 'paused')).toBe(false);
  });

  test('G5: a hold that ends before the pointer moves promotes nothing; it is tried again', async () => {
    const events = await recorded(53, 40);
    const views = new MemoryViewStore();
    await project(events, views);
    const fates = ['ends', 'refused', 'stands'] as const;
    let holds = 0;
    const fragile = throughStore(views, {
      hold: async (group) => {
        const hold = await views.hold(group);
        if (fates[holds++] === 'ends') await hold?.release();
        return holds === 2 ? (await hold?.release(), null) : hold;
      },
    });
    expect((await replayed(events, fragile)).result).toMatchObject({ kind: 'promoted', to: { id: 2 } });
    expect(holds).toBe(3);
  });

  test('G5: what differs only since the comparison is found in the hold', async () => {
    const events = await recorded(54, 40);
    const views = new MemoryViewStore();
    await project(events, views);
    let planted = false;
    const late = throughStore(views, { hold: async (group) => {
      if (!planted) await plant(views, otherwise);
      planted = true;
      return views.hold(group);
    } });
    expect((await replayed(events, late)).result).toMatchObject({ kind: 'refused', compared: { equal: false } });
    expect(await views.live('journeys')).toBe(1);
  });

  /** A live view to which something is committed with every look at a page of it, and one built beside it that is folded to where it stands. */
  const beside = (options: { readonly stands: boolean }): CompareOptions => {
    const keys = Array.from({ length: 1000 }, (_, i) => `acme/j/${String(i).padStart(4, '0')}`);
    const [live, built] = [new Map(keys.map((key) => [key, '0'])), new Map(keys.map((key) => [key, '0']))];
    live.set('acme/j/0700', 'changed where it lies');
    let [commits, looks] = [0, 0];
    const viewOf = (documents: Map<string, string>, onWalk: () => void): View => ({
      shard: 0, position: async () => position(options.stands ? commits : (looks += 1)), digest: async () => 'the same', load: async (some: readonly string[]) => some.map((key) => documents.get(key) ?? null),
      walk: async (from: string | null, limit: number) => {
        const start = Number(from ?? 0);
        const page = keys.slice(start, start + limit).map((key) => ({ key, value: documents.get(key) ?? '' }));
        onWalk();
        return { documents: page, next: start + limit < keys.length ? String(start + limit) : null };
      },
    }) as unknown as View;
    const commit = (): void => {
      commits += 1;
      for (const [i, key] of keys.entries()) if (i !== 700) live.set(key, String(commits));
    };
    const [one, other] = [viewOf(live, commit), viewOf(built, () => undefined)];
    return {
      views: { view: async () => one } as unknown as ViewStore, live: { group: 'journeys', id: 1, shards: 1 } as Generation, builder: { view: () => other } as unknown as Builder, everyDocument: true, wait,
      signal: new AbortController().signal, foldTo: async () => { for (const [i, key] of keys.entries()) if (i !== 700) built.set(key, String(commits)); },
    };
  };

  test('G5: a document that differs is found among any number that change while they are compared', async () => {
    expect(await compare(beside({ stands: true }))).toEqual({ equal: false, whole: true, differences: [{ key: 'acme/j/0700', live: 'changed where it lies', built: '0' }], more: false });
  });

  test('G5: what never stands still for a look is not called equal', async () => {
    const moving = beside({ stands: false });
    // Where it stood for its digest is known: what comes after that is what moves.
    const view = await moving.views.view('journeys', 1, 0);
    let standing = 3;
    const looked = through(view, { position: async () => (standing-- > 0 ? position(1) : view.position()) });
    await expect(compare({ ...moving, views: { ...moving.views, view: async () => looked } })).rejects.toMatchObject({ code: 'storeBusy' });
  });

  test('tells documents apart field by field, also one that is missing', () => {
    expect(fieldsOf({ key: 'acme/x/1', live: '{"a":1,"b":{"c":[1,2]}}', built: '{"a":1,"b":{"c":[1,3]},"d":null}' }, { ...persons, unpack: (_key, text) => JSON.parse(text) as never }, 'one', 'two'))
      .toEqual(['b.c.1: 2 in one, 3 in two', 'd: absent in one, null in two']);
    expect(fieldsOf({ key: 'acme/x/1', live: null, built: '{}' }, persons, 'one', 'two')).toEqual(['is in two alone']);
    expect(fieldsOf({ key: 'acme/x/1', live: '{}', built: null }, persons, 'one', 'two')).toEqual(['is in one alone']);
  });
});
