// Persons as a function of the set of evidence: every rule of design.md section 6 in a table, and the whole against an
// oracle that computes from the set, by the rules as they are written, without any of the fold's shortcuts.
import fc from 'fast-check';
import {
  type Alias, DEFAULT_POLICY, type Evidence, explain, findPerson, type IdentityDocument, type Lookup, type Named, type NameSaid, persons, personsUnder, type PersonDocument, type Policy,
  type RefusedEdge, type Strength,
} from '../../projections/persons.ts';
import { type Interpreted, type Json, type Projection, runFold } from '../../projections/projection.ts';
import type { CustomerFact, CustomerFactBody, Identifier } from '../../schemas/facts.ts';
import { isWorkspaceId, type WorkspaceKeys, workspaceKeys } from '../../schemas/identity.ts';
import { instantOf } from '../../schemas/time.ts';

const WORKSPACE = 'test';
if (!isWorkspaceId(WORKSPACE)) throw new Error('not a workspace id');
const keys: WorkspaceKeys = workspaceKeys(WORKSPACE, new Uint8Array(32).fill(7));
const key = (text: string): string => keys.identityKey(identifier(text).type, identifier(text).value) ?? '';

/** `email:ann@example.com` → its type and value. */
function identifier(text: string): Identifier {
  const colon = text.indexOf(':');
  return { type: text.slice(0, colon), value: text.slice(colon + 1) };
}

interface Saying { readonly who: string; readonly at: number; readonly also?: readonly string[]; readonly names?: { firstName?: string | null; lastName?: string | null; name?: string | null }; readonly id?: string }

/** An event of `who` (`type:value`; of type `subject`: known by its subject alone) at a second, that gives it these identifiers and names. */
function event({ who, at, also = [], names, id }: Saying): Interpreted {
  const { type, value } = identifier(who);
  const eventId = id ?? `e${at}-${who}-${also.join('-')}-${JSON.stringify(names)}`;
  const instant = instantOf(at * 1000);
  const bodies: CustomerFactBody[] = [...(also.length > 0 ? [{ kind: 'identifiers' as const, identifiers: also.map(identifier) }] : []), ...(names ? [{ kind: 'named' as const, ...names }] : [])];
  const customerFacts: CustomerFact[] = bodies.map((body, index) => ({ ...body, at: instant, tie: 0, eventId, index }));
  const own = keys.identityKey(type, value);
  return {
    eventId, identity: { key: own ?? keys.hash(type, value), type, value, evidence: own !== null && type !== 'subject', anonymous: own === null },
    at: instant, recordedAt: instant, type: 'org.example.said', source: '/test', interactionFacts: [], customerFacts,
  };
}

/** Documents as a view keeps them (JSON text), with the work done counted. */
class Store {
  readonly texts = new Map<string, string>();
  readonly work = { loaded: 0, put: 0, bytes: 0, rounds: 0, most: 0 };
  readonly projection: Projection;
  constructor(projection: Projection = persons) { this.projection = projection; }

  take(...events: Interpreted[]): ReadonlyMap<string, Json> {
    const fold = this.projection.fold(events, keys);
    let touched = 0;
    const read = (name: string): Json => {
      touched += 1;
      this.work.loaded += 1;
      this.work.bytes += this.texts.get(name)?.length ?? 0;
      return this.read(name);
    };
    const { documents, records } = runFold(fold, read);
    expect(records).toEqual([]);
    for (const [name, value] of documents) {
      const text = value === null ? null : this.projection.pack(name, value);
      this.work.put += 1;
      this.work.bytes += text?.length ?? 0;
      if (text === null) this.texts.delete(name);
      else this.texts.set(name, text);
    }
    this.work.most = Math.max(this.work.most, touched + documents.size);
    return documents;
  }

  say(...said: Saying[]): this {
    for (const one of said) this.take(event(one));
    return this;
  }

  ask<Answer>(lookup: Lookup<Answer>): Answer {
    let step = lookup.next();
    while (step.done !== true) step = lookup.next(new Map(step.value.map((name) => [name, this.read(name)])));
    return step.value;
  }

  person(text: string): PersonDocument {
    const person = this.ask(findPerson(key(text)));
    if (person === null) throw new Error(`no person of ${text}`);
    return person;
  }

  /** Values of the person of an identity, sorted. */
  aliases(text: string): string[] { return this.person(text).aliases.map(({ type, value }) => `${type}:${value}`).sort(); }

  reasons(text: string): string[] { return this.person(text).refused.map(({ reason }) => reason).sort(); }

  /** Null where there is none. */
  read(name: string): Json {
    const text = this.texts.get(name);
    return text === undefined ? null : this.projection.unpack(name, text);
  }

  /** All documents, as JSON: keys in their order, to the byte. */
  dump(): [string, string][] { return [...this.texts.keys()].map((name): [string, string] => [name, JSON.stringify(this.read(name))]).sort(([a], [b]) => (a < b ? -1 : 1)); }
}

