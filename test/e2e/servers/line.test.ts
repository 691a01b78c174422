// The line end to end on a real broker and a real Redis: many times the example day with repeats, late events and poison, more
// than one of every program, and a topic that may write to some workspaces and not to others. After each, the oracle
// (test/support/oracle.ts): received = recorded + duplicates + dead-lettered, every event once and in order, and every view
// equal to that of the exported log in an embedded folder, and to that of the same lines imported there.
import { openTopic } from '../../../services/backends.ts';
import { STRUCTURED } from '../../support/load.ts';
import { describeOn } from '../../support/local-server.ts';
import { account, answersOf, exportLog, settled, sourcePlace, takenInElsewhere } from '../../support/oracle.ts';
import { json, TEST_KEY, throughline, until } from '../../support/serve.ts';
import { type Line, logOf, SEED, Stage, SERVERS } from './stage.ts';

/** `make test-servers` takes 100,000; what fits into the time of `make test` is less. */
const LOAD = Number(process.env['THROUGHLINE_TEST_LOAD'] ?? 2000);
/** To come to rest: some 300 records a second, a tenth of what a busy machine was seen to do. */
const LOAD_MS = 60_000 + LOAD * 3;
/** What is asked of a takeover: a lease that is not renewed is another's within this. */
const TAKEOVER_MS = 10_000;
const REST_MS = 60_000;

