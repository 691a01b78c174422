// The log as NDJSON, a recorded event a line, word for word: `throughline export` writes it, and `throughline import` takes
// it back into a store. The streams of the workspaces come first, their secrets wrapped by the master key as they are in
// the store, so that an empty store becomes the same one: same streams, same event ids, same recorded times, and folded
// the same digests, whatever the backend. A store that has some of it already takes the rest.
import { isUtf8 } from 'node:buffer';
import { type FileHandle, open, rename, rm } from 'node:fs/promises';
import { z } from 'zod';
import { workspaceOfStream } from '../../schemas/identity.ts';
import { type EventsPlace, nameOf } from '../backends.ts';
import type { Options } from '../config.ts';
import { OperatingError } from '../errors.ts';
import { jsonOf } from '../json.ts';
import type { EventStore, NewEvent, RecordedEvent } from '../ports.ts';
import { masterKeyOf, secretOpens } from '../workspaces.ts';
import type { Element } from './elements.ts';
import { openLog } from './folder.ts';
import { count, type Io, orExplain, print, printJson, ProgressBar } from './terminal.ts';

// ---- a line ----------------------------------------------------------------------------------------------------------

/** Texts, not JSON within JSON: what was recorded comes back byte for byte. Data that is no UTF-8 is base64. */
const lineSchema = z.object({
  stream: z.string(), revision: z.number().int().min(0), id: z.uuid(), type: z.string().min(1), metadata: z.string(), data: z.string().optional(), data_base64: z.base64().optional(),
});
type Line = Omit<z.output<typeof lineSchema>, 'metadata' | 'data' | 'data_base64'> & NewEvent;

function printed({ stream, revision, id, type, metadata, data }: RecordedEvent): string {
  const text = (bytes: Uint8Array): string => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8');
  const said = isUtf8(data) ? { data: text(data) } : { data_base64: Buffer.from(data).toString('base64') };
  return `${JSON.stringify({ stream, revision, id, type, metadata: text(metadata), ...said })}\n`;
}

/** Whether a line of an input is one that `export` wrote: no CloudEvent has a stream and a revision and no `specversion`. */
export function isExported({ bytes }: Element): boolean {
  const value = jsonOf(bytes);
  return typeof value === 'object' && value !== null && 'stream' in value && 'revision' in value && !('specversion' in value);
}

function lineOf({ line, bytes }: Element): Line {
  const parsed = lineSchema.safeParse(jsonOf(bytes));
  const fault = !parsed.success ? `is no event as export writes it (${parsed.error.issues[0]?.path.join('.') ?? ''})`
    : workspaceOfStream(parsed.data.stream) === null ? 'names a stream of no workspace'
      : (parsed.data.data === undefined) === (parsed.data.data_base64 === undefined) ? 'has not one of data and data_base64' : null;
  if (fault !== null || !parsed.success) throw new OperatingError('fileUnreadable', `line ${String(line)} ${String(fault)}: nothing from it on was taken in, and what stands before it was`);
  const { metadata, data, data_base64: base64, ...rest } = parsed.data;
  return { ...rest, metadata: Buffer.from(metadata), data: data === undefined ? Buffer.from(base64 ?? '', 'base64') : Buffer.from(data) };
}

// ---- out -------------------------------------------------------------------------------------------------------------

/** The categories of streams in the order in which they are written: a workspace's own first. */
const WORKSPACES = ['workspace-'] as const;
const OTHERS = ['identity.', 'decisions.', 'erasures.'] as const;
const PAGE = 1000;

export function exportVerb(options: Options<'export'>, io: Io): Promise<number> {
  const { events, file, workspace, json } = options;
  return orExplain('export', io, async () => {
    const startedMs = io.clock.now();
    const log = await openLog(events, 'read', io);
    try {
      const out = file === '-' ? stdoutOf(io) : await LogFile.open(file);
      try {
        const written = await writeLog(log.events, workspace, out, io);
        if (written === null) throw new OperatingError('fileUnreadable', 'interrupted before the end of the log: no file was made');
        if (workspace !== null && written === 0) throw new OperatingError('badConfiguration', `there is no workspace ${workspace} in ${nameOf(events)}`);
        await out.keep();
        const seconds = (io.clock.now() - startedMs) / 1000;
        // The log itself may be what goes to stdout.
        const told = file === '-' ? io.stderr : io.stdout;
        if (json) await printJson(told, { file, events: written, seconds });
        else await print(told, `${file === '-' ? 'stdout' : file}: ${count(written)} events in ${seconds.toFixed(1)} s. It holds what customers said, and opens with the master key of this store alone.\n`);
      } finally {
        await out.close();
      }
      return 0;
    } finally {
      await log.close();
    }
  });
}

