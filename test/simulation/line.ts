// The line of a run: stores in memory, and around them the processes that a schedule asks for, each the real code with what
// it asks of the world in the simulation's hands.
import { journeys } from '../../projections/journeys.ts';
import { persons } from '../../projections/persons.ts';
import type { Projection } from '../../projections/projection.ts';
import { type Decoded, decodeStructured } from '../../schemas/cloudevent.ts';
import { isWorkspaceId, type WorkspaceKeys, workspaceKeys } from '../../schemas/identity.ts';
import { instantOf } from '../../schemas/time.ts';
import { toNewEvent } from '../../schemas/recorded.ts';
import { MemoryEventStore } from '../../services/adapters/memory-events.ts';
import { MemoryBroker } from '../../services/adapters/memory-source.ts';
import { MemoryViewStore } from '../../services/adapters/memory-views.ts';
import { Views } from '../../services/api/views.ts';
import { Door } from '../../services/door.ts';
import { createIngest } from '../../services/ingest/ingest.ts';
import { OperatingError } from '../../services/errors.ts';
import type { EventStore, OutgoingRecord, Position, Source, ViewStore } from '../../services/ports.ts';
import { replay } from '../../services/projector/replay.ts';
import { shareShards } from '../../services/projector/leases.ts';
import { runProjector } from '../../services/projector/projector.ts';
import { shardOf } from '../../services/shards.ts';
import { seeded } from '../support/seeded.ts';
import { type Expected, Oracle } from './oracle.ts';
import { eventsOf, lettersOf, request, sourceOf, viewsOf } from './ports.ts';
import { type Schedule, START_MS, type Sent, type Workspace, WORKSPACES } from './schedule.ts';
import { type Failure, type Process, World } from './world.ts';

const TOPIC = 'cx';
const PROJECTIONS: Readonly<Record<'journeys' | 'persons', Projection>> = { journeys, persons };
const MAX_EVENT_BYTES = 4096;
const UPGRADE_LOOK_MS = 50;

/** The same in all runs: what keys cost is paid once. */
const KEYS = new Map<string, WorkspaceKeys>(WORKSPACES.map((name) => {
  if (!isWorkspaceId(name)) throw new Error('not a workspace');
  return [name, workspaceKeys(name, new Uint8Array(32).fill(9))];
}));
function keysOf(workspace: string): WorkspaceKeys {
  const keys = KEYS.get(workspace);
  if (keys === undefined) throw new Error(`no workspace ${workspace}`);
  return keys;
}
const keysNow = async (workspace: string): Promise<WorkspaceKeys> => keysOf(workspace);

const decoded = (sent: Sent): Decoded => decodeStructured(Buffer.from(sent.text), { maxEventBytes: MAX_EVENT_BYTES });
const CODES = { notJson: 'notJson', noId: 'missingAttribute', nobody: 'missingIdentity', anotherWorkspace: 'wrongWorkspace' } as const;

function expected(sent: Sent): Expected {
  if (sent.poison !== null) return { kind: 'rejected', sent, code: CODES[sent.poison] };
  const read = decoded(sent);
  if (read.kind === 'rejected') throw new Error(`a schedule's event is refused: ${read.rejection.reason}`);
  const identified = keysOf(sent.workspace).identify(read.event);
  if (identified.kind === 'rejected') throw new Error(`a schedule's event is nobody's: ${identified.rejection.reason}`);
  return { kind: 'event', sent, stream: identified.stream, eventId: identified.eventId, data: read.event.data };
}

export interface Ended {
  readonly failure: Failure | null;
  /** Of every step: equal traces are equal runs. */
  readonly trace: string;
  readonly steps: number;
  readonly kills: number;
  readonly faults: number;
  readonly stored: number;
  readonly promotions: number;
  readonly reads: number;
}

export interface Watched {
  /** Told of each step. */
  readonly onStep?: (text: string) => void;
  /** A store with a fault of its own, to see that it is found. */
  readonly planted?: (events: EventStore) => EventStore;
}

