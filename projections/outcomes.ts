// Outcomes counted by quarter of an hour of the start × outcome × last queue × first medium × direction: each journey
// once, moved by the difference between its old and its new row (design.md section 5). Histograms merge by addition.
import type { Direction, Medium } from '../schemas/facts.ts';
import { msOf } from '../schemas/time.ts';
import type { Histogram, JourneyRow, LastState, Outcome, OutcomeCell } from './documents.ts';
import type { FoldContext } from './projection.ts';

// ---- the outcome of one journey -----------------------------------------------------------------------------------------

/**
 * 8x8's newest ten values (journey-apis-facts.md 1.8), in the order in which its rules are given; provisional while the
 * journey is open. Handled is sticky: once an agent talked or processed a voicemail, nothing that follows undoes it.
 * `dials`: outbound dials that are over, since a callback was first asked for. `endedBy`: who ended the interaction of the
 * last state.
 */
export function outcomeOf(said: { handled: boolean; callback: boolean; dials: number; finished: boolean; last: LastState | null; endedBy: 'customer' | 'agent' | 'system' | null; gaveUp: boolean }): Outcome {
  if (said.handled) return 'Handled';
  if (said.callback) return !said.finished ? 'CallbackRequested' : said.dials > 0 ? 'CallbackNoAnswer' : 'CallbackExpired';
  if (said.last === 'VOICEMAIL' || said.last === 'FOLLOWUP_PENDING') return 'Voicemail';
  if (said.last === 'EXTERNAL') return 'ForwardedToExternalNumber';
  if (!said.finished) return 'UnknownOutcome';
  // Of any of its interactions, whatever followed (1.8: any that is abandoned goes before one that ended in its script).
  if (said.gaveUp) return 'Abandoned';
  if (said.last === 'WAITING' && said.endedBy !== 'agent' && said.endedBy !== 'system') return 'Abandoned';
  return said.last === 'IN_SCRIPT' ? 'EndedInScript' : 'Other';
}

// ---- quarters -----------------------------------------------------------------------------------------------------------

const QUARTER_S = 900;
/** Seconds from 0000-01-01 to 1970, so that no key is negative. */
const KEY_OFFSET_S = 62_167_219_200;

/** Start of the quarter of an hour that a time (milliseconds since 1970) lies in, in seconds since 1970. */
export function quarterOf(ms: number): number {
  return Math.floor(ms / 1000 / QUARTER_S) * QUARTER_S;
}

/** Name of that quarter in the keys of cells: 12 digits, so that key order is time order. A scan of [from, to) goes from `o/<quarterKey(from)>/` to `o/<quarterKey(to)>/`. */
export function quarterKey(ms: number): string {
  return String(quarterOf(ms) + KEY_OFFSET_S).padStart(12, '0');
}

// ---- histograms ---------------------------------------------------------------------------------------------------------

/** Upper bounds of the buckets, seconds, inclusive; what is longer than a day is counted above the last. A change needs a new version of the projection. */
export const BOUNDS_S: readonly number[] = [
  1, 2, 5, 10, 15, 20, 25, 30, 40, 45, 50, 60, 75, 90, 105, 120, 150, 180, 210, 240, 270, 300, 360, 420, 480, 540, 600, 720, 900, 1080, 1200, 1500, 1800,
  2100, 2400, 2700, 3000, 3600, 4500, 5400, 7200, 9000, 10_800, 14_400, 18_000, 21_600, 28_800, 36_000, 43_200, 57_600, 72_000, 86_400,
];

