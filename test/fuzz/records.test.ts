// Records that nobody meant to send, against the decoder and every vocabulary, and a part of them through the door into a store
// and on into the views: nothing throws, what was received is recorded, known again or rejected, and what was decoded comes
// back the same. 10,000; FUZZ_FACTOR=1 (`make chaos`) makes them 200,000, FUZZ_SEED=… repeats a run.
import { journeys } from '../../projections/journeys.ts';
import { persons } from '../../projections/persons.ts';
import { type CloudEvent, type Decoded, type DecodedMessage, decodeMessage, DEFAULT_MAX_EVENT_BYTES, encodeStructured, type Headers, REJECTION_CODES } from '../../schemas/cloudevent.ts';
import { isWorkspaceId, type WorkspaceKeys, workspaceKeys } from '../../schemas/identity.ts';
import { readRecorded, toNewEvent } from '../../schemas/recorded.ts';
import { instantOf } from '../../schemas/time.ts';
import { interpret, vocabularies } from '../../schemas/vocabularies/index.ts';
import { MemoryEventStore } from '../../services/adapters/memory-events.ts';
import { MemoryViewStore } from '../../services/adapters/memory-views.ts';
import { Door } from '../../services/door.ts';
import { read } from '../../services/projector/projector.ts';
import { CacheRoom, Target } from '../../services/projector/target.ts';
import { type Seeded, seeded } from '../support/seeded.ts';
import { summarise } from '../support/summary.ts';
import { corpus, FUZZ_SEED, jsonOf, mutatedBytes, mutatedValue, ODD_TEXTS, sized } from './mutation.ts';

const RECORDS = sized(200_000);
/** One message of so many also goes through the door and into the views. */
const THROUGH = 20;
const TEST_MS = 120_000 + RECORDS * 3;
const NOW = Date.UTC(2026, 2, 2, 9);
const OPTIONS = { maxEventBytes: DEFAULT_MAX_EVENT_BYTES };
/** Told of a failure: what repeats it, shortened. */
const SHOWN = 3000;

interface Message { readonly binding: 'http' | 'kafka'; readonly headers: Headers; readonly body: Uint8Array | null }

const shop = 'shop';
if (!isWorkspaceId(shop)) throw new Error('not an id');
const keys: WorkspaceKeys = workspaceKeys(shop, Buffer.alloc(32, 7));

// ---- messages ----------------------------------------------------------------------------------------------------------

const EVENTS = corpus();
const CONTENT_TYPES = [
  'application/cloudevents+json', 'application/cloudevents-batch+json', 'application/json', 'text/json', 'application/cloudevents+json; charset=utf-8', 'application/cloudevents+json;charset=latin1', 'application/cloudevents+avro',
  'text/plain', 'application/octet-stream', 'APPLICATION/CLOUDEVENTS+JSON', ';', '', 'application/vnd.shop+json; a="b;c"', 'multipart/form-data; boundary=x',
];

/** A sound event, a value of which is changed now and then, as text; its bytes are changed now and then. */
function body(chance: Seeded): Buffer {
  const text = chance.pick(EVENTS);
  const changed = chance.below(4) === 0 ? text : jsonOf(mutatedValue(JSON.parse(text), chance));
  return chance.below(3) === 0 ? mutatedBytes(Buffer.from(changed), chance) : Buffer.from(changed);
}

function structured(chance: Seeded): Message {
  const binding = chance.below(2) === 0 ? 'http' : 'kafka';
  const contentType = chance.below(8) === 0 ? chance.pick(CONTENT_TYPES) : 'application/cloudevents+json';
  return { binding, headers: { 'content-type': binding === 'http' ? contentType : Buffer.from(contentType) }, body: chance.below(200) === 0 ? null : body(chance) };
}

function batch(chance: Seeded): Message {
  const elements = Array.from({ length: chance.below(6) }, () => body(chance).toString());
  const text = Buffer.from(`[${elements.join(',')}]`);
  return { binding: chance.below(10) === 0 ? 'kafka' : 'http', headers: { 'content-type': chance.below(8) === 0 ? chance.pick(CONTENT_TYPES) : 'application/cloudevents-batch+json' }, body: chance.below(4) === 0 ? mutatedBytes(text, chance) : text };
}

