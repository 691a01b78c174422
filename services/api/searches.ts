// Searches over journeys: the 8x8 requests, and whatever else lists or counts journeys that match filters. A filter is a
// line of the projection's own tables, so that what is asked for and what is indexed cannot differ.
import { eightByEightProblem, outcomesOfFilter, parseRangeDate, type Revision, type SearchRequest } from '../../schemas/apis/eightbyeight.ts';
import type { Problem } from '../../schemas/apis/openapi.ts';
import type { Instant } from '../../schemas/facts.ts';
import { nodeKey, type WorkspaceKeys } from '../../schemas/identity.ts';
import { msOf } from '../../schemas/time.ts';
import { type AccountKind, type JourneyDocument, type JourneyRow, type Transition, unpackJourney, unpackJourneyOf, unpackRow, unpackTransitions } from '../../projections/documents.ts';
import { accountKey, type Filter, JOURNEY_FILTERS, TRANSITION_FILTERS } from '../../projections/journeys.ts';
import type { Clause, SearchQuery, SearchResult, SearchRow, View } from '../ports.ts';
import { journeyDetailOf, journeyOf, searchedJourneyOf, transitionOf } from './answers.ts';
import { type CursorScope, type ListRow, type Page, readCursor, writeCursor } from './pages.ts';
import type { ApiDeps, Call, Outcome, RawCall } from './call.ts';
import { type Refused, refuse } from './views.ts';
import type { Zone, Zones } from './zones.ts';

export const LIMIT = 100;
/** All of time that a view orders by. */
const EVER = { from: Date.UTC(-1, 0, 1), to: Date.UTC(9999, 11, 31, 23, 59, 59, 999) };

type FilterTable = Readonly<Record<string, Filter>>;
export interface FilterGiven { readonly name: string; readonly values: readonly string[] }
export interface Listing { readonly scope: CursorScope; readonly cursor: string | undefined; readonly query: Omit<SearchQuery, 'workspace' | 'after' | 'total'> }

/** What names an account's parts, by filter. */
const ACCOUNT_FILTERS = { pbxNames: { kind: 'pbx', code: 'invalidPbx' }, tenantIds: { kind: 'tenant', code: 'invalidTenant' } } as const satisfies Record<string, { kind: AccountKind; code: string }>;
type AccountFilter = keyof typeof ACCOUNT_FILTERS;

export interface SearchesOptions extends Pick<ApiDeps, 'revision'> {
  readonly workspaces: Pick<ApiDeps['workspaces'], 'settings'>;
  readonly zones: Zones;
}

export class Searches {
  readonly #zones: Zones;
  readonly #options: SearchesOptions;
  constructor(options: SearchesOptions) {
    this.#options = options;
    this.#zones = options.zones;
  }

