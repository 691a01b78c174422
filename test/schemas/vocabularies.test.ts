import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import type { JourneyDocument } from '../../projections/documents.ts';
import { journeys } from '../../projections/journeys.ts';
import { decodeStructured } from '../../schemas/cloudevent.ts';
import { compareFacts } from '../../schemas/facts.ts';
import type { Instant } from '../../schemas/facts.ts';
import type { WorkspaceId } from '../../schemas/identity.ts';
import { workspaceKeys } from '../../schemas/identity.ts';
import type { RecordedCloudEvent } from '../../schemas/recorded.ts';
import { readRecorded, toNewEvent } from '../../schemas/recorded.ts';
import { msOf } from '../../schemas/time.ts';
import { interpret, vocabularies } from '../../schemas/vocabularies/index.ts';
import { PARTS, TYPES } from '../../schemas/vocabularies/throughline.ts';
import { STORY_MARK, exampleDay, expectedJourneys, expectedLines, expectedPersons, instant, storyTables, who } from '../fixtures/example-day.story.ts';
import { MemoryDocuments } from '../support/facts.ts';
import { jsonSchemas, readme, renewed } from './readme.ts';

const KEYS = workspaceKeys('shop' as WorkspaceId, new Uint8Array(32).fill(1));
const RECORDED_AT = '2026-03-03T00:00:00.000000000Z' as Instant;
const CUSTOMER = { identity: '+12025550150', identitytype: 'phone' };
type Data = Readonly<Record<string, unknown>>;

function fixture(name: string): string {
  return readFileSync(new URL(`../fixtures/${name}`, import.meta.url), 'utf8');
}

/** As the door would store it and a projector read it. */
function recorded(line: string): RecordedCloudEvent {
  const decoded = decodeStructured(Buffer.from(line), { maxEventBytes: 1024 * 1024 });
  if (decoded.kind !== 'event') throw new Error(decoded.rejection.reason);
  const identified = KEYS.identify(decoded.event);
  if (identified.kind !== 'identified') throw new Error(identified.rejection.reason);
  const event = toNewEvent(decoded.event, identified, { recordedAt: RECORDED_AT, origin: null });
  return readRecorded({ ...event, stream: identified.stream });
}

function event(type: string, data: unknown, attributes: Data = {}): string {
  return JSON.stringify({ specversion: '1.0', id: 'e-1', source: 'urn:test', type, time: '2026-03-02T09:00:00Z', datacontenttype: 'application/json', ...CUSTOMER, ...attributes, data });
}

const PLACE: ReadonlySet<string> = new Set(['at', 'tie', 'eventId', 'index']);

/** What is said, without the places in the order. */
function said(line: string): unknown[] {
  const { interpreted } = interpret(recorded(line));
  return [...interpreted.customerFacts, ...interpreted.interactionFacts].sort((a, b) => a.index - b.index)
    .map((fact) => Object.fromEntries(Object.entries(fact).filter(([key]) => !PLACE.has(key))));
}

const of = (type: string, data: unknown, attributes: Data = {}): unknown[] => said(event(type, data, attributes));
const ours = (name: string, data: Data): unknown[] => of(`org.throughline.${name}`, data);

