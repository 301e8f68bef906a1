"""TLS is opened, and both sides still see what the other side is."""

import os
import re
import ssl
from datetime import UTC, datetime, timedelta

import pytest

URL = "https://www.example/"
V4 = "198.51.100.2"


@pytest.fixture
def s_client(bundle):
    """`openssl s_client` that asks for a page and says all it learned of the handshake."""

    def run(machine, port, *options):
        return machine.run(
            *("openssl", "s_client", "-connect", f"{V4}:{port}", "-servername", "www.example"),
            *("-CAfile", str(bundle), "-ign_eof", *options),
            input=b"GET / HTTP/1.0\r\n\r\n",
        )

    return run


def handshake(outcome):
    """What `s_client` says of the handshake, as far as both sides should agree with the server."""
    wanted = (r"^\s*Protocol\s*: (\S+)", r"^New, (\S+),", r"ALPN protocol: (\S+)|No ALPN")
    return [m.group(0).strip() if (m := re.search(p, outcome.text, re.M)) else None for p in wanted]


# --- the handshake is mirrored


@pytest.mark.parametrize(
    ("server", "client_options"),
    [
        (["-tls1_2"], []),
        (["-tls1_3"], []),
        ([], ["-tls1_2"]),
        ([], ["-tls1_3"]),
        (["-alpn", "h2,http/1.1"], ["-alpn", "http/1.1"]),
        (["-alpn", "spdy/9"], ["-alpn", "spdy/9,http/1.1"]),
        (["-alpn", "h2"], []),
        ([], ["-alpn", "h2"]),
        (["-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"], []),
    ],
    ids=lambda options: " ".join(options) or "default",
)
def test_version_and_alpn_are_the_servers(
    s_server, s_client, identity, client, beside, session, server, client_options
):
    port = s_server(identity, *server)
    expected = s_client(beside, port, *client_options)
    watch = session.watch()
    outcome = s_client(client, port, *client_options)
    assert outcome.code == expected.code
    assert handshake(outcome) == handshake(expected)
    flow = watch.flow()
    assert flow.stack[0] == "tls"
    assert flow.actions[0] == "intercepted"


@pytest.mark.parametrize("key", ["ec", "rsa"])
def test_the_leaf_is_ours_and_looks_like_the_servers(
    s_server, authority, client, session, bundle, key
):
    port = s_server(authority.issue("www.example", "other.example", key=key))
    watch = session.watch()
    shown = client.run(
        *("openssl", "s_client", "-connect", f"{V4}:{port}", "-servername", "www.example"),
        input=b"",
    )
    text = client.run(
        *("openssl", "x509", "-noout", "-text"),
        input=shown.out,
    ).text
    flow = watch.flow()
    assert "mitml4" in re.search(r"Issuer: (.*)", text).group(1).lower()
    assert "Subject: CN = www.example" in text
    assert "DNS:www.example, DNS:other.example" in text
    assert ("rsaEncryption" if key == "rsa" else "prime256v1") in text
    certificate = flow.layer("tls")["details"]["certificate"]
    assert certificate["verify"] == "ok"
    assert certificate["issuer"] == "CN=Lab Root"
    assert certificate["san"] == ["www.example", "other.example"]


def test_the_event_describes_the_handshake(s_server, identity, client, session, bundle):
    port = s_server(identity, "-alpn", "http/1.1")
    watch = session.watch()
    context = ssl.create_default_context(cafile=bundle)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        client.connect(V4, port) as sock,
        context.wrap_socket(sock, server_hostname="www.example") as tls,
    ):
        assert tls.selected_alpn_protocol() == "http/1.1"
        version, cipher = tls.version(), tls.cipher()[0]
    details = watch.flow().layer("tls")["details"]
    assert details["sni"] == "www.example"
    assert details["alpn_offered"] == ["h2", "http/1.1"]
    assert details["alpn"] == "http/1.1"
    assert (details["version"], details["cipher"]) == (version, cipher)
    assert re.fullmatch(r"t13d\d{4}h2_[0-9a-f]{12}_[0-9a-f]{12}", details["ja4"])
    assert re.fullmatch(r"[0-9a-f]{32}", details["ja3"])


