// The launcher as a terminal, a supervisor and a kill -9 meet it: signals to its whole process group, the program behind it
// that must not outlive it, and the script that takes servers down.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, mkdirSync, readdirSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { cleanEnvironment, removeFolder, ROOT, temporaryFolder, TEST_KEY, until } from '../support/serve.ts';

interface Launched { readonly child: ChildProcess; readonly pid: number; readonly ended: Promise<number | null>; output(): string }

const launched: Launched[] = [];
const folders: string[] = [];
function newFolder(): string {
  const folder = temporaryFolder();
  folders.push(folder);
  return folder;
}

/** In a process group of its own, as a shell starts what stands on one of its lines. */
function launch(args: readonly string[], env: Readonly<Record<string, string>> = {}): Launched {
  const child = spawn(process.execPath, [join(ROOT, 'infra/throughline.cjs'), ...args], { cwd: ROOT, env: cleanEnvironment({ THROUGHLINE_API_KEY: TEST_KEY, ...env }), stdio: ['ignore', 'pipe', 'pipe'], detached: true });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text: string) => { output += text; });
  // Its output ends when the last process that has it does: the program behind the launcher.
  const ended = once(child, 'close').then(([code]) => code as number | null);
  if (child.pid === undefined) throw new Error('the launcher was not started');
  const one = { child, pid: child.pid, ended, output: () => output };
  launched.push(one);
  return one;
}

function signalGroup({ pid }: Launched, signal: NodeJS.Signals): void {
  try {
    process.kill(-pid, signal);
  } catch (fault) {
    // Nobody is left in it.
    if (!(typeof fault === 'object' && fault !== null && 'code' in fault && fault.code === 'ESRCH')) throw fault;
  }
}

async function served(one: Launched): Promise<string> {
  const address = (): string | undefined => /Throughline serves (http:\/\/127\.0\.0\.1:\d+)/.exec(one.output())?.[1];
  await until('it serves', () => {
    if (one.child.exitCode !== null) throw new Error(`it ended: ${one.output()}`);
    return address() !== undefined;
  }, 60_000);
  return address() ?? '';
}
const serve = (): Launched => launch(['serve', '--data', newFolder(), '--port', '0']);

afterAll(async () => {
  for (const one of launched) signalGroup(one, 'SIGKILL');
  await Promise.all(launched.map(({ ended }) => ended));
  for (const folder of folders) removeFolder(folder);
});

test.each(['SIGINT', 'SIGTERM', 'SIGHUP'] as const)('%s to the whole group, and so twice to the program, drains: exit code 0', async (signal) => {
  const one = serve();
  await served(one);
  signalGroup(one, signal);
  expect([await one.ended, one.output()]).toEqual([0, expect.stringMatching(new RegExp(`"signal":"${signal}","msg":"told to end"[^]*"msg":"all has ended well"`))]);
  expect(one.output()).not.toMatch(/"level":"(warn|error)"/);
});

test('who goes on signalling for more than a second does not wait for a drain: exit code 1', async () => {
  const one = serve();
  const { port } = new URL(await served(one));
  // A request that stalls keeps a drain up for longer.
  const client = connect(Number(port), '127.0.0.1');
  client.on('error', () => undefined);
  await once(client, 'connect');
  client.write(`POST /events HTTP/1.1\r\nHost: localhost\r\nx-api-key: ${TEST_KEY}\r\nContent-Type: application/cloudevents+json\r\nContent-Length: 500\r\n\r\n{"specversion`);
  await fetch(`http://127.0.0.1:${port}/sources`, { headers: { 'x-api-key': TEST_KEY } });
  await until('it has ended', () => {
    signalGroup(one, 'SIGTERM');
    return one.child.exitCode !== null;
  });
  client.destroy();
  expect(await one.ended).toBe(1);
});

test.each([['while it imports', 'Throughline serves '], ['while it serves on', 'until Ctrl-C']])('Ctrl-C at a demo, %s, ends it with 0 and leaves nothing in the temporary folder', async (_, said) => {
  const folder = newFolder();
  const demo = launch(['demo', '--port', '0'], { TMPDIR: folder });
  await until('it has come so far', () => {
    if (demo.child.exitCode !== null) throw new Error(`it ended: ${demo.output()}`);
    return demo.output().includes(said);
  }, 60_000);
  expect(readdirSync(folder)).toEqual([expect.stringMatching(/^throughline-demo-/)]);
  signalGroup(demo, 'SIGINT');
  expect([await demo.ended, readdirSync(folder)]).toEqual([0, []]);
});

test('kill -9 of the launcher ends the program behind it, which drains and frees its port', async () => {
  const one = serve();
  const url = await served(one);
  one.child.kill('SIGKILL');
  expect(await one.ended).toBeNull();
  expect(one.output()).toMatch(/the launcher has gone[^]*"msg":"all has ended well"/);
  await expect(fetch(`${url}/healthz`)).rejects.toThrow('fetch failed');
});

test('make down says so where nothing is up, however often it is said', () => {
  const folder = newFolder();
  mkdirSync(join(folder, 'infra'));
  copyFileSync(join(ROOT, 'infra/stack.sh'), join(folder, 'infra/stack.sh'));
  const down = (): string => execFileSync('sh', ['-c', 'sh infra/stack.sh down 2>&1'], { cwd: folder, encoding: 'utf8' });
  expect(down()).toBe('down: nothing is up\n');
  // What `up` leaves behind for the next time.
  mkdirSync(join(folder, '.cache/servers'), { recursive: true });
  expect([down(), down()]).toEqual(['down: nothing is up\n', 'down: nothing is up\n']);
});
