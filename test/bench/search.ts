// A page of 100 with its exact total over 100,000 journeys: our index beside a plain SQLite table of the same journeys with
// the indexes that one would add. Same rows, same totals (checked), each through its own client, no HTTP, in turn.
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { DatabaseSync, type StatementSync } from 'node:sqlite';
import { journeys } from '../../projections/journeys.ts';
import type { RecordChange } from '../../projections/projection.ts';
import { isWorkspaceId, type WorkspaceKeys, workspaceKeys } from '../../schemas/identity.ts';
import { openSqliteViewStore } from '../../services/adapters/sqlite-views.ts';
import type { Position, SearchQuery, View, ViewStore } from '../../services/ports.ts';
import { inPieces } from '../support/load.ts';
import { median, random, type Row, row } from './measure.ts';

const COUNT = 100_000;
const DAYS = 30;
const START_MS = Date.UTC(2026, 0, 5);
const DAY_MS = 86_400_000;
/** Turns of each kind: some to warm up both sides, then as many as fit, in pairs. */
const WARM = 3;
const LEAST = 7;
const MEASURE_MS = 1500;

interface Journey { key: string; id: string; time: number; direction: string; outcome: string; medium: string; queue: string; agents: string[]; phone: string; interaction: string; states: string[]; document: string }

function* generate(count: number): Generator<Journey> {
  const next = random(11);
  const pick = <T>(from: readonly T[]): T => from[Math.floor(next() * next() * from.length)] as T;
  const agents = Array.from({ length: 400 }, (_, i) => `Agent ${i}`);
  const queues = Array.from({ length: 40 }, (_, i) => `Queue ${i}`);
  for (let i = 0; i < count; i += 1) {
    const key = createHash('sha256').update(`journey ${i}`).digest('hex').slice(0, 32);
    const journey = {
      key, id: key, time: START_MS + Math.floor(next() * DAYS * DAY_MS), direction: next() < 0.8 ? 'Inbound' : 'Outbound',
      outcome: pick(['Handled', 'Abandoned', 'EndedInScript', 'Voicemail', 'Other']), medium: pick(['Phone', 'Chat', 'Email']),
      queue: pick(queues), agents: next() < 0.3 ? [pick(agents), pick(agents)] : [pick(agents)],
      phone: `1555${String(Math.floor(next() * 60_000)).padStart(7, '0')}`, interaction: `int-${i}`,
      states: ['STARTED', 'WAITING', 'TALKING', ...(next() < 0.2 ? ['HOLD', 'TALKING'] : []), ...(next() < 0.1 ? ['TRANSFER'] : []), 'FINISHED'],
    };
    yield { ...journey, document: JSON.stringify({ row: { journeyId: key, ...journey }, filler: 'x'.repeat(700) }) };
  }
}

const distinct = (values: readonly string[]): string[] => [...new Set(values)];

function* changesOf(keys: WorkspaceKeys, all: readonly Journey[]): Generator<Changes> {
  const one = (field: string, values: readonly string[]): readonly string[] => distinct(values).map((value) => keys.term(field, value));
  for (const journey of all) {
    yield {
      record: {
        key: journey.key,
        state: { time: journey.time, id: journey.id, terms: { direction: one('direction', [journey.direction]), outcome: one('outcome', [journey.outcome]), mediaTypes: one('mediaTypes', [journey.medium.toLowerCase()]), 'queues.name': one('queues.name', [journey.queue]), 'agents.name': one('agents.name', journey.agents), 'contact.phoneNumber': one('contact.phoneNumber', [journey.phone]), 'interactions.id': one('interactions.id', [journey.interaction]) } },
        subs: new Map([[0, journey.states.map((state) => ({ 'transitions.name': one('transitions.name', [state]), 'transitions.agents.name': state === 'TALKING' ? one('transitions.agents.name', journey.agents) : [] }))]]),
      },
      document: journey.document,
    };
  }
}

