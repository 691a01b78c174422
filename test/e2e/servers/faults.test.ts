// What may happen to a line at work, each a test of its own under load, all with the same oracle (test/support/oracle.ts):
// nothing lost, nothing twice, no view wrong. `make faults` runs every one; elsewhere two of them run, chosen by the seed that
// the tests' name tells (SEED=… of `make faults` repeats it).
import { execFileSync } from 'node:child_process';
import { startEventStoreDouble } from '../../support/eventstoredb/double.ts';
import { describeOn } from '../../support/local-server.ts';
import { passed } from '../../support/oracle.ts';
import type { Program } from '../../support/programs.ts';
import type { Proxy, Weather } from '../../support/proxy.ts';
import { seeded } from '../../support/seeded.ts';
import { until } from '../../support/serve.ts';
import { type Line, SEED, Stage, SERVERS } from './stage.ts';

const RECORDS = 3000;
/** After so many of them the fault strikes; the rest comes while it lasts. */
const STRIKE_AT = 1000;
const RECORDS_A_SECOND = 1000;
/** Longer than any timeout that a fault makes somebody wait for (a consumer's session, a store's call). */
const WAIT_MS = 90_000;
const TEST_MS = 300_000;

interface Scene {
  readonly stage: Stage;
  readonly line: Line;
  readonly api: Program;
  readonly ingest: Program;
  readonly project: Program;
  /** One more of a kind. */
  start(name: 'ingest' | 'project' | 'api'): Promise<Program>;
}
interface Fault {
  readonly name: string;
  /** SQLite, or a double of an EventStoreDB as a process of its own. */
  readonly events: 'sqlite' | 'double';
  /** Strikes; answers which programs run from now on. What it did to a network is undone when all is published. */
  strike(scene: Scene): Promise<readonly Program[]>;
}

const all = ({ api, ingest, project }: Scene): readonly Program[] => [api, ingest, project];

/** Waits until so many bytes more went through: something is under way. */
async function underWay(proxy: Proxy, bytes = 20_000): Promise<void> {
  const { sent, answered } = proxy.carried();
  await until('the line is at work', () => proxy.carried().sent + proxy.carried().answered > sent + answered + bytes, WAIT_MS);
}

/** Replies vanish until some have: the work behind them was done, and nobody was told. */
async function unanswered(proxy: Proxy): Promise<void> {
  const before = proxy.carried().swallowed;
  proxy.set({ kind: 'mute' });
  await until('a reply is swallowed', () => proxy.carried().swallowed > before, WAIT_MS);
  proxy.set({ kind: 'pass' });
}

const killed = (name: 'ingest' | 'project' | 'api'): Fault => ({
  name: `kill -9 of ${name}`, events: 'sqlite',
  strike: async (scene) => {
    await scene[name].end('SIGKILL');
    const next = await scene.start(name);
    return all({ ...scene, [name]: next });
  },
});

type Place = keyof Stage['proxies'];
function proxyOf({ stage }: Scene, place: Place): Proxy {
  const proxy = stage.proxies[place];
  if (proxy === null) throw new Error(`there is no proxy before ${place}`);
  return proxy;
}
const CALLED: Readonly<Record<Place, string>> = { kafka: 'Kafka', redis: 'Redis', events: 'the event store' };

/** Between us and each server: replies that never come, connections cut in the middle, every chunk late. */
function networks(place: Place): readonly Fault[] {
  const events = place === 'events' ? 'double' : 'sqlite';
  const weather = (kind: string, sky: Weather): Fault => ({
    name: `${kind} between us and ${CALLED[place]}`, events,
    strike: async (scene) => {
      proxyOf(scene, place).set(sky);
      return all(scene);
    },
  });
  return [
    {
      name: `replies lost between us and ${CALLED[place]}`, events,
      strike: async (scene) => {
        for (let time = 0; time < 3; time += 1) await unanswered(proxyOf(scene, place));
        return all(scene);
      },
    },
    {
      name: `connections cut between us and ${CALLED[place]}`, events,
      strike: async (scene) => {
        for (let time = 0; time < 5; time += 1) {
          proxyOf(scene, place).cut();
          await underWay(proxyOf(scene, place), 2000);
        }
        return all(scene);
      },
    },
    weather('delays', { kind: 'delay', ms: 20 }),
  ];
}

