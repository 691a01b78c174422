// The 8x8 End-to-End Journey API (shared/reference/journey-apis-facts.md, section 1; the readings of 1.10 are cited by
// number). Revision `seed` is the one published on 2026-04-29, with the newest revision's further fields and filters, which
// contradict nothing in it; `latest` differs where the newest one does contradict it: ten outcomes instead of five, `filters`
// may be `[]`, sortDirection in upper case alone, and a PBX or tenant that is none finds nothing instead of being an error.
// Data, not code: which filters there are is handed in by the projection that indexes them.
import { z } from 'zod';
import { type Dialect, type Endpoint, endpoint, type Problem } from './openapi.ts';
import { isTimezone } from './timezones.ts';
import { parseInstant, msOf } from '../time.ts';
import type { Instant } from '../facts.ts';

interface ErrorText { readonly title: string; readonly status: number; readonly message: string; readonly suggestion: string }

export const REVISIONS = ['seed', 'latest'] as const;
export type Revision = (typeof REVISIONS)[number];

/** The 23 published codes. The titles make the anchors of the published page, to which `url` points; the statuses are readings (only a generic table is published). */
export const EIGHT_BY_EIGHT_ERRORS = {
  invalidPbx: { title: 'Invalid PBX', status: 400, message: 'A value of pbxNames is no PBX of this account.', suggestion: 'Use the PBX names of your own account.' },
  invalidTenant: { title: 'Invalid Tenant', status: 400, message: 'A value of tenantIds is no tenant of this account.', suggestion: 'Use the tenant ids of your own account.' },
  malformedRequest: { title: 'Malformed Request', status: 400, message: 'The body cannot be read as the JSON object that this endpoint takes.', suggestion: 'Send one JSON object in the documented structure.' },
  badRequest: { title: 'Bad Request', status: 400, message: 'A field is missing or has the wrong type.', suggestion: 'Compare the field with the documentation at /docs.' },
  dateRangeNotNull: { title: 'Date Range Not Null', status: 400, message: 'dateRange is missing.', suggestion: 'Add dateRange with start and end.' },
  startRangeNotNull: { title: 'Start Date Not Null', status: 400, message: 'dateRange.start is missing.', suggestion: 'Add dateRange.start.' },
  endRangeNotNull: { title: 'End Date Not Null', status: 400, message: 'dateRange.end is missing.', suggestion: 'Add dateRange.end.' },
  endDateBeforeStartDate: { title: 'End Date Before Start Date', status: 400, message: 'dateRange.start is later than dateRange.end.', suggestion: 'Exchange start and end.' },
  filtersNotEmpty: { title: 'Filters Not Empty', status: 400, message: 'filters is an empty array.', suggestion: 'Name at least one filter, or leave filters out.' },
  iso8061WithTzFormat: { title: 'ISO 8061 With Timezone Format', status: 400, message: 'A date is not in ISO 8601 with a zone designator.', suggestion: 'Write dates as 2025-03-01T00:00:00Z or 2025-03-01T00:00:00+02:00.' },
  maxInterval: { title: 'Max Interval', status: 400, message: 'The date range is longer than may be asked for at once.', suggestion: 'Ask for a shorter range, 60 days unless the server is told otherwise.' },
  filterValuesNotEmpty: { title: 'Filter Values Not Empty', status: 400, message: 'A filter has no values.', suggestion: 'Give each filter at least one value.' },
  invalidFilterType: { title: 'Invalid Filter Type', status: 400, message: 'This endpoint has no filter of that name.', suggestion: 'Use one of the filter names in /docs.' },
  timezoneNotNull: { title: 'Timezone Not Null', status: 400, message: 'displayTimezone is missing.', suggestion: 'Add displayTimezone, for example UTC.' },
  invalidTimezone: { title: 'Invalid Timezone', status: 400, message: 'displayTimezone is not the name of an IANA timezone.', suggestion: 'Use a name such as Europe/Bucharest or UTC, spelt as in the IANA database.' },
  invalidSortDirection: { title: 'Invalid Sort Direction', status: 400, message: 'sortDirection is neither ASC nor DESC.', suggestion: 'Use ASC or DESC.' },
  invalidSortField: { title: 'Invalid Sort Field', status: 400, message: 'sortField is not TIME.', suggestion: 'Use TIME, or leave sortField out.' },
  invalidLimit: { title: 'Invalid Limit', status: 400, message: 'limit is not a whole number from 1 to 1000.', suggestion: 'Use a limit from 1 to 1000.' },
  invalidCursor: { title: 'Invalid Cursor', status: 400, message: 'nextPageCursor was not given by this query.', suggestion: 'Send the cursor of the previous page with the same date range and filters, or start without one.' },
  cursorAndSortMismatch: { title: 'Cursor And Sort Mismatch', status: 400, message: 'nextPageCursor belongs to another sort order.', suggestion: 'Keep sortField and sortDirection while you page.' },
  missingPbxForCustomer: { title: 'Missing PBX For Customer', status: 403, message: 'This account has no PBX.', suggestion: 'Have a PBX assigned to the account.' },
  invalidApiPath: { title: 'Invalid Endpoint', status: 404, message: 'There is no such endpoint.', suggestion: 'See /docs for the endpoints.' },
  invalidRequestMethod: { title: 'Invalid Request Method', status: 405, message: 'This endpoint does not take that method.', suggestion: 'Use the method that the Allow header names.' },
} as const satisfies Record<string, ErrorText>;
export type EightByEightCode = keyof typeof EIGHT_BY_EIGHT_ERRORS;

