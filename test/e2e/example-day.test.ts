// The example day over HTTP, as a user has it: one `serve`, the two files of test/fixtures imported by the command line; and the
// same files published on a topic, through the programs on servers. Every answer is held against the story
// (test/fixtures/STORY.md). What is expected stands in example-day.story.ts, in the table of what the rows show beside it, or
// is written out here by hand from the story.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import type { JourneyAnswer, TransitionAnswer } from '../../schemas/apis/eightbyeight.ts';
import type { DurationRow, JourneyDetail, OutcomeRow, PathSequence, PathStep, PersonAnswer, SourceRow, TransitionDurationRow } from '../../schemas/apis/native.ts';
import { corina, dan, expectedJourneys, type ExpectedJourney, expectedLines, expectedPersons, ilinca, type Identity, instant, mara, PBX, pine, sorin, TENANT, who } from '../fixtures/example-day.story.ts';
import { describeOn } from '../support/local-server.ts';
import { json, ROOT, until } from '../support/serve.ts';
import { type House, openEmbeddedHouse, openHouseOnServers, SERVERS } from './servers/stage.ts';

const fixture = (name: string): string => join(ROOT, 'test/fixtures', name);
const linesOf = (name: string): readonly string[] => readFileSync(fixture(name), 'utf8').split('\n').filter((line) => line !== '');
const DAY_LINES = linesOf('example-day.ndjson');
const CAPTURED_LINES = linesOf('wxcc-captured.ndjson');

interface Told { readonly id: string; readonly source: string; readonly type: string; readonly time: string; readonly identity: string; readonly identitytype: string; readonly data: Readonly<Record<string, unknown>> }
const told = (line: string): Told => JSON.parse(line) as Told;

let server: House;
const taken: Record<string, Record<string, unknown>> = {};

function houseOf(open: () => Promise<House>): void {
  beforeAll(async () => {
    server = await open();
    // One after the other: the counts by source are told of both.
    for (const name of ['example-day.ndjson', 'wxcc-captured.ndjson']) {
      const { code, stdout, stderr } = await server.takeIn(fixture(name));
      if (code !== 0) throw new Error(`${name} was taken in with ${String(code)}: ${stdout}${stderr}`);
      taken[name] = JSON.parse(stdout) as Record<string, unknown>;
    }
    await server.folded();
  }, 180_000);

  afterAll(async () => { await server.close(); }, 180_000);
}

// ---- asking ------------------------------------------------------------------------------------------------------------

const API = '/cidp/journey/api/v1';
const RANGE = { start: '2026-03-02T00:00:00+02:00', end: '2026-03-02T23:59:59+02:00' };
const ZONE = 'Europe/Bucharest';

interface Page<T> { readonly data: readonly T[]; readonly nextPageCursor: string | null; readonly totalElements: number }
interface Timeline { readonly journeyId: string; readonly transitions: readonly TransitionAnswer[] }
interface Filter { readonly name: string; readonly values: readonly string[] }
interface Errors { readonly errors: readonly { readonly code?: string; readonly errorCode?: string; readonly message: string; readonly gap?: number }[] }

async function get<T>(path: string, headers: Readonly<Record<string, string>> = {}): Promise<T> {
  const response = await server.request(path, { headers });
  if (response.status !== 200) throw new Error(`${path} answers ${String(response.status)}: ${await response.text()}`);
  return (await response.json()) as T;
}

function post(what: 'journeys' | 'transitions', body: object, path = '', headers: Readonly<Record<string, string>> = {}): Promise<Response> {
  return server.request(`${API}/${what}/search${path}`, { method: 'POST', headers: { 'content-type': 'application/json', ...headers }, body: JSON.stringify({ dateRange: RANGE, displayTimezone: ZONE, ...body }) });
}

async function search<T>(what: 'journeys' | 'transitions', body: object): Promise<Page<T>> {
  const response = await post(what, body);
  if (response.status !== 200) throw new Error(`${JSON.stringify(body)} is answered with ${String(response.status)}: ${await response.text()}`);
  return (await response.json()) as Page<T>;
}
const searchJourneys = (body: object = {}): Promise<Page<JourneyAnswer>> => search('journeys', body);
const searchTransitions = (body: object = {}): Promise<Page<Timeline>> => search('transitions', body);

/** The first interaction of each, by which the story knows a journey. */
const namesOf = (rows: readonly JourneyAnswer[]): readonly string[] => rows.map(({ interactions }) => interactions[0]?.id ?? '');
const found = async (filters: readonly Filter[]): Promise<readonly string[]> => namesOf((await searchJourneys({ filters })).data);
const foundByTransitions = async (filters: readonly Filter[]): Promise<readonly string[]> => (await searchTransitions({ filters })).data.map(({ transitions }) => transitions[0]?.interactionId ?? '');
const by = (name: string, ...values: readonly string[]): Filter => ({ name, values });

const queryOf = (given: Readonly<Record<string, string | number>>): string => new URLSearchParams(Object.entries(given).map(([name, value]): [string, string] => [name, String(value)])).toString();

/** Rows of a CSV by RFC 4180. */
function parseCsv(text: string): readonly Readonly<Record<string, string>>[] {
  const rows: string[][] = [[]];
  for (const [, quoted, plain, end] of text.matchAll(/(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r\n)/g)) {
    rows.at(-1)?.push(quoted?.replaceAll('""', '"') ?? plain ?? '');
    if (end === '\r\n') rows.push([]);
  }
  const [head = [], ...rest] = rows;
  return rest.filter((row) => row.length > 0).map((row) => {
    expect(row).toHaveLength(head.length);
    return Object.fromEntries(head.map((name, i) => [name, row[i] ?? '']));
  });
}

/** All values at a path such as `agents.group.id`, through arrays and nulls. */
function valuesAt(value: unknown, path: readonly string[]): readonly string[] {
  if (value === null || value === undefined) return [];
  if (Array.isArray(value)) return value.flatMap((item) => valuesAt(item, path));
  const [name, ...rest] = path;
  if (name === undefined) return [typeof value === 'string' ? value : JSON.stringify(value)];
  return valuesAt((value as Readonly<Record<string, unknown>>)[name], rest);
}

// ---- what the story says a row shows -----------------------------------------------------------------------------------

/** Local time as answers in the day's own zone print it: a fraction only where there is one. */
const shown = (local: string): string => `2026-03-02T${local.replace(/\.000$/, '')}+02:00`;
const shownUtc = (local: string): string => instant(local).replace('.000Z', 'Z');

const CLUJ = { id: 'site-cluj', name: 'Cluj' };
const IASI = { id: 'site-iasi', name: 'Iasi' };
const place = (id: string, name: string | null, extension: string | null = null, site: object | null = null): object => ({ id, name, extension, site });
const PLACES: Readonly<Record<string, object>> = {
  Support: place('q-support', 'Support'), Orders: place('q-orders', 'Orders', '2001', CLUJ), Delivery: place('q-delivery', 'Delivery', '2002', CLUJ), 'Web chat': place('q-chat', 'Web chat'),
  'Support mail': place('q-mail', 'Support mail'), 'Service desk': place('wq-service', 'Service desk'), 'Service mail': place('wq-mail', 'Service mail'), Showroom: place('rg-showroom', 'Showroom', '3001', IASI),
};
const webexAgent = (id: string, name: string): object => ({ id, subscriptionId: null, name, email: null, loginId: null, department: null, group: { id: 'wt-7', name: 'Workshop' }, site: null, type: 'HUMAN' });
const AGENTS: Readonly<Record<string, object>> = {
  'Mara Ionescu': mara, 'Dan Petre': dan, 'Ilinca Rusu': ilinca, 'Sorin Vlad': sorin, 'Corina Dobre': corina, Pine: pine,
  'Lia Munteanu': webexAgent('wa-502', 'Lia Munteanu'), 'Bianca Oprea': webexAgent('wa-501', 'Bianca Oprea'),
};

const endpointOf = (type: string, given: object): NonNullable<JourneyAnswer['entryPoint']> => ({
  type, id: null, name: null, phoneNumber: null, extension: null, email: null, loginId: null, department: null, pbx: null, tenantId: null, site: null, ...given,
});
const SUPPORT_LINE = endpointOf('cc-channel', { id: 'ch-support', name: 'Support line', phoneNumber: '+12025550190', tenantId: TENANT });
const SUPPORT_MAIL = endpointOf('cc-channel', { id: 'ch-mail', name: 'Support mail', email: 'support@example.com', tenantId: TENANT });
const MAIN_MENU = endpointOf('auto-attendant', { id: 'aa-main', name: 'Main menu', phoneNumber: '+12025550194', extension: '1000', pbx: PBX, site: CLUJ });
const SHOWROOM = endpointOf('ring-group', { id: 'rg-showroom', name: 'Showroom', phoneNumber: '+12025550193', extension: '3001', pbx: PBX, site: IASI });
const SORIN = { id: 'ag-104', name: 'Sorin Vlad', phoneNumber: '+12025550196', extension: '3101', email: 'sorin.vlad@example.com', loginId: 'svlad', department: 'Showroom', pbx: PBX };

type Contact = readonly [name: string | null, phoneNumber: string | null, email: string | null];
type Platform = 'Contact Center' | 'Unified Communication' | 'AI Studio';
/** What expectedJourneys does not say of a row, by its first interaction. `queue`: the last one, by which outcomes are grouped. */
interface Shown { readonly contact: Contact; readonly entryPoint: JourneyAnswer['entryPoint']; readonly platforms: readonly Platform[]; readonly queue: string | null; readonly pbx?: true; readonly tenant?: true; readonly more?: Partial<JourneyAnswer> }
const CC = { platforms: ['Contact Center'], tenant: true } as const;
const UC = { platforms: ['Unified Communication'], pbx: true } as const;
const WEBEX = { platforms: ['Contact Center'] } as const;
const SHOWN: Readonly<Record<string, Shown>> = {
  'int-d-1': { ...CC, contact: ['Dora Lungu', '+12025550104', null], entryPoint: SUPPORT_LINE, queue: null, more: { scheduleHours: ['Closed'], schedules: [{ id: 'sch-week', tag: 'weekdays', tenantId: TENANT, result: 'closed' }] } },
  'int-m-1': { ...CC, platforms: ['Contact Center', 'Contact Center'], contact: ['Mihai Rotaru', '+12025550113', 'mihai.rotaru@example.com'], entryPoint: SUPPORT_MAIL, queue: 'q-delivery' },
  'int-a-1': { ...CC, contact: ['Ana Pop', '+12025550101', 'ana.pop@example.com'], entryPoint: SUPPORT_LINE, queue: 'q-support', more: { scheduleHours: ['Open'], schedules: [{ id: 'sch-week', tag: 'weekdays', tenantId: TENANT, result: 'open' }] } },
  'int-b-1': { ...UC, contact: ['Bogdan Matei', '+12025550102', null], entryPoint: endpointOf('call-queue', { id: 'q-orders', name: 'Orders', phoneNumber: '+12025550191', extension: '2001', pbx: PBX, site: CLUJ }), queue: 'q-orders' },
  'int-c-1': { ...UC, contact: [null, null, null], entryPoint: MAIN_MENU, queue: null },
  'int-e-1': { ...CC, platforms: ['Contact Center', 'Contact Center'], contact: ['Emil Stan', '+12025550105', null], entryPoint: SUPPORT_LINE, queue: 'q-support' },
  'int-l-1': {
    platforms: ['AI Studio'], tenant: true, contact: ['Liviu Sandu', null, 'liviu.sandu@example.com'], entryPoint: endpointOf('ai-studio', { id: 'ai-returns', name: 'Returns assistant', tenantId: TENANT }), queue: 'q-chat',
    more: { aiAgentInformation: { creditConsumption: 3.5, toolsUsedSuccessfully: [{ name: 'track-order', success: true }, { name: 'book-courier', success: false }] } },
  },
  'int-f-1': { ...CC, platforms: ['Contact Center', 'Contact Center'], contact: ['Felicia Dragan', '+12025550106', null], entryPoint: SUPPORT_LINE, queue: 'q-support' },
  'int-t-1': { ...UC, contact: ['Tudor Ilie', '+12025550119', null], entryPoint: SHOWROOM, queue: 'q-support' },
  '6b1c2a9e-16a0-4f0e-8f53-9d2a6c1f0a01': { ...WEBEX, contact: [null, '+12025550121', null], entryPoint: endpointOf('cc-channel', { phoneNumber: '+12025550195' }), queue: 'wq-service' },
  'int-h-1': { platforms: ['Unified Communication', 'Contact Center'], pbx: true, tenant: true, contact: ['Horia Barbu', '+12025550108', null], entryPoint: SHOWROOM, queue: 'q-delivery' },
  'int-s-1': { ...UC, contact: ['Sanda Coman', '+12025550118', null], entryPoint: endpointOf('call-queue', { id: 'q-delivery', name: 'Delivery', phoneNumber: '+12025550192', extension: '2002', pbx: PBX, site: CLUJ }), queue: 'q-delivery' },
  'int-g-1': { ...CC, platforms: ['Contact Center', 'Contact Center'], contact: ['Gabriel Nistor', '+12025550107', null], entryPoint: SUPPORT_LINE, queue: 'q-support' },
  '0e7d5c44-5f83-4f3b-9a57-7b1e9c2d0b02': { ...WEBEX, contact: [null, null, 'wanda.ghita@example.com'], entryPoint: endpointOf('cc-channel', { email: 'service@example.com' }), queue: 'wq-mail' },
  'int-n-1': { ...CC, contact: ['Nora Avram', '+12025550114', null], entryPoint: SUPPORT_LINE, queue: 'q-support' },
  'int-o-1': { ...UC, contact: ['Oana Preda', '+12025550115', null], entryPoint: MAIN_MENU, queue: null },
  // Sorin's own number belongs to the PBX and to the tenant.
  'int-i-1': { ...UC, tenant: true, contact: ['Irina Toma', '+12025550109', null], entryPoint: endpointOf('user', { ...SORIN, tenantId: TENANT }), queue: null },
  'int-j-1': { ...UC, contact: ['Julia Marin', '+12025550110', null], entryPoint: null, queue: null, more: { origin: { type: 'user', ...SORIN, site: IASI } } },
  'int-k-1': { ...CC, contact: ['Kira Neagu', '+12025550111', null], entryPoint: null, queue: null, more: { outboundPhoneCodes: [{ listName: 'Spring calls', name: 'Spring offer', shortCode: 'SPR1' }] } },
  'int-a-2': { ...CC, contact: ['Ana Pop', null, 'ana.pop@example.com'], entryPoint: SUPPORT_MAIL, queue: 'q-mail' },
  'int-q-1': { ...CC, platforms: ['Contact Center', 'Contact Center'], contact: ['Radu Enache', '+12025550117', null], entryPoint: SUPPORT_LINE, queue: 'q-support' },
  'int-p-1': { ...CC, contact: ['Paul Serban', '+12025550116', null], entryPoint: SUPPORT_LINE, queue: 'q-support' },
};
/** A callback and a call that somebody of the shop begins go out; all else comes in. */
const OUTBOUND: ReadonlySet<string> = new Set(['int-e-2', 'int-f-2', 'int-g-2', 'int-q-2', 'int-j-1', 'int-k-1']);

