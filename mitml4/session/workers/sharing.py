"""What the processes that carry flows share: leaves, tickets, and what connections have shown.

    leaves                 made by the session, once; a worker asks, and remembers
    tickets                each process has all; what is in one is read only where it is used
    memory                 each has an equal part when workers are started (session/memory.py)
    pins and engines       each process has all: a change is made everywhere

The session has what a new worker has to know.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Iterator
from functools import lru_cache
from hashlib import sha256
from operator import attrgetter
from typing import Any, Final, TypeAlias

from cachetools import LRUCache
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from mitml4.dataclass import dataclass
from mitml4.layers.tls import TlsInterceptor
from mitml4.session.workers.channel import Message
from mitml4.session.workers.packing import Packing, Values
from mitml4.tls.bridge.tickets import Ticket, Tickets, keep_latest
from mitml4.tls.forge import CACHE_SIZE, Forge, Leaf
from mitml4.tls.keys import PrivateKey

__all__ = ["AskedForge", "Learned", "SharedTickets", "pack_leaf"]

Packed: TypeAlias = tuple[tuple[bytes, ...], bytes, bytes, tuple[str, ...], tuple[str, ...]]
PackedTicket: TypeAlias = tuple[float, bytes, Values]
Ask: TypeAlias = Callable[..., Awaitable[Any]]

_PINS: Final = frozenset(
    {"add", "remove", "forget_pins", "leave_sessions", "accept", "leave", "decline"}
)
_ENGINES: Final = frozenset({"forced", "finished"})


def pack_leaf(leaf: Leaf) -> Packed:
    """A leaf as bytes."""
    key = leaf.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return leaf.chain_der, key, leaf.staple, leaf.mirrored, leaf.not_mirrored


class AskedForge(Forge):
    """Asks the session for leaves, so that each is made once."""

    def __init__(self, forge: Forge, ask: Ask) -> None:
        """`ask` gives the answer of the session. Raises what that has raised."""
        self.ca = forge.ca
        self._ask = ask
        self._asked: LRUCache[Hashable, Leaf] = LRUCache(CACHE_SIZE)
        self._keys_read: LRUCache[bytes, PrivateKey] = LRUCache(CACHE_SIZE)

    async def leaf(self, original: x509.Certificate | bytes | None, **wanted: Any) -> Leaf:
        """See `Forge.leaf`."""
        if isinstance(original, x509.Certificate):
            original = original.public_bytes(Encoding.DER)
        shown = original and sha256(original).digest()
        index = shown, *wanted.items()
        if leaf := self._asked.get(index):
            return leaf
        packed: Packed = await self._ask("leaf", original, wanted)
        if leaf := self._asked.get(index):  # another flow has asked for it too
            return leaf
        leaf = self._unpack(packed)
        if leaf.is_cached:
            self._asked[index] = leaf
        return leaf

    def _unpack(self, packed: Packed) -> Leaf:
        chain_der, key, staple, mirrored, not_mirrored = packed
        certificate, *chain = map(x509.load_der_x509_certificate, chain_der)
        if key not in self._keys_read:
            self._keys_read[key] = load_der_private_key(key, None)  # type: ignore[assignment]
        return Leaf(
            certificate=certificate,
            chain=tuple(chain),
            chain_der=chain_der,
            key=self._keys_read[key],
            staple=staple,
            mirrored=mirrored,
            not_mirrored=not_mirrored,
        )


class SharedTickets(Tickets):
    """The tickets of all processes."""

    def __init__(
        self, clock: Callable[[], float], send: Callable[[Message], None] | None = None
    ) -> None:
        """All processes have the same clock."""
        super().__init__(clock)
        self.send = send
        """Takes each ticket that is issued here; None: there is no other process."""
        self._packed: OrderedDict[bytes, PackedTicket] = OrderedDict()
        """Those of others: few tickets are ever used."""

    def keep(self, ours: bytes, ticket: Ticket, lifetime_s: int = 0) -> bool:
        is_kept = super().keep(ours, ticket, lifetime_s)
        if is_kept and self.send:
            self.send(self._message(ours))
        return is_kept

    def learn(self, ours: bytes, packed: PackedTicket) -> None:
        """Another process has issued one."""
        keep_latest(self._packed, ours, packed)

    def find(self, ours: bytes, site: Hashable) -> Ticket | None:
        if packed := self._packed.pop(ours, None):
            keep_latest(self.kept, ours, _unpacked(*packed))
        return super().find(ours, site)

    def all(self) -> Iterator[Message]:
        """What a new process has to learn."""
        for ours, packed in self._packed.items():
            yield "ticket", ours, packed
        yield from map(self._message, self.kept)

    def _message(self, ours: bytes) -> Message:
        expires, ticket = self.kept[ours]
        return "ticket", ours, (expires, _pickled(_common(ticket)), _OWN.values(ticket))


_common: Final = attrgetter("suite", "site", "seen")
"""Values that most tickets of a site have in common, and that take long to pickle."""
_OWN: Final = Packing(Ticket, "suite", "site", "seen")
"""The others: numbers and bytes."""
_pickled: Final = lru_cache(64)(pickle.dumps)


def _unpacked(expires: float, common: bytes, own: Values) -> tuple[float, Ticket]:
    suite, site, seen = pickle.loads(common)
    return expires, _OWN.made(own, suite=suite, site=site, seen=seen)


@dataclass(slots=True)
class Learned:
    """What connections have shown, in the session or in a worker: a change here is sent, and the
    changes of others are made here."""

    interceptor: TlsInterceptor

    def send_changes(self, send: Callable[[Message], None]) -> None:
        """`send` is given each change that is made here."""
        self.interceptor.passthrough_cache.on_change = lambda *change: send(("pins", *change))
        self.interceptor.engine_memory.on_change = lambda *change: send(("engines", *change))

    @property
    def state(self) -> tuple[object, ...]:
        """All that is known, for another process."""
        return self.interceptor.passthrough_cache.state, self.interceptor.engine_memory.state

    @state.setter
    def state(self, state: tuple[Any, ...]) -> None:
        self.interceptor.passthrough_cache.state, self.interceptor.engine_memory.state = state

    def change(self, what: str, name: str, *arguments: Any) -> None:
        """A change that was made elsewhere. Raises ValueError."""
        if what == "pins" and name in _PINS:
            self.interceptor.passthrough_cache.replay(name, *arguments)
        elif what == "engines" and name in _ENGINES:
            self.interceptor.engine_memory.replay(name, *arguments)
        else:
            raise ValueError(name)
