// One step of a target: what two workers tear apart, and commits that keep to what a view can take at once.
import assert from 'node:assert';
import fc from 'fast-check';
import { journeys } from '../../projections/journeys.ts';
import { persons } from '../../projections/persons.ts';
import type { Json, Projection } from '../../projections/projection.ts';
import type { Interpreted } from '../../schemas/facts.ts';
import { isWorkspaceId, workspaceKeys, type WorkspaceKeys } from '../../schemas/identity.ts';
import { MemoryViewStore } from '../../services/adapters/memory-views.ts';
import { OperatingError } from '../../services/errors.ts';
import type { Commit, CommitSize, Position, View } from '../../services/ports.ts';
import { type Arrival, CacheRoom, Target } from '../../services/projector/target.ts';
import { arbitraryEvents, CONTEXT, event, MemoryDocuments } from '../support/facts.ts';
import { through } from '../support/views.ts';

const WORKSPACE = 'acme';
assert(isWorkspaceId(WORKSPACE));
/** As the tests' facts are made. */
const KEYS: WorkspaceKeys = { ...workspaceKeys(WORKSPACE, new Uint8Array(32).fill(9)), ...CONTEXT };
const keysOf = async (): Promise<WorkspaceKeys> => KEYS;
const position = (place: number): Position => String(place).padStart(20, '0') as Position;
const arrivalsOf = (events: readonly Interpreted[], from = 0): Arrival[] => events.map((interpreted, i) => ({ position: position(from + i + 1), workspace: WORKSPACE, identity: interpreted.identity.key, interpreted }));

async function viewOf(projection: Projection, target: Position | null = null): Promise<View> {
  const views = new MemoryViewStore();
  const { id } = await views.createGeneration({ group: projection.group, version: projection.version, shards: 1, storeId: 'store', target, fields: projection.fields, subFields: projection.subFields, ordered: projection.ordered });
  await views.promote(projection.group, null, id);
  return views.view(projection.group, id, 0);
}

async function targetOn(view: View, projection: Projection, stepBytesMax = 1e7, foldMax = 1e6): Promise<Target> {
  const target = new Target({ projection, view, role: 'live', cache: new CacheRoom(1e7), stepBytesMax, foldMax });
  await target.resume();
  return target;
}

// ---- two workers -----------------------------------------------------------------------------------------------------

/** Two documents that always say the same; it reads them one after the other, and asserts that they do. */
const twins: Projection = {
  ...persons,
  * fold(events) {
    const one = (yield ['x/one']).get('x/one') ?? 0;
    const other = (yield ['x/other']).get('x/other') ?? 0;
    assert.equal(one, other, 'the twins differ');
    const sum = (one as number) + events.length;
    return { documents: new Map<string, Json>([['x/one', sum], ['x/other', sum]]), records: [] };
  },
  pack: (_key, document) => JSON.stringify(document),
  unpack: (_key, text) => JSON.parse(text) as Json,
};

const [first, second, third] = [1, 2, 3].map((n) => event(`e${n}`, n, []));
assert(first !== undefined && second !== undefined && third !== undefined);

test('G3: a fold that asserts because another worker committed between two of its reads is answered `moved`, and goes on from there', async () => {
  const view = await viewOf(twins);
  await (await targetOn(view, twins)).step(arrivalsOf([first]), position(1), keysOf);
  const other = await targetOn(view, twins);
  let loads = 0;
  const torn = through(view, { load: async (keys) => {
    loads += 1;
    // After this worker has read the first of the twins, and before it reads the second.
    if (loads === 2) expect((await other.step(arrivalsOf([second], 1), position(2), keysOf)).kind).toBe('committed');
    return view.load(keys);
  } });
  const target = await targetOn(torn, twins);
  expect(await target.step(arrivalsOf([second, third], 1), position(3), keysOf)).toEqual({ kind: 'moved', live: null });
  expect(target.position).toBe(position(2));
  // What it read stays behind in nothing.
  expect(await target.step(arrivalsOf([second, third], 1), position(3), keysOf)).toMatchObject({ kind: 'committed', events: 1 });
  expect(await view.load(['acme/x/one', 'acme/x/other'])).toEqual(['3', '3']);
});

