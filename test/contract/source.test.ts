// The adapters that must pass: another one is another line.
import { randomBytes } from 'node:crypto';
import { openKafkaSource, openKafkaTopic } from '../../services/adapters/kafka.ts';
import { MemoryBroker } from '../../services/adapters/memory-source.ts';
import { sleep } from '../../services/lifecycle.ts';
import { type Broker, placeOf, startBroker } from '../support/broker.ts';
import { describeOn } from '../support/local-server.ts';
import { type MadeSource, type MadeTopic, sourceContract, topicContract } from './source.ts';

async function memory({ partitions }: { readonly partitions: number }): Promise<MadeSource & MadeTopic> {
  const broker = new MemoryBroker({ clock: { now: () => Date.now() }, sleep });
  broker.createTopic('events', partitions);
  return { topic: broker.topic('events'), open: async () => broker.source({ topic: 'events', group: 'group' }), lose: async () => broker.deleteTopic('events'), dispose: async () => undefined };
}
sourceContract('memory', memory);
topicContract('memory', memory);

describeOn(['kafka'], 'a real broker', () => {
  let broker: Broker;
  beforeAll(async () => { broker = await startBroker(); }, 180_000);
  afterAll(() => broker.stop());

  const onNotice = (): void => undefined;
  async function source({ partitions }: { readonly partitions: number }): Promise<MadeSource> {
    const place = placeOf(broker, { topic: `events-${randomBytes(6).toString('hex')}`, group: `group-${randomBytes(6).toString('hex')}` });
    await broker.createTopic(place.topic, partitions);
    const topic = await openKafkaTopic(place, place.topic);
    return { topic, open: () => openKafkaSource(place, { onNotice }), lose: () => broker.deleteTopic(place.topic), dispose: () => topic.close() };
  }
  async function topic(options: { readonly partitions: number }): Promise<MadeTopic> {
    const made = await source(options);
    return { topic: made.topic, dispose: async () => undefined };
  }

  sourceContract('Kafka', source);
  topicContract('Kafka', topic);
});
