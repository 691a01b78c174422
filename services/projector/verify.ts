// Whether what the views say is what the log says. One journey or one person is folded anew from the streams of its
// identities alone, in a moment; all of them from the whole log, read once, into a scratch view that is compared with the
// live one document by document.
//
// Streams do not say everything: what an id links that links more than a hundred, a value that is shared, an event that
// is known by its subject alone, is told by streams that the document does not name. Such a one is `unknown` here, and is
// looked at with all.
import type { JourneyDocument, NodeDocument } from '../../projections/documents.ts';
import type { PersonDocument, IdentityDocument } from '../../projections/persons.ts';
import { type Interpreted, type Json, type Projection, runFold } from '../../projections/projection.ts';
import type { FactPage } from '../../projections/fact-pages.ts';
import { identityStream, nodeKey, type WorkspaceKeys } from '../../schemas/identity.ts';
import { readRecorded } from '../../schemas/recorded.ts';
import { interpret } from '../../schemas/vocabularies/index.ts';
import { positionsOf, PROJECTIONS } from '../generations.ts';
import type { EventStore, Generation, Position, View, ViewStore } from '../ports.ts';
import { highestOf, shareOf } from '../positions.ts';
import { Builder, type BuilderOptions } from './builder.ts';
import { compare, type Compared, type Difference } from './compare.ts';

/** What was looked at: documents that differ, none when it is right. */
export type Verified =
  | { readonly kind: 'checked'; readonly differences: readonly Difference[] }
  /** Its streams alone do not tell. */
  | { readonly kind: 'unknown'; readonly why: string }
  /** There is no such document (any more). */
  | { readonly kind: 'gone' };

export interface VerifyContext {
  readonly events: Pick<EventStore, 'readStream'>;
  readonly view: View;
  readonly keys: WorkspaceKeys;
}

/** Events of one stream that are read for one journey or person; above, it is told by `verify --all`. Some 100 ms at 50,000 a second. */
const STREAM_EVENTS_MAX = 5000;
const PAGE = 1000;
/** Looks at a view that is committed to all the time. */
const TRIES = 20;

/** Of a journey, by the key of its document `j/<key>`. */
export function verifyJourney(context: VerifyContext, key: string): Promise<Verified> {
  return settled(context.view, (position) => checkJourney(new Look(context, PROJECTIONS.journeys, position), key));
}

/** Of a person, by its id. */
export function verifyPerson(context: VerifyContext, id: string): Promise<Verified> {
  return settled(context.view, (position) => checkPerson(new Look(context, PROJECTIONS.persons, position), id));
}

/** What was read is of one commit when the view stands where it stood. */
async function settled(view: View, check: (position: Position) => Promise<Verified>): Promise<Verified> {
  for (let tries = 0; tries < TRIES; tries += 1) {
    const position = await view.position();
    if (position === null) return { kind: 'gone' };
    const verified = await check(position);
    if (await view.position() === position) return verified;
  }
  return { kind: 'unknown', why: 'the view was committed to all the time' };
}

/** The documents and events that one check reads. */
class Look {
  readonly keys: WorkspaceKeys;
  readonly #context: VerifyContext;
  readonly #projection: Projection;
  readonly #position: Position;
  readonly #streams = new Map<string, readonly Interpreted[] | null>();

  constructor(context: VerifyContext, projection: Projection, position: Position) {
    this.keys = context.keys;
    this.#context = context;
    this.#projection = projection;
    this.#position = position;
  }

