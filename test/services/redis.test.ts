// What only the view store in Redis must show: replies that are lost, several at work at once, a crash at every step of a
// large commit, a Redis that comes back empty or older, what a server must be like, and that nothing grows without limit.
import { Redis } from 'ioredis';
import type { RecordChange } from '../../projections/projection.ts';
import { examineRedis, openRedisLimiter, openRedisViewStore, type RedisPlace, type RedisViewStore } from '../../services/adapters/redis.ts';
import type { Reply } from '../../services/adapters/redis-index.ts';
import { CHUNK_BYTES, CHUNK_CALLS, Operations } from '../../services/adapters/redis-pack.ts';
import { BEGIN_PROMOTION, BUCKETS, DEMOTE, ENLIVEN, FLIP, LOCATORS_PART, MAKE_SHARD, type Script } from '../../services/adapters/redis-scripts.ts';
import { COMMIT_MAX, type Link, RedisView } from '../../services/adapters/redis-view.ts';
import { OperatingError } from '../../services/errors.ts';
import type { Commit, Generation, View } from '../../services/ports.ts';
import { startProxy } from '../support/proxy.ts';
import { describeOn } from '../support/local-server.ts';
import { redisPlace, type RedisServer, startRedis } from '../support/redis-server.ts';
import { seeded } from '../support/seeded.ts';
import { until } from '../support/serve.ts';
import { at, commitOf, DAY, find, is, keysOf, MONDAY, record, tenCommits } from '../support/views.ts';

const SHAPE: Omit<Generation, 'id' | 'createdAt'> = {
  group: 'journeys', version: '1', shards: 1, storeId: 'store', target: null,
  fields: { medium: 'dense', agent: 'sparse', contact: 'keyed' }, subFields: { state: 'dense', by: 'sparse' }, ordered: ['o'],
};
/** Whatever a view has not reached yet. */
const FAR = at(1_000_000);

let server: RedisServer;
const opened: RedisViewStore[] = [];

async function open(place: Partial<RedisPlace> = {}): Promise<RedisViewStore> {
  const store = await openRedisViewStore(redisPlace(server, place), { clock: Date });
  opened.push(store);
  return store;
}

/** The live view of an empty Redis. */
async function openLive(shape: Partial<typeof SHAPE> = {}, place: Partial<RedisPlace> = {}): Promise<RedisView> {
  const store = await open(place);
  const { id } = await store.createGeneration({ ...SHAPE, ...shape });
  await store.promote('journeys', await store.live('journeys'), id);
  return store.view('journeys', id, 0);
}

const keys = (): readonly string[] => server.say('keys', '*');
/** Of all keys that match, the answers of one command. */
const askEach = (pattern: string, ...command: readonly string[]): readonly string[] => server.say('eval', "local out = {} for _, key in ipairs(redis.call('KEYS', ARGV[1])) do out[#out + 1] = redis.call(ARGV[2], key) end return out", '0', pattern, ...command);
const stateKey = (): string => keys().find((key) => key.endsWith('}s'))!;

