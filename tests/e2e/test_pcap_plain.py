"""What was said in TLS, as packets that programs without keys understand."""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mitml4.lab.network import LAN, SERVER_V4, SERVER_V6
from tests.e2e.conftest import TIMEOUT_S, poll

SOCKS, HTTP_PROXY, TLS_PROXY = 1080, 3128, 3129
URL = "https://www.example/"
SYN, FIN_ACK, RST_ACK = "0x0002", "0x0011", "0x0014"

pytestmark = pytest.mark.usefixtures("nginx")


@pytest.fixture(scope="module")
def proxies(serve, files, identity):
    """microsocks, and tinyproxy behind TLS."""
    serve("microsocks", "-i", "::", "-p", str(SOCKS), port=SOCKS)
    config = files / "tinyproxy.conf"
    config.write_text(f"Port {HTTP_PROXY}\nListen {SERVER_V4}\n")
    serve("tinyproxy", "-d", "-c", str(config), port=HTTP_PROXY)
    serve(
        "socat",
        f"OPENSSL-LISTEN:{TLS_PROXY},fork,reuseaddr,verify=0,"
        f"cert={identity.certificate},key={identity.key}",
        f"TCP:{SERVER_V4}:{HTTP_PROXY}",
        port=TLS_PROXY,
    )


def tshark(capture: Path, *options: str) -> list[str]:
    """Its lines, without names or keys that are not in the file."""
    argv = ["tshark", "-n", "-r", str(capture), *options]
    return subprocess.check_output(argv, text=True, stderr=subprocess.DEVNULL).splitlines()


def fields(capture: Path, condition: str, *names: str) -> list[list[str]]:
    wanted = [part for name in names for part in ("-e", name)]
    lines = tshark(capture, "-Y", condition, "-T", "fields", *wanted)
    return [line.split("\t") for line in lines]


def assert_sound(capture: Path) -> None:
    """No checksum is wrong, and nothing of a connection is missing, repeated or out of order."""
    checks = ("-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE")
    wrong = "ip.checksum.status == 0 or tcp.checksum.status == 0 or tcp.analysis.flags or tls"
    assert tshark(capture, *checks, "-Y", wrong) == []
    assert tshark(capture, *checks, "-Y", "tcp.checksum.status == 1")


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return tmp_path / "plain.pcap"


def test_tools_see_what_was_said_with_no_key(
    plain, tmp_path, intercept, client, authority, files, nginx, proxies
) -> None:
    (nginx / "large").write_bytes(os.urandom(2 << 20))
    session = intercept("--pcap-plain", str(plain))
    roots = files / "both.pem"
    roots.write_bytes(session.ca.read_bytes() + authority.root.read_bytes())
    curl = ["curl", "-sS", "--cacert", str(roots), "--proxy-cacert", str(roots)]
    curl += [part for port in (80, 443, TLS_PROXY) for part in
             ("--resolve", f"www.example:{port}:{SERVER_V4}")]  # fmt: skip
    visits = {
        "one": ["--http1.1", URL + "?one"],
        "two": ["--http2", URL + "?two"],
        "v6": ["--http1.1", "--connect-to", f"::[{SERVER_V6}]:", URL + "?v6"],
        "socks": ["--socks5", f"{SERVER_V4}:{SOCKS}", "--http1.1", URL + "?socks"],
        "in-tls": ["--proxy", f"https://www.example:{TLS_PROXY}", "--http1.1", URL + "?in-tls"],
        "two-in-tls": ["--proxy", f"https://www.example:{TLS_PROXY}", URL + "?two-in-tls"],
        "large": ["--http1.1", "-o", "/dev/null", URL + "large"],
    }
    for name, options in visits.items():
        outcome = client.run(*curl, *options)
        assert outcome.code == 0, (name, outcome.err)
    client.run(*curl, "http://www.example/?plain")
    opened = len(visits)
    session.wait_for(lambda: len(session.of_type("flow.close")) > opened, "all flows")
    session.stop()

    assert stat.S_IMODE(plain.stat().st_mode) == 0o600
    assert_sound(plain)
    requests = fields(plain, "http.request", "http.request.uri")
    assert requests == [["/?one"], ["/?v6"], ["/?socks"], ["/?in-tls"], ["/large"]]
    assert fields(plain, "http2.headers.method", "http2.headers.path") == [
        ["/?two"],
        ["/?two-in-tls"],
    ]
    # The addresses are the flows', as are the clients' ports.
    flows = [flow for flow in session.flows() if "tls" in flow.stack]
    names = ["ip.src", "ipv6.src", "tcp.srcport", "ip.dst", "ipv6.dst", "tcp.dstport"]
    rows = fields(plain, "tcp.flags & 7", "tcp.stream", "tcp.flags", *names)  # SYN, FIN, RST
    assert {stream for stream, *_ in rows} == {str(number) for number in range(opened)}
    for number, flow in enumerate(flows):
        (flags, v4, v6, port, to_v4, to_v6, to_port), _, *ends = (
            row for stream, *row in rows if stream == str(number)
        )
        client_at, destination = flow.opened["client"], flow.opened["destination"]["ip"]
        assert flags == SYN
        assert (v4 or v6, port) == (client_at["ip"], str(client_at["port"]))
        assert (to_v4 or to_v6, to_port) == (destination, "80")
        if flow.closed["reason"] == "reset":  # socat's, if it ends before it has read curl's end
            assert ends[-1][0] == RST_ACK
        else:
            assert [flags for flags, *_ in ends] == [FIN_ACK] * 2
    bodies = tmp_path / "bodies"
    tshark(plain, "--export-objects", f"http,{bodies}")
    assert filecmp.cmp(bodies / "large", nginx / "large", shallow=False)
    if shutil.which("suricata"):
        assert_suricata_sees(
            plain,
            tmp_path,
            ["/?one", "/?two", "/?v6", "/?socks", "/?in-tls", "/?two-in-tls", "/large"],
        )


