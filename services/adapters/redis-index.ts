// The search index of a view in Redis: working out what a commit changes in it, and reading it for the executor of
// postings.ts. What stands where: redis-scripts.ts.
//
// The writer works everything out in Node, from what it read and what it keeps from its own last commits, and sends plain
// writes: a changed stretch of a bitmap, a list, a row. That is sound because the commit stands only if the view is still
// at the very commit (lineage and number, not the position alone) that all of this was read at. Working it out inside the
// script costs Redis, which answers everybody, four times as much: a SETBIT for each of a journey's sixty entries, where
// the journeys of a commit have neighbouring ordinals and share most of their terms.
//
// A lineage is drawn anew whenever a writer starts from what it did not write itself, and the number of a commit counts on
// from the one before. So the pair never comes twice, even when a Redis comes back without its last writes and they are
// folded again in other batches: whoever keeps something in memory under a pair may trust it.
import assert from 'node:assert';
import type { RecordChange, RecordState, SubRecord } from '../../projections/projection.ts';
import type { Clause, Commit, Generation, Position, SearchQuery, SearchResult, SearchRow } from '../ports.ts';
import {
  compareRows, compareText, type Day, DAY_MS, Days, DecodedCache, decodePosting, type Fetched, findRows, type IndexQuery, Page, PAGE_ENTRIES, type Posting, PostingEdit, type Row, ROWS_SHARE, SEGMENT_SIZE, type StoredSegment, type Wanted,
} from './postings.ts';
import {
  damaged, EVERY, isDense, Operations, packLocator, packTexts, readChunk, readLocator, readRow, readRowHead, type RecordRow, RowPacker, SMALL, type SubRow, type TermIds,
} from './redis-pack.ts';
import {
  BUCKET_ENTRIES, BUCKETS, FETCH, KEYED_ROWS, LEVELS_MAX, LIST_BUCKETS, LIST_GROWN, LOCATE, MOVED_DAYS, OPEN_SEARCH, READ_ROWS, ROWS_BLOCK, type Script,
} from './redis-scripts.ts';

/** What the writer keeps from commit to commit: rows as they are stored, open postings, days. */
const KEPT_ROW_BYTES = 16 * 1024 * 1024;
const KEPT_POSTING_BYTES = 16 * 1024 * 1024;
const KEPT_DAYS = 20_000;
/** Of one call: each holds Redis for well under a millisecond. */
const READ_ROWS_MAX = 500;
const FETCH_POSTINGS_MAX = 256;
const FETCH_PAGES_MAX = 64;
const FETCH_ROWS_MAX = 128;
/** Documents of one MSET; characters of theirs. */
const SET_DOCUMENTS = 32;
const SET_CHARACTERS = 64 * 1024;
/** Fields of one HSET or HMGET. */
const FIELDS_MAX = 128;
/** Stretches of a bitmap are written apart when this many bytes between them did not change; with more stretches than this it is written whole. */
const STRETCH_GAP = 32;
const STRETCHES_MAX = 8;
/** The first characters of a key that choose its part of an ordered space: of a quarter's twelve digits, the time of 10,000 s. */
export const SPACE_WIDTH = 8;
const DIRECTORIES_MAX = 64;
/** A keyed term of more records goes by the general plan. */
const KEYED_ROWS_MAX = 25;
/** Tries to read between two commits; after that, what is counted may be off by the commits under way. */
const SEARCH_ATTEMPTS = 5;

export type Reply = null | number | string | Buffer | readonly Reply[];

/** Where a shard stands. */
export interface Head {
  readonly role: 'build' | 'live' | 'gone';
  readonly position: Position | null;
  readonly lineage: string;
  readonly number: number;
  readonly stage: string | null;
  readonly entries: number;
}

/** One shard's keys, behind a connection for reading. */
export interface Shard {
  /** With its braces. */
  readonly tag: string;
  /** A script over the shard's state, with everything in bytes. Its reply begins with the head, which is checked: a shard that is not there or torn throws. */
  read(script: Script, args: readonly (string | number | Buffer)[], keys?: readonly string[]): Promise<{ readonly head: Head; readonly rest: readonly Reply[] }>;
  hmget(key: string, fields: readonly string[]): Promise<readonly (Buffer | null)[]>;
  /** Documents by their keys, and the head as it stands once they have been read: if no commit came until then, they are of that one. */
  documents(keys: readonly string[]): Promise<{ readonly head: Head; readonly found: readonly (string | null)[] }>;
  /** Finishes a commit that was sealed and not yet applied. */
  settle(): Promise<void>;
}

/** What a view did so far, counted: for metrics, and for tests that hold work instead of seconds. */
export interface ViewWork {
  commits: number; stages: number; chunks: number; largestChunk: number;
  postingsRead: number; postingsWritten: number; rowsRead: number; rowsWritten: number; cacheHits: number; tornReads: number;
}

// ---- changing the index ----------------------------------------------------------------------------------------------

interface SegmentEdit { readonly id: number; readonly no: number; readonly of: DayEdit; size: number; alive: number; version: number }
interface DayEdit { readonly workspace: string; readonly day: number; readonly records: SegmentEdit[]; readonly subs: SegmentEdit[] }
/** A chunk of sub-records that was not read, because nothing of it changes. */
const UNREAD = null;
interface Stored { readonly locator: number; readonly row: RecordRow }
/** A record while a commit changes it. */
interface OpenRecord {
  readonly workspace: string;
  readonly key: string;
  /** What the writer keeps it under. */
  readonly name: string;
  before: Stored | null;
  locator: number;
  state: { time: number; id: string; posted: readonly string[]; keyed: readonly string[] } | null;
  /** By number; 0 is always there. */
  chunks: Map<number, readonly SubRow[] | null>;
  readonly changed: Set<number>;
  /** Something of its row is another than before. */
  isChanged: boolean;
}
/**
 * `stored`: in a bucket with others, or apart in a string of its own, where it stays until it is empty. `bitmap`: the bytes
 * of the bitmap as it is stored, 0 for a list. `grown`: which buckets have it. Both are flags in the byte behind the kind.
 */
interface OpenPosting { readonly edit: PostingEdit; stored: 'none' | 'inline' | 'apart'; bitmap: number; grown: 0 | 1 }
const FLAGS_AT = 1;
const GROWN = 1;
const APART = 2;
/** Longer values would take the whole bucket out of its listpack (hash-max-listpack-value). */
const INLINE_BYTES = 64;
/** Ordinals that come, and -1 - ordinal for those that go. */
type Deltas = number[];
/** One posting that a commit changes. */
interface Touched { readonly deltas: Deltas; readonly name: string; open: OpenPosting | null }
interface Step { readonly record: OpenRecord; readonly change: RecordChange }

/** What a commit is about to change; the counts are those after it. */
export interface Plan { readonly chunks: readonly Buffer[]; readonly records: number; readonly segments: number; readonly entries: number }
/** Where the writer's memory stands. */
export interface Standing { readonly number: number; readonly records: number; readonly segments: number; readonly entries: number }

/** One commit after the other: the next one is worked out when the one before stands. */
export class IndexWriter {
  readonly #shard: Shard;
  readonly #generation: Generation;
  readonly #ids: TermIds;
  readonly #work: ViewWork;
  readonly #packer = new RowPacker();
  /** Room to write chunks in, which are copied out of it. */
  readonly #operations = new Operations();
  readonly #rows = new Kept<Stored>(KEPT_ROW_BYTES);
  readonly #postings = new Kept<OpenPosting>(KEPT_POSTING_BYTES);
  readonly #days = new Map<string, Map<number, DayEdit>>();
  #keptDays = 0;
  readonly #segments = new Map<number, SegmentEdit>();

