// More than a server takes on: what comes beyond its bounds is told to come again before it costs anything, what is under
// way is not harmed, and afterwards all is as before. The bounds are small here, so that little load reaches them;
// test/chaos/overload.ts drives a `serve` with its own bounds for half a minute and measures its memory.
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { type ClientRequest, type IncomingMessage, request as httpRequest } from 'node:http';
import { sleep } from '../../services/lifecycle.ts';
import { createLog } from '../../services/log.ts';
import { Admission, type AdmissionLimits } from '../../services/admission.ts';
import type { Io } from '../../services/ops/terminal.ts';
import { runProgram } from '../../services/programs.ts';
import { timesRecorded } from '../support/recorded.ts';
import { removeFolder, temporaryFolder, TEST_KEY, until } from '../support/serve.ts';

const KIB = 1024;
const LIMITS: AdmissionLimits = { publish: { requests: 8, bytes: 256 * KIB }, query: { requests: 4, bytes: 16 * KIB }, line: { ms: 60_000, requests: 0 } };
const BATCH = 'application/cloudevents-batch+json';
const SEARCH = '/cidp/journey/api/v1/journeys/search';
const QUERY = JSON.stringify({ dateRange: { start: '2026-03-02T00:00:00Z', end: '2026-03-02T23:59:59Z' }, displayTimezone: 'UTC' });

interface Answer { readonly status: number; readonly body: Record<string, unknown>; readonly text: string; readonly headers: IncomingMessage['headers'] }
interface Sending { readonly request: ClientRequest; readonly answer: Promise<Answer> }

let url = '';
let folder = '';
let code: Promise<number>;
const ending = new AbortController();

beforeAll(async () => {
  folder = temporaryFolder();
  const place = { kind: 'sqlite', folder } as const;
  const io: Io = {
    stdout: { write: () => undefined }, stderr: { write: () => undefined }, stdin: (async function* none() { /* nothing */ })(), isTty: false, signal: ending.signal,
    clock: { now: () => Date.now() }, random: (size) => randomBytes(size), sleep, fetch,
  };
  // It records and does not fold: a request that waits for a position then waits for its full time, and keeps its place.
  code = runProgram('serve', { events: place, views: place, host: '127.0.0.1', port: 0, logLevel: 'error', apiKey: TEST_KEY, masterKey: null }, io, { log: createLog('error', () => undefined), version: 'test', onStarted: (at) => { url = at; } }, { fold: false, admission: LIMITS });
  await until('it serves', () => url !== '');
});
afterAll(async () => {
  ending.abort();
  expect(await code).toBe(0);
  removeFolder(folder);
});

/** On a connection of its own. Nothing of the body is sent yet; the headers are. */
function begin(path: string, method: 'GET' | 'POST', headers: Readonly<Record<string, string | number>> = {}): Sending {
  const { hostname, port } = new URL(url);
  const request = httpRequest({ agent: false, hostname, port, method, path, headers: { 'x-api-key': TEST_KEY, ...headers } });
  request.flushHeaders();
  const answer = (async () => {
    const [response] = (await once(request, 'response')) as [IncomingMessage];
    let text = '';
    for await (const chunk of response.setEncoding('utf8') as AsyncIterable<string>) text += chunk;
    return { status: response.statusCode ?? 0, text, body: /json/.test(String(response.headers['content-type'])) ? JSON.parse(text) as Record<string, unknown> : {}, headers: response.headers };
  })();
  answer.catch(() => undefined);
  return { request, answer };
}
function send(path: string, body: string, type: string): Promise<Answer> {
  const { request, answer } = begin(path, 'POST', { 'content-type': type, 'content-length': Buffer.byteLength(body) });
  request.end(body);
  return answer;
}
const ask = (path: string, headers: Readonly<Record<string, string>> = {}): Promise<Answer> => {
  const { request, answer } = begin(path, 'GET', headers);
  request.end();
  return answer;
};
const search = (): Promise<Answer> => send(SEARCH, QUERY, 'application/json');

