// How producers compress their batches, undone: kafkajs reads gzip alone, and most producers in Java are set to snappy, lz4 or
// zstd. Snappy is read from its format description, framed as the Java library frames it or bare; LZ4 from the description
// of its frame and block formats (the frame that Kafka uses since message format 2). Checksums are not compared: Kafka's own
// stands over the whole batch.
import { gunzipSync, gzipSync, zstdCompressSync, zstdDecompressSync } from 'node:zlib';

/** A batch that grows beyond this is an attack or broken: a topic takes 1 MiB of compressed batch unless it is told otherwise. */
export const MAX_BATCH_BYTES = 64 * 1024 * 1024;

/** What kafkajs is not to try again: the same bytes will come again. */
export class Undecodable extends Error {
  readonly retriable = false;
  constructor(what: string, options?: { cause?: unknown }) {
    super(`a batch of the topic cannot be decompressed: ${what}`, options);
    this.name = 'Undecodable';
  }
}

export interface Codec {
  compress(encoder: { readonly buffer: Buffer }): Promise<Buffer>;
  decompress(buffer: Buffer): Promise<Buffer>;
}

/** By kafkajs's names. We write plain or gzip; the others are for reading. */
export const CODECS: Readonly<Record<'GZIP' | 'Snappy' | 'LZ4' | 'ZSTD', Codec>> = {
  GZIP: { compress: async ({ buffer }) => gzipSync(buffer), decompress: async (buffer) => byNode('gzip', () => gunzipSync(buffer, { maxOutputLength: MAX_BATCH_BYTES })) },
  ZSTD: { compress: async ({ buffer }) => zstdCompressSync(buffer), decompress: async (buffer) => byNode('zstd', () => zstdDecompressSync(buffer, { maxOutputLength: MAX_BATCH_BYTES })) },
  Snappy: { compress: async () => { throw new Undecodable('snappy is read, not written'); }, decompress: async (buffer) => snappy(buffer) },
  LZ4: { compress: async () => { throw new Undecodable('lz4 is read, not written'); }, decompress: async (buffer) => lz4(buffer) },
};

function byNode(what: string, inflate: () => Buffer): Buffer {
  try {
    return inflate();
  } catch (cause) {
    throw new Undecodable(what, { cause });
  }
}

// ---- what both write ---------------------------------------------------------------------------------------------------

/** Bytes that are appended, or copied from what was appended before. */
class Output {
  #bytes: Buffer;
  #length = 0;
  readonly #what: string;

  constructor(what: string, expected: number) {
    this.#what = what;
    this.#bytes = Buffer.allocUnsafe(this.#bounded(expected));
  }

