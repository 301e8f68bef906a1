"""Hooks on the way from clients to servers: each example of docs/hooks.md, and an identity."""

from __future__ import annotations

import json
import re
import shlex
import socketserver
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.server import ServerConnection, serve

from tests.e2e import forked

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "hooks.md").read_text()
EXAMPLES = dict(re.findall(r"\n### ([^\n]+)\n\n```python\n(.*?)```", PAGE, re.DOTALL))
WEBSOCKET_CLIENT = """
import sys
from websockets.sync.client import connect
with connect(sys.argv[1]) as socket:
    socket.send("a cat")
    print(socket.recv())
    socket.send(b"a cat")
    print(socket.recv())
"""
RAW_CLIENT = """
import socket, sys
sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
sock.sendall(b"\\0\\1 a secret\\n")
print(sock.makefile("rb").readline())
"""


class Echo(BaseHTTPRequestHandler):
    """Answers with what it was asked."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        asked = {
            "method": self.command,
            "path": self.path,
            "headers": list(self.headers.items()),
            "body": body.decode(),
        }
        answer = json.dumps(asked).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_GET  # noqa: N815 - the name is http.server's

    def log_message(self, *_: object) -> None:
        """Nothing."""


class RawEcho(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.wfile.write(self.rfile.readline())


@dataclass
class Servers:
    http: int
    raw: int
    websocket: int


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    def echo(connection: ServerConnection) -> None:
        for message in connection:
            connection.send(message)

    with (
        ThreadingHTTPServer(("127.0.0.1", 0), Echo) as http,
        socketserver.ThreadingTCPServer(("127.0.0.1", 0), RawEcho) as raw,
        serve(echo, "127.0.0.1", 0) as websocket,
    ):
        for each in (http, raw, websocket):
            threading.Thread(target=each.serve_forever).start()
        yield Servers(
            http.server_address[1], raw.server_address[1], websocket.socket.getsockname()[1]
        )
        for each in (http, raw, websocket):
            each.shutdown()


@dataclass
class Ran:
    out: str
    err: str
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def asked(self) -> dict[str, Any]:
        """What the server was asked, which it has answered."""
        found: dict[str, Any] = json.loads(self.out[self.out.index("{") :].splitlines()[0])
        return found

    def header(self, name: str) -> list[str]:
        return [value for each, value in self.asked["headers"] if each.lower() == name]

    def hooks(self, kind: str = "rule.applied") -> list[str]:
        return [event["hook"] for event in self.events if event["type"] == kind]


Run = Callable[..., Ran]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def run(script: str, *command: str) -> Ran:
        path, output = tmp_path / "hooks.py", tmp_path / "events.jsonl"
        path.write_text(script)
        options = ["--loopback", "-o", str(output), "--script", str(path)]
        options += ["--script-timeout", "30s"]
        ended = forked.run(["run", *options, "--", *command], cwd=tmp_path)
        print(ended.stderr, ended.stdout)
        assert ended.returncode == 0
        assert "Traceback" not in ended.stderr
        events = [json.loads(line) for line in output.read_text().splitlines()]
        assert not [event for event in events if event["type"] == "script.error"]
        return Ran(ended.stdout, ended.stderr, events)

    return run


def curl(*arguments: str) -> tuple[str, ...]:
    return "curl", "-sS", "-i", "--max-time", "60", *arguments


def headers(run: Run, script: str, servers: Servers) -> None:
    url = f"http://127.0.0.1:{servers.http}/a"
    ran = run(script, *curl("-H", "Accept-Language: en", "-A", "me", url))
    assert ran.header("x-debug") == ["1"]
    assert ran.header("accept-language") == []
    assert "X-Stack: http/1\n" in ran.out
    assert f"note: hooks.py: GET {url} me\n" in ran.err
    assert ran.hooks() == ["hooks.py: request", "hooks.py: response"]


def body(run: Run, script: str, servers: Servers) -> None:
    ran = run(script, *curl(f"http://127.0.0.1:{servers.http}/a"))
    assert ran.asked["edited"] is True
    assert ran.asked["path"] == "/a"


def answer(run: Run, script: str, servers: Servers) -> None:
    ran = run(script, *curl(f"http://127.0.0.1:{servers.http}/health"))
    assert "Cache-Control: no-store" in ran.out
    assert ran.asked == {"status": "up"}


def parts(run: Run, script: str, servers: Servers) -> None:
    url = f"http://127.0.0.1:{servers.http}/a?page=1&x=%20"
    ran = run(script, *curl("-d", "name=ada&name=b&c=", "-b", "a=1", url))
    assert ran.asked["path"] == "/a?page=2&x=+"
    assert ran.asked["body"] == "name=Ada&c="
    assert ran.header("cookie") == ["a=1; seen=yes"]
    assert "Set-Cookie: session=none; Path=/" in ran.out


def elsewhere(run: Run, script: str, servers: Servers) -> None:
    ran = run(script, *curl(f"http://127.0.0.1:{servers.http}/v1/a?b"))
    assert ran.asked["path"] == "/a?b"
    assert ran.header("host") == [f"localhost:{servers.http}"]


def remember(run: Run, script: str, servers: Servers) -> None:
    url = f"http://127.0.0.1:{servers.http}/"
    ran = run(script, *curl("-w", "%{http_code}\n", "-o", "out", *[url] * 3))
    assert ran.out.count("200\n") + ran.out.count("HTTP/1.1 200") >= 2
    assert "429" in ran.out


def some(run: Run, script: str, servers: Servers) -> None:
    base = f"http://127.0.0.1:{servers.http}"
    ran = run(script, *curl(f"{base}/api/a", f"{base}/other"))
    first, second = ran.out.split("HTTP/1.1 200 OK")[1:]
    assert "Cache-Control" in first
    assert "Cache-Control" not in second


def websocket(run: Run, script: str, servers: Servers) -> None:
    url = f"ws://127.0.0.1:{servers.websocket}/"
    ran = run(script, sys.executable, "-c", WEBSOCKET_CLIENT, url)
    assert ran.out.splitlines() == ["a dog", "b'a cat'"]


def other(run: Run, script: str, servers: Servers) -> None:
    ran = run(script, sys.executable, "-c", RAW_CLIENT, str(servers.raw))
    assert ran.out.strip() == repr(b"\0\1 a public\n")


def follow(run: Run, script: str, servers: Servers) -> None:
    ran = run(script, *curl(f"http://127.0.0.1:{servers.http}/"))
    assert f"note: hooks.py: closed 127.0.0.1:{servers.http} ['http/1']" in ran.err
    assert ran.hooks() == []


SHOWN = {
    "Read and set headers": headers,
    "Change a body": body,
    "Answer without asking the server": answer,
    "Query, form and cookies": parts,
    "Send a request to another server": elsewhere,
    "Wait, and remember something of a connection": remember,
    "Only some traffic": some,
    "Messages of a WebSocket": websocket,
    "Other protocols": other,
    "Follow connections": follow,
}


def test_every_example_of_the_page_is_run() -> None:
    assert list(EXAMPLES) == list(SHOWN)
    assert PAGE.count("```python") == len(EXAMPLES)


@pytest.mark.parametrize("name", SHOWN)
def test_an_example_of_the_page_does_what_it_says(run: Run, servers: Servers, name: str) -> None:
    SHOWN[name](run, EXAMPLES[name], servers)


WHO = """
import json, os, re
from pathlib import Path
from mitml4.hooks import Response
status = Path("/proc/self/status").read_text()
links = []  # before trio has its own
for each in os.listdir("/proc/self/fd"):
    try:
        link = os.readlink(f"/proc/self/fd/{each}")
    except FileNotFoundError:  # of the folder, which is closed
        continue
    if "libffi" not in link:  # which ctypes may keep open
        links.append(link.partition(":")[0])
