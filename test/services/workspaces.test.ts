// Workspaces and keys: the pure decisions, the races of two processes on one store, and the master key of a folder.
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { randomBytes } from 'node:crypto';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { hashApiKey, isWorkspaceId, type WorkspaceId } from '../../schemas/identity.ts';
import { MemoryEventStore } from '../../services/adapters/memory-events.ts';
import { OperatingError } from '../../services/errors.ts';
import type { EventStore, NewEvent } from '../../services/ports.ts';
import { decide, evolve, folderMasterKey, loadWorkspaceKeys, parseSecret, type WorkspaceCommand, Workspaces, type WorkspaceState } from '../../services/workspaces.ts';
import { until } from '../support/serve.ts';

const idOf = (id: string): WorkspaceId => {
  if (!isWorkspaceId(id)) throw new Error('not an id');
  return id;
};
const SHOP = idOf('shop');
const AT = '2026-03-02T09:00:00.000Z';
const MASTER = Buffer.alloc(32, 1);

const opened: Workspaces[] = [];
async function open(store: EventStore, options: { masterKey?: Uint8Array | null; onFault?: (fault: unknown) => void } = {}): Promise<Workspaces> {
  const workspaces = await Workspaces.open({
    store, masterKey: options.masterKey === undefined ? MASTER : options.masterKey, clock: { now: () => Date.parse(AT) }, random: (size) => randomBytes(size),
    sleep: (_, signal) => (signal === undefined ? Promise.resolve() : new Promise((resolve) => { if (signal.aborted) resolve(); else setImmediate(resolve); })),
    ...(options.onFault === undefined ? {} : { onFault: options.onFault }),
  });
  opened.push(workspaces);
  return workspaces;
}
afterEach(async () => { for (const workspaces of opened.splice(0)) await workspaces.close(); });
const newStore = (idsAreUnique = true): MemoryEventStore => new MemoryEventStore({ storeId: 'test', idsAreUnique });

describe('what may be said of a workspace', () => {
  const apply = (state: WorkspaceState | null, command: WorkspaceCommand): WorkspaceState | null => {
    const decision = decide(state, command, AT);
    if (decision.kind === 'refused') throw new Error(decision.reason);
    return decision.events.reduce((next: WorkspaceState | null, event) => evolve(SHOP, next, event), state);
  };
  const made = apply(null, { kind: 'create', name: 'Shop', secret: 'wrapped', firstKey: { keyId: 'k1', hash: 'h1', label: 'first' } });

  test.each<[string, WorkspaceState | null, WorkspaceCommand]>([
    ['workspaceExists', made, { kind: 'create', name: 'Again', secret: 'other', firstKey: null }],
    ['noWorkspace', null, { kind: 'createKey', keyId: 'k2', hash: 'h2', label: '' }],
    ['noWorkspace', null, { kind: 'revokeKey', keyId: 'k1' }],
    ['noWorkspace', null, { kind: 'changeSettings', settings: { pbxNames: ['north'] } }],
    ['keyExists', made, { kind: 'createKey', keyId: 'k1', hash: 'h1', label: '' }],
    ['noKey', made, { kind: 'revokeKey', keyId: 'k9' }],
    ['keyRevoked', apply(made, { kind: 'revokeKey', keyId: 'k1' }), { kind: 'revokeKey', keyId: 'k1' }],
    ['keyRevoked', apply(made, { kind: 'revokeKey', keyId: 'k1' }), { kind: 'createKey', keyId: 'k1', hash: 'h1', label: '' }],
  ])('%s is refused', (reason, state, command) => {
    expect(decide(state, command, AT)).toEqual({ kind: 'refused', reason });
  });

  test('a second creation changes nothing, whatever wrote it', () => {
    expect(evolve(SHOP, made, { kind: 'created', data: { name: 'Other', secret: 'other', createdAt: AT } })).toBe(made);
  });

  test('what is said of a workspace that was never made is passed over', () => {
    expect(evolve(SHOP, null, { kind: 'keyCreated', data: { keyId: 'k', hash: 'h', label: '', createdAt: AT } })).toBeNull();
    expect(evolve(SHOP, null, { kind: 'keyRevoked', data: { keyId: 'k', revokedAt: AT } })).toBeNull();
    expect(evolve(SHOP, null, { kind: 'settingsChanged', data: { pbxNames: ['north'], changedAt: AT } })).toBeNull();
  });
});

