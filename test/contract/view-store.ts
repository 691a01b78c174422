// What every view store must do: the same assertions over each adapter. Only the port is used. One line runs it:
// viewStoreContract('memory', async () => ({ store: new MemoryViewStore(), dispose: async () => {} })).
import assert from 'node:assert';
import fc from 'fast-check';
import type { RecordChange, RecordState, SubRecord } from '../../projections/projection.ts';
import { type Clause, type Generation, HOLD_MS, type Position, type SearchQuery, type SearchResult, type SearchRow, type Tally, type TallyExample, type View, type ViewStore } from '../../services/ports.ts';
import { until } from '../support/serve.ts';
import { at, commitOf, commitWith, DAY, EVERYTHING, find, is, keysOf, MONDAY, record, tenCommits } from '../support/views.ts';

export interface Made {
  readonly store: ViewStore;
  /** Opens the same store once more, as another process does; where one process has it alone, it is the first again. */
  readonly again: () => Promise<ViewStore>;
  /** Stops the store, however often it was opened, and removes what it kept. */
  readonly dispose: () => Promise<void>;
  /** Moves the clock on that the store was given; left out where the time is a server's own. */
  readonly advance?: (ms: number) => void;
}

const SHAPE: Omit<Generation, 'id' | 'createdAt'> = {
  group: 'journeys', version: '1', shards: 2, storeId: 'store', target: null,
  fields: { medium: 'dense', outcome: 'dense', agent: 'sparse', contact: 'keyed', interaction: 'keyed' },
  subFields: { state: 'dense', by: 'sparse' }, ordered: ['o', 'scan'], recordSpace: 'j',
};

export function viewStoreContract(name: string, make: () => Promise<Made>): void {
  describe(`${name}: view store`, () => {
    let made: Made;
    let store: ViewStore;
    beforeEach(async () => {
      made = await make();
      store = made.store;
    });
    afterEach(async () => made.dispose());

    generationsContract(() => store);
    holdsContract(() => made);
    commitsContract(() => made);
    documentsContract(() => store);
    searchContract(() => store);
    changesContract(() => store);
    // A Cluster's shards are each on one node: what is large there is large as on one Redis.
    if (name !== 'Redis Cluster') sizesContract(() => store);
    leasesContract(() => made);
    talliesContract(() => store);
    propertiesContract(() => store, name.startsWith('Redis') ? 15 : 40);
  });
}

// ---- a small driver over the port --------------------------------------------------------------------------------------

/** Commits one thing after another to a view, each expecting the position of the one before. */
class Driver {
  readonly view: View;
  workspace = 'acme';
  position: Position | null = null;
  #count = 0;

  constructor(view: View) {
    this.view = view;
  }

  async write(changes: { documents?: Readonly<Record<string, string | null>>; records?: Readonly<Record<string, readonly RecordChange[]>> }, digest = '0'.repeat(32)): Promise<void> {
    const position = at(++this.#count);
    const result = await this.view.commit(commitWith({ expected: this.position, position, digest, documents: new Map(Object.entries(changes.documents ?? {})), records: new Map(Object.entries(changes.records ?? {})) }));
    assert.deepEqual(result, { kind: 'committed' });
    this.position = position;
  }

  async put(...records: readonly RecordChange[]): Promise<void> {
    await this.write({ records: { [this.workspace]: records } });
  }

  async find(query: Partial<SearchQuery>): Promise<SearchResult> {
    return find(this.view, { workspace: this.workspace, ...query });
  }

  async keys(query: Partial<SearchQuery> = {}): Promise<string[]> {
    return keysOf(this.view, { workspace: this.workspace, ...query });
  }
}

async function live(store: ViewStore, shape: Partial<typeof SHAPE> = {}): Promise<Driver> {
  const generation = await store.createGeneration({ ...SHAPE, ...shape });
  assert(await store.promote(generation.group, await store.live(generation.group), generation.id));
  return new Driver(await store.view(generation.group, generation.id, 0));
}

async function walked(view: View, limit: number): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  let from: string | null = null;
  do {
    const { documents, next } = await view.walk(from, limit);
    for (const { key, value } of documents) found[key] = value;
    from = next;
  } while (from !== null);
  return found;
}

// ---- generations -------------------------------------------------------------------------------------------------------

function generationsContract(store: () => ViewStore): void {
  describe('generations', () => {
    test('are numbered per group from 1, and none is live at first', async () => {
      const first = await store().createGeneration(SHAPE);
      const second = await store().createGeneration({ ...SHAPE, version: '2', target: at(7) });
      const other = await store().createGeneration({ ...SHAPE, group: 'persons' });
      expect([first.id, second.id, other.id]).toEqual([1, 2, 1]);
      expect(await store().live('journeys')).toBeNull();
      expect(await store().generations('journeys')).toEqual([first, second]);
      expect(second).toMatchObject({ ...SHAPE, version: '2', target: at(7) });
      expect(new Date(first.createdAt).toISOString()).toBe(first.createdAt);
      expect(await store().generations('nobody')).toEqual([]);
    });

    test('the live one moves only from where it was believed to be', async () => {
      const [first, second] = [await store().createGeneration(SHAPE), await store().createGeneration(SHAPE)];
      expect(await store().promote('journeys', 1, 2)).toBe(false);
      expect(await store().promote('journeys', null, first.id)).toBe(true);
      expect(await store().promote('journeys', null, second.id)).toBe(false);
      expect(await store().live('journeys')).toBe(1);
      expect(await store().promote('journeys', 1, second.id)).toBe(true);
      expect(await store().live('journeys')).toBe(2);
      expect(await store().live('persons')).toBeNull();
    });

    test('one that is not there cannot be promoted or viewed', async () => {
      await store().createGeneration(SHAPE);
      await expect(store().promote('journeys', null, 9)).rejects.toMatchObject({ code: 'viewMissing' });
      await expect(store().view('journeys', 9, 0)).rejects.toMatchObject({ code: 'viewMissing' });
      await expect(store().view('persons', 1, 0)).rejects.toMatchObject({ code: 'viewMissing' });
    });

    test('the live one is not dropped; another is, and its id is not given again', async () => {
      await live(store());
      const second = await store().createGeneration(SHAPE);
      expect(await store().dropGeneration('journeys', 1)).toBe(false);
      expect(await store().dropGeneration('journeys', second.id)).toBe(true);
      expect((await store().generations('journeys')).map(({ id }) => id)).toEqual([1]);
      await expect(store().view('journeys', second.id, 0)).rejects.toMatchObject({ code: 'viewMissing' });
      expect((await store().createGeneration(SHAPE)).id).toBe(3);
    });

    test('what was live before is remembered, until it is dropped', async () => {
      const ids = [(await store().createGeneration(SHAPE)).id, (await store().createGeneration(SHAPE)).id, (await store().createGeneration(SHAPE)).id] as const;
      expect(await store().previous('journeys')).toBeNull();
      await store().promote('journeys', null, ids[0]);
      expect(await store().previous('journeys')).toBeNull();
      await store().promote('journeys', ids[0], ids[1]);
      expect(await store().previous('journeys')).toBe(ids[0]);
      expect(await store().promote('journeys', ids[0], ids[2])).toBe(false);
      await store().promote('journeys', ids[1], ids[0]);
      expect([await store().live('journeys'), await store().previous('journeys')]).toEqual([ids[0], ids[1]]);
      await store().dropGeneration('journeys', ids[1]);
      expect(await store().previous('journeys')).toBeNull();
      expect(await store().previous('persons')).toBeNull();
    });

    test('versions are remembered in the order in which they were first seen, those of generations that stand before', async () => {
      await store().createGeneration({ ...SHAPE, version: 'a' });
      const second = await store().createGeneration({ ...SHAPE, version: 'b' });
      expect(await store().seen('journeys', 'c')).toEqual(['a', 'b', 'c']);
      expect(await store().seen('journeys', 'a')).toEqual(['a', 'b', 'c']);
      await store().dropGeneration('journeys', second.id);
      expect(await Promise.all(['b', 'd'].map((version) => store().seen('journeys', version))).then((all) => all[1])).toEqual(['a', 'b', 'c', 'd']);
      expect(await store().seen('persons', 'c')).toEqual(['c']);
    });

    test('a reader that holds a dropped one finishes, a writer is told', async () => {
      const old = await live(store());
      await old.write({ documents: { 'acme/j/a': '1' }, records: { acme: [record('a', MONDAY)] } });
      await live(store());
      expect(await store().dropGeneration('journeys', 1)).toBe(true);
      expect(await old.view.load(['acme/j/a'])).toEqual(['1']);
      expect(await old.keys()).toEqual(['a']);
      expect(await old.view.commit(commitWith({ expected: old.position, position: at(9), role: 'build' }))).toEqual({ kind: 'moved', position: old.position, live: 2 });
    });
  });
}

