// What a real EventStoreDB 22.10 was seen to answer through its driver (environment.md, its last section), row by row. What
// the double gets wrong here, the adapter's other tests prove nothing about. Servers of others are neither killed nor restarted.
import { randomBytes, randomUUID } from 'node:crypto';
import {
  type AppendResult, BACKWARDS, binaryEvent, ErrorType, EventStoreDBClient, MaxAppendSizeExceededError, StreamDeletedError, StreamNotFoundError, streamNameFilter, TimeoutError, UnavailableError,
  WrongExpectedVersionError,
} from '@eventstore/db-client';
import { type EventStoreDouble, type TestEventStore, testEventStore, testEventStoreName } from '../support/eventstoredb/double.ts';

type NewEvent = ReturnType<typeof binaryEvent>;
const event = (bytes = 8): NewEvent => binaryEvent({ id: randomUUID(), type: 'test.said', data: new Uint8Array(bytes), metadata: new Uint8Array(2) });
const events = (count: number): NewEvent[] => Array.from({ length: count }, () => event());

let server: TestEventStore;
let client: EventStoreDBClient;
let stream: string;
beforeAll(async () => { server = await testEventStore(); });
afterAll(() => server.stop());
beforeEach(() => {
  client = EventStoreDBClient.connectionString(server.url);
  stream = `rows${randomBytes(6).toString('hex')}`;
});
afterEach(() => client.dispose());

type Expected = bigint | 'no_stream' | 'any';
const append = (expectedRevision: Expected, added: NewEvent[], to = stream): Promise<AppendResult> => client.appendToStream(to, added, { expectedRevision });
async function ids(from = stream): Promise<string[]> {
  const found: string[] = [];
  for await (const { event: read } of client.readStream(from, { maxCount: 1000 })) if (read !== undefined) found.push(read.id);
  return found;
}
const idsOf = (of: readonly NewEvent[]): string[] => of.map(({ id }) => id);
const refusal = (of: Promise<unknown>): Promise<unknown> => of.then(() => 'none', (fault: unknown) => fault);
/** With the process gone and come back, everything of the client's before it is gone too. */
async function restart(double: EventStoreDouble): Promise<void> {
  await double.restart();
  client = EventStoreDBClient.connectionString(server.url);
}

