// One shard of one generation in Redis: commits, large ones in two steps, and what readers ask.
//
// A commit is one script call: it checks role, hold and position, writes, and moves the position last. Only a commit to a
// view that nobody reads yet may be larger than a call should take: it is written beside the view first, in chunks of
// operations, and sealed by one small call, from which it stands whatever crashes; then chunk after chunk is applied, each
// in a call of its own that takes its chunk away, and the last one moves the position. What is left of a sealed stage is
// finished by whoever comes next; one that was never sealed has an expiry and goes by itself.
//
// Every write can be sent twice: the driver does so with what was on its way when a connection broke. A commit finds its
// own lineage and number then and answers as it did; a seal its stage; a chunk that another one is next.
import { OperatingError } from '../errors.ts';
import type { Commit, CommitResult, CommitSize, Generation, Position, RandomBytes, SearchQuery, SearchResult, View, Walked } from '../ports.ts';
import { checkCommit, checkQuery, EMPTY_DIGEST, scanEnd } from './postings.ts';
import { type Head, IndexReader, IndexWriter, type Plan, type Reply, type Shard, SPACE_WIDTH, type Standing, type ViewWork } from './redis-index.ts';
import { damaged, TermIds } from './redis-pack.ts';
import { APPLY_CHUNK, COMMIT, ENLIVEN, LOAD, MEASURE_SLICE, SCAN_SPACE, type Script, SEAL, WALK_SLICE } from './redis-scripts.ts';

/**
 * Measured on two cores shared with the client (Redis 7.0, the bench's traffic): 136 changes, which is 32 journeys with
 * their documents, took 1.1 ms a call. So this takes 2 ms, and 5 ms hold on a machine half as fast.
 */
export const COMMIT_MAX: CommitSize = { changes: 250, bytes: 192 * 1024 };
/** Tries of a commit that finds something to be done first: a stage to finish, a role to be taken up, memory that is too old. */
const COMMIT_ATTEMPTS = 5;
/** Chunks of a stage on their way at once, being written and being applied. */
const CHUNKS_WRITTEN = 8;
const CHUNKS_APPLIED = 4;
/** Longer than any writer takes from the first chunk to the seal. */
const STAGE_EXPIRY_S = 600;
/** Postings and columns kept decoded, per view and process. */
const CACHE_BYTES = 32 * 1024 * 1024;
/** Keys of an ordered space in one call. */
const SCAN_KEYS = 1_000;
/** Memory is measured on so many keys a call: on all of a small view, on a sample of a large one, which is 3 % off (a keyspace is walked in the order of hashes). */
const MEASURE_KEYS = 500;
const WALKED_KEYS = 500;
const MEASURED_KEYS = 20_000;
const LOOKED_AT_KEYS = 100_000;

/** A connection, as the view uses it. Replies are bytes; faults are operating errors. */
export interface Link {
  run(script: Script, keys: readonly string[], args: readonly (string | number | Buffer)[]): Promise<Reply>;
  call(command: string, args: readonly (string | number | Buffer)[]): Promise<Reply>;
}

export interface ViewPlace {
  readonly generation: Generation;
  readonly shard: number;
  /** Hash tag of its keys, with braces. */
  readonly tag: string;
  readonly cluster: boolean;
  /** Reads fail at once when Redis is away; writes wait a little for it. */
  readonly reading: Link;
  readonly writing: Link;
  readonly live: () => Promise<number | null>;
  /** A new epoch, if this generation is the live one; else 0. */
  readonly claim: () => Promise<number>;
  readonly random: RandomBytes;
  readonly cacheBytes?: number;
}

interface State extends Head { readonly digest: string; readonly documents: number; readonly records: number; readonly segments: number }
const HEAD_FIELDS = ['role', 'pos', 'lin', 'n', 'stage', 'torn', 'ents'] as const;
const STATE_FIELDS = [...HEAD_FIELDS, 'dig', 'docs', 'recs', 'segs'] as const;

