// The operator's verbs: what they read, what they print, and how they end. Folders are real; a server is a door behind
// `fetch`.
import { spawn } from 'node:child_process';
import { randomBytes, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { chmodSync, cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import fc from 'fast-check';
import { journeys } from '../../projections/journeys.ts';
import { persons } from '../../projections/persons.ts';
import { decodeMessage } from '../../schemas/cloudevent.ts';
import { isWorkspaceId, workspaceKeys } from '../../schemas/identity.ts';
import { MemoryEventStore } from '../../services/adapters/memory-events.ts';
import { MemoryViewStore } from '../../services/adapters/memory-views.ts';
import { holdFolder } from '../../services/adapters/sqlite-events.ts';
import { openSqliteViewStore } from '../../services/adapters/sqlite-views.ts';
import type { EventsPlace } from '../../services/backends.ts';
import { parse, type Options, type VerbName } from '../../services/config.ts';
import { Door } from '../../services/door.ts';
import { sleep } from '../../services/lifecycle.ts';
import { backupVerb, restoreVerb } from '../../services/ops/backup.ts';
import { Splitter } from '../../services/ops/elements.ts';
import { doctorVerb } from '../../services/ops/doctor.ts';
import { exportVerb } from '../../services/ops/export.ts';
import { openLog, openStores } from '../../services/ops/folder.ts';
import { importVerb } from '../../services/ops/import.ts';
import { previewVerb, traceVerb } from '../../services/ops/inspect.ts';
import { keysVerb, workspacesVerb } from '../../services/ops/keys.ts';
import { type Status, statusVerb } from '../../services/ops/status.ts';
import { verifyVerb } from '../../services/verify.ts';
import { replayVerb } from '../../services/replay.ts';
import { runProjector } from '../../services/projector/projector.ts';
import { bytes, type Io, print, printable, ProgressBar, table } from '../../services/ops/terminal.ts';
import { loadWorkspaceKeys, masterKeyOf } from '../../services/workspaces.ts';
import { cleanEnvironment, ROOT, until } from '../support/serve.ts';
import { startEventStoreDouble } from '../support/eventstoredb/double.ts';

const KEY = 'the-key-of-the-workspace';
const folders: string[] = [];
const newFolder = (): string => {
  const folder = mkdtempSync(join(tmpdir(), 'throughline-test-'));
  folders.push(folder);
  return folder;
};
afterEach(() => { for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true }); });

interface World extends Io { readonly out: () => string; readonly err: () => string; readonly slept: number[] }
function world(given: Partial<Pick<Io, 'fetch' | 'stdin' | 'isTty' | 'signal' | 'clock'>> = {}): World {
  let out = '';
  let err = '';
  let ms = Date.UTC(2026, 2, 2, 9);
  const slept: number[] = [];
  return {
    stdout: { write: (text, done) => { out += text; done?.(); return true; } },
    stderr: { write: (text, done) => { err += text; done?.(); return true; } },
    stdin: given.stdin ?? from(''), isTty: given.isTty ?? false, signal: given.signal ?? new AbortController().signal,
    clock: given.clock ?? { now: () => (ms += 1) }, random: (size) => randomBytes(size),
    sleep: (time, signal) => {
      slept.push(time);
      return signal === undefined ? Promise.resolve() : new Promise((resolve) => { if (signal.aborted) resolve(); else signal.addEventListener('abort', () => resolve(), { once: true }); setImmediate(resolve); });
    },
    fetch: given.fetch ?? (() => Promise.reject(new TypeError('fetch failed'))),
    out: () => out, err: () => err, slept,
  };
}
async function* from(text: string, size = text.length + 1): AsyncGenerator<Uint8Array> {
  const all = Buffer.from(text);
  for (let at = 0; at < all.length; at += size) yield all.subarray(at, at + size);
}
function asked<V extends VerbName>(verb: V, argv: readonly string[], environment: Record<string, string> = { THROUGHLINE_API_KEY: KEY }): Options<V> {
  const found = parse([verb, ...argv], environment);
  if (found.kind !== 'run') throw new Error(JSON.stringify(found));
  return found.options as Options<V>;
}
const json = (text: string): Record<string, unknown> => JSON.parse(text) as Record<string, unknown>;

const line = (id: string, identity = 'ana@example.com', more: Record<string, unknown> = {}): string =>
  JSON.stringify({ specversion: '1.0', id, source: 'pbx', type: 'task:new', time: '2026-03-02T08:00:00Z', identity, identitytype: 'email', datacontenttype: 'application/json', data: { taskId: `t-${id}`, channelType: 'telephony', direction: 'INBOUND' }, ...more });
const lines = (count: number, people = 5): string[] => Array.from({ length: count }, (_, i) => line(`e${i}`, `c${i % people}@example.com`));

/** A Throughline behind `fetch`: a door over memory, answering as POST /events does. `stage` may answer in its place. */
function server(stage: (call: number, body: Uint8Array) => Response | Error | null = () => null) {
  const store = new MemoryEventStore({ storeId: 'store' });
  const id = 'shop';
  if (!isWorkspaceId(id)) throw new Error('not an id');
  const keys = workspaceKeys(id, Buffer.alloc(32, 5));
  const door = new Door({ store, clock: { now: () => Date.UTC(2026, 2, 2, 9) }, random: (size) => randomBytes(size), sleep: (_, signal) => new Promise((resolve) => { signal?.addEventListener('abort', () => resolve(), { once: true }); }), tallies: new MemoryViewStore() });
  const seen = { calls: 0, inside: 0, most: 0, keys: new Set<string>() };
  const fetch = async (url: string | URL | Request, init?: RequestInit): Promise<Response> => {
    const call = (seen.calls += 1);
    seen.inside += 1;
    seen.most = Math.max(seen.most, seen.inside);
    try {
      const body = typeof init?.body === 'string' ? Buffer.from(init.body) : (init?.body as Uint8Array);
      const headers = Object.fromEntries(new Headers(init?.headers));
      seen.keys.add(headers['x-api-key'] ?? '');
      await new Promise<void>((resolve) => { setImmediate(resolve); });
      const staged = stage(call, body);
      if (staged instanceof Response) return staged;
      if (staged !== null) throw staged;
      const message = decodeMessage({ headers, body }, { maxEventBytes: 262_144, binding: 'http' });
      if (message.kind === 'one') {
        const [only] = await door.receive(keys, [message.decoded]);
        if (only?.kind === 'rejected') return Response.json({ errors: [{ code: only.rejection.code, message: only.rejection.reason }] }, { status: 400 });
        return Response.json({ id: only?.id, result: only?.kind });
      }
      if (typeof url === 'string' && url.endsWith('dryRun=true')) {
        return Response.json({ results: door.dryRun(keys, message.elements).map((one, index) => (one.kind === 'rejected' ? { index, result: 'rejected', code: one.rejection.code, attribute: one.rejection.attribute, message: one.rejection.reason } : { index, ...one, result: 'dryRun', reason: one.why === null ? null : { code: one.why.code, message: one.why.reason } })) });
      }
      const receipts = await door.receive(keys, message.elements);
      return Response.json({ results: receipts.map((one, index) => (one.kind === 'rejected' ? { index, result: 'rejected', code: one.rejection.code, attribute: one.rejection.attribute, message: one.rejection.reason } : { index, result: one.kind, id: one.id })) });
    } finally {
      seen.inside -= 1;
    }
  };
  const order = async (person: number): Promise<string[]> => {
    const key = keys.identityKey('email', `c${person}@example.com`) ?? '';
    return (await store.readStream(`identity.shop-${key}`, { direction: 'forward', limit: 100_000 })).map(({ metadata }) => (JSON.parse(Buffer.from(metadata).toString('utf8')) as { a: { id: string } }).a.id);
  };
  return { fetch, store, seen, order, counts: () => door.counts(), stream: `identity.shop-${keys.identityKey('email', 'ana@example.com') ?? ''}` };
}

