// Instants: RFC 3339 date-times as they are received → UTC with nine fraction digits, in which string order is time order.
//
// No `Date` stands in the way of an event's `time`: a Date has milliseconds, knows no year below 100 in its numeric
// constructor, and takes impossible dates for others.
import type { Instant } from './facts.ts';

const ZERO = 48;
const DAYS_BEFORE_EPOCH = 719_468;
const DAYS_OF_ERA = 146_097;
/** What a fraction of n digits lacks to be nine digits and `Z`. */
const TAIL = ['.000000000Z', '00000000Z', '0000000Z', '000000Z', '00000Z', '0000Z', '000Z', '00Z', '0Z', 'Z'] as const;
const FIRST_SECOND = -62_167_219_200;
const LAST_SECOND = 253_402_300_799;

/**
 * RFC 3339 section 5.6 date-time → Instant; null where it is none, names no day of the calendar, or falls outside the
 * years 0000–9999 in UTC. `t` and `z` may be lower-case; a space is not taken for `T`. Fractions beyond nanoseconds are
 * cut off, not rounded: rounding could carry an event into the next day. A leap second (23:59:60 UTC) is the start of
 * the second after it.
 */
export function parseInstant(text: string): Instant | null {
  const length = text.length;
  if (length < 20) return null;
  const date = readDate(text);
  if (date === null) return null;
  const separator = text.charCodeAt(10) | 32;
  if (separator !== 116 || text.charCodeAt(13) !== 58 || text.charCodeAt(16) !== 58) return null;
  const hour = twoDigits(text, 11);
  const minute = twoDigits(text, 14);
  const second = twoDigits(text, 17);
  // Written as a negation, so that NaN (no digits) is refused too.
  if (!(hour <= 23 && minute <= 59 && second <= 60)) return null;
  const fractionEnd = endOfFraction(text);
  if (fractionEnd < 0) return null;
  const zone = text.charCodeAt(fractionEnd);
  if ((zone | 32) === 122) {
    if (fractionEnd + 1 !== length) return null;
    if (second < 60) return assemble(text.slice(0, 19), text, fractionEnd);
  }
  const offset = (zone | 32) === 122 ? 0 : readOffset(text, fractionEnd);
  if (offset === null) return null;
  const minuteOfEpoch = daysFromCivil(date.year, date.month, date.day) * 1440 + hour * 60 + minute - offset;
  const leap = second === 60;
  // A leap second is inserted at the end of a UTC day alone, whatever the local clock shows.
  if (leap && modulo(minuteOfEpoch, 1440) !== 1439) return null;
  const secondOfEpoch = minuteOfEpoch * 60 + second;
  if (secondOfEpoch < FIRST_SECOND || secondOfEpoch > LAST_SECOND) return null;
  const base = formatSecond(secondOfEpoch);
  return leap ? (`${base}.000000000Z` as Instant) : assemble(base, text, fractionEnd);
}

/** Milliseconds since 1970 (a fraction is floored) → Instant. Asserts that the year is within 0000–9999. */
export function instantOf(ms: number): Instant {
  const whole = Math.floor(ms);
  const second = Math.floor(whole / 1000);
  if (!(second >= FIRST_SECOND && second <= LAST_SECOND)) throw new Error('assertion: milliseconds outside the years 0000 to 9999');
  return `${formatSecond(second)}.${String(whole - second * 1000).padStart(3, '0')}000000Z` as Instant;
}

/** Milliseconds since 1970, floored: also before 1970 the millisecond that the instant lies in. Its digits are digits: a fold asks a hundred times an event, and looking at each again was half of it. */
export function msOf(instant: Instant): number {
  const days = daysFromCivil(pair(instant, 0) * 100 + pair(instant, 2), pair(instant, 5), pair(instant, 8));
  const second = days * 86_400 + pair(instant, 11) * 3600 + pair(instant, 14) * 60 + pair(instant, 17);
  return second * 1000 + pair(instant, 20) * 10 + instant.charCodeAt(22) - ZERO;
}

/** Two digits that are known to be some. */
function pair(instant: Instant, at: number): number { return instant.charCodeAt(at) * 10 + instant.charCodeAt(at + 1) - 11 * ZERO; }

