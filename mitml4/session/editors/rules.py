"""The files of rules of a session, which are read again when they change.

A session opens no path once it is confined. The folder of each file is open from the start, and the
file is opened below it by its name: editors replace a file by another one. A session that root has
started has given up root by then: what only root may read is opened by another process
(`file_opener.py`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import trio

from mitml4.dataclass import dataclass
from mitml4.edit.editor import Editor
from mitml4.edit.editors import Editors
from mitml4.edit.files import Folder, Stamp, read_whole, stamp_of
from mitml4.edit.parser import MAX_RULES_BYTES, RulesError, parse_rules
from mitml4.edit.rules import RuleEditor
from mitml4.errors import UsageError, cannot_read
from mitml4.printable import printable
from mitml4.session.editors.file_opener import FileOpener

__all__ = ["RuleFiles"]

_POLL_INTERVAL_S: Final = 0.5


@dataclass(slots=True)
class _RuleFile:
    """One file."""

    path: Path
    folder: Folder
    limit: int
    editor: RuleEditor
    stamp: Stamp | None
    """None: it cannot be read, which was said."""
    content: bytes = b""
    """What it had when it was read last."""
    open_as_root: Callable[[], int] | None = None
    """Opens it where this process may not. Raises OSError."""

    @classmethod
    def open(cls, path: Path, limit: int) -> _RuleFile:
        """Raises UsageError, RulesError."""
        try:
            folder = Folder.open(path.parent)
            file = cls(path, folder, limit, RuleEditor(limit=limit), folder.stamp(path.name))
            file.read()
        except OSError as error:
            raise cannot_read(UsageError, path, error) from None
        return file

    def read(self) -> None:
        """Raises OSError, RulesError, and changes nothing then."""
        content = read_whole(self._open(), MAX_RULES_BYTES)
        self.use(content)
        self.content = content

    def use(self, content: bytes) -> None:
        """Take the rules of this content. Raises RulesError, and changes nothing then."""
        rules = parse_rules(str(self.path), content, self.folder)
        self.editor = RuleEditor(rules=rules, folder=self.folder, limit=self.limit)

    def _open(self) -> int:
        try:
            return self.folder.open_file(self.path.name)
        except PermissionError:
            if self.open_as_root is None:
                raise
            return self.open_as_root()

    def _stamp(self) -> Stamp:
        """Raises OSError."""
        try:
            return self.folder.stamp(self.path.name)
        except PermissionError:  # the folder is root's alone
            if self.open_as_root is None:
                raise
            descriptor = self.open_as_root()
            try:
                return stamp_of(os.fstat(descriptor))
            finally:
                os.close(descriptor)

    def read_if_changed(self) -> str | None:
        """Read it again if it has changed. Returns what the user is told."""
        was_said = self.stamp is None
        try:
            stamp = self._stamp()
            if stamp == self.stamp:
                return None
            self.stamp = stamp
            self.read()
        except OSError as error:
            self.stamp = None
            said = (
                f"{self.path}: cannot be read again: {error.strerror}; the rules stay as they are"
            )
            return None if was_said else said
        except RulesError as error:
            return f"{error.message}; the rules stay as they were"
        count = len(self.editor.rules)
        return f"{self.path}: read again, {count} {'rule' if count == 1 else 'rules'}"


class RuleFiles:
    """All files of a session; at least one."""

    def __init__(self, files: Sequence[_RuleFile]) -> None:
        self._files = files
        self._opener: FileOpener | None = None
        self.on_change: Callable[[int, bytes], None] | None = None
        """Is told of what has been read again: which file, and its content."""
        if os.geteuid() == 0:
            opener = self._opener = FileOpener(
                [(file.folder.descriptor, file.path.name) for file in files]
            )
            for index, file in enumerate(files):
                file.open_as_root = partial(opener.open, index)

    @classmethod
    def open(cls, paths: Sequence[Path], limit: int) -> RuleFiles:
        """Raises UsageError, RulesError, MachineError."""
        return cls([_RuleFile.open(path, limit) for path in paths])

    @property
    def editor(self) -> Editor:
        """The rules as they are now."""
        if len(self._files) == 1:
            return self._files[0].editor
        return Editors([file.editor for file in self._files])

    @property
    def contents(self) -> tuple[bytes, ...]:
        """What the files had when they were read last."""
        return tuple(file.content for file in self._files)

    @property
    def folders(self) -> tuple[int, ...]:
        """The descriptors of their folders."""
        return tuple(file.folder.descriptor for file in self._files)

    def use(self, index: int, content: bytes) -> None:
        """Take what another process has read. Raises RulesError."""
        self._files[index].use(content)

    def close(self) -> None:
        """Files are not read again."""
        if self._opener:
            self._opener.close()

    async def watch(self, say: Callable[[str], None]) -> None:
        """Read files again when they change. Until cancelled."""
        while True:
            await trio.sleep(_POLL_INTERVAL_S)
            for index, file in enumerate(self._files):
                before = file.content
                if said := file.read_if_changed():
                    say(printable(said))
                if self.on_change and file.content is not before:
                    self.on_change(index, file.content)
