"""The URLs of proxies."""

from __future__ import annotations

import pytest

from mitml4.errors import UsageError
from mitml4.via.proxy import Proxy


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://proxy.example:3128", Proxy("http", "proxy.example", 3128)),
        ("http://Proxy.example/", Proxy("http", "proxy.example", 80)),
        ("https://proxy.example", Proxy("https", "proxy.example", 443)),
        ("socks4://192.0.2.1", Proxy("socks4", "192.0.2.1", 1080)),
        ("socks4a://me@192.0.2.1", Proxy("socks4a", "192.0.2.1", 1080, b"me")),
        ("socks5://[2001:db8::1]:9050", Proxy("socks5", "2001:db8::1", 9050)),
        ("socks5h://a%40b:p%3Aq%2F@h:1", Proxy("socks5h", "h", 1, b"a@b", b"p:q/")),
        ("http://user@h", Proxy("http", "h", 80, b"user")),
        ("http://:pass@h", Proxy("http", "h", 80, b"", b"pass")),
    ],
)
def test_a_url_is_read_as_curl_reads_it(url: str, expected: Proxy) -> None:
    assert Proxy.parse(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "proxy.example:3128",
        "ftp://user:s3cret@proxy.example",
        "http://",
        "http://user:s3cret@",
        "http://user:s3cret@h:0",
        "http://user:s3cret@h:65536",
        "http://user:s3cret@h:port",
        "http://user:s3cret@[::1",
        "http://user:s3cret@h/path",
        "http://user:s3cret@h?query",
        "http://us%3Aer:s3cret@h",
        "http://user:s3cret@h\n",
        "socks4a://user:s3cret@h",
        "socks4a://us%00er@h",
        f"socks5://{'s3cret' * 43}:x@h",
        f"socks5://x:{'s3cret' * 43}@h",
        "socks5://:s3cret@h",
        "socks5h://:s3cret@h",
    ],
)
def test_what_is_no_proxy_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(UsageError) as refused:
        Proxy.parse(url)
    assert "s3cret" not in f"{refused.value.message} {refused.value.hint}"


def test_a_proxy_is_shown_without_credentials() -> None:
    proxy = Proxy.parse("socks5h://alice:s3cret@[2001:db8::1]")
    assert str(proxy) == "socks5h://[2001:db8::1]:1080"
    assert "alice" not in repr(proxy)
    assert "s3cret" not in repr(proxy)
