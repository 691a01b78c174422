// Facts as vocabularies give them, a view of documents that counts its work, and arbitraries for property tests.
import { hash } from 'node:crypto';
import fc from 'fast-check';
import type { Agent, CustomerFactBody, Direction, Instant, InteractionFact, InteractionFactBody, InteractionId, Interpreted, Place, Role } from '../../schemas/facts.ts';
import { instantOf } from '../../schemas/time.ts';
import { Packer } from '../../projections/packing.ts';
import type { Changes, FoldContext, Json, Projection, RecordState, SubRecord } from '../../projections/projection.ts';

export const START_MS = Date.UTC(2026, 2, 2, 9, 0, 0);

/** So many seconds after the tests' own start. */
export function second(seconds: number): Instant {
  return instantOf(START_MS + Math.round(seconds * 1000));
}

const digests = new Map<string, string>();

/** Remembered, as a workspace's keys do: tests ask for the same few over and over. */
function digest(text: string, encoding: 'hex' | 'base64url', length: number): string {
  let made = digests.get(text);
  if (made === undefined) digests.set(text, made = hash('sha256', text, encoding).slice(0, length));
  return made;
}

/** As a workspace's keys are, with a secret that nobody minds. */
export const CONTEXT: FoldContext = {
  hash: (...parts) => digest(JSON.stringify(parts), 'hex', 32),
  term: (field, value) => digest(JSON.stringify(['term', field, value]), 'base64url', 16),
  identityKey: (type, value) => (value === '' ? null : digest(JSON.stringify([type, value]), 'hex', 32)),
};

export type SaidOfInteraction = InteractionFactBody & { readonly interaction: InteractionId; readonly tie?: number };

/** An event of a customer at a time (seconds after the start), with the facts that a vocabulary found in it. */
export function event(eventId: string, seconds: number, facts: readonly SaidOfInteraction[], more: { readonly identity?: string; readonly evidence?: boolean; readonly customer?: readonly CustomerFactBody[] } = {}): Interpreted {
  const at = second(seconds);
  const value = more.identity ?? 'ana@example.com';
  return {
    eventId, at, recordedAt: at, type: 'test', source: 'test',
    identity: { key: CONTEXT.identityKey('email', value) ?? '', type: 'email', value, evidence: more.evidence ?? true, anonymous: false },
    interactionFacts: facts.map((fact, index): InteractionFact => ({ ...fact, at, tie: fact.tie ?? 0, eventId, index })),
    customerFacts: (more.customer ?? []).map((fact, i) => ({ ...fact, at, tie: 0, eventId, index: facts.length + i })),
  };
}

/** One interaction told in seconds and facts; each line is an event of its own, called `<interaction>@<line>`. */
export function story(interaction: InteractionId, lines: readonly (readonly [seconds: number, ...bodies: InteractionFactBody[]])[]): Interpreted[] {
  return lines.map(([seconds, ...bodies], line) => event(`${interaction}@${String(line).padStart(4, '0')}`, seconds, bodies.map((body) => ({ ...body, interaction }))));
}

/** A view in memory. Documents are kept as they are stored, so that a fold sees what a store would give it. */
export class MemoryDocuments {
  readonly texts = new Map<string, string>();
  readonly records = new Map<string, { state: RecordState; subs: Map<number, readonly SubRecord[]> }>();
  /** Work of the last fold. */
  work = { rounds: 0, loaded: 0, bytesLoaded: 0, written: 0, bytesWritten: 0, records: 0 };
  readonly #projection: Projection;
  readonly #context: FoldContext;
  readonly #packer = new Packer();

  constructor(projection: Projection, context: FoldContext = CONTEXT) {
    this.#projection = projection;
    this.#context = context;
  }

