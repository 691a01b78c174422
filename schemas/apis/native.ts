// Our own endpoints: publish, journeys of a customer, history, outcomes, sources, persons, and what operators' tools read.
// Codes, requests and answers as data; the handlers are in services/api/.
import { z } from 'zod';
import { journeyAnswer, OUTCOMES, pageOf, TRANSITION_NAMES, transitionAnswer } from './eightbyeight.ts';
import { REJECTION_CODES } from '../cloudevent.ts';
import { type Dialect, endpoint, type Problem, WRITE_REFUSALS } from './openapi.ts';
import { isTimezone } from './timezones.ts';
import { parseInstant } from '../time.ts';

interface CodeText { readonly status: number; readonly message: string }

/** Every code of ours that is not a rejected event's (those are schemas/cloudevent.ts's, and 400). */
export const NATIVE_CODES = {
  unauthorized: { status: 401, message: 'A valid key is required, in x-api-key or as Authorization: Bearer.' },
  unknownPath: { status: 404, message: 'There is no such endpoint; see /docs.' },
  methodNotAllowed: { status: 405, message: 'This endpoint does not take that method; see the Allow header.' },
  malformedUrl: { status: 400, message: 'The URL is not properly percent-encoded.' },
  malformedRequest: { status: 400, message: 'This is not HTTP as RFC 9112 defines it.' },
  requestTimeout: { status: 408, message: 'The request did not arrive in time.' },
  headersTooLarge: { status: 431, message: 'The request line and headers are larger than 16 KiB.' },
  malformedJson: { status: 400, message: 'The body is not JSON.' },
  badRequest: { status: 400, message: 'A parameter or field has the wrong type or value.' },
  missingParameter: { status: 400, message: 'A required parameter is missing.' },
  unknownParameter: { status: 400, message: 'This endpoint has no such parameter.' },
  invalidTimezone: { status: 400, message: 'Not the name of an IANA timezone.' },
  invalidRange: { status: 400, message: 'from must be before to.' },
  rangeTooLong: { status: 400, message: 'The range is longer than this endpoint takes.' },
  tooManyJourneys: { status: 400, message: 'More journeys match than are read for one answer: ask for a shorter range or with more filters.' },
  tooManyTransitions: { status: 400, message: 'The journeys that match have more transitions together than are read for one answer: ask for a shorter range or with more filters.' },
  tooManyRows: { status: 400, message: 'The answer would have more than 10,000 rows: ask for a shorter range, longer periods or fewer groups.' },
  invalidCursor: { status: 400, message: 'The cursor was not given by this query.' },
  cursorAndSortMismatch: { status: 400, message: 'The cursor belongs to another sort order.' },
  badPosition: { status: 400, message: 'Throughline-Min-Position is not a position as Throughline-Position states it.' },
  foreignPosition: { status: 400, message: 'Throughline-Min-Position is of another event store.' },
  positionPastHead: { status: 400, message: 'Throughline-Min-Position is past the end of the log.' },
  bodyTooLarge: { status: 413, message: 'The body is larger than this endpoint takes.' },
  unsupportedMediaType: { status: 415, message: 'This endpoint does not take that content type or encoding.' },
  unknownJourney: { status: 404, message: 'There is no such journey.' },
  unknownPerson: { status: 404, message: 'There is no such person.' },
  unknownIdentity: { status: 404, message: 'Nothing is known of that identity.' },
  notYet: { status: 412, message: 'The view has not reached Throughline-Min-Position yet.' },
  rateLimited: { status: 429, message: 'This key has asked as often as its rate limit allows.' },
  overloaded: { status: 503, message: 'More is under way here than this server takes on at a time; ask again after Retry-After.' },
  starting: { status: 503, message: 'This server is still starting; /readyz says what it waits for.' },
  building: { status: 503, message: 'The view is being built.' },
  viewsUnavailable: { status: 503, message: 'The view cannot be read now.' },
  publishUnavailable: { status: 503, message: 'This server does not take events.' },
  internal: { status: 500, message: 'Something went wrong here; it has been logged.' },
} as const satisfies Record<string, CodeText>;
export type NativeCode = keyof typeof NATIVE_CODES;

export function isNativeCode(text: string): text is NativeCode { return Object.hasOwn(NATIVE_CODES, text); }

