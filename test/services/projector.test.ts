// The projector between an event store and a view store that fail, and the work that it does as events grow.
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setImmediate, setTimeout as pause } from 'node:timers/promises';
import fc from 'fast-check';
import { journeys } from '../../projections/journeys.ts';
import { persons } from '../../projections/persons.ts';
import type { Projection } from '../../projections/projection.ts';
import type { CustomerFactBody, InteractionFactBody, Interpreted } from '../../schemas/facts.ts';
import type { WorkspaceKeys } from '../../schemas/identity.ts';
import { MemoryEventStore } from '../../services/adapters/memory-events.ts';
import { MemoryViewStore } from '../../services/adapters/memory-views.ts';
import { openSqliteEventStore } from '../../services/adapters/sqlite-events.ts';
import { Door } from '../../services/door.ts';
import { OperatingError } from '../../services/errors.ts';
import type { Commit, CommitResult, EventStore, View, ViewStore } from '../../services/ports.ts';
import { addHash, type Digest, digestText, DocumentHasher, EMPTY_DIGEST } from '../../services/projector/digest.ts';
import { BATCH_CUT_MAX, FOLD_MS_MAX, Pace } from '../../services/projector/intake.ts';
import type { GroupProgress, ProjectorOptions } from '../../services/projector/projector.ts';
import { type Arrival, CacheRoom, Target } from '../../services/projector/target.ts';
import { startProjectorThread } from '../../services/projector/thread.ts';
import { shardOf } from '../../services/shards.ts';
import { Workspaces } from '../../services/workspaces.ts';
import { arbitraryArrival, arbitraryEvents, CONTEXT, event, second } from '../support/facts.ts';
import { ADAPTERS, freshFold, keysFor, keysOf, liveView, MANY, position, project, PROJECTIONS, recorded, ROOM, targetOf, targetOn } from '../support/folds.ts';
import { through, throughStore } from '../support/views.ts';
import { seeded } from '../support/seeded.ts';

// ---- stores, and what may happen to them -----------------------------------------------------------------------------

/** What becomes of a call: nothing of it is done; it is done and its answer is lost; a promotion holds the shard. */
type Mishap = 'lost' | 'unanswered' | 'held';

/** Lets every call through, but for those that the plan names by their number. */
class Mishaps {
  readonly #plan: ReadonlyMap<number, Mishap>;
  calls = 0;
  met = 0;
  readonly results: CommitResult['kind'][] = [];
  /** Every key that was ever committed, by group. */
  readonly keys = new Map<string, Set<string>>();

  constructor(plan: ReadonlyMap<number, Mishap>) { this.#plan = plan; }

  async call<T>(work: () => Promise<T>): Promise<T> {
    const mishap = this.#next();
    if (mishap === 'lost' || mishap === 'held') throw new OperatingError('storeUnavailable', 'lost before it was done');
    const result = await work();
    if (mishap === 'unanswered') throw new OperatingError('storeBusy', 'done, and the answer lost');
    return result;
  }

  async commit(view: View, commit: Commit): Promise<CommitResult> {
    const mishap = this.#next();
    if (mishap === 'held') return { kind: 'held' };
    if (mishap === 'lost') throw new OperatingError('storeUnavailable', 'a commit lost before it was done');
    const known = this.keys.get(view.generation.group) ?? new Set<string>();
    this.keys.set(view.generation.group, known);
    for (const key of commit.documents.keys()) known.add(key);
    const result = await view.commit(commit);
    this.results.push(result.kind);
    if (mishap === 'unanswered') throw new OperatingError('storeBusy', 'a commit done, and the answer lost');
    return result;
  }

  store(inner: ViewStore): ViewStore {
    return {
      generations: (group) => this.call(() => inner.generations(group)), live: (group) => this.call(() => inner.live(group)),
      previous: (group) => this.call(() => inner.previous(group)),
      seen: (group, version) => this.call(() => inner.seen(group, version)),
      createGeneration: (generation) => this.call(() => inner.createGeneration(generation)), promote: (group, from, to, hold) => this.call(() => inner.promote(group, from, to, hold)),
      hold: (group) => this.call(() => inner.hold(group)), free: () => inner.free(),
      dropGeneration: (group, id) => inner.dropGeneration(group, id), view: (group, generation, shard) => this.call(async () => this.#view(await inner.view(group, generation, shard))),
      lease: (name, holder, ms) => inner.lease(name, holder, ms), release: (name, holder) => inner.release(name, holder), leases: (prefix) => inner.leases(prefix),
      addTallies: (tallies) => inner.addTallies(tallies), tallies: (workspace) => inner.tallies(workspace), close: () => inner.close(),
    };
  }

  #view(inner: View): View {
    return through(inner, { position: () => this.call(() => inner.position()), digest: () => this.call(() => inner.digest()), load: (keys) => this.call(() => inner.load(keys)), commit: (commit) => this.commit(inner, commit) });
  }

  #next(): Mishap | undefined {
    const mishap = this.#plan.get(this.calls++);
    if (mishap !== undefined) this.met += 1;
    return mishap;
  }
}

/** Batches of `size` at most, and a subscription that ends or fails after so many of them. */
function brokenUp(inner: EventStore, size: number, breaks: readonly number[], how: 'ends' | 'fails'): EventStore {
  let batches = 0;
  const subscribe: EventStore['subscribe'] = async function* (options) {
    for await (const batch of inner.subscribe({ ...options, maxBatch: size })) {
      yield batch;
      batches += 1;
      if (!breaks.includes(batches)) continue;
      if (how === 'ends') return;
      throw new OperatingError('storeUnavailable', 'the subscription broke');
    }
  };
  return {
    storeId: inner.storeId, idsAreUnique: inner.idsAreUnique, append: (stream, expected, events) => inner.append(stream, expected, events), readStream: (stream, options) => inner.readStream(stream, options),
    head: () => inner.head(), gap: (at) => inner.gap(at), subscribe, stats: () => inner.stats(), close: () => inner.close(),
  };
}

// ---- events ----------------------------------------------------------------------------------------------------------

