"""Events to write."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mitml4.events import Event, LayerEvent
from mitml4.protocols.conversation import Direction
from mitml4.protocols.http.websocket import WebSocketMessage


@pytest.fixture
def numbered() -> Callable[..., Event]:
    """An event that can be told from others by its size."""

    def make(size: int, flow: int = 1) -> Event:
        content = WebSocketMessage(direction=Direction.UP, opcode="text", size=size)
        return LayerEvent(flow=flow, depth=0, content=content)

    return make
