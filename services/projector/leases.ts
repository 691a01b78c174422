// Who folds which shards, agreed upon by leases in the views: a worker announces itself by a lease of its own, sees by the
// others' how many share the work, and takes and gives back the leases of shards until it has its part. Leases save work;
// that two workers fold one shard for a moment is harmless, since commits are fenced by position.
import { isAborted } from '../lifecycle.ts';
import type { Clock, ViewStore } from '../ports.ts';
import { SHARD_LEASES } from '../shards.ts';

/**
 * How long a lease stands without being renewed. What a worker held that died is taken by another within
 * LEASE_MS + RENEW_MS and one call to the store: 6.5 s, of the 10 s that a takeover may take (design.md, README "Scaling
 * out"); the rest is for opening the views and the subscription.
 */
export const LEASE_MS = 5000;
/** A lease is renewed three times before it would run out: one lost call, or a pause of 3 s, gives nothing away. */
export const RENEW_MS = 1500;

export const WORKERS = 'projector/worker/';
export const SHARDS = SHARD_LEASES;

export interface SharingOptions {
  readonly views: Pick<ViewStore, 'lease' | 'release' | 'leases'>;
  /** This worker, unlike any other there is or was. */
  readonly holder: string;
  /** How many parts the work has: the same for all workers. */
  readonly shards: number;
  readonly clock: Clock;
  /** Resolves after so many milliseconds, or when the signal aborts. */
  readonly sleep: (ms: number, signal?: AbortSignal) => Promise<void>;
  readonly signal: AbortSignal;
  /** The shards that are this worker's from now on, in order. Told when they change, and once at the beginning. */
  readonly onChange: (owned: readonly number[]) => void;
  /** The store did not answer: what is owned stays so until its lease would have run out. */
  readonly onFault?: (fault: unknown) => void;
}

/** Given back in vain for so long, what it had runs out by itself. */
const LEAVE_MS = 1000;

/**
 * Takes part in the sharing until the signal aborts; then gives back what it has. Never rejects. Each turn makes at most
 * 3 + 2 × shards calls to the store, one turn at a time.
 */
export async function shareShards(options: SharingOptions): Promise<void> {
  const { sleep, signal } = options;
  const sharing = new Sharing(options);
  let turn = Promise.resolve();
  while (!signal.aborted) {
    let done = false as boolean;
    turn = sharing.turn().then(() => { done = true; });
    // A call may hang for longer than leases stand: they run out by our own clock, whatever becomes of it.
    do {
      await sleep(Math.min(RENEW_MS, sharing.msLeft()), signal);
      sharing.dropExpired();
    } while (!done && !isAborted(signal));
  }
  const over = new AbortController();
  const left = turn.then(() => sharing.leave()).finally(() => over.abort());
  await Promise.race([left, sleep(LEAVE_MS, over.signal)]);
}

class Sharing {
  readonly #options: SharingOptions;
  /** Shard → when its lease runs out at the earliest: the store counts from when it got the call, we from before we made it. */
  readonly #owned = new Map<number, number>();
  #told: string | null = null;

  constructor(options: SharingOptions) { this.#options = options; }

  async turn(): Promise<void> {
    const { views, holder, shards } = this.#options;
    try {
      // Looks before it announces itself: one whose answers are lost on the way must not count as a worker, with a share that nobody folds.
      const [workers, held] = await this.#look();
      await views.lease(WORKERS + holder, holder, LEASE_MS);
      const share = Math.ceil(shards / Math.max(1, workers));
      await this.#renew();
      await this.#giveBack(share, held);
      await this.#take(share, held);
    } catch (fault) {
      this.#options.onFault?.(fault);
    }
    this.dropExpired();
  }

  /** How many workers there are, and who holds which shard. */
  async #look(): Promise<readonly [workers: number, held: ReadonlyMap<number, string>]> {
    const { views, holder } = this.#options;
    const workers = await views.leases(WORKERS);
    const held = new Map((await views.leases(SHARDS)).map((lease) => [Number(lease.name.slice(SHARDS.length)), lease.holder]));
    return [workers.some((lease) => lease.holder === holder) ? workers.length : workers.length + 1, held];
  }

  async #renew(): Promise<void> {
    const settled = await Promise.allSettled([...this.#owned.keys()].map((shard) => this.#lease(shard)));
    for (const one of settled) if (one.status === 'rejected') throw one.reason;
  }

  /** True when it is ours for another LEASE_MS. */
  async #lease(shard: number): Promise<boolean> {
    const { views, holder, clock } = this.#options;
    const endsMs = clock.now() + LEASE_MS;
    const got = await views.lease(SHARDS + String(shard), holder, LEASE_MS);
    // An answer that took longer than the lease stands says nothing any more.
    if (got && clock.now() < endsMs) this.#owned.set(shard, endsMs);
    else this.#owned.delete(shard);
    return got;
  }

  /** What is above our share, the highest numbers first, and what the store says is ours and we know nothing of (a reply was lost), unless there is room for it. */
  async #giveBack(share: number, held: ReadonlyMap<number, string>): Promise<void> {
    const { views, holder } = this.#options;
    const surplus = this.#shards().slice(share);
    for (const shard of surplus) this.#owned.delete(shard);
    const unknown = this.#owned.size < share ? [] : [...held].filter(([shard, by]) => by === holder && !this.#owned.has(shard)).map(([shard]) => shard);
    // Those who fold are told to stop before another can begin.
    if (surplus.length > 0) this.#tell();
    await Promise.all([...new Set([...surplus, ...unknown])].map((shard) => views.release(SHARDS + String(shard), holder)));
  }

  /** Free ones up to our share, one after the other: whoever asks at the same moment may get one of them first. */
  async #take(share: number, held: ReadonlyMap<number, string>): Promise<void> {
    const { shards, holder, signal } = this.#options;
    for (let shard = 0; shard < shards && this.#owned.size < share && !signal.aborted; shard += 1) {
      const by = held.get(shard);
      if (!this.#owned.has(shard) && (by === undefined || by === holder)) await this.#lease(shard);
    }
    this.#tell();
  }

  /** Until the first lease runs out, by our own clock. */
  msLeft(): number { return Math.max(0, Math.min(...this.#owned.values()) - this.#options.clock.now()); }

  dropExpired(): void {
    const now = this.#options.clock.now();
    for (const [shard, endsMs] of this.#owned) if (endsMs <= now) this.#owned.delete(shard);
    this.#tell();
  }

  /** Gives everything back, so that others need not wait until it runs out. */
  async leave(): Promise<void> {
    const { views, holder } = this.#options;
    const names = this.#shards().map((shard) => SHARDS + String(shard));
    this.#owned.clear();
    this.#tell();
    await Promise.allSettled([...names, WORKERS + holder].map((name) => views.release(name, holder)));
  }

  #shards(): number[] { return [...this.#owned.keys()].sort((a, b) => a - b); }

  #tell(): void {
    const owned = this.#shards();
    if (owned.join() === this.#told) return;
    this.#told = owned.join();
    this.#options.onChange(owned);
  }
}
