// What tests of folding stand on: workspaces, a day's events in a log, stores to fold into, a fresh fold to compare with.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { journeys } from '../../projections/journeys.ts';
import { persons } from '../../projections/persons.ts';
import type { Projection } from '../../projections/projection.ts';
import type { CloudEvent } from '../../schemas/cloudevent.ts';
import { isWorkspaceId, workspaceKeys, type WorkspaceKeys } from '../../schemas/identity.ts';
import { parseInstant } from '../../schemas/time.ts';
import { MemoryEventStore } from '../../services/adapters/memory-events.ts';
import { MemoryViewStore } from '../../services/adapters/memory-views.ts';
import { openSqliteViewStore } from '../../services/adapters/sqlite-views.ts';
import { Door } from '../../services/door.ts';
import type { EventStore, Position, View, ViewStore } from '../../services/ports.ts';
import { type GroupProgress, type ProjectorOptions, read, runProjector } from '../../services/projector/projector.ts';
import { type Arrival, CacheRoom, Target } from '../../services/projector/target.ts';
import { second } from './facts.ts';
import { seeded } from './seeded.ts';

export const PROJECTIONS = [journeys, persons] as const;
export const keysOf = async (workspace: string): Promise<WorkspaceKeys> => keysFor(workspace);
export const position = (place: number): Position => String(place).padStart(20, '0') as Position;

export const MANY = ['acme', 'rival', 'w1', 'w2', 'w3', 'w4', 'w5'] as const;
const KEYS = MANY.map((name) => {
  if (!isWorkspaceId(name)) throw new Error('not a workspace');
  return workspaceKeys(name, new Uint8Array(32).fill(9));
});

export function keysFor(workspace: string): WorkspaceKeys {
  const keys = KEYS.find(({ id }) => id === workspace);
  if (keys === undefined) throw new Error(`no workspace ${workspace}`);
  return keys;
}

export interface Opened { readonly views: ViewStore; /** The same views through another connection, as another process has them. */ readonly again: () => Promise<ViewStore>; readonly dispose: () => Promise<void> }

export const ADAPTERS: readonly (readonly [name: string, runs: number, open: () => Promise<Opened>])[] = [
  ['memory', 40, async () => {
    const views = new MemoryViewStore();
    return { views, again: async () => views, dispose: async () => undefined };
  }],
  ['SQLite', 6, async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'throughline-projector-'));
    const opened: ViewStore[] = [];
    const again = async (): Promise<ViewStore> => {
      const views = await openSqliteViewStore({ folder });
      opened.push(views);
      return views;
    };
    const dispose = async (): Promise<void> => {
      for (const views of opened) await views.close();
      rmSync(folder, { recursive: true });
    };
    return { views: await again(), again, dispose };
  }],
];

/** A day's events of a few customers, in the order of their arrival: linked calls, late events, merges, two workspaces. */
export async function recorded(seed: number, count: number, workspaces?: readonly string[], store: EventStore = new MemoryEventStore({ storeId: 'store' })): Promise<EventStore> {
  const door = new Door({ store, clock: { now: () => Date.UTC(2026, 2, 3) }, random: (size) => new Uint8Array(size), sleep: async () => undefined, tallies: new MemoryViewStore() });
  const chance = seeded(seed);
  const types = ['started', 'waiting', 'answered', 'held', 'resumed', 'described', 'ended'];
  for (let n = 0; n < count; n += 1) {
    const attributes = {
      specversion: '1.0', id: `${String(seed)}-${String(n)}`, source: 's', type: `org.throughline.interaction.${chance.pick(types)}`, time: String(second(chance.below(5000))), identity: `c${chance.below(6)}@example.com`, identitytype: 'email',
      ...(chance.below(12) === 0 ? { previousidentity: `c${chance.below(6)}@example.com` } : {}),
    };
    const data = { interactionId: `i${chance.below(9)}`, ...(chance.below(9) === 0 ? { linkedTo: `i${chance.below(9)}` } : {}), ...(chance.below(9) === 0 ? { journeyId: `J${chance.below(4)}` } : {}) };
    const decoded: CloudEvent = { id: attributes.id, source: 's', type: attributes.type, time: parseInstant(attributes.time), attributes, dataKind: 'json', data: Buffer.from(JSON.stringify(data)) };
    const workspace = workspaces === undefined ? (chance.below(4) === 0 ? 'rival' : 'acme') : chance.pick(workspaces);
    await door.receive(keysFor(workspace), [{ kind: 'event', event: decoded }]);
  }
  await door.drain();
  return store;
}

/** All that the log holds of some workspaces, folded at once into views of their own. */
export async function freshFold(events: EventStore, holds: (workspace: string) => boolean = () => true): Promise<readonly string[]> {
  const head = await events.head();
  const arrivals: Arrival[] = [];
  const reading = new AbortController();
  for await (const batch of events.subscribe({ after: null, prefixes: [], maxBatch: 10_000, signal: reading.signal })) {
    arrivals.push(...batch.events.flatMap(read).filter(({ workspace }) => holds(workspace)));
    if (batch.caughtUp) reading.abort();
  }
  return Promise.all(PROJECTIONS.map(async (projection) => {
    const target = await targetOf(new MemoryViewStore(), projection);
    await target.step(arrivals, head ?? position(1), keysOf);
    return target.view.digest();
  }));
}

export async function targetOf(views: ViewStore, projection: Projection, cacheBytesMax = 1e7, stepBytesMax?: number): Promise<Target> {
  const { id } = await views.createGeneration({ group: projection.group, version: projection.version, shards: 1, storeId: 'store', target: null, fields: projection.fields, subFields: projection.subFields, ordered: projection.ordered });
  await views.promote(projection.group, null, id);
  return targetOn(await views.view(projection.group, id, 0), projection, cacheBytesMax, stepBytesMax);
}

export async function targetOn(view: View, projection: Projection, cacheBytesMax: number, stepBytesMax?: number): Promise<Target> {
  const target = new Target({ projection, view, role: 'live', cache: new CacheRoom(cacheBytesMax), ...(stepBytesMax === undefined ? {} : { stepBytesMax }) });
  await target.resume();
  return target;
}

export async function liveView(views: ViewStore, group: string): Promise<View> { return views.view(group, (await views.live(group)) ?? 0, 0); }

export const ROOM = { batchMax: 4096, batchBytesMax: 1e7, cacheBytesMax: 1e7, stepBytesMax: 1e7, foldMax: 4096, lanes: 1 };

/** Runs a projector until every group has folded the whole log; answers what it told on the way. */
export async function project(events: EventStore, views: ViewStore, more: Partial<ProjectorOptions> = {}): Promise<{ readonly faults: readonly unknown[]; readonly told: readonly (readonly GroupProgress[])[] }> {
  const head = await events.head();
  const stop = new AbortController();
  const faults: unknown[] = [];
  const told: (readonly GroupProgress[])[] = [];
  await runProjector({
    events, views, projections: PROJECTIONS, keysOf, shards: 1, owned: 'all', patience: 'bounded', room: ROOM,
    clock: { now: () => 0 }, wait: async () => { await setImmediate(); }, signal: stop.signal,
    onProgress: (groups) => {
      told.push(groups);
      if (groups.length > 0 && groups.every((group) => group.through === head)) stop.abort();
    },
    onFault: (fault) => { faults.push(fault); },
    ...more,
  });
  return { faults, told };
}
