// `kill -9` of a real `serve` under load, three times on one folder; then what was acknowledged is looked for, by the public
// doors alone.
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { type Seeded, seeded } from '../support/seeded.ts';
import { json, removeFolder, serve, type Served, temporaryFolder, throughline, until } from '../support/serve.ts';

const ROUNDS = 3;
const ACKNOWLEDGED_A_ROUND = 600;
const READ_A_ROUND = 2;
const PUBLISHERS = 24;
const SECRET = '7'.repeat(64);
const START = Date.UTC(2026, 2, 2, 9);
const SEARCH = '/cidp/journey/api/v1/journeys/search';
const DAY = { dateRange: { start: '2026-03-02T00:00:00Z', end: '2026-03-02T23:59:59Z' }, displayTimezone: 'UTC' };

interface Published { readonly id: string; readonly identity: string; readonly sequence: string; readonly [attribute: string]: unknown }
interface Result { readonly id?: string; readonly eventId?: string; readonly result: 'recorded' | 'duplicate' | 'rejected'; readonly code?: string; readonly position?: string | null }
interface Entry { readonly eventId: string; readonly position: string; readonly event: Published }

/** Whether the other end went away; by its words, since an error made by Node is no instance of this sandbox's TypeError. */
function isCutOff(fault: unknown): boolean {
  return typeof fault === 'object' && fault !== null && 'message' in fault && (fault.message === 'fetch failed' || fault.message === 'terminated');
}

/** What the senders were told, over all rounds. */
class Ledger {
  readonly recorded = new Map<string, string | null>();
  readonly acknowledged = new Set<string>();
  readonly wrong: string[] = [];
  sent = 0;
  answered = 0;
  rejected = 0;
  duplicates = 0;

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
    const known = this.recorded.get(event.id) ?? null;
    if (known !== null && typeof position === 'string' && known !== position) this.wrong.push(`${event.id} stands at two positions`);
    this.recorded.set(event.id, known ?? position ?? null);
    this.acknowledged.add(event.id);
  }
}

const TYPES = ['started', 'waiting', 'answered', 'held', 'resumed', 'ended'] as const;
const QUEUE = { queue: { id: 'q-1', name: 'Orders' } };
const DATA: Readonly<Record<(typeof TYPES)[number], object>> = { started: { direction: 'Inbound', medium: 'Phone' }, waiting: QUEUE, answered: { agents: [{ id: 'ag-1', name: 'Dana' }], ...QUEUE }, held: { agents: [{ id: 'ag-1' }] }, resumed: { agents: [{ id: 'ag-1' }] }, ended: { final: true } };

/** One customer's platform: one connection, one request after the other, each sent again until it is answered. */
class Publisher {
  readonly identity: string;
  readonly #number: number;
  readonly #chance: Seeded;
  readonly #ledger: Ledger;
  #sequence = 0;
  readonly #sent: Published[] = [];
  #pending: readonly (Published | null)[] | null = null;

  constructor(number: number, ledger: Ledger) {
    this.identity = `customer-${number}@example.com`;
    this.#number = number;
    this.#chance = seeded(1000 + number);
    this.#ledger = ledger;
  }

  /** Until told to stop, or until nobody answers; what is then unanswered is the first that is sent next time. */
  async run(server: Served, stopped: () => boolean): Promise<void> {
    while (!stopped() || this.#pending !== null) {
      this.#pending ??= this.#request();
      try {
        await this.#send(server, this.#pending);
      } catch (fault) {
        if (!isCutOff(fault)) throw fault;
        return;
      }
      this.#pending = null;
    }
  }