/** The sum over what really stands there of the hashes that a digest is the sum of. */
async function honestDigest(view: View, keys: Iterable<string>): Promise<string> {
  let sum: Digest = EMPTY_DIGEST;
  const hasher = new DocumentHasher();
  const all = [...keys];
  (await view.load(all)).forEach((text, i) => { if (text !== null) sum = addHash(sum, hasher.hash(all[i] ?? '', text)); });
  return digestText(sum);
}

const arbitraryPlan = fc.array(fc.tuple(fc.nat({ max: 60 }), fc.constantFrom<Mishap>('lost', 'unanswered', 'held')), { maxLength: 8 }).map((mishaps) => new Map(mishaps));

// ---- crashes ---------------------------------------------------------------------------------------------------------

describe.each(ADAPTERS)('a projector over %s', (_name, numRuns, open) => {
  test('G3: whatever is lost between any two steps, the views end as a fresh fold of the log', async () => {
    const events = await recorded(1, 60);
    const fresh = await freshFold(events);
    const run = fc.record({ plan: arbitraryPlan, size: fc.integer({ min: 1, max: 20 }), breaks: fc.array(fc.integer({ min: 1, max: 12 }), { maxLength: 3 }), how: fc.constantFrom('ends' as const, 'fails' as const) });
    await fc.assert(fc.asyncProperty(run, async ({ plan, size, breaks, how }) => {
      const { views, dispose } = await open();
      try {
        const mishaps = new Mishaps(plan);
        await project(brokenUp(events, size, breaks, how), mishaps.store(views));
        for (const [i, { group }] of PROJECTIONS.entries()) {
          const view = await liveView(views, group);
          expect(await view.digest()).toBe(fresh[i]);
          expect(await honestDigest(view, mishaps.keys.get(group) ?? [])).toBe(fresh[i]);
        }
      } finally {
        await dispose();
      }
    }), { numRuns });
  });

  test('G3: a crash after each single step in turn', async () => {
    const events = await recorded(2, 24);
    const fresh = await freshFold(events);
    const whole = new Mishaps(new Map());
    await project(brokenUp(events, 5, [], 'ends'), whole.store(new MemoryViewStore()));
    // Over files every ninth: making them takes longer than folding into them.
    const steps = Array.from({ length: whole.calls }, (_, step) => step).filter((step) => numRuns > 20 || step % 9 === 4);
    for (const step of steps) {
      for (const mishap of ['lost', 'unanswered', 'held'] as const) {
        const { views, dispose } = await open();
        const mishaps = new Mishaps(new Map([[step, mishap]]));
        const { faults } = await project(brokenUp(events, 5, [], 'ends'), mishaps.store(views));
        expect(mishaps.met).toBe(1);
        expect(faults.length).toBeLessThanOrEqual(1);
        const digests = await Promise.all(PROJECTIONS.map(async ({ group }) => (await liveView(views, group)).digest()));
        await dispose();
        expect({ step, mishap, digests }).toEqual({ step, mishap, digests: fresh });
      }
    }
  });

  test('G3: two projectors on one view at once fold each event once', async () => {
    const events = await recorded(3, 120);
    const fresh = await freshFold(events);
    await fc.assert(fc.asyncProperty(arbitraryPlan, arbitraryPlan, fc.integer({ min: 1, max: 9 }), async (one, other, size) => {
      const { views, again, dispose } = await open();
      try {
        const [first, second_] = [new Mishaps(one), new Mishaps(other)];
        await Promise.all([project(brokenUp(events, size, [], 'ends'), first.store(views)), project(brokenUp(events, size + 2, [], 'ends'), second_.store(await again()))]);
        for (const [i, { group }] of PROJECTIONS.entries()) {
          const view = await liveView(views, group);
          expect(await view.digest()).toBe(fresh[i]);
          expect(await honestDigest(view, [...(first.keys.get(group) ?? []), ...(second_.keys.get(group) ?? [])].filter((key, at, all) => all.indexOf(key) === at))).toBe(fresh[i]);
          expect((await views.generations(group)).length).toBeLessThanOrEqual(2 + one.size + other.size);
        }
        expect(await Promise.all(PROJECTIONS.map(async ({ group }) => (await liveView(views, group)).position()))).toEqual([await events.head(), await events.head()]);
      } finally {
        await dispose();
      }
    }), { numRuns: Math.ceil(numRuns / 3) });
  });

  test('a projector that finds the view moved takes up what is there', async () => {
    const events = await recorded(4, 30);
    const { views, again, dispose } = await open();
    const other = await again();
    const results = new Mishaps(new Map());
    // Somebody else folds the whole log while this one is about to commit its first batch.
    let intruded = false;
    const store = results.store(views);
    const wait: ProjectorOptions['keysOf'] = async (workspace) => {
      if (!intruded) {
        intruded = true;
        await project(events, other);
      }
      return keysFor(workspace);
    };
    const { told } = await project(brokenUp(events, 10, [], 'ends'), store, { keysOf: wait });
    expect(results.results).toEqual(['moved']);
    expect(told.at(-1)?.map(({ events: folded }) => folded)).toEqual([0, 0]);
    expect(await Promise.all(PROJECTIONS.map(async ({ group }) => (await liveView(views, group)).digest()))).toEqual(await freshFold(events));
    await dispose();
  });
});

