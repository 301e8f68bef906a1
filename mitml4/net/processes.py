"""A process's relation to its parent, its children, and its user.

Constants: linux/prctl.h.
"""

from __future__ import annotations

import ctypes
import os
import signal
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NoReturn

from mitml4.errors import MachineError
from mitml4.net.libc import prctl

__all__ = [
    "become_subreaper",
    "become_user",
    "close_descriptors",
    "close_memory",
    "die_with_parent",
    "forbid_new_privileges",
    "fork",
    "fork_orphan",
    "leave_init_behind",
    "mask_arguments",
    "show_as",
]

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NAME: Final = 15
_PR_SET_CHILD_SUBREAPER: Final = 36
_PR_GET_CHILD_SUBREAPER: Final = 37
_PR_SET_NO_NEW_PRIVS: Final = 38

_FORWARDED: Final = (
    *(signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT),
    *(signal.SIGUSR1, signal.SIGUSR2),
)
_SI_KERNEL: Final = 0x80  # asm-generic/siginfo.h


def fork() -> int:
    """Like os.fork; call it while there is one thread. Raises MachineError if a limit forbids
    it."""
    try:
        return os.fork()
    except OSError as error:
        reason = f"cannot start a process: {error.strerror}"
        raise MachineError(reason, hint="ulimit -u") from error


def fork_orphan() -> bool:
    """Start a process that is nobody's child, and in which this returns True. Signals of the
    terminal do not reach it, and waiting for all children does not wait for it. It may only use
    what no other thread has locked, and has to end with os._exit. Raises MachineError."""
    was_subreaper = _is_subreaper()
    prctl(_PR_SET_CHILD_SUBREAPER, 0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads, from Python 3.12 on
            if middle := fork():
                _, status = os.waitpid(middle, 0)
            else:
                _leave_an_orphan()
    finally:
        prctl(_PR_SET_CHILD_SUBREAPER, was_subreaper)
    if not middle:
        os.setsid()
        return True
    if status:
        raise MachineError("cannot start a process", hint="ulimit -u")
    return False


def _leave_an_orphan() -> None:
    """Returns in the orphan."""
    try:
        pid = os.fork()
    except OSError:
        os._exit(1)
    if pid:
        os._exit(0)


def leave_init_behind() -> None:
    """Where this process is PID 1 of a PID namespace (a container without an init), go on in a
    child. Every orphan is a child of PID 1, so waiting for all children would wait for those of
    `fork_orphan` too. PID 1 reaps them, forwards signals, and ends with the child.

    Call it while there is one thread. Raises MachineError.
    """
    if os.getpid() != 1:
        return
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (*_FORWARDED, signal.SIGCHLD))
    if child := fork():
        _serve_as_init(child)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve_as_init(child: int) -> NoReturn:
    while True:
        told = signal.sigwaitinfo((*_FORWARDED, signal.SIGCHLD))
        if told.si_signo == signal.SIGCHLD:
            _reap_until_ended(child)
        elif told.si_code != _SI_KERNEL:  # the terminal has sent it to the child as well
            os.kill(child, told.si_signo)


def _reap_until_ended(child: int) -> None:
    """Reap all children that have ended; end as this one."""
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)
        if not pid:
            return


def _is_subreaper() -> bool:
    answer = ctypes.c_int()
    prctl(_PR_GET_CHILD_SUBREAPER, ctypes.addressof(answer))
    return bool(answer)


def close_descriptors(kept: Iterable[int]) -> None:
    """Close all descriptors but these; the other standard ones lead nowhere."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in {0, 1, 2}.difference(kept):
        os.dup2(nowhere, standard)
    start = 3
    for descriptor in sorted(kept):
        os.closerange(start, descriptor)
        start = max(start, descriptor + 1)
    os.closerange(start, os.sysconf("SC_OPEN_MAX"))


def die_with_parent(number: signal.Signals, parent: int) -> None:
    """Get a signal when the parent (its process id) ends. A set-user-ID program clears this."""
    prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:  # it ended before we asked
        os.kill(os.getpid(), number)


def become_subreaper() -> None:
    """Descendants whose parent ends become children of this process."""
    prctl(_PR_SET_CHILD_SUBREAPER, 1)


def close_memory() -> None:
    """Forbid other processes to read this one: its memory, its descriptors, a core dump. Only
    CAP_SYS_PTRACE over its user namespace still permits it (ptrace(2))."""
    prctl(_PR_SET_DUMPABLE, 0)


def mask_arguments(text: bytes, start: int, end: int) -> None:
    """Overwrite a part of this text with asterisks wherever it stands in the command line of this
    process, which any user can read (`ps`)."""
    first, last = _command_line()
    arguments = ctypes.string_at(first, last - first)
    at = arguments.find(text)
    while at >= 0:
        ctypes.memset(first + at + start, ord("*"), end - start)
        at = arguments.find(text, at + 1)


def show_as(title: str) -> None:
    """Show this in the command line and as the name of this process (`ps`), as far as there is
    room."""
    first, last = _command_line()
    ctypes.memset(first, 0, last - first)
    shown = title.encode()[: max(0, last - first - 1)]
    ctypes.memmove(first, shown, len(shown))
    name = ctypes.create_string_buffer(title.encode()[:15])
    prctl(_PR_SET_NAME, ctypes.addressof(name))


def _command_line() -> tuple[int, int]:
    """Where the command line of this process is in its memory; nowhere if the kernel hides it."""
    try:
        # proc(5), /proc/pid/stat: the fields from the third on follow the name of the program.
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        first, last = int(fields[48 - 3]), int(fields[49 - 3])  # arg_start, arg_end
    except (OSError, ValueError, IndexError):
        return 1, 1
    return (first, last) if 0 < first < last else (1, 1)


def forbid_new_privileges() -> None:
    """Programs that are executed from here on cannot gain privileges."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1)


def become_user(uid: int, gid: int) -> None:
    """Become another user permanently, with that user's group only, as if that user had started us.

    Raises OSError.
    """
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    # Otherwise our own files in /proc would belong to root (prctl(2)).
    prctl(_PR_SET_DUMPABLE, 1)
