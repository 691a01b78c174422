// `make bench-search`: searches over a million journeys of sixty days on our two view stores, beside PostgreSQL with the
// indexes that an engineer would add, where it is installed. Each is asked through its own client, without HTTP, one search
// after the other, in turn, all on one core; and for every search all of them must give the same rows and the same total.
// SEARCH_COUNT (journeys) and SEARCH_TURNS (of each kind, at most) shorten a run.
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { resolve } from 'node:path';
import { isWorkspaceId, workspaceKeys, type WorkspaceKeys } from '../../schemas/identity.ts';
import { openRedisViewStore, type RedisViewStore } from '../../services/adapters/redis.ts';
import { openSqliteViewStore } from '../../services/adapters/sqlite-views.ts';
import type { SearchResult, View } from '../../services/ports.ts';
import { redisAbsent, redisPlace, type RedisServer, startRedis } from '../support/redis-server.ts';
import { removeFolder, temporaryFolder } from '../support/serve.ts';
import { machine, markdown, median, percentile, type Row, row, seconds, tableOf } from './measure.ts';
import { bytesOfPostgres, fillPostgres, findPostgres, openPeerClient, type PeerClient, type Plan, startPostgres } from './postgres.ts';
import { type Changes, filledView } from './search.ts';
import { type Ask, clausesOf, type Journey, journeysOf, type Kind, kindsOf, recordOf, WORKSPACE } from './search-corpus.ts';

const COUNT = Number(process.env['SEARCH_COUNT'] ?? 1_000_000);
const TURNS = Number(process.env['SEARCH_TURNS'] ?? 240);
/** Turns before those that count. */
const WARM = 24;
/** A kind that takes long is through after this time with fewer turns, but not below. */
const ENOUGH_MS = 30_000;
const LEAST_TURNS = 100;
/** Turns in which it is found out which plans serve the peer better. */
const TRIALS = 6;
const PAGE = 100;
/** The page to which the deep ones skip. */
const DEEP = 50;
const COMMITS = { sqlite: 20_000, redis: 5_000 } as const;
/** Of the issue: first pages with common filters, ms at p99, ms of one call of Redis. */
const COMMON_TIMES = 20;
const P99_MS = 30;
const CALL_MS = 5;
/** Calls that take so many µs are noted by Redis; more of them than it may keep would hide none of the longest here. */
const NOTED = { 'slowlog-log-slower-than': '1000', 'slowlog-max-len': '4096' } as const;
const LONGEST = "local longest = 0 for _, call in ipairs(redis.call('SLOWLOG', 'GET', -1)) do longest = math.max(longest, call[3]) end return longest";

const told = (what: string): void => void process.stderr.write(`  ${what}\n`);

// ---- what was started, and its end -----------------------------------------------------------------------------------

/** In the order in which they are to be ended. */
const ends: (() => unknown)[] = [];
/** What is being started: before it stands there is nothing to end. */
let starting: Promise<unknown> = Promise.resolve();
let interrupted = false;

async function opened<T>(start: Promise<T>, end: (made: T) => unknown): Promise<T> {
  starting = start;
  const made = await start;
  ends.unshift(() => end(made));
  return made;
}

async function endAll(): Promise<void> {
  await starting.catch(() => undefined);
  for (let end = ends.shift(); end !== undefined; end = ends.shift()) await end();
}

for (const [signal, code] of [['SIGINT', 130], ['SIGTERM', 143]] as const) {
  process.once(signal, () => {
    interrupted = true;
    void endAll().finally(() => process.exit(code));
  });
}

// ---- the sides -------------------------------------------------------------------------------------------------------

interface Answer { readonly rows: readonly { readonly id: string; readonly time: number; readonly document: string | null }[]; readonly total: number | null }
/** Where a deep page goes on, and the total that its cursor carries. */
interface Keyset { readonly time: number; readonly id: string; readonly total: number }
type SideName = 'PostgreSQL' | 'SQLite' | 'Redis' | 'Redis, nothing kept';
interface Side { readonly name: SideName; readonly ask: (ask: Ask, after: Keyset | null) => Promise<Answer> }

function sideOf(name: SideName, view: View, keys: WorkspaceKeys): Side {
  return { name, ask: async (ask, after) => searched(view, keys, ask, after, PAGE) };
}

async function searched(view: View, keys: WorkspaceKeys, ask: Ask, after: Keyset | null, limit: number): Promise<SearchResult> {
  const { from, to, direction } = ask;
  return view.search({ workspace: WORKSPACE, from, to, clauses: clausesOf(ask, keys), sub: [], direction, limit, after, total: after?.total ?? null }, 'j');
}

