// Ten times what a `serve` takes, for half a minute: run by hand, or by `make chaos`. First a few clients ask as fast as they
// are answered, which is what it takes; then ten times as many requests are begun a second, whether or not those before
// were answered. It has to shed (503 with Retry-After), its memory has to stay bounded, health and metrics have to answer
// all the while, it has to be back to normal within ten seconds, and whatever it acknowledged has to stand in its log, once.
//   infra/node.sh test/chaos/overload.ts      OVERLOAD_SECONDS=30
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { Agent, request as httpRequest } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { traffic } from '../bench/events.ts';
import { peakMb } from '../bench/processes.ts';
import { timesRecorded } from '../support/recorded.ts';

const SECONDS = Number(process.env['OVERLOAD_SECONDS'] ?? 30);
const TIMES = 10;
const CAPACITY_SECONDS = 3;
const CLIENTS = 32;
/** Begun and not answered: more sockets than these the generator itself would not bear. What would exceed it is counted as not sent. */
const OUTSTANDING_MAX = 2500;
const BATCH_EVENTS = 100;
const TICK_MS = 20;
const PROBE_MS = 250;
const BACK_MS = 10_000;
/** A `serve` may have 400 MB (README, "Bench"); under ten times its load it may hold its bounds of bodies and what is made of them besides. */
const RSS_MAX_MB = 700;
const KEY = 'overload-key-0123456789abcdef';
const ROOT = join(import.meta.dirname, '../..');
const LAUNCHED = JSON.parse(readFileSync(join(ROOT, 'infra/node-flags.json'), 'utf8')) as { readonly flags: { readonly any: readonly string[] }; readonly environment: Readonly<Record<string, string>> };
const SEARCH = JSON.stringify({ dateRange: { start: '2026-01-05T00:00:00Z', end: '2026-01-06T23:59:59Z' }, displayTimezone: 'UTC', limit: 20 });

interface Answer { readonly status: number; readonly retryAfter: string | null; readonly text: string }
interface Tally { sent: number; notSent: number; taken: number; shed: number; shedSilently: number; failed: number; readonly statuses: Map<string, number> }

class Server {
  readonly folder = mkdtempSync(join(tmpdir(), 'throughline-overload-'));
  readonly child: ChildProcess;
  readonly agent = new Agent({ keepAlive: true, maxSockets: OUTSTANDING_MAX });
  port = 0;
  errors = '';

