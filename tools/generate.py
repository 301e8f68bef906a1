"""Generate the completions, the man pages, the command-line reference and the JSON Schema.

    python tools/generate.py           write them
    python tools/generate.py --check   exit 1 if one of them is not up to date

The only sources are the click commands and the classes of events. The result does not depend on the
width of the terminal, the user's language, or the date.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

from click.shell_completion import ShellComplete, get_completion_class
from generating.man import man_page
from generating.markdown import events_page, reference
from generating.pages import pages

from mitml4.cli.main import COMPLETE_VARIABLE, PROGRAM, cli
from mitml4.schema import json_schema

ROOT: Final = Path(__file__).parent.parent
COMPLETIONS: Final = {"bash": "mitml4.bash", "zsh": "_mitml4", "fish": "mitml4.fish"}


def completion(shell: str) -> str:
    """click's script, which is the same in all its versions that we support."""
    kind = get_completion_class(shell)
    assert kind is not None
    # Not kind.source: the one for bash runs the bash that is installed on this machine.
    script = ShellComplete.source(kind(cli, {}, PROGRAM, COMPLETE_VARIABLE))
    return "\n".join(line.rstrip() for line in script.strip().splitlines()) + "\n"


def generated() -> dict[str, str]:
    """Every file, by its path below the project's root."""
    files = {f"completions/{name}": completion(shell) for shell, name in COMPLETIONS.items()}
    files |= {f"man/{page.file}.1": man_page(page) for page in pages()}
    files["docs/cli.md"] = reference()
    files["docs/events.md"] = events_page()
    files["docs/events.schema.json"] = (
        json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    )
    return files


def stale(root: Path) -> list[str]:
    """Files that are missing, outdated, or superfluous."""
    files = generated()
    made = {path.relative_to(root).as_posix() for path in root.glob("man/*")}
    made |= {path.relative_to(root).as_posix() for path in root.glob("completions/*")}
    wrong = {name for name, text in files.items() if _read(root / name) != text}
    return sorted(wrong | (made - files.keys()))


def write(root: Path) -> None:
    for name in stale(root):
        if text := generated().get(name):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text, encoding="utf-8")
        else:
            (root / name).unlink()


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


def main() -> None:
    if sys.argv[1:] == ["--check"]:
        if names := stale(ROOT):
            print(f"error: not up to date: {', '.join(names)}", file=sys.stderr)
            sys.exit("hint: python tools/generate.py")
    elif sys.argv[1:]:
        sys.exit("usage: generate.py [--check]")
    else:
        write(ROOT)


if __name__ == "__main__":
    main()
