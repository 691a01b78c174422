// How documents are made small before they are stored: records as arrays without what is not said, instants as offsets
// from a document's first, ids as their bytes, and each text, agent and place of a document once. Whatever stands in a
// store stands in a replica and a backup too, and a page of an answer reads a hundred documents.
//
// The packed form is JSON and a function of the document alone, since digests are made of it.
import type { Agent, Instant, Place, Site } from '../schemas/facts.ts';
import { instantOf, msOf } from '../schemas/time.ts';

export type Packed = null | boolean | number | string | readonly Packed[];

/** An array of packed values, of which those that are null are left out: first which ones stand there, a bit each, then these. At most 31. */
export function compact(values: readonly Packed[]): Packed[] {
  let mask = 0;
  let count = 1;
  for (let i = 0; i < values.length; i += 1) {
    if (values[i] === null) continue;
    mask |= 1 << i;
    count += 1;
  }
  // In its size: what grows by pushing keeps room for sixteen more.
  const made = new Array<Packed>(count);
  made[0] = mask;
  let to = 1;
  for (let i = 0; to < count; i += 1) {
    const value = values[i];
    if (value !== null && value !== undefined) made[to++] = value;
  }
  return made;
}

/** The way back, for an array that had so many values. */
export function expand(packed: Packed | undefined, count: number): Packed[] {
  const from = packed as readonly Packed[];
  const mask = from[0] as number;
  const made = new Array<Packed>(count);
  let at = 1;
  for (let i = 0; i < count; i += 1) made[i] = (mask & (1 << i)) === 0 ? null : (from[at++] as Packed);
  return made;
}

/** Null for what most documents have none of, so that `compact` leaves it out. */
export function listed<T>(items: readonly T[], pack: (item: T) => Packed): Packed {
  return items.length === 0 ? null : items.map(pack);
}
export function unlisted<T>(packed: Packed | undefined, unpack: (packed: Packed) => T): T[] {
  return packed === null || packed === undefined ? [] : (packed as readonly Packed[]).map(unpack);
}

// ---- instants ------------------------------------------------------------------------------------------------------------

const DAY_MS = 86_400_000;
const TWO: readonly string[] = Array.from({ length: 60 }, (_, i) => String(i).padStart(2, '0'));
const THREE: readonly string[] = Array.from({ length: 1000 }, (_, i) => String(i).padStart(3, '0'));
const NO_NANOS = '000000Z';

/** Milliseconds after `baseMs`; with the nanoseconds behind them where there are any. */
export function packInstant(at: Instant, baseMs: number): Packed {
  const ms = msOf(at) - baseMs;
  return at.endsWith(NO_NANOS) ? ms : [ms, Number(at.slice(23, 29))];
}

/** Prints packed instants; most of a document's lie within one day, whose date is printed once. */
export class InstantPrinter {
  #day = NaN;
  #date = '';

  print(packed: Packed, baseMs: number): Instant {
    if (typeof packed === 'number') return (this.#printMs(baseMs + packed) + NO_NANOS) as Instant;
    const [ms, nanos] = packed as readonly [number, number];
    return `${this.#printMs(baseMs + ms)}${String(nanos).padStart(6, '0')}Z` as Instant;
  }

  /** To the milliseconds. */
  #printMs(ms: number): string {
    const day = Math.floor(ms / DAY_MS);
    if (day !== this.#day) {
      this.#day = day;
      this.#date = instantOf(day * DAY_MS).slice(0, 11);
    }
    const rest = ms - day * DAY_MS;
    const seconds = Math.floor(rest / 1000);
    const minutes = Math.floor(seconds / 60);
    return `${this.#date}${TWO[Math.floor(minutes / 60)] as string}:${TWO[minutes % 60] as string}:${TWO[seconds % 60] as string}.${THREE[rest % 1000] as string}`;
  }
}

// ---- UUIDs ---------------------------------------------------------------------------------------------------------------

/** Characters of a UUID, and of its 128 bits at six a character. */
export const UUID_LENGTH = 36;
export const PACKED_UUID_LENGTH = 22;

