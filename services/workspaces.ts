// Workspaces and their API keys. Administration is event-sourced too: everything that is known stands in the streams
// `workspace-<id>` (design.md section 3), written with an expected revision, folded in memory, followed while the process
// runs, so that a key that another process revoked stops here within its store's polling interval.
import { link, mkdir, open, readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import { z } from 'zod';
import { anonymousStreams, apiKeyId, hashApiKey, isWorkspaceId, makeApiKey, sameHash, unwrapSecret, type WorkspaceId, workspaceKeys, type WorkspaceKeys, workspaceOfStream, wrapSecret } from '../schemas/identity.ts';
import type { EventsPlace } from './backends.ts';
import { OperatingError } from './errors.ts';
import { jsonOf } from './json.ts';
import type { Clock, EventStore, NewEvent, Position, RandomBytes, RecordedEvent } from './ports.ts';
import type { RateSetting } from './rate-limit.ts';

// ---- what is said: events, their fold, and who may say what ---------------------------------------------------------

const createdSchema = z.object({ name: z.string(), secret: z.string(), createdAt: z.string() });
const rateSchema = z.union([z.literal('off'), z.object({ hits: z.int().positive(), windowMs: z.int().positive() })]);
/** Without a rate limit the key says nothing of it (those of earlier versions do not): the process's own holds. */
const keyCreatedSchema = z.object({ keyId: z.string(), hash: z.string(), label: z.string(), createdAt: z.string(), rateLimit: rateSchema.optional() });
const keyLimitedSchema = z.object({ keyId: z.string(), rateLimit: rateSchema, limitedAt: z.string() });
const keyRevokedSchema = z.object({ keyId: z.string(), revokedAt: z.string() });
/** What is left out stays as it was said before. */
const settingsChangedSchema = z.object({ pbxNames: z.array(z.string()).optional(), tenantIds: z.array(z.string()).optional(), changedAt: z.string() });
const TYPES = {
  created: 'org.throughline.workspace.created',
  keyCreated: 'org.throughline.workspace.key.created',
  keyLimited: 'org.throughline.workspace.key.limited',
  keyRevoked: 'org.throughline.workspace.key.revoked',
  settingsChanged: 'org.throughline.workspace.settings.changed',
} as const;

export type WorkspaceEvent =
  | { readonly kind: 'created'; readonly data: z.output<typeof createdSchema> }
  | { readonly kind: 'keyCreated'; readonly data: z.output<typeof keyCreatedSchema> }
  | { readonly kind: 'keyLimited'; readonly data: z.output<typeof keyLimitedSchema> }
  | { readonly kind: 'keyRevoked'; readonly data: z.output<typeof keyRevokedSchema> }
  | { readonly kind: 'settingsChanged'; readonly data: z.output<typeof settingsChangedSchema> };

export interface ApiKey { readonly keyId: string; readonly hash: string; readonly label: string; readonly createdAt: string; readonly revokedAt: string | null; /** Null: the key says nothing. */ readonly rateLimit: RateSetting | null }
/** What its operators said of a workspace; empty lists where they said nothing. */
export interface WorkspaceSettings { readonly pbxNames: readonly string[]; readonly tenantIds: readonly string[] }
const NO_SETTINGS: WorkspaceSettings = { pbxNames: [], tenantIds: [] };
export interface WorkspaceState {
  readonly id: WorkspaceId;
  readonly name: string;
  /** Wrapped by the master key. */
  readonly secret: string;
  readonly createdAt: string;
  readonly settings: WorkspaceSettings;
  readonly apiKeys: ReadonlyMap<string, ApiKey>;
}

/** The state after an event. Null: there is no such workspace yet; what is said of one that was never created is passed over. */
export function evolve(id: WorkspaceId, state: WorkspaceState | null, event: WorkspaceEvent): WorkspaceState | null {
  switch (event.kind) {
    case 'created': return state ?? { id, ...event.data, settings: NO_SETTINGS, apiKeys: new Map() };
    case 'keyCreated': {
      const { data } = event;
      return state === null ? null : { ...state, apiKeys: new Map(state.apiKeys).set(data.keyId, { ...data, rateLimit: data.rateLimit ?? null, revokedAt: null }) };
    }
    case 'keyLimited': {
      const key = state?.apiKeys.get(event.data.keyId);
      if (state === null || key === undefined) return state;
      return { ...state, apiKeys: new Map(state.apiKeys).set(key.keyId, { ...key, rateLimit: event.data.rateLimit }) };
    }
    case 'keyRevoked': {
      const key = state?.apiKeys.get(event.data.keyId);
      if (state === null || key === undefined) return state;
      return { ...state, apiKeys: new Map(state.apiKeys).set(key.keyId, { ...key, revokedAt: key.revokedAt ?? event.data.revokedAt }) };
    }
    case 'settingsChanged': {
      const { pbxNames, tenantIds } = event.data;
      return state === null ? null : { ...state, settings: { pbxNames: pbxNames ?? state.settings.pbxNames, tenantIds: tenantIds ?? state.settings.tenantIds } };
    }
  }
}

interface NewKey { readonly keyId: string; readonly hash: string; readonly label: string; readonly rateLimit?: RateSetting }
export type WorkspaceCommand =
  | { readonly kind: 'create'; readonly name: string; readonly secret: string; readonly firstKey: NewKey | null }
  | ({ readonly kind: 'createKey' } & NewKey)
  | { readonly kind: 'limitKey'; readonly keyId: string; readonly rateLimit: RateSetting }
  | { readonly kind: 'revokeKey'; readonly keyId: string }
  | { readonly kind: 'changeSettings'; readonly settings: Partial<WorkspaceSettings> };
export type Refusal = 'workspaceExists' | 'noWorkspace' | 'keyExists' | 'noKey' | 'keyRevoked';

/** What a command leads to: events, or why not. Pure; `at` is an ISO instant. */
export function decide(state: WorkspaceState | null, command: WorkspaceCommand, at: string): { readonly kind: 'accepted'; readonly events: readonly WorkspaceEvent[] } | { readonly kind: 'refused'; readonly reason: Refusal } {
  const accepted = (...events: readonly WorkspaceEvent[]): ReturnType<typeof decide> => ({ kind: 'accepted', events });
  const refused = (reason: Refusal): ReturnType<typeof decide> => ({ kind: 'refused', reason });
  if (command.kind === 'create') {
    if (state !== null) return refused('workspaceExists');
    const created: WorkspaceEvent = { kind: 'created', data: { name: command.name, secret: command.secret, createdAt: at } };
    return command.firstKey === null ? accepted(created) : accepted(created, { kind: 'keyCreated', data: { ...command.firstKey, createdAt: at } });
  }
  if (state === null) return refused('noWorkspace');
  if (command.kind === 'changeSettings') return accepted(...changed(state.settings, command.settings, at));
  const known = state.apiKeys.get(command.keyId);
  switch (command.kind) {
    case 'createKey': {
      if (known !== undefined) return refused(known.revokedAt === null ? 'keyExists' : 'keyRevoked');
      const { keyId, hash, label, rateLimit } = command;
      return accepted({ kind: 'keyCreated', data: { keyId, hash, label, createdAt: at, ...(rateLimit === undefined ? {} : { rateLimit }) } });
    }
    case 'limitKey':
    case 'revokeKey': {
      if (known === undefined) return refused('noKey');
      if (known.revokedAt !== null) return refused('keyRevoked');
      const { keyId } = command;
      return accepted(command.kind === 'revokeKey' ? { kind: 'keyRevoked', data: { keyId, revokedAt: at } } : { kind: 'keyLimited', data: { keyId, rateLimit: command.rateLimit, limitedAt: at } });
    }
  }
}

/** Nothing is said again that holds already. */
function changed(settings: WorkspaceSettings, wanted: Partial<WorkspaceSettings>, at: string): readonly WorkspaceEvent[] {
  const differs = (name: keyof WorkspaceSettings): boolean => wanted[name] !== undefined && JSON.stringify(wanted[name]) !== JSON.stringify(settings[name]);
  const given = (name: keyof WorkspaceSettings): { [N in keyof WorkspaceSettings]?: string[] } => (wanted[name] === undefined || !differs(name) ? {} : { [name]: [...wanted[name]] });
  return differs('pbxNames') || differs('tenantIds') ? [{ kind: 'settingsChanged', data: { ...given('pbxNames'), ...given('tenantIds'), changedAt: at } }] : [];
}

function encode(event: WorkspaceEvent, random: RandomBytes, at: string): NewEvent {
  return { id: randomUuid(random), type: TYPES[event.kind], data: Buffer.from(JSON.stringify(event.data)), metadata: Buffer.from(JSON.stringify({ recordedAt: at })) };
}

/** Null for a type that this version does not know: a later one's. Asserts that a known type holds what we write. */
function decode(event: RecordedEvent): WorkspaceEvent | null {
  const data = (): unknown => JSON.parse(Buffer.from(event.data).toString('utf8'));
  switch (event.type) {
    case TYPES.created: return { kind: 'created', data: createdSchema.parse(data()) };
    case TYPES.keyCreated: return { kind: 'keyCreated', data: keyCreatedSchema.parse(data()) };
    case TYPES.keyLimited: return { kind: 'keyLimited', data: keyLimitedSchema.parse(data()) };
    case TYPES.keyRevoked: return { kind: 'keyRevoked', data: keyRevokedSchema.parse(data()) };
    case TYPES.settingsChanged: return { kind: 'settingsChanged', data: settingsChangedSchema.parse(data()) };
    default: return null;
  }
}

/** Version 4 (RFC 9562). */
function randomUuid(random: RandomBytes): string {
  const hex = Buffer.from(random(16)).toString('hex');
  const variant = '89ab'.charAt(parseInt(hex.charAt(16), 16) & 3);
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-${variant}${hex.slice(17, 20)}-${hex.slice(20)}`;
}

// ---- the master key ---------------------------------------------------------------------------------------------------

const MASTER_KEY_FILE = 'master.key';
export const SECRET_BYTES = 32;

/** 64 hex digits or the base64 (either alphabet) of 32 bytes → the bytes; null for anything else. */
export function parseSecret(text: string): Uint8Array | null {
  const trimmed = text.trim();
  if (/^[0-9a-f]{64}$/i.test(trimmed)) return Buffer.from(trimmed, 'hex');
  if (!/^[A-Za-z0-9+/_-]{43}=?$/.test(trimmed)) return null;
  const decoded = Buffer.from(trimmed.replaceAll('-', '+').replaceAll('_', '/'), 'base64');
  return decoded.length === SECRET_BYTES ? decoded : null;
}

/**
 * The master key of a data folder: `given` when it is set, else the file `master.key`, which is made (mode 0600) when
 * `mayMake`: only while the folder holds no event, since a key made anew opens nothing. Throws badMasterKey.
 */
export async function folderMasterKey(folder: string, options: { readonly given: Uint8Array | null; readonly mayMake: boolean; readonly random: RandomBytes }): Promise<Uint8Array> {
  if (options.given !== null) return options.given;
  const file = path.join(folder, MASTER_KEY_FILE);
  const found = await readMasterKey(file);
  if (found !== null) return found;
  if (!options.mayMake) throw new OperatingError('badMasterKey', `${folder} has no ${MASTER_KEY_FILE}, which opens the secrets of its workspaces: put it back from a backup, or set THROUGHLINE_MASTER_KEY to what it held`);
  await makeMasterKey(folder, file, options.random);
  const made = await readMasterKey(file);
  if (made === null) throw new OperatingError('badMasterKey', `${file} was just made and is gone again`);
  return made;
}

/**
 * The master key of an event store: of a folder, what `folderMasterKey` finds there (made only while the store is empty
 * and `mayMake`); of a server, what is given, since there is no folder to keep it in. Throws badMasterKey.
 */
export async function masterKeyOf(place: EventsPlace, store: Pick<EventStore, 'head'>, options: { readonly given: Uint8Array | null; readonly mayMake: boolean; readonly random: RandomBytes }): Promise<Uint8Array> {
  const { given, mayMake, random } = options;
  if (place.kind === 'sqlite') return folderMasterKey(place.folder, { given, mayMake: mayMake && (await store.head()) === null, random });
  if (given === null) throw new OperatingError('badMasterKey', 'THROUGHLINE_MASTER_KEY is missing, which opens the secrets of the workspaces: the events are on a server, so there is no folder to keep it in');
  return given;
}

async function readMasterKey(file: string): Promise<Uint8Array | null> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (cause) {
    if (isCode(cause, 'ENOENT')) return null;
    throw new OperatingError('badMasterKey', `${file} cannot be read`, { cause });
  }
  const key = parseSecret(text);
  if (key === null) throw new OperatingError('badMasterKey', `${file} does not hold 64 hex digits: put the right one back from a backup, or set THROUGHLINE_MASTER_KEY`);
  return key;
}

/**
 * The file appears whole or not at all: it is written beside its name and linked to it. Of two processes that start at
 * once, one link fails with EEXIST, and both read what the other one linked.
 */
async function makeMasterKey(folder: string, file: string, random: RandomBytes): Promise<void> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const draft = `${file}.${Buffer.from(random(6)).toString('hex')}`;
  const written = await open(draft, 'wx', 0o600);
  try {
    await written.writeFile(`${Buffer.from(random(SECRET_BYTES)).toString('hex')}\n`);
    await written.sync();
    await link(draft, file);
  } catch (cause) {
    if (!isCode(cause, 'EEXIST')) throw new OperatingError('badMasterKey', `${file} cannot be made`, { cause });
  } finally {
    await written.close();
    await rm(draft, { force: true });
  }
  const directory = await open(folder, 'r');
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

const isCode = (error: unknown, code: string): boolean => typeof error === 'object' && error !== null && 'code' in error && error.code === code;

function secretOf(state: WorkspaceState, masterKey: Uint8Array): Uint8Array {
  const secret = unwrapSecret(state.secret, masterKey);
  if (secret === null) {
    throw new OperatingError('badMasterKey', `the master key does not open the secret of workspace ${state.id}: set THROUGHLINE_MASTER_KEY, or put back the ${MASTER_KEY_FILE}, with which the workspace was made`);
  }
  return secret;
}
function unwrap(state: WorkspaceState, masterKey: Uint8Array): WorkspaceKeys { return workspaceKeys(state.id, secretOf(state, masterKey)); }

/** Whether the master key opens the secret in the event that made a workspace. */
export function secretOpens(created: Pick<RecordedEvent, 'type' | 'data'>, masterKey: Uint8Array): boolean {
  if (created.type !== TYPES.created) return false;
  const { data } = createdSchema.safeParse(jsonOf(created.data));
  return data !== undefined && unwrapSecret(data.secret, masterKey) !== null;
}

// ---- reading one ------------------------------------------------------------------------------------------------------

const PAGE = 500;
const streamOf = (id: WorkspaceId): string => `workspace-${id}`;

interface Read { readonly state: WorkspaceState | null; readonly revision: number; readonly ids: ReadonlySet<string> }

async function readWorkspace(store: EventStore, id: WorkspaceId): Promise<Read> {
  let state: WorkspaceState | null = null;
  let revision = -1;
  const ids = new Set<string>();
  for (;;) {
    const page = await store.readStream(streamOf(id), { direction: 'forward', from: revision + 1, limit: PAGE });
    for (const recorded of page) {
      const event = decode(recorded);
      if (event !== null) state = evolve(id, state, event);
      revision = recorded.revision;
      ids.add(recorded.id);
    }
    if (page.length === 0) return { state, revision, ids };
  }
}

/** The keyed functions of one workspace, from its stream alone: what a projector needs. Throws storeCorrupt when there is no such workspace, and badMasterKey. */
export async function loadWorkspaceKeys(store: EventStore, workspace: string, masterKey: Uint8Array): Promise<WorkspaceKeys> {
  if (!isWorkspaceId(workspace)) throw new Error('assertion: not the id of a workspace');
  const { state } = await readWorkspace(store, workspace);
  if (state === null) throw new OperatingError('storeCorrupt', `there are events of workspace ${workspace}, but its own stream ${streamOf(workspace)} is missing`);
  return unwrap(state, masterKey);
}

/** Workspaces whose keys are kept; each remembers up to some 10 MB of hashes when it is busy, so that few of them are. */
const KEYS_MAX = 64;
/** The keys of the workspaces that events came of last. */
export function keysReader(events: EventStore, masterKey: Uint8Array): (workspace: string) => Promise<WorkspaceKeys> {
  const known = new Map<string, Promise<WorkspaceKeys>>();
  return (workspace) => {
    const keys = known.get(workspace) ?? loadWorkspaceKeys(events, workspace, masterKey);
    known.delete(workspace);
    known.set(workspace, keys);
    for (const oldest of known.keys()) {
      if (known.size <= KEYS_MAX) break;
      known.delete(oldest);
    }
    // A passing fault must not stay for good.
    keys.catch(() => known.delete(workspace));
    return keys;
  };
}

// ---- all of them ------------------------------------------------------------------------------------------------------

export interface WorkspacesOptions {
  readonly store: EventStore;
  /** Null where nothing has to be keyed (listing, creating keys): then `keys` answers null and no workspace can be made. */
  readonly masterKey: Uint8Array | null;
  readonly clock: Clock;
  readonly random: RandomBytes;
  readonly sleep: (ms: number, signal?: AbortSignal) => Promise<void>;
  /** Told when following was interrupted; it is taken up again. */
  readonly onFault?: (fault: unknown) => void;
}
export interface Caller { readonly workspace: WorkspaceId; readonly keyId: string; /** Null: the key says nothing. */ readonly rateLimit: RateSetting | null }
export type KeyMade = { readonly kind: 'made'; readonly keyId: string; /** Shown once; never stored. */ readonly token: string } | { readonly kind: 'refused'; readonly reason: Refusal };
export interface WorkspaceListed extends WorkspaceSettings { readonly id: WorkspaceId; readonly name: string; readonly createdAt: string; readonly keys: number }

const PREFIX = 'workspace-';
const ATTEMPTS_MAX = 10;
export const DEFAULT_WORKSPACE = 'default';
export const API_KEY_LENGTH_MIN = 16;

export class Workspaces {
  readonly #options: WorkspacesOptions;
  readonly #states = new Map<string, { state: WorkspaceState | null; revision: number }>();
  readonly #keys = new Map<string, WorkspaceKeys>();
  /** SHA-256 of a valid token → whose it is. */
  readonly #callers = new Map<string, Omit<Caller, 'rateLimit'>>();
  readonly #stop = new AbortController();
  #position: Position | null = null;
  #following: Promise<void> = Promise.resolve();

  private constructor(options: WorkspacesOptions) { this.#options = options; }

  /** Reads every workspace, then follows them until closed. Throws badMasterKey when the master key does not open the secret of one. */
  static async open(options: WorkspacesOptions): Promise<Workspaces> {
    const all = new Workspaces(options);
    await all.#load();
    const { masterKey } = options;
    for (const { state } of all.#states.values()) if (state !== null && masterKey !== null) all.#keys.set(state.id, unwrap(state, masterKey));
    all.#following = all.#follow();
    return all;
  }

  /** Stops following; what is known stays readable. */
  async close(): Promise<void> {
    this.#stop.abort();
    await this.#following;
  }

  /** Whose token this is; null for one that nobody has or that was revoked. One hash and one look-up, however many keys there are: how long it takes tells nothing of any of them, since what is looked up is a hash. */
  authenticate(token: string): Caller | null {
    const hash = hashApiKey(token);
    const caller = this.#callers.get(hash);
    if (caller === undefined) return null;
    const key = this.#states.get(caller.workspace)?.state?.apiKeys.get(caller.keyId);
    return key !== undefined && key.revokedAt === null && sameHash(key.hash, hash) ? { ...caller, rateLimit: key.rateLimit } : null;
  }

  /** Null for an unknown workspace, and for one whose secret the master key does not open (told to `onFault`). */
  keys(workspace: string): WorkspaceKeys | null {
    const known = this.#keys.get(workspace);
    if (known !== undefined) return known;
    const state = this.#states.get(workspace)?.state ?? null;
    if (state === null || this.#options.masterKey === null) return null;
    try {
      const keys = unwrap(state, this.#options.masterKey);
      this.#keys.set(workspace, keys);
      return keys;
    } catch (fault) {
      this.#options.onFault?.(fault);
      return null;
    }
  }

  /** None for an unknown workspace. */
  settings(workspace: string): WorkspaceSettings { return this.#states.get(workspace)?.state?.settings ?? NO_SETTINGS; }

  /** Where the events of anonymous values stand; none for an unknown workspace. */
  anonymousStreams(workspace: string): readonly string[] {
    const state = this.#states.get(workspace)?.state ?? null;
    return state === null || this.#options.masterKey === null ? [] : anonymousStreams(state.id, secretOf(state, this.#options.masterKey));
  }

  list(): readonly WorkspaceListed[] {
    return [...this.#states.values()]
      .flatMap(({ state }) => (state === null ? [] : [{ id: state.id, name: state.name, createdAt: state.createdAt, keys: validKeys(state).length, ...state.settings }]))
      .sort((a, b) => (a.id < b.id ? -1 : 1));
  }

  /** Every key ever made, oldest first; null for an unknown workspace. */
  listKeys(workspace: string): readonly Omit<ApiKey, 'hash'>[] | null {
    const state = this.#states.get(workspace)?.state ?? null;
    if (state === null) return null;
    return [...state.apiKeys.values()].map(({ keyId, label, createdAt, revokedAt, rateLimit }) => ({ keyId, label, createdAt, revokedAt, rateLimit }));
  }

  /** Makes a workspace with a secret of its own, and its first key (`token` when it is given from outside). Of two that make the same at once, one is refused. */
  async create(id: WorkspaceId, options: { readonly name?: string; readonly secret?: Uint8Array | null; readonly token?: string | null; readonly label?: string; readonly rateLimit?: RateSetting } = {}): Promise<KeyMade> {
    const { masterKey, random } = this.#options;
    if (masterKey === null) throw new Error('assertion: a workspace is made under a master key');
    const token = options.token ?? makeApiKey(random);
    const key = { keyId: apiKeyId(token), hash: hashApiKey(token), label: options.label ?? 'first', ...(options.rateLimit === undefined ? {} : { rateLimit: options.rateLimit }) };
    const secret = wrapSecret(options.secret ?? random(SECRET_BYTES), masterKey, random(12));
    const refusal = await this.#command(id, { kind: 'create', name: options.name ?? id, secret, firstKey: key });
    return refusal === null ? { kind: 'made', keyId: key.keyId, token } : { kind: 'refused', reason: refusal };
  }

  /** Without a rate limit the key says nothing of it. */
  async createKey(workspace: WorkspaceId, label: string, rateLimit: RateSetting | null = null): Promise<KeyMade> {
    const token = makeApiKey(this.#options.random);
    const keyId = apiKeyId(token);
    const refusal = await this.#command(workspace, { kind: 'createKey', keyId, hash: hashApiKey(token), label, ...(rateLimit === null ? {} : { rateLimit }) });
    return refusal === null ? { kind: 'made', keyId, token } : { kind: 'refused', reason: refusal };
  }

  /** Null when it holds. */
  limitKey(workspace: WorkspaceId, keyId: string, rateLimit: RateSetting): Promise<Refusal | null> {
    return this.#command(workspace, { kind: 'limitKey', keyId, rateLimit });
  }

  /** Null when it is revoked now, and known here to be. */
  revokeKey(workspace: WorkspaceId, keyId: string): Promise<Refusal | null> {
    return this.#command(workspace, { kind: 'revokeKey', keyId });
  }

  /** Replaces what was said before, of what is given. Null when it stands. */
  changeSettings(workspace: WorkspaceId, settings: Partial<WorkspaceSettings>): Promise<Refusal | null> {
    return this.#command(workspace, { kind: 'changeSettings', settings });
  }

  /**
   * What `serve` does on a folder without workspaces: makes `default`, whose first key may search as often as it likes. Of two first starts the loser finds what the
   * winner made. `made` has the token to print once; `there` says whether a token given from outside is a valid one.
   */
  async firstStart(given: { readonly token: string | null; readonly secret: Uint8Array | null }): Promise<{ readonly kind: 'made'; readonly token: string } | { readonly kind: 'there'; readonly tokenKnown: boolean | null }> {
    const there = (): { readonly kind: 'there'; readonly tokenKnown: boolean | null } => ({ kind: 'there', tokenKnown: given.token === null ? null : this.authenticate(given.token) !== null });
    if (!isWorkspaceId(DEFAULT_WORKSPACE) || this.list().length > 0) return there();
    const made = await this.create(DEFAULT_WORKSPACE, { secret: given.secret, token: given.token, label: given.token === null ? 'first' : 'THROUGHLINE_API_KEY', rateLimit: 'off' });
    return made.kind === 'made' ? { kind: 'made', token: made.token } : there();
  }

  /** Decides on the stream as it stands and appends at its revision; whoever else appends meanwhile makes us decide anew. An append without an answer is looked for by its event ids. */
  async #command(id: WorkspaceId, command: WorkspaceCommand): Promise<Refusal | null> {
    const { store, clock, random, sleep } = this.#options;
    const sent: (readonly string[])[] = [];
    let unanswered: unknown = null;
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt += 1) {
      const { state, revision, ids } = await readWorkspace(store, id);
      this.#put(id, state, revision);
      if (sent.some((append) => append.every((one) => ids.has(one)))) return null;
      const at = new Date(clock.now()).toISOString();
      const decision = decide(state, command, at);
      if (decision.kind === 'refused') return decision.reason;
      if (decision.events.length === 0) return null;
      const events = decision.events.map((event) => encode(event, random, at));
      try {
        const answer = await store.append(streamOf(id), revision < 0 ? 'no_stream' : revision, events);
        if (answer.kind !== 'appended') continue;
        this.#put(id, decision.events.reduce((next: WorkspaceState | null, event) => evolve(id, next, event), state), answer.revision);
        return null;
      } catch (fault) {
        if (fault instanceof OperatingError && !fault.retriable) throw fault;
        sent.push(events.map((event) => event.id));
        unanswered = fault;
        await sleep(20 * 2 ** attempt);
      }
    }
    throw new OperatingError('storeUnavailable', `the stream of workspace ${id} could not be written`, { cause: unanswered });
  }

  async #load(): Promise<void> {
    const { store } = this.#options;
    if ((await store.head()) === null) return;
    for await (const batch of store.subscribe({ after: null, prefixes: [PREFIX], maxBatch: PAGE, signal: this.#stop.signal })) {
      this.#take(batch.events, batch.position);
      if (batch.caughtUp) return;
    }
  }

  /** Until closed; a subscription that ends or fails is taken up again where it stood. */
  async #follow(): Promise<void> {
    const { store, sleep, onFault } = this.#options;
    const { signal } = this.#stop;
    for (let faults = 0; !signal.aborted; faults += 1) {
      try {
        for await (const batch of store.subscribe({ after: this.#position, prefixes: [PREFIX], maxBatch: PAGE, signal })) {
          this.#take(batch.events, batch.position);
          faults = 0;
        }
      } catch (fault) {
        // A store that was closed first is how a process ends.
        if (fault instanceof OperatingError && fault.code === 'storeClosed') return;
        onFault?.(fault);
      }
      await sleep(Math.min(1000, 50 * 2 ** faults), signal);
    }
  }

  #take(events: readonly RecordedEvent[], position: Position): void {
    for (const recorded of events) {
      const id = workspaceOfStream(recorded.stream);
      if (id === null) continue;
      const known = this.#states.get(id) ?? { state: null, revision: -1 };
      // Our own commands are known before the subscription brings them.
      if (recorded.revision <= known.revision) continue;
      const event = decode(recorded);
      this.#put(id, event === null ? known.state : evolve(id, known.state, event), recorded.revision);
    }
    this.#position = position;
  }

  /** Makes a state known, unless a later one is. */
  #put(id: WorkspaceId, state: WorkspaceState | null, revision: number): void {
    if (revision <= (this.#states.get(id)?.revision ?? -1)) return;
    this.#states.set(id, { state, revision });
    for (const { hash, keyId, revokedAt } of state?.apiKeys.values() ?? []) {
      const caller = this.#callers.get(hash);
      if (revokedAt === null) this.#callers.set(hash, caller ?? { workspace: id, keyId });
      else if (caller?.workspace === id) this.#callers.delete(hash);
    }
  }
}

function validKeys(state: WorkspaceState): readonly ApiKey[] { return [...state.apiKeys.values()].filter((key) => key.revokedAt === null); }