export function nativeProblem(code: NativeCode, given: Omit<Partial<Problem>, 'code'> = {}): Problem {
  return { message: NATIVE_CODES[code].message, ...given, code };
}

export const nativeError = z.object({
  errors: z.array(z.looseObject({ code: z.string(), message: z.string(), attribute: z.string().optional() })),
});

export const native: Dialect = {
  errorSchema: nativeError,
  print: (problems) => ({ errors: problems.map(({ code, message, attribute, more }) => ({ code, ...(attribute === undefined ? {} : { attribute }), message, ...more })) }),
  problemsOf: (error) => error.issues.flatMap((issue) => {
    const attribute = issue.path.map(String).join('.');
    if (issue.code === 'unrecognized_keys') return issue.keys.map((key) => nativeProblem('unknownParameter', { attribute: key }));
    const [code = '', what] = issue.message.split(': ', 2);
    return [nativeProblem(isNativeCode(code) ? code : 'badRequest', { ...(attribute === '' ? {} : { attribute }), ...(what === undefined ? {} : { message: `${attribute} ${what}.` }) })];
  }),
  problemOf: (code) => (isNativeCode(code) ? nativeProblem(code) : null),
  renamed: {},
};

// ---- parameters ------------------------------------------------------------------------------------------------------

/** A `badRequest` that says what is taken instead. Never quotes what came: it may be a customer's. */
const wrong = (what: string): string => `badRequest: ${what}`;
/** Of a parameter that takes one text: what comes twice is none. */
const unless = (what: string) => ({ error: ({ input }: { readonly input?: unknown }): string => (input === undefined ? 'missingParameter' : wrong(Array.isArray(input) ? 'is given more than once' : what)) });
const word = (what: string): z.ZodString => z.string(unless(what));
function oneOf<const T extends readonly string[]>(values: T) {
  return z.enum(values, unless(`must be ${values.slice(0, -1).join(', ')} or ${values.at(-1) ?? ''}`)).optional();
}
const LIMIT_MAX = 1000;
const WHOLE = `must be a whole number from 1 to ${String(LIMIT_MAX)}`;
function limitOf(normal: number, description: string) {
  return word(WHOLE).refine((text) => /^\d{1,4}$/.test(text) && Number(text) >= 1 && Number(text) <= LIMIT_MAX, wrong(WHOLE))
    .meta({ type: 'integer', minimum: 1, maximum: LIMIT_MAX, default: normal, description }).optional();
}

const NAMED = 'must be a text of 1 to 1024 characters';
const identity = word(NAMED).min(1, wrong(NAMED)).max(1024, wrong(NAMED)).meta({ description: 'An e-mail address, phone number, customer id … of the customer, in any spelling.', examples: ['ana@example.com'] });
const TYPED = 'must be a text of 1 to 256 characters, or be left out';
const identitytype = word(TYPED).min(1, wrong(TYPED)).max(256, wrong(TYPED)).optional().meta({ description: 'Its type; left out, the well-known types are tried: email, phone, customer ids, browser ids; any other has to be named.', examples: ['email'] });
const limit = limitOf(100, 'At most so many rows.');
const cursor = word('must be the nextPageCursor of a page').optional().meta({ description: '`nextPageCursor` of the previous page.' });
const timezone = word('must be the name of an IANA timezone').refine(isTimezone, 'invalidTimezone').optional().meta({ description: 'IANA name; UTC when left out.', examples: ['Europe/Bucharest'] });
const sort = oneOf(['asc', 'desc']).meta({ description: 'By time.' });
const INSTANT = 'must be an instant with its offset from UTC, such as 2026-03-02T00:00:00Z or 2026-03-02T00:00:00%2B02:00 (in a URL, + stands for a space)';
const instant = (example: string, description: string) => word(INSTANT).refine((text) => parseInstant(text) !== null, wrong(INSTANT)).meta({ format: 'date-time', examples: [example], description });
const range = { from: instant('2026-03-02T00:00:00Z', 'First instant of the range, with its offset from UTC.'), to: instant('2026-03-03T00:00:00Z', 'Its end, which is not in it.') };
const flag = oneOf(['true', 'false']);

