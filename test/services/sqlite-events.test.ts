// What is special to the event store on SQLite: other processes, damage, a full disk, crashes, the folder's lock.
// What every event store does is in test/contract/event-store.ts.
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { copyFileSync, mkdtempSync, openSync, closeSync, realpathSync, rmSync, statSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { DatabaseSync } from 'node:sqlite';
import { BroadcastChannel } from 'node:worker_threads';
import { type SqliteEventStoreOptions, holdFolder, openSqliteEventStore } from '../../services/adapters/sqlite-events.ts';
import type { EventStore, NewEvent, RecordedEvent } from '../../services/ports.ts';
import { newEvent } from '../contract/event-store.ts';

let folder: string;
let file: string;
const opened: EventStore[] = [];
const children: ChildProcess[] = [];
beforeEach(() => {
  folder = realpathSync(mkdtempSync(path.join(tmpdir(), 'throughline-')));
  file = path.join(folder, 'events.sqlite');
});
afterEach(async () => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
  for (const store of opened.splice(0)) await store.close();
  rmSync(folder, { recursive: true });
});

type Chosen = { readonly mode?: 'write' | 'direct'; readonly busyTimeoutMs?: number; readonly maxPages?: number } | { readonly mode: 'read' };
async function open(chosen: Chosen = { mode: 'direct' }): Promise<EventStore> {
  const store = await openSqliteEventStore({ folder, random: randomBytes, ...chosen } as SqliteEventStoreOptions);
  opened.push(store);
  return store;
}
async function close(store: EventStore): Promise<void> {
  opened.splice(opened.indexOf(store), 1);
  await store.close();
}

function events(count: number, bytes = 20): readonly NewEvent[] {
  return Array.from({ length: count }, () => newEvent({ data: randomBytes(bytes) }));
}
async function fill(store: EventStore, streams: number, perStream: number): Promise<void> {
  await Promise.all(Array.from({ length: streams }, (_, index) => store.append(`identity.w-${index}`, 'no_stream', events(perStream, 500))));
}
async function readAll(store: EventStore, prefixes: readonly string[] = []): Promise<readonly RecordedEvent[]> {
  const all: RecordedEvent[] = [];
  if ((await store.head()) === null) return all;
  for await (const batch of store.subscribe({ after: null, prefixes, maxBatch: 500, signal: new AbortController().signal })) {
    all.push(...batch.events);
    if (batch.caughtUp) break;
  }
  return all;
}

const MODULE = new URL('../../services/adapters/sqlite-events.ts', import.meta.url).href;
/** Another process that runs `body` with a store on this folder, `say(line)` and `uuid()` at hand; its lines come from `lines`. */
function elsewhere(body: string): { readonly child: ChildProcess; readonly lines: AsyncIterableIterator<string> } {
  const script = `
    import { openSqliteEventStore, holdFolder } from ${JSON.stringify(MODULE)};
    import { randomBytes, randomUUID as uuid } from 'node:crypto';
    import { writeSync } from 'node:fs';
    const folder = ${JSON.stringify(folder)};
    const say = (line) => writeSync(1, line + '\\n');
    const event = (id) => ({ id, type: 'from:elsewhere', data: randomBytes(300), metadata: randomBytes(10) });
    ${body}`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
  children.push(child);
  return { child, lines: createInterface({ input: child.stdout })[Symbol.asyncIterator]() };
}
async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) await new Promise((resolve) => child.once('exit', resolve));
}

