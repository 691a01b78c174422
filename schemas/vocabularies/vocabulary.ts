// What a vocabulary is, and how vocabularies read data that others wrote: they are total, so nothing here throws.
import type { FactBody, Instant, InteractionId, Medium } from '../facts.ts';
import type { RecordedCloudEvent } from '../recorded.ts';

/** One platform's way of speaking: pure and total (design.md section 4). */
export interface Vocabulary {
  /** Also the namespace of its interaction ids. */
  readonly name: string;
  /** By type alone: integrators publish under sources of their own. */
  readonly knows: (event: RecordedCloudEvent) => boolean;
  /** Only for an event that it knows. Data that it cannot read gives one `unreadable` fact. */
  readonly facts: (event: RecordedCloudEvent) => readonly FactBody[];
  /** The platform's own timestamp, for events without `time`. */
  readonly occurredAt?: (event: RecordedCloudEvent) => Instant | null;
}

export type Members = Readonly<Record<string, unknown>>;

/** Longer ids are no ids: an interaction's id stands in each of its facts. */
export const MAX_ID_LENGTH = 256;

/** A JSON object's members; null for anything else. */
export function members(value: unknown): Members | null {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Members) : null;
}

/** A text with something in it, trimmed; else null. */
export function text(value: unknown): string | null {
  if (typeof value !== 'string') return null;
  const trimmed = value.trim();
  return trimmed === '' ? null : trimmed;
}

/**
 * The data once more, with integers that a double cannot hold as their own spelling, so that an id of twenty digits is
 * not rounded into its neighbour's. Costs a second parse: only where a number is known to stand where an id belongs.
 */
export function exactJson(event: RecordedCloudEvent): unknown {
  const keepSpelling = (_key: string, value: unknown, context?: { source?: string }): unknown =>
    typeof value === 'number' && !Number.isSafeInteger(value) && (Number.isInteger(value) || !Number.isFinite(value)) ? (context?.source ?? value) : value;
  try {
    return JSON.parse(new TextDecoder().decode(event.event.data), keepSpelling) as unknown;
  } catch {
    return undefined;
  }
}

/** A fact that says only that a known type's data could not be read. `reason` names fields and rules, never values. */
export function unreadable(reason: string): readonly FactBody[] {
  return [{ kind: 'unreadable', reason }];
}

export function interactionId(vocabulary: string, id: string): InteractionId {
  return `${vocabulary}:${id}`;
}

const MEDIA: ReadonlyMap<string, Medium> = new Map(['Phone', 'Chat', 'Email', 'Sms', 'Social', 'Video'].map((name) => [name.toLowerCase(), name]));

/** The platform's word for a medium, as the 8x8 data would show it; one that nobody knows keeps its letters, capitalised. */
export function medium(word: string): Medium {
  return MEDIA.get(word.toLowerCase()) ?? word.charAt(0).toUpperCase() + word.slice(1);
}
