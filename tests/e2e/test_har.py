"""The HTTP archive of real exchanges: what it says, and that others can read it."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
import sys
from base64 import b64decode
from pathlib import Path

import haralyzer
import jsonschema_rs
import pytest

from tests.e2e import payload_servers
from tests.e2e.har_importer import Importer, importing

V4 = "198.51.100.2"
PORT, TLS_PORT, GRPC_PORT, WEBSOCKET_PORT = 8180, 8543, 8181, 8182
PROGRAM = Path(payload_servers.__file__)
SCHEMA = Path(__file__).parent.parent / "sinks" / "har-1.2.schema.json"
TEXT = "".join(f"line {number}: grüße aus köln\n" for number in range(500))
NOISE = random.Random(7).randbytes(20_000)
READ_BY_NODE = """
const har = JSON.parse(require("fs").readFileSync(0));
require("har-validator").har(har).then(
  (read) => console.log(read.log.entries.length),
  (error) => { console.error(JSON.stringify(error.errors)); process.exit(1); });
"""


@pytest.fixture(scope="module")
def web(serve, files, identity) -> None:
    root = files / "pages"
    root.mkdir()
    (root / "text.txt").write_text(TEXT)
    (root / "noise.bin").write_bytes(NOISE)
    root.chmod(0o755)
    config = files / "har.conf"
    config.write_text(f"""
        daemon off; master_process off; worker_processes 1; pid {files}/har.pid;
        error_log stderr crit;
        events {{ worker_connections 64; }}
        http {{
            access_log off; types {{ text/plain txt; }} default_type application/octet-stream;
            charset utf-8; gzip on; gzip_min_length 0; gzip_types *;
            client_body_temp_path {files}/b; proxy_temp_path {files}/p;
            fastcgi_temp_path {files}/f; uwsgi_temp_path {files}/u; scgi_temp_path {files}/s;
            ssl_certificate {identity.certificate}; ssl_certificate_key {identity.key};
            server {{
                listen {PORT}; listen {TLS_PORT} ssl http2; root {root};
                # A proxy reads the whole body before it answers.
                location /form {{ proxy_pass http://127.0.0.1:{PORT}/taken; }}
                location /taken {{
                    add_header Set-Cookie
                        "s=t; Path=/; Max-Age=60; Secure; HttpOnly; SameSite=Strict";
                    return 201 "taken";
                }}
            }}
        }}
    """)
    serve("nginx", "-c", str(config), "-p", str(files), port=TLS_PORT)


@pytest.fixture(scope="module")
def others(serve) -> None:
    for kind, port in (("grpc-server", GRPC_PORT), ("websocket-server", WEBSOCKET_PORT)):
        serve(sys.executable, str(PROGRAM), kind, str(port), port=port)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Chromium's importer; None where Chromium is no package."""
    if shutil.which("chromium") is None:
        yield None
        return
    with importing(tmp_path_factory.mktemp("profile")) as importer:
        yield importer


@pytest.fixture
def curl(client):
    def run(session, *arguments: str) -> None:
        outcome = client.run(
            *("curl", "-sS", "--max-time", "20", "--cacert", str(session.ca)),
            *("--resolve", f"www.example:{TLS_PORT}:{V4}", *arguments),
        )
        assert outcome.code == 0, outcome.err

    return run


def entries(path: Path, browser: Importer | None) -> list[dict]:
    """Its entries, after readers that are not ours have read them."""
    data = path.read_bytes()
    archive = json.loads(data)
    jsonschema_rs.validate(json.loads(SCHEMA.read_text()), archive)
    found = archive["log"]["entries"]
    environment = {"NODE_PATH": "/usr/share/nodejs", "PATH": "/usr/bin"}
    node = subprocess.run(
        ["node", "-e", READ_BY_NODE], input=data, env=environment, capture_output=True, check=False
    )
    assert (node.stdout.strip(), node.stderr) == (str(len(found)).encode(), b"")
    read = [
        entry for page in haralyzer.HarParser.from_file(str(path)).pages for entry in page.entries
    ]
    for theirs, ours in zip(read, found, strict=True):
        assert theirs.request.url == ours["request"]["url"]
        assert theirs.status == ours["response"]["status"]
        if "text" in ours["response"]["content"]:
            assert theirs.response.text == ours["response"]["content"]["text"]
        assert theirs.startTime.isoformat()[:19] == ours["startedDateTime"][:19]
    if browser:
        check_import(browser.read(path), found)
    return found


def check_import(read: list[dict], found: list[dict]) -> None:
    """Chromium has read what is there."""
    for theirs, ours in zip(read, found, strict=True):
        request, response, timings = ours["request"], ours["response"], ours["timings"]
        assert (theirs["url"], theirs["status"]) == (request["url"], response["status"])
        assert theirs["connection"] == ours["connection"]
        assert theirs["mime"] == response["content"]["mimeType"]
        if "text" in response["content"]:
            shown = theirs["content"]
            is_bare = response["content"].get("encoding") or theirs["mime"].startswith("text/")
            assert (shown if is_bare else b64decode(shown).decode()) == response["content"]["text"]
        assert theirs["posted"] == request.get("postData", {}).get("text")
        for cookies, key in ((request["cookies"], "sent"), (response["cookies"], "received")):
            assert theirs[key] == [[each["name"], each["value"]] for each in cookies]
        for part in ("connect", "ssl"):
            assert theirs[part] == pytest.approx(max(timings[part], 0), abs=0.01)
        assert theirs["frames"] == [
            [each["type"], each["opcode"], each["data"]]
            for each in ours.get("_webSocketMessages", [])
        ]
        assert (theirs["type"] == "websocket") == bool(theirs["frames"])


def content(entry: dict) -> bytes:
    shown = entry["response"]["content"]
    return b64decode(shown["text"]) if "encoding" in shown else shown["text"].encode()


@pytest.mark.usefixtures("web")
def test_bodies_forms_cookies_and_times(intercept, curl, browser, tmp_path):
    path, packets = tmp_path / "exchanges.har", tmp_path / "packets.pcapng"
    session = intercept("--har", str(path), "--payload", "--show-secrets", "-w", str(packets))
    root = f"https://www.example:{TLS_PORT}/"
    upload = tmp_path / "upload.bin"
    upload.write_bytes(b"\0\xff")
    for version in ("--http1.1", "--http2"):
        form = ("-o", "/dev/null", "-b", "c=d; e=f", root + "form?q=1&q=a%20b")
        options = [version, "--cacert", str(session.ca)]
        options += ("--resolve", f"www.example:{TLS_PORT}:{V4}")
        curl(
            session,
            *(version, "--compressed", "-o", "/dev/null", root + "text.txt"),
            *("--next", *options, "-o", "/dev/null", root + "noise.bin"),
            *("--next", *options, "--data-urlencode", "name=ä b", "-d", "k=", *form),
            *("--next", *options, "-F", "name=ä b", "-F", f"file=@{upload};type=a/b", *form),
        )
    assert session.stop() == 0
    live = entries(path, browser)
    assert path.stat().st_mode & 0o077 == 0
    again = tmp_path / "again.har"
    detect = [sys.executable, "-m", "mitml4", "detect", "--har", str(again), "--payload"]
    shown = subprocess.run([*detect, "--show-secrets", str(packets)], capture_output=True)
    assert (shown.returncode, shown.stderr) == (0, b"")
    events = [json.loads(line) for line in shown.stdout.splitlines()]
    assert {event["headers"] for event in events if "headers" in event} == {None}
    for found in (live, entries(again, browser)):
        for first in range(0, 8, 4):
            check_exchanges(found[first : first + 4])


def check_exchanges(four: list[dict]) -> None:
    text, noise, form, multipart = four
    assert content(text) == TEXT.encode()
    sent = text["response"]["bodySize"]
    assert text["response"]["content"]["size"] == len(TEXT.encode())
    assert text["response"]["content"]["compression"] == len(TEXT.encode()) - sent > 0
    assert text["response"]["content"]["mimeType"] == "text/plain; charset=utf-8"
    assert content(noise) == NOISE
    assert noise["response"]["content"]["encoding"] == "base64"
    for entry in (form, multipart):
        assert entry["request"]["cookies"] == [
            {"name": "c", "value": "d"},
            {"name": "e", "value": "f"},
        ]
        assert entry["request"]["queryString"] == [
            {"name": "q", "value": "1"},
            {"name": "q", "value": "a b"},
        ]
        (cookie,) = entry["response"]["cookies"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT.*Z", cookie.pop("expires"))
        flags = {"path": "/", "secure": True, "httpOnly": True, "sameSite": "Strict"}
        assert cookie == {"name": "s", "value": "t"} | flags
        assert content(entry) == b"taken"
    posted = form["request"]["postData"]
    assert posted["params"] == [{"name": "name", "value": "ä b"}, {"name": "k", "value": ""}]
    assert posted["text"] == "name=%C3%A4+b&k="
    assert form["request"]["bodySize"] == len(posted["text"])
    assert multipart["request"]["postData"]["params"] == [
        {"name": "name", "value": "ä b"},
        {"name": "file", "fileName": "upload.bin", "contentType": "a/b"},
    ]
    for entry in four:
        assert entry["serverIPAddress"] == V4
        timings = entry["timings"]
        is_first = entry is text
        assert (timings["connect"] > 0, timings["ssl"] > 0) == (is_first, is_first)
        assert timings["connect"] >= timings["ssl"]
        spent = (timings[name] for name in ("connect", "send", "wait", "receive"))
        assert entry["time"] == pytest.approx(sum(each for each in spent if each >= 0), abs=0.01)
    assert len({entry["connection"] for entry in four}) == 1


@pytest.mark.usefixtures("web")
def test_without_payload_there_are_no_bodies_and_without_secrets_no_cookies(
    intercept, curl, browser, tmp_path
):
    path = tmp_path / "exchanges.har"
    session = intercept("--har", str(path))
    url = f"https://www.example:{TLS_PORT}/form"
    curl(session, "-o", "/dev/null", "-d", "a=b", "-b", "c=d", url)
    assert session.stop() == 0
    (entry,) = entries(path, browser)
    assert "postData" not in entry["request"]
    assert "text" not in entry["response"]["content"]
    assert entry["response"]["content"]["size"] == len("taken")
    assert entry["request"]["cookies"] == entry["response"]["cookies"] == []
    headers = [*entry["request"]["headers"], *entry["response"]["headers"]]
    secrets = [each["value"] for each in headers if "cookie" in each["name"].lower()]
    assert secrets == ["<redacted, 3 bytes>", "<redacted, 58 bytes>"]


@pytest.mark.usefixtures("others")
def test_messages_of_websocket_and_grpc(intercept, client, browser, tmp_path):
    path = tmp_path / "exchanges.har"
    session = intercept("--har", str(path), "--payload", "--payload-limit", "1MiB")
    for kind, port in (("grpc-client", GRPC_PORT), ("websocket-client", WEBSOCKET_PORT)):
        outcome = client.run(sys.executable, str(PROGRAM), kind, V4, str(port))
        assert outcome.code == 0, outcome.err
    assert session.stop() == 0
    call, *sockets = entries(path, browser)
    for sender, expected in (
        ("send", payload_servers.ROUND),
        ("receive", [message[::-1] for message in payload_servers.ROUND]),
    ):
        said = [each for each in call["_grpcMessages"] if each["type"] == sender]
        assert [b64decode(each["data"]) for each in said] == expected
    assert {"name": "grpc-status", "value": "0"} in call["response"]["_trailers"]
    assert len(sockets) == 2
    for socket in sockets:
        assert socket["_resourceType"] == "websocket"
        assert socket["response"]["status"] == 101
        messages = [each for each in socket["_webSocketMessages"] if each["opcode"] in (1, 2)]
        for sender in ("send", "receive"):
            said = [
                each["data"] if each["opcode"] == 1 else b64decode(each["data"])
                for each in messages
                if each["type"] == sender
            ]
            assert said == [*payload_servers.SAID, "in three fragments"]
        times = [each["time"] for each in messages]
        assert times == sorted(times)


@pytest.mark.usefixtures("web")
def test_meanwhile_the_archive_has_what_has_ended(intercept, client, curl, tmp_path):
    """What a kill would leave."""
    path, left = tmp_path / "exchanges.har", tmp_path / "left.har"
    session = intercept("--har", str(path), "--payload")
    url = f"http://{V4}:{PORT}/noise.bin"

    def has_entry() -> bool:
        left.write_bytes(path.read_bytes())
        return b"noise.bin" in left.read_bytes() and left.read_bytes().endswith(b"}\n")

    with client.connect(V4, PORT) as unfinished:
        unfinished.sendall(b"GET /text.txt HTTP/1.1\r\nHost: a.example\r\n")
        curl(session, "-o", "/dev/null", url)
        session.wait_for(has_entry, "the entry")
    assert session.stop() == 0
    (entry,) = entries(left, None)
    assert entry["request"]["url"] == url
    assert content(entry) == NOISE
