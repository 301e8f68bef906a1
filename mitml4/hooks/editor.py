"""Hooks as an `Editor`: asks a script, and lets its answers change messages."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

from mitml4.dataclass import dataclass
from mitml4.edit.editor import Applied, DataEditor, EditedFlow, Failed, carries_frames
from mitml4.edit.messages import Answer, Ending, Message, Request, Response
from mitml4.edit.rules import exchange_of
from mitml4.errors import UsageError
from mitml4.filter.expression import Filter, Subject
from mitml4.filter.parser import parse_filter
from mitml4.hooks.changes import (
    an_object,
    bounded,
    change_request,
    change_response,
    flow_told,
    request_told,
    response_told,
)
from mitml4.hooks.wire import HOOKS, Contents, Frame
from mitml4.model import flow as model
from mitml4.printable import printable

__all__ = ["HookEditor", "HookError", "Info", "What"]

_HTTP_HOOKS: Final = ("request", "response", "message")

What: TypeAlias = Literal["exception", "timeout", "ended", "refused"]


class HookError(Exception):
    """A hook has failed."""

    def __init__(self, what: What, reason: str) -> None:
        super().__init__(reason)
        self.what: What = what
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Info:
    """What a script says of itself."""

    hooks: frozenset[str] = frozenset()
    match: Filter | None = None
    bodies: bool = True
    answers: bool = False

    @classmethod
    def of(cls, head: Mapping[str, Any]) -> Info:
        """Raises UsageError: a script that cannot be used; ValueError: nonsense."""
        if (failed := head.get("failed")) is not None:
            raise UsageError(str(failed), hint="docs/hooks.md has examples")
        hooks, match = head.get("hooks"), head.get("match")
        if not isinstance(hooks, list) or not isinstance(match, str | None):
            raise ValueError("its description")
        return cls(
            hooks=frozenset(hooks) & set(HOOKS),
            match=parse_filter(match) if match else None,
            bodies=bool(head.get("bodies")),
            answers=bool(head.get("answers")),
        )

    def has(self, *hooks: str) -> bool:
        return not self.hooks.isdisjoint(hooks)


class HookEditor(ABC):
    """The hooks of one script."""

    may_wait = True

    def __init__(self, name: str, limit: int) -> None:
        self.name = name
        self.limit = limit
        """Bytes of a body."""
        self.info = Info()
        self.told: set[int] = set()
        """The flows that the script's process keeps an object of."""

    @abstractmethod
    async def ask(self, head: dict[str, Any], contents: Contents) -> Frame:
        """What the script answers. Raises HookError."""

    @abstractmethod
    def say_once(self, hook: str, error: HookError) -> None:
        """Tell the user of a failure, the first time that a hook fails in this way."""

    def _failed(self, flow: EditedFlow, hook: str, stream: int | None, error: HookError) -> None:
        self.say_once(hook, error)
        reason = printable(error.reason)
        name = f"{self.name}: {hook}"
        flow.applied(Failed(hook=name, what=error.what, stream=stream, reason=reason))

    def _done(self, flow: EditedFlow, hook: str, stream: int | None, what: str) -> None:
        flow.applied(Applied(what=what, stream=stream, hook=f"{self.name}: {hook}"))

    # As an editor

    def _possible(self, flow: model.Flow, *, is_named: bool) -> bool:
        match = self.info.match
        return match is None or match.root.value(Subject(flow, is_named=is_named)) is not False

    def _matches(self, flow: EditedFlow, request: Request, response: Response | None) -> bool:
        match = self.info.match
        if match is None:
            return True
        exchange = exchange_of(request, response)
        return bool(match.root.value(Subject(flow.model, exchange, is_final=True)))

    def may_match(self, flow: model.Flow, *, is_named: bool) -> bool:
        has = self.info.has(*_HTTP_HOOKS, "data")
        return has and self._possible(flow, is_named=is_named)

    def may_answer(self, flow: model.Flow, *, is_named: bool) -> bool:
        return self.info.answers and self._possible(flow, is_named=is_named)

    def edits_data(self, flow: model.Flow, *, is_named: bool) -> bool:
        has = self.info.has("data") and not carries_frames(flow)
        return has and self._possible(flow, is_named=is_named)

    def wants_body(self, flow: EditedFlow, request: Request, response: Response | None) -> bool:
        if not self.info.bodies or not self.info.has("response" if response else "request"):
            return False
        kind = request.headers.get("content-type") or ""
        if response is None and kind.lower().startswith("application/grpc"):
            return False  # its end may wait for the response
        return self._matches(flow, request, response)

    async def request(self, flow: EditedFlow, request: Request) -> Answer | None:
        if not self.info.has("request") or not self._matches(flow, request, None):
            return None
        sent = Contents()
        told = request_told(request, sent)
        try:
            frame = await self.ask(self._head("request", flow, request=told), sent)
            back = Contents(frame.body)
            if (answer := frame.head.get("answer")) is not None:
                response = Response(status=200)
                told = an_object(answer)
                content = self._content(told, back)
                change_response(request, response, told, content, is_ours=True)
                self._done(flow, "request", request.stream, "answered")
                return response
            told = an_object(frame.head.get("request"))
            changed = change_request(request, told, self._content(told, back))
        except HookError as error:
            self._failed(flow, "request", request.stream, error)
        except ValueError as error:
            self._failed(flow, "request", request.stream, HookError("refused", str(error)))
        else:
            if changed:
                self._done(flow, "request", request.stream, f"changed {', '.join(changed)}")
        return None

    async def response(
        self, flow: EditedFlow, request: Request, response: Response
    ) -> Ending | None:
        if not self.info.has("response") or not self._matches(flow, request, response):
            return None
        sent = Contents()
        told = {"request": request_told(request, sent), "response": response_told(response, sent)}
        try:
            frame = await self.ask(self._head("response", flow, **told), sent)
            told = an_object(frame.head.get("response"))
            content = self._content(told, Contents(frame.body))
            changed = change_response(request, response, told, content)
        except HookError as error:
            self._failed(flow, "response", request.stream, error)
        except ValueError as error:
            self._failed(flow, "response", request.stream, HookError("refused", str(error)))
        else:
            if changed:
                self._done(flow, "response", request.stream, f"changed {', '.join(changed)}")
        return None

    def edits_messages(self, flow: EditedFlow, request: Request) -> bool:
        switched = Response(status=101)
        return self.info.has("message") and self._matches(flow, request, switched)

    async def message(self, flow: EditedFlow, request: Request, message: Message) -> Ending | None:
        sent = Contents()
        told = {
            "request": request_told(request, sent),
            "direction": message.direction,
            "is_text": message.is_text,
            "length": sent.put(message.content),
        }
        try:
            frame = await self.ask(self._head("message", flow, **told), sent)
            content = self._bounded(Contents(frame.body).take(frame.head.get("length")))
            if content is not None and message.is_text:
                content.decode()
        except HookError as error:
            self._failed(flow, "message", request.stream, error)
        except ValueError as error:
            self._failed(flow, "message", request.stream, HookError("refused", str(error)))
        else:
            if content is not None:
                message.content = content
                self._done(flow, "message", request.stream, "changed content")
        return None

    def data(self, flow: EditedFlow, direction: Literal["up", "down"]) -> DataEditor | None:
        if not self.info.has("data") or carries_frames(flow.model):
            return None
        match = self.info.match
        if match and not match.root.value(Subject(flow.model, is_final=True)):
            return None
        return _ScriptData(self, flow, direction)

    async def change_data(
        self, flow: EditedFlow, direction: str, data: bytes, said: set[str]
    ) -> bytes:
        """What is sent instead of it. `said`: the kinds of events of this direction, which has one
        of each kind, however long it is."""
        sent = Contents()
        told = {"direction": direction, "length": sent.put(data)}
        failure: HookError | None = None
        changed: bytes | None = None
        try:
            frame = await self.ask(self._head("data", flow, **told), sent)
            changed = self._bounded(Contents(frame.body).take(frame.head.get("length")))
        except HookError as error:
            failure = error
        except ValueError as error:
            failure = HookError("refused", str(error))
        kind = failure.what if failure else "changed"
        if kind not in said and (failure or changed is not None):
            said.add(kind)
            if failure:
                self._failed(flow, "data", None, failure)
            else:
                self._done(flow, "data", None, "changed data")
        return data if changed is None else changed

    def _head(self, hook: str, flow: EditedFlow, **told: Any) -> dict[str, Any]:
        self.told.add(flow.model.number)
        return {"hook": hook, "flow": flow_told(flow.model), **told}

    def _content(self, told: Mapping[str, Any], back: Contents) -> bytes | None:
        """Raises ValueError."""
        return self._bounded(back.take(told.get("content")))

    def _bounded(self, content: bytes | None) -> bytes | None:
        """Raises ValueError."""
        return bounded(content, self.limit)


class _ScriptData:
    """One direction of another protocol."""

    holds = False
    delay_s = 0.0
    rate: float | None = None

    def __init__(
        self, script: HookEditor, flow: EditedFlow, direction: Literal["up", "down"]
    ) -> None:
        self._script = script
        self._flow = flow
        self._direction = direction
        self._said: set[str] = set()

    async def feed(self, data: bytes) -> bytes | Ending:
        return await self._script.change_data(self._flow, self._direction, data, self._said)

    async def flush(self) -> bytes:
        return b""
