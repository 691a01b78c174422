// What is asked of one customer: the person behind an identity, their journeys, and everything recorded of them.
import type { PersonAnswer } from '../../schemas/apis/native.ts';
import { encodeStructured } from '../../schemas/cloudevent.ts';
import type { Instant } from '../../schemas/facts.ts';
import { identityStream, type WorkspaceKeys } from '../../schemas/identity.ts';
import { findPerson, type Lookup, type PersonDocument, SEEN_TYPES_KEY, type SeenTypes, unpackDocument } from '../../projections/persons.ts';
import type { View } from '../ports.ts';
import type { Histories, HistoryEvent } from './history.ts';
import { type CursorScope, type ListRow, readCursor, writeCursor } from './pages.ts';
import type { Answer, Call, Outcome } from './call.ts';
import type { Searches } from './searches.ts';
import { refuse } from './views.ts';
import type { Zone, Zones } from './zones.ts';

interface CustomersOptions { readonly histories: Histories; readonly searches: Searches; readonly zones: Zones; readonly storeId: string }

interface Asked { readonly identity: string; readonly identitytype?: string | undefined }
interface AskedPage extends Asked { readonly limit?: string | undefined; readonly cursor?: string | undefined; readonly sort?: 'asc' | 'desc' | undefined }

/** Tried for an identity that is asked for without a type, besides those that the workspace has seen: its first event may not be folded yet. */
const ALWAYS_TRIED = ['email', 'phone', 'subject'];
const LIMIT = 100;

/** An identity's person; or the keys that it would have, where no view knows one (an event not folded yet, or known by its subject). */
interface Found { readonly person: PersonDocument | null; readonly keys: readonly string[] }

export class Customers {
  readonly #options: CustomersOptions;
  constructor(options: CustomersOptions) { this.#options = options; }

  async find({ query, keys, view }: Call<unknown, Asked, unknown>): Promise<Outcome> {
    const { person } = await findCustomer(view('persons'), keys, query);
    return person === null ? refuse('unknownIdentity') : this.#answer(person);
  }

  async person({ params, keys, view }: Call<{ id: string }, unknown, unknown>): Promise<Outcome> {
    const person = await lookUp(view('persons'), keys, findPerson(params.id));
    return person === null ? refuse('unknownPerson') : this.#answer(person);
  }

  /** Journeys of every alias. Identities are indexed with each journey, so it is a search like any other, over all time. */
  async journeys(call: Call<unknown, AskedPage & { timezone?: string | undefined }, unknown>): Promise<Outcome> {
    const { query, keys, view } = call;
    const { person } = await findCustomer(view('persons'), keys, query);
    if (person === null) return refuse('unknownIdentity');
    return this.#options.searches.ofIdentities(view('journeys'), keys, {
      personId: person.id, identities: person.aliases.map(({ key }) => key), zone: query.timezone ?? 'UTC',
      limit: limitOf(query), direction: query.sort ?? 'desc', cursor: query.cursor, asked: askedOf(query),
    });
  }

  async history({ query, keys, view, signal }: Call<unknown, AskedPage, unknown>): Promise<Outcome> {
    const direction = query.sort ?? 'asc';
    const scope: CursorScope = { endpoint: 'getHistory', sort: `TIME ${direction}`, query: askedOf(query) };
    const cursor = query.cursor === undefined ? null : readCursor(keys.cursorKey, scope, query.cursor);
    if (cursor?.kind === 'refused') return refuse(cursor.code);
    const found = await findCustomer(view('persons'), keys, query);
    const streams = (found.person?.aliases.map(({ key }) => key) ?? found.keys).map((key) => identityStream(keys.id, key));
    const after = cursor === null ? null : { at: cursor.keyset.time as Instant, eventId: cursor.keyset.id };
    const { events, more } = await this.#options.histories.page({ streams, direction, after, limit: limitOf(query), signal });
    // Nobody, and nothing in the log: alike for an identity of another workspace and one that never was.
    if (found.person === null && events.length === 0 && after === null) return refuse('unknownIdentity');
    const last = more ? events.at(-1) : undefined;
    const next = last === undefined ? null : writeCursor(keys.cursorKey, scope, { time: last.at, id: last.recorded.eventId, total: null });
    const utc = this.#options.zones('UTC');
    return {
      kind: 'page', rows: events.map((event) => entryOf(event, this.#options.storeId, utc)), cursor: next, total: null,
      before: { personId: found.person?.id ?? null }, after: { nextPageCursor: next },
    };
  }

  #answer(person: PersonDocument): Answer {
    const utc = this.#options.zones('UTC');
    const value: PersonAnswer = {
      personId: person.id, firstName: person.firstName, lastName: person.lastName, name: person.name,
      aliases: person.aliases.map(({ key, type, value: text, firstSeen }) => ({ key, type, value: text, firstSeen: utc.print(firstSeen) })),
      evidence: person.evidence.map(({ a, b, strength, at, eventId }) => ({ a, b, strength, at: utc.print(at), eventId })),
      refused: person.refused.map(({ a, b, reason, at, eventId }) => ({ a, b, reason, at: utc.print(at), eventId })),
    };
    return { kind: 'answer', value };
  }
}

