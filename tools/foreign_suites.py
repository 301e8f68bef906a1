"""Run other projects' test suites directly and through `mitml4 run --loopback`, and compare.

    python tools/foreign_suites.py                 all suites
    python tools/foreign_suites.py httpcore h11    only these
    python tools/foreign_suites.py --edit script   with hooks that read all and change nothing
    python tools/foreign_suites.py --edit rules    with rules that may match, and never do
    python tools/foreign_suites.py --list

A suite is a project's source distribution from PyPI, with its tests. Files whose tests have another
result through mitml4 are run again, up to twice. Tests that differ every time are printed with the
reason that docs/run.md gives for them, under "Other projects' tests"; the exit code is 1 if one has
none. Each suite is installed into a separate environment, in a temporary directory.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
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
UNCHANGING: Final = ROOT / "tools" / "unchanging"
EDITS: Final = {
    "script": ("--script", str(UNCHANGING / "identity.py")),
    "rules": ("--rules", str(UNCHANGING / "never.toml")),
}
"""Options with which mitml4 edits each connection, and changes nothing."""
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


PIP: Final = (sys.executable, "-m", "pip", "-q", "--disable-pip-version-check")
PYTEST: Final = ("pytest<9", "pytest-timeout")
# Left out: hypercorn, and those tests of websockets that open connections, are not in the source
# distributions.
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
    # The cases of the Autobahn test suite, which itself needs Python 2.
    "autobahn": Suite(
        requirement="kosoku==0.1.0", needs=("websockets==15.0.1",), tests=("websocket.py",)
    ),
    "cheroot": Suite(
        requirement="cheroot==11.1.2",
        needs=(
            *(
                "jaraco.text",
                "portend",
                "pyopenssl",
                "pytest-mock",
                "requests",
                "requests-toolbelt",
            ),
            *("requests-unixsocket2", "trustme", "urllib3"),
        ),
        options=("-o", "addopts=", "-p", "no:warnings", "-p", "no:threadexception"),
        tests=(
            "cheroot/test/test_conn.py",
            "cheroot/test/test_core.py",
            "cheroot/test/test_ssl.py",
        ),
    ),
    "grpcio": Suite(
        # Debian's source has the tests, and this version of grpcio is the one of that source.
        requirement="grpcio==1.51.1",
        needs=(
            *(
                "grpcio-tools==1.51.1",
                "protobuf<5",
                "coverage",
                "google-auth[requests]",
                "oauth2client",
            ),
            *("grpcio-status==1.51.1", "setuptools<80"),
        ),
        tests=(
            *("tests/interop/_insecure_intraop_test.py", "tests/interop/_secure_intraop_test.py"),
            *("tests/unit/_abort_test.py", "tests/unit/_compression_test.py"),
            *("tests/unit/_channel_close_test.py", "tests/unit/_channel_connectivity_test.py"),
            *("tests/unit/_empty_message_test.py", "tests/unit/_error_message_encoding_test.py"),
            *("tests/unit/_interceptor_test.py", "tests/unit/_invalid_metadata_test.py"),
            *(
                "tests/unit/_invocation_defects_test.py",
                "tests/unit/_metadata_code_details_test.py",
            ),
            *("tests/unit/_metadata_flags_test.py", "tests/unit/_metadata_test.py"),
            *("tests/unit/_reconnect_test.py", "tests/unit/_resource_exhausted_test.py"),
            *("tests/unit/_rpc_part_1_test.py", "tests/unit/_rpc_part_2_test.py"),
            *("tests/unit/_server_shutdown_test.py", "tests/unit/_session_cache_test.py"),
            *("tests_aio/unit/abort_test.py", "tests_aio/unit/call_test.py"),
            *("tests_aio/unit/channel_test.py", "tests_aio/unit/compatibility_test.py"),
            *("tests_aio/unit/compression_test.py", "tests_aio/unit/metadata_test.py"),
            *("tests_aio/unit/server_test.py", "tests_aio/unit/timeout_test.py"),
            *("tests_aio/unit/wait_for_ready_test.py", "tests_aio/unit/secure_call_test.py"),
        ),
    ),
    "h11": Suite(requirement="h11==0.16.0", tests=("h11/tests",)),
    # No test of these opens a connection.
    "h2": Suite(requirement="h2==4.3.0", needs=("hypothesis",), options=("-o", "addopts=")),
    # Those of h2spec, written anew: h2spec is a program in Go, which no registry has.
    "http2-cases": Suite(
        requirement="hypercorn==0.17.3", tests=("http2.py",), commands=("nghttpd", "nginx")
    ),
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
    "uvicorn": Suite(
        requirement="uvicorn[standard]==0.35.0",
        needs=(
            *("a2wsgi", "cryptography", "httpx", "pytest-mock", "trustme", "typing-extensions"),
            *("websockets<15", "wsproto", "anyio", "trio"),
        ),
        options=("-o", "addopts=", "-p", "no:warnings"),
        tests=(
            "tests/protocols",
            "tests/test_main.py",
            "tests/test_server.py",
            "tests/test_ssl.py",
        ),
    ),
    "waitress": Suite(requirement="waitress==3.0.2", options=("-o", "addopts=")),
    "websocket-client": Suite(
        requirement="websocket-client==1.9.0",
        needs=("python-socks", "websockets"),
        options=("-o", "addopts="),
        tests=("websocket/tests",),
        server="LOCAL_WS_SERVER_PORT=8765 ../venv/bin/python websocket/tests/echo-server.py",
        environment={"LOCAL_WS_SERVER_PORT": "8765"},
    ),
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
        sdists = self.directory / "sdist"
        project = requirement.partition("==")[0].partition("[")[0]
        get = ["download", "--no-deps", "--no-binary", project, "-d", str(sdists), requirement]
        subprocess.run([*PIP, *get], check=True)
        (sdist,) = sdists.iterdir()
        subprocess.run(["tar", "-xf", str(sdist), "-C", str(self.directory)], check=True)
        self.install_needs()

    def install_needs(self) -> None:
        venv.create(self.directory / "venv")
        needs = [self.suite.requirement, *PYTEST, *self.suite.needs]
        subprocess.run([*PIP, "--python", str(self.python), "install", *needs], check=True)

    @property
    def python(self) -> Path:
        return self.directory / "venv" / "bin" / "python"

    @property
    def source(self) -> Path:
        return next(self.directory.glob("*/PKG-INFO")).parent

    def command(self, names: Collection[str]) -> list[str]:
        """The command that runs the suite, or only the files with these tests."""
        files = sorted({self._file(name) for name in names})
        pytest = [
            *(str(self.python), "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider"),
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
        return self.results()

    def results(self) -> dict[str, str]:
        return outcomes(self.report)


class Grpc(Checkout):
    """Debian's source package of gRPC: the distribution on PyPI has no tests."""

    def install(self) -> None:
        lists, sources = self.directory / "lists", self.directory / "sources.list"
        (lists / "partial").mkdir(parents=True)
        sources.write_text("deb-src http://deb.debian.org/debian bookworm main\n")
        apt = ["apt-get", "-q", "-o", f"Dir::Etc::SourceList={sources}"]
        apt += ["-o", "Dir::Etc::SourceParts=-", "-o", f"Dir::State::Lists={lists}"]
        subprocess.run([*apt, "update"], check=True, cwd=self.directory)
        subprocess.run([*apt, "source", "--download-only", "grpc"], check=True, cwd=self.directory)
        (archive,) = self.directory.glob("grpc_*.orig.tar.gz")
        subprocess.run(["tar", "-xf", archive.name], check=True, cwd=self.directory)
        self.install_needs()
        for step in (["preprocess"], ["build_package_protos"]):
            subprocess.run([str(self.python), "setup.py", *step], check=True, cwd=self.source)

    @property
    def source(self) -> Path:
        return next(self.directory.glob("grpc-*/src/python/grpcio_tests"))


