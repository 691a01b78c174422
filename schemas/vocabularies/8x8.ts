// 8x8 Contact Center's event stream (Event Streaming, and the older Streaming API with the same payloads), wrapped in
// CloudEvents as schemas/README.md shows.
//
// An event is known by its type alone, `8x8.<event>`, as everywhere: what another platform's event holds under
// `Interaction` is its own affair. What it says is read from `data`, where the event names itself; the type stands in
// where it does not.
//
// The stream says what happened to a call, and leaves out what somebody who had followed it would know: whether a queue is
// where a script or an agent sent the customer, whose conversation a hold interrupts, whether this was the last agent. A
// vocabulary reads one event on its own, so it says exactly that much (`arrival`, `taken`, `open`, `last`, `leg`), and the
// fold, which knows what was before, tells the rest.
//
// 8x8 publishes the payload of few of these events, and none of its types is fixed: `true` may be "true", an id a number.
// So every member is optional, and all are compared as text.
import type { Agent, Contact, Direction, Endpoint, FactBody, Identifier, Instant, InteractionFactBody, InteractionId, Medium, Place } from '../facts.ts';
import { normaliseIdentity } from '../identity.ts';
import type { RecordedCloudEvent } from '../recorded.ts';
import { instantOf } from '../time.ts';
import type { Members, Vocabulary } from './vocabulary.ts';
import { MAX_ID_LENGTH, exactJson, interactionId, medium, members, text, unreadable } from './vocabulary.ts';

const NAME = '8x8';
const PREFIX = '8x8.';
const PLATFORM = 'Contact Center';
/** An interaction knows its customer under no id; there is one. */
const CUSTOMER = 'customer';
/** Nothing that a view shows of 8x8's is longer; what is stands in the log and the history. */
const MAX_TEXT = 1000;
/** No honest event names more agents. */
const MAX_AGENTS = 100;

/** An event of an interaction read once: what the cases below need of it. */
interface Told {
  readonly event: RecordedCloudEvent;
  /** A member of the payload, and an entry of its `attachedData`, as text. */
  readonly said: (name: string) => string | null;
  readonly attached: (key: string) => string | null;
  readonly interaction: InteractionId;
  /** What the id tells: the medium's word and the tenant. */
  readonly word: string | null;
  readonly tenant: string | null;
  readonly direction: Direction | null;
  readonly agent: Agent | null;
  /** What kind of work it is, where that is not a conversation. */
  readonly followUp: 'voicemail' | 'callback' | null;
  /** The interaction that this one goes on with. */
  readonly origin: InteractionId | null;
}
type Says = (told: Told) => readonly InteractionFactBody[];

// ---- reading ------------------------------------------------------------------------------------------------------------

/** Text, or what text becomes on its way: a number where it reads as one, a boolean where it reads as one. */
function asText(value: unknown): string | null {
  const said = typeof value === 'number' || typeof value === 'boolean' ? String(value) : text(value);
  return said === null || said.length > MAX_TEXT ? null : said;
}

/** `data` with or without its wrapper, which is called `Interaction` wherever it is known. Null where data is no object. */
function payloadOf(json: unknown): Members | null {
  const data = members(json);
  if (data === null || 'event' in data || 'interactionGUID' in data) return data;
  const names = Object.keys(data);
  return members(data['Interaction'] ?? (names.length === 1 ? data[names[0] ?? ''] : null)) ?? data;
}

/** One entry may stand without its list around it. */
function attachedTo(payload: Members): readonly Members[] {
  const list: unknown = members(payload['attachedData'])?.['attachedDatum'];
  return (Array.isArray(list) ? list : [list]).map(members).filter((entry) => entry !== null);
}

function valuesOf(payload: Members): readonly unknown[] {
  return [...Object.values(payload), ...attachedTo(payload).map((entry) => entry['attachedDataValue'])];
}

/** The payload, no id in it rounded: only where a number is too long is it read again, by its own spelling. */
function exactPayload(event: RecordedCloudEvent): Members | null {
  const payload = payloadOf(event.json());
  const rounded = payload !== null && valuesOf(payload).some((value) => typeof value === 'number' && Number.isInteger(value) && !Number.isSafeInteger(value));
  return rounded ? payloadOf(exactJson(event)) : payload;
}