describe('cutting the input into elements', () => {
  const split = (text: string | Uint8Array, size: number, limit = 1000): { line: number; text: string }[] => {
    const splitter = new Splitter(limit);
    const all = Buffer.from(text);
    const found = [];
    for (let at = 0; at < all.length; at += size) found.push(...splitter.push(all.subarray(at, at + size)));
    found.push(...splitter.end());
    return found.map((element) => ({ line: element.line, text: Buffer.from(element.bytes).toString('utf8') }));
  };

  test.each<[string, string, [number, string][]]>([
    ['lines', '{"a":1}\n{"b":2}\n', [[1, '{"a":1}'], [2, '{"b":2}']]],
    ['lines with blank ones, other ends and no last end', '\n{"a":1}\r\n  \n\n{"b":2}', [[2, '{"a":1}\r'], [5, '{"b":2}']]],
    ['a byte order mark', '\ufeff{"a":1}\n', [[1, '{"a":1}']]],
    ['an array', '[{"a":1},{"b":[1,"]"]}]', [[1, '{"a":1}'], [1, '{"b":[1,"]"]}']]],
    ['an array over lines', '[\n  {"a":1} ,\n  {\n "b":2}\n]\n', [[2, '{"a":1} '], [3, '{\n "b":2}\n']]],
    ['strings with brackets, commas and quotes', '[{"a":"],\\"[{,\\\\"},2]', [[1, '{"a":"],\\"[{,\\\\"}'], [1, '2']]],
    ['an empty array and an empty input', ' [ ] ', []],
    ['arrays one after the other, then lines', '[1]\n[2,3]\n{"c":4}\n', [[1, '1'], [2, '2'], [2, '3'], [3, '{"c":4}']]],
    ['what is missing between commas', '[1,,2,]', [[1, '1'], [1, ''], [1, '2'], [1, '']]],
    ['an array that is cut off', '[{"a":1},{"b"', [[1, '{"a":1}'], [1, '{"b"'], [1, '']]],
    ['an array cut off after an element', '[{"a":1}\n', [[1, '{"a":1}\n'], [2, '']]],
    ['a bracket that was never opened', '[1},2]', [[1, '1}'], [1, '2']]],
  ])('%s', (_, text, expected) => {
    for (const size of [1, 2, 3, 7, 1000]) expect(split(text, size)).toEqual(expected.map(([at, said]) => ({ line: at, text: said })));
  });

  test('an element past the limit is cut, those around it are whole', () => {
    const long = `{"a":"${'x'.repeat(500)}"}`;
    for (const size of [1, 10, 10_000]) {
      expect(split(`{"b":1}\n${long}\n{"c":2}\n`, size, 100).map(({ text }) => text.length)).toEqual([7, 101, 7]);
      expect(split(`[{"b":1},${long},{"c":2}]`, size, 100).map(({ text }) => text.length)).toEqual([7, 101, 7]);
    }
  });

  test('any events, as lines or as an array, in any chunks, come out as they went in', () => {
    fc.assert(fc.property(fc.array(fc.jsonValue().map((value) => JSON.stringify({ value })), { maxLength: 8 }), fc.integer({ min: 1, max: 50 }), fc.boolean(), (texts, size, pretty) => {
      const whole = texts.map((text) => text.trim());
      expect(split(`${whole.join('\n')}\n`, size, 1e6).map(({ text }) => text)).toEqual(whole);
      const array = pretty ? JSON.stringify(whole.map((text) => JSON.parse(text) as unknown), null, 2) : `[${whole.join(',')}]`;
      expect(split(array, size, 1e6).map(({ text }) => JSON.stringify(JSON.parse(text)))).toEqual(whole.map((text) => JSON.stringify(JSON.parse(text))));
    }), { numRuns: 100 });
  });
});

describe('import into a server', () => {
  const input = (text: string): string => {
    const file = join(newFolder(), 'events.ndjson');
    writeFileSync(file, text);
    return file;
  };

  test('records what is new, counts the rest, and records nothing the second time', async () => {
    const { fetch, store, seen } = server();
    const file = input([...lines(1500), line('e0', 'c0@example.com'), '{"specversion":"1.0"}', 'not json'].join('\n'));
    const first = world({ fetch });
    expect(await importVerb(asked('import', [file, '--json']), first)).toBe(0);
    expect(json(first.out())).toEqual({ file, recorded: 1500, duplicate: 1, rejected: 2, seconds: expect.any(Number), rejectedFile: `${file}.rejected.ndjson`, complete: true });
    expect([...seen.keys]).toEqual([KEY]);
    const rejects = readFileSync(`${file}.rejected.ndjson`, 'utf8').trim().split('\n').map(json);
    expect(rejects.sort((a, b) => Number(a['line']) - Number(b['line']))).toMatchObject([{ line: 1502, code: 'missingAttribute', raw: '{"specversion":"1.0"}' }, { line: 1503, code: 'notJson', raw: 'not json' }]);
    const second = world({ fetch });
    expect(await importVerb(asked('import', [file, '--json']), second)).toBe(0);
    expect(json(second.out())).toMatchObject({ recorded: 0, duplicate: 1501, rejected: 2 });
    expect((await store.stats()).events).toBe(1500);
    const human = world({ fetch });
    await importVerb(asked('import', [file]), human);
    expect(human.out()).toMatch(/0 recorded, 1,501 duplicate, 2 rejected in [\d.]+ s/);
    expect(human.err()).toBe('');
  });

  test('G2: an identity keeps its order over many requests in flight', async () => {
    const { fetch, order, seen } = server();
    const file = input(lines(6000, 7).join('\n'));
    await importVerb(asked('import', [file, '--json']), world({ fetch }));
    for (let person = 0; person < 7; person += 1) expect(await order(person)).toEqual(Array.from({ length: 6000 }, (_, i) => i).filter((i) => i % 7 === person).map((i) => `e${i}`));
    expect(seen.most).toBeGreaterThan(1);
  });

  test('waits for a busy or absent server, and sends again what was not answered', async () => {
    const { fetch, store } = server((call) => {
      if (call === 1) return new Response('', { status: 503, headers: { 'retry-after': '2' } });
      if (call === 3) return new TypeError('fetch failed');
      return call === 4 ? new Response('', { status: 429 }) : null;
    });
    const io = world({ fetch });
    expect(await importVerb(asked('import', [input(lines(2000).join('\n')), '--json']), io)).toBe(0);
    expect((await store.stats()).events).toBe(2000);
    expect(io.slept).toContain(2000);
  });

  test('a lost answer makes duplicates, not events', async () => {
    const inner = server();
    let lost = false;
    const fetch: typeof globalThis.fetch = async (url, init) => {
      const answer = await inner.fetch(url, init);
      if (lost) return answer;
      lost = true;
      throw new TypeError('terminated');
    };
    const io = world({ fetch });
    expect(await importVerb(asked('import', [input(`${lines(100, 1).join('\n')}\n`), '--json']), io)).toBe(0);
    expect((await inner.store.stats()).events).toBe(100);
    expect(json(io.out())).toMatchObject({ recorded: 0, duplicate: 100 });
  });

  test('what the server rejects goes to the file too, with its line', async () => {
    const { fetch, counts } = server();
    const file = input([line('a'), line('b', 'ana@example.com', { workspace: 'bank' }), line('c'), line('')].join('\n'));
    const io = world({ fetch });
    expect(await importVerb(asked('import', [file, '--json']), io)).toBe(0);
    expect(json(io.out())).toMatchObject({ recorded: 2, rejected: 2 });
    const rejects = readFileSync(`${file}.rejected.ndjson`, 'utf8').trim().split('\n').map(json).sort((a, b) => Number(a['line']) - Number(b['line']));
    expect(rejects).toMatchObject([{ line: 2, code: 'wrongWorkspace', attribute: 'workspace' }, { line: 4, code: 'emptyAttribute', attribute: 'id' }]);
    // The server was told of both, so that it counts them by their source.
    expect(counts()).toMatchObject({ rejected: { wrongWorkspace: 1, emptyAttribute: 1 } });
  });

  test('what is no JSON goes by itself, so that the server counts it too, once', async () => {
    const { fetch, counts } = server();
    const file = input([line('a'), 'not json', '{"specversion":', line('b'), 'not json'].join('\n'));
    const io = world({ fetch });
    expect(await importVerb(asked('import', [file, '--json']), io)).toBe(0);
    expect(json(io.out())).toMatchObject({ recorded: 2, duplicate: 0, rejected: 3 });
    expect(counts()).toMatchObject({ recorded: 2, rejected: { notJson: 3 } });
    const rejects = readFileSync(`${file}.rejected.ndjson`, 'utf8').trim().split('\n').map(json);
    expect(rejects.map(({ line: at, code }) => [at, code]).sort()).toEqual([[2, 'notJson'], [3, 'notJson'], [5, 'notJson']]);
  });

  test('a server that goes on being full is told by its own code and words', async () => {
    const { fetch } = server(() => Response.json({ errors: [{ code: 'storeFull', message: 'The disk is full.' }] }, { status: 503 }));
    const io = world({ fetch });
    expect(await importVerb(asked('import', [input(line('a'))]), io)).toBe(1);
    expect(io.err()).toMatch(/ answers 503: storeFull The disk is full\. \(storeFull\)/);
  });

  test('a request that is too large is halved, in order', async () => {
    const { fetch, order } = server((_, body) => (body.length > 20_000 ? new Response('', { status: 413 }) : null));
    expect(await importVerb(asked('import', [input(lines(400, 2).join('\n')), '--json']), world({ fetch }))).toBe(0);
    expect(await order(1)).toEqual(Array.from({ length: 200 }, (_, i) => `e${i * 2 + 1}`));
  });

  test.each<[string, Response | Error, string]>([
    ['a key that it does not know', Response.json({ errors: [{ code: 'unauthorized' }] }, { status: 401 }), 'serverRefused'],
    ['a request that it refuses', Response.json({ errors: [{ code: 'forbidden', message: 'no' }] }, { status: 403 }), 'serverRefused'],
    ['another kind of server', new Response('<html>', { status: 200 }), 'serverRefused'],
    ['no server', new TypeError('fetch failed'), 'serverUnreachable'],
  ])('ends with 1 for %s, and says so', async (_, answer, code) => {
    const { fetch } = server(() => (answer instanceof Response ? answer.clone() : answer));
    const io = world({ fetch });
    expect(await importVerb(asked('import', [input(lines(10).join('\n')), '--json']), io)).toBe(1);
    expect(json(io.out())).toMatchObject({ recorded: 0, complete: false, error: { code } });
    expect(io.out()).not.toContain(KEY);
  });

  test('ends with 1 without a key, and for a file that is not there', async () => {
    const io = world();
    expect(await importVerb(asked('import', [input(line('a'))], {}), io)).toBe(1);
    expect(io.err()).toMatch(/THROUGHLINE_API_KEY is not set/);
    const missing = world({ fetch: server().fetch });
    expect(await importVerb(asked('import', [join(newFolder(), 'none.ndjson')]), missing)).toBe(1);
    expect(missing.err()).toMatch(/cannot be read \(ENOENT\)/);
  });

  test('reads stdin, and a JSON array as well as lines', async () => {
    const { fetch, store } = server();
    const io = world({ fetch, stdin: from(`[\n${lines(50).join(',\n')}\n]`, 100) });
    expect(await importVerb(asked('import', ['-', '--json']), io)).toBe(0);
    expect(json(io.out())).toMatchObject({ file: '-', recorded: 50, rejectedFile: null });
    expect((await store.stats()).events).toBe(50);
  });

  test('an interrupted import says so, and the file of an earlier run does not stay', async () => {
    const { fetch } = server();
    const file = input(lines(10).join('\n'));
    writeFileSync(`${file}.rejected.ndjson`, 'old\n');
    const io = world({ fetch, signal: AbortSignal.abort() });
    expect(await importVerb(asked('import', [file, '--json']), io)).toBe(1);
    expect(json(io.out())).toMatchObject({ complete: false, error: { code: 'interrupted' } });
    expect(existsSync(`${file}.rejected.ndjson`)).toBe(false);
  });

  test('bytes that are no text are kept in the file of rejected lines', async () => {
    const { fetch } = server();
    const file = join(newFolder(), 'bad.ndjson');
    writeFileSync(file, Buffer.concat([Buffer.from(line('a', 'ana@example.com').slice(0, -1)), Buffer.from([0xff]), Buffer.from('}\n')]));
    await importVerb(asked('import', [file, '--json']), world({ fetch }));
    expect(json(readFileSync(`${file}.rejected.ndjson`, 'utf8'))).toMatchObject({ line: 1, raw_base64: expect.any(String) });
  });
});

