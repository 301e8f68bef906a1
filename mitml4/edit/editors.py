"""Several editors as one: each is asked in turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from mitml4.edit.editor import DataEditor, EditedFlow, Editor
from mitml4.edit.messages import Answer, Ending, Message, Request, Response
from mitml4.model.flow import Flow

__all__ = ["Editors"]


class Editors:
    """The first answer or end counts; those behind it are not asked."""

    def __init__(self, editors: Sequence[Editor]) -> None:
        self._editors = editors

    @property
    def may_wait(self) -> bool:
        return any(each.may_wait for each in self._editors)

    def may_match(self, flow: Flow, *, is_named: bool) -> bool:
        return any(each.may_match(flow, is_named=is_named) for each in self._editors)

    def may_answer(self, flow: Flow, *, is_named: bool) -> bool:
        return any(each.may_answer(flow, is_named=is_named) for each in self._editors)

    def edits_data(self, flow: Flow, *, is_named: bool) -> bool:
        return any(each.edits_data(flow, is_named=is_named) for each in self._editors)

    def wants_body(self, flow: EditedFlow, request: Request, response: Response | None) -> bool:
        return any(each.wants_body(flow, request, response) for each in self._editors)

    async def request(self, flow: EditedFlow, request: Request) -> Answer | None:
        for each in self._editors:
            if (answer := await each.request(flow, request)) is not None:
                return answer
        return None

    async def response(
        self, flow: EditedFlow, request: Request, response: Response
    ) -> Ending | None:
        for each in self._editors:
            if (ending := await each.response(flow, request, response)) is not None:
                return ending
        return None

    def edits_messages(self, flow: EditedFlow, request: Request) -> bool:
        return any(each.edits_messages(flow, request) for each in self._editors)

    async def message(self, flow: EditedFlow, request: Request, message: Message) -> Ending | None:
        for each in self._editors:
            if (ending := await each.message(flow, request, message)) is not None:
                return ending
        return None

    def data(self, flow: EditedFlow, direction: Literal["up", "down"]) -> DataEditor | None:
        found = [editor for each in self._editors if (editor := each.data(flow, direction))]
        if len(found) < 2:
            return found[0] if found else None
        return _DataEditors(found)


class _DataEditors:
    """Each reads what the one before it has made."""

    def __init__(self, editors: Sequence[DataEditor]) -> None:
        self._editors = editors

    async def feed(self, data: bytes) -> bytes | Ending:
        for each in self._editors:
            fed = await each.feed(data)
            if isinstance(fed, Ending):
                return fed
            data = fed
        return data

    async def flush(self) -> bytes:
        data = b""
        for each in self._editors:
            fed = await each.feed(data) if data else b""
            data = (b"" if isinstance(fed, Ending) else fed) + await each.flush()
        return data

    @property
    def holds(self) -> bool:
        return any(each.holds for each in self._editors)

    @property
    def delay_s(self) -> float:
        return sum(each.delay_s for each in self._editors)

    @property
    def rate(self) -> float | None:
        return min((each.rate for each in self._editors if each.rate), default=None)
