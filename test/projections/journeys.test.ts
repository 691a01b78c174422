import fc from 'fast-check';
import type { AccountValue, JourneyDocument, NodeDocument, OutcomeCell, Transition } from '../../projections/documents.ts';
import { accountKey, JOURNEY_FILTERS, type JourneyLimits, journeys, journeysWithin, LIMITS, TRANSITION_FILTERS } from '../../projections/journeys.ts';
import { contributionOf, OutcomeDelta } from '../../projections/outcomes.ts';
import { type FoldContext, type Json, runFold } from '../../projections/projection.ts';
import { placeKey } from '../../projections/transitions.ts';
import type { InteractionFactBody, InteractionId, Interpreted } from '../../schemas/facts.ts';
import { compareFacts } from '../../schemas/facts.ts';
import { nodeKey } from '../../schemas/identity.ts';
import { arbitraryArrival, arbitraryEvents, CONTEXT, event, MemoryDocuments, second, START_MS, story } from '../support/facts.ts';

const SMALL: JourneyLimits = { interactionFacts: 7, journeyFacts: 11, factChunk: 2, transitionChunk: 3, neighbours: 3 };
const ROOMY: JourneyLimits = { interactionFacts: 100, journeyFacts: 200, factChunk: 4, transitionChunk: 5, neighbours: 100 };
const WAITS: InteractionFactBody = { kind: 'waiting', queue: { id: 'q1' } };

function folded(...batches: (readonly Interpreted[])[]): MemoryDocuments {
  const view = new MemoryDocuments(journeys);
  for (const batch of batches) view.fold(batch);
  return view;
}

/** The journey that an id answers with, as a reader finds it. */
function find(view: MemoryDocuments, id: string): JourneyDocument | null {
  const node = view.read(`n/${nodeKey(CONTEXT, id)}`) as NodeDocument | null;
  return node?.journey === null || node === null ? null : (view.read(`j/${node.journey}`) as JourneyDocument);
}

function ids(view: MemoryDocuments): string[] {
  return view.keys('j').map((key) => (view.read(key) as JourneyDocument).row.journeyId);
}

const derived = (id: InteractionId): string => CONTEXT.hash('node', id);

