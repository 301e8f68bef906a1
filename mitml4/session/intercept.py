"""`intercept`: a test of the rules, and then the session.

The test mostly waits for nft. Meanwhile a thread imports the session, which takes the longest part
of the start.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, ExitStack, nullcontext
from importlib import import_module
from threading import Thread
from typing import TYPE_CHECKING, Final

import trio

from mitml4.errors import ExitCode
from mitml4.net.firewall.stale import forget_stale
from mitml4.net.owner.finder import OwnerFinder
from mitml4.net.place import HERE
from mitml4.net.rules.interception import plan, preparing
from mitml4.net.rules.owned import OwnedSockets
from mitml4.net.rules.requirements import check

if TYPE_CHECKING:
    from mitml4.session.attach.attachment import Attachment
    from mitml4.session.config import InterceptConfig
    from mitml4.session.saying import Complain, Say

__all__ = ["intercept"]

_SESSION: Final = "mitml4.session.host_session"
_SWITCH_S: Final = 0.0005
"""How long the import may keep the test waiting, each time; Python's default is ten times that."""


async def intercept(config: InterceptConfig, say: Say, complain: Complain) -> ExitCode:
    """Run a session to its end. Raises MitmError for what ends it early; no rule stays then."""
    with ExitStack() as running:
        attachment = running.enter_context(_attached(config))
        place = attachment.network if attachment else HERE
        if config.dry_run:
            print("\n".join(plan(config.scope, place)))
            return ExitCode.DONE
        check(config.scope, place)
        owners = None
        if place is HERE and config.scope.local:
            owners = running.enter_context(OwnerFinder.of_this_host())
        owned = None
        if config.scope.owners:
            owned = running.enter_context(OwnedSockets.create(config.scope.owners))
        forget = attachment.network.forget_stale if attachment else forget_stale
        await trio.to_thread.run_sync(forget)
        # A thread that has ended before this process drops its privileges.
        sys.setswitchinterval(_SWITCH_S)
        importing = Thread(target=import_module, args=(_SESSION,), name="import")
        importing.start()
        async with preparing(config.scope, place, owned) as preparation:
            importing.join()
            from mitml4.session.host_session import run_session

            return await run_session(config, preparation, say, complain, attachment, owners)


def _attached(config: InterceptConfig) -> AbstractContextManager[Attachment | None]:
    """What the session is attached to; None: this host. Raises MitmError."""
    if config.attach is None:
        return nullcontext()
    from mitml4.session.attach.attachment import Attachment

    return Attachment.open(config.attach, trust=config.trust and not config.dry_run)
