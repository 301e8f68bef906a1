"""The interface between what moves bytes and what changes messages.

`layers/editing` is the only caller. It asks `may_match` before it holds the first byte: a flow that
nothing can match keeps its usual way. Then it asks for each message. An editor changes the object
that it is given, and says by `flow.applied` what it has done. It raises nothing: one that runs what
others have written leaves the message as it was where that fails, and says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Literal, Protocol

from mitml4.dataclass import dataclass
from mitml4.edit.allowance import Allowance
from mitml4.edit.messages import Answer, Ending, Message, Request, Response
from mitml4.model.flow import Flow
from mitml4.protocols.http.websocket import WebSocket

__all__ = ["Applied", "DataEditor", "EditedFlow", "Editor", "Failed", "carries_frames"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What an editor has done."""

    what: str
    """In a few words: `set-request-headers`."""
    stream: int | None = None
    rule: int | None = None
    """The number of the rule in its file, from 1."""
    file: str | None = None
    match: str | None = None
    """Its expression."""
    hook: str | None = None
    """The script with its hook: `hooks.py: request`."""
    reason: str | None = None
    """Why something was not done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A hook has failed, so the message is as it was."""

    hook: str
    what: Literal["exception", "timeout", "ended", "refused"]
    """The last one: what it wants cannot be done."""
    stream: int | None = None
    reason: str


@dataclass(frozen=True, slots=True)
class EditedFlow:
    """The flow of a message, as far as it is known now."""

    model: Flow
    applied: Callable[[Applied | Failed], None]
    allowance: Allowance = field(default_factory=Allowance)


def carries_frames(flow: Flow) -> bool:
    """Whether the bytes are those of a WebSocket, whose messages are edited outside of it."""
    return bool(flow.layers) and flow.layers[-1].protocol == WebSocket.name


class DataEditor(Protocol):
    """Edits one direction of a protocol that is not HTTP."""

    async def feed(self, data: bytes) -> bytes | Ending:
        """What may be sent now, after these bytes have come."""

    async def flush(self) -> bytes:
        """What is still held back; more may follow."""

    @property
    def holds(self) -> bool:
        """Whether anything is held back."""

    @property
    def delay_s(self) -> float:
        """How long each piece waits."""

    @property
    def rate(self) -> float | None:
        """How many bytes may be sent in a second."""


class Editor(Protocol):
    """Changes messages."""

    @property
    def may_wait(self) -> bool:
        """Whether its methods may wait for something. Otherwise they are called one after the
        other, in the order of the messages."""

    def may_match(self, flow: Flow, *, is_named: bool) -> bool:
        """Whether anything of this flow may be changed. `is_named`: its requests ask only for the
        names that are known already."""

    def may_answer(self, flow: Flow, *, is_named: bool) -> bool:
        """Whether a request of this flow may be answered without its server. Then the server is
        connected to only when a request goes there."""

    def edits_data(self, flow: Flow, *, is_named: bool) -> bool:
        """Whether the bytes of protocols other than HTTP may be changed in this flow."""

    def wants_body(self, flow: EditedFlow, request: Request, response: Response | None) -> bool:
        """Whether to hold back the body of the request, or of the response if there is one, until
        it is complete; it is in `body` then."""

    async def request(self, flow: EditedFlow, request: Request) -> Answer | None:
        """A request is there. Returns an answer if it does not go to a server."""

    async def response(
        self, flow: EditedFlow, request: Request, response: Response
    ) -> Ending | None:
        """The response of a server is there."""

    def edits_messages(self, flow: EditedFlow, request: Request) -> bool:
        """Whether the messages of a WebSocket, which this request has opened, may be changed."""

    async def message(self, flow: EditedFlow, request: Request, message: Message) -> Ending | None:
        """A message of a WebSocket is there."""

    def data(self, flow: EditedFlow, direction: Literal["up", "down"]) -> DataEditor | None:
        """What edits a direction of another protocol."""
