"""Where the events of a session, or of captures, go."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from mitml4.errors import UsageError
from mitml4.sinks.files import OutputFile
from mitml4.sinks.inline import Inline
from mitml4.sinks.jsonl import JsonLines
from mitml4.sinks.sink import CaptureSink, Sink
from mitml4.terminal import Color, is_terminal

if TYPE_CHECKING:
    from mitml4.sinks.keylog import KeyLog

__all__ = ["CaptureOutputs", "Outputs", "capture_outputs"]

S = TypeVar("S", bound=Sink)


@dataclass(frozen=True, slots=True)
class Outputs(Generic[S]):
    """The sinks, and the key log, which is none."""

    display: S | None = None
    """The sink that shows the events: on standard output, standard error or the terminal."""
    files: tuple[S, ...] = ()
    keylog: KeyLog | None = None

    @property
    def sinks(self) -> tuple[S, ...]:
        return (self.display, *self.files) if self.display else self.files

    @property
    def names(self) -> tuple[str, ...]:
        """The files that are written, for the summary."""
        return (*(sink.name for sink in self.files), *([self.keylog.name] if self.keylog else []))

    def close(self) -> None:
        """Close what is no sink."""
        if self.keylog:
            self.keylog.close()


class _TerminalOutput(OutputFile):
    """Standard output where it is a terminal: what is written stands above the progress bar, if
    there is one."""

    def write(self, parts: Sequence[bytes]) -> None:
        sys.stdout.write(b"".join(parts).decode())
        sys.stdout.flush()


class CaptureOutputs(Outputs[CaptureSink]):
    """The sinks of captures, which write when they are told to."""

    def flush(self) -> None:
        """Write what can be written now. Raises OSError."""
        for sink in self.sinks:
            sink.flush()

    def finish(self) -> None:
        """Write what is kept. Raises OSError."""
        for sink in self.sinks:
            sink.finish()


def capture_outputs(*, as_json: bool, color: Color) -> CaptureOutputs:
    """On standard output: a table on a terminal, else, or with `as_json`, JSON lines.

    Raises UsageError where whoever started us has closed it.
    """
    if sys.stdout is None:
        raise UsageError("standard output is closed", hint="the output goes there")
    if not is_terminal(sys.stdout):
        return CaptureOutputs(Inline(JsonLines.to_stdout()))
    if as_json:
        file = _TerminalOutput(sys.stdout.fileno(), "standard output", is_ours=False)
        return CaptureOutputs(Inline(JsonLines(file)))
    from mitml4.sinks.table.capture import CaptureTable  # rich takes its time

    return CaptureOutputs(CaptureTable(color))
