// Loaded before a program and each of its threads (node --import): the machine's clock as a test sets it while they run. It says
// as many milliseconds more as the file named by CLOCK_OFFSET_FILE; timers and performance.now() go on as they are, as they do
// where an operator or NTP sets a clock.
import { readFileSync } from 'node:fs';

const file = process.env['CLOCK_OFFSET_FILE'] ?? '';
const Machine = Date;
let offset = 0;
let readAt = -Infinity;

function now() {
  const at = performance.now();
  if (at - readAt > 2) {
    readAt = at;
    offset = Number(readFileSync(file, 'utf8'));
  }
  return Machine.now() + offset;
}

globalThis.Date = class extends Machine {
  constructor(...given) {
    if (given.length === 0) super(now());
    else super(...given);
  }

  static now() { return now(); }
};
