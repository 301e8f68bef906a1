"""The commands of docs/cookbook.md, as they stand there, on a gateway with real clients behind it.

`sudo` is a stand-in that executes, since these tests are root's. So are `podman`, which names a
process on the client's machine, and the unit nginx.service, which is a cgroup of this name.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mitml4.errors import MitmError
from mitml4.lab.network import LAN, SERVER_V4, LabNetwork
from mitml4.net.rules.cgroups import find_cgroup
from tests.e2e.conftest import ROOT, SLOW_S, Machine, poll
from tests.e2e.run.conftest import Host

HELLO = "hello from nginx\n"
PAGE = (ROOT / "docs/cookbook.md").read_text()
SECTIONS = dict(part.split("\n", 1) for part in PAGE.split("\n## ")[1:])
STAND_INS = {
    "sudo": 'exec "$@"',
    "mitml4": f'exec {sys.executable} -m mitml4 "$@"',
}
CONTAINER = ("unshare", "--mount", "--propagation", "private", "sleep", "600")
CURL = ("curl", "--silent", "--show-error", "--max-time", "10", "--resolve")


class Recipe:
    """The commands of a section. Each has to be taken."""

    def __init__(self, title: str) -> None:
        self.text = SECTIONS[title]
        self._left = re.findall(r"```sh\n(.*?)```", self.text, re.DOTALL)

    def take(self, beginning: str) -> str:
        """The first block that begins so, of those that are left."""
        block = next(block for block in self._left if block.startswith(beginning))
        self._left.remove(block)
        return block

    def __enter__(self) -> Callable[[str], str]:
        return self.take

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        assert kind or not self._left, "no test runs these"


@dataclass
class Desk:
    """Where somebody reads the cookbook: root on the gateway, in a directory of theirs."""

    host: Host
    directory: Path

    def stand_in(self, name: str, script: str) -> None:
        path = self.directory / "bin" / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def write(self, name: str, content: str, mode: int = 0o644) -> None:
        (self.directory / name).write_text(content)
        (self.directory / name).chmod(mode)

    def popen(self, block: str) -> subprocess.Popen[str]:
        environ = self.host.environ | {"HOME": str(self.directory)}
        environ["PATH"] = f"{self.directory}/bin:{environ['PATH']}"
        return self.host.popen(
            self.host.shell("sh", "-ec", block),
            cwd=self.directory,
            env=environ,
            start_new_session=True,
        )

    def run(self, block: str, *, code: int = 0) -> list[str]:
        """Run a command to its end. Gives the lines that it has printed."""
        process = self.popen(block)
        out, err = process.communicate(timeout=SLOW_S)
        assert process.returncode == code, err
        return out.splitlines()

    @contextmanager
    def session(self, block: str) -> Iterator[Path]:
        """A command that is ended with Ctrl-C. Gives its file of events once it is ready."""
        events = self.directory / re.findall(r"-o (\S+)", block)[0]
        process = self.popen(block)
        poll(
            lambda: process.poll() is not None or (events.exists() and events.stat().st_size),
            block,
        )
        yield events
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=SLOW_S)
        assert said.endswith("rules removed\n"), said


@pytest.fixture(scope="module")
def lab(lab_without_ca_page_address: LabNetwork) -> LabNetwork:
    return lab_without_ca_page_address


@pytest.fixture
def desk(host: Host, tmp_path: Path) -> Desk:
    host.roots = tmp_path / "certs"
    host.roots.mkdir()
    (host.roots / "ca-certificates.crt").write_bytes(host.root_certificate.read_bytes())
    (tmp_path / "bin").mkdir()
    desk = Desk(host, tmp_path)
    for name, script in STAND_INS.items():
        desk.stand_in(name, script)
    return desk


@pytest.fixture
def named(host: Host) -> Iterator[Callable[[str], None]]:
    """Gives the interface to the clients another name."""
    now = LAN

    def name(new: str) -> None:
        nonlocal now
        host.lab.router.run("ip", "link", "set", now, "name", new)
        now = new

    yield name
    name(LAN)


def visit(machine: Machine, *options: str) -> str:
    at = f"www.example:443:{SERVER_V4}"
    ended = machine.run(*CURL, at, "--insecure", *options, "https://www.example/")
    assert ended.code == 0, ended.err
    return ended.text


def events_in(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_phone(desk: Desk, named, client, nginx) -> None:
    named("wlan0")
    with Recipe("A phone on a hotspot") as take:
        with desk.session(take("sudo mitml4 intercept --iface wlan0 -o phone.jsonl")):
            assert "certificate" in client.run("curl", "-s", "http://192.0.2.1/").text
            assert visit(client) == HELLO
            refused = client.run(*CURL, f"www.example:443:{SERVER_V4}", "https://www.example/")
            assert refused.code == 60
            assert visit(client) == HELLO
        said = [" ".join(line.split()) for line in desk.run(take("jq"))]
        assert said[0] == "3 www.example"
        assert {"1 tls › http/2", "2 tls", "GET http://192.0.2.1/"} < set(said)
        assert said[-1] == "GET https://www.example/"
        assert any("pinned" in line for line in desk.run(take("jq")))
        with desk.session(take("sudo mitml4 intercept")) as events:
            client.run(*CURL, f"www.example:443:{SERVER_V4}", "https://www.example/")
            poll(lambda: "client.probe" in events.read_text(), "the outcome of a probe")


def test_a_gateway_of_wireguard(desk: Desk, named, client, nginx) -> None:
    """By an interface of its name. What leaves the tunnel is the same."""
    named("wg0")
    with Recipe("A WireGuard gateway") as take:
        with desk.session(take("sudo mitml4 intercept")):
            assert visit(client) == HELLO
        (line,) = desk.run(take("jq"))
        assert re.fullmatch(r"t13d\w+ www.example", line)


def test_a_container(desk: Desk, client, nginx) -> None:
    with Recipe("A container") as take, client.namespace.popen(CONTAINER) as program:
        state = {"Pid": program.pid, "Status": "running"}
        desk.stand_in("docker", "exit 1")  # this host's may have a container of this name
        desk.stand_in("podman", f"echo '{json.dumps([{'Name': 'web', 'State': state}])}'")
        with desk.session(take("sudo mitml4 intercept")):
            assert visit(client) == HELLO
        program.kill()
        assert desk.run(take("jq")) == [HELLO.strip(), ""]


@pytest.fixture
def unit() -> Iterator[Path]:
    """The cgroup nginx.service."""
    try:
        find_cgroup("/gone")
    except MitmError as error:
        if "there is no cgroup" not in error.message:
            pytest.skip(error.message)
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    directory = Path(
        next(row.split()[4] for row in mounts if " - cgroup2 " in row), "nginx.service"
    )
    try:
        directory.mkdir()
    except OSError as error:
        pytest.skip(f"{directory}: {error}")
    yield directory
    poll(lambda: not (directory / "cgroup.procs").read_text(), "its programs have ended")
    directory.rmdir()


def test_a_service(desk: Desk, nginx, unit: Path) -> None:
    with Recipe("A service under systemd") as take:
        install = take("sudo mitml4 ca generate")
        planned = desk.run(install.replace("ca install", "ca install --dry-run"))
        assert any("system" in line for line in planned)
        with desk.session(take("sudo mitml4 intercept")):
            desk.run(f"echo 0 > {unit}/cgroup.procs; curl -4sk https://www.example/")
        assert set(desk.run(take("jq"))) == {f"curl {SERVER_V4}:443"}
        desk.run(take("sudo mitml4 ca uninstall"))


def test_a_bridge(desk: Desk, named, client, nginx) -> None:
    named("virbr0")
    with Recipe("A virtual machine's bridge") as take:
        with desk.session(take("sudo mitml4 intercept")):
            assert visit(client) == HELLO
        events = [json.loads(line) for line in desk.run(take("mitml4 detect"))]
        assert "https://www.example/" in {event.get("url") for event in events}


def test_a_build(desk: Desk, nginx) -> None:
    visits = "\tcurl -sS https://www.example/ -o /dev/null\n\t-curl -sS $(MORE)\n"
    desk.write("Makefile", f"all:\n{visits}")
    with Recipe("A build that may talk to these hosts only") as take:
        build, check = take("mitml4 run"), take("jq -e")
        desk.run(build)
        assert desk.run(check) == ["true"]
        desk.run(f"export MORE=https://tracker.example/; {build}")
        assert desk.run(check, code=1) == ["false"]
        assert desk.run(take("jq")) == ["tracker.example"]


def test_an_agent(desk: Desk, nginx) -> None:
    asks = ["http://api.example/", "-X DELETE http://api.example/", "https://www.example/ || true"]
    desk.write("agent", "\n".join(["#!/bin/sh", *(f"curl -sS {each}" for each in asks)]), 0o755)
    recipe = Recipe("A sandbox for an agent")
    with recipe as take:
        said = desk.run(take("mitml4 run"))
        assert said[0] == HELLO.strip()
        assert "405 Not Allowed" in "".join(said)
        events = events_in(desk.directory / "agent.jsonl")
        refused = {event["name"] for event in events if event["type"] == "dns.refused"}
        assert refused == {"www.example"}
        assert HELLO in {event.get("text") for event in events}
        (rules,) = re.findall(r"```toml\n(.*?)```", recipe.text, re.DOTALL)
        desk.write("agent.toml", rules)
        assert desk.run(take("mitml4 rules check"))[-1].endswith("not from here")


def test_a_capture(desk: Desk, client, nginx) -> None:
    capture, keys = desk.directory / "capture.pcap", desk.directory / "keys.txt"
    tcpdump = ("tcpdump", "-i", LAN, "-U", "-Z", "root", "-w", str(capture), "tcp")
    with desk.host.lab.router.popen(tcpdump, stderr=subprocess.DEVNULL) as process:
        poll(lambda: capture.exists() and capture.stat().st_size, "tcpdump captures")
        environ = {"PATH": os.environ["PATH"], "SSLKEYLOGFILE": str(keys)}
        at = f"www.example:444:{SERVER_V4}"
        client.run(*CURL, at, "--insecure", "https://www.example:444/", env=environ)
        poll(lambda: capture.read_bytes().count(b"www.example"), "the hello")
        process.send_signal(signal.SIGINT)
    with Recipe("A capture from somebody else") as take:
        plain, with_keys = take("mitml4 detect").splitlines()
        assert '"stack":["tls"]' in "".join(desk.run(plain))
        assert '"stack":["tls","http/1"]' in "".join(desk.run(with_keys))
        desk.run(take("mitml4 detect"))
        assert desk.run(take("mitml4 detect")) == ['["www.example","TLSv1.2"]']
        desk.run(take("mitml4 view"))
        assert "www.example" in (desk.directory / "capture.html").read_text()


def test_every_recipe_is_tried() -> None:
    tried = re.findall(r'Recipe\("(.*?)"\)', Path(__file__).read_text())
    assert sorted(tried) == sorted(SECTIONS)
