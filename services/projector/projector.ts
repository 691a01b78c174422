// The projector: one subscription for all groups and shards that this worker folds, from the lowest of their positions;
// each target skips what it has. A supervisor takes the subscription up again from the positions in the views, since the
// views alone say what was folded.
import type { Projection } from '../../projections/projection.ts';
import type { WorkspaceKeys } from '../../schemas/identity.ts';
import { workspaceOfStream } from '../../schemas/identity.ts';
import { readRecorded } from '../../schemas/recorded.ts';
import { interpret } from '../../schemas/vocabularies/index.ts';
import { OperatingError } from '../errors.ts';
import type { Clock, EventStore, Generation, Position, RecordedEvent, ViewStore } from '../ports.ts';
import { type Arrival, Target } from './target.ts';

export const PREFIXES = ['identity.', 'decisions.', 'erasures.', 'workspace-'] as const;
/** Events a batch: a projector that is behind writes each journey once per batch; one that is not is handed what there is. */
const BATCH_MAX = 500;
/** JSON text of the documents that all groups together keep at hand (as objects they take about three times as much); what is not there is read again. */
const CACHE_BYTES_MAX = 8 * 1024 * 1024;
const HELD_WAIT_MS = 20;
const BACKOFF_MS = [50, 100, 250, 500, 1000, 2000, 5000] as const;
/** An idle view's position is moved along this often. */
const IDLE_COMMIT_MS = 2000;
/** A batch that took a throw this many times in a row with no commit between is no passing fault. */
const ATTEMPTS_MAX = 12;

export interface GroupProgress {
  readonly group: string;
  readonly generation: number;
  readonly position: Position | null;
  readonly caughtUp: boolean;
  readonly events: number;
  readonly commits: number;
  readonly documents: number;
}

export interface ProjectorOptions {
  readonly events: EventStore;
  readonly views: ViewStore;
  readonly projections: readonly Projection[];
  readonly keysOf: (workspace: string) => Promise<WorkspaceKeys>;
  readonly clock: Clock;
  readonly wait: (ms: number, signal: AbortSignal) => Promise<void>;
  readonly signal: AbortSignal;
  readonly onProgress: (groups: readonly GroupProgress[]) => void;
  readonly onFault: (fault: unknown, attempt: number) => void;
}

/** The live generation of a group, made when there is none or when its projection has changed since. A view of another store is refused. */
export async function liveGeneration(views: ViewStore, events: EventStore, projection: Projection): Promise<Generation> {
  const live = await views.live(projection.group);
  const current = (await views.generations(projection.group)).find((generation) => generation.id === live);
  if (current !== undefined && current.storeId !== events.storeId) {
    throw new OperatingError('foreignStore', `the views of "${projection.group}" were folded from event store ${current.storeId}, but this is ${events.storeId}: give these views their own store, or empty views`);
  }
  if (current?.version === projection.version) return current;
  const made = await views.createGeneration({
    group: projection.group, version: projection.version, shards: 1, storeId: events.storeId, target: await events.head(),
    fields: projection.fields, subFields: projection.subFields, ordered: projection.ordered,
  });
  // Two workers may start at once: the pointer moves for one of them, the other takes what is live then.
  if (await views.promote(projection.group, live, made.id)) return made;
  return liveGeneration(views, events, projection);
}

/** Runs until the signal aborts. Passing faults are retried from the positions in the views, with a bounded back-off; others throw. */
export async function runProjector(options: ProjectorOptions): Promise<void> {
  let attempt = 0;
  while (!options.signal.aborted) {
    try {
      await follow(options, () => { attempt = 0; });
    } catch (fault) {
      if (isAborted(options.signal)) return;
      if (!(fault instanceof OperatingError) || !fault.retriable || attempt >= ATTEMPTS_MAX) throw fault;
      options.onFault(fault, attempt);
      await options.wait(BACKOFF_MS[Math.min(attempt, BACKOFF_MS.length - 1)] ?? 5000, options.signal);
      attempt += 1;
    }
  }
}

function isAborted(signal: AbortSignal): boolean { return signal.aborted; }

/** One life of the subscription. Returns when it ends, or when another generation became live. */
async function follow(options: ProjectorOptions, onCommit: () => void): Promise<void> {
  const targets = await openTargets(options);
  const after = targets.map((target) => target.position).reduce((low, position) => (low === null || position === null ? null : low < position ? low : position));
  let lastCommitMs = options.clock.now();
  for await (const batch of options.events.subscribe({ after, prefixes: PREFIXES, maxBatch: BATCH_MAX, signal: options.signal })) {
    const nowMs = options.clock.now();
    if (batch.events.length > 0 || nowMs - lastCommitMs >= IDLE_COMMIT_MS) {
      const arrivals = batch.events.flatMap(read);
      for (const target of targets) if (!(await commitStep(target, arrivals, batch.position, options))) return;
      lastCommitMs = nowMs;
      onCommit();
    }
    options.onProgress(targets.map((target) => progressOf(target, batch.caughtUp)));
  }
  if (!options.signal.aborted) throw new OperatingError('storeUnavailable', 'the subscription ended by itself');
}

async function openTargets(options: ProjectorOptions): Promise<Target[]> {
  const targets: Target[] = [];
  for (const projection of options.projections) {
    const generation = await liveGeneration(options.views, options.events, projection);
    const view = await options.views.view(projection.group, generation.id, 0);
    const target = new Target({ projection, view, role: 'live', cacheBytesMax: CACHE_BYTES_MAX / options.projections.length });
    await target.resume();
    targets.push(target);
  }
  return targets;
}

/** False when the targets must be opened anew. */
async function commitStep(target: Target, arrivals: readonly Arrival[], position: Position, options: ProjectorOptions): Promise<boolean> {
  for (;;) {
    const result = await target.step(arrivals, position, options.keysOf);
    switch (result.kind) {
      case 'committed': return true;
      case 'moved': return false;
      case 'held':
        await options.wait(HELD_WAIT_MS, options.signal);
        if (options.signal.aborted) return false;
    }
  }
}

/** Interprets an event of an identity; the other categories are folded by groups to come. */
export function read(event: RecordedEvent): Arrival[] {
  if (!event.stream.startsWith('identity.')) return [];
  const workspace = workspaceOfStream(event.stream);
  if (workspace === null) return [];
  const { interpreted } = interpret(readRecorded(event));
  return [{ position: event.position, workspace, interpreted }];
}

function progressOf(target: Target, caughtUp: boolean): GroupProgress {
  return {
    group: target.projection.group, generation: target.view.generation.id, position: target.position, caughtUp,
    events: target.work.events, commits: target.work.commits, documents: target.work.documents,
  };
}
