import { spawn } from 'node:child_process';
import { hash } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import fc from 'fast-check';
import type { JourneyDocument, Transition } from '../../projections/documents.ts';
import { journeys, journeysWithin, LIMITS } from '../../projections/journeys.ts';
import { persons } from '../../projections/persons.ts';
import { decodeMessage, decodeStructured } from '../../schemas/cloudevent.ts';
import type { Decoded } from '../../schemas/cloudevent.ts';
import type { Instant, Interpreted } from '../../schemas/facts.ts';
import { isWorkspaceId, workspaceKeys } from '../../schemas/identity.ts';
import type { RecordedCloudEvent } from '../../schemas/recorded.ts';
import { readRecorded, toNewEvent } from '../../schemas/recorded.ts';
import { msOf } from '../../schemas/time.ts';
import { interpret, vocabularies } from '../../schemas/vocabularies/index.ts';
import { MemoryViewStore } from '../../services/adapters/memory-views.ts';
import { CALLS, type Data, guid, type Line, payload, START_S, stream, TENANT, wrapped } from '../fixtures/8x8-stream.story.ts';
import { MemoryDocuments } from '../support/facts.ts';
import { JOURNEYS_SEARCH, SearchWorld, TRANSITIONS_SEARCH } from '../support/searches.ts';
import { readme } from './readme.ts';

const WORKSPACE = 'acme';
if (!isWorkspaceId(WORKSPACE)) throw new Error('not a workspace');
const KEYS = workspaceKeys(WORKSPACE, new Uint8Array(32).fill(3));
const RECORDED_AT = '2026-03-03T00:00:00.000000000Z' as Instant;

// ---- reading and folding --------------------------------------------------------------------------------------------------

/** As the door would store it and a projector read it. */
function recorded(line: string): RecordedCloudEvent {
  return stored(decodeStructured(Buffer.from(line), { maxEventBytes: 1024 * 1024 }));
}

function stored(decoded: Decoded): RecordedCloudEvent {
  if (decoded.kind !== 'event') throw new Error(decoded.rejection.reason);
  const identified = KEYS.identify(decoded.event);
  if (identified.kind !== 'identified') throw new Error(identified.rejection.reason);
  return readRecorded({ ...toNewEvent(decoded.event, identified, { recordedAt: RECORDED_AT, origin: null }), stream: identified.stream });
}

const interpreted = (line: string): Interpreted => interpret(recorded(line)).interpreted;

const CALL = guid('one');
const HERE = { interaction: `8x8:${CALL}` };
const CUSTOMER = '+12025550150';

function envelope(data: unknown, attributes: Data = {}): string {
  return JSON.stringify({ specversion: '1.0', id: 'e-1', source: 'urn:test', type: '8x8.Interaction', time: '2026-03-02T09:00:00Z', identity: CUSTOMER, identitytype: 'phone', datacontenttype: 'application/json', ...attributes, data });
}

const PLACE: ReadonlySet<string> = new Set(['at', 'tie', 'eventId', 'index']);

function said(line: string): Data[] {
  const { customerFacts, interactionFacts } = interpreted(line);
  return [...customerFacts, ...interactionFacts].sort((a, b) => a.index - b.index).map((fact) => Object.fromEntries(Object.entries(fact).filter(([key]) => !PLACE.has(key))));
}

const of = (event: string, fields: Data = {}, attached: Data = {}, id = CALL): Data[] => said(envelope(payload(id, [0, event, fields, attached], 1)));
/** Without what every event repeats of how it all began. */
const matter = (...all: Parameters<typeof of>): Data[] => of(...all).filter(({ kind }) => kind !== 'started');
const begun = (...all: Parameters<typeof of>): Data => of(...all).find(({ kind }) => kind === 'started') ?? {};

type Told = readonly (readonly [guid: string, line: Line])[];
const asEvents = (told: Told): Interpreted[] => told.map(([id, one], i) => interpreted(wrapped(id, one, i + 1)));

interface Folded { readonly document: JourneyDocument; readonly transitions: readonly Transition[] }

function folded(events: readonly Interpreted[], limits = LIMITS): Folded {
  const view = new MemoryDocuments(journeysWithin(limits));
  view.fold(events);
  const [key, ...others] = view.keys('j');
  if (key === undefined || others.length > 0) throw new Error(`${String(others.length + (key === undefined ? 0 : 1))} journeys`);
  const document = view.read(key) as JourneyDocument;
  const chunks = Array.from({ length: document.chunks }, (_, chunk) => view.read(`t/${key.slice(2)}/${String(chunk)}`) as Transition[]);
  return { document, transitions: [...chunks.flat(), ...document.transitions] };
}

/** Second, name and seconds of each. */
function lines(transitions: readonly Transition[]): (readonly [number, string, number | null])[] {
  return transitions.map(({ at, name, duration }) => [msOf(at) / 1000 - START_S, name, duration === null ? null : duration / 1000]);
}

const one = (...told: readonly Line[]): Told => told.map((line) => [CALL, line]);
const journeyOf = (...told: readonly Line[]): Folded => folded(asEvents(one(...told)));
const named = ({ transitions }: Folded, name: string): Transition => {
  const found = transitions.filter((transition) => transition.name === name);
  if (found.length !== 1 || found[0] === undefined) throw new Error(`${String(found.length)} × ${name}`);
  return found[0];
};
const ids = (agents: readonly { readonly id: string }[]): string[] => agents.map(({ id }) => id);

// ---- one event at a time ---------------------------------------------------------------------------------------------------

const IN = { direction: 'in', mediaType: 'phone' };
const OUT = { direction: 'out', isOutboundCall: true, inboundChannelid: 'N/A', mediaType: 'phone' };
const CONNECTED = { callState: 'CS_CONNECTED' };
const IN_PROGRESS = { callState: 'CS_INPROGRESS' };
const mara = { agentId: 'agMara' };
const agent = { id: 'agMara' };
const asAgent = { kind: 'joined', role: 'agent', participantId: 'agMara', agent };
const asCustomer = { kind: 'joined', role: 'customer', participantId: 'customer' };
const dropped = { kind: 'dropped', role: 'agent', participantId: 'agMara', last: true };
const SUPPORT = { id: '101', name: 'Support' };
const inSupport = { tenantSkillName: 'Support' };
const VMAIL = guid('one', 'vmail');
const CALLBACK = guid('one', 'callback');
const link = { originalInteractionGuid: guid('zero') };
const linked = { kind: 'linked', to: `8x8:${guid('zero')}` };

