"""Captures that begin in the middle of a connection, or show one direction of it.

`MIDDLES` holds what either side was seen to say, by protocol. Whoever is seen first is taken for
the client, so each of them is tried in both places, with and without the other side.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mitml4.protocols.conversation import Direction, LayerContext, Opening, Verdict
from mitml4.protocols.registry import BEGINNING, PROTOCOLS, by_name, detect

MIDDLES: dict[str, list[bytes]] = {
    "tls": [
        b"\x15\3\3\0\2\2\x32",
        b"\x14\3\3\0\1\1\x17\3\3\0\x35",
        b"\x17\3\3\0\x10" + bytes(range(16)) + b"\x17\3\3",
        b"\x16\3\3\0\x28" + bytes(range(100, 140)) + b"\x17\3\3",
        bytes.fromhex("16030300260b00002200001f00001c") + bytes(28) + b"\x16\3\3\0\4\x0e\0\0\0",
    ],
    "ssh": [
        b"\0\0\1\xfc\7\x14" + bytes(range(16)) + b"\0\0\0\x11curve25519-sha256\0\0\0\7ssh-rsa",
    ],
    "postgresql": [
        b"R\0\0\0\x08\0\0\0\0S\0\0\0\x16application_name\0\0",
        b"E\0\0\0USFATAL\0VFATAL\0C53300\0Msorry, too many clients already\0",
        b"Q\0\0\0\x0aBEGIN\0Q\0\0\0\x17select pg_sleep(3)\0",
        b"P\0\0\0\x10\0select 1\0\0\0B\0\0\0\x0c\0\0\0\0\0\0\0\0",
        b"1\0\0\0\0042\0\0\0\4T\0\0\0\x1c",
        b"Z\0\0\0\5IC\0\0\0\x0aBEGIN\0",
    ],
    "mysql": [
        bytes.fromhex("010000010127000002036465660000000c"),
    ],
    "tds": [
        bytes.fromhex("0401001a0000010000000b00060100110001ff100003e8000001"),
    ],
    "rdp": [bytes.fromhex("030000130ed000001234000201080001000000")],
    "mongodb": [
        bytes.fromhex("31000000070000000100000001000000080000000000000000000000000000000100")
        + b"\0\0\x0d\0\0\0\x10ok\0\1\0\0\0\0",
        bytes.fromhex("260000000700000001000000dd070000000000000011000000016f6b00")
        + bytes(6)
        + b"\xf0\x3f\0",
    ],
    "mqtt": [
        b"\xd0\0002\x0a\0\3a/b\0\1\0hi",
        b" \2\0\0\x90\3\0\1\1",
        b"@\2\0\0023\x0a\0\3a/b\0\1\0hi\xe0\0",
    ],
    "amqp": [
        bytes.fromhex("0000004002000000005310c0"),
        b"\1\0\0\0\0\0\x08\0\x0a\0\x0a\0\x09\0\0\xce",
    ],
    "dns": [
        b"\0\x29\x43\x19\x81\x80\0\1\0\1\0\0\0\0\1a\2ex\0\0\1\0\1\xc0\x0c" + bytes(14),
    ],
    "kafka": [
        bytes.fromhex("0000015a0000008c00000000003800000000000900010000000c0002000000060003")
    ],
    "cassandra": [b"\x84\0\0\0\6\0\0\0\x20\0\2\0\x0bCOMPRESSION\0\1\0\3lz4"],
    "ldap": [b"\x30\x0c\2\1\2\x65\7\x0a\1\0\4\0\4\0"],
}
CLIENTS: dict[str, list[bytes]] = {
    "mysql": [b"\x09\0\0\0\3select 1"],
    "tds": [bytes.fromhex("0101005c000001001600000012000000020000000000000000000100000073006500")],
}
"""What only a client says."""
SIDES = [(name, data) for name, middles in MIDDLES.items() for data in middles]
CASES = [*SIDES, *((name, data) for name, middles in CLIENTS.items() for data in middles)]
ROWS = [row for row in PROTOCOLS if row.detect is not None]
ONE_SIDE = st.binary(max_size=60)


def verdicts(opening: Opening) -> Iterator[tuple[str, Verdict]]:
    for row in ROWS:
        assert row.detect is not None
        yield row.name, row.detect(opening)


def test_what_comes_first_is_known_at_every_split() -> None:
    for name, data in CASES:
        for end in range(len(data)):
            detection = detect(Opening(up=data[:end]))
            assert detection.match is None or detection.match.name == name
            assert detection.match or name in [row.name for row in detection.candidates]
        match = detect(Opening(up=data, down=b"\xaa\x55")).match
        assert match is not None
        assert match.name == name


def test_the_servers_side_alone_is_likely() -> None:
    for name, data in SIDES:
        for end in range(len(data)):
            likely = detect(Opening(down=data[:end])).likely
            assert likely is None or likely.name == name
        likely = detect(Opening(down=data)).likely
        assert likely is not None
        assert likely.name == name


@st.composite
def mutants(draw: st.DrawFn) -> bytes:
    """A middle that is cut anywhere and has a few bytes changed."""
    data = bytearray(draw(st.sampled_from(CASES))[1])
    del data[draw(st.integers(1, len(data))) :]
    for _ in range(draw(st.integers(0, 3))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data) + draw(st.binary(max_size=8))


@given(up=mutants(), down=mutants() | ONE_SIDE)
def test_two_rows_never_match_the_same_middle(up: bytes, down: bytes) -> None:
    matches = [name for name, said in verdicts(Opening(up=up, down=down)) if said is Verdict.MATCH]
    assert len(matches) < 2, matches


@given(up=mutants(), down=mutants() | ONE_SIDE)
def test_a_verdict_on_a_middle_never_flips(up: bytes, down: bytes) -> None:
    final = (Verdict.MATCH, Verdict.REJECT)
    for row in ROWS:
        assert row.detect is not None
        said = [row.detect(Opening(up=up[: end + 1], down=down)) for end in range(len(up))]
        answers = [row.detect(Opening(up=up, down=down[:end])) for end in range(len(down) + 1)]
        for before, after in (*pairwise(said), *pairwise(answers)):
            assert before not in final or before is after, row.name


@given(up=mutants(), down=mutants() | ONE_SIDE)
def test_who_rejects_a_beginning_rejects_what_follows(up: bytes, down: bytes) -> None:
    for row in ROWS:
        assert row.detect is not None
        if row.detect(Opening(up=up[:BEGINNING])) is Verdict.REJECT:
            assert row.detect(Opening(up=up, down=down)) is Verdict.REJECT, row.name


@given(data=mutants())
def test_the_table_of_first_bytes_knows_all_middles(data: bytes) -> None:
    for row in ROWS:
        assert row.detect is not None
        if row.client_first is not None and data[0] not in row.client_first:
            assert row.detect(Opening(up=data)) in (Verdict.REJECT, Verdict.NEED_MORE), row.name
        if row.server_first is not None and data[0] not in row.server_first:
            assert row.detect(Opening(down=data)) in (Verdict.REJECT, Verdict.NEED_MORE), row.name


def test_a_conversation_takes_the_middle_as_it_comes(converse: Any) -> None:
    for name, data, direction in (
        *((name, data, Direction.UP) for name, data in CASES),
        *((name, data, Direction.DOWN) for name, data in SIDES),
    ):
        row = by_name(name)
        assert row is not None
        assert row.converse is not None
        said = set()
        for chunk in (None, 1, 3):
            conversation = row.converse(LayerContext())
            talk = converse(conversation, [(direction, data)], chunk=chunk)
            said.add(
                (conversation.details(), conversation.details_ready, bytes(talk.moved[direction]))
            )
        assert len(said) == 1