/** Folds a folder as a running serve would have, by the projector itself; the digest of each group. */
async function folded(data: string, masterKey: Uint8Array | null = null): Promise<readonly string[]> {
  const place = { kind: 'sqlite', folder: data } as const;
  const folder = await openStores({ events: place, views: place }, 'beside', world());
  const key = await masterKeyOf(place, folder.events, { given: masterKey, mayMake: false, random: world().random });
  const ending = new AbortController();
  await runProjector({
    events: folder.events, views: folder.views, projections: [journeys, persons], keysOf: (workspace) => loadWorkspaceKeys(folder.events, workspace, key), shards: 1, owned: 'all', patience: 'bounded', room: { batchMax: 4096, batchBytesMax: 1 << 24, cacheBytesMax: 1 << 20, stepBytesMax: 1 << 24, foldMax: 4096, lanes: 1 }, clock: { now: () => Date.now() }, wait: sleep,
    signal: ending.signal, onFault: (fault) => { throw fault; }, onProgress: (groups) => { if (groups.length === 2 && groups.every(({ caughtUp }) => caughtUp)) ending.abort(); },
  });
  const digests = await Promise.all(['journeys', 'persons'].map(async (group) => (await folder.views.view(group, (await folder.views.live(group)) ?? 0, 0)).digest()));
  await folder.close();
  return digests;
}

/** A folder into which a file was imported. */
async function filled(): Promise<{ data: string; file: string; key: string }> {
  const data = join(newFolder(), 'data');
  const file = join(newFolder(), 'events.ndjson');
  writeFileSync(file, [...lines(20), line('call-1', '+1 (555) 010-0100', { identitytype: 'phone' }), line('withheld', 'anonymous'), line('odd', 'ana@example.com', { type: 'shop:odd' }), 'nonsense'].join('\n'));
  const io = world();
  expect(await importVerb(asked('import', [file, '--data', data, '--json'], {}), io)).toBe(0);
  expect(json(io.out())).toMatchObject({ recorded: 23, duplicate: 0, rejected: 1, complete: true });
  return { data, file, key: /once: (tl_\S+)/.exec(io.err())?.[1] ?? '' };
}

