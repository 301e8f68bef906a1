"""The files that a session writes beside its events, as those read them for whom they are."""

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack

import pytest

import mitml4
from mitml4.lab.network import CLIENT_V4, ROUTER_LAN_V4
from tests.e2e.others import Router

V4 = "198.51.100.2"


@pytest.fixture
def visit(client):
    """curl for pages of nginx's, with one connection for all of them."""

    def run(session, *urls, options=()):
        outcome = client.run(
            *("curl", "-sS", "--max-time", "20", "--cacert", str(session.ca)),
            *("--resolve", f"www.example:443:{V4}", *options),
            *(part for url in urls for part in ("-o", "/dev/null", url)),
        )
        assert outcome.code == 0, outcome

    return run


@pytest.mark.usefixtures("nginx")
def test_the_archive_has_every_exchange_with_headers_which_the_events_lack(
    intercept, visit, tmp_path
):
    path = tmp_path / "exchanges.har"
    session = intercept("--har", str(path))
    flows = []
    root = "https://www.example/"
    for version in ("1.1", "2"):
        watch = session.watch()
        visit(session, root, root + "missing?a=b", options=[f"--http{version}", "-b", "c=d"])
        flows.append(watch.flow())
    assert session.stop() == 0
    archive = json.loads(path.read_bytes())["log"]
    for version, flow in zip(("1", "2"), flows, strict=True):
        first, second = (each for each in archive["entries"] if each["_stack"] == flow.stack)
        assert flow.stack == ["tls", f"http/{version}"]
        assert [first["response"]["status"], second["response"]["status"]] == [200, 404]
        assert second["request"]["url"] == root + "missing?a=b"
        assert second["request"]["queryString"] == [{"name": "a", "value": "b"}]
        assert second["request"]["cookies"] == []
        sent = {each["name"].lower(): each["value"] for each in second["request"]["headers"]}
        assert sent["cookie"] == "<redacted, 3 bytes>"
        assert first["response"]["content"]["mimeType"] == "text/html"
        assert first["response"]["content"]["size"] == first["response"]["bodySize"] > 0
        assert first["serverIPAddress"] == V4
        names = {header["name"].lower() for header in first["response"]["headers"]}
        assert {"content-type", "content-length", "server"} <= names
        assert {event["headers"] for event in flow.http if "headers" in event} == {None}
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.usefixtures("nginx")
def test_a_filter_selects_what_is_written(intercept, visit, tmp_path):
    """Flows and exchanges in the events, the file of them and the archive; not the totals."""
    events, archive = tmp_path / "events.jsonl", tmp_path / "exchanges.har"
    session = intercept(
        *("--filter", "host:www.example path:/missing* not path:*secret* status:4xx"),
        *("-o", str(events), "--har", str(archive)),
    )
    root = "https://www.example/"
    visit(session, root)
    visit(session, f"{root}missing?secret")
    visit(session, root, f"{root}missing?a", f"{root}missing?secret", f"{root}missing?b")
    session.wait_for(lambda: session.of_type("flow.close"), "the flow that matches")
    assert session.stop() == 0
    (flow,) = session.flows()
    assert (flow.opened["flow"], flow.stack) == (3, ["tls", "http/2"])
    urls = [event["url"] for event in flow.http if event["type"] == "http.request"]
    assert urls == [f"{root}missing?a", f"{root}missing?b"]
    assert [event["status"] for event in flow.http if event["type"] == "http.response"] == [404] * 2
    assert len({event["stream"] for event in flow.http}) == 2
    assert [json.loads(line) for line in events.read_text().splitlines()] == session.events
    entries = json.loads(archive.read_bytes())["log"]["entries"]
    assert [entry["request"]["url"] for entry in entries] == urls
    assert session.of_type("session.stop")[0]["flows"] == 3


@pytest.mark.usefixtures("nginx")
def test_a_wrong_filter_is_refused_with_its_place(lab):
    argv = [sys.executable, "-m", "mitml4", "intercept", "--iface", "lan", "--filter"]
    result = lab.router.run(*argv, "host:a (status:5xx or", check=False)
    assert result.returncode == 2
    error, shown, mark, *_ = result.stderr.splitlines()
    assert error.startswith("error: --filter: ")
    assert shown == "  host:a (status:5xx or"
    assert mark.strip() == "^"
    assert result.stdout == ""


@pytest.fixture
def tshark():
    """Fields of each packet, as tshark reads a file without being told any secret."""

    def run(path, *fields):
        command = ["tshark", "-r", str(path), "-T", "fields", "-E", "separator=|"]
        command += [part for field in fields for part in ("-e", field)]
        read = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
        return [tuple(line.split("|")) for line in read.stdout.splitlines()]

    return run


@pytest.mark.usefixtures("nginx")
@pytest.mark.parametrize(
    ("iface", "side"), [("lan", "client"), ("wan", "server")], ids=["lan", "wan"]
)
def test_the_packets_are_open_to_wireshark(intercept, visit, tshark, tmp_path, iface, side):
    path = tmp_path / "packets.pcapng"
    session = intercept("-w", str(path), iface=iface)
    watch = session.watch()
    for version in ("1.2", "1.3"):
        visit(session, "https://www.example/", options=["--tls-max", version])
    flows = watch.flows(2)
    assert session.stop() == 0
    assert path.stat().st_mode & 0o077 == 0
    packets = tshark(path, "http2.headers.authority", "frame.comment", "tcp.srcport", "tcp.dstport")
    authorities, comments, *ports = (
        list(filter(None, each)) for each in zip(*packets, strict=True)
    )
    assert authorities == 2 * ["www.example"]
    seen = {int(port) for each in ports for port in each}
    assert 443 in seen
    for number, flow in enumerate(flows, 1):
        said = f"flow {number}, {side}'s side: tls › http/2 (www.example, closed)"
        assert said in comments
        assert (flow.opened["client"]["port"] in seen) == (side == "client")


