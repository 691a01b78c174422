// A replay (design.md section 5, "Promotion"): the next generation of a group is folded beside the live one, compared with
// it at one position of each shard, and takes its place while commits are held; or the generation before comes back.
//
// It never stands further than the live one, so that both can be brought to one position at any time, and no reader goes
// back in time. Whatever stops it leaves a generation that nobody reads, which the next replay takes up where it stands.
import type { Projection } from '../../projections/projection.ts';
import type { WorkspaceKeys } from '../../schemas/identity.ts';
import { OperatingError } from '../errors.ts';
import { foreignStore, liveOf, make, positionsOf, promoteOver, sizeOf, sweep } from '../generations.ts';
import { isAborted } from '../lifecycle.ts';
import { type Clock, type EventStore, type Generation, HOLD_MS, type Position, type ViewStore } from '../ports.ts';
import { highestOf, isBefore, lowestOf, shareOf } from '../positions.ts';
import { Builder, type Built } from './builder.ts';
import { compare, type Compared } from './compare.ts';
import type { Room } from './projector.ts';

export interface ReplayOptions {
  readonly events: EventStore;
  readonly views: ViewStore;
  readonly projection: Projection;
  readonly keysOf: (workspace: string) => Promise<WorkspaceKeys>;
  /** `back`: to the generation before, which catches up if it is of this version and stays as it is if not. */
  readonly to: 'next' | 'back';
  /** Starts over, instead of taking up what an earlier replay left. */
  readonly anew: boolean;
  /** Ends after the comparison. */
  readonly dryRun: boolean;
  /** Promotes one that differs too. */
  readonly accept: boolean;
  /** Events folded a second, at most. */
  readonly rate: number | null;
  readonly room: Room;
  /** This process, unlike any other. */
  readonly holder: string;
  readonly clock: Clock;
  /** Resolves after so many milliseconds, or when the signal aborts. */
  readonly wait: (ms: number, signal: AbortSignal) => Promise<void>;
  readonly signal: AbortSignal;
  readonly onProgress: (progress: ReplayProgress) => void;
}

export type ReplayPhase = 'building' | 'paused' | 'comparing' | 'promoting';
/** `share` of the log as it was when the replay began: 0 to 1. */
export interface ReplayProgress { readonly phase: ReplayPhase; readonly generation: number; readonly events: number; /** Of them, those that a vocabulary knew and could not read. */ readonly unreadable: number; readonly share: number }

export type ReplayResult =
  | { readonly kind: 'promoted'; readonly from: Generation; readonly to: Generation; readonly compared: Compared | null; readonly heldMs: number }
  /** After a dry run. */
  | { readonly kind: 'compared'; readonly live: Generation; readonly built: Generation; readonly compared: Compared }
  /** Not promoted. It stays, for `accept`. */
  | { readonly kind: 'refused'; readonly live: Generation; readonly built: Generation; readonly compared: Compared }
  | { readonly kind: 'stopped' }
  /** Another replay of the group is under way. */
  | { readonly kind: 'busy'; readonly holder: string }
  /** A second generation would not fit: bytes. */
  | { readonly kind: 'noRoom'; readonly needed: number; readonly free: number }
  | { readonly kind: 'nothing'; readonly why: string };

/** A replay that died is another's to go on with after this. */
const LEASE_MS = 15_000;
const RENEW_MS = 4_000;
/** What is folded in less than this is near enough to be held for. */
const NEAR_MS = 400;
/** Of a hold, what may go by before the pointer moves: the rest is for a store that answers late. */
const HELD_MS = HOLD_MS * 0.6;
const ROUNDS_MAX = 50;
/** Somebody else folds what is built here (a worker of this version, after an upgrade): so often it is tried again. */
const MOVED_MAX = 5;
const AGAIN_MS = 100;
/** A generation is as large again as the live one, and a little: its files or its memory are not filled alike. */
const SIZE_FACTOR = 1.1;
/** How often it is looked whether the live generation keeps up. */
const LAG_LOOK_MS = 500;
/** Behind by more than this and falling further, the live generation has the machine to itself. An idle shard's position is 2 s old. */
const LAG_MS = 5_000;
export const replayLease = (group: string): string => `replay/${group}`;

