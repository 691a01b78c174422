// The adapters that must pass: another one is another line.
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { openEventStoreDb } from '../../services/adapters/eventstoredb.ts';
import { MemoryEventStore } from '../../services/adapters/memory-events.ts';
import { openSqliteEventStore } from '../../services/adapters/sqlite-events.ts';
import { type TestEventStore, scoped, testEventStore, testEventStoreName } from '../support/eventstoredb/double.ts';
import { type Made, eventStoreContract } from './event-store.ts';

async function memory(idsAreUnique: boolean): Promise<Made> {
  return { store: new MemoryEventStore({ storeId: '00000000-0000-4000-8000-000000000000', idsAreUnique }), dispose: async () => undefined };
}
async function sqlite(mode: 'write' | 'direct'): Promise<Made> {
  const folder = mkdtempSync(path.join(tmpdir(), 'throughline-'));
  return { store: await openSqliteEventStore({ folder, mode, random: randomBytes }), dispose: async () => rmSync(folder, { recursive: true }) };
}

let server: TestEventStore;
let scopes = 0;
beforeAll(async () => { server = await testEventStore(); });
afterAll(() => server.stop());
/** The double is emptied; of a real server, each test gets a part that is empty. */
async function eventStoreDb(): Promise<Made> {
  await server.double?.wipe();
  const store = await openEventStoreDb({ kind: 'eventstoredb', url: server.url }, { random: randomBytes, limits: { pollMs: 50 } });
  const dispose = async (): Promise<void> => undefined;
  return { store: server.double === null ? scoped(store, `test${randomBytes(6).toString('hex')}.${String(scopes += 1)}.`, await store.head()) : store, dispose };
}

eventStoreContract('memory', () => memory(true));
eventStoreContract('memory, as EventStoreDB answers', () => memory(false), { idsAreUnique: false });
eventStoreContract('SQLite, written in a thread of its own', () => sqlite('write'));
eventStoreContract('SQLite, written directly', () => sqlite('direct'));
eventStoreContract(testEventStoreName(), eventStoreDb, { idsAreUnique: false });