describe('throughline', () => {
  const interaction = 'throughline:i-1';
  const dan = { id: 'ag-1', name: 'Dan', type: 'HUMAN' };
  const orders = { id: 'q-1', name: 'Orders' };
  const cases: readonly (readonly [name: string, data: Data, fact: Data])[] = [
    ['interaction.started', { direction: 'Inbound', medium: 'phone', contact: { name: null }, entryPoint: { type: 'user', id: 'u' }, pbx: 'p' },
      { kind: 'started', direction: 'Inbound', medium: 'Phone', contact: { name: null }, entryPoint: { type: 'user', id: 'u' }, pbx: 'p' }],
    ['interaction.script.entered', { scripts: [{ name: 'Welcome' }], schedules: [{ result: 'open' }] },
      { kind: 'script', scripts: [{ id: null, name: 'Welcome' }], schedules: [{ id: null, tag: null, tenantId: null, result: 'open' }] }],
    ['interaction.dialled', { agents: [dan], queue: null }, { kind: 'dialling', agents: [dan], queue: null }],
    ['interaction.waiting', { queue: orders, ringGroup: { id: 'r' }, agents: [] }, { kind: 'waiting', queue: orders, ringGroup: { id: 'r' }, agents: [] }],
    ['interaction.forwarded', { to: { script: { id: 's' }, externalNumber: '1' } }, { kind: 'forwarded', to: { script: { id: 's', name: null }, externalNumber: '1' } }],
    ['interaction.transferred', { to: { agents: [dan] }, from: { queue: orders } }, { kind: 'transferred', to: { agents: [dan] }, from: { queue: orders } }],
    ['interaction.answered', { agents: [dan] }, { kind: 'talking', agents: [dan] }],
    ['interaction.held', { agents: [dan], participantId: 'p-1' }, { kind: 'held', agents: [dan], participantId: 'p-1' }],
    ['interaction.resumed', {}, { kind: 'resumed' }],
    ['interaction.voicemail.left', { queue: orders }, { kind: 'voicemail', queue: orders }],
    ['interaction.followup.pending', { reason: 'callback', queue: { id: 'q-1', name: null } }, { kind: 'followUp', reason: 'callback', queue: { id: 'q-1', name: null } }],
    ['interaction.processing.started', { agents: [dan] }, { kind: 'processing', agents: [dan] }],
    ['interaction.phonecodes.set', { codes: [{ name: 'Spring' }] }, { kind: 'phoneCodes', codes: [{ listName: null, name: 'Spring', shortCode: null }] }],
    ['interaction.aiagent.reported', { creditConsumption: 0.5, tools: [{ name: 't', success: false }] }, { kind: 'aiAgent', creditConsumption: 0.5, tools: [{ name: 't', success: false }] }],
    ['interaction.described', { topics: ['a'], data: { order: '7' }, attributes: ['vip'] }, { kind: 'described', topics: ['a'], data: { order: '7' }, attributes: ['vip'] }],
    ['interaction.wrapup.completed', { wrapUpCodes: ['Done'] }, { kind: 'wrappedUp', wrapUpCodes: ['Done'] }],
    ['interaction.ended', { by: 'customer' }, { kind: 'ended', by: 'customer', final: true }],
    ['interaction.ended', { final: false, outcome: 'callbackExpired' }, { kind: 'ended', outcome: 'callbackExpired', final: false }],
    ['participant.joined', { role: 'supervisor', participantId: 'p-2', agent: dan, name: 'Dan' }, { kind: 'joined', role: 'supervisor', participantId: 'p-2', agent: dan, name: 'Dan' }],
    ['participant.held', { participantId: 'p-2' }, { kind: 'held', participantId: 'p-2' }],
    ['participant.resumed', { participantId: 'p-2' }, { kind: 'resumed', participantId: 'p-2' }],
    ['participant.dropped', { participantId: 'p-2' }, { kind: 'dropped', participantId: 'p-2' }],
  ];
  test.each(cases)('%s becomes its fact, and members that nobody knows are left aside', (name, data, fact) => {
    expect(ours(name, { interactionId: 'i-1', somethingNew: { deep: [1] }, ...data })).toEqual([{ ...fact, interaction }]);
  });

  test('what is said of a customer has no interaction', () => {
    expect(ours('customer.identified', { identifiers: [{ type: 'email', value: 'a@example.com' }] })).toEqual([{ kind: 'identifiers', identifiers: [{ type: 'email', value: 'a@example.com' }] }]);
    expect(ours('customer.named', { firstName: 'Ana', lastName: null })).toEqual([{ kind: 'named', firstName: 'Ana', lastName: null }]);
    expect(ours('customer.web.visited', { name: 'Basket', url: 'https://example.com' })).toEqual([{ kind: 'webActivity', name: 'Basket', url: 'https://example.com' }]);
  });

  test('any event of an interaction may name its journey and the interaction before it', () => {
    expect(ours('interaction.resumed', { interactionId: 'i-1', journeyId: 'order-7', linkedTo: 'i-0' })).toEqual([
      { kind: 'resumed', interaction }, { kind: 'linked', to: 'throughline:i-0', interaction }, { kind: 'journey', journeyId: 'order-7', interaction },
    ]);
    expect(ours('interaction.linked', { interactionId: 'i-1', linkedTo: 't-9', linkedPlatform: 'wxcc' })).toEqual([{ kind: 'linked', to: 'wxcc:t-9', interaction }]);
  });

  test('a null where nothing else may stand is a missing member, a number where a text belongs is its digits', () => {
    expect(ours('interaction.started', { interactionId: 7, medium: null, contact: null, direction: null })).toEqual([{ kind: 'started', interaction: 'throughline:7' }]);
    expect(ours('interaction.answered', { interactionId: 'i-1', agents: [{ id: 12, type: null }] })).toEqual([{ kind: 'talking', agents: [{ id: '12' }], interaction }]);
  });

  test('an id of twenty digits is not rounded', () => {
    const line = event('org.throughline.interaction.resumed', {}).replace('"data":{}', '"data":{"interactionId":12345678901234567891}');
    expect(said(line)).toEqual([{ kind: 'resumed', interaction: 'throughline:12345678901234567891' }]);
  });

  test.each([
    ['interaction.started', { interactionId: 'i-1', direction: 'sideways' }, 'direction: invalid_value'],
    ['interaction.answered', {}, 'interactionId: invalid_type'],
    ['interaction.answered', { interactionId: 'x'.repeat(257) }, 'interactionId: too_big'],
    ['interaction.described', { interactionId: 'i-1', data: { 'ana@example.com': [] } }, 'data: invalid_type'],
    ['participant.joined', { interactionId: 'i-1', participantId: 'p', role: null }, 'role: invalid_value'],
    ['customer.identified', { identifiers: [] }, 'identifiers: too_small'],
    ['customer.identified', { identifiers: Array.from({ length: 101 }, () => ({ type: 'a', value: 'b' })) }, 'identifiers: too_big'],
  ])('%s that lacks what it needs is unreadable, with a reason that quotes nobody', (name, data, reason) => {
    expect(ours(name, data)).toEqual([{ kind: 'unreadable', reason }]);
  });
});

