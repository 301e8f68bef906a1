"""Rules from TOML (docs/rules.md).

Errors say the line and the column. `tomllib` does not tell where a value stood, so the place of a
key is looked for in the text: the heading of its rule, and then the key at the start of a line.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from typing import Any, Final, NoReturn, TypeVar, cast, get_args
from urllib.parse import urlsplit

from mitml4.dataclass import dataclass
from mitml4.edit.files import Folder
from mitml4.edit.headers import check_field
from mitml4.edit.messages import Ending, Server
from mitml4.edit.replace import Replacement
from mitml4.edit.rules import Fixed, Place, Replace, Rule
from mitml4.errors import UsageError
from mitml4.filter.expression import Filter
from mitml4.filter.parser import FilterError, parse_filter
from mitml4.regex import regex

__all__ = ["MAX_RULES_BYTES", "RulesError", "parse_rules"]

MAX_RULES_BYTES: Final = 1 << 20
_MAX_RULES: Final = 1000
_MAX_DELAY_S: Final = 600.0
_MIN_RATE: Final = 1.0

_TOML: Final = "https://toml.io describes the language of the file"

_UNITS_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0}
_DURATION: Final = regex(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?(ms|s|m)")
_RATE: Final = regex(r"([0-9]{1,12}(?:\.[0-9]{1,9})?) ?([kMG]?)(i?)B/s")
_FACTORS: Final = {"": 0, "k": 1, "M": 2, "G": 3}
_AT: Final = regex(r"(.*) \(at line ([0-9]+), column ([0-9]+)\)")
_AT_END: Final = regex(r"(.*) \(at end of document\)")
_HEADING: Final = regex(r"[ \t]*\[\[[ \t]*rule[ \t]*\]\]")
_REPLACE_PLACES: Final[tuple[Place, ...]] = get_args(Place)
_OF_RESPONSE: Final = ("status",)
"""Words of filters whose value is known only with the response."""
_UNKNOWN: Final = ("size", "state")
"""Words whose value is known only when it is too late to change anything."""
_REQUEST_KEYS: Final = ("set-request-headers", "remove-request-headers", "to", "file", "respond")
_LAST_KEYS: Final = ("respond", "file", "reset", "close", "hang")

T = TypeVar("T")


class RulesError(UsageError):
    """A file of rules that cannot be used; the message begins with the file, the line and the
    column."""


def parse_rules(name: str, content: bytes, folder: Folder | None = None) -> tuple[Rule, ...]:
    """The rules of a file. `name` is for errors. `folder`: the file's, where it is known whether
    files exist. Raises RulesError."""
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise RulesError(f"{name}:{line}:1: not UTF-8", hint=_TOML) from None
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RulesError(f"{name}:{_toml_place(str(error), text)}", hint=_TOML) from None
    except RecursionError:
        message = f"{name}:1:1: too many brackets within one another"
        raise RulesError(message, hint=_TOML) from None
    return _Reader(name, text, folder).read(document)


def _toml_place(message: str, text: str) -> str:
    if found := _AT.fullmatch(message):
        return f"{found[2]}:{found[3]}: {found[1]}"
    if found := _AT_END.fullmatch(message):
        lines = text.split("\n")
        return f"{len(lines)}:{len(lines[-1]) + 1}: {found[1]}"
    return f"1:1: {message}"


class _WrongValueError(Exception):
    """A value that cannot be used. `at`: the place of the fault in a text."""

    def __init__(self, message: str, at: int | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.at = at
        self.hint = hint


@dataclass(slots=True)
class _Reader:
    """Makes rules of a document."""

    name: str
    text: str
    folder: Folder | None

    def read(self, document: dict[str, Any]) -> tuple[Rule, ...]:
        for key in document:
            if key != "rule":
                self._fail(0, key, f"unknown key {key!r}", "each rule begins with [[rule]]")
        tables = document.get("rule", [])
        if not isinstance(tables, list) or not all(isinstance(each, dict) for each in tables):
            self._fail(0, "rule", "rules begin with [[rule]], in two brackets")
        if len(tables) > _MAX_RULES:
            self._fail(_MAX_RULES, None, f"more than {_MAX_RULES} rules")
        return tuple(self._rule(number, table) for number, table in enumerate(tables, 1))

    def _rule(self, number: int, table: dict[str, Any]) -> Rule:
        made: dict[str, Any] = {}
        for key, value in table.items():
            reader = _READERS.get(key)
            if reader is None:
                self._fail(number, key, f"unknown key {key!r}", f"there are: {', '.join(_READERS)}")
            try:
                made[_FIELDS.get(key, key.replace("-", "_"))] = reader(value)
            except _WrongValueError as wrong:
                self._fail(number, key, f"{key}: {wrong}", wrong.hint, wrong.at)
        self._check(number, table, made)
        for key in ("reset", "close", "hang"):
            if made.pop(key, False):
                made["ending"] = Ending(key)
        match = made.get("match")
        return Rule(number=number, source=self.name, needs_response=_needs_response(match), **made)

    def _check(self, number: int, table: dict[str, Any], made: dict[str, Any]) -> None:
        match: Filter | None = made.get("match")
        for condition in match.root.conditions() if match else ():
            if condition.word in _UNKNOWN:
                said = f"match: {condition.word}: is known only when it is too late to act"
                self._fail(number, "match", said, None, condition.at)
            if condition.word in _OF_RESPONSE:
                self._refuse_request_keys(number, table, made, condition.word)
        ends = [key for key in _LAST_KEYS if table.get(key, False) is not False]
        if len(ends) > 1:
            self._fail(number, ends[1], f"{ends[1]} and {ends[0]} are two ends of one rule")
        if "to" in table and ends:
            self._fail(number, "to", f"to has no effect beside {ends[0]}")
        if not any(value for key, value in made.items() if key != "match"):
            self._fail(number, None, "this rule does nothing")
        if made.get("file") and self.folder:
            try:
                self.folder.is_folder(list(made["file"]))
            except OSError as error:
                reason = error.strerror
                self._fail(number, "file", f"file: {'/'.join(made['file'])}: {reason}")

    def _refuse_request_keys(
        self, number: int, table: dict[str, Any], made: dict[str, Any], word: str
    ) -> None:
        """What is known only of a response cannot say what happens to its request."""
        keys: list[str] = [key for key in _REQUEST_KEYS if key in table]
        if any(not each.where.startswith("response") for each in made.get("replace", ())):
            keys.append("replace")
        if keys:
            said = f"{keys[0]} is done to a request, and {word}: is known only of its response"
            self._fail(number, keys[0], said, "make two rules of it")

    def _fail(
        self,
        number: int,
        key: str | None,
        message: str,
        hint: str | None = None,
        at: int | None = None,
    ) -> NoReturn:
        line, column = _place(self.text, number, key, at)
        raise RulesError(f"{self.name}:{line}:{column}: {message}", hint=hint or _HINT)


_HINT: Final = "docs/rules.md describes the rules"


def _needs_response(match: Filter | None) -> bool:
    conditions = match.root.conditions() if match else ()
    return any(condition.word in _OF_RESPONSE for condition in conditions)


def _place(text: str, number: int, key: str | None, at: int | None) -> tuple[int, int]:
    """The line and the column of a key of a rule, or of a place in its value; from 1."""
    lines = text.split("\n")
    start, seen = 0, 0
    for index, line in enumerate(lines):
        if _HEADING.match(line):
            seen += 1
            if seen == number:
                start = index
                break
    if key is not None:
        escaped = re.escape(key)
        patterns = (  # the key at the start of a line, or else in a table in one line
            rf"[ \t]*[\"']?({escaped})[\"']?[ \t]*=[ \t]*",
            rf".*?[{{,][ \t]*({escaped})[ \t]*=[ \t]*",
        )
        for pattern in patterns:
            for index in range(start, len(lines)):
                if index > start and _HEADING.match(lines[index]) and number:
                    break
                if found := re.match(pattern, lines[index]):
                    column = found.end() + 2 + at if at is not None else found.start(1) + 1
                    return index + 1, column
    return start + 1, 1


# --- values ------------------------------------------------------------------------------------


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _WrongValueError("a text in quotes is needed")
    return value


def _match(value: Any) -> Filter:
    try:
        return parse_filter(_text(value))
    except FilterError as error:
        raise _WrongValueError(error.message, error.at, error.hint) from None


def _fields(value: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict):
        raise _WrongValueError('a table is needed, as in: { "X-Debug" = "1" }')
    fields = tuple((name, _text(content)) for name, content in value.items())
    for name, content in fields:
        if name.startswith(":"):
            raise _WrongValueError(f"{name} is no header field that can be set")
        if name.lower() in _FRAMING:
            raise _WrongValueError(f"{name} follows the body, and cannot be set")
        _check_field(name, content)
    return fields


def _check_field(name: str, content: str = "") -> None:
    try:
        check_field(name.encode(), content.encode())
    except ValueError as error:
        raise _WrongValueError(str(error)) from None


_FRAMING: Final = ("content-length", "transfer-encoding")


def _names(value: Any) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(each, str) for each in names):
        raise _WrongValueError('a list of names is needed, as in: ["Cookie"]')
    for name in names:
        if name.startswith(":") or name.lower() in _FRAMING:
            raise _WrongValueError(f"{name} cannot be removed")
        _check_field(name)
    return tuple(names)


def _server(value: Any) -> Server:
    text = _text(value)
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError as error:
        raise _WrongValueError(f"{text}: {error}") from None
    if url.scheme not in ("http", "https") or not url.hostname:
        raise _WrongValueError(f"{text!r} is no URL of a server", None, "http://127.0.0.1:8000")
    if url.query or url.fragment or url.username is not None:
        raise _WrongValueError("only a scheme, a host, a port and a path can be given")
    if not text.isascii() or any(char <= " " for char in text):
        raise _WrongValueError("only characters of ASCII, without blanks")
    return Server(
        cast("Any", url.scheme),
        url.hostname,
        port if port is not None else {"http": 80, "https": 443}[url.scheme],
        url.path.rstrip("/"),
    )


def _file(value: Any) -> tuple[str, ...]:
    text = _text(value)
    parts = tuple(part for part in text.split("/") if part not in ("", "."))
    if text.startswith("/") or ".." in parts or "\0" in text:
        raise _WrongValueError("it has to be in the folder of the rules, or below it")
    if not parts and text not in (".", "./"):
        raise _WrongValueError("the name is empty")
    return parts or (".",)


def _respond(value: Any) -> Fixed:
    if not isinstance(value, dict):
        raise _WrongValueError('a table is needed, as in: { status = 503, body = "down" }')
    for key in value:
        if key not in ("status", "headers", "body"):
            raise _WrongValueError(f"unknown key {key!r}; there are status, headers, body")
    status = value.get("status", 200)
    if not isinstance(status, int) or isinstance(status, bool) or not 200 <= status <= 999:
        raise _WrongValueError("a status is a number from 200 to 999")
    body = _text(value.get("body", "")).encode()
    if body and status in (204, 304):  # RFC 9110 §15.3.5, §15.4.5
        raise _WrongValueError(f"a response with status {status} has no body")
    return Fixed(status, _fields(value.get("headers", {})), body)


def _replace(value: Any) -> tuple[Replace, ...]:
    tables = value if isinstance(value, list) else [value]
    return tuple(map(_one_replace, tables))


def _one_replace(value: Any) -> Replace:
    example = '{ in = "response.body", regex = "prod", with = "dev" }'
    if not isinstance(value, dict) or set(value) != {"in", "regex", "with"}:
        raise _WrongValueError(f"a table with in, regex and with is needed, as in: {example}")
    where = value["in"]
    if where not in _REPLACE_PLACES:
        raise _WrongValueError(f"in: there are {', '.join(_REPLACE_PLACES)}")
    expression, with_ = _text(value["regex"]), _text(value["with"])
    if where.endswith("headers") and any(char in with_ for char in "\r\n\0"):
        raise _WrongValueError("with: a header field has no CR, LF or NUL")
    try:
        return Replace(where, Replacement.of(expression, with_))
    except ValueError as error:
        raise _WrongValueError(f"regex: {error}") from None


def _delay(value: Any) -> float:
    found = _DURATION.fullmatch(_text(value))
    if found is None:
        raise _WrongValueError("a duration is needed, as in: 1500ms  2s")
    seconds = float(found[1]) * _UNITS_S[found[2]]
    if seconds > _MAX_DELAY_S:
        raise _WrongValueError("no more than 10m")
    return seconds


def _rate(value: Any) -> float:
    found = _RATE.fullmatch(_text(value).replace("KB", "kB").replace("KiB", "kiB"))
    if found is None:
        raise _WrongValueError("a rate is needed, as in: 50KB/s  1MiB/s")
    rate: float = float(found[1]) * (1024 if found[3] else 1000) ** _FACTORS[found[2]]
    if rate < _MIN_RATE:
        raise _WrongValueError("no less than 1B/s; hang sends nothing")
    return rate


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _WrongValueError("true or false")
    return value


_READERS: Final[dict[str, Callable[[Any], Any]]] = {
    "match": _match,
    "set-request-headers": _fields,
    "remove-request-headers": _names,
    "set-response-headers": _fields,
    "remove-response-headers": _names,
    "to": _server,
    "file": _file,
    "respond": _respond,
    "replace": _replace,
    "delay": _delay,
    "rate": _rate,
    "reset": _flag,
    "close": _flag,
    "hang": _flag,
}
_FIELDS: Final = {"delay": "delay_s"}
"""Where the field of a rule has another name than its key."""
