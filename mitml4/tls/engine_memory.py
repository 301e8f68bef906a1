"""Which engine does the TLS of a connection, by what earlier connections have shown.

The bridge passes the client's own ClientHello on. What it cannot finish is dialled again and done
by OpenSSL, which costs the server a connection; where nobody can dial again, the flow ends.

    shown                                         effect
    a site has forced a second connection, or     OpenSSL from the first byte, for the same kind of
      ended a flow that could not dial again        ClientHello
    a site has chosen TLS 1.3, by either engine   the bridge may be used inside another layer, where
      or passed through                             nobody can dial again, if TLS 1.3 is offered
    a site has chosen a cipher suite of TLS 1.2   the same, for the same kind of ClientHello, which
      that the bridge has                           the site answers in the same way

Every entry expires, and the tables are bounded.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from cachetools import TTLCache

from mitml4.tls.pinning import Site

__all__ = ["Engine", "EngineMemory", "EngineSite"]

Engine: TypeAlias = Literal["auto", "bridge", "openssl"]
"""What the user wants (`--tls-engine`). `auto`: the bridge, and OpenSSL where it cannot finish."""

_REMEMBERED_S: Final = 3600.0
_MAX_ENTRIES: Final = 4096


class EngineSite(NamedTuple):
    """A site, and the kind of ClientHello that it is asked with."""

    site: Site
    ja4: str | None = None
    """None: not known."""


class EngineMemory:
    """What a session has learned of sites, as far as it decides between the engines."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.on_change: Callable[..., None] | None = None
        """Is told of each change: the method and its arguments, for `replay`."""
        self._forced: TTLCache[EngineSite, str] = TTLCache(_MAX_ENTRIES, _REMEMBERED_S, clock)
        self._speaks_1_3: TTLCache[Site, None] = TTLCache(_MAX_ENTRIES, _REMEMBERED_S, clock)
        self._finished: TTLCache[EngineSite, None] = TTLCache(_MAX_ENTRIES, _REMEMBERED_S, clock)

    def must_use_openssl(self, site: EngineSite) -> str | None:
        """Why OpenSSL has to be used; None if it need not be."""
        return self._forced.get(site)

    def forced(self, site: EngineSite, reason: str) -> None:
        """The bridge could not finish: a second connection was made, or the flow has ended."""
        self._forced[site] = reason
        if self.on_change:
            self.on_change("forced", site, reason)

    def finished(self, site: EngineSite, is_1_3: bool) -> None:
        """A server has chosen what the bridge has: in a handshake of either engine that has
        finished, or in one that was passed through."""
        # An entry that is there is not renewed: that takes several times as long as to find it.
        if is_1_3:
            if site.site in self._speaks_1_3:
                return
            self._speaks_1_3[site.site] = None
        else:
            if site in self._finished:
                return
            self._finished[site] = None
        if self.on_change:
            self.on_change("finished", site, is_1_3)

    @property
    def state(self) -> tuple[object, ...]:
        """All that is known, for another process."""
        return self._forced, self._speaks_1_3, self._finished

    @state.setter
    def state(self, state: tuple[Any, ...]) -> None:
        self._forced, self._speaks_1_3, self._finished = state

    def replay(self, change: str, *arguments: Any) -> None:
        """Make a change that was made in another memory."""
        tell, self.on_change = self.on_change, None
        try:
            getattr(self, change)(*arguments)
        finally:
            self.on_change = tell

    def may_bridge_inside(self, site: EngineSite, *, offers_1_3: bool) -> bool:
        """Whether the bridge may be used where nobody can dial again, although the ClientHello
        offers what it cannot do."""
        is_known = (offers_1_3 and site.site in self._speaks_1_3) or site in self._finished
        return is_known and site not in self._forced
