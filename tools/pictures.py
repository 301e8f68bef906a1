"""Make the pictures of the live table for the README: docs/pictures/*.svg.

    sudo make pictures

The real `mitml4 intercept` runs in the lab of `mitml4 demo`, in a terminal of tmux. The visits of
the demo are made, keys are pressed, and what the terminal shows becomes an SVG. Times and ports
differ each time, so nothing checks whether the pictures are up to date.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import trio
from rich.console import Console
from rich.text import Text

from mitml4.lab.certificates import LabAuthority
from mitml4.lab.clients import VISITS, Trust
from mitml4.lab.network import LAN, LabNetwork
from mitml4.lab.tour import make_servers

ROOT: Final = Path(__file__).parent.parent
PICTURES: Final = ROOT / "docs" / "pictures"
COLUMNS: Final = 120
FLOW_LINES: Final = 46
TIMEOUT_S: Final = 30.0
FONT: Final = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
"""rich's pictures load a font from the network."""


class Terminal:
    """A terminal of tmux with a command in it, in the lab's router."""

    def __init__(self, lab: LabNetwork, socket: Path, command: list[str], lines: int) -> None:
        self._tmux = ["tmux", "-S", str(socket), "-f", "/dev/null"]
        size = ["-x", str(COLUMNS), "-y", str(lines)]
        argv = [*self._tmux, "new-session", "-d", *size, "-e", "TERM=screen-256color", *command]
        lab.router.run(*argv)

    def press(self, *keys: str) -> None:
        subprocess.run([*self._tmux, "send-keys", *keys], check=True)

    def grow(self, lines: int) -> None:
        subprocess.run([*self._tmux, "resize-window", "-y", str(lines)], check=True)

    def shown(self) -> str:
        """What is shown, with the sequences of its colours."""
        argv = [*self._tmux, "capture-pane", "-e", "-N", "-p"]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout

    def wait_for(self, text: str) -> str:
        """What is shown as soon as that contains a text."""
        deadline = time.monotonic() + TIMEOUT_S
        while text not in Text.from_ansi(shown := self.shown()).plain:
            if time.monotonic() > deadline:
                sys.exit(f"waited in vain for {text!r}:\n{shown}")
            time.sleep(0.1)
        return shown

    def close(self) -> None:
        subprocess.run([*self._tmux, "kill-server"], check=False)


def draw(name: str, shown: str, title: str) -> None:
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(shown.rstrip("\n")), no_wrap=True, overflow="crop")
    svg = FONT.sub("", console.export_svg(title=title, unique_id=name))
    (PICTURES / f"{name}.svg").write_text(svg)


def pictures(lab: LabNetwork, trust: Trust, directory: Path) -> None:
    """Make the visits and the pictures."""
    command = [sys.executable, "-m", "mitml4", "intercept", "--iface", LAN, "--payload"]
    command += ["--ca-dir", str(directory / "ca"), "--upstream-ca", str(trust.lab)]
    terminal = Terminal(lab, directory / "tmux", command, len(VISITS) + 4)
    try:
        terminal.wait_for("waiting for connections")
        for visit in VISITS:
            lab.client.call(partial(visit.client, trust))
        terminal.wait_for(f"0 open of {len(VISITS)} flows")
        terminal.press("g", "j", "j", "j")
        shown = terminal.wait_for("›   4")
        draw("table", shown, "sudo mitml4 intercept --iface lan --payload")
        terminal.press("Enter")
        terminal.wait_for("#4")
        terminal.grow(FLOW_LINES)
        draw("flow", terminal.wait_for("hello from the lab"), "Enter: one flow")
    finally:
        terminal.close()


async def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    with LabNetwork() as lab, tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        authority = LabAuthority(directory)
        trust = Trust(mitml4=directory / "ca" / "mitml4-ca.pem", lab=authority.root)
        work: Callable[[], None] = partial(pictures, lab, trust, directory)
        async with trio.open_nursery() as nursery:
            await nursery.start(make_servers(lab, authority).run)
            await trio.to_thread.run_sync(work)
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
