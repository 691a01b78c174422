// Starts `throughline` as a user does, as a process of its own, and waits for conditions rather than for time.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';

export const ROOT = resolve(import.meta.dirname, '../..');
const MAIN = join(ROOT, 'services/main.ts');

export interface RunResult { readonly code: number | null; readonly stdout: string; readonly stderr: string }

/** The environment without anything that would configure a program under test. */
export function cleanEnvironment(extra: Readonly<Record<string, string>> = {}): Record<string, string> {
  const kept = Object.entries(process.env).filter((entry): entry is [string, string] => entry[1] !== undefined && !entry[0].startsWith('THROUGHLINE_') && entry[0] !== 'NODE_OPTIONS');
  return { ...Object.fromEntries(kept), ...extra };
}

/** Runs a verb to its end. */
export async function throughline(args: readonly string[], options: { env?: Readonly<Record<string, string>>; input?: string | Uint8Array; cwd?: string } = {}): Promise<RunResult> {
  const child = spawn(process.execPath, [MAIN, ...args], { cwd: options.cwd ?? ROOT, env: cleanEnvironment(options.env), stdio: ['pipe', 'pipe', 'pipe'] });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => { stdout += text; });
  child.stderr.setEncoding('utf8').on('data', (text: string) => { stderr += text; });
  child.stdin.on('error', () => undefined);
  child.stdin.end(options.input);
  const [code] = (await once(child, 'close')) as [number | null];
  return { code, stdout, stderr };
}

export interface Served {
  readonly url: string;
  readonly key: string;
  readonly folder: string;
  readonly child: ChildProcess;
  readonly stdout: () => string;
  readonly stderr: () => string;
  /** With the server's key unless another is given; '' sends none. */
  request(path: string, init?: RequestInit & { key?: string }): Promise<Response>;
  /** Waits until both groups have folded everything recorded so far. Writes nothing; the key must be one of the server's. */
  folded(): Promise<void>;
  /** Sends the signal and waits until the process has gone; its exit code. */
  kill(signal: NodeJS.Signals): Promise<number | null>;
}

export function temporaryFolder(): string { return mkdtempSync(join(tmpdir(), 'throughline-test-')); }
export function removeFolder(folder: string): void { rmSync(folder, { recursive: true, force: true, maxRetries: 5 }); }

/** Polls a condition; fails with what it waited for. */
export async function until(what: string, condition: () => boolean | Promise<boolean>, withinMs = 15_000): Promise<void> {
  const deadline = Date.now() + withinMs;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`waited ${withinMs} ms in vain until ${what}`);
    await pause(10);
  }
}

export const TEST_KEY = 'test-key-of-the-default-workspace-0123456789';

/** Starts `serve` on a folder (made when not given) and a free port, and waits until it is ready. Without THROUGHLINE_API_KEY the key is the one that a first start prints. */
export async function serve(options: { folder?: string; args?: readonly string[]; env?: Readonly<Record<string, string>> } = {}): Promise<Served> {
  const folder = options.folder ?? temporaryFolder();
  const env = cleanEnvironment({ THROUGHLINE_API_KEY: TEST_KEY, ...options.env });
  const child = spawn(process.execPath, [MAIN, 'serve', '--data', folder, '--port', '0', ...(options.args ?? [])], { cwd: ROOT, env, stdio: ['ignore', 'pipe', 'pipe'] });
  let stdout = '';
  let stderr = '';
  let exited: number | null | undefined;
  child.stdout.setEncoding('utf8').on('data', (text: string) => { stdout += text; });
  child.stderr.setEncoding('utf8').on('data', (text: string) => { stderr += text; });
  child.on('close', (code) => { exited = code; });
  const address = (): string | undefined => /http:\/\/127\.0\.0\.1:\d+/.exec(stdout)?.[0];
  const alive = (): void => { if (exited !== undefined) throw new Error(`serve ended with ${String(exited)}: ${stdout}${stderr}`); };
  await until('serve prints its address', () => {
    alive();
    return address() !== undefined;
  });
  const url = address() ?? '';
  const key = env['THROUGHLINE_API_KEY'] === '' ? /tl_[\w-]+/.exec(stdout)?.[0] ?? '' : env['THROUGHLINE_API_KEY'] ?? '';
  const request: Served['request'] = (path, { key: given = key, ...rest } = {}) => {
    const headers = new Headers(rest.headers);
    if (!headers.has('x-api-key') && given !== '') headers.set('x-api-key', given);
    return fetch(url + path, { ...rest, headers });
  };
  await until('serve is ready', async () => {
    alive();
    return (await fetch(`${url}/readyz`)).status === 200;
  });
  return {
    url, key, folder, child, request, stdout: () => stdout, stderr: () => stderr,
    folded: () => folded(request),
    kill: async (signal) => {
      if (exited !== undefined) return exited;
      child.kill(signal);
      const [code] = (await once(child, 'close')) as [number | null];
      return code;
    },
  };
}

/** An endpoint that reads both groups answers 412 while either is behind the head; it waits up to 2 s itself, so this loop seldom turns. */
export async function folded(request: Served['request'], withinMs?: number): Promise<void> {
  let sources: Response | undefined;
  // While the views are away this says so, and no head.
  await until('the head is told', async () => (sources = await request('/sources')).status === 200, withinMs);
  const head = sources?.headers.get('throughline-head') ?? null;
  if (head === null) return;
  await until('everything recorded is folded', async () => {
    const { status } = await request('/journeys?identity=nobody@example.com', { headers: { 'throughline-min-position': head } });
    if (![200, 404, 412, 503].includes(status)) throw new Error(`asked for the head, the views answer ${String(status)}`);
    return status < 412;
  }, withinMs);
}

export async function json(response: Response): Promise<Record<string, unknown>> { return (await response.json()) as Record<string, unknown>; }
