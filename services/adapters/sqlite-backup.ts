// A data folder copied while it is being written, and put back. Every file is a snapshot of one moment: the copy reads
// inside a read transaction that it keeps open, so what others commit meanwhile neither enters it nor makes it begin again.
// The views are copied before the events: restored, no view is ahead of its log, and what it lacks is folded.
import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { backup, DatabaseSync } from 'node:sqlite';
import { Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { pathToFileURL } from 'node:url';
import { z } from 'zod';
import { OperatingError } from '../errors.ts';
import { jsonOf } from '../json.ts';
import { cutShort, damaged, faultCode, guarded } from './sqlite-file.ts';
import { databasesOf } from './sqlite-folder.ts';

/** Pages a step: the copy gives way to others between two. */
const STEP_PAGES = 1000;
const READ_BYTES = 1024 * 1024;
const MANIFEST = 'backup.json';
const MASTER_KEY = 'master.key';
const EVENTS = 'events.sqlite';
const CONTROL = path.join('views', 'control.sqlite');
/** A page of the source that the disk does not give (SQLITE_IOERR_READ). */
const READ_FAULT = 266;
const FORMAT = 1;

const manifestSchema = z.object({ format: z.number(), madeAt: z.string(), files: z.array(z.object({ name: z.string(), bytes: z.number(), sha256: z.string() })) });
export type Manifest = z.output<typeof manifestSchema>;
/** `done` and `all` in bytes, as far as they are known. */
export type OnProgress = (done: number, all: number) => void;

/** What was copied, and why a view was not. */
export interface BackedUp { readonly manifest: Manifest; readonly leftOut: readonly OperatingError[] }

/**
 * Copies `folder` to `to`, which is there once it is whole. The master key's file goes along, where there is one. A view
 * that is damaged is left out: it is folded anew from the events, which a backup is for.
 */
export async function backupFolder(folder: string, to: string, options: { readonly madeAt: string; readonly onProgress: OnProgress; readonly signal: AbortSignal }): Promise<BackedUp> {
  const databases = databasesOf(folder);
  if (!databases.includes(EVENTS)) throw new OperatingError('storeUnavailable', `${folder} holds no events: name the folder that serve was given with --data`);
  return made(to, async (draft) => {
    const progress = new Progress(databases.map((name) => sizeOf(path.join(folder, name))), options.onProgress);
    const { copied, leftOut } = await copyViews(folder, draft, databases.filter((one) => one !== EVENTS), progress, options.signal);
    // The events last.
    checkGoingOn(options.signal);
    if (await copyDatabase(path.join(folder, EVENTS), path.join(draft, EVENTS), progress)) copied.push(EVENTS);
    checkWhole(path.join(draft, EVENTS), path.join(folder, EVENTS));
    const key = path.join(folder, MASTER_KEY);
    if (existsSync(key)) {
      writeFileSync(path.join(draft, MASTER_KEY), readFileSync(key), { mode: 0o600, flush: true });
      copied.push(MASTER_KEY);
    }
    const files = [];
    for (const name of copied) files.push({ name, bytes: sizeOf(path.join(draft, name)), sha256: await sha256Of(path.join(draft, name)) });
    const manifest: Manifest = { format: FORMAT, madeAt: options.madeAt, files };
    writeFileSync(path.join(draft, MANIFEST), `${JSON.stringify(manifest, null, 1)}\n`, { mode: 0o600, flush: true });
    return { manifest, leftOut };
  });
}

async function copyViews(folder: string, draft: string, names: readonly string[], progress: Progress, signal: AbortSignal): Promise<{ readonly copied: string[]; readonly leftOut: readonly OperatingError[] }> {
  const copied: string[] = [];
  const leftOut: OperatingError[] = [];
  for (const name of names) {
    checkGoingOn(signal);
    try {
      if (await copyDatabase(path.join(folder, name), path.join(draft, name), progress)) copied.push(name);
    } catch (fault) {
      if (!(fault instanceof OperatingError) || fault.code !== 'storeCorrupt') throw fault;
      leftOut.push(fault);
      rmSync(path.join(draft, name), { force: true });
      // Nobody would know which generations the others are.
      if (name === CONTROL) {
        rmSync(path.join(draft, path.dirname(CONTROL)), { recursive: true, force: true });
        return { copied: [], leftOut: [fault] };
      }
    }
  }
  return { copied, leftOut };
}

function checkGoingOn(signal: AbortSignal): void {
  if (signal.aborted) throw new OperatingError('fileUnreadable', 'interrupted: no backup was made');
}

/** Puts a backup back as a folder that is not there yet, or is empty. Every file is checked against what was copied. */
export async function restoreFolder(from: string, folder: string, options: { readonly onProgress: OnProgress; readonly signal: AbortSignal }): Promise<Manifest> {
  const manifest = readManifest(from);
  return made(folder, async (draft) => {
    const progress = new Progress(manifest.files.map(({ bytes }) => bytes), options.onProgress);
    for (const { name, bytes, sha256 } of manifest.files) {
      if (options.signal.aborted) throw new OperatingError('fileUnreadable', 'interrupted: nothing was restored');
      const target = path.join(draft, name);
      mkdirSync(path.dirname(target), { recursive: true, mode: 0o700 });
      const found = await sha256Of(path.join(from, name), target);
      if (found !== sha256) throw new OperatingError('storeCorrupt', `${path.join(from, name)} is not what was copied into the backup: take another one`);
      progress.add(bytes);
    }
    return manifest;
  });
}

/** Work in a folder beside the one that is asked for, which appears whole or not at all. */
async function made<T>(folder: string, work: (draft: string) => Promise<T>): Promise<T> {
  if (existsSync(folder) && (!statSync(folder).isDirectory() || readdirSync(folder).length > 0)) throw new OperatingError('badConfiguration', `${folder} is there already and is not empty: name a new one`);
  const draft = `${folder.replace(/\/+$/, '')}.part`;
  rmSync(draft, { recursive: true, force: true });
  try {
    return await inFiles(draft, async () => {
      mkdirSync(draft, { recursive: true, mode: 0o700 });
      const result = await work(draft);
      if (existsSync(folder)) rmSync(folder, { recursive: true });
      renameSync(draft, folder);
      return result;
    });
  } finally {
    rmSync(draft, { recursive: true, force: true });
  }
}

async function inFiles<T>(place: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (fault) {
    // What the file system and SQLite say, in our words; anything else as it is.
    return guarded(place, () => { throw fault; });
  }
}

/** False for a view that was dropped meanwhile. What is wrong with the source is told of it, the rest of the copy. */
async function copyDatabase(from: string, to: string, progress: Progress): Promise<boolean> {
  if (!existsSync(from)) return false;
  mkdirSync(path.dirname(to), { recursive: true, mode: 0o700 });
  const source = guarded(from, () => openSource(from));
  const size = sizeOf(from);
  try {
    writeFileSync(to, '', { mode: 0o600 });
    await backup(source, to, { rate: STEP_PAGES, progress: ({ totalPages, remainingPages }) => progress.show(size * (1 - remainingPages / Math.max(1, totalPages))) });
  } catch (fault) {
    if ((fault as { readonly errcode?: number }).errcode === READ_FAULT) throw damaged(from, (fault as Error).message, fault);
    // The copy is new: it is never what is damaged.
    guarded(faultCode(to, fault) === 'storeCorrupt' ? from : to, () => { throw fault; });
  } finally {
    source.close();
  }
  progress.add(size);
  return true;
}

/** Of the events, which nothing else holds: what is damaged inside is copied as it is, and a copy takes the place of good ones. Views are folded anew. */
function checkWhole(copy: string, source: string): void {
  // Nobody writes it: else even a reader would leave the files of a WAL beside it.
  const url = pathToFileURL(path.resolve(copy));
  url.searchParams.set('immutable', '1');
  const db = new DatabaseSync(url, { readOnly: true });
  try {
    const said = db.prepare('PRAGMA quick_check(1)').all().map((row) => String(Object.values(row)[0]));
    if (said.join() !== 'ok') throw damaged(source, said.join(' ').replaceAll(/\s+/g, ' '));
  } finally {
    db.close();
  }
}

/** Inside a read transaction. */
function openSource(file: string): DatabaseSync {
  const db = new DatabaseSync(file, { readOnly: true, timeout: 5000 });
  try {
    db.exec('BEGIN');
    const { tables } = db.prepare('SELECT count(*) AS tables FROM sqlite_schema').get() as { readonly tables: number };
    // An empty file is a database without a table to SQLite.
    const what = tables === 0 ? 'it is empty' : cutShort(file, db);
    if (what !== null) throw damaged(file, what);
    return db;
  } catch (error) {
    db.close();
    throw error;
  }
}

class Progress {
  readonly #all: number;
  readonly #show: OnProgress;
  #done = 0;

  constructor(sizes: readonly number[], show: OnProgress) {
    this.#all = sizes.reduce((sum, size) => sum + size, 0);
    this.#show = show;
  }

  show(more: number): void { this.#show(this.#done + more, this.#all); }

  add(bytes: number): void {
    this.#done += bytes;
    this.show(0);
  }
}

function sizeOf(file: string): number { return existsSync(file) ? statSync(file).size : 0; }

/** Of a file that is read through, and copied on the way where there is a target. */
async function sha256Of(file: string, target: string | null = null): Promise<string> {
  const hash = createHash('sha256');
  const through = async function* (chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    for await (const chunk of chunks) {
      hash.update(chunk);
      if (target !== null) yield chunk;
    }
  };
  const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() });
  await pipeline(createReadStream(file, { highWaterMark: READ_BYTES }), through, target === null ? nowhere : createWriteStream(target, { mode: 0o600, flush: true }));
  return hash.digest('hex');
}

function readManifest(from: string): Manifest {
  const file = path.join(from, MANIFEST);
  if (!existsSync(file)) throw new OperatingError('fileUnreadable', `${from} holds no backup: there is no ${MANIFEST}`);
  const parsed = manifestSchema.safeParse(jsonOf(readFileSync(file, 'utf8')));
  if (!parsed.success) throw new OperatingError('fileUnreadable', `${file} is not what backup writes (${parsed.error.issues[0]?.path.join('.') ?? ''})`);
  if (parsed.data.format > FORMAT) throw new OperatingError('storeTooNew', `${file} has format ${String(parsed.data.format)}, this version reads up to ${String(FORMAT)}`);
  // Names come out of a file that anybody may have written.
  const odd = parsed.data.files.find(({ name }) => !/^(views\/)?[A-Za-z0-9_-]+\.(sqlite|key)$/.test(name));
  if (odd !== undefined) throw new OperatingError('fileUnreadable', `${file} names a file that no backup holds: ${JSON.stringify(odd.name)}`);
  return parsed.data;
}
