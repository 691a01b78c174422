// What goes between a request and its answer: what a handler is given, and what it gives back.
import type { Revision } from '../../schemas/apis/eightbyeight.ts';
import type { Column, Endpoint } from '../../schemas/apis/openapi.ts';
import type { WorkspaceKeys } from '../../schemas/identity.ts';
import type { Admission } from '../admission.ts';
import type { Door } from '../door.ts';
import type { Clock, EventStore, RateLimiter, View, ViewStore } from '../ports.ts';
import type { RateSetting } from '../rate-limit.ts';
import type { WorkspaceSettings } from '../workspaces.ts';
import type { Page } from './pages.ts';
import type { Group, Refused } from './views.ts';

/** A JSON answer. */
export interface Answer { readonly kind: 'answer'; readonly status?: number; readonly value: unknown; readonly headers?: Readonly<Record<string, string>> }
export interface TextAnswer { readonly kind: 'text'; readonly mediaType: string; readonly text: string; readonly headers?: Readonly<Record<string, string>> }
export type Outcome = Answer | TextAnswer | Page | Refused;

/** A request, authenticated and parsed. */
export interface Call<P, Q, B> {
  readonly params: P;
  readonly query: Q;
  readonly body: B;
  /** The bytes of the body and all headers, for who decodes them himself. */
  readonly raw: { readonly bytes: Uint8Array; readonly headers: Readonly<Record<string, string[] | undefined>> };
  /** The caller's. */
  readonly keys: WorkspaceKeys;
  /** The view of a group that the endpoint says it reads. */
  readonly view: (group: Group) => View;
  /** Aborted when whoever asked has gone. */
  readonly signal: AbortSignal;
}
/** A request as it came. */
export type RawCall = Omit<Call<unknown, unknown, unknown>, 'keys'>;

export interface Route {
  readonly endpoint: Endpoint;
  /** Columns of its CSV; empty where it is no list. */
  readonly columns: readonly Column[];
  /** Parses and answers; every problem of the parameters is in the refusal. `keys` are the caller's, null where the endpoint is open. */
  readonly run: (raw: RawCall, keys: WorkspaceKeys | null) => Promise<Outcome>;
}


/** Where nobody says otherwise. */
export const SEARCH_DEFAULTS = { revision: 'seed', maxRangeDays: 60, rateLimit: { hits: 10, windowMs: 60_000 } } as const satisfies { revision: Revision; maxRangeDays: number; rateLimit: RateSetting };

export interface ApiDeps {
  readonly events: EventStore;
  readonly views: ViewStore;
  readonly workspaces: {
    /** `rateLimit` is the key's own, null where it says nothing. */
    authenticate(token: string): { readonly workspace: string; readonly keyId: string; readonly rateLimit: RateSetting | null } | null;
    keys(workspace: string): WorkspaceKeys | null;
    /** What its operators have said of it. */
    settings(workspace: string): WorkspaceSettings;
  };
  readonly limiter: Pick<RateLimiter, 'hit'>;
  /** Of API keys that say nothing. */
  readonly rateLimit: RateSetting;
  /** Which revision of the 8x8 API is answered where they contradict each other. */
  readonly revision: Revision;
  /** Null where this process takes no events. */
  readonly door: Pick<Door, 'receive' | 'dryRun'> | null;
  readonly clock: Clock;
  /** Resolves after so many milliseconds: between two looks at a view that has not come far enough. */
  readonly wait: (ms: number) => Promise<unknown>;
  readonly log: { info(message: string, fields: { method: string; route: string; status: number; ms: number; workspace?: string; keyId?: string }): void; error(message: string, fields: { method: string; route: string; fault: unknown }): void };
  readonly metrics: { readonly contentType: string; text(): Promise<string>; request(method: string, route: string, status: number, seconds: number): void };
  readonly limits: { readonly maxEventBytes: number; /** Of a publish, batches included. */ readonly maxBodyBytes: number; /** Of one search. */ readonly maxRangeDays: number };
  /** How much is taken on at a time; left out, as much as ADMISSION_LIMITS allow. */
  readonly admission?: Admission;
  readonly ready: () => { readonly ok: boolean; readonly reasons: readonly string[] } | Promise<{ readonly ok: boolean; readonly reasons: readonly string[] }>;
  readonly version: string;
}
