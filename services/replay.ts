// `throughline replay journeys|persons`: a replay beside running programs, in a process of its own (projector/replay.ts says
// how it goes), and what an operator is shown of it.
import type { Json, Projection } from '../projections/projection.ts';
import { nameOf } from './backends.ts';
import type { Options } from './config.ts';
import { isStale, liveOf, PROJECTIONS } from './generations.ts';
import { hasEnded, holderOf } from './lifecycle.ts';
import { openStores } from './ops/folder.ts';
import { bytes, count, duration, type Io, orExplain, print, printable, printJson, ProgressBar } from './ops/terminal.ts';
import type { Generation, ViewStore } from './ports.ts';
import { ROOM } from './projector/projector.ts';
import type { Compared, Difference } from './projector/compare.ts';
import { replay, replayLease, type ReplayProgress, type ReplayResult } from './projector/replay.ts';
import { SHARD_LEASES } from './shards.ts';
import { keysReader, masterKeyOf } from './workspaces.ts';

/** Lines of one document that are shown. */
const FIELDS_MAX = 12;
/** Documents whose fields are shown. */
const SHOWN_MAX = 3;

/** Exit code 0 promoted, or equal after a dry run; 1 different, or it could not be done. */
export function replayVerb(options: Options<'replay'>, io: Io): Promise<number> {
  const { action: group, dryRun, accept, rollback, anew, forget, rate, json } = options;
  return orExplain('replay', io, async () => {
    const stores = await openStores(options, 'read', io);
    try {
      await releaseEnded(stores.views, replayLease(group));
      if (forget) return await forgotten(options, stores.views, io);
      const masterKey = await masterKeyOf(options.events, stores.events, { given: options.masterKey, mayMake: false, random: io.random });
      const shown = new Shown(group, io, rate);
      const result = await replay({
        events: stores.events, views: stores.views, projection: PROJECTIONS[group], keysOf: keysReader(stores.events, masterKey), to: rollback ? 'back' : 'next', anew, dryRun, accept, rate,
        room: ROOM.replay, holder: holderOf(io.random),
        clock: io.clock, wait: (ms, signal) => io.sleep(ms, signal), signal: io.signal, onProgress: (progress) => shown.progress(progress),
      });
      shown.end();
      if (json) await printJson(io.stdout, toldOf(result, shown));
      else await print(io.stdout, described(options, result, shown, nameOf(options.views)));
      return result.kind === 'promoted' || (result.kind === 'compared' && result.compared.equal) ? 0 : 1;
    } finally {
      await stores.close();
    }
  });
}

/** A replay of this machine that was killed is over at once; another machine's when its lease has run out. */
async function releaseEnded(views: ViewStore, name: string): Promise<void> {
  for (const { holder } of await views.leases(name)) if (hasEnded(holder)) await views.release(name, holder);
}

/** Drops what was kept for a rollback, and what a replay or an upgrade left. What is being built for an upgrade is spared: it is folded to be promoted. */
async function forgotten(options: Options<'replay'>, views: ViewStore, io: Io): Promise<number> {
  const { action: group, json } = options;
  if ((await views.leases(replayLease(group))).length > 0) {
    await print(io.stderr, `throughline replay: a replay of ${group} is under way: its generation is not dropped (storeBusy)\n`);
    return 1;
  }
  const [live, previous] = [await liveOf(views, group), await views.previous(group)];
  const mayBeFolded = await isFoldedNow(options, views);
  const [dropped, spared]: [number[], number[]] = [[], []];
  for (const { id, version } of await views.generations(group)) {
    if (id === live?.id) continue;
    // Of the version that answers it is a replay's, which is not under way.
    const isBuilt = mayBeFolded && id !== previous && id > (live?.id ?? 0) && version !== live?.version;
    if (isBuilt) spared.push(id);
    else if (await views.dropGeneration(group, id)) dropped.push(id);
  }
  if (json) await printJson(io.stdout, { group, dropped, spared });
  else await print(io.stdout, forgottenOf(group, dropped, spared, previous));
  return 0;
}

function forgottenOf(group: string, dropped: readonly number[], spared: readonly number[], previous: number | null): string {
  if (dropped.length === 0 && spared.length === 0) return `${group}: there is no generation but the live one.\n`;
  return [
    ...(dropped.length === 0 ? [] : [`${group}: dropped generation ${dropped.join(', ')}${previous === null ? '' : '; there is nothing to roll back to now'}.\n`]),
    ...(spared.length === 0 ? [] : [`${group}: generation ${spared.join(', ')} is being built for an upgrade and was spared; to drop it, first end every serve and project on these views.\n`]),
  ].join('');
}