describeOn(['redis'], 'the view store in Redis', () => {
  beforeAll(async () => { server = await startRedis(); });
  afterAll(async () => server.stop());
  afterEach(async () => {
    for (const store of opened.splice(0)) await store.close();
    server.say('flushall');
  });

  describe('several at once', () => {
    test('G3: of two writers with the same commit at the same moment one makes it', async () => {
      const one = await openLive();
      const two = await (await open()).view('journeys', 1, 0);
      for (let turn = 1; turn <= 10; turn += 1) {
        const results = await Promise.all([one, two].map(async (view, i) => view.commit(commitOf(turn, [record(`k${turn}`, MONDAY, { agent: [`w${i}`] })], { 'acme/j/last': String(i) }))));
        expect(results.map(({ kind }) => kind).sort()).toEqual(['committed', 'moved']);
        const winner = results.findIndex(({ kind }) => kind === 'committed');
        expect(await one.load(['acme/j/last'])).toEqual([String(winner)]);
      }
      expect((await find(two)).total).toBe(10);
    });

    test('what a reader has decoded it does not read again while nothing was committed', async () => {
      const writer = await openLive();
      const reader = await (await open()).view('journeys', 1, 0);
      await tenCommits(writer, reader);
      const cold = reader.work.postingsRead;
      for (const query of [{}, { clauses: [is('medium', 'm')] }, { sub: [is('state', 's')] }]) await find(reader, query);
      expect(reader.work.postingsRead).toBe(cold);
    });

    test('G5: a search that commits come between answers with documents, index and total of one commit', async () => {
      const writer = await openLive();
      let count = 0;
      const write = async (): Promise<void> => {
        count += 1;
        const records = [record('moving', MONDAY + count * 3_600_000, { medium: ['m'] }), record(`n${count}`, MONDAY, { medium: ['m'], contact: [`c${count % 2}`] }, [{ state: ['s'] }])];
        expect(await writer.commit(commitOf(count, records, { 'acme/j/moving': String(count) }))).toEqual({ kind: 'committed' });
      };
      await write();
      // A commit before each of the first reads of a search, so that every place between two reads is met.
      let between = 0;
      const reader = await heldView(async (script) => {
        if (!script.readOnly || between === 0) return;
        between -= 1;
        await write();
      });
      for (let commits = 1; commits <= 7; commits += 1) {
        for (const query of [{}, { clauses: [is('medium', 'm')] }, { clauses: [is('medium', 'm')], sub: [is('state', 's')] }]) {
          between = commits;
          const { rows, total } = await find(reader, { ...query, limit: 1000 });
          between = 0;
          const moving = rows.find(({ key }) => key === 'moving');
          expect(rows).toHaveLength(total);
          if ('sub' in query) continue;
          expect(moving?.time).toBe(MONDAY + (total - 1) * 3_600_000);
          expect(moving?.document).toBe(String(total - 1));
        }
      }
      expect(reader.work.tornReads).toBeGreaterThan(0);
    });

    test('G5: where nobody commits a search begins with what it knows, and has all that was committed before it began', async () => {
      const writer = await openLive();
      let count = 0;
      const write = async (): Promise<void> => {
        count += 1;
        expect(await writer.commit(commitOf(count, [record(`n${count}`, MONDAY + count * DAY, { medium: ['m'] })], { [`acme/j/n${count}`]: String(count) }))).toEqual({ kind: 'committed' });
      };
      await write();
      let [reads, before] = [0, 0];
      const reader = await heldView(async (script) => {
        if (!script.readOnly) return;
        reads += 1;
        if (reads === before) await write();
      });
      const search = async (commitBefore = 0): Promise<number> => {
        [reads, before] = [0, commitBefore];
        const known = count;
        const { rows, total } = await find(reader, { clauses: [is('medium', 'm')] });
        expect(rows.map(({ key, document }) => [key, document])).toEqual(Array.from({ length: total }, (_, i) => [`n${i + 1}`, String(i + 1)]));
        expect([known, count]).toContain(total);
        return reads;
      };
      const first = await search();
      await search();
      const still = await search();
      expect(still).toBeLessThan(first);
      for (let read = 1; read <= still + 1; read += 1) {
        for (let calm = 0; calm < 3; calm += 1) await search();
        await search(read);
      }
      // On days of their own: what another connection commits between two searches is found by the next.
      for (let calm = 0; calm < 3; calm += 1) await search();
      await write();
      await search();
    });

    test('a promotion that was cut off holds commits for a moment; then the live generation takes them again, and the late flip fails', async () => {
      const view = await openLive();
      const store = opened[0]!;
      const next = await store.createGeneration(SHAPE);
      const group = keys().find((key) => key.endsWith('}group:journeys'))!;
      const old = keys().find((key) => key.endsWith('}s') && key.includes('journeys-1-'))!;
      const raw = await link();
      const epoch = await raw.run(BEGIN_PROMOTION, [group], [1, next.id]) as number;
      await raw.run(DEMOTE, [old], [epoch, 'token', 300]);
      expect(await view.commit(commitOf(1, []))).toEqual({ kind: 'held' });
      expect(server.say('pttl', old.replace(/s$/, 'h')).map(Number)[0]).toBeGreaterThan(0);
      server.say('del', old.replace(/s$/, 'h'));
      expect(await view.commit(commitOf(1, []))).toEqual({ kind: 'committed' });
      expect(await raw.run(FLIP, [group], [1, next.id, epoch])).toBe(-2);
      expect(await store.live('journeys')).toBe(1);
      // Told too late: the shard has heard of a later epoch.
      expect(await raw.run(DEMOTE, [old], [epoch, 'token', 300])).toBe(0);
      expect(await view.commit(commitOf(2, []))).toEqual({ kind: 'committed' });
    });

    test('a promotion cut off after the flip: the shards of the new generation are taken up by its first commit', async () => {
      const old = await openLive();
      const store = opened[0]!;
      const { id } = await store.createGeneration({ ...SHAPE, shards: 2 });
      const group = keys().find((key) => key.endsWith('}group:journeys'))!;
      const raw = await link();
      const epoch = await raw.run(BEGIN_PROMOTION, [group], [1, id]) as number;
      await raw.run(DEMOTE, [keys().find((key) => key.endsWith('}s') && key.includes('journeys-1-'))!], [epoch, 'token', 1]);
      expect(await raw.run(FLIP, [group], [1, id, epoch])).toBe(1);
      expect(await raw.run(FLIP, [group], [1, id, epoch])).toBe(1);
      for (const shard of [0, 1]) expect(await (await store.view('journeys', id, shard)).commit(commitOf(1, []))).toEqual({ kind: 'committed' });
      await until('the hold is over', async () => (await old.commit(commitOf(1, []))).kind !== 'held');
      expect(await old.commit(commitOf(1, []))).toEqual({ kind: 'moved', position: null, live: id });
    });

    test('G5: of promotions at the same moment one wins, and its generation alone takes commits as the live one', async () => {
      await openLive();
      const stores = [opened[0]!, await open(), await open()];
      const made = await Promise.all(stores.map(async (store) => store.createGeneration(SHAPE)));
      const flipped = await Promise.all(stores.map(async (store, i) => store.promote('journeys', 1, made[i]!.id).catch((error: unknown) => (error as OperatingError).code)));
      expect(flipped.filter((answer) => answer === true)).toHaveLength(1);
      const live = await stores[0]!.live('journeys');
      for (const id of [1, ...made.map((generation) => generation.id)]) {
        const { kind } = await (await stores[0]!.view('journeys', id, 0)).commit(commitOf(1, []));
        expect([id, kind]).toEqual([id, id === live ? 'committed' : 'moved']);
      }
    });
  });

  // ---- large commits ---------------------------------------------------------------------------------------------------

  describe('a large commit', () => {
    const PLACES = 500;
    /** Several chunks: documents, and records on many days. */
    const large = (count: number, generation: number): Commit => commitOf(count,
      Array.from({ length: PLACES }, (_, place) => record(`k${place}`, MONDAY + place % 7 * DAY + place, { medium: [`m${generation}`], agent: [`a${place % 50}`], contact: [`c${place}`] }, [{ state: [`s${generation}`] }])),
      { ...Object.fromEntries(Array.from({ length: PLACES }, (_, place) => [`acme/j/k${place}`, JSON.stringify({ generation, text: 'x'.repeat(1000) })])), [`acme/o/${generation}`]: '1', [`acme/o/${generation - 1}`]: null });

    /** The view as it must be after the commit of that number, 0: none. */
    async function isWhole(view: View, generation: number): Promise<void> {
      const documents = await view.load(Array.from({ length: PLACES }, (_, place) => `acme/j/k${place}`));
      expect(new Set(documents.map((text) => (text === null ? 0 : (JSON.parse(text) as { generation: number }).generation)))).toEqual(new Set([generation]));
      const total = generation === 0 ? 0 : PLACES;
      expect([(await find(view)).total, (await find(view, { clauses: [is('medium', `m${generation}`)] })).total, (await find(view, { sub: [is('state', `s${generation}`)] })).total]).toEqual([total, total, total]);
      if (generation > 1) expect((await find(view, { clauses: [is('medium', `m${generation - 1}`)] })).total).toBe(0);
      expect((await view.scan('acme/o/', 'acme/o0', 9)).map(({ key }) => key)).toEqual(generation === 0 ? [] : [`acme/o/${generation}`]);
      expect(await view.stats()).toMatchObject({ documents: generation === 0 ? 0 : PLACES + 1, records: total });
    }

    test('is written beside the view, sealed, and applied; what it wrote is loaded at once, and its position is seen when all of it is there', async () => {
      const view = await openLive({ target: FAR });
      const reader = await (await open()).view('journeys', 1, 0);
      for (const generation of [1, 2]) {
        expect(await view.commit(large(generation, generation))).toEqual({ kind: 'committed' });
        expect(await view.load(['acme/j/k0', 'acme/j/none', `acme/o/${generation - 1}`])).toEqual([JSON.stringify({ generation, text: 'x'.repeat(1000) }), null, null]);
        expect(await reader.position()).toBe(at(generation));
        expect(await reader.digest()).toBe(String(generation).padStart(32, '0'));
        await isWhole(reader, generation);
        await isWhole(view, generation);
      }
      expect(view.work.stages).toBe(2);
      expect(keys().filter((key) => /-\w+\}[gp]/.test(key))).toEqual([]);
    });

    test('no call carries more than a chunk, however much there is', async () => {
      const view = await openLive({ target: FAR });
      await view.commit(large(1, 1));
      expect(view.work.chunks).toBeGreaterThan(2);
      // The last operation of a chunk may go past the limit: a group of documents.
      expect(view.work.largestChunk).toBeLessThan(CHUNK_BYTES + 2 * 64 * 1024);
      const operations = new Operations();
      while (!operations.isFull) operations.begin(3).text('SET').text('k').text('v');
      expect(operations.calls).toBe(CHUNK_CALLS);
    });

    test('to a view that readers see is one call, and what commitMax allows is two chunks of it at most', async () => {
      const view = await openLive();
      await view.commit(large(1, 1));
      expect(view.work).toMatchObject({ commits: 1, stages: 0 });
      const { chunks } = view.work;
      const { changes, bytes } = COMMIT_MAX;
      const records = Array.from({ length: changes / 4 }, (_, place) => record(`n${place}`, MONDAY, { medium: ['m'], agent: ['a', 'b'], contact: [`c${place}`, `d${place}`] }, Array.from({ length: 10 }, (__, i) => ({ state: [`s${i}`], by: [`by${place}`] }))));
      await view.commit(commitOf(2, records, Object.fromEntries(Array.from({ length: changes * 3 / 4 }, (_, place) => [`acme/j/n${place}`, 'x'.repeat(Math.floor(bytes * 4 / 3 / changes))]))));
      expect(view.work.chunks - chunks).toBeLessThanOrEqual(2);
    });

    test('G3: a crash before or after any step of it leaves the old state or the new one, whole, and the next writer goes on', async () => {
      const before = large(1, 1);
      // Which of the writer's calls is its last, and whether that one is still carried out.
      for (let call = 0, ended = false; !ended; call += 1) {
        for (const carriedOut of [false, true]) {
          server.say('flushall');
          const first = await heldView(async () => undefined);
          expect(await first.commit(before)).toEqual({ kind: 'committed' });
          await first.close();
          let calls = 0;
          const crashing = await heldView(async (script, carryOut) => {
            if (script.readOnly) return;
            calls += 1;
            if (calls - 1 < call) return;
            if (carriedOut && calls - 1 === call) await carryOut();
            throw new OperatingError('storeUnavailable', 'crashed');
          });
          const result = await crashing.commit(large(2, 2)).then(({ kind }) => kind, () => 'unknown');
          await crashing.close();
          ended = calls <= call;
          // What readers are told of meanwhile is the old position, unless all of it was applied.
          const standing = server.say('hmget', stateKey(), 'pos', 'stage');
          expect(standing.length === 1 || standing[0] === at(1)).toBe(true);
          const next = await heldView(async () => undefined);
          const position = await next.position();
          await isWhole(next, position === at(1) ? 1 : 2);
          if (result === 'committed') expect(position).toBe(at(2));
          const count = position === at(1) ? 2 : 3;
          expect(await next.commit(large(count, count))).toEqual({ kind: 'committed' });
          await isWhole(next, count);
          await next.close();
        }
      }
    });

    test('that was never sealed goes by itself, and one that was does not', async () => {
      for (const [sealed, left] of [[false, 'expires'], [true, 'stays']] as const) {
        server.say('flushall');
        const crashing = await heldView(async (script, carryOut) => {
          if (script.lua.includes("'sealed'")) {
            if (sealed) await carryOut();
            throw new OperatingError('storeUnavailable', 'crashed');
          }
        });
        await expect(crashing.commit(large(1, 1))).rejects.toThrow('crashed');
        const chunks = keys().filter((key) => key.includes('}g'));
        expect(chunks.length).toBeGreaterThan(2);
        expect(new Set(chunks.map((key) => (Number(server.say('ttl', key)[0]) > 0 ? 'expires' : 'stays')))).toEqual(new Set([left]));
        expect(await (await heldView(async () => undefined)).position()).toBe(sealed ? at(1) : null);
      }
    });

    test('G3: several come to finish the same sealed one, and each chunk is applied once', async () => {
      const crashing = await heldView(async (script, carryOut) => {
        if (!script.lua.includes("'sealed'")) return;
        await carryOut();
        throw new OperatingError('storeUnavailable', 'crashed');
      });
      await expect(crashing.commit(large(1, 1))).rejects.toThrow('crashed');
      const others = await Promise.all(Array.from({ length: 4 }, async () => heldView(async () => undefined)));
      const results = await Promise.all(others.map(async (view, i) => (i % 2 === 0 ? view.commit(large(2, 2)) : view.position())));
      expect(results.filter((result) => result !== null && typeof result === 'object' && result.kind === 'committed')).toHaveLength(1);
      for (const view of others) await isWhole(view, 2);
    });

    test('a large one takes turns with small ones, and neither builds on what the other has changed', async () => {
      const one = await openLive({ target: FAR });
      const two = await (await open()).view('journeys', 1, 0);
      await one.commit(large(1, 1));
      expect(await two.commit(commitOf(2, [record('k0', MONDAY, { medium: ['own'] })], { 'acme/j/k0': '{"generation":1}' }))).toEqual({ kind: 'committed' });
      expect((await find(two, { clauses: [is('medium', 'm1')] })).total).toBe(PLACES - 1);
      expect(await one.commit(large(2, 2))).toMatchObject({ kind: 'moved', position: at(2) });
      expect(await one.commit(large(3, 3))).toEqual({ kind: 'committed' });
      expect((await find(two, { clauses: [is('medium', 'own')] })).total).toBe(0);
      expect((await find(two, { clauses: [is('medium', 'm3')] })).total).toBe(PLACES);
    });
  });

  // ---- a network that loses -------------------------------------------------------------------------------------------

  describe('a reply that is lost', () => {
    test.each(['a small commit', 'a large one'])('%s is made once: sent again, it finds its own position', async (size) => {
      const store = await open();
      const { id } = await store.createGeneration({ ...SHAPE, target: FAR });
      await store.promote('journeys', null, id);
      const proxy = await startProxy(server);
      try {
        const remote = await openRedisViewStore(redisPlace(proxy), { clock: Date });
        const view = await remote.view('journeys', id, 0);
        const documents = Object.fromEntries(Array.from({ length: size === 'a small commit' ? 1 : 2_000 }, (_, i) => [`acme/j/d${i}`, 'x'.repeat(1000)]));
        for (let count = 1; count <= 4; count += 1) {
          const direct = await store.view('journeys', id, 0);
          if (count % 2 === 0) proxy.set({ kind: 'mute' });
          const committing = view.commit(commitOf(count, [record(`k${count}`, MONDAY, { medium: ['m'] })], documents));
          if (count % 2 === 0) {
            // What was asked is answered, and the answers are swallowed; then the connections break.
            await until('an answer was swallowed', () => proxy.carried().swallowed > 0);
            proxy.set({ kind: 'pass' });
            proxy.cut();
          }
          expect(await committing).toEqual({ kind: 'committed' });
          expect(await view.position()).toBe(at(count));
          expect((await find(direct)).total).toBe(count);
          expect(server.say('hget', stateKey(), 'n')).toEqual([String(count)]);
        }
        await remote.close();
      } finally {
        await proxy.close();
      }
    });

    test('tallies are added once', async () => {
      const proxy = await startProxy(server);
      try {
        const store = await openRedisViewStore(redisPlace(proxy), { clock: Date });
        const tally = { workspace: 'acme', source: 's', recorded: 1, duplicates: 0, reusedIds: 0, rejected: {}, lateness: {}, lastSeen: '2026-03-02T09:00:00.000Z' };
        await store.addTallies([tally]);
        const swallowed = proxy.carried().swallowed;
        const other = await open();
        proxy.set({ kind: 'mute' });
        const adding = store.addTallies([tally]).catch(() => undefined);
        await until('an answer was swallowed', () => proxy.carried().swallowed > swallowed);
        proxy.set({ kind: 'pass' });
        proxy.cut();
        await adding;
        await Promise.all(Array.from({ length: 5 }, async () => other.addTallies([tally])));
        const [{ recorded } = { recorded: 0 }] = await other.tallies('acme');
        expect([6, 7]).toContain(recorded);
        await store.close();
      } finally {
        await proxy.close();
      }
    });
  });

  // ---- a Redis that is not what it was --------------------------------------------------------------------------------

  describe('a Redis that was emptied', () => {
    test('a view that somebody holds says that it is gone; the next generation of the same number is another', async () => {
      const view = await openLive();
      const store = opened[0]!;
      await view.commit(commitOf(1, [record('old', MONDAY, { medium: ['m'] })], { 'acme/j/old': '1' }));
      expect(await keysOf(view, { clauses: [is('medium', 'm')] })).toEqual(['old']);
      server.say('flushall');
      for (const read of [() => view.position(), () => view.load(['acme/j/old']), () => find(view), () => view.scan('acme/o/', 'acme/o0', 1)]) await expect(read()).rejects.toMatchObject({ code: 'storeUnavailable', retriable: true });
      expect(await view.commit(commitOf(2, []))).toEqual({ kind: 'moved', position: null, live: null });
      await expect(store.view('journeys', 1, 0)).rejects.toMatchObject({ code: 'viewMissing' });
      const again = await store.createGeneration(SHAPE);
      expect(again.id).toBe(1);
      await store.promote('journeys', null, 1);
      const fresh = await store.view('journeys', 1, 0);
      expect(fresh).not.toBe(view);
      expect(await fresh.position()).toBeNull();
      expect(await fresh.commit(commitOf(1, [record('new', MONDAY, { medium: ['m'] })]))).toEqual({ kind: 'committed' });
      expect(await keysOf(fresh, { clauses: [is('medium', 'm')] })).toEqual(['new']);
      await expect(view.position()).rejects.toMatchObject({ code: 'storeUnavailable' });
    });

    test('a shard alone that was lost is empty, and is folded again', async () => {
      const view = await openLive();
      await view.commit(commitOf(1, [record('old', MONDAY)]));
      expect(askEach('{tl:journeys-1-0-*', 'del').length).toBeGreaterThan(5);
      await expect(view.position()).rejects.toMatchObject({ code: 'storeUnavailable' });
      expect(await opened[0]!.view('journeys', 1, 0)).toBe(view);
      expect(await view.position()).toBeNull();
      expect(await find(view)).toMatchObject({ total: 0 });
      expect(await view.commit(commitOf(1, [record('new', MONDAY)]))).toEqual({ kind: 'committed' });
      expect(await keysOf(view)).toEqual(['new']);
    });
  });

  test('G3: a Redis that comes back without its last writes: nothing that anybody remembers of them is taken for what is folded again', async () => {
    const older = await startRedis({ settings: { dbfilename: 'dump.rdb' } });
    const connect = async (): Promise<RedisViewStore> => openRedisViewStore(redisPlace(older), { clock: Date });
    const stores = [await connect(), await connect(), await connect()];
    try {
      const { id } = await stores[0]!.createGeneration(SHAPE);
      await stores[0]!.promote('journeys', null, id);
      const [writer, other, reader] = await Promise.all(stores.map(async (store) => store.view('journeys', id, 0)));
      const queries = [{ clauses: [is('medium', 'm')] }, { sub: [is('state', 's')] }, { clauses: [is('contact', 'c')] }, {}];
      const look = async (view: View): Promise<unknown[]> => Promise.all(queries.map(async (query) => (await find(view, query)).rows.map(({ key, time }) => [key, time])));
      const folded = (count: number, by: string): Commit => commitOf(count, [record(`${by}${count}`, MONDAY + count, { medium: ['m'], contact: ['c'] }, [{ state: ['s'] }])]);
      for (let count = 1; count <= 3; count += 1) await writer!.commit(folded(count, 'w'));
      older.say('save');
      for (let count = 4; count <= 6; count += 1) await writer!.commit(folded(count, 'w'));
      await look(reader!);
      await look(writer!);
      await older.restart();
      await until('readers are connected again', () => reader!.position().then(() => true, () => false));
      expect(await reader!.position()).toBe(at(3));
      // Another worker folds on, in batches of its own, past where the first one was.
      for (let count = 4; count <= 6; count += 1) expect(await other!.commit(folded(count, 'o'))).toEqual({ kind: 'committed' });
      const wanted = ['w1', 'w2', 'w3', 'o4', 'o5', 'o6'].map((key) => [key, MONDAY + Number(key.slice(1))]);
      for (const view of [reader!, writer!, other!]) expect(await look(view)).toEqual([wanted, wanted, wanted, wanted]);
      // The first one believes in the same position, of another commit.
      expect(await writer!.commit(folded(7, 'w'))).toEqual({ kind: 'committed' });
      for (const view of [reader!, other!]) expect((await look(view))[0]).toEqual([...wanted, ['w7', MONDAY + 7]]);
    } finally {
      for (const store of stores) await store.close();
      await older.stop();
    }
  });

  test('while Redis is away a reader is told at once, a writer in a moment; both go on when it is back', async () => {
    const away = await startRedis({ persistent: true });
    const notices: string[] = [];
    const store = await openRedisViewStore(redisPlace(away), { clock: Date, onNotice: (message) => notices.push(message) });
    try {
      const { id } = await store.createGeneration(SHAPE);
      await store.promote('journeys', null, id);
      const view = await store.view('journeys', id, 0);
      await view.commit(commitOf(1, [record('a', MONDAY)]));
      await away.kill();
      await until('it is noticed', () => notices.some((notice) => notice.includes('lost')));
      await expect(view.position()).rejects.toMatchObject({ code: 'storeUnavailable', retriable: true });
      await expect(view.commit(commitOf(2, []))).rejects.toMatchObject({ code: 'storeUnavailable', retriable: true });
      await away.restart();
      await until('readers are connected again', () => view.position().then(() => true, () => false));
      expect(await view.position()).toBe(at(1));
      expect(await view.commit(commitOf(2, [record('b', MONDAY)]))).toEqual({ kind: 'committed' });
      expect(await keysOf(view)).toEqual(['a', 'b']);
      expect(notices.some((notice) => notice.includes('there again'))).toBe(true);
    } finally {
      await store.close();
      await away.stop();
    }
  });

  test('a full Redis refuses a commit whole, and takes it when there is room; a generation can be dropped even then', async () => {
    const view = await openLive();
    const store = opened[0]!;
    const { id } = await store.createGeneration(SHAPE);
    await view.commit(commitOf(1, [record('a', MONDAY)]));
    server.say('config', 'set', 'maxmemory', '1');
    try {
      await expect(view.commit(commitOf(2, [record('b', MONDAY)], { 'acme/j/b': '1' }))).rejects.toMatchObject({ code: 'storeFull' });
      expect(await view.position()).toBe(at(1));
      expect(await store.dropGeneration('journeys', id)).toBe(true);
    } finally {
      server.say('config', 'set', 'maxmemory', '0');
    }
    expect(await keysOf(view)).toEqual(['a']);
    expect(await view.commit(commitOf(2, [record('b', MONDAY)]))).toEqual({ kind: 'committed' });
    expect(await keysOf(view)).toEqual(['a', 'b']);
  });

  test('a commit that breaks off half-way is noticed: nobody reads the view, and nobody writes it', async () => {
    const view = await openLive();
    await view.commit(commitOf(1, [record('a', MONDAY, { contact: ['c'] })]));
    const [block] = keys().filter((key) => key.includes('}r'));
    server.say('del', block!);
    server.say('set', block!, 'of somebody else');
    await expect(view.commit(commitOf(2, [record('b', MONDAY)], { 'acme/j/b': '1' }))).rejects.toMatchObject({ code: 'storeCorrupt' });
    for (const read of [() => view.position(), () => view.load(['acme/j/b']), () => find(view), () => view.commit(commitOf(2, []))]) await expect(read()).rejects.toMatchObject({ code: 'storeCorrupt' });
  });

  // ---- keys ------------------------------------------------------------------------------------------------------------

  describe('keys', () => {
    test('of one shard stand in one slot, none names a customer, and none but these are made', async () => {
      const view = await openLive({ shards: 2, target: FAR }, { prefix: 'a.b:c' });
      const store = opened[0]!;
      const shard = await store.view('journeys', 1, 1);
      for (const each of [view, shard]) await each.commit(commitOf(1, Array.from({ length: 40 }, (_, i) => record(`k${i}`, MONDAY + i * DAY, { medium: ['m'], agent: ['a'], contact: ['+1 555 010-0100'] }, [{ by: ['b'] }])), { 'acme/j/k1': '1', 'acme/o/1': '1' }));
      await store.addTallies([{ workspace: 'acme', source: 's', recorded: 1, duplicates: 0, reusedIds: 0, rejected: {}, lateness: {}, lastSeen: '' }]);
      await store.lease('name', 'holder', 1000);
      const tags = new Set(keys().map((key) => /^\{[^{}]+\}/.exec(key)?.[0] ?? key));
      expect([...tags].map((tag) => tag.replace(/-[\w-]{6}\}$/, '-INCARNATION}')).sort()).toEqual(['{a.b:c:control}', '{a.b:c:journeys-1-0-INCARNATION}', '{a.b:c:journeys-1-1-INCARNATION}', '{a.b:c:tallies}']);
      expect(keys().filter((key) => key.includes('555'))).toEqual([]);
    });

    test('of a dropped generation get an end, those too whose drop was cut off', async () => {
      await openLive();
      const store = opened[0]!;
      for (let count = 0; count < 2; count += 1) {
        const { id } = await store.createGeneration(SHAPE);
        await (await store.view('journeys', id, 0)).commit({ ...commitOf(1, Array.from({ length: 50 }, (_, i) => record(`k${i}`, MONDAY, { contact: [`c${i}`] }))), role: 'build' });
      }
      // As one that died after its first word leaves it.
      const group = keys().find((key) => key.endsWith('}group:journeys'))!;
      const body = server.say('hget', group, 'g:2').join('');
      server.say('hset', group, 'x:2', body);
      server.say('hdel', group, 'g:2');
      expect(await store.dropGeneration('journeys', 3)).toBe(true);
      const left = askEach('{tl:journeys-[23]-*', 'pttl').map(Number);
      expect(left.length).toBeGreaterThan(100);
      expect(left.filter((ms) => ms <= 0)).toEqual([]);
      expect(new Set(askEach('{tl:journeys-1-*', 'pttl'))).toEqual(new Set(['-1']));
      expect(server.say('hkeys', group).filter((field) => /^[xi]:/.test(field))).toHaveLength(1);
    });

    test('a keyed term of thousands of records is found whole, and loses those that go', async () => {
      const view = await openLive();
      const total = 3_000;
      await view.commit(commitOf(1, Array.from({ length: total }, (_, i) => record(`k${i}`, MONDAY + i, { contact: ['hot', `c${i}`] }))));
      for (let count = 2; count <= 12; count += 1) await view.commit(commitOf(count, [record(`n${count}`, MONDAY + DAY, { contact: ['hot', 'small'] })]));
      expect((await find(view, { clauses: [is('contact', 'hot')] })).total).toBe(total + 11);
      // In strings of bounded length.
      const parts = askEach('{tl:journeys-1-0-*}k*.*.*', 'strlen').map(Number);
      expect(parts.length).toBe(Math.ceil((total + 11) * 6 / LOCATORS_PART) + 1);
      expect(Math.max(...parts)).toBeLessThan(LOCATORS_PART + 64);
      const gone = [0, 1, 2, 1500, 2999];
      await view.commit(commitOf(13, gone.map((i) => ({ key: `k${i}`, state: null }))));
      const rest = await find(view, { clauses: [is('contact', 'hot')], limit: 10_000 });
      expect(rest.total).toBe(total + 11 - gone.length);
      expect(rest.rows.filter(({ key }) => gone.some((i) => key === `k${i}`))).toEqual([]);
      await view.commit(commitOf(14, Array.from({ length: 11 }, (_, i) => ({ key: `n${i + 2}`, state: null }))));
      expect((await find(view, { clauses: [is('contact', 'small')] })).total).toBe(0);
    });

    test('more entries take more buckets, and what stands in the first ones is still found', async () => {
      const view = await openLive();
      await view.commit(commitOf(1, Array.from({ length: 20 }, (_, i) => record(`k${i}`, MONDAY + i, { contact: ['c', `c${i}`] }))));
      // As if so many had been entered: the next ones go to the next level.
      server.say('hset', stateKey(), 'ents', String(BUCKETS * 64 + 1));
      const other = await (await open()).view('journeys', 1, 0);
      await other.commit(commitOf(2, Array.from({ length: 20 }, (_, i) => record(`k${i + 10}`, MONDAY + i + 10, { contact: ['c', `d${i}`] }))));
      expect(new Set(keys().flatMap((key) => /\}(k\d)\./.exec(key)?.[1] ?? []))).toEqual(new Set(['k0', 'k1']));
      expect((await find(other, { clauses: [is('contact', 'c')] })).rows.map(({ key }) => key)).toEqual(Array.from({ length: 30 }, (_, i) => `k${i}`));
      expect(await keysOf(other, { clauses: [is('contact', 'c5')] })).toEqual(['k5']);
      expect(await keysOf(other, { clauses: [is('contact', 'c15')] })).toEqual([]);
      await other.commit(commitOf(3, Array.from({ length: 30 }, (_, i) => ({ key: `k${i}`, state: null }))));
      expect(await find(other, { clauses: [is('contact', 'c')] })).toMatchObject({ total: 0 });
      expect(keys().filter((key) => key.includes('}k'))).toEqual([]);
    });

    test('a day that grows and changes by small commits is searched as the plain lists say', async () => {
      const view = await openLive();
      const reader = await (await open()).view('journeys', 1, 0);
      const chance = seeded(11);
      const agents = new Map<string, string>();
      const put = (key: string): RecordChange => {
        const agent = `a${chance.below(3)}`;
        agents.set(key, agent);
        return record(key, MONDAY + Number(key.slice(1)), { medium: [agent === 'a0' ? 'phone' : 'chat'], agent: [agent] }, [{ state: [agent], by: [agent] }]);
      };
      await view.commit(commitOf(1, Array.from({ length: 4_000 }, (_, i) => put(`k${i}`))));
      for (let count = 2; count <= 30; count += 1) {
        const changed = new Set(Array.from({ length: 5 }, () => `k${chance.below(4_000)}`));
        const gone = [...agents.keys()].filter((key) => !changed.has(key))[chance.below(3_000)]!;
        agents.delete(gone);
        const records = [...changed].map(put);
        const fresh = Array.from({ length: chance.below(40) }, (_, i) => put(`k${4_000 + count * 40 + i}`));
        await view.commit(commitOf(count, [...records, ...fresh, { key: gone, state: null }]));
        for (const agent of ['a0', 'a1', 'a2']) {
          const wanted = [...agents.values()].filter((each) => each === agent).length;
          for (const query of [{ clauses: [is('agent', agent)] }, { sub: [is('by', agent)] }, { sub: [is('state', agent)] }]) expect((await find(reader, { ...query, limit: 1 })).total).toBe(wanted);
        }
        expect((await find(reader, { clauses: [is('medium', 'phone')], limit: 1 })).total).toBe([...agents.values()].filter((each) => each === 'a0').length);
      }
      // Only what changed was written: a stretch of a bitmap, not the bitmap.
      expect(view.work.postingsRead).toBeLessThan(40);
    });

    test('an update whose terms stay writes its documents alone, and one whose sub-records change its row', async () => {
      const view = await openLive();
      await view.commit(commitOf(1, [record('a', MONDAY, { medium: ['m'], contact: ['c'] }, [{ state: ['s'] }])], { 'acme/j/a': '1' }));
      const before = { ...view.work };
      await view.commit(commitOf(2, [record('a', MONDAY, { medium: ['m'], contact: ['c'] }, [{ state: ['s'] }])], { 'acme/j/a': '2' }));
      expect(view.work.postingsWritten - before.postingsWritten).toBe(0);
      expect(view.work.rowsRead - before.rowsRead).toBe(0);
      expect(await find(view)).toMatchObject({ rows: [{ key: 'a', document: '2' }], total: 1 });
    });

    test('stats tell the memory of the shard alone', async () => {
      const view = await openLive({ shards: 2 });
      const other = await opened[0]!.view('journeys', 1, 1);
      const empty = (await view.stats()).bytes;
      await view.commit(commitOf(1, [], Object.fromEntries(Array.from({ length: 500 }, (_, i) => [`acme/j/${i}`, 'x'.repeat(1000)]))));
      const { documents, bytes } = await view.stats();
      expect(documents).toBe(500);
      expect(bytes - empty).toBeGreaterThan(500_000);
      expect(bytes - empty).toBeLessThan(800_000);
      expect((await other.stats()).bytes).toBeLessThan(10_000);
    });
  });

  // ---- what a server must be like --------------------------------------------------------------------------------------

  describe('what a server must be like', () => {
    const look = async (place: RedisPlace): Promise<Readonly<Record<string, string>>> => Object.fromEntries((await examineRedis(place)).map(({ what, level }) => [what, level]));

    test('an eviction policy that throws views away is refused with what to do', async () => {
      server.say('config', 'set', 'maxmemory-policy', 'allkeys-lru');
      try {
        await expect(open()).rejects.toMatchObject({ code: 'storeUnfit', message: expect.stringContaining('CONFIG SET maxmemory-policy noeviction') });
        expect(await look(redisPlace(server))).toMatchObject({ 'maxmemory-policy': 'bad', version: 'ok', reachable: 'ok' });
      } finally {
        server.say('config', 'set', 'maxmemory-policy', 'noeviction');
      }
    });

    test('one that is told to evict while it is used, or has evicted, is noticed by whoever asks what is live', async () => {
      const store = await openRedisViewStore(redisPlace(server), { clock: Date, fitMs: 0 });
      try {
        expect(await store.live('journeys')).toBeNull();
        server.say('config', 'set', 'maxmemory-policy', 'allkeys-lru');
        await expect(store.live('journeys')).rejects.toMatchObject({ code: 'storeUnfit', message: expect.stringContaining('CONFIG SET maxmemory-policy noeviction') });
        // A little more than it has in use without a key.
        const used = Number(/used_memory:(\d+)/.exec(server.say('info', 'memory').join('\n'))?.[1]);
        server.say('config', 'set', 'maxmemory', String(used + 1_000_000));
        for (let n = 0; n < 40; n += 1) server.say('set', `junk${n}`, 'x'.repeat(100_000));
        server.say('config', 'set', 'maxmemory', '0');
        server.say('config', 'set', 'maxmemory-policy', 'noeviction');
        await expect(store.live('journeys')).rejects.toMatchObject({ code: 'storeUnfit', message: expect.stringMatching(/has thrown away \d+ keys/) });
        const later = await openRedisViewStore(redisPlace(server), { clock: Date, fitMs: 0 });
        expect(await later.live('journeys')).toBeNull();
        await later.close();
      } finally {
        server.say('config', 'set', 'maxmemory', '0');
        server.say('config', 'set', 'maxmemory-policy', 'noeviction');
        await store.close();
      }
    });

    test('a full one is bad to doctor, and opened all the same: it can be read', async () => {
      server.say('config', 'set', 'maxmemory', '500000');
      try {
        expect((await examineRedis(redisPlace(server))).find(({ what }) => what === 'memory')).toMatchObject({ level: 'bad', advice: expect.stringContaining('raise maxmemory') });
        const told: string[] = [];
        const store = await openRedisViewStore(redisPlace(server), { clock: Date, onNotice: (message) => told.push(message) });
        expect(await store.live('journeys')).toBeNull();
        await store.close();
        expect(told).toContainEqual(expect.stringMatching(/^Redis: memory is \d+ MB used of 1 MB$/));
      } finally {
        server.say('config', 'set', 'maxmemory', '0');
      }
    });

    test('without persistence it is told and used; with it nothing is told', async () => {
      const told: string[] = [];
      const store = await openRedisViewStore(redisPlace(server), { clock: Date, onNotice: (message) => told.push(message) });
      await store.close();
      expect(told).toEqual(['Redis: persistence is off']);
      expect(await look(redisPlace(server))).toEqual({ reachable: 'ok', version: 'ok', mode: 'ok', role: 'ok', 'maxmemory-policy': 'ok', persistence: 'warn', memory: 'ok' });
      server.say('config', 'set', 'appendonly', 'yes');
      expect(await look(redisPlace(server))).toMatchObject({ persistence: 'ok' });
      server.say('config', 'set', 'appendonly', 'no');
      server.say('config', 'set', 'save', '60 1');
      expect(await look(redisPlace(server))).toMatchObject({ persistence: 'ok' });
      server.say('config', 'set', 'save', '');
    });

    test('a replica, a Cluster that is none and an address where nobody listens are refused', async () => {
      server.say('replicaof', '127.0.0.1', '1');
      try {
        await expect(open()).rejects.toMatchObject({ code: 'storeReadOnly' });
        expect(await look(redisPlace(server))).toMatchObject({ role: 'bad' });
      } finally {
        server.say('replicaof', 'no', 'one');
      }
      await expect(open({ cluster: true })).rejects.toBeInstanceOf(OperatingError);
      await expect(open({ nodes: [{ host: '127.0.0.1', port: 1 }] })).rejects.toMatchObject({ code: 'storeUnavailable', message: expect.stringContaining('127.0.0.1:1') });
      expect(await look(redisPlace({ port: 1 }))).toEqual({ reachable: 'bad' });
    });

    test('a database that cannot be selected is refused with why, and no other stands in for it', async () => {
      server.say('acl', 'setuser', 'app', 'on', '>secret', '~*', '+@all', '-select');
      try {
        await expect(open({ db: 99 })).rejects.toMatchObject({ code: 'storeUnfit', message: expect.stringContaining('has no database 99') });
        await expect(openRedisLimiter(redisPlace(server, { db: 99 }))).rejects.toMatchObject({ code: 'storeUnfit' });
        await expect(open({ db: 3, username: 'app', password: 'secret' })).rejects.toMatchObject({ code: 'storeUnfit', message: expect.stringContaining('may not SELECT 3') });
        expect((await examineRedis(redisPlace(server, { db: 99 }))).find(({ what }) => what === 'database')).toMatchObject({ level: 'bad', found: 'it has no database 99' });
        expect((await examineRedis(redisPlace(server, { db: 3, username: 'app', password: 'secret' }))).find(({ what }) => what === 'database')).toMatchObject({ level: 'bad', found: 'this user may not SELECT 3' });
        expect(await look(redisPlace(server, { db: 3 }))).toMatchObject({ reachable: 'ok', database: 'ok' });
        await openLive({}, { db: 3 });
        expect(server.say('-n', '0', 'dbsize')).toEqual(['0']);
        expect(Number(server.say('-n', '3', 'dbsize')[0])).toBeGreaterThan(0);
      } finally {
        server.say('acl', 'deluser', 'app');
      }
    });

    test('a database that is lost to a connection that comes back is not replaced by another, and is used again once it may be', async () => {
      server.say('acl', 'setuser', 'app', 'on', '>secret', '~*', '+@all');
      const { warn } = console;
      console.warn = () => undefined;
      const told: string[] = [];
      const store = await openRedisViewStore(redisPlace(server, { db: 3, username: 'app', password: 'secret' }), { clock: Date, onNotice: (message) => told.push(message) });
      try {
        expect(await store.lease('work', 'one', 60_000)).toBe(true);
        server.say('acl', 'setuser', 'app', '-select');
        server.say('client', 'kill', 'user', 'app');
        await until('both are told', () => told.filter((message) => message.includes('cannot be selected')).length === 2);
        await expect(store.leases('')).rejects.toMatchObject({ code: 'storeUnavailable' });
        await expect(store.lease('other', 'one', 60_000)).rejects.toMatchObject({ code: 'storeUnavailable' });
        server.say('acl', 'setuser', 'app', '+select');
        await until('it is there again', () => told.filter((message) => message === 'Redis is there again').length === 2);
        expect(await store.leases('')).toEqual([{ name: 'work', holder: 'one' }]);
        expect(server.say('-n', '0', 'dbsize')).toEqual(['0']);
      } finally {
        await store.close();
        console.warn = warn;
        server.say('acl', 'deluser', 'app');
      }
    });

    test('a user who may not ask for settings is served, and told what could not be checked', async () => {
      server.say('acl', 'setuser', 'app', 'on', '>secret', '~*', '+@all', '-config', '-info');
      const told: string[] = [];
      // The driver says on the console that it cannot ask either.
      const { warn } = console;
      console.warn = () => undefined;
      const store = await openRedisViewStore(redisPlace(server, { username: 'app', password: 'secret' }), { clock: Date, onNotice: (message) => told.push(message) });
      expect(await store.live('journeys')).toBeNull();
      await store.close();
      console.warn = warn;
      expect(told).toEqual(['Redis: INFO is forbidden']);
      server.say('acl', 'deluser', 'app');
    });

    test('TLS with its authority and a password; without either it is refused, and no password is told', async () => {
      const secure = await startRedis({ tls: true, password: 'a-secret-of-tests' });
      try {
        const tls = { caFile: secure.tls?.caFile ?? null, certFile: null, keyFile: null, verify: true };
        const store = await openRedisViewStore(redisPlace(secure, { tls, password: 'a-secret-of-tests' }), { clock: Date });
        expect(await store.live('journeys')).toBeNull();
        await store.close();
        const refused = await openRedisViewStore(redisPlace(secure, { tls, password: 'another-secret' }), { clock: Date }).catch((error: unknown) => error);
        expect(refused).toMatchObject({ code: 'storeUnfit' });
        expect(JSON.stringify([String(refused), Object.entries(refused as object), String((refused as Error).cause), Object.entries((refused as { cause: object }).cause)])).not.toContain('another-secret');
        await expect(openRedisViewStore(redisPlace(secure, { tls: { ...tls, caFile: null }, password: 'a-secret-of-tests' }), { clock: Date })).rejects.toMatchObject({ code: 'storeUnavailable' });
        await expect(openRedisViewStore(redisPlace(secure, { tls: { ...tls, caFile: '/none' } }), { clock: Date })).rejects.toMatchObject({ code: 'badConfiguration' });
      } finally {
        await secure.stop();
      }
    });
  });
});

