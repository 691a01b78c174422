// Loaded before a program and each of its threads (node --import): the machine's clock as a test sets it while they run. It says
// as many milliseconds more as the file named by CLOCK_OFFSET_FILE; timers and performance.now() go on as they are, as they do
// where an operator or NTP sets a clock.
import { readFileSync } from 'node:fs';

const file = process.env['CLOCK_OFFSET_FILE'] ?? '';
const Machine = globalThis.Date;
let offset = 0;
let readAt = -Infinity;

function now(): number {
  const at = performance.now();
  if (at - readAt > 2) {
    readAt = at;
    offset = Number(readFileSync(file, 'utf8'));
  }
  return Machine.now() + offset;
}

globalThis.Date = new Proxy(Machine, {
  construct: (target, given: readonly unknown[], made) => Reflect.construct(target, given.length === 0 ? [now()] : given, made) as Date,
  get: (target, name, receiver) => (name === 'now' ? now : Reflect.get(target, name, receiver) as unknown),
});
