// `throughline doctor`: looks at every backend that is named and says what is wrong and what to do about it. Each server's
// adapter knows what to look at in its server or folder; here is what has to agree between them.
import { existsSync } from 'node:fs';
import path from 'node:path';
import { type EventsPlace, examine, nameOf, openViews, type SourcePlace, type ViewsPlace } from '../backends.ts';
import type { Options } from '../config.ts';
import { type ErrorCode, OperatingError } from '../errors.ts';
import { FOREIGN_ADVICE, liveOf } from '../generations.ts';
import type { EventStore, Finding, ViewStore } from '../ports.ts';
import { masterKeyOf, Workspaces } from '../workspaces.ts';
import { openLog } from './folder.ts';
import { type Io, orExplain, print, printable, printJson, table } from './terminal.ts';

/** Findings of one backend, or of what goes between several. */
interface Examined { readonly where: string; readonly findings: readonly Finding[] }
type Found = Finding & { readonly where: string };

/** What another machine took in just now must not lie further ahead than this of our clock: NTP keeps far below it. */
const CLOCK_AHEAD_MS = 2_000;
const GROUPS = ['journeys', 'persons'] as const;

/** Exit code 1 when something is bad. */
export function doctorVerb(options: Options<'doctor'>, io: Io): Promise<number> {
  return orExplain('doctor', io, async () => {
    const examined = [...await examinePlaces(options), ...await examineTogether(options, io)];
    const found: Found[] = examined.flatMap(({ where, findings }) => findings.map((finding) => ({ where, ...finding })));
    if (options.json) await printJson(io.stdout, found);
    else await print(io.stdout, printFound(found));
    return found.some(({ level }) => level === 'bad') ? 1 : 0;
  });
}

const ok = (what: string, found: string): Finding => ({ level: 'ok', what, found, advice: null });
const bad = (what: string, found: string, advice: string): Finding => ({ level: 'bad', what, found, advice });
const warn = (what: string, found: string, advice: string): Finding => ({ level: 'warn', what, found, advice });

/** Each once, beside each other: one that is away takes its time to say so. */
function examinePlaces({ events, views, source }: Options<'doctor'>): Promise<readonly Examined[]> {
  const places = new Map([events, views, ...(source === null ? [] : [source])].map((place) => [place.kind === 'sqlite' ? place.folder : place.kind, place]));
  return Promise.all([...places.values()].map(async (place) => ({ where: nameOf(place), findings: await examine(place) })));
}

// ---- what has to agree -------------------------------------------------------------------------------------------------

/** Opens the stores as the programs would, and looks whether they belong together. */
async function examineTogether(options: Options<'doctor'>, io: Io): Promise<readonly Examined[]> {
  const findings: Finding[] = [];
  const absent = options.events.kind === 'sqlite' && !existsSync(path.join(options.events.folder, 'events.sqlite'));
  if (absent) return [{ where: 'together', findings: [warn('events', 'none recorded yet', 'nothing, if this is before the first start')] }];
  let known: readonly string[] = [];
  let storeId: string | null = null;
  await attempt('events', options.events, findings, async () => {
    const log = await openLog(options.events, 'read', io);
    try {
      storeId = log.events.storeId;
      findings.push(ok('event store', `is ${log.events.storeId}`));
      known = await examineWorkspaces(options, log.events, io, findings);
    } finally {
      await log.close();
    }
  });
  if (options.views.kind === 'sqlite' && !existsSync(path.join(options.views.folder, 'views/control.sqlite'))) {
    findings.push(warn('views', 'none yet', NO_VIEWS));
    return [{ where: 'together', findings }];
  }
  await attempt('views', options.views, findings, async () => {
    // Whosever they are: that is told of each.
    const views = await openViews(options.views, io);
    try {
      for (const group of GROUPS) findings.push(await whoseViews(group, views, storeId));
      findings.push(await clocks(views, known, io));
    } finally {
      await views.close();
    }
  });
  return [{ where: 'together', findings }];
}

const NO_VIEWS = 'nothing, if no serve or project has run; else start one';