function attachedTexts(payload: Members): ReadonlyMap<string, string> {
  const found = new Map<string, string>();
  for (const { attachedDataKey: key, attachedDataValue } of attachedTo(payload)) {
    const value = asText(attachedDataValue);
    if (typeof key === 'string' && value !== null && !found.has(key)) found.set(key, value);
  }
  return found;
}

/** `InteractionQueued`, `DeAssigned`, `Interaction Hold`: one name, however a page or a version spells it. */
function eventName(payload: Members | null, type: string): string {
  const name = text(payload?.['event']) ?? type.slice(PREFIX.length);
  return name.toLowerCase().replaceAll(/[ _-]/g, '').replace(/^interaction/, '');
}

/** A day in the years 2000 to 2099, in milliseconds since 1970: a missing time, or 0, is not 1970. */
function msFrom(value: unknown, unit: number): number | null {
  const ms = Number(asText(value) ?? NaN) * unit;
  return ms >= 946_684_800_000 && ms < 4_102_444_800_000 ? Math.floor(ms) : null;
}

function publishedAt(payload: Members | null): number | null {
  return msFrom(members(payload?.['msgInfo'])?.['timestamp'], 1);
}

/** Never `eventTS`, which is the first offer's on every event of the interaction. */
function occurredAt(event: RecordedCloudEvent): Instant | null {
  const payload = payloadOf(event.json());
  const ms = msFrom(payload?.['interactionEventTS'], 1000) ?? publishedAt(payload);
  return ms === null ? null : instantOf(ms);
}

// ---- what an interaction's event says ------------------------------------------------------------------------------------

/** Creation time, something random, medium, a number, tenant. The random part and the tenant may hold hyphens: it is never split at them. */
const GUID = /^int-[0-9a-f]+-.+?-(phone|chat|email|vmail|callback)-[0-9]+-(.+)$/i;

const DIRECTIONS: ReadonlyMap<string, Direction> = new Map([['in', 'Inbound'], ['inbound', 'Inbound'], ['out', 'Outbound'], ['outbound', 'Outbound']]);

const NONE = /^(n\/a|null|none|unknown|undefined|false|true|0|-)?$/i;
/** What stands where there is nothing to be said. */
const isNothing = (value: string): boolean => NONE.test(value.trim());

/** Null where the event gives no sign of it, as some do. */
function directionOf(said: Told['said']): Direction | null {
  const direction = DIRECTIONS.get(said('direction')?.toLowerCase() ?? '');
  if (direction !== undefined) return direction;
  const outbound = said('isOutboundCall')?.toLowerCase();
  const channel = said('inboundChannelid')?.toLowerCase() ?? null;
  if (outbound === 'true' || channel === 'n/a' || !isNothing(said('outboundCampaignid') ?? '0')) return 'Outbound';
  return outbound === 'false' || channel !== null ? 'Inbound' : null;
}

const RESOURCES: ReadonlyMap<string, Medium> = new Map([['0', 'Phone'], ['1', 'Email'], ['2', 'Chat'], ['3', 'Sms'], ['4', 'Video']]);
/** Work on a call that is none itself. */
const CALLS = /voice|vmail|callback/i;

/** `mediaType` calls a text message a chat and a video call a phone call; `resourceType` does not. An id that says chat may be either, so it is not believed. */
function mediumOf({ said, word }: Told): Medium | null {
  const resource = RESOURCES.get(said('resourceType') ?? '');
  if (resource === 'Sms' || resource === 'Video') return resource;
  const type = said('mediaType');
  if (type !== null && type.length <= 64) return CALLS.test(type) ? 'Phone' : medium(type);
  if (resource !== undefined) return resource;
  return word === 'phone' || word === 'vmail' || word === 'callback' ? 'Phone' : word === 'email' ? 'Email' : null;
}

/** By another id only where that is all there is. */
function agentOf(said: Told['said']): Agent | null {
  const id = said('agentId') ?? said('agentGUID');
  return id === null || id.length > MAX_ID_LENGTH ? null : { id };
}