describe('the supervisor', () => {
  test('throws what no retry can help', async () => {
    const events = await recorded(5, 3);
    const views = new MemoryViewStore();
    const full = new Mishaps(new Map()).store(views);
    const broken: ViewStore = { ...full, live: async () => { throw new OperatingError('storeCorrupt', 'damaged'); } };
    await expect(project(events, broken)).rejects.toMatchObject({ code: 'storeCorrupt' });
    const bug: Projection = { ...persons, fold: () => { throw new Error('a bug'); } };
    await expect(project(events, full, { projections: [bug] })).rejects.toThrow('a bug');
  });

  test('gives up when nothing is committed for many tries, waiting longer before each', async () => {
    const events = await recorded(6, 3);
    const waits: number[] = [];
    const store = new Mishaps(new Map(Array.from({ length: 1000 }, (_, call) => [call, 'lost']))).store(new MemoryViewStore());
    await expect(project(events, store, { wait: async (ms) => { waits.push(ms); } })).rejects.toMatchObject({ code: 'storeUnavailable' });
    expect(waits.length).toBeGreaterThan(5);
    expect(waits).toEqual([...waits].sort((a, b) => a - b));
  });

  test('ends quietly when it is told to, also while it waits', async () => {
    const events = await recorded(7, 3);
    const stop = new AbortController();
    const store = new Mishaps(new Map(Array.from({ length: 1000 }, (_, call) => [call, 'lost']))).store(new MemoryViewStore());
    await project(events, store, { signal: stop.signal, wait: async () => stop.abort() });
    expect(stop.signal.aborted).toBe(true);
  });

  test('refuses views of another event store', async () => {
    const views = new MemoryViewStore();
    await project(await recorded(8, 3), views);
    const foreign = new MemoryEventStore({ storeId: 'another' });
    await foreign.append('identity.acme-x', 'no_stream', [{ id: '00000000-0000-8000-8000-000000000000', type: 't', data: new Uint8Array(0), metadata: new Uint8Array(0) }]);
    await expect(project(foreign, views)).rejects.toMatchObject({ code: 'foreignStore' });
  });

  describe('an upgrade', () => {
    const next: Projection = { ...persons, version: `${persons.version}-next` };
    /** As a program of that version runs, until the pointer stands there and all is folded, or, given `looks`, as long as that many times that the views are looked at. */
    const runs = async (events: EventStore, views: ViewStore, projection: Projection, until_: { live: number } | { looks: number }): Promise<void> => {
      const stop = new AbortController();
      let now = 0;
      const onProgress = async (groups: readonly GroupProgress[]): Promise<void> => {
        if ('live' in until_ && groups.some(({ group, generation, caughtUp }) => group === 'persons' && generation === until_.live && caughtUp) && await views.live('persons') === until_.live) stop.abort();
      };
      let looks = 0;
      const counted: ViewStore = throughStore(views, { live: async (group) => { if ('looks' in until_ && (looks += 1) > until_.looks) stop.abort(); return views.live(group); } });
      await project(events, counted, { projections: [journeys, projection], signal: stop.signal, clock: { now: () => (now += 500) }, onProgress: (groups) => { void onProgress(groups); } });
    };

    test('G5: builds a generation of its own beside the live one, which answers until the new one has caught up', async () => {
      const events = await recorded(9, 20);
      const views = new MemoryViewStore();
      await project(events, views);
      const promotions: (readonly [number | null, number, boolean])[] = [];
      const watched = throughStore(views, { promote: async (group, from, to, hold) => {
        const [old, built] = [await (await views.view(group, from ?? 0, 0)).position(), await (await views.view(group, to, 0)).position()];
        promotions.push([from, to, hold !== undefined && built !== null && old !== null && built >= old]);
        return views.promote(group, from, to, hold);
      } });
      await runs(events, watched, next, { live: 2 });
      expect(promotions).toEqual([[1, 2, true]]);
      expect((await views.generations('persons')).map(({ id, version, target }) => ({ id, version, target })))
        .toEqual([{ id: 1, version: persons.version, target: await events.head() }, { id: 2, version: next.version, target: await events.head() }]);
      expect(await views.previous('persons')).toBe(1);
      expect((await views.generations('journeys')).length).toBe(1);
      expect(await (await liveView(views, 'persons')).digest()).toBe(await (await views.view('persons', 1, 0)).digest());
    });

    test('a program of the old version that still runs, or starts again, leaves the new generation live', async () => {
      const events = await recorded(9, 20);
      const views = new MemoryViewStore();
      await project(events, views);
      await runs(events, views, next, { live: 2 });
      await runs(events, views, persons, { looks: 20 });
      expect([await views.live('persons'), (await views.generations('persons')).length]).toEqual([2, 2]);
    });

    test('a program of an older version that is started once more, long after, does not take the views back', async () => {
      const events = await recorded(9, 20);
      const views = new MemoryViewStore();
      await project(events, views);
      await runs(events, views, next, { live: 2 });
      // A replay left nothing of what was before the upgrade.
      const again = await views.createGeneration({ ...(await liveView(views, 'persons')).generation });
      await views.promote('persons', 2, again.id);
      await views.dropGeneration('persons', 1);
      await runs(events, views, persons, { looks: 20 });
      expect([await views.live('persons'), (await views.generations('persons')).map(({ version }) => version)]).toEqual([3, [next.version, next.version]]);
    });

    test('one that was rolled back is not undone by the program that promoted it', async () => {
      const events = await recorded(9, 20);
      const views = new MemoryViewStore();
      await project(events, views);
      await runs(events, views, next, { live: 2 });
      await views.promote('persons', 2, 1);
      await runs(events, views, next, { looks: 20 });
      expect([await views.live('persons'), (await views.generations('persons')).length]).toEqual([1, 2]);
    });

    test('two workers of the new version that start at once build one generation, and an older one of the same version goes on', async () => {
      const events = await recorded(9, 40);
      const views = new MemoryViewStore();
      await project(events, views);
      await Promise.all([runs(events, views, next, { live: 2 }), runs(events, views, next, { live: 2 })]);
      expect([await views.live('persons'), (await views.generations('persons')).map(({ id }) => id)]).toEqual([2, [1, 2]]);
      // A third version: what the first left is of no use to anybody any more.
      await runs(events, views, { ...persons, version: 'third' }, { live: 4 });
      expect((await views.generations('persons')).map(({ id }) => id)).toEqual([2, 4]);
    });
  });

  test('an idle view\'s position is moved along, and its digest stays', async () => {
    const events = await recorded(10, 5);
    const views = new MemoryViewStore();
    await project(events, views);
    const before = await (await liveView(views, 'journeys')).digest();
    let now = 0;
    const stop = new AbortController();
    const idle: EventStore = { ...brokenUp(events, 10, [], 'ends'), subscribe: async function* () {
      for (const place of [700, 800, 900]) {
        now += 1000;
        yield { events: [], position: position(place), caughtUp: true };
      }
      stop.abort();
    } };
    await project(idle, views, { clock: { now: () => now }, signal: stop.signal });
    const view = await liveView(views, 'journeys');
    // Two seconds after the last commit, not each time.
    expect([await view.position(), await view.digest()]).toEqual([position(800), before]);
  });
});

// ---- shards ----------------------------------------------------------------------------------------------------------

