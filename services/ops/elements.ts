// Files of CloudEvents as the operator's verbs read them: NDJSON or a JSON array, of any length, cut into elements without
// being parsed.
import { createReadStream, statSync } from 'node:fs';
import type { Decoded } from '../../schemas/cloudevent.ts';
import { normaliseIdentity } from '../../schemas/identity.ts';
import { OperatingError } from '../errors.ts';
import type { Io } from './terminal.ts';

/** One JSON text of the input. `line` counts from 1. */
export interface Element { readonly line: number; readonly bytes: Uint8Array }

const LF = 0x0a;
const QUOTE = 0x22;
const COMMA = 0x2c;
const BACKSLASH = 0x5c;
const OPEN = 0x5b;
const CLOSE = 0x5d;
const OPEN_OBJECT = 0x7b;
const CLOSE_OBJECT = 0x7d;
const BOM = [0xef, 0xbb, 0xbf] as const;
const isSpace = (byte: number): boolean => byte === 0x20 || byte === LF || byte === 0x0d || byte === 0x09;

/**
 * Cuts a stream of bytes into its elements: the lines of NDJSON, or the elements of a top-level array, whichever begins.
 * Looks at no more of JSON than its strings and brackets; whether an element is JSON the decoder says. Of an element
 * longer than `limit` bytes only so many are kept: enough for the decoder to call it too large.
 */
export class Splitter {
  readonly #limit: number;
  #mode: 'start' | 'lines' | 'array' = 'start';
  #line = 1;
  /** The element being read: its first line, and what earlier chunks held of it. */
  #startLine = 1;
  #parts: Uint8Array[] = [];
  #length = 0;
  #depth = 0;
  #inString = false;
  #escaped = false;
  /** In an array, something has to come: the value after a comma. */
  #owed = false;
  /** How much of a byte order mark has been passed over; all of it once anything else came. */
  #bom = 0;

