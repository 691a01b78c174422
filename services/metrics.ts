// What Prometheus is shown. A registry of its own per process part, made on demand; names and labels hold no customer's
// value: a route's pattern, a rejection's code, a group.
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { DoorCounts } from './door.ts';

export interface GroupState { readonly group: string; readonly generation: number; readonly gap: number | null; readonly lagSeconds: number | null; readonly commits: number; readonly events: number }

/** Where the numbers come from; each is asked when somebody scrapes. */
export interface MetricSources {
  readonly door?: () => DoorCounts;
  readonly groups?: () => Promise<readonly GroupState[]>;
}

export interface Metrics {
  readonly contentType: string;
  /** One durable append of the door. */
  append(seconds: number, events: number): void;
  /** One answered request, by its route's pattern. */
  request(method: string, route: string, status: number, seconds: number): void;
  text(): Promise<string>;
  close(): void;
}

const NAMESPACE = 'throughline';

export function createMetrics(sources: MetricSources): Metrics {
  const registry = new Registry();
  const closeProcess = watchProcess(registry);
  if (sources.door !== undefined) watchDoor(registry, sources.door);
  if (sources.groups !== undefined) watchGroups(registry, sources.groups);
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
    text: () => registry.metrics(),
    close: closeProcess,
  };
}

/** The door counts by itself, so a scrape copies what it says; nothing is paid per event. */
function watchDoor(registry: Registry, read: () => DoorCounts): void {
  const total = (name: string, help: string, of: (counts: DoorCounts) => number): void => {
    new Counter({ name: `${NAMESPACE}_door_${name}_total`, help, registers: [registry], collect() { this.reset(); this.inc(of(read())); } });
  };
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
      for (const [code, count] of Object.entries(read().rejected)) this.inc({ code }, count);
    },
  });
  const now = (name: string, help: string, of: (counts: DoorCounts) => number): void => {
    new Gauge({ name: `${NAMESPACE}_door_${name}`, help, registers: [registry], collect() { this.set(of(read())); } });
  };
  now('in_flight_events', 'Events accepted and not yet durable', (counts) => counts.inFlightEvents);
  now('in_flight_bytes', 'Their bytes', (counts) => counts.inFlightBytes);
  now('streams', 'Streams whose end is remembered', (counts) => counts.streams);
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
  gauge('gap', 'Events behind the head of the log', (state) => state.gap);
  gauge('lag_seconds', 'Time behind: now less the recorded time of the oldest event not folded', (state) => state.lagSeconds);
  gauge('generation', 'The generation that answers', (state) => state.generation);
  gauge('commits', 'Commits since the projector started', (state) => state.commits);
  gauge('events', 'Events folded since the projector started', (state) => state.events);
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
