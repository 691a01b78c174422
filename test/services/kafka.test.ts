// What only Kafka has, on a real broker: membership, rebalances, a broker that goes and comes back, transactions, TLS and
// SASL. What every source must do is test/contract/source.ts.
import { jest } from '@jest/globals';
import { execFile, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { promisify } from 'node:util';
import fc from 'fast-check';
import kafkajs from 'kafkajs';
import { MAX_BATCH_BYTES, lz4, snappy } from '../../services/adapters/kafka-compression.ts';
import { saidOf } from '../../services/adapters/kafka-findings.ts';
import { type KafkaPlace, type KafkaTimes, containTimerFault, ensureKafkaTopic, examineKafka, openKafkaSource, openKafkaTopic } from '../../services/adapters/kafka.ts';
import type { Delivery, DeliveryBatch, Finding, Handled, OutgoingRecord, Source, Topic } from '../../services/ports.ts';
import { type Broker, placeOf, SECURE_USER, startBroker } from '../support/broker.ts';
import { describeOn } from '../support/local-server.ts';
import { ROOT, until } from '../support/serve.ts';

const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);
const textOf = ({ value }: Pick<Delivery, 'value'>): string => (value === null ? 'null' : new TextDecoder().decode(value));
const numbered = (partition: number, count: number, from = 0): readonly OutgoingRecord[] => Array.from({ length: count }, (_, index) => ({ key: null, value: utf8(`${partition}:${from + index}`), headers: {}, partition }));
const pass = (batch: DeliveryBatch): Handled => {
  batch.passed(batch.deliveries.length - 1);
  return { kind: 'done' };
};

const warnings: string[] = [];
const onWarning = ({ name }: Error): void => void warnings.push(name);
beforeAll(() => void process.on('warning', onWarning));
afterAll(() => void process.off('warning', onWarning));

describe('the timer of kafkajs\'s request queue', () => {
  interface Entry { readonly correlationId: number; readonly apiKey: number; readonly apiName: string; readonly apiVersion: number; resolve(answer: unknown): void; reject(error: Error): void }
  interface Queue {
    throttledUntil: number;
    scheduleRequestTimeoutCheck(): void;
    push(request: { entry: Entry; expectResponse: boolean; sendRequest(): void }): void;
    fulfillRequest(response: { correlationId: number; payload: unknown; size: number }): void;
    destroy(): void;
  }
  const silent = (): void => undefined;
  const logger = { debug: silent, info: silent, warn: silent, error: silent };
  const queueOf = (requestTimeout: number): Queue => {
    containTimerFault();
    // Twice is as once.
    containTimerFault();
    const RequestQueue = createRequire(import.meta.url)('kafkajs/src/network/requestQueue') as new (options: object) => Queue;
    return new RequestQueue({ maxInFlightRequests: null, requestTimeout, enforceRequestTimeout: true, clientId: 'test', broker: 'test', logger });
  };
  const push = (queue: Queue, correlationId: number): { readonly sent: () => boolean; readonly answer: Promise<unknown> } => {
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    promise.catch(silent);
    let sent = false;
    queue.push({ entry: { correlationId, apiKey: 18, apiName: 'ApiVersions', apiVersion: 2, resolve, reject }, expectResponse: true, sendRequest: () => { sent = true; } });
    return { sent: () => sent, answer: promise };
  };
  beforeEach(() => void jest.useFakeTimers());
  afterEach(() => void jest.useRealTimers());

  test('an idle connection sets no timer: none is left after an answer', async () => {
    const queue = queueOf(1_000);
    for (let id = 0; id < 10; id += 1) {
      const { answer } = push(queue, id);
      queue.fulfillRequest({ correlationId: id, payload: null, size: 0 });
      await answer;
      expect(jest.getTimerCount()).toBe(0);
    }
  });

  test('what waits because the broker asked for a pause is sent when that is over, by one timer', () => {
    const queue = queueOf(1_000);
    queue.throttledUntil = Date.now() + 500;
    const requests = [push(queue, 1), push(queue, 2)];
    expect(jest.getTimerCount()).toBe(1);
    jest.advanceTimersByTime(499);
    expect(requests.map(({ sent }) => sent())).toEqual([false, false]);
    jest.advanceTimersByTime(2);
    expect(requests.map(({ sent }) => sent())).toEqual([true, true]);
    expect(jest.getTimerCount()).toBe(0);
  });

  test('a request without an answer still times out', async () => {
    const queue = queueOf(1_000);
    queue.scheduleRequestTimeoutCheck();
    const { answer } = push(queue, 1);
    jest.advanceTimersByTime(1_200);
    await expect(answer).rejects.toThrow('timed out');
    queue.destroy();
    expect(jest.getTimerCount()).toBe(0);
  });
});

