// Facts in order, as an interaction keeps them: what several of them say (an agent, a queue, an entry point) once, and
// each event's id, time and identity once. To append one, nothing of the others is looked at but the last.
import assert from 'node:assert';
import type { InteractionFact, InteractionFactBody, InteractionId } from '../schemas/facts.ts';
import { RANK } from '../schemas/facts.ts';
import { msOf } from '../schemas/time.ts';
import { InstantPrinter, type Packed, packInstant, packUuid, PACKED_UUID_LENGTH, unpackUuids } from './packing.ts';
import type { Json } from './projection.ts';

/** A fact, and the key of its event's identity where that is evidence. */
export class Placed {
  readonly fact: InteractionFact;
  readonly identity: string | null;
  #order: string | null;

  /** `order`: its place, where it is known already. */
  constructor(fact: InteractionFact, identity: string | null, order: string | null = null) {
    this.fact = fact;
    this.identity = identity;
    this.#order = order;
  }

  /** Its place in the order, as a text. Made when it is asked for: of most facts only the first and the last of a batch. */
  get order(): string { return this.#order ??= orderKey(this.fact); }
}

/** Ties are whole milliseconds of either sign: moved, so that their digits sort as the numbers do. */
const TIE_OFFSET = 2 ** 52;
export const NO_TIE = String(TIE_OFFSET);

/** A text whose order is that of compareFacts. A space ends the event id, since no character that ids are made of comes before it. */
export function orderKey({ at, tie, kind, eventId, index }: Pick<InteractionFact, 'at' | 'tie' | 'kind' | 'eventId' | 'index'>): string {
  return orderText(at, tie, RANK[kind], eventId, index);
}

function orderText(at: string, tie: number, rank: number, eventId: string, index: number): string {
  const moved = tie === 0 ? NO_TIE : String(Math.trunc(tie) + TIE_OFFSET).padStart(NO_TIE.length, '0');
  return `${at}${moved}${rank}${eventId} ${index < 10 ? `00${index}` : String(index).padStart(3, '0')}`;
}

/** The same order, without making the texts. */
export function comparePlaced({ fact: a }: Placed, { fact: b }: Placed): number {
  if (a.at !== b.at) return a.at < b.at ? -1 : 1;
  const tie = Math.trunc(a.tie) - Math.trunc(b.tie);
  if (tie !== 0) return tie;
  const rank = RANK[a.kind] - RANK[b.kind];
  if (rank !== 0) return rank;
  return a.eventId === b.eventId ? a.index - b.index : a.eventId < b.eventId ? -1 : 1;
}

type Kind = InteractionFact['kind'];
/** Distributes over the union, so that each kind has its own members. */
type MemberOf<K extends Kind> = Exclude<keyof Extract<InteractionFactBody, { kind: K }>, 'kind'>;

/** What a fact of each kind may say, in the order in which it is written. Total, so that no member is forgotten; a change needs a new version of the projection. */
const SAID: { readonly [K in Kind]: Readonly<Record<MemberOf<K>, true>> } = {
  started: { direction: true, medium: true, contact: true, entryPoint: true, origin: true, pbx: true, tenant: true, platform: true, leg: true, inScript: true, callback: true },
  linked: { to: true },
  journey: { journeyId: true },
  joined: { role: true, participantId: true, agent: true, name: true },
  dialling: { agents: true, queue: true },
  script: { scripts: true, autoAttendant: true, scheduleHours: true, schedules: true },
  waiting: { queue: true, ringGroup: true, agents: true, arrival: true },
  unqueued: { timeout: true },
  forwarded: { to: true, from: true },
  transferred: { to: true, from: true, open: true },
  talking: { agents: true, queue: true, taken: true },
  present: { agents: true, talking: true },
  held: { agents: true, participantId: true },
  resumed: { agents: true, participantId: true },
  voicemail: { agents: true, queue: true, ringGroup: true },
  followUp: { reason: true, queue: true },
  processing: { agents: true, queue: true },
  dropped: { role: true, participantId: true, last: true, had: true },
  wrappedUp: { agents: true, wrapUpCodes: true },
  phoneCodes: { codes: true },
  aiAgent: { creditConsumption: true, tools: true },
  described: { topics: true, data: true, attributes: true },
  ended: { by: true, outcome: true, final: true, leg: true },
};
const KINDS = Object.keys(SAID) as Kind[];
const MEMBERS = Object.fromEntries(KINDS.map((kind) => [kind, Object.keys(SAID[kind])])) as unknown as Readonly<Record<Kind, readonly string[]>>;
/** Stored instead of the kind; no two kinds have the same. */
const KIND_OF_RANK: ReadonlyMap<number, Kind> = new Map(KINDS.map((kind) => [RANK[kind], kind]));

/** Not said: references to what facts say begin at 1. */
const ABSENT = 0;

/** [offset of the time, reference to the identity or 0, tie, ...facts]: what one event says at one time. A fact is [rank of its kind, index, ...members]. */
type Said = [at: Packed, identity: number, tie: number, ...facts: Packed[]];

/** Of the fact appended last: what the next one is compared with. */
interface Last { readonly order: string; readonly identity: string | null; readonly fact: Pick<InteractionFact, 'at' | 'tie' | 'eventId'> }

export class FactPage {
  /** Facts on it. */
  #size = 0;
  #baseMs = 0;
  /** Ids of the events in `#said`, those stored in their packed form; null once one of them is no UUID. */
  #stored: string | null = '';
  /** After those stored. */
  #ids: string[] = [];
  readonly #things: Json[] = [];
  readonly #said: Said[] = [];
  #last: Last | null = null;
  #firstOrder: string | null = null;

