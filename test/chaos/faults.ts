// What may happen to a line on servers at work: every process of it killed or frozen, and every network between us and a server
// made bad. Each is one strike; what it changed of who runs stands in the crew afterwards.
import type { LocalServer } from '../support/local-server.ts';
import type { Program } from '../support/programs.ts';
import type { Proxy, Weather } from '../support/proxy.ts';
import type { Seeded } from '../support/seeded.ts';
import { until } from '../support/serve.ts';
import type { Line, Stage } from '../e2e/servers/stage.ts';
import { type Beside, replays } from './replays.ts';
import { type Fault, WAIT_MS } from './rounds.ts';

export type Role = 'ingest' | 'project' | 'api';
const ROLES: readonly Role[] = ['api', 'ingest', 'project'];
export interface Load {
  readonly chance: Seeded;
  /** How many events are durable by all ways, as those who published them know. */
  acknowledged(): number;
  /** What goes on for a while goes on until so many more are. */
  lasting(): number;
  /** Told when the views were emptied. */
  onEmptied(): void;
}

/** The programs of a line, one of each kind, and who takes the place of one that died. */
export class Crew {
  readonly line: Line;
  readonly #programs: Record<Role, Program>;
  readonly #load: Load;

  private constructor(line: Line, programs: Record<Role, Program>, load: Load) {
    this.line = line;
    this.#programs = programs;
    this.#load = load;
  }

  static async of(line: Line, load: Load): Promise<Crew> {
    const [api, ingest, project] = await line.start('ingest', 'project');
    if (ingest === undefined || project === undefined) throw new Error('not all were started');
    return new Crew(line, { api, ingest, project }, load);
  }

