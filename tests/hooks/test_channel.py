"""Frames between a session and a script, over a socket that takes a part at a time."""

from __future__ import annotations

import socket

import pytest
import trio
import trio.testing

from mitml4.hooks.channel import Channel
from mitml4.hooks.wire import Frame

SIZES = (0, 1, 1 << 20, 7, 300_000, 0)


def test_frames_arrive_whole_and_in_order_whatever_waits() -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            sender, receiver = Channel(ours), Channel(theirs)
            sent = [Frame({"id": number}, bytes(size)) for number, size in enumerate(SIZES)]
            async with trio.open_nursery() as nursery:
                for frame in sent:  # none of it is read yet
                    sender.send(frame)
                assert sender.has_unsent
                nursery.start_soon(sender.write)
                assert [await receiver.read(1 << 20) for _ in sent] == sent
                await trio.testing.wait_all_tasks_blocked()  # the writer has seen that, too
                sender.send(Frame({"id": "last"}))
                assert not sender.has_unsent  # it was sent at once
                ours.shutdown(socket.SHUT_WR)
                assert await receiver.read(0) == Frame({"id": "last"})
                assert await receiver.read(0) is None
                nursery.cancel_scope.cancel()

    trio.run(main)


def test_a_frame_above_the_bound_is_refused() -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            Channel(ours).send(Frame({}, b"ab"))
            with pytest.raises(ValueError, match="bytes"):
                await Channel(theirs).read(1)

    trio.run(main)