  constructor() {
    this.child = spawn(process.execPath, [...LAUNCHED.flags.any, join(ROOT, 'services/main.ts'), 'serve', '--data', this.folder, '--port', '0', '--log-level', 'warn'], {
      stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...LAUNCHED.environment, THROUGHLINE_API_KEY: KEY },
    });
    this.child.stderr?.setEncoding('utf8').on('data', (text: string) => { this.errors = (this.errors + text).slice(-20_000); });
  }

  async started(): Promise<void> {
    let said = '';
    this.child.stdout?.setEncoding('utf8').on('data', (text: string) => { said += text; });
    while (this.port === 0) {
      if (this.child.exitCode !== null) throw new Error(`serve ended: ${this.errors}`);
      await pause(20);
      this.port = Number(/http:\/\/127\.0\.0\.1:(\d+)/.exec(said)?.[1] ?? 0);
    }
  }

  send(method: 'GET' | 'POST', path: string, body: string | null = null, type = '', agent = this.agent): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const call = httpRequest({ host: '127.0.0.1', port: this.port, method, path, agent, headers: { 'x-api-key': KEY, ...(body === null ? {} : { 'content-type': type, 'content-length': Buffer.byteLength(body) }) } }, (answer) => {
        const parts: Buffer[] = [];
        answer.on('data', (part: Buffer) => parts.push(part));
        answer.on('error', reject);
        answer.on('end', () => { resolve({ status: answer.statusCode ?? 0, retryAfter: answer.headers['retry-after'] ?? null, text: Buffer.concat(parts).toString() }); });
      });
      call.on('error', reject);
      call.end(body);
    });
  }

  /** Resident now. */
  rssMb(): number { return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${String(this.child.pid)}/status`, 'utf8'))?.[1] ?? Number.NaN) / 1024; }

  async end(): Promise<number | null> {
    this.agent.destroy();
    this.child.kill('SIGTERM');
    const [code] = (await once(this.child, 'close')) as [number | null];
    return code;
  }
}

/** What clients do: publish a hundred events, publish one, search. Ids that were acknowledged are kept. */
class Load {
  readonly #server: Server;
  readonly #lines = traffic(50_000_000, 5_000);
  readonly acknowledged = new Set<string>();
  readonly tally: Tally = { sent: 0, notSent: 0, taken: 0, shed: 0, shedSilently: 0, failed: 0, statuses: new Map() };
  #turn = 0;

  constructor(server: Server) { this.#server = server; }

  get outstanding(): number { return this.tally.sent - this.tally.taken - this.tally.shed - this.tally.failed; }

  async next(): Promise<void> {
    const kind = this.#turn++ % 3;
    if (kind === 2) return this.#count(this.#server.send('POST', '/cidp/journey/api/v1/journeys/search', SEARCH, 'application/json'), []);
    const lines = Array.from({ length: kind === 0 ? BATCH_EVENTS : 1 }, () => String(this.#lines.next().value));
    const ids = lines.map((line) => (JSON.parse(line) as { id: string }).id);
    return this.#count(this.#server.send('POST', '/events', kind === 0 ? `[${lines.join()}]` : lines[0] ?? '', `application/cloudevents${kind === 0 ? '-batch' : ''}+json`), ids);
  }

  async #count(answering: Promise<Answer>, ids: readonly string[]): Promise<void> {
    const { tally } = this;
    tally.sent += 1;
    try {
      const { status, retryAfter, text } = await answering;
      const code = status === 200 ? '200' : `${String(status)} ${/"(?:errorC|c)ode":"(\w+)"/.exec(text)?.[1] ?? ''}`;
      tally.statuses.set(code, (tally.statuses.get(code) ?? 0) + 1);
      if (status === 200) {
        tally.taken += 1;
        for (const id of ids) this.acknowledged.add(id);
      } else if (status === 503 || status === 429) {
        tally.shed += 1;
        if (retryAfter === null) tally.shedSilently += 1;
      } else tally.failed += 1;
    } catch (fault) {
      tally.failed += 1;
      const code = (fault as NodeJS.ErrnoException).code ?? 'error';
      tally.statuses.set(code, (tally.statuses.get(code) ?? 0) + 1);
    }
  }
}

/** Connections that stand before the load comes: a server takes new ones in one by one, and what waits there costs it nothing. */
const CONNECTIONS = 1500;
async function connect(server: Server): Promise<void> {
  for (let made = 0; made < CONNECTIONS; made += 100) await Promise.all(Array.from({ length: made + 100 }, () => server.send('GET', '/healthz')));
}

/** As fast as so many clients are answered: requests a second. */
async function capacityOf(load: Load): Promise<number> {
  const began = performance.now();
  const before = load.tally.taken;
  await Promise.all(Array.from({ length: CLIENTS }, async () => { while (performance.now() - began < CAPACITY_SECONDS * 1000) await load.next(); }));
  return (load.tally.taken - before) / ((performance.now() - began) / 1000);
}

/** So many a second are begun, come what may. */
async function drive(load: Load, perSecond: number): Promise<void> {
  const began = performance.now();
  let begun = 0;
  for (let now = 0; now < SECONDS * 1000; now = performance.now() - began) {
    for (; begun < (now / 1000) * perSecond; begun += 1) {
      if (load.outstanding >= OUTSTANDING_MAX) load.tally.notSent += 1;
      else void load.next();
    }
    await pause(TICK_MS);
  }
}

interface Probed { readonly asked: number; readonly bad: readonly string[]; readonly slowestMs: number; readonly rssMb: number }
/** Health, readiness and metrics, and the memory, until told to stop. */
async function probe(server: Server, signal: AbortSignal): Promise<Probed> {
  let [asked, slowestMs, rssMb] = [0, 0, 0];
  const bad: string[] = [];
  // As a supervisor's probe has it: not behind what the clients queue up.
  const own = new Agent({ keepAlive: true, maxSockets: 1 });
  while (!signal.aborted) {
    for (const path of ['/healthz', '/readyz', '/metrics']) {
      const at = performance.now();
      const { status, text } = await server.send('GET', path, null, '', own);
      slowestMs = Math.max(slowestMs, performance.now() - at);
      asked += 1;
      if (status !== 200) bad.push(`${path} ${String(status)} ${text.slice(0, 200)}`);
    }
    rssMb = Math.max(rssMb, server.rssMb());
    await pause(PROBE_MS);
  }
  own.destroy();
  return { asked, bad, slowestMs, rssMb };
}

/** Until what was in hand is answered and a client's requests, one after the other, all are again. */
async function backAfter(server: Server, load: Load): Promise<number> {
  const began = performance.now();
  for (let row = 0; row < 20;) {
    const before = load.tally.taken;
    await load.next();
    row = load.tally.taken > before ? row + 1 : 0;
    if (performance.now() - began > 10 * BACK_MS) throw new Error(`not back: ${JSON.stringify([...load.tally.statuses])} ${server.errors}`);
  }
  return performance.now() - began;
}

/** Events that are recorded and not folded yet: that takes its time, and keeps nobody waiting. */
async function leftToFold(server: Server): Promise<number> {
  const { text } = await server.send('GET', '/metrics');
  return Math.max(...['journeys', 'persons'].map((group) => Number(new RegExp(`throughline_group_gap\\{group="${group}"\\} (\\d+)`).exec(text)?.[1] ?? Number.NaN)));
}

const server = new Server();
const wrong: string[] = [];
try {
  await server.started();
  const load = new Load(server);
  const capacity = await capacityOf(load);
  await connect(server);
  const before = { rssMb: server.rssMb(), ...load.tally };
  console.log(`takes ${capacity.toFixed(0)} requests/s (publishes of ${String(BATCH_EVENTS)} and of 1, and searches) from ${String(CLIENTS)} clients; resident ${before.rssMb.toFixed(0)} MB`);
  const over = new AbortController();
  const probing = probe(server, over.signal);
  await drive(load, TIMES * capacity);
  const backMs = await backAfter(server, load);
  over.abort();
  const probed = await probing;
  const { tally } = load;
  const count = (of: 'sent' | 'taken' | 'shed'): number => tally[of] - before[of];
  console.log(`${String(TIMES)} times as many for ${String(SECONDS)} s: ${String(count('sent'))} sent, ${String(tally.notSent)} not sent (${String(OUTSTANDING_MAX)} were outstanding), ${String(count('taken'))} taken, ${String(count('shed'))} shed; answers ${[...tally.statuses].map(([code, times]) => `${code}: ${String(times)}`).join(', ')}`);
  console.log(`resident ${probed.rssMb.toFixed(0)} MB at most (peak ${peakMb(server.child.pid ?? 0).toFixed(0)} MB); ${String(probed.asked)} looks at health, readiness and metrics, the slowest ${probed.slowestMs.toFixed(0)} ms; back to normal after ${(backMs / 1000).toFixed(1)} s`);
  const held = /throughline_http_body_bytes_most\{kind="publish"\} (\d+)/.exec((await server.send('GET', '/metrics')).text)?.[1] ?? '?';
  console.log(`bodies held at most ${(Number(held) / 1e6).toFixed(1)} MB; ${String(await leftToFold(server))} events are left to fold; resident then ${server.rssMb().toFixed(0)} MB`);
  if (count('shed') === 0) wrong.push('nothing was shed');
  if (tally.shedSilently > 0) wrong.push(`${String(tally.shedSilently)} were shed without Retry-After`);
  if (tally.failed > 0) wrong.push(`${String(tally.failed)} failed`);
  if (probed.bad.length > 0) wrong.push(`health did not answer: ${probed.bad.slice(0, 3).join('; ')}`);
  if (probed.rssMb > RSS_MAX_MB) wrong.push(`${probed.rssMb.toFixed(0)} MB are more than ${String(RSS_MAX_MB)}`);
  if (backMs > BACK_MS) wrong.push(`not back within ${String(BACK_MS)} ms`);
  if (await server.end() !== 0) wrong.push(`serve did not end well: ${server.errors}`);
  const times = await timesRecorded(server.folder);
  const lost = [...load.acknowledged].filter((id) => !times.has(id)).length;
  const twice = [...times.values()].filter((one) => one > 1).length;
  if (lost > 0 || twice > 0) wrong.push('the log is wrong');
  console.log(`${String(load.acknowledged.size)} acknowledged, ${String(lost)} lost, ${String(twice)} twice`);
} finally {
  server.child.kill('SIGKILL');
  rmSync(server.folder, { recursive: true, force: true });
}
for (const one of wrong) console.log(`WRONG: ${one}`);
process.exitCode = wrong.length === 0 ? 0 : 1;
