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
    """`cpython(tests, options)`: how each test went, inside with these options; None: plainly."""
    modules = ", ".join(f"test.{name}" for name in CLIENTS if name.startswith("test_"))
    trial = host.shell(*as_nobody(host), PYTHON, "-c", f"import {modules}")
    process = host.popen(trial)
    errors = process.communicate(timeout=TIMEOUT_S)[1]
    assert process.returncode == 0, errors

    def start(tests: list[str], options: list[str] | None) -> subprocess.Popen[str]:
        name = "plain" if options is None else "inside"
        where = host.home / name
        test = ("env", "-u", "PYTHONPATH", f"TMPDIR={host.home}", PYTHON, "-m", "test")
        command = (*test, "--junit-xml", str(where), *tests)
        if options is None:
            return host.popen(host.shell(*as_nobody(host), *command))
        events = ("-o", str(host.scratch / "events.jsonl"))
        return host.popen(host.argv(*command, options=["-q", *events, "--loopback", *options]))

    def compare(tests: list[str], options: list[str]) -> tuple[dict[str, str], dict[str, str]]:
        processes = [start(tests, None), start(tests, options)]
        for process in processes:
            print(*process.communicate(timeout=TIMEOUT_S))
        return outcomes(host.home / "plain"), outcomes(host.home / "inside")

    return compare


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


@pytest.mark.parametrize("tests", [CLIENTS, SERVERS], ids=["clients", "servers"])
def test_they_say_the_same(cpython, tests: list[str]) -> None:
    plain, inside = cpython(tests, ["--tls", "passthrough"])
    assert plain
    assert inside == plain


def test_where_tls_is_opened_those_that_name_their_own_authority_refuse_it(cpython) -> None:
    """Without what is learned from refusals: a later test may get the port of an earlier one."""
    plain, inside = cpython(HTTP, ["--on-pinned", "fail"])
    assert {name for name in plain if inside[name] != plain[name]} == NAME_THEIR_OWN_CA
