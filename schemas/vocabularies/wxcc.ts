// Webex Contact Center's webhook events, as they come through CJDS or straight from a subscription
// (webex-cjds-facts.md 2.2, 2.3 and 3). Order and uniqueness are not theirs to promise: each event is read on its own.
//
// Read from what they really send (test/fixtures/wxcc-captured.ndjson): `createdTime` is when the event was made, on
// every type, a few hundred milliseconds before the `time` that the pipeline stamps. So it is the occurrence where `time`
// is missing, and where two events share a `time` it tells which came first.
import type { Agent, Contact, Direction, Endpoint, FactBody, Identifier, Instant, InteractionFactBody, InteractionId, Medium, Place } from '../facts.ts';
import { normaliseIdentity } from '../identity.ts';
import type { RecordedCloudEvent } from '../recorded.ts';
import { instantOf, msOf, parseInstant } from '../time.ts';
import type { Members, Vocabulary } from './vocabulary.ts';
import { MAX_ID_LENGTH, exactJson, interactionId, medium, members, text, unreadable } from './vocabulary.ts';

const NAME = 'wxcc';
const PLATFORM = 'Contact Center';
/** A task knows its customer under no id; there is one. */
const CUSTOMER = 'customer';
/** Whoever is consulted is known by a dialled number or by nothing. */
const CONSULTED = 'consulted';

/** A task event read once: what the cases below need of it. */
interface Task {
  readonly event: RecordedCloudEvent;
  readonly data: Members;
  readonly interaction: InteractionId;
  readonly direction: Direction | null;
  readonly medium: Medium | null;
  /** Null where the event names none. */
  readonly queue: Place | null;
  readonly agent: Agent | null;
  readonly callback: boolean;
}
type Cases = ReadonlyMap<string, (task: Task) => readonly InteractionFactBody[]>;

// ---- reading ------------------------------------------------------------------------------------------------------------

/** An id of `data`, first name first; numbers are spelt as they came. Null when there is none. */
function idOf(event: RecordedCloudEvent, data: Members, ...names: readonly string[]): string | null {
  for (const name of names) {
    const value = data[name];
    if (typeof value === 'string') return value.length > MAX_ID_LENGTH ? null : value.trim();
    if (typeof value !== 'number') continue;
    if (Number.isSafeInteger(value)) return String(value);
    const exact = members(exactJson(event))?.[name];
    return typeof exact === 'string' && exact.length <= MAX_ID_LENGTH ? exact : null;
  }
  return null;
}

/** Ids that the newer format moves into `additionalFields`. Null when there is none, or an empty one. */
function eitherId(event: RecordedCloudEvent, data: Members, name: string): string | null {
  const own = idOf(event, data, name);
  if (own !== null && own !== '') return own;
  const more = members(data['additionalFields']);
  return more === null ? null : text(more[name]);
}

/** Nothing that a view shows of Webex's is longer; what is stands in the log and the history. */
const MAX_TEXT = 1000;

/** The first of the names that holds a text, in `data` itself or in the newer format's `additionalFields`. */
function said(data: Members, ...names: readonly string[]): string | null {
  const more = members(data['additionalFields']);
  for (const name of names) {
    const found = text(data[name]) ?? (more === null ? null : text(more[name]));
    if (found !== null && found.length <= MAX_TEXT) return found;
  }
  return null;
}

const DIRECTIONS: ReadonlyMap<string, Direction> = new Map([['inbound', 'Inbound'], ['outbound', 'Outbound'], ['internal', 'Internal']]);
/** Where Webex's word is not the 8x8 data's. */
const CHANNELS: ReadonlyMap<string, Medium> = new Map([['telephony', 'Phone'], ['workitem', 'Workitem']]);

function channelOf(data: Members): Medium | null {
  const word = said(data, 'channelType', 'channel');
  return word === null || word.length > 64 ? null : (CHANNELS.get(word.toLowerCase()) ?? medium(word));
}

function queueOf(event: RecordedCloudEvent, data: Members): Place | null {
  const id = eitherId(event, data, 'queueId');
  const name = said(data, 'queueName');
  if (id === null && name === null) return null;
  return name === null ? { id } : { id, name };
}

