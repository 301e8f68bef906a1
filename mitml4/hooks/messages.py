"""What a hook sees of messages, and what it may change.

A message remembers how it came (`_Sent`), so that only what is different is sent back to the
session. What is the same stays as it came, byte for byte.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import parse_qsl, urlencode, urlsplit

from mitml4.edit.headers import Headers
from mitml4.hooks.pairs import Pairs, cookie_pairs, pairs_of
from mitml4.regex import regex

__all__ = [
    "ContentNotHeldError",
    "HeadersLike",
    "Message",
    "Request",
    "Response",
]

HeadersLike: TypeAlias = Headers | Mapping[str, str] | Iterable[tuple[str, str]]

_FORM: Final = "application/x-www-form-urlencoded"
_CHARSET: Final = regex(r'charset="?([^\s";]+)')
_TOKEN: Final = regex(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_NOT_IN_TARGET: Final = regex(r"[^!-~]")
_PORTS: Final = {"http": 80, "https": 443}


class ContentNotHeldError(ValueError):
    """The content passes by without being held: it is above `--edit-limit`, its coding cannot be
    undone, it has no end that is worth waiting for (`text/event-stream`, gRPC), or the script has
    `bodies = False`."""


class _HttpMessage:
    def __init__(
        self, headers: HeadersLike, content: bytes | None, http_version: str, *, streams: bool
    ) -> None:
        self._headers = _headers(headers)
        self._content = content
        self.http_version = http_version
        """`HTTP/1.1` or `HTTP/2`; a change has no effect."""
        self.streams = streams
        """Whether there is content that passes by without being held, and cannot be changed."""

    @property
    def headers(self) -> Headers:
        """In order; names are found in any case. Can be set to a dictionary, or to pairs."""
        return self._headers

    @headers.setter
    def headers(self, headers: HeadersLike) -> None:
        self._headers = _headers(headers)

    @property
    def content(self) -> bytes:
        """The whole body, with content codings undone; they are done again, and lengths follow.
        Raises ContentNotHeldError, also if it is set."""
        if self.streams:
            raise ContentNotHeldError("the content of this message is not held")
        return self._content or b""

    @content.setter
    def content(self, content: bytes) -> None:
        if self.streams:
            raise ContentNotHeldError("the content of this message is not held")
        if not isinstance(content, bytes | bytearray | memoryview):
            raise TypeError(f"content is bytes, not {type(content).__name__}")
        self._content = bytes(content)

    @property
    def text(self) -> str:
        """The content in the charset of Content-Type, else in UTF-8. Bytes that are not in the
        charset come as surrogates, which become the same bytes again.

        If it is set to characters that are not in the charset, the charset becomes UTF-8."""
        return self.content.decode(self._charset, "surrogateescape")

    @text.setter
    def text(self, text: str) -> None:
        try:
            self.content = text.encode(self._charset, "surrogateescape")
        except UnicodeEncodeError:
            kind = self.headers.get("content-type", "text/plain") or ""
            media = kind.partition(";")[0].strip()
            self.headers["Content-Type"] = f"{media}; charset=utf-8"
            self.content = text.encode("utf-8", "surrogateescape")

    def json(self) -> Any:
        """The content as JSON. Raises ValueError."""
        return json.loads(self.content)

    @property
    def _charset(self) -> str:
        found = _CHARSET.search(self.headers.get("content-type", "") or "")
        try:
            "".encode(found[1] if found else "utf-8")
        except LookupError:
            return "utf-8"
        return found[1] if found else "utf-8"


class Request(_HttpMessage):
    """A request, as the client has sent it."""

    def __init__(
        self,
        method: str,
        target: str,
        headers: HeadersLike = (),
        content: bytes | None = None,
        *,
        scheme: str,
        authority: str,
        http_version: str = "HTTP/1.1",
        stream: int = 1,
        streams: bool = False,
    ) -> None:
        super().__init__(headers, content, http_version, streams=streams)
        self._method = method
        self._scheme, self._authority, self._target = scheme, authority, target
        self.stream: Final = stream
        """The stream of HTTP/2, or the number of the request on its connection."""

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.url}>"

    @property
    def method(self) -> str:
        """HEAD and CONNECT stay what they are, and no other method becomes one of them: what a
        response to them contains is different."""
        return self._method

    @method.setter
    def method(self, method: str) -> None:
        if not _TOKEN.fullmatch(method):
            raise ValueError(f"{method!a} is no method")
        if method != self._method and {method, self._method} & {"HEAD", "CONNECT"}:
            raise ValueError(f"{self._method} cannot become {method}")
        self._method = method

    @property
    def target(self) -> str:
        """The target as it is sent: a path with its query, an absolute URL (to a proxy), `*`, or a
        host and port (CONNECT)."""
        return self._target

    # The URL and its parts

    @property
    def url(self) -> str:
        """Setting another scheme, host or port sends the request to that server."""
        return f"{self._scheme}://{self._authority}{self._path_and_query}"

    @url.setter
    def url(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in _PORTS or not parts.hostname:
            raise ValueError(f"{url!a} is no URL of HTTP")
        self._move(parts.scheme, parts.netloc.rpartition("@")[2])
        self._set_path(_after_authority(url))

    @property
    def scheme(self) -> str:
        return self._scheme

    @scheme.setter
    def scheme(self, scheme: str) -> None:
        if scheme not in _PORTS:
            raise ValueError(f"{scheme!a} is neither http nor https")
        self._move(scheme, self._authority)

    @property
    def host(self) -> str:
        return _host_and_port(self._authority)[0]

    @host.setter
    def host(self, host: str) -> None:
        self._move(self._scheme, _authority(host, _host_and_port(self._authority)[1]))

    @property
    def port(self) -> int:
        return _host_and_port(self._authority)[1] or _PORTS.get(self._scheme, 0)

    @port.setter
    def port(self, port: int) -> None:
        self._move(self._scheme, _authority(self.host, port))

    @property
    def path(self) -> str:
        """Without the query, percent-encoded as it was sent."""
        return self._path_and_query.partition("?")[0]

    @path.setter
    def path(self, path: str) -> None:
        _, mark, query = self._path_and_query.partition("?")
        self._set_path(path + mark + query)

    @property
    def query(self) -> Pairs:
        """The names and values of the query."""
        query = self._path_and_query.partition("?")[2]
        return Pairs(parse_qsl(query, keep_blank_values=True), self._set_query)

    @query.setter
    def query(self, query: Mapping[str, str] | Iterable[tuple[str, str]]) -> None:
        self._set_query(pairs_of(query))

    @property
    def form(self) -> Pairs:
        """The fields of a form (application/x-www-form-urlencoded); empty for other content."""
        kind = self.headers.get("content-type", "") or ""
        is_form = kind.partition(";")[0].strip().lower() == _FORM
        pairs = parse_qsl(self.text, keep_blank_values=True) if is_form else []
        return Pairs(pairs, self._set_form)

    @form.setter
    def form(self, form: Mapping[str, str] | Iterable[tuple[str, str]]) -> None:
        self._set_form(pairs_of(form))

    @property
    def cookies(self) -> Pairs:
        """The cookies that the client sends."""
        return Pairs(cookie_pairs(self.headers.get_all("cookie")), self._set_cookies)

    @cookies.setter
    def cookies(self, cookies: Mapping[str, str] | Iterable[tuple[str, str]]) -> None:
        self._set_cookies(pairs_of(cookies))

    @property
    def _path_and_query(self) -> str:
        if "://" in self._target and not self._target.startswith("/"):
            return _after_authority(self._target)
        return self._target if self._target.startswith("/") else ""

    def _set_path(self, path: str) -> None:
        if not path.startswith("/") or _NOT_IN_TARGET.search(path):
            raise ValueError(f"{path!a} is no path of a URL; urllib.parse.quote makes one")
        if self._target == path or self._target == "*":
            return
        if self.method == "CONNECT":
            raise ValueError("CONNECT has no path")
        is_absolute = not self._target.startswith("/")
        self._target = f"{self._scheme}://{self._authority}{path}" if is_absolute else path

    def _set_query(self, pairs: list[tuple[str, str]]) -> None:
        self._set_path(self.path + ("?" + urlencode(pairs) if pairs else ""))

    def _set_form(self, pairs: list[tuple[str, str]]) -> None:
        self.content = urlencode(pairs).encode()
        kind = self.headers.get("content-type", "") or ""
        if kind.partition(";")[0].strip().lower() != _FORM:
            self.headers["Content-Type"] = _FORM

    def _set_cookies(self, pairs: list[tuple[str, str]]) -> None:
        if pairs:
            self.headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in pairs)
        else:
            self.headers.discard("Cookie")

    def _move(self, scheme: str, authority: str) -> None:
        if (scheme, authority) == (self._scheme, self._authority):
            return
        if self.method == "CONNECT":
            raise ValueError("a request with CONNECT cannot be sent elsewhere")
        if not authority or _NOT_IN_TARGET.search(authority) or "/" in authority:
            raise ValueError(f"{authority!a} is no host")
        path = self._path_and_query
        self._scheme, self._authority = scheme, authority
        if "://" in self._target and not self._target.startswith("/"):
            self._target = f"{scheme}://{authority}{path}"


class Response(_HttpMessage):
    """A response: the server's, or one that a hook returns instead."""

    def __init__(
        self,
        status_code: int = 200,
        headers: HeadersLike = (),
        content: bytes | str | list[Any] | dict[str, Any] | None = None,
        *,
        reason: str | None = None,
        http_version: str = "HTTP/1.1",
        streams: bool = False,
    ) -> None:
        """`content`: a list or a dictionary is sent as JSON, a text in UTF-8; each with its
        Content-Type, unless there is one."""
        kind = None
        if isinstance(content, str):
            content, kind = content.encode(), "text/plain; charset=utf-8"
        elif isinstance(content, list | dict):
            content, kind = json.dumps(content).encode(), "application/json"
        super().__init__(headers, content, http_version, streams=streams)
        if kind and "content-type" not in self.headers:
            self.headers["Content-Type"] = kind
        self.status_code = status_code
        self.reason = reason
        """The reason phrase; None: the usual one. HTTP/2 has none."""

    def __repr__(self) -> str:
        return f"<Response {self.status_code}>"

    @property
    def status_code(self) -> int:
        return self._status_code

    @status_code.setter
    def status_code(self, status: int) -> None:
        if not isinstance(status, int) or not 200 <= status <= 599:
            raise ValueError(f"{status!a} is no status of a final response")
        self._status_code = int(status)

    @property
    def cookies(self) -> Pairs:
        """The names and values of the cookies that are set. The attributes of one that is there
        stay; a new one gets `Path=/`."""
        lines = self.headers.get_all("set-cookie")
        pairs = (pair for line in lines for pair in cookie_pairs([line])[:1])
        return Pairs(pairs, self._set_cookies)

    def _set_cookies(self, pairs: list[tuple[str, str]]) -> None:
        attributes: dict[str, str] = {}
        for line in self.headers.get_all("set-cookie"):
            first, mark, rest = line.partition(";")
            attributes.setdefault(first.partition("=")[0].strip(), mark + rest)
        kept = [pair for pair in self.headers.items() if pair[0].lower() != "set-cookie"]
        lines = [f"{name}={value}{attributes.get(name, '; Path=/')}" for name, value in pairs]
        self.headers = Headers.of([*kept, *(("Set-Cookie", line) for line in lines)])


