// The command line, as an operator has it: real processes, real folders, what they print and how they end. One `serve` is
// started for the first time here, with a secret but no key of ours; a second folder is filled without any server.
import { once } from 'node:events';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { instant, who } from '../fixtures/example-day.story.ts';
import { json, removeFolder, ROOT, type RunResult, serve, type Served, temporaryFolder, TEST_KEY, throughline, until } from '../support/serve.ts';

const DAY = join(ROOT, 'test/fixtures/example-day.ndjson');
/** Sets the names that identities have: two folders under one secret can be compared. */
const SECRET = '5e'.repeat(32);
const SEARCH = '/cidp/journey/api/v1/journeys/search';

interface Group { readonly group: string; readonly generation: number | null; readonly gap: number | null; readonly lag: number; readonly digest: string | null; readonly documents: number }
interface Status {
  readonly store: string; readonly head: string; readonly events: number; readonly streams: number; readonly groups: readonly Group[];
  readonly workspaces: readonly { readonly id: string; readonly name: string; readonly keys: number; readonly recorded: number; readonly duplicates: number; readonly reusedIds: number; readonly rejected: Readonly<Record<string, number>> }[];
  readonly disk: { readonly events: number; readonly views: number; readonly free: number };
}

const parse = ({ stdout, stderr }: RunResult): unknown => {
  try {
    return JSON.parse(stdout);
  } catch {
    throw new Error(`no JSON: ${stdout}${stderr}`);
  }
};
const readStatus = async (folder: string): Promise<Status> => parse(await throughline(['status', '--data', folder, '--json'])) as Status;
const digestsOf = ({ groups }: Status): readonly unknown[] => groups.map(({ group, digest, documents }) => [group, digest, documents]);

/** Deterministic: where each line goes is a function of the line. */
function shuffled(lines: readonly string[]): readonly string[] {
  const place = (line: string): number => {
    let hash = 0x811c9dc5;
    for (const letter of line) hash = Math.imul(hash ^ letter.charCodeAt(0), 0x01000193);
    return hash >>> 0;
  };
  return [...lines].sort((a, b) => place(a) - place(b));
}

let files: string;
let server: Served;
let beside: { readonly folder: string; readonly imported: RunResult };
let first: RunResult;
let second: RunResult;
/** As it stood when the day, and nothing else, had been folded. */
let afterTheDay: Status;

/** How the second folder's `serve` ended; it takes seconds, in which other tests go on. */
let stalled: Promise<{ readonly code: number | null; readonly ms: number; readonly log: string }>;

/** Sends half a request and leaves it there, then tells the server to end. */
async function endWithStalledClient(ending: Served): Promise<{ readonly code: number | null; readonly ms: number; readonly log: string }> {
  const client = connect(Number(new URL(ending.url).port), '127.0.0.1');
  client.on('error', () => undefined);
  await once(client, 'connect');
  client.write(`POST /events HTTP/1.1\r\nHost: localhost\r\nx-api-key: ${ending.key}\r\nContent-Type: application/cloudevents+json\r\nContent-Length: 500\r\n\r\n{"specversion`);
  // A second connection is answered after the first was taken.
  await ending.request('/sources');
  const started = Date.now();
  const code = await ending.kill('SIGTERM');
  client.destroy();
  return { code, ms: Date.now() - started, log: ending.stderr() };
}

const inFiles = (name: string): string => join(files, name);
const withKey = (key = server.key): { env: Record<string, string>; cwd: string } => ({ env: { THROUGHLINE_API_KEY: key }, cwd: files });
const importTo = (file: string, ...more: readonly string[]): Promise<RunResult> => throughline(['import', file, '--to', server.url, ...more], withKey());

beforeAll(async () => {
  files = temporaryFolder();
  writeFileSync(inFiles('shuffled.ndjson'), shuffled(readFileSync(DAY, 'utf8').trimEnd().split('\n')).join('\n'));
  const folder = join(files, 'no/such/folder/yet');
  const env = { THROUGHLINE_API_KEY: TEST_KEY, THROUGHLINE_WORKSPACE_SECRET: SECRET };
  const [started, imported] = await Promise.all([
    serve({ env: { THROUGHLINE_API_KEY: '', THROUGHLINE_WORKSPACE_SECRET: SECRET } }),
    throughline(['import', inFiles('shuffled.ndjson'), '--data', folder, '--json'], { env }),
  ]);
  server = started;
  beside = { folder, imported };
  first = await importTo(DAY, '--json');
  await server.folded();
  [afterTheDay, second] = await Promise.all([readStatus(server.folder), importTo(DAY)]);
}, 180_000);

