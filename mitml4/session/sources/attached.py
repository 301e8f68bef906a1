"""Connections of programs that run already, in a network namespace of theirs: the flow source of
`intercept --container`, `--pid` and `--netns`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final

import trio

from mitml4.errors import MachineError
from mitml4.net.attach.reset import reset_open_connections
from mitml4.net.attach.resolver import Resolver
from mitml4.net.links import names_of_links
from mitml4.net.rules.interception import Interception, Preparation, intercepting
from mitml4.session.attach.attachment import Attachment
from mitml4.session.destinations.policy import Policy
from mitml4.session.saying import Say
from mitml4.session.sources.rules import Rules
from mitml4.session.sources.source import SessionControl, SourceStart
from mitml4.sinks.updates import Note

__all__ = ["AttachedSource"]

_LOOK_EVERY_S: Final = 1.0


class AttachedSource(Rules):
    """Rules in the network namespace of others, from which connections to servers are made too."""

    def __init__(
        self,
        attachment: Attachment,
        preparation: Preparation,
        interception: Interception,
        policy: Policy,
    ) -> None:
        super().__init__(preparation.scope, interception, policy, attachment.owners)
        self.container = attachment.container
        self._attachment = attachment
        self._interfaces = names_of_links(attachment.network)

    @classmethod
    @asynccontextmanager
    async def opened(
        cls,
        attachment: Attachment,
        preparation: Preparation,
        note: Say,
        policy: Policy,
        *,
        resets_existing: bool,
    ) -> AsyncIterator[AttachedSource]:
        """The rules are in place while this is entered, and names are looked up in the other
        namespace. Raises MachineError."""
        resolver = Resolver(preparation.place, attachment.names)
        trio.socket.set_custom_hostname_resolver(resolver)
        async with intercepting(preparation) as interception:
            for each in interception.notes:
                note(each)
            if resets_existing:
                number = reset_open_connections(attachment.network, preparation.scope)
                note(
                    f"{number} open {'connection was' if number == 1 else 'connections were'} reset"
                )
            source = cls(attachment, preparation, interception, policy)
            attachment.restrict()
            yield source

    def start(self) -> SourceStart:
        return replace(
            super().start(), interfaces=self._interfaces, attached=self._attachment.target.what
        )

    async def watch(self, session: SessionControl) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(super().watch, session)
            nursery.start_soon(self._watch_target, session)
            nursery.start_soon(self._watch_helper, session)
            trust = self._attachment.trust
            for channel in trust.channels if trust else ():
                nursery.start_soon(self._watch_covers, session, channel)

    async def _watch_target(self, session: SessionControl) -> None:
        target = self._attachment.target
        if target.process is not None:
            await trio.lowlevel.wait_readable(target.process)  # pidfd_open(2): it has ended
        else:
            while not target.has_ended:  # noqa: ASYNC110 - no event tells of it
                await trio.sleep(_LOOK_EVERY_S)
        if not session.is_stopping:
            session.publish(Note(f"{target.what} has ended"))
            session.stop("target ended")

    async def _watch_helper(self, session: SessionControl) -> None:
        await trio.lowlevel.wait_readable(self._attachment.network.channel)
        reason = f"the process that keeps {self._attachment.target.what} open has ended"
        session.stop("network lost", MachineError(reason, hint="start the session again"))

    async def _watch_covers(self, session: SessionControl, channel: int) -> None:
        await trio.lowlevel.wait_readable(channel)
        reason = f"the process that covers files of {self._attachment.target.what} has ended"
        session.stop("covers lost", MachineError(reason, hint="mitml4 cleanup"))
