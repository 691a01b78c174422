// SQLite's faults as operating errors, for both stores; and a SQLite file of the view store: its statements and its format.
import { accessSync, constants, statSync } from 'node:fs';
import path from 'node:path';
import { DatabaseSync, type SQLInputValue, type StatementSync } from 'node:sqlite';
import { pathToFileURL } from 'node:url';
import { type ErrorCode, OperatingError } from '../errors.ts';

export const FORMAT = 1;

/** By primary result code (https://sqlite.org/rescode.html). Anything else is a fault of ours and passes as it is. */
const CODES: Readonly<Record<number, ErrorCode>> = {
  3: 'storeReadOnly', 5: 'storeBusy', 6: 'storeBusy', 7: 'storeUnavailable', 8: 'storeReadOnly', 10: 'storeUnavailable',
  11: 'storeCorrupt', 13: 'storeFull', 14: 'storeUnavailable', 23: 'storeReadOnly', 26: 'storeCorrupt',
};
const SYSTEM_CODES: Readonly<Record<string, ErrorCode>> = {
  ENOSPC: 'storeFull', EDQUOT: 'storeFull', EACCES: 'storeReadOnly', EPERM: 'storeReadOnly', EROFS: 'storeReadOnly', ERR_INVALID_STATE: 'storeClosed',
};
const SHORT_READ = 522;
const BUSY = 5;

const CANNOT_OPEN = 14;
/** What an operator does about it, where that is the same for every file. */
const REMEDIES: Readonly<Partial<Record<ErrorCode, string>>> = {
  storeFull: 'make room on its disk; then it goes on',
  storeReadOnly: 'it has to be writable for this user, on a disk that is mounted for writing',
};

/** What an error of SQLite or of the file system means; undefined for a fault of ours. By shape, not by class: an error made by Node itself is no instance of a sandbox's Error. */
export function faultCode(file: string, error: unknown): ErrorCode | undefined {
  if (typeof error !== 'object' || error === null) return undefined;
  const { errcode, code, syscall } = error as { readonly errcode?: number; readonly code?: string; readonly syscall?: string };
  // Even to read, SQLite makes files beside one that has a WAL: where it may not, all it says is that it cannot open the file.
  if (errcode !== undefined && (errcode & 0xff) === CANNOT_OPEN && !isWritable(path.dirname(file))) return 'storeReadOnly';
  if (errcode !== undefined) return errcode === SHORT_READ ? 'storeCorrupt' : CODES[errcode & 0xff];
  return SYSTEM_CODES[code ?? ''] ?? (syscall === undefined ? undefined : 'storeUnavailable');
}

function isWritable(folder: string): boolean {
  try {
    accessSync(folder, constants.W_OK);
    return true;
  } catch (error) {
    // What is not there at all is another fault.
    return (error as { readonly code?: string }).code === 'ENOENT';
  }
}

/** Runs work on a file; what SQLite and the file system throw becomes an operating error that names the file. */
export function guarded<T>(file: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    // The only JSON that is parsed here is what was stored.
    if (error instanceof SyntaxError) throw damaged(file, error.message, error);
    const known = faultCode(file, error);
    if (known === undefined || error instanceof OperatingError) throw error;
    if (known === 'storeCorrupt') throw damaged(file, (error as Error).message, error);
    throw fault(known, file, (error as Error).message, error);
  }
}

/** Whether somebody else has the lock that was waited for. */
export function isBusy(error: unknown): boolean {
  return ((error as { readonly errcode?: number }).errcode ?? 0) % 256 === BUSY;
}

function fault(code: ErrorCode, file: string, what: string, cause: unknown): OperatingError {
  const remedy = REMEDIES[code];
  return new OperatingError(code, `${file}: ${what}${remedy === undefined ? '' : `: ${remedy}`}`, { cause });
}

/** Views are folded again; the events are not in anything else. */
export function damaged(file: string, what: string, cause?: unknown): OperatingError {
  if (path.basename(file) === 'events.sqlite') return new OperatingError('storeCorrupt', `${file} is damaged: ${what}: put its folder back from a backup (throughline restore)`, { cause });
  const remedy = path.basename(file) === 'control.sqlite'
    ? `delete the folder ${path.dirname(file)} and all views are folded again from the log`
    : 'delete it together with its -wal and -shm files and it is folded again from the log';
  return new OperatingError('storeCorrupt', `${file} is damaged (${what}): ${remedy}`, { cause });
}

