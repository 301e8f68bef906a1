"""What a session shows and writes."""

from __future__ import annotations

from typing import Final

from mitml4.cli.options.sections import SIZE, option
from mitml4.cli.values import File, Parsed, parse_condition, parse_output, parse_packets_output

__all__ = ["COMMAND_DISPLAY", "DISPLAY", "FILES", "HAR", "PLAIN", "SHOWN"]

HAR: Final = option(
    "Output",
    "--har",
    type=File(parse_output),
    help="Write the HTTP exchanges to this file as an HTTP archive for browsers' developer tools: "
    "headers, cookies, sizes and times; with --payload also bodies, forms, and the messages of "
    "WebSocket and gRPC. An existing file is replaced.",
)
PLAIN: Final = option(
    "Output",
    "--pcap-plain",
    type=File(parse_packets_output),
    metavar="FILE|tcp:HOST:PORT",
    help="Write what is said inside decrypted TLS to this file as packets without TLS, for tools "
    "that know no keys (Suricata, Zeek, tshark). tcp:HOST:PORT: send them to a program that waits "
    "there (PCAP over IP). An existing file is replaced.",
)
SHOWN: Final = (
    option("Output", "--headers", is_flag=True, help="Include HTTP headers in the events."),
    option(
        "Output",
        "--payload",
        is_flag=True,
        help="Include what is said in the events: bodies, messages, and the bytes of other "
        "innermost protocols.",
    ),
    option(
        "Output",
        "--payload-limit",
        type=SIZE,
        default="64KiB",
        show_default=True,
        help="Maximum bytes that --payload shows of each body, message or direction.",
    ),
    option(
        "Output",
        "--payload-total",
        type=SIZE,
        default="256MiB",
        show_default=True,
        help="Maximum bytes that --payload shows in all.",
    ),
    option(
        "Output",
        "--show-secrets",
        is_flag=True,
        help="Show passwords, cookies and the values of Authorization headers in the events and "
        "the HTTP archive, which otherwise have their length only.",
    ),
    option(
        "Output",
        "--filter",
        type=Parsed("expr", parse_condition),
        help="Show and write only the flows and HTTP exchanges that match, such as "
        "'host:*.example.com (method:POST or status:5xx)'. -w and --keylog are not filtered. "
        "docs/filter.md describes the language.",
    ),
)
DISPLAY: Final = (
    option(
        "Output",
        "--json",
        is_flag=True,
        help="Write the events to standard output as JSON lines. This is the default, except on a "
        "terminal, where the default is a live table.",
    ),
)
FILES: Final = (
    option(
        "Output",
        "-o",
        "--output",
        type=File(parse_output),
        help="Also write the events to this file as JSON lines. An existing file is replaced.",
    ),
    option(
        "Output",
        "--keylog",
        type=File(parse_output),
        help="Append the TLS secrets of both sides to this file, in the format that Wireshark "
        "reads.",
    ),
    option(
        "Output",
        "-w",
        "--write",
        type=File(parse_output),
        help="Write the packets of the connections to this file as pcapng, with the TLS secrets "
        "with which Wireshark decrypts them. An existing file is replaced.",
    ),
    HAR,
    PLAIN,
    *SHOWN,
)
COMMAND_DISPLAY: Final = (
    option(
        "Output",
        "-q",
        "--quiet",
        is_flag=True,
        help="Print only errors, and no line for each connection.",
    ),
    option(
        "Output",
        "--table",
        is_flag=True,
        help="Show a table instead of a line for each connection: on standard error, when the "
        "session ends; or live on the terminal, if standard output and standard error are both "
        "redirected.",
    ),
    option(
        "Output",
        "--json",
        is_flag=True,
        help="Write the events to standard error as JSON lines, instead of a line for each "
        "connection.",
    ),
)