describe('import into a folder, and what reads it', () => {
  test('makes the workspace, records once, and the second time nothing', async () => {
    const { data, file, key } = await filled();
    expect(key).not.toBe('');
    const again = world();
    expect(await importVerb(asked('import', [file, '--data', data, '--json'], {}), again)).toBe(0);
    expect(json(again.out())).toMatchObject({ recorded: 0, duplicate: 23, rejected: 1 });
    expect(again.err()).toBe('');
  });

  test('a folder that somebody holds is refused, and so is a workspace that is not there', async () => {
    const { data, file } = await filled();
    const held = holdFolder(data);
    const io = world();
    expect(await importVerb(asked('import', [file, '--data', data], {}), io)).toBe(1);
    expect(io.err()).toMatch(/is held by process \d+ \(storeLocked\)/);
    held.release();
    const nobody = world();
    expect(await importVerb(asked('import', [file, '--data', data, '--workspace', 'bank'], {}), nobody)).toBe(1);
    expect(nobody.err()).toMatch(/workspaces create bank/);
  });

  test('status tells events, workspaces with their counts, and how far each group is behind', async () => {
    const { data } = await filled();
    const io = world();
    expect(await statusVerb(asked('status', ['--data', data, '--json']), io)).toBe(0);
    const status = JSON.parse(io.out()) as Status;
    expect(status).toMatchObject({ events: 25, groups: [{ group: 'journeys', generation: null, gap: 25 }, { group: 'persons', generation: null, gap: 25 }] });
    expect(status.workspaces).toEqual([{ id: 'default', name: 'default', keys: 1, recorded: 23, duplicates: 0, reusedIds: 0, rejected: { notJson: 1 } }]);
    expect(status.disk.events).toBeGreaterThan(0);
    const human = world();
    await statusVerb(asked('status', ['--data', data]), human);
    expect(human.out()).toMatch(/25 events in 9 streams/);
    expect(human.out()).toMatch(/journeys +none +0 +25/);
  });

  test('status tells what it knows when the views are away, or another store\'s, and why the rest is not known', async () => {
    const { data } = await filled();
    await folded(data);
    const told = async (argv: readonly string[]): Promise<Status> => {
      const io = world();
      expect(await statusVerb(asked('status', [...argv, '--json']), io)).toBe(1);
      const human = world();
      await statusVerb(asked('status', argv), human);
      expect(human.out()).toMatch(/25 events in 9 streams/);
      expect(human.out()).toMatch(/\nviews: .+ \(\w+\)\n/);
      return JSON.parse(io.out()) as Status;
    };
    const away = await told(['--data', data, '--views', 'redis://127.0.0.1:1/0']);
    expect(away).toMatchObject({ events: 25, groups: [], viewsTrouble: expect.stringMatching(/^Redis at 127\.0\.0\.1:1 cannot be reached: is it running\? \(storeUnavailable\)$/), workspaces: [{ id: 'default', keys: 1, recorded: null, rejected: null }] });
    const { data: other } = await filled();
    rmSync(join(data, 'views'), { recursive: true });
    await folded(other);
    cpSync(join(other, 'views'), join(data, 'views'), { recursive: true });
    expect((await told(['--data', data])).viewsTrouble).toMatch(/were folded from event store .*, but this is .*\(foreignStore\)/);
    const traced = world();
    expect(await traceVerb(asked('trace', ['--data', data, '--identity', 'x', '--id', 'y']), traced)).toBe(1);
    expect(traced.err()).toMatch(/foreignStore/);
  });

  test('status, trace and keys of a folder without events end with 1 and make nothing', async () => {
    const data = join(newFolder(), 'typo');
    const io = world();
    expect(await statusVerb(asked('status', ['--data', data]), io)).toBe(1);
    expect(await traceVerb(asked('trace', ['--data', data, '--identity', 'x', '--id', 'y']), io)).toBe(1);
    expect(await keysVerb(asked('keys', ['create', '--data', data]), io)).toBe(1);
    expect(io.err().match(/holds no events/g)).toHaveLength(3);
    expect(existsSync(data)).toBe(false);
  });

  test('trace finds an event by any spelling of its identity, with its facts and its journey', async () => {
    const { data } = await filled();
    await folded(data);

    const io = world();
    expect(await traceVerb(asked('trace', ['--data', data, '--identity', '15550100100', '--id', 'call-1', '--json']), io)).toBe(0);
    expect(json(io.out())).toMatchObject({ result: 'recorded', found: [{ type: 'task:new', vocabulary: 'wxcc', identityType: 'phone', revision: 0, journeys: [expect.stringMatching(/^[0-9a-f]{32}$/)], reason: null }], searched: 1 });
    const human = world();
    await traceVerb(asked('trace', ['--data', data, '--identity', '+1 555 010 0100', '--identity-type', 'Phone', '--id', 'call-1']), human);
    expect(human.out()).toMatch(/^recorded as [0-9a-f-]{36}\n/);
    expect(human.out()).toMatch(/journeys {2}[0-9a-f]{32}\n/);
    expect(human.out()).toMatch(/started {2}wxcc:t-call-1/);

    const behind = world();
    await statusVerb(asked('status', ['--data', data, '--json']), behind);
    expect((JSON.parse(behind.out()) as Status).groups[0]).toMatchObject({ generation: 1, gap: 0, lag: 0, digest: expect.stringMatching(/^[0-9a-f]{32}$/), shards: [{ shard: 0, gap: 0, holder: null }] });
  });

  test('trace looks for an anonymous value wherever it may stand, and says what is not there', async () => {
    const { data } = await filled();
    const io = world();
    expect(await traceVerb(asked('trace', ['--data', data, '--identity', 'Anonymous', '--identity-type', 'email', '--id', 'withheld', '--json']), io)).toBe(0);
    const missing = world();
    expect(await traceVerb(asked('trace', ['--data', data, '--identity', 'c0@example.com', '--id', 'never']), missing)).toBe(1);
    expect(missing.out()).toMatch(/not recorded: none of the 4 events/);
    expect(missing.out()).toContain('throughline dead-letters list');
  });

  test('workspaces and keys are made, listed and revoked beside whoever serves', async () => {
    const { data } = await filled();
    const held = holdFolder(data);
    const io = world();
    expect(await workspacesVerb(asked('workspaces', ['create', 'bank', '--name', 'The bank', '--data', data, '--json'], {}), io)).toBe(0);
    expect(json(io.out())).toMatchObject({ workspace: 'bank', key: expect.stringMatching(/^tl_/) });
    const twice = world();
    expect(await workspacesVerb(asked('workspaces', ['create', 'bank', '--data', data], {}), twice)).toBe(1);
    expect(twice.err()).toMatch(/workspaceExists/);
    const made = world();
    expect(await keysVerb(asked('keys', ['create', '--workspace', 'bank', '--label', 'ivr', '--data', data, '--json'], {}), made)).toBe(0);
    const { keyId } = json(made.out());
    const limited = world();
    expect(await keysVerb(asked('keys', ['limit', String(keyId), '--rate-limit', '100/1m', '--workspace', 'bank', '--data', data, '--json'], {}), limited)).toBe(0);
    expect(json(limited.out())).toEqual({ workspace: 'bank', keyId, rateLimit: '100/60s' });
    expect(await keysVerb(asked('keys', ['limit', 'nosuchkey', '--rate-limit', 'off', '--workspace', 'bank', '--data', data], {}), world())).toBe(1);
    expect(await keysVerb(asked('keys', ['revoke', String(keyId), '--workspace', 'bank', '--data', data], {}), world())).toBe(0);
    expect(await keysVerb(asked('keys', ['limit', String(keyId), '--rate-limit', 'off', '--workspace', 'bank', '--data', data], {}), world())).toBe(1);
    const again = world();
    expect(await keysVerb(asked('keys', ['revoke', String(keyId), '--workspace', 'bank', '--data', data], {}), again)).toBe(1);
    expect(again.err()).toMatch(/keyRevoked/);
    const listed = world();
    expect(await keysVerb(asked('keys', ['list', '--workspace', 'bank', '--data', data, '--json'], {}), listed)).toBe(0);
    expect(JSON.parse(listed.out())).toMatchObject([{ label: 'first', revokedAt: null, rateLimit: null }, { keyId, label: 'ivr', revokedAt: expect.any(String), rateLimit: '100/60s' }]);
    expect(await keysVerb(asked('keys', ['list', '--workspace', 'nobody', '--data', data], {}), world())).toBe(1);
    const all = world();
    expect(await workspacesVerb(asked('workspaces', ['list', '--data', data], {}), all)).toBe(0);
    expect(all.out()).toMatch(/bank +The bank +1 /);
    held.release();
  });

  test('keys are made with a rate limit of their own or none, and the list says which', async () => {
    const { data } = await filled();
    const where = ['--workspace', 'bank', '--data', data];
    expect(await workspacesVerb(asked('workspaces', ['create', 'bank', '--rate-limit', 'off', '--data', data], {}), world())).toBe(0);
    expect(await keysVerb(asked('keys', ['create', '--label', 'wallboard', '--rate-limit', '100/1m', ...where], {}), world())).toBe(0);
    expect(await keysVerb(asked('keys', ['create', '--label', 'ivr', ...where], { THROUGHLINE_RATE_LIMIT: 'off' }), world())).toBe(0);
    const listed = world();
    expect(await keysVerb(asked('keys', ['list', '--json', ...where], {}), listed)).toBe(0);
    expect(JSON.parse(listed.out())).toMatchObject([{ label: 'first', rateLimit: 'off' }, { label: 'wallboard', rateLimit: '100/60s' }, { label: 'ivr', rateLimit: null }]);
    const human = world();
    await keysVerb(asked('keys', ['list', ...where], {}), human);
    expect(human.out()).toMatch(/^id +label +rate limit +created/);
    expect(human.out()).toMatch(/ wallboard +100\/60s +\d{4}-/);
    expect(human.out()).toMatch(/ ivr +\d{4}-/);
  });

  test('a workspace is told its PBX names and tenant ids beside whoever serves, each list replaced by itself', async () => {
    const { data } = await filled();
    const held = holdFolder(data);
    const set = async (...args: string[]): Promise<{ code: number; io: World }> => {
      const io = world();
      return { code: await workspacesVerb(asked('workspaces', ['set', ...args, '--data', data], {}), io), io };
    };
    const first = await set('default', '--pbx-names', 'north, south', '--tenant-ids', '["t,1"]', '--json');
    expect([first.code, json(first.io.out())]).toEqual([0, { workspace: 'default', pbxNames: ['north', 'south'], tenantIds: ['t,1'] }]);
    const second = await set('default', '--pbx-names', '');
    expect([second.code, second.io.out()]).toEqual([0, expect.stringMatching(/^Set for workspace default, beside what its events name: PBX names none; tenant ids t,1\. /)]);
    const listed = world();
    expect(await workspacesVerb(asked('workspaces', ['list', '--data', data, '--json'], {}), listed)).toBe(0);
    expect(JSON.parse(listed.out())).toMatchObject([{ id: 'default', pbxNames: [], tenantIds: ['t,1'] }]);
    const nothing = await set('default');
    expect([nothing.code, nothing.io.err()]).toEqual([1, expect.stringMatching(/give --pbx-names or --tenant-ids.*badConfiguration/)]);
    const unknown = await set('nobody', '--pbx-names', 'north');
    expect([unknown.code, unknown.io.err()]).toEqual([1, expect.stringMatching(/no workspace of this id \(noWorkspace\)/)]);
    held.release();
    const typo = join(newFolder(), 'typo');
    expect(await workspacesVerb(asked('workspaces', ['set', 'default', '--pbx-names', 'north', '--data', typo], {}), world())).toBe(1);
    expect(existsSync(typo)).toBe(false);
  });
});

