"""Count what detection makes of random bytes: matches are false ones.

    python tools/random_starts.py COUNT [SEED]

Half of them are openings of TCP, half are datagrams of UDP: uniform bytes of one side or of both.
`tests/fuzz/test_noise_fuzz.py` does the same with fewer. A name that is only likely counts, too.
Ctrl-C prints what was counted so far.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from contextlib import suppress
from random import Random
from typing import Final

from mitml4.protocols import registry
from mitml4.protocols.conversation import Opening
from mitml4.protocols.datagram import Exchange
from mitml4.protocols.datagrams import registry as datagrams

_UP: Final = (0, 1, 8, 24, 64)
_DOWN: Final = (0, 0, 16, 64)
_SIZES: Final = (8, 12, 20, 28, 48, 64, 92, 148, 300, 1200)
_PORTS: Final = sorted({port for row in datagrams.PROTOCOLS for port in row.ports})


def tcp(source: Random) -> str | None:
    """The name that an opening is given."""
    up = source.randbytes(source.choice((*_UP, source.randint(1, 64))))
    down = source.randbytes(source.choice(_DOWN) if up else source.randint(1, 64))
    found = registry.detect(Opening(up=up, down=down, up_ended=True, down_ended=True))
    row = found.match or found.likely
    return row.name if row else None


def udp(source: Random, ports: frozenset[int]) -> str | None:
    """The name that a datagram of each side, or of one, is given between these ports."""
    up = source.randbytes(source.choice(_SIZES))
    down = (source.randbytes(source.choice(_SIZES)),) if source.random() < 0.5 else ()
    row, _ = datagrams.detect(Exchange(up=(up,), down=down, ports=ports))
    return row.name if row else None


def main() -> int:
    count = int(sys.argv[1])
    source = Random(int(sys.argv[2]) if len(sys.argv) > 2 else 20240229)
    began_s = time.process_time()
    kinds: dict[str, Counter[str | None]] = {
        each: Counter() for each in ("TCP", "UDP, other ports", "UDP, usual ports")
    }
    with suppress(KeyboardInterrupt):
        for number in range(count):
            if number % 2:
                kinds["TCP"][tcp(source)] += 1
            elif number % 4:
                kinds["UDP, other ports"][udp(source, frozenset((40000, 49999)))] += 1
            else:
                port = source.choice(_PORTS)
                kinds["UDP, usual ports"][udp(source, frozenset((40000, port)))] += 1
    for kind, found in kinds.items():
        tried = found.total()
        del found[None]
        named = ", ".join(f"{name} {times}" for name, times in found.most_common())
        print(f"{kind}: {found.total()} of {tried} are given a name ({named or 'none'})")
    print(f"{time.process_time() - began_s:.0f} s of CPU")
    return 0


if __name__ == "__main__":
    sys.exit(main())
