// The documents of the group `journeys`, as folds and readers see them and as they are stored. What makes them is in
// journeys.ts (nodes and journeys), transitions.ts (timeline and row) and outcomes.ts (cells).
import type { Agent, AiTool, Contact, Direction, Endpoint, Instant, InteractionId, Medium, PhoneCode, Place, Role, Schedule, Script } from '../schemas/facts.ts';
import { msOf } from '../schemas/time.ts';
import { FactPage, NO_TIE } from './fact-pages.ts';
import { compact, expand, listed, type Packed, Packer, unlisted, Unpacker } from './packing.ts';
import type { Json } from './projection.ts';

export type TransitionName =
  | 'STARTED' | 'OUTBOUND_STARTED' | 'IN_SCRIPT' | 'WAITING' | 'TALKING' | 'HOLD' | 'FORWARD' | 'TRANSFER'
  | 'VOICEMAIL' | 'FOLLOWUP_PENDING' | 'PROCESSING' | 'FINISHED';

/** As it is stored. Empty arrays and nulls stand as the 8x8 document shows them. */
export interface Transition {
  at: Instant;
  name: TransitionName;
  /** The platform's own interaction id, without its vocabulary. */
  interactionId: string;
  agents: Agent[];
  previousAgents: Agent[];
  queue: Place | null;
  previousQueue: Place | null;
  ringGroup: Place | null;
  previousRingGroup: Place | null;
  autoAttendant: Place | null;
  channel: Place | null;
  /** Of IN_SCRIPT; of FORWARD and TRANSFER too, where a script is the destination (8x8's answers leave it out there). */
  scripts: Script[];
  /** Milliseconds in this state; 0 for markers; null while it is still open. */
  duration: number | null;
  /** Milliseconds that agents worked on after they left the conversation in this state. */
  wrapUp: number;
  externalNumber: string | null;
  mediaType: Medium | null;
  /** Ids of the recorded events behind it, at most 10 (the first ones). */
  events: string[];
}

/** The states that last; the other names are markers. EXTERNAL has no transition of its own: it follows a forward to an outside number. */
export type StateName = Exclude<TransitionName, 'STARTED' | 'FORWARD' | 'TRANSFER' | 'FINISHED'>;
export type LastState = StateName | 'EXTERNAL';

/** 8x8's newest ten (journey-apis-facts.md 1.8). */
export type Outcome =
  | 'Handled' | 'Abandoned' | 'EndedInScript' | 'Other' | 'UnknownOutcome'
  | 'ForwardedToExternalNumber' | 'Voicemail' | 'CallbackRequested' | 'CallbackNoAnswer' | 'CallbackExpired';

export interface Participant {
  role: Role;
  id: string;
  interactionId: string;
  name: string | null;
  joined: Instant;
  /** Closed intervals and at most one open one (`to: null`). */
  held: { from: Instant; to: Instant | null }[];
  dropped: Instant | null;
  /** The agent behind the participant, where it is one that is known. */
  agentId: string | null;
}

/** What a journey answers with: the fields of 8x8's newest revision plus our own. */
export interface JourneyRow {
  journeyId: string;
  at: Instant;
  finishedAt: Instant | null;
  interactions: { id: string; direction: Direction | null; type: string | null }[];
  agents: Agent[];
  contact: Contact;
  entryPoint: Endpoint | null;
  origin: Endpoint | null;
  direction: Direction | null;
  transfersCompleted: number;
  forwardedToQueue: number;
  forwardedToRingGroup: number;
  forwardedToScript: number;
  /** Milliseconds over closed intervals. */
  holdDuration: number;
  waitingDuration: number;
  talkingDuration: number;
  wrapUpDuration: number;
  mediaTypes: Medium[];
  outcome: Outcome;
  pbxNames: string[];
  tenantIds: string[];
  wrapUpCodes: string[];
  queues: Place[];
  ringGroups: Place[];
  scheduleHours: string[];
  schedules: Schedule[];
  outboundPhoneCodes: PhoneCode[];
  aiAgentInformation: { creditConsumption: number; toolsUsedSuccessfully: AiTool[] } | null;
  /** Keys of the identities (evidence only) whose events speak of it. */
  identities: string[];
  topics: string[];
  data: Record<string, string>;
  attributes: string[];
  /** Facts past a limit were left out (design.md section 4). */
  truncated: boolean;
}

