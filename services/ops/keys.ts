// `throughline workspaces` and `throughline keys`: appends to the workspaces' own streams, which a running `serve` follows.
import { isWorkspaceId, type WorkspaceId } from '../../schemas/identity.ts';
import type { EventsPlace } from '../backends.ts';
import type { Options } from '../config.ts';
import { OperatingError } from '../errors.ts';
import { printRate } from '../rate-limit.ts';
import { type Refusal, Workspaces, type WorkspaceSettings } from '../workspaces.ts';
import { type EventLog, type Mode, openLog, openWorkspaces } from './folder.ts';
import { type Io, orExplain, print, printJson, table } from './terminal.ts';

const REFUSALS: Readonly<Record<Refusal, string>> = {
  workspaceExists: 'there is a workspace of this id already',
  noWorkspace: 'there is no workspace of this id',
  keyExists: 'there is a key of this id already',
  noKey: 'the workspace has no key of this id',
  keyRevoked: 'the key was revoked before',
};

export function workspacesVerb(options: Options<'workspaces'>, io: Io): Promise<number> {
  return orExplain('workspaces', io, async () => {
    switch (options.action) {
      case 'list': return withLog(options, 'read', io, (log) => listWorkspaces(options, log, io));
      case 'create': return withLog(options, 'beside', io, (log) => createWorkspace(options, log, io));
      case 'set': return changeLog(options, io, (log) => setWorkspace(options, log, io));
    }
  });
}

export function keysVerb(options: Options<'keys'>, io: Io): Promise<number> {
  return orExplain('keys', io, async () => {
    if (options.action === 'list') return withLog(options, 'read', io, (log) => listKeys(options, log, io));
    return changeLog(options, io, (log) => changeKeys(options, log, io));
  });
}

async function listWorkspaces(options: Options<'workspaces'>, log: EventLog, io: Io): Promise<number> {
  return withWorkspaces(log, io, async (workspaces) => {
    const all = workspaces.list();
    if (options.json) await printJson(io.stdout, all);
    else await print(io.stdout, table(['id', 'name', 'keys', 'created', 'PBX names set', 'tenant ids set'], all.map(({ id, name, keys, createdAt, pbxNames, tenantIds }) => [id, name, String(keys), createdAt, pbxNames.join(', '), tenantIds.join(', ')])));
    return 0;
  });
}

async function createWorkspace(options: Options<'workspaces'>, log: EventLog, io: Io): Promise<number> {
  const id = idOf(options.workspace ?? '');
  const workspaces = await openWorkspaces(options.events, log, io, options.masterKey);
  try {
    const made = await workspaces.create(id, { ...(options.name === null ? {} : { name: options.name }), ...(options.rateLimit === null ? {} : { rateLimit: options.rateLimit }), secret: options.workspaceSecret });
    if (made.kind === 'refused') return await refuse('workspaces', made.reason, io);
    if (options.json) await printJson(io.stdout, { workspace: id, keyId: made.keyId, key: made.token });
    else await print(io.stdout, `Made workspace ${id}. Its API key ${made.keyId}, shown this once: ${made.token}\n`);
    return 0;
  } finally {
    await workspaces.close();
  }
}

async function setWorkspace(options: Options<'workspaces'>, log: EventLog, io: Io): Promise<number> {
  const { pbxNames, tenantIds } = options;
  const id = idOf(options.workspace ?? '');
  const settings: Partial<WorkspaceSettings> = { ...(pbxNames === null ? {} : { pbxNames }), ...(tenantIds === null ? {} : { tenantIds }) };
  if (Object.keys(settings).length === 0) throw new OperatingError('badConfiguration', 'nothing is to be set: give --pbx-names or --tenant-ids');
  return withWorkspaces(log, io, async (workspaces) => {
    const refusal = await workspaces.changeSettings(id, settings);
    if (refusal !== null) return refuse('workspaces', refusal, io);
    const now = workspaces.settings(id);
    if (options.json) await printJson(io.stdout, { workspace: id, ...now });
    else await print(io.stdout, `Set for workspace ${id}, beside what its events name: PBX names ${shown(now.pbxNames)}; tenant ids ${shown(now.tenantIds)}. Running programs know them within a second.\n`);
    return 0;
  });
}