const small: Policy = { ...DEFAULT_POLICY, limits: { neighbours: 3, perType: 2, temporary: 2 } };

// ---- the oracle --------------------------------------------------------------------------------------------------------

interface Mentioned { key: string; type: string; value: string; at: string; eventId: string }
interface Joined { a: string; b: string; at: string; eventId: string }

const older = <Thing extends { at: string; eventId: string }>(one: Thing, other: Thing | undefined): boolean =>
  other === undefined || `${one.at} ${one.eventId}` < `${other.at} ${other.eventId}`;

/** The documents of a set of events, from the rules alone. */
function oracle(events: readonly Interpreted[], policy: Policy): [string, string][] {
  const identities = new Map<string, Mentioned>();
  const pairs = new Map<string, Joined>();
  const names = new Map<string, { field: 'firstName' | 'lastName' | 'name'; said: NameSaid }[]>();
  for (const { identity, at, eventId, customerFacts } of events) {
    const own = identity.anonymous ? [] : [identity];
    const others = customerFacts.flatMap((fact) => (fact.kind === 'identifiers' ? fact.identifiers : []))
      .flatMap(({ type, value }) => { const found = keys.identityKey(type, value); return found === null ? [] : [{ key: found, type, value }]; });
    for (const mention of [...own, ...others]) {
      const seen = { key: mention.key, type: mention.type.toLowerCase(), value: mention.value, at, eventId };
      if (older(seen, identities.get(mention.key))) identities.set(mention.key, seen);
    }
    const anchor = identity.evidence ? identity : others[0];
    for (const other of others) {
      if (anchor === undefined || other.key === anchor.key) continue;
      const [a = '', b = ''] = [anchor.key, other.key].sort();
      if (older({ a, b, at, eventId }, pairs.get(a + b))) pairs.set(a + b, { a, b, at, eventId });
    }
    const bearer = (anchor ?? own[0])?.key;
    for (const fact of customerFacts) {
      if (bearer === undefined || fact.kind !== 'named') continue;
      for (const field of ['firstName', 'lastName', 'name'] as const) {
        const value = fact[field];
        if (value !== undefined) names.set(bearer, [...(names.get(bearer) ?? []), { field, said: { at, tie: 0, eventId, index: fact.index, value } }]);
      }
    }
  }
  const typeOf = (id: string): string => identities.get(id)?.type ?? '';
  const isTemporary = (id: string): boolean => policy.temporary.includes(typeOf(id));
  const ranks: Strength[] = ['operator', 'veryStrong', 'strong', 'weak'];
  const strengthOf = (id: string): number => (policy.veryStrong.includes(typeOf(id)) ? 1 : policy.strong.includes(typeOf(id)) ? 2 : 3);
  const rank = ({ a, b, at, eventId }: Joined): string => `${Math.max(strengthOf(a), strengthOf(b))} ${at} ${eventId} ${a} ${b}`;
  const all = [...pairs.values()].sort((one, other) => (rank(one) < rank(other) ? -1 : 1));
  const other = (pair: Joined, id: string): string => (pair.a === id ? pair.b : pair.a);
  const of = (id: string): Joined[] => all.filter(({ a, b }) => a === id || b === id);
  const shared = new Set([...identities.keys()].filter((id) => of(id).filter((pair) => !isTemporary(other(pair, id))).length > policy.limits.neighbours));
  const keeps = (id: string, pair: Joined): boolean => !shared.has(id)
    && (!isTemporary(other(pair, id)) || of(id).filter((one) => typeOf(other(one, id)) === typeOf(other(pair, id))).indexOf(pair) < policy.limits.temporary);
  const party = new Map<string, Set<string>>([...identities.keys()].map((id) => [id, new Set([id])]));
  const verdicts = new Map<Joined, string>();
  for (const pair of all) {
    const one = party.get(pair.a) ?? new Set<string>();
    const two = party.get(pair.b) ?? new Set<string>();
    const count = (set: Set<string>, type: string): number => [...set].filter((id) => typeOf(id) === type).length;
    const types = [...new Set([...one, ...two].map(typeOf))].filter((type) => count(one, type) > 0 && count(two, type) > 0);
    const limit = (type: string): number => (policy.temporary.includes(type) ? policy.limits.temporary : policy.limits.perType);
    if (!keeps(pair.a, pair) || !keeps(pair.b, pair)) verdicts.set(pair, 'shared');
    else if (one === two) verdicts.set(pair, 'confirming');
    else if (types.some((type) => policy.veryStrong.includes(type))) verdicts.set(pair, 'veryStrongConflict');
    else if (types.some((type) => count(one, type) + count(two, type) > limit(type))) verdicts.set(pair, 'typeLimit');
    else {
      verdicts.set(pair, 'joined');
      const union = new Set([...one, ...two]);
      for (const id of union) party.set(id, union);
    }
  }
  const documents: [string, unknown][] = [];
  const latestOf = (ids: string[], field: string): NameSaid | undefined => ids.flatMap((id) => names.get(id) ?? []).filter((one) => one.field === field).map(({ said }) => said)
    .sort((x, y) => (`${x.at} ${x.eventId} ${x.index}` < `${y.at} ${y.eventId} ${y.index}` ? -1 : 1)).at(-1);
  for (const members of new Set(party.values())) {
    const aliases = [...members].map((id) => identities.get(id)).filter((found) => found !== undefined)
      .sort((x, y) => (`${x.at} ${x.key}` < `${y.at} ${y.key}` ? -1 : 1)).map(({ key: id, type, value, at, eventId }) => {
        const named: Record<string, NameSaid> = {};
        for (const field of ['firstName', 'lastName', 'name']) { const said = latestOf([id], field); if (said) named[field] = said; }
        return { key: id, type, value, firstSeen: at, eventId, ...(Object.keys(named).length > 0 && { named }) };
      });
    const id = aliases[0]?.key.slice(0, 24) ?? '';
    const mine = all.filter((pair) => (members.has(pair.a) && keeps(pair.a, pair)) || (members.has(pair.b) && keeps(pair.b, pair)));
    const shown = ({ a, b, at, eventId }: Joined) => ({ a, b, strength: ranks[Math.max(strengthOf(a), strengthOf(b))], at, eventId });
    const refused = mine.filter((pair) => !['joined', 'confirming'].includes(verdicts.get(pair) ?? '')).map((pair) => ({
      a: pair.a, b: pair.b, reason: verdicts.get(pair), at: pair.at, eventId: pair.eventId, strength: shown(pair).strength,
      type: typeOf(members.has(pair.a) && keeps(pair.a, pair) ? pair.b : pair.a),
    }));
    const values = (['firstName', 'lastName', 'name'] as const).map((field) => [field, latestOf([...members], field)?.value ?? null]);
    documents.push([`p/${id}`, {
      id, ...Object.fromEntries(values), aliases, evidence: mine.filter((pair) => verdicts.get(pair) === 'joined').map(shown),
      confirming: mine.filter((pair) => verdicts.get(pair) === 'confirming').map(shown), refused,
    }]);
    for (const { key: own, type, value, firstSeen, eventId } of aliases) {
      documents.push([`k/${own}`, { person: id, type, value, firstSeen, eventId, shared: shared.has(own) }]);
      if (own.slice(0, 24) !== id) documents.push([`a/${own.slice(0, 24)}`, { key: own }]);
    }
  }
  if (identities.size > 0) documents.push(['w/types', { types: [...new Set([...identities.values()].map(({ type }) => type))].sort() }]);
  return documents.map(([name, value]): [string, string] => [name, JSON.stringify(value)]).sort(([a], [b]) => (a < b ? -1 : 1));
}

