"""A worker's side of its channel, as far as it needs no session."""

import os
import socket

import pytest
import trio

from mitml4.session.workers.worker import _Question


def end_of_connection():
    """A descriptor, and the socket at its other end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        far = socket.create_connection(listener.getsockname())
        return listener.accept()[0].detach(), far


async def test_an_answer_comes_with_its_socket():
    descriptor, far = end_of_connection()
    question = _Question()
    async with trio.open_nursery() as nursery:
        trio.lowlevel.current_trio_token().run_sync_soon(question.answer, None, 7, descriptor)
        await question.wait_answer()
        nursery.cancel_scope.cancel()
    assert question.value == 7
    with question.take_socket() as sock, far:
        assert sock.getpeername() == far.getsockname()


async def test_an_answer_can_be_an_error_or_lack_its_socket():
    token = trio.lowlevel.current_trio_token()
    question = _Question()
    token.run_sync_soon(question.answer, ConnectionRefusedError(), None, None)
    with pytest.raises(ConnectionRefusedError):
        await question.wait_answer()
    question = _Question()
    token.run_sync_soon(question.answer, None, None, None)
    await question.wait_answer()
    with pytest.raises(OSError, match=os.strerror(24)):
        question.take_socket()


async def test_an_answer_that_comes_with_the_cancellation_is_dropped():
    descriptor, far = end_of_connection()
    question = _Question()
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await question.wait_answer()
        finally:
            question.answer(None, None, descriptor)
    assert scope.cancelled_caught
    with far, pytest.raises(ConnectionResetError):
        far.recv(1)
