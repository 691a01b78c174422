import fc from 'fast-check';
import type { JourneyDocument, Transition } from '../../projections/documents.ts';
import { journeys, journeysWithin, LIMITS } from '../../projections/journeys.ts';
import { forwardKind, isPlace, placeKey } from '../../projections/transitions.ts';
import type { Agent, Instant, InteractionFactBody, Interpreted, Place } from '../../schemas/facts.ts';
import { msOf } from '../../schemas/time.ts';
import { arbitraryBody, arbitraryEvents, event, MemoryDocuments, START_MS, story } from '../support/facts.ts';

const ANN: Agent = { id: 'a1', name: 'Ann' };
const BEN: Agent = { id: 'a2', name: 'Ben' };
const SALES: Place = { id: 'q1', name: 'Sales', extension: '2001' };
const SERVICE: Place = { id: 'q2', name: 'Service' };
const RING: Place = { id: 'r1', name: 'Back office' };

function fullPlace(place: Place): Place {
  return { id: place.id, name: place.name ?? null, extension: place.extension ?? null, site: null };
}

/** The one journey of these events, its whole timeline inline or not. */
function journeyOf(events: readonly Interpreted[], limits = LIMITS): { document: JourneyDocument; transitions: Transition[] } {
  const view = new MemoryDocuments(journeysWithin(limits));
  view.fold(events);
  const [key, ...others] = view.keys('j');
  if (key === undefined || others.length > 0) throw new Error(`${others.length + 1} journeys`);
  return timelineOf(view, key);
}

function timelineOf(view: MemoryDocuments, key: string): { document: JourneyDocument; transitions: Transition[] } {
  const document = view.read(key) as JourneyDocument;
  const chunks = Array.from({ length: document.chunks }, (_, chunk) => view.read(`t/${key.slice(2)}/${chunk}`) as Transition[]);
  return { document, transitions: [...chunks.flat(), ...document.transitions] };
}

/** Second, name and seconds of each. */
function lines(transitions: readonly Transition[]): (readonly [number, string, number | null])[] {
  return transitions.map(({ at, name, duration }) => [(msOf(at) - START_MS) / 1000, name, duration === null ? null : duration / 1000]);
}

function told(...bodies: (readonly [seconds: number, ...bodies: InteractionFactBody[]])[]): ReturnType<typeof journeyOf> {
  return journeyOf(story('x:1', bodies));
}

function only(transitions: readonly Transition[], name: string): Transition {
  const found = transitions.filter((transition) => transition.name === name);
  if (found.length !== 1 || found[0] === undefined) throw new Error(`${found.length} × ${name}`);
  return found[0];
}

const ids = (agents: readonly Agent[]): string[] => agents.map(({ id }) => id);