/** Bucket of a duration in milliseconds. */
export function bucketOf(ms: number): number {
  let low = 0;
  let high = BOUNDS_S.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((BOUNDS_S[middle] ?? Infinity) * 1000 < ms) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Merges: adds `from`, `times` over, to `to`; a bucket that comes to zero goes. Commutative and associative, so that any cut into parts gives the same. */
export function addHistogram(to: Histogram, from: Histogram, times = 1): void {
  for (const [bucket, count] of Object.entries(from)) bump(to, Number(bucket), count * times);
}

function bump(histogram: Histogram, bucket: number, by: number): void {
  const now = (histogram[bucket] ?? 0) + by;
  if (now === 0) Reflect.deleteProperty(histogram, bucket);
  else histogram[bucket] = now;
}

/**
 * The duration, in seconds, that at least the share `p` (0 to 1) of those counted do not exceed: the upper bound of its
 * bucket, so never too low, and too high by less than the bucket is wide (at most 5 s up to 30 s, 33 % above that). Null when nothing
 * is counted, or when it is past the last bound.
 */
export function quantile(histogram: Histogram, p: number): number | null {
  let count = 0;
  for (const one of Object.values(histogram)) count += one;
  const wanted = Math.max(1, Math.ceil(count * p));
  let seen = 0;
  for (let bucket = 0; bucket < BOUNDS_S.length && count > 0; bucket += 1) {
    seen += histogram[bucket] ?? 0;
    if (seen >= wanted) return BOUNDS_S[bucket] ?? null;
  }
  return null;
}

// ---- the cells -------------------------------------------------------------------------------------------------------------

/** What one journey adds to the one cell that counts it. */
export interface Contribution {
  readonly quarterMs: number;
  readonly outcome: Outcome;
  readonly queue: { readonly id: string | null; readonly name: string | null } | null;
  readonly medium: Medium | null;
  readonly direction: Direction | null;
  /** Milliseconds; 0 is not counted. */
  readonly waiting: number;
  readonly talking: number;
  readonly hold: number;
}

/** `queue`: the last one of the journey's transitions, as its row knows it. */
export function contributionOf(row: JourneyRow, queue: { readonly id: string | null; readonly name?: string | null } | null): Contribution {
  return {
    quarterMs: quarterOf(msOf(row.at)) * 1000, outcome: row.outcome, queue: queue === null ? null : { id: queue.id, name: queue.name ?? null },
    medium: row.mediaTypes[0] ?? null, direction: row.direction, waiting: row.waitingDuration, talking: row.talkingDuration, hold: row.holdDuration,
  };
}

/** A cell that counts one journey. */
export function cellOf(one: Contribution): OutcomeCell {
  const cell = emptyCell(one);
  addTo(cell, one, 1);
  return cell;
}

function emptyCell({ quarterMs, outcome, queue, medium, direction }: Contribution): OutcomeCell {
  return { quarter: quarterMs / 1000, outcome, queue: queue === null ? null : { id: queue.id, name: queue.name }, medium, direction, journeys: 0, waiting: {}, talking: {}, hold: {} };
}

function addTo(cell: OutcomeCell, one: Contribution, times: 1 | -1): void {
  cell.journeys += times;
  if (one.waiting > 0) bump(cell.waiting, bucketOf(one.waiting), times);
  if (one.talking > 0) bump(cell.talking, bucketOf(one.talking), times);
  if (one.hold > 0) bump(cell.hold, bucketOf(one.hold), times);
}

/** The difference that a batch makes to the cells: gathered per cell, so that each is loaded and written once. */
export class OutcomeDelta {
  readonly #context: FoldContext;
  readonly #cells = new Map<string, OutcomeCell>();
  readonly #names = new Map<string, string>();

  constructor(context: FoldContext) {
    this.#context = context;
  }

  /** A journey that contributed `before` now contributes `after`. Null: it is not there. */
  move(before: Contribution | null, after: Contribution | null): void {
    if (before !== null && after !== null && sameContribution(before, after)) return;
    if (before !== null) this.#add(before, -1);
    if (after !== null) this.#add(after, 1);
  }

  /** Keys of the cells that change, to be loaded. */
  keys(): string[] {
    return [...this.#cells].filter(([, delta]) => delta.journeys !== 0 || [delta.waiting, delta.talking, delta.hold].some((histogram) => Object.keys(histogram).length > 0)).map(([key]) => key);
  }

  /** The cell as it is to stand, null when it counts no journey any more. */
  apply(key: string, stored: OutcomeCell | null): OutcomeCell | null {
    const delta = this.#cells.get(key);
    if (delta === undefined) return stored;
    const cell = stored ?? { ...delta, journeys: 0, waiting: {}, talking: {}, hold: {} };
    cell.journeys += delta.journeys;
    addHistogram(cell.waiting, delta.waiting);
    addHistogram(cell.talking, delta.talking);
    addHistogram(cell.hold, delta.hold);
    return cell.journeys === 0 ? null : cell;
  }

  #add(one: Contribution, times: 1 | -1): void {
    const { outcome, queue, medium, direction } = one;
    // The queue's name is one of the dimensions, so that a cell says the same whichever journey came last.
    const dimensions = JSON.stringify([outcome, queue?.id ?? null, queue?.name ?? null, medium, direction]);
    let name = this.#names.get(dimensions);
    if (name === undefined) this.#names.set(dimensions, name = this.#context.hash('outcome', dimensions));
    const key = `o/${quarterKey(one.quarterMs)}/${name}`;
    let cell = this.#cells.get(key);
    if (cell === undefined) this.#cells.set(key, cell = emptyCell(one));
    addTo(cell, one, times);
  }
}

function sameContribution(a: Contribution, b: Contribution): boolean {
  return a.quarterMs === b.quarterMs && a.outcome === b.outcome && a.medium === b.medium && a.direction === b.direction
    && a.queue?.id === b.queue?.id && a.queue?.name === b.queue?.name && (a.queue === null) === (b.queue === null)
    && a.waiting === b.waiting && a.talking === b.talking && a.hold === b.hold;
}