describe('export, and the way back', () => {
  const odd = Buffer.from([0, 255, 128, 10, 34]);
  async function two(): Promise<{ data: string; file: string }> {
    const { data } = await filled();
    expect(await workspacesVerb(asked('workspaces', ['create', 'bank', '--data', data], {}), world())).toBe(0);
    const more = join(newFolder(), 'bank.ndjson');
    writeFileSync(more, [line('binary', 'bea@example.com', { data: undefined, data_base64: odd.toString('base64'), datacontenttype: 'application/octet-stream' }), ...lines(3)].join('\n'));
    expect(await importVerb(asked('import', [more, '--data', data, '--workspace', 'bank'], {}), world())).toBe(0);
    return { data, file: join(newFolder(), 'log.ndjson') };
  }
  const keyOf = (data: string): Record<string, string> => ({ THROUGHLINE_MASTER_KEY: readFileSync(join(data, 'master.key'), 'utf8').trim() });
  const exported = async (data: string, file: string, ...more: string[]): Promise<World> => {
    const io = world();
    expect(await exportVerb(asked('export', [file, '--data', data, ...more], {}), io)).toBe(0);
    return io;
  };
  async function records(place: EventsPlace): Promise<readonly unknown[]> {
    const log = await openLog(place, 'read', world());
    const found: unknown[] = [];
    const end = new AbortController();
    if ((await log.events.head()) === null) end.abort();
    for await (const { events, caughtUp } of log.events.subscribe({ after: null, prefixes: [], maxBatch: 100, signal: end.signal })) {
      for (const { stream, revision, id, type, metadata, data } of events) found.push([stream, revision, id, type, Buffer.from(metadata).toString(), Buffer.from(data).toString('hex')]);
      if (caughtUp) end.abort();
    }
    await log.close();
    return found.sort((one, other) => (JSON.stringify(one) < JSON.stringify(other) ? -1 : 1));
  }
  const sqlite = (folder: string): EventsPlace => ({ kind: 'sqlite', folder });

  test('G3: an empty folder that takes a log in holds the same events, byte for byte, and folds the same digests; a second time nothing is new', async () => {
    const { data, file } = await two();
    const io = await exported(data, file);
    expect(io.out()).toContain(': 31 events in ');
    expect(statSync(file).mode & 0o777).toBe(0o600);
    const [first, second] = readFileSync(file, 'utf8').split('\n').map((text) => (text === '' ? null : json(text)));
    expect([first?.['stream'], second?.['stream']]).toEqual(['workspace-default', 'workspace-default']);
    const copy = join(newFolder(), 'copy');
    const taken = world();
    expect(await importVerb(asked('import', [file, '--data', copy, '--json'], keyOf(data)), taken)).toBe(0);
    expect(json(taken.out())).toMatchObject({ recorded: 31, duplicate: 0, rejected: 0, complete: true });
    expect(await records(sqlite(copy))).toEqual(await records(sqlite(data)));
    const masterKey = Buffer.from(keyOf(data)['THROUGHLINE_MASTER_KEY'] ?? '', 'hex');
    expect(await folded(copy, masterKey)).toEqual(await folded(data));
    const again = world();
    expect(await importVerb(asked('import', [file, '--data', copy, '--json'], keyOf(data)), again)).toBe(0);
    expect(json(again.out())).toMatchObject({ recorded: 0, duplicate: 31, complete: true });
    // Whoever has gone on meanwhile takes only what is new.
    const more = join(newFolder(), 'more.ndjson');
    writeFileSync(more, line('later', 'c1@example.com'));
    await importVerb(asked('import', [more, '--data', data], {}), world());
    await exported(data, file);
    const rest = world();
    expect(await importVerb(asked('import', [file, '--data', copy, '--json'], keyOf(data)), rest)).toBe(0);
    expect(json(rest.out())).toMatchObject({ recorded: 1, duplicate: 31 });
    expect(await records(sqlite(copy))).toEqual(await records(sqlite(data)));
  });

  test('another backend takes it in as well, and gives it back the same', async () => {
    const { data, file } = await two();
    await exported(data, file);
    const double = await startEventStoreDouble();
    try {
      const url = double.url;
      const taken = world();
      expect(await importVerb(asked('import', [file, '--events', url, '--data', newFolder(), '--json'], keyOf(data)), taken)).toBe(0);
      expect(json(taken.out())).toMatchObject({ recorded: 31, duplicate: 0, complete: true });
      const back = join(newFolder(), 'back.ndjson');
      expect(await exportVerb(asked('export', [back, '--events', url], {}), world())).toBe(0);
      expect(readFileSync(back, 'utf8').split('\n').sort()).toEqual(readFileSync(file, 'utf8').split('\n').sort());
    } finally {
      await double.stop();
    }
  });

  test('G8: the log of one workspace holds nothing of another, and one that is not there is said', async () => {
    const { data, file } = await two();
    await exported(data, file, '--workspace', 'bank');
    const streams = readFileSync(file, 'utf8').trim().split('\n').map((text) => String(json(text)['stream']));
    expect(streams[0]).toBe('workspace-bank');
    expect(streams.every((stream) => stream === 'workspace-bank' || stream.startsWith('identity.bank-'))).toBe(true);
    expect(streams.filter((stream) => stream.startsWith('identity.'))).toHaveLength(4);
    const io = world();
    expect(await exportVerb(asked('export', [`${file}.none`, '--data', data, '--workspace', 'nobody'], {}), io)).toBe(1);
    expect(io.err()).toMatch(/there is no workspace nobody/);
    expect(existsSync(`${file}.none`) || existsSync(`${file}.none.part`)).toBe(false);
  });

  test('stdout takes it too, and stdin gives it; what is told goes to stderr then', async () => {
    const { data } = await filled();
    const io = world();
    expect(await exportVerb(asked('export', ['-', '--data', data], {}), io)).toBe(0);
    expect(io.out().trim().split('\n')).toHaveLength(25);
    expect(io.err()).toMatch(/^stdout: 25 events/);
    const copy = join(newFolder(), 'copy');
    const taken = world({ stdin: from(io.out(), 100) });
    expect(await importVerb(asked('import', ['-', '--data', copy, '--json'], keyOf(data)), taken)).toBe(0);
    expect(json(taken.out())).toMatchObject({ recorded: 25 });
  });

  test('without the master key of where it came from it is refused before anything is written', async () => {
    const { data, file } = await two();
    await exported(data, file);
    const none = world();
    expect(await importVerb(asked('import', [file, '--data', join(newFolder(), 'copy')], {}), none)).toBe(1);
    expect(none.err()).toMatch(/has no master.key.*THROUGHLINE_MASTER_KEY.*\(badMasterKey\)/s);
    const copy = join(newFolder(), 'copy');
    const other = world();
    expect(await importVerb(asked('import', [file, '--data', copy], { THROUGHLINE_MASTER_KEY: 'ab'.repeat(32) }), other)).toBe(1);
    expect(other.err()).toMatch(/does not open the secret of workspace default.*\(badMasterKey\)/);
    expect(await records(sqlite(copy))).toEqual([]);
  });

  test('a workspace of which nothing can be read is refused as one whose secret does not open', async () => {
    const { data, file } = await two();
    await exported(data, file);
    writeFileSync(file, readFileSync(file, 'utf8').split('\n').map((text, i) => (i === 0 ? JSON.stringify({ ...json(text), data: 'not JSON' }) : text)).join('\n'));
    const io = world();
    expect(await importVerb(asked('import', [file, '--data', join(newFolder(), 'copy')], keyOf(data)), io)).toBe(1);
    expect(io.err()).toMatch(/does not open the secret of workspace default.*\(badMasterKey\)/);
  });

  test('a store with a workspace of that name of its own is left as it is', async () => {
    const { data, file } = await two();
    await exported(data, file);
    const { data: own } = await filled();
    const before = await records(sqlite(own));
    const io = world();
    expect(await importVerb(asked('import', [file, '--data', own], keyOf(data)), io)).toBe(1);
    expect(io.err()).toMatch(/has a workspace default of its own, with another secret/);
    expect(await records(sqlite(own))).toEqual(before);
  });

  test.each<[string, (all: string[]) => string[], RegExp]>([
    ['a line that is cut', (all) => [...all.slice(0, -1), all.at(-1)?.slice(0, 40) ?? ''], /line 25 is no event as export writes it/],
    ['a stream of nobody', (all) => [...all, JSON.stringify({ ...json(all.at(-1) ?? ''), stream: 'elsewhere' })], /line 26 names a stream of no workspace/],
    ['two kinds of data', (all) => [...all, JSON.stringify({ ...json(all.at(-1) ?? ''), data_base64: 'AA==' })], /line 26 has not one of data and data_base64/],
    ['the workspace left out', (all) => all.filter((text) => !text.includes('"workspace-default"')), /stream of workspace default is missing/],
    ['an event in the middle left out', (all) => all.filter((text) => !(text.includes('"revision":1,') && text.includes('identity.'))), /event 1 is missing from the file/],
  ])('%s is told, with its place', async (_, spoil, expected) => {
    const { data } = await filled();
    const io = world();
    await exportVerb(asked('export', ['-', '--data', data], {}), io);
    const file = join(newFolder(), 'log.ndjson');
    writeFileSync(file, `${spoil(io.out().trim().split('\n')).join('\n')}\n`);
    const taken = world();
    expect(await importVerb(asked('import', [file, '--data', join(newFolder(), 'copy')], keyOf(data)), taken)).toBe(1);
    expect(taken.err()).toMatch(expected);
    expect(taken.err()).toMatch(/\(fileUnreadable\)/);
  });

  test('a server does not take it: it would record it at another time', async () => {
    const { data } = await filled();
    const io = world();
    await exportVerb(asked('export', ['-', '--data', data], {}), io);
    const { fetch, seen } = server();
    const sent = world({ fetch, stdin: from(io.out()) });
    expect(await importVerb(asked('import', ['-', '--to', 'http://shop'], { THROUGHLINE_API_KEY: KEY }), sent)).toBe(1);
    expect(sent.err()).toMatch(/--data or --events \(badConfiguration\)/);
    expect(seen.calls).toBe(0);
  });
});

