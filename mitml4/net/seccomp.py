"""Filters of system calls, for a process and its descendants: seccomp(2).

A filter is a program of classic BPF over the system call's number, instruction set and arguments
(linux/seccomp.h, linux/filter.h). It cannot follow pointers in arguments. Each instruction set has
different numbers and is matched by its name; on a machine that is not listed below there is no
filter.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import socket
import struct
import termios
from collections.abc import Iterable, Iterator
from typing import Final

from mitml4.dataclass import dataclass
from mitml4.net.libc import checked, libc

__all__ = ["COMMAND", "CONFINED", "SESSION", "Denial", "Filter", "install", "program"]


@dataclass(frozen=True, slots=True)
class Denial:
    """A system call that fails: always, or if an argument (by default the first one) is one of
    these values or has one of these bits."""

    call: str
    error: int = errno.EPERM
    values: tuple[int, ...] = ()
    bits: int = 0
    argument: int = 0


@dataclass(frozen=True, slots=True)
class Filter:
    """The system calls that a process gives up."""

    denials: tuple[Denial, ...]
    is_for_all: bool = True
    """Whether programs for every instruction set of the machine may run, or only for ours."""


# linux/sched.h, CLONE_NEW…
_ANY_NAMESPACE: Final = 0x7E02_0080
_TIOCLINUX: Final = 0x541C  # asm-generic/ioctls.h
_AF_RDS, _AF_KEY, _AF_QIPCRTR = 21, 15, 42  # linux/socket.h

COMMAND: Final = Filter(
    (
        # These lead out of a network namespace: to the hypervisor, to a modem, over InfiniBand.
        Denial("socket", errno.EAFNOSUPPORT, (socket.AF_VSOCK, _AF_QIPCRTR, _AF_RDS)),
        # A filter cannot see its requests, one of which creates sockets. Same error as without
        # CONFIG_IO_URING.
        Denial("io_uring_setup", errno.ENOSYS),
    )
)
"""The filter of a command of `run`."""

CONFINED: Final = Filter(
    (
        *COMMAND.denials,
        # Keys that the terminal's other programs would read: what the shell is to do next.
        Denial("ioctl", values=(termios.TIOCSTI, _TIOCLINUX), argument=1),
    ),
    is_for_all=False,
)
"""The filter of a command of `run --allow`. It may start no 32-bit programs, whose `socketcall` a
filter cannot see."""

_NEVER_NEEDED: Final = (
    *("execve", "execveat", "ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd"),
    *("kcmp", "mount", "umount2", "pivot_root", "chroot", "move_mount", "open_tree", "fsopen"),
    *("fsconfig", "fsmount", "fspick", "mount_setattr", "setns", "unshare", "bpf", "keyctl"),
    *("perf_event_open", "userfaultfd", "add_key", "request_key", "init_module", "finit_module"),
    *("delete_module", "kexec_load", "kexec_file_load", "reboot", "swapon", "swapoff", "acct"),
    *("open_by_handle_at", "quotactl", "syslog", "settimeofday", "clock_settime", "adjtimex"),
    *("clock_adjtime", "sethostname", "setdomainname", "mknodat", "personality"),
    "io_uring_setup",
)

SESSION: Final = Filter(
    (
        *map(Denial, _NEVER_NEEDED),
        # a filter cannot see its flags; the C library falls back to clone
        Denial("clone3", errno.ENOSYS),
        Denial("clone", bits=_ANY_NAMESPACE),
        Denial("socket", values=(socket.AF_PACKET, socket.AF_VSOCK, socket.AF_ALG, _AF_KEY)),
    ),
    is_for_all=False,
)
"""The filter of a session, from the first connection on."""

_X86_64, _I386 = 0xC000_003E, 0x4000_0003  # linux/audit.h, AUDIT_ARCH_…
_AARCH64, _ARM, _RISCV64, _LOONGARCH64 = 0xC000_00B7, 0x4000_0028, 0xC000_00F3, 0xC000_0102
_X32: Final = 0x4000_0000
"""A bit in the number of a system call that marks the x32 ABI; otherwise x32 is like x86-64."""

_OF_MACHINE: Final = {
    "x86_64": (_X86_64, _I386),
    "aarch64": (_AARCH64, _ARM),
    "riscv64": (_RISCV64,),
    "loongarch64": (_LOONGARCH64,),
}
"""The instruction sets that a machine can run; ours first."""

# x86-64: arch/x86/entry/syscalls/syscall_64.tbl; all newer ones: include/uapi/asm-generic/unistd.h.
# From 424 on they are the same everywhere.
_NUMBERS: Final = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "adjtimex": (159, 171),
    "bpf": (321, 280),
    "chroot": (161, 51),
    "clock_adjtime": (305, 266),
    "clock_settime": (227, 112),
    "clone": (56, 220),
    "clone3": (435, 435),
    "delete_module": (176, 106),
    "execve": (59, 221),
    "execveat": (322, 281),
    "finit_module": (313, 273),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "init_module": (175, 105),
    "io_uring_setup": (425, 425),
    "ioctl": (16, 29),
    "kcmp": (312, 272),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "mknodat": (259, 33),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "personality": (135, 92),
    "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "seccomp": (317, 277),
    "setdomainname": (171, 162),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "settimeofday": (164, 170),
    "socket": (41, 198),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
}
# Only for commands of `run`, which may start 32-bit programs.
_NUMBERS_OF_32_BITS: Final = {
    _I386: {"socket": 359, "io_uring_setup": 425},
    _ARM: {"socket": 281, "io_uring_setup": 425},
}

_LOAD, _EQUAL, _ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x45, 0x54, 0x06
_NUMBER_AT, _ARCH_AT, _FIRST_ARGUMENT_AT = 0, 4, 16  # struct seccomp_data
_ALLOW, _ERROR = 0x7FFF_0000, 0x0005_0000
_SET_MODE_FILTER: Final = 1
_TSYNC, _SPEC_ALLOW = 1, 4
"""Apply to all threads of the process; and do not slow down code for speculation that does not
matter here."""

Instruction = tuple[int, int, int, int]
"""Code, jump if true, jump if false, operand."""


def install(chosen: Filter) -> bool:
    """Install the filter in all threads; returns whether this machine supports it. Raises OSError.

    Needs CAP_SYS_ADMIN in the user namespace, or no_new_privs.
    """
    machine = platform.machine()
    if machine not in _OF_MACHINE or struct.calcsize("P") != 8:
        return False
    code = b"".join(struct.pack("HBBI", *each) for each in program(chosen, machine))
    kept = ctypes.create_string_buffer(code)
    head = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(kept))
    number = _number("seccomp", _OF_MACHINE[machine][0])
    flags = ctypes.c_ulong(_TSYNC | _SPEC_ALLOW)
    if checked(libc.syscall(number, ctypes.c_ulong(_SET_MODE_FILTER), flags, head)):
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))  # a thread has another filter
    return True


def program(chosen: Filter, machine: str) -> list[Instruction]:
    """A filter in the form that the kernel takes."""
    archs = _OF_MACHINE[machine] if chosen.is_for_all else _OF_MACHINE[machine][:1]
    instructions: list[Instruction] = [(_LOAD, 0, 0, _ARCH_AT)]
    for arch in archs:
        body = list(_of_arch(chosen.denials, arch))
        instructions += [(_EQUAL, 0, len(body), arch), *body]
    other = _ALLOW if chosen.is_for_all else _ERROR | errno.ENOSYS
    return [*instructions, (_RETURN, 0, 0, other)]


def _of_arch(denials: Iterable[Denial], arch: int) -> Iterator[Instruction]:
    load_number = [(_LOAD, 0, 0, _NUMBER_AT)]
    if arch == _X86_64:
        load_number.append((_AND, 0, 0, 0xFFFF_FFFF ^ _X32))
    yield from load_number
    for denial in denials:
        number = _number(denial.call, arch)
        if number is None:
            continue
        refuse = (_RETURN, 0, 0, _ERROR | denial.error)
        tests = [(_EQUAL, 0, 1, value) for value in denial.values]
        if denial.bits:
            tests.append((_ANY_BIT, 0, 1, denial.bits))
        if not tests:
            yield from ((_EQUAL, 0, 1, number), refuse)
            continue
        body = [(_LOAD, 0, 0, _FIRST_ARGUMENT_AT + 8 * denial.argument)]
        for test in tests:
            body += [test, refuse]
        body += load_number
        yield from ((_EQUAL, 0, len(body), number), *body)
    yield (_RETURN, 0, 0, _ALLOW)


def _number(call: str, arch: int) -> int | None:
    if arch in _NUMBERS_OF_32_BITS:
        return _NUMBERS_OF_32_BITS[arch].get(call)
    return _NUMBERS[call][0 if arch == _X86_64 else 1]
