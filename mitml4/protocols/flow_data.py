"""The bytes of an innermost layer whose protocol makes no events of what is said in it."""

from __future__ import annotations

from typing import ClassVar

from mitml4.dataclass import dataclass
from mitml4.payload.text import PayloadText
from mitml4.protocols.conversation import Direction
from mitml4.protocols.protocol_event import ProtocolEvent

__all__ = ["FlowData"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowData(ProtocolEvent):
    """With --payload: bytes of an innermost layer whose protocol has no events, as they were sent.

    Either `text` or `base64`. `offset`: of the first byte in its direction of this layer.
    `truncated`: more bytes follow that are not shown.
    """

    type: ClassVar[str] = "flow.data"
    direction: Direction
    offset: int
    text: PayloadText | None = None
    base64: PayloadText | None = None
    truncated: bool = False

    @property
    def payload_size(self) -> int:
        return len(self.text or self.base64 or "")
