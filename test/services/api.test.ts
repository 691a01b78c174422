import { once } from 'node:events';
import { request as httpRequest, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import fc from 'fast-check';
import type { z } from 'zod';
import { type JourneyDocument, type JourneyRow, type NodeDocument, packDocument, type Transition } from '../../projections/documents.ts';
import { FactPage } from '../../projections/fact-pages.ts';
import { JOURNEY_FILTERS, journeys, TRANSITION_FILTERS } from '../../projections/journeys.ts';
import { quarterKey } from '../../projections/outcomes.ts';
import { persons } from '../../projections/persons.ts';
import type { Json, RecordChange } from '../../projections/projection.ts';
import { newTimelineState } from '../../projections/transitions.ts';
import type { Instant } from '../../schemas/facts.ts';
import { isWorkspaceId, nodeKey, type WorkspaceKeys, workspaceKeys } from '../../schemas/identity.ts';
import { instantOf, msOf, parseInstant } from '../../schemas/time.ts';
import { MemoryEventStore } from '../../services/adapters/memory-events.ts';
import { MemoryViewStore } from '../../services/adapters/memory-views.ts';
import { createApi } from '../../services/api/app.ts';
import { Histories } from '../../services/api/history.ts';
import { formatOf, readCursor, writeCursor } from '../../services/api/pages.ts';
import { apiEndpoints } from '../../services/api/routes.ts';
import { shardOf } from '../../services/shards.ts';
import { createZones } from '../../services/api/zones.ts';
import { Door } from '../../services/door.ts';
import { OperatingError } from '../../services/errors.ts';
import type { EventStore, Position, RateLimiter, View } from '../../services/ports.ts';
import { read } from '../../services/projector/projector.ts';
import { CacheRoom, Target } from '../../services/projector/target.ts';
import { LocalLimiter, type RateSetting } from '../../services/rate-limit.ts';

const KEYS: Readonly<Record<string, string>> = { 'key-of-acme': 'acme', 'key-of-rival': 'rival', 'other-key-of-acme': 'acme' };
const JOURNEYS_SEARCH = '/cidp/journey/api/v1/journeys/search';
const TRANSITIONS_SEARCH = '/cidp/journey/api/v1/transitions/search';
const DAY = { start: '2026-03-02T00:00:00Z', end: '2026-03-02T23:59:59Z' };
const START = Date.parse('2026-03-02T09:00:00Z');

function keysOf(name: string): WorkspaceKeys {
  if (!isWorkspaceId(name)) throw new Error('not a workspace');
  return workspaceKeys(name, new Uint8Array(32).fill(name === 'acme' ? 5 : 6));
}
const at = (text: string): Instant => {
  const instant = parseInstant(text);
  if (instant === null) throw new Error(text);
  return instant;
};

/** A server over memory, the clock in the test's hand: waiting moves it. */
class World {
  readonly events: EventStore;
  readonly views = new MemoryViewStore();
  readonly door: Door;
  readonly logged: Record<string, unknown>[] = [];
  readonly measured: unknown[][] = [];
  readonly keys = new Map(['acme', 'rival'].map((name) => [name, keysOf(name)]));
  now = START;
  /** What happens whenever somebody waits. */
  onWait: () => unknown = () => undefined;
  ready = { ok: true, reasons: [] as string[] };
  /** Of API keys; one that is not here says nothing. */
  readonly rates = new Map<string, RateSetting>(Object.keys(KEYS).map((token) => [token, 'off']));
  limiter: Pick<RateLimiter, 'hit'> = new LocalLimiter({ now: () => this.now });
  #server: Server | null = null;
  url = '';

  constructor(events: EventStore = new MemoryEventStore({ storeId: 'store-1' })) {
    this.events = events;
    this.door = new Door({ store: events, clock: { now: () => this.now }, random: (size) => new Uint8Array(size), sleep: async () => undefined, tallies: this.views });
  }

  async open(options: { door?: boolean; target?: Position | null; storeId?: string } = {}): Promise<this> {
    for (const projection of [journeys, persons]) {
      const { id } = await this.views.createGeneration({ group: projection.group, version: projection.version, shards: 1, storeId: options.storeId ?? 'store-1', target: options.target ?? null, fields: projection.fields, subFields: projection.subFields, ordered: projection.ordered });
      await this.views.promote(projection.group, null, id);
    }
    const app = createApi({
      events: this.events, views: this.views, door: options.door === false ? null : this.door, version: '0.0.0',
      workspaces: {
        authenticate: (token) => { const workspace = KEYS[token]; return workspace === undefined ? null : { workspace, keyId: `id-${token}`, rateLimit: this.rates.get(token) ?? null }; },
        keys: (workspace) => this.keys.get(workspace) ?? null,
        settings: () => ({ pbxNames: [], tenantIds: [] }),
      },
      clock: { now: () => this.now },
      wait: async (ms) => { this.now += ms; await this.onWait(); },
      log: { info: (_message, fields) => { this.logged.push(fields); }, error: (_message, fields) => { this.logged.push(fields); } },
      metrics: { contentType: 'text/plain; version=0.0.4', text: async () => 'up 1\n', request: (...all) => { this.measured.push(all); } },
      limits: { maxEventBytes: 4096, maxBodyBytes: 64 * 1024, maxRangeDays: 60 }, limiter: { hit: (key, limit) => this.limiter.hit(key, limit) }, rateLimit: { hits: 10, windowMs: 60_000 }, revision: 'seed',
      ready: () => this.ready,
    });
    this.#server = app.listen(0, '127.0.0.1');
    await once(this.#server, 'listening');
    this.url = `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
    return this;
  }

  async close(): Promise<void> {
    await this.door.drain();
    this.#server?.closeAllConnections();
    await new Promise((resolve) => this.#server?.close(resolve));
  }

  view(group: 'journeys' | 'persons'): Promise<View> { return this.views.view(group, 1, 0); }

  get(path: string, headers: Record<string, string> = {}): Promise<Response> { return fetch(this.url + path, { headers: { 'x-api-key': 'key-of-acme', ...headers } }); }
  post(path: string, body: unknown, headers: Record<string, string> = {}): Promise<Response> {
    return fetch(this.url + path, { method: 'POST', body: typeof body === 'string' ? body : JSON.stringify(body), headers: { 'x-api-key': 'key-of-acme', 'content-type': 'application/json', ...headers } });
  }
  publish(event: unknown, headers: Record<string, string> = {}): Promise<Response> {
    return this.post('/events', event, { 'content-type': Array.isArray(event) ? 'application/cloudevents-batch+json' : 'application/cloudevents+json', ...headers });
  }
  search(body: Record<string, unknown> = {}, path = JOURNEYS_SEARCH, headers: Record<string, string> = {}): Promise<Response> {
    return this.post(path, { dateRange: DAY, displayTimezone: 'UTC', ...body }, headers);
  }

  /** Folds everything recorded into the persons, as the projector does. */
  async foldPersons(): Promise<void> {
    const target = new Target({ projection: persons, view: await this.view('persons'), role: 'live', cache: new CacheRoom(1e6) });
    await target.resume();
    const stop = new AbortController();
    for await (const batch of this.events.subscribe({ after: null, prefixes: [], maxBatch: 1000, signal: stop.signal })) {
      await target.step(batch.events.flatMap(read), batch.position, async (workspace) => keysOf(workspace));
      if (batch.caughtUp) stop.abort();
    }
  }

  /** Puts journeys into the view by hand. */
  async put(stored: readonly Stored[], options: { workspace?: string; position?: string } = {}): Promise<void> {
    const workspace = options.workspace ?? 'acme';
    const keys = keysOf(workspace);
    const view = await this.view('journeys');
    const expected = await view.position();
    const position = (options.position ?? String(Number(expected ?? '0') + 1).padStart(20, '0')) as Position;
    const documents = new Map<string, string | null>(stored.flatMap((one) => documentsOf(one, workspace, keys)));
    const result = await view.commit({ expected, position, role: 'live', documents, records: new Map([[workspace, stored.map((one) => recordOf(one, keys))]]), digest: '0'.repeat(32) });
    expect(result.kind).toBe('committed');
  }
}

interface Stored { readonly row: JourneyRow; readonly transitions: readonly Transition[]; readonly chunks?: readonly (readonly Transition[])[]; readonly otherIds?: readonly string[] }

function row(id: string, given: Partial<JourneyRow> = {}): JourneyRow {
  return {
    journeyId: id, at: instantOf(START), finishedAt: null, interactions: [{ id: `int-${id}`, direction: 'Inbound', type: 'Contact Center' }],
    agents: [{ id: 'ag-1', name: 'John Doe', group: { id: '101', name: 'First line' }, type: 'HUMAN' }], contact: { name: 'Ana', phoneNumber: '+15550100100' },
    entryPoint: { type: 'cc-channel', id: 'ch-1', name: 'Support', tenantId: 't-1' }, origin: null, direction: 'Inbound',
    transfersCompleted: 0, forwardedToQueue: 1, forwardedToRingGroup: 0, forwardedToScript: 2, holdDuration: 1500, waitingDuration: 20_000, talkingDuration: 60_000, wrapUpDuration: 0,
    mediaTypes: ['Phone'], outcome: 'Handled', pbxNames: [], tenantIds: ['t-1'], wrapUpCodes: ['Sale, "big"'], queues: [{ id: 'q-1', name: 'Sales' }], ringGroups: [], scheduleHours: ['Open'],
    schedules: [], outboundPhoneCodes: [], aiAgentInformation: null, identities: [], topics: [], data: {}, attributes: [], truncated: false, ...given,
  };
}

function transition(name: Transition['name'], when: string, given: Partial<Transition> = {}): Transition {
  return {
    at: at(when), name, interactionId: 'int-1', agents: [], previousAgents: [], queue: null, previousQueue: null, ringGroup: null, previousRingGroup: null,
    autoAttendant: null, channel: null, scripts: [], duration: 0, wrapUp: 0, externalNumber: null, mediaType: 'Phone', events: ['event-1'], ...given,
  };
}

function nodeOf(journey: string): NodeDocument {
  return { journey, interaction: null, explicitId: null, over: false, neighbours: [], explicit: [], first: null, last: null, truncated: false, chunks: 0, facts: new FactPage() };
}

function documentsOf({ row: one, transitions, chunks = [], otherIds = [] }: Stored, workspace: string, keys: WorkspaceKeys): [string, string][] {
  const key = keys.hash('journey', one.journeyId);
  const stored = (name: string, value: unknown): [string, string] => [`${workspace}/${name}`, packDocument(name, value as Json)];
  // The state says what the answers must not.
  const state: JourneyDocument['state'] = { count: 1, last: null, ids: [], first: [`${one.at}450359962737049610event-1 000`, key], named: null, timeline: { ...newTimelineState(), lastQueue: '#secret' } };
  const document: JourneyDocument = { row: one, participants: [{ role: 'agent', id: 'ag-1', interactionId: 'int-1', name: 'John Doe', agentId: 'ag-1', joined: one.at, held: [{ from: one.at, to: null }], dropped: null }], chunks: chunks.length, transitions: [...transitions], state };
  return [
    stored(`j/${key}`, document), ...chunks.map((chunk, i) => stored(`t/${key}/${i}`, chunk)), ...[one.journeyId, ...otherIds].map((id) => stored(`n/${nodeKey(keys, id)}`, nodeOf(key))),
  ];
}

function recordOf({ row: one, transitions }: Stored, keys: WorkspaceKeys): RecordChange {
  const terms = (table: typeof JOURNEY_FILTERS, values: Record<string, readonly string[]>): Record<string, readonly string[]> => Object.fromEntries(Object.entries(values).map(([name, all]) => {
    const filter = table[name];
    if (filter === undefined) throw new Error(`no filter ${name}`);
    return [filter.field, [...new Set(all.map((value) => filter.term(keys, value)))]];
  }));
  return {
    key: keys.hash('journey', one.journeyId),
    state: {
      time: msOf(one.at), id: one.journeyId,
      terms: {
        ...terms(JOURNEY_FILTERS, { mediaTypes: one.mediaTypes, 'queues.name': one.queues.map(({ name }) => name ?? ''), 'agents.name': one.agents.map(({ name }) => name ?? ''), 'interactions.id': one.interactions.map(({ id }) => id), journeyId: [one.journeyId] }),
        identity: one.identities.map((identity) => keys.term('identity', identity)),
      },
    },
    subs: new Map([[0, transitions.map((each) => terms(TRANSITION_FILTERS, { 'transitions.name': [each.name], 'transitions.agents.name': each.agents.map(({ name }) => name ?? '') }))]]),
  };
}

let sent = 0;
function event(given: Record<string, unknown> = {}): Record<string, unknown> {
  sent += 1;
  return { specversion: '1.0', id: `e-${sent}`, source: 'test', type: 'test.said', time: '2026-03-02T09:00:00Z', identity: 'ana@example.com', identitytype: 'email', data: { n: sent }, ...given };
}

/** Untyped on purpose: what it holds is what is being tested. */
async function json(response: Response) { return JSON.parse(await response.text()); }
async function codesOf(response: Response): Promise<string[]> {
  const { errors } = (await response.json()) as { errors: { code?: string; errorCode?: string }[] };
  return errors.map((error) => error.code ?? error.errorCode ?? '');
}
const endpoints = apiEndpoints({ revision: 'seed', maxRangeDays: 60 });
/** What is answered is what the OpenAPI promises, to the last property. */
function promised(schema: z.ZodType, value: unknown): void {
  expect(schema.parse(value)).toEqual(value);
}

let world: World;
beforeEach(async () => { world = await new World().open(); });
afterEach(async () => world.close());

describe('who may ask', () => {
  test('an unknown key, none, and a Bearer that is none are answered alike', async () => {
    for (const headers of [{ 'x-api-key': 'wrong' }, { 'x-api-key': '' }, { 'x-api-key': '', authorization: 'Bearer wrong' }, { 'x-api-key': '', authorization: 'Basic a2V5LW9mLWFjbWU=' }]) {
      const answer = await world.get('/sources', headers);
      expect([answer.status, await codesOf(answer)]).toEqual([401, ['unauthorized']]);
      expect(answer.headers.get('www-authenticate')).toBe('Bearer');
    }
  });

  test('the key is taken from either header', async () => {
    expect((await world.get('/sources')).status).toBe(200);
    expect((await fetch(`${world.url}/sources`, { headers: { authorization: 'Bearer key-of-acme' } })).status).toBe(200);
  });

  test('the 8x8 endpoints refuse in their own form', async () => {
    const answer = await world.post(JOURNEYS_SEARCH, {}, { 'x-api-key': 'wrong' });
    expect(answer.status).toBe(401);
    promised(endpoints.searchJourneys.dialect.errorSchema, await answer.json());
  });

  test('G8: what another workspace has is answered as what never was', async () => {
    const published = await json(await world.publish(event(), { 'x-api-key': 'key-of-rival' }));
    await world.foldPersons();
    await world.put([{ row: row('secret-journey'), transitions: [] }], { workspace: 'rival' });
    const person = await json(await world.get('/persons?identity=ana@example.com', { 'x-api-key': 'key-of-rival' }));
    expect(person['personId']).toMatch(/^[0-9a-f]{24}$/);
    for (const [theirs, nobodys] of [
      ['/journeys/secret-journey', '/journeys/no-journey'], [`/persons/${String(person['personId'])}`, '/persons/000000000000000000000000'],
      ['/persons?identity=ana@example.com', '/persons?identity=bob@example.com'], ['/history?identity=ana@example.com', '/history?identity=bob@example.com'], ['/journeys?identity=ana@example.com', '/journeys?identity=bob@example.com'],
    ] as const) {
      const [one, other] = [await world.get(theirs), await world.get(nobodys)];
      expect([one.status, await one.text()]).toEqual([404, await other.text()]);
    }
    expect(await json(await world.search({ filters: [{ name: 'journeyId', values: ['secret-journey'] }] }))).toEqual({ data: [], nextPageCursor: null, totalElements: 0 });
    expect(await json(await world.get('/sources'))).toEqual({ data: [] });
    expect(published['result']).toBe('recorded');
  });
});

describe('requests that are wrong', () => {
  test.each([
    ['/outcomes?from=2026-03-02&to=2026-03-03T00:00:00Z', 'from', /^from must be an instant with its offset from UTC, such as /],
    ['/outcomes?from=2026-03-02T00:00:00Z&from=2026-03-02T00:00:00Z&to=2026-03-03T00:00:00Z', 'from', /^from is given more than once\.$/],
    ['/outcomes?from=2026-03-02T00:00:00Z&to=2026-03-03T00:00:00Z&by=week', 'by', /^by must be quarter, hour or day\.$/],
    ['/outcomes?from=2026-03-02T00:00:00Z&to=2026-03-03T00:00:00Z&group=agent', 'group', /^group must be any of outcome, queue, medium, direction, /],
    ['/paths?from=2026-03-02T00:00:00Z&to=2026-03-03T00:00:00Z&limit=0', 'limit', /^limit must be a whole number from 1 to 1000\.$/],
    ['/journeys?identity=ana@example.com&sort=DESC', 'sort', /^sort must be asc or desc\.$/],
    ['/journeys?identity=', 'identity', /^identity must be a text of 1 to 1024 characters\.$/],
    ['/sources?format=xml', 'format', /^format must be json, csv or ndjson\.$/],
  ] as const)('%s says what it takes instead', async (path, attribute, message) => {
    const answer = await world.get(path);
    expect(answer.status).toBe(400);
    expect((await json(answer))['errors']).toEqual([{ code: 'badRequest', attribute, message: expect.stringMatching(message) as unknown }]);
  });

  test.each<[string, string, RequestInit, number, string[]]>([
    ['an unknown path', '/nothing', {}, 404, ['unknownPath']],
    ['an unknown path of the 8x8 API', '/cidp/journey/api/v1/nothing', {}, 404, ['invalidApiPath']],
    ['a wrong method', '/events', {}, 405, ['methodNotAllowed']],
    ['a wrong method of the 8x8 API', JOURNEYS_SEARCH, {}, 405, ['invalidRequestMethod']],
    ['a path that is not percent-encoded', '/journeys/%E0%A4%A', {}, 400, ['malformedUrl']],
    ['JSON that is none', JOURNEYS_SEARCH, { method: 'POST', body: '{"a":', headers: { 'content-type': 'application/json' } }, 400, ['malformedRequest']],
    ['a body of bad UTF-8', JOURNEYS_SEARCH, { method: 'POST', body: new Uint8Array([0x22, 0xff, 0x22]), headers: { 'content-type': 'application/json' } }, 400, ['malformedRequest']],
    ['JSON nested without end', JOURNEYS_SEARCH, { method: 'POST', body: '['.repeat(100_000), headers: { 'content-type': 'application/json' } }, 400, ['malformedRequest']],
    ['no content type', JOURNEYS_SEARCH, { method: 'POST', body: new Uint8Array([0x7b, 0x7d]) }, 415, ['unsupportedMediaType']],
    ['another content type', JOURNEYS_SEARCH, { method: 'POST', body: '{}', headers: { 'content-type': 'text/plain' } }, 415, ['unsupportedMediaType']],
    ['a compressed body', JOURNEYS_SEARCH, { method: 'POST', body: '{}', headers: { 'content-type': 'application/json', 'content-encoding': 'gzip' } }, 415, ['unsupportedMediaType']],
    ['too large a query', JOURNEYS_SEARCH, { method: 'POST', body: `"${'x'.repeat(300_000)}"`, headers: { 'content-type': 'application/json' } }, 413, ['bodyTooLarge']],
    ['too large a publish', '/events', { method: 'POST', body: 'x'.repeat(70_000), headers: { 'content-type': 'application/cloudevents+json' } }, 413, ['bodyTooLarge']],
    ['what is no CloudEvent', '/events', { method: 'POST', body: 'hello', headers: { 'content-type': 'text/plain' } }, 415, ['unsupportedMediaType']],
    ['JSON that is no CloudEvent', '/events', { method: 'POST', body: '{}', headers: { 'content-type': 'application/json' } }, 400, ['missingAttribute']],
    ['a CloudEvent in XML', '/events', { method: 'POST', body: '<e/>', headers: { 'content-type': 'application/cloudevents+xml' } }, 415, ['unsupportedFormat']],
    ['too large an event', '/events', { method: 'POST', body: JSON.stringify(event({ data: 'x'.repeat(5000) })), headers: { 'content-type': 'application/cloudevents+json' } }, 413, ['tooLarge']],
    ['a batch that is no JSON', '/events', { method: 'POST', body: '[{', headers: { 'content-type': 'application/cloudevents-batch+json' } }, 400, ['notJson']],
    ['a missing parameter', '/history', {}, 400, ['missingParameter']],
    ['an unknown parameter', '/history?identity=a@example.com&identityType=email', {}, 400, ['unknownParameter']],
    ['a parameter given twice', '/history?identity=a@example.com&identity=b@example.com', {}, 400, ['badRequest']],
    ['a cursor of nobody', '/history?identity=ana@example.com&cursor=bm90IG91cnM', {}, 400, ['invalidCursor']],
    ['an unknown form', '/sources?format=xml', {}, 400, ['badRequest']],
    ['an unknown timezone', '/outcomes?from=2026-03-02T00:00:00Z&to=2026-03-03T00:00:00Z&timezone=Mars', {}, 400, ['invalidTimezone']],
    ['to before from', '/outcomes?from=2026-03-03T00:00:00Z&to=2026-03-02T00:00:00Z', {}, 400, ['invalidRange']],
    ['too long a range', '/outcomes?from=2020-03-03T00:00:00Z&to=2026-03-02T00:00:00Z', {}, 400, ['rangeTooLong']],
    ['an unknown journey', '/journeys/none', {}, 404, ['unknownJourney']],
    ['an anonymous identity', '/history?identity=anonymous', {}, 404, ['unknownIdentity']],
    ['prototype names', '/persons/__proto__', {}, 404, ['unknownPerson']],
  ])('%s', async (_what, path, init, status, codes) => {
    const answer = await fetch(world.url + path, { ...init, headers: { 'x-api-key': 'key-of-acme', ...(init.headers as Record<string, string> | undefined) } });
    expect(answer.headers.get('content-type')).toBe('application/json');
    const body = await answer.clone().text();
    expect([answer.status, await codesOf(answer)]).toEqual([status, codes]);
    expect(body).not.toMatch(/\bat .*:\d+|node_modules|\.ts/);
    if (status === 405) expect(answer.headers.get('allow')).toBe('POST');
    expect((await fetch(`${world.url}/healthz`)).status).toBe(200);
  });

  test('all problems of a query are told at once', async () => {
    const answer = await world.search({ dateRange: {}, limit: 0 });
    expect([answer.status, await codesOf(answer)]).toEqual([400, ['startRangeNotNull', 'endRangeNotNull', 'invalidLimit']]);
  });

  test('a client that goes away in the middle of its body leaves the process unharmed', async () => {
    const aborted = httpRequest(`${world.url}/events`, { method: 'POST', headers: { 'x-api-key': 'key-of-acme', 'content-type': 'application/cloudevents+json', 'content-length': '1000' } });
    aborted.on('error', () => undefined);
    aborted.write('{"specversion"');
    await new Promise((resolve) => { aborted.once('socket', (socket) => socket.once('connect', resolve)); });
    aborted.destroy();
    expect((await world.get('/sources')).status).toBe(200);
  });

  test('a bug answers 500 without a word of it, and a passing fault 503 with Retry-After', async () => {
    world.views.tallies = () => { throw new Error('secret detail'); };
    const bug = await world.get('/sources');
    expect([bug.status, await bug.text()]).toEqual([500, expect.not.stringContaining('secret')]);
    expect(world.logged).toContainEqual(expect.objectContaining({ route: '/sources', fault: expect.any(Error) }));
    world.views.tallies = () => { throw new OperatingError('storeUnavailable', 'the disk of /secret/path'); };
    const fault = await world.get('/sources');
    expect([fault.status, fault.headers.get('retry-after'), await codesOf(fault.clone())]).toEqual([503, '1', ['storeUnavailable']]);
    expect(await fault.text()).not.toContain('secret');
  });
});

describe('every answer', () => {
  test('carries no more than it must, and nothing that a browser may keep or frame', async () => {
    const { headers } = await world.get('/sources');
    expect(headers.get('x-powered-by')).toBeNull();
    expect(headers.get('etag')).toBeNull();
    expect(Object.fromEntries(['cache-control', 'x-content-type-options', 'referrer-policy', 'x-frame-options'].map((name) => [name, headers.get(name)]))).toEqual({ 'cache-control': 'no-store', 'x-content-type-options': 'nosniff', 'referrer-policy': 'no-referrer', 'x-frame-options': 'DENY' });
  });

  test('is logged and measured by its pattern, never by its URL', async () => {
    await world.get('/journeys/my-secret-id?timezone=UTC');
    await world.get('/nothing/my-secret-id');
    expect(world.logged).toEqual([
      { method: 'GET', route: '/journeys/{id}', status: 404, ms: 0, workspace: 'acme', keyId: 'id-key-of-acme' },
      { method: 'GET', route: '(unknown)', status: 404, ms: 0 },
    ]);
    expect(world.measured).toEqual([['GET', '/journeys/{id}', 404, 0], ['GET', '(unknown)', 404, 0]]);
  });

  test('HEAD is GET without a body, OPTIONS says what there is', async () => {
    const head = await fetch(`${world.url}/sources`, { method: 'HEAD', headers: { 'x-api-key': 'key-of-acme' } });
    expect([head.status, head.headers.get('content-length'), await head.text()]).toEqual([200, '11', '']);
    const options = await fetch(`${world.url}/journeys/x`, { method: 'OPTIONS' });
    expect([options.status, options.headers.get('allow')]).toEqual([204, 'GET, HEAD, OPTIONS']);
  });
});

describe('POST /events', () => {
  test('records one event and says where it stands; the second time it is a duplicate', async () => {
    const one = event();
    const answer = await world.publish(one);
    const body = await json(answer);
    promised(endpoints.publishEvents.answer.schema, body);
    expect(body).toEqual({ id: one['id'], eventId: expect.stringMatching(/^[0-9a-f-]{36}$/), result: 'recorded', stream: expect.stringMatching(/^identity\.acme-[0-9a-f]{32}$/), position: 'store-1.00000000000000000001' });
    expect(answer.headers.get('throughline-position')).toBe(body['position']);
    expect(await json(await world.publish(one))).toMatchObject({ result: 'duplicate', eventId: body['eventId'] });
  });

  test('takes binary mode', async () => {
    const answer = await world.post('/events', '{"n":12345678901234567890}', { 'ce-specversion': '1.0', 'ce-id': 'b-1', 'ce-source': 'test', 'ce-type': 'test.said', 'ce-identity': 'ana@example.com', 'ce-identitytype': 'email' });
    expect(await json(answer)).toMatchObject({ id: 'b-1', result: 'recorded' });
    expect(await (await world.get('/history?identity=ana@example.com')).text()).toContain('12345678901234567890');
  });

  test('answers a batch element by element', async () => {
    const answer = await world.publish([event(), event({ identitytype: undefined }), event({ identity: 'bob@example.com' })]);
    const body = await json(answer);
    expect(answer.status).toBe(200);
    promised(endpoints.publishEvents.answer.schema, body);
    expect(body).toMatchObject({ recorded: 2, duplicate: 0, rejected: 1, results: [{ index: 0, result: 'recorded' }, { index: 1, result: 'rejected', code: 'identityWithoutType', attribute: 'identitytype' }, { index: 2, result: 'recorded' }] });
    expect(answer.headers.get('throughline-position')).toBe('store-1.00000000000000000002');
    expect(await json(await world.publish([]))).toEqual({ results: [], recorded: 0, duplicate: 0, rejected: 0 });
  });

  test('a rejected event names its code, the attribute and the reason, and is counted', async () => {
    const answer = await world.publish(event({ time: 'yesterday' }));
    expect([answer.status, await json(answer)]).toEqual([400, { errors: [{ code: 'invalidTime', attribute: 'time', message: expect.any(String) }] }]);
    await world.door.drain();
    expect(await json(await world.get('/sources'))).toMatchObject({ data: [{ source: 'test', recorded: 0, rejected: { invalidTime: 1 } }] });
  });

  test('with dryRun says facts or why there are none, and stores nothing', async () => {
    const started = event({ type: 'org.throughline.interaction.started', data: { interactionId: 'call-1', direction: 'Inbound', medium: 'Phone' } });
    const one = await json(await world.post('/events?dryRun=true', started, { 'content-type': 'application/cloudevents+json' }));
    promised(endpoints.publishEvents.answer.schema, one);
    expect(one).toMatchObject({ result: 'dryRun', vocabulary: 'throughline', facts: [{ kind: 'started', direction: 'Inbound' }], reason: null });
    const batch = await json(await world.post('/events?dryRun=true', [event(), event({ id: '' })], { 'content-type': 'application/cloudevents-batch+json' }));
    expect(batch).toMatchObject({ recorded: 0, rejected: 1, results: [{ result: 'dryRun', vocabulary: null, facts: [], reason: { code: expect.any(String), message: expect.any(String) } }, { result: 'rejected', code: 'emptyAttribute' }] });
    expect(await world.events.head()).toBeNull();
  });

  test('without a door is refused', async () => {
    const other = await new World().open({ door: false });
    const answer = await other.publish(event());
    expect([answer.status, await codesOf(answer)]).toEqual([503, ['publishUnavailable']]);
    await other.close();
  });
});

describe('POST journeys/search', () => {
  const minute = (n: number): Instant => instantOf(START + n * 60_000);
  const rows = (count: number): Stored[] => Array.from({ length: count }, (_, i) => ({ row: row(`j-${String(i).padStart(3, '0')}`, { at: minute(i), mediaTypes: i % 2 === 0 ? ['Phone'] : ['Chat'] }), transitions: [] }));

  test('answers the published shape, every field in its place', async () => {
    await world.put([{ row: row('j-1', { at: at('2026-03-02T11:33:42Z'), finishedAt: at('2026-03-02T11:40:00.5Z') }), transitions: [] }]);
    const answer = await world.search({ displayTimezone: 'Europe/Bucharest' });
    const body = await json(answer);
    promised(endpoints.searchJourneys.answer.schema, body);
    expect(Object.keys(body)).toEqual(['data', 'nextPageCursor', 'totalElements']);
    expect(Object.keys(body['data'][0])).toEqual(['time', 'finishedTime', 'journeyId', 'interactions', 'agents', 'contact', 'entryPoint', 'direction', 'transfersCompleted', 'forwardedToQueue', 'forwardedToRingGroup', 'forwardedToScript', 'holdDuration', 'mediaTypes', 'outcome', 'origin', 'pbxNames', 'queues', 'ringGroups', 'scheduleHours', 'schedules', 'tenantIds', 'wrapUpCodes', 'outboundPhoneCodes']);
    expect(body['data'][0]).toMatchObject({
      time: '2026-03-02T13:33:42+02:00', finishedTime: '2026-03-02T13:40:00.500+02:00', journeyId: 'j-1', contact: { name: 'Ana', phoneNumber: '+15550100100', email: null },
      agents: [{ id: 'ag-1', subscriptionId: null, name: 'John Doe', email: null, loginId: null, department: null, group: { id: '101', name: 'First line' }, site: null, type: 'HUMAN' }],
      entryPoint: { type: 'cc-channel', extension: null, tenantId: 't-1', site: null }, origin: null, queues: [{ id: 'q-1', name: 'Sales', extension: null, site: null }],
    });
    expect(answer.headers.get('throughline-position')).toBe('store-1.00000000000000000001');
  });

  test('both ends of the range are included', async () => {
    await world.put(rows(5));
    const found = await json(await world.search({ dateRange: { start: '2026-03-02T09:01:00Z', end: '2026-03-02T09:03:00Z' } }));
    expect(found['data'].map((one: { journeyId: string }) => one.journeyId)).toEqual(['j-001', 'j-002', 'j-003']);
  });

  test('filters: AND between names, OR within values, mediaTypes in any case and nothing else', async () => {
    await world.put(rows(4));
    const total = async (...filters: unknown[]): Promise<unknown> => (await json(await world.search({ filters })))['totalElements'];
    expect(await total({ name: 'mediaTypes', values: ['phone'] })).toBe(2);
    expect(await total({ name: 'mediaTypes', values: ['Phone', 'Chat', 'Phone'] })).toBe(4);
    expect(await total({ name: 'mediaTypes', values: ['Phone'] }, { name: 'interactions.id', values: ['int-j-000', 'int-j-001'] })).toBe(1);
    expect(await total({ name: 'agents.name', values: ['john doe'] })).toBe(0);
    expect(await total({ name: 'agents.name', values: ['John Doe'] })).toBe(4);
  });

  test.each(['ASC', 'desc'])('pages in order, each row once, the total carried on (%s)', async (sortDirection) => {
    await world.put(rows(7));
    const seen: string[] = [];
    let cursor: unknown;
    let pages = 0;
    do {
      const body = await json(await world.search({ limit: 3 - (pages % 2), sortDirection, ...(cursor === undefined ? {} : { nextPageCursor: cursor }), displayTimezone: pages === 0 ? 'UTC' : 'Europe/Bucharest' }));
      expect(body['totalElements']).toBe(7);
      seen.push(...body['data'].map((one: { journeyId: string }) => one.journeyId));
      cursor = body['nextPageCursor'];
      pages += 1;
    } while (cursor !== null);
    const expected = rows(7).map((one) => one.row.journeyId);
    expect(seen).toEqual(sortDirection === 'ASC' ? expected : expected.reverse());
  });

  test('the last page has no cursor, also when it is exactly full', async () => {
    await world.put(rows(4));
    const first = await json(await world.search({ limit: 2 }));
    const second = await json(await world.search({ limit: 2, nextPageCursor: first['nextPageCursor'] }));
    expect([second['data'].length, second['nextPageCursor']]).toEqual([2, null]);
  });

  test('a cursor is good for its own query alone', async () => {
    await world.put(rows(6));
    const filters = [{ name: 'mediaTypes', values: ['Phone', 'Chat'] }];
    const { nextPageCursor } = await json(await world.search({ limit: 2, filters }));
    const refused = async (body: Record<string, unknown>, path = JOURNEYS_SEARCH, headers = {}): Promise<string[]> => codesOf(await world.search({ nextPageCursor, limit: 2, filters, ...body }, path, headers));
    expect(await refused({ sortDirection: 'DESC' })).toEqual(['cursorAndSortMismatch']);
    expect(await refused({ filters: [{ name: 'mediaTypes', values: ['Phone'] }] })).toEqual(['invalidCursor']);
    expect(await refused({ dateRange: { ...DAY, end: '2026-03-02T22:00:00Z' } })).toEqual(['invalidCursor']);
    expect(await refused({ filters: undefined }, TRANSITIONS_SEARCH)).toEqual(['invalidCursor']);
    expect(await refused({}, JOURNEYS_SEARCH, { 'x-api-key': 'key-of-rival' })).toEqual(['invalidCursor']);
    expect(await refused({ nextPageCursor: `${String(nextPageCursor)}A` })).toEqual(['invalidCursor']);
    expect(await refused({ nextPageCursor: '' })).toEqual(['invalidCursor']);
    expect((await world.search({ nextPageCursor, filters: [{ name: 'mediaTypes', values: ['Chat', 'Phone'] }] })).status).toBe(200);
  });

  test('a cursor still works after a restart and a replay', async () => {
    await world.put(rows(4));
    const first = await json(await world.search({ limit: 2 }));
    const again = await new World().open();
    await again.put(rows(4), { position: '00000000000000000009' });
    const second = await json(await again.search({ limit: 2, nextPageCursor: first['nextPageCursor'] }));
    expect(second['data'].map((one: { journeyId: string }) => one.journeyId)).toEqual(['j-002', 'j-003']);
    await again.close();
  });

  test('as CSV: a header, a line a journey, arrays joined, formulas disarmed, the cursor in a header', async () => {
    await world.put([{ row: row('j-1', { contact: { name: '=HYPERLINK("x")', phoneNumber: '+15550100100' }, mediaTypes: ['Phone', 'Chat'] }), transitions: [] }, { row: row('j-2', { at: minute(1) }), transitions: [] }]);
    const answer = await world.search({ limit: 1 }, `${JOURNEYS_SEARCH}?format=csv`);
    expect([answer.headers.get('content-type'), answer.headers.get('throughline-total')]).toEqual(['text/csv; charset=utf-8', '2']);
    expect(answer.headers.get('throughline-next-cursor')).toMatch(/^[\w-]+$/);
    const lines = (await answer.text()).split('\r\n');
    expect(lines).toHaveLength(3);
    const [header = '', line = ''] = lines;
    expect(header.startsWith('time,finishedTime,journeyId,interactions.id')).toBe(true);
    expect(line.startsWith('2026-03-02T09:00:00Z,,j-1,int-j-1,Inbound,Contact Center,ag-1,,John Doe')).toBe(true);
    expect(line).toContain(`"'=HYPERLINK(""x"")",+15550100100,`);
    expect(line).toContain('Phone; Chat');
    expect(line).toContain('"Sale, ""big"""');
  });

  test('as NDJSON: a line a journey, by the Accept header', async () => {
    await world.put(rows(3));
    const answer = await world.search({}, JOURNEYS_SEARCH, { accept: 'application/x-ndjson, application/json;q=0.5' });
    expect(answer.headers.get('content-type')).toBe('application/x-ndjson');
    expect(answer.headers.get('throughline-next-cursor')).toBeNull();
    expect((await answer.text()).trimEnd().split('\n').map((line) => (JSON.parse(line) as { journeyId: string }).journeyId)).toEqual(['j-000', 'j-001', 'j-002']);
  });
});

describe('POST transitions/search and GET /journeys/{id}', () => {
  const agent = { id: 'ag-1', name: 'John Doe' };
  const story: Stored = {
    row: row('j-1'), otherIds: ['old-id', 'call/with slash'],
    chunks: [[transition('STARTED', '2026-03-02T09:00:00Z')]],
    transitions: [transition('TALKING', '2026-03-02T09:00:00.123Z', { agents: [agent], duration: 9206 }), transition('HOLD', '2026-03-02T09:00:09.329Z', { agents: [{ id: 'ag-2', name: 'Jane Roe' }], duration: null })],
  };

  test('two conditions have to hold in one transition; then the whole timeline is answered', async () => {
    await world.put([story]);
    const ask = async (name: string, who: string) => json(await world.search({ filters: [{ name: 'transitions.name', values: [name] }, { name: 'transitions.agents.name', values: [who] }] }, TRANSITIONS_SEARCH));
    expect(await ask('TALKING', 'Jane Roe')).toEqual({ data: [], nextPageCursor: null, totalElements: 0 });
    const found = await ask('TALKING', 'John Doe');
    promised(endpoints.searchTransitions.answer.schema, found);
    expect(found['data'][0]['transitions'].map((one: { name: string; time: string; duration: number | null }) => [one.name, one.time, one.duration])).toEqual([['STARTED', '2026-03-02T09:00:00Z', 0], ['TALKING', '2026-03-02T09:00:00.123Z', 9206], ['HOLD', '2026-03-02T09:00:09.329Z', null]]);
    expect(Object.keys(found['data'][0]['transitions'][0])).toEqual(['time', 'name', 'interactionId', 'agents', 'previousAgents', 'previousQueue', 'previousRingGroup', 'queue', 'ringGroup', 'duration', 'externalNumber', 'mediaType', 'autoAttendant', 'channel', 'scripts']);
  });

  test('as CSV a line a transition, with its journey', async () => {
    await world.put([story]);
    const lines = (await (await world.search({}, `${TRANSITIONS_SEARCH}?format=csv`)).text()).trimEnd().split('\r\n');
    expect(lines.slice(1).map((line) => line.split(',').slice(0, 3).join())).toEqual(['j-1,2026-03-02T09:00:00Z,STARTED', 'j-1,2026-03-02T09:00:00.123Z,TALKING', 'j-1,2026-03-02T09:00:09.329Z,HOLD']);
  });

  test('any id that the journey ever had answers with row, participants, and the events behind each transition', async () => {
    await world.put([story]);
    for (const id of ['j-1', 'old-id', 'call%2Fwith%20slash', keysOf('acme').hash('node', 'j-1')]) {
      const answer = await world.get(`/journeys/${id}?timezone=Europe/Bucharest`);
      const body = await json(answer);
      promised(endpoints.getJourney.answer.schema, body);
      expect(body).toMatchObject({ journeyId: 'j-1', time: '2026-03-02T11:00:00+02:00', waitingDuration: 20_000, participants: [{ role: 'agent', held: [{ from: '2026-03-02T11:00:00+02:00', to: null }], dropped: null }] });
      expect(body['transitions'].map((one: { name: string; events: string[] }) => [one.name, one.events])).toEqual([['STARTED', ['event-1']], ['TALKING', ['event-1']], ['HOLD', ['event-1']]]);
      expect(body).not.toHaveProperty('state');
    }
  });
});

describe('a customer', () => {
  const link = (from: string, to: string): Record<string, unknown> => event({ type: 'org.throughline.customer.identified', identity: from, previousidentity: to, time: '2026-03-02T08:00:00Z' });

  test('is found by any spelling of any alias, and by an old id', async () => {
    await world.publish(link('ana@example.com', '+1 (555) 010-0100'));
    await world.foldPersons();
    const answer = await world.get('/persons?identity=%2B15550100100');
    const person = await json(answer);
    promised(endpoints.findPerson.answer.schema, person);
    expect(person['aliases'].map((alias: { type: string }) => alias.type).sort()).toEqual(['email', 'phone']);
    expect(answer.headers.get('throughline-position')).toMatch(/^store-1\.\d{20}$/);
    for (const query of ['identity=ANA%40example.com', 'identity=1-555-010-0100&identitytype=Phone']) expect(await json(await world.get(`/persons?${query}`))).toEqual(person);
    for (const alias of person['aliases'] as { key: string }[]) expect(await json(await world.get(`/persons/${alias.key.slice(0, 24)}`))).toEqual(person);
  });

  test('has the journeys of every alias, newest first, paged', async () => {
    await world.publish(link('ana@example.com', '15550100100'));
    await world.foldPersons();
    const keys = keysOf('acme');
    const [email, phone] = [keys.identityKey('email', 'ana@example.com') ?? '', keys.identityKey('phone', '15550100100') ?? ''];
    await world.put([[email, 1], [phone, 2], [email, 3], ['0'.repeat(32), 4]].map(([key, n]): Stored => ({ row: row(`j-${String(n)}`, { at: instantOf(START - Number(n) * 86_400_000 * 400), identities: [String(key)] }), transitions: [] })));
    const first = await json(await world.get('/journeys?identity=ana@example.com&limit=2'));
    promised(endpoints.listJourneys.answer.schema, first);
    expect([first['totalElements'], first['data'].map((one: { journeyId: string }) => one.journeyId)]).toEqual([3, ['j-1', 'j-2']]);
    const second = await json(await world.get(`/journeys?identity=ana@example.com&limit=2&cursor=${String(first['nextPageCursor'])}`));
    expect([second['nextPageCursor'], second['data'].map((one: { journeyId: string }) => one.journeyId)]).toEqual([null, ['j-3']]);
    const mismatch = await world.get(`/journeys?identity=ana@example.com&sort=asc&cursor=${String(first['nextPageCursor'])}`);
    expect(await codesOf(mismatch)).toEqual(['cursorAndSortMismatch']);
  });

  test('has a history of every alias, by time, verbatim, each event once', async () => {
    await world.publish(link('ana@example.com', '15550100100'));
    for (const [identity, identitytype, time] of [['15550100100', 'phone', '2026-03-02T11:00:00Z'], ['ana@example.com', 'email', '2026-03-02T10:00:00.000000001+00:00'], ['ana@example.com', 'email', '2026-03-02T12:00:00+01:30']]) {
      await world.publish(`{"specversion":"1.0","id":"v-${String(time)}","source":"test","type":"test.said","time":"${String(time)}","identity":"${String(identity)}","identitytype":"${String(identitytype)}","recordedtime":"2020-01-01T00:00:00Z","data":{"n": 1.0, "n": 9007199254740993 }}`);
    }
    await world.foldPersons();
    const answer = await world.get('/history?identity=15550100100');
    const text = await answer.text();
    expect(text).toContain('{"n": 1.0, "n": 9007199254740993 }');
    const body = JSON.parse(text);
    promised(endpoints.getHistory.answer.schema, body);
    expect(body['data'].map((one: { event: { time: string } }) => one.event.time)).toEqual(['2026-03-02T08:00:00Z', '2026-03-02T10:00:00.000000001+00:00', '2026-03-02T12:00:00+01:30', '2026-03-02T11:00:00Z']);
    expect(body['data'][1]).toMatchObject({ recordedtime: '2026-03-02T09:00:00Z', position: 'store-1.00000000000000000003', event: { recordedtime: '2020-01-01T00:00:00Z' } });
    expect(body['personId']).toMatch(/^[0-9a-f]{24}$/);
    const newest = await json(await world.get('/history?identity=15550100100&sort=desc&limit=1'));
    expect(newest['data'][0].event.time).toBe('2026-03-02T11:00:00Z');
    const csv = await (await world.get('/history?identity=15550100100', { accept: 'text/csv' })).text();
    expect(csv.split('\r\n')[1]).toContain('org.throughline.customer.identified');
    expect(csv).toContain('9007199254740993');
  });

  test('an event that the view has not folded yet is in the history already', async () => {
    await world.publish(event());
    const body = await json(await world.get('/history?identity=ana@example.com&identitytype=email'));
    expect([body['data'].length, body['personId']]).toEqual([1, null]);
  });
});

describe('a history', () => {
  const pageThrough = async (histories: Histories, streams: string[], direction: 'asc' | 'desc', limit: number): Promise<string[]> => {
    const seen: string[] = [];
    let after: { at: Instant; eventId: string } | null = null;
    for (;;) {
      const page = await histories.page({ streams, direction, after, limit, signal: new AbortController().signal });
      seen.push(...page.events.map(({ at: time, recorded }) => `${time}${recorded.eventId}`));
      const last = page.events.at(-1);
      if (!page.more || last === undefined) return seen;
      after = { at: last.at, eventId: last.recorded.eventId };
    }
  };
  const fill = async (store: EventStore, events: readonly { identity: string; ms: number }[]): Promise<string[]> => {
    const door = new Door({ store, clock: { now: () => START }, random: (size) => new Uint8Array(size), sleep: async () => undefined, tallies: new MemoryViewStore() });
    const decoded = events.map(({ identity, ms }, i) => {
      const time = instantOf(START + ms);
      const attributes = { specversion: '1.0', id: `h-${i}`, source: 'test', type: 'test.said', time, identity, identitytype: 'email' };
      return { kind: 'event' as const, event: { id: attributes.id, source: 'test', type: 'test.said', time, attributes, dataKind: 'none' as const, data: new Uint8Array(0) } };
    });
    const receipts = await door.receive(keysOf('acme'), decoded);
    await door.drain();
    return [...new Set(receipts.flatMap((receipt) => (receipt.kind === 'rejected' ? [] : [receipt.stream])))];
  };

  test('pages visit every event once, in order, whatever the order of arrival', async () => {
    await fc.assert(fc.asyncProperty(fc.array(fc.record({ identity: fc.constantFrom('a@x.com', 'b@x.com', 'c@x.com'), ms: fc.integer({ min: 0, max: 50 }) }), { minLength: 1, maxLength: 60 }), fc.constantFrom<'asc' | 'desc'>('asc', 'desc'), fc.integer({ min: 1, max: 20 }), async (events, direction, limit) => {
      const store = new MemoryEventStore({ storeId: 's' });
      const streams = await fill(store, events);
      const seen = await pageThrough(new Histories(store), streams, direction, limit);
      const sorted = [...seen].sort();
      expect(seen).toEqual(direction === 'asc' ? sorted : sorted.reverse());
      expect(new Set(seen).size).toBe(events.length);
    }), { numRuns: 30 });
  });

  test('a stream of thousands that arrived mostly in order is walked in linear work', async () => {
    const walk = async (count: number): Promise<number> => {
      const store = new MemoryEventStore({ storeId: 's' });
      const streams = await fill(store, Array.from({ length: count }, (_, i) => ({ identity: 'a@x.com', ms: i * 1000 - (i % 50 === 0 ? 20_000 : 0) })));
      const histories = new Histories(store);
      expect((await pageThrough(histories, streams, 'asc', 100)).length).toBe(count);
      return histories.work.read / count;
    };
    const [small, large] = [await walk(2000), await walk(8000)];
    expect(large).toBeLessThan(small * 1.2);
    expect(large).toBeLessThan(8);
  });

  test('what is appended between two pages is seen, and two that ask at once see the same', async () => {
    const store = new MemoryEventStore({ storeId: 's' });
    const streams = await fill(store, [{ identity: 'a@x.com', ms: 1 }, { identity: 'a@x.com', ms: 2 }]);
    const histories = new Histories(store);
    const ask = () => histories.page({ streams, direction: 'asc', after: null, limit: 10, signal: new AbortController().signal });
    const [one, other] = await Promise.all([ask(), ask()]);
    expect([one.events.length, other.events.length]).toEqual([2, 2]);
    await fill(store, [{ identity: 'a@x.com', ms: 0 }, { identity: 'a@x.com', ms: 3 }]);
    expect((await ask()).events.map(({ at: time }) => msOf(time) - START)).toEqual([0, 1, 2, 3]);
  });

  test('a page ends early rather than hold too many bytes', async () => {
    const store = new MemoryEventStore({ storeId: 's' });
    const keys = keysOf('acme');
    const door = new Door({ store, clock: { now: () => START }, random: (size) => new Uint8Array(size), sleep: async () => undefined, tallies: new MemoryViewStore() });
    for (let i = 0; i < 40; i += 1) {
      const attributes = { specversion: '1.0', id: `l-${i}`, source: 'test', type: 't', identity: 'a@x.com', identitytype: 'email' };
      await door.receive(keys, [{ kind: 'event', event: { id: attributes.id, source: 'test', type: 't', time: instantOf(START + i), attributes, dataKind: 'binary', data: new Uint8Array(256 * 1024 - 1000) } }]);
    }
    const stream = `identity.acme-${keys.identityKey('email', 'a@x.com') ?? ''}`;
    const page = await new Histories(store).page({ streams: [stream], direction: 'asc', after: null, limit: 1000, signal: new AbortController().signal });
    expect(page.more).toBe(true);
    expect(page.events.length).toBeGreaterThan(20);
    expect(page.events.length).toBeLessThan(40);
  });
});

describe('GET /outcomes', () => {
  const cell = (when: string, outcome: string, journeyCount: number, more: Record<string, unknown> = {}): [string, string] => {
    const ms = Date.parse(when);
    const value = { quarter: ms / 1000, outcome, queue: { id: 'q-1', name: 'Sales' }, medium: 'Phone', direction: 'Inbound', journeys: journeyCount, waiting: {}, talking: {}, hold: {}, ...more };
    return [`acme/o/${quarterKey(ms)}/${keysOf('acme').hash(JSON.stringify(value))}`, JSON.stringify(value)];
  };
  const put = async (...cells: [string, string][]): Promise<void> => {
    const view = await world.view('journeys');
    await view.commit({ expected: await view.position(), position: '00000000000000000001' as Position, role: 'live', documents: new Map(cells), records: new Map(), digest: '0'.repeat(32) });
  };

  test('adds quarters up to days of the timezone, of which one has 23 hours', async () => {
    await put(cell('2026-03-28T21:45:00Z', 'Handled', 1), cell('2026-03-28T22:00:00Z', 'Handled', 2), cell('2026-03-29T20:45:00Z', 'Abandoned', 1), cell('2026-03-29T21:00:00Z', 'Handled', 4));
    const body = await json(await world.get('/outcomes?from=2026-03-28T00:00:00%2B02:00&to=2026-03-31T00:00:00%2B03:00&timezone=Europe/Bucharest'));
    promised(endpoints.getOutcomes.answer.schema, body);
    expect(body['data'].map((one: Record<string, unknown>) => [one['from'], one['to'], one['journeys'], one['abandonmentRate']])).toEqual([
      ['2026-03-28T00:00:00+02:00', '2026-03-29T00:00:00+02:00', 1, 0], ['2026-03-29T00:00:00+02:00', '2026-03-30T00:00:00+03:00', 3, 0.3333], ['2026-03-30T00:00:00+03:00', '2026-03-31T00:00:00+03:00', 4, 0],
    ]);
    expect(body['total']).toMatchObject({ journeys: 8, handled: 7, abandoned: 1 });
  });

  test('groups, and gives service levels and quantiles from merged histograms', async () => {
    await put(
      cell('2026-03-02T09:00:00Z', 'Handled', 4, { waiting: { 3: 2 }, talking: { 11: 4 } }), cell('2026-03-02T09:15:00Z', 'Handled', 2, { waiting: { 7: 2 } }),
      cell('2026-03-02T09:15:00Z', 'Abandoned', 2, { waiting: { 5: 2 }, queue: { id: 'q-1', name: 'Sales (renamed)' } }), cell('2026-03-02T09:15:00Z', 'Handled', 1, { queue: null }), cell('2026-03-02T10:00:00Z', 'Handled', 9),
    );
    const body = await json(await world.get('/outcomes?from=2026-03-02T09:00:00Z&to=2026-03-02T10:00:00Z&by=hour&group=queue'));
    expect(body['data']).toHaveLength(2);
    const sales = body['data'].find((one: { queue: unknown }) => one.queue !== null);
    expect(sales).toMatchObject({ from: '2026-03-02T09:00:00Z', to: '2026-03-02T10:00:00Z', journeys: 8, handled: 6, abandoned: 2, abandonmentRate: 0.25, queue: { id: 'q-1' } });
    // 2 never waited, 2 at most 10 s, 2 at most 30 s, of 8 who were handled or gave up.
    expect([sales.serviceLevels['5'], sales.serviceLevels['10'], sales.serviceLevels['30']]).toEqual([0.25, 0.5, 0.75]);
    expect([sales.waiting, sales.talking, sales.hold]).toEqual([{ p50: 20, p90: 30 }, { p50: 60, p90: 60 }, { p50: null, p90: null }]);
    const csv = (await (await world.get('/outcomes?from=2026-03-02T09:00:00Z&to=2026-03-02T10:00:00Z&by=hour&group=queue&format=csv')).text()).split('\r\n');
    expect(csv[0]?.startsWith('from,to,outcome,queue.id,queue.name,medium,direction,journeys')).toBe(true);
    expect(csv).toHaveLength(4);
  });

  test('nothing counted is an empty list with a total of nothing', async () => {
    const body = await json(await world.get('/outcomes?from=2026-03-02T09:00:00Z&to=2026-03-02T10:00:00Z'));
    promised(endpoints.getOutcomes.answer.schema, body);
    expect(body).toMatchObject({ data: [], total: { journeys: 0, abandonmentRate: null, serviceLevels: null } });
  });
});

describe('positions', () => {
  const wait = (minimum: string): Promise<Response> => world.get('/journeys/none', { 'throughline-min-position': minimum });
  const first = 'store-1.00000000000000000001';

  test('G9: a reader gets at least the position that it asks for, once the view has come so far', async () => {
    await world.publish(event());
    let waits = 0;
    world.onWait = async () => { waits += 1; if (waits === 3) await world.put([{ row: row('j-1'), transitions: [] }]); };
    const answer = await world.get('/journeys/j-1', { 'throughline-min-position': first });
    expect([answer.status, answer.headers.get('throughline-position'), waits]).toEqual([200, first, 3]);
  });

  test('G9: or an honest "not yet" after two seconds, with the gap', async () => {
    await world.publish([event(), event()]);
    const before = world.now;
    const answer = await wait('store-1.00000000000000000002');
    expect([answer.status, answer.headers.get('retry-after'), world.now - before]).toEqual([412, '1', 2000]);
    expect(await json(answer)).toMatchObject({ errors: [{ code: 'notYet', gap: 2 }] });
    const eight = await world.search({}, JOURNEYS_SEARCH, { 'throughline-min-position': first });
    expect([eight.status, await codesOf(eight)]).toEqual([412, ['notYet']]);
  });

  test('an answer from two groups waits for both and states the lower', async () => {
    await world.publish(link());
    await world.publish(event());
    await world.foldPersons();
    await world.put([]);
    const answer = await world.get('/journeys?identity=ana@example.com');
    expect([answer.status, answer.headers.get('throughline-position')]).toEqual([200, first]);
    expect((await world.get('/journeys?identity=ana@example.com', { 'throughline-min-position': 'store-1.00000000000000000002' })).status).toBe(412);
  });
  const link = (): Record<string, unknown> => event({ previousidentity: '15550100100' });

  test.each<[string, string]>([
    ['other-store.00000000000000000001', 'foreignPosition'], ['store-1.00000000000000000009', 'positionPastHead'], ['store-1.1', 'badPosition'], ['store-1.x', 'badPosition'],
    ['00000000000000000001', 'badPosition'], ['store-1.', 'badPosition'], ['', 'badPosition'], ['store-1.99999999999999999999999999', 'badPosition'],
  ])('%j is 400 %s', async (header, code) => {
    await world.publish(event());
    const answer = await wait(header);
    expect([answer.status, await codesOf(answer)]).toEqual([400, [code]]);
  });

  test('a view that has not reached the head of its start is 503 with a percentage, until it has', async () => {
    const other = await new World().open({ target: '00000000000000000004' as Position });
    for (let i = 0; i < 4; i += 1) await other.publish(event());
    await other.put([], { position: '00000000000000000001' });
    const answer = await other.get('/journeys/none');
    expect([answer.status, answer.headers.get('retry-after')]).toEqual([503, '1']);
    expect(await json(answer)).toMatchObject({ errors: [{ code: 'building', percentage: 25 }] });
    await other.put([], { position: '00000000000000000004' });
    expect((await other.get('/journeys/none')).status).toBe(404);
    await other.close();
  });

  test('who asks for a position waits for a view that is nearly built, too', async () => {
    const other = await new World().open({ target: '00000000000000000002' as Position });
    for (let i = 0; i < 2; i += 1) await other.publish(event());
    expect((await other.get('/journeys/none', { 'throughline-min-position': first })).status).toBe(503);
    other.onWait = async () => { other.onWait = () => undefined; await other.put([], { position: '00000000000000000002' }); };
    expect((await other.get('/journeys/none', { 'throughline-min-position': first })).status).toBe(404);
    await other.close();
  });

  test('views of another store are not read', async () => {
    const other = await new World().open({ storeId: 'store-2' });
    const answer = await other.get('/journeys/none');
    expect([answer.status, await codesOf(answer)]).toEqual([503, ['viewsUnavailable']]);
    await other.close();
  });

  test('a promotion is seen: the next generation answers', async () => {
    await world.put([{ row: row('j-1'), transitions: [] }]);
    expect((await world.get('/journeys/j-1')).status).toBe(200);
    const made = await world.views.createGeneration({ ...(await world.view('journeys')).generation });
    await world.views.promote('journeys', 1, made.id);
    world.now += 250;
    expect((await world.get('/journeys/j-1')).status).toBe(404);
  });

  test('while a generation answers that an earlier version made, a PBX that the account may have is looked for, and nobody is told that it is none', async () => {
    const { generation } = await world.view('journeys');
    const made = await world.views.createGeneration({ ...generation, version: '2', ordered: ['o'] });
    await world.views.promote('journeys', 1, made.id);
    const filters = [{ name: 'pbxNames', values: ['main'] }, { name: 'tenantIds', values: ['t-1'] }];
    const answer = await world.search({ filters });
    expect([answer.status, answer.headers.get('throughline-stale'), await json(answer)]).toEqual([200, 'journeys', { data: [], nextPageCursor: null, totalElements: 0 }]);
    await world.views.promote('journeys', made.id, 1);
    world.now += 250;
    expect(await codesOf(await world.search({ filters }))).toEqual(['missingPbxForCustomer', 'invalidTenant']);
  });
});

describe('operating', () => {
  test('health, readiness, metrics, document and page need no key', async () => {
    const get = (path: string): Promise<Response> => fetch(world.url + path);
    expect(await json(await get('/healthz'))).toEqual({ status: 'ok' });
    expect(await json(await get('/readyz'))).toEqual({ status: 'ok', reasons: [] });
    world.ready = { ok: false, reasons: ['the projector has stopped'] };
    const unready = await get('/readyz');
    expect([unready.status, await json(unready)]).toEqual([503, { status: 'unready', reasons: ['the projector has stopped'] }]);
    const metrics = await get('/metrics');
    expect([metrics.headers.get('content-type'), await metrics.text()]).toEqual(['text/plain; version=0.0.4; charset=utf-8', 'up 1\n']);
    expect(((await json(await get('/openapi.json')))['info'] as { version: string }).version).toBe('0.0.0');
  });

  test('the page loads nothing from outside, and its policy allows nothing else', async () => {
    const answer = await fetch(`${world.url}/docs`);
    const html = await answer.text();
    expect(answer.headers.get('content-type')).toBe('text/html; charset=utf-8');
    expect(html).not.toMatch(/https?:\/\/|\ssrc=|@import|\burl\(/);
    expect(answer.headers.get('content-security-policy')).toMatch(/^default-src 'none'; script-src 'sha256-[^']+'; style-src 'sha256-[^']+'; connect-src 'self'/);
  });

  test('every endpoint of the document is served, and refuses who has no key unless it is open', async () => {
    const { paths } = (await json(await fetch(`${world.url}/openapi.json`))) as { paths: Record<string, Record<string, { security: unknown[] }>> };
    const operations = Object.entries(paths).flatMap(([path, item]) => Object.entries(item).map(([method, { security }]) => ({ path, method, closed: security.length > 0 })));
    expect(operations.length).toBe(Object.keys(endpoints).length);
    for (const { path, method, closed } of operations) {
      const answer = await fetch(world.url + path.replace(/\{\w+\}/, 'x'), { method: method.toUpperCase() });
      expect([path, answer.status]).toEqual([path, closed ? 401 : 200]);
      await answer.arrayBuffer();
    }
  });

  test('sources are told with the head of the log, also as CSV', async () => {
    await world.publish(event());
    await world.publish(event());
    await world.door.drain();
    const answer = await world.get('/sources');
    const body = await json(answer);
    promised(endpoints.getSources.answer.schema, body);
    expect(body).toMatchObject({ data: [{ source: 'test', recorded: 2, duplicates: 0 }] });
    expect(answer.headers.get('throughline-head')).toBe('store-1.00000000000000000002');
    expect((await (await world.get('/sources?format=csv')).text()).split('\r\n')[0]).toBe('source,recorded,duplicates,reusedIds,rejected,lateness,lastSeen');
  });
});

describe('how often a key may search', () => {
  const asked = async (times: number, key = 'key-of-acme'): Promise<readonly number[]> => {
    const statuses: number[] = [];
    for (let i = 0; i < times; i += 1) statuses.push((await world.search({}, i % 2 === 0 ? JOURNEYS_SEARCH : TRANSITIONS_SEARCH, { 'x-api-key': key })).status);
    return statuses;
  };
  const statuses = (status: number, times: number): readonly number[] => Array.from({ length: times }, () => status);
  const next = async (headers: Record<string, string> = {}): Promise<readonly [number, string | null]> => {
    const answer = await world.search({}, JOURNEYS_SEARCH, headers);
    return [answer.status, answer.headers.get('retry-after')];
  };
  beforeEach(() => { world.rates.delete('key-of-acme'); });

  test('one that says nothing has ten a minute for both endpoints together; what is past it is told when the first leaves', async () => {
    expect(await asked(10)).toEqual(statuses(200, 10));
    for (const path of [JOURNEYS_SEARCH, TRANSITIONS_SEARCH]) {
      const answer = await world.search({}, path);
      expect([answer.status, answer.headers.get('retry-after')]).toEqual([429, '60']);
      const body = await json(answer);
      promised(endpoints.searchJourneys.dialect.errorSchema, body);
      expect(body).toEqual({ errors: [{ errorCode: 'rateLimited', message: expect.stringMatching(/rate limit/), suggestion: expect.stringContaining('60 s'), url: 'https://developer.8x8.com/analytics/docs/end-to-end-journey-api' }] });
    }
  });

  test('the window slides: each hit counts for a minute from when it was made, and a 429 never', async () => {
    expect(await asked(6)).toEqual(statuses(200, 6));
    world.now += 30_000;
    expect(await asked(5)).toEqual([200, 200, 200, 200, 429]);
    world.now += 29_001;
    expect(await next()).toEqual([429, '1']);
    expect(await asked(50)).toEqual(statuses(429, 50));
    world.now += 999;
    expect(await asked(7)).toEqual([...statuses(200, 6), 429]);
    expect(await next()).toEqual([429, '30']);
    world.now += 60_000;
    expect(await asked(11)).toEqual([...statuses(200, 10), 429]);
  });

  test('every request that a key makes counts, also one that is refused for what it says', async () => {
    expect((await world.search({ filters: [] })).status).toBe(400);
    expect((await world.post(TRANSITIONS_SEARCH, '{')).status).toBe(400);
    expect((await world.post(JOURNEYS_SEARCH, '{}', { 'content-type': 'text/plain' })).status).toBe(415);
    expect((await world.post(JOURNEYS_SEARCH, `{"x":"${'x'.repeat(300_000)}"}`)).status).toBe(413);
    expect(await asked(7)).toEqual([...statuses(200, 6), 429]);
    // Past the limit nobody looks at what it says.
    expect((await world.post(JOURNEYS_SEARCH, '{')).status).toBe(429);
  });

  test('what no key asks, another key, and our own endpoints count nothing and are not limited', async () => {
    expect((await world.search({}, JOURNEYS_SEARCH, { 'x-api-key': 'wrong' })).status).toBe(401);
    expect((await world.get(JOURNEYS_SEARCH)).status).toBe(405);
    expect((await world.post('/cidp/journey/api/v1/nothing/search', {})).status).toBe(404);
    expect(await asked(11)).toEqual([...statuses(200, 10), 429]);
    expect((await world.search({}, JOURNEYS_SEARCH, { 'x-api-key': 'wrong' })).status).toBe(401);
    world.rates.delete('other-key-of-acme');
    expect(await asked(11, 'other-key-of-acme')).toEqual([...statuses(200, 10), 429]);
    for (let i = 0; i < 20; i += 1) expect((await world.get('/sources')).status).toBe(200);
    expect((await world.publish(event())).status).toBe(200);
    expect((await world.get(JOURNEYS_SEARCH)).status).toBe(405);
  });

  test('a key with a limit of its own has that one, one without any asks as often as it likes', async () => {
    world.rates.set('key-of-acme', { hits: 2, windowMs: 5000 });
    expect(await asked(3)).toEqual([200, 200, 429]);
    expect(await next()).toEqual([429, '5']);
    expect(await asked(30, 'key-of-rival')).toEqual(statuses(200, 30));
  });

  test('a limiter that cannot be asked is 503 for those that it limits, and nothing to the others', async () => {
    const asks: unknown[] = [];
    world.limiter = {
      hit: (...all) => {
        asks.push(all);
        return Promise.reject(new OperatingError('storeUnavailable', 'Redis at 10.0.0.1 is away'));
      },
    };
    const answer = await world.search();
    expect([answer.status, answer.headers.get('retry-after'), await codesOf(answer.clone())]).toEqual([503, '1', ['storeUnavailable']]);
    expect(await answer.text()).not.toContain('10.0.0.1');
    expect(asks).toEqual([['id-key-of-acme', { hits: 10, windowMs: 60_000 }]]);
    expect(await asked(1, 'key-of-rival')).toEqual([200]);
    expect((await world.get('/sources')).status).toBe(200);
  });

  test('the document says so of the two endpoints, with the code and the header, and of no other', async () => {
    const { paths } = (await json(await fetch(`${world.url}/openapi.json`))) as { paths: Record<string, Record<string, { responses: Record<string, { description: string; headers?: object }> }>> };
    const limited = Object.entries(paths).flatMap(([path, item]) => Object.values(item).flatMap(({ responses }) => (responses['429'] === undefined ? [] : [[path, responses['429'].description, Object.keys(responses['429'].headers ?? {})]])));
    expect(limited).toEqual([[JOURNEYS_SEARCH, '`rateLimited`', ['Retry-After']], [TRANSITIONS_SEARCH, '`rateLimited`', ['Retry-After']]]);
  });
});

describe('timezones', () => {
  const zones = createZones();
  test.each<[string, string, string]>([
    ['UTC', '2026-03-02T09:00:00Z', '2026-03-02T09:00:00Z'], ['Europe/Bucharest', '2026-03-29T00:59:59.5Z', '2026-03-29T02:59:59.500+02:00'], ['Europe/Bucharest', '2026-03-29T01:00:00Z', '2026-03-29T04:00:00+03:00'],
    ['Europe/London', '2026-01-01T00:00:00.000999999Z', '2026-01-01T00:00:00Z'], ['Asia/Kolkata', '2026-01-01T00:00:00.123456789Z', '2026-01-01T05:30:00.123+05:30'], ['UTC', '1969-12-31T23:59:59.001999Z', '1969-12-31T23:59:59.001Z'],
    ['America/St_Johns', '2026-01-01T00:00:00Z', '2025-12-31T20:30:00-03:30'], ['Australia/Lord_Howe', '2026-04-04T14:59:59Z', '2026-04-05T01:59:59+11:00'], ['Australia/Lord_Howe', '2026-04-04T15:00:00Z', '2026-04-05T01:30:00+10:30'],
    ['Australia/Lord_Howe', '2026-10-03T15:29:59Z', '2026-10-04T01:59:59+10:30'], ['Australia/Lord_Howe', '2026-10-03T15:30:00Z', '2026-10-04T02:30:00+11:00'], ['UTC', '0001-01-01T00:00:00Z', '0001-01-01T00:00:00Z'],
  ])('%s prints %s as %s', (zone, instant, expected) => {
    expect(zones(zone).print(at(instant))).toBe(expected);
    expect(Date.parse(expected)).toBe(msOf(at(instant)));
    expect(zones(zone).printMs(msOf(at(instant)))).toBe(expected);
  });

  test.each<[string, string, string]>([
    ['Europe/Bucharest', '2026-03-29', '23'], ['Europe/Bucharest', '2026-10-25', '25'], ['Europe/Bucharest', '2026-06-01', '24'], ['Australia/Lord_Howe', '2026-04-05', '24.5'],
    ['America/Havana', '2025-11-02', '25'], ['America/Havana', '2025-03-09', '23'], ['Africa/Cairo', '2026-04-24', '23'], ['Asia/Kathmandu', '2026-04-24', '24'],
  ])('%s: %s has %s hours, and every quarter of it lies in it', (name, day, hours) => {
    const zone = zones(name);
    const { from, to } = zone.period('day', Date.parse(`${day}T12:00:00Z`) - zone.offset(Date.parse(`${day}T12:00:00Z`)));
    expect((to - from) / 3_600_000).toBe(Number(hours));
    for (let ms = from; ms < to; ms += 900_000) {
      expect(zone.period('day', ms)).toEqual({ from, to });
      expect(zone.printMs(ms).slice(0, 10)).toBe(day);
    }
    expect(zone.printMs(to).slice(0, 10)).not.toBe(day);
  });

  test('an hour begins where the zone says, and the repeated hour is two', () => {
    const kolkata = zones('Asia/Kolkata');
    expect(kolkata.printMs(kolkata.period('hour', Date.parse('2026-01-01T00:00:00Z')).from)).toBe('2026-01-01T05:00:00+05:30');
    const bucharest = zones('Europe/Bucharest');
    const hours = ['2026-10-25T00:30:00Z', '2026-10-25T01:30:00Z'].map((text) => bucharest.printMs(bucharest.period('hour', Date.parse(text)).from));
    expect(hours).toEqual(['2026-10-25T03:00:00+03:00', '2026-10-25T03:00:00+02:00']);
  });

  test('where the clocks change by half an hour, the hour around it is two, of half an hour each', () => {
    const zone = zones('Australia/Lord_Howe');
    const shown = (...texts: string[]): string[][] => texts.map((text) => {
      const { from, to } = zone.period('hour', Date.parse(text));
      return [zone.printMs(from), zone.printMs(to)];
    });
    expect(shown('2026-04-04T14:45:00Z', '2026-04-04T15:00:00Z', '2026-04-04T15:30:00Z')).toEqual([
      ['2026-04-05T01:00:00+11:00', '2026-04-05T01:30:00+10:30'], ['2026-04-05T01:30:00+10:30', '2026-04-05T02:00:00+10:30'], ['2026-04-05T02:00:00+10:30', '2026-04-05T03:00:00+10:30'],
    ]);
    expect(shown('2026-10-03T15:29:59Z', '2026-10-03T15:30:00Z')).toEqual([['2026-10-04T01:00:00+10:30', '2026-10-04T02:30:00+11:00'], ['2026-10-04T02:30:00+11:00', '2026-10-04T03:00:00+11:00']]);
  });

  test('hours and quarters of any zone follow each other without a gap or an overlap', () => {
    // Changes by an hour, by half of one, by two, of a whole day, a minute past midnight, and offsets of odd minutes and seconds.
    const names = ['UTC', 'Europe/Bucharest', 'Australia/Lord_Howe', 'America/St_Johns', 'Antarctica/Troll', 'Asia/Kathmandu', 'Pacific/Apia', 'Pacific/Chatham', 'America/Caracas', 'Asia/Pyongyang', 'Africa/Monrovia', 'Europe/Amsterdam'];
    const changes = ['1921-06-30T22:00:00Z', '1937-06-30T23:40:00Z', '1972-01-07T00:44:30Z', '2007-12-09T07:00:00Z', '2007-11-04T02:31:00Z', '2011-12-30T10:00:00Z', '2015-08-14T15:00:00Z', '2026-03-29T01:00:00Z', '2026-04-04T15:00:00Z', '2026-10-03T15:30:00Z', '2026-10-25T01:00:00Z'].map((text) => Date.parse(text));
    fc.assert(fc.property(fc.constantFrom(...names), fc.constantFrom('hour' as const, 'quarter' as const), fc.constantFrom(...changes), fc.integer({ min: -10_800_000, max: 10_800_000 }), (name, by, change, off) => {
      const { period } = zones(name);
      const found = period(by, change + off);
      expect(found.from <= change + off && change + off < found.to && found.to - found.from <= (by === 'hour' ? 3_600_000 : 900_000)).toBe(true);
      expect([period(by, found.from), period(by, found.to - 1)]).toEqual([found, found]);
      expect([period(by, found.from - 1).to, period(by, found.to).from]).toEqual([found.from, found.to]);
    }), { numRuns: 2000 });
  });
});

describe('small things', () => {
  test('a cursor of any query comes back as it was, and no altered one does', () => {
    fc.assert(fc.property(fc.string(), fc.integer(), fc.option(fc.nat()), fc.nat({ max: 40 }), (id, time, total, place) => {
      const key = new Uint8Array(32).fill(1);
      const scope = { endpoint: 'e', sort: 's', query: [id] };
      const cursor = writeCursor(key, scope, { time, id, total });
      expect(readCursor(key, scope, cursor)).toEqual({ kind: 'keyset', keyset: { time, id, total } });
      const altered = cursor.slice(0, place) + (cursor[place] === 'A' ? 'B' : 'A') + cursor.slice(place + 1);
      expect(readCursor(key, scope, altered).kind).toBe('refused');
      expect(readCursor(new Uint8Array(32).fill(2), scope, cursor).kind).toBe('refused');
    }), { numRuns: 200 });
  });

  test.each<[string | undefined, string | undefined, string]>([
    [undefined, undefined, 'json'], [undefined, '*/*', 'json'], [undefined, 'text/csv', 'csv'], [undefined, 'text/html, application/x-ndjson;q=0.9, */*;q=0.1', 'ndjson'],
    [undefined, 'text/csv;q=0.2, application/json', 'json'], ['csv', 'application/json', 'csv'], ['json', 'text/csv', 'json'], [undefined, 'image/png', 'json'],
  ])('format %j with Accept %j is %s', (format, accept, expected) => expect(formatOf(format, accept)).toBe(expected));

  test('a workspace has one shard, for ever, and shards are evenly full', () => {
    expect(shardOf('acme', 1)).toBe(0);
    const full = new Array<number>(8).fill(0);
    for (let i = 0; i < 8000; i += 1) { const shard = shardOf(`workspace_${i}`, 8); full[shard] = (full[shard] ?? 0) + 1; }
    expect(Math.min(...full)).toBeGreaterThan(850);
    // Stored with every generation: a change would look for workspaces where they are not.
    expect(['acme', 'default', 'rival'].map((workspace) => shardOf(workspace, 8))).toEqual([5, 1, 2]);
  });
});
