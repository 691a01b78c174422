// The search index without its storage: what a posting is, and the executor that answers a query from postings, columns
// and records which somebody else fetches. It is a generator that says what it wants and is handed it, so that a store
// which answers at once (SQLite) and one across a network (Redis) drive the same code. The layout and what it reached:
// measurements.md section 9.
//
// A record has an ordinal within its workspace and day of start (UTC), in segments of 65,536; a sub-record has one of its
// own within the same day. A posting holds the ordinals of one term in one segment. Columns hold one u32 per ordinal: the
// milliseconds of the day for a record, the record's ordinal within the day for a sub-record. Only living ordinals stand
// in postings; a column keeps what a deleted ordinal had, and nobody asks for it. Typed arrays are little-endian on every
// platform that Node runs on.
import assert from 'node:assert';
import { type Commit, EXAMPLES_MAX, type Generation, type SearchQuery, type Tally, type TallyExample } from '../ports.ts';

export const DAY_MS = 86_400_000;
export const SEGMENT_SIZE = 65_536;
/** Entries of one page of a column: 16 KB. */
export const PAGE_ENTRIES = 4_096;
/** A list longer than this becomes a bitmap, and stays one. */
export const LIST_LIMIT = 512;
export const EMPTY_DIGEST = '0'.repeat(32);
/** Days fetched in one go: bounds what a query over many years holds at once. */
const WINDOW_DAYS = 64;

// ---- postings --------------------------------------------------------------------------------------------------------

export type Posting =
  /** In the order of arrival, not sorted. */
  | { readonly kind: 'list'; readonly ordinals: Uint16Array }
  | { readonly kind: 'bitmap'; readonly words: Uint32Array };

const BITMAP = 0;
const LIST = 1;

/** Reads what `PostingEdit.encode` wrote; null when it cannot have. Copies only what is not aligned. */
export function decodePosting(bytes: Uint8Array): Posting | null {
  if (bytes.length < 6) return null;
  const aligned = bytes.byteOffset % 4 === 0 ? bytes : bytes.slice();
  const { buffer, byteOffset, length } = aligned;
  if (aligned[0] === BITMAP && length % 4 === 0) return { kind: 'bitmap', words: new Uint32Array(buffer, byteOffset + 4, (length - 4) / 4) };
  if (aligned[0] === LIST && length % 2 === 0) return { kind: 'list', ordinals: new Uint16Array(buffer, byteOffset + 4, (length - 4) / 2) };
  return null;
}

/** One posting while it is changed in memory. */
export class PostingEdit {
  #list: number[] | null;
  /** The bitmap behind its header, as it is stored. */
  #words: Uint32Array;

  /** `dense` decides what a new posting starts as. */
  constructor(stored: Posting | null, dense: boolean) {
    this.#list = stored === null ? (dense ? null : []) : stored.kind === 'list' ? [...stored.ordinals] : null;
    this.#words = new Uint32Array(1 + (stored?.kind === 'bitmap' ? stored.words.length : 0));
    if (stored?.kind === 'bitmap') this.#words.set(stored.words, 1);
  }

