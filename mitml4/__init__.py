"""mitml4: a transparent man in the middle for TCP that names protocol stacks and decrypts TLS.

As a library it reads what a session wrote, and captures (docs/library.md):

    import mitml4

    for flow in mitml4.read("events.jsonl"):
        print(flow.server, flow.stack, [exchange.request.url for exchange in flow.exchanges])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mitml4.errors import MitmError as MitmError
    from mitml4.model.flow import Flow as Flow
    from mitml4.reading import read as read

__all__ = ["Flow", "MitmError", "__version__", "read"]

__version__ = "0.1.0"

_PLACES = {
    "Flow": "mitml4.model.flow",
    "MitmError": "mitml4.errors",
    "read": "mitml4.reading",
}
"""The modules of the public names. They are imported at the first use, which keeps the import of
this package, and so the start of every command, fast."""


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'mitml4' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