describe('backup, and putting it back', () => {
  const logOf = async (data: string): Promise<readonly string[]> => {
    const log = await openLog({ kind: 'sqlite', folder: data }, 'read', world());
    const found: string[] = [];
    const end = new AbortController();
    for await (const { events, caughtUp } of log.events.subscribe({ after: null, prefixes: [], maxBatch: 1000, signal: end.signal })) {
      found.push(...events.map(({ position, id, stream, revision }) => `${position} ${id} ${stream} ${revision}`));
      if (caughtUp) end.abort();
    }
    await log.close();
    return found;
  };

  test('G1: taken while events keep coming, it is the log as it stood at one moment', async () => {
    const { data } = await filled();
    await folded(data);
    const place = { kind: 'sqlite', folder: data } as const;
    const log = await openLog(place, 'beside', world());
    const stop = new AbortController();
    let appended = 0;
    const appending = (async () => {
      for (; !stop.signal.aborted; appended += 1) {
        const stream = `identity.default-${'0123456789abcdef'.repeat(2)}`;
        const like = (await log.events.readStream('workspace-default', { direction: 'forward', limit: 1 }))[0];
        if (like === undefined) throw new Error('no workspace');
        await log.events.append(stream, appended === 0 ? 'no_stream' : appended - 1, [{ id: randomUUID(), type: 'later', metadata: like.metadata, data: randomBytes(2000) }]);
      }
    })();
    await until('some events have come', () => appended > 20);
    const directory = join(newFolder(), 'copy');
    const io = world();
    expect(await backupVerb(asked('backup', [directory, '--data', data, '--json'], {}), io)).toBe(0);
    const before = appended;
    await until('more events have come', () => appended > before);
    stop.abort();
    await appending;
    await log.close();
    expect(statSync(directory).mode & 0o777).toBe(0o700);
    expect(readdirSync(directory).sort()).toEqual(['backup.json', 'events.sqlite', 'master.key', 'views']);
    const back = join(newFolder(), 'back');
    const told = world();
    expect(await restoreVerb(asked('restore', [directory, '--data', back], {}), told)).toBe(0);
    expect(told.out()).toMatch(/5 files, .* is as it was at 2026-03-02T.*: throughline serve --data /);
    const [restored, original] = [await logOf(back), await logOf(data)];
    expect(restored.length).toBeGreaterThan(25 + 20);
    expect(restored).toEqual(original.slice(0, restored.length));
  });

  test('G3: what was folded is there again, and what came later is folded from the log', async () => {
    const { data, file } = await filled();
    const digests = await folded(data);
    const directory = join(newFolder(), 'copy');
    expect(await backupVerb(asked('backup', [directory, '--data', data], {}), world())).toBe(0);
    const back = join(newFolder(), 'back');
    expect(await restoreVerb(asked('restore', [directory, '--data', back], {}), world())).toBe(0);
    const status = world();
    await statusVerb(asked('status', ['--data', back, '--json']), status);
    expect((JSON.parse(status.out()) as Status).groups.map(({ gap, digest }) => [gap, digest])).toEqual(digests.map((digest) => [0, digest]));
    const again = world();
    expect(await importVerb(asked('import', [file, '--data', back, '--json'], {}), again)).toBe(0);
    expect(json(again.out())).toMatchObject({ recorded: 0, duplicate: 23 });
    expect(await folded(back)).toEqual(digests);
  });

  test.each([
    ['the file of a view', 'views/journeys-1-0.sqlite', ['backup.json', 'events.sqlite', 'master.key', 'views'], /journeys-1-0\.sqlite is damaged .*folded again from the log \(storeCorrupt\)\. It was left out/],
    ['the file that says which view is live', 'views/control.sqlite', ['backup.json', 'events.sqlite', 'master.key'], /control\.sqlite is damaged .*\(storeCorrupt\)\. It was left out/],
  ].flatMap(([what, ...more]) => [20_000, 0].map((length) => [`${String(what)}, of ${String(length)} bytes,`, length, ...more] as [string, number, string, string[], RegExp])))('G3: %s that is damaged is left out and named; what is put back folds it anew from the events', async (_what, length, name, expected, warning) => {
    const { data } = await filled();
    const digests = await folded(data);
    for (const beside of ['-wal', '-shm']) rmSync(join(data, `${name}${beside}`), { force: true });
    truncateSync(join(data, name), length);
    const directory = join(newFolder(), 'copy');
    const io = world();
    expect(await backupVerb(asked('backup', [directory, '--data', data], {}), io)).toBe(0);
    expect(io.err()).toMatch(warning);
    expect(readdirSync(directory).sort()).toEqual(expected);
    expect(existsSync(join(directory, name))).toBe(false);
    const back = join(newFolder(), 'back');
    expect(await restoreVerb(asked('restore', [directory, '--data', back], {}), world())).toBe(0);
    expect(await folded(back)).toEqual(digests);
  });

  const inTheMiddle = (file: string): void => {
    const bytes = readFileSync(file);
    // A page of their names, or of what finds them: the last is one, since all is small here.
    writeFileSync(file, bytes.fill(0x5a, bytes.length - 8192));
  };
  test.each<[string, (file: string) => void]>([
    ['cut short', (file) => truncateSync(file, 20_000)], ['empty', (file) => truncateSync(file, 0)], ['damaged inside', inTheMiddle],
  ])('events that are %s are named themselves, with what to do, and no half of a backup is kept', async (_how, damage) => {
    const { data } = await filled();
    await folded(data);
    damage(join(data, 'events.sqlite'));
    const directory = join(newFolder(), 'copy');
    const io = world();
    expect(await backupVerb(asked('backup', [directory, '--data', data], {}), io)).toBe(1);
    expect(io.err()).toContain(join(data, 'events.sqlite'));
    expect(io.err()).toMatch(/events\.sqlite is damaged: .*: put its folder back from a backup \(throughline restore\) \(storeCorrupt\)/);
    expect(io.err()).not.toContain('.part');
    expect(existsSync(directory) || existsSync(`${directory}.part`)).toBe(false);
  });

  test('nothing is written over, and what is no backup, or not the one that was made, is refused', async () => {
    const { data } = await filled();
    const directory = join(newFolder(), 'copy');
    const refused = async (verb: 'backup' | 'restore', argv: readonly string[]): Promise<string> => {
      const io = world();
      expect(await (verb === 'backup' ? backupVerb(asked('backup', argv, {}), io) : restoreVerb(asked('restore', argv, {}), io))).toBe(1);
      return io.err();
    };
    expect(await refused('backup', [directory, '--data', join(newFolder(), 'none')])).toMatch(/holds no events.*\(storeUnavailable\)/);
    expect(await backupVerb(asked('backup', [directory, '--data', data], {}), world())).toBe(0);
    expect(await refused('backup', [directory, '--data', data])).toMatch(/is there already and is not empty/);
    expect(await refused('restore', [directory, '--data', data])).toMatch(/is there already and is not empty/);
    expect(await refused('restore', [data, '--data', join(newFolder(), 'back')])).toMatch(/holds no backup: there is no backup\.json/);
    const manifest = readFileSync(join(directory, 'backup.json'), 'utf8');
    writeFileSync(join(directory, 'backup.json'), manifest.replace('events.sqlite', '../../events.sqlite'));
    expect(await refused('restore', [directory, '--data', join(newFolder(), 'back')])).toMatch(/names a file that no backup holds/);
    writeFileSync(join(directory, 'backup.json'), manifest.slice(0, 50));
    expect(await refused('restore', [directory, '--data', join(newFolder(), 'back')])).toMatch(/is not what backup writes/);
    writeFileSync(join(directory, 'backup.json'), manifest);
    const events = join(directory, 'events.sqlite');
    writeFileSync(events, readFileSync(events).fill(7, 9000, 9001));
    const back = join(newFolder(), 'back');
    expect(await refused('restore', [directory, '--data', back])).toMatch(/events\.sqlite is not what was copied into the backup.*\(storeCorrupt\)/);
    expect(existsSync(back) || existsSync(`${back}.part`)).toBe(false);
  });
});

