"""A listener by itself; behind a gate and rules, it is in e2e/test_rules.py."""

from __future__ import annotations

import errno
import os
import resource
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from mitml4.address import Address
from mitml4.net.listener import Listener


@pytest.fixture
async def listener():
    listener = Listener()
    yield listener
    listener.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_connection_is_known_by_its_ends(listener: Listener, host: str) -> None:
    with socket.create_connection((host, listener.address.port)) as client, trio.fail_after(5):
        accepted = await listener.accept()
        with accepted.socket:
            assert accepted.peer == Address.of(client.getsockname())
            assert accepted.own == Address.of(client.getpeername())


async def test_what_it_accepts_has_what_a_stream_needs_of_its_socket(listener: Listener) -> None:
    with socket.create_connection(("127.0.0.1", listener.address.port)), trio.fail_after(5):
        accepted = await listener.accept()
    with accepted.socket as sock:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == struct.pack("ii", 1, 0)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE)


async def test_one_that_was_reset_before_it_is_accepted_is_no_error(listener: Listener) -> None:
    with socket.create_connection(("127.0.0.1", listener.address.port)) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with socket.create_connection(("127.0.0.1", listener.address.port)) as client:
        with trio.fail_after(5):
            while (accepted := await listener.accept()).peer != Address.of(client.getsockname()):
                accepted.socket.close()
        accepted.socket.close()


async def test_one_that_is_lost_on_its_way_to_another_process_is_reset(listener: Listener) -> None:
    """Not ended, as if the server had nothing to say."""
    with socket.create_connection(("127.0.0.1", listener.address.port)) as client:
        with trio.fail_after(5):
            accepted = await listener.accept()
        ours, theirs = socket.socketpair()
        with ours:
            socket.send_fds(ours, [b"x"], [accepted.socket.fileno()])
            accepted.socket.close()
            theirs.close()  # unread
        client.settimeout(5)
        with pytest.raises(ConnectionResetError):
            client.recv(1)


async def test_closing_wakes_who_waits(listener: Listener) -> None:
    async with trio.open_nursery() as nursery:

        async def accept() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await listener.accept()

        nursery.start_soon(accept)
        await wait_all_tasks_blocked()
        listener.close()
    with pytest.raises(trio.ClosedResourceError):
        await listener.accept()


async def test_a_crowd_is_accepted_some_at_a_time(listener: Listener) -> None:
    """Others that are busy shall neither keep it waiting for long, nor wait for all of it."""
    turns = 0

    async def be_busy() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    with ExitStack() as sockets:
        for _ in range(200):
            address = ("127.0.0.1", listener.address.port)
            sockets.enter_context(socket.create_connection(address))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(be_busy)
            await trio.lowlevel.checkpoint()
            for _ in range(200):
                sockets.enter_context((await listener.accept()).socket)
            nursery.cancel_scope.cancel()
    assert 4 <= turns < 12


class Failing:
    """A listening socket whose accept fails in turn with each of the errors, then is closed."""

    def __init__(self, *codes: int) -> None:
        self.codes = list(codes)

    async def accept(self) -> None:
        await trio.lowlevel.checkpoint()
        if not self.codes:
            raise trio.ClosedResourceError
        code = self.codes.pop(0)
        raise OSError(code, os.strerror(code))


@pytest.mark.parametrize(
    ("code", "pause_s"),
    [(errno.ECONNABORTED, 0.0), (errno.EPERM, 0.0), (errno.EMFILE, 0.1), (errno.ENOBUFS, 0.1)],
)
async def test_a_failure_to_accept_is_survived(
    listener: Listener, monkeypatch, autojump_clock, code: int, pause_s: float
) -> None:
    failing = Failing(code, code)
    started = trio.current_time()
    with monkeypatch.context() as patch:
        patch.setattr(listener, "_next", failing.accept)
        with pytest.raises(trio.ClosedResourceError):
            await listener.accept()
    assert failing.codes == []
    assert trio.current_time() - started == pytest.approx(2 * pause_s)


async def test_without_a_descriptor_it_resets_who_waits(listener: Listener) -> None:
    """Rather than let him wait for one, which nobody may ever give back."""
    clients = [socket.create_connection(("127.0.0.1", listener.address.port)) for _ in range(3)]
    with no_descriptor_left(), trio.move_on_after(0.05):
        await listener.accept()
    for client in clients:
        client.settimeout(5)
        with client, pytest.raises(ConnectionResetError):
            client.recv(1)
    with socket.create_connection(("127.0.0.1", listener.address.port)), trio.fail_after(5):
        (await listener.accept()).socket.close()


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd"))) + 1
    held = []
    while not held or held[-1] < highest:
        held.append(os.dup(0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (held[-1] + 1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in held:
            os.close(descriptor)
