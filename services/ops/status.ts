// `throughline status`: where everything stands, read from the stores themselves, so that it answers beside running programs
// as well as when nothing runs. What cannot be known prints `?`.
import { statfs } from 'node:fs/promises';
import { readRecorded } from '../../schemas/recorded.ts';
import { openSource, openViewsOf, shardsOf, type SourcePlace } from '../backends.ts';
import type { Options } from '../config.ts';
import { OperatingError } from '../errors.ts';
import type { EventStore, Generation, Position, Tally, ViewStore } from '../ports.ts';
import { lowestOf, shareOf } from '../positions.ts';
import { isStale, positionsOf } from '../generations.ts';
import { SHARD_LEASES, sumDigests } from '../shards.ts';
import { Workspaces } from '../workspaces.ts';
import { openLog } from './folder.ts';
import { sumRejections } from './inspect.ts';
import { bytes, count, type Io, orExplain, print, printable, printJson, table } from './terminal.ts';

const GROUPS = ['journeys', 'persons'] as const;

export interface ShardStatus { readonly shard: number; readonly position: string | null; readonly gap: number | null; readonly digest: string; readonly documents: number; readonly bytes: number; /** Who folds it now; null: nobody has its lease. */ readonly holder: string | null }
export interface GroupStatus {
  readonly group: string;
  /** Null: nothing is live yet. */
  readonly generation: number | null;
  readonly version: string | null;
  /** Whether it is of another version than this program: it may stand still. */
  readonly stale: boolean;
  /** The one that was live before, to go back to (replay --rollback). */
  readonly previous: number | null;
  /** Those being built, each with the share of the log that it has, 0 to 1. */
  readonly building: readonly { readonly generation: number; readonly version: string; readonly share: number }[];
  /** Every copy there is: the live one, those being built, those kept to go back to. */
  readonly generations: readonly number[];
  /** The lowest of its shards'. */
  readonly position: string | null;
  /** Events behind the head; null where the store cannot say. */
  readonly gap: number | null;
  /** Seconds since the oldest event not folded was recorded; 0 when there is none; null where the store cannot say. */
  readonly lag: number | null;
  /** Over all shards: compares with any other store's that holds the same, however cut. */
  readonly digest: string | null;
  readonly documents: number;
  readonly records: number;
  readonly bytes: number;
  readonly shards: readonly ShardStatus[];
}
export interface SourceStatus {
  readonly topic: string;
  readonly group: string;
  /** Why something of it is not known. */
  readonly trouble: string | null;
  /** Records that the group has not committed, per partition; null where the brokers did not say. */
  readonly partitions: readonly { readonly partition: number; readonly gap: number }[] | null;
  /** By topic, partition and offset, each once; null where they could not be read. */
  readonly deadLetters: number | null;
}
/** What the door counted since these views were made (views that were emptied begin anew); null each where the views are away. */
export interface Counted { readonly recorded: number | null; readonly duplicates: number | null; readonly reusedIds: number | null; readonly rejected: Readonly<Record<string, number>> | null }
const UNCOUNTED: Counted = { recorded: null, duplicates: null, reusedIds: null, rejected: null };
export interface Status {
  readonly store: string;
  readonly head: string | null;
  readonly events: number | null;
  readonly streams: number | null;
  /** Why nothing is known of the views, nor of what was counted, which stands there too; null where it is. */
  readonly viewsTrouble: string | null;
  readonly groups: readonly GroupStatus[];
  /** What a journey costs where the views are in memory (Redis): bytes of the group / journeys in it; null elsewhere, and where there is none. */
  readonly bytesPerJourney: number | null;
  readonly source: SourceStatus | null;
  readonly workspaces: readonly ({ readonly id: string; readonly name: string; readonly keys: number } & Counted)[];
  /** Bytes; null each where it is another machine's. */
  readonly disk: { readonly events: number | null; readonly views: number; readonly free: number | null };
}