// ---- G3 ----------------------------------------------------------------------------------------------------------------

const universe = {
  dense: ['customerid:1', 'customerid:2', 'email:a@x.org', 'email:B@x.org', 'email:c@x.org', 'phone:+15550100', 'phone:15550101', 'phone:15550102', 'cookie:1', 'cookie:2', 'cookie:3', 'cookie:4', 'browserId:1', 'subject:s', 'phone:anonymous'],
  wide: [1, 2, 3, 4, 5, 6].flatMap((n) => [`customerid:${n}`, `email:${n}@x.org`, `phone:1555010${n}`, `cookie:${n}`, `browserId:${n}`, `chat:${n}`]),
};

function sayings(values: readonly string[], maxLength: number): fc.Arbitrary<Saying[]> {
  const one = fc.record({
    who: fc.constantFrom(...values), at: fc.integer({ min: 0, max: 12 }), also: fc.array(fc.constantFrom(...values), { maxLength: 3 }), id: fc.integer({ min: 0, max: 1e9 }).map((n) => `id${n}`),
    names: fc.option(fc.record({ firstName: fc.constantFrom('Ann', 'Bo', null), name: fc.constantFrom('Ann B', 'Bo C') }, { requiredKeys: [] }), { nil: undefined, freq: 3 }),
  });
  // An event id is a hash of the content: one id never stands for two contents.
  return fc.uniqueArray(one, { maxLength, selector: ({ id }) => id }).map((found) => found.map(({ names, ...rest }) => ({ ...rest, ...(names && { names }) })));
}

