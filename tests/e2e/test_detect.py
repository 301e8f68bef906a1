"""Captures of real clients and servers: `mitml4 detect` names what `mitml4 intercept` names."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from pathlib import Path

import pytest

from mitml4.lab.network import CLIENT_V4, LAN, SERVER_V4
from mitml4.net.netns import NetNamespace
from tests.e2e import forked

URL = "https://www.example/"
HOSTS = [part for port in (80, 443) for part in ("--resolve", f"www.example:{port}:{SERVER_V4}")]

MARKER = 54321
"""A port that nobody listens on."""
REFUSAL = socket.inet_aton(SERVER_V4) + socket.inet_aton(CLIENT_V4) + MARKER.to_bytes(2, "big")
"""As its packets have it: the addresses, and the port that it comes from (RFC 791, RFC 9293)."""

pytestmark = pytest.mark.usefixtures("nginx")


class Recorder:
    """tcpdump on the router's interface towards the client."""

    def __init__(self, router: NetNamespace, client: NetNamespace, path: Path) -> None:
        self.path = path
        self._client = client
        self._process = router.popen(
            ["tcpdump", "-i", LAN, "-U", "--immediate-mode", "-Z", "root", "-w", str(path), "tcp"],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert "listening on" in self._process.stderr.readline()

    def stop(self) -> None:
        """End it once all packets up to now are in the file: the last are those of a refusal."""
        with self._client.socket() as marker, pytest.raises(ConnectionRefusedError):
            marker.connect((SERVER_V4, MARKER))
        deadline = time.monotonic() + 60
        while REFUSAL not in self.path.read_bytes():
            assert time.monotonic() < deadline, "tcpdump does not see what passes"
        self.close()

    def close(self) -> None:
        self._process.terminate()
        self._process.communicate(timeout=10)


@pytest.fixture
def recorder(lab, tmp_path):
    recorder = Recorder(lab.router, lab.client, tmp_path / "capture.pcap")
    yield recorder
    recorder.close()


def detect(path: Path, *options: str) -> list[dict]:
    result = forked.run(["detect", str(path), *options], cwd=path.parent)
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def stacks(events: list[dict]) -> list[list[str]]:
    """Of all flows but the marker."""
    marker = {
        e["flow"] for e in events if e["type"] == "flow.open" if e["destination"]["port"] == MARKER
    }
    closes = (e for e in events if e["type"] == "flow.close" and e["flow"] not in marker)
    return [event["stack"] for event in closes]


@pytest.mark.parametrize(
    ("options", "stack"),
    [
        (["http://www.example/"], ["http/1"]),
        (["--http2-prior-knowledge", "-k", URL], ["tls"]),
        (["--http1.1", "-k", URL], ["tls"]),
    ],
    ids=["http", "h2 in tls", "http in tls"],
)
def test_what_is_in_the_clear_is_named(client, recorder, options, stack) -> None:
    assert client.run("curl", "-sS", *HOSTS, *options).code == 0
    recorder.stop()
    assert stacks(detect(recorder.path)) == [stack]


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize(("http", "inner"), [("--http1.1", "http/1"), ("--http2", "http/2")])
def test_a_clients_key_log_opens_its_tls(client, recorder, tmp_path, version, http, inner) -> None:
    keys = tmp_path / "keys.txt"
    environment = {"PATH": os.environ["PATH"], "SSLKEYLOGFILE": str(keys)}
    options = ["-sSk", "--tls-max", version, http, *HOSTS, URL]
    assert client.run("curl", *options, env=environment).code == 0
    recorder.stop()
    events = detect(recorder.path, "--keylog", str(keys))
    assert stacks(events) == [["tls", inner]]
    (request,) = (event for event in events if event["type"] == "http.request")
    assert request["url"] == URL
    (response,) = (event for event in events if event["type"] == "http.response")
    assert response["status"] == 200


def test_a_socks_proxy_and_what_goes_through_it(client, recorder, serve) -> None:
    port = 11080
    serve("microsocks", "-i", SERVER_V4, "-p", str(port), port=port)
    options = ["--socks5", f"{SERVER_V4}:{port}", f"http://{SERVER_V4}/"]
    assert client.run("curl", "-sS", *options).code == 0
    recorder.stop()
    assert stacks(detect(recorder.path)) == [["socks5", "http/1"]]


def test_a_server_that_speaks_first(client, recorder, sshd) -> None:
    assert client.run("ssh", *sshd, f"root@{SERVER_V4}", "true").code == 0
    recorder.stop()
    events = detect(recorder.path)
    assert stacks(events) == [["ssh"]]
    (layer,) = (event for event in events if event["type"] == "flow.layer")
    assert "OpenSSH" in layer["details"]["server_software"]


def test_tls_in_packets_of_tds_is_opened_with_the_clients_keys(
    client, recorder, authority, sql_server, tsql, tmp_path
) -> None:
    keys = tmp_path / "keys.txt"
    outcome = tsql(client, sql_server(), authority.root, SSLKEYLOGFILE=str(keys))
    assert (outcome.code, outcome.text) == (0, "42\n"), outcome.err
    recorder.stop()
    assert stacks(detect(recorder.path)) == [["tds", "tls"]]
    events = detect(recorder.path, "--keylog", str(keys))
    assert stacks(events) == [["tds", "tls", "tds"]]
    layers = [event for event in events if event["type"] == "flow.layer"]
    assert layers[2]["details"]["user"] == "me"
    assert not [event for event in events if event["type"] == "flow.error"]