export function isEightByEightCode(text: string): text is EightByEightCode { return Object.hasOwn(EIGHT_BY_EIGHT_ERRORS, text); }

const PUBLISHED_PAGE = 'https://developer.8x8.com/analytics/docs/end-to-end-journey-api';

/** Always a whole one, as in all that is published: clients may parse it. */
function urlOf(code: string, revision: Revision): string {
  if (!isEightByEightCode(code)) return PUBLISHED_PAGE;
  if (revision === 'latest') return `https://docs.8x8.com/error/${code}`;
  return `${PUBLISHED_PAGE}#${EIGHT_BY_EIGHT_ERRORS[code].title.toLowerCase().replaceAll(' ', '-')}-${code.toLowerCase()}`;
}

/** Both revisions' fields at once (1.7): clients of the newer one branch on `errorCode`. */
const errorSchema = z.object({
  errors: z.array(z.object({ message: z.string(), suggestion: z.string(), url: z.string(), errorCode: z.string() })),
});

export function eightByEightProblem(code: EightByEightCode, path: readonly PropertyKey[] = []): Problem {
  const { message, suggestion } = EIGHT_BY_EIGHT_ERRORS[code];
  const attribute = path.map(String).join('.');
  return attribute === '' ? { code, message, suggestion } : { code, message, suggestion, attribute };
}

/** Another bound than the published one (`--max-range`) is told where it is exceeded. */
function problemOfIssue(issue: z.core.$ZodIssue): Problem {
  const found = eightByEightProblem(isEightByEightCode(issue.message) ? issue.message : 'badRequest', issue.path);
  const days: unknown = issue.code === 'custom' ? issue.params?.['days'] : undefined;
  return typeof days !== 'number' ? found : { ...found, message: `The date range is longer than ${String(days)} days.`, suggestion: `Ask for at most ${String(days)} days at once.` };
}

const dialectOf = (revision: Revision): Dialect => ({
  errorSchema,
  print: (problems) => ({
    errors: problems.map(({ code, message, suggestion, attribute }) => ({
      message: attribute === undefined ? message : `${message} (${attribute})`,
      suggestion: suggestion ?? (isEightByEightCode(code) ? EIGHT_BY_EIGHT_ERRORS[code].suggestion : 'See /docs.'),
      url: urlOf(code, revision),
      errorCode: code,
    })),
  }),
  problemsOf: (error) => error.issues.map(problemOfIssue),
  problemOf: (code) => (isEightByEightCode(code) ? eightByEightProblem(code) : null),
  renamed: { unknownPath: 'invalidApiPath', methodNotAllowed: 'invalidRequestMethod', malformedJson: 'malformedRequest' },
});

export const eightByEight: Readonly<Record<Revision, Dialect>> = { seed: dialectOf('seed'), latest: dialectOf('latest') };

