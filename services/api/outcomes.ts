// GET /outcomes: cells of a quarter of an hour, added up to periods and groups. Work is linear in the cells of the range;
// what is held is one sum per row of the answer. With filters that cells do not hold, the journeys that match are made
// into cells of one each, and added up in the same way.
import { setImmediate } from 'node:timers/promises';
import { GROUPINGS, type Grouping, JOURNEYS_READ_MAX, OUTCOME_DAYS_MAX, type OutcomeRow } from '../../schemas/apis/native.ts';
import type { WorkspaceKeys } from '../../schemas/identity.ts';
import { type Histogram, type OutcomeCell, unpackJourney } from '../../projections/documents.ts';
import { addHistogram, BOUNDS_S, cellOf, quantile, quarterKey } from '../../projections/outcomes.ts';
import { contribution } from '../../projections/journeys.ts';
import type { SearchRow, View } from '../ports.ts';
import type { ListRow } from './pages.ts';
import type { Call, Outcome } from './call.ts';
import { filtersOf, matching, queryOf, type Ranged, rounded, type Span, spanOf } from './ranges.ts';
import { type FilterGiven, textOf } from './searches.ts';
import { type Refused, refuse } from './views.ts';
import type { Period, Zone, Zones } from './zones.ts';

const QUARTER_MS = 900_000;
const ROWS_MAX = 10_000;
const SCAN = 1000;

export type Asked = Ranged & { readonly by?: Period | undefined; readonly timezone?: string | undefined; readonly group?: string | undefined };
export interface OutcomesOptions { readonly zones: Zones; readonly maxDays: number; /** Tests make it small. */ readonly journeysMax?: number }

interface Totals {
  journeys: number;
  handled: number;
  abandoned: number;
  readonly waiting: Histogram;
  readonly talking: Histogram;
  readonly hold: Histogram;
  /** The waits of journeys that were handled, which service levels count. */
  readonly handledWaiting: Histogram;
}
/** A row while it is added up; the cell has the values that its group goes by. */
interface Sum extends Span { cell: OutcomeCell; readonly totals: Totals }

export async function outcomesOf({ query, keys, view }: Call<unknown, Asked, unknown>, { zones, maxDays, journeysMax = JOURNEYS_READ_MAX }: OutcomesOptions): Promise<Outcome> {
  const read = spanOf(query, Math.max(OUTCOME_DAYS_MAX, maxDays));
  if (read.kind === 'refused') return read;
  const range: Span = { from: Math.floor(read.span.from / QUARTER_MS) * QUARTER_MS, to: Math.ceil(read.span.to / QUARTER_MS) * QUARTER_MS };
  const zone = zones(query.timezone ?? 'UTC');
  const groups = GROUPINGS.filter((name) => query.group?.split(',').includes(name) ?? false);
  const sums = new Map<string, Sum>();
  const total = noTotals();
  const found = await cellsFor(view('journeys'), keys, range, filtersOf(query), journeysMax);
  if (found.kind === 'refused') return found;
  for await (const cell of found.cells) {
    const period = zone.period(query.by ?? 'day', cell.quarter * 1000);
    const key = JSON.stringify([period.from, ...groups.map((group) => groupValue(cell, group))]);
    const sum = sums.get(key) ?? { from: Math.max(period.from, range.from), to: Math.min(period.to, range.to), cell, totals: noTotals() };
    sums.set(key, sum);
    sum.cell = called(sum.cell, cell);
    addCell(sum.totals, cell);
    addCell(total, cell);
    if (sums.size > ROWS_MAX) return refuse('tooManyRows');
  }
  const sorted = [...sums].sort(([a, one], [b, other]) => one.from - other.from || (a < b ? -1 : 1));
  const rows = sorted.map(([, sum]): ListRow => ({ value: rowOf(sum, sum.totals, dimensionsOf(sum.cell, groups), zone) }));
  return { kind: 'page', rows, cursor: null, total: rows.length, after: { total: rowOf(range, total, {}, zone) } };
}

/** What cells tell: every one is of one outcome and one direction. A journey's queues and media are more than the one that its cell goes by. */
const HELD = { outcome: (cell: OutcomeCell) => cell.outcome, direction: (cell: OutcomeCell) => cell.direction } as const;
const isHeld = (name: string): name is keyof typeof HELD => Object.hasOwn(HELD, name);

async function cellsFor(view: View, keys: WorkspaceKeys, range: Span, filters: readonly FilterGiven[], journeysMax: number): Promise<{ readonly kind: 'cells'; readonly cells: AsyncIterable<OutcomeCell> } | Refused> {
  if (filters.every(({ name }) => isHeld(name))) return { kind: 'cells', cells: cellsHolding(cellsOf(view, keys.id, range), filters) };
  const found = await matching(view, keys, queryOf(range, filters, keys), journeysMax);
  return found.kind === 'refused' ? found : { kind: 'cells', cells: cellsOfJourneys(found.pages) };
}

