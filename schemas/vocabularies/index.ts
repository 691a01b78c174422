// The only registry of vocabularies, and the one way from a recorded event to facts.
import type { CustomerFact, FactBody, Instant, Interpreted, InteractionFact, InteractionId } from '../facts.ts';
import { isAnonymous, previousIdentity } from '../identity.ts';
import type { RecordedCloudEvent } from '../recorded.ts';
import { throughline } from './throughline.ts';
import type { Vocabulary } from './vocabulary.ts';
import { wxcc } from './wxcc.ts';

export type { Vocabulary } from './vocabulary.ts';

/** No two know the same event type. */
export const vocabularies: readonly Vocabulary[] = [throughline, wxcc];

const byName: ReadonlyMap<string, Vocabulary> = new Map(vocabularies.map((vocabulary) => [vocabulary.name, vocabulary]));

/** Whether an id is a placeholder such as `0` or `unknown`: what bears it is not one interaction, and would tie strangers together. */
function isPlaceholder(id: string): boolean {
  return isAnonymous(id.trim());
}

function withoutVocabulary(interaction: InteractionId): string {
  const colon = interaction.indexOf(':');
  return byName.has(interaction.slice(0, colon)) ? interaction.slice(colon + 1) : interaction;
}

function sayNothing(body: FactBody): boolean {
  if (!('interaction' in body)) return false;
  if (isPlaceholder(withoutVocabulary(body.interaction))) return true;
  if (body.kind === 'linked') return isPlaceholder(withoutVocabulary(body.to)) || body.to === body.interaction;
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
  let index = 0;
  for (const body of [...previously(recorded), ...(vocabulary?.facts(recorded) ?? [])]) {
    if (sayNothing(body)) continue;
    const fact = { ...body, at, tie: body.tie ?? 0, eventId: recorded.eventId, index };
    if ('interaction' in fact) interactionFacts.push(fact);
    else customerFacts.push(fact);
    index += 1;
  }
  const { identity, eventId, recordedAt, event } = recorded;
  return {
    vocabulary: vocabulary?.name ?? null,
    interpreted: { eventId, identity, at, recordedAt, type: event.type, source: event.source, interactionFacts, customerFacts },
  };
}
