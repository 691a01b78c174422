// What must be true of a line once it has come to rest, whatever happened to it on the way: nothing lost, nothing twice, no
// view wrong. The same for every end-to-end and fault test; it looks through public doors alone (the topic, the dead letters,
// the log, the views) and makes out for itself, from the bytes on the topic, what ought to have become of each record.
import { createHash } from 'node:crypto';
import { readRecorded } from '../../schemas/recorded.ts';
import { openEvents, openSource, openTopic, openViews, parseEventsUrl, parseSourceUrl, parseViewsUrl, type EventsPlace, type Parsed, type SourcePlace, type ViewsPlace } from '../../services/backends.ts';
import { OperatingError } from '../../services/errors.ts';
import type { Delivery, EventStore, RecordedEvent, ViewStore } from '../../services/ports.ts';
import { addHash, digestText, EMPTY_DIGEST, parseDigest } from '../../services/projector/digest.ts';
import type { Places, Program, Programs } from './programs.ts';
import { folded, removeFolder, serve, temporaryFolder, throughline, until } from './serve.ts';

const GROUPS = ['journeys', 'persons'] as const;
export type Digests = Readonly<Record<(typeof GROUPS)[number], string>>;

/** received = recorded + duplicates + deadLettered, each by distinct coordinates on the topic; `wrong` says what is not as it should be, the first of it. */
export interface Account { readonly received: number; readonly recorded: number; readonly duplicates: number; readonly deadLettered: number; readonly wrong: readonly string[] }

const WRONG_MAX = 20;
const PAGE = 2000;

// ---- opening what the programs were pointed at -------------------------------------------------------------------------

function place<T>(parsed: Parsed<T>): T {
  if (parsed.kind === 'problems') throw new Error(parsed.problems.join('; '));
  return parsed.place;
}
export const sourcePlace = (places: Pick<Places, 'source'>): SourcePlace => place(parseSourceUrl(places.source));
const eventsPlace = (places: Places): EventsPlace => (places.events === null ? { kind: 'sqlite', folder: places.folder } : place(parseEventsUrl(places.events)));
const viewsPlace = (places: Places): ViewsPlace => (places.views === null ? { kind: 'sqlite', folder: places.folder } : place(parseViewsUrl(places.views)));
const random = (size: number): Uint8Array => new Uint8Array(size);

async function withEvents<T>(places: Places, work: (events: EventStore) => Promise<T>): Promise<T> {
  const events = await openEvents(eventsPlace(places), { use: 'read', random });
  try { return await work(events); } finally { await events.close(); }
}
async function withViews<T>(where: ViewsPlace, work: (views: ViewStore) => Promise<T>): Promise<T> {
  const views = await openViews(where, { clock: { now: () => Date.now() } });
  try { return await work(views); } finally { await views.close(); }
}

// ---- coming to rest ----------------------------------------------------------------------------------------------------

/** Waits until the group has passed every record of the topic, and every view has folded every event. Fails when one of the programs ends meanwhile. */
export async function settled(places: Places, programs: readonly Program[], withinMs: number): Promise<void> {
  const alive = (): void => {
    for (const { name, exited, output } of programs) if (exited() !== undefined) throw new Error(`${name} ended with ${String(exited())}: ${output()}`);
  };
  const said = async (): Promise<string> => (await Promise.all(programs.map(async (one) => `${one.name}: ${JSON.stringify(await one.readiness())} ${one.output().slice(-2000)}`))).join('\n');
  await passed(places, alive, withinMs).catch(async (fault: unknown) => { throw new Error(`${String(fault)}\n${await said()}`); });
  await foldedTo(places, alive, withinMs).catch(async (fault: unknown) => { throw new Error(`${String(fault)}\n${await said()}`); });
}

/** Waits until the group has nothing left on the topic: what it has committed is durable. */
export async function passed(places: Pick<Places, 'source'>, alive: () => void, withinMs: number): Promise<void> {
  const source = await openSource(sourcePlace(places), { onNotice: () => undefined });
  let last: unknown = null;
  try {
    await until('the group has passed everything on the topic', async () => {
      alive();
      last = await source.gaps().catch((fault: unknown) => { if (fault instanceof OperatingError && fault.retriable) return fault; throw fault; });
      return Array.isArray(last) && last.every(({ gap }: { readonly gap: number }) => gap === 0);
    }, withinMs).catch((fault: unknown) => { throw new Error(`${String(fault)}: ${last instanceof Error ? last.message : JSON.stringify(last)}`); });
  } finally {
    await source.close();
  }
}

