// How often one API key may search: a sliding window of hits. A hit that is refused does not count, and one counts until it
// is exactly a window old. Here are what a limit is, and the limiter of a single process; the one that several api
// processes share is in adapters/redis.ts. Both pass test/contract/rate-limiter.ts.
import type { Clock, RateLimit, RateLimiter } from './ports.ts';

/** `off`: as often as one likes. */
export type RateSetting = RateLimit | 'off';

/** A limiter keeps the time of every hit in the window, some 100 bytes each: at most a megabyte a key. */
export const RATE_HITS_MAX = 10_000;
export const RATE_WINDOW_S_MAX = 86_400;

/** `10/60s`, `600/10m` or `off`; null for anything else, and beyond the bounds. */
export function parseRate(text: string): RateSetting | null {
  if (text === 'off') return 'off';
  const [, hits = '', size = '', unit = ''] = /^(\d{1,5})\/(\d{1,5})([sm])$/.exec(text) ?? [];
  const rate = { hits: Number(hits), windowMs: Number(size) * (unit === 'm' ? 60_000 : 1000) };
  return rate.hits >= 1 && rate.hits <= RATE_HITS_MAX && rate.windowMs >= 1000 && rate.windowMs <= RATE_WINDOW_S_MAX * 1000 ? rate : null;
}
/** What `parseRate` reads back as the same. */
export function printRate(rate: RateSetting): string { return rate === 'off' ? rate : `${String(rate.hits)}/${String(rate.windowMs / 1000)}s`; }

/** Times of the hits of one key: a ring once there are as many as there may be. */
interface Window { readonly times: number[]; /** Index of the earliest, once the ring is full. */ first: number; /** When the last hit leaves. */ endsAt: number }

/** For one process: several count each for itself. */
export class LocalLimiter implements RateLimiter {
  readonly #clock: Clock;
  /** The key hit longest ago comes first. */
  readonly #windows = new Map<string, Window>();

  /** `clock` only ever goes forward. */
  constructor(clock: Clock) { this.#clock = clock; }

  hit(key: string, { hits, windowMs }: RateLimit): Promise<number> {
    const now = this.#clock.now();
    const name = `${key} ${String(hits)}/${String(windowMs)}`;
    const window = this.#windows.get(name) ?? { times: [], first: 0, endsAt: 0 };
    const { times, first } = window;
    const isFull = times.length === hits;
    const left = isFull ? (times[first] ?? 0) + windowMs - now : 0;
    if (left > 0) return Promise.resolve(left);
    times[isFull ? first : times.length] = now;
    if (isFull) window.first = (first + 1) % hits;
    window.endsAt = now + windowMs;
    this.#windows.delete(name);
    this.#windows.set(name, window);
    this.#forget(now);
    return Promise.resolve(0);
  }

  /** How many keys are remembered, for tests. */
  get size(): number { return this.#windows.size; }

  close(): Promise<void> { return Promise.resolve(); }

  /** Of keys that nobody uses any more nothing is kept, at the latest once a key with a longer window has fallen silent too. */
  #forget(now: number): void {
    for (const [name, { endsAt }] of this.#windows) {
      if (endsAt > now) return;
      this.#windows.delete(name);
    }
  }
}
