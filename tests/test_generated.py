"""What is generated is up to date, the same everywhere, and works."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from mitml4.errors import ExitCode
from mitml4.events import EVENTS
from mitml4.protocols.registry import EVENT_TYPES, PROTOCOLS
from mitml4.screen.keys import KEYS

ROOT = Path(__file__).parents[1]
TOOL = ROOT / "tools" / "generate.py"


@pytest.fixture(scope="module")
def tool():
    """The module, which imports others beside it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TOOL.parent)
        yield importlib.import_module("generate")


@pytest.fixture(scope="module")
def roff(tool):
    return importlib.import_module("generating.man").roff


def check(**environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, TOOL, "--check"],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "environment",
    [{}, {"COLUMNS": "30", "LC_ALL": "C", "HOME": "/nowhere", "MITML4_COLOR": "always"}],
    ids=["here", "elsewhere"],
)
def test_what_is_checked_in_is_what_would_be_generated(environment: dict[str, str]) -> None:
    result = check(**environment)
    assert (result.returncode, result.stderr) == (0, "")


def test_a_file_that_is_stale_missing_or_left_over_is_named_and_put_right(
    tool, tmp_path, monkeypatch
) -> None:
    files = tool.generated()
    monkeypatch.setattr(tool, "generated", lambda: files)
    tool.write(tmp_path)
    assert tool.stale(tmp_path) == []
    (tmp_path / "docs/cli.md").write_text("old")
    (tmp_path / "man/mitml4.1").unlink()
    (tmp_path / "man/mitml4-gone.1").write_text("")
    assert tool.stale(tmp_path) == ["docs/cli.md", "man/mitml4-gone.1", "man/mitml4.1"]
    tool.write(tmp_path)
    assert tool.stale(tmp_path) == []


def test_every_exit_code_is_documented(tool) -> None:
    documented = {code for page in tool.pages() for code, _ in page.exit_status}
    assert documented >= {str(int(code)) for code in ExitCode}
    pages = {page.file: tool.man_page(page) for page in tool.pages()}
    for name in pages.keys() - {"mitml4-run"}:
        assert all(f".B {int(code)}\n" in pages[name] for code in ExitCode)
    for code in ("1 to 3", "126", "127", "128+n"):
        assert f".B {code}\n" in pages["mitml4-run"]


def test_a_variable_is_described_by_the_values_that_it_takes(tool) -> None:
    page = next(tool.man_page(page) for page in tool.pages() if page.file == "mitml4-run")
    for variable, text in (
        ("MITML4_RUN_TRUST", r"1 for \-\-trust, 0 for \-\-no\-trust."),
        ("MITML4_RUN_WAIT", r"1 for \-\-wait, 0 for \-\-no\-wait."),
        ("MITML4_RUN_LOOPBACK", r"1 for \-\-loopback."),
        ("MITML4_RUN_BLOCK", r"The value of \-\-block; several are separated by spaces."),
    ):
        assert f".B {variable}\n{text}\n" in page


def test_the_default_of_a_repeatable_option_is_shown_as_it_is_typed(tool) -> None:
    page = next(tool.man_page(page) for page in tool.pages() if page.file == "mitml4-proxy")
    assert "Default: :8080." in page


def test_the_keys_of_the_live_table_are_on_its_man_page_and_in_the_reference(tool, roff) -> None:
    page = next(tool.man_page(page) for page in tool.pages() if page.file == "mitml4-intercept")
    assert all(f".B {roff(keys)}\n" in page for keys, _ in KEYS)
    assert all(f"- `{keys}`: {what}\n" in tool.reference() for keys, what in KEYS)


def test_every_option_of_every_command_is_on_its_man_page_and_in_the_reference(tool) -> None:
    reference = tool.reference()
    for page in tool.pages():
        manual = tool.man_page(page).replace("\\-", "-")
        for options in page.sections.values():
            for option in options:
                assert f"`{option.usage}`" in reference
                assert all(f"\\fB{name}\\fR" in manual for name in option.names)


def test_every_page_has_examples(tool) -> None:
    for page in tool.pages():
        assert 1 < len(page.examples) <= 3, page.name


def test_the_references_have_every_event_and_every_field() -> None:
    schema = (ROOT / "docs/events.schema.json").read_text()
    page = (ROOT / "docs/events.md").read_text()
    types: list[Any] = [*EVENTS, *EVENT_TYPES]
    for event in types:
        assert f'"{event.type}"' in schema
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{event.type}` |")]
        assert all(f"`{item.name}`" in row for item in fields(event) if item.name != "time")
    for protocol in PROTOCOLS:
        assert (f"| `{protocol.name}` |" in page) is (protocol.converse is not None)


def test_roff_takes_nothing_for_a_request_of_its_own(roff) -> None:
    assert roff(".TH") == "\\&.TH"
    assert roff("'x") == "\\&'x"
    assert roff("a\\b --x › `y`") == "a\\eb \\-\\-x \\[u203A] \\fBy\\fR"


def test_a_man_page_is_good_roff() -> None:
    for page in sorted((ROOT / "man").iterdir()):
        result = subprocess.run(
            ["groff", "-man", "-Tutf8", "-ww", "-z", page],
            capture_output=True,
            text=True,
            check=True,
        )
        assert result.stderr == ""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["mitml4", "inter"], ["intercept"]),
        (["mitml4", "intercept", "--if"], ["--iface"]),
        (["mitml4", "intercept", "--iface", "l"], ["lo"]),
        (["mitml4", "intercept", "--quic", ""], ["block", "allow"]),
        (["mitml4", "run", "--", "gre"], ["grep"]),
    ],
)
def test_bash_completes(words: list[str], expected: list[str]) -> None:
    script = f"""
        source completions/mitml4.bash
        COMP_WORDS=({" ".join(word or "''" for word in words)})
        COMP_CWORD={len(words) - 1}
        _mitml4_completion mitml4
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    result = subprocess.run(
        ["bash", "-c", script],
        cwd=ROOT,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(expected) <= set(result.stdout.splitlines())


FISH: dict[str, str] = {
    "mitml4 det": "detect\tName the protocol stack of each flow of TCP and UDP in captures.",
    "mitml4 doc": "doctor\tSay whether this machine can intercept, and what to do where not.",
    "mitml4 ca st": "status\tShow which stores trust the authority, or a former one.",
    "mitml4 run -- gre": "grep",
    "mitml4 detect READM": "README.md",
    "mitml4 run -- cat READM": "README.md",
}


def test_fish_completes_commands_and_files_with_whole_descriptions() -> None:
    lines = "; ".join(f'complete -C "{line}"' for line in FISH)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    result = subprocess.run(
        ["fish", "--no-config", "-c", f"source completions/mitml4.fish; {lines}"],
        cwd=ROOT,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(FISH.values()) <= set(result.stdout.splitlines())
