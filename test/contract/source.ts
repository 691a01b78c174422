// What every source of deliveries and every topic must do, through the ports alone: sourceContract(name, make) and
// topicContract(name, make) declare the tests for one adapter.
import { randomBytes } from 'node:crypto';
import type { Delivery, DeliveryBatch, Handled, OutgoingRecord, Source, Topic } from '../../services/ports.ts';
import { until } from '../support/serve.ts';

/** A source over a topic of its own, empty at first, in a group of its own that has committed nothing. */
export interface MadeSource {
  /** The topic that the source reads. */
  readonly topic: Topic;
  /** Another consumer of the same group, as another start of the process would be; the suite closes it and has one at a time. */
  open(): Promise<Source>;
  /** The topic is deleted. */
  lose(): Promise<void>;
  dispose(): Promise<void>;
}
export type MakeSource = (options: { readonly partitions: number }) => Promise<MadeSource>;

/** A topic of its own, empty at first. */
export interface MadeTopic { readonly topic: Topic; dispose(): Promise<void> }
export type MakeTopic = (options: { readonly partitions: number }) => Promise<MadeTopic>;

// ---- records -----------------------------------------------------------------------------------------------------------

const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);
/** Bytes that no text could hold, among them what looks like a length or an end. */
const RAW = Uint8Array.of(0, 0xff, 0xc3, 0x28, 0x0a, 0x7f, 0x80, 0);

function record(given: Partial<OutgoingRecord> = {}): OutgoingRecord {
  return { key: null, value: utf8('{}'), headers: {}, ...given };
}
/** Numbered records, all of one partition. */
function numbered(partition: number, count: number, from = 0): readonly OutgoingRecord[] {
  return Array.from({ length: count }, (_, index) => record({ key: utf8(`p${partition}`), value: utf8(`${partition}:${from + index}`), partition }));
}
const textOf = (delivery: Delivery): string => (delivery.value === null ? 'null' : new TextDecoder().decode(delivery.value));

/** A byte array or text of any realm or kind as plain numbers, so that all adapters compare alike. */
function plainBytes(value: string | Uint8Array | null): readonly number[] | null {
  return value === null ? null : [...(typeof value === 'string' ? utf8(value) : value)];
}
function plain(given: { readonly key: Uint8Array | null; readonly value: Uint8Array | null; readonly headers: Delivery['headers'] }): unknown {
  const headers = Object.entries(given.headers).map(([name, value]) => {
    const values = value === undefined ? [] : typeof value === 'string' || value instanceof Uint8Array || !Array.isArray(value) ? [value as string | Uint8Array | null] : value as readonly (string | Uint8Array | null)[];
    return [name, values.map(plainBytes)] as const;
  });
  return { key: plainBytes(given.key), value: plainBytes(given.value), headers: headers.filter(([, values]) => values.length > 0) };
}

/** Structured, binary and broken records, as producers send them; every odd corner of keys, values and headers. */
const CORNERS: readonly OutgoingRecord[] = [
  record({ key: utf8('customer'), value: utf8('{"specversion":"1.0","id":"1","source":"s","type":"t","data":{"n":9007199254740993}}'), headers: { 'content-type': utf8('Application/CloudEvents+json; charset=UTF-8') } }),
  record({ key: utf8('customer'), value: RAW, headers: { ce_specversion: utf8('1.0'), ce_id: utf8('ü 1'), ce_source: 's', ce_type: 't', 'content-type': 'application/octet-stream' } }),
  record({ key: null, value: utf8('no key'), headers: {} }),
  record({ key: RAW, value: null, headers: { ce_type: utf8('a tombstone') } }),
  record({ key: null, value: null, headers: {} }),
  record({ key: new Uint8Array(0), value: new Uint8Array(0), headers: { empty: new Uint8Array(0) } }),
  record({ key: utf8('none'), headers: { none: null, 'content-type': 'text/plain' } }),
  record({ key: utf8('none of several'), headers: { ce_id: [null, RAW, null], empty: new Uint8Array(0) } }),
  record({ key: utf8('twice'), headers: { ce_id: [utf8('first'), RAW, utf8('third')], other: 'x' } }),
  record({ key: utf8('names'), headers: { constructor: 'c', toString: utf8('t'), 'ce_Ünicode': RAW } }),
];

// ---- following ---------------------------------------------------------------------------------------------------------

