// What must be true of a line once it has come to rest, whatever happened to it on the way: nothing lost, nothing twice, no
// view wrong. The same for every end-to-end, fault and chaos test; it looks through public doors alone (the topic, the dead
// letters, HTTP, `throughline export` and `status`) and makes out for itself, from the bytes on the topic and from what
// publishers were told, what ought to have become of each event.
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { readRecorded } from '../../schemas/recorded.ts';
import { openSource, openTopic, openViews, parseSourceUrl, parseViewsUrl, type Parsed, type SourcePlace, type ViewsPlace } from '../../services/backends.ts';
import { OperatingError } from '../../services/errors.ts';
import type { Delivery } from '../../services/ports.ts';
import { addHash, digestText, EMPTY_DIGEST, parseDigest } from '../../services/projector/digest.ts';
import type { Places, Program, Programs } from './programs.ts';
import { folded, removeFolder, temporaryFolder, TEST_KEY, throughline, until } from './serve.ts';
import { startVerb, throughlineArguments } from './verbs.ts';

const GROUPS = ['journeys', 'persons'] as const;
export type Digests = Readonly<Record<(typeof GROUPS)[number], string>>;

export interface Account {
  /** received = recorded + duplicates + deadLettered, each by distinct coordinates on the topic. */
  readonly received: number;
  readonly recorded: number;
  readonly duplicates: number;
  readonly deadLettered: number;
  /** Distinct events that a broker took, or a publisher was told to be durable; how many of these no stream holds; how many events stand in the log more than once. */
  readonly acknowledged: number;
  readonly lost: number;
  readonly twice: number;
  /** What is not as it should be, the first of it. */
  readonly wrong: readonly string[];
}

/** What was published past the topic: an event by `saying` → whether somebody was told that it is durable. */
export type Spoken = ReadonlyMap<string, boolean>;

const WRONG_MAX = 20;

// ---- opening what the programs were pointed at -------------------------------------------------------------------------

function place<T>(parsed: Parsed<T>): T {
  if (parsed.kind === 'problems') throw new Error(parsed.problems.join('; '));
  return parsed.place;
}
export const sourcePlace = (places: Pick<Places, 'source'>): SourcePlace => place(parseSourceUrl(places.source));
const viewsPlace = (places: Places): ViewsPlace => (places.views === null ? { kind: 'sqlite', folder: places.folder } : place(parseViewsUrl(places.views)));

/** A verb of the operator's on these stores, to its end; fails with what it said where it fails. Answers what it printed. */
async function said(places: Places, args: readonly string[], stores?: readonly ('events' | 'views')[]): Promise<string> {
  const verb = startVerb(throughlineArguments(places, args, stores), places);
  await verb.ended;
  if (verb.exited() !== 0) throw new Error(`throughline ${String(args[0])} ended with ${String(verb.exited())}: ${verb.stderr()}${verb.stdout()}`);
  return verb.stdout();
}

/** The log as the operator gets it. */
export async function exportLog(places: Places, file: string): Promise<void> { await said(places, ['export', file], ['events']); }

// ---- coming to rest ----------------------------------------------------------------------------------------------------

