// `throughline preview FILE`: what events would become, nothing stored. `throughline trace`: what became of one.
import { z } from 'zod';
import { unpackJourneyOf, unpackRow } from '../../projections/documents.ts';
import { DEFAULT_POLICY, SEEN_TYPES_KEY, type SeenTypes, unpackDocument } from '../../projections/persons.ts';
import { codeOf, type Decoded, decodeStructured } from '../../schemas/cloudevent.ts';
import { foldType, identityStream, isAnonymous, isWorkspaceId, nodeKey, normaliseIdentity, type WorkspaceKeys, workspaceKeys } from '../../schemas/identity.ts';
import { readRecorded } from '../../schemas/recorded.ts';
import { nameOf } from '../backends.ts';
import type { Options } from '../config.ts';
import { dryRun, factsOf } from '../door.ts';
import { OperatingError } from '../errors.ts';
import { liveOf } from '../generations.ts';
import type { RecordedEvent } from '../ports.ts';
import { SECRET_BYTES, type Workspaces } from '../workspaces.ts';
import { type Element, elementsOf, longestSpelling } from './elements.ts';
import { openStores, openWorkspaces, type Stores } from './folder.ts';
import { count, type Io, orExplain, print, printable, printJson } from './terminal.ts';

type Said = Readonly<Record<string, unknown>> & { readonly kind: string };
type Why = { readonly code: string; readonly message: string } | null;

/** One line's answer, local or from a server. */
type Previewed =
  | { readonly result: 'dryRun'; readonly id: string; readonly eventId: string; readonly stream: string; readonly at: string; readonly vocabulary: string | null; readonly facts: readonly Said[]; readonly reason: Why }
  | { readonly result: 'rejected'; readonly code: string; readonly attribute: string | null; readonly message: string };

// ---- preview ----------------------------------------------------------------------------------------------------------

const PREVIEW_BATCH = 200;

/** Exit code 0 when the whole input was read, whatever it held. */
export function previewVerb(options: Options<'preview'>, io: Io): Promise<number> {
  return orExplain('preview', io, async () => {
    const ask = options.to === null ? localPreview(options, io) : serverPreview(options, options.to, io);
    const totals = { events: 0, facts: 0, rejected: 0, silent: 0 };
    for await (const { elements } of elementsOf(options.file, io, longestSpelling(options.maxEventBytes))) {
      for (let from = 0; from < elements.length; from += PREVIEW_BATCH) {
        const lines = elements.slice(from, from + PREVIEW_BATCH);
        const answers = await ask(lines);
        for (const answer of answers) add(totals, answer);
        await print(io.stdout, lines.map(({ line }, i) => printPreview(line, answers[i], options.json)).join(''));
      }
      if (io.signal.aborted) return 1;
    }
    if (!options.json) await print(io.stderr, `${count(totals.events)} events: ${count(totals.facts)} facts, ${count(totals.silent)} without any, ${count(totals.rejected)} rejected. Nothing was stored.\n`);
    return 0;
  });
}

/** Under a secret of its own: facts are the same as anywhere, names of streams are not. */
function localPreview(options: Options<'preview'>, io: Io): (lines: readonly Element[]) => Promise<readonly Previewed[]> {
  const id = 'preview';
  if (!isWorkspaceId(id)) throw new Error('assertion: the id of a workspace');
  const keys = workspaceKeys(id, io.random(SECRET_BYTES));
  return async (lines) => {
    const decoded: Decoded[] = lines.map(({ bytes }) => decodeStructured(bytes, { maxEventBytes: options.maxEventBytes }));
    return dryRun(keys, decoded, io.clock.now()).map((result): Previewed => {
      if (result.kind === 'rejected') return { result: 'rejected', code: result.rejection.code, attribute: result.rejection.attribute, message: result.rejection.reason };
      const { eventId, stream, at, vocabulary, facts, why } = result;
      return { result: 'dryRun', id: result.id, eventId, stream, at, vocabulary, facts: facts.map(saidOf), reason: whyOf(why) };
    });
  };
}

