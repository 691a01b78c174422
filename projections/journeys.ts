// The group `journeys`: interactions, the journeys that they form, their rows and index terms.
//
// Interactions and explicit journey ids are nodes of one graph; a journey is a connected component of it that holds an
// interaction. Every document is a function of the set of events alone: facts stand in the order of compareFacts, other
// lists in an order of their own values, and whether a fact was appended or everything was folded anew cannot be told
// from the JSON text.
import assert from 'node:assert';
import type { Agent, Endpoint, Instant, InteractionFact, InteractionId, Interpreted, Place } from '../schemas/facts.ts';
import { nodeKey } from '../schemas/identity.ts';
import { msOf } from '../schemas/time.ts';
import { type AccountKind, type AccountValue, type First, type JourneyDocument, type Named, type NodeDocument, type OutcomeCell, packDocument, phoneCodesOf, type Transition, unpackDocument } from './documents.ts';
import { comparePlaced, FactPage, Placed } from './fact-pages.ts';
import type { Contribution } from './outcomes.ts';
import { contributionOf, OutcomeDelta } from './outcomes.ts';
import type { FieldKind, Fold, FoldContext, Json, Projection, RecordChange, RecordState, SubRecord } from './projection.ts';
import type { TimelineChange } from './transitions.ts';
import { chunksNeeded, newRow, newTimelineState, placeKey, Timeline } from './transitions.ts';

// ---- filters and index terms ----------------------------------------------------------------------------------------------

/** How a filter of the 8x8 API is indexed and asked for: made once here, used by the fold and by the API. */
export interface Filter {
  readonly field: string;
  /** Of transitions (they must meet in one) instead of the journey. */
  readonly sub: boolean;
  readonly kind: FieldKind;
  readonly term: (keys: Pick<FoldContext, 'term'>, value: string) => string;
}
type Value = string | null | undefined;
type Field<T> = readonly [name: string, kind: FieldKind, value: (item: T) => Value];
/** Fields over the items of one list, so that nothing is asked of a list that is empty, as most are. */
interface FieldGroup<S> { readonly names: readonly (readonly [name: string, kind: FieldKind])[]; readonly addTo: (terms: Terms, source: S) => void }

/** A record's terms in the making; a term is worked out once for all the records of a batch that have it, and stands in one list for all that have no other of its field. */
class Terms {
  readonly #context: Pick<FoldContext, 'term'>;
  readonly #known = new Map<string, Map<string, readonly [string]>>();
  made: Record<string, readonly string[]> = {};

  constructor(context: Pick<FoldContext, 'term'>) {
    this.#context = context;
  }

