// Writes records with Kafka's own client for Java.
//
// Standard input has groups of lines, each ended by an empty one. The first line says how its records are written: a
// compression, or "committed" or "aborted" for a transaction. A record is TOPIC KEY VALUE [NAME VALUE]..., all but the topic in
// base64, "-" for none. Each is answered with its partition and offset.

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Base64;
import java.util.HashMap;
import java.util.Properties;
import java.util.concurrent.Future;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.serialization.ByteArraySerializer;

public final class Producer {
    public static void main(String[] arguments) throws Exception {
        var producers = new HashMap<String, KafkaProducer<byte[], byte[]>>();
        var lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII));
        for (String how = lines.readLine(); how != null; how = lines.readLine()) {
            if (!producers.containsKey(how)) {
                producers.put(how, producer(arguments[0], how));
            }
            var producer = producers.get(how);
            if (isTransaction(how)) {
                producer.beginTransaction();
            }
            var sent = new ArrayList<Future<RecordMetadata>>();
            for (String line = lines.readLine(); !line.isEmpty(); line = lines.readLine()) {
                sent.add(producer.send(record(line.split(" ", -1))));
            }
            producer.flush();
            if (how.equals("committed")) {
                producer.commitTransaction();
            } else if (how.equals("aborted")) {
                producer.abortTransaction();
            }
            for (var place : sent) {
                System.out.println(place.get().partition() + " " + place.get().offset());
            }
        }
        producers.values().forEach(KafkaProducer::close);
    }

    private static boolean isTransaction(String how) {
        return how.equals("committed") || how.equals("aborted");
    }

    private static KafkaProducer<byte[], byte[]> producer(String brokers, String how) {
        var properties = new Properties();
        properties.put("bootstrap.servers", brokers);
        properties.put("client.id", how);
        // Records of a group go together.
        properties.put("linger.ms", "1000");
        if (isTransaction(how)) {
            properties.put("transactional.id", how);
        } else {
            properties.put("compression.type", how);
        }
        var bytes = new ByteArraySerializer();
        var producer = new KafkaProducer<byte[], byte[]>(properties, bytes, bytes);
        if (isTransaction(how)) {
            producer.initTransactions();
        }
        return producer;
    }

    private static ProducerRecord<byte[], byte[]> record(String[] words) {
        var record = new ProducerRecord<byte[], byte[]>(words[0], bytes(words[1]), bytes(words[2]));
        for (int at = 3; at < words.length; at += 2) {
            record.headers().add(new String(bytes(words[at]), StandardCharsets.UTF_8), bytes(words[at + 1]));
        }
        return record;
    }

    private static byte[] bytes(String word) {
        return word.equals("-") ? null : Base64.getDecoder().decode(word);
    }
}
