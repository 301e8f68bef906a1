"""Connections that are intercepted by rules: `intercept`'s flow source."""

from __future__ import annotations

import math
import os
import pwd
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

import trio

from mitml4.address import Address
from mitml4.errors import MachineError
from mitml4.net import dial
from mitml4.net.links import Change
from mitml4.net.listener import IncomingConnection
from mitml4.net.owner.finder import OwnerFinder
from mitml4.net.place import HERE
from mitml4.net.rules.guard import NftError
from mitml4.net.rules.interception import Interception, Preparation, intercepting
from mitml4.net.rules.notes import belongs
from mitml4.net.rules.scope import Cgroup, Owner, Scope
from mitml4.net.tcp import TcpStream
from mitml4.session.destinations.policy import Policy
from mitml4.session.saying import Say
from mitml4.session.sources.host_services import is_loopback
from mitml4.session.sources.quic_refusals import tell_of_quic
from mitml4.session.sources.source import SessionControl, SourceStart
from mitml4.sinks.updates import Note, QuicBlocked

__all__ = ["Rules"]

_QUIC_EVERY_S: Final = 2.0
_TRY_AT_MOST_EVERY_S: Final = 1.0
_TRY_AGAIN_S: Final = 5.0
_MISSING_IN_A_ROW: Final = 4
"""The number of accepted connections that do not arrive, from which on the rules are suspected."""


