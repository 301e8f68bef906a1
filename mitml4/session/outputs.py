"""From options to where the events go, and the tasks that write them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, TypeAlias

import trio

from mitml4.errors import MitmError
from mitml4.net.tap import Tap
from mitml4.session.config import SessionConfig
from mitml4.sinks.commands import Ask
from mitml4.sinks.har import HttpArchive
from mitml4.sinks.jsonl import JsonLines
from mitml4.sinks.keylog import KeyLog
from mitml4.sinks.lines import FlowLines
from mitml4.sinks.pcapng import PacketFile
from mitml4.sinks.sink import Sink
from mitml4.sinks.table.final import FinalTable
from mitml4.sinks.table.live import LiveTable

__all__ = ["Lost", "Outputs", "writing"]

_TERMINAL: Final = "/dev/tty"

Lost: TypeAlias = Callable[[Sink, MitmError | None], None]
"""Told of a sink that has ended early, and why; None: its reader has gone."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """A session's sinks, and its key log, which is none."""

    display: Sink | None = None
    """The sink that shows the session: on standard output, standard error or the terminal."""
    files: tuple[Sink, ...] = ()
    keylog: KeyLog | None = None

    @classmethod
    def open(
        cls,
        config: SessionConfig,
        *,
        ask: Ask,
        keylog_failed: Callable[[MitmError], None],
        taps: Sequence[Tap] = (),
    ) -> Outputs:
        """Open what was asked for. `ask` takes what a person asks of the session; `taps` see the
        packets, where those are to be written.

        Raises MitmError for a file that cannot be written.
        """
        files: list[Sink] = []
        display = _display(config, ask)
        if config.events_file:
            files.append(JsonLines.to_file(config.events_file, headers=config.headers))
        if config.packets:
            files.append(PacketFile.to_file(config.packets, taps))
        if config.har:
            files.append(HttpArchive.to_file(config.har))
        keylog = KeyLog(config.keylog, keylog_failed) if config.keylog else None
        return cls(display, tuple(files), keylog)

    @property
    def sinks(self) -> tuple[Sink, ...]:
        return (self.display, *self.files) if self.display else self.files

    @property
    def names(self) -> tuple[str, ...]:
        """The files that have been written, for the summary."""
        return (*(sink.name for sink in self.files), *([self.keylog.name] if self.keylog else []))

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of what has been written."""
        return tuple(
            f"{_packets_are(sink.missing)} missing in {sink.name}: written slower than they came"
            for sink in self.files
            if isinstance(sink, PacketFile) and sink.missing
        )

    def close(self) -> None:
        if self.keylog:
            self.keylog.close()


def _display(config: SessionConfig, ask: Ask) -> Sink | None:
    match config.output:
        case "table":
            return LiveTable(ask, config.color)
        case "table-on-tty":
            terminal = os.open(_TERMINAL, os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC)
            return LiveTable(ask, config.color, terminal=terminal)
        case "final-table":
            return FinalTable(config.color)
        case "json":
            return JsonLines.to_stdout(headers=config.headers)
        case "json-on-stderr":
            return JsonLines.to_stderr(headers=config.headers)
        case "lines":
            return FlowLines(config.color)
        case "none":
            return None


def _packets_are(count: int) -> str:
    return "1 packet is" if count == 1 else f"{count} packets are"


@asynccontextmanager
async def writing(sinks: Iterable[Sink], lost: Lost) -> AsyncIterator[None]:
    """The sinks at work; what they still hold is written before this is left."""
    async with trio.open_nursery() as nursery:
        for sink in sinks:
            await nursery.start(_write, sink, lost)
        try:
            yield
        finally:
            with trio.CancelScope(shield=True):
                for sink in sinks:
                    await sink.aclose()


async def _write(sink: Sink, lost: Lost, *, task_status: trio.TaskStatus[None]) -> None:
    """A sink that fails, ready or not, is lost, and neither a flow nor another sink waits for
    it."""
    try:
        async with trio.open_nursery() as nursery:
            try:
                await nursery.start(sink.run)
            finally:
                task_status.started()
    except* BrokenPipeError:
        lost(sink, None)
    except* MitmError as failures:
        (failure,) = failures.exceptions
        assert isinstance(failure, MitmError)
        lost(sink, failure)
