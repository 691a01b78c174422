// The group `persons`: who is the same person (design.md section 6). A deterministic function of the set of evidence and
// the policy.
import type { Instant } from '../schemas/facts.ts';

/** One identity as a person's alias. */
export interface Alias { key: string; type: string; value: string; firstSeen: Instant }
export interface RefusedEdge { a: string; b: string; reason: 'shared' | 'veryStrongConflict' | 'typeLimit'; at: Instant; eventId: string }

/** Document `p/<person id>`. */
export interface PersonDocument {
  id: string;
  firstName: string | null;
  lastName: string | null;
  name: string | null;
  aliases: Alias[];
  /** The edges that joined the aliases: the chain that `explain` walks. */
  evidence: { a: string; b: string; strength: 'operator' | 'veryStrong' | 'strong' | 'weak'; at: Instant; eventId: string }[];
  refused: RefusedEdge[];
  [more: string]: unknown;
}

/** Document `k/<identity key>`: resolves to its person; `p/…` of an old id is found through the first 24 digits of a key: document `a/<24 digits>` = { key }. */
export interface IdentityDocument {
  person: string;
  [more: string]: unknown;
}
