// The long-running programs: `serve` is everything in one process; `ingest`, `project` and `api` are its parts, each in a
// process of its own, over the same stores. They differ in nothing but which parts they start (design.md section 7).
//
// The store commits in a thread of its own (SQLite) or elsewhere (a server), and the projector folds in another, so the
// thread that answers requests never waits for a disk or a fold.
import { mkdirSync } from 'node:fs';
import type { RequestListener } from 'node:http';
import type { Revision } from '../schemas/apis/eightbyeight.ts';
import { DEFAULT_MAX_EVENT_BYTES } from '../schemas/cloudevent.ts';
import { Admission, type AdmissionLimits } from './admission.ts';
import { SEARCH_DEFAULTS } from './api/call.ts';
import * as backends from './backends.ts';
import { type EventsPlace, nameOf, shardsOf, type SourcePlace, type ViewsPlace } from './backends.ts';
import { deadLetterTopicOf } from './dead-letter.ts';
import { Door } from './door.ts';
import { OperatingError } from './errors.ts';
import { isStale, liveOf, positionsOf, PROJECTIONS } from './generations.ts';
import { answers, createReadiness, healthApp, type Readiness } from './health.ts';
import { listen } from './http.ts';
import { awaited, holderOf, type Part, run, steady } from './lifecycle.ts';
import { createLog, type Log, type LogLevel } from './log.ts';
import { type Backend, createMetrics, type GroupState, type IngestState, type Metrics } from './metrics.ts';
import { gapOf, lagOf } from './ops/status.ts';
import type { Io } from './ops/terminal.ts';
import type { EventStore, Position, RateLimiter, Source, ViewStore } from './ports.ts';
import { lowestOf } from './positions.ts';
import type { ProjectorThread } from './projector/thread.ts';
import type { RateSetting } from './rate-limit.ts';
import { startingApp } from './starting.ts';
import { DEFAULT_WORKSPACE, masterKeyOf, Workspaces } from './workspaces.ts';

export type Program = 'serve' | 'ingest' | 'project' | 'api';

export interface ProgramOptions {
  readonly events: EventsPlace;
  readonly views: ViewsPlace;
  /** Kafka, for `ingest`, and for `serve` where it is to read a topic too. */
  readonly source?: SourcePlace | null;
  readonly host: string;
  readonly port: number;
  readonly maxEventBytes?: number;
  readonly '8x8Revision'?: Revision;
  /** Days of one search. */
  readonly maxRange?: number;
  /** Of API keys that say nothing. */
  readonly rateLimit?: RateSetting;
  readonly logLevel: LogLevel;
  readonly apiKey?: string | null;
  readonly masterKey: Uint8Array | null;
  readonly workspaceSecret?: Uint8Array | null;
  /** Hours in which everything that answers is looked at once; 0: never. */
  readonly audit?: number;
}

/** What a test or the bench replaces. */
export interface Seams {
  /** `false`: records only. */
  readonly fold?: boolean;
  readonly admission?: AdmissionLimits;
  readonly open?: Partial<Pick<typeof backends, 'openSource' | 'openTopic' | 'ensureTopic'>>;
}
export interface Told {
  readonly log: Log;
  readonly version: string;
  /** The port is ours; until it has started, only health is answered there. */
  readonly onListening?: (url: string, port: number) => void;
  /** It does what it is for: serves, takes in, folds. */
  readonly onStarted?: (url: string, port: number) => void;
}

/** A publish may hold this many bytes, batches included: some 25,000 events of 650 bytes, one commit's worth many times over. */
const BODY_BYTES_MAX = 16 * 1024 * 1024;
/** What is behind on a topic costs its brokers a request, so scrapes share one. */
const TOPIC_LOOK_MS = 5_000;
const GROUPS_LOOK_MS = 1_000;
const HOUR_MS = 3_600_000;

/** Runs until the signal aborts. Exit code 0 after a clean drain, 1 when a part failed. Throws what a start throws. */
export function programVerb(program: Program, options: ProgramOptions, io: Io, version: string): Promise<number> {
  const said: Readonly<Record<Program, (url: string) => string>> = {
    serve: (url) => `Throughline serves ${url} (documentation: ${url}/docs)`,
    api: (url) => `Throughline serves ${url} (documentation: ${url}/docs)`,
    ingest: (url) => `Throughline takes in ${options.source?.topic ?? ''}; its health is at ${url}/readyz`,
    project: (url) => `Throughline folds; its health is at ${url}/readyz`,
  };
  return runProgram(program, options, io, { log: createLog(options.logLevel), version, onStarted: (url) => { io.stdout.write(`${said[program](url)}\n`); } });
}