describe(`what EventStoreDB 22.10 answers: ${testEventStoreName()}`, () => {
  test('the same id again at `any` is the first append again', async () => {
    const [one] = events(1);
    const first = await append('any', [one!]);
    expect(await append('any', [one!])).toEqual(first);
    expect(await ids()).toEqual([one!.id]);
  });

  test('and after a restart it is written again', async () => {
    if (server.double === null) return;
    const [one] = events(1);
    await append('any', [one!]);
    await restart(server.double);
    await append('any', [one!]);
    expect(await ids()).toEqual([one!.id, one!.id]);
  });

  test('at `any`, a known id before a new one is a conflict, and behind a new one it is written again', async () => {
    const [known, fresh, other] = events(3);
    await append('any', [known!]);
    expect(await refusal(append('any', [known!, fresh!]))).toBeInstanceOf(WrongExpectedVersionError);
    await append('any', [other!, known!]);
    expect(await ids()).toEqual(idsOf([known!, other!, known!]));
  });

  test('the same ids at the same expected revision are answered as at first, after later events and a restart as well', async () => {
    const repeated = events(2);
    await append('no_stream', events(1));
    const first = await append(0n, repeated);
    await append(2n, events(3));
    expect(await append(0n, repeated)).toEqual(first);
    if (server.double !== null) await restart(server.double);
    expect(await append(0n, repeated)).toEqual(first);
    expect(await ids()).toHaveLength(6);
  });

  test('the known one at the end with a new one behind it is a conflict, and a known one at the next free revision is written again', async () => {
    const [known, fresh] = events(2);
    await append('no_stream', [known!]);
    expect(await refusal(append('no_stream', [known!, fresh!]))).toBeInstanceOf(WrongExpectedVersionError);
    await append(0n, [known!]);
    expect(await ids()).toEqual(idsOf([known!, known!]));
  });

  test('a conflict tells the true revision', async () => {
    await append('no_stream', events(3));
    expect(await refusal(append('no_stream', events(1)))).toMatchObject({ type: ErrorType.WRONG_EXPECTED_VERSION, actualVersion: 2n });
    expect(await refusal(append(9n, events(1)))).toMatchObject({ actualVersion: 2n });
    expect(await refusal(append(0n, events(1), `${stream}-none`))).toMatchObject({ actualVersion: 'no_stream' });
  });

  test('an append over 1 MiB is refused, and one of 900 KiB is not', async () => {
    expect(await refusal(append('no_stream', [event(1024 * 1024 + 1)]))).toBeInstanceOf(MaxAppendSizeExceededError);
    await append('no_stream', [event(900 * 1024)]);
  });

  test('after a soft delete a stream is missing, takes an append at no_stream, and its revisions go on', async () => {
    await append('no_stream', events(3));
    await client.deleteStream(stream);
    expect(await refusal(ids())).toBeInstanceOf(StreamNotFoundError);
    const [back] = events(1);
    expect(await append('no_stream', [back!])).toMatchObject({ nextExpectedRevision: 3n });
    expect(await ids()).toEqual([back!.id]);
  });

  test('a tombstone turns away every append and read', async () => {
    await append('no_stream', events(1));
    await client.tombstoneStream(stream);
    expect(await refusal(append('any', events(1)))).toBeInstanceOf(StreamDeletedError);
    expect(await refusal(ids())).toBeInstanceOf(StreamDeletedError);
  });

  test('a missing stream is said to be missing', async () => {
    expect(await refusal(ids())).toBeInstanceOf(StreamNotFoundError);
  });

  test('an append answers the position of its last event, and reads give commit and prepare of each', async () => {
    const { position } = await append('no_stream', events(2));
    const seen = [];
    for await (const { event: read } of client.readStream(stream, { maxCount: 2 })) seen.push(read?.position);
    expect(seen[1]).toEqual(position);
    expect(seen[0]!.commit).toBeLessThan(seen[1]!.commit);
    for await (const { event: read } of client.readAll({ direction: BACKWARDS, maxCount: 1 })) expect(read!.position.commit).toBeGreaterThanOrEqual(position!.commit);
  });

  test('a subscription gives what was there and what comes, with checkpoints between, and says nothing of having caught up', async () => {
    await append('no_stream', events(3));
    const checkpoints: bigint[] = [];
    const filter = streamNameFilter({ prefixes: [stream], checkpointInterval: 1, checkpointReached: async (_subscription, { commit }) => { checkpoints.push(commit); } });
    const subscription = client.subscribeToAll({ filter });
    const told: string[] = [];
    subscription.on('caughtUp', () => told.push('caughtUp')).on('fellBehind', () => told.push('fellBehind')).on('error', () => undefined);
    let count = 0;
    for await (const { event: read } of subscription) {
      expect(read!.revision).toBe(BigInt(count));
      count += 1;
      if (count === 3) for (let i = 0; i < 40; i += 1) await append('any', events(2), i === 39 ? stream : `${stream.slice(0, -1)}-beside`);
      if (count === 5) break;
    }
    expect(checkpoints.length).toBeGreaterThan(0);
    if (server.double !== null) expect(told).toEqual([]);
  });

  test('a subscriber slower than the writers is dropped with `timeout`, and reads on when it subscribes again', async () => {
    if (server.double === null) return;
    await append('no_stream', events(1));
    const subscription = client.subscribeToAll({ filter: streamNameFilter({ prefixes: [stream] }) });
    const fault = new Promise<unknown>((resolve) => subscription.on('error', resolve));
    const first = await new Promise<void>((resolve) => subscription.once('data', () => resolve())).then(() => subscription.pause());
    const writer = EventStoreDBClient.connectionString(server.url);
    const { dropped } = await server.double.tell();
    for (let revision = 0n; (await server.double.tell()).dropped === dropped;) {
      const { nextExpectedRevision } = await writer.appendToStream(stream, Array.from({ length: 100 }, () => event(2_000)), { expectedRevision: revision });
      revision = nextExpectedRevision;
    }
    await writer.dispose();
    first.resume();
    expect(await fault).toBeInstanceOf(TimeoutError);
  });

  test('killed with 64 appends in flight, it leaves all of them rejected with `unavailable` at once', async () => {
    if (server.double === null) return;
    await append('no_stream', events(1));
    await server.double.slow(60_000);
    const faults = Array.from({ length: 64 }, (_, i) => refusal(append('any', events(1), `${stream}-${String(i)}`)));
    while ((await server.double.tell()).delayed < 64);
    await server.double.kill();
    for (const fault of await Promise.all(faults)) expect(fault).toBeInstanceOf(UnavailableError);
    await restart(server.double);
  });

  test('killed, it ends a subscription with `unavailable`, which never goes on by itself', async () => {
    if (server.double === null) return;
    await append('no_stream', events(1));
    const subscription = client.subscribeToAll({ filter: streamNameFilter({ prefixes: [stream] }) });
    subscription.on('error', () => undefined);
    const reading = refusal((async () => {
      for await (const { event: read } of subscription) if (read !== undefined) await server.double!.kill();
    })());
    expect(await reading).toBeInstanceOf(UnavailableError);
    await restart(server.double);
  });
});
