// The digest of a view: an order-free sum over the hashes of its documents, moved with every commit, so that whether two
// generations hold the same is one read (design.md section 5). Two lanes of 64 bits, each summed modulo 2^64: adding is
// commutative, and subtracting a document's old hash takes it out exactly.
import { hash } from 'node:crypto';

const MASK = (1n << 64n) - 1n;
export interface Digest { readonly high: bigint; readonly low: bigint }
export const EMPTY_DIGEST: Digest = { high: 0n, low: 0n };

/** Hash of one document: its key is part of it, so that two documents that swap places differ. */
export function documentHash(key: string, json: string): Digest {
  const bytes = hash('sha256', `${key}\n${json}`, 'buffer');
  return { high: bytes.readBigUInt64BE(0), low: bytes.readBigUInt64BE(8) };
}

export function addHash(digest: Digest, document: Digest): Digest {
  return { high: (digest.high + document.high) & MASK, low: (digest.low + document.low) & MASK };
}
export function removeHash(digest: Digest, document: Digest): Digest {
  return { high: (digest.high - document.high) & MASK, low: (digest.low - document.low) & MASK };
}

/** 32 hex digits, as a view stores it. */
export function digestText(digest: Digest): string {
  return digest.high.toString(16).padStart(16, '0') + digest.low.toString(16).padStart(16, '0');
}
export function parseDigest(text: string): Digest {
  return { high: BigInt(`0x${text.slice(0, 16)}`), low: BigInt(`0x${text.slice(16)}`) };
}