describe('a function of the set of events', () => {
  test.each([['limits that bite', SMALL], ['roomy limits', ROOMY]])('G3: any order, duplication and batching gives the same documents and records, byte for byte (%s)', (_, limits) => {
    const projection = journeysWithin(limits);
    fc.assert(fc.property(arbitraryArrival(arbitraryEvents(24)), ({ events, batches }) => {
      const whole = new MemoryDocuments(projection);
      whole.fold([...events].sort((a, b) => (a.at < b.at ? -1 : a.at > b.at ? 1 : 0)));
      const parts = new MemoryDocuments(projection);
      for (const batch of batches) parts.fold(batch);
      expect(parts.snapshot()).toEqual(whole.snapshot());
    }), { numRuns: 80 });
  });

  test('G3: one event at a time in order gives what all at once gives', () => {
    fc.assert(fc.property(arbitraryEvents(30), (events) => {
      const inOrder = [...events].sort((a, b) => (a.at < b.at ? -1 : a.at > b.at ? 1 : a.eventId < b.eventId ? -1 : 1));
      const parts = new MemoryDocuments(journeysWithin(ROOMY));
      for (const one of inOrder) parts.fold([one]);
      const whole = new MemoryDocuments(journeysWithin(ROOMY));
      whole.fold(events);
      expect(parts.snapshot()).toEqual(whole.snapshot());
    }), { numRuns: 60 });
  });

  test('G3: what was folded already changes nothing and writes nothing', () => {
    fc.assert(fc.property(arbitraryEvents(20), (events) => {
      const view = new MemoryDocuments(journeysWithin(SMALL));
      view.fold(events);
      const before = view.snapshot();
      view.fold(events.slice(0, 5));
      expect([view.work.written, view.work.records]).toEqual([0, 0]);
      expect(view.snapshot()).toEqual(before);
    }), { numRuns: 60 });
  });

  test('G3: neither the time of recording nor a place in the log enters', () => {
    fc.assert(fc.property(arbitraryEvents(20), (events) => {
      const [now, later] = [new MemoryDocuments(journeys), new MemoryDocuments(journeys)];
      now.fold(events);
      later.fold(events.map((one) => ({ ...one, recordedAt: second(1e6) })));
      expect(later.snapshot()).toEqual(now.snapshot());
    }), { numRuns: 30 });
  });

  test('every journey is counted in exactly one cell, as it is', () => {
    fc.assert(fc.property(arbitraryArrival(arbitraryEvents(20)), ({ batches }) => {
      const view = new MemoryDocuments(journeysWithin(SMALL));
      for (const batch of batches) view.fold(batch);
      const delta = new OutcomeDelta(CONTEXT);
      for (const key of view.keys('j')) {
        const { row, state } = view.read(key) as JourneyDocument;
        const last = row.queues.find((queue) => placeKey(queue) === state.timeline.lastQueue) ?? null;
        delta.move(null, contributionOf(row, last));
      }
      const counted = new Map(delta.keys().map((key) => [key, delta.apply(key, null)]));
      expect(new Map(view.keys('o').map((key) => [key, view.read(key) as OutcomeCell]))).toEqual(counted);
    }), { numRuns: 60 });
  });

  test('what agents worked on after a conversation adds up to the journey\'s, also where its transitions stand in chunks', () => {
    fc.assert(fc.property(arbitraryArrival(arbitraryEvents(30)), ({ batches }) => {
      const view = new MemoryDocuments(journeysWithin(SMALL));
      for (const batch of batches) view.fold(batch);
      for (const key of view.keys('j')) {
        const { row, chunks, transitions } = view.read(key) as JourneyDocument;
        const all = [...Array.from({ length: chunks }, (_, chunk) => view.read(`t/${key.slice(2)}/${String(chunk)}`) as Transition[]).flat(), ...transitions];
        expect(all.reduce((sum, { wrapUp }) => sum + wrapUp, 0)).toBe(row.wrapUpDuration);
      }
    }), { numRuns: 60 });
  });

  test('the account has the PBXes and tenants that events named, whatever their journeys kept', () => {
    fc.assert(fc.property(arbitraryArrival(arbitraryEvents(20)), ({ batches }) => {
      const view = new MemoryDocuments(journeysWithin(SMALL));
      for (const batch of batches) view.fold(batch);
      const said = batches.flat().flatMap(({ interactionFacts }) => interactionFacts).flatMap((fact) => (fact.kind === 'started' ? [['pbx', fact.pbx], ['pbx', fact.entryPoint?.pbx], ['pbx', fact.origin?.pbx], ['tenant', fact.tenant], ['tenant', fact.entryPoint?.tenantId]] as const : []));
      const expected = new Set(said.filter(([, value]) => typeof value === 'string').map(([kind, value]) => JSON.stringify([kind, value])));
      expect(new Set(view.keys('a').map((key) => { const { kind, value } = view.read(key) as AccountValue; return JSON.stringify([kind, value]); }))).toEqual(expected);
      for (const key of view.keys('a')) { const { kind, value } = view.read(key) as AccountValue; expect(accountKey(CONTEXT, kind, value)).toBe(key); }
    }), { numRuns: 60 });
  });

  test('no value of a customer or a platform stands in a key', () => {
    fc.assert(fc.property(arbitraryEvents(20), (events) => {
      const view = new MemoryDocuments(journeysWithin(SMALL));
      view.fold(events);
      for (const key of view.texts.keys()) expect(key).toMatch(/^([nj]\/[0-9a-f]{32}|a\/(pbx|tenant)\/[0-9a-f]{32}|[ft]\/[0-9a-f]{32}\/\d+|o\/\d{12}\/[0-9a-f]{32})$/);
    }), { numRuns: 30 });
  });

  test('facts of one instant fold in the order of compareFacts, whatever their ties', () => {
    const ties = [-4_000_000_000, -300, -1, 0, 1, 7, 3_000_000_000];
    const events = ties.map((tie, i) => event(`e${i}`, 0, [{ interaction: 'x:1', kind: 'described', topics: [String(tie)], tie }]));
    const topics = (find(folded([...events].reverse()), derived('x:1'))?.row.topics ?? []).map(Number);
    const order = events.flatMap(({ interactionFacts }) => interactionFacts).sort(compareFacts).map(({ tie }) => tie);
    expect(topics).toEqual(order);
  });
});

