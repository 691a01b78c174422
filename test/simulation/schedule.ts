// A schedule is all that a run depends on, as data: what there is, what comes in and when, which task goes first, and what
// goes wrong. A seed draws one; one that fails is made smaller, piece by piece, while it still fails.
import { seeded, type Seeded } from '../support/seeded.ts';
import type { Fault, Op, What } from './world.ts';

export const WORKSPACES = ['acme', 'rival', 'w1'] as const;
export type Workspace = (typeof WORKSPACES)[number];

export interface Setup {
  /** Whether the event store knows every id for ever, or the last of a stream alone. */
  readonly unique: boolean;
  readonly partitions: number;
  readonly ingests: number;
  /** Processes that take what clients publish, and the clients. */
  readonly apis: number;
  readonly clients: number;
  readonly importer: boolean;
  readonly workers: number;
  /** When they start: the later, the more stands in the log before the first generation is made. */
  readonly workersMs: number;
  /** Whether workers share the shards by leases, or all fold all of them. */
  readonly leases: boolean;
  readonly shards: number;
  readonly groups: readonly ('journeys' | 'persons')[];
  readonly readers: number;
  readonly deliveriesAtOnce: number;
  readonly eventsAtOnce: number;
  /** Events of one page of a subscription. */
  readonly page: number;
  readonly batchMax: number;
  readonly lanes: number;
  readonly stepBytesMax: number;
  readonly cacheBytesMax: number;
  readonly commitChanges: number | null;
  readonly faultsMax: number;
  /** Events that stand in one stream from the beginning: more than the door remembers of it. */
  readonly older: number;
  readonly restartMs: number;
  /** When the first worker comes back with another version of the projections, and how long after each other the next. */
  readonly upgrade: { readonly ms: number; readonly apartMs: number } | null;
  /** Replays, each at its time or once the one before is done; `back` returns to the generation before. */
  readonly replays: readonly { readonly ms: number; readonly to: 'next' | 'back' }[];
}

export const POISONS = ['notJson', 'noId', 'nobody', 'anotherWorkspace'] as const;
export type Poison = (typeof POISONS)[number];

/** One delivery as its sender writes it. */
export interface Sent {
  /** `topic`, `import`, or `client <n>`. */
  readonly by: string;
  readonly ms: number;
  readonly workspace: Workspace;
  /** Null: an event that ought to be recorded. */
  readonly poison: Poison | null;
  readonly text: string;
}

export interface Schedule {
  readonly setup: Setup;
  readonly load: readonly Sent[];
  readonly faults: readonly Fault[];
  readonly choices: readonly number[];
}

// ---- drawing -----------------------------------------------------------------------------------------------------------

/** What a run is mostly about; a seed's theme is the remainder of its division by their number. */
export const THEMES = ['everything', 'doors', 'views', 'promotions'] as const;
export type Theme = (typeof THEMES)[number];
export const themeOf = (seed: number): Theme => THEMES[seed % THEMES.length] ?? 'everything';

export const START_MS = Date.UTC(2026, 2, 2, 9);
/** Over which the load comes in. */
const LOAD_MS = 2000;
/** Where something is promoted: longer than a hold, so that there is something to fold before, in and after it. */
const PROMOTION_LOAD_MS = 6000;
const CHOICES = 1200;
const STATES = ['started', 'waiting', 'answered', 'held', 'resumed', 'described', 'ended'] as const;

export function drawn(seed: number): Schedule {
  const chance = seeded(Math.imul(seed + 1, 0x9e3779b1));
  // The first draws of seeds near each other are alike.
  for (let i = 0; i < 4; i += 1) chance.below(2);
  const theme = themeOf(seed);
  const without = drawSetup(chance, theme);
  const load = drawLoad(chance, without, theme);
  const setup = { ...without, ...drawPromotions(chance, theme, load) };
  return { setup, load, faults: drawFaults(chance, theme), choices: Array.from({ length: CHOICES }, () => chance.below(60)) };
}

