from __future__ import annotations

import errno
import os
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from mitml4.net.resets import ENDED, READABLE, Watched


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The two ends of a connection."""
    with ExitStack() as sockets:
        listener = sockets.enter_context(socket.create_server(("127.0.0.1", 0)))
        ours = sockets.enter_context(socket.create_connection(listener.getsockname()))
        theirs, _ = listener.accept()
        yield ours, sockets.enter_context(theirs)


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@contextmanager
def until_reset(descriptor: int) -> Iterator[trio.CancelScope]:
    with trio.CancelScope() as scope, Watched(descriptor, scope.cancel):
        yield scope


async def be_told(sock: socket.socket) -> None:
    with until_reset(sock.fileno()) as scope:
        await trio.sleep_forever()
    assert scope.cancelled_caught


@pytest.mark.parametrize("before", [b"", b"unread"])
@pytest.mark.parametrize("ended", [False, True])
async def test_all_who_wait_for_a_reset_are_told_whatever_came_before(pair, before, ended) -> None:
    ours, theirs = pair
    theirs.sendall(before)
    if ended:
        theirs.shutdown(socket.SHUT_WR)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(be_told, ours)
            await wait_all_tasks_blocked()
            reset(theirs)


async def test_who_comes_after_the_reset_is_told_too(pair) -> None:
    ours, theirs = pair
    reset(theirs)
    with trio.fail_after(5):
        await be_told(ours)
        await be_told(ours)


async def test_what_is_no_reset_tells_nobody(pair) -> None:
    ours, theirs = pair
    with until_reset(ours.fileno()) as scope:
        theirs.sendall(b"data")
        theirs.shutdown(socket.SHUT_WR)
        await wait_all_tasks_blocked(0.05)
    assert not scope.cancel_called


async def test_many_waits_take_one_descriptor(pair) -> None:
    def count() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = count()
    with ExitStack() as waits:
        for sock in pair * 5:
            waits.enter_context(until_reset(sock.fileno()))
        assert count() == before + 1


async def test_without_a_descriptor_nobody_is_told_and_nothing_fails(pair, monkeypatch) -> None:
    class Exhausted:
        def __init__(self) -> None:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    ours, theirs = pair
    with monkeypatch.context() as patch:
        patch.setattr(select, "epoll", Exhausted)
        with until_reset(ours.fileno()) as scope:
            reset(theirs)
            await wait_all_tasks_blocked(0.05)
        assert not scope.cancel_called
    with trio.fail_after(5):
        await be_told(ours)


async def test_an_end_and_data_are_told_once_to_those_who_watch_for_them(pair) -> None:
    ours, theirs = pair
    told: list[str] = []
    descriptor = ours.fileno()
    with (
        Watched(descriptor, lambda: told.append("end"), ENDED),
        Watched(descriptor, lambda: told.append("data"), READABLE),
        Watched(descriptor, lambda: told.append("reset")),
    ):
        theirs.sendall(b"data")
        await wait_all_tasks_blocked(0.05)
        assert told == ["data"]
        theirs.shutdown(socket.SHUT_WR)
        await wait_all_tasks_blocked(0.05)
        assert told == ["data", "end"]
        reset(theirs)
        await wait_all_tasks_blocked(0.05)
    assert told == ["data", "end", "reset"]
