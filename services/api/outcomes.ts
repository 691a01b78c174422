// GET /outcomes: cells of a quarter of an hour, added up to periods and groups. Work is linear in the cells of the range;
// what is held is one sum per row of the answer.
import { setImmediate } from 'node:timers/promises';
import { GROUPINGS, type Grouping, type OutcomeRow } from '../../schemas/apis/native.ts';
import { parseInstant, msOf } from '../../schemas/time.ts';
import { addHistogram, BOUNDS_S, type Histogram, type OutcomeCell, quantile, quarterKey } from '../../projections/outcomes.ts';
import type { View } from '../ports.ts';
import type { ListRow } from './pages.ts';
import type { Call, Outcome } from './routes.ts';
import { refuse } from './views.ts';
import type { Period, Zone, Zones } from './zones.ts';

const QUARTER_MS = 900_000;
const RANGE_MAX_MS = 400 * 86_400_000;
const ROWS_MAX = 50_000;
const SCAN = 1000;

interface Asked { readonly from: string; readonly to: string; readonly by?: Period | undefined; readonly timezone?: string | undefined; readonly group?: string | undefined }

/** What a row adds up. */
interface Sum {
  readonly from: number;
  readonly to: number;
  /** The groups' values, of the first cell: the others have the same. */
  readonly cell: Pick<OutcomeCell, 'outcome' | 'queue' | 'medium' | 'direction'>;
  journeys: number;
  handled: number;
  abandoned: number;
  /** Waiting of the handled ones alone: what a service level counts. */
  handledWaiting: Histogram;
  waiting: Histogram;
  talking: Histogram;
  hold: Histogram;
}

export async function outcomesOf({ query, keys, view }: Call<unknown, Asked, unknown>, zones: Zones): Promise<Outcome> {
  const [first, last] = [parseInstant(query.from), parseInstant(query.to)];
  if (first === null || last === null) throw new Error('assertion: the range has been checked');
  const from = Math.floor(msOf(first) / QUARTER_MS) * QUARTER_MS;
  // The millisecond is floored: what is left of it counts.
  const to = Math.ceil((msOf(last) + (last.endsWith('000000Z') ? 0 : 1)) / QUARTER_MS) * QUARTER_MS;
  if (first >= last) return refuse('invalidRange');
  if (to - from > RANGE_MAX_MS) return refuse('rangeTooLong');
  const zone = zones(query.timezone ?? 'UTC');
  const groups = GROUPINGS.filter((name) => query.group?.split(',').includes(name) ?? false);
  const sums = new Map<string, Sum>();
  let all: Sum | null = null;
  for await (const cell of cells(view('journeys'), keys.id, from, to)) {
    const start = cell.quarter * 1000;
    const period = zone.period(query.by ?? 'day', start);
    const key = JSON.stringify([period.from, ...groups.map((group) => dimensionOf(cell, group))]);
    add(sums, key, { from: Math.max(period.from, from), to: Math.min(period.to, to) }, cell);
    all = sumOf(all ?? empty({ from, to }, cell), cell);
    if (sums.size > ROWS_MAX) return refuse('tooManyRows');
  }
  const total = all ?? empty({ from, to }, { outcome: 'UnknownOutcome', queue: null, medium: null, direction: null });
  const rows = [...sums].sort(([a, one], [b, other]) => one.from - other.from || (a < b ? -1 : 1)).map(([, sum]): ListRow => ({ value: rowOf(sum, groups, zone) }));
  return { kind: 'page', rows, cursor: null, total: rows.length, after: { total: rowOf(total, [], zone) } };
}

/** A queue is one by its id, whatever it was called meanwhile; the name shown is the first one. */
function dimensionOf(cell: OutcomeCell, group: Grouping): string | null {
  return group === 'queue' ? cell.queue === null ? null : `${cell.queue.id === null ? 'name' : 'id'}:${cell.queue.id ?? cell.queue.name ?? ''}` : cell[group];
}

/** The cells of a range, in order of their quarters; in pages, between which others get their turn. */
async function* cells(view: View, workspace: string, from: number, to: number): AsyncGenerator<OutcomeCell> {
  const end = `${workspace}/o/${quarterKey(to)}`;
  for (let next = `${workspace}/o/${quarterKey(from)}`; ;) {
    const page = await view.scan(next, end, SCAN);
    for (const { value } of page) yield JSON.parse(value) as OutcomeCell;
    const last = page.at(-1);
    if (last === undefined || page.length < SCAN) return;
    // The least key after the last one.
    next = `${last.key}\0`;
    await setImmediate();
  }
}

function empty(period: { readonly from: number; readonly to: number }, { outcome, queue, medium, direction }: Sum['cell']): Sum {
  return { ...period, cell: { outcome, queue, medium, direction }, journeys: 0, handled: 0, abandoned: 0, handledWaiting: {}, waiting: {}, talking: {}, hold: {} };
}

function add(sums: Map<string, Sum>, key: string, period: { readonly from: number; readonly to: number }, cell: OutcomeCell): void {
  sums.set(key, sumOf(sums.get(key) ?? empty(period, cell), cell));
}

function sumOf(sum: Sum, cell: OutcomeCell): Sum {
  sum.journeys += cell.journeys;
  if (cell.outcome === 'Handled') {
    sum.handled += cell.journeys;
    addHistogram(sum.handledWaiting, cell.waiting);
  }
  if (cell.outcome === 'Abandoned') sum.abandoned += cell.journeys;
  addHistogram(sum.waiting, cell.waiting);
  addHistogram(sum.talking, cell.talking);
  addHistogram(sum.hold, cell.hold);
  return sum;
}

function rowOf(sum: Sum, groups: readonly Grouping[], zone: Zone): OutcomeRow {
  const { journeys, handled, abandoned, cell } = sum;
  const offered = handled + abandoned;
  const has = (group: Grouping): boolean => groups.includes(group);
  return {
    from: zone.printMs(sum.from), to: zone.printMs(sum.to),
    ...(has('outcome') ? { outcome: cell.outcome } : {}), ...(has('queue') ? { queue: cell.queue } : {}), ...(has('medium') ? { medium: cell.medium } : {}), ...(has('direction') ? { direction: cell.direction } : {}),
    journeys, handled, abandoned,
    abandonmentRate: offered === 0 ? null : rounded(abandoned / offered),
    serviceLevels: offered === 0 ? null : serviceLevels(sum, offered),
    waiting: quantiles(sum.waiting), talking: quantiles(sum.talking), hold: quantiles(sum.hold),
  };
}

/** A handled journey that never waited is in no bucket, and was answered within every bound. */
function serviceLevels({ handled, handledWaiting }: Sum, offered: number): Record<string, number> {
  const waited = Object.values(handledWaiting).reduce((all, count) => all + count, 0);
  const levels: Record<string, number> = {};
  let within = handled - waited;
  BOUNDS_S.forEach((bound, i) => {
    within += handledWaiting[i] ?? 0;
    levels[String(bound)] = rounded(within / offered);
  });
  return levels;
}

function quantiles(histogram: Histogram): OutcomeRow['waiting'] { return { p50: quantile(histogram, 0.5), p90: quantile(histogram, 0.9) }; }

function rounded(share: number): number { return Math.round(share * 10_000) / 10_000; }