  async texts(names: readonly string[]): Promise<readonly (string | null)[]> { return this.#context.view.load(names.map((name) => `${this.keys.id}/${name}`)); }

  async documents<T>(names: readonly string[]): Promise<readonly (T | null)[]> {
    const texts = await this.texts(names);
    return texts.map((text, i) => (text === null ? null : this.#projection.unpack(names[i] ?? '', text) as unknown as T));
  }

  /** Up to where the view stands; null when there are too many. */
  async stream(stream: string): Promise<readonly Interpreted[] | null> {
    const known = this.#streams.get(stream);
    if (known !== undefined) return known;
    const found = await this.#read(stream);
    this.#streams.set(stream, found);
    return found;
  }

  async #read(stream: string): Promise<readonly Interpreted[] | null> {
    const found: Interpreted[] = [];
    for (let from = 0; ; from += PAGE) {
      const page = await this.#context.events.readStream(stream, { direction: 'forward', from, limit: PAGE });
      for (const event of page) if (event.position <= this.#position) found.push(interpret(readRecorded(event)).interpreted);
      if (page.length < PAGE) return found;
      if (found.length >= STREAM_EVENTS_MAX) return null;
    }
  }

  /** What these events give, folded at once, beside what is stored under the same names. `isTheirs` tells those that others have a part in. */
  async differences(events: readonly Interpreted[], wanted: readonly string[], isTheirs: (name: string) => boolean): Promise<readonly Difference[]> {
    const { documents } = runFold(this.#projection.fold(events, this.keys), () => null);
    const names = [...new Set([...wanted, ...[...documents.keys()].filter(isTheirs)])];
    const stored = await this.texts(names);
    return names.map((name, i): Difference => {
      const value: Json = documents.get(name) ?? null;
      return { key: `${this.keys.id}/${name}`, live: stored[i] ?? null, built: value === null ? null : this.#projection.pack(name, value) };
    }).filter(({ live, built }) => live !== built);
  }
}

function once(events: Iterable<Interpreted>): readonly Interpreted[] { return [...new Map([...events].map((event) => [event.eventId, event])).values()]; }
const unknown = (why: string): Verified => ({ kind: 'unknown', why });

// ---- a journey -----------------------------------------------------------------------------------------------------------

async function checkJourney(look: Look, key: string): Promise<Verified> {
  const [document] = await look.documents<JourneyDocument>([`j/${key}`]);
  if (document == null) return { kind: 'gone' };
  const nodes = new Set(document.state.ids.flatMap((id) => [id, nodeKey(look.keys, id)]));
  const said = await factsOf(look, nodes);
  if (typeof said === 'string') return unknown(said);
  const read = await eventsOf(look, said);
  if (typeof read === 'string') return unknown(read);
  const events = connected(look.keys, read, nodes);
  const missing = [...said.known].some(([eventId, identity]) => identity === null && !read.some((event) => event.eventId === eventId));
  if (missing) return unknown('it has events that are known by their subject alone');
  // A fold of some of its events may link what all of them do not.
  const differences = await look.differences(events, [`j/${key}`], (name) => !name.startsWith('o/'));
  return { kind: 'checked', differences };
}

interface Said { readonly identities: Set<string>; /** Event → the identity whose stream has it; null where that is nobody's. */ readonly known: Map<string, string | null> }

/** Whose events speak of these nodes, as far as the view knows; why they cannot be told. */
async function factsOf(look: Look, nodes: ReadonlySet<string>): Promise<Said | string> {
  const names = [...nodes];
  const found = (await look.documents<NodeDocument>(names.map((node) => `n/${node}`))).flatMap((node, i) => (node === null ? [] : [{ node, name: names[i] ?? '' }]));
  const beside = await look.documents<NodeDocument>([...new Set(found.flatMap(({ node }) => node.neighbours))].filter((node) => !nodes.has(node)).map((node) => `n/${node}`));
  if ([...found.map(({ node }) => node), ...beside].some((node) => node?.over === true)) return 'an id of it links more than 100 interactions';
  if (found.some(({ node }) => node.truncated)) return 'it has more facts than are kept';
  const said: Said = { identities: new Set(), known: new Map() };
  for (const { node, name } of found) {
    if (node.interaction === null) continue;
    const pages = await look.documents<FactPage>(Array.from({ length: node.chunks }, (_, chunk) => `f/${name}/${String(chunk)}`));
    for (const page of [...pages, node.facts]) {
      for (const { fact, identity } of page?.facts(node.interaction) ?? []) {
        said.known.set(fact.eventId, identity);
        if (identity !== null) said.identities.add(identity);
      }
    }
  }
  return said;
}

async function eventsOf(look: Look, { identities, known }: Said): Promise<readonly Interpreted[] | string> {
  const nobodys = [...known].filter(([, identity]) => identity === null).map(([eventId]) => look.keys.anonymousStream(eventId));
  const events: Interpreted[] = [];
  for (const stream of new Set([...[...identities].map((identity) => identityStream(look.keys.id, identity)), ...nobodys])) {
    const found = await look.stream(stream);
    if (found === null) return `a stream of it has more than ${String(STREAM_EVENTS_MAX)} events`;
    events.push(...found);
  }
  return once(events);
}

/** Those that speak of one of the nodes, or of what those that do speak of. */
function connected(keys: WorkspaceKeys, events: readonly Interpreted[], nodes: ReadonlySet<string>): readonly Interpreted[] {
  const spoken = events.map((event) => [...new Set(event.interactionFacts.flatMap((fact) => [fact.interaction, ...(fact.kind === 'linked' ? [fact.to] : fact.kind === 'journey' ? [fact.journeyId] : [])]))].map((id) => nodeKey(keys, id)));
  const reached = new Set(nodes);
  const taken = new Set<Interpreted>();
  for (let before = -1; before !== taken.size;) {
    before = taken.size;
    events.forEach((event, i) => {
      const its = spoken[i] ?? [];
      if (taken.has(event) || !its.some((node) => reached.has(node))) return;
      taken.add(event);
      for (const node of its) reached.add(node);
    });
  }
  return [...taken];
}

// ---- a person --------------------------------------------------------------------------------------------------------------

async function checkPerson(look: Look, id: string): Promise<Verified> {
  const [person] = await look.documents<PersonDocument>([`p/${id}`]);
  if (person == null) return { kind: 'gone' };
  if (person.refused.length > 0) return unknown('edges of it were refused, which others have a part in');
  const identities = await look.documents<IdentityDocument>(person.aliases.map(({ key }) => `k/${key}`));
  if (identities.some((identity) => identity?.shared === true)) return unknown('a value of it is shared');
  const events: Interpreted[] = [];
  for (const { key } of person.aliases) {
    const found = await look.stream(identityStream(look.keys.id, key));
    if (found === null) return unknown(`a stream of it has more than ${String(STREAM_EVENTS_MAX)} events`);
    events.push(...found);
  }
  // What joined two of them, or gave the first sight of one, may stand in a stream of nobody's.
  const read = new Set(events.map(({ eventId }) => eventId));
  const told = [...person.aliases, ...person.evidence, ...person.confirming].map(({ eventId }) => eventId).filter((eventId) => !read.has(eventId));
  for (const eventId of told) {
    const found = (await look.stream(look.keys.anonymousStream(eventId)))?.find((event) => event.eventId === eventId);
    if (found === undefined) return unknown('it has events that are known by their subject alone');
    events.push(found);
  }
  return { kind: 'checked', differences: await look.differences(once(events), [`p/${id}`], (name) => !name.startsWith('w/')) };
}

// ---- all of them -----------------------------------------------------------------------------------------------------------

export interface VerifyAllOptions extends Pick<BuilderOptions, 'events' | 'keysOf' | 'room' | 'clock' | 'wait' | 'signal'> {
  readonly views: ViewStore;
  /** Where it is folded: thrown away afterwards. */
  readonly scratch: ViewStore;
  readonly live: Generation;
  readonly onProgress: (events: number, share: number) => void;
}
export interface VerifiedAll extends Compared { readonly documents: number; readonly events: number }

/** Terms stand in the index alone, which is not made here: a third of the hashing. */
const noTerm = (): string => '';

/** The whole log folded once, and compared with the live generation where that stands. Null when it was stopped. */
export async function verifyAll({ views, scratch, live, onProgress, keysOf, ...options }: VerifyAllOptions): Promise<VerifiedAll | null> {
  const made = await scratch.createGeneration({ ...live, target: null });
  const builder = await Builder.open({ ...options, keysOf: async (workspace) => ({ ...await keysOf(workspace), term: noTerm }), views: scratch, indexed: false, projection: PROJECTIONS[live.group as Projection['group']], generation: made, live: 0 });
  let events = 0;
  let documents = 0;
  const foldTo = async (positions: readonly (Position | null)[]): Promise<void> => {
    const last = highestOf(positions);
    await builder.foldTo(positions, async (step) => {
      events += step.events;
      onProgress(events, shareOf(step.through, last));
      await Promise.resolve();
    });
  };
  try {
    await foldTo(await positionsOf(views, live));
    const compared = await compare({ views, live, builder, everyDocument: true, foldTo, wait: options.wait, signal: options.signal });
    for (let shard = 0; shard < live.shards; shard += 1) documents += (await builder.view(shard).stats()).documents;
    return options.signal.aborted ? null : { ...compared, documents, events };
  } finally {
    await builder.close();
  }
}
