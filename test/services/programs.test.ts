// The programs, started in this process over one data folder, a topic in memory where Kafka would be: which parts each has,
// what each says of itself, and how each ends.
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { MemoryBroker } from '../../services/adapters/memory-source.ts';
import { parseSourceUrl, parseViewsUrl, type SourcePlace, type ViewsPlace } from '../../services/backends.ts';
import { OperatingError } from '../../services/errors.ts';
import { sleep } from '../../services/lifecycle.ts';
import { createLog } from '../../services/log.ts';
import type { Io } from '../../services/ops/terminal.ts';
import type { Source } from '../../services/ports.ts';
import { type Program, type ProgramOptions, runProgram, type Seams } from '../../services/programs.ts';
import { describeOn } from '../support/local-server.ts';
import { redisPlace, startRedis } from '../support/redis-server.ts';
import { json, removeFolder, ROOT, temporaryFolder, TEST_KEY, throughline, until } from '../support/serve.ts';

const lines = readFileSync(join(ROOT, 'test/fixtures/example-day.ndjson'), 'utf8').split('\n').filter((line) => line !== '');
const HEADERS = { 'content-type': 'application/cloudevents+json' };
const DAY = { dateRange: { start: '2026-03-02T00:00:00+02:00', end: '2026-03-02T23:59:59+02:00' }, displayTimezone: 'Europe/Bucharest' };

interface Started {
  /** Null while it does not listen yet. */
  url(): string | null;
  /** Whether it said that it does what it is for. */
  hasStarted(): boolean;
  readonly said: string[];
  readonly log: string[];
  end(): Promise<number>;
  readonly code: Promise<number>;
  readyz(): Promise<{ status: number; reasons: unknown }>;
}

