"""A script whose hooks read everything and change nothing."""

from __future__ import annotations

from mitml4.hooks import Flow, Message, Request, Response


def request(flow: Flow, request: Request) -> None:
    assert request.url.startswith(request.scheme)
    assert dict(request.query) is not dict(request.cookies)
    request.headers = request.headers.items()
    if not request.streams:
        assert dict(request.form) is not None
        request.text = request.text
        request.content = bytes(bytearray(request.content))


def response(flow: Flow, request: Request, response: Response) -> None:
    assert request.method
    assert dict(response.cookies) is not None
    assert response.status_code > 99
    assert isinstance(response.reason, str | None)
    response.headers = response.headers.items()
    if not response.streams:
        response.text = response.text
        response.content = bytes(bytearray(response.content))


def message(flow: Flow, message: Message) -> None:
    if message.is_text:
        message.text = message.text
    message.content = bytes(bytearray(message.content))


def data(flow: Flow, direction: str, data: bytes) -> bytes:
    return bytes(bytearray(data))