/** Exit code 1 also when a part of it could not be told. */
export function statusVerb(options: Options<'status'>, io: Io): Promise<number> {
  return orExplain('status', io, async () => {
    const log = await openLog(options.events, 'read', io);
    try {
      const status = await readStatus(options, log.events, io);
      if (options.json) await printJson(io.stdout, status);
      else await print(io.stdout, printStatus(status));
      return status.viewsTrouble === null && (status.source?.trouble ?? null) === null ? 0 : 1;
    } finally {
      await log.close();
    }
  });
}

async function readStatus(options: Options<'status'>, events: EventStore, io: Io): Promise<Status> {
  const stats = await events.stats();
  const head = await events.head();
  const known = await Workspaces.open({ store: events, masterKey: null, clock: io.clock, random: io.random, sleep: io.sleep });
  const listed = known.list();
  await known.close();
  const read = await orWhy(() => readViews(options, events, listed.map(({ id }) => id), io));
  const groups = read.value?.groups ?? [];
  const source = options.source === null ? null : await readSource(options.source, io);
  const folder = options.events.kind === 'sqlite' ? options.events.folder : options.views.kind === 'sqlite' ? options.views.folder : null;
  const disk = folder === null ? null : await statfs(folder);
  const journeys = groups.find(({ group }) => group === 'journeys');
  return {
    store: events.storeId, head: stated(events, head), events: stats.events, streams: stats.streams, viewsTrouble: read.why, groups, source,
    workspaces: listed.map(({ id, name, keys }) => ({ id, name, keys, ...(read.value?.counted.get(id) ?? UNCOUNTED) })),
    bytesPerJourney: options.views.kind !== 'redis' || journeys === undefined || journeys.records === 0 ? null : journeys.bytes / journeys.records,
    disk: { events: options.events.kind === 'sqlite' ? stats.bytes : null, views: groups.reduce((total, group) => total + group.bytes, 0), free: disk === null ? null : disk.bavail * disk.bsize },
  };
}

/** A backend may be away while others are there, and then the rest is told all the same. */
async function orWhy<T>(read: () => Promise<T>): Promise<{ readonly value: T | null; readonly why: string | null }> {
  try {
    return { value: await read(), why: null };
  } catch (fault) {
    if (!(fault instanceof OperatingError)) throw fault;
    return { value: null, why: `${fault.message} (${fault.code})` };
  }
}

async function readViews(options: Options<'status'>, events: EventStore, workspaces: readonly string[], io: Io): Promise<{ readonly groups: readonly GroupStatus[]; readonly counted: ReadonlyMap<string, Counted> }> {
  const views = await openViewsOf(events, options.views, { clock: io.clock });
  try {
    const groups: GroupStatus[] = [];
    for (const group of GROUPS) groups.push(await readGroup(group, events, views, shardsOf(options.views), io));
    const counted = new Map<string, Counted>();
    for (const id of workspaces) counted.set(id, countedOf(await views.tallies(id)));
    return { groups, counted };
  } finally {
    await views.close();
  }
}

function countedOf(tallies: readonly Tally[]): Counted {
  const sum = (of: (tally: Tally) => number): number => tallies.reduce((total, tally) => total + of(tally), 0);
  return { recorded: sum((t) => t.recorded), duplicates: sum((t) => t.duplicates), reusedIds: sum((t) => t.reusedIds), rejected: sumRejections(tallies.map((t) => t.rejected)) };
}