function agentOf(event: RecordedCloudEvent, data: Members): Agent | null {
  const id = eitherId(event, data, 'agentId');
  if (id === null) return null;
  const name = said(data, 'agentName');
  const group = { id: said(data, 'teamId'), name: said(data, 'teamName') };
  const site = { id: said(data, 'siteId'), name: said(data, 'siteName') };
  return {
    id, type: 'HUMAN', ...(name === null ? {} : { name }),
    ...(group.id === null && group.name === null ? {} : { group }), ...(site.id === null && site.name === null ? {} : { site }),
  };
}

/** Milliseconds since 1970 between 2000 and 2100, as number, digits or RFC 3339; anything else is no time. */
function msFrom(value: unknown): number | null {
  const instant = typeof value === 'string' && !/^[0-9]+$/.test(value) ? parseInstant(value) : null;
  const ms = instant === null ? Number(typeof value === 'string' ? value : typeof value === 'number' ? value : NaN) : msOf(instant);
  return ms >= 946_684_800_000 && ms < 4_102_444_800_000 ? Math.floor(ms) : null;
}

function madeAt(event: RecordedCloudEvent): number | null {
  return msFrom(members(event.json())?.['createdTime']) ?? msFrom(event.event.attributes['eventtime']) ?? msFrom(event.event.attributes['comciscotimestamp']);
}

function occurredAt(event: RecordedCloudEvent): Instant | null {
  const ms = madeAt(event);
  return ms === null ? null : instantOf(ms);
}

/** How long before the pipeline's stamp the event was made, as a negative number: 0 for an event that does not say, as if it was made when it was stamped. */
function tieOf(event: RecordedCloudEvent): number {
  const { time } = event.event;
  const ms = time === null ? null : madeAt(event);
  return time === null || ms === null ? 0 : ms - msOf(time);
}

// ---- the customer ---------------------------------------------------------------------------------------------------------

/**
 * The address that is the customer's own: where an inbound task came from, where an outbound one went. The other end is a
 * DNIS, a mailbox or an entry point of the contact centre and never evidence. Null when it is no address of its channel:
 * real outbound chats carry an entry point's name where the customer's address belongs.
 */
function customerOf(task: Task): Identifier | null {
  if (task.direction !== 'Inbound' && task.direction !== 'Outbound') return null;
  const value = said(task.data, task.direction === 'Inbound' ? 'origin' : 'destination');
  if (value === null) return null;
  if (value.includes('@') && !/^sips?:/i.test(value)) return { type: 'email', value };
  if (task.medium === 'Phone' || task.medium === 'Sms') return /^\+?[0-9 ().-]{5,24}$/.test(value) ? { type: 'phone', value } : null;
  return task.medium === 'Social' && task.direction === 'Inbound' ? { type: 'socialId', value } : null;
}

function identifiers(task: Task): readonly FactBody[] {
  const own = customerOf(task);
  if (own === null) return [];
  const of = task.event.identity;
  const known = normaliseIdentity(of.type, of.value);
  const named = normaliseIdentity(own.type, own.value);
  return known.type === named.type && known.value === named.value ? [] : [{ kind: 'identifiers', identifiers: [own] }];
}

function contactOf(task: Task): Contact {
  const of = task.event.identity;
  const own = customerOf(task) ?? (of.evidence ? of : null);
  const name = said(task.data, 'customerName');
  return {
    ...(name === null ? {} : { name }),
    ...(own?.type === 'phone' ? { phoneNumber: own.value } : {}), ...(own?.type === 'email' ? { email: own.value } : {}),
  };
}

/** Where an inbound task entered: a number, a mailbox or an entry point's name stands in `destination`. */
function entryPointOf(task: Task): Endpoint | null {
  if (task.direction !== 'Inbound') return null;
  const at = said(task.data, 'destination');
  const id = said(task.data, 'entryPointId', 'epId');
  const name = said(task.data, 'entrypointName', 'entryPointName');
  if (at === null && id === null && name === null) return null;
  const address = at === null ? {} : task.medium === 'Phone' || task.medium === 'Sms' ? { phoneNumber: at } : at.includes('@') ? { email: at } : { name: at };
  return { type: 'cc-channel', ...address, ...(id === null ? {} : { id }), ...(name === null ? {} : { name }) };
}

