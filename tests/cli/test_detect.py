"""`mitml4 detect` as its users call it."""

from __future__ import annotations

import json
import os
import pty
import re
import resource
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from rich.cells import cell_len

from bench.synthesis import synthesise
from mitml4.capture.sharing import Part
from mitml4.cli import capture_reading
from mitml4.cli.main import run
from mitml4.errors import CaptureError
from mitml4.printable import printable
from mitml4.schema import json_schema
from mitml4.session.detect import CaptureOutcome, CaptureSession
from tests import programs
from tests.capture.conftest import Blocks
from tests.programs import PIPE, Program

Send = Callable[[bytes | int], object]


def segment(source: int, destination: int, seq: int, ack: int, flags: int, data: bytes) -> bytes:
    """An IPv4 packet between 192.0.2.1 and 192.0.2.2, in a pcap record."""
    ends = (b"\xc0\0\2\1", b"\xc0\0\2\2")
    ends = ends if source > destination else ends[::-1]
    tcp = struct.pack("!HHIIBBHHH", source, destination, seq, ack, 0x50, flags, 65535, 0, 0)
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 40 + len(data), 0, 0, 64, 6, 0) + b"".join(ends)
    packet = ip + tcp + data
    return struct.pack("<IIII", 1_700_000_000, 0, len(packet), len(packet)) + packet


def capture(*records: bytes) -> bytes:
    link_type_raw = 101
    return struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, link_type_raw) + b"".join(records)


REQUEST = b"GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
def http(tmp_path: Path) -> Path:
    """A capture of one HTTP exchange."""
    client, server, syn, ack, fin = 40000, 80, 2, 16, 17
    path = tmp_path / "http.pcap"
    path.write_bytes(
        capture(
            segment(client, server, 1, 0, syn, b""),
            segment(server, client, 1, 2, syn | ack, b""),
            segment(client, server, 2, 2, ack, REQUEST),
            segment(server, client, 2, 2 + len(REQUEST), ack, ANSWER),
            segment(client, server, 2 + len(REQUEST), 2 + len(ANSWER), fin, b""),
            segment(server, client, 2 + len(ANSWER), 3 + len(REQUEST), fin, b""),
        )
    )
    return path