/** The log up to its head at the start; how many events were written, null when interrupted. */
async function writeLog(events: EventStore, workspace: string | null, out: Pick<LogFile, 'write'>, io: Io): Promise<number | null> {
  const head = await events.head();
  const bar = new ProgressBar(io, 'exporting', await events.gap(null));
  let written = 0;
  let looked = 0;
  for (const prefixes of head === null ? [] : [WORKSPACES, OTHERS]) {
    const end = new AbortController();
    const stop = AbortSignal.any([io.signal, end.signal]);
    for await (const { events: page, position, caughtUp } of events.subscribe({ after: null, prefixes, maxBatch: PAGE, signal: stop })) {
      const wanted = page.filter((event) => event.position <= (head ?? '') && (workspace === null || workspaceOfStream(event.stream) === workspace));
      if (wanted.length > 0) await out.write(wanted.map(printed).join(''));
      written += wanted.length;
      looked += page.length;
      bar.show(looked, written);
      if (caughtUp || position >= (head ?? '')) end.abort();
    }
  }
  bar.clear();
  return io.signal.aborted ? null : written;
}

function stdoutOf(io: Io): Pick<LogFile, 'write' | 'keep' | 'close'> {
  return { write: (text) => print(io.stdout, text), keep: () => Promise.resolve(), close: () => Promise.resolve() };
}

/** Under its name once it is whole and on disk; for its owner alone. */
class LogFile {
  readonly #file: string;
  readonly #draft: string;
  readonly #handle: FileHandle;
  #kept = false;

  private constructor(file: string, draft: string, handle: FileHandle) {
    this.#file = file;
    this.#draft = draft;
    this.#handle = handle;
  }

  static async open(file: string): Promise<LogFile> {
    const draft = `${file}.part`;
    try {
      return new LogFile(file, draft, await open(draft, 'w', 0o600));
    } catch (cause) {
      throw new OperatingError('fileUnreadable', `${draft} cannot be written`, { cause });
    }
  }

  write(text: string): Promise<void> { return this.#written(() => this.#handle.writeFile(text)); }

  keep(): Promise<void> {
    return this.#written(async () => {
      await this.#handle.sync();
      await rename(this.#draft, this.#file);
      this.#kept = true;
    });
  }

  async close(): Promise<void> {
    await this.#handle.close();
    if (!this.#kept) await rm(this.#draft, { force: true });
  }

  async #written(work: () => Promise<unknown>): Promise<void> {
    try {
      await work();
    } catch (cause) {
      throw new OperatingError('fileUnreadable', `${this.#draft} cannot be written`, { cause });
    }
  }
}

// ---- in --------------------------------------------------------------------------------------------------------------

/** Events taken in at a time: streams beside each other, each stream's events in their order. */
const TAKE_EVENTS = 2000;
const TAKE_BYTES = 4 * 1024 * 1024;

export interface Taken { recorded: number; duplicate: number }

/** An exported log into the stores of this place: event by event as it stands, what is there already left out. Throws for a line that is none, and for a workspace that is another one here. */
export async function takeLog(place: EventsPlace, given: Uint8Array | null, batches: AsyncIterable<{ readonly elements: readonly Element[]; readonly bytesRead: number }>, io: Io, taken: Taken, bar: ProgressBar): Promise<void> {
  const log = await openLog(place, 'alone', io);
  try {
    // Never made here: only the key that wrapped the secrets opens them.
    const masterKey = await masterKeyOf(place, log.events, { given, mayMake: false, random: io.random });
    const taking = new Taking(log.events, masterKey, nameOf(place), taken);
    for await (const { elements, bytesRead } of batches) {
      for (const element of elements) if (taking.add(lineOf(element))) await taking.flush();
      bar.show(bytesRead, taken.recorded + taken.duplicate);
      if (io.signal.aborted) break;
    }
    await taking.flush();
  } finally {
    await log.close();
  }
}

class Taking {
  readonly #store: EventStore;
  readonly #masterKey: Uint8Array;
  readonly #place: string;
  readonly #taken: Taken;
  /** By stream. */
  #lines = new Map<string, Line[]>();
  #count = 0;
  #bytes = 0;
  readonly #workspaces = new Set<string>();

