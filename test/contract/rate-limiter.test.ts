// The contract of the rate limiter over each of its adapters, and what each does beside it: how much is kept, and on Redis
// what a lost reply, a full memory, a clock that was set back and a server that is away come to.
import fc from 'fast-check';
import { openRedisLimiter, type RedisPlace } from '../../services/adapters/redis.ts';
import { sleep } from '../../services/lifecycle.ts';
import type { RateLimit, RateLimiter } from '../../services/ports.ts';
import { LocalLimiter, parseRate, printRate, RATE_HITS_MAX, type RateSetting } from '../../services/rate-limit.ts';
import { describeOn } from '../support/local-server.ts';
import { startProxy } from '../support/proxy.ts';
import { redisPlace, type RedisServer, startRedis, startRedisCluster } from '../support/redis-server.ts';
import { until } from '../support/serve.ts';
import { type MadeLimiter, rateLimiterContract, wrongOf } from './rate-limiter.ts';

rateLimiterContract('in one process', async () => {
  let now = 1000;
  const limiter = new LocalLimiter({ now: () => now });
  return { open: async () => limiter, now: () => now, passed: async (ms) => { now += ms; }, dispose: async () => limiter.close() };
});

function onRedis(place: () => RedisPlace, nodes: () => readonly RedisServer[]): () => Promise<MadeLimiter> {
  return async () => {
    const opened: RateLimiter[] = [];
    return {
      open: async () => {
        const limiter = await openRedisLimiter(place());
        opened.push(limiter);
        return limiter;
      },
      now: Date.now,
      // Redis keeps its own time: what a test says must pass has to pass.
      passed: async (ms) => {
        const until = Date.now() + ms;
        while (Date.now() <= until) await sleep(until + 1 - Date.now());
      },
      dispose: async () => {
        for (const limiter of opened) await limiter.close();
        for (const node of nodes()) node.say('flushall');
      },
    };
  };
}

describe('in one process', () => {
  const limits: readonly RateLimit[] = [{ hits: 1, windowMs: 1000 }, { hits: 3, windowMs: 1000 }, { hits: 4, windowMs: 2500 }];

  test('whatever comes when, it answers as a list of all hits would', async () => {
    const step = fc.record({ passed: fc.integer({ min: 0, max: 900 }), key: fc.constantFrom('a', 'b'), limit: fc.constantFrom(...limits) });
    await fc.assert(fc.asyncProperty(fc.array(step, { maxLength: 80 }), async (steps) => {
      let now = 0;
      const limiter = new LocalLimiter({ now: () => now });
      const all = new Map<string, number[]>();
      for (const { passed, key, limit } of steps) {
        now += passed;
        const name = JSON.stringify([key, limit]);
        const standing = (all.get(name) ?? []).filter((at) => at + limit.windowMs > now);
        const expected = standing.length < limit.hits ? 0 : (standing[standing.length - limit.hits] ?? 0) + limit.windowMs - now;
        if (expected === 0) all.set(name, [...standing, now]);
        expect(await limiter.hit(key, limit)).toBe(expected);
      }
    }), { seed: 7, numRuns: 300 });
  });

  test('ten at once: the eleventh is admitted in the very millisecond in which the first is a window old', async () => {
    let now = 0;
    const limiter = new LocalLimiter({ now: () => now });
    const limit = { hits: 10, windowMs: 60_000 };
    for (let i = 0; i < 10; i += 1) expect(await limiter.hit('a', limit)).toBe(0);
    now = 59_999;
    expect(await limiter.hit('a', limit)).toBe(1);
    now = 60_000;
    expect(await limiter.hit('a', limit)).toBe(0);
  });

  test('nothing is kept of keys that have fallen silent', async () => {
    let now = 0;
    const limiter = new LocalLimiter({ now: () => now });
    for (let i = 0; i < 500; i += 1) await limiter.hit(`key-${String(i)}`, { hits: 2, windowMs: 1000 });
    expect(limiter.size).toBe(500);
    now = 1000;
    await limiter.hit('another', { hits: 2, windowMs: 1000 });
    expect(limiter.size).toBe(1);
  });

  test('the check of the contract itself finds one too many and one too few', () => {
    const limit = { hits: 2, windowMs: 100 };
    const at = (ms: number, left: number) => ({ before: ms, after: ms, left });
    expect(wrongOf([at(0, 0), at(10, 0), at(50, 0)], limit)).toEqual(['3 within 50 ms']);
    expect(wrongOf([at(0, 0), at(10, 50)], limit)).toEqual(['refused beside 1']);
    expect(wrongOf([at(0, 0), at(10, 0), at(20, 81)], limit)).toEqual([]);
  });
});

describe('a rate limit as text', () => {
  test.each<[string, RateSetting | null]>([
    ['10/60s', { hits: 10, windowMs: 60_000 }], ['600/10m', { hits: 600, windowMs: 600_000 }], ['1/1s', { hits: 1, windowMs: 1000 }], ['off', 'off'],
    [`${String(RATE_HITS_MAX)}/86400s`, { hits: RATE_HITS_MAX, windowMs: 86_400_000 }],
    ['0/60s', null], ['10/0s', null], ['10/60', null], ['10', null], ['ten/60s', null], ['10/60h', null], ['-1/60s', null], ['1.5/60s', null], ['10/60s ', null], ['OFF', null], ['', null],
    [`${String(RATE_HITS_MAX + 1)}/60s`, null], ['10/86401s', null], ['10/1441m', null],
  ])('%j', (text, expected) => {
    const parsed = parseRate(text);
    expect(parsed).toEqual(expected);
    if (parsed !== null) expect(parseRate(printRate(parsed))).toEqual(parsed);
  });
});

