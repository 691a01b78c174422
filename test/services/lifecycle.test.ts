// How a process starts, ends, logs and is measured.
import { awaited, type Part, run } from '../../services/lifecycle.ts';
import { answers, createReadiness } from '../../services/health.ts';
import { createLog, type Log } from '../../services/log.ts';
import { createMetrics } from '../../services/metrics.ts';
import { OperatingError } from '../../services/errors.ts';
import { faultOf, toldOf } from '../../services/projector/thread.ts';

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
    expect(said).toEqual(['told to end', 'all has ended well']);
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

describe('a server that is away at the start', () => {
  const away = new OperatingError('storeUnavailable', 'connection refused');
  function world(): { now: number; waits: number[]; told: string[]; ending: AbortController; options: Parameters<typeof awaited>[3] } {
    const made = { now: 0, waits: [] as number[], told: [] as string[], ending: new AbortController() };
    const sleep = async (ms: number): Promise<void> => {
      made.now += ms;
      made.waits.push(ms);
    };
    return { ...made, options: { signal: made.ending.signal, clock: { now: () => made.now }, sleep, onWait: ({ code }) => made.told.push(code) } };
  }

  test('is waited for, longer each time, and then is there', async () => {
    const { options, waits, told } = world();
    let tries = 0;
    const open = async (): Promise<string> => {
      tries += 1;
      if (tries < 8) throw away;
      return 'store';
    };
    expect(await awaited('Redis', 'start it', open, options)).toBe('store');
    expect(waits).toEqual([250, 500, 1000, 2000, 4000, 5000, 5000]);
    expect(told).toEqual(Array.from({ length: 7 }, () => 'storeUnavailable'));
  });

  test('is given up after a minute, with what it is and what to do', async () => {
    const { options, waits } = world();
    await expect(awaited('Redis', 'start it', () => Promise.reject(away), options)).rejects.toMatchObject({ code: 'storeUnavailable', message: 'Redis did not answer within 60 s (connection refused): start it', cause: away });
    expect(waits.reduce((sum, ms) => sum + ms, 0)).toBeLessThanOrEqual(60_000);
    expect(waits.reduce((sum, ms) => sum + ms, 0)).toBeGreaterThan(50_000);
  });

  test('is not waited for where waiting helps nothing', async () => {
    const { options, waits } = world();
    await expect(awaited('Redis', 'start it', () => Promise.reject(new OperatingError('storeUnfit', 'too old')), options)).rejects.toMatchObject({ code: 'storeUnfit', message: 'too old' });
    await expect(awaited('Redis', 'start it', () => Promise.reject(new TypeError('bug')), options)).rejects.toThrow(TypeError);
    expect(waits).toEqual([]);
  });

  test('does not keep a process that is told to end, with 0, though its opening hangs', async () => {
    const { options, ending } = world();
    const said: unknown[] = [];
    const log: Log = { debug: () => undefined, info: (message, fields = {}) => said.push([message, fields]), warn: () => undefined, error: () => undefined };
    const start = async (): Promise<Part> => awaited('Redis', 'start it', () => new Promise<Part>(() => undefined), options);
    const running = run([start], { signal: ending.signal, log, sleep: sleepUntilAbort });
    ending.abort();
    expect(await running).toBe(0);
    // No fault of a server's: nothing is said of one.
    expect(said).toEqual([['told to end before all had started', {}], ['all has ended well', {}]]);
  });
});

