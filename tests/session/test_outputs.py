"""From options to where things are written."""

from __future__ import annotations

from pathlib import Path

import pytest

from mitml4.session.config import SessionConfig
from mitml4.session.outputs import Outputs


def outputs(**options: Path) -> Outputs:
    config = SessionConfig(output="none", **options)
    return Outputs.of(config, counters=lambda _: None, stop=lambda *_: None)


def test_what_is_written_is_named(tmp_path: Path) -> None:
    wanted = {name: tmp_path / name for name in ("events_file", "packets", "har", "keylog")}
    assert outputs(**wanted).files == tuple(map(str, wanted.values()))
    assert outputs().files == ()


@pytest.mark.parametrize(
    ("missing", "note"), [(0, None), (1, "1 packet is missing"), (7, "7 packets are missing")]
)
def test_packets_that_are_missing_are_told(tmp_path: Path, missing: int, note: str | None) -> None:
    out = outputs(packets=tmp_path / "x.pcapng")
    assert out.packets
    out.packets.missing = missing
    assert [said.partition(" in ")[0] for said in out.notes] == ([note] if note else [])


async def test_secrets_go_to_all_who_asked(tmp_path: Path) -> None:
    assert outputs().on_secret is None
    out = outputs(packets=tmp_path / "x.pcapng", keylog=tmp_path / "keys")
    assert out.on_secret
    out.on_secret(b"CLIENT_RANDOM 00 11")
    assert (tmp_path / "keys").read_bytes() == b"CLIENT_RANDOM 00 11\n"
    assert out.packets
    assert b"".join(await out.packets._due(0.0)).count(b"CLIENT_RANDOM") == 1
