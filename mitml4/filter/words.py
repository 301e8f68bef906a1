"""The words of filters: what each takes, and what it is compared with."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from mitml4.dataclass import dataclass
from mitml4.events import FAILURES
from mitml4.filter.expression import Subject
from mitml4.filter.patterns import (
    Letter,
    Letters,
    Numbers,
    glob,
    host,
    literal,
    port,
    size,
    split,
    status,
)
from mitml4.model.flow import Flow
from mitml4.model.names import server_of
from mitml4.model.urls import split_url
from mitml4.protocols.policy import Target

__all__ = ["BARE", "COMPARISONS", "WORDS", "Test", "Word"]

Test: TypeAlias = Callable[[Subject], bool | None]

COMPARISONS: Final = ("<=", ">=", "<", ">", "=")


@dataclass(frozen=True, slots=True)
class Word:
    """A word: makes a test from its value."""

    make: Callable[[Letters], Test]
    """Raises ValueError for a wrong value."""
    compare: Callable[[str, str], Test] | None = None
    """The same from a comparison and a value; None: it has no order."""


# --- what a subject has ------------------------------------------------------------------------


def _targets(flow: Flow) -> Iterator[Target]:
    """The servers by all their names. HTTP's layers are left out: each request names its own."""
    destination = flow.destination
    yield Target(destination.ip, destination.port)
    if flow.name:
        yield Target(flow.name, destination.port)
    known = Target(destination.ip, destination.port)
    for layer in flow.layers:
        if not layer.protocol.startswith("http/") and (named := server_of(layer.details, known)):
            known = named
            yield named


def _hosts(subject: Subject) -> Iterator[str]:
    for target in _targets(subject.flow):
        yield target.host
    if subject.exchange and (name := split_url(subject.exchange.request.url)[0]):
        yield name


def _ports(subject: Subject) -> Iterator[int]:
    for target in _targets(subject.flow):
        yield target.port
    if subject.exchange and (port := _port(subject.exchange.request.url)) is not None:
        yield port


def _port(url: str) -> int | None:
    try:
        parts = urlsplit(url)
        return parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return None


def _states(subject: Subject) -> Iterator[str]:
    """`open` is one only for what is known now: every flow of a session closes."""
    flow = subject.flow
    if flow.reason is not None:
        yield flow.reason
    elif subject.is_final:
        yield "open"
    if flow.problems or flow.reason in FAILURES:
        yield "failed"
    if flow.is_edited:
        yield "edited"
    yield from (probe.outcome for probe in flow.probes)
    yield from (layer.action for layer in flow.layers if layer.action != "relayed")
    if flow.passthrough:
        yield flow.passthrough


def _process(flow: Flow) -> Iterator[str]:
    process = flow.process or {}
    for key in ("name", "pid"):
        if process.get(key) is not None:
            yield str(process[key])
    match process.get("command"):
        case str() as command:
            yield command
        case list() as arguments:
            yield " ".join(map(str, arguments))


def _size(subject: Subject) -> int | None:
    """The bytes of an exchange's bodies or, where there are no exchanges, of the flow; None while
    they are not known."""
    flow, exchange = subject.flow, subject.exchange
    if exchange is None:
        return None if flow.is_open else flow.bytes_up + flow.bytes_down
    if not exchange.ended and flow.is_open:
        return None
    response = exchange.response
    return (exchange.request.body_bytes or 0) + ((response and response.body_bytes) or 0)


# --- tests -------------------------------------------------------------------------------------


def _known_by_request(subject: Subject, found: bool) -> bool | None:
    """What a request says is known with it."""
    is_known = subject.exchange or subject.is_named
    return found if is_known else subject.until_close(found)


def _any(tests: Iterable[Callable[[str], bool]], texts: Iterable[str]) -> bool:
    tests = list(tests)
    return any(test(text) for text in texts for test in tests)


def _list(letters: Letters) -> list[Letters]:
    """The items of `a,b`."""
    parts = split(letters, ",")
    if not all(parts):
        raise ValueError("there is nothing beside a comma")
    return parts


def _make_host(letters: Letters) -> Test:
    tests = [host(part) for part in _list(letters)]
    return lambda subject: _known_by_request(subject, _any(tests, _hosts(subject)))


def _make_protocol(letters: Letters) -> Test:
    tests = [glob(part) for part in _list(letters)]
    return lambda subject: subject.until_close(_any(tests, subject.flow.stack))


