"""The page on adding a protocol builds a file of the tree, and its rows of the tests."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROTOCOLS = ROOT / "mitml4" / "protocols"
PAGE = (ROOT / "docs" / "adding-a-protocol.md").read_text()
SHOWN = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
FILE = [code for code in SHOWN if not code.startswith(" ")]
ROWS = [code for code in SHOWN if code.startswith(" ")]
ELSEWHERE = {
    "flow.data",
    "flow.layer",
    "git.PROTOCOL",
    "opening.port",
    "opening.stack",
    "websocket.message",
}


def test_the_page_shows_the_file_whole() -> None:
    assert "\n\n".join(FILE) == (PROTOCOLS / "git.py").read_text()


def test_the_page_shows_pieces_of_other_files() -> None:
    pieces = re.findall(r"n `([a-z0-9_/]+\.py)`:\n\n```py\n(.*?)```", PAGE, re.DOTALL)
    assert len(pieces) == PAGE.count("```py\n") == 4
    for path, code in pieces:
        assert code in (PROTOCOLS / path).read_text()


def test_the_page_shows_the_rows_of_the_tests() -> None:
    tests = ["protocols/test_registry.py", "fuzz/test_protocols_fuzz.py"]
    for code, test in zip(ROWS, tests, strict=True):
        assert code in (ROOT / "tests" / test).read_text()


def test_the_files_that_the_page_names_exist() -> None:
    for path in sorted(set(re.findall(r"`([a-z0-9_/]+\.py)`", PAGE))):
        assert (ROOT / path).exists() or (PROTOCOLS / path).exists()


def test_the_parts_that_the_page_names_exist() -> None:
    for name in sorted(set(re.findall(r"`([a-z]+\.(?!py)\w+)`", PAGE)) - ELSEWHERE):
        file, _, part = name.partition(".")
        text = (PROTOCOLS / "parts" / f"{file}.py").read_text()
        assert re.search(rf"^(class|def) {part}\b", text, re.MULTILINE)
