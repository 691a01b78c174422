// What a vocabulary says of a recorded event: facts, a closed union, and the one order in which every fold sees them
// (design.md sections 1 and 4). A fact holds plain JSON values, because views store it as it is.

/** An instant in UTC with nine fraction digits, `2026-03-02T09:00:00.123456789Z`: thirty characters, so that string order is time order. Made only by `parseInstant` in time.ts. */
export type Instant = string & { readonly __brand: 'Instant' };

/** An interaction's id within its workspace: `<vocabulary>:<the platform's id>`. */
export type InteractionId = `${string}:${string}`;

/** `null` means "said to be none", a missing key "not said". */
export interface Site { readonly id: string | null; readonly name: string | null }
export interface Agent {
  readonly id: string;
  readonly name?: string | null;
  readonly email?: string | null;
  readonly loginId?: string | null;
  readonly department?: string | null;
  readonly subscriptionId?: string | null;
  readonly group?: { readonly id: string | null; readonly name: string | null } | null;
  readonly site?: Site | null;
  readonly type?: 'HUMAN' | 'AI';
}
/** A queue, ring group, auto attendant or channel: somewhere an interaction can be. */
export interface Place { readonly id: string | null; readonly name?: string | null; readonly extension?: string | null; readonly site?: Site | null }
export interface Contact { readonly name?: string | null; readonly phoneNumber?: string | null; readonly email?: string | null }
export interface Endpoint {
  readonly type: 'cc-channel' | 'call-queue' | 'ring-group' | 'auto-attendant' | 'user' | 'ai-studio';
  readonly id?: string | null;
  readonly name?: string | null;
  readonly phoneNumber?: string | null;
  readonly extension?: string | null;
  readonly email?: string | null;
  readonly loginId?: string | null;
  readonly department?: string | null;
  readonly pbx?: string | null;
  readonly tenantId?: string | null;
  readonly site?: Site | null;
}
export interface Schedule { readonly id: string | null; readonly tag: string | null; readonly tenantId: string | null; readonly result: string }
export interface Script { readonly id: string | null; readonly name: string | null }
export interface PhoneCode { readonly listName: string | null; readonly name: string | null; readonly shortCode: string | null }
export interface AiTool { readonly name: string; readonly success: boolean }

export type Direction = 'Inbound' | 'Outbound' | 'Internal';
/** Capitalised as the 8x8 data shows them; a medium outside these keeps the platform's word, capitalised. */
export type Medium = 'Phone' | 'Chat' | 'Email' | 'Sms' | 'Social' | 'Video' | (string & {});
export type Role = 'customer' | 'agent' | 'supervisor' | 'bot' | 'treatment';

/** Where something is sent: exactly what is known of the destination. */
export interface Destination {
  readonly agents?: readonly Agent[];
  readonly queue?: Place | null;
  readonly ringGroup?: Place | null;
  readonly autoAttendant?: Place | null;
  readonly channel?: Place | null;
  readonly script?: Script | null;
  readonly externalNumber?: string | null;
}
/** Where a forward or transfer came from. Left out, the fold takes what it knows of the interaction. */
export interface Origin { readonly agents?: readonly Agent[]; readonly queue?: Place | null; readonly ringGroup?: Place | null }

/** An identifier that a vocabulary marks as the customer's own. `type` is the identity type it belongs to. */
export interface Identifier { readonly type: string; readonly value: string }