export const GROUPINGS = ['outcome', 'queue', 'medium', 'direction'] as const;
export type Grouping = (typeof GROUPINGS)[number];
const GROUPED = `must be any of ${GROUPINGS.join(', ')}, separated by commas alone`;
const grouping = word(GROUPED).refine((text) => text.split(',').every((name) => (GROUPINGS as readonly string[]).includes(name)), wrong(GROUPED))
  .meta({ description: `Any of ${GROUPINGS.join(', ')}, separated by commas. A journey counts once: under its last queue, its first medium and its own direction and outcome, whatever queues a filter names.`, examples: ['queue,outcome'] }).optional();

/** Sequences that `/paths` tells unless it is asked for another number. */
export const SEQUENCES = 20;

const none = z.strictObject({});

const FILTER_VALUES_MAX = 1000;
/** Empty too: a department may be. */
const filterValue = z.string();
/** A filter of a search as a parameter, said once for each of its values. */
const filterParameter = z.union([filterValue, z.array(filterValue).min(1).max(FILTER_VALUES_MAX)], { error: wrong(`takes at most ${String(FILTER_VALUES_MAX)} values`) }).optional()
  .meta({ type: 'array', anyOf: undefined, items: { type: 'string' }, description: 'A filter of the searches: any of its values; all filters must match, and those of transitions on one and the same transition.' });
type FilterParameter = typeof filterParameter;

// ---- answers ---------------------------------------------------------------------------------------------------------

const text = z.string().nullable();
const time = z.string().meta({ format: 'date-time' });
const position = z.string().meta({ description: '`<store id>.<position>`, for Throughline-Min-Position.' });

const result = z.enum(['recorded', 'duplicate']);
const dryRunAnswer = z.object({
  id: z.string(), eventId: z.string(), result: z.literal('dryRun'), stream: z.string(), at: time, vocabulary: text.meta({ description: 'Which vocabulary reads it; null: none.' }),
  facts: z.array(z.looseObject({ kind: z.string() })), reason: z.object({ code: z.string(), message: z.string() }).nullable().meta({ description: 'Why no facts came out.' }),
});
const publishAnswer = z.union([
  z.object({ id: z.string(), eventId: z.string(), result, stream: z.string(), position: position.nullable() }),
  z.object({
    results: z.array(z.object({
      index: z.int(), id: z.string().optional(), eventId: z.string().optional(), result: z.enum(['recorded', 'duplicate', 'rejected', 'dryRun']), stream: z.string().optional(), position: position.nullable().optional(),
      code: z.string().optional(), attribute: text.optional(), message: z.string().optional(),
    }).loose()),
    recorded: z.int(), duplicate: z.int(), rejected: z.int(),
  }),
  dryRunAnswer,
]);

export const participantAnswer = z.object({
  role: z.enum(['customer', 'agent', 'supervisor', 'bot', 'treatment']), id: z.string(), interactionId: z.string(), name: text, agentId: text,
  joined: time, held: z.array(z.object({ from: time, to: time.nullable() })), dropped: time.nullable(),
});
export const journeyDetail = journeyAnswer.extend({
  waitingDuration: z.number(), talkingDuration: z.number(), wrapUpDuration: z.number(),
  topics: z.array(z.string()), data: z.record(z.string(), z.string()), attributes: z.array(z.string()),
  truncated: z.boolean().meta({ description: 'Facts past a limit were left out.' }),
  participants: z.array(participantAnswer),
  transitions: z.array(transitionAnswer.extend({ events: z.array(z.string()).meta({ description: 'Ids of the recorded events behind it, the first ten.' }) })),
});

export const historyEntry = z.object({
  eventId: z.string(), recordedtime: time, position,
  event: z.looseObject({
    specversion: z.string(), id: z.string(), source: z.string(), type: z.string(), time: time.optional(), subject: z.string().optional(),
    identity: z.string().optional(), identitytype: z.string().optional(), previousidentity: z.string().optional(), previousidentitytype: z.string().optional(), datacontenttype: z.string().optional(), dataschema: z.string().optional(), data: z.unknown().optional(), data_base64: z.string().optional(),
  }).meta({ description: 'The CloudEvent, verbatim.' }),
});

