"""Messages with descriptors between two ends of a channel."""

import errno
import os
import socket

import pytest
import trio
import trio.testing

from mitml4.session.workers.channel import Channel, channel_pair


@pytest.fixture
async def ends():
    ours, theirs = channel_pair()
    other = Channel(theirs)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.run)
        nursery.start_soon(other.run)
        await trio.testing.wait_all_tasks_blocked()
        yield ours, other
        nursery.cancel_scope.cancel()
    ours.close()
    other.close()


async def take(channel, count):
    found = []
    with trio.fail_after(10):
        while len(found) < count:
            found += await channel.receive()
    return found


async def test_what_is_gathered_goes_before_what_is_sent_at_once(ends):
    ours, other = ends
    ours.gather(("event", 1))
    ours.gather(("event", 2))
    ours.send("ask", 3)
    assert await take(other, 3) == [(("event", 1), None), (("event", 2), None), (("ask", 3), None)]


async def test_what_is_gathered_alone_goes_too(ends):
    ours, other = ends
    ours.gather(("event", 1))
    assert await take(other, 1) == [(("event", 1), None)]


@pytest.mark.parametrize("is_waiting", [False, True])
async def test_everything_is_sent_in_the_end(ends, is_waiting):
    ours, other = ends
    messages = [("event", number, bytes(100_000)) for number in range(50)]
    for each in messages:
        ours.send(*each) if is_waiting else ours.gather(each)
    if is_waiting:
        await trio.testing.wait_all_tasks_blocked()  # until there is room for more
    ours.gather(("last",))
    found = []
    async with trio.open_nursery() as nursery:

        async def take_all():
            found.extend(await take(other, len(messages) + 1))

        nursery.start_soon(take_all)
        await ours.finish()
        assert not ours.unsent_bytes
    assert [message for message, _ in found] == [*messages, ("last",)]


async def test_each_descriptor_comes_with_its_message(ends):
    ours, other = ends
    expected = []
    for number in range(20):
        reader, writer = os.pipe()
        os.write(writer, str(number).encode())
        os.close(writer)
        ours.send("one", number, descriptor=reader)
        ours.send("none", number)
        expected.append(str(number).encode())
    found = await take(other, 40)
    assert [message for message, _ in found] == [
        (name, number) for number in range(20) for name in ("one", "none")
    ]
    contents = []
    for message, descriptor in found:
        assert (descriptor is not None) == (message[0] == "one")
        if descriptor is not None:
            contents.append(os.read(descriptor, 10))
            os.close(descriptor)
    assert contents == expected


async def test_what_has_no_room_waits_and_comes_in_order(ends):
    ours, other = ends
    reader, writer = os.pipe()
    os.close(writer)
    large = bytes(3 << 20)
    ours.send("large", large)
    ours.send("small", descriptor=reader)
    await trio.testing.wait_all_tasks_blocked()
    assert ours.unsent_bytes > 1 << 20
    (first, none), (second, descriptor) = await take(other, 2)
    assert first == ("large", large)
    assert none is None
    assert second == ("small",)
    assert os.read(descriptor, 1) == b""
    os.close(descriptor)
    assert ours.unsent_bytes == 0


async def test_the_end_is_told_and_what_is_sent_then_is_dropped():
    ours, theirs = channel_pair()
    theirs.close()
    reader, writer = os.pipe()
    os.close(writer)
    ours.send("nobody hears it", descriptor=reader)
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(reader)
    assert await ours.receive() == []
    ours.close()


async def test_where_a_frame_cannot_be_sent_the_other_end_reads_the_end(ends, monkeypatch):
    """The rest of it, or the next one, would be taken for something else."""
    ours, other = ends
    sock = ours._socket

    class Short:
        """A socket that the kernel has memory for only once."""

        sent = 0

        def sendmsg(self, _data, _attached):
            if self.sent:
                raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
            self.sent = sock.send(b"half")
            return self.sent

        def __getattr__(self, name):
            return getattr(sock, name)

    monkeypatch.setattr(ours, "_socket", Short())
    ours.send("lost")
    await trio.testing.wait_all_tasks_blocked()
    monkeypatch.undo()
    ours.send("next")
    await trio.testing.wait_all_tasks_blocked()
    assert ours.unsent_bytes == 0
    with trio.fail_after(10):
        assert await other.receive() == []
        other.send("its last")
        assert await take(ours, 1) == [(("its last",), None)]


@pytest.mark.parametrize("there_may_be", [0, 2])
async def test_what_a_process_may_not_have_is_missing_and_nothing_else(
    ends, monkeypatch, there_may_be
):
    ours, other = ends
    sock = other._socket

    class Full:
        """A socket of a process that may have only so many descriptors more."""

        def recvmsg(self, size, _room, flags):
            room = socket.CMSG_SPACE(4 * there_may_be) if there_may_be else 0
            return sock.recvmsg(size, room, flags)

        def __getattr__(self, name):
            return getattr(sock, name)

    reader, writer = os.pipe()
    monkeypatch.setattr(other, "_socket", Full())
    for name in ("a", "b", "c"):
        ours.send(name, descriptor=os.dup(reader))
        ours.send("next")
    found = await take(other, 6)
    assert [message for message, _ in found] == [
        (name,) for each in ("a", "b", "c") for name in (each, "next")
    ]
    assert [place for place, (_, descriptor) in enumerate(found) if descriptor is not None] == [
        2 * place for place in range(there_may_be)
    ]
    monkeypatch.undo()
    ours.send("d", descriptor=reader)  # nothing is out of step
    found += await take(other, 1)
    assert found[-1][1] is not None
    for _, descriptor in found:
        if descriptor is not None:
            os.close(descriptor)
    os.close(writer)


async def test_what_is_sent_in_one_turn_shares_a_system_call(ends, monkeypatch):
    ours, other = ends
    sock, sent = ours._socket, []

    class Counting:
        def sendmsg(self, data, attached):
            sent.append(attached)
            return sock.sendmsg(data, attached)

        def __getattr__(self, name):
            return getattr(sock, name)

    monkeypatch.setattr(ours, "_socket", Counting())
    readers = []
    for number in range(20):
        reader, writer = os.pipe()
        os.close(writer)
        readers.append(reader)
        ours.send("one", number, descriptor=reader)
    assert len(sent) == 1  # a frame has no room for more
    found = await take(other, 20)
    assert len(sent) == 2
    assert [message[1] for message, _ in found] == [*range(20)]
    for _, descriptor in found:
        os.close(descriptor)


@pytest.mark.parametrize("how", ["urgent", "gathered", "many"])
async def test_a_fault_of_ours_ends_the_channel_and_nothing_waits_for_ever(ends, caplog, how):
    ours, other = ends
    reader, writer = os.pipe()
    if how == "urgent":
        ours.send("no pickle", lambda: None, descriptor=reader)
    else:
        os.close(reader)
        for _ in range(1 if how == "gathered" else 256):
            ours.gather(("no pickle", lambda: None))
    with trio.fail_after(10):
        assert await other.receive() == []
        ours.send("later")
        await ours.finish()
    assert len(caplog.records) == 1
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(reader)
    os.close(writer)


def test_the_other_end_is_a_plain_socket():
    ours, theirs = channel_pair()
    assert isinstance(theirs, socket.socket)
    theirs.close()
    ours.close()