interface Seen extends Delivery { readonly batch: DeliveryBatch }
type Handle = (batch: DeliveryBatch, seen: readonly Seen[]) => Handled | Promise<Handled>;
const passAll: Handle = (batch) => {
  batch.passed(batch.deliveries.length - 1);
  return { kind: 'done' };
};

/** Follows until `enough` holds after a batch has been handled, with all that was delivered. `seen` is told before `handle` works. */
async function follow(source: Source, enough: (seen: readonly Seen[]) => boolean, handle: Handle = passAll): Promise<readonly Seen[]> {
  const stop = new AbortController();
  const seen: Seen[] = [];
  await source.follow({
    signal: stop.signal,
    handle: async (batch) => {
      seen.push(...batch.deliveries.map((delivery) => ({ ...delivery, batch })));
      const handled = await handle(batch, seen);
      if (enough(seen)) stop.abort();
      return handled;
    },
  });
  return seen;
}
const ofPartition = (seen: readonly Seen[], partition: number): readonly string[] => seen.filter((one) => one.partition === partition).map(textOf);
const offsets = (count: number, from = 0): readonly string[] => Array.from({ length: count }, (_, index) => String(from + index));
function gate(): { readonly opened: Promise<void>; open(): void } {
  const { promise, resolve } = Promise.withResolvers<undefined>();
  return { opened: promise, open: () => resolve(undefined) };
}