describe.each([true, false])('workspaces over a store whose ids are unique: %s', (unique) => {
  test('of two first starts at once one makes the workspace, and both then have the same keys', async () => {
    const store = newStore(unique);
    const [one, two] = [await open(store), await open(store)];
    const started = await Promise.all([one.firstStart({ token: null, secret: null }), two.firstStart({ token: null, secret: null })]);
    expect(started.map(({ kind }) => kind).sort()).toEqual(['made', 'there']);
    const token = started.flatMap((start) => (start.kind === 'made' ? [start.token] : []))[0] ?? '';
    for (const workspaces of [one, two]) {
      expect(workspaces.authenticate(token)).toMatchObject({ workspace: 'default' });
      expect(workspaces.keys('default')?.hash('x')).toBe(one.keys('default')?.hash('x'));
    }
    expect(await store.readStream('workspace-default', { direction: 'forward', limit: 10 })).toHaveLength(2);
    expect((await loadWorkspaceKeys(store, 'default', MASTER)).hash('x')).toBe(one.keys('default')?.hash('x'));
  });

  test('an append whose answer is lost is found, and made once', async () => {
    const inner = newStore(unique);
    let lose = true;
    const lossy = Object.assign(Object.create(inner) as EventStore, {
      append: async (stream: string, expected: number | 'no_stream', events: readonly NewEvent[]) => {
        const answer = await inner.append(stream, expected, events);
        if (lose) { lose = false; throw new OperatingError('storeUnavailable', 'lost'); }
        return answer;
      },
      // Methods of the store's own class, bound to it: private fields are not inherited.
      readStream: inner.readStream.bind(inner), head: inner.head.bind(inner), subscribe: inner.subscribe.bind(inner),
    });
    const workspaces = await open(lossy);
    const made = await workspaces.create(SHOP);
    expect(made).toMatchObject({ kind: 'made' });
    expect(workspaces.authenticate(made.kind === 'made' ? made.token : '')).toMatchObject({ workspace: 'shop' });
    expect(await inner.readStream('workspace-shop', { direction: 'forward', limit: 10 })).toHaveLength(2);
  });
});