/** One run, from its schedule alone. */
export async function simulate(schedule: Schedule, watched: Watched = {}): Promise<Ended> {
  const line = new Line(schedule, watched);
  return line.run();
}

class Line {
  readonly #schedule: Schedule;
  readonly #world: World;
  readonly #events: EventStore;
  readonly #views: ViewStore;
  readonly #broker: MemoryBroker;
  readonly #source: Source;
  readonly #projections: readonly Projection[];
  readonly #oracle: Oracle;
  readonly #older = new Set<string>();
  /** The processes that take requests now, by name. */
  readonly #servers = new Map<string, { readonly process: Process; readonly door: Door }>();
  readonly #sent: readonly Expected[];
  #left: number;
  #reads = 0;
  #lives = 0;
  /** How many workers have come back with the next version. */
  #upgraded = 0;
  readonly #workers = new Map<number, Process>();
  readonly #next: readonly Projection[];
  #replayed = 0;
  #tries = 0;
  /** The latest position that a sender was told. */
  #acknowledged: Position | null = null;

  constructor(schedule: Schedule, { onStep, planted = (events) => events }: Watched) {
    const { setup, load, choices, faults } = schedule;
    this.#schedule = schedule;
    this.#world = new World({ startMs: START_MS, choices, faults, ...(onStep === undefined ? {} : { onStep }) });
    const { clock } = this.#world;
    this.#events = planted(new MemoryEventStore({ storeId: 'simulated', idsAreUnique: setup.unique }));
    this.#views = new MemoryViewStore({ clock });
    this.#broker = new MemoryBroker({ clock, sleep: this.#world.sleep(null) });
    this.#broker.createTopic(TOPIC, setup.partitions);
    this.#broker.createTopic(`${TOPIC}.dead-letter`, setup.partitions);
    this.#source = this.#broker.source({ topic: TOPIC, group: 'line' });
    this.#projections = setup.groups.map((group) => PROJECTIONS[group]);
    this.#next = this.#projections.map((projection) => ({ ...projection, version: `${projection.version}-next` }));
    this.#oracle = new Oracle(this.#world, this.#projections, keysOf);
    this.#sent = load.map(expected);
    this.#left = this.#sent.filter(({ sent }) => sent.by !== 'topic').length;
  }