describe('states and markers (journey-apis-facts.md 1.9)', () => {
  test('a leg that has ended is the end, where of the others of its journey nothing is told', () => {
    const leg = story('x:2', [[0, { kind: 'started', leg: true }, { kind: 'linked', to: 'x:1' }], [5, { kind: 'ended', final: false, leg: true }]]);
    const { transitions } = journeyOf([...leg, ...story('x:1', [[1, { kind: 'aiAgent', creditConsumption: 1 }]])]);
    expect(lines(transitions)).toEqual([[5, 'FINISHED', 0]]);
  });

  test('an inbound call is a marker and then intervals without a gap, each with its duration', () => {
    const { document, transitions } = told(
      [0, { kind: 'started', direction: 'Inbound', medium: 'Phone' }, { kind: 'script', scripts: [{ id: 's1', name: 'Main' }] }],
      [9.206, { kind: 'forwarded', to: { queue: SALES } }],
      [9.3, { kind: 'waiting', queue: SALES }],
      [30, { kind: 'talking', agents: [ANN] }],
      [60, { kind: 'held', agents: [ANN] }],
      [75, { kind: 'resumed', agents: [ANN] }],
      [90, { kind: 'ended', by: 'customer', final: true }],
    );
    expect(lines(transitions)).toEqual([
      [0, 'STARTED', 0], [0, 'IN_SCRIPT', 9.206], [9.206, 'FORWARD', 0], [9.206, 'WAITING', 20.794], [30, 'TALKING', 30], [60, 'HOLD', 15], [75, 'TALKING', 15], [90, 'FINISHED', 0],
    ]);
    expect(transitions.every(({ mediaType, interactionId }) => mediaType === 'Phone' && interactionId === '1')).toBe(true);
    expect(document.row).toMatchObject({ holdDuration: 15_000, waitingDuration: 20_794, talkingDuration: 45_000, finishedAt: transitions.at(-1)?.at, direction: 'Inbound', outcome: 'Handled' });
  });

  test('what is not said stands as null or an empty array, and every object in full', () => {
    const { transitions } = told([0, { kind: 'started' }], [1, { kind: 'talking', agents: [{ id: 'a1' }], queue: { id: 'q1' } }]);
    expect(transitions[1]).toEqual({
      at: transitions[1]?.at, name: 'TALKING', interactionId: '1', previousAgents: [], queue: { id: 'q1', name: null, extension: null, site: null }, previousQueue: null,
      ringGroup: null, previousRingGroup: null, autoAttendant: null, channel: null, scripts: [], duration: null, wrapUp: 0, externalNumber: null, mediaType: null, events: ['x:1@0001'],
      agents: [{ id: 'a1', name: null, email: null, loginId: null, department: null, subscriptionId: null, group: null, site: null, type: 'HUMAN' }],
    });
    expect(Object.keys(transitions[0] ?? {})).toEqual(Object.keys(transitions[1] ?? {}));
  });

  test('an outbound start lasts until it is answered, with the dialler as its agent, and shows no STARTED', () => {
    const { document, transitions } = told(
      [0, { kind: 'started', direction: 'Outbound', origin: { type: 'user', id: 'a1', name: 'Ann', pbx: 'main' } }],
      [1, { kind: 'dialling', agents: [ANN] }],
      [12, { kind: 'talking', agents: [ANN] }],
      [20, { kind: 'ended', final: true }],
    );
    expect(lines(transitions)).toEqual([[0, 'OUTBOUND_STARTED', 12], [12, 'TALKING', 8], [20, 'FINISHED', 0]]);
    expect(ids(transitions[0]?.agents ?? [])).toEqual(['a1']);
    expect(document.row).toMatchObject({ entryPoint: null, origin: { type: 'user', id: 'a1', name: 'Ann' }, pbxNames: ['main'] });
  });

  test('an outbound call that nobody answers lasts until its end', () => {
    expect(lines(told([0, { kind: 'dialling', agents: [ANN] }], [25, { kind: 'ended', by: 'system', final: true }]).transitions)).toEqual([[0, 'OUTBOUND_STARTED', 25], [25, 'FINISHED', 0]]);
  });

  test('more said of the same script is no new one; another auto attendant is', () => {
    const { transitions, document } = told(
      [0, { kind: 'script', scripts: [{ id: 's1', name: 'Main' }], scheduleHours: ['Open'] }],
      [2, { kind: 'script', scripts: [{ id: 's2', name: 'Menu' }], scheduleHours: ['Open', 'Lunch'], schedules: [{ id: 'h', tag: null, tenantId: null, result: 'open' }, { id: 'h', tag: null, tenantId: null, result: 'open' }] }],
      [5, { kind: 'script', autoAttendant: { id: 'aa1', name: 'Front door' } }],
      [8, { kind: 'script', autoAttendant: { id: 'aa2', name: 'Back door' } }],
    );
    expect(lines(transitions)).toEqual([[0, 'IN_SCRIPT', 8], [8, 'IN_SCRIPT', null]]);
    expect(transitions[0]).toMatchObject({ scripts: [{ id: 's1', name: 'Main' }, { id: 's2', name: 'Menu' }], autoAttendant: { id: 'aa1', name: 'Front door' }, events: ['x:1@0000', 'x:1@0001', 'x:1@0002'] });
    expect(document.row).toMatchObject({ scheduleHours: ['Open', 'Lunch'], schedules: [{ id: 'h', tag: null, tenantId: null, result: 'open' }] });
  });

  test('agents who are rung in the same place join the wait; another place is another wait', () => {
    const { transitions, document } = told(
      [0, { kind: 'waiting', queue: SALES }], [5, { kind: 'waiting', queue: SALES, agents: [ANN] }], [9, { kind: 'waiting', agents: [BEN] }],
      [15, { kind: 'waiting', queue: SERVICE }], [20, { kind: 'waiting', ringGroup: RING, agents: [ANN] }],
    );
    expect(lines(transitions)).toEqual([[0, 'WAITING', 15], [15, 'WAITING', 5], [20, 'WAITING', null]]);
    expect(ids(transitions[0]?.agents ?? [])).toEqual(['a1', 'a2']);
    expect(transitions[2]).toMatchObject({ queue: null, ringGroup: fullPlace(RING) });
    // Rung is not handled.
    expect(document.row).toMatchObject({ agents: [], queues: [fullPlace(SALES), fullPlace(SERVICE)], ringGroups: [fullPlace(RING)] });
  });

  test('an agent who comes or goes makes a new TALKING; the one who stays goes on', () => {
    const { transitions } = told(
      [0, { kind: 'talking' }, { kind: 'joined', role: 'agent', participantId: 'p1', agent: ANN }], [1, { kind: 'talking', agents: [ANN] }],
      [10, { kind: 'talking', agents: [BEN] }], [20, { kind: 'dropped', participantId: 'p1' }],
    );
    expect(transitions.map(({ name, agents }) => [name, ids(agents)])).toEqual([['TALKING', ['a1']], ['TALKING', ['a1', 'a2']], ['TALKING', ['a2']]]);
    expect(lines(transitions)).toEqual([[0, 'TALKING', 10], [10, 'TALKING', 10], [20, 'TALKING', null]]);
  });

  test('while another agent talks, a hold is the participant\'s alone; when all hold, it is the customer\'s', () => {
    const { transitions, document } = told(
      [0, { kind: 'talking', agents: [ANN, BEN] }, { kind: 'joined', role: 'agent', participantId: 'p1', agent: ANN }, { kind: 'joined', role: 'agent', participantId: 'p2', agent: BEN }],
      [10, { kind: 'held', agents: [ANN] }], [20, { kind: 'held', agents: [BEN] }], [30, { kind: 'resumed', agents: [ANN] }], [40, { kind: 'resumed', agents: [BEN] }],
    );
    expect(lines(transitions)).toEqual([[0, 'TALKING', 20], [20, 'HOLD', 10], [30, 'TALKING', 10], [40, 'TALKING', null]]);
    expect(transitions.slice(1).map(({ agents }) => ids(agents))).toEqual([['a1', 'a2'], ['a1'], ['a1', 'a2']]);
    const held = document.participants.map((participant) => participant.held.map(({ from, to }) => [from, to].map((at) => (at === null ? null : (msOf(at) - START_MS) / 1000))));
    expect(held).toEqual([[[10, 30]], [[20, 40]]]);
  });

  test('a hold of the customer that is told twice is one', () => {
    const { transitions, document } = told(
      [0, { kind: 'joined', role: 'customer', participantId: 'customer' }, { kind: 'talking', agents: [ANN] }],
      [10, { kind: 'held', participantId: 'customer' }], [10.2, { kind: 'held', participantId: 'customer', agents: [ANN] }],
      [20, { kind: 'resumed', participantId: 'customer', agents: [ANN] }], [20.1, { kind: 'resumed', participantId: 'customer' }],
    );
    expect(lines(transitions)).toEqual([[0, 'TALKING', 10], [10, 'HOLD', 10], [20, 'TALKING', null]]);
    expect(document.participants[0]?.held).toHaveLength(1);
    expect(transitions.map(({ agents }) => ids(agents))).toEqual([['a1'], ['a1'], ['a1']]);
  });
});

