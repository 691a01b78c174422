// The api as an Express application: who asks, whether they may, what they sent, what is answered, and one line in the log
// of each. What it answers with is in routes.ts; nothing here knows an endpoint.
import type { IncomingMessage, ServerResponse } from 'node:http';
import { parse as parseQuery } from 'node:querystring';
import express, { type Express, type NextFunction, type Request, type Response } from 'express';
import { EIGHT_BY_EIGHT_PREFIX, eightByEight } from '../../schemas/apis/eightbyeight.ts';
import { native } from '../../schemas/apis/native.ts';
import { type Dialect, type Endpoint, type Format, formatParameter, MEDIA_TYPES } from '../../schemas/apis/openapi.ts';
import type { WorkspaceKeys } from '../../schemas/identity.ts';
import { Admission, type Kind, type Place } from '../admission.ts';
import { OperatingError } from '../errors.ts';
import type { RateSetting } from '../rate-limit.ts';
import { formatOf, printPage } from './pages.ts';
import type { ApiDeps, Outcome, Route } from './call.ts';
import { createRoutes, refusedBy, statusOf } from './routes.ts';
import { type Opened, type Refused, refuse, Views } from './views.ts';

/** Of a request in JSON; a publish has its own limit. */
const QUERY_BYTES_MAX = 256 * 1024;
/** Read and dropped of a body that is too large, so that its sender gets to read why. */
const DRAINED_BYTES_MAX = 32 * 1024 * 1024;
/** Of a request that is told to come again: what is under way now is over by then, or the next one is told the same. */
const RETRY_AFTER_S = '1';

const SECURITY_HEADERS: Readonly<Record<string, string>> = {
  'Cache-Control': 'no-store',
  'Content-Security-Policy': "default-src 'none'; frame-ancestors 'none'",
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Referrer-Policy': 'no-referrer',
  'X-Content-Type-Options': 'nosniff',
  'X-Frame-Options': 'DENY',
};

/** What the log and the metrics may know of a request: never its URL. */
interface Trace { route: string; dialect: Dialect; workspace?: string; keyId?: string }

export function createApi(deps: ApiDeps): Express {
  const views = new Views(deps);
  const admission = deps.admission ?? new Admission(deps.clock);
  const routes = createRoutes(deps, views);
  const app = express();
  app.disable('x-powered-by');
  app.set('etag', false);
  app.set('case sensitive routing', true);
  app.set('strict routing', true);
  // As Express reads it by itself, but for its bound of a thousand: what is past it would be left out without a word.
  app.set('query parser', (text: string) => parseQuery(text, undefined, undefined, { maxKeys: 0 }));
  const traces = new WeakMap<IncomingMessage, Trace>();
  const traceOf = (request: IncomingMessage): Trace => traces.get(request) ?? { route: '(unknown)', dialect: native };
  app.use((request, response, next) => {
    traces.set(request, { route: '(unknown)', dialect: request.path.startsWith(EIGHT_BY_EIGHT_PREFIX) ? eightByEight[deps.revision] : native });
    response.setHeaders(new Map(Object.entries(SECURITY_HEADERS)));
    record(deps, request, response, traceOf(request));
    next();
  });
  const serve = (route: Route) => async (request: Request, response: Response): Promise<void> => {
    const trace = traceOf(request);
    trace.route = route.endpoint.path;
    trace.dialect = route.endpoint.dialect;
    const { outcome, opened } = await admitted({ ...deps, admission }, views, route, request, response, trace);
    if (opened?.position !== undefined && opened.position !== null) response.setHeader('Throughline-Position', views.stated(opened.position));
    if (opened !== null && opened.stale.length > 0) response.setHeader('Throughline-Stale', opened.stale.join(', '));
    send(outcome, route, request, response);
  };
  for (const [path, methods] of byPath(routes)) {
    const allow = [...methods.keys()].flatMap((method) => (method === 'GET' ? ['GET', 'HEAD'] : [method])).join(', ');
    for (const [method, route] of methods) app[method === 'GET' ? 'get' : 'post'](path, serve(route));
    app.all(path, (request, response) => {
      const trace = traceOf(request);
      trace.route = path.replace(/:(\w+)/g, '{$1}');
      const asks = request.method === 'OPTIONS';
      // A refusal names what is documented; OPTIONS, which any path takes, says so itself.
      response.setHeader('Allow', asks ? `${allow}, OPTIONS` : allow);
      if (asks) response.status(204).end();
      else sendRefusal(refuse('methodNotAllowed'), trace.dialect, response);
    });
  }
  app.use((request, response) => sendRefusal(refuse('unknownPath'), traceOf(request).dialect, response));
  // Express knows an error handler by its four parameters. Once an answer has begun, or nobody waits for it, all that is
  // left is to end the connection, which Express does.
  app.use((fault: unknown, request: Request, response: Response, next: NextFunction) => {
    if (response.headersSent || response.destroyed) next();
    else fail(deps, views, fault, request, response, traceOf(request));
  });
  return app;
}

