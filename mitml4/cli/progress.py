"""Progress bars on standard error, where that is a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, Final

from mitml4.printable import printable
from mitml4.screen.terminal import Color, is_terminal, wants_color, width_of

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["progress_of", "progress_of_all", "progress_within"]

_NARROW: Final = 72
"""Columns; below them the progress bar has no room for sizes and times."""


@contextmanager
def progress_of(stream: BinaryIO, name: str, color: Color) -> Iterator[BinaryIO]:
    """The same stream, with a bar that shows how much of it has been read."""
    if not (_has_terminal() and stream.seekable()):
        yield stream
        return
    size = os.fstat(stream.fileno()).st_size
    with _bar(color) as progress:
        yield progress.wrap_file(stream, size, description=_label(name))


@contextmanager
def progress_of_all(files: Sequence[str], color: Color) -> Iterator[Callable[[str], None]]:
    """A bar for all files; call what it yields with each that is done."""
    if not _has_terminal():
        yield lambda _: None
        return
    total = sum(map(_size, files))
    # It is refreshed here: a thread would be there when processes are forked.
    with _bar(color, auto_refresh=False) as progress:
        task = progress.add_task(_label(f"{len(files)} captures"), total=total)
        progress.refresh()
        yield lambda name: progress.update(task, advance=_size(name), refresh=True)


@contextmanager
def progress_within(file: str, color: Color) -> Iterator[Callable[[int], None]]:
    """A bar for a file that other processes read; call what it yields with the bytes read."""
    if not _has_terminal():
        yield lambda _: None
        return
    with _bar(color, auto_refresh=False) as progress:
        task = progress.add_task(_label(file), total=_size(file))
        progress.refresh()
        yield lambda read: progress.update(task, completed=read, refresh=True)


def _has_terminal() -> bool:
    return bool(sys.stderr) and is_terminal(sys.stderr)


def _size(name: str) -> int:
    try:
        return os.path.getsize(name)
    except OSError:
        return 0


def _label(name: str) -> str:
    from rich.cells import cell_len

    from mitml4.screen.columns import fit_middle

    shown = printable(name)
    return fit_middle(shown, min(cell_len(shown), width_of(sys.stderr) // 3))


def _bar(color: Color, *, auto_refresh: bool = True) -> Progress:
    from rich.console import Console as RichConsole
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        ProgressColumn,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.table import Column

    def one_line() -> Column:
        return Column(no_wrap=True)

    # A file name may look like markup.
    label = TextColumn("{task.description}", markup=False, table_column=one_line())
    columns: list[ProgressColumn] = [label, BarColumn(None, table_column=Column(ratio=1))]
    if width_of(sys.stderr) < _NARROW:
        columns += [TaskProgressColumn(table_column=one_line())]
    else:
        columns += [DownloadColumn(table_column=one_line())]
        columns += [TimeRemainingColumn(table_column=one_line())]
    shown_on = RichConsole(stderr=True, no_color=not wants_color(color, sys.stderr))
    return Progress(
        *columns, console=shown_on, transient=True, expand=True, auto_refresh=auto_refresh
    )
