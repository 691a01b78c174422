// How a view is packed for Redis: operations for the scripts (MessagePack, which Redis reads with a function of its own: a
// fifth of the cost of as many arguments of a command), the ids of terms, and the rows of records.
//
// A term is named by a hash of its field and itself, eight bytes, kept as a string of eight characters below 256: numbers
// given in turn would be shorter, but then each term needs an entry of its own (75 bytes for one that a single journey
// has) and a reader and a writer who look it up. Two terms meet within a segment with a probability below 2^-32.
import assert from 'node:assert';
import { hash } from 'node:crypto';
import { OperatingError } from '../errors.ts';

/**
 * Redis calls (within the script) and bytes that one chunk of operations may have. Measured on two shared cores: 1,000 calls
 * and 512 KB took 3 ms, so that these hold 5 ms on a machine a third as fast.
 */
export const CHUNK_CALLS = 500;
export const CHUNK_BYTES = 256 * 1024;

// ---- growing bytes -----------------------------------------------------------------------------------------------------

/** Characters of a text that is written one by one. */
const SHORT = 16;

/** Bytes written one after the other. */
class Bytes {
  buffer: Buffer;
  at = 0;

  constructor(size: number) {
    this.buffer = Buffer.allocUnsafe(size);
  }

  room(size: number): void {
    if (this.at + size <= this.buffer.length) return;
    const grown = Buffer.allocUnsafe(Math.max(this.at + size, this.buffer.length * 2));
    this.buffer.copy(grown, 0, 0, this.at);
    this.buffer = grown;
  }

  u8(value: number): void {
    this.room(1);
    this.buffer[this.at] = value;
    this.at += 1;
  }

  varint(value: number): void {
    this.room(8);
    let rest = value;
    while (rest > 127) {
      this.buffer[this.at++] = (rest % 128) | 128;
      rest = Math.floor(rest / 128);
    }
    this.buffer[this.at++] = rest;
  }

  /** Characters below 256, one byte each. */
  latin1(text: string): void {
    const { length } = text;
    this.room(length);
    const { buffer, at } = this;
    // Ids are short: a loop is through before a call into the buffer has looked at its arguments.
    if (length > SHORT) buffer.write(text, at, 'latin1');
    else for (let i = 0; i < length; i += 1) buffer[at + i] = text.charCodeAt(i);
    this.at = at + length;
  }
}

// ---- operations --------------------------------------------------------------------------------------------------------

/** One chunk of operations: an array of arrays, each a command and its arguments. */
export class Operations {
  readonly #bytes: Bytes;
  #count = 0;
  /** Redis calls that it takes. */
  calls = 0;

  constructor(size = 64 * 1024) {
    this.#bytes = new Bytes(size);
    // Array of 32-bit size, filled in at the end.
    this.#bytes.at = 5;
  }