def request(flow, request):
    if request.path == "/exit":
        os._exit(1)
    found = dict(re.findall(r"(Uid|Gid|Groups|CapPrm|CapEff|CapAmb):\\t(.*)", status))
    return Response(200, {}, found | {"links": sorted(links), "home": os.environ["HOME"]})
"""

IDENTITY = """
def request(flow, request):
    request.url, request.text, dict(request.query), dict(request.form), dict(request.cookies)
    request.headers.items(), request.path, request.port, flow.sni, flow.stack
def response(flow, request, response):
    if not response.streams: response.text
    dict(response.cookies), response.headers.items(), response.status_code
def message(flow, message):
    message.text
def data(flow, direction, data):
    return bytes(data)
"""
WAYS = {
    "plain": ("http://www.example", ()),
    "TLS": ("https://www.example", ("--http1.1",)),
    "HTTP/2": ("https://www.example", ("--http2",)),
}
FAILING = """
import time
from mitml4.hooks import Response
def request(flow, request):
    request.headers["X-Never"] = "seen"
    if request.path == "/exit": raise SystemExit
    if request.path == "/loop":
        while True: pass
    if request.path == "/own": return Response(404, {"X-Own": "yes"}, "own")
    if request.path == "/moved": request.path = "/"
    del request.headers["X-Never"]