describeOn(['redis'], 'on a Redis', () => {
  let server: RedisServer;
  beforeAll(async () => { server = await startRedis(); });
  afterAll(async () => server.stop());
  rateLimiterContract('Redis', onRedis(() => redisPlace(server), () => [server]));

  const LIMIT = { hits: 3, windowMs: 60_000 };
  const NAME = '{tl:rate:0a1b2c}3/60000';
  describe('Redis', () => {
    let limiter: RateLimiter;
    beforeEach(async () => { limiter = await openRedisLimiter(redisPlace(server)); });
    afterEach(async () => {
      await limiter.close();
      server.say('config', 'set', 'maxmemory', '0');
      server.say('flushall');
    });
    /** As if this many hits had been made so many milliseconds from now, by the server's clock. */
    const hitAt = (ms: number, times: number): void => {
      const [seconds] = server.say('time');
      for (let i = 0; i < times; i += 1) server.say('zadd', NAME, String((Number(seconds) * 1000 + ms) * 1000 + i), `made-${String(i)}`);
    };

    test('keeps no more than the limit says, under a name of prefix, key and limit alone, and nothing once a window has passed', async () => {
      for (let i = 0; i < 10; i += 1) await limiter.hit('0a1b2c', LIMIT);
      expect(server.say('keys', '*')).toEqual([NAME]);
      expect(server.say('zcard', NAME)).toEqual(['3']);
      const [left] = server.say('pttl', NAME);
      expect(Number(left)).toBeGreaterThan(0);
      expect(Number(left)).toBeLessThanOrEqual(60_000);
    });

    test('the earliest goes for each that comes', async () => {
      hitAt(-61_000, 3);
      expect([await limiter.hit('0a1b2c', LIMIT), await limiter.hit('0a1b2c', LIMIT)]).toEqual([0, 0]);
      expect(server.say('zcard', NAME)).toEqual(['3']);
      expect(server.say('zrange', NAME, '0', '0')).toEqual(['made-2']);
    });

    test('a clock that was set back a little lets none leave early; set back by more than a window, it starts anew', async () => {
      hitAt(30_000, 3);
      expect(await limiter.hit('0a1b2c', LIMIT)).toBeGreaterThan(59_000);
      server.say('flushall');
      hitAt(3_600_000, 3);
      expect([await limiter.hit('0a1b2c', LIMIT), await limiter.hit('0a1b2c', LIMIT), await limiter.hit('0a1b2c', LIMIT)]).toEqual([0, 0, 0]);
      const left = await limiter.hit('0a1b2c', LIMIT);
      expect(left).toBeGreaterThan(0);
      expect(left).toBeLessThanOrEqual(60_000);
    });

    test('with its memory full it counts as before, since searches are still answered then', async () => {
      server.say('config', 'set', 'maxmemory', '1');
      expect(server.say('set', 'x', 'y').join()).toMatch(/^OOM|error/i);
      const answers: number[] = [];
      for (let i = 0; i < 4; i += 1) answers.push(await limiter.hit('0a1b2c', LIMIT));
      expect(answers.slice(0, 3)).toEqual([0, 0, 0]);
      expect(answers[3]).toBeGreaterThan(0);
    });

    test('a hit whose reply is lost, and which is therefore sent again, counts once', async () => {
      const proxy = await startProxy({ port: server.port });
      const through = await openRedisLimiter(redisPlace(proxy));
      try {
        expect(await through.hit('0a1b2c', LIMIT)).toBe(0);
        proxy.set({ kind: 'mute' });
        const lost = through.hit('0a1b2c', LIMIT);
        await until('it is counted, and its reply swallowed', () => server.say('zcard', NAME)[0] === '2' && proxy.carried().swallowed > 0);
        proxy.set({ kind: 'pass' });
        expect(await lost).toBe(0);
        expect(server.say('zcard', NAME)).toEqual(['2']);
      } finally {
        await through.close();
        await proxy.close();
      }
    });
  });

  test('one that is away is a fault that may pass, and is asked again once it is back', async () => {
    const proxy = await startProxy({ port: server.port });
    const limiter = await openRedisLimiter(redisPlace(proxy));
    try {
      proxy.set({ kind: 'refuse' });
      proxy.cut();
      await expect(limiter.hit('a', LIMIT)).rejects.toMatchObject({ code: 'storeUnavailable', retriable: true });
      proxy.set({ kind: 'pass' });
      await until('it answers again', () => limiter.hit('b', LIMIT).then((left) => left === 0, () => false));
    } finally {
      await limiter.close();
      await proxy.close();
    }
    await expect(openRedisLimiter(redisPlace({ port: proxy.port }))).rejects.toMatchObject({ code: 'storeUnavailable' });
  });
});

describeOn(['redis'], 'on a Redis Cluster', () => {
  let cluster: Awaited<ReturnType<typeof startRedisCluster>>;
  beforeAll(async () => { cluster = await startRedisCluster(); });
  afterAll(async () => cluster.stop());
  rateLimiterContract('Redis Cluster', onRedis(() => cluster.place, () => cluster.nodes));
});
