"""What the members of the HTTP family share: exchanges, URLs, and text for display."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from mitml4.protocols.conversation import HttpEnd, Outcome, Surroundings

__all__ = ["UPGRADES", "Exchange", "origin", "pairs", "text"]

UPGRADES: Final = {b"websocket": "websocket", b"h2c": "http/2"}
"""The layers that an upgrade token stands for (RFC 6455 §4.1, RFC 7540 §3.2)."""

Fields: TypeAlias = Sequence[tuple[bytes, bytes]]


@dataclass(slots=True)
class Exchange:
    """A request and its response while they last.

    Sizes are those of the content as sent: still compressed, and without the framing around it
    (chunk lines and trailers, HTTP/2 frame headers and padding).
    """

    stream: int
    method: bytes
    started: float
    request_bytes: int = 0
    response_bytes: int = 0
    request_done: bool = False
    response_done: bool = False
    request_trailers: Fields = ()
    trailers: Fields = ()

    def end(
        self, now: float, outcome: Outcome = "complete", *, reset_code: str | None = None
    ) -> HttpEnd:
        return HttpEnd(
            stream=self.stream,
            request_bytes=self.request_bytes,
            response_bytes=self.response_bytes,
            duration_s=now - self.started,
            outcome=outcome,
            reset_code=reset_code,
            request_trailers=pairs(self.request_trailers) or None,
            trailers=pairs(self.trailers) or None,
        )


def text(data: bytes) -> str:
    r"""Wire bytes as text: UTF-8, and ``\xNN`` for every byte that is not."""
    return data.decode("utf-8", "backslashreplace")


def pairs(fields: Iterable[tuple[bytes, bytes]]) -> tuple[tuple[str, str], ...]:
    """Header fields as text, in the order and the spelling of the wire."""
    return tuple((text(name), text(value)) for name, value in fields)


def origin(around: Surroundings, authority: bytes | None) -> str:
    """`scheme://authority` of a request; where it named none, of where the connection goes."""
    scheme, default_port = ("https", 443) if around.secure else ("http", 80)
    if authority:
        return f"{scheme}://{text(authority)}"
    if around.target is None:
        return f"{scheme}://"
    host = str(around.target)
    return f"{scheme}://{host.removesuffix(f':{default_port}')}"