/** A set of events, and a way in which they arrive: shuffled, some twice, cut into batches. */
function arrivals(values: readonly string[], maxLength: number): fc.Arbitrary<{ set: Interpreted[]; batches: Interpreted[][] }> {
  return sayings(values, maxLength).map((found) => found.map(event)).chain((set) => {
    const again = fc.subarray(set).chain((twice) => fc.shuffledSubarray([...set, ...twice], { minLength: set.length + twice.length }));
    return fc.tuple(again, fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 6 })).map(([order, sizes]) => {
      const batches: Interpreted[][] = [];
      for (let from = 0, i = 0; from < order.length; i += 1) {
        const size = sizes[i % sizes.length] ?? 1;
        batches.push(order.slice(from, from + size));
        from += size;
      }
      return { set, batches };
    });
  });
}

function folded(batches: readonly (readonly Interpreted[])[], policy: Policy): Store {
  const store = new Store(personsUnder(policy));
  for (const batch of batches) store.take(...batch);
  return store;
}

describe('G3: persons are a function of the set of evidence', () => {
  const cases: [string, readonly string[], Policy, number, number][] = [
    ['few identities, tight limits', universe.dense, small, 24, 200],
    ['few identities, room to grow', universe.dense, { ...small, limits: { neighbours: 6, perType: 3, temporary: 3 } }, 30, 120],
    ['many identities, so that changes spread from person to person', universe.wide, { ...small, limits: { neighbours: 5, perType: 2, temporary: 2 } }, 40, 150],
    ['one of a type, so that nearly every edge is contested', universe.wide, { ...small, limits: { neighbours: 9, perType: 1, temporary: 1 } }, 40, 150],
    ['the default policy', universe.wide, DEFAULT_POLICY, 40, 60],
  ];
  test.each(cases)('G3: whatever the order, the repeats and the batches, the same documents to the byte, and those that the rules give: %s', (_name, values, policy, maxLength, numRuns) => {
    fc.assert(fc.property(arrivals(values, maxLength), ({ set, batches }) => {
      expect(folded(batches, policy).dump()).toEqual(oracle(set, policy));
    }), { numRuns });
  });

  test('G3: a batch hands back nothing that is stored already, and changes nothing that it was handed', () => {
    fc.assert(fc.property(arrivals(universe.dense, 20), ({ set, batches }) => {
      const store = folded(batches, small);
      const frozen = new Map([...store.texts.keys()].map((name) => [name, deepFreeze(store.read(name))]));
      const again = runFold(personsUnder(small).fold(set, keys), (name) => frozen.get(name) ?? null);
      expect([...again.documents]).toEqual([]);
      runFold(personsUnder(small).fold([...set].map((one) => ({ ...one, at: instantOf(-5000), eventId: `${one.eventId}-earlier` })), keys), (name) => frozen.get(name) ?? null);
    }), { numRuns: 60 });
  });
});

function deepFreeze(value: Json): Json {
  if (typeof value === 'object' && value !== null) {
    Object.freeze(value);
    for (const inner of Object.values(value)) if (inner !== undefined) deepFreeze(inner);
  }
  return value;
}

// ---- the rules, one by one -----------------------------------------------------------------------------------------------