describeOn(SERVERS, `the line on Kafka and Redis (seed ${String(SEED)})`, () => {
  let stage: Stage;
  let line: Line | null = null;
  beforeAll(async () => { stage = await Stage.open(); }, 180_000);
  afterEach(async () => {
    await line?.end();
    line = null;
  });
  afterAll(async () => { await stage.close(); }, 180_000);
  const opened = async (options?: Parameters<Stage['line']>[0]): Promise<Line> => (line = await stage.line(options));

  test('the oracle itself: where nobody took anything in, it misses every event and every dead letter', async () => {
    const { publishLoad, start, places } = bound(await opened());
    await start();
    await stage.broker.createTopic(`${sourcePlace(places).topic}.dead-letter`, 1);
    await publishLoad(400);
    const log = logOf(places);
    await exportLog(places, log);
    const { received, recorded, lost, acknowledged, wrong } = await account(places, log);
    expect([received, recorded]).toEqual([400, 0]);
    expect(lost).toBe(acknowledged);
    expect(wrong.join()).toMatch(/is not in the log/);
  }, 180_000);

  test(`G1, G2, G3, G4: ${String(LOAD)} records with repeats, late events and poison are each recorded once, known again or dead-lettered`, async () => {
    const { publishLoad, judge, start, places, programs, published } = bound(await opened());
    const running = await start('ingest', 'project');
    expect(await publishLoad(LOAD)).toBe(LOAD);
    const { account: found, groups, answers } = await judge(running, LOAD_MS);
    expect(found.received).toBe(LOAD);
    // Another door, given the lines themselves, has made the same of them.
    expect(await takenInElsewhere(await published(), places, programs, LOAD_MS)).toEqual({ recorded: found.recorded, groups, answers });
    // The load has some 3.6 % of repeats and 0.5 % of poison: all three happened.
    expect(Math.min(found.recorded, found.duplicates, found.deadLettered)).toBeGreaterThan(0);
    expect(answers.filter(({ total }) => total === 0)).toEqual([]);
  }, LOAD_MS * 2);

  test('G1, G2, G3: two ingest, two project and two api at once do what one of each does; when one of each dies, the other takes over', async () => {
    const { publishLoad, judge, start, programs, places } = bound(await opened({ shards: 2 }));
    const [api, ingest, doomedIngest, project, doomedProject] = await start('ingest', 'ingest', 'project', 'project');
    const second = await programs.start('api', places);
    if (ingest === undefined || doomedIngest === undefined || project === undefined || doomedProject === undefined) throw new Error('not all were started');
    const half = Promise.withResolvers<undefined>();
    await Promise.all([
      publishLoad(2000, { perSecond: 2000, onWritten: (written) => { if (written >= 1000) half.resolve(undefined); } }),
      half.promise.then(() => Promise.all([doomedIngest.end('SIGKILL'), doomedProject.end('SIGKILL')])),
    ]);
    const { answers } = await judge([api, second, ingest, project]);
    expect(await answersOf(second)).toEqual(answers);
  }, 180_000);

  test('a shard whose projector died is folded by the other within ten seconds', async () => {
    const { publishLoad, start, places, programs } = bound(await opened({ shards: 1 }));
    const [api, , holder] = await start('ingest', 'project');
    if (holder === undefined) throw new Error('no project');
    await publishLoad(200);
    await settled(places, [api, holder], 60_000);
    const standby = await programs.start('project', places);
    await holder.end('SIGKILL');
    const position = (await api.request('/events', { method: 'POST', headers: { 'content-type': 'application/cloudevents+json' }, body: JSON.stringify({ specversion: '1.0', id: 'after', source: 'takeover', type: 'test.after', identity: 'after@example.com', identitytype: 'email' }) }).then(json))['position'];
    const began = Date.now();
    await until('what came after the death is folded', async () => (await api.request('/persons?identity=after@example.com', { headers: { 'throughline-min-position': String(position) } })).status === 200, TAKEOVER_MS);
    expect(Date.now() - began).toBeLessThan(TAKEOVER_MS);
    expect(standby.exited()).toBeUndefined();
  }, 120_000);

  test('G8: a topic writes to the workspaces that it lists, each event to its own, and to no other', async () => {
    const { start, programs, places } = bound(await opened({ workspaces: 'default,listed' }));
    const env = { THROUGHLINE_MASTER_KEY: places.masterKey };
    const [api] = await start();
    const keys: Record<string, string> = { default: TEST_KEY };
    for (const name of ['listed', 'foreign']) {
      const made = await throughline(['workspaces', 'create', name, '--rate-limit', 'off', '--data', places.folder, '--json'], { env });
      expect(made).toMatchObject({ code: 0 });
      keys[name] = (JSON.parse(made.stdout) as { readonly key: string }).key;
    }
    const running = [api, await programs.start('ingest', places), await programs.start('project', places)];
    const where = sourcePlace(places);
    const topic = await openTopic(where, where.topic);
    const identity = (of: string): string => `of-${of}@example.com`;
    await topic.write(['default', 'listed', 'foreign', 'unmade'].map((of) => ({
      key: Buffer.from(identity(of)), headers: STRUCTURED,
      value: Buffer.from(JSON.stringify({ specversion: '1.0', id: of, source: 'tenants', type: 'test.tenants', identity: identity(of), identitytype: 'email', workspace: of })),
    })));
    await topic.close();
    await settled(places, running, REST_MS);
    const letters = await throughline(['dead-letters', 'list', '--source', places.source, '--json'], { env });
    expect(letters).toMatchObject({ code: 0 });
    expect(JSON.parse(letters.stdout)).toMatchObject({ open: 2, codes: { wrongWorkspace: 2 } });
    for (const [workspace, key] of Object.entries(keys)) {
      const found = await Promise.all(['default', 'listed', 'foreign', 'unmade'].map(async (of) => (await api.request(`/history?identity=${identity(of)}`, { key })).text()));
      // The foreign one was refused; each of the others stands in its own workspace and in no other.
      expect({ workspace, holds: found.map((text) => text.includes('test.tenants')) }).toEqual({ workspace, holds: ['default', 'listed', 'foreign', 'unmade'].map((of) => of === workspace && of !== 'foreign') });
    }
  }, 120_000);
});

/** A line's methods, to be called without it. */
function bound(line: Line): Pick<Line, 'publishLoad' | 'judge' | 'published' | 'start' | 'programs' | 'places'> {
  return { publishLoad: line.publishLoad.bind(line), judge: line.judge.bind(line), published: line.published.bind(line), start: line.start.bind(line), programs: line.programs, places: line.places };
}