  add(field: string, value: string): void {
    let known = this.#known.get(field);
    if (known === undefined) this.#known.set(field, known = new Map<string, readonly [string]>());
    let alone = known.get(value);
    if (alone === undefined) known.set(value, alone = [termOf(field, this.#context, value)]);
    const terms = this.made[field];
    if (terms === undefined) this.made[field] = alone;
    else if (!terms.includes(alone[0])) this.made[field] = [...terms, alone[0]];
  }

  take(): Record<string, readonly string[]> {
    const { made } = this;
    this.made = {};
    return made;
  }
}

function fields<S, T>(items: (source: S) => readonly T[], of: readonly Field<T>[]): FieldGroup<S> {
  const addTo = (terms: Terms, source: S): void => {
    for (const item of items(source)) {
      for (const [name, , valueOf] of of) {
        const value = valueOf(item);
        if (value !== null && value !== undefined) terms.add(name, value);
      }
    }
  };
  return { names: of.map(([name, kind]) => [name, kind]), addTo };
}

const NONE: readonly never[] = [];
const one = <T>(item: T | null): readonly T[] => (item === null ? NONE : [item]);
const itself = (value: string): string => value;

const placeFields = (name: string): readonly Field<Place>[] => [
  [`${name}.extension`, 'sparse', (place) => place.extension], [`${name}.id`, 'sparse', (place) => place.id], [`${name}.name`, 'sparse', (place) => place.name],
  [`${name}.site.id`, 'sparse', (place) => place.site?.id], [`${name}.site.name`, 'sparse', (place) => place.site?.name],
];
const endpointFields = (name: string): readonly Field<Endpoint>[] => [
  [`${name}.extension`, 'sparse', (endpoint) => endpoint.extension], [`${name}.id`, 'sparse', (endpoint) => endpoint.id], [`${name}.name`, 'sparse', (endpoint) => endpoint.name],
  [`${name}.phoneNumber`, 'sparse', (endpoint) => endpoint.phoneNumber], [`${name}.type`, 'dense', (endpoint) => endpoint.type],
  [`${name}.department`, 'sparse', (endpoint) => endpoint.department], [`${name}.email`, 'sparse', (endpoint) => endpoint.email],
  [`${name}.site.id`, 'sparse', (endpoint) => endpoint.site?.id], [`${name}.site.name`, 'sparse', (endpoint) => endpoint.site?.name],
];

/** journey-apis-facts.md 1.4: the seed's 28 and the newest revision's 23. */
const RECORD_FIELDS: readonly FieldGroup<JourneyDocument>[] = [
  fields(({ row }) => row.agents, [
    ['agents.group.id', 'sparse', (agent) => agent.group?.id], ['agents.group.name', 'sparse', (agent) => agent.group?.name], ['agents.name', 'sparse', (agent) => agent.name],
    ['agents.department', 'sparse', (agent) => agent.department], ['agents.email', 'sparse', (agent) => agent.email],
    ['agents.site.id', 'sparse', (agent) => agent.site?.id], ['agents.site.name', 'sparse', (agent) => agent.site?.name], ['agents.type', 'dense', (agent) => agent.type],
  ]),
  fields(({ row }) => row.aiAgentInformation?.toolsUsedSuccessfully ?? NONE, [['aiAgentInformation.toolsUsedSuccessfully.name', 'sparse', (tool) => tool.name]]),
  fields(({ row }) => [row], [
    ['contact.email', 'keyed', (row) => row.contact.email], ['contact.name', 'keyed', (row) => row.contact.name], ['contact.phoneNumber', 'keyed', (row) => row.contact.phoneNumber],
    ['direction', 'dense', (row) => row.direction], ['outcome', 'dense', (row) => row.outcome],
  ]),
  fields(({ row }) => one(row.entryPoint), endpointFields('entryPoint')),
  fields(({ row }) => row.interactions, [['interactions.id', 'keyed', ({ id }) => id]]),
  // Every id that resolves to the journey, not only the one that it shows.
  fields(({ state }) => state.ids, [['journeyId', 'keyed', itself]]),
  fields(({ row }) => row.mediaTypes, [['mediaTypes', 'dense', itself]]),
  fields(({ row }) => one(row.origin), endpointFields('origin')),
  fields(({ row }) => phoneCodesOf(row), [
    ['outboundPhoneCodes.listName', 'sparse', (code) => code.listName], ['outboundPhoneCodes.name', 'sparse', (code) => code.name], ['outboundPhoneCodes.shortCode', 'sparse', (code) => code.shortCode],
  ]),
  fields(({ row }) => row.pbxNames, [['pbxNames', 'dense', itself]]),
  fields(({ row }) => row.queues, placeFields('queues')),
  fields(({ row }) => row.ringGroups, placeFields('ringGroups')),
  fields(({ row }) => row.tenantIds, [['tenantIds', 'dense', itself]]),
  fields(({ row }) => row.wrapUpCodes, [['wrapUpCodes', 'sparse', itself]]),
];

const agentFields = (name: string): readonly Field<Agent>[] => [
  [`${name}.name`, 'sparse', (agent) => agent.name], [`${name}.site.id`, 'sparse', (agent) => agent.site?.id],
  [`${name}.site.name`, 'sparse', (agent) => agent.site?.name], [`${name}.type`, 'dense', (agent) => agent.type],
];

/** journey-apis-facts.md 1.5, but for the three that are of the journey. */
const SUB_FIELDS: readonly FieldGroup<Transition>[] = [
  fields(({ agents }) => agents, agentFields('transitions.agents')),
  fields(({ previousAgents }) => previousAgents, agentFields('transitions.previousAgents')),
  fields((transition) => [transition], [['transitions.interactionId', 'sparse', ({ interactionId }) => interactionId], ['transitions.name', 'dense', ({ name }) => name]]),
  fields(({ queue }) => one(queue), placeFields('transitions.queue')),
  fields(({ previousQueue }) => one(previousQueue), placeFields('transitions.previousQueue')),
  fields(({ ringGroup }) => one(ringGroup), placeFields('transitions.ringGroup')),
  fields(({ previousRingGroup }) => one(previousRingGroup), placeFields('transitions.previousRingGroup')),
  fields(({ autoAttendant }) => one(autoAttendant), placeFields('transitions.autoAttendant')),
];
const OF_JOURNEY = ['journeyId', 'pbxNames', 'tenantIds'];

/** Exact and case-sensitive, but for mediaTypes, since the seed's own example asks for `phone` where the data says `Phone` (journey-apis-facts.md 1.10 #7). */
function termOf(field: string, keys: Pick<FoldContext, 'term'>, value: string): string {
  return keys.term(field, field === 'mediaTypes' ? value.toLowerCase() : value);
}

function filter(field: string, sub: boolean, kind: FieldKind): Filter {
  return { field, sub, kind, term: (keys, value) => termOf(field, keys, value) };
}

const RECORD_NAMES = RECORD_FIELDS.flatMap(({ names }) => names);
const SUB_NAMES = SUB_FIELDS.flatMap(({ names }) => names);

/** Name in a request's `filters` → how it is asked for. */
export const JOURNEY_FILTERS: Readonly<Record<string, Filter>> = Object.fromEntries(RECORD_NAMES.map(([name, kind]) => [name, filter(name, false, kind)]));
export const TRANSITION_FILTERS: Readonly<Record<string, Filter>> = Object.fromEntries([
  ...RECORD_NAMES.filter(([name]) => OF_JOURNEY.includes(name)).map(([name, kind]) => [name, filter(name, false, kind)] as const),
  ...SUB_NAMES.map(([name, kind]) => [name, filter(name, true, kind)] as const),
]);

/** The field of a journey's identities (keys of evidence): not a filter of the API, but how a customer's journeys are found. */
const IDENTITY = 'identity';

function recordOf(document: JourneyDocument, terms: Terms): RecordState {
  for (const { addTo } of RECORD_FIELDS) addTo(terms, document);
  for (const identity of document.row.identities) terms.add(IDENTITY, identity);
  return { time: msOf(document.row.at), id: document.row.journeyId, terms: terms.take() };
}

function subRecordOf(transition: Transition, terms: Terms): SubRecord {
  for (const { addTo } of SUB_FIELDS) addTo(terms, transition);
  return terms.take();
}

// ---- limits --------------------------------------------------------------------------------------------------------------

/** What a projection keeps at most; tests make it small. */
export interface JourneyLimits {
  /** Facts of an interaction; facts that a journey folds (design.md section 4). */
  readonly interactionFacts: number;
  readonly journeyFacts: number;
  /** Facts of a chunk `f/<node key>/<n>`; transitions of a chunk `t/<journey key>/<n>`. */
  readonly factChunk: number;
  readonly transitionChunk: number;
  /** Interactions that one id may link. */
  readonly neighbours: number;
}
export const LIMITS: JourneyLimits = { interactionFacts: 5000, journeyFacts: 5000, factChunk: 32, transitionChunk: 64, neighbours: 100 };

function lesser<T extends readonly string[]>(a: T | null, b: T | null): T | null {
  if (a === null || b === null) return a ?? b;
  for (let i = 0; i < a.length; i += 1) {
    const [x, y] = [a[i] ?? '', b[i] ?? ''];
    if (x !== y) return x < y ? a : b;
  }
  return a;
}

/** Inserts into a sorted list; false when it was there. */
function insertSorted(list: string[], item: string): boolean {
  let low = 0;
  let high = list.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((list[middle] ?? '') < item) low = middle + 1;
    else high = middle;
  }
  if (list[low] === item) return false;
  list.splice(low, 0, item);
  return true;
}

// ---- the fold of a batch ---------------------------------------------------------------------------------------------------

/** A node as this batch sees it. */
interface Node {
  readonly key: string;
  readonly document: NodeDocument;
  /** To be written. */
  changed: boolean;
  /** It had facts before this batch. */
  readonly stored: boolean;
  /** What this batch brought, in order, no fact twice; and what of it is new and was kept. */
  arrived: Placed[];
  accepted: Placed[];
  /** For the first time a fact was left out, or fell out. */
  cut: boolean;
  /** Its first fact or its explicit ids changed, by which journeys are named. */
  renamed: boolean;
  /** Chunks of its facts that are at hand. */
  readonly chunks: Map<number, FactPage>;
}

interface OldJourney { readonly document: JourneyDocument; readonly chunks: number; readonly contribution: Contribution; claimed: boolean }

/** Nodes that belong together from now on. */
interface Group {
  /** Keys of the journeys that go into it whole. */
  readonly journeys: Set<string>;
  /** Nodes of no journey yet, or of one that fell apart. */
  readonly loose: Node[];
  /** Nodes of those journeys that this batch speaks of. */
  readonly touched: Node[];
}
/** What becomes of a group. */
interface Plan {
  readonly group: Group;
  readonly key: string;
  readonly id: string;
  readonly first: First;
  readonly named: Named | null;
  /** The stored journey that goes on, when all that is new sorts after what it folded; else everything is folded anew. */
  readonly extend: OldJourney | null;
  members: Node[];
  facts: Placed[];
}

type Loading<T> = Generator<readonly string[], T, ReadonlyMap<string, Json>>;

function emptyNode(): NodeDocument {
  return { journey: null, interaction: null, explicitId: null, over: false, neighbours: [], explicit: [], first: null, last: null, truncated: false, chunks: 0, facts: new FactPage() };
}

class JourneyBatch {
  readonly #context: FoldContext;
  readonly #limits: JourneyLimits;
  readonly #nodes = new Map<string, Node>();
  readonly #keys = new Map<string, string>();
  readonly #old = new Map<string, OldJourney>();
  readonly #arrived = new Map<string, Placed[]>();
  /** Keys of nodes → how this batch names them. */
  readonly #interactions = new Map<string, InteractionId>();
  readonly #explicit = new Map<string, string>();
  readonly #edges: (readonly [Node, Node])[] = [];
  /** Nodes that this batch brought over the limit of links, with the neighbours that they had. */
  readonly #burst = new Map<Node, readonly string[]>();
  readonly #documents = new Map<string, Json>();
  readonly #records: RecordChange[] = [];
  readonly #outcomes: OutcomeDelta;
  /** Documents of the account's values that this batch names. */
  readonly #account = new Map<string, AccountValue>();
  readonly #terms: Terms;

  constructor(context: FoldContext, limits: JourneyLimits) {
    this.#context = context;
    this.#limits = limits;
    this.#outcomes = new OutcomeDelta(context);
    this.#terms = new Terms(context);
  }

  *run(events: readonly Interpreted[]): Fold {
    this.#gather(events);
    if (this.#arrived.size > 0) {
      yield* this.#loadNodes([...this.#interactions.keys(), ...this.#explicit.keys()]);
      this.#name();
      yield* this.#acceptFacts();
      this.#connect();
      const plans = yield* this.#plan(yield* this.#group());
      yield* this.#loadMembers(plans);
      yield* this.#loadFacts(plans);
      yield* this.#foldAll(plans);
      yield* this.#count();
      for (const node of this.#nodes.values()) if (node.changed) this.#put(`n/${node.key}`, node.document);
    }
    return { documents: this.#documents, records: this.#records };
  }

  // ---- reading what arrived ----

  #gather(events: readonly Interpreted[]): void {
    for (const { identity, interactionFacts } of events) {
      for (const fact of interactionFacts) {
        const key = this.#keyOf(fact.interaction);
        this.#interactions.set(key, fact.interaction);
        const placed = new Placed(fact, identity.evidence ? identity.key : null);
        const arrived = this.#arrived.get(key);
        if (arrived === undefined) this.#arrived.set(key, [placed]);
        else arrived.push(placed);
        if (fact.kind === 'started') this.#learnAccount(fact);
        else if (fact.kind === 'linked') this.#interactions.set(this.#keyOf(fact.to), fact.to);
        else if (fact.kind === 'journey') this.#explicit.set(this.#keyOf(fact.journeyId), fact.journeyId);
      }
    }
  }

  /** The same values that a journey's row takes, but of every event: the account has a PBX even where the fact was one too many for its journey. */
  #learnAccount({ pbx, tenant, entryPoint, origin }: Extract<InteractionFact, { kind: 'started' }>): void {
    for (const value of [pbx, entryPoint?.pbx, origin?.pbx]) if (typeof value === 'string') this.#account.set(accountKey(this.#context, 'pbx', value), { kind: 'pbx', value });
    for (const value of [tenant, entryPoint?.tenantId]) if (typeof value === 'string') this.#account.set(accountKey(this.#context, 'tenant', value), { kind: 'tenant', value });
  }

  #keyOf(id: string): string {
    const known = this.#keys.get(id);
    if (known !== undefined) return known;
    const key = nodeKey(this.#context, id);
    this.#keys.set(id, key);
    return key;
  }

  *#loadNodes(keys: Iterable<string>): Loading<void> {
    const missing = [...new Set(keys)].filter((key) => !this.#nodes.has(key));
    if (missing.length === 0) return;
    const found = yield missing.map((key) => `n/${key}`);
    for (const key of missing) {
      const document = (found.get(`n/${key}`) ?? null) as unknown as NodeDocument | null;
      this.#nodes.set(key, {
        key, document: document ?? emptyNode(), changed: document === null, stored: document !== null && document.first !== null,
        arrived: sortPlaced(this.#arrived.get(key) ?? []), accepted: [], cut: false, renamed: false, chunks: new Map(),
      });
    }
  }

  #node(key: string): Node {
    const node = this.#nodes.get(key);
    assert(node !== undefined, 'a node that is not at hand');
    return node;
  }

