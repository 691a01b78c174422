// What the double of an EventStoreDB keeps: one log in one file, and of what 22.10 was seen to make of an append
// (environment.md) every rule that a client can tell. A position is the place of a record in the file, as in the real one.
import { closeSync, existsSync, fsyncSync, ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs';
import shared from '@eventstore/db-client/generated/shared_pb.js';
import wire from '@eventstore/db-client/generated/streams_pb.js';

/** A revision that the writer believes in, or what stands for it. */
export type Expected = number | 'no_stream' | 'any' | 'stream_exists';
export interface Proposed { readonly id: string; readonly type: string; readonly contentType: string; readonly data: Uint8Array; readonly metadata: Uint8Array }

export interface Stored {
  readonly position: number;
  readonly stream: Stream;
  readonly revision: number;
  readonly id: string;
  /** The message that a reader gets, as it goes over the wire. */
  readonly message: Buffer;
}
export interface Stream {
  readonly name: string;
  readonly events: Stored[];
  /** Revisions before this one were deleted. */
  cutBefore: number;
  isSoftDeleted: boolean;
  hasTombstone: boolean;
}
export type Appended =
  | { readonly kind: 'stored'; readonly revision: number; readonly position: number }
  | { readonly kind: 'wrong'; readonly revision: number }
  | { readonly kind: 'deleted' };

const HEADER = Buffer.from('throughline-log\n');
const KINDS = { event: 1, cut: 2, tombstone: 3 } as const;

export class Log {
  readonly all: Stored[] = [];
  readonly #file: string;
  readonly #fsync: boolean;
  readonly #idsMax: number;
  readonly #streams = new Map<string, Stream>();
  /** Ids written since the start, with stream and revision: all that an append at `any` is compared with. */
  #ids = new Map<string, Stored>();
  #handle: number;
  #end: number;
  #unwritten: Buffer[] = [];
  #afterwards: (() => void)[] = [];
  #flushing = false;
  /** Events that stand in the file: what readers see. */
  durable = 0;
  onFlush: () => void = () => undefined;

  constructor(file: string, options: { readonly fsync: boolean; readonly idsMax: number }) {
    this.#file = file;
    this.#fsync = options.fsync;
    this.#idsMax = options.idsMax;
    const bytes = existsSync(file) ? readFileSync(file) : Buffer.alloc(0);
    this.#end = bytes.length === 0 ? 0 : this.#load(bytes);
    this.#handle = openSync(file, bytes.length === 0 ? 'w' : 'r+');
    if (bytes.length === 0) this.#begin();
    // What a crash cut off in the middle was never acknowledged.
    ftruncateSync(this.#handle, this.#end);
  }

  stream(name: string): Stream | undefined { return this.#streams.get(name); }

  /** Everything gone, as a server that was just installed. */
  wipe(): void {
    closeSync(this.#handle);
    this.all.length = 0;
    this.#streams.clear();
    this.#ids = new Map();
    this.#unwritten = [];
    this.#afterwards = [];
    this.durable = 0;
    this.#handle = openSync(this.#file, 'w');
    this.#begin();
  }

  /**
   * Decides at once, in the order of the calls; `told` once it is in the file, where kill -9 cannot reach it.
   *
   * Ids are compared at the revisions where the append would have gone, and, at `any`, with those written since the start.
   */
  append(name: string, expected: Expected, events: readonly Proposed[], told: (result: Appended) => void): void {
    const stream = this.#streams.get(name) ?? { name, events: [], cutBefore: 0, isSoftDeleted: false, hasTombstone: false };
    const verdict = this.#verdict(stream, expected, events);
    if (verdict.kind === 'go') {
      this.#streams.set(name, stream);
      stream.isSoftDeleted = false;
      const stored = events.map((event) => this.#write(stream, event)).at(-1);
      this.#soon(() => told(stored === undefined ? { kind: 'stored', revision: stream.events.length - 1, position: 0 } : { kind: 'stored', revision: stored.revision, position: stored.position }));
      return;
    }
    this.#soon(() => told(verdict));
  }

  /** Soft: what is there is gone, and the stream goes on. Writes what the server's own metadata event would say. */
  cut(name: string, expected: Expected, told: (result: Appended) => void): void {
    this.#delete(name, expected, told, (stream) => {
      stream.cutBefore = stream.events.length;
      stream.isSoftDeleted = true;
      this.#record(KINDS.cut, cutRecord(stream));
      this.#system(`$$${name}`, '$metadata', '{"$tb":9223372036854775807}');
    });
  }

  tombstone(name: string, expected: Expected, told: (result: Appended) => void): void {
    this.#delete(name, expected, told, (stream) => {
      stream.hasTombstone = true;
      this.#record(KINDS.tombstone, cutRecord(stream));
      this.#system(`$$${name}`, '$streamDeleted', '{}');
    });
  }

  close(): void {
    this.#flush();
    closeSync(this.#handle);
  }

  #delete(name: string, expected: Expected, told: (result: Appended) => void, write: (stream: Stream) => void): void {
    const stream = this.#streams.get(name) ?? { name, events: [], cutBefore: 0, isSoftDeleted: false, hasTombstone: false };
    const revision = stream.events.length - 1;
    if (stream.hasTombstone) { this.#soon(() => told({ kind: 'deleted' })); return; }
    if (typeof expected === 'number' && expected !== revision) { this.#soon(() => told({ kind: 'wrong', revision })); return; }
    this.#streams.set(name, stream);
    write(stream);
    const position = this.all.at(-1)?.position ?? 0;
    this.#soon(() => told({ kind: 'stored', revision, position }));
  }

  #verdict(stream: Stream, expected: Expected, events: readonly Proposed[]): Appended | { readonly kind: 'go' } {
    const revision = stream.events.length - 1;
    const wrong = { kind: 'wrong', revision } as const;
    if (stream.hasTombstone) return { kind: 'deleted' };
    if (expected === 'any') {
      const known = events.map(({ id }) => this.#ids.get(id)).map((stored) => (stored?.stream === stream ? stored : undefined));
      if (known[0] === undefined) return { kind: 'go' };
      const last = known.at(-1);
      return known.includes(undefined) || last === undefined ? wrong : { kind: 'stored', revision: last.revision, position: last.position };
    }
    if (expected === 'stream_exists') return revision < 0 || stream.isSoftDeleted ? wrong : { kind: 'go' };
    const believed = expected === 'no_stream' ? -1 : expected;
    if (believed > revision) return wrong;
    if (believed === revision) return { kind: 'go' };
    const there = events.map(({ id }, index) => stream.events[believed + 1 + index]?.id === id);
    if (!there.includes(false)) {
      const last = stream.events[believed + events.length];
      return last === undefined ? wrong : { kind: 'stored', revision: last.revision, position: last.position };
    }
    return there[0] === false && stream.isSoftDeleted && expected === 'no_stream' ? { kind: 'go' } : wrong;
  }

  #write(stream: Stream, event: Proposed): Stored {
    const revision = stream.events.length;
    const name = new Uint8Array(Buffer.from(stream.name, 'utf8'));
    const record = new wire.ReadResp.ReadEvent.RecordedEvent()
      .setId(new shared.UUID().setString(event.id)).setStreamIdentifier(new shared.StreamIdentifier().setStreamName(name)).setStreamRevision(String(revision))
      .setCommitPosition(String(this.#end)).setPreparePosition(String(this.#end)).setData(event.data).setCustomMetadata(event.metadata);
    // Ticks of a hundred nanoseconds, as the real one says when.
    record.getMetadataMap().set('type', event.type).set('content-type', event.contentType).set('created', String(BigInt(Date.now()) * 10_000n));
    const message = Buffer.from(new wire.ReadResp().setEvent(new wire.ReadResp.ReadEvent().setEvent(record).setCommitPosition(String(this.#end))).serializeBinary());
    const head = Buffer.alloc(22);
    Buffer.from(event.id.replaceAll('-', ''), 'hex').copy(head, 0);
    head.writeUInt32LE(revision, 16);
    head.writeUInt16LE(name.length, 20);
    const position = this.#record(KINDS.event, Buffer.concat([head, name, message]));
    return this.#keep({ position, stream, revision, id: event.id, message });
  }

  #keep(stored: Stored): Stored {
    this.all.push(stored);
    stored.stream.events.push(stored);
    this.#ids.set(stored.id, stored);
    if (this.#ids.size > this.#idsMax) {
      for (const oldest of this.#ids.keys()) {
        this.#ids.delete(oldest);
        break;
      }
    }
    return stored;
  }

  /** Position of a record of `kind`: length, kind, body. */
  #record(kind: number, body: Buffer): number {
    const position = this.#end;
    const head = Buffer.alloc(5);
    head.writeUInt32LE(body.length, 0);
    head.writeUInt8(kind, 4);
    this.#unwritten.push(head, body);
    this.#end += head.length + body.length;
    return position;
  }

  #system(stream: string, type: string, data: string): void {
    const target = this.#streams.get(stream) ?? { name: stream, events: [], cutBefore: 0, isSoftDeleted: false, hasTombstone: false };
    this.#streams.set(stream, target);
    const id = `ffffffff-0000-4000-8000-${this.#end.toString(16).padStart(12, '0')}`;
    this.#write(target, { id, type, contentType: 'application/json', data: new Uint8Array(Buffer.from(data)), metadata: new Uint8Array() });
  }

  /** The log of a real server is never empty: statistics, users and settings are events too. */
  #begin(): void {
    this.#end = 0;
    this.#unwritten.push(HEADER);
    this.#end += HEADER.length;
    this.#system('$stats-127.0.0.1', '$statsCollected', '{}');
    this.#flush();
  }

  /** What was decided in one turn is written together, and told after that. */
  #soon(told: () => void): void {
    this.#afterwards.push(told);
    if (this.#flushing) return;
    this.#flushing = true;
    setImmediate(() => this.#flush());
  }

  #flush(): void {
    this.#flushing = false;
    const bytes = Buffer.concat(this.#unwritten.splice(0));
    if (bytes.length > 0) writeSync(this.#handle, bytes, 0, bytes.length, this.#end - bytes.length);
    if (this.#fsync) fsyncSync(this.#handle);
    this.durable = this.all.length;
    for (const told of this.#afterwards.splice(0)) told();
    this.onFlush();
  }

  /** Reads the records of an earlier run; ids of earlier runs are forgotten, as the real one forgets them. Returns where the whole ones end. */
  #load(bytes: Buffer): number {
    let at = HEADER.length;
    while (at + 5 <= bytes.length && at + 5 + bytes.readUInt32LE(at) <= bytes.length) {
      const length = bytes.readUInt32LE(at);
      this.#restore(bytes.readUInt8(at + 4), bytes.subarray(at + 5, at + 5 + length), at);
      at += 5 + length;
    }
    this.#ids = new Map();
    this.durable = this.all.length;
    return at;
  }

  #restore(kind: number, body: Buffer, position: number): void {
    const nameLength = body.readUInt16LE(20);
    const name = body.toString('utf8', 22, 22 + nameLength);
    const stream = this.#streams.get(name) ?? { name, events: [], cutBefore: 0, isSoftDeleted: false, hasTombstone: false };
    this.#streams.set(name, stream);
    if (kind === KINDS.cut) {
      stream.cutBefore = stream.events.length;
      stream.isSoftDeleted = true;
    } else if (kind === KINDS.tombstone) {
      stream.hasTombstone = true;
    } else {
      stream.isSoftDeleted = false;
      const hex = body.toString('hex', 0, 16);
      const id = `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
      this.#keep({ position, stream, revision: body.readUInt32LE(16), id, message: body.subarray(22 + nameLength) });
    }
  }
}

function cutRecord(stream: Stream): Buffer {
  const name = Buffer.from(stream.name, 'utf8');
  const head = Buffer.alloc(22);
  head.writeUInt16LE(name.length, 20);
  return Buffer.concat([head, name]);
}
