"""Captures that are read at the same time, by processes."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from mitml4.errors import CaptureError, MitmError
from mitml4.session import capture_processes
from mitml4.session.capture_processes import CaptureProcesses, Read
from mitml4.session.detect import CaptureOutcome
from mitml4.session.reader_process import STOP

Send = Callable[[bytes], object]


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    assert multiprocessing.active_children() == []


def told(
    read: Read, names: str, processes: int, is_stopped: Callable[[], object] = lambda: False
) -> list[tuple[str, bytes, str | None]]:
    """The name, the lines and the failure of each capture."""
    with CaptureProcesses(names, processes, read, is_stopped, read) as reading:
        return [
            (
                capture.name,
                b"".join(capture.lines()),
                capture.outcome.failure.message
                if capture.outcome and capture.outcome.failure
                else None,
            )
            for capture in reading.captures()
        ]


def test_captures_are_told_in_their_order_whatever_they_take() -> None:
    """The first one ends last: it waits until the third one has begun."""
    begun, begins = os.pipe()

    def read(name: str, send: Send) -> CaptureOutcome:
        send(f"{name} begins\n".encode())
        if name == "a":
            os.read(begun, 1)
        if name == "c":
            os.write(begins, b".")
        send(f"{name} ends\n".encode() * 100_000)
        return CaptureOutcome()

    names = "abcdefgh"
    outcome = told(read, names, 2)
    os.close(begun)
    os.close(begins)
    assert outcome == [
        (name, f"{name} begins\n".encode() + f"{name} ends\n".encode() * 100_000, None)
        for name in names
    ]


def test_of_a_process_that_is_killed_nothing_is_told_but_the_others() -> None:
    def read(name: str, send: Send) -> CaptureOutcome:
        send(f"{name}\n".encode())
        if name == "b":
            os.kill(os.getpid(), signal.SIGKILL)
        if name == "d":
            os._exit(3)
        return CaptureOutcome()

    assert told(read, "abcde", 2) == [
        ("a", b"a\n", None),
        ("b", b"", "b was not read: its process has ended (SIGKILL)"),
        ("c", b"c\n", None),
        ("d", b"", "d was not read: its process has ended (exit code 3)"),
        ("e", b"e\n", None),
    ]


def test_an_idle_process_that_is_killed_is_replaced() -> None:
    def read(name: str, send: Send) -> CaptureOutcome:
        send(f"{name}\n".encode())
        return CaptureOutcome()

    lines = []
    with CaptureProcesses("abcdef", 1, read, lambda: False, read) as reading:
        for capture in reading.captures():
            lines += capture.lines()
            if capture.name == "b":  # nothing was given to the process yet
                (process,) = multiprocessing.active_children()
                process.kill()
                process.join()
    assert lines == [b"a\n", b"b\n", b"c\n", b"d\n", b"e\n", b"f\n"]


def test_a_broken_capture_is_told_with_its_failure() -> None:
    def read(name: str, send: Send) -> CaptureOutcome:
        send(b"whole\n")
        return CaptureOutcome(failure=CaptureError(f"{name} is broken", hint="look at it"))

    with CaptureProcesses("ab", 2, read, lambda: False, read) as reading:
        for capture in reading.captures():
            assert b"".join(capture.lines()) == b"whole\n"
            assert capture.outcome
            assert capture.outcome.failure
            assert str(capture.outcome.failure) == f"{capture.name} is broken"
            assert capture.outcome.failure.hint == "look at it"


def test_a_fault_in_a_process_is_raised_here() -> None:
    def read(name: str, _send: Send) -> CaptureOutcome:
        raise ZeroDivisionError(name)

    with pytest.raises(ZeroDivisionError, match="a"):
        told(read, "ab", 1)


def test_when_it_is_stopped_the_first_capture_is_told_as_far_as_it_was_read() -> None:
    class StoppedError(Exception):
        pass

    def stop(*_: object) -> None:
        signal.signal(STOP, signal.SIG_IGN)  # it may come several times
        raise StoppedError

    def read(name: str, send: Send) -> CaptureOutcome:
        send(f"{name} begins\n".encode())
        try:
            signal.signal(STOP, stop)
            while True:
                signal.pause()
        except StoppedError:
            send(b"as far as it was read\n")
            return CaptureOutcome()

    polls = count()
    outcome = told(read, "abc", 2, lambda: next(polls) > 4)
    assert outcome == [("a", b"a begins\nas far as it was read\n", None)]


def test_signals_of_a_terminal_end_no_process() -> None:
    def read(_name: str, send: Send) -> CaptureOutcome:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(os.getpid(), number)
        send(b"whole\n")
        return CaptureOutcome()

    assert told(read, "a", 1) == [("a", b"whole\n", None)]


def test_what_was_read_without_the_secrets_of_a_capture_before_is_read_again() -> None:
    known: list[bytes] = []

    def read(name: str, send: Send) -> CaptureOutcome:
        send(b"%s with %s\n" % (name.encode(), b" ".join(known) or b"none"))
        return CaptureOutcome(secrets=(b"secrets of b",) if name == "b" else ())

    lines = []
    with CaptureProcesses("abcd", 3, read, lambda: False, read) as reading:
        for capture in reading.captures():
            assert capture.outcome
            known += capture.outcome.secrets
            lines += capture.lines()
    assert lines == [
        b"a with none\n",
        b"b with none\n",
        b"c with secrets of b\n",
        b"d with secrets of b\n",
    ]


@pytest.mark.parametrize("permitted", [0, 1, 2])
def test_where_a_limit_forbids_processes_those_that_there_are_read(
    monkeypatch: pytest.MonkeyPatch, permitted: int
) -> None:
    fork, left = os.fork, count(permitted, -1)

    def limited() -> int:
        if next(left) > 0:
            return fork()
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    def read(name: str, send: Send) -> CaptureOutcome:
        send(b"%s here: %d\n" % (name.encode(), os.getpid() == ours))
        return CaptureOutcome(secrets=(b"secrets",) if name == "b" else ())

    ours = os.getpid()
    monkeypatch.setattr(os, "fork", limited)
    here = [0, 0, 1, 1, 1] if permitted else [1] * 5
    assert told(read, "abcde", 3) == [
        (name, b"%s here: %d\n" % (name.encode(), is_here), None)
        for name, is_here in zip("abcde", here, strict=True)
    ]


def test_no_room_for_a_temporary_file_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    monkeypatch.setattr(capture_processes, "_MAX_IN_MEMORY", 5)

    def read(_name: str, send: Send) -> CaptureOutcome:
        send(b"more than five bytes\n")
        return CaptureOutcome()

    with pytest.raises(MitmError, match="cannot keep events in a temporary file: No such file"):
        told(read, "a", 1)


def test_leaving_early_ends_the_processes() -> None:
    def read(name: str, _send: Send) -> CaptureOutcome:
        while name != "a":
            signal.pause()
        return CaptureOutcome()

    with CaptureProcesses("abc", 3, read, lambda: False, read) as reading:
        assert next(reading.captures()).name == "a"
        children = multiprocessing.active_children()
        assert len(children) == 3
    assert not any(child.is_alive() for child in children)