afterAll(async () => {
  await Promise.all([server.kill('SIGTERM'), stalled]);
  removeFolder(server.folder);
  removeFolder(files);
});

// ---- starting ----------------------------------------------------------------------------------------------------------

describe('a first start', () => {
  test('prints the key of the workspace that it makes, once, and serves whoever has it', async () => {
    const printed = server.stdout();
    expect(printed.match(/tl_[\w-]{40,}/g)).toEqual([server.key]);
    expect(printed).toMatch(/shown this once/);
    expect(server.stderr()).not.toContain(server.key);
    expect((await server.request('/sources')).status).toBe(200);
    expect((await server.request('/sources', { key: TEST_KEY })).status).toBe(401);
  });

  test('a second serve on the folder is refused with the reason, and so is an import into it', async () => {
    const [again, imported] = await Promise.all([
      throughline(['serve', '--data', server.folder, '--port', '0'], withKey()),
      throughline(['import', DAY, '--data', server.folder], withKey()),
    ]);
    for (const { code, stdout, stderr } of [again, imported]) {
      expect(code).toBe(1);
      expect(stdout).not.toMatch(/serves|[1-9]\d* recorded/);
      expect(stderr).toContain(`${server.folder} is held by process ${String(server.child.pid)}`);
      expect(stderr).not.toMatch(/\n\s+at /);
    }
    expect((await server.request('/sources')).status).toBe(200);
  });
});

describe('what is asked wrongly', () => {
  const CASES: readonly (readonly [args: readonly string[], problems: readonly RegExp[]])[] = [
    [['satus'], [/no verb "satus"\. Did you mean status\?/]],
    [['status', '--wat', '--json=maybe', '--data=', 'extra'], [/no flag --wat/, /"extra"/, /--data must not be empty/, /--json must be true or false/]],
    [['serve', '--port', 'x', '--prot', '1', '--log-level', 'loud', '--max-event-bytes', '1', '--events', 'esdb://localhost'], [/--port must be a whole number/, /no flag --prot\. Did you mean --port\?/, /--log-level must be one of/, /--max-event-bytes must be at least 1024/, /THROUGHLINE_MASTER_KEY is missing/]],
    [['import', '--to', 'ftp://x', '--data', 'y', '--api-key', 'secret-secret-secret-secret'], [/needs a FILE/, /--to must be a URL/, /--to and --data exclude each other/, /--api-key is a secret.*THROUGHLINE_API_KEY/]],
    [['keys', 'destroy', '--label'], [/keys needs one of: create, list, limit, revoke/, /--label needs a value/]],
  ];
  let runs: readonly RunResult[] = [];
  beforeAll(async () => { runs = await Promise.all(CASES.map(([args]) => throughline(args))); });
  test.each(CASES.map(([args, problems], i) => [args.join(' '), i, problems] as const))('%s: ends with 2 and tells every problem at once', (_, i, problems) => {
    const { code, stdout, stderr } = runs[i] as RunResult;
    expect([code, stdout]).toEqual([2, '']);
    for (const problem of problems) expect(stderr).toMatch(problem);
    expect(stderr.trimEnd().split('\n')).toHaveLength(problems.length + 1);
    expect(stderr).not.toContain('secret-secret');
  });

  test('help is no mistake', async () => {
    const [all, one] = await Promise.all([throughline(['--help']), throughline(['serve', '--help'])]);
    expect([all.code, one.code, all.stderr + one.stderr]).toEqual([0, 0, '']);
    for (const verb of ['serve', 'import', 'preview', 'trace', 'status', 'workspaces', 'keys', 'demo']) expect(all.stdout).toMatch(new RegExp(`^  ${verb} `, 'm'));
    for (const said of ['--data DIR', '--port PORT', 'default 8080', 'THROUGHLINE_API_KEY', 'THROUGHLINE_MASTER_KEY']) expect(one.stdout).toContain(said);
  });
});

// ---- import ------------------------------------------------------------------------------------------------------------

