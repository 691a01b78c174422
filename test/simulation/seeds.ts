// Runs by seed: many of them, here or in a thread of their own, and what to tell of one that fails.
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { simulate } from './line.ts';
import { drawn, type Schedule, shrunk, type Theme, themeOf } from './schedule.ts';
import type { Failure } from './world.ts';

export interface Totals { seeds: number; steps: number; stored: number; faults: number; kills: number; promotions: number; reads: number }
export interface Runs { readonly failures: readonly { readonly seed: number; readonly failure: Failure; /** See `tell`. */ readonly told: string }[]; readonly totals: Totals }
export interface Range {
  readonly from: number;
  readonly count: number;
  /** Those of this theme alone, of the range. */
  readonly theme?: Theme;
  /** After so many that failed it is enough. */
  readonly failuresMax: number;
  /** Whether they are made smaller before they are told of. */
  readonly shrinks: boolean;
}

export const NONE: Readonly<Totals> = { seeds: 0, steps: 0, stored: 0, faults: 0, kills: 0, promotions: 0, reads: 0 };
export const sumOf = (one: Readonly<Totals>, other: Readonly<Totals>): Totals => Object.fromEntries(Object.entries(one).map(([name, value]) => [name, value + other[name as keyof Totals]])) as unknown as Totals;

export async function runSeeds({ from, count, theme, failuresMax, shrinks }: Range, onSeed: (seed: number) => void = () => undefined): Promise<Runs> {
  let totals: Totals = { ...NONE };
  const failures: { seed: number; failure: Failure; told: string }[] = [];
  for (let seed = from; seed < from + count && failures.length < failuresMax; seed += 1) {
    if (theme !== undefined && themeOf(seed) !== theme) continue;
    onSeed(seed);
    const { failure, steps, stored, faults, kills, promotions, reads } = await simulate(drawn(seed));
    totals = sumOf(totals, { seeds: 1, steps, stored, faults, kills, promotions, reads });
    if (failure !== null) failures.push({ seed, failure, told: shrinks ? await tell(seed, failure) : headline(seed, failure) });
  }
  return { failures, totals };
}

// ---- in a thread ---------------------------------------------------------------------------------------------------------

/** The same in a thread: two of them use two processors, and none of them pays for a test runner's sandbox. */
export function inThread(range: Range): Promise<Runs> {
  return new Promise((resolve, reject) => {
    const thread = new Worker(new URL(import.meta.url), { workerData: { range } });
    let at = range.from;
    thread.on('message', (message: Runs | number) => {
      if (typeof message === 'number') at = message;
      else resolve(message);
    });
    // What nobody awaits fails here: a lane that broke, a fault of the programs' own.
    thread.on('error', (fault: unknown) => reject(new Error(headline(at, { guarantee: 'a program failed', message: fault instanceof Error ? fault.stack ?? fault.message : String(fault) }), { cause: fault })));
  });
}

if (!isMainThread && (workerData as { readonly range?: Range } | null)?.range !== undefined) {
  const { range } = workerData as { readonly range: Range };
  parentPort?.postMessage(await runSeeds(range, (seed) => parentPort?.postMessage(seed)));
}

// ---- one that fails ------------------------------------------------------------------------------------------------------

export function headline(seed: number, { guarantee, message }: Failure): string { return `SIM_SEED=${String(seed)} fails: ${guarantee}: ${message}`; }

/** The least of a schedule that fails by the same guarantee. */
export async function smallest(schedule: Schedule, { guarantee }: Failure): Promise<Schedule> {
  return shrunk(schedule, async (candidate) => (await simulate(candidate)).failure?.guarantee === guarantee);
}

/** What failed, how to run it alone, and what is left of its schedule, with its steps. */
export async function tell(seed: number, failure: Failure): Promise<string> {
  const least = await smallest(drawn(seed), failure);
  const steps: string[] = [];
  const ended = await simulate(least, { onStep: (text) => steps.push(text) });
  const { setup, load, faults, choices } = least;
  const used = choices.slice(0, choices.findLastIndex((choice) => choice !== 0) + 1);
  return [
    headline(seed, failure),
    `alone, step by step: SIM_SEED=${String(seed)} sh infra/node.sh test/simulation/run.ts`,
    `shrunk to ${String(load.length)} deliveries, ${String(faults.length)} faults and ${String(used.filter((choice) => choice !== 0).length)} choices, which fails: ${ended.failure?.message ?? ''}`,
    `setup ${JSON.stringify(setup)}`,
    ...load.map((sent) => `load ${JSON.stringify(sent)}`),
    ...faults.map((fault) => `fault ${JSON.stringify(fault)}`),
    `choices ${JSON.stringify(used)}`,
    ...steps,
  ].join('\n');
}