describe('which interactions form a journey', () => {
  const one = story('x:1', [[0, { kind: 'started' }, WAITS]]);
  const two = story('x:2', [[60, { kind: 'started' }, WAITS]]);
  const link = [event('link', 90, [{ interaction: 'x:2', kind: 'linked', to: 'x:1' }])];

  test('a late link joins two journeys, and both ids answer with the one', () => {
    const apart = folded(one, two);
    expect(ids(apart).sort()).toEqual([derived('x:1'), derived('x:2')].sort());
    const view = folded(one, two, link);
    expect(ids(view)).toEqual([derived('x:1')]);
    for (const id of ['x:1', 'x:2'] as const) expect(find(view, derived(id))?.row.interactions.map((interaction) => interaction.id)).toEqual(['1', '2']);
    expect([...view.records.keys()]).toEqual([derived('x:1')]);
    // The journey that was absorbed is counted no more.
    expect(view.keys('o').map((key) => (view.read(key) as OutcomeCell).journeys)).toEqual([1]);
  });

  test('links to an interaction of which nothing is said yet wait for it', () => {
    const view = folded(link);
    expect(find(view, derived('x:1'))?.row.interactions.map(({ id }) => id)).toEqual(['2']);
    view.fold(one);
    expect(find(view, derived('x:2'))?.row.interactions.map(({ id }) => id)).toEqual(['1', '2']);
  });

  test('an explicit id names the journey, and every id it ever had answers', () => {
    const view = folded(one, two, [event('j1', 91, [{ interaction: 'x:2', kind: 'journey', journeyId: 'CASE-2' }])], link);
    expect(ids(view)).toEqual(['CASE-2']);
    view.fold([event('j0', 92, [{ interaction: 'x:1', kind: 'journey', journeyId: 'CASE-1' }])]);
    // That of the earliest interaction that has one, although it was said last.
    expect(ids(view)).toEqual(['CASE-1']);
    for (const id of ['CASE-1', 'CASE-2', derived('x:1'), derived('x:2')]) expect(find(view, id)?.row.journeyId).toBe('CASE-1');
    expect([...view.records.values()].map(({ state }) => [...(state.terms['journeyId'] ?? [])].sort())).toEqual([['CASE-1', 'CASE-2', derived('x:1'), derived('x:2')].map((id) => CONTEXT.term('journeyId', id)).sort()]);
  });

  test('of two explicit ids of one interaction the earlier is taken, and of two at once the smaller', () => {
    const said = (eventId: string, seconds: number, journeyId: string): Interpreted => event(eventId, seconds, [{ interaction: 'x:1', kind: 'journey', journeyId }]);
    expect(ids(folded([said('a', 5, 'B'), said('b', 4, 'C')]))).toEqual(['C']);
    expect(ids(folded([said('a', 5, 'B'), said('b', 5, 'A')]))).toEqual(['A']);
  });

  test('an id that we gave, published back, joins that journey', () => {
    const view = folded(one, two, [event('back', 95, [{ interaction: 'x:2', kind: 'journey', journeyId: derived('x:1') }])]);
    expect(ids(view)).toEqual([derived('x:1')]);
    expect(find(view, derived('x:2'))?.row.interactions).toHaveLength(2);
  });

  test('an id that would link more than 100 interactions gives neither links nor a journey id', () => {
    const many = Array.from({ length: 101 }, (_, i) => event(`e${i}`, i, [{ interaction: `x:${i}`, kind: 'started' }, { interaction: `x:${i}`, kind: 'journey', journeyId: 'constant' }]));
    const view = folded(many.slice(0, 100));
    expect(ids(view)).toEqual(['constant']);
    expect(find(view, 'constant')?.row.interactions).toHaveLength(100);
    view.fold(many.slice(100));
    expect(ids(view).sort()).toEqual(many.map((_, i) => derived(`x:${i}`)).sort());
    expect(find(view, 'constant')).toBeNull();
    expect(view.records.size).toBe(101);
  });

  test('what hung together by such an id alone falls apart, what is linked otherwise stays', () => {
    const pair = [...one, ...two, ...link, event('j', 1, [{ interaction: 'x:1', kind: 'journey', journeyId: 'constant' }])];
    const many = Array.from({ length: 100 }, (_, i) => event(`m${i}`, i, [{ interaction: `m:${i}`, kind: 'journey', journeyId: 'constant' }]));
    const view = folded(pair, many);
    expect(find(view, derived('x:2'))?.row.journeyId).toBe(derived('x:1'));
    expect(ids(view)).toHaveLength(101);
  });
});