describe('import', () => {
  test('into a server: records each line once; the second time nothing', () => {
    expect(first).toMatchObject({ code: 0, stderr: '' });
    expect(parse(first)).toEqual({ file: DAY, recorded: 183, duplicate: 1, rejected: 0, seconds: expect.any(Number) as number, rejectedFile: null, complete: true });
    expect(second).toMatchObject({ code: 0, stderr: '' });
    expect(second.stdout).toMatch(/: 0 recorded, 184 duplicate, 0 rejected in \d+\.\d s/);
    expect(existsSync(`${DAY}.rejected.ndjson`)).toBe(false);
  });

  test('a JSON array, from a file and from stdin', async () => {
    const event = (n: number): object => ({ specversion: '1.0', id: `array-${String(n)}`, source: 'urn:cli', type: 'shop.visit', identity: 'array@example.com', identitytype: 'email', data: { n, text: 'a ] and a , and a \\" within' } });
    writeFileSync(inFiles('array.json'), `[\n  ${[event(1), event(2), event(3)].map((one) => JSON.stringify(one)).join(',\n  ')}\n]\n`);
    const fromFile = parse(await importTo(inFiles('array.json'), '--json'));
    expect(fromFile).toMatchObject({ recorded: 3, duplicate: 0, rejected: 0, complete: true });
    const fromStdin = await throughline(['import', '-', '--to', server.url, '--json'], { ...withKey(), input: `\n  [${[event(3), event(4)].map((one) => JSON.stringify(one)).join(' ,\n')}]\n` });
    expect([fromStdin.code, parse(fromStdin)]).toMatchObject([0, { file: '-', recorded: 1, duplicate: 1, rejected: 0, complete: true }]);
    const lines = await throughline(['import', '-', '--to', server.url, '--json'], { ...withKey(), input: `${JSON.stringify(event(4))}\r\n\r\n${JSON.stringify(event(5))}` });
    expect(parse(lines)).toMatchObject({ recorded: 1, duplicate: 1, rejected: 0 });
    const { data } = (await json(await server.request('/history?identity=array@example.com'))) as { data: { event: { id: string } }[] };
    expect(data.map(({ event: { id } }) => id).sort()).toEqual(['array-1', 'array-2', 'array-3', 'array-4', 'array-5']);
  });

  test('G4: what is no CloudEvent goes to a file beside the input, with its line and the reason; the rest is recorded', async () => {
    const good = (n: number, more: object = {}): string => JSON.stringify({ specversion: '1.0', id: `mixed-${String(n)}`, source: 'urn:cli', type: 'shop.visit', identity: 'mixed@example.com', identitytype: 'email', ...more });
    const bad = ['{"specversion":"1.0","id":"no-source","type":"t"}', 'no JSON at all', good(9, { identitytype: undefined }), good(10, { time: 'yesterday' }), good(11, { specversion: '0.3' })];
    writeFileSync(inFiles('mixed.ndjson'), [good(1), bad[0], bad[1], '', good(2), bad[2], good(3, { data: { note: 'kept' } }), bad[3], bad[4]].join('\n'));
    const result = await importTo(inFiles('mixed.ndjson'), '--json');
    // Rejected lines are told, and no fault of the import.
    expect([result.code, parse(result)]).toMatchObject([0, { recorded: 3, duplicate: 0, rejected: 5, rejectedFile: inFiles('mixed.ndjson.rejected.ndjson'), complete: true }]);
    const told = readFileSync(inFiles('mixed.ndjson.rejected.ndjson'), 'utf8').trimEnd().split('\n').map((line) => JSON.parse(line) as { line: number; code: string; attribute: string | null; reason: string; raw: string }).sort((a, b) => a.line - b.line);
    expect(told.map(({ line, code, attribute, raw }) => [line, code, attribute, raw])).toEqual([
      [2, 'missingAttribute', 'source', bad[0]], [3, 'notJson', null, bad[1]], [6, 'identityWithoutType', 'identitytype', bad[2]], [8, 'invalidTime', 'time', bad[3]], [9, 'unknownSpecversion', 'specversion', bad[4]],
    ]);
    for (const { reason } of told) expect(reason.length).toBeGreaterThan(5);
    // Once they are put right, the file goes.
    writeFileSync(inFiles('mixed.ndjson'), [1, 2, 3].map((n) => good(n, n === 3 ? { data: { note: 'kept' } } : {})).join('\n'));
    const again = await importTo(inFiles('mixed.ndjson'));
    expect(again.stdout).toMatch(/0 recorded, 3 duplicate, 0 rejected/);
    expect(existsSync(inFiles('mixed.ndjson.rejected.ndjson'))).toBe(false);
  });

  test('with a key that is none, and of a file that is not there, ends with 1 and says why', async () => {
    const [stranger, missing] = await Promise.all([throughline(['import', DAY, '--to', server.url], withKey('a-key-that-nobody-has-made-0123456789')), importTo(inFiles('missing.ndjson'))]);
    expect([stranger.code, missing.code]).toEqual([1, 1]);
    expect(stranger.stderr).toMatch(/does not know this API key/);
    expect(missing.stderr).toMatch(/missing\.ndjson cannot be read/);
  });

  test('G3: into a folder that nobody holds, made on the way, its lines in another order: the views are the same', async () => {
    const { code, stdout, stderr } = beside.imported;
    expect([code, stderr]).toEqual([0, '']);
    expect(JSON.parse(stdout)).toMatchObject({ recorded: 183, duplicate: 1, rejected: 0, complete: true });
    const other = await serve({ folder: beside.folder, env: { THROUGHLINE_API_KEY: TEST_KEY } });
    try {
      // The workspace was made by the import, with the key that it was given.
      expect(other.stdout()).not.toContain('tl_');
      await other.folded();
      const status = await readStatus(beside.folder);
      expect(digestsOf(status)).toEqual(digestsOf(afterTheDay));
      expect(status.groups.map(({ group, gap, digest }) => [group, gap, /^[0-9a-f]{32}$/.test(digest ?? ''), digest !== '0'.repeat(32)])).toEqual([['journeys', 0, true, true], ['persons', 0, true, true]]);
      expect(status.store).not.toBe(afterTheDay.store);
    } finally {
      stalled = endWithStalledClient(other);
    }
  });
});