describe('evidence', () => {
  test('an identity is a person of its own, with its value as first spelt', () => {
    const store = new Store().say({ who: 'phone:+1 (555) 010-0100', at: 2 }, { who: 'phone:15550100100', at: 1 }, { who: 'phone:1-555-010-0100', at: 3 });
    const person = store.person('phone:15550100100');
    expect(person).toMatchObject({ id: key('phone:15550100100').slice(0, 24), firstName: null, evidence: [], confirming: [], refused: [] });
    expect(person.aliases).toEqual([{ key: key('phone:15550100100'), type: 'phone', value: '15550100100', firstSeen: instantOf(1000), eventId: 'e1-phone:15550100100--undefined' }]);
  });

  test('identifiers join, and exist although no event is theirs', () => {
    const store = new Store().say({ who: 'email:ann@x.org', at: 1, also: ['phone:15550100', 'cookie:c'] });
    expect(store.aliases('cookie:c')).toEqual(['cookie:c', 'email:ann@x.org', 'phone:15550100']);
    expect(store.person('cookie:c').evidence.map(({ strength }) => strength)).toEqual(['weak', 'weak']);
  });

  test.each([
    ['an anonymous identity', 'phone:anonymous', ['email:a@x.org', 'phone:15550100']],
    ['a subject', 'subject:task-1', ['email:a@x.org', 'phone:15550100']],
  ])('%s joins nothing itself: edges run from the first identifier', (_name, who, expected) => {
    const store = new Store().say({ who, at: 1, also: ['email:a@x.org', 'phone:15550100'] });
    expect(store.aliases('email:a@x.org')).toEqual(expected);
    expect(store.texts.has(`k/${key(who)}`)).toBe(who.startsWith('subject'));
    if (who.startsWith('subject')) expect(store.aliases(who)).toEqual([who]);
  });

  test('anonymous and empty identifiers are nobody, and an event of nobody alone leaves nothing', () => {
    const store = new Store().say({ who: 'phone:anonymous', at: 1, names: { name: 'Nobody' } }, { who: 'email:a@x.org', at: 2, also: ['phone:unknown', 'phone: ', 'phone:0'] });
    expect(store.dump().map(([name]) => name.slice(0, 2))).toEqual(['k/', 'p/', 'w/']);
  });

  test.each<[string, string, Strength]>([
    ['customerid:1', 'account:9', 'veryStrong'], ['customerid:1', 'email:a@x.org', 'strong'], ['email:a@x.org', 'email:b@x.org', 'strong'],
    ['customerid:1', 'phone:15550100', 'weak'], ['email:a@x.org', 'shoeSize:44', 'weak'], ['CustomerID:1', 'EMAIL:a@x.org', 'strong'],
  ])('an edge is as strong as its weaker end: %s – %s', (who, other, strength) => {
    expect(new Store().say({ who, at: 1, also: [other] }).person(who).evidence).toMatchObject([{ strength }]);
  });

  test('many events that say the same count as the earliest, whichever way round they say it', () => {
    const store = new Store().say(
      { who: 'email:a@x.org', at: 5, also: ['phone:15550100'], id: 'late' }, { who: 'phone:15550100', at: 3, also: ['email:a@x.org'], id: 'early' }, { who: 'email:a@x.org', at: 4, also: ['phone:15550100'], id: 'middle' },
    );
    expect(store.person('email:a@x.org').evidence).toMatchObject([{ at: instantOf(3000), eventId: 'early' }]);
  });

  test('the latest name wins, each field for itself, over all aliases; null takes a name back', () => {
    const store = new Store().say(
      { who: 'email:a@x.org', at: 4, names: { firstName: 'Anne' } }, { who: 'phone:15550100', at: 9, names: { lastName: 'Byrd' } },
      { who: 'email:a@x.org', at: 2, names: { firstName: 'Ann', lastName: 'Bird', name: 'Ann Bird' } }, { who: 'phone:15550100', at: 3, also: ['email:a@x.org'] }, { who: 'email:a@x.org', at: 5, names: { name: null } },
    );
    expect(store.person('phone:15550100')).toMatchObject({ firstName: 'Anne', lastName: 'Byrd', name: null });
  });

  test('an anonymous event\'s name is that of its first identifier', () => {
    const store = new Store().say({ who: 'phone:withheld', at: 1, also: ['email:a@x.org'], names: { name: 'Ann' } });
    expect(store.person('email:a@x.org').name).toBe('Ann');
  });
});

describe('shared values', () => {
  const callers = (count: number, from = 1): Saying[] => Array.from({ length: count }, (_, i) => ({ who: `chat:${from + i}`, at: from + i, also: ['phone:15550100'] }));
  const roomy = personsUnder({ ...DEFAULT_POLICY, limits: { neighbours: 20, perType: 100, temporary: 500 } });

  test('twenty neighbours are one person, the twenty-first parts them all', () => {
    const store = new Store(roomy).say(...callers(20));
    expect(store.aliases('phone:15550100')).toHaveLength(21);
    store.say({ who: 'chat:21', at: 21, also: ['phone:15550100'] });
    expect(store.aliases('phone:15550100')).toEqual(['phone:15550100']);
    expect(store.aliases('chat:1')).toEqual(['chat:1']);
    expect(store.reasons('chat:1')).toEqual(['shared']);
    expect(store.read(`k/${key('phone:15550100')}`)).toMatchObject({ shared: true });
  });

  test('temporary ids are not counted', () => {
    const store = new Store().say({ who: 'email:a@x.org', at: 1, also: Array.from({ length: 60 }, (_, i) => `cookie:c${i}`) });
    expect(store.aliases('email:a@x.org')).toHaveLength(61);
  });

  test('a temporary id that many customers hold is shared too', () => {
    const store = new Store();
    for (let i = 0; i < 21; i += 1) store.say({ who: `customerid:c${i}`, at: i, also: ['cookie:kiosk'] });
    expect(store.aliases('cookie:kiosk')).toEqual(['cookie:kiosk']);
  });

  test('what two customers share only with each other joins them again by other evidence', () => {
    const store = new Store(roomy).say(...callers(20), { who: 'chat:1', at: 50, also: ['email:a@x.org'] }, { who: 'chat:2', at: 51, also: ['email:a@x.org'] }, ...callers(1, 30));
    expect(store.aliases('chat:1')).toEqual(['chat:1', 'chat:2', 'email:a@x.org']);
  });
});

