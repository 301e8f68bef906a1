"""The files of rules of a session, which are read again when they change.

A session opens no path once it is confined. The folder of each file is open from the start, and the
file is opened below it by its name: editors replace a file by another one. The process has given up
root by then, so others than root have to be able to read it; where they are not, that is said.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import trio

from mitml4.dataclass import dataclass
from mitml4.edit.editor import Editor
from mitml4.edit.editors import Editors
from mitml4.edit.files import Folder, Stamp
from mitml4.edit.parser import MAX_RULES_BYTES, RulesError, parse_rules
from mitml4.edit.rules import RuleEditor
from mitml4.errors import UsageError
from mitml4.printable import printable

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

    @classmethod
    def open(cls, path: Path, limit: int) -> _RuleFile:
        """Raises UsageError, RulesError."""
        try:
            folder = Folder.open(path.parent)
            file = cls(path, folder, limit, RuleEditor(limit=limit), folder.stamp(path.name))
            file.read()
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror}", hint="ls -l") from None
        return file

    def read(self) -> None:
        """Raises OSError, RulesError, and changes nothing then."""
        content = self.folder.read_rules(self.path.name, MAX_RULES_BYTES)
        rules = parse_rules(str(self.path), content, self.folder)
        self.editor = RuleEditor(rules=rules, folder=self.folder, limit=self.limit)

    def read_if_changed(self) -> str | None:
        """Read it again if it has changed. Returns what the user is told."""
        try:
            stamp = self.folder.stamp(self.path.name)
            if stamp == self.stamp:
                return None
            self.stamp = stamp
            self.read()
        except OSError as error:
            was_said, self.stamp = self.stamp is None, None
            said = (
                f"{self.path}: cannot be read again: {error.strerror}; the rules stay as they are"
            )
            return None if was_said else said
        except RulesError as error:
            return f"{error.message}; the rules stay as they were"
        count = len(self.editor.rules)
        return f"{self.path}: read again, {count} {'rule' if count == 1 else 'rules'}"


class RuleFiles:
    """All files of a session."""

    def __init__(self, files: Sequence[_RuleFile]) -> None:
        self._files = files

    @classmethod
    def open(cls, paths: Sequence[Path], limit: int) -> RuleFiles:
        """Raises UsageError, RulesError."""
        return cls([_RuleFile.open(path, limit) for path in paths])

    @property
    def editor(self) -> Editor:
        """The rules as they are now."""
        if len(self._files) == 1:
            return self._files[0].editor
        return Editors([file.editor for file in self._files])

    async def watch(self, say: Callable[[str], None]) -> None:
        """Read files again when they change. Until cancelled."""
        while self._files:
            await trio.sleep(_POLL_INTERVAL_S)
            for file in self._files:
                if said := file.read_if_changed():
                    say(printable(said))
