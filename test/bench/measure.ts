// What every row of the bench shares: a seeded source of numbers, medians, and the table. Absolute times on a shared
// machine prove nothing: each figure stands beside the raw part that it stands on, measured in turn in the same run.
import { writeFileSync } from 'node:fs';
import { cpus, totalmem } from 'node:os';

export interface Row {
  readonly name: string;
  readonly value: number;
  readonly unit: string;
  /** The part beside which it stands, in the same unit; null where the figure stands for itself. */
  readonly raw: number | null;
  readonly ratio: number | null;
  /** How the ratio (or, without one, the value) is to be: `>= 0.25`. */
  readonly target: string | null;
  readonly met: boolean | null;
}

export function row(name: string, unit: string, value: number, raw: number | null, target: string | null): Row {
  const ratio = raw === null || raw === 0 ? null : value / raw;
  const figure = ratio ?? value;
  const bound = target === null ? null : Number(/[\d.]+/.exec(target)?.[0]);
  const met = bound === null || target === null ? null : target.startsWith('>=') ? figure >= bound : figure <= bound;
  return { name, value: rounded(value), unit, raw: raw === null ? null : rounded(raw), ratio: ratio === null ? null : rounded(ratio), target, met };
}
const rounded = (value: number): number => Number(value.toPrecision(4));

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}
export function percentile(values: readonly number[], p: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * p))] ?? Number.NaN;
}

/** mulberry32: small, seeded, good enough to spread test data. */
export function random(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

export function seconds(since: bigint): number { return Number(process.hrtime.bigint() - since) / 1e9; }

/** Prints the table as Markdown (it goes into the README as it is) and writes it to bench.json. */
export function report(rows: readonly Row[], file: string): void {
  writeFileSync(file, `${JSON.stringify(rows, null, 2)}\n`);
  process.stdout.write(`\nMeasured on ${machine()}.\n\n${tableOf(rows)}`);
}

export function machine(): string {
  return `${cpus().length} × ${cpus()[0]?.model.trim() ?? 'unknown CPU'}, ${Math.round(totalmem() / 2 ** 30)} GiB, Node ${process.versions.node}`;
}

export function tableOf(rows: readonly Row[]): string {
  return markdown(['what', 'ours', 'raw', 'unit', 'ratio', 'target', 'met'], ['---', '---:', '---:', '---', '---:', '---', '---'],
    rows.map(({ name, value, raw, unit, ratio, target, met }) => [name, figure(value), raw === null ? '' : figure(raw), unit, ratio === null ? '' : String(ratio), target ?? '', met === null ? '' : met ? 'yes' : 'NO']));
}

export function markdown(heads: readonly string[], alignments: readonly string[], rows: readonly (readonly string[])[]): string {
  return [heads, alignments, ...rows].map((cells) => `| ${cells.join(' | ')} |\n`).join('');
}

const figure = (value: number): string => (value >= 1000 ? Math.round(value).toLocaleString('en-US') : String(value));
