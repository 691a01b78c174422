// The contract of the view store over each of its adapters.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { MemoryViewStore } from '../../services/adapters/memory-views.ts';
import { openRedisViewStore, type RedisPlace } from '../../services/adapters/redis.ts';
import { openSqliteViewStore } from '../../services/adapters/sqlite-views.ts';
import type { Clock, ViewStore } from '../../services/ports.ts';
import { describeOn } from '../support/local-server.ts';
import { redisPlace, type RedisServer, startRedis, startRedisCluster } from '../support/redis-server.ts';
import { type Made, viewStoreContract } from './view-store.ts';

/** The machine's time, and what a test has moved it on by. */
function movedOn(): { readonly clock: Clock; readonly advance: (ms: number) => void } {
  let by = 0;
  return { clock: { now: () => Date.now() + by }, advance: (ms) => { by += ms; } };
}

/** Keeps what was opened, to close all of it. */
function openings(openOne: () => Promise<ViewStore>): { readonly open: () => Promise<ViewStore>; readonly close: () => Promise<void> } {
  const opened: ViewStore[] = [];
  return {
    open: async () => {
      const store = await openOne();
      opened.push(store);
      return store;
    },
    close: async () => { for (const store of opened) await store.close(); },
  };
}

viewStoreContract('memory', async () => {
  const { clock, advance } = movedOn();
  const store = new MemoryViewStore({ clock });
  return { store, again: async () => store, dispose: async () => Promise.resolve(), advance };
});

viewStoreContract('SQLite', async () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'throughline-views-'));
  const { clock, advance } = movedOn();
  const { open, close } = openings(() => openSqliteViewStore({ folder, clock }));
  return {
    store: await open(), again: open, advance,
    dispose: async () => {
      await close();
      rmSync(folder, { recursive: true });
    },
  };
});

/** Each test on an empty server. */
function onRedis(place: () => RedisPlace, nodes: () => readonly RedisServer[]): () => Promise<Made> {
  return async () => {
    const { open, close } = openings(() => openRedisViewStore(place(), { clock: Date }));
    return {
      store: await open(), again: open,
      dispose: async () => {
        await close();
        for (const node of nodes()) node.say('flushall', 'async');
      },
    };
  };
}

describeOn(['redis'], 'on a Redis', () => {
  let server: RedisServer;
  beforeAll(async () => { server = await startRedis(); });
  afterAll(async () => server.stop());
  viewStoreContract('Redis', onRedis(() => redisPlace(server), () => [server]));
});

describeOn(['redis'], 'on a Redis Cluster', () => {
  let cluster: Awaited<ReturnType<typeof startRedisCluster>>;
  beforeAll(async () => { cluster = await startRedisCluster(); });
  afterAll(async () => cluster.stop());
  viewStoreContract('Redis Cluster', onRedis(() => cluster.place, () => cluster.nodes));
});
