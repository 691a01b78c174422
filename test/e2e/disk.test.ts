// A disk that is full, one that can only be read, and files that were cut short, under a `serve` as a user starts it: each
// with the error that an operator needs, and once the fault is taken away all that was acknowledged is there and it goes on.
import { spawn, spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, readdirSync, rmSync, statSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { cleanEnvironment, json, removeFolder, ROOT, type RunResult, serve, type Served, temporaryFolder, throughline, until } from '../support/serve.ts';

const BATCH = 'application/cloudevents-batch+json';
const place = temporaryFolder();
const mounted = new Set<string>();
let running: Served | null = null;

function mount(...args: readonly string[]): string | null {
  const { status, stderr, error } = spawnSync('mount', args, { encoding: 'utf8' });
  return status === 0 ? null : error?.message ?? stderr.trim();
}
/** A small disk of its own. */
function smallDisk(name: string, size: string): string {
  const folder = join(place, name);
  mkdirSync(folder);
  const why = mount('-t', 'tmpfs', '-o', `size=${size},mode=700`, 'tmpfs', folder);
  if (why !== null) throw new Error(why);
  mounted.add(folder);
  return folder;
}
const unmountable = ((): string | null => {
  const probe = join(place, 'probe');
  mkdirSync(probe);
  const why = mount('-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', probe);
  if (why === null) spawnSync('umount', [probe]);
  return why;
})();
const onSmallDisk = unmountable === null ? test : test.skip;
const WHY = unmountable === null ? '' : ` (skipped, no tmpfs can be mounted here: ${unmountable})`;

async function start(folder: string): Promise<Served> { return (running = await serve({ folder })); }
async function end(): Promise<void> {
  const ending = running;
  running = null;
  if (ending !== null) expect(await ending.kill('SIGTERM')).toBe(0);
}
afterEach(async () => {
  await running?.kill('SIGKILL');
  running = null;
});
afterAll(() => {
  for (const folder of mounted) spawnSync('umount', ['-l', folder]);
  removeFolder(place);
});

const event = (id: string, bytes: number): Record<string, unknown> => ({
  specversion: '1.0', id, source: 'disk', type: 'org.throughline.interaction.started', time: '2026-03-02T09:00:00Z', identity: 'ana@example.com', identitytype: 'email',
  data: { interactionId: `call-${id}`, medium: 'Phone', note: 'x'.repeat(bytes) },
});
/** Ids that were acknowledged, or the refusal. */
async function publish(server: Served, name: string, bytes = 100, count = 20): Promise<{ readonly ids: readonly string[]; readonly refused: Response | null }> {
  const events = Array.from({ length: count }, (_, n) => event(`${name}-${String(n)}`, bytes));
  const answer = await server.request('/events', { method: 'POST', headers: { 'content-type': BATCH }, body: JSON.stringify(events) });
  return answer.status === 200 ? { ids: events.map(({ id }) => String(id)), refused: null } : { ids: [], refused: answer };
}

/** Every id of the customer's history, by pages. */
async function history(server: Served): Promise<readonly string[]> {
  const ids: string[] = [];
  for (let cursor: string | null = ''; cursor !== null;) {
    const answer = await server.request(`/history?identity=ana@example.com&limit=1000${cursor === '' ? '' : `&cursor=${cursor}`}`);
    expect(answer.status).toBe(200);
    const page = (await json(answer)) as unknown as { data: { event: { id: string } }[]; nextPageCursor: string | null };
    ids.push(...page.data.map((entry) => entry.event.id));
    cursor = page.nextPageCursor;
  }
  return ids;
}
async function expectWhole(server: Served, acknowledged: readonly string[]): Promise<void> {
  await server.folded();
  const found = await history(server);
  expect(found.toSorted()).toEqual(acknowledged.toSorted());
}
async function digests(folder: string): Promise<readonly unknown[]> {
  const { groups } = JSON.parse((await throughline(['status', '--data', folder, '--json'])).stdout) as { groups: { group: string; gap: number; digest: string }[] };
  return groups.map(({ group, gap, digest }) => [group, gap, digest]);
}
const doctor = (folder: string): Promise<RunResult> => throughline(['doctor', '--data', folder]);
/** What a `serve` says that ends by itself, with 1. */
async function refusal(folder: string): Promise<string> {
  const child = spawn(process.execPath, [join(ROOT, 'services/main.ts'), 'serve', '--data', folder, '--port', '0'], { cwd: ROOT, env: cleanEnvironment(), stdio: ['ignore', 'ignore', 'pipe'] });
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => { stderr += text; });
  try {
    await until('serve ends', () => child.exitCode !== null, 30_000);
  } catch (fault) {
    throw new Error(`${String(fault)}: ${stderr}`);
  } finally {
    child.kill('SIGKILL');
  }
  expect({ code: child.exitCode, stderr }).toMatchObject({ code: 1 });
  expect(stderr).not.toMatch(/node:internal|\bat .+:\d+:\d+/);
  return stderr;
}

