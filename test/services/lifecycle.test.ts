// How a process starts, ends, logs and is measured.
import { type Part, run } from '../../services/lifecycle.ts';
import { createLog, type Log } from '../../services/log.ts';
import { createMetrics } from '../../services/metrics.ts';
import { OperatingError } from '../../services/errors.ts';

const never = (): Promise<void> => new Promise(() => undefined);
const sleepUntilAbort = (_: number, signal?: AbortSignal): Promise<void> => new Promise((resolve) => { signal?.addEventListener('abort', () => resolve(), { once: true }); });

describe('a process', () => {
  const said: string[] = [];
  const log: Log = { debug: () => undefined, info: (message) => said.push(message), warn: (message) => said.push(message), error: (message) => said.push(message) };
  beforeEach(() => { said.length = 0; });
  function parts(...given: { name: string; stop?: () => Promise<void>; ended?: Promise<unknown> }[]): { starts: (() => Promise<Part>)[]; trail: string[] } {
    const trail: string[] = [];
    const starts = given.map(({ name, stop, ended }) => async (): Promise<Part> => {
      trail.push(`+${name}`);
      return { name, ...(ended === undefined ? {} : { ended }), stop: async () => { await stop?.(); trail.push(`-${name}`); } };
    });
    return { starts, trail };
  }

  test('starts its parts in order and stops them in the reverse order, with 0', async () => {
    const { starts, trail } = parts({ name: 'store' }, { name: 'door' }, { name: 'api' });
    const ending = new AbortController();
    const running = run(starts, { signal: ending.signal, log, sleep: sleepUntilAbort });
    ending.abort();
    expect(await running).toBe(0);
    expect(trail.slice(0, 1)).toEqual(['+store']);
    expect(trail.filter((step) => step.startsWith('-'))).toEqual(trail.filter((step) => step.startsWith('+')).map((step) => step.replace('+', '-')).reverse());
  });

  test('ends with 1 when a part ends by itself, after stopping the others', async () => {
    const { starts, trail } = parts({ name: 'store' }, { name: 'projector', ended: Promise.reject(new Error('broken')) });
    expect(await run(starts, { signal: new AbortController().signal, log, sleep: sleepUntilAbort })).toBe(1);
    expect(trail).toEqual(['+store', '+projector', '-projector', '-store']);
    expect(said).toEqual(['a part ended by itself']);
  });

  test('is cut off after its time to drain, with 1', async () => {
    const slow = parts({ name: 'api', stop: never, ended: Promise.resolve() });
    expect(await run(slow.starts, { signal: new AbortController().signal, log, sleep: async () => undefined, drainMs: 10 })).toBe(1);
    expect(said).toContain('not everything stopped in time: cut off');
  });

  test('that cannot start a part stops those before it and says why', async () => {
    const { starts, trail } = parts({ name: 'store' });
    await expect(run([...starts, () => Promise.reject(new OperatingError('portTaken', 'taken'))], { signal: new AbortController().signal, log, sleep: sleepUntilAbort })).rejects.toMatchObject({ code: 'portTaken' });
    expect(trail).toEqual(['+store', '-store']);
  });

  test('whose part fails to stop ends with 1 and stops the rest', async () => {
    const { starts, trail } = parts({ name: 'store' }, { name: 'door', stop: () => Promise.reject(new Error('no')), ended: Promise.resolve() });
    expect(await run(starts, { signal: new AbortController().signal, log, sleep: sleepUntilAbort })).toBe(1);
    expect(trail).toEqual(['+store', '+door', '-store']);
  });
});

describe('the log', () => {
  const lines: string[] = [];
  const parsed = (): Record<string, unknown>[] => lines.map((line) => JSON.parse(line) as Record<string, unknown>);
  beforeEach(() => { lines.length = 0; });

  test('is JSON, one line each, at its level', () => {
    const log = createLog('info', (line) => lines.push(line));
    log.debug('not this');
    log.info('answered', { method: 'GET', route: '/journeys/{id}', status: 200, ms: 3 });
    expect(parsed()).toMatchObject([{ level: 'info', msg: 'answered', method: 'GET', route: '/journeys/{id}', status: 200 }]);
  });

  test('shows the words of our own errors, and of others only what they are and where they arose', () => {
    const log = createLog('info', (line) => lines.push(line));
    let quoting: unknown;
    try {
      JSON.parse('ana@example.com');
    } catch (fault) {
      quoting = fault;
    }
    log.error('failed', { fault: new OperatingError('storeFull', 'the disk is full', { cause: quoting }) });
    log.error('failed', { fault: 'ana@example.com' });
    expect(parsed()[0]).toMatchObject({ fault: { code: 'storeFull', message: 'the disk is full', cause: { name: 'SyntaxError' } } });
    expect(lines.join('')).not.toContain('ana@');
  });
});

test('metrics show what the door and the groups say when they are asked, and requests by their pattern', async () => {
  const counts = { recorded: 3, duplicates: 2, reusedIds: 1, rejected: { notJson: 4 }, failed: 0, conflicts: 0, faults: 0, inFlightEvents: 7, inFlightBytes: 70, streams: 5, remembered: 9 };
  const metrics = createMetrics({ door: () => counts, groups: async () => [{ group: 'journeys', generation: 2, gap: 11, lagSeconds: null, commits: 1, events: 1 }] });
  metrics.append(0.004, 10);
  metrics.request('GET', '/journeys/{id}', 200, 0.01);
  for (let scrape = 0; scrape < 2; scrape += 1) {
    const text = await metrics.text();
    for (const line of [
      'throughline_door_recorded_total 3', 'throughline_door_rejected_total{code="notJson"} 4', 'throughline_door_in_flight_events 7', 'throughline_appended_events_total 10',
      'throughline_group_gap{group="journeys"} 11', 'throughline_http_request_seconds_count{method="GET",route="/journeys/{id}",status="200"} 1',
    ]) expect(text).toContain(line);
    expect(text).not.toContain('throughline_group_lag_seconds{');
    expect(text).toMatch(/process_resident_memory_bytes \d+/);
  }
  metrics.close();
});