describe('the file', () => {
  test('keeps its store id, its events and its counts from one opening to the next', async () => {
    const first = await open({ mode: 'write' });
    await fill(first, 5, 4);
    const before = await readAll(first);
    await close(first);
    const again = await open();
    expect(again.storeId).toBe(first.storeId);
    expect(await readAll(again)).toEqual(before);
    expect(await again.stats()).toMatchObject({ events: 20, streams: 5 });
    expect(await again.gap(before[4]!.position)).toBe(15);
  });

  test('is a WAL file of 8 KiB pages, whose WAL is empty once the last has closed it', async () => {
    const store = await open({ mode: 'write' });
    await fill(store, 3, 2);
    await close(store);
    expect(statSync(`${file}-wal`, { throwIfNoEntry: false })).toBeUndefined();
    const db = new DatabaseSync(file);
    expect(db.prepare('PRAGMA page_size').get()).toEqual({ page_size: 8192 });
    expect(db.prepare('PRAGMA journal_mode').get()).toEqual({ journal_mode: 'wal' });
    db.close();
  });

  test('is only read in mode read, and must be there', async () => {
    await expect(open({ mode: 'read' })).rejects.toMatchObject({ code: 'storeUnavailable' });
    const writer = await open();
    const reader = await open({ mode: 'read' });
    await expect(reader.append('s-1', 'no_stream', events(1))).rejects.toMatchObject({ code: 'storeReadOnly' });
    await fill(writer, 2, 2);
    expect(await readAll(reader)).toHaveLength(4);
    expect(reader.storeId).toBe(writer.storeId);
  });

  test('an id that is no UUID is a fault of the caller', async () => {
    await expect((await open()).append('s-1', 'no_stream', [newEvent({ id: 'constant' })])).rejects.toThrow('UUID');
  });

  test('appends that wait share a commit', async () => {
    const store = await open({ mode: 'write' });
    let commits = 0;
    const channel = new BroadcastChannel(`throughline:${file}`);
    channel.onmessage = () => (commits += 1);
    await Promise.all(events(1000).map((event, index) => store.append(`s-${index}`, 'no_stream', [event])));
    // Messages come in order: the one for this last append ends the count.
    const last = commits;
    await store.append('s-last', 'no_stream', events(1));
    while (commits === last) await new Promise(setImmediate);
    channel.close();
    expect(commits).toBeLessThanOrEqual(20);
  });
});

describe('several at the same file', () => {
  test('G1: two writers in turn and at once see each other\'s revisions', async () => {
    const writers = [await open({ mode: 'write' }), await open({ mode: 'direct' })];
    let revision = -1;
    for (let round = 0; round < 10; round += 1) {
      const result = await writers[round % 2]!.append('s-1', revision < 0 ? 'no_stream' : revision, events(1 + (round % 3)));
      expect(result.kind).toBe('appended');
      revision = result.kind === 'appended' ? result.revision : revision;
    }
    const both = await Promise.all(writers.map((writer) => writer.append('s-1', revision, events(1))));
    expect(both.map(({ kind }) => kind).sort()).toEqual(['appended', 'conflict']);
    const [event] = events(1);
    const same = await Promise.all(writers.map((writer) => writer.append('s-2', 'no_stream', [event!])));
    expect(same.map(({ kind }) => kind).sort()).toEqual(['appended', 'duplicate']);
    expect((await readAll(writers[0]!)).map(({ position }) => Number(position))).toEqual(Array.from({ length: revision + 3 }, (_, index) => index + 1));
  });

  test('G1: three processes make the store at once, append to one stream, and a subscription here sees it all, in order', async () => {
    const others = [1, 2, 3].map(() => elsewhere(`
      const store = await openSqliteEventStore({ folder, mode: 'direct', random: randomBytes });
      let expected = 'no_stream';
      for (let count = 0; count < 30;) {
        const result = await store.append('shared', expected, [event(uuid())]);
        if (result.kind === 'appended') count += 1;
        expected = result.revision < 0 ? 'no_stream' : result.revision;
      }
      await store.close();
      say(store.storeId);`));
    const store = await open({ mode: 'write' });
    const seen: RecordedEvent[] = [];
    for await (const batch of store.subscribe({ after: null, prefixes: [], maxBatch: 20, signal: new AbortController().signal })) {
      seen.push(...batch.events);
      if (seen.length >= 90) break;
    }
    expect(seen.map(({ revision }) => revision)).toEqual(seen.map((_, index) => index));
    expect(new Set(seen.map(({ id }) => id)).size).toBe(90);
    for (const { lines } of others) expect((await lines.next()).value).toBe(store.storeId);
  });

  test('a write lock that another holds too long is storeBusy, and nothing is written', async () => {
    const store = await open({ mode: 'write', busyTimeoutMs: 20 });
    const other = new DatabaseSync(file);
    other.exec('BEGIN IMMEDIATE');
    await expect(store.append('s-1', 'no_stream', events(1))).rejects.toMatchObject({ code: 'storeBusy', retriable: true });
    other.exec('COMMIT');
    other.close();
    expect(await store.append('s-1', 'no_stream', events(1))).toMatchObject({ kind: 'appended', revision: 0 });
  });

  test('a follower of the small categories does not walk over customers\' events', async () => {
    const store = await open();
    await store.append('workspace-w', 'no_stream', events(1));
    await fill(store, 10, 3);
    await store.append('erasures.w-log', 'no_stream', events(1));
    // Customers' events that cannot be read are met by those who read them, and by nobody else.
    const db = new DatabaseSync(file);
    db.exec('DELETE FROM events WHERE position BETWEEN 5 AND 20');
    db.close();
    expect((await readAll(store, ['workspace-', 'erasures.'])).map(({ stream }) => stream)).toEqual(['workspace-w', 'erasures.w-log']);
    await expect(readAll(store)).rejects.toMatchObject({ code: 'storeCorrupt' });
    await expect(readAll(store, ['identity.'])).rejects.toMatchObject({ code: 'storeCorrupt' });
  });
});

