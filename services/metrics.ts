// What Prometheus is shown. A registry of its own per process part, made on demand; names and labels hold no customer's
// value: a route's pattern, a rejection's code, a group.
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { AdmissionCounts } from './admission.ts';
import type { DoorCounts } from './door.ts';

/** Per group, over the shards that this process folds; gap and lag are those of the generation that answers, also while another is being built. */
export interface GroupState { readonly group: string; readonly generation: number; readonly gap: number | null; readonly lagSeconds: number | null; readonly commits: number; readonly events: number; readonly unreadable: number; readonly shards: number }
/** What came from a topic and what became of it. */
export interface IngestState {
  readonly received: number;
  readonly recorded: number;
  readonly duplicates: number;
  readonly returned: number;
  readonly keyless: number;
  /** Dead-lettered, by rejection code. */
  readonly rejected: Readonly<Record<string, number>>;
  readonly partitions: readonly { readonly partition: number; readonly paused: boolean }[];
}
export type Backend = 'events' | 'views' | 'source';

/** Where the numbers come from; each is asked when somebody scrapes. */
export interface MetricSources {
  /** Null while there is none yet: then nothing of it is shown. */
  readonly door?: () => DoorCounts | null;
  /** What the api takes on at a time, by kind of request. */
  readonly admission?: () => Readonly<Record<string, AdmissionCounts>> | null;
  readonly groups?: () => Promise<readonly GroupState[]>;
  /** Per group with a live generation. */
  readonly stale?: () => Promise<readonly { readonly group: string; readonly stale: boolean }[]>;
  /** What the audit has looked at. */
  readonly audit?: () => { readonly checked: number; readonly unknown: number; readonly documents: number } | null;
  readonly ingest?: () => IngestState | null;
  /** Records behind on the topic, by partition; null where that is not known now. */
  readonly topicGaps?: () => Promise<readonly { readonly partition: number; readonly gap: number }[] | null>;
}

export interface Metrics {
  readonly contentType: string;
  /** One durable append of the door. */
  append(seconds: number, events: number): void;
  /** One answered request, by its route's pattern. */
  request(method: string, route: string, status: number, seconds: number): void;
  /** Something that an adapter noticed about its server and dealt with. */
  notice(backend: Backend): void;
  text(): Promise<string>;
  close(): void;
}

const NAMESPACE = 'throughline';

export function createMetrics(sources: MetricSources): Metrics {
  const registry = new Registry();
  const closeProcess = watchProcess(registry);
  if (sources.door !== undefined) watchDoor(registry, sources.door);
  if (sources.admission !== undefined) watchAdmission(registry, sources.admission);
  if (sources.groups !== undefined) watchGroups(registry, sources.groups);
  if (sources.stale !== undefined) watchStale(registry, sources.stale);
  if (sources.audit !== undefined) watchAudit(registry, sources.audit);
  if (sources.ingest !== undefined) watchIngest(registry, sources.ingest);
  if (sources.topicGaps !== undefined) watchTopic(registry, sources.topicGaps);
  const notices = new Counter({ name: `${NAMESPACE}_backend_notices_total`, help: 'What an adapter noticed about its server and dealt with (a connection lost and made anew, a call repeated); the log says what', labelNames: ['backend'], registers: [registry] });
  const appends = new Histogram({
    name: `${NAMESPACE}_append_seconds`, help: 'From handing an append to the store until it was durable', registers: [registry],
    buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5],
  });
  const appended = new Counter({ name: `${NAMESPACE}_appended_events_total`, help: 'Events made durable', registers: [registry] });
  const requests = new Histogram({
    name: `${NAMESPACE}_http_request_seconds`, help: 'Requests answered, by route pattern and status', labelNames: ['method', 'route', 'status'], registers: [registry],
    buckets: [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5],
  });
  return {
    contentType: registry.contentType,
    append: (seconds, events) => {
      appends.observe(seconds);
      appended.inc(events);
    },
    request: (method, route, status, seconds) => requests.observe({ method, route, status }, seconds),
    notice: (backend) => notices.inc({ backend }),
    text: () => registry.metrics(),
    close: closeProcess,
  };
}