/** Null where it is not said who is there. */
function participantsOf({ said }: Told): readonly Agent[] | null {
  const ids = (said('participatingAgents') ?? '').split(/[,;]/).map((id) => id.trim()).filter((id) => id !== '' && id.length <= MAX_ID_LENGTH);
  return ids.length === 0 ? null : [...new Set(ids)].slice(0, MAX_AGENTS).map((id) => ({ id }));
}

/** `que` holds the queue's number in the second or the last of four places. */
function queueIdOf({ said, attached }: Told): string | null {
  const parts = attached('que')?.split('~~') ?? [];
  const number = [parts[1], parts[3]].find((part) => part !== undefined && /^[0-9]+$/.test(part));
  const list = said('queueList');
  const id = said('queueId') ?? (list === null || /[,;]/.test(list) ? null : list) ?? number ?? null;
  return id === null || id === '0' || id.length > MAX_ID_LENGTH ? null : id;
}

function queueOf(told: Told): Place | null {
  const id = queueIdOf(told);
  const name = told.attached('tenantSkillName');
  if (id === null && name === null) return null;
  return name === null ? { id } : { id, name };
}

const inQueue = (told: Told): { queue?: Place } => { const queue = queueOf(told); return queue === null ? {} : { queue }; };
/** Beside the agent: a name without an id would be another queue than the one in which it waits. */
const ofQueue = (told: Told): { queue?: Place } => { const queue = queueOf(told); return queue?.id == null ? {} : { queue }; };
const byAgent = ({ agent }: Told): { agents?: readonly Agent[] } => (agent === null ? {} : { agents: [agent] });

// ---- the customer ---------------------------------------------------------------------------------------------------------

const NUMBER = /^\+?[0-9 ().-]{5,24}$/;

/** The call that an agent makes to another one from within a call: its other end is no customer. */
function isConsult({ said, origin }: Told): boolean {
  return origin !== null && said('isAgentInitiated')?.toLowerCase() === 'true';
}

/** What is the customer's own. The number with its country goes before the one as it was dialled, which may be national: both would be two people. */
function customersOwn(told: Told): readonly Identifier[] {
  const { said, attached, direction } = told;
  if (isConsult(told) || (direction === 'Outbound' && said('isExternal')?.toLowerCase() === 'false')) return [];
  const number = [attached('remotePhoneNum'), attached('phoneNum'), attached('pho')].find((one) => one !== null && NUMBER.test(one)) ?? null;
  // Where a message goes out, its source is a mailbox of the contact centre.
  const address = direction === 'Outbound' ? null : said('emailSourceAddress');
  return [
    ...(number === null ? [] : [{ type: 'phone', value: number }]),
    ...(address?.includes('@') === true ? [{ type: 'email', value: address }] : []),
  ];
}

/** A caller without a name is called by the number. */
function nameOf(told: Told): string | null {
  if (isConsult(told)) return null;
  return ['callingName', 'remoteCallingName', 'nam'].map(told.attached).find((name) => name !== null && !/^[+0-9 ().-]+$/.test(name)) ?? null;
}

function identifiers(told: Told, own: readonly Identifier[]): readonly FactBody[] {
  const known = normaliseIdentity(told.event.identity.type, told.event.identity.value);
  const others = own.filter(({ type, value }) => {
    const named = normaliseIdentity(type, value);
    return known.type !== named.type || known.value !== named.value;
  });
  return others.length === 0 ? [] : [{ kind: 'identifiers', identifiers: others }];
}

function contactOf(told: Told, own: readonly Identifier[]): Contact {
  const of = told.event.identity;
  const all = of.evidence && !isConsult(told) ? [...own, of] : own;
  const name = nameOf(told);
  const phone = all.find(({ type }) => type === 'phone');
  const email = all.find(({ type }) => type === 'email');
  return { ...(name === null ? {} : { name }), ...(phone === undefined ? {} : { phoneNumber: phone.value }), ...(email === undefined ? {} : { email: email.value }) };
}