/** Those that are shown and found: codes are chosen for a call out, and what is said before the direction is known may be of another. */
export function phoneCodesOf({ direction, outboundPhoneCodes }: JourneyRow): readonly PhoneCode[] { return direction === 'Outbound' ? outboundPhoneCodes : []; }

/** Document `j/<journey key>`. Closed transitions past the newest 64 stand in `t/<journey key>/<chunk>` (each a Transition[] of 64). */
export interface JourneyDocument {
  row: JourneyRow;
  participants: Participant[];
  /** How many chunks `t/<key>/0 …` stand before `transitions`. */
  chunks: number;
  transitions: Transition[];
  /** The fold's own state, from which a fact that sorts last goes on. Not for readers. */
  state: JourneyState;
}

export type First = readonly [order: string, key: string];
export type Named = readonly [order: string, at: Instant, id: string];

export interface JourneyState {
  /** Facts folded, and the order of the last of them. */
  count: number;
  last: string | null;
  /** Every id that resolves to this journey, sorted: explicit ones and the derived ids of its interactions. */
  ids: string[];
  /** Its earliest interaction, and the earliest one that has an explicit id. */
  first: First;
  named: Named | null;
  timeline: TimelineState;
}

/** How far the fold of one interaction has come. */
export interface InteractionState {
  id: InteractionId;
  medium: Medium | null;
  begun: boolean;
  /** A leg of another interaction, in which nothing has been done for the customer: agents consult here, or it is about to begin. */
  aside: boolean;
  /** A customer is called back here. */
  callback: boolean;
  /** Its direction was not said: it follows from how it began, until one is said. */
  guessed: boolean;
  /** Number of the transition of the present state, also after a provisional end, which a later fact takes back. */
  open: number | null;
  name: StateName | null;
  /** The present state only follows from another fact (where a transfer went): a fact of the same instant replaces it. */
  assumed: boolean;
  pending: 'voicemail' | 'callback' | null;
  end: 'provisional' | 'closed' | null;
  /** The present state has its end from a provisional end of all of it: so it stays, unless it is said to go on. */
  early: boolean;
  /** It has ended before: the customer is no longer there, whatever is still done about it. */
  left: boolean;
  endedAt: Instant | null;
  endedBy: By | null;
  /** Ended by the customer, who waited. */
  gaveUp: boolean;
  endEvent: string | null;
  /** Ids of the agents who talk or hold, and of those among them who hold. */
  talkers: string[];
  held: string[];
  /** Where it waited last. */
  queue: Place | null;
  ringGroup: Place | null;
  /** Agents who have left the conversation, since when they wrap up, and the number of the transition that they left it in (null: of none); '' for one who is not known. */
  wrapping: [agent: string, since: Instant, left: number | null][];
  /** Number of a TRANSFER that does not say where to: what follows does, here or in another interaction. */
  moving: number | null;
}
export type By = 'customer' | 'agent' | 'system';

/** The timeline's own state besides what readers see. */
export interface TimelineState {
  interactions: InteractionState[];
  /** Agents that were only rung or dialled: the latest that is known of them. Those who handled stand in the row. */
  agents: Agent[];
  /** What the row does not show because of the journey's direction. */
  entryPoint: Endpoint | null;
  origin: Endpoint | null;
  handled: boolean;
  callback: boolean;
  /** Outbound dials that are over: all, and how many of them before the first callback was asked for. */
  dials: number;
  dialsBefore: number;
  last: { name: LastState; interaction: number } | null;
  /** `placeKey` of the last queue. */
  lastQueue: string | null;
}

