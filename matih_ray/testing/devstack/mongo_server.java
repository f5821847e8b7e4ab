import de.bwaldvogel.mongo.MongoServer;
import de.bwaldvogel.mongo.MongoVersion;
import de.bwaldvogel.mongo.backend.memory.MemoryBackend;
import de.bwaldvogel.mongo.bson.BinData;
import de.bwaldvogel.mongo.bson.Document;
import de.bwaldvogel.mongo.exception.MongoServerError;
import io.netty.channel.Channel;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyFactory;
import java.security.MessageDigest;
import java.security.PrivateKey;
import java.security.SecureRandom;
import java.security.cert.CertificateFactory;
import java.security.cert.X509Certificate;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.Arrays;
import java.util.Base64;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import javax.crypto.Mac;
import javax.crypto.SecretKeyFactory;
import javax.crypto.spec.PBEKeySpec;
import javax.crypto.spec.SecretKeySpec;

/**
 * mongo-java-server in memory, behind users that log in with SCRAM-SHA-256 (RFC 7677).
 *
 * Arguments: the port, and for TLS the files of a certificate and of an EC key (PEM, PKCS 8).
 * Standard input: one user a line, `name TAB password TAB databases separated by commas` (all of
 * them if there are none); then an empty line. The server ends when its input does, so that it does
 * not outlive whoever started it.
 */
public class mongo_server extends MemoryBackend {
  record User(String password, Set<String> databases) {}

  record Exchange(String user, String clientFirst, String serverFirst, byte[] salt) {}

  static final int ITERATIONS = 4096;
  static final Set<String> OPEN = Set.of("hello", "ismaster", "buildinfo", "ping", "endsessions");

  final Map<String, User> users;
  final Map<Channel, Exchange> exchanges = new ConcurrentHashMap<>();
  final Map<Channel, User> sessions = new ConcurrentHashMap<>();

  mongo_server(Map<String, User> users) {
    this.users = users;
    // drivers ask for more than the version that the library calls itself; what they then use of
    // it, and we do, it has
    version(new MongoVersion() {
      public List<Integer> getVersionArray() { return List.of(5, 0, 0); }
      public int getWireVersion() { return 13; }
    });
  }

  @Override
  public Document handleCommand(Channel channel, String database, String command, Document query) {
    String name = command.toLowerCase();
    if (name.equals("saslstart")) return start(channel, text(query));
    if (name.equals("saslcontinue")) return proceed(channel, text(query));
    if (!users.isEmpty() && !OPEN.contains(name)) authorize(channel, database, command);
    Document answer = super.handleCommand(channel, database, command, query);
    if (query.containsKey("saslSupportedMechs")) {
      answer.append("saslSupportedMechs", List.of("SCRAM-SHA-256"));
    }
    return answer;
  }

  @Override
  public void handleClose(Channel channel) {
    exchanges.remove(channel);
    sessions.remove(channel);
    super.handleClose(channel);
  }

  void authorize(Channel channel, String database, String command) {
    User user = sessions.get(channel);
    if (user == null) {
      throw new MongoServerError(13, "Unauthorized",
          "command " + command + " requires authentication");
    }
    if (!user.databases.isEmpty() && !user.databases.contains(database)) {
      throw new MongoServerError(13, "Unauthorized",
          "not authorized on " + database + " to execute command { " + command + ": 1 }");
    }
  }

  Document start(Channel channel, String clientFirst) {
    String bare = clientFirst.substring("n,,".length());
    byte[] salt = new byte[16];
    new SecureRandom().nextBytes(salt);
    byte[] nonce = new byte[18];
    new SecureRandom().nextBytes(nonce);
    String serverFirst = "r=" + field(bare, "r") + base64(nonce) + ",s=" + base64(salt)
        + ",i=" + ITERATIONS;
    exchanges.put(channel, new Exchange(field(bare, "n"), bare, serverFirst, salt));
    return answer(serverFirst, false);
  }

  Document proceed(Channel channel, String clientFinal) {
    Exchange exchange = exchanges.remove(channel);
    User user = exchange == null ? null : users.get(exchange.user);
    if (user == null) throw failed();
    try {
      byte[] salted = SecretKeyFactory.getInstance("PBKDF2WithHmacSHA256").generateSecret(
          new PBEKeySpec(user.password.toCharArray(), exchange.salt, ITERATIONS, 256)).getEncoded();
      String unproven = clientFinal.substring(0, clientFinal.lastIndexOf(",p="));
      String message = exchange.clientFirst + "," + exchange.serverFirst + "," + unproven;
      byte[] clientKey = hmac(salted, "Client Key");
      byte[] signature = hmac(MessageDigest.getInstance("SHA-256").digest(clientKey), message);
      for (int i = 0; i < clientKey.length; i++) clientKey[i] ^= signature[i];
      if (!Arrays.equals(clientKey, Base64.getDecoder().decode(field(clientFinal, "p")))) {
        throw failed();
      }
      sessions.put(channel, user);
      return answer("v=" + base64(hmac(hmac(salted, "Server Key"), message)), true);
    } catch (java.security.GeneralSecurityException error) {
      throw new IllegalStateException(error);
    }
  }

  static MongoServerError failed() {
    return new MongoServerError(18, "AuthenticationFailed", "Authentication failed.");
  }

  static Document answer(String payload, boolean done) {
    return new Document("conversationId", 1).append("done", done)
        .append("payload", new BinData(payload.getBytes(StandardCharsets.UTF_8))).append("ok", 1.0);
  }

  static String text(Document query) {
    return new String(((BinData) query.get("payload")).getData(), StandardCharsets.UTF_8);
  }

  static String field(String message, String name) {
    for (String part : message.split(",")) {
      if (part.startsWith(name + "=")) return part.substring(2);
    }
    throw failed();
  }

  static String base64(byte[] bytes) {
    return Base64.getEncoder().encodeToString(bytes);
  }

  static byte[] hmac(byte[] key, String message) throws java.security.GeneralSecurityException {
    Mac mac = Mac.getInstance("HmacSHA256");
    mac.init(new SecretKeySpec(key, "HmacSHA256"));
    return mac.doFinal(message.getBytes(StandardCharsets.UTF_8));
  }

  static void encrypt(MongoServer server, Path certificate, Path key) throws Exception {
    String pem = Files.readString(key).replaceAll("-----[A-Z ]+-----|\\s", "");
    PrivateKey secret = KeyFactory.getInstance("EC")
        .generatePrivate(new PKCS8EncodedKeySpec(Base64.getDecoder().decode(pem)));
    try (var stream = Files.newInputStream(certificate)) {
      server.enableSsl(secret, null, (X509Certificate)
          CertificateFactory.getInstance("X.509").generateCertificate(stream));
    }
  }

  public static void main(String[] arguments) throws Exception {
    var input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    Map<String, User> users = new HashMap<>();
    for (String line; (line = input.readLine()) != null && !line.isEmpty();) {
      String[] parts = line.split("\t", -1);
      users.put(parts[0],
          new User(parts[1], parts[2].isEmpty() ? Set.of() : Set.of(parts[2].split(","))));
    }
    MongoServer server = new MongoServer(new mongo_server(users));
    if (arguments.length > 1) encrypt(server, Path.of(arguments[1]), Path.of(arguments[2]));
    server.bind("127.0.0.1", Integer.parseInt(arguments[0]));
    System.out.println("ready");
    while (input.readLine() != null) {}
    server.shutdownNow();
  }
}
