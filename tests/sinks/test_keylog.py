"""TLS secrets: each once, at once, and a full disk is no flow's business."""

from __future__ import annotations

import os
import stat
import threading
from itertools import chain
from pathlib import Path

import pytest

from mitml4.errors import MitmError
from mitml4.sinks.keylog import KeyLog

LINE = b"CLIENT_RANDOM " + b"ab" * 32 + b" " + b"cd" * 48


@pytest.fixture
def failures() -> list[MitmError]:
    return []


def test_a_line_is_there_at_once_and_once(tmp_path, failures) -> None:
    log = KeyLog(tmp_path / "keys", failures.append)
    log(LINE)
    log(LINE)
    assert (tmp_path / "keys").read_bytes() == LINE + b"\n"
    log(LINE.lower())
    assert (tmp_path / "keys").read_bytes().splitlines() == [LINE, LINE.lower()]
    log.close()


def test_it_appends_to_what_is_there(tmp_path, failures) -> None:
    (tmp_path / "keys").write_bytes(b"# before\n")
    log = KeyLog(tmp_path / "keys", failures.append)
    log(LINE)
    assert (tmp_path / "keys").read_bytes() == b"# before\n" + LINE + b"\n"
    log.close()


def test_a_new_file_is_private(tmp_path, failures) -> None:
    KeyLog(tmp_path / "keys", failures.append).close()
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o600


def test_lines_of_many_threads_stay_whole(tmp_path, failures) -> None:
    log = KeyLog(tmp_path / "keys", failures.append)
    lines = [[b"%d %d" % (number, index) * 20 for index in range(100)] for number in range(8)]
    threads = [threading.Thread(target=lambda part=part: [*map(log, part)]) for part in lines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    assert sorted((tmp_path / "keys").read_bytes().splitlines()) == sorted(chain(*lines))


def test_a_full_disk_is_told_once_and_raised_never(failures) -> None:
    log = KeyLog(Path("/dev/full"), failures.append)
    log(LINE)
    log(LINE.lower())
    log.close()
    assert [error.message for error in failures] == [
        "cannot write /dev/full: No space left on device"
    ]


def test_lines_after_the_end_are_let_go_of(tmp_path, failures) -> None:
    log = KeyLog(tmp_path / "keys", failures.append)
    log.close()
    log(LINE)
    log.close()
    assert (tmp_path / "keys").read_bytes() == b""
    assert failures == []


def test_a_file_that_cannot_be_opened_is_an_error(tmp_path, failures) -> None:
    with pytest.raises(MitmError, match="No such file or directory"):
        KeyLog(tmp_path / "missing" / "keys", failures.append)


def test_what_is_remembered_is_bounded(tmp_path, failures) -> None:
    log = KeyLog(tmp_path / "keys", failures.append)
    for number in range(5000):
        log(b"%d" % number)
    assert len(log._written) <= 1024
    log.close()


def test_nothing_of_it_is_inherited(tmp_path, failures) -> None:
    log = KeyLog(tmp_path / "keys", failures.append)
    assert not os.get_inheritable(log._descriptor)
    log.close()


def test_a_reader_that_stands_still_does_not_stop_the_flows(tmp_path, failures) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    log = KeyLog(pipe, failures.append)
    lines = [b"%08d" % number + LINE for number in range(1000)]

    def write() -> None:
        for line in lines:
            log(line)

    writing = threading.Thread(target=write, daemon=True)
    writing.start()
    writing.join(10)
    assert not writing.is_alive()
    (failure,) = failures
    assert "its reader stands still" in failure.message
    heard = os.read(reader, 1 << 20).splitlines()
    assert heard == lines[: len(heard)]  # and none of them torn
    log.close()
    os.close(reader)


def test_a_reader_that_is_slow_gets_every_line(tmp_path, failures) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reader, True)
    log = KeyLog(pipe, failures.append)
    lines = [b"%08d" % number + LINE for number in range(1000)]
    heard: list[bytes] = []

    def read() -> None:
        while data := os.read(reader, 100):
            heard.append(data)

    reading = threading.Thread(target=read)
    reading.start()
    for line in lines:
        log(line)
    log.close()
    reading.join(10)
    assert b"".join(heard).splitlines() == lines
    assert failures == []
    os.close(reader)


def test_a_file_of_another_kind_is_refused_and_stays(tmp_path) -> None:
    for name, content in (("key.pem", b"-----BEGIN PRIVATE KEY-----\n"), ("x.jsonl", b"{}\n")):
        path = tmp_path / name
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(MitmError, match="no key log"):
            KeyLog(path, print)
        assert path.read_bytes() == content
    for content in (b"", b"# by a browser\n", b"CLIENT_RANDOM " + b"ab" * 32 + b" cd\n"):
        path = tmp_path / "keys.txt"
        path.write_bytes(content)
        path.chmod(0o600)
        KeyLog(path, print).close()
        assert path.read_bytes() == content
