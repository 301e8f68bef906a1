"""Run BoringSSL's tests of TLS peers (ssl/test/runner) against tests/tls/shim.py.

    python tools/tls_runner.py                     all tests
    python tools/tls_runner.py 'KeyUpdate*;ALPN*'  only these

The runner is in the source of a package of Debian's. It is written in Go, and built with Debian's
packages alone; all is done in a temporary directory. Tests of what the shim does not have count as
unimplemented; tests/tls/runner.json has those that are left out, with the reasons. The exit code is
1 if a test has failed.

The shim is started once, and forks for each test: Python would take half a second each time.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Final, NoReturn

ROOT: Final = Path(__file__).parent.parent
CONFIG: Final = ROOT / "tests" / "tls" / "runner.json"
PACKAGE: Final = "android-platform-external-boringssl"
GO_SOURCES: Final = Path("/usr/share/gocode/src/golang.org/x")
MODULES: Final = ("crypto", "net", "sys", "term", "text")
TIMEOUT_S: Final = 1800

STARTER: Final = """#!/usr/bin/python3 -ISE
import os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({path!r})
socket.send_fds(server, [b"\\0".join(map(os.fsencode, sys.argv[1:])) + b"\\n"], [0, 1, 2])
code = server.recv(1)
os._exit(code[0] if code else 134)
"""
"""What the runner takes for its shim."""

SOURCES: Final = """Types: deb-src
URIs: http://deb.debian.org/debian
Suites: {codename}
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="mitml4-runner-") as name:
        work = Path(name)
        runner = build(fetch(work), work)
        starter, child = start_shim(work)
        try:
            return run(runner, starter)
        finally:
            os.kill(child, signal.SIGTERM)
            os.waitpid(child, 0)


def fetch(work: Path) -> Path:
    """The directory with the source's go.mod. Apt's own lists stay as they are."""
    parts = work / "apt"
    for directory in ("lists/partial", "cache/archives/partial"):
        (parts / directory).mkdir(parents=True)
    codename = platform.freedesktop_os_release()["VERSION_CODENAME"]
    (parts / "source.sources").write_text(SOURCES.format(codename=codename))
    places = {
        "Dir::Etc::sourcelist": "/dev/null",
        "Dir::Etc::sourceparts": parts,
        "Dir::State::lists": parts / "lists",
        "Dir::Cache": parts / "cache",
        "APT::Sandbox::User": "root",
    }
    apt = ["apt-get", "-q"]
    for key, value in places.items():
        apt += ["-o", f"{key}={value}"]
    subprocess.run([*apt, "update"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(
        [*apt, "source", "--download-only", PACKAGE],
        check=True,
        cwd=work,
        stdout=subprocess.DEVNULL,
    )
    (archive,) = work.glob("*.orig.tar.*")
    subprocess.run(
        ["tar", "xf", archive, "--wildcards", "*/ssl/test/*", "*/util/test*", "*/go.mod"],
        check=True,
        cwd=work,
    )
    (runner,) = work.glob("*/**/ssl/test/runner/runner.go")
    return runner.parents[3]


def build(source: Path, work: Path) -> Path:
    """The program, which runs in its directory. The modules that it needs are Debian's."""
    lines = ["module boringssl.googlesource.com/boringssl", "go 1.13"]
    for module in MODULES:
        copied = work / "x" / module
        shutil.copytree(GO_SOURCES / module, copied)
        (copied / "go.mod").write_text(f"module golang.org/x/{module}\n\ngo 1.13\n")
        lines.append(f"require golang.org/x/{module} v0.0.0")
        lines.append(f"replace golang.org/x/{module} => {copied}")
    (source / "go.mod").write_text("\n\n".join(lines) + "\n")
    runner = source / "ssl" / "test" / "runner" / "runner"
    offline = {"GOFLAGS": "-mod=mod", "GOPROXY": "off", "HOME": str(work)}
    subprocess.run(
        ["go", "test", "-c", "-o", runner, "."],
        check=True,
        cwd=runner.parent,
        env=os.environ | offline,
    )
    return runner


def run(runner: Path, starter: Path) -> int:
    command: list[str | Path] = [runner, "-shim-path", starter, "-shim-config", CONFIG]
    command += ["-resource-dir", runner.parent, "-pipe", "-allow-unimplemented", "-loose-errors"]
    command += ["-num-workers", str(2 * (os.cpu_count() or 1)), "-idle-timeout", "10s"]
    if sys.argv[1:]:
        command += ["-test", sys.argv[1]]
    told = subprocess.run(
        command, cwd=runner.parent, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    results = re.split(r"^(?=(?:PASSED|FAILED|UNIMPLEMENTED) \()", told.stdout, flags=re.MULTILINE)
    counts = Counter(result.split(" ", 1)[0] for result in results[1:])
    print("".join(result for result in results if result.startswith("FAILED")) + told.stderr)
    print(", ".join(f"{count} {what.lower()}" for what, count in sorted(counts.items())))
    return int(bool(counts["FAILED"]) or not counts["PASSED"])


def start_shim(work: Path) -> tuple[Path, int]:
    """The program that stands for the shim, and the process that it asks."""
    path, starter = str(work / "shim.socket"), work / "shim"
    starter.write_text(STARTER.format(path=path))
    starter.chmod(0o755)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    child = os.fork()
    if not child:
        serve(listener)
    listener.close()
    return starter, child


def serve(listener: socket.socket) -> NoReturn:
    sys.path.insert(0, str(ROOT))
    from tests.tls import shim

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        client, _ = listener.accept()
        if os.fork():
            client.close()
            continue
        listener.close()
        data, descriptors, *_ = socket.recv_fds(client, 1 << 16, 3)
        while not data.endswith(b"\n"):
            data += client.recv(1 << 16)
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
        code = 70
        try:
            code = shim.main([os.fsdecode(each) for each in data[:-1].split(b"\0")])
        except SystemExit as error:
            code = int(error.code or 0)
        except BaseException:
            traceback.print_exc()
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
            client.send(bytes([code]))
        os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
