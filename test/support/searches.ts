// The 8x8 searches over a real view store: facts are folded by the projection itself, and everything is asked over HTTP.
// Beside it what an answer shows for a filter, read off the answer alone.
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { journeys } from '../../projections/journeys.ts';
import type { Interpreted } from '../../schemas/facts.ts';
import { isWorkspaceId, workspaceKeys, type WorkspaceKeys } from '../../schemas/identity.ts';
import { MemoryEventStore } from '../../services/adapters/memory-events.ts';
import { MemoryViewStore } from '../../services/adapters/memory-views.ts';
import { openRedisViewStore } from '../../services/adapters/redis.ts';
import { openSqliteViewStore } from '../../services/adapters/sqlite-views.ts';
import { createApi } from '../../services/api/app.ts';
import type { ApiDeps } from '../../services/api/call.ts';
import type { Position, ViewStore } from '../../services/ports.ts';
import { type Arrival, CacheRoom, Target } from '../../services/projector/target.ts';
import { LocalLimiter } from '../../services/rate-limit.ts';
import { describeOn } from './local-server.ts';
import { redisPlace, type RedisServer, startRedis } from './redis-server.ts';

export const JOURNEYS_SEARCH = '/cidp/journey/api/v1/journeys/search';
export const TRANSITIONS_SEARCH = '/cidp/journey/api/v1/transitions/search';

// ---- stores --------------------------------------------------------------------------------------------------------------

/** An empty store, and the same one through another connection, as another process has it. */
export interface StoreOpened { readonly views: ViewStore; readonly again: () => Promise<ViewStore>; readonly dispose: () => Promise<void> }

async function opened(openOne: () => Promise<ViewStore>, end: () => void): Promise<StoreOpened> {
  const all: ViewStore[] = [];
  const again = async (): Promise<ViewStore> => {
    const views = await openOne();
    all.push(views);
    return views;
  };
  const dispose = async (): Promise<void> => {
    for (const views of all) await views.close();
    end();
  };
  return { views: await again(), again, dispose };
}

/** Declares the tests over memory, SQLite and a Redis. */
export function describeOnStores(declare: (open: () => Promise<StoreOpened>) => void): void {
  describe('over memory', () => declare(async () => {
    const views = new MemoryViewStore();
    return opened(async () => views, () => undefined);
  }));
  describe('over SQLite', () => declare(async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'throughline-searches-'));
    return opened(() => openSqliteViewStore({ folder }), () => rmSync(folder, { recursive: true }));
  }));
  describeOn(['redis'], 'over Redis', () => {
    let server: RedisServer;
    beforeAll(async () => { server = await startRedis(); });
    afterAll(async () => server.stop());
    declare(() => opened(() => openRedisViewStore(redisPlace(server), { clock: Date }), () => void server.say('flushall')));
  });
}

// ---- a server ------------------------------------------------------------------------------------------------------------

type Settings = ReturnType<ApiDeps['workspaces']['settings']>;
type Body = Readonly<Record<string, unknown>>;
/** Untyped on purpose: what it holds is what is being tested. */
export type Answered = ReturnType<typeof JSON.parse>;
export interface SearchAnswer { readonly status: number; readonly headers: Headers; readonly body: Answered }

const workspaces = new Map<string, WorkspaceKeys>();
export function workspaceNamed(name: string): WorkspaceKeys {
  if (!isWorkspaceId(name)) throw new Error('not a workspace');
  const keys = workspaces.get(name) ?? workspaceKeys(name, Buffer.alloc(32, name));
  workspaces.set(name, keys);
  return keys;
}

/** An api process; a key is `key of <workspace>`, without a limit, or `few of <workspace>`, with one of two in a minute. */
export class SearchServer {
  readonly url: string;
  readonly close: () => Promise<void>;
  constructor(url: string, close: () => Promise<void>) {
    this.url = url;
    this.close = close;
  }

  async ask(address: string, init: RequestInit = {}, key = 'key of acme'): Promise<SearchAnswer> {
    const response = await fetch(this.url + address, { ...init, headers: { 'x-api-key': key, ...init.headers } });
    const text = await response.text();
    return { status: response.status, headers: response.headers, body: text === '' ? null : JSON.parse(text) };
  }

  post(address: string, body: unknown, key?: string, headers: Record<string, string> = {}): Promise<SearchAnswer> {
    return this.ask(address, { method: 'POST', body: typeof body === 'string' ? body : JSON.stringify(body), headers: { 'content-type': 'application/json', ...headers } }, key);
  }

  /** Walks page by page to the end; every page must be answered, carry the same total and a cursor unless it is the last. */
  async walk(address: string, body: Body, key?: string): Promise<{ readonly rows: readonly Answered[]; readonly total: number; readonly pages: readonly number[] }> {
    const rows: Answered[] = [];
    const pages: number[] = [];
    const totals = new Set<number>();
    for (let cursor: string | null = null; ;) {
      const { status, body: page } = await this.post(address, cursor === null ? body : { ...body, nextPageCursor: cursor }, key);
      if (status !== 200) throw new Error(`${address} answered ${String(status)}: ${JSON.stringify(page)}`);
      rows.push(...page.data);
      pages.push(page.data.length);
      totals.add(page.totalElements);
      cursor = page.nextPageCursor;
      if (cursor === null) break;
      if (pages.length > 10_000) throw new Error('a walk without an end');
    }
    expect([...totals]).toEqual([rows.length]);
    return { rows, total: rows.length, pages };
  }
}

