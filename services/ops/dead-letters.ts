// `throughline dead-letters list|show|retry`: what a topic brought and could not be recorded. A dead letter is open until a
// retry has settled it and said so on the same topic; both are read from there each time, so there is no other state.
// Without a topic, what all doors refused, as they counted it: imports and publishers were told, and nothing of theirs was kept;
// what came from a topic is counted there too.
import { isUtf8 } from 'node:buffer';
import { codeOf, type Headers, type HeaderValue, headerValues } from '../../schemas/cloudevent.ts';
import type { WorkspaceKeys } from '../../schemas/identity.ts';
import type { DeliveryOrigin } from '../../schemas/recorded.ts';
import { openTopic, type SourcePlace } from '../backends.ts';
import type { Options } from '../config.ts';
import { coordinatesOf, type DeadLetter, deadLetterTopicOf, readDeadLetterTopic, type Resolution, resolutionEvent } from '../dead-letter.ts';
import { byWorkspace, type TopicRules, workspaceMissing } from '../deliveries.ts';
import { Door, type DoorOptions } from '../door.ts';
import { OperatingError } from '../errors.ts';
import type { OutgoingRecord, Tally, TallyExample, Topic } from '../ports.ts';
import { Workspaces } from '../workspaces.ts';
import { openStores, openWorkspaces } from './folder.ts';
import { sumRejections } from './inspect.ts';
import { bytes, count, type Io, orExplain, print, printable, printJson, ProgressBar, table } from './terminal.ts';

/** The door of the stores that a retry writes to. */
export interface OpenDoor {
  readonly door: Pick<Door, 'receive'>;
  /** Null: there is no such workspace. */
  readonly keysOf: (workspace: string) => WorkspaceKeys | null;
  close(): Promise<void>;
}

export interface DeadLettersOptions {
  readonly action: 'list' | 'show' | 'retry';
  /** `TOPIC/PARTITION/OFFSET`, or `PARTITION/OFFSET` of whatever topic. Null: all. */
  readonly id: string | null;
  /** Only those that were rejected with this code. */
  readonly code: string | null;
  readonly json: boolean;
  /** The topic that they came from. */
  readonly topic: string;
  readonly rules: TopicRules;
  readonly openTopic: (name: string) => Promise<Topic>;
  readonly openDoor: () => Promise<OpenDoor>;
}

export function deadLettersVerb(options: Options<'dead-letters'>, io: Io): Promise<number> {
  const { action, id, code, json, source, maxEventBytes } = options;
  if (source === null) return refusedVerb(options, io);
  return deadLetters({
    action, id, code, json, topic: source.topic, rules: { workspaces: source.workspaces, maxEventBytes },
    openTopic: (name) => openTopic(source, name), openDoor: () => openDoorOf(options, io),
  }, io);
}

async function openDoorOf(options: Options<'dead-letters'>, io: Io): Promise<OpenDoor> {
  const stores = await openStores(options, 'beside', io);
  try {
    const workspaces = await openWorkspaces(options.events, stores, io, options.masterKey);
    const door = new Door({ store: stores.events, clock: io.clock, random: io.random, sleep: io.sleep, tallies: talliesOfRetry(stores.views) });
    return {
      door, keysOf: (workspace) => workspaces.keys(workspace),
      close: async () => {
        await door.drain();
        await workspaces.close();
        await stores.close();
      },
    };
  } catch (fault) {
    await stores.close();
    throw fault;
  }
}

/** What a retry records is counted by source as ever; what it rejects again was counted when it came. */
export function talliesOfRetry(views: DoorOptions['tallies']): DoorOptions['tallies'] {
  return {
    tallies: (workspace) => views.tallies(workspace),
    addTallies: (rows) => views.addTallies(rows.filter(({ recorded, duplicates }) => recorded + duplicates > 0).map((row) => ({ ...row, rejected: {}, examples: {} }))),
  };
}

/** As good as empty until ingest makes it, where there is the topic whose dead letters it is for; whose name was misspelt hears of it. */
async function openLetters(source: string, open: (name: string) => Promise<Topic>): Promise<Topic> {
  const letters = await open(deadLetterTopicOf(source));
  try {
    if (await letters.look() !== null) return letters;
    await letters.close();
    const from = await open(source);
    try {
      if (await from.look() === null) throw new OperatingError('sourceUnavailable', `there is no topic ${source}: create it, or check its name`);
    } finally {
      await from.close();
    }
  } catch (fault) {
    await letters.close();
    throw fault;
  }
  return {
    name: letters.name, look: () => Promise.resolve(null), close: () => Promise.resolve(), read: async function* none() { /* nothing stands there */ },
    write: () => Promise.reject(new Error('assertion: nothing is settled where nothing is open')),
  };
}

