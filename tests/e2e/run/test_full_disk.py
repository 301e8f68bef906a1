"""What cannot be written is said, whatever `-q`, shows in the exit code, and leaves what opens."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

import mitml4

CURL = "curl -sS -o /dev/null --http1.1 -H 'Connection: close'"
VISITS = f"{CURL} 'https://www.example/?[1-12]'; echo done"  # a connection each
OPTIONS = {
    "-o": "events.jsonl",
    "-w": "packets.pcapng",
    "--har": "exchanges.har",
    "--pcap-plain": "plain.pcap",
    "--keylog": "k",
}


@dataclass
class Written:
    """A run whose files were on a separate disk, and what is left of them."""

    code: int
    out: str
    err: str
    files: Path

    def assert_whole(self, *options: str) -> None:
        for option in options:
            path = self.files / OPTIONS[option]
            if option == "--har":
                assert json.loads(path.read_bytes())["log"]["version"] == "1.2"
            elif option in ("-w", "--pcap-plain"):
                list(mitml4.read(path))  # raises where it is broken
            else:
                content = path.read_bytes()
                assert content.endswith(b"\n")
                for line in content.splitlines():
                    assert json.loads(line) if option == "-o" else len(line.split()) == 3

    def assert_said(self, *options: str, reason: str) -> None:
        for option in options:
            assert f"disk/{OPTIONS[option]}: {reason}\nhint: " in self.err
        assert self.err.count("error: ") == len(options)
        assert "Traceback" not in self.err


@pytest.fixture
def run(host, nginx):
    """`run(command, options, …)`: `mitml4 run -q` as root, its files on a small disk."""

    def run(
        command: str,
        *options: str,
        others: Sequence[str] = (),
        prepare: str = ":",
        size: str = "16k",
    ) -> Written:
        disk, kept = host.scratch / "disk", host.scratch / "kept"
        for directory in (disk, kept):
            directory.mkdir(exist_ok=True)
        named = [part for each in options for part in (each, str(disk / OPTIONS[each]))]
        argv = host.argv("sh", "-c", command, options=("-q", *others, *named), root=True)
        place = f"mount -t tmpfs -o size={size} tiny {disk}; {prepare}"
        whole = f"{place}; {shlex.join(argv)}; code=$?; cp {disk}/* {kept}; exit $code"
        process = host.popen(["unshare", "--mount", "sh", "-c", whole])
        out, err = process.communicate(timeout=60)
        print(err)
        return Written(process.returncode, out, err, kept)

    return run


# Each of the others alone is a test of intercept's (test_outputs.py).
@pytest.mark.parametrize("options", [("-o",), ("--pcap-plain",), tuple(OPTIONS)])
def test_a_disk_that_fills_up_is_said_and_what_is_there_opens(run, options) -> None:
    ended = run(VISITS, *options, size="4k" if len(options) == 1 else "20k")
    assert (ended.code, ended.out) == (1, "done\n")
    ended.assert_said(*options, reason="No space left on device")
    ended.assert_whole(*options)


def test_the_commands_own_failure_comes_first(run) -> None:
    ended = run(f"{VISITS}; exit 7", "-o", size="4k")
    assert ended.code == 7
    ended.assert_said("-o", reason="No space left on device")


@pytest.mark.parametrize("option", ["-w", "--har", "--pcap-plain"])
def test_a_file_that_cannot_be_begun_is_said_before_the_command_runs(run, option: str) -> None:
    ended = run("echo ran", option, prepare='head -c 16k /dev/zero >"$PWD"/../scratch/disk/x')
    assert (ended.code, ended.out) == (1, "")
    assert not (ended.files / OPTIONS[option]).exists()
    assert "No space left on device" in ended.err


def test_a_limit_on_the_size_of_files_is_said_as_such(run) -> None:
    limit = "ulimit -f 8"  # blocks of 512 bytes
    ended = run("echo ran", prepare=limit)
    assert (ended.code, ended.out) == (3, "")
    assert "its certificates: File too large\nhint: ulimit -f\n" in ended.err
    visits = VISITS.replace("curl", "curl -k")
    ended = run(visits, *OPTIONS, others=["--no-trust"], prepare=limit, size="10m")
    assert (ended.code, ended.out) == (1, "done\n")
    ended.assert_said(*OPTIONS, reason="File too large")
    assert ended.err.count("hint: ulimit -f") == len(OPTIONS)
    ended.assert_whole(*OPTIONS)


def test_a_file_that_is_removed_while_it_is_written_is_said(run, host) -> None:
    ended = run(f"{VISITS}; rm {host.scratch}/disk/*", *OPTIONS, size="10m")
    assert ended.code == 1
    ended.assert_said(*OPTIONS, reason="it was removed while it was being written")