describe('what each event of the stream says (8x8-event-stream-facts.md 2 and 5)', () => {
  test.each<[string, Data, Data, Data[], string?]>([
    ['InteractionCreated', IN, {}, [asCustomer]],
    ['InteractionCreated', OUT, {}, []],
    ['InteractionCreated', IN, link, [linked, asCustomer]],
    ['InteractionCreated', IN, {}, [{ kind: 'voicemail' }], VMAIL],
    ['InteractionCreated', {}, {}, [], CALLBACK],
    ['InteractionQueued', { ...IN, queueId: 101 }, inSupport, [{ kind: 'waiting', queue: SUPPORT, arrival: 'queued' }]],
    ['InteractionQueued', { ...IN, queueId: 101 }, inSupport, [{ kind: 'followUp', reason: 'voicemail', queue: SUPPORT }], VMAIL],
    ['InteractionQueued', { mediaType: 'Callback', queueId: 101 }, link, [linked, { kind: 'followUp', reason: 'callback', queue: { id: '101' } }]],
    ['InteractionAssigned', { ...IN, ...mara, queueId: 101 }, inSupport, [{ kind: 'waiting', queue: SUPPORT, agents: [agent], arrival: 'offered' }]],
    ['InteractionAssigned', IN, {}, []],
    ['InteractionAssigned', mara, {}, [], VMAIL],
    ['InteractionRejected', { ...mara, queueList: 101, rejectReason: 2 }, {}, []],
    ['InteractionAccepted', { ...IN, ...mara, ...CONNECTED }, {}, [asAgent, { kind: 'talking', agents: [agent], taken: 'connected' }]],
    ['InteractionAccepted', { ...OUT, ...mara, ...IN_PROGRESS, queueId: '101' }, inSupport, [asAgent, { kind: 'talking', agents: [agent], queue: SUPPORT, taken: 'ringing' }]],
    ['InteractionAccepted', { ...mara, queueId: 101 }, {}, [asAgent, { kind: 'processing', agents: [agent], queue: { id: '101' } }], VMAIL],
    ['InteractionAccepted', { ...mara, ...IN_PROGRESS }, {}, [asAgent, { kind: 'dialling', agents: [agent] }], CALLBACK],
    ['InteractionCustomerAccepted', CONNECTED, {}, [asCustomer, { kind: 'talking', taken: 'connected' }]],
    ['LineHoldStatus', { ...mara, status: true }, {}, [{ kind: 'held', agents: [agent] }]],
    ['LineHoldStatus', { ...mara, status: 'false' }, {}, [{ kind: 'resumed', agents: [agent] }]],
    ['LineHoldStatus', { ...mara, callState: 'CS_HOLD' }, {}, []],
    ['Interaction Hold', mara, {}, [{ kind: 'held', agents: [agent] }]],
    ['Interaction Unhold', {}, {}, [{ kind: 'resumed' }]],
    ['InteractionTransferRequest', mara, {}, [{ kind: 'transferred', to: {}, open: true, from: { agents: [agent] } }]],
    ['InteractionTransferRequest', {}, {}, [{ kind: 'transferred', to: {}, open: true }]],
    ['InteractionParticipantChange', { ...CONNECTED, participatingAgents: 'agMara;agDan,agMara' }, {}, [{ kind: 'present', agents: [agent, { id: 'agDan' }], talking: true }]],
    ['InteractionParticipantChange', { callState: 'CS_DISCONNECTED', participatingAgents: 'agMara' }, {}, [{ kind: 'present', agents: [agent] }]],
    ['InteractionParticipantChange', { ...CONNECTED, ...mara }, {}, [asAgent, { kind: 'talking', agents: [agent] }]],
    ['InteractionParticipantChange', { ...mara, callState: 'CS_DISCONNECTED' }, {}, []],
    ['InteractionParticipantRemovedByHost', mara, {}, [{ kind: 'dropped', role: 'agent', participantId: 'agMara' }]],
    ['InteractionParticipantRemovedByHost', { participatingAgents: 'agMara' }, {}, [{ kind: 'present', agents: [agent] }]],
    ['InteractionJoined', mara, link, [linked]],
    ['InteractionUnqueued', {}, {}, [{ kind: 'unqueued' }]],
    ['InteractionQueueTimeout', {}, {}, [{ kind: 'unqueued', timeout: true }]],
    ['InteractionPostProcess', mara, {}, [{ ...dropped, had: true }]],
    ['InteractionPostProcess', {}, {}, [{ kind: 'dropped', role: 'agent', participantId: '', last: true, had: true }]],
    ['InteractionEndPostProcess', { ...mara, dispositionCode: 12 }, { tclSelectedItems: '5|12,6|45' }, [dropped, { kind: 'described', data: { tclSelectedItems: '5|12,6|45' } }, { kind: 'wrappedUp', agents: [agent], wrapUpCodes: ['12'] }]],
    ['InteractionDeassigned', mara, {}, [dropped]],
    ['InteractionDeAssigned', mara, {}, [dropped]],
    ['InteractionDeleted', { hangupInitiator: 'SYSTEM' }, {}, [{ kind: 'ended', by: 'system', final: false, leg: true }]],
    ['InteractionDeleted', { hangupInitiator: 'nobody', dispositionCode: 'SALE' }, {}, [{ kind: 'wrappedUp', wrapUpCodes: ['SALE'] }, { kind: 'ended', final: false, leg: true }]],
    ['GuestChatEnd', {}, {}, [{ kind: 'dropped', role: 'customer', participantId: 'customer' }]],
  ])('%s of %j with %j says %j', (event, fields, attached, facts, id = CALL) => {
    expect(matter(event, fields, attached, id)).toEqual(facts.map((fact) => ({ ...fact, interaction: `8x8:${id}` })));
  });

  test.each([
    'LineMuteStatus', 'RecordingStarted', 'RecordingStatus', 'InteractionRecordingReady', 'InteractionChanged', 'MediaProxyAdded', 'MediaProxyRemoved', 'InteractionReconnect', 'InteractionJoinLinesRequest',
    'AgentStatusChange', 'AgentSkillChanged', 'ClientCheck', 'InteractionInventedLater', 'constructor', '__proto__', '',
  ])('%s says nothing, and is no fault', (event) => {
    expect(of(event, { ...mara, status: 'resume' })).toEqual([]);
    expect(said(envelope({ AgentStatusChange: { newState: 5 } }, { type: `8x8.${event}` }))).toEqual([]);
    expect(said(envelope('text', { type: `8x8.${event}` }))).toEqual([]);
  });

  test('the three examples of the facts become what they say, as they are', () => {
    const facts = readFileSync(new URL('./8x8-examples.ndjson', FIXTURES), 'utf8').trim().split('\n').map((line) => JSON.parse(line) as unknown);
    const demo = '8x8:int-19a278ad4d2-Zq-phone-02-demo1';
    const all = facts.map((data) => said(envelope(data)));
    expect(all[0]).toEqual([
      { kind: 'identifiers', identifiers: [{ type: 'phone', value: '+15550100123' }] },
      { kind: 'started', platform: 'Contact Center', contact: { phoneNumber: '+15550100123' }, direction: 'Inbound', medium: 'Phone', tenant: 'demo1', interaction: demo },
      { kind: 'waiting', queue: { id: '77', name: 'Billing' }, arrival: 'queued', interaction: demo },
    ]);
    expect(all[1]?.slice(1)).toEqual([{ kind: 'held', agents: [{ id: 'agDemo1' }], interaction: demo }]);
    expect(all[2]?.slice(1)).toEqual([{ kind: 'wrappedUp', wrapUpCodes: ['RESOLVED'], interaction: demo }, { kind: 'ended', by: 'agent', final: false, leg: true, interaction: demo }]);
  });
});

const FIXTURES = new URL('../fixtures/', import.meta.url);

describe('how it began', () => {
  test('every event says what it knows of direction, medium, customer, channel and tenant, since no one of them holds it all', () => {
    expect(begun('InteractionAssigned', { ...IN, resourceType: 0, inboundChannelid: 12025550190 }, { channelName: 'Support line', callingName: 'Ana Pop', remotePhoneNum: CUSTOMER, tenantName: 'ignored' })).toEqual({
      kind: 'started', platform: 'Contact Center', direction: 'Inbound', medium: 'Phone', tenant: TENANT, contact: { name: 'Ana Pop', phoneNumber: CUSTOMER },
      entryPoint: { type: 'cc-channel', id: '12025550190', name: 'Support line', phoneNumber: '12025550190', tenantId: TENANT }, ...HERE,
    });
  });

  test.each<[Data, string | undefined]>([
    [{ direction: 'in', isOutboundCall: true }, 'Inbound'], [{ direction: 'OUT' }, 'Outbound'], [{ isOutboundCall: 'true' }, 'Outbound'], [{ inboundChannelid: 'N/A' }, 'Outbound'], [{ outboundCampaignid: 4926 }, 'Outbound'],
    [{ outboundCampaignid: 0, inboundChannelid: 7 }, 'Inbound'], [{ isOutboundCall: 'false' }, 'Inbound'], [{ outboundCampaignid: '0' }, undefined], [{}, undefined], [{ direction: null, callState: 'CS_QUEUED' }, undefined],
  ])('%j has the direction %s', (fields, direction) => {
    expect(begun('InteractionCreated', fields)['direction']).toBe(direction);
  });

  test.each<[Data, string, string | undefined]>([
    [{ resourceType: 3, mediaType: 'chat' }, 'chat', 'Sms'], [{ resourceType: '4', mediaType: 'phone' }, 'phone', 'Video'], [{ mediaType: 'chat' }, 'chat', 'Chat'], [{ resourceType: 1 }, 'email', 'Email'],
    [{}, 'phone', 'Phone'], [{}, 'vmail', 'Phone'], [{}, 'email', 'Email'], [{}, 'chat', undefined], [{ mediaType: 'callback' }, 'phone', 'Phone'], [{ mediaType: 'whatsapp' }, 'chat', 'Whatsapp'],
  ])('%j of a %s is of the medium %s', (fields, word, medium) => {
    expect(begun('InteractionCreated', fields, {}, guid('one', word))['medium']).toBe(medium);
  });

  test('an inbound one begins in the script; a dialled one, a voicemail, a callback and what goes on with another do not', () => {
    expect(begun('InteractionCreated', IN)).toMatchObject({ inScript: true });
    expect(begun('InteractionCreated', {})).toMatchObject({ inScript: true });
    for (const fact of [begun('InteractionCreated', OUT), begun('InteractionCreated', IN, {}, VMAIL), begun('InteractionQueued', IN)]) { expect(fact).not.toHaveProperty('inScript'); expect(fact).not.toHaveProperty('leg'); }
    for (const fact of [begun('InteractionCreated', IN, link), begun('InteractionQueued', IN, link), begun('InteractionCreated', {}, {}, CALLBACK)]) { expect(fact).toMatchObject({ leg: true }); expect(fact).not.toHaveProperty('inScript'); }
    expect(begun('InteractionCreated', {}, {}, CALLBACK)).toMatchObject({ direction: 'Outbound' });
    expect(begun('InteractionCreated', IN, { originalInteractionGuid: CALL })).toMatchObject({ inScript: true });
  });

  test('an agent who calls out is the origin; the phone code that was chosen is kept', () => {
    const own = { ...OUT, ...mara, isAgentInitiated: 'true' };
    expect(begun('InteractionCreated', own)).toMatchObject({ origin: { type: 'user', id: 'agMara' } });
    for (const fact of [begun('InteractionCreated', { ...OUT, ...mara }), begun('InteractionCreated', own, link), begun('InteractionCreated', { ...own, direction: 'in' })]) expect(fact).not.toHaveProperty('origin');
    expect(matter('InteractionAssigned', OUT, { outboundTclShortCode: 'SPR1' })).toEqual([{ kind: 'phoneCodes', codes: [{ listName: null, name: null, shortCode: 'SPR1' }], ...HERE }]);
  });

  test('the tenant is the end of the id, whatever hyphens it has; else what the event or its source names', () => {
    expect(begun('InteractionCreated', {}, {}, 'int-19a278ad4d2-Z-q-phone-02-demo-one-2')['tenant']).toBe('demo-one-2');
    expect(begun('InteractionCreated', {}, { tenantName: 'demo2' }, 'int-19a278ad4d2-Zq-ai-studio-01')['tenant']).toBe('demo2');
    expect(said(envelope({ event: 'InteractionCreated', interactionGUID: 'x-1' }, { source: '//8x8.com/cc/demo3' }))[0]).toMatchObject({ tenant: 'demo3' });
    expect(begun('InteractionCreated', {}, {}, 'x-1')).not.toHaveProperty('tenant');
  });

  test.each<[Data, Data, unknown]>([
    [{ queueId: 591 }, {}, { id: '591' }], [{ queueId: '591' }, { tenantSkillName: 'Sales', channelName: 'Front' }, { id: '591', name: 'Sales' }], [{ queueList: 591 }, {}, { id: '591' }], [{ queueList: '591,592' }, {}, undefined],
    [{}, { que: 'demo~~queue~~phone~~591' }, { id: '591' }], [{}, { que: 'demo~~591~~phone~~b1e3-2f2b' }, { id: '591' }], [{}, { que: 'demo~~b~~phone~~c' }, undefined], [{ queueId: 0 }, { tenantSkillName: 'Sales' }, { id: null, name: 'Sales' }], [{}, {}, undefined],
  ])('%j with %j waits in the queue %j', (fields, attached, queue) => {
    expect(matter('InteractionQueued', { ...IN, ...fields }, attached)[0]?.['queue']).toEqual(queue);
  });
});