/** Of what counts by itself a scrape copies what it says; nothing is paid per event. Null while there is none: 0. */
function totals<Counts>(registry: Registry, of: string, read: () => Counts | null): (name: string, help: string, pick: (counts: Counts) => number) => void {
  return (name, help, pick) => {
    new Counter({
      name: `${NAMESPACE}_${of}_${name}_total`, help, registers: [registry],
      collect() {
        const counts = read();
        this.reset();
        this.inc(counts === null ? 0 : pick(counts));
      },
    });
  };
}

function watchDoor(registry: Registry, read: () => DoorCounts | null): void {
  const total = totals(registry, 'door', read);
  total('recorded', 'Events recorded', (counts) => counts.recorded);
  total('duplicates', 'Deliveries of events recorded before', (counts) => counts.duplicates);
  total('reused_ids', 'Events recorded whose source and id another event of their stream has', (counts) => counts.reusedIds);
  total('failed', 'Deliveries answered by an error, not acknowledged', (counts) => counts.failed);
  total('conflicts', 'Appends that met another writer', (counts) => counts.conflicts);
  total('faults', 'Reads and appends whose outcome was unknown', (counts) => counts.faults);
  new Counter({
    name: `${NAMESPACE}_door_rejected_total`, help: 'Deliveries rejected', labelNames: ['code'], registers: [registry],
    collect() {
      this.reset();
      for (const [code, count] of Object.entries(read()?.rejected ?? {})) this.inc({ code }, count);
    },
  });
  const now = (name: string, help: string, of: (counts: DoorCounts) => number): void => {
    new Gauge({
      name: `${NAMESPACE}_door_${name}`, help, registers: [registry],
      collect() {
        const counts = read();
        this.set(counts === null ? 0 : of(counts));
      },
    });
  };
  now('in_flight_events', 'Events accepted and not yet durable', (counts) => counts.inFlightEvents);
  now('in_flight_bytes', 'Their bytes', (counts) => counts.inFlightBytes);
  now('streams', 'Streams whose end is remembered', (counts) => counts.streams);
}

function watchAdmission(registry: Registry, read: () => Readonly<Record<string, AdmissionCounts>> | null): void {
  new Counter({
    name: `${NAMESPACE}_http_shed_total`, help: 'Requests told to come again (503 with Retry-After), by kind and by what there was too much of: requests under way, or bytes of bodies', labelNames: ['kind', 'shortage'], registers: [registry],
    collect() {
      this.reset();
      for (const [kind, { shed }] of Object.entries(read() ?? {})) for (const [shortage, count] of Object.entries(shed)) this.inc({ kind, shortage }, count);
    },
  });
  const now = (name: string, help: string, of: (counts: AdmissionCounts) => number): void => {
    new Gauge({
      name: `${NAMESPACE}_http_${name}`, help, labelNames: ['kind'], registers: [registry],
      collect() {
        this.reset();
        for (const [kind, counts] of Object.entries(read() ?? {})) this.set({ kind }, of(counts));
      },
    });
  };
  now('under_way', 'Requests under way, by kind', (counts) => counts.underWay);
  now('body_bytes', 'Bytes of request bodies held, by kind', (counts) => counts.bytes);
  now('body_bytes_most', 'The most that was held of them at a time since the start', (counts) => counts.bytesMost);
}

function watchGroups(registry: Registry, read: () => Promise<readonly GroupState[]>): void {
  const gauge = (name: string, help: string, of: (state: GroupState) => number | null): void => {
    new Gauge({
      name: `${NAMESPACE}_group_${name}`, help, labelNames: ['group'], registers: [registry],
      async collect() {
        this.reset();
        for (const state of await read()) {
          const value = of(state);
          if (value !== null) this.set({ group: state.group }, value);
        }
      },
    });
  };
  gauge('gap', 'Events that the generation that answers is behind the head of the log', (state) => state.gap);
  gauge('lag_seconds', 'Time that the generation that answers is behind: now less the recorded time of the oldest event not folded into it', (state) => state.lagSeconds);
  gauge('generation', 'The generation that is folded: the one that answers, or after an upgrade the one that will', (state) => state.generation);
  gauge('commits', 'Commits since the projector started', (state) => state.commits);
  gauge('events', 'Events folded since the projector started', (state) => state.events);
  gauge('unreadable', 'Of them, events whose type a vocabulary knows and whose data it cannot read: recorded, and part of no journey', (state) => state.unreadable);
  gauge('shards', 'Shards that this process folds now', (state) => state.shards);
}

