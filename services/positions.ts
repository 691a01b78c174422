// Positions of a store's one order, compared. Null stands before all of them: nothing yet.
import type { Position } from './ports.ts';

/** Nothing is before null, and null is before everything else. */
export function isBefore(one: Position | null, other: Position | null): boolean { return other !== null && (one === null || one < other); }

/** Null also where there are none. */
export function lowestOf(positions: readonly (Position | null)[]): Position | null {
  const [first = null, ...rest] = positions;
  return rest.reduce((one, other) => (isBefore(one, other) ? one : other), first);
}
export function highestOf(positions: readonly (Position | null)[]): Position | null {
  return positions.reduce((one, other) => (isBefore(one, other) ? other : one), null);
}

/** About how much of the log up to `to` stands up to `position`, 0 to 1: the first 20 digits count its events (SQLite) or its bytes (EventStoreDB). */
export function shareOf(position: Position | null, to: Position | null): number {
  const [done, all] = [position, to].map((one) => Number(one?.slice(0, 20) ?? 0));
  return all === undefined || all === 0 ? 1 : Math.min(1, (done ?? 0) / all);
}