const factSchema = z.looseObject({ kind: z.string() });
const previewSchema = z.object({
  results: z.array(z.union([
    z.object({ result: z.literal('rejected'), code: z.string(), attribute: z.string().nullable(), message: z.string() }),
    z.object({
      result: z.literal('dryRun'), id: z.string(), eventId: z.string(), stream: z.string(), at: z.string(), vocabulary: z.string().nullable(),
      facts: z.array(factSchema), reason: z.object({ code: z.string(), message: z.string() }).nullable(),
    }),
  ])),
});

/** A line that is no JSON at all would spoil its batch: such are told here, and the others by the server. */
function serverPreview(options: Options<'preview'>, url: string, io: Io): (lines: readonly Element[]) => Promise<readonly Previewed[]> {
  const { apiKey } = options;
  if (apiKey === null) throw new OperatingError('serverRefused', `THROUGHLINE_API_KEY is not set: it is the key with which ${url} knows the workspace`);
  return async (lines) => {
    const refused = lines.map(({ bytes }) => decodeStructured(bytes, { maxEventBytes: options.maxEventBytes }))
      .map((decoded): Previewed | null => (decoded.kind === 'event' ? null : { result: 'rejected', code: decoded.rejection.code, attribute: decoded.rejection.attribute, message: decoded.rejection.reason }));
    const sent = lines.filter((_, i) => refused[i] === null);
    const answers = sent.length === 0 ? [] : await askServer(url, apiKey, sent, io);
    let at = 0;
    return refused.map((one) => {
      const answer = one ?? answers[at++];
      if (answer === undefined) throw new OperatingError('serverRefused', `${url} does not answer as a Throughline does`);
      return answer;
    });
  };
}

async function askServer(url: string, apiKey: string, lines: readonly Element[], io: Io): Promise<readonly Previewed[]> {
  const body = `[${lines.map(({ bytes }) => Buffer.from(bytes).toString('utf8')).join(',')}]`;
  let response: Response;
  let json: unknown;
  try {
    response = await io.fetch(`${url}/events?dryRun=true`, { method: 'POST', body, redirect: 'error', headers: { 'content-type': 'application/cloudevents-batch+json', 'x-api-key': apiKey } });
    json = await response.json();
  } catch (cause) {
    throw new OperatingError('serverUnreachable', `${url} cannot be reached: is it running?`, { cause });
  }
  if (response.status !== 200) throw new OperatingError('serverRefused', `${url} answers ${String(response.status)}`);
  const parsed = previewSchema.safeParse(json);
  if (!parsed.success) throw new OperatingError('serverRefused', `${url} does not answer as a Throughline does`);
  return parsed.data.results;
}

function add(totals: { events: number; facts: number; rejected: number; silent: number }, answer: Previewed): void {
  totals.events += 1;
  if (answer.result === 'rejected') totals.rejected += 1;
  else if (answer.facts.length === 0) totals.silent += 1;
  else totals.facts += answer.facts.length;
}

function printPreview(line: number, answer: Previewed | undefined, json: boolean): string {
  if (answer === undefined) throw new Error('assertion: an answer for each line');
  if (json) return `${JSON.stringify({ line, ...answer })}\n`;
  if (answer.result === 'rejected') return `line ${String(line)}  rejected: ${codeOf(answer)}  ${answer.message}\n`;
  return `line ${String(line)}  ${printable(answer.id)}  ${answer.at}  ${answer.vocabulary ?? 'no vocabulary'}  ${answer.stream}\n${printFacts(answer.facts, answer.reason)}`;
}

const NOT_SAID: ReadonlySet<string> = new Set(['kind', 'interaction', 'at', 'tie', 'eventId', 'index']);
/** A fact as a line: its kind, its interaction, and what else it says. Where it stands in the order is the event's. */
function printFacts(facts: readonly Said[], why: Why): string {
  const lines = facts.map((fact) => {
    const rest = Object.entries(fact).filter(([name]) => !NOT_SAID.has(name));
    const said = rest.length === 0 ? '' : `  ${JSON.stringify(Object.fromEntries(rest))}`;
    return `    ${fact.kind}${typeof fact['interaction'] === 'string' ? `  ${fact['interaction']}` : ''}${said}`;
  });
  return [...lines, ...(why === null ? [] : [`    ${why.code}: ${why.message}`])].map((text) => `${printable(text)}\n`).join('');
}

