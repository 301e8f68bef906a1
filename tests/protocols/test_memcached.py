"""memcached: lines with their answers, and heads whose lengths fit."""

from __future__ import annotations

from typing import Any

import pytest

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import FORWARD_ALL, Direction, Opening, Verdict
from mitml4.protocols.memcached import Memcached, detect

UP, DOWN = Direction.UP, Direction.DOWN


def binary(opcode: int, key: bytes = b"", extras: int = 0, value: bytes = b"") -> bytes:
    body = bytes(extras) + key + value
    head = bytes([0x80, opcode]) + len(key).to_bytes(2, "big") + bytes([extras, 0, 0, 0])
    return head + len(body).to_bytes(4, "big") + bytes(12) + body


def test_the_first_commands_name_and_nothing_else(converse: Any) -> None:
    for chunk in (None, 1, 5):
        for first, form, command in (
            (b"get secret\r\n", "text", b"get"),
            (b"stats\r\n", "text", b"stats"),
            (b"flush_all\n", "text", b"flush_all"),
            (b"set secret 0 0 6\r\nsecret\r\n", "text", b"set"),
            (binary(0, b"secret"), "binary", b"get"),
            (binary(0x21, b"PLAIN", 0, b"\0u\0secret"), "binary", b"sasl auth"),
        ):
            conversation = Memcached()
            talk = converse(
                conversation, [(UP, first), (DOWN, b"END\r\n"), (UP, b"x")], chunk=chunk
            )
            assert (conversation.up, conversation.down) == (FORWARD_ALL, FORWARD_ALL)
            assert conversation.details_ready
            assert talk.moved == {UP: first + b"x", DOWN: b"END\r\n"}
            assert (conversation.details().format, conversation.details().command) == (
                form,
                command,
            )
            assert "secret" not in repr(conversation)


@pytest.mark.parametrize("first", [b"g" * 20, b"\x80\xff", b"\x80\x0a\x00\x01"])
def test_bytes_that_break_the_protocol_raise_protocol_error(converse: Any, first: bytes) -> None:
    with pytest.raises(ProtocolError, match="memcached"):
        converse(Memcached(), [(UP, first)])


def test_detection_by_the_clients_line() -> None:
    for up, verdict in (
        (b"", Verdict.NEED_MORE),
        (b"ge", Verdict.NEED_MORE),
        (b"get key", Verdict.NEED_MORE),
        (b"get key\r\n", Verdict.NEED_MORE),
        (b"stats\n", Verdict.NEED_MORE),
        (b"stats items\r\n", Verdict.NEED_MORE),
        (b"mg key t v\r\n", Verdict.NEED_MORE),
        (b"set k 0 0 1 noreply\r\nx", Verdict.LIKELY),
        (b"set k v\r\n", Verdict.REJECT),
        (b"get\r\n", Verdict.REJECT),
        (b"gets", Verdict.NEED_MORE),
        (b"getter", Verdict.REJECT),
        (b"GET key\r\n", Verdict.REJECT),
        (b"get /a HTTP/1.1\r\n", Verdict.REJECT),
        (b"get \x00", Verdict.REJECT),
        (b"get " + b"k" * 3000, Verdict.REJECT),
        (b"version 1\r\n", Verdict.REJECT),
    ):
        assert detect(Opening(up=up)) is verdict
        usual = Verdict.LIKELY if b"\n" in up and verdict is Verdict.NEED_MORE else verdict
        assert detect(Opening(up=up, port=11211)) is usual


def test_a_line_is_told_by_its_answer() -> None:
    for up, down, verdict in (
        (b"get k\r\n", b"VAL", Verdict.NEED_MORE),
        (b"mg foo v\r\n", b"EN\r\n", Verdict.MATCH),
        (b"ms foo 2\r\nhi\r\n", b"HD\r\n", Verdict.MATCH),
        (b"mn\r\n", b"MN\r\n", Verdict.MATCH),
        (b"set k 0 0 1 noreply\r\na\r\nget k\r\n", b"VALUE k 0 1\r\n", Verdict.MATCH),
        (b"set k 0 0 1 noreply\r\na\r\nfoo\r\n", b"+OK\r\n", Verdict.REJECT),
        (b"gat 0 k\r\n", b"ERROR\r\n", Verdict.MATCH),
        (b"get k\r\n", b"VALUE k 0 1\r\n", Verdict.MATCH),
        (b"get k\r\n", b"END\r\n", Verdict.MATCH),
        (b"get k\r\n", b"$-1\r\n", Verdict.REJECT),  # Redis
        (b"stats\r\n", b"STAT pid 1\r\n", Verdict.MATCH),
        (b"incr k 1\r\n", b"2\r\n", Verdict.MATCH),
        (b"version\r\n", b"VERSION 1.6.21\r\n", Verdict.MATCH),
        (b"version\r\n", b"END\r\n", Verdict.REJECT),
        (b"set k 0 0 1\r\nx\r\n", b"SERVER_ERROR out of memory\r\n", Verdict.MATCH),
        (b"get k\r\n", b"HTTP/1.1 400 Bad Request\r\n", Verdict.REJECT),
    ):
        assert detect(Opening(up=up, down=down)) is verdict


def test_detection_by_a_binary_head() -> None:
    for up, verdict in (
        (binary(0, b"key")[:23], Verdict.NEED_MORE),
        (binary(0, b"key")[:26], Verdict.NEED_MORE),
        (binary(0, b"key"), Verdict.MATCH),
        (binary(0, b"k\0y"), Verdict.REJECT),
        (binary(0x0A), Verdict.MATCH),
        (binary(0x01, b"key", 8, b"value"), Verdict.MATCH),
        (binary(0x08, b"", 4), Verdict.MATCH),
        (binary(0x08, b"", 2), Verdict.REJECT),
        (binary(0x00), Verdict.REJECT),
        (binary(0x00, b"key", 4), Verdict.REJECT),
        (binary(0x0A, b"key"), Verdict.REJECT),
        (binary(0x00, b"key", 0, b"value"), Verdict.REJECT),
        (b"\x80\x2e\x01\x03\x01", Verdict.REJECT),  # an SSLv2 hello
        (b"\x80\x01\x00\x01\x00", Verdict.REJECT),  # Thrift
        (b"\x80\x00\x00\x28\x12\x34\x56\x78", Verdict.REJECT),  # RPC
    ):
        assert detect(Opening(up=up)) is verdict