  get isEmpty(): boolean { return this.#count === 0; }
  get isFull(): boolean { return this.calls >= CHUNK_CALLS || this.#bytes.at >= CHUNK_BYTES; }

  /** Begins an operation of so many parts, its command included. */
  begin(parts: number, calls = 1): this {
    this.#count += 1;
    this.calls += calls;
    return this.array(parts);
  }

  array(size: number): this {
    const bytes = this.#bytes;
    bytes.room(5);
    if (size < 16) bytes.buffer[bytes.at++] = 0x90 | size;
    else {
      bytes.buffer[bytes.at] = 0xdd;
      bytes.buffer.writeUInt32BE(size, bytes.at + 1);
      bytes.at += 5;
    }
    return this;
  }

  /** Characters below 256. */
  text(text: string): this {
    const bytes = this.#bytes;
    const { length } = text;
    bytes.room(length + 5);
    if (length < 32) bytes.buffer[bytes.at++] = 0xa0 | length;
    else this.#head(length);
    bytes.latin1(text);
    return this;
  }

  /** Any text, as UTF-8. */
  utf8(text: string): this {
    const bytes = this.#bytes;
    bytes.room(text.length * 3 + 5);
    const written = bytes.buffer.write(text, bytes.at + 5, 'utf8');
    bytes.buffer[bytes.at] = 0xdb;
    bytes.buffer.writeUInt32BE(written, bytes.at + 1);
    bytes.at += written + 5;
    return this;
  }

  data(data: Uint8Array): this {
    const bytes = this.#bytes;
    bytes.room(data.length + 5);
    this.#head(data.length);
    bytes.buffer.set(data, bytes.at);
    bytes.at += data.length;
    return this;
  }

  /** Below 2^32. */
  number(value: number): this {
    const bytes = this.#bytes;
    bytes.room(5);
    if (value < 128) bytes.buffer[bytes.at++] = value;
    else {
      bytes.buffer[bytes.at] = 0xce;
      bytes.buffer.writeUInt32BE(value, bytes.at + 1);
      bytes.at += 5;
    }
    return this;
  }

  #head(length: number): void {
    const bytes = this.#bytes;
    bytes.buffer[bytes.at] = 0xdb;
    bytes.buffer.writeUInt32BE(length, bytes.at + 1);
    bytes.at += 5;
  }

  /** Operations as the scripts take them, in memory of their own; begins the next chunk. */
  take(): Buffer {
    const { buffer, at } = this.#bytes;
    buffer[0] = 0xdd;
    buffer.writeUInt32BE(this.#count, 1);
    const taken = Buffer.from(buffer.subarray(0, at));
    this.#bytes.at = 5;
    this.#count = 0;
    this.calls = 0;
    return taken;
  }

  /** Without the array around them: one value, for a script that takes one. */
  value(): Buffer {
    return this.#bytes.buffer.subarray(5, this.#bytes.at);
  }
}

/** Bytes to begin with for what a read asks for. */
export const SMALL = 2_048;

/** One packed array of texts. */
export function packTexts(texts: readonly string[]): Buffer {
  const packed = new Operations(SMALL).array(texts.length);
  for (const text of texts) packed.text(text);
  return packed.value();
}

// ---- ids ---------------------------------------------------------------------------------------------------------------

/** Half of the ids of each kind that are remembered, per view and process: some 3 MB. */
const IDS_MAX = 25_000;
/** The term that every living record has. */
export const EVERY = '\0\0\0\0\0\0\0\u0001';
const ID_SIZE = 8;
/** Of keyed terms and record keys, which are looked up in all of a shard: 80 bits, so that a billion of them do not meet. */
const KEYED_SIZE = 10;

/** Remembered by two names, in two halves: when the younger one is full it becomes the older one, whose ids are forgotten unless they were asked for meanwhile. */
class Remembered {
  #young = new Map<string, Map<string, string>>();
  #old: ReadonlyMap<string, ReadonlyMap<string, string>> = new Map();
  #size = 0;

  get(field: string, term: string, make: () => string): string {
    let terms = this.#young.get(field);
    if (terms === undefined) this.#young.set(field, terms = new Map<string, string>());
    let id = terms.get(term);
    if (id !== undefined) return id;
    id = this.#old.get(field)?.get(term) ?? make();
    terms.set(term, id);
    this.#size += 1;
    if (this.#size >= IDS_MAX) {
      this.#old = this.#young;
      this.#young = new Map();
      this.#size = 0;
    }
    return id;
  }
}

export class TermIds {
  readonly #posted = new Remembered();
  readonly #keyed = new Remembered();

  /** Of a posted term. The lowest bit of the last byte says that the field is dense: its postings are bitmaps from the start. */
  posted(field: string, term: string, dense: boolean): string {
    return this.#posted.get(field, term, () => {
      const digest = hash('sha1', `${field}\n${term}`, 'binary');
      return digest.slice(0, ID_SIZE - 1) + String.fromCharCode((digest.charCodeAt(ID_SIZE - 1) & 0xfe) | (dense ? 1 : 0));
    });
  }

  /** Of a keyed term; with an empty field of a record's key. */
  keyed(workspace: string, field: string, term: string): string {
    return this.#keyed.get(`${workspace}\n${field}`, term, () => hash('sha1', `${workspace}\n${field}\n${term}`, 'binary').slice(0, KEYED_SIZE));
  }
}

export function isDense(id: string): boolean { return id.charCodeAt(ID_SIZE - 1) % 2 === 1; }

/** Segment and ordinal, as six bytes. */
export function packLocator(locator: number): string {
  const segment = Math.floor(locator / 65_536);
  const ordinal = locator % 65_536;
  return String.fromCharCode(segment & 255, (segment >>> 8) & 255, (segment >>> 16) & 255, segment >>> 24, ordinal & 255, ordinal >>> 8);
}

export function readLocator(bytes: Buffer, at = 0): number {
  return bytes.readUInt32LE(at) * 65_536 + bytes.readUInt16LE(at + 4);
}

// ---- rows --------------------------------------------------------------------------------------------------------------

/** A sub-record: its own locator, and the ids of its terms, ascending. */
export interface SubRow { readonly locator: number; readonly posted: readonly string[] }

/** A record as it is stored: what an update is compared with, and what a page shows. */
export interface RecordRow {
  readonly key: string;
  readonly time: number;
  readonly id: string;
  /** Ids of the terms in postings, ascending; ids of the keyed ones. */
  readonly posted: readonly string[];
  readonly keyed: readonly string[];
  /** Chunk 0 of the sub-records, which most records have alone. */
  readonly first: readonly SubRow[];
  /** Numbers of the other chunks, which stand apart. */
  readonly others: readonly number[];
}

const ID_IS_KEY = 1;
const ID_IS_JSON = 2;
const PLAIN = /^[\x20-\x7e]*$/;
/** Flags, time, length of the key: the scripts find the key behind them. */
const KEY_AT = 11;

/** Into memory of its own. */
export class RowPacker {
  readonly #bytes = new Bytes(16 * 1024);

