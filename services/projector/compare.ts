// A generation that is built beside the live one, compared with it: digests at one position of each shard, and documents
// where those differ.
import type { Generation, Position, View, ViewStore } from '../ports.ts';
import { positionsOf } from '../generations.ts';
import type { Builder } from './builder.ts';

/** One document, as the live generation has it and as it was folded now; null: not there. */
export interface Difference { readonly key: string; readonly live: string | null; readonly built: string | null }
export interface Compared {
  readonly equal: boolean;
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
/** Documents that differ while both move: looked at again where they stand at one position. */
const SUSPECTS_MAX = 200;
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
  return { equal, differences, more };
}

/** The others go along as far as the live one has come, so that what is read for one is not kept for them. */
async function foldShard({ views, live, foldTo }: CompareOptions, shard: number, position: Position | null): Promise<void> {
  await foldTo((await positionsOf(views, live)).map((stands, one) => (one === shard ? position : stands)));
}

/** The live one moves on meanwhile: what seems to differ is looked at again where both stand at one position. */
async function differencesOf(options: CompareOptions, view: View): Promise<readonly Difference[]> {
  const { builder, wait, signal } = options;
  const suspects = await suspectsOf(view, builder.view(view.shard));
  if (suspects.length === 0) return [];
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
  return [];
}

/** Position and digest of one commit. */
async function standing(view: View): Promise<{ readonly position: Position | null; readonly digest: string }> {
  for (;;) {
    const position = await view.position();
    const digest = await view.digest();
    if (await view.position() === position) return { position, digest };
  }
}

/** Keys of documents that are not the same in both, some of them. */
async function suspectsOf(one: View, other: View): Promise<string[]> {
  const suspects = new Set<string>();
  for (const [from, to] of [[one, other], [other, one]] as const) {
    let next: string | null = null;
    do {
      const page = await from.walk(next, PAGE);
      const texts = await to.load(page.documents.map(({ key }) => key));
      page.documents.forEach(({ key, value }, i) => { if (texts[i] !== value) suspects.add(key); });
      next = page.next;
    } while (next !== null && suspects.size < SUSPECTS_MAX);
  }
  return [...suspects];
}
