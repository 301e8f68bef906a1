"""The keys of the live table: what they do to real connections."""

from __future__ import annotations

import os
import pty
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import mitml4
from mitml4.lab.network import LAN, SERVER_V4
from tests.sinks.table.test_live import Screen

from .conftest import HOST, ROOT, SLOW_S, TIMEOUT_S

pytestmark = pytest.mark.usefixtures("nginx")


class Table:
    """`mitml4 intercept` in a terminal."""

    def __init__(self, process, master: int) -> None:
        self.process = process
        self.screen = Screen()
        self._master = master

    def press(self, keys: bytes, *texts: str) -> Screen:
        """Press keys, and wait until the screen has these texts."""
        os.write(self._master, keys)
        return self.wait_for(*texts)

    def wait_for(self, *texts: str) -> Screen:
        deadline = time.monotonic() + SLOW_S
        while not all(text in self.screen.text + self.screen.after for text in texts):
            left = deadline - time.monotonic()
            if not select.select([self._master], [], [], max(0.0, left))[0]:
                pytest.fail(f"waited in vain for {texts}; the screen is:\n{self.screen.text}")
            self.screen.feed(os.read(self._master, 1 << 16))
        return self.screen


@contextmanager
def table(lab, directory, root) -> Iterator[Table]:
    master, slave = pty.openpty()
    argv = ["setsid", "--ctty", "--wait", sys.executable, "-m", "mitml4", "intercept"]
    argv += ["--iface", LAN, "--ca-dir", str(directory / "ca"), "--upstream-ca", str(root)]
    ends = {"stdin": slave, "stdout": slave, "stderr": slave}
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100", "LINES": "24"}
    environment["PYTHONPATH"] = str(ROOT)
    with lab.router.popen(argv, cwd=directory, env=environment, **ends) as process:
        try:
            yield Table(process, master)
        finally:
            process.kill()
            os.close(master)
            os.close(slave)


def test_keys_block_pass_through_and_reset(lab, client, authority, serve, tmp_path) -> None:
    ours, theirs = tmp_path / "ca" / "mitml4-ca.pem", authority.root
    serve("socat", "TCP6-LISTEN:7,fork,reuseaddr,ipv6only=0", "EXEC:cat", port=7)

    def visit(trusted, scheme: str = "https") -> bool:
        argv = ["curl", "-sS", "--max-time", str(TIMEOUT_S), "--cacert", str(trusted)]
        names = [f"{HOST}:{port}:{SERVER_V4}" for port in (80, 443)]
        argv += [part for name in names for part in ("--resolve", name)]
        outcome = client.run(*argv, f"{scheme}://{HOST}/")
        return outcome.out == b"hello from nginx\n"

    with table(lab, tmp_path, theirs) as shown:
        shown.wait_for("waiting for connections")
        assert visit(ours)
        shown.press(b"k", f"{HOST}:443", "200 GET /")
        shown.press(b"\r", "shown to the client")
        shown.press(b"n", f"GET https://{HOST}/")
        shown.press(b"w", "wrote flow-1.jsonl: ")
        shown.press(b"q", "q quit")

        shown.press(b"b", f"{HOST} is blocked from now on")
        assert not visit(ours)
        assert not visit(ours, "http")  # known by the request's Host
        shown.press(b"b", f"{HOST} is allowed from now on")
        assert visit(ours)
        assert visit(ours, "http")

        shown.press(b"p", f"TLS to {HOST} is passed through from now on")
        assert visit(theirs)
        shown.press(b"p", f"TLS to {HOST} is intercepted from now on")
        assert not visit(theirs)  # from now on, this client is passed through
        assert visit(theirs)
        shown.press(b"p", "passed through from now on")
        shown.press(b"p", "intercepted from now on")  # and its refusal is forgotten
        assert visit(ours)

        with client.connect(SERVER_V4, 7) as sock:
            sock.sendall(b"\x00echo")
            assert sock.recv(5) == b"\x00echo"
            shown.press(b"G", f"{SERVER_V4}:7")
            shown.press(b"x", "is reset")
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
        shown.press(b"b", f"{SERVER_V4} is blocked from now on")
        with pytest.raises(ConnectionError):
            client.connect(SERVER_V4, 7)
        shown.press(b"b", f"{SERVER_V4} is allowed from now on")
        shown.press(b"q", "written   flow-1.jsonl", "rules removed")
        assert shown.process.wait(SLOW_S) == 0
    written = tmp_path / "flow-1.jsonl"
    assert (written.stat().st_uid, written.stat().st_mode & 0o777) == (os.geteuid(), 0o600)
    (flow,) = mitml4.read(written)
    assert flow.stack == ("tls", "http/1") or flow.stack == ("tls", "http/2")
    assert {path.name for path in tmp_path.iterdir()} == {"ca", "flow-1.jsonl"}
