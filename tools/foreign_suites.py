"""Run other projects' test suites directly and through `mitml4 run --loopback`, and compare.

    python tools/foreign_suites.py                 all suites
    python tools/foreign_suites.py httpcore h11    only these
    python tools/foreign_suites.py --list

A suite is a project's source distribution from PyPI, with its tests. Files whose tests have another
result through mitml4 are run again, up to twice. Tests that differ every time are printed with the
reason that docs/run.md gives for them, under "Other projects' tests"; the exit code is 1 if one has
none. Each suite is installed into a separate environment, in a temporary directory.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

ROOT: Final = Path(__file__).parent.parent
REASONS: Final = ROOT / "docs" / "run.md"
SUITE_S: Final = 1200.0
"""The time limit of a suite."""
TRIES: Final = 2
_ROW: Final = re.compile(r"\| (?P<suite>[\w.-]+) \| `(?P<tests>[^`]+)` \| (?P<reason>.+) \|")
_ENDS: Final = ("error", "failure", "skipped")


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A project's tests."""

    requirement: str
    needs: tuple[str, ...] = ()
    """The packages that its tests import, as pip names them."""
    tests: tuple[str, ...] = ("tests",)
    options: tuple[str, ...] = ()
    """For pytest."""
    server: str = ""
    """A shell command that runs next to the tests, in the same network."""
    environment: Mapping[str, str] = field(default_factory=dict)
    commands: tuple[str, ...] = ()
    """Programs that must be installed."""
    as_root: bool = True
    """Whether its tests run as root too."""


PYTEST: Final = ("pytest<9", "pytest-timeout")
# Left out: grpcio and hypercorn have no tests in their source distributions; websockets lacks some
# modules that its tests import.
SUITES: Final = {
    "aiohttp": Suite(
        requirement="aiohttp==3.12.15",
        needs=(
            *("aiohttp[speedups]", "blockbuster", "freezegun", "isal", "proxy.py", "pytest-mock"),
            *("pytest-xdist", "pytest-codspeed", "pytest-cov", "re-assert", "setuptools-git"),
            *("time-machine", "trustme", "zlib_ng"),
        ),
        options=("-o", "addopts=", "-p", "no:warnings", "--ignore=tests/autobahn"),
        tests=("tests/test_client_ws_functional.py", "tests/test_web_websocket_functional.py"),
    ),
    "aioftp": Suite(
        requirement="aioftp==0.25.2",
        needs=("async_timeout", "pytest-asyncio", "pytest-mock", "siosocks", "trustme"),
        options=("-o", "addopts=", "-o", "asyncio_mode=auto"),
    ),
    "aiosmtpd": Suite(
        requirement="aiosmtpd==1.4.6",
        # Its tests import pkg_resources, whose warnings end a run from setuptools 80 on.
        needs=(
            "pytest-asyncio",
            "pytest-mock",
            "pytest-print",
            "pytest-profiling",
            "setuptools<80",
        ),
        options=("-o", "addopts="),
        tests=("aiosmtpd/tests",),
    ),
    "asyncpg": Suite(
        requirement="asyncpg==0.30.0",
        needs=("distro",),
        tests=("tests/test_connect.py", "tests/test_execute.py", "tests/test_copy.py"),
        environment={
            "PGINSTALLATION": str(max(Path("/usr/lib/postgresql").glob("*/bin"), default=""))
        },
        commands=("pg_ctlcluster",),
        as_root=False,  # PostgreSQL does not start as root
    ),
    "asyncssh": Suite(
        requirement="asyncssh==2.21.0",
        needs=(
            "bcrypt",
            "fido2<2",
        ),
        tests=("tests/test_forward.py", "tests/test_process.py", "tests/test_stream.py"),
    ),
    "cpython": Suite(
        requirement="libpython3-testsuite",
        # They use loopback only, but ask for the resource. The one left out names its own CA; if
        # its certificate is refused, it leaves a server running that breaks the tests after it.
        options=("-u", "network", "-i", "*.test_stls_context"),
        tests=(
            *("test_httplib", "test_urllib2_localnet", "test_ftplib", "test_smtplib"),
            *("test_imaplib", "test_poplib", "test_socketserver", "test_asyncore"),
        ),
    ),
    "h11": Suite(requirement="h11==0.16.0", tests=("h11/tests",)),
    "httpcore": Suite(
        requirement="httpcore==1.0.9",
        needs=(
            *("anyio", "h2", "pytest-httpbin", "pytest-trio", "socksio", "trio", "trio-typing"),
            "werkzeug<2.1",
        ),
        options=("-o", "addopts="),
    ),
    "httpx": Suite(
        requirement="httpx==0.28.1",
        needs=(
            *("anyio", "brotli", "chardet<6", "cryptography", "h2", "rich", "click<8.2", "socksio"),
            *("trio", "trustme", "uvicorn", "zstandard", "pygments"),
        ),
        options=("-o", "addopts=", "-m", "not network"),
    ),
    "paramiko": Suite(
        requirement="paramiko==3.5.1",
        needs=("icecream", "invoke", "pytest-relaxed"),
        options=("-o", "addopts=", "-p", "no:relaxed"),
        tests=("tests/test_client.py", "tests/test_transport.py", "tests/test_sftp.py"),
    ),
    "pyftpdlib": Suite(
        requirement="pyftpdlib==2.0.1",
        needs=("psutil", "pyopenssl", "setuptools", "pyasyncore", "pyasynchat"),
        tests=("pyftpdlib/test/test_functional.py",),  # the TLS tests sometimes crash pyOpenSSL
    ),
    "redis-py": Suite(
        requirement="redis==5.2.1",
        needs=("pytest-asyncio", "packaging", "uvloop"),
        options=(
            *("-o", "addopts=", "-m", "not onlycluster and not redismod and not ssl"),
            "--redis-url=redis://localhost:16379/0",
        ),
        tests=(
            "tests/test_connection.py",
            "tests/test_connection_pool.py",
            "tests/test_commands.py",
        ),
        server="redis-server --port 16379 --save '' --enable-debug-command yes",
        commands=("redis-server",),
    ),
    "tornado": Suite(
        requirement="tornado==6.5.1",
        tests=(
            *("tornado/test/httpserver_test.py", "tornado/test/httpclient_test.py"),
            *("tornado/test/iostream_test.py", "tornado/test/simple_httpclient_test.py"),
            *("tornado/test/websocket_test.py", "tornado/test/web_test.py"),
            "tornado/test/tcpserver_test.py",
        ),
    ),
    "twisted": Suite(
        requirement="twisted==24.11.0",
        needs=(
            "hypothesis",
            "idna",
            "pyhamcrest",
            "pyopenssl<24.3",
            "service_identity<25",
            "bcrypt",
            "appdirs",
        ),
        tests=(
            *("src/twisted/test/test_tcp.py", "src/twisted/test/test_ssl.py"),
            *("src/twisted/mail/test/test_smtp.py", "src/twisted/web/test/test_http.py"),
        ),
    ),
    "urllib3": Suite(
        requirement="urllib3==2.5.0",
        needs=(
            *("h2", "httpx", "hypercorn", "pysocks", "pytest-socket", "quart", "quart-trio"),
            *("trio", "trustme", "tornado", "zstandard", "brotli", "idna", "pyopenssl"),
        ),
        options=("-o", "addopts=", "-p", "no:warnings", "--timeout=8"),
        tests=(
            "test/with_dummyserver/test_chunked_transfer.py",
            "test/with_dummyserver/test_connectionpool.py",
        ),
    ),
    "waitress": Suite(requirement="waitress==3.0.2", options=("-o", "addopts=")),
}


