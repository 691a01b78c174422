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

function begin(beside: Beside): { readonly group: string; readonly replay: Verb } {
  const group = beside.chance.pick(['journeys', 'persons']);
  const rate = String(Math.max(100, Math.ceil(beside.acknowledged() / MEETING_S)));
  return { group, replay: startVerb(throughlineArguments(beside.places, ['replay', group, '--json', '--rate', rate]), beside.places) };
}

async function underWay(replay: Verb): Promise<void> {
  await until('the replay folds', () => {
    if (replay.exited() !== undefined) throw new Error(`the replay ended with ${String(replay.exited())}: ${replay.stdout()}${replay.stderr()}`);
    return /generation \d+: \d+ %/.test(replay.stderr());
  }, WAIT_MS);
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
        const { group, replay } = begin(beside);
        await underWay(replay);
        await replay.kill();
        // For as long as the lease of the dead one lasts, another is told that it is busy.
        for (let busy = true; busy;) {
          await beside.noticed();
          const next = startVerb(throughlineArguments(beside.places, ['replay', group, '--json']), beside.places);
          await next.ended;
          busy = next.stdout().includes('"busy"');
          if (!busy && !isPromoted(next)) throw new Error(`the second replay ended with ${String(next.exited())}: ${next.stdout()}${next.stderr()}`);
        }
      },
    },
    ...others.map(({ name, kill }): Fault<T> => ({
      name: `kill -9 of ${name} while a replay goes on beside it`,
      strike: async (target) => {
        const { replay } = begin(besideOf(target));
        await underWay(replay);
        await kill(target);
        await replay.ended;
        if (!isPromoted(replay)) throw new Error(`the replay ended with ${String(replay.exited())}: ${replay.stdout()}${replay.stderr()}`);
      },
    })),
  ];
}
