"""The report in HTML: what it contains, and that nothing of the network becomes markup."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from mitml4.address import Address
from mitml4.model.flow import (
    Body,
    Data,
    Exchange,
    Flow,
    Layer,
    Message,
    Problem,
    Request,
    Response,
)
from mitml4.view import report as report_module
from mitml4.view.markup import block, tag
from mitml4.view.report import Report
from tests import programs

TIME = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CERTIFICATE = {
    "subject": "CN=www.example",
    "issuer": "CN=Lab",
    "san": ["www.example"],
    "not_before": "2026-01-01T00:00:00Z",
    "not_after": "2027-01-01T00:00:00Z",
    "key": "EC P-256",
    "sha256": "ab" * 32,
    "verify": "expired",
}


def flow(number: int = 1, text: str = "www.example", **given: Any) -> Flow:
    """A flow in which every text of the network is `text`."""
    certificate = CERTIFICATE | {"subject": text, "issuer": text, "san": [text], "verify": text}
    details = {"sni": text, "passthrough": text, "certificate": certificate, text: text}
    layer: dict[str, Any] = {"depth": 0, "speaker": text, "time": TIME}
    return Flow(
        number=number,
        client=Address(text, 50000),
        destination=Address(text, 443),
        opened_at=TIME + timedelta(seconds=number),
        name=text,
        layers=[
            Layer(protocol=text, action="passthrough", details=details, **layer),
            Layer(protocol="http/1", action=text, details={}, **layer | {"depth": 1}),
        ],
        exchanges=[
            Exchange(
                depth=1,
                stream=1,
                request=Request(
                    method=text, url=text, version=text, time=TIME, headers=((text, text),),
                    body=Body(size=3, text=text, encoding=(text,)), body_bytes=3,
                ),
                response=Response(
                    status=200, version=text, content_type=text, headers=((text, text),), time=TIME,
                    body=Body(size=3, text=json.dumps({"a": text})),
                ),
                outcome=text,
                duration_s=0.5,
            )
        ],
        messages=[
            Message(
                protocol=text, depth=1, stream=None, direction="up", opcode=text, size=3, time=TIME,
                text=text,
            )
        ],
        data=[Data(depth=1, direction="up", offset=0, time=TIME, text=text)],
        problems=[Problem(depth=0, side=text, stage=text, kind=text, reason=text, time=TIME)],
        duration_s=1.0,
        bytes_up=1000,
        bytes_down=2000,
        **{"reason": text, **given},
    )  # fmt: skip


def page(*flows: Flow, name: str = "events.jsonl", note: str | None = None) -> str:
    report = Report(name, note)
    for each in flows:
        report.add(each)
    return "".join(report.page())


class Elements(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def shape(self) -> list[tuple[str, list[str]]]:
        return [(name, list(attributes)) for name, attributes in self.found]


HOSTILE = (
    "<script>document.title='owned'</script>",
    '"><img src=x onerror=alert(1)>',
    "'><svg/onload=alert(1)>",
    "</pre></style></title><script src=//evil.example></script>",
    "&lt;b&gt;&amp;&#60;",
    "<!-- ",
    "]]><a href='javascript:alert(1)'>x",
    "x\u202e\u2066\x1b[31m\n\r\0y",
    "\ud800",
)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_no_text_of_the_network_becomes_markup(text: str) -> None:
    """The page has the same elements and attributes as with harmless texts."""
    harmless = Elements(page(flow(text="harmless"), name="harmless", note="harmless"))
    shown = page(flow(text=text), name=text, note=text)
    hostile = Elements(shown)
    assert hostile.shape == harmless.shape
    assert not re.search("[\\x00-\\x09\\x0b-\\x1f\u202a-\u202e\u2066-\u2069\ud800]", shown)
    for name, attributes in hostile.found:
        assert name not in ("script", "img", "svg", "a", "iframe", "link", "form", "object")
        assert not any(key.startswith("on") or key in ("href", "src") for key in attributes)
        if style := attributes.get("style"):
            assert re.fullmatch(r"--from:[0-9.]+;--for:[0-9.]+", style)
        assert attributes.get("class") is None or text not in str(attributes["class"])


def test_an_element_escapes_what_it_is_given() -> None:
    inner = tag("b", "<")
    assert inner == "<b>&lt;</b>"
    assert tag("p", inner, "&", None, 3, [inner, "'"], class_='"', id=None) == (
        '<p class="&quot;"><b>&lt;</b>&amp;3<b>&lt;</b>&#x27;</p>'
    )
    assert tag("p", f"{inner}") == "<p>&lt;b&gt;&amp;lt;&lt;/b&gt;</p>"  # no longer an element
    assert block("<a>\n\tb\x1b") == "<pre>&lt;a&gt;\n    b\\x1b</pre>"


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    shown = Elements(page(flow()))
    policy = next(
        attributes["content"]
        for name, attributes in shown.found
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "script" not in policy
    assert "url(" not in page(flow())


def test_it_shows_what_was_seen() -> None:
    good = flow(2, reason="closed")
    good.problems = []
    good.layers[0].action = "intercepted"
    words = "\n".join(Elements(page(flow(text="why.example"), good, name="a.pcap")).words)
    for each in (
        "a.pcap", "Flows", "Passed through, not decrypted", "why.example:443", "Problems", "Hosts",
        "Stacks", "Responses", "Certificates of servers", "ab" * 32, "2026-01-01 to 2027-01-01",
        "EC P-256", "200 www.example www.example", "2.0 kB", "500.0 ms", '"a": "www.example"',
        "2026-01-02 03:04:06.000",
    ):  # fmt: skip
        assert each in words, each


def test_bars_are_where_the_flows_were_in_time() -> None:
    first, second = flow(0, reason="closed"), flow(9, reason="closed")
    first.closed_at = first.opened_at + timedelta(seconds=1)
    second.closed_at = second.opened_at + timedelta(seconds=1)
    first.exchanges, second.exchanges = [], []
    styles = [attributes.get("style") for _, attributes in Elements(page(second, first)).found]
    assert [each for each in styles if each] == [
        "--from:0.000;--for:10.000",
        "--from:90.000;--for:10.000",
    ]


def test_a_page_of_nothing_says_so() -> None:
    words = Elements(page(note="cut off")).words
    assert "cut off" in words
    assert "Flows" not in words


def test_rows_are_bounded_and_say_what_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_module, "MAX_FLOWS", 3)
    flows = [flow(number, f"{number}.example") for number in range(300)]
    flows[0].exchanges *= 500
    shown = page(*flows)
    assert shown.count("<details") == 3
    for each in ("297 more flows", "300 more exchanges", "100 more hosts", "100 more rows"):
        assert f"{each} are left out" in shown
    assert "<b>300</b>flows" in shown


def test_the_size_of_a_page_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_module, "MAX_SIZE", 100_000)
    flows = [flow(number) for number in range(10)]
    for each in flows:
        each.exchanges[0].request.body = Body(size=1, text="x" * 1_000_000)
        each.exchanges *= 3
    shown = page(*flows)
    assert shown.count("<details") == 10
    assert len(shown) < 200_000
    assert shown.count("Left out: the page would be too large.") == 7


def view(*arguments: str | Path, given: bytes = b"") -> subprocess.CompletedProcess[str]:
    argv = ["-m", "mitml4", "view", *map(str, arguments)]
    ended = programs.run(argv, input=given)
    out, err = ended.stdout.decode(), ended.stderr.decode()
    return subprocess.CompletedProcess(argv, ended.returncode, out, err)


def test_view_lists_flows_or_writes_a_report(http_capture: Path, tmp_path: Path) -> None:
    listed = view(http_capture)
    assert (listed.returncode, listed.stderr) == (0, "")
    lines = listed.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["#", "1"]
    for each in ("a.example:80", "http/1", "200 GET"):
        assert each in lines[1]
    target = tmp_path / "report.html"
    written = view(http_capture, "--html", target)
    assert (written.returncode, written.stdout) == (0, "")
    assert target.stat().st_mode & 0o777 == 0o600
    assert "http://a.example/x" in target.read_text()
    none = view(http_capture, "--filter", "status:404", "--html", target)
    assert none.returncode == 0
    assert "http://a.example/x" not in target.read_text()


def test_view_of_a_broken_file_shows_what_could_be_read(http_capture: Path, tmp_path: Path) -> None:
    http_capture.write_bytes(http_capture.read_bytes()[:-20])
    target = tmp_path / "report.html"
    outcome = view(http_capture, "--html", target)
    assert outcome.returncode == 1
    assert "offset" in outcome.stderr
    assert "could not be read to its end" in target.read_text()
    listed = view(http_capture)
    assert (listed.returncode, listed.stdout.count("a.example:80")) == (1, 1)
    for wrong in (tmp_path / "missing", target):
        outcome = view(wrong, "--html", tmp_path / "other.html")
        assert outcome.returncode == 1
        assert outcome.stderr.startswith("error: ")
        assert not (tmp_path / "other.html").exists()


def test_a_file_without_flows_is_a_table_and_one_that_cannot_be_read_is_not(
    tmp_path: Path,
) -> None:
    empty, wrong = tmp_path / "empty.jsonl", tmp_path / "wrong"
    empty.write_text('{"type":"session.start"}\n')
    wrong.write_text("nothing")
    listed = view(empty)
    assert (listed.returncode, listed.stderr) == (0, "")
    assert listed.stdout.startswith("#")
    for path in (wrong, tmp_path / "missing"):
        listed = view(path)
        assert (listed.returncode, listed.stdout) == (1, "")
        assert listed.stderr.startswith("error: ")


def test_view_reads_standard_input(http_capture: Path, tmp_path: Path) -> None:
    listed = view("-", given=http_capture.read_bytes())
    assert (listed.returncode, listed.stderr) == (0, "")
    assert listed.stdout == view(http_capture).stdout
    report = tmp_path / "report.html"
    assert view("-", "--html", report, given=http_capture.read_bytes()).returncode == 0
    assert "http://a.example/x" in report.read_text()
    assert view("-").returncode == 1


def test_secrets_of_a_capture_are_shown_on_demand(
    write_capture: Callable[..., Path], tmp_path: Path
) -> None:
    request = b"GET / HTTP/1.1\r\nHost: a.example\r\nCookie: secret=1\r\n\r\n"
    capture = write_capture([("up", request), ("down", b"HTTP/1.1 204 Fine\r\n\r\n")])
    report = tmp_path / "report.html"
    for options, is_shown in (((), False), (("--show-secrets",), True)):
        assert view(capture, *options, "--html", report).returncode == 0
        assert ("secret=1" in report.read_text()) == is_shown
        assert ("redacted, 8 bytes" in report.read_text()) != is_shown


def test_a_line_of_a_hostile_flow_stays_one_line() -> None:
    from mitml4.view.listing import listing

    lines = list(listing([flow(text=text) for text in HOSTILE], 200))
    assert len(lines) == len(HOSTILE) + 1
    assert all(line.isprintable() for line in lines)