/** Waits until the views stand at the head that the log has now. */
async function foldedTo(places: Places, alive: () => void, withinMs: number, where: ViewsPlace = viewsPlace(places)): Promise<void> {
  await withEvents(places, (events) => withViews(where, async (views) => {
    const head = await events.head();
    if (head === null) return;
    await until('every view stands at the head of the log', async () => {
      alive();
      const positions = (await Promise.all(GROUPS.map((group) => shardsOf(views, group, (view) => view.position())))).flat();
      return positions.length >= GROUPS.length && positions.every((position) => position !== null && position >= head);
    }, withinMs);
  }));
}

async function shardsOf<T>(views: ViewStore, group: string, read: (view: Awaited<ReturnType<ViewStore['view']>>) => Promise<T>): Promise<readonly T[]> {
  const live = await views.live(group);
  const generation = (await views.generations(group)).find(({ id }) => id === live);
  if (generation === undefined) return [];
  return Promise.all(Array.from({ length: generation.shards }, async (_, shard) => read(await views.view(group, generation.id, shard))));
}

/** Of every group, over all of its shards: a sum, so that it is the same however the workspaces are dealt out. */
export function digestsOf(places: Places): Promise<Digests> { return readDigests(viewsPlace(places)); }

async function readDigests(where: ViewsPlace): Promise<Digests> {
  return withViews(where, async (views) => {
    const sums = await Promise.all(GROUPS.map(async (group) => [group, digestText((await shardsOf(views, group, (view) => view.digest())).map(parseDigest).reduce(addHash, EMPTY_DIGEST))] as const));
    return Object.fromEntries(sums) as unknown as Digests;
  });
}

// ---- the account -------------------------------------------------------------------------------------------------------

const digest = (...parts: readonly (string | Uint8Array)[]): string => parts.reduce<ReturnType<typeof createHash>>((hash, part) => hash.update(part).update('\n'), createHash('sha1')).digest('base64');

/** An event by what it says: its attributes in the order of their names, and its data's text. Binary and structured are alike. */
function saying(attributes: Readonly<Record<string, unknown>>, data: string | Uint8Array): string {
  return digest(JSON.stringify(Object.entries(attributes).sort(([a], [b]) => (a < b ? -1 : 1))), data);
}

/** What a record of test/support/load.ts says; null: poison. Made out without the decoder under test. */
function sayingOf({ value, headers }: Delivery): string | null {
  if (value === null) return null;
  const header = (name: string): string => String(headers[name] instanceof Uint8Array ? Buffer.from(headers[name]) : headers[name]);
  const named = Object.keys(headers).filter((name) => name.startsWith('ce_'));
  if (named.length > 0) return saying({ ...Object.fromEntries(named.map((name) => [name.slice(3), header(name)])), datacontenttype: header('content-type') }, value);
  try {
    const { data, ...attributes } = JSON.parse(Buffer.from(value).toString()) as Record<string, unknown>;
    const sound = attributes['specversion'] === '1.0' && attributes['id'] !== undefined && attributes['identity'] !== undefined && attributes['workspace'] === undefined;
    return sound ? saying(attributes, JSON.stringify(data)) : null;
  } catch {
    return null;
  }
}

const coordinates = (topic: string, partition: number | string, offset: string): string => `${topic}/${String(partition)}/${offset}`;
const bytesOf = ({ key, value }: Pick<Delivery, 'key' | 'value'>): string => digest(key ?? 'no key', value ?? 'no value');

class Findings {
  readonly wrong: string[] = [];
  say(what: string): void { if (this.wrong.length < WRONG_MAX) this.wrong.push(what); }
}

interface Published {
  received: number;
  /** First of its kind on the topic: what it says → where it stands. It must be in the log, from there. */
  readonly firsts: Map<string, string>;
  duplicates: number;
  /** Where it stands → its bytes. Each must be among the dead letters. */
  readonly poison: Map<string, string>;
}

