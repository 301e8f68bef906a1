"""Lets clients connect again from the port of a connection that was reset from here.

Programs do that which have a fixed port, as NFS does (`PendingConnection.was_reset`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

from mitml4.events import CloseReason, FlowClose
from mitml4.net.gate.gate import PendingConnection
from mitml4.session.flows.flows import Carried
from mitml4.sinks.updates import Published

__all__ = ["Reconnecting"]

_RESET: Final[frozenset[CloseReason]] = frozenset({"reset", "timeout", "blocked"})
"""Reasons with which the client was reset before flow.close was published. Not `shutdown`: a worker
that does not answer resets its clients later. Nor `error` and `denied`, where answers may still be
on their way."""


class Reconnecting:
    """It is told of the events of the session."""

    wants: ClassVar[tuple[type, ...]] = (FlowClose,)

    def __init__(self) -> None:
        self.open: Mapping[int, Carried] = {}
        """The flows of the session, by number."""

    def publish(self, event: Published) -> None:
        assert isinstance(event, FlowClose)
        if event.reason in _RESET and (flow := self.open.get(event.flow)):
            connection = flow.connection
            if isinstance(connection, PendingConnection):
                connection.was_reset()