def assert_suricata_sees(capture: Path, directory: Path, expected: list[str]) -> None:
    subprocess.run(
        ["suricata", "-r", str(capture), "-l", str(directory), "-S", "/dev/null"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    events = map(json.loads, (directory / "eve.json").read_text().splitlines())
    asked = set()
    for event in events:
        assert event["event_type"] != "anomaly", event
        if event["event_type"] == "http":
            headers = event["http"].get("request_headers", ())
            path = next((each["value"] for each in headers if each["name"] == ":path"), None)
            asked.add(path or event["http"].get("url"))
    assert set(expected) <= asked


def test_a_reader_gets_them_as_they_come(
    plain, intercept, client, authority, files, lab, tmp_path
) -> None:
    """And once it has gone, the session goes on without it."""
    with lab.router.call(lambda: socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
        session = intercept("--pcap-plain", f"tcp:127.0.0.1:{port}")
        listener.settimeout(TIMEOUT_S)
        reader, _ = listener.accept()
    received = bytearray()

    def read() -> None:
        while b"hello from nginx" not in received and (data := reader.recv(65536)):
            received.extend(data)

    reading = threading.Thread(target=read)
    reading.start()
    curl = ["curl", "-sS", "--cacert", str(session.ca), "--resolve", f"www.example:443:{SERVER_V4}"]
    curl += ["--http1.1", URL]
    assert client.run(*curl).text == "hello from nginx\n"
    reading.join(TIMEOUT_S)
    assert not reading.is_alive()
    plain.write_bytes(received)
    assert fields(plain, "http.request", "http.host") == [["www.example"]]
    reader.close()

    def has_noticed() -> bool:
        assert client.run(*curl).text == "hello from nginx\n"
        return f"nobody reads tcp:127.0.0.1:{port} any more" in session.said()

    poll(has_noticed, "a note that the reader has gone")


RESETTING = """
import socket, ssl, struct, sys
context = ssl.create_default_context(cafile=sys.argv[2])
raw = socket.create_connection((sys.argv[1], 443))
stream = context.wrap_socket(raw, server_hostname="www.example")
stream.sendall(b"GET /?gone HTTP/1.1\\r\\nHost: www.example\\r\\n\\r\\n")
stream.recv(1)
stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
print(stream.getsockname()[1])
stream.close()
"""


def test_a_reset_is_the_one_of_its_side(plain, intercept, client) -> None:
    session = intercept("--pcap-plain", str(plain))
    outcome = client.run(sys.executable, "-c", RESETTING, SERVER_V4, str(session.ca))
    assert outcome.code == 0, outcome.err
    session.wait_for(lambda: session.of_type("flow.close"), "the flow's end")
    session.stop()
    assert session.of_type("flow.close")[0]["reason"] == "reset"
    assert fields(plain, "http.request", "http.request.uri") == [["/?gone"]]
    ends = fields(plain, "tcp.flags.fin == 1 or tcp.flags.reset == 1", "tcp.srcport", "tcp.flags")
    assert ends == [[outcome.text.strip(), RST_ACK]]


def test_a_reader_that_is_not_there(lab, tmp_path) -> None:
    for mode in (["intercept", "--iface", LAN], ["run"]):
        argv = [sys.executable, "-m", "mitml4", *mode, "--pcap-plain", "tcp:127.0.0.1:9"]
        argv += ["--", "true"] if mode == ["run"] else []
        result = lab.router.run(*argv, check=False)
        assert result.returncode in (1, 2)
        assert "cannot connect to tcp:127.0.0.1:9: Connection refused" in result.stderr
        assert "nc -l 9" in result.stderr
        assert "Traceback" not in result.stderr
