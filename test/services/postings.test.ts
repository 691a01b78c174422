// The pure part of the search index: the posting, and the executor driven by a source that answers later, as one across a
// network does. What searches answer is the contract's (test/contract/view-store.ts).
import fc from 'fast-check';
import { type Day, DAY_MS, decodePosting, type Fetched, findRows, type IndexQuery, LIST_LIMIT, Page, PAGE_ENTRIES, type Posting, PostingEdit, type Row, type Segment, type Wanted, compareRows } from '../../services/adapters/postings.ts';
import { seeded } from '../support/seeded.ts';

function ordinalsOf(bytes: Uint8Array | null): number[] {
  if (bytes === null) return [];
  const posting = decodePosting(bytes)!;
  if (posting.kind === 'list') return [...posting.ordinals].sort((a, b) => a - b);
  return [...posting.words].flatMap((word, at) => Array.from({ length: 32 }, (_, bit) => at * 32 + bit).filter((ordinal) => (word >>> (ordinal & 31) & 1) === 1));
}

describe('a posting', () => {
  test('holds what was added and not removed, through any number of commits', () => {
    const steps = fc.array(fc.array(fc.nat(2000), { maxLength: 400 }), { maxLength: 6 });
    fc.assert(fc.property(fc.boolean(), steps, (dense, commits) => {
      const kept = new Set<number>();
      let stored: Uint8Array | null = null;
      for (const commit of commits) {
        const edit: PostingEdit = new PostingEdit(stored === null ? null : decodePosting(stored), dense);
        for (const ordinal of commit) {
          if (kept.delete(ordinal)) edit.remove(ordinal);
          else {
            kept.add(ordinal);
            edit.add(ordinal);
          }
        }
        stored = edit.encode()?.slice() ?? null;
        expect(ordinalsOf(stored)).toEqual([...kept].sort((a, b) => a - b));
      }
    }), { numRuns: 100 });
  });

  test('of a dense field is a bitmap, of a sparse one a list that becomes a bitmap past its limit and stays one', () => {
    const kindOf = (edit: PostingEdit): string | undefined => decodePosting(edit.encode()!)?.kind;
    const dense = new PostingEdit(null, true);
    dense.add(65_535);
    expect(kindOf(dense)).toBe('bitmap');
    const sparse = new PostingEdit(null, false);
    for (let ordinal = 0; ordinal < LIST_LIMIT; ordinal += 1) sparse.add(65_535 - ordinal);
    expect(kindOf(sparse)).toBe('list');
    sparse.add(0);
    expect(kindOf(sparse)).toBe('bitmap');
    for (let ordinal = 0; ordinal < LIST_LIMIT; ordinal += 1) sparse.remove(65_535 - ordinal);
    expect(kindOf(sparse)).toBe('bitmap');
    expect(ordinalsOf(sparse.encode())).toEqual([0]);
    sparse.remove(0);
    expect(sparse.encode()).toBeNull();
  });

  test('is read wherever its bytes stand, and refused when they cannot be one', () => {
    const edit = new PostingEdit(null, true);
    edit.add(7);
    const bytes = edit.encode()!;
    const shifted = new Uint8Array(bytes.length + 1);
    shifted.set(bytes, 1);
    expect(ordinalsOf(shifted.subarray(1))).toEqual([7]);
    for (const wrong of [[], [0], [9, 0, 0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 1, 0], [1, 0, 0, 0, 1]]) expect(decodePosting(Uint8Array.from(wrong))).toBeNull();
  });
});

