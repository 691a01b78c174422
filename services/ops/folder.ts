// The stores as the operator's verbs open them, in a data folder or on servers: to read, to write beside running programs,
// or alone.
import { existsSync } from 'node:fs';
import path from 'node:path';
import { type EventsPlace, openEvents, openViewsOf, type ViewsPlace } from '../backends.ts';
import { OperatingError } from '../errors.ts';
import type { EventStore, ViewStore } from '../ports.ts';
import { masterKeyOf, Workspaces } from '../workspaces.ts';
import type { Io } from './terminal.ts';

export interface EventLog { readonly events: EventStore; readonly readOnly: boolean; close(): Promise<void> }
export interface Stores extends EventLog { readonly views: ViewStore }
export interface Places { readonly events: EventsPlace; readonly views: ViewsPlace }
/**
 * `read`: it must be there. `beside`: appends too, made when missing; running programs see what is appended. `alone`: keeps
 * everybody else who writes events out of a folder until closed (on a server nobody is kept out: expected revisions settle it).
 */
export type Mode = 'read' | 'beside' | 'alone';

/** The event store alone. Throws storeLocked, storeUnavailable and what the store throws. */
export async function openLog(place: EventsPlace, mode: Mode, io: Pick<Io, 'random'>): Promise<EventLog> {
  if (place.kind === 'sqlite' && mode === 'read' && !existsSync(path.join(place.folder, 'events.sqlite'))) {
    throw new OperatingError('storeUnavailable', `${place.folder} holds no events: name the folder that serve was given with --data, or the server with --events`);
  }
  const hold = place.kind === 'sqlite' && mode === 'alone' ? (await import('../adapters/sqlite-events.ts')).holdFolder(place.folder) : null;
  try {
    const events = await openEvents(place, { use: mode === 'read' ? 'read' : 'write', random: io.random });
    return {
      events, readOnly: mode === 'read',
      close: async () => {
        await events.close();
        hold?.release();
      },
    };
  } catch (fault) {
    hold?.release();
    throw fault;
  }
}

/** Both stores, which belong together. Throws what `openLog` does, and foreignStore. */
export async function openStores(places: Places, mode: Mode, io: Pick<Io, 'clock' | 'random'>): Promise<Stores> {
  const log = await openLog(places.events, mode, io);
  try {
    const views = await openViewsOf(log.events, places.views, { clock: io.clock });
    return {
      ...log, views,
      close: async () => {
        await views.close();
        await log.close();
      },
    };
  } catch (fault) {
    await log.close();
    throw fault;
  }
}

/** The workspaces, with their secrets. A folder that holds no event yet is given a master key, unless it is only read. Throws badMasterKey. */
export async function openWorkspaces(place: EventsPlace, { events, readOnly }: EventLog, io: Pick<Io, 'clock' | 'random' | 'sleep'>, given: Uint8Array | null): Promise<Workspaces> {
  const masterKey = await masterKeyOf(place, events, { given, mayMake: !readOnly, random: io.random });
  return Workspaces.open({ store: events, masterKey, clock: io.clock, random: io.random, sleep: io.sleep });
}