def detect(*arguments: str, data: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    return programs.run(["-m", "mitml4", "detect", *arguments], input=data)


def events(output: bytes) -> list[dict]:
    return [json.loads(line) for line in output.splitlines()]


def test_a_capture_gives_the_events_of_live_traffic(http: Path) -> None:
    outcome = detect(str(http))
    told = events(outcome.stdout)
    assert [event["type"] for event in told] == [
        "session.start",
        "flow.open",
        "flow.layer",
        "http.request",
        "http.response",
        "http.end",
        "flow.close",
        "session.stop",
    ]
    schema = jsonschema_rs.Draft202012Validator(json_schema())
    for event in told:
        schema.validate(event)
    close = told[-2]
    assert (close["stack"], close["reason"]) == (["http/1"], "closed")
    assert (close["bytes_up"], close["bytes_down"]) == (len(REQUEST), len(ANSWER))
    assert told[3]["url"] == "http://a.example/x"
    assert told[1]["time"].startswith("2023-11-14T22:13:20")
    assert (outcome.returncode, outcome.stderr) == (0, b"")


def test_a_capture_is_read_without_what_only_live_sessions_need(http: Path) -> None:
    program = (
        "import runpy, sys\n"
        "try: runpy.run_module('mitml4', run_name='__main__')\n"
        "finally: print(*{'asyncio', 'ssl', 'trio'} & {*sys.modules}, file=sys.stderr)"
    )
    argv = [sys.executable, "-c", program, "detect", str(http)]
    assert subprocess.run(argv, capture_output=True, text=True, check=True).stderr.split() == []


def test_several_files_are_one_numbering_and_stdin_is_one_of_them(http: Path) -> None:
    outcome = detect(str(http), "-", data=http.read_bytes())
    assert [e["flow"] for e in events(outcome.stdout) if e["type"] == "flow.close"] == [1, 2]


def test_a_file_that_breaks_off_is_said_and_what_was_read_is_told(http: Path) -> None:
    outcome = detect("-", data=http.read_bytes()[:-20])
    assert outcome.returncode == 1
    error, hint = outcome.stderr.decode().splitlines()
    assert error.startswith("error: standard input: ")
    assert "offset" in error
    assert hint.startswith("hint: ")
    told = events(outcome.stdout)
    assert [e["stack"] for e in told if e["type"] == "flow.close"] == [["http/1"]]
    assert told[-1]["type"] == "session.stop"
    assert error == f"error: {told[-1]['reason']}"


@pytest.mark.parametrize("name", ["missing.pcap", "text.pcap", "empty.pcap"])
def test_what_is_no_capture_is_one_line_and_a_hint(tmp_path: Path, name: str) -> None:
    (tmp_path / "text.pcap").write_text("hello")
    (tmp_path / "empty.pcap").touch()
    outcome = detect(str(tmp_path / name))
    assert outcome.returncode == 1
    error, hint = outcome.stderr.decode().splitlines()
    assert error.startswith("error: ")
    assert name in error
    assert events(outcome.stdout)[-1]["type"] == "session.stop"
    assert error == f"error: {events(outcome.stdout)[-1]['reason']}"
    assert hint.startswith("hint: ")


def test_a_file_of_events_is_for_another_command(http: Path) -> None:
    outcome = detect("-", data=detect(str(http)).stdout)
    assert outcome.returncode == 1
    assert outcome.stderr == (
        b"error: standard input has events, not packets\nhint: mitml4 view FILE\n"
    )


@pytest.mark.parametrize(("closed", "words"), [("<&-", "input"), (">&-", "output")])
def test_standard_streams_that_are_closed_are_said(closed: str, words: str) -> None:
    command = f'exec "$0" -m mitml4 detect - {closed}'
    argv = ["sh", "-c", command, sys.executable]
    outcome = subprocess.run(argv, input=b"", capture_output=True, timeout=30, check=False)
    assert outcome.returncode in (1, 2)
    assert outcome.stderr.decode().startswith(f"error: standard {words} is closed\nhint: ")


def test_a_full_disk_is_said_and_the_last_line_is_whole(http: Path, tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "mitml4", "-q", "detect", "--json", *[str(http)] * 20]
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (5000, 5000))
    with (tmp_path / "events").open("wb") as events:
        outcome = subprocess.run(
            argv, stdout=events, stderr=subprocess.PIPE, timeout=30, check=False, preexec_fn=limit
        )
    assert outcome.returncode == 1
    assert outcome.stderr.startswith(b"error: cannot write to standard output: File too large\n")
    written = (tmp_path / "events").read_bytes()
    assert 4000 < len(written) <= 5000
    assert written.endswith(b"\n")
    assert all(json.loads(line) for line in written.splitlines())


def test_what_a_pipe_brings_is_told_before_it_brings_more(http: Path) -> None:
    argv = ["-m", "mitml4", "detect", "-"]
    with Program(argv, stdin=PIPE, stdout=PIPE) as process:
        process.stdin.write(http.read_bytes())
        process.stdin.flush()
        told = [json.loads(process.stdout.readline())["type"] for _ in range(6)]
        assert told[-1] == "http.end"
        process.stdin.close()
        assert len(process.stdout.readlines()) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_reading_and_open_flows_are_closed(
    http: Path, number: signal.Signals
) -> None:
    """What has been read is reported to its end, also if the capture is silent."""
    data = http.read_bytes()[: -2 * len(segment(1, 2, 0, 0, 0, b""))]  # without the two ends
    argv = ["-m", "mitml4", "detect", "-"]
    with Program(argv, stdin=PIPE, stdout=PIPE, stderr=PIPE) as process:
        process.stdin.write(data)
        process.stdin.flush()
        told = [json.loads(process.stdout.readline()) for _ in range(6)]
        process.send_signal(number)
        told += events(process.stdout.read())
        assert process.wait(20) == 128 + number
        assert process.stderr.read() == b""
    assert [event["type"] for event in told[-2:]] == ["flow.close", "session.stop"]
    assert told[-2]["stack"] == ["http/1"]
    assert (told[-1]["reason"], told[-1]["flows"]) == (number.name, 1)


