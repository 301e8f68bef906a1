"""Filters of system calls: what they say of each call, and that the kernel takes them."""

from __future__ import annotations

import errno
import platform
import socket
import subprocess
import sys
import termios
from collections.abc import Sequence

import pytest

from mitml4.net.seccomp import COMMAND, CONFINED, SESSION, Filter, Instruction, program

X86_64, I386, AARCH64, ARM, RISCV64 = (
    0xC000003E,
    0x40000003,
    0xC00000B7,
    0x40000028,
    0xC00000F3,
)
ALLOWED = 0
RETURN = 0x06
AF_VSOCK = int(socket.AF_VSOCK)


def verdict(
    instructions: Sequence[Instruction], arch: int, number: int, argument: int = 0, second: int = 0
) -> int:
    """What a classic BPF machine makes of a call: 0, or the error that it fails with."""
    data = {0: number, 4: arch, 16: argument, 24: second}
    accumulator = at = 0
    while True:
        code, if_true, if_false, operand = instructions[at]
        at += 1
        match code:
            case 0x20:
                accumulator = data[operand]
            case 0x54:
                accumulator &= operand
            case 0x15:
                at += if_true if accumulator == operand else if_false
            case 0x45:
                at += if_true if accumulator & operand else if_false
            case _:
                return ALLOWED if operand == 0x7FFF0000 else operand & 0xFFFF


@pytest.mark.parametrize(
    ("machine", "arch", "sock", "io_uring", "write"),
    [
        ("x86_64", X86_64, 41, 425, 1),
        ("x86_64", X86_64, 41 | 0x40000000, 425 | 0x40000000, 1),  # x32
        ("x86_64", I386, 359, 425, 4),
        ("aarch64", AARCH64, 198, 425, 64),
        ("aarch64", ARM, 281, 425, 4),
        ("riscv64", RISCV64, 198, 425, 64),
    ],
)
def test_a_command_is_kept_from_what_leads_out_of_its_network(
    machine: str, arch: int, sock: int, io_uring: int, write: int
) -> None:
    instructions = program(COMMAND, machine)
    for family in (AF_VSOCK, 42, 21):
        assert verdict(instructions, arch, sock, family) == errno.EAFNOSUPPORT
    for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK):
        assert verdict(instructions, arch, sock, family) == ALLOWED
    assert verdict(instructions, arch, io_uring) == errno.ENOSYS
    assert verdict(instructions, arch, write, AF_VSOCK) == ALLOWED
    assert verdict(instructions, 0x12345678, sock, AF_VSOCK) == ALLOWED


def test_a_session_runs_no_program_and_makes_no_namespace() -> None:
    instructions = program(SESSION, "x86_64")
    for number in (59, 322, 101, 165, 272, 308, 321, 298, 425):
        assert verdict(instructions, X86_64, number) == errno.EPERM
        assert verdict(instructions, X86_64, number | 0x40000000) == errno.EPERM
    assert verdict(instructions, X86_64, 435) == errno.ENOSYS
    assert verdict(instructions, X86_64, 56, 0x3D0F00) == ALLOWED  # a thread
    assert verdict(instructions, X86_64, 56, 0x10000000) == errno.EPERM  # CLONE_NEWUSER
    assert verdict(instructions, X86_64, 41, 17) == errno.EPERM  # AF_PACKET
    assert verdict(instructions, X86_64, 41, 2) == ALLOWED
    assert verdict(instructions, I386, 4) == errno.ENOSYS  # any call at all


def test_a_confined_command_types_nothing_and_runs_no_32_bit_program() -> None:
    for machine, arch, ioctl, sock in (("x86_64", X86_64, 16, 41), ("aarch64", AARCH64, 29, 198)):
        instructions = program(CONFINED, machine)
        for request in (termios.TIOCSTI, 0x541C):
            assert verdict(instructions, arch, ioctl, 0, request) == errno.EPERM
        assert verdict(instructions, arch, ioctl, termios.TIOCSTI, termios.TIOCGWINSZ) == ALLOWED
        assert verdict(instructions, arch, sock, AF_VSOCK) == errno.EAFNOSUPPORT
        assert verdict(instructions, arch, sock, socket.AF_INET) == ALLOWED
    assert verdict(program(CONFINED, "x86_64"), I386, 102) == errno.ENOSYS  # socketcall


@pytest.mark.parametrize("chosen", [COMMAND, CONFINED, SESSION])
@pytest.mark.parametrize("machine", ["x86_64", "aarch64", "riscv64", "loongarch64"])
def test_a_program_is_well_formed(chosen: Filter, machine: str) -> None:
    instructions = program(chosen, machine)
    assert len(instructions) < 4096  # linux/bpf_common.h, BPF_MAXINSNS
    for at, (code, if_true, if_false, operand) in enumerate(instructions):
        assert max(code, if_true, if_false) < 256
        assert 0 <= operand < 1 << 32
        assert code == RETURN or at + 1 + max(if_true, if_false) < len(instructions)
    assert instructions[-1][0] == RETURN


def in_child(body: str) -> str:
    """What a process prints that gives up what a session gives up."""
    code = f"""
import errno, os, socket, subprocess, sys, threading
from mitml4.net import seccomp
from mitml4.net.processes import forbid_new_privileges
forbid_new_privileges()
{body}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers in it are x86-64's")
def test_the_kernel_holds_it_in_every_thread() -> None:
    printed = in_child("""
go, over = threading.Event(), threading.Event()
def attempt(what):
    try:
        what()
        return "done"
    except OSError as error:
        return errno.errorcode[error.errno]
def other():
    go.wait()
    print(attempt(lambda: subprocess.run(["true"])))
    over.set()
threading.Thread(target=other).start()
assert seccomp.install(seccomp.SESSION)
go.set()
over.wait()
print(attempt(lambda: os.execv("/bin/true", ["true"])))
print(attempt(lambda: socket.socket(socket.AF_PACKET)))
print(attempt(lambda: socket.socket().close()))
thread = threading.Thread(target=print, args=["thread"])
thread.start()
thread.join()
""")
    assert printed.split() == ["EPERM", "EPERM", "EPERM", "done", "thread"]
