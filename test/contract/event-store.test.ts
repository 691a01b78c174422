// The adapters that must pass: another one is another line.
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { MemoryEventStore } from '../../services/adapters/memory-events.ts';
import { openSqliteEventStore } from '../../services/adapters/sqlite-events.ts';
import { type Made, eventStoreContract } from './event-store.ts';

async function memory(idsAreUnique: boolean): Promise<Made> {
  return { store: new MemoryEventStore({ storeId: '00000000-0000-4000-8000-000000000000', idsAreUnique }), dispose: async () => undefined };
}
async function sqlite(mode: 'write' | 'direct'): Promise<Made> {
  const folder = mkdtempSync(path.join(tmpdir(), 'throughline-'));
  return { store: await openSqliteEventStore({ folder, mode, random: randomBytes }), dispose: async () => rmSync(folder, { recursive: true }) };
}

eventStoreContract('memory', () => memory(true));
eventStoreContract('memory, as EventStoreDB answers', () => memory(false), { idsAreUnique: false });
eventStoreContract('SQLite, written in a thread of its own', () => sqlite('write'));
eventStoreContract('SQLite, written directly', () => sqlite('direct'));
