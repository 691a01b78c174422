import fc from 'fast-check';
import { type JourneyLimits, journeysWithin } from '../../projections/journeys.ts';
import { arbitraryArrival, arbitraryEvents, MemoryDocuments } from '../support/facts.ts';

const SMALL: JourneyLimits = { interactionFacts: 7, journeyFacts: 11, factChunk: 2, transitionChunk: 3, neighbours: 3 };

describe('one view of a set of events', () => {
  test.each([['small limits', SMALL], ['roomy limits', { interactionFacts: 50, journeyFacts: 100, factChunk: 4, transitionChunk: 5, neighbours: 100 }]] as const)('G3: any order, duplication and batching gives the same documents and records (%s)', (_, limits) => {
    const projection = journeysWithin(limits);
    fc.assert(fc.property(arbitraryArrival(arbitraryEvents(24)), ({ events, batches }) => {
      const whole = new MemoryDocuments(projection);
      whole.fold(events);
      const parts = new MemoryDocuments(projection);
      for (const batch of batches) parts.fold(batch);
      expect(parts.snapshot()).toEqual(whole.snapshot());
    }), { numRuns: Number(process.env['RUNS'] ?? 300) });
  });
});
