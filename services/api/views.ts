// Where the answers come from: the live generation of a group, whether it may be read, and where it stands (design.md
// sections 5 and 7).
import { type NativeCode, nativeProblem } from '../../schemas/apis/native.ts';
import type { Problem } from '../../schemas/apis/openapi.ts';
import { OperatingError } from '../errors.ts';
import { isStale, liveOf } from '../generations.ts';
import type { Clock, EventStore, Generation, Position, View, ViewStore } from '../ports.ts';
import { lowestOf } from '../positions.ts';
import { shardOf } from '../shards.ts';

export type Group = 'journeys' | 'persons';

/** An answer that is none: its status, its problems and the headers that go with them. */
export interface Refused { readonly kind: 'refused'; readonly code: string; readonly problems: readonly Problem[]; readonly headers?: Readonly<Record<string, string>> }

export function refuse(code: NativeCode, given: Omit<Partial<Problem>, 'code'> = {}, headers: Readonly<Record<string, string>> = {}): Refused {
  return { kind: 'refused', code, problems: [nativeProblem(code, given)], headers };
}

export interface Opened {
  readonly kind: 'opened';
  readonly views: Readonly<Partial<Record<Group, View>>>;
  /** The lower of the views' positions, read before anything else of them: what is read afterwards is at least as new. Null: nothing folded yet. */
  readonly position: Position | null;
  /** Those that another version of the program folded: they may stand still, until one of this version is built. */
  readonly stale: readonly Group[];
}

/** The pointer to the live generation is read again after this long: a promotion is seen within it. */
const POINTER_MS = 200;
const WAIT_MAX_MS = 2000;
const WAIT_STEP_MS = 10;
const WAIT_STEP_MAX_MS = 100;
const RETRY_AFTER_S = '1';

export interface ViewsOptions {
  readonly views: ViewStore;
  readonly events: Pick<EventStore, 'storeId' | 'head' | 'gap'>;
  readonly clock: Clock;
  /** Resolves after so many milliseconds. */
  readonly wait: (ms: number) => Promise<unknown>;
}

interface Pointer { readonly readAt: number; readonly generation: Promise<Generation | null> }

export class Views {
  readonly #options: ViewsOptions;
  readonly #pointers = new Map<Group, Pointer>();
  /** Handles of the live generations alone, by group and shard. */
  readonly #handles = new Map<string, { readonly generation: number; readonly view: Promise<View> }>();
  /** The furthest position seen of each live generation's shard: a view store that lost its last writes stands before it, for a while. */
  readonly #furthest = new Map<string, { readonly generation: number; readonly position: Position }>();

  constructor(options: ViewsOptions) { this.#options = options; }

  /** Opens the groups for a workspace once each of them has reached `minimum` (as the header has it). */
  async open(groups: readonly Group[], workspace: string, minimum: string | undefined): Promise<Opened | Refused> {
    const first = await this.#open(groups, workspace);
    if (minimum === undefined) return first;
    const wanted = this.#parse(minimum);
    if (wanted.kind === 'refused') return wanted;
    if (isSettled(first, wanted.position)) return first;
    return this.#await(groups, workspace, wanted.position);
  }

  /** What a `Throughline-Position` header says. */
  stated(position: Position): string { return `${this.#options.events.storeId}.${position}`; }

  /** Forgets what it knows of the store: after an error, the next request looks again. */
  forget(): void {
    this.#pointers.clear();
    this.#handles.clear();
  }

  async #open(groups: readonly Group[], workspace: string): Promise<Opened | Refused> {
    const views: Partial<Record<Group, View>> = {};
    const stale: Group[] = [];
    const positions: (Position | null)[] = [];
    for (const group of groups) {
      const generation = await this.#live(group);
      if (generation === null) return building(0);
      if (generation.storeId !== this.#options.events.storeId) return refuse('viewsUnavailable', { message: 'The views are of another event store.' });
      const view = await this.#handle(group, generation, shardOf(workspace, generation.shards));
      // What was seen before this read began, not what a read beside it brings meanwhile: of two reads under way at once
      // the earlier may well be told the lower position, and nothing has gone back.
      const furthest = this.#furthestOf(view);
      const position = await view.position();
      const refused = await this.#readable(view, position, furthest);
      if (refused !== null) return refused;
      views[group] = view;
      if (isStale(generation)) stale.push(group);
      positions.push(position);
    }
    return { kind: 'opened', views, position: lowestOf(positions), stale };
  }

  #live(group: Group): Promise<Generation | null> {
    const now = this.#options.clock.now();
    const known = this.#pointers.get(group);
    if (known !== undefined && now - known.readAt < POINTER_MS && now >= known.readAt) return known.generation;
    // Stored before it is awaited: requests of the same moment share one read.
    const generation = liveOf(this.#options.views, group);
    this.#pointers.set(group, { readAt: now, generation });
    generation.catch(() => this.#pointers.delete(group));
    return generation;
  }

  #handle(group: Group, generation: Generation, shard: number): Promise<View> {
    const key = `${group}/${shard}`;
    const known = this.#handles.get(key);
    if (known?.generation === generation.id) return known.view;
    const view = this.#options.views.view(group, generation.id, shard);
    this.#handles.set(key, { generation: generation.id, view });
    view.catch(() => this.#handles.delete(key));
    return view;
  }

  #furthestOf({ generation, shard }: View): Position | null {
    const known = this.#furthest.get(`${generation.group}/${String(shard)}`);
    return known?.generation === generation.id ? known.position : null;
  }

  /**
   * Null where the view may be read: it has reached the head that was when it was made, and stands no lower than it did.
   * Looked at each time: a Redis may come back empty or older than it was, and is folded again from what it holds.
   */
  async #readable(view: View, position: Position | null, furthest: Position | null): Promise<Refused | null> {
    const { target, group, id } = view.generation;
    const wanted = target === null || (furthest !== null && furthest > target) ? furthest : target;
    if (wanted === null || (position !== null && position >= wanted)) {
      const latest = this.#furthestOf(view);
      if (position !== null && (latest === null || position > latest)) this.#furthest.set(`${group}/${String(view.shard)}`, { generation: id, position });
      return null;
    }
    const [all = null, left = null, past = null] = await this.#gaps(null, position, wanted);
    if (all === null || left === null || past === null) return building(null);
    return building(all === past ? 0 : Math.max(0, Math.min(99, Math.floor((100 * (all - left)) / (all - past)))));
  }