/** How many dead letters of a topic are open, each counted once. */
export async function countDeadLetters(place: SourcePlace, signal: AbortSignal): Promise<number> {
  const topic = await openLetters(place.topic, (name) => openTopic(place, name));
  try {
    return (await readOpen(topic, signal)).open.size;
  } finally {
    await topic.close();
  }
}

/** Exit code 0 when it was done; 1 when not, or when nothing is found to show. */
export function deadLetters(options: DeadLettersOptions, io: Io): Promise<number> {
  return orExplain('dead-letters', io, async () => {
    const wanted = wantedOf(options);
    const topic = await openLetters(options.topic, options.openTopic);
    try {
      switch (options.action) {
        case 'list': return await list(options, wanted, topic, io);
        case 'show': return await show(options, wanted, topic, io);
        case 'retry': return await retry(options, wanted, topic, io);
      }
    } finally {
      await topic.close();
    }
  });
}

type Wanted = (origin: DeliveryOrigin, code: string) => boolean;

function wantedOf({ id, code }: Pick<DeadLettersOptions, 'id' | 'code'>): Wanted {
  return (origin, itsCode) => (code === null || itsCode === code) && (id === null || id === coordinatesOf(origin) || id === `${String(origin.partition)}/${origin.offset}`);
}

// ---- what every door refused ---------------------------------------------------------------------------------------------

interface RefusedOf { readonly workspace: string; readonly source: string; readonly lastSeen: string; readonly rejected: Readonly<Record<string, number>>; readonly examples: Readonly<Record<string, readonly TallyExample[]>> }

/** Reads alone, beside running programs too. */
function refusedVerb({ code, workspace, json, ...places }: Options<'dead-letters'>, io: Io): Promise<number> {
  return orExplain('dead-letters', io, async () => {
    const stores = await openStores(places, 'read', io);
    try {
      const workspaces = await Workspaces.open({ store: stores.events, masterKey: null, clock: io.clock, random: io.random, sleep: io.sleep });
      const known = workspaces.list().map((one) => one.id);
      await workspaces.close();
      if (workspace !== null && !known.includes(workspace)) throw new OperatingError('badConfiguration', `there is no workspace ${workspace}: there ${known.length === 0 ? 'is none yet' : `are ${known.join(', ')}`}`);
      const tallies: Tally[] = [];
      for (const each of workspace === null ? known : [workspace]) tallies.push(...await stores.views.tallies(each));
      await printRefused(tallies.map((tally) => refusedOf(tally, code)).filter(({ rejected }) => Object.keys(rejected).length > 0), { code, workspace, json }, io);
      return 0;
    } finally {
      await stores.close();
    }
  });
}

function refusedOf({ workspace, source, lastSeen, rejected, examples = {} }: Tally, code: string | null): RefusedOf {
  const wanted = <T>(byCode: Readonly<Record<string, T>>): Readonly<Record<string, T>> => (code === null ? byCode : Object.fromEntries(Object.entries(byCode).filter(([one]) => one === code)));
  return { workspace, source, lastSeen, rejected: wanted(rejected), examples: wanted(examples) };
}

async function printRefused(refused: readonly RefusedOf[], { code, workspace, json }: Pick<Options<'dead-letters'>, 'code' | 'workspace' | 'json'>, io: Io): Promise<void> {
  const codes = sumRejections(refused.map(({ rejected }) => rejected));
  const all = Object.values(codes).reduce((sum, one) => sum + one, 0);
  if (json) {
    await printJson(io.stdout, { refused: all, codes, sources: refused });
    return;
  }
  const among = `${code === null ? '' : ` as ${code}`}${workspace === null ? '' : ` in workspace ${workspace}`}`;
  if (all === 0) {
    await print(io.stdout, `Nothing was refused${among}. (A topic's dead letters: --source.)\n`);
    return;
  }
  const counts = refused.flatMap((one) => Object.entries(one.rejected).map(([name, many]) => [one.workspace, one.source, name, count(many)]));
  const examples = refused.flatMap((one) => Object.entries(one.examples).flatMap(([name, told]) => told.map(({ sha256, at }) => ({ at, row: [at, one.workspace, one.source, name, sha256] }))));
  await print(io.stdout, table(['workspace', 'source', 'code', 'refused'], counts));
  if (examples.length > 0) await print(io.stdout, `\n${table(['last refused', 'workspace', 'source', 'code', 'SHA-256 of its bytes'], examples.sort((a, b) => (a.at < b.at ? -1 : 1)).map(({ row }) => row))}`);
  await print(io.stdout, `\n${count(all)} deliveries were refused${among}. What came from a topic stands in its dead-letter topic (--source). Of the others each was told to its sender, and nothing was kept; an import wrote its own to FILE.rejected.ndjson, with the same hashes.\n`);
}

