// The pipeline: published → durable → folded → queryable, through a server process of its own over HTTP, beside the same
// door without a projector, and beside write + fdatasync of the same bytes.
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, fdatasyncSync, mkdtempSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { Agent, request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { traffic } from './events.ts';
import { median, percentile, type Row, row, seconds } from './measure.ts';

const BULK = 60_000;
const LIVE = 40_000;
const OPEN = 5_000;
const ROUNDS = 3;
export const BATCH_TYPE = 'application/cloudevents-batch+json';
export const ONE_TYPE = 'application/cloudevents+json';
export const BENCH_KEY = 'bench-key-0123456789abcdef';

/** As the launcher starts `serve`. */
export const NODE = JSON.parse(readFileSync(join(import.meta.dirname, '../../infra/node-flags.json'), 'utf8')) as { flags: { any: string[]; project: string[]; replay: string[] }; environment: Record<string, string> };

export interface Server { readonly port: number; readonly child: ChildProcess; readonly folder: string; readonly agent: Agent }

export async function start(fold: boolean, folder = mkdtempSync(join(tmpdir(), 'throughline-bench-'))): Promise<Server> {
  const child = fork(join(import.meta.dirname, 'server.ts'), [folder, fold ? 'fold' : 'record'], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'], execArgv: NODE.flags.any, env: { ...process.env, ...NODE.environment } });
  const [port] = (await once(child, 'message')) as [number];
  return { port, child, folder, agent: new Agent({ keepAlive: true, maxSockets: 64 }) };
}
export async function stop(server: Server): Promise<void> {
  server.agent.destroy();
  server.child.kill('SIGTERM');
  await once(server.child, 'close');
  rmSync(server.folder, { recursive: true, force: true });
}

interface Answer { readonly status: number; readonly position: string | null; readonly body: string }

export function send(server: Server, method: string, path: string, body: string | null, headers: Record<string, string>): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const call = request({ host: '127.0.0.1', port: server.port, method, path, agent: server.agent, headers: { 'x-api-key': BENCH_KEY, ...(body === null ? {} : { 'content-length': String(Buffer.byteLength(body)) }), ...headers } }, (answer) => {
      const parts: Buffer[] = [];
      answer.on('data', (part: Buffer) => parts.push(part));
      answer.on('end', () => resolve({ status: answer.statusCode ?? 0, position: (answer.headers['throughline-position'] as string | undefined) ?? null, body: Buffer.concat(parts).toString() }));
    });
    call.on('error', reject);
    call.end(body);
  });
}

/** Publishes bodies with so many requests in flight; answers with the highest position. */
export async function publish(server: Server, bodies: Iterator<string>, type: string, inFlight: number, took: number[] = []): Promise<string> {
  let highest = '';
  const worker = async (): Promise<void> => {
    for (let item = bodies.next(); item.done !== true; item = bodies.next()) {
      const at = process.hrtime.bigint();
      const answer = await send(server, 'POST', '/events', item.value, { 'content-type': type });
      if (answer.status !== 200 || answer.position === null) throw new Error(`publishing answered ${answer.status}: ${answer.body.slice(0, 300)}`);
      took.push(seconds(at) * 1000);
      if (answer.position > highest) highest = answer.position;
    }
  };
  await Promise.all(Array.from({ length: inFlight }, worker));
  return highest;
}

export function* batches(lines: Iterable<string>, size: number): Generator<string> {
  let batch: string[] = [];
  for (const line of lines) {
    batch.push(line);
    if (batch.length === size) { yield `[${batch.join(',')}]`; batch = []; }
  }
  if (batch.length > 0) yield `[${batch.join(',')}]`;
}

/** Until a search would show the event at this position. */
export async function queryable(server: Server, position: string): Promise<void> {
  for (;;) {
    const answer = await send(server, 'GET', '/journeys/00000000000000000000000000000000', null, { 'throughline-min-position': position });
    if (answer.status === 404) return;
    if (answer.status !== 412 && answer.status !== 503) throw new Error(`waiting answered ${answer.status}: ${answer.body}`);
    await pause(5);
  }
}

/** Events a second, from the first published to the last durable (and, with a projector, queryable). */
async function rate(fold: boolean, count: number, open: number, batch: number, inFlight: number): Promise<{ rate: number; residentMb: number }> {
  const server = await start(fold);
  try {
    // Warm: the code paths compiled, the files there.
    const warm = await publish(server, batches(traffic(5_000, 500, 90_000_000), batch), BATCH_TYPE, inFlight);
    if (fold) await queryable(server, warm);
    const bodies = [...batches(traffic(count, open), batch)];
    const at = process.hrtime.bigint();
    const position = await publish(server, bodies.values(), BATCH_TYPE, inFlight);
    if (fold) await queryable(server, position);
    return { rate: count / seconds(at), residentMb: resident(server.child.pid ?? 0, 'VmHWM') };
  } finally {
    await stop(server);
  }
}