function saidOf(fact: { readonly kind: string }): Said { return { ...fact }; }
function whyOf(why: { readonly code: string; readonly reason: string } | null): Why { return why === null ? null : { code: why.code, message: why.reason }; }

// ---- trace ------------------------------------------------------------------------------------------------------------

const PAGE = 500;

interface Traced {
  readonly eventId: string; readonly source: string; readonly type: string; readonly time: string | null; readonly recordedAt: string;
  readonly identityType: string; readonly stream: string; readonly revision: number; readonly position: string;
  readonly vocabulary: string | null; readonly facts: readonly Said[]; readonly reason: Why;
  /** Ids of the journeys that its interactions are part of now; empty while they are not folded. */
  readonly journeys: readonly string[];
}

/**
 * Looks for the CloudEvents id in the streams of an identity: recorded, and what came of it, or not there. A redelivery
 * leaves no trace but in the counts by source, nor does a rejection. Exit code 0 when it was found, else 1.
 */
export function traceVerb(options: Options<'trace'>, io: Io): Promise<number> {
  return orExplain('trace', io, async () => {
    const stores = await openStores(options, 'read', io);
    try {
      const workspaces = await openWorkspaces(options.events, stores, io, options.masterKey);
      try {
        return await trace(options, io, stores, workspaces);
      } finally {
        await workspaces.close();
      }
    } finally {
      await stores.close();
    }
  });
}

async function trace(options: Options<'trace'>, io: Io, stores: Stores, workspaces: Workspaces): Promise<number> {
  const keys = workspaces.keys(options.workspace);
  if (keys === null) throw new OperatingError('badConfiguration', `there is no workspace ${options.workspace} in ${nameOf(options.events)}`);
  const types = options.identityType === null ? await typesOf(stores, keys) : [foldType(options.identityType)];
  const streams = streamsOf(types, options.identity, keys, workspaces);
  const found: Traced[] = [];
  let searched = 0;
  for (const stream of streams) {
    for await (const recorded of eventsOf(stores, stream)) {
      searched += 1;
      const read = readRecorded(recorded);
      if (read.event.id === options.id) found.push(await tracedOf(recorded, stores, keys));
    }
  }
  const tallies = await stores.views.tallies(keys.id);
  const rejections = sumRejections(tallies.map((tally) => tally.rejected));
  const result = found.length > 0 ? 'recorded' : 'notRecorded';
  if (options.json) await printJson(io.stdout, { id: options.id, result, found, searched, rejections });
  else await print(io.stdout, found.length > 0 ? found.map((one) => printTraced(one, found.length)).join('') : printMissing(options.id, searched, rejections));
  return found.length > 0 ? 0 : 1;
}

/** Types that an identity without one may be of: those that the workspace has seen, and those that mean something to the house, since a view may be behind. */
async function typesOf(stores: Stores, keys: WorkspaceKeys): Promise<readonly string[]> {
  const seen = await loadLive(stores, keys, 'persons', [SEEN_TYPES_KEY]);
  return [...new Set([...seen.flatMap(([key, text]) => (unpackDocument(key, text) as SeenTypes).types), 'email', 'phone', 'subject', ...DEFAULT_POLICY.veryStrong, ...DEFAULT_POLICY.strong, ...DEFAULT_POLICY.temporary])];
}

function streamsOf(types: readonly string[], identity: string, keys: WorkspaceKeys, workspaces: Workspaces): readonly string[] {
  const streams = new Set<string>();
  for (const type of types) {
    const key = keys.identityKey(type, identity);
    if (key !== null) streams.add(identityStream(keys.id, key));
    else if (isAnonymous(normaliseIdentity(type, identity).value)) for (const stream of workspaces.anonymousStreams(keys.id)) streams.add(stream);
  }
  return [...streams];
}