/** What is said of one interaction. */
export type InteractionFactBody =
  /**
   * It began, or more is said of how it began (later ones fill what earlier ones left open). `leg`: it goes on with what
   * began as another interaction, and shows no beginning of its own. `inScript`: from its beginning on the customer is in
   * the platform's script, as far as is known. `callback`: a customer is called back, whatever else of it says so.
   */
  | { readonly kind: 'started'; readonly direction?: Direction; readonly medium?: Medium; readonly contact?: Contact; readonly entryPoint?: Endpoint; readonly origin?: Endpoint; readonly pbx?: string; readonly tenant?: string; readonly platform?: string; readonly leg?: true; readonly inScript?: true; readonly callback?: true }
  /** It belongs to the same journey as another interaction (a transfer's second leg, a callback, a voicemail). */
  | { readonly kind: 'linked'; readonly to: InteractionId }
  /** It belongs to the journey of this explicit id. */
  | { readonly kind: 'journey'; readonly journeyId: string }
  | { readonly kind: 'joined'; readonly role: Role; readonly participantId: string; readonly agent?: Agent; readonly name?: string }
  | { readonly kind: 'dialling'; readonly agents?: readonly Agent[]; readonly queue?: Place | null }
  | { readonly kind: 'script'; readonly scripts?: readonly Script[]; readonly autoAttendant?: Place | null; readonly scheduleHours?: readonly string[]; readonly schedules?: readonly Schedule[] }
  /** `arrival`: it came to the queue, or was offered to the agents, and the platform does not say how: what was before tells a forward, a transfer or neither. */
  | { readonly kind: 'waiting'; readonly queue?: Place | null; readonly ringGroup?: Place | null; readonly agents?: readonly Agent[]; readonly arrival?: 'queued' | 'offered' }
  /** It left its queue with nobody assigned; where it goes is told by what follows. `timeout`: nobody came in time. Else the customer has left, if it ends so. */
  | { readonly kind: 'unqueued'; readonly timeout?: true }
  | { readonly kind: 'forwarded'; readonly to: Destination; readonly from?: Origin }
  /** `open`: where to is told by what follows. */
  | { readonly kind: 'transferred'; readonly to: Destination; readonly from?: Origin; readonly open?: true }
  /** `taken`: all that is said is that the agents took it. `ringing`: the customer of a call out may not be there yet. */
  | { readonly kind: 'talking'; readonly agents?: readonly Agent[]; readonly queue?: Place | null; readonly taken?: 'ringing' | 'connected' }
  /** These agents are in the interaction now, and no others; `talking`: with the customer. */
  | { readonly kind: 'present'; readonly agents: readonly Agent[]; readonly talking?: true }
  | { readonly kind: 'held'; readonly agents?: readonly Agent[]; readonly participantId?: string }
  | { readonly kind: 'resumed'; readonly agents?: readonly Agent[]; readonly participantId?: string }
  | { readonly kind: 'voicemail'; readonly agents?: readonly Agent[]; readonly queue?: Place | null; readonly ringGroup?: Place | null }
  /** A voicemail or callback waits on a queue for somebody to follow it up. */
  | { readonly kind: 'followUp'; readonly reason: 'voicemail' | 'callback'; readonly queue?: Place | null }
  | { readonly kind: 'processing'; readonly agents?: readonly Agent[]; readonly queue?: Place | null }
  /** `last`: when nobody else talks with the customer, the conversation is over with it, though it may yet go on. Without an id (''), it is the one who has the customer. `had`: whoever leaves did, also where nothing else says so. */
  | { readonly kind: 'dropped'; readonly role?: Role; readonly participantId: string; readonly last?: true; readonly had?: true }
  | { readonly kind: 'wrappedUp'; readonly agents?: readonly Agent[]; readonly wrapUpCodes?: readonly string[] }
  | { readonly kind: 'phoneCodes'; readonly codes: readonly PhoneCode[] }
  | { readonly kind: 'aiAgent'; readonly creditConsumption?: number; readonly tools?: readonly AiTool[] }
  /** Conversation topics, data and attributes set (the Avaya engagement's `conversations`, `data`, `attributes`). */
  | { readonly kind: 'described'; readonly topics?: readonly string[]; readonly data?: Readonly<Record<string, string>>; readonly attributes?: readonly string[] }
  /**
   * `final: false` marks an end that the platform is known to say too early (a `task:ended` after a RONA): the interaction
   * goes on when more is said of it. `leg`: it may be that of one leg alone; and where the last agent had left, that was the end.
   */
  | { readonly kind: 'ended'; readonly by?: 'customer' | 'agent' | 'system'; readonly outcome?: 'forwardedExternal' | 'callbackExpired'; readonly final: boolean; readonly leg?: true };

