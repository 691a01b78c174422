// `throughline serve`, embedded: door, projector and api over one folder. The store commits in a thread of its own and the
// projector folds in another, so the thread that answers requests never waits for a disk or a fold.
import { mkdirSync } from 'node:fs';
import { createServer, type Server, STATUS_CODES } from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import type { Duplex } from 'node:stream';
import { native, NATIVE_CODES, type NativeCode, nativeProblem } from '../schemas/apis/native.ts';
import { holdFolder, openSqliteEventStore } from './adapters/sqlite-events.ts';
import { openSqliteViewStore } from './adapters/sqlite-views.ts';
import { createApi } from './api/app.ts';
import { Door } from './door.ts';
import { OperatingError } from './errors.ts';
import { type Part, run } from './lifecycle.ts';
import { createLog, type Log, type LogLevel } from './log.ts';
import { createMetrics, type GroupState, type Metrics } from './metrics.ts';
import { lagOf } from './ops/status.ts';
import type { Io } from './ops/terminal.ts';
import type { EventStore, ViewStore } from './ports.ts';
import { type ProjectorThread, startProjectorThread } from './projector/thread.ts';
import { DEFAULT_WORKSPACE, folderMasterKey, Workspaces } from './workspaces.ts';

export interface ServeOptions {
  readonly data: string;
  readonly host: string;
  readonly port: number;
  readonly maxEventBytes: number;
  readonly logLevel: LogLevel;
  readonly apiKey: string | null;
  readonly masterKey: Uint8Array | null;
  readonly workspaceSecret: Uint8Array | null;
}

/** A publish may hold this many bytes, batches included: some 25,000 events of 650 bytes, one commit's worth many times over. */
const BODY_BYTES_MAX = 16 * 1024 * 1024;
/** A connection that says nothing for so long is closed; requests have their own, shorter bound. */
const IDLE_MS = 65_000;
const REQUEST_MS = 60_000;
const SWEEP_MS = 20;
/** At the end a request has so long to be answered; one that waits for a position takes 2 s. */
const ANSWER_MS = 3000;

/** What the parts hand to each other as they start, one after the other. */
interface Embedded {
  readonly events: EventStore;
  readonly views: ViewStore;
  readonly workspaces: Workspaces;
  readonly door: Door;
  readonly metrics: Metrics;
  readonly masterKey: Uint8Array;
}

/** Runs until the signal aborts. Exit code 0 after a clean drain, 1 when a part failed. Throws what a start throws. */
export async function serveVerb(options: ServeOptions, io: Io, version: string): Promise<number> {
  const log = createLog(options.logLevel);
  return serveEmbedded({ ...options, fold: true }, io, { log, version, onListening: (url) => { io.stdout.write(`Throughline serves ${url} (documentation: ${url}/docs)\n`); } });
}

/** The same with its seams open: `fold: false` records only (what the bench compares with). */
export async function serveEmbedded(options: ServeOptions & { readonly fold: boolean }, io: Io, told: { readonly log: Log; readonly version: string; readonly onListening: (url: string, port: number) => void }): Promise<number> {
  const { log } = told;
  const folder = path.resolve(options.data);
  let embedded: Embedded | undefined;
  let projector: ProjectorThread | null = null;
  const started = <T>(part: T | undefined): T => {
    if (part === undefined) throw new Error('assertion: the parts start in order');
    return part;
  };
  return run([
    async () => holdPart(folder),
    async () => {
      embedded = await openEmbedded(folder, options, io, log, () => projector);
      const { events, views, workspaces, door, metrics } = embedded;
      return {
        name: 'stores',
        stop: async () => {
          await door.drain();
          await workspaces.close();
          metrics.close();
          await views.close();
          await events.close();
        },
      };
    },
    async () => {
      await announceFirstStart(started(embedded).workspaces, options, io);
      if (!options.fold) return { name: 'no projector', stop: () => Promise.resolve() };
      const thread = startProjectorThread({ folder, masterKey: started(embedded).masterKey }, (_message, attempt) => log.warn('the projector met a passing fault', { attempt }));
      projector = thread;
      return { name: 'projector', stop: thread.stop, ended: thread.ended };
    },
    async () => listen(started(embedded), options, told, io, () => projector),
  ], { signal: io.signal, log, sleep: io.sleep });
}

