"""What the versions of HTTP share."""

from __future__ import annotations

from mitml4.protocols.context import LayerContext
from mitml4.protocols.http.exchange import shown
from mitml4.protocols.payload import Shown


def test_secrets_in_headers_are_not_shown() -> None:
    fields = [
        *((b"Authorization", b"Bearer abc"), (b"COOKIE", b"a=b"), (b"Cookie2", b"c")),
        *((b"set-cookie", b""), (b"Proxy-Authorization", b"\xff")),
    ]
    assert shown(LayerContext(), fields) is None
    assert shown(LayerContext(shown=Shown(headers=True)), fields) == (
        ("Authorization", "<redacted, 10 bytes>"),
        ("COOKIE", "<redacted, 3 bytes>"),
        ("Cookie2", "c"),
        ("set-cookie", "<redacted, 0 bytes>"),
        ("Proxy-Authorization", "<redacted, 1 bytes>"),
    )
    whole = shown(LayerContext(shown=Shown(headers=True, redacts=False)), fields)
    assert whole is not None
    assert whole[0] == ("Authorization", "Bearer abc")
