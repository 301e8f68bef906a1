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