// ---- requests --------------------------------------------------------------------------------------------------------

const coded = (missing: EightByEightCode, wrong: EightByEightCode = 'badRequest') => ({
  error: (issue: { readonly input?: unknown }): string => (issue.input === undefined || issue.input === null ? missing : wrong),
});

/** What the requests and answers depend on. */
export interface SearchOptions {
  readonly revision: Revision;
  /** The longest range of one search; the published document has 60 days. */
  readonly maxRangeDays: number;
}
const DAY_MS = 86_400_000;

/** Reading 3: `Z` or `±hh:mm`; seconds may be missing, as ISO 8601 and the platform's own parser have it, which knows no leap second and no more than nine digits of fraction. */
export function parseRangeDate(text: string): Instant | null {
  if (/:60|\.\d{10}/.test(text)) return null;
  return parseInstant(text.replace(/^(\d{4}-\d\d-\d\dT\d\d:\d\d)(Z|[+-]\d\d:\d\d)$/, '$1:00$2'));
}

const date = (missing: EightByEightCode): z.ZodString => z.string(coded(missing)).refine((text) => parseRangeDate(text) !== null, 'iso8061WithTzFormat')
  .meta({ format: 'date-time', examples: ['2025-05-19T08:00:00+03:00'] });

const dateRangeOf = (maxRangeDays: number) => z.object({ start: date('startRangeNotNull'), end: date('endRangeNotNull') }, coded('dateRangeNotNull', 'malformedRequest')).superRefine(({ start, end }, context) => {
  const from = parseRangeDate(start);
  const to = parseRangeDate(end);
  if (from === null || to === null) return;
  // Reading 2: elapsed time; exactly so many days pass. Reading 4: start = end is a range.
  if (from > to) context.addIssue({ code: 'custom', message: 'endDateBeforeStartDate' });
  else if (msOf(to) - msOf(from) > maxRangeDays * DAY_MS) context.addIssue({ code: 'custom', message: 'maxInterval', params: { days: maxRangeDays } });
}).meta({ description: `Journeys that start inside it, both ends included; at most ${String(maxRangeDays)} days.` });

function filterOf(names: readonly string[]) {
  const known: ReadonlySet<string> = new Set(names);
  return z.object({
    name: z.string(coded('badRequest')).refine((name) => known.has(name), 'invalidFilterType').meta({ enum: [...names] }),
    values: z.array(z.string(coded('badRequest')), coded('filterValuesNotEmpty', 'malformedRequest')).min(1, 'filterValuesNotEmpty'),
  }, { error: 'malformedRequest' });
}

/** A search's body. Unknown fields are ignored (reading 18); null means left out. */
export function searchRequest(filterNames: readonly string[], { revision, maxRangeDays }: SearchOptions) {
  const filters = z.array(filterOf(filterNames), { error: 'malformedRequest' });
  // Spelt out, because a pattern of JSON Schema has no flag for it.
  const isDirection = revision === 'latest' ? /^(?:ASC|DESC)$/ : /^(?:[Aa][Ss][Cc]|[Dd][Ee][Ss][Cc])$/;
  return z.object({
    dateRange: dateRangeOf(maxRangeDays),
    displayTimezone: z.string(coded('timezoneNotNull')).refine(isTimezone, 'invalidTimezone').meta({ description: 'IANA name; changes how times are printed and nothing else.', examples: ['Europe/Bucharest'] }),
    // Reading 1: left out means no filter; present and empty is an error, unless the newest revision is asked for.
    filters: (revision === 'latest' ? filters : filters.min(1, 'filtersNotEmpty')).nullish().meta({ description: 'All filters must match; within one filter any of its values.' }),
    // Reading 8: any number outside is invalidLimit (1e999 too, which JSON.parse makes infinite), any other type badRequest.
    limit: z.number({ error: ({ input }) => (typeof input === 'number' ? 'invalidLimit' : 'badRequest') }).refine((limit) => Number.isInteger(limit) && limit >= 1 && limit <= 1000, 'invalidLimit').meta({ type: 'integer', minimum: 1, maximum: 1000, default: 100 }).nullish(),
    nextPageCursor: z.string(coded('badRequest')).nullish().meta({ description: 'As the previous page gave it; send it with an otherwise unchanged request (limit and displayTimezone may change).' }),
    sortField: z.string(coded('badRequest')).refine((field) => field === 'TIME', 'invalidSortField').meta({ enum: ['TIME'] }).nullish(),
    // Reading 6: case-insensitive, as the published error text has it; the newest revision takes upper case alone.
    sortDirection: z.string(coded('badRequest')).refine((direction) => isDirection.test(direction), 'invalidSortDirection').meta({ ...(revision === 'latest' ? { enum: ['ASC', 'DESC'] } : { pattern: isDirection.source }), description: 'ASC when left out.', examples: ['DESC'] }).nullish(),
  }, { error: 'malformedRequest' });
}
export type SearchRequest = z.output<ReturnType<typeof searchRequest>>;