async function readGroup(group: string, events: EventStore, views: ViewStore, parts: number, io: Io): Promise<GroupStatus> {
  const all = await views.generations(group);
  const live = await views.live(group);
  const generation = all.find(({ id }) => id === live);
  const generations = all.map(({ id }) => id);
  const previous = await views.previous(group);
  const building = await readBuilding(all.filter(({ id }) => live !== null && id > live && id !== previous), events, views);
  if (generation === undefined) {
    return { group, generation: null, version: null, stale: false, previous, building, generations, position: null, gap: await gapOf(events, null), lag: await lagOf(events, null, io), digest: null, documents: 0, records: 0, bytes: 0, shards: [] };
  }
  const read = await readShards(generation, events, views, parts);
  const position = lowestOf(read.map((one) => one.at));
  const sum = (of: (one: (typeof read)[number]) => number): number => read.reduce((total, one) => total + of(one), 0);
  return {
    group, generation: generation.id, version: generation.version, stale: isStale(generation), previous, building, generations, position: stated(events, position), gap: await gapOf(events, position), lag: await lagOf(events, position, io),
    digest: sumDigests(read.map(({ status }) => status.digest)), documents: sum(({ status }) => status.documents), records: sum((one) => one.records), bytes: sum(({ status }) => status.bytes),
    shards: read.map(({ status }) => status),
  };
}

async function readBuilding(generations: readonly Generation[], events: EventStore, views: ViewStore): Promise<GroupStatus['building']> {
  const head = await events.head();
  const found: GroupStatus['building'][number][] = [];
  for (const generation of generations) {
    const shares = (await positionsOf(views, generation)).map((position) => shareOf(position, head));
    found.push({ generation: generation.id, version: generation.version, share: Math.min(...shares) });
  }
  return found;
}

/** `parts`: among so many the shards are shared out, whatever the generation was made with (services/projector). */
async function readShards(generation: Generation, events: EventStore, views: ViewStore, parts: number): Promise<readonly { readonly at: Position | null; readonly records: number; readonly status: ShardStatus }[]> {
  const holders = new Map((await views.leases(SHARD_LEASES)).map(({ name, holder }) => [name, holder]));
  const shards = [];
  for (let shard = 0; shard < generation.shards; shard += 1) {
    const view = await views.view(generation.group, generation.id, shard);
    const { documents, records, bytes: size } = await view.stats();
    const at = await view.position();
    shards.push({ at, records, status: { shard, position: stated(events, at), gap: await gapOf(events, at), digest: await view.digest(), documents, bytes: size, holder: holders.get(`${SHARD_LEASES}${String(shard % parts)}`) ?? null } });
  }
  return shards;
}

async function readSource(place: SourcePlace, io: Io): Promise<SourceStatus> {
  const partitions = await orWhy(async () => {
    const source = await openSource(place, { onNotice: () => undefined });
    try {
      return await source.gaps();
    } finally {
      await source.close();
    }
  });
  const deadLetters = await orWhy(async () => (await import('./dead-letters.ts')).countDeadLetters(place, io.signal));
  return { topic: place.topic, group: place.group, trouble: partitions.why ?? deadLetters.why, partitions: partitions.value, deadLetters: deadLetters.value };
}

/** Events behind: 0 at the head, also where the store cannot count; null where it cannot. */
export async function gapOf(events: EventStore, position: Position | null): Promise<number | null> {
  const head = await events.head();
  return head === null || (position !== null && position >= head) ? 0 : events.gap(position);
}

/** A store that says nothing within this has nothing to say about it now. */
const LAG_LOOK_MS = 1000;

/** Seconds since the oldest event not folded was recorded; one event is read. Null where the store cannot say in time. */
export async function lagOf(events: EventStore, position: Position | null, { clock, sleep }: Pick<Io, 'clock' | 'sleep'>): Promise<number | null> {
  if ((await gapOf(events, position)) === 0) return 0;
  const reading = new AbortController();
  const over = new AbortController();
  // A subscription waits for what comes; where what is left behind is none of ours, nothing may come for hours.
  const timer = sleep(LAG_LOOK_MS, over.signal).then(() => reading.abort());
  try {
    for await (const batch of events.subscribe({ after: position, prefixes: ['identity.'], maxBatch: 1, signal: reading.signal })) {
      const [oldest] = batch.events;
      if (oldest !== undefined) return Math.max(0, (clock.now() - Date.parse(readRecorded(oldest).recordedAt)) / 1000);
      if (batch.caughtUp) return 0;
    }
    return null;
  } finally {
    over.abort();
    await timer;
  }
}

