// The group `persons`: who is the same person (design.md section 6). A deterministic function of the set of evidence and
// the policy.
//
// Every rule below is said of the set of evidence, never of the order in which it came:
//
//   pair      two identities that events join; it counts from the earliest (occurrence, event id) that says so.
//   shared    an identity paired with more than `limits.neighbours` values that are not temporary. Evidence only grows,
//             so it is shared for ever, and none of its pairs needs keeping on its side.
//   kept by x a pair that x counts: none where x is shared; of its temporary ids, the earliest `limits.temporary` a type.
//             (Streaming keeps exactly those: whatever was pushed out stays behind as many earlier ones, unless a new event
//             brings it forward, and then that event is the earliest.)
//   live      a pair that both ends keep. Live pairs are tried in their order; the others are refused as `shared`.
//
// A verdict depends on earlier verdicts alone, and a person only on pairs that touch it. So what changes is settled over
// whole stored persons: those that a changed pair touches, and, as they change, whichever of their neighbours they now
// take in. Persons beyond keep their verdicts, since every pair across the border was looked at anew and refused again.
// Work per changed pair: the persons whose members change, and their direct neighbours, of whom an identity has at most
// `limits.neighbours` + `limits.temporary` a temporary type. It does not grow with what refused pairs would connect.
import { compareFacts, type FactOrder, type Instant } from '../schemas/facts.ts';
import { foldType, NORMALISATION_VERSION, personIdOf } from '../schemas/identity.ts';
import { msOf } from '../schemas/time.ts';
import { compact, expand, listed, type Packed, Packer, unlisted, Unpacker } from './packing.ts';
import type { Changes, Fold, FoldContext, Interpreted, Json, Projection } from './projection.ts';

// Documents are type aliases, not interfaces, so that they are `Json` without a cast.

/** What names an alias was given, each field with the place of the fact that said it last. */
export type NameSaid = { at: Instant; tie: number; eventId: string; index: number; value: string | null };
export type Named = { firstName?: NameSaid; lastName?: NameSaid; name?: NameSaid };

/** One identity as a person's alias. `type` case-folded, `value` as its first occurrence spelt it; that occurrence is event `eventId` at `firstSeen`. */
export type Alias = { key: string; type: string; value: string; firstSeen: Instant; eventId: string; named?: Named };

export type Strength = 'operator' | 'veryStrong' | 'strong' | 'weak';

/** A pair of identities, `a` < `b`, with the earliest event that joins them. */
export type Evidence = { a: string; b: string; strength: Strength; at: Instant; eventId: string };

/**
 * `shared`: the other end is joined to more values (or more temporary ids of one type) than get automatic edges.
 * `veryStrongConflict`: both sides hold a very strong value of one type. `typeLimit`: it would take a type past its limit.
 */
export type RefusalReason = 'shared' | 'veryStrongConflict' | 'typeLimit';
/** One end is an alias of the person whose document it stands in; `type` is the other end's. */
export type RefusedEdge = { a: string; b: string; reason: RefusalReason; at: Instant; eventId: string; strength: Strength; type: string };

/** Document `p/<person id>`. Aliases by (firstSeen, key), so that the founder comes first; edges in the order in which they are tried. */
export type PersonDocument = {
  id: string;
  firstName: string | null;
  lastName: string | null;
  name: string | null;
  aliases: Alias[];
  /** The edges that joined the aliases, one fewer than these: the chain that `explain` walks. */
  evidence: Evidence[];
  /** Edges between aliases that earlier edges had joined already. */
  confirming: Evidence[];
  refused: RefusedEdge[];
};

/** Document `k/<identity key>`. `shared`: the value is a switchboard's or a household's, and joins nobody. */
export type IdentityDocument = { person: string; type: string; value: string; firstSeen: Instant; eventId: string; shared: boolean };

/** Document `w/types`: the identity types that the workspace has seen, in order of text, the first 200: what a look-up without a type tries (design.md section 3). */
export type SeenTypes = { types: string[] };
const SEEN_TYPES_MAX = 200;
export const SEEN_TYPES_KEY = 'w/types';

/** Document `a/<24 digits>`, for identities that founded no person (a founder's 24 digits name `p/…` itself): their key. */
export type PersonAlias = { key: string };

// ---- policy ----------------------------------------------------------------------------------------------------------

/** Types case-folded. What is listed under neither strength is weak. */
export interface Policy {
  readonly veryStrong: readonly string[];
  readonly strong: readonly string[];
  readonly temporary: readonly string[];
  readonly limits: {
    /** Other values, temporary ids not counted, above which a value is shared. */
    readonly neighbours: number;
    /** Values of one type that a person may hold. */
    readonly perType: number;
    /** Temporary ids of one type that a person may hold, and that an identity counts. */
    readonly temporary: number;
  };
}

export const DEFAULT_POLICY: Policy = {
  veryStrong: ['account', 'accountid', 'accountids', 'accountnumber', 'customer', 'customerid', 'customernumber', 'crmid', 'memberid', 'loyaltyid'],
  strong: ['email', 'emailaddress', 'emailaddresses'],
  temporary: ['cookie', 'cookieid', 'browserid', 'temporaryid', 'visitorid', 'anonymousid', 'sessionid'],
  limits: { neighbours: 20, perType: 5, temporary: 500 },
};

/** Operators' links come first (a later issue brings them, with the unlinks that `Parties.refusal` then has to honour). */
const STRENGTH_ORDER: Readonly<Record<Strength, number>> = { operator: 0, veryStrong: 1, strong: 2, weak: 3 };

