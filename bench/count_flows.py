"""The least that a capture reader on dpkt does: parse each packet, and tell TCP flows apart.

Run as a script, by the Python of a venv that has dpkt.
"""

from __future__ import annotations

import sys

import dpkt  # type: ignore[import-not-found]


def main() -> None:
    packets = 0
    flows = set()
    with open(sys.argv[1], "rb") as file:
        for _, data in dpkt.pcap.Reader(file):
            packets += 1
            network = dpkt.ethernet.Ethernet(data).data
            transport = network.data
            if not isinstance(transport, dpkt.tcp.TCP):
                continue
            here, there = (network.src, transport.sport), (network.dst, transport.dport)
            flows.add((here, there) if here < there else (there, here))
    print(packets, len(flows))


if __name__ == "__main__":
    main()
