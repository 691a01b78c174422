// Requests that nobody meant to send, against every route of a real `serve` with data in it: it stays up, refuses what is wrong
// in the documented way, and answers nothing with a 5xx. 1,000; FUZZ_FACTOR=1 (`make chaos`) makes them 20,000, FUZZ_SEED=…
// repeats a run.
import type { z } from 'zod';
import { eightByEight, EIGHT_BY_EIGHT_PREFIX } from '../../schemas/apis/eightbyeight.ts';
import { native } from '../../schemas/apis/native.ts';
import { apiEndpoints } from '../../services/api/routes.ts';
import { type Places, type Program, Programs } from '../support/programs.ts';
import { seeded } from '../support/seeded.ts';
import { folded, json, removeFolder, temporaryFolder, TEST_KEY } from '../support/serve.ts';
import { summarise } from '../support/summary.ts';
import { corpus, FUZZ_SEED, sized } from './mutation.ts';
import { type Made, type Operation, operationsOf, Requests } from './requests.ts';
import { type Answer, Wire } from './wire.ts';

const REQUESTS = sized(20_000);
const TEST_MS = 180_000 + REQUESTS * 60;
const WRONG_TOLD = 10;
const SHOWN = 1500;

const ENDPOINTS = Object.values(apiEndpoints({ revision: 'seed', maxRangeDays: 60 }));
const answerOf = ({ operationId }: Operation): z.ZodType => {
  const found = ENDPOINTS.find(({ name }) => name === operationId);
  if (found === undefined) throw new Error(`nobody describes ${operationId}`);
  return found.answer.schema;
};

// ---- what must be true of an answer --------------------------------------------------------------------------------------

/** What is wrong with it; null: nothing. */
function wrongWith({ sent, operation }: Made, answer: Answer): string | null {
  const { status, headers, body } = answer;
  if (status >= 500) return 'a server error';
  const documented = operation?.responses[String(status)];
  if (operation !== null && documented === undefined && !UNPARSED.has(status)) return `a status that ${operation.operationId} does not document`;
  if (sent.method === 'HEAD' || status === 204) return null;
  const type = headers.get('content-type')?.split(';')[0] ?? '';
  if (status >= 400) return errorIn(sent.target, type, body);
  if (operation === null || documented === undefined) return null;
  if (documented.content?.[type] === undefined && Object.keys(documented.content ?? {}).every((known) => known.split(';')[0] !== type)) return `an answer of type ${type}, which ${operation.operationId} does not document`;
  switch (type) {
    case 'application/json': return answered(operation, body);
    case 'text/csv': return csvIn(body.toString());
    case 'application/x-ndjson': return body.toString().split('\n').slice(0, -1).every(isObject) ? null : 'a line of NDJSON that is no object';
    default: return body.length > 0 ? null : 'an empty answer';
  }
}

/** Of what Node's parser cannot read at all, before it is anybody's route. */
const UNPARSED: ReadonlySet<number> = new Set([400, 431]);

function errorIn(target: string, type: string, body: Buffer): string | null {
  if (type !== 'application/json') return `an error of type ${type}`;
  const dialects = target.startsWith(EIGHT_BY_EIGHT_PREFIX) ? [eightByEight.seed, native] : [native, eightByEight.seed];
  const found = parsed(body);
  return found !== undefined && dialects.some(({ errorSchema }) => errorSchema.safeParse(found).success) && body.length > 20 ? null : 'an error in nobody’s form';
}

function answered(operation: Operation, body: Buffer): string | null {
  const value = parsed(body);
  const result = answerOf(operation).safeParse(value);
  if (!result.success) return `another answer than ${operation.operationId} documents: ${result.error.issues.slice(0, 3).map(({ path, message }) => `${path.join('.')}: ${message}`).join('; ')}`;
  if (operation.operationId !== 'publishEvents' || typeof value !== 'object' || value === null || !('results' in value)) return null;
  const { results, recorded, duplicate, rejected } = value as unknown as { readonly results: readonly { readonly result: string }[]; readonly recorded: number; readonly duplicate: number; readonly rejected: number };
  return results.filter(({ result: what }) => what !== 'dryRun').length === recorded + duplicate + rejected ? null : 'received is not recorded + duplicate + rejected';
}

function parsed(body: Buffer): unknown {
  try { return JSON.parse(body.toString()); } catch { return undefined; }
}
function isObject(line: string): boolean {
  const value = parsed(Buffer.from(line));
  return typeof value === 'object' && value !== null;
}