describe('forwards and transfers', () => {
  test.each<[string, Parameters<typeof forwardKind>[0], InteractionFactBody & { kind: 'forwarded' }, Partial<Transition>, [number, number, number]]>([
    ['a queue', {}, { kind: 'forwarded', to: { queue: SERVICE } }, { queue: fullPlace(SERVICE) }, [1, 0, 0]],
    ['a ring group', {}, { kind: 'forwarded', to: { ringGroup: RING } }, { ringGroup: fullPlace(RING) }, [0, 1, 0]],
    ['an auto attendant', {}, { kind: 'forwarded', to: { autoAttendant: { id: 'aa1' } } }, { autoAttendant: fullPlace({ id: 'aa1' }) }, [0, 0, 1]],
    ['a script', {}, { kind: 'forwarded', to: { script: { id: 's1', name: 'Main' } } }, { scripts: [{ id: 's1', name: 'Main' }] }, [0, 0, 1]],
    ['a channel', {}, { kind: 'forwarded', to: { channel: { id: 'c1', name: 'Support line' } } }, { channel: fullPlace({ id: 'c1', name: 'Support line' }) }, [0, 0, 0]],
    ['an agent', {}, { kind: 'forwarded', to: { agents: [BEN] } }, {}, [0, 0, 0]],
    ['an external number', {}, { kind: 'forwarded', to: { externalNumber: '+15550100' } }, { externalNumber: '+15550100' }, [0, 0, 0]],
  ])('FORWARD to %s is a marker with destination and origin, and counts for its kind', (_, __, forward, shown, [toQueue, toRingGroup, toScript]) => {
    const { transitions, document } = told([0, { kind: 'waiting', queue: SALES, agents: [ANN] }], [5, forward], [9, { kind: 'ended', by: 'system', final: true }]);
    const marker = only(transitions, 'FORWARD');
    expect(marker).toMatchObject({ duration: 0, previousQueue: fullPlace(SALES), previousRingGroup: null, ...shown });
    expect(ids(marker.previousAgents)).toEqual(['a1']);
    expect(document.row).toMatchObject({ forwardedToQueue: toQueue, forwardedToRingGroup: toRingGroup, forwardedToScript: toScript, transfersCompleted: 0 });
    expect(transitions[0]?.duration).toBe(5000);
  });

  test('a cold transfer leaves the agent, and the customer waits where it went until something else is said', () => {
    const { transitions, document } = told(
      [0, { kind: 'waiting', queue: SALES }], [5, { kind: 'talking', agents: [ANN] }], [20, { kind: 'transferred', to: { queue: SERVICE } }], [20.4, { kind: 'waiting', queue: SERVICE, agents: [BEN] }],
      [30, { kind: 'talking', agents: [BEN] }],
    );
    expect(lines(transitions)).toEqual([[0, 'WAITING', 5], [5, 'TALKING', 15], [20, 'TRANSFER', 0], [20, 'WAITING', 10], [30, 'TALKING', null]]);
    const marker = only(transitions, 'TRANSFER');
    expect([ids(marker.agents), ids(marker.previousAgents), marker.queue, marker.previousQueue]).toEqual([[], ['a1'], fullPlace(SERVICE), fullPlace(SALES)]);
    expect(document.row.transfersCompleted).toBe(1);
  });

  test('what the same instant says takes the place of what a transfer lets expect', () => {
    const { transitions } = told([0, { kind: 'talking', agents: [ANN] }], [20, { kind: 'transferred', to: { agents: [BEN] } }, { kind: 'talking', agents: [BEN] }]);
    expect(lines(transitions)).toEqual([[0, 'TALKING', 20], [20, 'TRANSFER', 0], [20, 'TALKING', null]]);
    expect(ids(transitions[2]?.agents ?? [])).toEqual(['a2']);
  });

  test('in a warm transfer whoever was brought in goes on talking', () => {
    const { transitions } = told([0, { kind: 'talking', agents: [ANN] }], [10, { kind: 'talking', agents: [BEN] }], [20, { kind: 'transferred', to: {}, from: { agents: [ANN] } }]);
    expect(transitions.map(({ name, agents, previousAgents }) => [name, ids(agents), ids(previousAgents)])).toEqual([
      ['TALKING', ['a1'], []], ['TALKING', ['a1', 'a2'], []], ['TRANSFER', ['a2'], ['a1']], ['TALKING', ['a2'], []],
    ]);
  });

  test('what the fact says of the origin goes before what the timeline knows', () => {
    const { transitions } = told([0, { kind: 'waiting', queue: SALES }], [5, { kind: 'forwarded', to: { queue: SALES }, from: { agents: [BEN], queue: SERVICE, ringGroup: RING } }]);
    const marker = only(transitions, 'FORWARD');
    expect([ids(marker.previousAgents), marker.previousQueue, marker.previousRingGroup]).toEqual([['a2'], fullPlace(SERVICE), fullPlace(RING)]);
  });
});

