"""A host (the lab's router) with a resolver of its own and a user without any power, on which
`mitml4 run` runs commands that visit the lab's servers."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mitml4.lab.certificates import LabAuthority
from mitml4.lab.network import ROUTER_WAN_V4, SERVER_V4, SERVER_V6, LabNetwork
from mitml4.lab.snapshot import difference, take_snapshot
from tests.e2e import forked

ROOT = Path(__file__).parents[3]
TIMEOUT_S = 120.0
RESOLVER = "127.0.0.53"
NOBODY = 65534
ADDRESSES = {
    "private": "10.0.0.1",
    "metadata": "169.254.169.254",
    "loopback": "127.0.0.1",
    "router": ROUTER_WAN_V4,
}
"""Of names that begin like this, instead of the server's."""

MOUNTS = "for each in hosts resolv.conf; do mount --bind {files}/$each /etc/$each || exit; done"
# Python takes what it has compiled for outdated if a source has another time.
COPY = ("cp", "-r", "--no-preserve=mode", "--preserve=timestamps")
# The shell in between: setpriv itself executes with what it is about to drop.
AS_NOBODY = (
    *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all"),
    *("sh", "-c", 'exec "$@"', "sh"),
)  # fmt: skip


@dataclass
class Ended:
    """A run of mitml4 that is over."""

    code: int
    out: str
    err: str
    events: list[dict[str, Any]]

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == kind]

    @property
    def stacks(self) -> list[list[str]]:
        return [event["stack"] for event in self.of_type("flow.close")]

    @property
    def notes(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("note: ")]