describe('wxcc', () => {
  const interaction = 'wxcc:t-1';
  const call = { taskId: 't-1', origin: CUSTOMER.identity, destination: '+12025550195', direction: 'INBOUND', channelType: 'telephony' };
  const out = { ...call, origin: '+12025550195', destination: CUSTOMER.identity, direction: 'OUTBOUND' };
  const queue = { id: 'q-1', name: 'Service' };
  const inQueue = { queueId: 'q-1', queueName: 'Service' };
  const lia = { agentId: 'a-1', agentName: 'Lia', teamId: 'w-1' };
  const agent = { id: 'a-1', name: 'Lia', type: 'HUMAN', group: { id: 'w-1', name: null } };
  const start = {
    kind: 'started', platform: 'Contact Center', direction: 'Inbound', medium: 'Phone', contact: { phoneNumber: CUSTOMER.identity },
    entryPoint: { type: 'cc-channel', phoneNumber: '+12025550195' }, interaction,
  };
  const matter = (type: string, data: Data): unknown[] => (of(type, data) as { kind: string }[]).filter(({ kind }) => kind !== 'started');
  const here = (...facts: Data[]): unknown[] => facts.map((fact) => ({ ...fact, interaction }));
  const customerIn = { kind: 'joined', role: 'customer', participantId: 'customer' };
  const customerOut = { kind: 'dropped', role: 'customer', participantId: 'customer' };

  test.each<[string, Data, unknown[]]>([
    ['task:new', call, here(customerIn)],
    ['task:new', out, here({ kind: 'dialling' })],
    ['task:new', { ...out, outboundType: 'COURTESY_CALLBACK' }, here({ kind: 'followUp', reason: 'callback' })],
    ['task:parked', { ...call, ...inQueue }, here({ kind: 'waiting', queue, arrival: 'queued' })],
    ['task:parked', { ...out, ...inQueue, outboundType: 'COURTESY_CALLBACK' }, here({ kind: 'followUp', reason: 'callback', queue })],
    ['task:connect', { ...call, ...inQueue }, here({ kind: 'waiting', queue, arrival: 'offered' })],
    ['task:connect', { ...out, outboundType: 'COURTESY_CALLBACK' }, []],
    ['task:connected', { ...call, ...inQueue }, here({ kind: 'talking', queue })],
    ['task:connected', out, here(customerIn, { kind: 'talking' })],
    ['task:on-hold', call, here({ kind: 'held', participantId: 'customer' })],
    ['task:hold-done', { ...call, ...lia }, here({ kind: 'resumed', participantId: 'customer', agents: [agent] })],
    ['task:consulting', { taskId: 't-1', destination: 'Warehouse' }, here({ kind: 'joined', role: 'agent', participantId: 'consulted', name: 'Warehouse' })],
    ['task:consult-done', call, here({ kind: 'dropped', role: 'agent', participantId: 'consulted' })],
    ['task:conferencing', call, here({ kind: 'joined', role: 'agent', participantId: 'consulted', name: '+12025550195' })],
    ['task:conference-done', call, here({ kind: 'dropped', role: 'agent', participantId: 'consulted' })],
    ['task:conference-transferred', { ...call, ...lia }, here({ kind: 'transferred', to: { externalNumber: '+12025550195' }, from: { agents: [agent] } })],
    ['task:ended', { ...call, terminatingParty: 'Customer' }, here(customerOut, { kind: 'ended', by: 'customer', final: true })],
    ['task:ended', { ...call, terminatingParty: 'Agent' }, here(customerOut, { kind: 'ended', by: 'agent', final: true })],
    ['task:ended', { ...call, terminatingParty: 'System', reason: 'RONA Timer Expired' }, here({ kind: 'ended', by: 'system', final: false })],
    ['task:ended', call, here({ kind: 'ended', final: false })],
    ['task:failed', { ...out, outboundType: 'COURTESY_CALLBACK' }, here({ kind: 'dialling' }, { kind: 'ended', by: 'system', final: false })],
    ['task:failed', out, here({ kind: 'ended', by: 'system', final: false })],
    ['task:origin-updated', call, []],
    ['task:wrapup-done', { ...call, wrapUpAuxCodeName: 'Sold' }, here({ kind: 'wrappedUp', wrapUpCodes: ['Sold'] })],
    ['task:closed', call, here({ kind: 'ended', final: true })],
    ['task-message:appended', call, []],
    ['task-message:append-failed', call, []],
    ['capture:available', { taskId: 't-1' }, here({ kind: 'ended', final: true })],
    ['empath:data', { ...call, overallSentiment: 'Negative', aggAgentScore: 6.5, sentiment: [{ utterance: 'no' }] }, here({ kind: 'described', data: { overallSentiment: 'Negative', aggAgentScore: '6.5' } })],
    ['agent:state_change', { taskId: 't-1', ...lia, ...inQueue, currentState: 'ringing' }, here({ kind: 'waiting', queue, agents: [agent], arrival: 'offered' })],
    ['agent:state_change', { taskId: 't-1', ...lia, currentState: 'connected' }, here({ kind: 'joined', role: 'agent', participantId: 'a-1', agent, name: 'Lia' }, { kind: 'talking', agents: [agent], taken: 'ringing' })],
    ['agent:channel_state_change', { taskId: 't-1', agentId: 'a-1', currentState: 'Connected' },
      here({ kind: 'joined', role: 'agent', participantId: 'a-1', agent: { id: 'a-1', type: 'HUMAN' } }, { kind: 'talking', agents: [{ id: 'a-1', type: 'HUMAN' }], taken: 'ringing' })],
    ['agent:state_change', { taskId: 't-1', ...lia, currentState: 'barged-in' }, here({ kind: 'joined', role: 'supervisor', participantId: 'a-1', agent, name: 'Lia' })],
    ['agent:state_change', { taskId: 't-1', ...lia, profileType: 'SUPERVISOR', currentState: 'connected' }, here({ kind: 'joined', role: 'supervisor', participantId: 'a-1', agent, name: 'Lia' })],
    ['agent:state_change', { taskId: 't-1', ...lia, currentState: 'on-hold' }, here({ kind: 'held', participantId: 'customer', agents: [agent] })],
    ['agent:state_change', { taskId: 't-1', ...lia, currentState: 'hold-done' }, here({ kind: 'resumed', participantId: 'customer', agents: [agent] })],
    ['agent:state_change', { taskId: 't-1', ...lia, currentState: 'consulting' }, here({ kind: 'joined', role: 'agent', participantId: 'a-1', agent, name: 'Lia' })],
    ['agent:state_change', { taskId: 't-1', ...lia, currentState: 'conferencing' }, here({ kind: 'joined', role: 'agent', participantId: 'a-1', agent, name: 'Lia' })],
    ['agent:state_change', { taskId: 't-1', ...lia, currentState: 'consult-done' }, []],
    ['agent:state_change', { taskId: 't-1', ...lia, currentState: 'wrapup' }, here({ kind: 'dropped', participantId: 'a-1' })],
    ['agent:state_change', { taskId: 't-1', ...lia, currentState: 'wrapup-done', wrapUpAuxCodeName: 'Sold' },
      here({ kind: 'dropped', participantId: 'a-1' }, { kind: 'wrappedUp', agents: [agent], wrapUpCodes: ['Sold'] })],
    ['agent:state_change', { taskId: 't-1', ...lia, currentState: 'available' }, here({ kind: 'dropped', participantId: 'a-1' })],
    ['agent:state_change', { taskId: 't-1', ...lia, currentState: 'not-responding' }, []],
    ['agent:routed', { taskId: 't-1', ...lia, ...inQueue }, here({ kind: 'waiting', queue, agents: [agent], arrival: 'offered' })],
    ['agent:state_change', { ...lia, currentState: 'idle', taskId: null }, []],
    ['agent:login', lia, []],
    ['agent:logout', lia, []],
    ['agent:channelType_state_change', { ...lia, currentState: 'Available' }, []],
  ])('%s says %j', (type, data, facts) => {
    expect(matter(type, data)).toEqual(facts);
  });

  test('every event of a task tells how it began, since its first may never come', () => {
    for (const type of ['task:new', 'task:connected', 'task:ended']) expect(of(type, call)).toContainEqual(start);
  });

  test('the customer is where an inbound task came from and where an outbound one went, never the other end', () => {
    const identifiers = (data: Data): unknown => of('task:new', data).find((fact) => (fact as { kind: string }).kind === 'identifiers');
    expect(identifiers({ ...call, origin: '+1 (202) 555-0150' })).toBeUndefined();
    expect(identifiers({ ...call, origin: '+12025550151' })).toEqual({ kind: 'identifiers', identifiers: [{ type: 'phone', value: '+12025550151' }] });
    expect(identifiers({ ...out, destination: '+12025550152' })).toEqual({ kind: 'identifiers', identifiers: [{ type: 'phone', value: '+12025550152' }] });
    expect(identifiers({ ...call, channelType: 'email', origin: 'a@example.com', destination: 'shop@example.com' })).toEqual({ kind: 'identifiers', identifiers: [{ type: 'email', value: 'a@example.com' }] });
    expect(identifiers({ ...out, channelType: 'chat', origin: 'a@example.com', destination: 'Chat_EP' })).toBeUndefined();
    expect(identifiers({ ...call, direction: undefined, origin: '+12025550151' })).toBeUndefined();
    expect(identifiers({ ...call, origin: 'sip:desk@example.com' })).toBeUndefined();
    expect(identifiers({ ...call, origin: 'anonymous' })).toBeUndefined();
  });

  test('the newer format, which names the task interactionId, is read too', () => {
    const facts = of('task:ended', {
      interactionId: 't-1', channelType: 'telephony', direction: 'INBOUND', terminationType: 'Customer', customerName: 'Ana', contactReason: 'Repair', csatScore: 5, entrypointName: 'Desk', additionalFields: { epId: 'ep-1' },
    });
    expect(facts).toEqual([
      { kind: 'named', name: 'Ana' },
      { ...start, contact: { name: 'Ana', phoneNumber: CUSTOMER.identity }, entryPoint: { type: 'cc-channel', id: 'ep-1', name: 'Desk' } },
      ...here({ kind: 'described', topics: ['Repair'], data: { csatScore: '5' } }, customerOut, { kind: 'ended', by: 'customer', final: true }),
    ]);
    expect(of('agent:state_change', { interactionId: 't-1', additionalFields: { agentId: 'a-1', queueId: 'q-1' }, currentState: 'ringing' }))
      .toEqual(here({ kind: 'waiting', queue: { id: 'q-1' }, agents: [{ id: 'a-1', type: 'HUMAN' }], arrival: 'offered' }));
  });

  test('without time it occurred when it was made, however that is written', () => {
    const made = Date.parse('2026-03-02T08:59:59.750Z');
    const at = (data: Data, attributes: Data = {}): string => interpret(recorded(event('task:new', { ...call, ...data }, { time: undefined, ...attributes }))).interpreted.at;
    for (const createdTime of [made, String(made), '2026-03-02T08:59:59.750Z']) expect(at({ createdTime })).toBe('2026-03-02T08:59:59.750000000Z');
    expect(at({}, { comciscotimestamp: String(made) })).toBe('2026-03-02T08:59:59.750000000Z');
    for (const createdTime of [0, -1, 1e300, 'soon', null, true, '']) expect(at({ createdTime })).toBe(RECORDED_AT);
  });

  test('of two events stamped alike, the one that was made first comes first', () => {
    const facts = (createdTime: number, id: string) => interpret(recorded(event('task:parked', { ...call, createdTime }, { id }))).interpreted.interactionFacts;
    const [late] = facts(Date.parse('2026-03-02T08:59:59.900Z'), 'a');
    const [early] = facts(Date.parse('2026-03-02T08:59:59.100Z'), 'b');
    expect([late!, early!].sort(compareFacts)).toEqual([early, late]);
    expect(late?.tie).toBe(-100);
  });

  test('data of another shape is unreadable: no id of a task, no id of an agent, no object', () => {
    expect(of('task:new', { title: 'Login' })).toEqual([{ kind: 'unreadable', reason: 'taskId: neither taskId nor interactionId is an id' }]);
    expect(of('task:new', 'text')).toEqual([{ kind: 'unreadable', reason: 'data: no JSON object' }]);
    expect(of('task:new', undefined)).toEqual([{ kind: 'unreadable', reason: 'data: no JSON object' }]);
    expect(of('agent:state_change', { taskId: 't-1', currentState: 'ringing' })).toEqual([{ kind: 'unreadable', reason: 'agentId: no id' }]);
    expect(of('agent:state_change', { taskId: {}, currentState: 'ringing' })).toHaveLength(1);
  });

  test('a numeric task id keeps all its digits', () => {
    const line = event('capture:available', {}).replace('"data":{}', '"data":{"taskId":98765432109876543210}');
    expect(said(line)).toEqual([{ kind: 'ended', final: true, interaction: 'wxcc:98765432109876543210' }]);
    expect(of('capture:available', { taskId: 12 })).toEqual([{ kind: 'ended', final: true, interaction: 'wxcc:12' }]);
  });
});