/** Express patterns, each with its methods. */
function byPath(routes: readonly Route[]): ReadonlyMap<string, ReadonlyMap<Endpoint['method'], Route>> {
  const paths = new Map<string, Map<Endpoint['method'], Route>>();
  for (const route of routes) {
    const path = route.endpoint.path.replace(/\{(\w+)\}/g, ':$1');
    const methods = paths.get(path) ?? new Map<Endpoint['method'], Route>();
    methods.set(route.endpoint.method, route);
    paths.set(path, methods);
  }
  return paths;
}

// ---- a request -------------------------------------------------------------------------------------------------------

interface Answered { readonly outcome: Outcome; readonly opened: Opened | null }

type Caller = ReturnType<typeof authenticate>;

/** Who asks, and whether there is room: what is refused here costs next to nothing. What anybody may ask (health, readiness, metrics, the documents) always is answered. */
async function admitted(deps: ApiDeps & { readonly admission: Admission }, views: Views, route: Route, request: Request, response: Response, trace: Trace): Promise<Answered> {
  const { endpoint } = route;
  if (endpoint.access === 'open') return answer(deps, views, route, request, response, null, null);
  const caller = authenticate(deps, request, trace);
  if (caller.kind === 'refused') return { outcome: caller, opened: null };
  const limited = endpoint.limited === true ? await overLimit(deps, caller) : null;
  if (limited !== null) return { outcome: limited, opened: null };
  const place = deps.admission.enter(kindOf(endpoint));
  if (place === null) return { outcome: overloaded(), opened: null };
  response.once('close', () => place.leave());
  try {
    return await answer(deps, views, route, request, response, caller, place);
  } finally {
    place.leave();
  }
}

/**
 * Null within the key's limit. Every request that comes this far counts, whatever it is answered. Where the limiter cannot
 * be asked the fault is answered, like every other of a store: what counts for all processes stands in the Redis that the search
 * would have asked next, so that nobody is turned away who would have been answered, and nobody searches uncounted.
 */
async function overLimit({ limiter, rateLimit: standard }: ApiDeps, { keyId, rateLimit }: Exclude<Caller, Refused>): Promise<Refused | null> {
  const limit = rateLimit ?? standard;
  const left = limit === 'off' ? 0 : await limiter.hit(keyId, limit);
  if (left <= 0) return null;
  const seconds = String(Math.ceil(left / 1000));
  return refuse('rateLimited', { suggestion: `Ask again after ${seconds} s, as Retry-After says.` }, { 'Retry-After': seconds });
}

function kindOf({ body }: Endpoint): Kind { return body.kind === 'none' || body.kind === 'json' ? 'query' : 'publish'; }
function overloaded(): Refused { return refuse('overloaded', {}, { 'Retry-After': RETRY_AFTER_S }); }

