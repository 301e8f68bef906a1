"""Streams come out whole whatever the capture did to them, and holes are said."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitml4.address import Address
from mitml4.capture.agenda import Agenda
from mitml4.capture.flow import ALL, CloseReason, Flow
from mitml4.capture.network.dissector import ACK, FIN, RST, SYN, Segment
from mitml4.capture.reassembly import Reassembler
from mitml4.protocols.conversation import Direction

UP, DOWN = Direction.UP, Direction.DOWN
CLIENT, SERVER = ("192.0.2.1", 40000), ("198.51.100.2", 80)
End = tuple[str, int]


def segment(
    source: End,
    destination: End,
    seq: int,
    data: bytes = b"",
    *,
    flags: int = ACK,
    ack: int = 0,
    length: int | None = None,
) -> Segment:
    addresses = ip_address(source[0]).packed + ip_address(destination[0]).packed
    ports = source[1].to_bytes(2, "big") + destination[1].to_bytes(2, "big")
    wire_length = len(data) if length is None else length
    return addresses + ports, seq % (1 << 32), ack % (1 << 32), flags, data, wire_length


def up(seq: int, data: bytes = b"", **more: Any) -> Segment:
    return segment(CLIENT, SERVER, seq, data, **more)


def down(seq: int, data: bytes = b"", **more: Any) -> Segment:
    return segment(SERVER, CLIENT, seq, data, **more)


@dataclass
class Recorder:
    """A listener that wants to see everything, but for what `grants` lets go by."""

    flow: Flow
    kept_bytes: int = 0
    keeps: bool = False
    streams: dict[Direction, bytes] = field(default_factory=lambda: {UP: b"", DOWN: b""})
    log: list[tuple[Any, ...]] = field(default_factory=list)
    grants: dict[Direction, int] = field(default_factory=lambda: {UP: 0, DOWN: 0})
    is_over: bool = False
    reason: CloseReason | None = None

    def data(self, direction: Direction, data: bytes, time_s: float) -> None:
        self.streams[direction] += data
        self.kept_bytes += len(data) * self.keeps
        self.log.append(("data", direction, data))

    def passed(self, direction: Direction, count: int, time_s: float) -> None:
        self.grants[direction] = max(0, self.grants[direction] - count)
        self.log.append(("passed", direction, count))

    def lost(self, direction: Direction, count: int, time_s: float) -> None:
        self.log.append(("lost", direction, count))

    def end(self, direction: Direction, time_s: float) -> None:
        self.log.append(("end", direction))

    def unseen(self) -> tuple[int, int]:
        return self.grants[UP], self.grants[DOWN]

    def give_up(self, time_s: float) -> None:
        self.kept_bytes = 0
        self.grants = {UP: ALL, DOWN: ALL}
        self.log.append(("give up",))

    def over(self) -> None:
        self.is_over = True

    def close(self, flow: Flow, reason: CloseReason) -> None:
        self.reason = reason


@dataclass
class Table:
    """A reassembler and every listener it asked for."""

    limits: dict[str, Any] = field(default_factory=dict)
    keeps: bool = False
    heard: list[Recorder] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.agenda = Agenda()
        self.reassembler = Reassembler(self._listen, agenda=self.agenda, **self.limits)
        self.time_s = 0.0

    def _listen(self, flow: Flow) -> Recorder:
        self.heard.append(Recorder(flow, keeps=self.keeps))
        return self.heard[-1]

    def take(self, *segments: Segment) -> Recorder:
        for each in segments:
            self.time_s += 0.001
            for _ in self.agenda.pass_to(self.time_s):
                pass
            self.reassembler.take(self.time_s, each)
        return self.heard[-1]

    def close(self) -> Recorder:
        for _ in self.reassembler.close():
            pass
        return self.heard[-1]


def opened(isn: int = 100) -> tuple[Table, Recorder]:
    """A table after one handshake; both sides' first byte is `isn` + 1."""
    table = Table()
    heard = table.take(
        up(isn, flags=SYN), down(isn, flags=SYN | ACK, ack=isn + 1), up(isn + 1, ack=isn + 1)
    )
    return table, heard


