// Seeds without a test runner, each a run; ends with one line, and code 1 where one failed, shrunk and told.
//   SIM_SEEDS=200000 SIM_JOBS=2 sh infra/node.sh test/simulation/run.ts   so many (2,000 unless said) from SIM_FROM (0) on
//   SIM_SEED=7 sh infra/node.sh test/simulation/run.ts                    that one alone, step by step
import { simulate } from './line.ts';
import { drawn } from './schedule.ts';
import { inThread, NONE, sumOf, tell, type Totals } from './seeds.ts';

const number = (name: string, otherwise: number): number => Number(process.env[name] ?? otherwise);
const say = (text: string): void => { process.stdout.write(`${text}\n`); };
/** Told of how far it has come after so many. */
const SLICE = 2500;

async function one(seed: number): Promise<boolean> {
  const schedule = drawn(seed);
  say(`setup ${JSON.stringify(schedule.setup)}`);
  const ended = await simulate(schedule, { onStep: say });
  say(ended.failure === null ? `seed ${String(seed)} holds: ${JSON.stringify(ended)}` : await tell(seed, ended.failure));
  return ended.failure === null;
}

/** In slices, so many at a time. */
async function many(): Promise<boolean> {
  const [from, count, failuresMax] = [number('SIM_FROM', 0), number('SIM_SEEDS', 2000), number('SIM_FAILURES', 1)];
  let totals: Totals = { ...NONE };
  let failed = 0;
  let next = from;
  const job = async (): Promise<void> => {
    while (next < from + count && failed < failuresMax) {
      const slice = { from: next, count: Math.min(SLICE, from + count - next), failuresMax, shrinks: process.env['SIM_SHRINK'] !== '0' };
      next += slice.count;
      try {
        const runs = await inThread(slice);
        for (const { told } of runs.failures) say(told);
        failed += runs.failures.length;
        totals = sumOf(totals, runs.totals);
        if (count > SLICE) say(`${String(totals.seeds)} of ${String(count)} seeds, ${String(failed)} failed`);
      } catch (fault) {
        say(fault instanceof Error ? fault.message : String(fault));
        failed += 1;
      }
    }
  };
  await Promise.all(Array.from({ length: number('SIM_JOBS', 1) }, job));
  say(`simulation: ${Object.entries(totals).map(([name, value]) => `${String(value)} ${name}`).join(', ')}, ${String(failed)} failed`);
  return failed === 0;
}

process.exitCode = await (process.env['SIM_SEED'] === undefined ? many() : one(number('SIM_SEED', 0))) ? 0 : 1;
