// The shards that one worker folds: which of them an event is for, and how far each has come.
import type { Projection } from '../../projections/projection.ts';
import { promoteOver, sweep, type ToFold } from '../generations.ts';
import type { Clock, Position, ViewStore } from '../ports.ts';
import { shardOf } from '../shards.ts';
import { type Arrival, CacheRoom, Target } from './target.ts';

/** Workspaces whose shards are remembered: some 10 MB, and a hash each to find them again. */
const WORKSPACES_MAX = 50_000;

/** One shard of the generation of a group that is folded. */
export class Slot {
  readonly target: Target;
  /** Everything up to here that is this shard's stands in its view. */
  through: Position | null;
  /** When its position was last moved. */
  movedMs: number;

  constructor(target: Target, nowMs: number) {
    this.target = target;
    this.through = target.position;
    this.movedMs = nowMs;
  }

  get shards(): number { return this.target.view.generation.shards; }

  holds(workspace: string): boolean { return shardOf(workspace, this.shards) === this.target.view.shard; }

  /** Whether commits to it are cut small, because readers see it. */
  get isCut(): boolean {
    const { commitMax, generation: { target } } = this.target.view;
    return this.target.role === 'live' && commitMax !== null && (target === null || (this.through !== null && this.through >= target));
  }
}

export type Opened = ToFold & { readonly projection: Projection };

export class Crew {
  readonly slots: readonly Slot[];
  readonly #views: ViewStore;
  readonly #opened: readonly Opened[];
  readonly #byWorkspace = new Map<string, readonly Slot[]>();

  private constructor(views: ViewStore, opened: readonly Opened[], slots: readonly Slot[]) {
    this.#views = views;
    this.#opened = opened;
    this.slots = slots;
  }

  /** Opens the shards of these generations that are this worker's, and reads where they stand. */
  static async open(views: ViewStore, opened: readonly Opened[], options: { readonly owned: readonly number[] | 'all'; readonly shards: number; readonly room: { readonly cacheBytesMax: number; readonly stepBytesMax: number; readonly foldMax: number }; readonly clock: Clock; readonly indexed?: boolean }): Promise<Crew> {
    const { owned, shards, clock, room, indexed = true } = options;
    const wanted = opened.flatMap(({ projection, generation, role }) => (role === 'none' ? [] : Array.from({ length: generation.shards }, (_, shard) => ({ projection, generation, role, shard }))))
      .filter(({ shard }) => owned === 'all' || owned.includes(shard % shards));
    const slots: Slot[] = [];
    const cache = new CacheRoom(room.cacheBytesMax);
    for (const { projection, generation, role, shard } of wanted) {
      const view = await views.view(projection.group, generation.id, shard);
      const target = new Target({ projection, view, role, indexed, cache, stepBytesMax: room.stepBytesMax, foldMax: room.foldMax });
      await target.resume();
      slots.push(new Slot(target, clock.now()));
    }
    return new Crew(views, opened, slots);
  }

  /** The slots that hold a workspace: one of each group, if it is this worker's. */
  of(workspace: string): readonly Slot[] {
    const known = this.#byWorkspace.get(workspace);
    if (known !== undefined) return known;
    if (this.#byWorkspace.size >= WORKSPACES_MAX) this.#byWorkspace.clear();
    const found = this.slots.filter((slot) => slot.holds(workspace));
    this.#byWorkspace.set(workspace, found);
    return found;
  }

  /** Those of the arrivals that stand in this slot's shard. */
  ours(slot: Slot, arrivals: readonly Arrival[]): readonly Arrival[] {
    return slot.shards === 1 ? arrivals : arrivals.filter(({ workspace }) => this.of(workspace).includes(slot));
  }

  touched(workspaces: Iterable<string>): ReadonlySet<Slot> {
    const touched = new Set<Slot>();
    for (const workspace of workspaces) for (const slot of this.of(workspace)) touched.add(slot);
    return touched;
  }

  /** Whether one of the slots lacks this event. */
  lacks(workspace: string, position: Position): boolean {
    return this.of(workspace).some(({ through }) => through === null || through < position);
  }

  /** All that stands up to here was folded, or is none of theirs. */
  through(position: Position): void {
    for (const slot of this.slots) if (slot.through === null || slot.through < position) slot.through = position;
  }

  /** Whether commits to one of them are cut small. */
  get isCut(): boolean { return this.slots.some((slot) => slot.isCut); }

  /** Whether what was live when it was opened is so still: a shard that is another worker's may have been told first. */
  async isCurrent(): Promise<boolean> {
    for (const { projection: { group }, live } of this.#opened) if ((await this.#views.live(group)) !== live) return false;
    return true;
  }

  /** Lets what it builds answer, where that has caught up with what does. Whichever worker sees it first does it. */
  async promoteBuilt(): Promise<void> {
    for (const { projection: { group }, generation, role, live } of this.#opened) {
      if (role !== 'build') continue;
      const old = (await this.#views.generations(group)).find(({ id }) => id === live);
      if (old !== undefined && await promoteOver(this.#views, old, generation)) await sweep(this.#views, group);
    }
  }
}
