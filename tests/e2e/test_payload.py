"""What --payload shows is what the servers sent, live and in the capture of the same session."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import socket
import struct
import sys
from base64 import b64decode
from pathlib import Path

import brotli
import pytest

from mitml4.payload.codings import zstd_module
from tests.e2e import forked, payload_servers

V4 = "198.51.100.2"
PORT, TLS_PORT, GRPC_PORT, WEBSOCKET_PORT, HTTP2_PORT = 8180, 8543, 8181, 8182, 8183
SOCKS, HTTP_PROXY, TLS_PROXY = 1080, 3128, 3129
PROGRAM = Path(payload_servers.__file__)
WEBSOCKET_OVER_HTTP2 = PROGRAM.with_name("websocket_over_http2.js")
LIMIT = 2 << 20
LINES = "".join(f"line {number}: grüße aus köln\n" for number in range(2000))
RANDOM = random.Random(7)
PAGES = {
    "empty.txt": b"",
    "small.txt": b"x",
    "utf8.txt": LINES.encode(),
    "page.html": ("<meta charset=iso-8859-15><p>" + LINES).encode("iso-8859-15"),
    "data.json": json.dumps({"lines": LINES.split("\n")}).encode(),
    "noise.bin": RANDOM.randbytes(300_000),
    "large.bin": RANDOM.randbytes(LIMIT + 100_000),
    "coded/zstd": zstd_module().compress(LINES.encode()),
    "coded/gzip,br": brotli.compress(gzip.compress(LINES.encode())),
    "coded/gzip": b"this is no gzip",
}


@pytest.fixture(scope="module")
def web(serve, files, identity) -> None:
    """nginx, which compresses as it is asked to; PUT; what it sends slowly."""
    root = files / "pages"
    for name, content in PAGES.items():
        path = root / name.replace("coded/", "coded-").replace(",", "-")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    for directory in (root, *root.iterdir()):
        directory.chmod(0o777 if directory.is_dir() else 0o644)
    coded = "".join(
        f"""location = /coded-{name.replace(",", "-")} {{
            gzip off; brotli off; default_type text/plain;
            add_header Content-Encoding "{name}";
        }}
        """
        for name in ("zstd", "gzip,br", "gzip")
    )
    config = files / "payload.conf"
    config.write_text(f"""
        load_module /usr/lib/nginx/modules/ngx_http_brotli_filter_module.so;
        daemon off; master_process off; worker_processes 1; pid {files}/payload.pid;
        error_log stderr crit;
        events {{ worker_connections 64; }}
        http {{
            access_log off; client_max_body_size 0;
            types {{ text/plain txt; text/html html; application/json json; }}
            default_type application/octet-stream;
            gzip on; gzip_min_length 0; gzip_types *; gzip_comp_level 1; gzip_vary on;
            brotli on; brotli_min_length 0; brotli_types *; brotli_comp_level 1;
            client_body_temp_path {files}/b; proxy_temp_path {files}/p;
            fastcgi_temp_path {files}/f; uwsgi_temp_path {files}/u; scgi_temp_path {files}/s;
            ssl_certificate {identity.certificate}; ssl_certificate_key {identity.key};
            server {{
                listen {PORT}; listen {TLS_PORT} ssl http2; root {root};
                {coded}
                location /put/ {{ dav_methods PUT; create_full_put_path on; }}
                location /slow/ {{ alias {root}/; limit_rate 50k; gzip off; brotli off; }}
            }}
        }}
    """)
    serve("nginx", "-c", str(config), "-p", str(files), port=TLS_PORT)


@pytest.fixture(scope="module")
def others(serve) -> None:
    for kind, port in (("grpc-server", GRPC_PORT), ("websocket-server", WEBSOCKET_PORT)):
        serve(sys.executable, str(PROGRAM), kind, str(port), port=port)
    serve("node", str(WEBSOCKET_OVER_HTTP2), "server", str(HTTP2_PORT), port=HTTP2_PORT)


@pytest.fixture(scope="module")
def proxies(serve, files, identity) -> None:
    serve("microsocks", "-i", V4, "-p", str(SOCKS), port=SOCKS)
    config = files / "tinyproxy.conf"
    config.write_text(f"Port {HTTP_PROXY}\nListen {V4}\nMaxClients 20\n")
    serve("tinyproxy", "-d", "-c", str(config), port=HTTP_PROXY)
    listen = f"OPENSSL-LISTEN:{TLS_PROXY},fork,reuseaddr,verify=0"
    listen += f",cert={identity.certificate},key={identity.key}"
    serve("socat", listen, f"TCP:{V4}:{HTTP_PROXY}", port=TLS_PROXY)


def content(event: dict) -> bytes:
    if event["text"] is None:
        return b64decode(event["base64"])
    return event["text"].encode(event["charset"] or "utf-8")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def bodies(events: list[dict], side: str = "response") -> dict[str, list[tuple]]:
    """By the path of the request: what was shown, its codings, and whether it is truncated."""
    paths: dict[tuple, str] = {}
    found: dict[str, list[tuple]] = {}
    for event in events:
        key = event.get("flow"), event.get("depth"), event.get("stream")
        if event["type"] == "http.request":
            paths[key] = event["url"].split("/", 3)[-1]
        elif event["type"] == "http.body" and event["side"] == side:
            shown = sha256(content(event)), tuple(event["encoding"]), event["truncated"]
            found.setdefault(paths[key], []).append(shown)
    return {path: sorted(each) for path, each in found.items()}


def detected(path: Path, *, side: str) -> list[dict]:
    """The events of a capture that `-w` wrote, of one of its sides."""
    options = ["--json", "--payload", "--payload-limit", str(LIMIT)]
    done = forked.run(["detect", *options, str(path)], cwd=path.parent)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    flows = {e["flow"] for e in events if e["type"] == "flow.open" and e["side"] == side}
    return [event for event in events if event.get("flow") in flows]


def download(client, ca: Path, *options: str, path: str, tls: bool = False) -> bytes:
    scheme, port = ("https", TLS_PORT) if tls else ("http", PORT)
    outcome = client.run(
        *("curl", "-sS", "--max-time", "20", "--cacert", str(ca), *options),
        *("--resolve", f"www.example:{port}:{V4}", f"{scheme}://www.example:{port}/{path}"),
    )
    assert outcome.code == 0, outcome.err
    return outcome.out


@pytest.mark.usefixtures("web")
def test_bodies_are_what_nginx_sent(intercept, client, tmp_path):
    packets = tmp_path / "packets.pcapng"
    session = intercept("--payload", "--payload-limit", "2MiB", "-w", str(packets))
    ca = session.ca
    expected: dict[str, list[tuple]] = {}
    plain = [name for name in PAGES if "/" not in name]
    asked = 0
    for tls, version in ((False, "--http1.1"), (True, "--http1.1"), (True, "--http2")):
        for coding in ("identity", "gzip", "br"):
            # All on one connection, over HTTP/2 at the same time.
            urls = []
            for name in plain:
                scheme, port = ("https", TLS_PORT) if tls else ("http", PORT)
                url = f"{scheme}://www.example:{port}/{name}?{asked}"
                urls += ["-o", str(tmp_path / f"{asked}-{name}"), url]
                is_cut = len(PAGES[name]) > LIMIT
                undone = () if coding == "identity" else (coding,)
                kept = PAGES[name][:LIMIT]
                if PAGES[name] or undone:
                    expected[f"{name}?{asked}"] = [(sha256(kept), undone, is_cut)]
            outcome = client.run(
                *("curl", "-sS", "--max-time", "30", version, "-H", f"Accept-Encoding: {coding}"),
                *("--cacert", str(ca), *(["--parallel"] if version == "--http2" else [])),
                *("--resolve", f"www.example:{port}:{V4}", *urls),
            )
            assert outcome.code == 0, outcome.err
            asked += 1
    for name, codings in (("zstd", ("zstd",)), ("gzip-br", ("gzip", "br"))):
        download(client, ca, path=f"coded-{name}", tls=True)
        expected[f"coded-{name}"] = [(sha256(LINES.encode()), codings, False)]
    download(client, ca, path="coded-gzip")
    expected["coded-gzip"] = [(sha256(PAGES["coded/gzip"]), (), False)]
    # No content: HEAD, 304. A part of a file.
    download(client, ca, "--head", path="utf8.txt?head")
    download(client, ca, "-H", "If-None-Match: *", path="utf8.txt?304")
    download(client, ca, "-r", "5-14", path="utf8.txt?range")
    expected["utf8.txt?range"] = [(sha256(PAGES["utf8.txt"][5:15]), (), False)]
    assert session.stop() == 0
    assert bodies(session.events) == expected
    assert bodies(detected(packets, side="client")) == expected
    charsets = {e["charset"] for e in session.of_type("http.body") if e["text"]}
    assert charsets == {"utf-8", "iso-8859-15"}
    (broken,) = [e for e in session.of_type("http.body") if e["coding_error"]]
    assert broken["coding_error"].startswith("gzip: ")


@pytest.mark.usefixtures("web")
def test_uploads_expectations_pipelines_and_resets(intercept, client, tmp_path):
    session = intercept("--payload", "--payload-limit", "2MiB")
    upload = tmp_path / "upload"
    upload.write_bytes(RANDOM.randbytes(1_500_000))
    shown = sha256(upload.read_bytes()), (), False
    expected = {}
    for number, options in enumerate(
        (["--http1.1"], ["--http1.1", "-H", "Transfer-Encoding: chunked"], ["--http2"])
    ):
        path = f"put/{number}"
        options = [*options, "-H", "Expect: 100-continue", "-T", str(upload)]
        download(client, session.ca, *options, path=path, tls=True)
        expected[path] = [shown]
    requests = b"".join(
        b"%s /%s HTTP/1.1\r\nHost: x\r\n%s\r\n" % line
        for line in (
            (b"GET", b"small.txt?1", b""),
            (b"GET", b"utf8.txt?2", b"Accept-Encoding: gzip\r\n"),
            (b"HEAD", b"utf8.txt?3", b""),
            (b"GET", b"small.txt?4", b"Connection: close\r\n"),
        )
    )
    with client.connect(V4, PORT) as sock:
        sock.sendall(requests)
        while sock.recv(65536):
            pass
    with client.connect(V4, PORT) as sock:
        sock.sendall(b"GET /slow/noise.bin HTTP/1.1\r\nHost: x\r\n\r\n")
        received = b""
        while len(received) < 20_000:
            received += sock.recv(65536)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    session.wait_for(
        lambda: [e for e in session.of_type("http.end") if e["outcome"] == "cut"], "the reset"
    )
    assert session.stop() == 0
    assert bodies(session.events, "request") == expected
    responses = bodies(session.events)
    (cut,) = responses.pop("slow/noise.bin")
    assert cut[2]
    (event,) = [e for e in session.of_type("http.body") if e["truncated"]]
    assert PAGES["noise.bin"].startswith(content(event))
    assert len(content(event)) >= 15_000
    assert responses == {
        "small.txt?1": [(sha256(b"x"), (), False)],
        "utf8.txt?2": [(sha256(PAGES["utf8.txt"]), ("gzip",), False)],
        "small.txt?4": [(sha256(b"x"), (), False)],
    }


@pytest.mark.usefixtures("web")
def test_padded_frames_of_streams_at_the_same_time(intercept, client, tmp_path):
    """nghttp pads its frames, and interleaves what it sends in its streams."""
    session = intercept("--payload", "--payload-limit", "2MiB")
    upload = tmp_path / "upload"
    upload.write_bytes(RANDOM.randbytes(400_000))
    urls = [f"https://{V4}:{TLS_PORT}/put/padded-{number}" for number in range(4)]
    outcome = client.run(
        *("nghttp", "--null-out", "--padding=255", "--no-push", "--no-verify-peer"),
        *("--data", str(upload), "--header=:method: PUT", *urls),
    )
    assert outcome.code == 0, outcome.err
    assert session.stop() == 0
    (flow,) = session.flows()
    assert flow.stack == ["tls", "http/2"]
    shown = sha256(upload.read_bytes()), (), False
    assert bodies(session.events, "request") == {
        f"put/padded-{number}": [shown] for number in range(4)
    }
    assert [e["request_bytes"] for e in session.of_type("http.end")] == [400_000] * 4
    kinds = [e["type"] for e in session.events if e["type"] in ("http.request", "http.end")]
    assert kinds == ["http.request"] * 4 + ["http.end"] * 4


@pytest.mark.usefixtures("web", "proxies")
def test_bodies_inside_of_proxies_are_what_nginx_sent(intercept, client):
    session = intercept("--payload", "--payload-limit", "2MiB")
    for number, proxy in enumerate(
        (
            ["--socks5-hostname", f"{V4}:{SOCKS}"],
            ["--proxy", f"http://{V4}:{HTTP_PROXY}"],
            ["--proxy", f"https://www.example:{TLS_PROXY}", "--proxy-cacert", str(session.ca)],
        )
    ):
        names = ["--resolve", f"www.example:{TLS_PROXY}:{V4}", "--compressed"]
        download(client, session.ca, *proxy, *names, path=f"utf8.txt?{number}", tls=True)
    assert session.stop() == 0
    assert [event["stack"] for event in session.of_type("flow.close")] == [
        ["socks5", "tls", "http/2"],
        ["http-connect", "tls", "http/2"],
        ["tls", "http-connect", "tls", "http/2"],
    ]
    shown = sha256(PAGES["utf8.txt"]), ("br",), False
    assert bodies(session.events) == {f"utf8.txt?{number}": [shown] for number in range(3)}


@pytest.mark.usefixtures("others")
def test_a_websocket_in_http2_is_read(intercept, client):
    session = intercept("--payload")
    messages = ["hello", "hello hello", "grüße", "hello"]
    outcome = client.run(
        "node", str(WEBSOCKET_OVER_HTTP2), "client", V4, str(HTTP2_PORT), *messages
    )
    assert (outcome.code, outcome.err) == (0, "")
    assert session.stop() == 0
    sent = [message.encode() for message in messages]
    assert said(session.events, "websocket.message") == {"up": sent, "down": sent}
    assert {event["stream"] for event in session.of_type("websocket.message")} == {1}
    assert session.of_type("flow.close")[0]["stack"] == ["http/2", "websocket"]


def said(events: list[dict], kind: str) -> dict[str, list[bytes]]:
    """The messages of each direction, but pings and closes."""
    found: dict[str, list[bytes]] = {"up": [], "down": []}
    for event in events:
        if event["type"] == kind and event.get("opcode") not in ("close", "ping", "pong"):
            assert not event["truncated"]
            assert not event["coding_error"]
            text = event.get("text")
            data = b64decode(event["base64"]) if text is None else text.encode()
            found[event["direction"]].append(data)
    return found


@pytest.mark.usefixtures("others")
def test_messages_are_what_was_said(intercept, client, tmp_path):
    packets = tmp_path / "packets.pcapng"
    session = intercept("--payload", "--payload-limit", "2MiB", "-w", str(packets))
    for kind, port in (("grpc-client", GRPC_PORT), ("websocket-client", WEBSOCKET_PORT)):
        outcome = client.run(sys.executable, str(PROGRAM), kind, V4, str(port))
        assert outcome.code == 0, outcome.err
    assert session.stop() == 0
    sent = [
        message.encode() if isinstance(message, str) else message
        for message in payload_servers.SAID
    ]
    sent = [*sent, b"in three fragments"] * 2
    for events in (session.events, detected(packets, side="client")):
        grpc = said(events, "grpc.message")
        assert grpc["up"] == payload_servers.ROUND
        assert grpc["down"] == [message[::-1] for message in payload_servers.ROUND]
        assert said(events, "websocket.message") == {"up": sent, "down": sent}
        messages = [e for e in events if e["type"] == "grpc.message"]
        assert {tuple(e["encoding"]) for e in messages} >= {("gzip",), ("deflate",)}
        assert not [e for e in events if e["type"] == "http.body"]
        (end,) = [e for e in events if e["type"] == "http.end" and e["trailers"]]
        assert ["grpc-status", "0"] in end["trailers"]
        compressed = [e for e in events if e["type"] == "websocket.message" and e["size"] < 1000]
        assert [e for e in compressed if e["text"] and len(e["text"]) == 100_000]


@pytest.mark.usefixtures("web")
def test_without_payload_there_is_none(intercept, client):
    session = intercept("--headers")
    download(client, session.ca, "--compressed", path="utf8.txt")
    assert session.stop() == 0
    assert session.of_type("http.response")
    assert not {e["type"] for e in session.events} & {"http.body", "flow.data", "grpc.message"}