// ---- how it began -----------------------------------------------------------------------------------------------------------

/** The channel that an inbound interaction came in by; of a call it is a number. */
function entryPointOf(told: Told): Endpoint | null {
  const { said, attached, direction, tenant } = told;
  const channel = attached('cha');
  const id = [said('inboundChannelid'), attached('channelId'), channel].find((one) => one !== null && !isNothing(one)) ?? null;
  const name = attached('channelName');
  // Of what does not say its direction the fold may find it out; another leg's channel is not where the customer came in.
  const isInbound = direction === 'Inbound' || (direction === null && told.origin === null);
  if (!isInbound || (id === null && name === null) || (id?.length ?? 0) > MAX_ID_LENGTH) return null;
  const number = [channel, id].find((one) => one !== null && /^\+?[0-9]{7,15}$/.test(one));
  return {
    type: 'cc-channel', ...(id === null ? {} : { id }), ...(name === null ? {} : { name }),
    ...(typeof number === 'string' && told.word !== 'chat' && told.word !== 'email' ? { phoneNumber: number } : {}), ...(tenant === null ? {} : { tenantId: tenant }),
  };
}

/** Whoever calls out of their own accord. */
function originOf({ said, agent, direction, origin }: Told): Endpoint | null {
  const own = direction === 'Outbound' && origin === null && said('isAgentInitiated')?.toLowerCase() === 'true';
  return own && agent !== null ? { type: 'user', id: agent.id } : null;
}

/** Direction, medium and contact stand in one event or the other, so each says what it knows of how it all began. */
function started(told: Told, own: readonly Identifier[], created: boolean): InteractionFactBody {
  const { direction, tenant } = told;
  const leg = told.origin !== null || told.followUp === 'callback';
  const type = mediumOf(told);
  const entryPoint = entryPointOf(told);
  const origin = originOf(told);
  return {
    kind: 'started', platform: PLATFORM, contact: contactOf(told, own), ...(direction === null ? {} : { direction }), ...(type === null ? {} : { medium: type }),
    ...(entryPoint === null ? {} : { entryPoint }), ...(origin === null ? {} : { origin }), ...(tenant === null ? {} : { tenant }),
    ...(told.followUp === 'callback' ? { callback: true } : {}),
    ...(leg ? { leg: true } : created && told.followUp === null && direction !== 'Outbound' ? { inScript: true } : {}),
  };
}

// ---- the events -------------------------------------------------------------------------------------------------------------

const nothing: Says = () => [];

function created(told: Told): readonly InteractionFactBody[] {
  if (told.followUp === 'voicemail') return [{ kind: 'voicemail', ...inQueue(told) }];
  // Whoever is called joins on answering.
  return told.followUp === 'callback' || told.direction === 'Outbound' || isConsult(told) ? [] : [{ kind: 'joined', role: 'customer', participantId: CUSTOMER }];
}

function queued(told: Told): readonly InteractionFactBody[] {
  return told.followUp === null ? [{ kind: 'waiting', ...inQueue(told), arrival: 'queued' }] : [{ kind: 'followUp', reason: told.followUp, ...inQueue(told) }];
}

function assigned(told: Told): readonly InteractionFactBody[] {
  return told.agent === null || told.followUp !== null ? [] : [{ kind: 'waiting', ...ofQueue(told), agents: [told.agent], arrival: 'offered' }];
}

function joined({ agent }: Told): readonly InteractionFactBody[] {
  return agent === null ? [] : [{ kind: 'joined', role: 'agent', participantId: agent.id, agent }];
}

function isConnected({ said }: Told): boolean {
  return /^(CS_)?CONNECTED$/i.test(said('callState') ?? '');
}

/** Where the event names nobody else, whoever is there alone has taken it. */
function takerOf(told: Told): Told {
  const there = participantsOf(told);
  return told.agent === null && there?.length === 1 ? { ...told, agent: there[0] ?? null } : told;
}