describe('the order of trying', () => {
  test.each([['strong after weak', 1, 9], ['strong before weak', 9, 1]])('the stronger edge is tried first, however late: %s', (_name, weakAt, strongAt) => {
    const store = new Store().say({ who: 'phone:15550100', at: weakAt, also: ['customerid:1'] }, { who: 'email:a@x.org', at: 5, also: ['phone:15550100'] }, { who: 'email:a@x.org', at: strongAt, also: ['customerid:2'] });
    expect(store.aliases('email:a@x.org')).toEqual(weakAt < 5 ? ['customerid:2', 'email:a@x.org'] : ['customerid:2', 'email:a@x.org', 'phone:15550100']);
  });

  test('among equals the earlier occurrence goes first, then the smaller event id', () => {
    const contest = (first: Saying, second: Saying): string[] => new Store().say(
      { who: 'email:a@x.org', at: 1, also: ['customerid:1'] }, { who: 'email:b@x.org', at: 1, also: ['customerid:2'] }, first, second,
    ).aliases('phone:15550100');
    expect(contest({ who: 'phone:15550100', at: 7, also: ['customerid:1'] }, { who: 'phone:15550100', at: 6, also: ['customerid:2'] })).toContain('customerid:2');
    expect(contest({ who: 'phone:15550100', at: 7, also: ['customerid:1'], id: 'b' }, { who: 'phone:15550100', at: 7, also: ['customerid:2'], id: 'a' })).toContain('customerid:2');
    expect(contest({ who: 'phone:15550100', at: 7, also: ['customerid:1'], id: 'a' }, { who: 'phone:15550100', at: 7, also: ['customerid:2'], id: 'b' })).toContain('customerid:1');
  });
});

describe('refused edges', () => {
  test('two very strong values of one type keep apart what would join them, and both sides list it', () => {
    const store = new Store().say({ who: 'customerid:1', at: 1, also: ['email:a@x.org'] }, { who: 'customerid:2', at: 2, also: ['email:b@x.org'] }, { who: 'email:a@x.org', at: 3, also: ['email:b@x.org'], id: 'both' });
    expect(store.aliases('email:a@x.org')).toEqual(['customerid:1', 'email:a@x.org']);
    const expected = { reason: 'veryStrongConflict', eventId: 'both', strength: 'strong', type: 'email' };
    expect(store.person('email:a@x.org').refused).toMatchObject([expected]);
    expect(store.person('email:b@x.org').refused).toMatchObject([expected]);
  });

  test('very strong values of different types agree', () => {
    const store = new Store().say({ who: 'customerid:1', at: 1, also: ['account:1'] });
    expect(store.aliases('account:1')).toHaveLength(2);
  });

  test.each<[string, number]>([['email', 5], ['phone', 5], ['shoe', 5], ['cookie', 500]])('a person holds so many values of type %s: %i', (type, limit) => {
    const store = new Store();
    store.take(...Array.from({ length: limit + 1 }, (_, i) => event({ who: 'customerid:1', at: i, also: [`${type}:1555010${i}`] })));
    expect(store.aliases('customerid:1')).toHaveLength(limit + 1);
    // A cookie past those that an identity counts is refused before it is tried, and does not burden the customer's own list.
    expect(store.person(`${type}:1555010${limit}`).refused).toMatchObject([{ reason: type === 'cookie' ? 'shared' : 'typeLimit' }]);
    expect(store.reasons('customerid:1')).toEqual(type === 'cookie' ? [] : ['typeLimit']);
  });

  test('five of a type are five of the person, not of an identity', () => {
    const store = new Store().say(
      { who: 'customerid:1', at: 1, also: ['email:1@x.org', 'email:2@x.org', 'email:3@x.org'] }, { who: 'account:1', at: 2, also: ['email:4@x.org', 'email:5@x.org', 'email:6@x.org'] }, { who: 'customerid:1', at: 3, also: ['phone:15550100'] },
      { who: 'account:1', at: 4, also: ['phone:15550100'] },
    );
    expect(store.aliases('phone:15550100')).toEqual(['customerid:1', 'email:1@x.org', 'email:2@x.org', 'email:3@x.org', 'phone:15550100']);
    expect(store.reasons('phone:15550100')).toEqual(['typeLimit']);
  });

  test('an edge refused is joined when an earlier event takes its hindrance elsewhere', () => {
    const store = new Store().say(
      { who: 'email:a@x.org', at: 1, also: ['customerid:1'] }, { who: 'email:b@x.org', at: 1, also: ['customerid:2'] },
      { who: 'phone:15550100', at: 5, also: ['customerid:1'] }, { who: 'phone:15550100', at: 6, also: ['chat:x'] }, { who: 'chat:x', at: 7, also: ['customerid:2'] },
    );
    expect(store.aliases('chat:x')).toContain('customerid:1');
    expect(store.reasons('chat:x')).toEqual(['veryStrongConflict']);
    store.say({ who: 'phone:15550100', at: 4, also: ['customerid:2'] });
    expect(store.aliases('chat:x')).toEqual(['chat:x', 'customerid:2', 'email:b@x.org', 'phone:15550100']);
    expect(store.aliases('customerid:1')).toEqual(['customerid:1', 'email:a@x.org']);
    expect(store.person('chat:x').confirming).toHaveLength(1);
  });
});

