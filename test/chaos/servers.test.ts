// A line on a real broker and a real Redis, its programs and its servers killed and frozen under load: from a topic, and over
// HTTP with what the publishers were told. The oracle (test/support/oracle.ts) finds nothing lost, nothing twice, no view wrong.
//
//   `make test`: two rounds by seed, one that kills or freezes a process and one of another kind
//   `make chaos`: 100 of kills and freezes, half of them over SQLite and half over the double of an EventStoreDB
//   `make faults`: every fault of both kinds, each by itself on a line of its own under a heavier load
import { startEventStoreDouble } from '../support/eventstoredb/double.ts';
import { load } from '../support/load.ts';
import { describeOn } from '../support/local-server.ts';
import { type Seeded, seeded } from '../support/seeded.ts';
import { judged, type Line, SEED, SERVERS, Stage } from '../e2e/servers/stage.ts';
import { type ClientOptions, Clients } from './clients.ts';
import { Crew, FAULTS, KILLS, type LineFault, OTHERS, REPLAYS } from './faults.ts';
import { chaos, type Outcome, ROUNDS, SECONDS, type Site, WAIT_MS } from './rounds.ts';

type Store = 'sqlite' | 'double';
const CALLED: Readonly<Record<Store, string>> = { sqlite: 'SQLite', double: 'the double of an EventStoreDB' };
const of = (store: Store, faults: readonly LineFault[]): readonly LineFault[] => faults.filter(({ events }) => events === 'either' || events === store);
const openStage = (store: Store): Promise<Stage> => Stage.open(store === 'double' ? startEventStoreDouble : null);
const OPEN_MS = 180_000;

if (process.env['THROUGHLINE_TEST_FAULTS'] === 'all') for (const store of ['sqlite', 'double'] as const) alone(store);
else if (ROUNDS > 2) for (const store of ['sqlite', 'double'] as const) together(store, of(store, [...KILLS, ...REPLAYS]), Math.ceil(ROUNDS / 2));
else {
  const chance = seeded(SEED);
  const store = chance.pick(['sqlite', 'double'] as const);
  const kill = chance.pick(of(store, KILLS));
  together(store, [kill, chance.pick(of(store, OTHERS))], ROUNDS);
}

// ---- many rounds of one line -------------------------------------------------------------------------------------------

/** A line's programs, and who asks them over HTTP; `written` is how much its topic has taken. */
async function manned(line: Line, asking: Pick<ClientOptions, 'publishers' | 'readers' | 'paceMs'>, chance: Seeded, written: () => number, lasting: () => number): Promise<{ readonly crew: Crew; readonly clients: Clients }> {
  // Who they ask is there before anybody asks.
  let crew: Crew | null = null;
  const clients: Clients = new Clients(() => { if (crew === null) throw new Error('nobody serves yet'); return crew.api; }, { ...asking, seed: SEED, snapshots: false });
  crew = await Crew.of(line, { chance, acknowledged: () => written() + clients.acknowledged(), lasting, onEmptied: () => clients.forgetPositions() });
  return { crew, clients };
}

/** The line of all rounds, with its load. */
class Works implements Site {
  readonly name: string;
  readonly clients: Clients;
  readonly crew: Crew;
  readonly #records = load({ seed: SEED, records: Infinity });
  readonly #written: () => number;
  readonly #onWritten: (more: number) => void;

  static readonly #A_SECOND = 60;

  private constructor(store: Store, crew: Crew, clients: Clients, written: { count: number }) {
    this.name = `Kafka, Redis and ${CALLED[store]}`;
    this.crew = crew;
    this.clients = clients;
    this.#written = () => written.count;
    this.#onWritten = (more) => { written.count += more; };
  }

  static async open(store: Store, line: Line): Promise<Works> {
    const written = { count: 0 };
    const chance = seeded(SEED);
    const { crew, clients } = await manned(line, { publishers: 6, readers: 1, paceMs: 400 }, chance, () => written.count, () => 40 + chance.below(160));
    return new Works(store, crew, clients, written);
  }

