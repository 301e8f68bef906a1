"""Chromium and Firefox trust the session's authority, as a user and as root, with a new profile and
with one that is there, and keep nothing of it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.e2e.conftest import SLOW_S, poll
from tests.e2e.run.conftest import NOBODY

PORT, ECHO_PORT = 9443, 9080
ORIGIN = f"https://www.example:{PORT}"

PAGE = """
<!doctype html><title>a page</title><script>
const hex = bytes => [...bytes].map(each => each.toString(16).padStart(2, "0")).join("");
const echoed = () => new Promise((resolve, reject) => {
    const socket = new WebSocket(location.origin.replace("https", "wss") + "/socket");
    socket.onopen = () => socket.send("hello");
    socket.onmessage = message => { resolve(message.data); socket.close(); };
    socket.onerror = () => resolve("error");
});
const digest = async () => {
    const answer = await fetch("/download");
    return hex(new Uint8Array(await crypto.subtle.digest("SHA-256", await answer.arrayBuffer())));
};
(async () => {
    const report = new URLSearchParams({socket: await echoed(), sha256: await digest()});
    await fetch("/report?" + report);
})();
</script>
"""

ECHO = """
import asyncio, base64, hashlib, sys
async def serve(reader, writer):
    head = await reader.readuntil(b"\\r\\n\\r\\n")
    lines = (line.partition(b": ") for line in head.split(b"\\r\\n"))
    key = next(value for name, _, value in lines if name.lower() == b"sec-websocket-key")
    digest = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    writer.write(b"HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\n"
                 b"Connection: Upgrade\\r\\nSec-WebSocket-Accept: %b\\r\\n\\r\\n"
                 % base64.b64encode(digest))
    opening, length = await reader.readexactly(2)
    mask = await reader.readexactly(4)
    data = await reader.readexactly(length & 127)
    writer.write(bytes([opening, len(data)]) + bytes(b ^ mask[i % 4] for i, b in enumerate(data)))
    await reader.read()
    writer.close()
async def main():
    async with await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1])) as server:
        await server.serve_forever()
asyncio.run(main())
"""


@pytest.fixture(scope="module")
def download(serve, files: Path, identity) -> str:
    """A page over HTTP/2, which downloads a file and speaks to a WebSocket; the file's digest."""
    web = files / "browsers"
    web.mkdir()
    (web / "index.html").write_text(PAGE)
    content = os.urandom(3 << 20)
    (web / "download").write_bytes(content)
    (files / "echo.py").write_text(ECHO)
    config = files / "browsers.conf"
    config.write_text(f"""
        daemon off; master_process off; worker_processes 1; pid {files}/browsers.pid;
        error_log stderr crit;
        events {{ worker_connections 256; }}
        http {{
            access_log off; types {{ text/html html; }}
            client_body_temp_path {files}/body; proxy_temp_path {files}/proxy;
            fastcgi_temp_path {files}/fastcgi; uwsgi_temp_path {files}/uwsgi;
            scgi_temp_path {files}/scgi;
            ssl_certificate {identity.certificate}; ssl_certificate_key {identity.key};
            server {{
                listen {PORT} ssl http2; listen [::]:{PORT} ssl http2; root {web};
                location /report {{ return 204; }}
                location /socket {{
                    proxy_pass http://127.0.0.1:{ECHO_PORT}; proxy_http_version 1.1;
                    proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;
                }}
            }}
        }}
    """)
    serve("/usr/bin/python3", str(files / "echo.py"), str(ECHO_PORT), port=ECHO_PORT)
    serve("nginx", "-c", str(config), "-p", str(files), port=PORT)
    return hashlib.sha256(content).hexdigest()