describe('compressed batches', () => {
  test('snappy, bare and framed as the Java library does: literals of every length, copies near and far', () => {
    // A literal of 3, a copy of 5 from 3 back that overlaps itself, a literal of 61 with its length in a byte, a copy of 4 with two bytes of offset.
    const long = Buffer.from('x'.repeat(60) + 'y');
    const block = Buffer.concat([Buffer.from([3 + 5 + 61 + 4]), Buffer.from([2 << 2]), Buffer.from('abc'), Buffer.from([0b001_001_01 & 0b000_111_11 | 1, 3]), Buffer.from([60 << 2, 60]), long, Buffer.from([(3 << 2) | 2, 69, 0])]);
    const text = `abcabcab${long.toString()}abca`;
    expect(snappy(block).toString()).toBe(text);
    const length = Buffer.alloc(4);
    length.writeUInt32BE(block.length);
    expect(snappy(Buffer.concat([Buffer.from([0x82]), Buffer.from('SNAPPY\0'), Buffer.alloc(8), length, block, length, block])).toString()).toBe(text + text);
  });

  test('bytes that are none end in an error that is not tried again, never in a hang or in more memory than is allowed', () => {
    const frame = Buffer.from([0x04, 0x22, 0x4d, 0x18, 0x40, 0x40, 0xc0]);
    fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      for (const decode of [() => snappy(Buffer.from(bytes)), () => lz4(Buffer.concat([frame, Buffer.from([bytes.length, 0, 0, 0]), bytes, Buffer.alloc(4)])), () => lz4(Buffer.from(bytes))]) {
        try {
          expect(decode().length).toBeLessThanOrEqual(MAX_BATCH_BYTES);
        } catch (error) {
          expect(error).toMatchObject({ name: 'Undecodable', retriable: false });
        }
      }
    }), { numRuns: 300 });
    // One byte repeated a thousand million times.
    const bomb = Buffer.concat([Buffer.from([0x1f, 0x61, 1, 0]), Buffer.alloc(4_000_000, 255), Buffer.from([0])]);
    const size = Buffer.alloc(4);
    size.writeUInt32LE(bomb.length);
    expect(() => lz4(Buffer.concat([frame, size, bomb, Buffer.alloc(4)]))).toThrow('more than');
  });
});

