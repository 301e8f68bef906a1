"""The process that holds a session's table, whose end is the end of the table.

`nft -i` owns the table by its netlink socket, and reads statements from a pipe of ours. When we
end, and be it by SIGKILL, the pipe closes: nft ends, and the kernel drops its table. A session of
its own keeps the terminal's Ctrl-C away; the traps keep the rest.

nft runs as root for as long as the session does, and can read files (`include`) and change any
table. So a shell stands between, which passes every statement on while the session is being set up,
and once it is sealed only those that it was told of before.
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
from mitml4.net.tools import environment

__all__ = ["Guard", "GuardLostError", "NftError"]

_NFT: Final = "trap '' INT TERM HUP; exec nft -i"
# A statement that is not allowed becomes one that nft refuses.
_FILTER: Final = r"""
trap '' INT TERM HUP
sealed=
while IFS= read -r line; do
    case $sealed$line in
    "#allow "*) set -- "$@" "${line#"#allow "}"; continue ;;
    "#seal") sealed=sealed:; continue ;;
    sealed:*)
        passes=
        for allowed; do [ "$line" = "$allowed" ] && passes=yes; done
        [ "$passes" ] || line=not-allowed-in-a-sealed-session ;;
    esac
    printf '%s\n' "$line"
done
"""

# Printed without a look at the kernel, and by nothing else: whatever nft had to say before is said.
_MARKER: Final = "describe ct mark"
_MARKED: Final = "ct expression, "

# What a readline prints before each line that it reads, terminal or not.
_PROMPT: Final = "nft> "

_TIMEOUT_S: Final = 5


class NftError(MachineError):
    """nft refused a statement; the message is its own, in one line."""


class GuardLostError(MachineError):
    """The guard, or its nft, has ended: so has the table."""


class Guard:
    """A running guard that owns an empty table at first. Made by `claim`, ended by `aclose`."""

    def __init__(self, identity: Identity, nft: trio.Process, statements: trio.Process) -> None:
        """`statements` is the filter that nft is told by."""
        self.identity = identity
        self._process = nft
        self._filter = statements
        self._unread = b""
        self._turn = trio.Lock()

    @classmethod
    async def claim(cls) -> Guard:
        """Start one for a slot that no other session has. Raises MachineError."""
        for identity in Identity.candidates():
            if guard := await cls._take(identity):
                return guard
        raise MachineError(
            "every slot is taken: too many sessions run on this host", hint="nft list tables"
        )

    @classmethod
    async def _take(cls, identity: Identity) -> Guard | None:
        """None where another session is in the slot."""
        guard = cls(identity, *await _start())
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
        """Whether a table was refused because there is one. If that has an owner, the kernel does
        not say EEXIST but EPERM, as for any change of it."""
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
        """Have nft run statements as one transaction, and return what it printed.

        Raises NftError when it refuses (nothing has then changed), GuardLostError when it is gone.
        Once sent it is not cancelled: an answer that nobody read would be taken for the next one.
        """
        command = _one_line(statements)
        async with self._turn:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _TIMEOUT_S) as scope:
                printed = await self._ask(command)
        if scope.cancelled_caught:
            raise GuardLostError("nft does not answer", hint="nft list ruleset")
        complaint = next((line for line in printed if line.startswith("Error: ")), None)
        if complaint is not None:
            raise NftError(f"nft: {complaint.removeprefix('Error: ')}")
        return "\n".join(printed)

    async def _ask(self, command: str) -> list[str]:
        assert self._filter.stdin is not None
        printed: list[str] = []
        try:
            await self._filter.stdin.send_all(f"{command}\n{_MARKER}\n".encode())
            while not (line := await self._line()).startswith(_MARKED):
                printed.append(line)
        except (trio.BrokenResourceError, trio.ClosedResourceError, EOFError) as error:
            printed += await self._last_lines()
            reason = f": {printed[0]}" if printed else ""
            raise GuardLostError(f"nft has ended, and with it the rules{reason}") from error
        return printed

    async def seal(self, *allowed: str) -> None:
        """From now on nft is told nothing but these statements, whoever asks."""
        assert self._filter.stdin is not None
        lines = [f"#allow {_one_line(statements)}" for statements in (*allowed, _MARKER)]
        async with self._turn:
            with suppress(trio.BrokenResourceError):  # it has ended: the next to ask is told
                await self._filter.stdin.send_all("\n".join([*lines, "#seal\n"]).encode())

    async def load(self, table: str) -> None:
        """Put a table's text in the place of the one that is there, in one step."""
        await self.tell(f"delete table inet {self.identity.table}\n{table}")

    async def wait(self) -> str:
        """Until the guard has ended although nobody asked it to; says how it did."""
        status = await self._process.wait()
        how = f"by signal {-status}" if status < 0 else f"with status {status}"
        return f"the guard of the rules ended {how}"

    async def aclose(self) -> None:
        """End it: the table goes. Idempotent, shielded."""
        assert self._filter.stdin is not None
        assert self._process.stdout is not None
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _TIMEOUT_S):
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
        """What it prints until nobody can print any more."""
        printed: list[str] = []
        with suppress(EOFError, trio.BrokenResourceError, trio.ClosedResourceError):
            while True:
                printed.append(await self._line())
        return printed


def _one_line(statements: str) -> str:
    """One line is one transaction. Tabs would ask a readline for completion."""
    return "; ".join(" ".join(line.split()) for line in statements.strip().splitlines())


async def _start() -> tuple[trio.Process, trio.Process]:
    """nft, and the filter before it: each ends when what it reads from does."""
    start = partial(trio.lowlevel.open_process, start_new_session=True, cwd="/", env=environment())
    read, write = os.pipe2(os.O_CLOEXEC)
    try:
        nft = await start(
            ["/bin/sh", "-c", _NFT], stdin=read, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        statements = await start(["/bin/sh", "-c", _FILTER], stdin=subprocess.PIPE, stdout=write)
    finally:
        os.close(read)
        os.close(write)
    return nft, statements
