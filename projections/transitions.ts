// A journey's timeline: facts in order → transitions with durations, participants, and the rest of its row
// (journey-apis-facts.md sections 1.8 and 1.9).
//
// A `Timeline` goes on from what is stored: everything that a later fact may need stands in the document, its arrays in
// the order of the facts, so that going on from the stored document and folding all facts anew give the same JSON text.
// Therefore agents, places and endpoints are never changed in place, only replaced: an object that the row and a
// transition shared in memory would no longer be shared once it was stored and read again.
import assert from 'node:assert';
import type { Agent, AiTool, Contact, Destination, Endpoint, Instant, InteractionFact, InteractionId, Medium, PhoneCode, Place, Schedule, Script, Site } from '../schemas/facts.ts';
import { msOf } from '../schemas/time.ts';
import type { InteractionState, JourneyDocument, JourneyRow, Participant, StateName, TimelineState, Transition, TransitionName } from './documents.ts';
import { outcomeOf } from './outcomes.ts';

const EVENTS_MAX = 10;
/** Entries of any list of a row, so that a hostile journey's document stays bounded; past it the row says `truncated`. */
const LIST_MAX = 500;
/** Agents of one transition (a queue may ring many). */
const AGENTS_MAX = 100;
/** Held intervals of one participant: the newest. The timeline has them all. */
const HELD_MAX = 64;

/** What may still be done for a customer who has left, and what makes no sense while nobody is there. */
const FOLLOWS_UP: ReadonlySet<InteractionFact['kind']> = new Set(['dialling', 'voicemail', 'processing']);
const HOLDS: ReadonlySet<InteractionFact['kind']> = new Set(['held', 'resumed']);

type Said<K extends InteractionFact['kind']> = Extract<InteractionFact, { kind: K }>;

export function newTimelineState(): TimelineState {
  return { interactions: [], agents: [], entryPoint: null, origin: null, handled: false, callback: false, dials: 0, dialsBefore: 0, last: null, lastQueue: null };
}

export function newRow(): JourneyRow {
  return {
    journeyId: '', at: '' as Instant, finishedAt: null, interactions: [], agents: [], contact: { name: null, phoneNumber: null, email: null },
    entryPoint: null, origin: null, direction: null, transfersCompleted: 0, forwardedToQueue: 0, forwardedToRingGroup: 0, forwardedToScript: 0,
    holdDuration: 0, waitingDuration: 0, talkingDuration: 0, wrapUpDuration: 0, mediaTypes: [], outcome: 'UnknownOutcome', pbxNames: [], tenantIds: [],
    wrapUpCodes: [], queues: [], ringGroups: [], scheduleHours: [], schedules: [], outboundPhoneCodes: [], aiAgentInformation: null, identities: [],
    topics: [], data: {}, attributes: [], truncated: false,
  };
}

/** The platform's own id of an interaction. */
export function platformId(id: InteractionId): string {
  return id.slice(id.indexOf(':') + 1);
}

// ---- full shapes --------------------------------------------------------------------------------------------------------

type FullAgent = Required<Agent>;
type FullPlace = Required<Place>;

/** What is newly said, over what is known: a null says no more than a missing key, since many platforms write it for what they do not know. */
function fullAgent(known: Agent | undefined, said: Agent): FullAgent {
  return {
    id: said.id, name: said.name ?? known?.name ?? null, email: said.email ?? known?.email ?? null, loginId: said.loginId ?? known?.loginId ?? null,
    department: said.department ?? known?.department ?? null, subscriptionId: said.subscriptionId ?? known?.subscriptionId ?? null,
    group: fullPair(known?.group, said.group), site: fullPair(known?.site, said.site), type: said.type ?? known?.type ?? 'HUMAN',
  };
}

function fullPair(known: Site | null | undefined, said: Site | null | undefined): Site | null {
  const from = said ?? known;
  if (from === null || from === undefined || (from.id === null && from.name === null)) return null;
  const same = known !== null && known !== undefined && known.id === from.id;
  return { id: from.id, name: from.name ?? (same ? known.name : null) };
}

function samePair(a: Site | null, b: Site | null): boolean {
  return a === b || (a !== null && b !== null && a.id === b.id && a.name === b.name);
}

function sameAgent(a: FullAgent, b: FullAgent): boolean {
  return a.name === b.name && a.email === b.email && a.loginId === b.loginId && a.department === b.department && a.subscriptionId === b.subscriptionId
    && a.type === b.type && samePair(a.group, b.group) && samePair(a.site, b.site);
}

function fullPlace(known: Place | undefined, said: Place): FullPlace {
  return { id: said.id ?? known?.id ?? null, name: said.name ?? known?.name ?? null, extension: said.extension ?? known?.extension ?? null, site: fullPair(known?.site, said.site) };
}

/** What makes two places the same one: the id, else the name. Null for a place of which nothing is said. */
export function placeKey(place: Place | null | undefined): string | null {
  if (place === null || place === undefined) return null;
  if (place.id !== null) return `#${place.id}`;
  return place.name === null || place.name === undefined ? null : `=${place.name}`;
}

/** Whether both are one place: by their ids, where both have one, else by their names. Of neither is nothing said. */
export function isPlace(a: Place, b: Place): boolean {
  return a.id !== null && b.id !== null ? a.id === b.id : a.name !== null && a.name !== undefined && a.name === b.name;
}

function onlyPlace(said: Place | null | undefined): FullPlace | null {
  return said === null || said === undefined || placeKey(said) === null ? null : fullPlace(undefined, said);
}

const ENDPOINT_FIELDS = ['id', 'name', 'phoneNumber', 'extension', 'email', 'loginId', 'department', 'pbx', 'tenantId'] as const;

/** The first to say something is believed; later ones fill what is still open, where they speak of the same endpoint. */
function fillEndpoint(known: Endpoint | null, said: Endpoint): Endpoint {
  if (known !== null && (known.type !== said.type || (known.id ?? said.id ?? null) !== (said.id ?? known.id ?? null))) return known;
  const filled: Record<string, unknown> = { type: said.type };
  for (const field of ENDPOINT_FIELDS) filled[field] = known?.[field] ?? said[field] ?? null;
  filled['site'] = fullPair(said.site, known?.site);
  return filled as unknown as Endpoint;
}

function fillContact(known: Contact, said: Contact): Contact {
  return { name: known.name ?? said.name ?? null, phoneNumber: known.phoneNumber ?? said.phoneNumber ?? null, email: known.email ?? said.email ?? null };
}

// ---- the fold -----------------------------------------------------------------------------------------------------------

type Parts = Partial<Pick<Transition, 'agents' | 'previousAgents' | 'queue' | 'previousQueue' | 'ringGroup' | 'previousRingGroup' | 'autoAttendant' | 'channel' | 'scripts' | 'externalNumber'>>;

/** What a fold changed, for whoever stores it. */
export interface TimelineChange {
  /** Full chunks to be stored. */
  readonly chunks: ReadonlyMap<number, readonly Transition[]>;
  /** Numbers of chunks whose sub-records are to be made anew; the last one may be empty. */
  readonly subs: ReadonlySet<number>;
  /** Something changed that the row's index terms are made of. */
  readonly terms: boolean;
}

/** Chunks that `apply` may have to change for facts of these interactions: those that hold a state not yet over, one whose agents still wrap up, or a transfer whose destination is still to be told. */
export function chunksNeeded(document: JourneyDocument, state: TimelineState, interactions: ReadonlySet<string>, size: number): number[] {
  if (document.chunks === 0) return [];
  const needed = new Set<number>();
  for (const { id, open, pending, wrapping, moving } of state.interactions) {
    const own = interactions.has(id);
    const numbers = [moving, ...(own || pending !== null ? [open] : []), ...(own ? wrapping.map(([, , left]) => left) : [])];
    for (const number of numbers) if (number !== null && number < document.chunks * size) needed.add(Math.floor(number / size));
  }
  return [...needed];
}

export class Timeline {
  readonly #document: JourneyDocument;
  readonly #row: JourneyRow;
  readonly #state: TimelineState;
  /** Transitions from number `#base` on; cut into chunks at the end. */
  readonly #tail: Transition[];
  readonly #base: number;
  /** Transitions of a chunk. Sub-records of chunk n are those of transitions n × size and on, whether they are stored in `t/…/n` or inline. */
  readonly #size: number;
  readonly #chunks: ReadonlyMap<number, Transition[]>;
  readonly #finished: Transition | null;
  readonly #countBefore: number;
  readonly #rewritten = new Set<number>();
  readonly #subs = new Set<number>();
  readonly #byId = new Map<string, number>();
  #terms = false;

