// `throughline status`: where everything stands, read from the folder itself, so that it answers beside a running `serve`
// as well as when nothing runs.
import { statfs } from 'node:fs/promises';
import { readRecorded } from '../../schemas/recorded.ts';
import type { Options } from '../config.ts';
import type { EventStore, Generation, Position, ViewStore } from '../ports.ts';
import { Workspaces } from '../workspaces.ts';
import { openFolder } from './folder.ts';
import { sumRejections } from './inspect.ts';
import { bytes, count, type Io, orExplain, print, printJson, table } from './terminal.ts';

const GROUPS = ['journeys', 'persons'] as const;

export interface GroupStatus {
  readonly group: string;
  /** Null: nothing is live yet. */
  readonly generation: number | null;
  readonly version: string | null;
  /** Every copy there is: the live one, those being built, those kept to go back to. */
  readonly generations: readonly number[];
  readonly position: string | null;
  /** Events behind the head; null where the store cannot say. */
  readonly gap: number | null;
  /** Seconds since the oldest event not folded was recorded; 0 when there is none. */
  readonly lag: number;
  readonly digest: string | null;
  readonly documents: number;
  readonly bytes: number;
}
export interface Status {
  readonly store: string;
  readonly head: string | null;
  readonly events: number;
  readonly streams: number;
  readonly groups: readonly GroupStatus[];
  readonly workspaces: readonly { readonly id: string; readonly name: string; readonly keys: number; readonly recorded: number; readonly duplicates: number; readonly reusedIds: number; readonly rejected: Readonly<Record<string, number>> }[];
  readonly disk: { readonly events: number; readonly views: number; readonly free: number };
}

export function statusVerb(options: Options<'status'>, io: Io): Promise<number> {
  return orExplain('status', io, async () => {
    const folder = await openFolder(options.data, 'read', io);
    try {
      const status = await readStatus(options.data, folder, io);
      if (options.json) await printJson(io.stdout, status);
      else await print(io.stdout, printStatus(status));
      return 0;
    } finally {
      await folder.close();
    }
  });
}

async function readStatus(data: string, { events, views }: { readonly events: EventStore; readonly views: ViewStore }, io: Io): Promise<Status> {
  const stats = await events.stats();
  const head = await events.head();
  const groups: GroupStatus[] = [];
  for (const group of GROUPS) groups.push(await readGroup(group, events, views, io));
  const known = await Workspaces.open({ store: events, masterKey: null, clock: io.clock, random: io.random, sleep: io.sleep });
  const workspaces: Status['workspaces'][number][] = [];
  for (const { id, name, keys } of known.list()) {
    const tallies = await views.tallies(id);
    const sum = (of: (tally: (typeof tallies)[number]) => number): number => tallies.reduce((total, tally) => total + of(tally), 0);
    workspaces.push({ id, name, keys, recorded: sum((t) => t.recorded), duplicates: sum((t) => t.duplicates), reusedIds: sum((t) => t.reusedIds), rejected: sumRejections(tallies.map((t) => t.rejected)) });
  }
  await known.close();
  const disk = await statfs(data);
  return {
    store: events.storeId, head: stated(events, head), events: stats.events, streams: stats.streams, groups, workspaces,
    disk: { events: stats.bytes, views: groups.reduce((total, group) => total + group.bytes, 0), free: disk.bavail * disk.bsize },
  };
}

async function readGroup(group: string, events: EventStore, views: ViewStore, io: Io): Promise<GroupStatus> {
  const all = await views.generations(group);
  const live = await views.live(group);
  const generation = all.find(({ id }) => id === live);
  const generations = all.map(({ id }) => id);
  if (generation === undefined) {
    return { group, generation: null, version: null, generations, position: null, gap: await events.gap(null), lag: await lagOf(events, null, io), digest: null, documents: 0, bytes: 0 };
  }
  const shards = await readShards(generation, views);
  const position = shards.map((shard) => shard.position).reduce((lowest, one) => (lowest === null || one === null ? null : one < lowest ? one : lowest));
  return {
    group, generation: generation.id, version: generation.version, generations, position: stated(events, position), gap: await events.gap(position), lag: await lagOf(events, position, io),
    digest: shards.map((shard) => shard.digest).join('-'), documents: shards.reduce((total, shard) => total + shard.documents, 0), bytes: shards.reduce((total, shard) => total + shard.bytes, 0),
  };
}

async function readShards(generation: Generation, views: ViewStore): Promise<readonly { readonly position: Position | null; readonly digest: string; readonly documents: number; readonly bytes: number }[]> {
  const shards = [];
  for (let shard = 0; shard < generation.shards; shard += 1) {
    const view = await views.view(generation.group, generation.id, shard);
    const { documents, bytes: size } = await view.stats();
    shards.push({ position: await view.position(), digest: await view.digest(), documents, bytes: size });
  }
  return shards;
}

/** Seconds since the oldest event not folded was recorded; one event is read. */
export async function lagOf(events: EventStore, position: Position | null, { clock }: Pick<Io, 'clock'>): Promise<number> {
  if ((await events.gap(position)) === 0 || (await events.head()) === null) return 0;
  const reading = new AbortController();
  for await (const batch of events.subscribe({ after: position, prefixes: ['identity.'], maxBatch: 1, signal: reading.signal })) {
    const [oldest] = batch.events;
    if (oldest !== undefined) return Math.max(0, (clock.now() - Date.parse(readRecorded(oldest).recordedAt)) / 1000);
    if (batch.caughtUp) return 0;
  }
  return 0;
}

function stated(events: EventStore, position: Position | null): string | null { return position === null ? null : `${events.storeId}.${position}`; }

function printStatus(status: Status): string {
  const groups = table(['group', 'generation', 'gap', 'lag', 'documents', 'size', 'digest'], status.groups.map((group) => [
    group.group, group.generation === null ? 'none' : String(group.generation), group.gap === null ? '?' : count(group.gap), `${group.lag.toFixed(1)} s`, count(group.documents), bytes(group.bytes), group.digest ?? '',
  ]));
  const workspaces = table(['workspace', 'name', 'keys', 'recorded', 'duplicates', 'reused ids', 'rejected'], status.workspaces.map((one) => [
    one.id, one.name, count(one.keys), count(one.recorded), count(one.duplicates), count(one.reusedIds), Object.entries(one.rejected).map(([code, value]) => `${code} ${count(value)}`).join(', ') || '0',
  ]));
  return [
    `store ${status.store}: ${count(status.events)} events in ${count(status.streams)} streams, head ${status.head ?? 'none'}\n`,
    groups, workspaces,
    `disk: events ${bytes(status.disk.events)}, views ${bytes(status.disk.views)}, free ${bytes(status.disk.free)}\n`,
  ].join('\n');
}