describe('without a broker', () => {
  const nowhere = placeOf({ url: '127.0.0.1:1' });
  const told = { onNotice: (): void => undefined };

  test('following ends with sourceUnavailable when the brokers stay away, writing and asking at once', async () => {
    const source = await openKafkaSource(nowhere, told, { awayMs: 1_000 });
    const topic = await openKafkaTopic(nowhere, 'events');
    await Promise.all([
      expect(source.follow({ signal: new AbortController().signal, handle: async (batch) => pass(batch) })).rejects.toMatchObject({ code: 'sourceUnavailable', retriable: true }),
      expect(source.gaps()).rejects.toMatchObject({ code: 'sourceUnavailable' }),
      expect(topic.write(numbered(0, 1))).rejects.toMatchObject({ code: 'sourceUnavailable' }),
      expect(topic.read({ signal: new AbortController().signal })[Symbol.asyncIterator]().next()).rejects.toMatchObject({ code: 'sourceUnavailable' }),
      expect(ensureKafkaTopic(nowhere, 'x', 1)).rejects.toMatchObject({ code: 'sourceUnavailable' }),
      expect(examineKafka(nowhere)).resolves.toEqual([expect.objectContaining({ what: 'reachable', level: 'bad', advice: expect.stringContaining('address') })]),
    ]);
    await Promise.all([source.close(), topic.close()]);
  });

  test('brokers that are away are named, not the topic that was to be made', async () => {
    await expect(ensureKafkaTopic(nowhere, 'events.dead-letter', 'as source')).rejects.toMatchObject({ message: 'kafka: the broker 127.0.0.1:1 cannot be reached (connect ECONNREFUSED 127.0.0.1:1)' });
    // A name with several addresses, none of which answers: Node has no message then.
    expect(saidOf({ name: 'KafkaJSConnectionError', message: 'Connection error: ', broker: 'kafka:9092', code: 'ECONNREFUSED' })).toBe('the broker kafka:9092 cannot be reached (ECONNREFUSED)');
  });

  test('a source says that its topic cannot be read, since when and why', async () => {
    const notices: { readonly message: string; readonly fields: Record<string, unknown> }[] = [];
    const source = await openKafkaSource(nowhere, { onNotice: (message, fields) => void notices.push({ message, fields }) });
    const stop = new AbortController();
    const following = source.follow({ signal: stop.signal, handle: async (batch) => pass(batch) });
    await until('the trouble is told', () => source.trouble() !== null);
    expect(source.trouble()).toMatch(/^the topic cannot be read since \d+ s: the broker 127\.0\.0\.1:1 cannot be reached \(connect ECONNREFUSED 127\.0\.0\.1:1\)$/);
    expect(notices).toContainEqual({ message: 'kafka: the consumer ended and is begun again', fields: { topic: 'events', error: expect.stringContaining('ECONNREFUSED'), waitMs: expect.any(Number) } });
    stop.abort();
    await following;
    await source.close();
  });

  test('a file of the TLS settings that cannot be read is said by its name', async () => {
    const place = { ...nowhere, tls: { caFile: '/nowhere/ca.pem', certFile: null, keyFile: null, verify: true } };
    await expect(openKafkaSource(place, told)).rejects.toMatchObject({ code: 'fileUnreadable', message: expect.stringContaining('/nowhere/ca.pem') });
    expect(await examineKafka(place)).toEqual([expect.objectContaining({ level: 'bad', found: expect.stringContaining('/nowhere/ca.pem') })]);
  });
});