export async function replay(options: ReplayOptions): Promise<ReplayResult> {
  const { views, projection: { group }, holder, wait, clock } = options;
  const name = replayLease(group);
  if (!(await views.lease(name, holder, LEASE_MS))) return { kind: 'busy', holder: (await views.leases(name))[0]?.holder ?? 'another' };
  const over = new AbortController();
  const signal = AbortSignal.any([options.signal, over.signal]);
  const met: { lost: Error | null } = { lost: null };
  const renewing = (async () => {
    for (let renewedMs = clock.now(); !signal.aborted;) {
      await wait(RENEW_MS, signal);
      if (isAborted(signal)) return;
      try {
        if (!(await views.lease(name, holder, LEASE_MS))) met.lost = new OperatingError('storeBusy', `another replay of ${group} took over from this one`);
        renewedMs = clock.now();
      } catch (fault) {
        // The store may be away for a moment.
        if (clock.now() - renewedMs >= LEASE_MS) met.lost = fault instanceof Error ? fault : new Error(String(fault));
      }
      if (met.lost !== null) over.abort();
    }
  })();
  try {
    const result = await new Replay({ ...options, signal }).run();
    if (met.lost !== null) throw met.lost;
    return result;
  } finally {
    over.abort();
    await renewing;
    await views.release(name, holder).catch(() => undefined);
  }
}

/** Leaves what is under way, from wherever it is noticed. */
class Left extends Error {
  readonly why: Exclude<Built, 'there' | 'late'>;

  constructor(why: Exclude<Built, 'there' | 'late'>) {
    super(why);
    this.why = why;
  }
}

class Replay {
  readonly #options: ReplayOptions;
  readonly #group: string;
  #folded = 0;
  #unreadable = 0;
  readonly #startedMs: number;
  /** The head of the log when it began: what is 1 of the way. */
  #head: Position | null = null;
  /** What was live then. */
  #began: Generation | null = null;
  /** When the live generation was looked at last, where it stood, and heads of the log that it had not reached then. */
  #look: { atMs: number; stood: Position | null; lagMs: number; heads: { position: Position; atMs: number }[] };

  constructor(options: ReplayOptions) {
    this.#options = options;
    this.#group = options.projection.group;
    this.#startedMs = options.clock.now();
    this.#look = { atMs: this.#startedMs, stood: null, lagMs: 0, heads: [] };
  }

  async run(): Promise<ReplayResult> {
    for (let moved = 0; ; moved += 1) {
      try {
        return await this.#run();
      } catch (fault) {
        if (fault instanceof Left && fault.why === 'stopped') return { kind: 'stopped' };
        // What is live, or was being built, was dropped by a promotion that came between.
        const isOvertaken = fault instanceof OperatingError && fault.code === 'viewMissing';
        if (!(fault instanceof Left) && !isOvertaken) throw fault;
        if (moved >= MOVED_MAX) return { kind: 'nothing', why: `another program folds the same generation of ${this.#group}, and will promote it: see throughline status` };
        await this.#options.wait(AGAIN_MS * 2 ** moved, this.#options.signal);
      }
    }
  }

