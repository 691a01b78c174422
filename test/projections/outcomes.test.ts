import fc from 'fast-check';
import type { Histogram, JourneyDocument, Outcome, OutcomeCell } from '../../projections/documents.ts';
import { journeys } from '../../projections/journeys.ts';
import { addHistogram, BOUNDS_S, bucketOf, quantile, quarterKey, quarterOf } from '../../projections/outcomes.ts';
import type { InteractionFactBody, Interpreted } from '../../schemas/facts.ts';
import { event, MemoryDocuments, START_MS, story } from '../support/facts.ts';

type Line = readonly [seconds: number, ...bodies: InteractionFactBody[]];
const QUEUE = { id: 'q1', name: 'Sales' };
const ANN = { id: 'a1' };
const started: Line = [0, { kind: 'started', direction: 'Inbound', medium: 'Phone' }];
const waits: Line = [5, { kind: 'waiting', queue: QUEUE }];
const left: Line = [50, { kind: 'ended', by: 'customer', final: true }];
const voicemail: Line = [20, { kind: 'voicemail', queue: QUEUE }];
const callback: Line = [20, { kind: 'followUp', reason: 'callback', queue: QUEUE }];
const dial: Line = [60, { kind: 'dialling', agents: [ANN] }];
const expired: Line = [90, { kind: 'ended', by: 'system', outcome: 'callbackExpired', final: true }];

function folded(events: readonly Interpreted[]): MemoryDocuments {
  const view = new MemoryDocuments(journeys);
  view.fold(events);
  return view;
}

function cells(view: MemoryDocuments): OutcomeCell[] {
  return view.keys('o').map((key) => view.read(key) as OutcomeCell);
}

describe('the outcome of a journey (journey-apis-facts.md 1.8)', () => {
  test.each<[string, Outcome, readonly Line[]]>([
    ['nothing is known yet', 'UnknownOutcome', [started]],
    ['it still waits', 'UnknownOutcome', [started, waits]],
    ['only a description is known', 'UnknownOutcome', [[0, { kind: 'described', topics: ['order'] }]]],
    ['an agent talked', 'Handled', [started, waits, [20, { kind: 'talking', agents: [ANN] }], left]],
    ['an agent talked, nobody knows which', 'Handled', [started, waits, [20, { kind: 'talking' }], left]],
    ['an AI agent talked', 'Handled', [started, [20, { kind: 'talking', agents: [{ id: 'bot', type: 'AI' }] }], left]],
    ['an agent talked before a voicemail', 'Handled', [started, [6, { kind: 'talking', agents: [ANN] }], [10, { kind: 'transferred', to: { queue: QUEUE } }], voicemail, left]],
    ['an agent talked before a callback was asked for', 'Handled', [started, [6, { kind: 'talking', agents: [ANN] }], [10, { kind: 'transferred', to: { queue: QUEUE } }], callback, left]],
    ['an agent processed a voicemail', 'Handled', [started, voicemail, left, [60, { kind: 'followUp', reason: 'voicemail', queue: QUEUE }], [70, { kind: 'processing', agents: [ANN] }]]],
    ['a callback waits', 'CallbackRequested', [started, waits, callback, left]],
    ['a callback is being dialled', 'CallbackRequested', [started, waits, callback, left, dial]],
    ['a callback waits again after a dial', 'CallbackRequested', [started, waits, callback, left, dial, [70, { kind: 'followUp', reason: 'callback', queue: QUEUE }]]],
    ['a callback was dialled in vain', 'CallbackNoAnswer', [started, waits, callback, left, dial, [70, { kind: 'followUp', reason: 'callback', queue: QUEUE }], expired]],
    ['a callback ended with its dial', 'CallbackNoAnswer', [started, waits, callback, left, dial, [80, { kind: 'ended', by: 'system', final: true }]]],
    ['a callback was never dialled', 'CallbackExpired', [started, waits, callback, left, expired]],
    ['a callback expired after an outbound dial that came before it', 'CallbackExpired', [[0, { kind: 'dialling', agents: [ANN] }], [10, { kind: 'waiting', queue: QUEUE }], callback, left, expired]],
    ['a callback was dialled and answered', 'Handled', [started, waits, callback, left, dial, [70, { kind: 'talking', agents: [ANN] }], [80, { kind: 'ended', final: true }]]],
    ['it ended in a voicemail', 'Voicemail', [started, waits, voicemail, left]],
    ['a voicemail waits to be processed', 'Voicemail', [started, voicemail, left, [60, { kind: 'followUp', reason: 'voicemail', queue: QUEUE }]]],
    ['it was forwarded outside', 'ForwardedToExternalNumber', [started, waits, [20, { kind: 'forwarded', to: { externalNumber: '+15550100' } }], left]],
    ['its end says that it was forwarded outside', 'ForwardedToExternalNumber', [started, waits, [50, { kind: 'ended', outcome: 'forwardedExternal', final: true }]]],
    ['it came back from outside and the customer left', 'Abandoned', [started, [3, { kind: 'forwarded', to: { externalNumber: '+15550100' } }], waits, left]],
    ['the customer left while waiting', 'Abandoned', [started, waits, left]],
    ['the customer left while phones were ringing', 'Abandoned', [started, [5, { kind: 'waiting', agents: [ANN] }], left]],
    ['it ended while waiting, by nobody knows whom', 'Abandoned', [started, waits, [50, { kind: 'ended', final: true }]]],
    ['the system ended the wait', 'Other', [started, waits, [50, { kind: 'ended', by: 'system', final: true }]]],
    ['it ended in a script', 'EndedInScript', [started, [3, { kind: 'script', scripts: [{ id: 's', name: null }] }], left]],
    ['it ended before anything', 'Other', [started, left]],
    ['nobody answered an outbound call', 'Other', [dial, [90, { kind: 'ended', by: 'system', final: true }]]],
  ])('when %s: %s', (_, outcome, lines) => {
    const view = folded(story('x:1', lines));
    expect(view.keys('j').map((key) => (view.read(key) as JourneyDocument).row.outcome)).toEqual([outcome]);
    expect(cells(view).map((cell) => [cell.outcome, cell.journeys])).toEqual([[outcome, 1]]);
  });
});

