"""Finds the processes of connections while a session runs.

A session that has dropped its privileges can look at no other process. A helper, which is started
before, keeps the right to, and nothing else. It is asked as soon as a connection comes, and answers
in order; no connection waits longer than `_TIMEOUT_S` for it.
"""

from __future__ import annotations

import json
import math
import os
import socket
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any, Final, NoReturn, Self, TypeAlias

import trio

from mitml4.address import Address
from mitml4.dataclass import dataclass
from mitml4.errors import MachineError, limit_hint
from mitml4.net import helper, isolation
from mitml4.net.capabilities import Capability
from mitml4.net.confinement import confine
from mitml4.net.isolation import CLONE_NEWUSER
from mitml4.net.owner.diag import open_diag, owned
from mitml4.net.owner.processes import ProcessTable
from mitml4.process import Process, RunningProcess

__all__ = ["OwnerFinder"]

Told: TypeAlias = Callable[[RunningProcess | None], None]

_TIMEOUT_S: Final = 0.5
_MAX_MESSAGE: Final = 65536
_KEPT: Final = (Capability.DAC_READ_SEARCH, Capability.SYS_PTRACE)
"""Needed to see which descriptors the processes of other users have."""


@dataclass(frozen=True, slots=True)
class _Question:
    told: Told
    until: float


class OwnerFinder:
    """Asks a helper. Close it, or use it as a context manager."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._number = 0
        self._pending: OrderedDict[int, _Question] = OrderedDict()
        self._unsent: OrderedDict[int, bytes] = OrderedDict()
        """Questions for which the channel had no room."""
        self._asked = trio.Event()
        self._has_ended = False

    @classmethod
    def start(
        cls, diag: socket.socket, *, network: int | None = None, user: int | None = None
    ) -> Self:
        """Start the helper, before any thread is started. It gets `diag` (`open_diag`), which is
        closed here.

        `network`, `user`: the descriptors of the network namespace in which the processes are, and
        of the user namespace that this belongs to, if they are not ours. Raises MachineError.
        """
        with diag:
            keep = [diag.fileno(), *([] if user is None else [user])]
            inode = None if network is None else os.fstat(network).st_ino
            try:
                channel = helper.start(partial(_work, diag, inode, user), keep=keep).channel
            except OSError as error:
                hint = limit_hint(error, "mitml4 doctor")
                raise MachineError(
                    f"cannot look at processes: {error.strerror}", hint=hint
                ) from error
        channel.setblocking(False)
        return cls(channel)

    @classmethod
    def of_this_host(cls) -> Self:
        """For the connections of this host; see `start`. Raises MachineError."""
        try:
            return cls.start(open_diag())
        except OSError as error:
            hint = "sudo modprobe tcp_diag"
            raise MachineError(
                f"cannot look at connections: {error.strerror}", hint=hint
            ) from error

    def ask(self, client: Address, destination: Address, told: Told) -> None:
        """Call `told` with the process that has connected, while `run` runs; at once if it cannot
        be found."""
        self._number += 1
        question = json.dumps(
            [self._number, client.ip, client.port, destination.ip, destination.port]
        )
        until = trio.current_time() + _TIMEOUT_S
        self._pending[self._number] = _Question(told, until)
        self._unsent[self._number] = question.encode()
        self._send()
        if self._has_ended:
            self.flush()
        self._asked.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            while not self._pending:
                self._asked = trio.Event()
                await self._asked.wait()
            with trio.move_on_at(next(iter(self._pending.values())).until):
                await trio.lowlevel.wait_readable(self._channel)
                self._read()
                self._send()
            self._give_up(trio.current_time())

    def flush(self) -> None:
        """Wait for no answer any more."""
        self._give_up(math.inf)

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self) -> None:
        try:
            while self._unsent:
                number, question = next(iter(self._unsent.items()))
                self._channel.send(question)
                del self._unsent[number]
        except BlockingIOError:
            pass
        except OSError:
            self._has_ended = True

    def _read(self) -> None:
        while self._pending:
            try:
                answer = self._channel.recv(_MAX_MESSAGE)
            except BlockingIOError:
                return
            except ConnectionResetError:
                answer = b""
            if not answer:
                self._has_ended = True
                self.flush()
                return
            number, said = json.loads(answer)
            if question := self._pending.pop(number, None):
                question.told(_process(said))

    def _give_up(self, now: float) -> None:
        while self._pending:
            number, question = next(iter(self._pending.items()))
            if question.until > now:
                return
            del self._pending[number]
            self._unsent.pop(number, None)
            question.told(None)


def _process(said: dict[str, Any] | None) -> RunningProcess | None:
    if said is None:
        return None
    process = said["process"]
    process["command"] = tuple(process["command"])
    return RunningProcess(Process(**process), said["started_s"])


def _work(
    diag: socket.socket, network: int | None, user: int | None, channel: socket.socket
) -> NoReturn:
    """The helper."""
    if user is not None:
        isolation.setns(user, CLONE_NEWUSER)
    processes = ProcessTable(network=network)
    confine(_KEPT)
    helper.send(channel, {}, [])
    while question := channel.recv(_MAX_MESSAGE):
        number, ip, port, to_ip, to_port = json.loads(question)
        found = _find(diag, processes, Address(ip, port), Address(to_ip, to_port))
        answer = json.dumps([number, found and asdict(found)])
        try:
            channel.send(answer.encode())
        except OSError:
            break
    os._exit(0)


def _find(
    diag: socket.socket, processes: ProcessTable, client: Address, destination: Address
) -> RunningProcess | None:
    try:
        socket_of_client = owned(diag, client, destination)
    except OSError:
        return None
    return processes.find(socket_of_client) if socket_of_client else None
