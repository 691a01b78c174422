// Whether a look at what answers finds what is wrong with it, and nothing that is not: one journey or person from its own
// streams, all of them from the whole log, and the audit that goes round by itself.
import fc from 'fast-check';
import { setImmediate } from 'node:timers/promises';
import type { NodeDocument } from '../../projections/documents.ts';
import { journeys } from '../../projections/journeys.ts';
import { parseInstant } from '../../schemas/time.ts';
import type { CloudEvent } from '../../schemas/cloudevent.ts';
import { MemoryEventStore } from '../../services/adapters/memory-events.ts';
import { MemoryViewStore } from '../../services/adapters/memory-views.ts';
import { Door } from '../../services/door.ts';
import { OperatingError } from '../../services/errors.ts';
import type { EventStore, View, ViewStore } from '../../services/ports.ts';
import { audit, type Audited } from '../../services/projector/audit.ts';
import { verifyAll, verifyJourney, verifyPerson, type Verified } from '../../services/projector/verify.ts';
import { keysFor, keysOf, liveView, project, recorded, ROOM } from '../support/folds.ts';
import { second } from '../support/facts.ts';
import { through, throughStore } from '../support/views.ts';

const ACME = keysFor('acme');

async function subjects(view: View, space: 'j' | 'p'): Promise<readonly { readonly workspace: string; readonly key: string; readonly document: string; readonly text: string }[]> {
  const { documents } = await view.walk(null, 100_000);
  return documents.flatMap(({ key, value }) => {
    const [workspace = '', at, name = ''] = key.split('/');
    return at === space ? [{ workspace, key: name, document: key, text: value }] : [];
  });
}

async function checkAll(events: EventStore, views: ViewStore): Promise<readonly Verified[]> {
  const [ofJourneys, ofPersons] = [await liveView(views, 'journeys'), await liveView(views, 'persons')];
  const found: Verified[] = [];
  for (const { workspace, key } of await subjects(ofJourneys, 'j')) found.push(await verifyJourney({ events, view: ofJourneys, keys: keysFor(workspace) }, key));
  for (const { workspace, key } of await subjects(ofPersons, 'p')) found.push(await verifyPerson({ events, view: ofPersons, keys: keysFor(workspace) }, key));
  return found;
}

/** A text changed where it lies: no digest moves. */
async function plant(views: ViewStore, group: 'journeys' | 'persons', document: string, text: string | null): Promise<void> {
  const view = await liveView(views, group);
  const position = await view.position();
  if (position === null) throw new Error('nothing folded');
  expect(await view.commit({ expected: position, position, role: 'live', documents: new Map([[document, text]]), records: new Map(), digest: await view.digest() })).toEqual({ kind: 'committed' });
}
const otherwise = (text: string): string => text.replace(/\d(?=\D)/, (digit) => String((Number(digit) + 1) % 10));

/** Some events of one customer each, or of nobody, or known by their subject. */
async function said(...given: readonly { readonly identity?: string; readonly subject?: string; readonly interaction: string; readonly linkedTo?: string; readonly type?: string }[]): Promise<{ readonly events: EventStore; readonly views: ViewStore }> {
  const events = new MemoryEventStore({ storeId: 'store' });
  const door = new Door({ store: events, clock: { now: () => Date.UTC(2026, 2, 3) }, random: (size) => new Uint8Array(size), sleep: async () => undefined, tallies: new MemoryViewStore() });
  for (const [n, { identity, subject, interaction, linkedTo, type = 'started' }] of given.entries()) {
    const attributes = { specversion: '1.0', id: String(n), source: 's', type: `org.throughline.interaction.${type}`, time: String(second(n)), ...(identity === undefined ? {} : { identity, identitytype: 'phone' }), ...(subject === undefined ? {} : { subject }) };
    const event: CloudEvent = { id: attributes.id, source: 's', type: attributes.type, time: parseInstant(attributes.time), attributes, dataKind: 'json', data: Buffer.from(JSON.stringify({ interactionId: interaction, ...(linkedTo === undefined ? {} : { linkedTo }) })) };
    await door.receive(ACME, [{ kind: 'event', event }]);
  }
  await door.drain();
  const views = new MemoryViewStore();
  await project(events, views);
  return { events, views };
}

