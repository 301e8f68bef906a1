"""A request as a curl command that sends it again."""

from __future__ import annotations

import shlex
from base64 import b64encode
from typing import Final

from mitml4.model.flow import Headers, Request

__all__ = ["as_curl"]

_CURL_S_OWN: Final = frozenset(
    ("host", "content-length", "connection", "transfer-encoding", "accept-encoding")
)
"""curl sends these as the connection and the body need them."""
_GLOB: Final = "[]{}"
"""curl makes several URLs of one with these."""


def as_curl(request: Request) -> str:
    """The command, in one line. Without `--headers` it has no headers, and without `--payload` no
    body: what the session did not keep."""
    body = request.body.content if request.body else None
    words = ["curl", *_method(request.method, has_body=bool(body))]
    if any(char in _GLOB for char in request.url):
        words.append("--globoff")
    words.append(request.url)
    if request.headers is not None:
        words += _headers(request.headers, has_body=bool(body))
    if not body:
        return shlex.join(words)
    try:
        text = body.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" not in text:
        return shlex.join([*words, "--data-raw", text])
    encoded = b64encode(body).decode()
    return f"echo {encoded} | base64 -d | {shlex.join([*words, '--data-binary', '@-'])}"


def _method(method: str, *, has_body: bool) -> list[str]:
    if method == "HEAD":
        return ["--head"]
    return [] if method == ("POST" if has_body else "GET") else ["-X", method]


def _headers(headers: Headers, *, has_body: bool) -> list[str]:
    words: list[str] = []
    names = {name.lower() for name, _ in headers}
    for name, value in headers:
        if name.lower() not in _CURL_S_OWN and not name.startswith(":"):
            words += ["-H", f"{name}: {value}" if value else f"{name};"]
    if has_body and "content-type" not in names:
        words += ["-H", "Content-Type:"]  # curl would say that it is a form
    return [*words, "--compressed"] if "accept-encoding" in names else words
