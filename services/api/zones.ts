// Timezones: how an instant is printed in one, and where its hours and days begin. The offset is the one valid at that
// instant, so that pages across a change of the clocks are right.
import type { Instant } from '../../schemas/facts.ts';
import { msOf } from '../../schemas/time.ts';

const QUARTER_MS = 900_000;
const HOUR_MS = 3_600_000;
const DAY_MS = 86_400_000;
/** Quarters of an hour whose offset is remembered per zone: 40 days of full pages; then it starts afresh. */
const REMEMBERED_MAX = 4096;

export type Period = 'quarter' | 'hour' | 'day';

export interface Zone {
  /** ISO 8601 with the offset valid then (`Z` for none); milliseconds, left out when zero: a journey's own times have no more, and one instant is printed alike everywhere. */
  print(instant: Instant): string;
  printMs(ms: number): string;
  /** Milliseconds from UTC at an instant. */
  offset(ms: number): number;
  /** Where the period begins that this instant lies in, and where the next one begins; milliseconds. Periods never overlap, and leave nothing out. */
  period(by: Period, ms: number): { readonly from: number; readonly to: number };
}

export type Zones = (name: string) => Zone;

/** Zones by name, made once each: there are some 600 names, so they are kept. */
export function createZones(): Zones {
  const zones = new Map<string, Zone>();
  return (name) => {
    const known = zones.get(name);
    if (known !== undefined) return known;
    const made = createZone(name);
    zones.set(name, made);
    return made;
  };
}

function createZone(name: string): Zone {
  const offset = createOffset(name);
  const days = new Map<number, number>();
  const dayStart = (day: number): number => {
    const known = days.get(day);
    if (known !== undefined) return known;
    if (days.size >= REMEMBERED_MAX) days.clear();
    const start = startOfDay(day * DAY_MS, offset);
    days.set(day, start);
    return start;
  };
  const printMs = (ms: number): string => {
    const minutes = Math.round(offset(ms) / 60_000);
    return `${new Date(ms + minutes * 60_000).toISOString().replace(/(?:\.000)?Z$/, '')}${offsetText(minutes)}`;
  };
  return {
    offset,
    print: (instant) => printMs(msOf(instant)),
    printMs,
    period: (by, ms) => {
      if (by === 'day') {
        const day = Math.floor((ms + offset(ms)) / DAY_MS);
        return { from: dayStart(day), to: dayStart(day + 1) };
      }
      // Every offset in use is a whole number of quarters; an hour begins where the zone's own clock says so (India: half past
      // in UTC), and is cut where the clocks change inside it (Lord Howe: by half an hour).
      const length = by === 'hour' ? HOUR_MS : QUARTER_MS;
      const here = offset(ms);
      const start = ms - modulo(ms + here, length);
      let from = Math.floor(ms / QUARTER_MS) * QUARTER_MS;
      while (from > start && offset(from - 1) === here) from -= QUARTER_MS;
      let to = from + QUARTER_MS;
      while (to < start + length && offset(to) === here) to += QUARTER_MS;
      return { from: Math.max(from, start), to: Math.min(to, start + length) };
    },
  };
}

function createOffset(name: string): (ms: number) => number {
  if (name === 'UTC') return () => 0;
  const format = new Intl.DateTimeFormat('en-US', { timeZone: name, hourCycle: 'h23', era: 'short', year: 'numeric', month: 'numeric', day: 'numeric', hour: 'numeric', minute: 'numeric', second: 'numeric' });
  const remembered = new Map<number, number>();
  return (ms) => {
    // Clocks change at whole quarters of an hour in UTC (Lord Howe: at half past).
    const quarter = Math.floor(ms / QUARTER_MS);
    const known = remembered.get(quarter);
    if (known !== undefined) return known;
    if (remembered.size >= REMEMBERED_MAX) remembered.clear();
    const found = readOffset(format, quarter * QUARTER_MS);
    remembered.set(quarter, found);
    return found;
  };
}

function readOffset(format: Intl.DateTimeFormat, ms: number): number {
  const parts: Partial<Record<Intl.DateTimeFormatPartTypes, string>> = {};
  for (const { type, value } of format.formatToParts(ms)) parts[type] = value;
  const number = (type: Intl.DateTimeFormatPartTypes): number => Number(parts[type] ?? 0);
  const local = new Date(0);
  // Year 0 is 1 BC; setUTCFullYear, because Date.UTC takes the years 0 to 99 for 1900 to 1999.
  local.setUTCFullYear(parts.era?.startsWith('B') === true ? 1 - number('year') : number('year'), number('month') - 1, number('day'));
  local.setUTCHours(number('hour'), number('minute'), number('second'));
  return local.getTime() - ms;
}

/**
 * First instant of a local day. Midnight may come twice (clocks go back over it: the earlier counts) or never (they go
 * forward over it: the day begins where they jump to).
 */
function startOfDay(midnight: number, offset: (ms: number) => number): number {
  const guess = midnight - offset(midnight);
  const before = midnight - offset(guess - 6 * HOUR_MS);
  const after = midnight - offset(guess + 6 * HOUR_MS);
  const valid = [before, after].filter((ms) => ms + offset(ms) === midnight);
  return valid.length === 0 ? before : Math.min(...valid);
}

function offsetText(minutes: number): string {
  if (minutes === 0) return 'Z';
  const size = Math.abs(minutes);
  return `${minutes < 0 ? '-' : '+'}${String(Math.floor(size / 60)).padStart(2, '0')}:${String(size % 60).padStart(2, '0')}`;
}

function modulo(value: number, by: number): number { return ((value % by) + by) % by; }
