"""`mitml4.read`, as programs use it."""

from __future__ import annotations

import gc
import gzip
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mitml4
from mitml4.address import Address
from mitml4.encoding import encode
from mitml4.errors import CaptureError
from mitml4.events import FlowClose, FlowOpen
from mitml4.model import lines as lines_module
from mitml4.payload.codings import zstd_module
from tests import programs

ROOT = Path(__file__).parents[1]
END = Address("192.0.2.1", 443)


def opened(number: int) -> str:
    return encode(FlowOpen(flow=number, client=END, destination=END))


def closed(number: int) -> str:
    return encode(
        FlowClose(flow=number, stack=(), reason="closed", bytes_up=0, bytes_down=0, duration_s=0.0)
    )


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def numbers(flows: Iterator[mitml4.Flow]) -> list[int]:
    return [flow.number for flow in flows]


def test_an_event_file_is_read_plain_and_compressed(tmp_path: Path) -> None:
    text = "".join(f"{line}\n" for line in (opened(1), "", opened(2), closed(2), "  ")).encode()
    for name, data in (
        ("plain", text),
        ("with no last end of line", text.rstrip()),
        ("gzip", gzip.compress(text)),
        ("zstd", zstd_module().compress(text)),
    ):
        path = tmp_path / name
        path.write_bytes(data)
        assert numbers(mitml4.read(path)) == [2, 1]
        assert numbers(mitml4.read(str(path))) == [2, 1]


def count_flows() -> int:
    return sum(isinstance(each, mitml4.Flow) for each in gc.get_objects())


def test_a_flow_is_yielded_when_it_closes_and_is_not_kept(tmp_path: Path) -> None:
    lines = [line for number in range(1, 3001) for line in (opened(number), closed(number))]
    before = count_flows()
    flows = mitml4.read(write(tmp_path / "events", *lines, "broken"))
    assert next(flows).number == 1
    for flow in flows:
        if flow.number == 2000:
            assert count_flows() - before < 3
            break


def test_a_broken_file_names_the_line_after_all_flows_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines_module, "MAX_LINE", 300_000)
    bad = json.loads(opened(3))
    del bad["client"]
    for line, what in (
        ('{"type":"flow.open","fl', "line 4 is no JSON"),
        ("[" * 100_000, "line 4 is no JSON"),
        ("7", "line 4 is no event"),
        ('{"type":7}', "line 4 is no event"),
        (json.dumps(bad), "line 4 is no event of mitml4: its flow.open has no 'client'"),
        (opened(3).replace(":443", ':"x"', 1), "line 4 is no event"),
        ("x" * 1_000_000, "a line of more than"),
    ):
        path = write(tmp_path / "events.jsonl", opened(1), opened(2), closed(2), line, closed(1))
        found = []
        with pytest.raises(mitml4.MitmError, match=re.escape(what)) as failure:
            found.extend(flow.number for flow in mitml4.read(path))
        assert found == [2, 1]
        assert "events.jsonl" in failure.value.message


def test_what_is_neither_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("hello")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(opened(1).encode() * 9)[:-20])
    for name in ("missing", "empty", "text", "cut.gz", ""):
        with pytest.raises(mitml4.MitmError) as failure:
            list(mitml4.read(tmp_path / name))
        assert str(tmp_path / name) in failure.value.message


def test_a_capture_gives_flows_with_headers(http_capture: Path) -> None:
    (flow,) = mitml4.read(http_capture)
    assert (flow.stack, flow.reason, str(flow.server)) == (("http/1",), "closed", "a.example:80")
    (exchange,) = flow.exchanges
    assert exchange.request.headers == (("Host", "a.example"),)
    assert exchange.response is not None
    assert (exchange.response.status, exchange.response.body_bytes) == (200, 2)


