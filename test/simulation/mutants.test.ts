// The list of planted faults by which `make mutants` shows that the simulation finds them: that it cannot rot.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const ROOT = join(import.meta.dirname, '../..');
interface Mutation { readonly name: string; readonly file: string; readonly before: string; readonly after: string; readonly meaning: string }
const MUTATIONS = JSON.parse(readFileSync(join(ROOT, 'infra/mutants.json'), 'utf8')) as readonly Mutation[];

test('there are at least twelve mutations, each of its own name and with what it means', () => {
  expect(MUTATIONS.length).toBeGreaterThanOrEqual(12);
  expect(new Set(MUTATIONS.map(({ name }) => name)).size).toBe(MUTATIONS.length);
  expect(MUTATIONS.filter(({ meaning, before, after }) => meaning === '' || before === after)).toEqual([]);
});

test.each(MUTATIONS.map((mutation) => [mutation.name, mutation] as const))('the text that "%s" replaces stands once in its file', (_name, { file, before }) => {
  expect(readFileSync(join(ROOT, file), 'utf8').split(before).length - 1).toBe(1);
});
