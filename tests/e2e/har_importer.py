"""Chromium's developer tools, whose importer reads an HTTP archive."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from websockets.sync.client import ClientConnection, connect

_S = 60
_PAGE = "/devtools/devtools_app.html"
# A new page is about:blank first, and that one is complete.
_LOADED = f'document.readyState == "complete" && location.pathname == "{_PAGE}"'
_READ = """(async () => {
  const har = await import("./models/har/har.js");
  const log = new har.HARFormat.HARRoot(%s).log;
  return Promise.all(har.Importer.Importer.requestsFromHARLog(log).map(async (request) => {
    const content = await request.requestContentData();
    return {
      url: request.url(), status: request.statusCode, type: request.resourceType().name(),
      mime: request.mimeType || "", connection: request.connectionId,
      content: content.isTextContent ? content.text : content.base64,
      posted: await request.requestFormData(),
      sent: request.includedRequestCookies().map(({cookie}) => [cookie.name(), cookie.value()]),
      received: request.responseCookies.map((cookie) => [cookie.name(), cookie.value()]),
      frames: (request.frames() || []).map((frame) => [frame.type, frame.opCode, frame.text]),
      connect: request.timing.connectEnd - request.timing.connectStart,
      ssl: request.timing.sslEnd - request.timing.sslStart,
    };
  }));
})()"""


class Importer:
    """The page of the developer tools."""

    def __init__(self, page: ClientConnection) -> None:
        self._page = page
        self._numbers = count(1)

    def read(self, path: Path) -> list[dict[str, Any]]:
        """What it has read of each entry."""
        return self._evaluate(_READ % path.read_text())

    def wait_loaded(self) -> None:
        while not self._evaluate(_LOADED):
            pass

    def _evaluate(self, expression: str) -> Any:
        number = next(self._numbers)
        how = {"expression": expression, "awaitPromise": True, "returnByValue": True}
        call = {"id": number, "method": "Runtime.evaluate", "params": how}
        self._page.send(json.dumps(call))
        answer: dict[str, Any] = {"id": 0}
        while answer.get("id") != number:
            answer = json.loads(self._page.recv(timeout=_S))
        assert "exceptionDetails" not in answer["result"], answer
        return answer["result"]["result"]["value"]


@contextmanager
def importing(profile: Path) -> Iterator[Importer]:
    """Chromium, until the end of the block."""
    argv = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    argv += ["--disable-background-networking", "--remote-debugging-port=0"]
    argv += ["--remote-allow-origins=*", f"--user-data-dir={profile}", "about:blank"]
    with subprocess.Popen(
        argv, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as browser:
        assert browser.stderr
        try:
            told = next(line for line in browser.stderr if "DevTools listening on" in line)
            origin = f"http://{told.split('//')[1].split('/')[0]}"
            page = f"{origin}/json/new?{origin}{_PAGE}"
            with urlopen(Request(page, method="PUT"), timeout=_S) as opened:
                url = json.load(opened)["webSocketDebuggerUrl"]
            with connect(url, proxy=None, max_size=None) as connection:
                importer = Importer(connection)
                importer.wait_loaded()
                yield importer
        finally:
            os.killpg(browser.pid, signal.SIGKILL)
