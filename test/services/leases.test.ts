// Workers that share shards by leases, in a time of the test's own: nothing waits, and every pause, loss and death is drawn.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { setImmediate } from 'node:timers/promises';
import fc from 'fast-check';
import { MemoryViewStore } from '../../services/adapters/memory-views.ts';
import { openSqliteViewStore } from '../../services/adapters/sqlite-views.ts';
import { OperatingError } from '../../services/errors.ts';
import type { ViewStore } from '../../services/ports.ts';
import { LEASE_MS, RENEW_MS, SHARDS, shareShards, WORKERS } from '../../services/projector/leases.ts';

/** What died is taken over within this; the rest of the 10 s is for opening views and subscription. */
const TAKEOVER_MS = LEASE_MS + RENEW_MS;
/** Time moves on in such steps. */
const STEP_MS = 100;

type Leases = Pick<ViewStore, 'lease' | 'release' | 'leases'>;

/** A time that only `pass` moves on, for clock and sleepers alike. */
class Time {
  #now = 1_000_000;
  readonly #sleepers = new Set<{ readonly atMs: number; readonly wake: () => void }>();

  now(): number { return this.#now; }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const sleeper = { atMs: this.#now + ms, wake: () => { this.#sleepers.delete(sleeper); resolve(); } };
      this.#sleepers.add(sleeper);
      if (signal?.aborted === true) sleeper.wake();
      else signal?.addEventListener('abort', sleeper.wake, { once: true });
    });
  }

  /** Lets everything happen that is due until then. */
  async pass(ms: number, each: () => void = () => undefined): Promise<void> {
    for (const end = this.#now + ms; this.#now < end;) {
      this.#now += STEP_MS;
      for (const sleeper of [...this.#sleepers]) if (sleeper.atMs <= this.#now) sleeper.wake();
      await setImmediate();
      each();
    }
  }
}

class Worker {
  readonly name: string;
  owned: readonly number[] = [];
  changes = 0;
  /** `away`: its calls fail. `unanswered`: they are done, and fail. `hangs`: they never settle while it is so. `dead`: nothing of it happens any more. */
  state: 'well' | 'away' | 'unanswered' | 'hangs' | 'dead' = 'well';
  calls = 0;
  faults = 0;
  readonly ended: Promise<void>;
  readonly #leaving = new AbortController();
  readonly #time: Time;

  constructor(name: string, shards: number, store: Leases, time: Time) {
    this.name = name;
    this.#time = time;
    this.ended = shareShards({
      views: this.#through(store), holder: name, shards, clock: time, sleep: (ms, signal) => this.#sleep(ms, signal), signal: this.#leaving.signal,
      onChange: (owned) => { this.owned = owned; this.changes += 1; },
      onFault: () => { this.faults += 1; },
    });
  }

  get lives(): boolean { return this.state !== 'dead' && !this.#leaving.signal.aborted; }

  async leave(): Promise<void> {
    this.#leaving.abort();
    if (this.state !== 'hangs') await this.ended;
  }

  die(): void { this.state = 'dead'; }

  async #sleep(ms: number, signal?: AbortSignal): Promise<void> {
    await this.#time.sleep(ms, signal);
    if (this.state === 'dead') await never();
  }

  #through(store: Leases): Leases {
    const call = async <T>(work: () => Promise<T>): Promise<T> => {
      this.calls += 1;
      while (this.state === 'hangs') await this.#time.sleep(STEP_MS);
      if (this.state === 'dead') return never();
      if (this.state === 'away') throw new OperatingError('storeUnavailable', 'away');
      const answer = await work();
      if (this.state === 'unanswered') throw new OperatingError('storeUnavailable', 'done, and the answer lost');
      return answer;
    };
    return { lease: (name, holder, ms) => call(() => store.lease(name, holder, ms)), release: (name, holder) => call(() => store.release(name, holder)), leases: (prefix) => call(() => store.leases(prefix)) };
  }
}

function never<T>(): Promise<T> { return new Promise<T>(() => undefined); }

/** Workers on one store, and for how long each shard has had nobody although somebody was there who could have it. */
class World {
  readonly time = new Time();
  readonly store = new MemoryViewStore({ clock: this.time });
  readonly workers: Worker[] = [];
  readonly shards: number;
  readonly #bare: number[];
  /** The longest that any shard was so. */
  barest = 0;

  constructor(shards: number) {
    this.shards = shards;
    this.#bare = Array.from({ length: shards }, () => 0);
  }

  join(): Worker {
    const worker = new Worker(`w${this.workers.length}`, this.shards, this.store, this.time);
    this.workers.push(worker);
    return worker;
  }