async function* eventsOf({ events }: Stores, stream: string): AsyncGenerator<RecordedEvent> {
  for (let from = 0; ;) {
    const page = await events.readStream(stream, { direction: 'forward', from, limit: PAGE });
    yield* page;
    const last = page.at(-1);
    if (last === undefined) return;
    from = last.revision + 1;
  }
}

async function tracedOf(recorded: RecordedEvent, stores: Stores, keys: WorkspaceKeys): Promise<Traced> {
  const { event, recordedAt, identity } = readRecorded(recorded);
  const { vocabulary, facts, why } = factsOf(recorded);
  const interactions = new Set(facts.flatMap((fact) => ('interaction' in fact ? [fact.interaction] : [])));
  const time = event.attributes['time'];
  return {
    eventId: recorded.id, source: event.source, type: event.type, time: time === undefined ? null : String(time), recordedAt, identityType: identity.type,
    stream: recorded.stream, revision: recorded.revision, position: `${stores.events.storeId}.${recorded.position}`,
    vocabulary, facts: facts.map(saidOf), reason: whyOf(why), journeys: await journeysOf(stores, keys, [...interactions]),
  };
}

async function journeysOf(stores: Stores, keys: WorkspaceKeys, interactions: readonly string[]): Promise<readonly string[]> {
  const nodes = await loadLive(stores, keys, 'journeys', interactions.map((id) => `n/${nodeKey(keys, id)}`));
  const names = new Set(nodes.flatMap(([key, text]) => unpackJourneyOf(key.slice(2), text) ?? []));
  const journeys = await loadLive(stores, keys, 'journeys', [...names].map((name) => `j/${name}`));
  return [...new Set(journeys.map(([key, text]) => unpackRow(key.slice(2), text).journeyId))].sort();
}

/** Those of the documents that are there, with their keys, in the view that is live; a workspace's stand in one of its shards. */
async function loadLive({ views }: Stores, { id: workspace }: WorkspaceKeys, group: 'journeys' | 'persons', keys: readonly string[]): Promise<readonly (readonly [key: string, text: string])[]> {
  const generation = await liveOf(views, group);
  const found: [string, string][] = [];
  for (let shard = 0; generation !== null && keys.length > 0 && shard < generation.shards; shard += 1) {
    const view = await views.view(group, generation.id, shard);
    (await view.load(keys.map((key) => `${workspace}/${key}`))).forEach((text, i) => { if (text !== null) found.push([keys[i] ?? '', text]); });
  }
  return found;
}

export function sumRejections(counts: readonly Readonly<Record<string, number>>[]): Record<string, number> {
  const sum: Record<string, number> = {};
  for (const one of counts) for (const [code, value] of Object.entries(one)) sum[code] = (sum[code] ?? 0) + value;
  return sum;
}

function printTraced(traced: Traced, all: number): string {
  const reused = all > 1 ? ` (one of ${String(all)} events that share this id and differ in content)` : '';
  return [
    `recorded${reused} as ${traced.eventId}`,
    `  type      ${traced.type}`,
    `  source    ${traced.source}`,
    `  time      ${traced.time ?? 'none'}, recorded ${traced.recordedAt}`,
    `  stream    ${traced.stream} at revision ${String(traced.revision)}, position ${traced.position}`,
    `  reads     ${traced.vocabulary ?? 'no vocabulary'}`,
    `  journeys  ${traced.journeys.length === 0 ? 'none yet' : traced.journeys.join(', ')}`,
  ].map((text) => `${printable(text)}\n`).join('') + printFacts(traced.facts, traced.reason)
    + '  However often it was delivered, it stands once; deliveries are counted per source.\n';
}

function printMissing(id: string, searched: number, rejections: Readonly<Record<string, number>>): string {
  const told = Object.entries(rejections).map(([code, value]) => `${code} ${count(value)}`).join(', ');
  return `not recorded: none of the ${count(searched)} events of this identity has the id ${printable(id)}.\n`
    + 'It was never sent, came under another identity or workspace, or was rejected: its sender was told,\n'
    + 'and where it came on a topic it is a dead letter (throughline dead-letters list).\n'
    + (told === '' ? 'This workspace has rejected nothing.\n' : `Rejections of this workspace so far: ${told}.\n`);
}