/** Document `n/<node key>`: an interaction, an explicit journey id, or both. `journey` is the key of the journey that holds it now. Readers resolve a journey id by `nodeKey(id)` → this → `j/<journey>`. */
export interface NodeDocument {
  journey: string | null;
  /** Its id where it is known as an interaction; as an explicit journey id. */
  interaction: InteractionId | null;
  explicitId: string | null;
  /** It would link too many: none of its edges counts, and none is kept. For ever, since edges only come. */
  over: boolean;
  /** Keys of linked nodes, sorted. Edges to nodes that are `over` stand here and do not count. */
  neighbours: string[];
  /** Explicit ids said of this interaction, with the earliest time of each; sorted by id. */
  explicit: [id: string, at: Instant][];
  /** `orderKey` of the first and the last fact kept. */
  first: string | null;
  last: string | null;
  /** Facts past the limit were left out. */
  truncated: boolean;
  /** How many full chunks of facts `f/<node key>/0 …` (a page each) stand before `facts`. */
  chunks: number;
  facts: FactPage;
}

/** Counts by bucket index; bucket i counts durations at most BOUNDS_S[i] seconds and above the bound before; the last index is "longer". */
export type Histogram = Record<number, number>;

/** Document `o/<quarter>/<hash of the dimensions>`; `<quarter>` = start of the quarter in seconds since 1970, offset and zero-padded to 12 digits (`quarterKey`). */
export interface OutcomeCell {
  quarter: number;
  outcome: Outcome;
  queue: { id: string | null; name: string | null } | null;
  medium: Medium | null;
  direction: Direction | null;
  journeys: number;
  waiting: Histogram;
  talking: Histogram;
  hold: Histogram;
}

/** Document `a/<kind>/<hash of the value>`: a PBX or tenant that an event of this workspace named, whatever became of its journey. */
export interface AccountValue { kind: AccountKind; value: string }
export type AccountKind = 'pbx' | 'tenant';

// ---- as they are stored -------------------------------------------------------------------------------------------------
//
// By spaces: `j` journeys, `t` chunks of transitions, `n` nodes, `f` chunks of facts; `o` (cells) and `a` (account values) as they are. What is
// written in one place is read in the next line's twin: their orders belong together.

/** The text that is stored under this key (without the workspace). A function of the document alone. */
export function packDocument(key: string, document: Json, packer = new Packer()): string {
  const [space, own = ''] = key.split('/', 2);
  switch (space) {
    case 'j': return JSON.stringify(packJourney(own, document as unknown as JourneyDocument, packer));
    case 't': return JSON.stringify(packTransitions(own, document as unknown as Transition[], packer));
    case 'n': return JSON.stringify(packNode(own, document as unknown as NodeDocument));
    case 'f': return JSON.stringify((document as unknown as FactPage).pack());
    default: return JSON.stringify(document);
  }
}

export function unpackDocument(key: string, text: string): Json {
  const [space, own = ''] = key.split('/', 2);
  switch (space) {
    case 'j': return unpackJourney(own, text) as unknown as Json;
    case 't': return unpackTransitions(own, text) as unknown as Json;
    case 'n': return unpackNode(own, text) as unknown as Json;
    case 'f': return FactPage.unpack(JSON.parse(text) as Packed[]) as unknown as Json;
    default: return JSON.parse(text) as Json;
  }
}

/** The row alone of a stored journey. `key`: that of the journey, as in `SearchRow.key`. */
export function unpackRow(key: string, text: string): JourneyRow {
  const { packed, from } = opened(key, text);
  return readRow(packed, from);
}

export function unpackJourney(key: string, text: string): JourneyDocument {
  const { packed, from } = opened(key, text);
  const row = readRow(packed, from);
  const [participants, chunks, transitions, state] = expand(packed[5], 4);
  return {
    row, participants: unlisted(participants, (one) => readParticipant(one, from)), chunks: (chunks ?? 0) as number,
    transitions: unlisted(transitions, (one) => readTransition(one, from)), state: readState(state, from, row),
  };
}