  constructor(shard: Shard, generation: Generation, ids: TermIds, work: ViewWork) {
    this.#shard = shard;
    this.#generation = generation;
    this.#ids = ids;
    this.#work = work;
  }

  /** After a commit that does not stand, or may not: nothing that is kept here counts. */
  forget(): void {
    this.#rows.clear();
    this.#postings.clear();
    this.#forgetDays();
  }

  #forgetDays(): void {
    this.#days.clear();
    this.#segments.clear();
    this.#keptDays = 0;
  }

  async plan(commit: Commit, standing: Standing): Promise<Plan> {
    const draft = new Draft(standing);
    const { records, steps } = await this.#openRecords(commit.records);
    await this.#openDays(steps);
    await this.#openChunks(steps);
    for (const { record, change } of steps) this.#apply(draft, record, change);
    await this.#openPostings(draft);
    const writer = new PlanWriter(this.#shard.tag, this.#operations);
    writer.documents(commit.documents, new Set(this.#generation.ordered));
    writer.keyed(draft.keyed, levelOf(draft.entries));
    this.#writeRecords(writer, records);
    this.#writePostings(writer, draft);
    writer.columns(draft.columns);
    // Last: until the versions move, what a reader keeps of a segment is what the commit before left.
    writer.directory(draft.days, standing.number + 1);
    this.#trim();
    return { chunks: writer.finish(), records: draft.records, segments: draft.segments, entries: draft.entries };
  }

  // -- what must be known first

  async #openRecords(changes: Commit['records']): Promise<{ readonly records: Iterable<OpenRecord>; readonly steps: readonly Step[] }> {
    const open = new Map<string, OpenRecord>();
    const steps: Step[] = [];
    const unknown: OpenRecord[] = [];
    for (const [workspace, records] of changes) {
      for (const change of records) {
        const name = `${workspace}\n${change.key}`;
        let record = open.get(name);
        if (record === undefined) {
          const kept = this.#rows.get(name);
          record = newRecord(workspace, change.key, name);
          if (kept === undefined) unknown.push(record);
          else fillRecord(record, kept);
          open.set(name, record);
        }
        steps.push({ record, change });
      }
    }
    for (let start = 0; start < unknown.length; start += READ_ROWS_MAX) await this.#readRecords(unknown.slice(start, start + READ_ROWS_MAX));
    return { records: open.values(), steps };
  }

  async #readRecords(records: readonly OpenRecord[]): Promise<void> {
    const { rest: [found] } = await this.#shard.read(READ_ROWS, [packTexts(records.map(({ workspace, key }) => this.#ids.keyed(workspace, '', key)))]);
    this.#work.rowsRead += records.length;
    records.forEach((record, i) => {
      const locator = (found as readonly Reply[])[i * 2] as Buffer | null;
      const bytes = (found as readonly Reply[])[i * 2 + 1] as Buffer | null;
      if (locator === null) return;
      if (bytes === null) throw damaged('a record has a place where there is no row');
      const row = readRow(bytes);
      if (row.key !== record.key) throw damaged('a record stands under the key of another');
      fillRecord(record, { locator: readLocator(locator), row });
    });
  }

  /** The days on which a record stands or comes to stand. */
  async #openDays(steps: readonly Step[]): Promise<void> {
    const missing = new Map<string, Set<number>>();
    const ask = (workspace: string, time: number): void => {
      const day = dayOf(time);
      if (this.#days.get(workspace)?.has(day) === true) return;
      const days = missing.get(workspace);
      if (days === undefined) missing.set(workspace, new Set([day]));
      else days.add(day);
    };
    for (const { record: { workspace, before }, change: { state } } of steps) {
      if (state != null) ask(workspace, state.time);
      if (before !== null) ask(workspace, before.row.time);
    }
    for (const [workspace, asked] of missing) {
      const days = [...asked];
      for (let start = 0; start < days.length; start += FIELDS_MAX) {
        const some = days.slice(start, start + FIELDS_MAX);
        const entries = await this.#shard.hmget(`${this.#shard.tag}D${workspace}`, some.map(String));
        some.forEach((day, i) => this.#keepDay(workspace, day, entries[i] ?? null));
      }
    }
  }

  #keepDay(workspace: string, day: number, entry: Buffer | null): void {
    const made: DayEdit = { workspace, day, records: [], subs: [] };
    const { records, subs } = readDay(entry);
    for (const [into, list] of [[made.records, records], [made.subs, subs]] as const) {
      for (const segment of list) into.push({ ...segment, of: made });
    }
    for (const segment of [...made.records, ...made.subs]) this.#segments.set(segment.id, segment);
    let days = this.#days.get(workspace);
    if (days === undefined) this.#days.set(workspace, days = new Map<number, DayEdit>());
    days.set(day, made);
    this.#keptDays += 1;
  }

  /** The chunks apart that a change replaces, and all of a record that is deleted or goes to another day. */
  async #openChunks(steps: readonly Step[]): Promise<void> {
    for (const { record, change: { state, subs } } of steps) {
      const { before } = record;
      if (before === null || before.row.others.length === 0) continue;
      const whole = state !== undefined && (state === null || dayOf(state.time) !== dayOf(before.row.time));
      const wanted = before.row.others.filter((number) => (whole || subs?.has(number) === true) && record.chunks.get(number) === UNREAD);
      const { bucket, field } = rowPlace(this.#shard.tag, before.locator);
      for (let start = 0; start < wanted.length; start += FIELDS_MAX) {
        const some = wanted.slice(start, start + FIELDS_MAX);
        const found = await this.#shard.hmget(bucket, some.map((number) => `${field}.${number}`));
        some.forEach((number, i) => {
          const bytes = found[i];
          if (bytes == null) throw damaged('a record names a chunk that is not there');
          record.chunks.set(number, readChunk(bytes));
        });
      }
    }
  }

  async #openPostings(draft: Draft): Promise<void> {
    const missing: { readonly segment: number; readonly id: string; readonly touched: Touched }[] = [];
    for (const [segment, postings] of draft.postings) {
      for (const [id, touched] of postings) {
        touched.open = this.#postings.get(touched.name) ?? null;
        if (touched.open === null) missing.push({ segment, id, touched });
      }
    }
    const slices: Promise<void>[] = [];
    for (let start = 0; start < missing.length; start += FETCH_POSTINGS_MAX) slices.push(this.#readPostings(missing.slice(start, start + FETCH_POSTINGS_MAX)));
    await Promise.all(slices);
  }

  async #readPostings(wanted: readonly { readonly segment: number; readonly id: string; readonly touched: Touched }[]): Promise<void> {
    const { rest: [found] } = await this.#shard.read(FETCH, [packWanted('', wanted.map(({ segment, id }) => [segment, id]), [], [])]);
    this.#work.postingsRead += wanted.length;
    wanted.forEach(({ id, touched }, i) => {
      const bytes = (found as readonly Reply[])[i] as Buffer | null;
      const posting = bytes === null ? null : readPosting(new Uint8Array(bytes));
      const edit = new PostingEdit(posting, isDense(id));
      const flags = bytes?.[FLAGS_AT] ?? 0;
      const stored = bytes === null ? 'none' : (flags & APART) !== 0 ? 'apart' : 'inline';
      touched.open = { edit, stored, bitmap: posting?.kind === 'bitmap' ? bytes!.length : 0, grown: (flags & GROWN) !== 0 ? 1 : 0 };
    });
  }

  // -- what changes

  #apply(draft: Draft, record: OpenRecord, change: RecordChange): void {
    if (change.state === null) {
      if (record.state !== null) this.#delete(draft, record);
      return;
    }
    assert(change.state !== undefined || record.state !== null, 'sub-records were given for a record that does not stand');
    if (change.state !== undefined) {
      if (record.state === null) this.#insert(draft, record, change.state);
      else if (dayOf(record.state.time) === dayOf(change.state.time)) this.#update(draft, record, change.state);
      else this.#move(draft, record, change.state, change.subs);
    }
    for (const [number, subs] of change.subs ?? []) this.#replaceChunk(draft, record, number, (subs ?? []).map((sub) => this.#subTerms(sub)));
  }

  #insert(draft: Draft, record: OpenRecord, state: RecordState): void {
    const terms = this.#recordTerms(record.workspace, state.terms);
    record.locator = this.#allot(draft, record.workspace, dayOf(state.time), 'records');
    record.state = { time: state.time, id: state.id, ...terms };
    this.#place(draft, record);
    draft.locate(this.#ids.keyed(record.workspace, '', record.key), record.locator);
    draft.records += 1;
  }

  /** Puts a record's time and terms where its locator is. */
  #place(draft: Draft, { locator, state }: OpenRecord): void {
    const { time, posted, keyed } = state!;
    draft.column(locator, time - dayOf(time) * DAY_MS);
    draft.post(locator, [], [EVERY]);
    draft.post(locator, [], posted);
    for (const id of keyed) draft.locate(id, locator);
  }

  #displace(draft: Draft, record: OpenRecord): void {
    const { locator, state } = record;
    draft.post(locator, state!.posted, []);
    draft.post(locator, [EVERY], []);
    for (const id of state!.keyed) draft.unlocate(id, locator);
    draft.unlocate(this.#ids.keyed(record.workspace, '', record.key), locator);
    this.#change(draft, segmentOf(locator)).alive -= 1;
  }

  /** Touches no posting whose term stays. */
  #update(draft: Draft, record: OpenRecord, state: RecordState): void {
    const terms = this.#recordTerms(record.workspace, state.terms);
    const old = record.state!;
    // Time and id order their day: whoever reads a page while they change must read it again.
    let differs = old.time !== state.time || old.id !== state.id;
    if (old.time !== state.time) draft.column(record.locator, state.time - dayOf(state.time) * DAY_MS);
    if (draft.post(record.locator, old.posted, terms.posted)) differs = true;
    const come = terms.keyed.filter((id) => !old.keyed.includes(id));
    const gone = old.keyed.filter((id) => !terms.keyed.includes(id));
    for (const id of come) draft.locate(id, record.locator);
    for (const id of gone) draft.unlocate(id, record.locator);
    if (!differs && come.length + gone.length === 0) return;
    this.#change(draft, segmentOf(record.locator));
    record.state = { time: state.time, id: state.id, ...terms };
    record.isChanged = true;
  }

  /** To another day: all of it goes along, the stored chunks too, but for those that the change replaces anyway. */
  #move(draft: Draft, record: OpenRecord, state: RecordState, replaced: RecordChange['subs']): void {
    const terms = this.#recordTerms(record.workspace, state.terms);
    const chunks = record.chunks;
    for (const subs of chunks.values()) this.#removeSubs(draft, subs!);
    this.#displace(draft, record);
    record.chunks = new Map([[0, []]]);
    record.locator = this.#allot(draft, record.workspace, dayOf(state.time), 'records');
    record.state = { time: state.time, id: state.id, ...terms };
    this.#place(draft, record);
    draft.locate(this.#ids.keyed(record.workspace, '', record.key), record.locator);
    for (const [number, subs] of chunks) if (replaced?.has(number) !== true) this.#replaceChunk(draft, record, number, subs!.map(({ posted }) => posted));
  }

  #delete(draft: Draft, record: OpenRecord): void {
    for (const subs of record.chunks.values()) this.#removeSubs(draft, subs!);
    this.#displace(draft, record);
    record.state = null;
    record.locator = -1;
    record.chunks = new Map([[0, []]]);
    draft.records -= 1;
  }

  /** Compares by place within the chunk: what stands where it stood keeps its ordinal, and its postings as far as its terms are the same. */
  #replaceChunk(draft: Draft, record: OpenRecord, number: number, subs: readonly (readonly string[])[]): void {
    const stored = record.chunks.get(number) ?? [];
    const { of: { day }, no } = this.#segment(segmentOf(record.locator));
    let differs = subs.length !== stored.length;
    const kept = subs.map((posted, place): SubRow => {
      const known = stored[place];
      const locator = known?.locator ?? this.#allot(draft, record.workspace, day, 'subs');
      if (known === undefined) draft.column(locator, no * SEGMENT_SIZE + record.locator % SEGMENT_SIZE);
      if (known !== undefined && !draft.post(locator, known.posted, posted)) return known;
      if (known === undefined) draft.post(locator, [], posted);
      this.#change(draft, segmentOf(locator));
      differs = true;
      return { locator, posted };
    });
    if (!differs) return;
    this.#removeSubs(draft, stored.slice(subs.length));
    if (number === 0 || record.chunks.has(number) !== kept.length > 0) record.isChanged = true;
    if (kept.length === 0 && number !== 0) record.chunks.delete(number);
    else record.chunks.set(number, kept);
    record.changed.add(number);
  }

  #removeSubs(draft: Draft, subs: readonly SubRow[]): void {
    for (const { locator, posted } of subs) {
      draft.post(locator, posted, []);
      this.#change(draft, segmentOf(locator)).alive -= 1;
    }
  }

  #recordTerms(workspace: string, terms: RecordState['terms']): { readonly posted: readonly string[]; readonly keyed: readonly string[] } {
    const posted: string[] = [];
    const keyed: string[] = [];
    for (const name of Object.keys(terms)) {
      const kind = this.#generation.fields[name];
      for (const value of terms[name]!) {
        if (kind === 'keyed') keyed.push(this.#ids.keyed(workspace, name, value));
        else posted.push(this.#ids.posted(name, value, kind === 'dense'));
      }
    }
    return { posted: ascending(posted), keyed: [...new Set(keyed)] };
  }

  #subTerms(sub: SubRecord): readonly string[] {
    const posted: string[] = [];
    for (const name of Object.keys(sub)) {
      for (const value of sub[name]!) posted.push(this.#ids.posted(subName(name), value, this.#generation.subFields[name] === 'dense'));
    }
    return ascending(posted);
  }

  /** The next ordinal of a workspace's day, as a locator. A full segment is followed by a new one. Ordinals of what was deleted are not given again: a rebuild closes the holes. */
  #allot(draft: Draft, workspace: string, day: number, of: 'records' | 'subs'): number {
    const standing = this.#days.get(workspace)!.get(day)!;
    let segment = standing[of].at(-1);
    if (segment === undefined || segment.size === SEGMENT_SIZE) {
      draft.segments += 1;
      segment = { id: draft.segments, no: standing[of].length, of: standing, size: 0, alive: 0, version: 0 };
      standing[of].push(segment);
      this.#segments.set(segment.id, segment);
    }
    segment.size += 1;
    segment.alive += 1;
    this.#change(draft, segment.id);
    return segment.id * SEGMENT_SIZE + segment.size - 1;
  }

  /** For whoever changes something in a segment: its version moves with this commit, and what readers keep of it is read again. */
  #change(draft: Draft, id: number): SegmentEdit {
    const segment = this.#segment(id);
    segment.version = draft.number;
    draft.days.add(segment.of);
    return segment;
  }

  #segment(id: number): SegmentEdit {
    const segment = this.#segments.get(id);
    if (segment === undefined) throw damaged('a record stands in no segment');
    return segment;
  }

  // -- what is written

  #writeRecords(writer: PlanWriter, records: Iterable<OpenRecord>): void {
    for (const record of records) {
      const { name, before, state, locator, chunks, changed } = record;
      const isNew = before?.locator !== locator;
      if (isNew && before !== null) writer.row(before.locator, null, before.row.others.map((number) => [number, null]));
      if (state === null) {
        this.#rows.delete(name);
        continue;
      }
      const others = [...chunks.keys()].filter((number) => number !== 0);
      const apart = (isNew ? others : [...changed].filter((number) => number !== 0)).map((number) => [number, chunks.has(number) ? this.#packer.chunk(chunks.get(number)!) : null] as const);
      if (!isNew && !record.isChanged) {
        writer.row(locator, undefined, apart);
        // As it was; but now known.
        this.#rows.set(name, before, sizeOf(before.row));
        continue;
      }
      const row: RecordRow = { key: record.key, ...state, first: chunks.get(0) ?? [], others };
      writer.row(locator, this.#packer.row(row), apart);
      this.#work.rowsWritten += 1;
      this.#rows.set(name, { locator, row }, sizeOf(row));
    }
  }

  #writePostings(writer: PlanWriter, draft: Draft): void {
    for (const [segment, postings] of draft.postings) {
      for (const [id, { deltas, name, open }] of postings) {
        assert(open !== null, 'a posting is opened before it is written');
        if (open.stored === 'none') open.grown = this.#segment(segment).size > LIST_GROWN ? 1 : 0;
        for (const delta of deltas) if (delta >= 0) open.edit.add(delta); else open.edit.remove(-1 - delta);
        writer.posting(segment, id, open, deltas);
        this.#work.postingsWritten += 1;
        this.#postings.set(name, open, open.edit.bytes);
      }
    }
  }

  #trim(): void {
    this.#rows.trim();
    this.#postings.trim();
    if (this.#keptDays > KEPT_DAYS) this.#forgetDays();
  }
}