describe('workspaces', () => {
  test('a token given from outside becomes the first key, and is known to the next start', async () => {
    const store = newStore();
    const token = 'chosen-by-the-operator';
    expect(await (await open(store)).firstStart({ token, secret: null })).toEqual({ kind: 'made', token });
    const next = await open(store);
    expect(next.authenticate(token)).toMatchObject({ workspace: 'default' });
    expect(await next.firstStart({ token, secret: null })).toEqual({ kind: 'there', tokenKnown: true });
    expect(await next.firstStart({ token: 'another-token-entirely', secret: null })).toEqual({ kind: 'there', tokenKnown: false });
    expect(await next.firstStart({ token: null, secret: null })).toEqual({ kind: 'there', tokenKnown: null });
  });

  test('the same secret gives the same keys in another store', async () => {
    const secret = Buffer.alloc(32, 9);
    const [one, two] = [await open(newStore()), await open(newStore(), { masterKey: Buffer.alloc(32, 2) })];
    await one.create(SHOP, { secret });
    await two.create(SHOP, { secret });
    expect(one.keys('shop')?.identityKey('email', 'ana@example.com')).toBe(two.keys('shop')?.identityKey('email', 'ANA@example.com '));
  });

  test('a key that another process made or revoked is known, or refused, without being asked for', async () => {
    const store = newStore();
    const [operator, server] = [await open(store, { masterKey: null }), await open(store)];
    const first = await server.create(SHOP, { name: 'The shop' });
    await until('the operator knows the workspace', () => operator.list().length === 1);
    const made = await operator.createKey(SHOP, 'ivr');
    if (made.kind !== 'made' || first.kind !== 'made') throw new Error('refused');
    await until('the server knows the key', () => server.authenticate(made.token) !== null);
    expect(server.authenticate(made.token)).toEqual({ workspace: 'shop', keyId: made.keyId, rateLimit: null });
    expect(await operator.revokeKey(SHOP, made.keyId)).toBeNull();
    expect(operator.authenticate(made.token)).toBeNull();
    await until('the server refuses the key', () => server.authenticate(made.token) === null);
    expect(server.authenticate(first.token)).toMatchObject({ workspace: 'shop' });
    expect(await server.revokeKey(SHOP, made.keyId)).toBe('keyRevoked');
    expect(server.listKeys('shop')).toEqual([
      { keyId: first.keyId, label: 'first', createdAt: AT, revokedAt: null, rateLimit: null }, { keyId: made.keyId, label: 'ivr', createdAt: AT, revokedAt: AT, rateLimit: null },
    ]);
    expect(server.list()).toEqual([{ id: 'shop', name: 'The shop', createdAt: AT, keys: 1, pbxNames: [], tenantIds: [] }]);
  });

  test('a key keeps the rate limit that it was made with, and the first one of a first start has none', async () => {
    const store = newStore();
    const [operator, server] = [await open(store, { masterKey: null }), await open(store)];
    const first = await server.firstStart({ token: null, secret: null });
    const given = await server.create(SHOP, { rateLimit: { hits: 5, windowMs: 1000 } });
    await until('the operator knows the workspaces', () => operator.list().length === 2);
    const made = [await operator.createKey(SHOP, 'some', { hits: 100, windowMs: 60_000 }), await operator.createKey(SHOP, 'all', 'off'), await operator.createKey(SHOP, 'silent')];
    const tokens = [first, given, ...made].map((key) => ('token' in key ? key.token : ''));
    await until('the server knows the keys', () => tokens.every((token) => server.authenticate(token) !== null));
    const limits = ['off', { hits: 5, windowMs: 1000 }, { hits: 100, windowMs: 60_000 }, 'off', null];
    for (const workspaces of [server, operator, await open(store)]) expect(tokens.map((token) => workspaces.authenticate(token)?.rateLimit)).toEqual(limits);
    expect(server.listKeys('shop')?.map(({ rateLimit }) => rateLimit)).toEqual(limits.slice(1));
    // What is said later holds, also for whoever only follows.
    const last = server.listKeys('shop')?.at(-1)?.keyId ?? '';
    expect(await operator.limitKey(SHOP, last, { hits: 7, windowMs: 1000 })).toBeNull();
    await until('the server knows the limit', () => JSON.stringify(server.authenticate(tokens.at(-1) ?? '')?.rateLimit) === JSON.stringify({ hits: 7, windowMs: 1000 }));
    expect(await operator.limitKey(SHOP, 'no-such-key', 'off')).toBe('noKey');
  });

  test('a first start with a token from outside gives it no limit either, and keys of before there were limits say nothing', async () => {
    const store = newStore();
    const workspaces = await open(store);
    await workspaces.firstStart({ token: 'chosen-by-the-operator', secret: null });
    expect(workspaces.authenticate('chosen-by-the-operator')?.rateLimit).toBe('off');
    const old = { keyId: 'k-old', hash: hashApiKey('of-an-earlier-version'), label: 'old', createdAt: AT };
    await store.append('workspace-default', 1, [{ id: '00000000-0000-4000-8000-000000000001', type: 'org.throughline.workspace.key.created', data: Buffer.from(JSON.stringify(old)), metadata: Buffer.from('{}') }]);
    await until('it is known', () => workspaces.authenticate('of-an-earlier-version') !== null);
    expect(workspaces.authenticate('of-an-earlier-version')).toEqual({ workspace: 'default', keyId: 'k-old', rateLimit: null });
  });

  test('what is set of a workspace replaces what was said of the same before, and is followed by other processes', async () => {
    const store = newStore();
    const [operator, server] = [await open(store, { masterKey: null }), await open(store)];
    await server.create(SHOP);
    expect(server.settings('shop')).toEqual({ pbxNames: [], tenantIds: [] });
    expect(server.settings('nobody')).toEqual({ pbxNames: [], tenantIds: [] });
    const said = async (settings: Parameters<Workspaces['changeSettings']>[1], expected: unknown): Promise<void> => {
      expect(await operator.changeSettings(SHOP, settings)).toBeNull();
      expect(operator.settings('shop')).toEqual(expected);
      await until('the server knows it', () => JSON.stringify(server.settings('shop')) === JSON.stringify(expected));
    };
    await said({ pbxNames: ['north', 'a, b'] }, { pbxNames: ['north', 'a, b'], tenantIds: [] });
    await said({ tenantIds: ['t1'] }, { pbxNames: ['north', 'a, b'], tenantIds: ['t1'] });
    await said({ pbxNames: ['south'], tenantIds: ['t1'] }, { pbxNames: ['south'], tenantIds: ['t1'] });
    await said({ pbxNames: [] }, { pbxNames: [], tenantIds: ['t1'] });
    // What holds already is not said again.
    const before = await store.readStream('workspace-shop', { direction: 'forward', limit: 20 });
    await said({ pbxNames: [], tenantIds: ['t1'] }, { pbxNames: [], tenantIds: ['t1'] });
    expect(await store.readStream('workspace-shop', { direction: 'forward', limit: 20 })).toHaveLength(before.length);
    expect(server.list()).toMatchObject([{ id: 'shop', pbxNames: [], tenantIds: ['t1'] }]);
    expect((await open(store)).settings('shop')).toEqual({ pbxNames: [], tenantIds: ['t1'] });
    expect(await operator.changeSettings(idOf('bank'), { pbxNames: [] })).toBe('noWorkspace');
  });

  test('no token and no secret stands in the store', async () => {
    const store = newStore();
    const secret = randomBytes(32);
    const made = await (await open(store)).create(SHOP, { secret });
    const text = (await store.readStream('workspace-shop', { direction: 'forward', limit: 10 })).map(({ data }) => Buffer.from(data).toString('utf8')).join('\n');
    const token = made.kind === 'made' ? made.token : 'none';
    expect(text).toContain(hashApiKey(token));
    for (const hidden of [token, token.slice(3), secret.toString('hex'), secret.toString('base64url')]) expect(text).not.toContain(hidden);
  });

  test('G8: a key speaks for its own workspace alone, and nonsense for none', async () => {
    const workspaces = await open(newStore());
    const [shop, bank] = [await workspaces.create(SHOP), await workspaces.create(idOf('bank'))];
    if (shop.kind !== 'made' || bank.kind !== 'made') throw new Error('refused');
    expect(workspaces.authenticate(shop.token)?.workspace).toBe('shop');
    expect(workspaces.authenticate(bank.token)?.workspace).toBe('bank');
    for (const token of ['', 'x', shop.keyId, hashApiKey(shop.token), `${shop.token} `, shop.token.toUpperCase()]) expect(workspaces.authenticate(token)).toBeNull();
    expect(workspaces.keys('shop')?.hash('x')).not.toBe(workspaces.keys('bank')?.hash('x'));
    expect(workspaces.keys('nobody')).toBeNull();
    expect(workspaces.listKeys('nobody')).toBeNull();
    expect(new Set([...workspaces.anonymousStreams('shop'), ...workspaces.anonymousStreams('bank')]).size).toBe(128);
  });

  test('another master key is told with what to do, when opening and to a projector', async () => {
    const store = newStore();
    await (await open(store)).create(SHOP);
    await expect(open(store, { masterKey: Buffer.alloc(32, 3) })).rejects.toMatchObject({ code: 'badMasterKey', message: expect.stringContaining('THROUGHLINE_MASTER_KEY') });
    await expect(loadWorkspaceKeys(store, 'shop', Buffer.alloc(32, 3))).rejects.toMatchObject({ code: 'badMasterKey' });
    await expect(loadWorkspaceKeys(store, 'bank', MASTER)).rejects.toMatchObject({ code: 'storeCorrupt' });
  });

  test('following is taken up again after a fault, from where it stood', async () => {
    const inner = newStore();
    let subscriptions = 0;
    const faulty = Object.assign(Object.create(inner) as EventStore, {
      append: inner.append.bind(inner), readStream: inner.readStream.bind(inner), head: inner.head.bind(inner),
      subscribe: (options: Parameters<EventStore['subscribe']>[0]) => {
        subscriptions += 1;
        if (subscriptions === 1) throw new OperatingError('storeUnavailable', 'down for a moment');
        return inner.subscribe(options);
      },
    });
    const faults: unknown[] = [];
    const workspaces = await open(faulty, { onFault: (fault) => faults.push(fault) });
    await (await open(inner)).create(SHOP);
    await until('the workspace is known', () => workspaces.keys('shop') !== null);
    expect(faults).toHaveLength(1);
  });
});

