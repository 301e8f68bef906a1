"""Proxies of every kind, and proxies inside proxies: what is inside the innermost is seen."""

import os
import re
import socket
import ssl
import struct

import pytest

from tests.e2e.proxies import serve_dante, serve_inside_tls, serve_ssh_d, serve_tinyproxy

V4, V6 = "198.51.100.2", "2001:db8:2::2"
URL = "https://www.example/"
SOCKS, SOCKS_WITH_PASSWORD, DANTE, SSH_D = 1080, 1081, 1082, 1083
HTTP_PROXY, TLS_PROXY, CONNECT_ONLY_443 = 3128, 3129, 3130

pytestmark = pytest.mark.usefixtures("nginx", "proxies")


@pytest.fixture(scope="module")
def proxies(serve, files, identity, sshd):
    """microsocks, Dante (SOCKS4), `ssh -D` (SOCKS4a), tinyproxy, and tinyproxy behind TLS."""
    serve("microsocks", "-i", "::", "-p", str(SOCKS), port=SOCKS)
    serve(
        *("microsocks", "-i", "::", "-p", str(SOCKS_WITH_PASSWORD)),
        *("-u", "alice", "-P", "s3cret"),
        port=SOCKS_WITH_PASSWORD,
    )
    serve_dante(serve, files, DANTE)
    serve_ssh_d(serve, sshd, SSH_D)
    both = f"Listen {V6}", "MaxClients 50"
    serve_tinyproxy(serve, files, HTTP_PROXY, *both)
    serve_tinyproxy(serve, files, CONNECT_ONLY_443, *both, "ConnectPort 443")
    serve_inside_tls(serve, identity, TLS_PROXY, HTTP_PROXY)


def without_ports(outcome):
    """curl's complaint names the port that a refusal came with, and that one is anyone's."""
    return outcome.code, outcome.out, re.sub(r"(?<=:)\d+\b", "PORT", outcome.err)


@pytest.fixture
def visit(curl, client, beside, session):
    """curl with nothing between, then through mitml4: the same outcome, and the flow."""

    def run(*options):
        expected = curl(beside, *options)
        watch = session.watch()
        outcome = curl(client, *options)
        assert without_ports(outcome) == without_ports(expected)
        return outcome, watch.flow()

    return run


TLS_H2 = ["tls", "http/2"]


@pytest.mark.parametrize(
    ("options", "stack"),
    [
        (["--socks5", f"{V4}:{SOCKS}"], ["socks5", *TLS_H2]),
        (["--socks5-hostname", f"{V4}:{SOCKS}"], ["socks5", *TLS_H2]),
        (["--socks5-hostname", f"[{V6}]:{SOCKS}"], ["socks5", *TLS_H2]),
        (
            ["--socks5-hostname", f"alice:s3cret@{V4}:{SOCKS_WITH_PASSWORD}"],
            ["socks5", *TLS_H2],
        ),
        (["--socks4", f"{V4}:{DANTE}"], ["socks4", *TLS_H2]),
        (["--socks4a", f"{V4}:{SSH_D}"], ["socks4", *TLS_H2]),
        (["--socks5-hostname", f"{V4}:{DANTE}"], ["socks5", *TLS_H2]),
        (["--proxy", f"http://{V4}:{HTTP_PROXY}"], ["http-connect", *TLS_H2]),
        (["--proxy", f"http://{V4}:{HTTP_PROXY}", "--http1.1"], ["http-connect", "tls", "http/1"]),
        (["--proxy", f"https://www.example:{TLS_PROXY}"], ["tls", "http-connect", *TLS_H2]),
        (
            [
                *("--preproxy", f"socks5h://{V4}:{SOCKS}"),
                *("--proxy", f"http://{V4}:{HTTP_PROXY}"),
            ],
            ["socks5", "http-connect", *TLS_H2],
        ),
        (
            [
                *("--preproxy", f"socks5h://{V4}:{SOCKS}"),
                *("--proxy", f"https://www.example:{TLS_PROXY}"),
            ],
            ["socks5", "tls", "http-connect", *TLS_H2],
        ),
    ],
    ids=lambda value: " › ".join(value) if value[0] in ("tls", "http-connect") else None,
)
def test_curl_gets_the_page_through_proxies(visit, options, stack):
    outcome, flow = visit(*options, URL)
    assert outcome.code == 0
    assert outcome.text.startswith("hello from nginx")
    assert flow.stack == stack
    assert flow.layers[-2]["action"] == "intercepted"
    assert flow.layers[-2]["details"]["sni"] == "www.example"


