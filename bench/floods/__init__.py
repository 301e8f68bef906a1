"""The effect of a flooding connection on another client.

`python -m bench.floods` (as root) starts mitml4 in the lab's router. One flow floods it, while an
unrelated client requests a small file from nginx. Each flood is an entry of `FLOODS`: what the
client sends, and what the server sends.
"""

from bench.floods import catalogue, tls, trickles
from bench.floods.catalogue import Flood

__all__ = ["FLOODS", "Flood"]

FLOODS = (*catalogue.FLOODS, *tls.FLOODS, *trickles.FLOODS)