  get living(): Worker[] { return this.workers.filter(({ lives }) => lives); }

  async pass(ms: number): Promise<void> {
    await this.time.pass(ms, () => {
      const reachable = this.living.some(({ state }) => state === 'well');
      this.#bare.forEach((bare, shard) => {
        const now = !reachable || this.living.some(({ owned }) => owned.includes(shard)) ? 0 : bare + STEP_MS;
        this.#bare[shard] = now;
        this.barest = Math.max(this.barest, now);
      });
    });
  }

  /** How many workers have each shard. */
  holders(): number[] { return Array.from({ length: this.shards }, (_, shard) => this.living.filter(({ owned }) => owned.includes(shard)).length); }

  async end(): Promise<void> {
    for (const worker of this.living) {
      worker.state = 'well';
      const left = worker.leave();
      await this.time.pass(2 * STEP_MS);
      await left;
    }
  }
}

const sizes = (workers: readonly Worker[]): number[] => workers.map(({ owned }) => owned.length).sort((a, b) => b - a);

describe('workers that share shards', () => {
  test('one alone has all of them, from its first turn on', async () => {
    const world = new World(4);
    const only = world.join();
    await world.pass(STEP_MS);
    expect(only.owned).toEqual([0, 1, 2, 3]);
    await world.end();
  });

  test('another that comes gets its share, and a third too, within two turns', async () => {
    const world = new World(8);
    world.join();
    await world.pass(5000);
    world.join();
    await world.pass(2 * RENEW_MS);
    expect(sizes(world.workers)).toEqual([4, 4]);
    world.join();
    await world.pass(2 * RENEW_MS);
    expect(sizes(world.workers)).toEqual([3, 3, 2]);
    expect(world.holders()).toEqual(Array.from({ length: 8 }, () => 1));
    expect(world.barest).toBeLessThanOrEqual(RENEW_MS);
    await world.end();
  });

  test('with one shard and two workers the second stands by, and takes over from the first when that dies', async () => {
    const world = new World(1);
    const [first, second] = [world.join(), world.join()];
    await world.pass(30_000);
    expect([first.owned, second.owned]).toEqual([[0], []]);
    expect([first.changes, second.changes]).toEqual([1, 1]);
    first.die();
    await world.pass(TAKEOVER_MS + STEP_MS);
    expect(second.owned).toEqual([0]);
    expect(world.barest).toBeLessThan(10_000);
    await world.end();
  });

  test('one that leaves gives everything back, and nobody waits until it runs out', async () => {
    const world = new World(4);
    const [first, second] = [world.join(), world.join()];
    await world.pass(2 * RENEW_MS);
    await first.leave();
    expect(first.owned).toEqual([]);
    expect((await world.store.leases('')).map(({ holder }) => holder)).not.toContain(first.name);
    await world.pass(RENEW_MS + STEP_MS);
    expect(second.owned).toEqual([0, 1, 2, 3]);
    await world.end();
    expect(await world.store.leases('')).toEqual([]);
  });

  test.each(['away', 'hangs'] as const)('while the store %s it keeps what it has as long as its leases stand, then has none, and gets them back', async (state) => {
    const world = new World(3);
    const only = world.join();
    await world.pass(10 * RENEW_MS);
    only.state = state;
    await world.pass(LEASE_MS - RENEW_MS - STEP_MS);
    expect(only.owned).toEqual([0, 1, 2]);
    await world.pass(RENEW_MS + 2 * STEP_MS);
    expect(only.owned).toEqual([]);
    await world.pass(60_000);
    // A call that hangs is waited for, not heaped upon.
    if (state === 'hangs') expect(only.calls).toBeLessThan(80);
    else expect(only.faults).toBeGreaterThan(30);
    only.state = 'well';
    await world.pass(RENEW_MS + 2 * STEP_MS);
    expect(only.owned).toEqual([0, 1, 2]);
    await world.end();
  });

  test('a call that is done and whose answer is lost leaves no shard without a worker', async () => {
    const world = new World(2);
    const first = world.join();
    first.state = 'unanswered';
    await world.pass(4 * RENEW_MS);
    expect(first.owned).toEqual([]);
    first.state = 'well';
    await world.pass(RENEW_MS + STEP_MS);
    expect(first.owned).toEqual([0, 1]);
    await world.end();
  });

  test('one whose answers are all lost does not count: the others take its share', async () => {
    const world = new World(4);
    const [first, second] = [world.join(), world.join()];
    await world.pass(4 * RENEW_MS);
    first.state = 'unanswered';
    await world.pass(60_000);
    expect([first.owned, second.owned]).toEqual([[], [0, 1, 2, 3]]);
    expect(world.barest).toBeLessThanOrEqual(TAKEOVER_MS + STEP_MS);
    await world.end();
  });

  test('one that is told to end while its call hangs ends all the same', async () => {
    const world = new World(2);
    const only = world.join();
    await world.pass(RENEW_MS);
    only.state = 'hangs';
    await world.pass(2 * RENEW_MS);
    const left = only.leave();
    await left;
    const ended = only.ended.then(() => true);
    await world.time.pass(1200);
    expect(await Promise.race([ended, setImmediate(false)])).toBe(true);
    only.die();
  });

  test('a turn makes a bounded number of calls', async () => {
    const world = new World(16);
    const only = world.join();
    await world.pass(STEP_MS);
    expect(only.calls).toBeLessThanOrEqual(3 + 16);
    const before = only.calls;
    await world.pass(10 * RENEW_MS);
    expect(only.calls - before).toBeLessThanOrEqual(10 * (3 + 16));
    await world.end();
  });

  test('their leases say who does what', async () => {
    const world = new World(2);
    world.join();
    world.join();
    await world.pass(3 * RENEW_MS);
    expect((await world.store.leases(WORKERS)).map(({ name }) => name)).toEqual([`${WORKERS}w0`, `${WORKERS}w1`]);
    expect((await world.store.leases(SHARDS)).map(({ name, holder }) => `${name} ${holder}`).sort()).toEqual([`${SHARDS}0 w0`, `${SHARDS}1 w1`]);
    await world.end();
  });
});