function* changes(keys: WorkspaceKeys): Generator<Changes> {
  for (const journey of all()) yield { record: recordOf(journey, keys), document: journey.document };
}
function all(): Generator<Journey> { return journeysOf(COUNT); }

async function filling<T>(what: string, fill: () => Promise<T>): Promise<{ readonly made: T; readonly row: Row }> {
  const started = process.hrtime.bigint();
  const made = await fill();
  const took = seconds(started);
  told(`${what}: ${COUNT.toLocaleString('en-US')} journeys in ${took.toFixed(0)} s`);
  return { made, row: row(`${what}: journeys written, with their index`, 'journeys/s', COUNT / took, null, null) };
}
function sizeRow(what: string, bytes: number): Row { return row(what, 'bytes/journey', bytes / COUNT, null, null); }

interface Opened { readonly sides: readonly Side[]; readonly pid: number | null; readonly rows: readonly Row[] }

async function openSqlite(keys: WorkspaceKeys): Promise<Opened & { readonly view: View }> {
  const folder = await opened(Promise.resolve(temporaryFolder()), removeFolder);
  const store = await opened(openSqliteViewStore({ folder }), (each) => each.close());
  const { made, row: filled } = await filling('SQLite', async () => filledView(store, changes(keys), COMMITS.sqlite));
  // As an api has it, which never writes.
  const view = await (await opened(openSqliteViewStore({ folder }), (each) => each.close())).view('journeys', made.generation.id, 0);
  return { view, sides: [sideOf('SQLite', view, keys)], pid: null, rows: [filled, sizeRow('SQLite: the file', (await view.stats()).bytes)] };
}

async function openRedis(keys: WorkspaceKeys): Promise<Opened & { readonly server: RedisServer } | null> {
  const absent = redisAbsent();
  if (absent !== null) {
    told(`WITHOUT REDIS: ${absent}`);
    return null;
  }
  const server = await opened(startRedis({ settings: NOTED }), (each) => each.stop());
  const memory = (): number => Number(infoOf(server, 'memory', 'used_memory'));
  const empty = memory();
  const open = (options: { readonly cacheBytes?: number }): Promise<RedisViewStore> => opened(openRedisViewStore(redisPlace(server), { clock: Date, ...options }), (each) => each.close());
  const store = await open({});
  const { made: view, row: filled } = await filling('Redis', async () => {
    const full = await filledView(store, changes(keys), COMMITS.redis);
    // The last commit stands, and may still be being applied.
    await full.position();
    return full;
  });
  const cold = await (await open({ cacheBytes: 0 })).view('journeys', view.generation.id, 0);
  return {
    server, sides: [sideOf('Redis', view, keys), sideOf('Redis, nothing kept', cold, keys)], pid: Number(infoOf(server, 'server', 'process_id')),
    rows: [filled, sizeRow('Redis: used_memory', memory() - empty)],
  };
}

function infoOf(redis: RedisServer, section: string, name: string): string | undefined {
  return redis.say('info', section).map((line) => line.trim().split(':')).find(([each]) => each === name)?.[1];
}

async function openPeer(): Promise<Opened & { readonly version: string; readonly clientOf: (plan: Plan) => PeerClient } | null> {
  const found = findPostgres();
  if ('absent' in found) {
    told(`WITHOUT POSTGRESQL, SO BESIDE NOTHING: ${found.absent}`);
    return null;
  }
  const server = await opened(startPostgres(found.folder), (each) => each.stop());
  const { row: filled } = await filling('PostgreSQL', async () => fillPostgres(server, all));
  // Before a client has its process, which takes this over.
  pin([server.pid]);
  const clients: Record<Plan, PeerClient> = { generic: openPeerClient(server, 'generic'), custom: openPeerClient(server, 'custom') };
  ends.unshift(async () => Promise.all(PLANS.map((plan) => clients[plan].close())));
  return { version: server.version, sides: [], clientOf: (plan) => clients[plan], pid: server.pid, rows: [filled, sizeRow('PostgreSQL: tables with their indexes', await bytesOfPostgres(server))] };
}

/** All on the last core, where `taskset` is there: then nobody has a second one for what it does beside answering. */
function pin(processes: readonly number[]): boolean {
  return processes.every((pid) => spawnSync('taskset', ['-a', '-c', '-p', String(availableParallelism() - 1), String(pid)], { stdio: 'ignore' }).status === 0);
}

// ---- asking them -----------------------------------------------------------------------------------------------------

interface Search { readonly ask: Ask; readonly after: Keyset | null }
interface Case { readonly name: string; readonly isCommon: boolean; readonly searches: readonly Search[]; readonly found: number }
interface Figures { readonly p50: number; readonly p99: number; readonly perSecond: number }
interface Measured { readonly name: string; readonly found: number; readonly target: number; readonly plan: Plan | null; readonly sides: Readonly<Partial<Record<SideName, Figures>>>; readonly longestCallMs: number | null }

