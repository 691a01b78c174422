// Rounds of faults under load, and what became of what was acknowledged: the part that both set-ups share. A seed chooses what
// happens, when in the load, and in what order; the oracle looks when some rounds are over, and at the end.
//
//   THROUGHLINE_TEST_KILLS    rounds of each set-up (two, where it says nothing; `make chaos` sets 100)
//   CHAOS_SECONDS             no round of a set-up begins later than so many seconds after its first
import type { Account } from '../support/oracle.ts';
import { seeded } from '../support/seeded.ts';
import { summarise } from '../support/summary.ts';
import type { Clients } from './clients.ts';

export const ROUNDS = Number(process.env['THROUGHLINE_TEST_KILLS'] ?? 2);
export const SECONDS = Number(process.env['CHAOS_SECONDS'] ?? Infinity);
/** After so many rounds everything is held against the oracle. */
const AUDITED_EVERY = 20;
/** A round begins once so many more were acknowledged since the one before, and a seeded number besides. */
const BETWEEN = 40;
const BETWEEN_MORE = 120;
/** Longer than any timeout that a fault makes somebody wait for (a consumer's session, a store's call). */
export const WAIT_MS = 90_000;
const WRONG_TOLD = 20;

/** `T`: what it strikes at. */
export interface Fault<T> { readonly name: string; readonly strike: (target: T) => Promise<void> }

export interface Site {
  readonly name: string;
  readonly clients: Clients;
  /** What is published past HTTP, until `stopped`. */
  feed(stopped: () => boolean): Promise<unknown>;
  /** How many are durable by all ways. */
  acknowledged(): number;
  /** Resolves once every program runs and is ready. */
  recovered(): Promise<void>;
  /** Comes to rest, and says what the oracle found. */
  audit(): Promise<{ readonly account: Account; readonly wrong: readonly string[] }>;
}

export interface Outcome { readonly rounds: number; readonly account: Account; readonly wrong: readonly string[]; readonly struck: readonly string[] }

interface Plan<T> { readonly target: T; readonly faults: readonly Fault<T>[]; readonly rounds: number; readonly seed: number; readonly seconds?: number }

/** Each fault in turn, in an order by seed, until there were enough rounds or the time is up. */
export async function chaos<T>(site: Site, plan: Plan<T>): Promise<Outcome> {
  const began = Date.now();
  const told = (what: string): void => summarise(`kills, ${site.name}, seed ${String(plan.seed)}, ${((Date.now() - began) / 1000).toFixed(0)} s: ${what}`);
  const struck: string[] = [];
  try {
    const { account, wrong } = await play(site, plan, struck, began);
    told(`${struck.length < plan.rounds ? `${wrong.length > 0 ? 'stopped' : 'time was up'} before ${String(plan.rounds)}: ` : ''}${String(struck.length)} rounds, ${String(account.acknowledged)} acknowledged, ${String(account.lost)} lost, ${String(account.twice)} twice, ${String(wrong.length)} wrong`);
    return { rounds: struck.length, account, wrong: wrong.slice(0, WRONG_TOLD), struck };
  } catch (fault) {
    told(`ended in round ${String(struck.length)}, not judged: ${String(fault).split('\n')[0] ?? ''}`);
    throw fault;
  }
}

async function play<T>(site: Site, { target, faults, rounds, seed, seconds = SECONDS }: Plan<T>, struck: string[], began: number): ReturnType<Site['audit']> {
  const chance = seeded(seed);
  const order: Fault<T>[] = [];
  while (order.length < rounds) order.push(...chance.shuffled(faults));
  const over = (): boolean => struck.length >= rounds || (Date.now() - began) / 1000 >= seconds;
  for (;;) {
    const until = struck.length + AUDITED_EVERY;
    await underLoad(site, async () => {
      while (!over() && struck.length < until) {
        const { name, strike } = order[struck.length]!;
        const from = site.acknowledged() + BETWEEN + chance.below(BETWEEN_MORE);
        const explained = (fault: unknown): never => { throw new Error(`round ${String(struck.length)}, ${name}: ${String(fault)}`, { cause: fault }); };
        // As much as can be is under way when it strikes, and what comes while a fault lasts does not grow beyond measure.
        site.clients.hurry = true;
        await site.clients.until('enough is acknowledged', () => site.acknowledged() >= from, WAIT_MS).catch(explained);
        struck.push(name);
        const striking = strike(target);
        site.clients.hurry = false;
        await striking.catch(explained);
        await site.recovered().catch(explained);
      }
    });
    const found = await site.audit();
    if (rounds > AUDITED_EVERY) process.stderr.write(`${site.name}: ${String(struck.length)} of ${String(rounds)} rounds, ${String(found.account.acknowledged)} acknowledged, ${String(found.wrong.length)} wrong, ${((Date.now() - began) / 1000).toFixed(0)} s\n`);
    if (over() || found.wrong.length > 0) return found;
  }
}

/** The clients and the feed at work while `work` goes on; whichever of them fails fails it at once. */
async function underLoad(site: Site, work: () => Promise<void>): Promise<void> {
  let stopped = false;
  site.clients.start();
  const fed = site.feed(() => stopped);
  try {
    await Promise.race([work(), fed.then(() => new Promise<never>(() => undefined))]);
    stopped = true;
    await fed;
    await site.clients.stop();
  } catch (fault) {
    stopped = true;
    fed.catch(() => undefined);
    await site.clients.giveUp();
    throw fault;
  }
}