function packJourney(key: string, { row, participants, chunks, transitions, state }: JourneyDocument, packer: Packer): Packed[] {
  const to = packer.start(key, msOf(row.at));
  const first = writeRow(row, to);
  const rest = compact([
    listed(participants, (one) => writeParticipant(one, to)), chunks === 0 ? null : chunks, listed(transitions, (one) => writeTransition(one, to)), writeState(state, to, row),
  ]);
  return [to.baseMs, ...to.tables(), first, rest];
}

function opened(key: string, text: string): { packed: readonly Packed[]; from: Unpacker } {
  const packed = JSON.parse(text) as Packed[];
  return { packed, from: new Unpacker(key, packed[0] as number, packed.slice(1, 4)) };
}

function packTransitions(key: string, transitions: readonly Transition[], packer: Packer): Packed[] {
  const [first] = transitions;
  const to = packer.start(key, first === undefined ? 0 : msOf(first.at));
  const packed = transitions.map((one) => writeTransition(one, to));
  return [to.baseMs, ...to.tables(), packed];
}

/** A chunk of transitions; `key` is that of its journey. */
export function unpackTransitions(key: string, text: string): Transition[] {
  const { packed, from } = opened(key, text);
  return unlisted(packed[4], (one) => readTransition(one, from));
}

// ---- rows ----

/** Half of a row each, as an array of marks has room for 31. */
const [ROW_FIRST, ROW_REST] = [16, 16] as const;

function writeRow(row: JourneyRow, to: Packer): Packed {
  const text = (word: string): number => to.text(word);
  return [
    compact([
      to.text(row.journeyId), row.finishedAt === null ? null : to.instant(row.finishedAt),
      listed(row.interactions, ({ id, direction, type }) => compact([to.text(id), to.maybe(direction), to.maybe(type)])),
      listed(row.agents, (agent) => to.agent(agent)), to.maybe(row.contact.name), to.maybe(row.contact.phoneNumber), to.maybe(row.contact.email),
      writeEndpoint(row.entryPoint, to), writeEndpoint(row.origin, to), to.maybe(row.direction), to.text(row.outcome), listed(row.mediaTypes, text),
      some(row.holdDuration), some(row.waitingDuration), some(row.talkingDuration), some(row.wrapUpDuration),
    ]),
    compact([
      some(row.transfersCompleted), some(row.forwardedToQueue), some(row.forwardedToRingGroup), some(row.forwardedToScript),
      listed(row.pbxNames, text), listed(row.tenantIds, text), listed(row.wrapUpCodes, text), listed(row.queues, (place) => to.place(place)), listed(row.ringGroups, (place) => to.place(place)),
      listed(row.scheduleHours, text), listed(row.schedules, ({ id, tag, tenantId, result }) => compact([to.maybe(id), to.maybe(tag), to.maybe(tenantId), to.text(result)])),
      listed(row.outboundPhoneCodes, ({ listName, name, shortCode }) => compact([to.maybe(listName), to.maybe(name), to.maybe(shortCode)])),
      row.aiAgentInformation === null ? null : [row.aiAgentInformation.creditConsumption, ...row.aiAgentInformation.toolsUsedSuccessfully.map(({ name, success }) => [to.text(name), success])],
      listed(row.identities, text), row.topics.length === 0 && row.attributes.length === 0 && Object.keys(row.data).length === 0 ? null
        : [row.topics.map(text), Object.entries(row.data).flatMap(([name, value]) => [to.text(name), to.text(value)]), row.attributes.map(text)],
      row.truncated ? true : null,
    ]),
  ];
}