const firstOf = (journey: ExpectedJourney): string => journey.interactions[0] ?? '';
const NAMES = expectedJourneys.map(firstOf);
const startOf = (journey: ExpectedJourney): string => journey.transitions[0]?.[0] ?? '';
const endOf = (journey: ExpectedJourney): string | null => journey.transitions.find(([, name]) => name === 'FINISHED')?.[0] ?? null;
/** Milliseconds spent in a state, as far as it is over. */
const spent = (journey: ExpectedJourney, state: string): number => journey.transitions.reduce((sum, [, name, ms]) => sum + (name === state ? ms ?? 0 : 0), 0);

/** The searches answer with the five of the published revision, everything of our own with the ten. */
const FIVE = ['Handled', 'Abandoned', 'EndedInScript', 'Other', 'UnknownOutcome'];
const shownOutcome = ({ outcome }: ExpectedJourney): JourneyAnswer['outcome'] => (FIVE.includes(outcome) ? outcome : 'Other') as JourneyAnswer['outcome'];
const outcomeOf = (name: string): JourneyAnswer['outcome'] => expectedJourneys[NAMES.indexOf(name)]?.outcome as JourneyAnswer['outcome'];

/** The searches tell the mail address of a user alone; our own endpoints tell that of a mailbox too. */
function searchedEntryPoint(entryPoint: JourneyAnswer['entryPoint']): JourneyAnswer['entryPoint'] { return entryPoint === null || entryPoint.type === 'user' ? entryPoint : { ...entryPoint, email: null }; }

function expectedRow(journey: ExpectedJourney): Omit<JourneyAnswer, 'journeyId'> {
  const { contact: [name, phoneNumber, email], entryPoint, platforms, pbx, tenant, more } = SHOWN[firstOf(journey)] ?? neverTold(journey);
  const end = endOf(journey);
  return {
    time: shown(startOf(journey)), finishedTime: end === null ? null : shown(end),
    interactions: journey.interactions.map((id, i) => ({ id, direction: OUTBOUND.has(id) ? 'Outbound' : 'Inbound', type: platforms[i] ?? null })),
    agents: (journey.agents ?? []).map((agent) => AGENTS[agent]) as JourneyAnswer['agents'],
    contact: { name, phoneNumber, email }, entryPoint: searchedEntryPoint(entryPoint), direction: journey.direction,
    transfersCompleted: journey.transfersCompleted ?? 0, forwardedToQueue: journey.forwardedToQueue ?? 0, forwardedToRingGroup: journey.forwardedToRingGroup ?? 0,
    forwardedToScript: journey.forwardedToScript ?? 0, holdDuration: journey.holdDuration ?? 0, mediaTypes: [...journey.media], outcome: shownOutcome(journey),
    origin: null, pbxNames: pbx === true ? [PBX] : [],
    queues: (journey.queues ?? []).map((queue) => PLACES[queue]) as JourneyAnswer['queues'], ringGroups: (journey.ringGroups ?? []).map((group) => PLACES[group]) as JourneyAnswer['ringGroups'],
    scheduleHours: [], schedules: [], tenantIds: tenant === true ? [TENANT] : [], wrapUpCodes: [...journey.wrapUpCodes ?? []], outboundPhoneCodes: [], ...more,
  };
}
function neverTold(journey: ExpectedJourney): never { throw new Error(`${firstOf(journey)} is not in the table`); }

// ---- the import --------------------------------------------------------------------------------------------------------

function tellTheImport(): void {
  test('the import records every line once, and says so', () => {
    expect(DAY_LINES).toHaveLength(expectedLines.lines);
    expect(taken['example-day.ndjson']).toMatchObject({ recorded: 183, duplicate: 1, rejected: 0, complete: true, rejectedFile: null });
    expect(taken['wxcc-captured.ndjson']).toMatchObject({ recorded: 11, duplicate: 1, rejected: 0, complete: true });
  });
}