/** 0–9, else NaN. */
function digit(text: string, at: number): number {
  const value = text.charCodeAt(at) - ZERO;
  return value >= 0 && value <= 9 ? value : NaN;
}

function twoDigits(text: string, at: number): number {
  return digit(text, at) * 10 + digit(text, at + 1);
}

function readDate(text: string): { year: number; month: number; day: number } | null {
  if (text.charCodeAt(4) !== 45 || text.charCodeAt(7) !== 45) return null;
  const year = twoDigits(text, 0) * 100 + twoDigits(text, 2);
  const month = twoDigits(text, 5);
  const day = twoDigits(text, 8);
  if (!(year >= 0 && month >= 1 && month <= 12 && day >= 1 && day <= daysInMonth(year, month))) return null;
  return { year, month, day };
}

function daysInMonth(year: number, month: number): number {
  if (month === 2) return year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0) ? 29 : 28;
  return month === 4 || month === 6 || month === 9 || month === 11 ? 30 : 31;
}

/** Index after the seconds' fraction (19 where there is none); -1 for a point without digits. */
function endOfFraction(text: string): number {
  if (text.charCodeAt(19) !== 46) return 19;
  let at = 20;
  while (digit(text, at) >= 0) at += 1;
  return at === 20 ? -1 : at;
}

/** `+hh:mm` that ends the text → minutes; null where it is none. */
function readOffset(text: string, at: number): number | null {
  const sign = text.charCodeAt(at);
  if ((sign !== 43 && sign !== 45) || text.length !== at + 6 || text.charCodeAt(at + 3) !== 58) return null;
  const hours = twoDigits(text, at + 1);
  const minutes = twoDigits(text, at + 4);
  if (!(hours <= 23 && minutes <= 59)) return null;
  return (sign === 43 ? 1 : -1) * (hours * 60 + minutes);
}

function assemble(base: string, text: string, fractionEnd: number): Instant {
  const digits = Math.min(fractionEnd, 29) - 20;
  const canonical = text.charCodeAt(10) === 84 ? base : `${base.slice(0, 10)}T${base.slice(11)}`;
  return (digits < 0 ? canonical + TAIL[0] : `${canonical}.${text.slice(20, 20 + digits)}${TAIL[digits]!}`) as Instant;
}

/** Days since 1970-01-01 of a day in the proleptic Gregorian calendar; the year is counted from March, so that the leap day ends it. */
function daysFromCivil(year: number, month: number, day: number): number {
  const y = month <= 2 ? year - 1 : year;
  const era = Math.floor(y / 400);
  const yearOfEra = y - era * 400;
  const dayOfYear = Math.floor((153 * (month + (month > 2 ? -3 : 9)) + 2) / 5) + day - 1;
  const dayOfEra = yearOfEra * 365 + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100) + dayOfYear;
  return era * DAYS_OF_ERA + dayOfEra - DAYS_BEFORE_EPOCH;
}

/** Seconds since 1970 → `YYYY-MM-DDTHH:MM:SS`. */
function formatSecond(secondOfEpoch: number): string {
  const days = Math.floor(secondOfEpoch / 86_400);
  const second = secondOfEpoch - days * 86_400;
  const shifted = days + DAYS_BEFORE_EPOCH;
  const era = Math.floor(shifted / DAYS_OF_ERA);
  const dayOfEra = shifted - era * DAYS_OF_ERA;
  const yearOfEra = Math.floor((dayOfEra - Math.floor(dayOfEra / 1460) + Math.floor(dayOfEra / 36_524) - Math.floor(dayOfEra / 146_096)) / 365);
  const dayOfYear = dayOfEra - (365 * yearOfEra + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100));
  const marchMonth = Math.floor((5 * dayOfYear + 2) / 153);
  const day = dayOfYear - Math.floor((153 * marchMonth + 2) / 5) + 1;
  const month = marchMonth < 10 ? marchMonth + 3 : marchMonth - 9;
  const year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0);
  const time = `${two(Math.floor(second / 3600))}:${two(Math.floor(second / 60) % 60)}:${two(second % 60)}`;
  return `${String(year).padStart(4, '0')}-${two(month)}-${two(day)}T${time}`;
}

function two(value: number): string {
  return value < 10 ? `0${value}` : String(value);
}

function modulo(value: number, by: number): number {
  return ((value % by) + by) % by;
}
