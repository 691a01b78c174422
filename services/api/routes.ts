// The one table of routes: an endpoint as its schema file describes it, and what answers it. Express, the 405s, the OpenAPI
// and the tenancy test are made from it, so that nothing is served that is not described, and nothing described that is not served.
import type { z } from 'zod';
import { EIGHT_BY_EIGHT_ERRORS, eightByEightEndpoints, isEightByEightCode, type SearchOptions } from '../../schemas/apis/eightbyeight.ts';
import { isNativeCode, NATIVE_CODES, nativeEndpoints, nativeProblem, type SourceRow } from '../../schemas/apis/native.ts';
import { columnsOf, type Endpoint, type JsonSchema, openApi, type Problem } from '../../schemas/apis/openapi.ts';
import { JOURNEY_FILTERS, TRANSITION_FILTERS } from '../../projections/journeys.ts';
import { REJECTION_CODES } from '../../schemas/cloudevent.ts';
import { ERROR_CODES, type ErrorCode, isErrorCode } from '../errors.ts';
import { printReadiness, type Readiness } from '../health.ts';
import type { WorkspaceKeys } from '../../schemas/identity.ts';
import type { Answer, ApiDeps, Call, Outcome, RawCall, Route } from './call.ts';
import { Customers } from './customers.ts';
import { docsPage } from './docs.ts';
import { durationsOf, transitionDurationsOf } from './durations.ts';
import { Histories } from './history.ts';
import type { ListRow } from './pages.ts';
import { outcomesOf } from './outcomes.ts';
import { pathsOf } from './paths.ts';
import { publish } from './publish.ts';
import { ALL_FILTERS } from './ranges.ts';
import { Searches } from './searches.ts';
import { type Refused, refuse, type Views } from './views.ts';
import { createZones } from './zones.ts';

/** Binds an endpoint to its handler, with the types that the endpoint's schemas parse to. */
function bind<P extends z.ZodType, Q extends z.ZodType, B extends z.ZodType>(
  endpoint: Endpoint<P, Q, B>, handle: (call: Call<z.output<P>, z.output<Q>, z.output<B>>) => Outcome | Promise<Outcome>,
  /** What is wrong beside what the schemas tell; asked in any case, so that everything is told at once. `wrong` names the body's fields that the schema refuses. */
  beside?: (endpoint: string, raw: RawCall, keys: WorkspaceKeys, wrong: ReadonlySet<unknown>) => Promise<readonly Problem[]>,
): Route {
  const run: Route['run'] = async (raw, keys) => {
    if (keys === null) throw new Error('assertion: who asks this endpoint has shown a key');
    const params = endpoint.params.safeParse(raw.params);
    const query = endpoint.query.safeParse(raw.query);
    const body = endpoint.body.kind === 'json' ? endpoint.body.schema.safeParse(raw.body) : null;
    const problems: Problem[] = [params, query, body].flatMap((parsed) => (parsed === null || parsed.success ? [] : endpoint.dialect.problemsOf(parsed.error)));
    if (beside !== undefined) problems.push(...await beside(endpoint.name, raw, keys, new Set(body?.error?.issues.map(({ path: [field] }) => field))));
    const [first] = problems;
    if (first !== undefined) return { kind: 'refused', code: first.code, problems };
    return handle({ ...raw, keys, params: params.data as z.output<P>, query: query.data as z.output<Q>, body: body?.data as z.output<B> });
  };
  return { endpoint, columns: endpoint.list === null ? [] : columnsOf(endpoint.list), run };
}

/** Binds an endpoint that anybody may ask, and that nobody can tell anything. */
function bindOpen(endpoint: Endpoint, handle: () => Outcome | Promise<Outcome>): Route {
  return { endpoint, columns: [], run: async () => handle() };
}

/** All endpoints there are. */
export function apiEndpoints(options: SearchOptions) {
  const filters = { journeys: Object.keys(JOURNEY_FILTERS), transitions: Object.keys(TRANSITION_FILTERS) };
  return { ...nativeEndpoints({ filters: Object.keys(ALL_FILTERS), maxRangeDays: options.maxRangeDays }), ...eightByEightEndpoints(filters, options) };
}

