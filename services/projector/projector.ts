// The projector: one subscription for all groups and shards that this worker folds, from the lowest of their positions;
// each target skips what it has. A supervisor takes the subscription up again from the positions in the views, since the
// views alone say what was folded.
import type { Interpreted, Projection } from '../../projections/projection.ts';
import type { WorkspaceKeys } from '../../schemas/identity.ts';
import { workspaceOfStream } from '../../schemas/identity.ts';
import { readRecorded } from '../../schemas/recorded.ts';
import { interpret } from '../../schemas/vocabularies/index.ts';
import { OperatingError } from '../errors.ts';
import { toFold } from '../generations.ts';
import { isAborted } from '../lifecycle.ts';
import type { Clock, EventStore, Position, RecordedEvent, ViewStore } from '../ports.ts';
import { lowestOf } from '../positions.ts';
import { Crew, type Opened, type Slot } from './crew.ts';
import { type Gathered, Intake, Pace, PAGE_MAX, type Pending } from './intake.ts';

export const PREFIXES = ['identity.', 'decisions.', 'erasures.', 'workspace-'] as const;
const HELD_WAIT_MS = 20;
const BACKOFF_MS = [50, 100, 250, 500, 1000, 2000, 5000] as const;
/** A shard to which nothing happens has its position moved along this often, and the live generations are looked at again: an idle shard is this far behind at most. */
const IDLE_COMMIT_MS = 2000;
/** With bounded patience, what took a throw this many times in a row with no commit between (some 35 s) is no passing fault. */
const ATTEMPTS_MAX = 12;
/** How much a projector may hold at a time. */
export interface Room {
  /** Events gathered before they are folded, at most; while they are folded as many more are gathered. */
  readonly batchMax: number;
  /** Bytes of their data and metadata, for events that are larger than most. */
  readonly batchBytesMax: number;
  /** Characters of packed text that all targets together keep from one batch to the next; what is not there is read again. As objects they take some eight times as much. */
  readonly cacheBytesMax: number;
  /** Characters of packed text that one target may read for a batch; past it the batch is cut in two. */
  readonly stepBytesMax: number;
  /**
   * Events of a batch that are folded at a time, those of one identity together; the batch is committed as one. Of a part only
   * its texts and index terms are kept, and what it read and made as objects, some three times as much, dies with it. Smaller
   * parts ask more often for what many journeys share.
   */
  readonly foldMax: number;
  /** Targets that fold and commit at a time: while one waits for its store, another folds. Each may hold a batch's documents. */
  readonly lanes: number;
}

/**
 * Embedded, everything is to share 400 MB (make bench): with 5,000 interactions open at a time `serve` held 398 MB after 400,000
 * events with these figures, some 7 more with 1,024 events folded at a time and 6 MB kept, and some 40 more where all 4,096 of a
 * batch were folded at once; it was no slower. Beside servers the thread has a heap of its own size
 * (thread.ts): with batches of 65,536 the process took 690 MB, and 160 µs of CPU an event where batches of 16,000 took
 * 236, since each interaction, told in ten events among 50,000, is written twice instead of four times.
 */
export const ROOM: Readonly<Record<'embedded' | 'servers' | 'replay', Room>> = {
  embedded: { batchMax: 4096, batchBytesMax: 24 * 1024 * 1024, cacheBytesMax: 4 * 1024 * 1024, stepBytesMax: 16 * 1024 * 1024, foldMax: 768, lanes: 1 },
  servers: { batchMax: 65_536, batchBytesMax: 64 * 1024 * 1024, cacheBytesMax: 24 * 1024 * 1024, stepBytesMax: 48 * 1024 * 1024, foldMax: 4096, lanes: 2 },
  // A process of its own, which ends. With batches of 65,536 it folded no faster and told less often how far it was.
  replay: { batchMax: 16_384, batchBytesMax: 32 * 1024 * 1024, cacheBytesMax: 24 * 1024 * 1024, stepBytesMax: 48 * 1024 * 1024, foldMax: 4096, lanes: 1 },
};
/** Of one shard of the generation that is folded, since this projector took it up. */
export interface ShardProgress {
  readonly shard: number;
  /** Where the view stands. */
  readonly position: Position | null;
  /** Everything up to here that is this shard's stands in the view: past `position` while nothing happens to it. */
  readonly through: Position | null;
  readonly events: number;
  /** Of them, those that a vocabulary knew and could not read. */
  readonly unreadable: number;
  readonly commits: number;
  readonly documents: number;
}

/** Of all shards of a group that are folded here: counts summed, and of the positions the lowest. */
export interface GroupProgress extends Omit<ShardProgress, 'shard'> {
  readonly group: string;
  readonly generation: number;
  /** Whether there was nothing more to fold when this was told. */
  readonly caughtUp: boolean;
  /** The gap of the group, which is the largest of its shards, is counted from the group's `through`. */
  readonly shards: readonly ShardProgress[];
}

