// The programs, started in this process over one data folder, a topic in memory where Kafka would be: which parts each has,
// what each says of itself, and how each ends.
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { MemoryBroker } from '../../services/adapters/memory-source.ts';
import { parseSourceUrl, type SourcePlace } from '../../services/backends.ts';
import { OperatingError } from '../../services/errors.ts';
import { sleep } from '../../services/lifecycle.ts';
import { createLog } from '../../services/log.ts';
import type { Io } from '../../services/ops/terminal.ts';
import type { Source } from '../../services/ports.ts';
import { type Program, type ProgramOptions, runProgram, type Seams } from '../../services/programs.ts';
import { json, removeFolder, ROOT, temporaryFolder, TEST_KEY, until } from '../support/serve.ts';

const lines = readFileSync(join(ROOT, 'test/fixtures/example-day.ndjson'), 'utf8').split('\n').filter((line) => line !== '');
const HEADERS = { 'content-type': 'application/cloudevents+json' };
const DAY = { dateRange: { start: '2026-03-02T00:00:00+02:00', end: '2026-03-02T23:59:59+02:00' }, displayTimezone: 'Europe/Bucharest' };

interface Started {
  /** Null while it does not listen yet. */
  url(): string | null;
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
    const io: Io = {
      stdout: { write: (text: string) => said.push(text) }, stderr: { write: (text: string) => said.push(text) }, stdin: (async function* none() { /* nothing */ })(), isTty: false, signal: ending.signal,
      clock: { now: () => Date.now() }, random: (size) => randomBytes(size), sleep, fetch,
    };
    const code = runProgram(program, { events: place, views: place, host: '127.0.0.1', port: 0, logLevel: 'info', apiKey: TEST_KEY, masterKey: null, ...more }, io, { log: createLog('info', (line) => log.push(line)), version: 'test', onListening: (url) => { at = url; } }, seams);
    code.catch(() => undefined);
    const started: Started = {
      url: () => at, said, log, code,
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
  const publish = (broker: MemoryBroker, texts: readonly string[]): Promise<void> => broker.topic('calls').write(texts.map((text) => ({ key: Buffer.from((/"identity":"([^"]*)"/.exec(text) ?? [])[1] ?? ''), value: Buffer.from(text), headers: HEADERS })));

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
    const stopped: Source = { follow: () => Promise.reject(new OperatingError('sourceUnavailable', 'the consumer has stopped')), gaps: async () => [], close: async () => undefined };
    const serve = start('serve', data, { source: place }, { open: { ...seams.open, openSource: async () => stopped } });
    expect(await serve.code).toBe(1);
    expect(serve.log.join('')).toContain('the consumer has stopped');
  });

  test('a scrape goes on without what the brokers do not say', async () => {
    const data = newFolder();
    const { place, seams } = kafka();
    const hung: Source = { follow: ({ signal }) => new Promise((resolve) => { signal.addEventListener('abort', () => resolve(), { once: true }); }), gaps: () => Promise.reject(new OperatingError('sourceUnavailable', 'away')), close: async () => undefined };
    const serve = start('serve', data, { source: place }, { fold: false, open: { ...seams.open, openSource: async () => hung } });
    await ready(serve);
    const text = await (await fetch(`${serve.url() ?? ''}/metrics`)).text();
    expect(text).not.toContain('throughline_topic_gap{');
    expect(text).toContain('throughline_ingest_received_total 0\n');
    expect(await serve.end()).toBe(0);
  });
});