def test_a_captures_payload_is_kept_if_it_is_asked_for(
    http_capture: Path, write_capture: Any
) -> None:
    (flow,) = mitml4.read(http_capture, payload=True)
    (exchange,) = flow.exchanges
    assert exchange.response is not None
    assert exchange.response.body is not None
    assert exchange.response.body.content == b"ok"
    unknown = write_capture([("up", b"hello\n"), ("down", b"\xff\0")], name="unknown.pcap")
    (flow,) = mitml4.read(unknown, payload=True)
    assert [(each.direction, each.offset, each.content) for each in flow.data] == [
        ("up", 0, b"hello\n"), ("down", 0, b"\xff\0"),
    ]  # fmt: skip
    (flow,) = mitml4.read(unknown)
    assert flow.data == []


def test_a_capture_and_the_events_of_detect_give_the_same_flows(
    http_capture: Path, tmp_path: Path
) -> None:
    argv = ["-m", "mitml4", "detect", "--headers", str(http_capture)]
    path = tmp_path / "events.jsonl"
    with path.open("wb") as output:
        programs.run(argv, check=True, stdout=output)
    assert list(mitml4.read(path)) == list(mitml4.read(http_capture))


def test_a_capture_that_is_cut_off_gives_its_flows_first(http_capture: Path) -> None:
    http_capture.write_bytes(http_capture.read_bytes()[:-20])
    found = []
    with pytest.raises(mitml4.MitmError, match="offset"):
        found.extend(mitml4.read(http_capture))
    assert [flow.stack for flow in found] == [("http/1",)]


def test_importing_the_package_imports_nothing_else() -> None:
    code = (
        "import sys, mitml4; new = [name for name in sys.modules if name.startswith('mitml4')];"
        "assert new == ['mitml4'], new; assert 'read' in dir(mitml4); mitml4.read;"
        "assert 'trio' not in sys.modules and 'rich' not in sys.modules;"
        "from mitml4 import Flow, MitmError"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError):
        mitml4.reed  # noqa: B018


def examples() -> dict[str, str]:
    """The Python code of the page, by the heading above it."""
    page = (ROOT / "docs/library.md").read_text()
    parts = re.split(r"^#+ (.*)$", page, flags=re.MULTILINE)[1:]
    blocks = zip(parts[::2], parts[1::2], strict=True)
    found = {
        head: re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S) for head, text in blocks
    }
    return {head: code[0] for head, code in found.items() if code}


@pytest.mark.parametrize("heading", ["One file", "Many files", "Dask"])
def test_the_examples_of_the_page_run(heading: str, http_capture: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    (work / "captures").mkdir(parents=True)
    for name in ("one.pcap", "two.pcap"):
        (work / "captures" / name).write_bytes(http_capture.read_bytes())
    with (work / "events.jsonl").open("wb") as output:
        argv = ["-m", "mitml4", "detect", "--headers", "captures/one.pcap"]
        programs.run(argv, check=True, stdout=output, cwd=work)
    (work / "example.py").write_text(examples()[heading])
    outcome = subprocess.run(
        [sys.executable, "example.py"], cwd=work, capture_output=True, text=True, timeout=120
    )
    assert (outcome.returncode, outcome.stderr) == (0, "")
    assert "a.example" in outcome.stdout


def test_every_example_of_the_page_is_python() -> None:
    assert {"One file", "Many files", "Dask", "Ray"} <= examples().keys()
    for heading, code in examples().items():
        compile(code, heading, "exec")


def test_the_page_names_every_field(http_capture: Path) -> None:
    """Of all classes, so that the page does not fall behind."""
    from dataclasses import fields, is_dataclass

    from mitml4.model import flow as flow_module

    page = (ROOT / "docs/library.md").read_text()
    classes = {name: getattr(flow_module, name) for name in flow_module.__all__}
    for name, cls in classes.items():
        if not is_dataclass(cls):
            continue
        assert f"`{name}`" in page
        missing = [field.name for field in fields(cls) if f"`{field.name}`" not in page]
        assert not missing, cls


def test_a_file_that_cannot_be_read_is_told_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match=r"cannot read .*no file: No such file") as raised:
        next(mitml4.read(tmp_path / "no file"))
    assert raised.value.hint == f"ls -l '{tmp_path}/no file'"
