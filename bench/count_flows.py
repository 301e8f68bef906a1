"""The minimum work of a capture reader on dpkt: parse each packet, and distinguish TCP flows.

Run as a script, by the Python of a venv with dpkt.
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
