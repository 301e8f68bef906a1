"""Apache asks for a client's certificate when it knows the request: in TLS 1.2 in a renegotiation,
in TLS 1.3 by a request of its own."""

import pytest

V4 = "198.51.100.2"
MODULES = ("mpm_event", "authz_core", "ssl", "socache_shmcb", "headers", "dir")


@pytest.fixture
def apache(serve_once, new_port, files, identity, authority):
    """Returns the port of one with this version, which asks for a certificate in /own."""

    def start(version):
        port = new_port()
        root = files / "apache"
        (root / "own").mkdir(parents=True, exist_ok=True)
        for path in (root / "index.html", root / "own" / "index.html"):
            path.write_text("a page\n")
        config = files / f"apache-{port}.conf"
        loaded = "".join(
            f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n" for name in MODULES
        )
        config.write_text(f"""
            {loaded}
            ServerName www.example
            ServerRoot {files}
            PidFile {files}/apache-{port}.pid
            DefaultRuntimeDir {files}
            ErrorLog /dev/stderr
            Listen {port}
            User nobody
            DocumentRoot {root}
            DirectoryIndex index.html
            SSLEngine on
            SSLProtocol -all +{version}
            SSLCertificateFile {identity.certificate}
            SSLCertificateKeyFile {identity.key}
            SSLCACertificateFile {authority.root}
            <Location /own>
                SSLVerifyClient optional
                SSLOptions +StdEnvVars
                Header set X-Client "%{{SSL_CLIENT_S_DN_CN}}s"
            </Location>
        """)
        serve_once("apache2", "-X", "-f", str(config), port=port)
        return port

    return start


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
@pytest.mark.parametrize("body", [[], ["-d", "x" * 1000]])
def test_apache_may_ask_later(apache, client, beside, session, bundle, authority, version, body):
    """The first connection goes on without a certificate, the next one has the client's own."""
    port = apache(version)
    own = authority.issue("client.example")
    root = f"https://www.example:{port}/"
    argv = ["curl", "-sS", "--http1.1", "--max-time", "20", "--cacert", str(bundle), "-D", "-"]
    argv += ["--resolve", f"www.example:{port}:{V4}", "--cert", str(own.certificate)]
    argv += ["--key", str(own.key), *body, root, root + "own/", root]

    def said(outcome):
        words = ("HTTP/1.1 ", "X-Client: ", "a page")
        return [line for line in outcome.text.splitlines() if line.startswith(words)]

    direct = said(beside.run(*argv))
    assert "X-Client: client.example" in direct
    watch = session.watch()
    assert said(client.run(*argv)) == [line.replace("client.example", "(null)") for line in direct]
    flow = watch.flow()
    assert flow.actions == ["intercepted", "relayed"]
    assert {error["reason"] for error in flow.errors} == {
        "the server asks for a client certificate"
    }
    watch = session.watch()
    assert said(client.run(*argv)) == direct
    assert watch.flow().actions == ["passthrough"]