/** Whether a program may be folding: it has a shard's lease, or, where it is alone on a folder, the folder's lock instead. */
async function isFoldedNow({ events, views: place }: Pick<Options<'replay'>, 'events' | 'views'>, views: ViewStore): Promise<boolean> {
  if ((await views.leases(SHARD_LEASES)).length > 0) return true;
  return events.kind === 'sqlite' && place.kind === 'sqlite' && (await import('./adapters/sqlite-folder.ts')).holderOfFolder(events.folder) !== null;
}

/** The bar on a terminal; elsewhere a line for each tenth. */
class Shown {
  readonly #group: string;
  readonly #io: Io;
  readonly #bar: ProgressBar;
  readonly startedMs: number;
  events = 0;
  unreadable = 0;
  #tenth = 0;
  #phase = '';

  constructor(group: string, io: Io, rate: number | null) {
    this.#group = group;
    this.#io = io;
    this.#bar = new ProgressBar(io, 'replay', 1, rate);
    this.startedMs = io.clock.now();
  }

  get seconds(): number { return Math.max(0.001, (this.#io.clock.now() - this.startedMs) / 1000); }

  progress({ phase, generation, events, unreadable, share }: ReplayProgress): void {
    this.events = events;
    this.unreadable = unreadable;
    const what = phase === 'building' ? `${this.#group}, generation ${String(generation)}` : PHASES[phase];
    this.#bar.show(share, events, what);
    if (this.#io.isTty) return;
    const left = this.#bar.secondsLeft(share);
    const tenth = Math.floor(share * 10);
    if (phase === 'building' ? tenth <= this.#tenth && (this.#phase !== '' || share === 1) : phase === this.#phase) return;
    this.#phase = phase;
    this.#tenth = Math.max(tenth, this.#tenth);
    this.#io.stderr.write(`${what}: ${String(Math.floor(share * 100))} %, ${count(events)} events, ${count(Math.round(events / this.seconds))}/s${left === null ? '' : `, ${duration(left)} left`}\n`);
  }

  end(): void { this.#bar.clear(); }
}
const PHASES = { paused: 'paused, the live generation falls behind', comparing: 'comparing', promoting: 'promoting' } as const;

// ---- what is told --------------------------------------------------------------------------------------------------------

function toldOf(result: ReplayResult, { events, unreadable, seconds }: Shown): object {
  const { kind } = result;
  const work = { events, unreadable, seconds };
  switch (kind) {
    case 'promoted': return { kind, from: result.from.id, to: result.to.id, compared: result.compared, heldMs: result.heldMs, ...work };
    case 'compared': case 'refused': return { kind, live: result.live.id, built: result.built.id, compared: result.compared, ...work };
    default: return { ...result, ...work };
  }
}

function described({ action: group, rollback }: Options<'replay'>, result: ReplayResult, { events, unreadable, seconds }: Shown, place: string): string {
  const projection = PROJECTIONS[group];
  const folded = `${count(events)} events folded${unreadable === 0 ? '' : `, ${count(unreadable)} of them unreadable,`} in ${duration(seconds)} (${count(Math.round(events / seconds))}/s)`;
  switch (result.kind) {
    case 'promoted': {
      const { from, to, compared, heldMs } = result;
      const standing = compared === null ? uncomparedOf(to) : beside(compared);
      return `${group}: generation ${String(to.id)} answers now, ${String(from.id)} is kept for --rollback. ${standing}; ${folded}, commits held for ${String(heldMs)} ms.\n${compared === null ? '' : comparedOf(compared, projection, from.id, to.id)}`;
    }
    case 'compared': return `${group}: generation ${String(result.built.id)} ${result.compared.equal ? 'is equal to' : 'differs from'} the live one, ${String(result.live.id)}; ${folded}. Nothing was promoted (--dry-run); ${rollback ? '--rollback goes back to it' : 'a replay goes on from it, --forget drops it'}.\n${comparedOf(result.compared, projection, result.live.id, result.built.id)}`;
    case 'refused': return `${group}: generation ${String(result.built.id)} differs from the live one, ${String(result.live.id)}, and was not promoted; ${folded}. Look at the differences; --accept promotes it, --anew folds it once more, --forget drops it.\n${comparedOf(result.compared, projection, result.live.id, result.built.id)}`;
    case 'stopped': return `${group}: interrupted; ${folded}. The live generation answers as before; the next replay goes on from here.\n`;
    case 'busy': return `${group}: another replay is under way (${result.holder}). One that was killed on another machine is over in 15 s.\n`;
    case 'noRoom': return `${group}: a second generation takes some ${bytes(result.needed)}, and ${place} has ${bytes(result.free)} left: make room (replay ${group} --forget drops the generation kept for --rollback), then try again.\n`;
    case 'nothing': return `${group}: ${result.why}\n`;
  }
}

/** Another version made one of the two: nothing was compared. */
function uncomparedOf(to: Generation): string {
  return isStale(to)
    ? `It is of version ${to.version} and stands as it was, marked stale, until a program of that version folds it`
    : 'It stood further than the one before, which another version had folded, and goes on';
}

function beside({ equal, whole }: Compared): string {
  if (!equal) return 'It differs from the one before';
  return whole ? 'Equal to the one before' : 'Its digest is that of the one before (documents were not compared)';
}

function comparedOf({ equal, differences, more }: Compared, projection: Projection, live: number, built: number): string {
  if (equal) return '';
  if (differences.length === 0) return 'Every document is the same: the digest of one of them was moved wrongly.\n';
  const told = differencesOf(differences, () => projection, () => `generation ${String(live)}`, () => `generation ${String(built)}`);
  return `${told}${more ? 'and more\n' : ''}`;
}

/** The first documents that differ field by field, of the others their keys; `live` and `built` say what the two are called. */
export function differencesOf(differences: readonly Difference[], projectionOf: (one: Difference) => Projection, live: (projection: Projection) => string, built: (projection: Projection) => string): string {
  const shown = differences.slice(0, SHOWN_MAX).map((one) => {
    const projection = projectionOf(one);
    return `\n${printable(one.key)}\n${fieldsOf(one, projection, live(projection), built(projection)).map((line) => `  ${line}\n`).join('')}`;
  });
  const rest = differences.slice(SHOWN_MAX).map(({ key }) => `${printable(key)}\n`);
  return `${shown.join('')}${rest.length === 0 ? '' : `\nalso different:\n${rest.join('')}`}`;
}

/** Where two documents differ, field by field. */
export function fieldsOf({ key, live: before, built: after }: Difference, projection: Projection, live: string, built: string): readonly string[] {
  const name = key.slice(key.indexOf('/') + 1);
  if (before === null) return [`is in ${built} alone`];
  if (after === null) return [`is in ${live} alone`];
  const lines: string[] = [];
  compare('', unpacked(projection, name, before), unpacked(projection, name, after), (path, one, other) => {
    lines.push(`${path === '' ? '(all of it)' : path}: ${text(one)} in ${live}, ${text(other)} in ${built}`);
  });
  // The same value may have been packed in two ways.
  if (lines.length === 0) lines.push('says the same, and is stored otherwise');
  return lines.length > FIELDS_MAX ? [...lines.slice(0, FIELDS_MAX), `and ${String(lines.length - FIELDS_MAX)} more fields`] : lines;
}

/** One that another version stored may not be readable here: its text is JSON all the same. */
function unpacked(projection: Projection, name: string, stored: string): Json {
  try {
    return projection.unpack(name, stored);
  } catch {
    return JSON.parse(stored) as Json;
  }
}

function compare(path: string, one: Json | undefined, other: Json | undefined, differ: (path: string, one: Json | undefined, other: Json | undefined) => void): void {
  if (typeof one === 'object' && typeof other === 'object' && one !== null && other !== null && Array.isArray(one) === Array.isArray(other)) {
    const [left, right] = [one, other] as readonly Readonly<Record<string, Json | undefined>>[];
    for (const name of new Set([...Object.keys(one), ...Object.keys(other)])) compare(path === '' ? name : `${path}.${name}`, left?.[name], right?.[name], differ);
  } else if (JSON.stringify(one) !== JSON.stringify(other)) differ(path, one, other);
}

const TEXT_MAX = 80;
function text(value: Json | undefined): string {
  if (value === undefined) return 'absent';
  const json = printable(JSON.stringify(value));
  return json.length > TEXT_MAX ? `${json.slice(0, TEXT_MAX)}…` : json;
}