function newRecord(workspace: string, key: string, name: string): OpenRecord {
  return { workspace, key, name, before: null, locator: -1, state: null, chunks: new Map([[0, []]]), changed: new Set(), isChanged: false };
}

function fillRecord(record: OpenRecord, before: Stored): void {
  const { locator, row: { time, id, posted, keyed, first, others } } = before;
  record.before = before;
  record.locator = locator;
  record.state = { time, id, posted, keyed };
  record.chunks.set(0, first);
  for (const number of others) record.chunks.set(number, UNREAD);
}

/** What a commit changes, gathered before anything is read for it or written. */
class Draft {
  /** Of this commit. */
  readonly number: number;
  records: number;
  segments: number;
  entries: number;
  readonly postings = new Map<number, Map<string, Touched>>();
  readonly keyed: { readonly id: string; readonly locator: number; readonly goes: boolean }[] = [];
  readonly columns = new Map<number, Map<number, number>>();
  readonly days = new Set<DayEdit>();

  constructor(standing: Standing) {
    this.number = standing.number + 1;
    this.records = standing.records;
    this.segments = standing.segments;
    this.entries = standing.entries;
  }

  /** The difference of two ascending lists of terms, for one ordinal; whether there is one. */
  post(locator: number, old: readonly string[], now: readonly string[]): boolean {
    const segment = segmentOf(locator);
    const ordinal = locator % SEGMENT_SIZE;
    let a = 0;
    let b = 0;
    let differs = false;
    while (a < old.length || b < now.length) {
      const from = old[a];
      const to = now[b];
      if (from === to) {
        a += 1;
        b += 1;
        continue;
      }
      differs = true;
      if (to === undefined || (from !== undefined && from < to)) {
        this.#deltas(segment, from!).push(-1 - ordinal);
        a += 1;
      } else {
        this.#deltas(segment, to).push(ordinal);
        b += 1;
      }
    }
    return differs;
  }