export interface ProjectorOptions {
  readonly events: EventStore;
  readonly views: ViewStore;
  readonly projections: readonly Projection[];
  readonly keysOf: (workspace: string) => Promise<WorkspaceKeys>;
  /** Shards of a generation that is made here, and the number of parts among which workers share the folding: the same for all workers on these views. */
  readonly shards: number;
  /** The parts that this worker folds, 0 to `shards` - 1. A generation may have been made with another number: part n folds its shards n, n + `shards`, n + 2 × `shards` …, so that all parts together fold each of them once. */
  readonly owned: readonly number[] | 'all';
  /** Whether a store that stays away ends it: a folder's own files do not come back by themselves, a server does. */
  readonly patience: 'bounded' | 'endless';
  readonly room: Room;
  readonly clock: Clock;
  /** Resolves after so many milliseconds, or when the signal aborts. */
  readonly wait: (ms: number, signal: AbortSignal) => Promise<void>;
  readonly signal: AbortSignal;
  /** Every group of which a shard is folded here. */
  readonly onProgress: (groups: readonly GroupProgress[]) => void;
  readonly onFault: (fault: unknown, attempt: number) => void;
}

/** Runs until the signal aborts. Passing faults are retried from the positions in the views, with a bounded back-off; others throw. */
export async function runProjector(options: ProjectorOptions): Promise<void> {
  const pace = new Pace(options.room);
  // Since the last commit: faults, and times that the views stood elsewhere than this worker believed.
  let attempt = 0;
  let moves = 0;
  const onCommit = (): void => { attempt = moves = 0; };
  while (!options.signal.aborted) {
    try {
      await follow(options, pace, onCommit);
      if (isAborted(options.signal)) return;
      // Somebody else folds here, or the generation is another: what the next life finds is up to date. A second time in a row it can wait.
      if (moves > 0) await options.wait(backOff(moves - 1), options.signal);
      moves += 1;
    } catch (fault) {
      if (isAborted(options.signal)) return;
      if (!isWaitedFor(fault) && (!isPassing(fault) || (options.patience === 'bounded' && attempt >= ATTEMPTS_MAX))) throw fault;
      options.onFault(fault, attempt);
      await options.wait(backOff(attempt), options.signal);
      attempt += 1;
    }
  }
}

/** A generation that is not there any more (views emptied, or set back to an older copy) is made anew by the next life. */
function isPassing(fault: unknown): boolean { return fault instanceof OperatingError && (fault.retriable || fault.code === 'viewMissing'); }
/** A store that takes nothing for now, until somebody makes room: another start would meet the same, and what is folded can be read meanwhile. */
function isWaitedFor(fault: unknown): boolean { return fault instanceof OperatingError && (fault.code === 'storeFull' || fault.code === 'storeReadOnly'); }
/** Milliseconds before the next try, after so many in vain. */
export function backOff(attempt: number): number { return BACKOFF_MS[Math.min(attempt, BACKOFF_MS.length - 1)] ?? 5000; }

/** One life of the subscription. Returns when the signal aborts, when a view stands elsewhere than it should, or when another generation became live. */
async function follow(options: ProjectorOptions, pace: Pace, onCommit: () => void): Promise<void> {
  const crew = await openCrew(options);
  if (crew.slots.length === 0) return standBy(crew, options);
  const after = lowestOf(crew.slots.map((slot) => slot.through));
  const head = await options.events.head();
  options.onProgress(progressOf(crew, head === null || (after !== null && after >= head)));
  const intake = new Intake({ crew, pace, read, wait: options.wait });
  const close = (): void => intake.close();
  options.signal.addEventListener('abort', close);
  if (options.signal.aborted) close();
  const reading = intake.read(options.events.subscribe({ after, prefixes: PREFIXES, maxBatch: PAGE_MAX, signal: intake.signal }));
  try {
    await foldAll(crew, intake, pace, options, onCommit);
  } finally {
    options.signal.removeEventListener('abort', close);
    close();
    await reading;
  }
}

async function openCrew(options: ProjectorOptions): Promise<Crew> {
  const { views, events, projections, owned, shards } = options;
  if (owned !== 'all' && owned.length === 0) return Crew.open(views, [], options);
  const opened: Opened[] = [];
  for (const projection of projections) opened.push({ projection, ...await toFold(views, events, projection, shards) });
  return Crew.open(views, opened, options);
}

/** Nothing to fold, until a generation with more shards becomes live. */
async function standBy(crew: Crew, options: ProjectorOptions): Promise<void> {
  options.onProgress([]);
  while (!options.signal.aborted && await crew.isCurrent()) await options.wait(IDLE_COMMIT_MS, options.signal);
}

