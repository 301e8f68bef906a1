"""The files that `mitml4 run` writes, as a user without power and as root."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.e2e import forked

WEB = "https://www.example/"
CURL = ("curl", "-4", "--silent", "--show-error", "--max-time", "10")


def paths_in(plain: Path) -> list[str]:
    """What a program that knows no secrets sees requests for."""
    argv = ["tshark", "-n", "-r", str(plain), "-Y", "http2.headers.method or http.request"]
    argv += ["-T", "fields", "-e", "http2.headers.path", "-e", "http.request.uri"]
    said = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout
    return said.split()


@pytest.mark.parametrize("root", [False, True], ids=["user", "root"])
def test_packets_and_exchanges_of_a_command_are_written(host, nginx, root: bool) -> None:
    packets, archive = host.scratch / "packets.pcapng", host.scratch / "exchanges.har"
    plain = host.scratch / "plain.pcap"
    options = ["-w", str(packets), "--har", str(archive), "--pcap-plain", str(plain)]
    ended = host.run(*CURL, WEB, root=root, options=[*options, "--payload"])
    assert ended.code == 0
    assert paths_in(plain) == ["/"]
    assert plain.stat().st_mode & 0o777 == 0o600
    (entry,) = json.loads(archive.read_bytes())["log"]["entries"]
    assert (entry["request"]["url"], entry["response"]["status"]) == (WEB, 200)
    content = entry["response"]["content"]
    assert len(content["text"]) == content["size"] == entry["response"]["bodySize"] > 0
    read = forked.run(["detect", "--json", str(packets)], cwd=host.scratch)
    events = [json.loads(line) for line in read.stdout.splitlines()]
    (request,) = (event for event in events if event["type"] == "http.request")
    assert request["url"] == WEB
    stacks = [event["stack"] for event in events if event["type"] == "flow.close"]
    assert stacks == ended.stacks == [["tls", "http/2"]]


def test_a_filter_selects_what_is_written_and_said_but_not_the_packets(host, nginx) -> None:
    names = ("events.jsonl", "some.har", "some.pcap", "all.pcapng")
    events, archive, plain, packets = (host.scratch / name for name in names)
    ended = host.run(
        *("sh", "-c", f"curl -s {WEB} && curl -s {WEB}missing && curl -s --http1.1 {WEB}"),
        options=[
            *("--filter", "status:404 or protocol:http/1"),
            *("-o", str(events), "--har", str(archive), "-w", str(packets)),
            *("--pcap-plain", str(plain)),
        ],
    )
    assert ended.code == 0
    said = [line for line in ended.err.splitlines() if line.startswith("mitml4: ")]
    assert ["404" in line for line in said] == [True, False]
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    requests = [line["url"] for line in lines if line["type"] == "http.request"]
    assert requests == [f"{WEB}missing", WEB]
    assert [line["flow"] for line in lines if line["type"] == "flow.close"] == [2, 3]
    assert lines[-1]["flows"] == 3
    entries = json.loads(archive.read_bytes())["log"]["entries"]
    assert [entry["request"]["url"] for entry in entries] == requests
    assert paths_in(plain) == ["/missing", "/"]
    read = forked.run(["detect", "--json", str(packets)], cwd=host.scratch)
    assert read.stdout.count('"type":"flow.close"') == 3
