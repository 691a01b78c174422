import { EIGHT_BY_EIGHT_ERRORS, eightByEight, eightByEightEndpoints, parseRangeDate, searchRequest } from '../../schemas/apis/eightbyeight.ts';
import { NATIVE_CODES, native, nativeEndpoints } from '../../schemas/apis/native.ts';
import { columnsOf, type Endpoint, type JsonSchema, jsonSchemaOf, openApi, refusalsOf } from '../../schemas/apis/openapi.ts';
import { REJECTION_CODES } from '../../schemas/cloudevent.ts';
import { ERROR_CODES } from '../../services/errors.ts';
import { isTimezone } from '../../schemas/apis/timezones.ts';

const SEED = { revision: 'seed', maxRangeDays: 60 } as const;
const natives = nativeEndpoints({ filters: ['mediaTypes', 'agents.name', 'transitions.name'], maxRangeDays: 60 });
const endpoints = { ...natives, ...eightByEightEndpoints({ journeys: ['mediaTypes', 'agents.name'], transitions: ['transitions.name'] }, SEED) };
const all: readonly Endpoint[] = Object.values(endpoints);
const schema = searchRequest(['mediaTypes', 'agents.name'], SEED);
const valid = { dateRange: { start: '2026-03-02T00:00:00Z', end: '2026-03-03T00:00:00Z' }, displayTimezone: 'UTC' };

function codes(body: unknown): string[] {
  const parsed = schema.safeParse(body);
  return parsed.success ? [] : eightByEight.seed.problemsOf(parsed.error).map(({ code }) => code);
}
const range = (start: unknown, end: unknown): unknown => ({ ...valid, dateRange: { start, end } });

