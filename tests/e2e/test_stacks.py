"""Each pair of a real client and a real server gets on as before, and is seen for what it is."""

import os
import re
from dataclasses import replace

import pytest

URL = "https://www.example/"
V4, V6 = "198.51.100.2", "2001:db8:2::2"

pytestmark = pytest.mark.usefixtures("nginx")


def same_through_mitml4(curl, client, beside, session, *options):
    """Visit with nothing between, then through mitml4; return what both got, and the flow."""
    expected = curl(beside, *options)
    watch = session.watch()
    outcome = curl(client, *options)
    assert undated(outcome) == undated(expected)
    return outcome, watch.flow()


def undated(outcome):
    """Without the server's clock, which may tick between two visits."""
    return replace(outcome, out=re.sub(rb"(?im)^date: .*$", b"date:", outcome.out))


@pytest.fixture
def visit(curl, client, beside, session):
    return lambda *options: same_through_mitml4(curl, client, beside, session, *options)


@pytest.mark.parametrize(
    ("options", "stack", "written"),
    [
        (["http://www.example/"], ["http/1"], "1.1 200 0 1"),
        (["--http1.1", URL], ["tls", "http/1"], "1.1 200 0 1"),
        (["--http2", URL], ["tls", "http/2"], "2 200 0 1"),
        (["--http2-prior-knowledge", URL], ["tls", "http/2"], "2 200 0 1"),
        (["--tls-max", "1.2", URL], ["tls", "http/2"], "2 200 0 1"),
        (["--no-alpn", URL], ["tls", "http/1"], "1.1 200 0 1"),
        ([URL + "missing"], ["tls", "http/2"], "2 404 0 1"),
        (["--head", URL], ["tls", "http/2"], "2 200 0 1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_curl_gets_the_page(visit, options, stack, written):
    outcome, flow = visit(*options)
    assert outcome.code == 0
    assert outcome.text.splitlines()[-1] == written
    assert flow.stack == stack


@pytest.mark.parametrize(
    ("options", "stack"),
    [(["http://[2001:db8:2::2]/"], ["http/1"]), ([f"https://[{V6}]/"], ["tls", "http/2"])],
    ids=["plain", "tls"],
)
def test_curl_gets_the_page_by_an_ipv6_literal(visit, options, stack):
    outcome, flow = visit("--globoff", *options)
    assert outcome.code == 0
    assert flow.stack == stack
    assert flow.opened["destination"]["ip"] == V6
    assert flow.opened["client"]["ip"] == "2001:db8:1::2"


def test_a_name_over_ipv6(visit):
    outcome, flow = visit("--connect-to", f"www.example:443:[{V6}]:443", URL)
    assert outcome.code == 0
    assert flow.opened["destination"] == {"ip": V6, "port": 443}
    assert flow.layer("tls")["details"]["sni"] == "www.example"


def test_several_requests_travel_on_one_connection(visit):
    outcome, flow = visit("--http1.1", URL, URL, URL)
    assert outcome.text.count("hello from nginx") == 3
    assert [e["stream"] for e in flow.http if e["type"] == "http.request"] == [1, 2, 3]


def test_parallel_requests_travel_on_one_http2_connection(client, bundle, session):
    watch = session.watch()
    outcome = client.run("nghttp", "-n", f"https://{V4}/", f"https://{V4}/big", f"https://{V4}/x")
    assert outcome.code == 0
    flow = watch.flow()
    assert flow.stack == ["tls", "http/2"]
    streams = {e["stream"] for e in flow.http if e["type"] == "http.request"}
    assert len(streams) == 3


def test_http_messages_are_described(visit):
    _, flow = visit("--http1.1", URL)
    request, response, end = flow.http
    assert request["method"] == "GET"
    assert request["url"] == "https://www.example/"
    assert response["status"] == 200
    assert response["content_type"] == "text/html"
    assert request["headers"] is None
    assert end["response_bytes"] == len("hello from nginx\n")


def test_tls_to_a_port_without_tls_fails_as_it_did(curl, client, beside, session):
    url = "https://www.example:80/"
    outcome = curl(client, url)
    assert outcome == curl(beside, url)
    assert outcome.code == 35
    assert "wrong version number" in outcome.err


def test_wget_gets_the_page(client, beside, bundle, session, tmp_path):
    command = ["wget", "-q", "-O", "-", "--ca-certificate", str(bundle), f"https://{V4}/"]
    expected = beside.run(*command)
    watch = session.watch()
    assert client.run(*command) == expected
    assert expected.text == "hello from nginx\n"
    assert watch.flow().stack == ["tls", "http/1"]


def test_gnutls_gets_the_page(client, beside, bundle, session):
    command = [
        *("gnutls-cli", "--x509cafile", str(bundle), "--port", "443"),
        *("--sni-hostname", "www.example", "--verify-hostname", "www.example", V4),
    ]
    request = b"GET / HTTP/1.0\r\nHost: www.example\r\n\r\n"
    expected = beside.run(*command, input=request)
    watch = session.watch()
    outcome = client.run(*command, input=request)
    assert (outcome.code, expected.code) == (0, 0), outcome
    assert b"hello from nginx" in outcome.out
    assert watch.flow().stack == ["tls", "http/1"]


def test_a_big_download_arrives_whole(curl, client, session, nginx, tmp_path):
    target = tmp_path / "big"
    assert curl(client, "-o", str(target), URL + "big").code == 0
    assert target.read_bytes() == (nginx / "big").read_bytes()


def test_a_big_upload_arrives_whole(curl, client, session, nginx):
    outcome = curl(client, "-T", str(nginx / "big"), URL + "put/upload")
    assert outcome.text.splitlines()[-1].startswith("2 201"), outcome
    assert (nginx / "put" / "upload").read_bytes() == (nginx / "big").read_bytes()


def test_an_upload_over_plain_http_arrives_whole(curl, client, nginx):
    outcome = curl(client, "-T", str(nginx / "big"), "http://www.example/put/plain")
    assert outcome.text.splitlines()[-1].startswith("1.1 201"), outcome
    assert (nginx / "put" / "plain").read_bytes() == (nginx / "big").read_bytes()


def test_expect_100_continue_is_answered(visit, nginx):
    (nginx / "put" / "expected").write_text("before")
    outcome, flow = visit(
        *("--http1.1", "-H", "Expect: 100-continue", "--expect100-timeout", "8"),
        *("-T", str(nginx / "index.html"), URL + "put/expected"),
    )
    assert outcome.code == 0
    assert flow.closed["duration_s"] < 8
    assert 100 in [e["status"] for e in flow.http if e["type"] == "http.response"]


# --- SSH: the server speaks first


@pytest.mark.parametrize("address", [V4, V6])
def test_ssh_runs_a_command(sshd, client, session, address):
    watch = session.watch()
    outcome = client.run("ssh", *sshd, f"root@{address}", "echo hello; exit 7")
    assert (outcome.code, outcome.text) == (7, "hello\n"), outcome
    flow = watch.flow()
    assert flow.stack == ["ssh"]
    assert flow.layer("ssh")["details"]["server_software"].startswith("OpenSSH")


def test_ssh_keyscan_sees_the_servers_own_key(sshd, client, beside, session):
    watch = session.watch()
    outcome = client.run("ssh-keyscan", "-t", "ed25519", V4)
    assert outcome.out == beside.run("ssh-keyscan", "-t", "ed25519", V4).out != b""
    assert watch.flow().stack == ["ssh"]


def test_a_server_that_speaks_first_is_not_kept_waiting(sshd, client, session):
    watch = session.watch()
    with client.connect(V4, 22) as sock:
        greeting = sock.recv(100)  # nothing was sent: only the server's word can end this
    assert greeting.startswith(b"SSH-2.0-OpenSSH")
    flow = watch.flow()
    assert flow.stack == ["ssh"]
    assert flow.layer("ssh")["speaker"] == "server"


# --- STARTTLS: a mail server


@pytest.fixture(scope="module")
def smtpd(serve, identity, files):
    import sys

    serve(
        *(sys.executable, "-m", "aiosmtpd", "-n", "-l", f"{V4}:25"),
        *("--tlscert", str(identity.certificate), "--tlskey", str(identity.key)),
        port=25,
        cwd=files,
    )


def test_openssl_upgrades_smtp_to_tls(smtpd, client, beside, bundle, session):
    command = [
        *("openssl", "s_client", "-starttls", "smtp", "-connect", f"{V4}:25"),
        *("-servername", "www.example", "-CAfile", str(bundle), "-verify_return_error", "-quiet"),
    ]
    mail = b"EHLO me\r\nQUIT\r\n"
    expected = beside.run(*command, input=mail)
    watch = session.watch()
    outcome = client.run(*command, input=mail)
    assert outcome.code == expected.code == 0, outcome
    assert outcome.out == expected.out
    flow = watch.flow()
    assert flow.stack == ["smtp", "tls", "smtp"]
    assert flow.actions[1] == "intercepted"
    assert flow.layer("smtp")["details"]["upgraded"] is True


def test_curl_sends_mail_without_tls(smtpd, client, beside, session, files):
    letter = files / "letter"
    letter.write_text("Subject: hello\r\n\r\nhello\r\n")
    command = [
        *("curl", "-sS", "--max-time", "10", f"smtp://{V4}/me", "--mail-from", "me@example"),
        *("--mail-rcpt", "you@example", "-T", str(letter)),
    ]
    watch = session.watch()
    assert client.run(*command) == beside.run(*command)
    flow = watch.flow()
    assert flow.stack == ["smtp"]


# --- what nobody knows


@pytest.fixture(scope="module")
def echo(serve):
    serve("socat", "TCP6-LISTEN:7777,fork,reuseaddr,ipv6only=0", "EXEC:cat", port=7777)


def test_unknown_bytes_come_back_as_they_went(echo, client, beside, session):
    data = os.urandom(1) + b"\x00\xffnobody knows this" * 5000
    command = ["socat", "-t10", "-", f"TCP:{V4}:7777"]
    watch = session.watch()
    outcome = client.run(*command, input=b"\xc0\xff" + data)
    assert outcome.out == b"\xc0\xff" + data
    flow = watch.flow()
    assert flow.stack == ["unknown"]
    assert flow.closed["bytes_up"] == flow.closed["bytes_down"] == len(data) + 2


def test_a_connection_on_which_nothing_is_said_ends_cleanly(echo, client, session):
    watch = session.watch()
    with client.connect(V4, 7777):
        pass
    flow = watch.flow()
    assert flow.stack == []
    assert flow.closed["reason"] == "closed"


def test_tls_around_unknown_bytes_is_opened(serve, identity, client, bundle, session):
    serve(
        "socat",
        f"OPENSSL-LISTEN:7778,fork,reuseaddr,cert={identity.certificate},key={identity.key},verify=0",
        "EXEC:cat",
        port=7778,
    )
    data = b"\xc0\xff\x00" + os.urandom(200_000)
    watch = session.watch()
    outcome = client.run(
        *("socat", "-t10", "-"),
        f"OPENSSL:{V4}:7778,cafile={bundle},commonname=www.example",
        input=data,
    )
    assert outcome.out == data, outcome.err
    flow = watch.flow()
    assert flow.stack == ["tls", "unknown"]
    assert flow.closed["bytes_up"] >= len(data)
