// What is stored is what was folded: every document comes back as it was, in one text alone.
import fc from 'fast-check';
import { type JourneyDocument, packDocument, unpackDocument, unpackRow } from '../../projections/documents.ts';
import { FactPage, Placed } from '../../projections/fact-pages.ts';
import { journeysWithin, LIMITS } from '../../projections/journeys.ts';
import { compact, expand, InstantPrinter, packInstant, packUuid, Packer, Unpacker, unpackUuids } from '../../projections/packing.ts';
import type { Json } from '../../projections/projection.ts';
import type { Instant, InteractionFact } from '../../schemas/facts.ts';
import { instantOf } from '../../schemas/time.ts';
import { arbitraryBody, arbitraryEvents, MemoryDocuments } from '../support/facts.ts';

const ROOMY = { ...LIMITS, factChunk: 6, transitionChunk: 5 };
const arbitraryId = fc.oneof(fc.uuid(), fc.uuid().map((id) => id.toUpperCase()), fc.string({ unit: 'binary', maxLength: 40 }), fc.constantFrom('', '__proto__', '0123456789abcdef0123456789abcdef'));
const arbitraryInstant = fc.tuple(fc.integer({ min: -62_167_219_200_000, max: 253_402_300_799_999 }), fc.option(fc.integer({ min: 1, max: 999_999 }))).map(([ms, nanos]): Instant =>
  (nanos === null ? instantOf(ms) : `${instantOf(ms).slice(0, 23)}${String(nanos).padStart(6, '0')}Z`) as Instant);

/** The value as it reads, classes and all. */
function plain(key: string, value: Json): unknown {
  if (key.startsWith('f/')) return (value as unknown as FactPage).facts('x:1');
  return key.startsWith('n/') ? { ...(value as object), facts: (value as unknown as { facts: FactPage }).facts.facts('x:1') } : value;
}

test('G3: every document of a fold comes back from its text as it went in, and has no other text', () => {
  const packer = new Packer();
  fc.assert(fc.property(arbitraryEvents(30), fc.boolean(), (events, uuids) => {
    const view = new MemoryDocuments(journeysWithin(ROOMY));
    const named = uuids ? events.map((one, i) => rename(one, `00000000-0000-8000-8000-${String(i).padStart(12, '0')}`)) : events;
    view.fold(named.slice(0, 12));
    view.fold(named);
    for (const [key, text] of view.texts) {
      const value = unpackDocument(key, text);
      expect(packDocument(key, value, packer)).toBe(text);
      expect(plain(key, unpackDocument(key, packDocument(key, value)))).toStrictEqual(plain(key, value));
      if (key.startsWith('j/')) expect(unpackRow(key.slice(2), text)).toStrictEqual((value as unknown as JourneyDocument).row);
    }
  }), { numRuns: 60 });
});

function rename<E extends { readonly eventId: string; readonly interactionFacts: readonly InteractionFact[] }>(one: E, eventId: string): E {
  return { ...one, eventId, interactionFacts: one.interactionFacts.map((fact) => ({ ...fact, eventId })) };
}

test('a fold\'s own value and what is read of its text are the same, member for member', () => {
  fc.assert(fc.property(arbitraryEvents(30), (events) => {
    const projection = journeysWithin(ROOMY);
    const made = new Map<string, Json>();
    const view = new MemoryDocuments({ ...projection, pack: (key, value) => { made.set(key, value); return projection.pack(key, value); } });
    view.fold(events);
    for (const [key, value] of made) expect(JSON.stringify(plain(key, unpackDocument(key, view.texts.get(key) ?? '')))).toBe(JSON.stringify(plain(key, value)));
  }), { numRuns: 40 });
});

test('a page of facts gives back every fact as it was said, however it was put together', () => {
  const fact = fc.record({ body: arbitraryBody, at: fc.oneof(arbitraryInstant, fc.constantFrom(instantOf(0), instantOf(5))), tie: fc.constantFrom(0, 0, -210, 4), eventId: fc.oneof(fc.constantFrom('e1', 'e2'), arbitraryId), index: fc.nat({ max: 12 }), identity: fc.option(arbitraryId) });
  fc.assert(fc.property(fc.array(fact, { maxLength: 20 }), fc.nat({ max: 20 }), (facts, cut) => {
    const placed = facts.map(({ body, identity, ...order }) => new Placed({ ...body, interaction: 'x:1', ...order }, identity));
    const whole = FactPage.of(placed);
    expect(whole.facts('x:1').map((one) => [one.fact, one.identity, one.order])).toEqual(placed.map((one) => [one.fact, one.identity, one.order]));
    expect([whole.size, whole.first, whole.last]).toEqual([placed.length, placed[0]?.order ?? null, placed.at(-1)?.order ?? null]);
    // Stored in between, it goes on as if it had not been.
    const stored = FactPage.unpack(JSON.parse(JSON.stringify(FactPage.of(placed.slice(0, cut)).pack())) as []);
    expect([stored.first, stored.last]).toEqual([placed.slice(0, cut)[0]?.order ?? null, placed.slice(0, cut).at(-1)?.order ?? null]);
    for (const one of placed.slice(cut)) stored.append(one);
    expect(JSON.stringify(stored.pack())).toBe(JSON.stringify(whole.pack()));
  }), { numRuns: 150 });
});

test('instants, UUIDs and records of few members come back as they were', () => {
  fc.assert(fc.property(arbitraryInstant, arbitraryInstant, (at, base) => {
    const baseMs = Date.parse(base.slice(0, 23) + 'Z');
    expect(new InstantPrinter().print(packInstant(at, baseMs), baseMs)).toBe(at);
  }));
  fc.assert(fc.property(fc.array(fc.uuid()), (ids) => { expect(unpackUuids(ids.map(packUuid).join(''))).toEqual(ids); }));
  fc.assert(fc.property(arbitraryId, (id) => { const packed = packUuid(id); if (packed !== null) expect(unpackUuids(packed)).toEqual([id]); }));
  expect(packUuid('00000000-0000-0000-0000-00000000000\u0131')).toBeNull();
  fc.assert(fc.property(fc.array(fc.option(fc.oneof(fc.nat(), fc.string(), fc.constant(false))), { maxLength: 31 }), (values) => { expect(expand(compact(values), values.length)).toEqual(values); }));
});

test('every text of a document has one reference, whatever it is like', () => {
  const packer = new Packer();
  fc.assert(fc.property(fc.array(fc.oneof(arbitraryId, fc.constantFrom('own', 'TALKING', 'phone')), { maxLength: 30 }), (texts) => {
    const to = packer.start('own', 0);
    const references = texts.map((text) => to.text(text));
    // What it packed before shows in nothing.
    const fresh = new Packer().start('own', 0);
    expect([texts.map((text) => fresh.text(text)), fresh.tables()]).toEqual([references, to.tables()]);
    expect(new Set(references).size).toBe(new Set(texts).size);
    const from = new Unpacker('own', 0, JSON.parse(JSON.stringify(to.tables())) as []);
    expect(references.map((reference) => from.text(reference))).toEqual(texts);
  }), { numRuns: 200 });
});
