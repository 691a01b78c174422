// HTTP/1.1 byte by byte: a client that sends what no client library would, and tells what came back. One request at a time.
import { connect, type Socket } from 'node:net';
import { once } from 'node:events';

export interface Sent {
  readonly method: string;
  readonly target: string;
  readonly headers: readonly (readonly [name: string, value: string | Uint8Array])[];
  readonly body: Uint8Array;
  /** The body in chunks, its length not told. */
  readonly chunked: boolean;
  /** Whether the server can tell where it ends. Where it cannot, the connection is the request's own, is ended behind it, and may be closed unanswered. */
  readonly framed: boolean;
}

export interface Answer { readonly status: number; readonly headers: ReadonlyMap<string, string>; readonly body: Buffer }

/** One that is not answered for so long hangs. */
const ANSWER_MS = 30_000;

export class Wire {
  readonly #port: number;
  #socket: Socket | null = null;

  constructor(port: number) { this.#port = port; }

  /** Null: the connection was closed without an answer. */
  async send(sent: Sent): Promise<Answer | null> {
    if (!sent.framed) this.close();
    const socket = this.#socket ?? await this.#open();
    const answered = readAnswer(socket, sent.method);
    socket.write(bytesOf(sent));
    if (!sent.framed) socket.end();
    const answer = await answered;
    if (!sent.framed || answer === null || answer.headers.get('connection') === 'close' || socket.destroyed) this.close();
    return answer;
  }

  close(): void {
    this.#socket?.destroy();
    this.#socket = null;
  }

  async #open(): Promise<Socket> {
    const socket = connect({ port: this.#port, host: '127.0.0.1', noDelay: true, allowHalfOpen: true });
    // Whoever reads the answer hears of it.
    socket.on('error', () => undefined);
    await once(socket, 'connect');
    return (this.#socket = socket);
  }
}

function bytesOf({ method, target, headers, body, chunked, framed }: Sent): Buffer {
  const length = body.length === 0 && !chunked ? [] : [chunked ? ['Transfer-Encoding', 'chunked'] as const : ['Content-Length', String(body.length)] as const];
  const lines = [['Host', 'fuzz'] as const, ...headers, ...(framed ? length : [])].flatMap(([name, value]) => [Buffer.from(`${name}: `), Buffer.from(value), CRLF]);
  const parts = [Buffer.from(`${method} ${target} HTTP/1.1`), CRLF, ...lines, CRLF];
  if (!chunked) return Buffer.concat([...parts, body]);
  const half = Math.ceil(body.length / 2);
  const pieces = [body.subarray(0, half), body.subarray(half)].filter((piece) => piece.length > 0);
  return Buffer.concat([...parts, ...pieces.flatMap((piece) => [Buffer.from(piece.length.toString(16)), CRLF, piece, CRLF]), Buffer.from('0'), CRLF, CRLF]);
}
const CRLF = Buffer.from('\r\n');

function readAnswer(socket: Socket, method: string): Promise<Answer | null> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer | null>();
  const chunks: Buffer[] = [];
  let [size, needed] = [0, 0];
  const deadline = setTimeout(() => { finish(() => reject(new Error(`no answer within ${String(ANSWER_MS)} ms`))); }, ANSWER_MS);
  const take = (chunk: Buffer): void => {
    chunks.push(chunk);
    if ((size += chunk.length) < needed) return;
    const parsed = parse(Buffer.concat(chunks), method);
    if (parsed.kind === 'more') { needed = parsed.bytes; return; }
    finish(() => resolve(parsed.answer));
  };
  const ended = (): void => finish(() => resolve(null));
  const finish = (settle: () => void): void => {
    clearTimeout(deadline);
    socket.off('data', take).off('close', ended).off('end', ended);
    settle();
  };
  socket.on('data', take).on('close', ended).on('end', ended);
  return promise;
}

type Parsed = { readonly kind: 'more'; readonly bytes: number } | { readonly kind: 'whole'; readonly answer: Answer };

/** Our answers tell their length, but for those that have no body. */
function parse(bytes: Buffer, method: string): Parsed {
  const end = bytes.indexOf('\r\n\r\n');
  if (end < 0) return { kind: 'more', bytes: 0 };
  const [first = '', ...lines] = bytes.subarray(0, end).toString('latin1').split('\r\n');
  const status = Number(/^HTTP\/1\.1 (\d{3}) /.exec(first)?.[1]);
  // `100 Continue` comes before the answer.
  if (status === 100) return parse(bytes.subarray(end + 4), method);
  const headers = new Map(lines.map((line) => [line.slice(0, line.indexOf(':')).toLowerCase(), line.slice(line.indexOf(':') + 1).trim()]));
  const length = method === 'HEAD' || status === 204 ? 0 : Number(headers.get('content-length') ?? Number.NaN);
  if (!Number.isInteger(length)) throw new Error(`an answer of no length: ${first}`);
  const whole = end + 4 + length;
  return bytes.length < whole ? { kind: 'more', bytes: whole } : { kind: 'whole', answer: { status, headers, body: bytes.subarray(end + 4, whole) } };
}
