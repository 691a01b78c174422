// Whatever is sent, the answer is a JSON error with a code, nothing of ours shows in it or in the log, and the process goes
// on: it is ready, takes the next event and finds it.
import { once } from 'node:events';
import { Agent, type IncomingMessage, request as httpRequest } from 'node:http';
import { connect } from 'node:net';
import { type Seeded, seeded } from '../support/seeded.ts';
import { json, removeFolder, serve, type Served, TEST_KEY } from '../support/serve.ts';

const SEARCH = '/cidp/journey/api/v1/journeys/search';
const TIMELINES = '/cidp/journey/api/v1/transitions/search';
const RANGE = { start: '2026-03-02T00:00:00Z', end: '2026-03-02T23:59:59Z' };
const QUERY = { dateRange: RANGE, displayTimezone: 'UTC' };
const EVENT = { specversion: '1.0', id: 'e', source: 's', type: 't', identity: 'ana@example.com', identitytype: 'email', time: '2026-03-02T09:00:00Z' };
/** Stands in what is sent; it may stand in no log line. */
const MARK = 'xyzzymark';

type Body = string | Uint8Array;
interface Sent { readonly method?: string; readonly path: string; readonly headers?: Readonly<Record<string, string | readonly string[]>>; readonly body?: Body }
interface Answer { readonly status: number; readonly text: string; readonly headers: Readonly<Record<string, string | readonly string[] | undefined>> }

const agent = new Agent({ keepAlive: true, maxSockets: 16 });
let server: Served;

/** By the path as it stands: `fetch` would put it in order. */
async function send({ method = 'GET', path, headers = {}, body }: Sent): Promise<Answer> {
  const { hostname, port } = new URL(server.url);
  const request = httpRequest({ agent, hostname, port, method, path, headers: { 'x-api-key': TEST_KEY, ...headers } as Record<string, string> });
  request.end(body);
  const [response] = (await once(request, 'response')) as [IncomingMessage];
  let text = '';
  for await (const chunk of response.setEncoding('utf8') as AsyncIterable<string>) text += chunk;
  return { status: response.statusCode ?? 0, text, headers: response.headers };
}

/** Bytes as they are, to the end of the connection. `end`: what becomes of it after they are sent. */
async function raw(bytes: Body, end: 'wait' | 'finish' | 'reset' = 'wait'): Promise<string> {
  const { hostname, port } = new URL(server.url);
  const socket = connect(Number(port), hostname);
  let text = '';
  socket.setEncoding('utf8').on('data', (chunk: string) => { text += chunk; });
  // A server that has answered may not read the rest.
  socket.on('error', () => undefined);
  await once(socket, 'connect');
  if (end === 'finish') socket.end(bytes);
  else socket.write(bytes);
  if (end === 'reset') socket.resetAndDestroy();
  if (!socket.closed) await once(socket, 'close');
  return text;
}

/** The code of an error answer, having looked that it is one. */
function codeOf({ status, text, headers }: Answer): string {
  expect({ status, text, type: headers['content-type'] }).toMatchObject({ type: 'application/json' });
  expect(text).not.toMatch(/node_modules|node:internal|\.ts\b|Error:|\bat .+:\d+:\d+/);
  const { errors } = JSON.parse(text) as { errors: { code?: string; errorCode?: string; message: string }[] };
  const [first] = errors;
  expect(first?.message).not.toBe('');
  return first?.code ?? first?.errorCode ?? 'no code';
}

const post = (path: string, body: unknown, type = 'application/json'): Sent => ({ method: 'POST', path, headers: type === '' ? {} : { 'content-type': type }, body: typeof body === 'string' || body instanceof Uint8Array ? body : JSON.stringify(body) });
const publish = (body: unknown, type = 'application/cloudevents+json'): Sent => post('/events', body, type);
const search = (more: object): Sent => post(SEARCH, { ...QUERY, ...more });
const nested = (levels: number): string => '['.repeat(levels) + ']'.repeat(levels);