// ---- answers ---------------------------------------------------------------------------------------------------------

const text = z.string().nullable();
const time = z.string().meta({ format: 'date-time' });
const site = z.object({ id: text, name: text }).nullable();
const place = z.object({ id: text, name: text, extension: text, site });
export const agentAnswer = z.object({
  id: z.string(), subscriptionId: text, name: text, email: text, loginId: text, department: text,
  group: z.object({ id: text, name: text }).nullable(), site, type: z.enum(['HUMAN', 'AI']).nullable(),
});
const endpointFields = { type: z.string(), id: text, name: text, phoneNumber: text, extension: text, email: text, loginId: text, department: text, pbx: text };

const SEED_OUTCOMES = ['Handled', 'Abandoned', 'EndedInScript', 'Other', 'UnknownOutcome'] as const;
export const OUTCOMES = [
  ...SEED_OUTCOMES,
  'ForwardedToExternalNumber', 'Voicemail', 'CallbackRequested', 'CallbackNoAnswer', 'CallbackExpired',
] as const;
type Outcome = (typeof OUTCOMES)[number];

/** The seed's five: what the newest revision tells apart is Other there (1.8). */
export function seedOutcome(outcome: Outcome): Outcome { return (SEED_OUTCOMES as readonly string[]).includes(outcome) ? outcome : 'Other'; }
/** What a value of the filter `outcome` stands for: in the seed Other is all that it shows as Other, and the newer names are taken as well. */
export function outcomesOfFilter(revision: Revision, value: string): readonly string[] {
  return revision === 'seed' && value === 'Other' ? OUTCOMES.filter((outcome) => seedOutcome(outcome) === 'Other') : [value];
}
export const TRANSITION_NAMES = [
  'STARTED', 'OUTBOUND_STARTED', 'IN_SCRIPT', 'WAITING', 'TALKING', 'HOLD', 'FORWARD', 'TRANSFER', 'VOICEMAIL', 'FOLLOWUP_PENDING', 'PROCESSING', 'FINISHED',
] as const;

/** The published fields in the published order (1.8). */
export const journeyAnswer = z.object({
  time: time.meta({ description: 'Start of the journey, in displayTimezone.' }),
  finishedTime: time.nullable().meta({ description: 'Null while it is open.' }),
  journeyId: z.string(),
  interactions: z.array(z.object({ id: z.string(), direction: text, type: text })),
  agents: z.array(agentAnswer),
  contact: z.object({ name: text, phoneNumber: text, email: text }),
  entryPoint: z.object({ ...endpointFields, tenantId: text, site }).nullable(),
  direction: z.enum(['Inbound', 'Outbound', 'Internal']).nullable(),
  transfersCompleted: z.int(),
  forwardedToQueue: z.int(),
  forwardedToRingGroup: z.int(),
  forwardedToScript: z.int(),
  holdDuration: z.number().meta({ description: 'Milliseconds.' }),
  mediaTypes: z.array(z.string()),
  outcome: z.enum(OUTCOMES),
  origin: z.object({ ...endpointFields, site }).nullable(),
  pbxNames: z.array(z.string()),
  queues: z.array(place),
  ringGroups: z.array(place),
  scheduleHours: z.array(z.string()),
  schedules: z.array(z.object({ id: text, tag: text, tenantId: text, result: z.string() })),
  tenantIds: z.array(z.string()),
  wrapUpCodes: z.array(z.string()),
  outboundPhoneCodes: z.array(z.object({ listName: text, name: text, shortCode: text })),
  aiAgentInformation: z.object({ creditConsumption: z.number(), toolsUsedSuccessfully: z.array(z.object({ name: z.string(), success: z.boolean() })) }).optional(),
});
export type JourneyAnswer = z.output<typeof journeyAnswer>;

