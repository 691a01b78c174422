// What a projection is: a pure fold from interpreted events to documents and the index entries that find them.
//
// A fold is a generator, so that it stays pure although it needs stored documents: it yields the keys it wants to see,
// is handed them, and at last returns what changed. The projector drives it against any view store; a test drives it
// against a Map. A fold may mutate the documents it was given (the projector forgets them all when a commit is
// refused), but only what it returns in `documents` is stored.
import type { Interpreted } from '../schemas/facts.ts';
import type { Packer } from './packing.ts';

export type { Interpreted } from '../schemas/facts.ts';

export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json | undefined };

/** What a fold may ask of its workspace. Pure: the secret is inside, no clock, no randomness. */
export interface FoldContext {
  /** 32 hex digits, keyed by the workspace's secret: names for documents, so that no customer's value stands in a key. */
  readonly hash: (...parts: readonly string[]) => string;
  /** The term of (field, value) in the search index, keyed too: 16 characters of base64url. */
  readonly term: (field: string, value: string) => string;
  /** Key of another identity of this workspace; null when its value is empty or anonymous. */
  readonly identityKey: (type: string, value: string) => string | null;
}

/** One searchable record as it is to stand from now on. `key` is unique in the workspace. */
export interface RecordState {
  /** Milliseconds since 1970: what ranges and order go by. */
  readonly time: number;
  /** Breaks ties of time: the public id. */
  readonly id: string;
  /** field → terms (no repeats). Fields are declared by the projection. */
  readonly terms: Readonly<Record<string, readonly string[]>>;
}
/** One sub-record (a transition): field → terms. Filters on sub-fields must meet in one of them. */
export type SubRecord = Readonly<Record<string, readonly string[]>>;

export interface RecordChange {
  readonly key: string;
  /** Null deletes the record with all its sub-records. Undefined leaves it, and changes only the sub-records given. */
  readonly state?: RecordState | null;
  /** Sub-records by chunk: each chunk given replaces what stood under its number; null or [] removes it. Chunks not given stay. */
  readonly subs?: ReadonlyMap<number, readonly SubRecord[] | null>;
}

/** What a fold returns: all of one batch, of one workspace. */
export interface Changes {
  /** Key → value; null deletes. Keys are `<space>/<rest>` and hold no customer's value. */
  readonly documents: ReadonlyMap<string, Json>;
  readonly records: readonly RecordChange[];
}

export type Fold = Generator<readonly string[], Changes, ReadonlyMap<string, Json>>;

/** How a field is indexed (measurements.md section 9): few values → dense; many → sparse; nearly one per record → keyed. */
export type FieldKind = 'dense' | 'sparse' | 'keyed';

export interface Projection {
  readonly group: 'journeys' | 'persons';
  /** Changes whenever the same log would give other documents. */
  readonly version: string;
  /** Spaces whose keys can be scanned in order (`View.scan`). */
  readonly ordered: readonly string[];
  /** The space whose document `<space>/<key>` is that of the record `<key>`. */
  readonly recordSpace?: string;
  readonly fields: Readonly<Record<string, FieldKind>>;
  /** Fields of the sub-records: dense or sparse. */
  readonly subFields: Readonly<Record<string, Exclude<FieldKind, 'keyed'>>>;
  readonly fold: (events: readonly Interpreted[], context: FoldContext) => Fold;
  /** A document as it is stored: JSON text, a function of the value alone. Keys are without the workspace. Whoever packs many hands over one packer for all of them. */
  readonly pack: (key: string, document: Json, packer?: Packer) => string;
  /** The way back: a value equal to the one that was packed. */
  readonly unpack: (key: string, text: string) => Json;
}

/** Drives a fold against documents that are at hand, e.g. a Map in a test. */
export function runFold(fold: Fold, read: (key: string) => Json): Changes {
  let step = fold.next();
  while (step.done !== true) step = fold.next(new Map(step.value.map((key) => [key, read(key)])));
  return step.value;
}