  /** Memory that it takes, roughly. */
  get bytes(): number {
    return 200 + (this.#list === null ? this.#words.byteLength : this.#list.length * 8);
  }

  /** The ordinal must not be in it. */
  add(ordinal: number): void {
    if (this.#list === null) this.#set(ordinal);
    else if (this.#list.push(ordinal) > LIST_LIMIT) {
      const list = this.#list;
      this.#list = null;
      for (const each of list) this.#set(each);
    }
  }

  /** The ordinal must be in it. */
  remove(ordinal: number): void {
    if (this.#list === null) {
      this.#words[1 + (ordinal >>> 5)]! &= ~(1 << (ordinal & 31));
      return;
    }
    const at = this.#list.indexOf(ordinal);
    assert(at >= 0, 'an ordinal is removed where it was added');
    const last = this.#list.pop()!;
    if (at < this.#list.length) this.#list[at] = last;
  }

  /** What is stored, null when nothing is left. A view on its memory: to be written before the next change. */
  encode(): Uint8Array | null {
    if (this.#list === null) {
      let used = this.#words.length;
      while (used > 1 && this.#words[used - 1] === 0) used -= 1;
      return used === 1 ? null : new Uint8Array(this.#words.buffer, 0, used * 4);
    }
    if (this.#list.length === 0) return null;
    const bytes = new Uint8Array(4 + this.#list.length * 2);
    bytes[0] = LIST;
    new Uint16Array(bytes.buffer, 4).set(this.#list);
    return bytes;
  }

  #set(ordinal: number): void {
    const at = 1 + (ordinal >>> 5);
    if (at >= this.#words.length) {
      const grown = new Uint32Array(Math.max(at + 1, Math.min(this.#words.length * 2, 1 + SEGMENT_SIZE / 32)));
      grown.set(this.#words);
      this.#words = grown;
    }
    this.#words[at]! |= 1 << (ordinal & 31);
  }
}

// ---- columns ---------------------------------------------------------------------------------------------------------

/** A page of a column as it was decoded: it never changes. */
export class Page {
  readonly entries: Uint32Array;
  #bounds: Bounds | null = null;

  constructor(entries: Uint32Array) { this.entries = entries; }

  /** Also of what deleted ordinals left: bounds, and no more. */
  get bounds(): Bounds {
    if (this.#bounds !== null) return this.#bounds;
    const { entries } = this;
    let [least, most] = [Infinity, -Infinity];
    for (let at = 0; at < entries.length; at += 1) {
      if (entries[at]! < least) least = entries[at]!;
      if (entries[at]! > most) most = entries[at]!;
    }
    return this.#bounds = { least, most };
  }
}
interface Bounds { readonly least: number; readonly most: number }

// ---- the executor ----------------------------------------------------------------------------------------------------

/** Up to 65,536 ordinals of one workspace and day; an adapter adds what finds and versions it. */
export interface Segment {
  /** ordinal >> 16: the segment's place in its day's list. */
  readonly no: number;
  /** Ordinals given so far. */
  readonly size: number;
  /** How many of them live. */
  readonly alive: number;
}
export interface Day<S extends Segment> {
  /** Days since 1970, UTC. */
  readonly day: number;
  readonly records: readonly S[];
  readonly subs: readonly S[];
}

/** A segment as an adapter finds it again. */
export interface StoredSegment extends Segment { readonly id: number; readonly day: number; readonly version: number }

/** The days of one workspace that hold anything, as they stood at the commit that their reader last saw. */
export class Days<S extends StoredSegment> {
  /** Null where a day came between. */
  #sorted: Day<S>[] | null = [];
  readonly #byDay = new Map<number, Day<S>>();
  readonly #byId = new Map<number, S>();

  clear(): void {
    this.#sorted = [];
    this.#byDay.clear();
    this.#byId.clear();
  }

  /** In the place of what was known of that day. */
  put(day: Day<S>): void {
    if (!this.#byDay.has(day.day)) this.#sorted = null;
    else if (this.#sorted !== null) this.#sorted[this.#indexOf(this.#sorted, day.day)] = day;
    this.#byDay.set(day.day, day);
    for (const segments of [day.records, day.subs]) for (const segment of segments) this.#byId.set(segment.id, segment);
  }

  day(day: number): Day<S> | undefined { return this.#byDay.get(day); }

  segment(id: number): S | undefined { return this.#byId.get(id); }

  /** Those that a query looks at, ascending, however wide its range: where a keyed clause found something (`located`), if there is one. */
  of({ from, to }: Pick<SearchQuery, 'from' | 'to'>, located: ReadonlyMap<S, unknown> | undefined): readonly Day<S>[] {
    const sorted = this.#sorted ??= [...this.#byDay.values()].sort((a, b) => a.day - b.day);
    if (located === undefined) return sorted.slice(this.#indexOf(sorted, Math.floor(from / DAY_MS)), this.#indexOf(sorted, Math.floor(to / DAY_MS) + 1));
    const days = new Set([...located.keys()].map(({ day }) => day));
    return [...days].filter((day) => (day + 1) * DAY_MS > from && day * DAY_MS <= to).sort((a, b) => a - b).flatMap((day) => this.#byDay.get(day) ?? []);
  }

  /** Of the first day that is not before this one. */
  #indexOf(sorted: readonly { readonly day: number }[], day: number): number {
    let low = 0;
    let high = sorted.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (sorted[middle]!.day < day) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

type Decoded = Posting | Page | null;
/** What an entry holds besides what was decoded. */
const DECODED_BYTES = 200;
/** Of what a reader keeps, rows: some 350 bytes each, 24,000 of 8 MB. The rest is postings and pages. */
export const ROWS_SHARE = 1 / 4;

/** What was decoded, postings and pages if nothing else is said, each valid for one version of its segment; the ones not used for longest go first. */
export class DecodedCache<K, V = Decoded> {
  readonly #entries = new Map<K, { readonly version: number; readonly value: V; readonly bytes: number }>();
  readonly #limit: number;
  #bytes = 0;

  constructor(limit: number) { this.#limit = limit; }

  clear(): void {
    this.#entries.clear();
    this.#bytes = 0;
  }

  get(key: K, version: number): V | undefined {
    const entry = this.#entries.get(key);
    if (entry?.version !== version) return undefined;
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    return entry.value;
  }

  set(key: K, version: number, value: V, size: number): void {
    const bytes = size + DECODED_BYTES;
    this.#bytes += bytes - (this.#entries.get(key)?.bytes ?? 0);
    this.#entries.delete(key);
    this.#entries.set(key, { version, value, bytes });
    for (const [oldest, entry] of this.#entries) {
      if (this.#bytes <= this.#limit) break;
      this.#entries.delete(oldest);
      this.#bytes -= entry.bytes;
    }
  }
}

/** A query with its terms looked up. `T` is whatever the adapter calls a term by. */
export interface IndexQuery<S extends Segment, T> {
  readonly from: number;
  readonly to: number;
  readonly direction: 'asc' | 'desc';
  readonly limit: number;
  readonly after: { readonly time: number; readonly id: string } | null;
  readonly total: number | null;
  /** The term whose posting holds every living record. */
  readonly every: T;
  readonly clauses: readonly (readonly T[])[];
  readonly sub: readonly (readonly T[])[];
  /** One per keyed clause: its records, found already. A segment that is missing in one of them has no match. */
  readonly located: readonly ReadonlyMap<S, Uint16Array>[];
}

export interface Wanted<S extends Segment, T> {
  readonly postings: readonly { readonly segment: S; readonly term: T }[];
  readonly pages: readonly { readonly segment: S; readonly page: number }[];
  readonly records: readonly { readonly segment: S; readonly ordinal: number }[];
}
/** What was wanted, in the same order. */
export interface Fetched {
  readonly postings: readonly (Posting | null)[];
  readonly pages: readonly Page[];
  readonly records: readonly Row[];
}
export interface Row { readonly key: string; readonly time: number; readonly id: string }
export interface Found { readonly rows: Row[]; readonly total: number; readonly more: boolean }
type Search<S extends Segment, T, R> = Generator<Wanted<S, T>, R, Fetched>;

/** The matches of one day: a bitmap per segment of its records, null where there is none. */
type Matches = (Uint32Array | null)[];

/**
 * Answers a query over `days`: the days in [from, to] that may hold a match, ascending. While it counts it looks at every
 * day, with the total given only at those of the page; of records it fetches those of the page and of its last millisecond.
 */
export function* findRows<S extends Segment, T>(query: IndexQuery<S, T>, days: readonly Day<S>[]): Search<S, T, Found> {
  const counting = query.total === null;
  const filtered = query.clauses.length + query.sub.length + query.located.length > 0;
  const ahead = days.filter((day) => day.records.some((segment) => segment.alive > 0) && (counting || !passed(query, day.day)));
  if (query.direction === 'desc') ahead.reverse();
  const rows: Row[] = [];
  let total = 0;
  let size = counting && filtered ? WINDOW_DAYS : 1;
  for (let start = 0; start < ahead.length; start += size, size = Math.min(size * 2, WINDOW_DAYS)) {
    if (!counting && rows.length > query.limit) break;
    const window = ahead.slice(start, start + size);
    // Without a filter the days inside the range are counted by their number of living records, and only looked into for the page.
    const wanted = window.filter((day) => filtered || isCut(query, day.day) || (rows.length <= query.limit && !passed(query, day.day)));
    const matches = new Map(yield* matchDays(query, wanted));
    for (const day of window) {
      const found = matches.get(day);
      total += found === undefined ? day.records.reduce((sum, segment) => sum + segment.alive, 0) : countOf(found);
    }
    const page = window.filter((day) => matches.has(day) && !passed(query, day.day)).map((day) => ({ day, matches: matches.get(day)! }));
    for (const row of yield* takeRows(query, page, query.limit + 1 - rows.length)) rows.push(row);
  }
  return { rows: rows.slice(0, query.limit), total: query.total ?? total, more: rows.length > query.limit };
}

type After = { readonly time: number } | null;

/** The day of the row to go on after; of none, none. */
function dayAfter(after: After): number | null { return after === null ? null : Math.floor(after.time / DAY_MS); }

/** Whether the whole day stands before the row to go on after. */
function passed({ after, direction }: { readonly after: After; readonly direction: 'asc' | 'desc' }, day: number): boolean {
  const last = dayAfter(after);
  return last !== null && (direction === 'asc' ? day < last : day > last);
}

/** Whether the range ends within the day. */
function isCut(query: { from: number; to: number }, day: number): boolean {
  return day * DAY_MS < query.from || (day + 1) * DAY_MS - 1 > query.to;
}

function* matchDays<S extends Segment, T>(query: IndexQuery<S, T>, days: readonly Day<S>[]): Search<S, T, [Day<S>, Matches][]> {
  let matched = yield* matchRecords(query, days);
  if (query.sub.length > 0) matched = yield* matchSubs(query, matched);
  return yield* cutDays(query, matched);
}

/** Clauses on the records themselves. */
function* matchRecords<S extends Segment, T>(query: IndexQuery<S, T>, days: readonly Day<S>[]): Search<S, T, [Day<S>, Matches][]> {
  const { located } = query;
  // Only sub-clauses: they decide alone, and no posting of records is needed.
  if (query.clauses.length + located.length === 0 && query.sub.length > 0) return days.map((day) => [day, day.records.map(allOrdinals)]);
  const clauses = query.clauses.length + located.length === 0 ? [[query.every]] : query.clauses;
  const segments = days.flatMap((day) => day.records.filter((segment) => segment.alive > 0 && located.every((found) => found.has(segment))));
  const groups = yield* fetchGroups(segments, clauses);
  return days.map((day) => [day, day.records.map((segment) => {
    const postings = groups.get(segment);
    return postings === undefined ? null : combine([...located.map((found) => [{ kind: 'list', ordinals: found.get(segment)! } as const]), ...postings], segment.size);
  })]);
}

/** Clauses that meet in one sub-record: combined on the sub-records' ordinals, then carried over to their records. */
function* matchSubs<S extends Segment, T>(query: IndexQuery<S, T>, matched: [Day<S>, Matches][]): Search<S, T, [Day<S>, Matches][]> {
  const segments = matched.filter(([, matches]) => matches.some((words) => words !== null)).flatMap(([day]) => day.subs.filter((segment) => segment.alive > 0));
  const groups = yield* fetchGroups(segments, query.sub);
  const found = new Map<S, Uint32Array>();
  for (const [segment, postings] of groups) {
    const words = combine(postings, segment.size);
    if (words !== null) found.set(segment, words);
  }
  const columns = yield* fetchColumns([...found]);
  return matched.map(([day, matches]) => {
    const met: Matches = day.records.map(() => null);
    for (const segment of day.subs) {
      const words = found.get(segment);
      const column = columns.get(segment);
      if (words !== undefined && column !== undefined) carryOver(words, column, met, day.records);
    }
    return [day, met.map((words, no) => (words === null || matches[no] == null ? null : intersect(words, matches[no])))];
  });
}

/** Sets the bit of every matching sub-record's record. */
function carryOver(words: Uint32Array, owners: Column, into: Matches, segments: readonly Segment[]): void {
  // Written out, not with a call for each: a common state has more bits here than anything else in a query.
  for (let at = 0; at < words.length; at += 1) {
    for (let word = words[at]!; word !== 0; word &= word - 1) {
      const owner = entryOf(owners, at * 32 + 31 - Math.clz32(word & -word));
      const target = into[owner >>> 16] ??= new Uint32Array(wordsFor(segments[owner >>> 16]?.size ?? 0));
      target[(owner & 0xffff) >>> 5]! |= 1 << (owner & 31);
    }
  }
}

/** Drops what stands outside the range on the days in which it begins and ends. */
function* cutDays<S extends Segment, T>(query: IndexQuery<S, T>, matched: [Day<S>, Matches][]): Search<S, T, [Day<S>, Matches][]> {
  const cut = matched.filter(([day]) => isCut(query, day.day));
  if (cut.length === 0) return matched;
  const columns = yield* fetchColumns(cut.flatMap(([day, matches]) => living(day, matches)));
  for (const [day, matches] of cut) {
    const [from, to] = [query.from - day.day * DAY_MS, query.to - day.day * DAY_MS];
    for (const [segment, words] of living(day, matches)) {
      for (const page of pagesOf(words)) cutPage(words, page, columns.get(segment)![page]!, from, to);
    }
  }
  return matched;
}

/** Clears the bits of one page whose times are outside. Most pages of a day are inside, or outside, as a whole. */
function cutPage(words: Uint32Array, page: number, { entries, bounds: { least, most } }: Page, from: number, to: number): void {
  if (least >= from && most <= to) return;
  const [first, end] = wordsOf(page, words);
  if (most < from || least > to) {
    words.fill(0, first, end);
    return;
  }
  for (let at = first; at < end; at += 1) {
    for (let word = words[at]!; word !== 0; word &= word - 1) {
      const bit = 31 - Math.clz32(word & -word);
      const time = entries[(at * 32 + bit) & 0xfff]!;
      if (time < from || time > to) words[at]! &= ~(1 << bit);
    }
  }
}

interface Matched<S extends Segment> { readonly day: Day<S>; readonly matches: Matches }

/** The first `count` matches of these days in the query's order, after its keyset. As many days at once as hold so many: each step of a search is a round trip for a store across a network. */
function* takeRows<S extends Segment, T>(query: IndexQuery<S, T>, days: readonly Matched<S>[], count: number): Search<S, T, Row[]> {
  const rows: Row[] = [];
  for (let start = 0; start < days.length && rows.length < count;) {
    let end = start;
    for (let matched = 0; end < days.length && matched < count - rows.length; end += 1) matched += countOf(days[end]!.matches);
    // Of the keyset's own day some stand before it: then these days hold fewer than was counted, and the next ones follow.
    for (const row of yield* rowsOf(query, days.slice(start, end), count - rows.length)) rows.push(row);
    start = end;
  }
  return rows.slice(0, count);
}

function* rowsOf<S extends Segment, T>(query: IndexQuery<S, T>, days: readonly Matched<S>[], count: number): Search<S, T, Row[]> {
  const whole = takenWhole(query, days, count);
  const columns = yield* fetchColumns(days.flatMap((each) => (whole.has(each) ? [] : living(each.day, each.matches))));
  const kept: { readonly day: Day<S>; readonly time: number | null; readonly place: number }[] = [];
  // Those at the keyset's millisecond may fall away by their ids: they do not count as found, else what follows were cut short.
  let sure = 0;
  for (const one of days) {
    const { day, matches } = one;
    if (whole.has(one)) {
      const places = placesOf(day, matches);
      for (const place of places) kept.push({ day, time: null, place });
      sure += places.length;
      continue;
    }
    for (const each of earliest(query, day, matches, columns, count - sure)) {
      kept.push({ day, ...each });
      if (each.time !== query.after?.time) sure += 1;
    }
  }
  if (kept.length === 0) return [];
  const { records } = yield { postings: [], pages: [], records: kept.map(({ day, place }) => ({ segment: day.records[place >>> 16]!, ordinal: place & 0xffff })) };
  const rows = kept.map(({ time }, at) => ({ key: records[at]!.key, id: records[at]!.id, time: time ?? records[at]!.time }));
  const sign = query.direction === 'desc' ? -1 : 1;
  rows.sort((a, b) => sign * compareRows(a, b));
  const { after } = query;
  return after === null ? rows : rows.filter((row) => row.time !== after.time || sign * compareText(row.id, after.id) > 0);
}

/** The days of which all matches are wanted, however few they may be of those before: their records tell the times, and no page of a column is read for some matches each. */
function takenWhole<S extends Segment, T>(query: IndexQuery<S, T>, days: readonly Matched<S>[], count: number): ReadonlySet<Matched<S>> {
  const last = dayAfter(query.after);
  let most = 0;
  return new Set(days.filter(({ day, matches }) => {
    most += countOf(matches);
    return most <= count && last !== day.day;
  }));
}

function placesOf<S extends Segment>(day: Day<S>, matches: Matches): number[] {
  const places: number[] = [];
  for (const [segment, words] of living(day, matches)) {
    for (let at = 0; at < words.length; at += 1) {
      for (let word = words[at]!; word !== 0; word &= word - 1) places.push(segment.no * SEGMENT_SIZE + at * 32 + 31 - Math.clz32(word & -word));
    }
  }
  return places;
}

/** The places of a day's first `count` matches from the keyset on, with all that tie with the last of them; unordered. */
function earliest<S extends Segment, T>(query: IndexQuery<S, T>, day: Day<S>, matches: Matches, columns: ReadonlyMap<S, Column>, count: number): { readonly time: number; readonly place: number }[] {
  if (count <= 0) return [];
  const { after, direction } = query;
  const ranked = new Ranked(countOf(matches), direction === 'desc');
  const floor = after === null || dayAfter(after) !== day.day ? 0 : ranked.rankOf(after.time - day.day * DAY_MS);
  const pages = living(day, matches).flatMap(([segment, words]) => pagesOf(words).map((page) => {
    const { entries, bounds: { least, most } } = columns.get(segment)![page]!;
    const [rank, last] = direction === 'desc' ? [ranked.rankOf(most), ranked.rankOf(least)] : [least, most];
    return { first: segment.no * SEGMENT_SIZE, words, page, times: entries, rank, last };
  })).filter(({ last }) => last >= floor).sort((a, b) => a.rank - b.rank);
  for (const { first, words, page, times, rank } of pages) {
    // Journeys mostly come in the order in which they began: what is left has only later ones.
    if (ranked.holds(count, floor, after !== null, rank)) break;
    ranked.add(first, words, page, times, floor);
  }
  return ranked.first(count, floor, after !== null).map(({ rank, place }) => ({ time: day.day * DAY_MS + ranked.rankOf(rank), place }));
}

/** A day's matches by rank: the milliseconds of the day, turned round for a descending order, so that both ascend. */
class Ranked {
  readonly #ranks: Uint32Array;
  readonly #places: Uint32Array;
  readonly #descending: boolean;
  #size = 0;

  constructor(capacity: number, descending: boolean) {
    this.#ranks = new Uint32Array(capacity);
    this.#places = new Uint32Array(capacity);
    this.#descending = descending;
  }

  /** Its own inverse. */
  rankOf(time: number): number {
    return this.#descending ? DAY_MS - 1 - time : time;
  }

  /** Takes the set bits of a page whose rank is not before `floor`. Written out, not with a call for each: without a filter all of a day may pass here. */
  add(first: number, words: Uint32Array, page: number, times: Uint32Array, floor: number): void {
    const ranks = this.#ranks;
    const places = this.#places;
    const descending = this.#descending;
    let size = this.#size;
    const [start, end] = wordsOf(page, words);
    for (let at = start; at < end; at += 1) {
      for (let word = words[at]!; word !== 0; word &= word - 1) {
        const ordinal = at * 32 + 31 - Math.clz32(word & -word);
        const time = times[ordinal & 0xfff]!;
        const rank = descending ? DAY_MS - 1 - time : time;
        if (rank < floor) continue;
        ranks[size] = rank;
        places[size] = first + ordinal;
        size += 1;
      }
    }
    this.#size = size;
  }

  /** Whether the first `count`, with all that tie, are among those taken, if all others have at least this rank. */
  holds(count: number, floor: number, after: boolean, rank: number): boolean {
    const wanted = this.#wanted(count, floor, after);
    return this.#size >= wanted && nthRank(this.#ranks.subarray(0, this.#size), wanted) < rank;
  }

  /** Those of the `count` smallest ranks, and all that tie with the last of them. */
  first(count: number, floor: number, after: boolean): { readonly rank: number; readonly place: number }[] {
    const wanted = this.#wanted(count, floor, after);
    const most = this.#size <= wanted ? DAY_MS : nthRank(this.#ranks.subarray(0, this.#size), wanted);
    const kept: { rank: number; place: number }[] = [];
    for (let at = 0; at < this.#size; at += 1) if (this.#ranks[at]! <= most) kept.push({ rank: this.#ranks[at]!, place: this.#places[at]! });
    return kept;
  }

  /** Of those at the very millisecond of the keyset some stand before it, which only their ids tell: they are taken on top. */
  #wanted(count: number, floor: number, after: boolean): number {
    let ties = 0;
    if (after) for (let at = 0; at < this.#size; at += 1) if (this.#ranks[at] === floor) ties += 1;
    return count + ties;
  }
}

/** The `count`th smallest rank. Linear: a histogram finds the stretch that holds it, and only that is sorted. */
function nthRank(ranks: Uint32Array, count: number): number {
  const histogram = new Uint32Array((DAY_MS >>> 16) + 1);
  for (let at = 0; at < ranks.length; at += 1) histogram[ranks[at]! >>> 16]! += 1;
  let bucket = 0;
  let before = 0;
  while (before + histogram[bucket]! < count) before += histogram[bucket++]!;
  const stretch = new Uint32Array(histogram[bucket]!);
  let held = 0;
  for (let at = 0; at < ranks.length; at += 1) if (ranks[at]! >>> 16 === bucket) stretch[held++] = ranks[at]!;
  return stretch.sort()[count - before - 1]!;
}

/** One u32 per ordinal, in pages, of which those that were needed are there. */
type Column = Page[];

function entryOf(column: Column, ordinal: number): number {
  return column[ordinal >>> 12]!.entries[ordinal & 0xfff]!;
}

/** Where a page's bits stand. */
function wordsOf(page: number, words: Uint32Array): readonly [first: number, end: number] {
  return [(page * PAGE_ENTRIES) / 32, Math.min(words.length, ((page + 1) * PAGE_ENTRIES) / 32)];
}

/** The columns of these segments, as far as the given bits need them. */
function* fetchColumns<S extends Segment, T>(needed: readonly (readonly [S, Uint32Array])[]): Search<S, T, Map<S, Column>> {
  const wanted = needed.flatMap(([segment, words]) => pagesOf(words).map((page) => ({ segment, page })));
  if (wanted.length === 0) return new Map();
  const { pages } = yield { postings: [], pages: wanted, records: [] };
  const columns = new Map<S, Column>(needed.map(([segment]) => [segment, []]));
  wanted.forEach(({ segment, page }, index) => columns.get(segment)![page] = pages[index]!);
  return columns;
}

/** Numbers of the pages on which a bit is set. */
function pagesOf(words: Uint32Array): number[] {
  const pages: number[] = [];
  for (let at = 0; at < words.length; at += 1) {
    if (words[at] === 0) continue;
    const page = Math.floor((at * 32) / PAGE_ENTRIES);
    pages.push(page);
    at = ((page + 1) * PAGE_ENTRIES) / 32 - 1;
  }
  return pages;
}

/** Each segment's postings, clause by clause; terms without one are left out. */
function* fetchGroups<S extends Segment, T>(segments: readonly S[], clauses: readonly (readonly T[])[]): Search<S, T, Map<S, Posting[][]>> {
  if (segments.length === 0) return new Map();
  const wanted: { readonly segment: S; readonly term: T }[] = [];
  for (const segment of segments) for (const terms of clauses) for (const term of terms) wanted.push({ segment, term });
  const { postings } = yield { postings: wanted, pages: [], records: [] };
  let at = 0;
  const groups = new Map<S, Posting[][]>();
  for (const segment of segments) {
    groups.set(segment, clauses.map((terms) => {
      const found: Posting[] = [];
      for (let left = terms.length; left > 0; left -= 1, at += 1) if (postings[at] != null) found.push(postings[at]!);
      return found;
    }));
  }
  return groups;
}

function living<S extends Segment>(day: Day<S>, matches: Matches): [S, Uint32Array][] {
  const found: [S, Uint32Array][] = [];
  for (let no = 0; no < day.records.length; no += 1) if (matches[no] != null) found.push([day.records[no]!, matches[no]!]);
  return found;
}

function countOf(matches: Matches): number {
  let count = 0;
  for (const words of matches) count += popcount(words);
  return count;
}

// ---- words -----------------------------------------------------------------------------------------------------------

function wordsFor(size: number): number {
  return (size + 31) >>> 5;
}

function allOrdinals(segment: Segment): Uint32Array | null {
  return segment.alive === 0 ? null : new Uint32Array(wordsFor(segment.size)).fill(0xffff_ffff);
}

/** AND over the groups, each an OR of its postings: a new bitmap, or null when nothing is left. */
function combine(groups: readonly (readonly Posting[])[], size: number): Uint32Array | null {
  if (groups.some((group) => group.length === 0)) return null;
  let result: Uint32Array | null = null;
  for (const group of groups) {
    const [first] = group;
    if (result !== null && group.length === 1 && first!.kind === 'bitmap') result = intersect(result, first!.words);
    else {
      const union = new Uint32Array(wordsFor(size));
      for (const posting of group) unite(union, posting);
      result = result === null ? union : intersect(result, union);
    }
  }
  return result !== null && isAnySet(result) ? result : null;
}

// Loops, here and below: a query over many days passes through them for each, and a call a word costs more than all else.
function isAnySet(words: Uint32Array): boolean {
  for (let at = 0; at < words.length; at += 1) if (words[at] !== 0) return true;
  return false;
}

function unite(into: Uint32Array, posting: Posting): void {
  if (posting.kind === 'list') {
    const { ordinals } = posting;
    for (let at = 0; at < ordinals.length; at += 1) into[ordinals[at]! >>> 5]! |= 1 << (ordinals[at]! & 31);
  } else for (let at = 0; at < posting.words.length; at += 1) into[at]! |= posting.words[at]!;
}

/** In place. Words that the other one lacks are zero. */
function intersect(words: Uint32Array, other: Uint32Array): Uint32Array {
  const shared = Math.min(words.length, other.length);
  for (let at = 0; at < shared; at += 1) words[at]! &= other[at]!;
  return words.fill(0, shared);
}

function popcount(words: Uint32Array | null): number {
  if (words === null) return 0;
  let count = 0;
  for (let at = 0; at < words.length; at += 1) {
    let word = words[at]!;
    word -= (word >>> 1) & 0x5555_5555;
    word = (word & 0x3333_3333) + ((word >>> 2) & 0x3333_3333);
    count += Math.imul((word + (word >>> 4)) & 0x0f0f_0f0f, 0x0101_0101) >>> 24;
  }
  return count;
}

// ---- what every adapter of the view store shares -----------------------------------------------------------------------

/** The order of ids and keys everywhere: by UTF-16 code unit. */
export function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** (time, id); the key only makes the order total should two records share both. */
export function compareRows(a: Row, b: Row): number {
  return a.time - b.time || compareText(a.id, b.id) || compareText(a.key, b.key);
}

/** Keys are printable ASCII, so that every store's byte order is code-unit order. */
const KEY = /^[\x21-\x7e]+$/;

/** Asserts what a projection must keep true, before anything is written. */
export function checkCommit(generation: Generation, commit: Commit): void {
  assert(/^[0-9a-f]{32}$/.test(commit.digest), 'a digest is 32 hex digits');
  for (const key of commit.documents.keys()) assert(KEY.test(key) && key.includes('/'), `a document's key is <workspace>/<space>/<rest> in ASCII: ${key}`);
  for (const changes of commit.records.values()) {
    for (const { key, state, subs } of changes) {
      assert(KEY.test(key), `a record's key is ASCII: ${key}`);
      if (state != null) {
        assert(Number.isSafeInteger(state.time), 'a record stands at a whole millisecond');
        for (const field of Object.keys(state.terms)) assert(field in generation.fields, `field ${field} is not declared`);
      }
      for (const chunk of subs?.values() ?? []) {
        for (const sub of chunk ?? []) for (const field of Object.keys(sub)) assert(field in generation.subFields, `sub-field ${field} is not declared`);
      }
    }
  }
}

export function checkQuery(generation: Generation, query: SearchQuery): void {
  assert(query.limit >= 0, 'a page has no negative size');
  for (const { field } of query.clauses) assert(field in generation.fields, `field ${field} is not declared`);
  for (const { field } of query.sub) assert(field in generation.subFields, `sub-field ${field} is not declared`);
}

/** End of a scan, cut to the space of `from`, which must be declared as ordered. */
export function scanEnd(generation: Generation, from: string, to: string): string {
  const [workspace, space] = from.split('/', 2);
  assert(workspace !== undefined && space !== undefined && generation.ordered.includes(space), `space ${space ?? ''} is not ordered`);
  // '0' is the character after '/'.
  const end = `${workspace}/${space}0`;
  return to < end ? to : end;
}

/** Counts summed, the later instant kept. */
export function mergeTally(stored: Tally | null, added: Tally): Tally {
  if (stored === null) return { ...added, ...examplesOf(added) };
  const sum = (a: Readonly<Record<string, number>>, b: Readonly<Record<string, number>>): Record<string, number> => {
    const counts = new Map(Object.entries(a));
    for (const [code, count] of Object.entries(b)) counts.set(code, (counts.get(code) ?? 0) + count);
    return Object.fromEntries(counts);
  };
  return {
    workspace: added.workspace,
    source: added.source,
    recorded: stored.recorded + added.recorded,
    duplicates: stored.duplicates + added.duplicates,
    reusedIds: stored.reusedIds + added.reusedIds,
    rejected: sum(stored.rejected, added.rejected),
    lateness: sum(stored.lateness, added.lateness),
    lastSeen: stored.lastSeen > added.lastSeen ? stored.lastSeen : added.lastSeen,
    ...examplesOf(stored, added),
  };
}

/** Of each code the last of different content, whichever was told first. */
function examplesOf(...tallies: readonly Tally[]): Pick<Tally, 'examples'> {
  const codes = new Set(tallies.flatMap(({ examples }) => Object.keys(examples ?? {})));
  if (codes.size === 0) return {};
  return { examples: Object.fromEntries([...codes].map((code) => [code, latest(tallies.flatMap(({ examples }) => examples?.[code] ?? []))])) };
}

function latest(examples: readonly TallyExample[]): readonly TallyExample[] {
  const at = new Map<string, string>();
  for (const one of examples) if ((at.get(one.sha256) ?? '') < one.at) at.set(one.sha256, one.at);
  return [...at].map(([sha256, instant]) => ({ sha256, at: instant })).sort((a, b) => compareText(a.at, b.at) || compareText(a.sha256, b.sha256)).slice(-EXAMPLES_MAX);
}
