// What every rate limiter must do: the same assertions over each adapter. Only the port is used.
import type { RateLimiter } from '../../services/ports.ts';

export interface MadeLimiter {
  /** As another process opens it; where one process has it alone, it is the first again. */
  readonly open: () => Promise<RateLimiter>;
  /** The limiter's clock, to the millisecond. */
  readonly now: () => number;
  /** Resolves once the limiter's clock has gone on by so many milliseconds. */
  readonly passed: (ms: number) => Promise<void>;
  readonly dispose: () => Promise<void>;
}

const MINUTE = 60_000;

interface Hit { readonly before: number; readonly after: number; readonly left: number }

/**
 * Of hits and when each was sent and answered: no stretch of a window holds more than the limit, and none was refused while
 * fewer stood. A hit happened somewhere between the two instants; the clock is read in whole milliseconds.
 */
export function wrongOf(told: readonly Hit[], { hits, windowMs }: { readonly hits: number; readonly windowMs: number }): readonly string[] {
  const admitted = told.filter(({ left }) => left === 0);
  const tooMany = admitted.flatMap((last, i) => {
    const first = admitted[i - hits];
    return first !== undefined && last.after - first.before + 1 < windowMs ? [`${String(hits + 1)} within ${String(last.after - first.before)} ms`] : [];
  });
  const tooFew = told.flatMap((refused, i) => {
    if (refused.left === 0) return [];
    const standing = told.slice(0, i).filter((hit) => hit.left === 0 && hit.after + windowMs + 1 > refused.before);
    return standing.length < hits ? [`refused beside ${String(standing.length)}`] : [];
  });
  return [...tooMany, ...tooFew, ...told.filter(({ left }) => left < 0 || left > windowMs).map(({ left }) => `${String(left)} ms are left`)];
}

export function rateLimiterContract(name: string, make: () => Promise<MadeLimiter>): void {
  describe(`${name}: rate limiter`, () => {
    let made: MadeLimiter;
    let limiter: RateLimiter;
    beforeEach(async () => {
      made = await make();
      limiter = await made.open();
    });
    afterEach(async () => made.dispose());

    const hitOften = async (times: number, key: string, limit: { hits: number; windowMs: number }): Promise<readonly number[]> => {
      const answers: number[] = [];
      for (let i = 0; i < times; i += 1) answers.push(await limiter.hit(key, limit));
      return answers;
    };

    test('as many hits as the limit says are admitted, and each further one is told how long the earliest still counts', async () => {
      const answers = await hitOften(13, 'a', { hits: 10, windowMs: MINUTE });
      expect(answers.slice(0, 10)).toEqual(Array.from({ length: 10 }, () => 0));
      for (const left of answers.slice(10)) {
        expect(left).toBeGreaterThan(0);
        expect(left).toBeLessThanOrEqual(MINUTE);
      }
    });

    test('what was told is so: after that long the next is admitted, and those that were refused meanwhile do not count', async () => {
      const limit = { hits: 3, windowMs: 1000 };
      expect(await hitOften(3, 'a', limit)).toEqual([0, 0, 0]);
      let left = 0;
      for (let i = 0; i < 20 || left === 0; i += 1) left = await limiter.hit('a', limit);
      await made.passed(left);
      expect(await limiter.hit('a', limit)).toBe(0);
    });

    test('a key knows nothing of another, nor of itself under another limit', async () => {
      const limit = { hits: 1, windowMs: MINUTE };
      expect(await hitOften(2, 'a', limit)).toEqual([0, expect.any(Number)]);
      expect(await limiter.hit('b', limit)).toBe(0);
      expect(await limiter.hit('a', { ...limit, hits: 2 })).toBe(0);
      expect(await limiter.hit('a', { ...limit, windowMs: MINUTE / 2 })).toBe(0);
      expect(await limiter.hit('a', limit)).toBeGreaterThan(0);
    });

    test('of a hundred at once, through two that were opened apart, exactly as many are admitted as may be', async () => {
      const other = await made.open();
      const answers = await Promise.all(Array.from({ length: 100 }, (_, i) => (i % 2 === 0 ? limiter : other).hit('a', { hits: 17, windowMs: MINUTE })));
      expect(answers.filter((left) => left === 0)).toHaveLength(17);
    });

    test('over many windows no stretch of one ever holds more than the limit, and none is refused while fewer stand', async () => {
      const limit = { hits: 5, windowMs: 120 };
      const told: Hit[] = [];
      const pauses = [0, 0, 7, 0, 31, 0, 0, 0, 59, 13];
      for (let i = 0; told.filter(({ left }) => left === 0).length < 30; i += 1) {
        const before = made.now();
        const left = await limiter.hit('a', limit);
        told.push({ before, left, after: made.now() });
        await made.passed(pauses[i % pauses.length] ?? 0);
      }
      expect(wrongOf(told, limit)).toEqual([]);
      expect(told.some(({ left }) => left > 0)).toBe(true);
    });
  });
}
