import java.net.InetSocketAddress;
import java.util.Map;
import org.apache.iceberg.jdbc.JdbcCatalog;
import org.apache.iceberg.rest.RESTCatalogAdapter;
import org.apache.iceberg.rest.RESTCatalogServlet;
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.servlet.ServletContextHandler;
import org.eclipse.jetty.servlet.ServletHolder;

/**
 * Iceberg's own REST catalog for tests, over its JDBC catalog on SQLite, in memory.
 *
 * Arguments: the port, and the warehouse where clients put the files of tables. Metadata files are
 * kept in memory: clients of a REST catalog get metadata in its answers. Every client and every
 * scope gets a token, and no token is looked at. The server ends when its standard input does.
 */
public class iceberg_server {
  public static void main(String[] arguments) throws Exception {
    JdbcCatalog catalog = new JdbcCatalog();
    catalog.initialize("rest", Map.of(
        "uri", "jdbc:sqlite:file::memory:?cache=shared",
        "jdbc.schema-version", "V1",
        "warehouse", arguments[1],
        "io-impl", "org.apache.iceberg.inmemory.InMemoryFileIO"));
    ServletContextHandler handler = new ServletContextHandler();
    handler.addServlet(new ServletHolder(new RESTCatalogServlet(new RESTCatalogAdapter(catalog))), "/*");
    Server server = new Server(
        new InetSocketAddress("127.0.0.1", Integer.parseInt(arguments[0])));
    server.setHandler(handler);
    server.start();
    System.out.println("ready");
    while (System.in.read() >= 0) {}
    System.exit(0);
  }
}