describe('damage', () => {
  async function filled(): Promise<void> {
    const store = await open();
    await fill(store, 40, 20);
    await close(store);
  }

  test('G1: a file cut short is storeCorrupt at opening, wherever it was cut', async () => {
    await filled();
    const whole = path.join(folder, 'whole');
    copyFileSync(file, whole);
    const { size } = statSync(file);
    for (const left of [size - 1, size - 8192, size - 70_000, Math.floor(size / 2), 8192, 100]) {
      copyFileSync(whole, file);
      truncateSync(file, left);
      for (const mode of ['direct', 'read'] as const) await expect(open({ mode })).rejects.toMatchObject({ code: 'storeCorrupt', retriable: false });
    }
  });

  test('G1: whichever page is overwritten, a reader gets an error or every event', async () => {
    await filled();
    const whole = path.join(folder, 'whole');
    copyFileSync(file, whole);
    const pages = statSync(file).size / 8192;
    let refused = 0;
    for (let page = 0; page < pages; page += 3) {
      copyFileSync(whole, file);
      rmSync(`${file}-wal`, { force: true });
      rmSync(`${file}-shm`, { force: true });
      const handle = openSync(file, 'r+');
      writeSync(handle, new Uint8Array(8192), 0, 8192, page * 8192);
      closeSync(handle);
      const outcome = await open({ mode: 'read' }).then(readAll).then(({ length }) => length, (error: unknown) => error);
      if (outcome === 800) continue;
      refused += 1;
      expect(outcome).toMatchObject({ code: 'storeCorrupt' });
    }
    expect(refused).toBeGreaterThan(pages / 6);
  });

  test('what is no database, or not ours, is storeCorrupt; a newer one is storeTooNew', async () => {
    writeFileSync(file, 'not a database at all, but long enough to be looked at'.repeat(100));
    await expect(open()).rejects.toMatchObject({ code: 'storeCorrupt' });
    rmSync(file);
    await close(await open());
    const db = new DatabaseSync(file);
    db.exec("UPDATE meta SET value = '2' WHERE key = 'schema_version'");
    db.close();
    await expect(open()).rejects.toMatchObject({ code: 'storeTooNew' });
    await expect(open({ mode: 'read' })).rejects.toMatchObject({ code: 'storeTooNew' });
  });

  test.each(['write', 'direct'] as const)('G1: a full disk is storeFull, acknowledges nothing, and with room again the store goes on (%s)', async (mode) => {
    const store = await open({ mode, maxPages: 40 });
    const acknowledged: string[] = [];
    let refused = 0;
    for (let index = 0; index < 60; index += 1) {
      const batch = events(10, 900);
      try {
        const result = await store.append(`s-${index}`, 'no_stream', batch);
        expect(result.kind).toBe('appended');
        acknowledged.push(...batch.map(({ id }) => id));
      } catch (error) {
        expect(error).toMatchObject({ code: 'storeFull', retriable: false });
        refused += 1;
      }
    }
    expect(refused).toBeGreaterThan(0);
    expect(acknowledged.length).toBeGreaterThan(0);
    expect((await readAll(store)).map(({ id }) => id)).toEqual(acknowledged);
    await close(store);
    const roomy = await open();
    expect(await roomy.append('s-more', 'no_stream', events(50, 900))).toMatchObject({ kind: 'appended', revision: 49 });
    expect(await readAll(roomy)).toHaveLength(acknowledged.length + 50);
  });
});

