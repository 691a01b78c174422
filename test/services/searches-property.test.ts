// G3 as an analyst sees it: whatever journeys there are and whatever is asked of them, each search answers as a plain filter
// over the answers of the unfiltered walk does, which looks at nothing but the JSON that was sent. On every view store.
import fc from 'fast-check';
import { JOURNEY_FILTERS, TRANSITION_FILTERS } from '../../projections/journeys.ts';
import { OUTCOMES } from '../../schemas/apis/eightbyeight.ts';
import type { Agent, Endpoint, InteractionFactBody, InteractionId, Interpreted, Place } from '../../schemas/facts.ts';
import { nodeKey } from '../../schemas/identity.ts';
import { event, type SaidOfInteraction, START_MS } from '../support/facts.ts';
import { type Seeded, seeded } from '../support/seeded.ts';
import { type Answered, describeOnStores, JOURNEYS_SEARCH, type SearchServer, SearchWorld, shown, TRANSITIONS_SEARCH, workspaceNamed } from '../support/searches.ts';

const RUNS = 16;
const QUERIES = 12;
const SEED = 8_088;

// ---- random journeys -----------------------------------------------------------------------------------------------------

/** Few values of each field, so that journeys share them; some are said of the same place or agent under another name. */
const SITES = [{ id: 'site-1', name: 'North' }, { id: 'site-2', name: 'South' }, null] as const;
const place = (kind: string): fc.Arbitrary<Place> => fc.record({
  id: fc.constantFrom(`${kind}-1`, `${kind}-2`, `${kind}-3`), name: fc.constantFrom('Sales', 'Service', `${kind} "x", y`, null), extension: fc.constantFrom('2001', '2002', null), site: fc.constantFrom(...SITES),
}, { requiredKeys: ['id'] });
const agent: fc.Arbitrary<Agent> = fc.record({
  id: fc.constantFrom('a1', 'a2', 'a3', 'a4'), name: fc.constantFrom('Ann', 'Ben', 'Żółć', null), email: fc.constantFrom('ann@shop.example', null), department: fc.constantFrom('Front', 'Back', ''),
  group: fc.constantFrom({ id: 'g1', name: 'First' }, { id: 'g2', name: 'First' }, null), site: fc.constantFrom(...SITES), type: fc.constantFrom('HUMAN', 'AI'),
}, { requiredKeys: ['id'] });
const endpoint = (...types: Endpoint['type'][]): fc.Arbitrary<Endpoint> => fc.record({
  type: fc.constantFrom(...types), id: fc.constantFrom('e1', 'e2', null), name: fc.constantFrom('Main', 'Second'), phoneNumber: fc.constantFrom('+15550199001', '+15550199002'), extension: fc.constantFrom('1001', '1002'),
  department: fc.constantFrom('Front', 'Back'), email: fc.constantFrom('line@shop.example', 'desk@shop.example'), pbx: fc.constantFrom('north', 'south'), tenantId: fc.constantFrom('t1', 't2'), site: fc.constantFrom(...SITES),
}, { requiredKeys: ['type'] });