describe('interpret', () => {
  test('what no vocabulary knows gives no facts, and is still its customer\'s', () => {
    const { vocabulary, interpreted } = interpret(recorded(event('com.example.paid', { taskId: 't' })));
    expect(vocabulary).toBeNull();
    expect(interpreted).toMatchObject({ interactionFacts: [], customerFacts: [], type: 'com.example.paid', source: 'urn:test', identity: { type: 'phone', value: CUSTOMER.identity, evidence: true } });
    for (const type of ['constructor', '__proto__', 'toString']) expect(interpret(recorded(event(type, {}))).vocabulary).toBeNull();
  });

  test('previousidentity is evidence in any event, whatever its type', () => {
    const identifiers = { kind: 'identifiers', previous: true };
    expect(of('com.example.paid', {}, { previousidentity: 'a@example.com' })).toEqual([{ ...identifiers, identifiers: [{ type: 'email', value: 'a@example.com' }] }]);
    expect(of('task:new', {}, { previousidentity: 'x-1', previousidentitytype: 'cookie' })[0]).toEqual({ ...identifiers, identifiers: [{ type: 'cookie', value: 'x-1' }] });
  });

  test.each(['', ' ', '0', '000', 'unknown', 'Anonymous', 'null'])('an interaction called "%s" is none: nothing is said of it', (id) => {
    expect(ours('interaction.answered', { interactionId: id })).toEqual([]);
    expect(ours('interaction.resumed', { interactionId: 'i-1', linkedTo: id, journeyId: id })).toEqual([{ kind: 'resumed', interaction: 'throughline:i-1' }]);
    expect(of('capture:available', { taskId: id })).toEqual([]);
  });

  test('a link to itself says nothing', () => {
    expect(ours('interaction.linked', { interactionId: 'i-1', linkedTo: 'i-1' })).toEqual([]);
  });

  test('no two vocabularies know one type', () => {
    const lines = [...Object.keys(TYPES), 'task:new', 'agent:login', 'capture:available'].map((type) => recorded(event(type, {})));
    for (const line of lines) expect(vocabularies.filter((one) => one.knows(line))).toHaveLength(1);
  });
});

