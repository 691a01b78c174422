// Outcomes counted by quarter of an hour of the start × outcome × last queue × first medium × direction: each journey
// once, moved by the difference between its old and its new row (design.md section 5). Histograms merge by addition.
import type { Direction, Medium } from '../schemas/facts.ts';
import type { Outcome } from './journeys.ts';

/** Counts by bucket index; bucket i counts durations at most BOUNDS_S[i] seconds and above the bound before; the last index is "longer". */
export type Histogram = Record<number, number>;

/** Document `o/<quarter>/<hash of the dimensions>`; `<quarter>` = start of the quarter in seconds since 1970, offset and zero-padded to 12 digits (`quarterKey`). */
export interface OutcomeCell {
  quarter: number;
  outcome: Outcome;
  queue: { id: string | null; name: string | null } | null;
  medium: Medium | null;
  direction: Direction | null;
  journeys: number;
  waiting: Histogram;
  talking: Histogram;
  hold: Histogram;
}
