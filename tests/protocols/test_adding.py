"""The page on adding a protocol shows code that stands in the tree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "adding-a-protocol.md").read_text()
SHOWN = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
TREE = "\n".join(
    (ROOT / path).read_text()
    for path in ("mitml4/protocols/git.py", "tests/protocols/test_registry.py")
)


@pytest.mark.parametrize("code", SHOWN)
def test_the_page_shows_the_code_as_it_is(code: str) -> None:
    assert code in TREE


def test_the_page_shows_code() -> None:
    assert len(SHOWN) >= 5


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`([a-z0-9_/]+\.py)`", PAGE))))
def test_the_files_that_the_page_names_exist(path: str) -> None:
    assert (ROOT / path).exists() or (ROOT / "mitml4" / "protocols" / path).exists()
