import fc from 'fast-check';
import type { Instant } from '../../schemas/facts.ts';
import { instantOf, msOf, parseInstant } from '../../schemas/time.ts';

const YEAR_0 = new Date('0000-01-01T00:00:00Z').getTime();
const YEAR_9999 = new Date('9999-12-31T23:59:59.999Z').getTime();

describe('parseInstant', () => {
  test.each([
    ['no fraction', '2023-08-02T22:01:43Z', '2023-08-02T22:01:43.000000000Z'],
    ['milliseconds', '2023-08-02T22:01:43.721Z', '2023-08-02T22:01:43.721000000Z'],
    ['one digit', '2023-08-02T22:01:43.7Z', '2023-08-02T22:01:43.700000000Z'],
    ['nanoseconds', '2023-08-02T22:01:43.123456789Z', '2023-08-02T22:01:43.123456789Z'],
    ['beyond nanoseconds it is cut, never rounded up', '2023-12-31T23:59:59.9999999999999Z', '2023-12-31T23:59:59.999999999Z'],
    ['lower case', '2023-08-02t22:01:43.5z', '2023-08-02T22:01:43.500000000Z'],
    ['an offset to the east', '2023-08-02T00:01:43.721+05:30', '2023-08-01T18:31:43.721000000Z'],
    ['an offset to the west, over the end of a year', '2023-12-31T23:30:00-01:00', '2024-01-01T00:30:00.000000000Z'],
    ['an offset with a lower-case t', '2023-08-02t22:01:43+00:00', '2023-08-02T22:01:43.000000000Z'],
    ['the unknown local offset', '2023-08-02T22:01:43-00:00', '2023-08-02T22:01:43.000000000Z'],
    ['the 29th of February of a leap year', '2024-02-29T12:00:00+00:01', '2024-02-29T11:59:00.000000000Z'],
    ['the 29th of February of 2000', '2000-02-29T00:00:00Z', '2000-02-29T00:00:00.000000000Z'],
    ['the first instant', '0000-01-01T00:00:00Z', '0000-01-01T00:00:00.000000000Z'],
    ['the last instant', '9999-12-31T23:59:59.999999999Z', '9999-12-31T23:59:59.999999999Z'],
    ['year 0 is a leap year', '0000-02-29T00:00:00-00:01', '0000-02-29T00:01:00.000000000Z'],
    ['year 99 is no 1999', '0099-03-01T00:00:00+00:01', '0099-02-28T23:59:00.000000000Z'],
    ['a leap second is the start of the next second', '2016-12-31T23:59:60Z', '2017-01-01T00:00:00.000000000Z'],
    ['a leap second with a fraction too', '2016-12-31T23:59:60.75Z', '2017-01-01T00:00:00.000000000Z'],
    ['a leap second on a clock elsewhere', '1990-12-31T15:59:60-08:00', '1991-01-01T00:00:00.000000000Z'],
  ])('%s', (_name, text, expected) => {
    expect(parseInstant(text)).toBe(expected);
  });

  test.each([
    ['nothing', ''], ['a date', '2023-08-02'], ['no offset', '2023-08-02T22:01:43'], ['no seconds', '2023-08-02T22:01Z'],
    ['a space for T', '2023-08-02 22:01:43Z'], ['an underscore for T', '2023-08-02_22:01:43Z'], ['space before it', ' 2023-08-02T22:01:43Z'], ['space behind it', '2023-08-02T22:01:43Z '],
    ['a point without digits', '2023-08-02T22:01:43.Z'], ['a comma for the point', '2023-08-02T22:01:43,5Z'], ['no Z behind the fraction', '2023-08-02T22:01:43.5'],
    ['an offset without a colon', '2023-08-02T22:01:43+0530'], ['an offset of hours alone', '2023-08-02T22:01:43+05'], ['an offset of 24 hours', '2023-08-02T22:01:43+24:00'],
    ['an offset of 60 minutes', '2023-08-02T22:01:43+00:60'], ['an offset behind Z', '2023-08-02T22:01:43Z+00:00'], ['another minus', '2023-08-02T22:01:43−05:00'],
    ['the 29th of February 2023', '2023-02-29T00:00:00Z'], ['the 29th of February 1900', '1900-02-29T00:00:00Z'], ['the 31st of April', '2023-04-31T00:00:00Z'],
    ['month 0', '2023-00-10T00:00:00Z'], ['month 13', '2023-13-10T00:00:00Z'], ['day 0', '2023-01-00T00:00:00Z'], ['day 32', '2023-01-32T00:00:00Z'],
    ['hour 24', '2023-08-02T24:00:00Z'], ['minute 60', '2023-08-02T22:60:00Z'], ['second 61', '2023-12-31T23:59:61Z'],
    ['a leap second at noon', '2016-12-31T12:59:60Z'], ['a leap second where only the local clock shows midnight', '2016-12-31T23:59:60+01:00'],
    ['before year 0', '0000-01-01T00:00:00+00:01'], ['after year 9999', '9999-12-31T23:59:59-00:01'], ['a leap second after which comes year 10000', '9999-12-31T23:59:60Z'],
    ['a year of five digits', '12023-08-02T22:01:43Z'], ['a negative year', '-023-08-02T22:01:43Z'], ['digits of another script', '٢٠٢٣-08-02T22:01:43Z'],
    ['letters for digits', '2o23-08-02T22:01:43Z'], ['a sign for a digit', '2023-+8-02T22:01:43Z'], ['the basic format', '20230802T220143Z'], ['a week date', '2023-W31-3T22:01:43Z'],
  ])('%s is no instant', (_name, text) => {
    expect(parseInstant(text)).toBeNull();
  });

  const fields = fc.record({
    ms: fc.integer({ min: YEAR_0 + 86_400_000, max: YEAR_9999 - 86_400_000 }), offset: fc.integer({ min: -1439, max: 1439 }),
    fraction: fc.option(fc.stringMatching(/^[0-9]{1,12}$/), { nil: '' }),
  });
  /** The same instant as `ms` (whole seconds) on a clock that is `offset` minutes ahead. */
  function onClock(ms: number, offset: number, fraction: string): string {
    const local = new Date(Math.floor(ms / 1000) * 1000 + offset * 60_000).toISOString().slice(0, 19);
    const size = Math.abs(offset);
    const zone = `${offset < 0 ? '-' : '+'}${String(Math.floor(size / 60)).padStart(2, '0')}:${String(size % 60).padStart(2, '0')}`;
    return `${local}${fraction === '' ? '' : `.${fraction}`}${zone}`;
  }

  test('agrees with Date on every offset and day', () => {
    fc.assert(fc.property(fields, ({ ms, offset, fraction }) => {
      const instant = parseInstant(onClock(ms, offset, fraction));
      expect(instant).toBe(`${new Date(Math.floor(ms / 1000) * 1000).toISOString().slice(0, 19)}.${fraction.slice(0, 9).padEnd(9, '0')}Z`);
    }), { numRuns: 2000 });
  });

  test('string order is time order, and thirty characters say everything', () => {
    fc.assert(fc.property(fields, fields, (a, b) => {
      const [left, right] = [a, b].map(({ ms, offset, fraction }) => parseInstant(onClock(ms, offset, fraction))) as [Instant, Instant];
      const nanos = (of: Instant): bigint => BigInt(new Date(`${of.slice(0, 19)}Z`).getTime()) * 1_000_000n + BigInt(of.slice(20, 29));
      expect(left < right).toBe(nanos(left) < nanos(right));
      expect(left).toHaveLength(30);
      expect(parseInstant(left)).toBe(left);
    }), { numRuns: 1000 });
  });

  test('never throws, and takes no text that Date knows to be none', () => {
    const near = fc.tuple(fc.constant('2023-08-02T22:01:43.721+05:30'), fc.nat(29), fc.nat(2), fc.string({ maxLength: 2 })).map(([text, at, cut, put]) => text.slice(0, at) + put + text.slice(at + cut));
    fc.assert(fc.property(fc.oneof(near, fc.string()), (text) => {
      const instant = parseInstant(text);
      if (instant !== null) expect(Number.isNaN(new Date(text.toUpperCase().replace(':60', ':59')).getTime())).toBe(false);
    }), { numRuns: 2000 });
  });
});

