"""Builds flows from events: from those of a session, and from the lines of a file alike."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import field
from datetime import UTC, datetime
from typing import Any, Final

from mitml4.address import Address
from mitml4.dataclass import dataclass
from mitml4.encoding import encode
from mitml4.events import NOT_APPLIED, Event
from mitml4.model.flow import (
    Body,
    Data,
    Edit,
    Exchange,
    Flow,
    Headers,
    Layer,
    Message,
    OtherEvent,
    Probe,
    Problem,
    Request,
    Response,
)

__all__ = ["FlowBuilder"]


@dataclass(slots=True)
class _Open:
    """A flow that has not closed, and its exchanges by depth and stream."""

    flow: Flow
    exchanges: dict[tuple[int, int], Exchange] = field(default_factory=dict)


@dataclass(slots=True)
class FlowBuilder:
    """Is given events in their order, and returns the flows that they end.

    Fields that it does not know are ignored, so that files of later versions can be read. Events
    that it does not know are ignored as well, except those of a layer, which are kept in
    `Flow.others`. The events of a flow whose `flow.open` is missing are ignored.
    """

    with_headers: bool = True
    """Whether to keep the headers of a session's events."""
    _open: dict[int, _Open] = field(default_factory=dict)

    def add(self, event: Event | Mapping[str, Any]) -> list[Flow]:
        """Take an event, or the object of its line. Returns the flow that it closes.

        `session.start` ends all flows of an earlier session, which is in the same file.

        Raises LookupError, OverflowError, TypeError or ValueError for an object that is no event:
        it lacks a field, or a value has another type.
        """
        said = (
            json.loads(encode(event, headers=self.with_headers))
            if isinstance(event, Event)
            else event
        )
        kind = said["type"]
        if kind == "session.start":
            return self.finish()
        if kind == "flow.open":
            return self._begin(said)
        handle = _HANDLERS.get(kind) or (_add_other if "depth" in said else None)
        if handle and (open_flow := self._open.get(_number(said["flow"]))):
            handle(open_flow, said)
            if kind == "flow.close":
                return [self._open.pop(said["flow"]).flow]
        return []

    def flow(self, number: int) -> Flow | None:
        """An open flow."""
        found = self._open.get(number)
        return found.flow if found else None

    def forget(self, number: int) -> None:
        """Remove a flow. Later events of it are ignored."""
        self._open.pop(number, None)

    def forget_exchange(self, number: int, key: tuple[int, int]) -> None:
        """Let later events of an exchange (its depth and stream) be ignored; the flow keeps it."""
        if found := self._open.get(number):
            found.exchanges.pop(key, None)

    def finish(self) -> list[Flow]:
        """The flows that are still open, in the order in which they opened. They are removed."""
        flows = [each.flow for each in self._open.values()]
        self._open.clear()
        return flows

    def _begin(self, said: Mapping[str, Any]) -> list[Flow]:
        """A flow opens; it replaces one with the same number that was never closed."""
        number = _number(said["flow"])
        replaced = self._open.pop(number, None)
        self._open[number] = _Open(
            Flow(
                number=number,
                client=_address(said["client"]),
                destination=_address(said["destination"]),
                opened_at=_time(said),
                name=_text_or_none(said, "name"),
                interface=_text_or_none(said, "interface"),
                transport=_text_or_none(said, "transport") or "tcp",
                process=_dict_or_none(said, "process"),
                container=_text_or_none(said, "container"),
                side=_text_or_none(said, "side"),
                session_flow=_int_or_none(said, "session_flow"),
            )
        )
        return [replaced.flow] if replaced else []


_LIMIT: Final = 1 << 63


def _add_layer(to: _Open, said: Mapping[str, Any]) -> None:
    to.flow.layers.append(
        Layer(
            depth=_number(said["depth"]),
            protocol=_text(said["protocol"]),
            action=_text(said["action"]),
            speaker=_text(said["speaker"]),
            details=_dict_or_none(said, "details") or {},
            connect_s=_seconds_or_none(said, "connect_s"),
            time=_time(said),
        )
    )
    to.flow.layers.sort(key=lambda layer: layer.depth)


