// The look at everything of one group, in a thread of its own: both groups beside each other take as long as the longer one.
import { randomBytes } from 'node:crypto';
import { parentPort, workerData } from 'node:worker_threads';
import { type EventsPlace, openEvents, openViews, type ViewsPlace } from '../backends.ts';
import { sleep } from '../lifecycle.ts';
import type { Generation } from '../ports.ts';
import { keysReader } from '../workspaces.ts';
import { ROOM } from './projector.ts';
import { toldOf, type ToldFault } from './thread.ts';
import { verifyAll, type VerifiedAll } from './verify.ts';

export interface VerifierData {
  readonly events: EventsPlace;
  readonly views: ViewsPlace;
  readonly masterKey: Uint8Array;
  readonly live: Generation;
  /** Where it is folded; whoever gave it takes it away. */
  readonly scratch: string;
}
export type FromVerifier =
  | { readonly kind: 'progress'; readonly events: number; readonly share: number }
  | { readonly kind: 'verified'; readonly verified: VerifiedAll | null }
  | { readonly kind: 'failed'; readonly fault: ToldFault };

const PROGRESS_MS = 200;

async function run({ events: eventsPlace, views: viewsPlace, masterKey, live, scratch: folder }: VerifierData, tell: (message: FromVerifier) => void): Promise<void> {
  const clock = { now: () => Date.now() };
  const events = await openEvents(eventsPlace, { use: 'read', random: (size) => randomBytes(size) });
  const views = await openViews(viewsPlace, { clock });
  const scratch = await openViews({ kind: 'sqlite', folder }, { clock });
  let toldMs = 0;
  try {
    const verified = await verifyAll({
      events, views, scratch, live, keysOf: keysReader(events, masterKey), room: ROOM.replay, clock, wait: sleep, signal: new AbortController().signal,
      onProgress: (folded, share) => {
        if (clock.now() - toldMs < PROGRESS_MS) return;
        toldMs = clock.now();
        tell({ kind: 'progress', events: folded, share });
      },
    });
    tell({ kind: 'verified', verified });
  } finally {
    await scratch.close();
    await views.close();
    await events.close();
  }
}

const port = parentPort;
if (port !== null) await run(workerData as VerifierData, (message) => port.postMessage(message)).catch((fault: unknown) => port.postMessage({ kind: 'failed', fault: toldOf(fault) } satisfies FromVerifier));
