// Journeys of sixty days and what is asked about them, as data: the same for every store that the bench asks
// (measurements.md section 9: fourteen filter fields, nine of ten documents with 1,190 bytes, eleven kinds of query).
import { createHash } from 'node:crypto';
import { JOURNEY_FILTERS } from '../../projections/journeys.ts';
import type { RecordChange } from '../../projections/projection.ts';
import type { WorkspaceKeys } from '../../schemas/identity.ts';
import type { Clause } from '../../services/ports.ts';
import { random } from './measure.ts';

export const WORKSPACE = 'bench';
export const DAYS = 60;
export const DAY_MS = 86_400_000;
export const START_MS = Date.UTC(2026, 0, 5);
const HOUR_MS = 3_600_000;
/** How far a journey may be recorded out of its order: with a million in sixty days, some share a millisecond. */
const JITTER_MS = 90_000;
const SHORT = 300;
const LONG = 1_190;

// ---- journeys --------------------------------------------------------------------------------------------------------

/** The values of its fields by the filter's name, and what a list shows of it. */
export interface Journey { readonly key: string; readonly time: number; readonly values: Readonly<Record<FieldName, readonly string[]>>; readonly document: string }

export const FIELD_NAMES = [
  'direction', 'outcome', 'mediaTypes', 'pbxNames', 'tenantIds', 'queues.name', 'agents.name', 'agents.group.name', 'wrapUpCodes',
  'contact.phoneNumber', 'contact.email', 'contact.name', 'interactions.id', 'journeyId',
] as const;
export type FieldName = (typeof FIELD_NAMES)[number];

const OUTCOMES = ['Handled', 'Handled', 'Handled', 'Handled', 'Handled', 'Handled', 'Abandoned', 'Abandoned', 'EndedInScript', 'Voicemail'];
const MEDIA = ['phone', 'phone', 'phone', 'phone', 'phone', 'phone', 'phone', 'chat', 'chat', 'email'];
const AGENTS = 2_000;
const QUEUES = 120;
const GROUPS = 30;
const CODES = 60;
const SHARE_OF_CONTACTS = 4;

const agent = (no: number): string => `Agent ${no}`;
const phone = (no: number): string => `1555${String(no).padStart(7, '0')}`;

/** In the order in which they begin, as a log gives them. Deterministic: each store is filled by a run of its own. */
export function* journeysOf(count: number): Generator<Journey> {
  const next = random(11);
  const below = (size: number): number => Math.floor(next() * size);
  /** Small numbers more often: some agents and queues take most of the work. */
  const skewed = (size: number): number => Math.floor(next() * next() * size);
  const filler = createHash('sha512').update('filler').digest('hex').repeat(16);
  const step = (DAYS * DAY_MS - JITTER_MS) / count;
  for (let i = 0; i < count; i += 1) {
    const key = createHash('md5').update(`journey ${i}`).digest('hex');
    const agents = next() < 0.25 ? [skewed(AGENTS), skewed(AGENTS)] : next() < 0.85 ? [skewed(AGENTS)] : [];
    const contact = below(Math.max(1, Math.ceil(count / SHARE_OF_CONTACTS)));
    const values: Journey['values'] = {
      direction: [next() < 0.8 ? 'Inbound' : 'Outbound'], outcome: [OUTCOMES[below(OUTCOMES.length)]!], mediaTypes: [MEDIA[below(MEDIA.length)]!],
      pbxNames: [`pbx${skewed(4)}`], tenantIds: [`tenant${skewed(3)}`],
      'queues.name': distinct(next() < 0.15 ? [skewed(QUEUES), skewed(QUEUES)] : [skewed(QUEUES)]).map((no) => `Queue ${no}`),
      'agents.name': distinct(agents).map(agent), 'agents.group.name': distinct(agents.map((no) => no % GROUPS)).map((no) => `Group ${no}`),
      wrapUpCodes: next() < 0.4 ? [`Code ${skewed(CODES)}`] : [],
      'contact.phoneNumber': [phone(contact)], 'contact.email': next() < 0.5 ? [`c${contact}@example.org`] : [], 'contact.name': [`Contact ${contact}`],
      'interactions.id': next() < 0.2 ? [`int-${i}`, `int-${i}-b`] : [`int-${i}`], journeyId: [key],
    };
    const time = Math.floor(START_MS + i * step + next() * JITTER_MS);
    const text = JSON.stringify({ time, ...values });
    yield { key, time, values, document: `${text.slice(0, -1)},"more":"${filler.slice(0, Math.max(0, (next() < 0.9 ? LONG : SHORT) - text.length - 10))}"}` };
  }
}