/** 1.9. `duration` is null while the state is still open: no answer depends on when it is asked. */
export const transitionAnswer = z.object({
  time,
  name: z.enum(TRANSITION_NAMES),
  interactionId: z.string(),
  agents: z.array(agentAnswer),
  previousAgents: z.array(agentAnswer),
  previousQueue: place.nullable(),
  previousRingGroup: place.nullable(),
  queue: place.nullable(),
  ringGroup: place.nullable(),
  duration: z.number().nullable().meta({ description: 'Milliseconds in this state; 0 for markers, null while it is open.' }),
  externalNumber: text,
  mediaType: text,
  autoAttendant: place.nullable(),
  channel: place.nullable(),
  scripts: z.array(z.object({ id: text, name: text })),
});
export type TransitionAnswer = z.output<typeof transitionAnswer>;
export const timelineAnswer = z.object({ journeyId: z.string(), transitions: z.array(transitionAnswer) });

export function pageOf<T extends z.ZodType>(row: T) {
  return z.object({
    data: z.array(row),
    nextPageCursor: z.string().nullable().meta({ description: 'Null on the last page.' }),
    totalElements: z.int().meta({ description: 'How many match in all, as counted for the first page.' }),
  });
}

// ---- endpoints -------------------------------------------------------------------------------------------------------

const REFUSALS: readonly EightByEightCode[] = [
  'badRequest', 'dateRangeNotNull', 'startRangeNotNull', 'endRangeNotNull', 'endDateBeforeStartDate', 'iso8061WithTzFormat', 'maxInterval',
  'filterValuesNotEmpty', 'invalidFilterType', 'timezoneNotNull', 'invalidTimezone', 'invalidSortDirection', 'invalidSortField', 'invalidLimit', 'invalidCursor', 'cursorAndSortMismatch',
];
/** Gone from the newest revision. */
const SEED_REFUSALS: readonly EightByEightCode[] = ['filtersNotEmpty', 'invalidPbx', 'invalidTenant', 'missingPbxForCustomer'];
/** Whatever is asked for under it is answered in this dialect. */
export const EIGHT_BY_EIGHT_PREFIX = '/cidp/journey/api';
export const EIGHT_BY_EIGHT_PATH = `${EIGHT_BY_EIGHT_PREFIX}/v1`;

interface SearchSpec { readonly name: string; readonly path: string; readonly summary: string; readonly description: string; readonly filterNames: readonly string[]; readonly row: z.ZodType; readonly explode?: string; readonly filters: readonly { readonly name: string; readonly values: readonly string[] }[]; readonly example: unknown }

function search(of: SearchSpec, options: SearchOptions) {
  const body = searchRequest(of.filterNames, options);
  return endpoint({
    name: of.name, method: 'POST', path: `${EIGHT_BY_EIGHT_PATH}/${of.path}/search`, tag: '8x8 End-to-End Journey API', summary: of.summary, description: of.description,
    dialect: eightByEight[options.revision], access: 'key', limited: true, reads: ['journeys'], params: z.object({}), query: z.object({}),
    body: { kind: 'json', schema: body },
    answer: { schema: pageOf(of.row), mediaType: 'application/json', example: of.example },
    list: of.explode === undefined ? { row: of.row } : { row: of.row, explode: of.explode },
    refusals: options.revision === 'seed' ? [...REFUSALS, ...SEED_REFUSALS] : REFUSALS,
    requestExample: {
      dateRange: { start: '2026-03-02T08:00:00+02:00', end: '2026-03-02T18:00:00+02:00' }, filters: of.filters, displayTimezone: 'Europe/Bucharest', limit: 50, sortDirection: 'DESC',
    },
  } satisfies Endpoint);
}