/** What is said of a customer rather than of an interaction. */
export type CustomerFactBody =
  /** These identifiers are this customer's too (evidence; design.md section 6). `previous` marks the `previousidentity` attribute. */
  | { readonly kind: 'identifiers'; readonly identifiers: readonly Identifier[]; readonly previous?: boolean }
  | { readonly kind: 'named'; readonly firstName?: string | null; readonly lastName?: string | null; readonly name?: string | null }
  | { readonly kind: 'webActivity'; readonly name: string; readonly url?: string }
  /** A known type whose data could not be read. */
  | { readonly kind: 'unreadable'; readonly reason: string };

/** The place of a fact in the one order. No log position stands here. */
export interface FactOrder {
  readonly at: Instant;
  /** The vocabulary's own tie-break, in milliseconds, where its times are coarse; else 0. */
  readonly tie: number;
  readonly eventId: string;
  readonly index: number;
}
export type InteractionFact = FactOrder & { readonly interaction: InteractionId } & InteractionFactBody;
export type CustomerFact = FactOrder & CustomerFactBody;
export type Fact = InteractionFact | CustomerFact;
/** What a vocabulary returns: the body, its interaction where it has one, and its tie-break; order and event are added by `interpret`. */
export type FactBody = ({ readonly interaction: InteractionId; readonly tie?: number } & InteractionFactBody) | ({ readonly tie?: number } & CustomerFactBody);

/** A recorded event of the category `identity`, read and interpreted. */
export interface Interpreted {
  readonly eventId: string;
  /** Key of the event's identity: 32 hex digits (design.md section 3). For an anonymous value, that of the value, not of its stream. */
  readonly identity: {
    readonly key: string;
    readonly type: string;
    /** As received, for display. */
    readonly value: string;
    /** False for anonymous values and for events known by their subject alone. */
    readonly evidence: boolean;
    /** A built-in anonymous value: nobody. */
    readonly anonymous: boolean;
  };
  readonly at: Instant;
  readonly recordedAt: Instant;
  readonly type: string;
  readonly source: string;
  readonly interactionFacts: readonly InteractionFact[];
  readonly customerFacts: readonly CustomerFact[];
}

/** Rank of a kind at one instant: what opens comes before what it opens for, ends come last. A total Record, so that a new kind does not compile without its rank. */
export const RANK: Readonly<Record<Fact['kind'], number>> = {
  identifiers: 0, named: 1, webActivity: 2, unreadable: 3,
  started: 10, linked: 11, journey: 12, joined: 13, dialling: 14,
  forwarded: 20, transferred: 21, script: 22, waiting: 23, voicemail: 24, followUp: 25, unqueued: 26,
  processing: 30, talking: 31, held: 32, resumed: 33, present: 34,
  phoneCodes: 40, aiAgent: 41, described: 42, dropped: 43, wrappedUp: 44, ended: 50,
};

/** Total order over facts of one workspace: (instant, tie-break, rank of the kind, event id, index within the event). Zero only for the same fact. */
export function compareFacts(a: Fact, b: Fact): number {
  if (a.at !== b.at) return a.at < b.at ? -1 : 1;
  if (a.tie !== b.tie) return a.tie - b.tie;
  const rank = RANK[a.kind] - RANK[b.kind];
  if (rank !== 0) return rank;
  if (a.eventId !== b.eventId) return a.eventId < b.eventId ? -1 : 1;
  return a.index - b.index;
}

export function isInteractionFact(fact: Fact): fact is InteractionFact {
  return 'interaction' in fact;
}