// ---- looking -----------------------------------------------------------------------------------------------------------

describe('status', () => {
  test('as JSON, beside a running serve: events, gap and lag of each group, counts, disk', () => {
    expect(afterTheDay).toMatchObject({ groups: [{ group: 'journeys', generation: 1, gap: 0, lag: 0 }, { group: 'persons', generation: 1, gap: 0, lag: 0 }], workspaces: [{ id: 'default', keys: 1 }] });
    // The workspace and its key are events too.
    expect(afterTheDay.events).toBe(185);
    expect(afterTheDay.head).toBe(`${afterTheDay.store}.${String(185).padStart(20, '0')}`);
    expect(Math.min(afterTheDay.disk.events, afterTheDay.disk.views, afterTheDay.disk.free, ...afterTheDay.groups.map(({ documents }) => documents))).toBeGreaterThan(0);
  });

  test('as tables: the same, and the counts of the door', async () => {
    let told: RunResult = { code: null, stdout: '', stderr: '' };
    await until('the counts by source are written', async () => {
      told = await throughline(['status', '--data', server.folder]);
      const [, recorded, duplicates, reused] = /^default +default +\d+ +(\d+) +(\d+) +(\d+) +/m.exec(told.stdout) ?? [];
      return Number(recorded) >= 183 && Number(duplicates) >= 185 && reused === '17';
    });
    expect([told.code, told.stderr]).toEqual([0, '']);
    expect(told.stdout).toMatch(/^journeys +1 +1 +0 +0\.0 s +\d+/m);
    expect(told.stdout).toMatch(/^persons +1 +1 +0 +0\.0 s +\d+/m);
    expect(told.stdout).toContain(afterTheDay.store);
    expect(told.stdout).toMatch(/^disk: events [\d.]+ [KM]iB, views [\d.]+ [KM]iB, free/m);
  });

  test('of a folder that holds nothing ends with 1 and makes nothing', async () => {
    const { code, stderr } = await throughline(['status', '--data', inFiles('nothing')]);
    expect([code, existsSync(inFiles('nothing'))]).toEqual([1, false]);
    expect(stderr).toMatch(/nothing holds no events/);
  });
});

