// What only the SQLite view store must show: several writers and readers on one folder, faults of the file, and work
// counted instead of seconds.
import { existsSync, mkdtempSync, readdirSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { Worker } from 'node:worker_threads';
import type { SubRecord } from '../../projections/projection.ts';
import { openSqliteViewStore, type SqliteView, type SqliteViewOptions, type SqliteViewStore } from '../../services/adapters/sqlite-views.ts';
import type { Generation } from '../../services/ports.ts';
import { at, commitOf, DAY, find, is, keysOf, MONDAY, record } from '../support/views.ts';

const SHAPE: Omit<Generation, 'id' | 'createdAt'> = {
  group: 'journeys', version: '1', shards: 1, storeId: 'store', target: null,
  fields: { medium: 'dense', agent: 'sparse', contact: 'keyed' }, subFields: { state: 'dense', by: 'sparse' }, ordered: [],
};

let folder: string;
const opened: SqliteViewStore[] = [];
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'throughline-views-'));
});
afterEach(async () => {
  for (const store of opened.splice(0)) await store.close();
  rmSync(folder, { recursive: true });
});

async function open(options: Partial<SqliteViewOptions> = {}): Promise<SqliteViewStore> {
  const store = await openSqliteViewStore({ folder, ...options });
  opened.push(store);
  return store;
}

/** The live view of a new folder. */
async function openLive(options: Partial<SqliteViewOptions> = {}, shape: Partial<typeof SHAPE> = {}): Promise<SqliteView> {
  const store = await open(options);
  const { id } = await store.createGeneration({ ...SHAPE, ...shape });
  await store.promote('journeys', null, id);
  return store.view('journeys', id, 0);
}

const viewFile = (): string => path.join(folder, 'views', 'journeys-1-0.sqlite');

/** What `act` made the view do. */
async function workOf(view: SqliteView, act: () => Promise<unknown>): Promise<SqliteView['work']> {
  const before = { ...view.work };
  await act();
  return Object.fromEntries(Object.entries(view.work).map(([name, count]) => [name, count - before[name as keyof typeof before]])) as unknown as SqliteView['work'];
}

describe('where a record\'s document stands', () => {
  const documentsOf = async (view: SqliteView, space = 'j'): Promise<(readonly [string, string | null])[]> => (await view.search({ workspace: 'acme', from: -Infinity, to: Infinity, clauses: [], sub: [], direction: 'asc', limit: 100, after: null, total: null }, space)).rows.map(({ key, document }) => [key, document]);

  test('is remembered, and never believed against the key: of documents that go, come later, or take the place of another', async () => {
    const view = await openLive({}, { recordSpace: 'j' });
    let count = 0;
    const commit = async (records: Parameters<typeof commitOf>[1], documents: Parameters<typeof commitOf>[2]): Promise<void> => {
      count += 1;
      expect(await view.commit(commitOf(count, records, documents))).toEqual({ kind: 'committed' });
    };
    await commit([record('a', MONDAY), record('b', MONDAY + 1), record('c', MONDAY + 2)], { 'acme/j/a': '"a1"', 'acme/j/b': '"b1"', 'acme/n/a': '"na"' });
    expect(await documentsOf(view)).toEqual([['a', '"a1"'], ['b', '"b1"'], ['c', null]]);
    expect(await documentsOf(view, 'n')).toEqual([['a', '"na"'], ['b', null], ['c', null]]);
    await commit([], { 'acme/j/c': '"c1"', 'acme/j/a': '"a2"' });
    expect(await documentsOf(view)).toEqual([['a', '"a2"'], ['b', '"b1"'], ['c', '"c1"']]);
    // The last one goes, and its number is given to another.
    await commit([], { 'acme/j/c': null });
    await commit([record('d', MONDAY + 3)], { 'acme/j/d': '"d1"' });
    await commit([], { 'acme/j/d': null });
    await commit([], { 'acme/x/other': '"other"' });
    expect(await documentsOf(view)).toEqual([['a', '"a2"'], ['b', '"b1"'], ['c', null], ['d', null]]);
    await commit([record('a', MONDAY + DAY), record('b', MONDAY)], { 'acme/j/d': '"d2"' });
    expect(await documentsOf(view)).toEqual([['b', '"b1"'], ['c', null], ['d', '"d2"'], ['a', '"a2"']]);
  });

  test('is found by its key in a view that was made before it was remembered, which goes on being written', async () => {
    const view = await openLive();
    await view.commit(commitOf(1, [record('a', MONDAY)], { 'acme/j/a': '"a1"' }));
    for (const store of opened.splice(0)) await store.close();
    const db = new DatabaseSync(viewFile());
    db.exec('ALTER TABLE records DROP COLUMN document');
    db.close();
    const again = await (await open()).view('journeys', 1, 0);
    expect(await again.commit(commitOf(2, [record('b', MONDAY + 1)], { 'acme/j/b': '"b1"' }))).toEqual({ kind: 'committed' });
    expect(await documentsOf(again)).toEqual([['a', '"a1"'], ['b', '"b1"']]);
  });
});