const quantiles = z.object({ p50: z.number().nullable(), p90: z.number().nullable() }).meta({ description: 'Seconds: the upper bound of the histogram bucket; null where nothing was measured or it is past the last bound.' });
export const outcomeRow = z.object({
  from: time, to: time,
  outcome: z.enum(OUTCOMES).optional(), queue: z.object({ id: text, name: text }).nullable().optional(), medium: text.optional(), direction: text.optional(),
  journeys: z.int(), handled: z.int(), abandoned: z.int(),
  abandonmentRate: z.number().nullable().meta({ description: 'abandoned / (handled + abandoned); null where neither.' }),
  serviceLevels: z.record(z.string(), z.number()).nullable().meta({ description: 'Bound in seconds → share of handled + abandoned journeys that were handled after waiting at most that long. A call out waited for nobody: direction=Inbound leaves those aside.' }),
  waiting: quantiles, talking: quantiles, hold: quantiles,
});

const ms = z.number().nullable();
const closed = z.number().meta({ description: 'Milliseconds in such states as are over.' });
/** The metrics that 8x8's API had until December 2025 (journey-apis-facts.md 1.1), under the names of the states; milliseconds. */
export const durationRow = z.object({
  journeyId: z.string(), time, finishedTime: time.nullable(), direction: text, mediaTypes: z.array(z.string()), outcome: z.enum(OUTCOMES),
  agents: z.array(text).meta({ description: 'Names, or ids where none is known.' }), queues: z.array(text),
  scriptDuration: closed, waitingDuration: closed, queueWaitDuration: z.number().meta({ description: 'Of the waiting, that in queues; milliseconds.' }),
  ringGroupWaitDuration: z.number().meta({ description: 'Of the waiting, that for ring groups; milliseconds.' }), talkingDuration: closed, holdDuration: closed,
  processingDuration: z.number().meta({ description: 'Voicemails and the like worked on, wrap-up included; milliseconds.' }), wrapUpDuration: closed,
  handlingDuration: z.number().meta({ description: 'Talking, hold, processing and wrap-up; milliseconds.' }),
  totalDuration: ms.meta({ description: 'From the start to the end, milliseconds; null while it is open.' }),
});
const transitionDurations = z.object({
  time, name: z.enum(TRANSITION_NAMES), interactionId: z.string(), agents: z.array(text), queue: text, ringGroup: text,
  waitingDuration: ms, talkingDuration: ms, holdDuration: ms, processingDuration: ms, wrapUpDuration: ms, totalDuration: ms,
});
export const transitionDurationRow = z.object({
  journeyId: z.string(),
  transitions: z.array(transitionDurations).meta({ description: 'Each with the duration of its state under that state\'s name, the work of agents who left the conversation in it as wrapUpDuration, and both together as totalDuration; null where it is no such state, or still open.' }),
});

const state = z.enum(TRANSITION_NAMES);
const counted = { journeys: z.int(), share: z.number().meta({ description: 'Of the journeys that match, 0 to 1.' }), medianDuration: ms };
export const pathStep = z.object({ from: state, to: state, count: z.int().meta({ description: 'How often `to` follows `from`.' }), ...counted }).meta({ description: 'medianDuration: milliseconds from entering `from` to entering `to`.' });
export const pathSequence = z.object({ states: z.array(state), ...counted, outcome: z.enum(OUTCOMES), outcomes: z.record(z.string(), z.int()) })
  .meta({ description: 'medianDuration: of those that have ended, milliseconds from start to end. outcome: the commonest; outcomes: all, counted. A timeline of more than 64 states is cut there.' });
/** A step or a sequence as a line. */
const pathRow = z.object({
  kind: z.enum(['step', 'sequence']), from: state.nullable(), to: state.nullable(), states: z.array(state), count: z.int().nullable(), journeys: counted.journeys, share: counted.share, medianDuration: ms, outcome: z.enum(OUTCOMES).nullable(),
});

export const sourceRow = z.object({
  source: z.string(), recorded: z.int(), duplicates: z.int(), reusedIds: z.int(),
  rejected: z.record(z.string(), z.int()), lateness: z.record(z.string(), z.int()).meta({ description: 'Upper bound in seconds → deliveries; inf: later.' }), lastSeen: time,
});