def test_a_whole_connection_is_told_in_order() -> None:
    table, heard = opened()
    table.take(up(101, b"ask"), down(101, b"answer"), up(104, flags=FIN | ACK))
    table.take(down(107, b"!", flags=FIN | ACK), up(105))
    table.close()
    assert heard.log == [
        ("data", UP, b"ask"),
        ("data", DOWN, b"answer"),
        ("end", UP),
        ("data", DOWN, b"!"),
        ("end", DOWN),
    ]
    assert heard.reason == "closed"
    assert (heard.flow.client, heard.flow.destination) == (Address(*CLIENT), Address(*SERVER))
    assert (heard.flow.bytes_up, heard.flow.bytes_down, heard.flow.syn) == (3, 7, True)
    assert heard.flow.opened_s < heard.flow.last_s


STREAM = bytes(range(256)) * 2


@given(st.data())
def test_any_order_overlap_and_repetition_gives_the_stream(data: st.DataObject) -> None:
    isn = data.draw(st.sampled_from([100, 0xFFFFFFF0, 0xFFFFFFFF, 0x7FFFFFF0]))
    cuts = sorted({0, len(STREAM), *data.draw(st.lists(st.integers(1, len(STREAM) - 1)))})
    pieces = list(itertools.pairwise(cuts))
    again = data.draw(st.lists(st.tuples(st.integers(0, 500), st.integers(1, 60)), max_size=5))
    pieces += [(start, min(start + size, len(STREAM))) for start, size in again]
    table, heard = opened(isn)
    for start, end in data.draw(st.permutations(pieces)):
        table.take(up(isn + 1 + start, STREAM[start:end]))
    assert heard.streams[UP] == STREAM
    assert heard.flow.bytes_up == len(STREAM)
    assert all(entry[0] == "data" for entry in heard.log)


@given(st.data())
def test_unseen_bytes_are_counted_and_not_shown(data: st.DataObject) -> None:
    table, heard = opened()
    heard.grants[UP] = unseen = data.draw(st.one_of(st.integers(1, 600), st.just(ALL)))
    table.take(up(101, STREAM[:1]))
    cuts = sorted({1, len(STREAM), *data.draw(st.lists(st.integers(2, len(STREAM) - 1)))})
    pieces = list(itertools.pairwise(cuts))
    for start, end in data.draw(st.permutations(pieces)):
        table.take(up(101 + start, STREAM[start:end]))
    table.close()
    passed = sum(entry[2] for entry in heard.log if entry[0] == "passed")
    assert heard.streams[UP] == STREAM[:1] + STREAM[1 + unseen :]
    assert passed == min(unseen, len(STREAM) - 1)
    assert heard.flow.bytes_up == len(STREAM)


def test_a_bounded_pass_is_told_as_soon_as_it_is_over() -> None:
    table, heard = opened()
    heard.grants[DOWN] = 10
    table.take(up(101, b"ask"), down(101, b"12345"), down(106, b"67890"))
    assert heard.log[1:] == [("passed", DOWN, 10)]
    table.take(down(111, b"next"))
    assert heard.log[2:] == [("data", DOWN, b"next")]


def test_a_hole_is_said_once_it_was_acknowledged_and_the_sender_goes_on() -> None:
    table, heard = opened()
    table.take(up(101, b"one"), up(107, b"three"), down(101, ack=112))
    assert heard.log == [("data", UP, b"one")]
    table.take(up(112, b"four"))
    assert heard.log[1:] == [("lost", UP, 3), ("data", UP, b"three"), ("data", UP, b"four")]
    assert heard.flow.bytes_up == 12