// ---- holds -------------------------------------------------------------------------------------------------------------

function holdsContract(made: () => Made): void {
  describe('a hold', () => {
    const store = (): ViewStore => made().store;
    const emptyAt = (driver: Driver, count: number, role: 'live' | 'build' = 'live') => driver.view.commit(commitWith({ expected: driver.position, position: at(count), role }));

    test('there is none where nothing is live', async () => {
      expect(await store().hold('journeys')).toBeNull();
    });

    test('G5: lets no commit to the live generation through until it is released, and hinders no builder and no reader', async () => {
      const driver = await live(store());
      await driver.write({ documents: { 'acme/j/a': '1' } });
      const next = await store().createGeneration(SHAPE);
      const builder = new Driver(await store().view('journeys', next.id, 0));
      const hold = await store().hold('journeys');
      assert(hold !== null);
      expect(hold.generation).toBe(1);
      expect(await emptyAt(driver, 5)).toEqual({ kind: 'held' });
      expect(await emptyAt(builder, 5, 'build')).toEqual({ kind: 'committed' });
      expect(await driver.view.load(['acme/j/a'])).toEqual(['1']);
      await hold.release();
      expect(await emptyAt(driver, 5)).toEqual({ kind: 'committed' });
      await hold.release();
    });

    test('one stands at a time, whoever asks', async () => {
      await live(store());
      const other = await made().again();
      const hold = await store().hold('journeys');
      expect(hold).not.toBeNull();
      expect(await other.hold('journeys')).toBeNull();
      await hold?.release();
      const next = await other.hold('journeys');
      expect(next).not.toBeNull();
      // One that has ended takes nothing from the one that came after it.
      await hold?.release();
      expect(await store().hold('journeys')).toBeNull();
      await next?.release();
    });

    test('G5: a promotion goes through under its own hold alone; the old generation takes no commit after it, the new one does', async () => {
      const driver = await live(store());
      const next = await store().createGeneration(SHAPE);
      const ended = await store().hold('journeys');
      await ended?.release();
      assert(ended !== null);
      expect(await store().promote('journeys', 1, next.id, ended)).toBe(false);
      expect(await store().live('journeys')).toBe(1);
      expect(await emptyAt(driver, 1)).toEqual({ kind: 'committed' });
      driver.position = at(1);
      const hold = await store().hold('journeys');
      assert(hold !== null);
      expect(await store().promote('journeys', 1, next.id, hold)).toBe(true);
      await hold.release();
      expect(await emptyAt(driver, 2)).toMatchObject({ kind: 'moved', live: next.id });
      expect(await emptyAt(new Driver(await store().view('journeys', next.id, 0)), 2)).toEqual({ kind: 'committed' });
    });

    test('ends by itself: commits go on, and a promotion under it does not', async () => {
      const driver = await live(store());
      const next = await store().createGeneration(SHAPE);
      const hold = await store().hold('journeys');
      assert(hold !== null);
      expect(await emptyAt(driver, 1)).toEqual({ kind: 'held' });
      made().advance?.(HOLD_MS + 1);
      await until('the hold has ended', async () => (await emptyAt(driver, 1)).kind === 'committed');
      expect(await store().promote('journeys', 1, next.id, hold)).toBe(false);
      expect(await store().live('journeys')).toBe(1);
    });
  });
}

// ---- commits -----------------------------------------------------------------------------------------------------------

function commitsContract(made: () => Made): void {
  const store = (): ViewStore => made().store;
  describe('a commit', () => {
    test('a new view is empty: no position, a digest of zeros', async () => {
      const { view } = await live(store());
      expect(await view.position()).toBeNull();
      expect(await view.digest()).toBe('0'.repeat(32));
      expect(await view.stats()).toMatchObject({ documents: 0, records: 0 });
    });

    test('writes documents, index, digest and position together', async () => {
      const driver = await live(store());
      await driver.write({ documents: { 'acme/j/a': '{"a":1}' }, records: { acme: [record('a', MONDAY)] } }, 'ab'.repeat(16));
      expect(await driver.view.position()).toBe(at(1));
      expect(await driver.view.digest()).toBe('ab'.repeat(16));
      expect(await driver.find({})).toEqual({ rows: [{ key: 'a', time: MONDAY, id: 'a', document: '{"a":1}' }], total: 1, more: false });
    });

    test('G3: writes nothing of it when another came first', async () => {
      const driver = await live(store());
      await driver.write({ documents: { 'acme/j/a': '1' } }, '1'.repeat(32));
      const late = commitWith({ expected: null, position: at(5), documents: new Map([['acme/j/a', '2'], ['acme/j/b', '2']]), records: new Map([['acme', [record('b', MONDAY)]]]), digest: '2'.repeat(32) });
      expect(await driver.view.commit(late)).toEqual({ kind: 'moved', position: at(1), live: 1 });
      expect(await driver.view.load(['acme/j/a', 'acme/j/b'])).toEqual(['1', null]);
      expect(await driver.view.position()).toBe(at(1));
      expect(await driver.view.digest()).toBe('1'.repeat(32));
      expect(await driver.keys()).toEqual([]);
    });

    test('of two that expect the same position one is written', async () => {
      const { view } = await live(store());
      const results = await Promise.all([1, 2, 3].map(async (each) => view.commit(commitWith({ position: at(each), documents: new Map([[`acme/j/${each}`, '1']]) }))));
      expect(results.map(({ kind }) => kind).sort()).toEqual(['committed', 'moved', 'moved']);
      expect((await view.load(['acme/j/1', 'acme/j/2', 'acme/j/3'])).filter((document) => document !== null)).toHaveLength(1);
    });

    test('G5: as the live worker needs the live generation, as a builder any other', async () => {
      const first = await store().createGeneration(SHAPE);
      const view = await store().view('journeys', first.id, 0);
      expect(await view.commit(commitWith({ role: 'live' }))).toEqual({ kind: 'moved', position: null, live: null });
      expect(await view.commit(commitWith({ role: 'build' }))).toEqual({ kind: 'committed' });
      await store().promote('journeys', null, first.id);
      expect(await view.commit(commitWith({ expected: at(1), position: at(2), role: 'build' }))).toEqual({ kind: 'moved', position: at(1), live: 1 });
      expect(await view.commit(commitWith({ expected: at(1), position: at(2), role: 'live' }))).toEqual({ kind: 'committed' });
      await live(store());
      expect(await view.commit(commitWith({ expected: at(2), position: at(3), role: 'live' }))).toEqual({ kind: 'moved', position: at(2), live: 2 });
    });

    test('a reader sees what another process committed, however warm its cache', async () => {
      const { view: writer } = await live(store());
      await tenCommits(writer, await (await made().again()).view('journeys', 1, 0));
    });

    test('G3: two writers take turns, and neither builds on what the other has changed since', async () => {
      const { view: one } = await live(store());
      const two = await (await made().again()).view('journeys', 1, 0);
      const kept = new Map<string, string>();
      for (let turn = 1; turn <= 40; turn += 1) {
        const key = `k${turn % 13}`;
        const agent = `agent${turn % 3}`;
        kept.set(key, agent);
        const [writer, other] = turn % 3 === 0 ? [two, one] : [one, two];
        expect(await writer.commit(commitOf(turn, [record(key, MONDAY + turn % 13, { agent: [agent, 'all'] }, [{ by: [agent] }])]))).toEqual({ kind: 'committed' });
        expect(await other.commit(commitOf(turn, []))).toEqual({ kind: 'moved', position: at(turn), live: 1 });
      }
      for (const view of [one, two]) {
        for (const agent of ['agent0', 'agent1', 'agent2']) {
          const wanted = [...kept].filter(([, of]) => of === agent).map(([key]) => key).sort();
          expect((await keysOf(view, { clauses: [is('agent', agent)] })).sort()).toEqual(wanted);
          expect((await keysOf(view, { sub: [is('by', agent)] })).sort()).toEqual(wanted);
        }
        expect((await find(view, { clauses: [is('agent', 'all')] })).total).toBe(13);
      }
    });

    test('moves a position along without anything else', async () => {
      const driver = await live(store());
      await driver.write({});
      await driver.write({});
      expect(await driver.view.position()).toBe(at(2));
    });

    test('touches no other shard and no other generation', async () => {
      const driver = await live(store());
      await driver.write({ documents: { 'acme/j/a': '1' }, records: { acme: [record('a', MONDAY)] } }, '1'.repeat(32));
      const next = await store().createGeneration(SHAPE);
      for (const view of [await store().view('journeys', 1, 1), await store().view('journeys', next.id, 0)]) {
        expect(await view.position()).toBeNull();
        expect(await view.digest()).toBe('0'.repeat(32));
        expect(await view.load(['acme/j/a'])).toEqual([null]);
        expect((await view.search(EVERYTHING, 'j')).total).toBe(0);
      }
      const shard = await store().view('journeys', 1, 1);
      expect(await shard.commit(commitWith({ position: at(4) }))).toEqual({ kind: 'committed' });
      expect(await driver.view.position()).toBe(at(1));
    });

    test('refuses a field that was not declared, and a key that bytes would order otherwise than characters', async () => {
      const driver = await live(store());
      await expect(driver.put(record('a', MONDAY, { nothing: ['x'] }))).rejects.toThrow('not declared');
      await expect(driver.put(record('a', MONDAY, {}, [{ medium: ['x'] }]))).rejects.toThrow('not declared');
      await expect(driver.write({ documents: { 'acme/j/ü': '1' } })).rejects.toThrow('ASCII');
      await expect(driver.find({ clauses: [is('nothing', 'x')] })).rejects.toThrow('not declared');
      expect(await driver.view.position()).toBeNull();
    });
  });
}