describe('whose event it is', () => {
  const identifiers = (fields: Data, attached: Data, attributes: Data = {}, event = 'InteractionQueued'): unknown => said(envelope(payload(CALL, [0, event, fields, attached], 1), attributes)).find(({ kind }) => kind === 'identifiers')?.['identifiers'];
  const byId = { identity: CALL, identitytype: 'temporaryId' };

  test('the number with its country is the customer\'s, and the one as dialled only where there is no other', () => {
    expect(identifiers(IN, { phoneNum: 2025550151, remotePhoneNum: '+12025550151' }, byId)).toEqual([{ type: 'phone', value: '+12025550151' }]);
    expect(identifiers(IN, { phoneNum: 2025550151, pho: 1 }, byId)).toEqual([{ type: 'phone', value: '2025550151' }]);
    expect(identifiers(IN, { pho: 2025550151 }, byId)).toEqual([{ type: 'phone', value: '2025550151' }]);
    for (const value of ['sip:desk@example.com', 'anonymous', 0, 4711, null, true, {}]) expect(identifiers(IN, { phoneNum: value }, byId)).toBeUndefined();
  });

  test('what the event\'s own identity says already is not said again', () => {
    expect(identifiers(IN, { remotePhoneNum: '+1 (202) 555-0150' })).toBeUndefined();
    expect(identifiers(IN, { remotePhoneNum: '+12025550151' })).toEqual([{ type: 'phone', value: '+12025550151' }]);
  });

  test('the source of a message that came in is the customer\'s, that of one that goes out is ours', () => {
    const mail = { mediaType: 'email', emailSourceAddress: 'ana@example.com' };
    expect(identifiers({ ...mail, direction: 'in' }, {}, byId)).toEqual([{ type: 'email', value: 'ana@example.com' }]);
    expect(identifiers({ ...mail, direction: 'out' }, {}, byId)).toBeUndefined();
    expect(identifiers({ ...IN, emailSourceAddress: 'nobody' }, {}, byId)).toBeUndefined();
  });

  test('the other end of an agent\'s own line, or of a call within the house, is no customer', () => {
    const attached = { phoneNum: 2025550151, callingName: 'Dan' };
    expect(identifiers({ ...OUT, isAgentInitiated: true }, { ...attached, ...link }, byId)).toBeUndefined();
    expect(begun('InteractionCreated', { ...OUT, isAgentInitiated: true }, { ...attached, ...link })).toMatchObject({ contact: {} });
    expect(identifiers({ ...OUT, isExternal: 'false' }, attached, byId)).toBeUndefined();
    expect(identifiers({ ...OUT, isAgentInitiated: true }, attached, byId)).toEqual([{ type: 'phone', value: '2025550151' }]);
  });

  test('a caller\'s name is one where it is no number', () => {
    expect(begun('InteractionCreated', IN, { callingName: 12025550151, remoteCallingName: '+1 202 555', nam: 'Ana' })['contact']).toMatchObject({ name: 'Ana' });
    expect(of('InteractionCreated', IN, { callingName: 'Ana' })).toContainEqual({ kind: 'named', name: 'Ana' });
    expect(of('InteractionCreated', IN, { callingName: 12025550151 }).map(({ kind }) => kind)).not.toContain('named');
    expect(of('InteractionQueued', IN, { callingName: 'Ana' }).map(({ kind }) => kind)).not.toContain('named');
  });

  test('G6: events with the id alone and events with the number are of one person, whichever says so', () => {
    const told: Told = [[CALL, [0, 'InteractionCreated', IN]], [CALL, [9, 'InteractionQueued', IN, { remotePhoneNum: '+12025550151' }]], [CALL, [20, 'InteractionRejected', mara]]];
    const view = new MemoryDocuments(persons, KEYS);
    view.fold([...asEvents(told), interpreted(envelope({}, { type: 'com.example.paid', identity: '+12025550151' }))]);
    expect(view.keys('p')).toHaveLength(1);
  });
});

describe('traps (8x8-event-stream-facts.md 6)', () => {
  const at = (interaction: Data, attributes: Data = { time: undefined }): string => interpreted(envelope({ Interaction: { event: 'InteractionCreated', interactionGUID: CALL, ...interaction } }, attributes)).at;

  test('1: without `time` it occurred at interactionEventTS, else when it was published, never at eventTS or in 1970', () => {
    expect(at({ interactionEventTS: START_S, eventTS: 1_700_000_000, msgInfo: { timestamp: START_S * 1000 + 412 } })).toBe('2026-03-02T09:00:00.000000000Z');
    expect(at({ interactionEventTS: String(START_S) })).toBe('2026-03-02T09:00:00.000000000Z');
    for (const none of [0, '0', '', null, 'soon', {}, -5, 1e300]) expect(at({ interactionEventTS: none, eventTS: START_S, msgInfo: { timestamp: String(START_S * 1000 + 412) } })).toBe('2026-03-02T09:00:00.412000000Z');
    expect(at({ eventTS: START_S })).toBe(RECORDED_AT);
    expect(at({ interactionEventTS: START_S }, {})).toBe('2026-03-02T09:00:00.000000000Z');
    expect(at({ interactionEventTS: START_S + 5 }, { time: '2026-03-02T08:00:00Z' })).toBe('2026-03-02T08:00:00.000000000Z');
  });

  test('1, G3: within one second the order is that of publishing, whatever came first over the wire', () => {
    const told = asEvents(one([0.3, 'InteractionQueued', IN, inSupport], [0.1, 'InteractionCreated', IN], [0.7, 'InteractionAccepted', { ...mara, ...CONNECTED }], [0.5, 'InteractionAssigned', mara]));
    expect(told.map(({ interactionFacts }) => interactionFacts[0]?.tie)).toEqual([0.3, 0.1, 0.7, 0.5].map((seconds) => START_S * 1000 + seconds * 1000 + 180));
    expect(folded(told).transitions.map(({ name }) => name)).toEqual(['STARTED', 'IN_SCRIPT', 'FORWARD', 'WAITING', 'TALKING']);
  });

  test('2: types vary, and nothing is rounded', () => {
    expect(matter('InteractionQueued', { direction: 'in', queueId: 'true' })).toEqual([{ kind: 'waiting', queue: { id: 'true' }, arrival: 'queued', ...HERE }]);
    expect(matter('InteractionAccepted', { agentId: 40375, callState: 'CONNECTED' })[0]).toMatchObject({ participantId: '40375' });
    const line = envelope({ Interaction: { event: 'InteractionAssigned', interactionGUID: CALL, agentId: '#', attachedData: { attachedDatum: [{ attachedDataKey: 'createInteractionTimestampNanos', attachedDataValue: '#' }] } } });
    expect(said(line.replaceAll('"#"', '12345678901234567891'))).toContainEqual({ kind: 'waiting', agents: [{ id: '12345678901234567891' }], arrival: 'offered', ...HERE });
    expect(said(envelope({ event: 'InteractionUnqueued', interactionGUID: '#' }).replace('"#"', '98765432109876543210'))).toContainEqual({ kind: 'unqueued', interaction: '8x8:98765432109876543210' });
  });

  test('2: attached data may be one entry, hold nonsense, or be missing', () => {
    const queued = (attachedData: unknown): unknown => said(envelope({ event: 'InteractionQueued', interactionGUID: CALL, attachedData })).find(({ kind }) => kind === 'waiting')?.['queue'];
    expect(queued({ attachedDatum: { attachedDataKey: 'tenantSkillName', attachedDataValue: 'Sales' } })).toEqual({ id: null, name: 'Sales' });
    expect(queued({ attachedDatum: [null, 7, [], {}, { attachedDataKey: 7, attachedDataValue: 'a' }, { attachedDataKey: 'tenantSkillName', attachedDataValue: null }, { attachedDataKey: 'tenantSkillName', attachedDataValue: 'Sales' }] })).toEqual({ id: null, name: 'Sales' });
    for (const none of [undefined, null, 'text', [], { attachedDatum: 'text' }]) expect(queued(none)).toBeUndefined();
  });

  test('3: only an accepted or a changed one is read by its call state', () => {
    for (const callState of ['CS_IDLE', 'CS_QUEUED', 'CS_DISCONNECTED', 'CS_CONNECTED', undefined]) {
      expect(matter('InteractionCreated', { ...IN, callState })).toEqual([{ ...asCustomer, ...HERE }]);
      expect(matter('InteractionUnqueued', { callState })).toEqual([{ kind: 'unqueued', ...HERE }]);
    }
  });

  test('5: code 1000 is nobody\'s choice', () => {
    for (const dispositionCode of [1000, '1000', null]) {
      expect(matter('InteractionDeleted', { dispositionCode })).toEqual([{ kind: 'ended', final: false, leg: true, ...HERE }]);
      expect(matter('InteractionEndPostProcess', { ...mara, dispositionCode })[1]).toEqual({ kind: 'wrappedUp', agents: [agent], ...HERE });
    }
  });

  test('9: with the wrapper, without it, or with another one; and where it does not name itself, by its type', () => {
    const bare = { event: 'InteractionUnqueued', interactionGUID: CALL };
    for (const data of [bare, { Interaction: bare }, { GuestChat: bare }]) expect(said(envelope(data))).toContainEqual({ kind: 'unqueued', ...HERE });
    expect(said(envelope({ interactionGUID: CALL }, { type: '8x8.InteractionUnqueued' }))).toContainEqual({ kind: 'unqueued', ...HERE });
    expect(said(envelope(bare, { type: '8x8.InteractionQueued' }))).toContainEqual({ kind: 'unqueued', ...HERE });
  });

  test('what says nothing of an interaction that it should be about is unreadable, with a reason that quotes nobody', () => {
    for (const interactionGUID of [undefined, null, '', ' ', {}, 'x'.repeat(257)]) expect(said(envelope({ Interaction: { event: 'InteractionQueued', interactionGUID } }))).toEqual([{ kind: 'unreadable', reason: 'interactionGUID: no id' }]);
    for (const data of ['text', 7, null, []]) expect(said(envelope(data, { type: '8x8.InteractionQueued' }))).toEqual([{ kind: 'unreadable', reason: 'data: no JSON object' }]);
    expect(said(envelope({ event: 'InteractionQueued', interactionGUID: 'unknown' }))).toEqual([]);
  });

  test('it is known by its type alone, so that no other platform\'s event is taken for it', () => {
    const data = { Interaction: { event: 'InteractionQueued', interactionGUID: CALL } };
    for (const type of ['com.8x8.InteractionQueued', 'Interaction', '8x8', '8X8.InteractionQueued', 'org.throughline.8x8.x']) expect(interpret(recorded(envelope(data, { type }))).vocabulary).toBeNull();
    for (const type of ['8x8.InteractionQueued', '8x8.anything']) expect(vocabularies.filter((vocabulary) => vocabulary.knows(recorded(envelope(data, { type })))).map(({ name }) => name)).toEqual(['8x8']);
  });
});

