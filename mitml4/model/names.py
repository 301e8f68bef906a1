"""The server of a flow, as its layers name it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from mitml4.protocols.policy import Target
from mitml4.protocols.wire_text import text
from mitml4.regex import regex

__all__ = ["NAMES", "server_of"]

NAMES: Final = ("sni", "host", "target")
"""The details that contain a server's name."""
_HOST_AND_PORT: Final = regex(r"(\[.*\]|[^:]*):([0-9]{1,5})", re.DOTALL)


def server_of(details: Any, server: Target) -> Target | None:
    """The server that the details of a layer name, or None. They are an object, or a mapping as in
    the JSON lines. A name without a port is at the port of the server as it was known so far."""
    if _of(details, "absolute_form"):
        return None  # the host of a request to a proxy is not the proxy
    match next(filter(None, (_of(details, each) for each in NAMES)), None):
        case Target() as target:
            return target
        case {"host": str(host), "port": int(port)}:
            return Target(host, port)
        case bytes() as name:
            shown = text(name)
        case str() as name:
            shown = name
        case _:
            return None
    found = _HOST_AND_PORT.fullmatch(shown)
    host, port = (found[1], int(found[2])) if found else (shown, server.port)
    return Target(host.strip("[]"), port)


def _of(details: Any, name: str) -> Any:
    return details.get(name) if isinstance(details, Mapping) else getattr(details, name, None)