async function readTopic(places: Places): Promise<Published> {
  const published: Published = { received: 0, firsts: new Map(), duplicates: 0, poison: new Map() };
  const where = sourcePlace(places);
  const topic = await openTopic(where, where.topic);
  try {
    for await (const deliveries of topic.read({ signal: new AbortController().signal })) {
      for (const delivery of deliveries) {
        published.received += 1;
        const at = coordinates(delivery.topic, delivery.partition, delivery.offset);
        const said = sayingOf(delivery);
        if (said === null) published.poison.set(at, bytesOf(delivery));
        else if (published.firsts.has(said)) published.duplicates += 1;
        else published.firsts.set(said, at);
      }
    }
  } finally {
    await topic.close();
  }
  return published;
}

/** G1, G2: every event of the topic is in exactly one stream, exactly once, as it was said, from where it first stood, and in order. */
async function auditLog(places: Places, { firsts }: Published, findings: Findings): Promise<number> {
  const ids = new Set<string>();
  const lost = new Set(firsts.keys());
  /** By stream and partition: the newest offset so far. */
  const newest = new Map<string, bigint>();
  let recorded = 0;
  const audit = (event: RecordedEvent): void => {
    recorded += 1;
    if (ids.has(event.id)) findings.say(`event ${event.id} is in the log twice`);
    ids.add(event.id);
    const { event: { attributes, data }, origin } = readRecorded(event);
    const said = saying(attributes, data);
    if (!lost.delete(said)) findings.say(`revision ${event.revision} of ${event.stream} says what the topic does not, or what is in the log already`);
    if (origin === null) { findings.say(`revision ${event.revision} of ${event.stream} has no origin`); return; }
    const at = coordinates(origin.topic, origin.partition, origin.offset);
    if (firsts.get(said) !== at) findings.say(`an event that stands first at ${String(firsts.get(said))} was recorded from ${at}`);
    const lane = `${event.stream} ${origin.topic}/${String(origin.partition)}`;
    const offset = BigInt(origin.offset);
    if (offset <= (newest.get(lane) ?? -1n)) findings.say(`${event.stream} holds offset ${origin.offset} after a later one of partition ${String(origin.partition)}`);
    newest.set(lane, offset);
  };
  await withEvents(places, async (events) => {
    const reading = new AbortController();
    for await (const batch of events.subscribe({ after: null, prefixes: ['identity.'], maxBatch: PAGE, signal: reading.signal })) {
      batch.events.forEach(audit);
      if (batch.caughtUp) break;
    }
    reading.abort();
  });
  for (const said of lost) findings.say(`the event at ${String(firsts.get(said))} is not in the log`);
  return recorded;
}

/** G4: what could not be recorded is among the dead letters with its own bytes; nothing else is. A crash may write one twice, so they count by where they came from. */
async function auditDeadLetters(places: Places, { poison }: Published, findings: Findings): Promise<number> {
  const seen = new Set<string>();
  const where = sourcePlace(places);
  const topic = await openTopic(where, `${where.topic}.dead-letter`);
  try {
    for await (const deliveries of topic.read({ signal: new AbortController().signal })) {
      for (const letter of deliveries) {
        const header = (name: string): string => { const value = letter.headers[name]; return value instanceof Uint8Array ? Buffer.from(value).toString() : String(value); };
        const at = coordinates(header('__connect.errors.topic'), header('__connect.errors.partition'), header('__connect.errors.offset'));
        if (poison.get(at) === undefined) findings.say(`the record at ${at} is no poison, but a dead letter (${header('throughline.code')}: ${header('__connect.errors.exception.message')})`);
        else if (poison.get(at) !== bytesOf(letter)) findings.say(`the dead letter of ${at} has other bytes`);
        seen.add(at);
      }
    }
  } finally {
    await topic.close();
  }
  for (const at of poison.keys()) if (!seen.has(at)) findings.say(`the poison at ${at} is not among the dead letters`);
  return seen.size;
}

/** Holds the topic, the log and the dead letters against each other. */
export async function account(places: Places): Promise<Account> {
  const findings = new Findings();
  const published = await readTopic(places);
  const recorded = await auditLog(places, published, findings);
  const deadLettered = published.poison.size === 0 ? 0 : await auditDeadLetters(places, published, findings);
  const { received, duplicates } = published;
  if (received !== recorded + duplicates + deadLettered) findings.say(`${received} received are not ${recorded} recorded + ${duplicates} duplicates + ${deadLettered} dead-lettered`);
  return { received, recorded, duplicates, deadLettered, wrong: findings.wrong };
}