describe('verify', () => {
  const verified = async (data: string, ...more: readonly string[]): Promise<{ readonly code: number; readonly out: string; readonly err: string }> => {
    const io = world();
    return { code: await verifyVerb(asked('verify', ['--data', data, ...more], {}), io), out: io.out(), err: io.err() };
  };
  const inView = (data: string, group: string, sql: string): void => {
    const db = new DatabaseSync(join(data, `views/${group}-1-0.sqlite`));
    db.exec(sql);
    db.close();
  };

  test('looks at as many journeys and as many persons as were asked for, and says where there are fewer', async () => {
    const { data } = await filled();
    await folded(data);
    const some = await verified(data, '--count', '4', '--json');
    expect([some.code, json(some.out)]).toEqual([0, expect.objectContaining({ checked: 8, journeys: { asked: 4, drawn: 4, checked: 4 }, persons: { asked: 4, drawn: 4, checked: 4 }, differences: [] })]);
    const all = await verified(data);
    const [, journeysThere, personsThere] = /^(\d+) journeys and (\d+) persons folded anew in \S+ s: each as the log says\./.exec(all.out) ?? [];
    expect([all.code, Number(journeysThere) > 20, Number(personsThere) > 5]).toEqual([0, true, true]);
    expect(all.out).toContain(`There are only ${journeysThere ?? ''} journeys; 100 were asked for.\nThere are only ${personsThere ?? ''} persons; 100 were asked for.\n`);
    expect((await verified(data, '--count', '1')).out).toMatch(/^1 journeys and 1 persons/);
  });

  test('says so where nothing is folded of what the log holds, and compares nothing with nothing', async () => {
    const { data } = await filled();
    await folded(data);
    rmSync(join(data, 'views/journeys-1-0.sqlite'));
    for (const all of [[], ['--all']]) {
      const verdict = await verified(data, ...all);
      expect([verdict.code, verdict.err]).toEqual([1, expect.stringMatching(/generation 1 of journeys holds nothing, and the log holds events.*\(viewMissing\)/)]);
    }
  });

  test('finds its way among many documents, whatever the index lacks', async () => {
    const { data } = await filled();
    await folded(data);
    inView(data, 'journeys', 'DELETE FROM records');
    for (const group of ['journeys', 'persons']) inView(data, group, "WITH RECURSIVE n (value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < 20000) INSERT INTO documents (key, value) SELECT 'default/zz/' || value, '{}' FROM n; UPDATE state SET documents = documents + 20000");
    for (const count of ['2', '20']) expect(await verified(data, '--count', count, '--json').then(({ code, out }) => [code, json(out)['journeys']])).toEqual([0, { asked: Number(count), drawn: Number(count), checked: Number(count) }]);
  });

  test('with nothing to look at it ends with 1 where the log holds events, and with 0 where it holds none', async () => {
    const { data } = await filled();
    await folded(data);
    for (const group of ['journeys', 'persons']) inView(data, group, 'DELETE FROM documents');
    const nothing = await verified(data);
    expect([nothing.code, nothing.err]).toEqual([1, expect.stringMatching(/nothing was looked at: the log holds events, and what answers holds no journey and no person; verify --all tells/)]);
    expect(await workspacesVerb(asked('workspaces', ['create', 'quiet', '--data', data], {}), world())).toBe(0);
    expect((await verified(data, '--workspace', 'quiet')).code).toBe(0);
  });
});

describe('replay --forget', () => {
  test('drops what is kept for a rollback and what was left, and spares what an upgrade builds while somebody may fold it', async () => {
    const { data } = await filled();
    await folded(data);
    const views = await openSqliteViewStore({ folder: data });
    const [first] = await views.generations('journeys');
    if (first === undefined) throw new Error('nothing folded');
    const of = (version: string) => views.createGeneration({ ...first, version });
    const [second, left, next] = [await of(first.version), await of(first.version), await of('next')];
    await views.promote('journeys', first.id, second.id);
    const forget = async (...more: readonly string[]): Promise<string> => {
      const io = world();
      expect(await replayVerb(asked('replay', ['journeys', '--forget', '--data', data, ...more], {}), io)).toBe(0);
      return io.out();
    };
    const held = holdFolder(data);
    expect(json(await forget('--json'))).toEqual({ group: 'journeys', dropped: [first.id, left.id], spared: [next.id] });
    expect(await forget()).toBe(`journeys: generation ${String(next.id)} is being built for an upgrade and was spared; to drop it, first end every serve and project on these views.\n`);
    held.release();
    await views.lease('projector/shard/0', 'another', 60_000);
    expect(json(await forget('--json'))).toMatchObject({ dropped: [], spared: [next.id] });
    await views.release('projector/shard/0', 'another');
    expect(await forget()).toBe(`journeys: dropped generation ${String(next.id)}.\n`);
    expect(await forget()).toBe('journeys: there is no generation but the live one.\n');
    expect((await views.generations('journeys')).map(({ id }) => id)).toEqual([second.id]);
    await views.close();
  });
});

describe('doctor', () => {
  type Found = { level: string; where: string; what: string; found: string; advice: string | null }[];
  const look = async (argv: readonly string[], environment: Record<string, string> = {}): Promise<{ code: number; found: Found }> => {
    const io = world();
    const code = await doctorVerb(asked('doctor', [...argv, '--json'], environment), io);
    return { code, found: JSON.parse(io.out()) as Found };
  };
  async function started(): Promise<string> {
    const data = newFolder();
    chmodSync(data, 0o700);
    expect(await workspacesVerb(asked('workspaces', ['create', 'shop', '--data', data], {}), world())).toBe(0);
    await (await openSqliteViewStore({ folder: data })).close();
    return data;
  }

  test('finds nothing wrong with a folder before its first start, and says that it is before it', async () => {
    const { code, found } = await look(['--data', join(newFolder(), 'none')]);
    expect(code).toBe(0);
    expect(found.map(({ level, what }) => [level, what])).toEqual([['warn', 'folder'], ['warn', 'events']]);
  });

  test('makes no views where there are none', async () => {
    const data = newFolder();
    await workspacesVerb(asked('workspaces', ['create', 'shop', '--data', data], {}), world());
    expect((await look(['--data', data])).found.find(({ what }) => what === 'views')).toMatchObject({ level: 'warn', found: 'none yet' });
    expect(existsSync(join(data, 'views'))).toBe(false);
  });

  test('looks at who may read a folder, its room, its files, its holder, its keys and its views', async () => {
    const data = await started();
    const held = holdFolder(data);
    const { code, found } = await look(['--data', data]);
    held.release();
    expect(code).toBe(0);
    const level = Object.fromEntries(found.map((one) => [one.what, one.level]));
    expect(level).toMatchObject({ permissions: 'ok', 'master key file': 'ok', 'events.sqlite': 'ok', 'views/control.sqlite': 'ok', 'held by': 'ok', 'event store': 'ok', workspaces: 'ok', 'master key': 'ok', 'views of journeys': 'warn', clock: 'ok' });
    expect(found.find(({ what }) => what === 'held by')?.found).toBe(`process ${String(process.pid)}, a serve or an import`);
    expect((await look(['--data', data])).found.find(({ what }) => what === 'held by')?.found).toMatch(/^nobody/);
  });

  test('says what is bad and what to do, and ends with 1', async () => {
    const data = await started();
    chmodSync(join(data, 'master.key'), 0o644);
    const views = await openSqliteViewStore({ folder: data });
    const made = await views.createGeneration({ group: 'journeys', version: '1', shards: 1, storeId: 'another', target: null, fields: {}, subFields: {}, ordered: [] });
    await views.promote('journeys', null, made.id);
    await views.addTallies([{ workspace: 'shop', source: 'pbx', recorded: 1, duplicates: 0, reusedIds: 0, rejected: {}, lateness: {}, lastSeen: '2999-01-01T00:00:00.000Z' }]);
    await views.close();
    const { code, found } = await look(['--data', data], { THROUGHLINE_MASTER_KEY: '00'.repeat(32) });
    expect(code).toBe(1);
    expect(found.filter(({ level }) => level === 'bad').map(({ what, advice }) => [what, advice])).toEqual([
      ['master key file', expect.stringMatching(/^chmod 600 /)], ['master key', expect.stringMatching(/with which the workspaces were made/)],
      ['views of journeys', expect.stringMatching(/their own event store/)], ['clock', expect.stringMatching(/NTP/)],
    ]);
    const human = world();
    expect(await doctorVerb(asked('doctor', ['--data', data], {}), human)).toBe(1);
    expect(human.out()).toMatch(/^BAD .*master key file +mode 644/m);
    expect(human.out()).toMatch(/^BAD the data folder .*, master key file: chmod 600/m);
  });

  test('says of a damaged file which it is, and goes on', async () => {
    const data = await started();
    writeFileSync(join(data, 'views/control.sqlite'), 'no database');
    const { code, found } = await look(['--data', data]);
    expect(code).toBe(1);
    expect(found.filter(({ level }) => level === 'bad').map(({ what }) => what)).toEqual(['views/control.sqlite', 'views']);
    expect(found.find(({ what }) => what === 'master key')?.level).toBe('ok');
    expect(found.find(({ what }) => what === 'views')?.advice).toMatch(/said of the folder and its files above/);
  });

  test('says of damaged events nothing against views that are whole', async () => {
    const { data } = await filled();
    await folded(data);
    truncateSync(join(data, 'events.sqlite'), 20_000);
    const { code, found } = await look(['--data', data]);
    expect(code).toBe(1);
    expect(found.filter(({ level }) => level === 'bad').map(({ what }) => what)).toEqual(['events.sqlite', 'events']);
    expect(found.find(({ what }) => what === 'views of journeys')?.found).toMatch(/^generation 1, folded from event store .*, which could not be compared$/);
  });
});

