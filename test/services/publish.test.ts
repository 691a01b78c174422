// `publish FILE` onto a topic in memory, and from there through ingest.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { MemoryBroker } from '../../services/adapters/memory-source.ts';
import { OperatingError } from '../../services/errors.ts';
import { publish } from '../../services/ops/publish.ts';
import type { Io } from '../../services/ops/terminal.ts';
import type { Delivery, Topic, TopicLook } from '../../services/ports.ts';

const folders: string[] = [];
afterEach(() => { for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true }); });
function fileOf(text: string | Uint8Array): string {
  const folder = mkdtempSync(join(tmpdir(), 'throughline-test-'));
  folders.push(folder);
  const file = join(folder, 'events.ndjson');
  writeFileSync(file, text);
  return file;
}

interface Run { readonly code: number; readonly out: string; readonly err: string; readonly records: readonly Delivery[] }
async function run(file: string, given: { readonly json?: boolean; readonly stdin?: string; readonly stage?: (call: number) => void; readonly signal?: AbortSignal; readonly look?: TopicLook | null; readonly maxEventBytes?: number } = {}): Promise<Run> {
  const clock = { at: 0, now: () => (clock.at += 1) };
  const broker = new MemoryBroker({ clock, sleep: () => Promise.resolve() });
  broker.createTopic('cx', 4);
  const inner = broker.topic('cx');
  let calls = 0;
  const topic: Topic = { name: 'cx', look: async () => given.look === undefined ? inner.look() : given.look, read: (options) => inner.read(options), close: () => inner.close(), write: async (records) => { given.stage?.((calls += 1)); await inner.write(records); } };
  let out = '';
  let err = '';
  const io: Io = {
    stdout: { write: (text, done) => { out += text; done?.(); return true; } }, stderr: { write: (text, done) => { err += text; done?.(); return true; } },
    stdin: (async function* () { yield Buffer.from(given.stdin ?? ''); })(), isTty: false, signal: given.signal ?? new AbortController().signal, clock, random: (size) => new Uint8Array(size), sleep: () => Promise.resolve(), fetch,
  };
  const code = await publish({ file, json: given.json ?? false, maxEventBytes: given.maxEventBytes ?? 256 * 1024, topic: 'cx', openTopic: async () => topic }, io);
  const records: Delivery[] = [];
  for await (const read of inner.read({ signal: new AbortController().signal })) records.push(...read);
  return { code, out, err, records };
}

const line = (id: string, identity = 'ana@example.com', identitytype = 'email'): string => JSON.stringify({ specversion: '1.0', id, source: 'pbx', type: 't', identity, identitytype, data: { n: 1 } });
const texts = (records: readonly Delivery[]): string[] => records.map(({ value }) => Buffer.from(value ?? []).toString('utf8'));
const idOf = (text: string): string => (JSON.parse(text) as { id: string }).id;

test('puts every event on the topic byte for byte, as a structured event, from lines, an array and stdin', async () => {
  const odd = `{ "specversion" : "1.0","id":"b","source":"s","type":"t","identity":"\\u0061na","identitytype":"x","data":{"n":9007199254740993.10e0} }`;
  for (const [text, stdin] of [[`${line('a')}\n${odd}\r\n\n${line('c')}`, false], [`[${line('a')}, ${odd},${line('c')}]`, false], [`${line('a')}\n${odd}\n${line('c')}`, true]] as const) {
    const { code, records, out } = await run(stdin ? '-' : fileOf(text), stdin ? { stdin: text } : {});
    expect(code).toBe(0);
    expect(texts(records).map((one) => one.trimEnd()).sort()).toEqual([line('a'), odd, line('c')].sort());
    for (const { headers } of records) expect(Buffer.from(headers['content-type'] as Uint8Array).toString('utf8')).toBe('application/cloudevents+json; charset=utf-8');
    expect(out).toContain('3 published to cx');
  }
});

test('G2: one identity has one key and keeps its order; no address stands in a key', async () => {
  const lines = Array.from({ length: 4000 }, (_, i) => line(`e${i}`, [`c${i % 9}@example.com`, ` C${i % 9}@Example.com`][i % 2]));
  const { records } = await run(fileOf(lines.join('\n')));
  expect(records).toHaveLength(4000);
  const byKey = new Map<string, string[]>();
  for (const { key, value } of records) {
    const name = Buffer.from(key ?? []).toString('utf8');
    expect(name).toMatch(/^[0-9a-f]{32}$/);
    byKey.set(name, [...(byKey.get(name) ?? []), idOf(Buffer.from(value ?? []).toString('utf8'))]);
  }
  expect(byKey.size).toBe(9);
  for (const ids of byKey.values()) expect(ids.map((id) => Number(id.slice(1)))).toEqual(ids.map((id) => Number(id.slice(1))).toSorted((a, b) => a - b));
});