describe('ids', () => {
  test('a person\'s id is that of the identity first seen; old ids answer when an earlier event makes another the founder', () => {
    const store = new Store().say({ who: 'email:a@x.org', at: 5, also: ['phone:15550100'] }, { who: 'email:a@x.org', at: 4 });
    const byEmail = key('email:a@x.org').slice(0, 24);
    const byPhone = key('phone:15550100').slice(0, 24);
    expect(store.ask(findPerson(byPhone))?.id).toBe(byEmail);
    store.say({ who: 'phone:15550100', at: 3 });
    expect(store.person('email:a@x.org').id).toBe(byPhone);
    expect([byEmail, byPhone, key('email:a@x.org'), key('phone:15550100')].map((id) => store.ask(findPerson(id))?.id)).toEqual([byPhone, byPhone, byPhone, byPhone]);
    expect(store.texts.has(`p/${byEmail}`)).toBe(false);
  });

  test('seen first together, the smaller key founds', () => {
    const store = new Store().say({ who: 'email:a@x.org', at: 5, also: ['phone:15550100'] });
    expect(store.person('email:a@x.org').id).toBe([key('email:a@x.org'), key('phone:15550100')].sort()[0]?.slice(0, 24));
  });

  test.each(['', 'nonsense', '0'.repeat(24), '0'.repeat(32), `${'0'.repeat(32)}/x`])('what is no id finds nobody: %j', (id) => {
    expect(new Store().say({ who: 'email:a@x.org', at: 1 }).ask(findPerson(id))).toBeNull();
  });

  test('no value stands in a key', () => {
    const store = folded(fc.sample(arrivals(universe.wide, 40), { numRuns: 1, seed: 1 })[0]?.batches ?? [], DEFAULT_POLICY);
    expect(store.texts.size).toBeGreaterThan(10);
    for (const name of store.texts.keys()) expect(name).toMatch(/^(k\/[0-9a-f]{32}|[pa]\/[0-9a-f]{24}|w\/types)$/);
  });
});

describe('explain', () => {
  const end = (store: Store, text: string): { key: string; person: PersonDocument } => ({ key: key(text), person: store.person(text) });

  test('tells the chain of events that made two identities one person, in either direction', () => {
    const store = new Store().say(
      { who: 'cookie:c', at: 1, also: ['email:a@x.org'], id: 'login' }, { who: 'email:a@x.org', at: 2, also: ['customerid:1'], id: 'signup' }, { who: 'customerid:1', at: 3, also: ['phone:15550100'], id: 'call' }, { who: 'email:a@x.org', at: 4, also: ['chat:z'], id: 'aside' },
    );
    const there = explain(end(store, 'cookie:c'), end(store, 'phone:15550100'));
    expect(there).toMatchObject({ kind: 'same', chain: [{ from: key('cookie:c'), eventId: 'login' }, { to: key('customerid:1'), eventId: 'signup', strength: 'strong' }, { to: key('phone:15550100'), eventId: 'call' }] });
    const back = explain(end(store, 'phone:15550100'), end(store, 'cookie:c'));
    expect(back.kind === 'same' ? back.chain.map(({ eventId }) => eventId) : []).toEqual(['call', 'signup', 'login']);
    expect(explain(end(store, 'chat:z'), end(store, 'chat:z'))).toEqual({ kind: 'same', chain: [] });
  });

  test('tells what kept them apart: a refused edge, or a value that both hang on', () => {
    const store = new Store(personsUnder(small)).say(
      { who: 'customerid:1', at: 1, also: ['email:a@x.org'] }, { who: 'customerid:2', at: 2, also: ['email:b@x.org'] }, { who: 'email:a@x.org', at: 3, also: ['email:b@x.org'], id: 'both' },
      ...['x', 'y', 'z', 'w'].map((name, i): Saying => ({ who: `chat:${name}`, at: 10 + i, also: ['phone:15550100'], id: `call-${name}` })),
    );
    expect(explain(end(store, 'customerid:1'), end(store, 'customerid:2'))).toMatchObject({ kind: 'apart', refused: [{ eventId: 'both', reason: 'veryStrongConflict' }] });
    expect(explain(end(store, 'chat:x'), end(store, 'chat:y'))).toMatchObject({ kind: 'apart', refused: [{ eventId: 'call-x', reason: 'shared' }, { eventId: 'call-y', reason: 'shared' }] });
    expect(explain(end(store, 'chat:x'), end(store, 'phone:15550100'))).toMatchObject({ kind: 'apart', refused: [{ eventId: 'call-x', reason: 'shared' }] });
    expect(explain(end(store, 'chat:x'), end(store, 'customerid:1'))).toEqual({ kind: 'apart', refused: [] });
  });

  test('any two aliases are joined by a chain of events that name them', () => {
    fc.assert(fc.property(arrivals(universe.wide, 40), ({ batches }) => {
      const store = folded(batches, DEFAULT_POLICY);
      for (const name of store.texts.keys()) {
        if (!name.startsWith('p/')) continue;
        const person = store.read(name) as PersonDocument;
        for (const alias of person.aliases) {
          const found = explain({ key: person.aliases[0]?.key ?? '', person }, { key: alias.key, person });
          expect(found.kind === 'same' && (found.chain.at(-1)?.to ?? alias.key)).toBe(alias.key);
        }
      }
    }), { numRuns: 30 });
  });
});