/** Attributes in headers, one of them changed, doubled, renamed or gone; the data is the body. */
function binary(chance: Seeded): Message {
  const binding = chance.below(2) === 0 ? 'http' : 'kafka';
  const prefix = binding === 'http' ? 'ce-' : 'ce_';
  const { data, datacontenttype, ...attributes } = JSON.parse(chance.pick(EVENTS)) as Record<string, unknown>;
  const headers: Record<string, string | Uint8Array | (string | Uint8Array)[] | undefined> = Object.fromEntries(Object.entries(attributes).map(([name, value]) => [prefix + name, headerOf(String(value), binding, chance)]));
  if (chance.below(5) > 0) headers['content-type'] = typeof datacontenttype === 'string' ? datacontenttype : 'application/json';
  const name = chance.pick(Object.keys(headers));
  switch (chance.below(6)) {
    case 0: headers[name] = undefined; break;
    case 1: headers[name] = mutatedBytes(Buffer.from(String(headers[name])), chance); break;
    case 2: headers[name] = [headerOf(chance.pick(ODD_TEXTS), binding, chance), String(headers[name])]; break;
    case 3: headers[prefix + chance.pick(ODD_TEXTS)] = headerOf(chance.pick(ODD_TEXTS), binding, chance); break;
    case 4: headers['content-type'] = chance.pick(CONTENT_TYPES); break;
    default: headers[name] = headerOf(chance.pick(ODD_TEXTS), binding, chance);
  }
  const sound = Buffer.from(jsonOf(chance.below(2) === 0 ? mutatedValue(data, chance) : data));
  return { binding, headers, body: chance.below(4) === 0 ? mutatedBytes(sound, chance) : sound };
}

function headerOf(text: string, binding: Message['binding'], chance: Seeded): string | Uint8Array {
  if (binding === 'kafka') return chance.below(4) === 0 ? text : Buffer.from(text);
  switch (chance.below(4)) {
    case 0: return `"${text}"`;
    case 1: return Buffer.from(text).toString('latin1');
    case 2: return [...Buffer.from(text)].map((byte) => (byte > 0x20 && byte < 0x7f ? String.fromCharCode(byte) : `%${byte.toString(16).padStart(2, '0')}`)).join('');
    default: return text;
  }
}

/** Bytes that are nothing at all. */
function noise(chance: Seeded): Message {
  const bytes = Buffer.from(Array.from({ length: chance.below(200) }, () => chance.below(256)));
  return { binding: chance.below(2) === 0 ? 'http' : 'kafka', headers: { 'content-type': chance.pick(CONTENT_TYPES) }, body: bytes };
}

function message(chance: Seeded): Message {
  switch (chance.below(10)) {
    case 0: case 1: return batch(chance);
    case 2: case 3: case 4: return binary(chance);
    case 5: return noise(chance);
    default: return structured(chance);
  }
}

// ---- what must be true -------------------------------------------------------------------------------------------------

const elementsOf = (decoded: DecodedMessage): readonly Decoded[] => (decoded.kind === 'one' ? [decoded.decoded] : decoded.elements);

/** Decoded, identified, told as facts, and encoded again. What it throws says what is wrong. */
function examine(one: Decoded): 'accepted' | 'rejected' {
  if (one.kind === 'rejected') {
    if (!Object.hasOwn(REJECTION_CODES, one.rejection.code) || one.rejection.reason === '') throw new Error(`rejected without a code or a reason: ${JSON.stringify(one.rejection)}`);
    return 'rejected';
  }
  isTheSame(one.event);
  const identified = keys.identify(one.event);
  if ('rejection' in identified) return 'rejected';
  const recorded = readRecorded({ ...toNewEvent(one.event, identified, { recordedAt: instantOf(NOW), origin: null }), stream: identified.stream });
  interpret(recorded);
  for (const vocabulary of vocabularies) if (vocabulary.knows(recorded)) vocabulary.facts(recorded);
  return 'accepted';
}

/** On one line, and decoded again, it is the same event: what `export` and dead letters rest on. */
function isTheSame(event: CloudEvent): void {
  const line = encodeStructured(event);
  if (line.includes('\n')) throw new Error('encoded on more than one line');
  const [again] = elementsOf(decodeMessage({ headers: { 'content-type': 'application/cloudevents+json' }, body: Buffer.from(line) }, { binding: 'http', maxEventBytes: 4 * DEFAULT_MAX_EVENT_BYTES }));
  if (again?.kind !== 'event') throw new Error(`not decoded again: ${JSON.stringify(again)}`);
  const told = ({ attributes, dataKind, data }: CloudEvent): string => JSON.stringify([Object.entries(attributes).sort(([a], [b]) => (a < b ? -1 : 1)), dataKind, Buffer.from(data).toString('hex')]);
  if (told(again.event) !== told(event)) throw new Error('another event when it is decoded again');
}

function shown({ binding, headers, body: bytes }: Message): string {
  const printed = Object.entries(headers).map(([name, value]) => [name, value instanceof Uint8Array ? `bytes ${Buffer.from(value).toString('base64')}` : value]);
  return `${binding} ${JSON.stringify(printed)} ${bytes === null ? 'no body' : Buffer.from(bytes).toString('base64')}`.slice(0, SHOWN);
}