describe('trace', () => {
  const trace = (...args: readonly string[]): Promise<RunResult> => throughline(['trace', '--data', server.folder, ...args]);

  test('an event that was recorded: its stream, its facts and the journey that it became part of', async () => {
    const [human, machine, anonymous] = await Promise.all([
      trace('--identity', '+1 (202) 555-0101', '--id', 'int-a-1-10'), trace('--identity', who.ana.identity, '--identity-type', 'phone', '--id', 'int-a-1-10', '--json'),
      trace('--identity', 'anonymous', '--identity-type', 'phone', '--id', 'int-c-1-05', '--json'),
    ]);
    expect([human.code, machine.code, anonymous.code, human.stderr]).toEqual([0, 0, 0, '']);
    const { result, found } = parse(machine) as { result: string; found: { eventId: string; stream: string; type: string; position: string; vocabulary: string; facts: { kind: string; interaction: string }[]; reason: unknown; journeys: string[] }[] };
    const search = await server.request(SEARCH, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ dateRange: { start: instant('00:00:00.000'), end: instant('23:59:59.000') }, displayTimezone: 'UTC', filters: [{ name: 'interactions.id', values: ['int-a-1'] }] }) });
    const { data: [journey] } = (await json(search)) as { data: { journeyId: string }[] };
    expect(result).toBe('recorded');
    expect(found).toEqual([expect.objectContaining({ type: 'org.throughline.interaction.held', vocabulary: 'throughline', reason: null, journeys: [journey?.journeyId] })]);
    expect(found[0]?.stream).toMatch(/^identity\.default-[0-9a-f]{32}$/);
    expect(found[0]?.facts).toEqual([expect.objectContaining({ kind: 'held', interaction: 'throughline:int-a-1' })]);
    expect(found[0]?.position.startsWith(`${afterTheDay.store}.`)).toBe(true);
    for (const said of ['recorded', found[0]?.eventId ?? '', found[0]?.stream ?? '', journey?.journeyId ?? '', 'held  throughline:int-a-1']) expect(human.stdout).toContain(said);
    expect((parse(anonymous) as { found: unknown[] }).found).toEqual([expect.objectContaining({ type: 'org.throughline.interaction.ended' })]);
  });

  test('an event that is not there ends with 1 and says what that can mean', async () => {
    const [human, machine] = await Promise.all([trace('--identity', who.ana.identity, '--id', 'never-sent'), trace('--identity', 'nobody@example.com', '--id', 'int-a-1-10', '--json')]);
    expect([human.code, machine.code]).toEqual([1, 1]);
    expect(human.stdout).toMatch(/^not recorded: none of the 24 events of this identity has the id never-sent/);
    expect(parse(machine)).toMatchObject({ result: 'notRecorded', found: [], searched: 0 });
  });
});

describe('preview', () => {
  test('says what each line would become, here and on a server, and stores nothing', async () => {
    const lines = readFileSync(DAY, 'utf8').split('\n');
    writeFileSync(inFiles('preview.ndjson'), [lines[0], 'no JSON', JSON.stringify({ specversion: '1.0', id: 'p-1', source: 'urn:cli', type: 'shop.visit', subject: 'cart-1' })].join('\n'));
    const head = async (): Promise<string | null> => (await server.request('/sources')).headers.get('throughline-head');
    const before = await head();
    const [human, machine] = await Promise.all([throughline(['preview', inFiles('preview.ndjson')]), throughline(['preview', inFiles('preview.ndjson'), '--to', server.url, '--json'], withKey())]);
    expect([human.code, machine.code]).toEqual([0, 0]);
    expect(human.stdout).toMatch(/^line 1 {2}int-d-1-01 {2}2026-03-02T05:30:00\.000000000Z {2}throughline {2}identity\.preview-[0-9a-f]{32}\n {4}started {2}throughline:int-d-1/);
    expect(human.stdout).toMatch(/^line 2 {2}rejected: notJson/m);
    expect(human.stdout).toMatch(/^line 3 {2}p-1 .* no vocabulary/m);
    expect(human.stderr).toMatch(/^3 events: 1 facts, 1 without any, 1 rejected\. Nothing was stored\./);
    const answers = machine.stdout.trimEnd().split('\n').map((line) => JSON.parse(line) as { line: number; result: string; stream?: string; facts?: { kind: string }[]; reason?: { code: string } | null; code?: string });
    expect(answers.map(({ line, result, code, facts }) => [line, result, code, facts?.map(({ kind }) => kind)])).toEqual([[1, 'dryRun', undefined, ['started']], [2, 'rejected', 'notJson', undefined], [3, 'dryRun', undefined, []]]);
    // A server says the stream that the event has.
    const traced = parse(await throughline(['trace', '--data', server.folder, '--identity', who.dora.identity, '--id', 'int-d-1-01', '--json'])) as { found: { stream: string }[] };
    expect(answers[0]?.stream).toBe(traced.found[0]?.stream);
    expect(await head()).toBe(before);
  });
});