  constructor(store: EventStore, masterKey: Uint8Array, place: string, taken: Taken) {
    this.#store = store;
    this.#masterKey = masterKey;
    this.#place = place;
    this.#taken = taken;
  }

  /** True when enough waits. */
  add(line: Line): boolean {
    const lines = this.#lines.get(line.stream);
    if (lines === undefined) this.#lines.set(line.stream, [line]);
    else lines.push(line);
    this.#count += 1;
    this.#bytes += line.data.length + line.metadata.length;
    return this.#count >= TAKE_EVENTS || this.#bytes >= TAKE_BYTES;
  }

  async flush(): Promise<void> {
    const lines = [...this.#lines];
    this.#lines = new Map();
    this.#count = this.#bytes = 0;
    // The workspaces' own streams first: nothing of a workspace is taken in that is not this one.
    const isOwn = ([stream]: (typeof lines)[number]): boolean => stream.startsWith(WORKSPACES[0]);
    for (const [stream, own] of lines.filter(isOwn)) await this.#takeWorkspace(stream, own);
    const others = lines.filter((one) => !isOwn(one));
    for (const [stream] of others) await this.#checkKnown(stream);
    await Promise.all(others.map(([stream, rest]) => this.#append(stream, rest)));
  }

  async #takeWorkspace(stream: string, lines: readonly Line[]): Promise<void> {
    const first = lines[0];
    if (first?.revision === 0) {
      const [there] = await this.#store.readStream(stream, { direction: 'forward', from: 0, limit: 1 });
      if (there !== undefined && there.id !== first.id) {
        throw new OperatingError('badConfiguration', `${this.#place} has a workspace ${stream.slice(WORKSPACES[0].length)} of its own, with another secret, under which the same customers have other streams: import into an empty store`);
      }
      if (!secretOpens(first, this.#masterKey)) {
        throw new OperatingError('badMasterKey', `the master key does not open the secret of workspace ${stream.slice(WORKSPACES[0].length)}: set THROUGHLINE_MASTER_KEY to that of the store which was exported, or put its master.key into the folder`);
      }
    }
    await this.#append(stream, lines);
    this.#workspaces.add(stream.slice(WORKSPACES[0].length));
  }

  async #checkKnown(stream: string): Promise<void> {
    const workspace = workspaceOfStream(stream) ?? '';
    if (this.#workspaces.has(workspace)) return;
    const own = `${WORKSPACES[0]}${workspace}`;
    if ((await this.#store.readStream(own, { direction: 'forward', limit: 1 })).length === 0) throw new OperatingError('fileUnreadable', `the stream of workspace ${workspace} is missing before its events: the file is not whole`);
    this.#workspaces.add(workspace);
  }

  /** Ends because every round leaves fewer to append, or finds the stream longer than the one before. */
  async #append(stream: string, lines: readonly Line[]): Promise<void> {
    let rest = lines;
    let last = (lines[0]?.revision ?? 0) - 1;
    const lost = lines.findIndex(({ revision }, i) => revision !== last + 1 + i);
    if (lost >= 0) throw missing(stream, last + 1 + lost, lines[lost]?.revision ?? 0);
    while (rest.length > 0) {
      const result = await this.#store.append(stream, last < 0 ? 'no_stream' : last, rest.map(({ id, type, data, metadata }) => ({ id, type, data, metadata })));
      if (result.kind === 'appended') {
        this.#taken.recorded += rest.length;
        return;
      }
      const there = await this.#idsOf(stream);
      last = there.size - 1;
      const lacking = rest.filter(({ id }) => !there.has(id));
      this.#taken.duplicate += rest.length - lacking.length;
      rest = lacking;
      const next = rest[0];
      if (next !== undefined && next.revision > last + 1) throw missing(stream, last + 1, next.revision);
    }
  }

  async #idsOf(stream: string): Promise<ReadonlySet<string>> {
    const ids = new Set<string>();
    for (;;) {
      const page = await this.#store.readStream(stream, { direction: 'forward', from: ids.size, limit: PAGE });
      for (const { id } of page) ids.add(id);
      if (page.length === 0) return ids;
    }
  }
}

function missing(stream: string, from: number, to: number): OperatingError {
  return new OperatingError('fileUnreadable', `before event ${String(to)} of stream ${stream} event ${String(from)} is missing from the file: it is not whole`);
}
