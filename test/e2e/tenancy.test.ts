// G8: one workspace never sees another's events, persons, journeys or keys. Two workspaces of one `serve` hold the same
// identities, interactions and explicit journey ids; every endpoint that the OpenAPI names is asked by the one for what is
// the other's. What exists there must be answered as what exists nowhere.
import { describeOn } from '../support/local-server.ts';
import { json, TEST_KEY, until } from '../support/serve.ts';
import { type House, openEmbeddedHouse, openHouseOnRedis } from './servers/stage.ts';

const SEARCHES = { journeys: '/cidp/journey/api/v1/journeys/search', transitions: '/cidp/journey/api/v1/transitions/search' } as const;
const DAY = { dateRange: { start: '2026-03-02T00:00:00Z', end: '2026-03-02T23:59:59Z' }, displayTimezone: 'UTC' };
const RANGE = 'from=2026-03-02T00:00:00Z&to=2026-03-03T00:00:00Z';
const SHARED = 'ana@example.com';
const PHONE = '+1 555 010 0199';

/** A request but for its key. */
interface Ask { readonly path: string; readonly body?: unknown; readonly type?: string; readonly headers?: Readonly<Record<string, string>> }
interface Told { readonly status: number; readonly text: string; readonly headers: Headers }

/** What a workspace was told of itself: all of it must stay unknown to the other. */
interface Tenant {
  readonly name: string;
  readonly key: string;
  readonly journeys: number;
  /** Ids of a journey that the other has none of: explicit, of its interaction, derived. */
  readonly journeyIds: readonly string[];
  readonly personId: string;
  readonly position: string;
  readonly cursors: Readonly<Record<'journeys' | 'transitions' | 'list' | 'history' | '/durations' | '/durations/transitions', string>>;
  /** Texts that may stand in no answer to the other. */
  readonly secrets: readonly string[];
}

const get = (path: string, headers?: Readonly<Record<string, string>>): Ask => (headers === undefined ? { path } : { path, headers });
const search = (of: keyof typeof SEARCHES, more: Readonly<Record<string, unknown>> = {}, query = ''): Ask => ({ path: SEARCHES[of] + query, body: { ...DAY, ...more }, type: 'application/json' });
const publish = (events: unknown, query = ''): Ask => ({ path: `/events${query}`, body: events, type: `application/cloudevents${Array.isArray(events) ? '-batch' : ''}+json` });
const only = (name: string): string => `only-${name}@example.com`;

interface Pair { readonly theirs: Ask; readonly nobodys: Ask }
interface Endpoint {
  /** Asked by the other: what is the tenant's, and the same of nobody. Both are told alike. */
  readonly foreign: (tenant: Tenant) => readonly Pair[];
  /** Asked by a tenant for what is its own, although the other has the like. */
  readonly own: (tenant: Tenant) => readonly Ask[];
}

const unguarded: Endpoint = { foreign: () => [], own: () => [] };
const FORMATS = ['json', 'csv', 'ndjson'] as const;
const pair = (of: (value: string) => Ask, theirs: string, nobodys: string): Pair => ({ theirs: of(theirs), nobodys: of(nobodys) });
const filter = (name: string, value: string): Record<string, unknown> => ({ filters: [{ name, values: [value] }] });

/** Filters with a value of a tenant's own, and one that nobody has. */
const FILTERS_OF: readonly (readonly [name: string, theirs: (tenant: Tenant) => string, nobodys: string])[] = [
  ['queues.id', ({ name }) => `${name}-queue`, 'no-queue'], ['contact.name', ({ name }) => `Ana of ${name}`, 'Nobody'], ['journeyId', ({ name }) => `J-${name}`, 'J-nobodys'],
  ['transitions.queue.id', ({ name }) => `${name}-queue`, 'no-queue'], ['transitions.interactionId', ({ name }) => `${name}-call-0`, 'no-call'], ['tenantIds', ({ name }) => `${name}-tenant`, 'no-tenant'],
];

