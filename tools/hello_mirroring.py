"""How much of a client's ClientHello reaches the server: fingerprints, order, lengths and bodies.

    python tools/hello_mirroring.py PATH...
    python tools/hello_mirroring.py PATH... --intercept              as root, in namespaces
    python tools/hello_mirroring.py --record DIRECTORY               hellos of local clients

A PATH is a capture, a directory of captures, or a file with the records of one hello. Every
distinct ClientHello that offers TLS 1.3 is relayed, and what the server gets is compared with what
the client has sent. The table has how many hellos kept their JA3, their JA4, the order of their
extensions, and every byte but those of the fields that are replaced. A hello that is not relayed is
listed with the reason.

Without an option, only the code that writes the hello runs. With --intercept, each hello goes
through `mitml4 intercept` to a server of OpenSSL, which keeps what it gets and does the whole
handshake. The client is mitml4's own code for the side of the server: it sends the recorded hello,
with keys that it knows. `--server retry` has one group only, which most clients send no key for:
then the second hello is compared too. `--server older` has TLS 1.2.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import astuple, dataclass
from pathlib import Path

from mirroring.comparison import Comparison, NotRelayed, Relay, compare, parsed
from mirroring.hellos import distinct, files_in, record
from mirroring.ways import Interception, relay_in_process

from mitml4.protocols.tls.fingerprints import ja4


@dataclass(frozen=True, slots=True)
class Score:
    """All hellos, and what became of them."""

    kinds: int
    """How many different JA4 they have."""
    compared: list[Comparison]
    excluded: Counter[str]

    @classmethod
    def of(cls, hellos: Collection[bytes], relay: Relay) -> Score:
        score = cls(len({ja4(parsed(hello)) for hello in hellos}), [], Counter())
        for hello in hellos:
            try:
                score.compared.append(compare(relay(hello)))
            except NotRelayed as error:
                score.excluded[str(error)] += 1
        return score

    def lines(self) -> Iterator[str]:
        total = len(self.compared) + self.excluded.total()
        yield f"{'ClientHellos that offer TLS 1.3':<40}{total:>6}"
        yield f"{'  of so many different JA4':<40}{self.kinds:>6}"
        yield f"{'relayed':<40}{len(self.compared):>6}{share(len(self.compared), total)}"
        for title, name in (
            ("the same JA3", "ja3"),
            ("the same JA4", "ja4"),
            ("the same extensions in the same order", "order"),
            ("the same bytes but for replaced fields", "bodies"),
            ("the same records", "records"),
            ("the same JA3S at the client", "ja3s"),
            ("the same JA4S at the client", "ja4s"),
        ):
            kept = [getattr(each, name) for each in self.compared]
            if None not in kept:
                yield f"  {title:<38}{sum(kept):>6}{share(sum(kept), len(kept))}"
        yield f"{'not relayed':<40}{self.excluded.total():>6}"
        for reason, count in self.excluded.most_common():
            yield f"  {reason:<38}{count:>6}"

    @property
    def is_exact(self) -> bool:
        """Whether all that were relayed are the same."""
        return all(False not in astuple(each) for each in self.compared)


def share(part: int, whole: int) -> str:
    return f"{100 * part / whole:>8.1f} %" if whole else ""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", nargs="*", type=Path, metavar="PATH")
    parser.add_argument("--intercept", action="store_true", help="through `mitml4 intercept`")
    parser.add_argument("--server", choices=("plain", "retry", "older"), default="plain")
    parser.add_argument("--tls-engine", choices=("auto", "bridge", "openssl"), default="auto")
    parser.add_argument("--record", type=Path, metavar="DIRECTORY", help="write hellos there")
    options = parser.parse_args()
    if options.record:
        record(options.record)
        return 0
    hellos = distinct(files_in(options.paths))
    if options.intercept:
        with Interception.open(options.server, options.tls_engine) as interception:
            score = Score.of(hellos, interception.relay)
    else:
        score = Score.of(hellos, relay_in_process)
    print("\n".join(score.lines()))
    return 0 if score.is_exact else 1


if __name__ == "__main__":
    sys.exit(main())