describe('the executor', () => {
  /** One segment a day; a record every second whose term is its ordinal's last digit. */
  const days: Day<Segment & { readonly day: number }>[] = Array.from({ length: 5 }, (_, day) => ({ day, records: [{ day, no: 0, size: 100, alive: 100 }], subs: [] }));
  type Source = Wanted<Segment & { readonly day: number }, string>;

  async function answer(wanted: Source): Promise<Fetched> {
    await Promise.resolve();
    return {
      postings: wanted.postings.map(({ term }) => ({ kind: 'list', ordinals: Uint16Array.from({ length: 100 }, (_, ordinal) => ordinal).filter((ordinal) => term === 'every' || ordinal % 10 === Number(term)) })),
      pages: wanted.pages.map(() => new Page(Uint32Array.from({ length: 100 }, (_, ordinal) => ordinal * 1000))),
      records: wanted.records.map(({ segment, ordinal }) => ({ key: `${segment.day}/${ordinal}`, id: `${segment.day}/${ordinal}`, time: segment.day * DAY_MS + ordinal * 1000 })),
    };
  }

  test('is driven by a source that answers later, a window of days at a time', async () => {
    const query: IndexQuery<Segment & { readonly day: number }, string> = { from: 2500, to: Infinity, direction: 'desc', limit: 12, after: null, total: null, every: 'every', clauses: [['3', '4']], sub: [], located: [] };
    const search = findRows(query, days);
    let rounds = 0;
    let step = search.next();
    while (step.done !== true) {
      rounds += 1;
      step = search.next(await answer(step.value));
    }
    expect(step.value.total).toBe(100);
    expect(step.value.more).toBe(true);
    expect(step.value.rows.map(({ time }) => time)).toEqual([94, 93, 84, 83, 74, 73, 64, 63, 54, 53, 44, 43].map((second) => 4 * DAY_MS + second * 1000));
    expect(rounds).toBeLessThanOrEqual(5);
  });

  /** Days of several segments and pages, filled in the order of the journeys but for a jitter, with many at the same millisecond and some deleted. */
  function busyDays(seed: number, jitter: number, coarse: number, sizes = [2.2, 1.4]) {
    type Busy = Segment & { readonly day: number; readonly times: Uint32Array; readonly posting: Posting };
    const { below } = seeded(seed);
    const rows: Row[] = [];
    const found = Array.from({ length: 2 }, (_, day): Day<Busy> => {
      let begun = 0;
      const records = sizes.map((pages, no): Busy => {
        const size = Math.floor(pages * PAGE_ENTRIES);
        const times = Uint32Array.from({ length: size }, () => Math.floor(((begun += 9_000) % DAY_MS + below(jitter + 1)) % DAY_MS / coarse) * coarse);
        const edit = new PostingEdit(null, true);
        let alive = 0;
        for (let ordinal = 0; ordinal < size; ordinal += 1) {
          if (below(10) === 0) continue;
          alive += 1;
          edit.add(ordinal);
          const id = `${String(no)}/${String(ordinal)}`;
          rows.push({ key: id, id, time: day * DAY_MS + times[ordinal]! });
        }
        return { day, no, size, alive, times, posting: decodePosting(edit.encode()!)! };
      });
      return { day, records, subs: [] };
    });
    const fetched = (wanted: Wanted<Busy, string>): Fetched => ({
      postings: wanted.postings.map(({ segment }) => segment.posting),
      pages: wanted.pages.map(({ segment, page }) => new Page(segment.times.slice(page * PAGE_ENTRIES, (page + 1) * PAGE_ENTRIES))),
      records: wanted.records.map(({ segment: { day, no, times }, ordinal }) => ({ key: `${String(no)}/${String(ordinal)}`, id: `${String(no)}/${String(ordinal)}`, time: day * DAY_MS + times[ordinal]! })),
    });
    return { days: found, rows: rows.sort(compareRows), fetched };
  }

  test('looks at no more of a large day than a page needs, at no column of a day that is taken whole, and answers as a plain list of all its records does', () => {
    const worlds = [busyDays(6, 90_000, 1, [0.02, 0.01]), busyDays(7, 40_000_000, 3_600_000, [0.02, 0.03]), busyDays(1, 90_000, 1), busyDays(2, 40_000_000, 1), busyDays(3, 0, 60_000), busyDays(4, 90_000, 3_600_000), busyDays(5, 0, DAY_MS / 2)];
    const instant = fc.integer({ min: -1000, max: 2 * DAY_MS + 1000 });
    fc.assert(fc.property(fc.constantFrom(...worlds), instant, instant, fc.constantFrom('asc', 'desc'), fc.integer({ min: 1, max: 300 }), fc.option(fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true })), (world, one, other, direction, limit, skipped) => {
      const [from, to] = [Math.min(one, other), Math.max(one, other)];
      const all = world.rows.filter(({ time }) => time >= from && time <= to);
      if (direction === 'desc') all.reverse();
      const start = skipped === null || all.length === 0 ? 0 : 1 + Math.floor(skipped * all.length);
      const search = findRows({ from, to, direction, limit, after: start === 0 ? null : all[start - 1]!, total: start === 0 ? null : all.length, every: 'every', clauses: [], sub: [], located: [] }, world.days.filter(({ day }) => (day + 1) * DAY_MS > from && day * DAY_MS <= to));
      let step = search.next();
      while (step.done !== true) step = search.next(world.fetched(step.value));
      expect(step.value.total).toBe(all.length);
      expect(step.value.rows).toEqual(all.slice(start, start + limit));
      expect(step.value.more).toBe(all.length > start + limit);
    }), { numRuns: 150, seed: 7 });
  });
});
