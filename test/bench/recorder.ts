// A way to Redis that keeps what is said on it: a TCP proxy that passes every byte on and writes down each whole command,
// in the order in which they came in over all connections. What was written down can be said again to another Redis.
import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';

export interface Recorder {
  readonly port: number;
  /** Cuts what is connected, and resolves when the file is whole. */
  close(): Promise<void>;
}

export async function startRecorder(target: number, file: string): Promise<Recorder> {
  const out = createWriteStream(file);
  const sockets = new Set<Socket>();
  const listener = createServer((client) => {
    const server = connect({ port: target, host: '127.0.0.1' });
    const end = (): void => { client.destroy(); server.destroy(); };
    for (const socket of [client, server]) {
      sockets.add(socket);
      socket.setNoDelay(true).on('error', end).on('close', end);
    }
    const commands = commandCutter((command) => void out.write(command));
    client.on('data', commands);
    client.pipe(server);
    server.pipe(client);
  });
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  return {
    port: (listener.address() as AddressInfo).port,
    close: async () => {
      listener.close();
      for (const socket of sockets) socket.destroy();
      out.end();
      await once(out, 'close');
    },
  };
}

/** Takes one connection's chunks and gives whole commands. */
function commandCutter(give: (command: Buffer) => void): (chunk: Buffer) => void {
  let kept: Buffer[] = [];
  return (chunk) => {
    kept.push(chunk);
    const all = kept.length === 1 ? chunk : Buffer.concat(kept);
    let at = 0;
    for (let end = commandEnd(all, at); end !== null; end = commandEnd(all, at)) {
      give(all.subarray(at, end));
      at = end;
    }
    kept = at === all.length ? [] : [all.subarray(at)];
  };
}

/** `*2\r\n$3\r\nGET\r\n$1\r\na\r\n`: the number behind the sign at `at`, and where the next line begins; null when it is not all there. */
function numberAt(bytes: Buffer, at: number): { readonly number: number; readonly next: number } | null {
  const end = bytes.indexOf('\r\n', at);
  return end < 0 ? null : { number: Number(bytes.toString('latin1', at + 1, end)), next: end + 2 };
}

function commandEnd(bytes: Buffer, from: number): number | null {
  const head = numberAt(bytes, from);
  if (head === null) return null;
  let at = head.next;
  for (let i = 0; i < head.number; i += 1) {
    const length = numberAt(bytes, at);
    if (length === null) return null;
    at = length.next + length.number + 2;
  }
  return at <= bytes.length ? at : null;
}

/** The commands of a recording, each as its words; views into the bytes. */
export function* readCommands(bytes: Buffer): Generator<readonly Buffer[]> {
  for (let at = 0; at < bytes.length;) {
    const head = numberAt(bytes, at);
    if (head === null) throw new Error('the recording breaks off');
    at = head.next;
    const words: Buffer[] = [];
    for (let i = 0; i < head.number; i += 1) {
      const length = numberAt(bytes, at);
      if (length === null) throw new Error('the recording breaks off');
      words.push(bytes.subarray(length.next, length.next + length.number));
      at = length.next + length.number + 2;
    }
    yield words;
  }
}
