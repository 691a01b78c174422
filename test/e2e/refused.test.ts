// What publishers and imports were refused, as `throughline dead-letters` tells it where there is no topic: counts by source
// and code, and hashes by which whoever has the bytes finds them again. Nothing of what was sent is kept.
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { json, removeFolder, type RunResult, serve, type Served, temporaryFolder, throughline, until } from '../support/serve.ts';

const STRUCTURED = 'application/cloudevents+json';
const MARK = 'xyzzymark';
const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex');
const event = (more: Record<string, unknown>): string => JSON.stringify({ specversion: '1.0', id: 'e', source: 'shop', type: 't', identity: `${MARK}@example.com`, identitytype: 'email', ...more });

const NO_ID = Array.from({ length: 7 }, (_, n) => event({ id: undefined, n }));
const NOBODY = event({ identity: undefined, identitytype: undefined });
const FOREIGN = event({ source: 'elsewhere', workspace: 'another' });
const BROKEN = `{"specversion":"1.0","${MARK}`;
const SCALAR = '"seven"';
const LINES = [event({ id: 'good' }), event({ id: '', source: 'crm' }), BROKEN, SCALAR];

interface Refused { readonly refused: number; readonly codes: Record<string, number>; readonly sources: { readonly workspace: string; readonly source: string; readonly lastSeen: string; readonly rejected: Record<string, number>; readonly examples: Record<string, { readonly sha256: string; readonly at: string }[]> }[] }

let server: Served;
const folder = temporaryFolder();
const file = join(folder, 'lines.ndjson');

const list = (...args: readonly string[]): Promise<RunResult> => throughline(['dead-letters', ...args, '--data', server.folder]);
async function told(...args: readonly string[]): Promise<Refused> {
  const { code, stdout, stderr } = await list(...args, '--json');
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  return JSON.parse(stdout) as Refused;
}
const publish = (body: string, type = STRUCTURED): Promise<Response> => server.request('/events', { method: 'POST', headers: { 'content-type': type }, body });
const hashesOf = (found: Refused, source: string, code: string): readonly string[] => (found.sources.find((one) => one.source === source)?.examples[code] ?? []).map((one) => one.sha256);

beforeAll(async () => {
  server = await serve();
  writeFileSync(file, `${LINES.join('\n')}\n`);
}, 60_000);
afterAll(async () => {
  await server.kill('SIGTERM');
  removeFolder(server.folder);
  removeFolder(folder);
});

test('before anything was refused it says so', async () => {
  expect(await list()).toMatchObject({ code: 0, stdout: expect.stringMatching(/^Nothing was refused\./) });
  expect(await told('list')).toEqual({ refused: 0, codes: {}, sources: [] });
});

test('G4: each refusal is counted by its source and code beside a running serve, with the hashes of the last five of different content', async () => {
  for (const body of [...NO_ID, ...NO_ID.slice(0, 1)]) expect((await publish(body)).status).toBe(400);
  expect(await json(await publish(`[ ${NOBODY} ,\n${FOREIGN}, ${event({ id: 'fine' })}]`, 'application/cloudevents-batch+json'))).toMatchObject({ recorded: 1, rejected: 2 });
  await until('the counts are written', async () => (await told()).refused === 10);
  const found = await told('list');
  expect(found.codes).toEqual({ missingAttribute: 8, missingIdentity: 1, wrongWorkspace: 1 });
  expect(found.sources.map(({ workspace, source, rejected }) => [workspace, source, rejected])).toEqual([['default', 'elsewhere', { wrongWorkspace: 1 }], ['default', 'shop', { missingAttribute: 8, missingIdentity: 1 }]]);
  // The first came once more, as the last of all.
  expect(hashesOf(found, 'shop', 'missingAttribute').toSorted()).toEqual([NO_ID[3], NO_ID[4], NO_ID[5], NO_ID[6], NO_ID[0]].map((body) => sha256(body ?? '')).toSorted());
  expect(hashesOf(found, 'shop', 'missingIdentity')).toEqual([sha256(NOBODY)]);
  expect(hashesOf(found, 'elsewhere', 'wrongWorkspace')).toEqual([sha256(FOREIGN)]);
  for (const { at } of found.sources.flatMap(({ examples }) => Object.values(examples).flat())) expect(new Date(at).toISOString()).toBe(at);
});

