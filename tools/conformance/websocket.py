"""Run the cases of the Autobahn test suite, by kosoku, against an echo server on loopback.

    python tools/conformance/websocket.py RESULTS.json [CASE]…

The file has a line for each case: the verdicts on its messages and on its end, and the close code
that the server sent.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import kosoku
import kosoku.cases
from websockets.asyncio.server import ServerConnection, serve

AT_ONCE: Final = 2
MESSAGES_S: Final = 600
"""How long the messages of a case may take. Autobahn allows a minute for a thousand."""
# Of 9.* (limits) and 12.*, 13.* (compression), those that move megabytes and not gigabytes.
CASES: Final = (
    *("1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"),
    *("9.1.1", "9.1.2", "9.2.1", "9.2.2", "9.3.5", "9.4.5", "9.7.1", "9.8.1"),
    *(f"12.{group}.{case}" for group in range(1, 6) for case in (1, 10)),
    *(f"13.{group}.1" for group in range(1, 8)),
)


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


def allow_more_time() -> None:
    """Whether an answer comes is measured, and not how soon, which is the machine's."""
    every = {base for case in kosoku.cases.CASES.values() for base in case.mro()[:-1]}
    for case in every:
        if "WAITSECS" in vars(case):
            case.WAITSECS = MESSAGES_S
        elif case.__bases__ == (object,):
            case.WAITSECS = property(lambda _: MESSAGES_S, lambda _case, _seconds: None)


async def outcomes(names: Sequence[str]) -> dict[str, str]:
    logging.getLogger("websockets").setLevel(logging.CRITICAL)
    allow_more_time()
    async with serve(echo, "127.0.0.1", 0, max_size=1 << 25, ping_interval=None) as server:
        (listener,) = server.sockets
        url = f"ws://127.0.0.1:{listener.getsockname()[1]}"
        try:
            results = await kosoku.run_fuzzingclient(url, names or CASES, concurrency=AT_ONCE)
        except kosoku.FailureError as error:
            results = error.results
    return {each.case_id: verdict(each) for each in results}


def verdict(case: kosoku.CaseResult) -> str:
    """NON-STRICT is as good as OK: a server that reads two frames together may refuse the second
    before it answers the first, so that depends on the time."""
    messages = case.behavior.value.replace("NON-STRICT", "OK")
    return f"{messages}, {case.behavior_close.value}, close {case.remote_close_code}"


def main() -> None:
    results, *names = sys.argv[1:]
    Path(results).write_text(json.dumps(asyncio.run(outcomes(names))))


if __name__ == "__main__":
    main()
