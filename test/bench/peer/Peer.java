// The bench's peer: the fold of a journey in Kafka Streams, as one who knows it would write it. Events come keyed by the
// customer's identity and are repartitioned by interaction; a document for each (state, counters, transitions) stands in a
// RocksDB store with its changelog, and goes to a topic when it changed. Exactly once. It prints "half" when half of the
// events were folded, and "all".
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.state.KeyValueStore;

public final class Peer {
    private static final ObjectMapper JSON = new ObjectMapper();

    public static void main(String[] arguments) throws Exception {
        String broker = arguments[0], from = arguments[1], to = arguments[2], application = arguments[3], folder = arguments[4];
        long count = Long.parseLong(arguments[5]);
        AtomicLong folded = new AtomicLong();

        StreamsBuilder builder = new StreamsBuilder();
        Serde<JsonNode> json = Serdes.serdeFrom((topic, value) -> bytesOf(value), (topic, bytes) -> nodeOf(bytes));
        builder.stream(from, Consumed.with(Serdes.String(), json))
            .groupBy((identity, event) -> event.get("data").get("interactionId").asText(), Grouped.with(Serdes.String(), json))
            .aggregate(JSON::createObjectNode, (interaction, event, document) -> {
                JsonNode next = fold(interaction, event, (ObjectNode) document);
                long now = folded.incrementAndGet();
                if (now == count / 2) say("half");
                if (now == count) say("all");
                return next;
            }, Materialized.<String, JsonNode, KeyValueStore<Bytes, byte[]>>as("journeys").withKeySerde(Serdes.String()).withValueSerde(json))
            .toStream().to(to, Produced.with(Serdes.String(), json));

        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, application);
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, broker);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, folder);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 2);
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        settings.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
        settings.put("auto.offset.reset", "earliest");
        KafkaStreams streams = new KafkaStreams(builder.build(), settings);
        streams.setUncaughtExceptionHandler(fault -> {
            fault.printStackTrace();
            System.exit(1);
            throw new IllegalStateException(fault);
        });
        streams.start();
        // Ends with its input: the bench holds that open.
        while (System.in.read() >= 0) continue;
        streams.close();
        System.exit(0);
    }

    private static JsonNode fold(String interaction, JsonNode event, ObjectNode document) {
        String type = event.get("type").asText(), time = event.get("time").asText();
        JsonNode data = event.get("data");
        if (!document.has("interactionId")) {
            document.put("interactionId", interaction).put("identity", event.get("identity").asText()).put("started", time);
            document.putObject("counters");
            document.putArray("transitions");
        }
        String state = type.substring(type.lastIndexOf('.') + 1);
        ObjectNode counters = (ObjectNode) document.get("counters");
        counters.put(state, counters.path(state).asInt() + 1);
        ArrayNode transitions = (ArrayNode) document.get("transitions");
        ObjectNode transition = transitions.addObject().put("name", state).put("from", time);
        if (data.has("agents")) transition.set("agents", data.get("agents"));
        if (data.has("queue")) document.set("queue", data.get("queue"));
        if (data.has("contact")) document.set("contact", data.get("contact"));
        document.put("state", state).put("updated", time);
        return document;
    }

    private static void say(String what) {
        System.out.println(what);
        System.out.flush();
    }

    private static byte[] bytesOf(JsonNode value) {
        try {
            return value == null ? null : JSON.writeValueAsBytes(value);
        } catch (Exception fault) {
            throw new IllegalStateException(fault);
        }
    }

    private static JsonNode nodeOf(byte[] bytes) {
        try {
            return bytes == null ? null : JSON.readTree(bytes);
        } catch (Exception fault) {
            throw new IllegalStateException(fault);
        }
    }
}