/** The first pages of a kind; and its fiftieth pages, for those of its searches that have one. */
async function* casesOf(kind: Kind, view: View, keys: WorkspaceKeys): AsyncGenerator<Case> {
  const first: Search[] = [];
  const deep: Search[] = [];
  const totals: number[] = [];
  for (const ask of kind.variants) {
    const { rows, total, more } = await searched(view, keys, ask, null, PAGE * (DEEP - 1));
    const last = rows.at(-1);
    totals.push(total);
    first.push({ ask, after: null });
    if (kind.isDeep && more && last !== undefined) deep.push({ ask, after: { time: last.time, id: last.id, total } });
  }
  yield { name: kind.name, isCommon: kind.isCommon, searches: first, found: median(totals) };
  if (deep.length > 0) yield { name: `${kind.name}: page ${DEEP}, total carried`, isCommon: false, searches: deep, found: median(deep.map(({ after }) => after?.total ?? 0)) };
}

/** Every search of it, on every side: the same rows in the same order, with the same documents, and the same total. */
async function check({ name, searches }: Case, sides: readonly Side[]): Promise<void> {
  for (const [no, { ask, after }] of searches.entries()) {
    const answers = await Promise.all(sides.map(async (side) => ({ side: side.name, answer: await side.ask(ask, after) })));
    const [expected] = answers;
    for (const { side, answer } of answers) {
      const same = text(answer.rows) === text(expected?.answer.rows ?? []) && (after !== null || answer.total === expected?.answer.total);
      if (!same) throw new Error(`"${name}", its search no. ${no}: ${side} answers ${answer.rows.length} rows of ${String(answer.total)}, otherwise than ${expected?.side} with ${String(expected?.answer.rows.length)} of ${String(expected?.answer.total)}: ${JSON.stringify(ask)}`);
    }
  }
}
function text(rows: Answer['rows']): string { return JSON.stringify(rows.map(({ id, time, document }) => [id, time, document])); }

async function timed(side: Side, { ask, after }: Search): Promise<number> {
  const started = process.hrtime.bigint();
  await side.ask(ask, after);
  return seconds(started) * 1000;
}

/** In turn, each turn begun by another side, so that none of them always meets what the same one left behind. */
async function measure(searches: readonly Search[], sides: readonly Side[], warm: number, turns: number): Promise<ReadonlyMap<SideName, readonly number[]>> {
  const times = new Map<SideName, number[]>(sides.map(({ name }) => [name, []]));
  const until = Date.now() + ENOUGH_MS;
  for (let turn = 0; turn < warm + turns && (turn < warm + LEAST_TURNS || Date.now() < until); turn += 1) {
    for (let i = 0; i < sides.length; i += 1) {
      const side = sides[(turn + i) % sides.length]!;
      const took = await timed(side, searches[turn % searches.length]!);
      if (turn >= warm) times.get(side.name)?.push(took);
    }
  }
  return times;
}

function figuresOf(times: readonly number[]): Figures {
  return { p50: median(times), p99: percentile(times, 0.99), perSecond: 1000 * times.length / times.reduce((sum, each) => sum + each, 0) };
}

const PLANS: readonly Plan[] = ['generic', 'custom'];
/** The better plans for this case: nobody who minds would let it take the others. */
async function peerSide(one: Case, clientOf: (plan: Plan) => PeerClient): Promise<{ readonly plan: Plan; readonly side: Side }> {
  const tried: { plan: Plan; side: Side; took: number }[] = [];
  for (const plan of PLANS) {
    const side: Side = { name: 'PostgreSQL', ask: async (ask, after) => clientOf(plan).page(ask, after) };
    const times = await measure(one.searches, [side], TRIALS, TRIALS);
    tried.push({ plan, side, took: median(times.get('PostgreSQL') ?? []) });
  }
  return tried.reduce((best, each) => (each.took < best.took ? each : best));
}

interface Stage { readonly peer: Awaited<ReturnType<typeof openPeer>>; readonly ours: readonly Side[]; readonly redis: RedisServer | null }

async function measureCase(one: Case, { peer, ours, redis }: Stage): Promise<Measured> {
  const best = peer === null ? null : await peerSide(one, peer.clientOf);
  const sides = best === null ? ours : [best.side, ...ours];
  redis?.say('slowlog', 'reset');
  await check(one, sides);
  const times = await measure(one.searches, sides, WARM, TURNS);
  const longest = redis === null ? null : Number(redis.say('eval', LONGEST, '0')[0]) / 1000;
  const figures = Object.fromEntries([...times].map(([name, each]) => [name, figuresOf(each)])) as Measured['sides'];
  told(`${one.name} (${one.found} found): ${[...times].map(([name, each]) => `${name} ${median(each).toFixed(2)}`).join(', ')} ms`);
  return { name: one.name, found: one.found, target: one.isCommon ? COMMON_TIMES : 1, plan: best?.plan ?? null, sides: figures, longestCallMs: longest };
}