def test_a_packet_that_the_capture_put_behind_its_acknowledgement_is_not_lost() -> None:
    table, heard = opened()
    table.take(up(101, b"one"), up(107, b"three"), down(101, ack=112), up(104, b"two"))
    assert heard.streams[UP] == b"onetwothree"


def test_a_hole_at_the_start_or_the_end_is_said() -> None:
    table, heard = opened()
    table.take(up(105, b"later"))
    table.close()
    assert heard.log == [("lost", UP, 4), ("data", UP, b"later")]


def test_a_hole_in_bytes_that_are_not_seen_anyway_is_passed_over() -> None:
    table, heard = opened()
    heard.grants[DOWN] = 10
    table.take(up(101, b"ask"), down(101, b"123"), down(107, b"7890next"))
    table.close()
    assert heard.log[1:] == [("passed", DOWN, 10), ("data", DOWN, b"next")]


def test_too_much_behind_a_hole_gives_the_hole_up() -> None:
    table, heard = opened()
    for number in range(600):
        table.take(up(200 + number * 10, b"0123456789"))
    assert heard.log[0] == ("lost", UP, 99)
    assert len(heard.streams[UP]) == 6000
    table, heard = opened()
    for number in range(10):
        table.take(up(200 + number * 60000, bytes(60000)))
    assert heard.log[0] == ("lost", UP, 99)


def test_what_the_capture_cut_off_is_lost() -> None:
    table, heard = opened()
    table.take(up(101, b"head", length=100), up(201, b"next"))
    assert heard.log == [("data", UP, b"head"), ("lost", UP, 96), ("data", UP, b"next")]
    assert heard.flow.bytes_up == 104


def test_keepalives_and_late_segments_change_nothing() -> None:
    table, heard = opened()
    table.take(up(101, b"ask"), up(103, b"k"), up(103), up(101, b"asking"))
    assert heard.streams[UP] == b"asking"
    table.take(up(107, flags=FIN | ACK), up(107, flags=FIN | ACK), up(108, b"after the end"))
    assert heard.log[-1] == ("end", UP)
    assert heard.flow.bytes_up == 6


def test_segments_far_ahead_belong_to_no_window() -> None:
    table, heard = opened()
    table.take(up(101 + (1 << 30) + 1, b"orphan"), up(101, b"ask"))
    table.close()
    assert heard.log == [("data", UP, b"ask")]


def test_a_flow_without_its_start_begins_with_what_is_seen_first() -> None:
    table = Table()
    heard = table.take(up(5000, b"middle"), down(77, ack=5006), down(77, b"of it"))
    table.close()
    assert heard.streams == {UP: b"middle", DOWN: b"of it"}
    assert not heard.flow.syn
    assert heard.reason == "shutdown"


def test_a_flow_whose_syn_was_missed_knows_the_server_by_its_answer() -> None:
    table = Table()
    heard = table.take(down(900, flags=SYN | ACK, ack=101), up(101, b"ask"))
    assert heard.flow.client == Address(*CLIENT)
    assert heard.streams[UP] == b"ask"


def test_a_simultaneous_open_is_one_flow() -> None:
    table = Table()
    heard = table.take(up(100, flags=SYN), down(900, flags=SYN), up(100, flags=SYN | ACK, ack=901))
    table.take(down(900, flags=SYN | ACK, ack=101), up(101, b"a"), down(901, b"b"))
    assert len(table.heard) == 1
    assert heard.streams == {UP: b"a", DOWN: b"b"}


def test_data_in_the_syn_comes_first() -> None:
    table = Table()
    heard = table.take(up(100, b"fast", flags=SYN), up(105, b" open"))
    assert heard.streams[UP] == b"fast open"


def test_a_repeated_syn_opens_nothing() -> None:
    table = Table()
    heard = table.take(up(100, flags=SYN), up(100, flags=SYN), up(700, flags=SYN), up(701, b"x"))
    assert len(table.heard) == 1
    assert heard.streams[UP] == b"x"


