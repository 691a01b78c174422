// The two 8x8 searches, shown over HTTP on every view store: each filter, each error code, times, cursors, and the published
// document's own examples (shared/reference/8x8-end-to-end-journey-api.txt). The searches against a plain in-memory filter
// are in searches-property.test.ts.
import { JOURNEY_FILTERS, TRANSITION_FILTERS } from '../../projections/journeys.ts';
import { EIGHT_BY_EIGHT_ERRORS, OUTCOMES } from '../../schemas/apis/eightbyeight.ts';
import type { Agent, Endpoint, InteractionFactBody, Interpreted, Place } from '../../schemas/facts.ts';
import { nodeKey } from '../../schemas/identity.ts';
import { MemoryViewStore } from '../../services/adapters/memory-views.ts';
import { START_MS, story } from '../support/facts.ts';
import { type Answered, describeOnStores, JOURNEYS_SEARCH, type SearchAnswer, type SearchServer, SearchWorld, shown, TRANSITIONS_SEARCH, workspaceNamed } from '../support/searches.ts';

const WEEK = { dateRange: { start: '2026-03-01T00:00:00Z', end: '2026-03-08T00:00:00Z' }, displayTimezone: 'UTC' };
const BOTH = [JOURNEYS_SEARCH, TRANSITIONS_SEARCH] as const;
type Line = readonly [seconds: number, ...bodies: InteractionFactBody[]];

/** Seconds after the stories' own start. */
const at = (time: string): number => (Date.parse(time) - START_MS) / 1000;
const only = (...filters: readonly (readonly [name: string, ...values: string[]])[]) => ({ ...WEEK, filters: filters.map(([name, ...values]) => ({ name, values })) });
const idsOf = ({ body }: SearchAnswer): string[] => body.data.map(({ journeyId }: { journeyId: string }) => journeyId);
const codesOf = ({ body }: SearchAnswer): string[] => body.errors.map(({ errorCode }: { errorCode: string }) => errorCode);

// ---- journeys in which every filter has a value of its own -------------------------------------------------------------

const place = (kind: string, n: number): Place => ({ id: `${kind}-${n}`, name: `${kind} No. ${n}`, extension: `${kind} ext. ${n}`, site: { id: `${kind}-site-${n}`, name: `${kind} Site ${n}` } });
const agent = (n: number, type: 'HUMAN' | 'AI' = 'HUMAN'): Agent => ({
  id: `agent-${n}`, name: `Agent ${n}`, email: `agent${n}@shop.example`, loginId: `login${n}`, department: `Department ${n}`, subscriptionId: `sub-${n}`,
  group: { id: `group-${n}`, name: `Group ${n}` }, site: { id: `agent-site-${n}`, name: `Agent Site ${n}` }, type,
});
const endpoint = (type: Endpoint['type'], n: number): Endpoint => ({
  type, id: `end-${n}`, name: `End ${n}`, phoneNumber: `+1555019900${n}`, extension: `end ext. ${n}`, email: `end${n}@shop.example`, loginId: `end-login${n}`,
  department: `End Department ${n}`, pbx: `pbx-${n}`, site: { id: `end-site-${n}`, name: `End Site ${n}` }, ...(type === 'user' ? {} : { tenantId: `tenant-${n}` }),
});
const contact = (n: number) => ({ name: `Contact ${n}`, phoneNumber: `+1555010010${n}`, email: `contact${n}@example.com` });

function inbound(n: number, medium: string, second: Agent): Interpreted[] {
  const lines: Line[] = [
    [0, { kind: 'started', direction: 'Inbound', medium, contact: contact(n), entryPoint: { ...endpoint(n === 1 ? 'call-queue' : 'user', n), tenantId: `tenant-${n}` }, platform: 'Contact Center' }, { kind: 'journey', journeyId: `J-${n}` }],
    [1, { kind: 'script', autoAttendant: place('attendant', n), scripts: [{ id: 's-1', name: 'Main' }], scheduleHours: ['Open'], schedules: [{ id: 'h-1', tag: 'hours', tenantId: 't-1', result: 'open' }] }],
    [2, { kind: 'waiting', queue: place('queue', n) }],
    [3, { kind: 'talking', agents: [agent(n)] }],
    [4, { kind: 'transferred', to: { ringGroup: place('ring', n) } }],
    [5, { kind: 'talking', agents: [second] }, { kind: 'aiAgent', creditConsumption: 1.5, tools: [{ name: `tool-${n}`, success: true }, { name: 'tool-9', success: false }] }],
    [6, { kind: 'forwarded', to: { queue: place('queue', 9), channel: place('channel', n) } }],
    [7, { kind: 'talking', agents: [agent(9)] }],
    [8, { kind: 'wrappedUp', wrapUpCodes: [`Code ${n}`, 'Done'] }],
    [9, { kind: 'ended', by: 'customer', final: true }],
  ];
  return story(`x:in-${n}`, lines.map(([seconds, ...bodies]) => [n * 100 + seconds, ...bodies]));
}

function outbound(n: number, medium: string, more: readonly Line[]): Interpreted[] {
  return story(`x:out-${n}`, ([
    [0, { kind: 'started', direction: 'Outbound', medium, contact: contact(n), origin: endpoint('user', n), tenant: `tenant-${n}` }, { kind: 'journey', journeyId: `J-${n}` }],
    [1, { kind: 'phoneCodes', codes: [{ listName: `List ${n}`, name: `Menu ${n}`, shortCode: `C${n}` }, { listName: 'List 9', name: 'Menu 9', shortCode: 'C9' }] }], ...more,
    [9, { kind: 'ended', by: 'agent', final: true }],
  ] satisfies Line[]).map(([seconds, ...bodies]): Line => [n * 100 + seconds, ...bodies]));
}

const STORIES: readonly Interpreted[] = [
  ...inbound(1, 'Phone', agent(7, 'AI')), ...inbound(2, 'Chat', agent(8)), ...outbound(3, 'Phone', []), ...outbound(4, 'Email', [[3, { kind: 'voicemail', agents: [agent(4)] }]]),
  ...story('x:lost', [
    [500, { kind: 'started', direction: 'Inbound', medium: 'Phone', contact: contact(5), pbx: 'pbx-5', tenant: 'tenant-5' }, { kind: 'journey', journeyId: 'J-5' }],
    [501, { kind: 'waiting', queue: { id: 'queue-5', name: null } }], [502, { kind: 'ended', by: 'customer', final: true }],
  ]),
];