describe('an 8x8 search request', () => {
  test.each<[string, unknown, string[]]>([
    ['the least there is', valid, []],
    ['everything at once', { ...valid, filters: [{ name: 'mediaTypes', values: ['Phone'] }], limit: 1000, sortField: 'TIME', sortDirection: 'DESC', nextPageCursor: 'x' }, []],
    ['null for what may be left out', { ...valid, filters: null, limit: null, sortField: null, sortDirection: null, nextPageCursor: null }, []],
    ['unknown fields, which are ignored (reading 18)', { ...valid, colour: 'red' }, []],
    ['sort directions in any case (reading 6)', { ...valid, sortDirection: 'desc' }, []],
    ['sort directions in mixed case', { ...valid, sortDirection: 'Asc' }, []],
    ['start = end (reading 4)', range('2026-03-02T00:00:00Z', '2026-03-02T00:00:00Z'), []],
    ['exactly sixty days (reading 2)', range('2026-01-01T00:00:00Z', '2026-03-02T00:00:00Z'), []],
    ['a millisecond more', range('2026-01-01T00:00:00Z', '2026-03-02T00:00:00.001Z'), ['maxInterval']],
    ['sixty calendar days of one hour more by their offsets', range('2026-01-01T00:00:00+02:00', '2026-03-02T00:00:00+01:00'), ['maxInterval']],
    ['fractions of a second', range('2026-03-02T00:00:00.123456789Z', '2026-03-03T00:00:00.5+02:00'), []],
    ['no seconds', range('2026-03-02T00:00Z', '2026-03-03T00:00+02:00'), []],
    ['no body', null, ['malformedRequest']],
    ['an array', [], ['malformedRequest']],
    ['a text', 'x', ['malformedRequest']],
    ['nothing in it', {}, ['dateRangeNotNull', 'timezoneNotNull']],
    ['a null range', { ...valid, dateRange: null }, ['dateRangeNotNull']],
    ['a range that is no object', { ...valid, dateRange: '2026' }, ['malformedRequest']],
    ['an empty range', { ...valid, dateRange: {} }, ['startRangeNotNull', 'endRangeNotNull']],
    ['no start', range(undefined, '2026-03-03T00:00:00Z'), ['startRangeNotNull']],
    ['a null end', range('2026-03-03T00:00:00Z', null), ['endRangeNotNull']],
    ['a number for a date', range(1, '2026-03-03T00:00:00Z'), ['badRequest']],
    ['no zone designator', range('2026-03-02T00:00:00', '2026-03-03T00:00:00Z'), ['iso8061WithTzFormat']],
    ['a date alone', range('2026-03-02', '2026-03-03'), ['iso8061WithTzFormat', 'iso8061WithTzFormat']],
    ['30 February', range('2026-02-30T00:00:00Z', '2026-03-03T00:00:00Z'), ['iso8061WithTzFormat']],
    ['a basic offset', range('2026-03-02T00:00:00+0200', '2026-03-03T00:00:00Z'), ['iso8061WithTzFormat']],
    ['a leap second', range('2016-12-31T23:59:60Z', '2017-01-01T01:59:60.5+02:00'), ['iso8061WithTzFormat', 'iso8061WithTzFormat']],
    ['ten digits of fraction', range('2026-03-02T00:00:00.1234567890Z', '2026-03-03T00:00:00.0000000000+02:00'), ['iso8061WithTzFormat', 'iso8061WithTzFormat']],
    ['end before start', range('2026-03-03T00:00:00Z', '2026-03-02T00:00:00Z'), ['endDateBeforeStartDate']],
    ['end before start by their offsets alone', range('2026-03-02T00:00:00+01:00', '2026-03-02T00:00:00+02:00'), ['endDateBeforeStartDate']],
    ['an empty timezone', { ...valid, displayTimezone: '' }, ['invalidTimezone']],
    ['an offset for a timezone', { ...valid, displayTimezone: '+03:00' }, ['invalidTimezone']],
    ['a number for a timezone', { ...valid, displayTimezone: 3 }, ['badRequest']],
    ['no filters in filters (reading 1)', { ...valid, filters: [] }, ['filtersNotEmpty']],
    ['filters that are no array', { ...valid, filters: {} }, ['malformedRequest']],
    ['a filter that is no object', { ...valid, filters: ['mediaTypes'] }, ['malformedRequest']],
    ['a filter of another endpoint', { ...valid, filters: [{ name: 'transitions.name', values: ['TALKING'] }] }, ['invalidFilterType']],
    ['a filter by a name of Object.prototype', { ...valid, filters: [{ name: 'constructor', values: ['x'] }] }, ['invalidFilterType']],
    ['a filter without a name', { ...valid, filters: [{ values: ['x'] }] }, ['badRequest']],
    ['a filter without values', { ...valid, filters: [{ name: 'mediaTypes' }] }, ['filterValuesNotEmpty']],
    ['a filter with no values', { ...valid, filters: [{ name: 'mediaTypes', values: [] }] }, ['filterValuesNotEmpty']],
    ['a filter with null values', { ...valid, filters: [{ name: 'mediaTypes', values: null }] }, ['filterValuesNotEmpty']],
    ['values that are no array', { ...valid, filters: [{ name: 'mediaTypes', values: 'Phone' }] }, ['malformedRequest']],
    ['a value that is no text', { ...valid, filters: [{ name: 'mediaTypes', values: [1] }] }, ['badRequest']],
    ['limit 0', { ...valid, limit: 0 }, ['invalidLimit']],
    ['limit 1001', { ...valid, limit: 1001 }, ['invalidLimit']],
    ['limit 1.5', { ...valid, limit: 1.5 }, ['invalidLimit']],
    ['limit as a text', { ...valid, limit: '10' }, ['badRequest']],
    ['another sort field', { ...valid, sortField: 'time' }, ['invalidSortField']],
    ['another sort direction', { ...valid, sortDirection: 'up' }, ['invalidSortDirection']],
    ['a number for a sort direction', { ...valid, sortDirection: 1 }, ['badRequest']],
    ['a number for a cursor', { ...valid, nextPageCursor: 1 }, ['badRequest']],
    ['everything wrong, all of it told (reading 15)', { dateRange: { end: 'x' }, filters: [{ name: 'x', values: [] }], limit: 0, sortDirection: 'up', sortField: 'x' }, ['startRangeNotNull', 'iso8061WithTzFormat', 'timezoneNotNull', 'invalidFilterType', 'filterValuesNotEmpty', 'invalidLimit', 'invalidSortField', 'invalidSortDirection']],
  ])('%s', (_what, body, expected) => expect(codes(body)).toEqual(expected));

  test('an error is printed with the fields of both revisions, and points to the published page', () => {
    expect(eightByEight.seed.print([{ code: 'invalidPbx', message: 'no', attribute: 'filters.0' }])).toEqual({
      errors: [{ message: 'no (filters.0)', suggestion: EIGHT_BY_EIGHT_ERRORS.invalidPbx.suggestion, url: 'https://developer.8x8.com/analytics/docs/end-to-end-journey-api#invalid-pbx-invalidpbx', errorCode: 'invalidPbx' }],
    });
    const newest = eightByEight.latest.print([{ code: 'invalidLimit', message: 'no' }, { code: 'rateLimited', message: 'no' }]) as { errors: { url: string }[] };
    expect(newest.errors.map(({ url }) => url)).toEqual(['https://docs.8x8.com/error/invalidLimit', 'https://developer.8x8.com/analytics/docs/end-to-end-journey-api']);
    expect(Object.keys(EIGHT_BY_EIGHT_ERRORS)).toHaveLength(23);
  });

  test('a date without seconds is the start of its minute', () => {
    expect(parseRangeDate('2026-03-02T10:30+02:00')).toBe('2026-03-02T08:30:00.000000000Z');
    expect(parseRangeDate('2026-03-02T10+02:00')).toBeNull();
  });
});