  /** `chunks` holds those of `chunksNeeded`. The document is changed in place, and complete after `finish`. */
  constructor(document: JourneyDocument, state: TimelineState, chunks: ReadonlyMap<number, Transition[]>, size: number) {
    this.#document = document;
    this.#row = document.row;
    this.#state = state;
    this.#tail = document.transitions;
    this.#size = size;
    this.#base = document.chunks * size;
    this.#chunks = chunks;
    // FINISHED holds only while nothing follows, so it is not part of what is folded.
    this.#finished = this.#tail.at(-1)?.name === 'FINISHED' ? (this.#tail.pop() ?? null) : null;
    this.#countBefore = this.#base + this.#tail.length;
    state.interactions.forEach(({ id }, number) => this.#byId.set(id, number));
  }

  /** Facts must come in order (compareFacts). `identity`: key of the event's identity where it is evidence. */
  apply(fact: InteractionFact, identity: string | null): void {
    if (this.#row.at === '') this.#row.at = fact.at;
    if (identity !== null) this.#addWord(this.#row.identities, identity);
    const number = this.#numberOf(fact.interaction);
    const i = this.#state.interactions[number];
    assert(i !== undefined);
    switch (fact.kind) {
      case 'started': this.#started(i, number, fact); break;
      case 'joined': this.#joined(i, fact); break;
      case 'dialling': this.#dialling(i, fact); break;
      case 'script': this.#script(i, fact); break;
      case 'waiting': this.#waiting(i, fact); break;
      case 'unqueued': this.#unqueued(i, fact); break;
      case 'forwarded': this.#moved(i, fact, 'FORWARD'); break;
      case 'transferred': this.#moved(i, fact, 'TRANSFER'); break;
      case 'talking': this.#talking(i, number, fact); break;
      case 'held': this.#held(i, fact); break;
      case 'resumed': this.#resumed(i, fact); break;
      case 'present': this.#presence(i, fact); break;
      case 'voicemail': this.#voicemail(i, fact); break;
      case 'followUp': this.#followUp(i, fact); break;
      case 'processing': this.#processing(i, fact); break;
      case 'dropped': this.#dropped(i, fact); break;
      case 'wrappedUp': this.#wrappedUp(i, fact); break;
      case 'phoneCodes': this.#phoneCodes(fact.codes); break;
      case 'aiAgent': this.#aiAgent(fact); break;
      case 'described': this.#described(fact); break;
      case 'ended': this.#ended(i, number, fact); break;
      case 'linked': case 'journey': break;
    }
  }

  /** Says what facts past a limit make untrue: that the journey is whole. */
  truncate(): void {
    this.#row.truncated = true;
  }

  /** Brings row and document up to date and tells what changed. Called once, last. */
  finish(): TimelineChange {
    const interactions = this.#state.interactions;
    const over = interactions.some(({ end }) => end !== null) && interactions.every(({ begun, end, pending }) => !begun || (end !== null && pending === null));
    // A line on which agents only talked among themselves may outlive the customer's.
    const own = interactions.filter(({ aside, end }) => !aside && end !== null);
    const last = over ? (own.length > 0 ? own : interactions).reduce((latest, other) => ((other.endedAt ?? '') >= (latest.endedAt ?? '') ? other : latest)) : null;
    this.#finishRow(last);
    const count = this.#base + this.#tail.length;
    const chunks = this.#cut();
    const finished = last === null ? null : this.#finishedAs(last);
    if (finished !== null) this.#tail.push(finished);
    this.#markFinished(finished, count);
    return { chunks, subs: this.#subs, terms: this.#terms };
  }

  #finishRow(last: InteractionState | null): void {
    const row = this.#row;
    const state = this.#state;
    const direction = row.interactions.find((one) => one.direction !== null)?.direction ?? null;
    const by = state.last === null ? null : (state.interactions[state.last.interaction]?.endedBy ?? null);
    const outcome = outcomeOf({ handled: state.handled, callback: state.callback, dials: state.dials - state.dialsBefore, finished: last !== null, last: state.last?.name ?? null, endedBy: by, gaveUp: state.interactions.some(({ gaveUp }) => gaveUp) });
    if (direction !== row.direction || outcome !== row.outcome) this.#terms = true;
    row.direction = direction;
    row.outcome = outcome;
    row.finishedAt = last?.endedAt ?? null;
    // An entry point or an origin, never both (journey-apis-facts.md 1.10 #9). What is not shown is kept in the state.
    const entryPoint = row.entryPoint ?? state.entryPoint;
    const origin = row.origin ?? state.origin;
    const showsEntry = direction === 'Inbound' || direction === null;
    const showsOrigin = direction === 'Outbound' || (direction === null && entryPoint === null);
    row.entryPoint = showsEntry ? entryPoint : null;
    state.entryPoint = showsEntry ? null : entryPoint;
    row.origin = showsOrigin ? origin : null;
    state.origin = showsOrigin ? null : origin;
  }

  /** Full chunks leave the inline tail. */
  #cut(): Map<number, readonly Transition[]> {
    const chunks = new Map<number, readonly Transition[]>();
    for (const number of this.#rewritten) {
      const chunk = this.#chunks.get(number);
      if (chunk !== undefined) chunks.set(number, chunk);
    }
    while (this.#tail.length >= this.#size) {
      chunks.set(this.#document.chunks, this.#tail.splice(0, this.#size));
      this.#document.chunks += 1;
    }
    return chunks;
  }

  #finishedAs(last: InteractionState): Transition {
    assert(last.endedAt !== null && last.endEvent !== null);
    // A medium that no other transition shows would make the row's media depend on whether the journey is over.
    const medium = last.medium !== null && this.#row.mediaTypes.includes(last.medium) ? last.medium : null;
    return transition(last.endedAt, 'FINISHED', last.id, {}, 0, medium, last.endEvent);
  }

  #markFinished(finished: Transition | null, count: number): void {
    // Where nothing was added, FINISHED stands where it stood; it is found by its interaction.
    if (count === this.#countBefore && this.#finished?.interactionId === finished?.interactionId) return;
    this.#subs.add(Math.floor(count / this.#size));
  }

  // ---- transitions ----

  #numberOf(id: InteractionId): number {
    const found = this.#byId.get(id);
    if (found !== undefined) return found;
    const number = this.#state.interactions.length;
    this.#state.interactions.push({
      id, medium: null, begun: false, aside: false, guessed: false, callback: false, early: false, gaveUp: false, open: null, name: null, assumed: false, pending: null, end: null, left: false, endedAt: null, endedBy: null, endEvent: null,
      talkers: [], held: [], queue: null, ringGroup: null, wrapping: [], moving: null,
    });
    this.#row.interactions.push({ id: platformId(id), direction: null, type: null });
    this.#byId.set(id, number);
    this.#terms = true;
    return number;
  }

  #at(number: number): Transition {
    const found = number >= this.#base ? this.#tail[number - this.#base] : this.#chunks.get(Math.floor(number / this.#size))?.[number % this.#size];
    assert(found !== undefined, 'a transition that is not at hand');
    return found;
  }

  /** To be called for every transition that is changed. `terms`: in what it is found by. */
  #touch(number: number, terms: boolean): void {
    if (number < this.#base) this.#rewritten.add(Math.floor(number / this.#size));
    if (terms) this.#subs.add(Math.floor(number / this.#size));
  }

  #push(i: InteractionState, name: TransitionName, fact: InteractionFact, parts: Parts, duration: number | null): number {
    const number = this.#base + this.#tail.length;
    this.#tail.push(transition(fact.at, name, i.id, parts, duration, i.medium, fact.eventId));
    this.#subs.add(Math.floor(number / this.#size));
    i.begun = true;
    i.aside = false;
    this.#count(i, parts, name);
    return number;
  }

  /** What the row says over its transitions. The queue of a pending callback does not count. */
  #count(i: InteractionState, parts: Parts, name: TransitionName): void {
    if (i.medium !== null) this.#addWord(this.#row.mediaTypes, i.medium);
    if (parts.queue !== null && parts.queue !== undefined && !(name === 'FOLLOWUP_PENDING' && i.pending === 'callback')) {
      this.#addPlace(this.#row.queues, parts.queue);
      this.#state.lastQueue = placeKey(parts.queue);
    }
    if (parts.ringGroup !== null && parts.ringGroup !== undefined) this.#addPlace(this.#row.ringGroups, parts.ringGroup);
    if (name === 'TALKING' || name === 'PROCESSING') this.#addHandlers(parts.agents ?? []);
  }

  /** A new state from now on: the one before ends. */
  #enter(i: InteractionState, name: StateName, fact: InteractionFact, parts: Parts, assumed = false): void {
    const pending = fact.kind === 'followUp' ? fact.reason : null;
    const replaced = i.assumed && i.open !== null && this.#at(i.open).at === fact.at ? i.open : null;
    if (replaced === null) {
      this.#close(i, fact.at);
      i.pending = pending;
      i.open = this.#push(i, name, fact, parts, null);
    } else {
      i.pending = pending;
      this.#replace(i, replaced, name, fact, parts);
    }
    i.name = name;
    i.assumed = assumed;
    if (name !== 'TALKING' && name !== 'HOLD') { i.talkers = []; i.held = []; }
    this.#state.last = { name, interaction: this.#numberOf(i.id) };
  }

  #replace(i: InteractionState, number: number, name: StateName, fact: InteractionFact, parts: Parts): void {
    const old = this.#at(number);
    const made = transition(fact.at, name, i.id, parts, null, i.medium, old.events[0] ?? fact.eventId);
    addEvent(made, fact.eventId);
    if (number >= this.#base) this.#tail[number - this.#base] = made;
    else { const chunk = this.#chunks.get(Math.floor(number / this.#size)); if (chunk !== undefined) chunk[number % this.#size] = made; }
    this.#touch(number, true);
    this.#count(i, parts, name);
  }

  /** Ends the present state. */
  #close(i: InteractionState, at: Instant): void {
    if (i.open !== null && !i.early) this.#settle(i.open, at);
    i.open = null;
    i.early = false;
    i.name = null;
    i.assumed = false;
    i.pending = null;
  }

  /** Gives a state its duration and counts it; `at` null takes both back. */
  #settle(number: number, at: Instant | null): void {
    const row = this.#row;
    const open = this.#at(number);
    const before = open.duration ?? 0;
    const now = at === null ? 0 : Math.max(0, msOf(at) - msOf(open.at));
    open.duration = at === null ? null : now;
    this.#touch(number, false);
    if (open.name === 'HOLD') row.holdDuration += now - before;
    else if (open.name === 'WAITING') row.waitingDuration += now - before;
    else if (open.name === 'TALKING') row.talkingDuration += now - before;
    else if (open.name === 'OUTBOUND_STARTED') this.#state.dials += at === null ? -1 : 1;
  }

  /**
   * Whether a fact may move this interaction on. A provisional end is taken back: what was going on has gone on, but for a
   * talk, unless it is talked of again, and by another end, which says nothing of what was between. After a final one only
   * what is still done for a customer who has left counts; what else sorts later is the clocks' doing.
   */
  #goesOn(i: InteractionState, kind: InteractionFact['kind']): boolean {
    if (i.end === null) return true;
    if (i.end === 'closed' && (i.pending === null ? !FOLLOWS_UP.has(kind) : HOLDS.has(kind))) return false;
    i.early &&= kind === 'ended' || i.name === 'TALKING' || i.name === 'HOLD';
    if (i.end === 'provisional' && i.open !== null && i.pending === null && !i.early) this.#settle(i.open, null);
    // Whoever talked last has left: nothing goes on of that.
    if (i.end === 'provisional' && i.open === null) { i.talkers = []; i.held = []; }
    // The customer had not, after all.
    if (i.end === 'provisional') for (const participant of this.#own(i)) if (participant.role === 'customer' && participant.dropped === i.endedAt) participant.dropped = null;
    i.end = null;
    i.endedAt = null;
    i.endedBy = null;
    i.gaveUp = false;
    i.endEvent = null;
    return true;
  }

  #openAs(i: InteractionState, name: StateName): Transition | null {
    return i.name === name && i.open !== null ? this.#at(i.open) : null;
  }

  /** More is said of the present state. */
  #amend(i: InteractionState, fact: InteractionFact, agents: readonly Agent[], places: Partial<Pick<Transition, 'queue' | 'ringGroup' | 'autoAttendant'>> = {}): void {
    if (i.open === null) return;
    const open = this.#at(i.open);
    let terms = false;
    for (const agent of agents) {
      if (open.agents.length >= AGENTS_MAX || open.agents.some(({ id }) => id === agent.id)) continue;
      open.agents.push(agent);
      terms = true;
    }
    for (const name of ['queue', 'ringGroup', 'autoAttendant'] as const) {
      const place = places[name];
      // Another place than the one that is known would be another state.
      if (place === null || place === undefined || (open[name] !== null && !isPlace(open[name], place))) continue;
      terms ||= !samePlace(open[name], place);
      open[name] = place;
    }
    addEvent(open, fact.eventId);
    i.assumed = false;
    if (i.early && i.end === null) {
      this.#settle(i.open, null);
      i.early = false;
    }
    this.#touch(i.open, terms);
    if (terms) this.#count(i, { agents: [...agents], queue: open.queue, ringGroup: open.ringGroup }, open.name);
  }

  // ---- what begins and where it waits ----

  #started(i: InteractionState, number: number, fact: Said<'started'>): void {
    const row = this.#row;
    const entry = row.interactions[number];
    assert(entry !== undefined);
    if ((entry.direction === null || i.guessed) && fact.direction !== undefined) { entry.direction = fact.direction; i.guessed = false; }
    if (entry.direction === 'Outbound' && i.assumed && i.name === 'IN_SCRIPT' && i.end === null && i.open !== null) this.#dialledAfterAll(i, i.open, fact);
    if (fact.callback === true) i.callback = true;
    if (fact.leg === true && i.assumed) this.#legAfterAll(i);
    entry.type ??= fact.platform ?? null;
    this.#learnMedium(i, fact.medium);
    this.#learnEnds(fact);
    for (const pbx of [fact.pbx, fact.entryPoint?.pbx, fact.origin?.pbx]) if (typeof pbx === 'string') this.#addWord(row.pbxNames, pbx);
    for (const tenant of [fact.tenant, fact.entryPoint?.tenantId]) if (typeof tenant === 'string') this.#addWord(row.tenantIds, tenant);
    if (i.begun || !this.#goesOn(i, fact.kind)) return;
    if (fact.leg === true) { i.begun = i.aside = true; return; }
    if (entry.direction !== 'Outbound') {
      // Whoever is in a script has called.
      if (entry.direction === null && fact.inScript === true) { entry.direction = 'Inbound'; i.guessed = true; }
      this.#push(i, 'STARTED', fact, {}, 0);
      if (fact.inScript === true) this.#enter(i, 'IN_SCRIPT', fact, {}, true);
      return;
    }
    const { origin } = fact;
    const dialler = origin?.type === 'user' && typeof origin.id === 'string'
      ? [this.#agent({ id: origin.id, name: origin.name ?? null, email: origin.email ?? null, loginId: origin.loginId ?? null, department: origin.department ?? null, site: origin.site ?? null })] : [];
    this.#enter(i, 'OUTBOUND_STARTED', fact, { agents: dialler }, true);
  }

  /** It was taken for an inbound one until its direction was said: what stood for its script was the dial, and how it began. */
  #dialledAfterAll(i: InteractionState, script: number, fact: Said<'started'>): void {
    const { at } = this.#at(script);
    const last = this.#base + this.#tail.length - 1;
    // Where the two stand at the end, the script goes: nobody has counted on it yet.
    const isLast = script === last && this.#startedBefore(i);
    if (isLast) {
      this.#tail.pop();
      this.#subs.add(Math.floor(last / this.#size));
      i.open = script - 1;
    }
    this.#replace(i, isLast ? script - 1 : script, 'OUTBOUND_STARTED', { ...fact, at }, {});
    i.name = 'OUTBOUND_STARTED';
    if (this.#state.last?.interaction === this.#numberOf(i.id)) this.#state.last = { name: 'OUTBOUND_STARTED', interaction: this.#numberOf(i.id) };
  }

  /** Whether its STARTED stands before the last transition. */
  #startedBefore(i: InteractionState): boolean {
    const before = this.#tail.at(-2);
    return before?.name === 'STARTED' && before.interactionId === platformId(i.id);
  }

  /** It was taken for one of its own until it was said what it goes on with: how it began goes, where nothing else has come since. */
  #legAfterAll(i: InteractionState): void {
    const last = this.#base + this.#tail.length - 1;
    if (i.open !== last || (i.name !== 'IN_SCRIPT' && i.name !== 'OUTBOUND_STARTED')) return;
    const gone = this.#startedBefore(i) ? 2 : 1;
    const rest = this.#tail.slice(0, -gone);
    const isShown = i.medium === null || rest.some(({ mediaType }) => mediaType === i.medium);
    // What it goes on with must be here, and at hand; and whatever shows this medium.
    if (!rest.some(({ name }) => isState(name)) || (this.#base > 0 && !isShown)) return;
    if (!isShown) { this.#row.mediaTypes = this.#row.mediaTypes.filter((medium) => medium !== i.medium); this.#terms = true; }
    for (let n = 0; n < gone; n += 1) this.#subs.add(Math.floor((last - n) / this.#size));
    this.#tail.splice(-gone);
    i.open = null;
    i.name = null;
    i.assumed = false;
    i.aside = true;
    this.#state.last = this.#lastState();
  }

  /** Of the transitions at hand. */
  #lastState(): TimelineState['last'] {
    const last = this.#tail.findLast(({ name }) => isState(name));
    const interaction = last === undefined ? -1 : this.#row.interactions.findIndex(({ id }) => id === last.interactionId);
    return last === undefined || interaction < 0 || !isState(last.name) ? null : { name: last.name, interaction };
  }

  #learnMedium(i: InteractionState, medium: Medium | undefined): void {
    if (medium === undefined || i.medium !== null) return;
    i.medium = medium;
    if (i.open === null) return;
    this.#at(i.open).mediaType = medium;
    this.#touch(i.open, true);
    this.#addWord(this.#row.mediaTypes, medium);
  }

  /** The outside party, and where the journey entered or left the house. */
  #learnEnds(fact: Said<'started'>): void {
    const row = this.#row;
    const state = this.#state;
    if (fact.contact !== undefined) {
      const contact = fillContact(row.contact, fact.contact);
      if (contact.name !== row.contact.name || contact.phoneNumber !== row.contact.phoneNumber || contact.email !== row.contact.email) { row.contact = contact; this.#terms = true; }
    }
    if (fact.entryPoint !== undefined) {
      const known = row.entryPoint ?? state.entryPoint;
      row.entryPoint = fillEndpoint(known, fact.entryPoint);
      if (known === null || !sameEndpoint(known, row.entryPoint)) this.#terms = true;
    }
    if (fact.origin !== undefined) {
      const known = row.origin ?? state.origin;
      row.origin = fillEndpoint(known, fact.origin);
      if (known === null || !sameEndpoint(known, row.origin)) this.#terms = true;
    }
  }

  #dialling(i: InteractionState, fact: Said<'dialling'>): void {
    if (!this.#goesOn(i, fact.kind)) return;
    const agents = this.#agents(fact.agents);
    // A callback is dialled out of the queue that it waited on.
    const waitedOn = i.pending === 'callback' ? this.#openAs(i, 'FOLLOWUP_PENDING')?.queue : null;
    const queue = this.#place(this.#row.queues, fact.queue) ?? this.#place(this.#row.queues, waitedOn);
    const open = this.#openAs(i, 'OUTBOUND_STARTED');
    // The same dial, told twice; another agent's is another dial.
    const same = open !== null && (i.assumed || agents.length === 0 || open.agents.length === 0 || agents.some(({ id }) => open.agents.some((one) => one.id === id)));
    if (same) this.#amend(i, fact, agents, { queue });
    else this.#enter(i, 'OUTBOUND_STARTED', fact, { agents, queue });
    if (queue !== null) i.queue = queue;
    this.#takeOver(i, fact);
  }

  #script(i: InteractionState, fact: Said<'script'>): void {
    for (const hours of fact.scheduleHours ?? []) this.#addWord(this.#row.scheduleHours, hours, false);
    for (const { id, tag, tenantId, result } of fact.schedules ?? []) this.#addDistinct<Schedule>(this.#row.schedules, { id, tag, tenantId, result }, sameSchedule, false);
    if (!this.#goesOn(i, fact.kind)) return;
    const scripts = (fact.scripts ?? []).map(({ id, name }) => ({ id, name }));
    const autoAttendant = onlyPlace(fact.autoAttendant);
    const open = this.#openAs(i, 'IN_SCRIPT');
    if (open === null || (autoAttendant !== null && open.autoAttendant !== null && placeKey(open.autoAttendant) !== placeKey(autoAttendant))) {
      this.#enter(i, 'IN_SCRIPT', fact, { scripts: distinctScripts([], scripts), autoAttendant });
      return;
    }
    open.scripts = distinctScripts(open.scripts, scripts);
    this.#amend(i, fact, [], { autoAttendant });
  }

  #waiting(i: InteractionState, fact: Said<'waiting'>): void {
    // Of a callback it is said once what it is, and that may not be here.
    if (fact.arrival === 'queued' && i.callback) { this.#followUp(i, { ...fact, kind: 'followUp', reason: 'callback' }); return; }
    if (fact.arrival !== undefined && (i.end === 'closed' || !this.#arrives(i, fact, fact.arrival))) return;
    if (!this.#goesOn(i, fact.kind)) return;
    const agents = this.#agents(fact.agents);
    const queue = this.#place(this.#row.queues, fact.queue);
    const ringGroup = this.#place(this.#row.ringGroups, fact.ringGroup);
    const open = this.#openAs(i, 'WAITING');
    if (open !== null && sameWait(open, queue, ringGroup)) this.#amend(i, fact, agents, { queue, ringGroup });
    else this.#enter(i, 'WAITING', fact, { agents, queue, ringGroup });
    this.#tellDestination(i, agents, queue);
    this.#goesOnHere(i, fact, agents, queue);
    this.#placed(i, queue, ringGroup);
  }

  /**
   * What a platform leaves out that says only "in this queue" or "offered to this agent" (false: the customer does not wait
   * for that). Out of a script or another queue the system has forwarded it; where agents were the last to have the
   * customer, here or in the interaction that this one goes on with, they have transferred it.
   */
  #arrives(i: InteractionState, fact: Said<'waiting'>, arrival: 'queued' | 'offered'): boolean {
    const talking = i.end === null && (i.name === 'TALKING' || i.name === 'HOLD') && (i.talkers.length > 0 || i.open === null || this.#at(i.open).agents.length === 0);
    // An agent is found before a call out is dialled, and another one beside the one who talks: nobody waits for it.
    const dials = i.name === 'OUTBOUND_STARTED' || (arrival === 'offered' && i.moving === null && this.#rings(i));
    if (dials && arrival === 'offered') this.#dialler(i, fact);
    if (dials || (arrival === 'offered' && (talking || this.#consults(i)))) return false;
    if (i.moving !== null || (i.name === null && this.#state.interactions.some(({ moving }) => moving !== null))) return true;
    // Past its queue's time, whoever is rung next is where the system has sent it.
    const timedOut = arrival === 'offered' && i.name === null && !i.left && this.#waitedLast(i);
    const to = timedOut || fact.queue === null || fact.queue === undefined ? { agents: fact.agents ?? [] } : { queue: fact.queue };
    if (i.name === 'IN_SCRIPT' || timedOut || this.#leavesQueue(i, fact)) this.#moved(i, { ...fact, kind: 'forwarded', to }, 'FORWARD');
    else if (arrival === 'queued') this.#transferredFrom(i, fact, to);
    return true;
  }

  /** Whoever is to dial, until somebody else does. */
  #dialler(i: InteractionState, fact: Said<'waiting'> | Said<'talking'>): void {
    const open = this.#openAs(i, 'OUTBOUND_STARTED');
    const agents = this.#agents(fact.agents);
    if (open === null || i.open === null || !i.assumed || agents.length === 0) return;
    open.agents = agents;
    addEvent(open, fact.eventId);
    this.#touch(i.open, true);
  }

  #leavesQueue(i: InteractionState, { queue }: Said<'waiting'>): boolean {
    const waited = i.name === 'WAITING' || (i.name === null && this.#waitedLast(i));
    const to = this.#place(this.#row.queues, queue);
    return waited && to !== null && i.queue !== null && !isPlace(i.queue, to);
  }

  /** Whether that the customer waited here is the last that was. */
  #waitedLast(i: InteractionState): boolean {
    const { last } = this.#state;
    return last?.name === 'WAITING' && last.interaction === this.#numberOf(i.id);
  }

  #transferredFrom(i: InteractionState, fact: Said<'waiting'>, to: Destination): void {
    const { last } = this.#state;
    if (last === null || (last.name !== 'TALKING' && last.name !== 'HOLD')) return;
    const before = this.#state.interactions[last.interaction];
    if (before === undefined || (before !== i && i.name !== null)) return;
    this.#moved(i, { ...fact, kind: 'transferred', to, from: { agents: before.talkers.map((id) => ({ id })), queue: before.queue, ringGroup: before.ringGroup } }, 'TRANSFER');
  }

  /** Whether agents talk among themselves here: another interaction's agents still have the customer, who cannot be in two conversations. */
  #consults(i: InteractionState): boolean {
    return i.name === null && i.talkers.length === 0 && this.#state.interactions.some((other) => other !== i && other.end === null && (other.name === 'TALKING' || other.name === 'HOLD'));
  }

  /** Tells a transfer where it went, if nobody has yet; whether this did. */
  #tellDestination(i: InteractionState, agents: readonly FullAgent[], queue: FullPlace | null): boolean {
    if (i.moving === null) return false;
    const marker = this.#at(i.moving);
    const others = agents.filter(({ id }) => !marker.previousAgents.some((one) => one.id === id));
    if (others.length === 0 && queue === null) return false;
    marker.agents = queue === null ? others : [];
    marker.queue = queue;
    this.#touch(i.moving, true);
    this.#count(i, { queue }, 'TRANSFER');
    this.#tellWait(i.moving + 1, i, marker.agents);
    i.moving = null;
    return true;
  }

  /** Whom the customer waited for, of whom nothing was known then. */
  #tellWait(number: number, i: InteractionState, agents: readonly Agent[]): void {
    const isHere = number >= this.#base ? number - this.#base < this.#tail.length : Math.floor(number / this.#size) === Math.floor((number - 1) / this.#size);
    if (!isHere || agents.length === 0) return;
    const wait = this.#at(number);
    if (wait.name !== 'WAITING' || wait.interactionId !== platformId(i.id) || wait.agents.length > 0 || wait.queue !== null || wait.ringGroup !== null) return;
    wait.agents = this.#agents(agents);
    this.#touch(number, true);
  }

  /** Transfers out of other interactions, of which nobody knew where to, have come here, and whoever waited there waits no longer. */
  #goesOnHere(i: InteractionState, fact: InteractionFact, agents: readonly FullAgent[], queue: FullPlace | null): void {
    for (const other of this.#state.interactions) {
      if (other === i || other.moving === null || !this.#tellDestination(other, agents, queue)) continue;
      if (!other.assumed || other.name !== 'WAITING' || other.open === null || other.end === 'closed') continue;
      // Whoever transferred may have left before.
      if (other.end === 'provisional') this.#settle(other.open, null);
      this.#close(other, fact.at);
    }
  }

  /** Left without an agent, which is the customer's doing unless it took too long. */
  #unqueued(i: InteractionState, fact: Said<'unqueued'>): void {
    if (i.name !== 'WAITING' || i.end !== null) return;
    this.#close(i, fact.at);
    if (fact.timeout !== true) i.left = true;
  }

  #placed(i: InteractionState, queue: Place | null, ringGroup: Place | null): void {
    if (queue === null && ringGroup === null) return;
    i.queue = queue;
    i.ringGroup = ringGroup;
  }

  // ---- forwards and transfers ----

  #moved(i: InteractionState, fact: Said<'forwarded'> | Said<'transferred'>, name: 'FORWARD' | 'TRANSFER'): void {
    if (!this.#goesOn(i, fact.kind)) return;
    const parts = this.#destination(fact.to);
    const talking = i.name === 'TALKING' || i.name === 'HOLD';
    const present = talking ? i.talkers : i.open === null ? [] : this.#at(i.open).agents.map(({ id }) => id);
    const from = fact.from?.agents === undefined ? null : this.#agents(fact.from.agents).map(({ id }) => id);
    const to = parts.agents.map(({ id }) => id);
    const origin = from ?? present.filter((id) => !to.includes(id));
    const only = parts.queue === null && parts.ringGroup === null && parts.autoAttendant === null && parts.channel === null && parts.scripts.length === 0 && parts.externalNumber === null;
    // A warm transfer: whoever was brought in goes on talking.
    const rest = name === 'TRANSFER' && talking && only ? i.talkers.filter((id) => !origin.includes(id)) : [];
    if (talking && name === 'TRANSFER') leave(i, origin, fact.at);
    const previous: Parts = {
      previousAgents: this.#byIds(origin),
      previousQueue: fact.from?.queue === undefined ? i.queue : this.#place(this.#row.queues, fact.from.queue),
      previousRingGroup: fact.from?.ringGroup === undefined ? i.ringGroup : this.#place(this.#row.ringGroups, fact.from.ringGroup),
    };
    this.#close(i, fact.at);
    const marker = this.#push(i, name, fact, { ...parts, ...previous, agents: to.length === 0 ? this.#byIds(rest) : parts.agents }, 0);
    this.#countMove(name, parts);
    const open = fact.kind === 'transferred' && fact.open === true && only && to.length === 0 && rest.length === 0;
    i.moving = open ? marker : null;
    if (rest.length > 0) this.#talk(i, fact, rest);
    else if (open) this.#enter(i, 'WAITING', fact, {}, true);
    else this.#arrive(i, fact, parts);
  }

  #destination({ agents, queue, ringGroup, autoAttendant, channel, script, externalNumber }: Said<'forwarded'>['to']): Required<Omit<Parts, 'previousAgents' | 'previousQueue' | 'previousRingGroup'>> {
    return {
      agents: this.#agents(agents), queue: this.#place(this.#row.queues, queue), ringGroup: this.#place(this.#row.ringGroups, ringGroup),
      autoAttendant: onlyPlace(autoAttendant), channel: onlyPlace(channel), externalNumber: externalNumber ?? null,
      scripts: script === null || script === undefined ? [] : [{ id: script.id, name: script.name }],
    };
  }

  #countMove(name: 'FORWARD' | 'TRANSFER', parts: Parts): void {
    const row = this.#row;
    if (name === 'TRANSFER') { row.transfersCompleted += 1; return; }
    switch (forwardKind(parts)) {
      case 'queue': row.forwardedToQueue += 1; break;
      case 'ringGroup': row.forwardedToRingGroup += 1; break;
      case 'script': row.forwardedToScript += 1; break;
      case null: break;
    }
  }

  /** Where something was sent, it is from then on, unless the same instant says otherwise. */
  #arrive(i: InteractionState, fact: InteractionFact, { agents = [], queue = null, ringGroup = null, autoAttendant = null, scripts = [], externalNumber }: Parts): void {
    i.talkers = [];
    i.held = [];
    this.#placed(i, queue, ringGroup);
    if (queue !== null || ringGroup !== null || agents.length > 0) this.#enter(i, 'WAITING', fact, { agents: [...agents], queue, ringGroup }, true);
    else if (autoAttendant !== null || scripts.length > 0) this.#enter(i, 'IN_SCRIPT', fact, { autoAttendant, scripts: [...scripts] }, true);
    else if (externalNumber !== null) this.#state.last = { name: 'EXTERNAL', interaction: this.#numberOf(i.id) };
  }

  // ---- talking and holding ----

  #talking(i: InteractionState, number: number, fact: Said<'talking'>): void {
    if (fact.taken !== undefined && this.#consults(i)) return;
    if (fact.taken === 'ringing' && this.#rings(i)) {
      this.#dialler(i, fact);
      this.#dialling(i, { ...fact, kind: 'dialling' });
      return;
    }
    if (!this.#goesOn(i, fact.kind)) return;
    const agents = this.#agents(fact.agents?.length ? fact.agents : this.#answering(i));
    const queue = this.#place(this.#row.queues, fact.queue);
    const fresh = agents.filter(({ id }) => !i.talkers.includes(id)).map(({ id }) => id);
    const open = this.#openAs(i, 'TALKING');
    if (open !== null && (fresh.length === 0 || open.agents.length === 0)) {
      i.talkers.push(...fresh);
      this.#amend(i, fact, agents, { queue });
    } else {
      this.#talk(i, fact, [...i.talkers, ...fresh], queue);
    }
    this.#tellDestination(i, agents, null);
    this.#goesOnHere(i, fact, agents, null);
    if (queue !== null) this.#placed(i, queue, null);
    if (this.#row.interactions[number]?.direction === 'Outbound') this.#takeOver(i, fact);
  }

  /** Where nobody is named who has the customer now: whoever dialled; the one agent who was rung; in a transfer, those who were brought in on another line. */
  #answering(i: InteractionState): readonly Agent[] {
    const dialled = this.#openAs(i, 'OUTBOUND_STARTED');
    if (dialled !== null) return dialled.agents;
    const rung = this.#openAs(i, 'WAITING')?.agents ?? [];
    if (rung.length === 1) return rung;
    if (i.moving === null) return [];
    const { previousAgents } = this.#at(i.moving);
    const [own, there] = [platformId(i.id), this.#document.participants.filter(({ role, dropped }) => role === 'agent' && dropped === null)];
    return there.flatMap(({ interactionId, agentId }) => (interactionId === own || agentId === null || previousAgents.some(({ id }) => id === agentId) ? [] : [{ id: agentId }]));
  }

  /** Whether a customer who is called, out of the blue or back, is not there yet. */
  #rings(i: InteractionState): boolean {
    const isCalled = i.pending === 'callback' || this.#row.interactions[this.#numberOf(i.id)]?.direction === 'Outbound';
    return isCalled && i.talkers.length === 0 && (i.name === null || i.name === 'OUTBOUND_STARTED' || i.name === 'FOLLOWUP_PENDING');
  }

  #talk(i: InteractionState, fact: InteractionFact, talkers: string[], queue: Place | null = null): void {
    this.#state.handled = true;
    this.#enter(i, 'TALKING', fact, { agents: this.#byIds(talkers), queue });
    i.talkers = talkers.slice(0, AGENTS_MAX);
    i.held = [];
    if (i.wrapping.length > 0) i.wrapping = i.wrapping.filter(([agent]) => !talkers.includes(agent));
  }

  /** Agents whose leg a fact of holding speaks of: those named, else the participant's, else everybody. */
  #leg(i: InteractionState, fact: Said<'held'> | Said<'resumed'>): { named: string[]; leg: string[] } {
    const agents = this.#agents(fact.agents).map(({ id }) => id);
    const own = fact.participantId === undefined ? null : (this.#present(i, fact.participantId)?.agentId ?? null);
    const named = agents.length > 0 || own === null ? agents : [own];
    return { named, leg: named.length > 0 ? named : i.talkers };
  }

  /** Said of a conversation that its last agent has left: times may be whole seconds, and that it is no longer held comes last. */
  #isLate(i: InteractionState, { agents = [] }: Said<'held'> | Said<'resumed'>): boolean {
    return i.end === 'provisional' && i.open === null && agents.every(({ id }) => i.talkers.includes(id));
  }

  /** Whether these must have had the customer before, though nobody said so: it rang there, or nobody has had the customer yet. */
  #hadBefore(i: InteractionState, agents: readonly string[]): boolean {
    if (agents.length === 0 || i.end !== null || i.moving !== null || i.open === null || (i.name !== 'WAITING' && i.name !== 'OUTBOUND_STARTED')) return false;
    const rung = this.#at(i.open).agents;
    return agents.every((agent) => rung.some(({ id }) => id === agent)) || (i.name === 'WAITING' && !this.#state.handled);
  }

  #held(i: InteractionState, fact: Said<'held'>): void {
    if (this.#isLate(i, fact) || !this.#goesOn(i, fact.kind)) return;
    const { named, leg } = this.#leg(i, fact);
    if (this.#hadBefore(i, named)) this.#tookUntold(i, fact, named);
    for (const participant of this.#legs(i, fact, leg)) {
      if (participant.held.at(-1)?.to === null) continue;
      participant.held.push({ from: fact.at, to: null });
      if (participant.held.length > HELD_MAX) participant.held.shift();
    }
    if ((i.name !== null && i.name !== 'TALKING' && i.name !== 'HOLD') || this.#consults(i)) return;
    const held = [...i.held, ...leg.filter((id) => !i.held.includes(id))];
    i.held = held;
    if (i.name === 'HOLD') { this.#amend(i, fact, this.#byIds(named)); return; }
    // While another agent talks with the customer, only the one who holds has left the conversation.
    if (i.talkers.some((id) => !held.includes(id))) return;
    this.#enter(i, 'HOLD', fact, { agents: this.#byIds(held) });
    i.talkers = [...i.talkers, ...named.filter((id) => !i.talkers.includes(id))].slice(0, AGENTS_MAX);
  }

  #resumed(i: InteractionState, fact: Said<'resumed'>): void {
    if (this.#isLate(i, fact) || !this.#goesOn(i, fact.kind)) return;
    const { named, leg } = this.#leg(i, fact);
    for (const participant of this.#legs(i, fact, leg)) closeHeld(participant, fact.at);
    if (i.name === 'WAITING') { this.#resumedWaiting(i, fact, named); return; }
    const held = named.length === 0 ? [] : i.held.filter((id) => !named.includes(id));
    const all = [...i.talkers, ...named.filter((id) => !i.talkers.includes(id))];
    const talking = this.#openAs(i, 'TALKING');
    const isBack = talking !== null && named.some((id) => i.talkers.includes(id) && !talking.agents.some((one) => one.id === id));
    if (i.name === 'HOLD' || isBack) {
      this.#talk(i, fact, all.filter((id) => !held.includes(id)));
      i.talkers = all.slice(0, AGENTS_MAX);
    }
    i.held = held;
  }

  /** A transfer that was called off, or has come where it was to go; or an agent of whom nobody said that it was taken. */
  #resumedWaiting(i: InteractionState, fact: Said<'resumed'>, named: string[]): void {
    const there = named.length > 0 || i.moving === null ? named : this.#at(i.moving).previousAgents.map(({ id }) => id);
    if (there.length === 0 || (i.moving === null && !this.#hadBefore(i, there))) return;
    this.#tookUntold(i, fact, there);
    this.#tellDestination(i, this.#byIds(there), null);
  }

  /** Nobody said that these took the customer, or when: they have. */
  #tookUntold(i: InteractionState, fact: InteractionFact, agents: string[]): void {
    for (const id of agents) this.#agentJoins(i, fact, { id });
    this.#talk(i, fact, agents);
  }

  // ---- voicemail and what follows up ----

  #voicemail(i: InteractionState, fact: Said<'voicemail'>): void {
    if (!this.#goesOn(i, fact.kind)) return;
    const agents = this.#agents(fact.agents);
    const queue = this.#place(this.#row.queues, fact.queue);
    const ringGroup = this.#place(this.#row.ringGroups, fact.ringGroup);
    if (i.aside) this.#leavesTheOther(i, fact);
    if (this.#openAs(i, 'VOICEMAIL') === null) this.#enter(i, 'VOICEMAIL', fact, { agents, queue, ringGroup });
    else this.#amend(i, fact, agents, { queue, ringGroup });
    this.#placed(i, queue, ringGroup);
  }

  /** Whoever speaks to a voicemail waits, or is in a script, nowhere else. */
  #leavesTheOther(i: InteractionState, fact: InteractionFact): void {
    const others = this.#state.interactions.filter((other) => other !== i && other.end === null && (other.name === 'WAITING' || other.name === 'IN_SCRIPT'));
    const [only] = others;
    if (only !== undefined && others.length === 1) this.#close(only, fact.at);
  }

  /** Does not bring an ended interaction back: the customer has left, and it waits on. */
  #followUp(i: InteractionState, fact: Said<'followUp'>): void {
    if (i.end === 'provisional' && !this.#goesOn(i, fact.kind)) return;
    const callback = fact.reason === 'callback';
    // A pending callback's queue has its id and no name (journey-apis-facts.md 1.9).
    const queue = callback ? onlyId(fact.queue) : this.#place(this.#row.queues, fact.queue);
    const open = this.#openAs(i, 'FOLLOWUP_PENDING');
    if (open !== null && i.pending === fact.reason && (!callback || queue === null || open.queue === null || isPlace(open.queue, queue))) { this.#amend(i, fact, [], callback ? { queue } : {}); return; }
    const spoken = this.#openAs(i, 'VOICEMAIL');
    if (!callback && spoken !== null && spoken.queue === null && spoken.ringGroup === null && spoken.agents.length === 0) this.#amend(i, fact, [], { queue });
    this.#enter(i, 'FOLLOWUP_PENDING', fact, { queue });
    if (callback && !this.#state.callback) {
      this.#state.callback = true;
      this.#state.dialsBefore = this.#state.dials;
    }
    if (!callback) this.#placed(i, queue, null);
  }

  #processing(i: InteractionState, fact: Said<'processing'>): void {
    if (!this.#goesOn(i, fact.kind)) return;
    const agents = this.#agents(fact.agents);
    const queue = this.#place(this.#row.queues, fact.queue) ?? i.queue;
    const open = this.#openAs(i, 'PROCESSING');
    this.#state.handled = true;
    if (open !== null && (open.agents.length === 0 || agents.every(({ id }) => open.agents.some((one) => one.id === id)))) this.#amend(i, fact, agents, { queue });
    else this.#enter(i, 'PROCESSING', fact, { agents, queue });
    this.#takeOver(i, fact);
  }

  /** A callback may be an interaction of its own, linked to the one that asked for it: its dial ends the wait of that one. */
  #takeOver(i: InteractionState, fact: InteractionFact): void {
    for (const other of this.#state.interactions) {
      if (other === i || other.pending === null) continue;
      this.#close(other, fact.at);
      endBy(other, 'closed', fact);
    }
  }

  // ---- ends ----

  #ended(i: InteractionState, number: number, fact: Said<'ended'>): void {
    // Once it has ended it has: another platform's end, or a recording's, comes later and says no more.
    if (i.end === 'closed' && (i.pending === null || !this.#endsFollowUp(i, number, fact))) return;
    const leg = fact.leg === true;
    const left = leg && i.end === 'provisional' && (i.open === null || i.moving !== null);
    const byCustomer = this.#gaveUp(i, number, fact);
    if (left || (leg && i.name !== 'TALKING' && i.name !== 'HOLD')) this.#leave(i, i.aside ? null : 'customer', left ? (i.endedAt ?? fact.at) : fact.at);
    if (left) { i.endedBy ??= fact.by ?? null; return; }
    const saidBefore = i.early ? i.endedBy : null;
    const waits = byCustomer || i.name === 'WAITING';
    if (i.end === 'provisional') this.#goesOn(i, fact.kind);
    const waitsOn = i.pending !== null && !this.#endsFollowUp(i, number, fact);
    // Of agents who have not left it may be another leg that ended.
    if (!leg && !i.early && (i.name === 'TALKING' || i.name === 'HOLD')) leave(i, i.talkers, fact.at);
    if (!leg && !i.early && i.name === 'PROCESSING' && i.open !== null) leave(i, this.#at(i.open).agents.map(({ id }) => id), fact.at);
    if (fact.outcome === 'forwardedExternal' && !waitsOn) this.#state.last = { name: 'EXTERNAL', interaction: number };
    if (!waitsOn && fact.final) this.#close(i, fact.at);
    else if (!waitsOn) {
      if (i.open !== null && !i.early) this.#settle(i.open, fact.at);
      // Of a wait, an agent's not answering may be all that has ended.
      i.early ||= i.open !== null && !leg && (fact.by === 'customer' || i.name === 'TALKING' || i.name === 'HOLD' || i.name === 'PROCESSING');
      i.pending = null;
    }
    if (fact.final) for (const participant of this.#own(i)) closeHeld(participant, fact.at);
    endBy(i, fact.final ? 'closed' : 'provisional', fact);
    i.endedBy = byCustomer ? 'customer' : saidBefore ?? fact.by ?? null;
    i.gaveUp = waits && !waitsOn && i.endedBy === 'customer';
  }

  /** Whether the customer has left while waiting, whoever then ended what was left of it. */
  #gaveUp(i: InteractionState, number: number, fact: Said<'ended'>): boolean {
    const { last } = this.#state;
    if (i.end !== null || last?.name !== 'WAITING' || last.interaction !== number) return false;
    if (i.name === null) return i.left;
    const customers = this.#own(i).filter(({ role }) => role === 'customer');
    return customers.length > 0 && customers.every(({ dropped }) => dropped !== null && dropped < fact.at);
  }

  /**
   * Whether an end is that of the follow-up and not merely that of the customer's call: when it says so; when the customer
   * had left before; when there was no customer's call (a callback as an interaction of its own).
   */
  #endsFollowUp(i: InteractionState, number: number, fact: Said<'ended'>): boolean {
    // An interaction of its own, that ends with it, has nothing left to wait for.
    if (fact.outcome === 'callbackExpired' || fact.leg === true) return true;
    if (!fact.final) return false;
    return this.#row.interactions[number]?.direction === 'Outbound' || (i.left && (fact.by === 'agent' || fact.by === 'system'));
  }

  #wrappedUp(i: InteractionState, fact: Said<'wrappedUp'>): void {
    const agents = this.#agents(fact.agents);
    for (const code of fact.wrapUpCodes ?? []) this.#addWord(this.#row.wrapUpCodes, code);
    // Where nobody is named, or nobody who is known to have left, it is whoever left first.
    const named = i.wrapping.filter(([agent]) => agents.some(({ id }) => id === agent));
    const done = named.length > 0 ? named : i.wrapping.slice(0, 1).filter(([agent]) => agent === '' || agents.length === 0);
    for (const [, since, left] of done) this.#wrapped(left, msOf(fact.at) - msOf(since));
    i.wrapping = i.wrapping.filter((one) => !done.includes(one));
    // Offline work, wrap-up included, is over with it, and nothing else is left to be done.
    if (i.name !== 'PROCESSING' || i.end !== null) return;
    this.#close(i, fact.at);
    endBy(i, 'closed', fact);
  }

  #wrapped(number: number | null, ms: number): void {
    this.#row.wrapUpDuration += ms;
    if (number === null) return;
    this.#at(number).wrapUp += ms;
    this.#touch(number, false);
  }

  // ---- participants ----

  #joined(i: InteractionState, fact: Said<'joined'>): void {
    const agent = fact.agent === undefined ? null : this.#agent(fact.agent);
    const name = fact.name ?? agent?.name ?? null;
    const here = this.#present(i, fact.participantId);
    if (here !== null) {
      here.name ??= name;
      here.agentId ??= agent?.id ?? null;
      return;
    }
    if (this.#document.participants.length >= LIST_MAX) { this.truncate(); return; }
    this.#document.participants.push({ role: fact.role, id: fact.participantId, interactionId: platformId(i.id), name, joined: fact.at, held: [], dropped: null, agentId: agent?.id ?? null });
  }

  #agentJoins(i: InteractionState, fact: InteractionFact, agent: Agent): void {
    this.#joined(i, { ...fact, kind: 'joined', role: 'agent', participantId: agent.id, agent });
  }

  /** Without an id: the one who has the customer. */
  #dropped(i: InteractionState, fact: Said<'dropped'>): void {
    const having = i.talkers.length > 0 ? i.talkers : (this.#openAs(i, 'OUTBOUND_STARTED')?.agents ?? []).map(({ id }) => id);
    const id = fact.participantId !== '' ? fact.participantId : having.length === 1 ? having[0] ?? '' : '';
    if (id === '' && having.length > 0) return;
    const participant = this.#present(i, id);
    drop(participant, fact.at);
    const agent = participant === null ? id : (participant.agentId ?? participant.id);
    if (i.talkers.includes(agent)) this.#leaves(i, fact, [agent], fact.last === true);
    else if (fact.last === true && fact.role === 'agent') this.#wasThere(i, fact, agent);
  }

  /** The last agent leaves whom nobody said to have the customer: one who dialled, or one who took it unnamed. */
  #wasThere(i: InteractionState, fact: Said<'dropped'>, agent: string): void {
    const dialled = i.name === 'OUTBOUND_STARTED' && !i.assumed && i.open !== null && this.#at(i.open).agents.some(({ id }) => id === agent);
    if (dialled) {
      if (i.end === 'provisional') this.#goesOn(i, fact.kind);
      leave(i, [agent], fact.at);
      this.#over(i, fact);
      return;
    }
    if (i.name === 'WAITING' && i.end === null && fact.had === true) { this.#hadUntold(i, fact, agent); return; }
    if (i.name !== 'TALKING' || i.talkers.length > 0) return;
    if (agent !== '' && i.open !== null) {
      this.#amend(i, fact, this.#byIds([agent]));
      this.#agentJoins(i, { ...fact, at: this.#at(i.open).at }, { id: agent });
      drop(this.#present(i, agent), fact.at);
    }
    this.#leaves(i, fact, [agent], true);
  }

  /** Who had the customer leaves while the customer waits: whoever transferred, and nobody is known to have taken over; or one of whom nobody said that it was taken. */
  #hadUntold(i: InteractionState, fact: Said<'dropped'>, agent: string): void {
    if (i.moving !== null && (agent === '' || this.#at(i.moving).previousAgents.some(({ id }) => id === agent))) {
      for (const one of i.wrapping) if (agent === '' || one[0] === agent) one[1] = fact.at;
      // Over, unless it goes on: then the customer has waited all the time.
      if (i.open !== null) this.#settle(i.open, fact.at);
      this.#endsForNow(i, fact);
    } else if (agent !== '' && !this.#row.agents.some(({ id }) => id === agent)) {
      this.#tookUntold(i, fact, [agent]);
      this.#tellDestination(i, this.#byIds([agent]), null);
      drop(this.#present(i, agent), fact.at);
      this.#leaves(i, fact, [agent], true);
    }
  }

  /** Of those who talk, these leave. `last`: with the last of them the conversation is over, and provisionally the interaction. */
  #leaves(i: InteractionState, fact: InteractionFact, gone: readonly string[], last: boolean): void {
    // An end that was told of while they still talked was another leg's.
    if (last && i.end === 'provisional' && i.open !== null) this.#goesOn(i, fact.kind);
    if (i.end !== null) return;
    leave(i, gone, fact.at);
    const rest = i.talkers.filter((id) => !gone.includes(id));
    const held = i.held.filter((id) => !gone.includes(id));
    if (last && rest.length === 0 && (i.name === 'TALKING' || i.name === 'HOLD')) { this.#over(i, fact); return; }
    // The customer is there, and nobody with them.
    if (rest.length === 0 && (i.name === 'TALKING' || i.name === 'HOLD')) this.#close(i, fact.at);
    if (i.name === 'TALKING' && rest.length > 0) {
      if (rest.every((id) => held.includes(id))) { this.#enter(i, 'HOLD', fact, { agents: this.#byIds(rest) }); } else this.#talk(i, fact, rest);
    }
    i.talkers = rest;
    i.held = held;
  }

  /** The last agent has left. Who that was stays known, since it may go on as a transfer. */
  #over(i: InteractionState, fact: InteractionFact): void {
    this.#close(i, fact.at);
    this.#endsForNow(i, fact);
  }

  #endsForNow(i: InteractionState, fact: InteractionFact): void {
    endBy(i, 'provisional', fact);
    i.endedBy = null;
    this.#leave(i, 'customer', fact.at);
  }

  /** Those who are still there, of one role or all. */
  #leave(i: InteractionState, role: Participant['role'] | null, at: Instant): void {
    for (const participant of this.#own(i)) {
      if ((role !== null && participant.role !== role) || participant.dropped !== null) continue;
      drop(participant, at);
    }
  }

  #own(i: InteractionState): Participant[] {
    const own = platformId(i.id);
    return this.#document.participants.filter(({ interactionId }) => interactionId === own);
  }

  #presence(i: InteractionState, fact: Said<'present'>): void {
    const agents = this.#agents(fact.agents);
    const ids = agents.map(({ id }) => id);
    this.#meet(i, fact, agents);
    const gone = i.talkers.filter((id) => !ids.includes(id));
    // Whoever a transfer is on its way to, and is there, has the customer.
    const arrived = i.moving !== null && i.end !== 'closed' && this.#at(i.moving).previousAgents.every(({ id }) => !ids.includes(id));
    if (fact.talking !== true && !(arrived && ids.length > 0)) {
      if (gone.length > 0) this.#leaves(i, fact, gone, true);
      return;
    }
    if (ids.length === 0 || !this.#goesOn(i, fact.kind)) return;
    if (gone.length > 0) leave(i, gone, fact.at);
    const stay = i.talkers.filter((id) => ids.includes(id));
    const all = [...stay, ...ids.filter((id) => !stay.includes(id))];
    if (i.name === 'TALKING' && stay.length === all.length && stay.length === i.talkers.length) this.#amend(i, fact, []);
    else this.#talk(i, fact, all);
    for (const participant of this.#own(i)) if (participant.agentId !== null && ids.includes(participant.agentId)) closeHeld(participant, fact.at);
    this.#tellDestination(i, agents, null);
    this.#goesOnHere(i, fact, agents, null);
  }

  /** Agents who are there have joined, the others have left. */
  #meet(i: InteractionState, fact: Said<'present'>, agents: readonly FullAgent[]): void {
    const here = this.#own(i).filter(({ role, dropped }) => role === 'agent' && dropped === null);
    for (const participant of here) {
      if (agents.some(({ id }) => id === (participant.agentId ?? participant.id))) continue;
      drop(participant, fact.at);
    }
    for (const agent of agents) {
      if (here.some((participant) => agent.id === (participant.agentId ?? participant.id))) continue;
      this.#agentJoins(i, fact, agent);
    }
  }

  /** The participant of this id who is still there. */
  #present(i: InteractionState, participantId: string): Participant | null {
    return this.#own(i).findLast(({ id, dropped }) => id === participantId && dropped === null) ?? null;
  }

  #legs(i: InteractionState, fact: Said<'held'> | Said<'resumed'>, leg: readonly string[]): Participant[] {
    if (fact.participantId !== undefined) {
      const named = this.#present(i, fact.participantId);
      return named === null ? [] : [named];
    }
    return this.#own(i).filter(({ agentId, dropped }) => agentId !== null && leg.includes(agentId) && dropped === null);
  }

  // ---- what describes the journey ----

  #phoneCodes(codes: readonly PhoneCode[]): void {
    for (const { listName, name, shortCode } of codes) this.#addDistinct(this.#row.outboundPhoneCodes, { listName, name, shortCode }, samePhoneCode);
  }

  #aiAgent({ creditConsumption, tools }: Said<'aiAgent'>): void {
    const information = this.#row.aiAgentInformation ?? { creditConsumption: 0, toolsUsedSuccessfully: [] };
    // Decimal fractions add up to others (0.1 + 0.2): six places are more than credits have.
    information.creditConsumption = Number((information.creditConsumption + (creditConsumption ?? 0)).toFixed(6));
    for (const { name, success } of tools ?? []) this.#addDistinct<AiTool>(information.toolsUsedSuccessfully, { name, success }, sameTool);
    this.#row.aiAgentInformation = information;
  }

  #described({ topics, data, attributes }: Said<'described'>): void {
    for (const topic of topics ?? []) this.#addWord(this.#row.topics, topic, false);
    for (const attribute of attributes ?? []) this.#addWord(this.#row.attributes, attribute, false);
    const known = this.#row.data;
    for (const [name, value] of Object.entries(data ?? {})) {
      if (!Object.hasOwn(known, name) && Object.keys(known).length >= LIST_MAX) { this.truncate(); continue; }
      // Not by assignment: a key may be called `__proto__`.
      Object.defineProperty(known, name, { value, writable: true, enumerable: true, configurable: true });
    }
  }

  // ---- lists of the row ----

  /** `found`: whether a journey can be found by what stands in the list, so that its index terms are to be made anew. */
  #addWord(list: string[], word: string, found = true): void {
    if (!list.includes(word)) this.#add(list, word, found);
  }

  #addDistinct<T>(list: T[], item: T, same: (a: T, b: T) => boolean, found = true): void {
    if (!list.some((one) => same(one, item))) this.#add(list, item, found);
  }

  #add<T>(list: T[], item: T, found = true): void {
    if (list.length >= LIST_MAX) { this.truncate(); return; }
    list.push(item);
    if (found) this.#terms = true;
  }

  #addPlace(list: Place[], place: Place): void {
    if (!list.some((one) => isPlace(one, place))) this.#add(list, place);
  }

  /** A place in full, with what the row knows of it; what is newly said, the row knows from now on. */
  #place(list: Place[], said: Place | null | undefined): FullPlace | null {
    if (said === null || said === undefined || placeKey(said) === null) return null;
    const exact = list.findIndex((one) => placeKey(one) === placeKey(said));
    const number = exact >= 0 ? exact : list.findIndex((one) => isPlace(one, said));
    const known = list[number];
    const full = fullPlace(known, said);
    if (known === undefined || samePlace(known, full)) return full;
    list[number] = full;
    // It was known by its name alone.
    if (list === this.#row.queues && this.#state.lastQueue === placeKey(known)) this.#state.lastQueue = placeKey(full);
    this.#terms = true;
    return full;
  }

  /** An agent in full, with what is known; what is newly said, is known from now on. */
  #agent(said: Agent): FullAgent {
    for (const list of [this.#row.agents, this.#state.agents]) {
      const number = list.findIndex(({ id }) => id === said.id);
      const known = list[number] as FullAgent | undefined;
      if (known === undefined) continue;
      const full = fullAgent(known, said);
      if (sameAgent(known, full)) return known;
      list[number] = full;
      if (list === this.#row.agents) this.#terms = true;
      return full;
    }
    const full = fullAgent(undefined, said);
    if (this.#state.agents.length < LIST_MAX) this.#state.agents.push(full);
    return full;
  }

  #agents(said: readonly Agent[] | undefined): FullAgent[] {
    const agents: FullAgent[] = [];
    for (const one of said ?? []) if (agents.length < AGENTS_MAX && !agents.some(({ id }) => id === one.id)) agents.push(this.#agent(one));
    return agents;
  }

  #byIds(ids: readonly string[]): FullAgent[] {
    return ids.slice(0, AGENTS_MAX).map((id) => this.#agent({ id }));
  }

  /** These agents handled the customer: they stand in the row. */
  #addHandlers(agents: readonly Agent[]): void {
    for (const agent of agents) {
      if (this.#row.agents.some(({ id }) => id === agent.id)) continue;
      const full = this.#agent(agent);
      const number = this.#state.agents.findIndex(({ id }) => id === agent.id);
      if (number >= 0 && this.#row.agents.length < LIST_MAX) this.#state.agents.splice(number, 1);
      this.#add(this.#row.agents, full);
    }
  }
}

// ---- small parts --------------------------------------------------------------------------------------------------------

function isState(name: TransitionName): name is StateName {
  return name !== 'STARTED' && name !== 'FORWARD' && name !== 'TRANSFER' && name !== 'FINISHED';
}

function transition(at: Instant, name: TransitionName, id: InteractionId, parts: Parts, duration: number | null, mediaType: Medium | null, eventId: string): Transition {
  return {
    at, name, interactionId: platformId(id), agents: parts.agents ?? [], previousAgents: parts.previousAgents ?? [], queue: parts.queue ?? null,
    previousQueue: parts.previousQueue ?? null, ringGroup: parts.ringGroup ?? null, previousRingGroup: parts.previousRingGroup ?? null,
    autoAttendant: parts.autoAttendant ?? null, channel: parts.channel ?? null, scripts: parts.scripts ?? [], duration, wrapUp: 0,
    externalNumber: parts.externalNumber ?? null, mediaType, events: [eventId],
  };
}

function addEvent(to: Transition, eventId: string): void {
  if (to.events.length < EVENTS_MAX && !to.events.includes(eventId)) to.events.push(eventId);
}

/** What kind of destination an automated forward counts for; one only, the most exact. */
export function forwardKind({ queue, ringGroup, autoAttendant, scripts }: Pick<Parts, 'queue' | 'ringGroup' | 'autoAttendant' | 'scripts'>): 'queue' | 'ringGroup' | 'script' | null {
  if (queue !== null && queue !== undefined) return 'queue';
  if (ringGroup !== null && ringGroup !== undefined) return 'ringGroup';
  return (autoAttendant !== null && autoAttendant !== undefined) || (scripts !== undefined && scripts.length > 0) ? 'script' : null;
}

/** Whether more is said of the same wait: of the same place, or of none (an agent rings), or where none was known yet. */
function sameWait(open: Transition, queue: Place | null, ringGroup: Place | null): boolean {
  if (queue === null && ringGroup === null) return true;
  if (open.queue === null && open.ringGroup === null) return open.agents.length === 0;
  const same = (known: Place | null, said: Place | null): boolean => said === null || (known !== null && isPlace(known, said));
  return same(open.queue, queue) && same(open.ringGroup, ringGroup);
}

function samePlace(a: Place | null, b: Place | null): boolean {
  if (a === null || b === null) return a === b;
  return a.id === b.id && (a.name ?? null) === (b.name ?? null) && (a.extension ?? null) === (b.extension ?? null) && samePair(a.site ?? null, b.site ?? null);
}

function sameEndpoint(a: Endpoint, b: Endpoint): boolean {
  return ENDPOINT_FIELDS.every((field) => (a[field] ?? null) === (b[field] ?? null)) && samePair(a.site ?? null, b.site ?? null);
}

function onlyId(place: Place | null | undefined): FullPlace | null {
  return place === null || place === undefined || place.id === null ? null : { id: place.id, name: null, extension: null, site: null };
}

function distinctScripts(known: readonly Script[], said: readonly Script[]): Script[] {
  const all = [...known];
  for (const script of said) if (all.length < AGENTS_MAX && !all.some(({ id, name }) => id === script.id && name === script.name)) all.push(script);
  return all;
}

function sameSchedule(a: Schedule, b: Schedule): boolean {
  return a.id === b.id && a.tag === b.tag && a.tenantId === b.tenantId && a.result === b.result;
}

function samePhoneCode(a: PhoneCode, b: PhoneCode): boolean {
  return a.listName === b.listName && a.name === b.name && a.shortCode === b.shortCode;
}

function sameTool(a: AiTool, b: AiTool): boolean {
  return a.name === b.name && a.success === b.success;
}

/** The interaction ends by the fact; who ended it is said by whoever knows. */
function endBy(i: InteractionState, how: NonNullable<InteractionState['end']>, fact: InteractionFact): void {
  i.end = how;
  i.left = true;
  i.endedAt = fact.at;
  i.endEvent = fact.eventId;
}

/** Agents leave the conversation; their wrap-up begins. */
function leave(i: InteractionState, agents: readonly string[], at: Instant): void {
  for (const agent of agents.length === 0 ? [''] : agents) {
    if (i.wrapping.length < AGENTS_MAX && !i.wrapping.some(([one]) => one === agent)) i.wrapping.push([agent, at, i.open]);
  }
}

/** Nobody where there is none. */
function drop(participant: Participant | null, at: Instant): void {
  if (participant === null) return;
  closeHeld(participant, at);
  participant.dropped = at;
}

function closeHeld(participant: Participant, at: Instant): void {
  const open = participant.held.at(-1);
  if (open?.to === null) open.to = at;
}

