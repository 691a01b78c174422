// `throughline import FILE`: CloudEvents from NDJSON or a JSON array, of any length, into a running server or straight
// into the stores. What is no CloudEvent is told apart here and goes to a file beside the input, with its
// line and the reason; the rest passes the door, there or here, so that importing twice records once. A log that
// `throughline export` wrote goes past the door: it was let in once, and stays as it is.
import { hash } from 'node:crypto';
import { closeSync, openSync, rmSync, writeSync } from 'node:fs';
import path from 'node:path';
import { isUtf8 } from 'node:buffer';
import { z } from 'zod';
import { type Decoded, decodeStructured, type RejectionCode } from '../../schemas/cloudevent.ts';
import type { WorkspaceKeys } from '../../schemas/identity.ts';
import { type EventsPlace, nameOf } from '../backends.ts';
import type { Options } from '../config.ts';
import { Door } from '../door.ts';
import { type ErrorCode, isErrorCode, OperatingError } from '../errors.ts';
import { jsonOf } from '../json.ts';
import { DEFAULT_WORKSPACE } from '../workspaces.ts';
import { type Element, elementsOf, longestSpelling, sizeOfFile, whoseEvent } from './elements.ts';
import { isExported, takeLog } from './export.ts';
import { openStores, openWorkspaces, type Places } from './folder.ts';
import { count, explainFault, type Io, print, printJson, ProgressBar } from './terminal.ts';

// ---- the verb ---------------------------------------------------------------------------------------------------------

interface Line { readonly element: Element; readonly decoded: Decoded }
interface Counts { recorded: number; duplicate: number; rejected: number }

/** Where lines go, those that were rejected too: the door counts them by their source. `put` answers with a promise when its caller must wait before the next. */
interface Sink {
  put(line: Line): Promise<void> | null;
  /** Sends what waits wherever nothing is under way. */
  kick(): void;
  /** Everything put is durable or refused. */
  finish(): Promise<void>;
  close(): Promise<void>;
}

/** Exit code 0 when all of the input was read and answered, rejected lines included; else 1. */
export async function importVerb(options: Options<'import'>, io: Io): Promise<number> {
  const startedMs = io.clock.now();
  const counts: Counts = { recorded: 0, duplicate: 0, rejected: 0 };
  const rejects = new Rejects(options.file);
  const bar = new ProgressBar(io, `importing ${options.file === '-' ? 'stdin' : path.basename(options.file)}`, sizeOfFile(options.file));
  let error: ReturnType<typeof explainFault> | null = null;
  try {
    const { isLog, batches } = await begun(options, io);
    if (isLog) await takeLog(eventsOf(options), options.masterKey, batches, io, counts, bar);
    else await feed(options, batches, io, counts, rejects, bar);
    if (io.signal.aborted) error = { code: 'interrupted', message: 'interrupted before the end of the input: start again, what is recorded is not recorded twice' };
  } catch (fault) {
    error = explainFault(fault);
  }
  bar.clear();
  try {
    rejects.close();
  } catch (fault) {
    error ??= explainFault(fault);
  }
  await report(options, io, { ...counts, seconds: (io.clock.now() - startedMs) / 1000, rejectedFile: counts.rejected > 0 ? rejects.file : null, error });
  return error === null ? 0 : 1;
}

type Batches = AsyncGenerator<{ readonly elements: readonly Element[]; readonly bytesRead: number }>;

/** The input, whose first element says what it holds. */
async function begun({ file, maxEventBytes }: Options<'import'>, io: Io): Promise<{ readonly isLog: boolean; readonly batches: Batches }> {
  const input = elementsOf(file, io, longestSpelling(maxEventBytes));
  for (let next = await input.next(); next.done !== true; next = await input.next()) {
    const batch = next.value;
    const [first] = batch.elements;
    // Nothing but an element's beginning came so far.
    if (first === undefined) continue;
    const whole = async function* (): Batches {
      yield batch;
      yield* input;
    };
    return { isLog: isExported(first), batches: whole() };
  }
  return { isLog: false, batches: input };
}

/** A log goes into stores alone: a server records what it is told at the time it is told. */
function eventsOf({ events }: Options<'import'>): EventsPlace {
  if (events === null) throw new OperatingError('badConfiguration', 'this is a log that export wrote, which goes into the stores themselves: name them with --data or --events');
  return events;
}

