"""What an innocent client feels while another connection floods mitml4.

`python -m bench.floods` (as root) puts mitml4 into the lab's router. One flow floods it, and a
client that has nothing to do with it asks nginx for a small file all the while. Each flood is an
entry of `FLOODS`: what the client sends, and what the server sends.
"""

from bench.floods import catalogue, tls, trickles
from bench.floods.catalogue import Flood

__all__ = ["FLOODS", "Flood"]

FLOODS = (*catalogue.FLOODS, *tls.FLOODS, *trickles.FLOODS)