// ---- a view over a connection that a test holds ----------------------------------------------------------------------------

/** Before each call: may wait, carry it out ahead of its time, or throw. */
type Meddle = (script: Script, carryOut: () => Promise<Reply>) => Promise<void>;
const CALL: Script = { lua: '', sha: '', readOnly: false };
const links: Redis[] = [];
afterEach(() => { for (const client of links.splice(0)) client.disconnect(); });

async function link(meddle: Meddle = async () => undefined): Promise<Link> {
  const client = new Redis({ port: server.port, host: '127.0.0.1', protocol: 2, lazyConnect: true });
  links.push(client);
  await client.connect();
  return {
    run: async (script, names, args) => {
      const carryOut = async (): Promise<Reply> => await client.callBuffer(script.readOnly ? 'EVAL_RO' : 'EVAL', script.lua, names.length, ...names, ...args) as Reply;
      await meddle(script, carryOut);
      return carryOut();
    },
    call: async (command, args) => {
      const carryOut = async (): Promise<Reply> => await client.callBuffer(command, ...args) as Reply;
      await meddle({ ...CALL, readOnly: command !== 'SET' }, carryOut);
      return carryOut();
    },
  };
}

/** A live view of a generation that is not at its target, without a store around it; the same one to all who ask on the same data. */
async function heldView(meddle: Meddle): Promise<RedisView> {
  const plain = await link();
  const found = keys().find((key) => key.endsWith('}s'));
  const tag = found?.slice(0, -1) ?? '{t:journeys-1-0-abcdef}';
  if (found === undefined) {
    await plain.run(MAKE_SHARD, [`${tag}s`], []);
    await plain.run(ENLIVEN, [`${tag}s`], [1]);
  }
  const held = await link(meddle);
  return new RedisView({
    generation: { ...SHAPE, target: FAR, id: 1, createdAt: '' }, shard: 0, tag, cluster: false, reading: held, writing: held,
    live: async () => 1, claim: async () => 0, random: (size) => crypto.getRandomValues(new Uint8Array(size)),
  });
}
