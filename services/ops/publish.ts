// `throughline publish FILE`: the events of a file onto the topic, each element's bytes as they stand in the file, as a
// structured CloudEvent, keyed by identity so that an identity's events stay in order. Nothing is judged here but what
// cannot be a record at all: what is no event goes out too, and ingest says why it was rejected.
import { createHash } from 'node:crypto';
import path from 'node:path';
import { codeOf, type Decoded, decodeStructured } from '../../schemas/cloudevent.ts';
import { isAnonymous } from '../../schemas/identity.ts';
import { openTopic } from '../backends.ts';
import type { Options } from '../config.ts';
import type { OutgoingRecord, Topic } from '../ports.ts';
import { type Element, elementsOf, sizeOfFile, whoseEvent } from './elements.ts';
import { count, explainFault, type Io, print, printJson, ProgressBar } from './terminal.ts';

export interface PublishOptions {
  /** `-`: stdin. */
  readonly file: string;
  readonly json: boolean;
  readonly maxEventBytes: number;
  readonly topic: string;
  readonly openTopic: (name: string) => Promise<Topic>;
}

export function publishVerb(options: Options<'publish'>, io: Io): Promise<number> {
  const { file, json, maxEventBytes, source } = options;
  return publish({ file, json, maxEventBytes, topic: source.topic, openTopic: (name) => openTopic(source, name) }, io);
}

/** Key and headers of a record that is written here, and some room. */
const BESIDE_BYTES = 128;
/** Where there is no such topic: the first write says so. */
const ELEMENT_BYTES = 1_000_000;
/** Writes beside each other, each of other identities; and what one holds. */
const LANES = 4;
const WRITE_RECORDS = 1000;
const WRITE_BYTES = 512 * 1024;
/** Lines named on stderr. */
const TOLD_MAX = 20;

const HEADERS = { 'content-type': Buffer.from('application/cloudevents+json; charset=utf-8') } as const;

interface Counts { published: number; keyless: number; tooLong: number }

/** Exit code 0 when every element of the input is on the topic, on all of its in-sync replicas; else 1. */
export async function publish(options: PublishOptions, io: Io): Promise<number> {
  const startedMs = io.clock.now();
  const counts: Counts = { published: 0, keyless: 0, tooLong: 0 };
  const notes = new Notes();
  const bar = new ProgressBar(io, `publishing ${options.file === '-' ? 'stdin' : path.basename(options.file)}`, sizeOfFile(options.file));
  let error: ReturnType<typeof explainFault> | null = null;
  try {
    const topic = await options.openTopic(options.topic);
    try {
      const looked = await topic.look();
      await feed(options, looked === null ? ELEMENT_BYTES : Math.max(1, looked.recordBytes - BESIDE_BYTES), new Lanes(topic, counts), counts, notes, bar, io);
    } finally {
      await topic.close();
    }
    if (io.signal.aborted) error = { code: 'interrupted', message: 'interrupted before the end of the input' };
  } catch (fault) {
    error = explainFault(fault);
  }
  bar.clear();
  await report(options, counts, notes, (io.clock.now() - startedMs) / 1000, error, io);
  return error === null && counts.tooLong === 0 ? 0 : 1;
}

async function feed(options: PublishOptions, longest: number, lanes: Lanes, counts: Counts, notes: Notes, bar: ProgressBar, io: Io): Promise<void> {
  for await (const { elements, bytesRead } of elementsOf(options.file, io, longest)) {
    for (const element of elements) {
      if (element.bytes.length > longest) {
        counts.tooLong += 1;
        notes.add(element, `not published: longer than the ${count(longest)} bytes that the topic takes`);
        continue;
      }
      // Whatever its length: another ingest may take more than this one's limit, or a retry after that was raised.
      const decoded = decodeStructured(element.bytes, { maxEventBytes: longest });
      const key = keyOf(decoded);
      if (key === null) {
        counts.keyless += 1;
        notes.add(element, `published without a key, to be dead-lettered: ${decoded.kind === 'rejected' ? codeOf(decoded.rejection) : 'no identity'}`);
      } else if (isTooLarge(element, options)) notes.add(element, `published, to be dead-lettered: more than the ${count(options.maxEventBytes)} bytes that an event may have (--max-event-bytes)`);
      const full = lanes.put({ key, value: element.bytes, headers: HEADERS });
      if (full !== null) await full;
    }
    bar.show(bytesRead, counts.published);
    if (io.signal.aborted) break;
  }
  await lanes.finish();
}

