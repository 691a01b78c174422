// The event store in memory: for tests, and the yardstick for every other adapter. With `idsAreUnique: false` it does as
// EventStoreDB 22.10 was seen to (environment.md), and calls what that server passes over as a repeat a duplicate, so that
// the door's other path can be tested without a server.
import assert from 'node:assert/strict';
import { setImmediate } from 'node:timers/promises';
import { OperatingError } from '../errors.ts';
import type { AppendResult, EventStore, ExpectedRevision, NewEvent, Position, RecordedEvent, SubscriptionBatch } from '../ports.ts';

function positionOf(place: number): Position {
  return String(place).padStart(20, '0') as Position;
}

interface MemoryStream { readonly events: RecordedEvent[]; readonly positions: Map<string, Position> }

export class MemoryEventStore implements EventStore {
  readonly storeId: string;
  readonly idsAreUnique: boolean;
  /** The event at position n stands at index n - 1. */
  readonly #log: RecordedEvent[] = [];
  readonly #streams = new Map<string, MemoryStream>();
  readonly #waiting = new Set<() => void>();
  #bytes = 0;
  #closed = false;

  constructor(options: { readonly storeId: string; readonly idsAreUnique?: boolean }) {
    this.storeId = options.storeId;
    this.idsAreUnique = options.idsAreUnique ?? true;
  }

  async append(name: string, expected: ExpectedRevision, events: readonly NewEvent[]): Promise<AppendResult> {
    this.#open();
    assert(events.length > 0, 'an append holds at least one event');
    const stream = this.#streams.get(name) ?? { events: [], positions: new Map<string, Position>() };
    const revision = stream.events.length - 1;
    const believed = expected === 'no_stream' ? -1 : expected;
    if (this.idsAreUnique) {
      assert(new Set(events.map(({ id }) => id)).size === events.length, 'the ids of one append differ');
      const found = new Map<string, Position>();
      for (const { id } of events) {
        const position = stream.positions.get(id);
        if (position !== undefined) found.set(id, position);
      }
      if (found.size > 0) return { kind: 'duplicate', found };
    } else if (believed < revision) {
      // Ids are compared at the revisions where they would have gone, and nowhere else.
      const there = stream.events.slice(believed + 1, believed + 1 + events.length);
      if (there.length === events.length && there.every(({ id }, index) => id === events[index]?.id)) {
        return { kind: 'duplicate', found: new Map(there.map(({ id, position }) => [id, position])) };
      }
    }
    if (believed !== revision) return { kind: 'conflict', revision };
    this.#streams.set(name, stream);
    const positions = events.map((event) => this.#record(name, stream, event));
    this.#wake();
    return { kind: 'appended', revision: stream.events.length - 1, positions };
  }

  async readStream(name: string, options: { readonly direction: 'forward' | 'backward'; readonly from?: number; readonly limit: number }): Promise<readonly RecordedEvent[]> {
    this.#open();
    const events = this.#streams.get(name)?.events ?? [];
    if (options.direction === 'forward') {
      const from = options.from ?? 0;
      return events.slice(from, from + options.limit);
    }
    const end = Math.min(options.from ?? events.length - 1, events.length - 1) + 1;
    return events.slice(Math.max(0, end - options.limit), end).reverse();
  }

  async head(): Promise<Position | null> {
    this.#open();
    return this.#log.at(-1)?.position ?? null;
  }

  async gap(position: Position | null): Promise<number | null> {
    this.#open();
    return Math.max(0, this.#log.length - Number(position ?? 0));
  }

  async *subscribe(options: { readonly after: Position | null; readonly prefixes: readonly string[]; readonly maxBatch: number; readonly signal: AbortSignal }): AsyncGenerator<SubscriptionBatch, void, undefined> {
    const { prefixes, maxBatch, signal } = options;
    let place = Number(options.after ?? 0);
    let told = false;
    if (place > this.#log.length) throw new OperatingError('positionPastHead', 'the position lies past the end of the event store');
    while (!signal.aborted) {
      this.#open();
      const from = place;
      const events: RecordedEvent[] = [];
      for (; place < this.#log.length && events.length < maxBatch; place += 1) {
        const event = this.#log[place]!;
        if (prefixes.length === 0 || prefixes.some((prefix) => event.stream.startsWith(prefix))) events.push(event);
      }
      const caughtUp = place === this.#log.length;
      if (place > from || (caughtUp && !told && place > 0)) {
        told ||= caughtUp;
        yield { events, position: positionOf(place), caughtUp };
        // The loop turns over microtasks alone: without this a reader that catches up would keep timers and sockets waiting.
        await setImmediate();
      } else {
        await this.#news(signal);
      }
    }
  }

  async stats(): Promise<{ readonly events: number; readonly streams: number; readonly bytes: number }> {
    this.#open();
    return { events: this.#log.length, streams: this.#streams.size, bytes: this.#bytes };
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#wake();
  }

  #open(): void {
    if (this.#closed) throw new OperatingError('storeClosed', 'the event store is closed');
  }

  #record(name: string, stream: MemoryStream, event: NewEvent): Position {
    const position = positionOf(this.#log.length + 1);
    // Copies, as a store on disk would make: what the caller does to its buffers later changes nothing here.
    const recorded = { id: event.id, type: event.type, data: new Uint8Array(event.data), metadata: new Uint8Array(event.metadata), stream: name, revision: stream.events.length, position };
    this.#log.push(recorded);
    stream.events.push(recorded);
    if (this.idsAreUnique) stream.positions.set(event.id, position);
    this.#bytes += event.data.length + event.metadata.length;
    return position;
  }

  /** Resolves on the next append, on abort, or when the store is closed. */
  #news(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        this.#waiting.delete(done);
        signal.removeEventListener('abort', done);
        resolve();
      };
      this.#waiting.add(done);
      signal.addEventListener('abort', done);
    });
  }

  #wake(): void {
    for (const done of [...this.#waiting]) done();
  }
}
