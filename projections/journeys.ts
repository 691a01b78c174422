// The group `journeys`: interactions, the journeys that they form, their rows and index terms.
import type { Agent, AiTool, Contact, Direction, Endpoint, Instant, Medium, PhoneCode, Place, Role, Schedule } from '../schemas/facts.ts';
import type { Transition } from './transitions.ts';

/** 8x8's newest ten (journey-apis-facts.md 1.8). */
export type Outcome =
  | 'Handled' | 'Abandoned' | 'EndedInScript' | 'Other' | 'UnknownOutcome'
  | 'ForwardedToExternalNumber' | 'Voicemail' | 'CallbackRequested' | 'CallbackNoAnswer' | 'CallbackExpired';

export interface Participant {
  role: Role;
  id: string;
  interactionId: string;
  name: string | null;
  joined: Instant;
  /** Closed intervals and at most one open one (`to: null`). */
  held: { from: Instant; to: Instant | null }[];
  dropped: Instant | null;
}

/** What a journey answers with: the fields of 8x8's newest revision plus our own. */
export interface JourneyRow {
  journeyId: string;
  at: Instant;
  finishedAt: Instant | null;
  interactions: { id: string; direction: Direction | null; type: string | null }[];
  agents: Agent[];
  contact: Contact;
  entryPoint: Endpoint | null;
  origin: Endpoint | null;
  direction: Direction | null;
  transfersCompleted: number;
  forwardedToQueue: number;
  forwardedToRingGroup: number;
  forwardedToScript: number;
  /** Milliseconds over closed intervals. */
  holdDuration: number;
  waitingDuration: number;
  talkingDuration: number;
  wrapUpDuration: number;
  mediaTypes: Medium[];
  outcome: Outcome;
  pbxNames: string[];
  tenantIds: string[];
  wrapUpCodes: string[];
  queues: Place[];
  ringGroups: Place[];
  scheduleHours: string[];
  schedules: Schedule[];
  outboundPhoneCodes: PhoneCode[];
  aiAgentInformation: { creditConsumption: number; toolsUsedSuccessfully: AiTool[] } | null;
  /** Keys of the identities (evidence only) whose events speak of it. */
  identities: string[];
  topics: string[];
  data: Record<string, string>;
  attributes: string[];
  /** Facts past a limit were left out (design.md section 4). */
  truncated: boolean;
}

/** Document `j/<journey key>`. Closed transitions past the newest 64 stand in `t/<journey key>/<chunk>` (each a Transition[] of 64). */
export interface JourneyDocument {
  row: JourneyRow;
  participants: Participant[];
  /** How many chunks `t/<key>/0 …` stand before `transitions`. */
  chunks: number;
  transitions: Transition[];
  /** The fold's own state, from which a fact that sorts last goes on. Not for readers. */
  state: unknown;
}

/** Document `n/<node key>`: an interaction, an explicit journey id, or both. `journey` is the key of the journey that holds it now. Readers resolve a journey id by `nodeKey(id)` → this → `j/<journey>`. */
export interface NodeDocument {
  journey: string | null;
  [more: string]: unknown;
}
import type { WorkspaceKeys } from '../schemas/identity.ts';
export interface Filter { field: string; sub: boolean; term: (keys: Pick<WorkspaceKeys, 'term'>, value: string) => string }
const f = (field: string, sub: boolean): Filter => ({ field, sub, term: (keys, value) => keys.term(field, field === 'mediaTypes' ? value.toLowerCase() : value) });
export const JOURNEY_FILTERS: Readonly<Record<string, Filter>> = Object.fromEntries(['direction', 'outcome', 'mediaTypes', 'queues.name', 'agents.name', 'contact.phoneNumber', 'interactions.id', 'journeyId'].map((n) => [n, f(n, false)]));
export const TRANSITION_FILTERS: Readonly<Record<string, Filter>> = Object.fromEntries(['journeyId', 'transitions.name', 'transitions.agents.name'].map((n) => [n, f(n, n.startsWith('t'))]));
export const journeys = { group: 'journeys', version: 'stub', ordered: ['o'], fields: { ...Object.fromEntries(Object.keys(JOURNEY_FILTERS).map((n) => [n, 'sparse'])), identity: 'sparse' }, subFields: { 'transitions.name': 'sparse', 'transitions.agents.name': 'sparse' } } as const;
