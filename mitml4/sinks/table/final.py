"""The table of a session's flows, once, on standard error: what `run --table` shows a person whose
terminal the command has had until then."""

from __future__ import annotations

import sys
from typing import Final, Literal

import trio
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mitml4.events import Event
from mitml4.sinks.files import write_failure
from mitml4.sinks.table.model import MAX_ROWS, Row, State, TableModel
from mitml4.sinks.table.view import short_size

__all__ = ["FinalTable"]

_STYLES: Final[dict[State, str]] = {
    "open": "green",
    "closed": "",
    "failed": "red",
    "blocked": "magenta",
}


class FinalTable:
    """A sink that says nothing until it is closed."""

    def __init__(self, color: Literal["auto", "always", "never"] = "auto") -> None:
        self.dropped = 0
        self.model = TableModel()
        self._over = trio.Event()
        self._console = Console(
            file=sys.stderr,
            highlight=False,
            no_color=True if color == "never" else None,
            force_terminal=True if color == "always" else None,
        )

    def publish(self, event: Event) -> None:
        self.model.add(event)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        await self._over.wait()
        try:
            await trio.to_thread.run_sync(self._print, abandon_on_cancel=True)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise write_failure("standard error", error) from error

    async def aclose(self) -> None:
        """Print it."""
        self._over.set()

    def _print(self) -> None:
        if not (rows := self.model.rows(MAX_ROWS)):
            self._console.print("no connections")
            return
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("#", justify="right")
        table.add_column("server", overflow="fold")
        table.add_column("stack", overflow="fold")
        for title in ("↑", "↓"):
            table.add_column(title, justify="right", no_wrap=True)
        table.add_column("last", overflow="ellipsis", no_wrap=True)
        for row in rows:
            table.add_row(*_cells(row), style=_STYLES[row.state])
        self._console.print(table)
        if missing := self.model.flows - len(rows):
            self._console.print(f"… and {missing} before these")


def _cells(row: Row) -> tuple[str | Text, ...]:
    host = f"[{row.server}]" if ":" in row.server else row.server
    return (
        str(row.flow),
        Text(f"{host}:{row.port}"),
        Text(" › ".join(row.stack) or "–"),
        short_size(row.up),
        short_size(row.down),
        Text(row.info),
    )
