"""The record of `ca install`, in a small file next to the authority, for `ca uninstall`.

A store's entry is written before the store is changed, so that the change can be undone even if the
program ends in between.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any, Final

from mitml4.errors import CertificateError
from mitml4.regex import regex
from mitml4.tls.private_files import exists, read_file, write_file
from mitml4.tls.stores.store import Entry, Kind

__all__ = ["RECORD_FILE", "Record"]

RECORD_FILE: Final = "mitml4-installed.json"

_VERSION: Final = 1
_SHA256: Final = regex("[0-9a-f]{64}")


class Record:
    """The entries of an authority's directory, oldest first."""

    def __init__(self, directory: Path) -> None:
        """Read it. Raises CertificateError when it cannot be read."""
        self.file = directory / RECORD_FILE
        self.entries: list[Entry] = []
        if exists(self.file):
            try:
                self.entries = _parse(read_file(self.file))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                message = f"{self.file} is no record of ours: {error}"
                hint = f"less {shlex.quote(str(self.file))}"
                raise CertificateError(message, hint=hint) from None

    def add(self, entry: Entry) -> None:
        """Record that a store is about to be changed. Raises CertificateError."""
        if self._find(entry) is None:
            self.entries.append(entry)
            self._write()

    def remove(self, entry: Entry) -> None:
        """Record that it is not changed any more. Raises CertificateError."""
        if found := self._find(entry):
            self.entries.remove(found)
            self._write()

    def _find(self, entry: Entry) -> Entry | None:
        key = _key(entry)
        return next((each for each in self.entries if _key(each) == key), None)

    def _write(self) -> None:
        if not self.entries:
            self.file.unlink(missing_ok=True)
            return
        content = {"version": _VERSION, "installed": [asdict(each) for each in self.entries]}
        write_file(self.file, json.dumps(content, indent=1, ensure_ascii=False).encode())


def _key(entry: Entry) -> tuple[Kind, str, str]:
    return entry.kind, entry.place, entry.sha256


def _parse(content: bytes) -> list[Entry]:
    record = json.loads(content)
    if record["version"] != _VERSION:
        raise ValueError(f"its version is {record['version']}")
    return [_entry(each) for each in record["installed"]]


def _entry(fields: dict[str, Any]) -> Entry:
    entry = Entry(**fields | {"kind": Kind(fields["kind"])})
    texts = [entry.place, entry.subject, *entry.orders, *chain(*entry.orders.values())]
    texts += entry.created
    if not all(isinstance(text, str) for text in texts) or not _SHA256.fullmatch(entry.sha256):
        raise ValueError("an entry is not as it was written")
    return entry
