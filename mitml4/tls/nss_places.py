"""The directories of NSS databases: one that all Chromiums share, and one in each profile of
Firefox, Thunderbird and their derivatives."""

from __future__ import annotations

import configparser
import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, Self

from mitml4.dataclass import dataclass
from mitml4.tls.nss_database import CERTIFICATES_FILE

__all__ = ["NssPlaces"]

# Used by Chromium before 146, and later if it exists; relative to the home of a user, snap or
# flatpak.
_SHARED_BEFORE: Final = ".pki/nssdb"
_SHARED: Final = "pki/nssdb"
_SHARED_ELSEWHERE: Final = (
    "snap/*/current/.pki/nssdb",
    "snap/*/current/.local/share/pki/nssdb",
    ".var/app/*/.pki/nssdb",
    ".var/app/*/data/pki/nssdb",
)
_PROFILES: Final = (
    ".mozilla/firefox",
    ".thunderbird",
    ".librewolf",
    ".waterfox",
    ".floorp",
    ".zen",
    "snap/firefox/common/.mozilla/firefox",
    "snap/thunderbird/common/.thunderbird",
    ".var/app/*/.mozilla/firefox",
    ".var/app/*/config/mozilla/firefox",
    ".var/app/*/.thunderbird",
    ".var/app/*/.librewolf",
)
_PROFILES_IN_CONFIGURATION: Final = ("mozilla/firefox", "librewolf/librewolf")


@dataclass(frozen=True, slots=True)
class NssPlaces:
    """The places of a user."""

    home: Path
    data: Path
    """XDG_DATA_HOME, or its default."""
    configuration: Path
    """XDG_CONFIG_HOME, or its default."""

    @classmethod
    def of(cls, home: Path, environ: Mapping[str, str]) -> Self:
        """For the user with this home and environment."""
        return cls(
            home,
            _base(environ, "XDG_DATA_HOME", home / ".local/share"),
            _base(environ, "XDG_CONFIG_HOME", home / ".config"),
        )

    @property
    def shared(self) -> Path:
        """The directory that Chromium (from 146 on) uses, and creates if there is none."""
        before = self.home / _SHARED_BEFORE
        return before if _is_there(before) else self.data / _SHARED

    def databases(self) -> list[Path]:
        """The directories that contain a database."""
        shared = [self.home / _SHARED_BEFORE, self.data / _SHARED]
        elsewhere = _globbed(self.home, _SHARED_ELSEWHERE)
        found = (*shared, *elsewhere, *self._profiles())
        return [each for each in dict.fromkeys(found) if _is_there(each / CERTIFICATES_FILE)]

    def _profiles(self) -> Iterator[Path]:
        roots = _globbed(self.home, _PROFILES)
        roots += [self.configuration / each for each in _PROFILES_IN_CONFIGURATION]
        for root in roots:
            yield from _globbed(root, ("*",))
            yield from _named_in(root / "profiles.ini", root)


def _named_in(file: Path, root: Path) -> Iterator[Path]:
    """Profiles may be anywhere; this file lists those outside of the usual directory."""
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read(file, encoding="utf-8")
    except (OSError, UnicodeDecodeError, configparser.Error):
        return
    for section in parser.sections():
        if path := parser.get(section, "Path", fallback=None):
            yield root / path  # an absolute path replaces the root


def _is_there(path: Path) -> bool:
    """Whether it exists; False if we must not look."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _globbed(directory: Path, patterns: Iterable[str]) -> list[Path]:
    """The matching paths, as far as we may look."""
    found: list[Path] = []
    for pattern in patterns:
        with contextlib.suppress(OSError):
            found += sorted(directory.glob(pattern))
    return found


def _base(environ: Mapping[str, str], name: str, default: Path) -> Path:
    """XDG Base Directory: "All paths set in these environment variables must be absolute." """
    configured = environ.get(name, "")
    return Path(configured) if configured.startswith("/") else default