  async journeys({ body, keys, view }: Call<unknown, unknown, SearchRequest>): Promise<Outcome> {
    const found = await list(view('journeys'), keys, this.#listing('searchJourneys', body, keys, JOURNEY_FILTERS));
    if (found.kind === 'refused') return found;
    const zone = this.#zones(body.displayTimezone);
    return page(found, found.rows.map((row) => ({ value: searchedJourneyOf(rowOf(row), zone, this.#options.revision) })));
  }

  async transitions({ body, keys, view }: Call<unknown, unknown, SearchRequest>): Promise<Outcome> {
    const journeys = view('journeys');
    const found = await list(journeys, keys, this.#listing('searchTransitions', body, keys, TRANSITION_FILTERS));
    if (found.kind === 'refused') return found;
    const zone = this.#zones(body.displayTimezone);
    const rows = (await timelinesOf(journeys, keys, found.rows)).map(({ document, transitions }) => ({ value: { journeyId: document.row.journeyId, transitions: transitions.map((transition) => transitionOf(transition, zone)) } }));
    return page(found, rows);
  }

  /**
   * What a body says wrong that its form does not show, whatever else is wrong with it: a cursor that was not given for this,
   * PBXes and tenants that are none of the account's. `wrong` names the fields that have not passed the schema.
   */
  async problemsOf(endpoint: string, { body, view }: Pick<RawCall, 'body' | 'view'>, keys: WorkspaceKeys, wrong: ReadonlySet<unknown>): Promise<readonly Problem[]> {
    if (typeof body !== 'object' || body === null) return [];
    const { nextPageCursor, filters } = body as { readonly nextPageCursor?: unknown; readonly filters?: unknown };
    const problems: Problem[] = [];
    if (typeof nextPageCursor === 'string') {
      // Nothing is looked at but fields that have passed.
      const given = body as SearchRequest;
      const scope = { endpoint, sort: wrong.has('sortDirection') ? null : sortOf(given), query: wrong.has('dateRange') || wrong.has('filters') ? null : askedOf(given) };
      const read = readCursor(keys.cursorKey, scope, nextPageCursor);
      if (read.kind === 'refused') problems.push(eightByEightProblem(read.code, ['nextPageCursor']));
    }
    if (this.#options.revision === 'latest' || !Array.isArray(filters)) return problems;
    // A generation of an earlier version, which answers for a while after an upgrade, does not know what the account has.
    if (!view('journeys').generation.ordered.includes('a')) return problems;
    for (const [at, one] of filters.entries()) {
      if (!isAccountFilter(one)) continue;
      problems.push(...await this.#accountProblems(view('journeys'), keys, one.name, one.values, ['filters', at, 'values']));
    }
    return problems;
  }

  /** The account has what its operators said and what its events named; of any other account's nothing is looked at. */
  async #accountProblems(view: View, keys: WorkspaceKeys, name: AccountFilter, values: readonly unknown[], path: readonly PropertyKey[]): Promise<readonly Problem[]> {
    const { kind, code } = ACCOUNT_FILTERS[name];
    const set = this.#options.workspaces.settings(keys.id)[name];
    // The schema tells of a value that is no text.
    const unset = values.flatMap((value, at) => (typeof value === 'string' && !set.includes(value) ? [{ value, at }] : []));
    const found = unset.length === 0 ? [] : await view.load(unset.map(({ value }) => `${keys.id}/${accountKey(keys, kind, value)}`));
    const wrong = unset.filter((_, i) => found[i] === null);
    if (wrong.length === 0) return [];
    const has = set.length > 0 || (await view.scan(`${keys.id}/a/${kind}/`, `${keys.id}/a/${kind}0`, 1)).length > 0;
    return name === 'pbxNames' && !has ? [eightByEightProblem('missingPbxForCustomer')] : wrong.map(({ at }) => eightByEightProblem(code, [...path, at]));
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
    const [timeline] = await timelinesOf(journeys, keys, [{ key, document: text }]);
    if (timeline === undefined) throw new Error('assertion: one timeline for each journey');
    return { kind: 'answer', value: journeyDetailOf(timeline.document, timeline.transitions, this.#zones(query.timezone ?? 'UTC')) };
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

  /** A request that has passed its schema, as the view is asked. */
  #listing(endpoint: string, body: SearchRequest, keys: WorkspaceKeys, table: FilterTable): Listing {
    const { from, to } = rangeOf(body);
    return {
      scope: { endpoint, sort: sortOf(body), query: askedOf(body) }, cursor: body.nextPageCursor ?? undefined,
      query: { from: msOf(from), to: msOf(to), ...clausesOf(body.filters ?? [], table, keys, this.#options.revision), direction: directionOf(body), limit: body.limit ?? LIMIT },
    };
  }
}

function directionOf({ sortDirection }: Pick<SearchRequest, 'sortDirection'>): 'asc' | 'desc' { return sortDirection?.toLowerCase() === 'desc' ? 'desc' : 'asc'; }
function sortOf(body: Pick<SearchRequest, 'sortDirection'>): CursorScope['sort'] { return `TIME ${directionOf(body)}`; }

function rangeOf({ dateRange }: Pick<SearchRequest, 'dateRange'>): { readonly from: Instant; readonly to: Instant } {
  const [from, to] = [parseRangeDate(dateRange.start), parseRangeDate(dateRange.end)];
  if (from === null || to === null) throw new Error('assertion: the range has been checked');
  return { from, to };
}

/** What the rows depend on, beside their order. */
function askedOf(body: Pick<SearchRequest, 'dateRange' | 'filters'>): CursorScope['query'] {
  const { from, to } = rangeOf(body);
  return [from, to, canonical(body.filters ?? [])];
}

function isAccountFilter(one: unknown): one is { readonly name: AccountFilter; readonly values: readonly unknown[] } {
  if (typeof one !== 'object' || one === null || !('name' in one) || !('values' in one)) return false;
  return typeof one.name === 'string' && Object.hasOwn(ACCOUNT_FILTERS, one.name) && Array.isArray(one.values);
}

/** Filters in one form, whatever their order. */
export function canonical(filters: readonly FilterGiven[]): readonly unknown[] {
  return filters.map(({ name, values }) => [name, [...new Set(values)].sort()]).sort(([a], [b]) => (String(a) < String(b) ? -1 : 1));
}

/** Filters as the index is asked: those of a transition are to be met in one. */
export function clausesOf(filters: readonly FilterGiven[], table: FilterTable, keys: WorkspaceKeys, revision: Revision): Pick<SearchQuery, 'clauses' | 'sub'> {
  const clauses: Clause[] = [];
  const sub: Clause[] = [];
  for (const { name, values } of filters) {
    const filter = table[name];
    if (filter === undefined) throw new Error('assertion: the filter has been checked');
    const meant = name === 'outcome' ? values.flatMap((value) => outcomesOfFilter(revision, value)) : values;
    (filter.sub ? sub : clauses).push({ field: filter.field, terms: [...new Set(meant.map((value) => filter.term(keys, value)))] });
  }
  return { clauses, sub };
}

export type Found = SearchResult & { readonly kind: 'found'; readonly cursor: string | null };

export async function list(view: View, keys: WorkspaceKeys, { scope, cursor, query }: Listing): Promise<Found | Refused> {
  const read = cursor === undefined ? null : readCursor(keys.cursorKey, scope, cursor);
  if (read?.kind === 'refused') return refuse(read.code);
  const after = read === null ? null : { time: Number(read.keyset.time), id: read.keyset.id };
  const result = await view.search({ ...query, workspace: keys.id, after, total: read?.keyset.total ?? null }, 'j');
  const last = result.more ? result.rows.at(-1) : undefined;
  return { kind: 'found', ...result, cursor: last === undefined ? null : writeCursor(keys.cursorKey, scope, { time: last.time, id: last.id, total: result.total }) };
}

export function page({ cursor, total }: Found, rows: readonly ListRow[]): Page {
  return { kind: 'page', rows, cursor, total, after: { nextPageCursor: cursor, totalElements: total } };
}

/** The document that a row brings along. */
export function textOf(row: Pick<SearchRow, 'document'>): string {
  if (row.document === null) throw new Error('assertion: a record stands with its document');
  return row.document;
}

/** A list needs the row alone; the rest of the document is not unpacked. */
function rowOf(row: SearchRow): JourneyRow { return unpackRow(row.key, textOf(row)); }

export interface Timeline { readonly document: JourneyDocument; readonly transitions: readonly Transition[] }

/** Whole timelines: what stands in the document, after the chunks before it; one read for all. */
export async function timelinesOf(view: View, keys: WorkspaceKeys, rows: readonly Pick<SearchRow, 'key' | 'document'>[]): Promise<readonly Timeline[]> {
  const journeys = rows.map((row) => ({ key: row.key, document: unpackJourney(row.key, textOf(row)) }));
  const names = journeys.map(({ key, document }) => Array.from({ length: document.chunks }, (_, chunk) => `${keys.id}/t/${key}/${String(chunk)}`));
  const wanted = names.flat();
  const texts = wanted.length === 0 ? [] : await view.load(wanted);
  let at = 0;
  return journeys.map(({ key, document }, i) => {
    const earlier = (names[i] ?? []).flatMap(() => {
      const text = texts[at++] ?? null;
      return text === null ? [] : unpackTransitions(key, text);
    });
    return { document, transitions: [...earlier, ...document.transitions] };
  });
}