export function runProgram(program: Program, options: ProgramOptions, io: Io, told: Told, seams: Seams = {}): Promise<number> {
  const running = new Running(program, options, io, told, seams);
  const starts: Readonly<Record<Program, readonly (() => Promise<Part>)[]>> = {
    // Queries are answered while a topic is away: ingest comes after the api.
    serve: [running.hold, running.events('serve'), running.views, running.workspaces, running.firstStart, running.door, running.projector, running.limiter, running.api, running.ingest],
    ingest: [running.events('serve'), running.counts, running.workspaces, running.door, running.ingest],
    project: [running.events('read'), running.views, running.workspaces, running.projector],
    api: [running.events('serve'), running.views, running.workspaces, running.firstStart, running.door, running.limiter, running.api],
  };
  return run([running.port, ...starts[program], running.complete], { signal: io.signal, log: told.log, sleep: io.sleep });
}

interface Ingesting { counts(): IngestState; readiness(): Readiness; readonly source: Source }

/** What the parts of one process hand to each other as they start, one after the other. */
class Running {
  readonly #options: ProgramOptions;
  readonly #io: Io;
  readonly #told: Told;
  readonly #seams: Seams;
  readonly #metrics: Metrics;
  readonly #ready: () => Promise<Readiness>;
  /** Null where there is no api. */
  readonly #admission: Admission | null;
  #events: EventStore | null = null;
  #views: ViewStore | null = null;
  #workspaces: Workspaces | null = null;
  #masterKey: Uint8Array | null = null;
  #door: Door | null = null;
  #limiter: RateLimiter | null = null;
  /** Whether this process keeps every other `serve` out of its folder. */
  #holds = false;
  #projector: ProjectorThread | null = null;
  #ingesting: Ingesting | null = null;
  /** What is being waited for, null once all have started: a program is not ready before. */
  #awaiting: string | null = 'the first of its parts';
  /** What answers; the api takes over from it. */
  #app: RequestListener;
  #listening: { readonly url: string; readonly port: number; /** As often as one likes. */ stop(): Promise<void> } | null = null;
  #toldStarted = false;
  /** Aborts when a part ends while others still start: nothing is waited for any more. */
  readonly #failed = new AbortController();
  #groupsLook: { readonly at: number; readonly groups: Promise<readonly GroupState[]> } | null = null;
  #topicLook: { readonly at: number; readonly gaps: Promise<Awaited<ReturnType<Source['gaps']>> | null> } | null = null;