const event = (id: string, bytes = 0): Record<string, unknown> => ({ specversion: '1.0', id, source: 'load', type: 'test.load', subject: `customer-${id}`, ...(bytes === 0 ? {} : { data: 'x'.repeat(bytes) }) });
const batch = (name: string, bytes: number): string => JSON.stringify([event(`${name}-a`, bytes / 2), event(`${name}-b`, bytes / 2)]);

/** A publish of which one half has been sent. */
function half(text: string, chunked = false): Sending {
  const sending = begin('/events', 'POST', { 'content-type': BATCH, ...(chunked ? { 'transfer-encoding': 'chunked' } : { 'content-length': Buffer.byteLength(text) }) });
  sending.request.write(text.slice(0, text.length / 2));
  return sending;
}
function finish({ request, answer }: Sending, text: string): Promise<Answer> {
  request.end(text.slice(text.length / 2));
  return answer;
}

async function metric(name: string, labels: string): Promise<number> {
  const { status, text } = await ask('/metrics');
  expect(status).toBe(200);
  return Number(new RegExp(`^throughline_http_${name}\\{${labels}\\} (\\d+)$`, 'm').exec(text)?.[1] ?? -1);
}
const held = (): Promise<number> => metric('body_bytes', 'kind="publish"');

/** Everything is at rest: no place is taken and no body held. */
async function atRest(): Promise<void> {
  await until('nothing is under way', async () => await held() === 0 && await metric('under_way', 'kind="publish"') === 0 && await metric('under_way', 'kind="query"') === 0);
}
/** In our own dialect or in 8x8's. */
function expectShed({ status, body, headers }: Answer): void {
  const [first] = (body['errors'] ?? []) as { code?: string; errorCode?: string; message: string }[];
  expect({ status, code: first?.code ?? first?.errorCode, retryAfter: headers['retry-after'] }).toEqual({ status: 503, code: 'overloaded', retryAfter: '1' });
  expect(first?.message).toContain('Retry-After');
}
async function expectAnswersOfItself(): Promise<void> {
  expect((await ask('/healthz')).status).toBe(200);
  expect((await ask('/readyz')).status).toBe(200);
  expect((await ask('/metrics')).status).toBe(200);
}

afterEach(atRest);

