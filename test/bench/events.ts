// The bench's traffic: interactions of ten events of about 650 bytes, one identity each, many open at once.
import { random } from './measure.ts';

const START_MS = Date.UTC(2026, 0, 5, 8);
const AGENTS = Array.from({ length: 300 }, (_, i) => ({ id: `agent-${i}`, name: `Agent ${i}`, email: `agent${i}@example.com`, group: { id: `g${i % 20}`, name: `Group ${i % 20}` } }));
const QUEUES = Array.from({ length: 40 }, (_, i) => ({ id: `queue-${i}`, name: `Queue ${i}` }));

function step(n: number, interactionId: string, agent: unknown, queue: { id: string; name: string }, phone: string): { type: string; data: Record<string, unknown> } {
  const said = (type: string, data: Record<string, unknown> = {}) => ({ type: `org.throughline.${type}`, data: { interactionId, ...data } });
  switch (n) {
    case 0: return said('interaction.started', { direction: 'Inbound', medium: 'Phone', contact: { name: null, phoneNumber: phone, email: null }, entryPoint: { type: 'cc-channel', id: 'ep-1', name: 'Main line', phoneNumber: '+15550100000' }, tenant: 'shop', platform: 'Contact Center' });
    case 1: return said('interaction.script.entered', { scripts: [{ id: 's1', name: 'Welcome' }], scheduleHours: ['Open'] });
    case 2: return said('interaction.waiting', { queue });
    case 3: return said('participant.joined', { role: 'agent', participantId: 'p2', agent });
    case 4: return said('interaction.answered', { agents: [agent], queue });
    case 5: return said('interaction.held', { agents: [agent] });
    case 6: return said('interaction.resumed', { agents: [agent] });
    case 7: return said('interaction.described', { topics: ['Billing'], data: { orderNumber: interactionId } });
    case 8: return said('interaction.wrapup.completed', { agents: [agent], wrapUpCodes: ['Resolved'] });
    default: return said('interaction.ended', { by: 'customer' });
  }
}

/** `count` events as JSON lines: `open` interactions at a time take turns; each that ends makes room for a new one. `offset` keeps two batches of traffic apart. */
export function* traffic(count: number, open: number, offset = 0): Generator<string> {
  const next = random(offset + 5);
  const lanes = Array.from({ length: open }, (_, i) => ({ interaction: offset + i, step: 0 }));
  let started = open;
  for (let i = 0; i < count; i += 1) {
    const lane = lanes[i % open] as { interaction: number; step: number };
    const { interaction } = lane;
    const phone = `+1555${String(interaction).padStart(7, '0')}`;
    const { type, data } = step(lane.step, `call-${interaction}`, AGENTS[interaction % AGENTS.length], QUEUES[interaction % QUEUES.length] as { id: string; name: string }, phone);
    const time = new Date(START_MS + (offset + i) * 37 + Math.floor(next() * 20)).toISOString();
    yield JSON.stringify({ specversion: '1.0', id: `e-${offset}-${i}`, source: '/bench/platform', type, time, identity: phone, identitytype: 'phone', datacontenttype: 'application/json', data: { ...data, note: 'Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor.' } });
    lane.step += 1;
    if (lane.step === 10) { lane.step = 0; lane.interaction = offset + started; started += 1; }
  }
}