describe('whoever comes, goes, dies or is cut off', () => {
  type Act = { readonly kind: 'join' | 'leave' | 'die' | 'away' | 'unanswered' | 'hangs' | 'well'; readonly who: number; readonly ms: number };
  const act: fc.Arbitrary<Act> = fc.record({
    kind: fc.constantFrom('join', 'join', 'leave', 'die', 'away', 'unanswered', 'hangs', 'well'), who: fc.nat({ max: 5 }), ms: fc.integer({ min: 0, max: 80 }).map((steps) => steps * STEP_MS),
  });

  async function perform(world: World, { kind, who, ms }: Act): Promise<void> {
    const [worker] = world.living.slice(who % Math.max(1, world.living.length));
    switch (kind) {
      case 'join': if (world.living.length < 6) world.join(); break;
      case 'leave': if (worker !== undefined) void worker.leave(); break;
      case 'die': worker?.die(); break;
      default: if (worker !== undefined) worker.state = kind;
    }
    await world.pass(ms);
  }

  test('no shard is without a worker for longer than a takeover takes; afterwards each has one, none has more than its share, and nothing moves any more', async () => {
    await fc.assert(fc.asyncProperty(fc.integer({ min: 1, max: 9 }), fc.array(act, { minLength: 1, maxLength: 10 }), async (shards, acts) => {
      const world = new World(shards);
      world.join();
      for (const one of acts) await perform(world, one);
      // Twice, since what takes over may itself fail before it has.
      expect(world.barest).toBeLessThanOrEqual(2 * TAKEOVER_MS);
      for (const worker of world.living) worker.state = 'well';
      if (world.living.length === 0) world.join();
      await world.pass(LEASE_MS + 4 * RENEW_MS);
      const changes = world.living.map((worker) => worker.changes);
      await world.pass(10 * RENEW_MS);
      expect(world.holders()).toEqual(Array.from({ length: shards }, () => 1));
      expect(Math.max(...sizes(world.living))).toBeLessThanOrEqual(Math.ceil(shards / world.living.length));
      expect(world.living.map((worker) => worker.changes)).toEqual(changes);
      await world.end();
    }), { numRuns: 60 });
  });
});

test('a folder made before there were leases gets them, and keeps what it counted', async () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'throughline-leases-'));
  try {
    const tally = { workspace: 'acme', source: 's', recorded: 3, duplicates: 0, reusedIds: 0, rejected: {}, lateness: {}, lastSeen: '2026-03-02T09:00:00.000Z' };
    const made = await openSqliteViewStore({ folder });
    await made.addTallies([tally]);
    await made.close();
    const control = new DatabaseSync(path.join(folder, 'views', 'control.sqlite'));
    control.exec('DROP TABLE leases');
    control.close();
    for (const holder of ['a', 'b']) {
      const store = await openSqliteViewStore({ folder });
      expect(await store.lease('shard/0', holder, 60_000)).toBe(holder === 'a');
      expect(await store.leases('')).toEqual([{ name: 'shard/0', holder: 'a' }]);
      expect(await store.tallies('acme')).toEqual([tally]);
      await store.close();
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
});