describe('the master key of a folder', () => {
  const folders: string[] = [];
  const newFolder = (): string => {
    const folder = mkdtempSync(join(tmpdir(), 'throughline-test-'));
    folders.push(folder);
    return folder;
  };
  afterEach(() => { for (const folder of folders.splice(0)) rmSync(folder, { recursive: true }); });
  const random = (size: number): Uint8Array => randomBytes(size);

  test('is made once, readable by its owner alone, whoever else starts at the same time', async () => {
    const folder = join(newFolder(), 'data');
    const keys = await Promise.all(Array.from({ length: 8 }, () => folderMasterKey(folder, { given: null, mayMake: true, random })));
    expect(new Set(keys.map((key) => Buffer.from(key).toString('hex'))).size).toBe(1);
    expect(readdirSync(folder)).toEqual(['master.key']);
    expect(statSync(join(folder, 'master.key')).mode & 0o777).toBe(0o600);
    expect(readFileSync(join(folder, 'master.key'), 'utf8').trim()).toBe(Buffer.from(keys[0] ?? '').toString('hex'));
  });

  test('is not made anew where there are events, is not guessed, and gives way to the one that is set', async () => {
    const folder = newFolder();
    await expect(folderMasterKey(folder, { given: null, mayMake: false, random })).rejects.toMatchObject({ code: 'badMasterKey' });
    expect(readdirSync(folder)).toEqual([]);
    expect(await folderMasterKey(folder, { given: MASTER, mayMake: true, random })).toBe(MASTER);
    expect(readdirSync(folder)).toEqual([]);
    writeFileSync(join(folder, 'master.key'), 'not a key');
    await expect(folderMasterKey(folder, { given: null, mayMake: true, random })).rejects.toMatchObject({ code: 'badMasterKey' });
  });

  test('is read as hex and in both alphabets of base64, and nothing else', () => {
    const bytes = Buffer.alloc(32, 0xfb);
    for (const text of [bytes.toString('hex'), bytes.toString('hex').toUpperCase(), `${bytes.toString('base64')}\n`, bytes.toString('base64url')]) expect(Buffer.from(parseSecret(text) ?? [])).toEqual(bytes);
    for (const text of ['', 'secret', bytes.toString('hex').slice(2), bytes.toString('base64').slice(4), `${bytes.toString('hex')}00`]) expect(parseSecret(text)).toBeNull();
  });
});
