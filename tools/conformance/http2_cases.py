"""What a client sends, right or wrong, in the sections of h2spec (RFC 9113, RFC 7541).

A case is what is sent after the handshake, in order: bytes, a number (END or CONTENT: wait for that
of stream 1), or a function of the server's settings. Whether the server's answer is right is not
asked: it has to be the same with mitml4 between.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

Step: TypeAlias = bytes | int | Callable[[Mapping[int, int]], bytes]

END: Final = 1
"""Wait for the end of the response on stream 1."""
CONTENT: Final = 2
"""Wait for content, or for the end, on stream 1."""

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE = 0, 1, 2, 3, 4, 5
PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 6, 7, 8, 9
ACK, END_STREAM, END_HEADERS, PADDED, HAS_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
OVER: Final = END_STREAM | END_HEADERS
TABLE_SIZE, ENABLE_PUSH, MAX_STREAMS, WINDOW, FRAME_SIZE = 1, 2, 3, 4, 5


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    head = len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4)
    return head + payload


def string(text: bytes) -> bytes:
    """RFC 7541 §5.2, without Huffman coding."""
    if len(text) < 127:
        return bytes([len(text)]) + text
    rest, size = len(text) - 127, b"\x7f"
    while rest >= 128:
        size, rest = size + bytes([rest % 128 | 128]), rest // 128
    return size + bytes([rest]) + text


def field(name: bytes, value: bytes) -> bytes:
    """A field without indexing, with a literal name (RFC 7541 §6.2.2)."""
    return b"\0" + string(name) + string(value)


METHOD, SCHEME = field(b":method", b"GET"), field(b":scheme", b"http")
PATH, AUTHORITY = field(b":path", b"/"), field(b":authority", b"127.0.0.1")
GET: Final = METHOD + SCHEME + PATH + AUTHORITY
POST: Final = GET.replace(METHOD, field(b":method", b"POST"))
HEAD: Final = GET.replace(METHOD, field(b":method", b"HEAD"))
TEST: Final = field(b"x-test", b"test")
LONG: Final = b"".join(field(b"x-dummy%d" % n, b"*" * 1024) for n in range(10))


def get(stream: int = 1, block: bytes = GET) -> bytes:
    return frame(HEADERS, OVER, stream, block)


def post(*bodies: bytes, stream: int = 1, block: bytes = POST, ends: bool = True) -> bytes:
    """A request with a body in so many frames."""
    sent = frame(HEADERS, END_HEADERS, stream, block)
    for at, body in enumerate(bodies):
        sent += frame(DATA, END_STREAM * (ends and at == len(bodies) - 1), stream, body)
    return sent


def settings(pairs: Sequence[tuple[int, int]]) -> bytes:
    payload = b"".join(number.to_bytes(2) + value.to_bytes(4) for number, value in pairs)
    return frame(SETTINGS, 0, 0, payload)


def priority(on: int = 0, weight: int = 255, *, exclusive: bool = False) -> bytes:
    return (on | exclusive << 31).to_bytes(4) + bytes([weight])


def update(stream: int, count: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, count.to_bytes(4))


def too_many(of_server: Mapping[int, int]) -> bytes:
    """One request more than may be open."""
    count = min(of_server.get(MAX_STREAMS, 0), 1000)
    return b"".join(
        frame(HEADERS, END_HEADERS, 2 * number + 1, POST) for number in range(count + 1)
    )


PINGED: Final = frame(PING, 0, 0, b"conforms")
CANCELLED: Final = (8).to_bytes(4)
UNKNOWN: Final = 0x16

GENERIC: Final[Mapping[str, Sequence[Step]]] = {
    "1 nothing after the preface": [PINGED],
    "2 PRIORITY on an idle stream": [frame(PRIORITY, 0, 1, priority()), PINGED],
    "2 WINDOW_UPDATE on a half-closed stream": [
        settings([(WINDOW, 0)]) + get(),
        update(1, 1),
        CONTENT,
    ],
    "2 PRIORITY on a half-closed stream": [
        settings([(WINDOW, 0)]) + get() + frame(PRIORITY, 0, 1, priority()),
        update(1, 1),
        CONTENT,
    ],
    "2 RST_STREAM on a half-closed stream": [get() + frame(RST_STREAM, 0, 1, CANCELLED), PINGED],
    "2 PRIORITY on a closed stream": [get(), END, frame(PRIORITY, 0, 1, priority()), PINGED],
    "3.1 DATA": [post(b"test")],
    "3.1 several DATA": [post(b"test", b"test")],
    "3.1 DATA with padding": [post() + frame(DATA, END_STREAM | PADDED, 1, b"\6test" + bytes(6))],
    "3.2 HEADERS": [get()],
    "3.2 HEADERS with padding": [frame(HEADERS, OVER | PADDED, 1, b"\6" + GET + bytes(6))],
    "3.2 HEADERS with priority": [frame(HEADERS, OVER | HAS_PRIORITY, 1, priority() + GET)],
    "3.3 PRIORITY with weight 1": [frame(PRIORITY, 0, 1, priority(weight=0)) + get()],
    "3.3 PRIORITY with weight 256": [frame(PRIORITY, 0, 1, priority(weight=255)) + get()],
    "3.3 PRIORITY with a dependency": [frame(PRIORITY, 0, 1, priority(3)) + get()],
    "3.3 PRIORITY with an exclusive dependency": [
        frame(PRIORITY, 0, 1, priority(3, exclusive=True)) + get()
    ],
    "3.3 PRIORITY on an idle stream, then a lower one": [
        frame(PRIORITY, 0, 3, priority()) + get(1)
    ],
    "3.4 RST_STREAM": [post(b"", ends=False) + frame(RST_STREAM, 0, 1, CANCELLED), PINGED],
    "3.5 SETTINGS": [settings([(MAX_STREAMS, 100)])],
    "3.7 PING": [PINGED],
    "3.8 GOAWAY": [frame(GOAWAY, 0, 0, bytes(8)), PINGED],
    "3.9 WINDOW_UPDATE of the connection": [
        settings([(WINDOW, 100)]) + update(0, 1) + get(),
        CONTENT,
    ],
    "3.9 WINDOW_UPDATE of a stream": [settings([(WINDOW, 0)]) + get() + update(1, 3), CONTENT],
    "3.10 CONTINUATION": [
        frame(HEADERS, END_STREAM, 1, GET) + frame(CONTINUATION, END_HEADERS, 1, LONG)
    ],
    "3.10 several CONTINUATION": [
        frame(HEADERS, END_STREAM, 1, GET)
        + frame(CONTINUATION, 0, 1, LONG)
        + frame(CONTINUATION, END_HEADERS, 1, TEST)
    ],
    "4 GET": [get()],
    "4 HEAD": [get(block=HEAD)],
    "4 POST": [post(b"test")],
    "4 POST with trailers": [
        post(b"test", block=POST + field(b"trailer", b"x-test"), ends=False) + get(block=TEST)
    ],
    "5 an indexed field": [get(block=GET + b"\xa0")],  # 32: cookie, in the static table
    "5 with indexing, an indexed name": [get(block=GET + b"\x7a\6h2spec")],
    "5 with indexing, an indexed name, Huffman": [get(block=GET + b"\x7a\x84\x9c\x48\xac\xa4")],
    "5 with indexing, a new name": [get(block=GET + b"\x40\6x-test\6h2spec")],
    "5 with indexing, a new name, Huffman": [
        get(block=GET + b"\x40\x85\xf2\xb2\x4a\x84\xff\x84\x9c\x48\xac\xa4")
    ],
    "5 indexed, then from the dynamic table": [
        get(block=GET + b"\x40\6x-test\6h2spec"),
        END,
        get(3, GET + b"\xbe"),
    ],
    "5 without indexing, an indexed name": [get(block=GET + b"\x0f\x2b\6h2spec")],
    "5 without indexing, an indexed name, Huffman": [
        get(block=GET + b"\x0f\x2b\x84\x9c\x48\xac\xa4")
    ],
    "5 without indexing, a new name": [get(block=GET + b"\0\6x-test\6h2spec")],
    "5 without indexing, a new name, Huffman": [
        get(block=GET + b"\0\x85\xf2\xb2\x4a\x84\xff\x84\x9c\x48\xac\xa4")
    ],
    "5 never indexed, an indexed name": [get(block=GET + b"\x1f\x2b\6h2spec")],
    "5 never indexed, an indexed name, Huffman": [get(block=GET + b"\x1f\x2b\x84\x9c\x48\xac\xa4")],
    "5 never indexed, a new name": [get(block=GET + b"\x10\6x-test\6h2spec")],
    "5 never indexed, a new name, Huffman": [
        get(block=GET + b"\x10\x85\xf2\xb2\x4a\x84\xff\x84\x9c\x48\xac\xa4")
    ],
    "5 a size update of the table": [get(block=b"\x20" + GET)],
    "5 several size updates of the table": [get(block=b"\x20\x3f\x81\x01" + GET)],
}

HTTP2: Final[Mapping[str, Sequence[Step]]] = {
    "4.1 a frame of an unknown type": [frame(UNKNOWN, 0, 0, bytes(8)) + PINGED],
    "4.1 unknown flags": [frame(PING, 0x16, 0, b"conforms")],
    "4.1 the reserved bit": [frame(PING, 0, 1 << 31, b"conforms")],
    "4.2 DATA of 16384 bytes": [post(bytes(16384))],
    "4.2 DATA above the limit": [post(bytes(16385))],
    "4.2 HEADERS above the limit": [get(block=GET + LONG + LONG)],
    "4.3 a header block that cannot be decoded": [get(block=b"\x40")],
    "4.3 PRIORITY within a header block": [
        frame(HEADERS, END_STREAM, 1, GET)
        + frame(PRIORITY, 0, 1, priority())
        + frame(CONTINUATION, END_HEADERS, 1, TEST)
    ],
    "4.3 HEADERS of another stream within a header block": [
        frame(HEADERS, END_STREAM, 1, GET) + get(3)
    ],
    "5.1 idle: DATA": [frame(DATA, END_STREAM, 1, b"test")],
    "5.1 idle: RST_STREAM": [frame(RST_STREAM, 0, 1, CANCELLED)],
    "5.1 idle: WINDOW_UPDATE": [update(1, 100)],
    "5.1 idle: CONTINUATION": [frame(CONTINUATION, END_HEADERS, 1, GET)],
    "5.1 half-closed: DATA": [get() + frame(DATA, END_STREAM, 1, b"test")],
    "5.1 half-closed: HEADERS": [get() + get()],
    "5.1 half-closed: CONTINUATION": [get() + frame(CONTINUATION, END_HEADERS, 1, GET)],
    "5.1 after RST_STREAM: DATA": [
        post() + frame(RST_STREAM, 0, 1, CANCELLED) + frame(DATA, END_STREAM, 1, b"test")
    ],
    "5.1 after RST_STREAM: HEADERS": [post() + frame(RST_STREAM, 0, 1, CANCELLED) + get()],
    "5.1 after RST_STREAM: CONTINUATION": [
        post() + frame(RST_STREAM, 0, 1, CANCELLED) + frame(CONTINUATION, END_HEADERS, 1, TEST)
    ],
    "5.1 closed: DATA": [get(), END, frame(DATA, END_STREAM, 1, b"test")],
    "5.1 closed: HEADERS": [get(), END, get()],
    "5.1 closed: CONTINUATION": [get(), END, frame(CONTINUATION, END_HEADERS, 1, TEST)],
    "5.1.1 an even number": [get(2)],
    "5.1.1 a lower number": [get(5) + get(3)],
    "5.1.2 more streams than allowed": [too_many],
    "5.3.1 HEADERS that depend on themselves": [
        frame(HEADERS, OVER | HAS_PRIORITY, 1, priority(1) + GET)
    ],
    "5.3.1 PRIORITY that depends on itself": [frame(PRIORITY, 0, 1, priority(1)) + PINGED],
    "5.4.1 an error, and the end of the connection": [frame(PING, 0, 3, b"conforms")],
    "5.5 an unknown frame": [frame(UNKNOWN, 0, 1, b"test") + get()],
    "5.5 an unknown frame within a header block": [
        frame(HEADERS, END_STREAM, 1, GET)
        + frame(UNKNOWN, 0, 0, b"test")
        + frame(CONTINUATION, END_HEADERS, 1, TEST)
    ],
    "6.1 DATA on stream 0": [frame(DATA, END_STREAM, 0, b"test")],
    "6.1 DATA on a stream that is closed": [get() + frame(DATA, END_STREAM, 1, b"test")],
    "6.1 DATA with too much padding": [post() + frame(DATA, END_STREAM | PADDED, 1, b"\6test")],
    "6.2 HEADERS without their end, then PRIORITY": [
        frame(HEADERS, END_STREAM, 1, GET) + frame(PRIORITY, 0, 1, priority())
    ],
    "6.2 HEADERS without their end, then others": [frame(HEADERS, END_STREAM, 1, GET) + get(3)],
    "6.2 HEADERS on stream 0": [get(0)],
    "6.2 HEADERS with too much padding": [
        frame(HEADERS, OVER | PADDED, 1, bytes([len(GET) + 1]) + GET)
    ],
    "6.3 PRIORITY on stream 0": [frame(PRIORITY, 0, 0, priority())],
    "6.3 PRIORITY of a wrong length": [post() + frame(PRIORITY, 0, 1, b"\x80\0\0\1")],
    "6.4 RST_STREAM on stream 0": [frame(RST_STREAM, 0, 0, CANCELLED)],
    "6.4 RST_STREAM on an idle stream": [frame(RST_STREAM, 0, 1, CANCELLED)],
    "6.4 RST_STREAM of a wrong length": [post() + frame(RST_STREAM, 0, 1, b"\0\0\0")],
    "6.5 SETTINGS with ACK and content": [frame(SETTINGS, ACK, 0, b"\0\0\0\0\0\0")],
    "6.5 SETTINGS of a stream": [frame(SETTINGS, 0, 1, b"\0\3\0\0\0\x64")],
    "6.5 SETTINGS of a wrong length": [frame(SETTINGS, 0, 0, b"\0\3\0")],
    "6.5.2 ENABLE_PUSH that is neither 0 nor 1": [settings([(ENABLE_PUSH, 2)])],
    "6.5.2 a window above 2^31-1": [settings([(WINDOW, 1 << 31)])],
    "6.5.2 a frame size below 16384": [settings([(FRAME_SIZE, 16383)])],
    "6.5.2 a frame size above 2^24-1": [settings([(FRAME_SIZE, 1 << 24)])],
    "6.5.2 an unknown setting": [settings([(0xFF, 1)]) + PINGED],
    "6.5.3 a window twice": [settings([(WINDOW, 100), (WINDOW, 1)]) + get(), CONTENT],
    "6.5.3 SETTINGS are acknowledged": [settings([(ENABLE_PUSH, 0)])],
    "6.7 PING": [PINGED],
    "6.7 PING with ACK": [frame(PING, ACK, 0, b"invalid!") + PINGED],
    "6.7 PING of a stream": [frame(PING, 0, 1, b"conforms")],
    "6.7 PING of a wrong length": [frame(PING, 0, 0, b"short!")],
    "6.8 GOAWAY of a stream": [frame(GOAWAY, 0, 1, bytes(8))],
    "6.9 WINDOW_UPDATE of 0": [update(0, 0)],
    "6.9 WINDOW_UPDATE of 0 on a stream": [post() + update(1, 0)],
    "6.9 WINDOW_UPDATE of a wrong length": [frame(WINDOW_UPDATE, 0, 0, b"\0\0\1")],
    "6.9.1 a window of one byte": [settings([(WINDOW, 1)]) + get(), CONTENT],
    "6.9.1 a window above 2^31-1": [update(0, 0x7FFFFFFF) + update(0, 0x7FFFFFFF)],
    "6.9.1 a stream's window above 2^31-1": [
        settings([(WINDOW, 0)]) + get() + update(1, 0x7FFFFFFF) + update(1, 0x7FFFFFFF)
    ],
    "6.9.2 the initial window grows": [
        settings([(WINDOW, 0)]) + get(),
        settings([(WINDOW, 1)]),
        CONTENT,
    ],
    "6.9.2 a window below zero": [
        settings([(WINDOW, 3)]) + get(),
        CONTENT,
        settings([(WINDOW, 2)]) + update(1, 2),
    ],
    "6.9.2 an initial window above 2^31-1": [settings([(WINDOW, 1 << 31)])],
    "6.10 several CONTINUATION": [
        frame(HEADERS, END_STREAM, 1, GET)
        + frame(CONTINUATION, 0, 1, TEST)
        + frame(CONTINUATION, END_HEADERS, 1, TEST)
    ],
    "6.10 something else after CONTINUATION": [
        frame(HEADERS, END_STREAM, 1, GET)
        + frame(CONTINUATION, 0, 1, TEST)
        + frame(DATA, END_STREAM, 1, b"test")
    ],
    "6.10 CONTINUATION on stream 0": [
        frame(HEADERS, END_STREAM, 1, GET) + frame(CONTINUATION, END_HEADERS, 0, TEST)
    ],
    "6.10 CONTINUATION after the end of HEADERS": [
        post() + frame(CONTINUATION, END_HEADERS, 1, TEST)
    ],
    "6.10 CONTINUATION after the last one": [
        frame(HEADERS, 0, 1, POST)
        + frame(CONTINUATION, END_HEADERS, 1, TEST)
        + frame(CONTINUATION, END_HEADERS, 1, TEST)
    ],
    "6.10 CONTINUATION after DATA": [
        post(b"test", ends=False) + frame(CONTINUATION, END_HEADERS, 1, TEST)
    ],
    "7 GOAWAY with an unknown code": [frame(GOAWAY, 0, 0, bytes(4) + b"\0\0\0\xff") + PINGED],
    "7 RST_STREAM with an unknown code": [post() + frame(RST_STREAM, 0, 1, b"\0\0\0\xff") + PINGED],
    "8.1 a second HEADERS without the end": [
        post(b"test", ends=False) + frame(HEADERS, END_HEADERS, 1, TEST)
    ],
    "8.1.2 upper-case names": [get(block=GET + field(b"X-TEST", b"ok"))],
    "8.1.2.1 an unknown pseudo-header": [get(block=GET + field(b":test", b"ok"))],
    "8.1.2.1 a response's pseudo-header": [get(block=GET + field(b":status", b"200"))],
    "8.1.2.1 pseudo-headers in trailers": [post(b"test", ends=False) + get(block=METHOD)],
    "8.1.2.1 a pseudo-header after a field": [get(block=METHOD + SCHEME + AUTHORITY + TEST + PATH)],
    "8.1.2.2 Connection": [get(block=GET + field(b"connection", b"keep-alive"))],
    "8.1.2.2 TE that is not trailers": [get(block=GET + field(b"te", b"trailers, deflate"))],
    "8.1.2.3 an empty path": [get(block=METHOD + SCHEME + AUTHORITY + field(b":path", b""))],
    "8.1.2.3 no method": [get(block=SCHEME + PATH + AUTHORITY)],
    "8.1.2.3 no scheme": [get(block=METHOD + PATH + AUTHORITY)],
    "8.1.2.3 no path": [get(block=METHOD + SCHEME + AUTHORITY)],
    "8.1.2.3 two methods": [get(block=METHOD + GET)],
    "8.1.2.3 two schemes": [get(block=SCHEME + GET)],
    "8.1.2.3 two paths": [get(block=PATH + GET)],
    "8.1.2.6 a wrong content-length": [post(b"test", block=POST + field(b"content-length", b"1"))],
    "8.1.2.6 a wrong content-length, several DATA": [
        post(b"test", b"test", block=POST + field(b"content-length", b"1"))
    ],
    "8.2 PUSH_PROMISE": [frame(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\2" + GET)],
}

HPACK: Final[Mapping[str, Sequence[Step]]] = {
    "2.3.3 an index beyond the tables": [get(block=GET + b"\xc6")],
    "2.3.3 a name's index beyond the tables": [get(block=GET + b"\x7f\7\4test")],
    "4.2 a size update at the end of a block": [get(block=GET + b"\x20")],
    "5.2.3 Huffman padding of more than 7 bits": [
        get(block=GET + b"\0\x85\xf2\xb2\x4a\x84\xff\x84\x49\x50\x9f\xff")
    ],
    "5.2.3 Huffman padding of zeros": [
        get(block=GET + b"\0\x85\xf2\xb2\x4a\x84\xff\x83\x49\x50\x90")
    ],
    "5.2.3 Huffman's end of string": [
        get(block=GET + b"\0\x85\xf2\xb2\x4a\x84\xff\x87\x49\x50\x9f\xff\xff\xff\xff")
    ],
    "6.1 index 0": [get(block=GET + b"\x80")],
    "6.3 a size update above the limit": [get(block=b"\x3f\xe1\xff\x03" + GET)],
}

WITHOUT_HANDSHAKE: Final[Mapping[str, Sequence[Step]]] = {
    "3.5 the preface": [PREFACE + settings([]) + PINGED],
    "3.5 a wrong preface": [b"INVALID CONNECTION PREFACE\r\n\r\n"],
    "3.5 the preface, then no SETTINGS": [PREFACE + PINGED],
}

CASES: Final[Mapping[str, Sequence[Step]]] = {
    f"{group} {name}": steps
    for group, cases in (("generic", GENERIC), ("http2", HTTP2), ("hpack", HPACK))
    for name, steps in cases.items()
}