  constructor(limit: number) { this.#limit = limit; }

  push(chunk: Uint8Array): readonly Element[] {
    const found: Element[] = [];
    let at = 0;
    while (at < chunk.length) {
      switch (this.#mode) {
        case 'start': at = this.#begin(chunk, at); break;
        case 'lines': at = this.#readLine(chunk, at, found); break;
        case 'array': at = this.#readArray(chunk, at, found); break;
      }
    }
    return found;
  }

  /** What is left at the end: a last line without its end, or an array that was cut off, which is never silent. */
  end(): readonly Element[] {
    const found: Element[] = [];
    if (this.#mode === 'array') {
      if (this.#length > 0) this.#emit(found);
      this.#startLine = this.#line;
      this.#emit(found, true);
    } else if (this.#length > 0) this.#emit(found);
    return found;
  }

  #begin(chunk: Uint8Array, from: number): number {
    for (let at = from; at < chunk.length; at += 1) {
      const byte = chunk[at] ?? 0;
      if (byte === BOM[this.#bom]) { this.#bom += 1; continue; }
      this.#bom = BOM.length;
      if (byte === LF) this.#line += 1;
      if (isSpace(byte)) continue;
      this.#startLine = this.#line;
      if (byte !== OPEN) { this.#mode = 'lines'; return at; }
      this.#mode = 'array';
      this.#depth = 0;
      this.#owed = false;
      return at + 1;
    }
    return chunk.length;
  }

  #readLine(chunk: Uint8Array, from: number, found: Element[]): number {
    const end = chunk.indexOf(LF, from);
    if (end < 0) {
      this.#keep(chunk.subarray(from));
      return chunk.length;
    }
    this.#keep(chunk.subarray(from, end));
    this.#emit(found);
    this.#line += 1;
    this.#mode = 'start';
    return end + 1;
  }

  #readArray(chunk: Uint8Array, from: number, found: Element[]): number {
    let start = from;
    for (let at = from; at < chunk.length; at += 1) {
      const byte = chunk[at] ?? 0;
      if (byte === LF) this.#line += 1;
      if (this.#inString) {
        if (this.#escaped) this.#escaped = false;
        else if (byte === BACKSLASH) this.#escaped = true;
        else if (byte === QUOTE) this.#inString = false;
        continue;
      }
      if (isSpace(byte)) {
        // Space before an element is no part of it.
        if (this.#length === 0 && start === at) start = at + 1;
        continue;
      }
      const closes = byte === CLOSE && this.#depth === 0;
      if (closes || (byte === COMMA && this.#depth === 0)) {
        this.#keep(chunk.subarray(start, at));
        if (this.#length > 0 || this.#owed || !closes) this.#emit(found, true);
        this.#owed = !closes;
        start = at + 1;
        if (!closes) continue;
        this.#mode = 'start';
        return start;
      }
      if (this.#length === 0 && start === at) this.#startLine = this.#line;
      if (byte === QUOTE) this.#inString = true;
      else if (byte === OPEN || byte === OPEN_OBJECT) this.#depth += 1;
      else if (byte === CLOSE || byte === CLOSE_OBJECT) this.#depth = Math.max(0, this.#depth - 1);
    }
    this.#keep(chunk.subarray(start));
    return chunk.length;
  }

  #keep(bytes: Uint8Array): void {
    const room = this.#limit + 1 - this.#length;
    if (bytes.length === 0 || room <= 0) return;
    const kept = bytes.subarray(0, room);
    this.#parts.push(kept);
    this.#length += kept.length;
  }

  #emit(found: Element[], evenEmpty = false): void {
    const [only] = this.#parts;
    const bytes = this.#parts.length === 1 && only !== undefined ? only : Buffer.concat(this.#parts);
    this.#parts = [];
    this.#length = 0;
    this.#inString = false;
    this.#escaped = false;
    this.#depth = 0;
    if (evenEmpty || !bytes.every(isSpace)) found.push({ line: this.#startLine, bytes });
  }
}

const READ_BYTES = 1024 * 1024;

/** The longest spelling of an event of so many bytes that the decoder still reads; see decodeStructured. */
export const longestSpelling = (maxEventBytes: number): number => 8 * maxEventBytes + 4096;

/** The elements of a file or, for `-`, of stdin, cut off after `limit` bytes; with every batch how many bytes have been read. Throws fileUnreadable. */
export async function* elementsOf(file: string, io: Pick<Io, 'stdin'>, limit: number): AsyncGenerator<{ readonly elements: readonly Element[]; readonly bytesRead: number }> {
  const splitter = new Splitter(limit);
  let bytesRead = 0;
  try {
    const input: AsyncIterable<Uint8Array> = file === '-' ? io.stdin : createReadStream(file, { highWaterMark: READ_BYTES });
    for await (const chunk of input) {
      bytesRead += chunk.length;
      yield { elements: splitter.push(chunk), bytesRead };
    }
  } catch (cause) {
    if (typeof cause !== 'object' || cause === null || !('syscall' in cause) || !('code' in cause)) throw cause;
    throw new OperatingError('fileUnreadable', `${file} cannot be read (${String(cause.code)})`, { cause });
  }
  yield { elements: splitter.end(), bytesRead };
}

export function sizeOfFile(file: string): number | null {
  return file === '-' ? null : statSync(file, { throwIfNoEntry: false })?.size ?? null;
}

/** Whose event it is, as identities are compared, since that decides what must stay in order; null where none can be read: such an event is rejected wherever it goes. */
export function whoseEvent(decoded: Decoded): { readonly type: string; readonly value: string } | null {
  if (decoded.kind === 'rejected') return null;
  const { identity, identitytype, subject } = decoded.event.attributes;
  const whose = identity === undefined ? normaliseIdentity('subject', String(subject ?? '')) : normaliseIdentity(String(identitytype ?? ''), String(identity));
  return whose.type === '' || whose.value === '' ? null : whose;
}