/** All that the story says, of whichever house stands. */
function tellTheDay(): void {
  // ---- what came in -----------------------------------------------------------------------------------------------------

  describe('what was taken in', () => {
    test('the key of a first start came by THROUGHLINE_API_KEY, so none is printed', () => {
      expect(server.stdout().trim()).toBe(`Throughline serves ${server.url} (documentation: ${server.url}/docs)`);
    });

    test('GET /sources tells for each source what it sent: recorded, repeated, ids used again', async () => {
      const sent = (lines: readonly string[]): Map<string, { recorded: number; duplicates: number; reusedIds: number }> => {
        const sources = new Map<string, { recorded: number; duplicates: number; reusedIds: number }>();
        const lines1 = new Set<string>();
        const ids = new Set<string>();
        for (const line of lines) {
          const { source, id, identity } = told(line);
          const one = sources.get(source) ?? { recorded: 0, duplicates: 0, reusedIds: 0 };
          sources.set(source, one);
          if (lines1.has(line)) { one.duplicates += 1; continue; }
          lines1.add(line);
          one.recorded += 1;
          if (ids.has(`${identity} ${source} ${id}`)) one.reusedIds += 1;
          ids.add(`${identity} ${source} ${id}`);
        }
        return sources;
      };
      const expected = sent([...DAY_LINES, ...CAPTURED_LINES]);
      // By hand: the service desk gives its thirteen and six events two ids; the captures have one id five times, another thrice.
      expect(expected.get('/com/cisco/wxcc/5f0c6f4e-0b0e-4b6e-9c55-2f1f7d3a9e10')).toEqual({ recorded: 19, duplicates: 0, reusedIds: 17 });
      expect(expected.get('/com/cisco/wxcc/99813d8c-d76b-4d95-a4d5-da41d1554220')).toEqual({ recorded: 5, duplicates: 0, reusedIds: 4 });
      // The door writes its counts once a second.
      let rows: readonly SourceRow[] = [];
      await until('the counts by source are written', async () => {
        rows = (await get<{ data: SourceRow[] }>('/sources')).data;
        return rows.reduce((sum, { recorded }) => sum + recorded, 0) === 194 && rows.reduce((sum, { duplicates }) => sum + duplicates, 0) === 2;
      });
      expect(new Map(rows.map(({ source, recorded, duplicates, reusedIds }) => [source, { recorded, duplicates, reusedIds }]))).toEqual(expected);
      for (const { source, recorded, duplicates, rejected, lateness, lastSeen } of rows) {
        expect(rejected).toEqual({});
        expect([source, Object.values(lateness).reduce((sum, count) => sum + count, 0)]).toEqual([source, recorded + duplicates]);
        expect(Math.abs(Date.now() - Date.parse(lastSeen))).toBeLessThan(300_000);
      }
      const [voice] = parseCsv(await (await server.request('/sources?format=csv')).text()).filter(({ source }) => source === 'https://voice.harbourpine.example/events');
      expect(voice).toMatchObject({ recorded: '132', duplicates: '1', reusedIds: '0', rejected: '{}' });
    });
  });

  // ---- journeys ----------------------------------------------------------------------------------------------------------

  describe('POST journeys/search', () => {
    let rows: readonly JourneyAnswer[] = [];
    beforeAll(async () => { rows = (await searchJourneys()).data; });

    test.each(expectedJourneys.map((journey) => [firstOf(journey), journey] as const))('%s shows every field as the story has it', async (name, journey) => {
      const row = rows.find(({ interactions }) => interactions[0]?.id === name);
      const { journeyId, ...rest } = row ?? {};
      expect(rest).toEqual(expectedRow(journey));
      if (journey.journeyId === undefined) expect(journeyId).toMatch(/^[0-9a-f]{32}$/);
      else expect(journeyId).toBe(journey.journeyId);
    });

    test('answers the whole day in the order of its journeys, each with an id of its own', async () => {
      const { data, nextPageCursor, totalElements } = await searchJourneys();
      expect(namesOf(data)).toEqual(NAMES);
      expect(totalElements).toBe(22);
      expect(nextPageCursor).toBeNull();
      expect(new Set(data.map(({ journeyId }) => journeyId)).size).toBe(22);
    });

    test('has the published fields, in the published order, and a value of each somewhere in the day', async () => {
      const published = [
        'time', 'finishedTime', 'journeyId', 'interactions', 'agents', 'contact', 'entryPoint', 'direction', 'transfersCompleted', 'forwardedToQueue', 'forwardedToRingGroup', 'forwardedToScript',
        'holdDuration', 'mediaTypes', 'outcome', 'origin', 'pbxNames', 'queues', 'ringGroups', 'scheduleHours', 'schedules', 'tenantIds', 'wrapUpCodes', 'outboundPhoneCodes',
      ];
      for (const row of rows) expect(Object.keys(row).filter((name) => name !== 'aiAgentInformation')).toEqual(published);
      expect(rows.filter((row) => 'aiAgentInformation' in row)).toHaveLength(1);
      const cells = parseCsv(await (await post('journeys', {}, '?format=csv')).text());
      const columns = Object.keys(cells[0] ?? {});
      expect(columns.filter((column) => cells.every((row) => (row[column] ?? '').replaceAll(/[; 0]/g, '') === ''))).toEqual([]);
      expect(columns.length).toBeGreaterThan(70);
    });

    test('by hand, Ana\'s call: forty-five seconds of hold, one transfer, one forward to a queue, a wrap-up that came late', () => {
      expect(rows[2]).toMatchObject({
        time: '2026-03-02T09:00:00+02:00', finishedTime: '2026-03-02T09:12:09+02:00', interactions: [{ id: 'int-a-1', direction: 'Inbound', type: 'Contact Center' }],
        outcome: 'Handled', holdDuration: 45000, transfersCompleted: 1, forwardedToQueue: 1, forwardedToRingGroup: 0, forwardedToScript: 0, wrapUpCodes: ['Order query', 'Repair booked'],
        agents: [
          { id: 'ag-101', name: 'Mara Ionescu', email: 'mara.ionescu@example.com', loginId: 'mionescu', department: 'Customer Support', group: { id: '101', name: 'First line' }, site: { id: 'site-cluj', name: 'Cluj' }, subscriptionId: 'sub-101', type: 'HUMAN' },
          { id: 'ag-102', name: 'Dan Petre', department: 'Technical Support', group: { id: '102', name: 'Second line' }, site: { id: 'site-iasi', name: 'Iasi' } },
        ],
        queues: [{ id: 'q-support', name: 'Support', extension: null, site: null }], contact: { name: 'Ana Pop', phoneNumber: '+12025550101', email: 'ana.pop@example.com' },
      });
    });

    test('by hand: who was only rung handles nothing, who is open has no end, whoever withholds the number is shown without it', () => {
      const [emil, victor, withheld, radu, paul] = [5, 9, 4, 20, 21].map((i) => rows[i]);
      expect(emil?.agents.map(({ name }) => name)).toEqual(['Dan Petre']);
      expect(victor?.agents.map(({ name }) => name)).toEqual(['Lia Munteanu']);
      expect(withheld).toMatchObject({ contact: { name: null, phoneNumber: null, email: null }, outcome: 'Abandoned', ringGroups: [{ id: 'rg-showroom' }], queues: [], pbxNames: ['harbourpine-main'], tenantIds: [] });
      expect(radu).toMatchObject({ finishedTime: null, outcome: 'Other', agents: [] });
      expect(paul).toMatchObject({ finishedTime: null, outcome: 'Handled', agents: [{ id: 'ag-102' }] });
      expect(rows.map(({ outcome }) => outcome).filter((outcome) => outcome === 'Handled')).toHaveLength(14);
    });

    test('DESC is ASC backwards', async () => {
      expect(namesOf((await searchJourneys({ sortDirection: 'DESC', sortField: 'TIME' })).data)).toEqual(NAMES.toReversed());
      expect(namesOf((await searchJourneys({ sortDirection: 'asc' })).data)).toEqual(NAMES);
    });

    test.each(['ASC', 'DESC'])('pages of any length, %s, visit each journey once and say one total', async (sortDirection) => {
      for (const limit of [1, 5, 11, 22]) {
        const seen: string[] = [];
        let cursor: string | null = null;
        let pages = 0;
        do {
          const page: Page<JourneyAnswer> = await searchJourneys({ limit, sortDirection, ...(cursor === null ? {} : { nextPageCursor: cursor }) });
          expect(page.totalElements).toBe(22);
          expect(page.data.length).toBeLessThanOrEqual(limit);
          seen.push(...namesOf(page.data));
          cursor = page.nextPageCursor;
          pages += 1;
        } while (cursor !== null);
        expect(seen).toEqual(sortDirection === 'ASC' ? NAMES : NAMES.toReversed());
        // An exactly full last page has no cursor.
        expect(pages).toBe(Math.ceil(22 / limit));
      }
    });

    test('a cursor goes on under another limit and timezone, and is refused for another query or direction', async () => {
      const { nextPageCursor } = await searchJourneys({ limit: 3 });
      const next = await searchJourneys({ limit: 4, displayTimezone: 'UTC', nextPageCursor });
      expect(namesOf(next.data)).toEqual(NAMES.slice(3, 7));
      expect(next.data[0]?.time).toBe('2026-03-02T07:05:10Z');
      const refused = async (what: 'journeys' | 'transitions', body: object): Promise<unknown> => {
        const response = await post(what, { limit: 3, nextPageCursor, ...body });
        return [response.status, ((await response.json()) as Errors).errors.map(({ errorCode }) => errorCode)];
      };
      expect(await refused('journeys', { filters: [by('outcome', 'Handled')] })).toEqual([400, ['invalidCursor']]);
      expect(await refused('journeys', { dateRange: { ...RANGE, end: '2026-03-02T22:00:00Z' } })).toEqual([400, ['invalidCursor']]);
      expect(await refused('transitions', {})).toEqual([400, ['invalidCursor']]);
      expect(await refused('journeys', { sortDirection: 'DESC' })).toEqual([400, ['cursorAndSortMismatch']]);
    });

    test('the range is of starts, both ends included; the timezone changes how times are printed and nothing else', async () => {
      const between = async (start: string, end: string): Promise<readonly string[]> => namesOf((await searchJourneys({ dateRange: { start, end } })).data);
      expect(await between('2026-03-02T09:00:00+02:00', '2026-03-02T09:12:00+02:00')).toEqual(['int-a-1', 'int-b-1', 'int-c-1']);
      expect(await between('2026-03-02T07:00:00.001Z', '2026-03-02T07:11:59.999Z')).toEqual(['int-b-1']);
      // Mihai's journey began in the morning and is not found by its call of the afternoon.
      expect(await between('2026-03-02T16:30:00+02:00', '2026-03-02T16:59:59+02:00')).toEqual([]);
      expect(await between('2026-03-03T00:00:00+02:00', '2026-03-09T00:00:00+02:00')).toEqual([]);
      const newYork = await searchJourneys({ displayTimezone: 'America/New_York', limit: 1 });
      expect(newYork.data[0]).toMatchObject({ time: '2026-03-02T00:30:00-05:00', finishedTime: '2026-03-02T00:30:41-05:00' });
      expect(newYork.totalElements).toBe(22);
      // What the real captures hold began in the summer of 2023.
      const summer = await searchJourneys({ dateRange: { start: '2023-06-10T00:00:00Z', end: '2023-08-09T00:00:00Z' } });
      expect(summer.totalElements).toBe(7);
    });

    const FILTERS: readonly (readonly [filters: readonly Filter[], names: readonly string[]])[] = [
      [[by('outcome', 'Abandoned')], ['int-b-1', 'int-c-1']],
      [[by('outcome', 'CallbackExpired', 'CallbackNoAnswer', 'CallbackRequested')], ['int-f-1', 'int-g-1', 'int-q-1']],
      [[by('outcome', 'Voicemail', 'ForwardedToExternalNumber')], ['int-o-1', 'int-i-1']],
      [[by('mediaTypes', 'chat')], ['int-l-1']],
      [[by('mediaTypes', 'EMAIL')], ['int-m-1', '0e7d5c44-5f83-4f3b-9a57-7b1e9c2d0b02', 'int-a-2']],
      [[by('direction', 'Outbound')], ['int-j-1', 'int-k-1']],
      [[by('direction', 'outbound')], []],
      [[by('agents.name', 'Pine')], ['int-l-1']],
      [[by('agents.name', 'Lia Munteanu', 'Bianca Oprea')], ['6b1c2a9e-16a0-4f0e-8f53-9d2a6c1f0a01', '0e7d5c44-5f83-4f3b-9a57-7b1e9c2d0b02']],
      // Corina only listened in, Ilinca only dialled Emil.
      [[by('agents.name', 'Corina Dobre')], []],
      [[by('agents.name', 'Ilinca Rusu')], ['int-m-1', 'int-h-1', 'int-k-1']],
      [[by('agents.group.id', '102')], ['int-a-1', 'int-e-1', 'int-n-1', 'int-p-1']],
      [[by('agents.type', 'AI')], ['int-l-1']],
      [[by('agents.department', '')], ['int-l-1']],
      [[by('contact.phoneNumber', '+12025550119')], ['int-t-1']],
      [[by('contact.email', 'ana.pop@example.com')], ['int-a-1', 'int-a-2']],
      [[by('entryPoint.type', 'auto-attendant', 'ring-group')], ['int-c-1', 'int-t-1', 'int-h-1', 'int-o-1']],
      [[by('entryPoint.extension', '2002')], ['int-s-1']],
      [[by('entryPoint.phoneNumber', '+12025550195')], ['6b1c2a9e-16a0-4f0e-8f53-9d2a6c1f0a01']],
      [[by('entryPoint.site.name', 'Cluj')], ['int-b-1', 'int-c-1', 'int-s-1', 'int-o-1']],
      [[by('interactions.id', 'int-h-2')], ['int-h-1']],
      [[by('journeyId', 'order-HP-20777')], ['int-m-1']],
      [[by('origin.extension', '3101')], ['int-j-1']],
      [[by('outboundPhoneCodes.shortCode', 'SPR1')], ['int-k-1']],
      [[by('pbxNames', PBX)], ['int-b-1', 'int-c-1', 'int-t-1', 'int-h-1', 'int-s-1', 'int-o-1', 'int-i-1', 'int-j-1']],
      [[by('queues.name', 'Support mail')], ['int-m-1', 'int-a-2']],
      [[by('queues.extension', '2001', '2002')], ['int-m-1', 'int-b-1', 'int-h-1', 'int-s-1']],
      [[by('ringGroups.id', 'rg-showroom')], ['int-c-1', 'int-t-1', 'int-h-1']],
      [[by('wrapUpCodes', 'Order query')], ['int-a-1', 'int-t-1']],
      [[by('aiAgentInformation.toolsUsedSuccessfully.name', 'book-courier')], ['int-l-1']],
      // Several at once: every one must hold.
      [[by('pbxNames', PBX), by('outcome', 'Handled')], ['int-t-1', 'int-h-1', 'int-s-1', 'int-j-1']],
      [[by('pbxNames', PBX), by('tenantIds', TENANT)], ['int-h-1', 'int-i-1']],
      [[by('agents.name', 'Mara Ionescu'), by('agents.name', 'Dan Petre')], ['int-a-1']],
      [[by('mediaTypes', 'email'), by('mediaTypes', 'phone')], ['int-m-1']],
      [[by('entryPoint.id', 'ch-support'), by('queues.id', 'q-support'), by('agents.name', 'Dan Petre', 'Mara Ionescu'), by('outcome', 'Handled'), by('wrapUpCodes', 'Callback done', 'Passed to maker')], ['int-e-1', 'int-n-1']],
      [[by('agents.name', 'Nobody')], []],
      [[by('agents.name', 'mara ionescu')], []],
    ];
    test.each(FILTERS)('%j finds what the story says', async (filters, names) => {
      const { data, totalElements } = await searchJourneys({ filters });
      expect(namesOf(data)).toEqual(names);
      expect(totalElements).toBe(names.length);
    });

    test('every filter that there is, with every value that the day shows, answers as a look through the rows does', async () => {
      const names = await filterNames('journeys');
      expect(names.length).toBeGreaterThanOrEqual(28);
      let asked = 0;
      for (const name of names) {
        const path = name.split('.');
        const values = new Set(rows.flatMap((row) => valuesAt(row, path)));
        // The day has a value for every filter.
        expect([name, values.size]).not.toEqual([name, 0]);
        await Promise.all([...values].map(async (value) => {
          asked += 1;
          expect([name, value, await found([by(name, value)])]).toEqual([name, value, namesOf(rows.filter((row) => valuesAt(row, path).includes(value)))]);
        }));
      }
      expect(asked).toBeGreaterThan(150);
    });

    test('a filtered search is paged like one without', async () => {
      const filters = [by('tenantIds', TENANT), by('mediaTypes', 'phone')];
      const all = await found(filters);
      expect(all).toHaveLength(12);
      const first = await searchJourneys({ filters, limit: 7 });
      const second = await searchJourneys({ filters: filters.toReversed(), limit: 7, nextPageCursor: first.nextPageCursor });
      expect([...namesOf(first.data), ...namesOf(second.data)]).toEqual(all);
      expect([first.totalElements, second.totalElements, second.nextPageCursor]).toEqual([12, 12, null]);
    });

    test('as CSV and as NDJSON it says the same', async () => {
      const lines = (await (await post('journeys', { limit: 22 }, '', { accept: 'application/x-ndjson' })).text()).trimEnd().split('\n');
      expect(lines.map((line) => JSON.parse(line) as unknown)).toEqual(rows);
      const response = await post('journeys', { limit: 9 }, '?format=csv');
      expect(response.headers.get('content-type')).toMatch(/^text\/csv/);
      expect(response.headers.get('throughline-total')).toBe('22');
      const csv = parseCsv(await response.text());
      const rest = await post('journeys', { limit: 22, nextPageCursor: response.headers.get('throughline-next-cursor') }, '', { accept: 'text/csv' });
      expect(rest.headers.get('throughline-next-cursor')).toBeNull();
      const cells = [...csv, ...parseCsv(await rest.text())];
      expect(cells).toHaveLength(22);
      cells.forEach((cell, i) => {
        for (const [column, text] of Object.entries(cell)) expect([column, text.split('; ').filter((part) => part !== '')]).toEqual([column, valuesAt(rows[i], column.split('.')).filter((part) => part !== '')]);
      });
    });
  });

  /** As the OpenAPI document names them. */
  async function filterNames(what: 'journeys' | 'transitions'): Promise<readonly string[]> {
    const { paths } = await get<{ paths: Record<string, { post: { requestBody: { content: Record<string, { schema: unknown }> } } }> }>('/openapi.json');
    const names = (value: unknown): readonly string[] => {
      if (typeof value !== 'object' || value === null) return [];
      const { name, values } = value as { name?: { enum?: readonly string[] }; values?: unknown };
      if (name?.enum !== undefined && values !== undefined) return name.enum;
      return Object.values(value).flatMap(names);
    };
    return [...new Set(names(paths[`${API}/${what}/search`]?.post.requestBody.content['application/json']?.schema))];
  }

  // ---- transitions -------------------------------------------------------------------------------------------------------

  describe('POST transitions/search', () => {
    let timelines: readonly Timeline[] = [];
    let rows: readonly JourneyAnswer[] = [];
    beforeAll(async () => {
      timelines = (await searchTransitions()).data;
      rows = (await searchJourneys()).data;
    });
    const timelineOf = (name: string): readonly TransitionAnswer[] => timelines[NAMES.indexOf(name)]?.transitions ?? [];

    test.each(expectedJourneys.map((journey) => [firstOf(journey), journey] as const))('%s went through the states that the story tells, each as long', (name, journey) => {
      const transitions = timelineOf(name);
      expect(transitions.map(({ time, name: state, duration }) => [time, state, duration])).toEqual(journey.transitions.map(([at, state, ms]) => [shown(at), state, ms]));
      journey.transitions.forEach(([, , , about], i) => {
        if (about === undefined) return;
        const { queue, ringGroup, agents, autoAttendant, channel, externalNumber, ...rest } = transitions[i] as TransitionAnswer;
        // A script that something was sent to is named by the state that follows.
        const scripts = rest.name === 'FORWARD' ? transitions[i + 1]?.scripts ?? [] : rest.scripts;
        const named = [queue?.name ?? queue?.id, ringGroup?.name, autoAttendant?.name, channel?.name, externalNumber, ...agents.map((agent) => agent.name), ...scripts.map((script) => script.name)];
        expect(named).toContain(about);
      });
      for (const { interactionId } of transitions) expect(journey.interactions).toContain(interactionId);
    });

    test('stands in the order of the journeys, with their ids and every documented field', () => {
      expect(timelines.map(({ journeyId }) => journeyId)).toEqual(rows.map(({ journeyId }) => journeyId));
      for (const transition of timelines.flatMap(({ transitions }) => transitions)) {
        expect(Object.keys(transition)).toEqual([
          'time', 'name', 'interactionId', 'agents', 'previousAgents', 'previousQueue', 'previousRingGroup', 'queue', 'ringGroup', 'duration', 'externalNumber', 'mediaType', 'autoAttendant', 'channel', 'scripts',
        ]);
      }
    });

    test('what a row adds up is what its timeline says', () => {
      rows.forEach((row, i) => {
        const transitions = timelines[i]?.transitions ?? [];
        const count = (holds: (transition: TransitionAnswer) => boolean): number => transitions.filter(holds).length;
        const to = (kind: 'queue' | 'ringGroup') => (transition: TransitionAnswer): boolean => transition.name === 'FORWARD' && transition[kind] !== null;
        expect({
          hold: transitions.reduce((sum, { name, duration }) => sum + (name === 'HOLD' ? duration ?? 0 : 0), 0), transfers: count(({ name }) => name === 'TRANSFER'), queue: count(to('queue')), ringGroup: count(to('ringGroup')),
          script: transitions.filter(({ name }, at) => name === 'FORWARD' && transitions[at + 1]?.name === 'IN_SCRIPT').length,
          agents: [...new Set(transitions.flatMap(({ name, agents }) => (name === 'TALKING' || name === 'PROCESSING' ? agents.map(({ id }) => id) : [])))].sort(),
          media: [...new Set(transitions.map(({ mediaType }) => mediaType))],
        }).toEqual({
          hold: row.holdDuration, transfers: row.transfersCompleted, queue: row.forwardedToQueue, ringGroup: row.forwardedToRingGroup, script: row.forwardedToScript,
          agents: row.agents.map(({ id }) => id).sort(), media: row.mediaTypes,
        });
        // No state begins before the one before it is over.
        transitions.forEach(({ time, duration }, at) => {
          const next = transitions[at + 1];
          if (next !== undefined) expect(Date.parse(time) + (duration ?? Infinity)).toBeLessThanOrEqual(Date.parse(next.time));
        });
      });
    });

    test('by hand: where Ana was transferred from and to', () => {
      const [transfer] = timelineOf('int-a-1').filter(({ name }) => name === 'TRANSFER');
      expect(transfer).toEqual({
        time: '2026-03-02T09:05:00+02:00', name: 'TRANSFER', interactionId: 'int-a-1', agents: [dan], previousAgents: [mara], previousQueue: { id: 'q-support', name: 'Support', extension: null, site: null }, previousRingGroup: null,
        queue: null, ringGroup: null, duration: 0, externalNumber: null, mediaType: 'Phone', autoAttendant: null, channel: null, scripts: [],
      });
    });

    test('by hand: Tudor\'s transfer to a channel, Sanda\'s way back to the menu, Nora\'s to a number outside, Dora\'s scripts, Emil\'s wait without a name', () => {
      const [toChannel, toQueue] = timelineOf('int-t-1').filter(({ name }) => name === 'TRANSFER' || name === 'FORWARD');
      expect(toChannel).toMatchObject({ time: '2026-03-02T11:12:12+02:00', agents: [], previousAgents: [sorin], previousRingGroup: { id: 'rg-showroom', name: 'Showroom', extension: '3001', site: IASI }, previousQueue: null, channel: { id: 'ch-support', name: 'Support line' }, queue: null });
      expect(toQueue).toMatchObject({ time: '2026-03-02T11:12:12.500+02:00', queue: { id: 'q-support' }, previousAgents: [] });
      const [toMenu, toSorin] = timelineOf('int-s-1').filter(({ name }) => name === 'FORWARD');
      expect(toMenu).toMatchObject({ previousQueue: { id: 'q-delivery', name: 'Delivery', extension: '2002', site: CLUJ }, autoAttendant: { id: 'aa-main', name: 'Main menu', extension: '1000', site: CLUJ }, queue: null });
      expect(toSorin).toMatchObject({ agents: [sorin], autoAttendant: null });
      expect(timelineOf('int-n-1').at(-2)).toMatchObject({ name: 'TRANSFER', externalNumber: '+12025550199', agents: [], previousAgents: [dan], previousQueue: { id: 'q-support' } });
      expect(timelineOf('int-d-1').map(({ scripts }) => scripts.map(({ id }) => id))).toEqual([[], ['scr-welcome'], [], ['scr-hours'], []]);
      expect(timelineOf('int-e-1').filter(({ name }) => name === 'FOLLOWUP_PENDING').map(({ queue }) => queue)).toEqual([{ id: 'q-support', name: null, extension: null, site: null }, { id: 'q-support', name: null, extension: null, site: null }]);
      expect(timelineOf('int-a-1').filter(({ name }) => name === 'WAITING').map(({ queue, agents }) => [queue?.name ?? null, agents.map(({ name }) => name)])).toEqual([['Support', ['Mara Ionescu']], [null, ['Dan Petre']]]);
    });

    const FILTERS: readonly (readonly [filters: readonly Filter[], names: readonly string[]])[] = [
      [[by('transitions.name', 'TRANSFER')], ['int-m-1', 'int-a-1', 'int-t-1', 'int-n-1']],
      [[by('transitions.name', 'PROCESSING', 'VOICEMAIL')], ['int-h-1', 'int-i-1']],
      [[by('transitions.name', 'NOSUCHSTATE')], []],
      [[by('transitions.agents.name', 'Bianca Oprea')], ['6b1c2a9e-16a0-4f0e-8f53-9d2a6c1f0a01', '0e7d5c44-5f83-4f3b-9a57-7b1e9c2d0b02']],
      [[by('transitions.previousAgents.name', 'Mara Ionescu')], ['int-m-1', 'int-a-1']],
      [[by('transitions.previousRingGroup.extension', '3001')], ['int-t-1']],
      [[by('transitions.interactionId', 'int-h-2')], ['int-h-1']],
      // Two that must hold in one and the same transition: Ilinca dialled Emil and talked with others; Bianca was rung by Victor and talked with Wanda.
      [[by('transitions.name', 'TALKING'), by('transitions.agents.name', 'Ilinca Rusu')], ['int-m-1', 'int-k-1']],
      [[by('transitions.name', 'OUTBOUND_STARTED'), by('transitions.agents.name', 'Ilinca Rusu')], ['int-e-1', 'int-k-1']],
      [[by('transitions.name', 'TALKING'), by('transitions.agents.name', 'Bianca Oprea')], ['0e7d5c44-5f83-4f3b-9a57-7b1e9c2d0b02']],
      [[by('transitions.name', 'PROCESSING'), by('transitions.agents.name', 'Ilinca Rusu')], ['int-h-1']],
      [[by('transitions.name', 'FOLLOWUP_PENDING'), by('transitions.queue.id', 'q-support')], ['int-e-1', 'int-f-1', 'int-g-1', 'int-q-1']],
      [[by('transitions.name', 'FOLLOWUP_PENDING'), by('transitions.queue.name', 'Support')], []],
      [[by('transitions.name', 'FORWARD'), by('transitions.queue.name', 'Support', 'Web chat')], ['int-a-1', 'int-l-1', 'int-t-1']],
      [[by('transitions.name', 'TRANSFER'), by('transitions.queue.extension', '2002'), by('transitions.previousQueue.name', 'Support mail')], ['int-m-1']],
      // With one of the journey's own.
      [[by('pbxNames', PBX), by('transitions.name', 'HOLD')], ['int-s-1']],
      [[by('journeyId', 'order-HP-20777'), by('transitions.name', 'TALKING')], ['int-m-1']],
      [[by('tenantIds', TENANT), by('transitions.name', 'FORWARD'), by('transitions.previousAgents.type', 'AI')], ['int-l-1']],
    ];
    test.each(FILTERS)('%j finds whole timelines', async (filters, names) => {
      const { data, totalElements } = await searchTransitions({ filters });
      expect(data).toEqual(names.map((name) => timelines[NAMES.indexOf(name)]));
      expect(totalElements).toBe(names.length);
    });

    test('every filter of transitions, and every pair of values in one transition, answers as a look through the timelines does', async () => {
      const names = (await filterNames('transitions')).filter((name) => name.startsWith('transitions.'));
      expect(names.length).toBeGreaterThanOrEqual(16);
      const pathOf = (name: string): readonly string[] => name.split('.').slice(1);
      const holds = (transition: TransitionAnswer, { name, values }: Filter): boolean => valuesAt(transition, pathOf(name)).some((value) => values.includes(value));
      const singles = names.flatMap((name) => [...new Set(timelines.flatMap(({ transitions }) => transitions.flatMap((transition) => valuesAt(transition, pathOf(name)))))].map((value) => by(name, value)));
      const states = singles.filter(({ name }) => name === 'transitions.name');
      const pairs = singles.filter(({ name }) => /agents\.name|queue\.id|ringGroup\.name|autoAttendant\.id/i.test(name)).flatMap((filter) => states.map((state) => [filter, state]));
      const asked = [...singles.map((filter) => [filter]), ...pairs];
      expect(asked.length).toBeGreaterThan(300);
      for (let from = 0; from < asked.length; from += 16) {
        await Promise.all(asked.slice(from, from + 16).map(async (filters) => {
          const expected = NAMES.filter((_, i) => timelines[i]?.transitions.some((transition) => filters.every((filter) => holds(transition, filter))) === true);
          expect([filters, await foundByTransitions(filters)]).toEqual([filters, expected]);
        }));
      }
    });

    test('limit, cursor and total count journeys; the last transition of a journey past the range comes too', async () => {
      const seen: Timeline[] = [];
      let cursor: string | null = null;
      do {
        const page: Page<Timeline> = await searchTransitions({ limit: 4, ...(cursor === null ? {} : { nextPageCursor: cursor }) });
        expect(page.totalElements).toBe(22);
        seen.push(...page.data);
        cursor = page.nextPageCursor;
      } while (cursor !== null);
      expect(seen).toEqual(timelines);
      const morning = await searchTransitions({ dateRange: { start: '2026-03-02T08:30:00+02:00', end: '2026-03-02T08:59:59+02:00' } });
      expect(morning.data).toHaveLength(1);
      expect(morning.data[0]?.transitions.at(-1)).toMatchObject({ time: '2026-03-02T16:36:50+02:00', name: 'FINISHED' });
    });

    test('as NDJSON a line a journey, as CSV a line a transition', async () => {
      const lines = (await (await post('transitions', {}, '?format=ndjson')).text()).trimEnd().split('\n');
      expect(lines.map((line) => JSON.parse(line) as unknown)).toEqual(timelines);
      const csv = parseCsv(await (await post('transitions', {}, '?format=csv')).text());
      const flat = timelines.flatMap(({ journeyId, transitions }) => transitions.map((transition) => ({ journeyId, transition })));
      expect(csv).toHaveLength(flat.length);
      csv.forEach((cells, i) => {
        const { journeyId, transition } = flat[i] as { journeyId: string; transition: TransitionAnswer };
        expect(cells).toMatchObject({
          journeyId, 'transitions.time': transition.time, 'transitions.name': transition.name, 'transitions.duration': transition.duration === null ? '' : String(transition.duration),
          'transitions.queue.name': transition.queue?.name ?? '', 'transitions.externalNumber': transition.externalNumber ?? '', 'transitions.agents.name': transition.agents.map(({ name }) => name ?? '').join('; '),
        });
      });
    });
  });

  // ---- the example requests of the published page ---------------------------------------------------------------------------

  describe('the requests that the published page shows', () => {
    // Its own ranges and shapes, with the account's own names where it has placeholders.
    const may = { start: '2025-05-19T08:00:00+03:00', end: '2025-05-19T16:00:00+03:00' };
    const wholeDay = { start: '2025-05-19T00:00:00Z', end: '2025-05-19T23:59:59Z' };
    const REQUESTS: readonly (readonly [what: 'journeys' | 'transitions', body: { readonly filters?: readonly Filter[] } & Readonly<Record<string, unknown>>, names: readonly string[]])[] = [
      ['journeys', { dateRange: may, filters: [by('pbxNames', PBX), by('tenantIds', TENANT)], displayTimezone: ZONE, limit: 50, sortDirection: 'DESC' }, ['int-i-1', 'int-h-1']],
      ['transitions', { dateRange: { start: '2025-05-21T00:00:00+03:00', end: '2025-05-21T23:59:59+03:00' }, filters: [by('transitions.name', 'TRANSFER')], displayTimezone: ZONE, limit: 100 }, ['int-m-1', 'int-a-1', 'int-t-1', 'int-n-1']],
      ['journeys', { dateRange: wholeDay, displayTimezone: 'UTC', limit: 100 }, NAMES],
      ['journeys', { dateRange: wholeDay, displayTimezone: 'UTC', sortField: 'TIME', sortDirection: 'DESC' }, NAMES.toReversed()],
      ['journeys', { dateRange: wholeDay, displayTimezone: 'UTC', filters: [by('agents.name', 'Sorin Vlad', 'Mara Ionescu'), by('mediaTypes', 'phone')] }, ['int-m-1', 'int-a-1', 'int-t-1', 'int-s-1', 'int-j-1']],
      ['journeys', { dateRange: { start: '2025-05-19T08:00:00+03:00', end: '2025-05-19T23:00:00+03:00' }, filters: [by('pbxNames', PBX)], displayTimezone: 'Europe/Paris', limit: 50 }, ['int-b-1', 'int-c-1', 'int-t-1', 'int-h-1', 'int-s-1', 'int-o-1', 'int-i-1', 'int-j-1']],
      ['transitions', { dateRange: { start: '2025-05-19T08:00:00+03:00', end: '2025-05-19T23:00:00+03:00' }, filters: [by('journeyId', 'order-HP-20777')], displayTimezone: 'Europe/Paris', sortDirection: 'ASC' }, ['int-m-1']],
      ['transitions', { dateRange: { start: '2025-05-19T00:00:00+03:00', end: '2025-05-19T23:59:59+03:00' }, filters: [by('transitions.name', 'TRANSFER')], displayTimezone: 'Europe/Paris', limit: 100 }, ['int-m-1', 'int-a-1', 'int-t-1', 'int-n-1']],
      ['journeys', { dateRange: { start: '2025-05-19T00:00:00+03:00', end: '2025-05-19T23:59:59+03:00' }, filters: [by('queues.name', 'Orders', 'Delivery', 'Service desk')], displayTimezone: 'Europe/Paris', limit: 100 }, ['int-m-1', 'int-b-1', '6b1c2a9e-16a0-4f0e-8f53-9d2a6c1f0a01', 'int-h-1', 'int-s-1']],
    ];
    test.each(REQUESTS)('%s %j', async (what, body, names) => {
      // As it stands: a day of which nothing is known.
      expect(await search(what, body)).toEqual({ data: [], nextPageCursor: null, totalElements: 0 });
      // And over the example day.
      const { data } = await search<JourneyAnswer & Timeline>(what, { ...body, dateRange: RANGE });
      expect(what === 'journeys' ? namesOf(data) : data.map(({ transitions }) => transitions[0]?.interactionId)).toEqual(names);
    });
  });

  // ---- one journey -------------------------------------------------------------------------------------------------------

  interface HistoryEntry { readonly eventId: string; readonly recordedtime: string; readonly position: string; readonly event: Told & Readonly<Record<string, unknown>> }
  interface HistoryPage { readonly personId: string | null; readonly data: readonly HistoryEntry[]; readonly nextPageCursor: string | null }
  const history = (identity: string, more: Readonly<Record<string, string | number>> = {}): Promise<HistoryPage> => get(`/history?${queryOf({ identity, limit: 1000, ...more })}`);

  describe('GET /journeys/{id}', () => {
    let rows: readonly JourneyAnswer[] = [];
    let timelines: readonly Timeline[] = [];
    beforeAll(async () => {
      rows = (await searchJourneys({ displayTimezone: 'UTC' })).data;
      timelines = (await searchTransitions({ displayTimezone: 'UTC' })).data;
    });
    const WANDA = '0e7d5c44-5f83-4f3b-9a57-7b1e9c2d0b02';
    const detailOf = (name: string, query = ''): Promise<JourneyDetail> => get(`/journeys/${rows[NAMES.indexOf(name)]?.journeyId ?? ''}${query}`);

    test.each(expectedJourneys.map((journey) => [firstOf(journey), journey] as const))('%s: the row, its timeline, its participants and sums', async (name, journey) => {
      const { waitingDuration, talkingDuration, wrapUpDuration, topics, data, attributes, truncated, participants, transitions, ...row } = await detailOf(name);
      expect(row).toEqual({ ...rows[NAMES.indexOf(name)], entryPoint: SHOWN[name]?.entryPoint, outcome: journey.outcome });
      expect(transitions.map(({ events, ...transition }) => { expect(events.length).toBeGreaterThan(0); return { ...transition, scripts: transition.name === 'IN_SCRIPT' ? transition.scripts : [] }; })).toEqual(timelines[NAMES.indexOf(name)]?.transitions);
      expect({ waitingDuration, talkingDuration, truncated }).toEqual({ waitingDuration: spent(journey, 'WAITING'), talkingDuration: spent(journey, 'TALKING'), truncated: false });
      expect(wrapUpDuration).toBeGreaterThanOrEqual(0);
      if (name !== 'int-a-1') expect({ topics, attributes, order: data['order'] }).toEqual({ topics: [], attributes: [], order: undefined });
      const told = participants.map(({ role, id, interactionId, joined, held, dropped }) => ({ role, id, interactionId, joined, held: held.map(({ from, to }) => [from, to]), dropped })).sort((a, b) => (a.id < b.id ? -1 : 1));
      const expected = (journey.participants ?? []).map(({ joined, held, dropped, ...rest }) => ({ ...rest, joined: shownUtc(joined), held: held.map((hold) => hold.map(shownUtc)), dropped: dropped === null ? null : shownUtc(dropped) })).sort((a, b) => (a.id < b.id ? -1 : 1));
      // The story tells of participants where events of theirs were sent; on Webex a task's own events imply them.
      if (name !== WANDA) expect(told).toEqual(expected);
    });

    test('by hand, Ana\'s call: Corina listened from 09:06:00 to 09:08:30, the customer was held once, and what was said of it', async () => {
      const { participants, topics, data, attributes, wrapUpDuration } = await detailOf('int-a-1', `?timezone=${ZONE}`);
      expect(participants).toContainEqual({ role: 'supervisor', id: 'ag-201', interactionId: 'int-a-1', name: 'Corina Dobre', agentId: 'ag-201', joined: '2026-03-02T09:06:00+02:00', held: [], dropped: '2026-03-02T09:08:30+02:00' });
      expect(participants.find(({ role }) => role === 'customer')).toMatchObject({ id: 'ana', agentId: null, held: [{ from: '2026-03-02T09:03:07.750+02:00', to: '2026-03-02T09:03:52.750+02:00' }], dropped: '2026-03-02T09:12:09+02:00' });
      expect({ topics, data, attributes }).toEqual({ topics: ['kettle warranty'], data: { order: 'HP-20931' }, attributes: ['vip'] });
      // Forty seconds each of Mara and of Dan.
      expect(wrapUpDuration).toBe(80_000);
    });

    test('by hand, Dora\'s call: what it was sent to stands in the move itself', async () => {
      const { transitions } = await detailOf('int-d-1');
      expect(transitions.map(({ name, scripts }) => [name, scripts.map(({ id }) => id)])).toEqual([['STARTED', []], ['IN_SCRIPT', ['scr-welcome']], ['FORWARD', ['scr-hours']], ['IN_SCRIPT', ['scr-hours']], ['FINISHED', []]]);
    });

    test('by hand, Wanda\'s mail: she and Bianca, as the task\'s events imply', async () => {
      const { participants } = await detailOf(WANDA);
      expect(participants.map(({ role, id, name, joined, held, dropped }) => [role, id, name, joined, held, dropped])).toEqual([
        ['customer', 'customer', null, '2026-03-02T11:10:00.300Z', [], '2026-03-02T11:40:02.300Z'], ['agent', 'wa-501', 'Bianca Oprea', '2026-03-02T11:25:02.300Z', [], '2026-03-02T11:40:02.300Z'],
      ]);
    });

    test('by hand, Liviu\'s chat: the bot leaves when Mara takes over', async () => {
      const { participants } = await detailOf('int-l-1');
      expect(participants.find(({ role }) => role === 'bot')).toEqual({ role: 'bot', id: 'ai-301', interactionId: 'int-l-1', name: 'Pine', agentId: 'ai-301', joined: '2026-03-02T08:16:00Z', held: [], dropped: '2026-03-02T08:18:05Z' });
      expect(participants.map(({ name }) => name).sort()).toEqual(['Liviu Sandu', 'Mara Ionescu', 'Pine']);
    });

    test('the events behind each transition are in the history, and are what began it', async () => {
      const entries = new Map((await history(who.ana.identity)).data.map((entry) => [entry.eventId, entry]));
      const { transitions } = await detailOf('int-a-1');
      const typesOf = (name: string): readonly (readonly string[])[] => transitions.filter((transition) => transition.name === name).map(({ events }) => events.map((id) => entries.get(id)?.event.type.replace('org.throughline.interaction.', '') ?? `${id} is not recorded`));
      expect(typesOf('STARTED')).toEqual([['started']]);
      expect(typesOf('IN_SCRIPT')).toEqual([['script.entered']]);
      // She waits because she was sent somewhere; Mara's phone rang while she did.
      expect(typesOf('WAITING')).toEqual([['forwarded', 'waiting', 'waiting'], ['transferred', 'waiting']]);
      expect(typesOf('HOLD')).toEqual([['held']]);
      expect(typesOf('TRANSFER')).toEqual([['transferred']]);
      expect(typesOf('FINISHED')).toEqual([['ended']]);
      const talks = transitions.filter(({ name }) => name === 'TALKING').map(({ events }) => events.map((id) => entries.get(id)?.event.id));
      expect(talks.map(([first]) => first)).toEqual(['int-a-1-08', 'int-a-1-11', 'int-a-1-15']);
    });

    test('the events behind Mihai\'s journey are those of both his identities', async () => {
      const entries = new Map((await history(who.mihai.identity)).data.map((entry) => [entry.eventId, entry]));
      const { transitions } = await detailOf('int-m-1');
      const identities = new Set(transitions.flatMap(({ events }) => events.map((id) => entries.get(id)?.event.identity)));
      expect(identities).toEqual(new Set([who.mihai.identity, who.mihaiByPhone.identity]));
      for (const { time, events } of transitions) expect(events.map((id) => Date.parse(entries.get(id)?.event.time ?? ''))).toContain(Date.parse(time));
    });

    test('an id that no journey ever had is not found', async () => {
      const response = await server.request('/journeys/int-a-1');
      expect([response.status, await json(response)]).toMatchObject([404, { errors: [{ code: 'unknownJourney' }] }]);
    });
  });

  // ---- customers ---------------------------------------------------------------------------------------------------------

  interface Customer extends Page<JourneyAnswer> { readonly personId: string }
  const journeysOf = (identity: string, more: Readonly<Record<string, string | number>> = {}): Promise<Customer> => get(`/journeys?${queryOf({ identity, ...more })}`);
  /** Each person of the day: all its identities, and the journeys that are its own. */
  const PEOPLE: readonly { readonly identities: readonly Identity[]; readonly journeys: readonly string[] }[] = (() => {
    const of = (...names: readonly (keyof typeof who)[]): readonly Identity[] => names.map((name) => who[name]);
    return [
      { identities: of('ana', 'anaByMail'), journeys: ['int-a-1', 'int-a-2'] }, { identities: of('liviu', 'liviuByMail'), journeys: ['int-l-1'] }, { identities: of('mihai', 'mihaiByPhone'), journeys: ['int-m-1'] },
      { identities: of('bogdan'), journeys: ['int-b-1'] }, { identities: of('dora'), journeys: ['int-d-1'] }, { identities: of('emil'), journeys: ['int-e-1'] }, { identities: of('felicia'), journeys: ['int-f-1'] },
      { identities: of('gabriel'), journeys: ['int-g-1'] }, { identities: of('horia'), journeys: ['int-h-1'] }, { identities: of('irina'), journeys: ['int-i-1'] }, { identities: of('julia'), journeys: ['int-j-1'] },
      { identities: of('kira'), journeys: ['int-k-1'] }, { identities: of('nora'), journeys: ['int-n-1'] }, { identities: of('oana'), journeys: ['int-o-1'] }, { identities: of('paul'), journeys: ['int-p-1'] },
      { identities: of('radu'), journeys: ['int-q-1'] }, { identities: of('sanda'), journeys: ['int-s-1'] }, { identities: of('tudor'), journeys: ['int-t-1'] },
      { identities: of('victor'), journeys: ['6b1c2a9e-16a0-4f0e-8f53-9d2a6c1f0a01'] }, { identities: of('wanda'), journeys: ['0e7d5c44-5f83-4f3b-9a57-7b1e9c2d0b02'] },
    ];
  })();

  describe('GET /persons', () => {
    test('whoever is one person by the story is one here, and everybody else is alone', async () => {
      expect(PEOPLE.filter(({ identities }) => identities.length > 1).map(({ identities }) => identities)).toEqual(expectedPersons);
      const ids = new Set<string>();
      for (const { identities } of PEOPLE) {
        const answers = await Promise.all(identities.map(({ identity, identitytype }) => get<PersonAnswer>(`/persons?${queryOf({ identity, identitytype })}`)));
        const [person] = answers;
        if (person === undefined) throw new Error('nobody');
        for (const answer of answers) expect(answer).toEqual(person);
        expect(person.aliases.map(({ type, value }) => ({ identity: value, identitytype: type }))).toEqual(identities);
        expect(person.refused).toEqual([]);
        expect(person.evidence).toHaveLength(identities.length - 1);
        // A person is known by its founder: the identity that was seen first.
        expect(person.personId).toBe(person.aliases[0]?.key.slice(0, 24));
        ids.add(person.personId);
      }
      expect(ids.size).toBe(PEOPLE.length);
    });

    test('by hand, Ana: both identities, her name, and the sign-in that joined them', async () => {
      const person = await get<PersonAnswer>('/persons?identity=ana.pop@example.com');
      expect(person).toMatchObject({
        firstName: 'Ana', lastName: 'Pop', name: 'Ana Pop', refused: [],
        aliases: [{ type: 'phone', value: '+12025550101', firstSeen: '2026-03-02T07:00:00Z' }, { type: 'email', value: 'ana.pop@example.com', firstSeen: '2026-03-02T14:58:00Z' }],
        evidence: [{ strength: 'weak', at: '2026-03-02T14:58:00Z' }],
      });
      const [phone, mail] = person.aliases;
      expect([person.evidence[0]?.a, person.evidence[0]?.b].sort()).toEqual([phone?.key, mail?.key].sort());
      const cause = (await history(who.ana.identity)).data.find(({ eventId }) => eventId === person.evidence[0]?.eventId);
      expect(cause?.event).toMatchObject({ id: 'sign-in-77', identity: 'ana.pop@example.com', previousidentity: '+12025550101' });
      // The 24 digits of either identity lead to her.
      for (const { key } of person.aliases) expect(await get(`/persons/${key.slice(0, 24)}`)).toEqual(person);
    });

    test('by hand, Liviu and Mihai: joined by what they said themselves', async () => {
      expect(await get('/persons?identity=visitor-88412')).toMatchObject({ aliases: [{ type: 'cookie', value: 'visitor-88412', firstSeen: '2026-03-02T08:15:00Z' }, { type: 'email', value: 'liviu.sandu@example.com', firstSeen: '2026-03-02T08:16:30Z' }], evidence: [{ at: '2026-03-02T08:16:30Z' }] });
      expect(await get('/persons?identity=mihai.rotaru@example.com')).toMatchObject({ aliases: [{ type: 'email', firstSeen: '2026-03-02T06:40:00Z' }, { type: 'phone', value: '+12025550113', firstSeen: '2026-03-02T14:30:00Z' }], evidence: [{ at: '2026-03-02T14:30:30Z' }] });
    });

    test.each(['+1 (202) 555-0101', '12025550101', ' +1-202-555-0101 ', 'ANA.POP@EXAMPLE.COM', ' ana.pop@Example.com'])('%j is Ana in another spelling', async (identity) => {
      expect(await get(`/persons?${queryOf({ identity })}`)).toMatchObject({ name: 'Ana Pop' });
    });

    test.each(['/persons?', '/journeys?', '/history?'])('%s knows nobody by a withheld number, a stranger\'s address or the shop\'s own numbers', async (path) => {
      for (const asked of [{ identity: 'anonymous', identitytype: 'phone' }, { identity: 'anonymous' }, { identity: 'nobody@example.com' }, { identity: '+12025550190' }, { identity: 'support@example.com' }, { identity: 'mara.ionescu@example.com' }, { identity: who.ana.identity, identitytype: 'email' }]) {
        const response = await server.request(path + queryOf(asked));
        expect([asked, response.status, ((await response.json()) as Errors).errors.map(({ code }) => code)]).toEqual([asked, 404, ['unknownIdentity']]);
      }
    });
  });

  describe('GET /journeys?identity=', () => {
    test('every identity of a person answers with the same journeys, newest first, in the rows of the search', async () => {
      const rows = new Map((await searchJourneys()).data.map((row) => [row.interactions[0]?.id, row]));
      for (const { identities, journeys } of PEOPLE) {
        const answers = await Promise.all(identities.map(({ identity, identitytype }) => journeysOf(identity, { identitytype, timezone: ZONE })));
        for (const answer of answers) {
          expect(answer).toEqual(answers[0]);
          expect(answer.data).toEqual(journeys.toReversed().map((name) => ({ ...rows.get(name), entryPoint: SHOWN[name]?.entryPoint, outcome: outcomeOf(name) })));
          expect([answer.totalElements, answer.nextPageCursor]).toEqual([journeys.length, null]);
        }
      }
    });

    test('by hand, Ana: the mail of the afternoon, then the call of the morning; paged and sorted', async () => {
      const all = await journeysOf('+1 (202) 555-0101');
      expect(all.data.map(({ time, mediaTypes }) => [time, mediaTypes])).toEqual([['2026-03-02T15:00:00Z', ['Email']], ['2026-03-02T07:00:00Z', ['Phone']]]);
      const first = await journeysOf('ana.pop@example.com', { limit: 1 });
      const second = await journeysOf('ana.pop@example.com', { limit: 1, cursor: first.nextPageCursor ?? '' });
      expect([...first.data, ...second.data]).toEqual(all.data);
      expect([first.totalElements, second.totalElements, second.nextPageCursor]).toEqual([2, 2, null]);
      expect(namesOf((await journeysOf('ana.pop@example.com', { sort: 'asc' })).data)).toEqual(['int-a-1', 'int-a-2']);
      const csv = parseCsv(await (await server.request('/journeys?identity=ana.pop@example.com&format=csv')).text());
      expect(csv.map((cells) => cells['interactions.id'])).toEqual(['int-a-2', 'int-a-1']);
      const mismatch = await server.request(`/journeys?${queryOf({ identity: 'ana.pop@example.com', cursor: first.nextPageCursor ?? '', sort: 'asc' })}`);
      expect([mismatch.status, await json(mismatch)]).toMatchObject([400, { errors: [{ code: 'cursorAndSortMismatch' }] }]);
    });

    test('the ana of the real captures is another person', async () => {
      const { data } = await journeysOf('ana@example.com');
      expect(data.map(({ time }) => time.slice(0, 4))).toEqual(Array(7).fill('2023'));
    });
  });

  describe('GET /history', () => {
    /** The lines of the file of these identities, each once. */
    const toldOf = (lines: readonly string[], identities: readonly Identity[]): readonly string[] => [...new Set(lines)].filter((line) => identities.some(({ identity, identitytype }) => told(line).identity === identity && told(line).identitytype === identitytype));

    test('every alias answers with every event of all of them, each once, by time, word for word', async () => {
      for (const { identities } of PEOPLE) {
        const lines = toldOf(DAY_LINES, identities);
        const [{ identity, identitytype }] = identities as readonly [Identity];
        const text = await (await server.request(`/history?${queryOf({ identity, identitytype, limit: 1000, format: 'ndjson' })}`)).text();
        const events = text.trimEnd().split('\n').map((line) => line.slice(line.indexOf(',"event":') + 9, -1));
        expect([...events].sort()).toEqual([...lines].sort());
        const times = events.map((line) => Date.parse(told(line).time));
        expect(times).toEqual([...times].sort((a, b) => a - b));
        for (const alias of identities) {
          const page = await history(alias.identity, { identitytype: alias.identitytype });
          expect(page.data.map(({ event }) => event)).toEqual(events.map((line) => JSON.parse(line) as unknown));
          expect(new Set(page.data.map(({ eventId }) => eventId)).size).toBe(lines.length);
        }
      }
    });

    test('by hand, Ana: twenty-four of the call, the sign-in, five of the mail; the late wrap-up stands where it happened', async () => {
      const { data, personId } = await history('ana.pop@example.com');
      expect(data).toHaveLength(24 + 1 + 5);
      expect(personId).toBe((await get<PersonAnswer>('/persons?identity=ana.pop@example.com')).personId);
      const ids = data.map(({ event }) => event.id);
      const late = data.findIndex(({ event }) => JSON.stringify(event.data).includes('"Order query"'));
      expect([data[late - 1]?.event.time, data[late]?.event.time, data[late + 1]?.event.time]).toEqual(['2026-03-02T09:05:09.000+02:00', '2026-03-02T09:05:40.000+02:00', '2026-03-02T09:06:00.000+02:00']);
      expect(ids.slice(-6)).toEqual(['sign-in-77', 'int-a-2-01', 'int-a-2-02', 'int-a-2-03', 'int-a-2-04', 'int-a-2-05'].sort((a, b) => ids.indexOf(a) - ids.indexOf(b)));
      // It was recorded after what stands behind it.
      expect((data[late]?.position ?? '') > (data[late + 1]?.position ?? '')).toBe(true);
    });

    test('pages visit every event once, forward and backward', async () => {
      const all = (await history(who.ana.identity)).data;
      for (const [sort, limit, expected] of [['asc', 7, all], ['desc', 4, all.toReversed()]] as const) {
        const seen: HistoryEntry[] = [];
        let cursor: string | null = null;
        do {
          const page: HistoryPage = await history(who.anaByMail.identity, { limit, sort, ...(cursor === null ? {} : { cursor }) });
          expect(page.data.length).toBeLessThanOrEqual(limit);
          seen.push(...page.data);
          cursor = page.nextPageCursor;
        } while (cursor !== null);
        expect(seen).toEqual(expected);
      }
    });

    test('the real captures come back byte for byte, the repeated line once, one id with other content kept', async () => {
      const identities: readonly Identity[] = [{ identity: 'ana@example.com', identitytype: 'email' }, { identity: '18505550191', identitytype: 'phone' }, { identity: '4085550132', identitytype: 'phone' }];
      for (const one of identities) {
        const text = await (await server.request(`/history?${queryOf({ ...one, limit: 1000, format: 'ndjson' })}`)).text();
        const events = text.trimEnd().split('\n').map((line) => line.slice(line.indexOf(',"event":') + 9, -1));
        expect([...events].sort()).toEqual([...toldOf(CAPTURED_LINES, [one])].sort());
      }
      const { data } = await history('ana@example.com');
      expect(data.filter(({ event }) => event.id === 'f33e4b1a-e2fd-4a7f-ab90-8aead4bfbbd5')).toHaveLength(3);
      expect(data.filter(({ event }) => event.id === 'id')).toHaveLength(5);
      expect(data.filter(({ event }) => event.id === 'df1fe012-c3c7-4c5a-af93-cdbd7e158b19')).toHaveLength(1);
    });

    test('as CSV it holds the same events', async () => {
      const { data } = await history(who.liviu.identity);
      const csv = parseCsv(await (await server.request(`/history?${queryOf({ identity: 'liviu.sandu@example.com', limit: 1000 })}`, { headers: { accept: 'text/csv' } })).text());
      expect(csv.map((cells) => [cells['eventId'], cells['event.id'], cells['event.time'], JSON.parse(cells['event.data'] ?? '') as unknown])).toEqual(data.map(({ eventId, event }) => [eventId, event.id, event.time, event.data]));
    });
  });

  // ---- outcomes ----------------------------------------------------------------------------------------------------------

  interface Outcomes { readonly data: readonly OutcomeRow[]; readonly total: OutcomeRow }
  const outcomes = (more: Readonly<Record<string, string>> = {}): Promise<Outcomes> => get(`/outcomes?${queryOf({ from: '2026-03-02T00:00:00+02:00', to: '2026-03-03T00:00:00+02:00', timezone: ZONE, ...more })}`);

  describe('GET /outcomes', () => {
    const NOTHING = { p50: null, p90: null };

    test('by hand, the day: 22 journeys, 14 handled, 2 abandoned, and how long they waited', async () => {
      const { data, total } = await outcomes({ by: 'day' });
      expect(data).toEqual([total]);
      expect(total).toMatchObject({
        from: '2026-03-02T00:00:00+02:00', to: '2026-03-03T00:00:00+02:00', journeys: 22, handled: 14, abandoned: 2, abandonmentRate: 0.125,
        // Of the eighteen waits the ninth is Felicia's 120 s and the seventeenth Wanda's 900 s; of twelve talks Victor's 270 s and
        // Wanda's 900 s; of four holds the second is 45 s and the fourth 50 s.
        waiting: { p50: 120, p90: 900 }, talking: { p50: 270, p90: 900 }, hold: { p50: 45, p90: 50 },
      });
      // Julia and Kira did not wait; within 20 s Nora too; within a minute Horia, Liviu and Ana; Mihai waited 2,270 s in all.
      expect(total.serviceLevels).toMatchObject({ 1: 0.125, 10: 0.125, 15: 0.1875, 20: 0.1875, 30: 0.25, 40: 0.3125, 60: 0.375, 75: 0.5, 150: 0.5625, 300: 0.6875, 600: 0.75, 900: 0.8125, 1800: 0.8125, 2400: 0.875, 86400: 0.875 });
    });

    const minutes = (local: string): number => Number(local.slice(0, 2)) * 60 + Number(local.slice(3, 5));
    const clock = (at: number): string => `2026-03-02T${String(Math.floor(at / 60)).padStart(2, '0')}:${String(at % 60).padStart(2, '0')}:00+02:00`;

    test.each([['quarter', 15], ['hour', 60]] as const)('by %s: as many as the story has', async (period, length) => {
      const counted = new Map<string, ExpectedJourney[]>();
      for (const journey of expectedJourneys) {
        const from = clock(Math.floor(minutes(startOf(journey)) / length) * length);
        counted.set(from, [...counted.get(from) ?? [], journey]);
      }
      const { data, total } = await outcomes({ by: period });
      expect(data.map(({ from, journeys, handled, abandoned }) => ({ from, journeys, handled, abandoned }))).toEqual([...counted].sort(([a], [b]) => (a < b ? -1 : 1)).map(([from, of]) => ({
        from, journeys: of.length, handled: of.filter(({ outcome }) => outcome === 'Handled').length, abandoned: of.filter(({ outcome }) => outcome === 'Abandoned').length,
      })));
      for (const { from, to } of data) expect(Date.parse(to) - Date.parse(from)).toBe(length * 60_000);
      expect(total).toMatchObject({ journeys: 22, handled: 14, abandoned: 2 });
    });

    const dimension: Readonly<Record<string, (journey: ExpectedJourney) => string | null>> = {
      outcome: ({ outcome }) => outcome, queue: (journey) => SHOWN[firstOf(journey)]?.queue ?? null, medium: ({ media }) => media[0] ?? null, direction: ({ direction }) => direction,
    };
    const valueOf = (row: OutcomeRow, name: string): string | null => (name === 'queue' ? row.queue?.id ?? null : (row as unknown as Record<string, string | null>)[name] ?? null);

    test.each(['outcome', 'queue', 'medium', 'direction', 'outcome,queue', 'queue,medium,direction', 'outcome,queue,medium,direction'])('grouped by %s: as many as the story has', async (group) => {
      const names = group.split(',');
      for (const period of ['day', 'hour']) {
        const counted: Record<string, number> = {};
        for (const journey of expectedJourneys) {
          const from = period === 'day' ? '2026-03-02T00:00:00+02:00' : clock(Math.floor(minutes(startOf(journey)) / 60) * 60);
          const key = JSON.stringify([from, ...names.map((name) => dimension[name]?.(journey) ?? null)]);
          counted[key] = (counted[key] ?? 0) + 1;
        }
        const { data } = await outcomes({ by: period, group });
        expect(Object.fromEntries(data.map((row) => [JSON.stringify([row.from, ...names.map((name) => valueOf(row, name))]), row.journeys]))).toEqual(counted);
        for (const row of data) expect(Object.keys(row).filter((name) => name in dimension).sort()).toEqual([...names].sort());
      }
    });

    test('by hand, the support queue: eight journeys, five handled, none abandoned', async () => {
      const { data } = await outcomes({ group: 'queue' });
      const support = data.find(({ queue }) => queue?.id === 'q-support');
      expect(support).toMatchObject({ queue: { id: 'q-support', name: 'Support' }, journeys: 8, handled: 5, abandoned: 0, abandonmentRate: 0, waiting: { p50: 120, p90: 240 }, hold: { p50: 45, p90: 45 } });
      const orders = data.find(({ queue }) => queue?.id === 'q-orders');
      expect(orders).toMatchObject({ journeys: 1, handled: 0, abandoned: 1, abandonmentRate: 1, waiting: { p50: 150, p90: 150 }, talking: NOTHING, hold: NOTHING });
      expect(orders?.serviceLevels).toMatchObject({ 20: 0, 86400: 0 });
      const [scripted] = (await outcomes({ group: 'outcome' })).data.filter(({ outcome }) => outcome === 'EndedInScript');
      expect(scripted).toMatchObject({ journeys: 1, handled: 0, abandoned: 0, abandonmentRate: null, serviceLevels: null, waiting: NOTHING });
    });

    test('a day is the timezone\'s own: in Auckland the day begins at 13:00 of the shop', async () => {
      const { data } = await outcomes({ timezone: 'Pacific/Auckland', from: '2026-03-01T00:00:00Z', to: '2026-03-04T00:00:00Z' });
      expect(data.map(({ from, to, journeys }) => [from, to, journeys])).toEqual([['2026-03-02T00:00:00+13:00', '2026-03-03T00:00:00+13:00', 12], ['2026-03-03T00:00:00+13:00', '2026-03-04T00:00:00+13:00', 10]]);
    });

    test('a range is widened to whole quarters and cut there', async () => {
      const { data, total } = await outcomes({ from: '2026-03-02T09:05:00+02:00', to: '2026-03-02T10:00:00.001+02:00', by: 'hour' });
      expect([total.from, total.to, total.journeys]).toEqual(['2026-03-02T09:00:00+02:00', '2026-03-02T10:15:00+02:00', 4]);
      expect(data.map(({ from, to, journeys }) => [from, to, journeys])).toEqual([['2026-03-02T09:00:00+02:00', '2026-03-02T10:00:00+02:00', 3], ['2026-03-02T10:00:00+02:00', '2026-03-02T10:15:00+02:00', 1]]);
    });

    test('as CSV and NDJSON it says the same', async () => {
      const query = queryOf({ from: '2026-03-02T00:00:00+02:00', to: '2026-03-03T00:00:00+02:00', timezone: ZONE, by: 'hour', group: 'outcome,queue' });
      const { data } = await get<Outcomes>(`/outcomes?${query}`);
      const lines = (await (await server.request(`/outcomes?${query}&format=ndjson`)).text()).trimEnd().split('\n');
      expect(lines.map((line) => JSON.parse(line) as unknown)).toEqual(data);
      const csv = parseCsv(await (await server.request(`/outcomes?${query}&format=csv`)).text());
      expect(csv.map((cells) => [cells['from'], cells['outcome'], cells['queue.id'], cells['journeys'], cells['abandonmentRate'], cells['waiting.p90']])).toEqual(data.map(({ from, outcome, queue, journeys, abandonmentRate, waiting }) => [
        from, outcome, queue?.id ?? '', String(journeys), abandonmentRate === null ? '' : String(abandonmentRate), waiting.p90 === null ? '' : String(waiting.p90),
      ]));
    });
  });

  // ---- what analysts ask ---------------------------------------------------------------------------------------------------

  const ANALYSED = queryOf({ from: '2026-03-02T00:00:00+02:00', to: '2026-03-03T00:00:00+02:00' });

  describe('GET /durations', () => {
    const durations = (more = ''): Promise<Page<DurationRow>> => get(`/durations?${ANALYSED}&timezone=${ZONE}${more}`);
    let rows: readonly JourneyAnswer[] = [];
    beforeAll(async () => { rows = (await searchJourneys()).data; });

    test('every journey of the day, by the story: the time in each state, and from start to end', async () => {
      const { data, totalElements, nextPageCursor } = await durations();
      expect([data.length, totalElements, nextPageCursor]).toEqual([22, 22, null]);
      data.forEach((row, i) => {
        const journey = expectedJourneys[i] ?? neverTold(expectedJourneys[0] as ExpectedJourney);
        const end = endOf(journey);
        expect(row).toMatchObject({
          journeyId: rows[i]?.journeyId, time: rows[i]?.time, finishedTime: rows[i]?.finishedTime, outcome: journey.outcome, scriptDuration: spent(journey, 'IN_SCRIPT'), waitingDuration: spent(journey, 'WAITING'),
          talkingDuration: spent(journey, 'TALKING'), holdDuration: spent(journey, 'HOLD'), processingDuration: spent(journey, 'PROCESSING'), handlingDuration: spent(journey, 'TALKING') + spent(journey, 'HOLD') + spent(journey, 'PROCESSING') + row.wrapUpDuration,
          totalDuration: end === null ? null : Date.parse(shown(end)) - Date.parse(shown(startOf(journey))),
        });
        expect(row.queueWaitDuration + row.ringGroupWaitDuration).toBeLessThanOrEqual(row.waitingDuration);
      });
      // Forty seconds each of Mara and of Dan; the customer was held once.
      expect(data[NAMES.indexOf('int-a-1')]).toMatchObject({ wrapUpDuration: 80_000, holdDuration: 45_000, agents: ['Mara Ionescu', 'Dan Petre'], queues: ['Support'] });
    });

    test('the same for each transition, where they add up to the journey\'s', async () => {
      const sums = (await durations()).data;
      const { data } = await get<Page<TransitionDurationRow>>(`/durations/transitions?${ANALYSED}&timezone=${ZONE}`);
      const timelines = (await searchTransitions({})).data;
      data.forEach(({ journeyId, transitions }, i) => {
        expect([journeyId, transitions.map(({ time, name, interactionId }) => [time, name, interactionId])]).toEqual([timelines[i]?.journeyId, timelines[i]?.transitions.map(({ time, name, interactionId }) => [time, name, interactionId])]);
        const all = (of: 'waitingDuration' | 'talkingDuration' | 'holdDuration' | 'wrapUpDuration'): number => transitions.reduce((sum, one) => sum + (one[of] ?? 0), 0);
        expect(sums[i]).toMatchObject({ waitingDuration: all('waitingDuration'), talkingDuration: all('talkingDuration'), holdDuration: all('holdDuration'), wrapUpDuration: all('wrapUpDuration') });
      });
      const ana = data[NAMES.indexOf('int-a-1')]?.transitions.filter(({ wrapUpDuration }) => (wrapUpDuration ?? 0) > 0);
      expect(ana?.map(({ name, agents, wrapUpDuration, talkingDuration, totalDuration }) => [name, agents, wrapUpDuration, totalDuration === (talkingDuration ?? 0) + 40_000])).toEqual([['TALKING', ['Mara Ionescu'], 40_000, true], ['TALKING', ['Dan Petre'], 40_000, true]]);
    });

    test('takes the filters of both searches, each as often as it has values; pages and sorts', async () => {
      const nameOf = (row: DurationRow): string => NAMES[rows.findIndex(({ journeyId }) => journeyId === row.journeyId)] ?? '';
      expect((await durations('&queues.name=Orders&queues.name=Delivery')).data.map(nameOf)).toEqual(['int-m-1', 'int-b-1', 'int-h-1', 'int-s-1']);
      expect((await durations('&transitions.name=TRANSFER&sort=desc')).data.map(nameOf)).toEqual(['int-m-1', 'int-a-1', 'int-t-1', 'int-n-1'].toReversed());
      expect((await durations('&transitions.name=HOLD&transitions.agents.name=Nobody')).data).toEqual([]);
      expect((await durations('&outcome=CallbackNoAnswer')).data.map(nameOf)).toEqual(['int-f-1']);
      const seen: string[] = [];
      for (let page = await durations('&limit=4&direction=Inbound'); ; page = await durations(`&limit=4&direction=Inbound&cursor=${page.nextPageCursor ?? ''}`)) {
        seen.push(...page.data.map(nameOf));
        if (page.nextPageCursor === null) break;
      }
      expect(seen).toEqual(NAMES.filter((_, i) => rows[i]?.direction === 'Inbound'));
    });

    test('as CSV a line a journey, or a transition; as NDJSON too', async () => {
      const [journeyLines, transitionLines] = await Promise.all(['', '/transitions'].map(async (path) => parseCsv(await (await server.request(`/durations${path}?${ANALYSED}&timezone=${ZONE}&format=csv`)).text())));
      const { data } = await durations();
      expect(journeyLines?.map((cells) => [cells['journeyId'], cells['waitingDuration'], cells['totalDuration']])).toEqual(data.map((row) => [row.journeyId, String(row.waitingDuration), row.totalDuration === null ? '' : String(row.totalDuration)]));
      expect(transitionLines?.length).toBe(expectedJourneys.reduce((sum, { transitions }) => sum + transitions.length, 0));
      expect((await (await server.request(`/durations?${ANALYSED}&timezone=${ZONE}&format=ndjson`)).text()).trimEnd().split('\n').map((line) => JSON.parse(line) as unknown)).toEqual(data);
    });
  });

  describe('GET /paths', () => {
    interface Paths { readonly journeys: number; readonly steps: readonly PathStep[]; readonly sequences: readonly PathSequence[] }
    const middle = (values: readonly number[]): number | null => {
      const sorted = [...values].sort((a, b) => a - b);
      return sorted.length === 0 ? null : ((sorted[(sorted.length - 1) >> 1] ?? 0) + (sorted[sorted.length >> 1] ?? 0)) / 2;
    };

    test('counts each step and each whole sequence as the timelines show them', async () => {
      const { journeys, steps, sequences } = await get<Paths>(`/paths?${ANALYSED}&limit=1000`);
      const timelines = (await searchTransitions({})).data;
      expect(journeys).toBe(22);
      const elapsed = new Map<string, number[]>();
      const ways = new Map<string, string[]>();
      timelines.forEach(({ transitions }, i) => {
        transitions.slice(1).forEach((to, at) => {
          const from = transitions[at] as TransitionAnswer;
          const key = `${from.name} ${to.name}`;
          elapsed.set(key, [...elapsed.get(key) ?? [], Date.parse(to.time) - Date.parse(from.time)]);
        });
        const way = transitions.map(({ name }) => name).join(' ');
        ways.set(way, [...ways.get(way) ?? [], outcomeOf(NAMES[i] ?? '')]);
      });
      expect(new Map(steps.map(({ from, to, count, medianDuration }) => [`${from} ${to}`, [count, medianDuration]]))).toEqual(new Map([...elapsed].map(([key, all]) => [key, [all.length, middle(all)]])));
      expect(new Map(sequences.map(({ states, journeys: of, outcomes: counted }) => [states.join(' '), [of, counted]]))).toEqual(new Map([...ways].map(([way, all]) => [way, [all.length, Object.fromEntries([...new Set(all)].map((one) => [one, all.filter((other) => other === one).length]))]])));
      for (const { journeys: of, share } of sequences) expect(share).toBeCloseTo(of / 22, 4);
      expect(sequences.map(({ journeys: of }) => of)).toEqual(sequences.map(({ journeys: of }) => of).toSorted((a, b) => b - a));
      expect(steps.map(({ count }) => count)).toEqual(steps.map(({ count }) => count).toSorted((a, b) => b - a));
    });

    test('takes filters, and tells as many sequences as are asked for', async () => {
      const transferred = await get<Paths>(`/paths?${ANALYSED}&transitions.name=TRANSFER&limit=2`);
      expect([transferred.journeys, transferred.sequences.length]).toEqual([4, 2]);
      expect(transferred.steps.find(({ from, to }) => from === 'TALKING' && to === 'TRANSFER')?.journeys).toBe(4);
      expect(await get<Paths>(`/paths?${ANALYSED}&agents.name=Nobody`)).toEqual({ journeys: 0, steps: [], sequences: [] });
    });

    test('as CSV steps and sequences are lines of one form', async () => {
      const { steps, sequences } = await get<Paths>(`/paths?${ANALYSED}`);
      const lines = parseCsv(await (await server.request(`/paths?${ANALYSED}&format=csv`)).text());
      expect(lines.map((cells) => [cells['kind'], cells['from'], cells['to'], cells['states'], cells['journeys'], cells['outcome']])).toEqual([
        ...steps.map(({ from, to, journeys }) => ['step', from, to, '', String(journeys), '']), ...sequences.map(({ states, journeys, outcome }) => ['sequence', '', '', states.join('; '), String(journeys), outcome]),
      ]);
    });
  });

  describe('GET /outcomes with filters', () => {
    test('counts the journeys that the search finds with the same filters, in the same rows', async () => {
      const rows = (await searchJourneys()).data;
      for (const [query, filters] of [
        ['&queues.name=Support', [by('queues.name', 'Support')]], ['&agents.name=Mara%20Ionescu&direction=Inbound', [by('agents.name', 'Mara Ionescu'), by('direction', 'Inbound')]],
        ['&mediaTypes=phone', [by('mediaTypes', 'phone')]], ['&outcome=Handled', [by('outcome', 'Handled')]], ['&outcome=Handled&outcome=Abandoned&direction=Inbound', [by('outcome', 'Handled', 'Abandoned'), by('direction', 'Inbound')]], ['&contact.name=Ana%20Pop', [by('contact.name', 'Ana Pop')]],
      ] as const) {
        const found = (await searchJourneys({ filters })).data;
        const { data, total } = await get<Outcomes>(`/outcomes?${ANALYSED}&timezone=${ZONE}&by=hour&group=outcome${query}`);
        const expected = new Map<string, number>();
        for (const row of found) {
          const key = `${row.time.slice(0, 13)} ${outcomeOf(NAMES[rows.findIndex(({ journeyId }) => journeyId === row.journeyId)] ?? '')}`;
          expected.set(key, (expected.get(key) ?? 0) + 1);
        }
        expect([query, total.journeys, new Map(data.map(({ from, outcome, journeys }) => [`${from.slice(0, 13)} ${String(outcome)}`, journeys]))]).toEqual([query, found.length, expected]);
        expect(found.length).toBeGreaterThan(0);
      }
      const held = (await searchTransitions({ filters: [by('transitions.name', 'HOLD')] })).totalElements;
      expect((await get<Outcomes>(`/outcomes?${ANALYSED}&transitions.name=HOLD`)).total.journeys).toBe(held);
    });

    test('a filter that every journey meets gives exactly what the cells give', async () => {
      const grouped = '&by=quarter&group=outcome,queue,medium,direction';
      const all = ['Inbound', 'Outbound', 'Internal'].map((direction) => `&direction=${direction}`).join('');
      const media = [...new Set((await searchJourneys()).data.flatMap(({ mediaTypes }) => mediaTypes))].map((medium) => `&mediaTypes=${medium}`).join('');
      const cells = await get<Outcomes>(`/outcomes?${ANALYSED}${grouped}`);
      expect(await get<Outcomes>(`/outcomes?${ANALYSED}${grouped}${all}`)).toEqual(cells);
      expect(await get<Outcomes>(`/outcomes?${ANALYSED}${grouped}${all}${media}`)).toEqual(cells);
    });
  });

  test.each<[string, string, string[]]>([
    ['/durations', `from=2026-03-02T00:00:00Z&to=2026-05-01T00:00:00Z`, []],
    ['/durations', `from=2026-03-02T00:00:00Z&to=2026-05-01T00:00:00.001Z`, ['rangeTooLong']],
    ['/paths', `from=2026-03-02T00:00:00Z&to=2027-03-02T00:00:00Z`, ['rangeTooLong']],
    ['/paths', 'from=2026-03-02T00:00:00Z&to=2026-03-02T00:00:00Z', ['invalidRange']],
    ['/paths', 'from=2026-03-02T00:00:00Z&to=2026-03-03T00:00:00Z&queue.name=x', ['unknownParameter']],
    ['/outcomes', 'from=2026-03-02T00:00:00Z&to=2026-03-03T00:00:00Z&queues.name=', []],
    ['/outcomes', 'from=2026-03-02T00:00:00Z&to=2026-03-03T00:00:00Z&by=week', ['badRequest']],
    ['/durations/transitions', 'to=2026-03-03T00:00:00Z&limit=0&cursor=x&sort=up&timezone=%2B02:00', ['missingParameter', 'badRequest', 'badRequest', 'invalidTimezone']],
  ])('%s?%s: %j', async (path, query, codes) => {
    const response = await server.request(`${path}?${query}`);
    const errors = response.status === 200 ? [] : ((await response.json()) as Errors).errors.map(({ code }) => code ?? '');
    expect([response.status, errors]).toEqual([codes.length === 0 ? 200 : 400, codes]);
  });

  // ---- read your write ---------------------------------------------------------------------------------------------------

  /** Publishes one event in structured mode: its text, as given. */
  function publish(text: string, type = 'application/cloudevents+json'): Promise<Response> {
    return server.request('/events', { method: 'POST', headers: { 'content-type': type }, body: text });
  }
  const startOfCall = (n: number): object => ({
    specversion: '1.0', id: `late-${String(n)}-01`, source: 'urn:later', type: 'org.throughline.interaction.started', time: `2026-05-05T10:00:${String(n).padStart(2, '0')}Z`,
    identity: `later.${String(n)}@example.com`, identitytype: 'email', data: { interactionId: `int-later-${String(n)}`, direction: 'Inbound', medium: 'Phone' },
  });

  describe('positions', () => {
    test('G9: whoever publishes and asks with the position that came back finds it, at once and every time', async () => {
      for (let n = 0; n < 10; n += 1) {
        const response = await publish(JSON.stringify(startOfCall(n)));
        const position = response.headers.get('throughline-position') ?? '';
        expect(await json(response)).toMatchObject({ id: `late-${String(n)}-01`, result: 'recorded', position });
        const headers = { 'throughline-min-position': position };
        const answers = await Promise.all([
          server.request(`/journeys?identity=later.${String(n)}@example.com`, { headers }),
          post('journeys', { dateRange: { start: '2026-05-05T00:00:00Z', end: '2026-05-06T00:00:00Z' }, filters: [by('interactions.id', `int-later-${String(n)}`)] }, '', headers),
        ]);
        for (const answer of answers) {
          expect(answer.status).toBe(200);
          expect((answer.headers.get('throughline-position') ?? '') >= position).toBe(true);
          expect(((await answer.json()) as Page<JourneyAnswer>).data.map(({ interactions }) => interactions[0]?.id)).toEqual([`int-later-${String(n)}`]);
        }
        expect((await get<HistoryPage>(`/history?identity=later.${String(n)}@example.com`, headers)).data).toHaveLength(1);
      }
    });

    test('a repeat says where the first stands', async () => {
      const first = await json(await publish(JSON.stringify(startOfCall(30))));
      const again = await publish(JSON.stringify(startOfCall(30)));
      expect(await json(again)).toEqual({ ...first, result: 'duplicate' });
      expect(again.headers.get('throughline-position')).toBe(first['position']);
    });

    test('a position that is none, another store\'s, or past the end of the log is refused', async () => {
      const own = (await server.request('/journeys/none')).headers.get('throughline-position') ?? '';
      const [store = '', position = ''] = own.split('.');
      const refused = async (minimum: string): Promise<unknown> => {
        const response = await server.request('/journeys/none', { headers: { 'throughline-min-position': minimum } });
        return [response.status, ((await response.json()) as Errors).errors.map(({ code }) => code)];
      };
      expect(await refused('soon')).toEqual([400, ['badPosition']]);
      expect(await refused(`${store}.0`)).toEqual([404, ['unknownJourney']]);
      expect(await refused(`00000000-0000-4000-8000-000000000000.${position}`)).toEqual([400, ['foreignPosition']]);
      expect(await refused(`${store}.${'9'.repeat(position.length)}`)).toEqual([400, ['positionPastHead']]);
      expect(await refused(own)).toEqual([404, ['unknownJourney']]);
    });

    test('numbers come back as they were spelt, and so does whatever else JSON allows', async () => {
      const data = '{"big":12345678901234567890,"price":1.50,"exp":1E+2,"neg":-0.0,"long":0.1000000000000000055511151231257827, "spaced" : [ 1 , 2 ],"twice":1,"twice":2,"text":"\\u00e9\\/"}';
      const event = `{"specversion":"1.0","id":"spelling-1","source":"urn:later","type":"shop.spelling","time":"2026-05-06T10:00:00.123456789+02:00","identity":"spelling@example.com","identitytype":"email","datacontenttype":"application/json","data":${data}}`;
      const position = (await publish(event)).headers.get('throughline-position') ?? '';
      const answer = await server.request('/history?identity=spelling@example.com', { headers: { 'throughline-min-position': position } });
      const text = await answer.text();
      expect(text).toContain(`"data":${data}`);
      expect(text).toContain('"time":"2026-05-06T10:00:00.123456789+02:00"');
    });
  });

  // ---- the rest of the surface -------------------------------------------------------------------------------------------

  interface Schema { readonly $ref?: string; readonly type?: unknown; readonly [keyword: string]: unknown }
  interface Parameter { readonly name: string; readonly in: string; readonly required: boolean; readonly schema: Schema }
  interface Operation {
    readonly operationId: string; readonly summary: string; readonly tags: readonly string[]; readonly security: readonly Readonly<Record<string, unknown>>[]; readonly parameters: readonly Parameter[];
    readonly requestBody?: { readonly required: boolean; readonly content: Readonly<Record<string, { readonly schema: Schema; readonly example?: unknown }>> };
    readonly responses: Readonly<Record<string, { readonly description: string; readonly content?: Readonly<Record<string, { readonly schema: Schema }>> }>>;
  }
  interface Document { readonly openapi: string; readonly info: { readonly title: string; readonly version: string; readonly license: { readonly identifier?: string; readonly name: string } }; readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>; readonly components: { readonly securitySchemes: Readonly<Record<string, object>> }; readonly tags: readonly { readonly name: string }[] }

  describe('GET /openapi.json', () => {
    let document: Document;
    beforeAll(async () => { document = (await (await server.request('/openapi.json', { key: '' })).json()) as Document; });
    const operations = (): readonly (readonly [path: string, method: string, operation: Operation])[] => Object.entries(document.paths).flatMap(([path, methods]) => Object.entries(methods).map(([method, operation]) => [path, method, operation] as const));
    const parserOf = (schema: Schema): z.ZodType => z.fromJSONSchema({ $schema: 'https://json-schema.org/draft/2020-12/schema', ...schema } as Parameters<typeof z.fromJSONSchema>[0]);

    test('is OpenAPI 3.1 with every route that is served', () => {
      expect(document.openapi).toMatch(/^3\.1\.\d+$/);
      expect(document.info).toMatchObject({ title: 'Throughline', version: (JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string }).version, license: { name: 'Apache-2.0' } });
      expect(operations().map(([path, method]) => `${method.toUpperCase()} ${path}`).sort()).toEqual([
        'GET /docs', 'GET /durations', 'GET /durations/transitions', 'GET /healthz', 'GET /history', 'GET /journeys', 'GET /journeys/{id}', 'GET /metrics', 'GET /openapi.json', 'GET /outcomes', 'GET /paths', 'GET /persons', 'GET /persons/{id}', 'GET /readyz', 'GET /sources',
        'POST /cidp/journey/api/v1/journeys/search', 'POST /cidp/journey/api/v1/transitions/search', 'POST /events',
      ]);
    });

    test('each operation is whole: an id of its own, parameters that its path names, schemas that can be read, responses described', () => {
      const ids = operations().map(([, , { operationId }]) => operationId);
      expect(new Set(ids).size).toBe(ids.length);
      const tags = new Set(document.tags.map(({ name }) => name));
      for (const [path, method, operation] of operations()) {
        const inPath = operation.parameters.filter((one) => one.in === 'path');
        expect([path, inPath.map(({ name }) => name)]).toEqual([path, [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name)]);
        for (const one of inPath) expect(one.required).toBe(true);
        for (const one of operation.parameters) {
          expect(['path', 'query', 'header']).toContain(one.in);
          parserOf(one.schema);
        }
        const names = operation.parameters.map((one) => `${one.in} ${one.name}`);
        expect(new Set(names).size).toBe(names.length);
        for (const tag of operation.tags) expect(tags).toContain(tag);
        for (const scheme of operation.security) for (const name of Object.keys(scheme)) expect(document.components.securitySchemes).toHaveProperty(name);
        if (method === 'get') expect(operation.requestBody).toBeUndefined();
        for (const { schema } of Object.values(operation.requestBody?.content ?? {})) parserOf(schema);
        expect(Object.keys(operation.responses)).toContain('200');
        for (const [status, response] of Object.entries(operation.responses)) {
          expect(status).toMatch(/^[1-5]\d\d$/);
          expect(response.description).not.toBe('');
          for (const { schema } of Object.values(response.content ?? {})) parserOf(schema);
        }
      }
      expect(JSON.stringify(document)).not.toContain('"$ref"');
    });

    test('its own examples of requests are taken, and answers are as it describes them', async () => {
      const described = (path: string, method: string, status = 200): z.ZodType => parserOf(document.paths[path]?.[method]?.responses[String(status)]?.content?.['application/json']?.schema ?? {});
      for (const what of ['journeys', 'transitions'] as const) {
        const path = `${API}/${what}/search`;
        const example = document.paths[path]?.post?.requestBody?.content['application/json']?.example;
        const response = await server.request(path, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(example) });
        expect(response.status).toBe(200);
        expect((await response.json() as Page<unknown>).data.length).toBeGreaterThan(0);
        expect(described(path, 'post').safeParse(await search(what, {})).error).toBeUndefined();
        expect(described(path, 'post', 400).safeParse(await (await post(what, { limit: 0, dateRange: null })).json()).error).toBeUndefined();
      }
      const event = document.paths['/events']?.post?.requestBody?.content['application/cloudevents+json']?.example;
      const dry = await server.request('/events?dryRun=true', { method: 'POST', headers: { 'content-type': 'application/cloudevents+json' }, body: JSON.stringify(event) });
      expect([dry.status, described('/events', 'post').safeParse(await dry.json()).error]).toEqual([200, undefined]);
      const { personId } = await journeysOf(who.ana.identity);
      const asked: readonly (readonly [template: string, path: string])[] = [
        ['/journeys/{id}', '/journeys/order-HP-20777'], ['/journeys', '/journeys?identity=ana.pop@example.com'], ['/history', '/history?identity=ana.pop@example.com'], ['/sources', '/sources'],
        ['/outcomes', '/outcomes?from=2026-03-02T00:00:00Z&to=2026-03-03T00:00:00Z&by=hour&group=outcome,queue,medium,direction'], ['/persons', '/persons?identity=ana.pop@example.com'], ['/persons/{id}', `/persons/${personId}`],
        ['/durations', `/durations?${ANALYSED}&queues.name=Support`], ['/durations/transitions', `/durations/transitions?${ANALYSED}&limit=3`], ['/paths', `/paths?${ANALYSED}`],
        ['/healthz', '/healthz'], ['/readyz', '/readyz'],
      ];
      for (const [template, path] of asked) expect([path, described(template, 'get').safeParse(await get(path)).error]).toEqual([path, undefined]);
    });
  });

  describe('without a key', () => {
    test('GET /docs is a page that loads nothing from outside', async () => {
      const response = await fetch(`${server.url}/docs`);
      expect(response.headers.get('content-type')).toMatch(/^text\/html/);
      const html = await response.text();
      expect(html.length).toBeGreaterThan(1000);
      // No tag and no style names another host, in either spelling.
      expect(html.match(/(?:src|href|action|data|poster|srcset)\s*=\s*["']?\s*(?:https?:)?\/\/[^"'\s>]*/gi)).toBeNull();
      expect(html.match(/\burl\(|@import|\bimport\s*\(|<iframe|<object|<embed|<base|<script[^>]+src/gi)).toBeNull();
      for (const [, href] of html.matchAll(/<link[^>]*href="([^"]*)"/gi)) expect(href).toMatch(/^data:/);
      expect(html.match(/https?:\/\/\S+/g) ?? []).toEqual([]);
      const policy = response.headers.get('content-security-policy') ?? '';
      expect(policy).toContain("default-src 'none'");
      expect(policy).toContain("connect-src 'self'");
      expect(policy).not.toMatch(/unsafe|https?:|\*/);
    });

    test('GET /healthz and /readyz say that all is well', async () => {
      expect(await (await fetch(`${server.url}/healthz`)).json()).toEqual({ status: 'ok' });
      expect(await (await fetch(`${server.url}/readyz`)).json()).toEqual({ status: 'ok', reasons: [] });
    });

    test('GET /metrics counts what the door took and how far each group is, and names no customer', async () => {
      await server.request('/journeys/order-HP-20777');
      let text = '';
      const value = (name: string): number => Number(new RegExp(`^${name.replace(/[{}"]/g, '\\$&')} (\\S+)$`, 'm').exec(text)?.[1]);
      await until('both groups have no gap', async () => {
        text = await server.metrics();
        return value('throughline_group_gap{group="journeys"}') === 0 && value('throughline_group_gap{group="persons"}') === 0;
      });
      expect(value('throughline_door_recorded_total')).toBeGreaterThanOrEqual(194);
      expect(value('throughline_door_duplicates_total')).toBeGreaterThanOrEqual(2);
      expect(value('throughline_door_reused_ids_total')).toBe(23);
      expect(value('throughline_door_failed_total')).toBe(0);
      expect(value('throughline_appended_events_total')).toBe(value('throughline_door_recorded_total'));
      // Every line is a comment or a sample.
      for (const line of text.trimEnd().split('\n')) expect(line).toMatch(/^$|^# (HELP|TYPE) |^[a-z_][a-z0-9_]*(\{([a-z_]+="[^"]*",?)*\})? [-+\d.eEInfNa]+$/);
      expect(text).toMatch(/route="\/journeys\/\{id\}"/);
      for (const secret of ['example.com', '2025550', 'int-a-1', 'visitor', 'order-HP']) expect(text.includes(secret)).toBe(false);
    });

    test('everything else asks for one', async () => {
      for (const path of ['/journeys/order-HP-20777', '/journeys?identity=ana.pop@example.com', '/history?identity=ana.pop@example.com', '/persons?identity=ana.pop@example.com', '/sources', '/outcomes', '/durations', '/durations/transitions', '/paths']) {
        expect([path, (await fetch(server.url + path)).status]).toEqual([path, 401]);
      }
    });
  });

  test('no log line of all this names a customer', () => {
    const log = server.stderr();
    expect(log.split('\n').length).toBeGreaterThan(100);
    for (const line of log.trimEnd().split('\n')) expect(Object.keys(JSON.parse(line) as object)).toContain('msg');
    const values = Object.values(who).map(({ identity }) => identity.replace('+', ''));
    for (const value of [...values.filter((one) => one !== 'anonymous'), 'example.com', 'Ana Pop', 'int-a-1', 'order-HP', server.key]) expect([value, log.includes(value)]).toEqual([value, false]);
  });
}

describe('the example day, embedded', () => {
  houseOf(openEmbeddedHouse);
  tellTheImport();
  tellTheDay();
});

describeOn(SERVERS, 'the example day, from a Kafka topic through ingest, project and api to Redis', () => {
  houseOf(openHouseOnServers);
  tellTheDay();
});