describe('bodies', () => {
  test('those held are bounded together, by the length that each tells: the next is told to come again, queries and health are answered, and those held are taken', async () => {
    const texts = ['one', 'two', 'three', 'four'].map((name) => batch(name, 60 * KIB));
    const bytes = texts.reduce((sum, text) => sum + Buffer.byteLength(text), 0);
    const sent = texts.map((text) => half(text));
    await until('all four are held', async () => await held() === bytes);
    const shed = await metric('shed_total', 'kind="publish",shortage="bytes"');
    // Larger than what a socket takes by itself: the answer comes while it is still sent.
    expectShed(await send('/events', batch('beyond', 200 * KIB), BATCH));
    expectShed(await send('/events', batch('beyond', 20 * KIB), BATCH));
    expect(await metric('shed_total', 'kind="publish",shortage="bytes"')).toBe(shed + 2);
    await expectAnswersOfItself();
    // Nothing is folded here, so that a search is told just that.
    expect(await search()).toMatchObject({ status: 503, body: { errors: [{ errorCode: 'building' }] } });
    // What fits beside them is taken.
    expect(await send('/events', JSON.stringify(event('small')), 'application/cloudevents+json')).toMatchObject({ status: 200, body: { result: 'recorded' } });
    for (const [i, one] of sent.entries()) expect(await finish(one, texts[i] ?? '')).toMatchObject({ status: 200, body: { recorded: 2 } });
    await atRest();
    expect(await send('/events', batch('beyond', 200 * KIB), BATCH)).toMatchObject({ status: 200, body: { recorded: 2 } });
    const times = await timesRecorded(folder);
    for (const id of ['one-a', 'one-b', 'four-b', 'small', 'beyond-a']) expect([id, times.get(id)]).toEqual([id, 1]);
    expect(await metric('body_bytes_most', 'kind="publish"')).toBeLessThanOrEqual(LIMITS.publish.bytes);
  });

  test('one that tells no length is held as it comes, and given up where it would take too much', async () => {
    const [first, text] = [batch('first', 200 * KIB), batch('chunked', 120 * KIB)];
    const holding = half(first);
    await until('the first is held', async () => await held() > 0);
    const before = await held();
    const small = half(batch('fits', 20 * KIB), true);
    await until('a half of the second is held as well', async () => await held() > before + 5 * KIB);
    const beyond = half(text, true);
    beyond.request.end(text.slice(text.length / 2));
    expectShed(await beyond.answer);
    // What it had sent of it is let go.
    await until('the others alone are held', async () => await held() < before + 15 * KIB);
    expect(await finish(small, batch('fits', 20 * KIB))).toMatchObject({ status: 200, body: { recorded: 2 } });
    expect(await finish(holding, first)).toMatchObject({ status: 200, body: { recorded: 2 } });
    expect((await timesRecorded(folder)).get('chunked-a')).toBeUndefined();
  });

  test('one alone is taken though it is larger than all may be together, and nothing beside it', async () => {
    const large = batch('alone', 300 * KIB);
    const sent = half(large);
    await until('it is held', async () => await held() === Buffer.byteLength(large));
    expectShed(await send('/events', JSON.stringify(event('beside')), 'application/cloudevents+json'));
    expect(await finish(sent, large)).toMatchObject({ status: 200, body: { recorded: 2 } });
  });

  test('whoever goes away while he sends gives his room back', async () => {
    const text = batch('gone', 200 * KIB);
    const sent = half(text);
    await until('it is held', async () => await held() > 0);
    sent.request.destroy();
    await atRest();
    expect((await timesRecorded(folder)).get('gone-a')).toBeUndefined();
  });

  test('one that is too large for the endpoint is refused as ever and held by nobody', async () => {
    expect(await send('/events', ' '.repeat(17 * KIB * KIB), BATCH)).toMatchObject({ status: 413, body: { errors: [{ code: 'bodyTooLarge' }] } });
    expect(await send(SEARCH, ' '.repeat(300 * KIB), 'application/json')).toMatchObject({ status: 413 });
  });
});

describe('requests', () => {
  test('publishes under way are bounded, and keep no query out', async () => {
    const texts = Array.from({ length: LIMITS.publish.requests }, (_, i) => batch(`waits-${String(i)}`, 2 * KIB));
    const sent = texts.map((text) => half(text));
    await until('all are under way', async () => await metric('under_way', 'kind="publish"') === texts.length);
    expectShed(await send('/events', JSON.stringify(event('many')), 'application/cloudevents+json'));
    expect(await metric('shed_total', 'kind="publish",shortage="requests"')).toBeGreaterThan(0);
    expect((await ask('/sources')).status).toBe(200);
    await expectAnswersOfItself();
    for (const [i, one] of sent.entries()) expect(await finish(one, texts[i] ?? '')).toMatchObject({ status: 200 });
  });

  test('queries under way are bounded, and keep no publish out', async () => {
    const { headers } = await send('/events', JSON.stringify(event('awaited')), 'application/cloudevents+json');
    const awaited = { 'throughline-min-position': String(headers['throughline-position']) };
    // Nobody folds here: each of these waits for its two seconds.
    const waiting = Array.from({ length: LIMITS.query.requests }, () => ask('/journeys/any', awaited));
    await until('all wait', async () => await metric('under_way', 'kind="query"') === LIMITS.query.requests);
    expectShed(await search());
    expectShed(await ask('/sources'));
    // Who has no key is told so, and takes no place.
    expect((await ask('/sources', { 'x-api-key': 'wrong' })).status).toBe(401);
    expect(await send('/events', JSON.stringify(event('meanwhile')), 'application/cloudevents+json')).toMatchObject({ status: 200 });
    await expectAnswersOfItself();
    for (const answer of await Promise.all(waiting)) expect(answer).toMatchObject({ status: 503, body: { errors: [{ code: 'building' }] } });
    expect((await ask('/sources')).status).toBe(200);
  });
});