const until = async (come: () => boolean | Promise<boolean>): Promise<void> => { while (!(await come())) await setImmediate(); };
const calmly: ProjectorOptions['wait'] = (ms, signal) => pause(ms, undefined, { signal }).catch(() => undefined);

/** A generation with so many shards, live. */
async function makeLive(views: ViewStore, projection: Projection, shards: number): Promise<void> {
  const { id } = await views.createGeneration({ group: projection.group, version: projection.version, shards, storeId: 'store', target: null, fields: projection.fields, subFields: projection.subFields, ordered: projection.ordered });
  await views.promote(projection.group, await views.live(projection.group), id);
}

/** Of every shard of every group: that it is what its workspaces' events give. */
async function expectShardsFolded(events: EventStore, views: ViewStore): Promise<void> {
  for (const [i, { group }] of PROJECTIONS.entries()) {
    const { generation } = await liveView(views, group);
    for (let shard = 0; shard < generation.shards; shard += 1) {
      const view = await views.view(group, generation.id, shard);
      const fresh = await freshFold(events, (workspace) => shardOf(workspace, generation.shards) === shard);
      expect({ group, shard, digest: await view.digest() }).toEqual({ group, shard, digest: fresh[i] });
    }
  }
}

describe('shards', () => {
  test('G3: workers that share them fold every shard once, and none asks for a workspace that is not its own', async () => {
    const events = await recorded(11, 150, MANY);
    const views = new MemoryViewStore();
    const asked = [new Set<string>(), new Set<string>()];
    await Promise.all([[0, 2], [1]].map((owned, worker) => project(brokenUp(events, 20, [], 'ends'), views, {
      shards: 3, owned, keysOf: async (workspace) => { asked[worker]?.add(workspace); return keysFor(workspace); },
    })));
    await expectShardsFolded(events, views);
    expect([...(asked[0] ?? [])].filter((workspace) => shardOf(workspace, 3) === 1)).toEqual([]);
    expect([...(asked[1] ?? [])].filter((workspace) => shardOf(workspace, 3) !== 1)).toEqual([]);
    expect((await views.generations('journeys')).map(({ shards }) => shards)).toEqual([3]);
  });

  test.each([[1, 4], [4, 2], [5, 2], [3, 3]])('G3: a generation made with %i is folded whole by the workers of %i parts', async (made, parts) => {
    const events = await recorded(12, 80, MANY);
    const views = new MemoryViewStore();
    for (const projection of PROJECTIONS) await makeLive(views, projection, made);
    const folded: number[][] = [];
    for (let part = 0; part < parts; part += 1) {
      // A part for which there is no shard stands by.
      const stop = new AbortController();
      if (part >= made) await project(events, views, { shards: parts, owned: [part], signal: stop.signal, onProgress: (groups) => { expect(groups).toEqual([]); stop.abort(); } });
      else folded.push((await project(events, views, { shards: parts, owned: [part] })).told.at(-1)?.[0]?.shards.map(({ shard }) => shard) ?? []);
    }
    expect(folded.flat().sort()).toEqual(Array.from({ length: made }, (_, shard) => shard));
    await expectShardsFolded(events, views);
  });

  test('one that is taken over far behind is caught up, and the others do not fold again what they have', async () => {
    const events = await recorded(13, 120, MANY);
    const views = new MemoryViewStore();
    await project(events, views, { shards: 3, owned: [0, 1] });
    const { told } = await project(brokenUp(events, 30, [], 'ends'), views, { shards: 3, owned: 'all' });
    const last = told.at(-1)?.find(({ group }) => group === 'journeys');
    expect(last?.shards.map(({ shard, events: folded }) => [shard, folded > 0])).toEqual([[0, false], [1, false], [2, true]]);
    expect(last?.events).toBe(last?.shards[2]?.events);
    await expectShardsFolded(events, views);
  });

  test('an idle shard is moved along every few seconds, also when nothing comes any more; its gap is none meanwhile', async () => {
    const events = await recorded(14, 20, ['acme']);
    const head = await events.head();
    const views = new MemoryViewStore();
    let now = 0;
    const stop = new AbortController();
    let latest: GroupProgress | undefined;
    const running = project(events, views, { shards: 2, owned: 'all', signal: stop.signal, clock: { now: () => now }, onProgress: ([journeysNow]) => { latest = journeysNow; } });
    await until(() => latest?.through === head);
    const idle = 1 - shardOf('acme', 2);
    const view = await views.view('journeys', 1, idle);
    expect([await view.position(), latest?.position, latest?.shards[idle]?.position, latest?.shards[1 - idle]?.position]).toEqual([null, null, null, head]);
    now = 2000;
    await until(async () => (await view.position()) === head);
    await until(() => latest?.position === head);
    stop.abort();
    await running;
    await expectShardsFolded(events, views);
  });

  test('another generation that becomes live is taken up, by who folds and by who stood by', async () => {
    const events = await recorded(15, 40, MANY);
    const views = new MemoryViewStore();
    for (const projection of PROJECTIONS) await makeLive(views, projection, 1);
    let now = 0;
    const stop = new AbortController();
    const seen: (readonly GroupProgress[])[] = [[], []];
    const running = [0, 1].map((part) => project(events, views, { shards: 2, owned: [part], signal: stop.signal, clock: { now: () => now }, onProgress: (groups) => { seen[part] = groups; } }));
    await until(async () => (await (await liveView(views, 'persons')).position()) === (await events.head()) && seen[0]?.length === 2);
    expect(seen[1]).toEqual([]);
    for (const projection of PROJECTIONS) await makeLive(views, projection, 2);
    now = 5000;
    await until(() => seen.every((groups) => groups.length === 2 && groups.every(({ generation, events: folded }) => generation === 2 && folded > 0)));
    stop.abort();
    await Promise.all(running);
    await expectShardsFolded(events, views);
  });

  test('two that start at once leave one generation behind', async () => {
    const events = await recorded(16, 10);
    const views = new MemoryViewStore();
    await Promise.all([project(events, views), project(events, views)]);
    expect((await views.generations('journeys')).length).toBe(1);
  });
});

// ---- how much at a time ----------------------------------------------------------------------------------------------