def test_a_client_without_sni_stays_without(s_server, identity, client, session):
    port = s_server(identity)
    watch = session.watch()
    outcome = client.run(
        "openssl", "s_client", "-connect", f"{V4}:{port}", "-noservername", input=b""
    )
    assert b"CONNECTED" in outcome.out
    assert watch.flow().layer("tls")["details"]["sni"] is None


def test_a_client_with_a_key_that_only_its_server_knows_is_passed_through(
    serve_once, new_port, s_client, client, beside, session
):
    port = new_port()
    key = ("-psk", "1a2b3c4d", "-tls1_3")
    serve_once(*("openssl", "s_server", "-accept", str(port), "-www", "-nocert", *key), port=port)
    for machine in (beside, client):
        watch = session.watch()
        assert "\nReused, TLSv1.3" in s_client(machine, port, *key).text
    flow = watch.flow()
    assert flow.actions == ["passthrough"]
    assert flow.layer("tls")["details"]["passthrough"] == "pre-shared key"
    watch = session.watch()
    assert "alert handshake failure" in s_client(client, port, "-tls1_3").err
    assert watch.flow().actions == ["intercepted"]


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_a_session_is_resumed_at_another_port_of_the_host(
    serve_once, new_port, s_client, identity, client, beside, session, files, tmp_path, version
):
    """As the data connection of FTP has to, for some servers."""
    one, two = new_port(), new_port()
    key = files / "ticket.key"
    key.write_bytes(os.urandom(80))
    config = files / "tickets.conf"
    server = "server { listen %d ssl; return 200 hello; }"
    config.write_text(
        f"daemon off; master_process off; pid {files}/tickets.pid; error_log stderr crit;"
        f"events {{}} http {{ access_log off; client_body_temp_path {files}/body;"
        f"ssl_certificate {identity.certificate}; ssl_certificate_key {identity.key};"
        f"ssl_session_ticket_key {key}; ssl_protocols TLSv{version};"
        f"{server % one} {server % two} }}"
    )
    serve_once("nginx", "-c", str(config), "-p", str(files), port=two)
    for machine in (beside, client):
        kept = str(tmp_path / "session.pem")
        watch = session.watch()
        assert "\nNew, TLSv" in s_client(machine, one, "-sess_out", kept).text
        assert "\nReused, TLSv" in s_client(machine, two, "-sess_in", kept).text
    first, second = watch.flows(2)
    resumed = [flow.layer("tls")["details"]["resumed"] for flow in (first, second)]
    assert resumed == [False, True]


def test_close_notify_comes_through(s_server, identity, client, session, bundle):
    port = s_server(identity)
    context = ssl.create_default_context(cafile=bundle)
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF  # some Pythons look away by default
    with (
        client.connect(V4, port) as sock,
        context.wrap_socket(sock, server_hostname="www.example", suppress_ragged_eofs=False) as tls,
    ):
        tls.sendall(b"GET / HTTP/1.0\r\n\r\n")
        page = bytearray()
        while data := tls.recv(65536):  # a FIN without close_notify raises SSLEOFError
            page += data
    assert b"HTTP/1.0 200" in page


# --- what is wrong with a server stays visible


def windows():
    now = datetime.now(UTC)
    return {
        "expired": (now - timedelta(days=9), now - timedelta(days=1)),
        "not yet valid": (now + timedelta(days=1), now + timedelta(days=9)),
    }


@pytest.mark.parametrize("defect", ["expired", "not yet valid", "wrong name", "self-signed"])
def test_a_faulty_certificate_is_as_faulty_through_mitml4(
    s_server, authority, curl, client, beside, session, defect
):
    names = ["wrong.example"] if defect == "wrong name" else ["www.example"]
    identity = authority.issue(
        *names, valid=windows().get(defect), self_signed=defect == "self-signed"
    )
    port = s_server(identity)
    options = ["--resolve", f"www.example:{port}:{V4}", f"https://www.example:{port}/"]
    expected = curl(beside, *options)
    watch = session.watch()
    outcome = curl(client, *options)
    assert outcome.code == expected.code == 60, outcome
    reason = r"curl: \(60\) (?:SSL certificate problem|SSL: \w+)[^\n]*?(expired|valid|match|$)"
    if defect != "self-signed":
        assert re.search(reason, outcome.err).group(1) == re.search(reason, expected.err).group(1)
    flow = watch.flow()
    assert flow.actions == ["intercepted"]
    assert flow.layer("tls")["details"]["certificate"]["verify"] != "ok"