/** RFC 4180: every record has as many fields as the first. */
function csvIn(text: string): string | null {
  let [fields, quoted] = [1, false];
  const counts = new Set<number>();
  for (let at = 0; at < text.length; at += 1) {
    const here = text[at];
    if (here === '"') quoted = !quoted;
    else if (quoted) continue;
    else if (here === ',') fields += 1;
    else if (here === '\r' && text[at + 1] === '\n') { counts.add(fields); fields = 1; at += 1; }
    else if (here === '\r' || here === '\n') return 'a bare end of line in CSV';
  }
  return !quoted && counts.size === 1 && fields === 1 ? null : 'CSV records of different lengths';
}

function shown({ sent: { method, target, headers, body, chunked, framed } }: Made): string {
  const printed = headers.map(([name, value]) => [name, value === TEST_KEY ? 'the key' : value instanceof Uint8Array ? `bytes ${Buffer.from(value).toString('base64')}` : value.slice(0, 200)]);
  return `${method} ${target.slice(0, 400)} ${JSON.stringify(printed)}${chunked ? ' chunked' : ''}${framed ? '' : ' broken off'} body ${Buffer.from(body).toString().slice(0, SHOWN)}`;
}

// ---- the run -------------------------------------------------------------------------------------------------------------

describe(`requests at random (FUZZ_SEED=${String(FUZZ_SEED)})`, () => {
  const folder = temporaryFolder();
  const programs = new Programs();
  const places: Places = { source: '', events: null, views: null, folder: `${folder}/data`, masterKey: '7'.repeat(64), workspaceSecret: '8'.repeat(64) };
  let serve: Program;
  const events = corpus();

  beforeAll(async () => {
    serve = await programs.start('serve', places, { logLevel: 'error' });
    const published = await serve.request('/events', { method: 'POST', headers: { 'content-type': 'application/cloudevents-batch+json' }, body: `[${events.join(',')}]` });
    expect(published.status).toBe(200);
    await folded(serve.request);
  }, 120_000);
  afterAll(async () => {
    await programs.endAll();
    removeFolder(folder);
  });

  test(`${String(REQUESTS)} of them over every route: no crash, no 5xx, and nothing answered in another way than /openapi.json says`, async () => {
    const operations = operationsOf((await (await serve.request('/openapi.json')).json()) as Parameters<typeof operationsOf>[0]);
    const requests = new Requests(seeded(FUZZ_SEED), { operations, events, key: TEST_KEY });
    const wire = new Wire(Number(new URL(serve.url).port));
    const met = new Map(operations.map(({ operationId }) => [operationId, new Set<'answered' | 'refused'>()]));
    const wrong: string[] = [];
    for (let made = 0; made < REQUESTS && wrong.length < WRONG_TOLD; made += 1) {
      const request = requests.next();
      const answer = await wire.send(request.sent).catch((fault: unknown) => String(fault));
      if (serve.exited() !== undefined) throw new Error(`serve ended with ${String(serve.exited())} at request ${String(made)}: ${shown(request)}\n${serve.output()}`);
      const fault = typeof answer === 'string' ? answer : answer === null ? (request.sent.framed ? 'no answer' : null) : wrongWith(request, answer);
      if (fault !== null) wrong.push(`request ${String(made)}: ${fault} (${typeof answer === 'object' ? `${String(answer?.status)} ${answer?.body.toString().slice(0, 300) ?? ''}` : ''}): ${shown(request)}`);
      if (typeof answer !== 'object' || answer === null) continue;
      requests.learn(answer);
      met.get(request.operation?.operationId ?? '')?.add(answer.status < 400 ? 'answered' : 'refused');
    }
    wire.close();
    summarise(`fuzz, seed ${String(FUZZ_SEED)}: ${String(REQUESTS)} requests over ${String(operations.length)} routes, ${String(wrong.length)} wrong answers`);
    expect(wrong).toEqual([]);
    expect([...met].filter(([, how]) => !how.has('answered')).map(([operation]) => operation)).toEqual([]);
    expect([...met].filter(([operation, how]) => needsKey(operations, operation) && !how.has('refused')).map(([operation]) => operation)).toEqual([]);
  }, TEST_MS);

  test('G3, G4: what they published is folded, and nothing was a fault to the server', async () => {
    await folded(serve.request, 60_000);
    expect((await serve.readiness())?.ok).toBe(true);
    expect((await json(await serve.request('/healthz')))['status']).toBe('ok');
    expect(serve.output().split('\n').filter((line) => line.startsWith('{'))).toEqual([]);
  }, TEST_MS);
});

function needsKey(operations: readonly Operation[], name: string): boolean { return operations.find(({ operationId }) => operationId === name)?.responses['401'] !== undefined; }