function started(task: Task): InteractionFactBody {
  const entryPoint = entryPointOf(task);
  const tenant = text(task.event.event.attributes['comciscoorgid']) ?? said(task.data, 'orgId');
  return {
    kind: 'started', platform: PLATFORM, contact: contactOf(task),
    ...(task.direction === null ? {} : { direction: task.direction }), ...(task.medium === null ? {} : { medium: task.medium }),
    ...(entryPoint === null ? {} : { entryPoint }), ...(tenant === null ? {} : { tenant }),
  };
}

// ---- tasks ----------------------------------------------------------------------------------------------------------------

const inQueue = (task: Task): { queue?: Place } => (task.queue === null ? {} : { queue: task.queue });
const byAgent = (task: Task): { agents?: readonly Agent[] } => (task.agent === null ? {} : { agents: [task.agent] });

/** A call out is dialled from its first event; a courtesy callback waits first for an agent to take it. */
function opened(task: Task): readonly InteractionFactBody[] {
  if (task.callback) return [{ kind: 'followUp', reason: 'callback', ...inQueue(task) }];
  if (task.direction === 'Outbound' && task.medium === 'Phone') return [{ kind: 'dialling', ...byAgent(task), ...inQueue(task) }];
  return task.direction === 'Inbound' ? [{ kind: 'joined', role: 'customer', participantId: CUSTOMER }] : [];
}

function queued(task: Task): readonly InteractionFactBody[] {
  return [task.callback ? { kind: 'followUp', reason: 'callback', ...inQueue(task) } : { kind: 'waiting', ...inQueue(task), arrival: 'queued' }];
}

/** An agent is being offered the task. That is no dial: on a callback the customer is called once the agent has taken it. An agent's own event says neither direction nor callback: the fold knows. */
function offered(task: Task): readonly InteractionFactBody[] {
  return task.callback || task.direction === 'Outbound' ? [] : [{ kind: 'waiting', ...inQueue(task), ...byAgent(task), arrival: 'offered' }];
}

/** Whoever was called is there from now on; whoever called was from the start. */
function answered(task: Task): readonly InteractionFactBody[] {
  const talking: InteractionFactBody = { kind: 'talking', ...inQueue(task), ...byAgent(task) };
  return task.callback || task.direction === 'Outbound' ? [{ kind: 'joined', role: 'customer', participantId: CUSTOMER }, talking] : [talking];
}

function ended(task: Task): readonly InteractionFactBody[] {
  const by = said(task.data, 'terminatingParty', 'terminationType')?.toLowerCase();
  const reports = described(task);
  // Only these two are the end: after a RONA the platform says `ended` by System of a task that is queued again.
  if (by === 'customer' || by === 'agent') return [...reports, { kind: 'dropped', role: 'customer', participantId: CUSTOMER }, { kind: 'ended', by, final: true }];
  return [...reports, { kind: 'ended', ...(by === 'system' ? { by } : {}), final: false }];
}

/** A call out that reached nobody was dialled all the same; whether the platform tries again it does not say. */
function failed(task: Task): readonly InteractionFactBody[] {
  const dialled: readonly InteractionFactBody[] = task.callback ? [{ kind: 'dialling', ...inQueue(task) }] : [];
  return [...dialled, { kind: 'ended', by: 'system', final: false }];
}

function consulted(task: Task): readonly InteractionFactBody[] {
  const name = said(task.data, 'destination');
  return [{ kind: 'joined', role: 'agent', participantId: CONSULTED, ...(name === null ? {} : { name }) }];
}

/** The agent who conferenced somebody in leaves the customer to them. */
function handedOver(task: Task): readonly InteractionFactBody[] {
  const to = said(task.data, 'destination');
  const externalNumber = to !== null && /^\+?[0-9 ().-]{7,24}$/.test(to) ? to : null;
  return [{ kind: 'transferred', to: externalNumber === null ? {} : { externalNumber }, ...(task.agent === null ? {} : { from: { agents: [task.agent] } }) }];
}

