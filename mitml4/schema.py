"""The JSON Schema of the events, generated from their classes.

Every field is always present (null if unknown), so all are required. Fields may be added later, so
additional ones are allowed. The schema of `details` depends on the protocol, and comes from the
conversation of its row in the registry.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import Enum
from inspect import cleandoc
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from mitml4.events import EVENTS, VERSION, Event, FlowLayer, LayerEvent
from mitml4.payload.text import PayloadText
from mitml4.protocols.conversation import Details, LayerContext
from mitml4.protocols.datagrams.registry import PROTOCOLS as DATAGRAM_PROTOCOLS
from mitml4.protocols.protocol_event import ProtocolEvent
from mitml4.protocols.registry import EVENT_TYPES, PROTOCOLS
from mitml4.protocols.wire_text import CUT, MAX_ITEMS, MAX_PAIRS, MAX_TEXT

__all__ = ["json_schema"]

Schema = dict[str, Any]

_BOUNDS: Final = (
    f"A text of more than {MAX_TEXT} characters is cut after that number, and ends with {CUT}. "
    f"A list of more than {MAX_ITEMS} items is cut after that number, and its last item is {CUT}. "
    f"The headers of a message have at most {MAX_PAIRS} characters. "
    "What --payload shows is cut at its own limit instead."
)

_NULL: Final[Schema] = {"type": "null"}
_SCALARS: Final[dict[object, Schema]] = {
    str: {"type": "string"},
    PayloadText: {"type": "string"},
    bytes: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer", "minimum": 0},
    float: {"type": "number", "minimum": 0},
    type(None): _NULL,
    datetime: {"type": "string", "format": "date-time"},
}


def json_schema() -> Schema:
    """JSON Schema (draft 2020-12) of one line: an object of any of the event types."""
    definitions: dict[str, Schema] = {}
    for event in EVENTS:
        definitions[event.type] = _event(event, definitions)
    for content in EVENT_TYPES:
        definitions[content.type] = _layer_event(content, definitions)
    definitions[FlowLayer.type]["allOf"] = [
        _details(protocol, details, definitions)
        for protocol, details in _details_of_protocols().items()
    ]
    names = [*(event.type for event in EVENTS), *(content.type for content in EVENT_TYPES)]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "An event of mitml4",
        "description": _BOUNDS,
        "oneOf": [_reference(name) for name in names],
        "$defs": dict(sorted(definitions.items())),
    }


def _event(event: type[Event], definitions: dict[str, Schema]) -> Schema:
    return _object(event, _with_head(event.type, _properties(event, definitions)))


def _layer_event(content: type[ProtocolEvent], definitions: dict[str, Schema]) -> Schema:
    """The schema of a `LayerEvent`, in which the fields of `content` replace that field."""
    envelope = _properties(LayerEvent, definitions)
    del envelope["content"], envelope["_weight"]
    properties = envelope | _properties(content, definitions)
    return _object(content, _with_head(content.type, properties))


def _with_head(name: str, properties: dict[str, Schema]) -> dict[str, Schema]:
    """Put `type`, `time` and `v` first, as on the line."""
    return {"type": {"const": name}, "time": properties.pop("time"), "v": {"const": VERSION}} | (
        properties
    )


def _details_of_protocols() -> dict[str, type[Details]]:
    """The class of each protocol's details, by name, except for protocols that have none."""
    found = {}
    for row in (*PROTOCOLS, *DATAGRAM_PROTOCOLS):
        if row.converse is not None:
            details = get_type_hints(type(row.converse(LayerContext())).details)["return"]
            if details is not Details:
                found[row.name] = details
    return found


def _details(protocol: str, details: type[Details], definitions: dict[str, Schema]) -> Schema:
    return {
        "if": {"properties": {"protocol": {"const": protocol}}},
        "then": {"properties": {"details": _any_of([_of(details, definitions), _NULL])}},
    }


def _of(hint: Any, definitions: dict[str, Schema]) -> Schema:
    """The schema of a field's type; classes go into `definitions`."""
    if hint in _SCALARS:
        return _SCALARS[hint]
    if hint in (Details, ProtocolEvent):
        return {"type": "object"}
    if isinstance(hint, type) and issubclass(hint, Enum):
        return {"enum": [item.value for item in hint]}
    if is_dataclass(hint) and isinstance(hint, type):
        if hint.__name__ not in definitions:
            definitions[hint.__name__] = {}  # a class may hold itself
            definitions[hint.__name__] = _object(hint, _properties(hint, definitions))
        return _reference(hint.__name__)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (Union, types.UnionType):
        return _any_of([_of(item, definitions) for item in arguments])
    if origin is tuple:
        return _array(arguments, definitions)
    if origin is Mapping:
        return {"type": "object", "additionalProperties": _of(arguments[1], definitions)}
    raise TypeError(f"no JSON Schema for {hint!r}")


def _any_of(schemas: list[Schema]) -> Schema:
    """Prefer `{"type": ["string", "null"]}` to a list of two schemas, if possible."""
    if len(schemas) == 2 and schemas[1] == _NULL:
        if isinstance(kind := schemas[0].get("type"), str):
            return schemas[0] | {"type": [kind, "null"]}
        if "enum" in schemas[0]:
            return {"enum": [*schemas[0]["enum"], None]}
    return {"anyOf": schemas}


def _array(items: tuple[Any, ...], definitions: dict[str, Schema]) -> Schema:
    if items[1:] == (...,):
        return {"type": "array", "items": _of(items[0], definitions)}
    prefix = [_of(item, definitions) for item in items]
    return {"type": "array", "prefixItems": prefix, "items": False, "minItems": len(prefix)}


def _properties(cls: type[Any], definitions: dict[str, Schema]) -> dict[str, Schema]:
    hints = get_type_hints(cls)
    return {item.name: _of(hints[item.name], definitions) for item in fields(cls)}


def _object(cls: type[Any], properties: dict[str, Schema]) -> Schema:
    schema: Schema = {"type": "object", "required": list(properties), "properties": properties}
    return {"description": " ".join(cleandoc(cls.__doc__ or "").split())} | schema


def _reference(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}