function watchStale(registry: Registry, read: NonNullable<MetricSources['stale']>): void {
  new Gauge({
    name: `${NAMESPACE}_view_stale`, help: '1: another version of the program folded what answers, and it may stand still', labelNames: ['group'], registers: [registry],
    async collect() {
      this.reset();
      for (const { group, stale } of await read()) this.set({ group }, stale ? 1 : 0);
    },
  });
}

function watchAudit(registry: Registry, read: NonNullable<MetricSources['audit']>): void {
  const total = totals(registry, 'audit', read);
  total('checked', 'Journeys and persons folded anew from the log and compared with what answers', (counts) => counts.checked);
  total('unknown', 'Journeys and persons that their streams alone do not tell (verify --all does)', (counts) => counts.unknown);
  total('different', 'Documents that were not what the log says', (counts) => counts.documents);
}

function watchIngest(registry: Registry, read: () => IngestState | null): void {
  const total = totals(registry, 'ingest', read);
  total('received', 'Records that the topic delivered, perhaps again', (state) => state.received);
  total('recorded', 'Of them, events recorded', (state) => state.recorded);
  total('duplicates', 'Of them, events recorded before', (state) => state.duplicates);
  total('returned', 'Of them, records that could not be dealt with now: they are delivered again', (state) => state.returned);
  total('keyless', 'Of them, records without a key: their producer does not key by identity, and no order of theirs is kept', (state) => state.keyless);
  new Counter({
    name: `${NAMESPACE}_ingest_dead_lettered_total`, help: 'Of them, records written to the dead-letter topic, by the code of their rejection', labelNames: ['code'], registers: [registry],
    collect() {
      this.reset();
      for (const [code, count] of Object.entries(read()?.rejected ?? {})) this.inc({ code }, count);
    },
  });
  new Gauge({ name: `${NAMESPACE}_ingest_paused_partitions`, help: 'Partitions left alone for a moment because a store or the dead-letter topic does not take what they bring', registers: [registry], collect() { this.set((read()?.partitions ?? []).filter(({ paused }) => paused).length); } });
  new Gauge({ name: `${NAMESPACE}_ingest_partitions`, help: 'Partitions of the topic that are assigned to this process', registers: [registry], collect() { this.set(read()?.partitions.length ?? 0); } });
}

function watchTopic(registry: Registry, read: () => Promise<readonly { readonly partition: number; readonly gap: number }[] | null>): void {
  new Gauge({
    name: `${NAMESPACE}_topic_gap`, help: 'Records of the topic that the consumer group has not committed, by partition (the whole topic, whoever consumes it)', labelNames: ['partition'], registers: [registry],
    async collect() {
      this.reset();
      for (const { partition, gap } of (await read()) ?? []) this.set({ partition: String(partition) }, gap);
    },
  });
}

/** Few, instead of prom-client's default set: those one looks at. */
function watchProcess(registry: Registry): () => void {
  const loop = monitorEventLoopDelay({ resolution: 20 });
  loop.enable();
  new Gauge({ name: 'process_resident_memory_bytes', help: 'Resident memory', registers: [registry], collect() { this.set(process.memoryUsage.rss()); } });
  new Counter({
    name: 'process_cpu_seconds_total', help: 'User and system time', registers: [registry],
    collect() {
      const { user, system } = process.cpuUsage();
      this.reset();
      this.inc((user + system) / 1e6);
    },
  });
  new Gauge({
    name: 'nodejs_eventloop_lag_p99_seconds', help: '99th percentile since the last scrape', registers: [registry],
    collect() {
      this.set(Number.isNaN(loop.percentile(99)) ? 0 : loop.percentile(99) / 1e9);
      loop.reset();
    },
  });
  return () => { loop.disable(); };
}
