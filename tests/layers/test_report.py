"""What a flow publishes."""

from __future__ import annotations

from unittest.mock import create_autospec

from mitml4.address import Address
from mitml4.events import ClientProbe, FlowOpen, LayerEvent
from mitml4.layers.report import Report
from mitml4.net.listener import IncomingConnection
from mitml4.process import Process
from mitml4.protocols.http.events import HttpEnd, HttpRequest
from mitml4.tls.probe import Case


def test_an_event_that_nobody_wants_is_not_published() -> None:
    told: list[object] = []
    report = Report(1, told.append, lambda kind: kind is HttpRequest)
    asked = HttpRequest(stream=1, method="GET", url="/", version="1.1")
    report.protocol_event(0, asked)
    ended = HttpEnd(stream=1, request_bytes=0, response_bytes=0, duration_s=0.1)
    report.protocol_event(0, ended)
    assert [event.content for event in told if isinstance(event, LayerEvent)] == [asked]


def test_a_probe_says_which_process_was_probed_as_the_flow_does() -> None:
    told: list[object] = []
    process = Process(pid=7, uid=0, name="curl", command=("curl",), cgroup="/")
    report = Report(1, told.append)
    here = Address("127.0.0.1", 1)
    connection = create_autospec(IncomingConnection, client=here, destination=here, interface="lo")
    report.open(connection, None, None, process)
    report.probe("a.test", Case.EXPIRED, "refused", None)
    assert [event.process for event in told if isinstance(event, FlowOpen | ClientProbe)] == [
        process,
        process,
    ]
