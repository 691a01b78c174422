// The event store on EventStoreDB (KurrentDB) over gRPC. Tested on the 22.10 line.
//
// The driver reads the address, finds the node, and holds channel, TLS and credentials; the calls are made on the stubs that
// it brings. Its own calls (6.2.1, read in its code) will not do for a store of record:
//   appends      wait in one map of the whole process: a cut of any connection rejects those of all, and an answer after
//                that is a TypeError out of an event handler; a write that fails behind back-pressure is a rejection that
//                nobody can catch. Either ends the process. Here what waits belongs to its call, and a late answer finds nobody.
//   metadata     that is JSON comes back parsed, and its bytes are lost.
//   checkpoints  are told on receipt, before the events in front of them were handled. Here both are messages of one queue.
//   a failure    to learn what the server can do is remembered for good. Here a connection that failed is thrown away whole.
//
// What the server makes of repeats is in environment.md: ids are compared only at the revisions where an append would have
// gone. So an append always carries its expected revision, and the door reads the tail whenever one was refused.
import assert from 'node:assert/strict';
import { performance } from 'node:perf_hooks';
import { setTimeout as pause } from 'node:timers/promises';
import type { CallOptions, ClientDuplexStream, ClientReadableStream, Metadata } from '@grpc/grpc-js';
import { convertToCommandError, ErrorType, EventStoreDBClient, isCommandError } from '@eventstore/db-client';
import gossipStubs from '@eventstore/db-client/generated/gossip_grpc_pb.js';
import type * as GossipWire from '@eventstore/db-client/generated/gossip_pb.js';
import gossip from '@eventstore/db-client/generated/gossip_pb.js';
import monitoringStubs from '@eventstore/db-client/generated/monitoring_grpc_pb.js';
import type * as MonitoringWire from '@eventstore/db-client/generated/monitoring_pb.js';
import monitoring from '@eventstore/db-client/generated/monitoring_pb.js';
import featuresStubs from '@eventstore/db-client/generated/serverfeatures_grpc_pb.js';
import type * as FeaturesWire from '@eventstore/db-client/generated/serverfeatures_pb.js';
import type * as SharedWire from '@eventstore/db-client/generated/shared_pb.js';
import shared from '@eventstore/db-client/generated/shared_pb.js';
import streamsStubs from '@eventstore/db-client/generated/streams_grpc_pb.js';
import type * as Wire from '@eventstore/db-client/generated/streams_pb.js';
import wire from '@eventstore/db-client/generated/streams_pb.js';
import { OperatingError } from '../errors.ts';
import { isAborted } from '../lifecycle.ts';
import type { AppendResult, EventStore, ExpectedRevision, Finding, NewEvent, Position, RandomBytes, RecordedEvent, SubscriptionBatch } from '../ports.ts';

/** A connection string of the driver: `esdb://` or `esdb+discover://`. It may hold credentials, so it is never told. */
export interface EventStoreDbPlace { readonly kind: 'eventstoredb'; readonly url: string }

export interface EventStoreDbLimits {
  /** From the call of `append` to its answer, waiting included. The driver's deadline of all other calls is as long; without ours, appends to a frozen server were seen to wait 16 s. */
  readonly appendTimeoutMs: number;
  /** One page of a read, and the opening of a connection. */
  readonly readTimeoutMs: number;
  /** Appends sent and not yet answered: 512 reached the highest rate (environment.md); their bytes bound what a stalled connection holds. */
  readonly inFlightMax: number;
  readonly inFlightBytesMax: number;
  /** How often a subscription with nothing to do looks at the head. */
  readonly pollMs: number;
  /** For how long an event that was seen to be there may stay away before the subscription counts as silent: five polls. */
  readonly silenceMs: number;
  /** Failures of a subscription in a row, with back-offs of 0.05 to 5 s between them (half a minute in all), until its caller is told. */
  readonly followTriesMax: number;
}
export const EVENTSTOREDB_LIMITS: EventStoreDbLimits = {
  appendTimeoutMs: 10_000, readTimeoutMs: 10_000, inFlightMax: 512, inFlightBytesMax: 32 * 1024 * 1024, pollMs: 2_000, silenceMs: 10_000, followTriesMax: 10,
};

export interface EventStoreDbOptions {
  readonly random: RandomBytes;
  /** `follow` refuses appends with storeReadOnly. Connections are made when they are first used, whatever the role. */
  readonly role?: 'append' | 'follow' | 'both';
  readonly onNotice?: Notice;
  readonly limits?: Partial<EventStoreDbLimits>;
}
type Notice = (message: string, fields: Record<string, unknown>) => void;

/** Holds the store's id. In no category, so no subscription of ours hands it out, and `head` looks past it. */
const STORE_STREAM = 'throughline-store';
const STORE_TYPE = 'throughline.store-made';
/** One request; the driver cuts appends at the same size. */
const REQUEST_BYTES_MAX = 3 * 1024 * 1024;
const READ_PAGE_EVENTS = 1_000;
/** Pages of a look backward from the head: mostly the newest event settles it. */
const LOOK_PAGES = [4, 32, 256, 1_000, 1_000] as const;
/** What a subscription may hold that was not asked for yet. */
const AHEAD_BYTES_MAX = 8 * 1024 * 1024;
/** For how long a batch is kept open for events that are known to be coming. */
const FILL_MS = 10;
/** With the server's default window of 32 events: a checkpoint every 320, as its other clients ask for. */
const CHECKPOINT_WINDOWS = 10;
const BACKOFF_MS = { first: 50, most: 5_000 } as const;
/** The first line that was tested. */
const TESTED_LINE = '22.10.';

// ---- positions and events --------------------------------------------------------------------------------------------

const HALF = 20;
/** Commit and prepare, decimal digits as they come over the wire. Both are kept: they are equal on 22.10 and differ on other lines. */
function positionOf(commit: string, prepare: string): Position {
  return (commit.padStart(HALF, '0') + prepare.padStart(HALF, '0')) as Position;
}
function digits(half: string): string {
  return half.replace(/^0+(?=.)/, '');
}
function wirePosition(position: Position): Wire.ReadReq.Options.Position {
  return new wire.ReadReq.Options.Position().setCommitPosition(digits(position.slice(0, HALF))).setPreparePosition(digits(position.slice(HALF)));
}
function later(a: Position | null, b: Position | null): Position | null {
  return a === null || (b !== null && b > a) ? b : a;
}

