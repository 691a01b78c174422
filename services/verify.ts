// `throughline verify`: whether the views say what the log says (projector/verify.ts says how that is found out), and what an
// operator is shown of it.
import { hash } from 'node:crypto';
import { mkdtemp, rm, statfs } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Worker } from 'node:worker_threads';
import type { NodeDocument } from '../projections/documents.ts';
import { nodeKey, type WorkspaceKeys } from '../schemas/identity.ts';
import type { Options } from './config.ts';
import { OperatingError } from './errors.ts';
import { isStale, liveOf, positionsOf, PROJECTIONS, sizeOf } from './generations.ts';
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
/** `asked`: null where they were named. `drawn`: all that there are, where that is fewer. */
interface Looked { readonly asked: number | null; readonly drawn: number; readonly checked: number }
interface Found {
  readonly checked: number;
  readonly journeys: Looked;
  readonly persons: Looked;
  readonly differences: readonly Difference[];
  /** Why → how many. */
  readonly unknown: Readonly<Record<string, number>>;
}

/** A view with fewer documents than this, or than so many for each that is wanted, is read through. In a larger one documents are drawn here and there. */
const READ_THROUGH = 20_000;
const READ_THROUGH_EACH = 20;
/** Draws for each that is wanted, and a few more; then it is read through all the same: the workspace that was named is a small part of it, or the store draws none. */
const DRAWS_EACH = 2;
const DRAWS_LEAST = 20;
const PAGE = 1000;
/** For the first event of all: a store that says nothing within this has nothing to say about it now. */
const FIRST_EVENT_MS = 1000;
/** A scratch view has no index: it is smaller than the live one. */
const SCRATCH_SHARE = 0.8;

/** Exit code 0 all the same; 1 something differs, or nothing could be looked at. */
export function verifyVerb(options: Options<'verify'>, io: Io): Promise<number> {
  return orExplain('verify', io, async () => {
    const stores = await openStores(options, 'read', io);
    try {
      const masterKey = await masterKeyOf(options.events, stores.events, { given: options.masterKey, mayMake: false, random: io.random });
      const keysOf = keysReader(stores.events, masterKey);
      const groups = await readable(stores, options.workspace, io);
      if (options.all) return await all(stores, groups, options, masterKey, options.json, io);
      return await some(stores, groups, keysOf, options, io);
    } finally {
      await stores.close();
    }
  });
}

type Live = Readonly<Record<'journeys' | 'persons', Generation>>;

/** The live generations; what another version folded cannot be compared with what this one folds, and where nothing is folded there is nothing to compare. */
async function readable(stores: Stores, workspace: string | null, io: Io): Promise<Live> {
  const { views } = stores;
  const [journeys, persons] = [await liveOf(views, 'journeys'), await liveOf(views, 'persons')];
  for (const [group, generation] of [['journeys', journeys], ['persons', persons]] as const) {
    if (generation === null) throw new OperatingError('viewMissing', `there is no generation of ${group} yet: start serve or project, which makes the first`);
    if (isStale(generation)) throw new OperatingError('badConfiguration', `what answers for ${group} was folded by another version (${generation.version}): verify it with that one, or wait until this one's is promoted`);
  }
  if (journeys === null || persons === null) throw new Error('assertion: both are there');
  for (const generation of [journeys, persons]) {
    const stands = (await positionsOf(views, generation)).some((position) => position !== null);
    if (!stands && await holdsEvents(stores, workspace, io)) throw new OperatingError('viewMissing', `generation ${String(generation.id)} of ${generation.group} holds nothing, and the log holds events: serve or project has yet to fold them, or its views are gone, and are folded anew when one starts`);
  }
  return { journeys, persons };
}

// ---- some of them ----------------------------------------------------------------------------------------------------------

async function some(stores: Stores, live: Live, keysOf: (workspace: string) => Promise<WorkspaceKeys>, options: Options<'verify'>, io: Io): Promise<number> {
  const startedMs = io.clock.now();
  const look = new Lookout(stores, live);
  const workspaces = await chosen(stores, options.workspace, keysOf, io);
  const named = options.journey !== null || options.person !== null;
  const asked = named ? null : options.count;
  const subjects = named ? await look.named(workspaces, options.journey, options.person) : [...await look.drawn('journey', workspaces, options.count, io), ...await look.drawn('person', workspaces, options.count, io)];
  const bar = new ProgressBar(io, 'verify', subjects.length);
  const checked = { journey: 0, person: 0 };
  const differences: Difference[] = [];
  const unknown: Record<string, number> = {};
  for (const [i, subject] of subjects.entries()) {
    if (io.signal.aborted) break;
    const verified = await look.check(subject);
    if (verified.kind === 'checked') {
      checked[subject.kind] += 1;
      differences.push(...verified.differences);
    } else if (verified.kind === 'unknown') unknown[verified.why] = (unknown[verified.why] ?? 0) + 1;
    bar.show(i + 1, null);
  }
  bar.clear();
  const looked = (kind: Kind): Looked => ({ asked, drawn: subjects.filter((one) => one.kind === kind).length, checked: checked[kind] });
  const found: Found = { checked: checked.journey + checked.person, journeys: looked('journey'), persons: looked('person'), differences, unknown };
  const seconds = (io.clock.now() - startedMs) / 1000;
  const empty = subjects.length === 0 && await holdsEvents(stores, options.workspace, io);
  if (options.json) await printJson(io.stdout, { ...found, seconds });
  else await print(io.stdout, described(found, seconds, live));
  if (empty) await print(io.stderr, 'throughline verify: nothing was looked at: the log holds events, and what answers holds no journey and no person; verify --all tells what is missing (viewMissing)\n');
  return !empty && differences.length === 0 && (found.checked > 0 || (!named && subjects.length === 0)) ? 0 : 1;
}

