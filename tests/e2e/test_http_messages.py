"""What is told of HTTP/1 messages is what nginx served, whatever they look like."""

from __future__ import annotations

import socket
from contextlib import suppress

import pytest

V4 = "198.51.100.2"
PORT = 8090
HOST = b"Host: x\r\n"
SECOND = b"GET /second HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

SERVED = {
    "ordinary": b"GET /first HTTP/1.1\r\n" + HOST + b"\r\n",
    "blanks behind the version": b"GET /first HTTP/1.1  \r\n" + HOST + b"\r\n",
    "a long method": b"AN-UNUSUAL-METHOD-OF-SOME-FORTY-LETTERS /first HTTP/1.1\r\n"
    + HOST
    + b"\r\n",
    "a version of two digits": b"GET /first HTTP/1.19\r\n" + HOST + b"\r\n",
    "bare line feeds": b"GET /first HTTP/1.1\nHost: x\n\n",
    "blank lines before": b"\r\n\r\n\r\n\r\nGET /first HTTP/1.1\r\n" + HOST + b"\r\n",
    "zeros before a chunk's size": b"POST /first HTTP/1.1\r\n"
    + HOST
    + b"Transfer-Encoding: chunked\r\n\r\n"
    + b"0" * 30
    + b"1\r\na\r\n"
    + b"0" * 30
    + b"\r\n\r\n",
    "absolute form": b"GET http://x/first HTTP/1.1\r\n" + HOST + b"\r\n",
}
REFUSED = {
    "no host": b"GET /first HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /first HTTP/1.1\r\n" + HOST + HOST + b"\r\n",
    "a length that is none": b"POST /first HTTP/1.1\r\n" + HOST + b"Content-Length: x\r\n\r\n",
    "two lengths": b"POST /first HTTP/1.1\r\n" + HOST + b"Content-Length: 0\r\n" * 2 + b"\r\n",
    "length and coding": b"POST /first HTTP/1.1\r\n"
    + HOST
    + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "an unknown coding": b"POST /first HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: x\r\n\r\n",
    "a NUL in a value": b"GET /first HTTP/1.1\r\n" + HOST + b"X: \0\r\n\r\n",
    "a host that is none": b"GET /first HTTP/1.1\r\nHost: a b\r\n\r\n",
    "the version of another": b"GET /first HTTP/3.0\r\n" + HOST + b"\r\n",
    "a lower-case method": b"get /first HTTP/1.1\r\n" + HOST + b"\r\n",
    "TRACE": b"TRACE /first HTTP/1.1\r\n" + HOST + b"\r\n",
    "a path above the root": b"GET /../first HTTP/1.1\r\n" + HOST + b"\r\n",
    "a percent sign alone": b"GET /%zz HTTP/1.1\r\n" + HOST + b"\r\n",
    "HTTP/1.0": b"GET /first HTTP/1.0\r\n\r\n",
}


@pytest.fixture(scope="module")
def pages(serve, files):
    """nginx as it comes, with two pages; what it refuses ends the connection."""
    web = files / "pages"
    web.mkdir()
    for name in ("first", "second"):
        (web / name).write_text("a page")
    config = files / "messages.conf"
    config.write_text(f"""
        daemon off; master_process off; worker_processes 1; pid {files}/messages.pid;
        error_log stderr crit;
        events {{ worker_connections 64; }}
        http {{
            access_log off;
            client_body_temp_path {files}/b; proxy_temp_path {files}/p;
            fastcgi_temp_path {files}/f; uwsgi_temp_path {files}/u; scgi_temp_path {files}/s;
            server {{
                listen {PORT}; root {web}; error_page 405 =200 $uri;
            }}
        }}
    """)
    serve("nginx", "-c", str(config), "-p", str(files), port=PORT)


def exchange(sock: socket.socket, data: bytes) -> bytes:
    sock.sendall(data)
    answer = b""
    with suppress(ConnectionError):
        while piece := sock.recv(65536):
            answer += piece
    return answer


@pytest.mark.parametrize("shapes", [SERVED, REFUSED], ids=["served", "refused"])
def test_a_request_is_told_if_nginx_served_it(shapes, client, session, pages):
    for name, shape in shapes.items():
        watch = session.watch()
        with client.connect(V4, PORT) as sock:
            answer = exchange(sock, shape + SECOND)
        flow = watch.flow()
        told = [e["url"].rpartition("/")[2] for e in flow.http if e["type"] == "http.request"]
        second = answer.count(b"HTTP/1.1 200 OK") == 2
        assert second is (shapes is SERVED), name
        assert ("second" in told) is second, name
        if shapes is SERVED:
            assert told == ["first", "second"], name
            outcomes = [e["outcome"] for e in flow.http if e["type"] == "http.end"]
            assert outcomes == ["complete", "complete"], name


def test_curl_goes_on_after_an_expectation_that_failed(client, session, serve_once, files):
    """A 417 to `Expect: 100-continue`: curl asks again on the same connection, without the body."""
    server = files / "server.py"
    server.write_text(EXPECTATION_FAILS)
    serve_once("python3", str(server), port=8091)
    body = files / "body"
    body.write_bytes(bytes(2_000_000))  # curl expects a 100 of its own accord from 1 MB on
    watch = session.watch()
    outcome = client.run(
        *("curl", "-sS", "--data-binary", f"@{body}"),
        *("-w", "%{num_connects}", f"http://{V4}:8091/a"),
    )
    assert (outcome.text, outcome.err) == ("2000000 bytes\n1", "")
    flow = watch.flow()
    ends = [e for e in flow.http if e["type"] == "http.end"]
    statuses = [e["status"] for e in flow.http if e["type"] == "http.response"]
    assert statuses == [417, 200]
    assert [end["request_bytes"] for end in ends] == [0, 2_000_000]
    assert flow.errors == []


EXPECTATION_FAILS = """
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle_expect_100(self):
        self.send_response(417)
        self.send_header("Content-Length", "0")
        self.end_headers()
        return False

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer = b"%d bytes\\n" % len(body)
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass

ThreadingHTTPServer(("", 8091), Handler).serve_forever()
"""


def test_a_page_of_http_0_9_is_one_exchange(client, session, pages):
    watch = session.watch()
    with client.connect(V4, PORT) as sock:
        assert exchange(sock, b"GET /first\r\n") == b"a page"
    flow = watch.flow()
    request, end = flow.http
    assert (request["url"], request["version"]) == (f"http://{V4}:{PORT}/first", "HTTP/0.9")
    assert (end["response_bytes"], end["outcome"]) == (6, "complete")
    assert (flow.stack, flow.errors) == (["http/1"], [])


def test_a_download_that_is_cut_is_told_as_cut(client, session, nginx):
    watch = session.watch()
    with client.connect(V4, 80) as sock:
        sock.sendall(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
        sock.recv(1000)
    end = watch.flow().http[-1]
    assert (end["type"], end["outcome"]) == ("http.end", "cut")