/** Bound to what was asked, not to whom it led: a person that grows meanwhile shows more, and the walk goes on. */
function askedOf({ identity, identitytype }: Asked): readonly unknown[] { return [identity, identitytype ?? null]; }

function limitOf({ limit }: AskedPage): number { return limit === undefined ? LIMIT : Number(limit); }

async function findCustomer(view: View, keys: WorkspaceKeys, { identity, identitytype }: Asked): Promise<Found> {
  const types = identitytype === undefined ? await seenTypes(view, keys) : [identitytype];
  const tried = [...new Set(types.map((type) => keys.identityKey(type, identity)).filter((key) => key !== null))];
  const [known] = await loadFirst(view, keys, tried);
  const person = known === undefined ? null : await lookUp(view, keys, findPerson(known));
  return { person, keys: tried };
}

/** What a look-up without a type tries: every type that the workspace has seen. */
async function seenTypes(view: View, keys: WorkspaceKeys): Promise<readonly string[]> {
  const [text = null] = await view.load([`${keys.id}/${SEEN_TYPES_KEY}`]);
  return [...new Set([...(text === null ? [] : (unpackDocument(SEEN_TYPES_KEY, text) as SeenTypes).types), ...ALWAYS_TRIED])];
}

/** Those of the identity keys that the view knows, in their order; one read for all. */
async function loadFirst(view: View, keys: WorkspaceKeys, tried: readonly string[]): Promise<readonly string[]> {
  const texts = await view.load(tried.map((key) => `${keys.id}/k/${key}`));
  return tried.filter((_, i) => (texts[i] ?? null) !== null);
}

/** Drives a reader of the projection against a view. */
async function lookUp<T>(view: View, keys: WorkspaceKeys, lookup: Lookup<T>): Promise<T> {
  let step = lookup.next();
  while (step.done !== true) {
    const asked = step.value;
    const texts = await view.load(asked.map((key) => `${keys.id}/${key}`));
    step = lookup.next(new Map(asked.map((key, i) => {
      const text = texts[i] ?? null;
      return [key, text === null ? null : unpackDocument(key, text)];
    })));
  }
  return step.value;
}

/** The event's own text stands in the answer as it is: numbers in it never pass through ours. */
function entryOf({ recorded, position }: HistoryEvent, storeId: string, utc: Zone): ListRow {
  const { event, eventId, recordedAt } = recorded;
  const head = { eventId, recordedtime: utc.print(recordedAt), position: `${storeId}.${position}` };
  const json = `${JSON.stringify(head).slice(0, -1)},"event":${encodeStructured(event)}}`;
  const bytes = Buffer.from(event.data.buffer, event.data.byteOffset, event.data.byteLength);
  const data = event.dataKind === 'none' ? {} : event.dataKind === 'binary' ? { data_base64: bytes.toString('base64') } : { data: bytes.toString('utf8') };
  return { json, value: { ...head, event: { ...event.attributes, ...data } } };
}
