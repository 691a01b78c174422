// What every server that tests run on this machine has in common: whether it can be had here, where it may listen, with what
// certificate, and its life as a process of its own, which can be killed, frozen and started again on the same port and data.
import { type ChildProcess, execFileSync, spawnSync, type SpawnSyncReturns } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, rmSync } from 'node:fs';
import { connect, createServer, type AddressInfo } from 'node:net';
import { join } from 'node:path';
import { ROOT, until } from './serve.ts';

// ---- whether it can be had -------------------------------------------------------------------------------------------

export type ServerName = 'kafka' | 'redis' | 'schemathesis';

/** Why it cannot run here, in one line; null when it can. Installs it when it is missing and can be. */
export function whyAbsent(server: ServerName): string | null {
  const ask = (verb: 'have' | 'install'): SpawnSyncReturns<string> => spawnSync('sh', ['infra/servers.sh', verb, server], { cwd: ROOT, encoding: 'utf8' });
  const have = (): string | null => {
    const { status, stdout } = ask('have');
    return status === 0 ? null : stdout.trim() || 'infra/servers.sh cannot tell';
  };
  if (have() === null) return null;
  const { stderr } = ask('install');
  const why = have();
  return why === null ? null : stderr.trim() || why;
}

/** `describe` where all of them can run; else skipped with the reason in its name, or failing where REQUIRE names one that cannot. */
export function describeOn(servers: readonly ServerName[], name: string, declare: () => void): void {
  const absent = servers.flatMap((server) => {
    const why = whyAbsent(server);
    return why === null ? [] : [{ server, why }];
  });
  const reason = absent.map(({ why }) => why).join('; ');
  const required = absent.filter(({ server }) => (process.env['REQUIRE'] ?? '').split(',').includes(server));
  if (absent.length === 0) describe(name, declare);
  else if (required.length > 0) test(`${name}: REQUIRE names ${required.map(({ server }) => server).join()}`, () => { throw new Error(reason); });
  else describe.skip(`${name} (absent: ${reason})`, declare);
}

// ---- where it listens ------------------------------------------------------------------------------------------------

/** Each of them below 65,536 - `above`, so that a second one `above` it exists. */
export async function freePorts(count: number, above = 0): Promise<readonly number[]> {
  const listeners = await Promise.all(Array.from({ length: count }, async () => {
    const listener = createServer().listen(0, '127.0.0.1');
    await once(listener, 'listening');
    return listener;
  }));
  const ports = listeners.map((listener) => (listener.address() as AddressInfo).port);
  await Promise.all(listeners.map((listener) => new Promise((done) => { listener.close(done); })));
  return ports.every((port) => port + above < 65_536) ? ports : freePorts(count, above);
}

export async function accepts(port: number): Promise<boolean> {
  return new Promise((answer) => {
    const socket = connect({ port, host: '127.0.0.1' });
    socket.once('connect', () => {
      socket.destroy();
      answer(true);
    });
    socket.once('error', () => answer(false));
  });
}

export interface Keys { readonly keyFile: string; readonly caFile: string }

/** `key.pem` and `cert.pem` in the folder: a certificate for this machine that is its own authority. */
export function makeKeys(folder: string): Keys {
  const [keyFile, caFile] = [join(folder, 'key.pem'), join(folder, 'cert.pem')];
  const subject = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1'];
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2', '-keyout', keyFile, '-out', caFile, ...subject], { stdio: 'pipe' });
  return { keyFile, caFile };
}

// ---- its life --------------------------------------------------------------------------------------------------------

export interface LocalServer {
  /** SIGKILL unless another is given; resolves when the process has gone. The data stays. */
  kill(signal?: NodeJS.Signals): Promise<void>;
  /** SIGSTOP: connections stand, nothing is answered. */
  freeze(): void;
  thaw(): void;
  /** On the same port and data; resolves when it answers. */
  restart(): Promise<void>;
  /** Ends it and removes its data. */
  stop(): Promise<void>;
}

interface Program {
  /** Everything that it keeps; removed with it. */
  readonly folder: string;
  /** Starts a process on what stands in the folder. */
  readonly launch: () => ChildProcess;
  /** Resolves when that process answers. */
  readonly answers: (child: ChildProcess) => Promise<void>;
}

/** Starts it and waits until it answers. It ends with whoever started it. */
export async function startLocalServer({ folder, launch, answers }: Program): Promise<LocalServer> {
  let child: ChildProcess | null = null;
  const end = (): void => void child?.kill('SIGKILL');
  const start = async (): Promise<void> => {
    child = launch();
    await answers(child);
  };
  const kill = async (signal: NodeJS.Signals = 'SIGKILL'): Promise<void> => {
    if (child === null || hasEnded(child)) return;
    const gone = once(child, 'exit');
    child.kill(signal);
    // A frozen process takes no other signal before it goes on.
    if (signal !== 'SIGKILL') child.kill('SIGCONT');
    await gone;
  };
  process.on('exit', end);
  await start();
  return {
    kill,
    freeze: () => void child?.kill('SIGSTOP'),
    thaw: () => void child?.kill('SIGCONT'),
    restart: async () => {
      await kill();
      await start();
    },
    stop: async () => {
      process.off('exit', end);
      await kill();
      rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}

/** Waits until a process that listens there answers what is asked of it; fails with the end of its log where it ends instead. */
export async function untilAnswered(what: string, child: ChildProcess, { port, log, withinMs }: { readonly port: number; readonly log: string; readonly withinMs: number }, ask: () => boolean | Promise<boolean>): Promise<void> {
  await until(`${what} answers`, async () => {
    if (hasEnded(child)) throw new Error(`${what} ended: ${readFileSync(log, 'utf8').slice(-2_000)}`);
    return await accepts(port) && await ask();
  }, withinMs);
}

function hasEnded({ exitCode, signalCode }: ChildProcess): boolean { return exitCode !== null || signalCode !== null; }
