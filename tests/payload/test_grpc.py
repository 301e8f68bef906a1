from __future__ import annotations

import gzip
import zlib

from hypothesis import given
from hypothesis import strategies as st

from mitml4.payload.budget import SessionPayload
from mitml4.payload.codings import zstd_module
from mitml4.payload.grpc import GrpcFrame, GrpcReader

ENCODE = {"gzip": gzip.compress, "deflate": zlib.compress, "zstd": zstd_module().compress}


def message(data: bytes, *, flags: int = 0) -> bytes:
    return bytes([flags]) + len(data).to_bytes(4) + data


def read(
    data: bytes, codings: tuple[str, ...] = (), *, piece: int = 1 << 20, limit: int = 1000
) -> list[GrpcFrame]:
    payload = SessionPayload(limit=limit).of_flow()
    reader = GrpcReader(payload, codings)
    frames = []
    for at in range(0, len(data), piece):
        frames += reader.read(data[at : at + piece])
    frames += reader.end()
    assert payload.held == 0
    return frames


@given(
    messages=st.lists(st.tuples(st.binary(max_size=40), st.booleans()), max_size=5),
    coding=st.sampled_from(sorted(ENCODE)),
    piece=st.integers(1, 60),
)
def test_messages_are_read_however_the_stream_is_split(
    messages: list[tuple[bytes, bool]], coding: str, piece: int
) -> None:
    sent = [ENCODE[coding](data) if compressed else data for data, compressed in messages]
    stream = b"".join(
        message(data, flags=compressed)
        for data, (_, compressed) in zip(sent, messages, strict=True)
    )
    frames = read(stream, (coding,), piece=piece)
    assert [(frame.content.data, frame.compressed) for frame in frames] == messages
    assert [frame.content.size for frame in frames] == [len(data) for data in sent]
    assert not any(frame.content.truncated or frame.is_trailers for frame in frames)


def test_a_large_message_is_shown_up_to_the_limit() -> None:
    first, second = read(message(bytes(5000)) + message(b"next"), piece=7, limit=100)
    assert (first.content.data, first.content.size) == (bytes(100), 5000)
    assert first.content.truncated
    assert (second.content.data, second.content.truncated) == (b"next", False)


def test_an_unknown_compression_is_shown_as_it_came() -> None:
    for codings in ((), ("snappy",)):
        (frame,) = read(message(b"???", flags=1), codings)
        assert (frame.content.data, frame.compressed, frame.content.encoding) == (b"???", True, ())


def test_a_message_that_is_cut_off_is_truncated() -> None:
    (frame,) = read(message(b"whole")[:-2])
    assert (frame.content.data, frame.content.truncated) == (b"who", True)
    assert read(message(b"whole")[:4]) == []


def test_trailers_of_grpc_web_are_marked() -> None:
    message_frame, trailers = read(message(b"x") + message(b"grpc-status: 0\r\n", flags=0x80))
    assert (message_frame.is_trailers, trailers.is_trailers) == (False, True)
    assert trailers.content.data == b"grpc-status: 0\r\n"


def test_what_is_no_grpc_is_not_read() -> None:
    assert read(b"<html>not gRPC</html>") == []