/** A policy made ready to be asked. */
interface Rules {
  readonly limits: Policy['limits'];
  readonly strength: (type: string) => Strength;
  readonly temporary: (type: string) => boolean;
}

function rulesOf(policy: Policy): Rules {
  const veryStrong = new Set(policy.veryStrong);
  const strong = new Set(policy.strong);
  const temporary = new Set(policy.temporary);
  return {
    limits: policy.limits,
    strength: (type) => (veryStrong.has(type) ? 'veryStrong' : strong.has(type) ? 'strong' : 'weak'),
    temporary: (type) => temporary.has(type),
  };
}

/** FNV-1a over UTF-16 units, 8 hex digits: enough to tell the policies of one workspace apart in a version. */
function checksum(text: string): string {
  let sum = 0x811c9dc5;
  for (let i = 0; i < text.length; i += 1) sum = Math.imul(sum ^ text.charCodeAt(i), 0x01000193);
  return (sum >>> 0).toString(16).padStart(8, '0');
}

// ---- the projection --------------------------------------------------------------------------------------------------

/** The projection under a policy, which its version names. */
export function personsUnder(policy: Policy): Projection {
  const rules = rulesOf(policy);
  return {
    group: 'persons',
    version: `persons-3-n${NORMALISATION_VERSION}-${checksum(JSON.stringify(policy))}`,
    ordered: [],
    fields: {},
    subFields: {},
    fold: (events, context) => fold(events, context, rules),
    pack: packDocument,
    unpack: unpackDocument,
  };
}

export const persons: Projection = personsUnder(DEFAULT_POLICY);

/** Asks for documents by key, is handed them, and returns an answer: how the fold and the readers see what is stored. */
export type Lookup<Answer> = Generator<readonly string[], Answer, ReadonlyMap<string, Json>>;

function* fold(events: readonly Interpreted[], context: FoldContext, rules: Rules): Fold {
  const said = collect(events, context);
  const near = new Neighbourhood(rules);
  const newcomers = yield* near.meet(said);
  const seen = yield* seeTypes(newcomers);
  const news = near.hear(said);
  yield* near.bring(news.flatMap((edge) => [edge.a, edge.b]));
  near.open(news);
  yield* settle(near);
  const documents = near.changes();
  if (seen !== null) documents.set(SEEN_TYPES_KEY, seen);
  return { documents, records: [] } satisfies Changes;
}

/** The workspace's types with those of new identities among them; null when none is new. A set that only grows: its first 200 depend on no order of arrival. */
function* seeTypes(newcomers: readonly Mention[]): Lookup<SeenTypes | null> {
  if (newcomers.length === 0) return null;
  const stored = ((yield [SEEN_TYPES_KEY]).get(SEEN_TYPES_KEY) ?? { types: [] }) as SeenTypes;
  const types = new Set(stored.types);
  for (const { type } of newcomers) types.add(type);
  if (types.size === stored.types.length) return null;
  return { types: [...types].sort().slice(0, SEEN_TYPES_MAX) };
}

// ---- what events say -------------------------------------------------------------------------------------------------

interface Mention { readonly key: string; readonly type: string; readonly value: string }
type Sighting = Mention & Said;
/** When, and by which event. */
interface Said { readonly at: Instant; readonly eventId: string }
type Pair = Said & { readonly a: string; readonly b: string };

/** What a batch says, each thing once: identities and pairs by their earliest event, names by their latest fact. */
interface Sayings {
  readonly sightings: Map<string, Sighting>;
  readonly pairs: Map<string, Pair>;
  readonly names: Map<string, Named>;
}

function precedes(one: Said, other: Said): boolean {
  return one.at === other.at ? one.eventId < other.eventId : one.at < other.at;
}

function pairKey(a: string, b: string): string { return `${a}:${b}`; }

function collect(events: readonly Interpreted[], context: FoldContext): Sayings {
  const said: Sayings = { sightings: new Map(), pairs: new Map(), names: new Map() };
  for (const event of events) {
    const { identity, at, eventId } = event;
    // As nearly every event is: it says no more than that its customer was there.
    if (event.customerFacts.length === 0 && !identity.anonymous) {
      const seen = said.sightings.get(identity.key);
      if (seen === undefined || precedes(event, seen)) said.sightings.set(identity.key, { key: identity.key, type: foldType(identity.type), value: identity.value, at, eventId });
      continue;
    }
    const others = identifiersOf(event, context);
    const own: Mention | undefined = identity.anonymous ? undefined : { key: identity.key, type: foldType(identity.type), value: identity.value };
    // Nobody's event, and one known by its subject, may still name identifiers of one customer: they belong to the first.
    const anchor = identity.evidence ? own : others[0];
    for (const mention of own === undefined ? others : [own, ...others]) {
      const known = said.sightings.get(mention.key);
      if (known === undefined || precedes({ at, eventId }, known)) said.sightings.set(mention.key, { ...mention, at, eventId });
    }
    if (anchor !== undefined) for (const other of others) joinPair(said.pairs, anchor.key, other.key, { at, eventId });
    const bearer = anchor ?? own;
    if (bearer !== undefined) collectNames(event, bearer.key, said.names);
  }
  return said;
}

/** The identifiers that an event gives its customer, in its own order; empty and anonymous ones are nobody's. */
function identifiersOf(event: Interpreted, context: FoldContext): Mention[] {
  const found: Mention[] = [];
  for (const fact of event.customerFacts) {
    if (fact.kind !== 'identifiers') continue;
    for (const { type, value } of fact.identifiers) {
      const key = context.identityKey(type, value);
      if (key !== null) found.push({ key, type: foldType(type), value });
    }
  }
  return found;
}