const SIX_BITS = Buffer.from('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_');
const HEX = Buffer.from('0123456789abcdef');
const HEX_VALUE = Int8Array.from({ length: 128 }, (_, code) => HEX.indexOf(code));
const SIX_BITS_VALUE = Uint8Array.from({ length: 256 }, (_, code) => Math.max(0, SIX_BITS.indexOf(code)));
/** Places of the 32 digits. */
const DIGITS: readonly number[] = Array.from({ length: UUID_LENGTH }, (_, i) => i).filter((i) => i !== 8 && i !== 13 && i !== 18 && i !== 23);
const DASH = 45;

/** A UUID as it is written (lower-case) → 22 characters; null for what is none. */
export function packUuid(id: string): string | null {
  if (id.length !== UUID_LENGTH || id.charCodeAt(8) !== DASH || id.charCodeAt(13) !== DASH || id.charCodeAt(18) !== DASH || id.charCodeAt(23) !== DASH) return null;
  const bytes = Buffer.allocUnsafe(PACKED_UUID_LENGTH);
  let to = 0;
  // Three hex digits are two characters; the last two digits, eight bits, are two more.
  for (let digit = 0; digit < 32; digit += 3) {
    const one = hexValue(id, digit);
    const two = hexValue(id, digit + 1);
    const bits = digit === 30 ? (one << 4) | two : (one << 8) | (two << 4) | hexValue(id, digit + 2);
    if (bits < 0) return null;
    bytes[to] = SIX_BITS[bits >> 6] as number;
    bytes[to + 1] = SIX_BITS[bits & 63] as number;
    to += 2;
  }
  return bytes.toString('latin1');
}

/** Of the UUID's n-th digit; negative where it is none, as is then whatever it is joined to. */
function hexValue(id: string, digit: number): number { return HEX_VALUE[id.charCodeAt(DIGITS[digit] as number)] ?? -1; }

export function unpackUuids(text: string): string[] {
  const count = Math.floor(text.length / PACKED_UUID_LENGTH);
  const bytes = Buffer.allocUnsafe(count * UUID_LENGTH);
  for (let i = 0; i < count; i += 1) {
    const [from, to] = [i * PACKED_UUID_LENGTH, i * UUID_LENGTH];
    for (let pair = 0; pair < 11; pair += 1) {
      const bits = ((SIX_BITS_VALUE[text.charCodeAt(from + pair * 2)] as number) << 6) | (SIX_BITS_VALUE[text.charCodeAt(from + pair * 2 + 1)] as number);
      const digit = pair * 3;
      if (pair < 10) bytes[to + (DIGITS[digit] as number)] = HEX[bits >> 8] as number;
      bytes[to + (DIGITS[pair < 10 ? digit + 1 : 30] as number)] = HEX[(bits >> 4) & 15] as number;
      bytes[to + (DIGITS[pair < 10 ? digit + 2 : 31] as number)] = HEX[bits & 15] as number;
    }
    bytes[to + 8] = DASH;
    bytes[to + 13] = DASH;
    bytes[to + 18] = DASH;
    bytes[to + 23] = DASH;
  }
  const all = bytes.toString('latin1', 0, count * UUID_LENGTH);
  const ids: string[] = [];
  for (let i = 0; i < count; i += 1) ids.push(all.slice(i * UUID_LENGTH, (i + 1) * UUID_LENGTH));
  return ids;
}

// ---- a document's texts and things --------------------------------------------------------------------------------------

