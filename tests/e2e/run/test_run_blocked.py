"""`mitml4 run --block`: the same for servers, for the host's own services and for the command's."""

from __future__ import annotations

import http.server
import shlex
import threading
from collections.abc import Iterator

import pytest

from mitml4.lab.network import SERVER_V4

CURL = ("curl", "-4", "--silent", "--show-error", "--max-time", "10", "--output", "/dev/null")
REFUSED, RESET_WHILE_SENDING, RESET, RESET_IN_TLS = 7, 55, 56, 35  # curl(1)
WEB = "http://www.example/"
NOT_WATCHED = "note: {} to this host (127.0.0.1, ::1) {} not watched: add --loopback"

TO_ITSELF = """
import http.server, subprocess, sys, threading
server = http.server.HTTPServer(("", 0), http.server.SimpleHTTPRequestHandler)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://{sys.argv[1]}:{server.server_port}/"
sys.exit(subprocess.run(["curl", "-4", "-sS", "-o", "/dev/null", url]).returncode)
"""

WITHOUT_A_WORD = """
import socket, sys
for name in sys.argv[1:]:
    address = socket.gethostbyname(name)
    try:
        socket.create_connection((address, 80), 10)
        print("connected")
    except OSError as error:
        print(error.strerror)
"""


@pytest.fixture(scope="module")
def service(lab) -> Iterator[int]:
    """An HTTP server on the host's own loopback; its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = lab.router.call(lambda: http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def reasons(ended) -> list[str]:
    return [event["reason"] for event in ended.of_type("flow.close")]


def visit(host, *visits: tuple[str, ...], block: tuple[str, ...] = (), options=()):
    """Run curl for each of these, one after the other: their exit codes, and the run."""
    script = "".join(f"{shlex.join((*CURL, *each))}; echo $?\n" for each in visits)
    blocks = [part for each in block for part in ("--block", each)]
    ended = host.run("sh", "-c", script, options=[*blocks, *options])
    return [int(line) for line in ended.out.split()], ended


def test_the_hosts_own_services_can_be_blocked_whether_watched_or_not(host, service) -> None:
    local = f"http://127.0.0.1:{service}/"
    for block, options in (
        ("127.0.0.1", []),
        ("127.0.0.1", ["--loopback"]),
        (f"127.1:{service}", []),
    ):
        codes, ended = visit(host, (local,), block=(block,), options=options)
        assert (codes, reasons(ended)) == ([REFUSED], ["blocked"])
    asking = ("--header", "Host: a.Blocked.TEST:80", local)
    codes, unwatched = visit(host, asking, (local,), block=("*.blocked.test",))
    assert (codes, unwatched.stacks) == ([RESET, 0], [])
    assert [note.rpartition(" were ")[2].rpartition(" was ")[2] for note in unwatched.notes] == [
        "refused (--block)",
        "not watched: add --loopback",
    ]
    codes, watched = visit(host, asking, block=("*.blocked.test",), options=["--loopback"])
    assert (codes, watched.stacks, reasons(watched)) == ([RESET], [["http/1"]], ["blocked"])
    assert watched.notes == []


def test_servers_of_the_commands_own_can_be_blocked_too(host) -> None:
    for block, code in (("127.0.0.0/8", REFUSED), ("localhost", REFUSED), ("10.0.0.0/8", 0)):
        ended = host.run("python3", "-c", TO_ITSELF, "localhost", options=["--block", block])
        assert ended.code == code, block
        assert reasons(ended) == ["blocked"] * bool(code)
        assert ended.notes == ([] if code else [NOT_WATCHED.format("1 connection", "was")])


def test_connections_to_the_host_that_were_not_watched_are_said(host, service) -> None:
    once, twice = (
        NOT_WATCHED.format(*how) for how in (("1 connection", "was"), ("2 connections", "were"))
    )
    local, nobody = f"http://localhost:{service}/", "http://localhost:1/"
    assert visit(host, (local,), (nobody,))[1].notes == [once]
    assert visit(host, (local,), (local,))[1].notes == [twice]
    assert visit(host, (local,), options=["-q"])[1].notes == []


def test_a_block_by_name_concerns_what_was_found_under_it(host, nginx) -> None:
    refused, connected = "Connection refused", "connected"
    by_file, by_resolver = "byfile.example", ("blocked.example", "other.example", "blocked.example")
    outcomes = {
        "BLOCKED.example.": [connected, refused, connected, refused],
        "blocked.example:25": [connected, connected, connected, connected],
        "byfile.example": [refused, connected, connected, connected],
    }
    for block, expected in outcomes.items():
        names = (by_file, *by_resolver)
        ended = host.run("python3", "-c", WITHOUT_A_WORD, *names, options=["--block", block])
        assert ended.out.splitlines() == expected, block


def test_a_block_by_name_concerns_what_is_asked_for(host, nginx) -> None:
    to_server = ("--insecure", "--connect-to", f"::{SERVER_V4}:")
    over_http_2 = ("https://ok.test/", *to_server, "--header", "Host: blocked.test")
    visits = {
        (WEB, "--header", "Host: blocked.test"): RESET,
        (WEB, "--header", "Host: BLOCKED.test.:8080"): RESET,
        (WEB, "--request-target", "http://user@blocked.test:81/x"): RESET,
        ("http://straße.test/", *to_server): RESET,
        ("http://xn--strae-oqa.test/", *to_server): RESET,
        ("https://straße.test/", *to_server): RESET_IN_TLS,
        over_http_2: RESET,
        ("--http1.1", "https://ok.test/", *to_server, "-H", "Host: blocked.test"): RESET,
        ("https://ok.test/", *to_server): 0,
        (WEB, "--header", "Host: ok.test"): 0,
    }
    codes, ended = visit(host, *visits, block=("blocked.test", "straße.test"))
    outcomes = dict(zip(visits, codes, strict=True))
    if outcomes[over_http_2] == RESET_WHILE_SENDING:
        # It acknowledges the server's settings behind its request: the reset may come before
        # that, as it does from a server that resets by itself.
        outcomes[over_http_2] = RESET
    assert outcomes == visits
    assert reasons(ended) == ["blocked" if code else "closed" for code in codes]