function resident(pid: number, field: 'VmHWM' | 'VmRSS'): number {
  return Number(new RegExp(`${field}:\\s+(\\d+)`).exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? Number.NaN) / 1024;
}

/** write + fdatasync of the same bytes, in the same batches. */
function rawRate(count: number, open: number, batch: number): number {
  const folder = mkdtempSync(join(tmpdir(), 'throughline-raw-'));
  const bodies = [...batches(traffic(count, open), batch)].map((body) => Buffer.from(body));
  const file = openSync(join(folder, 'raw'), 'w');
  const at = process.hrtime.bigint();
  for (const body of bodies) { writeSync(file, body); fdatasyncSync(file); }
  const result = count / seconds(at);
  closeSync(file);
  rmSync(folder, { recursive: true });
  return result;
}

export async function pipelineRows(): Promise<Row[]> {
  const bulk = { with: [] as number[], without: [] as number[], raw: [] as number[] };
  const live = { with: [] as number[], without: [] as number[] };
  let residentMb = 0;
  for (let round = 0; round < ROUNDS; round += 1) {
    const folded = await rate(true, BULK, 500, 500, 4);
    bulk.with.push(folded.rate);
    bulk.without.push((await rate(false, BULK, 500, 500, 4)).rate);
    bulk.raw.push(rawRate(BULK, 500, 500));
    const alive = await rate(true, LIVE, OPEN, 20, 16);
    live.with.push(alive.rate);
    live.without.push((await rate(false, LIVE, OPEN, 20, 16)).rate);
    residentMb = Math.max(residentMb, folded.residentMb, alive.residentMb);
  }
  return [
    row('bulk import: published → queryable, beside the same door without a projector', 'events/s', median(bulk.with), median(bulk.without), '>= 0.25'),
    row('bulk import: published → queryable, beside write + fdatasync', 'events/s', median(bulk.with), median(bulk.raw), null),
    row(`live, ${OPEN.toLocaleString('en-US')} interactions open: published → queryable, beside the same door without a projector`, 'events/s', median(live.with), median(live.without), null),
    row('resident memory of serve, highest of these', 'MB', residentMb, null, '<= 400'),
    ...(await singleRows()),
  ];
}

/** One event a request, a projector folding meanwhile. */
async function singleRows(): Promise<Row[]> {
  const rows: Row[] = [];
  for (const [connections, count] of [[1, 1_500], [64, 12_000]] as const) {
    const server = await start(true);
    try {
      await publish(server, batches(traffic(2_000, 200, 90_000_000), 100), BATCH_TYPE, 2);
      const took: number[] = [];
      const at = process.hrtime.bigint();
      await publish(server, traffic(count, 500, 1_000_000), ONE_TYPE, connections, took);
      const ours = count / seconds(at);
      rows.push(row(`one event a request, ${connections} connection${connections === 1 ? '' : 's'}, beside one write + fdatasync each`, 'events/s', ours, rawRate(Math.min(count, 4_000), 500, 1), null));
      rows.push(row(`one event a request, ${connections} connection${connections === 1 ? '' : 's'}: p99 until durable`, 'ms', percentile(took, 0.99), null, null));
    } finally {
      await stop(server);
    }
  }
  return rows;
}

/** Events 900,000–1,000,000 beside events 100,000–200,000 of one server's life. */
export async function growthRows(total = 1_000_000): Promise<Row[]> {
  const server = await start(true);
  try {
    const part = total / 10;
    const times: number[] = [];
    for (let i = 0; i < 10; i += 1) {
      const at = process.hrtime.bigint();
      await queryable(server, await publish(server, batches(traffic(part, OPEN, i * part), 500), BATCH_TYPE, 4));
      times.push(seconds(at));
      process.stderr.write(`  ${((i + 1) * part).toLocaleString('en-US')} events: ${Math.round(part / (times.at(-1) ?? 1)).toLocaleString('en-US')} events/s, ${Math.round(resident(server.child.pid ?? 0, 'VmRSS'))} MB\n`);
    }
    return [
      row(`cost of events ${(total * 0.9).toLocaleString('en-US')}–${total.toLocaleString('en-US')} beside events ${part.toLocaleString('en-US')}–${(part * 2).toLocaleString('en-US')}`, 's', times[9] ?? 0, times[1] ?? 0, '<= 1.3'),
      row(`resident memory of serve after ${total.toLocaleString('en-US')} events (peak)`, 'MB', resident(server.child.pid ?? 0, 'VmHWM'), null, '<= 400'),
    ];
  } finally {
    await stop(server);
  }
}
