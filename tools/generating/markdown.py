"""The reference of the command line, and the page of the events, in Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from generating.pages import EXIT_STATUS, VARIABLES, Page, pages
from mitml4.schema import json_schema

LIMITS: Final = (
    "`intercept`, `run` and `proxy` raise their limit of descriptors (`ulimit -n`) as far as "
    "possible. A connection takes two descriptors, so there are at most half as many connections; "
    "and no more than fit into a quarter of the memory at 32 KiB each. A session needs 64 "
    "descriptors, and 3 more for each further process of `--workers`; with fewer it does not "
    "start.",
    "Connections beyond `--max-flows` that come before the session accepts no more are relayed "
    "unseen. They have no number and no events, and are in no total.",
    "One client may have half of these connections, and a quarter of them to one server. With "
    "`run`, whose connections all come from one command, one server may have half of them. With "
    "`proxy`, all clients with a loopback address share one half, whichever servers they ask for.",
    "Half of each share is intercepted, but no more connections than fit into a quarter of the "
    "memory at 256 KiB each. Further connections are relayed unseen, and reported as passed "
    "through (`too many connections`). With `--block` they are inspected, but their TLS is not "
    "decrypted.",
    "When a client has used up its share, its further connections are refused. A note says so "
    "once, and the summary states their number.",
    "`detect` writes every event of a capture, however many there are, and its memory does not "
    "grow with them. (The events of live flows are limited, because other flows would wait.)",
    "With `intercept`, one client may start 1,000 connections to one server at once and 500 a "
    "second, and twice as many to all servers. The SYNs of further connections are dropped, and "
    "the client retransmits them.",
    "For the requests of an HTTP/1 connection that wait for their responses (pipelining) there are "
    "256 KiB of memory, enough for some 130 large or 400 small ones. With more of them the "
    "connection is relayed unseen, and a `flow.error` reports it.",
    "`intercept` reads the rules of others at its start. If a firewall that is loaded during a "
    "session drops intercepted connections, new ones pass by unseen until that changes; with "
    "`--block` they time out. A line on standard error reports it, with the rule to add.",
)


def reference() -> str:
    lines = [
        "<!-- Made by tools/generate.py from the command line's definition. -->",
        "",
        "# The command line",
        "",
        "Data goes to standard output, messages to standard error. Options of `mitml4` itself come",
        "before the command. Every option can be set by an environment variable; values of a",
        "repeatable option are separated by spaces. An empty variable counts as unset.",
        "",
    ]
    for page in pages():
        lines += _reference_of(page)
    lines += ["## Exit status", ""]
    lines += [f"- `{code}`: {text}" for code, text in EXIT_STATUS]
    lines += ["", "## Limits", ""]
    lines += [f"- {text}" for text in LIMITS]
    lines += ["", "## Environment", ""]
    lines += [f"- `{name}`: {text}" for name, text in VARIABLES]
    return "\n".join(lines) + "\n"


def _reference_of(page: Page) -> Iterator[str]:
    yield from (f"## {page.name}", "", f"`{page.usage}`", "", page.summary, "")
    for paragraph in page.text:
        yield from (_markdown(paragraph), "")
    for name, summary in page.commands:
        anchor = f"{page.name} {name}".replace(" ", "-")
        yield f"- [`{name}`](#{anchor}): {summary}"
    if page.commands:
        yield ""
    for title, options in page.sections.items():
        yield from (f"**{title}**", "")
        for option in options:
            variable = f" (`{option.variable}`)" if option.variable else ""
            yield f"- `{option.usage}`: {_markdown(option.help)}{variable}"
        yield ""
    if page.keys:
        yield from ("**Keys of the live table**", "")
        yield from (f"- `{keys}`: {_markdown(text)}" for keys, text in page.keys)
        yield ""
    if page.exit_status is not EXIT_STATUS:
        yield from ("**Exit status**", "")
        yield from (f"- `{code}`: {_markdown(text)}" for code, text in page.exit_status)
        yield ""
    yield from ("```sh", *page.examples, "```", "")


def _markdown(text: str) -> str:
    """Escape prose for Markdown; only code between backquotes is markup."""
    return re.sub(r"[*<]", r"\\\g<0>", text)


# The events


EVENTS_INTRODUCTION: Final = """\
<!-- Made by tools/generate.py from the classes of the events. -->

# The events

`--json` and `-o` write one compact JSON object per line. Each has `type`, `time` (RFC 3339, UTC,
microseconds), `v` (1), and all fields of its type; unknown values are `null`. Fields may be added
in later versions, but are never removed. Addresses are `{"ip": "…", "port": n}`; durations (`…_s`)
are in seconds, sizes in bytes; bytes that are not UTF-8 become `\\xNN`. `mitml4 schema` prints the
JSON Schema, with the type of each field.
"""


def events_page() -> str:
    schema = json_schema()
    definitions = schema["$defs"]
    lines = [
        EVENTS_INTRODUCTION,
        "| type | when | fields besides `type`, `time` and `v` |",
        "|---|---|---|",
    ]
    for item in schema["oneOf"]:
        event = _definition(item, definitions)
        names = [name for name in event["properties"] if name not in ("type", "time", "v")]
        kind = event["properties"]["type"]["const"]
        lines.append(f"| `{kind}` | {_cell(event)} | {_names(names)} |")
    lines += ["", "## `details` of `flow.layer`, by protocol", ""]
    lines += ["Protocols that are only named have none.", ""]
    lines += ["| protocol | content | fields |", "|---|---|---|"]
    for rule in definitions["flow.layer"]["allOf"]:
        protocol = rule["if"]["properties"]["protocol"]["const"]
        details = _definition(rule["then"]["properties"]["details"]["anyOf"][0], definitions)
        lines.append(f"| `{protocol}` | {_cell(details)} | {_names(list(details['properties']))} |")
    return "\n".join(lines) + "\n"


def _definition(reference: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    definition: dict[str, Any] = definitions[reference["$ref"].removeprefix("#/$defs/")]
    return definition


def _cell(definition: dict[str, Any]) -> str:
    return _markdown(definition["description"]).replace("|", "\\|")


def _names(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