  /** What each node is. */
  #name(): void {
    for (const [key, id] of this.#interactions) {
      const node = this.#node(key);
      if (node.document.interaction === null) { node.document.interaction = id; node.changed = true; }
    }
    for (const [key, id] of this.#explicit) {
      const node = this.#node(key);
      if (node.document.explicitId === null) { node.document.explicitId = id; node.changed = true; }
    }
  }

  // ---- facts of each interaction ----

  *#acceptFacts(): Loading<void> {
    const nodes = [...this.#arrived.keys()].map((key) => this.#node(key));
    const early: Node[] = [];
    for (const node of nodes) {
      const { facts, chunks, last } = node.document;
      const order = node.arrived[0]?.order ?? '';
      if (last === null || order > last || chunks === 0) continue;
      if (facts.first === null || order < facts.first) early.push(node);
    }
    yield* this.#loadChunks(early.map((node) => [node, 0, node.document.chunks]));
    for (const node of nodes) {
      const { last } = node.document;
      if (last === null || (node.arrived[0]?.order ?? '') > last) this.#append(node);
      else this.#insert(node);
      const first = node.accepted[0]?.order;
      if (first === undefined || (node.document.first !== null && first >= node.document.first)) continue;
      node.document.first = first;
      node.renamed = true;
    }
  }

  *#loadChunks(wanted: readonly (readonly [node: Node, from: number, to: number])[]): Loading<void> {
    const missing: { node: Node; chunk: number; key: string }[] = [];
    for (const [node, from, to] of wanted) {
      for (let chunk = from; chunk < to; chunk += 1) if (!node.chunks.has(chunk)) missing.push({ node, chunk, key: `f/${node.key}/${chunk}` });
    }
    if (missing.length === 0) return;
    const found = yield missing.map(({ key }) => key);
    for (const { node, chunk, key } of missing) {
      const page = (found.get(key) ?? null) as unknown as FactPage | null;
      assert(page !== null, 'a chunk of facts that should be there');
      node.chunks.set(chunk, page);
    }
  }

  /** All that arrived sorts after what is stored, so nothing of that is looked at. */
  #append(node: Node): void {
    const { document, arrived } = node;
    const room = this.#limits.interactionFacts - document.chunks * this.#limits.factChunk - document.facts.size;
    if (arrived.length > room) this.#cutOff(node);
    node.accepted = arrived.length > room ? arrived.slice(0, Math.max(0, room)) : arrived;
    for (const placed of node.accepted) {
      document.facts.append(placed);
      node.changed = true;
      if (document.facts.size === this.#limits.factChunk) this.#closeChunk(node);
    }
    document.last = node.accepted.at(-1)?.order ?? document.last;
  }

  #closeChunk(node: Node): void {
    const { document } = node;
    node.chunks.set(document.chunks, document.facts);
    this.#putPage(node, document.chunks, document.facts);
    document.chunks += 1;
    document.facts = new FactPage();
  }

  #cutOff(node: Node): void {
    if (node.document.truncated) return;
    node.cut = true;
    node.document.truncated = true;
    node.changed = true;
  }

  /** Some of what arrived sorts before what is stored, or is stored already. Rewrites from the first place that changes. */
  #insert(node: Node): void {
    const { document } = node;
    const { factChunk, interactionFacts } = this.#limits;
    const { interaction } = document;
    assert(interaction !== null);
    // Either all chunks are at hand, or nothing arrived that sorts before the inline facts.
    const from = node.chunks.size === document.chunks ? 0 : document.chunks;
    const pages = from === 0 ? [...Array.from({ length: document.chunks }, (_, chunk) => node.chunks.get(chunk)), document.facts] : [document.facts];
    const known = pages.flatMap((page) => page?.facts(interaction) ?? []);
    const orders = new Set(known.map(({ order }) => order));
    const fresh = node.arrived.filter(({ order }) => !orders.has(order));
    if (fresh.length === 0) return;
    const room = interactionFacts - from * factChunk;
    const merged = [...known, ...fresh].sort(comparePlaced);
    if (merged.length > room) this.#cutOff(node);
    const kept = merged.slice(0, room);
    const last = kept.at(-1)?.order ?? '';
    node.accepted = fresh.filter(({ order }) => order <= last);
    if (node.accepted.length === 0) return;
    node.changed = true;
    document.last = last;
    const unchanged = Math.floor(kept.findIndex(({ order }) => !orders.has(order)) / factChunk);
    const full = Math.floor(kept.length / factChunk);
    for (let chunk = unchanged; chunk < full; chunk += 1) {
      const page = FactPage.of(kept.slice(chunk * factChunk, (chunk + 1) * factChunk));
      node.chunks.set(from + chunk, page);
      this.#putPage(node, from + chunk, page);
    }
    document.chunks = from + full;
    document.facts = FactPage.of(kept.slice(full * factChunk));
  }

  #putPage(node: Node, chunk: number, page: FactPage): void {
    this.#documents.set(`f/${node.key}/${chunk}`, page as unknown as Json);
  }

  // ---- the graph ----

  /** Links and explicit ids count wherever their fact stands, also past the limit of facts, so that the graph is a function of the set of events. */
  #connect(): void {
    for (const key of this.#arrived.keys()) {
      const node = this.#node(key);
      for (const { fact } of node.arrived) {
        if (fact.kind === 'linked') this.#addEdge(node, this.#node(this.#keyOf(fact.to)));
        else if (fact.kind === 'journey') {
          this.#addExplicit(node, fact.journeyId, fact.at);
          this.#addEdge(node, this.#node(this.#keyOf(fact.journeyId)));
        }
      }
    }
  }

  #addExplicit(node: Node, id: string, at: Instant): void {
    const { document } = node;
    if (document.over) return;
    const known = document.explicit.find(([one]) => one === id);
    if (known !== undefined && known[1] <= at) return;
    if (known === undefined) { document.explicit.push([id, at]); document.explicit.sort(([a], [b]) => (a < b ? -1 : 1)); } else known[1] = at;
    node.changed = true;
    node.renamed = true;
  }

  #addEdge(a: Node, b: Node): void {
    if (a === b) return;
    const added = [this.#addNeighbour(a, b.key), this.#addNeighbour(b, a.key)];
    if (added.includes(true)) this.#edges.push([a, b]);
  }

  #addNeighbour(node: Node, key: string): boolean {
    const { document } = node;
    if (document.over || !insertSorted(document.neighbours, key)) return false;
    node.changed = true;
    if (document.neighbours.length <= this.#limits.neighbours) return true;
    this.#burst.set(node, document.neighbours);
    document.over = true;
    document.neighbours = [];
    document.explicit = [];
    node.renamed = true;
    return true;
  }

  /** Visits nodes along edges that count, in rounds; `enter` says whether a node is gone into. */
  *#walk(starts: Iterable<string>, enter: (node: Node, from: string) => boolean): Loading<void> {
    let frontier = [...starts].map((key) => [key, key] as const);
    while (frontier.length > 0) {
      yield* this.#loadNodes(frontier.map(([key]) => key));
      const next: (readonly [string, string])[] = [];
      for (const [key, from] of frontier) {
        const node = this.#node(key);
        if (enter(node, from)) for (const neighbour of node.document.neighbours) next.push([neighbour, key]);
      }
      frontier = next;
    }
  }

  /** Nodes of this batch, by what they are connected to from now on. Journeys stand for all of their nodes, unless they fall apart. */
  *#group(): Loading<Group[]> {
    const fallen = new Set<string>();
    for (const { document } of this.#burst.keys()) if (document.journey !== null) fallen.add(document.journey);
    const loose = yield* this.#nodesOf(fallen);
    const forest = new Forest();
    const elementOf = ({ key, document: { journey } }: Node): string => (journey === null || fallen.has(journey) ? `n${key}` : `j${journey}`);
    const join = (a: Node, b: Node): void => { if (!a.document.over && !b.document.over) forest.join(elementOf(a), elementOf(b)); };
    for (const [a, b] of this.#edges) join(a, b);
    for (const node of loose) for (const neighbour of node.document.neighbours) join(node, this.#node(neighbour));
    const groups = new Map<string, Group>();
    const add = (node: Node): void => {
      const element = elementOf(node);
      const root = forest.root(element);
      let group = groups.get(root);
      if (group === undefined) groups.set(root, group = { journeys: new Set(), loose: [], touched: [] });
      if (element.startsWith('n')) { group.loose.push(node); return; }
      group.touched.push(node);
      if (node.document.journey !== null) group.journeys.add(node.document.journey);
    };
    // Those that were only looked at, to see whether an edge counts, belong to nothing that changes.
    const spokenOf = new Set<Node>([...this.#interactions.keys(), ...this.#explicit.keys()].map((key) => this.#node(key)));
    for (const node of new Set([...spokenOf, ...loose])) add(node);
    return [...groups.values()].filter(({ journeys, loose: some, touched }) => journeys.size !== 1 || some.length > 0 || touched.some(({ accepted, cut, renamed }) => accepted.length > 0 || cut || renamed));
  }

  /** All nodes of journeys that fall apart, with the neighbours of each at hand. */
  *#nodesOf(fallen: ReadonlySet<string>): Loading<Set<Node>> {
    const found = new Set<Node>();
    if (fallen.size === 0) return found;
    const starts = [...this.#burst].flatMap(([node, neighbours]) => [node.key, ...neighbours]);
    yield* this.#walk(starts, (node) => {
      const { journey } = node.document;
      if (journey === null || !fallen.has(journey) || found.has(node)) return false;
      found.add(node);
      return true;
    });
    return found;
  }

  // ---- which journeys there are from now on ----

  *#plan(groups: readonly Group[]): Loading<Plan[]> {
    const naming: string[] = [];
    const journeys = new Set<string>();
    for (const { journeys: some, loose, touched } of groups) {
      for (const key of some) journeys.add(key);
      for (const { document: { journey, explicit } } of [...loose, ...touched]) {
        if (journey !== null) journeys.add(journey);
        for (const [id] of explicit) naming.push(this.#keyOf(id));
      }
    }
    yield* this.#loadNodes(naming);
    yield* this.#loadJourneys(journeys);
    const plans: Plan[] = [];
    for (const group of groups) {
      const plan = this.#planOf(group);
      if (plan !== null) plans.push(plan);
      else for (const node of group.loose) this.#setJourney(node, null);
    }
    return plans;
  }

  *#loadJourneys(keys: ReadonlySet<string>): Loading<void> {
    if (keys.size === 0) return;
    const found = yield [...keys].map((key) => `j/${key}`);
    for (const key of keys) {
      const document = (found.get(`j/${key}`) ?? null) as unknown as JourneyDocument | null;
      assert(document !== null, 'a journey that its nodes name');
      this.#old.set(key, { document, chunks: document.chunks, contribution: contribution(document), claimed: false });
    }
  }

  #planOf(group: Group): Plan | null {
    const whole = [...group.journeys].map((key) => this.#oldJourney(key));
    let first: First | null = null;
    let named: Named | null = null;
    for (const { document } of whole) {
      first = lesser<First>(first, document.state.first);
      named = lesser<Named>(named, document.state.named);
    }
    for (const { key, document } of [...group.loose, ...group.touched]) {
      if (document.first === null) continue;
      first = lesser<First>(first, [document.first, key]);
      for (const [id, at] of document.explicit) {
        const name = this.#node(this.#keyOf(id));
        if (!name.document.over) named = lesser<Named>(named, [document.first, at, id]);
      }
    }
    if (first === null) return null;
    const id = named === null ? first[1] : named[2];
    const key = this.#keyOf(id);
    return { group, key, id, first, named, extend: this.#extends(group, key), members: [], facts: [] };
  }

  #oldJourney(key: string): OldJourney {
    const old = this.#old.get(key);
    assert(old !== undefined, 'a journey that is not at hand');
    return old;
  }

  #extends({ journeys, loose, touched }: Group, key: string): OldJourney | null {
    if (journeys.size !== 1 || !journeys.has(key) || loose.some(({ stored }) => stored)) return null;
    const old = this.#oldJourney(key);
    const { last } = old.document.state;
    const isLater = ({ accepted }: Node): boolean => last === null || (accepted[0]?.order ?? '~') > last;
    return loose.every(isLater) && touched.every(isLater) ? old : null;
  }

  #setJourney(node: Node, journey: string | null): void {
    if (node.document.journey === journey) return;
    node.document.journey = journey;
    node.changed = true;
  }

  // ---- what is to be folded ----

  /** All nodes of the journeys that are folded anew. */
  *#loadMembers(plans: readonly Plan[]): Loading<void> {
    const planOf = new Map<string, Plan>();
    for (const plan of plans) {
      const { loose, touched } = plan.group;
      if (plan.extend !== null) plan.members = loose;
      else for (const { key } of [...loose, ...touched]) planOf.set(key, plan);
    }
    const entered = new Set<Node>();
    yield* this.#walk([...planOf.keys()], (node, from) => {
      if (entered.has(node)) return false;
      // A node over the limit is alone: it is a start, or it is not gone into.
      if (node.document.over && from !== node.key) return false;
      const plan = planOf.get(from);
      assert(plan !== undefined);
      entered.add(node);
      planOf.set(node.key, plan);
      plan.members.push(node);
      return true;
    });
  }

  *#loadFacts(plans: readonly Plan[]): Loading<void> {
    const streams: Stream[] = [];
    for (const plan of plans) {
      const nodes = plan.extend === null ? plan.members : [...plan.group.loose, ...plan.group.touched];
      if (plan.extend !== null) plan.facts = sortPlaced(nodes.flatMap(({ accepted }) => accepted));
      else streams.push(new Stream(plan, nodes.filter(({ document }) => document.first !== null), this.#limits));
    }
    for (let open = streams; open.length > 0; open = open.filter((stream) => !stream.done)) {
      yield* this.#loadChunks(open.flatMap((stream) => stream.wanted()));
      for (const stream of open) stream.take();
    }
  }

  // ---- folding ----

  *#foldAll(plans: readonly Plan[]): Loading<void> {
    const chunks = new Map<Plan, Map<number, Transition[]>>();
    const wanted: { plan: Plan; chunk: number; key: string }[] = [];
    for (const plan of plans) {
      if (plan.extend === null || plan.facts.length === 0) continue;
      const { document } = plan.extend;
      const interactions = new Set(plan.facts.map(({ fact }) => fact.interaction));
      for (const chunk of chunksNeeded(document, document.state.timeline, interactions, this.#limits.transitionChunk)) wanted.push({ plan, chunk, key: `t/${plan.key}/${chunk}` });
    }
    const found: ReadonlyMap<string, Json> = wanted.length === 0 ? new Map<string, Json>() : yield wanted.map(({ key }) => key);
    for (const { plan, chunk, key } of wanted) {
      const transitions = (found.get(key) ?? null) as unknown as Transition[] | null;
      assert(transitions !== null, 'a chunk of transitions that should be there');
      const some = chunks.get(plan) ?? new Map<number, Transition[]>();
      chunks.set(plan, some.set(chunk, transitions));
    }
    for (const plan of plans) this.#fold(plan, chunks.get(plan) ?? new Map<number, Transition[]>());
    for (const [key, old] of this.#old) if (!old.claimed) this.#remove(key, old);
  }

  #fold(plan: Plan, chunks: ReadonlyMap<number, Transition[]>): void {
    const { key, extend, facts, members } = plan;
    const document = extend?.document ?? newDocument(plan);
    const { state } = document;
    const timeline = new Timeline(document, state.timeline, chunks, this.#limits.transitionChunk);
    const room = this.#limits.journeyFacts - state.count;
    if (facts.length > room) timeline.truncate();
    const folded = facts.length > room ? facts.slice(0, room) : facts;
    for (const { fact, identity } of folded) timeline.apply(fact, identity);
    state.count += folded.length;
    state.last = folded.at(-1)?.order ?? state.last;
    const spokenOf = extend === null ? members : [...plan.group.loose, ...plan.group.touched];
    if (spokenOf.some(({ document: { truncated } }) => truncated)) timeline.truncate();
    const change = timeline.finish();
    // Another id may have the same key: a text that is now said as an explicit id of the interaction that it names.
    let named = document.row.journeyId !== plan.id;
    document.row.journeyId = plan.id;
    for (const node of spokenOf) {
      for (const id of idsOf(node)) if (insertSorted(state.ids, id)) named = true;
    }
    state.first = plan.first;
    state.named = plan.named;
    for (const node of members) this.#setJourney(node, key);
    this.#store(plan, document, change, named || change.terms);
  }

  #store({ key, extend }: Plan, document: JourneyDocument, change: TimelineChange, terms: boolean): void {
    const old = this.#old.get(key) ?? null;
    if (old !== null) old.claimed = true;
    this.#put(`j/${key}`, document);
    for (const [chunk, transitions] of change.chunks) this.#documents.set(`t/${key}/${chunk}`, transitions as unknown as Json);
    const subs = new Map<number, readonly SubRecord[] | null>();
    for (const chunk of change.subs) subs.set(chunk, this.#subsOf(document, change, chunk));
    if (extend === null && old !== null) {
      for (let chunk = document.chunks; chunk < old.chunks; chunk += 1) this.#documents.set(`t/${key}/${chunk}`, null);
      for (let chunk = document.chunks; chunk <= old.chunks; chunk += 1) if (!subs.has(chunk)) subs.set(chunk, null);
    }
    if (extend === null || terms) this.#records.push({ key, state: recordOf(document, this.#terms), ...(subs.size > 0 ? { subs } : {}) });
    else if (subs.size > 0) this.#records.push({ key, subs });
    this.#outcomes.move(old?.contribution ?? null, contribution(document));
  }

  #subsOf(document: JourneyDocument, change: TimelineChange, chunk: number): readonly SubRecord[] | null {
    // What was taken back may have been the only one there.
    if (chunk > document.chunks) return null;
    const transitions = chunk === document.chunks ? document.transitions : change.chunks.get(chunk);
    assert(transitions !== undefined, 'a changed chunk is at hand');
    return transitions.length === 0 ? null : transitions.map((transition) => subRecordOf(transition, this.#terms));
  }

  #remove(key: string, { chunks, contribution: before }: OldJourney): void {
    this.#documents.set(`j/${key}`, null);
    for (let chunk = 0; chunk < chunks; chunk += 1) this.#documents.set(`t/${key}/${chunk}`, null);
    this.#records.push({ key, state: null });
    this.#outcomes.move(before, null);
  }

  *#count(): Loading<void> {
    const keys = this.#outcomes.keys();
    if (keys.length + this.#account.size === 0) return;
    const found = yield [...keys, ...this.#account.keys()];
    for (const [key, value] of this.#account) if ((found.get(key) ?? null) === null) this.#documents.set(key, value as unknown as Json);
    for (const key of keys) this.#documents.set(key, this.#outcomes.apply(key, (found.get(key) ?? null) as unknown as OutcomeCell | null) as unknown as Json);
  }

  #put(key: string, document: NodeDocument | JourneyDocument): void {
    this.#documents.set(key, document as unknown as Json);
  }
}

/** Key of the document that says that an account has this PBX or tenant. All of a kind stand between `a/<kind>/` and `a/<kind>0`, in order. */
export function accountKey(context: Pick<FoldContext, 'hash'>, kind: AccountKind, value: string): string {
  return `a/${kind}/${context.hash('account', kind, value)}`;
}

function sortPlaced(placed: Placed[]): Placed[] {
  if (placed.length < 2) return placed;
  placed.sort(comparePlaced);
  return placed.filter((one, i) => i === 0 || comparePlaced(one, placed[i - 1] as Placed) !== 0);
}

/** Ids by which a node can be asked for. */
function idsOf({ key, document: { interaction, explicitId } }: Node): string[] {
  return [...(interaction === null ? [] : [key]), ...(explicitId === null ? [] : [explicitId])];
}

/** What a journey adds to the outcomes. */
export function contribution(document: JourneyDocument): Contribution {
  const last = document.state.timeline.lastQueue;
  return contributionOf(document.row, last === null ? null : (document.row.queues.find((queue) => placeKey(queue) === last) ?? null));
}

function newDocument({ id, first, named }: Plan): JourneyDocument {
  const row = newRow();
  row.journeyId = id;
  const state: JourneyDocument['state'] = { count: 0, last: null, ids: [], first, named, timeline: newTimelineState() };
  return { row, participants: [], chunks: 0, transitions: [], state };
}

/** The first facts of a journey's interactions, in order: of each, no more chunks are read than the limit needs. */
class Stream {
  readonly #plan: Plan;
  readonly #limit: number;
  readonly #parts: { readonly node: Node; next: number; readonly facts: Placed[] }[];
  #size: number;
  /** Order of the last fact within the limit, of what has been read. */
  #bound: string | null = null;

  constructor(plan: Plan, nodes: readonly Node[], limits: JourneyLimits) {
    this.#plan = plan;
    this.#limit = limits.journeyFacts;
    this.#parts = nodes.map((node) => ({ node, next: 0, facts: [] }));
    const total = nodes.reduce((sum, { document }) => sum + document.chunks * limits.factChunk + document.facts.size, 0);
    // As a rule all of it is wanted, in one round; past the limit the portions double.
    this.#size = total <= limits.journeyFacts ? Infinity : 1;
  }

  get done(): boolean {
    return this.#open().length === 0;
  }

  /** Those of which more is to be read: what comes next may sort within the limit. Chunk `chunks` stands for the inline facts. */
  #open(): { readonly node: Node; next: number; readonly facts: Placed[] }[] {
    const bound = this.#bound;
    return this.#parts.filter(({ node: { document }, next, facts }) => next <= document.chunks && (bound === null || (facts.at(-1)?.order ?? document.first ?? '') <= bound));
  }

  wanted(): (readonly [Node, number, number])[] {
    return this.#open().map(({ node, next }) => [node, next, Math.min(node.document.chunks, next + this.#size)]);
  }

  take(): void {
    for (const part of this.#open()) {
      const { document, chunks, stored, accepted } = part.node;
      const { interaction } = document;
      assert(interaction !== null);
      if (!stored) {
        part.facts.push(...accepted);
        part.next = document.chunks + 1;
        continue;
      }
      const end = Math.min(document.chunks + 1, part.next + this.#size);
      for (; part.next < end; part.next += 1) {
        const page = part.next === document.chunks ? document.facts : chunks.get(part.next);
        if (page !== undefined) part.facts.push(...page.facts(interaction));
      }
    }
    this.#size *= 2;
    const facts = this.#parts.flatMap((part) => part.facts);
    const first = facts.length > this.#limit || this.#parts.length > 1 ? sortPlaced(facts) : facts;
    this.#bound = first[this.#limit - 1]?.order ?? null;
    // One more than the limit, so that the fold sees that there are more.
    this.#plan.facts = first.slice(0, this.#limit + 1);
  }
}

/** Which elements belong together (union by name, with path halving). */
class Forest {
  readonly #parents = new Map<string, string>();

  root(element: string): string {
    let at = element;
    for (let parent = this.#parents.get(at); parent !== undefined; parent = this.#parents.get(at)) {
      const above = this.#parents.get(parent);
      if (above !== undefined) this.#parents.set(at, above);
      at = parent;
    }
    return at;
  }

  join(a: string, b: string): void {
    const [x, y] = [this.root(a), this.root(b)];
    if (x !== y) this.#parents.set(x, y);
  }
}

// ---- the projection --------------------------------------------------------------------------------------------------------

/** The projection with limits of one's own, for tests. */
export function journeysWithin(limits: JourneyLimits): Projection {
  return {
    group: 'journeys',
    version: '5',
    ordered: ['a', 'o'],
    recordSpace: 'j',
    fields: { ...Object.fromEntries(RECORD_NAMES), [IDENTITY]: 'keyed' },
    subFields: Object.fromEntries(SUB_NAMES.map(([name, kind]) => { assert(kind !== 'keyed'); return [name, kind]; })),
    fold: (events, context) => new JourneyBatch(context, limits).run(events),
    pack: packDocument,
    unpack: unpackDocument,
  };
}

export const journeys: Projection = journeysWithin(LIMITS);
