"""`mitml4 intercept --block` with real clients, proxies and servers."""

from __future__ import annotations

import socket
import ssl
import time

import pytest

V4 = "198.51.100.2"
SOCKS, HTTP_PROXY = 1080, 3128
REFUSED, RESET, RESET_IN_TLS, PROXY_FAILED = 7, 56, 35, 97  # curl(1)
RESET_WHILE_SENDING = 55
SILENCE_S = 0.7
"""More than `--detect-timeout`."""

BLOCKS = ("blocked.example", "straße.example", "10.67.2.3", f"{V4}:444", "port.example:25")


@pytest.fixture(scope="module")
def proxies(serve, files):
    serve("microsocks", "-i", V4, "-p", str(SOCKS), port=SOCKS)
    config = files / "tinyproxy.conf"
    config.write_text(f"Port {HTTP_PROXY}\nListen {V4}\nMaxClients 50\n")
    serve("tinyproxy", "-d", "-c", str(config), port=HTTP_PROXY)


@pytest.fixture
def session(intercept):
    return intercept(*(part for each in BLOCKS for part in ("--block", each)))


@pytest.fixture
def visit(client, session):
    """curl's exit code, and the flow."""

    def run(*options):
        watch = session.watch()
        outcome = client.run(
            *("curl", "-sS", "--insecure", "--max-time", "10", "-o", "/dev/null", *options)
        )
        return outcome.code, watch.flow()

    return run


@pytest.mark.usefixtures("nginx", "proxies")
def test_curl_gets_nowhere_that_is_blocked(visit):
    to_nginx = ("--connect-to", f"::{V4}:")
    socks = ("--socks5-hostname", f"{V4}:{SOCKS}")
    socks4 = ("--socks4a", f"{V4}:{SOCKS}")
    proxy = ("--proxy", f"http://{V4}:{HTTP_PROXY}")
    blocked = {
        ("https://blocked.example/", *to_nginx): (RESET_IN_TLS, ["tls"]),
        ("https://straße.example/", *to_nginx): (RESET_IN_TLS, ["tls"]),
        ("http://BLOCKED.example./", *to_nginx): (RESET, ["http/1"]),
        ("https://www.example/", "-H", "Host: blocked.example", *to_nginx): (
            RESET,
            ["tls", "http/2"],
        ),
        ("http://blocked.example/", *proxy): (RESET, ["http/1"]),
        ("http://172163587/", *proxy): (RESET, ["http/1"]),
        ("https://blocked.example/", *proxy): (RESET, ["http-connect"]),
        ("https://10.67.515/", *proxy): (RESET, ["http-connect"]),
        ("https://[::ffff:10.67.2.3]/", *proxy): (RESET, ["http-connect"]),
        ("http://port.example:25/", "--proxytunnel", *proxy): (RESET, ["http-connect"]),
        ("http://blocked.example/", *socks): (PROXY_FAILED, ["socks5"]),
        ("http://10.67.2.3/", *socks): (PROXY_FAILED, ["socks5"]),
        ("http://blocked.example/", *socks4): (PROXY_FAILED, ["socks4"]),
        (f"http://{V4}/", "-H", "Host: blocked.example", *socks): (RESET, ["socks5", "http/1"]),
        (f"https://{V4}/", "-H", "Host: blocked.example", *proxy): (
            RESET,
            ["http-connect", "tls", "http/2"],
        ),
    }
    code, flow = visit(f"https://{V4}:444/")
    assert code in (REFUSED, RESET_IN_TLS)  # the kernel has accepted, and the reset is fast
    assert (flow.stack, flow.closed["reason"], flow.closed["bytes_up"]) == ([], "blocked", 0)
    for options, (code, stack) in blocked.items():
        outcome, flow = visit(*options)
        if stack[-1] == "http/2" and outcome == RESET_WHILE_SENDING:
            outcome = RESET  # curl acknowledges the server's settings behind its request
        assert (outcome, flow.stack) == (code, stack), options
        assert flow.closed["reason"] == "blocked", options
    for options in (
        ("https://www.example/", *to_nginx),
        ("http://port.example/", *to_nginx),
        (f"http://{V4}/", *proxy),
        (f"https://{V4}/", *socks),
    ):
        code, flow = visit(*options)
        assert (code, flow.closed["reason"]) == (0, "closed"), options


@pytest.mark.usefixtures("nginx", "proxies")
def test_what_servers_understand_though_it_is_malformed_is_ended(client, beside, session):
    """They answer each of these where nothing is between."""
    requests = {
        HTTP_PROXY: [
            b"CONNECT %s:80 HTTP/1.1 \r\n\r\n",
            b"connect %s:80 HTTP/1.0\r\n\r\n",
            b"GET http://%s/ HTTP/1.0\r\n\r\n",
            b"GET http://%s/\r\n\r\n",
        ],
        80: [
            b"GET / HTTP/1.1\r\nHost:   %s  \r\nConnection: close\r\n\r\n",
            b"\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.0\r\nhost: %s\r\n\r\n",
            b"GET / HTTP/1.1 \r\nHost: %s\r\nConnection: close\r\n\r\n",
            b"GET http://%s/ HTTP/1.1\r\nHost: ok.example\r\nConnection: close\r\n\r\n",
        ],
    }
    for port, shapes in requests.items():
        allowed, blocked = (
            (V4, "10.67.515") if port == HTTP_PROXY else ("a.test", "Blocked.Example")
        )
        for shape in shapes:
            assert say(beside.connect(V4, port), shape % allowed.encode()), shape
            watch = session.watch()
            assert say(client.connect(V4, port), shape % blocked.encode()) == b"", shape
            assert watch.flow().closed["reason"] == "blocked", shape


@pytest.mark.usefixtures("nginx")
def test_a_hello_that_comes_in_pieces_is_read(client, session):
    outgoing = ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(
        ssl.MemoryBIO(), outgoing, server_hostname="blocked.example"
    )
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    hello = outgoing.read()
    for at in (1, 5, len(hello) - 1):
        watch = session.watch()
        assert say(client.connect(V4, 443), hello[:at], hello[at:]) == b""
        flow = watch.flow()
        assert (flow.closed["reason"], flow.layer("tls")["details"]["sni"]) == (
            "blocked",
            "blocked.example",
        )
        assert flow.closed["bytes_up"] < len(hello)
        assert flow.actions == ["relayed"]


def say(sock: socket.socket, *pieces: bytes) -> bytes:
    """Say this, with silence between, and hear what comes; nothing if it is reset."""
    with sock:
        try:
            for number, piece in enumerate(pieces):
                if number:
                    time.sleep(SILENCE_S)
                sock.sendall(piece)
            return sock.recv(4096)
        except ConnectionResetError:
            return b""
