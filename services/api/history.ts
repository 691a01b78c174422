// A customer's history: the streams of a person's identities, read from the log and merged by time, each event id once
// (design.md section 5). It is no view.
//
// A stream stands in the order of arrival, not of time, so that no page can be cut out of it by revision. What is kept of
// a stream is the first and last key of every block of 256 events (a hundred bytes a block); a page reads the blocks whose
// keys lie in its way and no others. Streams that arrive mostly in order are walked in linear time; one in random order
// costs a read of the whole for each page, and never more memory than the page.
import { setImmediate } from 'node:timers/promises';
import { readRecorded, type RecordedCloudEvent } from '../../schemas/recorded.ts';
import { interpret } from '../../schemas/vocabularies/index.ts';
import type { Instant } from '../../schemas/facts.ts';
import type { EventStore, Position } from '../ports.ts';

const BLOCK = 256;
/** Blocks kept over all streams: some 13 million events' worth, 10 MB. */
const BLOCKS_MAX = 50_000;
/** A page ends early past this, so that a thousand large events do not stand in memory at once. */
const PAGE_BYTES_MAX = 8 * 1024 * 1024;

export interface HistoryEvent { readonly at: Instant; readonly recorded: RecordedCloudEvent; readonly position: Position }
export interface HistoryQuery {
  readonly streams: readonly string[];
  readonly direction: 'asc' | 'desc';
  /** Strictly after this one, in the direction. */
  readonly after: { readonly at: Instant; readonly eventId: string } | null;
  readonly limit: number;
  /** Whoever asked has gone. */
  readonly signal: AbortSignal;
}
export interface HistoryPage { readonly events: readonly HistoryEvent[]; readonly more: boolean }

interface Block { readonly from: number; next: number; min: string; max: string }
interface Summary { readonly blocks: Block[]; extended: Promise<void> }

/** (time, event id) as one text: an instant has thirty characters, so text order is that order. */
function keyOf(at: Instant, eventId: string): string { return at + eventId; }

export class Histories {
  readonly #events: Pick<EventStore, 'readStream'>;
  /** Least recently used first. */
  readonly #summaries = new Map<string, Summary>();
  /** Events read since the start: tests count work by it. */
  readonly work = { read: 0 };

  constructor(events: Pick<EventStore, 'readStream'>) { this.#events = events; }

  async page(query: HistoryQuery): Promise<HistoryPage> {
    const blocks: { readonly stream: string; readonly block: Block }[] = [];
    for (const stream of new Set(query.streams)) {
      const summary = await this.#summary(stream, query.signal);
      for (const block of summary.blocks) blocks.push({ stream, block });
    }
    this.#trim();
    const selection = new Selection(query);
    const [near, far] = query.direction === 'asc' ? ['min', 'max'] as const : ['max', 'min'] as const;
    const inWay = blocks.filter(({ block }) => selection.after === null || selection.isBefore(selection.after, block[far]));
    inWay.sort((a, b) => (selection.isBefore(a.block[near], b.block[near]) ? -1 : a.block[near] === b.block[near] ? 0 : 1));
    for (const { stream, block } of inWay) {
      if (selection.bound !== null && !selection.isBefore(block[near], selection.bound)) break;
      query.signal.throwIfAborted();
      for (const event of await this.#read(stream, block.from, block.next - block.from)) if (event.revision < block.next) selection.offer(event);
    }
    return { events: selection.events, more: selection.bound !== null };
  }

  /** Brought up to the stream's end as of now. */
  async #summary(stream: string, signal: AbortSignal): Promise<Summary> {
    const summary = this.#summaries.get(stream) ?? { blocks: [], extended: Promise.resolve() };
    this.#summaries.delete(stream);
    this.#summaries.set(stream, summary);
    // One after the other: two that extended at once would enter the same events twice. The second looks again after the
    // first has ended, because what the first read may be older than the event that its caller has seen acknowledged.
    const extended = summary.extended.catch(() => undefined).then(() => this.#extend(stream, summary, signal));
    summary.extended = extended;
    await extended;
    return summary;
  }

  async #extend(stream: string, summary: Summary, signal: AbortSignal): Promise<void> {
    for (;;) {
      signal.throwIfAborted();
      const events = await this.#read(stream, summary.blocks.at(-1)?.next ?? 0, BLOCK);
      if (events.length === 0) return;
      for (const { at, recorded, revision } of events) {
        const key = keyOf(at, recorded.eventId);
        const last = summary.blocks.at(-1);
        if (last === undefined || revision - last.from >= BLOCK) {
          summary.blocks.push({ from: revision, next: revision + 1, min: key, max: key });
          continue;
        }
        last.next = revision + 1;
        if (key < last.min) last.min = key;
        if (key > last.max) last.max = key;
      }
    }
  }

  async #read(stream: string, from: number, limit: number): Promise<readonly (HistoryEvent & { readonly revision: number })[]> {
    const events = await this.#events.readStream(stream, { direction: 'forward', from, limit });
    this.work.read += events.length;
    // An adapter may answer without leaving the thread: others get their turn between blocks.
    await setImmediate();
    return events.map((event) => {
      const recorded = readRecorded(event);
      return { at: recorded.event.time ?? interpret(recorded).interpreted.at, recorded, position: event.position, revision: event.revision };
    });
  }

  /** Forgets whole streams; whoever is reading one meanwhile goes on with what it holds. */
  #trim(): void {
    let blocks = 0;
    for (const summary of this.#summaries.values()) blocks += summary.blocks.length;
    for (const [stream, summary] of this.#summaries) {
      if (blocks <= BLOCKS_MAX) return;
      this.#summaries.delete(stream);
      blocks -= summary.blocks.length;
    }
  }
}

/** The first `limit` keys after a cursor, of whatever is offered in whatever order; each once. */
class Selection {
  readonly after: string | null;
  readonly #sign: number;
  readonly #limit: number;
  readonly #entries: { readonly key: string; readonly event: HistoryEvent; readonly bytes: number }[] = [];
  #bytes = 0;
  /** The nearest key that was left out: nothing from it on is taken. Null while nothing was. */
  bound: string | null = null;

  constructor(query: HistoryQuery) {
    this.after = query.after === null ? null : keyOf(query.after.at, query.after.eventId);
    this.#sign = query.direction === 'asc' ? 1 : -1;
    this.#limit = query.limit;
  }

  get events(): readonly HistoryEvent[] { return this.#entries.map(({ event }) => event); }

  isBefore(a: string, b: string): boolean { return this.#sign > 0 ? a < b : a > b; }

  offer(event: HistoryEvent): void {
    const key = keyOf(event.at, event.recorded.eventId);
    if (this.after !== null && !this.isBefore(this.after, key)) return;
    if (this.bound !== null && !this.isBefore(key, this.bound)) return;
    const place = this.#place(key);
    if (this.#entries[place]?.key === key) return;
    const bytes = event.recorded.event.data.length + 1000;
    this.#entries.splice(place, 0, { key, event, bytes });
    this.#bytes += bytes;
    while (this.#entries.length > this.#limit || (this.#bytes > PAGE_BYTES_MAX && this.#entries.length > 1)) {
      const dropped = this.#entries.pop();
      if (dropped === undefined) return;
      this.#bytes -= dropped.bytes;
      this.bound = dropped.key;
    }
  }

  /** Index of the first entry that is not before the key. */
  #place(key: string): number {
    let low = 0;
    let high = this.#entries.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      const entry = this.#entries[middle];
      if (entry !== undefined && this.isBefore(entry.key, key)) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