export function checkFormat(file: string, db: DatabaseSync): void {
  const { user_version: format } = db.prepare('PRAGMA user_version').get() as { user_version: number };
  if (format > FORMAT) throw new OperatingError('storeTooNew', `${file} has format ${format}, this version reads up to ${FORMAT}`);
  if (format < FORMAT) throw damaged(file, 'it holds no view');
}

/**
 * Cut short, a file may go on answering from the pages that are left. In this order, so that another process's checkpoint
 * in between raises no alarm: what is not in the WAL when that is looked at is in the file when that is looked at, which
 * never shrinks. A WAL may hold a page or not, so with one the bound is loose (SQLite's own, 64 KiB included). And by path
 * alone: to open and close the file ourselves would drop this process's locks on it (POSIX), which are SQLite's.
 * Answers what is wrong, null when it is as long as its own header says.
 */
export function cutShort(file: string, db: DatabaseSync): string | null {
  const { page_count: pages } = db.prepare('PRAGMA page_count').get() as { page_count: number };
  const { page_size: size } = db.prepare('PRAGMA page_size').get() as { page_size: number };
  const sizeOf = (path: string): number => statSync(path, { throwIfNoEntry: false })?.size ?? 0;
  const wal = sizeOf(`${file}-wal`);
  const bytes = sizeOf(file);
  return bytes + (wal === 0 ? 0 : wal + 65_536) < pages * size ? `it should have ${pages} pages of ${size} bytes and has ${bytes} bytes` : null;
}

type Optional<Row> = Row | undefined;
/** Statements of one connection, prepared when they are first used. */
export class Connection {
  readonly db: DatabaseSync;
  readonly #statements = new Map<string, StatementSync>();

  constructor(db: DatabaseSync) {
    this.db = db;
  }

  get<Row>(sql: string, ...values: SQLInputValue[]): Optional<Row> {
    return this.#statement(sql).get(...values) as Optional<Row>;
  }

  all<Row>(sql: string, ...values: SQLInputValue[]): Row[] {
    return this.#statement(sql).all(...values) as Row[];
  }

  /** As `all`, each row an array of its columns: on the way of a search, where making an object of every row is a fifth of it. */
  arrays<Row extends readonly unknown[]>(sql: string, ...values: SQLInputValue[]): Row[] {
    const key = `arrays ${sql}`;
    let statement = this.#statements.get(key);
    if (statement === undefined) {
      this.#statements.set(key, statement = this.db.prepare(sql));
      statement.setReturnArrays(true);
    }
    return statement.all(...values) as unknown as Row[];
  }

  /** How many rows it changed. */
  run(sql: string, ...values: SQLInputValue[]): number {
    return Number(this.#statement(sql).run(...values).changes);
  }

  /** All or nothing. */
  transaction<T>(begin: 'BEGIN' | 'BEGIN IMMEDIATE', work: () => T): T {
    this.run(begin);
    try {
      const result = work();
      this.run('COMMIT');
      return result;
    } catch (error) {
      // A full disk or a damaged page may have ended it already.
      if (this.db.isTransaction) this.run('ROLLBACK');
      throw error;
    }
  }

  #statement(sql: string): StatementSync {
    let statement = this.#statements.get(sql);
    if (statement === undefined) this.#statements.set(sql, statement = this.db.prepare(sql));
    return statement;
  }
}

/** Never makes the file: one that is gone was dropped. */
export function openExisting(file: string, options: { readonly readOnly: boolean; readonly timeout: number }, pragmas: string): DatabaseSync {
  const url = pathToFileURL(file);
  url.searchParams.set('mode', options.readOnly ? 'ro' : 'rw');
  const db = new DatabaseSync(url, options);
  try {
    db.exec(`PRAGMA cell_size_check = ON; ${pragmas}`);
    checkFormat(file, db);
    const what = cutShort(file, db);
    if (what !== null) throw damaged(file, what);
    return db;
  } catch (error) {
    db.close();
    throw error;
  }
}