/** Body, views, handler: the first that refuses answers. */
async function answer(deps: ApiDeps, views: Views, route: Route, request: Request, response: Response, keys: Exclude<Caller, Refused> | null, place: Place | null): Promise<Answered> {
  const { endpoint } = route;
  const body = endpoint.body.kind === 'none' || place === null ? NO_BODY : await readBody(request, response, endpoint.body.kind === 'json' ? QUERY_BYTES_MAX : deps.limits.maxBodyBytes, place);
  if (body.kind === 'refused') return { outcome: body, opened: null };
  await place?.turn();
  // Whoever asked has gone meanwhile: nothing was begun, and nobody is told.
  if (response.destroyed) return { outcome: overloaded(), opened: null };
  const parsed = endpoint.body.kind === 'json' ? parseJson(request, body.bytes) : NO_JSON;
  if (parsed.kind === 'refused') return { outcome: parsed, opened: null };
  const opened = keys === null || endpoint.reads.length === 0 ? null : await views.open(endpoint.reads, keys.keys.id, header(request, 'throughline-min-position'));
  if (opened?.kind === 'refused') return { outcome: opened, opened: null };
  // `format` is every list's own parameter, and no endpoint's.
  if (endpoint.list !== null && !formatParameter.safeParse(request.query['format']).success) return { outcome: refuse('badRequest', { attribute: 'format', message: 'format must be json, csv or ndjson.' }), opened: null };
  const query = Object.fromEntries(Object.entries(request.query).filter(([name]) => endpoint.list === null || name !== 'format'));
  const outcome = await route.run({
    params: request.params, query, body: parsed.value, raw: { bytes: body.bytes, headers: request.headersDistinct },
    view: (group) => {
      const view = opened?.views[group];
      if (view === undefined) throw new Error(`assertion: ${endpoint.name} does not say that it reads ${group}`);
      return view;
    },
    signal: signalOf(response),
  }, keys?.keys ?? null);
  return { outcome, opened };
}

const NO_BODY = { kind: 'body', bytes: new Uint8Array(0) } as const;
const NO_JSON = { kind: 'json', value: undefined } as const;

function header(request: IncomingMessage, name: string): string | undefined {
  const value = request.headers[name];
  return Array.isArray(value) ? value[0] : value;
}

function authenticate({ workspaces }: ApiDeps, request: IncomingMessage, trace: Trace): { readonly kind: 'caller'; readonly keys: WorkspaceKeys; readonly keyId: string; readonly rateLimit: RateSetting | null } | Refused {
  const token = header(request, 'x-api-key') ?? /^Bearer +(\S+) *$/i.exec(header(request, 'authorization') ?? '')?.[1];
  const caller = token === undefined || token === '' ? null : workspaces.authenticate(token);
  const keys = caller === null ? null : workspaces.keys(caller.workspace);
  if (caller === null || keys === null) return refuse('unauthorized', {}, { 'WWW-Authenticate': 'Bearer' });
  trace.workspace = caller.workspace;
  trace.keyId = caller.keyId;
  return { kind: 'caller', keys, keyId: caller.keyId, rateLimit: caller.rateLimit };
}

function signalOf(response: ServerResponse): AbortSignal {
  const controller = new AbortController();
  response.once('close', () => controller.abort());
  return controller.signal;
}

/**
 * The body's bytes, or why not. Room for it is taken before it is read where its length is told, else as it comes; what is
 * too large is read to its end (within reason) and dropped. Where there is no room the answer goes out at once, and Node
 * drops what still comes of the body.
 */
async function readBody(request: IncomingMessage, response: ServerResponse, maxBytes: number, place: Place): Promise<{ readonly kind: 'body'; readonly bytes: Uint8Array } | Refused> {
  const encoding = header(request, 'content-encoding') ?? 'identity';
  const unreadable = encoding.toLowerCase() === 'identity' ? null : refuse('unsupportedMediaType', { attribute: 'content-encoding' });
  const length = Number(header(request, 'content-length') ?? Number.NaN);
  const whole = unreadable === null && length <= maxBytes;
  if (whole && !place.reserve(length)) return overloaded();
  const body = whole ? Buffer.allocUnsafe(length) : null;
  const chunks: Uint8Array[] = [];
  let size = 0;
  // Left early, it must not end the connection, on which the answer is still to go.
  for await (const chunk of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Uint8Array>) {
    body?.set(chunk, size);
    size += chunk.length;
    if (size > maxBytes + DRAINED_BYTES_MAX) break;
    if (body !== null) continue;
    if (size > maxBytes || unreadable !== null) {
      chunks.length = 0;
      place.drop();
    } else if (place.reserve(chunk.length)) chunks.push(chunk);
    else {
      place.drop();
      return overloaded();
    }
  }
  if (size <= maxBytes) return unreadable ?? { kind: 'body', bytes: body ?? Buffer.concat(chunks) };
  response.setHeader('Connection', 'close');
  return refuse('bodyTooLarge', { more: { maxBytes } });
}

