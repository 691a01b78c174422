// The ports as a process of the simulation has them: the adapters in memory behind the world's tasks and faults. What is
// done there is seen by a witness at the moment that it is done, whoever hears of it.
import { coordinatesOf, readDeadLetterTopic } from '../../services/dead-letter.ts';
import { OperatingError } from '../../services/errors.ts';
import type { Commit, CommitResult, CommitSize, DeliveryBatch, EventStore, Generation, Hold, NewEvent, OutgoingRecord, Source, SubscriptionBatch, Topic, View, ViewStore } from '../../services/ports.ts';
import type { Fault, Op, Process, World } from './world.ts';

export interface Witness {
  appended(stream: string, events: readonly NewEvent[]): void;
  committed(view: View, commit: Commit): void;
  promoted(generation: Generation): void;
  buried(coordinates: string): void;
  passed(partition: number, offset: number): void;
}

type Gate = (name: string, perform: () => Promise<unknown>) => Promise<unknown>;

/** Every method of the port goes through the gate, but for those given; what is no method is passed on. */
function gated<T extends object>(inner: T, gate: Gate, own: Partial<T>): T {
  const asked = new Map<PropertyKey, unknown>();
  return new Proxy(inner, { get: (target, name) => {
    if (Object.hasOwn(own, name)) return Reflect.get(own, name) as unknown;
    const known = asked.get(name);
    if (known !== undefined) return known;
    const value: unknown = Reflect.get(target, name, target);
    if (typeof value !== 'function') return value;
    const method = (...args: readonly unknown[]): Promise<unknown> => gate(String(name), () => Reflect.apply(value, target, args) as Promise<unknown>);
    asked.set(name, method);
    return method;
  } });
}

// ---- the event store -----------------------------------------------------------------------------------------------------

const EVENT_OPS: Readonly<Record<string, Op>> = { readStream: 'readStream', head: 'head' };

export function eventsOf(world: World, process: Process, inner: EventStore, witness: Witness, page: number): EventStore {
  const append: EventStore['append'] = (stream, expected, events) => world.call(process, 'append', true, async () => {
    const result = await inner.append(stream, expected, events);
    world.note(`${process.name}: ${String(events.length)} after ${String(expected)} to ${stream.slice(0, 22)}: ${result.kind}`);
    if (result.kind === 'appended') witness.appended(stream, events);
    return result;
  });
  const subscribe: EventStore['subscribe'] = (options) => new Pages(world, process, inner, { ...options, maxBatch: Math.min(page, options.maxBatch) });
  return gated(inner, (name, perform) => world.call(process, EVENT_OPS[name] ?? 'gap', false, perform), { append, subscribe });
}

/** A subscription: what the store had when it was asked comes when its task is released. */
class Pages implements AsyncIterable<SubscriptionBatch>, AsyncIterator<SubscriptionBatch> {
  readonly #world: World;
  readonly #process: Process;
  readonly #ended = new AbortController();
  readonly #inner: AsyncIterator<SubscriptionBatch>;