describe('totality', () => {
  const WXCC = ['new', 'connect', 'connected', 'parked', 'on-hold', 'hold-done', 'consulting', 'consult-done', 'conferencing', 'conference-done', 'conference-transferred', 'ended', 'failed', 'origin-updated', 'wrapup-done', 'closed'].map((name) => `task:${name}`);
  const known = [...Object.keys(TYPES), ...WXCC, 'task-message:appended', 'task-message:append-failed', 'agent:state_change', 'agent:channel_state_change', 'agent:channelType_state_change', 'agent:routed', 'agent:login', 'agent:logout', 'capture:available', 'empath:data'];
  const examples = [...exampleDay(), ...fixture('wxcc-captured.ndjson').trim().split('\n')].map((line) => JSON.parse(line) as { type: string; data: Data });
  const REASON = /^[A-Za-z]+: [A-Za-z_ ]+$/;

  /** Never throws, says JSON and nothing else, and takes its places in order. */
  function holds(line: string): void {
    const { vocabulary, interpreted } = interpret(recorded(line));
    const facts = [...interpreted.customerFacts, ...interpreted.interactionFacts];
    expect(JSON.parse(JSON.stringify(facts))).toStrictEqual(facts);
    expect(facts.map(({ index }) => index).sort((a, b) => a - b)).toEqual(facts.map((_, index) => index));
    for (const fact of facts) {
      expect(Number.isFinite(fact.tie)).toBe(true);
      if (fact.kind === 'unreadable') expect(fact.reason).toMatch(REASON);
      if ('interaction' in fact) expect(fact.interaction.startsWith(`${vocabulary ?? ''}:`)).toBe(true);
    }
  }

  test('any JSON in any known type gives facts or one unreadable, and never a throw', () => {
    fc.assert(fc.property(fc.constantFrom(...known), fc.jsonValue(), (type, data) => holds(event(type, data))), { numRuns: 600 });
  });

  test('so does real data with any of its members gone or replaced', () => {
    const member = fc.oneof(fc.constant(undefined), fc.jsonValue(), fc.double(), fc.constantFrom(null, 0, '0', '', [], {}, 1e21, -1, 'x'.repeat(300), [null], [{ id: null }], [{ id: 5 }], { id: 7, name: null }));
    fc.assert(fc.property(fc.constantFrom(...examples), fc.nat(), member, fc.constantFrom(...known), fc.boolean(), ({ type, data }, nth, value, other, same) => {
      const keys = Object.keys(data);
      holds(event(same ? type : other, { ...data, [keys[nth % keys.length] ?? 'taskId']: value }));
    }), { numRuns: 1500 });
  });
});

