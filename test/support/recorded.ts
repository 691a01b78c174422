// What stands in a folder's log, read by itself and not through a program.
import { openSqliteEventStore } from '../../services/adapters/sqlite-events.ts';
import { readRecorded } from '../../schemas/recorded.ts';

/** How often each CloudEvent stands there, by its id. */
export async function timesRecorded(folder: string): Promise<ReadonlyMap<string, number>> {
  const store = await openSqliteEventStore({ folder, mode: 'read' });
  const times = new Map<string, number>();
  for await (const { events, caughtUp } of store.subscribe({ after: null, prefixes: ['identity.'], maxBatch: 1000, signal: new AbortController().signal })) {
    for (const { event: { id } } of events.map((one) => readRecorded(one))) times.set(id, (times.get(id) ?? 0) + 1);
    if (caughtUp) break;
  }
  await store.close();
  return times;
}