/** What the writer's memory is built on: the last commit that it read or made. `own`: it made it. */
interface Base extends Standing { readonly position: Position | null; readonly lineage: string; readonly own: boolean }

export class RedisView implements View {
  readonly generation: Generation;
  readonly shard: number;
  readonly commitMax = COMMIT_MAX;
  readonly work: ViewWork = { commits: 0, stages: 0, chunks: 0, largestChunk: 0, postingsRead: 0, postingsWritten: 0, rowsRead: 0, rowsWritten: 0, cacheHits: 0, tornReads: 0 };
  readonly #place: ViewPlace;
  readonly #state: string;
  readonly #keys: Shard;
  readonly #reader: IndexReader;
  readonly #writer: IndexWriter;
  #base: Base | null = null;
  /** Commits wait for each other. */
  #committing: Promise<unknown> = Promise.resolve();
  #settling: Promise<void> | null = null;
  /** The stage that this view sealed and is applying: its documents stand already. */
  #sealed: { readonly stage: string; readonly documents: Commit['documents'] } | null = null;

  constructor(place: ViewPlace) {
    this.generation = place.generation;
    this.shard = place.shard;
    this.#place = place;
    this.#state = `${place.tag}s`;
    this.#keys = {
      tag: place.tag,
      read: (script, args, keys = []) => this.#read(script, args, keys),
      hmget: async (key, fields) => await place.reading.call('HMGET', [key, ...fields]) as readonly (Buffer | null)[],
      documents: (keys) => this.#documents(keys),
      settle: () => this.#settle(),
    };
    const ids = new TermIds();
    this.#reader = new IndexReader(this.#keys, place.generation, ids, place.cacheBytes ?? CACHE_BYTES, this.work);
    this.#writer = new IndexWriter(this.#keys, place.generation, ids, this.work);
  }

  async position(): Promise<Position | null> {
    return (await this.#settledState()).position;
  }

  async digest(): Promise<string> {
    return (await this.#settledState()).digest;
  }

  async load(keys: readonly string[]): Promise<readonly (string | null)[]> {
    if (keys.length === 0) return [];
    const names = keys.map((key) => `${this.#place.tag}d${key}`);
    for (;;) {
      const { head, rest } = await this.#read(LOAD, [], names);
      const found = rest as readonly (Buffer | null)[];
      if (head.stage === null) return found.map(readText);
      // Its own stage says what the documents in it are, and leaves the others alone: a fold need not wait for Redis to
      // apply what it has just committed. Should somebody else commit meanwhile, its next commit finds that out.
      const sealed = this.#sealed;
      if (sealed?.stage === head.stage) return keys.map((key, i) => sealed.documents.has(key) ? sealed.documents.get(key) ?? null : readText(found[i] ?? null));
      await this.#settle();
    }
  }

  /** The keys of the server are walked, those of other views too: at most so many of them a call. */
  async walk(from: string | null, limit: number): Promise<Walked> {
    const prefix = `${this.#place.tag}d`;
    for (let cursor = from ?? '0';;) {
      const { head, rest: [next, ...found] } = await this.#read(WALK_SLICE, [cursor, prefix, Math.min(limit, WALKED_KEYS)], []);
      if (head.stage !== null) {
        await this.#settle();
        continue;
      }
      cursor = String(next);
      const texts = (found as readonly Buffer[]).map(String);
      const documents = Array.from({ length: texts.length / 2 }, (_, i) => ({ key: texts[2 * i]!, value: texts[2 * i + 1]! }));
      if (documents.length > 0 || cursor === '0') return { documents, next: cursor === '0' ? null : cursor };
    }
  }

  /**
   * A slice of the server's keys from a random place in its table, which is in the order of hashes. A node of a Cluster has
   * a table for each slot, and a random cursor finds mostly the beginning of one.
   */
  async draw(chance: () => number): Promise<readonly string[]> {
    if (this.#place.cluster) return [];
    for (;;) {
      const { head, rest: [, ...found] } = await this.#read(WALK_SLICE, [Math.floor(chance() * 2 ** 48), `${this.#place.tag}d`, WALKED_KEYS], []);
      if (head.stage === null) return (found as readonly Buffer[]).filter((_, i) => i % 2 === 0).map(String);
      await this.#settle();
    }
  }

  async scan(from: string, to: string, limit: number): Promise<readonly { readonly key: string; readonly value: string }[]> {
    const end = scanEnd(this.generation, from, to);
    const space = from.split('/', 2).join('/');
    if (from >= end) return [];
    const rows: { readonly key: string; readonly value: string }[] = [];
    const last = end.startsWith(`${space}/`) ? end.slice(space.length + 1) : '';
    for (let first = from.slice(space.length + 1); rows.length < limit;) {
      const count = Math.min(SCAN_KEYS, limit - rows.length);
      const { head, rest: [names, values] } = await this.#read(SCAN_SPACE, [space, first, last, SPACE_WIDTH, count], []);
      if (head.stage !== null) {
        await this.#settle();
        continue;
      }
      const found = names as readonly Buffer[];
      found.forEach((name, i) => {
        const value = readText((values as readonly (Buffer | null)[])[i] ?? null);
        if (value !== null) rows.push({ key: `${space}/${name.toString('latin1')}`, value });
      });
      if (found.length < count) break;
      // The next key in the order of bytes.
      first = `${found.at(-1)!.toString('latin1')}\0`;
    }
    return rows;
  }

  async search(query: SearchQuery, documentSpace: string): Promise<SearchResult> {
    checkQuery(this.generation, query);
    return this.#reader.search(query, documentSpace);
  }

  async stats(): Promise<{ readonly documents: number; readonly records: number; readonly bytes: number }> {
    const { documents, records } = await this.#settledState();
    return { documents, records, bytes: await this.#measure() };
  }

  async commit(commit: Commit): Promise<CommitResult> {
    checkCommit(this.generation, commit);
    const result = this.#committing.then(() => this.#commit(commit));
    this.#committing = result.catch(() => undefined);
    return result;
  }

  /** Until what is under way has ended. */
  async close(): Promise<void> {
    await this.#committing;
    await this.#settling?.catch(() => undefined);
  }

  // -- commits

  async #commit(commit: Commit): Promise<CommitResult> {
    for (let attempt = 1; attempt <= COMMIT_ATTEMPTS; attempt += 1) {
      const result = await this.#try(commit);
      if (result !== 'again') return result;
    }
    throw new OperatingError('storeBusy', `a commit to ${this.#name()} found something else to be done first ${COMMIT_ATTEMPTS} times running`);
  }

  async #try(commit: Commit): Promise<CommitResult | 'again'> {
    // Whatever goes wrong from here, what the writer keeps may be ahead of what is stored.
    let stands = false;
    try {
      if (this.#settling !== null) await this.#settling;
      const base = await this.#baseFor(commit);
      if (base === null) return await this.#moved(null);
      if (base.position !== commit.expected) return await this.#moved(base.position);
      const plan = await this.#writer.plan(commit, base);
      const { target } = this.generation;
      const next = this.#next(commit, plan, base);
      const isUnread = commit.role === 'build' || (target !== null && commit.position < target);
      const [status, position] = plan.chunks.length > 1 && isUnread
        ? await this.#stage(commit, plan, base, next) : await this.#write(commit, plan, base, next);
      stands = status === 'committed';
      if (stands) {
        this.#base = next;
        this.work.commits += 1;
      }
      return await this.#answer(status, position, commit);
    } finally {
      if (!stands) this.#forget();
    }
  }

  async #answer(status: string, position: Position | null, commit: Commit): Promise<CommitResult | 'again'> {
    switch (status) {
      case 'committed': return { kind: 'committed' };
      case 'held': return { kind: 'held' };
      case 'moved': case 'gone': return this.#moved(position);
      case 'role': return await this.#enliven(commit.role) ? 'again' : this.#moved(position);
      case 'stage': await this.#settle(); return 'again';
      case 'stale': case 'incomplete': return 'again';
      default: throw damaged('a commit to it broke off half-way');
    }
  }

  /** Where the view stands as far as this writer knows; read when it knows nothing, or something else than the caller. */
  async #baseFor(commit: Commit): Promise<Base | null> {
    if (this.#base !== null && this.#base.position === commit.expected) return this.#base;
    this.#forget();
    const state = await this.#settledState().catch((fault: unknown) => {
      if (fault instanceof Emptied) return null;
      throw fault;
    });
    if (state === null) return null;
    const { position, lineage, number, records, segments, entries } = state;
    this.#base = { position, lineage, number, records, segments, entries, own: false };
    return this.#base;
  }

  #next(commit: Commit, plan: Plan, base: Base): Base {
    return {
      position: commit.position, number: base.number + 1, records: plan.records, segments: plan.segments, entries: plan.entries, own: true,
      lineage: base.own ? base.lineage : Buffer.from(this.#place.random(9)).toString('base64url'),
    };
  }

  #arguments(commit: Commit, base: Base, next: Base): (string | number)[] {
    return [commit.role, commit.expected ?? '', base.lineage, base.number, next.lineage, next.number, commit.position, commit.digest, next.records, next.segments, next.entries];
  }

  async #write(commit: Commit, plan: Plan, base: Base, next: Base): Promise<readonly [status: string, position: Position | null]> {
    this.#count(plan);
    return readStatus(await this.#place.writing.run(COMMIT, [this.#state], [...this.#arguments(commit, base, next), ...plan.chunks]));
  }

  async #stage(commit: Commit, plan: Plan, base: Base, next: Base): Promise<readonly [status: string, position: Position | null]> {
    const { tag, random, writing } = this.#place;
    const stage = Buffer.from(random(9)).toString('base64url');
    const { chunks } = plan;
    this.#count(plan);
    for (let start = 0; start < chunks.length; start += CHUNKS_WRITTEN) {
      await Promise.all(chunks.slice(start, start + CHUNKS_WRITTEN).map((chunk, i) => writing.call('SET', [`${tag}g${stage}.${start + i}`, chunk, 'EX', STAGE_EXPIRY_S])));
    }
    const [status, position] = readStatus(await writing.run(SEAL, [this.#state], [...this.#arguments(commit, base, next), stage, chunks.length]));
    if (status !== 'sealed') return [status, position];
    this.work.stages += 1;
    this.#sealed = { stage, documents: commit.documents };
    // It stands: the caller goes on folding while Redis applies it. Should that fail, whoever comes next takes it up.
    this.#settle().catch(() => undefined);
    return ['committed', commit.position];
  }

  #count({ chunks }: Plan): void {
    this.work.chunks += chunks.length;
    for (const { length } of chunks) this.work.largestChunk = Math.max(this.work.largestChunk, length);
  }

  /** The pointer says that this generation is live, and the shard does not know it yet: whoever promoted it was cut off. */
  async #enliven(role: Commit['role']): Promise<boolean> {
    if (role !== 'live') return false;
    const epoch = await this.#place.claim();
    if (epoch === 0) return false;
    return await this.#place.writing.run(ENLIVEN, [this.#state], [epoch]) === 1;
  }

  async #moved(position: Position | null): Promise<CommitResult> {
    return { kind: 'moved', position, live: await this.#place.live() };
  }

  #forget(): void {
    this.#base = null;
    this.#writer.forget();
  }

  /** Finishes a sealed stage, this view's own or one that was left. Once at a time. */
  #settle(): Promise<void> {
    this.#settling ??= this.#applyStage().finally(() => { this.#settling = null; });
    return this.#settling;
  }

  async #applyStage(): Promise<void> {
    const { tag, writing } = this.#place;
    const [stage] = await writing.call('HMGET', [this.#state, 'stage']) as readonly (Buffer | null)[];
    if (stage == null) return;
    const [done, count] = (await writing.call('HMGET', [`${tag}p`, 'done', 'count']) as readonly (Buffer | null)[]).map(Number);
    for (let next = done!; next >= 0 && next < count!;) {
      const calls = Array.from({ length: Math.min(CHUNKS_APPLIED, count! - next) }, (_, i) => writing.run(APPLY_CHUNK, [this.#state], [stage, next + i]));
      const answers = await Promise.all(calls) as readonly number[];
      if (answers.includes(-2)) throw damaged('a large commit to it broke off half-way');
      next = answers.at(-1)!;
    }
    if (this.#sealed?.stage === stage.toString()) this.#sealed = null;
  }

  // -- reading

  async #read(script: Script, args: readonly (string | number | Buffer)[], keys: readonly string[]): Promise<{ readonly head: Head; readonly rest: readonly Reply[] }> {
    const [head, ...rest] = await this.#place.reading.run(script, [this.#state, ...keys], args) as readonly Reply[];
    return { head: this.#head(head as readonly (Buffer | null)[]), rest };
  }

  /** Both on their way at once, on one connection to the one node that has them: carried out in this order. */
  async #documents(keys: readonly string[]): Promise<{ readonly head: Head; readonly found: readonly (string | null)[] }> {
    const { reading, tag } = this.#place;
    const [found, head] = await Promise.all([reading.call('MGET', keys.map((key) => `${tag}d${key}`)), reading.call('HMGET', [this.#state, ...HEAD_FIELDS])]);
    return { head: this.#head(head as readonly (Buffer | null)[]), found: (found as readonly (Buffer | null)[]).map(readText) };
  }

  async #settledState(): Promise<State> {
    for (;;) {
      const found = await this.#place.reading.call('HMGET', [this.#state, ...STATE_FIELDS]) as readonly (Buffer | null)[];
      const head = this.#head(found);
      const [digest, documents, records, segments] = found.slice(HEAD_FIELDS.length).map((value) => value?.toString() ?? null);
      if (head.stage === null) return { ...head, digest: digest ?? EMPTY_DIGEST, documents: Number(documents), records: Number(records), segments: Number(segments) };
      await this.#settle();
    }
  }

  #head(found: readonly (Buffer | null)[]): Head {
    const [role, position, lineage, number, stage, torn, entries] = found.slice(0, HEAD_FIELDS.length).map((value) => value?.toString() ?? null);
    if (role == null) throw new Emptied(this.#name());
    if (torn != null) throw damaged('a commit to it broke off half-way');
    // Nobody finishes a commit to what was dropped: it stays as it was until it goes.
    return { role: role as Head['role'], position: (position ?? null) as Position | null, lineage: lineage ?? '', number: Number(number), stage: role === 'gone' ? null : stage ?? null, entries: Number(entries) };
  }

  /** Memory of all its keys, with what Redis needs for each; of a sample, where there are many. */
  async #measure(): Promise<number> {
    let [cursor, looked, ours, bytes, all] = ['0', 0, 0, 0, 0];
    do {
      const [next, count, found, size, keys] = await this.#place.reading.run(MEASURE_SLICE, [this.#state], [cursor, this.#place.tag, MEASURE_KEYS]) as [Buffer, number, number, number, number];
      [cursor, looked, ours, bytes, all] = [next.toString(), looked + count, ours + found, bytes + size, keys];
    } while (cursor !== '0' && ours < MEASURED_KEYS && looked < LOOKED_AT_KEYS);
    return cursor === '0' ? bytes : Math.round(bytes / looked * all);
  }

  #name(): string {
    return `shard ${this.shard} of generation ${this.generation.id} of ${this.generation.group}`;
  }
}

/** The shard is not there: dropped some time ago, or Redis was emptied. Opening the view again finds what there is now. */
class Emptied extends OperatingError {
  constructor(name: string) {
    super('storeUnavailable', `${name} is not there any more: it was dropped, or Redis was emptied`);
  }
}

function readText(bytes: Buffer | null): string | null {
  return bytes === null ? null : bytes.toString('utf8');
}

function readStatus(reply: Reply): readonly [status: string, position: Position | null] {
  const [status, position] = (reply as readonly Buffer[]).map(String);
  return [status ?? '', position === undefined || position === '' ? null : position as Position];
}