describe('one journey or person, from its own streams', () => {
  test('G3: is found right wherever the view is, whatever the events said; what streams alone cannot tell is said', async () => {
    let [checked, all] = [0, 0];
    await fc.assert(fc.asyncProperty(fc.integer({ min: 1, max: 10_000 }), fc.integer({ min: 5, max: 80 }), async (seed, count) => {
      const events = await recorded(seed, count);
      const views = new MemoryViewStore();
      await project(events, views);
      const found = await checkAll(events, views);
      for (const one of found) if (one.kind !== 'unknown') expect(one).toEqual({ kind: 'checked', differences: [] });
      checked += found.filter(({ kind }) => kind === 'checked').length;
      all += found.length;
    }), { numRuns: 30 });
    expect(checked / all).toBeGreaterThan(0.6);
  });

  test('G3: a text that was changed, of any of its documents, or that is missing, is found with both texts', async () => {
    const events = await recorded(61, 60);
    const views = new MemoryViewStore();
    await project(events, views);
    const view = await liveView(views, 'journeys');
    const [journey] = await subjects(view, 'j');
    const [person] = await subjects(await liveView(views, 'persons'), 'p');
    if (journey === undefined || person === undefined) throw new Error('nothing folded');
    await plant(views, 'journeys', journey.document, otherwise(journey.text));
    expect(await verifyJourney({ events, view, keys: keysFor(journey.workspace) }, journey.key)).toEqual({ kind: 'checked', differences: [{ key: journey.document, live: otherwise(journey.text), built: journey.text }] });
    await plant(views, 'journeys', journey.document, journey.text);
    const node = (await view.walk(null, 100_000)).documents.find(({ key, value }) => key.startsWith(`${journey.workspace}/n/`) && (journeys.unpack(key.split('/').slice(1).join('/'), value) as unknown as NodeDocument).journey === journey.key);
    if (node === undefined) throw new Error('a journey without a node');
    await plant(views, 'journeys', node.key, otherwise(node.value));
    const verified = await verifyJourney({ events, view, keys: keysFor(journey.workspace) }, journey.key);
    expect(verified.kind === 'checked' && verified.differences.map(({ key }) => key)).toEqual([node.key]);
    await plant(views, 'persons', person.document, otherwise(person.text));
    const found = await verifyPerson({ events, view: await liveView(views, 'persons'), keys: keysFor(person.workspace) }, person.key);
    expect(found.kind === 'unknown' || (found.kind === 'checked' && found.differences.length > 0)).toBe(true);
    expect(await verifyJourney({ events, view, keys: ACME }, 'f'.repeat(32))).toEqual({ kind: 'gone' });
  });

  test('is told of nobody\'s calls too; of what is known by its subject alone it is said that it cannot be', async () => {
    const { events, views } = await said({ identity: 'anonymous', interaction: 'a' }, { identity: '+15550100100', interaction: 'b' }, { identity: 'anonymous', interaction: 'b', type: 'ended' }, { subject: 'cart-1', interaction: 'c' });
    const kinds = (await checkAll(events, views)).map((one) => (one.kind === 'unknown' ? one.why : one));
    expect(kinds).toContainEqual({ kind: 'checked', differences: [] });
    expect(kinds.filter((one) => typeof one === 'string')).toEqual(['it has events that are known by their subject alone']);
    expect(kinds.filter((one) => typeof one !== 'string').every((one) => typeof one !== 'string' && one.kind === 'checked' && one.differences.length === 0)).toBe(true);
  });

  test('an id that links more than a hundred interactions is left to all', async () => {
    const { events, views } = await said(...Array.from({ length: 102 }, (_, n) => ({ identity: `+1555010${String(n).padStart(4, '0')}`, interaction: `i${String(n)}`, linkedTo: 'hub' })));
    const found = await checkAll(events, views);
    expect(found.some((one) => one.kind === 'unknown' && one.why.includes('100'))).toBe(true);
    expect(found.filter((one) => one.kind === 'checked').every(({ differences }) => differences.length === 0)).toBe(true);
  });

  test('one that is committed to meanwhile is looked at again', async () => {
    const events = await recorded(62, 30);
    const views = new MemoryViewStore();
    await project(events, views);
    const view = await liveView(views, 'journeys');
    const [journey] = await subjects(view, 'j');
    if (journey === undefined) throw new Error('nothing folded');
    let looks = 0;
    const torn = through(view, { position: async () => { looks += 1; return looks < 4 ? String(looks).padStart(20, '0') as Awaited<ReturnType<View['position']>> : view.position(); } });
    expect(await verifyJourney({ events, view: torn, keys: keysFor(journey.workspace) }, journey.key)).toMatchObject({ kind: 'checked', differences: [] });
    expect(looks).toBeGreaterThan(4);
  });
});