  acknowledged(): number { return this.#written() + this.clients.acknowledged(); }

  async feed(stopped: () => boolean): Promise<void> {
    const records = this.#records;
    const untilStopped = function* () {
      while (!stopped()) {
        const { value, done } = records.next();
        if (done === true) return;
        yield value;
      }
    };
    let before = 0;
    await this.crew.line.publish(untilStopped(), { perSecond: Works.#A_SECOND, onWritten: (count) => { this.#onWritten(count - before); before = count; } });
  }

  /** The topic is followed again, too. */
  async recovered(): Promise<void> {
    const { crew } = this;
    crew.stage.clear();
    const received = async (): Promise<number> => (await crew.program('ingest').metric('throughline_ingest_received_total').catch(() => null)) ?? 0;
    const before = await received();
    await crew.until('every program is ready and the topic is followed', async () => (await Promise.all(crew.running().map((one) => one.readiness()))).every((found) => found?.ok === true) && await received() > before);
  }

  async audit(): ReturnType<Site['audit']> {
    const { line } = this.crew;
    const { account, wrong } = await judged(line.places, line.programs, this.crew.running(), { spoken: this.clients.ledger.spoken, withinMs: WAIT_MS });
    return { account, wrong: [...wrong, ...await this.clients.histories(), ...this.clients.wrong()] };
  }
}

function together(store: Store, faults: readonly LineFault[], rounds: number): void {
  const what = rounds > 2 ? 'of kills and freezes' : `(${faults.map(({ name }) => name).join('; ')})`;
  describeOn(SERVERS, `${String(rounds)} rounds ${what} on Kafka and Redis under load, events in ${CALLED[store]} (seed ${String(SEED)})`, () => {
    let stage: Stage;
    let works: Works;
    let outcome: Outcome;
    beforeAll(async () => {
      stage = await openStage(store);
      works = await Works.open(store, await stage.line());
      outcome = await chaos(works, { target: works.crew, faults, rounds, seed: SEED, seconds: SECONDS / 2 });
    }, OPEN_MS + rounds * 60_000);
    afterAll(async () => {
      await works.clients.giveUp();
      await works.crew.line.end();
      await stage.close();
    }, OPEN_MS);

    test('G1, G2, G3, G4: everything acknowledged is recorded once, known again or dead-lettered, in order, and every view equals that of the same log elsewhere', () => {
      expect(outcome).toMatchObject({ wrong: [], account: { lost: 0, twice: 0 } });
      const { received, recorded, duplicates, deadLettered } = outcome.account;
      expect(received).toBe(recorded + duplicates + deadLettered);
      expect(received).toBeGreaterThan(0);
      expect(works.clients.acknowledged()).toBeGreaterThan(0);
    });
  });
}

// ---- each fault by itself ----------------------------------------------------------------------------------------------

const RECORDS = 3000;
/** After so many of them the fault strikes; the rest comes while it lasts. */
const STRIKE_AT = 1000;
const RECORDS_A_SECOND = 1000;
const LASTING = 500;

function alone(store: Store): void {
  // What does not ask for a store has the plainer one.
  const faults = FAULTS.filter(({ events }) => (events === 'either' ? 'sqlite' : events) === store);
  describeOn(SERVERS, `every fault on Kafka and Redis, events in ${CALLED[store]} (seed ${String(SEED)})`, () => {
    let stage: Stage;
    let line: Line | null = null;
    beforeAll(async () => { stage = await openStage(store); }, OPEN_MS);
    afterEach(async () => {
      stage.clear();
      await line?.end();
      line = null;
    });
    afterAll(async () => { await stage.close(); }, OPEN_MS);

    test.each(faults.map((fault) => [fault.name, fault] as const))('G1, G2, G3, G4: %s loses nothing, doubles nothing, and leaves every view right', async (_name, { strike }) => {
      const opened = (line = await stage.line());
      let written = 0;
      // Over HTTP too: while a broker stands still, no other way is left open.
      const { crew, clients } = await manned(opened, { publishers: 3, readers: 0, paceMs: 20 }, seeded(SEED), () => written, () => LASTING);
      const begun = Promise.withResolvers<undefined>();
      clients.start();
      try {
        const [published] = await Promise.all([
          opened.publishLoad(RECORDS, { perSecond: RECORDS_A_SECOND, onWritten: (count) => { written = count; if (count >= STRIKE_AT) begun.resolve(undefined); } }),
          begun.promise.then(() => strike(crew)),
        ]);
        expect(published).toBe(RECORDS);
        opened.stage.clear();
        await clients.stop();
      } finally {
        await clients.giveUp();
      }
      const { account, wrong } = await judged(opened.places, opened.programs, crew.running(), { spoken: clients.ledger.spoken, withinMs: WAIT_MS });
      expect([...wrong, ...await clients.histories(), ...clients.wrong()]).toEqual([]);
      // A producer that was not answered wrote again.
      expect(account.received).toBeGreaterThanOrEqual(RECORDS);
    }, OPEN_MS + 2 * WAIT_MS);
  });
}
