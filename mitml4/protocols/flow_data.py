"""The bytes of an innermost layer whose protocol makes no events of what is said in it."""

from __future__ import annotations

from base64 import b64encode
from typing import ClassVar, Final

from mitml4.dataclass import dataclass
from mitml4.protocols.conversation import Direction
from mitml4.protocols.protocol_event import ProtocolEvent
from mitml4.regex import regex

__all__ = ["FlowData", "text_or_base64"]

_BINARY: Final = regex(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
"""Control characters that no text has: all but white space and escape sequences."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowData(ProtocolEvent):
    """With --payload: bytes of an innermost layer that has no events of its own, as they were sent.

    Either `text` or `base64`. `offset`: of the first byte in its direction of this layer.
    `truncated`: more bytes follow that are not shown.
    """

    type: ClassVar[str] = "flow.data"
    direction: Direction
    offset: int
    text: str | None = None
    base64: str | None = None
    truncated: bool = False


def text_or_base64(data: bytes) -> tuple[str | None, str | None]:
    """The data as text if it is that, in UTF-8; otherwise in base64."""
    if not _BINARY.search(data):
        try:
            return data.decode(), None
        except UnicodeDecodeError:
            pass
    return None, b64encode(data).decode()