beforeAll(async () => {
  // As on a machine where nobody says which environment it is: Express then shows more than elsewhere.
  server = await serve({ env: { NODE_ENV: 'development' } });
  const stories = Array.from({ length: 3 }, (_, n) => ({ ...EVENT, id: `known-${n}`, type: 'org.throughline.interaction.started', data: { interactionId: `call-${n}`, medium: 'Phone' } }));
  expect((await send(publish(stories, 'application/cloudevents-batch+json'))).status).toBe(200);
  await server.folded();
}, 180_000);

afterAll(async () => {
  agent.destroy();
  await server.kill('SIGKILL');
  removeFolder(server.folder);
});

afterEach(async () => {
  expect((await send({ path: '/readyz' })).status).toBe(200);
});

describe('a request that is wrong', () => {
  const CASES: readonly (readonly [what: string, sent: Sent, status: number, code: string])[] = [
    // bodies
    ['malformed JSON', post(SEARCH, '{"dateRange":'), 400, 'malformedRequest'],
    ['an empty body', post(SEARCH, ''), 400, 'malformedRequest'],
    ['JSON that is not UTF-8', post(SEARCH, Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d])), 400, 'malformedRequest'],
    ['a body that is no object', post(SEARCH, [QUERY]), 400, 'malformedRequest'],
    ['a null body', post(SEARCH, 'null'), 400, 'malformedRequest'],
    ['no date range', post(SEARCH, { displayTimezone: 'UTC' }), 400, 'dateRangeNotNull'],
    ['a date that is a number', search({ dateRange: { start: 1, end: RANGE.end } }), 400, 'badRequest'],
    ['a range that ends before it starts', search({ dateRange: { start: RANGE.end, end: RANGE.start } }), 400, 'endDateBeforeStartDate'],
    ['a range of years', search({ dateRange: { start: '0000-01-01T00:00:00Z', end: '9999-12-31T23:59:59Z' } }), 400, 'maxInterval'],
    ['a limit in words', search({ limit: 'ten' }), 400, 'badRequest'],
    ['a limit beyond all numbers', post(SEARCH, `{"dateRange":${JSON.stringify(RANGE)},"displayTimezone":"UTC","limit":1e999}`), 400, 'invalidLimit'],
    ['a limit below all', search({ limit: -1e300 }), 400, 'invalidLimit'],
    ['half a limit', search({ limit: 0.5 }), 400, 'invalidLimit'],
    ['filters that are an object', search({ filters: {} }), 400, 'malformedRequest'],
    ['a filter that nobody knows', search({ filters: [{ name: '__proto__', values: ['x'] }] }), 400, 'invalidFilterType'],
    ['a filter named as every object has one', search({ filters: [{ name: 'constructor', values: ['x'] }] }), 400, 'invalidFilterType'],
    ['a filter whose values are nested', search({ filters: [{ name: 'outcome', values: [['x']] }] }), 400, 'badRequest'],
    ['deep nesting where a filter belongs', post(SEARCH, `{"dateRange":${JSON.stringify(RANGE)},"displayTimezone":"UTC","filters":${nested(60_000)}}`), 400, 'malformedRequest'],
    ['a timezone that is none', search({ displayTimezone: 'Mars/Olympus' }), 400, 'invalidTimezone'],
    ['a sort direction that is none', search({ sortDirection: 'SIDEWAYS' }), 400, 'invalidSortDirection'],
    ['a body that is too large', post(SEARCH, `{"x":"${'x'.repeat(300_000)}"}`), 413, 'bodyTooLarge'],
    ['a publish that is too large', publish(Buffer.alloc(17 * 1024 * 1024, 0x20)), 413, 'bodyTooLarge'],
    ['a search that is text', post(SEARCH, QUERY, 'text/plain'), 415, 'unsupportedMediaType'],
    ['a search without a content type', post(SEARCH, QUERY, ''), 415, 'unsupportedMediaType'],
    ['a compressed body', { ...search({}), headers: { 'content-type': 'application/json', 'content-encoding': 'gzip' } }, 415, 'unsupportedMediaType'],
    // events
    ['an event that is malformed JSON', publish('{"specversion":"1.0",'), 400, 'notJson'],
    ['an event that is an array', publish('[]'), 400, 'batchNotAllowed'],
    ['an event with a name twice', publish('{"specversion":"1.0","id":"a","id":"b","source":"s","type":"t","subject":"x"}'), 400, 'duplicateAttribute'],
    ['an event without an id', publish({ ...EVENT, id: undefined }), 400, 'missingAttribute'],
    ['an event of a wrong type', publish({ ...EVENT, source: 5 }), 400, 'attributeType'],
    ['an event of another specification', publish({ ...EVENT, specversion: '0.3' }), 400, 'unknownSpecversion'],
    ['an event at no time', publish({ ...EVENT, time: 'yesterday' }), 400, 'invalidTime'],
    ['an event of nobody', publish({ ...EVENT, identity: undefined, identitytype: undefined }), 400, 'missingIdentity'],
    ['an event that is too large', publish({ ...EVENT, data: 'x'.repeat(300_000) }), 413, 'tooLarge'],
    ['an event whose data is too deep', publish(`${JSON.stringify(EVENT).slice(0, -1)},"data":${nested(100_000)}}`), 400, 'tooDeep'],
    ['an event in bad UTF-8', publish(Buffer.from(JSON.stringify({ ...EVENT, id: 'é' }), 'latin1')), 400, 'badUtf8'],
    ['a batch that is an object', publish(EVENT, 'application/cloudevents-batch+json'), 400, 'notAnObject'],
    ['an event in XML', publish('<event/>', 'application/cloudevents+xml'), 415, 'unsupportedFormat'],
    ['a publish of text', publish('hello', 'text/plain'), 415, 'unsupportedMediaType'],
    ['a publish of nothing', { method: 'POST', path: '/events' }, 415, 'unsupportedMediaType'],
    ['a parameter that a publish does not have', { ...publish(EVENT), path: '/events?dry=true' }, 400, 'unknownParameter'],
    ['a flag that is neither', { ...publish(EVENT), path: '/events?dryRun=yes' }, 400, 'badRequest'],
    // who asks
    ['no key', { path: '/sources', headers: { 'x-api-key': '' } }, 401, 'unauthorized'],
    ['a wrong key', { path: '/sources', headers: { 'x-api-key': `${TEST_KEY}x` } }, 401, 'unauthorized'],
    ['a key of 8,000 characters', { path: '/sources', headers: { 'x-api-key': 'k'.repeat(8000) } }, 401, 'unauthorized'],
    ['a wrong bearer', { path: '/sources', headers: { 'x-api-key': '', authorization: 'Bearer of bad news' } }, 401, 'unauthorized'],
    ['a wrong key where the path has errors of its own', { path: '/persons/%E0%A4%A', headers: { 'x-api-key': 'wrong' } }, 400, 'malformedUrl'],
    ['a search with a wrong key', { ...search({}), headers: { 'x-api-key': 'wrong' } }, 401, 'unauthorized'],
    // paths
    ['an unknown path', { path: '/nowhere' }, 404, 'unknownPath'],
    ['an unknown path of 8x8\'s', { path: '/cidp/journey/api/v1/nowhere' }, 404, 'invalidApiPath'],
    ['a path that climbs', { path: '/../../../../etc/passwd' }, 404, 'unknownPath'],
    ['a path that climbs in disguise', { path: '/journeys/..%2f..%2f..%2fetc%2fpasswd' }, 404, 'unknownJourney'],
    ['a path that climbs with dots encoded', { path: '/docs/%2e%2e/%2e%2e/etc/passwd' }, 404, 'unknownPath'],
    ['invalid percent encoding', { path: '/journeys/%E0%A4%A' }, 400, 'malformedUrl'],
    ['an id with a zero byte', { path: '/journeys/a%00b' }, 404, 'unknownJourney'],
    ['an id of 3,000 characters', { path: `/journeys/${'j'.repeat(3000)}` }, 400, 'badRequest'],
    ['an id that every object has', { path: '/persons/__proto__' }, 404, 'unknownPerson'],
    // parameters
    ['a parameter that is missing', { path: '/history' }, 400, 'missingParameter'],
    ['a parameter that nobody knows', { path: '/history?identity=a&limits=3' }, 400, 'unknownParameter'],
    ['a parameter named as every object has one', { path: '/history?identity=a&__proto__=3' }, 400, 'unknownParameter'],
    ['a parameter twice', { path: '/history?identity=a@example.com&identity=b@example.com' }, 400, 'badRequest'],
    ['a parameter as an object', { path: '/history?identity[a]=b' }, 400, 'missingParameter'],
    ['a form twice', { path: '/history?identity=ana@example.com&format=csv&format=json' }, 400, 'badRequest'],
    ['a form that is none', { path: '/sources?format=xml' }, 400, 'badRequest'],
    ['a limit of zero', { path: '/history?identity=a&limit=0' }, 400, 'badRequest'],
    ['a limit in hexadecimal', { path: '/history?identity=a&limit=0x10' }, 400, 'badRequest'],
    ['a limit of fifty digits', { path: `/history?identity=a&limit=${'9'.repeat(50)}` }, 400, 'badRequest'],
    ['an identity that is broken off', { path: '/persons?identity=%ZZ%E0%A4' }, 404, 'unknownIdentity'],
    ['an identity of 5,000 characters', { path: `/persons?identity=${'a'.repeat(5000)}` }, 400, 'badRequest'],
    ['outcomes of no range', { path: '/outcomes?from=2026-03-02T00:00:00Z' }, 400, 'missingParameter'],
    ['outcomes of all times', { path: '/outcomes?from=0000-01-01T00:00:00Z&to=9999-12-31T23:59:59Z' }, 400, 'rangeTooLong'],
    ['outcomes by the minute', { path: '/outcomes?from=2026-03-02T00:00:00Z&to=2026-03-03T00:00:00Z&by=minute' }, 400, 'badRequest'],
    ['a position of another store', { path: '/journeys/x', headers: { 'throughline-min-position': `00000000-0000-4000-8000-000000000000.${'1'.padStart(20, '0')}` } }, 400, 'foreignPosition'],
    ['a position that is none', { path: '/journeys/x', headers: { 'throughline-min-position': 'latest' } }, 400, 'badPosition'],
  ];

  test.each(CASES)('%s', async (_what, sent, status, code) => {
    const answer = await send(sent);
    expect({ status: answer.status, code: codeOf(answer) }).toEqual({ status, code });
    if (status === 401) expect(answer.headers['www-authenticate']).toBe('Bearer');
  });

  test('a wrong method is told the right ones', async () => {
    const { paths } = (await json(await server.request('/openapi.json'))) as { paths: Record<string, Record<string, unknown>> };
    for (const [path, methods] of Object.entries(paths)) {
      for (const method of ['GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'TRACE', 'PROPFIND', 'QUERY'].filter((one) => methods[one.toLowerCase()] === undefined)) {
        const answer = await send({ method, path: path.replace('{id}', 'x') });
        expect({ method, path, status: answer.status, code: codeOf(answer) }).toEqual({ method, path, status: 405, code: path.startsWith('/cidp/') ? 'invalidRequestMethod' : 'methodNotAllowed' });
        for (const one of Object.keys(methods)) expect(String(answer.headers['allow']).split(', ')).toContain(one.toUpperCase());
      }
    }
  });

  test('a cursor is good for its own query, order and endpoint alone', async () => {
    const cursorOf = async (sent: Sent): Promise<string> => (JSON.parse((await send(sent)).text) as { nextPageCursor: string }).nextPageCursor;
    const page = { limit: 1 };
    const nextPageCursor = await cursorOf(search(page));
    const listed = await cursorOf({ path: '/journeys?identity=ana@example.com&limit=1' });
    const history = await cursorOf({ path: '/history?identity=ana@example.com&limit=1' });
    expect((await send(search({ nextPageCursor }))).status).toBe(200);
    const swapped = Buffer.from(nextPageCursor, 'base64url');
    swapped.writeUInt8(swapped.readUInt8(20) ^ 1, 20);
    const wrong: readonly (readonly [Sent, string])[] = [
      [search({ nextPageCursor, sortDirection: 'DESC' }), 'cursorAndSortMismatch'],
      [search({ nextPageCursor, filters: [{ name: 'outcome', values: ['Handled'] }] }), 'invalidCursor'],
      [search({ nextPageCursor, dateRange: { ...RANGE, end: '2026-03-02T23:59:58Z' } }), 'invalidCursor'],
      [post(TIMELINES, { ...QUERY, nextPageCursor }), 'invalidCursor'],
      [search({ nextPageCursor: listed }), 'invalidCursor'],
      [search({ nextPageCursor: swapped.toString('base64url') }), 'invalidCursor'],
      [search({ nextPageCursor: nextPageCursor.slice(0, -2) }), 'invalidCursor'],
      [search({ nextPageCursor: `${nextPageCursor}=` }), 'invalidCursor'],
      [search({ nextPageCursor: '' }), 'invalidCursor'],
      [search({ nextPageCursor: 7 }), 'badRequest'],
      [{ path: `/journeys?identity=ana@example.com&cursor=${nextPageCursor}` }, 'invalidCursor'],
      [{ path: `/journeys?identity=ana@example.com&cursor=${history}` }, 'invalidCursor'],
      [{ path: `/journeys?identity=bob@example.com&cursor=${listed}` }, 'unknownIdentity'],
      [{ path: `/journeys?identity=ana@example.com&sort=asc&cursor=${listed}` }, 'cursorAndSortMismatch'],
      [{ path: `/history?identity=ana@example.com&cursor=${listed}` }, 'invalidCursor'],
      [{ path: `/history?identity=ana@example.com&sort=desc&cursor=${history}` }, 'cursorAndSortMismatch'],
      [{ path: `/history?identity=bob@example.com&cursor=${history}` }, 'invalidCursor'],
    ];
    for (const [sent, code] of wrong) {
      const answer = await send(sent);
      expect({ sent, code: codeOf(answer) }).toEqual({ sent, code });
      expect(answer.status).toBe(code === 'unknownIdentity' ? 404 : 400);
    }
  });

  test('one bad event of a batch fails no other', async () => {
    const [wrong, large] = [{ ...EVENT, id: '' }, { ...EVENT, id: 'large', data: 'x'.repeat(300_000) }];
    const answer = await send(publish([{ ...EVENT, id: 'good' }, wrong, 7, null, large, { ...EVENT, id: 'fine' }], 'application/cloudevents-batch+json'));
    const { results, recorded, rejected } = JSON.parse(answer.text) as { results: { code?: string }[]; recorded: number; rejected: number };
    expect({ status: answer.status, recorded, rejected, codes: results.map(({ code }) => code) })
      .toEqual({ status: 200, recorded: 2, rejected: 4, codes: [undefined, 'emptyAttribute', 'notAnObject', 'notAnObject', 'tooLarge', undefined] });
  });
});