describe('instantOf and msOf', () => {
  test('are each other’s way back, also before 1970 and in year 0', () => {
    fc.assert(fc.property(fc.integer({ min: YEAR_0, max: YEAR_9999 }), (ms) => {
      const instant = instantOf(ms);
      expect(instant).toBe(`${new Date(ms).toISOString().slice(0, 23)}000000Z`);
      expect(msOf(instant)).toBe(ms);
    }), { numRuns: 2000 });
  });

  test('floor: a part of a millisecond is never carried up', () => {
    expect(instantOf(1.9)).toBe('1970-01-01T00:00:00.001000000Z');
    expect(instantOf(-0.5)).toBe('1969-12-31T23:59:59.999000000Z');
    expect(msOf(parseInstant('1969-12-31T23:59:59.999999999Z')!)).toBe(-1);
    expect(msOf(parseInstant('1970-01-01T00:00:00.000999999Z')!)).toBe(0);
  });

  test('hold from the first to the last instant, and assert beyond', () => {
    expect(instantOf(YEAR_0)).toBe('0000-01-01T00:00:00.000000000Z');
    expect(instantOf(YEAR_9999)).toBe('9999-12-31T23:59:59.999000000Z');
    for (const ms of [YEAR_0 - 1, YEAR_9999 + 1, NaN, Infinity]) expect(() => instantOf(ms)).toThrow('assertion');
  });
});