// ---- work, counted -----------------------------------------------------------------------------------------------------------

describe('work', () => {
  test('100,000 events of one identity: each reads its own document and writes none', () => {
    const store = new Store().say({ who: 'email:a@x.org', at: 0, also: ['phone:15550100'] });
    const before = { ...store.work };
    for (let batch = 0; batch < 1000; batch += 1) store.take(...Array.from({ length: 100 }, (_, i) => event({ who: 'email:a@x.org', at: 1 + batch * 100 + i })));
    expect(store.work.put).toBe(before.put);
    expect(store.work.loaded - before.loaded).toBe(1000);
    expect(store.work.bytes - before.bytes).toBeLessThan(1000 * 300);
  });

  test('evidence said again reads the two identities and their person, and writes nothing', () => {
    const store = new Store().say({ who: 'email:a@x.org', at: 0, also: ['phone:15550100'] });
    const before = { ...store.work };
    for (let i = 1; i <= 100; i += 1) store.say({ who: 'email:a@x.org', at: i, also: ['phone:15550100'] });
    expect(store.work.put).toBe(before.put);
    expect(store.work.loaded - before.loaded).toBe(300);
  });

  test('5,000 customers behind one switchboard number: the work of each does not grow', () => {
    const store = new Store();
    const costs: number[] = [];
    for (let i = 0; i < 5000; i += 1) {
      const before = store.work.bytes;
      store.say({ who: `customerid:c${i}`, at: i, also: ['phone:15550100'] });
      costs.push(store.work.bytes - before);
    }
    expect(store.work.loaded + store.work.put).toBeLessThan(5000 * 10);
    expect(Math.max(...costs.slice(100))).toBeLessThan(2500);
    expect(store.work.most).toBeLessThan(150);
  });

  test('3,000 cookies of one customer: his documents stay bounded, and those refused stand with the cookies alone', () => {
    const store = new Store(personsUnder({ ...DEFAULT_POLICY, limits: { ...DEFAULT_POLICY.limits, temporary: 30 } }));
    for (let i = 0; i < 3000; i += 1) store.say({ who: 'customerid:1', at: i, also: [`cookie:c${i}`] });
    expect(store.aliases('customerid:1')).toHaveLength(31);
    expect((store.texts.get(`p/${store.person('customerid:1').id}`) ?? '').length).toBeLessThan(31 * 500);
    expect(store.work.loaded + store.work.put).toBeLessThan(3000 * 12);
  });

  test('a web of refused edges is not walked: a contested edge reads the persons it touches and their neighbours', () => {
    // A long chain of customers, each holding the phone that the next one holds too: all evidence is connected, no two customers are one.
    const store = new Store();
    for (let i = 0; i < 2000; i += 1) store.say({ who: `customerid:c${i}`, at: 2 * i + 10, also: [`phone:1555${i}0`] }, { who: `customerid:c${i}`, at: 2 * i + 11, also: [`phone:1555${i + 1}0`] });
    store.work.most = 0;
    // Earlier than everything: what it joins is settled anew.
    store.say({ who: 'customerid:c1000', at: 1, also: ['email:a@x.org'] });
    store.say({ who: 'customerid:c1000', at: 2, also: ['chat:1'] });
    expect(store.work.most).toBeLessThan(40);
  });
});

test('the version names the policy', () => {
  expect(persons.version).toBe(personsUnder({ ...DEFAULT_POLICY }).version);
  expect(personsUnder(small).version).not.toBe(persons.version);
});

test('documents are what their types say', () => {
  const store = new Store().say({ who: 'email:a@x.org', at: 1, also: ['phone:15550100'] });
  const person = store.person('email:a@x.org');
  const alias: Alias | undefined = person.aliases[0];
  const named: Named | undefined = alias?.named;
  const evidence: Evidence[] = person.evidence;
  const refused: RefusedEdge[] = person.refused;
  const identity = store.read(`k/${key('phone:15550100')}`) as IdentityDocument;
  expect([named, evidence.length, refused.length, identity]).toEqual([undefined, 1, 0, { person: person.id, type: 'phone', value: '15550100', firstSeen: instantOf(1000), eventId: identity.eventId, shared: false }]);
});
