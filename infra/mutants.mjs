// Whether the simulation finds faults: each mutation of infra/mutants.json is planted in a copy of the sources, and the
// simulation is run there until a seed fails. Ends with one line, `N mutations, N caught`; code 1 where one is not caught,
// or where its text does not stand in its file once any more.
//   sh infra/node.sh infra/mutants.mjs [words of a name]      SEEDS=20000 tries so many with each at most
import { execFile } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const mutations = JSON.parse(readFileSync(join(root, 'infra/mutants.json'), 'utf8'));
const seeds = process.env.SEEDS ?? '20000';
/** A mutation may make a program wait, or turn, for ever: then no seed is named. */
const TIMEOUT_MS = 600_000;
const AT_ONCE = 2;

function copyOfSources() {
  const folder = mkdtempSync(join(tmpdir(), 'throughline-mutants-'));
  for (const part of ['schemas', 'projections', 'services', 'test/simulation', 'test/support', 'package.json']) cpSync(join(root, part), join(folder, part), { recursive: true });
  symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'));
  return folder;
}

/** What failed, and at which seed; null where nothing did. */
function simulated(folder, count) {
  return new Promise((resolve) => {
    const env = { ...process.env, SIM_SEEDS: count, SIM_FROM: '0', SIM_SHRINK: '0', SIM_JOBS: '1' };
    delete env.SIM_SEED;
    execFile(process.execPath, ['test/simulation/run.ts'], { cwd: folder, env, timeout: TIMEOUT_MS, killSignal: 'SIGKILL', maxBuffer: 1 << 26 }, (error, stdout, stderr) => {
      const found = /^SIM_SEED=(\d+) fails: (.+)$/m.exec(stdout);
      if (found !== null) resolve({ seed: found[1], how: found[2] });
      else if (error === null) resolve(null);
      else resolve({ seed: null, how: error.killed ? `it does not end within ${TIMEOUT_MS / 1000} s` : stderr.slice(0, 500) });
    });
  });
}

async function judged(folder, { name, file, before, after }) {
  const path = join(folder, file);
  const text = readFileSync(path, 'utf8');
  if (text.split(before).length !== 2) return { name, caught: false, how: `its text stands ${text.split(before).length - 1} times in ${file}` };
  writeFileSync(path, text.replace(before, () => after));
  const found = await simulated(folder, seeds);
  writeFileSync(path, text);
  if (found === null) return { name, caught: false, how: `SURVIVES ${seeds} seeds` };
  // The code around it has changed: it is no fault any more that anybody could make.
  if (/\b(Reference|Syntax)Error\b/.test(found.how)) return { name, caught: false, how: `the mutation itself is broken: ${found.how}` };
  return { name, caught: found.seed !== null || found.how.startsWith('it does not end'), how: found.seed === null ? found.how : `seed ${found.seed}: ${found.how.slice(0, 110)}` };
}

const wanted = process.argv.slice(2).join(' ');
const chosen = mutations.filter(({ name }) => name.includes(wanted));
const left = [...chosen];
let caught = 0;
await Promise.all(Array.from({ length: AT_ONCE }, async () => {
  const folder = copyOfSources();
  try {
    for (let mutation = left.shift(); mutation !== undefined; mutation = left.shift()) {
      const result = await judged(folder, mutation);
      if (result.caught) caught += 1;
      console.log(`${result.caught ? 'caught' : 'MISSED'}  ${result.name.padEnd(42)} ${result.how}`);
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
}));
console.log(`${chosen.length} mutations, ${caught} caught`);
process.exitCode = caught === chosen.length ? 0 : 1;