export const personAnswer = z.object({
  personId: z.string(), firstName: text, lastName: text, name: text,
  aliases: z.array(z.object({ key: z.string(), type: z.string(), value: z.string(), firstSeen: time })),
  evidence: z.array(z.object({ a: z.string(), b: z.string(), strength: z.string(), at: time, eventId: z.string() })).meta({ description: 'Why they are one: `a` and `b` are keys of aliases.' }),
  refused: z.array(z.object({ a: z.string(), b: z.string(), reason: z.string(), at: time, eventId: z.string() })),
});

const json = 'application/json';
const example = { specversion: '1.0', id: '8f0c', source: 'https://voice.example.com/events', type: 'org.throughline.interaction.started', time: '2026-03-02T09:00:00Z', identity: 'ana@example.com', identitytype: 'email', data: { interactionId: 'call-1', direction: 'Inbound', medium: 'Phone' } };

// ---- endpoints -------------------------------------------------------------------------------------------------------

export interface NativeOptions {
  /** Names of the filters that the searches take. */
  readonly filters: readonly string[];
  /** The longest range of durations and paths, and of outcomes where it is more than 400 days. */
  readonly maxRangeDays: number;
}
/** Outcomes are counted as they come, so that a range of them costs little. */
export const OUTCOME_DAYS_MAX = 400;
/** Journeys read for one answer that is counted from them. */
export const JOURNEYS_READ_MAX = 100_000;
/** Their transitions: each takes some 10 bytes until its median is known. */
export const TRANSITIONS_READ_MAX = 5_000_000;

const RANGE_REFUSALS = ['badRequest', 'missingParameter', 'unknownParameter', 'invalidTimezone', 'invalidRange', 'rangeTooLong'] as const;