describe('where a platform says what happened and not what it means', () => {
  const begun: readonly [number, ...InteractionFactBody[]][] = [[0, { kind: 'started', direction: 'Inbound', inScript: true }], [5, { kind: 'waiting', queue: SALES, arrival: 'queued' }], [8, { kind: 'waiting', agents: [ANN], arrival: 'offered' }], [10, { kind: 'talking', agents: [ANN], taken: 'ringing' }]];
  const toSales = [[0, 'STARTED', 0], [0, 'IN_SCRIPT', 5], [5, 'FORWARD', 0], [5, 'WAITING', 5]] as const;

  test('to come to a queue is a forward out of a script or another queue, and a transfer from an agent', () => {
    expect(lines(told(...begun).transitions)).toEqual([...toSales, [10, 'TALKING', null]]);
    const overflow = told(...begun.slice(0, 2), [20, { kind: 'waiting', queue: SALES, arrival: 'queued' }], [30, { kind: 'waiting', queue: SERVICE, arrival: 'queued' }]);
    expect(lines(overflow.transitions)).toEqual([...toSales.slice(0, 3), [5, 'WAITING', 25], [30, 'FORWARD', 0], [30, 'WAITING', null]]);
    const on = told(...begun, [30, { kind: 'waiting', queue: SERVICE, arrival: 'queued' }]);
    expect(lines(on.transitions)).toEqual([...toSales, [10, 'TALKING', 20], [30, 'TRANSFER', 0], [30, 'WAITING', null]]);
    expect(only(on.transitions, 'TRANSFER')).toMatchObject({ queue: fullPlace(SERVICE), previousQueue: fullPlace(SALES), previousAgents: [{ id: 'a1' }] });
  });

  test('a leg of its own begins nothing, and comes to its queue from whoever had the customer', () => {
    const first = story('x:1', [...begun, [30, { kind: 'dropped', participantId: 'a1', last: true }], [50, { kind: 'ended', final: false, leg: true }]]);
    const second = story('x:2', [[31, { kind: 'started', leg: true }, { kind: 'linked', to: 'x:1' }], [32, { kind: 'waiting', queue: SERVICE, arrival: 'queued' }]]);
    const { transitions, document } = journeyOf([...first, ...second]);
    expect(lines(transitions)).toEqual([...toSales, [10, 'TALKING', 20], [32, 'TRANSFER', 0], [32, 'WAITING', null]]);
    expect(only(transitions, 'TRANSFER')).toMatchObject({ interactionId: '2', previousAgents: [{ id: 'a1' }], previousQueue: fullPlace(SALES) });
    expect(document.row).toMatchObject({ transfersCompleted: 1, finishedAt: null });
    // Already before it comes to the queue, the journey goes on.
    expect(journeyOf([...first, ...second.slice(0, 1)]).document.row.finishedAt).toBeNull();
    expect(journeyOf(first).document.row.finishedAt).toBe(first.at(-2)?.at);
  });

  test('what agents say to each other on a leg of their own is not said to the customer', () => {
    const second = story('x:2', [[20, { kind: 'started', leg: true }, { kind: 'linked', to: 'x:1' }], [21, { kind: 'waiting', agents: [BEN], arrival: 'offered' }], [22, { kind: 'talking', agents: [BEN], taken: 'connected' }], [23, { kind: 'held', agents: [BEN] }]]);
    expect(lines(journeyOf([...story('x:1', begun), ...second]).transitions)).toEqual([...toSales, [10, 'TALKING', null]]);
  });

  test('an open transfer is filled by the next agent or queue that is seen, and by nobody who was there before', () => {
    const open: InteractionFactBody = { kind: 'transferred', to: {}, open: true, from: { agents: [ANN] } };
    const same = told(...begun, [30, open], [31, { kind: 'present', agents: [ANN] }]);
    expect(ids(only(same.transitions, 'TRANSFER').agents)).toEqual([]);
    const agent = told(...begun, [30, open], [31, { kind: 'present', agents: [ANN] }], [33, { kind: 'present', agents: [BEN], talking: true }], [40, { kind: 'talking', agents: [ANN] }]);
    expect(lines(agent.transitions)).toEqual([...toSales, [10, 'TALKING', 20], [30, 'TRANSFER', 0], [30, 'WAITING', 3], [33, 'TALKING', 7], [40, 'TALKING', null]]);
    expect(ids(only(agent.transitions, 'TRANSFER').agents)).toEqual(['a2']);
    const queue = told(...begun, [30, open], [31, { kind: 'waiting', queue: SERVICE }]);
    expect(only(queue.transitions, 'TRANSFER')).toMatchObject({ queue: fullPlace(SERVICE), agents: [] });
    expect(queue.document.row.transfersCompleted).toBe(1);
  });

  test('the last agent who leaves ends the conversation, and an end told before that is taken back', () => {
    const early = told(...begun, [20, { kind: 'ended', final: false, leg: true }], [30, { kind: 'dropped', participantId: 'a1', last: true }], [40, { kind: 'ended', final: false, leg: true, by: 'customer' }]);
    expect(lines(early.transitions)).toEqual([...toSales, [10, 'TALKING', 20], [30, 'FINISHED', 0]]);
    expect(early.document.row.wrapUpDuration).toBe(0);
    const back = told(...begun, [30, { kind: 'dropped', participantId: 'a1', last: true }], [33, { kind: 'talking', agents: [BEN] }]);
    expect(lines(back.transitions)).toEqual([...toSales, [10, 'TALKING', 20], [33, 'TALKING', null]]);
    expect(ids(back.transitions.at(-1)?.agents ?? [])).toEqual(['a2']);
  });

  test('to leave a queue ends the wait, and who hangs up then has abandoned', () => {
    const { transitions, document } = told(...begun.slice(0, 2), [20, { kind: 'unqueued' }], [21, { kind: 'ended', final: false, leg: true, by: 'customer' }]);
    expect(lines(transitions)).toEqual([...toSales.slice(0, 3), [5, 'WAITING', 15], [21, 'FINISHED', 0]]);
    expect(document.row).toMatchObject({ outcome: 'Abandoned', waitingDuration: 15_000 });
  });

  test('a call out that is taken is still dialled, and whoever dialled talks when nobody else is named', () => {
    const { transitions } = told([0, { kind: 'started', direction: 'Outbound' }], [1, { kind: 'waiting', queue: SALES, arrival: 'queued' }], [2, { kind: 'talking', agents: [ANN], taken: 'ringing' }], [9, { kind: 'talking', taken: 'connected' }]);
    expect(transitions.map(({ name, duration, agents }) => [name, duration, ids(agents)])).toEqual([['OUTBOUND_STARTED', 9000, ['a1']], ['TALKING', null, ['a1']]]);
  });

  test('a list of those present says who joined and who left', () => {
    const { transitions, document } = told(...begun, [20, { kind: 'present', agents: [ANN, BEN], talking: true }], [30, { kind: 'present', agents: [BEN] }], [40, { kind: 'present', agents: [] }]);
    expect(transitions.slice(4).map(({ name, agents }) => [name, ids(agents)])).toEqual([['TALKING', ['a1']], ['TALKING', ['a1', 'a2']], ['TALKING', ['a2']], ['FINISHED', []]]);
    expect(document.participants.map(({ id, dropped }) => [id, dropped === null ? null : (msOf(dropped) - START_MS) / 1000])).toEqual([['a1', 30], ['a2', 40]]);
  });
});

