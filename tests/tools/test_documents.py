"""The documents are whole: code blocks end, and links lead somewhere."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/*.md"))]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def outside_of_code(path: Path) -> Iterator[str]:
    """The lines that are not in a code block."""
    is_code = False
    for line in path.read_text().splitlines():
        if line.startswith("```"):
            is_code = not is_code
        elif not is_code:
            yield line
    assert not is_code, "a code block has no end"


def anchors(path: Path) -> set[str]:
    """Those of its headings, as GitHub makes them."""
    found: set[str] = set()
    for line in outside_of_code(path):
        if line.startswith("#"):
            text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", line.lstrip("#").strip())
            found.add(re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-"))
    return found


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_code_blocks_end_and_links_lead_somewhere(path: Path) -> None:
    for line in outside_of_code(path):
        for target in LINK.findall(re.sub(r"`[^`]*`", "", line)):
            if "://" in target or target.startswith("mailto:"):
                continue
            name, _, anchor = target.partition("#")
            to = (path.parent / name).resolve() if name else path
            assert to.exists(), f"{target}: there is no such file"
            if anchor:
                assert anchor in anchors(to), f"{target}: there is no such heading"


def test_the_commands_of_make_that_documents_name_exist() -> None:
    named = {
        command
        for path in DOCUMENTS
        for command in re.findall(r"(?m)(?:^(?:\$ )?|`)make ([a-z0-9-]+)", path.read_text())
    }
    exist = re.findall(r"(?m)^([a-z0-9-]+):", (ROOT / "Makefile").read_text())
    assert "test" in named
    assert named <= set(exist)
