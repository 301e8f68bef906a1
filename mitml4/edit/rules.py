"""Rules: which messages are meant, and what happens to them (docs/rules.md).

All rules that match apply, in their order; the first `respond`, `file`, `reset`, `close` or `hang`
ends it. What a rule matches is what the client has sent, not what earlier rules have made of it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final, Literal, TypeAlias
from urllib.parse import unquote

from mitml4.dataclass import dataclass
from mitml4.edit.allowance import Allowance, TooMuchError
from mitml4.edit.editor import Applied, DataEditor, EditedFlow, carries_frames
from mitml4.edit.files import Folder, media_type
from mitml4.edit.headers import Headers, check_field
from mitml4.edit.messages import Answer, Ending, Message, Request, Response, Server, plain_answer
from mitml4.edit.replace import Replacement, StreamReplacer
from mitml4.filter.expression import Filter, Subject
from mitml4.model import flow as model

__all__ = ["NO_RULES", "Fixed", "Place", "Replace", "Rule", "RuleEditor", "exchange_of"]

Place: TypeAlias = Literal[
    "request.body", "request.headers", "response.body", "response.headers", "message", "data"
]


@dataclass(frozen=True, slots=True)
class Fixed:
    """`respond`."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(frozen=True, slots=True)
class Replace:
    """`replace`."""

    where: Place
    replacement: Replacement


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule."""

    number: int
    source: str = ""
    """The file that it is in."""
    match: Filter | None = None
    """None: everything."""
    needs_response: bool = False
    """Whether it is known only with the response whether it matches."""
    set_request_headers: tuple[tuple[str, str], ...] = ()
    remove_request_headers: tuple[str, ...] = ()
    set_response_headers: tuple[tuple[str, str], ...] = ()
    remove_response_headers: tuple[str, ...] = ()
    to: Server | None = None
    file: tuple[str, ...] = ()
    """The parts of the path below the folder of the rules."""
    respond: Fixed | None = None
    replace: tuple[Replace, ...] = ()
    delay_s: float = 0.0
    rate: float | None = None
    ending: Ending | None = None

    @property
    def answers(self) -> bool:
        """Whether a request that it matches does not go to its own server."""
        return bool(self.to or self.file or self.respond)

    def edits_data(self, flow: model.Flow) -> bool:
        """Whether it says anything of other protocols than HTTP."""
        paces = self.delay_s or self.rate or self.ending
        return bool(paces or any(self.replaces_data(flow))) and not self.needs_response

    def may_match(self, flow: model.Flow, *, is_named: bool) -> bool:
        if self.match is None:
            return True
        return self.match.root.value(Subject(flow, is_named=is_named)) is not False

    def matches(self, flow: model.Flow, exchange: model.Exchange | None) -> bool:
        """By what is known now."""
        if self.match is None:
            return True
        return bool(self.match.root.value(Subject(flow, exchange, is_final=True)))

    def replaces(self, *places: Place) -> Iterator[Replace]:
        return (each for each in self.replace if each.where in places)

    def replaces_data(self, flow: model.Flow) -> Iterator[Replace]:
        return iter(()) if carries_frames(flow) else self.replaces("data")

    def applied(self, what: str, stream: int | None, reason: str | None = None) -> Applied:
        text = self.match.text if self.match else None
        return Applied(
            what=what,
            stream=stream,
            rule=self.number,
            file=self.source,
            match=text,
            reason=reason,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleEditor:
    """The rules of a file, as an `Editor`."""

    rules: tuple[Rule, ...] = ()
    folder: Folder | None = None
    """The folder of the file; None: no rule has `file`."""
    limit: int
    """Bytes of a body that is edited, or is answered with."""

    @property
    def may_wait(self) -> bool:
        return False

    def may_match(self, flow: model.Flow, *, is_named: bool) -> bool:
        return any(rule.may_match(flow, is_named=is_named) for rule in self.rules)

    def may_answer(self, flow: model.Flow, *, is_named: bool) -> bool:
        return any(rule.answers and rule.may_match(flow, is_named=is_named) for rule in self.rules)

    def edits_data(self, flow: model.Flow, *, is_named: bool) -> bool:
        return any(
            rule.edits_data(flow) and rule.may_match(flow, is_named=is_named) for rule in self.rules
        )

    def wants_body(self, flow: EditedFlow, request: Request, response: Response | None) -> bool:
        place: Place = "response.body" if response else "request.body"
        rules = [rule for rule in self.rules if any(rule.replaces(place))]
        return bool(rules) and any(self._matching(rules, flow, request, response))

    # HTTP

    async def request(self, flow: EditedFlow, request: Request) -> Answer | None:
        early = [rule for rule in self.rules if not rule.needs_response]
        for rule in self._matching(early, flow, request, None):
            self._pace(rule, flow, request, request.stream)
            self._edit(
                rule, flow, request, request.stream, "request",
                rule.set_request_headers, rule.remove_request_headers,
            )  # fmt: skip
            if rule.to:
                request.server = rule.to
                flow.applied(rule.applied("to", request.stream))
            if answer := self._answer(rule, request):
                what = answer.value if isinstance(answer, Ending) else _answers_by(rule)
                reason = None
                if isinstance(answer, Response) and rule.file and answer.status != 200:
                    reason = answer.reason
                flow.applied(rule.applied(what, request.stream, reason))
                if isinstance(answer, Response):
                    answer.delay_s, answer.rate = request.delay_s, request.rate
                return answer
        return None

    async def response(
        self, flow: EditedFlow, request: Request, response: Response
    ) -> Ending | None:
        for rule in self._matching(self.rules, flow, request, response):
            if rule.needs_response:
                self._pace(rule, flow, response, request.stream)
            elif rule.rate:
                response.rate = min(rule.rate, response.rate or rule.rate)
            self._edit(
                rule, flow, response, request.stream, "response",
                rule.set_response_headers, rule.remove_response_headers,
            )  # fmt: skip
            if rule.ending and rule.needs_response:
                flow.applied(rule.applied(rule.ending.value, request.stream))
                return rule.ending
        return None

    def _matching(
        self,
        rules: Sequence[Rule],
        flow: EditedFlow,
        request: Request,
        response: Response | None,
    ) -> Iterator[Rule]:
        exchange = exchange_of(request, response)
        return (rule for rule in rules if rule.matches(flow.model, exchange))

    def _pace(self, rule: Rule, flow: EditedFlow, message: Request | Response, stream: int) -> None:
        if rule.delay_s:
            message.delay_s += rule.delay_s
            flow.applied(rule.applied("delay", stream))
        if rule.rate:
            message.rate = min(rule.rate, message.rate or rule.rate)
            flow.applied(rule.applied("rate", stream))

    def _edit(
        self,
        rule: Rule,
        flow: EditedFlow,
        message: Request | Response,
        stream: int,
        side: Literal["request", "response"],
        to_set: Sequence[tuple[str, str]],
        to_remove: Sequence[str],
    ) -> None:
        headers = message.headers
        removed = [headers.discard(name) for name in to_remove]
        if any(removed):
            flow.applied(rule.applied(f"remove-{side}-headers", stream))
        for name, value in to_set:
            headers[name] = value
        if to_set:
            flow.applied(rule.applied(f"set-{side}-headers", stream))
        in_headers: Place = "request.headers" if side == "request" else "response.headers"
        in_body: Place = "request.body" if side == "request" else "response.body"
        try:
            for each in rule.replaces(in_headers):
                if _replace_in_headers(each.replacement, headers, self.limit, flow.allowance):
                    flow.applied(rule.applied(f"replace in {in_headers}", stream))
            for each in rule.replaces(in_body):
                if message.body is None:
                    continue
                replaced = each.replacement.apply(message.body, self.limit, flow.allowance)
                if replaced != message.body:
                    message.body = replaced
                    flow.applied(rule.applied(f"replace in {in_body}", stream))
        except (TooMuchError, ValueError) as error:
            flow.applied(rule.applied("not replaced", stream, str(error)))

    def _answer(self, rule: Rule, request: Request) -> Answer | None:
        if rule.ending:
            return rule.ending
        if rule.respond:
            fixed = rule.respond
            return Response(status=fixed.status, headers=Headers.of(fixed.headers), body=fixed.body)
        return self._file(rule.file, request) if rule.file else None

    def _file(self, parts: Sequence[str], request: Request) -> Response:
        """The file; in a folder, the one that the path of the URL names."""
        assert self.folder
        whole = list(parts)
        try:
            if self.folder.is_folder(whole):
                whole += unquote(request.path.partition("?")[0]).split("/")
            name, content = self.folder.read(whole, self.limit)
        except (OSError, ValueError) as error:
            is_missing = isinstance(error, OSError) and error.errno in _NOT_THERE
            reason = os.strerror(error.errno or 0) if isinstance(error, OSError) else str(error)
            text = f"{'/'.join(filter(None, whole))}: {reason}"
            return plain_answer(404 if is_missing else 502, text)
        return Response(
            status=200, headers=Headers.of([("Content-Type", media_type(name))]), body=content
        )

    # WebSocket

    def edits_messages(self, flow: EditedFlow, request: Request) -> bool:
        rules = [rule for rule in self.rules if any(rule.replaces("message"))]
        return bool(rules) and any(self._matching(rules, flow, request, _SWITCHED))

    async def message(self, flow: EditedFlow, request: Request, message: Message) -> Ending | None:
        rules = [rule for rule in self.rules if any(rule.replaces("message"))]
        for rule in self._matching(rules, flow, request, _SWITCHED):
            try:
                for each in rule.replaces("message"):
                    replaced = each.replacement.apply(message.content, self.limit, flow.allowance)
                    if replaced != message.content:
                        message.content = replaced
                        flow.applied(rule.applied("replace in message", request.stream))
            except TooMuchError as error:
                flow.applied(rule.applied("not replaced", request.stream, str(error)))
        return None

    # Other protocols

    def data(self, flow: EditedFlow, direction: Literal["up", "down"]) -> DataEditor | None:
        rules = self._data_rules(flow.model)
        return _RuleData(rules, flow, self.limit) if rules else None

    def _data_rules(self, flow: model.Flow) -> list[Rule]:
        return [rule for rule in self.rules if rule.edits_data(flow) and rule.matches(flow, None)]


NO_RULES: Final = RuleEditor(limit=0)
_SWITCHED: Final = Response(status=101)
_NOT_THERE: Final = (
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EPERM,
    errno.ELOOP,
    errno.ENAMETOOLONG,
)


class _RuleData:
    """Edits one direction of another protocol by rules."""

    def __init__(self, rules: Sequence[Rule], flow: EditedFlow, limit: int) -> None:
        self._flow = flow
        self._ending = next((rule for rule in rules if rule.ending), None)
        self._replacers = [
            (rule, StreamReplacer(each.replacement, limit, flow.allowance))
            for rule in rules
            for each in rule.replaces_data(flow.model)
        ]
        self._said: set[int] = set()
        self.delay_s = sum(rule.delay_s for rule in rules)
        self.rate = min((rule.rate for rule in rules if rule.rate), default=None)
        for rule in rules:
            for what, has in (("delay", rule.delay_s), ("rate", rule.rate)):
                if has:
                    flow.applied(rule.applied(what, None))

    @property
    def holds(self) -> bool:
        return any(replacer.holds for _, replacer in self._replacers)

    async def feed(self, data: bytes) -> bytes | Ending:
        if self._ending and self._ending.ending:
            self._flow.applied(self._ending.applied(self._ending.ending.value, None))
            return self._ending.ending
        return self._through(data, is_last=False)

    async def flush(self) -> bytes:
        return self._through(b"", is_last=True)

    def _through(self, data: bytes, *, is_last: bool) -> bytes:
        """Each replacement reads what the one before it has made."""
        for number, (rule, replacer) in enumerate(list(self._replacers)):
            try:
                data = replacer.feed(data) + (replacer.flush() if is_last else b"")
            except TooMuchError as error:
                data = replacer.rest()
                self._replacers.pop(number)
                self._flow.applied(rule.applied("not replaced", None, str(error)))
                # Those behind it go on with what is left.
                return self._through_rest(number, data, is_last=is_last)
            if replacer.count and rule.number not in self._said:
                self._said.add(rule.number)
                self._flow.applied(rule.applied("replace in data", None))
        return data

    def _through_rest(self, start: int, data: bytes, *, is_last: bool) -> bytes:
        for _, replacer in self._replacers[start:]:
            try:
                data = replacer.feed(data) + (replacer.flush() if is_last else b"")
            except TooMuchError:
                data = replacer.rest()
        return data


def _answers_by(rule: Rule) -> str:
    return "respond" if rule.respond else "file"


def exchange_of(request: Request, response: Response | None) -> model.Exchange:
    """What a filter sees of them: the request as the client has sent it."""
    now = datetime.now(UTC)
    method, url = request.sent
    return model.Exchange(
        depth=0,
        stream=request.stream,
        request=model.Request(method=method, url=url, version=request.version, time=now),
        response=None
        if response is None
        else model.Response(status=response.status, version=response.version, time=now),
    )


def _replace_in_headers(
    replacement: Replacement, headers: Headers, limit: int, allowance: Allowance
) -> bool:
    """In each field as `Name: value`. Raises ValueError for a result that is no field, TooMuchError
    for one of more than `limit` bytes in all, and changes nothing then."""
    changed: list[tuple[int, bytes, bytes]] = []
    left = limit
    for at, field in enumerate(headers.fields):
        line = b"%b: %b" % (field.name, field.value)
        replaced = replacement.apply(line, limit, allowance)
        if replaced != line:
            left -= len(replaced)
            if left < 0:
                raise TooMuchError(f"the result has more than {limit} bytes")
            name, _, value = (part.strip(b" \t") for part in replaced.partition(b":"))
            check_field(name, value)
            changed.append((at, name, value))
    for at, name, value in changed:
        headers.put(at, name, value)
    return bool(changed)