// ---- whole interactions -------------------------------------------------------------------------------------------------------

const by = (agentId: string): Data => ({ agentId });
const BEGIN: readonly Line[] = [[0, 'InteractionCreated', IN], [5, 'InteractionQueued', { ...IN, queueId: 101 }, inSupport], [8, 'InteractionAssigned', mara], [10, 'InteractionAccepted', { ...mara, ...CONNECTED }]];
const WAITED: readonly (readonly [number, string, number])[] = [[0, 'STARTED', 0], [0, 'IN_SCRIPT', 5], [5, 'FORWARD', 0], [5, 'WAITING', 5]];
const leaves = (at: number, agentId: string): readonly Line[] => [[at, 'InteractionPostProcess', by(agentId)], [at + 10, 'InteractionEndPostProcess', by(agentId)], [at + 10, 'InteractionDeassigned', by(agentId)]];
const gone = (at: number, hangupInitiator = 'CUSTOMER'): Line => [at, 'InteractionDeleted', { hangupInitiator }];

describe('documented orders (8x8-event-stream-facts.md 4)', () => {
  test.each(CALLS.map((call) => [call.about, call] as const))('%s', (_, { lines: told, transitions, row }) => {
    const { document, transitions: found } = folded(asEvents(told));
    expect(lines(found)).toEqual(transitions);
    expect(document.row).toMatchObject(row);
  });

  test('a refused offer leaves the customer waiting, with everybody who was rung', () => {
    const journey = journeyOf(...BEGIN.slice(0, 3), [12, 'InteractionRejected', { ...mara, rejectReason: 1 }], [13, 'InteractionAssigned', by('agDan')], [15, 'InteractionAccepted', { ...by('agDan'), ...CONNECTED }], ...leaves(40, 'agDan'), gone(51));
    expect(lines(journey.transitions)).toEqual([...WAITED.slice(0, 3), [5, 'WAITING', 10], [15, 'TALKING', 25], [40, 'FINISHED', 0]]);
    expect(ids(named(journey, 'WAITING').agents)).toEqual(['agMara', 'agDan']);
    expect(ids(journey.document.row.agents)).toEqual(['agDan']);
  });

  test('a call out that nobody answers, and one of a campaign whose first agent lets it pass', () => {
    const unanswered = journeyOf([0, 'InteractionCreated', OUT], [1, 'InteractionAssigned', { ...OUT, ...mara }], [30, 'InteractionDeleted', { hangupInitiator: 'SYSTEM', callHangupReason: 'CEC_DISCONNECT_NOANSWER' }]);
    expect(lines(unanswered.transitions)).toEqual([[0, 'OUTBOUND_STARTED', 30], [30, 'FINISHED', 0]]);
    expect(unanswered.document.row).toMatchObject({ outcome: 'Other', agents: [], waitingDuration: 0 });
    expect(unanswered.transitions[0]?.agents.map(({ id }) => id)).toEqual([mara.agentId]);
    const reassigned = journeyOf([0, 'InteractionCreated', OUT], [1, 'InteractionAssigned', { ...OUT, agentId: 'agOther' }], [5, 'InteractionRejected', OUT], [6, 'InteractionAssigned', { ...OUT, ...mara }], [7, 'InteractionAccepted', { ...OUT, ...mara, callState: 'CS_INPROGRESS' }], [30, 'InteractionDeleted', { hangupInitiator: 'SYSTEM' }]);
    expect(reassigned.transitions.map(({ name, agents }) => [name, agents.map(({ id }) => id)])).toEqual([['OUTBOUND_STARTED', [mara.agentId]], ['FINISHED', []]]);
    const campaign = journeyOf(
      [0, 'InteractionCreated', { ...OUT, outboundCampaignid: 7 }], [1, 'InteractionQueued', { ...OUT, queueId: 101 }, inSupport], [2, 'InteractionAssigned', { ...OUT, ...mara }], [20, 'InteractionDeassigned', mara],
      [25, 'InteractionAssigned', { ...OUT, ...by('agDan') }], [27, 'InteractionAccepted', { ...by('agDan'), ...IN_PROGRESS }], [35, 'InteractionCustomerAccepted', CONNECTED], ...leaves(60, 'agDan'), gone(71),
    );
    expect(lines(campaign.transitions)).toEqual([[0, 'OUTBOUND_STARTED', 35], [35, 'TALKING', 25], [60, 'FINISHED', 0]]);
    expect([ids(named(campaign, 'OUTBOUND_STARTED').agents), ids(named(campaign, 'TALKING').agents)]).toEqual([['agDan'], ['agDan']]);
  });

  test('where the direction is said only later, what was taken for the script was the dial', () => {
    const { transitions, document } = journeyOf([0, 'InteractionCreated'], [1, 'InteractionAssigned', { ...OUT, ...mara }], [2, 'InteractionAccepted', { ...mara, ...IN_PROGRESS }], [9, 'InteractionCustomerAccepted']);
    expect(lines(transitions)).toEqual([[0, 'OUTBOUND_STARTED', 9], [9, 'TALKING', null]]);
    expect(document.row).toMatchObject({ direction: 'Outbound' });
  });

  test('a transfer whose lines share one id: the agent who was brought in goes on talking', () => {
    const journey = journeyOf(
      ...BEGIN, [30, 'InteractionCreated', { ...OUT, isAgentInitiated: true }], [31, 'InteractionAssigned', { ...OUT, ...by('agDan') }], [33, 'InteractionAccepted', { ...OUT, ...by('agDan'), ...CONNECTED }], [40, 'InteractionTransferRequest', mara],
      [40.3, 'InteractionPostProcess', mara], [40.6, 'InteractionParticipantChange', { ...CONNECTED, participatingAgents: 'agDan' }], [55, 'InteractionEndPostProcess', mara], [55, 'InteractionDeassigned', mara], [55.5, 'InteractionReconnect'], gone(56, 'SYSTEM'),
      ...leaves(80, 'agDan'), gone(91),
    );
    expect(lines(journey.transitions)).toEqual([...WAITED, [10, 'TALKING', 23], [33, 'TALKING', 7], [40, 'TRANSFER', 0], [40, 'TALKING', 40], [80, 'FINISHED', 0]]);
    const marker = named(journey, 'TRANSFER');
    expect([ids(marker.agents), ids(marker.previousAgents), marker.previousQueue?.id]).toEqual([['agDan'], ['agMara'], '101']);
    expect(journey.document.row).toMatchObject({ transfersCompleted: 1, direction: 'Inbound', wrapUpDuration: 25_000, outcome: 'Handled' });
  });

  test('a transfer waits for the next who is seen: an agent, or a queue', () => {
    const toAgent = journeyOf(...BEGIN, [40, 'InteractionTransferRequest', mara], [42, 'InteractionPostProcess', mara], [45, 'InteractionAssigned', by('agDan')], [50, 'InteractionAccepted', { ...by('agDan'), ...CONNECTED }]);
    expect(lines(toAgent.transitions)).toEqual([...WAITED, [10, 'TALKING', 30], [40, 'TRANSFER', 0], [40, 'WAITING', 10], [50, 'TALKING', null]]);
    expect(ids(named(toAgent, 'TRANSFER').agents)).toEqual(['agDan']);
    const toQueue = journeyOf(...BEGIN, [40, 'InteractionTransferRequest', mara], [42, 'InteractionPostProcess', mara], [45, 'InteractionQueued', { ...IN, queueId: 102 }]);
    expect(lines(toQueue.transitions).slice(4)).toEqual([[10, 'TALKING', 30], [40, 'TRANSFER', 0], [40, 'WAITING', null]]);
    expect(named(toQueue, 'TRANSFER')).toMatchObject({ queue: { id: '102' }, previousQueue: { id: '101' }, agents: [] });
  });

  test('a transfer to a queue under the same id is one, whether wrap-up has begun or not', () => {
    for (const wrapUp of [[], [[40, 'InteractionPostProcess', mara] as Line]]) {
      const journey = journeyOf(...BEGIN, ...wrapUp, [40.5, 'InteractionQueued', { ...IN, queueId: 102 }], [50, 'InteractionAssigned', by('agDan')], [52, 'InteractionAccepted', { ...by('agDan'), ...CONNECTED }]);
      expect(lines(journey.transitions)).toEqual([...WAITED, [10, 'TALKING', 30], [40, 'TRANSFER', 0], [40, 'WAITING', 12], [52, 'TALKING', null]]);
      expect(named(journey, 'TRANSFER')).toMatchObject({ queue: { id: '102' }, previousAgents: [{ id: 'agMara' }] });
    }
  });

  test('a conference: agents come and go, a line is deleted, and it ends with the last of them', () => {
    const journey = journeyOf(
      ...BEGIN, [30, 'InteractionParticipantChange', { ...CONNECTED, participatingAgents: 'agMara,agDan' }], gone(31, 'SYSTEM'), [32, 'InteractionJoinLinesRequest'], [40, 'LineHoldStatus', { ...by('agDan'), status: true }], [45, 'LineHoldStatus', { ...by('agDan'), status: false }],
      ...leaves(60, 'agMara'), ...leaves(80, 'agDan'), gone(91, 'AGENT'),
    );
    expect(lines(journey.transitions)).toEqual([...WAITED, [10, 'TALKING', 20], [30, 'TALKING', 30], [60, 'TALKING', 20], [80, 'FINISHED', 0]]);
    expect(journey.transitions.filter(({ name }) => name === 'TALKING').map(({ agents }) => ids(agents))).toEqual([['agMara'], ['agMara', 'agDan'], ['agDan']]);
    const seconds = (instant: Instant | null): number | null => (instant === null ? null : msOf(instant) / 1000 - START_S);
    expect(journey.document.participants.map(({ id, joined, held, dropped: left }) => [id, seconds(joined), held.map(({ from, to }) => [seconds(from), seconds(to)]), seconds(left)])).toEqual([
      ['customer', 0, [], 80], ['agMara', 10, [], 60], ['agDan', 30, [[40, 45]], 80],
    ]);
  });

  // Times are whole seconds, payloads are mostly unpublished, events are lost: what they still say, said as it is.
  const hold = (at: number, status: boolean): Line => [at, 'LineHoldStatus', { ...mara, status }];
  const away = (at: number): readonly Line[] => [[at, 'InteractionPostProcess'], [at + 10, 'InteractionEndPostProcess'], [at + 10, 'InteractionDeassigned']];
  const TALKED: readonly (readonly [number, string, number | null])[] = [...WAITED, [10, 'TALKING', 30], [40, 'FINISHED', 0]];
  const HELD: typeof TALKED = [...WAITED, [10, 'TALKING', 10], [20, 'HOLD', 20], [40, 'FINISHED', 0]];
  const DIALLED: typeof TALKED = [[0, 'OUTBOUND_STARTED', 30], [30, 'FINISHED', 0]];
  test.each<[string, readonly Line[], typeof TALKED, object]>([
    ['a hold that is told to be over when the call is', [...BEGIN, hold(20, true), ...leaves(40, 'agMara'), gone(51), hold(52, false)], HELD, { holdDuration: 20_000 }],
    ['the same between wrap-up and the end', [...BEGIN, hold(20, true), [40, 'InteractionPostProcess', mara], hold(41, false), [50, 'InteractionEndPostProcess', mara], gone(51)], HELD, { wrapUpDuration: 10_000 }],
    ['a hold that is told after the end', [...BEGIN, ...leaves(40, 'agMara'), gone(51), hold(52, true)], TALKED, { holdDuration: 0 }],
    ['a wrap-up that names nobody', [...BEGIN, ...away(40), gone(51)], TALKED, { wrapUpDuration: 10_000, agents: [agent] }],
    ['an answer that names nobody, after one agent was rung', [...BEGIN.slice(0, 3), [10, 'InteractionAccepted', CONNECTED], ...leaves(40, 'agMara'), gone(51)], TALKED, { agents: [agent] }],
    ['an answer that names only who is there', [...BEGIN.slice(0, 2), [10, 'InteractionAccepted', { ...CONNECTED, participatingAgents: 'agMara' }], ...leaves(40, 'agMara')], TALKED, { agents: [agent] }],
    ['an answer that names nobody, and nobody was rung: whoever wraps up', [...BEGIN.slice(0, 2), [10, 'InteractionAccepted', CONNECTED], ...leaves(40, 'agMara')], TALKED, { agents: [agent] }],
    ['a dial that its agent gives up: wrap-up is no dial', [[0, 'InteractionCreated', OUT], [1, 'InteractionAssigned', { ...OUT, ...mara }], [2, 'InteractionAccepted', { ...OUT, ...mara, ...IN_PROGRESS }], ...leaves(30, 'agMara'), gone(41, 'SYSTEM')], DIALLED, { outcome: 'Other', wrapUpDuration: 10_000 }],
    ['a customer who left the queue, whoever ended the rest', [...BEGIN.slice(0, 2), [40, 'InteractionUnqueued'], gone(41, 'SYSTEM')], [...WAITED.slice(0, 3), [5, 'WAITING', 35], [41, 'FINISHED', 0]], { outcome: 'Abandoned' }],
    ['a guest who left, whoever ended the rest', [...BEGIN.slice(0, 2), [39, 'GuestChatEnd'], gone(41, 'SYSTEM')], [...WAITED.slice(0, 3), [5, 'WAITING', 36], [41, 'FINISHED', 0]], { outcome: 'Abandoned' }],
    ['a transfer that is called off: the customer is taken off hold again', [...BEGIN, hold(20, true), [30, 'InteractionTransferRequest', mara], hold(40, false), ...leaves(60, 'agMara'), gone(72)],
      [...WAITED, [10, 'TALKING', 10], [20, 'HOLD', 10], [30, 'TRANSFER', 0], [30, 'WAITING', 10], [40, 'TALKING', 20], [60, 'FINISHED', 0]], { holdDuration: 10_000, wrapUpDuration: 10_000 }],
    ['a transfer of which nothing more is heard: it was over when its agent left', [...BEGIN, [40, 'InteractionTransferRequest', mara], ...leaves(43, 'agMara'), gone(54)],
      [...WAITED, [10, 'TALKING', 30], [40, 'TRANSFER', 0], [40, 'WAITING', 3], [43, 'FINISHED', 0]], { waitingDuration: 8000, wrapUpDuration: 10_000, outcome: 'Handled' }],
    ['an agent of whom nobody said that it was taken, and who holds', [...BEGIN.slice(0, 3), hold(20, true), hold(30, false), ...leaves(60, 'agMara'), gone(72)],
      [...WAITED.slice(0, 3), [5, 'WAITING', 15], [20, 'TALKING', 0], [20, 'HOLD', 10], [30, 'TALKING', 30], [60, 'FINISHED', 0]], { outcome: 'Handled', agents: [agent], holdDuration: 10_000 }],
    ['an agent of whom nobody said that it was taken, and who wraps up', [...BEGIN.slice(0, 2), ...leaves(40, 'agMara'), gone(52)],
      [...WAITED.slice(0, 3), [5, 'WAITING', 35], [40, 'TALKING', 0], [40, 'FINISHED', 0]], { outcome: 'Handled', agents: [agent], wrapUpDuration: 10_000 }],
    ['an offer that is taken back is none of that', [...BEGIN.slice(0, 3), [20, 'InteractionDeassigned', mara], gone(40)], [...WAITED.slice(0, 3), [5, 'WAITING', 35], [40, 'FINISHED', 0]], { outcome: 'Abandoned', agents: [] }],
    ['an agent instead of a queue that took too long', [...BEGIN.slice(0, 2), [30, 'InteractionQueueTimeout'], [32, 'InteractionAssigned', mara], [35, 'InteractionAccepted', { ...mara, ...CONNECTED }], ...leaves(40, 'agMara')],
      [...WAITED.slice(0, 3), [5, 'WAITING', 25], [32, 'FORWARD', 0], [32, 'WAITING', 3], [35, 'TALKING', 5], [40, 'FINISHED', 0]], { forwardedToQueue: 1, agents: [agent] }],
    ['a queue that took too long is not the customer\'s doing', [...BEGIN.slice(0, 2), [40, 'InteractionQueueTimeout'], gone(41, 'SYSTEM')], [...WAITED.slice(0, 3), [5, 'WAITING', 35], [41, 'FINISHED', 0]], { outcome: 'Other' }],
    ['one queue, by its name and then by its id', [BEGIN[0] as Line, [5, 'InteractionQueued', IN, inSupport], [8, 'InteractionAssigned', { ...mara, queueId: 101 }, inSupport], BEGIN[3] as Line, ...leaves(40, 'agMara')], TALKED, { forwardedToQueue: 1, queues: [{ id: '101', name: 'Support' }] }],
    ['one queue, by its id and then by its name', [...BEGIN.slice(0, 2), [6, 'InteractionQueued', IN, inSupport], ...BEGIN.slice(2), ...leaves(40, 'agMara')], TALKED, { forwardedToQueue: 1, queues: [{ id: '101', name: 'Support' }] }],
    ['a call that says no direction has come in, by its channel', [[0, 'InteractionCreated', {}, { cha: '15550001111', channelName: 'Main' }], gone(12)], [[0, 'STARTED', 0], [0, 'IN_SCRIPT', 12], [12, 'FINISHED', 0]], { direction: 'Inbound', interactions: [{ direction: 'Inbound' }], entryPoint: { name: 'Main', phoneNumber: '15550001111' } }],
    ['a channel that is none', [[0, 'InteractionCreated', { ...IN, inboundChannelid: 'N/A' }, { channelName: 'Main' }], gone(12)], [[0, 'STARTED', 0], [0, 'IN_SCRIPT', 12], [12, 'FINISHED', 0]], { entryPoint: { id: null, name: 'Main' } }],
    ...['0', 'null', 'N/A', 'none', 'unknown', 'false', ''].map((nothing): [string, readonly Line[], typeof TALKED, object] => [`a link to nothing (${nothing})`, [[0, 'InteractionCreated', IN, { originalInteractionGuid: nothing }], gone(12)], [[0, 'STARTED', 0], [0, 'IN_SCRIPT', 12], [12, 'FINISHED', 0]], { outcome: 'EndedInScript' }]),
  ])('%s', (_, told, transitions, row) => {
    const journey = journeyOf(...told);
    expect(lines(journey.transitions)).toEqual(transitions);
    expect(journey.document.row).toMatchObject(row);
  });

  test('what says nothing of when it was published comes last in its second, but for what is created', () => {
    const bare = (at: number, event: string, fields: Data = {}): string => envelope({ Interaction: { event, interactionGUID: CALL, interactionEventTS: START_S + at, ...fields } }, { id: `${event}-${String(at)}`, time: undefined });
    const journey = folded([...asEvents(one([0.9, 'InteractionQueued', { ...IN, queueId: 101 }], [10.9, 'InteractionAccepted', { ...mara, ...CONNECTED }])), interpreted(bare(0, 'InteractionCreated', IN)), interpreted(bare(10, 'LineHoldStatus', { ...mara, status: true }))]);
    expect(lines(journey.transitions)).toEqual([[0, 'STARTED', 0], [0, 'IN_SCRIPT', 0], [0, 'FORWARD', 0], [0, 'WAITING', 10], [10, 'TALKING', 0], [10, 'HOLD', null]]);
  });

  test('a conference that both hold: whoever comes back talks again', () => {
    const journey = journeyOf(...BEGIN, [20, 'InteractionParticipantChange', { ...CONNECTED, participatingAgents: 'agMara,agDan' }], hold(25, true), [28, 'LineHoldStatus', { ...by('agDan'), status: true }], [35, 'LineHoldStatus', { ...by('agDan'), status: false }], hold(38, false));
    expect(journey.transitions.slice(5).map(({ name, agents }) => [name, [...ids(agents)].sort()])).toEqual([['TALKING', ['agDan', 'agMara']], ['HOLD', ['agDan', 'agMara']], ['TALKING', ['agDan']], ['TALKING', ['agDan', 'agMara']]]);
  });

  const OTHER = guid('two');
  test('what it goes on with may be said only later: it has no beginning of its own, and was transferred', () => {
    const told = (...then: readonly Line[]): readonly (readonly [string, Line])[] => then.map((line) => [OTHER, line] as const);
    const link = { originalInteractionGuid: CALL };
    const queued = folded(asEvents([...one(...BEGIN, ...leaves(40, 'agMara')), ...told([40.5, 'InteractionCreated', IN], [41, 'InteractionQueued', { ...IN, queueId: 102 }, link], [50, 'InteractionAccepted', { ...by('agDan'), ...CONNECTED }, link])]));
    expect(lines(queued.transitions)).toEqual([...WAITED, [10, 'TALKING', 30], [41, 'TRANSFER', 0], [41, 'WAITING', 9], [50, 'TALKING', null]]);
    expect(queued.document.row).toMatchObject({ transfersCompleted: 1, forwardedToQueue: 1});
    const consult = folded(asEvents([...one(...BEGIN), ...told([20, 'InteractionCreated', OUT], [22, 'InteractionAccepted', { ...OUT, ...by('agDan'), ...CONNECTED }, link])]));
    expect(lines(consult.transitions)).toEqual([...WAITED, [10, 'TALKING', null]]);
    // Of what is not here nobody knows whether anybody had the customer.
    const alone = folded(asEvents(told([0, 'InteractionCreated', IN], [5, 'InteractionQueued', { ...IN, queueId: 102 }, link])));
    expect(lines(alone.transitions)).toEqual([[0, 'STARTED', 0], [0, 'IN_SCRIPT', 5], [5, 'FORWARD', 0], [5, 'WAITING', null]]);
  });

  test('a callback says once what it is, on its first event as well as on any other, and is dialled out of its queue', () => {
    const [first, link] = [one([0, 'InteractionCreated', IN], [5, 'InteractionQueued', { ...IN, queueId: 101 }, inSupport], [20, 'InteractionUnqueued'], gone(21)), { originalInteractionGuid: CALL }];
    const back = [[22, 'InteractionCreated', OUT, { ...link, type: 'callback' }], [23, 'InteractionQueued', { ...OUT, queueId: 101 }], [80, 'InteractionAssigned', { ...OUT, ...mara }], [82, 'InteractionAccepted', { ...mara, ...IN_PROGRESS }], [95, 'InteractionCustomerAccepted', CONNECTED]] as const;
    const { transitions } = folded(asEvents([...first, ...back.map((line) => [OTHER, line as Line] as const)]));
    expect(lines(transitions).slice(4)).toEqual([[23, 'FOLLOWUP_PENDING', 59], [82, 'OUTBOUND_STARTED', 13], [95, 'TALKING', null]]);
    expect(named({ transitions } as Folded, 'OUTBOUND_STARTED').queue).toMatchObject({ id: '101', name: 'Support' });
  });

  test('a voicemail is of the queue that it waits on, and nobody waits elsewhere meanwhile', () => {
    const mail = VMAIL;
    const { transitions } = folded(asEvents([...one(...BEGIN.slice(0, 2)), [mail, [40, 'InteractionCreated', {}, { originalInteractionGuid: CALL }]], [mail, [55, 'InteractionQueued', { queueId: 101 }]], [CALL, gone(60)]]));
    expect(lines(transitions).slice(3)).toEqual([[5, 'WAITING', 35], [40, 'VOICEMAIL', 15], [55, 'FOLLOWUP_PENDING', null]]);
    expect(named({ transitions } as Folded, 'VOICEMAIL').queue).toMatchObject({ id: '101' });
  });

  const onward = (at: number, event: string, fields: Data = {}): readonly [string, Line] => [OTHER, [at, event, fields, { originalInteractionGuid: CALL }]];
  const transferred = (...then: readonly (readonly [string, Line])[]): Folded => folded(asEvents([...one(...BEGIN, [40, 'InteractionTransferRequest', mara], [41, 'InteractionPostProcess', mara]), ...then]));
  test.each<[string, readonly (readonly [string, Line])[], object, typeof TALKED]>([
    ['a queue', [onward(42, 'InteractionCreated', IN), onward(43, 'InteractionQueued', { ...IN, queueId: 102 }), [CALL, gone(46, 'AGENT')]], { queue: { id: '102' }, agents: [] }, [[40, 'WAITING', 3], [43, 'WAITING', null]]],
    ['an agent', [onward(30, 'InteractionCreated', OUT), onward(33, 'InteractionAccepted', { ...OUT, ...by('agDan'), ...CONNECTED }), onward(43, 'InteractionParticipantChange', { ...CONNECTED, participatingAgents: 'agDan' }), [CALL, gone(46, 'SYSTEM')]], { agents: [{ id: 'agDan' }] }, [[40, 'WAITING', 3], [43, 'TALKING', null]]],
  ])('a transfer that goes on under another id, to %s, has its destination, and the customer waits once', (_, then, destination, after) => {
    const journey = transferred(...then);
    expect(lines(journey.transitions)).toEqual([...WAITED, [10, 'TALKING', 30], [40, 'TRANSFER', 0], ...after]);
    expect(named(journey, 'TRANSFER')).toMatchObject({ previousAgents: [{ id: 'agMara' }], previousQueue: { id: '101' }, ...destination });
  });

  test.each([
    ['who is there, though the change is of a line', { callState: 'CS_DISCONNECTED', participatingAgents: 'agDan' }],
    ['nobody: whoever was brought in on the other line', CONNECTED],
  ])('a change of participants after a transfer that names %s', (_, change) => {
    const journey = transferred(onward(30, 'InteractionCreated', OUT), onward(33, 'InteractionAccepted', { ...OUT, ...by('agDan'), ...CONNECTED }), [CALL, [43, 'InteractionParticipantChange', change]],
      [OTHER, gone(47, 'SYSTEM')], ...leaves(80, 'agDan').map((line) => [CALL, line] as const), [CALL, gone(91)]);
    expect(lines(journey.transitions)).toEqual([...WAITED, [10, 'TALKING', 30], [40, 'TRANSFER', 0], [40, 'WAITING', 3], [43, 'TALKING', 37], [80, 'FINISHED', 0]]);
    expect(ids(named(journey, 'TRANSFER').agents)).toEqual(['agDan']);
    // With the line on which agents only talked among themselves they have left it, and it does not hold up the end.
    expect(journey.document.participants.every(({ dropped: left }) => left !== null)).toBe(true);
  });

  test('with the last agent the customer leaves, unless the call goes on', () => {
    const over = journeyOf(...BEGIN, ...leaves(40, 'agMara'));
    expect(over.document.participants.map(({ id, dropped: left }) => [id, left === null ? null : msOf(left) / 1000 - START_S])).toEqual([['customer', 40], ['agMara', 40]]);
    const on = journeyOf(...BEGIN, ...leaves(40, 'agMara'), [60, 'InteractionParticipantChange', { ...CONNECTED, participatingAgents: 'agDan' }]);
    expect(on.document.participants.map(({ id, dropped: left }) => [id, left === null])).toEqual([['customer', true], ['agMara', false], ['agDan', true]]);
  });

  test('an agent whom only the wrap-up names was there from the answer on', () => {
    const { document } = journeyOf(...BEGIN.slice(0, 2), [10, 'InteractionAccepted', CONNECTED], ...leaves(40, 'agMara'));
    expect(document.participants.map(({ id, joined, dropped: left }) => [id, msOf(joined) / 1000 - START_S, left === null ? null : msOf(left) / 1000 - START_S])).toEqual([['customer', 0, 40], ['agMara', 10, 40]]);
  });

  test('whoever is there and talks is not on hold any more', () => {
    const { document } = journeyOf(...BEGIN, hold(29, true), [40, 'InteractionParticipantChange', { ...CONNECTED, participatingAgents: 'agMara,agDan' }]);
    expect(document.participants.flatMap(({ held }) => held.map(({ from, to }) => [msOf(from) / 1000 - START_S, to === null ? null : msOf(to) / 1000 - START_S]))).toEqual([[29, 40]]);
  });

  test('a participant who is no longer named has left, and so has one whom the host removed', () => {
    const named2 = journeyOf(...BEGIN, [30, 'InteractionParticipantChange', { ...CONNECTED, participatingAgents: 'agMara;agDan' }], [50, 'InteractionParticipantChange', { callState: 'CS_DISCONNECTED', participatingAgents: 'agDan' }]);
    const removed = journeyOf(...BEGIN, [30, 'InteractionParticipantChange', { ...CONNECTED, participatingAgents: 'agMara;agDan' }], [50, 'InteractionParticipantRemovedByHost', mara]);
    for (const { transitions } of [named2, removed]) expect(lines(transitions)).toEqual([...WAITED, [10, 'TALKING', 20], [30, 'TALKING', 20], [50, 'TALKING', null]]);
  });

  test('a queue that gives up sends the customer on, and only where the next queue is another', () => {
    const timeout: readonly Line[] = [...BEGIN.slice(0, 2), [60, 'InteractionQueueTimeout']];
    const on = journeyOf(...timeout, [61, 'InteractionQueued', { ...IN, queueId: 102 }]);
    expect(lines(on.transitions)).toEqual([...WAITED.slice(0, 3), [5, 'WAITING', 55], [61, 'FORWARD', 0], [61, 'WAITING', null]]);
    expect(on.transitions[4]).toMatchObject({ queue: { id: '102' }, previousQueue: { id: '101' } });
    expect(on.document.row.forwardedToQueue).toBe(2);
    const again = journeyOf(...timeout, [61, 'InteractionQueued', { ...IN, queueId: 101 }]);
    expect(lines(again.transitions).slice(3)).toEqual([[5, 'WAITING', 55], [61, 'WAITING', null]]);
    const straightOn = journeyOf(...BEGIN.slice(0, 2), [60, 'InteractionQueued', { ...IN, queueId: 102 }]);
    expect(lines(straightOn.transitions).slice(3)).toEqual([[5, 'WAITING', 55], [60, 'FORWARD', 0], [60, 'WAITING', null]]);
  });

  test('a chat ends with its agent, and shows when the customer left', () => {
    const CHAT = { direction: 'in', mediaType: 'chat', resourceType: 2 };
    const { document, transitions } = folded(asEvents(([
      [0, 'InteractionCreated', CHAT], [2, 'InteractionQueued', CHAT, inSupport], [3, 'InteractionAssigned', mara], [5, 'InteractionAccepted', { ...mara, ...CONNECTED }], [50, 'GuestChatEnd'], [60, 'InteractionPostProcess', mara], [70, 'InteractionEndPostProcess', mara], gone(71),
    ] as const).map((line) => [guid('chat', 'chat'), line])));
    expect(lines(transitions)).toEqual([[0, 'STARTED', 0], [0, 'IN_SCRIPT', 2], [2, 'FORWARD', 0], [2, 'WAITING', 3], [5, 'TALKING', 55], [60, 'FINISHED', 0]]);
    expect(document.row.mediaTypes).toEqual(['Chat']);
    expect(document.participants.find(({ role }) => role === 'customer')?.dropped).toBe('2026-03-02T09:00:50.000000000Z');
  });

  const abandoned: Told = one(...BEGIN.slice(0, 2), [40, 'InteractionUnqueued'], gone(41, 'SYSTEM'));
  const original = { originalInteractionGuid: CALL };

  test('a voicemail waits for somebody, who works on it until the wrap-up is done', () => {
    const left: Told = ([[42, 'InteractionCreated', IN, original], [55, 'InteractionQueued', { queueId: 101 }, { ...original, ...inSupport }]] as const).map((line) => [VMAIL, line]);
    const done: Told = ([[100, 'InteractionAssigned', mara], [110, 'InteractionAccepted', { ...mara, ...CONNECTED }], [150, 'InteractionPostProcess', mara], [160, 'InteractionEndPostProcess', { ...mara, dispositionCode: 'CALLED' }], gone(161, 'SYSTEM')] as const).map((line) => [VMAIL, line]);
    const waiting = folded(asEvents([...abandoned, ...left]));
    expect(lines(waiting.transitions)).toEqual([...WAITED.slice(0, 3), [5, 'WAITING', 35], [42, 'VOICEMAIL', 13], [55, 'FOLLOWUP_PENDING', null]]);
    expect(waiting.document.row).toMatchObject({ outcome: 'Voicemail', finishedAt: null, interactions: [{ id: CALL }, { id: VMAIL }] });
    const worked = folded(asEvents([...abandoned, ...left, ...done]));
    expect(lines(worked.transitions).slice(4)).toEqual([[42, 'VOICEMAIL', 13], [55, 'FOLLOWUP_PENDING', 55], [110, 'PROCESSING', 50], [160, 'FINISHED', 0]]);
    expect(worked.document.row).toMatchObject({ outcome: 'Handled', wrapUpCodes: ['CALLED'] });
    const unheard = folded(asEvents([...abandoned, ...left, [VMAIL, gone(900, 'SYSTEM')]]));
    expect(lines(unheard.transitions).slice(4)).toEqual([[42, 'VOICEMAIL', 13], [55, 'FOLLOWUP_PENDING', 845], [900, 'FINISHED', 0]]);
    expect(unheard.document.row.outcome).toBe('Voicemail');
  });

  test('a callback waits, is dialled when an agent takes it, and talks or not', () => {
    const asked: Told = ([[42, 'InteractionCreated', {}, original], [43, 'InteractionQueued', { queueId: 101 }, original]] as const).map((line) => [CALLBACK, line]);
    const dialled: Told = ([[100, 'InteractionAssigned', mara], [110, 'InteractionAccepted', { ...mara, ...IN_PROGRESS }]] as const).map((line) => [CALLBACK, line]);
    const answered: Told = ([[120, 'InteractionCustomerAccepted', mara], ...leaves(150, 'agMara'), gone(161, 'AGENT')] as readonly Line[]).map((line) => [CALLBACK, line]);
    const waiting = folded(asEvents([...abandoned, ...asked]));
    expect(lines(waiting.transitions).slice(3)).toEqual([[5, 'WAITING', 35], [43, 'FOLLOWUP_PENDING', null]]);
    expect(waiting.document.row).toMatchObject({ outcome: 'CallbackRequested', finishedAt: null });
    expect(waiting.transitions.at(-1)?.queue).toMatchObject({ id: '101', name: null });
    const talked = folded(asEvents([...abandoned, ...asked, ...dialled, ...answered]));
    expect(lines(talked.transitions).slice(4)).toEqual([[43, 'FOLLOWUP_PENDING', 67], [110, 'OUTBOUND_STARTED', 10], [120, 'TALKING', 30], [150, 'FINISHED', 0]]);
    expect(talked.document.row).toMatchObject({ outcome: 'Handled', direction: 'Inbound' });
    expect(folded(asEvents([...abandoned, ...asked, ...dialled, [CALLBACK, gone(140, 'SYSTEM')]])).document.row.outcome).toBe('CallbackNoAnswer');
    expect(folded(asEvents([...abandoned, ...asked, [CALLBACK, gone(140, 'SYSTEM')]])).document.row.outcome).toBe('CallbackExpired');
  });

  test('what is lost on the way leaves the rest readable', () => {
    // No Created, no PostProcess, no Deleted.
    const { transitions, document } = journeyOf([5, 'InteractionQueued', { ...IN, queueId: 101 }, inSupport], [10, 'InteractionAccepted', { ...mara, ...CONNECTED }], [40, 'InteractionEndPostProcess', mara]);
    expect(lines(transitions)).toEqual([[5, 'STARTED', 0], [5, 'WAITING', 5], [10, 'TALKING', 30], [40, 'FINISHED', 0]]);
    expect(document.row.outcome).toBe('Handled');
    // Nothing of an agent's leaving.
    expect(lines(journeyOf(...BEGIN, gone(40)).transitions)).toEqual([...WAITED, [10, 'TALKING', 30], [40, 'FINISHED', 0]]);
  });
});