describe('several on one folder', () => {
  test('G5: a reader beside a busy writer sees documents, index and position of one commit', async () => {
    const view = await openLive();
    const commits = 150;
    const worker = new Worker(`
      const { workerData } = require('node:worker_threads');
      void (async () => {
        const { openSqliteViewStore } = await import(workerData.module);
        const store = await openSqliteViewStore({ folder: workerData.folder });
        const view = await store.view('journeys', 1, 0);
        const at = (count) => String(count).padStart(20, '0');
        for (let count = 1; count <= workerData.commits; count += 1) {
          const records = [{ key: 'moving', state: { time: workerData.start + count * 3600000, id: 'moving', terms: { medium: ['m'] } } }, { key: 'n' + count, state: { time: workerData.start, id: 'n' + count, terms: { medium: ['m'] } } }];
          const documents = new Map([['acme/j/moving', String(count)], ['acme/j/count', String(count)]]);
          const result = await view.commit({ expected: count === 1 ? null : at(count - 1), position: at(count), role: 'live', documents, records: new Map([['acme', records]]), digest: '0'.repeat(32) });
          if (result.kind !== 'committed') throw new Error(result.kind);
        }
        await store.close();
      })();`, { eval: true, workerData: { module: new URL('../../services/adapters/sqlite-views.ts', import.meta.url).href, folder, commits, start: MONDAY } });
    const ended = new Promise<void>((resolve, reject) => {
      worker.once('error', reject);
      worker.once('exit', () => resolve());
    });
    for (let seen = 0; seen < commits;) {
      const { rows, total } = await find(view, { clauses: [is('medium', 'm')], limit: 1000 });
      const moving = rows.find(({ key }) => key === 'moving');
      const now = Number(moving?.document ?? 0);
      expect(total).toBe(now === 0 ? 0 : now + 1);
      expect(rows).toHaveLength(total);
      if (moving !== undefined) expect(moving.time).toBe(MONDAY + now * 3_600_000);
      const [a, b] = await view.load(['acme/j/moving', 'acme/j/count']);
      expect(a).toBe(b);
      expect(now).toBeGreaterThanOrEqual(seen);
      seen = now;
      // Lets an error of the worker be heard.
      await new Promise((resolve) => setImmediate(resolve));
    }
    await ended;
  });

  test('several that open a new folder at once agree on it', async () => {
    const stores = await Promise.all(Array.from({ length: 4 }, async () => open()));
    const made = await Promise.all(stores.map(async (store) => store.createGeneration(SHAPE)));
    expect(made.map(({ id }) => id).sort()).toEqual([1, 2, 3, 4]);
    expect((await Promise.all(stores.map(async (store, place) => store.promote('journeys', null, place + 1)))).filter((flipped) => flipped)).toHaveLength(1);
    const views = await Promise.all(stores.map(async (store) => store.view('journeys', 2, 0)));
    expect(await Promise.all(views.map(async (view) => view.position()))).toEqual([null, null, null, null]);
  });

  test('whoever has the write lock holds commits; they go on when it is let go', async () => {
    const view = await openLive({ lockWaitMs: 5 });
    const holder = new DatabaseSync(viewFile());
    holder.exec('BEGIN IMMEDIATE');
    expect(await view.commit(commitOf(1, [record('a', MONDAY)]))).toEqual({ kind: 'held' });
    expect(await view.position()).toBeNull();
    holder.exec('ROLLBACK');
    holder.close();
    expect(await view.commit(commitOf(1, [record('a', MONDAY)]))).toEqual({ kind: 'committed' });
  });

  test('G5: a commit that had to wait for the lock reads the pointer after it: what was promoted meanwhile stands', async () => {
    const view = await openLive({ lockWaitMs: 5 });
    const builder = await open();
    const next = await builder.createGeneration(SHAPE);
    const holder = new DatabaseSync(viewFile());
    holder.exec('BEGIN IMMEDIATE');
    expect((await view.commit(commitOf(1, []))).kind).toBe('held');
    expect(await builder.promote('journeys', 1, next.id)).toBe(true);
    holder.exec('ROLLBACK');
    holder.close();
    expect(await view.commit(commitOf(1, []))).toEqual({ kind: 'moved', position: null, live: 2 });
  });

  test('what was committed is there after a restart', async () => {
    const view = await openLive();
    await view.commit({ ...commitOf(1, [record('a', MONDAY, { contact: ['c'] })], { 'acme/j/a': '{}' }), digest: 'ab'.repeat(16) });
    await opened.splice(0)[0]!.close();
    expect(readdirSync(path.join(folder, 'views')).sort()).toEqual(['control.sqlite', 'journeys-1-0.sqlite']);
    const again = await open();
    expect(await again.live('journeys')).toBe(1);
    const found = await again.view('journeys', 1, 0);
    expect([await found.position(), await found.digest()]).toEqual([at(1), 'ab'.repeat(16)]);
    expect(await find(found, { clauses: [is('contact', 'c')] })).toMatchObject({ rows: [{ key: 'a', document: '{}' }], total: 1 });
  });

  test('the files of a generation go when it is dropped', async () => {
    await openLive();
    const store = opened[0]!;
    const next = await store.createGeneration({ ...SHAPE, shards: 2 });
    for (const shard of [0, 1]) await (await store.view('journeys', next.id, shard)).position();
    expect(existsSync(path.join(folder, 'views', 'journeys-2-1.sqlite'))).toBe(true);
    await store.dropGeneration('journeys', next.id);
    expect(readdirSync(path.join(folder, 'views')).filter((file) => file.startsWith('journeys-2'))).toEqual([]);
  });
});

