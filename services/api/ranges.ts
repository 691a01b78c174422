// What the analysts' endpoints have in common: a range [from, to) of starts, the filters of both searches as parameters,
// the journeys that match them, and how shares are told.
import { setImmediate } from 'node:timers/promises';
import { parseInstant, msOf } from '../../schemas/time.ts';
import type { WorkspaceKeys } from '../../schemas/identity.ts';
import { type Filter, JOURNEY_FILTERS, TRANSITION_FILTERS } from '../../projections/journeys.ts';
import type { SearchQuery, SearchResult, SearchRow, View } from '../ports.ts';
import { clausesOf, type FilterGiven } from './searches.ts';
import { type Refused, refuse } from './views.ts';

/** Those of journeys and of transitions: three stand in both tables, and are the same. */
export const ALL_FILTERS: Readonly<Record<string, Filter>> = { ...TRANSITION_FILTERS, ...JOURNEY_FILTERS };

/** The parameters, beside whatever else an endpoint takes. */
export type Ranged = Readonly<Record<string, unknown>> & { readonly from: string; readonly to: string };
/** Milliseconds; `to` is not included. */
export interface Span { readonly from: number; readonly to: number }

const DAY_MS = 86_400_000;

/** `to` in milliseconds is raised, so that what is left of its last millisecond is in. */
export function spanOf({ from, to }: Ranged, maxDays: number): { readonly kind: 'span'; readonly span: Span } | Refused {
  const [first, last] = [parseInstant(from), parseInstant(to)];
  if (first === null || last === null) throw new Error('assertion: the range has been checked');
  if (first >= last) return refuse('invalidRange');
  const span: Span = { from: msOf(first), to: msOf(last) + (last.endsWith('000000Z') ? 0 : 1) };
  if (span.to - span.from > maxDays * DAY_MS) return refuse('rangeTooLong', { message: `The range is longer than ${String(maxDays)} days.`, more: { maxDays } });
  return { kind: 'span', span };
}

/** The filters among the parameters. */
export function filtersOf(query: Ranged): readonly FilterGiven[] {
  return Object.entries(query).flatMap(([name, value]) => {
    if (!Object.hasOwn(ALL_FILTERS, name) || value === undefined) return [];
    return [{ name, values: Array.isArray(value) ? value as readonly string[] : [value as string] }];
  });
}

/** As the index is asked. Outcomes are the ten here, whatever the 8x8 searches answer with. */
export function queryOf(span: Span, filters: readonly FilterGiven[], keys: WorkspaceKeys): Pick<SearchQuery, 'from' | 'to' | 'clauses' | 'sub'> {
  return { from: span.from, to: span.to - 1, ...clausesOf(filters, ALL_FILTERS, keys, 'latest') };
}

/** Journeys are read so many at a time, and others get their turn between. */
const READ_AT_ONCE = 250;

/** All journeys that match, in pages, each as the view stands when it is read; refused where they are more than `max`. */
export async function matching(view: View, keys: WorkspaceKeys, query: ReturnType<typeof queryOf>, max: number): Promise<{ readonly kind: 'pages'; readonly pages: AsyncIterable<readonly SearchRow[]> } | Refused> {
  const search = (after: SearchQuery['after'], total: number | null): Promise<SearchResult> =>
    view.search({ ...query, workspace: keys.id, direction: 'asc', limit: READ_AT_ONCE, after, total }, 'j');
  const first = await search(null, null);
  if (first.total > max) {
    return refuse('tooManyJourneys', { message: `${String(first.total)} journeys match, more than the ${String(max)} that are read for one answer: ask for a shorter range or with more filters.`, more: { journeys: first.total } });
  }
  return { kind: 'pages', pages: pagesFrom(first, search) };
}

/** Counted once: the pages after the first are told the total. */
async function* pagesFrom(first: SearchResult, search: (after: SearchQuery['after'], total: number) => Promise<SearchResult>): AsyncGenerator<readonly SearchRow[]> {
  for (let page = first; ;) {
    yield page.rows;
    const last = page.rows.at(-1);
    if (!page.more || last === undefined) return;
    await setImmediate();
    page = await search({ time: last.time, id: last.id }, first.total);
  }
}

/** A share as the answers tell it: to four places. */
export function rounded(share: number): number { return Math.round(share * 10_000) / 10_000; }