const agents = fc.array(agent, { maxLength: 2 });
const [queue, ringGroup, attendant] = [place('q'), place('r'), place('aa')];
const to = fc.oneof(fc.record({ queue }), fc.record({ ringGroup }), fc.record({ agents }), fc.record({ autoAttendant: attendant }), fc.constant({ externalNumber: '+15550155' }), fc.record({ queue, agents }));
const said = <K extends InteractionFactBody['kind']>(kind: K, rest: fc.Arbitrary<object>): fc.Arbitrary<InteractionFactBody> => rest.map((made) => ({ kind, ...made }) as InteractionFactBody);
const started = said('started', fc.record({
  direction: fc.constantFrom('Inbound', 'Inbound', 'Outbound', 'Internal'), medium: fc.constantFrom('Phone', 'Chat', 'Email', 'phone'),
  contact: fc.record({ name: fc.constantFrom('Ana', 'Bob'), phoneNumber: fc.constantFrom('+15550100101', '+15550100102'), email: fc.constantFrom('ana@example.com', null) }, { requiredKeys: [] }),
  entryPoint: endpoint('cc-channel', 'call-queue', 'user'), origin: endpoint('user'), pbx: fc.constantFrom('north', 'west'), tenant: fc.constantFrom('t1', 't3'),
}, { requiredKeys: [] }));
const step = fc.oneof(
  started, said('script', fc.record({ autoAttendant: attendant }, { requiredKeys: [] })), said('waiting', fc.record({ queue })), said('waiting', fc.record({ ringGroup })), said('waiting', fc.record({ agents })),
  said('talking', fc.record({ agents, queue }, { requiredKeys: ['agents'] })), said('talking', fc.record({ agents })), said('held', fc.record({ agents }, { requiredKeys: [] })), said('resumed', fc.constant({})), said('dialling', fc.record({ agents })),
  said('forwarded', fc.record({ to })), said('transferred', fc.record({ to })), said('voicemail', fc.record({ queue })), said('followUp', fc.record({ reason: fc.constantFrom('voicemail', 'callback'), queue })), said('processing', fc.record({ agents })),
  said('wrappedUp', fc.record({ wrapUpCodes: fc.subarray(['Sale', 'Question', 'Other']) })), said('phoneCodes', fc.record({ codes: fc.subarray([{ listName: 'L1', name: 'x', shortCode: '1' }, { listName: 'L1', name: 'y', shortCode: null }]) })),
  said('aiAgent', fc.record({ tools: fc.subarray([{ name: 'look-up', success: true }, { name: 'book', success: false }]) })),
);
const ended = said('ended', fc.record({ final: fc.constantFrom(true, true, false), by: fc.constantFrom('customer', 'agent') }));

/** Days on which journeys begin: some share an instant, some stand at the first or last millisecond of a day, one is the change of the clocks. */
const BEGINNINGS = ['2026-03-02T09:00:00Z', '2026-03-02T09:00:00.001Z', '2026-03-02T23:59:59.999Z', '2026-03-03T00:00:00Z', '2026-03-28T22:00:00Z', '2026-03-29T01:00:00Z', '2026-04-05T12:34:56.789Z'].map((text) => Date.parse(text));
const EVER = { start: '2026-02-20T00:00:00Z', end: '2026-04-20T00:00:00Z' };

const rarely = <T>(value: fc.Arbitrary<T>): fc.Arbitrary<T | null> => fc.oneof({ weight: 4, arbitrary: fc.constant(null) }, { weight: 1, arbitrary: value });
const interaction = fc.record({
  begins: fc.constantFrom(...BEGINNINGS), start: started, steps: fc.array(fc.record({ after: fc.constantFrom(0, 1, 500, 60_000), body: step }), { maxLength: 7 }), end: fc.option(ended),
  explicit: rarely(fc.constantFrom('J-1', 'j-1', 'J-2', 'Ж 3', 'a"b', 'J-10')), link: rarely(fc.nat({ max: 30 })),
});
type Told = typeof interaction extends fc.Arbitrary<infer T> ? T : never;
const arbitraryDay = fc.record({ told: fc.array(interaction, { minLength: 1, maxLength: 20, size: 'max' }), seed: fc.nat(), size: fc.constantFrom(Infinity, 5, 1) });

function eventsOf(told: readonly Told[]): Interpreted[] {
  return told.flatMap(({ begins, start, steps, end, explicit, link }, n) => {
    const id: InteractionId = `x:i${n}`;
    let ms = begins - START_MS;
    const line = (at: number, name: string, ...bodies: InteractionFactBody[]): Interpreted => event(`${id}@${name}`, at / 1000, bodies.map((body): SaidOfInteraction => ({ ...body, interaction: id })));
    const first = line(ms, '000', start, ...(explicit === null ? [] : [{ kind: 'journey', journeyId: explicit } as const]), ...(link === null || link >= told.length || link === n ? [] : [{ kind: 'linked', to: `x:i${link}` } as const]));
    const rest = steps.map(({ after, body }, i) => line(ms += after, String(i + 1).padStart(3, '0'), body));
    return [first, ...rest, ...(end === null ? [] : [line(ms + 1000, '999', end)])];
  });
}

// ---- the plain filter ----------------------------------------------------------------------------------------------------

interface Filter { readonly name: string; readonly values: readonly string[] }
/** A journey as four answers show it, and the further ids that it answers to. */
interface Row { readonly ms: number; readonly id: string; readonly ids: readonly string[]; readonly journey: { readonly outcome: string }; /** As our own endpoint shows it: the searches leave things out that they find it by. */ readonly entryPoint: unknown; readonly timeline: { readonly transitions: readonly object[] }; readonly duration: { readonly outcome: string } }
/** Who is asked: the search in one revision, or an endpoint of our own; outcomes differ. */
type Asked = 'seed' | 'latest' | 'own';

