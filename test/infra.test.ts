// What an operator is given beside the programs: rules, board and runbook name only what there is, and leave nothing out.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { VERBS } from '../services/config.ts';
import { createMetrics } from '../services/metrics.ts';

const ROOT = join(import.meta.dirname, '..');
const text = (file: string): string => readFileSync(join(ROOT, file), 'utf8');
const ALERTS = text('infra/dashboards/alerts.yml');
const RUNBOOK = text('infra/RUNBOOK.md');
const rules = [...ALERTS.matchAll(/- alert: (\w+)\n(?:\s*#.*\n)*\s*expr: (.+)\n/g)].map(([, name, expr]) => ({ name: name ?? '', expr: expr ?? '' }));

interface Panel { readonly title: string; readonly targets: readonly { readonly expr: string }[] }
const panels = (JSON.parse(text('infra/dashboards/throughline.json')) as { readonly panels: readonly Panel[] }).panels;

/** Names of series, as Prometheus stores what the programs show. */
async function shown(): Promise<ReadonlySet<string>> {
  const door = { recorded: 1, duplicates: 1, reusedIds: 1, failed: 1, conflicts: 1, faults: 1, rejected: { notJson: 1 }, inFlightEvents: 1, inFlightBytes: 1, streams: 1, remembered: 1 };
  const metrics = createMetrics({
    door: () => door,
    admission: () => ({ publish: { underWay: 1, bytes: 1, bytesMost: 1, shed: { requests: 1, bytes: 1, time: 1 } } }),
    groups: () => Promise.resolve([{ group: 'journeys', generation: 1, gap: 1, lagSeconds: 1, commits: 1, events: 1, unreadable: 1, shards: 1 }]),
    ingest: () => ({ received: 1, recorded: 1, duplicates: 1, returned: 1, keyless: 1, rejected: { notJson: 1 }, partitions: [{ partition: 0, paused: true }] }),
    stale: () => Promise.resolve([{ group: 'journeys', stale: true }]),
    audit: () => ({ checked: 1, unknown: 1, documents: 1 }),
    topicGaps: () => Promise.resolve([{ partition: 0, gap: 1 }]),
  });
  metrics.append(0.1, 1);
  metrics.request('GET', '/journeys', 200, 0.1);
  metrics.notice('views');
  const names = new Set([...(await metrics.text()).matchAll(/^([a-z_][a-z0-9_]*)[ {]/gm)].map(([, name]) => name ?? ''));
  metrics.close();
  // Prometheus' own, of every scrape.
  return names.add('up');
}

/** The series that an expression asks for: words of the names that a program may show. */
const asked = (expr: string): readonly string[] => expr.match(/\b(?:throughline|process|nodejs)_[a-z0-9_]+\b|\bup\b(?=[{ ])/g) ?? [];

test('every series of every rule and every panel is one that the programs show', async () => {
  const names = await shown();
  const expressions = [...rules.map(({ name, expr }) => [name, expr] as const), ...panels.flatMap(({ title, targets }) => targets.map(({ expr }) => [title, expr] as const))];
  expect(expressions.filter(([, expr]) => asked(expr).length === 0)).toEqual([]);
  expect(expressions.flatMap(([where, expr]) => asked(expr).filter((name) => !names.has(name)).map((name) => `${where}: ${name}`))).toEqual([]);
});

test('every metric of our own is on the board', async () => {
  const onBoard = new Set(panels.flatMap(({ targets }) => targets.flatMap(({ expr }) => asked(expr))));
  const known = ['throughline_door_in_flight_events', 'throughline_door_streams', 'throughline_appended_events_total', 'throughline_ingest_recorded_total', 'throughline_ingest_duplicates_total', 'throughline_ingest_keyless_total'];
  const own = [...await shown()].filter((name) => name.startsWith('throughline_') && !/_(sum|count|bucket)$/.test(name));
  expect(own.filter((name) => !onBoard.has(name)).sort()).toEqual(known.sort());
});

test('every alert has its entry in the runbook, and every entry its alert', () => {
  expect(rules.length).toBe([...ALERTS.matchAll(/- alert:/g)].length);
  const entries = [...RUNBOOK.matchAll(/^## (\w+)$/gm)].map(([, name]) => name ?? '');
  expect(entries).toEqual(rules.map(({ name }) => name));
  expect(new Set(entries).size).toBe(entries.length);
});

test('every command that the runbook names is one that there is', () => {
  const named = [...RUNBOOK.matchAll(/throughline ([a-z-]+)/g)].map(([, verb]) => verb ?? '');
  expect(named.length).toBeGreaterThan(3);
  expect(named.filter((verb) => !Object.hasOwn(VERBS, verb))).toEqual([]);
});
