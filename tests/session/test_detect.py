"""A capture's reports as the events of live traffic."""

from __future__ import annotations

import struct

import pytest

from mitml4.events import Event, FlowClose, encode
from mitml4.session.detect import Detection

ENDS = bytes([192, 0, 2, 1, 192, 0, 2, 2])


def syn() -> bytes:
    tcp = struct.pack("!HHIIBBHHH", 40000, 80, 1, 0, 0x50, 2, 500, 0, 0)
    return struct.pack("!BBHHHBBH", 0x45, 0, 40, 0, 0, 64, 6, 0) + ENDS + tcp


@pytest.mark.parametrize(
    ("time_s", "said"),
    [
        (1.5e12, "9999-12-31T23:59:59.000000Z"),
        (1.8e19, "9999-12-31T23:59:59.000000Z"),
        (-9e18, "0001-01-01T00:00:00.000000Z"),
        (0.25, "1970-01-01T00:00:00.250000Z"),
    ],
)
def test_a_clock_beyond_all_dates_is_told_by_the_nearest(time_s: float, said: str) -> None:
    events: list[Event] = []
    Detection(events.append).read([(time_s, 101, syn(), 0, 40)])
    assert [f'"time":"{said}"' in encode(event) for event in events] == [True, True]
    assert isinstance(events[-1], FlowClose)
    assert events[-1].duration_s == 0
