"""A suite on disk: installed, run, and its results read."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from foreign.suites import Suite

__all__ = ["CHECKOUTS", "Checkout"]

ROOT: Final = Path(__file__).parents[2]
SUITE_S: Final = 1200.0
"""The time limit of a suite."""
PIP: Final = (sys.executable, "-m", "pip", "-q", "--disable-pip-version-check")
PYTEST: Final = ("pytest<9", "pytest-timeout")
_ENDS: Final = ("error", "failure", "skipped")


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
        """The command that runs the suite, or only these tests, with all their parameters."""
        nodes = sorted({self._node(name) for name in names})
        pytest = [
            *(str(self.python), "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            # Not with source lines, which it cannot always read (python/cpython#106905).
            *("--timeout=60", "--tb=native", f"--junit-xml={self.report}"),
            *(*self.suite.options, *(nodes or self.suite.tests)),
        ]
        if not self.suite.server:
            return pytest
        beside = f'{self.suite.server} & "$@"; status=$?; kill $!; exit $status'
        return ["sh", "-c", beside, "sh", *pytest]

    def _node(self, name: str) -> str:
        """`tests.test_file.Class::test[a]` → tests/test_file.py::Class::test"""
        module, _, test = name.partition("::")
        parts = module.split(".")
        for end in range(len(parts), 0, -1):
            path = "/".join(parts[:end]) + ".py"
            if (self.source / path).is_file():
                return "::".join(filter(None, (path, *parts[end:], test.partition("[")[0])))
        raise LookupError(name)

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


class Debian(Checkout):
    """Debian's source package: the distribution on PyPI has no tests, or not those with sockets."""

    def install(self) -> None:
        lists, sources = self.directory / "lists", self.directory / "sources.list"
        (lists / "partial").mkdir(parents=True)
        _, release = self.suite.debian.split("/")
        sources.write_text(f"deb-src http://deb.debian.org/debian {release} main\n")
        apt = ["apt-get", "-q", "-o", f"Dir::Etc::SourceList={sources}"]
        apt += ["-o", "Dir::Etc::SourceParts=-", "-o", f"Dir::State::Lists={lists}"]
        get = [*apt, "source", "--tar-only", "--download-only", self.suite.debian]
        for command in ([*apt, "update"], get):
            subprocess.run(command, check=True, cwd=self.directory)
        (archive,) = self.directory.glob("*.orig.tar.gz")
        subprocess.run(["tar", "-xf", archive.name], check=True, cwd=self.directory)
        self.install_needs()

    @property
    def source(self) -> Path:
        return next(self.directory.glob("*/setup.py")).parent


class Grpc(Debian):
    """Its tests are a part of it, and are built."""

    def install(self) -> None:
        super().install()
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
    "websockets": Debian,
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
