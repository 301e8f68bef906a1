"""Signals that end a session."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from mitml4.session.session import Session
from mitml4.signals import ending_signals

__all__ = ["ended_by_signals"]


@asynccontextmanager
async def ended_by_signals(session: Session) -> AsyncIterator[None]:
    """The first signal begins the first stage of stopping, a further one the second."""
    with trio.open_signal_receiver(*ending_signals()) as received:
        async with trio.open_nursery() as nursery:

            async def listen() -> None:
                async for number in received:
                    session.stop(signal.Signals(number).name)

            nursery.start_soon(listen)
            try:
                yield
            finally:
                nursery.cancel_scope.cancel()