test('a fold that asserts while the view stands still is a bug, and is thrown; so is what the store says', async () => {
  const view = await viewOf(twins);
  await (await targetOn(view, twins)).step(arrivalsOf([first]), position(1), keysOf);
  const wrong = await targetOn(through(view, { load: async (keys) => (await view.load(keys)).map((text, i) => (keys[i] === 'acme/x/other' ? '7' : text)) }), twins);
  await expect(wrong.step(arrivalsOf([second], 1), position(2), keysOf)).rejects.toThrow('the twins differ');
  const gone = await targetOn(through(view, { load: async () => { throw new OperatingError('storeUnavailable', 'gone'); } }), twins);
  await expect(gone.step(arrivalsOf([second], 1), position(2), keysOf)).rejects.toMatchObject({ code: 'storeUnavailable' });
  expect(await view.position()).toBe(position(1));
});

// ---- how large a commit may be -----------------------------------------------------------------------------------------

interface Made { readonly position: Position; readonly changes: number; readonly bytes: number }

/** Remembers every commit that it lets through. */
function watched(view: View, commitMax: CommitSize | null): { readonly view: View; readonly made: Made[] } {
  const made: Made[] = [];
  const sizeOf = ({ documents, records, position: at }: Commit): Made => ({
    position: at, changes: documents.size + [...records.values()].reduce((sum, some) => sum + some.length, 0), bytes: [...documents.values()].reduce((sum, text) => sum + (text?.length ?? 0), 0),
  });
  return { made, view: through(view, { commitMax, commit: async (commit) => { made.push(sizeOf(commit)); return view.commit(commit); } }) };
}

/** Of each event alone, after those before it. */
async function effects(projection: Projection, arrivals: readonly Arrival[]): Promise<readonly Made[]> {
  const { view, made } = watched(await viewOf(projection), null);
  const target = await targetOn(view, projection);
  for (const arrival of arrivals) await target.step([arrival], arrival.position, keysOf);
  return made;
}

const PROJECTIONS = [journeys, persons] as const;

test('G3: commits to a view that is read keep to its size, whole events each, and end as one commit would', async () => {
  const max = fc.record({ changes: fc.integer({ min: 1, max: 12 }), bytes: fc.integer({ min: 200, max: 5000 }) });
  await fc.assert(fc.asyncProperty(arbitraryEvents(30), max, fc.constantFrom(1500, 1e7), fc.integer({ min: 1, max: 30 }), async (events, commitMax, stepBytesMax, size) => {
    const arrivals = arrivalsOf(events);
    for (const projection of PROJECTIONS) {
      const { view, made } = watched(await viewOf(projection), commitMax);
      const target = await targetOn(view, projection, stepBytesMax);
      for (let from = 0; from < arrivals.length; from += size) {
        const some = arrivals.slice(from, from + size);
        expect(await target.step(some, some.at(-1)?.position ?? position(1), keysOf)).toMatchObject({ kind: 'committed', events: some.length });
      }
      expect(target.work.events).toBe(arrivals.length);
      const places = [position(0), ...made.map(({ position: at }) => at)].map(Number);
      for (const [i, { changes, bytes }] of made.entries()) {
        // Larger is what one event alone does.
        if (changes > commitMax.changes || bytes > commitMax.bytes) expect((places[i + 1] ?? 0) - (places[i] ?? 0)).toBe(1);
      }
      const whole = await targetOn(await viewOf(projection), projection);
      await whole.step(arrivals, position(arrivals.length), keysOf);
      expect(await view.digest()).toBe(await whole.view.digest());
    }
  }), { numRuns: 40 });
});

test('G3: a step folded in parts commits what one fold would, documents and records', async () => {
  await fc.assert(fc.asyncProperty(arbitraryEvents(40), fc.integer({ min: 1, max: 20 }), fc.integer({ min: 1, max: 12 }), async (events, foldMax, size) => {
    const arrivals = arrivalsOf(events);
    for (const projection of PROJECTIONS) {
      const records = new MemoryDocuments(projection);
      const inner = await viewOf(projection);
      const view = through(inner, { commit: async (commit) => {
        for (const changes of commit.records.values()) {
          expect(new Set(changes.map(({ key }) => key)).size).toBe(changes.length);
          records.apply({ documents: new Map(), records: changes });
        }
        return inner.commit(commit);
      } });
      const target = await targetOn(view, projection, 1e7, foldMax);
      for (let from = 0; from < arrivals.length; from += size) await target.step(arrivals.slice(from, from + size), position(Math.min(from + size, arrivals.length)), keysOf);
      const whole = new MemoryDocuments(projection);
      whole.fold(events);
      expect(records.snapshot().records).toEqual(whole.snapshot().records);
      const atOnce = await targetOn(await viewOf(projection), projection);
      await atOnce.step(arrivals, position(arrivals.length), keysOf);
      expect(await inner.digest()).toBe(await atOnce.view.digest());
    }
  }), { numRuns: 60 });
});

