// The example day many times over, each time with other customers: what the end-to-end and fault tests put on a topic. Seeded,
// and told as it is made, so that a hundred thousand records are never held. Among them, as real topics have them: exact
// repeats near and far, events that come late within their identity, binary CloudEvents beside structured ones, and poison.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { OutgoingRecord } from '../../services/ports.ts';
import { type Seeded, seeded } from './seeded.ts';
import { ROOT } from './serve.ts';

export interface LoadRecord extends OutgoingRecord {
  readonly kind: 'event' | 'repeat' | 'poison';
  /** The same as a line of NDJSON, for `import`; null for what only a topic can hold. */
  readonly line: string | null;
}
export interface LoadCounts { readonly events: number; readonly repeats: number; readonly poison: number }

/** Copies of the day under way at once: their events interleave on the topic. */
const OPEN_COPIES = 12;
/** Of a thousand records. */
const REPEATS = 30;
const POISON = 5;
const LATE = 30;
const BINARY = 150;
/** How far a late event falls back among those of its copy. */
const LATE_BY = 12;
/** Repeats are of one of the last so many records, or of one kept from long ago. */
const RECENT = 500;
const OLD = 50;

const DAY_LINES = readFileSync(join(ROOT, 'test/fixtures/example-day.ndjson'), 'utf8').split('\n').filter((line) => line !== '');
/** What is a customer's own: numbers 01 to 29, addresses, the cookie; and the ids of what they began. Agents, queues and lines are the shop's, in every copy. */
const OWN = /\+120255501([0-2]\d)|\b(ana\.pop|mihai\.rotaru|wanda\.ghita|liviu\.sandu)@|\bvisitor-(\d+)|\bint-(\w-\d)|\border-HP-(\d+)|\b(?:6b1c2a9e|0e7d5c44)(-16a0-|-5f83-)|2026-03-(02)T/g;

/** One line of one copy: every name that is a customer's own becomes that of this copy's; copies fall on the 28 days from 2 March 2026 on. */
function renamed(line: string, copy: number): string {
  return line.replace(OWN, (_match, phone?: string, address?: string, visitor?: string, interaction?: string, order?: string, task?: string) => {
    if (phone !== undefined) return `+1${String(2_030_000_000 + copy * 100 + Number(phone))}`;
    if (address !== undefined) return `${address}.${String(copy)}@`;
    if (visitor !== undefined) return `visitor-${String(copy)}-${visitor}`;
    if (interaction !== undefined) return `int-${String(copy)}-${interaction}`;
    if (order !== undefined) return `order-HP-${String(copy)}-${order}`;
    if (task !== undefined) return (copy * 2 + (task === '-16a0-' ? 0 : 1)).toString(16).padStart(8, '0') + task;
    return `2026-03-${String(2 + (copy % 28)).padStart(2, '0')}T`;
  });
}

/** The day's lines in the order in which this copy publishes them: some late, all else as it happened. */
function* published(copy: number, chance: Seeded): Generator<string> {
  const waiting: { due: number; line: string }[] = [];
  for (const [i, line] of DAY_LINES.entries()) {
    for (const late of waiting.filter(({ due }) => due === i)) yield late.line;
    if (chance.below(1000) < LATE) waiting.push({ due: Math.min(DAY_LINES.length, i + 1 + chance.below(LATE_BY)), line: renamed(line, copy) });
    else yield renamed(line, copy);
  }
  for (const late of waiting.filter(({ due }) => due === DAY_LINES.length)) yield late.line;
}

export const STRUCTURED = { 'content-type': 'application/cloudevents+json; charset=UTF-8' } as const;

/** Every attribute of the day's events is a text. */
interface Told { readonly [attribute: string]: string; readonly identity: string; readonly datacontenttype: string }
interface ToldWithData { readonly data: unknown }

