// The engine that an expert would pick for such a fold, beside ours in the same run: Kafka Streams (peer/Peer.java), where
// Java and Maven are there. Its jars come from Maven Central once and stay in .cache/peer.
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Broker } from '../support/broker.ts';
import { inPieces } from '../support/load.ts';
import { removeFolder, ROOT, temporaryFolder } from '../support/serve.ts';
import { traffic } from './events.ts';
import { type Corpus, openProducer, PARTITIONS, publish } from './line.ts';
import { cpuSeconds, peakMb } from './processes.ts';

const SOURCE = join(import.meta.dirname, 'peer');
const CACHE = join(ROOT, '.cache/peer');
const LIBS = join(CACHE, 'libs-4.1.1');
const INSTALL_MS = 240_000;
const PIECE = 1_000;

/** Why it cannot run here, in one line; null when it can. Fetches its jars when they are missing. */
export function peerAbsent(): string | null {
  for (const program of ['java', 'javac']) if (spawnSync(program, ['-version']).status !== 0) return `no ${program}`;
  if (existsSync(LIBS)) return null;
  mkdirSync(CACHE, { recursive: true });
  const fresh = mkdtempSync(join(CACHE, 'fresh-'));
  const { status, error } = spawnSync('mvn', ['-q', '-B', '-f', join(SOURCE, 'pom.xml'), 'dependency:copy-dependencies', `-DoutputDirectory=${fresh}`, '-DincludeScope=runtime'], { timeout: INSTALL_MS });
  if (status === 0) {
    renameSync(fresh, LIBS);
    return null;
  }
  rmSync(fresh, { recursive: true });
  return `mvn cannot fetch kafka-streams${error === undefined ? '' : ` (${error.message})`}`;
}

/** From the start of the process, as ours. */
export interface PeerFigures { readonly seconds: number; readonly secondHalf: number; readonly cpu: number; readonly peakMb: number }

export interface Peer { run(): Promise<PeerFigures>; close(): void }

/** Compiled, and its topic filled with the traffic, keyed by identity as ours; each run then reads it anew. */
export async function openPeer(broker: Broker, corpus: Corpus): Promise<Peer> {
  const folder = temporaryFolder();
  const compiled = spawnSync('javac', ['-cp', join(LIBS, '*'), '-d', folder, join(SOURCE, 'Peer.java')], { encoding: 'utf8' });
  if (compiled.status !== 0) throw new Error(compiled.stderr);
  await broker.createTopic('peer', PARTITIONS);
  const producer = await openProducer(broker);
  for (const piece of inPieces(traffic(corpus.events, corpus.open), PIECE)) await publish(producer, 'peer', piece);
  await producer.disconnect();
  let runs = 0;
  return {
    run: async () => {
      const name = `peer-${String(runs += 1)}`;
      await broker.createTopic(`${name}-journeys`, PARTITIONS);
      return runOnce([broker.url, 'peer', `${name}-journeys`, name, join(folder, name), String(corpus.events)], folder, corpus);
    },
    close: () => removeFolder(folder),
  };
}

async function runOnce(args: readonly string[], classes: string, corpus: Corpus): Promise<PeerFigures> {
  const began = process.hrtime.bigint();
  const child = spawn('java', ['-Xmx1g', '-cp', `${classes}:${join(LIBS, '*')}`, 'Peer', ...args], { stdio: ['pipe', 'pipe', 'inherit'] });
  const closed = once(child, 'close');
  const at = new Map<string, bigint>();
  try {
    await new Promise<void>((resolve, reject) => {
      child.stdout.setEncoding('utf8').on('data', (text: string) => {
        for (const said of text.split('\n').filter((line) => line !== '')) at.set(said, process.hrtime.bigint());
        if (at.has('all')) resolve();
      });
      child.once('close', (code) => reject(new Error(`the peer ended with ${String(code)}`)));
    });
    const [half = 0n, all = 0n] = [at.get('half'), at.get('all')];
    const pid = child.pid ?? 0;
    return { seconds: Number(all - began) / 1e9, secondHalf: corpus.events / 2 / (Number(all - half) / 1e9), cpu: cpuSeconds(pid), peakMb: peakMb(pid) };
  } finally {
    child.stdin.end();
    await closed;
  }
}
