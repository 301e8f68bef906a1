"""The files that `mitml4 run` writes, as a user without power and as root."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

WEB = "https://www.example/"
CURL = ("curl", "--silent", "--show-error", "--max-time", "10")


@pytest.mark.parametrize("root", [False, True], ids=["user", "root"])
def test_packets_and_exchanges_of_a_command_are_written(host, nginx, root: bool) -> None:
    packets, archive = host.scratch / "packets.pcapng", host.scratch / "exchanges.har"
    ended = host.run(*CURL, WEB, root=root, options=["-w", str(packets), "--har", str(archive)])
    assert ended.code == 0
    (entry,) = json.loads(archive.read_bytes())["log"]["entries"]
    assert (entry["request"]["url"], entry["response"]["status"]) == (WEB, 200)
    detect = [sys.executable, "-m", "mitml4", "detect", "--json", str(packets)]
    read = subprocess.run(detect, check=True, capture_output=True, text=True, timeout=60)
    events = [json.loads(line) for line in read.stdout.splitlines()]
    (request,) = (event for event in events if event["type"] == "http.request")
    assert request["url"] == WEB
    stacks = [event["stack"] for event in events if event["type"] == "flow.close"]
    assert stacks == ended.stacks == [["tls", "http/2"]]


def test_a_filter_selects_what_is_written_and_said_but_not_the_packets(host, nginx) -> None:
    names = {name: host.scratch / name for name in ("events.jsonl", "some.har", "all.pcapng")}
    events, archive, packets = names.values()
    ended = host.run(
        *("sh", "-c", f"curl -s {WEB} && curl -s {WEB}missing && curl -s --http1.1 {WEB}"),
        options=[
            *("--filter", "status:404 or protocol:http/1"),
            *("-o", str(events), "--har", str(archive), "-w", str(packets)),
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
    detect = [sys.executable, "-m", "mitml4", "detect", "--json", str(packets)]
    read = subprocess.run(detect, check=True, capture_output=True, text=True, timeout=60)
    assert read.stdout.count('"type":"flow.close"') == 3
