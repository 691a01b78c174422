// Short words for the tests of view stores: positions by number, commits, records, clauses and searches.
import type { RecordChange, RecordState, SubRecord } from '../../projections/projection.ts';
import type { Clause, Commit, Position, SearchQuery, SearchResult, View, ViewStore } from '../../services/ports.ts';

export const DAY = 86_400_000;
/** 2026-03-02T00:00:00Z. */
export const MONDAY = Date.UTC(2026, 2, 2);

export const EVERYTHING: SearchQuery = { workspace: 'acme', from: -Infinity, to: Infinity, clauses: [], sub: [], direction: 'asc', limit: 100, after: null, total: null };

export function at(count: number): Position {
  return String(count).padStart(20, '0') as Position;
}

export function is(field: string, ...terms: string[]): Clause {
  return { field, terms };
}

export function record(key: string, time: number, terms: RecordState['terms'] = {}, subs: readonly SubRecord[] = []): RecordChange {
  return { key, state: { time, id: key, terms }, subs: new Map([[0, subs]]) };
}

/** The first commit of a live view, empty but for what is given. */
export function commitWith(given: Partial<Commit>): Commit {
  return { expected: null, position: at(1), role: 'live', documents: new Map(), records: new Map(), digest: '0'.repeat(32), ...given };
}

/** The same view, but for some of what it does. */
export function through(view: View, more: Partial<View>): View {
  return {
    generation: view.generation, shard: view.shard, commitMax: view.commitMax, position: () => view.position(), digest: () => view.digest(), load: (keys) => view.load(keys),
    walk: (from, limit) => view.walk(from, limit), draw: (chance) => view.draw(chance), scan: (from, to, limit) => view.scan(from, to, limit), commit: (commit) => view.commit(commit),
    search: (query, space) => view.search(query, space), stats: () => view.stats(), ...more,
  };
}

/** The same store, but for some of what it does. */
export function throughStore(store: ViewStore, more: Partial<ViewStore>): ViewStore {
  return {
    generations: (group) => store.generations(group), live: (group) => store.live(group), previous: (group) => store.previous(group), seen: (group, version) => store.seen(group, version), createGeneration: (generation) => store.createGeneration(generation),
    promote: (group, from, to, hold) => store.promote(group, from, to, hold), hold: (group) => store.hold(group), dropGeneration: (group, id) => store.dropGeneration(group, id),
    lease: (name, holder, ms) => store.lease(name, holder, ms), release: (name, holder) => store.release(name, holder), leases: (prefix) => store.leases(prefix),
    view: (group, generation, shard) => store.view(group, generation, shard), addTallies: (tallies) => store.addTallies(tallies), tallies: (workspace) => store.tallies(workspace),
    free: () => store.free(), close: () => store.close(), ...more,
  };
}

/** The commit of that number in a row of them, counted from 1. */
export function commitOf(count: number, records: readonly RecordChange[], documents: Readonly<Record<string, string | null>> = {}): Commit {
  return commitWith({ expected: count === 1 ? null : at(count - 1), position: at(count), documents: new Map(Object.entries(documents)), records: new Map([['acme', records]]), digest: String(count).padStart(32, '0') });
}

export async function find(view: View, query: Partial<SearchQuery> = {}): Promise<SearchResult> {
  return view.search({ ...EVERYTHING, ...query }, 'j');
}

export async function keysOf(view: View, query: Partial<SearchQuery> = {}): Promise<string[]> {
  return (await find(view, query)).rows.map(({ key }) => key);
}

/** Ten commits over three days; after each the reader, whatever it has kept, sees all that was committed. */
export async function tenCommits(writer: View, reader: View): Promise<void> {
  for (let count = 1; count <= 10; count += 1) {
    await writer.commit(commitOf(count, [record(`k${count}`, MONDAY + count * DAY / 4, { medium: ['m'] }, [{ state: ['s'] }])]));
    expect(await reader.position()).toBe(at(count));
    for (const query of [{}, { clauses: [is('medium', 'm')] }, { sub: [is('state', 's')] }]) expect((await find(reader, query)).total).toBe(count);
  }
}