async function feed(options: Options<'import'>, batches: Batches, io: Io, counts: Counts, rejects: Rejects, bar: ProgressBar): Promise<void> {
  const sink = await openSink(options, io, counts, rejects);
  try {
    const limits = { maxEventBytes: options.maxEventBytes };
    for await (const { elements, bytesRead } of batches) {
      for (const element of elements) {
        const full = sink.put({ element, decoded: { ...decodeStructured(element.bytes, limits), received: trimmed(element.bytes) } });
        if (full !== null) await full;
      }
      sink.kick();
      bar.show(bytesRead, counts.recorded + counts.duplicate + counts.rejected);
      if (io.signal.aborted) break;
    }
    await sink.finish();
  } finally {
    await sink.close();
  }
}

function openSink(options: Options<'import'>, io: Io, counts: Counts, rejects: Rejects): Promise<Sink> | Sink {
  const { events, views } = options;
  if (events !== null && views !== null) return openStoreSink(options, { events, views }, io, counts, rejects);
  if (options.to === null) throw new Error('assertion: an import goes to a server or into the stores');
  if (options.apiKey === null) throw new OperatingError('serverRefused', `THROUGHLINE_API_KEY is not set: it is the key with which ${options.to} knows the workspace`);
  return new ServerSink(options.to, options.apiKey, io, counts, rejects);
}

interface Summary extends Counts { readonly seconds: number; readonly rejectedFile: string | null; readonly error: ReturnType<typeof explainFault> | null }

async function report(options: Options<'import'>, io: Io, summary: Summary): Promise<void> {
  const { recorded, duplicate, rejected, seconds, rejectedFile, error } = summary;
  if (options.json) {
    await printJson(io.stdout, { file: options.file, recorded, duplicate, rejected, seconds, rejectedFile, complete: error === null, ...(error === null ? {} : { error }) });
    return;
  }
  const all = recorded + duplicate + rejected;
  await print(io.stdout, `${options.file}: ${count(recorded)} recorded, ${count(duplicate)} duplicate, ${count(rejected)} rejected in ${seconds.toFixed(1)} s (${count(Math.round(all / Math.max(seconds, 0.001)))}/s)\n`);
  if (rejectedFile !== null) await print(io.stdout, `The rejected lines and why: ${rejectedFile}\n`);
  if (error !== null) await print(io.stderr, `throughline import: ${error.message} (${error.code})\n`);
}

const SPACES: ReadonlySet<number | undefined> = new Set([0x20, 0x09, 0x0a, 0x0d]);
/** Without the white space around it: as it stands in a batch, in whatever file it stood. */
function trimmed(bytes: Uint8Array): Uint8Array {
  let [start, end] = [0, bytes.length];
  while (start < end && SPACES.has(bytes[start])) start += 1;
  while (end > start && SPACES.has(bytes[end - 1])) end -= 1;
  return bytes.subarray(start, end);
}

const REJECTS_BUFFER = 64 * 1024;

/** The file of rejected lines, each with the hash by which `dead-letters` tells of it; made anew by each run and only when there is one to write. */
class Rejects {
  readonly file: string;
  #descriptor: number | null = null;
  #buffered: string[] = [];
  #length = 0;

  constructor(input: string) {
    this.file = `${input === '-' ? 'stdin' : input}.rejected.ndjson`;
  }