def test_a_second_answer_to_a_syn_does_not_move_what_was_acknowledged() -> None:
    table, heard = opened()
    table.take(down(7000, flags=SYN | ACK, ack=101), up(101, b"ask"), down(101, b"answer"))
    assert heard.streams == {UP: b"ask", DOWN: b"answer"}


def test_of_two_answers_to_a_syn_the_acknowledged_one_counts() -> None:
    table = Table()
    heard = table.take(
        up(100, flags=SYN),
        down(7000, flags=SYN | ACK, ack=101),
        down(900, flags=SYN | ACK, ack=101),
        up(101, ack=901),
        down(901, b"answer"),
    )
    assert heard.streams[DOWN] == b"answer"


@pytest.mark.parametrize("ended", [True, False])
def test_a_new_syn_between_the_same_ends_is_a_new_flow(ended: bool) -> None:
    table, old = opened()
    table.take(up(101, b"old"))
    if ended:
        table.take(up(104, flags=FIN | ACK), down(101, flags=FIN | ACK))
    new = table.take(up(9000, flags=SYN), up(9001, b"new"))
    assert old.reason == ("closed" if ended else "shutdown")
    assert (old.streams[UP], new.streams[UP]) == (b"old", b"new")


def test_a_new_flow_may_swap_the_roles() -> None:
    table, _ = opened()
    table.take(up(101, flags=RST))
    new = table.take(down(9000, flags=SYN), down(9001, b"new"))
    assert new.flow.client == Address(*SERVER)
    assert new.streams[UP] == b"new"


def test_a_reset_ends_a_flow_but_not_what_was_under_way() -> None:
    table, heard = opened()
    table.take(up(101, b"ask"), down(101, b"diagnostics", flags=RST | ACK), up(104, b"more"))
    table.close()
    assert heard.streams == {UP: b"askmore", DOWN: b""}
    assert heard.reason == "reset"


def test_a_syn_that_is_answered_by_a_reset_was_refused() -> None:
    table = Table()
    heard = table.take(up(100, flags=SYN), down(0, flags=RST | ACK, ack=101))
    table.close()
    assert heard.reason == "refused"


def test_a_reset_after_both_ends_does_not_count() -> None:
    table, heard = opened()
    table.take(up(101, flags=FIN | ACK), down(101, flags=FIN | ACK), up(102, flags=RST))
    table.close()
    assert heard.reason == "closed"


def test_stray_segments_open_nothing() -> None:
    table = Table()
    for flags in (ACK, FIN | ACK, RST):
        table.reassembler.take(0.0, up(1, flags=flags))
    table.reassembler.take(0.0, up(1, b"x", flags=RST))
    assert (table.heard, table.reassembler.orphan_segments) == ([], 4)


def test_a_flow_to_itself_is_one_half_and_ends() -> None:
    table = Table()
    heard = table.take(segment(CLIENT, CLIENT, 1, b"land", flags=SYN))
    table.close()
    assert heard.reason == "shutdown"


def test_a_flow_that_has_ended_is_forgotten_after_a_while() -> None:
    table, old = opened()
    table.take(up(101, flags=RST), up(101, b"late"))
    assert old.reason is None
    table.time_s += 29
    table.take(segment(("192.0.2.9", 1), SERVER, 1, flags=SYN))
    assert old.reason is None
    table.time_s += 1
    table.take(segment(("192.0.2.9", 1), SERVER, 2))
    assert old.reason == "reset"
    assert old.streams[UP] == b"late"


def test_the_oldest_flow_is_closed_for_one_too_many_but_ended_ones_first() -> None:
    table = Table(limits={"max_flows": 3})
    for port in (1, 2, 3):
        table.take(segment(CLIENT, ("198.51.100.2", port), 1, flags=SYN))
    table.take(segment(CLIENT, ("198.51.100.2", 2), 2, flags=RST))
    for port in (4, 5):
        table.take(segment(CLIENT, ("198.51.100.2", port), 1, flags=SYN))
    gone = [heard.flow.destination.port for heard in table.heard if heard.reason]
    assert gone == [1, 2]
    assert table.reassembler.evicted == 1