/** Words that most documents have: referred to by their place here. A change needs a new version of the projections. */
const WORDS = [
  'STARTED', 'OUTBOUND_STARTED', 'IN_SCRIPT', 'WAITING', 'TALKING', 'HOLD', 'FORWARD', 'TRANSFER', 'VOICEMAIL', 'FOLLOWUP_PENDING', 'PROCESSING', 'FINISHED', 'EXTERNAL',
  'Handled', 'Abandoned', 'EndedInScript', 'Other', 'UnknownOutcome', 'ForwardedToExternalNumber', 'Voicemail', 'CallbackRequested', 'CallbackNoAnswer', 'CallbackExpired',
  'Inbound', 'Outbound', 'Internal', 'Phone', 'Chat', 'Email', 'Sms', 'Social', 'Video', 'HUMAN', 'AI', 'customer', 'agent', 'supervisor', 'bot', 'treatment', 'system',
  'provisional', 'closed', 'voicemail', 'callback', 'cc-channel', 'call-queue', 'ring-group', 'auto-attendant', 'user', 'ai-studio', 'throughline', 'wxcc', 'Contact Center', '',
  'phone', 'email', 'subject', 'operator', 'veryStrong', 'strong', 'weak', 'shared', 'veryStrongConflict', 'typeLimit',
] as const;
const WORD_REFERENCES: ReadonlyMap<string, number> = new Map(WORDS.map((word, i) => [word, -1 - i]));

/** The document's own key. */
const OWN = 0;
/** Up to so many objects are looked through faster than hashed, and nearly every document has fewer. */
const FEW = 16;

/** Texts that a packer remembers from document to document: those of some thousand journeys, 1 MB. */
const REMEMBERED = 16_384;

/**
 * What a document refers to. A reference to a text is negative for a word that all know, 0 for the document's own key,
 * odd for a UUID and even for any other text; one to a thing (an agent, a place) is its number. Used for one document
 * after the other: what it remembers of those before saves time and shows in nothing.
 */
export class Packer {
  baseMs = 0;
  /** Text → its slot, below 0 for a word; a slot's reference counts where it was given for this document. */
  #slots = new Map<string, number>(WORD_REFERENCES);
  #references: number[] = [];
  #givenFor: number[] = [];
  #document = 0;
  #texts: string[] = [];
  #uuids = '';
  #uuidCount = 0;
  #things: Packed[] = [];
  /** Of each thing its name, and objects that stand for one. */
  #names: string[] = [];
  #objects: object[] = [];
  #numbers: number[] = [];
  #known: Map<object, number> | null = null;

  /** For a document of this key and this first instant; what was packed for the one before is written by now. */
  start(own: string, baseMs: number): this {
    if (this.#references.length > REMEMBERED) {
      this.#slots = new Map(WORD_REFERENCES);
      this.#references = [];
      this.#givenFor = [];
    }
    this.baseMs = baseMs;
    this.#document += 1;
    this.#texts = [];
    this.#uuids = '';
    this.#uuidCount = 0;
    this.#things = [];
    this.#names = [];
    this.#objects = [];
    this.#numbers = [];
    this.#known = null;
    this.#give(own, this.#slots.get(own), OWN);
    return this;
  }

  text(text: string): number {
    const slot = this.#slots.get(text);
    if (slot !== undefined) {
      if (slot < 0) return slot;
      if (this.#givenFor[slot] === this.#document) return this.#references[slot] as number;
    }
    const uuid = packUuid(text);
    if (uuid === null) return this.#give(text, slot, this.#texts.push(text) * 2);
    this.#uuids += uuid;
    this.#uuidCount += 1;
    return this.#give(text, slot, this.#uuidCount * 2 - 1);
  }

  #give(text: string, known: number | undefined, reference: number): number {
    const slot = known ?? this.#references.length;
    if (known === undefined) this.#slots.set(text, slot);
    this.#references[slot] = reference;
    this.#givenFor[slot] = this.#document;
    return reference;
  }

  maybe(text: string | null | undefined): number | null { return text === null || text === undefined ? null : this.text(text); }

  instant(at: Instant): Packed { return packInstant(at, this.baseMs); }

  site(site: Site | null | undefined): Packed { return site === null || site === undefined ? null : [this.maybe(site.id), this.maybe(site.name)]; }

