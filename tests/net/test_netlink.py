"""Messages of the kernel that cannot be received, because there is no memory for them."""

import errno
import os
import socket

import pytest

from mitml4.net.netlink import dump, receive_nowait, request

ACKNOWLEDGED = (20).to_bytes(4, "little") + b"\2\0" + bytes(14)


class Kernel(socket.socket):
    """What is received is known: messages, or numbers of errors."""

    def __init__(self, *outcomes: bytes | int) -> None:
        super().__init__()
        self.close()
        self.outcomes = list(outcomes)

    def send(self, data, flags: int = 0) -> int:
        return len(data)

    def recv(self, size: int, flags: int = 0) -> bytes:
        outcome = self.outcomes.pop(0) if self.outcomes else errno.EAGAIN
        if isinstance(outcome, int):
            raise OSError(outcome, os.strerror(outcome))
        return outcome


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [(b"a message", b"a message"), (errno.EAGAIN, None), (errno.ENOBUFS, b""), (errno.ENOMEM, b"")],
)
def test_messages_may_be_lost(outcome, expected) -> None:
    assert receive_nowait(Kernel(outcome)) == expected


def test_other_errors_are_raised() -> None:
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        receive_nowait(Kernel(errno.EIO))


@pytest.mark.parametrize(
    "ask", [lambda sock: request(sock, 0, b""), lambda sock: list(dump(sock, 0, b""))]
)
def test_an_answer_that_comes_too_late_is_not_that_of_the_next_request(ask) -> None:
    kernel = Kernel(errno.ENOMEM, ACKNOWLEDGED, ACKNOWLEDGED)
    with pytest.raises(OSError, match=os.strerror(errno.ENOMEM)):
        ask(kernel)
    assert kernel.outcomes == []