/** Every endpoint there is; a test fails when one is missing. */
const ENDPOINTS: Readonly<Record<string, Endpoint>> = {
  'POST /events': {
    foreign: () => [pair((workspace) => publish({ specversion: '1.0', id: 'elsewhere', source: 'crm', type: 'test.elsewhere', subject: 'x', workspace }, '?dryRun=true'), 'default', 'nobody')],
    own: (tenant) => [publish(story(tenant.name)[0], '?dryRun=true'), publish(story(tenant.name).slice(0, 2), '?dryRun=true'), publish(story(tenant.name)[0])],
  },
  'GET /journeys/{id}': {
    foreign: (tenant) => tenant.journeyIds.flatMap((id) => ['', '?timezone=Europe/Bucharest'].map((query) => pair((one) => get(`/journeys/${encodeURIComponent(one)}${query}`), id, 'J-nobodys'))),
    own: () => [get('/journeys/J-1'), get('/journeys/throughline%3Acall-1')],
  },
  'GET /journeys': {
    foreign: (tenant) => [
      ...[`identity=${only(tenant.name)}`, `identity=${only(tenant.name)}&identitytype=email`].map((query) => pair((one) => get(`/journeys?${one}`), query, query.replace(tenant.name, 'nobody'))),
      pair((cursor) => get(`/journeys?identity=${SHARED}&limit=1&cursor=${cursor}`), tenant.cursors.list, 'AAAA'),
    ],
    own: (tenant) => [...FORMATS.map((format) => get(`/journeys?identity=${SHARED}&format=${format}`)), get(`/journeys?identity=${SHARED}`, { 'throughline-min-position': tenant.position })],
  },
  'GET /history': {
    foreign: (tenant) => [
      pair((one) => get(`/history?identity=${one}`), only(tenant.name), only('nobody')),
      pair((cursor) => get(`/history?identity=${SHARED}&limit=1&cursor=${cursor}`), tenant.cursors.history, 'AAAA'),
    ],
    own: () => FORMATS.map((format) => get(`/history?identity=${SHARED}&format=${format}`)),
  },
  'GET /persons': {
    foreign: (tenant) => [pair((one) => get(`/persons?identity=${one}`), only(tenant.name), only('nobody')), pair((one) => get(`/persons?identitytype=email&identity=${one}`), only(tenant.name), only('nobody'))],
    own: () => [get(`/persons?identity=${SHARED}`)],
  },
  'GET /persons/{id}': {
    foreign: (tenant) => [pair((one) => get(`/persons/${one}`), tenant.personId, 'f'.repeat(24))],
    own: (tenant) => [get(`/persons/${tenant.personId}`)],
  },
  'GET /outcomes': {
    foreign: (tenant) => FILTERS_OF.map(([name, theirs, nobodys]) => pair((value) => get(`/outcomes?${RANGE}&${name}=${encodeURIComponent(value)}`), theirs(tenant), nobodys)),
    own: () => ['', '&mediaTypes=Phone', '&by=quarter&group=queue,outcome', '&by=hour&group=queue&format=csv', '&group=medium&format=ndjson'].map((query) => get(`/outcomes?${RANGE}${query}`)),
  },
  ...Object.fromEntries((['/durations', '/durations/transitions', '/paths'] as const).map((path): [string, Endpoint] => [`GET ${path}`, {
    foreign: (tenant) => [
      ...FILTERS_OF.map(([name, theirs, nobodys]) => pair((value) => get(`${path}?${RANGE}&${name}=${encodeURIComponent(value)}`), theirs(tenant), nobodys)),
      ...(path === '/paths' ? [] : [pair((cursor) => get(`${path}?${RANGE}&limit=1&cursor=${cursor}`), tenant.cursors[path], 'AAAA')]),
    ],
    own: () => FORMATS.flatMap((format) => ['', '&mediaTypes=Phone', '&transitions.name=STARTED'].map((query) => get(`${path}?${RANGE}${query}&format=${format}`))),
  }])),
  'GET /sources': {
    foreign: () => [pair((one) => get(`/sources?workspace=${one}`), 'default', 'nobody')],
    own: () => FORMATS.map((format) => get(`/sources?format=${format}`)),
  },
  'POST /cidp/journey/api/v1/journeys/search': {
    foreign: (tenant) => [
      ...[['queues.id', `${tenant.name}-queue`, 'no-queue'], ['contact.name', `Ana of ${tenant.name}`, 'Nobody'], ['journeyId', `J-${tenant.name}`, 'J-nobodys'], ['interactions.id', `${tenant.name}-call-0`, 'no-call']]
        .flatMap(([name = '', theirs = '', nobodys = '']) => FORMATS.map((format) => pair((value) => search('journeys', filter(name, value), `?format=${format}`), theirs, nobodys))),
      pair((nextPageCursor) => search('journeys', { limit: 1, nextPageCursor }), tenant.cursors.journeys, 'AAAA'),
      // A tenant or PBX of the other is refused as one that nobody has.
      pair((value) => search('journeys', filter('tenantIds', value)), `${tenant.name}-tenant`, 'no-tenant'),
      pair((value) => search('journeys', filter('pbxNames', value)), `${tenant.name}-pbx`, 'no-pbx'),
    ],
    own: () => FORMATS.map((format) => search('journeys', {}, `?format=${format}`)),
  },
  'POST /cidp/journey/api/v1/transitions/search': {
    foreign: (tenant) => [
      ...[['transitions.queue.id', `${tenant.name}-queue`, 'no-queue'], ['transitions.interactionId', `${tenant.name}-call-0`, 'no-call'], ['journeyId', `J-${tenant.name}`, 'J-nobodys']]
        .map(([name = '', theirs = '', nobodys = '']) => pair((value) => search('transitions', filter(name, value)), theirs, nobodys)),
      pair((nextPageCursor) => search('transitions', { limit: 1, nextPageCursor }), tenant.cursors.transitions, 'AAAA'),
      pair((value) => search('transitions', filter('tenantIds', value)), `${tenant.name}-tenant`, 'no-tenant'),
      pair((value) => search('transitions', filter('pbxNames', value)), `${tenant.name}-pbx`, 'no-pbx'),
    ],
    own: () => FORMATS.map((format) => search('transitions', {}, `?format=${format}`)),
  },
  'GET /openapi.json': unguarded, 'GET /docs': unguarded, 'GET /healthz': unguarded, 'GET /readyz': unguarded, 'GET /metrics': unguarded,
};