def _add_request(to: _Open, said: Mapping[str, Any]) -> None:
    exchange = Exchange(
        depth=_number(said["depth"]),
        stream=_number(said["stream"]),
        request=Request(
            method=_text(said["method"]),
            url=_text(said["url"]),
            version=_text(said["version"]),
            content_type=_text_or_none(said, "content_type"),
            headers=_headers(said.get("headers")),
            time=_time(said),
        ),
    )
    to.exchanges[exchange.depth, exchange.stream] = exchange
    to.flow.exchanges.append(exchange)


def _add_response(to: _Open, said: Mapping[str, Any]) -> None:
    if not (exchange := _exchange(to, said)):
        return
    if exchange.response:
        exchange.informational.append(exchange.response)
    exchange.response = Response(
        status=_number(said["status"]),
        version=_text(said["version"]),
        content_type=_text_or_none(said, "content_type"),
        headers=_headers(said.get("headers")),
        time=_time(said),
    )


def _add_body(to: _Open, said: Mapping[str, Any]) -> None:
    exchange = _exchange(to, said)
    part = exchange and (exchange.request if said["side"] == "request" else exchange.response)
    if part:
        part.body = Body(
            size=_number(said["size"]), charset=_text_or_none(said, "charset"), **_coded(said)
        )


def _end_exchange(to: _Open, said: Mapping[str, Any]) -> None:
    if not (exchange := _exchange(to, said)):
        return
    exchange.outcome = _text_or_none(said, "outcome") or "complete"
    exchange.reset_code = _text_or_none(said, "reset_code")
    exchange.duration_s = _seconds(said["duration_s"])
    exchange.request_s = _seconds_or_none(said, "request_s")
    exchange.request.body_bytes = _number(said["request_bytes"])
    exchange.request.trailers = _headers(said.get("request_trailers"))
    if exchange.response:
        exchange.response.body_bytes = _number(said["response_bytes"])
        exchange.response.trailers = _headers(said.get("trailers"))


def _add_message(to: _Open, said: Mapping[str, Any]) -> None:
    to.flow.messages.append(
        Message(
            protocol=said["type"].partition(".")[0],
            depth=_number(said["depth"]),
            stream=_int_or_none(said, "stream"),
            direction=_direction(said),
            opcode=_text_or_none(said, "opcode"),
            compressed=bool(said["compressed"]) if "compressed" in said else None,
            size=_number(said["size"]),
            time=_time(said),
            **_coded(said),
        )
    )


def _add_data(to: _Open, said: Mapping[str, Any]) -> None:
    to.flow.data.append(
        Data(
            depth=_number(said["depth"]),
            direction=_direction(said),
            offset=_number(said["offset"]),
            time=_time(said),
            **_content(said),
        )
    )


def _add_other(to: _Open, said: Mapping[str, Any]) -> None:
    common = {"type", "v", "flow", "depth", "time"}
    to.flow.others.append(
        OtherEvent(
            type=_text(said["type"]),
            depth=_number(said["depth"]),
            time=_time(said),
            details={name: value for name, value in said.items() if name not in common},
        )
    )


def _add_problem(to: _Open, said: Mapping[str, Any]) -> None:
    texts = {name: _text(said[name]) for name in ("side", "stage", "kind", "reason")}
    to.flow.problems.append(Problem(depth=_number(said["depth"]), time=_time(said), **texts))


