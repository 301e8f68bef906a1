"""What is asked of a helper. At the other end of its channel is the test."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from threading import Thread

import pytest

from mitml4.errors import MachineError
from mitml4.net import helper


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


def test_a_helper_that_has_ended_is_said(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    theirs.close()
    with pytest.raises(MachineError, match="a process that mitml4 needs has ended"):
        helper.ask(ours, "work")


@pytest.mark.parametrize("has_read", [True, False])
def test_a_helper_that_ends_before_it_answers_is_said(
    ends: tuple[socket.socket, socket.socket], *, has_read: bool
) -> None:
    """If it has not read the request, the kernel tells that by another error."""
    ours, theirs = ends

    def end() -> None:
        theirs.recv(100, 0 if has_read else socket.MSG_PEEK)
        theirs.close()

    thread = Thread(target=end)
    thread.start()
    with pytest.raises(MachineError, match="a process that mitml4 needs has ended"):
        helper.ask(ours, "work")
    thread.join()
