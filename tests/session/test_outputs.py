"""From options to where things are written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from mitml4.session.config import SessionConfig
from mitml4.session.reporting.outputs import Outputs
from mitml4.session.writing import notes_of, open_outputs
from mitml4.sinks.pcapng import PacketFile
from mitml4.sinks.sink import LiveSink


def outputs(**options: Any) -> Outputs[LiveSink]:
    config = SessionConfig(output="none", **options)
    return open_outputs(config, ask=lambda _: None, keylog_failed=lambda _: None)


async def test_what_is_written_is_named(tmp_path: Path) -> None:
    wanted = {name: tmp_path / name for name in ("events_file", "packets", "har", "keylog")}
    out = outputs(**wanted)
    assert out.names == tuple(map(str, wanted.values()))
    assert outputs().names == ()
    out.close()
    async with trio.open_nursery() as nursery:
        for sink in out.sinks:
            await nursery.start(sink.run)
            await sink.aclose()


@pytest.mark.parametrize(
    ("missing", "note"), [(0, None), (1, "1 packet is missing"), (7, "7 packets are missing")]
)
def test_packets_that_are_missing_are_told(tmp_path: Path, missing: int, note: str | None) -> None:
    out = outputs(packets=tmp_path / "x.pcapng")
    (packets,) = out.files
    assert isinstance(packets, PacketFile)
    packets.missing = missing
    assert [said.partition(" in ")[0] for said in notes_of(out)] == ([note] if note else [])
    assert not list(notes_of(out, {packets.name}))  # its error has been said
