// Which shard of a generation holds a workspace, and what the shards of one say together. Every program that reads or folds
// a shard must find a workspace there, for ever.
import { createHash } from 'node:crypto';

/** Names of the leases by which workers agree who folds which shard: this and its number. */
export const SHARD_LEASES = 'projector/shard/';

/** The shard that holds a workspace, of a generation with so many. */
export function shardOf(workspace: string, shards: number): number {
  return shards === 1 ? 0 : createHash('sha256').update(workspace).digest().readUInt32BE(0) % shards;
}

/**
 * The digest of a generation over all its shards: digests are order-free sums (design.md section 5), so this is what one
 * shard with all of its documents would have, and generations cut differently, or not at all, compare. Each text is four
 * lanes of 8 hex digits, each lane summed modulo 2^32, as the projector moves it.
 */
export function sumDigests(texts: readonly string[]): string {
  const lanes = [0, 0, 0, 0];
  for (const text of texts) {
    lanes.forEach((sum, i) => { lanes[i] = (sum + Number.parseInt(text.slice(i * 8, i * 8 + 8), 16)) >>> 0; });
  }
  return lanes.map((lane) => lane.toString(16).padStart(8, '0')).join('');
}