function joinPair(pairs: Map<string, Pair>, one: string, other: string, { at, eventId }: Said): void {
  if (one === other) return;
  const [a, b] = one < other ? [one, other] : [other, one];
  const key = pairKey(a, b);
  const known = pairs.get(key);
  if (known === undefined || precedes({ at, eventId }, known)) pairs.set(key, { a, b, at, eventId });
}

function collectNames(event: Interpreted, key: string, names: Map<string, Named>): void {
  for (const fact of event.customerFacts) {
    if (fact.kind !== 'named') continue;
    const { at, tie, eventId, index } = fact;
    const said = (value: string | null | undefined): NameSaid | undefined => (value === undefined ? undefined : { at, tie, eventId, index, value });
    names.set(key, latestNames(names.get(key) ?? {}, namedOf(said(fact.firstName), said(fact.lastName), said(fact.name))));
  }
}

/** Keys in one order, and none without a value, as the text of a document is compared. */
function namedOf(firstName?: NameSaid, lastName?: NameSaid, name?: NameSaid): Named {
  return { ...(firstName && { firstName }), ...(lastName && { lastName }), ...(name && { name }) };
}

function latestNames(one: Named, other: Named): Named {
  return namedOf(latest(one.firstName, other.firstName), latest(one.lastName, other.lastName), latest(one.name, other.name));
}

/** By the one order of facts; the first where both are the same fact. */
function latest(one: NameSaid | undefined, other: NameSaid | undefined): NameSaid | undefined {
  if (one === undefined || other === undefined) return one ?? other;
  const asFact = ({ at, tie, eventId, index }: FactOrder): { kind: 'named' } & FactOrder => ({ kind: 'named', at, tie, eventId, index });
  return compareFacts(asFact(one), asFact(other)) < 0 ? other : one;
}

// ---- what is stored around it ----------------------------------------------------------------------------------------

type Verdict = 'joined' | 'confirming' | RefusalReason;

/** A pair in memory. `stored`: its verdict in the documents, null for a new one; it is live there unless `shared`. `moved`: this batch says it for the first time, or from an earlier event. */
interface Edge {
  readonly a: string;
  readonly b: string;
  readonly typeA: string;
  readonly typeB: string;
  readonly strength: Strength;
  at: Instant;
  eventId: string;
  readonly stored: Verdict | null;
  moved: boolean;
  verdict: Verdict | null;
}

type Ranked = Pick<Edge, 'a' | 'b' | 'strength' | 'at' | 'eventId'>;

/** The order in which edges are tried: total, since a pair stands in it once. */
function compareEdges(one: Ranked, other: Ranked): number {
  if (one.strength !== other.strength) return STRENGTH_ORDER[one.strength] - STRENGTH_ORDER[other.strength];
  if (one.at !== other.at) return one.at < other.at ? -1 : 1;
  if (one.eventId !== other.eventId) return one.eventId < other.eventId ? -1 : 1;
  return pairKey(one.a, one.b) < pairKey(other.a, other.b) ? -1 : 1;
}

function otherEnd(edge: Edge, key: string): { readonly key: string; readonly type: string } {
  return edge.a === key ? { key: edge.b, type: edge.typeB } : { key: edge.a, type: edge.typeA };
}

function wasLive(edge: Edge): boolean { return edge.stored !== null && edge.stored !== 'shared'; }

function push<Item>(lists: Map<string, Item[]>, key: string, item: Item): void {
  const list = lists.get(key);
  if (list === undefined) lists.set(key, [item]);
  else list.push(item);
}

const NONE: ReadonlySet<Edge> = new Set();

/**
 * The part of the stored world that a batch has to see, and the batch's news in it. A *home* is a stored person, named
 * by its id, or an identity that is new, named by its key; an *open* home is to be settled anew. Nothing that was handed
 * in is changed: the projector keeps it in memory.
 */
class Neighbourhood {
  readonly rules: Rules;
  readonly edges = new Map<string, Edge>();
  /** Identity → home. Known for every identity of the batch and every alias of a person brought. */
  readonly homes = new Map<string, string>();
  readonly opened = new Set<string>();
  /** Home → the first changed edge that touches it, in the order of trying. */
  readonly since = new Map<string, Edge>();
  readonly #stored = new Map<string, PersonDocument>();
  readonly #members = new Map<string, string[]>();
  readonly #aliases = new Map<string, Alias>();
  readonly #adjacent = new Map<string, Edge[]>();
  readonly #shared = new Set<string>();
  /** Identities whose own document changes whatever becomes of their person. */
  readonly #changed = new Set<string>();
  #cuts = new Map<string, ReadonlySet<Edge>>();

  constructor(rules: Rules) { this.rules = rules; }

  // -- reading