  fold(events: readonly Interpreted[]): void {
    const work = { rounds: 0, loaded: 0, bytesLoaded: 0, written: 0, bytesWritten: 0, records: 0 };
    const asked = new Set<string>();
    const fold = this.#projection.fold(events, this.#context);
    let step = fold.next();
    for (; step.done !== true; work.rounds += 1) {
      const found = new Map<string, Json>();
      for (const key of step.value) {
        if (asked.has(key)) throw new Error(`asked twice for ${key}`);
        asked.add(key);
        const text = this.texts.get(key);
        work.loaded += 1;
        work.bytesLoaded += text?.length ?? 0;
        found.set(key, text === undefined ? null : this.#projection.unpack(key, text));
      }
      step = fold.next(found);
    }
    this.#apply(step.value, work);
    this.work = work;
  }

  /** Changes that somebody else's fold made. */
  apply(changes: Changes): void { this.#apply(changes, { ...this.work }); }

  #apply(changes: Changes, work: MemoryDocuments['work']): void {
    for (const [key, value] of changes.documents) {
      work.written += 1;
      if (value === null) { this.texts.delete(key); continue; }
      const text = this.#projection.pack(key, value, this.#packer);
      work.bytesWritten += text.length;
      this.texts.set(key, text);
    }
    for (const { key, state, subs } of changes.records) {
      work.records += 1;
      if (state === null) { this.records.delete(key); continue; }
      const record = this.records.get(key) ?? { state: state ?? missing(key), subs: new Map<number, readonly SubRecord[]>() };
      if (state !== undefined) record.state = state;
      for (const [chunk, some] of subs ?? []) {
        if (some === null || some.length === 0) record.subs.delete(chunk);
        else record.subs.set(chunk, some);
      }
      this.records.set(key, record);
    }
  }

  /** Null where there is none. */
  read(key: string): unknown {
    const text = this.texts.get(key);
    return text === undefined ? null : this.#projection.unpack(key, text);
  }

  keys(space: string): string[] {
    return [...this.texts.keys()].filter((key) => key.startsWith(`${space}/`)).sort();
  }

  /** All that is stored, in one order: equal texts are equal views. */
  snapshot(): { documents: Record<string, string>; records: Record<string, unknown> } {
    const records = [...this.records].map(([key, { state, subs }]) => [key, { time: state.time, id: state.id, terms: canonicalTerms(state.terms), subs: [...subs].sort(([a], [b]) => a - b).map(([chunk, some]) => [chunk, some.map(canonicalTerms)]) }] as const);
    return { documents: Object.fromEntries([...this.texts].sort(byKey)), records: Object.fromEntries(records.sort(byKey)) };
  }
}

function missing(key: string): never {
  throw new Error(`sub-records of ${key}, which has no record`);
}

/** Order of fields and terms means nothing. */
function canonicalTerms(terms: Readonly<Record<string, readonly string[]>>): Record<string, string[]> {
  return Object.fromEntries(Object.entries(terms).filter(([, some]) => some.length > 0).map(([field, some]): [string, string[]] => [field, [...some].sort()]).sort(byKey));
}

function byKey([a]: readonly [string, unknown], [b]: readonly [string, unknown]): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

// ---- arbitraries ---------------------------------------------------------------------------------------------------------

const optional = (key: string, value: fc.Arbitrary<unknown>): fc.Arbitrary<object> => fc.option(value, { nil: undefined }).map((made) => (made === undefined ? {} : { [key]: made }));
const spread = (a: fc.Arbitrary<object>, b: fc.Arbitrary<object>): fc.Arbitrary<object> => fc.tuple(a, b).map(([x, y]) => ({ ...x, ...y }));

export const arbitraryAgent: fc.Arbitrary<Agent> = fc.record({ id: fc.constantFrom('a1', 'a2', 'a3'), name: fc.constantFrom('Ann', 'Ben', null), type: fc.constantFrom('HUMAN', 'AI') }, { requiredKeys: ['id'] });
export const arbitraryPlace: fc.Arbitrary<Place> = fc.record({ id: fc.constantFrom('q1', 'q2', null), name: fc.constantFrom('Sales', 'Service', null), extension: fc.constantFrom('2001', null) }, { requiredKeys: ['id'] });
const agents = optional('agents', fc.array(arbitraryAgent, { maxLength: 2 }));
const queue = optional('queue', fc.option(arbitraryPlace));
const ringGroup = optional('ringGroup', arbitraryPlace);
const script = fc.constantFrom({ id: 's1', name: 'Main' }, { id: 's2', name: null });
const destination = spread(spread(agents, spread(queue, ringGroup)), spread(optional('autoAttendant', arbitraryPlace), spread(optional('script', script), optional('externalNumber', fc.constant('+15550100')))));
const participant = fc.constantFrom('customer', 'p1', 'p2');

function kind(name: InteractionFactBody['kind'], rest: fc.Arbitrary<object>): fc.Arbitrary<InteractionFactBody> {
  return rest.map((made) => ({ kind: name, ...made }) as InteractionFactBody);
}

/** Every kind of fact but links and explicit ids. */
export const arbitraryBody: fc.Arbitrary<InteractionFactBody> = fc.oneof(
  kind('started', fc.record({
    direction: fc.constantFrom<Direction>('Inbound', 'Outbound', 'Internal'), medium: fc.constantFrom('Phone', 'Chat'), contact: fc.record({ name: fc.constantFrom('Ana', null), phoneNumber: fc.constantFrom('+1555', null) }),
    entryPoint: fc.record({ type: fc.constantFrom('cc-channel', 'user'), id: fc.constantFrom('e1', 'e2', null), tenantId: fc.constant('t1') }), origin: fc.record({ type: fc.constant('user'), id: fc.constantFrom('a1', null), pbx: fc.constant('main') }),
    platform: fc.constant('Contact Center'), tenant: fc.constantFrom('t1', 't2'), leg: fc.constant(true), inScript: fc.constant(true),
  }, { requiredKeys: [] })),
  kind('joined', spread(fc.record({ role: fc.constantFrom<Role>('customer', 'agent', 'supervisor'), participantId: participant }), optional('agent', arbitraryAgent))),
  kind('dialling', spread(agents, queue)),
  kind('script', spread(optional('scripts', fc.array(script, { maxLength: 2 })), spread(optional('autoAttendant', arbitraryPlace), optional('scheduleHours', fc.array(fc.constantFrom('Open', 'Closed'), { maxLength: 2 }))))),
  kind('waiting', spread(agents, spread(queue, ringGroup))),
  kind('waiting', spread(agents, queue)),
  kind('waiting', spread(spread(agents, queue), fc.record({ arrival: fc.constantFrom('queued', 'offered') }))),
  kind('unqueued', fc.constantFrom({}, { timeout: true as const })),
  kind('forwarded', fc.record({ to: destination })),
  kind('transferred', spread(fc.record({ to: destination }), optional('from', agents))),
  kind('talking', spread(agents, queue)),
  kind('talking', agents),
  kind('talking', spread(agents, fc.record({ taken: fc.constantFrom('ringing', 'connected') }))),
  kind('present', spread(fc.record({ agents: fc.array(arbitraryAgent, { maxLength: 2 }) }), optional('talking', fc.constant(true)))),
  kind('transferred', spread(fc.constant({ to: {}, open: true }), optional('from', agents))),
  kind('held', spread(agents, optional('participantId', participant))),
  kind('resumed', spread(agents, optional('participantId', participant))),
  kind('voicemail', spread(agents, queue)),
  kind('followUp', spread(fc.record({ reason: fc.constantFrom('voicemail', 'callback') }), queue)),
  kind('processing', spread(agents, queue)),
  kind('dropped', spread(fc.record({ participantId: fc.oneof(participant, fc.constantFrom('a1', 'a2')) }), optional('last', fc.constant(true)))),
  kind('wrappedUp', spread(agents, optional('wrapUpCodes', fc.array(fc.constantFrom('Sale', 'Other'), { maxLength: 2 })))),
  kind('phoneCodes', fc.record({ codes: fc.array(fc.record({ listName: fc.constant('L'), name: fc.constantFrom('x', null), shortCode: fc.constant('1') }), { maxLength: 2 }) })),
  kind('aiAgent', fc.record({ creditConsumption: fc.integer({ min: 0, max: 9 }), tools: fc.array(fc.record({ name: fc.constantFrom('look-up', 'book'), success: fc.boolean() }), { maxLength: 2 }) })),
  kind('described', fc.record({ topics: fc.array(fc.constantFrom('order', 'return'), { maxLength: 2 }), data: fc.dictionary(fc.constantFrom('b', 'a', '7', '__proto__'), fc.constantFrom('x', 'y'), { noNullPrototype: true }) }, { requiredKeys: [] })),
  kind('ended', spread(fc.record({ final: fc.boolean() }), spread(optional('by', fc.constantFrom('customer', 'agent', 'system')), optional('outcome', fc.constantFrom('callbackExpired', 'forwardedExternal'))))),
  kind('ended', spread(fc.constant({ final: false, leg: true }), optional('by', fc.constantFrom('customer', 'agent', 'system')))),
);

const INTERACTIONS: readonly InteractionId[] = ['x:1', 'x:2', 'x:3', 'x:4', 'y:1'];

/** Events of a few interactions that are linked, named by explicit ids (one of them the derived id of an interaction), and told at coarse times, so that many fall on one instant. */
export function arbitraryEvents(maxEvents: number): fc.Arbitrary<Interpreted[]> {
  const interaction = fc.constantFrom(...INTERACTIONS);
  const link: fc.Arbitrary<InteractionFactBody> = fc.oneof(
    fc.record({ kind: fc.constant('linked' as const), to: interaction }),
    fc.record({ kind: fc.constant('journey' as const), journeyId: fc.constantFrom('J1', 'J2', 'x:2', CONTEXT.hash('node', 'x:3')) }),
  );
  const body = fc.oneof({ weight: 9, arbitrary: arbitraryBody }, { weight: 1, arbitrary: link });
  const fact = fc.record({ interaction, body, tie: fc.constantFrom(0, 0, 0, -2, 5) });
  const one = fc.record({ seconds: fc.integer({ min: 0, max: 12 }), facts: fc.array(fact, { minLength: 1, maxLength: 3 }), identity: fc.constantFrom('ana@example.com', 'bob@example.com'), evidence: fc.boolean() });
  return fc.array(one, { minLength: 1, maxLength: maxEvents }).map((made) => made.map(({ seconds, facts, identity, evidence }, i) =>
    event(`e${String(i).padStart(3, '0')}`, seconds, facts.map(({ interaction: of, body: what, tie }) => ({ ...what, interaction: of, tie })), { identity, evidence })));
}

/** The same events as they may arrive: in any order, some twice, in batches of any size. */
export function arbitraryArrival(events: fc.Arbitrary<Interpreted[]>): fc.Arbitrary<{ events: Interpreted[]; batches: Interpreted[][] }> {
  return events.chain((all) => fc.record({
    order: fc.shuffledSubarray([...all.keys()], { minLength: all.length }), again: fc.array(fc.nat({ max: all.length - 1 }), { maxLength: 4 }),
    sizes: fc.array(fc.integer({ min: 1, max: 5 }), { minLength: all.length + 4, maxLength: all.length + 4 }),
  }).map(({ order, again, sizes }) => {
    const arriving = [...order, ...again].flatMap((i) => all[i] ?? []);
    const batches: Interpreted[][] = [];
    for (let from = 0, i = 0; from < arriving.length; i += 1) {
      const size = sizes[i] ?? 1;
      batches.push(arriving.slice(from, from + size));
      from += size;
    }
    return { events: all, batches };
  }));
}
