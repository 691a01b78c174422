// What the api opens for a reader: a view that has come far enough, or an honest 'not yet'. Here the view store loses what
// it had, is away, and is read twice at once; the rest is in api.test.ts.
import { Views } from '../../services/api/views.ts';
import { OperatingError } from '../../services/errors.ts';
import type { EventStore, Generation, Position, View, ViewStore } from '../../services/ports.ts';

const at = (number: number): Position => String(number).padStart(20, '0') as Position;

/** A view store that stands where it is put, over a log of 100 events. */
function world(target: number | null): { views: Views; stand: { position: Position | null; generation: number | null; away: boolean }; reads: ((position: Position | null) => void)[]; hold: { on: boolean }; log: { away: boolean }; clock: { ms: number } } {
  const stand: { position: Position | null; generation: number | null; away: boolean } = { position: null, generation: 1, away: false };
  const hold = { on: false };
  const log = { away: false };
  const clock = { ms: 0 };
  const reads: ((position: Position | null) => void)[] = [];
  const generation = (id: number): Generation => ({ group: 'journeys', id, version: '1', shards: 1, storeId: 'store', target: target === null ? null : at(target), createdAt: '', fields: {}, subFields: {}, ordered: [] });
  const lost = (): void => { if (stand.away) throw new OperatingError('storeUnavailable', 'away'); };
  const store: Pick<ViewStore, 'live' | 'generations' | 'view'> = {
    live: async () => { lost(); return stand.generation; },
    generations: async () => (stand.generation === null ? [] : [generation(stand.generation)]),
    view: async (_group, id) => ({
      generation: generation(id), shard: 0,
      position: () => { lost(); return hold.on ? new Promise<Position | null>((resolve) => { reads.push(resolve); }) : Promise.resolve(stand.position); },
    } satisfies Pick<View, 'generation' | 'shard' | 'position'> as unknown as View),
  };
  const events: Pick<EventStore, 'storeId' | 'head' | 'gap'> = {
    storeId: 'store', head: async () => at(100),
    gap: async (position) => { if (log.away) throw new OperatingError('storeUnavailable', 'away'); return 100 - Number(position ?? 0); },
  };
  const views = new Views({ views: store as ViewStore, events, clock: { now: () => (clock.ms += 1000) }, wait: async () => undefined });
  return { views, stand, reads, hold, log, clock };
}
const open = (views: Views): Promise<unknown> => views.open(['journeys'], 'shop', undefined);
const building = (percentage: number | null): object => ({ kind: 'refused', code: 'building', problems: [expect.objectContaining({ more: { percentage } })], headers: { 'Retry-After': '1' } });

describe('a view store that lost what it had', () => {
  test('G5: is being built until it stands where it stood when readers last saw it, and no lower', async () => {
    const { views, stand } = world(40);
    stand.position = at(20);
    expect(await open(views)).toMatchObject(building(50));
    stand.position = at(80);
    expect(await open(views)).toMatchObject({ kind: 'opened', position: at(80) });
    // An older Redis came back: past its target, and yet behind what was answered before.
    stand.position = at(60);
    expect(await open(views)).toMatchObject(building(75));
    stand.position = at(81);
    expect(await open(views)).toMatchObject({ kind: 'opened' });
  });

  test('G5: comes back empty: nothing is live, then a generation that is made anew is folded from the start', async () => {
    const { views, stand } = world(40);
    stand.position = at(80);
    expect(await open(views)).toMatchObject({ kind: 'opened' });
    stand.generation = null;
    expect(await open(views)).toMatchObject(building(0));
    stand.generation = 1;
    stand.position = null;
    expect(await open(views)).toMatchObject(building(0));
    stand.position = at(80);
    expect(await open(views)).toMatchObject({ kind: 'opened' });
  });

  test('another generation begins anew', async () => {
    const { views, stand } = world(null);
    stand.position = at(80);
    await open(views);
    stand.generation = 2;
    stand.position = at(10);
    expect(await open(views)).toMatchObject({ kind: 'opened', position: at(10) });
  });
});

test('of two readers at once, the one that is told the lower position has not gone back', async () => {
  const { views, stand, reads, hold } = world(null);
  stand.position = at(10);
  await open(views);
  hold.on = true;
  const [first, second] = [open(views), open(views)];
  while (reads.length < 2) await Promise.resolve();
  reads[1]?.(at(12));
  expect(await second).toMatchObject({ kind: 'opened', position: at(12) });
  reads[0]?.(at(11));
  expect(await first).toMatchObject({ kind: 'opened', position: at(11) });
});

test('a view that is being built says so also while the event store cannot say how far it is', async () => {
  const { views, stand, log } = world(40);
  stand.position = at(20);
  log.away = true;
  expect(await open(views)).toMatchObject(building(null));
});

test('a view store that is away is an operating fault, which the api answers with 503', async () => {
  const { views, stand } = world(null);
  stand.away = true;
  await expect(open(views)).rejects.toMatchObject({ code: 'storeUnavailable', retriable: true });
  stand.away = false;
  stand.position = at(1);
  expect(await open(views)).toMatchObject({ kind: 'opened' });
});