async function* cellsHolding(cells: AsyncIterable<OutcomeCell>, filters: readonly FilterGiven[]): AsyncGenerator<OutcomeCell> {
  for await (const cell of cells) {
    if (filters.every(({ name, values }) => isHeld(name) && values.some((value) => value === HELD[name](cell)))) yield cell;
  }
}

async function* cellsOfJourneys(pages: AsyncIterable<readonly SearchRow[]>): AsyncGenerator<OutcomeCell> {
  for await (const rows of pages) {
    for (const row of rows) yield cellOf(contribution(unpackJourney(row.key, textOf(row))));
  }
}

/** The cells of a range, in order of their quarters; in pages, between which others get their turn. */
async function* cellsOf(view: View, workspace: string, { from, to }: Span): AsyncGenerator<OutcomeCell> {
  const end = `${workspace}/o/${quarterKey(to)}/`;
  for (let next = `${workspace}/o/${quarterKey(from)}/`; ;) {
    const page = await view.scan(next, end, SCAN);
    for (const { value } of page) yield JSON.parse(value) as OutcomeCell;
    const last = page.at(-1);
    if (last === undefined || page.length < SCAN) return;
    // The least key after the last one.
    next = `${last.key}\0`;
    await setImmediate();
  }
}

function noTotals(): Totals { return { journeys: 0, handled: 0, abandoned: 0, waiting: {}, talking: {}, hold: {}, handledWaiting: {} }; }

function addCell(totals: Totals, { outcome, journeys, waiting, talking, hold }: OutcomeCell): void {
  totals.journeys += journeys;
  if (outcome === 'Abandoned') totals.abandoned += journeys;
  if (outcome === 'Handled') {
    totals.handled += journeys;
    addHistogram(totals.handledWaiting, waiting);
  }
  addHistogram(totals.waiting, waiting);
  addHistogram(totals.talking, talking);
  addHistogram(totals.hold, hold);
}

/**
 * Of two cells of one row the first that has its queue's name: in the order of quarters, and in one of names, since the
 * cells of a quarter, and the journeys that they count, come in no order that means anything. So with a medium's spelling.
 */
function called(one: OutcomeCell, other: OutcomeCell): OutcomeCell {
  const [name, otherName] = [one.queue?.name ?? null, other.queue?.name ?? null];
  const isBetter = otherName !== null && (name === null || other.quarter < one.quarter || (other.quarter === one.quarter && otherName < name));
  const medium = other.medium !== null && one.medium !== null && other.medium < one.medium ? other.medium : one.medium;
  return isBetter || medium !== one.medium ? { ...(isBetter ? other : one), medium } : one;
}

/** What tells a row from the others of its period: a queue is one by its id, whatever it was called meanwhile, and a medium however it is spelt, as for the filter. */
function groupValue(cell: OutcomeCell, group: Grouping): string | null {
  if (group === 'medium') return cell.medium?.toLowerCase() ?? null;
  if (group !== 'queue') return cell[group];
  return cell.queue === null ? null : cell.queue.id === null ? `name:${cell.queue.name ?? ''}` : `id:${cell.queue.id}`;
}

/** The values that a row stands for, those asked for alone. */
function dimensionsOf({ outcome, queue, medium, direction }: OutcomeCell, groups: readonly Grouping[]): Partial<OutcomeRow> {
  const all = { outcome, queue, medium, direction };
  return Object.fromEntries(groups.map((group) => [group, all[group]]));
}

function rowOf({ from, to }: Span, totals: Totals, dimensions: Partial<OutcomeRow>, zone: Zone): OutcomeRow {
  const { journeys, handled, abandoned } = totals;
  const offered = handled + abandoned;
  return {
    from: zone.printMs(from), to: zone.printMs(to), ...dimensions, journeys, handled, abandoned,
    abandonmentRate: offered === 0 ? null : rounded(abandoned / offered),
    serviceLevels: offered === 0 ? null : serviceLevels(totals, offered),
    waiting: quantiles(totals.waiting), talking: quantiles(totals.talking), hold: quantiles(totals.hold),
  };
}

/** At every bound, in one pass. A handled journey that never waited is in no bucket, and was answered within every bound. */
function serviceLevels({ handled, handledWaiting }: Totals, offered: number): Record<string, number> {
  let within = handled - Object.values(handledWaiting).reduce((all, count) => all + count, 0);
  return Object.fromEntries(BOUNDS_S.map((bound, bucket) => {
    within += handledWaiting[bucket] ?? 0;
    return [String(bound), rounded(within / offered)];
  }));
}

function quantiles(histogram: Histogram): OutcomeRow['waiting'] { return { p50: quantile(histogram, 0.5), p90: quantile(histogram, 0.9) }; }