/** A record with the document that a page brings along. */
export interface Changes { readonly record: RecordChange; readonly document: string }

/** A view of journeys that holds these, live; written in commits of so many. */
export async function filledView(views: ViewStore, all: Iterable<Changes>, batch: number): Promise<View> {
  const { fields, subFields, ordered, recordSpace } = journeys;
  const generation = await views.createGeneration({ group: 'journeys', version: 'bench', shards: 1, storeId: 'bench', target: null, fields, subFields, ordered, ...(recordSpace === undefined ? {} : { recordSpace }) });
  const view = await views.view('journeys', generation.id, 0);
  let expected: Position | null = null;
  let written = 0;
  for (const part of inPieces(all, batch)) {
    written += part.length;
    const position = String(written).padStart(20, '0') as Position;
    const documents = new Map(part.map(({ record, document }) => [`bench/j/${record.key}`, document]));
    const result = await view.commit({ expected, position, role: 'build', documents, records: new Map([['bench', part.map(({ record }) => record)]]), digest: '0'.repeat(32) });
    if (result.kind !== 'committed') throw new Error(`the view answered ${result.kind}`);
    expected = position;
  }
  await views.promote('journeys', null, generation.id);
  return view;
}

function fillTable(file: string, all: readonly Journey[]): DatabaseSync {
  const db = new DatabaseSync(file);
  db.exec(`PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA cache_size = -65536;
    CREATE TABLE journeys (id TEXT UNIQUE, time INTEGER, direction TEXT, outcome TEXT, medium TEXT, queue TEXT, phone TEXT, interaction TEXT, document TEXT);
    CREATE TABLE agents (name TEXT, time INTEGER, id TEXT, PRIMARY KEY (name, time, id)) WITHOUT ROWID;
    CREATE TABLE transitions (id TEXT, name TEXT, agent TEXT);
    BEGIN`);
  const journey = db.prepare('INSERT INTO journeys VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)');
  const agent = db.prepare('INSERT OR IGNORE INTO agents VALUES (?, ?, ?)');
  const transition = db.prepare('INSERT INTO transitions VALUES (?, ?, ?)');
  for (const one of all) {
    journey.run(one.id, one.time, one.direction, one.outcome, one.medium, one.queue, one.phone, one.interaction, one.document);
    for (const name of one.agents) agent.run(name, one.time, one.id);
    for (const state of one.states) for (const name of state === 'TALKING' ? one.agents : [null]) transition.run(one.id, state, name);
  }
  db.exec(`COMMIT; CREATE INDEX j_time ON journeys (time, id); CREATE INDEX j_direction ON journeys (direction, time, id); CREATE INDEX j_outcome ON journeys (outcome, time, id);
    CREATE INDEX j_medium ON journeys (medium, time, id); CREATE INDEX j_queue ON journeys (queue, time, id); CREATE INDEX j_phone ON journeys (phone, time, id); CREATE INDEX j_interaction ON journeys (interaction);
    CREATE INDEX t_id ON transitions (id, name, agent); CREATE INDEX t_name ON transitions (name, agent, id); ANALYZE`);
  return db;
}

interface Kind { readonly name: string; readonly clauses: SearchQuery['clauses']; readonly sub: SearchQuery['sub']; readonly where: string; readonly parameters: readonly string[]; readonly target: string }

