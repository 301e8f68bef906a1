"""What a session is attached to: a container, a process, or a network namespace."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Self, assert_never

from mitml4.dataclass import dataclass
from mitml4.errors import UsageError
from mitml4.net.attach.network import AttachedNetwork
from mitml4.net.attach.programs import ProgramGroup, program_groups
from mitml4.net.attach.resolver import NameFiles
from mitml4.net.attach.target import Target
from mitml4.net.owner.diag import open_diag
from mitml4.net.owner.finder import OwnerFinder
from mitml4.session.attach.containers import find_container
from mitml4.session.attach.roots import VARIABLES
from mitml4.session.attach.trust import ContainerTrust
from mitml4.session.config import Attach

__all__ = ["Attachment"]


@dataclass(frozen=True, slots=True)
class Attachment:
    """An attached network. Close it, or use it as a context manager."""

    target: Target
    network: AttachedNetwork
    container: str | None
    """The container's name."""
    trust: ContainerTrust | None
    owners: OwnerFinder
    names: NameFiles
    """For names that are resolved inside."""
    _groups: tuple[ProgramGroup, ...]

    @classmethod
    def open(cls, attach: Attach, *, trust: bool) -> Self:
        """Find the namespace, and enter it with helpers. Call it while there is one thread.

        Raises UsageError, MachineError.
        """
        with ExitStack() as undo:
            target, container = _find(attach)
            undo.callback(target.close)
            if target.is_ours:
                raise UsageError(
                    f"{target.what} uses the network of this host", hint=_instead_of(target)
                )
            network = undo.enter_context(AttachedNetwork.enter(target))
            owners = undo.enter_context(
                OwnerFinder.start(open_diag(network), network=target.network, user=target.user)
            )
            found, left_out = program_groups(target, VARIABLES)
            for each in found:
                undo.callback(each.close)
            names = NameFiles.of(found[0].root if found else None, target.path)
            trusting = ContainerTrust.open(target, found, left_out) if trust else None
            undo.pop_all()
            return cls(target, network, container, trusting, owners, names, tuple(found))

    def restrict(self) -> None:
        """Let the helpers do only what a running session needs. Raises MachineError."""
        self.network.restrict()
        if self.trust:
            self.trust.restrict()

    def close(self) -> None:
        if self.trust:
            self.trust.close()
        for each in self._groups:
            each.close()
        self.owners.close()
        self.network.close()
        self.target.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _instead_of(target: Target) -> str:
    hint = "mitml4 intercept --iface NAME, for all connections of this host"
    if target.pid is None:
        return hint
    listing = Path(f"/proc/{target.pid}/cgroup")
    try:
        path = _cgroup_path(listing.read_text())
    except OSError:
        path = None
    if path is None:
        return f"{hint}; --cgroup PATH, for those of a cgroup: cat {listing}"
    return f"{hint}; --cgroup {path}, for those of its cgroup"


def _cgroup_path(listing: str) -> str | None:
    """The path of a cgroup of version 2 that is not the root, as cgroups(7) describes it."""
    paths = (line.removeprefix("0::") for line in listing.splitlines() if line.startswith("0::"))
    return next((path for path in paths if path != "/"), None)


def _find(attach: Attach) -> tuple[Target, str | None]:
    """The target, and the name of the container."""
    match attach.kind:
        case "container":
            found = find_container(attach.value)
            return Target.of_process(found.pid, f"container {found.name}"), found.name
        case "pid":
            return Target.of_process(int(attach.value)), None
        case "netns":
            return Target.of_name(attach.value), None
    assert_never(attach.kind)