/** So many journeys that are the workspace's alone, beside the one that both have under the same ids. */
const ALONE: Readonly<Record<string, number>> = { default: 5, rival: 2 };

/** What both say at the same times of the same identities, each in its own words; and, of itself alone, its own. */
function story(name: string): object[] {
  const interaction = (id: string, journeyId: string, identity: string, minute: number): object[] => {
    const event = (second: number, type: string, data: object, more: object = {}): object => ({
      specversion: '1.0', id: `${id}-${type}`, source: 'https://voice.example.com', type: `org.throughline.interaction.${type}`, time: `2026-03-02T09:${String(minute).padStart(2, '0')}:${String(second).padStart(2, '0')}Z`,
      identity, identitytype: 'email', ...more, data: { interactionId: id, ...data },
    });
    return [
      event(0, 'started', { journeyId, direction: 'Inbound', medium: 'Phone', contact: { name: `Ana of ${name}` }, tenant: `${name}-tenant`, pbx: `${name}-pbx` }),
      event(5, 'waiting', { queue: { id: `${name}-queue`, name: `Queue of ${name}` } }),
      event(20, 'answered', { agents: [{ id: `${name}-agent`, name: `Agent of ${name}` }], queue: { id: `${name}-queue` } }),
      event(40, 'ended', { final: true }),
    ];
  };
  return [
    ...interaction('call-1', 'J-1', SHARED, 0),
    ...interaction('call-2', 'J-2', SHARED, 1),
    ...Array.from({ length: ALONE[name] ?? 0 }, (_, n) => interaction(`${name}-call-${n}`, n === 0 ? `J-${name}` : `J-${name}-${n}`, only(name), 10 + n)).flat(),
  ];
}

