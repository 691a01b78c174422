// Makes the topic that events come on and that of its dead letters, where they are missing; waits for the broker to answer.
//   node infra/topics.cjs 127.0.0.1:9092 throughline.events
// Those that are there are left as they are: more partitions later would send an identity's events to another partition than
// its earlier ones, and their order would be lost.
'use strict';
const { Kafka, logLevel } = require('kafkajs');

// One partition is one order and one reader at a time: twelve let up to twelve `ingest` share the work, and divide evenly by
// one, two, three, four and six of them.
const PARTITIONS = 12;
// The event store keeps events for ever; the topic has to outlast an outage of it, and a week is Kafka's own default.
const RETENTION_MS = 7 * 24 * 3600 * 1000;
// Dead letters wait for a person.
const DEAD_LETTER_RETENTION_MS = 90 * 24 * 3600 * 1000;
// A dead letter has more to say than the largest record that a topic takes by default: what services/adapters/kafka.ts gives
// its topic where it makes it itself.
const DEAD_LETTER_BYTES = 1_048_588 + 64 * 1024;
const WAIT_MS = 60_000;
const PAUSE_MS = 250;

// The driver's timers of negative length (library-limits.md D.1) come to nothing but a warning here.
process.removeAllListeners('warning');

async function main([broker, topic]) {
  if (broker === undefined || topic === undefined) throw new Error('usage: topics.cjs BROKER TOPIC');
  const kafka = new Kafka({ clientId: 'throughline-topics', brokers: [broker], logLevel: logLevel.NOTHING, connectionTimeout: 2000, retry: { retries: 0 } });
  const made = (name, retentionMs, more = []) => ({ topic: name, numPartitions: PARTITIONS, replicationFactor: 1, configEntries: [{ name: 'retention.ms', value: String(retentionMs) }, { name: 'cleanup.policy', value: 'delete' }, ...more] });
  const deadline = Date.now() + WAIT_MS;
  for (;;) {
    const admin = kafka.admin();
    try {
      await admin.connect();
      const there = new Set(await admin.listTopics());
      const missing = [made(topic, RETENTION_MS), made(`${topic}.dead-letter`, DEAD_LETTER_RETENTION_MS, [{ name: 'max.message.bytes', value: String(DEAD_LETTER_BYTES) }])].filter((one) => !there.has(one.topic));
      if (missing.length > 0) await admin.createTopics({ topics: missing, waitForLeaders: true, timeout: 10_000 });
      return;
    } catch (fault) {
      if (Date.now() > deadline) throw fault;
      await new Promise((resolve) => { setTimeout(resolve, PAUSE_MS); });
    } finally {
      await admin.disconnect().catch(() => undefined);
    }
  }
}

main(process.argv.slice(2)).then(() => process.exit(0), (fault) => {
  console.error(`topics: ${fault instanceof Error ? fault.message : String(fault)}`);
  process.exit(1);
});