// ---- for all ------------------------------------------------------------------------------------------------------------------

describe('totality', () => {
  const EVENTS = [
    'InteractionCreated', 'InteractionQueued', 'InteractionAssigned', 'InteractionRejected', 'InteractionAccepted', 'InteractionCustomerAccepted', 'LineHoldStatus', 'InteractionTransferRequest', 'InteractionParticipantChange',
    'InteractionParticipantRemovedByHost', 'InteractionJoined', 'InteractionUnqueued', 'InteractionQueueTimeout', 'InteractionPostProcess', 'InteractionEndPostProcess', 'InteractionDeassigned', 'InteractionDeleted', 'GuestChatEnd',
  ];
  const MEMBERS = ['interactionGUID', 'direction', 'isOutboundCall', 'isAgentInitiated', 'mediaType', 'resourceType', 'agentId', 'participatingAgents', 'queueId', 'queueList', 'inboundChannelid', 'emailSourceAddress', 'status', 'callState', 'hangupInitiator', 'dispositionCode', 'interactionEventTS', 'msgInfo', 'attachedData'];
  const ATTACHED = ['remotePhoneNum', 'phoneNum', 'callingName', 'nam', 'cha', 'channelName', 'que', 'tenantSkillName', 'tenantName', 'originalInteractionGuid', 'tclSelectedItems', 'outboundTclShortCode', 'type'];
  const anything = fc.oneof(fc.jsonValue(), fc.double(), fc.constantFrom<unknown>(null, 0, '0', '', [], {}, 1e21, -1, 'x'.repeat(300), 'x'.repeat(2000), 'a,b;c', '~~1~~', CALL, VMAIL, true, 'true', ' in '));

  /** Never throws, says JSON and nothing else, and takes its places in order. */
  function holds(line: string): void {
    const { vocabulary, interpreted: { customerFacts, interactionFacts } } = interpret(recorded(line));
    const facts = [...customerFacts, ...interactionFacts];
    expect(vocabulary).toBe('8x8');
    expect(JSON.parse(JSON.stringify(facts))).toStrictEqual(facts);
    expect(facts.map(({ index }) => index).sort((a, b) => a - b)).toEqual(facts.map((_, index) => index));
    for (const fact of facts) {
      expect(Number.isInteger(fact.tie)).toBe(true);
      if (fact.kind === 'unreadable') expect([facts.length, fact.reason]).toEqual([1, expect.stringMatching(/^[A-Za-z]+: [A-Za-z ]+$/)]);
      if ('interaction' in fact) expect(fact.interaction.startsWith('8x8:')).toBe(true);
    }
  }

  test('any JSON under any event gives facts or one unreadable, and never a throw', () => {
    fc.assert(fc.property(fc.constantFrom(...EVENTS, 'ClientCheck'), fc.jsonValue(), fc.boolean(), fc.boolean(), (event, data, inside, timed) => {
      holds(envelope(inside ? { Interaction: data } : data, { type: `8x8.${event}`, ...(timed ? {} : { time: undefined }) }));
    }), { numRuns: 400 });
  });

  test('so does a payload of the known members with anything in them', () => {
    const fields = fc.dictionary(fc.constantFrom(...MEMBERS), anything);
    const attached = fc.dictionary(fc.constantFrom(...ATTACHED), anything);
    fc.assert(fc.property(fc.constantFrom(...EVENTS), fields, attached, fc.constantFrom(CALL, VMAIL, CALLBACK), (event, more, entries, id) => holds(envelope(payload(id, [0, event, more, entries], 1)))), { numRuns: 800 });
  });

  test('G3: the stream in any order, doubled and in any batches gives the same view as all of it at once', () => {
    const all = stream().map(interpreted);
    const whole = new MemoryDocuments(journeys);
    whole.fold(all);
    const order = fc.tuple(fc.shuffledSubarray(all.map((_, i) => i), { minLength: all.length }), fc.array(fc.nat({ max: all.length - 1 }), { maxLength: 10 }), fc.integer({ min: 1, max: 20 }));
    fc.assert(fc.property(order, ([places, again, size]) => {
      const arriving = [...places, ...again].flatMap((i) => all[i] ?? []);
      const view = new MemoryDocuments(journeys);
      for (let from = 0; from < arriving.length; from += size) view.fold(arriving.slice(from, from + size));
      expect(view.snapshot()).toEqual(whole.snapshot());
    }), { numRuns: 30 });
  });

  test('G3: so do any events of a few interactions, however they follow each other', () => {
    const line: fc.Arbitrary<readonly [string, Line]> = fc.record({
      id: fc.constantFrom(CALL, VMAIL, CALLBACK, guid('two')), at: fc.integer({ min: 0, max: 40 }), event: fc.constantFrom(...EVENTS), agentId: fc.constantFrom(undefined, 'agMara', 'agDan'), direction: fc.constantFrom(undefined, 'in', 'out'),
      callState: fc.constantFrom('CS_CONNECTED', 'CS_INPROGRESS'), queueId: fc.constantFrom(undefined, 101, 102), participatingAgents: fc.constantFrom(undefined, 'agMara', 'agMara,agDan'), status: fc.boolean(), link: fc.constantFrom(undefined, CALL, guid('two')),
    }).map(({ id, at, event, link: originalInteractionGuid, ...fields }) => [id, [at / 2, event, fields, { originalInteractionGuid }]]);
    fc.assert(fc.property(fc.array(line, { minLength: 1, maxLength: 30 }), fc.integer({ min: 1, max: 6 }), fc.boolean(), (told, size, backwards) => {
      const all = asEvents(told);
      const limits = { ...LIMITS, transitionChunk: 3 };
      const whole = new MemoryDocuments(journeysWithin(limits));
      whole.fold(all);
      const arriving = backwards ? all.toReversed() : all;
      const view = new MemoryDocuments(journeysWithin(limits));
      for (let from = 0; from < arriving.length; from += size) view.fold(arriving.slice(from, from + size));
      expect(view.snapshot()).toEqual(whole.snapshot());
      for (const key of whole.keys('j')) {
        const { row, transitions } = whole.read(key) as JourneyDocument;
        expect(transitions.every(({ duration }) => duration === null || duration >= 0)).toBe(true);
        expect(row.finishedAt !== null).toBe(transitions.at(-1)?.name === 'FINISHED');
      }
    }), { numRuns: 250 });
  });
});

