"""A process's relation to its parent, its children, and its user.

Constants: linux/prctl.h.
"""

from __future__ import annotations

import array  # noqa: F401  # socket.send_fds imports it, in helpers that may not read it any more
import ctypes
import os
import select
import signal
import socket
import time
import warnings
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, NoReturn
from weakref import ref

from mitml4.errors import MachineError
from mitml4.net.libc import prctl

__all__ = [
    "become_subreaper",
    "become_user",
    "children",
    "close_descriptors",
    "close_memory",
    "die_with_parent",
    "forbid_new_privileges",
    "fork",
    "fork_helper",
    "fork_unwarned",
    "has_only_helpers",
    "leave_init_behind",
    "mask_arguments",
    "show_as",
    "wait_for_helper",
    "wait_for_helpers",
    "was_reaped",
]

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NAME: Final = 15
_PR_SET_CHILD_SUBREAPER: Final = 36
_PR_SET_NO_NEW_PRIVS: Final = 38

_FORWARDED: Final = (
    *(signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT),
    *(signal.SIGUSR1, signal.SIGUSR2),
)
_SI_KERNEL: Final = 0x80  # asm-generic/siginfo.h

_helpers: Final[dict[int, ref[socket.socket]]] = {}
"""The helpers of this process that were not reaped, and our ends of their channels."""


def fork() -> int:
    """Like os.fork; call it while there is one thread. Raises MachineError if a limit forbids
    it."""
    try:
        return os.fork()
    except OSError as error:
        raise _cannot_start(error) from error


def fork_unwarned() -> int:
    """Like os.fork, where Python would warn of threads (from 3.12 on): of trio's, which wait for
    work and have locked nothing, or of those that it miscounts if this process's name has spaces.
    Raises OSError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def fork_helper(channel: socket.socket) -> int:
    """Start a process that helps this one. Returns its process id, and 0 in the helper.

    `channel` is our end of a pair; the helper has to end when it reads the end of the other one,
    with os._exit. Signals of the terminal do not reach it. It may only use what no other thread has
    locked. Raises MachineError.
    """
    try:
        pid = fork_unwarned()
    except OSError as error:
        raise _cannot_start(error) from error
    if pid:
        _helpers[pid] = ref(channel)
    else:
        _helpers.clear()  # they are its siblings
        try:
            os.setsid()
            prctl(_PR_SET_PDEATHSIG, signal.SIGCONT)  # a stopped one could not read the end
        except OSError:  # nothing above may run twice
            os._exit(1)
    return pid


def _cannot_start(error: OSError) -> MachineError:
    return MachineError(f"cannot start a process: {error.strerror}", hint="ulimit -u")


def wait_for_helpers(timeout_s: float = 5.0) -> None:
    """End the helpers, also where an error has left their channels open, and reap them: they would
    stay as zombies where PID 1 reaps nobody, as in many containers."""
    deadline = time.monotonic() + timeout_s
    for channel in _helpers.values():
        if sock := channel():
            with suppress(OSError):  # it is closed already
                sock.shutdown(socket.SHUT_RDWR)
    for pid in [*_helpers]:
        wait_for_helper(pid, max(0.0, deadline - time.monotonic()))


def wait_for_helper(pid: int, timeout_s: float = 5.0) -> None:
    """Reap one whose channel was closed, if it was not reaped yet."""
    if pid not in _helpers:
        return
    with suppress(OSError):  # no descriptor is left: wait however long it takes
        descriptor = os.pidfd_open(pid)
        try:
            ended = select.poll()  # select.select takes none above 1023
            ended.register(descriptor, select.POLLIN)
            if not ended.poll(timeout_s * 1000):
                return
        finally:
            os.close(descriptor)
    was_reaped(pid)
    with suppress(ChildProcessError):
        os.waitpid(pid, 0)


def was_reaped(pid: int) -> None:
    """Who waits for all children has reaped this one, which may have been a helper."""
    _helpers.pop(pid, None)


def has_only_helpers() -> bool:
    """Whether no child of this process is anything but a helper; asked in its first thread, which
    has the orphans too, if this is a subreaper."""
    return _helpers.keys() >= {*children()}


def children() -> list[int]:
    """The children that the first thread of this process has, ended ones too as long as nobody has
    waited for them. Nothing is missed, since only this process can make the list shorter."""
    pid = os.getpid()
    try:
        return [*map(int, Path(f"/proc/self/task/{pid}/children").read_text().split())]
    except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN
        everybody = map(int, filter(str.isdigit, os.listdir("/proc")))
        return [each for each in everybody if _parent(each) == pid]


def _parent(pid: int) -> int:
    """0: it has ended meanwhile."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def leave_init_behind() -> None:
    """Where this process is PID 1 of a PID namespace (a container without an init), go on in a
    child: to PID 1, signals do nothing by default, so it could not stop with its command
    (pid_namespaces(7)). PID 1 reaps orphans, forwards signals, and ends with the child.

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