def screen_of(
    name: str, stdin: Path, directory: Path, columns: int = 80, more: Sequence[str] = ()
) -> bytes:
    """What a terminal on standard error shows while a capture is read."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    environ = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    with stdin.open("rb") as stream, open(ours, "rb", buffering=0) as screen:
        outcome = programs.run(
            ["-m", "mitml4", "detect", name, *more],
            stdin=stream,
            stderr=theirs,
            cwd=directory,
            env=environ | {"TERM": "xterm"},
        )
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # EIO, once all is read
            while part := screen.read(4096):
                shown += part
    assert outcome.returncode == 0
    assert b"error" not in shown
    return shown


@pytest.mark.parametrize("term", ["", "dumb", "xterm"])
def test_a_terminal_of_any_kind_shows_the_table(http: Path, term: str) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    environ = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    argv = ["-m", "mitml4", "detect", str(http)]
    programs.run(argv, stdout=theirs, env=environ | {"TERM": term}, check=True)
    os.close(theirs)
    pieces = []
    with suppress(OSError):  # its end
        while True:
            pieces.append(os.read(ours, 4096))
    os.close(ours)
    shown = b"".join(pieces).decode()
    assert ("\x1b" in shown) == (term == "xterm")
    assert len(shown.splitlines()) == 2
    assert "http/1" in shown.splitlines()[1]


def test_a_file_as_standard_input_has_a_bar_on_a_terminal(http: Path) -> None:
    assert b"standard input" in screen_of("-", http, http.parent)


@pytest.mark.parametrize("name", ["[/b].pcap", "[red].pcap", "2001:ab::.pcap", "\x1b[31m.pcap"])
def test_a_bar_shows_the_name_of_its_file_as_it_is(http: Path, name: str) -> None:
    file = http.parent / name
    file.parent.mkdir(exist_ok=True)
    http.rename(file)
    assert printable(name).encode() in screen_of(name, file, http.parent)


@pytest.mark.parametrize("columns", [20, 40, 71, 72, 80, 200])
def test_a_bar_takes_one_line_at_any_width(http: Path, columns: int) -> None:
    name = f"{'a-long-name-of-a-capture-' * 4}.pcap"
    http.rename(http.parent / name)
    shown = screen_of(name, http.parent / name, http.parent, columns).decode()
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown))
    assert 0 < max(map(cell_len, lines)) <= columns
    # Rich goes up by a line for each line but the first that it replaces.
    assert "\x1b[1A\x1b[2K\x1b[1A" not in shown


def test_the_first_of_several_errors_is_the_reason_of_the_end(http: Path, tmp_path: Path) -> None:
    (tmp_path / "text.pcap").write_text("hello")
    names = [str(tmp_path / "missing.pcap"), str(http), str(tmp_path / "text.pcap")]
    stop = events(detect(*names).stdout)[-1]
    assert stop["flows"] == 1
    assert "missing.pcap" in stop["reason"]
    assert events(detect(str(http)).stdout)[-1]["reason"] == "done"


def test_an_archive_is_written_beside_the_events(http: Path, tmp_path: Path) -> None:
    path = tmp_path / "exchanges.har"
    for options, text in (([], None), (["--payload"], "ok")):
        outcome = detect(str(http), "--har", str(path), *options)
        assert (outcome.returncode, outcome.stderr) == (0, b"")
        (entry,) = json.loads(path.read_bytes())["log"]["entries"]
        assert entry["request"]["headers"] == [{"name": "Host", "value": "a.example"}]
        assert entry["response"]["content"].get("text") == text
        (asked,) = [each for each in events(outcome.stdout) if each["type"] == "http.request"]
        assert asked["headers"] is None
        assert path.stat().st_mode & 0o777 == 0o600


def test_an_archive_replaces_no_input_and_no_other_output(http: Path, tmp_path: Path) -> None:
    before, keys, other = http.read_bytes(), tmp_path / "keys", tmp_path / "other"
    keys.write_text("CLIENT_RANDOM " + "00" * 32 + " " + "00" * 48)
    for options, said in (
        (["--har", str(http)], f"--har would replace what is read: {http}"),
        (["--keylog", str(keys), "--har", str(keys)], f"--har would replace what is read: {keys}"),
        (["--pcap-plain", str(http)], f"--pcap-plain would replace what is read: {http}"),
        (["--har", str(other), "--pcap-plain", str(other)], "--har and --pcap-plain are one file"),
    ):
        outcome = detect(str(http), *options)
        error, hint = outcome.stderr.decode().splitlines()
        assert (outcome.returncode, hint[:6]) == (2, "hint: ")
        assert error.startswith(f"error: {said}")
    assert http.read_bytes() == before
    assert not other.exists()


def test_an_archive_that_cannot_be_written_is_said(http: Path, tmp_path: Path) -> None:
    path = tmp_path / "exchanges.har"
    outcome = detect(str(http), "--har", str(tmp_path / "missing" / "x"))
    assert outcome.returncode == 1
    assert outcome.stderr.startswith(b"error: cannot write ")
    limited = subprocess.run(
        [sys.executable, "-m", "mitml4", "detect", str(http), "--har", str(path)],
        preexec_fn=partial(resource.setrlimit, resource.RLIMIT_FSIZE, (500, 500)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        timeout=30,
        check=False,
    )
    assert limited.returncode == 1
    assert limited.stderr.startswith(f"error: cannot write {path}: File too large\n".encode())
    assert json.loads(path.read_bytes())["log"]["entries"] == []


def test_several_processes_tell_the_same_as_one(http: Path, tmp_path: Path) -> None:
    names = [http, tmp_path / "cut.pcap", tmp_path / "text.pcap", http, tmp_path / "secrets.pcapng"]
    (tmp_path / "cut.pcap").write_bytes(http.read_bytes()[:-20])
    (tmp_path / "text.pcap").write_text("hello")
    (tmp_path / "secrets.pcapng").write_bytes(Blocks().section() + Blocks().secrets(SECRET))
    files = [*map(str, names), *[str(http)] * 20]
    for options in ([], ["--payload", "--headers"], ["--filter", "path:/x"], ["--filter", "tls"]):
        alone, together = (detect("--jobs", jobs, *options, *files) for jobs in ("1", "3"))
        assert alone.returncode == together.returncode == 1
        assert alone.stderr == together.stderr
        told = events(alone.stdout)
        numbers = [event["flow"] for event in told if event["type"] == "flow.open"]
        assert numbers == ([*range(1, 24)] if "tls" not in options else [])
        assert without_the_process(together.stdout) == without_the_process(alone.stdout)
        assert told[-1]["flows"] == 23


@pytest.fixture
def ftp(tmp_path: Path) -> Path:
    """A capture of FTP that announces connections, and of these, with others between them."""
    records = []

    def connection(client: int, server: int, *said: tuple[bool, bytes]) -> None:
        records.append(segment(client, server, 1, 0, 2, b""))
        records.append(segment(server, client, 1, 2, 18, b""))
        at = {True: 2, False: 2}
        for is_up, data in said:
            source, destination = (client, server) if is_up else (server, client)
            records.append(segment(source, destination, at[is_up], at[not is_up], 16, data))
            at[is_up] += len(data)

    for number in range(20):
        connection(40100 + number, 9000, (True, b"\x01ask"), (False, b"\x02answer"))
        said = (False, b"229 Entering (|||%d|)\r\n" % (30000 + number))
        login = (False, b"220 FTP\r\n"), (True, b"USER a\r\n"), (False, b"230 in\r\n")
        if number > 9:
            connection(40200 + number, 21, *login, (True, b"EPSV\r\n"), said)
        connection(40300 + number, 30000 + number, (False, b"\x00\x01\x02 of a file"))
    path = tmp_path / "ftp.pcap"
    path.write_bytes(capture(*records))
    return path


def test_several_processes_tell_of_one_capture_the_same_as_one(http: Path, ftp: Path) -> None:
    """Also where one of them has to go on, since flows announce others."""
    cut = ftp.with_name("cut.pcap")
    cut.write_bytes(http.read_bytes()[:-20])
    for path in (http, cut, ftp):
        for options in ([], ["--headers"], ["--payload"], ["--filter", "port:9000"]):
            alone, together = (detect("--jobs", jobs, *options, str(path)) for jobs in ("1", "3"))
            assert (together.returncode, together.stderr) == (alone.returncode, alone.stderr)
            assert without_the_process(together.stdout) == without_the_process(alone.stdout)
            assert alone.returncode == (path == cut)
    stacks = [event["stack"] for event in events(detect(str(ftp)).stdout) if "stack" in event]
    assert stacks.count(["ftp-data"]) == stacks.count(["ftp"]) == 10


def test_one_process_goes_on_where_another_one_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """All is told and counted as if one had read everything."""
    path = synthesise(tmp_path / "busy.pcap", 1_000_000).path
    alone = detect("--jobs", "1", str(path))
    read_part = capture_reading._read_part

    def killed(like: CaptureSession, name: str, part: Part, send: Send) -> CaptureOutcome:
        def send_some(messages: bytes | int) -> None:
            send(messages)
            if isinstance(messages, bytes) and part.is_foreign(b"a flow of one"):
                os.kill(os.getpid(), signal.SIGKILL)

        return read_part(like, name, part, send_some)

    monkeypatch.setattr(capture_reading, "_read_part", killed)
    monkeypatch.setattr("mitml4.cli.detect._tune_gc", lambda: None)  # of the tests' process
    assert run(["detect", "--jobs", "2", str(path)]) == 0
    told = capfdbinary.readouterr().out
    assert without_the_process(told) == without_the_process(alone.stdout)


def test_a_signal_while_a_capture_is_read_again_ends_what_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Flows that are told have their ends, and are counted."""
    path = synthesise(tmp_path / "busy.pcap", 2_000_000).path
    read_part, in_turn = capture_reading._read_part, capture_reading.CaptureReading.in_turn

    def killed(like: CaptureSession, name: str, part: Part, send: Send) -> CaptureOutcome:
        def send_some(messages: bytes | int) -> None:
            send(messages)
            if isinstance(messages, bytes) and part.is_foreign(b"a flow of one"):
                os.kill(os.getpid(), signal.SIGKILL)

        return read_part(like, name, part, send_some)

    def interrupted(self: Any, files: Sequence[str], *, told: int = 0) -> CaptureError | None:
        assert told > 100
        os.kill(os.getpid(), signal.SIGINT)
        return in_turn(self, files, told=told)

    monkeypatch.setattr(capture_reading, "_read_part", killed)
    monkeypatch.setattr(capture_reading.CaptureReading, "in_turn", interrupted)
    monkeypatch.setattr("mitml4.cli.detect._tune_gc", lambda: None)  # of the tests' process
    assert run(["detect", "--jobs", "2", str(path)]) == 128 + signal.SIGINT
    *flows, stop = events(capfdbinary.readouterr().out)
    opened = [event["flow"] for event in flows if event["type"] == "flow.open"]
    closed = [event for event in flows if event["type"] == "flow.close"]
    assert sorted(event["flow"] for event in closed) == opened
    assert stop["flows"] == len(opened)
    assert stop["bytes_up"] == sum(event["bytes_up"] for event in closed)
    assert stop["reason"] == "SIGINT"


SECRET = b"CLIENT_RANDOM " + b"00" * 32 + b" " + b"00" * 48 + b"\n"


def without_the_process(output: bytes) -> list[bytes]:
    """The lines, except for when the process ran, and its number."""
    first, *lines, last = output.splitlines()
    of_process = rb'"(time|pid)":("[^"]*"|[0-9]+),'
    return [re.sub(of_process, b"", first), *lines, re.sub(of_process, b"", last)]


def test_a_closed_pipe_ends_several_processes_quietly(http: Path) -> None:
    command = '"$0" -m mitml4 detect --jobs 2 "$@" | head -n 3; wait'
    argv = ["bash", "-c", f"set -o pipefail; {command}", sys.executable, *[str(http)] * 50]
    outcome = subprocess.run(argv, capture_output=True, timeout=60, check=False)
    assert len(outcome.stdout.splitlines()) == 3
    assert outcome.stderr == b""


def test_several_processes_have_one_bar_on_a_terminal(http: Path) -> None:
    shown = screen_of("--jobs=2", http, http.parent, more=[str(http), str(http)])
    assert b"2 captures" in shown
