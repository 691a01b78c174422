// The peer of the search bench: PostgreSQL as a process of this machine, with a table of journeys, the indexes that an
// engineer would add, and the statements that one would prepare. Only where it is installed; it is not fetched.
import { execFileSync, spawn } from 'node:child_process';
import { chownSync, existsSync, mkdtempSync, readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import postgres from 'postgres';
import { freePorts, startLocalServer, untilAnswered } from '../support/local-server.ts';
import { inPieces } from '../support/load.ts';
import { type Ask, type FieldName, type Journey, WORKSPACE } from './search-corpus.ts';

const START_MS = 30_000;
/** Debian and its kin keep each version's programs here, and not in the path. */
const VERSIONS = '/usr/lib/postgresql';
/** Rows of one piece of a COPY. */
const PIECE = 500;

/**
 * All of the data in memory, nothing on disk to wait for, no second process beside the one that answers (all sides have one
 * core), and no compiling of queries that take a few milliseconds.
 */
const SETTINGS: Readonly<Record<string, string>> = {
  listen_addresses: '127.0.0.1', max_connections: '16', shared_buffers: '4GB', effective_cache_size: '8GB', work_mem: '128MB', maintenance_work_mem: '512MB',
  random_page_cost: '1.1', max_parallel_workers_per_gather: '0', jit: 'off', fsync: 'off', synchronous_commit: 'off', full_page_writes: 'off', wal_level: 'minimal',
  max_wal_senders: '0', max_wal_size: '8GB', autovacuum: 'off', logging_collector: 'off', unix_socket_directories: '',
};

// ---- the server ------------------------------------------------------------------------------------------------------

export interface Postgres { readonly version: string; readonly pid: number; readonly port: number; stop(): Promise<void> }

/** The folder of its programs, or why there is none. */
export function findPostgres(): { readonly folder: string } | { readonly absent: string } {
  const versions = existsSync(VERSIONS) ? readdirSync(VERSIONS).sort((a, b) => Number(b) - Number(a)).map((version) => join(VERSIONS, version, 'bin')) : [];
  const folders = [...(process.env['PATH'] ?? '').split(':'), ...versions];
  const folder = folders.find((each) => each !== '' && ['postgres', 'initdb'].every((program) => existsSync(join(each, program))));
  return folder === undefined ? { absent: `neither PATH nor ${VERSIONS} has postgres and initdb` } : { folder };
}

/** It refuses to run as root: then as its own user, else as nobody. */
function whoever(): { readonly uid?: number; readonly gid?: number } {
  if (process.getuid?.() !== 0) return {};
  const idOf = (user: string): { uid: number; gid: number } | null => {
    try {
      const ask = (flag: string): number => Number(execFileSync('id', [flag, user], { encoding: 'utf8', stdio: 'pipe' }));
      return { uid: ask('-u'), gid: ask('-g') };
    } catch { return null; }
  };
  return idOf('postgres') ?? idOf('nobody') ?? {};
}

export async function startPostgres(programs: string): Promise<Postgres> {
  const folder = mkdtempSync(join(tmpdir(), 'throughline-postgres-'));
  const [data, log] = [join(folder, 'data'), join(folder, 'postgres.log')];
  const user = whoever();
  if (user.uid !== undefined && user.gid !== undefined) chownSync(folder, user.uid, user.gid);
  const options = { cwd: folder, env: { PATH: process.env['PATH'], LC_ALL: 'C' }, ...user };
  execFileSync(join(programs, 'initdb'), ['-D', data, '-U', 'bench', '--auth=trust', '--encoding=UTF8', '--no-locale', '--no-sync'], { ...options, stdio: 'pipe' });
  const [port] = await freePorts(1) as [number];
  const flags = Object.entries({ ...SETTINGS, port: String(port) }).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
  let pid = 0;
  const server = await startLocalServer({
    folder,
    launch: () => {
      const child = spawn('sh', ['-c', 'exec "$0" "$@" >postgres.log 2>&1', join(programs, 'postgres'), '-D', data, ...flags], { ...options, stdio: 'ignore' });
      pid = child.pid ?? 0;
      return child;
    },
    answers: (child) => untilAnswered('PostgreSQL', child, { port, log, withinMs: START_MS }, () => answers(port)),
  });
  const version = execFileSync(join(programs, 'postgres'), ['--version'], { encoding: 'utf8' }).replace(/^postgres \(PostgreSQL\) ([\d.]+).*$/s, '$1');
  return {
    version, pid, port,
    stop: async () => {
      // Its own way to go at once, which leaves none of its processes.
      await server.kill('SIGINT');
      await server.stop();
    },
  };
}

async function answers(port: number): Promise<boolean> {
  const sql = connect(port, {});
  try {
    await sql`SELECT 1`;
    return true;
  } catch {
    return false;
  } finally {
    await sql.end({ timeout: 1 });
  }
}

function connect(port: number, settings: Readonly<Record<string, string>>): postgres.Sql {
  return postgres({ host: '127.0.0.1', port, user: 'bench', database: 'postgres', max: 1, onnotice: () => undefined, connection: settings });
}

// ---- the table -------------------------------------------------------------------------------------------------------

/** One value a journey is a column, several are an array, ids of interactions (a few a journey, each its own) a table. */
const COLUMNS: Readonly<Record<FieldName, { readonly column: string; readonly is: 'scalar' | 'array' | 'beside' }>> = {
  direction: { column: 'direction', is: 'scalar' }, outcome: { column: 'outcome', is: 'scalar' }, mediaTypes: { column: 'media', is: 'array' },
  pbxNames: { column: 'pbxs', is: 'array' }, tenantIds: { column: 'tenants', is: 'array' }, 'queues.name': { column: 'queues', is: 'array' },
  'agents.name': { column: 'agents', is: 'array' }, 'agents.group.name': { column: 'agent_groups', is: 'array' }, wrapUpCodes: { column: 'codes', is: 'array' },
  'contact.phoneNumber': { column: 'phone', is: 'scalar' }, 'contact.email': { column: 'email', is: 'scalar' }, 'contact.name': { column: 'contact', is: 'scalar' },
  'interactions.id': { column: 'interaction', is: 'beside' }, journeyId: { column: 'id', is: 'scalar' },
};
const FIELDS = Object.entries(COLUMNS) as readonly (readonly [FieldName, (typeof COLUMNS)[FieldName]])[];
const SCALARS = FIELDS.filter(([, { is }]) => is === 'scalar').map(([name, { column }]) => ({ name, column }));
const ARRAYS = FIELDS.filter(([, { is }]) => is === 'array').map(([name, { column }]) => ({ name, column }));

/** A scalar's index goes on with time and id, so that a page needs no sort and a count no row. */
const INDEXES = [
  'ALTER TABLE journeys ADD PRIMARY KEY (workspace, id)',
  'CREATE INDEX ON journeys (workspace, time, id)',
  ...SCALARS.filter(({ column }) => column !== 'id').map(({ column }) => `CREATE INDEX ON journeys (workspace, ${column}, time, id)`),
  ...ARRAYS.map(({ column }) => `CREATE INDEX ON journeys USING gin (${column})`),
  'ALTER TABLE interactions ADD PRIMARY KEY (workspace, interaction, id)',
  'VACUUM (FREEZE, ANALYZE) journeys', 'VACUUM (FREEZE, ANALYZE) interactions', 'CHECKPOINT',
];

function* pieces<T>(from: Iterable<T>, text: (one: T) => string): Generator<string> {
  for (const piece of inPieces(from, PIECE)) yield piece.map(text).join('');
}

/** Of COPY's text format: none of the values holds a tab, a quote or a backslash. */
function journeyLine({ key, time, values, document }: Journey): string {
  const scalars = SCALARS.map(({ name }) => (name === 'journeyId' ? key : values[name][0] ?? '\\N'));
  const arrays = ARRAYS.map(({ name }) => `{${values[name].map((value) => `"${value}"`).join()}}`);
  return `${[WORKSPACE, time, ...scalars, ...arrays, document].join('\t')}\n`;
}

export async function fillPostgres({ port }: Postgres, journeys: () => Iterable<Journey>): Promise<void> {
  const sql = connect(port, {});
  try {
    await sql.begin(async (within) => {
      await within.unsafe(`CREATE TABLE journeys (workspace text NOT NULL, time bigint NOT NULL, ${SCALARS.map(({ column }) => `${column} text`).join()}, ${ARRAYS.map(({ column }) => `${column} text[] NOT NULL`).join()}, document text NOT NULL)`);
      await within.unsafe('CREATE TABLE interactions (workspace text NOT NULL, interaction text NOT NULL, id text NOT NULL)');
      await pipeline(Readable.from(pieces(journeys(), journeyLine)), await within.unsafe('COPY journeys FROM STDIN').writable());
      const interactionLines = ({ key, values }: Journey): string => values['interactions.id'].map((id) => `${WORKSPACE}\t${id}\t${key}\n`).join('');
      await pipeline(Readable.from(pieces(journeys(), interactionLines)), await within.unsafe('COPY interactions FROM STDIN').writable());
    });
    for (const statement of INDEXES) await sql.unsafe(statement);
  } finally {
    await sql.end();
  }
}

export async function bytesOfPostgres({ port }: Postgres): Promise<number> {
  const sql = connect(port, {});
  const [row] = await sql`SELECT pg_total_relation_size('journeys') + pg_total_relation_size('interactions') AS bytes`;
  await sql.end();
  return Number(row?.['bytes']);
}

// ---- asking it -------------------------------------------------------------------------------------------------------

export interface PeerRow { readonly id: string; readonly time: number; readonly document: string }
export interface PeerPage { readonly rows: readonly PeerRow[]; readonly total: number | null }
export type Plan = 'generic' | 'custom';
export interface PeerClient {
  /** Counts, unless there is a keyset to go on after: then somebody carries the total on, as we do. */
  page(ask: Ask, after: { readonly time: number; readonly id: string } | null): Promise<PeerPage>;
  close(): Promise<void>;
}

/** One connection, all of whose statements are prepared and planned in this way. */
export function openPeerClient({ port }: Postgres, plan: Plan): PeerClient {
  const sql = connect(port, { plan_cache_mode: `force_${plan}_plan` });
  return {
    page: async (ask, after) => {
      const { where, parameters } = conditionsOf(ask);
      const [past, order] = ask.direction === 'desc' ? ['<', 'DESC'] : ['>', 'ASC'];
      const keyset = after === null ? '' : ` AND (time, id) ${past} ($${parameters.length + 1}, $${parameters.length + 2})`;
      const page = sql.unsafe(`SELECT id, time, document FROM journeys WHERE ${where}${keyset} ORDER BY time ${order}, id ${order} LIMIT 101`, [...parameters, ...(after === null ? [] : [after.time, after.id])], { prepare: true });
      // Both on their way at once: one round trip.
      const [rows, counted] = await Promise.all([page, after === null ? sql.unsafe(`SELECT count(*) AS total FROM journeys WHERE ${where}`, parameters, { prepare: true }) : null]);
      return { rows: rows.slice(0, 100).map(({ id, time, document }) => ({ id: id as string, time: Number(time), document: document as string })), total: counted === null ? null : Number(counted[0]?.['total']) };
    },
    close: () => sql.end(),
  };
}

function conditionsOf({ from, to, filters }: Ask): { readonly where: string; readonly parameters: (string | number | string[])[] } {
  const parameters: (string | number | string[])[] = [WORKSPACE, from, to];
  const conditions = filters.map(({ name, values }) => {
    const { column, is } = COLUMNS[name];
    const [first = ''] = values;
    const isOne = values.length === 1 && is !== 'array';
    const place = `$${parameters.push(isOne ? first : [...values])}`;
    const equals = isOne ? `= ${place}` : `= ANY(${place}::text[])`;
    if (is === 'array') return `${column} && ${place}::text[]`;
    return is === 'scalar' ? `${column} ${equals}` : `id IN (SELECT id FROM interactions WHERE workspace = $1 AND ${column} ${equals})`;
  });
  return { where: ['workspace = $1', 'time BETWEEN $2 AND $3', ...conditions].join(' AND '), parameters };
}
