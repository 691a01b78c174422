// Which shard of a generation holds a workspace. Every program that reads or folds a shard must find it there, for ever.
import { createHash } from 'node:crypto';

/** The shard that holds a workspace, of a generation with so many. */
export function shardOf(workspace: string, shards: number): number {
  return shards === 1 ? 0 : createHash('sha256').update(workspace).digest().readUInt32BE(0) % shards;
}