def argv_of(browser: str, root: bool) -> list[str]:
    if shutil.which(browser) is None:
        pytest.skip(f"only Debian has {browser} as a package")
    if browser == "firefox-esr":
        return ["firefox-esr", "--headless", ORIGIN]
    quiet = ["--headless", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    quiet += ["--disable-component-update", "--disable-sync", "--user-data-dir=profile"]
    # It takes the lab's IPv6 for a local network, which a page that came by IPv4 may not use.
    quiet += ["--disable-features=LocalNetworkAccessChecks"]
    return ["chromium", *quiet, *(["--no-sandbox"] if root else []), ORIGIN]


def visit(host, argv: list[str], root: bool) -> list[dict]:
    """Let a browser load the page, until it has reported or failed to; all events."""
    events = host.scratch / "events.jsonl"
    events.unlink(missing_ok=True)
    log = host.scratch / "log"
    command = host.argv(*argv, options=["-o", str(events)], root=root)
    with log.open("w") as out:
        process = host.popen(command, stdout=out, stderr=subprocess.STDOUT)

    def told() -> list[dict]:
        if not events.exists():
            return []
        lines = events.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def has_reported() -> bool:
        urls = [event["url"] for event in told() if event["type"] == "http.request"]
        refused = [event for event in told() if event["type"] == "error"]
        return any("/report" in url for url in urls) or bool(refused) or process.poll() is not None

    poll(has_reported, f"a report of {argv[0]}")
    process.terminate()
    process.wait(SLOW_S)
    print(log.read_text())
    return told()


def certificates(home: Path) -> list[str]:
    """The labels of what is in the databases below a directory."""
    found = []
    for file in home.rglob("cert9.db"):
        with sqlite3.connect(file) as database:
            found += [str(label) for (label,) in database.execute("SELECT a3 FROM nssPublic")]
        database.close()
    return found


@pytest.mark.parametrize("browser", ["chromium", "firefox-esr"])
def test_a_browser_trusts_us_and_keeps_nothing_of_it(host, download, browser) -> None:
    """As a user with a new profile, and then as root with the same."""
    for root in (False, True):
        if root:  # Firefox refuses another user's
            subprocess.run(["chown", "-R", "0:0", str(host.home)], check=True)
        events = visit(host, argv_of(browser, root), root)
        urls = [each["url"] for each in events if each["type"] == "http.request"]
        (report,) = (url for url in urls if "/report" in url)
        assert parse_qs(urlsplit(report).query) == {"socket": ["hello"], "sha256": [download]}
        stacks = [each["stack"] for each in events if each["type"] == "flow.close"]
        assert ["tls", "http/2"] in stacks
        assert ["tls", "http/1", "websocket"] in stacks
        assert certificates(host.home) == []
        modules = [file.read_text() for file in host.home.rglob("pkcs11.txt")]
        assert len(modules) == 1
        assert "name=mitml4" not in modules[0]


SHARED = ".local/share/pki/nssdb/pkcs11.txt"


def below(home: Path) -> list[str]:
    return [str(path.relative_to(home)) for path in home.rglob("*")]


def test_what_is_made_for_chromium_goes_with_the_last_session_that_needs_it(host) -> None:
    """Also where a session is killed; and what was there before stays."""
    (host.home / ".local").mkdir(mode=0o777)
    os.chown(host.home / ".local", NOBODY, NOBODY)
    show = ["cat", str(host.home / SHARED)]
    assert "name=mitml4" in host.run(*show).out
    assert below(host.home) == [".local"]

    sessions = []
    for _ in range(2):
        process = host.popen(host.argv("sh", "-c", "echo ready; exec sleep 60"))
        assert process.stdout.readline() == "ready\n"
        sessions.append(process)
    first, second = sessions
    first.terminate()
    first.wait(SLOW_S)
    assert SHARED in below(host.home)
    assert "name=mitml4" not in (host.home / SHARED).read_text()
    second.kill()
    second.wait(SLOW_S)
    poll(lambda: below(host.home) == [".local"], "the keeper removes it")


def test_a_home_that_is_closed_or_absent_is_left_alone(host) -> None:
    closed = host.scratch / "closed"
    closed.mkdir(mode=0o700)
    for home in (closed, host.scratch / "absent", Path("relative")):
        assert host.run("true", env={"HOME": str(home)}).code == 0
    assert list(closed.iterdir()) == []


PROGRAM = """#!/bin/sh
cd "$(dirname "$0")" && cat distribution/policies.json && echo
ls && readlink link && echo written > inside/file
"""


@pytest.mark.parametrize("root", [False, True], ids=["user", "root"])
def test_a_program_without_a_place_for_policies_gets_one_and_is_else_as_it_was(host, root) -> None:
    """As Firefox is where it was unpacked from Mozilla's archive."""
    program = host.home / "program"
    (program / "inside").mkdir(parents=True)
    (program / "application.ini").write_text("[App]\n")
    (program / "link").symlink_to("application.ini")
    (program / "firefox").write_text(PROGRAM)
    (program / "firefox").chmod(0o755)
    for path in (program, program / "inside"):
        os.chown(path, NOBODY, NOBODY)
    policies, *shown = host.run(str(program / "firefox"), root=root).out.splitlines()
    certificates = json.loads(policies)["policies"]["Certificates"]["Install"]
    assert certificates
    assert all(Path(each).is_absolute() and not Path(each).exists() for each in certificates)
    names = ["application.ini", "distribution", "firefox", "inside", "link"]
    assert shown == [*names, "application.ini"]
    assert (program / "inside/file").read_text() == "written\n"
    assert not (program / "distribution").exists()
