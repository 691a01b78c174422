// A double of an EventStoreDB 22.10 for tests, and which of the two a test runs against: a real server can be installed
// by nobody here, so the double keeps what one was seen to do (environment.md, its last section).
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { EventStore, Position, RecordedEvent, SubscriptionBatch } from '../../../services/ports.ts';
import { type LocalServer, makeKeys, startLocalServer } from '../local-server.ts';
import type { Order, State } from './server.ts';

/** What was acknowledged is in its file, and so survives its process. */
export interface EventStoreDouble extends LocalServer {
  /** Of the driver: `esdb://127.0.0.1:PORT?tls=false`, or with its account and certificate. */
  readonly url: string;
  readonly port: number;
  /** From now on answers come so many milliseconds later; what they answer is done at once. 0: as it was. */
  slow(ms: number): Promise<void>;
  /** While on, subscriptions get nothing, and everything else is answered. */
  mute(on: boolean): Promise<void>;
  /** What is under way in it, for a test to wait for. */
  tell(): Promise<State>;
  /** Empties it, as if newly installed. */
  wipe(): Promise<void>;
}

/** Each order without its number. */
type Distribute<T> = T extends unknown ? Omit<T, 'number'> : never;

const SERVER = path.join(import.meta.dirname, 'server.ts');

/** `ids`: how many event ids it compares appends at `any` with. `fsync`: to survive the machine as well as the process. `hasty`: it sends a checkpoint ahead of each event, as early servers of the line could. `account`: it speaks TLS,
 *  and takes nobody but this account. */
export async function startEventStoreDouble(options: { readonly ids?: number; readonly fsync?: boolean; readonly hasty?: boolean; readonly account?: { readonly username: string; readonly password: string } } = {}): Promise<EventStoreDouble> {
  const folder = mkdtempSync(path.join(tmpdir(), 'throughline-esdb-'));
  const args = ['--file', path.join(folder, 'log'), ...(options.ids === undefined ? [] : ['--ids', String(options.ids)]), ...(options.fsync === true ? ['--fsync'] : []), ...(options.hasty === true ? ['--hasty'] : [])];
  const { account } = options;
  const keys = account === undefined ? null : makeKeys(folder);
  if (account !== undefined) args.push('--tls', folder, '--account', `${account.username}:${account.password}`);
  let child: ChildProcess;
  // Its own choice at first, the same ever after.
  let port = 0;
  const server = await startLocalServer({
    folder,
    // Its channel to us is its life: when we are gone, however that came, it ends.
    launch: () => (child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', SERVER, ...args, '--port', String(port)], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })),
    answers: async (started) => {
      const failed = once(started, 'exit').then(([code]) => { throw new Error(`the double of an EventStoreDB ended with ${String(code)}`); });
      failed.catch(() => undefined);
      ([{ port }] = (await Promise.race([once(started, 'message'), failed])) as [{ readonly port: number }]);
    },
  });
  let orders = 0;
  const order = async (what: Distribute<Order>): Promise<State> => {
    const number = orders += 1;
    child.send({ ...what, number });
    for (;;) {
      const [answer] = (await once(child, 'message')) as [{ readonly done: number; readonly state: State }];
      if (answer.done === number) return answer.state;
    }
  };
  return {
    ...server, port,
    url: account === undefined || keys === null ? `esdb://127.0.0.1:${String(port)}?tls=false`
      : `esdb://${account.username}:${account.password}@localhost:${String(port)}?tlsCAFile=${encodeURIComponent(keys.caFile)}`,
    slow: async (ms) => { await order({ kind: 'slow', ms }); },
    mute: async (on) => { await order({ kind: 'mute', on }); },
    wipe: async () => { await order({ kind: 'wipe' }); },
    tell: () => order({ kind: 'tell' }),
  };
}

// ---- which server ----------------------------------------------------------------------------------------------------

export interface TestEventStore {
  /** For the name of a suite: which of the two it is. */
  readonly name: string;
  readonly url: string;
  /** Null: a real server, which tests neither kill nor empty. */
  readonly double: EventStoreDouble | null;
  stop(): Promise<void>;
}

/** What `testEventStore` would start, for the names of suites, which are declared before anything starts. */
export function testEventStoreName(): string {
  return realUrl() === null ? 'a double of EventStoreDB 22.10' : 'the EventStoreDB named by THROUGHLINE_TEST_ESDB';
}
function realUrl(): string | null {
  const url = process.env['THROUGHLINE_TEST_ESDB'];
  return url === undefined || url === '' ? null : url;
}

export async function testEventStore(): Promise<TestEventStore> {
  const url = realUrl();
  if (url !== null) return { name: testEventStoreName(), url, double: null, stop: () => Promise.resolve() };
  const double = await startEventStoreDouble();
  return { name: testEventStoreName(), url: double.url, double, stop: () => double.stop() };
}

/**
 * A part of a store that looks like an empty one of its own: stream names begin with `scope`, and what stood before `since`
 * (its head when the part was made) is not there. For a real server, which cannot be emptied between two tests.
 */
export function scoped(store: EventStore, scope: string, since: Position | null): EventStore {
  const bare = (event: RecordedEvent): RecordedEvent => ({ ...event, stream: event.stream.slice(scope.length) });
  async function* subscribe(options: Parameters<EventStore['subscribe']>[0]): AsyncGenerator<SubscriptionBatch, void, undefined> {
    const prefixes = options.prefixes.length === 0 ? [scope] : options.prefixes.map((prefix) => scope + prefix);
    for await (const batch of store.subscribe({ ...options, prefixes, after: options.after ?? since })) {
      // An empty store of its own says nothing before its first event.
      if (batch.position !== since) yield { ...batch, events: batch.events.map(bare) };
    }
  }
  return {
    storeId: store.storeId, idsAreUnique: store.idsAreUnique, subscribe,
    append: (stream, expected, events) => store.append(scope + stream, expected, events),
    readStream: async (stream, options) => (await store.readStream(scope + stream, options)).map(bare),
    head: async () => {
      const head = await store.head();
      return head === since ? null : head;
    },
    gap: (position) => store.gap(position ?? since), stats: () => store.stats(), close: () => store.close(),
  };
}