describe('data that nobody expects', () => {
  test('is kept where it is an event\'s own, and stops no fold', async () => {
    const members = [
      '"interactionId":[[[[]]]]', '"interactionId":{"__proto__":{"x":1}}', `"interactionId":1e400`, '"interactionId":123456789012345678901234567890', '"interactionId":"\\u0000"', '"interactionId":"\\ud800"', `"interactionId":"${'i'.repeat(5000)}"`,
      '"interactionId":"a","interactionId":"b"', '"interactionId":"__proto__"', '"interactionId":"constructor","journeyId":"toString"', `"interactionId":"deep","agents":${nested(500)}`, `"x":${'{"x":'.repeat(400)}1${'}'.repeat(400)}`,
      '"interactionId":"times","medium":"","data":{"__proto__":"x","constructor":"y"}', '"interactionId":null', '"interactionId":-0', '"interactionId":true', `"interactionId":"many","agents":[${Array.from({ length: 3000 }, (_, n) => `{"id":"${n}"}`).join()}]`,
    ];
    const types = ['org.throughline.interaction.started', 'org.throughline.interaction.answered', 'org.throughline.interaction.described', 'org.throughline.customer.identified', 'task:new', 'task:ended', 'agent:state_change', 'constructor', '__proto__'];
    const bodies = types.flatMap((type) => members.map((member, n) => `${JSON.stringify({ ...EVENT, id: `odd-${type}-${n}`, type }).slice(0, -1)},"data":{${member}}}`));
    const answer = await send(publish(`[${bodies.join()}]`, 'application/cloudevents-batch+json'));
    expect(JSON.parse(answer.text)).toMatchObject({ recorded: bodies.length, rejected: 0 });
    for (const type of types.slice(0, 5)) {
      // Binary mode: the body is the data, deeper than any envelope could be.
      const binary = await send({ method: 'POST', path: '/events', body: nested(100_000), headers: { 'content-type': 'application/json', 'ce-specversion': '1.0', 'ce-id': `deep-${type}`, 'ce-source': 's', 'ce-type': type, 'ce-subject': 'x' } });
      expect({ type, status: binary.status, code: codeOf(binary) }).toEqual({ type, status: 400, code: 'tooDeep' });
    }
    await server.folded();
  });
});