@pytest.fixture
def published(lab):
    """A port of the router's that it translates to nginx's, as Docker does."""
    rule = f"ip daddr {ROUTER_LAN_V4} tcp dport 8443 dnat ip to {V4}:443"
    head = "type nat hook prerouting priority dstnat"
    with ExitStack() as undo:
        Router(lab.router, undo).load(f"chain published {{ {head}; {rule}; }}")
        yield 8443


@pytest.mark.usefixtures("nginx")
def test_the_packets_of_a_published_port_are_open_to_wireshark(
    published, intercept, visit, tshark, tmp_path
):
    path = tmp_path / "packets.pcapng"
    session = intercept("-w", str(path), iface="lan")
    there = f"www.example:{published}"
    visit(session, f"https://{there}/", options=["--resolve", f"{there}:{ROUTER_LAN_V4}"])
    assert session.stop() == 0
    packets = tshark(path, "http2.headers.authority", "ip.src", "ip.dst", "tcp.dstport")
    requests = [ends for authority, *ends in packets if authority]
    assert requests == [[CLIENT_V4, ROUTER_LAN_V4, str(published)]]
    assert (ROUTER_LAN_V4, CLIENT_V4) in {(source, to) for _, source, to, _ in packets}


@pytest.mark.usefixtures("nginx")
def test_packets_of_others_are_not_written(intercept, visit, client, tshark, tmp_path):
    path = tmp_path / "packets.pcapng"
    session = intercept("-w", str(path), "--port", "443")
    visit(session, "https://www.example/")
    assert client.run("curl", "-sS", "-o", "/dev/null", f"http://{V4}/").code == 0
    visit(session, "https://www.example/")
    assert session.stop() == 0
    packets = tshark(path, "tcp.stream", "tcp.srcport", "tcp.dstport")
    assert not any("80" in ports for _, *ports in packets)
    assert len({stream for stream, *_ in packets}) == 2


@pytest.mark.usefixtures("nginx")
def test_a_named_pipe_without_its_reader_is_said_and_the_session_goes_on(
    intercept, visit, tmp_path
):
    path, stderr = tmp_path / "events", tmp_path / "stderr.txt"
    os.mkfifo(path, 0o600)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    session = intercept("-o", str(path))
    watch = session.watch()
    visit(session, "https://www.example/")
    watch.flow()
    assert b"session.start" in os.read(reader, 1 << 16)
    os.close(reader)
    watch = session.watch()
    visit(session, "https://www.example/")
    assert watch.flow().stack[0] == "tls"
    assert session.stop() == 0
    assert f"note: nobody reads {path} any more\n" in stderr.read_text()
    assert "error" not in stderr.read_text()


@pytest.mark.usefixtures("nginx")
@pytest.mark.parametrize("option", ["-o", "--har", "-w", "--keylog", ">"])
def test_a_disk_that_is_full_is_said_at_once_and_the_other_output_goes_on(
    lab, client, tmp_path, option
) -> None:
    """Whatever `-q`; and what is on the disk opens."""
    disk, kept, told = tmp_path / "disk", tmp_path / "kept", tmp_path / "told"
    disk.mkdir()
    os.mkfifo(told, 0o600)
    session = [sys.executable, "-m", "mitml4", "-q", "intercept", "--iface", "lan", "--json"]
    session += ["--ca-dir", str(tmp_path / "ca")]
    # Of two outputs, the one on the disk fails; the other says when a client may connect.
    options = f"> {disk}/file -o {told}" if option == ">" else f"{option} {disk}/file > {told}"
    command = f"mount -t tmpfs -o size=4k tiny {disk} && {shlex.join(session)} {options}; code=$?"
    command += f"; cp {disk}/file {kept}; exit $code"
    argv = ["unshare", "--mount", "sh", "-c", command]
    said, events = [], []

    def visit() -> None:
        url = f"https://{V4}/" if option == "--keylog" else f"http://{V4}/"
        outcome = client.run("curl", "-ksS", "--max-time", "20", "-o", "/dev/null", url)
        assert outcome.code == 0, outcome

    with lab.router.popen(argv, stderr=subprocess.PIPE, text=True) as process:
        listening = threading.Thread(target=lambda: said.extend(process.stderr))
        listening.start()
        with told.open() as lines:
            start = json.loads(lines.readline())
            reading = threading.Thread(target=lambda: events.extend(map(json.loads, lines)))
            reading.start()
            while not said:
                assert process.poll() is None
                visit()
            flows = len(events)
            visit()
            os.kill(start["pid"], signal.SIGINT)
            process.wait(60)
            for thread in (listening, reading):
                thread.join(60)
    assert process.returncode == 1
    name = "standard output" if option == ">" else f"{disk}/file"
    assert said[0] == f"error: cannot write {name}: No space left on device\n"
    assert said[1].startswith("hint: df ")
    assert len(said) == 2
    assert any(event["type"] == "flow.close" for event in events[flows:])
    assert (events[-1]["type"], events[-1]["reason"]) == ("session.stop", "SIGINT")
    content = kept.read_bytes()
    assert content
    if option == "--har":
        assert json.loads(content)["log"]["entries"]
    elif option == "-w":
        list(mitml4.read(kept))  # raises where it is broken
    else:
        assert content.endswith(b"\n")
        lines = content.splitlines()
        assert all(
            len(line.split()) == 3 if option == "--keylog" else json.loads(line) for line in lines
        )