function distinct<T>(values: readonly T[]): readonly T[] { return [...new Set(values)]; }

/** As our projection would hand it to a view. */
export function recordOf({ key, time, values }: Journey, keys: WorkspaceKeys): RecordChange {
  const terms = Object.fromEntries(FIELD_NAMES.map((name) => [name, values[name].map((value) => JOURNEY_FILTERS[name]!.term(keys, value))]));
  return { key, state: { time, id: key, terms }, subs: new Map() };
}

// ---- what is asked ---------------------------------------------------------------------------------------------------

export interface Asked { readonly name: FieldName; readonly values: readonly string[] }
/** One search: AND of filters, each an OR of its values. */
export interface Ask { readonly from: number; readonly to: number; readonly filters: readonly Asked[]; readonly direction: 'asc' | 'desc' }

export interface Kind {
  readonly name: string;
  /** Filters that most journeys pass: a first page of those has a target of its own. */
  readonly isCommon: boolean;
  /** Whether it finds enough for a fiftieth page. */
  readonly isDeep: boolean;
  readonly variants: readonly Ask[];
}

/** Searches of one kind that differ in their values and ranges, asked in turn: none of them is answered from what the one before left warm alone. */
const VARIANTS = 12;

export function clausesOf({ filters }: Ask, keys: WorkspaceKeys): readonly Clause[] {
  return filters.map(({ name, values }) => ({ field: JOURNEY_FILTERS[name]!.field, terms: values.map((value) => JOURNEY_FILTERS[name]!.term(keys, value)) }));
}

export function kindsOf(count: number): readonly Kind[] {
  const next = random(5);
  const below = (size: number): number => Math.floor(next() * size);
  const is = (name: FieldName, ...values: readonly string[]): Asked => ({ name, values });
  /** All sixty days less some hours, so that both ends of the range cut a day. */
  const all = (): Pick<Ask, 'from' | 'to'> => ({ from: START_MS + below(8 * HOUR_MS), to: START_MS + DAYS * DAY_MS - below(8 * HOUR_MS) });
  const of = (lengthMs: number) => (): Pick<Ask, 'from' | 'to'> => {
    const from = START_MS + below(DAYS * DAY_MS - lengthMs);
    return { from, to: from + lengthMs };
  };
  const kind = (name: string, range: () => Pick<Ask, 'from' | 'to'>, filters: () => readonly Asked[], { common = false, deep = false, descending = false } = {}): Kind => ({
    name, isCommon: common, isDeep: deep, variants: Array.from({ length: VARIANTS }, (): Ask => ({ ...range(), filters: filters(), direction: descending ? 'desc' : 'asc' })),
  });
  const one = <T>(from: readonly T[]): T => from[below(from.length)]!;
  const combined = (): readonly Asked[] => [is('outcome', one(['Handled', 'Abandoned'])), is('direction', 'Inbound'), is('mediaTypes', 'phone')];
  const deep = { common: true, deep: true };
  return [
    kind('no filter, 60 days', all, () => [], deep),
    kind('one common filter', all, () => [one([is('outcome', 'Handled'), is('direction', 'Inbound'), is('mediaTypes', 'phone'), is('pbxNames', 'pbx0')])], deep),
    kind('one rare filter', all, () => [is('agents.name', agent(AGENTS / 2 + below(AGENTS / 2)))]),
    kind('three common combined', all, combined, deep),
    kind('three agents OR, and Inbound', all, () => [is('agents.name', agent(below(AGENTS)), agent(below(AGENTS)), agent(below(AGENTS))), is('direction', 'Inbound')]),
    kind("a contact's number", all, () => [is('contact.phoneNumber', phone(below(Math.ceil(count / SHARE_OF_CONTACTS))))]),
    kind('an interaction id', all, () => [is('interactions.id', `int-${below(count)}`)]),
    kind('one hour, two filters', of(HOUR_MS), () => [is('outcome', 'Handled'), is('queues.name', `Queue ${below(20)}`)]),
    kind('three common combined, descending', all, combined, { ...deep, descending: true }),
    kind('seven days, five filters', of(7 * DAY_MS), () => [...combined(), is('agents.group.name', `Group ${below(GROUPS)}`), is('queues.name', ...Array.from({ length: 3 }, () => `Queue ${below(40)}`))]),
  ];
}
