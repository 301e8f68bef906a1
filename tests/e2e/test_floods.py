"""A flow that floods stops nobody: others are answered meanwhile, and so is Ctrl-C.

How long they wait is measured by `python -m bench.floods`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from bench.floods import FLOODS
from mitml4.lab.network import SERVER_V4
from mitml4.net.netns import NetNamespace

ROOT = Path(__file__).parents[2]
# Each stopped all others, until it ended or longer.
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


@pytest.fixture
def flooded(lab, client, new_port, where, wait_until) -> Iterator[Callable]:
    """A flood, between its two ends, once there is a session: it returns the server's port."""
    with ExitStack() as stack:

        def begin(name: str) -> int:
            assert name in {flood.name for flood in FLOODS}
            port = new_port()
            stack.enter_context(flooder(lab.server, "server", name, port, where))

            def is_listening() -> bool:
                with suppress(OSError):
                    client.connect(SERVER_V4, port).close()
                    return True
                return False

            wait_until(is_listening, "the flood's server listens")
            stack.enter_context(flooder(lab.client, "client", name, port, where))
            return port

        yield begin


def flows_to(session, port: int) -> int:
    return sum(flow.opened["destination"]["port"] == port for flow in session.flows())


@pytest.mark.parametrize("name", NAMES)
def test_others_are_answered_and_so_is_ctrl_c(client, intercept, nginx, flooded, name: str) -> None:
    session = intercept("--drain", "0s")
    port = flooded(name)
    session.wait_for(lambda: flows_to(session, port) > 1, "the flood")
    for _ in range(4):
        answer = client.run("curl", "-sS", "--max-time", "10", f"http://{SERVER_V4}/")
        assert answer.text == "hello from nginx\n", answer.err
    assert session.stop() == 0


@pytest.fixture
def each_syn_once(client) -> Iterator[None]:
    """What the client sends to nginx again, because no answer has come, is dropped."""
    syn = "tcp dport 80 tcp flags & (syn | ack) == syn"
    rules = f"""
        table inet once {{
            set sent {{ type inet_service; flags dynamic; }}
            chain output {{
                type filter hook output priority 0;
                {syn} tcp sport @sent drop
                {syn} add @sent {{ tcp sport }}
            }}
        }}
    """
    client.namespace.run("nft", "-f", "-", input=rules)
    yield
    client.namespace.run("nft", "delete", "table", "inet", "once")


@pytest.mark.usefixtures("nginx", "each_syn_once")
def test_the_first_packets_of_others_are_not_lost_in_a_flood_of_connections(
    client, intercept, flooded
) -> None:
    """Else they would wait for their retransmission, a second and more. How late they are answered
    is up to the machine."""

    def is_lost(_: int) -> bool:
        try:
            client.connect(SERVER_V4, 80).close()
        except TimeoutError:
            return True
        return False

    session = intercept("--drain", "0s")
    port = flooded("connections-at-once")
    session.wait_for(lambda: flows_to(session, port) > 500, "the flood")
    with ThreadPoolExecutor(20) as workers:
        lost = sum(workers.map(is_lost, range(20)))
    assert lost < 10
    assert session.stop() == 0