/** What cannot be opened is a finding, told by its code; only a bug is thrown. */
async function attempt(what: string, place: EventsPlace | ViewsPlace, findings: Finding[], look: () => Promise<void>): Promise<void> {
  try {
    await look();
  } catch (fault) {
    if (!(fault instanceof OperatingError)) throw fault;
    const [advice, other] = place.kind === 'sqlite' ? [IN_FOLDER, 'see what is said of the folder and its files above'] : [ON_SERVER, 'see what its server says above, and its log'];
    findings.push(bad(what, `${fault.message} (${fault.code})`, ADVICE[fault.code] ?? advice[fault.code] ?? other));
  }
}

type Advice = Readonly<Partial<Record<ErrorCode, string>>>;
const ADVICE: Advice = {
  storeLocked: 'end the process that holds it',
  badMasterKey: 'give the master key with which the workspaces were made',
  foreignStore: FOREIGN_ADVICE,
};
const ON_SERVER: Advice = { storeUnavailable: 'start its server, or correct its URL' };
const IN_FOLDER: Advice = { storeReadOnly: 'make the folder writable for this user, or mount its disk for writing', storeFull: 'make room on its disk' };

async function whoseViews(group: string, views: ViewStore, storeId: string | null): Promise<Finding> {
  const generation = await liveOf(views, group);
  if (generation === null) return warn(`views of ${group}`, 'none yet', NO_VIEWS);
  if (storeId === null) return ok(`views of ${group}`, `generation ${String(generation.id)}, folded from event store ${generation.storeId}, which could not be compared`);
  if (generation.storeId !== storeId) return bad(`views of ${group}`, `were folded from event store ${generation.storeId}`, FOREIGN_ADVICE);
  return ok(`views of ${group}`, `generation ${String(generation.id)}, ${String(generation.shards)} shard${generation.shards === 1 ? '' : 's'}, of this event store`);
}

/** The ids of those that there are, as far as they could be read. */
async function examineWorkspaces(options: Options<'doctor'>, store: EventStore, io: Io, findings: Finding[]): Promise<readonly string[]> {
  const { clock, random, sleep } = io;
  const open = (masterKey: Uint8Array | null): Promise<Workspaces> => Workspaces.open({ store, masterKey, clock, random, sleep });
  const workspaces = await open(null);
  const known = workspaces.list().map(({ id }) => id);
  await workspaces.close();
  findings.push(known.length === 0 ? warn('workspaces', 'none yet', 'start serve or api once, or throughline workspaces create') : ok('workspaces', known.join(', ')), ...missingWorkspaces(options.source, known));
  await attempt('master key', options.events, findings, async () => {
    const opened = await open(await masterKeyOf(options.events, store, { given: options.masterKey, mayMake: false, random }));
    await opened.close();
    findings.push(ok('master key', 'opens every workspace'));
  });
  return known;
}

function missingWorkspaces(source: SourcePlace | null, known: readonly string[]): readonly Finding[] {
  return (source?.workspaces ?? []).filter((id) => !known.includes(id))
    .map((id) => bad('workspaces of the topic', `${id} does not exist`, `throughline workspaces create ${id}, or correct workspaces= of --source`));
}

/** The times of the latest deliveries come from the machines that take them in: one ahead of ours says that one of the two clocks is wrong. */
async function clocks(views: ViewStore, workspaces: readonly string[], { clock }: Io): Promise<Finding> {
  const tallies = await Promise.all(workspaces.map((id) => views.tallies(id)));
  const aheadMs = Math.max(0, ...tallies.flat().map(({ lastSeen }) => Date.parse(lastSeen) - clock.now()));
  return aheadMs > CLOCK_AHEAD_MS
    ? bad('clock', `an event was taken in ${(aheadMs / 1000).toFixed(1)} s in this machine's future`, 'set the clocks of all machines by NTP')
    : ok('clock', 'nothing was taken in in its future');
}

function printFound(found: readonly Found[]): string {
  const worst = found.filter(({ level }) => level !== 'ok');
  const rows = table(['', 'where', 'what', 'found'], found.map(({ level, where, what, found: text }) => [MARKS[level], where, what, text]));
  const advice = worst.map(({ level, where, what, advice: text }) => `${MARKS[level]} ${where}, ${what}: ${text ?? ''}\n`);
  return [rows, ...(advice.length === 0 ? ['All is well.\n'] : ['What to do:\n', ...advice])].map(keepLines).join('');
}
const MARKS: Readonly<Record<Finding['level'], string>> = { ok: 'ok', warn: 'look', bad: 'BAD' };
const keepLines = (text: string): string => text.split('\n').map(printable).join('\n');