// ---- documents ---------------------------------------------------------------------------------------------------------

function documentsContract(store: () => ViewStore): void {
  describe('documents', () => {
    test('are put, replaced and deleted, and come in the order asked for, null where there is none', async () => {
      const driver = await live(store());
      await driver.write({ documents: { 'acme/j/a': '1', 'acme/j/b': '"ü 🙂"', 'acme/n/a': '3' } });
      await driver.write({ documents: { 'acme/j/a': '{"new":true}', 'acme/n/a': null, 'acme/n/none': null } });
      expect(await driver.view.load(['acme/n/a', 'acme/j/b', 'acme/j/x', 'acme/j/a', 'acme/j/b'])).toEqual([null, '"ü 🙂"', null, '{"new":true}', '"ü 🙂"']);
      expect(await driver.view.load([])).toEqual([]);
      expect(await driver.view.stats()).toMatchObject({ documents: 2 });
    });

    test('G8: one workspace has nothing to do with another that uses the same keys', async () => {
      const driver = await live(store());
      const terms = { medium: ['phone'], contact: ['c'] };
      await driver.write({ documents: { 'acme/j/a': '1', 'other/j/a': '2' }, records: { acme: [record('a', MONDAY, terms, [{ state: ['s'] }])], other: [record('a', MONDAY + 5, terms, [{ state: ['s'] }])] } });
      for (const query of [{}, { clauses: [is('medium', 'phone')] }, { clauses: [is('contact', 'c')] }, { sub: [is('state', 's')] }]) {
        expect(await driver.find({ ...query, workspace: 'acme' })).toEqual({ rows: [{ key: 'a', time: MONDAY, id: 'a', document: '1' }], total: 1, more: false });
        expect(await driver.find({ ...query, workspace: 'other' })).toEqual({ rows: [{ key: 'a', time: MONDAY + 5, id: 'a', document: '2' }], total: 1, more: false });
        expect(await driver.find({ ...query, workspace: 'third' })).toEqual({ rows: [], total: 0, more: false });
      }
      await driver.write({ documents: { 'other/j/a': null }, records: { other: [{ key: 'a', state: null }] } });
      expect(await driver.keys()).toEqual(['a']);
      expect(await driver.keys({ workspace: 'other' })).toEqual([]);
    });

    test('are walked, each that stands at least once, and nothing of another shard or generation', async () => {
      const driver = await live(store());
      expect(await walked(driver.view, 7)).toEqual({});
      const documents = Object.fromEntries(Array.from({ length: 50 }, (_, i) => [`acme/${i % 2 === 0 ? 'j' : 'scan'}/k${i}`, `{"is":"${i} é"}`]));
      await driver.write({ documents });
      await driver.write({ documents: { 'acme/j/k0': null, 'acme/j/k2': '"changed"' } });
      await (await store().view('journeys', 1, 1)).commit(commitWith({ documents: new Map([['other/j/z', '1']]) }));
      await (await store().view('journeys', (await store().createGeneration(SHAPE)).id, 0)).commit(commitWith({ role: 'build', documents: new Map([['acme/j/z', '1']]) }));
      const standing = Object.fromEntries(Object.entries({ ...documents, 'acme/j/k2': '"changed"' }).filter(([key]) => key !== 'acme/j/k0'));
      for (const limit of [1, 7, 1000]) expect(await walked(driver.view, limit)).toEqual(standing);
    });

    test('are drawn by chance, each sooner or later, and nothing of another shard or generation; or none by a store that has no way to it', async () => {
      const driver = await live(store());
      expect(await driver.view.draw(Math.random)).toEqual([]);
      const documents = Object.fromEntries(Array.from({ length: 50 }, (_, i) => [`acme/j/k${i}`, '"é"']));
      await driver.write({ documents });
      await driver.write({ documents: { 'acme/j/k0': null } });
      await (await store().view('journeys', 1, 1)).commit(commitWith({ documents: new Map([['other/j/z', '1']]) }));
      await (await store().view('journeys', (await store().createGeneration(SHAPE)).id, 0)).commit(commitWith({ role: 'build', documents: new Map([['acme/j/z', '1']]) }));
      const drawn = new Set<string>();
      for (let i = 0; i < 2000 && drawn.size < 49; i += 1) for (const key of await driver.view.draw(Math.random)) drawn.add(key);
      if (drawn.size > 0) expect([...drawn].sort()).toEqual(Object.keys(documents).filter((key) => key !== 'acme/j/k0').sort());
    });

    test('of an ordered space are scanned in key order, from the first to before the last', async () => {
      const driver = await live(store());
      const keys = ['acme/o/10', 'acme/o/2', 'acme/o/1', 'acme/o/a', 'acme/o/B', 'acme/o/~', 'acme/p/1', 'acme/scan/1', 'other/o/1'];
      await driver.write({ documents: Object.fromEntries(keys.map((key) => [key, JSON.stringify(key)])) });
      const scan = async (from: string, to: string, limit = 100): Promise<string[]> => (await driver.view.scan(from, to, limit)).map(({ key, value }) => {
        expect(JSON.parse(value)).toBe(key);
        return key;
      });
      expect(await scan('acme/o/', 'acme/o0')).toEqual(['acme/o/1', 'acme/o/10', 'acme/o/2', 'acme/o/B', 'acme/o/a', 'acme/o/~']);
      expect(await scan('acme/o/10', 'acme/o/a')).toEqual(['acme/o/10', 'acme/o/2', 'acme/o/B']);
      expect(await scan('acme/o/10', 'acme/o/a', 2)).toEqual(['acme/o/10', 'acme/o/2']);
      expect(await scan('acme/o/', 'z')).toHaveLength(6);
      expect(await scan('acme/o/a', 'acme/o/1')).toEqual([]);
      await expect(driver.view.scan('acme/p/', 'acme/p0', 9)).rejects.toThrow('not ordered');
    });
  });
}