@pytest.mark.parametrize(
    ("options", "stack"),
    [
        (["--socks5-hostname", f"{V4}:{SOCKS}"], ["socks5", "http/1"]),
        (["--proxy", f"http://{V4}:{HTTP_PROXY}"], ["http/1"]),
        (["--proxy", f"http://{V4}:{HTTP_PROXY}", "--proxytunnel"], ["http-connect", "http/1"]),
        (["--proxy", f"https://www.example:{TLS_PROXY}"], ["tls", "http/1"]),
    ],
    ids=lambda value: " › ".join(value) if not value[0].startswith("-") else None,
)
def test_plain_http_through_proxies(visit, options, stack):
    outcome, flow = visit(*options, "http://www.example/")
    assert outcome.code == 0
    assert flow.stack == stack
    if stack[0] == "http-connect":
        assert flow.layers[0]["details"]["status"] == 200


def test_the_socks5_request_is_described_and_the_password_is_not(visit, session):
    _, flow = visit("--socks5-hostname", f"alice:s3cret@{V4}:{SOCKS_WITH_PASSWORD}", URL)
    details = flow.layer("socks5")["details"]
    assert details["username"] == "alice"
    assert details["command"] == "connect"
    assert details["target"] == "www.example:443" or details["target"] == {
        "host": "www.example",
        "port": 443,
    }
    assert "s3cret" not in str(session.events)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--socks5-hostname", f"alice:wrong@{V4}:{SOCKS_WITH_PASSWORD}", URL], 97),
        (["--socks5-hostname", f"{V4}:{SOCKS_WITH_PASSWORD}", URL], 97),
        (["--socks5", f"{V4}:{SOCKS}", f"https://{V4}:9/"], 97),
        (["--socks5-hostname", f"{V4}:{SOCKS}", "https://nowhere.example/"], 97),
        (["--socks4", f"{V4}:{DANTE}", f"https://{V4}:9/"], 97),
        (["--proxy", f"http://{V4}:{HTTP_PROXY}", f"https://{V4}:9/"], 56),
        (["--proxy", f"http://{V4}:{CONNECT_ONLY_443}", f"https://{V4}:22/"], 56),
    ],
    ids=[
        "wrong password",
        "no password",
        "closed port",
        "unknown name",
        "socks4, closed port",
        "connect, closed port",
        "connect, not permitted",
    ],
)
def test_a_proxys_refusal_comes_through(visit, options, code):
    outcome, flow = visit(*options)
    assert outcome.code == code
    assert flow.stack in (["socks5"], ["socks4"], ["http/1"], ["http-connect"])
    assert flow.errors == []


def socks5(sock, host, port):
    sock.sendall(b"\x05\x01\x00")
    assert sock.recv(2, socket.MSG_WAITALL) == b"\x05\x00"
    name = host.encode()
    sock.sendall(b"\x05\x01\x00\x03" + bytes([len(name)]) + name + struct.pack("!H", port))
    assert sock.recv(10, socket.MSG_WAITALL)[:2] == b"\x05\x00"


def connect(sock, host, port):
    sock.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
    head = bytearray()
    while not head.endswith(b"\r\n\r\n"):
        head += sock.recv(1)
    assert head.split()[1] == b"200"


def test_socks5_inside_connect_inside_socks5(client, session, bundle):
    context = ssl.create_default_context(cafile=bundle)
    watch = session.watch()
    with client.connect(V4, SOCKS) as sock:
        socks5(sock, "www.example", HTTP_PROXY)
        connect(sock, "www.example", SOCKS)
        socks5(sock, "www.example", 443)
        with context.wrap_socket(sock, server_hostname="www.example") as tls:
            tls.sendall(b"GET / HTTP/1.0\r\nHost: www.example\r\n\r\n")
            page = b"".join(iter(lambda: tls.recv(65536), b""))
    assert page.endswith(b"hello from nginx\n")
    assert watch.flow().stack == ["socks5", "http-connect", "socks5", "tls", "http/1"]


def test_big_bodies_through_tls_in_tls(curl, client, session, nginx, tmp_path):
    target = tmp_path / "big"
    options = ["--proxy", f"https://www.example:{TLS_PROXY}"]
    watch = session.watch()
    assert curl(client, *options, "-o", str(target), URL + "big").code == 0
    assert target.read_bytes() == (nginx / "big").read_bytes()
    assert watch.flow().closed["bytes_down"] > os.path.getsize(target)


def test_ssh_through_socks5_is_seen(client, session, serve):
    serve("socat", "TCP-LISTEN:2222,fork,reuseaddr", "SYSTEM:'echo SSH-2.0-Fake; cat'", port=2222)
    watch = session.watch()
    with client.connect(V4, SOCKS) as sock:
        socks5(sock, "www.example", 2222)
        assert sock.recv(13, socket.MSG_WAITALL) == b"SSH-2.0-Fake\n"
        sock.sendall(b"SSH-2.0-Me\r\n")
        assert sock.recv(10, socket.MSG_WAITALL) == b"SSH-2.0-Me"
    assert watch.flow().stack == ["socks5", "ssh"]