describe('voicemail, callbacks and what follows them up', () => {
  test('a voicemail waits once on its queue, is processed offline, and only then is the journey finished', () => {
    const left: (readonly [number, ...InteractionFactBody[]])[] = [
      [0, { kind: 'waiting', queue: SALES }], [10, { kind: 'voicemail', queue: SALES }], [40, { kind: 'ended', by: 'customer', final: true }],
      [41, { kind: 'followUp', reason: 'voicemail', queue: SALES }], [50, { kind: 'followUp', reason: 'voicemail', queue: SALES }],
    ];
    const open = told(...left);
    expect(lines(open.transitions)).toEqual([[0, 'WAITING', 10], [10, 'VOICEMAIL', 30], [41, 'FOLLOWUP_PENDING', null]]);
    expect(open.document.row).toMatchObject({ finishedAt: null, outcome: 'Voicemail' });
    const done = told(...left, [100, { kind: 'processing', agents: [ANN] }], [160, { kind: 'wrappedUp', agents: [ANN], wrapUpCodes: ['Called back'] }]);
    expect(lines(done.transitions).slice(2)).toEqual([[41, 'FOLLOWUP_PENDING', 59], [100, 'PROCESSING', 60], [160, 'FINISHED', 0]]);
    expect(done.document.row).toMatchObject({ outcome: 'Handled', wrapUpCodes: ['Called back'] });
    expect(ids(done.document.row.agents)).toEqual(['a1']);
    expect(only(done.transitions, 'PROCESSING').queue).toEqual(fullPlace(SALES));
  });

  test('the mailbox\'s owner stands in VOICEMAIL and has not handled anything', () => {
    const { transitions, document } = told([0, { kind: 'voicemail', agents: [ANN] }]);
    expect(ids(only(transitions, 'VOICEMAIL').agents)).toEqual(['a1']);
    expect(document.row.agents).toEqual([]);
  });

  test('a callback shows one FOLLOWUP_PENDING per wait, one OUTBOUND_STARTED per dial, and its queue by id alone', () => {
    const { transitions, document } = told(
      [0, { kind: 'waiting', queue: SALES }], [10, { kind: 'followUp', reason: 'callback', queue: SERVICE }], [11, { kind: 'ended', by: 'customer', final: true }],
      [60, { kind: 'dialling', agents: [ANN], queue: SALES }], [80, { kind: 'followUp', reason: 'callback', queue: SERVICE }],
      [120, { kind: 'dialling', agents: [BEN] }], [130, { kind: 'talking', agents: [BEN] }], [190, { kind: 'ended', by: 'agent', final: true }],
    );
    expect(lines(transitions)).toEqual([
      [0, 'WAITING', 10], [10, 'FOLLOWUP_PENDING', 50], [60, 'OUTBOUND_STARTED', 20], [80, 'FOLLOWUP_PENDING', 40], [120, 'OUTBOUND_STARTED', 10], [130, 'TALKING', 60], [190, 'FINISHED', 0],
    ]);
    expect(transitions[1]?.queue).toEqual({ id: 'q2', name: null, extension: null, site: null });
    // Out of which it is dialled in the end.
    expect(document.row.queues).toEqual([fullPlace(SALES), fullPlace({ id: 'q2' })]);
  });

  test('a callback that is an interaction of its own ends the wait of the one that asked for it', () => {
    const { transitions, document } = journeyOf([
      ...story('x:1', [[0, { kind: 'waiting', queue: SALES }], [10, { kind: 'followUp', reason: 'callback', queue: SALES }], [11, { kind: 'ended', by: 'customer', final: true }]]),
      ...story('x:2', [[60, { kind: 'linked', to: 'x:1' }, { kind: 'dialling', agents: [ANN] }], [70, { kind: 'talking', agents: [ANN] }], [90, { kind: 'ended', final: true }]]),
    ]);
    expect(lines(transitions)).toEqual([[0, 'WAITING', 10], [10, 'FOLLOWUP_PENDING', 50], [60, 'OUTBOUND_STARTED', 10], [70, 'TALKING', 20], [90, 'FINISHED', 0]]);
    expect(document.row).toMatchObject({ outcome: 'Handled', interactions: [{ id: '1' }, { id: '2' }] });
  });

  test('an outbound task that begins by waiting to be called back shows no dial', () => {
    const { transitions, document } = told([0, { kind: 'started', direction: 'Outbound' }, { kind: 'followUp', reason: 'callback', queue: SALES }], [30, { kind: 'ended', by: 'system', final: true }]);
    expect(lines(transitions)).toEqual([[0, 'FOLLOWUP_PENDING', 30], [30, 'FINISHED', 0]]);
    expect(document.row.outcome).toBe('CallbackExpired');
  });
});