describe('the line', () => {
  const limits: AdmissionLimits = { ...LIMITS, line: { ms: 1000, requests: 3 } };
  const turnIsOver = (): Promise<unknown> => new Promise((resolve) => { setImmediate(resolve); });
  const TURNS = 8;

  test('one is begun in eight turns of the event loop, in the order in which they came', async () => {
    const admission = new Admission({ now: () => 0 }, limits);
    const begun: number[] = [];
    const turns = Array.from({ length: 4 }, async (_, i) => {
      await admission.enter('query')?.turn();
      begun.push(i);
    });
    await Promise.resolve();
    expect(begun).toEqual([0]);
    for (let turn = 1; turn < 4 * TURNS - 1; turn += 1) {
      await turnIsOver();
      await Promise.resolve();
      expect(begun.length).toBeLessThanOrEqual(2 + turn / TURNS);
    }
    expect(begun).toEqual([0, 1, 2, 3]);
    await Promise.all(turns);
  });

  test('whose first has waited too long and in which enough stand lets in nobody more, until it has gone on', async () => {
    let now = 0;
    const admission = new Admission({ now: () => now }, limits);
    const [first, ...waiting] = Array.from({ length: 4 }, async () => admission.enter('publish')?.turn());
    await first;
    now = 999;
    expect(admission.enter('publish')).not.toBeNull();
    now = 1000;
    expect([admission.enter('query'), admission.enter('publish')]).toEqual([null, null]);
    expect(admission.counts()).toMatchObject({ query: { shed: { time: 1, requests: 0 } }, publish: { shed: { time: 1 } } });
    await waiting[0];
    // Two are not enough to say that it is their number.
    expect(admission.enter('publish')).not.toBeNull();
    await Promise.all(waiting);
  });

  test('hundreds in it are begun each once', async () => {
    const admission = new Admission({ now: () => 0 }, { ...limits, query: { requests: 1000, bytes: 1000 } });
    const begun: number[] = [];
    await Promise.all(Array.from({ length: 500 }, async (_, i) => {
      await admission.enter('query')?.turn();
      begun.push(i);
    }));
    expect(begun).toEqual(Array.from({ length: 500 }, (_, i) => i));
  });

  test('a place is free once its work is done and its answer has gone, both', () => {
    const admission = new Admission({ now: () => 0 }, limits);
    const place = admission.enter('publish');
    if (place === null) throw new Error('there is room');
    expect(place.reserve(1000)).toBe(true);
    place.leave();
    expect(admission.counts().publish).toMatchObject({ underWay: 1, bytes: 1000 });
    place.leave();
    expect(admission.counts().publish).toMatchObject({ underWay: 0, bytes: 0, bytesMost: 1000 });
  });
});

test('G1, G4: of 300 publishes at once some are told to come again; each comes again until it is taken, nothing acknowledged is missing and nothing is there twice', async () => {
  const shedBefore = await metric('shed_total', 'kind="publish",shortage="requests"') + await metric('shed_total', 'kind="publish",shortage="bytes"');
  let shed = 0;
  const publishUntilTaken = async (name: string): Promise<string> => {
    for (;;) {
      const answer = await send('/events', batch(name, 40 * KIB), BATCH);
      if (answer.status === 200) return (answer.body as { results: { result: string }[] }).results.map(({ result }) => result).join();
      expectShed(answer);
      shed += 1;
      await until('there is room', async () => await held() < LIMITS.publish.bytes / 2);
    }
  };
  const names = Array.from({ length: 300 }, (_, i) => `burst-${String(i)}`);
  const results = await Promise.all(names.map(publishUntilTaken));
  expect(new Set(results)).toEqual(new Set(['recorded,recorded']));
  expect(shed).toBeGreaterThan(0);
  await atRest();
  expect(await metric('shed_total', 'kind="publish",shortage="requests"') + await metric('shed_total', 'kind="publish",shortage="bytes"')).toBe(shedBefore + shed);
  const times = await timesRecorded(folder);
  expect(names.flatMap((name) => [`${name}-a`, `${name}-b`]).filter((id) => times.get(id) !== 1)).toEqual([]);
  expect(await send('/events', JSON.stringify(event('afterwards')), 'application/cloudevents+json')).toMatchObject({ status: 200, body: { result: 'recorded' } });
});
