"""Programs that read a capture and report its flows, each with its fastest options."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.peers import NotMeasuredError, first_line
from bench.synthesis import Synthesis

__all__ = ["DPKT_VENV", "READERS", "Reader"]

DPKT_VENV: Final = Path(__file__).parent / ".venv-dpkt"
_DPKT: Final = str(DPKT_VENV / "bin" / "python")
_COUNT_FLOWS: Final = str(Path(__file__).with_name("count_flows.py"))


@dataclass(frozen=True, slots=True)
class Reader:
    """How to run a program, get its version, and check from its output that it has read
    everything."""

    name: str
    argv: tuple[str, ...]
    """The capture's path is appended."""
    asked: tuple[str, ...]
    found: Callable[[Path], tuple[int | None, int | None]]
    """From its output: the number of packets and of TCP flows; None if it does not report that."""

    def version(self) -> str:
        """Raises NotMeasuredError if it is not installed."""
        return first_line([*self.asked])

    def check(self, output: Path, capture: Synthesis) -> None:
        """Raises NotMeasuredError if packets or flows of the capture are missing in the output."""
        packets, flows = self.found(output)
        if packets not in (None, capture.packets) or flows not in (None, capture.flows):
            raise NotMeasuredError(
                f"it saw {packets} packets and {flows} flows"
                f" instead of {capture.packets} and {capture.flows}"
            )


def _lines(pattern: str) -> Callable[[Path], int]:
    wanted = re.compile(pattern)

    def count(output: Path) -> int:
        with output.open(errors="replace") as lines:
            return sum(bool(wanted.search(line)) for line in lines)

    return count


def _number(output: Path, pattern: str) -> int:
    found = re.search(pattern, output.read_text(errors="replace"))
    return int(found[1]) if found else 0


def _streams(output: Path) -> tuple[int, int]:
    """From tshark's lines of stream number and protocols, one per packet."""
    with output.open() as lines:
        streams = [line.partition("\t")[0] for line in lines]
    return len(streams), len({stream for stream in streams if stream})


def _two_numbers(output: Path) -> tuple[int, int]:
    packets, flows = output.read_text().split()
    return int(packets), int(flows)


READERS: Final[tuple[Reader, ...]] = (
    Reader(
        "mitml4",
        (sys.executable, "-m", "mitml4", "detect", "--json"),
        (sys.executable, "-m", "mitml4", "--version"),
        lambda output: (None, _lines('"flow.open".*"transport":"tcp"')(output)),
    ),
    Reader(
        "tshark",
        ("tshark", "-n", "-q", "-z", "conv,tcp", "-r"),
        ("tshark", "--version"),
        lambda output: (None, _lines("<->.*:")(output)),
    ),
    Reader(
        "tshark-protocols",
        ("tshark", "-n", "-T", "fields", "-e", "tcp.stream", "-e", "frame.protocols", "-r"),
        ("tshark", "--version"),
        _streams,
    ),
    Reader(
        "ndpiReader",
        ("ndpiReader", "-i"),
        ("ndpiReader", "-h"),
        lambda output: (_number(output, r"IP packets:\s+(\d+)"), None),
    ),
    Reader(
        "dpkt",
        (_DPKT, _COUNT_FLOWS),
        (_DPKT, "-c", "import dpkt; print('dpkt', dpkt.__version__)"),
        _two_numbers,
    ),
)