function drawSetup(chance: Seeded, theme: Theme): Setup {
  const some = (...from: readonly number[]): number => chance.pick(from);
  const groups = chance.pick([['journeys'], ['journeys'], ['persons'], ['persons'], ['journeys', 'persons']] as const);
  const all: Setup = {
    unique: chance.below(2) === 0, partitions: some(1, 2, 3), ingests: some(0, 1, 1, 2), apis: some(1, 2), clients: some(0, 1, 2), importer: chance.below(4) === 0,
    workers: some(1, 2, 2), leases: chance.below(3) === 0, shards: some(1, 1, 2, 3), groups, readers: some(0, 1),
    deliveriesAtOnce: some(2, 5, 40), eventsAtOnce: some(2, 500), page: some(1, 3, 8, 500), batchMax: some(2, 6, 4096), lanes: some(1, 2),
    stepBytesMax: some(600, 1e7, 1e7), cacheBytesMax: some(0, 2000, 1e7), commitChanges: chance.pick([null, null, 4, 12]), faultsMax: some(1, 2, 3, 8), workersMs: some(0, 0, 0, 1500),
    older: chance.below(80) === 0 ? 300 : 0, restartMs: some(20, 300, 1500), upgrade: null, replays: [],
  };
  switch (theme) {
    case 'everything': return all;
    case 'doors': return { ...all, workersMs: 0, faultsMax: some(1, 2, 3), eventsAtOnce: some(1, 2, 500), importer: chance.below(2) === 0, groups: [groups[0]], workers: 1, leases: false, shards: 1, readers: 0, page: 500, batchMax: 4096, lanes: 1, cacheBytesMax: 1e7, stepBytesMax: 1e7, commitChanges: null };
    case 'views': return { ...all, ingests: 0, apis: 1, clients: 1, importer: false };
    case 'promotions': return { ...all, groups: [groups[0]], ingests: 0, apis: 1, clients: 1, importer: false, leases: false, readers: some(1, 2) };
  }
}

/** At moments at which something comes in. */
function drawPromotions(chance: Seeded, theme: Theme, load: readonly Sent[]): Pick<Setup, 'upgrade' | 'replays'> {
  const ms = (): number => chance.pick(load).ms;
  switch (theme === 'everything' ? chance.below(8) : theme === 'promotions' ? chance.below(4) : 4) {
    case 0: return { upgrade: null, replays: [{ ms: ms(), to: 'next' }] };
    case 1: return { upgrade: null, replays: [{ ms: ms(), to: 'next' }, { ms: ms(), to: 'back' }] };
    case 2: return { upgrade: null, replays: [{ ms: ms(), to: 'next' }, { ms: ms(), to: 'next' }, { ms: ms(), to: 'back' }] };
    case 3: return { upgrade: { ms: chance.below(2000), apartMs: chance.pick([300, 4000]) }, replays: chance.below(3) === 0 ? [{ ms: ms(), to: 'next' }] : [] };
    default: return { upgrade: null, replays: [] };
  }
}

/** The senders that there are. */
export function sendersOf({ ingests, clients, importer }: Setup): string[] {
  const senders = [...(ingests > 0 ? ['topic', 'topic'] : []), ...Array.from({ length: clients }, (_, n) => `client ${String(n)}`), ...(importer ? ['import'] : [])];
  return senders.length > 0 ? senders : ['client 0'];
}

function drawLoad(chance: Seeded, setup: Setup, theme: Theme): Sent[] {
  const overMs = theme === 'promotions' ? PROMOTION_LOAD_MS : LOAD_MS;
  const senders = sendersOf(setup);
  const count = 3 + chance.below(12);
  const customers = 1 + chance.below(5);
  const load: Sent[] = [];
  let ms = 0;
  for (let n = 0; n < count; n += 1) {
    // In bursts: most of what comes, comes at once.
    if (chance.below(3) === 0) ms += chance.below(Math.floor((overMs / count) * 6));
    const before = load.length > 0 && chance.below(8) === 0 ? chance.pick(load) : null;
    load.push(before === null ? { by: chance.pick(senders), ms, ...drawEvent(chance, n, customers) } : { ...before, by: chance.pick(senders), ms });
  }
  return load;
}