describe('bytes that are no request', () => {
  const head = (line: string, ...headers: string[]): string => `${[line, 'Host: localhost', `x-api-key: ${TEST_KEY}`, ...headers].join('\r\n')}\r\n\r\n`;
  const upload = (...headers: string[]): string => head('POST /events HTTP/1.1', 'Content-Type: application/cloudevents+json', ...headers);

  test.each([
    ['huge headers', head('GET /sources HTTP/1.1', `x-${MARK}: ${'h'.repeat(20_000)}`), 431, 'headersTooLarge'],
    ['a thousand headers', head('GET /sources HTTP/1.1', ...Array.from({ length: 1500 }, (_, n) => `x-${n}: ${MARK}`)), 431, 'headersTooLarge'],
    ['a URL of 20,000 characters', head(`GET /history?identity=${'u'.repeat(20_000)} HTTP/1.1`), 431, 'headersTooLarge'],
    ['no HTTP at all', `${MARK}\r\n\r\n`, 400, 'malformedRequest'],
    ['another protocol', Buffer.from('16030100a5010000a10303', 'hex'), 400, 'malformedRequest'],
    ['a header without a name', head('GET /sources HTTP/1.1', ': x'), 400, 'malformedRequest'],
    ['a zero byte in a header', head('GET /sources HTTP/1.1', `x: ${MARK}\0`), 400, 'malformedRequest'],
    ['two lengths', upload('Content-Length: 2', 'Content-Length: 3') + '{}', 400, 'malformedRequest'],
    ['a length and chunks, as a smuggler sends', upload('Content-Length: 4', 'Transfer-Encoding: chunked') + '0\r\n\r\nGET /sources HTTP/1.1\r\n\r\n', 400, 'malformedRequest'],
    ['a length below zero', upload('Content-Length: -5') + '{}', 400, 'malformedRequest'],
    ['chunks of no size', upload('Transfer-Encoding: chunked') + `zz\r\n${MARK}\r\n0\r\n\r\n`, 400, 'malformedRequest'],
  ])('%s', async (_what, bytes, status, code) => {
    const [first = '', body = ''] = (await raw(bytes)).split('\r\n\r\n');
    expect(first).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `));
    expect(codeOf({ status, text: body, headers: { 'content-type': /content-type: (.*)/i.exec(first)?.[1]?.trim() } })).toBe(code);
  });

  test.each([
    ['a body that ends before its length', upload('Content-Length: 1000') + `{"${MARK}`, 'finish'],
    ['an upload whose sender goes away', upload('Content-Length: 1000') + `{"${MARK}`, 'reset'],
    ['chunks whose sender goes away', upload('Transfer-Encoding: chunked') + `5\r\n{"${MARK.slice(0, 3)}\r\n`, 'reset'],
    ['a sender that goes away before its answer', upload('Content-Length: 2') + '{}', 'reset'],
    ['a search whose sender goes away', head(`POST ${SEARCH} HTTP/1.1`, 'Content-Type: application/json', 'Content-Length: 1000') + '{', 'reset'],
    ['half a request line', 'GET /sour', 'finish'],
    ['a tunnel', head('CONNECT localhost:22 HTTP/1.1'), 'finish'],
  ] as const)('%s', async (_what, bytes, end) => {
    const text = await raw(bytes, end);
    expect(text).not.toMatch(/^HTTP\/1\.1 [25]/);
    expect(text).not.toMatch(/node:internal|\bat .+:\d+:\d+/);
  });

  test('requests that are odd and right are answered', async () => {
    const close = 'Connection: close';
    expect(await raw(head('GET http://elsewhere.example/healthz HTTP/1.1', close))).toMatch(/^HTTP\/1\.1 200 /);
    expect(await raw(head('OPTIONS * HTTP/1.1', close))).toMatch(/^HTTP\/1\.1 (204|404) /);
    expect(await raw(head('GET /healthz HTTP/1.1', 'Expect: miracles', close))).toMatch(/^HTTP\/1\.1 200 /);
    expect(await raw(head('GET /healthz HTTP/1.1', 'Upgrade: h2c', 'Connection: close, Upgrade'))).toMatch(/^HTTP\/1\.1 200 /);
    expect(await raw(head('HEAD /healthz HTTP/1.1', close))).toMatch(/^HTTP\/1\.1 200 [\s\S]*\r\n\r\n$/);
  });
});

describe('five hundred requests at random', () => {
  const ODD = [
    '', ' ', '0', '-1', '1e999', 'NaN', 'null', 'undefined', '[]', '{}', 'true', '%00', '%2e%2e%2f', '%E2%80%AE', '%F0%9F%92%A9', '../..', '__proto__', 'constructor', 'toString', "'; DROP TABLE events; --", '<script>', '${7*7}', 'A'.repeat(2000), 'ana@example.com',
    'call-0', 'throughline:call-0', '2026-03-02T00:00:00Z', '9999-12-31T23:59:60Z', '-0001-01-01T00:00:00Z', 'Europe/Bucharest', '+02:00', 'csv', 'ndjson', 'asc', '0'.repeat(32), 'f'.repeat(24), '\u0000', '\ud83d', '٣', 'ﬁ',
  ];
  interface Operation { readonly method: string; readonly path: string; readonly parameters: readonly string[]; readonly example: unknown; readonly type: string }

  async function operations(): Promise<readonly Operation[]> {
    const { paths } = (await json(await server.request('/openapi.json'))) as unknown as { paths: Record<string, Record<string, { parameters: { name: string; in: string }[]; requestBody?: { content: Record<string, { example?: unknown }> } }>> };
    return Object.entries(paths).flatMap(([path, methods]) => Object.entries(methods).map(([method, { parameters, requestBody }]) => {
      const [type = '', content] = Object.entries(requestBody?.content ?? {})[0] ?? [];
      return { method: method.toUpperCase(), path, type, example: content?.example, parameters: parameters.filter((one) => one.in === 'query').map((one) => one.name) };
    }));
  }

  /** One of its parts, anywhere inside, becomes something else. */
  function mutated(value: unknown, chance: Seeded): unknown {
    if (typeof value !== 'object' || value === null || chance.below(4) === 0) return chance.pick<unknown>([...ODD, null, 0, -0, 1e308, 2 ** 53, true, [], {}, [[]], { name: 'x' }, MARK]);
    if (Array.isArray(value)) return value.map((one) => (chance.below(2) === 0 ? mutated(one, chance) : (one as unknown)));
    const entries = Object.entries(value);
    const at = chance.below(entries.length + 1);
    return Object.fromEntries([...entries.map(([name, one], n) => (n === at ? [name, mutated(one, chance)] : [name, one])), ...(at === entries.length ? [[chance.pick(ODD), MARK]] : [])]);
  }

  function bodyOf({ example }: Operation, chance: Seeded): string {
    const text = JSON.stringify(mutated(example, chance));
    switch (chance.below(6)) {
      case 0: return text.slice(0, chance.below(text.length + 1));
      case 1: return text.replace(chance.pick([',', ':', '"', '{', '}']), chance.pick(['', ',,', '\\', '\u0000', ']']));
      default: return text;
    }
  }

  function request(operation: Operation, chance: Seeded): Sent {
    const encoded = (text: string): string => (chance.below(8) === 0 ? text.replaceAll(/[^!-~]/g, '') : encodeURIComponent(text.toWellFormed()));
    const query = Array.from({ length: chance.below(4) }, () => `${encoded(chance.pick(chance.below(5) === 0 ? ODD : [...operation.parameters, 'identity', 'format']))}=${encoded(chance.pick(ODD))}`).join('&');
    const method = chance.below(10) === 0 ? chance.pick(['GET', 'POST', 'PUT', 'DELETE', 'PATCH', 'HEAD', 'OPTIONS']) : operation.method;
    const headers: Record<string, string> = { accept: chance.pick(['*/*', 'text/csv', 'application/x-ndjson;q=zz', ';;;', MARK]) };
    if (operation.type !== '') headers['content-type'] = chance.below(6) === 0 ? chance.pick(['text/plain', 'application/json;charset=utf-16', 'application/cloudevents-batch+json', ';', 'application/x']) : operation.type;
    if (chance.below(6) === 0) headers['throughline-min-position'] = chance.pick(['x', '1.1', `${'0'.repeat(36)}.${'9'.repeat(20)}`, MARK]);
    if (chance.below(12) === 0) headers['x-api-key'] = chance.pick(['', MARK, 'x y']);
    const path = operation.path.replace('{id}', encoded(chance.pick(ODD)));
    return { method, path: query === '' ? path : `${path}?${query}`, headers, ...(operation.type === '' || method === 'GET' || method === 'HEAD' ? {} : { body: bodyOf(operation, chance) }) };
  }

  test('none is a fault of the server, and each refusal is a JSON error with a code', async () => {
    const chance = seeded(20_260_302);
    const all = await operations();
    const sent = Array.from({ length: 500 }, () => request(chance.pick(all), chance));
    const answers = await Promise.all(sent.map(async (one) => ({ one, answer: await send(one) })));
    const statuses = new Set(answers.map(({ answer }) => answer.status));
    expect([...statuses].filter((status) => status >= 500 || status < 200)).toEqual([]);
    expect([...statuses]).toEqual(expect.arrayContaining([200, 400, 401, 404, 405, 415]));
    for (const { one, answer } of answers) if (answer.status >= 400 && one.method !== 'HEAD') expect(codeOf(answer)).not.toBe('no code');
  });
});

describe('after all that', () => {
  test('an event is taken and found', async () => {
    const answer = await send(publish({ ...EVENT, id: 'after', type: 'org.throughline.interaction.started', identity: 'zoe@example.com', data: { interactionId: 'after', medium: 'Chat' } }));
    expect(answer.status).toBe(200);
    const seen = { 'throughline-min-position': String(answer.headers['throughline-position']) };
    expect(JSON.parse((await send({ path: '/journeys?identity=zoe@example.com', headers: seen })).text)).toMatchObject({ totalElements: 1, data: [{ mediaTypes: ['Chat'] }] });
    expect(JSON.parse((await send({ path: '/history?identity=zoe@example.com', headers: seen })).text)).toMatchObject({ data: [{ event: { id: 'after' } }] });
  });

  test('the log has lines in JSON, none of an error, no stack, and nothing that was sent', () => {
    const log = server.stderr();
    const levels = log.trim().split('\n').map((line) => (JSON.parse(line) as { level: string }).level);
    expect([...new Set(levels)]).toEqual(['info']);
    expect(log).not.toMatch(/\bat .+:\d+:\d+/);
    for (const value of [MARK, 'ana@example.com', 'zoe@example.com', TEST_KEY, 'DROP TABLE', 'etc/passwd']) expect(log.includes(value)).toBe(false);
  });
});
