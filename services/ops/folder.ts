// A data folder as the operator's verbs open it: to read, to write beside a running `serve`, or alone.
import { existsSync } from 'node:fs';
import path from 'node:path';
import { holdFolder, openSqliteEventStore } from '../adapters/sqlite-events.ts';
import { openSqliteViewStore } from '../adapters/sqlite-views.ts';
import { OperatingError } from '../errors.ts';
import type { EventStore, ViewStore } from '../ports.ts';
import { folderMasterKey, Workspaces } from '../workspaces.ts';
import type { Io } from './terminal.ts';

export interface Folder { readonly events: EventStore; readonly views: ViewStore; readonly readOnly: boolean; close(): Promise<void> }

/**
 * `read`: the folder must be there. `beside`: appends too, made when missing; a running `serve` sees what is appended.
 * `alone`: keeps everybody else who writes events out until closed. Throws storeLocked, storeUnavailable and what the stores throw.
 */
export async function openFolder(folder: string, mode: 'read' | 'beside' | 'alone', io: Pick<Io, 'clock' | 'random'>): Promise<Folder> {
  if (mode === 'read' && !existsSync(path.join(folder, 'events.sqlite'))) {
    throw new OperatingError('storeUnavailable', `${folder} holds no events: name the folder that serve was given with --data`);
  }
  const hold = mode === 'alone' ? holdFolder(folder) : null;
  let events: EventStore | null = null;
  try {
    events = await openSqliteEventStore(mode === 'read' ? { folder, mode } : { folder, mode: 'direct', random: io.random });
    const opened = events;
    const views = await openSqliteViewStore({ folder, clock: io.clock });
    return {
      events: opened, views, readOnly: mode === 'read',
      close: async () => {
        await views.close();
        await opened.close();
        hold?.release();
      },
    };
  } catch (fault) {
    await events?.close();
    hold?.release();
    throw fault;
  }
}

/** The folder's workspaces, with their secrets. A folder that holds no event yet is given a master key, unless it is only read. Throws badMasterKey. */
export async function openWorkspaces(folder: string, { events, readOnly }: Folder, io: Pick<Io, 'clock' | 'random' | 'sleep'>, given: Uint8Array | null): Promise<Workspaces> {
  const masterKey = await folderMasterKey(folder, { given, mayMake: !readOnly && (await events.head()) === null, random: io.random });
  return Workspaces.open({ store: events, masterKey, clock: io.clock, random: io.random, sleep: io.sleep });
}