function drawEvent(chance: Seeded, n: number, customers: number): Pick<Sent, 'workspace' | 'poison' | 'text'> {
  const workspace = chance.pick(['acme', 'acme', 'rival', 'w1'] as const);
  const customer = chance.below(customers);
  const interaction = `i${String(chance.below(customers * 2))}`;
  const about = chance.pick(['interaction', 'interaction', 'interaction', 'interaction', 'identified', 'named'] as const);
  const attributes = {
    // Some producers give one id to everything.
    specversion: '1.0', id: chance.below(12) === 0 ? 'same' : `e${String(n)}`, source: 's', workspace,
    type: about === 'interaction' ? `org.throughline.interaction.${chance.pick(STATES)}` : `org.throughline.customer.${about}`,
    // Coarse, so that many of them tie.
    ...(chance.below(12) === 0 ? {} : { time: new Date(START_MS - 60_000 + chance.below(10) * 2000).toISOString() }),
    identity: chance.below(12) === 0 ? 'anonymous' : `c${String(customer)}@example.com`, identitytype: 'email',
    ...(chance.below(12) === 0 ? { previousidentity: `c${String(chance.below(customers))}@example.com` } : {}),
  };
  const said = about === 'named' ? { name: `Name ${String(n)}` } : about === 'identified' ? { identifiers: [{ type: 'phone', value: `+1202555010${String(chance.below(customers))}` }] } : {
    interactionId: interaction, n, ...drawState(chance),
    ...(chance.below(8) === 0 ? { linkedTo: `i${String(chance.below(customers * 2))}` } : {}), ...(chance.below(8) === 0 ? { journeyId: `J${String(chance.below(3))}` } : {}),
  };
  const poison = chance.below(14) === 0 ? chance.pick(POISONS) : null;
  return { workspace, poison, text: textOf({ ...attributes, data: said }, poison) };
}

/** Enough that it matters which of two that tie comes first. */
function drawState(chance: Seeded): Readonly<Record<string, unknown>> {
  const [queue, agent] = [chance.below(3), chance.below(3)];
  return {
    ...(chance.below(2) === 0 ? { queue: { id: `q${String(queue)}` }, medium: chance.pick(['Phone', 'Chat']) } : {}),
    ...(chance.below(2) === 0 ? { agents: [{ id: `a${String(agent)}` }], topics: [`t${String(agent)}`] } : {}),
  };
}

function textOf(event: Readonly<Record<string, unknown>>, poison: Poison | null): string {
  const without = (...names: readonly string[]): string => JSON.stringify(Object.fromEntries(Object.entries(event).filter(([name]) => !names.includes(name))));
  switch (poison) {
    case null: return JSON.stringify(event);
    case 'notJson': return JSON.stringify(event).slice(0, -1);
    case 'noId': return without('id');
    case 'nobody': return without('identity', 'identitytype', 'previousidentity');
    case 'anotherWorkspace': return JSON.stringify({ ...event, workspace: 'not_ours' });
  }
}

/** Where faults fall: how often, how many calls of the kind a run makes, and what may become of one. */
const FAULTY: readonly (readonly [op: Op, weight: number, calls: number, what: readonly What[]])[] = [
  ['append', 26, 20, ['lost', 'unanswered', 'unanswered', 'afterwards', 'afterwards', 'late', 'lateReply', 'crash', 'crashAfter']],
  ['readStream', 8, 6, ['lost', 'late', 'lateReply', 'crash']],
  ['commit', 24, 20, ['lost', 'unanswered', 'unanswered', 'afterwards', 'late', 'lateReply', 'held', 'crash', 'crashAfter']],
  ['load', 10, 60, ['lost', 'late', 'lateReply', 'crash']],
  ['page', 10, 14, ['lost', 'ends', 'late', 'crash']],
  ['position', 3, 10, ['lost', 'late', 'lateReply']],
  ['digest', 2, 8, ['lost', 'lateReply']],
  ['head', 2, 6, ['lost', 'late', 'lateReply']],
  ['views', 8, 40, ['lost', 'unanswered', 'late', 'lateReply', 'crash', 'crashAfter']],
  ['promotion', 8, 4, ['lost', 'unanswered', 'late', 'late', 'lateReply', 'crash', 'crashAfter']],
  ['tally', 2, 4, ['lost', 'unanswered', 'crash']],
  ['letter', 8, 4, ['lost', 'unanswered', 'late', 'lateReply', 'crash', 'crashAfter']],
  ['deliver', 5, 10, ['late', 'crash']],
  ['offset', 5, 14, ['lost', 'lost', 'crash', 'crashAfter']],
  ['request', 3, 8, ['lost', 'late', 'crash']],
  ['response', 4, 8, ['unanswered', 'lateReply', 'crashAfter']],
];
const AT_DOORS: ReadonlySet<Op> = new Set<Op>(['append', 'readStream', 'tally', 'letter', 'deliver', 'offset', 'request', 'response']);
const weighted = (about: (op: Op) => boolean): readonly (typeof FAULTY)[number][] => FAULTY.filter(([op]) => about(op)).flatMap((one) => Array.from({ length: one[1] }, () => one));
const WEIGHTS: Readonly<Record<Theme, readonly (typeof FAULTY)[number][]>> = {
  everything: weighted(() => true), doors: weighted((op) => AT_DOORS.has(op)), views: weighted((op) => !AT_DOORS.has(op)), promotions: weighted((op) => !AT_DOORS.has(op)),
};

