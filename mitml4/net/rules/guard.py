"""The process that owns a session's table; the kernel removes the table when it ends.

`nft -i` owns the table through its netlink socket, and reads statements from a pipe of ours. When
we end, even by SIGKILL, the pipe is closed, nft ends, and the kernel removes its table. Where other
processes carry connections too, the table stays until they have ended (`outlive`). It runs in
a separate session (setsid), so that the terminal's Ctrl-C does not reach it; traps ignore other
signals.

nft runs as root for the whole session, and can read files (`include`) and change any table. So a
shell filters its input: it passes every statement while the session is set up; after `#restrict`,
only those that were listed before.
"""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from functools import partial
from typing import Final

import trio

from mitml4.errors import MachineError
from mitml4.net.identity import Identity
from mitml4.net.place import HERE, Place
from mitml4.net.tools import environment

__all__ = ["Guard", "GuardLostError", "NftError"]

_NFT: Final = "trap '' INT TERM HUP; exec nft -i"
# The filter replaces a forbidden statement with one that nft refuses, and ends where it cannot pass
# one on: nft would answer the next as if that had been obeyed. Where the statements end without
# `#end`, the session was killed. The table has the chains by which the kernel translates addresses:
# without them, what it sends for sockets that it closes would not reach clients, who would wait. So
# the filter first waits for the processes that have the sockets. At the end it kills an nft
# that does not end because somebody has stopped it (SIGSTOP): its table would hold connections that
# nothing accepts. The session itself may not do so any more.
_FILTER: Final = r"""
trap '' INT TERM HUP
look() {
    { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return
    set -- ${stat##*) }
    [ "$1" != Z ] && began=${20}
}
is_there() { [ "$2" ] && look "$1" && [ "$began" = "$2" ]; }
wait_ended() {
    tries=$3
    while is_there "$1" "$2" && [ "$tries" -gt 0 ]; do
        tries=$((tries - 1))
        sleep 0.02
    done
}
nft=$1
look "$nft" && nft_began=$began
look "$PPID" && session_began=$began
shift
restricted=
ended=
carrier=
carrier_began=
while IFS= read -r line; do
    case $restricted$line in
    "#allow "*) set -- "$@" "${line#"#allow "}"; continue ;;
    "#restrict") restricted=restricted:; continue ;;
    "#outlive "* | "restricted:#outlive "*)
        carrier=${line#"#outlive "}
        look "$carrier" && carrier_began=$began
        continue ;;
    "#end" | "restricted:#end") ended=yes; break ;;
    restricted:*)
        passes=
        for allowed; do [ "$line" = "$allowed" ] && passes=yes; done
        [ "$passes" ] || line=not-allowed-in-a-restricted-session ;;
    esac
    printf '%s\n' "$line" || { ended=yes; break; }
done
if [ ! "$ended" ]; then
    wait_ended "$PPID" "$session_began" 250
    wait_ended "$carrier" "$carrier_began" 250
fi
exec >&-
wait_ended "$nft" "$nft_began" 100
is_there "$nft" "$nft_began" && kill -KILL "$nft"
"""

# nft prints its result without asking the kernel, and nothing else prints it. When it appears, all
# earlier output is complete.
_MARKER: Final = "describe ct mark"
_MARKED: Final = "ct expression, "

# The second one where the kernel did not even take the request, or gave no answer.
_COMPLAINTS: Final = ("Error: ", "netlink: Error: ")

# readline prints this before each line that it reads, with or without a terminal.
_PROMPT: Final = "nft> "

_TIMEOUT_S: Final = 5


class NftError(MachineError):
    """nft refused a statement; the message is nft's, in one line."""


class GuardLostError(MachineError):
    """The guard, or its nft, has ended, and so the table is gone."""