@pytest.mark.parametrize("defect", ["expired", "wrong name", "self-signed"])
def test_a_careless_client_gets_its_page_all_the_same(
    s_server, authority, curl, client, session, defect
):
    names = ["wrong.example"] if defect == "wrong name" else ["www.example"]
    port = s_server(
        authority.issue(*names, valid=windows().get(defect), self_signed=defect == "self-signed")
    )
    outcome = curl(client, "-k", f"https://{V4}:{port}/")
    assert outcome.code == 0, outcome


def test_a_servers_alert_reaches_the_client(s_server, s_client, identity, client, beside, session):
    port = s_server(identity, "-tls1_3")
    expected = s_client(beside, port, "-tls1_2")
    watch = session.watch()
    outcome = s_client(client, port, "-tls1_2")
    alert = re.compile(r"alert [a-z ]+")
    assert outcome.code == expected.code != 0
    assert alert.search(outcome.err).group() == alert.search(expected.err).group()
    (error,) = watch.flow().errors
    assert (error["side"], error["stage"], error["kind"]) == ("server", "handshake", "alert")


# --- a client that trusts other roots


def test_a_pinned_client_is_let_through_the_next_time(s_server, authority, curl, client, session):
    port = s_server(authority.issue("pinned.example"))
    url = f"https://pinned.example:{port}/"
    options = ["--resolve", f"pinned.example:{port}:{V4}", "--cacert", str(authority.root), url]
    watch = session.watch()
    assert curl(client, *options).code == 60
    flow = watch.flow()
    assert flow.stack == ["tls"]
    assert [(e["side"], e["stage"]) for e in flow.errors] == [("client", "handshake")]
    watch = session.watch()
    assert curl(client, *options).code == 0
    flow = watch.flow()
    assert flow.stack == ["tls"]
    assert flow.actions == ["passthrough"]


def test_a_pinned_name_does_not_let_others_through(s_server, authority, curl, client, session):
    port = s_server(authority.issue("one.example", "two.example"))

    def visit(name, *options):
        watch = session.watch()
        at = f"{name}:{port}"
        curl(client, "--resolve", f"{at}:{V4}", *options, f"https://{at}/")
        return watch.flow().actions[0]

    visit("one.example", "--cacert", str(authority.root))
    assert visit("two.example") == "intercepted"
    assert visit("one.example") == "passthrough"


# --- TLS inside TLS, in a cipher that OpenSSL has not


def test_a_cipher_that_we_lack_inside_tls_costs_one_connection(
    intercept, client, serve_once, serve_client, identity
):
    """GnuTLS on both ends, behind a TLS terminator: the server takes nothing but Camellia-GCM."""
    only = "NONE:+VERS-TLS1.2:+CAMELLIA-128-GCM:+ECDHE-ECDSA:+ECDHE-RSA:+AEAD:+SIGN-ALL:+GROUP-ALL"
    inner = ("--x509certfile", str(identity.certificate), "--x509keyfile", str(identity.key))
    serve_once("gnutls-serv", "--echo", "--port", "7101", "--priority", only, *inner, port=7101)
    outer = f"verify=0,cert={identity.certificate},key={identity.key}"
    serve_once(
        *("socat", f"OPENSSL-LISTEN:7102,fork,reuseaddr,{outer}", "TCP:127.0.0.1:7101"), port=7102
    )
    session = intercept()
    watch = session.watch()
    serve_client(
        "socat", "TCP-LISTEN:7103,fork,reuseaddr", f"OPENSSL:{V4}:7102,verify=0", port=7103
    )
    visits = [
        client.run(
            *("gnutls-cli", "--no-ca-verification", "--port", "7103", "127.0.0.1"),
            *("--priority", "NORMAL:+CAMELLIA-128-GCM"),
            input=b"hello\n",
        )
        for _ in range(2)
    ]
    assert [visit.code for visit in visits] == [1, 0], visits
    assert [flow.actions[:2] for flow in watch.flows(2)] == [
        ["intercepted", "intercepted"],
        ["intercepted", "passthrough"],
    ]