describe('a timezone (1.10 no. 16)', () => {
  const names = (text: string): string[] => text.split(' ');
  const TAKEN = names('UTC GMT GMT0 GMT+0 Etc/UTC Etc/GMT Etc/GMT+5 Etc/GMT-14 Etc/Zulu Zulu Greenwich Europe/Bucharest Europe/Kyiv Europe/Kiev Europe/London GB GB-Eire Eire Asia/Kolkata Asia/Calcutta Asia/Ho_Chi_Minh America/Argentina/Buenos_Aires America/Argentina/ComodRivadavia America/Port-au-Prince America/Knox_IN Australia/Lord_Howe Australia/LHI Antarctica/DumontDUrville US/Eastern US/East-Indiana Canada/Atlantic Chile/EasterIsland EST EST5EDT MST HST MET WET CET EET PRC ROC ROK W-SU NZ-CHAT Japan Hongkong');
  const REFUSED = names('Utc utc Gmt Est ZULU JAPAN Gb MEt Etc/utc Etc/gmt+3 US/eastern Canada/ATLANTIC Asia/KOLKATA ASIA/Kolkata asia/kolkata Europe/kyiv europe/bucharest EUROPE/BUCHAREST PST CST IST AST EDT ACT AET ART BST CAT CNT CTT EAT ECT IET JST MIT NET NST PLT PNT PRT SST VST SystemV/EST5 SystemV/PST8PDT Factory Etc/Unknown Etc/GMT+13 Etc/GMT-15 GMT+3 UTC+3 +03:00 -0300 Z Mars/Olympus Europe/ constructor Xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx');

  test('is a name of the tz database, spelt as there: its aliases too, which Intl does not list', () => {
    expect([...TAKEN, ...Intl.supportedValuesOf('timeZone')].filter((name) => !isTimezone(name))).toEqual([]);
  });

  test('and is no offset, no name of ICU\'s own, and no name in another case', () => {
    expect([...REFUSED, '', ' ', ' UTC', 'UTC\n', 'UTC Zulu'].filter(isTimezone)).toEqual([]);
    const all = [...TAKEN, ...Intl.supportedValuesOf('timeZone')];
    for (const other of [(name: string) => name.toLowerCase(), (name: string) => name.toUpperCase()]) expect(all.map(other).filter((name) => !all.includes(name) && isTimezone(name))).toEqual([]);
  });
});