// ---- through the 8x8 API ----------------------------------------------------------------------------------------------------------

describe('the fixture 8x8-stream.ndjson', () => {
  const ndjson = readFileSync(new URL('8x8-stream.ndjson', FIXTURES), 'utf8').trimEnd().split('\n');

  test('stands as its story tells it, and is read whole', () => {
    expect(ndjson).toEqual(stream());
    expect(ndjson.map((line) => interpret(recorded(line)).vocabulary).every((name) => name === '8x8')).toBe(true);
    expect(ndjson.flatMap((line) => interpreted(line).customerFacts).filter(({ kind }) => kind === 'unreadable')).toEqual([]);
  });

  test('both searches of the 8x8 API answer what the story expects', async () => {
    const views = new MemoryViewStore();
    const world = await SearchWorld.open(async () => ({ views, again: async () => views, dispose: async () => undefined }));
    try {
      await world.fold('acme', ndjson.map(interpreted), 7);
      const server = await world.serve();
      const day = { dateRange: { start: '2026-03-02T00:00:00Z', end: '2026-03-02T23:59:59Z' }, displayTimezone: 'UTC' };
      const rows = await server.walk(JOURNEYS_SEARCH, { ...day, limit: 4 });
      expect(rows.rows.map(({ outcome, interactions }) => [outcome, interactions.map(({ id }: Data) => id).sort()])).toEqual(CALLS.map(({ row, lines: told }) => [row['outcome'], [...new Set(told.map(([id]) => id))].sort()]));
      const timelines = await server.walk(TRANSITIONS_SEARCH, { ...day, filters: [{ name: 'transitions.name', values: ['TRANSFER'] }] });
      const shown = timelines.rows.map(({ transitions }) => transitions.map(({ time, name, duration }: { time: string; name: string; duration: number }) => [Date.parse(time) / 1000 - START_S, name, duration / 1000]));
      expect(shown).toEqual(CALLS.filter(({ row }) => row['transfersCompleted'] === 1).map(({ transitions }) => transitions));
      const held = await server.walk(TRANSITIONS_SEARCH, { ...day, filters: [{ name: 'transitions.queue.name', values: ['Billing'] }, { name: 'tenantIds', values: [TENANT] }] });
      expect(held.total).toBe(1);
    } finally { await world.close(); }
  });
});

