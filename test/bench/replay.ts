// Replays: a generation folded anew beside the least that a replay would do (the same read, JSON.parse, one plain upsert an
// event), what the live line feels of it, one journey rebuilt from the log, and what the digest of a commit costs.
import { execFile } from 'node:child_process';
import { join, resolve } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { promisify } from 'node:util';
import { openSqliteEventStore } from '../../services/adapters/sqlite-events.ts';
import { openSqliteViewStore } from '../../services/adapters/sqlite-views.ts';
import { DocumentHasher } from '../../services/projector/digest.ts';
import { verifyJourney } from '../../services/projector/verify.ts';
import { keysReader, masterKeyOf } from '../../services/workspaces.ts';
import { redisAbsent, startRedis } from '../support/redis-server.ts';
import { traffic } from './events.ts';
import { median, percentile, type Row, row, seconds } from './measure.ts';
import { BATCH_TYPE, batches, NODE, ONE_TYPE, publish, queryable, type Server, start, stop } from './pipeline.ts';
import { runRaw } from './processes.ts';

const EVENTS = 60_000;
const OPEN = 5_000;
const ROUNDS = 3;
/** Of the live line: one event each, and how long until it is answered for. */
const LIVE = 300;
const REBUILT = 400;
const ROOT = resolve(import.meta.dirname, '../..');
const run = promisify(execFile);

interface Replayed { readonly kind: string; readonly events: number; readonly seconds: number; readonly heldMs: number }

/** As the launcher starts it. */
async function replay(args: readonly string[]): Promise<Replayed> {
  const { stdout } = await run(process.execPath, [...NODE.flags.replay, join(ROOT, 'services/main.ts'), 'replay', 'journeys', '--json', ...args], { env: { ...process.env, ...NODE.environment }, maxBuffer: 1e8 });
  const result = JSON.parse(stdout) as Replayed;
  if (result.kind !== 'promoted') throw new Error(`a replay ended with ${stdout}`);
  return result;
}

export async function replayRows(): Promise<Row[]> {
  const server = await start(true);
  try {
    await queryable(server, await publish(server, batches(traffic(EVENTS, OPEN), 500), BATCH_TYPE, 4));
    return [...await onSqlite(server), ...await onRedis(server), ...await besideTheLive(server), ...await rebuilt(server), ...await digestCost(server)];
  } finally {
    await stop(server);
  }
}

const NAME = 'replay of journeys, folded with all indexes, beside read + JSON.parse + one plain 600-byte upsert an event';

async function onSqlite({ folder }: Server): Promise<Row[]> {
  const [ours, raw, held]: [number[], number[], number[]] = [[], [], []];
  for (let round = 0; round < ROUNDS; round += 1) {
    const done = await replay(['--data', folder]);
    ours.push(done.events / done.seconds);
    held.push(done.heldMs);
    const plain = await runRaw({ kind: 'upsert', folder, port: null });
    raw.push(plain.count / plain.seconds);
  }
  return [row(`${NAME}: SQLite`, 'events/s', median(ours), median(raw), '>= 0.5'), row('commits held for a promotion, longest', 'ms', Math.max(...held), null, '<= 2000')];
}

async function onRedis({ folder }: Server): Promise<Row[]> {
  const absent = redisAbsent();
  if (absent !== null) {
    process.stderr.write(`  no row for Redis: ${absent}\n`);
    return [];
  }
  const redis = await startRedis();
  const [ours, raw]: [number[], number[]] = [[], []];
  try {
    const views = `${redis.url}?shards=1`;
    // The first generation, by a project of its own; it ends when it has caught up.
    const project = execFile(process.execPath, [...NODE.flags.project, join(ROOT, 'services/main.ts'), 'project', '--data', folder, '--views', views, '--port', '0', '--log-level', 'error']);
    for (let gap = 1; gap > 0;) {
      await pause(500);
      const { stdout } = await run(process.execPath, [join(ROOT, 'services/main.ts'), 'status', '--data', folder, '--views', views, '--json']).catch(() => ({ stdout: '{"groups":[{"gap":1}]}' }));
      gap = Math.max(...(JSON.parse(stdout) as { groups: { gap: number | null; generation: number | null }[] }).groups.map((group) => (group.generation === null ? 1 : group.gap ?? 1)));
    }
    for (let round = 0; round < ROUNDS; round += 1) {
      const done = await replay(['--data', folder, '--views', views]);
      ours.push(done.events / done.seconds);
      const plain = await runRaw({ kind: 'upsert', folder, port: redis.port });
      raw.push(plain.count / plain.seconds);
    }
    project.kill('SIGKILL');
  } finally {
    await redis.stop();
  }
  return [row(`${NAME}: Redis`, 'events/s', median(ours), median(raw), '>= 0.5')];
}

