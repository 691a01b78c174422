// `make bench-servers`: one run, one table, of the line on a real broker and a real Redis. SQLite is the event store, and the
// double of an EventStoreDB in rows of its own, marked so: it is no server, and they have no targets. A row stands beside a
// raw part (raw.ts) that was measured in turn with it; a raw part's cost is its client's alone, not its server's.
// BENCH_SERVERS=sqlite,eventstoredb,visible,catchup,peer chooses; BENCH_SERVERS_EVENTS (of a line), BENCH_SERVERS_CATCHUP
// (events of the log caught up with), BENCH_SERVERS_SECONDS (of each load) and BENCH_SERVERS_ROUNDS shorten a run.
import { rmSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { type Broker, brokerAbsent, startBroker } from '../support/broker.ts';
import { startEventStoreDouble } from '../support/eventstoredb/double.ts';
import { redisAbsent } from '../support/redis-server.ts';
import { digestsOf, type Digests } from '../support/oracle.ts';
import { removeFolder, temporaryFolder } from '../support/serve.ts';
import { type CatchUpFigures, catchUp, closeRuns, type Corpus, corpusOf, foldInProcess, type LineFigures, makeLog, Run, runLine, sameDigests, startRedisAsRun, type Store } from './line.ts';
import { median, percentile, report, type Row, row } from './measure.ts';
import { openPeer, peerAbsent, type PeerFigures } from './peer.ts';
import { runRaw } from './processes.ts';
import type { RawDone } from './raw.ts';
import { publishToVisible } from './visible.ts';

const wanted = new Set((process.env['BENCH_SERVERS'] ?? 'sqlite,eventstoredb,visible,catchup,peer').split(','));
const EVENTS = Number(process.env['BENCH_SERVERS_EVENTS'] ?? 60_000);
const CATCH_UP = Number(process.env['BENCH_SERVERS_CATCHUP'] ?? 500_000);
const LOAD_SECONDS = Number(process.env['BENCH_SERVERS_SECONDS'] ?? 15);
const ROUNDS = Number(process.env['BENCH_SERVERS_ROUNDS'] ?? 3);
/** As many appends as our adapter has on their way: what reached the highest rate on a real server (environment.md). */
const APPENDS_IN_FLIGHT = 512;

/** measurements.md section 10: Kafka Streams, exactly once, on such a machine; events/s overall and in the second half. */
const PEER_MEASURED = {
  keyed: { name: 'Kafka Streams keyed by interaction, exactly once', all: 38_000, secondHalf: 50_000 },
  repartitioned: { name: 'Kafka Streams repartitioned by interaction, exactly once', all: 28_000, secondHalf: 36_000 },
  redis: { name: 'Kafka Streams to Redis, one HSET an event, exactly once', all: 27_000, secondHalf: 37_000 },
} as const;

const told = (what: string): void => void process.stderr.write(`  ${what}\n`);
const perEvent = (seconds: number, events: number): number => seconds / events * 1e6;
const midst = <T>(rounds: readonly T[], of: (one: T) => number): number => median(rounds.map(of));

// ---- the whole line ----------------------------------------------------------------------------------------------------

const PARTS = ['consume', 'append', 'subscribe', 'commit'] as const;
type Raws = Readonly<Record<(typeof PARTS)[number], RawDone>>;
interface LineRound { readonly line: LineFigures; readonly raw: Raws }

/** The replayed calls must have folded the same views, or the raw part did other work. */
async function replayed(recording: string, calls: 'writes' | 'all', digests: Digests): Promise<RawDone> {
  const redis = await startRedisAsRun();
  try {
    const done = await runRaw({ kind: 'commit to Redis', port: redis.port, recording, calls });
    sameDigests('what was replayed', await digestsOf({ source: '', events: null, folder: '', masterKey: '', workspaceSecret: '', views: `redis://127.0.0.1:${String(redis.port)}/0` }), digests);
    return done;
  } finally {
    await redis.stop();
  }
}

async function rawParts(broker: Broker, store: Store, run: Run, rows: { readonly folder: string; readonly batch: number }, recording: string, digests: Digests): Promise<Raws> {
  const { folder } = rows;
  const consume = await runRaw({ kind: 'consume', broker: broker.url, topic: run.topic, count: EVENTS });
  const commit = await replayed(recording, 'writes', digests);
  if (store === 'SQLite') {
    return { consume, commit, append: await runRaw({ kind: 'append to SQLite', folder, batch: rows.batch }), subscribe: await runRaw({ kind: 'read SQLite', folder }) };
  }
  const double = await startEventStoreDouble();
  try {
    const append = await runRaw({ kind: 'append to EventStoreDB', folder, url: double.url, inFlight: APPENDS_IN_FLIGHT });
    return { consume, commit, append, subscribe: await runRaw({ kind: 'subscribe to EventStoreDB', url: double.url, count: EVENTS }) };
  } finally {
    await double.stop();
  }
}

/** One run past a recorder, whose figures do not count; its log in SQLite is where raw appends take their rows from. */
async function recordLine(broker: Broker, store: Store, corpus: Corpus, recording: string): Promise<LineFigures & { readonly folder: string }> {
  const run = await Run.open(broker, store, { recording });
  const figures = await runLine(run, corpus);
  await run.close({ keep: true });
  return { ...figures, folder: run.places.folder };
}

async function lineRounds(broker: Broker, store: Store, work: string, rows: { readonly folder: string; readonly batch: number; readonly digests: Digests } | null): Promise<{ readonly rounds: readonly LineRound[]; readonly rows: NonNullable<typeof rows> }> {
  const corpus = corpusOf(EVENTS);
  const recording = join(work, `line-${store}.resp`);
  const recorded = await recordLine(broker, store, corpus, recording);
  const from = rows ?? { folder: recorded.folder, batch: recorded.batch ?? 500, digests: await foldInProcess(recorded.folder) };
  if (from.folder !== recorded.folder) removeFolder(recorded.folder);
  sameDigests(`the line over ${store}`, recorded.outcome.digests, from.digests);
  const rounds: LineRound[] = [];
  for (let n = 1; n <= ROUNDS; n += 1) {
    const run = await Run.open(broker, store);
    const line = await runLine(run, corpus);
    sameDigests(`the line over ${store}`, line.outcome.digests, from.digests);
    const raw = await rawParts(broker, store, run, { folder: from.folder, batch: line.batch ?? from.batch }, recording, recorded.outcome.digests);
    await run.close();
    rounds.push({ line, raw });
    told(`line over ${store}, round ${n}: ${(EVENTS / line.seconds).toFixed(0)} events/s, CPU ${perEvent(line.cpu.ingest, EVENTS).toFixed(0)} + ${perEvent(line.cpu.project, EVENTS).toFixed(0)} µs/event beside ${PARTS.map((part) => `${part} ${perEvent(raw[part].cpuSeconds, EVENTS).toFixed(0)}`).join(', ')}; ${line.batch === null ? '' : `${line.batch} events a transaction`}`);
  }
  rmSync(recording);
  return { rounds, rows: from };
}

function lineRows(store: Store, rounds: readonly LineRound[]): Row[] {
  const name = store === 'SQLite' ? 'Kafka → SQLite → Redis' : 'Kafka → EventStoreDB (double) → Redis';
  const rate = midst(rounds, ({ line }) => EVENTS / line.seconds);
  const cpu = (of: (round: LineRound) => number): number => perEvent(midst(rounds, of), EVENTS);
  const target = store === 'SQLite' ? '<= 2' : null;
  return [
    ...PARTS.map((part) => row(`${name}: first consumed → last folded, beside ${part} alone`, 'events/s', rate, midst(rounds, ({ raw }) => EVENTS / raw[part].seconds), null)),
    row(`${name}: CPU of ingest and project, beside the sum of the raw parts' clients`, 'µs/event', cpu(({ line }) => line.cpu.ingest + line.cpu.project), cpu(({ raw }) => PARTS.reduce((sum, part) => sum + raw[part].cpuSeconds, 0)), target),
    row(`${name}: CPU of ingest, beside consume and append`, 'µs/event', cpu(({ line }) => line.cpu.ingest), cpu(({ raw }) => raw.consume.cpuSeconds + raw.append.cpuSeconds), null),
    row(`${name}: CPU of project, beside subscribe and commit`, 'µs/event', cpu(({ line }) => line.cpu.project), cpu(({ raw }) => raw.subscribe.cpuSeconds + raw.commit.cpuSeconds), null),
    row(`${name}: resident memory of ingest, highest`, 'MB', Math.max(...rounds.map(({ line }) => line.peakMb.ingest)), null, null),
    row(`${name}: resident memory of project, highest`, 'MB', Math.max(...rounds.map(({ line }) => line.peakMb.project)), null, null),
  ];
}

// ---- published → visible -----------------------------------------------------------------------------------------------

async function visibleRows(broker: Broker, full: number): Promise<Row[]> {
  const rows: Row[] = [];
  for (const [name, part] of [['a tenth', 0.1], ['half', 0.5]] as const) {
    const run = await Run.open(broker, 'SQLite');
    const { milliseconds, published, seconds, cpu, apiPeakMb } = await publishToVisible(run, full * part, LOAD_SECONDS, 10_000_000);
    await run.close();
    const load = `${name} of the full load (${Math.round(published / seconds).toLocaleString('en-US')} events/s)`;
    rows.push(row(`published → shown by GET /journeys, ${load}: p50`, 'ms', percentile(milliseconds, 0.5), null, null), row(`published → shown by GET /journeys, ${load}: p99`, 'ms', percentile(milliseconds, 0.99), null, null));
    if (part === 0.5) rows.push(row('resident memory of api, answering at half load', 'MB', apiPeakMb, null, null));
    told(`visible at ${load}: ${milliseconds.length} probes, p50 ${percentile(milliseconds, 0.5).toFixed(0)} ms, CPU ${perEvent(cpu, published).toFixed(0)} µs/event`);
  }
  return rows;
}

// ---- catching up -------------------------------------------------------------------------------------------------------

interface CatchUpRound { readonly ours: CatchUpFigures; readonly raw: RawDone; readonly peer: PeerFigures | null }

async function catchUpRows(broker: Broker, work: string): Promise<Row[]> {
  const corpus = corpusOf(CATCH_UP);
  const { folder, head } = await makeLog(corpus);
  const recording = join(work, 'catch-up.resp');
  const once = async (file: string | null): Promise<CatchUpFigures> => {
    const run = await Run.open(broker, 'SQLite', { folder, recording: file });
    try { return await catchUp(run, corpus, head); } finally { await run.close({ keep: true }); }
  };
  const recorded = await once(recording);
  told(`recorded ${(statSync(recording).size / 1e6).toFixed(0)} MB of calls to Redis`);
  const absent = wanted.has('peer') ? peerAbsent() : 'not asked for';
  if (absent !== null) told(`the peer is not run: ${absent}`);
  const peer = absent === null ? await openPeer(broker, corpus) : null;
  const rounds: CatchUpRound[] = [];
  for (let n = 1; n <= ROUNDS; n += 1) {
    const ours = await once(null);
    sameDigests('catching up', ours.outcome.digests, recorded.outcome.digests);
    const raw = await replayed(recording, 'writes', recorded.outcome.digests);
    const theirs = peer === null ? null : await peer.run();
    rounds.push({ ours, raw, peer: theirs });
    told(`catching up, round ${n}: ${(CATCH_UP / ours.seconds).toFixed(0)} events/s, folding ${ours.folding.toFixed(0)}, second half ${ours.secondHalf.toFixed(0)}; the calls replayed ${(CATCH_UP / raw.seconds).toFixed(0)}${theirs === null ? '' : `; the peer ${(CATCH_UP / theirs.seconds).toFixed(0)}, second half ${theirs.secondHalf.toFixed(0)}`}`);
  }
  const both = await replayed(recording, 'all', recorded.outcome.digests);
  peer?.close();
  removeFolder(folder);
  rmSync(recording);
  return figuresOfCatchUp(rounds, both, absent === null);
}

function figuresOfCatchUp(rounds: readonly CatchUpRound[], both: RawDone, peerRan: boolean): Row[] {
  const { events: count } = corpusOf(CATCH_UP);
  const documents = rounds[0]?.ours.outcome.documents ?? 0;
  const ofAll = (rate: number): number => rate * documents / count;
  const [overall, secondHalf] = [midst(rounds, ({ ours }) => count / ours.seconds), midst(rounds, ({ ours }) => ours.secondHalf)];
  const folding = midst(rounds, ({ ours }) => ours.folding);
  const name = `catching up on ${count.toLocaleString('en-US')} events, log → folded → Redis with all indexes`;
  const peers = peerRan
    ? [{ name: 'Kafka Streams 4.1.1 repartitioned by interaction, exactly once, in this run', all: midst(rounds, ({ peer }) => count / (peer?.seconds ?? Number.NaN)), secondHalf: midst(rounds, ({ peer }) => peer?.secondHalf ?? Number.NaN) }]
    : [];
  return [
    row('the projector catching up: documents of its commits, beside a bare client that sends the same calls', 'documents/s', ofAll(folding), ofAll(midst(rounds, ({ raw }) => count / raw.seconds)), '>= 0.6'),
    row('the projector catching up: documents of its commits, beside a bare client that also sends the same reads', 'documents/s', ofAll(folding), ofAll(count / both.seconds), null),
    ...[...peers, ...Object.values(PEER_MEASURED).map((peer) => ({ ...peer, name: `${peer.name} (measured before, measurements.md section 10)` }))].flatMap((peer) => [
      row(`${name}, beside ${peer.name}`, 'events/s', overall, peer.all, '>= 1'),
      row(`${name}, second half, beside ${peer.name}`, 'events/s', secondHalf, peer.secondHalf, '>= 1'),
    ]),
    row('catching up: CPU of project', 'µs/event', perEvent(midst(rounds, ({ ours }) => ours.cpu), count), perEvent(midst(rounds, ({ raw }) => raw.cpuSeconds), count), null),
    row('catching up: resident memory of project, highest', 'MB', Math.max(...rounds.map(({ ours }) => ours.peakMb)), peerRan ? Math.max(...rounds.map(({ peer }) => peer?.peakMb ?? 0)) : null, null),
    row(`memory of Redis per journey, as status prints it (${corpusOf(CATCH_UP).interactions.toLocaleString('en-US')} journeys of ten events)`, 'bytes', midst(rounds, ({ ours }) => ours.outcome.bytesPerJourney), null, null),
  ];
}

// ---- the run -----------------------------------------------------------------------------------------------------------

const absent = [brokerAbsent(), redisAbsent()].filter((why) => why !== null);
if (absent.length > 0) throw new Error(absent.join('; '));
const work = temporaryFolder();
const broker = await startBroker();
const rows: Row[] = [];
let full = Number.NaN;
let sqlite: Awaited<ReturnType<typeof lineRounds>>['rows'] | null = null;
// Their servers go by themselves when this process exits; what they hold in folders stays, as with any process that is cut off.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => void closeRuns().finally(() => process.exit(1)));
try {
  // The double's raw appends take their rows from SQLite's log.
  if (wanted.has('sqlite') || wanted.has('eventstoredb') || wanted.has('visible')) {
    const found = await lineRounds(broker, 'SQLite', work, null);
    sqlite = found.rows;
    full = midst(found.rounds, ({ line }) => EVENTS / line.seconds);
    rows.push(...lineRows('SQLite', found.rounds), row('memory of Redis per journey, as status prints it', 'bytes', midst(found.rounds, ({ line }) => line.outcome.bytesPerJourney), null, null));
  }
  if (wanted.has('eventstoredb')) rows.push(...lineRows('EventStoreDB', (await lineRounds(broker, 'EventStoreDB', work, sqlite)).rounds));
  if (wanted.has('visible')) rows.push(...(await visibleRows(broker, full)));
  if (wanted.has('catchup')) rows.push(...(await catchUpRows(broker, work)));
} finally {
  if (sqlite !== null) removeFolder(sqlite.folder);
  await broker.stop();
  removeFolder(work);
}
report(rows, resolve(import.meta.dirname, '../../bench-servers.json'));