  add({ line, bytes }: Element, { code, attribute, reason }: { readonly code: string; readonly attribute: string | null; readonly reason: string }): void {
    const raw = isUtf8(bytes) ? { raw: Buffer.from(bytes).toString('utf8') } : { raw_base64: Buffer.from(bytes).toString('base64') };
    const text = `${JSON.stringify({ line, code, attribute, reason, sha256: hash('sha256', trimmed(bytes)), ...raw })}\n`;
    this.#buffered.push(text);
    this.#length += text.length;
    if (this.#length >= REJECTS_BUFFER) this.#write();
  }

  /** Writes what is left. A file of an earlier run, whose lines this one took, goes. */
  close(): void {
    if (this.#length > 0) this.#write();
    if (this.#descriptor === null) rmSync(this.file, { force: true });
    else closeSync(this.#descriptor);
  }

  #write(): void {
    try {
      this.#descriptor ??= openSync(this.file, 'w', 0o600);
      writeSync(this.#descriptor, this.#buffered.join(''));
    } catch (cause) {
      throw new OperatingError('fileUnreadable', `${this.file}, where the rejected lines go, cannot be written`, { cause });
    }
    this.#buffered = [];
    this.#length = 0;
  }
}

// ---- into a server ----------------------------------------------------------------------------------------------------

/** Requests in flight; each carries events of other identities, so that an identity's events stay in order. */
const LANES = 4;
const BATCH_EVENTS = 500;
const BATCH_BYTES = 512 * 1024;
const TRIES = 12;
const WAIT_MAX_MS = 5000;
const REQUEST_TIMEOUT_MS = 60_000;

const answerSchema = z.object({
  results: z.array(z.object({ index: z.number(), result: z.enum(['recorded', 'duplicate', 'rejected']), code: z.string().optional(), attribute: z.string().nullish(), message: z.string().optional() })),
});
const receiptSchema = z.object({ result: z.enum(['recorded', 'duplicate']) });
const problemSchema = z.object({ errors: z.array(z.object({ code: z.string(), message: z.string().optional() })) });

/** What is no JSON would be no element of a batch. It goes by itself, so that the server refuses and counts it as it does the others. */
const SPOILS_BATCH: ReadonlySet<RejectionCode> = new Set(['notJson', 'badUtf8', 'tooDeep']);
/** Of a single event: the door refused it, not the server the request. */
const REFUSED_EVENT: ReadonlySet<number> = new Set([400, 413, 415]);

type Sent = 'batch' | 'event';
/** `refused`: the batch for its size, the event for what it is. */
type Answered = { readonly kind: 'answered'; readonly json: unknown } | { readonly kind: 'refused' };
interface SendLane { readonly sends: Sent; waiting: Line[]; bytes: number; sending: Promise<void> | null }

class ServerSink implements Sink {
  readonly #url: string;
  readonly #key: string;
  readonly #io: Io;
  readonly #counts: Counts;
  readonly #rejects: Rejects;
  readonly #lanes: readonly SendLane[] = Array.from({ length: LANES + 1 }, (_, n) => ({ sends: n < LANES ? 'batch' : 'event', waiting: [], bytes: 0, sending: null }));

  constructor(url: string, key: string, io: Io, counts: Counts, rejects: Rejects) {
    this.#url = url;
    this.#key = key;
    this.#io = io;
    this.#counts = counts;
    this.#rejects = rejects;
  }

  put(line: Line): Promise<void> | null {
    const { element, decoded } = line;
    // Its own limit is the server's to say: one that is above it may be taken there, so what is too large here stays here.
    if (decoded.kind === 'rejected' && decoded.rejection.code === 'tooLarge') {
      this.#counts.rejected += 1;
      this.#rejects.add(element, decoded.rejection);
      return null;
    }
    const lane = this.#lanes[decoded.kind === 'rejected' && SPOILS_BATCH.has(decoded.rejection.code) ? LANES : laneOf(decoded)];
    if (lane === undefined) throw new Error('assertion: a lane for every event');
    lane.waiting.push(line);
    lane.bytes += line.element.bytes.length;
    return lane.waiting.length >= BATCH_EVENTS || lane.bytes >= BATCH_BYTES ? this.#send(lane) : null;
  }

  kick(): void {
    for (const lane of this.#lanes) if (lane.sending === null && lane.waiting.length > 0) void this.#send(lane);
  }

  async finish(): Promise<void> {
    await Promise.all(this.#lanes.map(async (lane) => {
      while (lane.waiting.length > 0) await this.#send(lane);
      await lane.sending;
    }));
  }

  /** Requests under way are waited for, so that what they say is counted; a failed one has been told already. */
  async close(): Promise<void> {
    await Promise.allSettled(this.#lanes.flatMap(({ sending }) => (sending === null ? [] : [sending])));
  }

  /** Waits for the lane's request under way, then starts the next. Throws what the former one met. */
  async #send(lane: SendLane): Promise<void> {
    while (lane.sending !== null) await lane.sending;
    if (lane.waiting.length === 0) return;
    const lines = lane.waiting;
    lane.waiting = [];
    lane.bytes = 0;
    const sending = lane.sends === 'batch' ? this.#post(lines) : this.#postEach(lines);
    // A failed request stays: whoever comes to the lane next is told, and nothing behind it is sent.
    lane.sending = sending.then(() => { lane.sending = null; });
    lane.sending.catch(() => undefined);
  }

  async #post(lines: readonly Line[]): Promise<void> {
    const body = batchOf(lines);
    const answer = await this.#answer(body, 'batch');
    if (answer.kind === 'answered') {
      this.#count(lines, answer.json);
      return;
    }
    if (lines.length === 1) throw new OperatingError('serverRefused', `${this.#url} takes no request of ${String(body.length)} bytes`);
    await this.#post(lines.slice(0, lines.length / 2));
    await this.#post(lines.slice(lines.length / 2));
  }

  /** What is wrong with each is known here; a server that takes it all the same has the last word. */
  async #postEach(lines: readonly Line[]): Promise<void> {
    for (const { element, decoded } of lines) {
      const answer = await this.#answer(Buffer.from(decoded.received ?? element.bytes), 'event');
      const taken = answer.kind === 'answered' ? receiptSchema.safeParse(answer.json).data?.result : undefined;
      this.#counts[taken ?? 'rejected'] += 1;
      if (taken === undefined && decoded.kind === 'rejected') this.#rejects.add(element, decoded.rejection);
    }
  }

  /** Asks until there is an answer. Throws what the server says, or that it says nothing. */
  async #answer(body: Uint8Array<ArrayBuffer>, sent: Sent): Promise<Answered> {
    for (let tries = 1; ; tries += 1) {
      const answer = await this.#request(body, sent);
      if (answer.kind !== 'later') return answer;
      if (tries >= TRIES || this.#io.signal.aborted) throw new OperatingError(answer.code, `${this.#url} ${answer.why}`, { cause: answer.cause });
      await this.#io.sleep(Math.min(WAIT_MAX_MS, answer.afterMs ?? 100 * 2 ** (tries - 1)), this.#io.signal);
    }
  }

  /** Sending again is safe, whatever became of the request: what is recorded is a duplicate then. */
  async #request(body: Uint8Array<ArrayBuffer>, sent: Sent): Promise<Answered | { readonly kind: 'later'; readonly code: ErrorCode; readonly why: string; readonly afterMs: number | null; readonly cause?: unknown }> {
    let status: number;
    let retryAfter: string | null;
    let text: string;
    try {
      const response = await this.#io.fetch(`${this.#url}/events`, {
        method: 'POST', body, signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS), redirect: 'error',
        headers: { 'content-type': `application/cloudevents${sent === 'batch' ? '-batch' : ''}+json`, 'x-api-key': this.#key },
      });
      status = response.status;
      retryAfter = response.headers.get('retry-after');
      text = await response.text();
    } catch (cause) {
      return { kind: 'later', code: 'serverUnreachable', why: 'cannot be reached: is it running?', afterMs: null, cause };
    }
    if (status === 200) return { kind: 'answered', json: jsonOf(text) };
    const problem = problemSchema.safeParse(jsonOf(text)).data?.errors[0];
    const why = `answers ${String(status)}${problem === undefined ? '' : `: ${problem.code} ${problem.message ?? ''}`.trimEnd()}`;
    if (sent === 'event' && problem !== undefined && REFUSED_EVENT.has(status)) return { kind: 'refused' };
    if (status === 413) return { kind: 'refused' };
    if (status === 429 || status === 502 || status === 503 || status === 504) {
      // Its own code, where it has one: a full disk is no server that is away.
      return { kind: 'later', code: isErrorCode(problem?.code) ? problem.code : 'serverUnreachable', why, afterMs: retryAfter !== null && /^\d{1,4}$/.test(retryAfter) ? Number(retryAfter) * 1000 : null };
    }
    if (status === 401) throw new OperatingError('serverRefused', `${this.#url} does not know this API key: set THROUGHLINE_API_KEY to one of its keys`);
    throw new OperatingError('serverRefused', `${this.#url} ${why}`);
  }

  #count(lines: readonly Line[], json: unknown): void {
    const answer = answerSchema.safeParse(json);
    if (!answer.success || answer.data.results.length !== lines.length) throw new OperatingError('serverRefused', `${this.#url} does not answer as a Throughline does`);
    for (const { index, result, code, attribute, message } of answer.data.results) {
      const line = lines[index];
      this.#counts[result] += 1;
      if (result === 'rejected' && line !== undefined) this.#rejects.add(line.element, { code: code ?? 'unknown', attribute: attribute ?? null, reason: message ?? '' });
    }
  }
}