function readRow(packed: readonly Packed[], from: Unpacker): JourneyRow {
  const text = (reference: Packed): string => from.text(reference);
  const [one, other] = packed[4] as readonly Packed[];
  const [journeyId, finishedAt, interactions, agents, contactName, phoneNumber, email, entryPoint, origin, direction, outcome, mediaTypes, hold, waiting, talking, wrapUp] = expand(one, ROW_FIRST);
  const [
    transfers, toQueue, toRingGroup, toScript, pbxNames, tenantIds, wrapUpCodes, queues, ringGroups, scheduleHours, schedules, phoneCodes, aiAgent, identities, described, truncated,
  ] = expand(other, ROW_REST);
  const [topics, data, attributes] = (described ?? [[], [], []]) as readonly [Packed, readonly Packed[], Packed];
  return {
    journeyId: from.text(journeyId), at: from.instant(0), finishedAt: from.maybeInstant(finishedAt), interactions: unlisted(interactions, (interaction) => readInteraction(interaction, from)),
    agents: unlisted(agents, (agent) => from.agent(agent)), contact: { name: from.maybe(contactName), phoneNumber: from.maybe(phoneNumber), email: from.maybe(email) },
    entryPoint: readEndpoint(entryPoint, from), origin: readEndpoint(origin, from), direction: from.maybe(direction) as Direction | null,
    transfersCompleted: number(transfers), forwardedToQueue: number(toQueue), forwardedToRingGroup: number(toRingGroup), forwardedToScript: number(toScript),
    holdDuration: number(hold), waitingDuration: number(waiting), talkingDuration: number(talking), wrapUpDuration: number(wrapUp),
    mediaTypes: unlisted(mediaTypes, text), outcome: from.text(outcome) as Outcome, pbxNames: unlisted(pbxNames, text), tenantIds: unlisted(tenantIds, text),
    wrapUpCodes: unlisted(wrapUpCodes, text), queues: unlisted(queues, (place) => from.place(place)), ringGroups: unlisted(ringGroups, (place) => from.place(place)),
    scheduleHours: unlisted(scheduleHours, text), schedules: unlisted(schedules, (schedule) => readSchedule(schedule, from)),
    outboundPhoneCodes: unlisted(phoneCodes, (code) => readPhoneCode(code, from)), aiAgentInformation: readAiAgent(aiAgent, from),
    identities: unlisted(identities, text), topics: unlisted(topics, text), data: readData(data, from), attributes: unlisted(attributes, text), truncated: truncated === true,
  };
}

/** Null for a counter that most rows have at 0. */
function some(count: number): number | null { return count === 0 ? null : count; }
function number(packed: Packed | undefined): number { return (packed ?? 0) as number; }

function readInteraction(packed: Packed, from: Unpacker): JourneyRow['interactions'][number] {
  const [id, direction, type] = expand(packed, 3);
  return { id: from.text(id), direction: from.maybe(direction) as Direction | null, type: from.maybe(type) };
}

function readSchedule(packed: Packed, from: Unpacker): Schedule {
  const [id, tag, tenantId, result] = expand(packed, 4);
  return { id: from.maybe(id), tag: from.maybe(tag), tenantId: from.maybe(tenantId), result: from.text(result) };
}

function readPhoneCode(packed: Packed, from: Unpacker): PhoneCode {
  const [listName, name, shortCode] = expand(packed, 3);
  return { listName: from.maybe(listName), name: from.maybe(name), shortCode: from.maybe(shortCode) };
}

function readAiAgent(packed: Packed | undefined, from: Unpacker): JourneyRow['aiAgentInformation'] {
  if (packed === null || packed === undefined) return null;
  const [creditConsumption, ...tools] = packed as readonly [number, ...(readonly Packed[])[]];
  return { creditConsumption, toolsUsedSuccessfully: tools.map(([name, success]) => ({ name: from.text(name), success: success === true })) };
}

function readData(packed: readonly Packed[], from: Unpacker): Record<string, string> {
  const data: Record<string, string> = {};
  for (let i = 0; i < packed.length; i += 2) {
    // Not by assignment: a key may be called `__proto__`.
    Object.defineProperty(data, from.text(packed[i]), { value: from.text(packed[i + 1]), writable: true, enumerable: true, configurable: true });
  }
  return data;
}