function uuidOf(bytes: Uint8Array): string {
  const hex = Buffer.from(bytes).toString('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-8${hex.slice(17, 20)}-${hex.slice(20, 32)}`;
}

function streamName(identifier: SharedWire.StreamIdentifier | undefined): string {
  return identifier === undefined ? '' : Buffer.from(identifier.getStreamName_asU8()).toString('utf8');
}
function identifierOf(stream: string): SharedWire.StreamIdentifier {
  return new shared.StreamIdentifier().setStreamName(new Uint8Array(Buffer.from(stream, 'utf8')));
}
/** The server's own streams, and ours for the store's id. */
function isOurs(stream: string): boolean {
  return !stream.startsWith('$') && stream !== STORE_STREAM;
}
function matches(stream: string, prefixes: readonly string[]): boolean {
  return isOurs(stream) && (prefixes.length === 0 || prefixes.some((prefix) => stream.startsWith(prefix)));
}

function recordedOf(record: Wire.ReadResp.ReadEvent.RecordedEvent): RecordedEvent {
  const position = positionOf(record.getCommitPosition(), record.getPreparePosition());
  return {
    id: record.getId()?.getString() ?? '', type: record.getMetadataMap().get('type') ?? '', data: record.getData_asU8(), metadata: record.getCustomMetadata_asU8(),
    stream: streamName(record.getStreamIdentifier()), revision: Number(record.getStreamRevision()), position,
  };
}

// ---- faults ----------------------------------------------------------------------------------------------------------

/** What the server or the connection said, as one of our errors. No message of ours holds the address: it may hold a password. */
function operatingError(fault: unknown, doing: string): OperatingError {
  if (fault instanceof OperatingError) return fault;
  const error = fault instanceof Error ? convertToCommandError(withoutCancellation(fault)) : new Error(String(fault));
  const type = isCommandError(error) ? error.type : null;
  switch (type) {
    case ErrorType.ACCESS_DENIED: return new OperatingError('storeUnfit', `${doing}: the account in the address of the event store may not do this`, { cause: error });
    case ErrorType.STREAM_DELETED: return new OperatingError('streamDeleted', `${doing}: the stream has a tombstone: it can never be read or written again`, { cause: error });
    case ErrorType.MAXIMUM_APPEND_SIZE_EXCEEDED: return new OperatingError('eventTooLarge', `${doing}: larger than an append of this server may be`, { cause: error });
    default: return new OperatingError('storeUnavailable', `${doing}: ${type ?? 'failed'}`, { cause: error });
  }
}
/** The driver converts all but its own cancellations; ours are told by whoever cancelled. */
function withoutCancellation(fault: Error): Error {
  return 'code' in fault && fault.code === 1 ? new Error('the call was cancelled') : fault;
}

function unanswered(ms: number, sent: boolean): OperatingError {
  return new OperatingError('storeUnavailable', sent ? `no answer to an append within ${String(ms)} ms: whether it stands is not known` : `an append could not be sent within ${String(ms)} ms`);
}

async function inTime<T>(work: Promise<T>, ms: number, doing: string): Promise<T> {
  const timer = Promise.withResolvers<never>();
  const timeout = setTimeout(() => timer.reject(new OperatingError('storeUnavailable', `${doing}: no answer within ${String(ms)} ms`)), ms);
  try {
    return await Promise.race([work, timer.promise]);
  } finally {
    clearTimeout(timeout);
  }
}

// ---- a connection ----------------------------------------------------------------------------------------------------

/** One channel to one node. */
interface Line {
  readonly client: EventStoreDBClient;
  readonly streams: streamsStubs.StreamsClient;
  /** Metadata and options of a call that may last so long; null: as long as it likes. */
  args(timeoutMs: number | null): [Metadata, CallOptions];
}

/**
 * A connection of one purpose (appends, reads, one subscription), made when it is used and made anew after a failure: a
 * client object that saw one keeps what it failed to learn, and closes its channel under everybody who shares it.
 */
class Connection {
  readonly #place: EventStoreDbPlace;
  readonly #timeoutMs: number;
  #line: Promise<Line> | null = null;
  #current: Line | null = null;
  #closed = false;

  constructor(place: EventStoreDbPlace, timeoutMs: number) {
    this.#place = place;
    this.#timeoutMs = timeoutMs;
  }

  /** Throws storeUnavailable (no node found), badConfiguration (the address or a file that it names), storeClosed. */
  async line(): Promise<Line> {
    if (this.#closed) throw new OperatingError('storeClosed', 'the event store is closed');
    const opening = this.#line ?? openLine(this.#place, this.#timeoutMs);
    this.#line = opening;
    try {
      const line = await opening;
      if (this.#line === opening) this.#current = line;
      return line;
    } catch (fault) {
      if (this.#line === opening) this.#line = null;
      throw fault;
    }
  }

  /** After a failure: the next call gets a new channel to whichever node leads by then. */
  drop(line: Line): void {
    line.streams.close();
    if (this.#current !== line) return;
    this.#current = null;
    this.#line = null;
  }

  /** As `drop`, of whatever is held. */
  reset(): void {
    this.#line?.then((line) => line.streams.close(), () => undefined);
    this.#line = null;
    this.#current = null;
  }

  close(): void {
    this.#closed = true;
    this.reset();
  }
}

async function openLine(place: EventStoreDbPlace, timeoutMs: number): Promise<Line> {
  const client = clientOf(place);
  // Members that the driver keeps for its own calls; its version is pinned, and the contract suite would miss them.
  const streams = await inTime(client['execute'](streamsStubs.StreamsClient, 'streams', (stub) => Promise.resolve(stub)), timeoutMs, 'connecting to the event store')
    .catch((fault: unknown) => { throw operatingError(fault, 'connecting to the event store'); });
  return {
    client, streams,
    args: (ms) => client['callArguments']({}, { deadline: ms === null ? Infinity : new Date(Date.now() + ms) }),
  };
}

function clientOf({ url }: EventStoreDbPlace): EventStoreDBClient {
  try {
    return EventStoreDBClient.connectionString(url);
  } catch {
    // Not as the cause: the driver's error carries the whole address.
    throw new OperatingError('badConfiguration', 'the address of the event store cannot be read, or names a certificate file that is not there');
  }
}

// ---- reading ---------------------------------------------------------------------------------------------------------

interface ReadOf { readonly from: { readonly stream: string; readonly revision: number | null } | { readonly all: Position | null }; readonly direction: 'forward' | 'backward'; readonly count: number }

function readRequest({ from, direction, count }: ReadOf): Wire.ReadReq {
  const options = new wire.ReadReq.Options()
    .setReadDirection(wire.ReadReq.Options.ReadDirection[direction === 'forward' ? 'FORWARDS' : 'BACKWARDS']).setCount(String(count)).setNoFilter(new shared.Empty()).setUuidOption(new wire.ReadReq.Options.UUIDOption().setString(new shared.Empty()));
  const edge = new shared.Empty();
  if ('stream' in from) {
    const stream = new wire.ReadReq.Options.StreamOptions().setStreamIdentifier(identifierOf(from.stream));
    if (from.revision !== null) stream.setRevision(String(from.revision));
    else if (direction === 'forward') stream.setStart(edge);
    else stream.setEnd(edge);
    return new wire.ReadReq().setOptions(options.setStream(stream));
  }
  const all = new wire.ReadReq.Options.AllOptions();
  if (from.all !== null) all.setPosition(wirePosition(from.all));
  else if (direction === 'forward') all.setStart(edge);
  else all.setEnd(edge);
  return new wire.ReadReq().setOptions(options.setAll(all));
}

/** At most `count` events; a missing stream has none. */
async function read(connection: Connection, what: ReadOf, timeoutMs: number, signal?: AbortSignal): Promise<RecordedEvent[]> {
  const line = await connection.line();
  const call = line.streams.read(readRequest(what), ...line.args(timeoutMs));
  const events: RecordedEvent[] = [];
  const stop = (): void => call.cancel();
  signal?.addEventListener('abort', stop);
  try {
    await finished(call, (message) => {
      const record = message.getEvent()?.getEvent();
      if (record !== undefined) events.push(recordedOf(record));
    });
  } catch (fault) {
    const error = operatingError(fault, 'reading from the event store');
    if (error.retriable) connection.drop(line);
    throw error;
  } finally {
    signal?.removeEventListener('abort', stop);
  }
  return events;
}

/** Rejects with what ended the call. A handler that throws ends it too: it must not be thrown at whoever reads the socket. */
function finished<T>(call: ClientReadableStream<T>, onMessage: (message: T) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    call.on('data', (message: T) => {
      try {
        onMessage(message);
      } catch (fault) {
        reject(fault instanceof Error ? fault : new Error(String(fault)));
        call.cancel();
      }
    });
    call.on('end', () => resolve());
    call.on('error', reject);
  });
}

/** The log from its end backward, in pages that grow, over a bounded number of events; and whether its start was reached. */
async function* backward(connection: Connection, timeoutMs: number, signal?: AbortSignal): AsyncGenerator<RecordedEvent, 'all' | 'some', undefined> {
  let from: Position | null = null;
  for (const count of LOOK_PAGES) {
    const page = await read(connection, { from: { all: from }, direction: 'backward', count }, timeoutMs, signal);
    for (const event of page) {
      // Whether a page begins with the event at its position or behind it is the server's affair.
      if (from !== null && event.position >= from) continue;
      yield event;
    }
    if (page.length < count) return 'all';
    from = page.at(-1)?.position ?? null;
  }
  return 'some';
}

/** Position of the last event that is ours; with none among those looked at, of the oldest of them: what is ours stands before it. */
async function lastPosition(connection: Connection, timeoutMs: number): Promise<Position | null> {
  const log = backward(connection, timeoutMs);
  let oldest: Position | null = null;
  for (;;) {
    const next = await log.next();
    if (next.done === true) return next.value === 'all' ? null : oldest;
    oldest = next.value.position;
    if (isOurs(next.value.stream)) return oldest;
  }
}

/** What stands after `place`: an event that the filter lets through (the last of them), none (`head` is where the log ends for us), or more than is looked at. */
type Ahead = { readonly kind: 'more'; readonly target: Position } | { readonly kind: 'nothing'; readonly head: Position | null } | { readonly kind: 'unknown' };

async function lookAhead(connection: Connection, place: Position | null, prefixes: readonly string[], timeoutMs: number, signal: AbortSignal): Promise<Ahead> {
  const log = backward(connection, timeoutMs, signal);
  let head = place;
  for (;;) {
    const next = await log.next();
    if (next.done === true) return next.value === 'all' ? { kind: 'nothing', head } : { kind: 'unknown' };
    const { position, stream } = next.value;
    if (place !== null && position <= place) return { kind: 'nothing', head };
    if (matches(stream, prefixes)) return { kind: 'more', target: position };
    if (isOurs(stream)) head = later(head, position);
  }
}

// ---- appending -------------------------------------------------------------------------------------------------------

/** What the server said to one append. `position` is that of the last event. `highest`: see `EventStoreDb.append`. */
type Answer =
  | { readonly kind: 'stored'; readonly revision: number; readonly position: Position; readonly highest: Position | null }
  | { readonly kind: 'conflict'; readonly revision: number };

interface Pending {
  readonly requests: readonly Wire.BatchAppendReq[];
  readonly number: number;
  readonly bytes: number;
  readonly resolve: (answer: Answer) => void;
  readonly reject: (fault: OperatingError) => void;
  readonly timer: NodeJS.Timeout;
  /** Null while it waits for its turn. */
  call: AppendCall | null;
  sentMs: number;
  /** The highest position known when it was sent. */
  highest: Position | null;
  settled: boolean;
}

interface AppendCall {
  readonly line: Line;
  readonly duplex: ClientDuplexStream<Wire.BatchAppendReq, Wire.BatchAppendResp>;
  /** By correlation number, in the order sent. */
  readonly pending: Map<number, Pending>;
  answeredMs: number;
  cut: boolean;
}

/** The protocol's own empty message, whose package is not ours to import: read from the two bytes that it takes as `no_stream`. */
const NO_STREAM = wire.BatchAppendReq.Options.deserializeBinary(Uint8Array.of(0x1a, 0)).getNoStream();

/** Numbers stand for ids: an id only has to differ from the others of its call. */
function correlationOf(number: number): SharedWire.UUID {
  return new shared.UUID().setString(`00000000-0000-4000-8000-${number.toString(16).padStart(12, '0')}`);
}
function numberOf(id: SharedWire.UUID | undefined): number {
  const structured = id?.getStructured();
  if (structured !== undefined) return Number(BigInt.asUintN(48, BigInt(structured.getLeastSignificantBits())));
  return parseInt(id?.getString().slice(-12) ?? '', 16);
}

/**
 * One append as requests. No deadline goes with it: on this line that is an instant of our clock, and a server whose clock
 * is ahead would refuse every append; the server's own write timeout stands, and ours.
 */
function appendRequests(number: number, stream: string, expected: ExpectedRevision, events: readonly NewEvent[]): { readonly requests: readonly Wire.BatchAppendReq[]; readonly bytes: number } {
  const options = new wire.BatchAppendReq.Options().setStreamIdentifier(identifierOf(stream));
  if (expected === 'no_stream') options.setNoStream(NO_STREAM);
  else options.setStreamPosition(String(expected));
  const id = correlationOf(number);
  const requests = [new wire.BatchAppendReq().setCorrelationId(id).setOptions(options)];
  let bytes = 0;
  let held = 0;
  for (const event of events) {
    const size = event.data.length + event.metadata.length;
    if (held > 0 && held + size > REQUEST_BYTES_MAX) {
      requests.push(new wire.BatchAppendReq().setCorrelationId(id));
      held = 0;
    }
    requests.at(-1)?.addProposedMessages(proposed(event));
    held += size;
    bytes += size;
  }
  requests.at(-1)?.setIsFinal(true);
  return { requests, bytes };
}

/** Binary whatever it holds, as the driver's `binaryEvent` is: the bytes pass as they are (measured 2.2 times faster than JSON). */
function proposed({ id, type, data, metadata }: NewEvent): Wire.BatchAppendReq.ProposedMessage {
  const message = new wire.BatchAppendReq.ProposedMessage().setId(new shared.UUID().setString(id)).setData(plainBytes(data)).setCustomMetadata(plainBytes(metadata));
  message.getMetadataMap().set('type', type).set('content-type', 'application/octet-stream');
  return message;
}
/** The encoder takes a Buffer for text in base64 unless it is a plain array of bytes. No copy. */
function plainBytes(bytes: Uint8Array): Uint8Array {
  return bytes.constructor === Uint8Array ? bytes : new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/**
 * Appends over one duplex call, many in flight, in the order in which they were issued, each with its own time limit. A
 * rejection says nothing of whether the append stands.
 *
 * The call is cut, and all that it has in flight rejected, when it fails, when it ends, and when one append ran out of time
 * and nothing at all was answered since it was sent: the server is frozen or the connection is dead, and what it may still
 * take from our socket it may still store. The next append opens another.
 */
class Appender {
  readonly #connection: Connection;
  readonly #limits: EventStoreDbLimits;
  readonly #highest: () => Position | null;
  readonly #notice: Notice;
  #call: AppendCall | null = null;
  #opening = false;
  /** In the order issued; those before `#next` are done with. */
  #waiting: Pending[] = [];
  #next = 0;
  #numbers = 0;
  #inFlight = 0;
  #inFlightBytes = 0;
  #open = 0;
  #late = 0;
  readonly #whenIdle: (() => void)[] = [];

  constructor(connection: Connection, limits: EventStoreDbLimits, highest: () => Position | null, notice: Notice) {
    this.#connection = connection;
    this.#limits = limits;
    this.#highest = highest;
    this.#notice = notice;
  }

  append(stream: string, expected: ExpectedRevision, events: readonly NewEvent[]): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const number = this.#numbers += 1;
      const { requests, bytes } = appendRequests(number, stream, expected, events);
      const pending: Pending = {
        requests, number, bytes, resolve, reject, call: null, sentMs: 0, highest: null, settled: false,
        timer: setTimeout(() => this.#outOfTime(pending), this.#limits.appendTimeoutMs),
      };
      this.#open += 1;
      this.#waiting.push(pending);
      this.#pump();
    });
  }

  /** Finishes what is under way: each append is answered or out of time before long. */
  async close(): Promise<void> {
    if (this.#open > 0) await new Promise<void>((resolve) => this.#whenIdle.push(resolve));
    if (this.#call !== null) {
      this.#call.cut = true;
      this.#call.duplex.end();
    }
    this.#connection.close();
  }

  #pump(): void {
    while (this.#next < this.#waiting.length && (this.#inFlight === 0 || (this.#inFlight < this.#limits.inFlightMax && this.#inFlightBytes < this.#limits.inFlightBytesMax))) {
      if (this.#call === null) {
        this.#connect();
        return;
      }
      const pending = this.#waiting[this.#next];
      this.#next += 1;
      if (pending !== undefined && !pending.settled) this.#send(this.#call, pending);
    }
    if (this.#next > 1_000 || this.#next === this.#waiting.length) {
      this.#waiting = this.#waiting.slice(this.#next);
      this.#next = 0;
    }
  }

  #send(call: AppendCall, pending: Pending): void {
    pending.call = call;
    pending.sentMs = performance.now();
    pending.highest = this.#highest();
    call.pending.set(pending.number, pending);
    this.#inFlight += 1;
    this.#inFlightBytes += pending.bytes;
    // What `write` says of back-pressure is not needed: the bounds above hold what a stalled connection would pile up.
    for (const request of pending.requests) call.duplex.write(request);
  }

  #connect(): void {
    if (this.#opening) return;
    this.#opening = true;
    this.#connection.line().then((line) => {
      this.#opening = false;
      this.#call = this.#listen(line);
      this.#pump();
    }).catch((fault: unknown) => {
      this.#opening = false;
      const error = operatingError(fault, 'connecting for appends');
      for (const pending of this.#waiting.splice(0).slice(this.#next)) this.#settle(pending, () => pending.reject(error));
      this.#next = 0;
    });
  }

  #listen(line: Line): AppendCall {
    const call: AppendCall = { line, duplex: line.streams.batchAppend(...line.args(null)), pending: new Map(), answeredMs: 0, cut: false };
    call.duplex.on('data', (response: Wire.BatchAppendResp) => {
      try {
        this.#answered(call, response);
      } catch (fault) {
        this.#cut(call, fault);
      }
    });
    call.duplex.on('error', (fault: Error) => this.#cut(call, fault));
    call.duplex.on('end', () => this.#cut(call, new OperatingError('storeUnavailable', 'the server ended the call that appends go by')));
    return call;
  }

  #answered(call: AppendCall, response: Wire.BatchAppendResp): void {
    call.answeredMs = performance.now();
    const pending = call.pending.get(numberOf(response.getCorrelationId()));
    if (pending === undefined) {
      this.#late += 1;
      // Powers of two, so that a slow server does not fill a log.
      if ((this.#late & (this.#late - 1)) === 0) this.#notice('appends were answered after they had been given up', { count: this.#late });
      return;
    }
    let answer: Answer | OperatingError;
    try {
      answer = answerOf(response, pending.highest);
    } catch (fault) {
      answer = operatingError(fault, 'reading the answer to an append');
    }
    this.#settle(pending, () => (answer instanceof OperatingError ? pending.reject(answer) : pending.resolve(answer)));
    this.#pump();
  }

  #outOfTime(pending: Pending): void {
    const { call, sentMs } = pending;
    this.#settle(pending, () => pending.reject(unanswered(this.#limits.appendTimeoutMs, call !== null)));
    if (call !== null && call.answeredMs <= sentMs) this.#cut(call, unanswered(this.#limits.appendTimeoutMs, true));
    this.#pump();
  }

  #cut(call: AppendCall, fault: unknown): void {
    if (call.cut) return;
    call.cut = true;
    if (this.#call === call) this.#call = null;
    const error = operatingError(fault, 'appending');
    const lost = [...call.pending.values()];
    if (lost.length > 0) this.#notice('the connection for appends was lost; what was in flight is in doubt', { inFlight: lost.length, reason: error.message });
    call.duplex.cancel();
    this.#connection.drop(call.line);
    for (const pending of lost) this.#settle(pending, () => pending.reject(error));
    this.#pump();
  }

  #settle(pending: Pending, tell: () => void): void {
    if (pending.settled) return;
    pending.settled = true;
    clearTimeout(pending.timer);
    if (pending.call !== null) {
      pending.call.pending.delete(pending.number);
      this.#inFlight -= 1;
      this.#inFlightBytes -= pending.bytes;
    }
    this.#open -= 1;
    tell();
    if (this.#open === 0) for (const wake of this.#whenIdle.splice(0)) wake();
  }
}

function answerOf(response: Wire.BatchAppendResp, highest: Position | null): Answer | OperatingError {
  const success = response.getSuccess();
  if (success !== undefined) {
    const position = success.getPosition();
    if (position === undefined) return new OperatingError('storeUnfit', 'the server does not say at which position it stored an append: its line is too old');
    return { kind: 'stored', revision: Number(success.getCurrentRevision()), position: positionOf(position.getCommitPosition(), position.getPreparePosition()), highest };
  }
  const details = response.getError()?.getDetails();
  switch (details?.getTypeName()) {
    case 'event_store.client.WrongExpectedVersion': {
      const wrong = details.unpack((bytes) => shared.WrongExpectedVersion.deserializeBinary(bytes), 'event_store.client.WrongExpectedVersion');
      // The driver reads the revision from `has…` where it does not throw, and gets 1; here it is the number itself.
      return { kind: 'conflict', revision: wrong?.hasCurrentStreamRevision() === true ? Number(wrong.getCurrentStreamRevision()) : -1 };
    }
    case 'event_store.client.StreamDeleted': return new OperatingError('streamDeleted', 'the stream has a tombstone: it can never be written again');
    case 'event_store.client.AccessDenied': return new OperatingError('storeUnfit', 'the account in the address of the event store may not append');
    case 'event_store.client.MaximumAppendSizeExceeded': {
      const exceeded = details.unpack((bytes) => shared.MaximumAppendSizeExceeded.deserializeBinary(bytes), 'event_store.client.MaximumAppendSizeExceeded');
      return new OperatingError('eventTooLarge', `an append to this server may hold ${String(exceeded?.getMaxappendsize() ?? '?')} bytes`);
    }
    default: return new OperatingError('storeUnavailable', `the server did not say whether it stored an append: ${response.getError()?.getMessage() ?? 'no reason given'}`);
  }
}

// ---- following -------------------------------------------------------------------------------------------------------

interface FollowOptions { readonly after: Position | null; readonly prefixes: readonly string[]; readonly maxBatch: number; readonly signal: AbortSignal }

function subscribeRequest(after: Position | null, prefixes: readonly string[]): Wire.ReadReq {
  const all = new wire.ReadReq.Options.AllOptions();
  if (after === null) all.setStart(new shared.Empty());
  else all.setPosition(wirePosition(after));
  const names = new wire.ReadReq.Options.FilterOptions.Expression();
  if (prefixes.length === 0) names.setRegex('^[^$]');
  else names.setPrefixList([...prefixes]);
  const filter = new wire.ReadReq.Options.FilterOptions().setStreamIdentifier(names).setCount(new shared.Empty()).setCheckpointintervalmultiplier(CHECKPOINT_WINDOWS);
  const options = new wire.ReadReq.Options().setAll(all).setSubscription(new wire.ReadReq.Options.SubscriptionOptions()).setFilter(filter)
    .setUuidOption(new wire.ReadReq.Options.UUIDOption().setString(new shared.Empty()));
  return new wire.ReadReq().setOptions(options);
}

/**
 * What one subscription has sent and nobody has taken yet, in its order: events, and checkpoints as positions. Bounded: at
 * the bound the socket is left unread, the server's sending comes to rest, and it drops us or waits.
 *
 * A checkpoint stands in the queue only once something later has come. 22.10 may send one that lies ahead of an event still
 * to come when it goes from catching up to live (KurrentDB#4023), and repeats one for ever when live (#3697). The events
 * then come next, and show the checkpoint to be untrue before anybody was told of it. Where nothing later comes, the look
 * at the head moves the position.
 */
class Feed {
  readonly #call: ClientReadableStream<Wire.ReadResp>;
  readonly #eventsMax: number;
  #queue: (RecordedEvent | Position)[] = [];
  #held: Position | null = null;
  #bytes = 0;
  #fault: OperatingError | null = null;
  #wake: (() => void) | null = null;
  #enough: () => boolean = () => true;
  events = 0;
  /** Of the last event that came, or where the subscription began. */
  received: Position | null;

  constructor(line: Line, { after, prefixes, maxBatch }: Omit<FollowOptions, 'signal'>) {
    this.received = after;
    this.#eventsMax = 2 * maxBatch;
    this.#call = line.streams.read(subscribeRequest(after, prefixes), ...line.args(null));
    this.#call.on('data', (message: Wire.ReadResp) => {
      try {
        this.#take(message, prefixes);
      } catch (fault) {
        this.#end(fault);
      }
    });
    this.#call.on('error', (fault: Error) => this.#end(fault));
    this.#call.on('end', () => this.#end(new OperatingError('storeUnavailable', 'the server ended the subscription')));
  }

  get isEmpty(): boolean { return this.#queue.length === 0; }

  /** Resolves when there is enough, when the subscription has ended, when the time is over, or when `interrupt` is called. */
  wait(enough: () => boolean, ms: number): Promise<void> {
    if (this.#fault !== null || enough()) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.interrupt(), ms);
      this.#enough = enough;
      this.#wake = () => {
        this.#wake = null;
        clearTimeout(timer);
        resolve();
      };
    });
  }

  interrupt(): void { this.#wake?.(); }

  /** Up to `max` events, and the position up to which nothing is left out (null: nothing came). Throws what ended the subscription once all that came before was taken. */
  take(max: number): { readonly events: RecordedEvent[]; readonly position: Position | null } {
    if (this.#queue.length === 0 && this.#fault !== null) throw this.#fault;
    const events: RecordedEvent[] = [];
    let position: Position | null = null;
    let taken = 0;
    for (const item of this.#queue) {
      if (typeof item === 'string') position = item;
      else if (events.length === max) break;
      else {
        events.push(item);
        position = item.position;
        this.#bytes -= sizeOf(item);
      }
      taken += 1;
    }
    this.#queue = taken === this.#queue.length ? [] : this.#queue.slice(taken);
    this.events -= events.length;
    if (this.#call.isPaused() && !this.#isFull()) this.#call.resume();
    return { events, position };
  }

  close(): void {
    this.#end(new OperatingError('storeClosed', 'the subscription was ended'));
    this.#call.cancel();
  }

  #take(message: Wire.ReadResp, prefixes: readonly string[]): void {
    const record = message.getEvent()?.getEvent();
    const checkpoint = message.getCheckpoint();
    if (record !== undefined) this.#event(recordedOf(record), prefixes);
    else if (checkpoint !== undefined) this.#checkpoint(positionOf(checkpoint.getCommitPosition(), checkpoint.getPreparePosition()));
    // Confirmations, and what newer lines say of having caught up, tell nothing that the look at the head does not.
    if (this.#wake !== null && this.#enough()) this.#wake();
  }

  #event(event: RecordedEvent, prefixes: readonly string[]): void {
    this.#held = null;
    // Where a subscription goes on is exclusive; were it not, nothing would come twice all the same.
    if ((this.received !== null && event.position <= this.received) || !matches(event.stream, prefixes)) return;
    const last = this.#queue.at(-1);
    if (typeof last === 'string' && event.position <= last) throw new OperatingError('storeUnfit', 'the server sent two checkpoints that lie ahead of an event still to come: update it');
    this.received = event.position;
    this.#queue.push(event);
    this.events += 1;
    this.#bytes += sizeOf(event);
    if (this.#isFull()) this.#call.pause();
  }

  #checkpoint(position: Position): void {
    if (this.#held !== null && this.#held >= position) return;
    if (this.#held !== null) {
      // Two behind each other are one: the queue stays short however much is filtered out.
      if (typeof this.#queue.at(-1) === 'string') this.#queue.pop();
      this.#queue.push(this.#held);
    }
    this.#held = this.received === null || position > this.received ? position : null;
  }

  #isFull(): boolean { return this.events >= this.#eventsMax || this.#bytes >= AHEAD_BYTES_MAX; }

  #end(fault: unknown): void {
    this.#fault ??= operatingError(fault, 'following the event store');
    this.interrupt();
  }
}

const sizeOf = (event: RecordedEvent): number => event.data.length + event.metadata.length;

interface FollowTools { readonly limits: EventStoreDbLimits; readonly random: RandomBytes; readonly notice: Notice; readonly seen: (position: Position) => void }

/**
 * One caller's subscription over as many subscriptions of the server's as it takes: one that ends, errs or falls silent is
 * followed by another, from the last position handed over, after a back-off.
 *
 * 22.10 never says that we have caught up. So, with nothing left in the queue, the log is read from its end backward: if the
 * last event that we want has come, we have caught up, and until a failure an empty queue means it again; if it has not, it
 * is what we wait for (`target`), and batches are filled meanwhile. The same look, every few seconds, moves the position of
 * a reader behind whose filter others write, and finds out a server that is connected and sends nothing.
 */
class Following {
  readonly #connection: Connection;
  readonly #options: FollowOptions;
  readonly #tools: FollowTools;
  /** Up to here everything has been handed over. */
  #place: Position | null;
  /** The last wanted event that a look has seen. */
  #target: Position | null = null;
  #live = false;
  #told = false;
  #nextLookMs = 0;
  #failures = 0;

  constructor(connection: Connection, options: FollowOptions, tools: FollowTools) {
    this.#connection = connection;
    this.#options = options;
    this.#tools = tools;
    this.#place = options.after;
  }

  async *batches(): AsyncGenerator<SubscriptionBatch, void, undefined> {
    const { signal } = this.#options;
    while (!signal.aborted) {
      let feed: Feed | null = null;
      const stop = (): void => feed?.interrupt();
      signal.addEventListener('abort', stop);
      try {
        const line = await this.#connection.line();
        feed = new Feed(line, { ...this.#options, after: this.#place });
        for (let batch = await this.#next(feed); batch !== null; batch = await this.#next(feed)) {
          this.#failures = 0;
          yield batch;
        }
      } catch (fault) {
        if (isAborted(signal)) return;
        await this.#mend(fault);
      } finally {
        signal.removeEventListener('abort', stop);
        feed?.close();
      }
    }
  }

  /** Null once the signal aborts. */
  async #next(feed: Feed): Promise<SubscriptionBatch | null> {
    const { maxBatch, signal } = this.#options;
    const waitingSinceMs = performance.now();
    for (;;) {
      await this.#arrival(feed);
      if (signal.aborted) return null;
      const { events, position } = feed.take(maxBatch);
      let place = later(this.#place, position);
      if (feed.isEmpty && this.#lookIsDue(feed)) {
        const ahead = await this.#look(feed);
        // More may have come meanwhile, and then stands before the head that was seen or after it.
        const more = feed.take(maxBatch - events.length);
        events.push(...more.events);
        place = later(place, more.position);
        if (ahead.kind === 'nothing' && isDrained(feed)) place = later(place, ahead.head);
      }
      const caughtUp = this.#live && feed.isEmpty && !this.#isExpecting(feed);
      if (events.length > 0 || place !== this.#place || (caughtUp && !this.#told && place !== null)) {
        const last = events.at(-1);
        if (last !== undefined) this.#tools.seen(last.position);
        this.#place = place;
        this.#told ||= caughtUp;
        assert(place !== null, 'what was handed over has a position');
        return { events, position: place, caughtUp };
      }
      if (this.#isExpecting(feed) && performance.now() - waitingSinceMs > this.#tools.limits.silenceMs) {
        throw new OperatingError('storeUnavailable', `the subscription is silent: an event that is in the log did not come within ${String(this.#tools.limits.silenceMs)} ms`);
      }
    }
  }

  /** Something to hand over, or time for a look. While more is known to be coming, a batch is filled. */
  async #arrival(feed: Feed): Promise<void> {
    if (!this.#lookIsDue(feed)) await feed.wait(() => !feed.isEmpty, Math.max(1, this.#nextLookMs - performance.now()));
    const filled = (): boolean => feed.events >= this.#options.maxBatch || !this.#isExpecting(feed);
    if (!feed.isEmpty) await feed.wait(filled, FILL_MS);
  }

  #isExpecting(feed: Feed): boolean {
    return this.#target !== null && (feed.received === null || feed.received < this.#target);
  }

  #lookIsDue(feed: Feed): boolean {
    return performance.now() >= this.#nextLookMs || (!this.#live && this.#target !== null && !this.#isExpecting(feed));
  }

  async #look(feed: Feed): Promise<Ahead> {
    const { limits } = this.#tools;
    const ahead = await lookAhead(this.#connection, later(this.#place, feed.received), this.#options.prefixes, limits.readTimeoutMs, this.#options.signal);
    this.#nextLookMs = performance.now() + limits.pollMs;
    this.#target = ahead.kind === 'more' ? ahead.target : null;
    if (ahead.kind === 'nothing' || (ahead.kind === 'more' && !this.#isExpecting(feed))) this.#live = true;
    return ahead;
  }

  /** Waits before the next try. Throws what another try cannot mend, and storeUnavailable when it was tried often enough. */
  async #mend(fault: unknown): Promise<void> {
    const { limits, random, notice } = this.#tools;
    const error = operatingError(fault, 'following the event store');
    if (!error.retriable) throw error;
    this.#failures += 1;
    if (this.#failures > limits.followTriesMax) throw new OperatingError('storeUnavailable', `the subscription could not be taken up again: ${error.message}`, { cause: error });
    this.#live = false;
    this.#target = null;
    this.#nextLookMs = 0;
    notice('a subscription to the event store is taken up again', { tries: this.#failures, reason: error.message });
    // A line that failed its caller is not used again, whatever it says of itself.
    this.#connection.reset();
    const spread = 0.5 + (random(1)[0] ?? 0) / 512;
    await pause(Math.min(BACKOFF_MS.most, BACKOFF_MS.first * 2 ** (this.#failures - 1)) * spread, undefined, { signal: this.#options.signal }).catch(() => undefined);
  }
}

/** Asked again after an await, where control flow analysis would have it settled. */
function isDrained(feed: Feed): boolean { return feed.isEmpty; }

// ---- the store -------------------------------------------------------------------------------------------------------

class EventStoreDb implements EventStore {
  readonly storeId: string;
  readonly idsAreUnique = false;
  readonly #place: EventStoreDbPlace;
  readonly #options: EventStoreDbOptions;
  readonly #limits: EventStoreDbLimits;
  readonly #reads: Connection;
  readonly #appender: Appender;
  /** The highest position that this object has seen in any way. */
  #highest: Position | null;
  readonly #closing = new AbortController();

  constructor(place: EventStoreDbPlace, options: EventStoreDbOptions, opened: { readonly storeId: string; readonly reads: Connection; readonly highest: Position | null }) {
    this.storeId = opened.storeId;
    this.#place = place;
    this.#options = options;
    this.#limits = { ...EVENTSTOREDB_LIMITS, ...options.limits };
    this.#reads = opened.reads;
    this.#highest = opened.highest;
    this.#appender = new Appender(new Connection(place, this.#limits.readTimeoutMs), this.#limits, () => this.#highest, this.#notice);
  }

  /**
   * The server answers a repeat at the same expected revision like the first time, with the first time's position. What it
   * writes now stands behind everything that was there when we sent it, so an answer at or below the highest position that
   * we knew then is a repeat: `duplicate` (perhaps of an append of our own that was given up and came through after all:
   * the door looks). This cannot tell a repeat of what another process appended just now, with no later event seen here:
   * that is answered `appended`, with the position where it stands, and counted as recorded once too often.
   */
  async append(stream: string, expected: ExpectedRevision, events: readonly NewEvent[]): Promise<AppendResult> {
    this.#open();
    if (this.#options.role === 'follow') throw new OperatingError('storeReadOnly', 'this event store was opened for following');
    assert(events.length > 0, 'an append holds at least one event');
    const answer = await this.#appender.append(stream, expected, events);
    if (answer.kind === 'conflict') return answer;
    const isRepeat = answer.highest !== null && answer.position <= answer.highest;
    this.#seen(answer.position);
    const positions = events.length === 1 ? [answer.position] : await this.#positions(stream, answer, events);
    if (!isRepeat) return { kind: 'appended', revision: answer.revision, positions };
    return { kind: 'duplicate', found: new Map(events.map(({ id }, index) => [id, positions[index] ?? answer.position])) };
  }

  async readStream(stream: string, options: { readonly direction: 'forward' | 'backward'; readonly from?: number; readonly limit: number }): Promise<readonly RecordedEvent[]> {
    this.#open();
    const { direction, limit } = options;
    const events: RecordedEvent[] = [];
    let revision = options.from ?? null;
    while (events.length < limit) {
      const count = Math.min(READ_PAGE_EVENTS, limit - events.length);
      const page = await read(this.#reads, { from: { stream, revision }, direction, count }, this.#limits.readTimeoutMs);
      events.push(...page);
      const last = page.at(-1);
      if (last === undefined || page.length < count || (direction === 'backward' && last.revision === 0)) break;
      revision = direction === 'forward' ? last.revision + 1 : last.revision - 1;
    }
    for (const { position } of events) this.#seen(position);
    return events;
  }

  async head(): Promise<Position | null> {
    this.#open();
    const position = await lastPosition(this.#reads, this.#limits.readTimeoutMs);
    if (position !== null) this.#seen(position);
    return position;
  }

  /** Positions are places in a log of bytes: how many events lie between two of them, this server does not say. */
  async gap(): Promise<null> {
    this.#open();
    return null;
  }

  async *subscribe(options: FollowOptions): AsyncGenerator<SubscriptionBatch, void, undefined> {
    this.#open();
    if (options.signal.aborted) return;
    const connection = new Connection(this.#place, this.#limits.readTimeoutMs);
    const signal = AbortSignal.any([options.signal, this.#closing.signal]);
    const tools: FollowTools = { limits: this.#limits, random: this.#options.random, notice: this.#notice, seen: (position) => this.#seen(position) };
    try {
      await this.#refusePastHead(options.after);
      yield* new Following(connection, { ...options, signal }, tools).batches();
      if (!isAborted(options.signal)) this.#open();
    } finally {
      connection.close();
    }
  }

  /** Neither events nor streams are counted by this server. `bytes`: where its log ends, which is how long it is before scavenging and without indexes. */
  async stats(): Promise<{ readonly events: null; readonly streams: null; readonly bytes: number }> {
    this.#open();
    return { events: null, streams: null, bytes: Number((await this.#end())?.slice(0, HALF) ?? 0) };
  }

  /** Appends under way are finished first. Subscriptions that wait throw storeClosed. */
  async close(): Promise<void> {
    if (this.#closing.signal.aborted) return;
    this.#closing.abort();
    await this.#appender.close();
    this.#reads.close();
  }

  #open(): void {
    if (this.#closing.signal.aborted) throw new OperatingError('storeClosed', 'the event store is closed');
  }

  readonly #notice: Notice = (message, fields) => this.#options.onNotice?.(message, fields);

  #seen(position: Position): void {
    if (this.#highest === null || position > this.#highest) this.#highest = position;
  }

  /** An answer names the position of the last event alone; the others' are read. Where they cannot be had any more (the stream was cut meanwhile) the last one's stands for them: whoever has read that far has them. */
  async #positions(stream: string, { revision, position }: Extract<Answer, { kind: 'stored' }>, events: readonly NewEvent[]): Promise<readonly Position[]> {
    const stored = await this.readStream(stream, { direction: 'backward', from: revision - 1, limit: events.length - 1 });
    const byRevision = new Map(stored.map((event) => [event.revision, event.position]));
    return events.map((_, index) => byRevision.get(revision - events.length + 1 + index) ?? position);
  }

  /** Of the very last event, whosever it is: positions that were handed out once are never after it, even when the events there were deleted. */
  async #end(): Promise<Position | null> {
    const [last] = await read(this.#reads, { from: { all: null }, direction: 'backward', count: 1 }, this.#limits.readTimeoutMs);
    return last?.position ?? null;
  }

  async #refusePastHead(after: Position | null): Promise<void> {
    if (after === null || (this.#highest !== null && after <= this.#highest)) return;
    const end = await this.#end();
    if (end === null || after > end) throw new OperatingError('positionPastHead', 'the position lies past the end of the event store');
  }
}

/** Opens the store and, on its first start, gives it its id. Throws OperatingError: storeUnavailable, storeUnfit (the account may not read or write), badConfiguration. */
export async function openEventStoreDb(place: EventStoreDbPlace, options: EventStoreDbOptions): Promise<EventStore> {
  const limits = { ...EVENTSTOREDB_LIMITS, ...options.limits };
  const reads = new Connection(place, limits.readTimeoutMs);
  try {
    const storeId = (await readStoreId(reads, limits.readTimeoutMs)) ?? (await makeStoreId(place, reads, limits, options.random));
    const highest = await lastPosition(reads, limits.readTimeoutMs);
    return new EventStoreDb(place, options, { storeId, reads, highest });
  } catch (fault) {
    reads.close();
    throw fault;
  }
}

async function readStoreId(connection: Connection, timeoutMs: number): Promise<string | null> {
  const [made] = await read(connection, { from: { stream: STORE_STREAM, revision: null }, direction: 'forward', count: 1 }, timeoutMs);
  if (made === undefined) return null;
  const { storeId } = JSON.parse(Buffer.from(made.data).toString('utf8')) as { storeId?: unknown };
  if (typeof storeId !== 'string' || !/^[0-9a-f-]{36}$/.test(storeId)) throw new OperatingError('storeUnfit', `the stream ${STORE_STREAM} holds no id of a store`);
  return storeId;
}

/** Of two first starts at once, one appends and the other is refused and reads what the one wrote. The same goes for an append that was never answered. */
async function makeStoreId(place: EventStoreDbPlace, reads: Connection, limits: EventStoreDbLimits, random: RandomBytes): Promise<string> {
  const appender = new Appender(new Connection(place, limits.readTimeoutMs), limits, () => null, () => undefined);
  const data = Buffer.from(JSON.stringify({ storeId: uuidOf(random(16)) }));
  try {
    await appender.append(STORE_STREAM, 'no_stream', [{ id: uuidOf(random(16)), type: STORE_TYPE, data, metadata: Buffer.from('{}') }]);
  } finally {
    await appender.close();
  }
  const storeId = await readStoreId(reads, limits.readTimeoutMs);
  if (storeId === null) throw new OperatingError('storeUnavailable', 'the id of the store was written and is not there yet');
  return storeId;
}

// ---- examining -------------------------------------------------------------------------------------------------------

/** Doctor waits no longer for one question. */
const EXAMINE_TIMEOUT_MS = 5_000;
/** The most that the door puts into one append (DOOR_LIMITS), which every line of the server takes by default. */
const APPEND_BYTES = 512 * 1024;
/** No stream ever gets there, so an append that expects it is refused and writes nothing. */
const NEVER_REVISION = 2 ** 40;
/** The server's Date has whole seconds; beyond this somebody's clock is wrong. */
const CLOCK_MS_MAX = 5_000;
const DISK_BYTES_MIN = 1024 ** 3;

/** What an operator should know of the server. Writes nothing; never throws for what it finds. */
export async function examineEventStoreDb(place: EventStoreDbPlace): Promise<readonly Finding[]> {
  const connection = new Connection(place, EXAMINE_TIMEOUT_MS);
  try {
    const features = await attempt(() => askFeatures(connection));
    if (features.kind === 'fault') return [{ level: 'bad', what: 'reachable', found: features.message, advice: 'start the server, or correct host, port and TLS in the address' }, ...credentialsFinding(place)];
    const { answer, clockMs } = features.value;
    return [
      { level: 'ok', what: 'reachable', found: 'answers', advice: null },
      ...versionFindings(answer), ...credentialsFinding(place),
      await leaderFinding(connection), await storeFinding(connection), await appendFinding(place), await diskFinding(connection), clockFinding(clockMs),
    ];
  } finally {
    connection.close();
  }
}

async function attempt<T>(ask: () => Promise<T>): Promise<{ readonly kind: 'value'; readonly value: T } | { readonly kind: 'fault'; readonly message: string; readonly code: OperatingError['code'] }> {
  try {
    return { kind: 'value', value: await ask() };
  } catch (fault) {
    const error = operatingError(fault, 'asking the event store');
    const { cause } = error;
    return { kind: 'fault', code: error.code, message: cause instanceof Error && cause.message !== '' ? `${error.message} (${cause.message})` : error.message };
  }
}

async function askFeatures(connection: Connection): Promise<{ readonly answer: FeaturesWire.SupportedMethods; readonly clockMs: number | null }> {
  const line = await connection.line();
  const client = await line.client['execute'](featuresStubs.ServerFeaturesClient, 'features', (stub) => Promise.resolve(stub));
  return new Promise((resolve, reject) => {
    let clockMs: number | null = null;
    const call = client.getSupportedMethods(new shared.Empty(), ...line.args(EXAMINE_TIMEOUT_MS), (error, answer) => {
      if (error === null) resolve({ answer, clockMs });
      else reject(error);
    });
    call.on('metadata', (headers: Metadata) => {
      const [date] = headers.get('date');
      const serverMs = Date.parse(String(date));
      // Half a second on: the header is cut to the second.
      if (!Number.isNaN(serverMs)) clockMs = serverMs + 500 - Date.now();
    });
  });
}

function versionFindings(answer: FeaturesWire.SupportedMethods): Finding[] {
  const version = answer.getEventStoreServerVersion();
  const tested = version.startsWith(TESTED_LINE);
  const batch = answer.getMethodsList().some((method) => method.getServiceName() === 'event_store.client.streams.Streams' && method.getMethodName().toLowerCase() === 'batchappend');
  const findings: Finding[] = [{
    level: tested ? 'ok' : 'warn', what: 'version', found: version === '' ? 'not told' : version,
    advice: tested ? null : 'Throughline was tested on the 22.10 line alone: run its contract suite against this server (THROUGHLINE_TEST_ESDB)',
  }];
  if (!batch) findings.push({ level: 'bad', what: 'appends', found: 'the server has no BatchAppend', advice: 'use a server of the 21.10 line or newer' });
  return findings;
}

function credentialsFinding({ url }: EventStoreDbPlace): Finding[] {
  if (!/^[^:]+:\/\/[^/@]+@/.test(url) || !/[?&]tls=false/i.test(url)) return [];
  return [{ level: 'warn', what: 'credentials', found: 'the address has credentials and tls=false', advice: 'without TLS they are never sent: turn TLS on, or take them out' }];
}

async function leaderFinding(connection: Connection): Promise<Finding> {
  const asked = await attempt(async () => {
    const line = await connection.line();
    const client = await line.client['execute'](gossipStubs.GossipClient, 'gossip', (stub) => Promise.resolve(stub));
    return new Promise<GossipWire.ClusterInfo>((resolve, reject) => {
      client.read(new shared.Empty(), ...line.args(EXAMINE_TIMEOUT_MS), (error, answer) => (error === null ? resolve(answer) : reject(error)));
    });
  });
  if (asked.kind === 'fault') return { level: 'warn', what: 'leader', found: `not told: ${asked.message}`, advice: 'let the account read gossip, to see the cluster from here' };
  const alive = asked.value.getMembersList().filter((member) => member.getIsAlive());
  const leader = alive.find((member) => member.getState() === gossip.MemberInfo.VNodeState.LEADER)?.getHttpEndPoint();
  if (leader === undefined) return { level: 'bad', what: 'leader', found: `none among ${String(alive.length)} nodes`, advice: 'appends wait for a leader: see why the cluster has no majority' };
  return { level: 'ok', what: 'leader', found: `${leader.getAddress()}:${String(leader.getPort())}, of ${String(alive.length)} alive`, advice: null };
}

async function storeFinding(connection: Connection): Promise<Finding> {
  const asked = await attempt(() => readStoreId(connection, EXAMINE_TIMEOUT_MS));
  if (asked.kind === 'fault') return { level: 'bad', what: 'store', found: asked.message, advice: `let the account read ${STORE_STREAM}` };
  if (asked.value === null) return { level: 'ok', what: 'store', found: 'not yet: the first start makes it', advice: null };
  return { level: 'ok', what: 'store', found: asked.value, advice: null };
}

/** Sends what no revision can take: the server looks at rights and size first, and then refuses it. */
async function appendFinding(place: EventStoreDbPlace): Promise<Finding> {
  const limits = { ...EVENTSTOREDB_LIMITS, appendTimeoutMs: EXAMINE_TIMEOUT_MS };
  const appender = new Appender(new Connection(place, EXAMINE_TIMEOUT_MS), limits, () => null, () => undefined);
  const probe: NewEvent = { id: uuidOf(new Uint8Array(16)), type: STORE_TYPE, data: new Uint8Array(APPEND_BYTES), metadata: new Uint8Array() };
  const asked = await attempt(() => appender.append(STORE_STREAM, NEVER_REVISION, [probe]));
  await appender.close();
  if (asked.kind === 'value') return { level: 'ok', what: 'appends', found: `up to ${String(APPEND_BYTES / 1024)} KiB are taken`, advice: null };
  const advice = asked.code === 'eventTooLarge' ? `set MaxAppendSize to ${String(APPEND_BYTES * 2)} or more` : 'let the account write, and see that a leader is there';
  return { level: 'bad', what: 'appends', found: asked.message, advice };
}

async function diskFinding(connection: Connection): Promise<Finding> {
  const asked = await attempt(async () => {
    const line = await connection.line();
    const client = await line.client['execute'](monitoringStubs.MonitoringClient, 'stats', (stub) => Promise.resolve(stub));
    const call = client.stats(new monitoring.StatsReq().setRefreshTimePeriodInMs(String(EXAMINE_TIMEOUT_MS)), ...line.args(EXAMINE_TIMEOUT_MS));
    return new Promise<ReadonlyMap<string, string>>((resolve, reject) => {
      // It sends for as long as it is listened to; the first message will do.
      call.on('data', (answer: MonitoringWire.StatsResp) => {
        resolve(new Map(answer.getStatsMap().getEntryList()));
        call.cancel();
      });
      call.on('error', reject);
      call.on('end', () => reject(new OperatingError('storeUnavailable', 'no statistics were sent')));
    });
  });
  const free = asked.kind === 'value' ? [...asked.value].filter(([name]) => /^sys-drive-.*-availableBytes$/.test(name)).map(([, value]) => Number(value)) : [];
  if (free.length === 0) return { level: 'warn', what: 'disk', found: 'not told', advice: 'let the account read statistics, or watch the disk of the server yourself' };
  const least = Math.min(...free);
  const enough = least >= DISK_BYTES_MIN;
  return { level: enough ? 'ok' : 'bad', what: 'disk', found: `${(least / 1024 ** 3).toFixed(1)} GiB free`, advice: enough ? null : 'make room: a server without room stops writing' };
}

function clockFinding(differenceMs: number | null): Finding {
  if (differenceMs === null) return { level: 'warn', what: 'clock', found: 'not told', advice: 'see that server and this machine take their time from the same place' };
  const near = Math.abs(differenceMs) <= CLOCK_MS_MAX;
  return { level: near ? 'ok' : 'warn', what: 'clock', found: near ? 'agrees with ours' : `${(differenceMs / 1000).toFixed(0)} s from ours`, advice: near ? null : 'set both clocks by NTP' };
}