  constructor(program: Program, options: ProgramOptions, io: Io, told: Told, seams: Seams) {
    this.#options = options;
    this.#io = io;
    this.#told = told;
    this.#seams = seams;
    this.#admission = program === 'serve' || program === 'api' ? new Admission(steady, seams.admission) : null;
    this.#metrics = createMetrics({
      door: () => this.#door?.counts() ?? null,
      groups: () => this.#groups(),
      ...(program === 'ingest' ? {} : { stale: () => this.#stale() }),
      ...(program === 'serve' || program === 'project' ? { audit: () => this.#projector?.audited() ?? null } : {}),
      ...(this.#admission === null ? {} : { admission: () => this.#admission?.counts() ?? null }),
      ...(options.source === undefined || options.source === null ? {} : { ingest: () => this.#ingesting?.counts() ?? null, topicGaps: () => this.#topicGaps() }),
    });
    this.#ready = createReadiness([
      () => (this.#awaiting === null ? [] : [`waiting for ${this.#awaiting}`]),
      () => projectorReasons(this.#projector),
      () => this.#ingesting?.readiness().reasons ?? [],
      answers('the event store', async () => this.#events?.head(), io.sleep),
      // What ingest keeps in the views, its counts by source, waits with it until they are back.
      ...(program === 'ingest' ? [] : [answers('the view store', async () => this.#views?.live('journeys'), io.sleep)]),
    ], steady);
    const health = healthApp(this.#ready, this.#metrics);
    this.#app = program === 'serve' || program === 'api' ? startingApp(health) : health;
  }

  // ---- parts -----------------------------------------------------------------------------------------------------------

  /** First of all, before anything is made: who asks learns what a start waits for, and a port that is taken costs nothing. */
  readonly port = async (): Promise<Part> => {
    const { host, port: wanted } = this.#options;
    const { log, version, onListening } = this.#told;
    const { url, port, stop } = await listen((request, response) => this.#app(request, response), { host, port: wanted });
    let stopped: Promise<void> | null = null;
    const listening = this.#listening = { url, port, stop: () => stopped ??= stop() };
    onListening?.(url, port);
    log.info('listening', { host, port, version });
    return {
      name: 'http',
      stop: async () => {
        await listening.stop();
        this.#metrics.close();
      },
    };
  };

  /**
   * One `serve` a folder: it keeps out a second, and `import --data`. The split programs hold nothing: each of them may
   * append to events.sqlite (the expected revision is checked inside the write transaction) and commit to the views (the
   * position is), so two of a kind beside each other are as safe there as on servers.
   */
  readonly hold = async (): Promise<Part> => {
    const { events, views } = this.#options;
    const place = events.kind === 'sqlite' ? events : views.kind === 'sqlite' ? views : null;
    if (place === null) return nothing('folder');
    const { holdFolder } = await import('./adapters/sqlite-events.ts');
    mkdirSync(place.folder, { recursive: true, mode: 0o700 });
    const held = holdFolder(place.folder);
    this.#holds = true;
    return { name: 'folder', stop: () => { held.release(); return Promise.resolve(); } };
  };

  readonly events = (use: 'serve' | 'read') => async (): Promise<Part> => {
    const place = this.#options.events;
    const events = await this.#await(nameOf(place), 'start it, or correct --events (THROUGHLINE_EVENTS) or --data', 'events', () => backends.openEvents(place, { use, random: this.#io.random, onNotice: this.#noticing('events') }));
    this.#events = events;
    return { name: 'events', stop: () => events.close() };
  };

  readonly views = async (): Promise<Part> => {
    const place = this.#options.views;
    const views = await this.#await(nameOf(place), 'start it, or correct --views (THROUGHLINE_VIEWS)', 'views', () => backends.openViewsOf(started(this.#events), place, { clock: this.#io.clock, onNotice: this.#noticing('views') }));
    this.#views = views;
    return { name: 'views', stop: () => views.close() };
  };

  /** The views where they hold nothing but the counts by source, which the door keeps until they are there: only what another try cannot mend keeps from starting, or ends it later. */
  readonly counts = async (): Promise<Part> => {
    const place = this.#options.views;
    const what = nameOf(place);
    const stop = new AbortController();
    const signal = AbortSignal.any([this.#io.signal, this.#failed.signal, stop.signal]);
    const away = Promise.withResolvers<null>();
    const opening = awaited(what, '', () => backends.openViewsOf(started(this.#events), place, { clock: this.#io.clock, onNotice: this.#noticing('views') }), {
      signal, clock: steady, sleep: this.#io.sleep, waitMs: Infinity,
      onWait: ({ code, message }) => {
        this.#told.log.warn(`${what} is away: events are taken in, and the counts by source are kept until it is there: ${message}`, { backend: 'views', code });
        away.resolve(null);
      },
    }).then((views) => this.#views = views);
    await Promise.race([opening, away.promise]);
    const ended = new Promise<never>((_, reject) => { opening.catch((fault: unknown) => { if (!signal.aborted) reject(fault instanceof Error ? fault : new Error(String(fault))); }); });
    // As of a topic: told to whoever waits for it, also where nobody does yet.
    ended.catch(() => undefined);
    return {
      name: 'views', ended,
      stop: async () => {
        stop.abort();
        await (await opening.catch(() => null))?.close();
      },
    };
  };

  readonly workspaces = async (): Promise<Part> => {
    const { clock, random, sleep } = this.#io;
    const store = started(this.#events);
    const masterKey = this.#masterKey = await this.#await(nameOf(this.#options.events), 'see its log', 'events', () => masterKeyOf(this.#options.events, store, { given: this.#options.masterKey, mayMake: true, random }));
    const workspaces = await this.#await(nameOf(this.#options.events), 'see its log', 'events', () => Workspaces.open({ store, masterKey, clock, random, sleep, onFault: (fault) => this.#told.log.warn('following the workspaces was interrupted', { fault }) }));
    this.#workspaces = workspaces;
    return { name: 'workspaces', stop: () => workspaces.close() };
  };

  /** Makes the workspace `default` where there is none, and says its key this once. */
  readonly firstStart = async (): Promise<Part> => {
    const { apiKey = null, workspaceSecret = null } = this.#options;
    const { stdout, stderr } = this.#io;
    const first = await started(this.#workspaces).firstStart({ token: apiKey, secret: workspaceSecret });
    if (first.kind === 'made' && apiKey === null) stdout.write(`Workspace "${DEFAULT_WORKSPACE}" was made. Its API key, shown this once: ${first.token}\n`);
    if (first.kind === 'there' && first.tokenKnown === false) stderr.write('THROUGHLINE_API_KEY is set, but it is no key of these stores: it counts on the first start alone. "throughline keys create" makes another.\n');
    return nothing('first start');
  };

  readonly door = async (): Promise<Part> => {
    const { clock, random, sleep } = this.#io;
    const door = this.#door = new Door({
      store: started(this.#events), clock, random, sleep, tallies: { addTallies: async (tallies) => this.#counted().addTallies(tallies), tallies: async (workspace) => this.#counted().tallies(workspace) },
      onAppend: (seconds, count) => this.#metrics.append(seconds, count),
      onTallyFault: (fault) => this.#told.log.warn('the counts by source could not be written; they are kept and tried again', { fault }),
    });
    return { name: 'door', stop: () => door.drain() };
  };

  /**
   * The thread that folds. Which shards it folds is agreed with other processes by leases in the views; a `serve` that
   * holds its folder has all of them, and nobody to agree with.
   */
  readonly projector = async (): Promise<Part> => {
    if (this.#seams.fold === false) return nothing('projector');
    const { startProjectorThread } = await import('./projector/thread.ts');
    const { shareShards } = await import('./projector/leases.ts');
    const { events, views, audit = 0 } = this.#options;
    const { random, sleep } = this.#io;
    const alone = this.#holds && events.kind === 'sqlite' && views.kind === 'sqlite';
    const shards = shardsOf(views);
    const onFault = (message: string, attempt: number): void => this.#told.log.warn(`the projector met a passing fault: ${message}`, { attempt });
    const thread = this.#projector = startProjectorThread({ events, views, masterKey: started(this.#masterKey), shards, owned: alone ? 'all' : [], auditMs: audit === 0 ? null : audit * HOUR_MS }, onFault,
      ({ key, live, built }) => this.#told.log.error('the audit found a document that is not what the log says: throughline verify shows it, replay makes it right', { document: key, hash: live ?? 'absent', expected: built ?? 'absent' }));
    thread.ended.catch((fault: unknown) => { this.#failed.abort(fault); });
    const stop = new AbortController();
    const sharing = alone ? Promise.resolve() : shareShards({
      views: started(this.#views), holder: holderOf(random), shards, clock: steady, sleep, signal: stop.signal,
      onChange: (owned) => {
        if (owned.length === 0) this.#told.log.info('folds no shard now');
        else this.#told.log.info('folds these shards now', { shards: owned.join(' ') });
        thread.own(owned);
      },
      onFault: (fault) => this.#told.log.warn('the leases of shards could not be renewed', { backend: 'views', fault }),
    });
    return {
      name: 'projector', ended: thread.ended,
      stop: async () => {
        // Leases are given back when nothing is folded any more, so that who takes them finds the work where it stands.
        await thread.stop();
        stop.abort();
        await sharing;
      },
    };
  };

  readonly ingest = async (): Promise<Part> => {
    const { source: place = null, maxEventBytes } = this.#options;
    if (place === null) return nothing('ingest');
    const workspaces = started(this.#workspaces);
    const unknown = place.workspaces.filter((id) => workspaces.keys(id) === null);
    if (unknown.length > 0) throw new OperatingError('badConfiguration', `the source may write to workspaces that do not exist: make each first (${unknown.map((id) => `throughline workspaces create ${id}`).join('; ')}), or correct workspaces= of --source`);
    return this.#openIngest(place, maxEventBytes ?? DEFAULT_MAX_EVENT_BYTES, workspaces);
  };

  readonly limiter = async (): Promise<Part> => {
    const place = this.#options.views;
    const limiter = await this.#await(nameOf(place), 'start it, or correct --views (THROUGHLINE_VIEWS)', 'views', () => backends.openLimiter(place, { clock: steady, onNotice: this.#noticing('views') }));
    this.#limiter = limiter;
    return { name: 'limiter', stop: () => limiter.close() };
  };

  readonly api = async (): Promise<Part> => {
    const { createApi } = await import('./api/app.ts');
    const { sleep } = this.#io;
    const { log, version } = this.#told;
    const { maxEventBytes = DEFAULT_MAX_EVENT_BYTES, maxRange = SEARCH_DEFAULTS.maxRangeDays, rateLimit = SEARCH_DEFAULTS.rateLimit, '8x8Revision': revision = SEARCH_DEFAULTS.revision } = this.#options;
    this.#app = createApi({
      events: started(this.#events), views: started(this.#views), workspaces: started(this.#workspaces), door: this.#door, clock: steady, metrics: this.#metrics, version, log,
      wait: (ms) => sleep(ms),
      limits: { maxEventBytes, maxBodyBytes: Math.max(BODY_BYTES_MAX, maxEventBytes), maxRangeDays: maxRange }, limiter: started(this.#limiter), rateLimit, revision,
      ...(this.#admission === null ? {} : { admission: this.#admission }),
      ready: this.#ready,
    });
    this.#tellStarted();
    // What it answers from is stopped after it.
    return { name: 'api', stop: () => started(this.#listening).stop() };
  };

  /** Last of all. */
  readonly complete = async (): Promise<Part> => {
    this.#awaiting = null;
    this.#tellStarted();
    return nothing('start');
  };

  // ---- what they are made of ---------------------------------------------------------------------------------------------

  async #openIngest(place: SourcePlace, maxEventBytes: number, workspaces: Workspaces): Promise<Part> {
    const { openSource, openTopic, ensureTopic } = { ...backends, ...this.#seams.open };
    const { createIngest } = await import('./ingest/ingest.ts');
    const { sleep } = this.#io;
    const name = deadLetterTopicOf(place.topic);
    const away = 'start it, or correct --source (THROUGHLINE_SOURCE)';
    await this.#await(nameOf(place), away, 'source', () => ensureTopic(place, name));
    const source = await this.#await(nameOf(place), away, 'source', () => openSource(place, { onNotice: this.#noticing('source') }));
    const deadLetters = await this.#await(nameOf(place), away, 'source', () => openTopic(place, name, { onNotice: this.#noticing('source') }));
    const ingest = createIngest({
      source, deadLetters, door: started(this.#door), keysOf: (workspace) => workspaces.keys(workspace), workspaces: place.workspaces, maxEventBytes, clock: steady, sleep,
      onFault: (fault, { partition, ms, reason }) => this.#told.log.warn(`a partition stands still: ${reason}`, { backend: 'source', partition, ms, fault }),
      onDeadLetters: ({ partition, count, codes }) => this.#told.log.warn('records were written to the dead letters (throughline dead-letters list)', { backend: 'source', partition, events: count, code: Object.keys(codes).sort().join(' ') }),
    });
    const stop = new AbortController();
    const ended = ingest.run(stop.signal);
    // Whoever starts it also listens to `ended`; this keeps a rejection before that from ending the process unexplained.
    ended.catch(() => undefined);
    this.#ingesting = { counts: () => ingest.counts(), readiness: () => ingest.readiness(), source };
    return {
      name: 'ingest', ended,
      stop: async () => {
        stop.abort();
        await ended.catch(() => undefined);
        await deadLetters.close();
        await source.close();
      },
    };
  }

  /** Once: an api serves before all of its program has started. */
  #tellStarted(): void {
    if (this.#toldStarted) return;
    this.#toldStarted = true;
    const { log, onStarted } = this.#told;
    const { url, port } = started(this.#listening);
    log.info('started', { storeId: started(this.#events).storeId });
    onStarted?.(url, port);
  }

  async #await<T>(what: string, advice: string, backend: Backend, open: () => Promise<T>): Promise<T> {
    this.#awaiting = what;
    const { sleep } = this.#io;
    const signal = AbortSignal.any([this.#io.signal, this.#failed.signal]);
    const opened = await awaited(what, advice, open, { signal, clock: steady, sleep, onWait: ({ code, message }) => this.#told.log.warn(`waiting for ${what}: ${message}`, { backend, code }) });
    this.#awaiting = 'the rest of its parts';
    return opened;
  }

  #noticing(backend: Backend): backends.OnNotice {
    return (message, fields) => {
      this.#metrics.notice(backend);
      // Of what an adapter tells, the log takes the fields that it knows to hold nothing of a customer or a credential.
      const known = Object.fromEntries(NOTICE_FIELDS.flatMap((name) => (['string', 'number'].includes(typeof fields[name]) ? [[name, fields[name]]] : [])));
      this.#told.log.warn(message, { backend, ...known });
    };
  }

  #counted(): ViewStore {
    if (this.#views === null) throw new OperatingError('storeUnavailable', `${nameOf(this.#options.views)} is not there yet`);
    return this.#views;
  }

  /** Every gauge of a scrape asks; the store is asked once. */
  #groups(): Promise<readonly GroupState[]> {
    const now = steady.now();
    if (this.#groupsLook === null || now - this.#groupsLook.at >= GROUPS_LOOK_MS) this.#groupsLook = { at: now, groups: this.#lookAtGroups().catch(() => []) };
    return this.#groupsLook.groups;
  }

  async #lookAtGroups(): Promise<readonly GroupState[]> {
    const events = this.#events;
    if (events === null) return [];
    return Promise.all((this.#projector?.progress() ?? []).map(async ({ group, generation, through, commits, events: folded, unreadable, shards }) => {
      const stands = await this.#whereItAnswers(group, generation, through);
      return { group, generation, gap: await gapOf(events, stands), lagSeconds: await lagOf(events, stands, this.#io), commits, events: folded, unreadable, shards: shards.length };
    }));
  }

  /** How far the generation stands that answers: while this program builds another, readers do not wait for that one. */
  async #whereItAnswers(group: string, folded: number, through: Position | null): Promise<Position | null> {
    const views = this.#views;
    if (views === null) return through;
    try {
      const live = await liveOf(views, group);
      return live === null || live.id === folded ? through : lowestOf(await positionsOf(views, live));
    } catch {
      return through;
    }
  }

  /** Which groups another version of the program folded; none that is not known now. */
  async #stale(): Promise<readonly { readonly group: string; readonly stale: boolean }[]> {
    const views = this.#views;
    if (views === null) return [];
    try {
      const live = await Promise.all(Object.keys(PROJECTIONS).map((group) => liveOf(views, group)));
      return live.flatMap((generation) => (generation === null ? [] : [{ group: generation.group, stale: isStale(generation) }]));
    } catch {
      return [];
    }
  }

  #topicGaps(): Promise<Awaited<ReturnType<Source['gaps']>> | null> {
    const now = steady.now();
    if (this.#ingesting === null) return Promise.resolve(null);
    // A scrape must not fail because one of the servers is away: that is when its other numbers are wanted.
    if (this.#topicLook === null || now - this.#topicLook.at >= TOPIC_LOOK_MS) this.#topicLook = { at: now, gaps: this.#ingesting.source.gaps().catch(() => null) };
    return this.#topicLook.gaps;
  }
}

function projectorReasons(projector: ProjectorThread | null): readonly string[] {
  if (projector === null) return [];
  if (projector.failed()) return ['the projector has stopped'];
  const trouble = projector.trouble();
  return trouble === null ? [] : [`the projector cannot fold: ${trouble}`];
}

const NOTICE_FIELDS = ['ms', 'attempt', 'code', 'partition', 'group', 'generation', 'shard', 'events', 'gap', 'error', 'topic', 'broker', 'waitMs'] as const;

function nothing(name: string): Part { return { name, stop: () => Promise.resolve() }; }

function started<T>(part: T | null): T {
  if (part === null) throw new Error('assertion: the parts start in order');
  return part;
}