/** Until the subscription ends, which is a fault, or it is time for another life. */
async function foldAll(crew: Crew, intake: Intake, pace: Pace, options: ProjectorOptions, onCommit: () => void): Promise<void> {
  const { clock, signal, onProgress } = options;
  let lookedMs = clock.now();
  let caughtUp = false;
  for (;;) {
    const taken = await intake.take(IDLE_COMMIT_MS);
    if (signal.aborted) return;
    if (taken === 'ended') throw new OperatingError('storeUnavailable', 'the subscription ended by itself');
    const now = clock.now();
    if (taken !== 'idle') caughtUp = taken.caughtUp;
    const due = taken === 'idle' ? crew.slots.filter((slot) => isIdle(slot, slot.through, now)).map((slot): Due => ({ slot, pending: null })) : dueSlots(crew, taken, now);
    if (due.length > 0) {
      if (!(await inLanes(due, options.room.lanes, (one) => commitStep(crew, one, taken === 'idle' ? null : taken.position, options)))) return;
      onCommit();
      if (taken !== 'idle') pace.took(taken, clock.now() - now);
    }
    if (taken !== 'idle') crew.through(taken.position);
    if (taken !== 'idle' || due.length > 0) onProgress(progressOf(crew, caughtUp));
    if (clock.now() - lookedMs >= IDLE_COMMIT_MS) {
      if (caughtUp) await crew.promoteBuilt();
      if (!(await crew.isCurrent())) return;
      lookedMs = clock.now();
    }
  }
}

interface Due { readonly slot: Slot; /** Null: nothing but the position. */ readonly pending: Pending | null }

/** Those to which something happened, at once; the others when their turn to be moved along has come. */
function dueSlots(crew: Crew, taken: Pending, now: number): Due[] {
  const touched = crew.touched(taken.workspaces);
  return crew.slots.filter((slot) => touched.has(slot) || isIdle(slot, taken.position, now)).map((slot) => ({ slot, pending: touched.has(slot) ? taken : null }));
}

/** Whether a position that nothing moves is due to be moved along to `through`. */
function isIdle(slot: Slot, through: Position | null, now: number): boolean {
  const { position } = slot.target;
  return through !== null && (position === null || position < through) && now - slot.movedMs >= IDLE_COMMIT_MS;
}

/** False when the targets must be opened anew. `position` null: as far as nothing happened to it. */
async function commitStep(crew: Crew, { slot, pending }: Due, position: Position | null, options: ProjectorOptions): Promise<boolean> {
  const to = position ?? slot.through;
  if (to === null) return true;
  const arrivals = pending === null ? [] : crew.ours(slot, pending.arrivals);
  for (;;) {
    const result = await slot.target.step(arrivals, to, options.keysOf, options.signal);
    switch (result.kind) {
      case 'committed':
        slot.movedMs = options.clock.now();
        return true;
      case 'moved': case 'stopped': return false;
      case 'held':
        await options.wait(HELD_WAIT_MS, options.signal);
        if (options.signal.aborted) return false;
    }
  }
}

/** Each once, so many at a time; false when one answered so, and those not begun are left out then. Waits for all that were begun, so that a life leaves no commit under way behind. */
async function inLanes<T>(items: readonly T[], lanes: number, work: (item: T) => Promise<boolean>): Promise<boolean> {
  let next = 0;
  let whole = true;
  const lane = async (): Promise<void> => {
    for (let item = items[next++]; item !== undefined && whole; item = items[next++]) {
      try {
        if (!(await work(item))) whole = false;
      } catch (fault) {
        whole = false;
        throw fault;
      }
    }
  };
  for (const end of await Promise.allSettled(Array.from({ length: lanes }, lane))) if (end.status === 'rejected') throw end.reason;
  return whole;
}

/** An event as it was read, and interpreted when it is folded. */
class Read implements Gathered {
  readonly position: Position;
  readonly identity: string;
  readonly workspace: string;
  /** As it was recorded, until it is kept interpreted. */
  #held: RecordedEvent | Interpreted;

  constructor(event: RecordedEvent, workspace: string) {
    this.position = event.position;
    this.identity = event.stream;
    this.workspace = workspace;
    this.#held = event;
  }

  get interpreted(): Interpreted { return 'stream' in this.#held ? interpret(readRecorded(this.#held)).interpreted : this.#held; }

  keep(): void { this.#held = this.interpreted; }
}

/** An event of an identity; the other categories are folded by groups to come. */
export function read(event: RecordedEvent): readonly Read[] {
  if (!event.stream.startsWith('identity.')) return [];
  const workspace = workspaceOfStream(event.stream);
  return workspace === null ? [] : [new Read(event, workspace)];
}

function progressOf(crew: Crew, caughtUp: boolean): GroupProgress[] {
  const groups = new Map<string, GroupProgress>();
  for (const { target: { view, work, position }, through } of crew.slots) {
    const { shard, generation: { group, id } } = view;
    const its = { position, through, events: work.events, unreadable: work.unreadable, commits: work.commits, documents: work.documents };
    const one: ShardProgress = { shard, ...its };
    const sum = groups.get(group);
    groups.set(group, sum === undefined ? { ...its, group, generation: id, caughtUp, shards: [one] } : {
      group, generation: id, caughtUp, shards: [...sum.shards, one], position: lowestOf([sum.position, position]), through: lowestOf([sum.through, through]),
      events: sum.events + work.events, unreadable: sum.unreadable + work.unreadable, commits: sum.commits + work.commits, documents: sum.documents + work.documents,
    });
  }
  return [...groups.values()];
}