describe('cells', () => {
  test('count a journey where it started, by outcome, last queue, first medium and direction, with its durations', () => {
    const view = folded(story('x:1', [started, waits, [17, { kind: 'forwarded', to: { queue: { id: 'q2' } } }], [35, { kind: 'talking', agents: [ANN] }], [65, { kind: 'held' }], [70, { kind: 'resumed' }], [80, { kind: 'ended', final: true }]]));
    expect(view.keys('o')).toEqual([expect.stringMatching(new RegExp(`^o/${quarterKey(START_MS)}/[0-9a-f]{32}$`))]);
    expect(cells(view)).toEqual([{
      quarter: START_MS / 1000, outcome: 'Handled', queue: { id: 'q2', name: null }, medium: 'Phone', direction: 'Inbound', journeys: 1,
      // 12 s and 18 s of waiting, 30 s and 10 s of talking, 5 s of hold.
      waiting: { [bucketOf(30_000)]: 1 }, talking: { [bucketOf(40_000)]: 1 }, hold: { [bucketOf(5000)]: 1 },
    }]);
  });

  test('move with the journey, and go when they count none', () => {
    const view = folded(story('x:1', [started, waits]));
    const before = view.keys('o');
    view.fold(story('x:1', [started, waits, left]));
    expect(view.keys('o')).not.toEqual(before);
    expect(cells(view).map(({ outcome, journeys: count }) => [outcome, count])).toEqual([['Abandoned', 1]]);
    // Now it began a quarter earlier.
    view.fold([event('early', -1, [{ interaction: 'x:1', kind: 'described', topics: ['x'] }])]);
    expect(cells(view).map(({ quarter, journeys: count }) => [quarter, count])).toEqual([[START_MS / 1000 - 900, 1]]);
  });

  test('of many journeys add up', () => {
    const view = new MemoryDocuments(journeys);
    for (let i = 0; i < 20; i += 1) view.fold(story(`x:${i}`, [started, [5, { kind: 'waiting', queue: QUEUE }], [5 + i, { kind: 'ended', by: 'customer', final: true }]]));
    expect(cells(view)).toMatchObject([{ outcome: 'Abandoned', journeys: 20 }]);
    // The one that left at once did not wait.
    expect(Object.values(cells(view)[0]?.waiting ?? {}).reduce((all, count) => all + count, 0)).toBe(19);
  });
});

describe('quarters', () => {
  test('begin on the quarter of an hour, and their keys sort as they do, also before 1970', () => {
    expect(quarterOf(START_MS + 899_999)).toBe(START_MS / 1000);
    expect(quarterOf(START_MS + 900_000)).toBe(START_MS / 1000 + 900);
    fc.assert(fc.property(fc.integer({ min: -62_167_219_200_000, max: 253_402_300_799_999 }), fc.integer({ min: 0, max: 10_000_000_000 }), (ms, more) => {
      expect(quarterKey(ms)).toHaveLength(12);
      expect(quarterKey(ms) <= quarterKey(ms + more)).toBe(true);
    }));
  });
});

describe('histograms', () => {
  const durations = fc.array(fc.integer({ min: 1, max: 90_000_000 }), { minLength: 1, maxLength: 60 });
  const histogramOf = (all: readonly number[]): Histogram => {
    const histogram: Histogram = {};
    for (const ms of all) addHistogram(histogram, { [bucketOf(ms)]: 1 });
    return histogram;
  };

  test('a duration lies in the first bucket whose bound it does not exceed; the last bucket is longer than a day', () => {
    expect([bucketOf(1), bucketOf(1000), bucketOf(1001)]).toEqual([0, 0, 1]);
    expect([bucketOf(86_400_000), bucketOf(86_400_001)]).toEqual([BOUNDS_S.length - 1, BOUNDS_S.length]);
    expect([...BOUNDS_S].sort((a, b) => a - b)).toEqual(BOUNDS_S);
    for (const bound of [5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 240, 300, 420, 600, 900, 1200, 1800, 2700, 3600, 86_400]) expect(BOUNDS_S).toContain(bound);
  });

  test('merging parts is counting all, in any cut', () => {
    fc.assert(fc.property(durations, durations, (a, b) => {
      const merged = histogramOf(a);
      addHistogram(merged, histogramOf(b));
      expect(merged).toEqual(histogramOf([...b, ...a]));
      addHistogram(merged, histogramOf(b), -1);
      expect(merged).toEqual(histogramOf(a));
    }));
  });

  test('a quantile is never too low, and too high by less than 5 s up to 30 s and a third above', () => {
    fc.assert(fc.property(durations, fc.constantFrom(0.5, 0.9, 0, 1), (all, p) => {
      const sorted = [...all].sort((a, b) => a - b);
      const exact = (sorted[Math.max(0, Math.ceil(sorted.length * p) - 1)] ?? 0) / 1000;
      const found = quantile(histogramOf(all), p);
      if (exact > 86_400) { expect(found).toBeNull(); return; }
      expect(found).toBeGreaterThanOrEqual(exact);
      expect(found).toBeLessThanOrEqual(exact <= 30 ? exact + 5 : exact * (4 / 3));
    }));
    expect(quantile({}, 0.5)).toBeNull();
  });
});