def _make_stack(letters: Letters) -> Test:
    """Layers that follow one another. Quoted as well, `"socks5 › tls"` is what tables show."""
    unquoted = [Letter(each.char, each.at) for each in letters if not each.char.isspace()]
    parts = split(unquoted, "›", ">")
    if not all(parts):
        raise ValueError("a layer is missing beside ›")
    tests = [glob(part) for part in parts]

    def test(subject: Subject) -> bool | None:
        stack = subject.flow.stack
        starts = range(len(stack) - len(tests) + 1)
        return subject.until_close(
            any(
                all(each(stack[start + number]) for number, each in enumerate(tests))
                for start in starts
            )
        )

    return test


def _make_method(letters: Letters) -> Test:
    tests = [glob(part) for part in _list(letters)]
    return lambda subject: (
        _any(tests, [subject.exchange.request.method])
        if subject.exchange
        else subject.until_close(False)
    )


def _make_path(letters: Letters) -> Test:
    """With or without the query."""
    test = glob(letters, fold=False)

    def matches(subject: Subject) -> bool | None:
        if not subject.exchange:
            return subject.until_close(False)
        path = split_url(subject.exchange.request.url)[1]
        return test(path) or test(path.partition("?")[0])

    return matches


def _make_state(letters: Letters) -> Test:
    tests = [glob(part) for part in _list(letters)]
    return lambda subject: subject.until_close(_any(tests, _states(subject)))


def _make_process(letters: Letters) -> Test:
    tests = [glob(part) for part in _list(letters)]
    return lambda subject: _any(tests, _process(subject.flow))


def _make_bare(letters: Letters) -> Test:
    test = glob(letters, anywhere=True)

    def matches(subject: Subject) -> bool | None:
        texts = list(_hosts(subject))
        if subject.exchange:
            texts.append(subject.exchange.request.url)
        return _known_by_request(subject, any(map(test, texts)))

    return matches


def _port_is(wanted: list[Numbers]) -> Test:
    return lambda subject: _known_by_request(
        subject, any(port in each for port in _ports(subject) for each in wanted)
    )


def _status_is(wanted: list[Numbers]) -> Test:
    def test(subject: Subject) -> bool | None:
        exchange = subject.exchange
        if not (exchange and exchange.response):
            return subject.until_end(False)
        seen = [*exchange.informational, exchange.response]
        found = any(response.status in each for response in seen for each in wanted)
        last = exchange.response.status
        return found if last >= 200 or last == 101 else subject.until_end(found)

    return test


def _size_is(wanted: list[Numbers]) -> Test:
    def test(subject: Subject) -> bool | None:
        value = _size(subject)
        return subject.until_end(False) if value is None else any(value in each for each in wanted)

    return test


def _numeric(parse: Callable[[str], Numbers], test: Callable[[list[Numbers]], Test]) -> Word:
    """A word whose values are numbers: `443`, `443,8000-8999`, and comparisons."""

    def make(letters: Letters) -> Test:
        return test([_range(parse, part) for part in _list(letters)])

    def compare(comparison: str, text: str) -> Test:
        value = parse(text)
        below, above = Numbers(-math.inf, value.first - 1), Numbers(value.last + 1, math.inf)
        meant = {
            "<": below,
            "<=": Numbers(-math.inf, value.last),
            ">": above,
            ">=": Numbers(value.first, math.inf),
            "=": value,
        }
        return test([meant[comparison]])

    return Word(make, compare)


def _range(parse: Callable[[str], Numbers], letters: Letters) -> Numbers:
    """From `400` or `400-499`."""
    parts = split(letters, "-")
    if len(parts) > 2 or not all(parts):
        raise ValueError(f"{literal(letters)} is no range")
    ends = [parse(literal(part)) for part in parts]
    if ends[0].first > ends[-1].last:
        raise ValueError(f"{literal(letters)} ends before it begins")
    return Numbers(ends[0].first, ends[-1].last)


WORDS: Final[dict[str, Word]] = {
    "host": Word(_make_host),
    "port": _numeric(port, _port_is),
    "stack": Word(_make_stack),
    "protocol": Word(_make_protocol),
    "method": Word(_make_method),
    "status": _numeric(status, _status_is),
    "path": Word(_make_path),
    "state": Word(_make_state),
    "process": Word(_make_process),
    "size": _numeric(size, _size_is),
}

BARE: Final = Word(_make_bare)
"""A word without a name: it is searched in names and URLs."""