function kinds(keys: WorkspaceKeys): readonly Kind[] {
  const clause = (field: string, ...values: string[]) => ({ field, terms: values.map((value) => keys.term(field, value)) });
  return [
    { name: 'no filter, 30 days', clauses: [], sub: [], where: '1', parameters: [], target: '>= 1' },
    { name: 'one common filter (outcome)', clauses: [clause('outcome', 'Handled')], sub: [], where: 'outcome = ?', parameters: ['Handled'], target: '>= 1' },
    { name: 'three common filters combined', clauses: [clause('outcome', 'Handled'), clause('direction', 'Inbound'), clause('mediaTypes', 'phone')], sub: [], where: 'outcome = ? AND direction = ? AND medium = ?', parameters: ['Handled', 'Inbound', 'Phone'], target: '>= 10' },
    { name: 'a rare filter (one agent)', clauses: [clause('agents.name', 'Agent 333')], sub: [], where: 'id IN (SELECT id FROM agents WHERE name = ?)', parameters: ['Agent 333'], target: '>= 1' },
    { name: "a contact's number", clauses: [clause('contact.phoneNumber', '15550000777')], sub: [], where: 'phone = ?', parameters: ['15550000777'], target: '>= 1' },
    { name: 'a state with an agent, on one transition', clauses: [], sub: [clause('transitions.name', 'TALKING'), clause('transitions.agents.name', 'Agent 40')], where: "id IN (SELECT id FROM transitions WHERE name = 'TALKING' AND agent = ?)", parameters: ['Agent 40'], target: '>= 1' },
  ];
}

export async function searchRows(folder: string): Promise<Row[]> {
  const all = [...generate(COUNT)];
  const workspace: string = 'bench';
  if (!isWorkspaceId(workspace)) throw new Error('not a workspace id');
  const keys = workspaceKeys(workspace, new Uint8Array(32).fill(7));
  const views = await openSqliteViewStore({ folder });
  const started = process.hrtime.bigint();
  const made = await filledView(views, changesOf(keys, all), 1000);
  const filled = Number(process.hrtime.bigint() - started) / 1e9;
  const db = fillTable(join(folder, 'plain.sqlite'), all);
  // As an api has it, which never writes.
  const readers = await openSqliteViewStore({ folder });
  const view = await readers.view('journeys', made.generation.id, 0);
  const rows: Row[] = [row('journeys written to the index, batches of 1,000', 'journeys/s', COUNT / filled, null, null)];
  for (const kind of kinds(keys)) rows.push(await measure(kind, view, db));
  db.close();
  await readers.close();
  await views.close();
  return rows;
}

async function measure(kind: Kind, view: View, db: DatabaseSync): Promise<Row> {
  const range = { from: START_MS, to: START_MS + DAYS * DAY_MS };
  const page = db.prepare(`SELECT id, time, document FROM journeys WHERE time BETWEEN ? AND ? AND ${kind.where} ORDER BY time, id LIMIT 100`);
  const count = db.prepare(`SELECT count(*) AS n FROM journeys WHERE time BETWEEN ? AND ? AND ${kind.where}`);
  const ours = async () => view.search({ workspace: 'bench', ...range, clauses: kind.clauses, sub: kind.sub, direction: 'asc', limit: 100, after: null, total: null }, 'j');
  const plain = () => plainly(page, count, [range.from, range.to, ...kind.parameters]);
  const [a, b] = [await ours(), plain()];
  if (a.total !== b.total || JSON.stringify(a.rows.map(({ id }) => id)) !== JSON.stringify(b.rows.map(({ id }) => id))) throw new Error(`"${kind.name}" answers differ: ${a.total} and ${b.total}`);
  const times: { ours: number[]; plain: number[] } = { ours: [], plain: [] };
  for (let i = 0, until = Date.now() + MEASURE_MS; i < WARM + LEAST || Date.now() < until; i += 1) {
    const one = process.hrtime.bigint();
    await ours();
    const two = process.hrtime.bigint();
    plain();
    if (i < WARM) continue;
    times.ours.push(Number(two - one) / 1e6);
    times.plain.push(Number(process.hrtime.bigint() - two) / 1e6);
  }
  return row(`search: ${kind.name} (${a.total.toLocaleString('en-US')} found)`, 'pages/s', 1000 / median(times.ours), 1000 / median(times.plain), kind.target);
}

function plainly(page: StatementSync, count: StatementSync, parameters: readonly (string | number)[]): { rows: readonly { id: unknown }[]; total: number } {
  const rows = page.all(...parameters);
  return { rows: rows.map(({ id }) => ({ id })), total: Number(count.get(...parameters)?.['n']) };
}