/** An event never has more bytes than its spelling, so that nearly none is read twice. */
function isTooLarge({ bytes }: Element, { maxEventBytes }: PublishOptions): boolean {
  return bytes.length > maxEventBytes && decodeStructured(bytes, { maxEventBytes }).kind === 'rejected';
}

/**
 * 32 hex digits of SHA-256 over the identity as it is compared: the same for every event of an identity, and no address
 * that a topic's keys would show. Values that are nobody's have no order to keep, and would all be one partition's: their
 * key is taken over the event's own names too. Null where there is no identity.
 */
function keyOf(decoded: Decoded): Uint8Array | null {
  const whose = whoseEvent(decoded);
  if (whose === null || decoded.kind === 'rejected') return null;
  const parts = isAnonymous(whose.value) ? [whose.type, whose.value, decoded.event.source, decoded.event.id] : [whose.type, whose.value];
  return Buffer.from(createHash('sha256').update(JSON.stringify(parts)).digest('hex').slice(0, 32));
}

interface Lane { waiting: OutgoingRecord[]; bytes: number; writing: Promise<void> | null }

/** An identity's records go through one lane, one write after the other; the lanes go beside each other. */
class Lanes {
  readonly #topic: Topic;
  readonly #counts: Counts;
  readonly #lanes: readonly Lane[] = Array.from({ length: LANES }, () => ({ waiting: [], bytes: 0, writing: null }));

  constructor(topic: Topic, counts: Counts) {
    this.#topic = topic;
    this.#counts = counts;
  }

  /** Answers with a promise when its caller must wait before the next. */
  put(record: OutgoingRecord): Promise<void> | null {
    // By the key, whose digits are evenly spread.
    const lane = this.#lanes[record.key === null ? 0 : (record.key.at(0) ?? 0) % LANES];
    if (lane === undefined) throw new Error('assertion: a lane for every record');
    lane.waiting.push(record);
    lane.bytes += record.value?.length ?? 0;
    return lane.waiting.length >= WRITE_RECORDS || lane.bytes >= WRITE_BYTES ? this.#write(lane) : null;
  }

  /** Everything put is durable. Throws what a write met, after the others have ended. */
  async finish(): Promise<void> {
    const ends = await Promise.allSettled(this.#lanes.map(async (lane) => {
      while (lane.waiting.length > 0) await this.#write(lane);
      await lane.writing;
    }));
    for (const end of ends) if (end.status === 'rejected') throw end.reason;
  }

  /** Waits for the lane's write under way, then starts the next. Throws what the former one met: nothing behind it is written. */
  async #write(lane: Lane): Promise<void> {
    while (lane.writing !== null) await lane.writing;
    const records = lane.waiting;
    if (records.length === 0) return;
    lane.waiting = [];
    lane.bytes = 0;
    lane.writing = this.#topic.write(records).then(() => {
      this.#counts.published += records.length;
      lane.writing = null;
    });
    lane.writing.catch(() => undefined);
  }
}

/** Lines worth a word, the first of them. */
class Notes {
  readonly lines: { readonly line: number; readonly what: string }[] = [];
  all = 0;

  add({ line }: Element, what: string): void {
    this.all += 1;
    if (this.lines.length < TOLD_MAX) this.lines.push({ line, what });
  }
}

async function report(options: PublishOptions, counts: Counts, notes: Notes, seconds: number, error: ReturnType<typeof explainFault> | null, io: Io): Promise<void> {
  const { file, topic } = options;
  if (options.json) {
    await printJson(io.stdout, { file, topic, ...counts, seconds, notes: notes.lines, complete: error === null && counts.tooLong === 0, ...(error === null ? {} : { error }) });
    return;
  }
  const { published, keyless, tooLong } = counts;
  const besides = [...(keyless === 0 ? [] : [`${count(keyless)} without a key`]), ...(tooLong === 0 ? [] : [`${count(tooLong)} too long and left out`])];
  await print(io.stdout, `${file}: ${count(published)} published to ${topic} in ${seconds.toFixed(1)} s (${count(Math.round(published / Math.max(seconds, 0.001)))}/s)${besides.map((one) => `, ${one}`).join('')}\n`);
  for (const { line, what } of notes.lines) await print(io.stderr, `line ${String(line)}: ${what}\n`);
  if (notes.all > notes.lines.length) await print(io.stderr, `and ${count(notes.all - notes.lines.length)} more lines\n`);
  if (error !== null) await print(io.stderr, `throughline publish: ${error.message} (${error.code})\n`);
}
