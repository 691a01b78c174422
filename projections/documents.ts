// The documents of the group `journeys`, as they are stored and as readers find them. Types alone: what makes them is in
// journeys.ts (nodes and journeys), transitions.ts (timeline and row) and outcomes.ts (cells).
import type { Agent, AiTool, Contact, Direction, Endpoint, Instant, InteractionId, Medium, PhoneCode, Place, Role, Schedule, Script } from '../schemas/facts.ts';

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
  /** Of IN_SCRIPT; of FORWARD and TRANSFER too, where a script is the destination (8x8's answers leave it out there). */
  scripts: Script[];
  /** Milliseconds in this state; 0 for markers; null while it is still open. */
  duration: number | null;
  externalNumber: string | null;
  mediaType: Medium | null;
  /** Ids of the recorded events behind it, at most 10 (the first ones). */
  events: string[];
}

/** The states that last; the other names are markers. EXTERNAL has no transition of its own: it follows a forward to an outside number. */
export type StateName = Exclude<TransitionName, 'STARTED' | 'FORWARD' | 'TRANSFER' | 'FINISHED'>;
export type LastState = StateName | 'EXTERNAL';

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
  /** The agent behind the participant, where it is one that is known. */
  agentId: string | null;
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
  /** Its id where it is known as an interaction; as an explicit journey id. */
  interaction: InteractionId | null;
  explicitId: string | null;
  /** It would link too many: none of its edges counts, and none is kept. For ever, since edges only come. */
  over: boolean;
  /** Keys of linked nodes, sorted. Edges to nodes that are `over` stand here and do not count. */
  neighbours: string[];
  /** Explicit ids said of this interaction, with the earliest time of each; sorted by id. */
  explicit: [id: string, at: Instant][];
  /** `orderKey` of the first and the last fact kept. */
  first: string | null;
  last: string | null;
  /** Facts past the limit were left out. */
  truncated: boolean;
  /** How many full chunks of facts `f/<node key>/0 …` stand before `facts`. */
  chunks: number;
  /** Facts in order, each as text: going on from here needs none of them, so that none is read apart with every event. */
  facts: string[];
}

/** Counts by bucket index; bucket i counts durations at most BOUNDS_S[i] seconds and above the bound before; the last index is "longer". */
export type Histogram = Record<number, number>;

/** Document `o/<quarter>/<hash of the dimensions>`; `<quarter>` = start of the quarter in seconds since 1970, offset and zero-padded to 12 digits (`quarterKey`). */
export interface OutcomeCell {
  quarter: number;
  outcome: Outcome;
  queue: { id: string | null; name: string | null } | null;
  medium: Medium | null;
  direction: Direction | null;
  journeys: number;
  waiting: Histogram;
  talking: Histogram;
  hold: Histogram;
}
