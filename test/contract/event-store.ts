// What every event store must do, through the port alone: eventStoreContract(name, make) declares the tests for one adapter.
import fc from 'fast-check';
import type { AppendResult, EventStore, ExpectedRevision, NewEvent, Position, RecordedEvent, SubscriptionBatch } from '../../services/ports.ts';

export interface Made { readonly store: EventStore; readonly dispose: () => Promise<void> }

let ids = 0;
/** An event with an id of its own and, unless given, bytes that no text could hold. */
export function newEvent(given: Partial<NewEvent> = {}): NewEvent {
  ids += 1;
  return {
    id: `00000000-0000-8000-8000-${ids.toString(16).padStart(12, '0')}`, type: 'task:connected',
    data: Uint8Array.of(ids & 0xff, 0, 0xff, 0xc3, 0x28, 0), metadata: new TextEncoder().encode(JSON.stringify({ number: ids })), ...given,
  };
}
function newEvents(count: number): readonly NewEvent[] {
  return Array.from({ length: count }, () => newEvent());
}

/** A byte array of any realm or kind as plain numbers. */
function bytesOf(bytes: Uint8Array): readonly number[] {
  return [...bytes];
}
function idsOf(events: readonly { readonly id: string }[]): readonly string[] {
  return events.map(({ id }) => id);
}

async function appended(result: Promise<AppendResult>): Promise<Extract<AppendResult, { kind: 'appended' }>> {
  const answer = await result;
  if (answer.kind !== 'appended') throw new Error(`not appended but ${answer.kind}`);
  return answer;
}

/** Takes batches until `enough` says so of all the events so far and the last batch. */
async function follow(
  store: EventStore, options: { readonly after?: Position | null; readonly prefixes?: readonly string[]; readonly maxBatch?: number },
  enough: (events: readonly RecordedEvent[], batch: SubscriptionBatch) => boolean | Promise<boolean>,
): Promise<{ readonly events: readonly RecordedEvent[]; readonly batches: readonly SubscriptionBatch[] }> {
  const events: RecordedEvent[] = [];
  const batches: SubscriptionBatch[] = [];
  const { signal } = new AbortController();
  for await (const batch of store.subscribe({ after: options.after ?? null, prefixes: options.prefixes ?? [], maxBatch: options.maxBatch ?? 100, signal })) {
    events.push(...batch.events);
    batches.push(batch);
    if (await enough(events, batch)) break;
  }
  return { events, batches };
}
const untilCaughtUp = (_events: readonly RecordedEvent[], batch: SubscriptionBatch): boolean => batch.caughtUp;