function wrappedUp(task: Task): readonly InteractionFactBody[] {
  const code = said(task.data, 'wrapUpAuxCodeName', 'wrapupName');
  return [{ kind: 'wrappedUp', ...byAgent(task), ...(code === null ? {} : { wrapUpCodes: [code] }) }];
}

const REPORTED = ['overallSentiment', 'customerSentiment', 'agentSentiment', 'aggCustomerScore', 'aggAgentScore', 'aggSessionScore', 'csatScore', 'customerSentimentScore'];

/** What Webex's analysis found, and why the customer called. */
function described(task: Task): readonly InteractionFactBody[] {
  const data: Record<string, string> = {};
  for (const name of REPORTED) {
    const value = task.data[name];
    if (typeof value === 'number' || (typeof value === 'string' && value !== '' && value.length <= MAX_TEXT)) data[name] = String(value);
  }
  const topic = said(task.data, 'contactReason');
  if (topic === null && Object.keys(data).length === 0) return [];
  return [{ kind: 'described', ...(topic === null ? {} : { topics: [topic] }), ...(Object.keys(data).length === 0 ? {} : { data }) }];
}

const nothing = (): readonly InteractionFactBody[] => [];

const TASKS: Cases = new Map([
  ['task:new', opened],
  ['task:parked', queued],
  ['task:connect', offered],
  ['task:connected', answered],
  ['task:on-hold', (task: Task): readonly InteractionFactBody[] => [{ kind: 'held', participantId: CUSTOMER, ...byAgent(task) }]],
  ['task:hold-done', (task: Task): readonly InteractionFactBody[] => [{ kind: 'resumed', participantId: CUSTOMER, ...byAgent(task) }]],
  ['task:consulting', consulted],
  ['task:conferencing', consulted],
  ['task:consult-done', (): readonly InteractionFactBody[] => [{ kind: 'dropped', role: 'agent', participantId: CONSULTED }]],
  ['task:conference-done', (): readonly InteractionFactBody[] => [{ kind: 'dropped', role: 'agent', participantId: CONSULTED }]],
  ['task:conference-transferred', handedOver],
  ['task:ended', ended],
  ['task:failed', failed],
  ['task:origin-updated', nothing],
  ['task:wrapup-done', wrappedUp],
  ['task:closed', (task: Task): readonly InteractionFactBody[] => [...described(task), { kind: 'ended', final: true }]],
  ['task-message:appended', nothing],
  ['task-message:append-failed', nothing],
  ['empath:data', described],
  // A recording is there to be fetched: the conversation is over, whatever `task:ended` said of it.
  ['capture:available', (): readonly InteractionFactBody[] => [{ kind: 'ended', final: true }]],
]);

// ---- agents ---------------------------------------------------------------------------------------------------------------

/** Webex says of a supervisor who listens or speaks in only what a state or a profile's name shows. */
const SUPERVISING: ReadonlySet<string> = new Set(['monitoring', 'monitored', 'whispering', 'barged-in', 'barge-in']);

function joined(task: Task): readonly InteractionFactBody[] {
  const { agent } = task;
  if (agent === null) return [];
  const profile = said(task.data, 'profileType', 'agentRole') ?? '';
  const supervisor = SUPERVISING.has(stateOf(task)) || profile.toLowerCase().includes('supervisor');
  return [{ kind: 'joined', role: supervisor ? 'supervisor' : 'agent', participantId: agent.id, agent, ...(typeof agent.name === 'string' ? { name: agent.name } : {}) }];
}

function left(task: Task): readonly InteractionFactBody[] {
  return task.agent === null ? [] : [{ kind: 'dropped', participantId: task.agent.id }];
}

function connected(task: Task): readonly InteractionFactBody[] {
  const whoJoined = joined(task);
  // Whoever only listens in does not handle the customer.
  if (whoJoined.some((fact) => fact.kind === 'joined' && fact.role === 'supervisor')) return whoJoined;
  // The agent's leg of a call: a customer who is called is there from `task:connected` on.
  return [...whoJoined, { kind: 'talking', ...byAgent(task), ...inQueue(task), ...(task.medium === null || task.medium === 'Phone' ? { taken: 'ringing' } : {}) }];
}