describe('limits', () => {
  const facts = (count: number, from = 0): Interpreted[] => Array.from({ length: count }, (_, i) => event(`e${String(from + i).padStart(6, '0')}`, from + i, [{ interaction: 'x:1', kind: 'described', data: { at: String(from + i) } }]));

  test('an interaction keeps its first 5,000 facts in order, and says so', () => {
    const view = folded(facts(LIMITS.interactionFacts));
    expect(find(view, derived('x:1'))?.row).toMatchObject({ truncated: false, data: { at: '4999' } });
    view.fold(facts(1, 5000));
    expect(find(view, derived('x:1'))?.row).toMatchObject({ truncated: true, data: { at: '4999' } });
    // An earlier one pushes the last out.
    view.fold([event('early', -1, [{ interaction: 'x:1', kind: 'described', data: { early: 'yes' } }])]);
    expect(find(view, derived('x:1'))?.row).toMatchObject({ truncated: true, data: { at: '4998', early: 'yes' } });
    expect((view.read(`n/${derived('x:1')}`) as NodeDocument).truncated).toBe(true);
  });

  test('links count wherever their fact stands, also past the limit', () => {
    const small = new MemoryDocuments(journeysWithin(SMALL));
    small.fold(facts(7));
    small.fold([event('z', 100, [{ interaction: 'x:1', kind: 'linked', to: 'x:2' }, { interaction: 'x:2', kind: 'described', topics: ['other'] }])]);
    expect(find(small, derived('x:2'))?.row).toMatchObject({ journeyId: derived('x:1'), truncated: true, topics: ['other'] });
  });

  test('a journey folds the first facts of all its interactions, and says so', () => {
    const small = new MemoryDocuments(journeysWithin({ ...SMALL, journeyFacts: 4 }));
    small.fold([...story('x:1', [[0, WAITS], [2, WAITS], [4, WAITS]]), ...story('x:2', [[1, { kind: 'linked', to: 'x:1' }, { kind: 'described', topics: ['in'] }], [3, { kind: 'described', topics: ['out'] }]])]);
    expect(find(small, derived('x:1'))?.row).toMatchObject({ truncated: true, topics: ['in'] });
  });
});