/** The elements' own bytes as one JSON array. */
function batchOf(lines: readonly Line[]): Buffer<ArrayBuffer> {
  const comma = Buffer.from(',');
  const parts: Uint8Array[] = [Buffer.from('[')];
  lines.forEach(({ element }, i) => {
    if (i > 0) parts.push(comma);
    parts.push(element.bytes);
  });
  parts.push(Buffer.from(']'));
  return Buffer.concat(parts);
}

/** By the identity, so that an identity's events go one after the other. FNV-1a. */
function laneOf(decoded: Decoded): number {
  const whose = whoseEvent(decoded);
  if (whose === null) return 0;
  const text = `${whose.type} ${whose.value}`;
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i += 1) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return (hash >>> 16) % LANES;
}

// ---- into the stores --------------------------------------------------------------------------------------------------

/** Events a call of the door: one commit takes them all. */
const CALL_EVENTS = 2000;
const CALL_BYTES = 4 * 1024 * 1024;
const CALLS = 2;

async function openStoreSink(options: Options<'import'>, places: Places, io: Io, counts: Counts, rejects: Rejects): Promise<Sink> {
  const stores = await openStores(places, 'alone', io);
  try {
    const workspaces = await openWorkspaces(places.events, stores, io, options.masterKey);
    try {
      if (options.workspace === DEFAULT_WORKSPACE) {
        const first = await workspaces.firstStart({ token: options.apiKey, secret: options.workspaceSecret });
        if (first.kind === 'made' && options.apiKey === null) await print(io.stderr, `Made workspace ${DEFAULT_WORKSPACE}. Its API key, shown this once: ${first.token}\n`);
      }
      const keys = workspaces.keys(options.workspace);
      if (keys === null) throw new OperatingError('badConfiguration', `there is no workspace ${options.workspace} in ${nameOf(places.events)}: make it with throughline workspaces create ${options.workspace}${places.events.kind === 'sqlite' ? ` --data ${places.events.folder}` : ''}`);
      const door = new Door({ store: stores.events, clock: io.clock, random: io.random, sleep: io.sleep, tallies: stores.views });
      return new StoreSink(door, keys, counts, rejects, stores.close);
    } finally {
      await workspaces.close();
    }
  } catch (fault) {
    await stores.close();
    throw fault;
  }
}