  /** Reads the identities of a batch, and the persons of those about whom it may say something new. Answers with the identities that are new. */
  *meet(said: Sayings): Lookup<readonly Mention[]> {
    const newcomers: Mention[] = [];
    const keys = [...said.sightings.keys()];
    const found = keys.length === 0 ? new Map<string, Json>() : yield keys.map((key) => `k/${key}`);
    const wanted = new Set(said.names.keys());
    for (const sighting of said.sightings.values()) {
      const { key, at, eventId } = sighting;
      const identity = (found.get(`k/${key}`) ?? null) as IdentityDocument | null;
      if (identity === null) {
        newcomers.push(sighting);
        this.#settleNewcomer(sighting);
      } else {
        this.homes.set(key, identity.person);
        if (identity.shared) this.#shared.add(key);
        if (precedes({ at, eventId }, { at: identity.firstSeen, eventId: identity.eventId })) wanted.add(key);
      }
    }
    for (const { a, b } of said.pairs.values()) for (const end of [a, b]) if (!this.#shared.has(end)) wanted.add(end);
    yield* this.bring(wanted);
    return newcomers;
  }

  #settleNewcomer({ key, type, value, at, eventId }: Sighting): void {
    this.homes.set(key, key);
    this.#members.set(key, [key]);
    this.#aliases.set(key, { key, type, value, firstSeen: at, eventId });
    this.#changed.add(key);
    this.opened.add(key);
  }

  /** Brings the persons of these identities, all of which exist. */
  *bring(keys: Iterable<string>): Lookup<void> {
    const wanted = [...new Set(keys)];
    const strangers = wanted.filter((key) => !this.homes.has(key));
    if (strangers.length > 0) {
      const found = yield strangers.map((key) => `k/${key}`);
      for (const key of strangers) this.homes.set(key, (found.get(`k/${key}`) as IdentityDocument).person);
    }
    const missing = [...new Set(wanted.map((key) => this.homeOf(key)))].filter((home) => !this.#members.has(home));
    if (missing.length === 0) return;
    const found = yield missing.map((home) => `p/${home}`);
    for (const home of missing) this.#take(found.get(`p/${home}`) as PersonDocument);
  }

  #take(person: PersonDocument): void {
    this.#stored.set(person.id, person);
    this.#members.set(person.id, person.aliases.map(({ key }) => key));
    const types = new Map<string, string>();
    for (const alias of person.aliases) {
      types.set(alias.key, alias.type);
      this.homes.set(alias.key, person.id);
      this.#aliases.set(alias.key, alias);
    }
    const add = (edge: Evidence, outside: string, stored: Verdict): void => {
      if (this.edges.has(pairKey(edge.a, edge.b))) return;
      const { a, b, strength, at, eventId } = edge;
      this.#add({ a, b, typeA: types.get(a) ?? outside, typeB: types.get(b) ?? outside, strength, at, eventId, stored, moved: false, verdict: stored });
    };
    for (const edge of person.evidence) add(edge, '', 'joined');
    for (const edge of person.confirming) add(edge, '', 'confirming');
    for (const edge of person.refused) add(edge, edge.type, edge.reason);
    this.#cuts = new Map();
  }

  #add(edge: Edge): Edge {
    this.edges.set(pairKey(edge.a, edge.b), edge);
    for (const key of [edge.a, edge.b]) push(this.#adjacent, key, edge);
    return edge;
  }

  homeOf(key: string): string {
    const home = this.homes.get(key);
    if (home === undefined) throw new Error('assertion: the home of an identity was not looked up');
    return home;
  }

  aliasOf(key: string): Alias {
    const alias = this.#aliases.get(key);
    if (alias === undefined) throw new Error('assertion: the person of an identity was not brought');
    return alias;
  }

  /** Whether the home's document (or newcomer) is at hand; false also for an identity whose home is unknown. */
  isHere(key: string): boolean {
    const home = this.homes.get(key);
    return home !== undefined && this.#members.has(home);
  }

  membersOf(home: string): readonly string[] { return this.#members.get(home) ?? []; }

  // -- the rules of the set: kept, shared, live

  /** Whether `key` counts this edge. Right for identities whose person is at hand: its document holds all that they keep. */
  keeps(key: string, edge: Edge): boolean {
    return !this.#shared.has(key) && !(this.rules.temporary(otherEnd(edge, key).type) && this.#cutAt(key).has(edge));
  }

  /** Edges to temporary ids past those that an identity counts. */
  #cutAt(key: string): ReadonlySet<Edge> {
    const known = this.#cuts.get(key);
    if (known !== undefined) return known;
    const cut = this.#findCuts(key);
    this.#cuts.set(key, cut);
    return cut;
  }