test('values that are nobody\'s are spread over the partitions, the same event always to the same', async () => {
  const lines = Array.from({ length: 200 }, (_, i) => line(`e${i % 100}`, 'Anonymous', 'phone'));
  const { records } = await run(fileOf(lines.join('\n')));
  expect(new Set(records.map(({ partition }) => partition)).size).toBe(4);
  expect(new Set(records.map(({ key }) => Buffer.from(key ?? []).toString('hex'))).size).toBe(100);
});

test('what is no event goes out without a key, and is counted and told by its line', async () => {
  const { code, records, out, err } = await run(fileOf(`${line('a')}\nno event\n{"specversion":"1.0","id":"x","source":"s","type":"t"}\n{"specversion":"1.0","id":"x","source":"s"}\n`));
  expect(code).toBe(0);
  expect(records.filter(({ key }) => key === null)).toHaveLength(3);
  expect(out).toContain('4 published to cx');
  expect(out).toContain('3 without a key');
  expect(err).toBe('line 2: published without a key, to be dead-lettered: notJson\nline 3: published without a key, to be dead-lettered: no identity\nline 4: published without a key, to be dead-lettered: missingAttribute (type)\n');
});

test('what is longer than a topic takes is left out and told, never cut', async () => {
  const { code, records, out } = await run(fileOf(`${line('a')}\n${JSON.stringify('x'.repeat(1_100_000))}\n${line('b')}\n`), { json: true });
  expect(code).toBe(1);
  expect(texts(records).map(idOf).sort()).toEqual(['a', 'b']);
  expect(JSON.parse(out)).toMatchObject({ published: 2, keyless: 0, tooLong: 1, complete: false, notes: [{ line: 2 }] });
});

test('G2: an event that is larger than it may be has the key of its identity, and is told', async () => {
  const large = `${line('b').slice(0, -1)},"text":"${'x'.repeat(100_000)}"}`;
  const { code, records, out, err } = await run(fileOf([line('a'), large, line('c')].join('\n')), { maxEventBytes: 1024 });
  expect(code).toBe(0);
  expect(texts(records).map(idOf)).toEqual(['a', 'b', 'c']);
  expect(new Set(records.map(({ key }) => Buffer.from(key ?? []).toString('utf8'))).size).toBe(1);
  expect(out).not.toContain('without a key');
  expect(err).toBe('line 2: published, to be dead-lettered: more than the 1,024 bytes that an event may have (--max-event-bytes)\n');
});

test('how long a record may be the topic says', async () => {
  const lines = [100, 2_000, 1_500_000].map((length, i) => `${line(`e${i}`).slice(0, -1)},"text":"${'x'.repeat(length)}"}`);
  for (const [recordBytes, ids] of [[1_000, ['e0']], [1_048_576, ['e0', 'e1']], [2_000_000, ['e0', 'e1', 'e2']]] as const) {
    const { code, records } = await run(fileOf(lines.join('\n')), { look: { recordBytes } });
    expect(texts(records).map(idOf).sort()).toEqual(ids);
    expect(code).toBe(ids.length === 3 ? 0 : 1);
  }
  // The topic that is not there is said by whoever writes.
  expect((await run(fileOf(lines.join('\n')), { look: null, stage: () => { throw new OperatingError('sourceUnavailable', 'there is no such topic'); } })).err).toContain('there is no such topic');
});

test('a topic that fails is told; what was published is counted, and nothing behind a failed write follows it', async () => {
  const lines = Array.from({ length: 3000 }, (_, i) => line(`e${i}`));
  const { code, records, out } = await run(fileOf(lines.join('\n')), { json: true, stage: (call) => { if (call === 2) throw new OperatingError('sourceUnavailable', 'the broker is away'); } });
  expect(code).toBe(1);
  expect(JSON.parse(out)).toMatchObject({ published: 1000, complete: false, error: { code: 'sourceUnavailable', message: 'the broker is away' } });
  expect(texts(records).map(idOf)).toEqual(lines.slice(0, 1000).map(idOf));
});

test('a file that is not there is told, and an interruption too', async () => {
  expect(await run('/nowhere/at/all.ndjson')).toMatchObject({ code: 1, records: [] });
  const interrupted = await run(fileOf(line('a')), { signal: AbortSignal.abort() });
  expect(interrupted).toMatchObject({ code: 1 });
  expect(interrupted.err).toContain('interrupted');
});