// ---- keys and workspaces -----------------------------------------------------------------------------------------------

describe('keys and workspaces, beside a running serve', () => {
  const answers = (key: string, status: number) => async (): Promise<boolean> => (await server.request('/sources', { key })).status === status;
  const keys = (...args: readonly string[]): Promise<RunResult> => throughline(['keys', ...args, '--data', server.folder]);

  test('a key that is made is taken, and one that is revoked stops within a second', async () => {
    const made = await keys('create', '--label', 'the till', '--json');
    const { workspace, keyId, key } = parse(made) as { workspace: string; keyId: string; key: string };
    expect([made.code, workspace]).toEqual([0, 'default']);
    await until('the new key is taken', answers(key, 200), 1000);
    const listed = await keys('list');
    expect(listed.stdout).toMatch(new RegExp(`^${keyId} +the till +\\d{4}-\\d\\d-\\d\\dT[\\d:.]+Z$`, 'm'));
    expect(listed.stdout).not.toContain(key);
    const revoked = await keys('revoke', keyId);
    expect([revoked.code, revoked.stderr]).toEqual([0, '']);
    await until('the revoked key is refused', answers(key, 401), 1000);
    expect(await answers(server.key, 200)()).toBe(true);
    const [after, again, never] = await Promise.all([keys('list', '--json'), keys('revoke', keyId), keys('revoke', 'nosuchkey')]);
    expect((parse(after) as { keyId: string; revokedAt: string | null; label: string }[]).map(({ label, revokedAt }) => [label, revokedAt !== null])).toEqual([['first', false], ['the till', true]]);
    expect([again.code, never.code]).toEqual([1, 1]);
    expect(again.stderr).toMatch(/revoked before/);
    expect(never.stderr).toMatch(/no key of this id/);
  });

  test('a workspace that is made has a key of its own and sees nothing of the others', async () => {
    const made = parse(await throughline(['workspaces', 'create', 'north', '--name', 'The north', '--data', server.folder, '--json'])) as { workspace: string; key: string };
    expect(made.workspace).toBe('north');
    await until('the new workspace is served', answers(made.key, 200), 1000);
    expect(await json(await server.request('/sources', { key: made.key }))).toEqual({ data: [] });
    expect((await server.request(`/persons?identity=${encodeURIComponent(who.ana.identity)}`, { key: made.key })).status).toBe(404);
    const [listed, again] = await Promise.all([throughline(['workspaces', 'list', '--data', server.folder]), throughline(['workspaces', 'create', 'north', '--data', server.folder])]);
    expect(listed.stdout).toMatch(/^north +The north +1 +\d{4}/m);
    expect(listed.stdout).toMatch(/^default +default +\d+ +\d{4}/m);
    expect([again.code, again.stdout]).toEqual([1, '']);
    expect(again.stderr).toMatch(/there is a workspace of this id already/);
  });
});

// ---- replay and verify -------------------------------------------------------------------------------------------------