describe('the end', () => {
  test('is shown once, when every interaction of the journey has ended, at the latest end', () => {
    const first = story('x:1', [[0, { kind: 'started' }], [5, { kind: 'ended', final: true }]]);
    const second = [[1, { kind: 'started' }, { kind: 'linked', to: 'x:1' }], [3, { kind: 'talking', agents: [ANN] }]] as const;
    expect(journeyOf([...first, ...story('x:2', second)]).transitions.filter(({ name }) => name === 'FINISHED')).toEqual([]);
    const { transitions, document } = journeyOf([...first, ...story('x:2', [...second, [9, { kind: 'ended', final: true }]])]);
    expect(only(transitions, 'FINISHED')).toMatchObject({ interactionId: '2', events: ['x:2@0002'], duration: 0 });
    expect(transitions.at(-1)?.name).toBe('FINISHED');
    expect(document.row.finishedAt).toBe(only(transitions, 'FINISHED').at);
  });

  test('a provisional end counts while nothing follows, and is taken back by what follows', () => {
    const rona: (readonly [number, ...InteractionFactBody[]])[] = [[0, { kind: 'waiting', queue: SALES }], [10, { kind: 'waiting', agents: [ANN] }], [20, { kind: 'ended', by: 'system', final: false }]];
    expect(lines(told(...rona).transitions)).toEqual([[0, 'WAITING', 20], [20, 'FINISHED', 0]]);
    expect(told(...rona).document.row).toMatchObject({ waitingDuration: 20_000, outcome: 'Other' });
    const more = told(...rona, [35, { kind: 'talking', agents: [BEN] }]);
    expect(lines(more.transitions)).toEqual([[0, 'WAITING', 35], [35, 'TALKING', null]]);
    expect(more.document.row).toMatchObject({ waitingDuration: 35_000, finishedAt: null });
    const gone = told(...rona, [50, { kind: 'ended', by: 'customer', final: true }]);
    expect(lines(gone.transitions)).toEqual([[0, 'WAITING', 50], [50, 'FINISHED', 0]]);
    expect(gone.document.row.outcome).toBe('Abandoned');
  });

  test('what a provisional end has ended, another end does not prolong, nor another state that of a talk', () => {
    const waited = told([0, { kind: 'waiting', queue: SALES }], [20, { kind: 'ended', by: 'customer', final: false }], [50, { kind: 'ended', by: 'system', final: true }]);
    expect(lines(waited.transitions)).toEqual([[0, 'WAITING', 20], [50, 'FINISHED', 0]]);
    expect(waited.document.row).toMatchObject({ outcome: 'Abandoned', waitingDuration: 20_000 });
    const talk: readonly (readonly [number, ...InteractionFactBody[]])[] = [[0, { kind: 'talking', agents: [ANN] }], [20, { kind: 'ended', final: false }]];
    expect(lines(told(...talk, [30, { kind: 'wrappedUp', agents: [ANN] }], [50, { kind: 'ended', final: true }]).transitions)).toEqual([[0, 'TALKING', 20], [50, 'FINISHED', 0]]);
    expect(lines(told(...talk, [50, { kind: 'waiting', queue: SALES }]).transitions)).toEqual([[0, 'TALKING', 20], [50, 'WAITING', null]]);
    expect(lines(told(...talk, [50, { kind: 'talking', agents: [ANN] }], [60, { kind: 'ended', final: true }]).transitions)).toEqual([[0, 'TALKING', 60], [60, 'FINISHED', 0]]);
  });

  test('whoever gave up waiting has, whatever another interaction of the journey came to without an agent', () => {
    const gaveUp = story('x:1', [[0, { kind: 'waiting', queue: SALES }], [20, { kind: 'ended', by: 'customer', final: true }]]);
    const linked = { kind: 'linked', to: 'x:1' } as const;
    const then = (...more: readonly (readonly [number, ...InteractionFactBody[]])[]): unknown => journeyOf([...gaveUp, ...story('x:2', [[30, { kind: 'started' }, linked], ...more])]).document.row.outcome;
    expect(then([31, { kind: 'script' }], [40, { kind: 'ended', by: 'customer', final: true }])).toBe('Abandoned');
    expect(then([31, { kind: 'dialling', agents: [ANN] }], [40, { kind: 'ended', by: 'system', final: true }])).toBe('Abandoned');
    expect(then([31, { kind: 'voicemail' }], [40, { kind: 'ended', by: 'customer', final: true }])).toBe('Voicemail');
    expect(then([31, { kind: 'talking', agents: [ANN] }], [40, { kind: 'ended', final: true }])).toBe('Handled');
  });

  test('nobody talks once the last agent has dropped; whose work has ended may wrap up after it', () => {
    const [joined, dropped] = [{ kind: 'joined', role: 'agent', participantId: 'p', agent: ANN }, { kind: 'dropped', role: 'agent', participantId: 'p' }] as const;
    const left = told([0, joined, { kind: 'talking', agents: [ANN] }], [20, dropped], [30, { kind: 'wrappedUp', agents: [ANN] }], [40, { kind: 'ended', final: true }]);
    expect(lines(left.transitions)).toEqual([[0, 'TALKING', 20], [40, 'FINISHED', 0]]);
    expect(left.document.row).toMatchObject({ talkingDuration: 20_000, wrapUpDuration: 10_000 });
    const worked = told([0, { kind: 'processing', agents: [ANN] }], [20, { kind: 'ended', final: true }], [30, { kind: 'wrappedUp', agents: [ANN] }]);
    expect(worked.document.row).toMatchObject({ wrapUpDuration: 10_000 });
  });

  test('after a final end a state that sorts later is not gone back to, while wrap-up still counts', () => {
    const { transitions, document } = told(
      [0, { kind: 'talking', agents: [ANN] }], [30, { kind: 'ended', by: 'customer', final: true }], [30.2, { kind: 'held', agents: [ANN] }, { kind: 'talking', agents: [ANN] }],
      [45, { kind: 'wrappedUp', agents: [ANN], wrapUpCodes: ['Sale'] }],
    );
    expect(lines(transitions)).toEqual([[0, 'TALKING', 30], [30, 'FINISHED', 0]]);
    expect(document.row).toMatchObject({ wrapUpDuration: 15_000, wrapUpCodes: ['Sale'], talkingDuration: 30_000 });
  });

  test('each agent wraps up from when that agent left, and the work counts for the state that the agent left', () => {
    const { document, transitions } = told(
      [0, { kind: 'talking', agents: [ANN] }], [30, { kind: 'transferred', to: { agents: [BEN] } }], [35, { kind: 'talking', agents: [BEN] }], [60, { kind: 'ended', by: 'customer', final: true }],
      [70, { kind: 'wrappedUp', agents: [ANN] }], [75, { kind: 'wrappedUp' }], [76, { kind: 'wrappedUp', agents: [BEN] }],
    );
    expect(document.row.wrapUpDuration).toBe(40_000 + 15_000);
    expect(transitions.map(({ name, wrapUp }) => [name, wrapUp])).toEqual([['TALKING', 40_000], ['TRANSFER', 0], ['WAITING', 0], ['TALKING', 15_000], ['FINISHED', 0]]);
  });

  test('the first final end is the end, whatever announces it once more', () => {
    const { transitions } = told([0, { kind: 'talking', agents: [ANN] }], [30, { kind: 'ended', by: 'customer', final: true }], [90, { kind: 'ended', final: true }], [95, { kind: 'ended', by: 'system', final: false }]);
    expect(lines(transitions)).toEqual([[0, 'TALKING', 30], [30, 'FINISHED', 0]]);
  });

  test('participants have their role, when they joined and dropped, and come back as another entry', () => {
    const { document } = told(
      [0, { kind: 'talking', agents: [ANN] }, { kind: 'joined', role: 'customer', participantId: 'c', name: 'Ana' }],
      [10, { kind: 'joined', role: 'supervisor', participantId: 's', agent: BEN }], [20, { kind: 'dropped', participantId: 's' }], [30, { kind: 'joined', role: 'supervisor', participantId: 's', agent: BEN }],
    );
    expect(document.participants.map(({ role, id, name, dropped }) => [role, id, name, dropped === null ? null : (msOf(dropped) - START_MS) / 1000])).toEqual([
      ['customer', 'c', 'Ana', null], ['supervisor', 's', 'Ben', 20], ['supervisor', 's', 'Ben', null],
    ]);
  });
});

