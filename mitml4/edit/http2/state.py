"""The state of an HTTP/2 connection that is edited: its streams, and both directions."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Final

from hpack import Decoder, Encoder, HeaderTuple

from mitml4.dataclass import dataclass
from mitml4.edit.messages import Request, Response
from mitml4.protocols.conversation import Direction
from mitml4.protocols.http import http2_wire as wire
from mitml4.protocols.http.http2_frames import MAX_HEADER_BLOCK
from mitml4.protocols.http.http2_wire import ErrorCode, Http2Error

__all__ = ["OUR_TABLE", "Block", "Half", "Job", "Leg", "ReceiverSettings", "Stream"]

UP, DOWN = Direction.UP, Direction.DOWN

OUR_TABLE: Final = 4096
_MAX_UNACKNOWLEDGED: Final = 1000


@dataclass(slots=True)
class Block:
    """A header block as it came."""

    kind: int
    flags: int
    stream: int
    prefix: bytes
    """Priority, or the promised stream."""
    frames: list[tuple[int, int, bytes]]
    """Kind, flags and payload of each frame."""
    fragments: bytearray
    headers: Sequence[HeaderTuple] = ()
    order: int = -1
    """How many blocks came before it in its direction; -1: it is ours."""

    @property
    def ends(self) -> bool:
        return bool(self.kind == wire.HEADERS and self.flags & wire.END_STREAM)


@dataclass(slots=True)
class Half:
    """One direction of a stream."""

    head: Block | None = None
    """The head that is held back, or was."""
    is_held: bool = False
    """The editor has not let it go yet."""
    is_collecting: bool = False
    """The editor wants the whole body."""
    collected: int = 0
    """Bytes that have come while it was collected."""
    is_above: bool = False
    """The body is above the limit."""
    was_asked: bool = False
    has_ended: bool = False
    """Its source has ended it."""
    is_dropped: bool = False
    """Nothing of it goes on."""
    queue: bytearray = field(default_factory=bytearray)
    """Content that waits."""
    credited: int = 0
    """So many bytes of the queue were credited to their source."""
    inbox: bytearray | None = None
    """Content that waits to be taken, where somebody takes it piece by piece."""
    inbox_ended: bool = False
    trailers: Block | None = None
    is_over: bool = False
    """Its end was sent."""
    window: int = 0
    """What the receiver takes, by its latest SETTINGS."""
    swallow: int = 0
    rate: float | None = None
    allowance: int = 0
    """With a rate: how many bytes may be sent now."""
    content: bytes | None = None
    """The decoded body, as it was handed over."""


@dataclass(slots=True)
class Stream:
    """A stream that is open."""

    number: int
    """The client's."""
    up: Half
    down: Half
    request: Request | None = None
    response: Response | None = None
    is_local: bool = False
    """The server does not know it."""
    is_pushed: bool = False
    reset: bytes | None = None
    """The server has reset the stream with this, which goes on behind what it has sent before."""
    early_updates: int = 0
    """WINDOW_UPDATE of the client before the server knows the stream."""

    def half(self, direction: Direction) -> Half:
        return self.up if direction is UP else self.down


@dataclass(frozen=True, slots=True)
class Job:
    """The editor has to be asked about a message whose head, or whose body, is there."""

    stream: Stream
    direction: Direction
    """UP: it is the request."""


class ReceiverSettings:
    """What a receiver's SETTINGS allow (RFC 9113 §6.5.3).

    Less is allowed as soon as they come. More is allowed when their acknowledgement passes: until
    then, the receiver may hold its peer to the earlier ones.
    """

    def __init__(self) -> None:
        self._windows = deque([wire.INITIAL_WINDOW])
        """The acknowledged one, and those that are not."""
        self._tables = deque([OUR_TABLE])

    def on_settings(self, values: Mapping[int, int]) -> None:
        """Raises Http2Error."""
        if len(self._windows) > _MAX_UNACKNOWLEDGED:
            raise Http2Error("too many SETTINGS at once", ErrorCode.ENHANCE_YOUR_CALM)
        self._windows.append(values.get(wire.INITIAL_WINDOW_SIZE, self.window))
        self._tables.append(values.get(wire.HEADER_TABLE_SIZE, self._tables[-1]))

    def on_acknowledged(self) -> None:
        """The oldest SETTINGS that were not acknowledged are."""
        if len(self._windows) > 1:
            self._windows.popleft()
            self._tables.popleft()

    @property
    def window(self) -> int:
        """The latest initial window of a stream."""
        return self._windows[-1]

    @property
    def early_window(self) -> int:
        """So much of the latest initial window may not be used yet."""
        return self.window - min(self._windows)

    @property
    def table(self) -> int:
        """The largest table of the receiver's decoder."""
        return min(self._tables)


class Leg:
    """One direction of the connection."""

    def __init__(self, direction: Direction) -> None:
        self.direction = direction
        self.data = bytearray()
        self.out = bytearray()
        self.decoder = Decoder(max_header_list_size=MAX_HEADER_BLOCK)
        self.encoder: Encoder | None = None
        self.settings = ReceiverSettings()
        self.block: Block | None = None
        self.blocks = 0
        """How many blocks have come."""
        self.passed = 0
        """How many have passed as they came. A block can do so only if all before it have: else the
        receiver's table lacks what they would have added."""
        self.window = wire.INITIAL_WINDOW
        """What the receiver takes on the connection."""
        self.waiting: dict[int, Stream] = {}
        """The streams whose content waits for windows."""
        self.swallow = 0
        self.has_preface = direction is DOWN
        self.has_begun = False
        """Whether the first SETTINGS have passed; nothing goes before them (§3.4)."""
        self.has_ended = False
        """Whether its source has ended."""
