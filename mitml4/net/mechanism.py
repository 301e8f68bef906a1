"""How the kernel hands a connection to a listener: as it is, or with its destination rewritten."""

from __future__ import annotations

from typing import Literal

__all__ = ["Mechanism"]

Mechanism = Literal["tproxy", "redirect"]