  row(row: RecordRow): Buffer {
    const bytes = this.#begin();
    assert(row.key.length < 65_536, 'the key of a record has fewer than 65,536 characters');
    const plain = PLAIN.test(row.id);
    bytes.room(KEY_AT);
    bytes.buffer[0] = row.id === row.key ? ID_IS_KEY : plain ? 0 : ID_IS_JSON;
    bytes.buffer.writeDoubleLE(row.time, 1);
    bytes.buffer.writeUInt16LE(row.key.length, 9);
    bytes.at = KEY_AT;
    bytes.latin1(row.key);
    if (row.id !== row.key) this.#id(plain ? row.id : JSON.stringify(row.id), plain);
    this.#ids(row.posted);
    this.#ids(row.keyed);
    bytes.varint(row.others.length);
    for (const number of row.others) bytes.varint(number);
    this.#subs(row.first);
    return this.#end();
  }

  /** A chunk that stands apart. */
  chunk(subs: readonly SubRow[]): Buffer {
    this.#begin();
    this.#subs(subs);
    return this.#end();
  }

  #begin(): Bytes {
    this.#bytes.at = 0;
    return this.#bytes;
  }

  #end(): Buffer {
    return Buffer.from(this.#bytes.buffer.subarray(0, this.#bytes.at));
  }

  #id(text: string, plain: boolean): void {
    const bytes = this.#bytes;
    bytes.varint(plain ? text.length : Buffer.byteLength(text));
    bytes.room(text.length * 3);
    bytes.at += bytes.buffer.write(text, bytes.at, 'utf8');
  }

  #ids(ids: readonly string[]): void {
    this.#bytes.varint(ids.length);
    for (const id of ids) this.#bytes.latin1(id);
  }

  /** The terms of a chunk once, then each sub-record by their places among them. Ordinals of neighbours mostly follow each other. */
  #subs(subs: readonly SubRow[]): void {
    const places = new Map<string, number>();
    for (const { posted } of subs) for (const id of posted) if (!places.has(id)) places.set(id, places.size);
    this.#ids([...places.keys()]);
    const bytes = this.#bytes;
    bytes.varint(subs.length);
    let expected = -1;
    for (const { locator, posted } of subs) {
      const follows = locator === expected;
      bytes.varint(posted.length * 2 + (follows ? 1 : 0));
      if (!follows) bytes.latin1(packLocator(locator));
      for (const id of posted) bytes.varint(places.get(id)!);
      expected = locator + 1;
    }
  }
}

class Reader {
  readonly bytes: Buffer;
  at = 0;

  constructor(bytes: Buffer) {
    this.bytes = bytes;
  }

  varint(): number {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = this.bytes[this.at++];
      if (byte === undefined) throw damaged('a row ends too soon');
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
  }

  latin1(size: number): string {
    if (this.at + size > this.bytes.length) throw damaged('a row ends too soon');
    const text = this.bytes.toString('latin1', this.at, this.at + size);
    this.at += size;
    return text;
  }

  /** Never more than there are bytes. */
  list<T>(read: () => T): T[] {
    const list: T[] = [];
    for (let left = this.varint(); left > 0; left -= 1) list.push(read());
    return list;
  }

  subs(): SubRow[] {
    const ids = this.list(() => this.latin1(ID_SIZE));
    let expected = -1;
    return this.list(() => {
      const head = this.varint();
      const locator = head % 2 === 1 ? expected : readLocator(Buffer.from(this.latin1(6), 'latin1'));
      expected = locator + 1;
      const posted = Array.from({ length: Math.floor(head / 2) }, () => ids[this.varint()]);
      if (posted.includes(undefined)) throw damaged('a sub-record names a term that its chunk does not have');
      return { locator, posted: posted as string[] };
    });
  }
}

/** What a page needs of a row. */
export function readRowHead(bytes: Buffer): { readonly key: string; readonly time: number; readonly id: string } {
  return readHead(bytes, new Reader(bytes));
}

export function readRow(bytes: Buffer): RecordRow {
  const reader = new Reader(bytes);
  const head = readHead(bytes, reader);
  const posted = reader.list(() => reader.latin1(ID_SIZE));
  const keyed = reader.list(() => reader.latin1(KEYED_SIZE));
  const others = reader.list(() => reader.varint());
  return { ...head, posted, keyed, others, first: reader.subs() };
}

export function readChunk(bytes: Buffer): SubRow[] {
  return new Reader(bytes).subs();
}

function readHead(bytes: Buffer, reader: Reader): { readonly key: string; readonly time: number; readonly id: string } {
  if (bytes.length < KEY_AT) throw damaged('a row ends too soon');
  const time = bytes.readDoubleLE(1);
  const size = bytes.readUInt16LE(9);
  reader.at = KEY_AT;
  const key = reader.latin1(size);
  if (bytes[0] === ID_IS_KEY) return { key, time, id: key };
  const length = reader.varint();
  const text = bytes.toString('utf8', reader.at, reader.at + length);
  reader.at += length;
  return { key, time, id: bytes[0] === ID_IS_JSON ? JSON.parse(text) as string : text };
}

/** What cannot have been written by us. */
export function damaged(what: string): OperatingError {
  return new OperatingError('storeCorrupt', `the view in Redis is damaged: ${what}; stop every project, delete the keys under the prefix (or name another with prefix=) and start it again; they are folded anew from the log`);
}
