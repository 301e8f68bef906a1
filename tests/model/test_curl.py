"""A request as a curl command."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from typing import Any

from mitml4.model.curl import as_curl
from mitml4.model.flow import Body, Request


def words(**given: Any) -> list[str]:
    usual = {"method": "GET", "url": "https://a.test/x?y=1", "version": "HTTP/1.1"}
    return shlex.split(as_curl(Request(**{**usual, **given}, time=datetime.now(UTC))))


def test_a_request_is_sent_again_as_it_was() -> None:
    assert words() == ["curl", "https://a.test/x?y=1"]
    assert words(method="HEAD") == ["curl", "--head", "https://a.test/x?y=1"]
    assert words(method="DELETE") == ["curl", "-X", "DELETE", "https://a.test/x?y=1"]
    headers = (
        *((":authority", "a.test"), ("Host", "a.test"), ("Content-Length", "3")),
        *(("Accept-Encoding", "gzip, br"), ("X-It's", "$(id) `id`"), ("Empty", "")),
    )
    body = Body(size=6, text="a'b\n$x")
    assert words(method="POST", headers=headers, body=body) == [
        *("curl", "https://a.test/x?y=1", "-H", "X-It's: $(id) `id`", "-H", "Empty;"),
        *("-H", "Content-Type:", "--compressed", "--data-raw", "a'b\n$x"),
    ]
    assert words(method="PUT", body=body)[1:3] == ["-X", "PUT"]
    assert words(method="GET", body=body)[1:3] == ["-X", "GET"]


def test_what_curl_would_take_for_something_else() -> None:
    assert words(url="https://a.test/[1-9]{a}")[1:] == ["--globoff", "https://a.test/[1-9]{a}"]
    assert words(method="POST", body=Body(size=12, text="@/etc/passwd"))[-2:] == [
        "--data-raw",
        "@/etc/passwd",
    ]
    assert words(method="POST", body=Body(size=2, base64="AP8="))[:6] == [
        *("echo", "AP8=", "|", "base64", "-d", "|"),
    ]
