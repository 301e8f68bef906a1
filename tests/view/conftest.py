"""Flows to look at."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mitml4.address import Address
from mitml4.model.flow import Exchange, Flow, Layer, Request, Response

TIME = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def make_flow() -> Callable[..., Flow]:
    """A flow with one request, to `NUMBER.example`."""

    def make(number: int, status: int = 200, size: int = 10, **given: Any) -> Flow:
        name = f"{number}.example"
        layer = Layer(
            depth=0,
            protocol="http/1",
            action="relayed",
            speaker="client",
            details={"host": name},
            time=TIME,
        )
        request = Request(method="GET", url=f"http://{name}/", version="1.1", time=TIME)
        exchange = Exchange(
            depth=0,
            stream=1,
            request=request,
            response=Response(status=status, version="1.1", time=TIME),
            outcome="complete",
        )
        known: dict[str, Any] = {
            "number": number,
            "client": Address("192.0.2.1", 50000),
            "destination": Address("192.0.2.2", 80),
            "opened_at": TIME + timedelta(seconds=number),
            "layers": [layer],
            "exchanges": [exchange],
            "reason": "closed",
            "bytes_down": size,
        }
        return Flow(**known | given)

    return make
