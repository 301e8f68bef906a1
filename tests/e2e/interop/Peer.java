import java.io.InputStream;
import java.io.FileInputStream;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.security.KeyStore;
import java.security.cert.X509Certificate;
import java.util.List;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SNIHostName;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLParameters;
import javax.net.ssl.SSLServerSocket;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.TrustManager;
import javax.net.ssl.X509TrustManager;

/** TLS by Java: client HOST PORT VERSION:SUITE..., or server PORT PKCS12. */
class Peer {
    static final byte[] REQUEST = "GET / HTTP/1.0\r\n\r\n".getBytes();
    static final byte[] ANSWER = "HTTP/1.0 200 OK\r\n\r\nok\n".getBytes();

    static final TrustManager CARELESS = new X509TrustManager() {
        public void checkClientTrusted(X509Certificate[] chain, String type) {}
        public void checkServerTrusted(X509Certificate[] chain, String type) {}
        public X509Certificate[] getAcceptedIssuers() { return new X509Certificate[0]; }
    };

    public static void main(String[] args) throws Exception {
        if (args[0].equals("server")) {
            serve(Integer.parseInt(args[1]), args[2]);
            return;
        }
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, new TrustManager[] {CARELESS}, null);
        for (int i = 3; i < args.length; i++) {
            try {
                System.out.println(visit(context, args[1], Integer.parseInt(args[2]), args[i]));
            } catch (Exception error) {
                System.out.println("error: " + error);
            }
        }
    }

    static String visit(SSLContext context, String host, int port, String wanted) throws Exception {
        Socket raw = new Socket();
        raw.connect(new InetSocketAddress(host, port), 10000);
        raw.setSoTimeout(10000);
        String[] words = wanted.split(":");
        try (SSLSocket tls =
                (SSLSocket) context.getSocketFactory().createSocket(raw, host, port, true)) {
            SSLParameters parameters = tls.getSSLParameters();
            parameters.setServerNames(List.of(new SNIHostName("www.example")));
            if (words.length == 2) {
                parameters.setProtocols(new String[] {words[0]});
                parameters.setCipherSuites(new String[] {words[1]});
            }
            tls.setSSLParameters(parameters);
            tls.getOutputStream().write(REQUEST);
            String answer = new String(tls.getInputStream().readAllBytes());
            return answer.substring(answer.indexOf("\r\n\r\n") + 4).trim();
        }
    }

    static void serve(int port, String file) throws Exception {
        char[] password = "changeit".toCharArray();
        KeyStore store = KeyStore.getInstance("PKCS12");
        try (InputStream stream = new FileInputStream(file)) {
            store.load(stream, password);
        }
        KeyManagerFactory keys = KeyManagerFactory.getInstance("PKIX");
        keys.init(store, password);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(keys.getKeyManagers(), null, null);
        SSLServerSocket listener =
            (SSLServerSocket) context.getServerSocketFactory().createServerSocket(port);
        while (true) {
            try (SSLSocket tls = (SSLSocket) listener.accept()) {
                tls.setSoTimeout(10000);
                tls.getInputStream().read(new byte[4096]);
                tls.getOutputStream().write(ANSWER);
                tls.getOutputStream().flush();
                tls.getInputStream().read();
            } catch (java.io.IOException error) {
                System.err.println(error);
            }
        }
    }
}