  #findCuts(key: string): ReadonlySet<Edge> {
    const edges = this.#adjacent.get(key) ?? [];
    const { temporary: most } = this.rules.limits;
    if (edges.length <= most) return NONE;
    const byType = new Map<string, Edge[]>();
    for (const edge of edges) {
      const { type } = otherEnd(edge, key);
      if (this.rules.temporary(type)) push(byType, type, edge);
    }
    return new Set([...byType.values()].flatMap((ofType) => ofType.sort(compareEdges).slice(most)));
  }

  isLive(edge: Edge): boolean {
    return (wasLive(edge) || edge.moved) && this.keeps(edge.a, edge) && this.keeps(edge.b, edge);
  }

  // -- news

  /** Takes in what the batch says. Answers with the edges that came, moved, or are live no longer. */
  hear(said: Sayings): Edge[] {
    for (const sighting of said.sightings.values()) this.#hearSighting(sighting);
    for (const [key, named] of said.names) this.#hearNames(key, named);
    const news = [...said.pairs.values()].map((pair) => this.#hearPair(pair, said)).filter((edge) => edge !== null);
    const ends = new Set(news.flatMap(({ a, b }) => [a, b]));
    for (const end of ends) if (!this.#shared.has(end) && this.#isCrowded(end)) this.#share(end);
    this.#cuts = new Map();
    const gone = [...ends].flatMap((end) => (this.#adjacent.get(end) ?? []).filter((edge) => wasLive(edge) && !this.isLive(edge)));
    return [...new Set([...news, ...gone])];
  }

  #hearSighting({ key, type, value, at, eventId }: Sighting): void {
    const alias = this.#aliases.get(key);
    if (alias === undefined || !precedes({ at, eventId }, { at: alias.firstSeen, eventId: alias.eventId })) return;
    this.#aliases.set(key, { ...alias, type, value, firstSeen: at, eventId });
    this.#changed.add(key);
    this.opened.add(this.homeOf(key));
  }

  #hearNames(key: string, named: Named): void {
    const alias = this.aliasOf(key);
    const names = latestNames(alias.named ?? {}, named);
    if (JSON.stringify(names) === JSON.stringify(alias.named ?? {})) return;
    this.#aliases.set(key, { ...alias, named: names });
    this.opened.add(this.homeOf(key));
  }

  #hearPair({ a, b, at, eventId }: Pair, said: Sayings): Edge | null {
    if (this.#shared.has(a) && this.#shared.has(b)) return null;
    const known = this.edges.get(pairKey(a, b));
    if (known !== undefined) {
      if (!precedes({ at, eventId }, known)) return null;
      return Object.assign(known, { at, eventId, moved: true });
    }
    const typeA = said.sightings.get(a)?.type ?? '';
    const typeB = said.sightings.get(b)?.type ?? '';
    const strengths = [this.rules.strength(typeA), this.rules.strength(typeB)] as const;
    const strength = STRENGTH_ORDER[strengths[0]] < STRENGTH_ORDER[strengths[1]] ? strengths[1] : strengths[0];
    return this.#add({ a, b, typeA, typeB, strength, at, eventId, stored: null, moved: true, verdict: null });
  }

  #isCrowded(key: string): boolean {
    const lasting = (this.#adjacent.get(key) ?? []).filter((edge) => !this.rules.temporary(otherEnd(edge, key).type));
    return lasting.length > this.rules.limits.neighbours;
  }

  #share(key: string): void {
    this.#shared.add(key);
    this.#changed.add(key);
    this.opened.add(this.homeOf(key));
  }

  /** Opens the homes that news touch. An edge that was refused before it was tried, and still is, only stands in the lists of those who keep it. */
  open(news: readonly Edge[]): void {
    for (const edge of news) {
      const tried = wasLive(edge) || this.isLive(edge);
      for (const end of [edge.a, edge.b]) {
        if (tried) this.disturb(end, edge);
        else if (this.keeps(end, edge)) this.opened.add(this.homeOf(end));
      }
    }
  }

  /** From this edge on, the end's home is not what it was. */
  disturb(end: string, edge: Edge): void {
    const home = this.homeOf(end);
    this.opened.add(home);
    const first = this.since.get(home);
    if (first === undefined || compareEdges(edge, first) < 0) this.since.set(home, edge);
  }

  // -- writing

  /** What changes in the documents, after `settle`. */
  changes(): Map<string, Json> {
    const documents = new Map<string, Json>();
    for (const home of this.opened) if (this.#stored.has(home)) documents.set(`p/${home}`, null);
    for (const members of this.#parties()) this.#writePerson(members, documents);
    this.#writeNeighbours(documents);
    return documents;
  }

  /** The members of open homes, by the edges that now join them. */
  #parties(): Iterable<readonly string[]> {
    const parties = new Parties(this.rules);
    for (const home of this.opened) for (const key of this.membersOf(home)) parties.enter(key, this.aliasOf(key).type);
    for (const edge of this.edges.values()) if (edge.verdict === 'joined' && parties.has(edge.a)) parties.join(edge);
    return parties.all();
  }

  #writePerson(members: readonly string[], documents: Map<string, Json>): void {
    const person = this.#personOf(members);
    for (const alias of person.aliases) {
      const home = this.homeOf(alias.key);
      const own = personIdOf(alias.key);
      if (home !== person.id || this.#changed.has(alias.key)) {
        const { type, value, firstSeen, eventId } = alias;
        documents.set(`k/${alias.key}`, { person: person.id, type, value, firstSeen, eventId, shared: this.#shared.has(alias.key) } satisfies IdentityDocument);
      }
      const pointed = home !== alias.key && home !== own;
      if (pointed !== (person.id !== own)) documents.set(`a/${own}`, pointed ? null : { key: alias.key } satisfies PersonAlias);
    }
    const stored = this.#stored.get(person.id);
    const alike = stored?.aliases.length === person.aliases.length && JSON.stringify(stored) === JSON.stringify(person);
    if (alike) documents.delete(`p/${person.id}`);
    else documents.set(`p/${person.id}`, person);
  }

  #personOf(members: readonly string[]): PersonDocument {
    const aliases = members.map((key) => this.aliasOf(key)).sort(compareAliases);
    const within = new Set(members);
    const edges = new Set<Edge>();
    for (const key of members) for (const edge of this.#adjacent.get(key) ?? []) if (this.keeps(key, edge)) edges.add(edge);
    const sorted = [...edges].sort(compareEdges);
    const refusedOf = (edge: Edge): RefusedEdge[] => {
      const { a, b, strength, at, eventId, verdict, typeA, typeB } = edge;
      if (verdict === null || verdict === 'joined' || verdict === 'confirming') return [];
      // Both ends are within only where one has too many temporary ids to count the other, which was joined another way.
      const outside = within.has(a) && (!within.has(b) || this.keeps(a, edge)) ? typeB : typeA;
      return [{ a, b, reason: verdict, at, eventId, strength, type: outside }];
    };
    return {
      id: personIdOf(aliases[0]?.key ?? ''),
      ...namesOf(aliases),
      aliases,
      evidence: sorted.filter(({ verdict }) => verdict === 'joined').map(evidenceOf),
      confirming: sorted.filter(({ verdict }) => verdict === 'confirming').map(evidenceOf),
      refused: sorted.flatMap(refusedOf),
    };
  }

  /** A neighbour that stays as it is may have to tell another reason why. */
  #writeNeighbours(documents: Map<string, Json>): void {
    for (const edge of this.edges.values()) {
      if (edge.stored === null || edge.stored === edge.verdict) continue;
      for (const key of [edge.a, edge.b]) {
        const home = this.homes.get(key);
        const person = home === undefined || this.opened.has(home) ? undefined : this.#stored.get(home);
        if (person === undefined) continue;
        const { refused, ...rest } = (documents.get(`p/${person.id}`) as PersonDocument | undefined) ?? person;
        const told = refused.map((entry) => (entry.a === edge.a && entry.b === edge.b ? { ...entry, reason: edge.verdict as RefusalReason } : entry));
        documents.set(`p/${person.id}`, { ...rest, refused: told });
      }
    }
  }
}

function compareAliases(one: Alias, other: Alias): number {
  if (one.firstSeen !== other.firstSeen) return one.firstSeen < other.firstSeen ? -1 : 1;
  return one.key < other.key ? -1 : 1;
}

function evidenceOf({ a, b, strength, at, eventId }: Edge): Evidence {
  return { a, b, strength, at, eventId };
}

// ---- trying edges ----------------------------------------------------------------------------------------------------

interface Party { readonly members: string[]; readonly types: Map<string, number> }

/** Disjoint sets of identities, with how many values of each type they hold. */
class Parties {
  readonly #rules: Rules;
  readonly #of = new Map<string, Party>();

  constructor(rules: Rules) { this.#rules = rules; }

  enter(key: string, type: string): void {
    this.#of.set(key, { members: [key], types: new Map([[type, 1]]) });
  }

  has(key: string): boolean { return this.#of.has(key); }

  all(): Iterable<readonly string[]> { return [...new Set(this.#of.values())].map(({ members }) => members); }

  #party(key: string): Party {
    const party = this.#of.get(key);
    if (party === undefined) throw new Error('assertion: an edge was tried before its ends had entered');
    return party;
  }

  areOne({ a, b }: Ranked): boolean { return this.#party(a) === this.#party(b); }

  /** Why this edge may not join what it would; null when it may. Both hold for every larger pair of sides too, so a refused edge's ends never meet. */
  refusal({ a, b }: Ranked): RefusalReason | null {
    const one = this.#party(a);
    const other = this.#party(b);
    const [few, many] = one.types.size < other.types.size ? [one, other] : [other, one];
    const met = [...few.types].map(([type, count]) => ({ type, here: count, there: many.types.get(type) ?? 0 })).filter(({ there }) => there > 0);
    if (met.some(({ type }) => this.#rules.strength(type) === 'veryStrong')) return 'veryStrongConflict';
    const { temporary, perType } = this.#rules.limits;
    return met.some(({ type, here, there }) => here + there > (this.#rules.temporary(type) ? temporary : perType)) ? 'typeLimit' : null;
  }

  /** The smaller side moves, so that n identities move n log n times at most. */
  join({ a, b }: Ranked): void {
    const one = this.#party(a);
    const other = this.#party(b);
    if (one === other) return;
    const [few, many] = one.members.length < other.members.length ? [one, other] : [other, one];
    for (const key of few.members) {
      many.members.push(key);
      this.#of.set(key, many);
    }
    for (const [type, count] of few.types) many.types.set(type, (many.types.get(type) ?? 0) + count);
  }
}

/**
 * Gives every edge of the open homes its verdict. Each pass tries all edges at hand in their order; it is the last one
 * when no edge would have taken in a home that is closed or not at hand. An edge to such a home that comes before
 * anything changed in its own home keeps its verdict unread: an edge that sorts last is so tried on the stored result.
 * Passes: one, and one or two for each step by which a change spreads from person to person.
 */
function* settle(near: Neighbourhood): Lookup<void> {
  if (near.opened.size === 0) return;
  for (;;) {
    const { strangers, taken } = tryEdges(near);
    if (strangers.size === 0 && taken.size === 0) return;
    for (const home of taken) near.opened.add(home);
    yield* near.bring(strangers);
  }
}

interface Pass {
  /** Identities whose persons have to be seen. */
  readonly strangers: Set<string>;
  /** Closed homes that an edge would have joined to an open one. */
  readonly taken: Set<string>;
}

function tryEdges(near: Neighbourhood): Pass {
  const pass: Pass = { strangers: new Set(), taken: new Set() };
  const parties = new Parties(near.rules);
  for (const [key] of near.homes) if (near.isHere(key)) parties.enter(key, near.aliasOf(key).type);
  for (const edge of edgesToTry(near)) {
    const [openA, openB] = [isOpen(near, edge.a), isOpen(near, edge.b)];
    if (!openA && !openB) parties.join(edge);
    else if (!near.isHere(edge.a) || !near.isHere(edge.b)) lookBeyond(near, edge, openA ? edge.a : edge.b, pass);
    else if (openA && openB) tryBetweenOpen(near, edge, parties);
    else tryAtBorder(near, edge, parties, pass);
  }
  return pass;
}

function isOpen(near: Neighbourhood, key: string): boolean {
  const home = near.homes.get(key);
  return home !== undefined && near.opened.has(home);
}

/** Live edges with an end in an open home, and the edges that made the closed ones what they are; in order. Those that are not live are refused at once. */
function edgesToTry(near: Neighbourhood): Edge[] {
  const found: Edge[] = [];
  for (const edge of near.edges.values()) {
    if (!isOpen(near, edge.a) && !isOpen(near, edge.b)) {
      if (edge.stored === 'joined') found.push(edge);
    } else if (near.isLive(edge)) found.push(edge);
    else edge.verdict = 'shared';
  }
  return found.sort(compareEdges);
}

function lookBeyond(near: Neighbourhood, edge: Edge, end: string, pass: Pass): void {
  const since = near.since.get(near.homeOf(end));
  if (since !== undefined && compareEdges(since, edge) < 0) pass.strangers.add(otherEnd(edge, end).key);
}

function tryBetweenOpen(near: Neighbourhood, edge: Edge, parties: Parties): void {
  if (parties.areOne(edge)) {
    edge.verdict = 'confirming';
    return;
  }
  const refusal = parties.refusal(edge);
  edge.verdict = refusal ?? 'joined';
  if (refusal !== null) return;
  parties.join(edge);
  if (near.homeOf(edge.a) === near.homeOf(edge.b)) return;
  near.disturb(edge.a, edge);
  near.disturb(edge.b, edge);
}

function tryAtBorder(near: Neighbourhood, edge: Edge, parties: Parties, pass: Pass): void {
  const refusal = parties.refusal(edge);
  if (refusal !== null) edge.verdict = refusal;
  else for (const end of [edge.a, edge.b]) if (!isOpen(near, end)) pass.taken.add(near.homeOf(end));
}

// ---- documents as they are stored --------------------------------------------------------------------------------------

/** `p` persons and `k` identities, which are nearly all that is stored; the others as they are. */
function packDocument(key: string, document: Json, packer = new Packer()): string {
  switch (key.slice(0, 2)) {
    case 'p/': return JSON.stringify(packPerson(document as PersonDocument, packer));
    case 'k/': return JSON.stringify(packIdentity(key.slice(2), document as IdentityDocument, packer));
    default: return JSON.stringify(document);
  }
}

/** A stored document of this key (without the workspace). */
export function unpackDocument(key: string, text: string): Json {
  switch (key.slice(0, 2)) {
    case 'p/': return unpackPerson(key.slice(2), text);
    case 'k/': return unpackIdentity(key.slice(2), text);
    default: return JSON.parse(text) as Json;
  }
}

function packIdentity(own: string, { person, type, value, firstSeen, eventId, shared }: IdentityDocument, packer: Packer): Packed[] {
  const to = packer.start(own, msOf(firstSeen));
  const said = compact([person === personIdOf(own) ? null : person, to.text(type), value, to.text(eventId), shared ? true : null, to.instant(firstSeen)]);
  const [ids, texts] = to.tables();
  return [to.baseMs, said, ids ?? null, texts ?? null];
}

function unpackIdentity(own: string, text: string): IdentityDocument {
  const [baseMs, said, ids, texts] = JSON.parse(text) as [number, Packed, Packed, Packed];
  const from = new Unpacker(own, baseMs, [ids, texts]);
  const [person, type, value, eventId, shared, firstSeen] = expand(said, 6);
  return { person: (person ?? personIdOf(own)) as string, type: from.text(type), value: value as string, firstSeen: from.instant(firstSeen), eventId: from.text(eventId), shared: shared === true };
}

/** The names of a person are those of its aliases, so they are not stored twice. */
function namesOf(aliases: readonly Alias[]): Pick<PersonDocument, 'firstName' | 'lastName' | 'name'> {
  const named = aliases.reduce<Named>((names, alias) => latestNames(names, alias.named ?? {}), {});
  return { firstName: named.firstName?.value ?? null, lastName: named.lastName?.value ?? null, name: named.name?.value ?? null };
}

/** The founder's key begins with the person's id: what follows is stored. */
function packPerson({ id, aliases, evidence, confirming, refused }: PersonDocument, packer: Packer): Packed[] {
  const [founder] = aliases;
  const to = packer.start(founder?.key ?? id, founder === undefined ? 0 : msOf(founder.firstSeen));
  const edge = ({ a, b, strength, at, eventId }: Evidence): Packed[] => [to.text(a), to.text(b), to.text(strength), to.instant(at), to.text(eventId)];
  const said = compact([
    aliases.map(({ key, type, value, firstSeen, eventId, named }) => [to.text(key), to.text(type), to.text(value), to.instant(firstSeen), to.text(eventId), ...(named === undefined ? [] : [packNames(named, to)])]),
    listed(evidence, edge), listed(confirming, edge), listed(refused, (one) => [...edge(one), to.text(one.reason), to.text(one.type)]),
  ]);
  const [ids, texts] = to.tables();
  return [founder?.key.slice(id.length) ?? '', to.baseMs, said, ids ?? null, texts ?? null];
}

function unpackPerson(id: string, text: string): PersonDocument {
  const [rest, baseMs, said, ids, texts] = JSON.parse(text) as [string, number, Packed, Packed, Packed];
  const from = new Unpacker(id + rest, baseMs, [ids, texts]);
  const [packedAliases, evidence, confirming, refused] = expand(said, 4);
  const edge = (packed: Packed): Evidence => {
    const [a, b, strength, at, eventId] = packed as readonly Packed[];
    return { a: from.text(a), b: from.text(b), strength: from.text(strength) as Strength, at: from.instant(at), eventId: from.text(eventId) };
  };
  const aliases = unlisted(packedAliases, (packed): Alias => {
    const [key, type, value, firstSeen, eventId, named] = packed as readonly Packed[];
    return { key: from.text(key), type: from.text(type), value: from.text(value), firstSeen: from.instant(firstSeen), eventId: from.text(eventId), ...(named === undefined ? {} : { named: unpackNames(named, from) }) };
  });
  return {
    id, ...namesOf(aliases), aliases, evidence: unlisted(evidence, edge), confirming: unlisted(confirming, edge),
    refused: unlisted(refused, (packed): RefusedEdge => {
      const { a, b, strength, at, eventId } = edge(packed);
      const [reason, type] = (packed as readonly Packed[]).slice(5);
      return { a, b, reason: from.text(reason) as RefusalReason, at, eventId, strength, type: from.text(type) };
    }),
  };
}

function packNames({ firstName, lastName, name }: Named, to: Packer): Packed {
  const one = (said: NameSaid | undefined): Packed => (said === undefined ? null : [to.instant(said.at), said.tie, to.text(said.eventId), said.index, to.maybe(said.value)]);
  return compact([one(firstName), one(lastName), one(name)]);
}

function unpackNames(packed: Packed, from: Unpacker): Named {
  const one = (said: Packed | undefined): NameSaid | undefined => {
    if (said === null || said === undefined) return undefined;
    const [at, tie, eventId, index, value] = said as readonly Packed[];
    return { at: from.instant(at), tie: tie as number, eventId: from.text(eventId), index: index as number, value: from.maybe(value) };
  };
  const [firstName, lastName, name] = expand(packed, 3);
  return namedOf(one(firstName), one(lastName), one(name));
}

// ---- readers ---------------------------------------------------------------------------------------------------------

const PERSON_ID = /^[0-9a-f]{24}$/;
const IDENTITY_KEY = /^[0-9a-f]{32}$/;

/** The person of an identity's key (32 hex digits) or of a person id (24), also an old one; null when there is none. Yields the keys of the documents to load, as a fold does. */
export function* findPerson(id: string): Lookup<PersonDocument | null> {
  let key = id;
  if (PERSON_ID.test(id)) {
    const found = yield [`p/${id}`, `a/${id}`];
    const person = found.get(`p/${id}`) ?? null;
    if (person !== null) return person as PersonDocument;
    key = ((found.get(`a/${id}`) ?? null) as PersonAlias | null)?.key ?? '';
  }
  if (!IDENTITY_KEY.test(key)) return null;
  const identity = ((yield [`k/${key}`]).get(`k/${key}`) ?? null) as IdentityDocument | null;
  if (identity === null) return null;
  const found = yield [`p/${identity.person}`];
  return (found.get(`p/${identity.person}`) ?? null) as PersonDocument | null;
}

/** One step of the way from an identity to another: the edge between `from` and `to`, and the event behind it. */
export type Step = { from: string; to: string; strength: Strength; at: Instant; eventId: string };

export type Explanation =
  /** One person: the events that lead from the one to the other, none for one and the same identity. */
  | { readonly kind: 'same'; readonly chain: readonly Step[] }
  /** Two persons: the edges between them that were refused, and those by which both hang on one value that joins nobody. Empty where no evidence speaks of both. */
  | { readonly kind: 'apart'; readonly refused: readonly RefusedEdge[] };

/** Why two identities are one person, or what kept them apart. The documents are those of their persons; linear in them. */
export function explain(one: { readonly key: string; readonly person: PersonDocument }, other: { readonly key: string; readonly person: PersonDocument }): Explanation {
  if (one.person.id === other.person.id) return { kind: 'same', chain: chainBetween(one.person, one.key, other.key) };
  const here = refusedByOutside(one.person);
  const there = refusedByOutside(other.person);
  const between = [...other.person.aliases.flatMap(({ key }) => here.get(key) ?? []), ...one.person.aliases.flatMap(({ key }) => there.get(key) ?? [])];
  const hanging = [...here].flatMap(([end, edges]) => (there.has(end) ? [...edges, ...(there.get(end) ?? [])] : []));
  const refused = new Map([...between, ...hanging].map((edge) => [pairKey(edge.a, edge.b), edge]));
  return { kind: 'apart', refused: [...refused.values()].sort(compareEdges) };
}

/** A person's refused edges by the identity that they would have joined to it. */
function refusedByOutside(person: PersonDocument): Map<string, RefusedEdge[]> {
  const own = new Set(person.aliases.map(({ key }) => key));
  const found = new Map<string, RefusedEdge[]>();
  for (const edge of person.refused) push(found, own.has(edge.a) ? edge.b : edge.a, edge);
  return found;
}

/** The joining edges are a tree, so there is one way. */
function chainBetween(person: PersonDocument, from: string, to: string): readonly Step[] {
  const steps = new Map<string, Step[]>();
  for (const { a, b, strength, at, eventId } of person.evidence) {
    push(steps, a, { from: a, to: b, strength, at, eventId });
    push(steps, b, { from: b, to: a, strength, at, eventId });
  }
  const reached = new Map<string, Step | null>([[from, null]]);
  for (const key of reached.keys()) for (const step of steps.get(key) ?? []) if (!reached.has(step.to)) reached.set(step.to, step);
  const chain: Step[] = [];
  for (let step = reached.get(to) ?? null; step !== null; step = reached.get(step.from) ?? null) chain.unshift(step);
  return chain;
}