describe(`records at random (FUZZ_SEED=${String(FUZZ_SEED)})`, () => {
  test(`G4: ${String(RECORDS)} of them: none throws, each is decoded or rejected with a code, each decoded one comes back the same`, () => {
    const chance = seeded(FUZZ_SEED);
    const counts = { accepted: 0, rejected: 0 };
    const codes = new Set<string>();
    for (let made = 0; made < RECORDS; made += 1) {
      const sent = message(chance);
      try {
        for (const one of elementsOf(decodeMessage({ headers: sent.headers, body: sent.body }, { ...OPTIONS, binding: sent.binding }))) {
          counts[examine(one)] += 1;
          if (one.kind === 'rejected') codes.add(one.rejection.code);
        }
      } catch (fault) {
        throw new Error(`record ${String(made)}: ${shown(sent)}`, { cause: fault });
      }
    }
    summarise(`fuzz, seed ${String(FUZZ_SEED)}: ${String(RECORDS)} records, ${String(counts.accepted)} events accepted, ${String(counts.rejected)} rejected for ${String(codes.size)} reasons, none thrown`);
    // They are neither all sound nor all broken, and broken in many ways.
    expect(counts.accepted).toBeGreaterThan(RECORDS / 10);
    expect(counts.rejected).toBeGreaterThan(RECORDS / 10);
    expect(codes.size).toBeGreaterThan(15);
  }, TEST_MS);

  test(`G3, G4: ${String(Math.ceil(RECORDS / THROUGH))} of them through the door and into the views: received = recorded + duplicate + rejected, and in another order they give the same views`, async () => {
    const chance = seeded(FUZZ_SEED + 1);
    const came: Decoded[][] = [];
    for (let made = 0; made < RECORDS; made += THROUGH) {
      if (came.length > 0 && chance.below(10) === 0) { came.push(chance.pick(came.slice(-50))); continue; }
      const { binding, headers, body: bytes } = message(chance);
      came.push([...elementsOf(decodeMessage({ headers, body: bytes }, { ...OPTIONS, binding }))]);
    }
    const { told, store } = await through(came);
    expect(told.recorded + told.duplicate + told.rejected).toBe(came.flat().length);
    expect(Math.min(told.recorded, told.duplicate, told.rejected)).toBeGreaterThan(0);
    const digests = await folded(store, 100);
    const other = await through(chance.shuffled(came));
    expect(other.told).toEqual(told);
    expect(await folded(other.store, 7)).toEqual(digests);
  }, TEST_MS);
});

/** Message by message through a door into an empty store; what the senders were told, which the door counted alike. */
async function through(came: readonly (readonly Decoded[])[]): Promise<{ readonly told: Readonly<Record<'recorded' | 'duplicate' | 'rejected', number>>; readonly store: MemoryEventStore }> {
  const store = new MemoryEventStore({ storeId: 'fuzz' });
  const door = new Door({ store, clock: { now: () => NOW }, random: (size) => new Uint8Array(size), sleep: async () => undefined, tallies: new MemoryViewStore() });
  const told = { recorded: 0, duplicate: 0, rejected: 0 };
  for (const decoded of came) for (const { kind } of await door.receive(keys, decoded)) told[kind] += 1;
  await door.drain();
  const { recorded, duplicates, rejected, failed } = door.counts();
  expect({ recorded, duplicates, rejected: Object.values(rejected).reduce((sum, count) => sum + count, 0), failed }).toEqual({ recorded: told.recorded, duplicates: told.duplicate, rejected: told.rejected, failed: 0 });
  return { told, store };
}

/** The digests of both groups, folded in batches of this size. */
async function folded(store: MemoryEventStore, maxBatch: number): Promise<readonly string[]> {
  const views = new MemoryViewStore();
  const digests: string[] = [];
  for (const projection of [journeys, persons]) {
    const { id } = await views.createGeneration({ group: projection.group, version: projection.version, shards: 1, storeId: 'fuzz', target: null, fields: projection.fields, subFields: projection.subFields, ordered: projection.ordered });
    await views.promote(projection.group, null, id);
    const view = await views.view(projection.group, id, 0);
    const target = new Target({ projection, view, role: 'live', cache: new CacheRoom(1e6) });
    await target.resume();
    const stop = new AbortController();
    for await (const events of store.subscribe({ after: null, prefixes: [], maxBatch, signal: stop.signal })) {
      await target.step(events.events.flatMap(read), events.position, async () => keys);
      if (events.caughtUp) stop.abort();
    }
    digests.push(await view.digest());
  }
  return digests;
}