function writeEndpoint(endpoint: Endpoint | null, to: Packer): Packed {
  if (endpoint === null) return null;
  const { type, id, name, phoneNumber, extension, email, loginId, department, pbx, tenantId, site } = endpoint;
  return compact([
    to.text(type), to.maybe(id), to.maybe(name), to.maybe(phoneNumber), to.maybe(extension), to.maybe(email), to.maybe(loginId), to.maybe(department), to.maybe(pbx), to.maybe(tenantId), to.site(site),
  ]);
}

function readEndpoint(packed: Packed | undefined, from: Unpacker): Endpoint | null {
  if (packed === null || packed === undefined) return null;
  const [type, id, name, phoneNumber, extension, email, loginId, department, pbx, tenantId, site] = expand(packed, 11);
  return {
    type: from.text(type) as Endpoint['type'], id: from.maybe(id), name: from.maybe(name), phoneNumber: from.maybe(phoneNumber), extension: from.maybe(extension), email: from.maybe(email),
    loginId: from.maybe(loginId), department: from.maybe(department), pbx: from.maybe(pbx), tenantId: from.maybe(tenantId), site: from.site(site),
  };
}

// ---- participants and transitions ----

function writeParticipant({ role, id, interactionId, name, joined, held, dropped, agentId }: Participant, to: Packer): Packed {
  return compact([
    to.text(role), to.text(id), to.text(interactionId), to.maybe(name), to.instant(joined),
    listed(held, ({ from, to: until }) => [to.instant(from), until === null ? null : to.instant(until)]), dropped === null ? null : to.instant(dropped), to.maybe(agentId),
  ]);
}

function readParticipant(packed: Packed, from: Unpacker): Participant {
  const [role, id, interactionId, name, joined, held, dropped, agentId] = expand(packed, 8);
  return {
    role: from.text(role) as Role, id: from.text(id), interactionId: from.text(interactionId), name: from.maybe(name), joined: from.instant(joined),
    held: unlisted(held, (interval) => {
      const [since, until] = interval as readonly Packed[];
      return { from: from.instant(since), to: from.maybeInstant(until) };
    }),
    dropped: from.maybeInstant(dropped), agentId: from.maybe(agentId),
  };
}

function writeTransition(transition: Transition, to: Packer): Packed {
  const { at, name, interactionId, agents, previousAgents, queue, previousQueue, ringGroup, previousRingGroup, autoAttendant, channel, scripts, duration, wrapUp, externalNumber, mediaType, events } = transition;
  return compact([
    to.instant(at), to.text(name), to.text(interactionId), duration, events.length === 1 ? to.text(events[0] ?? '') : events.map((id) => to.text(id)), to.maybe(mediaType),
    listed(agents, (agent) => to.agent(agent)), listed(previousAgents, (agent) => to.agent(agent)), to.maybePlace(queue), to.maybePlace(previousQueue), to.maybePlace(ringGroup),
    to.maybePlace(previousRingGroup), to.maybePlace(autoAttendant), to.maybePlace(channel), listed(scripts, ({ id, name: script }) => [to.maybe(id), to.maybe(script)]), to.maybe(externalNumber), some(wrapUp),
  ]);
}

function readTransition(packed: Packed, from: Unpacker): Transition {
  const [at, name, interactionId, duration, events, mediaType, agents, previousAgents, queue, previousQueue, ringGroup, previousRingGroup, autoAttendant, channel, scripts, externalNumber, wrapUp] = expand(packed, 17);
  return {
    at: from.instant(at), name: from.text(name) as TransitionName, interactionId: from.text(interactionId),
    agents: unlisted(agents, (agent) => from.agent(agent)), previousAgents: unlisted(previousAgents, (agent) => from.agent(agent)),
    queue: from.maybePlace(queue), previousQueue: from.maybePlace(previousQueue), ringGroup: from.maybePlace(ringGroup), previousRingGroup: from.maybePlace(previousRingGroup),
    autoAttendant: from.maybePlace(autoAttendant), channel: from.maybePlace(channel), scripts: unlisted(scripts, (script) => {
      const [id, said] = script as readonly Packed[];
      return { id: from.maybe(id), name: from.maybe(said) };
    }),
    duration: duration as number | null, wrapUp: number(wrapUp), externalNumber: from.maybe(externalNumber), mediaType: from.maybe(mediaType),
    events: typeof events === 'number' ? [from.text(events)] : unlisted(events, (id) => from.text(id)),
  };
}