  #deltas(segment: number, id: string): Deltas {
    let postings = this.postings.get(segment);
    if (postings === undefined) this.postings.set(segment, postings = new Map<string, Touched>());
    let touched = postings.get(id);
    if (touched === undefined) postings.set(id, touched = { deltas: [], name: `${segment}.${id}`, open: null });
    return touched.deltas;
  }

  locate(id: string, locator: number): void {
    this.keyed.push({ id, locator, goes: false });
    this.entries += 1;
  }

  unlocate(id: string, locator: number): void {
    this.keyed.push({ id, locator, goes: true });
  }

  column(locator: number, value: number): void {
    const segment = segmentOf(locator);
    let column = this.columns.get(segment);
    if (column === undefined) this.columns.set(segment, column = new Map<number, number>());
    column.set(locator % SEGMENT_SIZE, value);
  }
}

/** Writes a plan down as operations, cut into chunks at whole operations. */
class PlanWriter {
  readonly #tag: string;
  readonly #chunks: Buffer[] = [];
  readonly #operations: Operations;
  /** Fields of hashes, by key: each is one command in the end. Null deletes. */
  readonly #fields = new Map<string, Map<string, Uint8Array | string | null>>();

  constructor(tag: string, operations: Operations) {
    this.#tag = tag;
    this.#operations = operations;
  }

  documents(documents: Commit['documents'], ordered: ReadonlySet<string>): void {
    let sets: (readonly [string, string])[] = [];
    let characters = 0;
    const set = (): void => {
      if (sets.length > 0) this.#begin(1 + sets.length * 2, sets.length).text('MSET');
      for (const [key, value] of sets) this.#operations.text(`${this.#tag}d${key}`).utf8(value);
      sets = [];
      characters = 0;
    };
    const gone: string[] = [];
    for (const [key, value] of documents) {
      const space = spaceOf(key, ordered);
      if (space !== null) this.#ordered(key, value, space);
      else if (value === null) gone.push(key);
      else {
        sets.push([key, value]);
        characters += value.length;
        if (sets.length >= SET_DOCUMENTS || characters >= SET_CHARACTERS) set();
      }
    }
    set();
    for (let start = 0; start < gone.length; start += FIELDS_MAX) {
      const some = gone.slice(start, start + FIELDS_MAX);
      this.#begin(1 + some.length, some.length).text('UNLINK');
      for (const key of some) this.#operations.text(`${this.#tag}d${key}`);
    }
  }

