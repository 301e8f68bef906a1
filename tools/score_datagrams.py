"""Score the detection of UDP against tshark's: precision and recall by protocol.

    python tools/score_datagrams.py DIRECTORY [--list]

The truth of a flow is the innermost protocol that tshark has dissected in most of its datagrams,
under the name that mitml4 has for it. What tshark dissects by the port alone, and mitml4 has no
name for, counts as unknown. --list prints the flows that the two disagree about.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from score_detect import UNKNOWN, Score

from mitml4.capture.files.reader import read_packets
from mitml4.capture.follow import follow
from mitml4.capture.reports import Closed
from mitml4.errors import CaptureError
from mitml4.protocols.datagrams.registry import by_name

NAMES: Final = {
    "gquic": "quic",
    "isakmp": "ike",
    "udpencap": "ike",
    "nbns": "netbios-ns",
    "nbdgm": "netbios-dgm",
    "wg": "wireguard",
    "bt-utp": "bittorrent",
    "bt-dht": "bittorrent",
    "bt-tracker": "bittorrent",
    "gtpv2": "gtp",
    "classicstun": "stun",
    "srtp": "rtp",
    "srtcp": "rtcp",
    "portmap": "rpc",
    "nfs": "rpc",
    "mount": "rpc",
    "nlm": "rpc",
}

Ends = frozenset[tuple[str, int]]


def expected(capture: Path) -> dict[Ends, str]:
    """What tshark says of the flows outside tunnels, by their ends."""
    fields = [f"-e{name}" for name in ("ip.src", "ipv6.src", "ip.dst", "ipv6.dst")]
    fields += [f"-e{name}" for name in ("udp.srcport", "udp.dstport", "frame.protocols")]
    command = ["tshark", "-nr", str(capture), "-Y", "udp", "-Tfields", "-Eoccurrence=f", *fields]
    votes: dict[Ends, Counter[str]] = defaultdict(Counter)
    output = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    for line in output.splitlines():
        cells = line.split("\t")
        if len(cells) < 7 or not cells[4].isdigit() or not cells[5].isdigit():
            continue
        source, destination = cells[0] or cells[1], cells[2] or cells[3]
        if not (source and destination):
            continue
        ends = frozenset(
            [
                (str(ip_address(source)), int(cells[4])),
                (str(ip_address(destination)), int(cells[5])),
            ]
        )
        if "icmp" not in cells[6]:
            votes[ends][_name(cells[6])] += 1
    return {ends: names.most_common(1)[0][0] for ends, names in votes.items()}


def _name(protocols: str) -> str:
    """The protocol over UDP, from `eth:ethertype:ip:udp:dns`."""
    inner = protocols.split(":udp:", 1)[-1].split(":") if ":udp:" in protocols else []
    for part in inner:
        name = NAMES.get(part, part)
        if by_name(name):
            return name
    return UNKNOWN


def found(capture: Path) -> Iterator[tuple[Ends, str]]:
    """What mitml4 says of the same flows."""
    with capture.open("rb") as stream:
        try:
            for report in follow(read_packets(stream, capture.name), tunnels=False):
                if isinstance(report, Closed) and report.flow.transport == "udp" and report.stack:
                    flow = report.flow
                    ends = frozenset((a.ip, a.port) for a in (flow.client, flow.destination))
                    yield ends, report.stack[0]
        except CaptureError as error:
            print(f"note: {error.message}", file=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("directory", type=Path, help="captures")
    parser.add_argument("--list", action="store_true", help="print what the two disagree about")
    options = parser.parse_args()
    score = Score()
    for capture in sorted(options.directory.glob("*.pcap*")):
        known = expected(capture)
        for ends, name in found(capture):
            want = known.get(ends)
            if want is None:
                continue
            score.add((want,), (name,))
            if want != name and options.list:
                shown = " ".join(f"{ip}:{port}" for ip, port in sorted(ends))
                print(f"{capture.name} {shown}: tshark {want}, found {name}")
    print("\n".join(score.table()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