export function eventStoreContract(name: string, make: () => Promise<Made>, { idsAreUnique }: { readonly idsAreUnique: boolean } = { idsAreUnique: true }): void {
  describe(`event store contract: ${name}`, () => {
    let made: Made;
    let store: EventStore;
    beforeEach(async () => {
      made = await make();
      store = made.store;
    });
    afterEach(async () => {
      await store.close();
      await made.dispose();
    });

    describe('append', () => {
      test('says whether ids are unique, and has an id of its own', () => {
        expect(store.idsAreUnique).toBe(idsAreUnique);
        expect(store.storeId).toMatch(/^[0-9a-f-]{36}$/);
      });

      test('appends at no_stream and at the exact revision, and answers the last revision and a position per event', async () => {
        expect(await store.append('s-1', 'no_stream', newEvents(1))).toEqual({ kind: 'appended', revision: 0, positions: [expect.any(String)] });
        expect(await store.append('s-1', 0, newEvents(3))).toEqual({ kind: 'appended', revision: 3, positions: [expect.any(String), expect.any(String), expect.any(String)] });
        expect(await store.append('s-1', 3, newEvents(1))).toMatchObject({ kind: 'appended', revision: 4 });
      });

      test('G1: answers a wrong expectation with the true revision, and writes nothing', async () => {
        await store.append('s-1', 'no_stream', newEvents(3));
        for (const wrong of ['no_stream', 0, 1, 3, 17] satisfies ExpectedRevision[]) {
          expect(await store.append('s-1', wrong, newEvents(2))).toEqual({ kind: 'conflict', revision: 2 });
        }
        expect(await store.append('s-none', 0, newEvents(1))).toEqual({ kind: 'conflict', revision: -1 });
        expect(await store.readStream('s-1', { direction: 'forward', limit: 10 })).toHaveLength(3);
        expect(await store.readStream('s-none', { direction: 'forward', limit: 10 })).toEqual([]);
        expect(await store.append('s-none', 'no_stream', newEvents(1))).toMatchObject({ kind: 'appended', revision: 0 });
      });

      test('an append without events is a fault of the caller', async () => {
        await expect(store.append('s-1', 'no_stream', [])).rejects.toThrow('at least one event');
      });

      test('after close everything is refused with storeClosed', async () => {
        await store.append('s-1', 'no_stream', newEvents(1));
        await store.close();
        await expect(store.append('s-1', 0, newEvents(1))).rejects.toMatchObject({ code: 'storeClosed' });
        await expect(store.head()).rejects.toMatchObject({ code: 'storeClosed' });
        await expect(store.readStream('s-1', { direction: 'forward', limit: 1 })).rejects.toMatchObject({ code: 'storeClosed' });
        await expect(follow(store, {}, untilCaughtUp)).rejects.toMatchObject({ code: 'storeClosed' });
      });

      test('close finishes the appends under way', async () => {
        const results = Array.from({ length: 20 }, (_, index) => store.append(`s-${index}`, 'no_stream', newEvents(1)));
        await store.close();
        expect((await Promise.all(results)).map(({ kind }) => kind)).toEqual(results.map(() => 'appended'));
      });
    });

    if (idsAreUnique) {
      describe('where ids are unique', () => {
        test('G1: an id that its stream holds is answered with its position, whatever was expected', async () => {
          const [old, ...later] = newEvents(40);
          const { positions } = await appended(store.append('s-1', 'no_stream', [old!]));
          await store.append('s-1', 0, later);
          for (const expected of ['no_stream', 0, 39, 77] satisfies ExpectedRevision[]) {
            expect(await store.append('s-1', expected, [old!])).toEqual({ kind: 'duplicate', found: new Map([[old!.id, positions[0]]]) });
          }
        });

        test('G1: an append that holds known ids among new ones is refused whole, and names the known ones', async () => {
          const known = newEvents(2);
          const { positions } = await appended(store.append('s-1', 'no_stream', known));
          const fresh = newEvents(3);
          const mixed = [fresh[0]!, known[1]!, fresh[1]!, known[0]!, fresh[2]!];
          expect(await store.append('s-1', 1, mixed)).toEqual({ kind: 'duplicate', found: new Map([[known[0]!.id, positions[0]], [known[1]!.id, positions[1]]]) });
          expect(idsOf(await store.readStream('s-1', { direction: 'forward', limit: 10 }))).toEqual(idsOf(known));
          expect(await store.append('s-1', 1, fresh)).toMatchObject({ kind: 'appended', revision: 4 });
          expect(idsOf((await follow(store, {}, untilCaughtUp)).events)).toEqual(idsOf([...known, ...fresh]));
        });

        test('the same id twice in one append is a fault of the caller', async () => {
          const [event] = newEvents(1);
          await expect(store.append('s-1', 'no_stream', [event!, event!])).rejects.toThrow('differ');
          expect(await store.head()).toBeNull();
        });

        test('G1: of the same event sent twenty times at once, one is appended', async () => {
          const [event] = newEvents(1);
          const results = await Promise.all(Array.from({ length: 20 }, () => store.append('s-1', 'no_stream', [event!])));
          expect(results.map(({ kind }) => kind).sort()).toEqual(['appended', ...Array.from({ length: 19 }, () => 'duplicate')]);
        });
      });
    } else {
      describe('where ids are not unique (as EventStoreDB 22.10 answers)', () => {
        test('the same ids at the same expected revision are answered as the first time, also after later events', async () => {
          const first = newEvents(2);
          const original = await appended(store.append('s-1', 'no_stream', first));
          await store.append('s-1', 1, newEvents(3));
          const { revision, positions } = original;
          const repeat = await store.append('s-1', 'no_stream', first);
          // Said to be a repeat, where the adapter can tell; in any case with what was answered the first time.
          expect([{ kind: 'appended', revision, positions }, { kind: 'duplicate', found: new Map(first.map(({ id }, index) => [id, positions[index]])) }]).toContainEqual(repeat);
          expect(await store.readStream('s-1', { direction: 'forward', limit: 10 })).toHaveLength(5);
        });

        test('the known one at the end with a new one behind it, at the revision before, is a conflict', async () => {
          const known = newEvents(2);
          await store.append('s-1', 'no_stream', known);
          expect(await store.append('s-1', 0, [known[1]!, newEvent()])).toEqual({ kind: 'conflict', revision: 1 });
        });

        test('a known id at the next free revision is written again', async () => {
          const [known] = newEvents(1);
          await store.append('s-1', 'no_stream', [known!]);
          expect(await store.append('s-1', 0, [known!])).toMatchObject({ kind: 'appended', revision: 1 });
          expect(idsOf(await store.readStream('s-1', { direction: 'forward', limit: 10 }))).toEqual([known!.id, known!.id]);
        });
      });
    }

    describe('many at once', () => {
      test('G2: of 80 appends to one stream at once, tried again at the revision that each was told, all are there once', async () => {
        const mine = newEvents(80);
        let tries = 0;
        const insist = async (event: NewEvent): Promise<void> => {
          let expected: ExpectedRevision = 'no_stream';
          for (;;) {
            tries += 1;
            const result = await store.append('s-1', expected, [event]);
            if (result.kind === 'appended') return;
            if (result.kind === 'duplicate') throw new Error('written twice');
            expected = result.revision < 0 ? 'no_stream' : result.revision;
          }
        };
        await Promise.all(mine.map(insist));
        const stored = await store.readStream('s-1', { direction: 'forward', limit: 1000 });
        expect([...idsOf(stored)].sort()).toEqual([...idsOf(mine)].sort());
        expect(stored.map(({ revision }) => revision)).toEqual(mine.map((_, index) => index));
        expect(tries).toBeGreaterThanOrEqual(80);
      });

      test('200 appends to as many streams at once all succeed, and a conflict among them fails no other', async () => {
        await store.append('s-100', 'no_stream', newEvents(1));
        const results = await Promise.all(Array.from({ length: 200 }, (_, index) => store.append(`s-${index}`, 'no_stream', newEvents(2))));
        expect(results[100]).toEqual({ kind: 'conflict', revision: 0 });
        expect(results.filter(({ kind }) => kind === 'appended')).toHaveLength(199);
        expect(await store.readStream('s-199', { direction: 'forward', limit: 10 })).toHaveLength(2);
      });

      test('G2: appends to one stream issued one behind the other without waiting go in that order', async () => {
        const events = newEvents(50);
        const results = await Promise.all(events.map((event, index) => store.append('s-1', index === 0 ? 'no_stream' : index - 1, [event])));
        expect(results.map(({ kind }) => kind)).toEqual(events.map(() => 'appended'));
        expect(idsOf(await store.readStream('s-1', { direction: 'forward', limit: 100 }))).toEqual(idsOf(events));
      });
    });

    describe('readStream', () => {
      test('gives back what was appended, byte for byte', async () => {
        const events = [
          newEvent({ data: new Uint8Array(), metadata: new Uint8Array() }),
          newEvent({ data: Uint8Array.from({ length: 256 }, (_, byte) => byte), metadata: Uint8Array.of(0, 0, 0) }),
          newEvent({ data: new TextEncoder().encode('{"n":12345678901234567890.10,"n":1e400}'), type: 'ünïcode:\u{1F600}' }),
          newEvent({ data: Buffer.from('cut from a larger buffer').subarray(4, 8), metadata: Buffer.from('{}') }),
          newEvent({ data: Uint8Array.from({ length: 300_000 }, (_, index) => (index * 31) & 0xff) }),
        ];
        await store.append('s-1', 'no_stream', events);
        const stored = await store.readStream('s-1', { direction: 'forward', limit: 10 });
        for (const [index, event] of events.entries()) {
          expect(stored[index]).toMatchObject({ id: event.id, type: event.type, stream: 's-1', revision: index });
          expect(Buffer.compare(stored[index]!.data, event.data)).toBe(0);
          expect(Buffer.compare(stored[index]!.metadata, event.metadata)).toBe(0);
        }
      });

      test('keeps what was appended when the caller writes over its buffer afterwards', async () => {
        const data = Uint8Array.of(1, 2, 3);
        const appending = store.append('s-1', 'no_stream', [newEvent({ data })]);
        await appending;
        data.fill(9);
        const [stored] = await store.readStream('s-1', { direction: 'forward', limit: 1 });
        expect(bytesOf(stored!.data)).toEqual([1, 2, 3]);
      });

      test('reads forward and backward, from a revision, at most so many', async () => {
        await store.append('s-1', 'no_stream', newEvents(10));
        await store.append('s-2', 'no_stream', newEvents(3));
        const revisions = async (direction: 'forward' | 'backward', limit: number, from?: number): Promise<readonly number[]> =>
          (await store.readStream('s-1', { direction, limit, ...(from === undefined ? {} : { from }) })).map(({ revision }) => revision);
        expect(await revisions('forward', 4)).toEqual([0, 1, 2, 3]);
        expect(await revisions('forward', 4, 8)).toEqual([8, 9]);
        expect(await revisions('forward', 4, 10)).toEqual([]);
        expect(await revisions('backward', 4)).toEqual([9, 8, 7, 6]);
        expect(await revisions('backward', 4, 2)).toEqual([2, 1, 0]);
        expect(await revisions('backward', 4, 99)).toEqual([9, 8, 7, 6]);
        expect(await revisions('forward', 100)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
      });

      test('a missing stream is empty, in both directions', async () => {
        expect(await store.readStream('s-none', { direction: 'forward', limit: 10 })).toEqual([]);
        expect(await store.readStream('s-none', { direction: 'backward', limit: 10 })).toEqual([]);
      });

      test('reads a stream of thousands whole', async () => {
        for (let batch = 0; batch < 5; batch += 1) await store.append('s-1', batch === 0 ? 'no_stream' : batch * 500 - 1, newEvents(500));
        const forward = await store.readStream('s-1', { direction: 'forward', limit: 10_000 });
        const backward = await store.readStream('s-1', { direction: 'backward', limit: 10_000 });
        expect(forward.map(({ revision }) => revision)).toEqual(Array.from({ length: 2500 }, (_, index) => index));
        expect(idsOf(backward)).toEqual([...idsOf(forward)].reverse());
      });
    });

    describe('positions', () => {
      test('are of one width and rise from event to event, across streams; the head is the last', async () => {
        expect(await store.head()).toBeNull();
        const positions: Position[] = [];
        for (let index = 0; index < 12; index += 1) {
          positions.push(...(await appended(store.append(`s-${index}`, 'no_stream', newEvents(1 + (index % 3))))).positions);
          expect(await store.head()).toBe(positions.at(-1));
        }
        expect(new Set(positions).size).toBe(positions.length);
        expect([...positions].sort()).toEqual(positions);
        expect(new Set(positions.map(({ length }) => length)).size).toBe(1);
        expect((await follow(store, {}, untilCaughtUp)).events.map(({ position }) => position)).toEqual(positions);
      });

      test('the gap counts the events after a position, where the store can say', async () => {
        const { positions } = await appended(store.append('s-1', 'no_stream', newEvents(5)));
        await store.append('s-2', 'no_stream', newEvents(2));
        const gaps = [await store.gap(null), await store.gap(positions[1]!), await store.gap(await store.head())];
        expect([[7, 5, 0], [null, null, null]]).toContainEqual(gaps);
      });

      test('the gap of an empty store is none', async () => {
        expect([0, null]).toContain(await store.gap(null));
      });

      test('stats grow with what is appended', async () => {
        const before = await store.stats();
        await store.append('s-1', 'no_stream', newEvents(3));
        const after = await store.stats();
        if (before.events !== null) expect(after.events).toBeGreaterThanOrEqual(before.events + 3);
        if (before.streams !== null) expect(after.streams).toBeGreaterThanOrEqual(before.streams + 1);
        expect(after.bytes).toBeGreaterThan(0);
      });
    });

    describe('subscribe', () => {
      test('gives all events from the start in the order of their positions, with what was appended', async () => {
        const sent: NewEvent[] = [];
        for (let index = 0; index < 30; index += 1) {
          const events = newEvents(1 + (index % 4));
          sent.push(...events);
          await store.append(`s-${index % 7}-${Math.floor(index / 7)}`, 'no_stream', events);
        }
        const { events, batches } = await follow(store, { maxBatch: 8 }, untilCaughtUp);
        expect(idsOf(events)).toEqual(idsOf(sent));
        expect(events.map(({ data, metadata }) => [bytesOf(data), bytesOf(metadata)])).toEqual(sent.map(({ data, metadata }) => [bytesOf(data), bytesOf(metadata)]));
        expect(events[0]).toMatchObject({ stream: 's-0-0', revision: 0, type: 'task:connected' });
        expect(Math.max(...batches.map((batch) => batch.events.length))).toBeLessThanOrEqual(8);
        expect(batches.at(-1)).toMatchObject({ position: await store.head(), caughtUp: true });
        for (const batch of batches) expect(batch.events.every(({ position }) => position <= batch.position)).toBe(true);
      });

      test('goes on after a position, without it', async () => {
        const { positions } = await appended(store.append('s-1', 'no_stream', newEvents(10)));
        const { events } = await follow(store, { after: positions[6]! }, untilCaughtUp);
        expect(events.map(({ revision }) => revision)).toEqual([7, 8, 9]);
      });

      test('any batch\'s position is a place to go on from: nothing is missing and nothing comes twice', async () => {
        for (let index = 0; index < 20; index += 1) await store.append(`${index % 3 === 0 ? 'a' : 'b'}-${index}`, 'no_stream', newEvents(3));
        const whole = idsOf((await follow(store, { prefixes: ['a-'] }, untilCaughtUp)).events);
        const parts: string[] = [];
        let after: Position | null = null;
        for (let caughtUp = false; !caughtUp;) {
          const { events, batches } = await follow(store, { after, prefixes: ['a-'], maxBatch: 2 }, () => true);
          parts.push(...idsOf(events));
          after = batches[0]!.position;
          caughtUp = batches[0]!.caughtUp;
        }
        expect(parts).toEqual(whole);
        expect(whole).toHaveLength(21);
      });

      test('lets through the streams that begin with one of the prefixes', async () => {
        const streams = ['identity.a-1', 'workspace-a', 'decisions.a-1', 'erasures.a-log', 'identity.b-1', 'workspace-b', 'other'];
        for (const stream of streams) await store.append(stream, 'no_stream', newEvents(2));
        const seen = async (prefixes: readonly string[]): Promise<readonly string[]> =>
          [...new Set((await follow(store, { prefixes, maxBatch: 3 }, untilCaughtUp)).events.map(({ stream }) => stream))];
        expect(await seen(['workspace-'])).toEqual(['workspace-a', 'workspace-b']);
        expect(await seen(['decisions.', 'erasures.'])).toEqual(['decisions.a-1', 'erasures.a-log']);
        expect(await seen(['identity.'])).toEqual(['identity.a-1', 'identity.b-1']);
        expect(await seen(['identity.b'])).toEqual(['identity.b-1']);
        expect(await seen(['identity.', 'workspace-', 'decisions.', 'erasures.'])).toEqual(streams.slice(0, 6));
        expect(await seen(['none'])).toEqual([]);
        expect(await seen([])).toEqual(streams);
      });

      test('moves the position along behind events that the filter keeps back', async () => {
        await store.append('workspace-a', 'no_stream', newEvents(1));
        for (const prefixes of [['workspace-'], ['identity.']]) {
          let appends = 0;
          const { batches } = await follow(store, { prefixes }, async (_events, batch) => {
            if (batch.position === (await store.head()) && appends === 2) return true;
            if (batch.caughtUp && appends < 2) {
              appends += 1;
              await store.append(`neither-${prefixes[0]!}-${appends}`, 'no_stream', newEvents(2));
            }
            return false;
          });
          expect(batches.at(-1)).toEqual({ events: [], position: await store.head(), caughtUp: true });
        }
      });

      test('tells a reader that has nothing to read that it has caught up', async () => {
        await store.append('s-1', 'no_stream', newEvents(2));
        const head = await store.head();
        const { batches } = await follow(store, { after: head }, untilCaughtUp);
        expect(batches).toEqual([{ events: [], position: head, caughtUp: true }]);
      });

      test('gives what is appended meanwhile, and what comes after it had caught up', async () => {
        const total = 60;
        let sent = 0;
        const more = async (): Promise<void> => {
          sent += 1;
          await store.append(`s-${sent}`, 'no_stream', newEvents(1));
        };
        await more();
        const { events } = await follow(store, { maxBatch: 4 }, async (all, batch) => {
          if (batch.caughtUp && sent < total) await Promise.all([more(), more(), more()]);
          return all.length >= total;
        });
        expect(events.map(({ position }) => position)).toEqual([...events.map(({ position }) => position)].sort());
        expect(new Set(idsOf(events)).size).toBe(events.length);
      });

      test('waits on an empty store for the first event', async () => {
        const reading = follow(store, {}, (events) => events.length > 0);
        const [event] = newEvents(1);
        await store.append('s-1', 'no_stream', [event!]);
        expect(idsOf((await reading).events)).toEqual([event!.id]);
      });

      test('ends when the signal aborts, while it waits as well as before', async () => {
        const abort = new AbortController();
        await store.append('s-1', 'no_stream', newEvents(1));
        let batches = 0;
        for await (const batch of store.subscribe({ after: null, prefixes: [], maxBatch: 10, signal: abort.signal })) {
          batches += 1;
          // It is asked for the next batch before the abort comes: the wait itself must end.
          if (batch.caughtUp) setImmediate(() => abort.abort());
        }
        expect(batches).toBe(1);
        const again = store.subscribe({ after: null, prefixes: [], maxBatch: 10, signal: abort.signal })[Symbol.asyncIterator]();
        expect((await again.next()).done).toBe(true);
      });

      test('two subscribers each get everything', async () => {
        const readers = [follow(store, { maxBatch: 3 }, (events) => events.length >= 40), follow(store, { prefixes: ['a-'] }, (events) => events.length >= 20)];
        for (let index = 0; index < 20; index += 1) await Promise.all([store.append(`a-${index}`, 'no_stream', newEvents(1)), store.append(`b-${index}`, 'no_stream', newEvents(1))]);
        const [all, some] = await Promise.all(readers);
        expect(all!.events).toHaveLength(40);
        expect(some!.events.map(({ stream }) => stream)).toEqual(all!.events.map(({ stream }) => stream).filter((stream) => stream.startsWith('a-')));
      });

      test('reads no further than it is asked: batch by batch', async () => {
        for (let index = 0; index < 10; index += 1) await store.append(`s-${index}`, 'no_stream', newEvents(1));
        const reader = store.subscribe({ after: null, prefixes: [], maxBatch: 4, signal: new AbortController().signal })[Symbol.asyncIterator]();
        const first = (await reader.next()).value as SubscriptionBatch;
        expect(first.events).toHaveLength(4);
        expect(first.caughtUp).toBe(false);
        await reader.return?.();
      });

      test('refuses a position past the head', async () => {
        const { positions } = await appended(store.append('s-1', 'no_stream', newEvents(1)));
        const past = positions[0]!.replace(/^0/, '1') as Position;
        await expect(follow(store, { after: past }, untilCaughtUp)).rejects.toMatchObject({ code: 'positionPastHead' });
      });
    });

    describe('against a model', () => {
      const step = fc.record({
        stream: fc.integer({ min: 0, max: 3 }), count: fc.integer({ min: 1, max: 3 }), off: fc.constantFrom(0, 0, 0, 0, -1, 1, -2), reuse: fc.option(fc.nat({ max: 12 }), { freq: 4 }),
      });
      let runs = 0;

      test('G1: any sequence of appends answers and leaves behind what a plain list does', async () => {
        await fc.assert(fc.asyncProperty(fc.array(step, { maxLength: 25 }), async (steps) => {
          runs += 1;
          const model = new Map<string, NewEvent[]>();
          for (const { stream, count, off, reuse } of steps) {
            const key = `m-${runs}-${stream}`;
            const there = model.get(key) ?? [];
            const events = [...newEvents(count)];
            const known = reuse === null ? undefined : there[reuse];
            if (known !== undefined) events[events.length - 1] = known;
            const expected = there.length - 1 + off;
            const result = await store.append(key, expected < 0 ? 'no_stream' : expected, events);
            const believed = Math.max(expected, -1);
            const same = idsOf(there.slice(believed + 1, believed + 1 + count));
            if (idsAreUnique && known !== undefined) expect(result).toMatchObject({ kind: 'duplicate', found: new Map([[known.id, expect.any(String)]]) });
            else if (!idsAreUnique && believed < there.length - 1 && same.length === count && same.every((id, index) => id === events[index]?.id)) expect(['appended', 'duplicate']).toContain(result.kind);
            else if (believed !== there.length - 1) expect(result).toEqual({ kind: 'conflict', revision: there.length - 1 });
            else {
              expect(result).toMatchObject({ kind: 'appended', revision: there.length - 1 + count });
              model.set(key, [...there, ...events]);
            }
          }
          for (const [key, events] of model) expect(idsOf(await store.readStream(key, { direction: 'forward', limit: 1000 }))).toEqual(idsOf(events));
        }), { numRuns: 25 });
      });

      test('G1: whatever appends run at the same time, each is there whole at its revision or not at all', async () => {
        await fc.assert(fc.asyncProperty(fc.array(fc.array(step, { maxLength: 8 }), { maxLength: 6 }), async (rounds) => {
          runs += 1;
          const key = (stream: number): string => `p-${runs}-${stream}`;
          const ends = [-1, -1, -1, -1];
          const total = [0, 0, 0, 0];
          for (const round of rounds) {
            const before = [...ends];
            await Promise.all(round.map(async ({ stream, count, off }) => {
              const events = newEvents(count);
              const expected = before[stream]! + off;
              const result = await store.append(key(stream), expected < 0 ? 'no_stream' : expected, events);
              if (result.kind === 'duplicate') throw new Error('fresh ids are no duplicates');
              ends[stream] = Math.max(ends[stream]!, result.revision);
              if (result.kind === 'conflict') return;
              total[stream]! += count;
              const stored = await store.readStream(key(stream), { direction: 'forward', from: result.revision - count + 1, limit: count });
              expect(idsOf(stored)).toEqual(idsOf(events));
              expect(stored.map(({ position }) => position)).toEqual(result.positions);
            }));
          }
          for (const [stream, count] of total.entries()) expect(await store.readStream(key(stream), { direction: 'backward', limit: 1000 })).toHaveLength(count);
        }), { numRuns: 15 });
      });
    });
  });
}