  #ordered(key: string, value: string | null, space: string): void {
    const rest = key.slice(space.length + 1);
    const first = rest.slice(0, SPACE_WIDTH);
    if (value === null) this.#begin(5, 3).text('P').text(`${this.#tag}d${key}`);
    else this.#begin(6, 3).text('O').text(`${this.#tag}d${key}`).utf8(value);
    this.#operations.text(`${this.#tag}o${space}`).text(first).text(rest.slice(SPACE_WIDTH));
  }

  /** Those of one bucket together. A locator is given once and taken back at most once, so that what goes may come last. */
  keyed(entries: Draft['keyed'], level: number): void {
    const buckets = new Map<number, { readonly id: string; readonly locator: number }[]>();
    for (const entry of entries) {
      if (entry.goes) continue;
      const bucket = bucketOf(entry.id, level);
      const others = buckets.get(bucket);
      if (others === undefined) buckets.set(bucket, [entry]);
      else others.push(entry);
    }
    for (const come of buckets.values()) {
      for (let start = 0; start < come.length; start += FIELDS_MAX) {
        const some = come.slice(start, start + FIELDS_MAX);
        this.#begin(2 + some.length * 2, 1 + some.length).text('+').number(level);
        for (const { id, locator } of some) this.#operations.text(id).text(packLocator(locator));
      }
    }
    for (const { id, locator, goes } of entries) if (goes) this.#begin(4, 2).text('-').text(id).text(packLocator(locator)).number(level);
  }

  /** `row` undefined: as it stands; null: goes. */
  row(locator: number, row: Buffer | null | undefined, chunks: readonly (readonly [number: number, chunk: Buffer | null])[]): void {
    const { bucket, field } = rowPlace(this.#tag, locator);
    if (row !== undefined) this.#field(bucket, field, row);
    for (const [number, chunk] of chunks) this.#field(bucket, `${field}.${number}`, chunk);
  }

  posting(segment: number, id: string, open: OpenPosting, deltas: Deltas): void {
    const bytes = open.edit.encode();
    const list = `${this.#tag}${open.grown === 1 ? 'm' : 'l'}${hex(segment)}.${hex(id.charCodeAt(0) % LIST_BUCKETS[open.grown])}`;
    const apart = `${this.#tag}b${hex(segment)}.${id}`;
    if (bytes === null) {
      if (open.stored === 'apart') this.#begin(2).text('DROP').text(apart);
      if (open.stored !== 'none' && !isDense(id)) this.#field(list, id, null);
      [open.stored, open.bitmap] = ['none', 0];
      return;
    }
    const inline = open.stored !== 'apart' && !isDense(id) && bytes.length <= INLINE_BYTES;
    bytes[FLAGS_AT] = (open.grown === 1 ? GROWN : 0) | (inline ? 0 : APART);
    if (inline) {
      this.#field(list, id, bytes);
      open.stored = 'inline';
      return;
    }
    if (readPosting(bytes).kind === 'bitmap') this.#bitmap(apart, bytes, open, deltas);
    else this.#begin(3).text('SET').text(apart).data(bytes);
    // An empty value says where it is.
    if (open.stored !== 'apart' && !isDense(id)) this.#field(list, id, '');
    open.stored = 'apart';
  }

  /** The stretches that changed, or all of it when that is little more. */
  #bitmap(key: string, bytes: Uint8Array, open: OpenPosting, deltas: Deltas): void {
    const stretches = open.bitmap > 0 ? stretchesOf(deltas) : [];
    const changed = stretches.reduce((sum, [from, to]) => sum + to - from, 0);
    if (stretches.length === 0 || stretches.length > STRETCHES_MAX || changed * 2 > bytes.length) {
      this.#begin(3).text('SET').text(key).data(bytes);
      open.bitmap = bytes.length;
      return;
    }
    // What the encoded bitmap ends before is zero; the stored one may be longer, and nothing is written past both.
    const end = Math.max(open.bitmap, bytes.length);
    for (const [from, to] of stretches) {
      const size = Math.min(to, end) - from;
      if (size <= 0) continue;
      const stretch = Buffer.alloc(size);
      stretch.set(bytes.subarray(from, from + size));
      this.#begin(4).text('SETRANGE').text(key).text(String(from)).data(stretch);
    }
    open.bitmap = end;
  }

  columns(columns: Draft['columns']): void {
    for (const [segment, column] of columns) {
      const ordinals = Uint32Array.from(column.keys()).sort();
      for (let start = 0; start < ordinals.length;) {
        const first = ordinals[start]!;
        let end = start + 1;
        while (end < ordinals.length && ordinals[end] === first + end - start && ordinals[end]! % PAGE_ENTRIES !== 0) end += 1;
        const run = Uint32Array.from(ordinals.subarray(start, end), (ordinal) => column.get(ordinal)!);
        this.#begin(4).text('SETRANGE').text(`${this.#tag}c${hex(segment)}.${hex(Math.floor(first / PAGE_ENTRIES))}`).text(String(first % PAGE_ENTRIES * 4)).data(new Uint8Array(run.buffer));
        start = end;
      }
    }
  }

  directory(days: ReadonlySet<DayEdit>, number: number): void {
    this.#flush();
    for (const { workspace, day, records, subs } of days) {
      this.#begin(4).text('HSET').text(`${this.#tag}D${workspace}`).text(String(day)).text(`${segmentsText(records)}|${segmentsText(subs)}`);
      this.#begin(4).text('ZADD').text(`${this.#tag}V${workspace}`).text(String(number)).text(String(day));
    }
  }

  finish(): readonly Buffer[] {
    this.#flush();
    this.#cut();
    return this.#chunks;
  }

  #field(key: string, field: string, value: Uint8Array | string | null): void {
    let fields = this.#fields.get(key);
    if (fields === undefined) this.#fields.set(key, fields = new Map<string, Uint8Array | string | null>());
    fields.set(field, value);
  }

  /** The fields of hashes gathered so far. */
  #flush(): void {
    for (const [key, fields] of this.#fields) {
      const puts = [...fields].filter((entry): entry is [string, Uint8Array | string] => entry[1] !== null);
      const gone = [...fields].filter(([, value]) => value === null).map(([field]) => field);
      for (let start = 0; start < puts.length; start += FIELDS_MAX) {
        const some = puts.slice(start, start + FIELDS_MAX);
        this.#begin(2 + some.length * 2, some.length).text('HSET').text(key);
        for (const [field, value] of some) {
          this.#operations.text(field);
          if (typeof value === 'string') this.#operations.text(value);
          else this.#operations.data(value);
        }
      }
      for (let start = 0; start < gone.length; start += FIELDS_MAX) {
        const some = gone.slice(start, start + FIELDS_MAX);
        this.#begin(2 + some.length, some.length).text('HDEL').text(key);
        for (const field of some) this.#operations.text(field);
      }
    }
    this.#fields.clear();
  }

  #begin(parts: number, calls = 1): Operations {
    if (this.#operations.isFull) this.#cut();
    return this.#operations.begin(parts, calls);
  }

  #cut(): void {
    if (this.#operations.isEmpty) return;
    this.#chunks.push(this.#operations.take());
  }
}

/** The changed bytes of a bitmap as [from, to), in whole words of four: what is stored stays a multiple of them. */
function stretchesOf(deltas: Deltas): (readonly [number, number])[] {
  const words = Uint32Array.from(deltas, (delta) => 1 + ((delta >= 0 ? delta : -1 - delta) >>> 5)).sort();
  const stretches: [number, number][] = [];
  for (const word of words) {
    const last = stretches.at(-1);
    if (last !== undefined && word * 4 - last[1] < STRETCH_GAP) last[1] = word * 4 + 4;
    else stretches.push([word * 4, word * 4 + 4]);
  }
  return stretches;
}

/** The ordered space that a document's key belongs to, with its workspace. */
function spaceOf(key: string, ordered: ReadonlySet<string>): string | null {
  if (ordered.size === 0) return null;
  const first = key.indexOf('/');
  const second = key.indexOf('/', first + 1);
  return second > 0 && ordered.has(key.slice(first + 1, second)) ? key.slice(0, second) : null;
}

function rowPlace(tag: string, locator: number): { readonly bucket: string; readonly field: string } {
  const ordinal = locator % SEGMENT_SIZE;
  return { bucket: `${tag}r${hex(segmentOf(locator))}.${hex(Math.floor(ordinal / ROWS_BLOCK))}`, field: String(ordinal % ROWS_BLOCK) };
}

/** Memory of a row that is kept, roughly: most of its ids are shared. */
function sizeOf({ posted, keyed, first }: RecordRow): number {
  return 500 + (posted.length + keyed.length) * 8 + first.length * 150;
}

/** As the scripts work it out. */
function bucketOf(id: string, level: number): number {
  const number = id.charCodeAt(0) + id.charCodeAt(1) * 2 ** 8 + id.charCodeAt(2) * 2 ** 16 + id.charCodeAt(3) * 2 ** 24;
  return number % (BUCKETS * 16 ** level);
}