describe('our own parameters', () => {
  const problems = (name: keyof typeof natives, query: unknown): readonly string[] => {
    const parsed = natives[name].query.safeParse(query);
    return parsed.success ? [] : native.problemsOf(parsed.error).map(({ code, attribute }) => `${code} ${attribute ?? ''}`.trim());
  };
  test.each<[keyof typeof natives, unknown, string[]]>([
    ['getHistory', { identity: 'a@example.com' }, []],
    ['getHistory', { identity: 'a@example.com', limit: '1000', sort: 'desc', identitytype: 'email' }, []],
    ['getHistory', {}, ['missingParameter identity']],
    ['getHistory', { identity: '' }, ['badRequest identity']],
    ['getHistory', { identity: ['a', 'b'] }, ['badRequest identity']],
    ['getHistory', { identity: 'a', limit: '0' }, ['badRequest limit']],
    ['getHistory', { identity: 'a', limit: '1e2' }, ['badRequest limit']],
    ['getHistory', { identity: 'a', sort: 'up' }, ['badRequest sort']],
    ['getHistory', { identity: 'a', identityType: 'email' }, ['unknownParameter identityType']],
    ['listJourneys', { identity: 'a', timezone: '+03:00' }, ['invalidTimezone timezone']],
    ['getOutcomes', { from: 'yesterday' }, ['badRequest from', 'missingParameter to']],
    ['getOutcomes', { from: '2026-03-02T00:00:00Z', to: '2026-03-03T00:00:00Z', by: 'week', group: 'queue,colour' }, ['badRequest by', 'badRequest group']],
    ['getOutcomes', { from: '2026-03-02T00:00:00Z', to: '2026-03-03T00:00:00Z', by: 'hour', group: 'queue,outcome', timezone: 'Europe/Bucharest' }, []],
    ['publishEvents', { dryRun: 'yes' }, ['badRequest dryRun']],
  ])('%s %j', (name, query, expected) => expect(problems(name, query)).toEqual(expected));
});

