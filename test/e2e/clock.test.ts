// A machine whose clock is set forward and back by hours while programs serve: recorded times are what the clock said, and
// nothing waits for a time to come again. All of it: publishing, folding, positions, health, leases.
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Places, Programs } from '../support/programs.ts';
import { folded, json, removeFolder, ROOT, serve, type Served, temporaryFolder, TEST_KEY, throughline, until } from '../support/serve.ts';

const HOUR = 3_600_000;
/** Whoever waits for hours is seen to, also on a machine that is busy. */
const SOON_MS = 30_000;
const folder = temporaryFolder();
const file = join(folder, 'offset');
const env = { NODE_OPTIONS: `--import ${join(ROOT, 'test/support/clock-offset.ts')}`, CLOCK_OFFSET_FILE: file };
const set = (hours: number): void => { writeFileSync(file, String(hours * HOUR)); };
const programs = new Programs();
let server: Served | null = null;

beforeEach(() => { set(0); });
afterEach(async () => {
  await programs.endAll();
  await server?.kill('SIGKILL');
});
afterAll(() => { removeFolder(folder); });

async function publish(request: Served['request'], id: string): Promise<string> {
  const event = { specversion: '1.0', id, source: 'clock', type: 'org.throughline.interaction.started', time: '2026-03-02T09:00:00Z', identity: 'ana@example.com', identitytype: 'email', data: { interactionId: `call-${id}`, medium: 'Phone' } };
  const answer = await request('/events', { method: 'POST', headers: { 'content-type': 'application/cloudevents+json' }, body: JSON.stringify(event) });
  expect(answer.status).toBe(200);
  return String((await json(answer))['position']);
}
async function history(request: Served['request']): Promise<readonly { readonly id: string; readonly recordedtime: string }[]> {
  const { data } = (await json(await request('/history?identity=ana@example.com'))) as unknown as { data: { recordedtime: string; event: { id: string } }[] };
  return data.map(({ recordedtime, event }) => ({ id: event.id, recordedtime }));
}
/** Its journey is there for who asks for at least the position that its write returned (G9). */
async function isFolded(request: Served['request'], position: string, id: string): Promise<void> {
  await until(`${id} is folded`, async () => (await request('/journeys?identity=ana@example.com', { headers: { 'throughline-min-position': position } })).status === 200, SOON_MS);
  const { data } = (await json(await request('/journeys?identity=ana@example.com&limit=100'))) as unknown as { data: { id: string }[] };
  expect((await history(request)).map((one) => one.id)).toContain(id);
  expect(data.length).toBe((await history(request)).length);
}
async function digests(data: string): Promise<readonly unknown[]> {
  const { groups } = JSON.parse((await throughline(['status', '--data', data, '--json'])).stdout) as { groups: { group: string; digest: string; documents: number }[] };
  return groups.map(({ group, digest, documents }) => [group, digest, documents]);
}

test('G1, G3, G9: set forward by five hours, back by ten and forward again, a serve takes, folds and shows events, moves idle positions along and tells of itself; its views equal a fresh fold', async () => {
  const data = join(folder, 'embedded');
  server = await serve({ folder: data, env });
  const { request, url } = server;
  await isFolded(request, await publish(request, 'before'), 'before');
  for (const [hours, id] of [[5, 'ahead'], [-5, 'behind'], [0, 'after']] as const) {
    set(hours);
    // What no fold takes anything from moves the head: the positions of views that are idle come after it.
    expect(await throughline(['keys', 'create', '--data', data, '--label', `made at ${String(hours)}`], { env })).toMatchObject({ code: 0 });
    await folded(request, SOON_MS);
    await isFolded(request, await publish(request, id), id);
    await until('no gap is told', async () => /throughline_group_gap\{group="journeys"\} 0\n/.test(await (await fetch(`${url}/metrics`)).text()), SOON_MS);
    await until('it is ready', async () => (await fetch(`${url}/readyz`)).status === 200, SOON_MS);
  }
  const recorded = new Map((await history(request)).map((one) => [one.id, Date.parse(one.recordedtime)]));
  const nowMs = Date.now();
  const hoursOff = (id: string): string => (((recorded.get(id) ?? NaN) - nowMs) / HOUR).toFixed(0).replace('-0', '0');
  expect(['before', 'ahead', 'behind', 'after'].map(hoursOff)).toEqual(['0', '5', '-5', '0']);
  expect(await server.kill('SIGTERM')).toBe(0);
  const live = await digests(data);
  rmSync(join(data, 'views'), { recursive: true });
  server = await serve({ folder: data, env });
  await folded(server.request, SOON_MS);
  expect(await digests(data)).toEqual(live);
  expect((await history(server.request)).map((one) => one.id).toSorted()).toEqual(['after', 'ahead', 'before', 'behind']);
  expect(server.stderr()).not.toMatch(/"level":"(error|warn)"/);
}, 120_000);

test('G3: with the clock set back by ten hours, what a project held that died then is another\'s at once, not in ten hours', async () => {
  const places: Places = { source: '', events: null, views: null, folder: join(folder, 'split'), masterKey: '5a'.repeat(32), workspaceSecret: 'a5'.repeat(32) };
  const api = await programs.start('api', places, { env: { ...env, THROUGHLINE_API_KEY: TEST_KEY } });
  const first = await programs.start('project', places, { env });
  await isFolded(api.request, await publish(api.request, 'first'), 'first');
  await first.end('SIGKILL');
  set(-10);
  await programs.start('project', places, { env });
  await isFolded(api.request, await publish(api.request, 'second'), 'second');
  set(10);
  await isFolded(api.request, await publish(api.request, 'third'), 'third');
  set(-10);
  await isFolded(api.request, await publish(api.request, 'fourth'), 'fourth');
}, 120_000);
