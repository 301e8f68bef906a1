"""What is known of a flow: its layers, its HTTP exchanges, its messages, and how it ended.

These are plain objects, which can be pickled. Details of layers are dictionaries, as in the JSON
lines, so that those of later versions and of other protocols need no class here.
"""

from __future__ import annotations

from base64 import b64decode
from dataclasses import field
from datetime import datetime
from typing import Any, TypeAlias

from mitml4.address import Address
from mitml4.dataclass import dataclass
from mitml4.model.names import server_of
from mitml4.protocols.policy import Target

__all__ = [
    "Body",
    "Data",
    "Edit",
    "Exchange",
    "Flow",
    "Headers",
    "Layer",
    "Message",
    "OtherEvent",
    "Probe",
    "Problem",
    "Request",
    "Response",
]

Headers: TypeAlias = tuple[tuple[str, str], ...]
"""Names and values, in the order and the spelling of the wire."""


@dataclass(slots=True, kw_only=True)
class Layer:
    """A layer of the stack, such as TLS."""

    depth: int
    """0 is the outermost layer."""
    protocol: str
    action: str
    """`relayed`, `intercepted` (TLS that was decrypted) or `passthrough` (TLS that was not)."""
    speaker: str
    """Who showed the protocol: `client` or `server`."""
    details: dict[str, Any]
    """As in the event `flow.layer` (docs/events.md); empty if there are none."""
    connect_s: float | None = None
    """Of the outermost layer: how long it took to connect to the server."""
    time: datetime


@dataclass(slots=True, kw_only=True)
class _Content:
    """Bytes, as text where they are text."""

    text: str | None = None
    base64: str | None = None
    truncated: bool = False
    """Whether there was more than the limit (`--payload-limit`)."""

    @property
    def content(self) -> bytes | None:
        """The bytes (text in UTF-8); None if the session did not keep them."""
        if self.text is not None:
            return self.text.encode("utf-8", "surrogatepass")
        return None if self.base64 is None else b64decode(self.base64)


@dataclass(slots=True, kw_only=True)
class _Coded(_Content):
    """Bytes that may have been compressed."""

    decoded_size: int | None = None
    """With the codings undone; None if not all was decoded."""
    encoding: tuple[str, ...] = ()
    """The codings that were undone."""
    coding_error: str | None = None
    """Why they could not be undone; the content is as it was sent."""


@dataclass(slots=True, kw_only=True)
class Body(_Coded):
    """The body of a request or response."""

    size: int
    """Bytes as sent."""
    charset: str | None = None
    """In which `text` was sent."""


@dataclass(slots=True, kw_only=True)
class Message(_Coded):
    """A message of WebSocket or gRPC."""

    protocol: str
    """`websocket` or `grpc`."""
    depth: int
    stream: int | None
    """The stream of HTTP/2 that carried it; None over HTTP/1."""
    direction: str
    """`up` (from the client) or `down`."""
    opcode: str | None = None
    """Of WebSocket: `text`, `binary`, `close`, `ping` or `pong`."""
    compressed: bool | None = None
    """Whether a message of gRPC was compressed."""
    size: int
    time: datetime


@dataclass(slots=True, kw_only=True)
class Data(_Content):
    """Bytes of an innermost layer that is neither HTTP nor WebSocket."""

    depth: int
    direction: str
    offset: int
    """Where in the direction's bytes these begin."""
    time: datetime


@dataclass(slots=True, kw_only=True)
class OtherEvent:
    """An event of a protocol that has no other place in the model, such as a command."""

    type: str
    depth: int
    time: datetime
    details: dict[str, Any]
    """Its other fields."""


@dataclass(slots=True, kw_only=True)
class Request:
    """The head of a request, its trailers and its body."""

    method: str
    url: str
    version: str
    content_type: str | None = None
    headers: Headers | None = None
    """None if the session did not keep them (`--headers`)."""
    trailers: Headers | None = None
    body: Body | None = None
    """None if the session did not keep it (`--payload`), or there was none."""
    body_bytes: int | None = None
    """As sent; None until the exchange has ended."""
    time: datetime


@dataclass(slots=True, kw_only=True)
class Response:
    """The head of a response, its trailers and its body."""

    status: int
    version: str
    content_type: str | None = None
    headers: Headers | None = None
    trailers: Headers | None = None
    body: Body | None = None
    body_bytes: int | None = None
    time: datetime


