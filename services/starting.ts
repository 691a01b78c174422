// What a program with an api answers until the api is there: how it is, and to everything else that it comes.
import type { RequestListener } from 'node:http';
import { EIGHT_BY_EIGHT_PREFIX, eightByEight } from '../schemas/apis/eightbyeight.ts';
import { native, NATIVE_CODES, nativeProblem } from '../schemas/apis/native.ts';

const OF_HEALTH: readonly string[] = ['/healthz', '/readyz', '/metrics'];
const RETRY_AFTER_S = '1';

/** `health` answers of itself; the rest is refused as the api would refuse it, each path in its own dialect. */
export function startingApp(health: RequestListener): RequestListener {
  return (request, response) => {
    const [path = ''] = (request.url ?? '').split('?');
    if (OF_HEALTH.includes(path)) {
      health(request, response);
      return;
    }
    const dialect = path.startsWith(EIGHT_BY_EIGHT_PREFIX) ? eightByEight.seed : native;
    const body = JSON.stringify(dialect.print([nativeProblem('starting')]));
    response.writeHead(NATIVE_CODES.starting.status, { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body), 'Cache-Control': 'no-store', 'X-Content-Type-Options': 'nosniff', 'Retry-After': RETRY_AFTER_S });
    response.end(body);
  };
}