function holdPart(folder: string): Part {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const hold = holdFolder(folder);
  return { name: 'folder', stop: () => { hold.release(); return Promise.resolve(); } };
}

async function openEmbedded(folder: string, options: ServeOptions, io: Io, log: Log, projector: () => ProjectorThread | null): Promise<Embedded> {
  const events = await openSqliteEventStore({ folder, random: io.random });
  const masterKey = await folderMasterKey(folder, { given: options.masterKey, mayMake: (await events.head()) === null, random: io.random });
  const views = await openSqliteViewStore({ folder, clock: io.clock });
  const workspaces = await Workspaces.open({ store: events, masterKey, clock: io.clock, random: io.random, sleep: io.sleep, onFault: (fault) => log.warn('following the workspaces was interrupted', { fault }) });
  const metrics = createMetrics({ door: () => door.counts(), groups: () => groupStates(events, projector(), io) });
  const door: Door = new Door({
    store: events, clock: io.clock, random: io.random, sleep: io.sleep, tallies: views,
    onAppend: (seconds, count) => metrics.append(seconds, count),
    onTallyFault: (fault) => log.warn('the counts by source could not be written; they are kept and tried again', { fault }),
  });
  return { events, views, workspaces, door, metrics, masterKey };
}

async function announceFirstStart(workspaces: Workspaces, options: ServeOptions, io: Io): Promise<void> {
  const first = await workspaces.firstStart({ token: options.apiKey, secret: options.workspaceSecret });
  switch (first.kind) {
    case 'made':
      if (options.apiKey === null) io.stdout.write(`Workspace "${DEFAULT_WORKSPACE}" was made. Its API key, shown this once: ${first.token}\n`);
      return;
    case 'there':
      if (first.tokenKnown === false) io.stderr.write('THROUGHLINE_API_KEY is set, but it is no key of this folder: it counts on the first start alone. "throughline keys create" makes another.\n');
  }
}

async function listen({ events, views, workspaces, door, metrics }: Embedded, options: ServeOptions, told: { readonly log: Log; readonly version: string; readonly onListening: (url: string, port: number) => void }, io: Io, projector: () => ProjectorThread | null): Promise<Part> {
  const app = createApi({
    events, views, workspaces, door, clock: io.clock, metrics, version: told.version, log: told.log,
    wait: (ms) => io.sleep(ms),
    limits: { maxEventBytes: options.maxEventBytes, maxBodyBytes: Math.max(BODY_BYTES_MAX, options.maxEventBytes) },
    ready: () => readiness(projector()),
  });
  const server = createServer({ keepAliveTimeout: IDLE_MS, requestTimeout: REQUEST_MS }, app);
  server.on('clientError', refuseUnparsed);
  // An expectation that we do not know is no reason to refuse (RFC 9110, 10.1.1).
  server.on('checkExpectation', app);
  await listening(server, options);
  const { port } = server.address() as AddressInfo;
  const url = `http://${options.host.includes(':') ? `[${options.host}]` : options.host}:${port}`;
  told.onListening(url, port);
  told.log.info('serving', { host: options.host, port, storeId: events.storeId, version: told.version });
  return { name: 'http', stop: () => closing(server) };
}

function readiness(projector: ProjectorThread | null): { ok: boolean; reasons: string[] } {
  return projector?.failed() === true ? { ok: false, reasons: ['the projector has stopped'] } : { ok: true, reasons: [] };
}

function listening(server: Server, { host, port }: ServeOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (cause: NodeJS.ErrnoException) => reject(new OperatingError('portTaken', cause.code === 'EADDRINUSE' ? `port ${port} of ${host} is taken: end what listens there, or choose another with --port` : `cannot listen on ${host}:${port} (${cause.code ?? cause.message})`, { cause })));
    server.listen(port, host, resolve);
  });
}

/** What Node's parser refuses never reaches the api; it is refused here, in the same form. */
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

async function groupStates(events: EventStore, projector: ProjectorThread | null, io: Io): Promise<GroupState[]> {
  return Promise.all((projector?.progress() ?? []).map(async ({ group, generation, position, commits, events: folded }) => (
    { group, generation, gap: await events.gap(position), lagSeconds: await lagOf(events, position, io), commits, events: folded }
  )));
}