  async #run(): Promise<ReplayResult> {
    const { events, views, projection, to } = this.#options;
    const live = await liveOf(views, this.#group);
    if (live === null) return { kind: 'nothing', why: `there is no generation of ${this.#group} yet: start serve or project, which makes the first` };
    if (live.storeId !== events.storeId) throw foreignStore(live, events.storeId);
    this.#began ??= live;
    // An upgrade was promoted while this was built, or somebody went back from it. Whoever asked for a replay asked for neither
    // to be undone: promoted over it, this version would answer, and programs of the other one, which find their own
    // generation before it, would stand by for ever.
    if (live.id !== this.#began.id && (to === 'back' || live.version !== projection.version)) {
      return { kind: 'nothing', why: `generation ${String(live.id)}, of version ${live.version}, was promoted meanwhile, in the place of ${String(this.#began.id)}, of version ${this.#began.version}: see throughline status, then say again what is to answer` };
    }
    this.#head ??= await events.head();
    if (!(await isReadable(views, live))) return { kind: 'nothing', why: `the live generation of ${this.#group} is still being built: see throughline status` };
    if (to === 'back') return this.#goBack(live);
    const built = await this.#begin(live);
    if ('kind' in built) return built;
    return this.#building(live, built, async (builder) => {
      if (await this.#isAhead(live, built)) {
        const why = live.version === built.version ? 'the live one was set back, or is folded by nobody: start serve or project, or replay --anew' : 'serve or project of this version builds it, and promotes it by itself: see throughline status';
        return { kind: 'nothing', why: `generation ${String(built.id)} of ${this.#group} stands further than the live one: ${why}` };
      }
      await this.#catchUp(builder, live, built);
      if (this.#options.dryRun) return { kind: 'compared', live, built, compared: await this.#compare(builder, live, built) };
      return this.#promote(builder, live, built, !this.#options.accept);
    });
  }

  /** What an earlier replay left, or a new one. */
  async #begin(live: Generation): Promise<Generation | Extract<ReplayResult, { kind: 'noRoom' }>> {
    const { events, views, projection, anew } = this.#options;
    const previous = await views.previous(this.#group);
    const left = (await views.generations(this.#group)).filter(({ id, version, storeId, shards, target }) => id > live.id && id !== previous && version === projection.version && storeId === events.storeId && shards === live.shards && (version !== live.version || !isBefore(live.target, target)));
    if (anew) for (const { id } of left) await views.dropGeneration(this.#group, id);
    const [begun] = anew ? [] : left;
    const room = await this.#room(live, begun ?? null);
    if (room !== null) return room;
    // Readable where the live one is: it is promoted where that one stands.
    return begun ?? await make(views, events, projection, live.shards, live.target);
  }

  /** Null where there is enough, or nobody can tell. */
  async #room(live: Generation, begun: Generation | null): Promise<Extract<ReplayResult, { kind: 'noRoom' }> | null> {
    const { views } = this.#options;
    const free = await views.free();
    const size = await sizeOf(views, live) * SIZE_FACTOR - (begun === null ? 0 : await sizeOf(views, begun));
    return free === null || size <= free ? null : { kind: 'noRoom', needed: Math.ceil(size), free };
  }

  async #goBack(live: Generation): Promise<ReplayResult> {
    const { views, projection, dryRun } = this.#options;
    const id = await views.previous(this.#group);
    const before = (await views.generations(this.#group)).find((one) => one.id === id);
    if (before === undefined) return { kind: 'nothing', why: `there is no generation of ${this.#group} before the live one: the next replay or upgrade leaves one` };
    if (before.version !== projection.version) {
      if (dryRun) return { kind: 'nothing', why: `generation ${String(before.id)} is of version ${before.version}, which this program does not fold: it would answer as it is, marked stale` };
      const hold = await this.#hold();
      try {
        if (!(await views.promote(this.#group, live.id, before.id, hold))) throw new Left('moved');
        return { kind: 'promoted', from: live, to: before, compared: null, heldMs: 0 };
      } finally {
        await hold.release();
      }
    }
    if (live.version !== before.version && await this.#isAhead(live, before)) return this.#goForward(live, before);
    return this.#building(live, before, async (builder) => {
      await this.#catchUp(builder, live, before);
      if (dryRun) return { kind: 'compared', live, built: before, compared: await this.#compare(builder, live, before) };
      return this.#promote(builder, live, before, false);
    });
  }

  /** After an upgrade and a rollback: what stands still now, of another version, was passed by the one that comes back, which whoever folds it takes further. */
  async #goForward(live: Generation, before: Generation): Promise<ReplayResult> {
    const { views, clock, dryRun } = this.#options;
    if (dryRun) return { kind: 'nothing', why: `generation ${String(before.id)} is of this version and stands further than the live one, which is not: there is no position at which to compare them` };
    const startedMs = clock.now();
    if (!(await promoteOver(views, live, before))) throw new Left('moved');
    return { kind: 'promoted', from: live, to: before, compared: null, heldMs: clock.now() - startedMs };
  }

  async #building(live: Generation, generation: Generation, work: (builder: Builder) => Promise<ReplayResult>): Promise<ReplayResult> {
    const { events, views, projection, keysOf, room, clock, wait, signal, rate } = this.#options;
    // At a rate, by half a second's worth.
    const paced: Room = rate === null ? room : { ...room, batchMax: Math.min(room.batchMax, Math.max(1, Math.ceil(rate / 2))) };
    const builder = await Builder.open({ events, views, projection, generation, live: live.id, keysOf, room: paced, clock, wait, signal });
    try {
      return await work(builder);
    } finally {
      await builder.close();
    }
  }

  // ---- catching up -------------------------------------------------------------------------------------------------------

  /** To where the live generation stands, again and again, until the way is short. */
  async #catchUp(builder: Builder, live: Generation, built: Generation): Promise<void> {
    const { clock } = this.#options;
    for (let round = 0; round < ROUNDS_MAX; round += 1) {
      const startedMs = clock.now();
      await this.#foldTo(builder, await positionsOf(this.#options.views, live), live, built);
      if (clock.now() - startedMs < NEAR_MS) return;
    }
  }

  /** What stands further than the live one cannot be compared with it. */
  async #isAhead(live: Generation, built: Generation): Promise<boolean> {
    const stand = await positionsOf(this.#options.views, live);
    return this.#isPast(built, stand);
  }

  /** As the views say it: another program may have moved on what is built here. */
  async #isPast(built: Generation, positions: readonly (Position | null)[]): Promise<boolean> {
    return (await positionsOf(this.#options.views, built)).some((position, shard) => isBefore(positions[shard] ?? null, position));
  }

  async #foldTo(builder: Builder, positions: readonly (Position | null)[], live: Generation, built: Generation): Promise<void> {
    const last = highestOf(positions);
    const before = this.#unreadable - builder.unreadable;
    const tell = (phase: ReplayPhase, through: Position | null): void => this.#tell(phase, built, shareOf(through, isBefore(last, this.#head) ? this.#head : last));
    tell('building', lowestOf(builder.positions()));
    const came = await builder.foldTo(positions, async (step) => {
      this.#folded += step.events;
      this.#unreadable = before + builder.unreadable;
      tell('building', step.through);
      await this.#keepToRate();
      await this.#giveWay(live, (phase) => tell(phase, step.through));
    });
    if (came !== 'there' && came !== 'late') throw new Left(came);
    if (await this.#isPast(built, positions)) throw new Left('moved');
  }

  async #keepToRate(): Promise<void> {
    const { rate, clock, wait, signal } = this.#options;
    if (rate === null) return;
    const dueMs = this.#startedMs + (this.#folded / rate) * 1000;
    if (dueMs > clock.now()) await wait(dueMs - clock.now(), signal);
  }

  /** Waits while the live generation falls further behind. One that does not move at all has nobody who folds it, and is in nobody's way. */
  async #giveWay(live: Generation, tell: (phase: ReplayPhase) => void): Promise<void> {
    const { clock, wait, signal } = this.#options;
    if (clock.now() - this.#look.atMs < LAG_LOOK_MS) return;
    while (await this.#fallsBehind(live) && !signal.aborted) {
      tell('paused');
      await wait(LAG_LOOK_MS, signal);
    }
    if (!signal.aborted) tell('building');
  }

  async #fallsBehind(live: Generation): Promise<boolean> {
    const { events, views, clock } = this.#options;
    const before = this.#look;
    const atMs = clock.now();
    const stands = lowestOf(await positionsOf(views, live));
    const head = await events.head();
    const heads = before.heads.filter(({ position }) => isBefore(stands, position));
    const lagMs = heads[0] === undefined ? 0 : atMs - heads[0].atMs;
    if (isBefore(stands, head) && head !== null && heads.at(-1)?.position !== head) heads.push({ position: head, atMs });
    this.#look = { atMs, stood: stands, lagMs, heads };
    return lagMs > LAG_MS && lagMs > before.lagMs && isBefore(before.stood, stands);
  }

  #tell(phase: ReplayPhase, { id }: Generation, share: number): void { this.#options.onProgress({ phase, generation: id, events: this.#folded, unreadable: this.#unreadable, share }); }

  // ---- comparing -----------------------------------------------------------------------------------------------------------

  /** Every document before another takes the place of all: a text that was changed where it lies moved no digest. A rollback is asked for whatever the difference, and is not to wait for it; where nothing comes after the comparison, nothing waits. */
  #compare(builder: Builder, live: Generation, built: Generation): Promise<Compared> {
    const { views, wait, signal, to, dryRun } = this.#options;
    this.#tell('comparing', built, 1);
    return compare({ views, live, builder, wait, signal, everyDocument: to === 'next' || dryRun, foldTo: (positions) => this.#foldTo(builder, positions, live, built) });
  }

  // ---- promotion -----------------------------------------------------------------------------------------------------------

  async #promote(builder: Builder, live: Generation, built: Generation, mustBeEqual: boolean): Promise<ReplayResult> {
    const { views, wait, signal } = this.#options;
    const compared = await this.#compare(builder, live, built);
    if (!compared.equal && mustBeEqual) return { kind: 'refused', live, built, compared };
    for (let round = 0; round < ROUNDS_MAX && !signal.aborted; round += 1) {
      await this.#catchUp(builder, live, built);
      this.#tell('promoting', built, 1);
      const promoted = await this.#promoteHeld(builder, live, built, compared.equal && mustBeEqual);
      if (typeof promoted === 'number') {
        await sweep(views, this.#group);
        return { kind: 'promoted', from: live, to: built, compared, heldMs: promoted };
      }
      // What was equal is not any more: what came since is folded otherwise.
      if (promoted === 'different') return this.#promote(builder, live, built, mustBeEqual);
      await wait(AGAIN_MS, signal);
    }
    if (signal.aborted) throw new Left('stopped');
    throw new OperatingError('storeBusy', `generation ${String(built.id)} of ${this.#group} did not get to the live position within a hold, ${String(ROUNDS_MAX)} times: the load is too high now; the next replay goes on from where this one came`);
  }

  /** How long commits were held, when it is promoted. */
  async #promoteHeld(builder: Builder, live: Generation, built: Generation, mustBeEqual: boolean): Promise<number | 'late' | 'different'> {
    const { views, clock } = this.#options;
    const hold = await this.#hold();
    const startedMs = clock.now();
    try {
      if (hold.generation !== live.id) throw new Left('moved');
      const positions = await positionsOf(views, live);
      const came = await builder.foldTo(positions, undefined, startedMs + HELD_MS);
      if (came === 'late') return 'late';
      if (came !== 'there') throw new Left(came);
      if (await this.#isPast(built, positions)) throw new Left('moved');
      // Made by another, it may be whole only from further on than the live one stands: an idle shard's position moves along soon.
      if (builder.positions().some((position) => isBefore(position, built.target))) return 'late';
      if (mustBeEqual && !(await this.#areEqual(builder, live))) return 'different';
      if (clock.now() - startedMs > HELD_MS) return 'late';
      // The store looks for itself whether the hold still stands.
      if (!(await views.promote(this.#group, live.id, built.id, hold))) return 'late';
      return clock.now() - startedMs;
    } finally {
      await hold.release();
    }
  }

  async #areEqual(builder: Builder, live: Generation): Promise<boolean> {
    for (let shard = 0; shard < live.shards; shard += 1) {
      const theirs = await this.#options.views.view(this.#group, live.id, shard);
      if (await theirs.digest() !== await builder.view(shard).digest()) return false;
    }
    return true;
  }

  /** A commit may be under way, and take long. */
  async #hold() {
    const { views, wait, signal } = this.#options;
    for (let round = 0; round < ROUNDS_MAX * 10 && !signal.aborted; round += 1) {
      const hold = await views.hold(this.#group);
      if (hold !== null) return hold;
      await wait(AGAIN_MS, signal);
    }
    if (signal.aborted) throw new Left('stopped');
    throw new OperatingError('storeBusy', `commits to ${this.#group} could not be held: they take too long now`);
  }
}

async function isReadable(views: ViewStore, generation: Generation): Promise<boolean> {
  return (await positionsOf(views, generation)).every((position) => !isBefore(position, generation.target));
}
