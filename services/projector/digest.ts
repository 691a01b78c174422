// The digest of a view: an order-free sum over the hashes of its documents, moved with every commit, so that whether two
// generations hold the same is one read (design.md section 5). Four lanes of 32 bits, each summed modulo 2^32: adding is
// commutative, and subtracting a document's old hash takes it out exactly.
//
// The hash guards against faults, not against forgers: nobody gains by two views that look alike. So it is a fast mixing
// hash over the text's bytes (the rounds of MurmurHash3, by Austin Appleby, put in the public domain) instead of
// SHA-256, which cost five times as much and a tenth of all folding.

// Bound once: where a program's globals are looked up by name (Jest's sandbox), `Math.imul` would cost fifty times the hash.
const { imul } = Math;

/** Four unsigned 32-bit numbers. */
export type Digest = readonly [number, number, number, number];
export const EMPTY_DIGEST: Digest = [0, 0, 0, 0];

const C1 = 0x239b961b;
const C2 = 0xab0e9789;
const C3 = 0x38b34ae5;
const C4 = 0xa1e38b93;
const NEW_LINE = 10;

function mixed(lane: number, word: number, a: number, b: number): number {
  const k = imul(word, a);
  const h = lane ^ imul((k << 15) | (k >>> 17), b);
  return (imul((h << 13) | (h >>> 19), 5) + 0xe6546b64) | 0;
}

function finished(lane: number): number {
  let h = lane;
  h = imul(h ^ (h >>> 16), 0x85ebca6b);
  h = imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/** Hashes documents one after the other in one buffer, which grows to the largest it has seen: as bytes in words, a text is read five times faster than by its code units. */
export class DocumentHasher {
  #bytes = Buffer.alloc(1 << 16);
  #words = wordsOf(this.#bytes);

  /** Of one document: its key is part of it, so that two documents that swap places differ. */
  hash(key: string, json: string): Digest {
    const units = key.length + 1 + json.length;
    // A code unit takes three bytes at most; the rest is room for the zeros of the last block.
    if (units * 3 + 16 > this.#bytes.length) {
      this.#bytes = Buffer.alloc(units * 4 + 16);
      this.#words = wordsOf(this.#bytes);
    }
    let length = this.#bytes.write(key, 0);
    this.#bytes[length] = NEW_LINE;
    length += 1;
    length += this.#bytes.write(json, length);
    this.#bytes.fill(0, length, length + 16);
    return hashWords(this.#words, length);
  }
}

function wordsOf(bytes: Buffer): Int32Array { return new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2); }

function hashWords(words: Int32Array, length: number): Digest {
  let [a, b, c, d] = [length, length, length, length];
  const end = ((length + 15) >> 4) << 2;
  for (let i = 0; i < end; i += 4) {
    a = mixed(a, words[i] as number, C1, C2);
    b = mixed(b, words[i + 1] as number, C2, C3);
    c = mixed(c, words[i + 2] as number, C3, C4);
    d = mixed(d, words[i + 3] as number, C4, C1);
  }
  // Each lane saw a quarter of the text: each result must hang on all of them.
  a = (a + b + c + d) | 0;
  b = finished((b + a) | 0);
  c = finished((c + a) | 0);
  d = finished((d + a) | 0);
  a = finished((a + b + c + d) | 0);
  return [a, (a + b) >>> 0, (a + c) >>> 0, (a + d) >>> 0];
}

export function addHash([a, b, c, d]: Digest, [e, f, g, h]: Digest): Digest {
  return [(a + e) >>> 0, (b + f) >>> 0, (c + g) >>> 0, (d + h) >>> 0];
}
export function removeHash([a, b, c, d]: Digest, [e, f, g, h]: Digest): Digest {
  return [(a - e) >>> 0, (b - f) >>> 0, (c - g) >>> 0, (d - h) >>> 0];
}
export function sameHash(one: Digest, other: Digest): boolean { return one.every((lane, i) => lane === other[i]); }

/** 32 hex digits, as a view stores it. */
export function digestText(digest: Digest): string { return digest.map((lane) => lane.toString(16).padStart(8, '0')).join(''); }
export function parseDigest(text: string): Digest {
  const lane = (i: number): number => Number.parseInt(text.slice(i * 8, i * 8 + 8), 16);
  return [lane(0), lane(1), lane(2), lane(3)];
}
