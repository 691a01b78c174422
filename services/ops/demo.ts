// `make demo`: the whole line on an empty folder, as a user would run it: a server of its own, two imports over HTTP, and
// questions that can be pasted. It runs the same programs, not a shortcut through them.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { type Io, table } from './terminal.ts';

export interface DemoOptions {
  readonly host: string;
  /** Where to listen; 0 picks a free port. */
  readonly port: number;
  /** Ends after printing instead of going on. */
  readonly exit: boolean;
  /** The checkout, where the fixtures are. */
  readonly root: string;
  readonly main: string;
  readonly node: string;
  readonly environment: Readonly<Record<string, string | undefined>>;
}

interface Question { readonly title: string; readonly method: 'GET' | 'POST'; readonly path: string; readonly body?: unknown }
type Row = Readonly<Record<string, unknown>>;

const DAY = { start: '2026-03-02T00:00:00+02:00', end: '2026-03-02T23:59:59+02:00' };
const CAPTURED = { start: '2023-06-20T00:00:00Z', end: '2023-08-10T00:00:00Z' };
const JOURNEYS = '/cidp/journey/api/v1/journeys/search';
const TRANSITIONS = '/cidp/journey/api/v1/transitions/search';
const ZONE = 'Europe/Bucharest';

/** Prints what it finds and goes on serving until the signal aborts. Exit code 0, or 1 where a step failed. */
export async function demoVerb(options: DemoOptions, io: Pick<Io, 'stdout' | 'stderr' | 'signal' | 'sleep'>): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), 'throughline-demo-'));
  const line = lineOf(options, folder);
  const server = spawn(options.node, [options.main, 'serve', ...line.data, '--host', options.host, '--port', String(options.port), '--log-level', 'warn'], { stdio: ['ignore', 'pipe', 'inherit'], env: line.environment });
  const ended = once(server, 'close');
  try {
    const { url, key: made } = await started(server);
    // Stores that were there before have their workspace, and its keys are told to nobody: the demo makes one of its own.
    const key = made === '' ? await keyOf(options, line) : made;
    io.stdout.write(`Throughline serves ${url} from ${line.servers.length === 0 ? `the empty folder ${folder}` : `${line.servers.join(', ')}${line.data.length === 0 ? '' : ` and the folder ${folder}`}`}\n\n`);
    for (const file of ['example-day.ndjson', 'wxcc-captured.ndjson']) {
      const code = await bring(options, line, join(options.root, 'test/fixtures', file), url, key, io.signal);
      if (code !== 0) return await isInterrupted(io) ? 0 : 1;
    }
    if (line.fromTopic && !(await arrived(options, line, () => server.exitCode === null, io))) return io.signal.aborted ? 0 : 1;
    await show(url, key, io);
    if (options.exit || io.signal.aborted) return 0;
    io.stdout.write(`\nServing ${url} (documentation: ${url}/docs) until Ctrl-C ...\n`);
    await Promise.race([ended, once(io.signal, 'abort')]);
    return 0;
  } catch (fault) {
    // Ctrl-C tells the server too, and what was being asked of it then fails.
    if (!io.signal.aborted) throw fault;
    return 0;
  } finally {
    server.kill('SIGTERM');
    await ended;
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Ctrl-C ends all processes of a terminal, and what it ended here may be heard of before it is heard itself. */
async function isInterrupted({ signal, sleep }: Pick<Io, 'signal' | 'sleep'>): Promise<boolean> {
  await sleep(SIGNAL_MS, signal);
  return signal.aborted;
}
const SIGNAL_MS = 500;

type Environment = Readonly<Record<string, string | undefined>>;
interface Line {
  /** What is on servers, by its name; empty: nothing. */
  readonly servers: readonly string[];
  /** The folder for what is not, as arguments. */
  readonly data: readonly string[];
  readonly fromTopic: boolean;
  readonly environment: Environment;
}

function lineOf({ environment }: DemoOptions, folder: string): Line {
  const named = (flag: string): boolean => (environment[`THROUGHLINE_${flag}`] ?? '') !== '';
  const servers = [...(named('SOURCE') ? ['Kafka'] : []), ...(named('EVENTS') ? ['EventStoreDB'] : []), ...(named('VIEWS') ? ['Redis'] : [])];
  const data = named('EVENTS') && named('VIEWS') ? [] : ['--data', folder];
  return { servers, data, fromTopic: named('SOURCE'), environment: { ...environment, THROUGHLINE_API_KEY: '', ...(data.length === 0 ? { THROUGHLINE_DATA: '' } : {}) } };
}

/** Waits for the lines that a start prints: the key, where the workspace was just made, and the address. */
async function started(server: ChildProcess): Promise<{ url: string; key: string }> {
  let key = '';
  if (server.stdout === null) throw new Error('the server has no output to read');
  for await (const line of createInterface({ input: server.stdout })) {
    key = /\b(tl_\S+)/.exec(line)?.[1] ?? key;
    const url = /(http:\/\/\S+)/.exec(line)?.[1];
    if (url === undefined) continue;
    server.stdout.resume();
    return { url, key };
  }
  throw new Error('the server ended before it served');
}

/** Runs another verb; its exit code and, of what it printed, the JSON. */
async function verb(options: DemoOptions, line: Line, args: readonly string[]): Promise<{ readonly code: number; readonly said: Row }> {
  const child = spawn(options.node, [options.main, ...args, '--json'], { stdio: ['ignore', 'pipe', 'inherit'], env: line.environment });
  const chunks: Uint8Array[] = [];
  child.stdout.on('data', (chunk: Uint8Array) => chunks.push(chunk));
  const [code] = (await once(child, 'close')) as [number | null];
  return { code: code ?? 1, said: code === 0 ? record(JSON.parse(Buffer.concat(chunks).toString('utf8'))) : {} };
}

async function keyOf(options: DemoOptions, line: Line): Promise<string> {
  const { code, said } = await verb(options, line, ['keys', 'create', '--label', 'demo', '--rate-limit', 'off', ...(line.servers.includes('EventStoreDB') ? [] : line.data)]);
  if (code !== 0) throw new Error('no API key could be made');
  return text(said['key']);
}

/** Onto the topic where there is one, else over HTTP. */
async function bring(options: DemoOptions, line: Line, file: string, url: string, key: string, signal: AbortSignal): Promise<number> {
  const args = line.fromTopic ? ['publish', file] : ['import', file, '--to', url];
  const child = spawn(options.node, [options.main, ...args], { stdio: 'inherit', env: { ...line.environment, THROUGHLINE_API_KEY: line.fromTopic ? '' : key } });
  // What is started just after Ctrl-C hears nothing of it, and would wait for a server that has ended.
  const end = (): void => { child.kill('SIGTERM'); };
  signal.addEventListener('abort', end, { once: true });
  if (signal.aborted) end();
  const [code] = (await once(child, 'close')) as [number | null];
  signal.removeEventListener('abort', end);
  return code ?? 1;
}

/** Until the consumer group has nothing left on the topic: what it has committed is durable. False when it takes too long, the server has ended, or we are told to end. */
async function arrived(options: DemoOptions, line: Line, runs: () => boolean, { stderr, signal, sleep }: Pick<Io, 'stderr' | 'signal' | 'sleep'>): Promise<boolean> {
  for (let look = 0; look < LOOKS_MAX && runs() && !signal.aborted; look += 1) {
    const { said } = await verb(options, line, ['status', ...line.data]);
    const partitions = record(said['source'])['partitions'];
    if (Array.isArray(partitions) && list(partitions).every(({ gap }) => gap === 0)) return true;
    await sleep(LOOK_MS, signal);
  }
  if (!signal.aborted) stderr.write(`the topic was not read to its end${runs() ? ' in time' : ': the server has ended'}; see throughline doctor\n`);
  return false;
}
/** With the start of a process each, some 30 s together. */
const LOOKS_MAX = 40;
const LOOK_MS = 250;

async function show(url: string, key: string, io: Pick<Io, 'stdout' | 'stderr' | 'signal'>): Promise<void> {
  let position: string | null = null;
  const ask = async (question: Question): Promise<Row> => {
    const headers: Record<string, string> = { 'x-api-key': key, 'content-type': 'application/json', ...(position === null ? {} : { 'throughline-min-position': position }) };
    const answer = await fetch(url + question.path, { method: question.method, headers, ...(question.body === undefined ? {} : { body: JSON.stringify(question.body) }) });
    const body = (await answer.json()) as Row;
    if (!answer.ok) throw new Error(`${question.method} ${question.path} answered ${answer.status}: ${JSON.stringify(body)}`);
    return body;
  };
  position = await lastPosition(url, key);
  const day: Question = { title: 'The example day: its journeys', method: 'POST', path: JOURNEYS, body: { dateRange: DAY, displayTimezone: ZONE } };
  const rows = list((await ask(day))['data']);
  print(io, day, url, key, journeysTable(rows));

  const captured: Question = { title: 'What a real Webex site published', method: 'POST', path: JOURNEYS, body: { dateRange: CAPTURED, displayTimezone: 'UTC' } };
  print(io, captured, url, key, journeysTable(list((await ask(captured))['data'])));

  const moved: Question = { title: 'Journeys in which an agent transferred the customer, state by state', method: 'POST', path: TRANSITIONS, body: { dateRange: DAY, displayTimezone: ZONE, filters: [{ name: 'transitions.name', values: ['TRANSFER'] }] } };
  const timelines = list((await ask(moved))['data']).flatMap((journey) => list(journey['transitions']).map((transition) => [short(journey['journeyId']), clock(transition['time']), text(transition['name']), seconds(transition['duration']), names(transition['agents']), text(named(transition['queue'])), text(transition['externalNumber'])]));
  print(io, moved, url, key, table(['journey', 'time', 'state', 'seconds', 'agents', 'queue', 'number'], timelines));

  const range = `from=${encodeURIComponent(DAY.start)}&to=${encodeURIComponent(DAY.end)}`;
  const outcomes: Question = { title: 'Outcomes of the day, in full (the search above has the five that 8x8 published)', method: 'GET', path: `/outcomes?${range}&group=outcome&timezone=${ZONE}` };
  print(io, outcomes, url, key, table(['outcome', 'journeys', 'waiting p90 s'], list((await ask(outcomes))['data']).map((row) => [text(row['outcome']), text(row['journeys']), text(record(row['waiting'])['p90'])])));

  const paths: Question = { title: 'The commonest ways through', method: 'GET', path: `/paths?${range}&limit=5` };
  const ways = list((await ask(paths))['sequences']).map((row) => [text(row['journeys']), text(row['share']), seconds(row['medianDuration']), text(row['outcome']), Array.isArray(row['states']) ? row['states'].map(text).join(' > ') : '']);
  print(io, paths, url, key, table(['journeys', 'share', 'median s', 'outcome', 'states'], ways));
  const one = rows.find((row) => Number(row['transfersCompleted']) > 0) ?? rows[0];
  for (const question of [
    { title: 'One journey with everything behind it', method: 'GET', path: `/journeys/${encodeURIComponent(text(one?.['journeyId']))}` },
    { title: 'A customer, by an e-mail address: all journeys of the person', method: 'GET', path: `/journeys?identity=${encodeURIComponent('ana@example.com')}` },
    { title: 'A customer, by an e-mail address: every event, verbatim', method: 'GET', path: `/history?identity=${encodeURIComponent('ana@example.com')}&limit=3` },
    { title: 'How long each journey waited, talked, was held and was worked on (with &format=csv, for a spreadsheet)', method: 'GET', path: `/durations?${range}&timezone=${ZONE}` },
    { title: 'What each source sent', method: 'GET', path: '/sources' },
  ] as const) {
    await ask(question);
    print(io, question, url, key, '');
  }
}

/** The newest position, as an answer that waits for nothing states it: an import has ended, so the head is what it wrote. */
async function lastPosition(url: string, key: string): Promise<string | null> {
  const answer = await fetch(`${url}/sources`, { headers: { 'x-api-key': key } });
  return answer.headers.get('throughline-head') ?? answer.headers.get('throughline-position');
}

function print(io: Pick<Io, 'stdout' | 'stderr' | 'signal'>, question: Question, url: string, key: string, found: string): void {
  const body = question.body === undefined ? '' : ` -H 'content-type: application/json' -d '${JSON.stringify(question.body)}'`;
  io.stdout.write(`\n${question.title}\n${found}  curl -s '${url}${question.path}' -H 'x-api-key: ${key}'${body}\n`);
}

function journeysTable(rows: readonly Row[]): string {
  return table(['time', 'journey', 'direction', 'media', 'contact', 'queues', 'agents', 'transfers', 'hold s', 'outcome'], rows.map((row) => {
    const contact = record(row['contact']);
    return [clock(row['time']), short(row['journeyId']), text(row['direction']), strings(row['mediaTypes']), text(contact['name'] ?? contact['phoneNumber'] ?? contact['email']), names(row['queues']), names(row['agents']), text(row['transfersCompleted']), seconds(row['holdDuration']), text(row['outcome'])];
  }));
}

const record = (value: unknown): Row => (typeof value === 'object' && value !== null ? (value as Row) : {});
const list = (value: unknown): readonly Row[] => (Array.isArray(value) ? value.map(record) : []);
const named = (value: unknown): unknown => record(value)['name'] ?? record(value)['id'];
const text = (value: unknown): string => (typeof value === 'string' || typeof value === 'number' ? String(value) : '');
const strings = (value: unknown): string => (Array.isArray(value) ? value.map(text).join(', ') : '');
const names = (value: unknown): string => list(value).map((one) => text(named(one))).join(', ');
const seconds = (value: unknown): string => (typeof value === 'number' ? (value / 1000).toFixed(value % 1000 === 0 ? 0 : 1) : 'open');
const short = (value: unknown): string => { const id = text(value); return id.length > 12 ? `${id.slice(0, 12)}…` : id; };
const clock = (value: unknown): string => text(value).replace('T', ' ').replace(/(\.\d+)?(Z|[+-]\d\d:\d\d)$/, '');
