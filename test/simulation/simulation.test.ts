// The whole line in memory, with clock and scheduler in the test's hands: each seed draws what there is, what comes in, in
// which order everything happens and what goes wrong; what must be true is looked at in each step and at the end of each run
// (oracle.ts). A seed that fails is shrunk and told; infra/mutants.mjs shows which faults of the code are found.
import type { AppendResult, EventStore } from '../../services/ports.ts';
import { type Ended, simulate } from './line.ts';
import { drawn, type Schedule, shrunk, type Theme, THEMES, themeOf } from './schedule.ts';
import { inThread } from './seeds.ts';

const SEEDS = Number(process.env['SIM_SEEDS'] ?? 2000);

const WHAT: Readonly<Record<Theme, string>> = {
  doors: 'G1, G2, G4: every event that doors acknowledge, whatever is lost, late, redelivered or dies on the way, stands once, in its sender\'s order, and is counted',
  views: 'G3: views that workers fold, at once on the same shards, crashing between any two steps, are at every commit the fold of the log',
  promotions: 'G5: a reader at any moment of a replay, a return or an upgrade amid commits sees a whole view and never goes back in time',
  everything: 'G1, G3, G9: the whole line, from the topic to readers who ask for what they were told, with everything going wrong at once',
};

test.each(THEMES.map((theme) => [WHAT[theme], theme] as const))('%s', async (_what, theme) => {
  const { failures, totals } = await inThread({ from: 0, count: SEEDS, theme, failuresMax: 1, shrinks: true });
  expect(failures.map(({ told }) => told).join('\n')).toBe('');
  expect(totals.seeds).toBe(Math.ceil((SEEDS - THEMES.indexOf(theme)) / THEMES.length));
  // That it was not all plain sailing.
  expect(Math.min(totals.faults, totals.kills, totals.stored, theme === 'promotions' ? totals.promotions : Infinity)).toBeGreaterThan(totals.seeds / 4);
}, 600_000);

test('the same seed gives the same run, step by step', async () => {
  for (const seed of [0, 1, 2, 3, 21, 22, 23]) {
    const runs: { readonly steps: readonly string[]; readonly ended: Ended }[] = [];
    for (let run = 0; run < 2; run += 1) {
      const steps: string[] = [];
      runs.push({ ended: await simulate(drawn(seed), { onStep: (text) => steps.push(text) }), steps });
    }
    expect(runs[1]).toEqual(runs[0]);
  }
  const traces = new Set<string>();
  for (let seed = 0; seed < 20; seed += 1) traces.add((await simulate(drawn(seed))).trace);
  expect(traces.size).toBe(20);
});

/** Says that the third append of a stream was made, and keeps nothing of it. */
function forgetful(inner: EventStore): EventStore {
  const appends = new Map<string, number>();
  const append: EventStore['append'] = async (stream, expected, events) => {
    const count = (appends.get(stream) ?? 0) + 1;
    appends.set(stream, count);
    if (count !== 3) return inner.append(stream, expected, events);
    const told: AppendResult = { kind: 'appended', revision: 2, positions: events.map(() => '0'.repeat(20) as never) };
    return told;
  };
  return new Proxy(inner, { get: (target, name) => (name === 'append' ? append : typeof Reflect.get(target, name, target) === 'function' ? (Reflect.get(target, name, target) as () => unknown).bind(target) : Reflect.get(target, name, target)) });
}

test('a fault that is planted is found, and its schedule shrunk to what it takes', async () => {
  const guaranteeOf = async (schedule: Schedule): Promise<string | null> => (await simulate(schedule, { planted: forgetful })).failure?.guarantee ?? null;
  const seed = Array.from({ length: 40 }, (_, n) => n * THEMES.length + 1);
  let found: Schedule | null = null;
  for (const one of seed) {
    expect(themeOf(one)).toBe('doors');
    const schedule = drawn(one);
    if (await guaranteeOf(schedule) !== 'G1') continue;
    found = schedule;
    break;
  }
  expect(found).not.toBeNull();
  const least = await shrunk(found!, async (schedule) => await guaranteeOf(schedule) === 'G1');
  expect(await guaranteeOf(least)).toBe('G1');
  expect((await simulate(least)).failure).toBeNull();
  // It takes one stream with three appends, and nothing that goes wrong; a conflict may stand for one of the three.
  expect(least.load.length).toBeLessThanOrEqual(3);
  expect(new Set(least.load.map(({ workspace }) => workspace)).size).toBe(1);
  expect(least.faults).toEqual([]);
});