function valuesOf(row: Row, name: string, asked: Asked): readonly string[] {
  if (name === 'journeyId') return row.ids;
  if (name !== 'outcome') return shown({ ...row.journey, entryPoint: row.entryPoint }, name.split('.'));
  return asked === 'seed' ? [row.journey.outcome, row.duration.outcome] : [row.duration.outcome];
}

function matches(row: Row, filters: readonly Filter[], asked: Asked): boolean {
  const ofTransitions = filters.filter(({ name }) => name.startsWith('transitions.'));
  const has = (values: readonly string[], wanted: readonly string[]): boolean => values.some((value) => wanted.includes(value));
  const ofJourneys = filters.filter((filter) => !ofTransitions.includes(filter)).every(({ name, values }) => {
    const found = valuesOf(row, name, asked);
    if (name === 'mediaTypes') return has(found.map((value) => value.toLowerCase()), values.map((value) => value.toLowerCase()));
    // What is one of the newer outcomes is shown by the seed as Other alone, but found by its name as well.
    return has(found, values);
  });
  return ofJourneys && (ofTransitions.length === 0 || row.timeline.transitions.some((transition) => ofTransitions.every(({ name, values }) => has(shown(transition, name.split('.').slice(1)), values))));
}

function order(a: Row, b: Row): number { return a.ms - b.ms || (a.id < b.id ? -1 : 1); }

const iso = (ms: number): string => new Date(ms).toISOString();

/** Everything that the workspace has, by unfiltered walks of the endpoints; checked against what was told. */
async function rowsOf(server: SearchServer, workspace: string, told: readonly Told[], limit: number): Promise<readonly Row[]> {
  const [key, keys] = [`key of ${workspace}`, workspaceNamed(workspace)];
  const [journeys, timelines] = [await server.walk(JOURNEYS_SEARCH, { dateRange: EVER, displayTimezone: 'UTC', limit }, key), await server.walk(TRANSITIONS_SEARCH, { dateRange: EVER, displayTimezone: 'America/New_York', limit }, key)];
  const { body: durations } = await server.ask(`/durations?${String(new URLSearchParams({ from: EVER.start, to: EVER.end, limit: '1000' }))}`, {}, key);
  const rows = await Promise.all(journeys.rows.map(async (journey, i): Promise<Row> => {
    const { body: detail } = await server.ask(`/journeys/${encodeURIComponent(journey.journeyId)}`, {}, key);
    const interactions: readonly string[] = journey.interactions.map(({ id }: { id: string }) => id);
    const explicit = interactions.flatMap((id) => told[Number(id.slice(1))]?.explicit ?? []);
    return { ms: Date.parse(journey.time), id: journey.journeyId, ids: [...new Set([journey.journeyId, ...explicit, ...interactions.map((id) => nodeKey(keys, `x:${id}`))])], journey, entryPoint: detail.entryPoint, timeline: timelines.rows[i], duration: durations.data[i] };
  }));
  expect([timelines.rows, durations.data].map((some: { journeyId: string }[]) => some.map(({ journeyId }) => journeyId))).toEqual([rows.map(({ id }) => id), rows.map(({ id }) => id)]);
  expect(rows.map(({ id }) => id)).toEqual([...rows].sort(order).map(({ id }) => id));
  // Each interaction stands in one journey.
  expect(journeys.rows.flatMap(({ interactions }) => interactions.map(({ id }: { id: string }) => id)).sort()).toEqual(told.map((_, n) => `i${n}`).sort());
  return rows;
}

// ---- random questions ----------------------------------------------------------------------------------------------------

interface Question { readonly filters: readonly Filter[]; readonly from: number; readonly to: number; readonly direction: 'ASC' | 'DESC'; readonly limit: number; readonly zone: string }

/** Asked for now and then, of whatever filter. */
const STRAY = ['nobody', 'SALES', 'phone', 'Ann'];

