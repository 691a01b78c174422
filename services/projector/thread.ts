// The projector's thread as the programs see it: what it last told, which shards it is to fold, and a way to stop it.
import { Worker } from 'node:worker_threads';
import { isErrorCode, OperatingError } from '../errors.ts';
import type { Audited } from './audit.ts';
import type { GroupProgress } from './projector.ts';
import type { FromProjector, ProjectorThreadData, ToProjector } from './worker.ts';

export interface ProjectorThread {
  /** Of every group of which it folds a shard. */
  progress(): readonly GroupProgress[];
  /** Folds these from now on, and no others: it takes each up where its view stands. */
  own(shards: readonly number[]): void;
  /** The fault that it is in the middle of and tries to get past; null when it folds. */
  trouble(): string | null;
  /** What the audit has looked at since the start. */
  audited(): AuditCounts;
  /** Whether it ended without being asked to. */
  failed(): boolean;
  /** Asks it to end after the commit under way, and waits until it has; what takes longer than STOP_MS is cut off, and folded again by whoever comes. */
  stop(): Promise<void>;
  /** Settles when it ends: rejects when that was not asked for. */
  readonly ended: Promise<void>;
}

/** By what came of it; `documents` is how many texts differed. */
export interface AuditCounts { readonly checked: number; readonly unknown: number; readonly documents: number }

/** Where both stores are files of one folder, the thread shares a machine with everything else and is held small. */
export function isEmbedded({ events, views }: Pick<ProjectorThreadData, 'events' | 'views'>): boolean { return events.kind === 'sqlite' && views.kind === 'sqlite'; }

/** Of the thread, in MB: its caches and batches are bounded well below; left alone, V8 would let garbage pile up to several times this. Beside servers it keeps more documents and a second batch. */
const HEAP = {
  embedded: { maxOldGenerationSizeMb: 256, maxYoungGenerationSizeMb: 16 },
  servers: { maxOldGenerationSizeMb: 1024, maxYoungGenerationSizeMb: 192 },
} as const;
/** Less than a process has to drain (DRAIN_MS, with the requests' own 3 s), and enough for a commit: folding is given up before. */
const STOP_MS = 5000;

export function startProjectorThread(data: ProjectorThreadData, onFault: (message: string, attempt: number) => void, onDifference: (difference: Audited['differences'][number]) => void = () => undefined): ProjectorThread {
  const worker = new Worker(new URL('./worker.ts', import.meta.url), { workerData: data, resourceLimits: isEmbedded(data) ? HEAP.embedded : HEAP.servers });
  let groups: readonly GroupProgress[] = [];
  let trouble: string | null = null;
  let owned = data.owned;
  let stopping = false;
  let failed = false;
  const audited = { checked: 0, unknown: 0, documents: 0 };
  const ended = new Promise<void>((resolve, reject) => {
    worker.on('message', (message: FromProjector) => {
      switch (message.kind) {
        case 'progress': groups = message.groups; return;
        case 'fault':
          trouble = message.message;
          onFault(message.message, message.attempt);
          return;
        case 'recovered': trouble = null; return;
        case 'audited':
          if (message.audited.kind !== 'gone') audited[message.audited.kind] += 1;
          audited.documents += message.audited.differences.length;
          message.audited.differences.forEach(onDifference);
          return;
        case 'stopped': resolve(); return;
        case 'failed': reject(faultOf(message.fault));
      }
    });
    worker.on('error', reject);
    worker.on('exit', (code) => {
      if (stopping) resolve();
      else reject(new OperatingError('storeUnavailable', `the projector's thread ended with ${code}`));
    });
  });
  // Whoever starts it also listens to `ended`; this keeps a rejection before that from ending the process unexplained.
  ended.catch(() => { failed = true; });
  const tell = (message: ToProjector): void => worker.postMessage(message);
  return {
    progress: () => groups,
    trouble: () => trouble,
    audited: () => audited,
    failed: () => failed,
    ended,
    own: (wanted) => {
      if (owned !== 'all' && owned.length === wanted.length && wanted.every((shard, i) => shard === owned[i])) return;
      owned = wanted;
      // What it told of others is no longer for it to tell.
      groups = [];
      tell({ kind: 'own', shards: wanted });
    },
    stop: async () => {
      stopping = true;
      tell({ kind: 'stop' });
      // A fold that runs long hears nothing; whatever it was about to commit is then not committed at all.
      const cut = setTimeout(() => { void worker.terminate(); }, STOP_MS);
      await ended.catch(() => undefined);
      clearTimeout(cut);
    },
  };
}

// ---- faults between threads ----------------------------------------------------------------------------------------------

/** An error as a message can hold it: of one that is cloned, its class and its code are lost. */
export interface ToldFault { readonly operating: boolean; readonly name: string; readonly code: string | null; readonly message: string; readonly stack: string | undefined; readonly cause: ToldFault | null }

export function toldOf(fault: unknown): ToldFault {
  const error = fault instanceof Error ? fault : new Error(String(fault));
  const code = 'code' in error && typeof error.code === 'string' ? error.code : null;
  return { operating: error instanceof OperatingError, name: error.name, code, message: error.message, stack: error.stack, cause: error.cause === undefined ? null : toldOf(error.cause) };
}

/** The same again: an operating error is one, and of any other it is kept what it was and where it arose. */
export function faultOf({ operating, name, code, message, stack, cause: behind }: ToldFault): Error {
  const cause = behind === null ? {} : { cause: faultOf(behind) };
  if (operating && isErrorCode(code)) return new OperatingError(code, message, cause);
  return Object.assign(new Error(message, cause), { name, stack }, code === null ? {} : { code });
}
