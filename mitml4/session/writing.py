"""Opens the outputs of a session, and runs a task for each."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Container, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeAlias

import trio

from mitml4.address import CA_PAGE_URL
from mitml4.errors import MitmError
from mitml4.net.tap import Tap
from mitml4.session.config import SessionConfig
from mitml4.session.reporting.outputs import Outputs
from mitml4.sinks.background import Background
from mitml4.sinks.commands import Ask
from mitml4.sinks.jsonl import JsonLines
from mitml4.sinks.keylog import KeyLog
from mitml4.sinks.sink import LiveSink

__all__ = ["Lost", "notes_of", "open_outputs", "writing"]

_TERMINAL: Final = "/dev/tty"

Lost: TypeAlias = Callable[[LiveSink, MitmError | None], None]
"""Called for a sink that has ended early, with the reason; None: its reader has gone."""


def open_outputs(
    config: SessionConfig,
    *,
    ask: Ask,
    keylog_failed: Callable[[MitmError], None],
    taps: Sequence[Tap] = (),
) -> Outputs[LiveSink]:
    """Open the outputs that the options ask for. `ask` handles commands to the session; `taps` give
    the packets for `-w`.

    Raises MitmError for a file that cannot be written.
    """
    files: list[LiveSink] = []
    unfiltered: list[LiveSink] = []
    display = _display(config, ask)
    if config.events_file:
        lines = JsonLines.to_file(config.events_file, headers=config.shown.headers)
        files.append(Background(lines))
    # Sinks that are not used need not be imported: that would delay the start.
    if config.packets:
        from mitml4.sinks.pcapng import PacketFile

        unfiltered.append(PacketFile.to_file(config.packets, taps))
        files += unfiltered
    if config.har:
        from mitml4.sinks.har import HttpArchive

        files.append(Background(HttpArchive.to_file(config.har)))
    if config.plain:
        from mitml4.sinks.plain import PlainFormat, PlainPackets

        files.append(PlainPackets(PlainFormat.to(config.plain)))
    keylog = KeyLog(config.keylog, keylog_failed) if config.keylog else None
    return Outputs(display, tuple(files), keylog, tuple(unfiltered))


def _display(config: SessionConfig, ask: Ask) -> LiveSink | None:
    match config.output:
        case "table" | "table-on-tty" | "final-table":
            return _table(config, ask)
        case "json":
            return Background(JsonLines.to_stdout(headers=config.shown.headers))
        case "json-on-stderr":
            return Background(JsonLines.to_stderr(headers=config.shown.headers))
        case "lines":
            from mitml4.sinks.lines import FlowLines

            return FlowLines(config.color)
        case "none":
            return None


def _table(config: SessionConfig, ask: Ask) -> LiveSink:
    from mitml4.sinks.flow_files import FlowFiles
    from mitml4.sinks.qr import qr_lines
    from mitml4.sinks.table.final import FinalTable
    from mitml4.sinks.table.live import LiveTable

    if config.output == "final-table":
        return FinalTable(config.color)
    if config.output == "table-on-tty":
        terminal = os.open(_TERMINAL, os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC)
        return LiveTable(ask, config.color, terminal=terminal)
    qr = qr_lines(CA_PAGE_URL) if config.ca_page else ()
    return LiveTable(ask, config.color, files=FlowFiles(), qr=qr)


def notes_of(outputs: Outputs[LiveSink], cut_off: Container[str] = ()) -> Iterable[str]:
    """Notes to the user about the files that were written to their end."""
    for sink in outputs.files:
        if sink.name in cut_off:
            continue
        if missing := getattr(sink, "missing", 0):  # of those that write packets
            which = "1 packet is" if missing == 1 else f"{missing} packets are"
            yield f"{which} missing in {sink.name}: written slower than they came"


@asynccontextmanager
async def writing(sinks: Iterable[LiveSink], lost: Lost) -> AsyncIterator[None]:
    """Run the sinks. On exit, what they still hold is written first."""
    async with trio.open_nursery() as nursery:
        with trio.CancelScope(shield=True):  # what has begun to run closes what it holds
            for sink in sinks:
                await nursery.start(_write, sink, lost)
        try:
            yield
        finally:
            with trio.CancelScope(shield=True):
                for sink in sinks:
                    await sink.aclose()


async def _write(sink: LiveSink, lost: Lost, *, task_status: trio.TaskStatus[None]) -> None:
    """Run a sink. If it fails, also before it is ready, `lost` is called; nothing waits for it."""
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