describe('the row', () => {
  test('says of contact, entry point and origin what was said first, and fills what was left open', () => {
    const { document } = told(
      [0, { kind: 'started', contact: { phoneNumber: '+1555' }, entryPoint: { type: 'cc-channel', phoneNumber: '800' } }],
      [5, { kind: 'started', direction: 'Inbound', contact: { phoneNumber: '+1666', name: 'Ana' }, entryPoint: { type: 'cc-channel', id: 'e1', phoneNumber: '900', pbx: 'main', tenantId: 't1' }, origin: { type: 'user', id: 'a1' } }],
    );
    expect(document.row).toMatchObject({
      contact: { name: 'Ana', phoneNumber: '+1555', email: null }, entryPoint: { type: 'cc-channel', id: 'e1', phoneNumber: '800', pbx: 'main', tenantId: 't1', site: null },
      // An entry point or an origin, by direction (1.10 #9).
      origin: null, direction: 'Inbound', pbxNames: ['main'], tenantIds: ['t1'],
    });
  });

  test('knows agents and queues by the latest that is said of them', () => {
    const { document, transitions } = told(
      [0, { kind: 'waiting', queue: { id: 'q1' }, agents: [{ id: 'a1' }] }], [5, { kind: 'talking', agents: [{ id: 'a1', name: 'Ann', group: { id: 'g', name: 'Team' } }] }],
      [9, { kind: 'wrappedUp', agents: [{ id: 'a1', name: 'Ann Other', email: null }] }], [10, { kind: 'waiting', queue: { id: 'q1', name: 'Sales' } }],
    );
    expect(document.row.agents).toMatchObject([{ id: 'a1', name: 'Ann Other', group: { id: 'g', name: 'Team' }, type: 'HUMAN' }]);
    expect(document.row.queues).toEqual([fullPlace({ id: 'q1', name: 'Sales' })]);
    expect(transitions[0]?.agents[0]?.name).toBeNull();
  });

  test('adds credits up as decimal fractions', () => {
    const { document } = told(...[0.1, 0.2, 1e-6, 0.7, 2].map((creditConsumption, n) => [n, { kind: 'aiAgent', creditConsumption }] as const));
    expect(document.row.aiAgentInformation?.creditConsumption).toBe(3.000001);
  });

  test('collects what describes the conversation, also under names that objects have', () => {
    const data = JSON.parse('{"__proto__":"x","mood":"good"}') as Record<string, string>;
    const { document } = told(
      [0, { kind: 'described', topics: ['order'], data, attributes: ['vip'] }, { kind: 'phoneCodes', codes: [{ listName: 'L', name: 'N', shortCode: '1' }] }],
      [1, { kind: 'described', topics: ['order', 'return'], data: { mood: 'bad' } }, { kind: 'aiAgent', creditConsumption: 2, tools: [{ name: 'look-up', success: true }] }],
      [2, { kind: 'aiAgent', creditConsumption: 3, tools: [{ name: 'look-up', success: true }, { name: 'book', success: false }] }],
    );
    expect(document.row).toMatchObject({
      topics: ['order', 'return'], attributes: ['vip'], outboundPhoneCodes: [{ listName: 'L', name: 'N', shortCode: '1' }],
      aiAgentInformation: { creditConsumption: 5, toolsUsedSuccessfully: [{ name: 'look-up', success: true }, { name: 'book', success: false }] },
    });
    expect(Object.entries(document.row.data)).toEqual([['__proto__', 'x'], ['mood', 'bad']]);
  });

  test('shows the identities of evidence alone', () => {
    const fact = { kind: 'started', interaction: 'x:1' } as const;
    const { document } = journeyOf([event('e1', 0, [fact], { identity: 'a@b.c' }), event('e2', 1, [fact], { identity: 'd@e.f', evidence: false }), event('e3', 2, [fact], { identity: 'g@h.i' })]);
    expect(document.row.identities).toHaveLength(2);
  });

  test('a list that grows past 500 is cut and says so', () => {
    const { document } = told(...Array.from({ length: 501 }, (_, i): [number, InteractionFactBody] => [i, { kind: 'described', topics: [`topic ${i}`] }]));
    expect(document.row.topics).toHaveLength(500);
    expect(document.row.truncated).toBe(true);
  });
});

