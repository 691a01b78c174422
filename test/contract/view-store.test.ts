// The contract of the view store over each of its adapters.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { MemoryViewStore } from '../../services/adapters/memory-views.ts';
import { openSqliteViewStore } from '../../services/adapters/sqlite-views.ts';
import { viewStoreContract } from './view-store.ts';

viewStoreContract('memory', async () => ({ store: new MemoryViewStore(), dispose: async () => Promise.resolve() }));

viewStoreContract('SQLite', async () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'throughline-views-'));
  const store = await openSqliteViewStore({ folder });
  return {
    store,
    dispose: async () => {
      await store.close();
      rmSync(folder, { recursive: true });
    },
  };
});