function accepted(event: Told): readonly InteractionFactBody[] {
  const told = takerOf(event);
  const connected = isConnected(told);
  const work = { ...byAgent(told), ...ofQueue(told) };
  if (told.followUp === 'voicemail') return [...joined(told), { kind: 'processing', ...work }];
  if (told.followUp === 'callback' && !connected) return [...joined(told), { kind: 'dialling', ...work }];
  return [...joined(told), { kind: 'talking', ...work, taken: connected ? 'connected' : 'ringing' }];
}

function answered(told: Told): readonly InteractionFactBody[] {
  const customer: InteractionFactBody = { kind: 'joined', role: 'customer', participantId: CUSTOMER };
  return [...(isConsult(told) ? [] : [customer]), { kind: 'talking', ...byAgent(told), taken: 'connected' }];
}

const held: Says = (told) => [{ kind: 'held', ...byAgent(told) }];
const resumed: Says = (told) => [{ kind: 'resumed', ...byAgent(told) }];

function holdStatus(told: Told): readonly InteractionFactBody[] {
  const status = told.said('status')?.toLowerCase();
  return status === 'true' ? held(told) : status === 'false' ? resumed(told) : [];
}

const transferring: Says = ({ agent }) => [{ kind: 'transferred', to: {}, open: true, ...(agent === null ? {} : { from: { agents: [agent] } }) }];

function participants(told: Told): readonly InteractionFactBody[] {
  const there = participantsOf(told);
  const talking = isConnected(told) && told.followUp !== 'voicemail';
  if (there !== null) return [{ kind: 'present', agents: there, ...(talking ? { talking: true } : {}) }];
  return talking ? [...joined(told), { kind: 'talking', ...byAgent(told) }] : [];
}

function removed(told: Told): readonly InteractionFactBody[] {
  const there = participantsOf(told);
  if (there !== null) return [{ kind: 'present', agents: there }];
  return told.agent === null ? [] : [{ kind: 'dropped', role: 'agent', participantId: told.agent.id }];
}

function released({ agent }: Told): readonly InteractionFactBody[] {
  return agent === null ? [] : [{ kind: 'dropped', role: 'agent', participantId: agent.id, last: true }];
}

/** Who wraps up has had the customer. Where nobody is named, whoever has the customer begins it; what else comes after may be another's. */
const wrapsUp: Says = ({ agent }) => [{ kind: 'dropped', role: 'agent', participantId: agent?.id ?? '', last: true, had: true }];

/** What stands where no agent chose anything, even on a call that ended in its script. */
const NO_CODE = '1000';

function codesOf({ said }: Told): { wrapUpCodes?: readonly string[] } {
  const code = said('dispositionCode');
  return code === null || code === NO_CODE ? {} : { wrapUpCodes: [code] };
}

/** Codes by list and item: numbers, where the journey's wrap-up codes are words. */
function itemsOf({ attached }: Told): readonly InteractionFactBody[] {
  const items = attached('tclSelectedItems');
  return items === null ? [] : [{ kind: 'described', data: { tclSelectedItems: items } }];
}

const wrappedUp: Says = (told) => [...released(told), ...itemsOf(told), { kind: 'wrappedUp', ...byAgent(told), ...codesOf(told) }];

const ENDERS: ReadonlyMap<string, 'customer' | 'agent' | 'system'> = new Map([['customer', 'customer'], ['agent', 'agent'], ['system', 'system']]);

function deleted(told: Told): readonly InteractionFactBody[] {
  const by = ENDERS.get(told.said('hangupInitiator')?.toLowerCase() ?? '');
  const codes = codesOf(told);
  return [
    ...itemsOf(told), ...('wrapUpCodes' in codes ? [{ kind: 'wrappedUp' as const, ...byAgent(told), ...codes }] : []),
    { kind: 'ended', ...(by === undefined ? {} : { by }), final: false, leg: true },
  ];
}