  constructor(world: World, process: Process, inner: EventStore, options: Parameters<EventStore['subscribe']>[0]) {
    this.#world = world;
    this.#process = process;
    options.signal.addEventListener('abort', () => this.#ended.abort(), { once: true });
    if (options.signal.aborted) this.#ended.abort();
    process.whenKilled(() => this.#ended.abort());
    this.#inner = inner.subscribe({ ...options, signal: this.#ended.signal })[Symbol.asyncIterator]();
  }

  [Symbol.asyncIterator](): AsyncIterator<SubscriptionBatch> { return this; }

  async next(): Promise<IteratorResult<SubscriptionBatch>> {
    const read = await this.#inner.next();
    if (read.done === true) return this.#process.alive ? read : new Promise(() => undefined);
    const { promise, resolve, reject } = Promise.withResolvers<IteratorResult<SubscriptionBatch>>();
    const fault = this.#world.faultOf('page');
    const come = (): void => this.#world.task(this.#process, 'page', () => this.#come(fault, read, resolve, reject));
    if (fault?.what === 'late') this.#world.after(fault.ms, come);
    else come();
    return promise;
  }

  async return(): Promise<IteratorResult<SubscriptionBatch>> {
    this.#ended.abort();
    return { done: true, value: undefined };
  }

  #come(fault: Fault | null, read: IteratorResult<SubscriptionBatch>, resolve: (read: IteratorResult<SubscriptionBatch>) => void, reject: (fault: Error) => void): void {
    if (fault !== null) this.#world.note(`${this.#process.name}: page ${fault.what}`);
    switch (fault?.what) {
      case 'crash': this.#process.kill(); return;
      case 'lost': this.#ended.abort(); reject(new OperatingError('storeUnavailable', 'the subscription broke')); return;
      case 'ends': this.#ended.abort(); resolve({ done: true, value: undefined }); return;
      default: resolve(read);
    }
  }
}

// ---- views -----------------------------------------------------------------------------------------------------------------

const VIEW_OPS: Readonly<Record<string, Op>> = { position: 'position', digest: 'digest' };
/** Answered by a task of their own, since others may act between what they did and who hears of it. */
const CHANGING: ReadonlySet<string> = new Set(['createGeneration', 'seen', 'promote', 'dropGeneration', 'lease', 'release', 'hold', 'addTallies']);

export function viewsOf(world: World, process: Process, inner: ViewStore, witness: Witness, commitMax: CommitSize | null): ViewStore {
  const gate: Gate = (name, perform) => world.call(process, name.endsWith('allies') ? 'tally' : 'views', CHANGING.has(name), perform);
  const view: ViewStore['view'] = (group, generation, shard) => world.call(process, 'views', false, async () => viewOf(world, process, await inner.view(group, generation, shard), witness, commitMax));
  const promote: ViewStore['promote'] = (group, from, to, ...hold) => world.call(process, 'promotion', true, async () => {
    const done = await inner.promote(group, from, to, ...hold);
    world.note(`${process.name}: promotes ${group} from ${String(from)} to ${String(to)}: ${String(done)}`);
    const live = (await inner.generations(group)).find(({ id }) => id === to);
    if (done && live !== undefined) witness.promoted(live);
    return done;
  });
  const hold: ViewStore['hold'] = (group) => world.call(process, 'promotion', true, async () => {
    const held: Hold | null = await inner.hold(group);
    if (held === null) return null;
    // The store looks whether it is the very one that it gave: only its end goes through the gate.
    const release = held.release.bind(held);
    return Object.assign(held, { release: () => world.call(process, 'views', true, release) });
  });
  return gated(inner, gate, { view, promote, hold, close: async () => undefined });
}

function viewOf(world: World, process: Process, inner: View, witness: Witness, commitMax: CommitSize | null): View {
  const held: CommitResult = { kind: 'held' };
  const commit: View['commit'] = (given) => world.call(process, 'commit', true, async () => {
    const result = await inner.commit(given);
    world.note(`${process.name}: ${given.role} ${inner.generation.group} ${String(inner.generation.id)}/${String(inner.shard)} ${String(Number(given.expected))} → ${String(Number(given.position))}: ${result.kind}`);
    if (result.kind === 'committed') witness.committed(inner, given);
    return result;
  }, held);
  return gated(inner, (name, perform) => world.call(process, VIEW_OPS[name] ?? 'load', false, perform), { commit, commitMax });
}

// ---- topics ------------------------------------------------------------------------------------------------------------------

/** After which a broker gives away the partitions of one that died. */
const SESSION_MS = 400;

export function lettersOf(world: World, process: Process, inner: Topic, witness: Witness): Pick<Topic, 'write'> {
  return { write: (records) => world.call(process, 'letter', true, async () => {
    await inner.write(records);
    for (const record of records) witness.buried(coordinatesOfLetter(record));
  }) };
}

function coordinatesOfLetter(record: OutgoingRecord): string {
  const read = readDeadLetterTopic({ ...record, topic: '', partition: 0, offset: '0', timestampMs: 0 });
  return read.kind === 'deadLetter' ? coordinatesOf(read.deadLetter.origin) : 'none of ours';
}

export function sourceOf(world: World, process: Process, inner: Source, witness: Witness): Pick<Source, 'follow' | 'assigned' | 'trouble'> {
  const follow: Source['follow'] = ({ signal, handle }) => {
    const gone = new AbortController();
    const dead = Promise.withResolvers<{ readonly kind: 'done' }>();
    process.whenKilled(() => world.after(SESSION_MS, () => {
      gone.abort();
      dead.resolve({ kind: 'done' });
    }));
    const work = (batch: DeliveryBatch): ReturnType<typeof handle> => world.call(process, 'deliver', false, async () => null).then(() => handle({ ...batch, passed: (index) => pass(batch, index) }));
    const pass = (batch: DeliveryBatch, index: number): void => {
      if (!process.alive) return;
      const fault = world.faultOf('offset');
      const last = batch.deliveries[index];
      if (last !== undefined) witness.passed(batch.partition, Number(last.offset));
      if (fault?.what === 'crash' || fault?.what === 'lost') world.note(`${process.name}: offset ${String(last?.offset)} ${fault.what}`);
      // Committed soon after: a crash, or a consumer that is thrown out, may come before.
      if (fault?.what !== 'lost' && fault?.what !== 'crash') batch.passed(index);
      if (fault?.what.startsWith('crash') === true) world.task(null, 'offset', () => process.kill());
    };
    return inner.follow({ signal: AbortSignal.any([signal, gone.signal]), handle: (batch) => Promise.race([work(batch), dead.promise]) });
  };
  return { follow, assigned: () => inner.assigned(), trouble: () => inner.trouble() };
}

/** A client's call of a server, which may die meanwhile. Rejects when the client cannot know what became of it. */
export function request<T>(world: World, client: Process, server: Process, work: () => Promise<T>): Promise<T> {
  const [there, back] = [world.faultOf('request'), world.faultOf('response')];
  const { promise, resolve, reject } = Promise.withResolvers<T>();
  const broken = (): void => reject(new Error('the connection broke'));
  const answer = (settle: () => void): void => {
    if (!server.alive) return;
    if (back?.what === 'crashAfter') server.kill();
    else if (back?.what === 'lateReply') world.after(back.ms, settle);
    else world.task(client, 'response', back?.what === 'unanswered' ? broken : settle);
  };
  const ask = (): void => {
    if (there?.what === 'crash') server.kill();
    if (there?.what === 'lost' || !server.alive) { broken(); return; }
    server.whenKilled(() => world.task(client, 'response', broken));
    work().then((value) => answer(() => resolve(value)), (fault: unknown) => answer(() => reject(fault)));
  };
  if (there?.what === 'late') world.after(there.ms, ask);
  else world.task(client, 'request', ask);
  return promise;
}