// ---- the fold's own state ----

function writeState({ count, last, ids, first, named, timeline }: JourneyState, to: Packer, row: JourneyRow): Packed {
  return compact([
    count, last === null ? null : writeOrder(last, to), ids.map((id) => to.text(id)), [writeOrder(first[0], to), to.text(first[1])],
    named === null ? null : [writeOrder(named[0], to), to.instant(named[1]), to.text(named[2])],
    timeline.interactions.map((one, i) => writeInteraction(one, to, row.interactions[i]?.id ?? '')), listed(timeline.agents, (agent) => to.agent(agent)),
    writeEndpoint(timeline.entryPoint, to), writeEndpoint(timeline.origin, to), timeline.handled ? true : null, timeline.callback ? true : null, some(timeline.dials), some(timeline.dialsBefore),
    timeline.last === null ? null : [to.text(timeline.last.name), timeline.last.interaction], to.maybe(timeline.lastQueue),
  ]);
}

function readState(packed: Packed | undefined, from: Unpacker, row: JourneyRow): JourneyState {
  const [count, last, ids, first, named, interactions, agents, entryPoint, origin, handled, callback, dials, dialsBefore, lastState, lastQueue] = expand(packed, 15);
  const [firstOrder, firstKey] = first as readonly Packed[];
  const timeline: TimelineState = {
    interactions: (interactions as readonly Packed[]).map((one, i) => readInteractionState(one, from, row.interactions[i]?.id ?? '')), agents: unlisted(agents, (agent) => from.agent(agent)),
    entryPoint: readEndpoint(entryPoint, from), origin: readEndpoint(origin, from), handled: handled === true, callback: callback === true, dials: number(dials), dialsBefore: number(dialsBefore),
    last: lastState === null ? null : readLast(lastState, from), lastQueue: from.maybe(lastQueue),
  };
  return {
    count: number(count), last: last === null ? null : readOrder(last, from), ids: unlisted(ids, (id) => from.text(id)), first: [readOrder(firstOrder, from), from.text(firstKey)],
    named: named === null ? null : readNamed(named, from), timeline,
  };
}

function readLast(packed: Packed | undefined, from: Unpacker): TimelineState['last'] {
  const [name, interaction] = packed as readonly Packed[];
  return { name: from.text(name) as LastState, interaction: number(interaction) };
}

function readNamed(packed: Packed | undefined, from: Unpacker): Named {
  const [order, at, id] = packed as readonly Packed[];
  return [readOrder(order, from), from.instant(at), from.text(id)];
}

/** Its id ends with the row's: what stands before that is the vocabulary. */
function writeInteraction(state: InteractionState, to: Packer, platformId: string): Packed {
  return compact([
    to.text(state.id.slice(0, state.id.length - platformId.length - 1)), to.maybe(state.medium), state.begun ? true : null, state.open, to.maybe(state.name), state.assumed ? true : null,
    to.maybe(state.pending), to.maybe(state.end), state.left ? true : null, state.endedAt === null ? null : to.instant(state.endedAt), to.maybe(state.endedBy), to.maybe(state.endEvent),
    listed(state.talkers, (id) => to.text(id)), listed(state.held, (id) => to.text(id)), to.maybePlace(state.queue), to.maybePlace(state.ringGroup),
    listed(state.wrapping, ([agent, since, transition]) => [to.text(agent), to.instant(since), transition]), state.moving, state.aside ? true : null, state.guessed ? true : null, state.callback ? true : null, state.early ? true : null, state.gaveUp ? true : null,
  ]);
}

