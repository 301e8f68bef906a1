"""DTLS's hellos, whole and in fragments."""

from __future__ import annotations

from mitml4.protocols.conversation import Direction
from mitml4.protocols.datagrams.dtls import Dtls

UP, DOWN = Direction.UP, Direction.DOWN
SNI = b"\0\0\0\x10\0\x0e\0\0\x0bexample.com"
ALPN = b"\0\x10\0\x0b\0\x09\x08c-webrtc"
EXTENSIONS = SNI + ALPN
CLIENT = (
    b"\xfe\xfd" + bytes(32) + b"\0" + b"\x04cook" + b"\0\4\xc0\x2b\xc0\x2f" + b"\1\0"
    + len(EXTENSIONS).to_bytes(2) + EXTENSIONS
)  # fmt: skip
SERVER = b"\xfe\xfd" + bytes(32) + b"\0" + b"\xc0\x2b" + b"\0"


def record(body: bytes, kind: int = 22, epoch: int = 0, version: bytes = b"\xfe\xff") -> bytes:
    return bytes([kind]) + version + epoch.to_bytes(2) + bytes(6) + len(body).to_bytes(2) + body


def fragment(kind: int, message: bytes, start: int = 0, end: int | None = None) -> bytes:
    part = message[start:end]
    head = bytes([kind]) + len(message).to_bytes(3) + b"\0\0" + start.to_bytes(3)
    return head + len(part).to_bytes(3) + part


def test_hellos_are_read() -> None:
    dtls = Dtls()
    dtls.take(UP, record(fragment(1, CLIENT)))
    dtls.take(DOWN, record(fragment(2, SERVER), version=b"\xfe\xfd"))
    assert dtls.over
    details = dtls.details()
    assert (details.sni, details.alpn_offered) == ("example.com", (b"c-webrtc",))
    assert (details.version, details.cipher) == ("DTLSv1.2", "ECDHE-ECDSA-AES128-GCM-SHA256")
    assert details.ja4 is not None
    assert details.ja4.startswith("dd2d0202cc_")


def test_a_hello_in_fragments_is_put_together() -> None:
    for cut in (1, 40, len(CLIENT) - 1):
        dtls = Dtls()
        dtls.take(UP, record(fragment(1, CLIENT, 0, cut)))
        assert dtls.details().sni is None
        dtls.take(UP, record(fragment(1, CLIENT, cut)))
        assert dtls.details().sni == "example.com"
        assert dtls.memory == 0


def test_what_is_encrypted_ends_it() -> None:
    for datagram in (record(b"x" * 40, kind=23, epoch=1), b"\x2f" + bytes(40)):
        dtls = Dtls()
        dtls.take(UP, datagram)
        assert dtls.over