describe('faults', () => {
  /** A view of 200 journeys whose files are closed. */
  async function closedView(): Promise<void> {
    const view = await openLive();
    await view.commit(commitOf(1, Array.from({ length: 200 }, (_, place) => record(`k${place}`, MONDAY + place, { medium: ['m'] })), Object.fromEntries(Array.from({ length: 200 }, (_, place) => [`acme/j/k${place}`, JSON.stringify('x'.repeat(500))]))));
    await opened.splice(0)[0]!.close();
  }
  const use = async (): Promise<unknown> => {
    const view = await (await open()).view('journeys', 1, 0);
    return [await find(view), await view.commit(commitOf(2, [record('k0', MONDAY + DAY)]))];
  };
  const corrupt = { code: 'storeCorrupt', retriable: false, message: expect.stringMatching(/journeys-1-0\.sqlite is damaged .*delete it .*folded again from the log/) };

  test('a truncated file is corruption that names the file and what to do', async () => {
    await closedView();
    truncateSync(viewFile(), Math.floor(statSync(viewFile()).size / 2));
    await expect(use()).rejects.toMatchObject(corrupt);
  });

  test('so is an empty one, and one that is no database', async () => {
    await closedView();
    truncateSync(viewFile(), 0);
    await expect(use()).rejects.toMatchObject(corrupt);
    writeFileSync(viewFile(), 'x'.repeat(50_000));
    await expect(use()).rejects.toMatchObject(corrupt);
  });

  test('so is a posting, a page, a term list or a chunk that cannot be read', async () => {
    await closedView();
    const ruin = (sql: string): void => {
      const db = new DatabaseSync(viewFile());
      db.exec(sql);
      db.close();
    };
    ruin("UPDATE pages SET data = x'010203'");
    await expect(use()).rejects.toMatchObject(corrupt);
    ruin("UPDATE postings SET data = x'09090909090909'");
    await expect(use()).rejects.toMatchObject(corrupt);
    ruin("DELETE FROM postings; DELETE FROM pages; UPDATE records SET terms = '['");
    await expect(use()).rejects.toMatchObject(corrupt);
  });

  test('a view whose file was deleted is a new one, to be folded again', async () => {
    await closedView();
    for (const file of readdirSync(path.join(folder, 'views'))) if (file.startsWith('journeys')) rmSync(path.join(folder, 'views', file));
    const view = await (await open()).view('journeys', 1, 0);
    expect(await view.position()).toBeNull();
    expect(await view.commit(commitOf(1, [record('a', MONDAY)]))).toEqual({ kind: 'committed' });
    expect(await keysOf(view)).toEqual(['a']);
  });

  test('a file of a newer format is not touched', async () => {
    await closedView();
    const db = new DatabaseSync(viewFile());
    db.exec('PRAGMA user_version = 99');
    db.close();
    await expect(use()).rejects.toMatchObject({ code: 'storeTooNew' });
  });

  test('a full disk fails the commit whole; the view answers as before', async () => {
    const view = await openLive({ maxPages: 60 });
    await view.commit(commitOf(1, [record('a', MONDAY, { medium: ['m'] })]));
    const many = Array.from({ length: 5000 }, (_, place) => record(`k${place}`, MONDAY + place, { medium: ['m'] }));
    await expect(view.commit(commitOf(2, many))).rejects.toMatchObject({ code: 'storeFull', retriable: false });
    expect(await view.position()).toBe(at(1));
    expect(await find(view, { clauses: [is('medium', 'm')] })).toMatchObject({ total: 1 });
    expect(await view.commit(commitOf(2, [record('b', MONDAY, { medium: ['m'] })]))).toEqual({ kind: 'committed' });
    expect(await keysOf(view, { clauses: [is('medium', 'm')] })).toEqual(['a', 'b']);
  });

  test('what a failed commit had changed in memory is forgotten with it', async () => {
    const view = await openLive();
    await view.commit(commitOf(1, [record('a', MONDAY, { agent: ['kim'] }, [{ state: ['s'] }])]));
    await expect(view.commit(commitOf(2, [record('b', MONDAY, { agent: ['kim', 'new'] }, [{ state: ['s'] }]), { key: 'a', state: null }, { key: 'none', subs: new Map() }]))).rejects.toThrow('does not stand');
    expect(await view.commit(commitOf(2, [record('c', MONDAY, { agent: ['newer'] }, [{ state: ['s'] }])]))).toEqual({ kind: 'committed' });
    expect(await keysOf(view, { clauses: [is('agent', 'kim')] })).toEqual(['a']);
    expect(await keysOf(view, { clauses: [is('agent', 'new')] })).toEqual([]);
    expect(await keysOf(view, { clauses: [is('agent', 'newer')] })).toEqual(['c']);
    expect(await keysOf(view, { sub: [is('state', 's')] })).toEqual(['a', 'c']);
  });

  test('a closed store says so, and may be closed again', async () => {
    const view = await openLive();
    const store = opened[0]!;
    await store.close();
    await store.close();
    await expect(view.position()).rejects.toMatchObject({ code: 'storeClosed' });
    await expect(view.commit(commitOf(1, []))).rejects.toMatchObject({ code: 'storeClosed' });
    await expect(store.live('journeys')).rejects.toMatchObject({ code: 'storeClosed' });
  });

  test('a folder that cannot be made is an operating error', async () => {
    writeFileSync(path.join(folder, 'file'), '');
    await expect(openSqliteViewStore({ folder: path.join(folder, 'file') })).rejects.toMatchObject({ name: 'OperatingError' });
  });

  test('ids that are no well-formed text come back as they were', async () => {
    const view = await openLive();
    const ids = ['\ud800', 'a\u0000b', '"', ''];
    await view.commit(commitOf(1, ids.map((id, place) => ({ key: `k${place}`, state: { time: MONDAY, id, terms: {} } }))));
    expect((await find(view)).rows.map(({ id }) => id)).toEqual([...ids].sort());
  });
});