  static of(placed: readonly Placed[]): FactPage {
    const page = new FactPage();
    for (const one of placed) page.append(one);
    return page;
  }

  get size(): number { return this.#size; }
  /** Orders of the first and the last fact. */
  get first(): string | null { return this.#firstOrder ??= this.#orderAt(0, 'first'); }
  get last(): string | null { return this.#lastSaid()?.order ?? null; }

  /** It must sort after those on the page. */
  append(placed: Placed): void {
    const last = this.#lastSaid();
    const { fact, identity } = placed;
    const { at, tie, eventId } = fact;
    if (last?.fact.eventId === eventId && last.fact.at === at && last.fact.tie === tie && last.identity === identity) this.#said.at(-1)?.push(this.#pack(fact));
    else {
      if (this.#size === 0) this.#baseMs = msOf(at);
      // The identity's reference first: things stand in the order in which they are first referred to.
      const by = identity === null ? 0 : this.#reference(identity);
      this.#said.push([packInstant(at, this.#baseMs), by, tie, this.#pack(fact)]);
      this.#ids.push(eventId);
    }
    this.#last = placed;
    this.#size += 1;
  }

  /** All of them; their interaction is known by whoever keeps the page. */
  facts(interaction: InteractionId): Placed[] {
    const made: Placed[] = [];
    const ids = this.#allIds();
    const printer = new InstantPrinter();
    this.#said.forEach(([offset, identityReference, tie, ...facts], i) => {
      const at = printer.print(offset, this.#baseMs);
      const identity = identityReference === 0 ? null : (this.#things[identityReference - 1] as string);
      const eventId = ids[i] ?? '';
      for (const packed of facts) {
        const [rank, index, ...members] = packed as readonly [number, number, ...Packed[]];
        const kind = kindOf(rank);
        const body: Record<string, unknown> = { kind };
        MEMBERS[kind].forEach((name, place) => {
          const member = members[place];
          if (member !== undefined && member !== ABSENT) body[name] = this.#unpack(member);
        });
        const fact = { ...body, interaction, at, tie, eventId, index } as InteractionFact;
        made.push(new Placed(fact, identity));
      }
    });
    return made;
  }

  // ---- as it is stored ----

  pack(): Packed[] {
    const ids = this.#packedIds() ?? this.#allIds();
    return [ids, this.#baseMs, this.#things as Packed[], this.#said];
  }

  static unpack(packed: readonly Packed[]): FactPage {
    const [ids, baseMs, things, said] = packed as unknown as readonly [string | string[], number, Json[], Said[]];
    const page = new FactPage();
    page.#stored = typeof ids === 'string' ? ids : null;
    page.#ids = typeof ids === 'string' ? [] : ids;
    page.#baseMs = baseMs;
    page.#things.push(...things);
    page.#said.push(...said);
    for (const one of said) page.#size += one.length - 3;
    return page;
  }

  // ---- parts ----

  /** Null once one is no UUID. */
  #packedIds(): string | null {
    let ids = this.#stored;
    for (const id of this.#ids) {
      const packed = ids === null ? null : packUuid(id);
      if (ids === null || packed === null) return null;
      ids += packed;
    }
    return ids;
  }

  #allIds(): string[] {
    return this.#stored === null ? this.#ids : [...unpackUuids(this.#stored), ...this.#ids];
  }

  #idAt(number: number): string {
    if (this.#stored === null) return this.#ids[number] ?? '';
    const stored = this.#stored.length / PACKED_UUID_LENGTH;
    if (number >= stored) return this.#ids[number - stored] ?? '';
    return unpackUuids(this.#stored.slice(number * PACKED_UUID_LENGTH, (number + 1) * PACKED_UUID_LENGTH))[0] ?? '';
  }

  #lastSaid(): Last | null {
    const number = this.#said.length - 1;
    const said = this.#said[number];
    if (this.#last !== null || said === undefined) return this.#last;
    const at = new InstantPrinter().print(said[0], this.#baseMs);
    const identity = said[1] === 0 ? null : (this.#things[said[1] - 1] as string);
    return this.#last = { order: this.#orderAt(number, 'last') ?? '', identity, fact: { at, tie: said[2], eventId: this.#idAt(number) } };
  }

  #orderAt(number: number, which: 'first' | 'last'): string | null {
    const said = this.#said[number];
    const fact = said?.at(which === 'first' ? 3 : -1) as readonly [number, number] | undefined;
    if (said === undefined || fact === undefined) return null;
    return orderText(new InstantPrinter().print(said[0], this.#baseMs), said[2], fact[0], this.#idAt(number), fact[1]);
  }

  /** Made in its size: an array that grows keeps room for sixteen more, and there is one for each fact. */
  #pack(fact: InteractionFact): Packed[] {
    const names = MEMBERS[fact.kind];
    const members = fact as unknown as Readonly<Record<string, Json | undefined>>;
    let count = names.length;
    while (count > 0 && members[names[count - 1] as string] === undefined) count -= 1;
    const packed = new Array<Packed>(2 + count);
    packed[0] = RANK[fact.kind];
    packed[1] = fact.index;
    for (let i = 0; i < count; i += 1) {
      const member = members[names[i] as string];
      packed[2 + i] = member === undefined ? ABSENT : this.#packMember(member);
    }
    return packed;
  }

  #packMember(member: Json): Packed {
    if (member === null || typeof member === 'boolean') return member;
    return Array.isArray(member) ? member.map((item: Json) => this.#reference(item)) : this.#reference(member);
  }

  #unpack(packed: Packed): Json {
    if (typeof packed === 'number') return this.#things[packed - 1] ?? null;
    return Array.isArray(packed) ? packed.map((reference: number) => this.#things[reference - 1] ?? null) : (packed);
  }

  #reference(thing: Json): number {
    const things = this.#things;
    for (let i = 0; i < things.length; i += 1) if (sameJson(things[i], thing)) return i + 1;
    return things.push(thing);
  }
}

function kindOf(rank: number): Kind {
  const kind = KIND_OF_RANK.get(rank);
  assert(kind !== undefined, 'a stored fact of no kind');
  return kind;
}

/** Whether two values have the same JSON text. The order of members counts: folds may show it. Asked for every member of every fact, so it makes no objects unless they are alike. */
function sameJson(a: Json | undefined, b: Json | undefined): boolean {
  if (a === b) return true;
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return false;
  if (Array.isArray(a) || Array.isArray(b)) return Array.isArray(a) && Array.isArray(b) && sameItems(a as readonly Json[], b as readonly Json[]);
  return sameMembers(a as Readonly<Record<string, Json | undefined>>, b as Readonly<Record<string, Json | undefined>>);
}

function sameMembers(left: Readonly<Record<string, Json | undefined>>, right: Readonly<Record<string, Json | undefined>>): boolean {
  let names: string[] | null = null;
  let at = 0;
  for (const name in left) {
    const value = left[name];
    if (value === undefined) continue;
    if (!Object.hasOwn(right, name) || !sameJson(value, right[name])) return false;
    names ??= Object.keys(right);
    while (at < names.length && right[names[at] as string] === undefined) at += 1;
    if (names[at] !== name) return false;
    at += 1;
  }
  names ??= Object.keys(right);
  while (at < names.length && right[names[at] as string] === undefined) at += 1;
  return at === names.length;
}

function sameItems(a: readonly Json[], b: readonly Json[]): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i += 1) if (!sameJson(a[i], b[i])) return false;
  return true;
}
