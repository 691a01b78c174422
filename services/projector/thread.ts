// The projector's thread as `serve` sees it: what it last told, and a way to stop it.
import { Worker } from 'node:worker_threads';
import { OperatingError } from '../errors.ts';
import type { GroupProgress } from './projector.ts';
import type { FromProjector, ProjectorWorkerData } from './worker.ts';

export interface ProjectorThread {
  progress(): readonly GroupProgress[];
  /** Whether it ended without being asked to. */
  failed(): boolean;
  /** Asks it to end after the commit under way, and waits until it has. */
  stop(): Promise<void>;
  /** Settles when it ends: rejects when that was not asked for. */
  readonly ended: Promise<void>;
}

/** Of the thread, in MB: its caches are bounded well below; left alone, V8 would let garbage pile up to several times this. */
const HEAP = { maxOldGenerationSizeMb: 256, maxYoungGenerationSizeMb: 24 };

export function startProjectorThread(data: ProjectorWorkerData, onFault: (message: string, attempt: number) => void): ProjectorThread {
  const worker = new Worker(new URL('./worker.ts', import.meta.url), { workerData: data, resourceLimits: HEAP });
  let groups: readonly GroupProgress[] = [];
  let stopping = false;
  let failed = false;
  const ended = new Promise<void>((resolve, reject) => {
    worker.on('message', (message: FromProjector) => {
      switch (message.kind) {
        case 'progress': groups = message.groups; return;
        case 'fault': onFault(message.message, message.attempt); return;
        case 'stopped': resolve(); return;
        case 'failed': reject(new OperatingError('storeUnavailable', `the projector stopped: ${message.message}`, { cause: message.stack }));
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
  return {
    progress: () => groups,
    failed: () => failed,
    ended,
    stop: async () => {
      stopping = true;
      worker.postMessage('stop');
      await ended.catch(() => undefined);
    },
  };
}