  agent(agent: Agent): number {
    return this.#numberOf(agent) ?? this.#thing(agent, 'a', compact([
      this.text(agent.id), this.maybe(agent.name), this.maybe(agent.email), this.maybe(agent.loginId), this.maybe(agent.department), this.maybe(agent.subscriptionId),
      this.site(agent.group), this.site(agent.site), agent.type === 'HUMAN' ? null : this.maybe(agent.type),
    ]));
  }

  place(place: Place): number {
    return this.#numberOf(place) ?? this.#thing(place, 'p', compact([this.maybe(place.id), this.maybe(place.name), this.maybe(place.extension), this.site(place.site)]));
  }

  maybePlace(place: Place | null): number | null { return place === null ? null : this.place(place); }

  #numberOf(thing: object): number | undefined {
    if (this.#known !== null) return this.#known.get(thing);
    const at = this.#objects.indexOf(thing);
    return at < 0 ? undefined : this.#numbers[at];
  }

  /** By value: which objects are one in memory depends on what was folded when. */
  #thing(thing: object, kind: 'a' | 'p', packed: Packed[]): number {
    const name = `${kind}${packed.join()}`;
    let number = this.#names.indexOf(name);
    if (number < 0) {
      number = this.#names.push(name) - 1;
      this.#things.push(packed);
    }
    this.#objects.push(thing);
    this.#numbers.push(number);
    if (this.#known !== null) this.#known.set(thing, number);
    else if (this.#objects.length > FEW) this.#known = new Map(this.#objects.map((one, i) => [one, this.#numbers[i] ?? 0]));
    return number;
  }

  /** To be written before what was packed with it. */
  tables(): Packed[] { return [this.#uuids, this.#texts, this.#things]; }
}

export class Unpacker {
  readonly baseMs: number;
  readonly #own: string;
  readonly #uuids: string;
  readonly #texts: readonly string[];
  readonly #things: readonly Packed[];
  readonly #made: (Agent | Place)[] = [];
  readonly #printer = new InstantPrinter();
  #ids: string[] | null = null;

  constructor(own: string, baseMs: number, tables: readonly Packed[]) {
    this.#own = own;
    this.baseMs = baseMs;
    [this.#uuids, this.#texts, this.#things] = tables as unknown as [string, string[], Packed[]];
  }

  text(reference: Packed | undefined): string {
    const number = reference as number;
    if (number < 0) return WORDS[-1 - number] as string;
    if (number === OWN) return this.#own;
    return (number % 2 === 1 ? (this.#ids ??= unpackUuids(this.#uuids))[(number - 1) / 2] : this.#texts[number / 2 - 1]) as string;
  }

  maybe(reference: Packed | undefined): string | null { return reference === null || reference === undefined ? null : this.text(reference); }

  instant(packed: Packed | undefined): Instant { return this.#printer.print(packed as Packed, this.baseMs); }

  maybeInstant(packed: Packed | undefined): Instant | null { return packed === null || packed === undefined ? null : this.instant(packed); }

  site(packed: Packed | undefined): Site | null {
    if (packed === null || packed === undefined) return null;
    const [id, name] = packed as readonly Packed[];
    return { id: this.maybe(id), name: this.maybe(name) };
  }

  /** Whoever is referred to twice is one object, as agents and places are never changed in place. */
  agent(reference: Packed | undefined): Agent {
    const number = reference as number;
    const known = this.#made[number];
    if (known !== undefined) return known as Agent;
    const [id, name, email, loginId, department, subscriptionId, group, site, type] = expand(this.#things[number], 9);
    const made: Agent = {
      id: this.text(id), name: this.maybe(name), email: this.maybe(email), loginId: this.maybe(loginId), department: this.maybe(department),
      subscriptionId: this.maybe(subscriptionId), group: this.site(group), site: this.site(site), type: (this.maybe(type) ?? 'HUMAN') as 'HUMAN' | 'AI',
    };
    this.#made[number] = made;
    return made;
  }

  place(reference: Packed | undefined): Place {
    const number = reference as number;
    const known = this.#made[number];
    if (known !== undefined) return known;
    const [id, name, extension, site] = expand(this.#things[number], 4);
    const made: Place = { id: this.maybe(id), name: this.maybe(name), extension: this.maybe(extension), site: this.site(site) };
    this.#made[number] = made;
    return made;
  }

  maybePlace(reference: Packed | undefined): Place | null { return reference === null || reference === undefined ? null : this.place(reference); }
}