/** What finds which of the journeys J-1 to J-5; of each filter at least two values. */
const JOURNEY_CASES: Readonly<Record<string, readonly (readonly [value: string, ...journeys: number[]])[]>> = {
  'agents.group.id': [['group-1', 1], ['group-9', 1, 2]],
  'agents.group.name': [['Group 2', 2], ['Group 9', 1, 2]],
  'agents.name': [['Agent 1', 1], ['Agent 8', 2], ['Agent 9', 1, 2]],
  'agents.department': [['Department 7', 1], ['Department 9', 1, 2]],
  'agents.email': [['agent2@shop.example', 2], ['agent9@shop.example', 1, 2]],
  'agents.site.id': [['agent-site-1', 1], ['agent-site-9', 1, 2]],
  'agents.site.name': [['Agent Site 2', 2], ['Agent Site 9', 1, 2]],
  'agents.type': [['AI', 1], ['HUMAN', 1, 2]],
  'aiAgentInformation.toolsUsedSuccessfully.name': [['tool-1', 1], ['tool-9', 1, 2]],
  'contact.email': [['contact3@example.com', 3], ['contact5@example.com', 5]],
  'contact.name': [['Contact 1', 1], ['Contact 4', 4]],
  'contact.phoneNumber': [['+15550100102', 2], ['+15550100105', 5]],
  direction: [['Inbound', 1, 2, 5], ['Outbound', 3, 4]],
  'entryPoint.extension': [['end ext. 1', 1], ['end ext. 2', 2]],
  'entryPoint.id': [['end-1', 1], ['end-2', 2]],
  'entryPoint.name': [['End 1', 1], ['End 2', 2]],
  'entryPoint.phoneNumber': [['+15550199001', 1], ['+15550199002', 2]],
  'entryPoint.type': [['call-queue', 1], ['user', 2]],
  'entryPoint.department': [['End Department 1', 1], ['End Department 2', 2]],
  'entryPoint.email': [['end1@shop.example', 1], ['end2@shop.example', 2]],
  'entryPoint.site.id': [['end-site-1', 1], ['end-site-2', 2]],
  'entryPoint.site.name': [['End Site 1', 1], ['End Site 2', 2]],
  'interactions.id': [['in-1', 1], ['lost', 5]],
  journeyId: [['J-1', 1], ['J-5', 5]],
  mediaTypes: [['Phone', 1, 3, 5], ['Chat', 2]],
  'origin.extension': [['end ext. 3', 3], ['end ext. 4', 4]],
  'origin.id': [['end-3', 3], ['end-4', 4]],
  'origin.name': [['End 3', 3], ['End 4', 4]],
  'origin.phoneNumber': [['+15550199003', 3], ['+15550199004', 4]],
  'origin.type': [['user', 3, 4], ['auto-attendant']],
  'origin.department': [['End Department 3', 3], ['End Department 4', 4]],
  'origin.email': [['end3@shop.example', 3], ['end4@shop.example', 4]],
  'origin.site.id': [['end-site-3', 3], ['end-site-4', 4]],
  'origin.site.name': [['End Site 3', 3], ['End Site 4', 4]],
  outcome: [['Handled', 1, 2], ['Other', 3, 4], ['Abandoned', 5]],
  'outboundPhoneCodes.listName': [['List 3', 3], ['List 9', 3, 4]],
  'outboundPhoneCodes.name': [['Menu 4', 4], ['Menu 9', 3, 4]],
  'outboundPhoneCodes.shortCode': [['C3', 3], ['C9', 3, 4]],
  pbxNames: [['pbx-1', 1], ['pbx-3', 3], ['pbx-5', 5]],
  'queues.extension': [['queue ext. 1', 1], ['queue ext. 9', 1, 2]],
  'queues.id': [['queue-5', 5], ['queue-9', 1, 2]],
  'queues.name': [['queue No. 2', 2], ['queue No. 9', 1, 2]],
  'queues.site.id': [['queue-site-1', 1], ['queue-site-9', 1, 2]],
  'queues.site.name': [['queue Site 2', 2], ['queue Site 9', 1, 2]],
  'ringGroups.extension': [['ring ext. 1', 1], ['ring ext. 2', 2]],
  'ringGroups.id': [['ring-1', 1], ['ring-2', 2]],
  'ringGroups.name': [['ring No. 1', 1], ['ring No. 2', 2]],
  'ringGroups.site.id': [['ring-site-1', 1], ['ring-site-2', 2]],
  'ringGroups.site.name': [['ring Site 1', 1], ['ring Site 2', 2]],
  tenantIds: [['tenant-2', 2], ['tenant-5', 5]],
  wrapUpCodes: [['Code 1', 1], ['Done', 1, 2]],
};
const TRANSITION_CASES: typeof JOURNEY_CASES = {
  journeyId: [['J-2', 2], ['J-4', 4]],
  pbxNames: [['pbx-2', 2], ['pbx-4', 4]],
  tenantIds: [['tenant-1', 1], ['tenant-5', 5]],
  'transitions.agents.name': [['Agent 1', 1], ['Agent 9', 1, 2], ['Agent 4', 4]],
  'transitions.agents.site.id': [['agent-site-7', 1], ['agent-site-9', 1, 2]],
  'transitions.agents.site.name': [['Agent Site 4', 4], ['Agent Site 9', 1, 2]],
  'transitions.agents.type': [['AI', 1], ['HUMAN', 1, 2, 3, 4]],
  'transitions.previousAgents.name': [['Agent 1', 1], ['Agent 8', 2]],
  'transitions.previousAgents.site.id': [['agent-site-7', 1], ['agent-site-2', 2]],
  'transitions.previousAgents.site.name': [['Agent Site 7', 1], ['Agent Site 8', 2]],
  'transitions.previousAgents.type': [['AI', 1], ['HUMAN', 1, 2]],
  'transitions.interactionId': [['in-2', 2], ['lost', 5]],
  'transitions.name': [['TRANSFER', 1, 2], ['OUTBOUND_STARTED', 3, 4], ['VOICEMAIL', 4], ['FINISHED', 1, 2, 3, 4, 5]],
  'transitions.queue.extension': [['queue ext. 1', 1], ['queue ext. 9', 1, 2]],
  'transitions.queue.id': [['queue-5', 5], ['queue-9', 1, 2]],
  'transitions.queue.name': [['queue No. 2', 2], ['queue No. 9', 1, 2]],
  'transitions.queue.site.id': [['queue-site-1', 1], ['queue-site-9', 1, 2]],
  'transitions.queue.site.name': [['queue Site 1', 1], ['queue Site 9', 1, 2]],
  'transitions.previousQueue.extension': [['queue ext. 1', 1], ['queue ext. 2', 2]],
  'transitions.previousQueue.id': [['queue-1', 1], ['queue-2', 2]],
  'transitions.previousQueue.name': [['queue No. 1', 1], ['queue No. 2', 2]],
  'transitions.previousQueue.site.id': [['queue-site-1', 1], ['queue-site-2', 2]],
  'transitions.previousQueue.site.name': [['queue Site 1', 1], ['queue Site 2', 2]],
  'transitions.ringGroup.extension': [['ring ext. 1', 1], ['ring ext. 2', 2]],
  'transitions.ringGroup.id': [['ring-1', 1], ['ring-2', 2]],
  'transitions.ringGroup.name': [['ring No. 1', 1], ['ring No. 2', 2]],
  'transitions.ringGroup.site.id': [['ring-site-1', 1], ['ring-site-2', 2]],
  'transitions.ringGroup.site.name': [['ring Site 1', 1], ['ring Site 2', 2]],
  'transitions.previousRingGroup.extension': [['ring ext. 1', 1], ['ring ext. 2', 2]],
  'transitions.previousRingGroup.id': [['ring-1', 1], ['ring-2', 2]],
  'transitions.previousRingGroup.name': [['ring No. 1', 1], ['ring No. 2', 2]],
  'transitions.previousRingGroup.site.id': [['ring-site-1', 1], ['ring-site-2', 2]],
  'transitions.previousRingGroup.site.name': [['ring Site 1', 1], ['ring Site 2', 2]],
  'transitions.autoAttendant.extension': [['attendant ext. 1', 1], ['attendant ext. 2', 2]],
  'transitions.autoAttendant.id': [['attendant-1', 1], ['attendant-2', 2]],
  'transitions.autoAttendant.name': [['attendant No. 1', 1], ['attendant No. 2', 2]],
  'transitions.autoAttendant.site.id': [['attendant-site-1', 1], ['attendant-site-2', 2]],
  'transitions.autoAttendant.site.name': [['attendant Site 1', 1], ['attendant Site 2', 2]],
};
const CASES = [
  ...Object.entries(JOURNEY_CASES).map(([name, cases]) => [JOURNEYS_SEARCH, name, cases] as const),
  ...Object.entries(TRANSITION_CASES).map(([name, cases]) => [TRANSITIONS_SEARCH, name, cases] as const),
];