/** By `eventName`. What is not listed says nothing: recordings, muting, media proxies, other agents' states, heartbeats, and whatever 8x8 adds. */
const EVENTS: ReadonlyMap<string, Says> = new Map<string, Says>([
  ['created', created], ['queued', queued], ['assigned', assigned],
  // The offer is over, and the customer waits on.
  ['rejected', nothing],
  ['accepted', accepted], ['customeraccepted', answered],
  ['lineholdstatus', holdStatus], ['hold', held], ['unhold', resumed],
  ['transferrequest', transferring], ['participantchange', participants], ['participantremovedbyhost', removed],
  // Only its link counts.
  ['joined', nothing],
  ['unqueued', (): readonly InteractionFactBody[] => [{ kind: 'unqueued' }]], ['queuetimeout', (): readonly InteractionFactBody[] => [{ kind: 'unqueued', timeout: true }]],
  ['postprocess', wrapsUp], ['endpostprocess', wrappedUp], ['deassigned', released], ['deleted', deleted],
  ['guestchatend', (): readonly InteractionFactBody[] => [{ kind: 'dropped', role: 'customer', participantId: CUSTOMER }]],
]);

// ---- the vocabulary -------------------------------------------------------------------------------------------------------

const FROM_SOURCE = /^\/\/8x8\.com\/cc\/([^/?#]+)/;

function toldBy(event: RecordedCloudEvent, payload: Members, id: string): Told {
  const attachedData = attachedTexts(payload);
  const said = (name: string): string | null => asText(Object.hasOwn(payload, name) ? payload[name] : null);
  const attached = (key: string): string | null => attachedData.get(key) ?? null;
  const guid = GUID.exec(id);
  const word = guid?.[1]?.toLowerCase() ?? null;
  const type = said('mediaType')?.toLowerCase() ?? '';
  const callback = word === 'callback' || type.includes('callback') || attached('type')?.toLowerCase().includes('callback') === true;
  const original = attached('originalInteractionGuid');
  return {
    event, said, attached, word, interaction: interactionId(NAME, id), tenant: guid?.[2] ?? attached('tenantName') ?? FROM_SOURCE.exec(event.event.source)?.[1] ?? null,
    direction: directionOf(said) ?? (callback ? 'Outbound' : null), agent: agentOf(said),
    followUp: callback ? 'callback' : word === 'vmail' || type === 'vmail' || type === 'voicemail' ? 'voicemail' : null,
    origin: original === null || original === id || isNothing(original) || original.length > MAX_ID_LENGTH ? null : interactionId(NAME, original),
  };
}

function aboutCustomer(told: Told, name: string, own: readonly Identifier[]): readonly FactBody[] {
  const called = name === 'created' || name === 'deleted' ? nameOf(told) : null;
  return [...identifiers(told, own), ...(called === null ? [] : [{ kind: 'named' as const, name: called }])];
}

/** What a call out is about, as its agent chose it. */
function phoneCodes({ attached, direction }: Told): readonly InteractionFactBody[] {
  const shortCode = direction === 'Outbound' ? attached('outboundTclShortCode') : null;
  return shortCode === null ? [] : [{ kind: 'phoneCodes', codes: [{ listName: null, name: null, shortCode }] }];
}

/** Of an event that does not say when it was published: after the others of its second, but for the first of all. */
const LAST_MS = 4_102_444_800_000;

function facts(event: RecordedCloudEvent): readonly FactBody[] {
  const payload = exactPayload(event);
  const name = eventName(payload, event.event.type);
  const say = EVENTS.get(name);
  if (say === undefined) return [];
  if (payload === null) return unreadable('data: no JSON object');
  const id = asText(payload['interactionGUID']);
  if (id === null || id.length > MAX_ID_LENGTH) return unreadable('interactionGUID: no id');
  const told = toldBy(event, payload, id);
  const own = customersOwn(told);
  const tie = publishedAt(payload) ?? (say === created ? 0 : LAST_MS);
  const { interaction } = told;
  const linked: readonly InteractionFactBody[] = told.origin === null ? [] : [{ kind: 'linked', to: told.origin }];
  return [
    ...aboutCustomer(told, name, own).map((body) => ({ ...body, tie })),
    ...[started(told, own, say === created), ...linked, ...phoneCodes(told), ...say(told)].map((body) => ({ ...body, interaction, tie })),
  ];
}

export const eightByEight: Vocabulary = { name: NAME, knows: ({ event: { type } }) => type.startsWith(PREFIX), facts, occurredAt };