function questionOn(chance: Seeded, rows: readonly Row[], names: readonly string[], asked: Asked): Question {
  const bounds = [Date.parse(EVER.start), Date.parse(EVER.end), ...rows.flatMap(({ ms }) => [ms, ms, ms - 1, ms + 1])];
  const [from = 0, to = 0] = chance.below(2) === 0 ? [Date.parse(EVER.start), Date.parse(EVER.end)] : [chance.pick(bounds), chance.pick(bounds)].sort((a, b) => a - b);
  return { filters: filtersOn(chance, rows, names, asked), from, to, direction: chance.pick(['ASC', 'DESC']), limit: chance.pick([1, 2, 3, 5, 100]), zone: chance.pick(['UTC', 'Europe/Bucharest', 'Asia/Kolkata']) };
}

/** Zero to five, mostly such that one journey meets them all, those of transitions on one of its transitions. */
function filtersOn(chance: Seeded, rows: readonly Row[], names: readonly string[], asked: Asked): readonly Filter[] {
  const row = chance.pick(rows);
  const transition = row.timeline.transitions.length === 0 ? {} : chance.pick(row.timeline.transitions);
  const valuesIn = (one: Row, name: string): readonly string[] => (name.startsWith('transitions.') ? shown(one.timeline.transitions, name.split('.').slice(1)) : valuesOf(one, name, asked));
  const met = (name: string): readonly string[] => (name.startsWith('transitions.') ? shown(transition, name.split('.').slice(1)) : valuesOf(row, name, asked));
  const isAccount = (name: string): boolean => name === 'pbxNames' || name === 'tenantIds';
  const chosen = chance.shuffled(names).filter((name) => met(name).length > 0 || chance.below(40) === 0).slice(0, chance.below(6));
  return chosen.flatMap((name): Filter[] => {
    const all = [...new Set(rows.flatMap((one) => valuesIn(one, name)))];
    // The seed refuses a PBX or tenant that is none of the account's, and has more outcomes than it shows.
    const others = [...all, ...(asked === 'seed' && isAccount(name) ? [] : name === 'outcome' ? OUTCOMES : STRAY)];
    if (others.length === 0) return [];
    const first = chance.below(12) === 0 || met(name).length === 0 ? chance.pick(others) : chance.pick(met(name));
    const values = chance.shuffled([first, ...Array.from({ length: chance.below(3) }, () => chance.pick(others))]);
    // An empty parameter is no value to our own endpoints.
    return [{ name, values: asked === 'own' ? values.map((value) => (value === '' ? 'Front' : value)) : values }];
  });
}

// ---- the property --------------------------------------------------------------------------------------------------------

/** So that an answer which differs says to what. */
const withQuestion = <T>(question: Question, asked: Asked, found: T): { readonly asked: Asked; readonly question: Question; readonly found: T } => ({ asked, question, found });

async function askSearch(server: SearchServer, key: string, rows: readonly Row[], address: string, question: Question, asked: 'seed' | 'latest'): Promise<number> {
  const { filters, from, to: until, direction, limit, zone } = question;
  const expected = rows.filter((row) => row.ms >= from && row.ms <= until && matches(row, filters, asked));
  if (direction === 'DESC') expected.reverse();
  const body = { dateRange: { start: iso(from), end: iso(until) }, displayTimezone: zone, sortDirection: direction, limit, ...(filters.length === 0 ? {} : { filters }) };
  const found = await server.walk(address, body, key);
  const ids = found.rows.map(({ journeyId }) => journeyId);
  expect(withQuestion(question, asked, ids)).toEqual(withQuestion(question, asked, expected.map(({ id }) => id)));
  // Pages are full but for the last, and none is empty but where nothing is found.
  const pages = Array.from({ length: Math.ceil(expected.length / limit) }, (_, i) => Math.min(limit, expected.length - i * limit));
  expect(withQuestion(question, asked, found.pages)).toEqual(withQuestion(question, asked, pages.length === 0 ? [0] : pages));
  // Whole rows as the unfiltered walk has them, but for how a time is printed.
  const untimed = (value: unknown): unknown => JSON.parse(JSON.stringify(value), (name, inner: unknown) => (['time', 'finishedTime'].includes(name) && typeof inner === 'string' ? Date.parse(inner) : inner));
  const whole = expected.map(({ journey, timeline, duration }) => (address === TRANSITIONS_SEARCH ? timeline : { ...journey, outcome: asked === 'seed' ? journey.outcome : duration.outcome }));
  expect(untimed(found.rows)).toEqual(untimed(whole));
  return expected.length;
}