class Cases(Checkout):
    """Cases that a script in tools/conformance runs. It writes what came of each as JSON: a line
    of text. What begins with `refused:` is compared only up to there, since the servers have
    different codes for the same errors, and may end a stream or the connection (RFC 9113 §5.4.2).
    """

    def install(self) -> None:
        self.install_needs()

    @property
    def source(self) -> Path:
        return self.directory

    def command(self, names: Collection[str]) -> list[str]:
        (script,) = self.suite.tests
        return [
            str(self.python),
            str(ROOT / "tools/conformance" / script),
            str(self.report),
            *names,
        ]

    def results(self) -> dict[str, str]:
        found = json.loads(self.report.read_text()) if self.report.exists() else {}
        return {
            name: "refused" if text.startswith("refused:") else text for name, text in found.items()
        }


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


CHECKOUTS: Final = {
    "autobahn": Cases,
    "cpython": CPython,
    "grpcio": Grpc,
    "http2-cases": Cases,
}


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
    parser.add_argument("--edit", choices=EDITS, help="edit the traffic, and change nothing")
    parser.add_argument("--mitml4", default="mitml4 run -q --loopback --no-wait --")
    options = parser.parse_args()
    if options.list:
        print(*SUITES, sep="\n")
        return 0
    if unknown := set(options.suites) - SUITES.keys():
        parser.error(f"no such suite: {', '.join(sorted(unknown))}")
    through = options.mitml4.split()
    if options.edit:
        through[-1:-1] = EDITS[options.edit]
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
            checkout = CHECKOUTS.get(name, Checkout)(name, suite, work)
            checkout.prepare()
            sound &= report(name, *compare(checkout, through))
    finally:
        if not options.keep:
            shutil.rmtree(work, ignore_errors=True)
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
