// The house (design.md section 8), held by a test: who may import what, where the environment is read, what every file
// must not contain, and that each guarantee is proven somewhere.
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';

const ROOT = resolve(import.meta.dirname, '..');
const files = (folder: string): string[] => readdirSync(join(ROOT, folder), { recursive: true, withFileTypes: true })
  .filter((entry) => entry.isFile() && entry.name.endsWith('.ts'))
  .map((entry) => relative(ROOT, join(entry.parentPath, entry.name)));
const text = (file: string): string => readFileSync(join(ROOT, file), 'utf8');
const code = (file: string): string => text(file).replace(/\/\*[\s\S]*?\*\//g, '').replace(/(^|\s)\/\/.*$/gm, '');

interface Import { readonly file: string; readonly to: string }
const imports = (file: string): Import[] => [...text(file).matchAll(/^\s*(?:import|export)\s[^'"]*?from\s+'([^']+)'|^\s*import\s+'([^']+)'|\bimport\('([^']+)'\)|new URL\('(\.[^']+\.ts)'/gm)]
  .map((match) => match[1] ?? match[2] ?? match[3] ?? match[4] ?? '')
  .map((to) => ({ file, to: to.startsWith('.') ? relative(ROOT, resolve(ROOT, dirname(file), to)) : to }));

const sources = [...files('schemas'), ...files('projections'), ...files('services')];
const all = sources.flatMap(imports);
const offences = (rule: (found: Import) => boolean): string[] => all.filter(rule).map(({ file, to }) => `${file} imports ${to}`);

describe('the house', () => {
  test('schemas import zod, node:crypto and each other, nothing else', () => {
    expect(offences(({ file, to }) => file.startsWith('schemas/') && !to.startsWith('schemas/') && to !== 'zod' && to !== 'node:crypto')).toEqual([]);
  });

  test('projections import schemas and each other, nothing else', () => {
    expect(offences(({ file, to }) => file.startsWith('projections/') && !/^(schemas|projections)\/|^node:assert/.test(to))).toEqual([]);
  });

  test('a driver is imported by its own adapter or program alone', () => {
    const homes: readonly (readonly [RegExp, RegExp])[] = [
      [/^node:sqlite$/, /^services\/adapters\/sqlite/],
      [/^kafkajs$/, /^services\/adapters\/kafka\.ts$/],
      [/^@eventstore\/db-client$/, /^services\/adapters\/eventstoredb\.ts$/],
      [/^ioredis$/, /^services\/adapters\/redis\.ts$/],
      [/^express$/, /^services\/api\//],
      [/^prom-client$/, /^services\/metrics\.ts$/],
      [/^pino$/, /^services\/log\.ts$/],
      [/^cloudevents$/, /^services\/adapters\/cloudevents\.ts$/],
    ];
    expect(offences(({ file, to }) => homes.some(([driver, home]) => driver.test(to) && !home.test(file)))).toEqual([]);
  });

  test('one program never imports another', () => {
    const program = (file: string): string | undefined => /^services\/(ingest|projector|api|console|ops)[/.]/.exec(file)?.[1];
    expect(offences(({ file, to }) => program(file) !== undefined && program(to) !== undefined && program(file) !== program(to))).toEqual([]);
  });

  test('every import of ours names a file that exists, and node modules carry their node: prefix', () => {
    expect(offences(({ to }) => /^(schemas|projections|services)\//.test(to) && !existsSync(join(ROOT, to)))).toEqual([]);
    expect(offences(({ to }) => ['fs', 'path', 'crypto', 'http', 'os', 'url', 'worker_threads', 'child_process'].includes(to))).toEqual([]);
  });

  test('the environment is read in one file', () => {
    expect(sources.filter((file) => /process\.(env|argv)/.test(code(file)) && file !== 'services/config.ts')).toEqual([]);
  });

  test('schemas and projections read no clock and no randomness', () => {
    expect(sources.filter((file) => /^(schemas|projections)\//.test(file) && /Date\.now|new Date\(\)|Math\.random|randomBytes|randomUUID|performance\.now/.test(code(file)))).toEqual([]);
  });

  test('nothing is left half-done: no marks of unfinished work, no check let off', () => {
    const marks = new RegExp(['TO' + 'DO', 'FIX' + 'ME', 'X' + 'XX', '@ts-' + '(ignore|expect-error|nocheck)', 'eslint-' + 'disable', '\\bas ' + 'any\\b', 'not ' + 'implemented'].join('|'));
    expect([...sources, ...files('test')].filter((file) => marks.test(text(file)))).toEqual([]);
  });

  test('words that say nothing name no file', () => {
    expect(sources.filter((file) => /manager|helper|util|common|base|handler-service/i.test(file.split('/').at(-1) ?? ''))).toEqual([]);
  });

  test('a folder holds more than one file, or it is a file', () => {
    const folders = new Map<string, number>();
    for (const file of sources) folders.set(dirname(file), (folders.get(dirname(file)) ?? 0) + 1);
    expect([...folders].filter(([, count]) => count < 2).map(([folder]) => folder)).toEqual([]);
  });

  test('dependencies are pinned exactly, and each has its line in the README', () => {
    const manifest = JSON.parse(text('package.json')) as Record<string, Record<string, string> | undefined>;
    const readme = text('README.md');
    const pinned = Object.entries({ ...manifest['dependencies'], ...manifest['devDependencies'], ...manifest['optionalDependencies'] });
    expect(pinned.filter(([, version]) => !/^\d+\.\d+\.\d+$/.test(version)).map(([name]) => name)).toEqual([]);
    expect(pinned.map(([name]) => name).filter((name) => !readme.includes(`\`${name}\``) && !name.startsWith('@types/'))).toEqual([]);
  });
});

describe('the guarantees', () => {
  /** Those that this build claims; the README lists the same, and says which come later. */
  const CLAIMED = ['G1', 'G2', 'G3', 'G4', 'G5', 'G8', 'G9'];
  const tests = files('test').filter((file) => file !== 'test/architecture.test.ts');

  test.each(CLAIMED)('%s is proven by a test that cites it', (guarantee) => {
    expect(tests.filter((file) => new RegExp(`['"\`][^'"\`\\n]*\\b${guarantee}\\b[^\\n]*:`).test(text(file)))).not.toEqual([]);
  });

  test('the README lists each of them', () => {
    const readme = text('README.md');
    expect(CLAIMED.filter((guarantee) => !readme.includes(`**${guarantee}**`))).toEqual([]);
  });
});

describe('the repository', () => {
  test('holds no file that only a machine makes', () => {
    const tracked = execFileSync('git', ['ls-files'], { cwd: ROOT, encoding: 'utf8' }).split('\n');
    expect(tracked.filter((file) => /^(node_modules|data|coverage)\/|bench\.json$|\.sqlite$|\.log$/.test(file))).toEqual([]);
  });
});