/** The analysts' endpoints with the same filters: the same journeys, however they are told or counted. */
async function askOwn(server: SearchServer, key: string, rows: readonly Row[], question: Question): Promise<number> {
  const { filters, direction, limit } = question;
  const [from, to_] = [question.from, question.to + 1];
  const within = (start: number, end: number): Row[] => rows.filter((row) => row.ms >= start && row.ms < end && matches(row, filters, 'own'));
  const get = async (path: string, more: readonly (readonly [string, string])[] = []): Promise<Answered> => {
    const parameters = new URLSearchParams([['from', iso(from)], ['to', iso(to_)], ...filters.flatMap(({ name, values }) => values.map((value): [string, string] => [name, value])), ...more.map(([name, value]): [string, string] => [name, value])]);
    const { status, body } = await server.ask(`${path}?${String(parameters)}`, {}, key);
    expect([path, status, status === 200 ? null : body]).toEqual([path, 200, null]);
    return body;
  };
  const expected = within(from, to_).map(({ id }) => id);
  if (direction === 'DESC') expected.reverse();
  for (const path of ['/durations', '/durations/transitions']) {
    const found: string[] = [];
    for (let cursor: string | null = ''; cursor !== null;) {
      const page = await get(path, [['limit', String(limit)], ['sort', direction.toLowerCase()], ...(cursor === '' ? [] : [['cursor', cursor] as const])]);
      found.push(...page.data.map(({ journeyId }: { journeyId: string }) => journeyId));
      expect(withQuestion(question, 'own', page.totalElements)).toEqual(withQuestion(question, 'own', expected.length));
      cursor = page.nextPageCursor;
    }
    expect(withQuestion(question, 'own', found)).toEqual(withQuestion(question, 'own', expected));
  }
  expect(withQuestion(question, 'own', (await get('/paths')).journeys)).toEqual(withQuestion(question, 'own', expected.length));
  const quarter = 900_000;
  const counted = within(Math.floor(from / quarter) * quarter, Math.ceil(to_ / quarter) * quarter);
  const { total } = await get('/outcomes');
  expect(withQuestion(question, 'own', [total.journeys, total.handled, total.abandoned])).toEqual(withQuestion(question, 'own', [counted.length, ...['Handled', 'Abandoned'].map((outcome) => counted.filter(({ duration }) => duration.outcome === outcome).length)]));
  return expected.length;
}

describeOnStores((open) => {
  let world: SearchWorld;
  let servers: Readonly<Record<'seed' | 'latest', SearchServer>>;
  beforeAll(async () => {
    world = await SearchWorld.open(open);
    servers = { seed: await world.serve(), latest: await world.serve({ revision: 'latest' }) };
  });
  afterAll(async () => world.close());

  test('G3: any filters over any journeys, page by page, answer as a plain filter does: same rows, same order, same totals', async () => {
    let workspaces = 0;
    /** How many questions found none, some and all: a property that is never met by anything proves nothing. */
    const found = { none: 0, some: 0, all: 0 };
    await fc.assert(fc.asyncProperty(arbitraryDay, async ({ told, seed, size }) => {
      const chance = seeded(seed);
      workspaces += 1;
      const workspace = `w${workspaces}`;
      const key = `key of ${workspace}`;
      const events = eventsOf(told);
      // In order journeys go on from what is stored; in any other they are folded anew.
      await world.fold(workspace, chance.below(2) === 0 ? events : chance.shuffled(events), size);
      const rows = await rowsOf(servers.seed, workspace, told, chance.pick([1, 3, 100]));
      const tally = (count: number): void => { found[count === 0 ? 'none' : count === rows.length ? 'all' : 'some'] += 1; };
      for (let n = 0; n < QUERIES; n += 1) {
        const [journeys, transitions] = [Object.keys(JOURNEY_FILTERS), Object.keys(TRANSITION_FILTERS)];
        if (n % 3 === 2) {
          tally(await askOwn(servers.seed, key, rows, questionOn(chance, rows, [...new Set([...journeys, ...transitions])], 'own')));
          continue;
        }
        const asked = chance.pick(['seed', 'seed', 'latest'] as const);
        const [address, names] = n % 3 === 0 ? [JOURNEYS_SEARCH, journeys] : [TRANSITIONS_SEARCH, transitions];
        tally(await askSearch(servers[asked], key, rows, address, questionOn(chance, rows, names, asked), asked));
      }
    }), { numRuns: RUNS, seed: SEED });
    for (const times of Object.values(found)) expect(times).toBeGreaterThan(RUNS * QUERIES / 20);
  });
});
