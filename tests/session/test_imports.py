"""What Python imports for a text is there before a session gives up root."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import mitml4

CODEC = re.compile(r"""\b(?:en|de)code\(\s*"([^"]+)"|encoding="([^"]+)\"""")

PROGRAM = """
import sys
import mitml4.session.session
import mitml4.sinks.lines
from mitml4.printable import printable
from mitml4.session.imports import import_all
from rich.cells import cell_len

import_all()
before = {*sys.modules}
printable("\\x00\\x9b\\u202e\\u2028\\udc80\\ufe0f")
cell_len("\\u4f8b\\u0301\\U0001f600")
for codec in sys.argv[1:]:
    "a.example".encode(codec).decode(codec)
print(*{*sys.modules} - before)
"""


def test_no_text_needs_a_module_later() -> None:
    sources = (path.read_text() for path in Path(mitml4.__file__).parent.rglob("*.py"))
    found = {name for text in sources for pair in CODEC.findall(text) for name in pair if name}
    assert {"ascii", "unicode_escape", "utf-16-le"} <= found
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, *sorted(found)], capture_output=True, text=True, check=True
    )
    assert ended.stdout.split() == []


DECODERS = """
import sys
from mitml4.engine.recorder import Recorder
from mitml4.payload.body import Body
from mitml4.payload.budget import SessionPayload
from mitml4.payload.text import _CODECS, shown
from mitml4.session.imports import import_decoders

import_decoders()
before = {*sys.modules}
for text in ("Привет мир, это текст. ", "これは日本語の文章です。", "Où est l'été? élève naïve. "):
    for codec in ("cp1251", "koi8_r", "cp932", "euc_jp", "gb18030", "cp1252"):
        shown((text * 20).encode(codec, "ignore"), b"text/plain")
shown(bytes(range(128, 256)) * 20, b"text/plain")
Recorder(SessionPayload().of_flow(), "smtp", redacts=True)
for codec in _CODECS:
    shown(b"a", b"text/plain; charset=" + codec.encode())
for coding in ("gzip", "deflate", "br", "zstd"):
    body = Body(SessionPayload().of_flow(), (coding,))
    body.write(b"not this")
    body.end(is_complete=True)
print(*{*sys.modules} - before)
"""


def test_no_payload_needs_a_module_later() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", DECODERS], capture_output=True, text=True, check=True
    )
    assert ended.stdout.split() == []


CERTIFICATES = """
import sys
import mitml4.session.session
from mitml4.session.imports import import_all
from mitml4.tls.bridge.certificates import compress, decompress

import_all()
before = {*sys.modules}
for algorithm in (1, 2, 3):
    decompress(compress(b"certificate", algorithm))
print(*{*sys.modules} - before)
"""


def test_no_certificate_needs_a_module_later() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", CERTIFICATES], capture_output=True, text=True, check=True
    )
    assert ended.stdout.split() == []


FILTERS = """
import sys
import mitml4.session.session
from mitml4.address import Address
from mitml4.events import FlowClose, FlowOpen, LayerEvent
from mitml4.filter.parser import parse_filter
from mitml4.protocols.http.events import HttpRequest
from mitml4.session.reporting.hub import Hub
from mitml4.session.imports import import_all

hub = Hub(condition=parse_filter("host:a or host:10.0.0.0/8 port:1 path:/x size>1 ssh"))
import_all()
before = {*sys.modules}
end = Address("192.0.2.1", 1)
content = HttpRequest(stream=1, method="GET", url="http://b:1/\\u4f8b", version="1.1")
for event in (
    FlowOpen(flow=1, client=end, destination=end),
    LayerEvent(flow=1, depth=0, content=content),
    FlowClose(flow=1, stack=(), reason="closed", bytes_up=0, bytes_down=0, duration_s=0.0),
):
    hub.publish(event)
parse_filter("host:stra\\u00dfe.example status:5xx")  # typed into the table
print(*{*sys.modules} - before)
"""


def test_no_filter_needs_a_module_later() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", FILTERS], capture_output=True, text=True, check=True
    )
    assert ended.stdout.split() == []


ARCHIVE = """
import sys
from pathlib import Path
import mitml4.session.session
from mitml4.address import Address
from mitml4.events import FlowClose, FlowLayer, FlowOpen, LayerEvent
from mitml4.payload.text import PayloadText, base64_of
from mitml4.protocols.http.events import HttpBody, HttpEnd, HttpRequest, HttpResponse
from mitml4.session.imports import import_all, import_decoders
from mitml4.sinks.har import HttpArchive

import_all()
import_decoders()
before = {*sys.modules}
archive = HttpArchive.to_file(Path(sys.argv[1]))
place = Address("192.0.2.1", 80)
layer = {"protocol": "http/1", "speaker": "client", "action": "relayed"}
body = {"stream": 1, "size": 1, "decoded_size": 1, "encoding": (), "coding_error": None,
        "charset": None, "truncated": False}
form = b'--b\\r\\nContent-Disposition: form-data; name="\\xe4"\\r\\n\\r\\n\\xff\\r\\n--b--'
cookies = ("a=b; Expires=Wed, 21 Oct 2026 07:28:00 GMT", "a=b; Max-Age=5", "a=b; Expires=x")
for event in (
    FlowOpen(flow=1, client=place, destination=place),
    FlowLayer(flow=1, depth=0, **layer),
    *(LayerEvent(flow=1, depth=0, content=content) for content in (
        HttpRequest(stream=1, method="POST", url="http://b\\xfccher.example\\u2100/?a=%ff",
                    version="HTTP/1.1", content_type="multipart/form-data; boundary=b",
                    headers=(("Cookie", "\\udcff=1"),)),
        HttpBody(side="request", text=None, base64=base64_of(form), **body),
        HttpResponse(stream=1, status=200, version="HTTP/1.1",
                     headers=tuple(("Set-Cookie", each) for each in cookies)),
        HttpBody(side="response", text=PayloadText("\\ud800\\u2028"), base64=None, **body),
        HttpEnd(stream=1, request_bytes=1, response_bytes=1, duration_s=1.0, request_s=0.5),
    )),
):
    if items := list(archive.take(event)):
        archive.write(items)
archive.finish()
print(*{*sys.modules} - before)
"""


def test_no_archive_needs_a_module_later(tmp_path: Path) -> None:
    path = tmp_path / "har"
    ended = subprocess.run(
        [sys.executable, "-c", ARCHIVE, path], capture_output=True, text=True, check=True
    )
    assert ended.stdout.split() == []
    (entry,) = json.loads(path.read_bytes())["log"]["entries"]
    assert entry["request"]["postData"]["params"] == [{"name": "\\xe4", "value": "\\xff"}]


FEW_NEED: Final = ("mitml4.edit.rules", "mitml4.hooks", "mitml4.session.attach", "regex", "tomllib")


def test_a_session_imports_nothing_for_options_that_it_does_not_have() -> None:
    program = "import sys, mitml4.session.host_session; print(*sys.modules)"
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    imported = ended.stdout.split()
    assert "mitml4.session.session" in imported
    assert [name for name in imported if name.startswith(FEW_NEED)] == []