class Rules:
    """A flow source: connections that are redirected by rules."""

    is_one_client = False
    proxy: None = None
    sees_lookups = False
    container: str | None = None

    def __init__(
        self,
        scope: Scope,
        interception: Interception,
        policy: Policy,
        owners: OwnerFinder | None = None,
    ) -> None:
        """Where the policy refuses any hosts, no new connection may pass unseen."""
        self.scope = scope
        self.interception = interception
        self.owners = owners
        self._place = interception.channel.place
        self._policy = policy
        self._is_shut_out = False
        """Whether rules of others keep new connections from us."""

    @classmethod
    @asynccontextmanager
    async def applied(
        cls,
        preparation: Preparation,
        note: Say,
        policy: Policy,
        owners: OwnerFinder | None = None,
    ) -> AsyncIterator[Rules]:
        """The rules are in place while this is entered. Raises MitmError."""
        async with intercepting(preparation) as interception:
            for each in interception.notes:
                note(each)
            yield cls(preparation.scope, interception, policy, owners)

    def start(self) -> SourceStart:
        return SourceStart(
            interfaces=self.scope.interfaces,
            listeners=(self.interception.address,),
            table=self.interception.table,
            attached=", ".join(map(_called, self.scope.owners)) or None,
        )

    @property
    def dials_anywhere(self) -> bool:
        return self._place is HERE and not self.scope.spoof_source

    async def accept(self) -> IncomingConnection:
        return await self.interception.gate.accept()

    async def connect(self, connection: IncomingConnection) -> TcpStream:
        destination = connection.destination

        def name_source(sock: socket.socket) -> None:
            self.interception.channel.name_source(sock, destination, connection.source)

        bound = name_source if self.scope.spoof_source else None
        mark = self.interception.own_mark
        return TcpStream(await dial.connect(destination, mark=mark, place=self._place, bound=bound))

    async def dial(self, address: Address) -> TcpStream:
        mark = self.interception.own_mark
        return TcpStream(await dial.connect(address, mark=mark, place=self._place))

    def is_here(self, destination: Address) -> bool:
        return is_loopback(destination)

    def source_address(self, connection: IncomingConnection, stream: TcpStream) -> Address:
        if self.scope.spoof_source:
            return connection.source
        return Address.of(stream.socket.getsockname())

    def names_of(self, destination: Address) -> tuple[str, ...]:
        return ()

    async def outlive(self, pid: int) -> None:
        await self.interception.outlive(pid)

    async def watch(self, session: SessionControl) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.interception.gate.run)
            nursery.start_soon(self._watch_guard, session)
            nursery.start_soon(self._watch_quic, session)
            nursery.start_soon(self._tell_of_quic, session)
            nursery.start_soon(self._watch_suspension, session)
            nursery.start_soon(self._watch_links, session)
            nursery.start_soon(self._watch_cgroups, session)
            nursery.start_soon(self._watch_rules_of_others, session)

    async def close(self) -> list[IncomingConnection]:
        # Where the kernel lacks memory for it, the rules end with the guard, after the open flows.
        with suppress(NftError):
            await self.interception.stop_intercepting()
        return await self.interception.gate.waiting()

    async def _watch_guard(self, session: SessionControl) -> None:
        reason = await self.interception.wait_lost()
        session.stop("rules lost", MachineError(reason, hint="start the session again"))

    async def _watch_suspension(self, session: SessionControl) -> None:
        """Ctrl-Z stops this process. Meanwhile, new connections must not wait for it."""
        if signal.getsignal(signal.SIGTSTP) is signal.SIG_IGN:
            return
        with trio.open_signal_receiver(signal.SIGTSTP) as received:
            async for _ in received:
                if not session.is_stopping:
                    await self._suspend(session)

    async def _suspend(self, session: SessionControl) -> None:
        fate = "wait, and"
        if not self._policy.allow:
            fate = "pass by unseen,"
            for connection in await self.close():
                connection.refuse(
                    TimeoutError()
                )  # no answer: the client sends its SYN again, which is no longer redirected
        said = f"suspended: new connections {fate} open ones wait (fg, or kill -CONT)"
        session.publish(Note(said))
        handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        session.signal_workers(signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGTSTP)  # returns once the process goes on
        session.signal_workers(signal.SIGCONT)
        signal.signal(signal.SIGTSTP, handler)
        if not (self._is_shut_out or self._policy.allow):
            await self.interception.resume_intercepting()
            session.publish(Note(_INTERCEPTED_AGAIN))

    async def _watch_rules_of_others(self, session: SessionControl) -> None:
        """If they no longer let new connections in, these pass by unseen until they do."""
        have_changed = False
        while True:
            with trio.move_on_after(_TRY_AGAIN_S if self._is_shut_out else math.inf):
                have_changed |= await self.interception.wait_in_doubt()
            arrives = await self.interception.arrives()
            for each in await self.interception.notes_since():
                session.publish(Note(each))
            if arrives == self._is_shut_out:
                await self._shut_out(session, not arrives)
            if have_changed and self.interception.gate.missing_in_a_row >= _MISSING_IN_A_ROW:
                have_changed = False
                session.publish(Note(_MISSING))
            await trio.sleep(_TRY_AT_MOST_EVERY_S)

    async def _shut_out(self, session: SessionControl, is_shut_out: bool) -> None:
        hint = await self.interception.remedy()
        if session.is_stopping:
            return
        self._is_shut_out = is_shut_out
        if not is_shut_out:
            await self.interception.resume_intercepting()
            session.publish(Note(_INTERCEPTED_AGAIN))
            return
        fate = "time out, since --block and --allow let none pass by unseen"
        if not (self._policy.block or self._policy.allow):
            await self.interception.stop_intercepting()
            self.interception.gate.give_up()
            fate = "pass by unseen"
        session.publish(Note(f"{_SHUT_OUT}: until they change, new ones {fate}; {hint}"))

    async def _watch_links(self, session: SessionControl) -> None:
        while True:
            for change in await self.interception.changes():
                session.publish(Note(_told(change)))

    async def _watch_cgroups(self, session: SessionControl) -> None:
        while True:
            for told in await self.interception.cgroup_changes():
                session.publish(Note(told))

    async def _tell_of_quic(self, session: SessionControl) -> None:
        if log := self.interception.quic_log:
            await tell_of_quic(log, session.publish, self.names_of)

    async def _watch_quic(self, session: SessionControl) -> None:
        while self.scope.quic == "block":
            session.publish(QuicBlocked(await self.interception.quic_blocked()))
            await trio.sleep(_QUIC_EVERY_S)


def _called(owner: Owner) -> str:
    if isinstance(owner, Cgroup):
        return f"cgroup {owner}"
    with suppress(KeyError):
        return f"user {pwd.getpwuid(owner).pw_name}"
    return f"user {owner}"


def _told(change: Change) -> str:
    match change.what:
        case "renamed":
            return f"{change.name} is now {change.other}, and is intercepted as before"
        case "gone":
            return f"{change.name} has gone: nothing is intercepted over it until it comes back"
        case "back":
            return f"{change.name} is back: new connections over it are intercepted"
        case "joined":
            return belongs(change.name, change.other)
        case "left":
            return f"{change.name} no longer belongs to {change.other}, and is intercepted again"


_SHUT_OUT: Final = "rules of this host now drop intercepted connections"
_INTERCEPTED_AGAIN: Final = "new connections are intercepted again"
_MISSING: Final = (
    "connections that mitml4 accepts do not arrive since the rules of this host have changed: a "
    "rule may drop packets of established connections"
)