describe('replay and verify, beside a running serve', () => {
  const verb = (...args: readonly string[]): Promise<RunResult> => throughline([...args, '--data', server.folder]);
  const search = async (): Promise<{ readonly status: number; readonly total: unknown; readonly stale: string | null }> => {
    const answer = await server.request(SEARCH, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ dateRange: { start: instant('00:00:00.000'), end: instant('23:59:59.000') }, displayTimezone: 'UTC' }) });
    return { status: answer.status, total: (await json(answer))['pagination'], stale: answer.headers.get('throughline-stale') };
  };

  test('G5: a generation is built, found equal and promoted, and readers notice nothing; a planted difference is found, shown and refused', async () => {
    const before = await search();
    const [verified, replayed] = await Promise.all([verb('verify', '--count', '20'), verb('replay', 'journeys')]);
    expect([verified.code, verified.stdout.includes('each as the log says')]).toEqual([0, true]);
    expect([replayed.code, replayed.stdout]).toEqual([0, expect.stringMatching(/^journeys: generation 2 answers now, 1 is kept for --rollback\. Equal to the one before; \d+ events folded/)]);
    expect(await search()).toEqual(before);
    // As a disk would: where it lies, so that no digest moves.
    const view = new DatabaseSync(join(server.folder, 'views/journeys-2-0.sqlite'));
    const { key, value } = view.prepare("SELECT key, value FROM documents WHERE key LIKE 'default/j/%' AND value LIKE '%Support%' LIMIT 1").get() as { key: string; value: string };
    view.prepare('UPDATE documents SET value = ? WHERE key = ?').run(value.replace('Support', 'Suqqort'), key);
    view.close();
    const all = await verb('verify', '--all');
    expect([all.code, all.stdout]).toEqual([1, expect.stringContaining(`${key}\n`)]);
    expect(all.stdout).toMatch(/Suqqort[^"]*" in generation 2, "[^"]*Support[^"]*" in the log/);
    expect((await verb('replay', 'journeys', '--rollback')).stdout).toMatch(/^journeys: generation 1 answers now, 2 is kept for --rollback/);
    expect(await search()).toEqual(before);
    const status = await readStatus(server.folder);
    expect(status.groups.map(({ group, generation }) => [group, generation])).toEqual([['journeys', 1], ['persons', 1]]);
  });
});

// ---- ending ------------------------------------------------------------------------------------------------------------

test('a client that stalls in the middle of its request does not keep a serve from ending well', async () => {
  const { code, ms, log } = await stalled;
  expect(log).not.toMatch(/"level":"(warn|error)"/);
  expect([code, ms < 10_000]).toEqual([0, true]);
});

/** One sender: an event after the other until the server has gone; those that were acknowledged. */
async function sendUntilItEnds(n: number): Promise<readonly string[]> {
  const acknowledged: string[] = [];
  for (let i = 0; ; i += 1) {
    const id = `drain-${String(n)}-${String(i)}`;
    const event = { specversion: '1.0', id, source: 'urn:cli/drain', type: 'shop.visit', identity: `drain.${String(n)}@example.com`, identitytype: 'email', data: { i } };
    try {
      const response = await server.request('/events', { method: 'POST', headers: { 'content-type': 'application/cloudevents+json' }, body: JSON.stringify(event) });
      if (response.status !== 200) return acknowledged;
      await response.json();
    } catch {
      return acknowledged;
    }
    acknowledged.push(id);
  }
}

test('G1: SIGTERM drains: exit code 0, everything acknowledged is there after the next start, and no log line names a customer', async () => {
  const senders = Array.from({ length: 8 }, (_, n) => sendUntilItEnds(n));
  // Every sender keeps its connection and goes on asking: what is told to end has to end them.
  await until('every sender has been answered', async () => {
    const { data } = (await json(await server.request('/sources'))) as { data: { source: string; recorded: number }[] };
    return (data.find(({ source }) => source === 'urn:cli/drain')?.recorded ?? 0) > 40;
  });
  const ended = server.kill('SIGTERM');
  const acknowledged = await Promise.all(senders);
  expect(await ended).toBe(0);
  expect(acknowledged.flat().length).toBeGreaterThan(20);

  const log = server.stderr();
  expect(log.trimEnd().split('\n').length).toBeGreaterThan(50);
  for (const value of [...Object.values(who).map(({ identity }) => identity.replace('+', '')).filter((identity) => identity !== 'anonymous'), 'example.com', 'int-a-1', 'Ana', 'tl_', 'drain-', SECRET]) expect([value, log.includes(value)]).toEqual([value, false]);

  const key = server.key;
  server = await serve({ folder: server.folder, env: { THROUGHLINE_API_KEY: 'a-key-that-this-folder-does-not-know' } });
  // A key is told once; a variable that says another one is told not to count.
  expect(server.stdout()).not.toContain('tl_');
  expect(server.stderr()).toMatch(/THROUGHLINE_API_KEY is set, but it is no key of these stores/);
  expect((await server.request('/sources')).status).toBe(401);
  for (const [n, ids] of acknowledged.entries()) {
    const { data } = (await json(await server.request(`/history?identity=drain.${String(n)}@example.com&limit=1000`, { key }))) as { data: { event: { id: string } }[] };
    const recorded = data.map(({ event: { id } }) => id);
    expect(new Set(recorded).size).toBe(recorded.length);
    expect(ids.filter((id) => !recorded.includes(id))).toEqual([]);
  }
});