function tellOfTwo(open: () => Promise<House>): void {
  let server: House;
  let rival: Tenant;
  let home: Tenant;
  /** Everything that the rival, and that the other, was ever told. */
  const told: string[] = [];
  const toldAtHome: string[] = [];

  async function ask(key: string, { path, body, type, headers }: Ask): Promise<Told> {
    const init = body === undefined ? {} : { method: 'POST', body: JSON.stringify(body) };
    const answer = await server.request(path, { ...init, key, headers: { ...headers, ...(type === undefined ? {} : { 'content-type': type }) } });
    const text = await answer.text();
    (key === TEST_KEY ? toldAtHome : told).push(text, ...answer.headers.values());
    return { status: answer.status, text, headers: answer.headers };
  }

  async function parsed(key: string, asked: Ask): Promise<Record<string, unknown>> { return JSON.parse((await ask(key, asked)).text) as Record<string, unknown>; }

  /** Publishes the workspace's story and collects what it is told of itself. */
  async function settle(name: string, key: string): Promise<Tenant> {
    const published = await parsed(key, publish(story(name)));
    expect(published).toMatchObject({ recorded: story(name).length, duplicate: 0, rejected: 0 });
    const results = published['results'] as { eventId: string; stream: string; position: string }[];
    const position = results.map((one) => one.position).sort().at(-1) ?? '';
    const seen = { 'throughline-min-position': position };
    const detail = await parsed(key, get(`/journeys/J-${name}`, seen));
    expect(detail).toMatchObject({ journeyId: `J-${name}` });
    const [person, shared] = await Promise.all([only(name), SHARED].map((identity) => parsed(key, get(`/persons?identity=${identity}`, seen)))) as { personId: string; aliases: { key: string }[] }[];
    if (person === undefined || shared === undefined) throw new Error('no person');
    const cursors = {
      journeys: String((await parsed(key, search('journeys', { limit: 1 })))['nextPageCursor']), transitions: String((await parsed(key, search('transitions', { limit: 1 })))['nextPageCursor']),
      list: String((await parsed(key, get(`/journeys?identity=${SHARED}&limit=1`)))['nextPageCursor']), history: String((await parsed(key, get(`/history?identity=${SHARED}&limit=1`)))['nextPageCursor']),
      '/durations': String((await parsed(key, get(`/durations?${RANGE}&limit=1`)))['nextPageCursor']), '/durations/transitions': String((await parsed(key, get(`/durations/transitions?${RANGE}&limit=1`)))['nextPageCursor']),
    };
    return {
      name, key, position, cursors, personId: person.personId, journeys: 2 + (ALONE[name] ?? 0),
      journeyIds: [`J-${name}`, `throughline:${name}-call-0`],
      secrets: [
        ...results.flatMap(({ eventId, stream }) => [eventId, stream]), person.personId, shared.personId, ...[person, shared].flatMap(({ aliases }) => aliases.map((alias) => alias.key)), ...Object.values(cursors),
        key, `of ${name}`, `${name}-queue`, `${name}-agent`, `${name}-tenant`, `${name}-call`, `J-${name}`, only(name),
      ],
    };
  }

  beforeAll(async () => {
    server = await open();
    const made = await server.verb(['workspaces', 'create', 'rival', '--rate-limit', 'off', '--json']);
    const { key } = JSON.parse(made.stdout) as { key: string };
    home = await settle('default', TEST_KEY);
    rival = await settle('rival', key);
    // Both have what is said under one identity of the other's person: only here it is the same as a phone number.
    await ask(TEST_KEY, publish({ specversion: '1.0', id: 'merge', source: 'crm', type: 'test.merge', time: '2026-03-02T08:00:00Z', identity: SHARED, identitytype: 'email', previousidentity: PHONE }));
    await ask(TEST_KEY, publish({ specversion: '1.0', id: 'nobodys', source: 'crm', type: 'test.nobodys' }));
    await server.folded();
    const counted = async (key: string): Promise<boolean> => rowsOf(await ask(key, get('/sources'))) > 0;
    await until('the sources are counted', async () => (await counted(home.key)) && (await counted(rival.key)));
  }, 180_000);

  afterAll(async () => { await server.close(); }, 180_000);

  test('G8: every endpoint of the OpenAPI is asked', async () => {
    const { paths } = (await json(await server.request('/openapi.json'))) as { paths: Record<string, Record<string, unknown>> };
    const named = Object.entries(paths).flatMap(([path, methods]) => Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`));
    expect(Object.keys(ENDPOINTS).sort()).toEqual(named.sort());
  });

  test.each(Object.keys(ENDPOINTS))('G8: %s tells the other workspace nothing, alike for what exists and what does not', async (name) => {
    for (const { theirs, nobodys } of ENDPOINTS[name]?.foreign(home) ?? []) {
      const [known, unknown] = [await ask(rival.key, theirs), await ask(rival.key, nobodys)];
      expect({ asked: theirs, status: known.status, text: known.text }).toEqual({ asked: theirs, status: unknown.status, text: unknown.text });
      if (known.status === 200) expect(rowsOf(known)).toBe(0);
      else expect([400, 403, 404]).toContain(known.status);
      // There was something to find: its owner finds it.
      const owners = await ask(home.key, theirs);
      if (!theirs.path.includes('workspace=')) expect({ asked: theirs, status: owners.status, some: rowsOf(owners) > 0 }).toEqual({ asked: theirs, status: 200, some: true });
    }
  });

  test.each(Object.keys(ENDPOINTS))('G8: %s tells each workspace of its own, also under ids that both have', async (name) => {
    for (const asked of ENDPOINTS[name]?.own(rival) ?? []) {
      const answer = await ask(rival.key, asked);
      expect({ asked, status: answer.status }).toEqual({ asked, status: 200 });
      if (!asked.path.startsWith('/events')) expect(rowsOf(answer)).toBeGreaterThan(0);
    }
    for (const asked of ENDPOINTS[name]?.own(home) ?? []) {
      const answer = await ask(home.key, asked);
      expect(answer.status).toBe(200);
      expect(rival.secrets.filter((secret) => answer.text.includes(secret))).toEqual([]);
    }
  });

  test('G8: totals, sources and outcomes count one workspace', async () => {
    for (const tenant of [home, rival]) {
      for (const rows of ['journeys', 'transitions'] as const) expect(await parsed(tenant.key, search(rows))).toMatchObject({ totalElements: tenant.journeys });
      expect(await parsed(tenant.key, search('journeys', filter('outcome', 'Handled')))).toMatchObject({ totalElements: tenant.journeys });
      expect(await parsed(tenant.key, get(`/outcomes?${RANGE}`))).toMatchObject({ total: { journeys: tenant.journeys, handled: tenant.journeys } });
      expect(await parsed(tenant.key, get(`/journeys?identity=${SHARED}`))).toMatchObject({ totalElements: 2 });
    }
    const sources = async (key: string): Promise<unknown> => ((await parsed(key, get('/sources')))['data'] as { source: string }[]).map(({ source }) => source);
    expect(await sources(home.key)).toEqual(expect.arrayContaining(['crm', 'https://voice.example.com']));
    expect(await sources(rival.key)).toEqual(['https://voice.example.com']);
  });

  test('G8: what joins two identities in one workspace joins nothing in the other', async () => {
    const aliases = async (key: string): Promise<number> => ((await parsed(key, get(`/persons?identity=${SHARED}`)))['aliases'] as unknown[]).length;
    expect([await aliases(home.key), await aliases(rival.key)]).toEqual([2, 1]);
    const asked = get(`/persons?identity=${encodeURIComponent(PHONE)}`);
    expect((await ask(home.key, asked)).status).toBe(200);
    expect(await parsed(rival.key, asked)).toEqual(await parsed(rival.key, get('/persons?identity=15550000000')));
  });

  test('G8: no header or parameter names a workspace: the key alone does', async () => {
    const plain = await ask(rival.key, get(`/journeys?identity=${SHARED}`));
    const headed = await ask(rival.key, get(`/journeys?identity=${SHARED}`, { 'x-workspace': 'default', 'x-forwarded-host': 'default', 'throughline-workspace': 'default' }));
    expect(headed.text).toBe(plain.text);
    expect(await parsed(rival.key, publish(story('rival')[0], '?workspace=default'))).toMatchObject({ errors: [{ code: 'unknownParameter' }] });
  });

  test('G8: a position says how far the log goes and nothing more', async () => {
    const asked = `/journeys?identity=${SHARED}`;
    const plain = await ask(rival.key, get(asked));
    expect((await ask(rival.key, get(asked, { 'throughline-min-position': home.position }))).text).toBe(plain.text);
  });

  test.each(['', 'tl_not-a-key-of-anybody', TEST_KEY.toUpperCase(), TEST_KEY.slice(0, -1), 'default'])('G8: without a key that is one (%p), all that is not open is refused in the same words', async (key) => {
    for (const [name, endpoint] of Object.entries(ENDPOINTS)) {
      if (endpoint === unguarded) continue;
      const [method = '', path = ''] = name.split(' ');
      const tell = async (id: string): Promise<{ status: number; text: string }> => {
        const answer = await server.request(path.replace('{id}', id), { method, headers: { 'x-api-key': key }, ...(method === 'POST' ? { body: '{}' } : {}) });
        return { status: answer.status, text: await answer.text() };
      };
      const refused = await tell(path.startsWith('/persons') ? home.personId : 'J-1');
      expect({ name, status: refused.status, code: /"(?:errorCode|code)":"(\w+)"/.exec(refused.text)?.[1] }).toEqual({ name, status: 401, code: 'unauthorized' });
      expect(await tell('nobodys')).toEqual(refused);
    }
  });

  test('G8: nothing of the other workspace stood in any answer, open endpoints included', async () => {
    for (const asked of [...Object.entries(ENDPOINTS)].filter(([, endpoint]) => endpoint === unguarded).map(([name]) => name.slice('GET '.length))) {
      const [keyed, keyless] = [await ask(rival.key, get(asked)), await ask('', get(asked))];
      expect({ asked, status: keyed.status }).toEqual({ asked, status: keyless.status });
    }
    for (const endpoint of Object.values(ENDPOINTS)) {
      for (const { theirs } of endpoint.foreign(home)) await ask(rival.key, theirs);
      for (const asked of endpoint.own(rival)) await ask(rival.key, asked);
    }
    const [ours, theirs] = [told.join('\n'), toldAtHome.join('\n')];
    expect(home.secrets.filter((secret) => ours.includes(secret))).toEqual([]);
    // They are what answers show: whoever may see them does.
    expect(home.secrets.filter((secret) => !theirs.includes(secret))).toEqual([TEST_KEY]);
  });

  test('G8: an event of one workspace is no duplicate in the other, changes nothing there, and stands in a stream of its own', async () => {
    const before = await ask(home.key, get(`/history?identity=${only('default')}`));
    const again = await parsed(rival.key, publish(story('default').slice(-2)));
    expect(again).toMatchObject({ recorded: 2, duplicate: 0 });
    const streams = (again['results'] as { stream: string }[]).map(({ stream }) => stream);
    expect(streams.every((stream) => stream.startsWith('identity.rival-'))).toBe(true);
    expect((await ask(home.key, get(`/history?identity=${only('default')}`))).text).toBe(before.text);
    expect(await parsed(home.key, publish(story('default').slice(-2)))).toMatchObject({ recorded: 0, duplicate: 2 });
  });
}

describe('two workspaces in one serve', () => tellOfTwo(openEmbeddedHouse));
describeOn(['redis'], 'two workspaces in one Redis', () => tellOfTwo(openHouseOnRedis));

/** Rows of a list in any of its forms; of a single thing, one. */
function rowsOf({ text, headers }: Told): number {
  const type = headers.get('content-type') ?? '';
  if (type.startsWith('text/csv')) return text.trim().split('\r\n').length - 1;
  if (type.startsWith('application/x-ndjson')) return text.split('\n').length - 1;
  const { data, sequences, total } = JSON.parse(text) as { data?: unknown; sequences?: unknown; total?: { journeys?: unknown } };
  if (total?.journeys === 0) return 0;
  const rows = data ?? sequences;
  return Array.isArray(rows) ? rows.length : 1;
}