describe('batches', () => {
  const seen = (told: readonly (readonly GroupProgress[])[]): number[] => told.map(([group]) => group?.events ?? 0).filter((count, i, all) => count !== all[i - 1]);

  test('behind, they grow from a page to all that is allowed, so that a journey is written once for many of its events', async () => {
    const events = await recorded(17, 2600);
    const fresh = await freshFold(events);
    const written = async (batchMax: number): Promise<{ readonly counts: readonly number[]; readonly documents: number }> => {
      const views = new MemoryViewStore();
      const { told } = await project(events, views, { wait: calmly, room: { ...ROOM, batchMax } });
      expect(await (await liveView(views, 'journeys')).digest()).toBe(fresh[0]);
      return { counts: seen(told), documents: told.at(-1)?.[0]?.documents ?? 0 };
    };
    const [large, small] = [await written(4096), await written(500)];
    expect(large.counts).toEqual([0, 500, 2600]);
    expect(small.counts).toEqual([0, 500, 1000, 1500, 2000, 2500, 2600]);
    expect(large.documents).toBeLessThan(small.documents);
  });

  test('a batch that takes long is followed by smaller ones', () => {
    const pace = new Pace({ batchMax: 32_768, batchBytesMax: 5000 });
    const crew = { isCut: false };
    const limit = (): number => { let events = 1; while (!pace.isFull(crew, events, 0)) events += 1; return events; };
    const took = (full: boolean, ms: number): number => { pace.took({ full }, ms); return limit(); };
    expect([limit(), took(true, 100), took(false, 100), took(true, 2500), took(true, FOLD_MS_MAX - 1), took(true, FOLD_MS_MAX + 1), took(true, 9e9), took(true, 9e9), took(true, 9e9), took(true, 9e9), took(true, 9e9)])
      .toEqual([500, 4000, 4000, 16_000, 16_000, 8000, 4000, 2000, 1000, 500, 500]);
    for (let i = 0; i < 20; i += 1) took(true, 0);
    expect(limit()).toBe(32_768);
    expect(pace.isFull(crew, 1, 5000)).toBe(true);
    expect(pace.isFull({ isCut: true }, BATCH_CUT_MAX, 0)).toBe(true);
  });

  test('what comes is folded soon, also when the store never says that there is no more', async () => {
    const events = await recorded(18, 30);
    const mute: EventStore = { ...brokenUp(events, 10, [], 'ends'), subscribe: async function* (options) { for await (const batch of events.subscribe(options)) yield { ...batch, caughtUp: false }; } };
    const views = new MemoryViewStore();
    await project(mute, views, { wait: calmly });
    expect(await (await liveView(views, 'journeys')).digest()).toBe((await freshFold(events))[0]);
  });

  test('while one is committed the next is read, and no more than that', async () => {
    const events = await recorded(19, 400);
    let pages = 0;
    let release: () => void = () => undefined;
    const released = new Promise<void>((resolve) => { release = resolve; });
    const counted: EventStore = { ...brokenUp(events, 50, [], 'ends'), subscribe: async function* (options) { for await (const batch of events.subscribe({ ...options, maxBatch: 50 })) { pages += 1; yield batch; } } };
    const inner = new MemoryViewStore();
    const store = new Mishaps(new Map()).store(inner);
    const slow: ViewStore = { ...store, view: async (group, generation, shard) => { const view = await store.view(group, generation, shard); return { ...view, commit: async (commit) => { await released; return view.commit(commit); } }; } };
    const running = project(counted, slow, { wait: calmly, room: { ...ROOM, batchMax: 100, lanes: 2 } });
    await until(() => pages >= 4);
    for (let turn = 0; turn < 50; turn += 1) await setImmediate();
    // Two of 50 are being committed, two are gathered, and the reader waits.
    expect(pages).toBe(4);
    release();
    await running;
    expect(await (await liveView(inner, 'journeys')).digest()).toBe((await freshFold(events))[0]);
  });
});

// ---- stores that go away, and come back another ------------------------------------------------------------------------

/** A view store whose contents are exchanged at the n-th call: as a Redis that was emptied, or restored from an older copy, under the handles that were opened on it. */
function exchanged(first: ViewStore, second: ViewStore, at: number): { readonly store: ViewStore; readonly calls: () => number } {
  let calls = 0;
  const inner = (): ViewStore => (calls++ < at ? first : second);
  const gone = async <T>(work: Promise<T>, otherwise: T): Promise<T> => work.catch((fault: unknown) => {
    if (fault instanceof OperatingError && fault.code === 'viewMissing') return otherwise;
    throw fault;
  });
  const view = async (group: string, generation: number, shard: number): Promise<View> => {
    const opened = await inner().view(group, generation, shard);
    const now = (): Promise<View> => inner().view(group, generation, shard);
    return through(opened, {
      position: () => gone(now().then((it) => it.position()), null), digest: () => gone(now().then((it) => it.digest()), '0'.repeat(32)),
      load: (keys) => gone(now().then((it) => it.load(keys)), keys.map(() => null)), commit: (commit) => gone(now().then((it) => it.commit(commit)), { kind: 'moved', position: null, live: null }),
    });
  };
  const plain = new Mishaps(new Map()).store(first);
  return {
    calls: () => calls,
    store: {
      ...plain, view, generations: (group) => inner().generations(group), live: (group) => inner().live(group), createGeneration: (generation) => inner().createGeneration(generation),
      promote: (...args) => inner().promote(...args), previous: (group) => inner().previous(group), seen: (group, version) => inner().seen(group, version), dropGeneration: (group, id) => inner().dropGeneration(group, id),
    },
  };
}

