"""The process that starts the processes of one script, ends them, and watches its file.

It is forked before the session gives up its privileges, and is the user who has started mitml4: the
user who called sudo, if there is one. The session asks it by one socket:

    session:     start · kill N
    supervisor:  started N (with a socket to the process, and a pipe of what it prints)
                 ended N REASON · failed REASON · changed

It ends with the session. Nothing that a script has started stays: descendants become children of
this process when their parents end, and are killed.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final, NoReturn

from mitml4.dataclass import dataclass
from mitml4.errors import MachineError
from mitml4.invoker import sudo_user
from mitml4.net import capabilities, processes
from mitml4.signals import ending_signals

__all__ = ["MAX_COMMAND", "RunnerOptions", "start_supervisor"]

MAX_COMMAND: Final = 4096
_POLL_INTERVAL_MS: Final = 500
_LAST_MS: Final = 3000
"""How long processes may go on once the session has ended."""
_START: Final = (
    "import sys; sys.path.append({root!r}); from mitml4.hooks.runner import main; main()"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerOptions:
    path: Path
    """Absolute."""
    timeout_s: float
    memory: int
    """Bytes of address space."""
    max_content: int
    """Bytes that an answer may have."""


def start_supervisor(options: RunnerOptions) -> socket.socket:
    """Returns the session's end of its socket (SOCK_SEQPACKET). Raises MachineError."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        try:
            if not processes.fork_helper(ours):
                _serve(theirs, options)
        except MachineError:
            ours.close()
            raise
    return ours


def _serve(channel: socket.socket, options: RunnerOptions) -> NoReturn:
    try:
        signal.set_wakeup_fd(-1)
        for number in ending_signals():  # as they come to all processes of a service
            signal.signal(number, signal.SIG_IGN)
        for number in (signal.SIGTTOU, signal.SIGTTIN, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        processes.close_descriptors({channel.fileno()})
        environ = _become_invoker()
        processes.become_subreaper()
        _Supervisor(channel, options, environ).run()
    except OSError:  # the session has ended
        os._exit(0)
    finally:
        os._exit(1)


def _become_invoker() -> dict[str, str]:
    """Returns the environment of scripts. Raises OSError."""
    environ = dict(os.environ, PYTHONUNBUFFERED="1")
    if (user := sudo_user()) and user.pw_uid != 0:
        os.initgroups(user.pw_name, user.pw_gid)
        os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
        os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
        environ |= {"HOME": user.pw_dir, "USER": user.pw_name, "LOGNAME": user.pw_name}
    elif os.geteuid() != 0:
        capabilities.hand_down(())
        capabilities.keep_only(())
    return environ


class _Supervisor:
    def __init__(
        self, channel: socket.socket, options: RunnerOptions, environ: dict[str, str]
    ) -> None:
        self._channel = channel
        self._options = options
        self._environ = environ
        self._poll = select.poll()
        self._poll.register(channel, select.POLLIN)
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        """By their descriptors."""
        self._numbers: dict[int, int] = {}
        self._count = 0
        self._stamp = self._look()

    def run(self) -> NoReturn:
        while True:
            ready = {descriptor for descriptor, _ in self._poll.poll(_POLL_INTERVAL_MS)}
            for descriptor in ready & set(self._running):
                self._reap(descriptor)
            if self._channel.fileno() in ready:
                command = self._channel.recv(MAX_COMMAND)
                if not command:
                    self._end()
                self._obey(command.decode())
            if (stamp := self._look()) not in (None, self._stamp):
                self._stamp = stamp
                self._tell("changed")

    def _look(self) -> tuple[int, int, int] | None:
        """What changes when the file does."""
        try:
            found = self._options.path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    def _obey(self, command: str) -> None:
        if command == "start":
            self._start()
            return
        number = int(command.removeprefix("kill "))
        for descriptor, process in self._running.items():
            if self._numbers[descriptor] == number:
                _kill(process)

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        reader, writer = os.pipe()
        self._stamp = self._look()
        self._count += 1
        try:
            process = self._launch(theirs, writer)
            told = [f"started {self._count}".encode()]
            socket.send_fds(self._channel, told, [ours.fileno(), reader])
        except (FileNotFoundError, PermissionError, BlockingIOError) as error:
            self._tell(f"failed cannot start {sys.executable}: {error.strerror}")
            return
        finally:
            ours.close()
            theirs.close()
            os.close(reader)
            os.close(writer)
        descriptor = os.pidfd_open(process.pid)
        self._running[descriptor] = process
        self._numbers[descriptor] = self._count
        self._poll.register(descriptor, select.POLLIN)

    def _launch(self, channel: socket.socket, prints: int) -> subprocess.Popen[bytes]:
        """Raises OSError."""
        options, root = self._options, str(Path(__file__).parents[2])
        arguments = (
            *(os.getpid(), channel.fileno(), options.memory, options.max_content),
            *(options.timeout_s, options.path),
        )
        return subprocess.Popen(
            [sys.executable, "-P", "-c", _START.format(root=root), *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=prints,
            stderr=prints,
            pass_fds=[channel.fileno()],
            env=self._environ,
            start_new_session=True,
        )

    def _reap(self, descriptor: int) -> None:
        process, number = self._running.pop(descriptor), self._numbers.pop(descriptor)
        self._poll.unregister(descriptor)
        os.close(descriptor)
        code = process.wait()
        self._kill_orphans()
        self._tell(f"ended {number} {_reason(code)}")

    def _kill_orphans(self) -> None:
        """Kill what ended processes have left."""
        kept = {process.pid for process in self._running.values()}
        while orphans := set(processes.children()) - kept:
            for pid in orphans:
                try:
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                except PermissionError:  # it has become another user
                    kept.add(pid)

    def _tell(self, message: str) -> None:
        self._channel.send(message.encode()[:MAX_COMMAND])

    def _end(self) -> NoReturn:
        """The session has ended, which its processes see as well."""
        for descriptor, process in self._running.items():
            one = select.poll()
            one.register(descriptor, select.POLLIN)
            one.poll(_LAST_MS)
            _kill(process)
        self._running.clear()
        self._kill_orphans()
        os._exit(0)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """With its process group, which it leads."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        process.kill()


def _reason(code: int) -> str:
    if code >= 0:
        return f"exit status {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