describe('invariants', () => {
  const SMALL = { ...LIMITS, transitionChunk: 4 };

  function sum(transitions: readonly Transition[], name: string): number {
    return transitions.filter((transition) => transition.name === name).reduce((all, { duration }) => all + (duration ?? 0), 0);
  }

  function places(transitions: readonly Transition[], of: (transition: Transition) => Place | null, callbacks: ReadonlySet<string>): Place[] {
    // A pending callback's queue does not count; it can be told by its missing name, unless another transition shows it too.
    return transitions.filter((transition) => !(transition.name === 'FOLLOWUP_PENDING' && transition.events.some((id) => callbacks.has(id)))).map(of).filter((place) => placeKey(place) !== null) as Place[];
  }

  /** One that was known by its name alone, and by its id later, is the same place; since then it may be called otherwise. */
  function expectAmong(some: readonly Place[], all: readonly Place[]): void {
    for (const place of some) if (!all.some((one) => isPlace(one, place)) && (place.id !== null || all.every(({ id }) => id === null))) expect(all).toContainEqual(place);
  }

  test('the row is what its transitions add up to (1.9), whatever happened', () => {
    fc.assert(fc.property(arbitraryEvents(40), (events) => {
      const view = new MemoryDocuments(journeysWithin(SMALL));
      view.fold(events);
      const callbacks = new Set(events.filter(({ interactionFacts }) => interactionFacts.some((fact) => fact.kind === 'followUp' && fact.reason === 'callback')).map(({ eventId }) => eventId));
      for (const key of view.keys('j')) {
        const { document: { row, participants }, transitions } = timelineOf(view, key);
        const count = (name: string, kind?: string): number => transitions.filter((transition) => transition.name === name && (kind === undefined || forwardKind(transition) === kind)).length;
        expect([row.holdDuration, row.waitingDuration, row.talkingDuration]).toEqual([sum(transitions, 'HOLD'), sum(transitions, 'WAITING'), sum(transitions, 'TALKING')]);
        expect([row.transfersCompleted, row.forwardedToQueue, row.forwardedToRingGroup, row.forwardedToScript]).toEqual([count('TRANSFER'), count('FORWARD', 'queue'), count('FORWARD', 'ringGroup'), count('FORWARD', 'script')]);
        const handled = transitions.filter(({ name }) => name === 'TALKING' || name === 'PROCESSING').flatMap(({ agents }) => ids(agents));
        expect(new Set(ids(row.agents))).toEqual(new Set(handled));
        expect(new Set(row.mediaTypes)).toEqual(new Set(transitions.flatMap(({ mediaType }) => (mediaType === null ? [] : [mediaType]))));
        expectAmong(places(transitions, ({ queue }) => queue, callbacks), row.queues);
        expectAmong(row.queues, places(transitions, ({ queue }) => queue, new Set()));
        expectAmong(places(transitions, ({ ringGroup }) => ringGroup, new Set()), row.ringGroups);
        expectAmong(row.ringGroups, places(transitions, ({ ringGroup }) => ringGroup, new Set()));
        for (const list of [row.queues, row.ringGroups]) expect(new Set(list.map(placeKey)).size).toBe(list.length);
        expect(row.entryPoint !== null && row.origin !== null).toBe(false);
        expect(transitions.map(({ at }) => at)).toEqual(transitions.map(({ at }) => at).sort());
        expect(transitions.findIndex(({ name }) => name === 'FINISHED')).toBe(row.finishedAt === null ? -1 : transitions.length - 1);
        expect(transitions.every(({ duration, events: behind }) => (duration ?? 0) >= 0 && behind.length > 0 && behind.length <= 10 && (duration !== null || row.finishedAt === null))).toBe(true);
        for (const { held } of participants) expect(held.slice(0, -1).every(({ to }, i) => to !== null && to <= (held[i + 1]?.from ?? ''))).toBe(true);
      }
    }), { numRuns: 200 });
  });

  test('until its end an interaction is in one state at a time, without a gap', () => {
    const bodies = arbitraryBody.filter((body) => {
      if (body.kind === 'forwarded' || body.kind === 'transferred') return placeKey(body.to.queue) !== null;
      return !['ended', 'wrappedUp', 'followUp', 'processing', 'unqueued', 'present', 'dropped'].includes(body.kind);
    });
    fc.assert(fc.property(fc.array(fc.tuple(fc.integer({ min: 0, max: 30 }), bodies), { minLength: 1, maxLength: 25 }), (said) => {
      const { transitions } = journeyOf(story('x:1', said), SMALL);
      const states = transitions.filter(({ name }) => !['STARTED', 'FORWARD', 'TRANSFER'].includes(name));
      states.forEach((state, i) => {
        const next = states[i + 1];
        expect(state.duration === null ? null : msOf(state.at) + state.duration).toBe(next === undefined ? null : msOf(next.at));
      });
    }), { numRuns: 200 });
  });

  test('no instant of a transition is made up: each is that of a fact', () => {
    fc.assert(fc.property(arbitraryEvents(20), (events) => {
      const view = new MemoryDocuments(journeys);
      view.fold(events);
      const instants = new Set<Instant>(events.map(({ at }) => at));
      for (const key of view.keys('j')) for (const { at } of timelineOf(view, key).transitions) expect(instants).toContain(at);
    }), { numRuns: 50 });
  });
});