async function listKeys(options: Options<'keys'>, log: EventLog, io: Io): Promise<number> {
  return withWorkspaces(log, io, async (workspaces) => {
    const keys = workspaces.listKeys(options.workspace);
    if (keys === null) return refuse('keys', 'noWorkspace', io);
    const shown = keys.map((key) => ({ ...key, rateLimit: key.rateLimit === null ? null : printRate(key.rateLimit) }));
    if (options.json) await printJson(io.stdout, shown);
    else await print(io.stdout, table(['id', 'label', 'rate limit', 'created', 'revoked'], shown.map(({ keyId, label, rateLimit, createdAt, revokedAt }) => [keyId, label, rateLimit ?? '', createdAt, revokedAt ?? ''])));
    return 0;
  });
}

async function changeKeys(options: Options<'keys'>, log: EventLog, io: Io): Promise<number> {
  const workspace = idOf(options.workspace);
  return withWorkspaces(log, io, async (workspaces) => {
    if (options.action === 'revoke') {
      const keyId = options.id ?? '';
      const refusal = await workspaces.revokeKey(workspace, keyId);
      if (refusal !== null) return refuse('keys', refusal, io);
      if (options.json) await printJson(io.stdout, { workspace, keyId, revoked: true });
      else await print(io.stdout, `Revoked key ${keyId}: running programs refuse it within a second.\n`);
      return 0;
    }
    if (options.action === 'limit') {
      const keyId = options.id ?? '';
      if (options.rateLimit === null) throw new Error('assertion: the flag has been asked for');
      const refusal = await workspaces.limitKey(workspace, keyId, options.rateLimit);
      if (refusal !== null) return refuse('keys', refusal, io);
      if (options.json) await printJson(io.stdout, { workspace, keyId, rateLimit: printRate(options.rateLimit) });
      else await print(io.stdout, `Key ${keyId} has the rate limit ${printRate(options.rateLimit)}: running programs know it within a second.\n`);
      return 0;
    }
    const made = await workspaces.createKey(workspace, options.label, options.rateLimit);
    if (made.kind === 'refused') return refuse('keys', made.reason, io);
    if (options.json) await printJson(io.stdout, { workspace, keyId: made.keyId, key: made.token });
    else await print(io.stdout, `Made API key ${made.keyId} of workspace ${workspace}, shown this once: ${made.token}\n`);
    return 0;
  });
}

async function withLog<T>(options: { readonly events: EventsPlace }, mode: Mode, io: Io, work: (log: EventLog) => Promise<T>): Promise<T> {
  const log = await openLog(options.events, mode, io);
  try {
    return await work(log);
  } finally {
    await log.close();
  }
}

/** Of a store that is there. It is read first: a misspelt --data must not make an empty one. */
async function changeLog<T>(options: { readonly events: EventsPlace }, io: Io, work: (log: EventLog) => Promise<T>): Promise<T> {
  await withLog(options, 'read', io, async () => undefined);
  return withLog(options, 'beside', io, work);
}

/** Keys need no secret, so none is opened. */
async function withWorkspaces(log: EventLog, io: Io, work: (workspaces: Workspaces) => Promise<number>): Promise<number> {
  const workspaces = await Workspaces.open({ store: log.events, masterKey: null, clock: io.clock, random: io.random, sleep: io.sleep });
  try {
    return await work(workspaces);
  } finally {
    await workspaces.close();
  }
}

async function refuse(verb: string, reason: Refusal, io: Io): Promise<number> {
  await print(io.stderr, `throughline ${verb}: ${REFUSALS[reason]} (${reason})\n`);
  return 1;
}

/** A list as a line shows it. */
function shown(values: readonly string[]): string { return values.length === 0 ? 'none' : values.join(', '); }

function idOf(text: string): WorkspaceId {
  if (!isWorkspaceId(text)) throw new OperatingError('badConfiguration', 'the id of a workspace is 1 to 64 of a-z, 0-9 and _');
  return text;
}