describe('whole tasks', () => {
  const START_MS = Date.parse('2026-03-02T09:00:00Z');
  const task = (direction: string, more: Data = {}): Data => ({ taskId: 't-1', direction, channelType: 'telephony', origin: '+12025550150', destination: '+12025550195', ...more });
  /** An agent's event says neither direction nor callback (webex-cjds-facts.md 2.3). */
  const agentIs = (currentState: string): Data => ({ taskId: 't-1', agentId: 'a-1', queueId: 'q-1', channelType: 'telephony', currentState });
  const STATE = 'agent:channel_state_change';
  type Said = readonly [second: number, type: string, data: Data];
  const OUT = task('OUTBOUND');
  const BACK = task('OUTBOUND', { outboundType: 'COURTESY_CALLBACK' });
  const IN = task('INBOUND', { queueId: 'q-1' });
  const agentTakes: readonly Said[] = [[1, 'task:connect', OUT], [1, STATE, agentIs('ringing')], [3, STATE, agentIs('connected')]];

  test.each<[string, readonly Said[], readonly (readonly [number, string, number | null])[], object]>([
    ['a call out is dialled until the customer is there, whatever its agent\'s leg does', [[0, 'task:new', OUT], ...agentTakes, [15, 'task:connected', OUT], [40, 'task:ended', { ...OUT, terminatingParty: 'Customer' }]],
      [[0, 'OUTBOUND_STARTED', 15], [15, 'TALKING', 25], [40, 'FINISHED', 0]], { outcome: 'Handled', waitingDuration: 0 }],
    ['one that nobody answers was not handled', [[0, 'task:new', OUT], ...agentTakes, [30, 'task:ended', { ...OUT, terminatingParty: 'Agent' }]],
      [[0, 'OUTBOUND_STARTED', 30], [30, 'FINISHED', 0]], { outcome: 'Other', agents: [] }],
    ['a courtesy callback waits once, and is dialled once an agent has taken it', [[0, 'task:new', BACK], [1, 'task:parked', { ...BACK, queueId: 'q-1' }], [20, 'task:connect', BACK], [20, STATE, agentIs('ringing')], [22, STATE, agentIs('connected')], [50, 'task:failed', BACK]],
      [[0, 'FOLLOWUP_PENDING', 22], [22, 'OUTBOUND_STARTED', 28], [50, 'FINISHED', 0]], { outcome: 'CallbackNoAnswer', agents: [] }],
    ['what an agent parks in another queue was transferred', [[0, 'task:new', IN], [5, 'task:parked', IN], [8, STATE, agentIs('ringing')], [10, STATE, agentIs('connected')], [40, 'task:parked', task('INBOUND', { queueId: 'q-2' })]],
      [[0, 'STARTED', 0], [5, 'WAITING', 5], [10, 'TALKING', 30], [40, 'TRANSFER', 0], [40, 'WAITING', null]], { transfersCompleted: 1 }],
  ])('%s', (_, told, transitions, row) => {
    const view = new MemoryDocuments(journeys);
    view.fold(told.map(([second, type, data], i) => interpret(recorded(event(type, data, { id: `e-${String(i)}`, time: new Date(START_MS + second * 1000).toISOString() }))).interpreted));
    const [key] = view.keys('j');
    const document = view.read(key ?? '') as JourneyDocument;
    expect(document.transitions.map(({ at, name, duration }) => [(msOf(at) - START_MS) / 1000, name, duration === null ? null : duration / 1000])).toEqual(transitions);
    expect(document.row).toMatchObject(row);
  });
});

