// A double of an EventStoreDB 22.10 as a process of its own: its gRPC services as far as Throughline and the driver use them.
// Started by double.ts, which also says over the process's channel how slow it is to be; it ends with whoever started it.
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import grpc from '@grpc/grpc-js';
import gossipStubs from '@eventstore/db-client/generated/gossip_grpc_pb.js';
import gossip from '@eventstore/db-client/generated/gossip_pb.js';
import monitoringStubs from '@eventstore/db-client/generated/monitoring_grpc_pb.js';
import monitoring from '@eventstore/db-client/generated/monitoring_pb.js';
import type * as MonitoringWire from '@eventstore/db-client/generated/monitoring_pb.js';
import featuresStubs from '@eventstore/db-client/generated/serverfeatures_grpc_pb.js';
import features from '@eventstore/db-client/generated/serverfeatures_pb.js';
import type * as SharedWire from '@eventstore/db-client/generated/shared_pb.js';
import shared from '@eventstore/db-client/generated/shared_pb.js';
import type * as StatusWire from '@eventstore/db-client/generated/status_pb.js';
import status from '@eventstore/db-client/generated/status_pb.js';
import streamsStubs from '@eventstore/db-client/generated/streams_grpc_pb.js';
import type * as Wire from '@eventstore/db-client/generated/streams_pb.js';
import wire from '@eventstore/db-client/generated/streams_pb.js';
import { type Appended, type Expected, Log, type Proposed, type Stored } from './log.ts';

const VERSION = '22.10.5';
const APPEND_BYTES_MAX = 1024 * 1024;
/** A live subscriber that has been this far behind for so long is dropped: the real one was seen to do it within one to two seconds. */
const LIVE_EVENTS_MAX = 256;
const LIVE_MS_MAX = 1_000;
const WINDOW_EVENTS = 32;
const STATS_MS = 1_000;

const { values } = parseArgs({ options: { file: { type: 'string' }, port: { type: 'string', default: '0' }, fsync: { type: 'boolean', default: false }, ids: { type: 'string', default: '100000' }, hasty: { type: 'boolean', default: false }, tls: { type: 'string' }, account: { type: 'string' } } });
if (values.file === undefined) throw new Error('--file: where the log is kept');
const log = new Log(values.file, { fsync: values.fsync, idsMax: Number(values.ids) });
let slowMs = 0;
let isMute = false;
let delayed = 0;
let droppedCount = 0;
let port = 0;

/** What the parent may say. Each is answered by its number. */
export type Order = { readonly number: number } & ({ readonly kind: 'slow'; readonly ms: number } | { readonly kind: 'mute'; readonly on: boolean } | { readonly kind: 'wipe' } | { readonly kind: 'tell' });
/** Answers to appends that are put off right now, and subscribers dropped since the start. */
export interface State { readonly delayed: number; readonly dropped: number }

// ---- what goes over the wire -----------------------------------------------------------------------------------------

