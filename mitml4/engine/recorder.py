"""Keeps what is said in a layer, for `flow.data` events.

A layer may still turn out to be an outer one: what comes before a STARTTLS is not what was said.
Therefore its bytes are held until that is known.
"""

from __future__ import annotations

from collections.abc import Sequence

from mitml4.payload.budget import Payload
from mitml4.payload.text import shown_data
from mitml4.protocols.conversation import Direction
from mitml4.protocols.flow_data import FlowData
from mitml4.protocols.payload import redacted

__all__ = ["Recorder"]


class Recorder:
    """The first bytes of both directions, up to the limit of each."""

    __slots__ = ("_cut", "_held", "_offsets", "_payload", "_show_secrets")

    def __init__(self, payload: Payload, *, show_secrets: bool) -> None:
        self._payload = payload
        self._show_secrets = show_secrets
        self._offsets = dict.fromkeys(Direction, 0)
        self._held: list[FlowData] = []
        self._cut: set[Direction] = set()
        """The directions of which bytes were not kept."""

    def wants(self, direction: Direction) -> bool:
        """Whether it has to see the next bytes of a direction."""
        return direction not in self._cut

    def add(
        self, direction: Direction, data: bytes, secrets: Sequence[tuple[int, int]] = ()
    ) -> None:
        """Keep these bytes, which come next in a direction, without the secrets in them."""
        if direction in self._cut or not data:
            return
        offset = self._offsets[direction]
        size = self._payload.take(min(len(data), self._payload.limit - offset))
        if size < len(data):
            self._cut.add(direction)
        self._offsets[direction] = offset + size
        kept = data[:size] if self._show_secrets else _without(secrets, data[:size])
        content = shown_data(kept)
        self._held.append(
            FlowData(
                direction=direction,
                offset=offset,
                text=content.text,
                base64=content.base64,
                truncated=size < len(data),
            )
        )

    def take(self) -> list[FlowData]:
        """The events that have been held."""
        held, self._held = self._held, []
        return held

    @property
    def memory(self) -> int:
        """About how many bytes it holds."""
        return sum(len(event.text or event.base64 or "") for event in self._held)


def _without(secrets: Sequence[tuple[int, int]], data: bytes) -> bytes:
    for start, end in reversed(secrets):
        data = data[:start] + redacted(end - start).encode() + data[end:]
    return data
