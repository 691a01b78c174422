// Searches over journeys: the 8x8 requests, and whatever else lists journeys. A filter is a line of the projection's own
// tables, so that what is asked for and what is indexed cannot differ.
import type { SearchRequest } from '../../schemas/apis/eightbyeight.ts';
import { parseRangeDate } from '../../schemas/apis/eightbyeight.ts';
import { nodeKey, type WorkspaceKeys } from '../../schemas/identity.ts';
import { msOf } from '../../schemas/time.ts';
import { type JourneyDocument, type JourneyRow, type Transition, unpackJourney, unpackJourneyOf, unpackRow, unpackTransitions } from '../../projections/documents.ts';
import { type Filter, JOURNEY_FILTERS, TRANSITION_FILTERS } from '../../projections/journeys.ts';
import type { Clause, SearchQuery, SearchResult, SearchRow, View } from '../ports.ts';
import { journeyDetailOf, journeyOf, transitionOf } from './answers.ts';
import { type CursorScope, type ListRow, type Page, readCursor, writeCursor } from './pages.ts';
import type { Call, Outcome } from './call.ts';
import { type Refused, refuse } from './views.ts';
import type { Zone, Zones } from './zones.ts';

const LIMIT = 100;
/** All of time that a view orders by. */
const EVER = { from: Date.UTC(-1, 0, 1), to: Date.UTC(9999, 11, 31, 23, 59, 59, 999) };

interface Listing { readonly scope: CursorScope; readonly cursor: string | undefined; readonly query: Omit<SearchQuery, 'workspace' | 'after' | 'total'> }