/** One store with what has been folded into it; any number of api processes over it. */
export class SearchWorld {
  readonly settings = new Map<string, Settings>();
  now = Date.parse('2026-05-01T00:00:00Z');
  readonly #store: StoreOpened;
  readonly #arrivals: Arrival[] = [];
  readonly #servers: SearchServer[] = [];
  #target: Target;

  private constructor(store: StoreOpened, target: Target) {
    this.#store = store;
    this.#target = target;
  }

  static async open(open: () => Promise<StoreOpened>): Promise<SearchWorld> {
    const store = await open();
    const world = new SearchWorld(store, await generation(store.views, 'live'));
    await store.views.promote(journeys.group, null, world.#target.view.generation.id);
    await world.fold('acme', []);
    return world;
  }

  /** Folds all of these, in steps of so many events. */
  async fold(workspace: string, events: readonly Interpreted[], size = Infinity): Promise<void> {
    for (let from = 0; from === 0 || from < events.length; from += size) {
      const arrivals = events.slice(from, from + size).map((interpreted, i): Arrival => ({ position: position(this.#arrivals.length + i + 2), workspace, identity: interpreted.identity.key, interpreted }));
      this.#arrivals.push(...arrivals);
      const folded = await this.#target.step(arrivals, position(this.#arrivals.length + 1), async (name) => workspaceNamed(name));
      if (folded.kind !== 'committed' && this.#arrivals.length > 0) throw new Error(`the step was ${folded.kind}`);
    }
  }

  /** Folds everything anew into another generation, which readers see from then on. */
  async replay(): Promise<void> {
    const live = this.#target.view.generation.id;
    const target = await generation(this.#store.views, 'build');
    await target.step(this.#arrivals, position(this.#arrivals.length + 1), async (name) => workspaceNamed(name));
    expect(await this.#store.views.promote(journeys.group, live, target.view.generation.id)).toBe(true);
    expect(await this.#store.views.dropGeneration(journeys.group, live)).toBe(true);
    this.#target = await resumed(this.#store.views, target.view.generation.id, 'live');
    // Readers look for the live generation every so often.
    this.now += 60_000;
  }

  /** Another api process. */
  async serve(given: Partial<Pick<ApiDeps, 'revision' | 'views' | 'workspaces'>> & { readonly maxRangeDays?: number } = {}): Promise<SearchServer> {
    const app = createApi({
      events: new MemoryEventStore({ storeId: 'store' }), views: await this.#store.again(), door: null, version: '0.0.0', revision: 'seed',
      workspaces: {
        authenticate: (token) => {
          const [, kind, workspace] = /^(key|few) of ([a-z0-9_]+)$/.exec(token) ?? [];
          return workspace === undefined ? null : { workspace, keyId: `id of ${token}`, rateLimit: kind === 'few' ? { hits: 2, windowMs: 60_000 } : 'off' };
        },
        keys: workspaceNamed,
        settings: (workspace) => this.settings.get(workspace) ?? { pbxNames: [], tenantIds: [] },
      },
      clock: { now: () => this.now }, wait: async (ms) => { this.now += ms; },
      log: { info: () => undefined, error: () => undefined }, metrics: { contentType: 'text/plain', text: async () => '', request: () => undefined },
      limits: { maxEventBytes: 4096, maxBodyBytes: 65_536, maxRangeDays: given.maxRangeDays ?? 60 },
      limiter: new LocalLimiter({ now: () => this.now }), rateLimit: { hits: 10, windowMs: 60_000 }, ready: () => ({ ok: true, reasons: [] }),
      ...given,
    });
    const listening = app.listen(0, '127.0.0.1');
    await once(listening, 'listening');
    const server = new SearchServer(`http://127.0.0.1:${String((listening.address() as AddressInfo).port)}`, async () => {
      listening.closeAllConnections();
      await new Promise((resolve) => { listening.close(resolve); });
    });
    this.#servers.push(server);
    return server;
  }

  async close(): Promise<void> {
    for (const server of this.#servers) await server.close();
    await this.#store.dispose();
  }
}

function position(place: number): Position { return String(place).padStart(20, '0') as Position; }

async function generation(views: ViewStore, role: 'live' | 'build'): Promise<Target> {
  const { id } = await views.createGeneration({ group: journeys.group, version: journeys.version, shards: 1, storeId: 'store', target: null, fields: journeys.fields, subFields: journeys.subFields, ordered: journeys.ordered });
  return resumed(views, id, role);
}

async function resumed(views: ViewStore, id: number, role: 'live' | 'build'): Promise<Target> {
  const target = new Target({ projection: journeys, view: await views.view(journeys.group, id, 0), role, cache: new CacheRoom(1e6) });
  await target.resume();
  return target;
}

// ---- what an answer shows ------------------------------------------------------------------------------------------------

/** The texts that stand at a path, in any element of the arrays on the way. */
export function shown(value: unknown, at: readonly string[]): readonly string[] {
  if (Array.isArray(value)) return value.flatMap((item) => shown(item, at));
  if (value === null || value === undefined) return [];
  const [name, ...rest] = at;
  if (name === undefined) return typeof value === 'string' ? [value] : [];
  return shown((value as Body)[name], rest);
}
