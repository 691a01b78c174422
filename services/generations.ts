// Which generation of a group answers and which one is folded, whose events it was folded from, and how another comes in its
// place (design.md section 5).
import { journeys } from '../projections/journeys.ts';
import { persons } from '../projections/persons.ts';
import type { Projection } from '../projections/projection.ts';
import { OperatingError } from './errors.ts';
import type { EventStore, Generation, Position, ViewStore } from './ports.ts';
import { isBefore } from './positions.ts';

/** What this program folds. */
export const PROJECTIONS: Readonly<Record<Projection['group'], Projection>> = { journeys, persons };

/** Whether another version of the program folded it: it answers, and may stand still. */
export function isStale({ group, version }: Pick<Generation, 'group' | 'version'>): boolean {
  return Object.values(PROJECTIONS).some((projection) => projection.group === group && projection.version !== version);
}

/** Null while there is none, or when it was dropped between two looks. */
export async function liveOf(views: ViewStore, group: string): Promise<Generation | null> {
  const live = await views.live(group);
  return live === null ? null : (await views.generations(group)).find(({ id }) => id === live) ?? null;
}

export const FOREIGN_ADVICE = 'give these views their own event store, or these events empty views (another prefix= or database, another folder)';

/** Views say whose events they hold: whoever reads or writes them beside another store would mix two histories. */
export function foreignStore({ group, storeId }: Pick<Generation, 'group' | 'storeId'>, ours: string): OperatingError {
  return new OperatingError('foreignStore', `the views of "${group}" were folded from event store ${storeId}, but this is ${ours}: ${FOREIGN_ADVICE}`);
}

// ---- what is to be folded ----------------------------------------------------------------------------------------------

/**
 * `live`: the one that answers. `build`: another version of the projection made that one, which goes on answering while
 * this one is built. `none`: that one answers, and stays as it is, because a rollback or a newer program put it there.
 */
export interface ToFold { readonly generation: Generation; readonly role: 'live' | 'build' | 'none'; /** The one that was live when this was found. */ readonly live: number }

/**
 * What a program with this projection has to fold. Versions have no order of their own: whether a program is newer than the
 * views, or older, is told by what was live before. If that is a generation of this program's own version, somebody has gone
 * on from it, or back from it, and a program that promoted its own again would take turns with another for ever. Else by
 * which version was seen first: a program that is started once more after a newer one (a machine that was forgotten) would
 * take the views back from all others, which would then stand by. Whoever wants that says so, by a replay.
 */
export async function toFold(views: ViewStore, events: EventStore, projection: Projection, shards: number): Promise<ToFold> {
  const { group, version } = projection;
  // First of all, so that whoever comes later knows that this was before.
  await views.seen(group, version);
  for (;;) {
    const live = await views.live(group);
    const generations = await views.generations(group);
    const current = generations.find(({ id }) => id === live);
    if (current !== undefined && current.storeId !== events.storeId) throw foreignStore(current, events.storeId);
    if (current?.version === version) return { generation: current, role: 'live', live: current.id };
    if (current === undefined) {
      const made = await make(views, events, projection, shards);
      // Two workers may start at once: the pointer moves for one of them, the other takes what is live then and leaves nothing behind.
      if (!(await views.promote(group, live, made.id))) await views.dropGeneration(group, made.id);
      continue;
    }
    const previous = await views.previous(group);
    const ours = generations.filter((one) => one.version === version && one.storeId === events.storeId);
    // Asked again: the version of what is live now may have come after the first time.
    const seen = await views.seen(group, version);
    const isOlder = seen.indexOf(version) < seen.indexOf(current.version);
    if (isOlder || ours.some(({ id }) => id === previous)) return { generation: current, role: 'none', live: current.id };
    const begun = ours.find(({ id }) => id > current.id);
    if (begun !== undefined) return { generation: begun, role: 'build', live: current.id };
    const made = await make(views, events, projection, shards);
    // Here too: all who look after they have made theirs see the first one, and take it.
    const first = (await views.generations(group)).find((one) => one.version === version && one.storeId === events.storeId && one.id > current.id);
    if (first !== undefined && first.id !== made.id) await views.dropGeneration(group, made.id);
  }
}

/** Readable once it has reached `target`: where nothing else is said, what stands in the log now. */
export async function make(views: ViewStore, events: EventStore, { group, version, fields, subFields, ordered, recordSpace }: Projection, shards: number, target?: Position | null): Promise<Generation> {
  return views.createGeneration({ group, version, shards, storeId: events.storeId, target: target === undefined ? await events.head() : target, fields, subFields, ordered, ...(recordSpace === undefined ? {} : { recordSpace }) });
}

// ---- promotion -----------------------------------------------------------------------------------------------------------

export async function positionsOf(views: ViewStore, { group, id, shards }: Generation): Promise<readonly (Position | null)[]> {
  const positions: (Position | null)[] = [];
  for (let shard = 0; shard < shards; shard += 1) positions.push(await (await views.view(group, id, shard)).position());
  return positions;
}

/** Bytes that it takes, as far as its store can tell. */
export async function sizeOf(views: ViewStore, { group, id, shards }: Generation): Promise<number> {
  let size = 0;
  for (let shard = 0; shard < shards; shard += 1) size += (await (await views.view(group, id, shard)).stats()).bytes;
  return size;
}

/** Whether no reader goes back in time when `next` takes the place of what is live; shards that are cut alike are compared each with its own. */
async function hasPassed(views: ViewStore, next: Generation, live: Generation): Promise<boolean> {
  const [theirs, ours] = [await positionsOf(views, live), await positionsOf(views, next)];
  if (!ours.every((position) => !isBefore(position, next.target))) return false;
  return next.shards === live.shards ? ours.every((position, shard) => !isBefore(position, theirs[shard] ?? null)) : ours.every((position) => theirs.every((wanted) => !isBefore(position, wanted)));
}

/**
 * Promotes a generation of another version once it stands where the live one stands; false while it does not. Nothing is
 * compared: it is meant to differ. The hold keeps the live one from moving on between the look and the flip (programs of
 * the old version may still fold it).
 */
export async function promoteOver(views: ViewStore, live: Generation, next: Generation): Promise<boolean> {
  if (!(await hasPassed(views, next, live))) return false;
  const hold = await views.hold(live.group);
  if (hold === null) return false;
  try {
    return hold.generation === live.id && await hasPassed(views, next, live) && await views.promote(live.group, live.id, next.id, hold);
  } finally {
    await hold.release();
  }
}

/** Drops what neither answers, nor did before, nor is being built. */
export async function sweep(views: ViewStore, group: string): Promise<void> {
  const [live, previous] = [await views.live(group), await views.previous(group)];
  if (live === null) return;
  for (const { id } of await views.generations(group)) if (id < live && id !== previous) await views.dropGeneration(group, id);
}