/** Whether there is anything of a customer that could have been folded. What cannot be known is taken to be there. */
async function holdsEvents({ events }: Stores, workspace: string | null, { sleep }: Io): Promise<boolean> {
  const reading = new AbortController();
  const over = new AbortController();
  // A subscription waits for what comes; where there is nothing of ours, nothing may come for hours.
  const timer = sleep(FIRST_EVENT_MS, over.signal).then(() => reading.abort());
  try {
    for await (const batch of events.subscribe({ after: null, prefixes: [workspace === null ? 'identity.' : `identity.${workspace}-`], maxBatch: 1, signal: reading.signal })) {
      if (batch.events.length > 0) return true;
      if (batch.caughtUp) return false;
    }
    return true;
  } finally {
    over.abort();
    await timer;
  }
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

  /** So many of a kind, each as likely as every other; where there are fewer, all of them. By their documents: an index may lack some. */
  async drawn(kind: Kind, workspaces: readonly WorkspaceKeys[], wanted: number, io: Io): Promise<readonly Subject[]> {
    const among = new Map<string, WorkspaceKeys>(workspaces.map((keys) => [keys.id, keys]));
    const take = (document: string, found: Map<string, Subject>): void => {
      const [workspace = '', space, key = ''] = document.split('/');
      const keys = among.get(workspace);
      if (keys !== undefined && space === SPACES[kind]) found.set(document, { kind, keys, key });
    };
    const generation = this.#live[GROUPS[kind]];
    const shards: { readonly view: View; readonly documents: number }[] = [];
    for (let shard = 0; shard < generation.shards; shard += 1) {
      const view = await this.#stores.views.view(generation.group, generation.id, shard);
      shards.push({ view, documents: (await view.stats()).documents });
    }
    const documents = shards.reduce((sum, one) => sum + one.documents, 0);
    const found = documents < Math.max(READ_THROUGH, wanted * READ_THROUGH_EACH) ? null : await hereAndThere(shards, documents, wanted, take, io);
    return [...(found ?? await throughAll(shards.map(({ view }) => view), wanted, take, io)).values()];
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
}

const GROUPS = { journey: 'journeys', person: 'persons' } as const;
const SPACES = { journey: 'j', person: 'p' } as const;
type Take = (document: string, found: Map<string, Subject>) => void;

/** Null where too little was found that way. */
async function hereAndThere(shards: readonly { readonly view: View; readonly documents: number }[], documents: number, wanted: number, take: Take, io: Io): Promise<ReadonlyMap<string, Subject> | null> {
  const found = new Map<string, Subject>();
  for (let draws = wanted * DRAWS_EACH + DRAWS_LEAST; draws > 0 && !io.signal.aborted; draws -= 1) {
    let at = chance(io) * documents;
    const shard = shards.find((one) => (at -= one.documents) < 0) ?? shards.at(-1);
    for (const document of await shard?.view.draw(() => chance(io)) ?? []) {
      take(document, found);
      if (found.size >= wanted) return found;
    }
  }
  return null;
}

/** The ones whose hashes with a number of this run are the lowest: one that the store gives twice is still as likely as every other. */
async function throughAll(views: readonly View[], wanted: number, take: Take, io: Io): Promise<ReadonlyMap<string, Subject>> {
  const salt = Buffer.from(io.random(16)).toString('hex');
  const rankOf = (document: string): string => hash('sha256', salt + document);
  let found = new Map<string, Subject>();
  const keepLowest = (): void => {
    if (found.size <= wanted) return;
    const ranked = [...found].map(([document, subject]) => ({ document, subject, rank: rankOf(document) })).sort((a, b) => (a.rank < b.rank ? -1 : 1));
    found = new Map(ranked.slice(0, wanted).map(({ document, subject }) => [document, subject]));
  };
  for (const view of views) {
    let next: string | null = null;
    do {
      const page = await view.walk(next, PAGE);
      for (const { key } of page.documents) take(key, found);
      if (found.size >= 2 * wanted + PAGE) keepLowest();
      next = page.next;
    } while (next !== null && !io.signal.aborted);
  }
  keepLowest();
  return found;
}

/** 0 to 1. */
function chance(io: Pick<Io, 'random'>): number { return Buffer.from(io.random(6)).readUIntBE(0, 6) / 2 ** 48; }

function described({ journeys, persons, differences, unknown }: Found, seconds: number, live: Live): string {
  const untold = Object.entries(unknown).map(([why, times]) => `${count(times)} could not be told from their streams alone: ${why}; verify --all looks at them\n`);
  const fewer = ([['journeys', journeys], ['persons', persons]] as const).filter(([, { asked, drawn }]) => asked !== null && drawn < asked).map(([what, { asked, drawn }]) => `There are only ${count(drawn)} ${what}; ${count(asked ?? 0)} were asked for.\n`);
  return `${count(journeys.checked)} journeys and ${count(persons.checked)} persons folded anew in ${duration(seconds)}: ${differences.length === 0 ? 'each as the log says' : `${count(differences.length)} documents differ`}.\n${fewer.join('')}${untold.join('')}${shown(differences, live)}`;
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
