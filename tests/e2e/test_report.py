"""The report of a session in a browser: what was seen is there, and nothing of it runs."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest

SLOW_S = 60


@pytest.fixture
def trap() -> Iterator[socket.socket]:
    """A listener to which markup of a hostile name would connect."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener


def test_a_report_opens_in_a_browser_and_runs_nothing(
    write_capture, tmp_path: Path, trap: socket.socket
) -> None:
    if shutil.which("chromium") is None:
        pytest.skip("only Debian has chromium as a package")
    url = f"http://127.0.0.1:{trap.getsockname()[1]}/"
    attack = f"<script>document.title='owned'</script><img src={url} onerror=alert(1)>"
    path = f"/<svg/onload=fetch('{url}')>".encode()
    body = json.dumps({"name": attack}).encode()
    capture = write_capture(
        [
            ("up", b"GET %s HTTP/1.1\r\nHost: good.example\r\nX: %s\r\n\r\n"
                   % (path.replace(b" ", b"+"), attack.encode())),
            ("down", b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%s"
                     % (len(body), body)),
        ],
        [("up", b"SSH-2.0-%s\r\n" % attack.encode()), ("down", b"SSH-2.0-y\r\n")],
    )  # fmt: skip
    events, report = tmp_path / "events.jsonl", tmp_path / "report.html"
    mitml4 = [sys.executable, "-m", "mitml4"]
    with events.open("wb") as output:
        argv = [*mitml4, "detect", "--headers", "--payload", str(capture)]
        subprocess.run(argv, check=True, stdout=output, timeout=SLOW_S)
    subprocess.run([*mitml4, "view", str(events), "--html", str(report)], check=True)
    browser = [
        *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
        *("--disable-background-networking", f"--user-data-dir={tmp_path / 'profile'}"),
        *("--dump-dom", f"file://{report}"),
    ]
    shown = subprocess.run(browser, check=True, capture_output=True, text=True, timeout=SLOW_S)
    page = shown.stdout
    assert "<title>events.jsonl – mitml4</title>" in page
    for element in ("<script", "<img", "<svg"):
        assert element not in page
    assert page.count("<details") == 2
    assert attack in unescape(page)
    assert "good.example:80" in page
    with pytest.raises(BlockingIOError):
        trap.accept()
