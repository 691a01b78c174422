// The projector's thread beside an embedded `serve`: its own connections to the folder, so that no fold ever stands in the
// way of the API. It ends when it is told to, when the folder's event store fails for good, or with the process.
import { parentPort, workerData } from 'node:worker_threads';
import { setTimeout as pause } from 'node:timers/promises';
import { journeys } from '../../projections/journeys.ts';
import { persons } from '../../projections/persons.ts';
import type { WorkspaceKeys } from '../../schemas/identity.ts';
import { openSqliteEventStore } from '../adapters/sqlite-events.ts';
import { openSqliteViewStore } from '../adapters/sqlite-views.ts';
import { OperatingError } from '../errors.ts';
import { loadWorkspaceKeys } from '../workspaces.ts';
import { type GroupProgress, runProjector } from './projector.ts';

export interface ProjectorWorkerData { readonly folder: string; readonly masterKey: Uint8Array }
export type FromProjector =
  | { readonly kind: 'progress'; readonly groups: readonly GroupProgress[] }
  | { readonly kind: 'fault'; readonly message: string; readonly attempt: number }
  | { readonly kind: 'stopped' }
  | { readonly kind: 'failed'; readonly code: string | null; readonly message: string; readonly stack: string | undefined };

/** Progress is told at most this often, and at once when a group has caught up or fallen behind. */
const PROGRESS_MS = 250;

/** What was passed over is told by a timer: the last of a burst may be the last for hours, and a gap would stand there meanwhile that is none. */
function progressTeller(tell: (message: FromProjector) => void): { report(groups: readonly GroupProgress[]): void; close(): void } {
  let latest: readonly GroupProgress[] = [];
  let toldMs = 0;
  let caughtUp = false;
  let timer: NodeJS.Timeout | undefined;
  const send = (): void => {
    clearTimeout(timer);
    timer = undefined;
    toldMs = Date.now();
    tell({ kind: 'progress', groups: latest });
  };
  return {
    report: (groups) => {
      latest = groups;
      const all = groups.every((group) => group.caughtUp);
      const dueMs = all === caughtUp ? toldMs + PROGRESS_MS - Date.now() : 0;
      caughtUp = all;
      if (dueMs <= 0) send();
      else timer ??= setTimeout(send, dueMs);
    },
    close: () => clearTimeout(timer),
  };
}

export async function runWorker(data: ProjectorWorkerData, port: NonNullable<typeof parentPort>): Promise<void> {
  const stop = new AbortController();
  port.once('message', () => stop.abort());
  const tell = (message: FromProjector) => port.postMessage(message);
  const events = await openSqliteEventStore({ folder: data.folder, mode: 'read' });
  const views = await openSqliteViewStore({ folder: data.folder });
  const known = new Map<string, Promise<WorkspaceKeys>>();
  const keysOf = (workspace: string): Promise<WorkspaceKeys> => {
    let keys = known.get(workspace);
    if (keys !== undefined) return keys;
    known.set(workspace, (keys = loadWorkspaceKeys(events, workspace, data.masterKey)));
    // A passing fault must not stay for good.
    keys.catch(() => known.delete(workspace));
    return keys;
  };
  const progress = progressTeller(tell);
  try {
    await runProjector({
      events, views, projections: [journeys, persons], keysOf, signal: stop.signal,
      clock: { now: () => Date.now() },
      wait: (ms, signal) => pause(ms, undefined, { signal }).catch(() => undefined),
      onProgress: progress.report,
      onFault: (fault, attempt) => tell({ kind: 'fault', message: fault instanceof Error ? fault.message : String(fault), attempt }),
    });
    await views.close();
    await events.close();
    tell({ kind: 'stopped' });
  } catch (fault) {
    const error = fault instanceof Error ? fault : new Error(String(fault));
    tell({ kind: 'failed', code: fault instanceof OperatingError ? fault.code : null, message: error.message, stack: error.stack });
  }
  progress.close();
  port.close();
}

if (parentPort !== null) await runWorker(workerData as ProjectorWorkerData, parentPort);