function stated(events: EventStore, position: Position | null): string | null { return position === null ? null : `${events.storeId}.${position}`; }

function printStatus(status: Status): string {
  const groups = table(['group', 'generation', 'shards', 'gap', 'lag', 'documents', 'size', 'digest'], status.groups.map((group) => [
    group.group, group.generation === null ? 'none' : `${String(group.generation)}${group.stale ? ' (stale)' : ''}`, String(group.shards.length), orUnknown(group.gap, count), orUnknown(group.lag, (lag) => `${lag.toFixed(1)} s`), count(group.documents), bytes(group.bytes), group.digest ?? '',
  ]));
  const several = status.groups.filter(({ shards }) => shards.length > 1);
  const shards = table(['group', 'shard', 'gap', 'documents', 'size', 'folded by', 'digest'], several.flatMap((group) => group.shards.map((shard) => [
    group.group, String(shard.shard), orUnknown(shard.gap, count), count(shard.documents), bytes(shard.bytes), shard.holder ?? 'nobody', shard.digest,
  ])));
  const workspaces = table(['workspace', 'name', 'keys', 'recorded', 'duplicates', 'reused ids', 'rejected'], status.workspaces.map((one) => [
    one.id, one.name, count(one.keys), orUnknown(one.recorded, count), orUnknown(one.duplicates, count), orUnknown(one.reusedIds, count),
    orUnknown(one.rejected, (rejected) => Object.entries(rejected).map(([code, value]) => `${code} ${count(value)}`).join(', ') || '0'),
  ]));
  const { disk, bytesPerJourney, viewsTrouble } = status;
  return [
    `store ${status.store}: ${orUnknown(status.events, count)} events in ${orUnknown(status.streams, count)} streams, head ${status.head ?? 'none'}\n`,
    ...(viewsTrouble === null ? [groups + status.groups.map(beside).join('')] : [`views: ${printable(viewsTrouble)}\n`]), ...(several.length === 0 ? [] : [shards]), workspaces,
    ...(status.source === null ? [] : [printSource(status.source)]),
    `${disk.free === null || bytesPerJourney !== null ? 'size' : 'disk'}: events ${orUnknown(disk.events, bytes)}, views ${viewsTrouble === null ? bytes(disk.views) : '?'}${disk.free === null ? '' : `, free ${bytes(disk.free)}`}${bytesPerJourney === null ? '' : `; in memory ${bytes(bytesPerJourney)} a journey`}\n`,
  ].join('\n');
}

/** What there is beside the live generation. */
function beside({ group, version, stale, building, previous }: GroupStatus): string {
  return [
    ...(stale ? [`${group}: what answers was folded by another version (${printable(version ?? '')})${building.length === 0 ? ', and stands as it is: a rollback, or a newer program, put it there' : ''}\n`] : []),
    ...building.map(({ generation, share }) => (share < 1 ? `${group}: generation ${String(generation)} is being built beside it, ${String(Math.floor(share * 100))} %\n`
      : `${group}: generation ${String(generation)} stands built beside it and does not answer: replay ${group} compares and promotes it, --forget drops it\n`)),
    ...(previous === null ? [] : [`${group}: generation ${String(previous)} is kept for replay ${group} --rollback\n`]),
  ].join('');
}

function printSource({ topic, group, trouble, partitions, deadLetters }: SourceStatus): string {
  const gaps = table(['partition', 'gap'], (partitions ?? []).map(({ partition, gap }) => [String(partition), count(gap)]));
  return `topic ${topic}, group ${group}: ${orUnknown(partitions === null ? null : partitions.reduce((sum, { gap }) => sum + gap, 0), count)} records behind, ${orUnknown(deadLetters, count)} dead letters\n${trouble === null ? '' : `${printable(trouble)}\n`}${partitions === null ? '' : gaps}`;
}

function orUnknown<T>(value: T | null, print: (value: T) => string): string { return value === null ? '?' : print(value); }