class StoreSink implements Sink {
  readonly #door: Door;
  readonly #keys: WorkspaceKeys;
  readonly #counts: Counts;
  readonly #rejects: Rejects;
  readonly #closeStores: () => Promise<void>;
  #waiting: Line[] = [];
  #bytes = 0;
  /** Calls under way, oldest first. The door takes them in order, so none need wait for the one before. */
  readonly #calls: Promise<void>[] = [];

  constructor(door: Door, keys: WorkspaceKeys, counts: Counts, rejects: Rejects, closeStores: () => Promise<void>) {
    this.#door = door;
    this.#keys = keys;
    this.#counts = counts;
    this.#rejects = rejects;
    this.#closeStores = closeStores;
  }

  put(line: Line): Promise<void> | null {
    this.#waiting.push(line);
    this.#bytes += line.element.bytes.length;
    return this.#waiting.length >= CALL_EVENTS || this.#bytes >= CALL_BYTES ? this.#send() : null;
  }

  kick(): void { if (this.#calls.length === 0 && this.#waiting.length > 0) void this.#send(); }

  async finish(): Promise<void> {
    if (this.#waiting.length > 0) await this.#send();
    while (this.#calls.length > 0) await this.#calls.shift();
  }

  async close(): Promise<void> {
    await Promise.allSettled(this.#calls);
    await this.#door.drain();
    await this.#closeStores();
  }

  async #send(): Promise<void> {
    const lines = this.#waiting;
    this.#waiting = [];
    this.#bytes = 0;
    const call = this.#receive(lines);
    call.catch(() => undefined);
    this.#calls.push(call);
    while (this.#calls.length >= CALLS) await this.#calls.shift();
  }

  async #receive(lines: readonly Line[]): Promise<void> {
    const receipts = await this.#door.receive(this.#keys, lines.map(({ decoded }) => decoded));
    receipts.forEach((receipt, i) => {
      const line = lines[i];
      this.#counts[receipt.kind] += 1;
      if (receipt.kind === 'rejected' && line !== undefined) this.#rejects.add(line.element, receipt.rejection);
    });
  }
}
