"""What a process may do, as the kernel writes it down."""

from __future__ import annotations

import pytest

from mitml4.net.capabilities import Capability, has


@pytest.mark.parametrize(
    ("lines", "one", "both"),
    [
        ("CapEff:\t0000000000001000", True, False),
        ("CapInh:\tffffffffffffffff\nCapEff:\t0000000000200000", False, False),
        ("CapEff:\t0000000000201000", True, True),
        ("CapEff:\t0000000000000fff", False, False),
    ],
)
def test_to_have_them_is_to_have_them_all(monkeypatch, lines: str, one: bool, both: bool) -> None:
    monkeypatch.setattr("pathlib.Path.read_text", lambda _: f"Name:\tmitml4\n{lines}\n")
    assert has(Capability.NET_ADMIN) is one
    assert has(Capability.NET_ADMIN, Capability.SYS_ADMIN) is both
