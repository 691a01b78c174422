// A network between a program and a server, that can be made bad while both run: what a fault test puts in the way. It
// knows nothing of what it carries, but for one thing: a broker tells its clients where it is to be found, and they would
// go there past the proxy; so its address is rewritten on the way (same length: four bytes of port behind the host's name).
import { createServer, connect, type Socket } from 'node:net';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';

/**
 * `pass`: as if it were not there. `delay`: each chunk so many milliseconds after the
 * one before it or after it came, both ways. `mute`: requests
 * arrive and are worked on, replies are swallowed. `refuse`: what is connected is cut, and nobody gets in. `throttle`: so
 * many bytes a second, both ways together.
 */
export type Weather =
  | { readonly kind: 'pass' | 'mute' | 'refuse' }
  | { readonly kind: 'delay'; readonly ms: number }
  | { readonly kind: 'throttle'; readonly bytesPerSecond: number };

export interface Proxy {
  readonly port: number;
  /** From now on, for connections that stand as well. A chunk that was swallowed never comes, so a connection that was muted is cut when the weather clears. */
  set(weather: Weather): void;
  /** Breaks every connection that stands, in the middle of whatever it carries; new ones are let in. */
  cut(): void;
  /** Bytes carried so far, towards the server and back: what a test waits for to know that something is under way. */
  readonly carried: () => { readonly sent: number; readonly answered: number; readonly swallowed: number };
  close(): Promise<void>;
}

interface Pair { readonly client: Socket; readonly server: Socket; muted: boolean }

/** Listens on a free port of 127.0.0.1. `advertised`: the server names its own address in its answers, as a Kafka broker does. */
export async function startProxy(target: { readonly port: number; readonly advertised?: boolean }): Promise<Proxy> {
  const pairs = new Set<Pair>();
  let weather: Weather = { kind: 'pass' };
  const carried = { sent: 0, answered: 0, swallowed: 0 };
  const listener = createServer((client) => {
    if (weather.kind === 'refuse') { client.resetAndDestroy(); return; }
    const pair: Pair = { client, server: connect({ port: target.port, host: '127.0.0.1' }), muted: false };
    pairs.add(pair);
    const end = (): void => { pairs.delete(pair); pair.client.destroy(); pair.server.destroy(); };
    for (const socket of [pair.client, pair.server]) socket.setNoDelay(true).on('error', end).on('close', end);
    void carry(pair.client, pair.server, () => weather, (size) => { carried.sent += size; }).then(end, end);
    const rewrite = target.advertised === true ? addressRewriter(target.port, (listener.address() as AddressInfo).port) : (chunk: Buffer) => chunk;
    void carry(pair.server, pair.client, () => weather, (size) => { carried.answered += size; }, (chunk) => {
      const rewritten = rewrite(chunk);
      if (weather.kind !== 'mute') return rewritten;
      pair.muted = true;
      carried.swallowed += rewritten.length;
      return null;
    }).then(end, end);
  });
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const cut = (which: (pair: Pair) => boolean = () => true): void => {
    for (const pair of [...pairs].filter(which)) { pair.client.resetAndDestroy(); pair.server.destroy(); }
  };
  return {
    port: (listener.address() as AddressInfo).port,
    set: (next) => {
      weather = next;
      if (next.kind === 'refuse') cut();
      else if (next.kind !== 'mute') cut(({ muted }) => muted);
    },
    cut: () => cut(),
    carried: () => ({ ...carried }),
    close: async () => {
      const closed = once(listener, 'close');
      listener.close();
      cut();
      await closed;
    },
  };
}

/** One direction. Chunks wait for each other, so their order stays whatever the weather; a slow reader slows the writer. */
async function carry(from: Socket, to: Socket, weather: () => Weather, count: (size: number) => void, change: (chunk: Buffer) => Buffer | null = (chunk) => chunk): Promise<void> {
  for await (const read of from as AsyncIterable<Buffer>) {
    const now = weather();
    if (now.kind === 'delay') await pause(now.ms);
    if (now.kind === 'throttle') await pause((read.length / now.bytesPerSecond) * 1000);
    const chunk = change(read);
    if (chunk === null || chunk.length === 0) continue;
    count(chunk.length);
    if (!to.write(chunk)) await Promise.race([once(to, 'drain'), once(to, 'close')]);
  }
}

/** Whole answers only (four bytes of length, then so many): an address may be torn apart between two chunks. One of these per connection. */
function addressRewriter(from: number, to: number): (chunk: Buffer) => Buffer {
  const [searched, put] = [from, to].map((port) => {
    const bytes = Buffer.from('127.0.0.1----');
    bytes.writeInt32BE(port, 9);
    return bytes;
  }) as [Buffer, Buffer];
  let kept = Buffer.alloc(0);
  return (chunk) => {
    const all = Buffer.concat([kept, chunk]);
    let end = 0;
    while (end + 4 <= all.length && end + 4 + all.readInt32BE(end) <= all.length) end += 4 + all.readInt32BE(end);
    kept = Buffer.from(all.subarray(end));
    const whole = all.subarray(0, end);
    for (let at = whole.indexOf(searched); at >= 0; at = whole.indexOf(searched, at + searched.length)) put.copy(whole, at);
    return whole;
  };
}

function pause(ms: number): Promise<void> { return new Promise((resolve) => { setTimeout(resolve, ms); }); }