describe('work', () => {
  test('a journey of 5,000 facts in time order costs the same with every event', () => {
    // Kept as objects, as the projector does; sizes are looked at now and then.
    const documents = new Map<string, Json>();
    const kinds: readonly InteractionFactBody[] = [{ kind: 'held', agents: [{ id: 'a1' }] }, { kind: 'resumed', agents: [{ id: 'a1' }] }, { kind: 'transferred', to: { queue: { id: 'q1' } } }, { kind: 'talking', agents: [{ id: 'a1' }] }];
    const most = { loaded: 0, written: 0, bytes: 0, terms: 0 };
    for (let i = 0; i < LIMITS.journeyFacts; i += 1) {
      let loaded = 0;
      const body = i === 0 ? { kind: 'joined', role: 'agent', participantId: 'a1', agent: { id: 'a1' } } as const : (kinds[i % 4] ?? WAITS);
      const changes = runFold(journeys.fold([event(`e${String(i).padStart(6, '0')}`, i, [{ interaction: 'x:1', ...body }])], CONTEXT), (key) => { loaded += 1; return documents.get(key) ?? null; });
      for (const [key, value] of changes.documents) documents.set(key, value);
      most.loaded = Math.max(most.loaded, loaded);
      most.written = Math.max(most.written, changes.documents.size);
      most.terms = Math.max(most.terms, ...changes.records.flatMap(({ subs }) => [...(subs?.values() ?? [])]).map((chunk) => chunk?.length ?? 0));
      // A prime, so that it falls on every kind of fact and on every place in a chunk.
      if (i % 37 === 0) most.bytes = Math.max(most.bytes, [...changes.documents.values()].reduce((sum: number, value) => sum + JSON.stringify(value).length, 0));
    }
    const document = documents.get(`j/${derived('x:1')}`) as unknown as JourneyDocument;
    expect(document.row.truncated).toBe(false);
    expect(document.chunks).toBeGreaterThan(90);
    // The node, the journey, at most one chunk of transitions; the old and the new outcome cell. Written also: a chunk of facts that is full.
    expect(most.loaded).toBeLessThanOrEqual(5);
    expect(most.written).toBeLessThanOrEqual(6);
    expect(most.bytes).toBeLessThan(140_000);
    expect(most.terms).toBeLessThanOrEqual(LIMITS.transitionChunk);
  });

  test('a task id that is sent 20,000 times keeps its first 5,000 facts, and looks at one document with every batch after them', () => {
    const view = new MemoryDocuments(journeys);
    let most = 0;
    for (let from = 0; from < 20_000; from += 500) {
      view.fold(Array.from({ length: 500 }, (_, i) => event(`e${String(from + i).padStart(6, '0')}`, from + i, [{ interaction: 'x:1', ...WAITS }])));
      if (from >= 5500) most = Math.max(most, view.work.loaded, view.work.written);
    }
    expect(most).toBe(1);
    expect(find(view, derived('x:1'))?.row.truncated).toBe(true);
    // All of it: the node, its facts in chunks, the journey and its cell.
    expect(view.texts.size).toBe(Math.floor(LIMITS.interactionFacts / LIMITS.factChunk) + 3);
  });

  test('100,000 interactions of one identity cost two documents each, the last as the first', () => {
    const counts: number[] = [];
    let largest = 0;
    // Names that cost nothing: what is counted is not the hashing.
    const plain: FoldContext = { hash: (...parts) => parts.join().slice(-32).padStart(32, '0'), term: (field, value) => field + value, identityKey: () => null };
    // No batch is given what another left: one of ten stands for all.
    for (let from = 0; from < 100_000; from += 10_000) {
      const batch = Array.from({ length: 1000 }, (_, i) => event(`e${from + i}`, from + i, [{ interaction: `x:${from + i}`, kind: 'started' }]));
      let loaded = 0;
      const { documents, records } = runFold(journeys.fold(batch, plain), (): Json => { loaded += 1; return null; });
      counts.push(loaded + documents.size + records.length);
      for (const document of documents.values()) largest = Math.max(largest, JSON.stringify(document).length);
    }
    // Per event: its node asked for and written, its journey, its record; per batch the cells of two or three quarters, asked for and written.
    expect(Math.max(...counts)).toBeLessThanOrEqual(4006);
    expect(largest).toBeLessThan(4000);
  });

  test('a late fact in a long interaction reads its facts once and rewrites only what follows its place', () => {
    const view = new MemoryDocuments(journeys);
    view.fold(Array.from({ length: 1000 }, (_, i) => event(`e${String(i).padStart(6, '0')}`, i, [{ interaction: 'x:1', ...WAITS }])));
    view.fold([event('late', 990.5, [{ interaction: 'x:1', kind: 'described', topics: ['late'] }])]);
    // The node, its 31 chunks, the journey; written: one of them where the last chunk is full.
    expect(view.work.loaded).toBeLessThanOrEqual(34);
    expect(view.work.written).toBeLessThanOrEqual(4);
    expect(view.work.rounds).toBeLessThanOrEqual(4);
  });
});

