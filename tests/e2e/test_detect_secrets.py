"""`mitml4 detect` with secrets: real clients and servers, captured and opened."""

from __future__ import annotations

import json
import os
import struct
import subprocess
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import mitml4
from mitml4.lab.certificates import LabAuthority
from mitml4.net.netns import NetNamespace
from tests.e2e import forked
from tests.e2e.conftest import listening_ports, open_diag, poll

TIMEOUT_S = 10.0
PORT = 8443


@pytest.fixture(scope="module")
def namespace() -> NetNamespace:
    """A network namespace with nothing but loopback."""
    namespace = NetNamespace()
    namespace.call(lambda: subprocess.run(["ip", "link", "set", "lo", "up"], check=True))
    return namespace


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> LabAuthority:
    return LabAuthority(tmp_path_factory.mktemp("ca"))


def start(namespace: NetNamespace, *argv: str) -> subprocess.Popen[bytes]:
    return namespace.call(
        lambda: subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
    )


@pytest.fixture(scope="module", params=["TLSv1.3", "TLSv1.2", "TLSv1.2 CBC"])
def captured(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    namespace: NetNamespace,
    authority: LabAuthority,
) -> tuple[Path, Path, str]:
    """A capture of curl's request to a server of OpenSSL's, curl's key log, and the version."""
    version, _, cbc = request.param.partition(" ")
    identity = authority.issue("www.example")
    directory = tmp_path_factory.mktemp("captured")
    capture, keylog = directory / "tls.pcap", directory / "keys.log"
    options = ["-tls1_3"] if version == "TLSv1.3" else ["-tls1_2"]
    options += ["-cipher", "ECDHE-ECDSA-AES128-SHA"] if cbc else []
    server = start(
        namespace,
        *("openssl", "s_server", "-accept", str(PORT), "-www", "-quiet", *options),
        *("-cert", str(identity.certificate), "-key", str(identity.key)),
    )
    tcpdump: subprocess.Popen[bytes] | None = None
    try:
        # Without a connection to it, whose end tcpdump might see.
        with open_diag(namespace) as diag:
            poll(lambda: PORT in listening_ports(diag), "openssl s_server listens")
        tcpdump = start(namespace, "tcpdump", "-i", "lo", "-U", "-Z", "root", "-w", str(capture))
        assert tcpdump.stderr is not None
        while b"listening on" not in (line := tcpdump.stderr.readline()):
            assert line, "tcpdump does not listen"
        environment = {**os.environ, "SSLKEYLOGFILE": str(keylog)}
        argv = ["curl", "-sS", "--http1.1", "--cacert", str(authority.root)]
        argv += ["--resolve", f"www.example:{PORT}:127.0.0.1", f"https://www.example:{PORT}/x"]
        namespace.call(
            lambda: subprocess.run(argv, env=environment, check=True, capture_output=True)
        )
        poll(lambda: has_ended(capture), "tcpdump has written the end of curl's connection")
    finally:
        for process in filter(None, (tcpdump, server)):
            process.terminate()
            process.communicate(timeout=TIMEOUT_S)
    return capture, keylog, version


def has_ended(capture: Path) -> bool:
    with suppress(mitml4.MitmError):  # a packet is being written
        return any(f.bytes_down and f.reason == "closed" for f in mitml4.read(capture))
    return False


def detect(*arguments: str) -> subprocess.CompletedProcess[str]:
    return forked.run(["detect", *arguments], cwd=Path.cwd())


def events(output: str) -> list[dict]:
    return [json.loads(line) for line in output.splitlines()]


def check_opened(told: list[dict], version: str) -> None:
    layers = [event for event in told if event["type"] == "flow.layer"]
    assert [layer["protocol"] for layer in layers] == ["tls", "http/1"]
    assert layers[0]["action"] == "intercepted"  # it was opened, if only afterwards
    assert layers[0]["details"]["version"] == version
    assert layers[0]["details"]["certificate"]["san"] == ["www.example"]
    requests = [event["url"] for event in told if event["type"] == "http.request"]
    assert requests == [f"https://www.example:{PORT}/x"]
    assert not [event for event in told if event["type"] == "flow.error"]


def test_a_key_log_opens_what_curl_said(captured: tuple[Path, Path, str]) -> None:
    capture, keylog, version = captured
    outcome = detect(str(capture), "--keylog", str(keylog))
    assert (outcome.returncode, outcome.stderr) == (0, "")
    check_opened(events(outcome.stdout), version)


def test_what_was_said_goes_into_a_file_without_tls(
    captured: tuple[Path, Path, str], tmp_path: Path
) -> None:
    """For tools that know no secrets; at the times of the packets."""
    capture, keylog, _ = captured
    plain = tmp_path / "plain.pcap"
    outcome = detect(str(capture), "--keylog", str(keylog), "--pcap-plain", str(plain))
    assert (outcome.returncode, outcome.stderr) == (0, "")
    argv = ["tshark", "-n", "-r", str(plain), "-o", "tcp.check_checksum:TRUE"]
    argv += ["-T", "fields", "-e", "tcp.checksum.status", "-e", "http.request.uri"]
    said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    rows = [line.split("\t") for line in said.splitlines()]
    assert all(status == "1" for status, _ in rows)
    assert [uri for _, uri in rows if uri] == ["/x"]