describe('stores that go away', () => {
  test('with endless patience it goes on for as long as it takes, and tells each time', async () => {
    const events = await recorded(20, 30);
    const views = new MemoryViewStore();
    const waits: number[] = [];
    const store = new Mishaps(new Map(Array.from({ length: 200 }, (_, call) => [call, 'lost']))).store(views);
    const { faults } = await project(events, store, { patience: 'endless', wait: async (ms) => { waits.push(ms); await setImmediate(); } });
    expect(faults.length).toBeGreaterThan(100);
    expect(Math.max(...waits)).toBe(5000);
    expect(await (await liveView(views, 'journeys')).digest()).toBe((await freshFold(events))[0]);
  });

  test('views of another store are refused all the same', async () => {
    const views = new MemoryViewStore();
    await project(await recorded(21, 3), views);
    await expect(project(new MemoryEventStore({ storeId: 'another' }), views, { patience: 'endless' })).rejects.toMatchObject({ code: 'foreignStore' });
  });

  test.each(['emptied', 'set back'] as const)('G3: views that are %s at any moment are folded again from what they hold', async (how) => {
    const events = await recorded(22, 40);
    const fresh = await freshFold(events);
    const run = async (at: number): Promise<{ readonly calls: number; readonly digests: readonly string[] }> => {
      const second = new MemoryViewStore();
      if (how === 'set back') {
        // Folded as far as the twelfth event, under the same generation.
        const stop = new AbortController();
        await project(brokenUp(events, 12, [], 'ends'), second, { signal: stop.signal, onProgress: (groups) => { if (groups.every(({ events: folded }) => folded > 0)) stop.abort(); } });
      }
      const { store, calls } = exchanged(new MemoryViewStore(), second, at);
      await project(brokenUp(events, 7, [], 'ends'), store, { patience: 'endless' });
      if (calls() <= at) return { calls: calls(), digests: fresh };
      // What was told last may be from before: one more batch, or the next look, finds out.
      let now = 0;
      await project(events, second, { clock: { now: () => (now += 1000) } });
      return { calls: calls(), digests: await Promise.all(PROJECTIONS.map(async ({ group }) => (await liveView(second, group)).digest())) };
    };
    const { calls } = await run(Number.POSITIVE_INFINITY);
    for (let at = 0; at < calls; at += 1) expect({ at, digests: (await run(at)).digests }).toEqual({ at, digests: fresh });
  });

  test('views emptied while nothing happens are made anew within a few seconds', async () => {
    const events = await recorded(23, 20);
    const head = await events.head();
    const [first, second] = [new MemoryViewStore(), new MemoryViewStore()];
    await project(events, first);
    let now = 0;
    const stop = new AbortController();
    const { store } = exchanged(first, second, 40);
    const running = project(events, store, { patience: 'endless', signal: stop.signal, clock: { now: () => (now += 100) }, onProgress: () => undefined });
    await until(async () => (await second.live('persons')) !== null && (await (await liveView(second, 'persons')).position()) === head);
    stop.abort();
    await running;
    expect(await (await liveView(second, 'journeys')).digest()).toBe((await freshFold(events))[0]);
  });
});

describe('the thread', () => {
  test('folds the shards that it is told to, from where their views stand, and ends when it is told to', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'throughline-thread-'));
    const random = (size: number): Uint8Array => randomBytes(size);
    const masterKey = random(32);
    const clock = { now: () => Date.now() };
    const events = await openSqliteEventStore({ folder, mode: 'direct', random });
    try {
      const workspaces = await Workspaces.open({ store: events, masterKey, clock, random, sleep: async () => undefined });
      await workspaces.firstStart({ token: null, secret: null });
      const keys = workspaces.keys('default');
      if (keys === null) throw new Error('no workspace');
      const door = new Door({ store: events, clock, random, sleep: async () => undefined, tallies: new MemoryViewStore() });
      const attributes = { specversion: '1.0', id: '1', source: 's', type: 'org.throughline.interaction.started', identity: 'ana@example.com', identitytype: 'email' };
      await door.receive(keys, [{ kind: 'event', event: { id: '1', source: 's', type: attributes.type, time: null, attributes, dataKind: 'json', data: Buffer.from('{"interactionId":"i1"}') } }]);
      await door.drain();
      await workspaces.close();
      const head = await events.head();
      const place = { kind: 'sqlite', folder } as const;
      const faults: string[] = [];
      const thread = startProjectorThread({ events: place, views: place, masterKey, shards: 2, owned: [], auditMs: null }, (message) => { faults.push(message); });
      const folds = (): (readonly [string, number, boolean])[] => thread.progress().flatMap(({ group, through, shards }) => shards.map(({ shard }) => [group, shard, through === head] as const));
      thread.own([0]);
      thread.own([0, 1]);
      await until(() => folds().length === 4 && folds().every(([, , done]) => done));
      thread.own([1]);
      expect(thread.progress()).toEqual([]);
      await until(() => folds().length === 2);
      expect(folds()).toEqual([['journeys', 1, true], ['persons', 1, true]]);
      await thread.stop();
      await thread.ended;
      expect([thread.failed(), thread.trouble(), faults]).toEqual([false, null, []]);
    } finally {
      await events.close();
      rmSync(folder, { recursive: true });
    }
  });

  test('says why, when a store is no good', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'throughline-thread-'));
    const place = { kind: 'sqlite', folder } as const;
    const thread = startProjectorThread({ events: place, views: place, masterKey: new Uint8Array(32), shards: 1, owned: 'all', auditMs: null }, () => undefined);
    await expect(thread.ended).rejects.toMatchObject({ code: 'storeUnavailable' });
    expect(thread.failed()).toBe(true);
    rmSync(folder, { recursive: true });
  });
});

// ---- a target ---------------------------------------------------------------------------------------------------------

