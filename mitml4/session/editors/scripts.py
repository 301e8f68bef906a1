"""All scripts of a session."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import trio

from mitml4.events import FlowClose, FlowLayer, FlowOpen, ScriptError
from mitml4.session.editors.script import Script
from mitml4.sinks.updates import Published

__all__ = ["Scripts"]


class Scripts:
    """All scripts of a session."""

    wants = (FlowOpen, FlowLayer, FlowClose)

    def __init__(self, scripts: Sequence[Script]) -> None:
        self.scripts = scripts

    @classmethod
    def open(
        cls,
        paths: Sequence[Path],
        *,
        timeout_s: float,
        limit: int,
        publish: Callable[[ScriptError], None],
    ) -> Scripts:
        """Raises UsageError, MachineError."""
        with ExitStack() as failing:
            scripts = []
            for path in paths:
                script = Script(path, timeout_s=timeout_s, limit=limit, publish=publish)
                failing.callback(script.close)
                scripts.append(script)
            failing.pop_all()
        return cls(scripts)

    def publish(self, event: Published) -> None:
        for script in self.scripts:
            script.publish(event)

    async def finish(self) -> None:
        """The flows have ended: wait for the hooks that are told of it."""
        async with trio.open_nursery() as nursery:
            for script in self.scripts:
                nursery.start_soon(script.finish)

    def close(self) -> None:
        for script in self.scripts:
            script.close()
