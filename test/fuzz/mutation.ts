// Bytes and values that nobody thought of, by seed: what is sound is taken apart and put together wrongly. The same seed gives
// the same, so that what fails once fails again.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { nativeEndpoints } from '../../schemas/apis/native.ts';
import { type Seeded } from '../support/seeded.ts';
import { ROOT } from '../support/serve.ts';

/** One run is repeated by FUZZ_SEED; its size is FUZZ_FACTOR of the whole (a twentieth, where it says nothing). */
export const FUZZ_SEED = Number(process.env['FUZZ_SEED'] ?? Date.now() % 1_000_000);
const FACTOR = Number(process.env['FUZZ_FACTOR'] ?? 0.05);
export const sized = (whole: number): number => Math.max(1, Math.round(whole * FACTOR));

/** Sound events to begin with, a line each: the shop's day, what a contact centre published, the API's own example. */
export function corpus(): readonly string[] {
  const files = ['test/fixtures/example-day.ndjson', 'test/fixtures/wxcc-captured.ndjson', '../shared/data/wxcc-captured.ndjson'].map((file) => join(ROOT, file)).filter((file) => existsSync(file));
  const lines = files.flatMap((file) => readFileSync(file, 'utf8').split('\n')).filter((line) => line.startsWith('{'));
  return [...new Set([...lines, JSON.stringify(nativeEndpoints({ filters: [], maxRangeDays: 60 }).publishEvents.requestExample)])];
}

// ---- texts and bytes ---------------------------------------------------------------------------------------------------

/** What parsers have stumbled over. */
export const ODD_TEXTS: readonly string[] = [
  '', ' ', '"', '\\', '{', '}', '[', ']', ',', ':', 'null', 'true', '-0', '1e999', '9007199254740993', '-1', '0', 'NaN', 'Infinity', '\u0000', '\r\n', '\u2028', '\ufeff', '\ud800', '\udc00\ud800', '😀',
  '\\u0000', '\\ud800', '\\u', '%', '%00', '%ff', '%2F', '%F0%9F%98%80', '..', '../..', '//', ';', '&', '=', '+', '*', '__proto__', 'constructor', 'toString', 'hasOwnProperty', 'length',
  'anonymous', 'unknown', '0', '+1 (555) 010-0100', 'sip:a@b', 'İ', 'ß', 'a'.repeat(300), '['.repeat(700), '{"a":'.repeat(600), "' OR 1=1 --", '${1+1}', '<b>',
  '2026-03-02T09:00:00Z', '2026-02-30T09:00:00Z', '0000-01-01T00:00:00Z', '9999-12-31T23:59:60.999999999Z', '2026-03-02T24:00:00+24:00', '2026-03-02',
];
const ODD_BYTES: readonly Buffer[] = [[0xff], [0xc0, 0x80], [0xed, 0xa0, 0x80], [0xf4, 0x90, 0x80, 0x80], [0xef, 0xbb, 0xbf], [0x00], [0x1f], [0x7f], [0xe2, 0x82]].map((bytes) => Buffer.from(bytes));

/** Some bytes changed, cut, doubled or put in. */
export function mutatedBytes(given: Uint8Array, chance: Seeded): Buffer<ArrayBuffer> {
  let bytes = Buffer.from(given);
  for (let times = 1 + chance.below(4); times > 0; times -= 1) bytes = mutatedOnce(bytes, chance);
  return bytes;
}

function mutatedOnce(bytes: Buffer<ArrayBuffer>, chance: Seeded): Buffer<ArrayBuffer> {
  const at = chance.below(bytes.length + 1);
  const end = Math.min(bytes.length, at + 1 + chance.below(20));
  switch (chance.below(7)) {
    case 0: return Buffer.concat([bytes.subarray(0, at), Buffer.from([chance.below(256)]), bytes.subarray(Math.min(bytes.length, at + 1))]);
    case 1: return Buffer.concat([bytes.subarray(0, at), bytes.subarray(end)]);
    case 2: return Buffer.concat([bytes.subarray(0, end), bytes.subarray(at)]);
    case 3: return bytes.subarray(0, at);
    case 4: return Buffer.concat([bytes.subarray(0, at), chance.pick(ODD_BYTES), bytes.subarray(at)]);
    default: return Buffer.concat([bytes.subarray(0, at), Buffer.from(chance.pick(ODD_TEXTS)), bytes.subarray(at)]);
  }
}

/** As JSON; no value at all is no text. */
export function jsonOf(value: unknown): string { return value === undefined ? '' : JSON.stringify(value); }

// ---- values ------------------------------------------------------------------------------------------------------------

const ODD_VALUES: readonly unknown[] = [null, true, false, 0, -1, 1.5, 1e308, 2 ** 31, 2 ** 53, '', [], {}, [[]], [null], { '': '' }, { length: 2 ** 31 }, ['a', 'a']];

export function oddValue(chance: Seeded): unknown { return chance.below(2) === 0 ? chance.pick(ODD_VALUES) : chance.pick(ODD_TEXTS); }

/** The same value with one place in it changed, taken away, renamed, moved or doubled, now and then several. */
export function mutatedValue(value: unknown, chance: Seeded): unknown {
  const holders = holdersIn(value);
  if (holders.length === 0) return oddValue(chance);
  for (let times = 1 + chance.below(3); times > 0; times -= 1) mutateIn(chance.pick(holders), holders, chance);
  return value;
}

type Holder = Record<string, unknown>;

/** Every object and array within, itself included. */
function holdersIn(value: unknown, found: Holder[] = []): readonly Holder[] {
  if (typeof value !== 'object' || value === null) return found;
  found.push(value as Holder);
  for (const inner of Object.values(value)) holdersIn(inner, found);
  return found;
}

function put(holder: Holder, name: string, value: unknown): void {
  // A property of this name like any other, also where it is __proto__.
  Object.defineProperty(holder, name, { value, enumerable: true, configurable: true, writable: true });
}

function mutateIn(holder: Holder, holders: readonly Holder[], chance: Seeded): void {
  const names = Object.keys(holder);
  const name = names.length === 0 ? 'x' : chance.pick(names);
  switch (chance.below(7)) {
    case 0: Reflect.deleteProperty(holder, name); return;
    case 1: if (!Array.isArray(holder)) put(holder, chance.pick(ODD_TEXTS), holder[name]); return;
    case 2: put(holder, name, [holder[name], holder[name]]); return;
    // Of another place: sound in itself, and wrong here. A copy, so that nothing holds itself.
    case 3: put(holder, name, structuredClone(chance.pick(Object.values(chance.pick(holders)).concat(null)))); return;
    case 4: put(holder, name, typeof holder[name] === 'string' ? holder[name] + chance.pick(ODD_TEXTS) : oddValue(chance)); return;
    default: put(holder, name, oddValue(chance));
  }
}