/** The level that so many entries fill. */
function levelOf(entries: number): number {
  let level = 0;
  while (level < LEVELS_MAX && entries > BUCKETS * BUCKET_ENTRIES * 16 ** level) level += 1;
  return level;
}

/** Values by key, bounded by what they take; those not used for longest go first. */
class Kept<T> {
  readonly #limit: number;
  readonly #entries = new Map<string, { value: T; bytes: number }>();
  #bytes = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  get(key: string): T | undefined {
    return this.#entries.get(key)?.value;
  }

  set(key: string, value: T, bytes: number): void {
    this.delete(key);
    this.#entries.set(key, { value, bytes });
    this.#bytes += bytes;
  }

  delete(key: string): void {
    this.#bytes -= this.#entries.get(key)?.bytes ?? 0;
    this.#entries.delete(key);
  }

  clear(): void {
    this.#entries.clear();
    this.#bytes = 0;
  }

  /** Between two commits only: what one of them opened must stay until it is written. */
  trim(): void {
    for (const key of this.#entries.keys()) {
      if (this.#bytes <= this.#limit) return;
      this.delete(key);
    }
  }
}

// ---- reading the index -----------------------------------------------------------------------------------------------

type DayRows = Day<StoredSegment>;

/** The days and segments of one workspace. */
class Directory {
  lineage = '';
  number = -1;
  /** Nobody committed between the last two looks: so it may be again. */
  still = false;
  readonly days = new Days<StoredSegment>();

  /** `entries`: day, entry, day, entry … that moved since; all of them when the lineage is another. */
  refresh(head: Head, entries: readonly Reply[]): void {
    this.still = head.lineage === this.lineage && head.number === this.number;
    if (head.lineage !== this.lineage) this.days.clear();
    else if (head.number < this.number) return;
    this.lineage = head.lineage;
    this.number = head.number;
    for (let at = 0; at < entries.length; at += 2) {
      const day = Number(String(entries[at]));
      const { records, subs } = readDay(entries[at + 1] as Buffer);
      this.days.put({ day, records: records.map((segment) => ({ ...segment, day })), subs: subs.map((segment) => ({ ...segment, day })) });
    }
  }
}

/** What a search needs and nothing in memory tells. */
interface Missing {
  readonly postings: readonly { readonly segment: StoredSegment; readonly term: string; readonly name: string }[];
  readonly pages: readonly { readonly segment: StoredSegment; readonly page: number; readonly name: string }[];
}

/** One search while it is answered. */
interface Reading {
  /** `together`: by the very script that reads their rows, for whoever cannot look again whether a commit came between. */
  readonly documents: { readonly prefix: string; readonly together: boolean; readonly found: Map<string, string> };
  /** That it began with. */
  readonly lineage: string;
  /** Of the last read; null before the first. */
  head: Head | null;
  /** Something was not where the index says: a commit came between. */
  torn: boolean;
}

export class IndexReader {
  readonly #shard: Shard;
  readonly #generation: Generation;
  readonly #ids: TermIds;
  readonly #cache: DecodedCache<string>;
  /** By locator: of a row that is known only the document is read, and a page is one round trip. */
  readonly #rows: DecodedCache<number, Row>;
  readonly #work: ViewWork;
  /** The lineage that everything in the caches is of. */
  #lineage = '';
  readonly #directories = new Map<string, Directory>();

  constructor(shard: Shard, generation: Generation, ids: TermIds, cacheBytes: number, work: ViewWork) {
    this.#shard = shard;
    this.#generation = generation;
    this.#ids = ids;
    this.#cache = new DecodedCache(cacheBytes * (1 - ROWS_SHARE));
    this.#rows = new DecodedCache(cacheBytes * ROWS_SHARE);
    this.#work = work;
  }

  /**
   * Several reads and no snapshot: days and versions, then what is not in memory, then the rows, then their documents. Each
   * read says where the view stood. If it moved meanwhile, and one of the days looked at with it, all is read again; what
   * did not change comes from memory then, so that the second try is two reads. When commits to one day come faster than
   * that a few times running, the last answer is taken: its rows are whole, its total may be off by the commits under way.
   */
  async search(query: SearchQuery, documentSpace: string): Promise<SearchResult> {
    const keyed = await this.#searchKeyed(query, documentSpace) ?? await this.#searchStill(query, documentSpace);
    if (keyed !== null) return keyed;
    for (let attempt = 1; ; attempt += 1) {
      const found = await this.#search(query, documentSpace, attempt === SEARCH_ATTEMPTS);
      if (found !== null) return found;
      this.#work.tornReads += 1;
    }
  }

  /** A query of one value of one keyed field (a contact's number, an interaction's id): one script, which is one snapshot. Null where it is another query, or finds too many. */
  async #searchKeyed(query: SearchQuery, documentSpace: string): Promise<SearchResult | null> {
    const [clause] = query.clauses;
    const [term] = clause?.terms ?? [];
    if (clause === undefined || term === undefined || query.clauses.length + query.sub.length > 1 || clause.terms.length > 1 || this.#generation.fields[clause.field] !== 'keyed') return null;
    const { rest: [found] } = await this.#settled(async () => this.#shard.read(KEYED_ROWS, [latin1(this.#ids.keyed(query.workspace, clause.field, term)), `${query.workspace}/${documentSpace}/`, KEYED_ROWS_MAX]));
    if (found === undefined) return null;
    const pairs = found as readonly (Buffer | null)[];
    const rows = Array.from({ length: pairs.length / 2 }, (_, i) => readSearchRow(pairs[i * 2] ?? null, pairs[i * 2 + 1] ?? null) ?? fail('the index names a record that is not there'));
    this.#work.rowsRead += rows.length;
    const sign = query.direction === 'desc' ? -1 : 1;
    const within = rows.filter(({ time }) => time >= query.from && time <= query.to).sort((a, b) => sign * compareRows(a, b));
    const { after } = query;
    const ahead = after === null ? within : within.filter((row) => sign * (row.time - after.time || compareText(row.id, after.id)) > 0);
    return { rows: ahead.slice(0, query.limit), total: query.total ?? within.length, more: ahead.length > query.limit };
  }

  /**
   * Where nobody commits at the moment the days need not be read first: the last read tells whether they are as they were,
   * and one round trip is saved. Null where they moved, or where that is to be expected.
   */
  async #searchStill(query: SearchQuery, documentSpace: string): Promise<SearchResult | null> {
    const directory = this.#directories.get(query.workspace);
    if (directory?.still !== true || directory.lineage !== this.#lineage) return null;
    const { lineage, number } = directory;
    const { result, reading: { head, torn } } = await this.#answer(directory, query, documentSpace, false);
    const stood = !torn && head !== null && head.stage === null && head.lineage === lineage && head.number === number;
    if (stood) return result;
    directory.still = false;
    return null;
  }

  /** Null when a commit came between, unless it is the last try. */
  async #search(query: SearchQuery, documentSpace: string, last: boolean): Promise<SearchResult | null> {
    const directory = await this.#open(query.workspace);
    const { lineage, number } = directory;
    const { result, days, reading: { head, torn } } = await this.#answer(directory, query, documentSpace, last);
    const stood = (!last || torn) && (head === null || await this.#stood(query.workspace, days, { lineage, number }, head));
    if (stood && torn) throw damaged('the index names a record that is not there');
    return stood || last ? result : null;
  }

