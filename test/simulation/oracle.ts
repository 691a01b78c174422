// What must be true of a run: while it goes on, of each step that it can be seen in, and at its end of all that stands. The
// truth is made out from what was sent and from the log alone; folds are driven here by themselves, over plain maps.
import type { Interpreted, Projection } from '../../projections/projection.ts';
import type { WorkspaceKeys } from '../../schemas/identity.ts';
import { readRecorded } from '../../schemas/recorded.ts';
import { interpret } from '../../schemas/vocabularies/index.ts';
import type { Door, Receipt } from '../../services/door.ts';
import type { Ingest } from '../../services/ingest/ingest.ts';
import type { Commit, EventStore, Generation, NewEvent, Position, RecordedEvent, View } from '../../services/ports.ts';
import { addHash, type Digest, digestText, DocumentHasher, EMPTY_DIGEST } from '../../services/projector/digest.ts';
import { shardOf } from '../../services/shards.ts';
import { MemoryDocuments } from '../support/facts.ts';
import { seeded } from '../support/seeded.ts';
import type { Witness } from './ports.ts';
import type { Sent } from './schedule.ts';
import type { Process, World } from './world.ts';

/** What one that was sent ought to become: made out by its keys alone. `data` as the log must hold it, byte for byte. */
export type Expected =
  | { readonly kind: 'event'; readonly sent: Sent; readonly stream: string; readonly eventId: string; readonly data: Uint8Array }
  | { readonly kind: 'rejected'; readonly sent: Sent; readonly code: string };

/** A view as its commits made it. */
class Mirror {
  readonly documents = new Map<string, string>();
  readonly records = new Map<string, MemoryDocuments>();
  readonly commits: { readonly position: Position; readonly digest: string }[] = [];
  readonly view: View;
  position: Position | null = null;

  constructor(view: View) { this.view = view; }

  apply({ position, digest, documents, records }: Commit, projection: Projection): void {
    for (const [key, value] of documents) {
      if (value === null) this.documents.delete(key);
      else this.documents.set(key, value);
    }
    for (const [workspace, changes] of records) {
      const some = this.records.get(workspace) ?? new MemoryDocuments(projection);
      this.records.set(workspace, some);
      some.apply({ documents: new Map(), records: changes });
    }
    this.position = position;
    this.commits.push({ position, digest });
  }
}

/** What a reader was told: at least `position`, and everything that it read after that says so. */
interface Seen { readonly reader: string; readonly group: string; readonly shard: number; readonly shards: number; readonly target: Position | null; readonly position: Position | null; readonly digest: string }

interface Mind { readonly process: Process; readonly door: Door; readonly ingest: Ingest | null }

export class Oracle implements Witness {
  readonly #world: World;
  readonly #projections: readonly Projection[];
  readonly #keysOf: (workspace: string) => WorkspaceKeys;
  readonly #mirrors = new Map<string, Mirror>();
  readonly #live = new Map<string, number>();
  /** Event id → how often it was appended. */
  readonly #standing = new Map<string, number>();
  readonly #letters = new Set<string>();
  /** Partition → what ought to become of its records, in order. */
  readonly onTopic: Expected[][] = [];
  readonly sent: Expected[] = [];
  readonly #seen: Seen[] = [];
  readonly #furthest = new Map<string, Position>();
  readonly minds: Mind[] = [];
  /** Beside the first of each group. */
  promotions = 0;

  constructor(world: World, projections: readonly Projection[], keysOf: (workspace: string) => WorkspaceKeys) {
    this.#world = world;
    this.#projections = projections;
    this.#keysOf = keysOf;
  }

  // ---- while it runs ---------------------------------------------------------------------------------------------------

  appended(_stream: string, events: readonly NewEvent[]): void {
    for (const { id } of events) this.#standing.set(id, (this.#standing.get(id) ?? 0) + 1);
  }