function readInteractionState(packed: Packed, from: Unpacker, platformId: string): InteractionState {
  const [vocabulary, medium, begun, open, name, assumed, pending, end, left, endedAt, endedBy, endEvent, talkers, held, queue, ringGroup, wrapping, moving, aside, guessed, callback, early, gaveUp] = expand(packed, 23);
  return {
    id: `${from.text(vocabulary)}:${platformId}`, medium: from.maybe(medium), begun: begun === true, aside: aside === true, guessed: guessed === true, callback: callback === true, early: early === true, gaveUp: gaveUp === true, open: open as number | null, name: from.maybe(name) as StateName | null, assumed: assumed === true,
    pending: from.maybe(pending) as InteractionState['pending'], end: from.maybe(end) as InteractionState['end'], left: left === true, endedAt: from.maybeInstant(endedAt),
    endedBy: from.maybe(endedBy) as By | null, endEvent: from.maybe(endEvent), talkers: unlisted(talkers, (id) => from.text(id)), held: unlisted(held, (id) => from.text(id)),
    queue: from.maybePlace(queue), ringGroup: from.maybePlace(ringGroup), wrapping: unlisted(wrapping, (one): [string, Instant, number | null] => {
      const [agent, since, transition] = one as readonly Packed[];
      return [from.text(agent), from.instant(since), transition as number | null];
    }),
    moving: moving as number | null,
  };
}

/** What `orderKey` puts together: time (30 characters), tie (16), rank (2), event id, a space, index. */
function writeOrder(order: string, to: Packer): Packed {
  const space = order.lastIndexOf(' ');
  const tie = order.slice(30, 46);
  return compact([to.instant(order.slice(0, 30) as Instant), to.text(order.slice(48, space)), Number(order.slice(46, 48)), some(Number(order.slice(space + 1))), tie === NO_TIE ? null : tie]);
}

function readOrder(packed: Packed | undefined, from: Unpacker): string {
  const [at, eventId, rank, index, tie] = expand(packed, 5);
  return `${from.instant(at)}${(tie ?? NO_TIE) as string}${String(rank)}${from.text(eventId)} ${String(number(index)).padStart(3, '0')}`;
}

// ---- nodes ----

function packNode(own: string, { journey, interaction, explicitId, over, neighbours, explicit, first, last, truncated, chunks, facts }: NodeDocument): Packed[] {
  const head = compact([
    journey === own ? 0 : journey, interaction, explicitId, over ? true : null, listed(neighbours, (key) => key), listed(explicit, ([id, at]) => [id, at]), truncated ? true : null,
    // What the page tells is not said twice.
    some(chunks), first === facts.first ? null : first, last === facts.last ? null : last,
  ]);
  return facts.size === 0 ? [head] : [head, facts.pack()];
}

function unpackNode(own: string, text: string): NodeDocument {
  const [head, page] = JSON.parse(text) as [Packed, Packed[] | undefined];
  const [journey, interaction, explicitId, over, neighbours, explicit, truncated, chunks, first, last] = expand(head, 10);
  const facts = page === undefined ? new FactPage() : FactPage.unpack(page);
  return {
    journey: journey === 0 ? own : (journey as string | null), interaction: interaction as InteractionId | null, explicitId: explicitId as string | null, over: over === true,
    neighbours: unlisted(neighbours, (key) => key as string), explicit: unlisted(explicit, (one) => [...(one as readonly [string, Instant])]),
    first: (first ?? facts.first) as string | null, last: (last ?? facts.last) as string | null, truncated: truncated === true, chunks: number(chunks), facts,
  };
}

/** The key of the journey that holds a stored node now; null where none does. `key`: that of the node. */
export function unpackJourneyOf(key: string, text: string): string | null { return unpackNode(key, text).journey; }