// ---- what is open ------------------------------------------------------------------------------------------------------

/** What is kept of a dead letter, and nothing of its body, key or headers: some 300 bytes, so that a topic of millions can be counted. */
interface Open {
  readonly origin: DeliveryOrigin;
  readonly code: string;
  readonly attribute: string | null;
  readonly reason: string;
  readonly writtenMs: number;
  readonly bytes: number;
  /** Times it stands on the topic: a crash between writing it and passing its offset writes it again. */
  times: number;
  /** Partitions of the dead-letter topic where it stands, nearly always one. */
  partitions: readonly number[];
}
interface OnTopic { readonly open: ReadonlyMap<string, Open>; readonly resolved: number; readonly foreign: number }

/** Reads the whole topic. What a resolution settles stands before it on the same partition, whose order the reading keeps. */
async function readOpen(topic: Topic, signal: AbortSignal): Promise<OnTopic> {
  const open = new Map<string, Open>();
  const names = new Map<string, string>();
  /** One copy of each text that all of a kind share. */
  const shared = (text: string): string => names.get(text) ?? (names.set(text, text), text);
  let resolved = 0;
  let foreign = 0;
  for await (const records of topic.read({ signal })) {
    for (const record of records) {
      const read = readDeadLetterTopic(record);
      switch (read.kind) {
        case 'foreign': foreign += 1; break;
        case 'resolution': if (settle(open, read.resolution, record.partition)) resolved += 1; break;
        case 'deadLetter': {
          const { origin, code, attribute, reason, writtenMs, value } = read.deadLetter;
          const name = coordinatesOf(origin);
          const known = open.get(name);
          if (known === undefined) {
            open.set(name, { origin: { ...origin, topic: shared(origin.topic) }, code: shared(code), attribute: attribute === null ? null : shared(attribute), reason: shared(reason), writtenMs, bytes: value?.length ?? 0, times: 1, partitions: [record.partition] });
          } else {
            known.times += 1;
            if (!known.partitions.includes(record.partition)) known.partitions = [...known.partitions, record.partition];
          }
        }
      }
    }
  }
  // What was read until then is a part, and says nothing of the whole.
  if (signal.aborted) throw new OperatingError('sourceUnavailable', 'interrupted before the end of the dead letters');
  return { open, resolved, foreign };
}

/** Whether nothing of it is open any more. */
function settle(open: Map<string, Open>, { origin }: Resolution, partition: number): boolean {
  const name = coordinatesOf(origin);
  const known = open.get(name);
  if (known === undefined) return false;
  known.partitions = known.partitions.filter((one) => one !== partition);
  return known.partitions.length === 0 && open.delete(name);
}

function byOrigin(a: { readonly origin: DeliveryOrigin }, b: { readonly origin: DeliveryOrigin }): number {
  if (a.origin.topic !== b.origin.topic) return a.origin.topic < b.origin.topic ? -1 : 1;
  if (a.origin.partition !== b.origin.partition) return a.origin.partition - b.origin.partition;
  // Offsets have up to 63 bits; without leading zeros, the longer is the larger.
  const [one, other] = [a.origin.offset, b.origin.offset];
  return one.length - other.length || (one < other ? -1 : one > other ? 1 : 0);
}

// ---- list --------------------------------------------------------------------------------------------------------------

/** More rows than these nobody reads; the counts are of all. */
const LISTED_MAX = 10_000;