describe('readiness', () => {
  test('names every reason, and asks once a second at most; what is not ready yet, ten times', async () => {
    let asked = 0;
    let now = 0;
    let stopped = true;
    const ready = createReadiness([() => { asked += 1; return stopped ? ['the projector has stopped'] : []; }, async () => [], async () => (stopped ? ['waiting'] : [])], { now: () => now });
    expect(await ready()).toEqual({ ok: false, reasons: ['the projector has stopped', 'waiting'] });
    const askedAt = async (ms: number): Promise<number> => {
      now = ms;
      await ready();
      return asked;
    };
    expect(await askedAt(99)).toBe(1);
    stopped = false;
    expect([await askedAt(100), await askedAt(1099), await askedAt(1100)]).toEqual([2, 2, 3]);
    expect(await ready()).toEqual({ ok: true, reasons: [] });
  });

  test('a store is away when it says so, and when it says nothing in time', async () => {
    expect(await answers('the store', async () => null, sleepUntilAbort)()).toEqual([]);
    expect(await answers('the store', () => Promise.reject(new OperatingError('storeUnavailable', 'refused')), sleepUntilAbort)()).toEqual(['the store cannot be reached']);
    expect(await answers('the store', never, async () => undefined)()).toEqual(['the store does not answer']);
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

  test('says where a programmer\'s error arose, and nothing of where the causes of an operating error did', () => {
    const log = createLog('info', (line) => lines.push(line));
    const refused = Object.assign(new Error('connect'), { code: 'ECONNREFUSED', cause: new TypeError('behind it') });
    log.warn('waiting', { fault: new OperatingError('storeUnavailable', 'Redis is away', { cause: refused }) });
    log.error('a bug', { fault: new TypeError('x is not a function', { cause: new OperatingError('storeBusy', 'busy', { cause: refused }) }) });
    expect(parsed().map(({ fault }) => fault)).toEqual([
      { name: 'OperatingError', code: 'storeUnavailable', message: 'Redis is away', cause: { name: 'Error', code: 'ECONNREFUSED', cause: { name: 'TypeError' } } },
      { name: 'TypeError', at: expect.arrayContaining([expect.stringContaining('lifecycle.test.ts')]), cause: { name: 'OperatingError', code: 'storeBusy', message: 'busy', cause: { name: 'Error', code: 'ECONNREFUSED', cause: { name: 'TypeError' } } } },
    ]);
  });
});

test('a fault that ended the thread of the projector is told with its code, its cause and where it arose', () => {
  const cause = Object.assign(new Error('gone'), { code: 'ECONNRESET' });
  const across = (fault: unknown): Error => faultOf(structuredClone(toldOf(fault)));
  expect(across(new OperatingError('storeCorrupt', 'torn', { cause }))).toMatchObject({ name: 'OperatingError', code: 'storeCorrupt', message: 'torn', retriable: false, cause: { code: 'ECONNRESET' } });
  const bug = new TypeError('x is not a function');
  expect(across(bug)).toMatchObject({ name: 'TypeError', stack: bug.stack });
  expect(across(bug)).not.toBeInstanceOf(OperatingError);
});

test('metrics show what the door and the groups say when they are asked, and requests by their pattern', async () => {
  const counts = { recorded: 3, duplicates: 2, reusedIds: 1, rejected: { notJson: 4 }, failed: 0, conflicts: 0, faults: 0, inFlightEvents: 7, inFlightBytes: 70, streams: 5, remembered: 9 };
  const ingest = { received: 20, recorded: 9, duplicates: 8, returned: 2, keyless: 1, rejected: { notJson: 1 }, partitions: [{ partition: 0, paused: true }, { partition: 1, paused: false }] };
  const metrics = createMetrics({ door: () => counts, groups: async () => [{ group: 'journeys', generation: 2, gap: 11, lagSeconds: null, commits: 1, events: 1, unreadable: 3, shards: 4 }], ingest: () => ingest, topicGaps: async () => [{ partition: 0, gap: 6 }] });
  metrics.notice('views');
  metrics.append(0.004, 10);
  metrics.request('GET', '/journeys/{id}', 200, 0.01);
  for (let scrape = 0; scrape < 2; scrape += 1) {
    const text = await metrics.text();
    for (const line of [
      'throughline_door_recorded_total 3', 'throughline_door_rejected_total{code="notJson"} 4', 'throughline_door_in_flight_events 7', 'throughline_appended_events_total 10',
      'throughline_group_gap{group="journeys"} 11', 'throughline_group_shards{group="journeys"} 4', 'throughline_ingest_received_total 20', 'throughline_ingest_dead_lettered_total{code="notJson"} 1',
      'throughline_ingest_returned_total 2', 'throughline_ingest_paused_partitions 1', 'throughline_ingest_partitions 2', 'throughline_topic_gap{partition="0"} 6', 'throughline_backend_notices_total{backend="views"} 1', 'throughline_http_request_seconds_count{method="GET",route="/journeys/{id}",status="200"} 1',
    ]) expect(text).toContain(line);
    expect(text).not.toContain('throughline_group_lag_seconds{');
    expect(text).toMatch(/process_resident_memory_bytes \d+/);
  }
  metrics.close();
});