describe('work', () => {
  test('an update whose terms did not change touches no posting', async () => {
    const view = await openLive();
    const terms = { medium: ['m'], agent: ['kim'], contact: ['c'] };
    await view.commit(commitOf(1, [record('a', MONDAY, terms, [{ state: ['s'] }])]));
    expect(await workOf(view, async () => view.commit(commitOf(2, [record('a', MONDAY, terms, [{ state: ['s'] }])])))).toMatchObject({ postingsWritten: 0, pagesWritten: 0, recordsWritten: 0, chunksWritten: 0 });
    expect(await workOf(view, async () => view.commit(commitOf(3, [record('a', MONDAY + 1, terms, [{ state: ['s'] }])])))).toMatchObject({ postingsWritten: 0, pagesWritten: 1, recordsWritten: 1, chunksWritten: 0 });
    expect(await workOf(view, async () => view.commit(commitOf(4, [record('a', MONDAY + 1, { ...terms, agent: ['lee'] }, [{ state: ['s'] }])])))).toMatchObject({ postingsWritten: 2, recordsWritten: 1 });
  });

  test('a posting is read and written once per commit, however many records share it', async () => {
    const view = await openLive();
    const batch = Array.from({ length: 500 }, (_, place) => record(`k${place}`, MONDAY + place, { medium: ['m'], agent: [`agent${place % 10}`] }, [{ state: ['s'] }, { state: ['t'] }]));
    // Every record, its medium, ten agents, two states.
    expect(await workOf(view, async () => view.commit(commitOf(1, batch)))).toMatchObject({ postingsRead: 14, postingsWritten: 14, pagesWritten: 2 });
  });

  test('a journey of 5,000 transitions that arrive a few at a time costs the same for each', async () => {
    const view = await openLive();
    const subs: SubRecord[] = [];
    const costs: number[] = [];
    await view.commit(commitOf(1, [record('a', MONDAY)]));
    for (let commit = 2; subs.length < 5000; commit += 1) {
      // Eight at a time fill chunks of 64 evenly.
      const chunk = Math.floor(subs.length / 64);
      for (let count = 0; count < 8; count += 1) subs.push({ state: [`state${subs.length % 7}`], by: [`agent${subs.length % 50}`] });
      const work = await workOf(view, async () => view.commit(commitOf(commit, [{ key: 'a', subs: new Map([[chunk, subs.slice(chunk * 64)]]) }])));
      costs.push(work.postingsRead + work.postingsWritten + work.pagesRead + work.pagesWritten + work.chunksRead + work.chunksWritten + work.recordsRead + work.recordsWritten);
    }
    // Of seven states and eight agents each posting once, a page, a chunk; and at first they are read.
    expect(Math.max(...costs)).toBeLessThanOrEqual(2 * (7 + 8) + 4);
    expect(Math.max(...costs.slice(-300))).toBeLessThanOrEqual(7 + 8 + 4);
    expect(await find(view, { sub: [is('state', 'state3'), is('by', 'agent3')] })).toMatchObject({ total: 1 });
    expect(await find(view, { sub: [is('state', 'state3'), is('by', 'nobody')] })).toMatchObject({ total: 0 });
  });

  describe('of searches over 400 days', () => {
    let view: SqliteView;
    beforeEach(async () => {
      view = await openLive();
      await view.commit(commitOf(1, Array.from({ length: 2000 }, (_, place) => record(`k${String(place).padStart(4, '0')}`, MONDAY + (place % 400) * DAY + place, { medium: ['m'], agent: [`agent${place % 40}`], contact: [`c${place % 1000}`] }, [{ state: ['s'] }]))));
    });

    test('a keyed filter looks at the days of its matches alone', async () => {
      expect(await workOf(view, async () => find(view, { clauses: [is('contact', 'c7'), is('medium', 'm')] }))).toMatchObject({ postingsRead: 2, pagesRead: 0, recordsRead: 2 });
    });

    test('a page without a filter looks into the days of the page alone, and counts the others by their size', async () => {
      const work = await workOf(view, async () => expect((await find(view, { limit: 10 })).total).toBe(2000));
      expect(work.recordsRead).toBe(11);
      expect(work.postingsRead).toBeLessThanOrEqual(4);
    });

    test('a later page takes the total that it is given, and looks at its own days alone', async () => {
      const last = (await find(view, { clauses: [is('medium', 'm')], limit: 500 })).rows.at(-1)!;
      const fresh = await (await open()).view('journeys', 1, 0);
      const work = await workOf(fresh, async () => expect(await find(fresh, { clauses: [is('medium', 'm')], limit: 10, after: last, total: 2000 })).toMatchObject({ total: 2000, more: true }));
      expect(work.recordsRead).toBeLessThanOrEqual(20);
      expect(work.postingsRead).toBeLessThanOrEqual(8);
    });

    test('a second time it reads no posting, and after a commit only those of the day that moved', async () => {
      const query = { clauses: [is('medium', 'm'), is('agent', 'agent1', 'agent2')], sub: [is('state', 's')] };
      const first = await workOf(view, async () => find(view, query));
      expect(first.postingsRead).toBeGreaterThan(400);
      expect(await workOf(view, async () => find(view, query))).toMatchObject({ postingsRead: 0, pagesRead: 0 });
      await view.commit(commitOf(2, [record('new', MONDAY + 41 * DAY, { medium: ['m'], agent: ['agent1'] }, [{ state: ['s'] }])]));
      const work = await workOf(view, async () => expect(await keysOf(view, query)).toContain('new'));
      expect(work.postingsRead).toBe(4);
    });

    test('a small cache costs reads and no answer', async () => {
      const small = await (await open({ cacheBytes: 4000 })).view('journeys', 1, 0);
      const query = { clauses: [is('medium', 'm'), is('agent', 'agent1')], sub: [is('state', 's')] };
      for (let turn = 0; turn < 2; turn += 1) expect(await find(small, query)).toEqual(await find(view, query));
      expect((await workOf(small, async () => find(small, query))).postingsRead).toBeGreaterThan(100);
    });
  });
});
