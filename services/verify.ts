// `throughline verify`: whether the views say what the log says (projector/verify.ts says how that is found out), and what an
// operator is shown of it.
import { mkdtemp, rm, statfs } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Worker } from 'node:worker_threads';
import type { NodeDocument } from '../projections/documents.ts';
import type { IdentityDocument } from '../projections/persons.ts';
import { nodeKey, type WorkspaceKeys } from '../schemas/identity.ts';
import type { Options } from './config.ts';
import { OperatingError } from './errors.ts';
import { isStale, liveOf, PROJECTIONS, sizeOf } from './generations.ts';
import { openStores, type Stores } from './ops/folder.ts';
import { bytes, count, duration, type Io, orExplain, print, printJson, ProgressBar } from './ops/terminal.ts';
import type { Generation, View, ViewStore } from './ports.ts';
import type { Difference } from './projector/compare.ts';
import { faultOf } from './projector/thread.ts';
import type { FromVerifier, VerifierData } from './projector/verifier.ts';
import { verifyJourney, verifyPerson, type Verified, type VerifiedAll } from './projector/verify.ts';
import { differencesOf } from './replay.ts';
import { shardOf } from './shards.ts';
import { keysReader, masterKeyOf, Workspaces } from './workspaces.ts';

type Kind = 'journey' | 'person';
interface Subject { readonly kind: Kind; readonly keys: WorkspaceKeys; readonly key: string }
interface Found { readonly checked: number; readonly differences: readonly Difference[]; /** Why → how many. */ readonly unknown: Readonly<Record<string, number>> }

/** Random instants in a row at which nothing new was found: then a workspace has hardly more. */
const MISSES_MAX = 30;
const AFTER_MAX = 50;
/** A scratch view has no index: it is smaller than the live one. */
const SCRATCH_SHARE = 0.8;

/** Exit code 0 all the same; 1 something differs, or nothing could be looked at. */
export function verifyVerb(options: Options<'verify'>, io: Io): Promise<number> {
  return orExplain('verify', io, async () => {
    const stores = await openStores(options, 'read', io);
    try {
      const masterKey = await masterKeyOf(options.events, stores.events, { given: options.masterKey, mayMake: false, random: io.random });
      const keysOf = keysReader(stores.events, masterKey);
      const groups = await readable(stores.views);
      if (options.all) return await all(stores, groups, options, masterKey, options.json, io);
      return await some(stores, groups, keysOf, options, io);
    } finally {
      await stores.close();
    }
  });
}

type Live = Readonly<Record<'journeys' | 'persons', Generation>>;

/** The live generations; what another version folded cannot be compared with what this one folds. */
async function readable(views: ViewStore): Promise<Live> {
  const [journeys, persons] = [await liveOf(views, 'journeys'), await liveOf(views, 'persons')];
  for (const [group, generation] of [['journeys', journeys], ['persons', persons]] as const) {
    if (generation === null) throw new OperatingError('viewMissing', `there is no generation of ${group} yet: start serve or project, which makes the first`);
    if (isStale(generation)) throw new OperatingError('badConfiguration', `what answers for ${group} was folded by another version (${generation.version}): verify it with that one, or wait until this one's is promoted`);
  }
  if (journeys === null || persons === null) throw new Error('assertion: both are there');
  return { journeys, persons };
}

// ---- some of them ----------------------------------------------------------------------------------------------------------

async function some(stores: Stores, live: Live, keysOf: (workspace: string) => Promise<WorkspaceKeys>, options: Options<'verify'>, io: Io): Promise<number> {
  const startedMs = io.clock.now();
  const look = new Lookout(stores, live);
  const workspaces = await chosen(stores, options.workspace, keysOf, io);
  const named = options.journey !== null || options.person !== null;
  const subjects = named ? await look.named(workspaces, options.journey, options.person) : await look.random(workspaces, options.count, io);
  const bar = new ProgressBar(io, 'verify', subjects.length);
  const found = { checked: 0, differences: [] as Difference[], unknown: {} as Record<string, number> };
  for (const [i, subject] of subjects.entries()) {
    if (io.signal.aborted) break;
    const verified = await look.check(subject);
    if (verified.kind === 'checked') {
      found.checked += 1;
      found.differences.push(...verified.differences);
    } else if (verified.kind === 'unknown') found.unknown[verified.why] = (found.unknown[verified.why] ?? 0) + 1;
    bar.show(i + 1, null);
  }
  bar.clear();
  const seconds = (io.clock.now() - startedMs) / 1000;
  if (options.json) await printJson(io.stdout, { ...found, seconds });
  else await print(io.stdout, described(found, seconds, live));
  return found.differences.length === 0 && (found.checked > 0 || (!named && subjects.length === 0)) ? 0 : 1;
}