describe('the captured events', () => {
  const facts = fixture('wxcc-captured.ndjson').trim().split('\n').map((line) => interpret(recorded(line)).interpreted);
  const tasks = new Map<string, Set<string>>();
  for (const { interactionFacts } of facts) for (const fact of interactionFacts) (tasks.get(fact.interaction) ?? tasks.set(fact.interaction, new Set()).get(fact.interaction)!).add(fact.kind);

  test('twelve events speak of eight tasks, and one has data of another shape', () => {
    expect(facts).toHaveLength(12);
    expect(new Set(facts.map(({ eventId }) => eventId)).size).toBe(11);
    expect(tasks.size).toBe(8);
    expect(facts.flatMap(({ customerFacts }) => customerFacts)).toMatchObject([{ kind: 'unreadable' }]);
  });

  test('five tasks began, two ended by the agent, and one call was analysed', () => {
    const kinds = (wanted: string): number => [...tasks.values()].filter((kindsOf) => kindsOf.has(wanted)).length;
    expect({ joined: kinds('joined'), ended: kinds('ended'), described: kinds('described'), started: kinds('started') }).toEqual({ joined: 5, ended: 2, described: 3, started: 8 });
    const ends = facts.flatMap(({ interactionFacts }) => interactionFacts).filter((fact) => fact.kind === 'ended');
    expect(ends).toHaveLength(5);
    expect(ends.every((end) => end.by === 'agent' && end.final)).toBe(true);
  });

  test('an outbound chat whose destination is an entry point gives the customer by identity alone', () => {
    const chat = facts.flatMap(({ interactionFacts }) => interactionFacts).find((fact) => fact.kind === 'started' && fact.direction === 'Outbound');
    expect(chat).toMatchObject({ medium: 'Chat', contact: { email: 'ana@example.com' } });
    expect(chat).not.toHaveProperty('entryPoint');
  });

  test('createdTime is a little before time, in every one that has it', () => {
    const ties = facts.flatMap(({ interactionFacts }) => interactionFacts.map(({ tie }) => tie)).filter((tie) => tie !== 0);
    expect(ties.length).toBeGreaterThan(10);
    expect(ties.every((tie) => tie < 0 && tie > -1000)).toBe(true);
  });
});