  /** Null each where the event store cannot say, or is away: how far a view has come is told where it is known, and that it is being built in any case. */
  async #gaps(...positions: readonly (Position | null)[]): Promise<readonly (number | null)[]> {
    try {
      return await Promise.all(positions.map((position) => this.#options.events.gap(position)));
    } catch (fault) {
      if (fault instanceof OperatingError && fault.retriable) return positions.map(() => null);
      throw fault;
    }
  }

  #parse(header: string): { readonly kind: 'position'; readonly position: Position } | Refused {
    const { storeId } = this.#options.events;
    if (header.startsWith(`${storeId}.`)) {
      const position = header.slice(storeId.length + 1);
      // What a position looks like is the adapter's; whether it is one is settled against the head, which has its width.
      return /^[0-9][0-9./-]{0,80}$/.test(position) ? { kind: 'position', position: position as Position } : refuse('badPosition');
    }
    return /^[A-Za-z0-9-]{1,64}\.[0-9][0-9./-]{0,80}$/.test(header) ? refuse('foreignPosition') : refuse('badPosition');
  }

  async #await(groups: readonly Group[], workspace: string, wanted: Position): Promise<Opened | Refused> {
    const head = await this.#options.events.head();
    if (head !== null && head.length !== wanted.length) return refuse('badPosition');
    if (head === null || wanted > head) return refuse('positionPastHead');
    const until = this.#options.clock.now() + WAIT_MAX_MS;
    for (let step = WAIT_STEP_MS; ; step = Math.min(step * 2, WAIT_STEP_MAX_MS)) {
      const opened = await this.#open(groups, workspace);
      if (isSettled(opened, wanted)) return opened;
      const left = until - this.#options.clock.now();
      if (left <= 0) return opened.kind === 'refused' ? opened : this.#notYet(opened, wanted);
      await this.#options.wait(Math.min(step, left));
    }
  }

  async #notYet(opened: Opened, wanted: Position): Promise<Refused> {
    const [behind = null, past = null] = await this.#gaps(opened.position, wanted);
    const gap = behind === null || past === null ? null : Math.max(0, behind - past);
    const headers = opened.position === null ? {} : { 'Throughline-Position': this.stated(opened.position) };
    return refuse('notYet', { more: { gap }, suggestion: 'Ask again after Retry-After.' }, { 'Retry-After': RETRY_AFTER_S, ...headers });
  }
}

/** Whether waiting would change nothing: it has come so far, or is refused for good. A view that is being built may be ready in a moment (after a first start it is). */
function isSettled(opened: Opened | Refused, wanted: Position): boolean {
  return opened.kind === 'refused' ? opened.code !== 'building' : opened.position !== null && opened.position >= wanted;
}

function building(percentage: number | null): Refused {
  const message = percentage === null ? 'The view is being built.' : `The view is being built: ${percentage} %.`;
  return refuse('building', { message, more: { percentage }, suggestion: 'Ask again after Retry-After.' }, { 'Retry-After': RETRY_AFTER_S });
}
