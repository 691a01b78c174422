// `serve` on one folder, killed and frozen under load; then what was acknowledged is looked for, by the public doors alone.
// Two rounds; `make chaos` runs 100 (SEED=… repeats a run).
import { readFileSync, writeFileSync } from 'node:fs';
import { judged, logOf, SEED } from '../e2e/servers/stage.ts';
import { account } from '../support/oracle.ts';
import { type Places, type Program, Programs } from '../support/programs.ts';
import { seeded } from '../support/seeded.ts';
import { removeFolder, temporaryFolder } from '../support/serve.ts';
import { Clients } from './clients.ts';
import { replays } from './replays.ts';
import { chaos, type Fault, type Outcome, ROUNDS, type Site, WAIT_MS } from './rounds.ts';

const PUBLISHERS = 24;
const READERS = 2;
/** Of a fault that goes on for a while: until so many more events are acknowledged. */
const NOTICED = 200;
/** Per round some three seconds, and as much again for the oracle. */
const TEST_MS = 120_000 + ROUNDS * 30_000;

/** One `serve` after the other on one folder. */
class House implements Site {
  readonly name = 'embedded';
  readonly clients: Clients;
  readonly programs = new Programs();
  readonly places: Places;
  readonly chance = seeded(SEED);
  #serve: Program | null = null;

  constructor(folder: string) {
    this.places = { source: '', events: null, views: null, folder: `${folder}/data`, masterKey: '7'.repeat(64), workspaceSecret: '8'.repeat(64) };
    this.clients = new Clients(() => this.serve, { publishers: PUBLISHERS, readers: READERS, seed: SEED, paceMs: 1000, snapshots: true });
  }

  get serve(): Program {
    if (this.#serve === null) throw new Error('nothing serves yet');
    return this.#serve;
  }

  async start(whenReady = true): Promise<void> { this.#serve = await this.programs.start('serve', this.places, { logLevel: 'error', whenReady }); }
  feed(): Promise<unknown> { return Promise.resolve(); }
  acknowledged(): number { return this.clients.acknowledged(); }
  async recovered(): Promise<void> { await this.clients.until('serve is ready', async () => (await this.serve.readiness())?.ok === true, WAIT_MS); }

  async noticed(): Promise<void> {
    const enough = this.acknowledged() + NOTICED;
    await this.clients.until('more is acknowledged', () => this.acknowledged() >= enough, WAIT_MS);
  }

  async audit(): ReturnType<Site['audit']> {
    const { account, wrong } = await judged(this.places, this.programs, [this.serve], { spoken: this.clients.ledger.spoken, withinMs: WAIT_MS });
    return { account, wrong: [...wrong, ...await this.clients.histories(), ...this.clients.wrong()] };
  }

  async end(): Promise<void> {
    await this.clients.giveUp();
    await this.programs.endAll();
  }
}

/** Started again at once: publishers that wait for it ask again by themselves. */
async function kill(house: House): Promise<void> {
  await house.serve.end('SIGKILL');
  await house.start();
}

const FAULTS: readonly Fault<House>[] = [
  { name: 'kill -9 of serve', strike: kill },
  {
    name: 'kill -9 of serve, and of the next one while it starts',
    strike: async (house) => {
      await house.serve.end('SIGKILL');
      await house.start(false);
      await house.serve.end('SIGKILL');
      await house.start();
    },
  },
  {
    name: 'serve frozen until every publisher waits, then killed',
    strike: async (house) => {
      house.serve.freeze();
      await house.clients.until('every publisher waits', () => house.clients.allWait(), WAIT_MS);
      await kill(house);
    },
  },
  {
    name: 'serve frozen until every publisher waits, then thawed',
    strike: async (house) => {
      house.serve.freeze();
      await house.clients.until('every publisher waits', () => house.clients.allWait(), WAIT_MS);
      house.serve.thaw();
    },
  },
];
/** These take longer than `make test` has. */
const REPLAYS = replays<House>((house) => house, [{ name: 'serve', kill }]);

describe(`${String(ROUNDS)} rounds of kills and freezes of serve under load (seed ${String(SEED)})`, () => {
  const folder = temporaryFolder();
  const house = new House(folder);
  let outcome: Outcome;

  beforeAll(async () => {
    await house.start();
    outcome = await chaos(house, { target: house, faults: ROUNDS > 2 ? [...FAULTS, ...FAULTS, ...REPLAYS] : FAULTS, rounds: ROUNDS, seed: SEED });
  }, TEST_MS);
  afterAll(async () => {
    await house.end();
    removeFolder(folder);
  });

  test('G1, G2, G3, G4, G5, G9: everything acknowledged is there once and where its answer said, in order; every answer was right; every view equals a fresh fold of the log', () => {
    expect(outcome).toMatchObject({ wrong: [], account: { lost: 0, twice: 0 } });
    expect(outcome.account.acknowledged).toBe(house.clients.acknowledged());
  });

  test('the load was one: clients were left without an answer, sent again, were told of repeats and refusals, and read all the while', () => {
    const { unanswered, duplicates, rejected } = house.clients.ledger;
    expect({ unanswered: unanswered > 0 || outcome.struck.every((name) => name.endsWith('thawed')), duplicates: duplicates > 0, rejected: rejected > 0, reads: house.clients.reads() > 0 })
      .toEqual({ unanswered: true, duplicates: true, rejected: true, reads: true });
  });

  test('the oracle itself: it counts what is missing from the log, what stands there twice, and what nobody sent', async () => {
    const { places, clients: { ledger: { spoken } } } = house;
    const log = logOf(places);
    const lines = readFileSync(log, 'utf8').trimEnd().split('\n');
    expect(await account(places, log, new Map([...spoken, ['what is nowhere', true]]))).toMatchObject({ lost: 1, twice: 0 });
    expect((await account(places, log)).wrong[0]).toMatch(/nobody published it/);
    writeFileSync(log, `${[...lines, lines.at(-1)].join('\n')}\n`);
    expect(await account(places, log, spoken)).toMatchObject({ lost: 0, twice: 1 });
  });
});