describe('all of them, from the whole log', () => {
  const verified = async (events: EventStore, views: ViewStore, group: 'journeys' | 'persons') => verifyAll({
    events, views, scratch: new MemoryViewStore(), live: (await liveView(views, group)).generation, keysOf, room: { ...ROOM, batchMax: 20 }, clock: Date, wait: async () => { await setImmediate(); }, signal: new AbortController().signal, onProgress: () => undefined,
  });

  test('G3: nothing is found where nothing is wrong, in any number of shards; the log is read once', async () => {
    for (const shards of [1, 3]) {
      const events = await recorded(63, 90, ['acme', 'rival', 'w1', 'w2']);
      const views = new MemoryViewStore();
      await project(events, views, { shards });
      let read = 0;
      const counted: EventStore = Object.assign(Object.create(events) as EventStore, { subscribe: async function* (options: Parameters<EventStore['subscribe']>[0]) {
        for await (const batch of events.subscribe(options)) {
          read += batch.events.length;
          yield batch;
        }
      }, storeId: events.storeId, head: () => events.head() });
      expect(await verified(counted, views, 'journeys')).toMatchObject({ equal: true, differences: [], more: false, events: 90 });
      expect(read).toBe(90);
    }
  });

  test('G3: a text changed where it lies, one too many and one too few are each found, though every digest agrees', async () => {
    const events = await recorded(64, 60);
    const views = new MemoryViewStore();
    await project(events, views);
    const [one, other] = await subjects(await liveView(views, 'persons'), 'p');
    if (one === undefined || other === undefined) throw new Error('nothing folded');
    await plant(views, 'persons', one.document, otherwise(one.text));
    await plant(views, 'persons', other.document, null);
    await plant(views, 'persons', 'acme/p/000000000000000000000000', '[]');
    const found = await verified(events, views, 'persons');
    expect(found?.equal).toBe(false);
    expect([...(found?.differences ?? [])].sort((a, b) => (a.key < b.key ? -1 : 1))).toEqual([
      { key: one.document, live: otherwise(one.text), built: one.text }, { key: other.document, live: null, built: other.text }, { key: 'acme/p/000000000000000000000000', live: '[]', built: null },
    ].sort((a, b) => (a.key < b.key ? -1 : 1)));
  });
});

describe('the audit', () => {
  /** Goes round until so many were looked at. */
  const rounds = async (events: EventStore, views: ViewStore, count: number, owned: readonly number[] | 'all' = 'all'): Promise<{ readonly told: readonly Audited[]; readonly waits: readonly number[]; readonly faults: readonly OperatingError[] }> => {
    const stop = new AbortController();
    const told: Audited[] = [];
    const waits: number[] = [];
    const faults: OperatingError[] = [];
    await audit({
      events, views, keysOf, owned: () => owned, parts: 2, roundMs: 86_400_000, signal: stop.signal, onFault: (fault) => { faults.push(fault); },
      wait: async (ms) => { waits.push(ms); if (waits.length > count * 3) stop.abort(); await setImmediate(); },
      onChecked: (audited) => { told.push(audited); if (told.length >= count) stop.abort(); },
    });
    return { told, waits, faults };
  };

  test('G3: looks at every journey and person once in a day, and tells a difference by hashes alone', async () => {
    const events = await recorded(65, 60);
    const views = new MemoryViewStore();
    await project(events, views);
    const all = [...await subjects(await liveView(views, 'journeys'), 'j'), ...await subjects(await liveView(views, 'persons'), 'p')];
    const [journey] = all;
    if (journey === undefined) throw new Error('nothing folded');
    await plant(views, 'journeys', journey.document, otherwise(journey.text));
    const { told, waits } = await rounds(events, views, all.length);
    expect(told.length).toBe(all.length);
    const different = told.flatMap(({ differences }) => differences);
    expect(different.map(({ key }) => key)).toEqual([journey.document]);
    expect(different[0]).toEqual({ key: journey.document, live: expect.stringMatching(/^[0-9a-f]{32}$/) as string, built: expect.stringMatching(/^[0-9a-f]{32}$/) as string });
    expect(different[0]?.live).not.toBe(different[0]?.built);
    // Spread over the day: about as long between two as there are of them in it.
    const total = waits.reduce((sum, ms) => sum + ms, 0);
    expect(total).toBeGreaterThan(86_400_000 / 4);
    expect(Math.max(...waits)).toBeLessThanOrEqual(86_400_000);
  });

  test('looks at the shards that are folded here, leaves what another version folded alone, and goes on after a fault', async () => {
    const events = await recorded(66, 60, ['acme', 'rival', 'w1', 'w2', 'w3']);
    const views = new MemoryViewStore();
    await project(events, views, { shards: 2 });
    const own = await views.view('journeys', 1, 1);
    const ours = await subjects(own, 'j');
    const { told } = await rounds(events, views, ours.length, [1]);
    expect(told.length).toBe(ours.length);
    const stale = throughStore(views, { generations: async (group) => (await views.generations(group)).map((one) => ({ ...one, version: 'another' })) });
    expect((await rounds(events, stale, 3)).told).toEqual([]);
    let away = 2;
    const flaky = throughStore(views, { live: async (group) => { if (away-- > 0) throw new OperatingError('storeUnavailable', 'away'); return views.live(group); } });
    const after = await rounds(events, flaky, 5);
    expect([after.faults.length, after.told.length]).toEqual([2, 5]);
  });
});
