// The only registry of vocabularies, and the one way from a recorded event to facts.
import type { CustomerFact, FactBody, Instant, Interpreted, InteractionFact, InteractionId } from '../facts.ts';
import { isAnonymous, previousIdentity } from '../identity.ts';
import type { RecordedCloudEvent } from '../recorded.ts';
import { eightByEight } from './8x8.ts';
import { throughline } from './throughline.ts';
import type { Vocabulary } from './vocabulary.ts';
import { wxcc } from './wxcc.ts';

export type { Vocabulary } from './vocabulary.ts';

/** No two know the same event type. */
export const vocabularies: readonly Vocabulary[] = [throughline, wxcc, eightByEight];

/** Whether an id is a placeholder such as `0` or `unknown`: what bears it is not one interaction, and would tie strangers together. */
function isPlaceholder(id: string): boolean {
  return isAnonymous(id.trim());
}

function withoutVocabulary(interaction: InteractionId): string {
  return interaction.slice(interaction.indexOf(':') + 1);
}

/** Whether a fact of an interaction with a real id has nothing to say, because what it names is a placeholder or itself. */
function saysNothing(body: FactBody & { interaction: InteractionId }): boolean {
  if (body.kind === 'linked') return body.to === body.interaction || isPlaceholder(withoutVocabulary(body.to));
  return body.kind === 'journey' && isPlaceholder(body.journeyId);
}

/** What `previousidentity` says, whatever the vocabulary (design.md section 6). */
function previously(recorded: RecordedCloudEvent): readonly FactBody[] {
  const previous = previousIdentity(recorded.event);
  return previous === null ? [] : [{ kind: 'identifiers', identifiers: [previous], previous: true }];
}

/**
 * A recorded event's facts, with their place in the one order. Pure and total: an event that no vocabulary knows gives
 * `vocabulary: null` and what its attributes alone say; data that cannot be read gives one `unreadable` fact. The
 * occurrence is the event's `time`, else the vocabulary's own timestamp, else the recorded time (design.md section 1).
 */
export function interpret(recorded: RecordedCloudEvent): { vocabulary: string | null; interpreted: Interpreted } {
  const vocabulary = vocabularies.find((candidate) => candidate.knows(recorded));
  const at: Instant = recorded.event.time ?? vocabulary?.occurredAt?.(recorded) ?? recorded.recordedAt;
  const interactionFacts: InteractionFact[] = [];
  const customerFacts: CustomerFact[] = [];
  const { eventId } = recorded;
  // An event's facts mostly speak of one interaction: its id is looked at once.
  let known: InteractionId | null = null;
  let placeholder = false;
  let index = 0;
  const add = (body: FactBody): void => {
    if ('interaction' in body) {
      if (body.interaction !== known) {
        known = body.interaction;
        placeholder = isPlaceholder(withoutVocabulary(known));
      }
      if (placeholder || saysNothing(body)) return;
      interactionFacts.push({ ...body, at, tie: body.tie ?? 0, eventId, index });
    } else {
      customerFacts.push({ ...body, at, tie: body.tie ?? 0, eventId, index });
    }
    index += 1;
  };
  previously(recorded).forEach(add);
  vocabulary?.facts(recorded).forEach(add);
  const { identity, recordedAt, event } = recorded;
  return {
    vocabulary: vocabulary?.name ?? null,
    interpreted: { eventId, identity, at, recordedAt, type: event.type, source: event.source, interactionFacts, customerFacts },
  };
}
