"""CPython's own tests of its network modules say inside what they say outside.

Debian has them in a package for each version: libpython3.11-testsuite.
"""

from __future__ import annotations

import subprocess
from xml.etree import ElementTree

import pytest

PYTHON = "/usr/bin/python3"
TIMEOUT_S = 120.0

QUICK = (
    *("test.test_httplib.*", "test.test_urllib2_localnet.*", "test.test_smtplib.*"),
    *("*.TestPOP3Class.*", "*.ThreadedNetworkedTests.*", "*.TestFTPClass.*"),
)
CLIENTS = [
    *("test_httplib", "test_urllib2_localnet", "test_smtplib"),
    *("test_poplib", "test_imaplib", "test_ftplib"),
    *(word for pattern in QUICK for word in ("-m", pattern)),
]
SERVERS = ["-u", "network", "test_socketserver"]  # on loopback alone, but it asks
HTTP = ["test_httplib", "test_urllib2_localnet"]

NAME_THEIR_OWN_CA = {
    "test.test_httplib.HTTPSTest.test_local_bad_hostname",
    "test.test_httplib.HTTPSTest.test_local_good_hostname",
    "test.test_urllib2_localnet.TestUrlopen.test_https",
    "test.test_urllib2_localnet.TestUrlopen.test_https_sni",
    "test.test_urllib2_localnet.TestUrlopen.test_https_with_cafile",
}


@pytest.fixture
def cpython(host):
    """`cpython(runs)`: how each test went in each of the runs, which are at the same time. A run is
    its tests and the options inside; None: plainly."""
    modules = ", ".join(f"test.{name}" for name in CLIENTS if name.startswith("test_"))
    trial = host.shell(*as_nobody(host), PYTHON, "-c", f"import {modules}")
    process = host.popen(trial)
    errors = process.communicate(timeout=TIMEOUT_S)[1]
    assert process.returncode == 0, errors

    def start(name: str, tests: list[str], options: list[str] | None) -> subprocess.Popen[str]:
        report = host.home / f"{name}.xml"
        test = ("env", "-u", "PYTHONPATH", f"TMPDIR={host.home}", PYTHON, "-m", "test")
        command = (*test, "--junit-xml", str(report), *tests)
        if options is None:
            return host.popen(host.shell(*as_nobody(host), *command))
        events = ("-o", str(host.scratch / f"{name}.jsonl"))
        return host.popen(host.argv(*command, options=["-q", *events, "--loopback", *options]))

    def run(runs: dict[str, tuple[list[str], list[str] | None]]) -> dict[str, dict[str, str]]:
        processes = [start(name, *how) for name, how in runs.items()]
        for process in processes:
            print(*process.communicate(timeout=TIMEOUT_S))
        return {name: outcomes(host.home / f"{name}.xml") for name in runs}

    return run


def as_nobody(host) -> tuple[str, ...]:
    argv = host.argv("true")
    return tuple(argv[argv.index("setpriv") : argv.index(host.python)])


def outcomes(report) -> dict[str, str]:
    cases = ElementTree.parse(report).iter("testcase")
    return {
        case.get("name", ""): next(
            (part.tag for part in case if part.tag in ("error", "failure", "skipped")), "passed"
        )
        for case in cases
    }


def test_they_say_the_same(cpython) -> None:
    """Those that name their own authority refuse ours, where TLS is opened, and no others do.

    What is learned from a refusal is of no use: a later test may get the port of an earlier one.
    """
    done = cpython(
        {
            "clients": (CLIENTS, None),
            "clients-inside": (CLIENTS, ["--tls", "passthrough"]),
            "opened-inside": (HTTP, ["--on-pinned", "fail"]),
            "servers": (SERVERS, None),
            "servers-inside": (SERVERS, ["--tls", "passthrough"]),
        }
    )
    assert done["clients"]
    assert done["servers"]
    assert done["clients-inside"] == done["clients"]
    assert done["servers-inside"] == done["servers"]
    opened = done["opened-inside"]
    assert {name for name in opened if opened[name] != done["clients"][name]} == NAME_THEIR_OWN_CA