@dataclass
class Host:
    """Where mitml4 runs."""

    lab: LabNetwork
    files: Path
    root_certificate: Path | None
    """What servers are verified against, besides the system's roots."""
    python: str
    python_path: str
    home: Path
    scratch: Path
    stack: ExitStack = field(default_factory=ExitStack)
    roots: Path | None = None
    """A directory to stand in the place of /etc/ssl/certs."""

    def argv(self, *command: str, options: Sequence[str] = (), root: bool = False) -> list[str]:
        """`mitml4 run` as a command line of this host."""
        who = () if root else AS_NOBODY
        arguments = self.arguments(command, options)
        return self.shell(*who, self.python, "-m", "mitml4", *arguments)

    def arguments(self, command: Sequence[str], options: Sequence[str]) -> list[str]:
        """Those of `mitml4`."""
        roots = ("--upstream-ca", str(self.root_certificate)) if self.root_certificate else ()
        return ["run", *roots, *options, "--", *command]

    def shell(self, *command: str) -> list[str]:
        """Any command line, as this host runs it."""
        unshare = ("unshare", "--mount", "--propagation", "private")
        return [*unshare, "sh", "-c", f'{self.mounts}; exec "$@"', "sh", *command]

    @property
    def mounts(self) -> str:
        mounts = MOUNTS.format(files=self.files)
        if self.roots:
            mounts += f"; mount --bind {self.roots} /etc/ssl/certs || exit"
        return mounts

    @property
    def environ(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin",
            "PYTHONPATH": self.python_path,
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": str(self.home),
            "CURL_HOME": str(self.files),
            "LC_ALL": "C.UTF-8",
        }

    def popen(self, argv: Sequence[str], **settings: Any) -> subprocess.Popen[str]:
        """Start a command line of this host; killed at the end of the test at the latest."""
        settings = {
            "cwd": self.home,
            "env": self.environ,
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "text": True,
        } | settings
        process = self.stack.enter_context(self.lab.router.popen(argv, **settings))
        self.stack.callback(process.kill)
        return process

    def run(
        self,
        *command: str,
        options: Sequence[str] = (),
        root: bool = False,
        stdin: str | None = None,
        env: dict[str, str] | None = None,
    ) -> Ended:
        """Run a command to its end, by a fork, and see to it that nothing is left."""
        before = self.lab.router.call(take_snapshot)
        events = self.scratch / "events.jsonl"
        events.unlink(missing_ok=True)
        process = self.stack.enter_context(
            forked.start(
                self.arguments(command, ("-o", str(events), *options)),
                program=self.python,
                namespace=self.lab.router,
                mounts=self.mounts,
                user=0 if root else NOBODY,
                cwd=self.home,
                env=self.environ | (env or {}),
                stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        )
        self.stack.callback(process.kill)
        out, err = process.communicate(stdin, timeout=TIMEOUT_S)
        assert difference(before, self.lab.router.call(take_snapshot)) == ""
        assert "Traceback" not in err, err
        lines = events.read_text().splitlines() if events.exists() else []
        print(err)
        return Ended(process.returncode, out, err, [json.loads(line) for line in lines])


@dataclass(frozen=True)
class Python:
    """An interpreter that a user without power may run, and where it finds what mitml4 needs."""

    program: str
    path: str

    def works(self) -> bool:
        trial = [*AS_NOBODY, self.program, "-c", "import OpenSSL.SSL, mitml4.session"]
        env = {"PATH": os.environ["PATH"], "PYTHONPATH": self.path}
        try:
            return subprocess.run(trial, env=env, cwd="/", capture_output=True).returncode == 0
        except OSError:
            return False


@pytest.fixture(scope="session")
def python() -> Iterator[Python]:
    minor = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = sysconfig.get_path("purelib")
    with tempfile.TemporaryDirectory(prefix="mitml4-tests-") as copy:
        os.chmod(copy, 0o755)
        for path in (os.pathsep.join((str(ROOT), packages)), copy):
            if path == copy:  # of a checkout that is closed to others
                originals = (str(ROOT / "mitml4"), f"{packages}/.")
                subprocess.run([*COPY, *originals, copy], check=True)
            for program in (sys.executable, f"/usr/bin/{minor}"):
                if (found := Python(program, path)).works():
                    yield found
                    return
    pytest.fail("no interpreter here that a user without power may run")


@pytest.fixture(scope="module")
def host_files(files: Path) -> Path:
    """The host's own hosts and resolv.conf."""
    directory = files / "etc"
    directory.mkdir(exist_ok=True)
    (directory / "hosts").write_text(
        f"127.0.0.1 localhost\n::1 localhost\n{SERVER_V4} byfile.example\n"
    )
    (directory / "resolv.conf").write_text(f"nameserver {RESOLVER}\n")
    # On a busy machine, curl would begin a second connection, which is a flow more.
    (directory / ".curlrc").write_text("happy-eyeballs-timeout-ms = 60000\n")
    return directory


@pytest.fixture(scope="module")
def resolver(lab: LabNetwork) -> Iterator[list[str]]:
    """Answers on the host's loopback, by UDP and TCP: *.example is the server. What was asked."""
    asked: list[str] = []

    def open_sockets() -> tuple[socket.socket, socket.socket]:
        datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagram.bind((RESOLVER, 53))
        return datagram, socket.create_server((RESOLVER, 53))

    datagram, stream = lab.router.call(open_sockets)

    def serve_datagrams() -> None:
        while True:
            query, client = datagram.recvfrom(4096)
            if query == b"stop":
                return
            datagram.sendto(answer(query, asked), client)

    def serve_streams() -> None:
        while True:
            connection, _ = stream.accept()
            with connection:
                query = connection.recv(4096)
                if query == b"stop":
                    return
                told = answer(query[2:], asked)
                connection.sendall(struct.pack("!H", len(told)) + told)

    threads = [threading.Thread(target=each) for each in (serve_datagrams, serve_streams)]
    for thread in threads:
        thread.start()
    yield asked
    with lab.router.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        end.sendto(b"stop", (RESOLVER, 53))
    with lab.router.call(lambda: socket.create_connection((RESOLVER, 53))) as end:
        end.sendall(b"stop")
    for thread in threads:
        thread.join()
    datagram.close()
    stream.close()


def answer(query: bytes, asked: list[str]) -> bytes:
    """NXDOMAIN but for *.example (RFC 1035 §4.1)."""
    at, labels = 12, []
    while length := query[at]:
        labels.append(query[at + 1 : at + 1 + length].decode())
        at += 1 + length
    kind = struct.unpack_from("!H", query, at + 1)[0]
    question = query[12 : at + 5]
    name = ".".join(labels)
    asked.append(name)
    v4 = ADDRESSES.get(labels[0] if labels else "", SERVER_V4)
    data = {1: socket.inet_aton(v4), 28: socket.inet_pton(socket.AF_INET6, SERVER_V6)}
    known = name.endswith(".example")
    rows = data[kind] if known and kind in data else b""
    header = query[:2] + struct.pack("!5H", 0x8180 if known else 0x8183, 1, bool(rows), 0, 0)
    if not rows:
        return header + question
    return header + question + b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 60, len(rows)) + rows


@pytest.fixture
def host(
    lab: LabNetwork,
    authority: LabAuthority,
    python: Python,
    host_files: Path,
    resolver: list[str],
) -> Iterator[Host]:
    with ExitStack() as stack:
        # Not pytest's: it closes its own to other users, whenever another run of it begins.
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mitml4-")))
        place.chmod(0o755)
        root_certificate = place / "root.pem"
        root_certificate.write_bytes(authority.root.read_bytes())
        home = place / "home"
        scratch = place / "scratch"
        for directory in (home, scratch):
            directory.mkdir()
            os.chown(directory, NOBODY, NOBODY)
        found = python.program, python.path
        yield Host(lab, host_files, root_certificate, *found, home, scratch, stack)