@dataclass(frozen=True)
class Reason:
    """Why tests have another result, from docs/run.md."""

    suite: str
    tests: str
    text: str


def reasons() -> list[Reason]:
    """The rows of docs/run.md."""
    found = map(_ROW.fullmatch, REASONS.read_text().splitlines())
    return [Reason(row["suite"], row["tests"], row["reason"]) for row in found if row]


class Checkout:
    """An unpacked suite, with a separate environment."""

    def __init__(self, name: str, suite: Suite, work: Path) -> None:
        self.name = name
        self.suite = suite
        self.directory = work / name
        self.report = self.directory / "report.xml"

    def prepare(self) -> None:
        """Raises CalledProcessError if pip cannot install it."""
        if (self.directory / "prepared").exists():
            return
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir()
        self.install()
        (self.directory / "prepared").touch()

    def install(self) -> None:
        requirement = self.suite.requirement
        venv.create(self.directory / "venv")
        pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
        sdists = self.directory / "sdist"
        project = requirement.partition("==")[0].partition("[")[0]
        get = ["download", "--no-deps", "--no-binary", project, "-d", str(sdists), requirement]
        subprocess.run([*pip, *get], check=True)
        (sdist,) = sdists.iterdir()
        subprocess.run(["tar", "-xf", str(sdist), "-C", str(self.directory)], check=True)
        needs = [requirement, *PYTEST, *self.suite.needs]
        python = str(self.directory / "venv" / "bin" / "python")
        subprocess.run([*pip, "--python", python, "install", *needs], check=True)

    @property
    def source(self) -> Path:
        return next(self.directory.glob("*/PKG-INFO")).parent

    def command(self, names: Collection[str]) -> list[str]:
        """The command that runs the suite, or only the files with these tests."""
        files = sorted({self._file(name) for name in names})
        pytest = [
            *("../venv/bin/python", "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *("--timeout=60", f"--junit-xml={self.report}"),
            *(*self.suite.options, *(files or self.suite.tests)),
        ]
        if not self.suite.server:
            return pytest
        beside = f'{self.suite.server} & "$@"; status=$?; kill $!; exit $status'
        return ["sh", "-c", beside, "sh", *pytest]

    def _file(self, name: str) -> str:
        """`tests.test_file.Class::test` → tests/test_file.py"""
        parts = name.partition("::")[0].split(".")
        paths = ("/".join(parts[:end]) + ".py" for end in range(len(parts), 0, -1))
        return next(path for path in paths if (self.source / path).is_file())

    def run(self, prefix: Sequence[str], names: Collection[str] = ()) -> dict[str, str]:
        """The result of each test, by name."""
        self.report.unlink(missing_ok=True)
        environment = os.environ | self.suite.environment
        with (self.directory / "log").open("ab") as log:
            try:
                subprocess.run(
                    [*prefix, *self.command(names)],
                    cwd=self.source,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    timeout=SUITE_S,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                print(f"{self.name}: not done within {SUITE_S:.0f} s")
        return outcomes(self.report)


class CPython(Checkout):
    """Debian's: the tests are in a package for each version, libpython3.11-testsuite."""

    def install(self) -> None:
        version = Path("/usr/bin/python3").resolve().name
        if not Path(f"/usr/lib/{version}/test/test_httplib.py").exists():
            subprocess.run(
                [ROOT / "tools/install-commands", f"=lib{version}-testsuite"], check=True
            )

    @property
    def source(self) -> Path:
        return self.directory

    def command(self, names: Collection[str]) -> list[str]:
        command = ["/usr/bin/python3", "-m", "test", "--junit-xml", str(self.report)]
        command += [*self.suite.options, *self.suite.tests]
        return command + [word for name in names for word in ("-m", name)]


def outcomes(report: Path) -> dict[str, str]:
    """`module.Class::test` → passed, failure, error or skipped, from a JUnit report.

    An expected failure (pytest's xfail) counts as passed.
    """
    if not report.exists():
        return {}
    return {
        f"{case.get('classname', '')}::{case.get('name', '')}".removeprefix("::"): next(
            (end.tag for end in case if end.tag in _ENDS and end.get("type") != "pytest.xfail"),
            "passed",
        )
        for case in ElementTree.parse(report).iter("testcase")
    }


def compare(checkout: Checkout, through: Sequence[str]) -> tuple[int, dict[str, tuple[str, str]]]:
    """The number of tests, and the results that differ: (directly, through mitml4).

    A test differs if at least two results through mitml4 never occur directly.
    """
    plain = {name: {end} for name, end in checkout.run([]).items()}
    inside = {name: [end] for name, end in checkout.run(through).items()}
    names = [name for name in plain if not plain[name].issuperset(inside.get(name, ["missing"]))]
    for _ in range(TRIES if names else 0):
        again, through_again = checkout.run([], names), checkout.run(through, names)
        for name in names:
            plain[name].add(again.get(name, "missing"))
            inside.setdefault(name, ["missing"]).append(through_again.get(name, "missing"))
    others = {name: [end for end in inside[name] if end not in plain[name]] for name in names}
    return len(plain), {
        name: (" or ".join(sorted(plain[name])), others[name][0])
        for name in sorted(names)
        if len(others[name]) > 1
    }


def report(name: str, count: int, differing: dict[str, tuple[str, str]]) -> bool:
    """Print the differences and their reasons; returns whether there are tests, and each difference
    has a reason."""
    known = [reason for reason in reasons() if reason.suite == name]
    unexplained = 0
    if not count:
        print(f"{name}: no test ran (--keep DIR keeps the log)", flush=True)
        return False
    print(f"{name}: {count} tests, {len(differing)} differ", flush=True)
    for test, (plain, inside) in differing.items():
        why = next((one.text for one in known if fnmatch.fnmatchcase(test, one.tests)), None)
        unexplained += why is None
        print(f"  {test}: {plain} plainly, {inside} through mitml4: {why or 'NO REASON KNOWN'}")
    return unexplained == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=", ".join(SUITES))
    parser.add_argument("--list", action="store_true", help="list the suites")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="work here, and keep it")
    parser.add_argument("--mitml4", default="mitml4 run -q --loopback --no-wait --")
    options = parser.parse_args()
    if options.list:
        print(*SUITES, sep="\n")
        return 0
    if unknown := set(options.suites) - SUITES.keys():
        parser.error(f"no such suite: {', '.join(sorted(unknown))}")
    through = options.mitml4.split()
    through[0] = shutil.which(through[0]) or str(Path(sys.executable).parent / through[0])
    work = options.keep or Path(tempfile.mkdtemp(prefix="foreign-suites-"))
    work.mkdir(parents=True, exist_ok=True)
    work.chmod(0o755)
    sound = True
    try:
        for name in options.suites or SUITES:
            suite = SUITES[name]
            if missing := [command for command in suite.commands if not shutil.which(command)]:
                print(f"{name}: left out, without {', '.join(missing)}")
                continue
            if os.geteuid() == 0 and not suite.as_root:
                print(f"{name}: left out, its tests do not run as root")
                continue
            checkout = (CPython if name == "cpython" else Checkout)(name, suite, work)
            checkout.prepare()
            sound &= report(name, *compare(checkout, through))
    finally:
        if not options.keep:
            shutil.rmtree(work, ignore_errors=True)
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
