"""Events to write."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mitml4.events import Event, WebSocketMessage


@pytest.fixture
def numbered() -> Callable[..., Event]:
    """An event that can be told from others by its size."""

    def make(size: int, flow: int = 1) -> Event:
        return WebSocketMessage(flow=flow, depth=0, direction="up", opcode="text", size=size)

    return make
