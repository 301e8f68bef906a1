"""The objects of hooks: what is read of them, and what is set."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mitml4.address import Address
from mitml4.hooks import ContentNotHeldError, Flow, Headers, Layer, Request, Response


def request(target: str = "/a%20b?x=1&x=2&y=", **given: object) -> Request:
    settings: dict[str, object] = {
        "headers": [
            ("Host", "a.test:8080"),
            ("Cookie", "a=1; b=2"),
            ("Content-Type", "application/x-www-form-urlencoded"),
        ],
        "content": b"n=1&n=2&m=%C3%A9",
        "scheme": "https",
        "authority": "a.test:8080",
    }
    return Request("POST", target, **(settings | given))  # type: ignore[arg-type]


def test_the_parts_of_a_request() -> None:
    asked = request()
    assert asked.url == "https://a.test:8080/a%20b?x=1&x=2&y="
    assert (asked.scheme, asked.host, asked.port, asked.path) == (
        *("https", "a.test", 8080),
        "/a%20b",
    )
    assert asked.query.all() == [("x", "1"), ("x", "2"), ("y", "")]
    assert (asked.query["x"], asked.query.get_all("x"), asked.query.get("z")) == (
        *("1", ["1", "2"]),
        None,
    )
    assert asked.form.all() == [("n", "1"), ("n", "2"), ("m", "é")]
    assert dict(asked.cookies) == {"a": "1", "b": "2"}
    assert request("http://p.test/x?y", authority="p.test").path == "/x"
    assert request("*").path == ""
    assert request("a.test:443", authority="a.test:443").path == ""
    assert request(authority="[2001:db8::1]:1").host == "2001:db8::1"
    assert request(authority="a.test").port == 443
    for wrong in ("a.test:b", "[::1", "a.test:99999"):
        assert (request(authority=wrong).host, request(authority=wrong).port) == (wrong, 443)


SET: dict[str, tuple[Callable[[Request], object], str, str]] = {
    "path": (lambda r: setattr(r, "path", "/x"), "target", "/x?x=1&x=2&y="),
    "an item of the query": (
        lambda r: r.query.__setitem__("x", "3 4"),
        "target",
        "/a%20b?x=3+4&y=",
    ),
    "no query": (lambda r: setattr(r, "query", {}), "target", "/a%20b"),
    "a query": (lambda r: setattr(r, "query", {"q": "ü"}), "target", "/a%20b?q=%C3%BC"),
    "removed of the query": (lambda r: r.query.pop("x"), "target", "/a%20b?y="),
    "added to the query": (lambda r: r.query.add("y", "1"), "target", "/a%20b?x=1&x=2&y=&y=1"),
    "host": (lambda r: setattr(r, "host", "b.test"), "url", "https://b.test:8080/a%20b?x=1&x=2&y="),
    "port": (lambda r: setattr(r, "port", 1), "url", "https://a.test:1/a%20b?x=1&x=2&y="),
    "an address": (
        lambda r: setattr(r, "host", "2001:db8::1"),
        "url",
        "https://[2001:db8::1]:8080/a%20b?x=1&x=2&y=",
    ),
    "url": (lambda r: setattr(r, "url", "http://c.test/?z#f"), "url", "http://c.test/?z"),
    "url without a path": (lambda r: setattr(r, "url", "http://c.test"), "url", "http://c.test/"),
    "a field of the form": (lambda r: r.form.__setitem__("n", "9"), "text", "n=9&m=%C3%A9"),
    "a form": (lambda r: setattr(r, "form", {"a": "b c"}), "text", "a=b+c"),
    "method": (lambda r: setattr(r, "method", "PUT"), "method", "PUT"),
}


@pytest.mark.parametrize("name", SET)
def test_a_part_of_a_request_can_be_set(name: str) -> None:
    change, where, expected = SET[name]
    asked = request()
    change(asked)
    assert getattr(asked, where) == expected


def test_an_absolute_target_stays_absolute() -> None:
    asked = request("http://p.test/x", scheme="http", authority="p.test")
    asked.path = "/y"
    assert asked.target == "http://p.test/y"
    asked.host = "q.test"
    assert asked.target == "http://q.test/y"


def test_cookies_are_set_and_removed() -> None:
    asked = request()
    asked.cookies["a"] = "3"
    del asked.cookies["b"]
    assert asked.headers["cookie"] == "a=3"
    asked.cookies = {}
    assert "cookie" not in asked.headers
    answered = Response(200, [("Set-Cookie", "a=1; Secure"), ("X", "y"), ("Set-Cookie", "b=2")])
    assert dict(answered.cookies) == {"a": "1", "b": "2"}
    answered.cookies["a"] = "3"
    answered.cookies["c"] = "4"
    del answered.cookies["b"]
    assert answered.headers.get_all("set-cookie") == ["a=3; Secure", "c=4; Path=/"]


WRONG: dict[str, Callable[[Request], object]] = {
    "a path without a slash": lambda r: setattr(r, "path", "x"),
    "a path with a blank": lambda r: setattr(r, "path", "/x y"),
    "a path with a line end": lambda r: setattr(r, "path", "/x\r\nA: b"),
    "a method with a blank": lambda r: setattr(r, "method", "A B"),
    "HEAD": lambda r: setattr(r, "method", "HEAD"),
    "a scheme": lambda r: setattr(r, "scheme", "ftp"),
    "a URL without a host": lambda r: setattr(r, "url", "/x"),
    "a host with a path": lambda r: setattr(r, "host", "a/b"),
    "a header with a line end": lambda r: r.headers.add("a", "b\nc"),
    "headers with a line end": lambda r: setattr(r, "headers", {"a": "b\nc"}),
    "content that is text": lambda r: setattr(r, "content", "x"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_sent_is_refused(name: str) -> None:
    asked = request()
    with pytest.raises((ValueError, TypeError)):
        WRONG[name](asked)


def test_text_has_the_charset_of_the_message() -> None:
    answered = Response(200, {"Content-Type": "text/plain; charset=latin-1"}, b"\xe9")
    assert answered.text == "é"
    answered.text = "è"
    assert answered.content == b"\xe8"
    answered.text = "…"
    assert answered.content == "…".encode()
    assert answered.headers["content-type"] == "text/plain; charset=utf-8"
    answered.text = Response(200, {}, b"\xff\x00a").text
    assert answered.content == b"\xff\x00a"
    assert Response(200, {"Content-Type": "a/b; charset=nope"}, b"x").text == "x"


def test_content_that_is_not_held_is_neither_read_nor_set() -> None:
    streaming = request(content=None, streams=True)
    for use in (
        lambda: streaming.content,
        lambda: streaming.text,
        lambda: streaming.json(),
        lambda: streaming.form,
        lambda: setattr(streaming, "content", b""),
    ):
        with pytest.raises(ContentNotHeldError):
            use()


def test_a_response_is_made_of_what_is_at_hand() -> None:
    made = Response(201, {"A": "b"}, [1, 2])
    assert (made.status_code, made.json(), made.headers["content-type"]) == (
        *(201, [1, 2]),
        "application/json",
    )
    assert Response(200, {"Content-Type": "text/html"}, "x").headers.items() == [
        ("Content-Type", "text/html")
    ]
    assert Response().content == b""
    made.headers = [("b", "1"), ("B", "2")]
    assert made.headers == Headers.of([("b", "1"), ("B", "2")])
    assert made.headers.get_all("b") == ["1", "2"]
    with pytest.raises(ValueError, match="no status"):
        Response(99)


def test_a_flow_names_its_stack() -> None:
    layers = (Layer("tls", {"sni": "a.test"}), Layer("http/2", {}))
    flow = Flow(number=1, client=Address("a", 1), destination=Address("b", 2), layers=layers)
    assert flow.stack == ("tls", "http/2")
    assert flow.sni == "a.test"
    flow.state["x"] = 1