// ---- search ------------------------------------------------------------------------------------------------------------

function searchContract(store: () => ViewStore): void {
  describe('search', () => {
    test('orders by time and then by id in code units, both ways', async () => {
      const driver = await live(store());
      const ids = ['b', 'a', 'B', '\u{1F642}', '\uFF5E', 'é'];
      await driver.put({ key: 'late', state: { time: MONDAY + 2, id: '0', terms: {} } }, ...ids.map((id, place) => ({ key: `k${place}`, state: { time: MONDAY + 1, id, terms: {} } })), { key: 'early', state: { time: MONDAY, id: 'z', terms: {} } });
      const found = (await driver.find({})).rows.map(({ id }) => id);
      expect(found).toEqual(['z', 'B', 'a', 'b', 'é', '\u{1F642}', '\uFF5E', '0']);
      expect((await driver.find({ direction: 'desc' })).rows.map(({ id }) => id)).toEqual(found.reverse());
    });

    test.each(['asc', 'desc'] as const)('pages %s by keyset through ties, and says whether more follow', async (direction) => {
      const driver = await live(store());
      await driver.put(...Array.from({ length: 23 }, (_, place) => record(`k${String(place * 7 % 23).padStart(2, '0')}`, MONDAY + Math.floor((place * 7 % 23) / 6) * DAY / 3)));
      const whole = await driver.find({ direction });
      expect(whole.rows).toHaveLength(23);
      for (const limit of [1, 4, 6, 22, 23, 24]) {
        const pages = await pagesOf(driver, { direction, limit });
        expect(pages.flatMap(({ rows }) => rows)).toEqual(whole.rows);
        expect(pages.map(({ more }) => more)).toEqual(pages.map((_, page) => page < pages.length - 1));
        expect(pages.every(({ total }) => total === 23)).toBe(true);
      }
    });

    test('a page that begins among ties goes on into the next days whole', async () => {
      const driver = await live(store());
      // Five at the last moment of the first day, then one each of eight days.
      await driver.put(...Array.from({ length: 5 }, (_, place) => record(`a${place}`, MONDAY + DAY - 1)), ...Array.from({ length: 8 }, (_, place) => record(`b${place}`, MONDAY + (place + 1) * DAY)));
      const rest = await driver.find({ limit: 6, after: { time: MONDAY + DAY - 1, id: (await driver.find({ limit: 4 })).rows.at(-1)!.id } });
      expect(rest.rows.map(({ key }) => key)).toEqual(['a4', 'b0', 'b1', 'b2', 'b3', 'b4']);
      expect(rest.more).toBe(true);
    });

    test('goes on after a row that is no longer there', async () => {
      const driver = await live(store());
      await driver.put(record('a', MONDAY), record('b', MONDAY), record('c', MONDAY), record('d', MONDAY + DAY));
      await driver.put({ key: 'b', state: null });
      expect(await driver.keys({ after: { time: MONDAY, id: 'b' } })).toEqual(['c', 'd']);
      expect(await driver.keys({ after: { time: MONDAY, id: 'b' }, direction: 'desc' })).toEqual(['a']);
      expect(await driver.keys({ after: { time: MONDAY + 5 * DAY, id: 'b' } })).toEqual([]);
      expect(await driver.keys({ after: { time: MONDAY - 5 * DAY, id: 'b' } })).toEqual(['a', 'c', 'd']);
    });

    test('carries a total on that it was given', async () => {
      const driver = await live(store());
      await driver.put(record('a', MONDAY, { medium: ['m'] }), record('b', MONDAY + DAY));
      expect((await driver.find({ total: 77 })).total).toBe(77);
      expect((await driver.find({ total: 77, clauses: [is('medium', 'none')] })).total).toBe(77);
      expect(await driver.find({ total: 77, limit: 1 })).toMatchObject({ rows: [{ key: 'a' }], more: true });
    });

    test('a page of none still counts', async () => {
      const driver = await live(store());
      await driver.put(record('a', MONDAY, { medium: ['m'] }), record('b', MONDAY + DAY, { medium: ['m'] }));
      expect(await driver.find({ limit: 0 })).toEqual({ rows: [], total: 2, more: true });
      expect(await driver.find({ limit: 0, clauses: [is('medium', 'm')] })).toEqual({ rows: [], total: 2, more: true });
    });

    test('includes both ends of the range to the millisecond', async () => {
      const driver = await live(store());
      const times = [MONDAY - 1, MONDAY, MONDAY + 1, MONDAY + DAY - 1, MONDAY + DAY, MONDAY + 3 * DAY, -1, 0];
      await driver.put(...times.map((time) => record(`t${time}`, time, { medium: ['m'], contact: ['c'] }, [{ state: ['s'] }])));
      for (const filter of [{}, { clauses: [is('medium', 'm')] }, { clauses: [is('contact', 'c')] }, { sub: [is('state', 's')] }]) {
        for (const from of [-Infinity, 0, MONDAY - 1, MONDAY, MONDAY + 1, MONDAY + 2 * DAY, 1e18]) {
          for (const to of [Infinity, 1e18, MONDAY + 3 * DAY, MONDAY + DAY, MONDAY + DAY - 1, MONDAY, -1]) {
            const wanted = times.filter((time) => time >= from && time <= to).sort((a, b) => a - b);
            const found = await driver.find({ ...filter, from, to });
            expect(found.rows.map(({ time }) => time)).toEqual(wanted);
            expect(found.total).toBe(wanted.length);
          }
        }
      }
    });

    test('every clause must hold, and any of its terms is enough', async () => {
      const driver = await live(store());
      await driver.put(
        record('a', MONDAY, { medium: ['phone'], agent: ['kim', 'lee'], contact: ['c1'] }),
        record('b', MONDAY + 1, { medium: ['chat', 'phone'], agent: ['lee'], contact: ['c1', 'c2'] }),
        record('c', MONDAY + DAY, { medium: ['mail'], agent: [], contact: ['c2'], interaction: ['i'] }),
      );
      expect(await driver.keys({ clauses: [is('medium', 'phone')] })).toEqual(['a', 'b']);
      expect(await driver.keys({ clauses: [is('medium', 'mail', 'chat', 'never')] })).toEqual(['b', 'c']);
      expect(await driver.keys({ clauses: [is('medium', 'phone'), is('agent', 'kim')] })).toEqual(['a']);
      expect(await driver.keys({ clauses: [is('medium', 'phone'), is('medium', 'chat')] })).toEqual(['b']);
      expect(await driver.keys({ clauses: [is('contact', 'c1')] })).toEqual(['a', 'b']);
      expect(await driver.keys({ clauses: [is('contact', 'c1', 'c2')] })).toEqual(['a', 'b', 'c']);
      expect(await driver.keys({ clauses: [is('contact', 'c1'), is('contact', 'c2')] })).toEqual(['b']);
      expect(await driver.keys({ clauses: [is('contact', 'c2'), is('interaction', 'i')] })).toEqual(['c']);
      expect(await driver.keys({ clauses: [is('contact', 'c2'), is('agent', 'lee'), is('medium', 'chat')] })).toEqual(['b']);
      expect(await driver.keys({ clauses: [is('contact', 'c2'), is('agent', 'kim')] })).toEqual([]);
      for (const field of ['medium', 'agent', 'contact']) {
        expect(await driver.keys({ clauses: [is(field, 'never')] })).toEqual([]);
        expect(await driver.keys({ clauses: [is(field)] })).toEqual([]);
      }
      // A term is its field's: the same word in another field is another term.
      expect(await driver.keys({ clauses: [is('outcome', 'phone')] })).toEqual([]);
    });

    test('clauses on sub-records must meet in one of them', async () => {
      const driver = await live(store());
      await driver.put(
        record('apart', MONDAY, { medium: ['phone'] }, [{ state: ['talk'], by: ['kim'] }, { state: ['hold'], by: ['lee'] }]),
        record('meet', MONDAY + 1, { medium: ['phone'], contact: ['c'] }, [{ state: ['talk'], by: ['lee'] }, {}, { state: ['hold'], by: ['kim'] }]),
        record('next', MONDAY + DAY, { medium: ['mail'] }, [{ state: ['talk'], by: ['lee', 'kim'] }]),
        record('none', MONDAY + DAY),
      );
      expect(await driver.keys({ sub: [is('state', 'talk'), is('by', 'lee')] })).toEqual(['meet', 'next']);
      expect(await driver.keys({ sub: [is('by', 'lee'), is('by', 'kim')] })).toEqual(['next']);
      expect(await driver.keys({ sub: [is('state', 'hold', 'talk'), is('by', 'kim')] })).toEqual(['apart', 'meet', 'next']);
      expect(await driver.keys({ sub: [is('state', 'talk'), is('by', 'lee')], clauses: [is('medium', 'phone')] })).toEqual(['meet']);
      expect(await driver.keys({ sub: [is('state', 'hold')], clauses: [is('contact', 'c')] })).toEqual(['meet']);
      expect(await driver.keys({ sub: [is('state', 'never')] })).toEqual([]);
      expect(await driver.keys({ sub: [is('state')] })).toEqual([]);
      expect(await driver.find({ sub: [is('state', 'talk')], limit: 1 })).toMatchObject({ total: 3, more: true, rows: [{ key: 'apart' }] });
    });

    test('brings the document of the space that it is asked for, null where there is none', async () => {
      const driver = await live(store());
      await driver.write({ documents: { 'acme/j/a': '1', 'acme/x/a': '2' }, records: { acme: [record('a', MONDAY), record('b', MONDAY)] } });
      expect((await driver.view.search(EVERYTHING, 'x')).rows.map(({ document }) => document)).toEqual(['2', null]);
      expect((await driver.find({})).rows.map(({ document }) => document)).toEqual(['1', null]);
    });
  });
}

