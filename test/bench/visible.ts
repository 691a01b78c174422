// From publishing an event on the topic until the api shows its journey, while traffic flows at a given pace.
import { setTimeout as pause } from 'node:timers/promises';
import { traffic } from './events.ts';
import { openProducer, publish, type Run } from './line.ts';
import { cpuSeconds, peakMb } from './processes.ts';

/** The traffic goes out in writes this far apart: one a millisecond would measure the producer. */
const TICK_MS = 20;
/** Between two questions whether the probe is there: what they ask costs the api a tenth of a core. */
const ASK_MS = 5;
/** Before the first probe counts: code paths compiled, files there. */
const WARM_SECONDS = 3;
const OPEN = 500;
const PROBE_MS = 60_000;

export interface VisibleFigures { readonly milliseconds: readonly number[]; readonly published: number; readonly seconds: number; readonly cpu: number; readonly apiPeakMb: number }

/** `perSecond` events a second for so long, and one probe after the other. The run is opened and has nothing started. */
export async function publishToVisible(run: Run, perSecond: number, seconds: number, offset: number): Promise<VisibleFigures> {
  const { programs, places, topic } = run;
  const api = await programs.start('api', places);
  const running = [api, await programs.start('ingest', places), await programs.start('project', places)];
  const [load, probes] = [await openProducer(run.broker), await openProducer(run.broker)];
  const stop = new AbortController();
  const lines = traffic(Math.ceil(perSecond * (seconds + WARM_SECONDS + 2 * PROBE_MS / 1000)), OPEN, offset);
  let published = 0;
  const began = Date.now();
  const before = running.map(({ pid }) => cpuSeconds(pid));
  const feeding = (async () => {
    while (!stop.signal.aborted) {
      const due = Math.floor((Date.now() - began) / 1000 * perSecond) - published;
      const piece = Array.from({ length: due }, () => String(lines.next().value));
      if (piece.length > 0) await publish(load, topic, piece);
      published += piece.length;
      await pause(TICK_MS);
    }
  })();
  // Told when it is waited for, below.
  feeding.catch(() => { stop.abort(); });
  const milliseconds: number[] = [];
  try {
    for (let n = 0; Date.now() < began + (WARM_SECONDS + seconds) * 1000 && !stop.signal.aborted; n += 1) {
      const took = await probe(n);
      if (Date.now() >= began + WARM_SECONDS * 1000) milliseconds.push(took);
    }
  } finally {
    stop.abort();
    await feeding;
  }
  const took = (Date.now() - began) / 1000;
  const figures = { milliseconds, published, seconds: took, cpu: running.reduce((sum, { pid }, i) => sum + cpuSeconds(pid) - (before[i] ?? 0), 0), apiPeakMb: peakMb(api.pid) };
  await Promise.all([load.disconnect(), probes.disconnect()]);
  await Promise.all(running.map((program) => program.end()));
  return figures;

  async function probe(n: number): Promise<number> {
    const identity = `probe-${offset}-${n}@example.com`;
    const event = { specversion: '1.0', id: `probe-${offset}-${n}`, source: '/bench/probe', type: 'org.throughline.interaction.started', time: new Date().toISOString(), identity, identitytype: 'email', datacontenttype: 'application/json', data: { interactionId: `probe-${offset}-${n}`, direction: 'Inbound', medium: 'Phone' } };
    const at = process.hrtime.bigint();
    await publish(probes, topic, [JSON.stringify(event)]);
    for (;;) {
      const answer = await api.request(`/journeys?identity=${encodeURIComponent(identity)}&identitytype=email`);
      const body = await answer.text();
      const took = Number(process.hrtime.bigint() - at) / 1e6;
      if (answer.status === 200 && body.includes('"Inbound"')) return took;
      if (![200, 404, 503].includes(answer.status)) throw new Error(`the api answers ${answer.status}: ${body}`);
      if (took > PROBE_MS) throw new Error(`a probe was not seen within ${PROBE_MS} ms: ${running.map(({ output }) => output()).join('')}`);
      await pause(ASK_MS);
    }
  }
}
