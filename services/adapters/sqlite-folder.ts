// What `doctor` looks at in a data folder: who may read it, what room there is, whether its files are whole, who holds it.
import { accessSync, constants, existsSync, readdirSync, readFileSync, statfsSync, statSync } from 'node:fs';
import path from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { OperatingError } from '../errors.ts';
import type { Finding } from '../ports.ts';
import { guarded, isBusy } from './sqlite-file.ts';

const GIB = 1024 ** 3;
/** Less free than this and a busy day fills it: some million events of 650 bytes with their views take 2 GiB. */
const DISK_FREE_WARN = 2 * GIB;
/** One publish of the largest size and its commit in the log twice over, and then some: below it, refusals are near. */
const DISK_FREE_BAD = GIB / 4;
/** What `holdFolder` leaves there. */
const [LOCK, NOTE] = ['lock.sqlite', 'lock.pid'] as const;
/** A check reads every page, at some hundreds of MB a second: longer than a look should take. */
const CHECK_BYTES_MAX = 4 * GIB;

const ok = (what: string, found: string): Finding => ({ level: 'ok', what, found, advice: null });
const warn = (what: string, found: string, advice: string): Finding => ({ level: 'warn', what, found, advice });
const bad = (what: string, found: string, advice: string): Finding => ({ level: 'bad', what, found, advice });

/** Never throws for what it finds. Reads alone. */
export function examineFolder(folder: string): readonly Finding[] {
  if (!existsSync(folder)) return [warn('folder', 'is not there', 'nothing, if this is before the first start, which makes it; else name the right one with --data')];
  const readable = permissions(folder);
  if (readable.level === 'bad') return [readable];
  return [readable, keyFile(folder), freeDisk(folder), ...databasesOf(folder).map((file) => whole(folder, file)), heldBy(folder)];
}

function permissions(folder: string): Finding {
  const mode = statSync(folder).mode & 0o777;
  try {
    accessSync(folder, constants.R_OK | constants.W_OK | constants.X_OK);
  } catch {
    return bad('permissions', 'this user may not read and write it', `run as the user who owns ${folder}, or change its owner, or mount its disk for writing`);
  }
  return (mode & 0o077) === 0 ? ok('permissions', 'its owner alone') : warn('permissions', `mode ${mode.toString(8)}: other users may look into it`, `chmod 700 ${folder}`);
}

function keyFile(folder: string): Finding {
  const file = path.join(folder, 'master.key');
  if (!existsSync(file)) return ok('master key file', 'none here');
  const mode = statSync(file).mode & 0o777;
  return (mode & 0o077) === 0 ? ok('master key file', 'its owner alone') : bad('master key file', `mode ${mode.toString(8)}: other users may read it`, `chmod 600 ${file}`);
}

function freeDisk(folder: string): Finding {
  const { bavail, bsize } = statfsSync(folder);
  const free = bavail * bsize;
  const found = `${(free / GIB).toFixed(1)} GiB free`;
  if (free < DISK_FREE_BAD) return bad('disk', found, 'make room now: a full disk refuses every event');
  return free < DISK_FREE_WARN ? warn('disk', found, 'make room, or move the folder to a larger disk') : ok('disk', found);
}

/** Relative to the folder: the events, and all that belongs to the views. */
export function databasesOf(folder: string): readonly string[] {
  const views = path.join(folder, 'views');
  const ofViews = existsSync(views) ? readdirSync(views).filter((file) => file.endsWith('.sqlite')).sort().map((file) => path.join('views', file)) : [];
  return ['events.sqlite', ...ofViews].filter((file) => existsSync(path.join(folder, file)));
}

const ADVICE: Readonly<Record<string, string | undefined>> = {
  'events.sqlite': 'put the folder back from a backup (throughline restore)',
  [path.join('views', 'control.sqlite')]: 'delete the folder views: everything in it is folded again from the events, only the counts by source begin anew',
};

function whole(folder: string, file: string): Finding {
  const full = path.join(folder, file);
  const { size } = statSync(full);
  if (size > CHECK_BYTES_MAX) return ok(file, `${(size / GIB).toFixed(1)} GiB: not read through here; sqlite3 FILE 'PRAGMA quick_check' does it`);
  const advice = ADVICE[file] ?? 'delete it with its -wal and -shm files: it is folded again from the events';
  try {
    const found = guarded(full, () => {
      const db = new DatabaseSync(full, { readOnly: true, timeout: 5_000 });
      try {
        return Object.values(db.prepare('PRAGMA quick_check(1)').get() ?? {})[0];
      } finally {
        db.close();
      }
    });
    return found === 'ok' ? ok(file, 'is whole') : bad(file, 'is damaged', advice);
  } catch (fault) {
    if (!(fault instanceof OperatingError)) throw fault;
    return fault.code === 'storeBusy' ? ok(file, 'is being written: not read through now') : bad(file, `cannot be read (${fault.code})`, advice);
  }
}

function heldBy(folder: string): Finding {
  const holder = holderOfFolder(folder);
  if (holder !== null) return ok('held by', `process ${holder}, a serve or an import`);
  return ok('held by', existsSync(path.join(folder, NOTE)) ? 'nobody: who held it last was cut off' : 'nobody: no serve runs on it');
}

/**
 * The id of the process that holds the folder, null where nobody does. Whoever does has its lock exclusively. That is only
 * tried where a process has left its id: trying takes the lock shared for an instant, and a `serve` that starts in that
 * instant would find the folder held.
 */
export function holderOfFolder(folder: string): string | null {
  const file = path.join(folder, LOCK);
  const note = path.join(folder, NOTE);
  if (!existsSync(note) || !existsSync(file)) return null;
  const process = readFileSync(note, 'utf8');
  const db = new DatabaseSync(file, { readOnly: true, timeout: 0 });
  try {
    db.prepare('SELECT count(*) FROM sqlite_schema').get();
    return null;
  } catch (error) {
    if (!isBusy(error)) throw error;
    return process;
  } finally {
    db.close();
  }
}