describe('the example day', () => {
  const lines = fixture('example-day.ndjson').trimEnd().split('\n');
  const events = lines.map(recorded);

  test('stands in its files as the story tells it', () => {
    expect(lines).toEqual(exampleDay());
    expect(fixture('STORY.md').endsWith(`\n${storyTables()}`)).toBe(true);
    expect(fixture('STORY.md').split(STORY_MARK)).toHaveLength(2);
  });

  test('is read whole, every type of ours is in it, and one line comes twice', () => {
    expect({ lines: lines.length, recorded: new Set(events.map(({ eventId }) => eventId)).size, duplicates: lines.length - new Set(lines).size }).toEqual(expectedLines);
    expect(events.every((one) => interpret(one).vocabulary !== null)).toBe(true);
    expect(events.flatMap((one) => interpret(one).interpreted.customerFacts).filter(({ kind }) => kind === 'unreadable')).toEqual([]);
    expect(Object.keys(TYPES).filter((type) => !events.some((one) => one.event.type === type))).toEqual([]);
    expect(new Set(events.map((one) => interpret(one).vocabulary))).toEqual(new Set(['throughline', 'wxcc']));
  });

  test('comes in the order of time, but for one line', () => {
    const times = events.map(({ at }) => at);
    expect(times.filter((at, index) => index > 0 && at < times[index - 1]!)).toHaveLength(2);
    expect(times.filter((at, index) => times.slice(0, index).some((before) => before > at)).length).toBeLessThanOrEqual(2);
  });

  test('has twenty-two journeys, whose interactions are all expected once', () => {
    const interactions = new Set(events.flatMap((one) => interpret(one).interpreted.interactionFacts.map(({ interaction }) => interaction.slice(interaction.indexOf(':') + 1))));
    const expected = expectedJourneys.flatMap((journey) => journey.interactions);
    expect([...interactions].sort()).toEqual([...expected].sort());
    expect(new Set(expected).size).toBe(expected.length);
    expect(expectedJourneys).toHaveLength(22);
    const outcomes = new Set(expectedJourneys.map(({ outcome }) => outcome));
    expect(outcomes).toEqual(new Set(['Handled', 'Abandoned', 'EndedInScript', 'ForwardedToExternalNumber', 'Voicemail', 'CallbackRequested', 'CallbackNoAnswer', 'CallbackExpired']));
  });

  test('expects durations that add up to the times it names', () => {
    for (const { transitions, holdDuration, transfersCompleted, forwardedToQueue, forwardedToRingGroup, forwardedToScript } of expectedJourneys) {
      const named = (name: string): number => transitions.filter((transition) => transition[1] === name).length;
      expect(transitions.reduce((sum, [, name, ms]) => sum + (name === 'HOLD' ? (ms ?? 0) : 0), 0)).toBe(holdDuration ?? 0);
      expect(named('TRANSFER')).toBe(transfersCompleted ?? 0);
      expect(named('FORWARD')).toBeGreaterThanOrEqual((forwardedToQueue ?? 0) + (forwardedToRingGroup ?? 0) + (forwardedToScript ?? 0));
      transitions.forEach(([at, name, ms], index) => {
        const next = transitions[index + 1];
        if (ms === null) expect(next).toBeUndefined();
        else if (next !== undefined && ms > 0) {
          const pause = Date.parse(instant(next[0])) - Date.parse(instant(at)) - ms;
          // Mihai's order rests from the morning to the afternoon.
          if (pause !== 0) expect({ name, next: next[1], hours: Math.floor(pause / 3_600_000) }).toEqual({ name: 'TALKING', next: 'STARTED', hours: 6 });
        }
      });
    }
  });

  test('joins three customers by evidence and nobody else', () => {
    const evidence = events.flatMap((one) => interpret(one).interpreted.customerFacts.flatMap((fact) => (fact.kind === 'identifiers' ? fact.identifiers.map(({ value }) => [one.identity.value, value].sort()) : [])));
    expect(evidence.sort()).toEqual(expectedPersons.map((person) => person.map(({ identity }) => identity).sort()).sort());
    expect(events.filter(({ identity }) => identity.anonymous).every(({ identity }) => identity.value === who.withheld.identity)).toBe(true);
  });

  test('gives every field that an 8x8 answer can show a value', () => {
    const seen = new Set<string>();
    const walk = (value: unknown, path: string): void => {
      if (value === null || value === undefined || value === '') return;
      if (typeof value !== 'object') { seen.add(path); return; }
      if (Array.isArray(value)) { value.forEach((item) => walk(item, path)); return; }
      for (const [key, member] of Object.entries(value)) walk(member, `${path}.${key}`);
    };
    for (const one of events) for (const fact of interpret(one).interpreted.interactionFacts) walk(fact, fact.kind);
    const place = (path: string, extension = true): string[] => ['id', 'name', ...(extension ? ['extension', 'site.id', 'site.name'] : [])].map((key) => `${path}.${key}`);
    const person = (path: string): string[] => ['id', 'name', 'email', 'loginId', 'department', 'subscriptionId', 'group.id', 'group.name', 'site.id', 'site.name', 'type'].map((key) => `${path}.${key}`);
    const wanted = [
      ...['direction', 'medium', 'platform', 'pbx', 'tenant', 'contact.name', 'contact.phoneNumber', 'contact.email'].map((key) => `started.${key}`),
      ...['type', 'id', 'name', 'phoneNumber', 'extension', 'email', 'loginId', 'department', 'pbx', 'tenantId', 'site.id', 'site.name'].map((key) => `started.entryPoint.${key}`),
      ...['type', 'id', 'name', 'phoneNumber', 'extension', 'email', 'loginId', 'department', 'pbx', 'site.id', 'site.name'].map((key) => `started.origin.${key}`),
      ...place('waiting.queue'), ...place('waiting.ringGroup'), ...place('script.autoAttendant'), ...place('script.scripts', false), ...place('forwarded.to.queue', false), ...place('forwarded.to.ringGroup'),
      ...place('forwarded.to.autoAttendant'), ...place('forwarded.to.script', false), 'forwarded.to.externalNumber', 'forwarded.to.agents.name', ...place('forwarded.from.queue'),
      ...place('transferred.to.channel', false), ...place('transferred.to.queue'), 'transferred.to.externalNumber', ...person('transferred.to.agents'), ...person('transferred.from.agents'), ...place('transferred.from.ringGroup'),
      ...person('talking.agents'), ...person('held.agents'), ...person('dialling.agents'), ...person('processing.agents'), 'followUp.queue.id', 'script.scheduleHours',
      ...['id', 'tag', 'tenantId', 'result'].map((key) => `script.schedules.${key}`), ...['listName', 'name', 'shortCode'].map((key) => `phoneCodes.codes.${key}`),
      'wrappedUp.wrapUpCodes', 'aiAgent.creditConsumption', 'aiAgent.tools.name', 'aiAgent.tools.success', 'described.topics', 'described.data.order', 'described.attributes',
    ];
    expect(wanted.filter((path) => !seen.has(path))).toEqual([]);
    expect(new Set(events.flatMap((one) => interpret(one).interpreted.interactionFacts.flatMap((fact) => (fact.kind === 'started' && fact.entryPoint !== undefined ? [fact.entryPoint.type] : []))))).toEqual(
      new Set(['cc-channel', 'call-queue', 'ring-group', 'auto-attendant', 'user', 'ai-studio']));
  });
});

describe('schemas/README.md', () => {
  test('shows the schemas as they are (node test/schemas/readme.ts writes it)', () => {
    expect(readme()).toBe(renewed());
  });

  test('has a JSON Schema for each type and each shared part', () => {
    const schemas = jsonSchemas();
    for (const name of [...Object.keys(TYPES), ...Object.keys(PARTS)]) expect(schemas).toHaveProperty([name]);
    const references = JSON.stringify(schemas).matchAll(/"#\/\$defs\/([A-Za-z]+)"/g);
    for (const [, name] of references) expect(Object.keys(PARTS)).toContain(name);
  });
});