describe('a target', () => {
  /** As the tests' facts are made. */
  const context: WorkspaceKeys = { ...keysFor('acme'), ...CONTEXT };
  const arrivalsOf = (events: readonly Interpreted[], from: number): Arrival[] => events.map((interpreted, i) => ({ position: position(from + i + 1), workspace: interpreted.eventId.endsWith('3') ? 'rival' : 'acme', identity: interpreted.identity.key, interpreted }));

  async function foldBatches(projection: Projection, batches: readonly (readonly Interpreted[])[], cacheBytesMax: number, stepBytesMax?: number): Promise<string> {
    const target = await targetOf(new MemoryViewStore(), projection, cacheBytesMax, stepBytesMax);
    let at = 0;
    for (const batch of batches) {
      const arrivals = arrivalsOf(batch, at);
      at += batch.length;
      expect((await target.step(arrivals, position(at), async () => context)).kind).toBe('committed');
      expect(target.cached).toBeLessThanOrEqual(cacheBytesMax);
    }
    return target.view.digest();
  }

  test('G3: the digest does not depend on batches, order, repetition or what is held in memory', async () => {
    const withPeople = arbitraryEvents(14).map((events) => events.map((one, i): Interpreted => ({ ...one, customerFacts: i % 3 === 0 ? identifies(one, i) : [] })));
    // Past what a step may read, it is cut in halves, down to single events.
    await fc.assert(fc.asyncProperty(arbitraryArrival(withPeople), fc.constantFrom(0, 3000, 1e7), fc.constantFrom(0, 2000, 1e7), async ({ events, batches }, cacheBytesMax, stepBytesMax) => {
      for (const projection of PROJECTIONS) expect(await foldBatches(projection, batches, cacheBytesMax, stepBytesMax)).toBe(await foldBatches(projection, [events], 1e7));
    }), { numRuns: 100 });
  });

  test('what it has folded it does not fold again, and a refused commit leaves nothing behind in memory', async () => {
    const [first, later] = [arrivalsOf([said(0), said(1)], 0), arrivalsOf([said(2), said(3)], 2)];
    const views = new MemoryViewStore();
    const target = await targetOf(views, journeys);
    expect(await target.step(first, position(2), keysOf)).toMatchObject({ kind: 'committed', events: 2 });
    expect(await target.step(first, position(2), keysOf)).toEqual({ kind: 'committed', events: 0, documents: 0 });
    expect(await target.step([...first, ...later], position(4), keysOf)).toMatchObject({ kind: 'committed', events: 2 });
    // Another worker, from the same position: it is told that the view moved, and stands where the first one left it.
    const plain = await targetOf(new MemoryViewStore(), journeys);
    await plain.step(first, position(2), keysOf);
    const other = await targetOn(plain.view, journeys, 1e7);
    await plain.step(later, position(4), keysOf);
    expect((await other.step(later, position(4), keysOf)).kind).toBe('moved');
    expect(other.position).toBe(position(4));
    expect(await other.step([...first, ...later], position(4), keysOf)).toMatchObject({ events: 0 });
    expect(await plain.view.digest()).toBe(await target.view.digest());
  });

  test('after a throw it can be asked again: what the fold changed in memory is forgotten', async () => {
    const [first, later] = [arrivalsOf([said(0), said(1)], 0), arrivalsOf([said(2), said(3)], 2)];
    const expected = await targetOf(new MemoryViewStore(), journeys);
    await expected.step([...first, ...later], position(4), keysOf);
    for (const mishap of ['lost', 'unanswered'] as const) {
      const inner = await targetOf(new MemoryViewStore(), journeys);
      await inner.step(first, position(2), keysOf);
      const mishaps = new Mishaps(new Map([[0, mishap]]));
      const flaky: View = { ...through(inner.view, {}), commit: (commit) => mishaps.commit(inner.view, commit) };
      const target = await targetOn(flaky, journeys, 1e7);
      await target.step([], position(2), keysOf);
      await expect(target.step(later, position(4), keysOf)).rejects.toThrow();
      expect((await target.step(later, position(4), keysOf)).kind).toBe(mishap === 'lost' ? 'committed' : 'moved');
      expect(await inner.view.digest()).toBe(await expected.view.digest());
    }
  });

});

const PEOPLE: readonly string[] = ['bob@example.com', 'carl@example.com', 'ana@example.com'];
function identifies({ at, eventId, interactionFacts }: Interpreted, i: number): Interpreted['customerFacts'] {
  const said_: CustomerFactBody = i % 2 === 0 ? { kind: 'identifiers', identifiers: [{ type: 'email', value: PEOPLE[i % PEOPLE.length] ?? '' }, { type: 'account', value: String(i % 4) }] } : { kind: 'named', name: `Ana ${i}` };
  return [{ ...said_, at, tie: 0, eventId, index: interactionFacts.length }];
}

// ---- growth ----------------------------------------------------------------------------------------------------------

const AGENT = { id: 'ag-1', name: 'Dana' };
const TALK: readonly InteractionFactBody[] = [{ kind: 'talking', agents: [AGENT], queue: { id: 'q-1', name: 'Orders' } }, { kind: 'held', agents: [AGENT] }, { kind: 'resumed', agents: [AGENT] }, { kind: 'waiting', queue: { id: 'q-2' } }];

/** Printing them costs more than folding. */
const instants: Interpreted['at'][] = [];
function instant(n: number): Interpreted['at'] { return (instants[n] ??= second(n)); }

/** The n-th thing said of an interaction, a second after the one before. */
function said(n: number, interaction = 'x:1'): Interpreted {
  const body: InteractionFactBody = n === 0 ? { kind: 'started', direction: 'Inbound', medium: 'Phone' } : TALK[n % TALK.length] ?? { kind: 'resumed' };
  return event(`e${String(n).padStart(8, '0')}`, n, [{ ...body, interaction: interaction as `${string}:${string}` }]);
}

describe('memory that several targets share', () => {
  const MAX = 60_000;
  const batch = (from: number, count: number): Arrival[] => Array.from({ length: count }, (_, i): Arrival => ({ position: position(from + i + 1), workspace: 'acme', identity: 'one', interpreted: said(0, `x:${from + i}`) }));

  test('whoever has work has nearly all of it, those at rest an even share, and together no more than there is', async () => {
    const room = new CacheRoom(MAX);
    const open = async (): Promise<Target> => {
      const views = new MemoryViewStore();
      const { id } = await views.createGeneration({ group: journeys.group, version: journeys.version, shards: 1, storeId: 'store', target: null, fields: journeys.fields, subFields: journeys.subFields, ordered: journeys.ordered });
      await views.promote(journeys.group, null, id);
      const target = new Target({ projection: journeys, view: await views.view(journeys.group, id, 0), role: 'live', cache: room });
      await target.resume();
      return target;
    };
    const [first, second, third] = [await open(), await open(), await open()];
    await first.step(batch(0, 200), position(200), keysOf);
    expect(first.cached).toBeGreaterThan(MAX * 0.9);
    expect(first.cached).toBeLessThanOrEqual(MAX);
    await second.step(batch(0, 200), position(200), keysOf);
    expect(first.cached).toBeLessThanOrEqual(MAX / 3);
    expect(second.cached).toBeGreaterThan(MAX / 2);
    // What it holds it does not read again: only the cell, new to it, to which the journey moves.
    const before = second.work.loaded;
    await second.step([{ position: position(201), workspace: 'acme', identity: 'one', interpreted: { ...said(1, 'x:199'), eventId: 'later' } }], position(201), keysOf);
    expect(second.work.loaded).toBe(before + 1);
    await Promise.all([first.step(batch(200, 200), position(400), keysOf), third.step(batch(0, 200), position(200), keysOf)]);
    // Two at work at once: each keeps an even share at least, so that neither empties the other.
    expect(Math.min(first.cached, third.cached)).toBeGreaterThan(MAX / 4);
    await third.step(batch(200, 10), position(210), keysOf);
    expect(first.cached + second.cached + third.cached).toBeLessThanOrEqual(MAX);
  });
});