describe('filters and index terms', () => {
  test('are those of the newest revision: 51 of journeys, 38 of transitions', () => {
    const seed = 'agents.group.id, agents.group.name, agents.name, entryPoint.extension, entryPoint.id, entryPoint.name, entryPoint.phoneNumber, entryPoint.type, interactions.id, journeyId, mediaTypes, origin.extension, origin.id, origin.name, origin.phoneNumber, origin.type, outboundPhoneCodes.listName, outboundPhoneCodes.name, outboundPhoneCodes.shortCode, pbxNames, queues.extension, queues.id, queues.name, ringGroups.extension, ringGroups.id, ringGroups.name, tenantIds, wrapUpCodes'.split(', ');
    const newest = 'agents.department, agents.email, agents.site.id, agents.site.name, agents.type, aiAgentInformation.toolsUsedSuccessfully.name, contact.email, contact.name, contact.phoneNumber, direction, entryPoint.department, entryPoint.email, entryPoint.site.id, entryPoint.site.name, origin.department, origin.email, origin.site.id, origin.site.name, outcome, queues.site.id, queues.site.name, ringGroups.site.id, ringGroups.site.name'.split(', ');
    expect([seed.length, newest.length]).toEqual([28, 23]);
    expect(Object.keys(JOURNEY_FILTERS).sort()).toEqual([...seed, ...newest].sort());
    const places = ['queue', 'previousQueue', 'ringGroup', 'previousRingGroup', 'autoAttendant'].flatMap((place) => ['extension', 'id', 'name', 'site.id', 'site.name'].map((field) => `transitions.${place}.${field}`));
    const agents = ['agents', 'previousAgents'].flatMap((who) => ['name', 'site.id', 'site.name', 'type'].map((field) => `transitions.${who}.${field}`));
    expect(Object.keys(TRANSITION_FILTERS).sort()).toEqual(['journeyId', 'pbxNames', 'tenantIds', 'transitions.name', 'transitions.interactionId', ...places, ...agents].sort());
    expect(Object.keys(TRANSITION_FILTERS)).toHaveLength(38);
    for (const { field, sub, kind } of [...Object.values(JOURNEY_FILTERS), ...Object.values(TRANSITION_FILTERS)]) expect(sub ? journeys.subFields[field] : journeys.fields[field]).toBe(kind);
    expect(journeys.fields['identity']).toBe('keyed');
  });

  const AGENT = { id: 'a1', name: 'Ann', email: 'ann@x.y', department: 'Sales', group: { id: 'g1', name: 'Team' }, site: { id: 's1', name: 'Cluj' }, type: 'AI' } as const;
  const QUEUE = { id: 'q1', name: 'Sales', extension: '2001', site: { id: 's2', name: 'Iasi' } } as const;
  const END = { id: 'e1', name: 'Line', phoneNumber: '800', extension: '1', email: 'u@x.y', department: 'D', pbx: 'main', tenantId: 't1', site: { id: 's3', name: 'Arad' } } as const;
  const STORY = (direction: 'Inbound' | 'Outbound'): Interpreted[] => story('x:1', [
    [0, { kind: 'started', direction, medium: 'Phone', contact: { name: 'Ana', phoneNumber: '+1555', email: 'ana@x.y' }, entryPoint: { type: 'user', ...END }, origin: { type: 'user', ...END } }, { kind: 'journey', journeyId: 'J' }],
    [1, { kind: 'waiting', queue: QUEUE, ringGroup: { ...QUEUE, id: 'r1' } }], [2, { kind: 'talking', agents: [AGENT] }],
    [3, { kind: 'transferred', to: { autoAttendant: { ...QUEUE, id: 'aa' } } }],
    [4, { kind: 'phoneCodes', codes: [{ listName: 'L', name: 'N', shortCode: 'S' }] }, { kind: 'aiAgent', tools: [{ name: 'book', success: false }] }, { kind: 'wrappedUp', wrapUpCodes: ['W'] }],
  ]);
  const EXPECTED: Readonly<Record<string, string>> = {
    'agents.group.id': 'g1', 'agents.group.name': 'Team', 'agents.name': 'Ann', 'agents.department': 'Sales', 'agents.email': 'ann@x.y', 'agents.site.id': 's1', 'agents.site.name': 'Cluj', 'agents.type': 'AI',
    'aiAgentInformation.toolsUsedSuccessfully.name': 'book', 'contact.email': 'ana@x.y', 'contact.name': 'Ana', 'contact.phoneNumber': '+1555', direction: 'Inbound', outcome: 'Handled',
    'interactions.id': '1', journeyId: 'J', mediaTypes: 'phone', 'outboundPhoneCodes.listName': 'L', 'outboundPhoneCodes.name': 'N', 'outboundPhoneCodes.shortCode': 'S', pbxNames: 'main', tenantIds: 't1', wrapUpCodes: 'W',
    ...Object.fromEntries(['queues', 'ringGroups'].flatMap((name) => [[`${name}.id`, name === 'queues' ? 'q1' : 'r1'], [`${name}.name`, 'Sales'], [`${name}.extension`, '2001'], [`${name}.site.id`, 's2'], [`${name}.site.name`, 'Iasi']])),
    ...Object.fromEntries(['entryPoint', 'origin'].flatMap((name) => [[`${name}.type`, 'user'], [`${name}.id`, 'e1'], [`${name}.name`, 'Line'], [`${name}.phoneNumber`, '800'], [`${name}.extension`, '1'], [`${name}.email`, 'u@x.y'], [`${name}.department`, 'D'], [`${name}.site.id`, 's3'], [`${name}.site.name`, 'Arad']])),
    'transitions.name': 'TRANSFER', 'transitions.interactionId': '1', 'transitions.agents.name': 'Ann', 'transitions.agents.site.id': 's1', 'transitions.agents.site.name': 'Cluj', 'transitions.agents.type': 'AI',
    'transitions.previousAgents.name': 'Ann', 'transitions.previousAgents.site.id': 's1', 'transitions.previousAgents.site.name': 'Cluj', 'transitions.previousAgents.type': 'AI',
    ...Object.fromEntries(['queue', 'previousQueue', 'ringGroup', 'previousRingGroup', 'autoAttendant'].flatMap((name) => [
      [`transitions.${name}.id`, name === 'autoAttendant' ? 'aa' : name.toLowerCase().includes('queue') ? 'q1' : 'r1'], [`transitions.${name}.name`, 'Sales'], [`transitions.${name}.extension`, '2001'], [`transitions.${name}.site.id`, 's2'], [`transitions.${name}.site.name`, 'Iasi'],
    ])),
  };

  test.each([...new Map([...Object.entries(JOURNEY_FILTERS), ...Object.entries(TRANSITION_FILTERS)])])('%s finds a journey that has its value, by the term that the API asks for', (name, filter) => {
    const view = folded(STORY(/^(?:origin|outboundPhoneCodes)\./.test(name) ? 'Outbound' : 'Inbound'));
    const value = EXPECTED[name];
    if (value === undefined) throw new Error(`no value for ${name}`);
    const [record] = [...view.records.values()];
    const terms = filter.sub ? [...(record?.subs.values() ?? [])].flat().flatMap((sub) => sub[filter.field] ?? []) : (record?.state.terms[filter.field] ?? []);
    expect(terms).toContain(filter.term(CONTEXT, value));
  });

  test('mediaTypes alone are asked for in any case', () => {
    expect(JOURNEY_FILTERS['mediaTypes']?.term(CONTEXT, 'Phone')).toBe(JOURNEY_FILTERS['mediaTypes']?.term(CONTEXT, 'phone'));
    expect(JOURNEY_FILTERS['direction']?.term(CONTEXT, 'Inbound')).not.toBe(JOURNEY_FILTERS['direction']?.term(CONTEXT, 'inbound'));
  });

  test('a record stands at the start of its journey, under its public id, found by the identities of evidence', () => {
    const view = folded(STORY('Inbound'));
    expect([...view.records].map(([key, { state }]) => [key, state.time, state.id, state.terms['identity']])).toEqual([
      [CONTEXT.hash('node', 'J'), START_MS, 'J', [CONTEXT.term('identity', CONTEXT.identityKey('email', 'ana@example.com') ?? '')]],
    ]);
  });

  test('sub-records stand in chunks as the transitions do, FINISHED with the newest', () => {
    fc.assert(fc.property(arbitraryArrival(arbitraryEvents(24)), ({ batches }) => {
      const view = new MemoryDocuments(journeysWithin(SMALL));
      for (const batch of batches) view.fold(batch);
      for (const key of view.keys('j')) {
        const document = view.read(key) as JourneyDocument;
        const chunks = [...Array.from({ length: document.chunks }, (_, chunk) => view.read(`t/${key.slice(2)}/${chunk}`) as JourneyDocument['transitions']), document.transitions];
        const named = chunks.map((transitions) => transitions.map(({ name }) => [CONTEXT.term('transitions.name', name)]));
        const subs = view.records.get(key.slice(2))?.subs ?? new Map<number, never[]>();
        expect(named.map((_, chunk) => (subs.get(chunk) ?? []).map((sub) => sub['transitions.name']))).toEqual(named);
        expect(Math.max(-1, ...subs.keys())).toBeLessThanOrEqual(document.chunks);
      }
    }), { numRuns: 60 });
  });
});
