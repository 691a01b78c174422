// The projector's thread: its own connections to the stores, so that no fold ever stands in the way of the API or of what
// keeps leases up. It ends when it is told to, when a store fails for good, or with the process.
import { randomBytes } from 'node:crypto';
import { parentPort, workerData } from 'node:worker_threads';
import { type EventsPlace, openEvents, openViews, type ViewsPlace } from '../backends.ts';
import { OperatingError } from '../errors.ts';
import { PROJECTIONS } from '../generations.ts';
import { sleep, steady } from '../lifecycle.ts';
import type { EventStore, ViewStore } from '../ports.ts';
import { keysReader } from '../workspaces.ts';
import { audit, type Audited } from './audit.ts';
import { backOff, type GroupProgress, type ProjectorOptions, ROOM, runProjector } from './projector.ts';
import { isEmbedded, toldOf, type ToldFault } from './thread.ts';

export interface ProjectorThreadData {
  readonly events: EventsPlace;
  readonly views: ViewsPlace;
  readonly masterKey: Uint8Array;
  readonly shards: number;
  readonly owned: readonly number[] | 'all';
  /** Milliseconds in which everything is to be looked at once; null: no audit. */
  readonly auditMs: number | null;
}
export type ToProjector = { readonly kind: 'stop' } | { readonly kind: 'own'; readonly shards: readonly number[] };
export type FromProjector =
  | { readonly kind: 'progress'; readonly groups: readonly GroupProgress[] }
  | { readonly kind: 'fault'; readonly message: string; readonly attempt: number }
  | { readonly kind: 'audited'; readonly audited: Audited }
  /** After faults: it folds again. */
  | { readonly kind: 'recovered' }
  | { readonly kind: 'stopped' }
  | { readonly kind: 'failed'; readonly fault: ToldFault };

/** Progress is told at most this often, and at once when a group has caught up or fallen behind. */
const PROGRESS_MS = 250;

/** What was passed over is told by a timer: the last of a burst may be the last for hours, and a gap would stand there meanwhile that is none. */
function progressTeller(tell: (message: FromProjector) => void): { report(groups: readonly GroupProgress[]): void; close(): void } {
  let latest: readonly GroupProgress[] = [];
  let toldMs = -Infinity;
  let caughtUp = false;
  let timer: NodeJS.Timeout | undefined;
  const send = (): void => {
    clearTimeout(timer);
    timer = undefined;
    toldMs = steady.now();
    tell({ kind: 'progress', groups: latest });
  };
  return {
    report: (groups) => {
      latest = groups;
      const all = groups.every((group) => group.caughtUp);
      const dueMs = all === caughtUp ? toldMs + PROGRESS_MS - steady.now() : 0;
      caughtUp = all;
      if (dueMs <= 0) send();
      else timer ??= setTimeout(send, dueMs);
    },
    close: () => clearTimeout(timer),
  };
}

/** What the thread is to do, as the last message said: its signal aborts when that changes. */
class Orders {
  owned: readonly number[] | 'all';
  #following = new AbortController();
  readonly #stop = new AbortController();

  constructor(owned: readonly number[] | 'all') { this.owned = owned; }

  get stop(): AbortSignal { return this.#stop.signal; }

  /** For what is to follow `owned`. */
  following(): AbortSignal {
    if (!this.stop.aborted) this.#following = new AbortController();
    return this.#following.signal;
  }

  receive(message: ToProjector): void {
    switch (message.kind) {
      case 'stop': this.#stop.abort(); break;
      case 'own': this.owned = message.shards; break;
    }
    this.#following.abort();
  }
}

const clock = { now: () => Date.now() };

/** Null when it was told to stop before. A server may be away when this starts, and come; a folder is there or is not. */
async function opened<T>(open: () => Promise<T>, data: ProjectorThreadData, stop: AbortSignal, onFault: ProjectorOptions['onFault']): Promise<T | null> {
  for (let attempt = 0; !stop.aborted; attempt += 1) {
    try {
      return await open();
    } catch (fault) {
      if (isEmbedded(data) || !(fault instanceof OperatingError) || !fault.retriable) throw fault;
      onFault(fault, attempt);
      await sleep(backOff(attempt), stop);
    }
  }
  return null;
}

interface Stores { readonly events: EventStore; readonly views: ViewStore }

/** Follows what it is told to, until it is told to stop. */
async function project(data: ProjectorThreadData, orders: Orders, stores: Stores, keysOf: ProjectorOptions['keysOf'], told: Pick<ProjectorOptions, 'onProgress' | 'onFault'>): Promise<void> {
  const embedded = isEmbedded(data);
  while (!orders.stop.aborted) {
    await runProjector({
      ...stores, ...told, projections: Object.values(PROJECTIONS), keysOf, clock: steady, wait: sleep, signal: orders.following(), shards: data.shards, owned: orders.owned,
      patience: embedded ? 'bounded' : 'endless', room: embedded ? ROOM.embedded : ROOM.servers,
    });
  }
}

/** Folds, and looks whether it was folded rightly; both end when it is told to stop, or when folding does. */
async function work(data: ProjectorThreadData, orders: Orders, stores: Stores, told: Pick<ProjectorOptions, 'onProgress' | 'onFault'>, tell: (message: FromProjector) => void): Promise<void> {
  const keysOf = keysReader(stores.events, data.masterKey);
  const over = new AbortController();
  const auditing = data.auditMs === null ? Promise.resolve() : audit({
    ...stores, keysOf, owned: () => orders.owned, parts: data.shards, roundMs: data.auditMs, wait: sleep, signal: AbortSignal.any([orders.stop, over.signal]),
    // The projector meets the same, and says so.
    onFault: () => undefined, onChecked: (audited) => tell({ kind: 'audited', audited }),
  });
  try {
    await Promise.race([project(data, orders, stores, keysOf, told), auditing.then(() => new Promise<never>(() => undefined))]);
  } finally {
    over.abort();
    await auditing;
  }
}

export async function runWorker(data: ProjectorThreadData, port: NonNullable<typeof parentPort>): Promise<void> {
  const orders = new Orders(data.owned);
  port.on('message', (message: ToProjector) => orders.receive(message));
  const tell = (message: FromProjector): void => port.postMessage(message);
  const progress = progressTeller(tell);
  let faulty = false;
  const told: Pick<ProjectorOptions, 'onProgress' | 'onFault'> = {
    onProgress: (groups) => {
      if (faulty) tell({ kind: 'recovered' });
      faulty = false;
      progress.report(groups);
    },
    onFault: (fault, attempt) => {
      faulty = true;
      tell({ kind: 'fault', message: fault instanceof Error ? fault.message : String(fault), attempt });
    },
  };
  try {
    const events = await opened(() => openEvents(data.events, { use: 'read', random: (size) => randomBytes(size) }), data, orders.stop, told.onFault);
    const views = await opened(() => openViews(data.views, { clock }), data, orders.stop, told.onFault);
    if (events !== null && views !== null) await work(data, orders, { events, views }, told, tell);
    await views?.close();
    await events?.close();
    tell({ kind: 'stopped' });
  } catch (fault) {
    tell({ kind: 'failed', fault: toldOf(fault) });
  }
  progress.close();
  port.close();
}

if (parentPort !== null) await runWorker(workerData as ProjectorThreadData, parentPort);