async function list(options: DeadLettersOptions, wanted: Wanted, topic: Topic, io: Io): Promise<number> {
  const { open, resolved, foreign } = await readOpen(topic, io.signal);
  const all = [...open.values()].filter(({ origin, code }) => wanted(origin, code));
  const codes = countBy(all.map(({ code }) => code));
  const listed = all.sort((a, b) => a.writtenMs - b.writtenMs || byOrigin(a, b)).slice(-LISTED_MAX);
  if (options.json) {
    const rows = listed.map(({ origin, writtenMs, code, attribute, reason, bytes: size, times }) => ({ id: coordinatesOf(origin), ...origin, written: instantOf(writtenMs), code, attribute, message: reason, bytes: size, times }));
    await printJson(io.stdout, { topic: topic.name, open: all.length, resolved, foreign, codes, deadLetters: rows });
    return 0;
  }
  const rows = listed.map(({ origin, writtenMs, code, attribute, reason, bytes: size }) => [coordinatesOf(origin), instantOf(writtenMs), codeOf({ code, attribute }), bytes(size), reason]);
  if (rows.length > 0) await print(io.stdout, `${table(['id', 'written', 'code', 'size', 'reason'], rows)}\n${table(['code', 'open'], Object.entries(codes).map(([code, many]) => [code, count(many)]))}\n`);
  const beyond = all.length > listed.length ? `, of which the newest ${count(listed.length)} are listed` : '';
  await print(io.stdout, `${topic.name}: ${count(all.length)} open${beyond}, ${count(resolved)} resolved${foreign === 0 ? '' : `, ${count(foreign)} records of others`}\n`);
  return 0;
}

function countBy(names: readonly string[]): Readonly<Record<string, number>> {
  const counts = new Map<string, number>();
  for (const name of names) counts.set(name, (counts.get(name) ?? 0) + 1);
  return Object.fromEntries([...counts].sort(([a], [b]) => (a < b ? -1 : 1)));
}
const instantOf = (ms: number): string => new Date(ms).toISOString();

// ---- show --------------------------------------------------------------------------------------------------------------

/** Prints a customer's data, as asked: key, headers and body as they came. */
async function show(options: DeadLettersOptions, wanted: Wanted, topic: Topic, io: Io): Promise<number> {
  const { id } = options;
  if (id === null) throw new OperatingError('badConfiguration', 'which one? show takes TOPIC/PARTITION/OFFSET, or PARTITION/OFFSET');
  let found: DeadLetter | null = null;
  let times = 0;
  let resolution: Resolution | null = null;
  for await (const records of topic.read({ signal: io.signal })) {
    for (const record of records) {
      const read = readDeadLetterTopic(record);
      if (read.kind === 'deadLetter' && wanted(read.deadLetter.origin, read.deadLetter.code)) {
        if (found !== null && coordinatesOf(found.origin) !== coordinatesOf(read.deadLetter.origin)) throw new OperatingError('badConfiguration', `more than one topic has ${id}: name its topic too`);
        found = read.deadLetter;
        times += 1;
        resolution = null;
      } else if (read.kind === 'resolution' && found !== null && coordinatesOf(read.resolution.origin) === coordinatesOf(found.origin)) resolution = read.resolution;
    }
  }
  if (found === null) {
    await print(io.stderr, `throughline dead-letters: ${topic.name} has no dead letter ${printable(id)}\n`);
    return 1;
  }
  if (options.json) await printJson(io.stdout, shown(found, times, resolution));
  else await print(io.stdout, printShown(found, times, resolution));
  return 0;
}

/** Text where the bytes are text; `_base64` says that they are not. */
function said(name: string, value: Uint8Array | string | null): Readonly<Record<string, string | null>> {
  if (value === null || typeof value === 'string') return { [name]: value };
  return isUtf8(value) ? { [name]: Buffer.from(value).toString('utf8') } : { [`${name}_base64`]: Buffer.from(value).toString('base64') };
}
function headersOf(headers: Headers): readonly (readonly [string, HeaderValue])[] {
  return Object.entries(headers).flatMap(([name, value]) => headerValues(value).map((one) => [name, one] as const));
}

function shown({ origin, code, attribute, reason, stage, writtenMs, key, value, headers }: DeadLetter, times: number, resolution: Resolution | null): object {
  return {
    id: coordinatesOf(origin), ...origin, written: instantOf(writtenMs), times, code, attribute, message: reason, stage, resolved: resolution?.how ?? null,
    ...said('key', key), headers: headersOf(headers).map(([name, one]) => ({ name, ...said('value', one) })), ...said('body', value),
  };
}

