"""From options to where things are written."""

from __future__ import annotations

from pathlib import Path

import pytest

from mitml4.session.config import SessionConfig
from mitml4.session.outputs import Outputs
from mitml4.sinks.pcapng import PacketFile


def outputs(**options: Path) -> Outputs:
    config = SessionConfig(output="none", **options)
    return Outputs.open(config, ask=lambda _: None, keylog_failed=lambda _: None)


def test_what_is_written_is_named(tmp_path: Path) -> None:
    wanted = {name: tmp_path / name for name in ("events_file", "packets", "har", "keylog")}
    assert outputs(**wanted).names == tuple(map(str, wanted.values()))
    assert outputs().names == ()


@pytest.mark.parametrize(
    ("missing", "note"), [(0, None), (1, "1 packet is missing"), (7, "7 packets are missing")]
)
def test_packets_that_are_missing_are_told(tmp_path: Path, missing: int, note: str | None) -> None:
    out = outputs(packets=tmp_path / "x.pcapng")
    (packets,) = out.files
    assert isinstance(packets, PacketFile)
    packets.missing = missing
    assert [said.partition(" in ")[0] for said in out.notes] == ([note] if note else [])
