"""Public captures, where they are at hand: MITML4_PCAPS, or ../shared/pcaps beside the checkout."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest

from mitml4.capture.files.reader import read_packets
from mitml4.capture.follow import follow
from mitml4.capture.reports import Closed, Layer, Opened
from mitml4.errors import CaptureError
from mitml4.protocols.tls.protocol import TlsDetails

BESIDE = Path(__file__).parents[3] / "shared" / "pcaps"
CORPUS = Path(os.environ.get("MITML4_PCAPS", BESIDE))

pytestmark = pytest.mark.skipif(
    not CORPUS.is_dir(), reason=f"no captures in {CORPUS}: set MITML4_PCAPS to their directory"
)


def captures() -> list[Path]:
    return sorted(path for path in CORPUS.iterdir() if path.suffix not in (".jsonl", ".md"))


def fingerprints(name: str) -> dict[int, tuple[str | None, str | None, str | None]]:
    """By client port: SNI, JA4 and JA4S."""
    with (CORPUS / name).open("rb") as stream:
        return {
            report.flow.client.port: (report.details.sni, report.details.ja4, report.details.ja4s)
            for report in follow(read_packets(stream, name))
            if isinstance(report, Layer) and isinstance(report.details, TlsDetails)
        }


def test_every_capture_is_followed_to_its_end() -> None:
    opened = closed = 0
    for path in captures():
        with path.open("rb") as stream, suppress(CaptureError):
            for report in follow(read_packets(stream, path.name), tunnels=True):
                opened += isinstance(report, Opened)
                closed += isinstance(report, Closed)
    assert opened == closed > 0


def test_ja4_agrees_with_what_foxio_publishes_for_its_captures() -> None:
    # github.com/FoxIO-LLC/ja4, python/test/testdata/tls12.pcap.json, tls3.pcapng.json
    sni = "contile.services.mozilla.com"
    assert fingerprints("ja4__pcap__tls12.pcap") == {
        36372: (sni, "t13d1715h2_5b57614c22b0_3d5424432f57", None)
    }
    found = fingerprints("ja4__pcap__tls3.pcapng")
    fresh = ("t13d1516h2_8daaf6152771_e5627efa2ab1", "t130200_1301_a56c5b993250")
    resumed = ("t13d1516h2_8daaf6152771_9b887d9acb53", "t130300_1301_0ee26285a86f")
    for port, expected in {
        63248: fresh,
        63249: None,  # HTTP
        63250: resumed,
        63251: resumed,
        63252: ("t13d1516h2_8daaf6152771_9b887d9acb53", "t130300_1301_6bbbaf601ed8"),
        63253: fresh,
        63254: fresh,
        63255: fresh,
    }.items():
        assert (found[port][1:] if port in found else None) == expected