/** One event after another, each asked for until it is shown. */
async function visible(server: Server, offset: number, until: () => boolean): Promise<number[]> {
  const took: number[] = [];
  const bodies = traffic(1_000_000, 50, offset);
  while (!until() || took.length < LIVE) {
    const { value } = bodies.next();
    const at = process.hrtime.bigint();
    const position = await publish(server, [value as string].values(), ONE_TYPE, 1);
    await queryable(server, position);
    took.push(seconds(at) * 1000);
  }
  return took;
}

async function besideTheLive(server: Server): Promise<Row[]> {
  const [without, during]: [number[], number[]] = [[], []];
  for (let round = 0; round < ROUNDS; round += 1) {
    without.push(percentile(await visible(server, 2_000_000 + round * 2_000_000, () => true), 0.99));
    let over = false;
    const replaying = replay(['--data', server.folder]).finally(() => { over = true; });
    during.push(percentile(await visible(server, 3_000_000 + round * 2_000_000, () => over), 0.99));
    await replaying;
  }
  return [row('live, one event after another: p99 published → shown during a replay, beside without', 'ms', median(during), median(without), '<= 2')];
}

async function rebuilt({ folder }: Server): Promise<Row[]> {
  const events = await openSqliteEventStore({ folder, mode: 'read' });
  const views = await openSqliteViewStore({ folder });
  const took: number[] = [];
  const keysOf = keysReader(events, await masterKeyOf({ kind: 'sqlite', folder }, events, { given: null, mayMake: false, random: () => new Uint8Array(32) }));
  const view = await views.view('journeys', (await views.live('journeys')) ?? 0, 0);
  for (let next: string | null = null; took.length < REBUILT;) {
    const page = await view.walk(next, 500);
    for (const { key } of page.documents) {
      const [workspace = '', space, journey = ''] = key.split('/');
      if (space !== 'j' || took.length >= REBUILT) continue;
      const keys = await keysOf(workspace);
      const at = process.hrtime.bigint();
      const verified = await verifyJourney({ events, view, keys }, journey);
      took.push(seconds(at) * 1000);
      if (verified.kind !== 'checked' || verified.differences.length > 0) throw new Error(`a journey that is not what the log says: ${JSON.stringify(verified)}`);
    }
    next = page.next;
    if (next === null) break;
  }
  await views.close();
  await events.close();
  return [row('one journey of ten events rebuilt from the log and compared: p99', 'ms', percentile(took, 0.99), null, '<= 100')];
}

/** A commit hashes what it writes and what that takes the place of: each event of a live journey, its journey's documents twice. */
async function digestCost({ folder }: Server): Promise<Row[]> {
  const views = await openSqliteViewStore({ folder });
  const view = await views.view('journeys', (await views.live('journeys')) ?? 0, 0);
  const documents: { key: string; value: string }[] = [];
  for (let next: string | null = null; documents.length < 20_000;) {
    const page = await view.walk(next, 1000);
    documents.push(...page.documents);
    if ((next = page.next) === null) break;
  }
  const hasher = new DocumentHasher();
  const rounds: number[] = [];
  for (let round = 0; round < 5; round += 1) {
    const at = process.hrtime.bigint();
    for (const { key, value } of documents) hasher.hash(key, value);
    rounds.push(seconds(at) * 1e6 / documents.length);
  }
  await views.close();
  const { seconds: took, events } = await replay(['--data', folder]);
  // Of a replay: about two documents an interaction of ten events, written once in a batch that holds all of it.
  const perEvent = median(rounds) * documents.length / Math.max(1, events);
  return [row('digest: hashing what a replay writes, beside the replay', 'µs/event', perEvent, took * 1e6 / events, '<= 0.05')];
}
