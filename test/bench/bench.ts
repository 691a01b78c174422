// `make bench`: one run, one table. A row stands beside the raw part it is built on; see measure.ts.
// BENCH=search,pipeline,replay,growth chooses; BENCH_EVENTS shortens the growth run.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { report, type Row } from './measure.ts';
import { growthRows, pipelineRows } from './pipeline.ts';
import { replayRows } from './replay.ts';
import { searchRows } from './search.ts';

const wanted = new Set((process.env['BENCH'] ?? 'search,pipeline,replay,growth').split(','));
const rows: Row[] = [];
const folder = mkdtempSync(join(tmpdir(), 'throughline-bench-search-'));
try {
  if (wanted.has('search')) rows.push(...(await searchRows(folder)));
  if (wanted.has('pipeline')) rows.push(...(await pipelineRows()));
  if (wanted.has('replay')) rows.push(...(await replayRows()));
  if (wanted.has('growth')) rows.push(...(await growthRows(Number(process.env['BENCH_EVENTS'] ?? 1_000_000))));
} finally {
  rmSync(folder, { recursive: true, force: true });
}
report(rows, resolve(import.meta.dirname, '../../bench.json'));
