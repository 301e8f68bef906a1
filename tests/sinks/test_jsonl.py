"""JSON lines: at once, complete, and never at the flows' expense."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from mitml4.address import Address
from mitml4.encoding import encode
from mitml4.errors import MitmError
from mitml4.events import Event, FlowClose, FlowError, FlowOpen, LayerEvent, weight
from mitml4.protocols.http.events import HttpRequest
from mitml4.sinks.background import Background
from mitml4.sinks.files import OutputFile, write_failure
from mitml4.sinks.inline import Inline
from mitml4.sinks.jsonl import JsonLines, Line

PIPE_SIZE = 1 << 16


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:  # the test has closed it
            continue


def to_pipe(descriptor: int, *, close: bool = True) -> Background[Event | Line]:
    return Background(JsonLines(OutputFile(descriptor, "a pipe", is_ours=close)))


def to_file(path: Path, **options: Any) -> Background[Event | Line]:
    return Background(JsonLines.to_file(path), **options)


@asynccontextmanager
async def running(sink: Background[Event | Line]):
    """The sink at work; closed, and waited for, afterwards."""
    async with trio.open_nursery() as nursery:
        await nursery.start(sink.run)
        yield sink
        await sink.aclose()


def opened(flow: int) -> FlowOpen:
    return FlowOpen(flow=flow, client=Address("::1", 9), destination=Address("::1", 80))


def failed(flow: int) -> FlowError:
    return FlowError(
        flow=flow, depth=0, side="client", stage="relay", kind="protocol", reason="broken"
    )


def closed(flow: int) -> FlowClose:
    return FlowClose(flow=flow, stack=(), reason="closed", bytes_up=0, bytes_down=0, duration_s=0.0)


def asked(stream: int, url: str) -> LayerEvent:
    request = HttpRequest(stream=stream, method="GET", url=url, version="HTTP/2")
    return LayerEvent(flow=1, depth=0, content=request)


def sizes(lines: bytes) -> list[int]:
    assert lines == b"" or lines.endswith(b"\n")
    return [json.loads(line)["size"] for line in lines.splitlines()]


async def test_an_event_is_there_as_soon_as_it_is_published(numbered, pipe) -> None:
    read_end, write_end = pipe
    async with (
        running(to_pipe(write_end)) as sink,
        trio.lowlevel.FdStream(os.dup(read_end)) as reader,
    ):
        for size in range(3):
            sink.publish(numbered(size))
            with trio.fail_after(5):
                assert sizes(await reader.receive_some()) == [size]


async def test_one_thread_writes_and_begins_with_the_first_event(numbered, pipe) -> None:
    """Not before: a session gives up its privileges meanwhile, and a thread could keep them."""
    read_end, write_end = pipe
    before = threading.active_count()
    async with (
        running(to_pipe(write_end)) as sink,
        trio.lowlevel.FdStream(os.dup(read_end)) as reader,
    ):
        await trio.testing.wait_all_tasks_blocked()
        assert threading.active_count() == before
        for size in range(3):
            sink.publish(numbered(size))
            with trio.fail_after(5):
                assert sizes(await reader.receive_some()) == [size]
            assert threading.active_count() == before + 1


async def test_an_error_of_ours_is_not_taken_for_one_of_the_file(numbered, tmp_path) -> None:
    sink = to_file(tmp_path / "events")
    sink._format.write = None
    sink.publish(numbered(0))
    with trio.fail_after(5), pytest.raises(TypeError):
        await sink.run()


async def test_closing_writes_what_is_kept(numbered, tmp_path) -> None:
    path = tmp_path / "events"
    async with running(to_file(path)) as sink:
        for size in range(1000):
            sink.publish(numbered(size))
    assert sizes(path.read_bytes()) == list(range(1000))
    assert sink.dropped == 0


async def test_what_was_published_before_it_ran_is_written(numbered, tmp_path) -> None:
    path = tmp_path / "events"
    sink = to_file(path)
    sink.publish(numbered(7))
    async with running(sink):
        pass
    assert sizes(path.read_bytes()) == [7]


async def test_what_does_not_fit_the_queue_is_dropped_and_counted(numbered, tmp_path) -> None:
    """A flow that floods loses its own messages; no other flow's, and never how it began or ended.

    A flow may have as much as is free: half of six messages, then half of what is left.
    """
    path = tmp_path / "events"
    capacity = 6 * weight(numbered(0))
    sink = to_file(path, capacity=capacity)
    for size in range(1000):
        sink.publish(numbered(size, flow=1))
    sink.publish(opened(2))
    sink.publish(numbered(1000, flow=2))
    for flow in range(3, 1000):
        sink.publish(opened(flow))
    sink.publish(failed(1))
    sink.publish(closed(1))
    assert sink.dropped == 997
    async with running(sink):
        pass
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert [line["size"] for line in lines if "size" in line] == [0, 1, 2, 1000]
    assert [line["type"] for line in lines].count("flow.open") == 998
    assert [line["type"] for line in lines[-2:]] == ["flow.error", "flow.close"]


async def test_large_events_take_their_part_of_the_queue(tmp_path) -> None:
    path = tmp_path / "events"
    sink = to_file(path, capacity=1 << 20)
    for stream in range(10_000):
        sink.publish(asked(stream, "u" * 4096))
    kept = 10_000 - sink.dropped
    assert 50 < kept < (1 << 20) // 2 // 4096
    async with running(sink):
        pass
    assert path.read_bytes().count(b"\n") == kept


async def test_a_reader_that_stands_still_holds_nobody_up(numbered, pipe, monkeypatch) -> None:
    """Neither who publishes, nor, for long, the end of the session."""
    monkeypatch.setattr("mitml4.sinks.background._DRAIN_TIMEOUT_S", 0.1)
    read_end, write_end = pipe
    room = fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, 4096) // len(encode(numbered(0)))
    sink = to_pipe(write_end, close=False)
    with trio.fail_after(5):
        async with running(sink):
            for size in range(room + 500):
                sink.publish(numbered(size))
    assert sink.dropped >= 500
    os.close(read_end)  # lets the abandoned write go
    with trio.fail_after(5):  # it is gone, and will not write into somebody else's descriptor
        await sink._has_ended.wait()


async def test_a_reader_that_has_gone_ends_it_without_another_event(pipe) -> None:
    read_end, write_end = pipe
    sink = to_pipe(write_end, close=False)
    with trio.fail_after(5), pytest.RaisesGroup(BrokenPipeError):
        async with trio.open_nursery() as nursery:
            await nursery.start(sink.run)
            os.close(read_end)


async def test_a_reader_that_goes_while_a_write_is_under_way_ends_it(numbered, pipe) -> None:
    read_end, write_end = pipe
    fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, 4096)
    sink = to_pipe(write_end, close=False)
    with trio.fail_after(5), pytest.RaisesGroup(BrokenPipeError):
        async with trio.open_nursery() as nursery:
            await nursery.start(sink.run)
            for size in range(1000):
                sink.publish(numbered(size))
            await trio.to_thread.run_sync(os.read, read_end, 1)
            os.close(read_end)
    assert sink.dropped == 0  # nobody was there to miss anything
    sink.publish(numbered(0))
    assert sink.dropped == 0


async def test_a_full_disk_is_an_error_that_names_the_file(numbered) -> None:
    sink = to_file(Path("/dev/full"))
    sink.publish(numbered(0))
    with pytest.raises(MitmError, match="cannot write /dev/full: No space left") as caught:
        await sink.run()
    assert caught.value.hint == "df /dev"


async def test_a_pipe_that_others_made_non_blocking_gets_everything(numbered, pipe) -> None:
    read_end, write_end = pipe
    fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(write_end, False)
    seen = b""
    async with (
        trio.lowlevel.FdStream(os.dup(read_end)) as reader,
        running(to_pipe(write_end)) as sink,
    ):
        for size in range(500):
            sink.publish(numbered(size))
        while seen.count(b"\n") < 500:
            seen += await reader.receive_some()
    assert sizes(seen) == list(range(500))


async def test_standard_output_stays_open(numbered, pipe, monkeypatch) -> None:
    _, write_end = pipe
    with os.fdopen(os.dup(write_end), "w") as stdout:
        monkeypatch.setattr("sys.stdout", stdout)
        async with running(Background(JsonLines.to_stdout())) as sink:
            sink.publish(numbered(1))
        print("still here", flush=True)
    assert os.read(pipe[0], PIPE_SIZE).endswith(b"}\nstill here\n")


def test_a_standard_output_that_is_closed_is_said(monkeypatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)  # as Python has it when it starts so
    with pytest.raises(MitmError, match="standard output is closed"):
        JsonLines.to_stdout()


async def test_a_new_file_is_private_and_an_old_one_keeps_its_mode(numbered, tmp_path) -> None:
    path = tmp_path / "events"
    for expected in (0o600, 0o644):
        async with running(to_file(path)) as sink:
            sink.publish(numbered(1))
        assert stat.S_IMODE(path.stat().st_mode) == expected
        assert sizes(path.read_bytes()) == [1]
        path.chmod(0o644)


@pytest.mark.parametrize(
    ("name", "reason", "hint"),
    [
        ("missing/events", "No such file or directory", "mkdir -p"),
        (".", "Is a directory", "ls -ld"),
    ],
)
def test_a_file_that_cannot_be_opened_is_an_error_with_a_hint(
    tmp_path, name: str, reason: str, hint: str
) -> None:
    with pytest.raises(MitmError, match=reason) as caught:
        JsonLines.to_file(tmp_path / name)
    assert str(tmp_path / name) in caught.value.message
    assert (caught.value.hint or "").startswith(hint)


def test_a_file_that_vanishes_is_not_for_want_of_its_directory(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    gone = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    for name in ("events", str(tmp_path / "events")):
        assert (write_failure(name, gone).hint or "").startswith("ls -ld ")
    assert write_failure("missing/events", gone).hint == "mkdir -p missing"


async def test_it_can_be_cancelled_while_idle_and_while_writing(numbered, pipe) -> None:
    _, write_end = pipe
    fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, 4096)
    for count in (0, 1000):
        sink = to_pipe(write_end, close=False)
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                await nursery.start(sink.run)
                for size in range(count):
                    sink.publish(numbered(size))
                await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()


async def test_headers_that_only_others_have_asked_for_are_left_out(tmp_path) -> None:
    request = HttpRequest(
        stream=1,
        method="GET",
        url="http://a.test/",
        version="HTTP/1.1",
        headers=(("Cookie", "secret"),),
    )
    for headers, expected in ((True, [["Cookie", "secret"]]), (False, None)):
        path = tmp_path / "events"
        async with running(Background(JsonLines.to_file(path, headers=headers))) as sink:
            sink.publish(LayerEvent(flow=1, depth=0, content=request))
        assert json.loads(path.read_bytes())["headers"] == expected


def test_of_a_capture_nothing_is_dropped_however_much_there_is(numbered, tmp_path) -> None:
    path = tmp_path / "events"
    sink = Inline(JsonLines.to_file(path))
    for size in range(2500):
        sink.publish(numbered(size))
    assert sizes(path.read_bytes()) == list(range(19 * 128))  # what is much is written at once
    sink.flush()
    assert sizes(path.read_bytes()) == list(range(2500))
    sink.publish(numbered(2500))
    sink.finish()
    assert sizes(path.read_bytes()) == list(range(2501))
    assert sink.dropped == 0


async def test_a_thread_that_cannot_be_started_is_an_error_with_a_hint(
    numbered, tmp_path, monkeypatch
) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    sink = to_file(tmp_path / "events")
    sink.publish(numbered(1))
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(MitmError, match="cannot start a thread") as caught:
        await sink.run()
    assert caught.value.hint == "ulimit -u"
