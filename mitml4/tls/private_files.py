"""Private files of the invoking user: written atomically, and owned by that user under sudo too."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mitml4.errors import CertificateError
from mitml4.files import RefusedError, open_directory, open_input, pinned, writable_by_invoker
from mitml4.invoker import give_to_invoker, home_in, sudo_user

__all__ = [
    "data_home",
    "exists",
    "home",
    "make_directory",
    "read_file",
    "write_file",
]

_MAX_BYTES: Final = 1 << 20


def data_home() -> Path:
    """`XDG_DATA_HOME` of the invoking user (of SUDO_USER under sudo), or its default.

    Raises CertificateError if the user has no home, or if XDG_DATA_HOME is another user's.
    """
    configured = os.environ.get("XDG_DATA_HOME", "")
    if not configured.startswith("/"):  # "All paths … must be absolute", XDG Base Directory
        return home() / ".local/share"
    if not writable_by_invoker(Path(configured)):
        message = f"XDG_DATA_HOME is not a place of the user who called sudo: {configured}"
        raise CertificateError(message, hint="--ca-dir DIR says where to keep it")
    return Path(configured)


def exists(path: Path) -> bool:
    """Whether it exists. Raises CertificateError if we must not look."""
    try:
        path.stat()  # Path.exists raises nothing from Python 3.14 on
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise _failure("look at", path, error) from error
    return True


def make_directory(directory: Path) -> None:
    """Create a directory and its missing parents, each 0700. Raises CertificateError; also for an
    existing directory that others can write to."""
    try:
        os.close(open_directory(directory, make=True))
    except OSError as error:
        raise _failure("make the directory", directory, error) from error


def write_file(file: Path, content: bytes, *, mode: int = 0o600, replace: bool = True) -> None:
    """Write a file through a temporary one next to it, so that a reader sees the old or the new
    content.

    Without `replace`, a file that has been created meanwhile is kept. Raises CertificateError, and
    then leaves no temporary file.
    """
    with _pinned(file.parent) as directory:
        try:
            _write(directory / file.name, content, mode, replace=replace)
        except OSError as error:
            raise _failure("write", file, error) from error


def _write(file: Path, content: bytes, mode: int, *, replace: bool) -> None:
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(6)}")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, mode)
        try:
            with os.fdopen(os.dup(descriptor), "wb") as stream:
                os.fchmod(descriptor, mode)
                stream.write(content)
                stream.flush()
                os.fsync(descriptor)
        finally:
            _hand_over(descriptor)
        if replace:
            temporary.replace(file)
        else:
            file.hardlink_to(temporary)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    _sync_directory(file.parent)


def read_file(file: Path, *, secret: bool = False) -> bytes:
    """The content of a file. Raises CertificateError if it cannot be read, if others could have
    written it, or if it is secret and others can read it."""
    with _pinned(file.parent) as directory:
        try:
            descriptor = open_input(directory / file.name, secret=secret)
            with os.fdopen(descriptor, "rb") as stream:
                return stream.read(_MAX_BYTES)
        except OSError as error:
            raise _failure("read", file, error) from error


def home() -> Path:
    """The invoking user's home. Raises CertificateError if there is none."""
    if user := sudo_user():
        return Path(user.pw_dir)
    if found := home_in(os.environ):
        return found
    message = "this user has no home directory"
    raise CertificateError(message, hint="--ca-dir DIR says where to keep it")


@contextlib.contextmanager
def _pinned(directory: Path) -> Iterator[Path]:
    """As `pinned`. Raises CertificateError for a directory that others can write to."""
    with contextlib.ExitStack() as stack:
        try:
            path = stack.enter_context(pinned(directory))
        except OSError as error:
            raise _failure("use the directory", directory, error) from error
        yield path


def _hand_over(descriptor: int) -> None:
    """Make the invoking user the owner, and close the descriptor."""
    try:
        give_to_invoker(descriptor)
    finally:
        os.close(descriptor)


def _sync_directory(directory: Path) -> None:
    """Make a rename durable. Some file systems refuse; the file itself is safe by then."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _failure(what: str, path: Path, error: OSError) -> CertificateError:
    reason = error.strerror or str(error)
    where = shlex.quote(str(path.parent))
    if isinstance(error, RefusedError):
        hint = f"{error.remedy} {shlex.quote(str(path))}"
        return CertificateError(f"cannot {what} {path}: {reason}", hint=hint)
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            hint = f"df {where}"
        case errno.EEXIST:
            hint = "--force replaces it permanently"
        case _:
            hint = f"ls -ld {where}"
    return CertificateError(f"cannot {what} {path}: {reason}", hint=hint)
