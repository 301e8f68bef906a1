"""What a hook sees of a connection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from mitml4.address import Address
from mitml4.dataclass import dataclass

__all__ = ["Flow", "Layer"]


@dataclass(frozen=True, slots=True)
class Layer:
    """One protocol on a flow."""

    protocol: str
    """Such as `tls`; docs/events.md lists the names."""
    details: Mapping[str, Any]
    """As far as they are known; docs/events.md lists them by protocol."""


@dataclass(slots=True, kw_only=True)
class Flow:
    """A connection. All hooks of one connection are given the same object."""

    number: int
    """As in the events, from 1."""
    client: Address
    destination: Address
    """Where the client connected to."""
    name: str | None = None
    """The name that the client resolved to the destination's address."""
    interface: str | None = None
    process: Mapping[str, Any] | None = None
    """The local process that connected, as in the event `flow.open`."""
    container: str | None = None
    layers: tuple[Layer, ...] = ()
    """Outermost first, as far as they are known."""
    state: dict[str, Any] = field(default_factory=dict)
    """For the script: what it puts here is there again in later hooks of the connection."""

    @property
    def stack(self) -> tuple[str, ...]:
        """The names of the layers, such as `("tls", "http/2")`."""
        return tuple(layer.protocol for layer in self.layers)

    @property
    def sni(self) -> str | None:
        """The name in the innermost ClientHello."""
        names = [layer.details.get("sni") for layer in self.layers]
        return next((name for name in reversed(names) if name), None)