describe('the OpenAPI document', () => {
  const status = (code: string): number => (code in NATIVE_CODES ? NATIVE_CODES[code as keyof typeof NATIVE_CODES].status : code in EIGHT_BY_EIGHT_ERRORS ? EIGHT_BY_EIGHT_ERRORS[code as keyof typeof EIGHT_BY_EIGHT_ERRORS].status : 400);
  const document = openApi(all, status, (code) => ({ code, message: 'as others say it' }), '0.1.0') as { openapi: string; paths: Record<string, Record<string, JsonSchema>> };
  const operations = Object.entries(document.paths).flatMap(([path, item]) => Object.entries(item).map(([method, operation]) => ({ path, method, operation })));

  test('has every endpoint with an id of its own, security, parameters, an answer and its refusals', () => {
    expect(document.openapi).toBe('3.1.0');
    expect(new Set(operations.map(({ operation }) => operation['operationId'])).size).toBe(all.length);
    for (const { path, operation } of operations) {
      const responses = operation['responses'] as Record<string, { content: Record<string, { schema: JsonSchema }> }>;
      expect(Object.keys(Object.values(responses['200']?.content ?? {})[0]?.schema ?? {})).not.toEqual([]);
      const named = [...path.matchAll(/\{(\w+)\}/g)].map((match) => match[1]);
      expect((operation['parameters'] as { name: string; in: string; schema: unknown }[]).filter((one) => one.in === 'path').map(({ name }) => name)).toEqual(named);
      expect((operation['parameters'] as { schema: unknown }[]).every((one) => one.schema !== undefined)).toBe(true);
      if ((operation['security'] as unknown[]).length > 0) expect(responses['401']).toBeDefined();
      expect(Object.keys(responses).every((code) => /^[2-5]\d\d$/.test(code))).toBe(true);
    }
  });

  test('leaves nothing open that reads or writes data', () => {
    expect(all.filter(({ access }) => access === 'open').map(({ path }) => path)).toEqual(['/openapi.json', '/docs', '/healthz', '/readyz', '/metrics']);
  });

  test('says of the searches what the schema takes: required fields, filters by name, the limit', () => {
    const body = document.paths['/cidp/journey/api/v1/journeys/search']?.['post']?.['requestBody'] as { content: Record<string, { schema: { required: string[]; properties: Record<string, unknown> } }> };
    const { schema: request } = body.content['application/json'] ?? { schema: { required: [], properties: {} } };
    expect(request.required).toEqual(['dateRange', 'displayTimezone']);
    expect(JSON.stringify(request.properties['filters'])).toContain('"enum":["mediaTypes","agents.name"]');
    expect(JSON.stringify(request.properties['limit'])).toContain('"maximum":1000');
    expect(JSON.stringify(document)).not.toContain('$schema');
  });

  test('says of sortDirection what each revision takes: the seed either case, the latest upper case', () => {
    const documented = (revision: 'seed' | 'latest'): { readonly enum?: readonly string[]; readonly pattern?: string } => {
      const { body } = eightByEightEndpoints({ journeys: ['a'], transitions: ['b'] }, { ...SEED, revision }).searchJourneys;
      const { anyOf } = (body.kind === 'json' ? jsonSchemaOf(body.schema, 'input') as { properties: Record<string, { anyOf: readonly object[] }> } : null)?.properties['sortDirection'] ?? {};
      return anyOf?.[0] ?? {};
    };
    expect(documented('latest').enum).toEqual(['ASC', 'DESC']);
    expect(documented('seed').enum).toBeUndefined();
    const pattern = new RegExp(documented('seed').pattern ?? 'none');
    expect(['ASC', 'desc', 'Asc', 'dESC', 'ascending', 'up', '', 'ASC DESC'].map((text) => pattern.test(text))).toEqual([true, true, true, true, false, false, false, false]);
  });

  test.each(['seed', 'latest'] as const)('the example request and answer of each search are of its own schemas (%s)', (revision) => {
    const filters = { journeys: ['mediaTypes', 'direction'], transitions: ['transitions.name', 'transitions.agents.name'] };
    for (const one of Object.values(eightByEightEndpoints(filters, { ...SEED, revision }))) {
      expect(one.body.kind === 'json' && one.body.schema.safeParse(one.requestExample).error?.issues).toBe(undefined);
      expect(one.answer.schema.parse(one.answer.example)).toEqual(one.answer.example);
    }
  });

  test('every code that an endpoint refuses with has its own example, under its own status', () => {
    for (const one of all) {
      const responses = document.paths[one.path]?.[one.method.toLowerCase()]?.['responses'] as Record<string, { content: Record<string, { examples: Record<string, { value: unknown }> }> }>;
      const examples = Object.entries(responses).flatMap(([code, { content }]) => Object.entries(content['application/json']?.examples ?? {}).map(([name, { value }]) => ({ code, name, value })));
      expect(examples.map(({ name }) => name).sort()).toEqual([...refusalsOf(one)].sort());
      for (const { code, name, value } of examples) {
        expect([name, code]).toEqual([name, String(status(name))]);
        expect(one.dialect.errorSchema.parse(value)).toEqual(value);
        expect(JSON.stringify(value)).toContain(name);
      }
    }
  });

  test('what is said where no operation is met stands beside them, in each dialect', () => {
    const { components, tags } = document as unknown as { components: { responses: Record<string, { headers?: Record<string, unknown>; content: Record<string, { examples: Record<string, { value: unknown }> }> }> }; tags: { name: string; description: string }[] };
    expect(Object.keys(components.responses).sort()).toEqual(['invalidApiPath', 'invalidRequestMethod', 'methodNotAllowed', 'unknownPath']);
    expect(eightByEight.seed.errorSchema.parse(components.responses['invalidRequestMethod']?.content['application/json']?.examples['invalidRequestMethod']?.value)).toMatchObject({ errors: [{ errorCode: 'invalidRequestMethod' }] });
    expect(Object.keys(components.responses['invalidRequestMethod']?.headers ?? {})).toEqual(['Allow']);
    expect(tags.find(({ name }) => name.startsWith('8x8'))?.description).toContain('invalidApiPath');
  });

  test('of the 8x8 errors those of the seed alone are no more in the latest revision, and between them all 23 are there but the two of the whole API', () => {
    const codes = (revision: 'seed' | 'latest'): string[] => [...new Set(Object.values(eightByEightEndpoints({ journeys: ['a'], transitions: ['b'] }, { ...SEED, revision })).flatMap(refusalsOf))];
    const published = Object.keys(EIGHT_BY_EIGHT_ERRORS).filter((code) => code !== 'invalidApiPath' && code !== 'invalidRequestMethod');
    expect(published.filter((code) => !codes('seed').includes(code))).toEqual([]);
    expect(codes('seed').filter((code) => !codes('latest').includes(code)).sort()).toEqual(['filtersNotEmpty', 'invalidPbx', 'invalidTenant', 'missingPbxForCustomer']);
  });

  test('whoever asks with a key may be told that there is no room, or that a store cannot answer; who writes to one, that it is full', () => {
    const named = (...codes: string[]): string[] => all.filter((one) => codes.every((code) => refusalsOf(one).includes(code))).map(({ name }) => name).sort();
    expect(named('overloaded', 'storeUnavailable', 'storeBusy', 'storeCorrupt')).toEqual(all.filter(({ access }) => access === 'key').map(({ name }) => name).sort());
    expect(named('storeFull', 'storeReadOnly')).toEqual(['publishEvents', 'searchJourneys', 'searchTransitions']);
    expect(named('viewMissing')).toEqual(named('building'));
    expect(named(...Object.keys(REJECTION_CODES))).toEqual(['publishEvents']);
  });

  test('every refusal that an endpoint names has a status', () => {
    const known = new Set([...Object.keys(NATIVE_CODES), ...Object.keys(EIGHT_BY_EIGHT_ERRORS), ...Object.keys(ERROR_CODES), ...Object.keys(REJECTION_CODES)]);
    expect(all.flatMap(refusalsOf).filter((code) => !known.has(code))).toEqual([]);
  });
});

test('the columns of a CSV are the scalar properties in order, one per property of an array\'s items', () => {
  const names = (endpoint: Endpoint): string[] => (endpoint.list === null ? [] : columnsOf(endpoint.list).map(({ name }) => name));
  expect(names(endpoints.searchJourneys).slice(0, 9)).toEqual(['time', 'finishedTime', 'journeyId', 'interactions.id', 'interactions.direction', 'interactions.type', 'agents.id', 'agents.subscriptionId', 'agents.name']);
  expect(names(endpoints.searchJourneys)).toEqual(expect.arrayContaining(['agents.group.name', 'entryPoint.site.id', 'mediaTypes', 'aiAgentInformation.toolsUsedSuccessfully.name']));
  expect(names(endpoints.searchTransitions).slice(0, 4)).toEqual(['journeyId', 'transitions.time', 'transitions.name', 'transitions.interactionId']);
  expect(names(endpoints.getHistory)).toEqual(expect.arrayContaining(['eventId', 'recordedtime', 'event.type', 'event.data']));
});