def test_the_oldest_is_told_to_keep_no_more_when_all_keep_too_much() -> None:
    table = Table(limits={"max_kept_bytes": 1000}, keeps=True)
    for port in range(1, 6):
        table.take(segment(CLIENT, ("198.51.100.2", port), 1, bytes(300)))
    table.take(segment(CLIENT, ("198.51.100.2", 1), 301, bytes(300)))
    assert [("give up",) in heard.log for heard in table.heard] == [True, True] + [False] * 3
    assert len(table.heard[0].streams[UP]) == 300
    table.close()
    assert table.reassembler.evicted == 2
    assert {heard.reason for heard in table.heard} == {"shutdown"}


def test_what_waits_behind_holes_counts_and_the_oldest_hole_is_given_up() -> None:
    table = Table(limits={"max_kept_bytes": 2000})
    for port in range(1, 5):
        table.take(segment(CLIENT, ("198.51.100.2", port), 1, flags=SYN))
        table.take(segment(CLIENT, ("198.51.100.2", port), 12, bytes(500)))
    assert [heard.log for heard in table.heard] == [
        [("lost", UP, 10), ("data", UP, bytes(500)), ("give up",)],
        [],
        [],
        [],
    ]
    table.take(segment(CLIENT, ("198.51.100.2", 2), 2, bytes(10)))
    assert table.heard[1].log == [("data", UP, bytes(10)), ("data", UP, bytes(500))]
    table.close()
    assert table.reassembler.evicted == 1


def test_a_flow_that_was_given_up_is_counted_once() -> None:
    table = Table(limits={"max_kept_bytes": 100})
    table.take(up(100, flags=SYN))
    for number in range(1, 6):
        table.take(up(101 + number * 10, b"x"))
    assert table.reassembler.evicted == 1
    assert table.close().flow.bytes_up == 5


def test_the_end_of_both_directions_is_told_at_once_unless_something_waits() -> None:
    table, heard = opened()
    table.take(up(101, flags=FIN | ACK))
    assert not heard.is_over
    table.take(down(101, flags=FIN | ACK))
    assert heard.is_over
    table, heard = opened()
    table.take(up(120, b"behind a hole"), up(101, flags=FIN | ACK), down(101, flags=FIN | ACK))
    assert not heard.is_over


def test_addresses_of_ipv6_are_told_as_such() -> None:
    table = Table()
    heard = table.take(segment(("2001:db8::1", 5), ("2001:db8::2", 6), 1, b"x"))
    assert heard.flow.client == Address("2001:db8::1", 5)
    assert heard.flow.destination == Address("2001:db8::2", 6)


segments = st.builds(
    lambda way, seq, ack, size, cut, flags: way(
        seq, bytes(max(0, size - cut)), ack=ack, flags=flags, length=size
    ),
    st.sampled_from([up, down]),
    st.one_of(st.integers(90, 140), st.integers(0, 2**32 - 1)),
    st.one_of(st.integers(90, 140), st.integers(0, 2**32 - 1)),
    st.integers(0, 30),
    st.integers(0, 30),
    st.integers(0, 31),
)


@given(st.lists(segments, max_size=40), st.sampled_from([0, 3, ALL]))
def test_whatever_comes_every_flow_is_closed_once_and_nothing_is_kept(
    script: list[Segment], grant: int
) -> None:
    table = Table(limits={"max_flows": 2}, keeps=True)
    for each in script:
        table.reassembler.take(1.0, each)
        for heard in table.heard:
            heard.grants[UP] = heard.grants[UP] or grant
    for _ in table.reassembler.close():
        pass
    assert all(heard.reason for heard in table.heard)
    assert table.reassembler._kept_bytes == 0
    assert not table.reassembler.halves