async function pagesOf(driver: Driver, query: Partial<SearchQuery>): Promise<SearchResult[]> {
  const pages: SearchResult[] = [];
  let last: SearchResult | undefined;
  do {
    const row: SearchRow | undefined = last?.rows.at(-1);
    last = await driver.find({ ...query, after: row === undefined ? null : { time: row.time, id: row.id }, total: last?.total ?? null });
    pages.push(last);
  } while (last.more);
  return pages;
}

// ---- changes -----------------------------------------------------------------------------------------------------------

function changesContract(store: () => ViewStore): void {
  describe('a record that changes', () => {
    test('is found by its new terms and no longer by the old ones', async () => {
      const driver = await live(store());
      await driver.put(record('a', MONDAY, { medium: ['phone'], agent: ['kim'], contact: ['c1', 'c2'] }), record('b', MONDAY, { medium: ['phone'] }));
      await driver.put(record('a', MONDAY, { medium: ['phone', 'chat'], agent: ['lee'], contact: ['c2', 'c3'] }));
      expect(await driver.keys({ clauses: [is('medium', 'phone')] })).toEqual(['a', 'b']);
      expect(await driver.keys({ clauses: [is('medium', 'chat')] })).toEqual(['a']);
      expect(await driver.keys({ clauses: [is('agent', 'kim')] })).toEqual([]);
      expect(await driver.keys({ clauses: [is('agent', 'lee')] })).toEqual(['a']);
      expect(await driver.keys({ clauses: [is('contact', 'c1')] })).toEqual([]);
      expect(await driver.keys({ clauses: [is('contact', 'c2'), is('contact', 'c3')] })).toEqual(['a']);
      expect(await driver.view.stats()).toMatchObject({ records: 2 });
    });

    test('takes another time and id within its day', async () => {
      const driver = await live(store());
      await driver.put(record('a', MONDAY), record('b', MONDAY + 10));
      await driver.put({ key: 'a', state: { time: MONDAY + 10, id: 'c', terms: {} } });
      expect((await driver.find({})).rows).toMatchObject([{ key: 'b', id: 'b' }, { key: 'a', id: 'c', time: MONDAY + 10 }]);
      expect(await driver.keys({ to: MONDAY + 9 })).toEqual([]);
    });

    test('that was shown before is shown as it is now: its id, its document, also one that was deleted and written anew', async () => {
      const driver = await live(store());
      const shown = async (): Promise<unknown> => (await driver.find({})).rows.map(({ id, document }) => [id, document]);
      await driver.write({ documents: { 'acme/j/a': '1', 'acme/j/b': '2' }, records: { acme: [record('a', MONDAY), record('b', MONDAY)] } });
      expect(await shown()).toEqual([['a', '1'], ['b', '2']]);
      await driver.put({ key: 'a', state: { time: MONDAY, id: 'c', terms: {} } });
      expect(await shown()).toEqual([['b', '2'], ['c', '1']]);
      await driver.write({ documents: { 'acme/j/a': null, 'acme/j/b': '3' } });
      expect(await shown()).toEqual([['b', '3'], ['c', null]]);
      await driver.write({ documents: { 'acme/j/z': '4', 'acme/j/a': '5' } });
      expect(await shown()).toEqual([['b', '3'], ['c', '5']]);
    });

    test('moves to another day with all its sub-records, those that the change does not give too', async () => {
      const driver = await live(store());
      const terms = { medium: ['phone'], contact: ['c'] };
      await driver.put({ key: 'a', state: { time: MONDAY, id: 'a', terms }, subs: new Map([[0, [{ state: ['one'] }]], [1, [{ state: ['two'] }]], [2, [{ state: ['three'] }]]]) }, record('b', MONDAY, terms, [{ state: ['two'] }]));
      await driver.put({ key: 'a', state: { time: MONDAY + 2 * DAY, id: 'a', terms: { ...terms, agent: ['kim'] } }, subs: new Map([[1, [{ state: ['four'] }]], [2, null], [3, [{ state: ['five'] }]]]) });
      for (const [state, keys] of Object.entries({ one: ['a'], two: ['b'], three: [], four: ['a'], five: ['a'] })) expect([state, await driver.keys({ sub: [is('state', state)] })]).toEqual([state, keys]);
      expect(await driver.keys({ to: MONDAY + DAY })).toEqual(['b']);
      expect(await driver.keys({ from: MONDAY + DAY, clauses: [is('medium', 'phone'), is('agent', 'kim')] })).toEqual(['a']);
      expect(await driver.keys({ clauses: [is('contact', 'c')] })).toEqual(['b', 'a']);
      await driver.put({ key: 'a', state: { time: MONDAY - DAY, id: 'a', terms } });
      expect(await driver.keys({ sub: [is('state', 'one', 'two')] })).toEqual(['a', 'b']);
      expect(await driver.keys({ from: MONDAY + DAY })).toEqual([]);
    });

    test('keeps the chunks that a change does not give, and its state when only chunks come', async () => {
      const driver = await live(store());
      await driver.put({ key: 'a', state: { time: MONDAY, id: 'a', terms: { medium: ['phone'] } }, subs: new Map([[0, [{ state: ['one'] }, { state: ['two'], by: ['kim'] }]], [1, [{ state: ['three'] }]]]) });
      await driver.put({ key: 'a', subs: new Map([[1, [{ state: ['three'] }, { state: ['four'] }]]]) });
      for (const state of ['one', 'two', 'three', 'four']) expect(await driver.keys({ sub: [is('state', state)], clauses: [is('medium', 'phone')] })).toEqual(['a']);
      await driver.put({ key: 'a', subs: new Map([[0, [{ state: ['one'] }]]]) });
      expect(await driver.keys({ sub: [is('by', 'kim')] })).toEqual([]);
      expect(await driver.keys({ sub: [is('state', 'one')] })).toEqual(['a']);
      await driver.put({ key: 'a', subs: new Map([[0, null], [1, []]]) });
      expect(await driver.keys({ sub: [is('state', 'one', 'two', 'three', 'four')] })).toEqual([]);
      expect(await driver.keys({ clauses: [is('medium', 'phone')] })).toEqual(['a']);
    });

    test('is in no search once it is deleted, and comes back as a new one', async () => {
      const driver = await live(store());
      const full = record('a', MONDAY, { medium: ['phone'], agent: ['kim'], contact: ['c'] }, [{ state: ['one'] }]);
      await driver.put(full, record('b', MONDAY));
      await driver.put({ key: 'a', state: null }, { key: 'never', state: null });
      for (const filter of [{ clauses: [is('medium', 'phone')] }, { clauses: [is('agent', 'kim')] }, { clauses: [is('contact', 'c')] }, { sub: [is('state', 'one')] }]) expect(await driver.find(filter)).toMatchObject({ rows: [], total: 0 });
      expect(await driver.find({})).toMatchObject({ rows: [{ key: 'b' }], total: 1 });
      expect(await driver.view.stats()).toMatchObject({ records: 1 });
      await driver.put({ key: 'a', state: { time: MONDAY, id: 'a', terms: {} } });
      expect(await driver.keys()).toEqual(['a', 'b']);
      expect(await driver.keys({ sub: [is('state', 'one')] })).toEqual([]);
      await driver.put({ key: 'a', state: null }, { key: 'b', state: null });
      expect(await driver.find({})).toEqual({ rows: [], total: 0, more: false });
    });

    test('may change several times in one commit', async () => {
      const driver = await live(store());
      await driver.put(record('a', MONDAY, { agent: ['kim'] }), record('a', MONDAY + DAY, { agent: ['lee'] }, [{ state: ['s'] }]), { key: 'b', state: { time: MONDAY, id: 'b', terms: {} } }, { key: 'b', state: null }, record('a', MONDAY, { agent: ['pat'] }, [{ state: ['s'] }]));
      expect(await driver.find({})).toMatchObject({ rows: [{ key: 'a', time: MONDAY }], total: 1 });
      expect(await driver.keys({ clauses: [is('agent', 'kim', 'lee')] })).toEqual([]);
      expect(await driver.keys({ clauses: [is('agent', 'pat')], sub: [is('state', 's')] })).toEqual(['a']);
    });

    test('must stand before it is given sub-records alone', async () => {
      const driver = await live(store());
      await expect(driver.write({ documents: { 'acme/j/b': '1' }, records: { acme: [record('b', MONDAY), { key: 'a', subs: new Map([[0, [{ state: ['s'] }]]]) }] } })).rejects.toThrow('does not stand');
      expect(await driver.view.position()).toBeNull();
      expect(await driver.keys()).toEqual([]);
      expect(await driver.view.load(['acme/j/b'])).toEqual([null]);
    });
  });
}