  buried(coordinates: string): void { this.#letters.add(coordinates); }

  /** As a reader sees it who reads at every moment. */
  promoted({ group, id, shards, target }: Generation): void {
    const live = this.#live.get(group);
    this.#live.set(group, id);
    if (live === undefined) return;
    this.promotions += 1;
    for (let shard = 0; shard < shards; shard += 1) {
      const [before, now] = [this.stands(group, live, shard), this.stands(group, id, shard)];
      if (before !== null && (now === null || now < before)) this.#world.fail('G5', `${group}/${String(shard)}: generation ${String(id)} was promoted at ${String(now)}, where ${String(live)} stood at ${before}`);
      if (target !== null && (now === null || now < target)) this.#world.fail('G5', `${group}/${String(shard)}: generation ${String(id)} was promoted at ${String(now)}, before ${target} where it is whole`);
    }
  }

  committed(view: View, commit: Commit): void {
    const { group, id } = view.generation;
    const mirror = this.#mirror(view);
    const where = `${group} ${String(id)}/${String(view.shard)}`;
    if (mirror.position !== commit.expected) this.#world.fail('G3', `${where}: a commit that expected ${String(commit.expected)} was made at ${String(mirror.position)}`);
    if (mirror.position !== null && commit.position <= mirror.position) this.#world.fail('G3', `${where}: a commit moved the position from ${mirror.position} to ${commit.position}`);
    if ((this.#live.get(group) === id) !== (commit.role === 'live')) this.#world.fail('G5', `${where}: a commit as ${commit.role} while ${String(this.#live.get(group))} is live`);
    mirror.apply(commit, this.#projection(group));
  }

  passed(partition: number, offset: number): void {
    this.onTopic[partition]?.slice(0, offset + 1).forEach((expected, at) => {
      const coordinates = `cx/${String(partition)}/${String(at)}`;
      if (expected.kind === 'event' && !this.#standing.has(expected.eventId)) this.#world.fail('G1', `offset ${String(offset)} was passed before the event of ${coordinates} was durable`);
      if (expected.kind === 'rejected' && !this.#letters.has(coordinates)) this.#world.fail('G4', `offset ${String(offset)} was passed before ${coordinates} was a dead letter`);
    });
  }

  /** What a door answered to one that was sent. */
  answered(expected: Expected, receipt: Receipt): void {
    if (receipt.kind === 'rejected') {
      if (expected.kind === 'event' || expected.code !== receipt.rejection.code) this.#world.fail('G4', `${expected.sent.text} was refused as ${receipt.rejection.code}`);
    } else if (expected.kind === 'rejected') this.#world.fail('G4', `${expected.sent.text} was ${receipt.kind} and ought to be refused`);
    else if (receipt.eventId !== expected.eventId || !this.#standing.has(expected.eventId)) this.#world.fail('G1', `${expected.sent.text} was acknowledged as ${receipt.kind} and does not stand`);
  }

  /** `digest` was read after the position. */
  read(seen: Seen): void {
    const name = `${seen.reader}/${seen.group}/${String(seen.shard)}`;
    const furthest = this.#furthest.get(name) ?? null;
    if (furthest !== null && (seen.position === null || seen.position < furthest)) this.#world.fail('G5', `${name}: read ${String(seen.position)} after ${furthest}`);
    if (seen.target !== null && (seen.position === null || seen.position < seen.target)) this.#world.fail('G5', `${name}: read at ${String(seen.position)}, before ${seen.target} where it is whole`);
    if (seen.position !== null) this.#furthest.set(name, seen.position);
    this.#seen.push(seen);
  }

  /** Whether a reader was answered from there or later. */
  hasRead(reader: string, group: string, position: Position): boolean {
    return [...this.#furthest].some(([name, furthest]) => name.startsWith(`${reader}/${group}/`) && furthest >= position);
  }

  stands(group: string, generation: number, shard: number): Position | null { return this.#mirrors.get(`${group}/${String(generation)}/${String(shard)}`)?.position ?? null; }

  #mirror(view: View): Mirror {
    const name = `${view.generation.group}/${String(view.generation.id)}/${String(view.shard)}`;
    let mirror = this.#mirrors.get(name);
    if (mirror === undefined) this.#mirrors.set(name, mirror = new Mirror(view));
    return mirror;
  }

  #projection(group: string): Projection {
    const found = this.#projections.find((projection) => projection.group === group);
    if (found === undefined) throw new Error(`no projection of ${group}`);
    return found;
  }

  // ---- at the end ------------------------------------------------------------------------------------------------------

  async judge(events: EventStore, older: ReadonlySet<string>): Promise<void> {
    const log = await logOf(events);
    this.#judgeLog(log, older);
    this.#judgeOrder(log);
    this.#judgeCounts(log.length - older.size);
    for (const projection of this.#projections) await this.#judgeViews(projection, log);
  }

  #judgeLog(log: readonly RecordedEvent[], older: ReadonlySet<string>): void {
    const stored = new Map<string, RecordedEvent[]>();
    for (const event of log) stored.set(event.id, [...(stored.get(event.id) ?? []), event]);
    for (const one of this.sent) {
      if (one.kind === 'rejected') continue;
      const found = stored.get(one.eventId) ?? [];
      const [first] = found;
      if (found.length !== 1 || first === undefined) this.#world.fail('G1', `${one.sent.text} stands ${String(found.length)} times`);
      else if (first.stream !== one.stream || !Buffer.from(first.data).equals(one.data)) this.#world.fail('G1', `${one.sent.text} is not stored as it was sent`);
    }
    const known = new Set([...this.sent.map((one) => (one.kind === 'event' ? one.eventId : '')), ...older]);
    for (const [id, found] of stored) {
      if (!known.has(id)) this.#world.fail('G1', `${id} stands and nobody sent it`);
      if (found.length > 1) this.#world.fail('G1', `${id} stands ${String(found.length)} times`);
    }
  }

  /** Of each stream and sender: those that it alone sent, in the order in which it sent each first. */
  #judgeOrder(log: readonly RecordedEvent[]): void {
    const places = new Map(log.map(({ id }, place) => [id, place]));
    const senders = new Map<string, Set<string>>();
    for (const one of this.sent) if (one.kind === 'event') senders.set(one.eventId, (senders.get(one.eventId) ?? new Set()).add(one.sent.by));
    const last = new Map<string, number>();
    const done = new Set<string>();
    for (const one of this.sent) {
      if (one.kind === 'rejected' || done.has(one.eventId) || senders.get(one.eventId)?.size !== 1) continue;
      done.add(one.eventId);
      const line = `${one.sent.by} ${one.stream}`;
      const place = places.get(one.eventId) ?? -1;
      if (place < (last.get(line) ?? -1)) this.#world.fail('G2', `${one.sent.text} stands before what ${one.sent.by} sent before it`);
      last.set(line, place);
    }
  }

  #judgeCounts(stored: number): void {
    this.onTopic.forEach((records, partition) => records.forEach((expected, offset) => {
      const isLetter = this.#letters.has(`cx/${String(partition)}/${String(offset)}`);
      if (isLetter !== (expected.kind === 'rejected')) this.#world.fail('G4', `${expected.sent.text} is ${isLetter ? 'a' : 'no'} dead letter`);
    }));
    let recorded = 0;
    for (const { process, door, ingest } of this.minds) {
      recorded += door.counts().recorded;
      // Of one that died, some are under way for ever.
      if (!process.alive) continue;
      const counts = ingest?.counts();
      if (counts !== undefined && counts.received !== counts.recorded + counts.duplicates + counts.deadLettered + counts.returned + counts.underWay) this.#world.fail('G4', `${process.name}: received is not what became of it: ${JSON.stringify(counts)}`);
    }
    if (recorded > stored) this.#world.fail('G4', `${String(recorded)} events were counted as recorded, and ${String(stored)} stand`);
    if (this.#world.kills === 0 && this.minds.every(({ door }) => door.counts().failed === 0) && recorded !== stored) this.#world.fail('G4', `${String(stored)} events stand, and ${String(recorded)} were counted as recorded`);
  }

  async #judgeViews(projection: Projection, log: readonly RecordedEvent[]): Promise<void> {
    const { group } = projection;
    const mirrors = [...this.#mirrors.values()].filter(({ view }) => view.generation.group === group);
    const seen = this.#seen.filter((one) => one.group === group);
    for (const one of seen) if (!isCommitted(one, mirrors)) this.#world.fail('G5', `${one.reader} read a view of ${group}/${String(one.shard)} at ${String(one.position)} that no commit made`);
    const reference = new Reference(projection, this.#keysOf, log);
    for (const position of sample(log.at(-1)?.position, mirrors.flatMap(({ commits }) => commits.map((commit) => commit.position)))) {
      reference.foldTo(position);
      for (const { view: { shard, generation }, commits } of mirrors) {
        const commit = commits.find((one) => one.position === position);
        if (commit !== undefined && commit.digest !== reference.digest(shard, generation.shards)) this.#world.fail('G3', `${group} ${String(generation.id)}/${String(shard)} at ${position} is not the fold of the log up to there`);
      }
    }
    const head = log.at(-1)?.position;
    if (head === undefined) return;
    const whole = new Reference(projection, this.#keysOf, shuffled(log));
    whole.foldAll();
    for (const mirror of mirrors) if (mirror.position === head) await this.#judgeContents(mirror, whole);
  }

  async #judgeContents({ view, documents, records }: Mirror, reference: Reference): Promise<void> {
    const { generation: { group, id, shards }, shard } = view;
    const where = `${group} ${String(id)}/${String(shard)}`;
    if (await view.digest() !== reference.digest(shard, shards)) this.#world.fail('G3', `${where}: the digest is not that of the fold of the log`);
    const wanted = reference.documents(shard, shards);
    const keys = [...new Set([...documents.keys(), ...wanted.keys()])].sort();
    (await view.load(keys)).forEach((text, i) => {
      const key = keys[i] ?? '';
      if (text !== (wanted.get(key) ?? null)) this.#world.fail('G3', `${where}: ${key} is ${String(text)} and not ${String(wanted.get(key))}`);
    });
    for (const [workspace, expected] of reference.records(shard, shards)) {
      const found = JSON.stringify(records.get(workspace)?.snapshot().records ?? {});
      if (found !== expected) this.#world.fail('G3', `${where}: the records of ${workspace} are ${found} and not ${expected}`);
    }
  }
}

/** Whether what was read is what some commit left, at the position that the reader was told or later; nothing before the first. */
function isCommitted({ shard, shards, position, digest }: Seen, mirrors: readonly Mirror[]): boolean {
  if (position === null) return true;
  return mirrors.some(({ view, commits }) => view.shard === shard && view.generation.shards === shards && commits.some((commit) => commit.position >= position && commit.digest === digest));
}

/** Positions to fold to, in order, but for the head's: all of a few, of many some from everywhere among them. */
function sample(head: Position | undefined, positions: readonly Position[]): readonly Position[] {
  const all = [...new Set(positions)].filter((position) => position !== head).sort();
  const step = Math.max(1, Math.ceil(all.length / SAMPLES));
  return all.filter((_, at) => at % step === (all.length - 1) % step);
}
const SAMPLES = 4;

async function logOf(events: EventStore): Promise<readonly RecordedEvent[]> {
  if ((await events.head()) === null) return [];
  const reading = new AbortController();
  for await (const batch of events.subscribe({ after: null, prefixes: [], maxBatch: 100_000, signal: reading.signal })) {
    reading.abort();
    return batch.events;
  }
  return [];
}

/** Another order of arrival: a view is a function of the set of events, so it says what every view at the head must be. */
function shuffled(log: readonly RecordedEvent[]): readonly RecordedEvent[] { return seeded(log.length).shuffled(log); }

const HASHER = new DocumentHasher();

/** The views that a log gives, folded here. */
class Reference {
  readonly #projection: Projection;
  readonly #keysOf: (workspace: string) => WorkspaceKeys;
  readonly #log: readonly RecordedEvent[];
  readonly #workspaces = new Map<string, MemoryDocuments>();
  readonly #digests = new Map<string, Digest>();
  #done = 0;

  constructor(projection: Projection, keysOf: (workspace: string) => WorkspaceKeys, log: readonly RecordedEvent[]) {
    this.#projection = projection;
    this.#keysOf = keysOf;
    this.#log = log;
  }

  foldTo(position: Position): void { this.#foldUntil(endOf(this.#log, this.#done, position)); }

  /** In two portions. */
  foldAll(): void {
    this.#foldUntil(this.#log.length >> 1);
    this.#foldUntil(this.#log.length);
  }

  #foldUntil(end: number): void {
    if (end > this.#done) this.#fold(this.#log.slice(this.#done, end));
    this.#done = end;
  }

  #fold(events: readonly RecordedEvent[]): void {
    const groups = new Map<string, Interpreted[]>();
    for (const event of events) {
      const { workspace, interpreted } = interpretedOf(event);
      const group = groups.get(workspace);
      if (group === undefined) groups.set(workspace, [interpreted]);
      else group.push(interpreted);
    }
    for (const [workspace, group] of groups) {
      const documents = this.#workspaces.get(workspace) ?? new MemoryDocuments(this.#projection, this.#keysOf(workspace));
      this.#workspaces.set(workspace, documents);
      documents.fold(group);
      let digest: Digest = EMPTY_DIGEST;
      for (const [name, text] of documents.texts) digest = addHash(digest, HASHER.hash(`${workspace}/${name}`, text));
      this.#digests.set(workspace, digest);
    }
  }

  #held(shard: number, shards: number): [string, MemoryDocuments][] { return [...this.#workspaces].filter(([workspace]) => shardOf(workspace, shards) === shard); }

  digest(shard: number, shards: number): string { return digestText(this.#held(shard, shards).reduce<Digest>((sum, [workspace]) => addHash(sum, this.#digests.get(workspace) ?? EMPTY_DIGEST), EMPTY_DIGEST)); }

  documents(shard: number, shards: number): Map<string, string> { return new Map(this.#held(shard, shards).flatMap(([workspace, { texts }]) => [...texts].map(([name, text]) => [`${workspace}/${name}`, text] as const))); }

  records(shard: number, shards: number): [string, string][] { return this.#held(shard, shards).map(([workspace, documents]) => [workspace, JSON.stringify(documents.snapshot().records)]); }
}

function endOf(log: readonly RecordedEvent[], from: number, position: Position): number {
  let end = from;
  while (end < log.length && (log[end]?.position ?? '') <= position) end += 1;
  return end;
}

/** Interpreted once for all folds of a run: none changes it. */
const INTERPRETED = new WeakMap<RecordedEvent, { readonly workspace: string; readonly interpreted: Interpreted }>();
function interpretedOf(event: RecordedEvent): { readonly workspace: string; readonly interpreted: Interpreted } {
  let found = INTERPRETED.get(event);
  if (found === undefined) {
    const recorded = readRecorded(event);
    INTERPRETED.set(event, found = { workspace: recorded.workspace, interpreted: interpret(recorded).interpreted });
  }
  return found;
}