function drawFaults(chance: Seeded, theme: Theme): Fault[] {
  // A tenth of all runs meets none: what goes wrong then goes wrong by itself.
  const count = chance.below(10) === 0 ? 0 : 1 + chance.below(10);
  return Array.from({ length: count }, () => {
    const [op, , calls, what] = chance.pick(WEIGHTS[theme]);
    return { op, nth: chance.below(calls), times: chance.below(5) === 0 ? 2 + chance.below(4) : 1, what: chance.pick(what), ms: chance.pick([1, 5, 30, 200, 900, 2500]) };
  });
}

// ---- shrinking -----------------------------------------------------------------------------------------------------------

/** Simpler set-ups, one change each. */
const SIMPLER: readonly Partial<Setup>[] = [
  { readers: 0 }, { upgrade: null }, { replays: [] }, { workers: 1 }, { leases: false }, { shards: 1 }, { groups: ['journeys'] }, { groups: ['persons'] }, { older: 0 }, { lanes: 1 }, { commitChanges: null },
  { stepBytesMax: 1e7 }, { cacheBytesMax: 1e7 }, { page: 500 }, { batchMax: 4096 }, { deliveriesAtOnce: 40 }, { eventsAtOnce: 500 }, { ingests: 1 }, { apis: 1 }, { partitions: 1 }, { unique: true }, { faultsMax: 8 }, { workersMs: 0 }, { restartMs: 20 },
];

/** The schedule with as little in it as still fails by `fails`, within so many tries. */
export async function shrunk(schedule: Schedule, fails: (schedule: Schedule) => Promise<boolean>, triesMax = 600): Promise<Schedule> {
  let best = schedule;
  let tries = 0;
  const take = async (candidate: Schedule): Promise<boolean> => {
    if (tries >= triesMax) return false;
    tries += 1;
    if (!(await fails(candidate))) return false;
    best = candidate;
    return true;
  };
  for (let before: Schedule | null = null; before !== best && tries < triesMax;) {
    before = best;
    await take({ ...best, choices: [] });
    await pieces(() => best.faults, (faults) => take({ ...best, faults }));
    await pieces(() => best.load, (load) => take({ ...best, load }));
    for (const simpler of SIMPLER) {
      const isNew = Object.entries(simpler).some(([name, value]) => JSON.stringify(best.setup[name as keyof Setup]) !== JSON.stringify(value));
      if (isNew) await take({ ...best, setup: { ...best.setup, ...simpler } });
    }
    await take({ ...best, choices: best.choices.slice(0, best.choices.length >> 1) });
    await zeroes(() => best.choices, (choices) => take({ ...best, choices }));
  }
  return best;
}

/** Leaves out halves, then quarters, down to single ones. */
async function pieces<T>(now: () => readonly T[], take: (rest: readonly T[]) => Promise<boolean>): Promise<void> {
  for (let size = Math.ceil(now().length / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    for (let from = 0; from < now().length;) {
      const all = now();
      if (!(await take([...all.slice(0, from), ...all.slice(from + size)]))) from += size;
    }
  }
}

/** Choices keep their places: what is left out goes by age. */
async function zeroes(now: () => readonly number[], take: (choices: readonly number[]) => Promise<boolean>): Promise<void> {
  for (let size = Math.ceil(now().length / 2); size >= 8; size = Math.ceil(size / 2)) {
    for (let from = 0; from < now().length; from += size) {
      const all = now();
      if (all.slice(from, from + size).some((choice) => choice !== 0)) await take(all.map((choice, at) => (at >= from && at < from + size ? 0 : choice)));
    }
  }
}
