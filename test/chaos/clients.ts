// Who asks while parts of it die: publishers over HTTP, each one customer's platform that sends a request until it is answered,
// and readers. Both note what they were told; nothing here knows how the other side is built.
import { setTimeout as pause } from 'node:timers/promises';
import { saying, type Spoken } from '../support/oracle.ts';
import type { Program } from '../support/programs.ts';
import { type Seeded, seeded } from '../support/seeded.ts';
import { until } from '../support/serve.ts';

const START = Date.UTC(2026, 2, 2, 9);
const SEARCH = '/cidp/journey/api/v1/journeys/search';
const DAY = { dateRange: { start: '2026-03-02T00:00:00Z', end: '2026-04-30T23:59:59Z' }, displayTimezone: 'UTC' };
/** Between two tries of a client whom nobody answers. */
const AGAIN_MS = 50;
/** Sent again at most so far back: EventStoreDB's door knows the last 256 of a stream again, and a stream is one publisher's alone. */
const AGAIN_MAX = 200;
const PUBLISHERS_LINKED = 3;

export type Asks = Pick<Program, 'request'>;
/** Who answers now: another process after each death. */
export type Now = () => Asks;

export interface Published { readonly id: string; readonly identity: string; readonly sequence: string; readonly [attribute: string]: unknown }
interface Result { readonly result: 'recorded' | 'duplicate' | 'rejected'; readonly code?: string; readonly position?: string | null }
interface Entry { readonly eventId: string; readonly position: string; readonly event: Published }

/** Whether the other end went away; by its words, since an error made by Node is no instance of this sandbox's TypeError. */
function isCutOff(fault: unknown): boolean {
  return typeof fault === 'object' && fault !== null && 'message' in fault && (fault.message === 'fetch failed' || fault.message === 'terminated');
}

function isAborted(signal: AbortSignal): boolean { return signal.aborted; }

/** An answer's text, or null: nobody is there, or they cannot now, and the client asks again. */
async function asked(now: Now, path: string, init: RequestInit = {}): Promise<{ readonly status: number; readonly headers: Headers; readonly text: string } | null> {
  try {
    const answer = await now().request(path, init);
    const text = await answer.text();
    return answer.status === 503 || answer.status === 429 ? null : { status: answer.status, headers: answer.headers, text };
  } catch (fault) {
    if (isCutOff(fault)) return null;
    throw fault;
  }
}

/** What publishers were told, over all rounds. */
export class Ledger {
  /** By event id: where its answer said that it stands; null where it did not say. */
  readonly acknowledged = new Map<string, string | null>();
  readonly wrong: string[] = [];
  /** How often a client was left without an answer: each time, what it sends next may stand already. */
  unanswered = 0;
  answered = 0;
  duplicates = 0;
  rejected = 0;
  readonly #spoken = new Map<string, boolean>();

