"""Figures of captures: who does not see the whole capture gets no figure."""

import sys
from pathlib import Path

import pytest

from bench.captures import CAPTURE_FIGURES, Shelf
from bench.peers import NotMeasuredError
from bench.readers import Reader

READ = CAPTURE_FIGURES[0].measure
(FILES,) = (each.measure for each in CAPTURE_FIGURES if each.name == "detect-files")


def reader(script: str, packets: int | None) -> Reader:
    return Reader("fake", (sys.executable, "-c", script), (), lambda _: (packets, None))


def test_a_reader_that_saw_everything_is_measured() -> None:
    with Shelf.open(50_000) as shelf:
        script = "import sys; open(sys.argv[1], 'rb').read(); x = b'x' * 50_000_000"
        [(name, values)] = READ(shelf, reader(script, shelf.capture().packets))
    assert name == "fake"
    assert values["max_rss_mb"] > 50
    assert values["packets_per_s"] == pytest.approx(shelf.capture().packets / values["seconds"])


def test_a_reader_that_missed_packets_is_not_measured() -> None:
    with Shelf.open(50_000) as shelf, pytest.raises(NotMeasuredError, match="it saw 7 packets"):
        list(READ(shelf, reader("", 7)))


def test_a_reader_that_failed_is_not_measured() -> None:
    with Shelf.open(50_000) as shelf, pytest.raises(NotMeasuredError, match="ended with 3: no"):
        list(READ(shelf, reader("import sys; print('no', file=sys.stderr); sys.exit(3)", None)))


def test_several_captures_are_measured_together() -> None:
    with Shelf.open(50_000) as shelf:
        packets = shelf.capture().packets
        rows = dict(FILES(shelf, reader("", 8 * packets)))
        with pytest.raises(NotMeasuredError):
            list(FILES(shelf, reader("", packets)))
        values = rows["1"]
        assert values["mb"] == pytest.approx(8 * shelf.capture().bytes / 1e6)
        assert values["packets_per_s"] == pytest.approx(8 * packets / values["seconds"])
        whole_s = values["minutes_per_100_gb"] * 60
        assert whole_s == pytest.approx(values["seconds"] * 1e5 / values["mb"])


def test_captures_are_made_once_and_removed_at_the_end() -> None:
    with Shelf.open(50_000) as shelf:
        whole, half = shelf.capture(), shelf.capture(2)
        assert shelf.capture() is whole
        assert half.bytes < whole.bytes
        where: Path = shelf.where
    assert not where.exists()
