import { journeys } from '/work/main/projections/journeys.ts';
import { runFold } from '/work/main/projections/projection.ts';
import { workspaceKeys } from '/work/main/schemas/identity.ts';
import { event, second } from '/work/main/test/support/facts.ts';
const keys = workspaceKeys('bench' as never, new Uint8Array(32).fill(7), { cachedHashes: 400000 });
const cpu = () => { const u = (process as any).threadCpuUsage(); return BigInt(u.user + u.system) * 1000n; };
const COUNT = Number(process.argv[2] ?? 10000), OPEN = Number(process.argv[3] ?? 5000), BATCH = 500, mode = process.argv[4] ?? 'cache';
const agent = (i: number) => ({ id: `agent-${i % 400}`, name: `Agent ${i % 400}`, group: { id: `g${i % 10}`, name: `Group ${i % 10}` } });
const queue = (i: number) => ({ id: `queue-${i % 40}`, name: `Queue ${i % 40}`, extension: '2001' });
const uuid = (i: number, k: number) => `${String(i).padStart(8, '0')}-0000-8000-8000-${String(k).padStart(12, '0')}`;
function lines(i: number): any[][] {
  return [
    [{ kind: 'started', direction: 'Inbound', medium: 'Phone', contact: { name: `Customer ${i}`, phoneNumber: `1555${i}` }, entryPoint: { type: 'cc-channel', id: `ep${i % 9}`, name: 'Main line', phoneNumber: '18005550100' }, platform: 'Contact Center', tenant: 't1' }, { kind: 'joined', role: 'customer', participantId: 'customer' }],
    [{ kind: 'script', scripts: [{ id: 's1', name: 'Main' }] }],
    [{ kind: 'waiting', queue: queue(i) }],
    [{ kind: 'waiting', queue: queue(i), agents: [agent(i)] }],
    [{ kind: 'talking', agents: [agent(i)], queue: queue(i) }, { kind: 'joined', role: 'agent', participantId: agent(i).id, agent: agent(i) }],
    [{ kind: 'held', agents: [agent(i)] }],
    [{ kind: 'resumed', agents: [agent(i)] }],
    [{ kind: 'described', topics: ['order'], data: { mood: 'good' } }],
    [{ kind: 'ended', by: 'customer', final: true }],
    [{ kind: 'wrappedUp', agents: [agent(i)], wrapUpCodes: ['Sale'] }],
  ];
}
// OPEN interactions in flight at once, round robin
const stream: any[] = [];
for (let base = 0; base < COUNT; base += OPEN) for (let k = 0; k < 10; k++) for (let i = base; i < Math.min(COUNT, base + OPEN); i++)
  stream.push([i, k]);
const docs = new Map<string, any>(); let fold = 0n, other = 0n, bytes = 0, written = 0, recs = 0;
let marks: string[] = [];
for (let from = 0; from < stream.length; from += BATCH) {
  const batch = stream.slice(from, from + BATCH).map(([i, k]) => event(uuid(i, k), Math.floor(i / 5) + k * 20, lines(i)[k]!.map((b: any) => ({ ...b, interaction: `wxcc:task-${i}` })), { identity: `c${i}@x.com` }));
  const t0 = cpu();
  const c = runFold(journeys.fold(batch, keys), mode === 'cache' ? (k) => docs.get(k) ?? null : (k) => { const v = docs.get(k); return v === undefined ? null : JSON.parse(v); });
  fold += cpu() - t0;
  const t1 = cpu();
  recs += c.records.length;
  for (const [k, v] of c.documents) { written++; const text = JSON.stringify(v); bytes += text.length; if (v === null) docs.delete(k); else docs.set(k, mode === 'cache' ? v : text); }
  other += cpu() - t1;
  if ((from / BATCH) % 40 === 39) marks.push((Number(fold) / 1000 / (from + BATCH)).toFixed(1));
}
console.log(mode, 'fold us/event', (Number(fold) / 1000 / stream.length).toFixed(1), 'json us/event', (Number(other) / 1000 / stream.length).toFixed(1), 'bytes/event', Math.round(bytes / stream.length), 'docs/event', (written / stream.length).toFixed(2), 'records/event', (recs / stream.length).toFixed(2), marks.slice(-3).join(' '));
