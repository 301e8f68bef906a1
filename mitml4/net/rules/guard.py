"""The process that holds a session's table, and undoes what the session did, however it ends.

    sh -c "trap '' INT TERM HUP; nft -i; undo the policy routes"

`nft -i` owns the table by its netlink socket, and reads statements from a pipe of ours. When we
end, and be it by SIGKILL, the pipe closes: nft ends, the kernel drops its table, and the shell
undoes the rest. A session of its own keeps the terminal's Ctrl-C away; the traps keep the rest.
"""

from __future__ import annotations

import subprocess
from typing import Final

import trio

from mitml4.errors import MachineError
from mitml4.net.identity import Identity
from mitml4.net.rules.ruleset import policy_routes
from mitml4.net.tools import environment, run_ip

__all__ = ["Guard", "GuardLostError", "NftError", "add_policy_routes", "undo_policy_routes"]

_FAMILIES: Final = ("-4", "-6")
_ADD, _UNDO = 0, 1

_SCRIPT: Final = """
trap '' INT TERM HUP
nft -i
status=$?
for family in -4 -6; do printf '%s' "$0" | ip $family -force -batch -; done >/dev/null 2>&1
exit $status
"""

# Printed without a look at the kernel, and by nothing else: whatever nft had to say before is said.
_MARKER: Final = "describe ct mark"
_MARKED: Final = "ct expression, "

# What a readline prints before each line that it reads, terminal or not.
_PROMPT: Final = "nft> "

_PATIENCE_S: Final = 5


class NftError(MachineError):
    """nft refused a statement; the message is its own, in one line."""


class GuardLostError(MachineError):
    """The guard, or its nft, has ended: so has the table."""


class Guard:
    """A running guard that owns an empty table at first. Made by `claim`, ended by `aclose`."""

    def __init__(self, identity: Identity, process: trio.Process) -> None:
        self.identity = identity
        self._process = process
        self._unread = b""
        self._turn = trio.Lock()

    @classmethod
    async def claim(cls) -> Guard:
        """Start one for a slot that no other session has. Raises MachineError."""
        for identity in Identity.candidates():
            if guard := await cls._take(identity, undo=_batch(identity, _UNDO)):
                return guard
        raise MachineError(
            "every slot is taken: too many sessions run on this host", hint="nft list tables"
        )

    @classmethod
    async def hold(cls, identity: Identity) -> Guard | None:
        """Keep sessions out of a slot, and undo nothing at the end. None where one is in it.

        Raises MachineError.
        """
        return await cls._take(identity, undo="")

    @classmethod
    async def _take(cls, identity: Identity, *, undo: str) -> Guard | None:
        guard = cls(identity, await _start(undo))
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
        # One line is one transaction. Tabs would ask a readline for completion.
        command = "; ".join(" ".join(line.split()) for line in statements.strip().splitlines())
        async with self._turn:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _PATIENCE_S) as scope:
                printed = await self._ask(command)
        if scope.cancelled_caught:
            raise GuardLostError("nft does not answer", hint="nft list ruleset")
        complaint = next((line for line in printed if line.startswith("Error: ")), None)
        if complaint is not None:
            raise NftError(f"nft: {complaint.removeprefix('Error: ')}")
        return "\n".join(printed)

    async def _ask(self, command: str) -> list[str]:
        assert self._process.stdin is not None
        printed: list[str] = []
        try:
            await self._process.stdin.send_all(f"{command}\n{_MARKER}\n".encode())
            while not (line := await self._line()).startswith(_MARKED):
                printed.append(line)
        except (trio.BrokenResourceError, trio.ClosedResourceError, EOFError) as error:
            reason = f": {printed[0]}" if printed else ""
            raise GuardLostError(f"nft has ended, and with it the rules{reason}") from error
        return printed

    @property
    def pipe(self) -> int:
        """The descriptor that it waits to see closed everywhere."""
        assert isinstance(self._process.stdin, trio.lowlevel.FdStream)
        return self._process.stdin.fileno()

    async def load(self, table: str) -> None:
        """Put a table's text in the place of the one that is there, in one step."""
        await self.tell(f"delete table inet {self.identity.table}\n{table}")

    async def wait(self) -> str:
        """Until the guard has ended although nobody asked it to; says how it did."""
        status = await self._process.wait()
        how = f"by signal {-status}" if status < 0 else f"with status {status}"
        return f"the guard of the rules ended {how}"

    async def aclose(self) -> None:
        """End it: the table goes, the policy routes go. Idempotent, shielded."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _PATIENCE_S):
            await self._process.stdin.aclose()
            async with self._turn:
                await self._ended()
                await self._process.stdout.aclose()
            if await self._process.wait() < 0:  # the shell was killed, and nft was on its own
                await undo_policy_routes(self.identity)

    async def _line(self) -> str:
        assert self._process.stdout is not None
        while b"\n" not in self._unread:
            received = await self._process.stdout.receive_some()
            if not received:
                raise EOFError
            self._unread += received
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode(errors="replace").removeprefix(_PROMPT)

    async def _ended(self) -> None:
        """Wait until the last process that writes to the pipe, nft, is gone."""
        try:
            while True:
                await self._line()
        except (EOFError, trio.BrokenResourceError, trio.ClosedResourceError):
            return


async def add_policy_routes(identity: Identity, *, ipv6: bool, guard: Guard | None = None) -> None:
    """Route what carries the TPROXY mark to this host. Raises MachineError with ip's message.

    What adds them holds the guard's pipe open: if we are killed meanwhile, it ends before the guard
    undoes them, and not afterwards.
    """
    holding = () if guard is None else (guard.pipe,)
    for family in _FAMILIES if ipv6 else _FAMILIES[:1]:
        try:
            await run_ip(family, batch=_batch(identity, _ADD), holding=holding)
        except MachineError as error:
            if "File exists" not in error.message:
                raise
            # Left by a session whose guard was killed along with it. Its table has gone, so the
            # slot is ours.
            await run_ip(family, "-force", batch=_batch(identity, _UNDO))
            await run_ip(family, batch=_batch(identity, _ADD), holding=holding)


async def undo_policy_routes(identity: Identity) -> None:
    """Remove exactly the session's own rules and routes, as far as they are there."""
    for family in _FAMILIES:
        await run_ip(family, "-force", batch=_batch(identity, _UNDO))


async def _start(undo: str) -> trio.Process:
    return await trio.lowlevel.open_process(
        ["/bin/sh", "-c", _SCRIPT, undo],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        cwd="/",
        env=environment(),
    )


def _batch(identity: Identity, which: int) -> str:
    return "".join(f"{pair[which]}\n" for pair in policy_routes(identity))
