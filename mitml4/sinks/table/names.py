"""The server of a flow, as its layers name it."""

from __future__ import annotations

import re
from typing import Any, Final

from mitml4.protocols.conversation import Target
from mitml4.protocols.wire_text import text
from mitml4.regex import regex

__all__ = ["NAMES", "server_of"]

NAMES: Final = ("sni", "host", "target")
"""Attributes of details that contain a server's name."""
_HOST_AND_PORT: Final = regex(r"(\[.*\]|[^:]*):([0-9]{1,5})", re.DOTALL)


def server_of(details: Any, server: Target) -> Target | None:
    """The server that the details of a layer name, or None. A name without a port is at the port of
    the server as it was known so far."""
    if getattr(details, "absolute_form", False):
        return None  # the host of a request to a proxy is not the proxy
    name = next(filter(None, (getattr(details, each, None) for each in NAMES)), None)
    if name is None or isinstance(name, Target):
        return name
    shown = text(name) if isinstance(name, bytes) else str(name)
    found = _HOST_AND_PORT.fullmatch(shown)
    host, port = found.groups() if found else (shown, server.port)
    return Target(host.strip("[]"), int(port))
