// A listening HTTP server as a part of a program: how it starts, what it does with what is no HTTP, how it ends.
import { createServer, type RequestListener, type Server, STATUS_CODES } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import { native, NATIVE_CODES, type NativeCode, nativeProblem } from '../schemas/apis/native.ts';
import { OperatingError } from './errors.ts';

/** A connection that says nothing for so long is closed; requests have their own, shorter bound. */
const IDLE_MS = 65_000;
const REQUEST_MS = 60_000;
const SWEEP_MS = 20;
/** Neither side says anything for so long, also while an answer is waited for: longer than an event store is waited for, all tries together. */
const SILENCE_MS = 300_000;
/** Each costs some 20 KB; past it one is closed unanswered, and what has so many clients has a proxy in front. */
const CONNECTIONS_MAX = 4096;
/** Connections that the kernel may keep until this process comes to them (or fewer, net.core.somaxconn): under a burst, what does not fit is reset. */
const BACKLOG = 4096;
/** At the end a request has so long to be answered; one that waits for a position takes 2 s. */
const ANSWER_MS = 3000;

export interface Address { readonly host: string; /** 0 picks a free one. */ readonly port: number }
export interface Listening { readonly url: string; readonly port: number; /** No new requests; those under way are answered. */ stop(): Promise<void> }

/** Throws portTaken where it cannot listen. */
export async function listen(app: RequestListener, address: Address): Promise<Listening> {
  const server = createServer({ keepAliveTimeout: IDLE_MS, requestTimeout: REQUEST_MS }, app);
  server.timeout = SILENCE_MS;
  server.maxConnections = CONNECTIONS_MAX;
  server.on('clientError', refuseUnparsed);
  // An expectation that we do not know is no reason to refuse (RFC 9110, 10.1.1).
  server.on('checkExpectation', app);
  await listening(server, address);
  const { port } = server.address() as AddressInfo;
  return { url: `http://${address.host.includes(':') ? `[${address.host}]` : address.host}:${port}`, port, stop: () => closing(server) };
}

function listening(server: Server, { host, port }: Address): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (cause: NodeJS.ErrnoException) => reject(new OperatingError('portTaken', cause.code === 'EADDRINUSE' ? `port ${port} of ${host} is taken: end what listens there, or choose another with --port` : `cannot listen on ${host}:${port} (${cause.code ?? cause.message})`, { cause })));
    server.listen({ port, host, backlog: BACKLOG }, resolve);
  });
}

/** What Node's parser refuses never reaches an application; it is refused here, in the same form. */
function refuseUnparsed(fault: NodeJS.ErrnoException, socket: Duplex): void {
  // Whoever went away, or is being answered, is told nothing more.
  if (fault.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy();
    return;
  }
  const code = UNPARSED[fault.code ?? ''] ?? 'malformedRequest';
  const { status } = NATIVE_CODES[code];
  const body = JSON.stringify(native.print([nativeProblem(code)]));
  socket.end(`HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ''}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`, () => socket.destroy());
}

/** By the parser's own codes. */
const UNPARSED: Readonly<Record<string, NativeCode | undefined>> = { HPE_HEADER_OVERFLOW: 'headersTooLarge', ERR_HTTP_REQUEST_TIMEOUT: 'requestTimeout' };

/**
 * No new connections; requests under way are answered, and with its answer each connection ends. `close` waits for
 * connections and not for requests: a client that keeps one open and goes on asking would hold it up for ever.
 */
function closing(server: Server): Promise<void> {
  server.prependListener('request', (_request, response) => { response.setHeader('Connection', 'close'); });
  return new Promise((resolve, reject) => {
    // Those that were being answered when it began said nothing of an end: they fall idle one by one.
    const sweep = setInterval(() => server.closeIdleConnections(), SWEEP_MS);
    // A client that stalls in the middle of its request must not keep what comes after from ending in time.
    const cut = setTimeout(() => server.closeAllConnections(), ANSWER_MS);
    server.close((fault) => {
      clearInterval(sweep);
      clearTimeout(cut);
      if (fault === undefined) resolve();
      else reject(fault);
    });
    server.closeIdleConnections();
  });
}