export function sourceContract(name: string, make: MakeSource): void {
  describe(`source contract: ${name}`, () => {
    let made: MadeSource;
    let source: Source;
    const start = async (partitions: number): Promise<void> => {
      made = await make({ partitions });
      source = await made.open();
    };
    /** The process goes and comes back. */
    const reopen = async (): Promise<void> => {
      await source.close();
      source = await made.open();
    };
    afterEach(async () => {
      await source.close();
      await made.dispose();
    });

    test('hands records over byte for byte: structured, binary, without key, without value, with headers given twice', async () => {
      await start(1);
      await made.topic.write(CORNERS);
      const seen = await follow(source, (all) => all.length >= CORNERS.length);
      expect(seen.map(plain)).toEqual(CORNERS.map(plain));
      expect(seen.map(({ offset }) => offset)).toEqual(offsets(CORNERS.length));
      for (const one of seen) {
        expect(one).toMatchObject({ topic: made.topic.name, partition: 0 });
        expect(Math.abs(one.timestampMs - Date.now())).toBeLessThan(60_000);
        expect(one.batch).toMatchObject({ topic: made.topic.name, partition: 0 });
      }
    });

    test('G2: hands a partition over in the order of its offsets, none left out, none twice, one batch at a time', async () => {
      await start(3);
      for (let round = 0; round < 3; round += 1) await made.topic.write([0, 1, 2].flatMap((partition) => numbered(partition, 40, round * 40)));
      const underway = new Set<number>();
      let overlapped = false;
      const seen = await follow(source, (all) => all.length >= 360, async (batch, all) => {
        overlapped ||= underway.has(batch.partition);
        underway.add(batch.partition);
        await Promise.resolve();
        underway.delete(batch.partition);
        return passAll(batch, all);
      });
      expect(overlapped).toBe(false);
      for (const partition of [0, 1, 2]) {
        expect(ofPartition(seen, partition)).toEqual(numbered(partition, 120).map(({ value }) => new TextDecoder().decode(value ?? undefined)));
        expect(seen.filter((one) => one.partition === partition).map(({ offset }) => offset)).toEqual(offsets(120));
      }
    });

    test('says how many records stand behind a batch, where it knows', async () => {
      await start(1);
      await made.topic.write(numbered(0, 50));
      const seen = await follow(source, (all) => all.length >= 50);
      for (const { batch } of seen) {
        if (batch.gap !== null) expect(batch.gap).toBe(49 - Number(batch.deliveries.at(-1)!.offset));
      }
    });

    test('goes on where the committed prefix ends, and hands over again what was not passed', async () => {
      await start(1);
      await made.topic.write(numbered(0, 10));
      await follow(source, (all) => all.length > 6, (batch) => {
        const upTo = batch.deliveries.findIndex(({ offset }) => offset === '6');
        batch.passed(upTo === -1 ? batch.deliveries.length - 1 : upTo);
        return upTo === -1 ? { kind: 'done' } : { kind: 'paused', ms: 60_000 };
      });
      await reopen();
      const again = await follow(source, (all) => all.some(({ offset }) => offset === '9'));
      expect(again.map(({ offset }) => offset)).toEqual(['7', '8', '9']);
    });

    test('G1: what no consumer passed is delivered again, however often a consumer is cut off', async () => {
      await start(2);
      await made.topic.write([...numbered(0, 6), ...numbered(1, 6)]);
      for (let time = 0; time < 2; time += 1) {
        const lost = await follow(source, (all) => new Set(all.map(({ partition }) => partition)).size === 2, () => ({ kind: 'paused', ms: 60_000 }));
        expect(ofPartition(lost, 0)[0]).toBe('0:0');
        expect(ofPartition(lost, 1)[0]).toBe('1:0');
        await reopen();
      }
      const seen = await follow(source, (all) => all.length >= 12);
      expect(ofPartition(seen, 0)).toEqual(['0:0', '0:1', '0:2', '0:3', '0:4', '0:5']);
      expect(ofPartition(seen, 1)).toEqual(['1:0', '1:1', '1:2', '1:3', '1:4', '1:5']);
    });

    test('passed only grows: an index below one told before changes nothing', async () => {
      await start(1);
      await made.topic.write(numbered(0, 5));
      await follow(source, (all) => all.length >= 5, (batch, all) => {
        batch.passed(batch.deliveries.length - 1);
        batch.passed(0);
        return passAll(batch, all);
      });
      expect(await source.gaps()).toEqual([{ partition: 0, gap: 0 }]);
    });

    test('a paused partition is handed over again from what was not passed, after its time, and holds no other up', async () => {
      await start(2);
      await made.topic.write([...numbered(0, 5), ...numbered(1, 1)]);
      let pausedAt = 0;
      let again = 0;
      let written = 1;
      const wrote: Promise<void>[] = [];
      const seen = await follow(source, (all) => again > 0 && all.some((one) => textOf(one) === '1:3'), (batch, all) => {
        if (batch.partition === 1) {
          // One more of the other partition for each that came, while the first stands still.
          if (written < 4) wrote.push(made.topic.write(numbered(1, 1, written++)));
          return passAll(batch, all);
        }
        if (pausedAt === 0) {
          pausedAt = performance.now();
          batch.passed(1);
          return { kind: 'paused', ms: 300 };
        }
        again ||= performance.now();
        return passAll(batch, all);
      });
      await Promise.all(wrote);
      expect(again - pausedAt).toBeGreaterThanOrEqual(299);
      const first = seen.find(({ partition }) => partition === 0)!.batch.deliveries.map(textOf);
      expect(ofPartition(seen, 0)).toEqual([...first, ...['0:2', '0:3', '0:4']]);
      expect(ofPartition(seen, 1)).toEqual(['1:0', '1:1', '1:2', '1:3']);
    });

    test('what a batch that is done did not pass is handed over again', async () => {
      await start(1);
      await made.topic.write(numbered(0, 4));
      const seen = await follow(source, (all) => all.at(-1)!.offset === '3' && all.at(-1)!.batch.deliveries.length === 1, (batch) => {
        batch.passed(0);
        return { kind: 'done' };
      });
      expect([...new Set(seen.map(({ batch }) => batch.deliveries[0]!.offset))]).toEqual(['0', '1', '2', '3']);
    });

    test('a batch that takes long holds up no other partition', async () => {
      await start(2);
      await made.topic.write([...numbered(0, 1), ...numbered(1, 1)]);
      const slow = gate();
      const wrote: Promise<void>[] = [];
      const seen = await follow(source, (all) => ofPartition(all, 0).length === 1 && ofPartition(all, 1).length === 3, async (batch, all) => {
        if (batch.partition === 0) {
          await slow.opened;
        } else {
          const count = ofPartition(all, 1).length;
          if (count < 3) wrote.push(made.topic.write(numbered(1, 1, count)));
          else slow.open();
        }
        return passAll(batch, all);
      });
      await Promise.all(wrote);
      expect(ofPartition(seen, 0)).toEqual(['0:0']);
      expect(ofPartition(seen, 1)).toEqual(['1:0', '1:1', '1:2']);
    });

    test('told to stop, it tells the batch under way, waits for it, and commits what that passed', async () => {
      await start(1);
      await made.topic.write(numbered(0, 4));
      const stop = new AbortController();
      const waiting = gate();
      const finish = gate();
      let told = false;
      let over = false;
      const following = source.follow({
        signal: stop.signal,
        handle: async (batch) => {
          batch.signal.addEventListener('abort', () => { told = true; });
          waiting.open();
          await finish.opened;
          batch.passed(2);
          return { kind: 'done' };
        },
      }).then(() => { over = true; });
      await waiting.opened;
      stop.abort();
      await Promise.resolve();
      expect({ told, over }).toEqual({ told: true, over: false });
      finish.open();
      await following;
      await reopen();
      const rest = await follow(source, (all) => all.length > 0);
      expect(rest.map(({ offset }) => offset)).toEqual(['3']);
    });

    test('counts the records behind what the group committed, for every partition', async () => {
      await start(2);
      expect(await source.gaps()).toEqual([{ partition: 0, gap: 0 }, { partition: 1, gap: 0 }]);
      await made.topic.write([...numbered(0, 7), ...numbered(1, 2)]);
      expect(await source.gaps()).toEqual([{ partition: 0, gap: 7 }, { partition: 1, gap: 2 }]);
      await follow(source, (all) => all.length >= 9, (batch, all) => {
        if (batch.partition === 1) return passAll(batch, all);
        batch.passed(Math.min(4, batch.deliveries.length - 1));
        return { kind: 'paused', ms: 60_000 };
      });
      expect(await source.gaps()).toEqual([{ partition: 0, gap: 2 }, { partition: 1, gap: 0 }]);
    });

    test('names the partitions that are its own while it is followed, and no others', async () => {
      await start(2);
      expect(source.assigned()).toEqual([]);
      await made.topic.write([...numbered(0, 1), ...numbered(1, 1)]);
      let during: unknown = null;
      await follow(source, (all) => all.length >= 2, (batch, all) => {
        during = [...source.assigned()].sort((a, b) => a.partition - b.partition);
        return passAll(batch, all);
      });
      expect(during).toEqual([0, 1].map((partition) => ({ topic: made.topic.name, partition })));
      expect(source.assigned()).toEqual([]);
    });

    test('says why a topic that went away cannot be read while it is followed, and nothing when all is well', async () => {
      await start(1);
      expect(source.trouble()).toBeNull();
      await made.topic.write(numbered(0, 1));
      const stop = new AbortController();
      let during: string | null = 'nothing came';
      const following = source.follow({
        signal: stop.signal,
        handle: async (batch) => {
          during = source.trouble();
          return passAll(batch, []);
        },
      });
      following.catch(() => undefined);
      await until('a batch was handed over', () => during !== 'nothing came');
      expect(during).toBeNull();
      await made.lose();
      await until('it says that there is trouble', () => source.trouble() !== null);
      expect(source.trouble()).toMatch(/^the topic cannot be read.*: there is no such topic/);
      stop.abort();
      await following;
      expect(source.trouble()).toBeNull();
    });

    test('G4: a handle that throws ends the following with its error, and nothing that it did not pass is lost', async () => {
      await start(1);
      await made.topic.write(numbered(0, 3));
      const broken = new Error('the handle is broken');
      await expect(follow(source, () => false, (batch) => {
        batch.passed(0);
        throw broken;
      })).rejects.toBe(broken);
      await reopen();
      const seen = await follow(source, (all) => all.some(({ offset }) => offset === '2'));
      expect(seen.map(({ offset }) => offset)).toEqual(['1', '2']);
    });

    test('can be followed again after it was stopped, and not at all when the signal stands aborted', async () => {
      await start(1);
      await made.topic.write(numbered(0, 2));
      await source.follow({ signal: AbortSignal.abort(), handle: () => Promise.reject(new Error('handed over')) });
      await follow(source, (all) => all.length >= 2);
      await made.topic.write(numbered(0, 2, 2));
      expect((await follow(source, (all) => all.length >= 2)).map(textOf)).toEqual(['0:2', '0:3']);
    });
  });
}