export function nativeEndpoints({ filters, maxRangeDays }: NativeOptions) {
  const filterParameters = Object.fromEntries(filters.map((name) => [name, filterParameter])) as Readonly<Record<string, FilterParameter>>;
  const rangeText = `Of journeys that start in [from, to), at most ${String(maxRangeDays)} days. Every filter of the two searches is a parameter here, given once for each of its values.`;
  return {
    publishEvents: endpoint({
      name: 'publishEvents', method: 'POST', path: '/events', tag: 'Publish', summary: 'Publish CloudEvents',
      description: 'Answers when the events are durable. A single event that is rejected is answered with 400; a batch is answered element by element, and one bad element fails no other. With dryRun=true nothing is stored: the answer says which facts would come out and why none.',
      dialect: native, access: 'key', reads: [], params: none, query: z.strictObject({ dryRun: flag }), body: { kind: 'cloudevents' },
      answer: { schema: publishAnswer, mediaType: json }, list: null, refusals: ['badRequest', 'unknownParameter', 'publishUnavailable', 'streamDeleted', ...WRITE_REFUSALS, ...Object.keys(REJECTION_CODES)], requestExample: example,
    }),
    getJourney: endpoint({
      name: 'getJourney', method: 'GET', path: '/journeys/{id}', tag: 'Journeys', summary: 'One journey with its timeline and participants',
      description: 'Every id that the journey ever had answers: its explicit ids and those of the journeys that it was joined from.',
      dialect: native, access: 'key', reads: ['journeys'], params: z.strictObject({ id: z.string().max(2048).meta({ examples: ['0f8e6c2b9d7a41c3a5e2b1f09c8d7e6f'] }) }), query: z.strictObject({ timezone }), body: { kind: 'none' },
      answer: { schema: journeyDetail, mediaType: json }, list: null, refusals: ['unknownJourney', 'invalidTimezone', 'unknownParameter'],
    }),
    listJourneys: endpoint({
      name: 'listJourneys', method: 'GET', path: '/journeys', tag: 'Journeys', summary: 'Journeys of a customer',
      description: 'Of the person that the identity is part of: journeys of every alias, newest first.',
      dialect: native, access: 'key', reads: ['persons', 'journeys'], params: none,
      query: z.strictObject({ identity, identitytype, limit, cursor, sort, timezone }), body: { kind: 'none' },
      answer: { schema: pageOf(journeyAnswer).extend({ personId: text }), mediaType: json }, list: { row: journeyAnswer },
      refusals: ['badRequest', 'missingParameter', 'unknownParameter', 'unknownIdentity', 'invalidCursor', 'cursorAndSortMismatch', 'invalidTimezone'],
    }),
    getHistory: endpoint({
      name: 'getHistory', method: 'GET', path: '/history', tag: 'History', summary: 'Everything recorded of a customer, verbatim',
      description: 'The recorded events of every alias of the person, in order of their time, each once. A page may hold fewer than `limit` entries where they are large.',
      dialect: native, access: 'key', reads: ['persons'], params: none, query: z.strictObject({ identity, identitytype, limit, cursor, sort }), body: { kind: 'none' },
      answer: { schema: z.object({ personId: text, data: z.array(historyEntry), nextPageCursor: text }), mediaType: json }, list: { row: historyEntry },
      refusals: ['badRequest', 'missingParameter', 'unknownParameter', 'unknownIdentity', 'invalidCursor', 'cursorAndSortMismatch'],
    }),
    getOutcomes: endpoint({
      name: 'getOutcomes', method: 'GET', path: '/outcomes', tag: 'Outcomes', summary: 'Journeys counted by outcome over time',
      description: 'By the start of the journey. `from` is floored and `to` raised to a quarter of an hour; `to` is not included. Days and hours are those of the timezone, so that a day may have 23 or 25 hours. Every filter of the two searches is a parameter here; with others than outcome and direction the journeys that match are read, at most 100,000.',
      dialect: native, access: 'key', reads: ['journeys'], params: none,
      query: z.strictObject({ ...range, by: oneOf(['quarter', 'hour', 'day']).meta({ default: 'day' }), timezone, group: grouping, ...filterParameters }), body: { kind: 'none' },
      answer: { schema: z.object({ data: z.array(outcomeRow), total: outcomeRow }), mediaType: json }, list: { row: outcomeRow },
      refusals: [...RANGE_REFUSALS, 'tooManyRows', 'tooManyJourneys'],
    }),
    getDurations: endpoint({
      name: 'getDurations', method: 'GET', path: '/durations', tag: 'Durations', summary: 'How long each journey waited, talked, was held, was worked on',
      description: `${rangeText} Oldest first unless sort=desc.`,
      dialect: native, access: 'key', reads: ['journeys'], params: none, query: z.strictObject({ ...range, limit, cursor, sort, timezone, ...filterParameters }), body: { kind: 'none' },
      answer: { schema: pageOf(durationRow), mediaType: json }, list: { row: durationRow }, refusals: [...RANGE_REFUSALS, 'invalidCursor', 'cursorAndSortMismatch'],
    }),
    getTransitionDurations: endpoint({
      name: 'getTransitionDurations', method: 'GET', path: '/durations/transitions', tag: 'Durations', summary: 'The same for each transition',
      description: `${rangeText} limit, cursor and totalElements count journeys.`,
      dialect: native, access: 'key', reads: ['journeys'], params: none, query: z.strictObject({ ...range, limit, cursor, sort, timezone, ...filterParameters }), body: { kind: 'none' },
      answer: { schema: pageOf(transitionDurationRow), mediaType: json }, list: { row: transitionDurationRow, explode: 'transitions' }, refusals: [...RANGE_REFUSALS, 'invalidCursor', 'cursorAndSortMismatch'],
    }),
    getPaths: endpoint({
      name: 'getPaths', method: 'GET', path: '/paths', tag: 'Paths', summary: 'Which state follows which, and the commonest ways through',
      description: `${rangeText} Reads the journeys that match, at most 100,000. As CSV and NDJSON steps and sequences are told in lines of one form.`,
      dialect: native, access: 'key', reads: ['journeys'], params: none, query: z.strictObject({ ...range, limit: limitOf(SEQUENCES, 'Sequences told, the commonest first.'), ...filterParameters }), body: { kind: 'none' },
      answer: { schema: z.object({ journeys: z.int(), steps: z.array(pathStep), sequences: z.array(pathSequence) }), mediaType: json }, list: { row: pathRow },
      refusals: ['badRequest', 'missingParameter', 'unknownParameter', 'invalidRange', 'rangeTooLong', 'tooManyJourneys', 'tooManyTransitions'],
    }),
    getSources: endpoint({
      name: 'getSources', method: 'GET', path: '/sources', tag: 'Publish', summary: 'What each source sent',
      description: 'Counted by the door; a crash may lose the last second.',
      dialect: native, access: 'key', reads: [], params: none, query: none, body: { kind: 'none' },
      answer: { schema: z.object({ data: z.array(sourceRow) }), mediaType: json }, list: { row: sourceRow }, refusals: ['unknownParameter'],
    }),
    findPerson: endpoint({
      name: 'findPerson', method: 'GET', path: '/persons', tag: 'Persons', summary: 'The person behind an identity',
      description: 'Aliases, names, the evidence that joined them, and what was refused.',
      dialect: native, access: 'key', reads: ['persons'], params: none, query: z.strictObject({ identity, identitytype }), body: { kind: 'none' },
      answer: { schema: personAnswer, mediaType: json }, list: null, refusals: ['badRequest', 'missingParameter', 'unknownParameter', 'unknownIdentity'],
    }),
    getPerson: endpoint({
      name: 'getPerson', method: 'GET', path: '/persons/{id}', tag: 'Persons', summary: 'A person by id',
      description: 'Old ids answer with the person that they are now part of.',
      dialect: native, access: 'key', reads: ['persons'], params: z.strictObject({ id: z.string().max(256).meta({ examples: ['5c1f0e9b7a3d2c4b8e6f1a20'] }) }), query: none, body: { kind: 'none' },
      answer: { schema: personAnswer, mediaType: json }, list: null, refusals: ['unknownPerson', 'unknownParameter'],
    }),
    getOpenApi: endpoint({
      name: 'getOpenApi', method: 'GET', path: '/openapi.json', tag: 'Operating', summary: 'This document', description: 'OpenAPI 3.1.',
      dialect: native, access: 'open', reads: [], params: none, query: z.object({}), body: { kind: 'none' },
      answer: { schema: z.looseObject({ openapi: z.string() }), mediaType: json }, list: null, refusals: [],
    }),
    getDocs: endpoint({
      name: 'getDocs', method: 'GET', path: '/docs', tag: 'Operating', summary: 'A page to read this document', description: 'Loads nothing from outside.',
      dialect: native, access: 'open', reads: [], params: none, query: z.object({}), body: { kind: 'none' },
      answer: { schema: z.string(), mediaType: 'text/html' }, list: null, refusals: [],
    }),
    getHealth: endpoint({
      name: 'getHealth', method: 'GET', path: '/healthz', tag: 'Operating', summary: 'Whether the process answers', description: 'Says nothing of what it depends on.',
      dialect: native, access: 'open', reads: [], params: none, query: z.object({}), body: { kind: 'none' },
      answer: { schema: z.object({ status: z.literal('ok') }), mediaType: json }, list: null, refusals: [],
    }),
    getReadiness: endpoint({
      name: 'getReadiness', method: 'GET', path: '/readyz', tag: 'Operating', summary: 'Whether it can serve', description: '503 with the reasons where it cannot.',
      dialect: native, access: 'open', reads: [], params: none, query: z.object({}), body: { kind: 'none' },
      answer: { schema: z.object({ status: z.enum(['ok', 'unready']), reasons: z.array(z.string()) }), mediaType: json }, list: null, refusals: ['viewsUnavailable'],
    }),
    getMetrics: endpoint({
      name: 'getMetrics', method: 'GET', path: '/metrics', tag: 'Operating', summary: 'Metrics in the Prometheus text format', description: 'No customer data.',
      dialect: native, access: 'open', reads: [], params: none, query: z.object({}), body: { kind: 'none' },
      answer: { schema: z.string(), mediaType: 'text/plain' }, list: null, refusals: [],
    }),
  } as const;
}

export type JourneyDetail = z.output<typeof journeyDetail>;
export type OutcomeRow = z.output<typeof outcomeRow>;
export type DurationRow = z.output<typeof durationRow>;
export type TransitionDurationRow = z.output<typeof transitionDurationRow>;
export type PathStep = z.output<typeof pathStep>;
export type PathSequence = z.output<typeof pathSequence>;
export type PathRow = z.output<typeof pathRow>;
export type PersonAnswer = z.output<typeof personAnswer>;
export type SourceRow = z.output<typeof sourceRow>;