// ---- telling it ------------------------------------------------------------------------------------------------------

/** Ours as they are opened; what nothing was kept of is shown beside them, and bound by the longest time alone. */
const HELD_TO_PEER: readonly SideName[] = ['SQLite', 'Redis'];
const OURS: readonly SideName[] = [...HELD_TO_PEER, 'Redis, nothing kept'];

function timesFaster({ sides }: Measured, name: SideName): number | null {
  const [peer, ours] = [sides.PostgreSQL, sides[name]];
  return peer === undefined || ours === undefined ? null : peer.p50 / ours.p50;
}

function missed(one: Measured): readonly string[] {
  const slow = HELD_TO_PEER.filter((name) => (timesFaster(one, name) ?? Infinity) < one.target).map((name) => `${name} is not ${one.target} ×`);
  const late = OURS.filter((name) => (one.sides[name]?.p99 ?? 0) > P99_MS).map((name) => `${name} takes over ${P99_MS} ms`);
  return [...slow, ...late, ...((one.longestCallMs ?? 0) > CALL_MS ? [`a call takes over ${CALL_MS} ms`] : [])];
}

function cell(one: Measured, name: SideName): string {
  const figures = one.sides[name];
  if (figures === undefined) return '';
  const times = name === 'PostgreSQL' ? null : timesFaster(one, name);
  return `${short(figures.p50)} / ${short(figures.p99)}, ${Math.round(figures.perSecond).toLocaleString('en-US')}/s${times === null ? '' : ` (${short(times)} ×)`}`;
}
const short = (value: number): string => (value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2));

function tableOfSearches(all: readonly Measured[], peer: string | null): string {
  const names: readonly SideName[] = ['PostgreSQL', ...OURS];
  const rows = all.map((one) => {
    const misses = missed(one);
    return [one.name, one.found.toLocaleString('en-US'), ...names.map((name) => cell(one, name)), one.longestCallMs === null ? '' : one.longestCallMs === 0 ? '< 1' : short(one.longestCallMs), `>= ${one.target} ×`, misses.length === 0 ? 'yes' : `NO: ${misses.join(', ')}`];
  });
  const heads = ['search', 'found', peer === null ? 'PostgreSQL (absent)' : `PostgreSQL ${peer}`, ...OURS, 'longest call of Redis, ms', 'target', 'met'];
  return markdown(heads, heads.map((_, i) => (i === 0 || i === heads.length - 1 ? '---' : '---:')), rows);
}

async function main(): Promise<void> {
  const workspace: string = WORKSPACE;
  if (!isWorkspaceId(workspace)) throw new Error('not a workspace id');
  const keys = workspaceKeys(workspace, new Uint8Array(32).fill(7));
  const sqlite = await openSqlite(keys);
  const redis = await openRedis(keys);
  const peer = await openPeer();
  const isPinned = pin([process.pid, ...[redis?.pid, peer?.pid].filter((pid) => pid != null)]);
  if (!isPinned) told('without taskset: the sides do not share one core');
  const stage: Stage = { peer, ours: [...sqlite.sides, ...(redis?.sides ?? [])], redis: redis?.server ?? null };
  const measured: Measured[] = [];
  for (const kind of kindsOf(COUNT)) for await (const one of casesOf(kind, sqlite.view, keys)) measured.push(await measureCase(one, stage));
  const rows = [...sqlite.rows, ...(redis?.rows ?? []), ...(peer?.rows ?? [])];
  writeFileSync(resolve(import.meta.dirname, '../../bench-search.json'), `${JSON.stringify({ machine: machine(), journeys: COUNT, turns: TURNS, oneCore: isPinned, postgres: peer?.version ?? null, searches: measured, rows }, null, 2)}\n`);
  process.stdout.write(`\nMeasured on ${machine()}; ${COUNT.toLocaleString('en-US')} journeys, up to ${TURNS} turns each${isPinned ? ', all on one core' : ''}. p50 / p99 in ms, searches a second one after the other, times faster than PostgreSQL at p50.\n\n`);
  process.stdout.write(`${tableOfSearches(measured, peer?.version ?? null)}\n${tableOf(rows)}`);
}

try {
  await main();
} catch (error) {
  // Whatever is asked of what is being ended fails.
  if (!interrupted) throw error;
} finally {
  if (!interrupted) await endAll();
}