@pytest.mark.parametrize("captured", ["TLSv1.3"], indirect=True)
def test_a_filter_selects_what_goes_into_it(
    captured: tuple[Path, Path, str], tmp_path: Path
) -> None:
    capture, keylog, _ = captured
    plain = tmp_path / "plain.pcap"
    base = (str(capture), "--keylog", str(keylog), "--pcap-plain")
    for path, seen in (("/x", ["/x"]), ("/y", [])):
        outcome = detect(*base, str(plain), "--filter", f"path:{path}")
        assert (outcome.returncode, outcome.stderr) == (0, "")
        exchanges = [each for flow in mitml4.read(plain) for each in flow.exchanges]
        assert [urlsplit(each.request.url).path for each in exchanges] == seen
    outcome = detect(*base, "/nowhere/plain.pcap")
    assert outcome.returncode == 1
    assert outcome.stderr.startswith("error: cannot write /nowhere/plain.pcap")


def test_a_capture_that_brings_its_secrets_along_needs_no_key_log(
    captured: tuple[Path, Path, str], tmp_path: Path
) -> None:
    capture, keylog, version = captured
    with_secrets = tmp_path / "with-secrets.pcapng"
    with_secrets.write_bytes(as_pcapng(capture.read_bytes(), keylog.read_bytes()))
    check_opened(events(detect(str(with_secrets)).stdout), version)


def test_tshark_opens_the_same(captured: tuple[Path, Path, str]) -> None:
    capture, keylog, _ = captured
    argv = ["tshark", "-r", str(capture), "-o", f"tls.keylog_file:{keylog}"]
    argv += ["-d", f"tcp.port=={PORT},tls", "-Y", "http.request", "-T", "fields", "-e"]
    outcome = subprocess.run([*argv, "http.request.uri"], capture_output=True, check=True)
    assert outcome.stdout.split() == [b"/x"]


def test_without_secrets_it_is_tls(captured: tuple[Path, Path, str]) -> None:
    capture, _, _ = captured
    stacks = [e["stack"] for e in events(detect(str(capture)).stdout) if e["type"] == "flow.close"]
    assert ["tls"] in stacks


def test_wrong_secrets_are_an_error_of_the_flow_and_not_of_the_command(
    captured: tuple[Path, Path, str], tmp_path: Path
) -> None:
    capture, keylog, _ = captured
    wrong = tmp_path / "wrong.log"
    lines = [line.split() for line in keylog.read_text().splitlines() if line[:1] != "#"]
    wrong.write_text(
        "".join(f"{label} {random} {secret[::-1]}\n" for label, random, secret in lines)
    )
    outcome = detect(str(capture), "--keylog", str(wrong))
    told = events(outcome.stdout)
    reasons = [event["reason"] for event in told if event["type"] == "flow.error"]
    assert len(reasons) == 1
    assert "does not authenticate" in reasons[0]
    assert ["tls"] in [event["stack"] for event in told if event["type"] == "flow.close"]
    assert (outcome.returncode, outcome.stderr) == (0, "")


@pytest.mark.parametrize("name", ["missing.log", "empty.log", "other.log"])
def test_a_key_log_without_keys_is_one_line_and_a_hint(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty.log").touch()
    (tmp_path / "other.log").write_text("# nothing\nhello\n")
    outcome = detect("-", "--keylog", str(tmp_path / name))
    assert outcome.returncode == 2
    error, hint = outcome.stderr.splitlines()
    assert error.startswith("error: ")
    assert name in error
    assert hint.startswith("hint: ")


def as_pcapng(pcap: bytes, key_log: bytes) -> bytes:
    """The same packets behind a Decryption Secrets Block, as `editcap --inject-secrets` does it."""

    def block(kind: int, body: bytes) -> bytes:
        body += bytes(-len(body) % 4)
        length = struct.pack("<I", len(body) + 12)
        return struct.pack("<I", kind) + length + body + length

    link_type = struct.unpack_from("<I", pcap, 20)[0]
    out = block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
    out += block(1, struct.pack("<HHI", link_type, 0, 0))
    out += block(10, struct.pack("<II", 0x544C534B, len(key_log)) + key_log)
    at = 24
    while at < len(pcap):
        seconds, fraction, captured, length = struct.unpack_from("<IIII", pcap, at)
        ticks = seconds * 10**6 + fraction
        head = (0, ticks >> 32, ticks & 0xFFFFFFFF, captured, length)
        frame = pcap[at + 16 : at + 16 + captured]
        out += block(6, struct.pack("<IIIII", *head) + frame)
        at += 16 + captured
    return out