  async run(): Promise<Ended> {
    const { setup } = this.#schedule;
    await this.#fill();
    this.#produce();
    const { restartMs } = setup;
    for (let n = 0; n < setup.ingests; n += 1) this.#world.spawn(`ingest ${String(n)}`, restartMs, (process) => this.#ingest(process));
    for (let n = 0; n < setup.apis; n += 1) this.#world.spawn(`api ${String(n)}`, restartMs, (process) => this.#api(process));
    for (let n = 0; n < Math.max(1, setup.clients); n += 1) this.#world.spawn(`client ${String(n)}`, restartMs, (process) => this.#client(process));
    if (setup.importer) this.#world.spawn('import', restartMs, (process) => this.#import(process));
    this.#world.after(setup.workersMs, () => {
      for (let n = 0; n < setup.workers; n += 1) this.#world.spawn(`worker ${String(n)}`, restartMs, (process) => this.#worker(process, n));
    });
    if (setup.upgrade !== null) this.#upgradeAfter(setup.workersMs + setup.upgrade.ms);
    if (setup.replays.length > 0) this.#world.spawn('replay', restartMs, (process) => this.#replay(process));
    for (let n = 0; n < setup.readers; n += 1) this.#world.spawn(`reader ${String(n)}`, restartMs, (process) => this.#reader(process));
    const settled = await this.#world.run(() => this.#isSettled());
    if (!settled) this.#world.fail('it comes to rest', `after ${String(this.#world.steps)} steps something still waits: ${String(this.#left)} of the senders' events are not acknowledged`);
    if (this.#world.failure === null) await this.#oracle.judge(this.#events, this.#older);
    const { failure, trace, steps, kills, met } = this.#world;
    return { failure, trace, steps, kills, faults: met, stored: (await this.#events.stats()).events ?? 0, promotions: this.#oracle.promotions, reads: this.#reads };
  }

  /** All that was sent is acknowledged or passed, every view has come to the end of the log, and every reader has seen it there. */
  async #isSettled(): Promise<boolean> {
    const { setup } = this.#schedule;
    if (this.#left > 0 || (setup.ingests > 0 && (await this.#source.gaps()).some(({ gap }) => gap > 0))) return false;
    if (this.#oracle.sent.length < this.#sent.length + this.#older.size) return false;
    if (this.#oracle.minds.some(({ process, door }) => process.alive && door.counts().inFlightEvents > 0)) return false;
    if (this.#replayed < setup.replays.length || (setup.upgrade !== null && this.#upgraded < setup.workers)) return false;
    const head = await this.#events.head();
    if (head === null) return true;
    for (const { group, version } of setup.upgrade === null ? this.#projections : this.#next) {
      const live = await this.#views.live(group);
      const generation = (await this.#views.generations(group)).find(({ id }) => id === live);
      if (generation?.version !== version) return false;
      for (let shard = 0; shard < generation.shards; shard += 1) if (this.#oracle.stands(group, generation.id, shard) !== head) return false;
      for (let n = 0; n < setup.readers; n += 1) if (!this.#oracle.hasRead(`reader ${String(n)}`, group, head)) return false;
    }
    return true;
  }

  // ---- what comes in ---------------------------------------------------------------------------------------------------

  /** The topic's records are written when their time has come; who reads it has no say in it. */
  #produce(): void {
    const topic = this.#broker.topic(TOPIC);
    for (const one of this.#sent) {
      if (one.sent.by !== 'topic') { this.#oracle.sent.push(one); continue; }
      this.#world.after(one.sent.ms, () => { void this.#write(topic, one); });
    }
  }

  async #write(topic: { write(records: readonly OutgoingRecord[]): Promise<void> }, one: Expected): Promise<void> {
    const key = one.kind === 'event' ? one.stream : one.sent.workspace;
    const partition = seeded(key.charCodeAt(key.length - 1) * 7919 + key.charCodeAt(key.length - 2)).below(this.#schedule.setup.partitions);
    (this.#oracle.onTopic[partition] ??= []).push(one);
    // In the order in which they are written.
    this.#oracle.sent.push(one);
    await topic.write([{ key: Buffer.from(key), value: Buffer.from(one.sent.text), headers: { 'content-type': 'application/cloudevents+json' }, partition }]);
  }

  /** Events that an earlier life of the line recorded from the topic, whose group has forgotten how far it was: all of it is delivered again. */
  async #fill(): Promise<void> {
    const { older, ingests } = this.#schedule.setup;
    if (older === 0 || ingests === 0) return;
    const topic = this.#broker.topic(TOPIC);
    for (const [n, one] of olderEvents(older).entries()) {
      if (one.kind === 'rejected') continue;
      await this.#write(topic, one);
      const partition = this.#oracle.onTopic.findIndex((records) => records.length > 0);
      const read = decoded(one.sent);
      const identified = keysOf(one.sent.workspace);
      if (read.kind === 'rejected') continue;
      const who = identified.identify(read.event);
      if (who.kind === 'rejected') continue;
      const event = toNewEvent(read.event, who, { recordedAt: instantOf(START_MS - 3_600_000), origin: { topic: TOPIC, partition, offset: String(n) } });
      await this.#events.append(one.stream, n === 0 ? 'no_stream' : n - 1, [event]);
      this.#oracle.appended(one.stream, [event]);
      this.#older.add(one.eventId);
    }
  }

  // ---- processes -------------------------------------------------------------------------------------------------------

  #door(process: Process): Door {
    const { setup } = this.#schedule;
    const chance = seeded(process.name.length);
    // No two machines' clocks agree: what two doors took in the same millisecond is told apart by them.
    const skewMs = 13 * this.#lives++;
    return new Door({
      store: eventsOf(this.#world, process, this.#events, this.#oracle, setup.page), clock: { now: () => this.#world.clock.now() + skewMs }, sleep: this.#world.sleep(process), tallies: this.#viewsOf(process),
      random: (size) => Uint8Array.from({ length: size }, () => chance.below(256)), limits: { faultsMax: setup.faultsMax, appendEventsMax: setup.eventsAtOnce },
    });
  }

  #viewsOf(process: Process): ViewStore {
    const { commitChanges } = this.#schedule.setup;
    return viewsOf(this.#world, process, this.#views, this.#oracle, commitChanges === null ? null : { changes: commitChanges, bytes: 1e6 });
  }

  async #ingest(process: Process): Promise<void> {
    const door = this.#door(process);
    const source = this.#broker.source({ topic: TOPIC, group: 'line', maxBatch: this.#schedule.setup.deliveriesAtOnce });
    const ingest = createIngest({
      source: sourceOf(this.#world, process, source, this.#oracle), deadLetters: lettersOf(this.#world, process, this.#broker.topic(`${TOPIC}.dead-letter`), this.#oracle), door, keysOf,
      workspaces: WORKSPACES, maxEventBytes: MAX_EVENT_BYTES, clock: this.#world.clock, sleep: this.#world.sleep(process),
    });
    this.#oracle.minds.push({ process, door, ingest });
    await ingest.run(new AbortController().signal);
    throw new Error('the ingest ended');
  }

  async #api(process: Process): Promise<void> {
    const door = this.#door(process);
    this.#oracle.minds.push({ process, door, ingest: null });
    this.#servers.set(process.name, { process, door });
  }

  /** Publishes what is its own, call after call; one that failed is made again, perhaps elsewhere. */
  async #client(process: Process): Promise<void> {
    const own = this.#sent.filter(({ sent }) => sent.by === process.name);
    let tries = Number(process.name.slice(-1));
    for (let from = 0; from < own.length;) {
      const call = await this.#due(process, own, from);
      const { workspace } = call[0]!.sent;
      const servers = [...this.#servers.values()];
      const { process: server, door } = servers[tries++ % servers.length]!;
      try {
        const receipts = await request(this.#world, process, server, () => door.receive(keysOf(workspace), call.map(({ sent }) => decoded(sent))));
        this.#answered(call, receipts);
        from += call.length;
      } catch {
        await this.#world.sleep(process)(40);
      }
    }
  }

  /** What is due of the next, three at most, of one workspace; waits for the first of them. */
  async #due(process: Process, own: readonly Expected[], from: number): Promise<readonly Expected[]> {
    const first = own[from]!;
    const ms = first.sent.ms - (this.#world.clock.now() - START_MS);
    if (ms > 0) await this.#world.sleep(process)(ms);
    const call: Expected[] = [];
    for (const one of own.slice(from, from + 3)) {
      if (one.sent.workspace !== first.sent.workspace || one.sent.ms > this.#world.clock.now() - START_MS) break;
      call.push(one);
    }
    return call;
  }

  #answered(call: readonly Expected[], receipts: readonly Parameters<Oracle['answered']>[1][]): void {
    if (receipts.length !== call.length) this.#world.fail('G4', `${String(call.length)} were sent, and ${String(receipts.length)} answered`);
    call.forEach((one, i) => {
      const receipt = receipts[i];
      if (receipt === undefined) return;
      this.#oracle.answered(one, receipt);
      if (receipt.kind !== 'rejected' && receipt.position !== null && (this.#acknowledged === null || receipt.position > this.#acknowledged)) this.#acknowledged = receipt.position;
    });
    this.#left -= call.length;
  }

  /** As a file is imported: handed to a door of its own without waiting for answers, until it tells of a fault; then everything that has no answer again. */
  async #import(process: Process): Promise<void> {
    const own = this.#sent.filter(({ sent }) => sent.by === 'import');
    const door = this.#door(process);
    this.#oracle.minds.push({ process, door, ingest: null });
    const sleep = this.#world.sleep(process);
    for (let from = 0; from < own.length;) {
      const calls: Promise<void>[] = [];
      let faulty = false;
      const isFaulty = (): boolean => faulty;
      let next = from;
      while (next < own.length && !isFaulty()) {
        const call = await this.#due(process, own, next);
        if (isFaulty()) break;
        const told = { fault: () => { faulty = true; } };
        next += call.length;
        calls.push(door.receive(keysOf(call[0]!.sent.workspace), call.map(({ sent }) => decoded(sent)), null, told).then((receipts) => {
          for (const [i, one] of call.entries()) if (!this.#imported.has(one)) this.#answered([one], receipts.slice(i, i + 1));
          for (const one of call) this.#imported.add(one);
        }, () => { faulty = true; }));
        if (calls.length % 3 === 0) await sleep(2);
      }
      await Promise.all(calls);
      while (from < own.length && this.#imported.has(own[from]!)) from += 1;
      if (from < own.length) await sleep(100);
    }
  }

  readonly #imported = new Set<Expected>();

  async #worker(process: Process, number: number): Promise<void> {
    const { setup } = this.#schedule;
    this.#workers.set(number, process);
    const projections = number < this.#upgraded ? this.#next : this.#projections;
    const views = this.#viewsOf(process);
    const events = eventsOf(this.#world, process, this.#events, this.#oracle, setup.page);
    const [clock, sleep] = [this.#world.clock, this.#world.sleep(process)];
    const stopped = new AbortController();
    let owned: readonly number[] | 'all' = setup.leases ? [] : 'all';
    let following = new AbortController();
    const onChange = (now: readonly number[]): void => {
      owned = now;
      following.abort();
    };
    if (setup.leases) void shareShards({ views, holder: `${process.name}/${String(this.#lives++)}`, shards: setup.shards, clock, sleep, signal: stopped.signal, onChange });
    for (;;) {
      following = new AbortController();
      await runProjector({
        events, views, projections, keysOf: keysNow, shards: setup.shards, owned, patience: 'endless', clock, wait: sleep, signal: following.signal,
        room: { batchMax: setup.batchMax, batchBytesMax: 1e6, cacheBytesMax: setup.cacheBytesMax, stepBytesMax: setup.stepBytesMax, foldMax: 3, lanes: setup.lanes },
        onProgress: () => undefined, onFault: (fault) => this.#world.note(`${process.name}: ${String(fault)}`),
      });
    }
  }

  /** There is something to be upgraded once a first generation answers: which of two versions is the newer, a first start of both at a time could not tell. */
  #upgradeAfter(ms: number): void {
    this.#world.after(ms, () => {
      void Promise.all(this.#projections.map(({ group }) => this.#views.live(group))).then((live) => {
        if (live.includes(null)) this.#upgradeAfter(UPGRADE_LOOK_MS);
        else this.#upgrade();
      });
    });
  }

  /** One worker after the other ends, and comes back with the next version. */
  #upgrade(): void {
    this.#upgraded += 1;
    this.#workers.get(this.#upgraded - 1)?.kill();
    const { workers, upgrade } = this.#schedule.setup;
    if (this.#upgraded < workers) this.#world.after(upgrade?.apartMs ?? 0, () => this.#upgrade());
  }

  /** As an operator replays, again until it is done: whoever killed it goes on from what is left. */
  async #replay(process: Process): Promise<void> {
    const { setup } = this.#schedule;
    const [clock, sleep] = [this.#world.clock, this.#world.sleep(process)];
    const views = this.#viewsOf(process);
    const events = eventsOf(this.#world, process, this.#events, this.#oracle, setup.page);
    const room = { batchMax: setup.batchMax, batchBytesMax: 1e6, cacheBytesMax: setup.cacheBytesMax, stepBytesMax: setup.stepBytesMax, foldMax: 3, lanes: setup.lanes };
    while (this.#replayed < setup.replays.length) {
      const { ms, to } = setup.replays[this.#replayed]!;
      await sleep(ms - (clock.now() - START_MS));
      const projection = (this.#upgraded > 0 ? this.#next : this.#projections)[0]!;
      try {
        const result = await replay({
          events, views, projection, keysOf: keysNow, to, anew: false, dryRun: false, accept: false, rate: null, room, holder: `${process.name}/${String(this.#lives++)}`, clock, wait: sleep,
          signal: new AbortController().signal, onProgress: () => undefined,
        });
        this.#world.note(`replay: ${result.kind}${result.kind === 'nothing' ? `: ${result.why}` : ''}`);
        if (result.kind === 'refused') this.#world.fail('G5', `a replay refused what is folded alike: ${JSON.stringify(result.compared.differences)}`);
        this.#tries += 1;
        if (result.kind === 'promoted' || this.#tries > 5) this.#replayed += 1;
      } catch (fault) {
        // An upgrade that is promoted meanwhile sweeps away what is built here.
        if (!(fault instanceof OperatingError) || !(fault.retriable || fault.code === 'viewMissing')) throw fault;
        this.#world.note(`replay: ${fault.message}`);
      }
    }
  }

  /** Asks as the api does, over and over, sometimes for what a sender was just told. */
  async #reader(process: Process): Promise<void> {
    const { setup } = this.#schedule;
    const [clock, sleep] = [this.#world.clock, this.#world.sleep(process)];
    const views = new Views({ views: this.#viewsOf(process), events: eventsOf(this.#world, process, this.#events, this.#oracle, setup.page), clock, wait: sleep });
    const chance = seeded(this.#schedule.load.length);
    for (;;) {
      await sleep(50 + chance.below(900));
      const workspace = chance.pick(WORKSPACES);
      const group = chance.pick(setup.groups);
      const minimum = chance.below(3) === 0 ? this.#acknowledged : null;
      try {
        await this.#read(process, views, { workspace, group, minimum });
      } catch (fault) {
        if (!(fault instanceof OperatingError)) throw fault;
        views.forget();
      }
    }
  }

  async #read(process: Process, views: Views, { workspace, group, minimum }: { readonly workspace: Workspace; readonly group: 'journeys' | 'persons'; readonly minimum: Position | null }): Promise<void> {
    const opened = await views.open([group], workspace, minimum === null ? undefined : views.stated(minimum));
    if (opened.kind === 'refused') {
      if (!['building', 'notYet'].includes(opened.code)) this.#world.fail('G9', `a reader who asked for ${String(minimum)} was told ${opened.code}`);
      return;
    }
    const view = opened.views[group]!;
    if (minimum !== null && (opened.position === null || opened.position < minimum)) this.#world.fail('G9', `a reader who asked for ${minimum} was given ${String(opened.position)}`);
    const { shards, target } = view.generation;
    this.#reads += 1;
    this.#oracle.read({ reader: process.name, group, shard: shardOf(workspace, shards), shards, target, position: opened.position, digest: await view.digest() });
  }
}

/** Of one customer, and nothing that a fold takes anything from. */
const OLDER: Expected[] = [];
function olderEvents(count: number): readonly Expected[] {
  for (let n = OLDER.length; n < count; n += 1) {
    const text = JSON.stringify({ specversion: '1.0', id: `older${String(n)}`, source: 's', workspace: 'acme', type: 'noise', time: new Date(START_MS - 120_000 + n).toISOString(), identity: 'c0@example.com', identitytype: 'email', data: { n } });
    OLDER.push(expected({ by: 'topic', ms: 0, workspace: 'acme', poison: null, text }));
  }
  return OLDER.slice(0, count);
}