// ---- sizes -------------------------------------------------------------------------------------------------------------

function sizesContract(store: () => ViewStore): void {
  describe('sizes', () => {
    test('a term of one record, of 512, of 513 and of thousands in a day', async () => {
      const driver = await live(store());
      const agentsOf = (place: number): string[] => [...(place < 1 ? ['one'] : []), ...(place % 4 === 0 && place < 2048 ? ['list'] : []), ...(place % 4 === 1 && place < 2052 ? ['bitmap'] : []), 'all'];
      const total = 3000;
      await driver.put(...Array.from({ length: total }, (_, place) => record(`k${place}`, MONDAY + place, { agent: agentsOf(place) })));
      const counts = async (): Promise<number[]> => Promise.all(['one', 'list', 'bitmap', 'all'].map(async (agent) => (await driver.find({ clauses: [is('agent', agent)] })).total));
      expect(await counts()).toEqual([1, 512, 513, total]);
      await driver.put(record('k5', MONDAY + 5, { agent: ['list', 'all'] }), record('k0', MONDAY, { agent: [] }));
      expect(await counts()).toEqual([0, 512, 512, total - 1]);
      expect(await driver.keys({ clauses: [is('agent', 'list')], limit: 2 })).toEqual(['k4', 'k5']);
    });

    test('more records and sub-records in one day than 65,536', async () => {
      const driver = await live(store());
      const total = 66_000;
      const rows = Array.from({ length: total }, (_, place): RecordChange => ({
        key: `k${place}`,
        state: { time: MONDAY + place, id: `k${place}`, terms: place % 1000 === 999 ? { agent: ['rare'], medium: ['m'], ...(place > 65_900 ? { contact: ['last'] } : {}) } : { medium: ['m'] } },
        ...(place >= total - 3 || place % 1000 === 999 ? { subs: new Map([[0, [{ state: [place % 2 === 1 ? 'odd' : 'even'] }]]]) } : {}),
      }));
      await driver.put(...rows);
      expect((await driver.find({})).total).toBe(total);
      expect((await driver.find({ clauses: [is('medium', 'm')] })).total).toBe(total);
      const rare = await driver.find({ clauses: [is('agent', 'rare'), is('medium', 'm')], direction: 'desc' });
      expect(rare.rows.map(({ key }) => key)).toEqual(rows.filter((_, place) => place % 1000 === 999).map(({ key }) => key).reverse());
      expect(await driver.keys({ from: MONDAY + 65_534, limit: 4 })).toEqual(['k65534', 'k65535', 'k65536', 'k65537']);
      expect(await driver.keys({ direction: 'desc', after: { time: MONDAY + 65_537, id: 'k65537' }, limit: 3 })).toEqual(['k65536', 'k65535', 'k65534']);
      expect(await driver.keys({ clauses: [is('contact', 'last'), is('agent', 'rare')] })).toEqual(['k65999']);
      expect(await driver.keys({ sub: [is('state', 'even')] })).toEqual(['k65998']);
      expect((await driver.find({ sub: [is('state', 'odd')] })).total).toBe(67);
      await driver.put({ key: 'k65998', state: null }, { key: 'k65999', state: { time: MONDAY + DAY, id: 'k65999', terms: {} } });
      expect(await driver.keys({ sub: [is('state', 'even')] })).toEqual([]);
      expect(await driver.find({ from: MONDAY + 65_990, sub: [is('state', 'odd')] })).toMatchObject({ rows: [{ key: 'k65997' }, { key: 'k65999', time: MONDAY + DAY }], total: 2 });
    });

    test('more sub-records in one day than 65,536, of one record and its neighbour', async () => {
      const driver = await live(store());
      const subs = (state: string, count: number): SubRecord[] => Array.from({ length: count }, () => ({ state: [state] }));
      await driver.put({ key: 'a', state: { time: MONDAY, id: 'a', terms: {} }, subs: new Map(Array.from({ length: 66 }, (_, chunk) => [chunk, subs('s', 1000)])) }, record('b', MONDAY + 1, {}, [{ state: ['s'], by: ['kim'] }]));
      expect(await driver.find({ sub: [is('state', 's')] })).toMatchObject({ rows: [{ key: 'a' }, { key: 'b' }], total: 2 });
      expect(await driver.keys({ sub: [is('state', 's'), is('by', 'kim')] })).toEqual(['b']);
      await driver.put({ key: 'a', state: null });
      expect(await driver.keys({ sub: [is('state', 's')] })).toEqual(['b']);
    });
  });
}