test('every filter that there is stands in the tables: 51 of journeys, 38 of transitions', () => {
  expect([Object.keys(JOURNEY_CASES).sort(), Object.keys(TRANSITION_CASES).sort()]).toEqual([Object.keys(JOURNEY_FILTERS).sort(), Object.keys(TRANSITION_FILTERS).sort()]);
  expect([Object.keys(JOURNEY_FILTERS).length, Object.keys(TRANSITION_FILTERS).length]).toEqual([51, 38]);
  expect(CASES.filter(([, , cases]) => cases.length < 2)).toEqual([]);
});

// ---- the published document's examples, word for word ---------------------------------------------------------------------

const PUBLISHED_REQUESTS: readonly (readonly [address: string, body: object])[] = [
  [JOURNEYS_SEARCH, {
    dateRange: { start: '2025-05-19T08:00:00+03:00', end: '2025-05-19T16:00:00+03:00' },
    filters: [{ name: 'pbxNames', values: ['yourPbxName'] }, { name: 'tenantIds', values: ['yourTenantId'] }], displayTimezone: 'Europe/Bucharest', limit: 50, sortDirection: 'DESC',
  }],
  [TRANSITIONS_SEARCH, {
    dateRange: { start: '2025-05-21T00:00:00+03:00', end: '2025-05-21T23:59:59+03:00' }, filters: [{ name: 'transitions.name', values: ['TRANSFER'] }], displayTimezone: 'Europe/Bucharest', limit: 100,
  }],
  // The example of filters and nothing else.
  [JOURNEYS_SEARCH, { ...WEEK, filters: [{ name: 'agents.name', values: ['John Doe', 'Marsha Mellow'] }, { name: 'mediaTypes', values: ['phone'] }] }],
  [JOURNEYS_SEARCH, { dateRange: { start: '2025-05-19T00:00:00Z', end: '2025-05-19T23:59:59Z' }, displayTimezone: 'UTC', limit: 100 }],
  [JOURNEYS_SEARCH, { dateRange: { start: '2025-05-19T00:00:00Z', end: '2025-05-19T23:59:59Z' }, displayTimezone: 'UTC', sortField: 'TIME', sortDirection: 'DESC' }],
  [JOURNEYS_SEARCH, { dateRange: { start: '2025-05-19T08:00:00+03:00', end: '2025-05-19T23:00:00+03:00' }, filters: [{ name: 'pbxNames', values: ['mainPbx'] }], displayTimezone: 'Europe/Paris', limit: 50 }],
  [TRANSITIONS_SEARCH, { dateRange: { start: '2025-05-19T08:00:00+03:00', end: '2025-05-19T23:00:00+03:00' }, filters: [{ name: 'journeyId', values: ['journey-123'] }], displayTimezone: 'Europe/Paris', sortDirection: 'ASC' }],
  [TRANSITIONS_SEARCH, { dateRange: { start: '2025-05-19T00:00:00+03:00', end: '2025-05-19T23:59:59+03:00' }, filters: [{ name: 'transitions.name', values: ['TRANSFER'] }], displayTimezone: 'Europe/Paris', limit: 100 }],
  [JOURNEYS_SEARCH, { dateRange: { start: '2025-05-19T00:00:00+03:00', end: '2025-05-19T23:59:59+03:00' }, filters: [{ name: 'queues.name', values: ['support', 'sales', 'technical'] }], displayTimezone: 'Europe/Paris', limit: 100 }],
];

const PUBLISHED_JOURNEY = {
  time: '2025-03-10T13:33:42+02:00', journeyId: '7b2429440d15183af1044dd47f1d447d',
  interactions: [{ id: 'int-196e53e066e-QNePASHISrp0D65MVgaNJYS13-phone-01-emeriaeurope01', direction: 'Inbound', type: null }],
  agents: [{ id: 'ag-123', subscriptionId: 'sub-456', name: 'John Doe', email: 'john.doe@example.com', loginId: 'jdoe', department: 'Customer Support', group: { id: '101', name: 'ungroup' } }],
  contact: { name: '+443335565567', phoneNumber: '+449988776655', email: 'john.doe@8x8.com' },
  entryPoint: { type: 'user', id: 'user-789', name: 'Jane Smith', phoneNumber: '+1234567890', extension: '1001', email: 'jane.smith@example.com', loginId: 'jsmith', department: 'Sales', pbx: 'mainPbx', tenantId: '8x8' },
  direction: 'Outbound', transfersCompleted: 0, forwardedToQueue: 0, forwardedToRingGroup: 0, forwardedToScript: 2, holdDuration: 0, mediaTypes: ['Phone'], outcome: 'EndedInScript',
  origin: { type: 'user', id: 'user-789', name: 'Jane Smith', phoneNumber: null, extension: '1036', email: 'jane.smith@example.com', loginId: 'jsmith', department: 'Sales', pbx: 'mainPbx' },
  pbxNames: [], queues: [], ringGroups: [], scheduleHours: ['Open', 'Closed'], tenantIds: ['8x8'], wrapUpCodes: [], outboundPhoneCodes: [],
};

const INTERACTION = 'int-196f21ac6ef-d5eed30bc738045-phone-02-8x8';
const PUBLISHED_TIMELINE = {
  journeyId: '3015ccfd5ebf8b2dcde38045ed30bc7',
  transitions: [
    { time: '2025-05-21T12:09:23.312+03:00', name: 'STARTED', interactionId: INTERACTION, agents: [], previousAgents: [], previousQueue: null, previousRingGroup: null, queue: null, ringGroup: null, duration: 0, externalNumber: null, mediaType: 'Phone' },
    { time: '2025-05-21T12:09:23.312+03:00', name: 'IN_SCRIPT', interactionId: INTERACTION, agents: [], previousAgents: [], previousQueue: null, previousRingGroup: null, queue: null, ringGroup: null, duration: 9206, externalNumber: null, mediaType: 'Phone' },
    {
      time: '2025-05-21T12:10:12.143+03:00', name: 'TRANSFER', interactionId: INTERACTION,
      agents: [{ id: 'ag-456', subscriptionId: 'sub-789', name: 'Jack Pott', email: 'jack.pott@example.com', loginId: 'jpott', department: 'Technical Support', group: null }],
      previousAgents: [{ id: 'ag-123', subscriptionId: 'sub-456', name: 'Marsha Mellow', email: 'marsha.mellow@example.com', loginId: 'mmellow', department: 'Customer Support', group: null }],
      previousQueue: { id: 'queue-101', name: 'Service Client', extension: '2001' }, previousRingGroup: null, queue: null, ringGroup: null, duration: 0, externalNumber: '+441138413014', mediaType: 'Phone',
    },
  ],
} as const;

const kindOf = (value: unknown): string => (value === null ? 'null' : Array.isArray(value) ? 'array' : typeof value);
const fieldsOf = (value: object): [string, unknown][] => Object.entries(value);

/** Where an answer lacks a field that is published, or has another type there; null goes with any. */
function differences(published: unknown, ours: unknown, place: string): string[] {
  const [a, b] = [kindOf(published), kindOf(ours)];
  if (ours === undefined) return [`${place} is missing`];
  if (a === 'null' || b === 'null') return [];
  if (a !== b) return [`${place}: ${a} is answered as ${b}`];
  if (Array.isArray(published)) return (ours as unknown[]).flatMap((item) => (published.length === 0 ? [] : differences(published[0], item, `${place}[]`)));
  return a === 'object' ? fieldsOf(published as object).flatMap(([name, value]) => differences(value, (ours as Record<string, unknown>)[name], `${place}.${name}`)) : [];
}