class Guard:
    """A running guard, which initially owns an empty table. Created by `claim`, ended by
    `aclose`."""

    def __init__(self, identity: Identity, nft: trio.Process, statements: trio.Process) -> None:
        """`statements` is the filter through which statements reach nft."""
        self.identity = identity
        self._process = nft
        self._filter = statements
        self._unread = b""
        self._unanswered = 0
        self._turn = trio.Lock()

    @classmethod
    async def claim(cls, place: Place = HERE) -> Guard:
        """Start a guard for a slot that no other session uses in a network namespace. Raises
        MachineError."""
        for identity in Identity.candidates():
            if guard := await cls._take(identity, place):
                return guard
        raise MachineError(
            "every slot is taken: too many sessions run on this host", hint="nft list tables"
        )

    @classmethod
    async def _take(cls, identity: Identity, place: Place) -> Guard | None:
        """None if another session uses the slot."""
        guard = cls(identity, *await _start(place))
        try:
            await guard.tell(f"create table inet {identity.table} {{ flags owner; }}")
        except NftError as error:
            is_taken = await guard._is_there(error)
            await guard.aclose()
            if not is_taken:
                raise
            return None
        except BaseException:
            await guard.aclose()
            raise
        return guard

    async def _is_there(self, error: NftError) -> bool:
        """Whether a table was refused because it exists. If it has an owner, the kernel returns
        EPERM instead of EEXIST, as for any change of it."""
        if "File exists" in error.message:
            return True
        if "Operation not permitted" not in error.message:
            return False
        try:
            await self.tell(f"list table inet {self.identity.table}")
        except NftError:
            return False
        return True

    async def tell(self, statements: str) -> str:
        """Let nft run statements as one transaction, and return its output.

        Raises NftError if nft refuses them (then nothing has changed), GuardLostError if it has
        ended or is not answering in time. Sending is not cancelled halfway.
        """
        command = _one_line(statements)
        async with self._turn:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _TIMEOUT_S) as scope:
                printed = await self._ask(command)
        if scope.cancelled_caught:
            raise GuardLostError("nft does not answer", hint="nft list ruleset")
        complaint = next((line for line in printed if line.startswith(_COMPLAINTS)), None)
        if complaint is not None:
            reason = complaint.partition("Error: ")[2]
            raise NftError(f"nft: {reason}", hint="mitml4 doctor")
        return "\n".join(printed)

    async def _ask(self, command: str) -> list[str]:
        assert self._filter.stdin is not None
        printed: list[str] = []
        try:
            await self._filter.stdin.send_all(f"{command}\n{_MARKER}\n".encode())
            self._unanswered += 1
            while self._unanswered:
                printed = []  # instead of an answer that came too late for its statement
                while not (line := await self._line()).startswith(_MARKED):
                    printed.append(line)
                self._unanswered -= 1
        except (trio.BrokenResourceError, trio.ClosedResourceError, EOFError) as error:
            printed += await self._last_lines()
            reason = f": {printed[0]}" if printed else ""
            raise GuardLostError(
                f"nft has ended, and with it the rules{reason}", hint="sudo dmesg | tail"
            ) from error
        return printed

    async def restrict(self, *allowed: str) -> None:
        """From now on, pass only these statements to nft."""
        lines = [f"#allow {_one_line(statements)}" for statements in (*allowed, _MARKER)]
        await self._instruct(*lines, "#restrict")

    async def outlive(self, pid: int) -> None:
        """Where this process is killed, keep the table until that one, which carries connections or
        waits for those that do, has ended too; but for some seconds at most."""
        await self._instruct(f"#outlive {pid}")

    async def load(self, table: str) -> None:
        """Replace the current table with this text, atomically."""
        await self.tell(f"delete table inet {self.identity.table}\n{table}")

    async def _instruct(self, *lines: str) -> None:
        """Tell the filter."""
        assert self._filter.stdin is not None
        async with self._turn:
            # it has ended, which the next statement reports
            with suppress(trio.BrokenResourceError):
                await self._filter.stdin.send_all("".join(f"{line}\n" for line in lines).encode())

    async def wait(self) -> str:
        """Wait until the guard ends unexpectedly; returns the reason."""
        status = await self._process.wait()
        how = f"by signal {-status}" if status < 0 else f"with status {status}"
        return f"the guard of the rules ended {how}"

    async def aclose(self) -> None:
        """End it, which removes the table. Idempotent, shielded."""
        assert self._filter.stdin is not None
        assert self._process.stdout is not None
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _TIMEOUT_S):
            # It has ended, or is closed, or a statement is on its way that it does not take.
            with suppress(
                trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError
            ):
                await self._filter.stdin.send_all(b"#end\n")
            await self._filter.stdin.aclose()
            async with self._turn:
                await self._last_lines()
                await self._process.stdout.aclose()
            await self._filter.wait()
            await self._process.wait()

    async def _line(self) -> str:
        assert self._process.stdout is not None
        while b"\n" not in self._unread:
            received = await self._process.stdout.receive_some()
            if not received:
                raise EOFError
            self._unread += received
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode(errors="replace").removeprefix(_PROMPT)

    async def _last_lines(self) -> list[str]:
        """Its output up to the end."""
        printed: list[str] = []
        with suppress(EOFError, trio.BrokenResourceError, trio.ClosedResourceError):
            while True:
                printed.append(await self._line())
        return printed


def _one_line(statements: str) -> str:
    """One line is one transaction. A tab would make readline complete."""
    return "; ".join(" ".join(line.split()) for line in statements.strip().splitlines())


async def _start(place: Place) -> tuple[trio.Process, trio.Process]:
    """Start nft, and the filter in front of it. Each ends when its input ends."""
    start = partial(trio.lowlevel.open_process, start_new_session=True, cwd="/", env=environment())
    read, write = os.pipe2(os.O_CLOEXEC)
    try:
        nft = await start(
            ["/bin/sh", "-c", _NFT],
            stdin=read,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=place.entering,
        )
        statements = await start(
            ["/bin/sh", "-c", _FILTER, "sh", str(nft.pid)], stdin=subprocess.PIPE, stdout=write
        )
    finally:
        os.close(read)
        os.close(write)
    return nft, statements