const FAULTS: readonly Fault[] = [
  killed('ingest'), killed('project'), killed('api'),
  {
    name: 'kill -9 of Redis', events: 'sqlite',
    strike: async (scene) => {
      await scene.stage.redis.kill();
      await scene.stage.redis.restart();
      return all(scene);
    },
  },
  {
    // Nothing of it was kept: the projector starts from nothing, and says `building` until it is there again.
    name: 'kill -9 of Redis, which comes back empty', events: 'sqlite',
    strike: async (scene) => {
      execFileSync('redis-cli', ['-p', String(scene.stage.redis.port), 'flushall']);
      await scene.stage.redis.kill();
      await scene.stage.redis.restart();
      return all(scene);
    },
  },
  {
    name: 'kill -9 of the broker', events: 'sqlite',
    strike: async (scene) => {
      await scene.stage.broker.kill();
      await scene.stage.broker.restart();
      return all(scene);
    },
  },
  {
    name: 'kill -9 of the event store', events: 'double',
    strike: async (scene) => {
      await scene.stage.eventServer?.kill();
      await scene.stage.eventServer?.restart();
      return all(scene);
    },
  },
  {
    // Frozen with appends and commits in hand, it is given up by the group, and its partitions become another's; when it goes
    // on, it still believes that they are its own, and finishes what it had begun.
    name: 'a zombie: ingest frozen past its session, then thawed', events: 'sqlite',
    strike: async (scene) => {
      await underWay(scene.stage.proxies.kafka);
      scene.ingest.freeze();
      const heir = await scene.start('ingest');
      // The partitions of the frozen one are the heir's once its session is over; before, they stand still.
      await passed(scene.line.places, () => { if (heir.exited() !== undefined) throw new Error(heir.output()); }, WAIT_MS);
      scene.ingest.thaw();
      return [scene.api, scene.ingest, heir, scene.project];
    },
  },
  ...networks('kafka'), ...networks('redis'), ...networks('events'),
];

const CHOSEN = process.env['THROUGHLINE_TEST_FAULTS'] === 'all' ? FAULTS : seeded(SEED).shuffled(FAULTS).slice(0, 2);

for (const events of ['sqlite', 'double'] as const) {
  const chosen = CHOSEN.filter((fault) => fault.events === events);
  if (chosen.length > 0) describeOn(SERVERS, `${String(CHOSEN.length)} of ${String(FAULTS.length)} faults on Kafka and Redis (seed ${String(SEED)}), events in ${events === 'sqlite' ? 'SQLite' : 'the double of an EventStoreDB'}`, () => tell(events, chosen));
}

function tell(events: Fault['events'], chosen: readonly Fault[]): void {
  let stage: Stage;
  let line: Line | null = null;
  beforeAll(async () => { stage = await Stage.open(events === 'double' ? startEventStoreDouble : null); }, 180_000);
  afterEach(async () => {
    stage.clear();
    await line?.end();
    line = null;
  });
  afterAll(async () => { await stage.close(); }, 180_000);

  test.each(chosen.map((fault) => [fault.name, fault] as const))('G1, G2, G3, G4: %s loses nothing, doubles nothing, and leaves every view right', async (_name, { strike }) => {
    const opened = (line = await stage.line());
    const [api, ingest, project] = await opened.start('ingest', 'project');
    if (ingest === undefined || project === undefined) throw new Error('not all were started');
    const start = (name: 'ingest' | 'project' | 'api'): Promise<Program> => opened.programs.start(name, opened.places);
    const begun = Promise.withResolvers<undefined>();
    const struck = begun.promise.then(() => strike({ stage, line: opened, api, ingest, project, start }));
    const [written, running] = await Promise.all([
      opened.publishLoad(RECORDS, { perSecond: RECORDS_A_SECOND, onWritten: (count) => { if (count >= STRIKE_AT) begun.resolve(undefined); } }),
      struck,
    ]);
    expect(written).toBe(RECORDS);
    const { account } = await opened.judge(running, WAIT_MS);
    // A producer that was not answered wrote again.
    expect(account.received).toBeGreaterThanOrEqual(RECORDS);
  }, TEST_MS);
}