describe('the programs', () => {
  const folders: string[] = [];
  const running: Started[] = [];
  function newFolder(): string {
    const folder = temporaryFolder();
    folders.push(folder);
    return folder;
  }
  afterEach(async () => { for (const one of running.splice(0).reverse()) await one.end().catch(() => 1); });
  afterAll(() => { for (const folder of folders) removeFolder(folder); });

  function start(program: Program, data: string, more: Partial<ProgramOptions> = {}, seams: Seams = {}): Started {
    const place = { kind: 'sqlite', folder: data } as const;
    const ending = new AbortController();
    const said: string[] = [];
    const log: string[] = [];
    let at: string | null = null;
    let didStart = false;
    const io: Io = {
      stdout: { write: (text: string) => said.push(text) }, stderr: { write: (text: string) => said.push(text) }, stdin: (async function* none() { /* nothing */ })(), isTty: false, signal: ending.signal,
      clock: { now: () => Date.now() }, random: (size) => randomBytes(size), sleep, fetch,
    };
    const code = runProgram(program, { events: place, views: place, host: '127.0.0.1', port: 0, logLevel: 'info', apiKey: TEST_KEY, masterKey: null, ...more }, io, { log: createLog('info', (line) => log.push(line)), version: 'test', onListening: (url) => { at = url; }, onStarted: () => { didStart = true; } }, seams);
    code.catch(() => undefined);
    const started: Started = {
      url: () => at, hasStarted: () => didStart, said, log, code,
      end: () => {
        ending.abort();
        return code;
      },
      readyz: async () => {
        if (at === null) return { status: 0, reasons: [] };
        const answer = await fetch(`${at}/readyz`);
        return { status: answer.status, reasons: (await json(answer))['reasons'] };
      },
    };
    running.push(started);
    return started;
  }
  const ready = (program: Started): Promise<void> => until('it is ready', async () => (await program.readyz()).status === 200);

  function kafka(workspaces = 'default'): { place: SourcePlace; broker: MemoryBroker; seams: Seams } {
    const parsed = parseSourceUrl(`kafka://nowhere.example/calls?workspaces=${workspaces}`);
    if (parsed.kind !== 'place') throw new Error(parsed.problems.join());
    const broker = new MemoryBroker({ clock: { now: () => Date.now() }, sleep });
    broker.createTopic('calls', 3);
    broker.createTopic('calls.dead-letter', 3);
    return { place: parsed.place, broker, seams: { open: { openSource: async ({ topic, group }) => broker.source({ topic, group }), openTopic: async (_, name) => broker.topic(name), ensureTopic: async () => undefined } } };
  }
  /** A Redis on a port where nothing listens. */
  async function nobodyThere(): Promise<ViewsPlace> {
    const free = createServer().listen(0, '127.0.0.1');
    await once(free, 'listening');
    const parsed = parseViewsUrl(`redis://127.0.0.1:${String((free.address() as AddressInfo).port)}`);
    free.close();
    if (parsed.kind !== 'place') throw new Error(parsed.problems.join());
    return parsed.place;
  }
  const publish = (broker: MemoryBroker, texts: readonly string[]): Promise<void> => broker.topic('calls').write(texts.map((text) => ({ key: Buffer.from((/"identity":"([^"]*)"/.exec(text) ?? [])[1] ?? ''), value: Buffer.from(text), headers: HEADERS })));

  test('G5: after an upgrade the old generation goes on answering, marked stale, until the new one has caught up and takes its place', async () => {
    const data = newFolder();
    const first = start('serve', data);
    await ready(first);
    const published = await fetch(`${first.url() ?? ''}/events`, { method: 'POST', headers: { 'x-api-key': TEST_KEY, 'content-type': 'application/cloudevents-batch+json' }, body: `[${lines.slice(0, 40).join()}]` });
    const position = published.headers.get('throughline-position') ?? '';
    const ask = async (program: Started, headers: Record<string, string> = {}): Promise<Response> => fetch(`${program.url() ?? ''}/outcomes?from=2026-03-02T00:00:00Z&to=2026-03-03T00:00:00Z`, { headers: { 'x-api-key': TEST_KEY, ...headers } });
    await until('it is folded', async () => (await ask(first, { 'throughline-min-position': position })).status === 200);
    const answered = await (await ask(first)).text();
    await first.end();
    // As if another version had folded it.
    const control = new DatabaseSync(join(data, 'views/control.sqlite'));
    control.exec("UPDATE generations SET body = json_set(body, '$.version', 'older') WHERE name = 'journeys'");
    control.close();
    const api = start('api', data);
    await ready(api);
    const stale = await ask(api);
    expect([stale.status, stale.headers.get('throughline-stale'), await stale.text()]).toEqual([200, 'journeys', answered]);
    expect(await (await fetch(`${api.url() ?? ''}/metrics`)).text()).toContain('throughline_view_stale{group="journeys"} 1');
    start('project', data);
    const seen = new Set<number>();
    await until('the new generation answers', async () => {
      const answer = await ask(api);
      seen.add(answer.status);
      return answer.headers.get('throughline-stale') === null;
    });
    expect([...seen]).toEqual([200]);
    expect(await (await ask(api)).text()).toBe(answered);
    const views = new DatabaseSync(join(data, 'views/control.sqlite'), { readOnly: true });
    expect(views.prepare("SELECT live, previous FROM groups WHERE name = 'journeys'").get()).toEqual({ live: 2, previous: 1 });
    views.close();
  });

  test('while an upgrade builds a generation, gap and lag are those of the one that answers', async () => {
    const data = newFolder();
    const first = start('serve', data);
    await ready(first);
    await fetch(`${first.url() ?? ''}/events`, { method: 'POST', headers: { 'x-api-key': TEST_KEY, 'content-type': 'application/cloudevents-batch+json' }, body: `[${lines.slice(0, 10).join()}]` });
    const scraped = async (program: Started): Promise<string> => (await fetch(`${program.url() ?? ''}/metrics`)).text();
    await until('it is folded', async () => (await scraped(first)).includes('throughline_group_gap{group="journeys"} 0'));
    await first.end();
    // Another version's, three events behind; beside it one of ours that stands at the head and never gets to where it would be promoted.
    const control = new DatabaseSync(join(data, 'views/control.sqlite'));
    control.exec(`INSERT INTO generations SELECT name, 2, json_set(body, '$.id', 2, '$.target', '99999999999999999999') FROM generations WHERE name = 'journeys';
      UPDATE groups SET made = 2 WHERE name = 'journeys';
      UPDATE generations SET body = json_set(body, '$.version', 'older') WHERE name = 'journeys' AND id = 1`);
    control.close();
    const live = new DatabaseSync(join(data, 'views/journeys-1-0.sqlite'));
    live.exec("UPDATE state SET position = printf('%020d', position - 3)");
    live.close();
    const project = start('project', data);
    await ready(project);
    await until('it builds', async () => (await scraped(project)).includes('throughline_group_generation{group="journeys"} 2'));
    await until('the gap is that of the one that answers', async () => /throughline_group_gap\{group="journeys"\} 3$/m.test(await scraped(project)));
    expect(/throughline_group_lag_seconds\{group="journeys"\} (\S+)/.exec(await scraped(project))?.[1]).not.toBe('0');
    expect(await scraped(project)).toContain('throughline_group_gap{group="persons"} 0');
  });

  test('ingest, project and api, each of its own, do over one folder what serve does', async () => {
    const data = newFolder();
    const { place, broker, seams } = kafka();
    const api = start('api', data);
    await ready(api);
    const project = start('project', data);
    const ingest = start('ingest', data, { source: place }, seams);
    await publish(broker, [...lines, '{"no": "event"']);
    const search = (): Promise<Response> => fetch(`${api.url() ?? ''}/cidp/journey/api/v1/journeys/search`, { method: 'POST', headers: { 'x-api-key': TEST_KEY, 'content-type': 'application/json' }, body: JSON.stringify(DAY) });
    const metrics = async (program: Started): Promise<string> => (await fetch(`${program.url() ?? ''}/metrics`)).text();
    await until('the day is taken in', async () => ingest.url() !== null && (await metrics(ingest)).includes('throughline_ingest_dead_lettered_total{code="notJson"} 1'));
    await until('it is folded', async () => {
      const answer = await search();
      return answer.status === 200 && ((await json(answer))['data'] as unknown[]).length > 20;
    });
    await ready(project);
    await ready(ingest);
    const taken = await metrics(ingest);
    for (const line of [`throughline_ingest_received_total ${String(lines.length + 1)}`, 'throughline_ingest_recorded_total 183', 'throughline_ingest_duplicates_total 1']) expect(taken).toContain(`${line}\n`);
    expect(taken).toMatch(/throughline_topic_gap\{partition="2"\} \d+\n/);
    expect(taken).toContain('throughline_ingest_partitions 3\n');
    expect(ingest.log.map((line) => JSON.parse(line) as unknown)).toContainEqual(expect.objectContaining({ level: 'warn', backend: 'source', events: 1, code: 'notJson', partition: expect.any(Number) }));
    broker.deleteTopic('calls');
    await until('its readiness says so', async () => String((await ingest.readyz()).reasons) === 'the topic cannot be read: there is no such topic');
    expect(await metrics(project)).toMatch(/throughline_group_events\{group="journeys"\} 183\n[^]*throughline_group_shards\{group="journeys"\} 1\n/);
    expect(await fetch(`${project.url() ?? ''}/journeys`)).toMatchObject({ status: 404 });
    expect(await fetch(`${project.url() ?? ''}/healthz`, { method: 'POST' })).toMatchObject({ status: 405 });
    expect(await Promise.all([ingest.end(), project.end(), api.end()])).toEqual([0, 0, 0]);
  });

  test('serve reads a topic too, and nobody else may hold its folder', async () => {
    const data = newFolder();
    const { place, broker, seams } = kafka();
    const serve = start('serve', data, { source: place }, seams);
    await ready(serve);
    await publish(broker, lines.slice(0, 5));
    await until('it is recorded', async () => (await (await fetch(`${serve.url() ?? ''}/metrics`)).text()).includes('throughline_door_recorded_total 5\n'));
    await expect(start('serve', data).code).rejects.toMatchObject({ code: 'storeLocked' });
    expect(await serve.end()).toBe(0);
    expect(serve.said.join('')).not.toContain('API key');
  });

  test('a program says what it waits for, and ends with 0 when it is told to meanwhile', async () => {
    const project = start('project', join(newFolder(), 'none'));
    await until('it listens', () => project.url() !== null);
    expect(await project.readyz()).toEqual({ status: 503, reasons: [expect.stringMatching(/^waiting for the data folder /)] });
    expect(await fetch(`${project.url() ?? ''}/healthz`)).toMatchObject({ status: 200 });
    expect(await project.end()).toBe(0);
    expect(project.hasStarted()).toBe(false);
  });

  test.each(['serve', 'api'] as const)('%s that waits for a server says so, and refuses everything else for now, each path in its own dialect', async (program) => {
    const waiting = start(program, newFolder(), { views: await nobodyThere() });
    await until('it waits for the views', async () => String((await waiting.readyz()).reasons).includes('waiting for Redis'));
    const at = waiting.url() ?? '';
    expect(await fetch(`${at}/healthz`)).toMatchObject({ status: 200 });
    const native = await fetch(`${at}/events`, { method: 'POST', headers: HEADERS, body: lines[0] ?? '' });
    expect([native.status, native.headers.get('retry-after'), await json(native)]).toEqual([503, '1', { errors: [{ code: 'starting', message: expect.any(String) }] }]);
    const search = await fetch(`${at}/cidp/journey/api/v1/journeys/search`, { method: 'POST', body: JSON.stringify(DAY) });
    expect([search.status, search.headers.get('retry-after'), await json(search)]).toEqual([503, '1', { errors: [expect.objectContaining({ errorCode: 'starting', suggestion: expect.any(String) })] }]);
    expect(waiting.hasStarted()).toBe(false);
    expect(await waiting.end()).toBe(0);
    const [told] = waiting.log.map((line) => JSON.parse(line) as { msg: string; fault?: unknown }).filter(({ msg }) => msg === 'told to end before all had started');
    expect([waiting.said, told?.fault]).toEqual([[], undefined]);
  });

  test.each(['serve', 'api'] as const)('%s whose port is taken makes nothing and says no key', async (program) => {
    const data = join(newFolder(), 'none');
    const taken = createServer().listen(0, '127.0.0.1');
    await once(taken, 'listening');
    try {
      const refused = start(program, data, { port: (taken.address() as AddressInfo).port, apiKey: null });
      await expect(refused.code).rejects.toMatchObject({ code: 'portTaken' });
      expect([refused.said, existsSync(data)]).toEqual([[], false]);
    } finally {
      taken.close();
    }
  });

  test('serve answers queries while its topic is away, and is not ready before that is there', async () => {
    const { place, broker, seams } = kafka();
    let away = true;
    const ensureTopic = (): Promise<void> => (away ? Promise.reject(new OperatingError('sourceUnavailable', 'refused')) : Promise.resolve());
    const serve = start('serve', newFolder(), { source: place }, { open: { ...seams.open, ensureTopic } });
    await until('it serves', () => serve.hasStarted());
    expect(await fetch(`${serve.url() ?? ''}/sources`, { headers: { 'x-api-key': TEST_KEY } })).toMatchObject({ status: 200 });
    await until('it waits for the topic', async () => String((await serve.readyz()).reasons).includes('waiting for Kafka'));
    expect((await serve.readyz()).status).toBe(503);
    away = false;
    await ready(serve);
    await publish(broker, lines.slice(0, 5));
    await until('it is recorded', async () => (await (await fetch(`${serve.url() ?? ''}/metrics`)).text()).includes('throughline_door_recorded_total 5\n'));
    expect(await serve.end()).toBe(0);
  });

  test('what ends at once with the wrong master key never says that it has started', async () => {
    const data = newFolder();
    const api = start('api', data);
    await ready(api);
    expect(await api.end()).toBe(0);
    const { place, seams } = kafka();
    for (const program of [start('project', data, { masterKey: randomBytes(32) }), start('ingest', data, { masterKey: randomBytes(32), source: place }, seams)]) {
      await expect(program.code).rejects.toMatchObject({ code: 'badMasterKey' });
      expect([program.hasStarted(), program.log.some((line) => line.includes('"msg":"started"'))]).toEqual([false, false]);
    }
  });

  /** A folder whose views were made. */
  async function served(data: string): Promise<void> {
    const serve = start('serve', data);
    await until('its views are made', async () => serve.hasStarted() && (await (await fetch(`${serve.url() ?? ''}/metrics`)).text()).includes('throughline_group_gap{group="persons"} 0\n'));
    expect(await serve.end()).toBe(0);
  }

  test('no program starts on views of another store', async () => {
    const [ours, others] = [newFolder(), newFolder()];
    await ready(start('api', ours));
    await served(others);
    const { place, seams } = kafka();
    const views = { kind: 'sqlite', folder: others } as const;
    for (const program of [start('project', ours, { views }), start('api', ours, { views }), start('ingest', ours, { views, source: place }, seams), start('serve', ours, { views })]) {
      await expect(program.code).rejects.toMatchObject({ code: 'foreignStore', message: expect.stringContaining('were folded from event store') });
      expect(program.hasStarted()).toBe(false);
    }
  });

  test('a damaged view ends project with 1, and the log says which fault it was', async () => {
    const data = newFolder();
    await served(data);
    writeFileSync(join(data, 'views', 'journeys-1-0.sqlite'), 'no database at all, but long enough to be looked at');
    const project = start('project', data);
    expect(await project.code).toBe(1);
    const fault = project.log.map((line) => JSON.parse(line) as { msg: string; fault?: { code?: string } }).find(({ msg }) => msg === 'a part ended by itself')?.fault;
    expect(fault).toMatchObject({ name: 'OperatingError', code: 'storeCorrupt', message: expect.stringContaining('is damaged') });
    // A serve that still waits for its topic does not wait any longer.
    const { place, seams } = kafka();
    const ensureTopic = (): Promise<void> => Promise.reject(new OperatingError('sourceUnavailable', 'refused'));
    const waiting = start('serve', data, { source: place }, { open: { ...seams.open, ensureTopic } });
    await expect(waiting.code).rejects.toMatchObject({ code: 'storeCorrupt' });
  });

  test('a program logs when it is told to end and that it has, and a second project that no shard is left for it', async () => {
    const data = newFolder();
    await ready(start('api', data));
    const first = start('project', data);
    await until('the first folds', () => first.log.join('').includes('folds these shards now'));
    const second = start('project', data);
    await until('the second has none', () => second.log.join('').includes('"msg":"folds no shard now"'));
    expect(second.log.join('')).not.toContain('"shards":""');
    expect(await second.end()).toBe(0);
    const said = second.log.map((line) => (JSON.parse(line) as { msg: string }).msg);
    expect([said.includes('told to end'), said.at(-1)]).toEqual([true, 'all has ended well']);
  });

  test('ingest does not start for a workspace that is not there, and says how to make it', async () => {
    const data = newFolder();
    await ready(start('api', data));
    const { place, seams } = kafka('default,shop');
    await expect(start('ingest', data, { source: place }, seams).code).rejects.toMatchObject({ code: 'badConfiguration', message: expect.stringMatching(/throughline workspaces create shop\b(?!.*default)/) });
  });

  test('a source that stops for good ends the process, with 1', async () => {
    const data = newFolder();
    const { place, seams } = kafka();
    const stopped: Source = { follow: () => Promise.reject(new OperatingError('sourceUnavailable', 'the consumer has stopped')), assigned: () => [], trouble: () => null, gaps: async () => [], close: async () => undefined };
    const serve = start('serve', data, { source: place }, { open: { ...seams.open, openSource: async () => stopped } });
    expect(await serve.code).toBe(1);
    expect(serve.log.join('')).toContain('the consumer has stopped');
  });

  test('a scrape goes on without what the brokers do not say', async () => {
    const data = newFolder();
    const { place, seams } = kafka();
    const hung: Source = { follow: ({ signal }) => new Promise((resolve) => { signal.addEventListener('abort', () => resolve(), { once: true }); }), assigned: () => [], trouble: () => null, gaps: () => Promise.reject(new OperatingError('sourceUnavailable', 'away')), close: async () => undefined };
    const serve = start('serve', data, { source: place }, { fold: false, open: { ...seams.open, openSource: async () => hung } });
    await ready(serve);
    const text = await (await fetch(`${serve.url() ?? ''}/metrics`)).text();
    expect(text).not.toContain('throughline_topic_gap{');
    expect(text).toContain('throughline_ingest_received_total 0\n');
    expect(await serve.end()).toBe(0);
  });

  const search = async (program: Started, key: string): Promise<number> => {
    const answer = await fetch(`${program.url() ?? ''}/cidp/journey/api/v1/journeys/search`, { method: 'POST', headers: { 'x-api-key': key, 'content-type': 'application/json' }, body: JSON.stringify(DAY) });
    await answer.arrayBuffer();
    return answer.status;
  };
  /** A key of the running programs, made beside them. */
  async function newKey(data: string, programs: readonly Started[], ...flags: readonly string[]): Promise<string> {
    const { stdout } = await throughline(['keys', 'create', '--data', data, '--json', ...flags]);
    const { key } = JSON.parse(stdout) as { key: string };
    for (const program of programs) await until('the key is known', async () => (await fetch(`${program.url() ?? ''}/sources`, { headers: { 'x-api-key': key } })).status === 200);
    return key;
  }

  test('the first key of a serve searches as often as it likes, one that says nothing as often as --rate-limit says, any other as it was made', async () => {
    const data = newFolder();
    const serve = start('serve', data, { rateLimit: { hits: 3, windowMs: 3_600_000 } });
    await ready(serve);
    await until('the views answer', async () => (await search(serve, TEST_KEY)) === 200);
    const [silent, own] = [await newKey(data, [serve]), await newKey(data, [serve], '--rate-limit', '2/60m')];
    const often = async (key: string, times: number): Promise<readonly number[]> => {
      const statuses: number[] = [];
      for (let i = 0; i < times; i += 1) statuses.push(await search(serve, key));
      return statuses;
    };
    expect(await often(silent, 5)).toEqual([200, 200, 200, 429, 429]);
    expect(await often(own, 4)).toEqual([200, 200, 429, 429]);
    expect(new Set(await often(TEST_KEY, 15))).toEqual(new Set([200]));
  });

  describeOn(['redis'], 'on a Redis', () => {
    test('ingest starts while the views are away, and counts by source once they are there; what another try cannot mend ends it', async () => {
      const redis = await startRedis();
      try {
        const data = newFolder();
        await ready(start('api', data));
        const views = redisPlace(redis);
        await redis.kill();
        const { place, broker, seams } = kafka();
        const ingest = start('ingest', data, { views, source: place }, seams);
        await ready(ingest);
        await publish(broker, lines.slice(0, 20));
        await until('all are taken in', async () => (await (await fetch(`${ingest.url() ?? ''}/metrics`)).text()).includes('throughline_ingest_recorded_total 20\n'));
        expect(ingest.log.join('')).toContain('Redis is away: events are taken in');
        await redis.restart();
        const counted = async (): Promise<number> => {
          const { stdout } = await throughline(['status', '--data', data, '--views', redis.url.replace(/0$/, '0?prefix=tl'), '--json']);
          return (JSON.parse(stdout) as { workspaces: readonly { recorded: number | null }[] }).workspaces[0]?.recorded ?? 0;
        };
        await until('they are counted', async () => await counted() === 20);
        expect(await ingest.end()).toBe(0);
        await redis.kill();
        const other = start('ingest', data, { views: { ...views, db: 99 }, source: place }, seams);
        await ready(other);
        await redis.restart();
        expect(await other.code).toBe(1);
        expect(other.log.join('')).toContain('it has no database 99');
      } finally {
        await redis.stop();
      }
    }, 60_000);

    test('two api processes let a key search exactly as often as one would', async () => {
      const redis = await startRedis();
      try {
        const data = newFolder();
        const more = { views: redisPlace(redis), rateLimit: { hits: 20, windowMs: 3_600_000 } };
        const one = start('api', data, more);
        await ready(one);
        const two = start('api', data, more);
        await ready(two);
        const project = start('project', data, { views: more.views });
        await until('the views answer', async () => (await search(one, TEST_KEY)) === 200 && (await search(two, TEST_KEY)) === 200);
        const key = await newKey(data, [one, two]);
        const statuses = await Promise.all(Array.from({ length: 50 }, (_, i) => search(i % 2 === 0 ? one : two, key)));
        expect(statuses.filter((status) => status === 200)).toHaveLength(20);
        expect(statuses.filter((status) => status === 429)).toHaveLength(30);
        for (const program of [two, one, project]) expect(await program.end()).toBe(0);
      } finally {
        await redis.stop();
      }
    }, 60_000);
  });
});