describe('preview', () => {
  const text = [line('a'), line('b', 'ana@example.com', { type: 'shop:odd' }), 'nonsense', line('c', '', { identity: 'ben@example.com' })].join('\n');

  test('says what each line would become, and stores nothing', async () => {
    const io = world({ stdin: from(text) });
    expect(await previewVerb(asked('preview', ['-', '--json'], {}), io)).toBe(0);
    const said = io.out().trim().split('\n').map(json);
    expect(said).toMatchObject([
      { line: 1, result: 'dryRun', id: 'a', vocabulary: 'wxcc', reason: null }, { line: 2, result: 'dryRun', vocabulary: null, facts: [], reason: { code: 'noVocabulary' } },
      { line: 3, result: 'rejected', code: 'notJson' }, { line: 4, result: 'dryRun', vocabulary: 'wxcc' },
    ]);
    const human = world({ stdin: from(text) });
    await previewVerb(asked('preview', ['-'], {}), human);
    expect(human.out()).toMatch(/line 3 {2}rejected: notJson/);
    expect(human.err()).toMatch(/4 events: \d+ facts, 1 without any, 1 rejected\. Nothing was stored\./);
  });

  test('asks a server where one is named, with the streams that the events will have', async () => {
    const { fetch, store, stream } = server();
    const io = world({ fetch, stdin: from(text) });
    expect(await previewVerb(asked('preview', ['-', '--json', '--to', 'http://there:1']), io)).toBe(0);
    expect(io.out().trim().split('\n').map(json)).toMatchObject([{ line: 1, stream }, { line: 2, stream }, { line: 3, result: 'rejected' }, { line: 4, vocabulary: 'wxcc' }]);
    expect((await store.stats()).events).toBe(0);
    const alone = world({ stdin: from(text) });
    expect(await previewVerb(asked('preview', ['-', '--to', 'http://there:1']), alone)).toBe(1);
    expect(alone.err()).toMatch(/cannot be reached: is it running\? \(serverUnreachable\)/);
  });
});

describe('the terminal', () => {
  test('a reader who has what he wanted and goes away is a quiet end', async () => {
    const file = join(newFolder(), 'events.ndjson');
    // More than a pipe holds.
    writeFileSync(file, Array.from({ length: 5_000 }, (_, i) => line(`e${i}`)).join('\n'));
    const child = spawn(process.execPath, [join(ROOT, 'services/main.ts'), 'preview', file, '--json'], { env: cleanEnvironment(), stdio: ['ignore', 'pipe', 'pipe'] });
    let err = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => { err += text; });
    child.stdout.once('data', () => child.stdout.destroy());
    await once(child, 'close');
    expect(err).toBe('');
  });

  test('what cannot be written for another reason is told', async () => {
    const out = (code: string): Io['stdout'] => ({ write: (_, done) => done?.(Object.assign(new Error(code), { code })) });
    for (const code of ['EPIPE', 'EIO']) await print(out(code), 'text');
    await expect(print(out('ENOSPC'), 'text')).rejects.toMatchObject({ code: 'ENOSPC' });
  });

  test('a table is as wide as its cells, numbers to the right', () => {
    expect(table(['name', 'count'], [['ana', '1'], ['benedict', '1,200']])).toBe('name      count\n--------  -----\nana           1\nbenedict  1,200\n');
    expect(table(['name'], [])).toBe('name\n----\n');
  });

  test('nothing of an event drives the terminal', () => {
    expect(printable('a\u001b[2Jb\nc\u202ed')).toBe('a\u00b7[2Jb\u00b7c\u00b7d');
    expect(table(['x'], [['\u001b]0;t\u0007']])).not.toContain('\u001b');
  });

  test('sizes have units', () => {
    expect([0, 1023, 1024, 1_572_864, 5 * 1024 ** 3].map(bytes)).toEqual(['0 B', '1023 B', '1.0 KiB', '1.5 MiB', '5.0 GiB']);
  });

  test('the time left leaves out how a program starts, and is even where ticks are not', () => {
    let ms = 0;
    const bar = new ProgressBar(world({ clock: { now: () => ms } }), 'replay', 1);
    bar.show(0, 0);
    ms = 6000;
    // A thousand events a second in batches of three and one seconds, after six of starting.
    const told: (readonly [number, number | null])[] = [];
    for (let i = 0; i < 20; i += 1) {
      ms += i % 2 === 0 ? 3000 : 1000;
      bar.show((i + 1) / 20, (i + 1) * 2000);
      told.push([46_000 - ms, bar.secondsLeft((i + 1) / 20)]);
    }
    expect(told.slice(0, 2).map(([, left]) => left)).toEqual([null, null]);
    expect(told.slice(5).every(([rest, left]) => left !== null && Math.abs(left * 1000 - rest) <= Math.max(rest / 5, 2000))).toBe(true);
  });

  test('with a pace the time left is told by it, unless it goes slower', () => {
    let ms = 0;
    const bar = new ProgressBar(world({ clock: { now: () => ms } }), 'replay', 1, 1000);
    bar.show(0.5, 0);
    ms = 10_000;
    bar.show(0.6, 1000);
    expect(bar.secondsLeft(0.6)).toBeCloseTo(4, 5);
    for (let i = 1; i <= 10; i += 1) {
      ms += 1000;
      bar.show(0.6 + i / 100, 1000 + i * 100);
    }
    // A hundred a second: of the 5,000 that were left at first, 3,000 are.
    expect(bar.secondsLeft(0.7)).toBeCloseTo(30, 5);
  });

  test('a progress bar is drawn on a terminal alone, and not too often', () => {
    let ms = 0;
    const io = world({ isTty: true, clock: { now: () => ms } });
    const bar = new ProgressBar(io, 'importing x', 200);
    for (ms = 0; ms < 1000; ms += 10) bar.show(ms / 10, ms);
    expect(io.err().match(/importing x/g)).toHaveLength(10);
    expect(io.err()).toMatch(/\[#{11}\.{13}\] {2}45% {2}900 events, 1,000\/s, 1 s left$/);
    // Half of the way in a second, at an even pace.
    expect(bar.secondsLeft(100)).toBeCloseTo(1, 5);
    expect(new ProgressBar(world(), 'x', 200).secondsLeft(10)).toBeNull();
    bar.clear();
    const pipe = world();
    new ProgressBar(pipe, 'importing x', 200).show(1, 1);
    expect(pipe.err()).toBe('');
  });
});
