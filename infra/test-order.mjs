import Sequencer from '@jest/test-sequencer';

/** They wait for servers and programs of their own, longest first. Where no run came before, Jest goes by the size of the files, and these would end long after all others. */
const LONG = ['e2e/servers/line', 'chaos/servers', 'contract/view-store', 'e2e/example-day', 'e2e/openapi', 'e2e/cli', 'chaos/embedded', 'simulation/simulation', 'e2e/servers/redis-lost', 'e2e/disk', 'services/kafka', 'services/projector', 'services/eventstoredb', 'contract/event-store', 'contract/source'];

export default class extends Sequencer {
  sort(tests) {
    const rank = ({ path }) => LONG.findIndex((name) => path.endsWith(`/test/${name}.test.ts`));
    const ordered = super.sort(tests);
    return [...ordered.filter((test) => rank(test) >= 0).sort((a, b) => rank(a) - rank(b)), ...ordered.filter((test) => rank(test) < 0)];
  }
}