onSmallDisk(`G1: a disk that is full refuses what comes with 503 and keeps what was acknowledged; with room again the same process takes events and folds them${WHY}`, async () => {
  const disk = smallDisk('full', '12m');
  const server = await start(join(disk, 'data'));
  const acknowledged: string[] = [];
  let refused: Response | null = null;
  for (let round = 0; refused === null; round += 1) {
    const one = await publish(server, `fill-${String(round)}`, 8_000);
    acknowledged.push(...one.ids);
    refused = one.refused;
  }
  expect(acknowledged.length).toBeGreaterThan(100);
  expect({ status: refused.status, body: await json(refused) }).toMatchObject({ status: 503, body: { errors: [{ code: 'storeFull' }] } });
  await until('the log says why', () => /"code":"storeFull"/.test(server.stderr()));
  expect(server.stderr()).toMatch(/events\.sqlite: database or disk is full/);
  expect((await doctor(join(disk, 'data'))).stdout).toMatch(/BAD the data folder .+, disk: make room now: a full disk refuses every event/);
  // It answers what it knows, and goes on refusing.
  expect((await server.request('/healthz')).status).toBe(200);
  expect((await publish(server, 'still', 8_000)).refused?.status).toBe(503);
  expect(server.child.exitCode).toBeNull();
  expect(mount('-o', 'remount,size=96m', disk)).toBeNull();
  const more = await publish(server, 'room', 8_000);
  expect(more.refused).toBeNull();
  await expectWhole(server, [...acknowledged, ...more.ids]);
  await until('it is ready', async () => (await server.request('/readyz')).status === 200);
  await end();
  await expectWhole(await start(join(disk, 'data')), [...acknowledged, ...more.ids]);
  await end();
}, 120_000);

onSmallDisk(`G1: a data folder that can only be read is refused at the start by name, what only reads it is told the same, and nothing of it is changed${WHY}`, async () => {
  const disk = smallDisk('read-only', '64m');
  const data = join(disk, 'data');
  const { ids } = await publish(await start(data), 'kept');
  await end();
  expect(mount('-o', 'remount,ro', disk)).toBeNull();
  const before = readdirSync(data);
  const said = await refusal(data);
  expect(said).toContain(data);
  expect(said).toContain('storeReadOnly');
  const examined = await doctor(data);
  expect(examined).toMatchObject({ code: 1, stdout: expect.stringMatching(/BAD the data folder .+, permissions: run as the user who owns .+, or change its owner, or mount its disk for writing/) });
  expect(examined.stdout).toMatch(/BAD together, views: make the folder writable for this user, or mount its disk for writing/);
  for (const verb of [['status'], ['verify'], ['replay', 'journeys'], ['backup', join(place, 'copy-of-it')]]) expect([verb, await throughline([...verb, '--data', data])]).toEqual([verb, expect.objectContaining({ code: 1, stderr: expect.stringMatching(/\/data\/.*sqlite: .+: it has to be writable for this user, on a disk that is mounted for writing \(storeReadOnly\)/) })]);
  expect(readdirSync(data)).toEqual(before);
  expect(mount('-o', 'remount,rw', disk)).toBeNull();
  await expectWhole(await start(data), ids);
  await end();
}, 60_000);

describe('files that were cut short', () => {
  const data = join(place, 'whole');
  const copy = join(place, 'copy');
  const backup = join(place, 'backup');
  let ids: readonly string[] = [];
  let whole: readonly unknown[] = [];
  beforeAll(async () => {
    const server = await start(data);
    ids = (await publish(server, 'kept', 3000, 200)).ids;
    await server.folded();
    await end();
    whole = await digests(data);
    // As a backup has them the files are whole by themselves: what a WAL still holds beside one, a cut in it need not touch.
    expect(await throughline(['backup', backup, '--data', data])).toMatchObject({ code: 0 });
  }, 60_000);
  beforeEach(() => { cpSync(backup, copy, { recursive: true }); });
  afterEach(() => { rmSync(copy, { recursive: true }); });
  const cut = (name: string): void => { truncateSync(join(copy, name), Math.floor(statSync(join(copy, name)).size / 2)); };

  test('G1: the events: a serve does not start on it and names the file; put back from a backup all is there', async () => {
    cut('events.sqlite');
    expect(await refusal(copy)).toMatch(/events\.sqlite is damaged: .+throughline restore.+storeCorrupt/);
    expect(await doctor(copy)).toMatchObject({ code: 1, stdout: expect.stringMatching(/BAD .+, events\.sqlite: put the folder back from a backup \(throughline restore\)/) });
    rmSync(copy, { recursive: true });
    expect(await throughline(['restore', backup, '--data', copy])).toMatchObject({ code: 0 });
    await expectWhole(await start(copy), ids);
    await end();
    expect(await digests(copy)).toEqual(whole);
  }, 60_000);

  test.each([
    ['the file of a view', 'views/journeys-1-0.sqlite', /journeys-1-0\.sqlite is damaged \(.+\): delete it together with its -wal and -shm files and it is folded again/, /views\/journeys-1-0\.sqlite: delete it with its -wal and -shm files/, () => { rmSync(join(copy, 'views/journeys-1-0.sqlite')); }],
    ['the file that says which view is live', 'views/control.sqlite', /control\.sqlite is damaged \(.+\): delete the folder .+views and all views are folded again/, /views\/control\.sqlite: delete the folder views/, () => { rmSync(join(copy, 'views'), { recursive: true }); }],
  ] as const)('G3: %s: a serve names it and says what to do, and after that the views are the same as before', async (_what, name, said, advice, heed) => {
    cut(name);
    expect(await refusal(copy)).toMatch(said);
    expect(await doctor(copy)).toMatchObject({ code: 1, stdout: expect.stringMatching(advice) });
    heed();
    await expectWhole(await start(copy), ids);
    await end();
    expect(await digests(copy)).toEqual(whole);
  }, 60_000);
});