// ---- leases ------------------------------------------------------------------------------------------------------------

function leasesContract(made: () => Made): void {
  describe('leases', () => {
    /** Longer than any test, and shorter than what one waits for. */
    const LONG_MS = 60_000;
    const SHORT_MS = 40;
    const store = (): ViewStore => made().store;
    const held = async (prefix = ''): Promise<string[]> => (await store().leases(prefix)).map(({ name, holder }) => `${name}: ${holder}`);
    /** Lets the short leases run out: by the clock where the store was given one, else it looks again until they have. */
    const ranOut = async (come: () => Promise<boolean>): Promise<void> => {
      made().advance?.(SHORT_MS);
      await until('the short leases have run out', come);
    };

    test('one holder has it at a time, and the same takes it again', async () => {
      expect(await store().lease('shard/0', 'a', LONG_MS)).toBe(true);
      expect(await store().lease('shard/0', 'b', LONG_MS)).toBe(false);
      expect(await store().lease('shard/0', 'a', LONG_MS)).toBe(true);
      expect(await store().lease('shard/1', 'b', LONG_MS)).toBe(true);
      expect(await held()).toEqual(['shard/0: a', 'shard/1: b']);
    });

    test('of many who ask at once one gets it', async () => {
      const asked = await Promise.all(Array.from({ length: 8 }, (_, i) => store().lease('shard/0', `worker-${i}`, LONG_MS)));
      expect(asked.filter((got) => got)).toHaveLength(1);
      expect(await held()).toEqual([`shard/0: worker-${asked.indexOf(true)}`]);
    });

    test('runs out by itself, and is another\'s then', async () => {
      await store().lease('shard/0', 'a', SHORT_MS);
      await ranOut(() => store().lease('shard/0', 'b', LONG_MS));
      expect(await store().lease('shard/0', 'a', LONG_MS)).toBe(false);
      expect(await held()).toEqual(['shard/0: b']);
    });

    test('one that ran out stands in no list', async () => {
      await store().lease('shard/0', 'a', SHORT_MS);
      await store().lease('shard/1', 'a', LONG_MS);
      await ranOut(async () => (await held()).length === 1);
      expect(await held()).toEqual(['shard/1: a']);
      expect(await store().lease('shard/0', 'b', LONG_MS)).toBe(true);
    });

    test('a renewal counts from when it is made, for longer and for shorter', async () => {
      await store().lease('shard/0', 'a', SHORT_MS);
      await store().lease('shard/1', 'a', LONG_MS);
      // Both are a's still, or nobody's: nobody else asked.
      expect([await store().lease('shard/0', 'a', LONG_MS), await store().lease('shard/1', 'a', SHORT_MS)]).toEqual([true, true]);
      await ranOut(() => store().lease('shard/1', 'b', LONG_MS));
      expect(await store().lease('shard/0', 'b', LONG_MS)).toBe(false);
    });

    test('is given back by its holder alone, and at once free', async () => {
      await store().lease('shard/0', 'a', LONG_MS);
      await store().release('shard/0', 'b');
      expect(await store().lease('shard/0', 'b', LONG_MS)).toBe(false);
      await store().release('shard/0', 'a');
      await store().release('shard/0', 'a');
      await store().release('nothing', 'a');
      expect(await held()).toEqual([]);
      expect(await store().lease('shard/0', 'b', LONG_MS)).toBe(true);
    });

    test('are listed by name, those alone that begin with the prefix, taken as it is', async () => {
      for (const name of ['projector/worker/b', 'projector/worker/a', 'projector/shard/10', 'projector/shard/1', 'projector/%', 'other']) await store().lease(name, 'x', LONG_MS);
      expect((await store().leases('projector/worker/')).map(({ name }) => name)).toEqual(['projector/worker/a', 'projector/worker/b']);
      expect((await store().leases('projector/shard/1')).map(({ name }) => name)).toEqual(['projector/shard/1', 'projector/shard/10']);
      expect((await store().leases('projector/%')).map(({ name }) => name)).toEqual(['projector/%']);
      expect((await store().leases('projector/*')).map(({ name }) => name)).toEqual([]);
      expect(await store().leases('')).toHaveLength(6);
    });
  });
}

// ---- tallies -----------------------------------------------------------------------------------------------------------

function talliesContract(store: () => ViewStore): void {
  test('tallies add up by workspace and source, and keep the latest instant', async () => {
    const tally = (workspace: string, source: string, over: Partial<Tally> = {}): Tally => ({ workspace, source, recorded: 1, duplicates: 2, reusedIds: 3, rejected: {}, lateness: {}, lastSeen: '2026-03-02T09:00:00.000Z', ...over });
    await store().addTallies([tally('acme', 'b', { rejected: { badTime: 1 }, lateness: { 1: 5, inf: 1 } }), tally('acme', 'a'), tally('other', 'b')]);
    await store().addTallies([tally('acme', 'b', { rejected: { badTime: 2, tooLarge: 1 }, lateness: { 1: 1, 60: 2 }, lastSeen: '2026-03-01T09:00:00.000Z' }), tally('acme', 'b', { lastSeen: '2026-03-03T09:00:00.000Z' })]);
    await store().addTallies([]);
    expect(await store().tallies('acme')).toEqual([
      tally('acme', 'a'),
      { workspace: 'acme', source: 'b', recorded: 3, duplicates: 6, reusedIds: 9, rejected: { badTime: 3, tooLarge: 1 }, lateness: { 1: 6, 60: 2, inf: 1 }, lastSeen: '2026-03-03T09:00:00.000Z' },
    ]);
    expect(await store().tallies('other')).toHaveLength(1);
    expect(await store().tallies('nobody')).toEqual([]);
  });

  test('of what was refused a tally keeps the last five of different content by code; those without any, as earlier versions wrote them, go on', async () => {
    const tally = (over: Partial<Tally> = {}): Tally => ({ workspace: 'acme', source: 'b', recorded: 0, duplicates: 0, reusedIds: 0, rejected: { notJson: 1 }, lateness: {}, lastSeen: '2026-03-02T09:00:00.000Z', ...over });
    const example = (sha256: string, second: number): TallyExample => ({ sha256, at: `2026-03-02T09:00:0${String(second)}.000Z` });
    await store().addTallies([tally()]);
    expect((await store().tallies('acme'))[0]).toEqual(tally());
    await store().addTallies([tally({ examples: { notJson: [example('c', 3), example('d', 4)], tooLarge: [example('x', 1)] } })]);
    // An older one that comes later, one that came again, and more than are kept.
    await store().addTallies([tally({ examples: { notJson: [example('b', 2), example('c', 7)] } }), tally(), tally({ examples: { notJson: [example('e', 5), example('f', 6), example('a', 1)] } })]);
    const [found] = await store().tallies('acme');
    expect(found?.examples).toEqual({ notJson: [example('b', 2), example('d', 4), example('e', 5), example('f', 6), example('c', 7)], tooLarge: [example('x', 1)] });
    expect(found?.rejected).toEqual({ notJson: 5 });
  });
}

