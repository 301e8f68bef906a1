"""The scripts of a session, as a worker asks them: each has one process, which sees all flows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from mitml4.hooks.editor import HookEditor, HookError
from mitml4.hooks.wire import Contents, Frame

__all__ = ["AskedScript", "asked"]


class AskedScript(HookEditor):
    """A script that the session has."""

    def __init__(
        self,
        script: HookEditor,
        number: int,
        ask: Callable[..., Awaitable[Any]],
        send: Callable[..., None],
    ) -> None:
        """`ask` gives the session's answer, `send` sends it something."""
        super().__init__(script.name, script.limit)
        self.info = script.info
        self._number = number
        self._ask = ask
        self._send = send

    async def ask(self, head: dict[str, Any], contents: Contents) -> Frame:
        self.told.clear()  # the session keeps it
        answer = await self._ask("hook", self._number, head, contents.body)
        if isinstance(answer, Frame):
            return answer
        raise HookError(*answer)

    def say_once(self, hook: str, error: HookError) -> None:
        """The session says it, once for all workers."""
        self._send("failed hook", self._number, hook, error.what, error.reason)


async def asked(script: HookEditor, head: dict[str, Any], body: bytes) -> Frame | tuple[str, str]:
    """The session's answer to a worker: the script's, or how its hook has failed."""
    script.told.add(head["flow"]["number"])
    contents = Contents()
    contents.put(body)
    try:
        return await script.ask(head, contents)
    except HookError as error:
        return error.what, error.reason