export function createRoutes(deps: ApiDeps, views: Views): readonly Route[] {
  const zones = createZones();
  const maxDays = deps.limits.maxRangeDays;
  const searches = new Searches({ zones, revision: deps.revision, workspaces: deps.workspaces });
  const customers = new Customers({ histories: new Histories(deps.events), searches, zones, storeId: deps.events.storeId });
  const e = apiEndpoints({ revision: deps.revision, maxRangeDays: maxDays });
  const problemsOf: Searches['problemsOf'] = (...asked) => searches.problemsOf(...asked);
  const page = docsPage();
  const routes: readonly Route[] = [
    bind(e.publishEvents, (call) => publish(deps, views, call, call.query.dryRun === 'true')),
    bind(e.searchJourneys, (call) => searches.journeys(call), problemsOf),
    bind(e.searchTransitions, (call) => searches.transitions(call), problemsOf),
    bind(e.getJourney, (call) => searches.journey(call)),
    bind(e.listJourneys, (call) => customers.journeys(call)),
    bind(e.getHistory, (call) => customers.history(call)),
    bind(e.getOutcomes, (call) => outcomesOf(call, { zones, maxDays })),
    bind(e.getDurations, (call) => durationsOf(call, { zones, maxDays })),
    bind(e.getTransitionDurations, (call) => transitionDurationsOf(call, { zones, maxDays })),
    bind(e.getPaths, (call) => pathsOf(call, { maxDays })),
    bind(e.findPerson, (call) => customers.find(call)),
    bind(e.getPerson, (call) => customers.person(call)),
    bind(e.getSources, (call) => sources(deps, views, call.keys.id)),
    bindOpen(e.getOpenApi, () => ({ kind: 'answer', value: document() })),
    bindOpen(e.getDocs, () => ({ kind: 'text', mediaType: 'text/html; charset=utf-8', text: page.html, headers: { 'Content-Security-Policy': page.policy } })),
    bindOpen(e.getHealth, () => ({ kind: 'answer', value: { status: 'ok' } })),
    bindOpen(e.getReadiness, async () => readiness(await deps.ready())),
    bindOpen(e.getMetrics, async () => ({ kind: 'text', mediaType: deps.metrics.contentType, text: await deps.metrics.text() })),
  ];
  let made: JsonSchema | null = null;
  const document = (): JsonSchema => (made ??= openApi(routes.map(({ endpoint }) => endpoint), statusOf, problemOf, deps.version));
  return routes;
}

async function sources({ events, views: store }: ApiDeps, views: Views, workspace: string): Promise<Outcome> {
  const rows = (await store.tallies(workspace)).map(({ source, recorded, duplicates, reusedIds, rejected, lateness, lastSeen }): ListRow => ({ value: { source, recorded, duplicates, reusedIds, rejected, lateness, lastSeen } satisfies SourceRow }));
  const head = await events.head();
  return { kind: 'page', rows, cursor: null, total: rows.length, ...(head === null ? {} : { headers: { 'Throughline-Head': views.stated(head) } }) };
}

function readiness(found: Readiness): Answer {
  return { kind: 'answer', status: found.ok ? 200 : 503, value: printReadiness(found) };
}

const EVENT_STATUS: Readonly<Record<string, number>> = { tooLarge: 413, notACloudEvent: 415, unsupportedFormat: 415, unsupportedCharset: 415 };

/** The HTTP status of every code there is. */
export function statusOf(code: string): number {
  if (isNativeCode(code)) return NATIVE_CODES[code].status;
  if (isEightByEightCode(code)) return EIGHT_BY_EIGHT_ERRORS[code].status;
  if (Object.hasOwn(REJECTION_CODES, code)) return EVENT_STATUS[code] ?? 400;
  return 503;
}

/** What a code says where it is told as an example. */
function problemOf(code: string): Problem {
  if (isNativeCode(code)) return nativeProblem(code);
  if (isErrorCode(code)) return operatingProblem(code);
  return { code, message: Object.hasOwn(REJECTION_CODES, code) ? REJECTION_CODES[code as keyof typeof REJECTION_CODES] : 'Not told by this API.' };
}

function operatingProblem(code: ErrorCode): Problem {
  return { code, message: ERROR_CODES[code] ? 'The store cannot answer now; try again.' : 'The store cannot answer; the operator has been told.' };
}

/** What an operating error becomes: its code and whether to try again, never its message (that is the operator's, and in the log). */
export function refusedBy(code: ErrorCode): Refused {
  if (code === 'eventTooLarge') return refuse('bodyTooLarge');
  return { kind: 'refused', code, problems: [operatingProblem(code)], ...(ERROR_CODES[code] ? { headers: { 'Retry-After': '1' } } : {}) };
}