export class Searches {
  readonly #zones: Zones;
  constructor(zones: Zones) { this.#zones = zones; }

  async journeys({ body, keys, view }: Call<unknown, unknown, SearchRequest>): Promise<Outcome> {
    const found = await list(view('journeys'), keys, listing('searchJourneys', body, keys, JOURNEY_FILTERS));
    if (found.kind === 'refused') return found;
    const zone = this.#zones(body.displayTimezone);
    return page(found, found.rows.map((row) => ({ value: journeyOf(rowOf(row), zone) })));
  }

  async transitions({ body, keys, view }: Call<unknown, unknown, SearchRequest>): Promise<Outcome> {
    const journeys = view('journeys');
    const found = await list(journeys, keys, listing('searchTransitions', body, keys, TRANSITION_FILTERS));
    if (found.kind === 'refused') return found;
    const zone = this.#zones(body.displayTimezone);
    const documents = found.rows.map((row) => ({ key: row.key, document: unpackJourney(row.key, textOf(row)) }));
    const timelines = await timelinesOf(journeys, keys, documents);
    const rows = documents.map(({ document }, i) => ({ value: { journeyId: document.row.journeyId, transitions: (timelines[i] ?? []).map((transition) => transitionOf(transition, zone)) } }));
    return page(found, rows);
  }

  /** One journey, by any id that it ever had. */
  async journey({ params, query, keys, view }: Call<{ id: string }, { timezone?: string | undefined }, unknown>): Promise<Outcome> {
    const journeys = view('journeys');
    const read = async (key: string): Promise<string | null> => (await journeys.load([`${keys.id}/${key}`]))[0] ?? null;
    const nodeName = nodeKey(keys, params.id);
    const node = await read(`n/${nodeName}`);
    const key = node === null ? null : unpackJourneyOf(nodeName, node);
    if (key === null) return refuse('unknownJourney');
    const text = await read(`j/${key}`);
    // The journey moved between the two reads (two were joined): the node says where, when it is asked again.
    if (text === null) return refuse('unknownJourney');
    const document = unpackJourney(key, text);
    const [timeline] = await timelinesOf(journeys, keys, [{ key, document }]);
    return { kind: 'answer', value: journeyDetailOf(document, timeline ?? [], this.#zones(query.timezone ?? 'UTC')) };
  }

  async ofIdentities(view: View, keys: WorkspaceKeys, given: {
    readonly personId: string; readonly identities: readonly string[]; readonly zone: string; readonly limit: number; readonly direction: 'asc' | 'desc'; readonly cursor: string | undefined; readonly asked: readonly unknown[];
  }): Promise<Outcome> {
    const { direction, limit } = given;
    const found = await list(view, keys, {
      scope: { endpoint: 'listJourneys', sort: `TIME ${direction}`, query: given.asked }, cursor: given.cursor,
      query: { ...EVER, clauses: [{ field: 'identity', terms: given.identities.map((key) => keys.term('identity', key)) }], sub: [], direction, limit },
    });
    if (found.kind === 'refused') return found;
    const zone: Zone = this.#zones(given.zone);
    return { ...page(found, found.rows.map((row) => ({ value: journeyOf(rowOf(row), zone) }))), before: { personId: given.personId } };
  }
}

type Found = SearchResult & { readonly kind: 'found'; readonly cursor: string | null };

async function list(view: View, keys: WorkspaceKeys, { scope, cursor, query }: Listing): Promise<Found | Refused> {
  const read = cursor === undefined ? null : readCursor(keys.cursorKey, scope, cursor);
  if (read?.kind === 'refused') return refuse(read.code);
  const after = read === null ? null : { time: Number(read.keyset.time), id: read.keyset.id };
  const result = await view.search({ ...query, workspace: keys.id, after, total: read?.keyset.total ?? null }, 'j');
  const last = result.more ? result.rows.at(-1) : undefined;
  return { kind: 'found', ...result, cursor: last === undefined ? null : writeCursor(keys.cursorKey, scope, { time: last.time, id: last.id, total: result.total }) };
}

function page({ cursor, total }: Found, rows: readonly ListRow[]): Page {
  return { kind: 'page', rows, cursor, total, after: { nextPageCursor: cursor, totalElements: total } };
}

function textOf(row: SearchRow): string {
  if (row.document === null) throw new Error('assertion: a record stands with its document');
  return row.document;
}

/** A list needs the row alone; the rest of the document is not unpacked. */
function rowOf(row: SearchRow): JourneyRow { return unpackRow(row.key, textOf(row)); }

/** Whole timelines: what stands in the document, after the chunks before it; one read for all. */
async function timelinesOf(view: View, keys: WorkspaceKeys, journeys: readonly { readonly key: string; readonly document: JourneyDocument }[]): Promise<readonly (readonly Transition[])[]> {
  const names = journeys.map(({ key, document }) => Array.from({ length: document.chunks }, (_, chunk) => `${keys.id}/t/${key}/${chunk}`));
  const wanted = names.flat();
  const texts = wanted.length === 0 ? [] : await view.load(wanted);
  let at = 0;
  return journeys.map(({ key, document }, i) => {
    const earlier = (names[i] ?? []).flatMap(() => {
      const text = texts[at++] ?? null;
      return text === null ? [] : unpackTransitions(key, text);
    });
    return [...earlier, ...document.transitions];
  });
}

/** A request that has passed its schema, as the view is asked. */
function listing(endpoint: string, body: SearchRequest, keys: WorkspaceKeys, table: Readonly<Record<string, Filter>>): Listing {
  const from = parseRangeDate(body.dateRange.start);
  const to = parseRangeDate(body.dateRange.end);
  if (from === null || to === null) throw new Error('assertion: the range has been checked');
  const direction = body.sortDirection?.toLowerCase() === 'desc' ? 'desc' : 'asc';
  const filters = body.filters ?? [];
  const clauses: Clause[] = [];
  const sub: Clause[] = [];
  for (const { name, values } of filters) {
    const filter = table[name];
    if (filter === undefined) throw new Error('assertion: the filter has been checked');
    (filter.sub ? sub : clauses).push({ field: filter.field, terms: [...new Set(values.map((value) => filter.term(keys, value)))] });
  }
  const canonical = filters.map(({ name, values }) => [name, [...new Set(values)].sort()]).sort(([a], [b]) => (String(a) < String(b) ? -1 : 1));
  return {
    scope: { endpoint, sort: `TIME ${direction}`, query: [from, to, canonical] }, cursor: body.nextPageCursor ?? undefined,
    query: { from: msOf(from), to: msOf(to), clauses, sub, direction, limit: body.limit ?? LIMIT },
  };
}
