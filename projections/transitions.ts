// A journey's timeline: facts in order → transitions with durations (journey-apis-facts.md section 1.9).
import type { Agent, Instant, Medium, Place, Script } from '../schemas/facts.ts';

export type TransitionName =
  | 'STARTED' | 'OUTBOUND_STARTED' | 'IN_SCRIPT' | 'WAITING' | 'TALKING' | 'HOLD' | 'FORWARD' | 'TRANSFER'
  | 'VOICEMAIL' | 'FOLLOWUP_PENDING' | 'PROCESSING' | 'FINISHED';

/** As it is stored. Empty arrays and nulls stand as the 8x8 document shows them. */
export interface Transition {
  at: Instant;
  name: TransitionName;
  /** The platform's own interaction id, without its vocabulary. */
  interactionId: string;
  agents: Agent[];
  previousAgents: Agent[];
  queue: Place | null;
  previousQueue: Place | null;
  ringGroup: Place | null;
  previousRingGroup: Place | null;
  autoAttendant: Place | null;
  channel: Place | null;
  scripts: Script[];
  /** Milliseconds in this state; 0 for markers; null while it is still open. */
  duration: number | null;
  externalNumber: string | null;
  mediaType: Medium | null;
  /** Ids of the recorded events behind it, at most 10 (the first ones). */
  events: string[];
}