function stateOf(task: Task): string {
  return (said(task.data, 'currentState') ?? '').toLowerCase();
}

const STATES: Cases = new Map([
  ['ringing', offered],
  ['connected', connected],
  ['on-hold', (task: Task): readonly InteractionFactBody[] => [{ kind: 'held', participantId: CUSTOMER, ...byAgent(task) }]],
  ['hold-done', (task: Task): readonly InteractionFactBody[] => [{ kind: 'resumed', participantId: CUSTOMER, ...byAgent(task) }]],
  ['consulting', joined],
  ['conferencing', joined],
  ...[...SUPERVISING].map((state) => [state, joined] as const),
  // Both ends of a consult or conference report that it is done: neither says who left. Wrap-up and what follows it do.
  ['wrapup', left],
  ['wrapup-done', (task: Task): readonly InteractionFactBody[] => [...left(task), ...wrappedUp(task)]],
  ['available', left],
  ['idle', left],
]);

const AGENT_TYPES: ReadonlySet<string> = new Set(['agent:state_change', 'agent:channel_state_change', 'agent:routed']);
/** About an agent and no task: known, and nothing is said of a customer. */
const WITHOUT_TASK: ReadonlySet<string> = new Set(['agent:login', 'agent:logout', 'agent:channelType_state_change']);

function ofState(task: Task): readonly InteractionFactBody[] {
  return task.event.event.type === 'agent:routed' ? offered(task) : (STATES.get(stateOf(task))?.(task) ?? []);
}

// ---- the vocabulary -------------------------------------------------------------------------------------------------------

function taskOf(event: RecordedCloudEvent, data: Members, id: string): Task {
  return {
    event, data, interaction: interactionId(NAME, id),
    direction: DIRECTIONS.get(said(data, 'direction')?.toLowerCase() ?? '') ?? null,
    medium: channelOf(data), queue: queueOf(event, data), agent: agentOf(event, data),
    callback: said(data, 'outboundType')?.toUpperCase().includes('CALLBACK') ?? false,
  };
}

function named(task: Task): readonly FactBody[] {
  const name = said(task.data, 'customerName');
  return name === null || !(task.event.event.type === 'task:new' || task.event.event.type === 'task:ended') ? [] : [{ kind: 'named', name }];
}

/**
 * What a task's own event says beyond its matter: direction, medium, contact and entry point stand in every one of them, so
 * that a task whose `task:new` never came is still known for what it is. A recording's event has none of these.
 */
function aboutTask(task: Task, tie: number): FactBody[] {
  if (task.event.event.type === 'capture:available') return [];
  const customer = [...identifiers(task), ...named(task)].map((body) => ({ ...body, tie }));
  return [...customer, { ...started(task), interaction: task.interaction, tie }];
}

function facts(event: RecordedCloudEvent): readonly FactBody[] {
  const { type } = event.event;
  if (WITHOUT_TASK.has(type)) return [];
  const data = members(event.json());
  if (data === null) return unreadable('data: no JSON object');
  const id = idOf(event, data, 'taskId', 'interactionId');
  const say = TASKS.get(type);
  // An agent goes idle without a task; a task without an id, or an id that is none, is data of another shape.
  if (id === null) return say === undefined && (data['taskId'] ?? data['interactionId'] ?? null) === null ? [] : unreadable('taskId: neither taskId nor interactionId is an id');
  const task = taskOf(event, data, id);
  if (say === undefined && task.agent === null && id.trim() !== '') return unreadable('agentId: no id');
  const tie = tieOf(event);
  const found: FactBody[] = say === undefined ? [] : aboutTask(task, tie);
  for (const body of (say ?? ofState)(task)) found.push({ ...body, interaction: task.interaction, tie });
  return found;
}

export const wxcc: Vocabulary = {
  name: NAME,
  knows: ({ event: { type } }) => TASKS.has(type) || AGENT_TYPES.has(type) || WITHOUT_TASK.has(type),
  facts,
  occurredAt,
};