  async #answer(directory: Directory, query: SearchQuery, documentSpace: string, together: boolean): Promise<{ readonly result: SearchResult; readonly days: readonly DayRows[]; readonly reading: Reading }> {
    const reading: Reading = { documents: { prefix: `${query.workspace}/${documentSpace}/`, together, found: new Map() }, lineage: directory.lineage, head: null, torn: false };
    const isKeyed = (clause: Clause): boolean => this.#generation.fields[clause.field] === 'keyed';
    const clauses = query.clauses.filter((clause) => !isKeyed(clause)).map(({ field, terms }) => [...new Set(terms)].map((term) => this.#ids.posted(field, term, this.#generation.fields[field] === 'dense')));
    const sub = query.sub.map(({ field, terms }) => [...new Set(terms)].map((term) => this.#ids.posted(subName(field), term, this.#generation.subFields[field] === 'dense')));
    if ([...clauses, ...sub].some((terms) => terms.length === 0)) return { result: { rows: [], total: query.total ?? 0, more: false }, days: [], reading };
    const located = await this.#locate(query.workspace, query.clauses.filter(isKeyed), directory, reading);
    const days = directory.days.of(query, located[0]);
    const search = findRows({ ...query, every: EVERY, clauses, sub, located } satisfies IndexQuery<StoredSegment, string>, days);
    let step = search.next();
    while (step.done !== true) step = search.next(await this.#fetch(step.value, reading));
    const { rows, total, more } = step.value;
    return { result: { rows: rows.filter(({ key }) => key !== '').map((row): SearchRow => ({ ...row, document: reading.documents.found.get(row.key) ?? null })), total, more }, days, reading };
  }

  async #open(workspace: string): Promise<Directory> {
    const directory = this.#directories.get(workspace) ?? new Directory();
    this.#directories.delete(workspace);
    this.#directories.set(workspace, directory);
    const [oldest] = this.#directories.keys();
    if (this.#directories.size > DIRECTORIES_MAX && oldest !== undefined) this.#directories.delete(oldest);
    const { head, rest: [entries] } = await this.#settled(async () => this.#shard.read(OPEN_SEARCH, [workspace, directory.lineage, directory.number]));
    if (head.lineage !== this.#lineage) {
      // Versions of another lineage say nothing of what is stored now.
      this.#cache.clear();
      this.#rows.clear();
      this.#lineage = head.lineage;
    }
    directory.refresh(head, entries as readonly Reply[]);
    return directory;
  }

  /** While a large commit is applied the index is half of one and half of the other: it is finished first. */
  async #settled(read: () => ReturnType<Shard['read']>): ReturnType<Shard['read']> {
    for (;;) {
      const found = await read();
      if (found.head.stage === null) return found;
      await this.#shard.settle();
    }
  }

  /** Whether nothing that was looked at changed between the first read and the last. */
  async #stood(workspace: string, days: readonly DayRows[], opened: { readonly lineage: string; readonly number: number }, last: Head): Promise<boolean> {
    if (last.stage !== null || last.lineage !== opened.lineage) return false;
    if (last.number === opened.number) return true;
    const { head, rest: [moved] } = await this.#shard.read(MOVED_DAYS, [workspace, opened.number]);
    if (head.stage !== null || head.lineage !== opened.lineage) return false;
    const touched = new Set((moved as readonly Reply[]).map((day) => Number(String(day))));
    return !days.some(({ day }) => touched.has(day));
  }

  /** The records of each keyed clause, by segment. */
  async #locate(workspace: string, clauses: readonly Clause[], directory: Directory, reading: Reading): Promise<Map<StoredSegment, Uint16Array>[]> {
    if (clauses.length === 0) return [];
    const ids = clauses.map(({ field, terms }) => [...new Set(terms)].map((term) => this.#ids.keyed(workspace, field, term)));
    const { head, rest: [found] } = await this.#shard.read(LOCATE, [packTexts(ids.flat())]);
    reading.head = head;
    let at = 0;
    return ids.map((terms) => {
      const bySegment = new Map<StoredSegment, number[]>();
      for (let left = terms.length; left > 0; left -= 1) {
        const locators = (found as readonly Buffer[])[at++]!;
        for (let place = 0; place < locators.length; place += 6) {
          const locator = readLocator(locators, place);
          const segment = directory.days.segment(segmentOf(locator));
          if (segment === undefined) {
            // Made since the days were read.
            reading.torn = true;
            continue;
          }
          const ordinals = bySegment.get(segment);
          if (ordinals === undefined) bySegment.set(segment, [locator % SEGMENT_SIZE]);
          else ordinals.push(locator % SEGMENT_SIZE);
        }
      }
      return new Map([...bySegment].map(([segment, ordinals]) => [segment, Uint16Array.from(ordinals)]));
    });
  }

  async #fetch(wanted: Wanted<StoredSegment, string>, reading: Reading): Promise<Fetched> {
    const postings = wanted.postings.map(({ segment, term }) => ({ segment, term, name: `${segment.id}.${term}` }));
    const pages = wanted.pages.map(({ segment, page }) => ({ segment, page, name: `${segment.id}:${page}` }));
    const fetched = new Map<string, Posting | Page | null>();
    const known = ({ name, segment }: { readonly name: string; readonly segment: StoredSegment }): boolean => {
      const kept = this.#cache.get(name, segment.version);
      if (kept !== undefined) fetched.set(name, kept);
      return kept !== undefined;
    };
    const missing = { postings: postings.filter((each) => !known(each)), pages: pages.filter((each) => !known(each)) };
    this.#work.cacheHits += fetched.size;
    const records = await this.#records(missing, wanted.records, reading, fetched);
    return { postings: postings.map(({ name }) => fetched.get(name) as Posting | null), pages: pages.map(({ name }) => fetched.get(name) as Page), records };
  }

  /** What is missing, and rows with their documents: together, or first the rows that are not known, then the documents of all. */
  async #records(missing: Missing, wanted: Wanted<StoredSegment, string>['records'], reading: Reading, fetched: Map<string, Posting | Page | null>): Promise<Row[]> {
    const { together } = reading.documents;
    const rows = wanted.map(({ segment, ordinal }): Row | null => (together ? null : this.#rows.get(segment.id * SEGMENT_SIZE + ordinal, segment.version) ?? null));
    const unknown = wanted.filter((_, at) => rows[at] === null);
    const found = (await this.#read(missing, unknown, reading, fetched)).values();
    for (const [at, { segment, ordinal }] of wanted.entries()) {
      if (rows[at] !== null) continue;
      const row = rows[at] = found.next().value ?? null;
      if (row === null) reading.torn = true;
      else if (!together && reading.lineage === this.#lineage) this.#rows.set(segment.id * SEGMENT_SIZE + ordinal, segment.version, row, row.key.length + row.id.length);
    }
    const whole = rows.map((row) => row ?? { key: '', id: '', time: 0 });
    if (!together) await this.#documents(whole, reading);
    return whole;
  }

  /** In as many calls as it takes, all on their way at once; the last one says where the view stands. */
  async #read(missing: Missing, records: Wanted<StoredSegment, string>['records'], reading: Reading, fetched: Map<string, Posting | Page | null>): Promise<(Row | null)[]> {
    const calls = Math.max(Math.ceil(missing.postings.length / FETCH_POSTINGS_MAX), Math.ceil(missing.pages.length / FETCH_PAGES_MAX), Math.ceil(records.length / FETCH_ROWS_MAX));
    const slices = await Promise.all(Array.from({ length: calls }, async (_, call) => {
      const postings = missing.postings.slice(call * FETCH_POSTINGS_MAX, (call + 1) * FETCH_POSTINGS_MAX);
      const pages = missing.pages.slice(call * FETCH_PAGES_MAX, (call + 1) * FETCH_PAGES_MAX);
      const rows = records.slice(call * FETCH_ROWS_MAX, (call + 1) * FETCH_ROWS_MAX);
      const blocks = blocksOf(rows);
      const packed = packWanted(reading.documents.together ? reading.documents.prefix : '', postings.map(({ segment, term }) => [segment.id, term]), pages.map(({ segment, page }) => [segment.id, page]), blocks);
      const { head, rest: [foundPostings, foundPages, foundRows, documents] } = await this.#shard.read(FETCH, [packed]);
      const slab = new Slab([...foundPostings as readonly (Buffer | null)[], ...foundPages as readonly (Buffer | null)[]]);
      for (const { segment, name } of postings) this.#keep(fetched, name, segment, slab.next(readPosting), slab.size, reading.lineage);
      for (const { segment, name } of pages) this.#keep(fetched, name, segment, slab.next(readPage) ?? new Page(new Uint32Array(0)), slab.size, reading.lineage);
      const found = new Array<Row | null>(rows.length).fill(null);
      blocks.flatMap(({ places }) => places).forEach((place, at) => {
        const row = (foundRows as readonly (Buffer | null)[])[at] ?? null;
        if (row === null) return;
        const { key } = found[place] = readRowHead(row);
        const document = (documents as readonly (Buffer | null)[])[at] ?? null;
        if (document !== null) reading.documents.found.set(key, document.toString('utf8'));
      });
      return { head, rows: found };
    }));
    this.#work.postingsRead += missing.postings.length;
    this.#work.rowsRead += records.length;
    const last = slices.at(-1);
    if (last !== undefined) reading.head = last.head;
    return slices.flatMap((slice) => slice.rows);
  }

  async #documents(rows: readonly Row[], reading: Reading): Promise<void> {
    const { prefix, found } = reading.documents;
    const slices = await Promise.all(Array.from({ length: Math.ceil(rows.length / FETCH_ROWS_MAX) }, async (_, slice) => {
      const some = rows.slice(slice * FETCH_ROWS_MAX, (slice + 1) * FETCH_ROWS_MAX);
      const { head, found: texts } = await this.#shard.documents(some.map(({ key }) => `${prefix}${key}`));
      texts.forEach((text, at) => { if (text !== null) found.set(some[at]!.key, text); });
      return head;
    }));
    reading.head = slices.at(-1) ?? reading.head;
  }

  #keep(fetched: Map<string, Posting | Page | null>, name: string, segment: StoredSegment, value: Posting | Page | null, size: number, lineage: string): void {
    fetched.set(name, value);
    // Another search may have found a new lineage meanwhile, whose versions are others.
    if (lineage === this.#lineage) this.#cache.set(name, segment.version, value, size);
  }
}

/** Replies copied into one piece of memory of their own, aligned: as slices they would keep whole packets alive, and one typed array each costs the collector more than the search. */
class Slab {
  readonly #bytes: Uint8Array;
  readonly #sizes: readonly (number | null)[];
  #at = 0;
  #offset = 0;
  /** Of the last one taken. */
  size = 0;

  constructor(replies: readonly (Buffer | null)[]) {
    this.#sizes = replies.map((reply) => reply?.length ?? null);
    this.#bytes = new Uint8Array(this.#sizes.reduce<number>((sum, size) => sum + aligned(size ?? 0), 0));
    let offset = 0;
    for (const reply of replies) {
      if (reply !== null) this.#bytes.set(reply, offset);
      offset += aligned(reply?.length ?? 0);
    }
  }

  next<T>(read: (bytes: Uint8Array) => T): T | null {
    const size = this.#sizes[this.#at++] ?? null;
    const offset = this.#offset;
    this.#offset += aligned(size ?? 0);
    this.size = size ?? 0;
    return size === null ? null : read(this.#bytes.subarray(offset, offset + size));
  }
}

function aligned(size: number): number { return (size + 3) & ~3; }

function readSearchRow(bytes: Buffer | null, document: Buffer | null): SearchRow | null {
  return bytes === null ? null : { ...readRowHead(bytes), document: document === null ? null : document.toString('utf8') };
}

function packWanted(prefix: string, postings: readonly (readonly [segment: number, id: string])[], pages: readonly (readonly [segment: number, page: number])[], blocks: readonly Block[]): Buffer {
  const packed = new Operations(SMALL).array(3 + blocks.length).text(prefix).array(postings.length * 2);
  for (const [segment, id] of postings) packed.number(segment).text(id);
  packed.array(pages.length * 2);
  for (const [segment, page] of pages) packed.number(segment).number(page);
  for (const { segment, block, ordinals } of blocks) {
    packed.array(2 + ordinals.length).number(segment).number(block);
    // As text, which Redis passes on as it is: a number it would print first.
    for (const ordinal of ordinals) packed.text(String(ordinal));
  }
  return packed.value();
}

/** Rows of one block, by their ordinals within it, and their places among those that are wanted. */
interface Block { readonly segment: number; readonly block: number; readonly ordinals: number[]; readonly places: number[] }

/** One command a block: the rows of a page are mostly neighbours. */
function blocksOf(records: Wanted<StoredSegment, string>['records']): readonly Block[] {
  const blocks = new Map<number, Block>();
  records.forEach(({ segment, ordinal }, place) => {
    const number = Math.floor(ordinal / ROWS_BLOCK);
    const name = segment.id * (SEGMENT_SIZE / ROWS_BLOCK) + number;
    let block = blocks.get(name);
    if (block === undefined) blocks.set(name, block = { segment: segment.id, block: number, ordinals: [], places: [] });
    block.ordinals.push(ordinal % ROWS_BLOCK);
    block.places.push(place);
  });
  return [...blocks.values()];
}

function readPosting(bytes: Uint8Array): Posting {
  return decodePosting(bytes) ?? fail('a posting cannot be read');
}

function readPage(bytes: Uint8Array): Page {
  if (bytes.length % 4 !== 0) throw damaged('a page of a column cannot be read');
  return new Page(new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4));
}

interface DayEntry { readonly id: number; readonly no: number; readonly size: number; readonly alive: number; readonly version: number }

/** `id.size.alive.version,…|id.size.alive.version,…`: the segments of a day's records and of its sub-records. */
function readDay(entry: Buffer | null): { readonly records: readonly DayEntry[]; readonly subs: readonly DayEntry[] } {
  if (entry === null) return { records: [], subs: [] };
  const [records, subs] = entry.toString('latin1').split('|').map((list) => (list === '' ? [] : list.split(',')).map((text, no): DayEntry => {
    const [id, size, alive, version] = text.split('.').map(Number);
    if (version === undefined || Number.isNaN(version)) throw damaged('the segments of a day cannot be read');
    return { id: id!, no, size: size!, alive: alive!, version };
  }));
  return { records: records ?? [], subs: subs ?? [] };
}

function segmentsText(segments: readonly SegmentEdit[]): string {
  return segments.map(({ id, size, alive, version }) => `${id}.${size}.${alive}.${version}`).join(',');
}

/** A sub-record's field is another than a record's of the same name. */
function subName(field: string): string { return `/${field}`; }

function segmentOf(locator: number): number { return Math.floor(locator / SEGMENT_SIZE); }

function dayOf(time: number): number { return Math.floor(time / DAY_MS); }

function hex(number: number): string { return number.toString(16); }

function latin1(text: string): Buffer { return Buffer.from(text, 'latin1'); }

/** In place, each once. Lists are short, and this is done for every sub-record of a commit. */
function ascending(ids: string[]): readonly string[] {
  let size = 0;
  for (const id of ids) {
    let at = size;
    while (at > 0 && ids[at - 1]! > id) at -= 1;
    if (at > 0 && ids[at - 1] === id) continue;
    ids.copyWithin(at + 1, at, size);
    ids[at] = id;
    size += 1;
  }
  ids.length = size;
  return ids;
}

function fail(what: string): never { throw damaged(what); }