/** Published fields for which none of our answers has a value. */
function missing(published: unknown, ours: readonly unknown[], place: string): string[] {
  const said = ours.filter((one) => one !== null && one !== undefined);
  if (Array.isArray(published)) return published.length === 0 ? [] : missing(published[0], said.flat(), `${place}[]`);
  if (kindOf(published) !== 'object') return said.length === 0 ? [place] : [];
  return fieldsOf(published as object).flatMap(([name, value]) => missing(value, said.map((one) => (one as Record<string, unknown>)[name]), `${place}.${name}`));
}

// ---- the tests -----------------------------------------------------------------------------------------------------------

describeOnStores((open) => {
  let world: SearchWorld;
  let server: SearchServer;
  let latest: SearchServer;
  beforeAll(async () => {
    world = await SearchWorld.open(open);
    await world.fold('acme', STORIES);
    // The same journeys under the same ids, and one more.
    await world.fold('rival', [...STORIES, ...story('x:theirs', [[600, { kind: 'started', direction: 'Inbound', pbx: 'pbx-rival', tenant: 'tenant-rival' }]])]);
    world.settings.set('acme', { pbxNames: ['pbx-set'], tenantIds: ['tenant-set'] });
    [server, latest] = [await world.serve(), await world.serve({ revision: 'latest' })];
  });
  afterAll(async () => world.close());

  describe('filters', () => {
    test.each(CASES)('%s: %s finds the journeys that have a value, and no other workspace\'s', async (address, name, cases) => {
      const sorted = (journeys: readonly number[]): string[] => [...new Set(journeys)].sort().map((n) => `J-${String(n)}`);
      for (const [value, ...journeys] of cases) {
        const found = await server.post(address, only([name, value]));
        expect([found.status, idsOf(found), found.body.totalElements, found.body.nextPageCursor]).toEqual([200, sorted(journeys), journeys.length, null]);
      }
      const [one, other] = [cases[0]!, cases[1]!];
      const either = sorted([...one.slice(1), ...other.slice(1)] as number[]);
      expect(idsOf(await server.post(address, only([name, one[0], other[0], one[0]])))).toEqual(either);
      // Both at once: of transitions, on one and the same.
      const both = one.slice(1).filter((journey) => other.includes(journey) && !name.startsWith('transitions.')) as number[];
      expect(idsOf(await server.post(address, only([name, one[0]], [name, other[0]])))).toEqual(sorted(both));
    });

    test.each(CASES)('%s: %s is asked for with any value as an answer shows it, exactly', async (address, name) => {
      const { rows } = await server.walk(address, WEEK);
      const { rows: whole } = await server.walk(JOURNEYS_SEARCH, WEEK);
      const valuesOf = (row: { journeyId: string }): readonly string[] => shown(name.startsWith('transitions.') ? row : whole.find(({ journeyId }) => journeyId === row.journeyId), name.split('.'));
      const values = new Set(rows.flatMap(valuesOf));
      expect(values.size).toBeGreaterThan(0);
      for (const value of values) {
        expect([value, idsOf(await server.post(address, only([name, value])))]).toEqual([value, rows.filter((row) => valuesOf(row).includes(value)).map(({ journeyId }) => journeyId)]);
        const inverted = value.replace(/./gu, (letter) => (letter === letter.toUpperCase() ? letter.toLowerCase() : letter.toUpperCase()));
        if (inverted === value) continue;
        const found = idsOf(await latest.post(address, only([name, inverted])));
        expect([inverted, found.length > 0]).toEqual([inverted, name === 'mediaTypes']);
      }
      expect((await latest.post(address, only([name, 'what nobody has']))).body).toEqual({ data: [], nextPageCursor: null, totalElements: 0 });
    });

    test('a filter of the other endpoint is invalidFilterType, each of them', async () => {
      const others = (names: object, those: object): string[] => Object.keys(names).filter((name) => !Object.hasOwn(those, name));
      for (const [address, names] of [[JOURNEYS_SEARCH, others(TRANSITION_FILTERS, JOURNEY_FILTERS)], [TRANSITIONS_SEARCH, others(JOURNEY_FILTERS, TRANSITION_FILTERS)]] as const) {
        const refused = await server.post(address, only(...names.map((name) => [name, 'x'] as const)));
        expect([refused.status, codesOf(refused)]).toEqual([400, names.map(() => 'invalidFilterType')]);
      }
    });

    test('every filter of an endpoint at once: all must hold', async () => {
      for (const [address, cases] of [[JOURNEYS_SEARCH, JOURNEY_CASES], [TRANSITIONS_SEARCH, TRANSITION_CASES]] as const) {
        const all = Object.entries(cases).map(([name, [first]]) => [name, first![0]] as const);
        expect((await server.post(address, only(...all))).body).toEqual({ data: [], nextPageCursor: null, totalElements: 0 });
      }
      const ofOne = Object.entries(JOURNEY_CASES).flatMap(([name, cases]) => cases.filter((one) => one.slice(1).includes(1)).map(([value]) => [name, value] as const));
      expect(new Set(ofOne.map(([name]) => name)).size).toBeGreaterThan(30);
      expect(idsOf(await server.post(JOURNEYS_SEARCH, only(...ofOne)))).toEqual(['J-1']);
    });

    test('two filters of transitions must hold on one and the same, and the answer is the whole journey', async () => {
      const on = async (...filters: readonly (readonly [string, ...string[]])[]): Promise<string[]> => idsOf(await server.post(TRANSITIONS_SEARCH, only(...filters)));
      expect(await on(['transitions.name', 'TALKING'], ['transitions.agents.name', 'Agent 1'])).toEqual(['J-1']);
      expect(await on(['transitions.name', 'WAITING'], ['transitions.agents.name', 'Agent 1'])).toEqual([]);
      expect(await on(['transitions.name', 'FORWARD', 'TRANSFER'], ['transitions.previousAgents.name', 'Agent 8'])).toEqual(['J-2']);
      expect(await on(['transitions.name', 'TRANSFER'], ['transitions.previousAgents.name', 'Agent 8'])).toEqual([]);
      expect(await on(['transitions.name', 'TALKING'], ['transitions.agents.type', 'AI'], ['pbxNames', 'pbx-2'])).toEqual([]);
      const { body } = await server.post(TRANSITIONS_SEARCH, only(['transitions.name', 'TRANSFER'], ['journeyId', 'J-1']));
      expect(body.data[0].transitions.map(({ name }: { name: string }) => name)).toEqual(['STARTED', 'IN_SCRIPT', 'WAITING', 'TALKING', 'TRANSFER', 'WAITING', 'TALKING', 'FORWARD', 'WAITING', 'TALKING', 'FINISHED']);
    });

    test('an entry point is shown with whose it is for users alone, with its site only where it has one; it is found by all that was recorded, which our own endpoints show', async () => {
      const types = ['cc-channel', 'call-queue', 'ring-group', 'auto-attendant', 'user', 'ai-studio'] as const;
      await world.fold('entries', types.flatMap((type, n) => story(`x:by-${type}`, [[n, { kind: 'started', direction: 'Inbound', entryPoint: endpoint(type, 1) }, { kind: 'journey', journeyId: type }]])));
      const detailsOf = ({ entryPoint }: Answered): unknown[] => [entryPoint.type, entryPoint.email, entryPoint.loginId, entryPoint.department, entryPoint.site?.id];
      const whose = ['end1@shop.example', 'end-login1', 'End Department 1'];
      const nobodys = [null, null, null];
      for (const from of [server, latest]) {
        const { body } = await from.post(JOURNEYS_SEARCH, only(['entryPoint.email', 'end1@shop.example'], ['entryPoint.site.id', 'end-site-1']), 'key of entries');
        expect(body.data.map(detailsOf)).toEqual([
          ['cc-channel', ...nobodys, undefined], ['call-queue', ...nobodys, 'end-site-1'], ['ring-group', ...nobodys, 'end-site-1'], ['auto-attendant', ...nobodys, 'end-site-1'], ['user', ...whose, undefined], ['ai-studio', ...nobodys, undefined],
        ]);
      }
      for (const type of types) expect(detailsOf((await server.ask(`/journeys/${type}`, {}, 'key of entries')).body)).toEqual([type, ...whose, 'end-site-1']);
    });

    test('codes of a call out are shown and found of journeys that go out alone', async () => {
      await world.fold('codes', (['Inbound', 'Outbound', 'Internal'] as const).flatMap((direction, n) => story(`x:${direction}`, [[n, { kind: 'started', direction }, { kind: 'journey', journeyId: direction }, { kind: 'phoneCodes', codes: [{ listName: 'List', name: 'Menu', shortCode: 'C' }] }]])));
      const { body } = await server.post(JOURNEYS_SEARCH, WEEK, 'key of codes');
      expect(body.data.map(({ direction, outboundPhoneCodes }: Answered) => [direction, outboundPhoneCodes.length])).toEqual([['Inbound', 0], ['Outbound', 1], ['Internal', 0]]);
      for (const filter of [['outboundPhoneCodes.listName', 'List'], ['outboundPhoneCodes.name', 'Menu'], ['outboundPhoneCodes.shortCode', 'C']] as const) expect(idsOf(await server.post(JOURNEYS_SEARCH, only(filter), 'key of codes'))).toEqual(['Outbound']);
    });

    test('journeyId answers to every id that the journey ever had, and shows the one that it has', async () => {
      for (const address of BOTH) {
        for (const id of ['J-1', nodeKey(workspaceNamed('acme'), 'x:in-1')]) expect(idsOf(await server.post(address, only(['journeyId', id])))).toEqual(['J-1']);
        expect(idsOf(await server.post(address, only(['journeyId', nodeKey(workspaceNamed('rival'), 'x:in-1')])))).toEqual([]);
      }
    });

    test('outcome: the seed shows five values, of which Other stands for all that are shown so; the latest revision shows ten', async () => {
      const outcomesBy = async (from: SearchServer, ...values: string[]): Promise<string[]> => (await from.post(JOURNEYS_SEARCH, only(['outcome', ...values]))).body.data.map(({ journeyId, outcome }: Record<string, string>) => `${journeyId} ${outcome}`);
      expect(await outcomesBy(server, 'Other')).toEqual(['J-3 Other', 'J-4 Other']);
      expect(await outcomesBy(server, 'Voicemail')).toEqual(['J-4 Other']);
      expect(await outcomesBy(latest, 'Other')).toEqual(['J-3 Other']);
      expect(await outcomesBy(latest, 'Voicemail', 'Abandoned')).toEqual(['J-4 Voicemail', 'J-5 Abandoned']);
      expect(await outcomesBy(server, ...OUTCOMES)).toHaveLength(5);
    });
  });

  describe('errors', () => {
    type Cause = readonly [code: string, title: string, status: number, cause: (address: string) => Promise<SearchAnswer>];
    const body = (given: object) => (address: string): Promise<SearchAnswer> => server.post(address, { ...WEEK, ...given });
    const range = (start: unknown, end: unknown) => body({ dateRange: { start, end } });
    const cursor = (more: object) => async (address: string): Promise<SearchAnswer> => {
      const first = await server.post(address, { ...WEEK, limit: 1 });
      return server.post(address, { ...WEEK, ...more, nextPageCursor: first.body.nextPageCursor });
    };
    /** The 23 of the published document. */
    const PUBLISHED: readonly Cause[] = [
      ['invalidPbx', 'Invalid PBX', 400, body({ filters: [{ name: 'pbxNames', values: ['pbx-1', 'pbx-rival'] }] })],
      ['invalidTenant', 'Invalid Tenant', 400, body({ filters: [{ name: 'tenantIds', values: ['tenant-1', 'tenant-rival'] }] })],
      ['malformedRequest', 'Malformed Request', 400, (address) => server.post(address, '{"dateRange":')],
      ['badRequest', 'Bad Request', 400, body({ limit: '10' })],
      ['dateRangeNotNull', 'Date Range Not Null', 400, body({ dateRange: undefined })],
      ['startRangeNotNull', 'Start Date Not Null', 400, range(undefined, '2026-03-02T00:00:00Z')],
      ['endRangeNotNull', 'End Date Not Null', 400, range('2026-03-02T00:00:00Z', undefined)],
      ['endDateBeforeStartDate', 'End Date Before Start Date', 400, range('2026-03-02T00:00:01Z', '2026-03-02T00:00:00Z')],
      ['filtersNotEmpty', 'Filters Not Empty', 400, body({ filters: [] })],
      ['iso8061WithTzFormat', 'ISO 8061 With Timezone Format', 400, range('2026-03-02T00:00:00', '2026-03-03T00:00:00Z')],
      ['maxInterval', 'Max Interval', 400, range('2026-01-01T00:00:00Z', '2026-03-02T00:00:00.001Z')],
      ['filterValuesNotEmpty', 'Filter Values Not Empty', 400, body({ filters: [{ name: 'journeyId', values: [] }] })],
      ['invalidFilterType', 'Invalid Filter Type', 400, body({ filters: [{ name: 'colour', values: ['red'] }] })],
      ['timezoneNotNull', 'Timezone Not Null', 400, body({ displayTimezone: undefined })],
      ['invalidTimezone', 'Invalid Timezone', 400, body({ displayTimezone: 'Europe/Atlantis' })],
      ['invalidSortDirection', 'Invalid Sort Direction', 400, body({ sortDirection: 'UP' })],
      ['invalidSortField', 'Invalid Sort Field', 400, body({ sortField: 'NAME' })],
      ['invalidLimit', 'Invalid Limit', 400, body({ limit: 1001 })],
      ['invalidCursor', 'Invalid Cursor', 400, body({ nextPageCursor: 'ZW5jbLW5leHQtRlZC1jdXJzb3ItZm9ycGFnZQ==' })],
      ['cursorAndSortMismatch', 'Cursor And Sort Mismatch', 400, cursor({ sortDirection: 'DESC' })],
      ['missingPbxForCustomer', 'Missing PBX For Customer', 403, (address) => server.post(address, only(['pbxNames', 'pbx-1']), 'key of fresh')],
      ['invalidApiPath', 'Invalid Endpoint', 404, (address) => server.post(`${address}/all`, WEEK)],
      ['invalidRequestMethod', 'Invalid Request Method', 405, (address) => server.ask(address, { method: 'PUT', body: '{}' })],
    ];
    /** What else may be answered. */
    const FURTHER: readonly Cause[] = [
      ['unauthorized', '', 401, (address) => server.post(address, WEEK, 'nobody\'s key')],
      ['bodyTooLarge', '', 413, (address) => server.post(address, { ...WEEK, padding: 'x'.repeat(300_000) })],
      ['unsupportedMediaType', '', 415, (address) => server.post(address, WEEK, undefined, { 'content-type': 'text/plain' })],
      ['unsupportedMediaType', '', 415, (address) => server.post(address, WEEK, undefined, { 'content-encoding': 'gzip' })],
      ['rateLimited', '', 429, async (address) => {
        world.now += 60_000;
        for (const other of BOTH) expect((await server.post(other, WEEK, 'few of acme')).status).toBe(200);
        return server.post(address, WEEK, 'few of acme');
      }],
      ['internal', '', 500, async (address) => {
        const broken = Object.assign(new MemoryViewStore(), { live: async () => { throw new Error('the inside of a bug'); } });
        return (await world.serve({ views: broken })).post(address, WEEK);
      }],
    ];

    test('the table has all 23 codes', () => {
      expect(PUBLISHED.map(([code, title, status]) => [code, title, status]).sort()).toEqual(Object.entries(EIGHT_BY_EIGHT_ERRORS).map(([code, { title, status }]) => [code, title, status]).sort());
      expect(PUBLISHED).toHaveLength(23);
    });

    test.each([...PUBLISHED, ...FURTHER])('%s (%s) is told with status %i, message, suggestion, url and errorCode', async (code, title, status, cause) => {
      for (const address of BOTH) {
        const refused = await cause(address);
        expect([refused.status, refused.headers.get('content-type')]).toEqual([status, 'application/json']);
        const page = 'https://developer.8x8.com/analytics/docs/end-to-end-journey-api';
        const url = title === '' ? page : `${page}#${title.toLowerCase().replaceAll(' ', '-')}-${code.toLowerCase()}`;
        expect(refused.body).toEqual({ errors: [{ message: expect.stringMatching(/\S/), suggestion: expect.stringMatching(/\S/), url, errorCode: code }] });
        expect(JSON.stringify(refused.body)).not.toContain('inside of a bug');
        if (status === 405) expect(refused.headers.get('allow')).toBe('POST');
        if (status === 429) expect(refused.headers.get('retry-after')).toBe('60');
        if (status === 401) expect(refused.headers.get('www-authenticate')).toBe('Bearer');
      }
    });

    test('a 429 does not consume, and Retry-After is when the next one passes', async () => {
      world.now += 60_000;
      const ask = (): Promise<SearchAnswer> => server.post(JOURNEYS_SEARCH, WEEK, 'few of rival');
      await ask();
      world.now += 20_500;
      expect([(await ask()).status, (await ask()).status, (await ask()).headers.get('retry-after')]).toEqual([200, 429, '40']);
      world.now += 39_500;
      expect([(await ask()).status, (await ask()).status]).toEqual([200, 429]);
    });

    test('several violations are told together, each with where it is', async () => {
      const refused = await server.post(JOURNEYS_SEARCH, {
        dateRange: { start: '2026-03-02T00:00:00', end: '' }, displayTimezone: '+03:00', limit: 0, sortField: 'NAME', sortDirection: 'up', nextPageCursor: 'forged',
        filters: [{ name: 'pbxNames', values: ['pbx-nobody'] }, { name: 'tenantIds', values: ['tenant-1', 'tenant-nobody'] }, { name: 'colour', values: [] }, { name: 'direction', values: [1] }],
      });
      expect([refused.status, refused.body.errors.map(({ errorCode, message }: Record<string, string>) => `${errorCode} ${/\((.*)\)/.exec(message!)?.[1] ?? ''}`).sort()]).toEqual([400, [
        'badRequest filters.3.values.0', 'filterValuesNotEmpty filters.2.values', 'invalidCursor nextPageCursor', 'invalidFilterType filters.2.name', 'invalidLimit limit', 'invalidPbx filters.0.values.0',
        'invalidSortDirection sortDirection', 'invalidSortField sortField', 'invalidTenant filters.1.values.1', 'invalidTimezone displayTimezone', 'iso8061WithTzFormat dateRange.end', 'iso8061WithTzFormat dateRange.start',
      ]]);
    });

    test('a PBX or tenant that is none is told beside values that are no text, each with its own index', async () => {
      for (const address of BOTH) {
        const refused = await server.post(address, { ...WEEK, filters: [{ name: 'pbxNames', values: ['nope', 5] }, { name: 'tenantIds', values: [null, 'tenant-1', 'nope', 'nope'] }] });
        expect(refused.body.errors.map(({ errorCode, message }: Record<string, string>) => `${errorCode} ${/\((.*)\)/.exec(message!)?.[1] ?? ''}`).sort()).toEqual([
          'badRequest filters.0.values.1', 'badRequest filters.1.values.0', 'invalidPbx filters.0.values.0', 'invalidTenant filters.1.values.2', 'invalidTenant filters.1.values.3',
        ]);
      }
    });

    test.each(['{"dateRange":', '', 'null', '[]', '"x"', '{"filters":[}', '\u{0}'])('a body that is no JSON object (%j) is told once, and nothing else', async (text) => {
      for (const address of BOTH) expect(codesOf(await server.post(address, text))).toEqual(['malformedRequest']);
    });

    test('G8: a PBX or tenant of another workspace is answered as one that nobody has', async () => {
      for (const address of BOTH) {
        for (const [name, theirs, nobodys, code] of [['pbxNames', 'pbx-rival', 'pbx-nobody', 'invalidPbx'], ['tenantIds', 'tenant-rival', 'tenant-nobody', 'invalidTenant']] as const) {
          const [one, other] = [await server.post(address, only([name, theirs])), await server.post(address, only([name, nobodys]))];
          expect([one.status, one.body, codesOf(one)]).toEqual([other.status, other.body, [code]]);
          expect((await server.post(address, only([name, theirs]), 'key of rival')).status).toBe(200);
        }
      }
    });

    test('a PBX or tenant that the settings name passes, although no event named it', async () => {
      for (const address of BOTH) {
        expect((await server.post(address, only(['pbxNames', 'pbx-set'], ['tenantIds', 'tenant-set']))).body).toEqual({ data: [], nextPageCursor: null, totalElements: 0 });
        expect(idsOf(await server.post(address, only(['pbxNames', 'pbx-set', 'pbx-1'])))).toEqual(['J-1']);
        expect(codesOf(await server.post(address, only(['pbxNames', 'pbx-set'], ['tenantIds', 'tenant-set']), 'key of rival'))).toEqual(['invalidPbx', 'invalidTenant']);
      }
    });

    test('only a pbxNames filter tells an account without any PBX so', async () => {
      world.settings.set('tenants_only', { pbxNames: [], tenantIds: ['t-1'] });
      const answer = async (workspace: string, ...filters: readonly (readonly [string, ...string[]])[]): Promise<unknown> => {
        const { status, body: said } = await server.post(JOURNEYS_SEARCH, filters.length === 0 ? WEEK : only(...filters), `key of ${workspace}`);
        return [status, status === 200 ? said.totalElements : said.errors[0].errorCode];
      };
      expect(await answer('fresh')).toEqual([200, 0]);
      expect(await answer('fresh', ['direction', 'Inbound'])).toEqual([200, 0]);
      expect(await answer('fresh', ['tenantIds', 't-1'])).toEqual([400, 'invalidTenant']);
      expect(await answer('fresh', ['pbxNames', 'main'])).toEqual([403, 'missingPbxForCustomer']);
      expect(await answer('tenants_only', ['tenantIds', 't-1'])).toEqual([200, 0]);
      expect(await answer('tenants_only', ['pbxNames', 'main'])).toEqual([403, 'missingPbxForCustomer']);
    });

    test('the latest revision allows [] for filters, takes upper case alone, and finds nothing by a PBX or tenant that is none', async () => {
      for (const address of BOTH) {
        expect((await latest.post(address, { ...WEEK, filters: [] })).body.totalElements).toBe(5);
        expect(codesOf(await latest.post(address, { ...WEEK, sortDirection: 'asc' }))).toEqual(['invalidSortDirection']);
        expect((await latest.post(address, { ...WEEK, sortDirection: 'DESC' })).status).toBe(200);
        expect((await server.post(address, { ...WEEK, sortDirection: 'desc' })).status).toBe(200);
        for (const key of ['key of acme', 'key of fresh']) {
          for (const filter of [['pbxNames', 'pbx-rival'], ['tenantIds', 'tenant-nobody']] as const) expect((await latest.post(address, only(filter), key)).body).toEqual({ data: [], nextPageCursor: null, totalElements: 0 });
        }
      }
    });
  });

  describe('times', () => {
    const displayed = async (workspace: string, displayTimezone: string): Promise<string[]> => {
      const year = { dateRange: { start: '2026-10-01T00:00:00Z', end: '2026-10-31T00:00:00Z' }, displayTimezone };
      const [{ body }, { body: timelines }] = [await server.post(JOURNEYS_SEARCH, year, `key of ${workspace}`), await server.post(TRANSITIONS_SEARCH, year, `key of ${workspace}`)];
      const [row] = body.data;
      return [row.time, row.finishedTime, ...timelines.data[0].transitions.map(({ time }: { time: string }) => time)];
    };
    const acrossAChange = (workspace: string, start: string, end: string): Promise<void> => world.fold(workspace, story(`x:${workspace}`, [[at(start), { kind: 'started', direction: 'Inbound' }], [at(end), { kind: 'ended', final: true }]]));

    test('the offset is the one valid at each instant, on both sides of a change of the clocks', async () => {
      await acrossAChange('autumn', '2026-10-25T00:59:59.999Z', '2026-10-25T01:00:00Z');
      expect(await displayed('autumn', 'Europe/Bucharest')).toEqual(['2026-10-25T03:59:59.999+03:00', '2026-10-25T03:00:00+02:00', '2026-10-25T03:59:59.999+03:00', '2026-10-25T03:00:00+02:00']);
      expect((await displayed('autumn', 'UTC')).slice(0, 2)).toEqual(['2026-10-25T00:59:59.999Z', '2026-10-25T01:00:00Z']);
      expect((await displayed('autumn', 'Asia/Kolkata')).slice(0, 2)).toEqual(['2026-10-25T06:29:59.999+05:30', '2026-10-25T06:30:00+05:30']);
      expect((await displayed('autumn', 'America/New_York')).slice(0, 2)).toEqual(['2026-10-24T20:59:59.999-04:00', '2026-10-24T21:00:00-04:00']);
    });

    test('and where they go forward, which no hour between shows', async () => {
      await acrossAChange('spring', '2026-03-29T00:59:59.999Z', '2026-03-29T01:00:00Z');
      const { body } = await server.post(JOURNEYS_SEARCH, { dateRange: { start: '2026-03-29T02:59:59.999+02:00', end: '2026-03-29T02:59:59.999+02:00' }, displayTimezone: 'Europe/Bucharest' }, 'key of spring');
      expect(body.data.map(({ time, finishedTime }: Record<string, string>) => [time, finishedTime])).toEqual([['2026-03-29T02:59:59.999+02:00', '2026-03-29T04:00:00+03:00']]);
    });

    test('both bounds are inclusive to the millisecond, whatever their offsets; start = end is a range', async () => {
      await world.fold('bounds', story('x:bounds', [[at('2026-03-02T09:00:00.250Z'), { kind: 'started', direction: 'Inbound' }, { kind: 'journey', journeyId: 'J' }]]));
      const found = async (start: string, end: string): Promise<number[]> => Promise.all(BOTH.map(async (address) => (await server.post(address, { dateRange: { start, end }, displayTimezone: 'UTC' }, 'key of bounds')).body.totalElements));
      expect(await found('2026-03-02T09:00:00.250Z', '2026-03-02T09:00:00.250Z')).toEqual([1, 1]);
      expect(await found('2026-03-02T11:00:00.250+02:00', '2026-03-02T04:00:00.25-05:00')).toEqual([1, 1]);
      expect(await found('2026-03-02T09:00:00.251Z', '2026-03-03T00:00:00Z')).toEqual([0, 0]);
      expect(await found('2026-03-02T00:00:00Z', '2026-03-02T09:00:00.249Z')).toEqual([0, 0]);
      expect(await found('2026-03-02T09:00Z', '2026-03-02T09:01Z')).toEqual([1, 1]);
    });

    test('sixty times 24 hours pass, also across a change of the clocks, and a millisecond more does not; --max-range says otherwise', async () => {
      const answer = async (from: SearchServer, start: string, end: string): Promise<unknown> => {
        const said = await from.post(JOURNEYS_SEARCH, { dateRange: { start, end }, displayTimezone: 'Europe/Bucharest' });
        return said.status === 200 ? 200 : said.body.errors[0];
      };
      expect(await answer(server, '2026-02-01T00:00:00+02:00', '2026-04-02T01:00:00+03:00')).toBe(200);
      expect(await answer(server, '2026-02-01T00:00:00+02:00', '2026-04-02T01:00:00.001+03:00')).toMatchObject({ errorCode: 'maxInterval', message: 'The date range is longer than 60 days. (dateRange)' });
      const longer = await world.serve({ maxRangeDays: 90 });
      expect(await answer(longer, '2026-01-01T00:00:00Z', '2026-04-01T00:00:00Z')).toBe(200);
      expect(await answer(longer, '2026-01-01T00:00:00Z', '2026-04-01T00:00:00.001Z')).toMatchObject({ errorCode: 'maxInterval', message: 'The date range is longer than 90 days. (dateRange)' });
    });

    test.each([['UTC', 200], ['Etc/GMT+5', 200], ['Asia/Calcutta', 200], ['+03:00', 400], ['europe/bucharest', 400], ['GMT+3', 400], ['', 400]])('displayTimezone %j: %i', async (displayTimezone, status) => {
      for (const address of BOTH) {
        const answer = await server.post(address, { ...WEEK, displayTimezone });
        expect([answer.status, status === 200 ? [] : codesOf(answer)]).toEqual([status, status === 200 ? [] : ['invalidTimezone']]);
      }
    });
  });

  describe('cursors', () => {
    const page = { ...WEEK, limit: 2, filters: [{ name: 'journeyId', values: ['J-1', 'J-2', 'J-3', 'J-4'] }] };
    const first = async (address: string, more: object = {}): Promise<string> => (await server.post(address, { ...page, ...more })).body.nextPageCursor;

    test('survive a restart, and a replay into another generation', async () => {
      for (const address of BOTH) {
        const given = await first(address);
        const next = async (from: SearchServer): Promise<unknown[]> => {
          const answer = await from.post(address, { ...page, nextPageCursor: given });
          return [answer.status, idsOf(answer), answer.body.nextPageCursor, answer.body.totalElements];
        };
        expect(await next(server)).toEqual([200, ['J-3', 'J-4'], null, 4]);
        expect(await next(await world.serve())).toEqual([200, ['J-3', 'J-4'], null, 4]);
        await world.replay();
        expect(await next(server)).toEqual([200, ['J-3', 'J-4'], null, 4]);
        expect(await next(await world.serve())).toEqual([200, ['J-3', 'J-4'], null, 4]);
      }
    });

    test('limit, displayTimezone, the order of filters and values, and the spelling of the range may change', async () => {
      for (const address of BOTH) {
        const two = [{ name: 'tenantIds', values: ['tenant-1', 'tenant-2', 'tenant-3'] }, ...page.filters];
        const nextPageCursor = await first(address, { filters: two, limit: 1 });
        const changed = [...two].reverse().map(({ name, values }) => ({ name, values: [...values, values[0]].reverse() }));
        const answer = await server.post(address, { dateRange: { start: '2026-03-01T02:00:00+02:00', end: '2026-03-08T00:00Z' }, displayTimezone: 'Asia/Tokyo', limit: 1000, sortDirection: 'asc', sortField: 'TIME', filters: changed, nextPageCursor });
        expect([answer.status, idsOf(answer), answer.body.totalElements]).toEqual([200, ['J-2', 'J-3'], 3]);
        if (address === JOURNEYS_SEARCH) expect(answer.body.data[0].time).toMatch(/\+09:00$/);
      }
    });

    test('of another endpoint, filter, range or workspace, and changed or forged, are invalidCursor; of another direction cursorAndSortMismatch', async () => {
      for (const [address, other] of [BOTH, [...BOTH].reverse()] as [string, string][]) {
        const nextPageCursor = await first(address);
        const refused = async (more: object, to = address, key?: string): Promise<unknown[]> => {
          const answer = await server.post(to, { ...page, nextPageCursor, ...more }, key);
          return [answer.status, codesOf(answer)];
        };
        expect(await refused({}, other)).toEqual([400, ['invalidCursor']]);
        expect(await refused({ filters: undefined })).toEqual([400, ['invalidCursor']]);
        expect(await refused({ filters: [{ name: 'journeyId', values: ['J-1'] }] })).toEqual([400, ['invalidCursor']]);
        expect(await refused({ dateRange: { ...WEEK.dateRange, end: '2026-03-08T00:00:00.001Z' } })).toEqual([400, ['invalidCursor']]);
        expect(await refused({}, address, 'key of rival')).toEqual([400, ['invalidCursor']]);
        expect(await refused({ sortDirection: 'DESC' })).toEqual([400, ['cursorAndSortMismatch']]);
        const bytes = Buffer.from(nextPageCursor, 'base64url');
        bytes.writeUInt8(bytes.readUInt8(bytes.length - 3) ^ 1, bytes.length - 3);
        for (const forged of [bytes.toString('base64url'), `${nextPageCursor}=`, ` ${nextPageCursor}`, nextPageCursor.slice(1), '', 'null', 'W10']) expect([forged, ...await refused({ nextPageCursor: forged })]).toEqual([forged, 400, ['invalidCursor']]);
        expect(codesOf(await server.post(address, { ...page, nextPageCursor: bytes.toString('base64url'), sortDirection: 'DESC', limit: 0 })).sort()).toEqual(['invalidCursor', 'invalidLimit']);
      }
    });

    test('a cursor is told with everything else that is wrong, as far as the request can be read', async () => {
      for (const [address, other] of [BOTH, [...BOTH].reverse()] as [string, string][]) {
        const nextPageCursor = await first(address);
        const told = async (more: object, to = address): Promise<string[]> => codesOf(await server.post(to, { ...page, nextPageCursor, ...more })).sort();
        expect(await told({ sortDirection: 'DESC', limit: 0, sortField: 'X' })).toEqual(['cursorAndSortMismatch', 'invalidLimit', 'invalidSortField']);
        expect(await told({ limit: 0 }, other)).toEqual(['invalidCursor', 'invalidLimit']);
        expect(await told({ limit: 0, filters: null })).toEqual(['invalidCursor', 'invalidLimit']);
        expect(await told({ displayTimezone: 'Mars/Olympus', dateRange: { ...WEEK.dateRange, start: '2026-03-01T00:00:00.001Z' } })).toEqual(['invalidCursor', 'invalidTimezone']);
        // What it goes by cannot be read, and nothing is said against the rest of it.
        expect(await told({ limit: 0 })).toEqual(['invalidLimit']);
        expect(await told({ sortDirection: 'up' })).toEqual(['invalidSortDirection']);
        expect(await told({ dateRange: {} })).toEqual(['endRangeNotNull', 'startRangeNotNull']);
        expect(await told({ filters: [] })).toEqual(['filtersNotEmpty']);
        expect(await told({ filters: 1, sortDirection: 'DESC' })).toEqual(['cursorAndSortMismatch', 'malformedRequest']);
        expect(await told({ nextPageCursor: 'forged', dateRange: null, sortDirection: 1 })).toEqual(['badRequest', 'dateRangeNotNull', 'invalidCursor']);
      }
    });

    test('the last page has none, also when it is exactly full', async () => {
      for (const address of BOTH) {
        for (const limit of [1, 2, 4]) expect((await server.walk(address, { ...page, limit })).pages).toEqual(Array.from({ length: 4 / limit }, () => limit));
        expect((await server.walk(address, { ...page, limit: 3, sortDirection: 'DESC' })).rows.map(({ journeyId }) => journeyId)).toEqual(['J-4', 'J-3', 'J-2', 'J-1']);
      }
    });
  });

  describe('the published document\'s examples', () => {
    beforeAll(() => { world.settings.set('eight', { pbxNames: ['yourPbxName', 'mainPbx'], tenantIds: ['yourTenantId'] }); });

    test.each(PUBLISHED_REQUESTS)('request %#, to %s, is accepted as it stands', async (address, body) => {
      for (const from of [server, latest]) expect((await from.post(address, body, 'key of eight')).body).toEqual({ data: [], nextPageCursor: null, totalElements: 0 });
    });

    test('what it answers for journeys has our names and types, to the last field', async () => {
      const { rows } = await server.walk(JOURNEYS_SEARCH, WEEK);
      expect(rows.flatMap((row) => differences(PUBLISHED_JOURNEY, row, ''))).toEqual([]);
      // Every field of it was looked at: somewhere we answer with more than null.
      expect(missing(PUBLISHED_JOURNEY, rows, '')).toEqual([]);
    });

    test('what it answers for transitions is what we answer for that call', async () => {
      const [script, transfer] = [at('2025-05-21T12:09:23.312+03:00'), at('2025-05-21T12:10:12.143+03:00')];
      const [, , { agents, previousAgents, previousQueue, externalNumber }] = PUBLISHED_TIMELINE.transitions;
      await world.fold('eight', story(`x:${PUBLISHED_TIMELINE.transitions[0].interactionId}`, [
        [script, { kind: 'started', direction: 'Inbound', medium: 'Phone' }, { kind: 'journey', journeyId: PUBLISHED_TIMELINE.journeyId }, { kind: 'script', scripts: [{ id: 's-1', name: 'Menu' }] }],
        [script + 9.206, { kind: 'waiting', queue: previousQueue }], [script + 20, { kind: 'talking', agents: previousAgents }], [transfer, { kind: 'transferred', to: { agents, externalNumber } }],
      ]));
      const { status, body } = await server.post(...PUBLISHED_REQUESTS[1]!, 'key of eight');
      expect([status, body.nextPageCursor, body.totalElements, body.data.length]).toEqual([200, null, 1, 1]);
      const [{ journeyId, transitions }] = body.data;
      expect(journeyId).toBe(PUBLISHED_TIMELINE.journeyId);
      // The document leaves out what lies between.
      expect(transitions.filter(({ name }: { name: string }) => PUBLISHED_TIMELINE.transitions.some((one) => one.name === name))).toMatchObject(PUBLISHED_TIMELINE.transitions);
      expect(differences(PUBLISHED_TIMELINE, body.data[0], '')).toEqual([]);
    });
  });
});