// ---- properties --------------------------------------------------------------------------------------------------------

interface Kept { state: RecordState; chunks: Map<number, readonly SubRecord[]> }

const word = fc.constantFrom('a', 'b', 'c', 'd');
const words = fc.uniqueArray(word, { maxLength: 3 });
const terms = fc.record({ medium: words, outcome: words, agent: words, contact: words, interaction: words }, { requiredKeys: [] });
const sub = fc.record({ state: words, by: words }, { requiredKeys: [] });
/** Few instants over few days, so that ties and borders come up. */
const time = fc.tuple(fc.integer({ min: -2, max: 4 }), fc.constantFrom(0, 1, DAY / 2, DAY - 1)).map(([day, ms]) => MONDAY + day * DAY + ms);
const state = fc.record({ time, id: fc.constantFrom('x', 'y', 'z', 'Z'), terms });
const change = fc.oneof(
  { weight: 6, arbitrary: fc.record({ kind: fc.constant('put' as const), key: fc.integer({ min: 0, max: 19 }), state, subs: fc.option(fc.dictionary(fc.constantFrom('0', '1', '2'), fc.array(sub, { maxLength: 4 }))) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('subs' as const), key: fc.integer({ min: 0, max: 19 }), subs: fc.dictionary(fc.constantFrom('0', '1', '2'), fc.option(fc.array(sub, { maxLength: 4 }))) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('delete' as const), key: fc.integer({ min: 0, max: 19 }) }) },
);
const clausesOn = (...fields: string[]): fc.Arbitrary<Clause[]> => fc.array(fc.record({ field: fc.constantFrom(...fields), terms: fc.uniqueArray(fc.constantFrom('a', 'b', 'c', 'd', 'never'), { maxLength: 3 }) }), { maxLength: 3 });
const filter = fc.record({
  from: fc.oneof(fc.constant(-Infinity), time), to: fc.oneof(fc.constant(Infinity), time),
  clauses: clausesOn('medium', 'outcome', 'agent', 'contact', 'interaction'), sub: fc.oneof(fc.constant([]), clausesOn('state', 'by')),
  direction: fc.constantFrom('asc' as const, 'desc' as const), limit: fc.integer({ min: 1, max: 8 }),
});

/** The change as the port takes it, applied to the model too. Ids get the key behind them: (time, id) is one record's. */
function step(model: Map<string, Kept>, drawn: typeof change extends fc.Arbitrary<infer T> ? T : never): RecordChange[] {
  const key = `k${drawn.key}`;
  const before = model.get(key);
  if (drawn.kind === 'delete') {
    model.delete(key);
    return [{ key, state: null }];
  }
  const subs = drawn.subs === null ? undefined : new Map(Object.entries(drawn.subs).map(([number, chunk]) => [Number(number), chunk]));
  if (drawn.kind === 'subs' && before === undefined) return [];
  const now = drawn.kind === 'put' ? { ...drawn.state, id: drawn.state.id + key } : before!.state;
  const chunks = new Map(before?.chunks);
  for (const [number, chunk] of subs ?? []) chunks.set(number, chunk ?? []);
  model.set(key, { state: now, chunks });
  return [{ key, ...(drawn.kind === 'put' ? { state: now } : {}), ...(subs === undefined ? {} : { subs }) }];
}

/** The plain filter that a search must equal. */
function plainly(model: ReadonlyMap<string, Kept>, query: Pick<SearchQuery, 'from' | 'to' | 'clauses' | 'sub' | 'direction'>): { key: string; time: number; id: string }[] {
  const holds = (of: SubRecord, clauses: readonly Clause[]): boolean => clauses.every(({ field, terms: any }) => any.some((term) => of[field]?.includes(term)));
  const found = [...model].filter(([, { state: { time: at, terms: of }, chunks }]) => at >= query.from && at <= query.to && holds(of, query.clauses)
    && (query.sub.length === 0 || [...chunks.values()].flat().some((each) => holds(each, query.sub))));
  const rows = found.map(([key, kept]) => ({ key, time: kept.state.time, id: kept.state.id })).sort((a, b) => a.time - b.time || (a.id < b.id ? -1 : 1));
  return query.direction === 'asc' ? rows : rows.reverse();
}

function propertiesContract(store: () => ViewStore, numRuns: number): void {
  describe('properties', () => {
    test('whatever was written, a search answers as a plain filter does: rows, order, totals, pages', async () => {
      // One view for all runs, a workspace for each.
      const driver = await live(store());
      let run = 0;
      await fc.assert(fc.asyncProperty(fc.array(fc.array(change, { maxLength: 15 }), { minLength: 1, maxLength: 5 }), fc.array(filter, { minLength: 1, maxLength: 6 }), async (commits, filters) => {
        driver.workspace = `w${run++}`;
        const { records } = await driver.view.stats();
        const model = new Map<string, Kept>();
        for (const [place, changes] of commits.entries()) {
          await driver.put(...changes.flatMap((drawn) => step(model, drawn)));
          // A search between the commits fills what an adapter caches, so that a stale answer would show.
          await compare(driver, model, filters[place % filters.length]!);
        }
        for (const query of filters) await compare(driver, model, query);
        expect(await driver.view.stats()).toMatchObject({ records: records + model.size });
      }), { numRuns });
    });

    test('paging visits each record whose time and id did not change exactly once, in order, whatever is written meanwhile', async () => {
      // One view for all runs, a workspace for each.
      const driver = await live(store());
      let run = 0;
      await fc.assert(fc.asyncProperty(fc.array(change, { minLength: 5, maxLength: 40 }), fc.array(fc.array(change, { maxLength: 6 }), { maxLength: 20 }), filter, async (first, meanwhile, { direction, limit }) => {
        driver.workspace = `w${run++}`;
        const model = new Map<string, Kept>();
        await driver.put(...first.flatMap((drawn) => step(model, drawn)));
        const untouched = new Map(model);
        const visited: SearchRow[] = [];
        let page = await driver.find({ direction, limit });
        for (let turn = 0; ; turn += 1) {
          visited.push(...page.rows);
          if (!page.more) break;
          await driver.put(...(meanwhile[turn] ?? []).flatMap((drawn) => step(model, drawn)));
          for (const [key, kept] of untouched) if (model.get(key)?.state.time !== kept.state.time || model.get(key)?.state.id !== kept.state.id) untouched.delete(key);
          const last = page.rows.at(-1)!;
          page = await driver.find({ direction, limit, after: { time: last.time, id: last.id }, total: page.total });
        }
        const kept = visited.filter(({ key }) => untouched.has(key)).map(({ key, time: at, id }) => ({ key, time: at, id }));
        expect(kept).toEqual(plainly(untouched, { ...EVERYTHING, direction }));
        const order = visited.map((row) => `${String(row.time).padStart(16, '0')} ${row.id}`);
        expect(order).toEqual(direction === 'asc' ? [...order].sort() : [...order].sort().reverse());
      }), { numRuns });
    });
  });
}

async function compare(driver: Driver, model: ReadonlyMap<string, Kept>, query: typeof filter extends fc.Arbitrary<infer T> ? T : never): Promise<void> {
  const wanted = plainly(model, query);
  const pages = await pagesOf(driver, query);
  expect(pages.flatMap(({ rows }) => rows.map(({ key, time: at, id }) => ({ key, time: at, id })))).toEqual(wanted);
  expect(pages.map(({ total }) => total)).toEqual(pages.map(() => wanted.length));
  expect(pages.slice(0, -1).every(({ rows }) => rows.length === query.limit)).toBe(true);
}
