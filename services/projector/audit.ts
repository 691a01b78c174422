// The audit: what answers is folded anew from the log, journey by journey and person by person, all day long, so that
// everything has been looked at once in a round (a day, where nothing else is said). It finds what nothing else would: a
// text that was changed where it lies, an index page that a disk lost, a fold that was not the same twice.
import type { WorkspaceKeys } from '../../schemas/identity.ts';
import { OperatingError } from '../errors.ts';
import { isStale, liveOf } from '../generations.ts';
import { isAborted } from '../lifecycle.ts';
import type { EventStore, Generation, View, ViewStore } from '../ports.ts';
import { digestText, DocumentHasher } from './digest.ts';
import { verifyJourney, verifyPerson, type Verified } from './verify.ts';

export interface AuditOptions {
  readonly events: EventStore;
  readonly views: ViewStore;
  readonly keysOf: (workspace: string) => Promise<WorkspaceKeys>;
  /** The shards that this worker folds now, and of how many parts (as the projector has them): what others fold, they look at. */
  readonly owned: () => readonly number[] | 'all';
  readonly parts: number;
  /** Milliseconds in which everything is looked at once. */
  readonly roundMs: number;
  /** Resolves after so many milliseconds, or when the signal aborts. */
  readonly wait: (ms: number, signal: AbortSignal) => Promise<void>;
  readonly signal: AbortSignal;
  readonly onChecked: (told: Audited) => void;
  /** A store that is away: the round goes on when it is back. */
  readonly onFault: (fault: OperatingError) => void;
}
/** One that was looked at. Hashes of both texts stand for a difference: a log line holds nothing of a customer. */
export interface Audited { readonly kind: Verified['kind']; readonly differences: readonly { readonly key: string; readonly live: string | null; readonly built: string | null }[] }

const GROUPS = ['journeys', 'persons'] as const;
const PAGE = 100;
/** Five a second at most, some 5 % of a thread at 10 ms each: where there is more than 430,000 to look at, a round takes longer than a day. */
const PAUSE_MIN_MS = 200;
/** Between rounds, or while there is nothing to look at. */
const REST_MS = 60_000;

export async function audit(options: AuditOptions): Promise<void> {
  const { signal, wait, onFault } = options;
  while (!isAborted(signal)) {
    try {
      if (!(await round(options))) await wait(REST_MS, signal);
    } catch (fault) {
      if (!(fault instanceof OperatingError)) throw fault;
      onFault(fault);
      await wait(REST_MS, signal);
    }
  }
}

/** False when there was nothing to look at. */
async function round(options: AuditOptions): Promise<boolean> {
  const { views, roundMs, signal } = options;
  const shards: { readonly generation: Generation; readonly view: View }[] = [];
  let subjects = 0;
  for (const group of GROUPS) {
    const generation = await liveOf(views, group);
    if (generation === null || isStale(generation)) continue;
    for (const shard of ownedOf(options, generation)) {
      const view = await views.view(group, generation.id, shard);
      const { documents, records } = await view.stats();
      shards.push({ generation, view });
      // Of a person: itself, its identities, and what points to it.
      subjects += group === 'journeys' ? records : documents / 2;
    }
  }
  const pauseMs = Math.max(PAUSE_MIN_MS, roundMs / Math.max(1, subjects));
  let looked = 0;
  for (const { view } of shards) {
    let next: string | null = null;
    do {
      const page = await view.walk(next, PAGE);
      for (const { key } of page.documents) {
        if (isAborted(signal) || !ownedOf(options, view.generation).includes(view.shard)) return looked > 0;
        if (await check(options, view, key)) {
          looked += 1;
          await options.wait(pauseMs, signal);
        }
      }
      next = page.next;
    } while (next !== null);
  }
  return looked > 0;
}

function ownedOf({ owned, parts }: AuditOptions, { shards }: Generation): readonly number[] {
  const ours = owned();
  return Array.from({ length: shards }, (_, shard) => shard).filter((shard) => ours === 'all' || ours.includes(shard % parts));
}

/** Whether the document is one that is looked at. */
async function check({ events, keysOf, onChecked }: AuditOptions, view: View, document: string): Promise<boolean> {
  const [workspace = '', space, key = ''] = document.split('/');
  if (space !== 'j' && space !== 'p') return false;
  const context = { events, view, keys: await keysOf(workspace) };
  const verified = space === 'j' ? await verifyJourney(context, key) : await verifyPerson(context, key);
  onChecked({ kind: verified.kind, differences: verified.kind === 'checked' ? verified.differences.map((one) => ({ key: one.key, live: hashOf(one.key, one.live), built: hashOf(one.key, one.built) })) : [] });
  return true;
}

function hashOf(key: string, text: string | null): string | null { return text === null ? null : digestText(new DocumentHasher().hash(key, text)); }