function parseJson(request: IncomingMessage, bytes: Uint8Array): { readonly kind: 'json'; readonly value: unknown } | Refused {
  const [type = ''] = (header(request, 'content-type') ?? '').split(';');
  if (!/^application\/(?:[\w.-]+\+)?json$/i.test(type.trim())) return refuse('unsupportedMediaType', { attribute: 'content-type' });
  try {
    return { kind: 'json', value: JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes)) };
  } catch {
    return refuse('malformedJson');
  }
}

// ---- the answer ------------------------------------------------------------------------------------------------------

function send(outcome: Outcome, route: Route, request: Request, response: Response): void {
  switch (outcome.kind) {
    case 'refused':
      sendRefusal(outcome, route.endpoint.dialect, response);
      return;
    case 'answer':
      setHeaders(response, outcome.headers);
      sendText(response, outcome.status ?? 200, MEDIA_TYPES.json, JSON.stringify(outcome.value));
      return;
    case 'text':
      setHeaders(response, outcome.headers);
      sendText(response, 200, outcome.mediaType, outcome.text);
      return;
    case 'page': {
      const format: Format = formatOf(request.query['format'], header(request, 'accept'));
      setHeaders(response, outcome.headers);
      if (outcome.cursor !== null && format !== 'json') response.setHeader('Throughline-Next-Cursor', outcome.cursor);
      if (outcome.total !== null && format !== 'json') response.setHeader('Throughline-Total', String(outcome.total));
      response.setHeader('Vary', 'Accept');
      sendText(response, 200, MEDIA_TYPES[format], printPage(outcome, format, route.columns, route.endpoint.list?.explode));
      return;
    }
  }
}

function sendRefusal(refused: Refused, dialect: Dialect, response: Response): void {
  setHeaders(response, refused.headers);
  const problems = refused.problems.map((problem) => ({ ...problem, code: dialect.renamed[problem.code] ?? problem.code }));
  sendText(response, statusOf(refused.code), MEDIA_TYPES.json, JSON.stringify(dialect.print(problems)));
}

function setHeaders(response: Response, headers: Readonly<Record<string, string>> | undefined): void {
  for (const [name, value] of Object.entries(headers ?? {})) response.setHeader(name, value);
}

function sendText(response: Response, status: number, mediaType: string, text: string): void {
  const bytes = Buffer.from(text);
  response.writeHead(status, { 'Content-Type': mediaType.startsWith('text/') && !mediaType.includes('charset') ? `${mediaType}; charset=utf-8` : mediaType, 'Content-Length': bytes.length });
  response.end(bytes);
}

/** Whatever was thrown: a passing fault says so, a bug says nothing to the caller and everything to the log. */
function fail(deps: ApiDeps, views: Views, fault: unknown, request: Request, response: Response, trace: Trace): void {
  // Express decodes parameters itself, and says so with a status.
  if (fault instanceof URIError || (fault instanceof Error && 'status' in fault && fault.status === 400)) {
    sendRefusal(refuse('malformedUrl'), trace.dialect, response);
    return;
  }
  views.forget();
  const refused = fault instanceof OperatingError ? refusedBy(fault.code) : refuse('internal');
  if (!(fault instanceof OperatingError) || !fault.retriable) deps.log.error('a request failed', { method: request.method, route: trace.route, fault });
  sendRefusal(refused, trace.dialect, response);
}

/** One line and one measurement a request, once it is over; `499` where the caller went first. */
function record(deps: ApiDeps, request: Request, response: Response, trace: Trace): void {
  const started = deps.clock.now();
  response.once('close', () => {
    const ms = Math.max(0, deps.clock.now() - started);
    const status = response.writableFinished ? response.statusCode : 499;
    const { route, workspace, keyId } = trace;
    deps.metrics.request(request.method, route, status, ms / 1000);
    deps.log.info('request', { method: request.method, route, status, ms, ...(workspace === undefined ? {} : { workspace }), ...(keyId === undefined ? {} : { keyId }) });
  });
}
