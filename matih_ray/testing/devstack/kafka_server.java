import java.io.FileInputStream;
import java.io.PrintStream;
import java.util.Properties;
import kafka.server.KafkaConfig;
import kafka.server.KafkaRaftServer;
import kafka.tools.StorageTool;
import org.apache.kafka.common.utils.Time;

/**
 * Apache Kafka as one node that is broker and controller (KRaft), on loopback.
 *
 * Arguments: a properties file, and the cluster's id, with which the log directory is formatted
 * unless it already is. The server ends when its standard input does, so that it does not outlive
 * whoever started it.
 */
public class kafka_server {
  public static void main(String[] arguments) throws Exception {
    String[] format = {
      "format", "--config", arguments[0], "--cluster-id", arguments[1], "--ignore-formatted"
    };
    if (StorageTool.execute(format, new PrintStream(System.out, true)) != 0) {
      System.exit(1);
    }
    var properties = new Properties();
    try (var file = new FileInputStream(arguments[0])) {
      properties.load(file);
    }
    var server = new KafkaRaftServer(KafkaConfig.fromProps(properties), Time.SYSTEM);
    server.startup();
    System.out.println("ready");
    while (System.in.read() >= 0) {}
    server.shutdown();
    System.exit(0);
  }
}
