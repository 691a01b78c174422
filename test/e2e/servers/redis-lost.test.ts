// Redis lost wholly, with SQLite as the event store: nothing but the views is gone, and they come back by themselves, equal to
// what they were. And a Redis that evicts, which would lose parts of views silently: it is refused by name.
import { join } from 'node:path';
import { describeOn } from '../../support/local-server.ts';
import { type Places, type Program, Programs } from '../../support/programs.ts';
import { type RedisServer, startRedis } from '../../support/redis-server.ts';
import { folded, json, removeFolder, ROOT, type RunResult, temporaryFolder, TEST_KEY, throughline, until } from '../../support/serve.ts';

const DAY = join(ROOT, 'test/fixtures/example-day.ndjson');
const SEARCH = '/cidp/journey/api/v1/journeys/search';
const QUERY = { dateRange: { start: '2026-03-02T00:00:00+02:00', end: '2026-03-02T23:59:59+02:00' }, displayTimezone: 'Europe/Bucharest', limit: 100 };
/** The driver's own waits, a life of the projector, and folding a day; others may be at work on the machine. */
const BACK_MS = 60_000;

type Request = Program['request'];
interface Seen { readonly status: number; readonly text: string }

describeOn(['redis'], 'a Redis that is lost', () => {
  const folder = temporaryFolder();
  const programs = new Programs();
  let redis: RedisServer;
  let places: Places;
  beforeAll(async () => {
    redis = await startRedis();
    places = { source: '', events: null, views: `${redis.url}?shards=2`, folder, masterKey: '5a'.repeat(32), workspaceSecret: 'a5'.repeat(32) };
  }, 60_000);
  afterEach(async () => { await programs.endAll(); });
  afterAll(async () => {
    await redis.stop();
    removeFolder(folder);
  });

  const start = async (): Promise<Program> => {
    const api = await programs.start('api', places);
    await programs.start('project', places);
    return api;
  };
  const search = async (request: Request): Promise<Seen> => {
    const answer = await request(SEARCH, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(QUERY) });
    return { status: answer.status, text: await answer.text() };
  };
  const verb = (...args: readonly string[]): Promise<RunResult> => throughline([...args, '--data', folder], { env: { THROUGHLINE_VIEWS: places.views ?? '', THROUGHLINE_MASTER_KEY: places.masterKey } });
  const digests = async (): Promise<readonly (readonly [group: string, digest: string, documents: number])[]> => {
    const { groups } = JSON.parse((await verb('status', '--json')).stdout) as { groups: readonly { group: string; digest: string; documents: number }[] };
    return groups.map(({ group, digest, documents }) => [group, digest, documents] as const);
  };

  test('G3, G5: its data gone for good, the views come back with the same digests, under programs that run on and under new ones; meanwhile no reader is answered a part of them', async () => {
    const first = await start();
    expect(await throughline(['import', DAY, '--to', first.url, '--json'], { env: { THROUGHLINE_API_KEY: TEST_KEY } })).toMatchObject({ code: 0 });
    await folded(first.request, BACK_MS);
    const [whole, noted] = [await search(first.request), await digests()];
    expect(whole.status).toBe(200);
    expect(JSON.parse(whole.text)).toMatchObject({ totalElements: expect.any(Number) });

    /** Asks on while Redis goes and comes: every answer is a refusal that says to come again, or the whole. */
    const watched = async (request: Request, lose: () => Promise<void>): Promise<ReadonlySet<string>> => {
      const seen = new Set<string>();
      let over = false as boolean;
      const asking = (async () => {
        while (!over) {
          const { status, text } = await search(request);
          seen.add(status === 200 ? (text === whole.text ? 'whole' : `another: ${text}`) : `${String(status)} ${/"errorCode":"(\w+)"/.exec(text)?.[1] ?? text}`);
        }
      })();
      try {
        await lose();
        await folded(request, BACK_MS);
      } finally {
        over = true;
        await asking;
      }
      expect(await digests()).toEqual(noted);
      return seen;
    };
    const refusals = /^503 (building|viewsUnavailable|storeUnavailable|viewMissing)$/;

    // Programs run on: the process is killed, and a fresh one with nothing in it comes to the same port.
    const seen = await watched(first.request, async () => {
      await redis.kill();
      await until('the loss is noticed', async () => (await search(first.request)).status === 503);
      await redis.restart();
    });
    expect([...seen].filter((one) => one !== 'whole' && !refusals.test(one))).toEqual([]);
    expect([...seen].some((one) => one.startsWith('503'))).toBe(true);
    expect(await search(first.request)).toEqual(whole);

    // Everything is emptied in an instant, under load.
    const emptied = await watched(first.request, async () => { redis.say('flushall'); });
    expect([...emptied].filter((one) => one !== 'whole' && !refusals.test(one))).toEqual([]);

    // Programs are started again on an empty one: only the counts by source begin anew, as the README says.
    await programs.endAll();
    redis.say('flushall');
    const again = await programs.start('api', places);
    expect(await search(again.request)).toMatchObject({ status: 503, text: expect.stringContaining('building') });
    const started = await watched(again.request, async () => { await programs.start('project', places); });
    expect([...started].filter((one) => one !== 'whole' && !refusals.test(one))).toEqual([]);
    expect(await search(again.request)).toEqual(whole);
    expect(await json(await again.request('/sources'))).toMatchObject({ data: [] });
    // Publishing never stopped being possible, and what comes now is folded like all else.
    expect((await again.request('/events', { method: 'POST', headers: { 'content-type': 'application/cloudevents+json' }, body: JSON.stringify({ specversion: '1.0', id: 'after', source: 'after', type: 'test.after', identity: 'after@example.com', identitytype: 'email' }) })).status).toBe(200);
    await folded(again.request, BACK_MS);
    expect((await again.request('/persons?identity=after@example.com')).status).toBe(200);
  }, 180_000);

  test('one that is told to evict is refused by every program and by doctor, with what to do', async () => {
    redis.say('config', 'set', 'maxmemory-policy', 'allkeys-lru');
    const refused = await Promise.all(['api', 'project'].map((program) => verb(program, '--port', '0')));
    for (const one of refused) expect(one).toMatchObject({ code: 1, stderr: expect.stringMatching(/maxmemory-policy is allkeys-lru: .+CONFIG SET maxmemory-policy noeviction.+storeUnfit/) });
    expect(await verb('doctor')).toMatchObject({ code: 1, stdout: expect.stringMatching(/BAD Redis, maxmemory-policy: .+noeviction/) });
    redis.say('config', 'set', 'maxmemory-policy', 'noeviction');
  }, 120_000);
});