/** Waits until the group has passed every record of the topic, and the views that the api among the programs reads have folded every event. Fails when one of them ends meanwhile. */
export async function settled(places: Places, programs: readonly Program[], withinMs: number): Promise<void> {
  const alive = (): void => {
    for (const { name, exited, output } of programs) if (exited() !== undefined) throw new Error(`${name} ended with ${String(exited())}: ${output()}`);
  };
  const state = async (): Promise<string> => (await Promise.all(programs.map(async (one) => `${one.name}: ${JSON.stringify(await one.readiness())} ${one.output().slice(-2000)}`))).join('\n');
  const api = programs.find(({ name }) => name === 'api' || name === 'serve');
  if (api === undefined) throw new Error('no api runs');
  const explained = async (fault: unknown): Promise<never> => { throw new Error(`${String(fault)}\n${await state()}`); };
  if (places.source !== '') await passed(places, alive, withinMs).catch(explained);
  alive();
  await folded(api.request, withinMs).catch(explained);
  alive();
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

/** Of every group, over all of its shards: a sum, so that it is the same however the workspaces are dealt out. */
export async function digestsOf(places: Places): Promise<Digests> {
  const views = await openViews(viewsPlace(places), { clock: { now: () => Date.now() } });
  try {
    const sums = await Promise.all(GROUPS.map(async (group) => {
      const live = await views.live(group);
      const shards = (await views.generations(group)).find(({ id }) => id === live)?.shards ?? 0;
      const digests = await Promise.all(Array.from({ length: shards }, async (_, shard) => parseDigest(await (await views.view(group, live ?? 0, shard)).digest())));
      return [group, digestText(digests.reduce(addHash, EMPTY_DIGEST))] as const;
    }));
    return Object.fromEntries(sums) as unknown as Digests;
  } finally {
    await views.close();
  }
}

/** What `throughline status` says of each group: where two stores hold the same, it is the same. */
export interface Seen { readonly group: string; readonly digest: string | null; readonly documents: number }

export async function statusOf(places: Places): Promise<readonly Seen[]> {
  const { groups } = JSON.parse(await said(places, ['status', '--json'])) as { readonly groups: readonly Seen[] };
  return groups.map(({ group, digest: sum, documents }) => ({ group, digest: sum, documents }));
}

// ---- the account -------------------------------------------------------------------------------------------------------

const digest = (...parts: readonly (string | Uint8Array)[]): string => parts.reduce<ReturnType<typeof createHash>>((hash, part) => hash.update(part).update('\n'), createHash('sha1')).digest('base64');

/** An event by what it says: its attributes in the order of their names, and its data's text. Binary and structured are alike. */
export function saying(attributes: Readonly<Record<string, unknown>>, data: string | Uint8Array): string {
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

interface Exported { readonly stream: string; readonly revision: number; readonly id: string; readonly metadata: string; readonly data?: string; readonly data_base64?: string }
interface Audited { readonly recorded: number; readonly lost: number; readonly twice: number }

/** G1, G2: every event of the topic, and every one that a publisher was told of, is in exactly one stream, exactly once, as it was said; those of the topic from where they first stood, and in order. Nothing else is there. */
async function auditLog(log: string, { firsts }: Published, spoken: Spoken, findings: Findings): Promise<Audited> {
  const ids = new Set<string>();
  const found = new Set<string>();
  /** By stream and partition: the newest offset so far. */
  const newest = new Map<string, bigint>();
  let [recorded, twice] = [0, 0];
  const audit = (line: Exported): void => {
    const event = readRecorded({ ...line, metadata: Buffer.from(line.metadata), data: line.data === undefined ? Buffer.from(line.data_base64 ?? '', 'base64') : Buffer.from(line.data) });
    const { event: { attributes, data }, origin } = event;
    const said = saying(attributes, data);
    if (ids.has(line.id) || found.has(said)) {
      twice += 1;
      findings.say(`revision ${String(line.revision)} of ${line.stream} is in the log already`);
    }
    ids.add(line.id);
    found.add(said);
    if (origin === null) {
      if (!spoken.has(said)) findings.say(`revision ${String(line.revision)} of ${line.stream} came from no topic, and nobody published it`);
      return;
    }
    recorded += 1;
    const at = coordinates(origin.topic, origin.partition, origin.offset);
    if (firsts.get(said) !== at) findings.say(`an event that stands first at ${String(firsts.get(said))} was recorded from ${at}`);
    const lane = `${event.stream} ${origin.topic}/${String(origin.partition)}`;
    const offset = BigInt(origin.offset);
    if (offset <= (newest.get(lane) ?? -1n)) findings.say(`${event.stream} holds offset ${origin.offset} after a later one of partition ${String(origin.partition)}`);
    newest.set(lane, offset);
  };
  for await (const text of createInterface({ input: createReadStream(log) })) {
    const line = JSON.parse(text) as Exported;
    if (line.stream.startsWith('identity.')) audit(line);
  }
  const missing = [...firsts].filter(([said]) => !found.has(said)).map(([, at]) => `the event at ${at} is not in the log`);
  for (const [said, told] of spoken) if (told && !found.has(said)) missing.push('an event whose publisher was told that it is durable is not in the log');
  missing.forEach((one) => findings.say(one));
  return { recorded, lost: missing.length, twice };
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

/** Holds the topic, what publishers were told, the exported log and the dead letters against each other. */
export async function account(places: Places, log: string, spoken: Spoken = new Map()): Promise<Account> {
  const findings = new Findings();
  const published = places.source === '' ? NOTHING : await readTopic(places);
  const { recorded, lost, twice } = await auditLog(log, published, spoken, findings);
  const deadLettered = published.poison.size === 0 ? 0 : await auditDeadLetters(places, published, findings);
  const { received, duplicates, firsts } = published;
  if (received !== recorded + duplicates + deadLettered) findings.say(`${received} received are not ${recorded} recorded + ${duplicates} duplicates + ${deadLettered} dead-lettered`);
  const acknowledged = firsts.size + [...spoken.values()].filter((told) => told).length;
  return { received, recorded, duplicates, deadLettered, acknowledged, lost, twice, wrong: findings.wrong };
}

const NOTHING: Published = { received: 0, firsts: new Map(), duplicates: 0, poison: new Map() };

// ---- the views ---------------------------------------------------------------------------------------------------------

/** What a store holds, however it came by it. */
export interface Taken { readonly recorded: number; readonly groups: readonly Seen[]; readonly answers: readonly Answer[] }

/** G3: a file taken into an empty embedded folder of the same workspace id and secret, and folded there: a log that `export` wrote, or lines as they were published. */
export async function takenInElsewhere(file: string, places: Pick<Places, 'workspaceSecret' | 'masterKey'>, programs: Programs, withinMs: number): Promise<Taken> {
  const fresh = temporaryFolder();
  const elsewhere: Places = { ...places, source: '', events: null, views: null, folder: join(fresh, 'data') };
  try {
    const env = { THROUGHLINE_MASTER_KEY: places.masterKey, THROUGHLINE_WORKSPACE_SECRET: places.workspaceSecret, THROUGHLINE_API_KEY: TEST_KEY };
    const { stdout, stderr } = await throughline(['import', file, '--data', elsewhere.folder, '--json'], { env });
    if (stdout === '') throw new Error(`the import said nothing: ${stderr}`);
    const { recorded } = JSON.parse(stdout) as { readonly recorded: number };
    const server = await programs.start('serve', elsewhere, { logLevel: 'error' });
    await folded(server.request, withinMs);
    const [groups, answers] = await Promise.all([statusOf(elsewhere), answersOf(server)]);
    await server.end('SIGKILL');
    return { recorded, groups, answers };
  } finally {
    removeFolder(fresh);
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