describe('as events grow, the work of each stays what it was', () => {
  const CACHE = 2_000_000;

  /** Folds `count` events in batches of `size`; what each fifth of them cost. */
  async function cost(projection: Projection, count: number, size: number, make: (n: number) => Interpreted): Promise<{ readonly fifths: readonly Target['work'][]; readonly cached: number; readonly target: Target }> {
    const target = await targetOf(new MemoryViewStore(), projection, CACHE);
    const fifths: Target['work'][] = [];
    let before = { ...target.work };
    let cached = 0;
    for (let from = 0; from < count; from += size) {
      const arrivals = Array.from({ length: Math.min(size, count - from) }, (_, i): Arrival => ({ position: position(from + i + 1), workspace: 'acme', identity: make(from + i).identity.key, interpreted: make(from + i) }));
      await target.step(arrivals, position(from + arrivals.length), keysOf);
      cached = Math.max(cached, target.cached);
      if ((from + arrivals.length) * 5 < count * (fifths.length + 1)) continue;
      const { events, unreadable, documents, bytes, loaded, commits } = target.work;
      fifths.push({ events: events - before.events, unreadable: unreadable - before.unreadable, documents: documents - before.documents, bytes: bytes - before.bytes, loaded: loaded - before.loaded, commits: commits - before.commits });
      before = { ...target.work };
    }
    return { fifths, cached, target };
  }

  const last = <T>(all: readonly T[]): T => { const one = all.at(-1); if (one === undefined) throw new Error('nothing was folded'); return one; };

  test('one journey of 5,000 facts that arrive one by one in the order of their time', async () => {
    const { fifths, cached, target } = await cost(journeys, 5000, 1, (n) => said(n));
    const [first, , , , end] = fifths;
    for (const fifth of fifths) {
      expect(fifth.events).toBe(1000);
      // The journey, its interaction, the cell that counts it, and a chunk of either now and then; its past is not read back.
      expect(fifth.documents).toBeLessThan(3.2 * fifth.events);
      expect(fifth.loaded).toBeLessThan(0.1 * fifth.events);
      expect(fifth.bytes).toBeLessThan(40_000 * fifth.events);
    }
    expect(end?.bytes).toBeLessThan(1.1 * (first?.bytes ?? 0));
    expect(cached).toBeLessThanOrEqual(CACHE);
    expect((await target.view.stats()).records).toBe(1);
  });

  test('one identity with 100,000 events', async () => {
    // As a customer's are: a visit of a page nine times of ten, else something of one of 2,500 calls.
    const visit = event('v', 0, [], { customer: [{ kind: 'webActivity', name: 'page' }] });
    const make = (n: number): Interpreted => {
      const at = instant(Math.floor(n / 10));
      return n % 10 === 0 ? { ...said(n / 10 % 4, `x:${Math.floor(n / 40)}`), eventId: `c${n}`, at } : { ...visit, eventId: `v${n}`, at };
    };
    for (const projection of PROJECTIONS) {
      const { fifths, cached, target } = await cost(projection, 100_000, 1000, make);
      const [first, , , , end] = fifths;
      expect(fifths.map((fifth) => fifth.events)).toEqual([20_000, 20_000, 20_000, 20_000, 20_000]);
      expect(end?.documents).toBeLessThanOrEqual(1.1 * (first?.documents ?? 0));
      expect(end?.loaded).toBeLessThanOrEqual(1.1 * (first?.loaded ?? 0));
      expect(end?.bytes).toBeLessThanOrEqual(1.1 * (first?.bytes ?? 0));
      expect(cached).toBeLessThanOrEqual(CACHE);
      // A person is known by what it is, not by how often it came: the person, the identity, the types that the workspace has.
      if (projection.group === 'persons') expect({ documents: target.work.documents, loaded: target.work.loaded }).toEqual({ documents: 3, loaded: 3 });
    }
  });

  test('one constant task id sent 20,000 times', async () => {
    const { fifths, cached, target } = await cost(journeys, 20_000, 20, again);
    // The first 5,000 facts count; what comes after finds the interaction full, and changes nothing.
    expect(fifths.slice(2).map(({ documents, bytes, loaded }) => ({ documents, bytes, loaded }))).toEqual(Array.from({ length: 3 }, () => ({ documents: 0, bytes: 0, loaded: 0 })));
    expect(last(fifths).events).toBe(4000);
    expect(cached).toBeLessThanOrEqual(CACHE);
    expect((await target.view.stats()).records).toBe(1);
  });

  test('one constant task id sent 20,000 times in no order', async () => {
    const order = seeded(5).shuffled(Array.from({ length: 20_000 }, (_, n) => n));
    const { fifths, cached } = await cost(journeys, 20_000, 2000, (i) => again(order[i] ?? 0));
    // A batch that brings something earlier writes what is kept anew: at most 5,000 facts, and the journey of them.
    for (const { documents, bytes, commits } of fifths) {
      expect(documents).toBeLessThan(commits * 500);
      expect(bytes).toBeLessThan(commits * 5000 * 1000);
    }
    expect(last(fifths).bytes).toBeLessThan(1.5 * (fifths[1]?.bytes ?? 0));
    expect(cached).toBeLessThanOrEqual(CACHE);
  });

  const AGAIN = Array.from({ length: 3 }, (_, n) => said(1 + n));
  /** The same interaction once more, at its own time. */
  function again(n: number): Interpreted {
    const [like = said(0)] = AGAIN.slice(n % 3);
    const order = { at: instant(n), eventId: `t${String(n).padStart(6, '0')}` };
    return { ...like, ...order, interactionFacts: like.interactionFacts.map((fact) => ({ ...fact, ...order })) };
  }
});