test('an import into a server and one into a folder: the file of rejected lines has the same hashes', async () => {
  const into = await throughline(['import', file, '--to', server.url], { env: { THROUGHLINE_API_KEY: server.key } });
  expect(into).toMatchObject({ code: 0, stdout: expect.stringContaining('1 recorded, 0 duplicate, 3 rejected') });
  const written = (): Record<string, string> => Object.fromEntries(readFileSync(`${file}.rejected.ndjson`, 'utf8').trimEnd().split('\n').map((line) => JSON.parse(line) as { line: number; sha256: string }).map((one) => [one.line, one.sha256]));
  const lines = { 2: sha256(LINES[1] ?? ''), 3: sha256(BROKEN), 4: sha256(SCALAR) };
  expect(written()).toEqual(lines);
  await until('the counts are written', async () => hashesOf(await told(), 'crm', 'emptyAttribute').length > 0);
  expect(hashesOf(await told(), 'crm', 'emptyAttribute')).toEqual([lines[2]]);

  const data = join(folder, 'data');
  // Other line ends; the white space around a line is no part of it.
  writeFileSync(file, LINES.join('\r\n'));
  expect(await throughline(['import', file, '--data', data])).toMatchObject({ code: 0 });
  expect(written()).toEqual(lines);
  const { stdout } = await throughline(['dead-letters', '--data', data, '--json']);
  const found = JSON.parse(stdout) as Refused;
  expect(found).toMatchObject({ refused: 3, codes: { emptyAttribute: 1, notJson: 1, notAnObject: 1 } });
  expect([hashesOf(found, 'crm', 'emptyAttribute'), hashesOf(found, '(unknown)', 'notJson'), hashesOf(found, '(unknown)', 'notAnObject')]).toEqual([[lines[2]], [lines[3]], [lines[4]]]);
});

test('as tables, and by code or workspace alone', async () => {
  const { code, stdout } = await list();
  expect(code).toBe(0);
  expect(stdout).toMatch(/^workspace +source +code +refused\n-/);
  expect(stdout).toMatch(/\ndefault +shop +missingAttribute +8\n/);
  expect(stdout).toMatch(new RegExp(`\\n\\S+Z +default +elsewhere +wrongWorkspace +${sha256(FOREIGN)}\\n`));
  expect(stdout).toContain('What came from a topic stands in its dead-letter topic (--source).');
  expect(stdout).toContain('FILE.rejected.ndjson');
  expect((await told('--code', 'wrongWorkspace')).codes).toEqual({ wrongWorkspace: 1 });
  expect((await list('--code', 'tooDeep')).stdout).toMatch(/^Nothing was refused as tooDeep\./);
  expect((await told('--workspace', 'default')).refused).toBeGreaterThan(10);
});

test('what is asked wrongly is told, and what needs a topic names it', async () => {
  expect(await list('show', '0/1')).toMatchObject({ code: 2, stderr: expect.stringContaining('--source is missing') });
  expect(await list('--workspace', 'nobody')).toMatchObject({ code: 1, stderr: expect.stringContaining('there is no workspace nobody: there are default') });
  expect(await list('--id', '0/1')).toMatchObject({ code: 2, stderr: expect.stringContaining('name the topic with --source') });
  expect(await throughline(['dead-letters', '--data', join(folder, 'nothing')])).toMatchObject({ code: 1, stderr: expect.stringContaining('holds no events') });
});

test('nothing of what was refused is kept in the folder, and nothing is in the log', async () => {
  // Everything that the refused held besides their source stands in no file of the views.
  const control = ['control.sqlite', 'control.sqlite-wal'].map((name) => readFileSync(join(server.folder, 'views', name)).toString('latin1')).join('');
  expect(control).toContain(sha256(NOBODY));
  expect(control).not.toContain(MARK);
  expect(server.stderr()).not.toContain(MARK);
});
