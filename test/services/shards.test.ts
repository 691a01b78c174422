// What shards say together.
import fc from 'fast-check';
import { addHash, type Digest, digestText, DocumentHasher, EMPTY_DIGEST } from '../../services/projector/digest.ts';
import { shardOf, sumDigests } from '../../services/shards.ts';

test('G3: the digests of shards sum to that of one shard with all their documents, however they are cut', () => {
  const hasher = new DocumentHasher();
  const digestOf = (documents: readonly (readonly [string, string])[]): Digest => documents.reduce((sum, [key, text]) => addHash(sum, hasher.hash(key, text)), EMPTY_DIGEST);
  fc.assert(fc.property(fc.array(fc.tuple(fc.string(), fc.string())), fc.integer({ min: 1, max: 9 }), (documents, shards) => {
    const cut = Array.from({ length: shards }, (_, shard) => documents.filter(([key]) => shardOf(key, shards) === shard));
    expect(sumDigests(cut.map((some) => digestText(digestOf(some))))).toBe(digestText(digestOf(documents)));
  }), { numRuns: 200 });
  expect(sumDigests([])).toBe(digestText(EMPTY_DIGEST));
});