  #bounded(size: number): number {
    if (size > MAX_BATCH_BYTES) throw new Undecodable(`${this.#what} of more than ${MAX_BATCH_BYTES} bytes`);
    return size;
  }

  #room(more: number): void {
    const needed = this.#bounded(this.#length + more);
    if (needed <= this.#bytes.length) return;
    const grown = Buffer.allocUnsafe(Math.min(Math.max(needed, this.#bytes.length * 2, 65_536), MAX_BATCH_BYTES));
    this.#bytes.copy(grown, 0, 0, this.#length);
    this.#bytes = grown;
  }

  append(input: Buffer, start: number, length: number): void {
    if (start + length > input.length) throw new Undecodable(`${this.#what} ends early`);
    this.#room(length);
    input.copy(this.#bytes, this.#length, start, start + length);
    this.#length += length;
  }

  /** `length` may be more than `offset`: what is copied is then copied again. */
  repeat(offset: number, length: number): void {
    if (offset === 0 || offset > this.#length) throw new Undecodable(`${this.#what} points before its start`);
    this.#room(length);
    const bytes = this.#bytes;
    const from = this.#length - offset;
    if (offset >= length) bytes.copyWithin(this.#length, from, from + length);
    else for (let index = 0; index < length; index += 1) bytes[this.#length + index] = bytes[from + index]!;
    this.#length += length;
  }

  get length(): number { return this.#length; }
  bytes(): Buffer { return this.#bytes.subarray(0, this.#length); }
}

function byteAt(input: Buffer, at: number, what: string): number {
  const byte = input[at];
  if (byte === undefined) throw new Undecodable(`${what} ends early`);
  return byte;
}

// ---- snappy ------------------------------------------------------------------------------------------------------------

/** How the Java library begins a stream: 0x82 SNAPPY 0x00, then two versions of four bytes. */
const SNAPPY_FRAME = Buffer.from([0x82, 0x53, 0x4e, 0x41, 0x50, 0x50, 0x59, 0x00]);
const SNAPPY_FRAME_HEADER = 16;
const SNAPPY_RATIO = 22;

export function snappy(input: Buffer): Buffer {
  if (!input.subarray(0, SNAPPY_FRAME.length).equals(SNAPPY_FRAME)) return snappyBlock(input);
  const blocks: Buffer[] = [];
  let total = 0;
  for (let at = SNAPPY_FRAME_HEADER; at < input.length;) {
    if (at + 4 > input.length) throw new Undecodable('snappy ends early');
    const length = input.readUInt32BE(at);
    if (at + 4 + length > input.length) throw new Undecodable('snappy ends early');
    const block = snappyBlock(input.subarray(at + 4, at + 4 + length));
    total += block.length;
    if (total > MAX_BATCH_BYTES) throw new Undecodable(`snappy of more than ${MAX_BATCH_BYTES} bytes`);
    blocks.push(block);
    at += 4 + length;
  }
  return blocks.length === 1 ? blocks[0]! : Buffer.concat(blocks);
}

/** The length, then literals and copies; the two lowest bits of a tag say which. */
function snappyBlock(input: Buffer): Buffer {
  const what = 'snappy';
  let at = 0;
  let expected = 0;
  for (let shift = 0; ; shift += 7) {
    const byte = byteAt(input, at++, what);
    expected += (byte & 0x7f) * 2 ** shift;
    if (byte < 0x80) break;
    if (shift >= 28) throw new Undecodable('snappy has no length');
  }
  // Three bytes copy 64 at most: more is no snappy, and nothing is allotted for it.
  if (expected > input.length * SNAPPY_RATIO) throw new Undecodable('snappy is shorter than it says');
  const output = new Output(what, expected);
  while (at < input.length) {
    const tag = byteAt(input, at++, what);
    const upper = tag >> 2;
    if ((tag & 3) === 0) {
      const extra = upper < 60 ? 0 : upper - 59;
      const length = extra === 0 ? upper + 1 : little(input, at, extra, what) + 1;
      output.append(input, at + extra, length);
      at += extra + length;
    } else if ((tag & 3) === 1) {
      output.repeat(((tag >> 5) << 8) | byteAt(input, at++, what), (upper & 7) + 4);
    } else {
      const size = (tag & 3) === 2 ? 2 : 4;
      output.repeat(little(input, at, size, what), upper + 1);
      at += size;
    }
    if (output.length > expected) throw new Undecodable('snappy is longer than it says');
  }
  if (output.length !== expected) throw new Undecodable('snappy is shorter than it says');
  return output.bytes();
}

function little(input: Buffer, at: number, size: number, what: string): number {
  if (at + size > input.length) throw new Undecodable(`${what} ends early`);
  return input.readUIntLE(at, size);
}

// ---- LZ4 ---------------------------------------------------------------------------------------------------------------

const LZ4_MAGIC = 0x184d2204;
/** Bits of the frame's flags. */
const LZ4_DICTIONARY = 0x01;
const LZ4_CONTENT_SIZE = 0x08;
const LZ4_BLOCK_CHECKSUM = 0x10;
const LZ4_STORED = 0x80000000;

export function lz4(input: Buffer): Buffer {
  const what = 'lz4';
  if (input.length < 7 || input.readUInt32LE(0) !== LZ4_MAGIC) throw new Undecodable('no lz4 frame');
  const flags = byteAt(input, 4, what);
  if ((flags & LZ4_DICTIONARY) !== 0) throw new Undecodable('lz4 with a dictionary');
  // Magic, flags, block sizes, perhaps the length of all, a byte of checksum.
  let at = 6 + ((flags & LZ4_CONTENT_SIZE) === 0 ? 0 : 8) + 1;
  const output = new Output(what, Math.min(input.length * 4, MAX_BATCH_BYTES));
  for (;;) {
    const size = little(input, at, 4, what);
    at += 4;
    if (size === 0) return output.bytes();
    const length = size % LZ4_STORED;
    if (at + length > input.length) throw new Undecodable('lz4 ends early');
    if (size >= LZ4_STORED) output.append(input, at, length);
    else lz4Block(input.subarray(at, at + length), output);
    at += length + ((flags & LZ4_BLOCK_CHECKSUM) === 0 ? 0 : 4);
  }
}

/** Sequences of literals and a copy; the last has literals alone. A copy may reach into the block before. */
function lz4Block(input: Buffer, output: Output): void {
  const what = 'lz4';
  let at = 0;
  /** A length of 15 in the token goes on, byte for byte, until one is below 255. */
  const longer = (start: number): number => {
    let length = start;
    if (start !== 15) return length;
    for (;;) {
      const byte = byteAt(input, at++, what);
      length += byte;
      if (byte !== 255) return length;
    }
  };
  while (at < input.length) {
    const token = byteAt(input, at++, what);
    const literals = longer(token >> 4);
    output.append(input, at, literals);
    at += literals;
    if (at >= input.length) return;
    const offset = little(input, at, 2, what);
    at += 2;
    output.repeat(offset, longer(token & 15) + 4);
  }
}
