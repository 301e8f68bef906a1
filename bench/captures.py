"""Figures without a network: reading captures, and detecting one flow by its first bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import ClassVar, Final

from bench.figures import MB, Values
from bench.openings import OPENINGS
from bench.peers import NotMeasuredError
from bench.readers import Reader
from bench.synthesis import LONG_FLOWS, SHORT_FLOWS, Synthesis, synthesise
from mitml4.protocols import registry

__all__ = ["CAPTURE_FIGURES", "CaptureFigure", "Shelf"]

_USAGE: Final = str(Path(__file__).with_name("usage.py"))
_TMPFS: Final = Path("/dev/shm")
_SHARES: Final = {"quarter": 4, "half": 2, "whole": 1}
_FILES: Final = 8
_HUNDRED_GB: Final = 100_000
"""MB."""
_OPENING_REPEATS: Final = 15
_OPENING_CALLS: Final = 1000


@dataclass(slots=True)
class Shelf:
    """The captures of a run, each created on first use."""

    where: Path
    size: int
    _made: dict[tuple[int, float], Synthesis] = field(default_factory=dict)

    @classmethod
    @contextmanager
    def open(cls, size: int) -> Iterator[Shelf]:
        """On tmpfs if there is one, so that no disk is measured."""
        parent = _TMPFS if _TMPFS.is_dir() else None
        with tempfile.TemporaryDirectory(prefix="mitml4-bench-", dir=parent) as where:
            yield cls(Path(where), size)

    def capture(self, share: int = 1, bulk: float = SHORT_FLOWS) -> Synthesis:
        """A capture of this fraction of the size, with this share of bulk transfers."""
        if (share, bulk) not in self._made:
            path = self.where / f"{share}-{bulk}.pcap"
            self._made[share, bulk] = synthesise(path, self.size // share, bulk)
        return self._made[share, bulk]


@dataclass(frozen=True, slots=True)
class CaptureFigure:
    """A load, with its name on the command line, its heading in the report, and its rows."""

    name: str
    title: str
    measure: Callable[[Shelf, Reader], Iterator[tuple[str, Values]]]
    """Yields a row's name and its values."""
    readers: tuple[str, ...] = ()
    """The readers that are measured; empty: all."""
    rows: str = "reader"
    base: ClassVar[str] = "tshark"


def _read(
    shelf: Shelf, reader: Reader, capture: Synthesis, *options: str, times: int = 1
) -> Values:
    """`times`: it is given the same capture so often."""
    output = shelf.where / "output"
    argv = [sys.executable, "-I", "-S", _USAGE, str(output), *reader.argv, *options]
    argv += [str(capture.path)] * times
    capture = replace(capture, packets=capture.packets * times, flows=capture.flows * times)
    # An installed program has its modules compiled, so it may write what is compiled here.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    done = subprocess.run(argv, check=True, capture_output=True, text=True, env=environment)
    used = json.loads(done.stdout)
    if used["exit"]:
        last = next(reversed(done.stderr.strip().splitlines()), "it said nothing")
        raise NotMeasuredError(f"it ended with {used['exit']}: {last}")
    reader.check(output, capture)
    return {
        "packets_per_s": capture.packets / used["seconds"],
        "cpu_us_per_packet": used["cpu_s"] * 1e6 / capture.packets,
        "max_rss_mb": used["max_rss_bytes"] / MB,
        "seconds": used["seconds"],
    }


def _whole(shelf: Shelf, reader: Reader) -> Iterator[tuple[str, Values]]:
    yield reader.name, _read(shelf, reader, shelf.capture())


def _long(shelf: Shelf, reader: Reader) -> Iterator[tuple[str, Values]]:
    yield reader.name, _read(shelf, reader, shelf.capture(bulk=LONG_FLOWS))


def _growth(shelf: Shelf, reader: Reader) -> Iterator[tuple[str, Values]]:
    for name, share in _SHARES.items():
        capture = shelf.capture(share)
        sizes = {"mb": capture.bytes / MB, "packets": capture.packets, "flows": capture.flows}
        yield name, sizes | _read(shelf, reader, capture)


def _files(shelf: Shelf, reader: Reader) -> Iterator[tuple[str, Values]]:
    capture = shelf.capture()
    mb = _FILES * capture.bytes / MB
    for jobs in sorted({1, len(os.sched_getaffinity(0))}):
        values = _read(shelf, reader, capture, "--jobs", str(jobs), times=_FILES)
        minutes = values["seconds"] / 60 * _HUNDRED_GB / mb
        yield f"{jobs}", {"mb": mb, "minutes_per_100_gb": minutes} | values


def _openings(shelf: Shelf, reader: Reader) -> Iterator[tuple[str, Values]]:
    """Median CPU microseconds of one call, from several repeats of many calls."""
    for name, opening in OPENINGS.items():
        match = registry.detect(opening).match
        if (match.name if match else "unknown") != name.partition(",")[0]:
            raise NotMeasuredError(f"{name} was taken for {match.name if match else 'unknown'}")
        times = timeit.repeat(
            partial(registry.detect, opening),
            timer=time.process_time,
            number=_OPENING_CALLS,
            repeat=_OPENING_REPEATS,
        )
        median = sorted(times)[_OPENING_REPEATS // 2]
        yield name, {"opening_us": median * 1e6 / _OPENING_CALLS}


CAPTURE_FIGURES: Final[tuple[CaptureFigure, ...]] = (
    CaptureFigure("detect", "Reading a capture", _whole),
    CaptureFigure("detect-long", "Reading a capture of long flows", _long),
    CaptureFigure(
        "detect-growth",
        "mitml4 on a quarter, a half and the whole of a capture",
        _growth,
        readers=("mitml4",),
        rows="part",
    ),
    CaptureFigure(
        "detect-files",
        "mitml4 on eight captures, by one process and by one for each core",
        _files,
        readers=("mitml4",),
        rows="processes",
    ),
    CaptureFigure(
        "opening",
        "Naming a flow by its first bytes",
        _openings,
        readers=("mitml4",),
        rows="protocol",
    ),
)
