"""The outputs of a session, or of `detect`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from mitml4.dataclass import dataclass
from mitml4.errors import UsageError
from mitml4.screen.terminal import Color
from mitml4.sinks.files import OutputFile
from mitml4.sinks.inline import Inline, InlineFile
from mitml4.sinks.jsonl import JsonLines
from mitml4.sinks.sink import CaptureSink, Sink
from mitml4.sinks.tcp_reader import TcpReader

if TYPE_CHECKING:
    from mitml4.sinks.keylog import KeyLog

__all__ = ["CaptureOutputs", "Outputs", "capture_outputs", "lines_for_another"]

S = TypeVar("S", bound=Sink)


@dataclass(frozen=True, slots=True)
class Outputs(Generic[S]):
    """The sinks, and the key log, which is not a sink."""

    display: S | None = None
    """The sink on standard output, standard error or the terminal."""
    files: tuple[S, ...] = ()
    keylog: KeyLog | None = None
    unfiltered: tuple[S, ...] = ()
    """The files to which `--filter` does not apply."""

    @property
    def sinks(self) -> tuple[S, ...]:
        return (self.display, *self.files) if self.display else self.files

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the output files, for the summary."""
        return (
            *(sink.name for sink in self.files),
            *([self.keylog.name] if self.keylog else []),
            *getattr(self.display, "written", ()),  # on demand, by the live table
        )

    def close(self) -> None:
        """Close the key log; the code that runs the sinks closes them."""
        if self.keylog:
            self.keylog.close()


class _TerminalOutput(OutputFile):
    """Standard output that is a terminal. Output appears above the progress bar, if there is
    one."""

    def write(self, parts: Sequence[bytes]) -> None:
        sys.stdout.write(b"".join(parts).decode())
        sys.stdout.flush()


class _SentOutput(OutputFile):
    """Standard output that another process writes."""

    def __init__(self, send: Callable[[bytes], object]) -> None:
        self.name = "standard output"
        self._send = send

    def write(self, parts: Sequence[bytes]) -> None:
        self._send(b"".join(parts))


def lines_for_another(send: Callable[[bytes], object], *, headers: bool) -> CaptureSink:
    """JSON lines that are given to this function, some at a time."""
    return Inline(JsonLines(_SentOutput(send), headers=headers))


class CaptureOutputs(Outputs[CaptureSink]):
    """Outputs that are written when `flush` and `finish` are called."""

    @property
    def are_lines(self) -> bool:
        """Whether there is nothing but the JSON lines of events."""
        return not self.files and isinstance(self.display, Inline)

    def flush(self) -> None:
        """Write what is complete. Raises OSError."""
        for sink in self.sinks:
            sink.flush()

    def finish(self) -> None:
        """Write everything. Raises OSError."""
        for sink in self.sinks:
            sink.finish()


def capture_outputs(
    *,
    as_json: bool,
    color: Color,
    headers: bool = True,
    har: Path | None = None,
    plain: Path | TcpReader | None = None,
) -> CaptureOutputs:
    """Standard output: a table if it is a terminal, otherwise or with `as_json` JSON lines, where
    `headers` says whether these have HTTP headers; and these files, where they are given: HTTP
    exchanges as an archive, what is said in decrypted TLS as packets.

    Raises UsageError if standard output is closed, MitmError if another cannot be opened.
    """
    display = _capture_display(as_json=as_json, color=color, headers=headers)
    files: list[CaptureSink] = []
    if har:
        from mitml4.sinks.har import HttpArchive  # these are imported late: most need neither

        files.append(InlineFile(HttpArchive.to_file(har)))
    if plain:
        from mitml4.sinks.plain import PlainFormat  # it needs trio

        files.append(InlineFile(PlainFormat.to(plain)))
    return CaptureOutputs(display, tuple(files))


def _capture_display(*, as_json: bool, color: Color, headers: bool) -> CaptureSink:
    if sys.stdout is None:
        raise UsageError("standard output is closed", hint="the output goes there")
    if not sys.stdout.isatty():
        return Inline(JsonLines.to_stdout(headers=headers))
    if as_json:
        file = _TerminalOutput(sys.stdout.fileno(), "standard output", is_ours=False)
        return Inline(JsonLines(file, headers=headers))
    from mitml4.sinks.table.capture import CaptureTable  # imported late: rich is large

    return CaptureTable(color)
