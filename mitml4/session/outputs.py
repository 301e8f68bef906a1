"""From options to where the events go."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from mitml4.errors import MitmError
from mitml4.net.tap import Tap
from mitml4.session.config import SessionConfig
from mitml4.sinks.har import HttpArchive
from mitml4.sinks.jsonl import JsonLines
from mitml4.sinks.keylog import KeyLog
from mitml4.sinks.lines import FlowLines
from mitml4.sinks.pcapng import PacketFile
from mitml4.sinks.sink import Counters, Sink
from mitml4.sinks.table.final import FinalTable
from mitml4.sinks.table.live import LiveTable

__all__ = ["Outputs"]

_TERMINAL: Final = "/dev/tty"


def _nothing() -> None:
    """What `q` does where the keys are the command's."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """A session's sinks, its key log, and those of the sinks that are told more than events."""

    sinks: tuple[Sink, ...]
    table: LiveTable | None
    packets: PacketFile | None
    keylog: KeyLog | None
    config: SessionConfig

    @classmethod
    def of(
        cls,
        config: SessionConfig,
        *,
        counters: Callable[[int], Counters | None],
        stop: Callable[[str, MitmError | None], None],
        taps: Sequence[Tap] = (),
    ) -> Outputs:
        """Open them. `counters` gives a flow's bytes so far; `stop` ends the session; `taps` see
        the packets, where they are asked for.

        Raises MitmError for a file that cannot be written.
        """
        table = None
        sinks: list[Sink] = []
        match config.output:
            case "table":
                table = LiveTable(counters, lambda: stop("q", None), config.color)
                sinks.append(table)
            case "json":
                sinks.append(JsonLines.to_stdout(headers=config.headers))
            case "table-on-tty":
                terminal = os.open(_TERMINAL, os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC)
                table = LiveTable(counters, _nothing, config.color, terminal=terminal)
                sinks.append(table)
            case "final-table":
                sinks.append(FinalTable(config.color))
            case "json-on-stderr":
                sinks.append(JsonLines.to_stderr(headers=config.headers))
            case "lines":
                sinks.append(FlowLines(config.color))
            case "none":
                pass
        if config.events_file:
            sinks.append(JsonLines.to_file(config.events_file, headers=config.headers))
        if config.har:
            sinks.append(HttpArchive.to_file(config.har))
        packets = None
        if config.packets:
            packets = PacketFile.to_file(config.packets, taps)
            sinks.append(packets)
        keylog = None
        if config.keylog:
            keylog = KeyLog(config.keylog, lambda error: stop("output failed", error))
        return cls(tuple(sinks), table, packets, keylog, config)

    @property
    def on_secret(self) -> Callable[[bytes], None] | None:
        """What is told of every TLS secret; None if nobody wants to know."""
        takers: list[Callable[[bytes], None]] = []
        if self.keylog:
            takers.append(self.keylog)
        if self.packets:
            takers.append(self.packets.add_secret)

        def tell(line: bytes) -> None:
            for take in takers:
                take(line)

        return tell if takers else None

    @property
    def files(self) -> tuple[str, ...]:
        """What has been written, for the summary."""
        config = self.config
        paths = (config.events_file, config.packets, config.har, config.keylog)
        return tuple(str(path) for path in paths if path)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of what has been written."""
        if self.packets and (missing := self.packets.missing):
            which = "1 packet is" if missing == 1 else f"{missing} packets are"
            return (f"{which} missing in {self.config.packets}: written slower than they came",)
        return ()

    def close(self) -> None:
        if self.keylog:
            self.keylog.close()
