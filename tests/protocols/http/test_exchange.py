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


def test_passwords_in_urls_are_not_shown() -> None:
    hidden = {
        (b"Location", b"https://me:pw1@h/a?b=c@d"): "https://me:<redacted, 3 bytes>@h/a?b=c@d",
        (b"Referer", b"//:pw@h"): "//:<redacted, 2 bytes>@h",
        (b"Link", b"<ftp://a:b:c@d@h/>, <http://e:f@g>"): (
            "<ftp://a:<redacted, 5 bytes>@h/>, <http://e:<redacted, 1 bytes>@g>"
        ),
        (b"Contact", b"<sip:bob:pw@h:5060>"): "<sip:bob:<redacted, 2 bytes>@h:5060>",
        (b"host", b"me:pw@h:80"): "me:<redacted, 2 bytes>@h:80",
        (b":authority", b"me:pw@[::1]"): "me:<redacted, 2 bytes>@[::1]",
    }
    kept = (
        (b"Origin", b"https://h:8080"),
        (b"From", b"mailto:bob@h"),
        (b"Referer", b"https://me@h:80/x:y@z?q=1:2@3"),
        (b"Link", b"<https://h:80>; by=a@b"),
        (b"X-Time", b"12:00 a@b"),
        (b"Host", b"h:80"),
    )
    fields = [*hidden, *kept]
    secret = shown(LayerContext(shown=Shown(headers=True)), fields)
    assert secret is not None
    expected = [*hidden.values(), *(value.decode() for _, value in kept)]
    assert [value for _, value in secret] == expected
    whole = shown(LayerContext(shown=Shown(headers=True, redacts=False)), fields)
    assert whole == tuple((name.decode(), value.decode()) for name, value in fields)