function printShown({ origin, code, attribute, reason, stage, writtenMs, key, value, headers }: DeadLetter, times: number, resolution: Resolution | null): string {
  const text = (bytesOrText: Uint8Array | string | null): string => {
    if (bytesOrText === null) return 'none';
    const [[name, shownAs] = ['', '']] = Object.entries(said('', bytesOrText));
    return `${name === '' ? '' : '(base64) '}${printable(shownAs ?? '')}`;
  };
  const lines: readonly (readonly [string, string])[] = [
    ['dead letter', coordinatesOf(origin)], ['written', `${instantOf(writtenMs)}${times > 1 ? `, ${String(times)} times` : ''}`],
    ['code', codeOf({ code, attribute })], ['reason', reason], ['stage', stage], ['resolved', resolution?.how ?? 'no'], ['key', text(key)],
    ...headersOf(headers).map(([name, one]) => [`header ${name}`, text(one)] as const),
  ];
  const width = Math.max(...lines.map(([name]) => name.length));
  const body = value !== null && isUtf8(value) ? Buffer.from(value).toString('utf8').split('\n').map(printable).join('\n') : text(value);
  return `${lines.map(([name, line]) => `${printable(name).padEnd(width)}  ${printable(line)}\n`).join('')}\n${body}\n`;
}

// ---- retry -------------------------------------------------------------------------------------------------------------

/** Bodies held at once: a topic with more of them is read once for each such part. */
const PART_BYTES = 32 * 1024 * 1024;
const PART_LETTERS = 20_000;
const RESOLUTIONS_AT_ONCE = 500;

interface Retried { recorded: number; duplicate: number; rejected: number; readonly codes: string[] }
interface Letter { readonly name: string; readonly deadLetter: DeadLetter }

/**
 * Through the door again, under the rules as they are now: in the order of the original partitions and offsets, hence of
 * each identity, behind what is stored. A crash anywhere costs a repeat: what was recorded and not yet told of is a
 * duplicate for the door, by its original offset.
 */
async function retry(options: DeadLettersOptions, wanted: Wanted, topic: Topic, io: Io): Promise<number> {
  const { open } = await readOpen(topic, io.signal);
  const chosen = [...open.values()].filter(({ origin, code }) => wanted(origin, code)).sort(byOrigin);
  const retried: Retried = { recorded: 0, duplicate: 0, rejected: 0, codes: [] };
  if (chosen.length > 0) await retryAll(options, chosen, topic, retried, io);
  else if (options.id !== null) {
    await print(io.stderr, `throughline dead-letters: ${topic.name} has no open dead letter ${printable(options.id)}\n`);
    return 1;
  }
  const { recorded, duplicate, rejected, codes } = retried;
  const interrupted = io.signal.aborted && recorded + duplicate + rejected < chosen.length;
  if (options.json) await printJson(io.stdout, { topic: topic.name, retried: chosen.length, recorded, duplicate, rejected, codes: countBy(codes), complete: !interrupted });
  else {
    const why = Object.entries(countBy(codes)).map(([code, many]) => `${code} ${count(many)}`).join(', ');
    await print(io.stdout, `${topic.name}: ${count(recorded)} recorded, ${count(duplicate)} duplicate, ${count(rejected)} still rejected${why === '' ? '' : ` (${why})`}\n`);
    if (interrupted) await print(io.stderr, 'throughline dead-letters: interrupted: start again, what is recorded is not recorded twice\n');
  }
  return interrupted ? 1 : 0;
}

async function retryAll(options: DeadLettersOptions, chosen: readonly Open[], topic: Topic, retried: Retried, io: Io): Promise<void> {
  const bar = new ProgressBar(io, 'retrying', chosen.length);
  const opened = await options.openDoor();
  try {
    for (let from = 0; from < chosen.length && !io.signal.aborted;) {
      const part = partFrom(chosen, from);
      await retryPart(options, opened, part, topic, retried, io);
      from += part.length;
      bar.show(from, from);
    }
  } finally {
    bar.clear();
    await opened.close();
  }
}

function partFrom(chosen: readonly Open[], from: number): readonly Open[] {
  let size = 0;
  let end = from;
  for (; end < chosen.length && end - from < PART_LETTERS; end += 1) {
    // A record that was written more than once may be more than one (a topic made anew): each may have to be held.
    const one = chosen[end];
    size += (one?.bytes ?? 0) * (one?.times ?? 1);
    if (size > PART_BYTES && end > from) break;
  }
  return chosen.slice(from, end);
}

async function retryPart(options: DeadLettersOptions, opened: OpenDoor, part: readonly Open[], topic: Topic, retried: Retried, io: Io): Promise<void> {
  const letters = await readLetters(topic, part, io.signal);
  if (letters === null) return;
  const results = await receiveAll(options, opened, letters);
  const resolutions: (Resolution & { readonly partitions: readonly number[] })[] = [];
  for (const { origin, partitions } of part) {
    const outcomes = results.get(coordinatesOf(origin)) ?? [];
    const refused = outcomes.find(({ kind }) => kind === 'rejected');
    if (outcomes.length === 0) continue;
    if (refused?.kind === 'rejected') {
      retried.rejected += 1;
      retried.codes.push(refused.code);
      continue;
    }
    const how = outcomes.some(({ kind }) => kind === 'recorded') ? 'recorded' : 'duplicate';
    retried[how] += 1;
    resolutions.push({ origin, how, partitions });
  }
  await resolve(topic, resolutions, io.clock.now());
}

