"""Servers that ask for a client certificate, with and without need of one."""

import pytest

V4 = "198.51.100.2"
URL = "https://www.example:{port}/"
PASSED = ["passthrough"]
OPENED = ["intercepted", "relayed"]


@pytest.fixture
def own(authority):
    """The client's own certificate, as curl's options."""
    identity = authority.issue("client.example")
    return ["--cert", str(identity.certificate), "--key", str(identity.key)]


@pytest.fixture
def visit(client, session, bundle):
    """curl asks for a page, by HTTP/1.1; what it got, and what became of the TLS."""

    def run(port, *options):
        watch = session.watch()
        outcome = client.run(
            *("curl", "-sS", "--http1.1", "--max-time", "10", "--cacert", str(bundle), *options),
            *("--resolve", f"www.example:{port}:{V4}", URL.format(port=port)),
        )
        return outcome, watch.flow().actions

    return run


@pytest.fixture
def asking_nginx(serve_once, new_port, files, identity, authority):
    """nginx that asks for a certificate, and answers with what it got; returns its port."""

    def start(verify, version):
        port = new_port()
        config = files / f"asking-{port}.conf"
        config.write_text(f"""
            daemon off; master_process off; pid {files}/asking-{port}.pid; error_log stderr crit;
            events {{ worker_connections 64; }}
            http {{
                access_log off;
                client_body_temp_path {files}/body; proxy_temp_path {files}/proxy;
                fastcgi_temp_path {files}/fastcgi; uwsgi_temp_path {files}/uwsgi;
                scgi_temp_path {files}/scgi;
                server {{
                    listen {port} ssl; ssl_protocols {version};
                    ssl_certificate {identity.certificate}; ssl_certificate_key {identity.key};
                    ssl_verify_client {verify}; ssl_client_certificate {authority.root};
                    location / {{ return 200 "$ssl_client_verify"; }}
                }}
            }}
        """)
        serve_once("nginx", "-c", str(config), "-p", str(files), port=port)
        return port

    return start


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
@pytest.mark.parametrize("verify", ["optional", "on"])
def test_the_first_connection_has_the_clients_own_certificate(
    asking_nginx, visit, own, verify, version
):
    port = asking_nginx(verify, version)
    for _ in range(2):
        outcome, actions = visit(port, *own)
        assert (outcome.text, actions) == ("SUCCESS", PASSED)


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_a_client_without_one_is_opened_from_its_second_connection_on(
    asking_nginx, visit, own, version
):
    port = asking_nginx("optional", version)
    expected = [PASSED, OPENED, OPENED]
    for actions in expected:
        outcome, seen = visit(port)
        assert (outcome.text, seen) == ("NONE", actions)
    other_kind = ["--tls13-ciphers", "TLS_AES_128_GCM_SHA256", "--ciphers", "ECDHE+AESGCM"]
    assert visit(port, *other_kind, *own)[0].text == "SUCCESS"  # of another client: asked anew
    for text, actions in (("NONE", OPENED), ("SUCCESS", PASSED), ("SUCCESS", PASSED)):
        outcome, seen = visit(port, *own)  # which looks the same, and shows its certificate
        assert (outcome.text, seen) == (text, actions)


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_a_server_that_needs_one_after_all_gets_it(
    s_server, identity, authority, visit, own, version
):
    """curl with a certificate looks like the curl without that came before it. The server refuses
    the empty answer: the client may answer for itself."""
    port = s_server(identity, "-Verify", "3", version, "-CAfile", str(authority.root))
    options = ["-o", "/dev/null", "--write-out", "%{http_code}"]
    refused = [visit(port, *options) for _ in range(2)]
    assert [actions for _, actions in refused] == [PASSED, PASSED]
    assert [outcome.text for outcome, _ in refused] == ["000", "000"]
    outcome, actions = visit(port, *options, *own)
    assert (outcome.text, actions) == ("200", PASSED)


PAGE = f"https://{V4}:PORT/"
CARELESS = "['ssl' => ['verify_peer' => false, 'verify_peer_name' => false]]"
ANONYMOUS = {
    "gnutls": ["gnutls-cli", "--no-ca-verification", "-p", "PORT", V4],
    "openssl": ["openssl", "s_client", "-quiet", "-connect", f"{V4}:PORT"],
    "wget": ["wget", "-q", "-O", "-", "--no-check-certificate", PAGE],
    "php": ["php", "-r", f"readfile('{PAGE}', false, stream_context_create({CARELESS}));"],
    "ruby": ["ruby", "-ropen-uri", "-e", f"print URI.open('{PAGE}', ssl_verify_mode: 0).read"],
    "rclone": ["rclone", "--no-check-certificate", "-q", "copyurl", "--stdout", PAGE],
    "node": [
        *("node", "-e"),
        f"require('https').get('{PAGE}', {{rejectUnauthorized: false}},"
        " answer => answer.pipe(process.stdout))",
    ],
}
"""Clients of OpenSSL, GnuTLS and Go, which write the same flight in records of their own."""


@pytest.mark.parametrize("name", ANONYMOUS)
@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_every_clients_empty_answer_is_known(asking_nginx, client, session, name, version):
    port = asking_nginx("optional", version)
    argv = [word.replace("PORT", str(port)) for word in ANONYMOUS[name]]
    request = b"GET / HTTP/1.0\r\n\r\n"
    for actions in (PASSED, OPENED):
        watch = session.watch()
        outcome = client.run(*argv, input=request)
        assert b"NONE" in outcome.out, outcome
        assert watch.flow().actions == actions


def test_gnutls_serv_asks_everybody(serve_once, new_port, identity, visit):
    port = new_port()
    keys = ("--x509certfile", str(identity.certificate), "--x509keyfile", str(identity.key))
    serve_once("gnutls-serv", "--http", "--quiet", "--port", str(port), *keys, port=port)
    for actions in (PASSED, OPENED, OPENED):
        outcome, seen = visit(port, "-o", "/dev/null")
        assert (outcome.code, seen) == (0, actions)


def test_inside_a_proxy_the_next_connection_has_it(asking_nginx, serve_once, new_port, visit, own):
    """Nobody can ask the proxy again: the first connection goes on without."""
    port, proxy = asking_nginx("optional", "TLSv1.3"), new_port()
    serve_once("microsocks", "-p", str(proxy), port=proxy)
    through = ["--socks5-hostname", f"{V4}:{proxy}"]
    outcome, actions = visit(port, *through, *own)
    assert (outcome.text, actions) == ("NONE", ["relayed", "intercepted", "relayed"])
    outcome, actions = visit(port, *through, *own)
    assert (outcome.text, actions) == ("SUCCESS", ["relayed", "passthrough"])
    # curl without one looks the same, and is found out when it passes
    for expected in ("passthrough", "intercepted"):
        outcome, actions = visit(port, *through)
        assert (outcome.text, actions[1]) == ("NONE", expected)