def _add_edit(to: _Open, said: Mapping[str, Any]) -> None:
    to.flow.edits.append(
        Edit(
            depth=_number(said["depth"]),
            stream=_int_or_none(said, "stream"),
            rule=_int_or_none(said, "rule"),
            file=_text_or_none(said, "file"),
            match=_text_or_none(said, "match"),
            hook=_text_or_none(said, "hook"),
            what=_text(said["what"]),
            reason=_text_or_none(said, "reason"),
            time=_time(said),
            is_change=said["type"] == "rule.applied" and said["what"] not in NOT_APPLIED,
        )
    )


def _add_probe(to: _Open, said: Mapping[str, Any]) -> None:
    texts = {name: _text(said[name]) for name in ("name", "case", "outcome")}
    reason = _text_or_none(said, "reason")
    to.flow.probes.append(Probe(**texts, reason=reason, time=_time(said)))


def _close(to: _Open, said: Mapping[str, Any]) -> None:
    flow = to.flow
    flow.reason = _text(said["reason"])
    flow.closed_at = _time(said)
    flow.bytes_up, flow.bytes_down = _number(said["bytes_up"]), _number(said["bytes_down"])
    flow.duration_s = _seconds(said["duration_s"])


_HANDLERS: Final[dict[str, Callable[[_Open, Mapping[str, Any]], None]]] = {
    "flow.layer": _add_layer,
    "flow.data": _add_data,
    "flow.error": _add_problem,
    "rule.applied": _add_edit,
    "client.probe": _add_probe,
    "script.error": _add_edit,
    "flow.close": _close,
    "http.request": _add_request,
    "http.response": _add_response,
    "http.body": _add_body,
    "http.end": _end_exchange,
    "websocket.message": _add_message,
    "grpc.message": _add_message,
}


def _exchange(to: _Open, said: Mapping[str, Any]) -> Exchange | None:
    return to.exchanges.get((_number(said["depth"]), _number(said["stream"])))


def _content(said: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "text": _text_or_none(said, "text"),
        "base64": _base64(said),
        "truncated": bool(said.get("truncated")),
    }


def _coded(said: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "decoded_size": _int_or_none(said, "decoded_size"),
        "encoding": tuple(map(_text, said.get("encoding") or ())),
        "coding_error": _text_or_none(said, "coding_error"),
        **_content(said),
    }


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is no text")
    return value


def _number(value: Any) -> int:
    if not isinstance(value, int) or not 0 <= value < _LIMIT:
        raise ValueError(f"{value!r:.40} is no number")
    return value


def _seconds(value: Any) -> float:
    if not isinstance(value, int | float) or not abs(value) < _LIMIT:
        raise ValueError(f"{value!r:.40} is no duration")
    return value


def _seconds_or_none(said: Mapping[str, Any], name: str) -> float | None:
    value = said.get(name)
    return None if value is None else _seconds(value)


def _text_or_none(said: Mapping[str, Any], name: str) -> str | None:
    value = said.get(name)
    return None if value is None else _text(value)


def _int_or_none(said: Mapping[str, Any], name: str) -> int | None:
    value = said.get(name)
    return None if value is None else _number(value)


def _dict_or_none(said: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    value = said.get(name)
    if not isinstance(value, dict | None):
        raise TypeError(f"{value!r:.40} is no object")
    return value


def _direction(said: Mapping[str, Any]) -> str:
    direction = said["direction"]
    if direction not in ("up", "down"):
        raise ValueError(f"{direction!r:.40} is no direction")
    return str(direction)


def _base64(said: Mapping[str, Any]) -> str | None:
    encoded = _text_or_none(said, "base64")
    b64decode(encoded or "", validate=True)
    return encoded


def _headers(pairs: Any) -> Headers | None:
    return None if pairs is None else tuple((_text(name), _text(value)) for name, value in pairs)


def _address(said: Mapping[str, Any]) -> Address:
    return Address(_text(said["ip"]), _number(said["port"]))


def _time(said: Mapping[str, Any]) -> datetime:
    time = datetime.fromisoformat(said["time"])
    if time.tzinfo is None:
        raise ValueError(f"{time} has no time zone")
    return time.astimezone(UTC)
