"""A process of a script, as the session sees it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import field
from typing import Any, Final

import trio

from mitml4.dataclass import dataclass
from mitml4.hooks.channel import Channel
from mitml4.hooks.editor import HookError, Info
from mitml4.hooks.wire import Frame

__all__ = ["MAX_ASKED", "Call", "Runner", "receive", "take_answer", "unless_broken"]

MAX_ASKED: Final = 128
"""How many hooks are asked at a time. Others wait, which does not count as their time."""


@dataclass(slots=True)
class Call:
    """A hook that was asked."""

    done: trio.Event = field(default_factory=trio.Event)
    answer: Frame | None = None
    failure: HookError | None = None

    def end(self, failure: HookError) -> None:
        self.failure = self.failure or failure
        self.done.set()


class Runner:
    """A process of the script."""

    def __init__(self, number: int, sock: socket.socket, prints: int) -> None:
        self.number = number
        self.socket = sock
        self.prints = prints
        self.born = trio.current_time()
        self.info: Info | None = None
        """None until it has loaded the script."""
        self.calls: dict[int, Call] = {}
        self.count = 0
        self.is_lost = False
        """Whether it is killed, or has ended."""
        self.frames = Channel(sock)

    def lose(self, failure: HookError) -> None:
        self.is_lost = True
        for call in self.calls.values():
            call.end(failure)


def take_answer(runner: Runner, frame: Frame) -> None:
    """An answer has come. Raises ValueError."""
    number = frame.head.get("id")
    if type(number) is not int or not 0 < number <= runner.count:
        raise ValueError("an answer without a question")
    if call := runner.calls.get(number):  # otherwise nobody waits any more
        call.answer = frame
        call.done.set()


async def unless_broken(work: Callable[[], Any]) -> None:
    try:
        await work()
    except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
        await trio.sleep_forever()  # the reader finds the end


def receive(channel: socket.socket, size: int) -> bytes:
    """Raises EOFError, OSError."""
    data = bytearray()
    while len(data) < size:
        piece = channel.recv(size - len(data))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)