  async #send(server: Served, events: readonly (Published | null)[]): Promise<void> {
    const [only] = events;
    const single = events.length === 1 && only !== null && only !== undefined;
    const bodies = events.map((event) => event ?? { specversion: '1.0', id: 'nobody', source: 'kill', type: 'test.nobody' });
    const answer = await server.request('/events', { method: 'POST', headers: { 'content-type': `application/cloudevents${single ? '' : '-batch'}+json` }, body: JSON.stringify(single ? only : bodies) });
    const text = await answer.text();
    if (answer.status !== 200) throw new Error(`a publish was answered with ${answer.status}: ${text}`);
    const told = JSON.parse(text) as Result & { readonly results?: readonly Result[]; readonly recorded: number; readonly duplicate: number; readonly rejected: number };
    const results = single ? [told] : told.results ?? [];
    this.#ledger.sent += events.length;
    if (results.length !== events.length) this.#ledger.wrong.push('not every element was answered');
    if (!single && told.recorded + told.duplicate + told.rejected !== events.length) this.#ledger.wrong.push('received is not recorded + duplicate + rejected');
    results.forEach((result, i) => { this.#ledger.take(events[i] ?? null, result); });
  }

  #request(): readonly (Published | null)[] {
    switch (this.#chance.below(5)) {
      case 0: return [this.#next()];
      case 1: return this.#some();
      // Sent before, mixed with what is new: in this request's order, as at-least-once delivery has it.
      case 2: return [...this.#sent.slice(-this.#chance.below(12) - 1), ...this.#some()];
      case 3: return [this.#next(), null, ...this.#some()];
      default: return this.#sent.length === 0 ? [this.#next()] : [this.#chance.pick(this.#sent)];
    }
  }

  #some(): Published[] { return Array.from({ length: 1 + this.#chance.below(12) }, () => this.#next()); }

  #next(): Published {
    const sequence = this.#sequence++;
    const call = Math.floor(sequence / TYPES.length);
    const type = TYPES[sequence % TYPES.length] ?? 'ended';
    // Neighbours' calls are linked now and then, and some late: journeys join, and persons by what was their identity before.
    const linked = type === 'ended' && call % 5 === 0 ? { linkedTo: `${(this.#number + 1) % PUBLISHERS}-${call}` } : {};
    const before = type === 'started' && call === 2 && this.#number % 3 === 0 ? { previousidentity: `customer-${this.#number + 1}@example.com` } : {};
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

/** Reads while others write. What it has once seen of a position stays seen, also by a server that was started again. */
class Reader {
  readonly #ledger: Ledger;
  #position = '';
  readonly wrong: string[] = [];
  complete = 0;

  constructor(ledger: Ledger) { this.#ledger = ledger; }

  async run(server: Served, stopped: () => boolean, publishers: readonly Publisher[]): Promise<void> {
    for (let i = 0; !stopped(); i += 1) {
      try {
        await this.#search(server, i % 2 === 0 ? 'Handled' : 'Abandoned');
        const position = [...this.#ledger.recorded.values()].at(-1) ?? null;
        if (position !== null) await this.#journeys(server, publishers[i % publishers.length]?.identity ?? '', position);
      } catch (fault) {
        if (!isCutOff(fault)) throw fault;
        return;
      }
    }
  }

  /** A row, its filter's term and the total are of one commit. */
  async #search(server: Served, outcome: string): Promise<void> {
    const answer = await server.request(SEARCH, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ ...DAY, limit: 1000, filters: [{ name: 'outcome', values: [outcome] }] }) });
    const found = (await json(answer)) as { data?: { outcome: string; journeyId: string }[]; totalElements?: number; nextPageCursor?: string | null };
    if (!this.#isWhole(answer)) return;
    const rows = found.data ?? [];
    if (rows.some((row) => row.outcome !== outcome)) this.wrong.push(`a row of another outcome than ${outcome}`);
    if (new Set(rows.map((row) => row.journeyId)).size !== rows.length) this.wrong.push('a journey stands on a page twice');
    if (found.nextPageCursor === null && found.totalElements !== rows.length) this.wrong.push(`a total of ${String(found.totalElements)} over ${rows.length} rows`);
  }

  async #journeys(server: Served, identity: string, position: string): Promise<void> {
    const answer = await server.request(`/journeys?identity=${encodeURIComponent(identity)}`, { headers: { 'throughline-min-position': position } });
    await answer.arrayBuffer();
    if (answer.status === 412 || answer.status === 404) return;
    if (this.#isWhole(answer) && (answer.headers.get('throughline-position') ?? '') < position) this.wrong.push(`${String(answer.headers.get('throughline-position'))} is before ${position}, which was asked for`);
  }

  #isWhole(answer: Response): boolean {
    if (answer.status === 503) return false;
    if (answer.status !== 200) { this.wrong.push(`a read was answered with ${answer.status}`); return false; }
    const position = answer.headers.get('throughline-position') ?? '';
    if (position < this.#position) this.wrong.push(`positions went back from ${this.#position} to ${position}`);
    this.#position = position;
    this.complete += 1;
    return true;
  }
}

interface Status { readonly events: number; readonly groups: readonly { readonly group: string; readonly gap: number; readonly digest: string; readonly documents: number }[] }

/** Waits until every group has folded all that there is, as the metrics tell it. */
async function folded(server: Served): Promise<void> {
  await until('everything is folded', async () => {
    const gaps = (await (await server.request('/metrics')).text()).match(/^throughline_group_gap\{.*$/gm) ?? [];
    return gaps.length === 2 && gaps.every((line) => line.endsWith(' 0'));
  });
}

async function statusOf(folder: string): Promise<Status> {
  return JSON.parse((await throughline(['status', '--data', folder, '--json'])).stdout) as Status;
}

async function historyOf(server: Served, identity: string): Promise<readonly Entry[]> {
  const entries: Entry[] = [];
  for (let cursor: string | null = ''; cursor !== null;) {
    const answer = await server.request(`/history?identity=${encodeURIComponent(identity)}&limit=1000${cursor === '' ? '' : `&cursor=${cursor}`}`);
    const { data, nextPageCursor } = (await answer.json()) as { data: Entry[]; nextPageCursor: string | null };
    entries.push(...data);
    cursor = nextPageCursor;
  }
  return entries;
}

describe('kill -9 under load', () => {
  const folder = temporaryFolder();
  const other = temporaryFolder();
  const ledger = new Ledger();
  const publishers = Array.from({ length: PUBLISHERS }, (_, number) => new Publisher(number, ledger));
  const readers = [new Reader(ledger), new Reader(ledger)];
  /** Everything that the log holds of the publishers, by identity, each in the order of the log. */
  const histories = new Map<string, readonly Entry[]>();
  const alive: Served[] = [];
  let server: Served;
  let status: Status;

  beforeAll(async () => {
    for (let round = 1; round <= ROUNDS; round += 1) {
      server = await start(folder);
      let stopped = false;
      const work = Promise.all([...publishers, ...readers].map((one) => one.run(server, () => stopped, publishers)));
      const failed = work.then(() => undefined, (fault: unknown) => { throw fault; });
      const enough = (): boolean => ledger.acknowledged.size >= round * ACKNOWLEDGED_A_ROUND && readers.every(({ complete }) => complete >= round * READ_A_ROUND);
      await Promise.race([until('enough is acknowledged and read', enough), failed]);
      expect(await server.kill('SIGKILL')).toBeNull();
      stopped = true;
      await work;
    }
    server = await start(folder);
    await Promise.all(publishers.map((publisher) => publisher.run(server, () => true)));
    await folded(server);
    status = await statusOf(folder);
    const found = (await Promise.all(publishers.map(({ identity }) => historyOf(server, identity)))).flat();
    for (const { identity } of publishers) {
      const own = new Map(found.filter(({ event }) => event.identity === identity).map((entry) => [entry.position, entry]));
      histories.set(identity, [...own.values()].sort((a, b) => (a.position < b.position ? -1 : 1)));
    }
  }, 180_000);

  afterAll(async () => {
    await Promise.all(alive.map((one) => one.kill('SIGKILL')));
    removeFolder(folder);
    removeFolder(other);
  });

  async function start(where: string): Promise<Served> {
    const started = await serve({ folder: where, env: { THROUGHLINE_WORKSPACE_SECRET: SECRET }, args: ['--log-level', 'error'] });
    alive.push(started);
    return started;
  }

  const stored = (): Entry[] => [...histories.values()].flat();

  test('G1: every acknowledged event is in its history, once, where its answer said', () => {
    expect(ledger.wrong).toEqual([]);
    expect(ledger.acknowledged.size).toBeGreaterThanOrEqual(ROUNDS * ACKNOWLEDGED_A_ROUND);
    const ids = stored().map(({ event }) => event.id);
    expect(new Set(ids).size).toBe(ids.length);
    expect([...ledger.acknowledged].filter((id) => !ids.includes(id))).toEqual([]);
    expect(stored().filter(({ event, position }) => { const told = ledger.recorded.get(event.id) ?? null; return told !== null && told !== position; })).toEqual([]);
  });

  test('G1: the log holds nothing besides', () => {
    // The workspace and its first key are the other two.
    expect(status.events).toBe(stored().length + 2);
  });

  test('a history shows each event once, whichever of the person\'s identities is asked for', async () => {
    const entries = await historyOf(server, publishers[0]?.identity ?? '');
    expect(new Set(entries.map(({ eventId }) => eventId)).size).toBe(entries.length);
    expect(new Set(entries.map(({ event }) => event.identity)).size).toBe(2);
  });

  test('G2: the events of one identity stand in the order in which they were sent', () => {
    for (const entries of histories.values()) {
      const sequences = entries.map(({ event }) => event.sequence);
      expect(sequences).toEqual([...sequences].sort());
    }
  });

  test('G4: each event that came was answered: recorded, duplicate or rejected', async () => {
    expect(ledger.answered).toBe(ledger.sent);
    expect(ledger.duplicates).toBeGreaterThan(0);
    expect(ledger.rejected).toBeGreaterThan(0);
    const { data } = (await json(await server.request('/sources'))) as { data: { source: string; recorded: number }[] };
    // A crash may lose the last second of these counts; never does it invent any.
    expect(data.reduce((sum, { recorded }) => sum + recorded, 0)).toBeLessThanOrEqual(stored().length);
  });

  test('G5, G9: readers saw whole views, at positions that never went back', () => {
    for (const reader of readers) {
      expect(reader.wrong).toEqual([]);
      expect(reader.complete).toBeGreaterThanOrEqual(ROUNDS * READ_A_ROUND);
    }
  });

  test('G3: the views equal a fresh fold of the same events, in another order, in another store', async () => {
    const file = path.join(other, 'events.ndjson');
    writeFileSync(file, seeded(7).shuffled(stored()).map(({ event }) => `${JSON.stringify(event)}\n`).join(''));
    const into = path.join(other, 'data');
    const imported = await throughline(['import', file, '--data', into, '--json'], { env: { THROUGHLINE_WORKSPACE_SECRET: SECRET } });
    expect(JSON.parse(imported.stdout)).toMatchObject({ recorded: stored().length, duplicate: 0, rejected: 0 });
    await folded(await start(into));
    const summary = ({ groups }: Status) => groups.map(({ group, gap, digest, documents }) => ({ group, gap, digest, documents }));
    expect(summary(status)).toEqual(summary(await statusOf(into)));
    expect(status.groups.every(({ gap, documents }) => gap === 0 && documents > 0)).toBe(true);
  });
});