// ---- as the README shows it ---------------------------------------------------------------------------------------------------------

describe('the section of schemas/README.md', () => {
  const section = /\n## 8x8 Event Streaming\n([^]*?)\n## /.exec(readme())?.[1] ?? '';
  const fenced = (language: string): string => new RegExp(`\n\`\`\`${language}\n([^]*?)\n\`\`\``).exec(section)?.[1] ?? '';

  test('its event is read as the section says', () => {
    const example = JSON.parse(fenced('json')) as Data;
    expect(said(JSON.stringify(example)).map(({ kind }) => kind)).toEqual(['identifiers', 'started', 'waiting']);
    expect(interpreted(JSON.stringify({ ...example, time: undefined })).at).toBe(interpreted(JSON.stringify(example)).at);
  });

  /** Speaks as much WebSocket as the bridge needs: sends the frames, and gives back what is acknowledged. */
  function pulsar(request: IncomingMessage, frames: readonly string[], acknowledged: (id: string) => void): void {
    const { socket } = request;
    const accept = hash('sha1', `${String(request.headers['sec-websocket-key'])}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`, 'base64');
    socket.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`);
    for (const frame of frames) {
      const bytes = Buffer.from(frame);
      socket.write(Buffer.concat([Buffer.from([0x81, 126, bytes.length >> 8, bytes.length & 255]), bytes]));
    }
    let received = Buffer.alloc(0);
    socket.on('data', (some: Buffer) => {
      received = Buffer.concat([received, some]);
      // A client's short frame: two bytes, four of a mask, the text.
      for (let length = (received[1] ?? 0) & 127; received.length >= 6 + length && received.length > 1; length = (received[1] ?? 0) & 127) {
        const masked = received.subarray(6, 6 + length).map((byte, i) => byte ^ (received[2 + (i % 4)] ?? 0));
        acknowledged((JSON.parse(Buffer.from(masked).toString()) as { messageId: string }).messageId);
        received = received.subarray(6 + length);
      }
    });
  }

  test('its bridge publishes the stream in order, once more where it was turned away, and acknowledges what is recorded', async () => {
    const { lines: told, transitions } = CALLS[0] ?? { lines: [], transitions: [] };
    const payloads = [...told.map(([id, line], i) => JSON.stringify(payload(id, line, i + 1))), JSON.stringify({ AgentStatusChange: { agentId: 'agMara', newState: 5 } }), '{"broken'];
    const frames = payloads.map((text, i) => JSON.stringify({ messageId: `CAEQ${String(i)}`, payload: Buffer.from(text).toString('base64'), publishTime: '2026-03-02T09:05:00Z' }));
    const published: RecordedCloudEvent[] = [];
    const seen: unknown[] = [];
    const acknowledged: string[] = [];
    const all = Promise.withResolvers<undefined>();
    let turnedAway = false;
    const server = createServer((request, response) => {
      void request.toArray().then((chunks) => {
        if (!turnedAway) { turnedAway = true; response.writeHead(503).end(); return; }
        const decoded = decodeMessage({ headers: request.headers, body: Buffer.concat(chunks as Buffer[]) }, { binding: 'http', maxEventBytes: 65_536 });
        if (decoded.kind === 'one') published.push(stored(decoded.decoded));
        seen.push([request.method, request.url, request.headers['x-api-key'], Buffer.concat(chunks as Buffer[]).toString()]);
        response.writeHead(200).end('{}');
      }).catch(all.reject);
    });
    server.on('upgrade', (request) => {
      seen.push([request.url, request.headers['x-api-key']]);
      pulsar(request, frames, (id) => { if (acknowledged.push(id) === frames.length) all.resolve(undefined); });
    });
    await once(server.listen(0, '127.0.0.1'), 'listening');
    const at = `127.0.0.1:${String((server.address() as AddressInfo).port)}`;
    const environment = { STREAM: `ws://${at}/ws/v2/consumer/all/throughline`, STREAM_KEY: 'key of 8x8', TENANT, THROUGHLINE: `http://${at}`, THROUGHLINE_KEY: 'key of ours' };
    const bridge = spawn(process.execPath, ['--input-type=module', '-e', fenced('js')], { env: environment, stdio: ['ignore', 'ignore', 'pipe'] });
    let errors = '';
    bridge.stderr.setEncoding('utf8').on('data', (text: string) => { errors += text; });
    const closed = once(bridge, 'close');
    try {
      await Promise.race([all.promise, closed.then(([code]) => { throw new Error(`the bridge ended with ${String(code)}: ${errors}`); })]);
      expect(seen[0]).toEqual(['/ws/v2/consumer/all/throughline', 'key of 8x8']);
      expect(seen.slice(1)).toEqual(payloads.slice(0, told.length).map((text) => ['POST', '/events', 'key of ours', text]));
      expect(acknowledged).toEqual(frames.map((_, i) => `CAEQ${String(i)}`));
      expect(lines(folded(published.map((one) => interpret(one).interpreted)).transitions)).toEqual(transitions);
      expect(published.map(({ event: { time } }) => time)).toEqual(asEvents(told).map((one) => one.at));
      server.closeAllConnections();
    } finally {
      bridge.kill();
      await closed;
      server.close();
      server.closeAllConnections();
    }
    expect(errors).toMatch(/^CAEQ0 503\nCAEQ11 [^\n]*JSON[^\n]*\n$/);
  });
});
