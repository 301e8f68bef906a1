"""The command in its namespace: our child, in our process group, as if the shell had started it.

It is forked before any thread is started, and waits. Because it stays in our process group, the
terminal's signals reach it directly, and a shell inside can control the terminal.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import json
import os
import shlex
import shutil
import signal
from collections.abc import Mapping, Sequence
from typing import Final, NoReturn

from mitml4.dataclass import dataclass
from mitml4.errors import ExitCode, MitmError, limit_hint
from mitml4.net import capabilities, processes, seccomp
from mitml4.net.capabilities import Capability
from mitml4.net.namespace.namespace import Namespace

__all__ = ["CommandError", "Launch", "find_program", "status_of"]

NOT_FOUND: Final = 127
NOT_EXECUTABLE: Final = 126
_CLOSE: Final = 0.75
"""The minimum similarity of a suggested name to a mistyped one (difflib's measure)."""
_OUT_OF_REACH: Final = (Capability.NET_ADMIN, Capability.SYS_ADMIN, *capabilities.OVER_MEMORY)
"""With these it could undo the interception, or read our memory."""
_PYTHON_IGNORES: Final = (signal.SIGPIPE, signal.SIGXFSZ)


class CommandError(MitmError):
    """The command cannot be run; the exit code is the one that a shell uses."""

    def __init__(self, message: str, status: int, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = status


def find_program(name: str, environ: Mapping[str, str]) -> str:
    """The path of a program, looked up as a shell does. Raises CommandError."""
    if found := shutil.which(name, path=environ.get("PATH", os.defpath)):
        return found
    places = [""] if "/" in name else environ.get("PATH", os.defpath).split(os.pathsep)
    there = [path for each in places if os.path.exists(path := os.path.join(each, name))]
    if not name or not there:
        hint = _instead_of(name, places)
        raise CommandError(f"{name or repr(name)}: command not found", NOT_FOUND, hint=hint)
    if os.path.isdir(there[0]):
        hint = f"ls {shlex.quote(there[0])}"
        raise CommandError(f"{there[0]} is a directory", NOT_EXECUTABLE, hint=hint)
    raise CommandError(
        f"{there[0]} is not executable", NOT_EXECUTABLE, hint=f"chmod +x {shlex.quote(there[0])}"
    )


def _instead_of(name: str, places: Sequence[str]) -> str:
    """A suggestion for the name of a program that was not found."""
    quoted = shlex.quote(name)
    if not name:
        return "mitml4 run --help"
    if any(character.isspace() for character in name):
        return f"its words one by one, or: mitml4 run -- sh -c {quoted}"
    if "/" in name:
        return f"ls -l {shlex.quote(os.path.dirname(name))}"
    programs = {each for place in places for each in _listed(place)}
    if close := difflib.get_close_matches(name, programs, n=1, cutoff=_CLOSE):
        return f"is it {close[0]}? mitml4 run -- {close[0]} …"
    return f"no directory of PATH has it; an alias or a function: mitml4 run -- bash -ic {quoted}"


def _listed(directory: str) -> list[str]:
    with contextlib.suppress(OSError):
        return os.listdir(directory)
    return []


def status_of(ended: os.waitid_result) -> int:
    """The exit status that a shell would report."""
    if ended.si_code == os.CLD_EXITED:
        return ended.si_status
    return 128 + ended.si_status


@dataclass(slots=True)
class Launch:
    """A command that is about to run. Either `go` or `cancel` has to be called."""

    pid: int
    _go: int
    _trouble: int

    @classmethod
    def prepare(
        cls,
        program: str,
        argv: Sequence[str],
        namespace: Namespace,
        *,
        is_confined: bool = False,
    ) -> Launch:
        """Fork; the child waits. Call it before any thread is started.

        `is_confined`: it gets no descriptors but the standard ones, gains no privileges, cannot
        type for the terminal's other programs, and does not run without a filter of system calls.
        """
        go_reader, go = os.pipe()
        trouble, trouble_writer = os.pipe()
        parent = os.getpid()
        if (pid := processes.fork()) == 0:
            os.close(go)
            confined = is_confined
            _become(program, argv, namespace, parent, go_reader, trouble_writer, confined)
        os.close(go_reader)
        os.close(trouble_writer)
        return cls(pid, go, trouble)

    def go(self, environ: Mapping[str, str]) -> None:
        """Run it. Raises CommandError if it could not be executed; it has then ended."""
        with os.fdopen(self._go, "wb") as go, contextlib.suppress(BrokenPipeError):
            go.write(json.dumps(dict(environ)).encode(errors="surrogateescape"))
        with os.fdopen(self._trouble) as trouble:
            if reason := trouble.read():
                message, status, hint = json.loads(reason)
                raise CommandError(message, status, hint=hint)

    def cancel(self) -> None:
        """End it without running the command."""
        os.close(self._go)
        os.close(self._trouble)
        os.waitpid(self.pid, 0)


def _become(
    program: str,
    argv: Sequence[str],
    namespace: Namespace,
    parent: int,
    go: int,
    trouble: int,
    is_confined: bool,
) -> NoReturn:
    try:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        for number in _PYTHON_IGNORES:
            signal.signal(number, signal.SIG_DFL)
        with os.fdopen(go, "rb") as reader:
            told = reader.read()
        if not told:
            os._exit(ExitCode.FAILED)
        _move_in(namespace)
        if is_confined:
            _confine()
        else:
            with contextlib.suppress(OSError):  # a kernel without seccomp filters
                seccomp.install(seccomp.COMMAND)
        capabilities.hand_down(())
        capabilities.drop_for_good(_OUT_OF_REACH)
        processes.die_with_parent(signal.SIGTERM, parent)
        environ = json.loads(told.decode(errors="surrogateescape"))
    except OSError as error:
        reason = f"cannot start the command: {error.strerror}"
        _give_up(trouble, reason, ExitCode.CANNOT, limit_hint(error, "mitml4 doctor"))
    else:
        try:
            _execute(program, argv, environ)
        except OSError as error:
            _give_up(trouble, *_explained(program, error))
    finally:
        os._exit(NOT_EXECUTABLE)


def _give_up(trouble: int, message: str, status: int, hint: str) -> NoReturn:
    os.write(trouble, json.dumps([message, status, hint]).encode())
    os._exit(status)


def _explained(program: str, error: OSError) -> tuple[str, int, str]:
    """Why a program cannot be executed, the exit code, and a hint."""
    quoted = shlex.quote(program)
    if error.errno != errno.ENOENT:
        hint = limit_hint(error, f"ls -l {quoted}")
        return f"{program}: {error.strerror}", NOT_EXECUTABLE, hint
    if os.path.exists(program):
        missing = "the interpreter that it names does not exist"
        return f"{program}: {missing}", NOT_EXECUTABLE, f"head -n 1 {quoted}"
    return f"{program}: {error.strerror}", NOT_FOUND, f"ls -l {quoted}"


def _move_in(namespace: Namespace) -> None:
    """Enter the namespace, in the same directory."""
    try:
        where: str | int = os.getcwd()
    except OSError:  # it has been removed: only the descriptor leads there
        where = os.open(".", os.O_PATH)
    namespace.enter()
    os.chdir(where)


def _confine() -> None:
    """Raises OSError."""
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor > 2:
            with contextlib.suppress(OSError):  # that of the list
                os.set_inheritable(descriptor, False)
    processes.forbid_new_privileges()
    try:
        is_filtered = seccomp.install(seccomp.CONFINED)
    except OSError:
        is_filtered = False
    if not is_filtered:
        raise OSError(errno.ENOSYS, "--allow needs seccomp filters, which this kernel lacks")


def _execute(program: str, argv: Sequence[str], environ: Mapping[str, str]) -> None:
    """Execute the program; a text file without `#!` is run by the shell, as POSIX says for
    `execvp`."""
    try:
        os.execve(program, list(argv), environ)
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise
    os.execve("/bin/sh", ["sh", program, *argv[1:]], environ)
