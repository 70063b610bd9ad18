import com.nimbusds.jose.JOSEException;
import com.nimbusds.jose.JWSAlgorithm;
import com.nimbusds.jose.jwk.source.JWKSourceBuilder;
import com.nimbusds.jose.proc.BadJOSEException;
import com.nimbusds.jose.proc.JWSVerificationKeySelector;
import com.nimbusds.jose.proc.SecurityContext;
import com.nimbusds.jose.util.JSONObjectUtils;
import com.nimbusds.jwt.JWTClaimsSet;
import com.nimbusds.jwt.proc.DefaultJWTClaimsVerifier;
import com.nimbusds.jwt.proc.DefaultJWTProcessor;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.URI;
import java.text.ParseException;
import java.util.Arrays;
import java.util.Map;
import java.util.Objects;
import java.util.Set;
import java.util.concurrent.Executors;

/** A backend on the JDK's own HTTP server that verifies app JWTs with Nimbus. */
public final class Server {
    private static final Map<String, String> ENV = System.getenv();
    private static final String ISSUER = Objects.requireNonNull(ENV.get("ISSUER"), "set ISSUER");
    private static final String AUDIENCE = Objects.requireNonNull(ENV.get("AUDIENCE"), "set AUDIENCE");
    private static final JWSAlgorithm ALGORITHM = JWSAlgorithm.parse(ENV.getOrDefault("ALG", "ES256"));

    /** One for the life of the process: it keeps the keys for 5 minutes. */
    private static DefaultJWTProcessor<SecurityContext> processor() throws IOException {
        var keys = JWKSourceBuilder.create(URI.create(ISSUER + "/.well-known/jwks.json").toURL()).build();
        var processor = new DefaultJWTProcessor<SecurityContext>();
        processor.setJWSKeySelector(new JWSVerificationKeySelector<>(ALGORITHM, keys)); // never the header's
        processor.setJWTClaimsSetVerifier(new DefaultJWTClaimsVerifier<>(
                AUDIENCE, new JWTClaimsSet.Builder().issuer(ISSUER).build(), Set.of("exp", "sub")));
        return processor;
    }

    private static void answer(HttpExchange exchange, int status, String error, String body) throws IOException {
        if (error != null) {
            exchange.getResponseHeaders().set("WWW-Authenticate", "Bearer error=\"" + error + "\"");
        }
        byte[] bytes = body.getBytes();
        exchange.sendResponseHeaders(status, bytes.length == 0 ? -1 : bytes.length);
        exchange.getResponseBody().write(bytes);
        exchange.close();
    }

    public static void main(String[] arguments) throws IOException {
        var processor = processor();
        var address = new InetSocketAddress("127.0.0.1", Integer.parseInt(ENV.getOrDefault("PORT", "3000")));
        var server = HttpServer.create(address, 0);
        server.setExecutor(Executors.newFixedThreadPool(8));
        server.createContext("/reports", exchange -> {
            var header = Objects.requireNonNullElse(exchange.getRequestHeaders().getFirst("Authorization"), "");
            try {
                var claims = processor.process(header.replaceFirst("^Bearer +", ""), null);
                var scope = Objects.requireNonNullElse(claims.getStringClaim("scope"), "");
                if (!Arrays.asList(scope.split(" ")).contains("read:reports")) {
                    answer(exchange, 403, "insufficient_scope", "");
                } else {
                    answer(exchange, 200, null, JSONObjectUtils.toJSONString(Map.of("user", claims.getSubject())));
                }
            } catch (ParseException | BadJOSEException | JOSEException refused) {
                answer(exchange, 401, "invalid_token", "");
            }
        });
        server.start();
    }
}
