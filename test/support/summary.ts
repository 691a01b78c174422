// A line for whoever runs a test at length and wants its figures: into the file that THROUGHLINE_TEST_SUMMARY names, nowhere else.
import { appendFileSync } from 'node:fs';

export function summarise(line: string): void {
  const file = process.env['THROUGHLINE_TEST_SUMMARY'];
  if (file !== undefined && file !== '') appendFileSync(file, `${line}\n`);
}
