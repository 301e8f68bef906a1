"""A flow that floods stops nobody: others are answered meanwhile, and so is Ctrl-C.

How long they wait is measured by `python -m bench.floods`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from bench.floods import FLOODS
from mitml4.lab.network import SERVER_V4
from mitml4.net.netns import NetNamespace

ROOT = Path(__file__).parents[2]
# Each stopped all others for good, or for as long as it lasted.
NAMES = (
    "blank-lines",
    "trailers",
    "tls-tickets",
    "tls-key-updates-up",
    "tls-key-updates-down",
    "tls-bytes-down",
    "head-by-bytes",
)


@pytest.fixture(scope="module")
def where(tmp_path_factory, identity) -> Path:
    """The folder in which floods look for a server's certificate."""
    directory = tmp_path_factory.mktemp("floods")
    shutil.copy(identity.certificate, directory / "server.pem")
    shutil.copy(identity.key, directory / "server.key")
    return directory


@contextmanager
def flooder(namespace: NetNamespace, end: str, name: str, port: int, where: Path) -> Iterator[None]:
    argv = [sys.executable, "-m", "bench.floods.flooder", end, name, "--ip", SERVER_V4]
    argv += ["--port", str(port), "--where", str(where)]
    with namespace.popen(argv, cwd=ROOT, stdin=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.kill()


@pytest.mark.parametrize("name", NAMES)
def test_others_are_answered_and_so_is_ctrl_c(
    lab, client, intercept, nginx, new_port, where, wait_until, name: str
) -> None:
    assert name in {flood.name for flood in FLOODS}
    port = new_port()
    session = intercept("--drain", "0s")

    def is_listening() -> bool:
        with suppress(OSError):
            client.connect(SERVER_V4, port).close()
            return True
        return False

    with flooder(lab.server, "server", name, port, where):
        wait_until(is_listening, "the flood's server listens")
        with flooder(lab.client, "client", name, port, where):
            session.wait_for(
                lambda: (
                    len([f for f in session.flows() if f.opened["destination"]["port"] == port]) > 1
                ),
                "the flood",
            )
            for _ in range(10):
                answer = client.run("curl", "-sS", "--max-time", "10", f"http://{SERVER_V4}/")
                assert answer.text == "hello from nginx\n", answer.err
            assert session.stop() == 0