  get stage(): Stage { return this.line.stage; }
  get api(): Program { return this.#programs.api; }
  running(): readonly Program[] { return ROLES.map((role) => this.#programs[role]); }
  program(role: Role): Program { return this.#programs[role]; }

  async replace(role: Role, next?: Program): Promise<void> { this.#programs[role] = next ?? await this.start(role); }
  start(role: Role): Promise<Program> { return this.line.programs.start(role, this.line.places); }

  async until(what: string, condition: () => boolean | Promise<boolean>): Promise<void> {
    await until(what, () => {
      for (const { name, exited, output } of this.running()) if (exited() !== undefined) throw new Error(`${name} ended with ${String(exited())}: ${output()}`);
      return condition();
    }, WAIT_MS);
  }

  /** For as long as a fault lasts: more is durable by the ways that it leaves open. */
  async noticed(): Promise<void> {
    const enough = this.#load.acknowledged() + this.#load.lasting();
    await this.until('more is acknowledged while the fault lasts', () => this.#load.acknowledged() >= enough);
  }

  beside(): Beside { return { places: this.line.places, chance: this.#load.chance, acknowledged: () => this.#load.acknowledged(), noticed: () => this.noticed() }; }

  emptied(): void { this.#load.onEmptied(); }
}

export interface LineFault extends Fault<Crew> {
  /** SQLite, a double of an EventStoreDB as a process of its own, or whichever there is. */
  readonly events: 'sqlite' | 'double' | 'either';
}

// ---- kills and freezes -------------------------------------------------------------------------------------------------

const killed = (role: Role): LineFault => ({
  name: `kill -9 of ${role}`, events: 'either',
  strike: async (crew) => {
    await crew.program(role).end('SIGKILL');
    await crew.replace(role);
  },
});

const frozen = (role: Role): LineFault => ({
  name: `${role} frozen, then thawed`, events: 'either',
  strike: async (crew) => {
    const program = crew.program(role);
    program.freeze();
    await crew.noticed();
    program.thaw();
  },
});

function servers(name: string, events: LineFault['events'], serverOf: (stage: Stage) => LocalServer): readonly LineFault[] {
  return [
    {
      name: `kill -9 of ${name}`, events,
      strike: async ({ stage }) => {
        await serverOf(stage).kill();
        await serverOf(stage).restart();
      },
    },
    {
      name: `${name} frozen, then thawed`, events,
      strike: async (crew) => {
        serverOf(crew.stage).freeze();
        try {
          await crew.noticed();
        } finally {
          serverOf(crew.stage).thaw();
        }
      },
    },
  ];
}

function eventServer({ eventServer: server }: Stage): LocalServer {
  if (server === null) throw new Error('the event store is no process of its own');
  return server;
}

/** Each process of the line dies, or stands still for a while. */
export const KILLS: readonly LineFault[] = [
  ...ROLES.flatMap((role) => [killed(role), frozen(role)]),
  ...servers('Redis', 'either', ({ redis }) => redis), ...servers('the broker', 'either', ({ broker }) => broker), ...servers('the event store', 'double', eventServer),
];

// ---- all else ----------------------------------------------------------------------------------------------------------

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

type Place = keyof Stage['proxies'];
function proxyOf({ stage }: Crew, place: Place): Proxy {
  const proxy = stage.proxies[place];
  if (proxy === null) throw new Error(`there is no proxy before ${place}`);
  return proxy;
}
const CALLED: Readonly<Record<Place, string>> = { kafka: 'Kafka', redis: 'Redis', events: 'the event store' };

/** Between us and each server: replies that never come, connections cut in the middle, every chunk late. */
function networks(place: Place): readonly LineFault[] {
  const events = place === 'events' ? 'double' : 'either';
  const weather = (kind: string, sky: Weather): LineFault => ({
    name: `${kind} between us and ${CALLED[place]}`, events,
    strike: async (crew) => {
      proxyOf(crew, place).set(sky);
      await crew.noticed();
    },
  });
  return [
    {
      name: `replies lost between us and ${CALLED[place]}`, events,
      strike: async (crew) => { for (let time = 0; time < 3; time += 1) await unanswered(proxyOf(crew, place)); },
    },
    {
      name: `connections cut between us and ${CALLED[place]}`, events,
      strike: async (crew) => {
        for (let time = 0; time < 5; time += 1) {
          proxyOf(crew, place).cut();
          await underWay(proxyOf(crew, place), 2000);
        }
      },
    },
    weather('delays', { kind: 'delay', ms: 20 }),
  ];
}

/** What is no death of a process. */
export const OTHERS: readonly LineFault[] = [
  {
    // Nothing of it was kept: the projector starts from nothing, and says `building` until it is there again.
    name: 'kill -9 of Redis, which comes back empty', events: 'either',
    strike: async (crew) => {
      const { redis } = crew.stage;
      redis.say('flushall');
      await redis.kill();
      crew.emptied();
      await redis.restart();
    },
  },
  {
    // Frozen with appends and commits in hand, it is given up by the group, and its partitions become another's; when it goes
    // on, it still believes that they are its own, and finishes what it had begun.
    name: 'a zombie: ingest frozen past its session, then thawed', events: 'either',
    strike: async (crew) => {
      await underWay(crew.stage.proxies.kafka);
      const zombie = crew.program('ingest');
      zombie.freeze();
      const heir = await crew.start('ingest');
      // The partitions of the frozen one are the heir's once its session is over; before, they stand still.
      await until('the heir is given records', async () => (await heir.metric('throughline_ingest_received_total') ?? 0) > 0, WAIT_MS);
      zombie.thaw();
      await until('the zombie knows better', async () => (await zombie.readiness())?.ok === true, WAIT_MS);
      await crew.replace('ingest', heir);
      await zombie.end();
    },
  },
  ...networks('kafka'), ...networks('redis'), ...networks('events'),
];

/** Of many rounds alone: they take longer than others. */
export const REPLAYS: readonly LineFault[] = replays<Crew>((crew) => crew.beside(), [{ name: 'project', kill: killed('project').strike }]).map((fault) => ({ ...fault, events: 'either' }));

export const FAULTS: readonly LineFault[] = [...KILLS, ...OTHERS];