/** The letters themselves in the order of the part; of several with the same bytes one. Null when interrupted. */
async function readLetters(topic: Topic, part: readonly Open[], signal: AbortSignal): Promise<readonly Letter[] | null> {
  const found = new Map<string, DeadLetter[]>(part.map(({ origin }) => [coordinatesOf(origin), []]));
  for await (const records of topic.read({ signal })) {
    for (const record of records) {
      const read = readDeadLetterTopic(record);
      if (read.kind !== 'deadLetter') continue;
      const same = found.get(coordinatesOf(read.deadLetter.origin));
      if (same === undefined || same.some((one) => areSame(one, read.deadLetter))) continue;
      // A copy: what a driver hands over may hold all that it fetched.
      const { key, value, headers } = read.deadLetter;
      same.push({ ...read.deadLetter, key: copy(key), value: copy(value), headers: Object.fromEntries(Object.entries(headers).map(([name, one]) => [name, headerValues(one).map(copyOne)])) });
    }
  }
  if (signal.aborted) return null;
  return [...found].flatMap(([name, all]) => all.map((deadLetter) => ({ name, deadLetter })));
}

const copy = (value: Uint8Array | null): Uint8Array | null => (value === null ? null : Buffer.from(value));
const copyOne = (value: HeaderValue): HeaderValue => (typeof value === 'string' ? value : copy(value));
const bytesOf = (value: HeaderValue): Uint8Array | null => (typeof value === 'string' ? Buffer.from(value) : value);
function areSame(a: DeadLetter, b: DeadLetter): boolean {
  const equal = (one: Uint8Array | null, other: Uint8Array | null): boolean => (one === null || other === null ? one === other : Buffer.from(one.buffer, one.byteOffset, one.byteLength).equals(other));
  const [ours, theirs] = [headersOf(a.headers), headersOf(b.headers)];
  return equal(a.key, b.key) && equal(a.value, b.value) && ours.length === theirs.length
    && ours.every(([name, value], i) => name === theirs[i]?.[0] && equal(bytesOf(value), bytesOf(theirs[i][1])));
}

type Outcome = { readonly kind: 'recorded' | 'duplicate' } | { readonly kind: 'rejected'; readonly code: string };

/** One call of the door for each workspace, in order. */
async function receiveAll({ rules }: DeadLettersOptions, { door, keysOf }: OpenDoor, letters: readonly Letter[]): Promise<ReadonlyMap<string, readonly Outcome[]>> {
  const outcomes = new Map<string, Outcome[]>(letters.map(({ name }) => [name, []]));
  const deliveries = letters.map(({ name, deadLetter }) => ({ of: name, delivery: deadLetter, origin: deadLetter.origin }));
  const groups = byWorkspace(deliveries, rules, (name, { code }) => outcomes.get(name)?.push({ kind: 'rejected', code }));
  for (const [workspace, { of: names, decoded, origins }] of groups) {
    const keys = keysOf(workspace);
    if (keys === null) throw workspaceMissing(workspace);
    const receipts = await door.receive(keys, decoded, origins);
    receipts.forEach((receipt, i) => outcomes.get(names[i] ?? '')?.push(receipt.kind === 'rejected' ? { kind: 'rejected', code: receipt.rejection.code } : { kind: receipt.kind }));
  }
  return outcomes;
}

/** Said where the dead letters stand, behind them. */
async function resolve(topic: Topic, resolutions: readonly (Resolution & { readonly partitions: readonly number[] })[], nowMs: number): Promise<void> {
  if (resolutions.length === 0) return;
  const { encodeOwnEvent } = await import('../adapters/cloudevents.ts');
  const records = resolutions.flatMap(({ origin, how, partitions }): OutgoingRecord[] => partitions.map((partition) => ({ ...encodeOwnEvent(resolutionEvent({ origin, how }, nowMs)), partition })));
  for (let from = 0; from < records.length; from += RESOLUTIONS_AT_ONCE) await topic.write(records.slice(from, from + RESOLUTIONS_AT_ONCE));
}