def response(flow, request, response):
    response.headers["X-Edited"] = "yes"
    if request.path == "/exit": response.status_code = 410
    if request.path == "/": response.text = response.text.upper()
"""


def write(host: Any, text: str) -> str:
    path = host.scratch / "hooks.py"
    path.write_text(text)
    path.chmod(0o644)
    return str(path)


@pytest.mark.parametrize("way", WAYS)
def test_hooks_between_curl_and_nginx(host: Any, nginx: Path, way: str) -> None:
    """Also of a script that loops and exits."""
    url, options = WAYS[way]
    paths = ("", "exit", "loop", "own", "moved")
    script = "\n".join(
        shlex.join(("curl", "-sS", "-i", "--max-time", "50", *options, f"{url}/{path}"))
        + f"; echo; echo == /{path}"
        for path in paths
    )
    # A busy loop takes a core for the five seconds that a script has: once is enough.
    failing = FAILING if way == "plain" else FAILING.replace(": pass", ": time.sleep(1000)")
    ended = host.run("sh", "-c", script, options=("--script", write(host, failing)))
    root, exited, looped, own, moved = ended.out.lower().split("\n== ")[:5]
    assert "hello from nginx" in root
    assert "HELLO FROM NGINX" in ended.out
    assert " 410" in exited
    assert " 404" in looped
    assert "x-own: yes" in own
    assert "hello from nginx" in moved
    # The answer to /loop may come before the script runs again.
    for edited in (root, exited, moved):
        assert "x-edited: yes" in edited
    assert "x-never" not in ended.out.lower()
    errors = [(event["hook"], event["what"]) for event in ended.of_type("script.error")]
    assert errors == [("hooks.py: request", "exception"), ("hooks.py: request", "timeout")]
    versions = {event["version"] for event in ended.of_type("http.request")}
    assert versions == {"HTTP/2" if way == "HTTP/2" else "HTTP/1.1"}


def test_an_identity_changes_no_byte(host: Any, nginx: Path) -> None:
    def visits(way: str) -> str:
        url, options = WAYS[way]
        curl = f"curl -sS --max-time 50 {shlex.join(options)}"
        return f"""
            echo {way}
            {curl} -i {url}/ | grep -v -i ^date
            {curl} {url}/big | sha256sum
            {curl} -T big.up {url}/put/big.{way.replace("/", "")} -w '%{{http_code}}'
            {curl} --compressed -r 0-99 -i {url}/big | grep -v -i ^date | sha256sum
            {curl} -I {url}/big | grep -v -i ^date
        """

    script = "".join(map(visits, WAYS))
    (host.home / "big.up").write_bytes(bytes(range(256)) * 10_000)
    direct = host.run("sh", "-c", script)
    through = host.run("sh", "-c", script, options=("--script", write(host, IDENTITY)))
    assert through.out.replace("204", "201") == direct.out.replace("204", "201")
    assert through.of_type("rule.applied") == [
        event for event in through.of_type("rule.applied") if event["what"] == "unedited"
    ]
    assert through.of_type("script.error") == []


@pytest.mark.parametrize("who", ["a user", "root", "root by sudo"])
def test_a_script_is_its_callers_and_has_nothing_of_the_session(
    host: Any, nginx: Path, who: str
) -> None:
    """Also one that was started again once the session had no privileges."""
    script = "\n".join(f"curl -sS http://www.example/{path}; echo" for path in ("a", "exit", "b"))
    ended = host.run(
        *("sh", "-c", script),
        # Starting it again may take long on a busy machine.
        options=("--script", write(host, WHO), "--script-timeout", "60s"),
        root=who != "a user",
        env={"SUDO_USER": "nobody"} if who == "root by sudo" else None,
    )
    answers = [json.loads(line) for line in ended.out.splitlines() if line.startswith("{")]
    assert len(answers) == 2, ended
    assert "404" in ended.out
    for answer in answers:
        ids = {*answer["Uid"].split(), *answer["Gid"].split()}
        assert ids == {"0" if who == "root" else "65534"}
        if who != "root":
            assert int(answer["CapPrm"], 16) == int(answer["CapAmb"], 16) == 0
        assert answer["links"] == ["/dev/null", "pipe", "pipe", "socket"]


ANSWERING = """
from mitml4.hooks import Response
answers = True
def request(flow, request):
    if request.host == "nowhere.example":
        return Response(418, {}, f"{request.url} {request.headers.get('X-Rule')} {flow.sni}")
