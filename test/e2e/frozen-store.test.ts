// An event store that is frozen: its connections stand and nothing is answered. Publishers wait or are told to come again, who
// supervises is told why, and once it goes on everything that was acknowledged is there, once, and folded.
import { startEventStoreDouble, type EventStoreDouble } from '../support/eventstoredb/double.ts';
import { type Places, type Program, Programs } from '../support/programs.ts';
import { folded, json, removeFolder, temporaryFolder, until } from '../support/serve.ts';

const BACK_MS = 60_000;
const programs = new Programs();
const folder = temporaryFolder();
let store: EventStoreDouble;
let api: Program;
let project: Program;

beforeAll(async () => {
  store = await startEventStoreDouble();
  const places: Places = { source: '', events: `esdb://127.0.0.1:${String(store.port)}?tls=false`, views: null, folder, masterKey: '5a'.repeat(32), workspaceSecret: 'a5'.repeat(32) };
  api = await programs.start('api', places);
  project = await programs.start('project', places);
}, 90_000);
afterAll(async () => {
  store.thaw();
  await programs.endAll();
  await store.stop();
  removeFolder(folder);
});

interface Published { readonly status: number; readonly result: unknown; readonly retryAfter: string | null }
async function publish(id: string): Promise<Published> {
  const event = { specversion: '1.0', id, source: 'frozen', type: 'test.frozen', time: '2026-03-02T09:00:00Z', identity: `${id.slice(0, 1)}@example.com`, identitytype: 'email' };
  const answer = await api.request('/events', { method: 'POST', headers: { 'content-type': 'application/cloudevents+json' }, body: JSON.stringify(event) });
  return { status: answer.status, result: (await json(answer))['result'], retryAfter: answer.headers.get('retry-after') };
}
async function historyOf(identity: string): Promise<readonly string[]> {
  const { data = [] } = (await json(await api.request(`/history?identity=${identity}@example.com`))) as unknown as { data?: { event: { id: string } }[] };
  return data.map(({ event }) => event.id);
}

test('G1: an EventStoreDB that is frozen (its double): readiness says so, health and metrics answer, and when it goes on what was sent meanwhile is recorded once and folded', async () => {
  expect(await publish('a-before')).toMatchObject({ status: 200, result: 'recorded' });
  await folded(api.request, BACK_MS);
  store.freeze();
  const ids = Array.from({ length: 20 }, (_, n) => `${'abcde'[n % 5] ?? ''}-${String(n)}`);
  // A publisher of each identity sends one after the other, and each again until it is taken.
  const taken = Promise.all(['a', 'b', 'c', 'd', 'e'].map(async (identity) => {
    for (const id of ids.filter((one) => one.startsWith(identity))) {
      await until(`${id} is taken`, async () => {
        const { status, retryAfter } = await publish(id);
        if (status !== 200) expect({ status, retryAfter }).toEqual({ status: 503, retryAfter: '1' });
        return status === 200;
      }, 2 * BACK_MS);
    }
  }));
  for (const one of [api, project]) await until(`${one.name} says why it is not ready`, async () => ((await one.readiness())?.reasons ?? []).some((reason) => /the event store (does not answer|cannot be reached)/.test(reason)), BACK_MS);
  expect((await api.request('/healthz')).status).toBe(200);
  expect(await api.metric('throughline_http_under_way{kind="publish"}')).toBeGreaterThan(0);
  store.thaw();
  await taken;
  for (const one of [api, project]) await until(`${one.name} is ready again`, async () => (await one.readiness())?.ok === true, BACK_MS);
  await folded(api.request, BACK_MS);
  for (const identity of ['a', 'b', 'c', 'd', 'e']) expect((await historyOf(identity)).filter((id) => id !== 'a-before').toSorted()).toEqual(ids.filter((id) => id.startsWith(identity)).toSorted());
  expect([api.exited(), project.exited()]).toEqual([undefined, undefined]);
}, 240_000);
