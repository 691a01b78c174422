// A generation that is built beside the live one, compared with it: digests at one position of each shard, and documents
// where those differ.
import { OperatingError } from '../errors.ts';
import type { Generation, Position, View, ViewStore } from '../ports.ts';
import { positionsOf } from '../generations.ts';
import type { Builder } from './builder.ts';

/** One document, as the live generation has it and as it was folded now; null: not there. */
export interface Difference { readonly key: string; readonly live: string | null; readonly built: string | null }
export interface Compared {
  readonly equal: boolean;
  /** Whether every document was looked at, or where digests agree none. */
  readonly whole: boolean;
  /** The first of them; none where digests alone differ, which were then moved wrongly. */
  readonly differences: readonly Difference[];
  /** Whether there are more. */
  readonly more: boolean;
}

export interface CompareOptions {
  readonly views: ViewStore;
  readonly live: Generation;
  readonly builder: Builder;
  /** Looks at every document, also where digests agree: a text that was changed where it lies moved none. */
  readonly everyDocument?: boolean;
  /** Folds each shard of the builder to its position; null leaves it where it is. */
  readonly foldTo: (positions: readonly (Position | null)[]) => Promise<void>;
  /** Resolves after so many milliseconds, or when the signal aborts. */
  readonly wait: (ms: number, signal: AbortSignal) => Promise<void>;
  readonly signal: AbortSignal;
}

/** Documents looked at together, and how many that differ are told. */
const PAGE = 256;
const TOLD_MAX = 20;
/** Documents that seem to differ while one of the two moves, looked at again together. */
const SUSPECTS_MAX = 256;
/** Looks at what is committed to all the time. */
const TRIES_MAX = 50;
const AGAIN_MS = 100;

/** Shard by shard, each where the live one was found. */
export async function compare(options: CompareOptions): Promise<Compared> {
  const { views, live, builder } = options;
  const differences: Difference[] = [];
  let equal = true;
  let more = false;
  for (let shard = 0; shard < live.shards; shard += 1) {
    const view = await views.view(live.group, live.id, shard);
    const { position, digest } = await standing(view);
    await foldShard(options, shard, position);
    const isSame = digest === await builder.view(shard).digest();
    if (isSame && options.everyDocument !== true) continue;
    const found = await differencesOf(options, view);
    if (isSame && found.length === 0) continue;
    equal = false;
    more ||= differences.length + found.length > TOLD_MAX;
    differences.push(...found.slice(0, TOLD_MAX - differences.length));
  }
  return { equal, whole: options.everyDocument === true, differences, more };
}

/** The others go along as far as the live one has come, so that what is read for one is not kept for them. */
async function foldShard({ views, live, foldTo }: CompareOptions, shard: number, position: Position | null): Promise<void> {
  await foldTo((await positionsOf(views, live)).map((stands, one) => (one === shard ? position : stands)));
}

/**
 * The live one moves on meanwhile, so that by and by what changed since seems to differ: it is looked at again, some at a
 * time, where both stand at one position, and the walk goes on to the end, or until there is more than is told.
 */
async function differencesOf(options: CompareOptions, view: View): Promise<readonly Difference[]> {
  const built = options.builder.view(view.shard);
  const [found, seen] = [new Map<string, Difference>(), new Set<string>()];
  let suspects: string[] = [];
  const settle = async (): Promise<void> => {
    for (const one of suspects.length === 0 ? [] : await settled(options, view, suspects)) found.set(one.key, one);
    suspects = [];
  };
  for (const [from, to] of [[view, built], [built, view]] as const) {
    for await (const key of differing(from, to)) {
      if (options.signal.aborted || found.size > TOLD_MAX) return [...found.values()];
      // Equal at one position is folded rightly, however it seems to the second walk.
      if (seen.has(key)) continue;
      seen.add(key);
      if (suspects.push(key) === SUSPECTS_MAX) await settle();
    }
  }
  await settle();
  return [...found.values()];
}

/** Those of them that differ where both stand at one position. Throws where the live one never stood still for a look, since nobody could tell then. */
async function settled(options: CompareOptions, view: View, suspects: readonly string[]): Promise<readonly Difference[]> {
  const { builder, wait, signal } = options;
  for (let tries = 0; tries < TRIES_MAX && !signal.aborted; tries += 1) {
    const position = await view.position();
    const texts = await view.load(suspects);
    // A commit came between: what was read is of no one position.
    if (await view.position() !== position) {
      await wait(AGAIN_MS, signal);
      continue;
    }
    await foldShard(options, view.shard, position);
    const ours = await builder.view(view.shard).load(suspects);
    return suspects.map((key, i): Difference => ({ key, live: texts[i] ?? null, built: ours[i] ?? null })).filter((one) => one.live !== one.built);
  }
  if (signal.aborted) return [];
  throw new OperatingError('storeBusy', 'the live generation is committed to so often that it could not be compared: try again when less comes in');
}

/** Position and digest of one commit. */
async function standing(view: View): Promise<{ readonly position: Position | null; readonly digest: string }> {
  for (;;) {
    const position = await view.position();
    const digest = await view.digest();
    if (await view.position() === position) return { position, digest };
  }
}

/** Keys of documents of the one that the other has otherwise, or not at all, as each stands when it is looked at. */
async function* differing(one: View, other: View): AsyncGenerator<string> {
  let next: string | null = null;
  do {
    const page = await one.walk(next, PAGE);
    const texts = await other.load(page.documents.map(({ key }) => key));
    for (const [i, { key, value }] of page.documents.entries()) if (texts[i] !== value) yield key;
    next = page.next;
  } while (next !== null);
}