@dataclass(slots=True, kw_only=True)
class Exchange:
    """An HTTP request and its response."""

    depth: int
    """The layer of HTTP."""
    stream: int
    """The HTTP/2 stream, or the number of the message on its connection, from 1."""
    request: Request
    response: Response | None = None
    """The last response; earlier ones are informational (1xx)."""
    informational: list[Response] = field(default_factory=list)
    outcome: str | None = None
    """`complete`, `reset` or `cut`; None until it has ended."""
    reset_code: str | None = None
    duration_s: float | None = None
    request_s: float | None = None
    """How long it took until the content of the request was complete, if it has any."""

    @property
    def ended(self) -> bool:
        return self.outcome is not None


@dataclass(slots=True, kw_only=True)
class Problem:
    """Something failed: the event `flow.error`."""

    depth: int
    side: str
    stage: str
    kind: str
    reason: str
    time: datetime


@dataclass(slots=True, kw_only=True)
class Edit:
    """A rule or a hook has changed something, or a hook has failed: the events `rule.applied` and
    `script.error`."""

    depth: int
    stream: int | None
    rule: int | None
    """Its number in its file, from 1."""
    file: str | None
    match: str | None
    hook: str | None
    """The script with its hook."""
    what: str
    reason: str | None
    time: datetime
    is_change: bool = True
    """Whether anything was changed."""

    @property
    def text(self) -> str:
        """In a few words: `edited by rule 2 of rules.toml: respond`."""
        who = f"{self.hook}: " if self.hook else ""
        if self.rule:
            who = f"rule {self.rule} of {self.file}: " if self.file else f"rule {self.rule}: "
        if self.what == "unedited":
            return f"not edited: {self.reason}"
        begin = "edited by " if self.is_change else "not edited: "
        return f"{begin}{who}{self.what}" + (f" ({self.reason})" if self.reason else "")


@dataclass(slots=True, kw_only=True)
class Probe:
    """What the client did when it was shown a defect: the event `client.probe`."""

    name: str
    """The name or address that the client expected."""
    case: str
    outcome: str
    reason: str | None
    time: datetime

    @property
    def text(self) -> str:
        """In a few words: `probe expired: sent_data (78 bytes)`."""
        return f"probe {self.case}: {self.outcome}" + (f" ({self.reason})" if self.reason else "")

    @property
    def is_finding(self) -> bool:
        """Whether the client took what it should have refused."""
        return self.outcome in ("accepted", "sent_data")


@dataclass(slots=True, kw_only=True)
class Flow:
    """One TCP connection, or in a capture what two ends say over UDP."""

    number: int
    client: Address
    destination: Address
    """Where the client connected to."""
    opened_at: datetime
    name: str | None = None
    """The name that the client resolved to the destination's address."""
    interface: str | None = None
    transport: str = "tcp"
    process: dict[str, Any] | None = None
    """The local process that connected, as in the event `flow.open`."""
    container: str | None = None
    side: str | None = None
    """In a packet file that mitml4 wrote: the side of mitml4 on which the packets were seen,
    `client` or `server`."""
    session_flow: int | None = None
    """In such a file: the number of the flow in the session that wrote it."""
    layers: list[Layer] = field(default_factory=list)
    exchanges: list[Exchange] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    data: list[Data] = field(default_factory=list)
    others: list[OtherEvent] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    edits: list[Edit] = field(default_factory=list)
    """What rules and hooks have changed, and the hooks that have failed."""
    probes: list[Probe] = field(default_factory=list)
    """What `--probe-clients` has found out in this flow."""
    reason: str | None = None
    """Why it closed (`closed`, `reset`, `refused`, …); None while it is open, and if the file ends
    before."""
    closed_at: datetime | None = None
    bytes_up: int = 0
    bytes_down: int = 0
    duration_s: float | None = None

    @property
    def stack(self) -> tuple[str, ...]:
        """The protocols, outermost first."""
        return tuple(layer.protocol for layer in self.layers)

    @property
    def is_edited(self) -> bool:
        """Whether a rule or a hook has changed something."""
        return any(edit.is_change for edit in self.edits)

    @property
    def is_open(self) -> bool:
        return self.reason is None

    @property
    def server(self) -> Target:
        """The server by its best name (`host` and `port`): what the innermost layer that names one
        asked for; otherwise the DNS name or the address."""
        server = Target(self.name or self.destination.ip, self.destination.port)
        for layer in self.layers:
            server = server_of(layer.details, server) or server
        return server

    @property
    def passthrough(self) -> str | None:
        """Why TLS was not decrypted, such as `pinned`; None if it was, or there was none."""
        for layer in self.layers:
            if layer.action == "passthrough":
                return str(layer.details.get("passthrough") or "policy")
        return None