"""
RULE = """
[[rule]]
set-request-headers = { "X-Rule" = "first" }
"""


def test_a_hook_answers_for_a_server_that_is_not_there_after_rules(host: Any, nginx: Path) -> None:
    lines, expected = [], []
    for way, (url, options) in WAYS.items():
        nowhere = url.replace("www.example", "nowhere.example:9") + "/a"
        curl = ("curl", "-sS", "--max-time", "50", *options)
        lines += [f"{shlex.join((*curl, each))}; echo" for each in (nowhere, f"{url}/")]
        sni = None if way == "plain" else "nowhere.example"
        expected += [f"{nowhere} first {sni}", "hello from nginx", ""]
    rules = host.scratch / "first.toml"
    rules.write_text(RULE)
    rules.chmod(0o644)
    hooks = ("--script", write(host, ANSWERING), "--rules", str(rules))
    ended = host.run("sh", "-c", "\n".join(lines), options=hooks)
    assert ended.out.split("\n")[:-1] == expected, ended.err
    assert ended.of_type("script.error") == []


def test_no_process_of_a_script_outlives_a_session_that_is_killed(host: Any) -> None:
    pids = host.home / "pids"
    script = f"""
import os
with open({str(pids)!r}, "a") as file: print(os.getpid(), os.getppid(), file=file)

def close(flow):
    while True: pass
"""
    one, other = host.scratch / "one.py", host.scratch / "other.py"
    for each in (one, other):
        each.write_text(script)
        each.chmod(0o644)
    options = ("--script", str(one), "--script", str(other))
    process = host.popen(host.argv("sh", "-c", "echo ready; sleep 1000", options=options))
    assert process.stdout.readline() == "ready\n"
    running = [int(pid) for pid in pids.read_text().split()]
    assert len(running) == 4
    process.kill()
    process.wait()
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in running):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_script_that_cannot_be_used_begins_no_session(host: Any) -> None:
    path = write(host, "def request(flow, request):\n    pass\n1 / 0\n")
    process = host.popen(host.argv("touch", "ran", options=("--script", path)))
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert f"{path}:3: ZeroDivisionError: division by zero" in err
    assert not (host.home / "ran").exists()


def test_a_stream_of_http2_does_not_wait_for_the_hook_of_another(host: Any, nginx: Path) -> None:
    script = """
import trio
fast = trio.Event()
async def request(flow, request):
    if request.path == "/slow":
        await fast.wait()
    else:
        fast.set()
"""
    urls = [f"https://www.example/{path}" for path in ("slow", "")]
    curl = ("curl", "-sS", "--http2", "--parallel", "--max-time", "50")
    hooks = ("--script", write(host, script), "--script-timeout", "40s")
    ended = host.run(*curl, *urls, options=hooks)
    # The two responses may come in either order, and within each other.
    assert "hello from nginx" in ended.out
    assert "404 Not Found" in ended.out
    assert ended.of_type("script.error") == []
    assert ended.stacks == [["tls", "http/2"]]