  /** What was ever sent, by what it says: acknowledged or not. */
  get spoken(): Spoken { return this.#spoken; }

  send(event: Published): void { this.#spoken.set(sayingOf(event), this.#spoken.get(sayingOf(event)) ?? false); }

  take(event: Published | null, { result, position, code }: Result): void {
    this.answered += 1;
    if (event === null) {
      this.rejected += 1;
      if (result !== 'rejected' || code !== 'missingIdentity') this.wrong.push(`an event of nobody was ${result} (${String(code)})`);
      return;
    }
    if (result === 'rejected') this.wrong.push(`${event.id} was rejected (${String(code)})`);
    if (result === 'recorded' && this.acknowledged.has(event.id)) this.wrong.push(`${event.id} was recorded after it had been acknowledged`);
    if (result === 'duplicate') this.duplicates += 1;
    const known = this.acknowledged.get(event.id) ?? null;
    if (known !== null && typeof position === 'string' && known !== position) this.wrong.push(`${event.id} stands at two positions`);
    this.acknowledged.set(event.id, known ?? position ?? null);
    this.#spoken.set(sayingOf(event), true);
  }
}

function sayingOf({ data, ...attributes }: Published): string { return saying(attributes, JSON.stringify(data)); }

const TYPES = ['started', 'waiting', 'answered', 'held', 'resumed', 'ended'] as const;
const QUEUE = { queue: { id: 'q-1', name: 'Orders' } };
const DATA: Readonly<Record<(typeof TYPES)[number], object>> = { started: { direction: 'Inbound', medium: 'Phone' }, waiting: QUEUE, answered: { agents: [{ id: 'ag-1', name: 'Dana' }], ...QUEUE }, held: { agents: [{ id: 'ag-1' }] }, resumed: { agents: [{ id: 'ag-1' }] }, ended: { final: true } };

export interface ClientOptions {
  readonly publishers: number;
  readonly readers: number;
  readonly seed: number;
  /** Between two requests of a publisher, unless they hurry. */
  readonly paceMs: number;
  /** Whether rows, terms and total are of one commit always: on Redis they are but where commits came in between each of several tries. */
  readonly snapshots: boolean;
}

/** One connection, one request after the other, each sent again until it is answered. */
class Publisher {
  readonly identity: string;
  readonly #number: number;
  readonly #of: number;
  readonly #paceMs: () => number;
  readonly #chance: Seeded;
  readonly #ledger: Ledger;
  #sequence = 0;
  readonly #sent: Published[] = [];
  /** Waits for an answer. */
  waits = false;

  constructor(number: number, ledger: Ledger, { publishers, seed }: ClientOptions, paceMs: () => number) {
    this.identity = `customer-${number}@example.com`;
    this.#number = number;
    this.#of = publishers;
    this.#chance = seeded(seed * 1000 + number);
    this.#ledger = ledger;
    this.#paceMs = paceMs;
  }

  /** Until told to stop and answered, or given up. */
  async run(now: Now, stopped: () => boolean, givenUp: AbortSignal): Promise<void> {
    while (!stopped() && !givenUp.aborted) {
      const events = this.#request();
      for (const event of events) if (event !== null) this.#ledger.send(event);
      for (let answered = await this.#send(now, events); !answered && !isAborted(givenUp); answered = await this.#send(now, events)) {
        this.#ledger.unanswered += 1;
        await pause(AGAIN_MS);
      }
      // The pace of the load itself, not a wait for something.
      const paceMs = this.#paceMs();
      if (paceMs > 0) await pause(paceMs);
    }
  }

  async #send(now: Now, events: readonly (Published | null)[]): Promise<boolean> {
    const [only] = events;
    const single = events.length === 1 && only !== null && only !== undefined;
    const bodies = events.map((event) => event ?? { specversion: '1.0', id: 'nobody', source: 'kill', type: 'test.nobody' });
    this.waits = true;
    const answer = await asked(now, '/events', { method: 'POST', headers: { 'content-type': `application/cloudevents${single ? '' : '-batch'}+json` }, body: JSON.stringify(single ? only : bodies) });
    this.waits = false;
    if (answer === null) return false;
    if (answer.status !== 200) throw new Error(`a publish was answered with ${answer.status}: ${answer.text}`);
    const told = JSON.parse(answer.text) as Result & { readonly results?: readonly Result[]; readonly recorded: number; readonly duplicate: number; readonly rejected: number };
    const results = single ? [told] : told.results ?? [];
    if (results.length !== events.length) this.#ledger.wrong.push('not every element was answered');
    if (!single && told.recorded + told.duplicate + told.rejected !== events.length) this.#ledger.wrong.push('received is not recorded + duplicate + rejected');
    results.forEach((result, i) => { this.#ledger.take(events[i] ?? null, result); });
    return true;
  }

  #request(): readonly (Published | null)[] {
    switch (this.#chance.below(5)) {
      case 0: return [this.#next()];
      case 1: return this.#some();
      // Sent before, mixed with what is new: in this request's order, as at-least-once delivery has it.
      case 2: return [...this.#sent.slice(-this.#chance.below(12) - 1), ...this.#some()];
      case 3: return [this.#next(), null, ...this.#some()];
      default: return this.#sent.length === 0 ? [this.#next()] : [this.#chance.pick(this.#sent.slice(-AGAIN_MAX))];
    }
  }

  #some(): Published[] { return Array.from({ length: 1 + this.#chance.below(6) }, () => this.#next()); }

  #next(): Published {
    const sequence = this.#sequence++;
    const call = Math.floor(sequence / TYPES.length);
    const type = TYPES[sequence % TYPES.length] ?? 'ended';
    // Neighbours' calls are linked now and then, and some late: journeys join, and persons by what was their identity before.
    const linked = type === 'ended' && call % 5 === 0 ? { linkedTo: `${(this.#number + 1) % this.#of}-${call}` } : {};
    const before = type === 'started' && call === 2 && this.#number % PUBLISHERS_LINKED === 0 ? { previousidentity: `customer-${this.#number + 1}@example.com` } : {};
    const late = this.#chance.below(10) === 0 ? 90_000 : 0;
    const event = {
      specversion: '1.0', id: `${this.#number}-${sequence}`, source: `kill/${this.#number % 4}`, type: `org.throughline.interaction.${type}`, identity: this.identity, identitytype: 'email',
      time: new Date(START + this.#number * 137 + sequence * 9_000 - late).toISOString(), sequence: String(sequence).padStart(6, '0'), ...before,
      data: { interactionId: `${this.#number}-${call}`, ...DATA[type], ...linked },
    };
    this.#sent.push(event);
    return event;
  }
}

/** Reads while others write. What it has once seen of a position stays seen, whoever answers later. */
class Reader {
  readonly #ledger: Ledger;
  readonly #identities: readonly string[];
  readonly #snapshots: boolean;
  /** By what was asked: an answer of two views states the lower of their positions. */
  readonly #positions = new Map<string, string>();
  readonly wrong: string[] = [];
  complete = 0;

  constructor(ledger: Ledger, identities: readonly string[], { snapshots }: ClientOptions) {
    this.#ledger = ledger;
    this.#identities = identities;
    this.#snapshots = snapshots;
  }

  async run(now: Now, stopped: () => boolean, givenUp: AbortSignal): Promise<void> {
    for (let i = 0; !stopped() && !givenUp.aborted; i += 1) {
      const before = this.complete;
      await this.#search(now, i % 2 === 0 ? 'Handled' : 'Abandoned');
      const position = [...this.#ledger.acknowledged.values()].at(-1) ?? null;
      if (position !== null) await this.#journeys(now, this.#identities[i % this.#identities.length] ?? '', position);
      if (this.complete === before) await pause(AGAIN_MS);
    }
  }

  /** The views were emptied, and are folded anew from the first event. */
  forget(): void { this.#positions.clear(); }

  /** A row, its filter's term and the total are of one commit. */
  async #search(now: Now, outcome: string): Promise<void> {
    const answer = await asked(now, SEARCH, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ ...DAY, limit: 1000, filters: [{ name: 'outcome', values: [outcome] }] }) });
    if (answer === null || !this.#isWhole('search', answer)) return;
    const found = JSON.parse(answer.text) as { data?: { outcome: string; journeyId: string }[]; totalElements?: number; nextPageCursor?: string | null };
    const rows = found.data ?? [];
    if (this.#snapshots && rows.some((row) => row.outcome !== outcome)) this.wrong.push(`a row of another outcome than ${outcome}`);
    if (new Set(rows.map((row) => row.journeyId)).size !== rows.length) this.wrong.push('a journey stands on a page twice');
    if (this.#snapshots && found.nextPageCursor === null && found.totalElements !== rows.length) this.wrong.push(`a total of ${String(found.totalElements)} over ${rows.length} rows`);
  }

  async #journeys(now: Now, identity: string, position: string): Promise<void> {
    const answer = await asked(now, `/journeys?identity=${encodeURIComponent(identity)}`, { headers: { 'throughline-min-position': position } });
    if (answer === null || answer.status === 412 || answer.status === 404) return;
    if (this.#isWhole('journeys', answer) && (answer.headers.get('throughline-position') ?? '') < position) this.wrong.push(`${String(answer.headers.get('throughline-position'))} is before ${position}, which was asked for`);
  }

  #isWhole(what: string, { status, headers }: { readonly status: number; readonly headers: Headers }): boolean {
    if (status !== 200) { this.wrong.push(`a read was answered with ${status}`); return false; }
    const position = headers.get('throughline-position') ?? '';
    const before = this.#positions.get(what) ?? '';
    if (position < before) this.wrong.push(`positions of ${what} went back from ${before} to ${position}`);
    this.#positions.set(what, position);
    this.complete += 1;
    return true;
  }
}

/** All of them, by one seed. */
export class Clients {
  readonly ledger = new Ledger();
  /** Whether publishers leave no time between their requests. */
  hurry = false;
  readonly #publishers: readonly Publisher[];
  readonly #readers: readonly Reader[];
  readonly #now: Now;
  readonly #gone = new AbortController();
  #stopped = true;
  #running: Promise<unknown> = Promise.resolve();

  constructor(now: Now, options: ClientOptions) {
    this.#now = now;
    this.#publishers = Array.from({ length: options.publishers }, (_, number) => new Publisher(number, this.ledger, options, () => (this.hurry ? 0 : options.paceMs)));
    this.#readers = Array.from({ length: options.readers }, () => new Reader(this.ledger, this.identities(), options));
  }

  identities(): readonly string[] { return this.#publishers.map(({ identity }) => identity); }
  acknowledged(): number { return this.ledger.acknowledged.size; }
  reads(): number { return this.#readers.reduce((sum, { complete }) => sum + complete, 0); }
  allWait(): boolean { return this.#publishers.every(({ waits }) => waits); }
  /** What readers saw that no view may show. */
  wrong(): readonly string[] { return [...this.ledger.wrong, ...this.#readers.flatMap(({ wrong }) => wrong)]; }
  forgetPositions(): void { for (const reader of this.#readers) reader.forget(); }

  /** They go on where they stopped. */
  start(): void {
    this.#stopped = false;
    const run = (one: Publisher | Reader): Promise<void> => one.run(this.#now, () => this.#stopped, this.#gone.signal);
    this.#running = Promise.all([...this.#publishers, ...this.#readers].map(run));
    this.#running.catch(() => { this.#stopped = true; });
  }

  /** Resolves once nobody waits for an answer any more; fails with what a client was told that none may be. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#running;
  }

  /** For when nobody will answer again. */
  async giveUp(): Promise<void> {
    this.#stopped = true;
    this.#gone.abort();
    await this.#running.catch(() => undefined);
  }

  /** Whether a client has failed is told at once, and not by whoever waits for it in vain. */
  async until(what: string, condition: () => boolean | Promise<boolean>, withinMs: number): Promise<void> {
    await Promise.race([until(what, condition, withinMs), this.#running.then(() => new Promise<never>(() => undefined))]);
  }

  /** G1, G2: each publisher's history holds what was acknowledged once, where its answer said, and in the order sent. */
  async histories(): Promise<readonly string[]> {
    const wrong: string[] = [];
    const found = new Map((await Promise.all(this.identities().map((identity) => historyOf(this.#now(), identity)))).flat().map((entry) => [`${entry.position} ${entry.eventId}`, entry]));
    const entries = [...found.values()].sort((a, b) => (a.position < b.position ? -1 : 1));
    const places = new Map<string, string>();
    const newest = new Map<string, string>();
    for (const { position, event } of entries) {
      if (places.has(event.id)) wrong.push(`${event.id} stands in its history twice`);
      places.set(event.id, position);
      if (event.sequence <= (newest.get(event.identity) ?? '')) wrong.push(`${event.id} stands after a later one`);
      newest.set(event.identity, event.sequence);
    }
    for (const [id, told] of this.ledger.acknowledged) {
      const position = places.get(id);
      if (position === undefined) wrong.push(`${id} was acknowledged and is in no history`);
      else if (told !== null && told !== position) wrong.push(`${id} stands at ${position}, not at ${told} as its answer said`);
    }
    return wrong;
  }
}

async function historyOf(now: Asks, identity: string): Promise<readonly Entry[]> {
  const entries: Entry[] = [];
  for (let cursor: string | null = ''; cursor !== null;) {
    const answer = await now.request(`/history?identity=${encodeURIComponent(identity)}&limit=1000${cursor === '' ? '' : `&cursor=${cursor}`}`);
    if (answer.status !== 200) throw new Error(`a history is answered with ${answer.status}: ${await answer.text()}`);
    const { data, nextPageCursor } = (await answer.json()) as { data: Entry[]; nextPageCursor: string | null };
    entries.push(...data);
    cursor = nextPageCursor;
  }
  return entries;
}