class Message:
    """A message of WebSocket, with its compression undone."""

    def __init__(
        self, direction: Literal["up", "down"], content: bytes, *, is_text: bool, request: Request
    ) -> None:
        self.direction: Final = direction
        """`up`: from the client."""
        self.is_text: Final = is_text
        """Whether it was sent as text, and not as bytes."""
        self.request: Final = request
        """The request that has opened the WebSocket. A change of it has no effect."""
        self.content = content

    @property
    def text(self) -> str:
        return self.content.decode("utf-8", "surrogateescape")

    @text.setter
    def text(self, text: str) -> None:
        self.content = text.encode("utf-8", "surrogateescape")

    def json(self) -> Any:
        """The content as JSON. Raises ValueError."""
        return json.loads(self.content)

    def __repr__(self) -> str:
        return f"<Message {self.direction} {self.content[:40]!r}>"


def _headers(given: HeadersLike) -> Headers:
    if isinstance(given, Headers):
        return given
    return Headers.of(pairs_of(given))


def _after_authority(url: str) -> str:
    """The path with the query of an absolute URL, as it is."""
    rest = url.partition("#")[0].partition("://")[2]
    at = min((at for at in (rest.find("/"), rest.find("?")) if at >= 0), default=len(rest))
    path = rest[at:]
    return path if path.startswith("/") else "/" + path


def _host_and_port(authority: str) -> tuple[str, int | None]:
    """What a client names as its host may be anything; then it is the host as a whole."""
    try:
        parts = urlsplit(f"//{authority}")
        return parts.hostname or "", parts.port
    except ValueError:
        return authority, None


def _authority(host: str, port: int | None) -> str:
    shown = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return shown if port is None else f"{shown}:{port}"