export function topicContract(name: string, make: MakeTopic): void {
  describe(`topic contract: ${name}`, () => {
    let made: MadeTopic;
    let topic: Topic;
    const start = async (partitions: number): Promise<void> => {
      made = await make({ partitions });
      topic = made.topic;
    };
    afterEach(async () => {
      await topic.close();
      await made.dispose();
    });
    const readAll = async (): Promise<readonly Delivery[]> => {
      const all: Delivery[] = [];
      for await (const deliveries of topic.read({ signal: new AbortController().signal })) all.push(...deliveries);
      return all;
    };

    test('takes a record as large as it says', async () => {
      await start(1);
      const { recordBytes } = (await topic.look())!;
      expect(recordBytes).toBeGreaterThan(1_040_000);
      // As nothing compresses it.
      const value = new Uint8Array(randomBytes(recordBytes - 50));
      await topic.write([record({ key: new Uint8Array(32), value, headers: { 'content-type': utf8('x') } })]);
      expect((await readAll()).map((one) => Buffer.compare(one.value!, value))).toEqual([0]);
    });

    test('an empty topic reads as nothing, and writing nothing is nothing', async () => {
      await start(3);
      await topic.write([]);
      expect(await readAll()).toEqual([]);
    });

    test('reads back byte for byte what was written', async () => {
      await start(1);
      await topic.write(CORNERS);
      const all = await readAll();
      expect(all.map(plain)).toEqual(CORNERS.map(plain));
      expect(all.map(({ offset }) => offset)).toEqual(offsets(CORNERS.length));
      expect(all.every((one) => one.topic === topic.name && one.partition === 0)).toBe(true);
    });

    test('writes to the partition that is named; without one, a key always has the same', async () => {
      await start(4);
      await topic.write([0, 1, 2, 3].flatMap((partition) => numbered(partition, 3)));
      for (let round = 0; round < 3; round += 1) await topic.write(['a', 'b', 'c', 'd', 'e'].map((key) => record({ key: utf8(key), value: utf8(`key ${key}`) })));
      const all = await readAll();
      for (const partition of [0, 1, 2, 3]) {
        expect(all.filter((one) => one.partition === partition && !textOf(one).startsWith('key')).map(textOf)).toEqual([0, 1, 2].map((index) => `${partition}:${index}`));
      }
      for (const key of ['a', 'b', 'c', 'd', 'e']) {
        const partitions = all.filter((one) => textOf(one) === `key ${key}`).map(({ partition }) => partition);
        expect(partitions).toHaveLength(3);
        expect(new Set(partitions).size).toBe(1);
      }
    });

    test('G4: a record for a partition that the topic does not have is written all the same, where its key says', async () => {
      await start(2);
      await topic.write([record({ key: utf8('a'), value: utf8('by key') }), record({ key: utf8('a'), value: utf8('named'), partition: 7 }), record({ value: utf8('no key'), partition: 7 })]);
      const all = await readAll();
      expect(all.map(textOf).sort()).toEqual(['by key', 'named', 'no key']);
      expect(all.find((one) => textOf(one) === 'named')!.partition).toBe(all.find((one) => textOf(one) === 'by key')!.partition);
    });

    test('G2: keeps the order per partition over writes of any size', async () => {
      await start(2);
      // 3 MB: more than one request or one reading holds.
      const large = Array.from({ length: 600 }, (_, index) => record({ key: utf8('k'), value: utf8(`${index} ${'x'.repeat(5_000)}`), partition: index % 2 }));
      await topic.write(large);
      await topic.write(numbered(0, 5));
      const all = await readAll();
      const numbersOf = (partition: number): readonly number[] => all.filter((one) => one.partition === partition && !textOf(one).includes(':')).map((one) => Number.parseInt(textOf(one), 10));
      expect(numbersOf(0)).toEqual(Array.from({ length: 300 }, (_, index) => index * 2));
      expect(numbersOf(1)).toEqual(Array.from({ length: 300 }, (_, index) => index * 2 + 1));
      expect(all.filter((one) => textOf(one).startsWith('0:')).map(textOf)).toEqual(['0:0', '0:1', '0:2', '0:3', '0:4']);
    });

    test('reads to the heads as they were when it began', async () => {
      await start(1);
      await topic.write(numbered(0, 3));
      let all = 0;
      for await (const deliveries of topic.read({ signal: new AbortController().signal })) {
        all += deliveries.length;
        // A reader that writes what it reads would never end.
        await topic.write(numbered(0, deliveries.length, 100));
      }
      expect(all).toBe(3);
      expect(await readAll()).toHaveLength(6);
    });

    test('an aborted reading ends, without an error', async () => {
      await start(2);
      await topic.write([...numbered(0, 3), ...numbered(1, 3)]);
      const stop = new AbortController();
      let batches = 0;
      for await (const deliveries of topic.read({ signal: stop.signal })) {
        expect(deliveries.length).toBeGreaterThan(0);
        batches += 1;
        stop.abort();
      }
      expect(batches).toBe(1);
      for await (const deliveries of topic.read({ signal: stop.signal })) expect(deliveries).toBe('nothing is read');
    });
  });
}
