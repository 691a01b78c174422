// Whether a program can do its work, and what it counts: the same answers whether the api serves them among its routes or,
// in a program that has no api, a small server of its own.
import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http';
import type { Metrics } from './metrics.ts';
import type { Clock } from './ports.ts';

export interface Readiness { readonly ok: boolean; readonly reasons: readonly string[] }
/** Reasons why not; none where all is well. Never rejects. */
export type Check = () => readonly string[] | Promise<readonly string[]>;
type Sleep = (ms: number, signal?: AbortSignal) => Promise<void>;

/** A store that does not answer within this is away, as far as whoever asks is concerned (probes themselves commonly wait a few seconds). */
const LOOK_MS = 2000;
/** Looks are shared by whoever asks within this: readiness is open to everybody, and must not be a way to load a store. */
const SHARED_MS = 1000;
/** Who is not ready yet is waited for: it says soon that it is. */
const SHARED_UNREADY_MS = 100;

/** Asks every check, at most once a second when all is well. */
export function createReadiness(checks: readonly Check[], clock: Clock): () => Promise<Readiness> {
  let latest: { readonly at: number; sharedMs: number; readonly answer: Promise<Readiness> } | null = null;
  return () => {
    const now = clock.now();
    if (latest !== null && now - latest.at < latest.sharedMs && now >= latest.at) return latest.answer;
    const answer = Promise.all(checks.map(async (check) => check())).then((found) => ({ ok: found.flat().length === 0, reasons: found.flat() }));
    const look = latest = { at: now, sharedMs: SHARED_MS, answer };
    void answer.then(({ ok }) => { if (!ok) look.sharedMs = SHARED_UNREADY_MS; });
    return answer;
  };
}

/** A check that something answers at all, in time; what it answers is of no interest. */
export function answers(what: string, look: () => Promise<unknown>, sleep: Sleep): Check {
  return async () => {
    const over = new AbortController();
    const looked = look().then(() => [], () => [`${what} cannot be reached`]);
    const found = await Promise.race([looked, sleep(LOOK_MS, over.signal).then(() => [`${what} does not answer`])]);
    over.abort();
    return found;
  };
}

/** `/healthz`, `/readyz` and `/metrics`, for programs without an api. The same bodies as the api's. */
export function healthApp(ready: () => Promise<Readiness>, metrics: Pick<Metrics, 'contentType' | 'text'>): RequestListener {
  return (request, response) => {
    answer(request, ready, metrics).then(
      ({ status, type, body }) => send(response, status, type, body),
      () => send(response, 500, JSON_TYPE, '{"errors":[{"code":"internal","message":"Something went wrong here."}]}'),
    );
  };
}

const JSON_TYPE = 'application/json; charset=utf-8';
interface Answer { readonly status: number; readonly type: string; readonly body: string }

async function answer({ method, url }: IncomingMessage, ready: () => Promise<Readiness>, metrics: Pick<Metrics, 'contentType' | 'text'>): Promise<Answer> {
  const json = (status: number, value: unknown): Answer => ({ status, type: JSON_TYPE, body: JSON.stringify(value) });
  if (method !== 'GET' && method !== 'HEAD') return json(405, { errors: [{ code: 'methodNotAllowed', message: 'Only GET.' }] });
  switch ((url ?? '').split('?')[0]) {
    case '/healthz': return json(200, { status: 'ok' });
    case '/readyz': {
      const readiness = await ready();
      return json(readiness.ok ? 200 : 503, printReadiness(readiness));
    }
    case '/metrics': return { status: 200, type: metrics.contentType, body: await metrics.text() };
    default: return json(404, { errors: [{ code: 'unknownPath', message: 'There are /healthz, /readyz and /metrics.' }] });
  }
}

/** What `/readyz` says. */
export function printReadiness({ ok, reasons }: Readiness): { readonly status: string; readonly reasons: readonly string[] } { return { status: ok ? 'ok' : 'unready', reasons }; }

function send(response: ServerResponse, status: number, type: string, body: string): void {
  response.writeHead(status, { 'Content-Type': type, 'Content-Length': Buffer.byteLength(body), 'Cache-Control': 'no-store', 'X-Content-Type-Options': 'nosniff' });
  // Node leaves the body of an answer to HEAD out by itself.
  response.end(body);
}
