// A replay beside programs at work, killed midway and started again, or with what it stands beside killed: a fault of either
// set-up. Readers notice nothing of it, which they say themselves, and the views are right afterwards, which the oracle says.
import { throughlineArguments, startVerb, type Verb } from '../support/verbs.ts';
import type { Places } from '../support/programs.ts';
import type { Seeded } from '../support/seeded.ts';
import { until } from '../support/serve.ts';
import { type Fault, WAIT_MS } from './rounds.ts';

/** What a replay stands beside. */
export interface Beside {
  readonly places: Places;
  readonly chance: Seeded;
  /** How many events there are to fold, about. */
  acknowledged(): number;
  /** While load goes on: some more of it. */
  noticed(): Promise<void>;
}

/** Slow enough to be met on its way. */
const MEETING_S = 3;

/** One that folds now. */
async function underWay(beside: Beside): Promise<{ readonly group: string; readonly replay: Verb }> {
  const group = beside.chance.pick(['journeys', 'persons']);
  for (;;) {
    const rate = String(Math.max(100, Math.ceil(beside.acknowledged() / MEETING_S)));
    const replay = startVerb(throughlineArguments(beside.places, ['replay', group, '--json', '--rate', rate]), beside.places);
    await until('the replay folds', () => replay.exited() !== undefined || /generation \d+: \d+ %/.test(replay.stderr()), WAIT_MS);
    if (replay.exited() === undefined) return { group, replay };
    if (!mustWait(replay)) throw ended(replay);
    await beside.noticed();
  }
}

/** What is live is itself built first, and for as long as the lease of a dead replay lasts, another is told that it is busy. */
function mustWait(replay: Verb): boolean { return /"kind":"busy"|is still being built/.test(replay.stdout()); }

function ended(replay: Verb): Error { return new Error(`the replay ended with ${String(replay.exited())}: ${replay.stdout()}${replay.stderr()}`); }

/** To its end; what it said, where it does not come. */
async function over(replay: Verb): Promise<void> {
  await until('the replay ends', () => replay.exited() !== undefined, WAIT_MS).catch((fault: unknown) => { throw new Error(`${String(fault)}: ${replay.stdout()}${replay.stderr()}`); });
}

/** Promoted, and equal to what it takes the place of. */
function isPromoted(replay: Verb): boolean {
  const told = replay.exited() === 0 ? (JSON.parse(replay.stdout()) as { readonly kind: string; readonly compared: { readonly equal: boolean } | null }) : null;
  return told?.kind === 'promoted' && told.compared?.equal === true;
}

export function replays<T>(besideOf: (target: T) => Beside, others: readonly { readonly name: string; readonly kill: (target: T) => Promise<void> }[]): readonly Fault<T>[] {
  return [
    {
      name: 'kill -9 of a replay under way, which is started again',
      strike: async (target) => {
        const beside = besideOf(target);
        const { group, replay } = await underWay(beside);
        await replay.kill();
        for (let waits = true; waits;) {
          await beside.noticed();
          const next = startVerb(throughlineArguments(beside.places, ['replay', group, '--json']), beside.places);
          await over(next);
          waits = mustWait(next);
          if (!waits && !isPromoted(next)) throw ended(next);
        }
      },
    },
    ...others.map(({ name, kill }): Fault<T> => ({
      name: `kill -9 of ${name} while a replay goes on beside it`,
      strike: async (target) => {
        const { replay } = await underWay(besideOf(target));
        await kill(target);
        await over(replay);
        if (!isPromoted(replay)) throw ended(replay);
      },
    })),
  ];
}