async function chosen({ events }: Stores, one: string | null, keysOf: (workspace: string) => Promise<WorkspaceKeys>, io: Io): Promise<readonly WorkspaceKeys[]> {
  const known = await Workspaces.open({ store: events, masterKey: null, clock: io.clock, random: io.random, sleep: io.sleep });
  const ids = known.list().map(({ id }) => id).filter((id) => one === null || id === one);
  await known.close();
  if (ids.length === 0) throw new OperatingError('badConfiguration', one === null ? 'there is no workspace' : `there is no workspace ${one}`);
  return Promise.all(ids.map(keysOf));
}

/** Finds subjects in the live views, and looks at them. */
class Lookout {
  readonly #stores: Stores;
  readonly #live: Live;

  constructor(stores: Stores, live: Live) {
    this.#stores = stores;
    this.#live = live;
  }

  async check({ kind, keys, key }: Subject): Promise<Verified> {
    const { events } = this.#stores;
    return kind === 'journey' ? verifyJourney({ events, view: await this.#view('journeys', keys), keys }, key) : verifyPerson({ events, view: await this.#view('persons', keys), keys }, key);
  }

  async named(workspaces: readonly WorkspaceKeys[], journey: string | null, person: string | null): Promise<readonly Subject[]> {
    const found: Subject[] = [];
    for (const keys of workspaces) {
      const key = journey === null ? null : await this.#journeyOf(keys, journey);
      if (key !== null) found.push({ kind: 'journey', keys, key });
      if (person !== null && (await this.#load<object>('persons', keys, [`p/${person}`]))[0] !== null) found.push({ kind: 'person', keys, key: person });
    }
    if (found.length === 0) throw new OperatingError('badConfiguration', 'there is no such journey or person in the live views');
    return found;
  }

  /** By an instant taken at random in the time that the journeys span, the next one; and the persons whose they are. */
  async random(workspaces: readonly WorkspaceKeys[], wanted: number, io: Io): Promise<readonly Subject[]> {
    const journeys = new Map<string, Subject>();
    const persons = new Map<string, Subject>();
    const spans = (await Promise.all(workspaces.map(async (keys) => ({ keys, span: await this.#span(keys) })))).flatMap(({ keys, span }) => (span === null ? [] : [{ keys, span }]));
    const [one] = spans;
    for (let misses = 0; one !== undefined && journeys.size < wanted && misses < MISSES_MAX && !io.signal.aborted;) {
      const { keys, span: [first, last] } = spans[Math.floor(chance(io) * spans.length)] ?? one;
      // Some further on: where journeys begin in bursts, the first after an instant is mostly the first of a burst.
      const key = await this.#after(keys, first + Math.floor(chance(io) * (last - first + 1)), 1 + Math.floor(chance(io) * AFTER_MAX));
      if (key === null || journeys.has(`${keys.id}/${key}`)) {
        misses += 1;
        continue;
      }
      misses = 0;
      journeys.set(`${keys.id}/${key}`, { kind: 'journey', keys, key });
      for (const person of await this.#personsOf(keys, key)) persons.set(`${keys.id}/${person}`, { kind: 'person', keys, key: person });
    }
    return [...journeys.values(), ...[...persons.values()].slice(0, wanted)];
  }

  async #view(group: 'journeys' | 'persons', { id }: WorkspaceKeys): Promise<View> {
    const generation = this.#live[group];
    return this.#stores.views.view(group, generation.id, shardOf(id, generation.shards));
  }

  async #load<T>(group: 'journeys' | 'persons', keys: WorkspaceKeys, names: readonly string[]): Promise<readonly (T | null)[]> {
    const texts = await (await this.#view(group, keys)).load(names.map((name) => `${keys.id}/${name}`));
    return texts.map((text, i) => (text === null ? null : PROJECTIONS[group].unpack(names[i] ?? '', text) as unknown as T));
  }

  async #journeyOf(keys: WorkspaceKeys, id: string): Promise<string | null> {
    const nodes = await this.#load<NodeDocument>('journeys', keys, [`n/${nodeKey(keys, id)}`, ...(/^[0-9a-f]{1,64}$/.test(id) ? [`n/${id}`] : [])]);
    return nodes.find((node) => node?.journey != null)?.journey ?? null;
  }

  async #span(keys: WorkspaceKeys): Promise<readonly [number, number] | null> {
    const view = await this.#view('journeys', keys);
    const end = async (direction: 'asc' | 'desc') => (await view.search({ workspace: keys.id, from: -8.64e15, to: 8.64e15, clauses: [], sub: [], direction, limit: 1, after: null, total: 0 }, 'j')).rows[0];
    const [first, last] = [await end('asc'), await end('desc')];
    return first === undefined || last === undefined ? null : [first.time, last.time];
  }

  async #after(keys: WorkspaceKeys, from: number, limit: number): Promise<string | null> {
    const view = await this.#view('journeys', keys);
    return (await view.search({ workspace: keys.id, from, to: 8.64e15, clauses: [], sub: [], direction: 'asc', limit, after: null, total: 0 }, 'j')).rows.at(-1)?.key ?? null;
  }

  async #personsOf(keys: WorkspaceKeys, journey: string): Promise<readonly string[]> {
    const [document] = await this.#load<{ readonly row: { readonly identities: readonly string[] } }>('journeys', keys, [`j/${journey}`]);
    if (document == null) return [];
    const identities = await this.#load<IdentityDocument>('persons', keys, document.row.identities.map((identity) => `k/${identity}`));
    return [...new Set(identities.flatMap((identity) => (identity === null ? [] : [identity.person])))];
  }
}

/** 0 to 1. */
function chance(io: Pick<Io, 'random'>): number { return Buffer.from(io.random(6)).readUIntBE(0, 6) / 2 ** 48; }

function described({ checked, differences, unknown }: Found, seconds: number, live: Live): string {
  const untold = Object.entries(unknown).map(([why, times]) => `${count(times)} could not be told from their streams alone: ${why}; verify --all looks at them\n`);
  return `${count(checked)} journeys and persons folded anew in ${duration(seconds)}: ${differences.length === 0 ? 'each as the log says' : `${count(differences.length)} documents differ`}.\n${untold.join('')}${shown(differences, live)}`;
}

function shown(differences: readonly Difference[], live: Live): string {
  return differencesOf(differences, ({ key }) => PROJECTIONS[/^[^/]+\/[pkaw]\//.test(key) ? 'persons' : 'journeys'], ({ group }) => `generation ${String(live[group].id)}`, () => 'the log');
}

// ---- all of them -------------------------------------------------------------------------------------------------------------

type Groups = Readonly<Record<'journeys' | 'persons', VerifiedAll>>;

async function all({ views }: Stores, live: Live, places: Pick<Options<'verify'>, 'events' | 'views'>, masterKey: Uint8Array, json: boolean, io: Io): Promise<number> {
  const startedMs = io.clock.now();
  const folder = await mkdtemp(path.join(tmpdir(), 'throughline-verify-'));
  try {
    await checkRoom(views, live, folder);
    const bar = new ProgressBar(io, 'verify', 1);
    const stood = { journeys: { events: 0, share: 0 }, persons: { events: 0, share: 0 } };
    const inThread = (group: 'journeys' | 'persons'): Promise<VerifiedAll | null> => verified({ ...places, masterKey, live: live[group], scratch: path.join(folder, group) }, io.signal, ({ events, share }) => {
      stood[group] = { events, share };
      bar.show(Math.min(stood.journeys.share, stood.persons.share), stood.journeys.events + stood.persons.events);
    });
    const [journeys, persons] = await Promise.all([inThread('journeys'), inThread('persons')]);
    bar.clear();
    if (journeys === null || persons === null) {
      await print(io.stderr, 'throughline verify: interrupted\n');
      return 1;
    }
    const found: Groups = { journeys, persons };
    const seconds = (io.clock.now() - startedMs) / 1000;
    if (json) await printJson(io.stdout, { ...found, seconds });
    else await print(io.stdout, `${Object.entries(found).map(([group, one]: readonly [string, VerifiedAll]) => toldOfAll(group, one, live)).join('')}in ${duration(seconds)}\n`);
    return journeys.equal && persons.equal ? 0 : 1;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Null when it was interrupted. */
async function verified(data: VerifierData, signal: AbortSignal, onProgress: (progress: { readonly events: number; readonly share: number }) => void): Promise<VerifiedAll | null> {
  const worker = new Worker(new URL('./projector/verifier.ts', import.meta.url), { workerData: data });
  const stop = (): void => { void worker.terminate(); };
  signal.addEventListener('abort', stop);
  try {
    return await new Promise<VerifiedAll | null>((resolve, reject) => {
      worker.on('message', (message: FromVerifier) => {
        switch (message.kind) {
          case 'progress': onProgress(message); return;
          case 'verified': resolve(message.verified); return;
          case 'failed': reject(faultOf(message.fault));
        }
      });
      worker.on('error', reject);
      worker.on('exit', () => resolve(null));
    });
  } finally {
    signal.removeEventListener('abort', stop);
    await worker.terminate();
  }
}

function toldOfAll(group: string, { equal, differences, more, documents, events }: VerifiedAll, live: Live): string {
  const said = equal ? 'each as the log says' : differences.length === 0 ? 'each as the log says, but the digest of the live generation was moved wrongly: replay makes it right' : `${more ? 'more than ' : ''}${count(differences.length)} differ`;
  return `${group}: ${count(documents)} documents folded from ${count(events)} events: ${said}\n${shown(differences, live)}`;
}

/** Throws storeFull. */
async function checkRoom(views: ViewStore, live: Live, folder: string): Promise<void> {
  let needed = 0;
  for (const generation of Object.values(live)) needed += await sizeOf(views, generation) * SCRATCH_SHARE;
  const { bavail, bsize } = await statfs(folder);
  if (bavail * bsize < needed) throw new OperatingError('storeFull', `${folder} has ${bytes(bavail * bsize)} left, and folding everything takes some ${bytes(needed)}: name another folder with TMPDIR`);
}