describeOn(['kafka'], 'Kafka', () => {
  let broker: Broker;
  beforeAll(async () => { broker = await startBroker({ secure: true }); }, 180_000);
  afterAll(() => broker.stop());

  const opened: (Source | Topic)[] = [];
  let notices: { readonly message: string; readonly fields: Record<string, unknown> }[] = [];
  afterEach(async () => {
    await Promise.all(opened.splice(0).map((one) => one.close()));
    notices = [];
    expect(warnings.filter((name) => name === 'TimeoutNegativeWarning')).toEqual([]);
  });
  async function made(partitions: number, given: Partial<KafkaPlace> = {}): Promise<{ readonly place: KafkaPlace; readonly topic: Topic }> {
    const place = placeOf(broker, { topic: `events-${randomBytes(6).toString('hex')}`, group: `group-${randomBytes(6).toString('hex')}`, ...given });
    await broker.createTopic(place.topic, partitions);
    const topic = await openKafkaTopic(place, place.topic);
    opened.push(topic);
    return { place, topic };
  }
  async function sourceOf(place: KafkaPlace, times: KafkaTimes = {}): Promise<Source> {
    const source = await openKafkaSource(place, { onNotice: (message, fields) => void notices.push({ message, fields }) }, times);
    opened.push(source);
    return source;
  }
  /** A consumer that runs beside the test until it is stopped. */
  function followed(source: Source, handle: (batch: DeliveryBatch) => Handled | Promise<Handled> = pass): { readonly seen: Delivery[]; readonly batches: DeliveryBatch[]; stop(): Promise<void>; readonly ended: Promise<void> } {
    const stop = new AbortController();
    const seen: Delivery[] = [];
    const batches: DeliveryBatch[] = [];
    const ended = source.follow({
      signal: stop.signal,
      handle: async (batch) => {
        batches.push(batch);
        seen.push(...batch.deliveries);
        return handle(batch);
      },
    });
    ended.catch(() => undefined);
    return { seen, batches, ended, stop: () => { stop.abort(); return ended; } };
  }
  /** A session that a busy machine's pauses do not outlast, and one that is over soon. */
  const BRISK: KafkaTimes = { sessionMs: 2_000, heartbeatMs: 200, holdMs: 100 };
  const SHORT: KafkaTimes = { sessionMs: 500, heartbeatMs: 150, holdMs: 100 };
  const partitionsOf = (batches: readonly { readonly partition: number }[]): readonly number[] => [...new Set(batches.map(({ partition }) => partition))].sort();

  describe('membership', () => {
    test('a handle that works longer than the session keeps its partition, and its offsets are taken', async () => {
      const { place, topic } = await made(1);
      await topic.write(numbered(0, 3));
      const started = performance.now();
      const one = followed(await sourceOf(place, BRISK), async (batch) => {
        if (batch.deliveries[0]!.offset === '0') await until('more than a session has gone by', () => performance.now() - started > 2_500);
        expect(batch.signal.aborted).toBe(false);
        return pass(batch);
      });
      await until('the batch is handled', async () => (await (await sourceOf(place)).gaps())[0]!.gap === 0);
      await topic.write(numbered(0, 1, 3));
      await until('the next one came', () => one.seen.length === 4);
      await one.stop();
      expect(one.seen.map(({ offset }) => offset)).toEqual(['0', '1', '2', '3']);
    });

    test('G1: a rebalance tells the batch under way, hands partitions over, and gives them back when the other leaves', async () => {
      const { place, topic } = await made(2);
      await topic.write([...numbered(0, 2), ...numbered(1, 2)]);
      let told = 0;
      const first = followed(await sourceOf(place, BRISK), async (batch) => {
        // The first of each is passed, and then it waits until it is told that the partition may go.
        if (told < 2) {
          batch.passed(0);
          await until('the signal', () => batch.signal.aborted);
          told += 1;
          return { kind: 'paused', ms: 0 };
        }
        return pass(batch);
      });
      await until('both are under way', () => first.batches.length === 2);
      const second = followed(await sourceOf(place, BRISK));
      await until('each has one and nothing is behind', async () => second.seen.length > 0 && (await (await sourceOf(place)).gaps()).every(({ gap }) => gap === 0));
      expect(told).toBe(2);
      expect(partitionsOf(second.batches)).toHaveLength(1);
      const theirs = second.batches[0]!.partition;
      // What was passed before the partition went is seen again only where its commit was overtaken by the handing over.
      expect(second.seen.map(({ offset }) => offset).filter((offset) => offset !== '0')).toEqual(['1']);
      await second.stop();
      await topic.write([...numbered(0, 1, 2), ...numbered(1, 1, 2)]);
      await until('the first has both again', () => [0, 1].every((partition) => first.seen.some((one) => textOf(one) === `${partition}:2`)));
      expect(first.batches.filter(({ partition }) => partition === theirs).length).toBeGreaterThan(1);
      await first.stop();
      // Members come and go: nothing that an operator need know.
      expect(notices.filter(({ message, fields }) => /rebalancing/.test(`${message} ${String(fields['error'])}`))).toEqual([]);
    });

    test('a member that is killed is taken over within ten seconds, as it is deployed', async () => {
      const { place, topic } = await made(2);
      const script = `
        const { openKafkaSource } = await import(${JSON.stringify(join(ROOT, 'services/adapters/kafka.ts'))});
        const source = await openKafkaSource(${JSON.stringify(place)}, { onNotice: () => undefined });
        await source.follow({ signal: new AbortController().signal, handle: async (batch) => { console.log(batch.partition); batch.passed(batch.deliveries.length - 1); return { kind: 'done' }; } });`;
      const child = spawn(process.execPath, ['--input-type=module', '--eval', script], { cwd: ROOT, stdio: ['ignore', 'pipe', 'inherit'] });
      let theirs = '';
      child.stdout.setEncoding('utf8').on('data', (text: string) => { theirs += text; });
      try {
        const one = followed(await sourceOf(place));
        await until('each has one', async () => {
          await topic.write([...numbered(0, 1), ...numbered(1, 1)]);
          return theirs !== '' && partitionsOf(one.batches.slice(-1)).length === 1 && one.batches.at(-1)!.partition !== Number(theirs.trim().at(-1));
        }, 30_000);
        const lost = Number(theirs.trim().at(-1));
        child.kill('SIGKILL');
        const killedMs = performance.now();
        await topic.write([{ key: null, value: utf8('after'), headers: {}, partition: lost }]);
        await until('the other has it', () => one.seen.some((delivery) => textOf(delivery) === 'after'), 30_000);
        expect(performance.now() - killedMs).toBeLessThan(10_000);
        await one.stop();
      } finally {
        child.kill('SIGKILL');
      }
    });

    test('G1: a member that was frozen past its session learns it, tells its batch, and its records come again', async () => {
      const { place, topic } = await made(1);
      await topic.write(numbered(0, 2));
      const one = followed(await sourceOf(place, SHORT), async (batch) => {
        if (one.batches.length > 1) return pass(batch);
        // Nothing of this process runs, as under SIGSTOP.
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1_500);
        await until('the signal', () => batch.signal.aborted);
        return pass(batch);
      });
      await until('the records came again', () => one.seen.length >= 4);
      expect(one.seen.slice(0, 4).map(({ offset }) => offset)).toEqual(['0', '1', '0', '1']);
      await one.stop();
      expect((await (await sourceOf(place)).gaps())[0]!.gap).toBe(0);
    });
  });

  describe('the broker', () => {
    test('G1: killed and started again, a consumer goes on, in order, and nothing is left out', async () => {
      const { place, topic } = await made(2);
      await topic.write([...numbered(0, 3), ...numbered(1, 3)]);
      const source = await sourceOf(place, SHORT);
      const one = followed(source);
      await until('all came', () => one.seen.length === 6);
      expect(source.trouble()).toBeNull();
      await broker.kill();
      try {
        // Which one was asked, or that there is none.
        await until('it is told', () => /since \d+ s: .* be reached/.test(source.trouble() ?? ''));
      } finally {
        await broker.restart();
      }
      await topic.write([...numbered(0, 2, 3), ...numbered(1, 2, 3)]);
      await until('the rest came', () => [0, 1].every((partition) => one.seen.some((each) => textOf(each) === `${partition}:4`)));
      expect(source.trouble()).toBeNull();
      await one.stop();
      for (const partition of [0, 1]) {
        const came = one.seen.filter((each) => each.partition === partition).map(textOf);
        expect([...new Set(came)]).toEqual([0, 1, 2, 3, 4].map((index) => `${partition}:${index}`));
      }
      expect(notices.length).toBeGreaterThan(0);
    });

    test('frozen, it is noticed: following ends with sourceUnavailable, within its bound', async () => {
      const { place, topic } = await made(1);
      await topic.write(numbered(0, 1));
      const one = followed(await sourceOf(place, { hangMs: 1_000, stopMs: 100 }));
      await until('it follows', () => one.seen.length === 1);
      broker.freeze();
      try {
        await expect(one.ended).rejects.toMatchObject({ code: 'sourceUnavailable', message: expect.stringContaining('hangs') });
      } finally {
        broker.thaw();
      }
    });

    test('a topic that is not there ends it, and says so', async () => {
      const source = await sourceOf(placeOf(broker, { topic: 'misspelt' }), { awayMs: 500 });
      await expect(source.follow({ signal: new AbortController().signal, handle: async (batch) => pass(batch) })).rejects.toMatchObject({ code: 'sourceUnavailable', message: expect.stringContaining('no such topic') });
    });
  });

  describe('what stands on a topic', () => {
    const client = (): kafkajs.Kafka => new kafkajs.Kafka({ clientId: 'test', brokers: [broker.url], logLevel: kafkajs.logLevel.NOTHING });

    test('transactions: aborted records are not seen, their marks hold nothing up, and no group is left behind by reading', async () => {
      const { place, topic } = await made(1);
      const kafka = client();
      const producer = kafka.producer({ transactionalId: place.topic, maxInFlightRequests: 1, idempotent: true, createPartitioner: kafkajs.Partitioners.DefaultPartitioner });
      await producer.connect();
      for (const [value, commit] of [['one', true], ['lost', false], ['two', true], ['lost too', false]] as const) {
        const transaction = await producer.transaction();
        await transaction.send({ topic: place.topic, messages: [{ value }] });
        await (commit ? transaction.commit() : transaction.abort());
      }
      await producer.disconnect();
      const admin = kafka.admin();
      await admin.connect();
      const groups = (await admin.listGroups()).groups.map(({ groupId }) => groupId);
      const read: string[] = [];
      for await (const deliveries of topic.read({ signal: new AbortController().signal })) read.push(...deliveries.map(textOf));
      expect(read).toEqual(['one', 'two']);
      expect((await admin.listGroups()).groups.map(({ groupId }) => groupId)).toEqual(groups);
      await admin.disconnect();
      const source = await sourceOf(place);
      const one = followed(source);
      await until('nothing is behind', async () => (await source.gaps())[0]!.gap === 0);
      await one.stop();
      expect(one.seen.map(textOf)).toEqual(['one', 'two']);
    });

    test.each(['gzip', 'snappy', 'lz4', 'zstd'])('what stands compressed with %s is read', async (type) => {
      const { place, topic } = await made(1);
      const admin = client().admin();
      await admin.connect();
      // The broker compresses anew what comes otherwise.
      await admin.alterConfigs({ validateOnly: false, resources: [{ type: kafkajs.ConfigResourceTypes.TOPIC, name: place.topic, configEntries: [{ name: 'compression.type', value: type }] }] });
      await admin.disconnect();
      const values = [...Array.from({ length: 300 }, (_, index) => utf8(`{"n":${index},"text":"${'the same again '.repeat(index % 60)}"}`)), randomBytes(100_000), new Uint8Array(200_000), new Uint8Array(0)];
      await topic.write(values.map((value) => ({ key: null, value, headers: {} })));
      const read: Delivery[] = [];
      for await (const deliveries of topic.read({ signal: new AbortController().signal })) read.push(...deliveries);
      expect(read.length).toBe(values.length);
      expect(values.every((value, index) => Buffer.compare(value, read[index]!.value!) === 0)).toBe(true);
    });

    test('a topic that was told to take more takes more, and one that is not there is none', async () => {
      const { place, topic } = await made(1);
      const admin = client().admin();
      await admin.connect();
      await admin.alterConfigs({ validateOnly: false, resources: [{ type: kafkajs.ConfigResourceTypes.TOPIC, name: place.topic, configEntries: [{ name: 'max.message.bytes', value: '3000000' }] }] });
      await admin.disconnect();
      const { recordBytes } = (await topic.look())!;
      expect(recordBytes).toBeGreaterThan(2_990_000);
      const value = randomBytes(recordBytes);
      await topic.write([{ key: null, value, headers: {} }]);
      const read: Delivery[] = [];
      for await (const deliveries of topic.read({ signal: new AbortController().signal })) read.push(...deliveries);
      expect(Buffer.compare(read[0]!.value!, value)).toBe(0);
      const absent = await openKafkaTopic(place, 'misspelt');
      opened.push(absent);
      expect(await absent.look()).toBeNull();
    });

    test('what retention takes away while it is read is stepped over', async () => {
      const { place, topic } = await made(1);
      await topic.write(Array.from({ length: 30 }, () => ({ key: null, value: randomBytes(100_000), headers: {} })));
      const admin = client().admin();
      await admin.connect();
      // kafkajs deletes only in topics that it has been asked of.
      await admin.fetchTopicOffsets(place.topic);
      const read: string[] = [];
      for await (const deliveries of topic.read({ signal: new AbortController().signal })) {
        if (read.length === 0) await admin.deleteTopicRecords({ topic: place.topic, partitions: [{ partition: 0, offset: '25' }] });
        read.push(...deliveries.map(({ offset }) => offset));
      }
      await admin.disconnect();
      expect(read.slice(-5)).toEqual(['25', '26', '27', '28', '29']);
      expect(read.length).toBeLessThan(30);
    });

    test('a group whose place retention took away goes on with the first record kept, and says so', async () => {
      const { place, topic } = await made(1);
      await topic.write(numbered(0, 10));
      const before = followed(await sourceOf(place), (batch) => {
        batch.passed(2);
        return { kind: 'paused', ms: 60_000 };
      });
      await until('some came', () => before.seen.length > 0);
      await before.stop();
      const admin = client().admin();
      await admin.connect();
      await admin.fetchTopicOffsets(place.topic);
      await admin.deleteTopicRecords({ topic: place.topic, partitions: [{ partition: 0, offset: '6' }] });
      await admin.disconnect();
      const source = await sourceOf(place);
      expect(await source.gaps()).toEqual([{ partition: 0, gap: 4 }]);
      const after = followed(source);
      await until('the rest came', async () => (await source.gaps())[0]!.gap === 0);
      await after.stop();
      expect(after.seen.map(({ offset }) => offset)).toEqual(['6', '7', '8', '9']);
      expect(notices.some(({ message }) => message.includes('out of range'))).toBe(true);
    });

    test('a batch is bounded in bytes, however much stands on the topic', async () => {
      const { place, topic } = await made(1);
      await topic.write(Array.from({ length: 40 }, () => ({ key: null, value: randomBytes(100_000), headers: {} })));
      const one = followed(await sourceOf(place));
      await until('all came', () => one.seen.length === 40);
      await one.stop();
      expect(Math.max(...one.batches.map(({ deliveries }) => deliveries.length))).toBeLessThanOrEqual(11);
    });
  });

  describe('making and examining', () => {
    const found = (findings: readonly Finding[], what: string): Finding | undefined => findings.find((finding) => finding.what.startsWith(what));

    test('makes the dead-letter topic as the source is, once, however many ask', async () => {
      const { place } = await made(3);
      const name = `${place.topic}.dead-letter`;
      await Promise.all([ensureKafkaTopic(place, name, 'as source'), ensureKafkaTopic(place, name, 'as source')]);
      await ensureKafkaTopic(place, name, 'as source');
      const findings = await examineKafka(place);
      expect(found(findings, `topic ${name}`)).toMatchObject({ level: 'ok', found: expect.stringContaining('3 partitions') });
      expect(findings.filter(({ level }) => level === 'bad')).toEqual([]);
      expect(found(findings, `max.message.bytes of ${name}`)).toBeUndefined();
      expect(found(findings, `retention of ${name}`)).toMatchObject({ level: 'ok', found: '2160 h' });
    });

    test('make up makes both topics so that there is nothing to say against them but that one broker keeps them', async () => {
      const topic = `made-up-${randomBytes(4).toString('hex')}`;
      for (let time = 0; time < 2; time += 1) await promisify(execFile)(process.execPath, [join(ROOT, 'infra/topics.cjs'), broker.url, topic]);
      const findings = await examineKafka(placeOf(broker, { topic }));
      expect(found(findings, `topic ${topic}.dead-letter`)).toMatchObject({ level: 'ok', found: expect.stringContaining('12 partitions') });
      expect(findings.filter(({ what, level }) => level !== 'ok' && !what.startsWith('replicas of ')).map(({ what }) => what)).toEqual([]);
    });

    test('says what an operator should know, with advice for all that is not well', async () => {
      const { place } = await made(2);
      const findings = await examineKafka(place);
      expect(found(findings, 'reachable')).toMatchObject({ level: 'ok', found: '1 broker' });
      expect(found(findings, 'version')).toMatchObject({ level: 'ok', found: expect.stringContaining('Kafka 4.0 or later') });
      expect(found(findings, `topic ${place.topic}.dead-letter`)).toMatchObject({ level: 'warn', found: 'missing' });
      expect(found(findings, `replicas of ${place.topic}`)).toMatchObject({ level: 'warn' });
      expect(found(findings, `retention of ${place.topic}`)).toMatchObject({ level: 'ok', found: '168 h' });
      for (const { level, advice } of findings) expect(advice === null).toBe(level === 'ok');
      expect(found(await examineKafka({ ...place, topic: 'misspelt' }), 'topic misspelt')).toMatchObject({ level: 'bad', found: 'missing' });
    });
  });

  describe('TLS and SASL', () => {
    const secured = (given: Partial<NonNullable<KafkaPlace['sasl']>> = {}): Partial<KafkaPlace> => ({
      brokers: [broker.secure!.url], tls: { caFile: broker.secure!.caFile, certFile: null, keyFile: null, verify: true }, sasl: { mechanism: 'plain', ...SECURE_USER, ...given },
    });

    test.each(['plain', 'scram-sha-256', 'scram-sha-512'] as const)('%s over TLS: writes, reads and follows', async (mechanism) => {
      const { place, topic } = await made(1, secured({ mechanism }));
      await topic.write(numbered(0, 2));
      const read: string[] = [];
      for await (const deliveries of topic.read({ signal: new AbortController().signal })) read.push(...deliveries.map(textOf));
      expect(read).toEqual(['0:0', '0:1']);
      const one = followed(await sourceOf(place));
      await until('both came', () => one.seen.length === 2);
      await one.stop();
      expect(found(await examineKafka(place))).toBe('ok');
    });
    const found = (findings: readonly Finding[]): string | undefined => findings.find(({ what }) => what === 'reachable')?.level;

    test('a login at a listener that takes none is said, and not tried again', async () => {
      const { place } = await made(1);
      const asked: KafkaPlace = { ...place, sasl: { mechanism: 'plain', ...SECURE_USER } };
      const refused = { code: 'badConfiguration', retriable: false, message: expect.stringContaining('the broker wants no login here') };
      await expect((await sourceOf(asked)).follow({ signal: new AbortController().signal, handle: async (batch) => pass(batch) })).rejects.toMatchObject(refused);
      await expect(ensureKafkaTopic(asked, `${place.topic}.dead-letter`, 'as source')).rejects.toMatchObject(refused);
      expect(await examineKafka(asked)).toEqual([expect.objectContaining({ what: 'credentials', level: 'bad', found: expect.stringContaining('no login') })]);
    });

    test('wrong credentials and an unknown authority end it at once, and no secret is told', async () => {
      const { place } = await made(1, secured());
      const wrong = { ...place, ...secured({ password: 'another-secret' }) };
      const unknown = { ...place, tls: { caFile: null, certFile: null, keyFile: null, verify: true } };
      const follow = async (at: KafkaPlace): Promise<unknown> => (await sourceOf(at)).follow({ signal: new AbortController().signal, handle: async (batch) => pass(batch) }).catch((error: unknown) => error);
      const [refused, unsigned] = await Promise.all([follow(wrong), follow(unknown)]);
      expect(refused).toMatchObject({ code: 'sourceUnavailable', message: expect.stringContaining('credentials') });
      expect(unsigned).toMatchObject({ code: 'sourceUnavailable', message: expect.stringMatching(/certificate/) });
      expect(await examineKafka(wrong)).toEqual([expect.objectContaining({ what: 'credentials', level: 'bad' })]);
      expect(await examineKafka(unknown)).toEqual([expect.objectContaining({ what: 'certificate', level: 'bad' })]);
      expect(found(await examineKafka({ ...unknown, tls: { ...unknown.tls, verify: false } }))).toBe('ok');
      expect(JSON.stringify([notices, String(refused), String(unsigned)])).not.toMatch(/another-secret|a-secret-of-tests/);
      expect(notices.length).toBeGreaterThan(0);
    });
  });
});