test('a large step that is to stop is given up between two parts, commits nothing, and is taken up again', async () => {
  const customers = ['one', 'other'].map((key, i) => ({ ...event(`e${i}`, i, [{ kind: 'started', interaction: `x:${i}` }]), identity: { key, type: 'phone', value: key, evidence: true, anonymous: false } }));
  const arrivals = arrivalsOf(customers);
  const inner = await viewOf(journeys);
  const stop = new AbortController();
  let asked = 0;
  const target = await targetOn(through(inner, { load: async (keys) => {
    asked += 1;
    stop.abort();
    return inner.load(keys);
  } }), journeys, 1e7, 1);
  expect(await target.step(arrivals, position(2), keysOf, stop.signal)).toEqual({ kind: 'stopped' });
  expect([await inner.position(), target.position]).toEqual([null, null]);
  const atFirst = asked;
  expect((await target.step(arrivals, position(2), keysOf, new AbortController().signal)).kind).toBe('committed');
  // The first part too: what it had changed in memory was forgotten.
  expect(asked).toBeGreaterThan(atFirst * 2 - 1);
  const whole = await targetOn(await viewOf(journeys), journeys);
  await whole.step(arrivals, position(2), keysOf);
  expect(await inner.digest()).toBe(await whole.view.digest());
});

test('what nobody reads yet is committed at once, what somebody does in parts, and never both in one', async () => {
  const events = Array.from({ length: 60 }, (_, i) => event(`e${String(i).padStart(3, '0')}`, i, [{ kind: 'started', interaction: `x:${i}` }]));
  const commitMax = { changes: 12, bytes: 1e6 };
  const { view, made } = watched(await viewOf(journeys, position(41)), commitMax);
  const target = await targetOn(view, journeys);
  await target.step(arrivalsOf(events), position(70), keysOf);
  expect(made[0]?.position).toBe(position(40));
  expect(made[0]?.changes).toBeGreaterThan(40);
  expect(Math.max(...made.slice(1).map(({ changes }) => changes))).toBeLessThanOrEqual(commitMax.changes);
  expect(made.at(-1)?.position).toBe(position(70));
  // The batch ends where readers begin: its last position is committed by itself.
  const early = watched(await viewOf(journeys, position(60)), commitMax);
  await (await targetOn(early.view, journeys)).step(arrivalsOf(events.slice(0, 30)), position(60), keysOf);
  expect(early.made.map(({ position: at, changes }) => [at, changes > commitMax.changes])).toEqual([[position(30), true], [position(60), false]]);
});

test('the size of a step is learned: hardly an event is folded twice', async () => {
  const events = Array.from({ length: 2000 }, (_, i) => event(`e${String(i).padStart(4, '0')}`, i, [{ kind: 'started', interaction: `x:${i % 300}` }, { kind: 'waiting', interaction: `x:${i % 300}`, queue: { id: `q${i % 7}` } }]));
  let folded = 0;
  const counted: Projection = { ...journeys, fold: (some, context) => { folded += some.length; return journeys.fold(some, context); } };
  const { view, made } = watched(await viewOf(counted), { changes: 100, bytes: 1e6 });
  const target = await targetOn(view, counted);
  for (let from = 0; from < events.length; from += 500) await target.step(arrivalsOf(events.slice(from, from + 500), from), position(from + 500), keysOf);
  expect(Math.max(...made.map(({ changes }) => changes))).toBeLessThanOrEqual(100);
  expect(folded).toBeLessThan(1.2 * events.length);
  // Some 80 changes of 100 each.
  const alone = (await effects(journeys, arrivalsOf(events.slice(0, 300)))).reduce((sum, { changes }) => sum + changes, 0) / 300;
  expect(made.length).toBeLessThan((events.length * alone) / 60);
});