/** Keyed by identity, as `publish` does it: what is of one identity stays in order. */
function asRecord(line: string, kind: 'event' | 'repeat', binary: boolean): LoadRecord {
  const { data, ...attributes } = JSON.parse(line) as Told & ToldWithData;
  const { datacontenttype, ...named } = attributes;
  const key = Buffer.from(attributes.identity);
  if (!binary) return { kind, line, key, value: Buffer.from(line), headers: STRUCTURED };
  const headers = Object.fromEntries(Object.entries(named).map(([name, value]) => [`ce_${name}`, value]));
  return { kind, line, key, value: Buffer.from(JSON.stringify(data)), headers: { ...headers, 'content-type': datacontenttype } };
}

/** Each kind of what can never be recorded: no JSON, no CloudEvent, nobody's, another workspace's, nothing at all. */
function poison(number: number, chance: Seeded): LoadRecord {
  const event = { specversion: '1.0', id: `poison-${String(number)}`, source: '/load/poison', type: 'load.poison', identity: '+12030000000', identitytype: 'phone' };
  const without = (...names: readonly string[]): string => JSON.stringify(Object.fromEntries(Object.entries(event).filter(([name]) => !names.includes(name))));
  const key = chance.below(2) === 0 ? null : Buffer.from(`poison-${String(chance.below(20))}`);
  const put = (line: string | null, text: string | null): LoadRecord => ({ kind: 'poison', line, key, value: text === null ? null : Buffer.from(text), headers: STRUCTURED });
  switch (chance.below(6)) {
    case 0: { const text = `{"specversion":"1.0","id":"poison-${String(number)}`; return put(text, text); }
    case 1: { const text = without('id'); return put(text, text); }
    case 2: { const text = without('identity', 'identitytype'); return put(text, text); }
    case 3: { const text = JSON.stringify({ ...event, specversion: '0.2' }); return put(text, text); }
    // A file is imported into one workspace, whatever it says; only a topic has a list of those it may write to.
    case 4: return put(null, JSON.stringify({ ...event, workspace: 'not_of_this_topic' }));
    default: return put(null, null);
  }
}

/**
 * `records` records in the order of the topic. The same seed gives the same; `firstCopy` keeps two loads apart (a load takes
 * one copy per 184 records).
 */
export function* load(options: { readonly seed: number; readonly records: number; readonly firstCopy?: number }): Generator<LoadRecord> {
  const chance = seeded(options.seed);
  let copy = options.firstCopy ?? 1;
  const open: Generator<string>[] = [];
  const recent: string[] = [];
  const old: string[] = [];
  for (let made = 0; made < options.records;) {
    const draw = chance.below(1000);
    if (draw < POISON) { made += 1; yield poison(made, chance); continue; }
    if (draw < POISON + REPEATS && recent.length > 0) {
      made += 1;
      yield asRecord(chance.pick(old.length > 0 && chance.below(4) === 0 ? old : recent), 'repeat', chance.below(1000) < BINARY);
      continue;
    }
    while (open.length < OPEN_COPIES) open.push(published(copy++, chance));
    const at = chance.below(open.length);
    const next = open[at]?.next();
    if (next === undefined || next.done === true) { open.splice(at, 1); continue; }
    made += 1;
    const line = next.value;
    // The day itself holds one line twice.
    const kind = recent.includes(line) ? 'repeat' : 'event';
    recent.push(line);
    if (recent.length > RECENT) recent.shift();
    if (made % 97 === 0) old.splice(chance.below(OLD), old.length < OLD ? 0 : 1, line);
    yield asRecord(line, kind, chance.below(1000) < BINARY);
  }
}

/** In pieces of at most `size`, for a producer. */
export function* inPieces<T>(items: Iterable<T>, size: number): Generator<T[]> {
  let piece: T[] = [];
  for (const item of items) {
    piece.push(item);
    if (piece.length === size) { yield piece; piece = []; }
  }
  if (piece.length > 0) yield piece;
}