// ---- the views ---------------------------------------------------------------------------------------------------------

/** G3: the log folded anew by a `project` of its own, into a folder that holds no view yet. */
export async function foldedAnew(places: Places, programs: Programs, withinMs: number): Promise<Digests> {
  const fresh = temporaryFolder();
  const folder = places.events === null ? places.folder : fresh;
  const where = { kind: 'sqlite', folder } as const;
  if (places.events === null && places.views === null) throw new Error('assertion: the folder holds the views that are to be compared');
  try {
    const project = await programs.start('project', { ...places, views: null, folder });
    await foldedTo({ ...places, folder }, () => { if (project.exited() !== undefined) throw new Error(project.output()); }, withinMs, where);
    await project.end();
    return await readDigests(where);
  } finally {
    removeFolder(fresh);
  }
}

/** The same lines imported into an embedded `serve` of the same workspace id and secret: what it recorded, the digests of its views, and what it answers. */
export async function importedElsewhere(file: string, places: Pick<Places, 'workspaceSecret'>, withinMs: number): Promise<{ readonly recorded: number; readonly digests: Digests; readonly answers: readonly Answer[] }> {
  const server = await serve({ env: { THROUGHLINE_WORKSPACE_SECRET: places.workspaceSecret }, args: ['--log-level', 'error'] });
  try {
    const { stdout, stderr } = await throughline(['import', file, '--to', server.url, '--json'], { env: { THROUGHLINE_API_KEY: server.key }, cwd: server.folder });
    const told = stdout === '' ? null : (JSON.parse(stdout) as { readonly recorded: number });
    if (told === null) throw new Error(`the import said nothing: ${stderr}`);
    await folded(server.request, withinMs);
    return { recorded: told.recorded, digests: await readDigests({ kind: 'sqlite', folder: server.folder }), answers: await answersOf(server) };
  } finally {
    await server.kill('SIGTERM');
    removeFolder(server.folder);
  }
}

/** Digests are of documents; that the indexes lead to them is seen by asking. */
const QUESTIONS: readonly (readonly [of: 'journeys' | 'transitions', name: string | null, values: readonly string[]])[] = [
  ['journeys', null, []],
  ...['Handled', 'Abandoned', 'EndedInScript', 'Voicemail'].map((outcome) => ['journeys', 'outcome', [outcome]] as const),
  ...['Support', 'Delivery', 'Orders'].map((queue) => ['journeys', 'queues.name', [queue]] as const),
  ['journeys', 'mediaTypes', ['Chat', 'Email']], ['journeys', 'direction', ['Outbound']],
  ...['TRANSFER', 'HOLD', 'WAITING', 'FOLLOWUP_PENDING', 'FINISHED'].map((state) => ['transitions', 'transitions.name', [state]] as const),
];
const ANSWERED_MAX = 200;
export interface Answer { readonly asked: string; readonly total: number; readonly journeys: readonly string[] }

/** What an api answers to searches that use each kind of index, over all days of the load. */
export async function answersOf(api: Pick<Program, 'request'>): Promise<readonly Answer[]> {
  const answers: Answer[] = [];
  for (const [of, name, values] of QUESTIONS) {
    const asked = `${of} ${JSON.stringify({ name, values })}`;
    const answer = await api.request(`/cidp/journey/api/v1/${of}/search`, {
      method: 'POST', headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ dateRange: { start: '2026-03-01T00:00:00Z', end: '2026-03-30T23:59:59Z' }, displayTimezone: 'UTC', limit: ANSWERED_MAX, ...(name === null ? {} : { filters: [{ name, values }] }) }),
    });
    if (answer.status !== 200) throw new Error(`${asked} is answered with ${String(answer.status)}: ${await answer.text()}`);
    const { totalElements, data } = (await answer.json()) as { readonly totalElements: number; readonly data: readonly { readonly journeyId: string }[] };
    answers.push({ asked, total: totalElements, journeys: data.map(({ journeyId }) => journeyId) });
  }
  return answers;
}
