"""Processes of ours that keep what the session gives up, and do it on request.

A helper is forked while this process has one thread. It answers one request at a time on a channel
(a SOCK_SEQPACKET pair; JSON, with descriptors attached), and ends when the other end of the channel
is closed, for whatever reason. It never uses the terminal, and runs in a separate session (setsid).
Who closes its channel long before this process ends waits for it (`processes.wait_for_helper`).
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NoReturn, TypeAlias

from mitml4.dataclass import dataclass
from mitml4.errors import MachineError, limit_hint
from mitml4.net import processes

__all__ = ["Answer", "Helper", "ask", "send", "serve", "start"]

_MAX_MESSAGE: Final = 65536
_MAX_DESCRIPTORS: Final = 16
"""Limits of a request or an answer: bytes, and attached descriptors."""

Answer: TypeAlias = tuple[dict[str, Any], list[int]]
Serve: TypeAlias = Callable[[str, dict[str, Any], list[int]], Answer]


@dataclass(frozen=True, slots=True)
class Helper:
    """One that was started."""

    channel: socket.socket
    """Our end."""
    pid: int
    answer: dict[str, Any]
    descriptors: list[int]
    """Its first answer."""


def start(work: Callable[[socket.socket], NoReturn], *, keep: Iterable[int] = ()) -> Helper:
    """Fork a helper that does `work` with its end of the channel; it keeps these descriptors, and
    no others. Raises OSError, MachineError as the helper did."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = 0
    try:
        with theirs:
            pid = processes.fork_helper(ours)
            if not pid:
                _work_in_child(work, theirs, keep)
        return Helper(ours, pid, *_receive(ours))
    except BaseException:
        ours.close()
        processes.wait_for_helper(pid)
        raise


def _work_in_child(
    work: Callable[[socket.socket], NoReturn], channel: socket.socket, keep: Iterable[int]
) -> NoReturn:
    try:
        processes.close_descriptors({channel.fileno(), *keep})
        os.chdir("/")
        work(channel)
    except (MachineError, OSError) as error:
        send(channel, _failure(error), [])
    finally:
        os._exit(0)


def serve(channel: socket.socket, answer: Serve, leave: Callable[[], None]) -> NoReturn:
    """Answer requests until the channel is closed; then `leave`, and end."""
    while True:
        data, descriptors, _, _ = socket.recv_fds(channel, _MAX_MESSAGE, _MAX_DESCRIPTORS)
        if not data:
            leave()
            os._exit(0)
        try:
            request = json.loads(data)
            message, attached = answer(request.pop("do"), request, descriptors)
        except (OSError, MachineError) as error:
            message, attached = _failure(error), []
        for descriptor in descriptors:
            os.close(descriptor)
        send(channel, message, attached)


def send(channel: socket.socket, message: Mapping[str, Any], descriptors: list[int]) -> None:
    """Send an answer, and close the descriptors; end if nobody receives it."""
    try:
        socket.send_fds(channel, [json.dumps(message).encode()], descriptors)
    except OSError:  # the other end has closed
        os._exit(0)
    for descriptor in descriptors:
        os.close(descriptor)


def ask(
    channel: socket.socket, what: str, descriptors: Sequence[int] = (), **arguments: Any
) -> Answer:
    """The answer to a request. Raises OSError, MachineError as the helper did."""
    message = json.dumps({"do": what} | arguments).encode()
    try:
        socket.send_fds(channel, [message], list(descriptors))
    except OSError as error:
        raise _lost() from error
    return _receive(channel)


def _receive(channel: socket.socket) -> Answer:
    """An answer, and the attached descriptors. Raises OSError, MachineError as the helper did."""
    try:
        data, descriptors, _, _ = socket.recv_fds(channel, _MAX_MESSAGE, _MAX_DESCRIPTORS)
    except ConnectionResetError as error:  # it has ended before it has read the request
        raise _lost() from error
    for descriptor in descriptors:  # recv_fds ignores MSG_CMSG_CLOEXEC (Python 3.11)
        os.set_inheritable(descriptor, False)
    if not data:
        raise _lost()
    answer = json.loads(data)
    if "error" not in answer:
        return answer, descriptors
    if answer["errno"]:
        raise OSError(answer["errno"], answer["error"])
    raise MachineError(answer["error"], hint=answer["hint"])


def _failure(error: MachineError | OSError) -> dict[str, Any]:
    if isinstance(error, MachineError):
        return {"error": error.message, "hint": error.hint, "errno": None}
    hint = limit_hint(error)
    return {"error": error.strerror or str(error), "hint": hint, "errno": error.errno}


def _lost() -> MachineError:
    return MachineError("a process that mitml4 needs has ended", hint="start it again")
