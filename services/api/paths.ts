// GET /paths: which state follows which, and the commonest ways through, counted from the timelines of the journeys that
// match. Work is linear in their transitions; what is held is a number for each step and the text of each way.
import { JOURNEYS_READ_MAX, type PathRow, type PathSequence, type PathStep, SEQUENCES, TRANSITIONS_READ_MAX } from '../../schemas/apis/native.ts';
import { TRANSITION_NAMES } from '../../schemas/apis/eightbyeight.ts';
import { msOf } from '../../schemas/time.ts';
import type { Outcome as JourneyOutcome, TransitionName } from '../../projections/documents.ts';
import type { Call, Outcome } from './call.ts';
import { filtersOf, matching, queryOf, type Ranged, rounded, spanOf } from './ranges.ts';
import { type Timeline, timelinesOf } from './searches.ts';
import { refuse } from './views.ts';

/** States of a sequence: longer timelines are cut, so that one hostile journey is not a page of names. */
const STATES_MAX = 64;

export type Asked = Ranged & { readonly limit?: string | undefined };
export interface PathsOptions { readonly maxDays: number; /** Tests make them small. */ readonly journeysMax?: number; readonly transitionsMax?: number }

export async function pathsOf({ query, keys, view, signal }: Call<unknown, Asked, unknown>, { maxDays, journeysMax = JOURNEYS_READ_MAX, transitionsMax = TRANSITIONS_READ_MAX }: PathsOptions): Promise<Outcome> {
  const read = spanOf(query, maxDays);
  if (read.kind === 'refused') return read;
  const found = await matching(view('journeys'), keys, queryOf(read.span, filtersOf(query), keys), journeysMax);
  if (found.kind === 'refused') return found;
  const paths = new Paths();
  for await (const rows of found.pages) {
    for (const timeline of await timelinesOf(view('journeys'), keys, rows)) paths.add(timeline);
    if (paths.transitions > transitionsMax) return refuse('tooManyTransitions');
    // Nobody waits for the answer any more.
    if (signal.aborted) break;
  }
  return answerOf(paths, query.limit === undefined ? SEQUENCES : Number(query.limit));
}

interface Step { readonly from: TransitionName; readonly to: TransitionName; journeys: number; readonly elapsed: number[] }
interface Sequence { readonly states: readonly TransitionName[]; journeys: number; readonly outcomes: Map<JourneyOutcome, number>; readonly totals: number[] }

class Paths {
  readonly steps = new Map<string, Step>();
  readonly sequences = new Map<string, Sequence>();
  journeys = 0;
  transitions = 0;

  add({ document: { row }, transitions }: Timeline): void {
    this.journeys += 1;
    this.transitions += transitions.length;
    const seen = new Set<Step>();
    transitions.forEach((to, i) => {
      const from = transitions[i - 1];
      if (from === undefined) return;
      const step = this.#step(from.name, to.name);
      step.elapsed.push(Math.max(0, msOf(to.at) - msOf(from.at)));
      if (!seen.has(step)) step.journeys += 1;
      seen.add(step);
    });
    const states = transitions.slice(0, STATES_MAX).map(({ name }) => name);
    const sequence = this.#sequence(states);
    sequence.journeys += 1;
    sequence.outcomes.set(row.outcome, (sequence.outcomes.get(row.outcome) ?? 0) + 1);
    if (row.finishedAt !== null) sequence.totals.push(Math.max(0, msOf(row.finishedAt) - msOf(row.at)));
  }

  #step(from: TransitionName, to: TransitionName): Step {
    const key = `${from} ${to}`;
    let step = this.steps.get(key);
    if (step === undefined) this.steps.set(key, step = { from, to, journeys: 0, elapsed: [] });
    return step;
  }

  #sequence(states: readonly TransitionName[]): Sequence {
    const key = states.map((name) => LETTERS[name]).join('');
    let sequence = this.sequences.get(key);
    if (sequence === undefined) this.sequences.set(key, sequence = { states, journeys: 0, outcomes: new Map(), totals: [] });
    return sequence;
  }
}

/** One letter a state: a hundred thousand ways are kept at once. */
const LETTERS = Object.fromEntries(TRANSITION_NAMES.map((name, i) => [name, String.fromCharCode(65 + i)])) as Readonly<Record<TransitionName, string>>;

function answerOf(paths: Paths, limit: number): Outcome {
  const share = (journeys: number): number => (paths.journeys === 0 ? 0 : rounded(journeys / paths.journeys));
  const steps = [...paths.steps].sort(([a, one], [b, other]) => other.elapsed.length - one.elapsed.length || (a < b ? -1 : 1))
    .map(([, { from, to, journeys, elapsed }]): PathStep => ({ from, to, count: elapsed.length, journeys, share: share(journeys), medianDuration: median(elapsed) }));
  const sequences = [...paths.sequences].sort(([a, one], [b, other]) => other.journeys - one.journeys || (a < b ? -1 : 1)).slice(0, limit)
    .map(([, { states, journeys, outcomes, totals }]): PathSequence => {
      const counted = [...outcomes].sort(([a, one], [b, other]) => other - one || (a < b ? -1 : 1));
      return { states: [...states], journeys, share: share(journeys), medianDuration: median(totals), outcome: counted[0]?.[0] ?? 'UnknownOutcome', outcomes: Object.fromEntries(counted) };
    });
  const rows = [
    ...steps.map((step): PathRow => ({ kind: 'step', ...step, states: [], outcome: null })),
    ...sequences.map(({ states, journeys, share: part, medianDuration, outcome }): PathRow => ({ kind: 'sequence', from: null, to: null, states, count: null, journeys, share: part, medianDuration, outcome })),
  ];
  return { kind: 'page', rows: rows.map((value) => ({ value })), cursor: null, total: null, whole: { journeys: paths.journeys, steps, sequences } };
}

/** The middle one, or the mean of the middle two; null of none. */
function median(values: readonly number[]): number | null {
  if (values.length === 0) return null;
  const sorted = Float64Array.from(values).sort();
  const half = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[half] ?? null : ((sorted[half - 1] ?? 0) + (sorted[half] ?? 0)) / 2;
}
