// GET /durations and /durations/transitions: what 8x8's users had until December 2025 and lost. Sums over the states of a
// timeline, in milliseconds; a page of journeys at a time.
import type { DurationRow, TransitionDurationRow } from '../../schemas/apis/native.ts';
import { msOf } from '../../schemas/time.ts';
import type { Transition, TransitionName } from '../../projections/documents.ts';
import type { Call, Outcome } from './call.ts';
import { filtersOf, queryOf, type Ranged, spanOf } from './ranges.ts';
import { canonical, LIMIT, list, page, type Timeline, timelinesOf } from './searches.ts';
import type { Zone, Zones } from './zones.ts';

export type Asked = Ranged & { readonly limit?: string | undefined; readonly cursor?: string | undefined; readonly sort?: 'asc' | 'desc' | undefined; readonly timezone?: string | undefined };

/** `maxDays`: the longest range. */
export interface DurationsOptions { readonly zones: Zones; readonly maxDays: number }

export function durationsOf(call: Call<unknown, Asked, unknown>, options: DurationsOptions): Promise<Outcome> { return listed('getDurations', call, options, durationRow); }
export function transitionDurationsOf(call: Call<unknown, Asked, unknown>, options: DurationsOptions): Promise<Outcome> { return listed('getTransitionDurations', call, options, transitionRows); }

async function listed(endpoint: string, { query, keys, view }: Call<unknown, Asked, unknown>, { zones, maxDays }: DurationsOptions, rowOf: (timeline: Timeline, zone: Zone) => object): Promise<Outcome> {
  const read = spanOf(query, maxDays);
  if (read.kind === 'refused') return read;
  const filters = filtersOf(query);
  const direction = query.sort ?? 'asc';
  const found = await list(view('journeys'), keys, {
    scope: { endpoint, sort: `TIME ${direction}`, query: [read.span.from, read.span.to, canonical(filters)] }, cursor: query.cursor,
    query: { ...queryOf(read.span, filters, keys), direction, limit: query.limit === undefined ? LIMIT : Number(query.limit) },
  });
  if (found.kind === 'refused') return found;
  const zone = zones(query.timezone ?? 'UTC');
  return page(found, (await timelinesOf(view('journeys'), keys, found.rows)).map((timeline) => ({ value: rowOf(timeline, zone) })));
}

function durationRow({ document: { row }, transitions }: Timeline, zone: Zone): DurationRow {
  const { finishedAt } = row;
  const processing = sum(transitions, ({ name }) => name === 'PROCESSING');
  return {
    journeyId: row.journeyId, time: zone.print(row.at), finishedTime: finishedAt === null ? null : zone.print(finishedAt), direction: row.direction, mediaTypes: row.mediaTypes, outcome: row.outcome,
    agents: row.agents.map(({ id, name }) => name ?? id), queues: row.queues.map(({ id, name }) => name ?? id),
    scriptDuration: sum(transitions, ({ name }) => name === 'IN_SCRIPT'),
    waitingDuration: row.waitingDuration,
    queueWaitDuration: sum(transitions, ({ name, queue }) => name === 'WAITING' && queue !== null),
    ringGroupWaitDuration: sum(transitions, ({ name, ringGroup }) => name === 'WAITING' && ringGroup !== null),
    talkingDuration: row.talkingDuration, holdDuration: row.holdDuration, processingDuration: processing, wrapUpDuration: row.wrapUpDuration,
    handlingDuration: row.talkingDuration + row.holdDuration + processing + row.wrapUpDuration,
    totalDuration: finishedAt === null ? null : msOf(finishedAt) - msOf(row.at),
  };
}

function sum(transitions: readonly Transition[], counts: (transition: Transition) => boolean): number {
  return transitions.reduce((all, transition) => all + (counts(transition) ? transition.duration ?? 0 : 0), 0);
}

function transitionRows({ document: { row }, transitions }: Timeline, zone: Zone): TransitionDurationRow {
  return { journeyId: row.journeyId, transitions: transitions.map((transition) => transitionRow(transition, zone)) };
}

function transitionRow(transition: Transition, zone: Zone): TransitionDurationRow['transitions'][number] {
  const { at, name, interactionId, agents, queue, ringGroup, duration, wrapUp } = transition;
  const as = (state: TransitionName): number | null => (name === state ? duration : null);
  // Agents leave a conversation, whether they talk or hold; while it goes on, perhaps none has.
  const worked = (name === 'TALKING' || name === 'HOLD') && (duration !== null || wrapUp > 0) ? wrapUp : null;
  return {
    time: zone.print(at), name, interactionId, agents: agents.map((agent) => agent.name ?? agent.id), queue: queue?.name ?? queue?.id ?? null, ringGroup: ringGroup?.name ?? ringGroup?.id ?? null,
    waitingDuration: as('WAITING'), talkingDuration: as('TALKING'), holdDuration: as('HOLD'), processingDuration: as('PROCESSING'), wrapUpDuration: worked,
    totalDuration: duration === null ? null : duration + (worked ?? 0),
  };
}