const MARA: z.output<typeof agentAnswer> = { id: 'ag-7', subscriptionId: null, name: 'Mara Ionescu', email: 'mara@shop.example', loginId: 'mara', department: 'Service', group: { id: '101', name: 'First line' }, site: null, type: 'HUMAN' };
const SUPPORT: z.output<typeof place> = { id: 'q-support', name: 'Support', extension: null, site: null };
const EXAMPLE_ID = '7b2429440d15183af1044dd47f1d447d';
const INTERACTION_ID = 'int-19cad2c5a80-Zq-phone-01-shop';

const JOURNEY_EXAMPLE: JourneyAnswer = {
  time: '2026-03-02T11:00:00+02:00', finishedTime: '2026-03-02T11:04:10.500+02:00', journeyId: EXAMPLE_ID, interactions: [{ id: INTERACTION_ID, direction: 'Inbound', type: 'Contact Center' }],
  agents: [MARA], contact: { name: 'Ana Pop', phoneNumber: '+15550100100', email: null },
  entryPoint: { type: 'cc-channel', id: 'ch-1', name: 'Main line', phoneNumber: '+15550100199', extension: null, email: null, loginId: null, department: null, pbx: null, tenantId: 'shop', site: null },
  direction: 'Inbound', transfersCompleted: 0, forwardedToQueue: 1, forwardedToRingGroup: 0, forwardedToScript: 0, holdDuration: 0, mediaTypes: ['Phone'], outcome: 'Handled', origin: null, pbxNames: [],
  queues: [SUPPORT], ringGroups: [], scheduleHours: ['Open'], schedules: [], tenantIds: ['shop'], wrapUpCodes: ['Question'], outboundPhoneCodes: [],
};

function transitionExample(time: string, name: TransitionAnswer['name'], duration: number, given: Partial<TransitionAnswer> = {}): TransitionAnswer {
  return {
    time, name, interactionId: INTERACTION_ID, agents: [], previousAgents: [], previousQueue: null, previousRingGroup: null, queue: null, ringGroup: null, duration,
    externalNumber: null, mediaType: 'Phone', autoAttendant: null, channel: null, scripts: [], ...given,
  };
}

const TIMELINE_EXAMPLE: z.output<typeof timelineAnswer> = {
  journeyId: EXAMPLE_ID,
  transitions: [
    transitionExample('2026-03-02T11:00:00+02:00', 'STARTED', 0),
    transitionExample('2026-03-02T11:00:00+02:00', 'WAITING', 42_500, { queue: SUPPORT }),
    transitionExample('2026-03-02T11:00:42.500+02:00', 'TALKING', 208_000, { agents: [MARA] }),
    transitionExample('2026-03-02T11:04:10.500+02:00', 'FINISHED', 0),
  ],
};

/** The two searches; the filters are those that the projection indexes. */
export function eightByEightEndpoints(filters: { readonly journeys: readonly string[]; readonly transitions: readonly string[] }, options: SearchOptions) {
  const journeyRow = options.revision === 'latest' ? journeyAnswer : journeyAnswer.extend({ outcome: z.enum(SEED_OUTCOMES) });
  return {
    searchJourneys: search({
      name: 'searchJourneys', path: 'journeys', filterNames: filters.journeys, row: journeyRow,
      summary: 'Journeys that started in a range, one row each',
      description: 'Filters are exact and case-sensitive (mediaTypes alone folds case). Journeys that are still open are included, with a provisional outcome.',
      filters: [{ name: 'mediaTypes', values: ['Phone', 'Chat'] }, { name: 'direction', values: ['Inbound'] }], example: { data: [JOURNEY_EXAMPLE], nextPageCursor: null, totalElements: 1 },
    }, options),
    searchTransitions: search({
      name: 'searchTransitions', path: 'transitions', filterNames: filters.transitions, row: timelineAnswer, explode: 'transitions',
      summary: 'Whole timelines of journeys that started in a range',
      description: 'Several transitions.* filters must hold in one and the same transition; every journey that has such a transition is returned with all of its transitions. limit, cursor and totalElements count journeys.',
      filters: [{ name: 'transitions.name', values: ['TALKING'] }, { name: 'transitions.agents.name', values: ['Mara Ionescu'] }], example: { data: [TIMELINE_EXAMPLE], nextPageCursor: null, totalElements: 1 },
    }, options),
  };
}