describe('crashes', () => {
  test.each([40, 400])('G1: after SIGKILL amid appends every acknowledged event is there, once, and no position is missing (%i acknowledged)', async (count) => {
    const { child, lines } = elsewhere(`
      const store = await openSqliteEventStore({ folder, random: randomBytes });
      const lane = async (name) => {
        for (let revision = -1; ; revision += 1) {
          const id = uuid();
          const result = await store.append(name, revision < 0 ? 'no_stream' : revision, [event(id)]);
          if (result.kind !== 'appended') throw new Error(result.kind);
          say(id);
        }
      };
      await Promise.all(Array.from({ length: 32 }, (_, index) => lane('lane-' + index)));`);
    const acknowledged: string[] = [];
    for await (const line of lines) {
      acknowledged.push(line);
      if (acknowledged.length === count) child.kill('SIGKILL');
    }
    await ended(child);
    expect(acknowledged.length).toBeGreaterThanOrEqual(count);
    const store = await open();
    const stored = await readAll(store);
    const times = new Map<string, number>();
    for (const { id } of stored) times.set(id, (times.get(id) ?? 0) + 1);
    expect(acknowledged.filter((id) => times.get(id) !== 1)).toEqual([]);
    expect(stored.map(({ position }) => Number(position))).toEqual(stored.map((_, index) => index + 1));
    expect(await store.append('lane-0', 'no_stream', events(1))).toMatchObject({ kind: 'conflict' });
  });
});

test('a file that was emptied beside a master key or views is not taken for a new store, and stays as it is', async () => {
  await (await openSqliteEventStore({ folder, mode: 'direct', random: randomBytes })).close();
  for (const suffix of ['', '-wal', '-shm']) rmSync(`${file}${suffix}`, { force: true });
  writeFileSync(file, '');
  writeFileSync(path.join(folder, 'master.key'), 'x');
  await expect(openSqliteEventStore({ folder, mode: 'direct', random: randomBytes })).rejects.toMatchObject({ code: 'storeCorrupt', message: expect.stringMatching(/events\.sqlite is damaged: it is empty.*restore/) });
  expect(statSync(file).size).toBe(0);
  rmSync(path.join(folder, 'master.key'));
  await (await openSqliteEventStore({ folder, mode: 'direct', random: randomBytes })).close();
});

describe('the folder\'s lock', () => {
  test('keeps a second caller out, names folder and process, and lets one in after the release', () => {
    const first = holdFolder(folder);
    expect(() => holdFolder(folder)).toThrow(expect.objectContaining({ code: 'storeLocked', message: expect.stringMatching(`${folder}.*${process.pid}`) }));
    first.release();
    first.release();
    holdFolder(folder).release();
  });

  test('is another process\'s as long as that lives, and dies with it', async () => {
    const { child, lines } = elsewhere("holdFolder(folder); say('held'); setInterval(() => undefined, 1000);");
    expect((await lines.next()).value).toBe('held');
    expect(() => holdFolder(folder)).toThrow(expect.objectContaining({ code: 'storeLocked', message: expect.stringContaining(String(child.pid)) }));
    child.kill('SIGKILL');
    await ended(child);
    holdFolder(folder).release();
  });

  test('does not keep appends of other verbs out', async () => {
    const lock = holdFolder(folder);
    expect(await (await open()).append('workspace-w', 'no_stream', events(1))).toMatchObject({ kind: 'appended' });
    lock.release();
  });
});
