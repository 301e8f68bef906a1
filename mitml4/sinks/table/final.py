"""The table of a session's flows on standard error, printed once at the end (`run --table`)."""

from __future__ import annotations

import sys
from typing import Final, Literal

import trio
from rich.console import Console
from rich.text import Text

from mitml4.protocols.conversation import Target
from mitml4.screen.sheet import SheetRow, sheet
from mitml4.sinks.files import write_failure
from mitml4.sinks.table.model import MAX_ROWS, Row, State, TableModel
from mitml4.sinks.updates import Published

__all__ = ["FinalTable"]

_STYLES: Final[dict[State, str]] = {
    "open": "green",
    "closed": "",
    "failed": "red",
    "blocked": "magenta",
}


class FinalTable:
    """A sink that prints a table when it is closed."""

    name = "standard error"
    wants = TableModel.wants

    def __init__(self, color: Literal["auto", "always", "never"] = "auto") -> None:
        self.dropped = 0
        self._model = TableModel()
        self._over = trio.Event()
        self._console = Console(
            file=sys.stderr,
            highlight=False,
            no_color=True if color == "never" else None,
            force_terminal=True if color == "always" else None,
        )

    def publish(self, event: Published) -> None:
        self._model.add(event)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        await self._over.wait()
        try:
            await trio.to_thread.run_sync(self._print, abandon_on_cancel=True)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise write_failure(self.name, error) from error

    async def aclose(self) -> None:
        """Print it."""
        self._over.set()

    def _print(self) -> None:
        if not (rows := self._model.rows(MAX_ROWS)):
            self._console.print("no connections")
            return
        for line, style in sheet([_sheet_row(row) for row in rows], self._console.width):
            self._console.print(Text(line, style=style), soft_wrap=True)
        if missing := self._model.flows - len(rows):
            self._console.print(f"… and {missing} before these")


def _sheet_row(row: Row) -> SheetRow:
    return SheetRow(
        flow=row.flow,
        server=str(Target(row.server, row.port)),
        stack=row.stack,
        summary=row.text,
        up=row.up,
        down=row.down,
        style=_STYLES[row.state],
    )
