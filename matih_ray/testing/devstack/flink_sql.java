// Apache Flink's own SQL engine for tests: queries over files and Kafka, their rows as JSON lines.
//
// A line of standard input is the path of a file with statements that are separated by lines of
// "---", the last of which is a query. Its rows go to <path>.rows, and then <path>.done appears,
// which is empty or says what went wrong. Arguments are the parallelism, and the milliseconds
// between watermarks, 0 for one with every record.

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.ArrayList;
import java.util.List;
import org.apache.flink.table.api.EnvironmentSettings;
import org.apache.flink.table.api.TableEnvironment;
import org.apache.flink.table.api.TableResult;
import org.apache.flink.types.Row;
import org.apache.flink.util.CloseableIterator;

class FlinkSql {
  public static void main(String[] arguments) throws Exception {
    BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
    System.out.println("ready");
    for (String line = input.readLine(); line != null; line = input.readLine()) {
      Path script = Path.of(line);
      String problem = "";
      try {
        String[] statements = Files.readString(script).split("(?m)^---$");
        Files.write(Path.of(line + ".rows"), rows(statements, arguments[0], arguments[1]));
      } catch (Exception error) {
        Throwable cause = error;
        while (cause.getCause() != null) cause = cause.getCause();
        problem = error + " because of " + cause;
      }
      Path told = Files.writeString(Path.of(line + ".told"), problem);
      Files.move(told, Path.of(line + ".done"), StandardCopyOption.ATOMIC_MOVE);
    }
  }

  static List<String> rows(String[] statements, String parallelism, String interval)
      throws Exception {
    TableEnvironment tables = TableEnvironment.create(EnvironmentSettings.inStreamingMode());
    tables.getConfig().set("parallelism.default", parallelism);
    tables.getConfig().set("pipeline.auto-watermark-interval", interval);
    tables.getConfig().set("table.local-time-zone", "UTC");
    TableResult result = null;
    for (String statement : statements) result = tables.executeSql(statement.strip());
    List<String> lines = new ArrayList<>();
    try (CloseableIterator<Row> found = result.collect()) {
      while (found.hasNext()) lines.add(json(found.next()));
    }
    return lines;
  }

  static String json(Row row) {
    StringBuilder line = new StringBuilder("[");
    for (int i = 0; i < row.getArity(); i++) {
      Object value = row.getField(i);
      if (i > 0) line.append(", ");
      if (value == null || value instanceof Boolean || value instanceof Number) line.append(value);
      else line.append('"').append(escaped(value.toString())).append('"');
    }
    return line.append("]").toString();
  }

  static String escaped(String text) {
    StringBuilder safe = new StringBuilder();
    for (char c : text.toCharArray()) {
      if (c == '"' || c == '\\' || c < ' ') safe.append(String.format("\\u%04x", (int) c));
      else safe.append(c);
    }
    return safe.toString();
  }
}