function nameOf(identifier: SharedWire.StreamIdentifier | undefined): string {
  return Buffer.from(identifier?.getStreamName_asU8() ?? []).toString('utf8');
}
function idOf(id: SharedWire.UUID | undefined): string {
  const structured = id?.getStructured();
  if (structured === undefined) return id?.getString() ?? '';
  const bytes = Buffer.alloc(16);
  bytes.writeBigInt64BE(BigInt(structured.getMostSignificantBits()), 0);
  bytes.writeBigInt64BE(BigInt(structured.getLeastSignificantBits()), 8);
  const hex = bytes.toString('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}
function proposedOf(message: Wire.BatchAppendReq.ProposedMessage | Wire.AppendReq.ProposedMessage): Proposed {
  const about = message.getMetadataMap();
  return {
    id: idOf(message.getId()), type: about.get('type') ?? '', contentType: about.get('content-type') ?? 'application/octet-stream',
    data: message.getData_asU8(), metadata: message.getCustomMetadata_asU8(),
  };
}
const bytesOf = (events: readonly Proposed[]): number => events.reduce((sum, { data, metadata, type }) => sum + data.length + metadata.length + 2 * type.length, 0);

/** With an account set, nobody else reads or appends. */
function refuseStrangers({ metadata }: { readonly metadata: grpc.Metadata }): Refusal | null {
  if (values.account === undefined || metadata.get('authorization')[0] === `Basic ${Buffer.from(values.account).toString('base64')}`) return null;
  return new Refusal(grpc.status.PERMISSION_DENIED, 'Access Denied', { exception: 'access-denied' });
}

/** An error as the real one throws it: the driver knows it by the trailers. */
class Refusal extends Error {
  readonly code: grpc.status;
  readonly details: string;
  readonly metadata = new grpc.Metadata();
  constructor(code: grpc.status, details: string, trailers: Readonly<Record<string, string>> = {}) {
    super(details);
    this.code = code;
    this.details = details;
    for (const [name, value] of Object.entries(trailers)) this.metadata.set(name, value);
  }
}
function deletedRefusal(stream: string): Refusal {
  return new Refusal(grpc.status.FAILED_PRECONDITION, `Event stream '${stream}' is deleted.`, { exception: 'stream-deleted', 'stream-name': stream });
}
function sizeRefusal(): Refusal {
  return new Refusal(grpc.status.INVALID_ARGUMENT, `Maximum Append Size of ${String(APPEND_BYTES_MAX)} Exceeded.`, { exception: 'maximum-append-size-exceeded', 'maximum-append-size': String(APPEND_BYTES_MAX) });
}

// ---- appending -------------------------------------------------------------------------------------------------------

/** A status whose details are a message of that name. */
function failure(message: string, name: string, body: Uint8Array): StatusWire.Status {
  // Field 3, empty: the protocol's own `Any`, whose package is not ours to import.
  const failed = status.Status.deserializeBinary(Uint8Array.of(0x1a, 0)).setMessage(message);
  failed.getDetails()?.pack(body, name);
  return failed;
}

function batchAnswer(correlation: SharedWire.UUID | undefined, stream: string, expected: Expected, result: Appended | 'tooLarge'): Wire.BatchAppendResp {
  const answer = new wire.BatchAppendResp().setStreamIdentifier(new shared.StreamIdentifier().setStreamName(new Uint8Array(Buffer.from(stream)))).setCorrelationId(correlation);
  if (result === 'tooLarge') {
    const body = new shared.MaximumAppendSizeExceeded().setMaxappendsize(APPEND_BYTES_MAX);
    return answer.setError(failure('Maximum Append Size Exceeded.', 'event_store.client.MaximumAppendSizeExceeded', body.serializeBinary()));
  }
  switch (result.kind) {
    case 'stored': {
      const position = new shared.AllStreamPosition().setCommitPosition(String(result.position)).setPreparePosition(String(result.position));
      return answer.setSuccess(new wire.BatchAppendResp.Success().setCurrentRevision(String(result.revision)).setPosition(position));
    }
    case 'wrong': {
      const body = new shared.WrongExpectedVersion();
      if (result.revision >= 0) body.setCurrentStreamRevision(String(result.revision));
      if (typeof expected === 'number') body.setExpectedStreamPosition(String(expected));
      return answer.setError(failure('Wrong expected version.', 'event_store.client.WrongExpectedVersion', body.serializeBinary()));
    }
    case 'deleted': {
      const body = new shared.StreamDeleted().setStreamIdentifier(answer.getStreamIdentifier());
      return answer.setError(failure('Stream deleted.', 'event_store.client.StreamDeleted', body.serializeBinary()));
    }
  }
}

interface Batch { readonly stream: string; readonly expected: Expected; readonly events: Proposed[] }

/** Answers in the order of the file, which is that of the requests; `slow` puts each off. An append stands whether or not its answer still finds anybody. */
function batchAppend(call: grpc.ServerDuplexStream<Wire.BatchAppendReq, Wire.BatchAppendResp>): void {
  const stranger = refuseStrangers(call);
  if (stranger !== null) {
    call.emit('error', stranger);
    return;
  }
  const open = new Map<string, Batch>();
  let pending = 0;
  let ended = false;
  const answer = (message: Wire.BatchAppendResp): void => {
    const send = (): void => {
      if (!call.cancelled && !call.destroyed) call.write(message);
      pending -= 1;
      if (ended && pending === 0) call.end();
    };
    if (slowMs === 0) {
      send();
      return;
    }
    delayed += 1;
    setTimeout(() => {
      delayed -= 1;
      send();
    }, slowMs);
  };
  call.on('data', (request: Wire.BatchAppendReq) => {
    const correlation = request.getCorrelationId();
    const key = idOf(correlation);
    const options = request.getOptions();
    if (options !== undefined) open.set(key, { stream: nameOf(options.getStreamIdentifier()), expected: batchExpected(options), events: [] });
    const batch = open.get(key);
    if (batch === undefined) return;
    batch.events.push(...request.getProposedMessagesList().map(proposedOf));
    const tooLarge = bytesOf(batch.events) > APPEND_BYTES_MAX;
    if (!tooLarge && !request.getIsFinal()) return;
    open.delete(key);
    pending += 1;
    if (tooLarge) answer(batchAnswer(correlation, batch.stream, batch.expected, 'tooLarge'));
    else log.append(batch.stream, batch.expected, batch.events, (result) => answer(batchAnswer(correlation, batch.stream, batch.expected, result)));
  });
  call.on('end', () => {
    ended = true;
    if (pending === 0) call.end();
  });
  call.on('error', () => undefined);
}

function batchExpected(options: Wire.BatchAppendReq.Options): Expected {
  if (options.hasStreamPosition()) return Number(options.getStreamPosition());
  return options.hasNoStream() ? 'no_stream' : options.hasStreamExists() ? 'stream_exists' : 'any';
}

interface RevisionOptions { hasRevision(): boolean; getRevision(): string; hasNoStream(): boolean; hasStreamExists(): boolean }
function expectedOf(options: RevisionOptions): Expected {
  if (options.hasRevision()) return Number(options.getRevision());
  return options.hasNoStream() ? 'no_stream' : options.hasStreamExists() ? 'stream_exists' : 'any';
}

function append(call: grpc.ServerReadableStream<Wire.AppendReq, Wire.AppendResp>, reply: grpc.sendUnaryData<Wire.AppendResp>): void {
  let options: Wire.AppendReq.Options | undefined;
  const events: Proposed[] = [];
  call.on('data', (request: Wire.AppendReq) => {
    options ??= request.getOptions();
    const message = request.getProposedMessage();
    if (message !== undefined) events.push(proposedOf(message));
  });
  call.on('error', () => undefined);
  call.on('end', () => {
    if (options === undefined) { reply(new Refusal(grpc.status.INVALID_ARGUMENT, 'no options')); return; }
    if (bytesOf(events) > APPEND_BYTES_MAX) { reply(sizeRefusal()); return; }
    const stream = nameOf(options.getStreamIdentifier());
    const expected = expectedOf(options);
    log.append(stream, expected, events, (result) => {
      const answer = new wire.AppendResp();
      switch (result.kind) {
        case 'deleted': reply(deletedRefusal(stream)); return;
        case 'wrong': {
          const wrong = new wire.AppendResp.WrongExpectedVersion();
          if (result.revision >= 0) wrong.setCurrentRevision(String(result.revision));
          if (typeof expected === 'number') wrong.setExpectedRevision(String(expected));
          reply(null, answer.setWrongExpectedVersion(wrong));
          return;
        }
        case 'stored': {
          const position = new wire.AppendResp.Position().setCommitPosition(String(result.position)).setPreparePosition(String(result.position));
          reply(null, answer.setSuccess(new wire.AppendResp.Success().setCurrentRevision(String(result.revision)).setPosition(position)));
        }
      }
    });
  });
}

function remove(call: grpc.ServerUnaryCall<Wire.DeleteReq, Wire.DeleteResp>, reply: grpc.sendUnaryData<Wire.DeleteResp>): void {
  const options = call.request.getOptions();
  const stream = nameOf(options?.getStreamIdentifier());
  log.cut(stream, options === undefined ? 'any' : expectedOf(options), (result) => {
    if (result.kind === 'stored') reply(null, new wire.DeleteResp().setPosition(new wire.DeleteResp.Position().setCommitPosition(String(result.position)).setPreparePosition(String(result.position))));
    else reply(deleteRefusal(stream, result));
  });
}

function tombstone(call: grpc.ServerUnaryCall<Wire.TombstoneReq, Wire.TombstoneResp>, reply: grpc.sendUnaryData<Wire.TombstoneResp>): void {
  const options = call.request.getOptions();
  const stream = nameOf(options?.getStreamIdentifier());
  log.tombstone(stream, options === undefined ? 'any' : expectedOf(options), (result) => {
    if (result.kind === 'stored') reply(null, new wire.TombstoneResp().setPosition(new wire.TombstoneResp.Position().setCommitPosition(String(result.position)).setPreparePosition(String(result.position))));
    else reply(deleteRefusal(stream, result));
  });
}

function deleteRefusal(stream: string, result: Exclude<Appended, { kind: 'stored' }>): Refusal {
  if (result.kind === 'deleted') return deletedRefusal(stream);
  return new Refusal(grpc.status.FAILED_PRECONDITION, 'Wrong expected version.', { exception: 'wrong-expected-version', 'stream-name': stream, 'expected-version': '-2', 'actual-version': String(result.revision) });
}

// ---- reading ---------------------------------------------------------------------------------------------------------

type ReadCall = grpc.ServerWritableStream<Wire.ReadReq, Buffer>;
const messageOf = (message: Wire.ReadResp): Buffer => Buffer.from(message.serializeBinary());

async function readAnything(call: ReadCall): Promise<void> {
  const stranger = refuseStrangers(call);
  if (stranger !== null) throw stranger;
  const options = call.request.getOptions();
  if (options === undefined) throw new Refusal(grpc.status.INVALID_ARGUMENT, 'no options');
  if (options.hasSubscription()) { await subscription(call, options); return; }
  if (slowMs > 0) await pause(slowMs);
  const backwards = options.getReadDirection() === wire.ReadReq.Options.ReadDirection.BACKWARDS;
  const count = Number(options.getCount());
  const found = options.hasStream() ? ofStream(options.getStream(), backwards) : ofAll(options, backwards);
  if (found === null) {
    await send(call, messageOf(new wire.ReadResp().setStreamNotFound(new wire.ReadResp.StreamNotFound().setStreamIdentifier(options.getStream()?.getStreamIdentifier()))));
  } else {
    let sent = 0;
    for (const event of found) {
      if (sent === count) break;
      await send(call, event.message);
      sent += 1;
    }
  }
  call.end();
}

/** Null: there is no such stream. */
function ofStream(options: Wire.ReadReq.Options.StreamOptions | undefined, backwards: boolean): Iterable<Stored> | null {
  const name = nameOf(options?.getStreamIdentifier());
  const stream = log.stream(name);
  if (stream?.hasTombstone === true) throw deletedRefusal(name);
  if (stream === undefined || stream.isSoftDeleted || stream.events.length === 0) return null;
  const last = stream.events.length - 1;
  const from = options?.hasRevision() === true ? Number(options.getRevision()) : backwards ? last : 0;
  return walk(stream.events, backwards ? Math.min(from, last) : Math.max(from, stream.cutBefore), backwards, stream.cutBefore, stream.events.length);
}

/** Forward a position is included, backward it is not: it stands for the edge before its event. */
function ofAll(options: Wire.ReadReq.Options, backwards: boolean): Iterable<Stored> {
  const all = options.getAll();
  const position = all?.getPosition();
  const at = position === undefined ? (all?.hasEnd() === true ? log.durable : 0) : indexAt(Number(position.getCommitPosition()));
  const passes = filterOf(options.getFilter());
  const events = walk(log.all, backwards ? at - 1 : at, backwards, 0, log.durable);
  return passes === null ? events : passing(events, passes);
}

function* walk(events: readonly Stored[], from: number, backwards: boolean, low: number, high: number): Generator<Stored, undefined, undefined> {
  for (let index = from; index >= low && index < high; index += backwards ? -1 : 1) {
    const event = events[index];
    if (event === undefined) return;
    yield event;
  }
}

function* passing(events: Iterable<Stored>, passes: (stream: string) => boolean): Generator<Stored, undefined, undefined> {
  for (const event of events) if (passes(event.stream.name)) yield event;
}

/** Index of the first event at or after a position. */
function indexAt(position: number): number {
  let low = 0;
  let high = log.all.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((log.all[middle]?.position ?? Infinity) < position) low = middle + 1;
    else high = middle;
  }
  return low;
}

function filterOf(filter: Wire.ReadReq.Options.FilterOptions | undefined): ((stream: string) => boolean) | null {
  const names = filter?.getStreamIdentifier();
  if (names === undefined) return null;
  if (names.getRegex() !== '') {
    const pattern = new RegExp(names.getRegex());
    return (stream) => pattern.test(stream);
  }
  const prefixes = names.getPrefixList();
  return (stream) => prefixes.some((prefix) => stream.startsWith(prefix));
}

async function send(call: ReadCall, message: Buffer): Promise<void> {
  if (isGone(call)) throw new Gone();
  if (call.write(message)) return;
  const over = new AbortController();
  const gone = (): void => over.abort();
  call.once('cancelled', gone);
  call.once('close', gone);
  await once(call, 'drain', { signal: over.signal }).catch(() => undefined);
  call.off('cancelled', gone);
  call.off('close', gone);
  if (isGone(call)) throw new Gone();
}
/** The reader went away, or was sent away. */
class Gone extends Error {}
const dropped = new WeakSet<ReadCall>();
function isGone(call: ReadCall): boolean { return call.cancelled || call.destroyed || dropped.has(call); }

// ---- subscriptions ---------------------------------------------------------------------------------------------------

/** Subscriptions that have reached the end once: told of every flush. */
const live = new Set<Subscriber>();
log.onFlush = () => {
  for (const subscriber of live) subscriber.onNews();
};

class Subscriber {
  readonly call: ReadCall;
  next: number;
  #behindSinceMs: number | null = null;
  #wake: (() => void) | null = null;

  constructor(call: ReadCall, next: number) {
    this.call = call;
    this.next = next;
  }

  onNews(): void {
    this.#wake?.();
    this.#behindSinceMs = log.durable - this.next <= LIVE_EVENTS_MAX ? null : this.#behindSinceMs ?? Date.now();
    if (this.#behindSinceMs === null || Date.now() - this.#behindSinceMs < LIVE_MS_MAX) return;
    live.delete(this);
    dropped.add(this.call);
    droppedCount += 1;
    this.call.emit('error', new Refusal(grpc.status.ABORTED, 'Operation timed out: Consumer too slow to handle event while live. Client resubscription required.'));
  }

  wait(): Promise<void> {
    return new Promise((resolve) => {
      const wake = (): void => {
        this.#wake = null;
        this.call.off('cancelled', wake);
        this.call.off('close', wake);
        resolve();
      };
      this.#wake = wake;
      this.call.once('cancelled', wake);
      this.call.once('close', wake);
    });
  }
}

/** Catches up, then goes live; says neither `caughtUp` nor `fellBehind`, as this line does not. A checkpoint comes after so many events looked at. */
async function subscription(call: ReadCall, options: Wire.ReadReq.Options): Promise<void> {
  const all = options.getAll();
  if (all === undefined) throw new Refusal(grpc.status.UNIMPLEMENTED, 'only $all is followed');
  const filter = options.getFilter();
  const passes = filterOf(filter) ?? (() => true);
  const every = (filter?.hasMax() === true ? filter.getMax() : WINDOW_EVENTS) * Math.max(1, filter?.getCheckpointintervalmultiplier() ?? 1);
  const position = all.getPosition();
  const start = position === undefined ? (all.hasEnd() ? log.durable : 0) : indexAt(Number(position.getCommitPosition()) + 1);
  const subscriber = new Subscriber(call, start);
  let looked = 0;
  await send(call, messageOf(new wire.ReadResp().setConfirmation(new wire.ReadResp.SubscriptionConfirmation().setSubscriptionId('00000000-0000-4000-8000-000000000001'))));
  try {
    for (;;) {
      while (subscriber.next < log.durable && !isMute) {
        const event = log.all[subscriber.next];
        if (event === undefined) break;
        subscriber.next += 1;
        looked += 1;
        if (slowMs > 0) await pause(slowMs);
        // Some of the line were seen to tell of a checkpoint that lies ahead of an event still to come.
        if (values.hasty) await send(call, checkpointMessage(event.position));
        if (passes(event.stream.name)) await send(call, event.message);
        if (filter !== undefined && looked % every === 0) await send(call, checkpointMessage(event.position));
      }
      live.add(subscriber);
      await subscriber.wait();
      if (isGone(call)) throw new Gone();
    }
  } finally {
    live.delete(subscriber);
  }
}

function checkpointMessage(position: number): Buffer {
  return messageOf(new wire.ReadResp().setCheckpoint(new wire.ReadResp.Checkpoint().setCommitPosition(String(position)).setPreparePosition(String(position))));
}

// ---- the rest, and the process ---------------------------------------------------------------------------------------

function supportedMethods(_call: unknown, reply: grpc.sendUnaryData<InstanceType<typeof features.SupportedMethods>>): void {
  const answer = new features.SupportedMethods().setEventStoreServerVersion(VERSION);
  for (const name of ['read', 'append', 'delete', 'tombstone', 'batchappend']) answer.addMethods(new features.SupportedMethod().setServiceName('event_store.client.streams.Streams').setMethodName(name));
  reply(null, answer);
}

function members(_call: unknown, reply: grpc.sendUnaryData<InstanceType<typeof gossip.ClusterInfo>>): void {
  const here = new gossip.EndPoint().setAddress('127.0.0.1').setPort(port);
  const id = new shared.UUID().setString('00000000-0000-4000-8000-000000000002');
  const state = gossip.MemberInfo.VNodeState.LEADER;
  reply(null, new gossip.ClusterInfo().setMembersList([new gossip.MemberInfo().setInstanceId(id).setState(state).setIsAlive(true).setHttpEndPoint(here).setTimeStamp(String(BigInt(Date.now()) * 10_000n))]));
}

async function statistics(call: grpc.ServerWritableStream<MonitoringWire.StatsReq, MonitoringWire.StatsResp>): Promise<void> {
  while (!call.cancelled && !call.destroyed) {
    const answer = new monitoring.StatsResp();
    answer.getStatsMap().set('sys-drive-/-availableBytes', String(100 * 1024 ** 3)).set('es-checksum', String(log.all.at(-1)?.position ?? 0));
    call.write(answer);
    await pause(STATS_MS);
  }
}

/** A call's work, whatever it throws told to its reader. */
function answering<C extends { emit(event: 'error', fault: unknown): boolean }>(work: (call: C) => Promise<void>): (call: C) => void {
  return (call) => {
    work(call).catch((fault: unknown) => {
      if (!(fault instanceof Gone)) call.emit('error', fault);
    });
  };
}

const { read } = streamsStubs.StreamsService;
const server = new grpc.Server({ 'grpc.max_receive_message_length': 64 * 1024 * 1024 });
server.addService({ ...streamsStubs.StreamsService, read: { ...read, responseSerialize: (message: Buffer) => message } }, { read: answering(readAnything), batchAppend, append, delete: remove, tombstone });
server.addService(featuresStubs.ServerFeaturesService, { getSupportedMethods: supportedMethods });
server.addService(gossipStubs.GossipService, { read: members });
server.addService(monitoringStubs.MonitoringService, { stats: answering(statistics) });
const credentials = values.tls === undefined ? grpc.ServerCredentials.createInsecure()
  : grpc.ServerCredentials.createSsl(null, [{ private_key: readFileSync(path.join(values.tls, 'key.pem')), cert_chain: readFileSync(path.join(values.tls, 'cert.pem')) }]);
server.bindAsync(`127.0.0.1:${values.port}`, credentials, (fault, bound) => {
  if (fault !== null) throw fault;
  port = bound;
  process.send?.({ port });
});

process.on('message', (order: Order) => {
  switch (order.kind) {
    case 'slow': slowMs = order.ms; break;
    case 'mute':
      isMute = order.on;
      log.onFlush();
      break;
    case 'wipe': log.wipe(); break;
    case 'tell': break;
  }
  const state: State = { delayed, dropped: droppedCount };
  process.send?.({ done: order.number, state });
});
process.on('disconnect', () => process.exit(0));
