"""The session's side of its workers. At the other ends is the test."""

import errno
import os
import socket
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from mitml4.address import Address
from mitml4.events import FlowClose, FlowError, FlowLayer, FlowOpen, LayerEvent
from mitml4.layers.relay import Relay
from mitml4.layers.tls import TlsInterceptor
from mitml4.net.listener import Accepted
from mitml4.protocols.expected import Announcement, Expectations
from mitml4.protocols.http.events import HttpEnd, HttpRequest
from mitml4.session.config import SessionConfig
from mitml4.session.flows.flow import Flow
from mitml4.session.flows.services import Services
from mitml4.session.memory import MemoryShare
from mitml4.session.reporting.hub import Hub
from mitml4.session.sources.proxy import ProxyClient
from mitml4.session.workers import workers
from mitml4.session.workers.balance import Balance
from mitml4.session.workers.channel import Channel, channel_pair
from mitml4.session.workers.packing import CLOSES, LAYERS
from mitml4.session.workers.starter import Starter
from mitml4.session.workers.worker import BEGINNINGS
from mitml4.session.workers.workers import Workers
from mitml4.sinks.jsonl import Line
from mitml4.tls.ca import CertificateAuthority
from mitml4.tls.context import Contexts
from mitml4.tls.forge import Forge
from mitml4.tls.pinning import PINNED, Client, PassthroughCache, Site
from mitml4.tls.verify import Verifier

CLIENT = Address("192.0.2.1", 1000)
SERVER = Address("198.51.100.2", 443)
FIRST_PID = 1 << 30
SHARE = MemoryShare(bodies=3, payload=None, pipes=2)


class Scripted(Starter):
    """Starts no process: the test has the other ends."""

    def __init__(self) -> None:
        self.started: list[Channel] = []
        self.works = True

    def start(self, sock: socket.socket) -> bool:
        if self.works:
            self.started.append(Channel(sock))
        else:
            sock.close()
        return self.works

    def close(self) -> None:
        self.works = False


class Connection:
    """One that waits to be accepted."""

    client = source = CLIENT
    destination = asked = SERVER
    interface = "lan"
    local_ends = None
    accept: Any = None

    def __init__(self):
        self.refused = []
        self.far = None

    def let_in(self, arrived):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.far = socket.create_connection(listener.getsockname())
            arrived(listener.accept()[0])

    def refuse(self, reason):
        self.refused.append(reason)


class Sink:
    name, dropped, wants = "test", 0, (object,)

    def __init__(self):
        self.events = []

    def publish(self, event):
        self.events.append(event)


async def never(*_):
    await trio.sleep_forever()


class Memory:
    def divide(self, count):
        self.divided_by = count
        return SHARE


class FakeSession:
    policy: Any = None
    rules: Any = None
    scripts: Any = ()
    services_of: Any = None
    become_worker: Any = None

    def __init__(self, *, alone_up_to=0):
        self.config = SessionConfig(workers=3, alone_up_to=alone_up_to)
        self.memory: Any = Memory()
        self.balance = Balance()
        self.sink = Sink()
        self.hub = Hub([self.sink], [self.balance])
        self.starter = Scripted()
        self.interceptor = TlsInterceptor(
            forge=Forge(CertificateAuthority.generate()),
            contexts=Contexts(),
            verifier=Verifier([]),
            passthrough_cache=PassthroughCache(trio.current_time),
        )
        self.failures = []
        self.ended = []
        """The numbers of flows."""
        self.services = Services(
            publish=self.hub.publish, connect=never, relay=Relay(), tls=self.interceptor
        )
        self.workers = Workers(
            self.starter, self, [], self.interceptor, self.balance, self.failures.append
        )

    def begin(self, nursery, number, connection=None):
        flow = self.workers.begin(number, connection or Connection(), self.services)
        flow.start(nursery, lambda: self.ended.append(number))
        return flow

    def of(self, kind):
        return [event for event in self.sink.events if isinstance(event, kind)]


@asynccontextmanager
async def running(session):
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.workers.run)
            yield session
            nursery.cancel_scope.cancel()
    finally:
        for each in session.starter.started:
            each.close()


async def started(session):
    """Its workers, once they are given flows."""
    await told(lambda: len(session.starter.started) == 2)
    for pid, each in enumerate(session.starter.started, FIRST_PID):
        each.send("pid", pid)
    await told(lambda: all(each.pid for each in session.workers.workers))
    return [session.starter.started[each.pid - FIRST_PID] for each in session.workers.workers]


@pytest.fixture
async def session():
    """It has workers, and has so much to do that they get the next flows."""
    async with running(FakeSession()) as session:
        session.starter.started[:] = await started(session)
        session.balance.here.starting += 9
        yield session


async def heard(channel, name):
    """The next message of this name, which has arrived."""
    return (await heard_up_to(channel, name))[-1]


async def heard_up_to(channel, name):
    """All messages up to the next one of this name."""
    found = []
    with trio.fail_after(10):
        while True:
            for message, descriptor in await channel.receive():
                found.append((message, descriptor))
                if message[0] == name:
                    return found


async def begun_at(channel):
    """The key of the next flow that begins there."""
    (_, values), _ = await heard(channel, "begin")
    return BEGINNINGS.made(values).key


async def told(condition):
    """Until it is so: what was sent has to be received by a task."""
    with trio.fail_after(10):
        while not condition():
            await trio.testing.wait_all_tasks_blocked(0.002)


async def test_a_flow_begins_at_a_worker_and_is_told_to_it(session, nursery):
    one, other = session.starter.started
    for number in (1, 2):
        session.begin(nursery, number)
    assert [e.flow for e in session.of(FlowOpen)] == [1, 2]
    assert await begun_at(one) == 1
    assert await begun_at(other) == 2
    layer = FlowLayer(flow=1, depth=0, protocol="ssh", speaker="server", action="relayed")
    one.send("layer", LAYERS.values(layer))
    await told(lambda: session.of(FlowLayer))
    assert session.of(FlowLayer) == [layer]
    session.begin(nursery, 3)
    assert await begun_at(one) == 3
    nursery.cancel_scope.cancel()


async def test_a_line_that_a_worker_has_made_comes_to_the_sinks(session, nursery):
    one, _ = session.starter.started
    session.begin(nursery, 1)
    one.send("event", (1, 40, b"a line\n"))
    one.send("exchange", 1, (1, 1), True, (1, 50, b"the begin of an exchange\n"))
    await told(lambda: len(session.of(Line)) == 2)
    assert session.of(Line) == [
        Line(1, 40, b"a line\n"),
        Line(1, 50, b"the begin of an exchange\n"),
    ]
    nursery.cancel_scope.cancel()


async def test_workers_are_started_once_the_session_carries_enough(nursery, ticket):
    async with running(FakeSession(alone_up_to=2)) as session:
        for number in (1, 2):
            assert isinstance(session.begin(nursery, number), Flow)
        await trio.testing.wait_all_tasks_blocked()
        assert not session.starter.started
        ours = session.interceptor.tickets.issue(ticket, 60)
        for number in (3, 4):
            assert isinstance(session.begin(nursery, number), Flow)
        one, other = await started(session)
        for each in (one, other):
            (share, _), *_, ((_, told_ticket, _), _) = await heard_up_to(each, "ticket")
            assert share == ("share", SHARE)
            assert told_ticket == ours
        assert session.memory.divided_by == 3
        assert not isinstance(session.begin(nursery, 5), Flow)
        await heard(one, "begin")
        later = session.interceptor.tickets.issue(ticket, 60)
        (_, told_ticket, _), _ = await heard(other, "ticket")
        assert told_ticket == later
        nursery.cancel_scope.cancel()


async def test_without_need_nothing_is_started_and_nothing_waits_for_it():
    async with running(FakeSession(alone_up_to=2)) as session:
        await session.workers.finish()
        assert not session.starter.started


async def test_a_worker_that_ends_takes_its_flows_and_is_replaced(session, nursery):
    one, other = session.starter.started
    connections = [Connection(), Connection()]
    for number, connection in enumerate(connections, 1):
        session.begin(nursery, number, connection)
    for depth, protocol in enumerate(("socks5", "http/1")):
        layer = FlowLayer(
            flow=1, depth=depth, protocol=protocol, speaker="client", action="relayed"
        )
        one.send("layer", LAYERS.values(layer))
    session.interceptor.passthrough_cache.add(Client("192.0.2.1", ""), Site("a:1", None), PINNED)
    await told(lambda: len(session.of(FlowLayer)) == 2)
    one.close()
    await told(lambda: len(session.starter.started) == 3)
    (error,) = session.of(FlowError)
    (close,) = session.of(FlowClose)
    assert (error.flow, error.kind, error.depth) == (1, "internal", 1)
    assert (close.flow, close.reason, close.stack) == (1, "error", ("socks5", "http/1"))
    assert len(connections[0].refused) == 1
    assert connections[1].refused == []
    await heard(session.starter.started[2], "learned")
    other.send("end", 2)
    await told(lambda: not session.workers.workers[1].flows)
    nursery.cancel_scope.cancel()


async def test_a_worker_that_has_ended_is_given_no_flows(session, nursery):
    one, other = session.starter.started
    one.close()  # and nothing of this session has run since
    other.close()
    assert isinstance(session.workers.begin(1, Connection(), session.services), Flow)


async def test_a_worker_that_is_given_up_is_given_no_flows_whatever_it_says(session, nursery):
    one, _ = session.starter.started
    first, second = session.workers.workers
    first.pid = second.pid = FIRST_PID  # no process has this number
    one.send("ask", 1, "lookup", ("localhost", 1), {})
    first.give_up()
    second.give_up()
    assert isinstance(session.workers.begin(1, Connection(), session.services), Flow)
    assert not first.asked


async def test_a_question_that_is_cancelled_at_once_is_not_answered(session, nursery):
    one, _ = session.starter.started
    one.gather(("ask", 7, "lookup", ("localhost", 1), {}))
    one.send("cancel", 7)
    assert await heard(one, "answer") == (("answer", 7, None, None), None)


def content(number, what):
    return LayerEvent(flow=number, depth=1, content=what)


def request(stream):
    return HttpRequest(stream=stream, method="GET", url="https://www.example/", version="2")


def ended(stream):
    return HttpEnd(stream=stream, request_bytes=0, response_bytes=5, duration_s=0.1)


async def test_exchanges_of_a_worker_that_ends_have_ends(session, nursery):
    one, _ = session.starter.started
    session.begin(nursery, 1)
    for is_begun, what in (
        (True, request(1)),
        (True, request(3)),
        (False, ended(1)),
        (True, request(5)),
    ):
        one.send("exchange", 1, (1, what.stream), is_begun, content(1, what))
    one.send("exchange", 1, (1, 7), True, None)  # one for which there was no room
    one.send("exchange", 1, (1, 3), False, None)
    await told(lambda: session.hub.lost_events == 2)
    one.close()
    await told(lambda: session.of(FlowClose))
    *_, error, cut, close = session.sink.events
    assert [e.content for e in session.of(LayerEvent)[:-1]] == [
        *(request(1), request(3), ended(1), request(5)),
    ]
    assert (error.flow, error.kind) == (1, "internal")
    assert (cut.flow, cut.depth, cut.content.stream) == (1, 1, 5)
    assert (cut.content.outcome, cut.content.duration_s >= 0) == ("cut", True)
    assert (close.flow, close.reason) == (1, "error")
    nursery.cancel_scope.cancel()


async def test_a_worker_that_does_not_answer_gets_no_flows_until_it_does(
    session, nursery, autojump_clock
):
    one, other = session.starter.started
    for number in (1, 2):
        session.begin(nursery, number)
    await heard(one, "ping")
    await heard(other, "ping")
    other.send("pong")
    await trio.sleep(1.5)
    for number in (3, 4):
        session.begin(nursery, number)
    assert [*session.workers.workers[1].flows] == [2, 3, 4]
    one.send("pong")
    session.begin(nursery, 5)
    assert [*session.workers.workers[0].flows] == [1, 5]
    nursery.cancel_scope.cancel()


async def test_a_worker_that_hangs_is_replaced(session, nursery, autojump_clock):
    one, other = session.starter.started
    for number in (1, 2):
        session.begin(nursery, number)

    async def answer():
        while True:
            await heard(other, "ping")
            other.send("pong")

    nursery.start_soon(answer)
    await trio.sleep(9.5)
    assert not session.of(FlowClose)
    await trio.sleep(3)
    await told(lambda: len(session.starter.started) == 3)
    (error,), (close,) = session.of(FlowError), session.of(FlowClose)
    assert (error.flow, error.kind, "did not answer" in error.reason) == (1, "internal", True)
    assert (close.flow, close.reason) == (1, "error")
    while await one.receive():  # up to the end of its channel
        pass
    session.starter.started[2].send("pid", FIRST_PID)
    await trio.sleep(100)
    assert len(session.of(FlowClose)) == 1
    nursery.cancel_scope.cancel()


async def test_a_worker_that_does_not_read_is_replaced_though_it_has_no_flows(
    session, autojump_clock
):
    """What is sent to it would wait in memory."""
    await trio.sleep(100)  # without anything to do, it may be silent
    assert len(session.starter.started) == 2
    one, other = session.workers.workers
    one.channel.send("ticket", b"ours", bytes(10_000_000))
    await trio.sleep(13)
    assert len(session.starter.started) == 3
    assert not other.silence


async def test_time_in_which_the_session_did_not_run_does_not_count(
    session, nursery, autojump_clock
):
    one, _ = session.starter.started
    session.begin(nursery, 1)
    for _ in range(3):  # as if it had been stopped, or its machine
        autojump_clock.jump(1000)
        await trio.sleep(1.5)
    assert not session.of(FlowClose)
    one.send("pong")
    nursery.cancel_scope.cancel()


async def finish(session, nursery, **options):
    """End the session; an event that tells when that is done."""
    done = trio.Event()

    async def work():
        await session.workers.finish(**options)
        done.set()

    nursery.start_soon(work)
    await trio.testing.wait_all_tasks_blocked()
    return done


def told_of(session, number):
    return [type(each) for each in session.sink.events if getattr(each, "flow", 0) == number]


ALL_OF_ONE_THAT_IS_LOST = [FlowOpen, LayerEvent, FlowError, LayerEvent, FlowClose]


async def test_flows_of_a_worker_that_does_not_end_are_closed_as_if_it_had_died(
    session, nursery, autojump_clock
):
    one, other = session.starter.started
    session.begin(nursery, 1)
    one.send("exchange", 1, (1, 1), True, content(1, request(1)))
    other.close()
    began = trio.current_time()
    done = await finish(session, nursery)
    await done.wait()
    assert trio.current_time() - began == pytest.approx(3)
    assert told_of(session, 1) == ALL_OF_ONE_THAT_IS_LOST
    nursery.cancel_scope.cancel()


async def test_who_hurries_waits_for_no_worker(session, nursery, autojump_clock):
    one, _ = session.starter.started
    session.begin(nursery, 1)
    one.send("exchange", 1, (1, 1), True, content(1, request(1)))
    session.workers.hurry()  # before it is waited for: they can still end their flows
    began = trio.current_time()
    done = await finish(session, nursery)
    assert not done.is_set()
    session.workers.hurry()
    await done.wait()
    assert trio.current_time() == began
    assert told_of(session, 1) == ALL_OF_ONE_THAT_IS_LOST
    nursery.cancel_scope.cancel()


async def test_a_forced_end_waits_only_for_workers_that_answer(session, nursery, autojump_clock):
    _, other = session.starter.started
    for number in (1, 2):
        session.begin(nursery, number)
    await heard(other, "ping")
    other.send("pong")
    await trio.sleep(1.5)
    done = await finish(session, nursery, is_forced=True)
    assert told_of(session, 1) == [FlowOpen, FlowError, FlowClose]
    assert told_of(session, 2) == [FlowOpen]
    assert not done.is_set()
    close = FlowClose(flow=2, stack=(), reason="shutdown", bytes_up=5, bytes_down=6, duration_s=1.0)
    other.send("close", CLOSES.values(close))
    other.close()
    await done.wait()
    assert told_of(session, 2) == [FlowOpen, FlowClose]
    nursery.cancel_scope.cancel()


async def test_a_worker_is_replaced_once_there_are_descriptors_for_it(session, monkeypatch):
    outcomes = iter([errno.EMFILE, errno.EMFILE])

    def pair():
        for code in outcomes:
            raise OSError(code, os.strerror(code))
        return channel_pair()

    monkeypatch.setattr(workers, "channel_pair", pair)
    session.starter.started[0].close()
    await told(lambda: len(session.starter.started) == 3)
    assert list(outcomes) == []


async def test_a_worker_is_replaced_though_too_many_descriptors_are_on_their_way(
    session, monkeypatch
):
    send_fds, outcomes = socket.send_fds, iter([errno.ETOOMANYREFS])

    def send(sock, data, descriptors):
        for code in outcomes:
            raise OSError(code, os.strerror(code))
        return send_fds(sock, data, descriptors)

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    monkeypatch.setattr(socket, "send_fds", send)
    session.starter._channel = ours
    session.starter.start = lambda sock: Starter.start(session.starter, sock)
    with ours, theirs:
        theirs.setblocking(False)
        session.starter.started[0].close()
        with trio.fail_after(10):
            await trio.lowlevel.wait_readable(theirs)
        _, (descriptor,), _, _ = socket.recv_fds(theirs, 1, 1)
        session.starter.started.append(Channel(socket.socket(fileno=descriptor)))
        await heard(session.starter.started[2], "learned")


async def test_a_client_is_let_in_when_a_worker_asks_for_it(session, nursery):
    one, _ = session.starter.started
    connection = Connection()
    session.begin(nursery, 1, connection)
    one.send("accept", 99)  # a flow that has ended
    one.send("accept", 1)
    message, descriptor = await heard(one, "accepted")
    assert message == ("accepted", 1)
    with socket.socket(fileno=descriptor) as accepted, connection.far:
        assert accepted.getpeername() == connection.far.getsockname()
    one.send("refuse", 1, None)
    one.send("end", 1)
    await told(lambda: session.ended == [1])
    assert connection.refused == []  # what the worker has got is closed there
    nursery.cancel_scope.cancel()


async def test_a_client_that_has_gone_or_is_refused_was_not_let_in(session, nursery):
    one, _ = session.starter.started
    connection = Connection()
    connection.let_in = lambda arrived: arrived(None)
    session.begin(nursery, 1, connection)
    one.send("accept", 1)
    assert await heard(one, "gone") == (("gone", 1), None)
    one.send("refuse", 1, ConnectionRefusedError(111, "refused"))
    await told(lambda: connection.refused)
    assert isinstance(connection.refused[0], ConnectionRefusedError)
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("is_let_in", [False, True])
async def test_a_client_asks_again_whose_worker_ends_before_it_is_connected(
    session, nursery, is_let_in
):
    one, _ = session.starter.started
    connection = Connection()
    waiting = []
    connection.let_in = waiting.append
    session.begin(nursery, 1, connection)
    if is_let_in:
        one.send("accept", 1)
        await told(lambda: waiting)
    one.close()
    await told(lambda: session.ended == [1])
    (reason,) = connection.refused
    assert isinstance(reason, TimeoutError)  # for which the gate gives no answer
    nursery.cancel_scope.cancel()


async def test_a_client_whose_socket_did_not_arrive_ends_alone(session, nursery):
    one, _ = session.starter.started
    with socket.create_server(("127.0.0.1", 0)) as listener:
        far = socket.create_connection(listener.getsockname())
        accepted = Accepted(listener.accept()[0], CLIENT, SERVER)
    session.begin(nursery, 1, ProxyClient(accepted))
    _, descriptor = await heard(one, "begin")
    os.close(descriptor)  # as the kernel does where the worker may have no more
    one.send("accept", 1)
    assert await heard(one, "gone") == (("gone", 1), None)
    one.send("refuse", 1, None)
    one.send("end", 1)
    await told(lambda: session.ended == [1])
    assert far.recv(1) == b""
    far.close()
    nursery.cancel_scope.cancel()


async def test_what_one_has_learned_is_known_before_the_next_flow_begins(session, nursery):
    one, other = session.starter.started
    client, site = Client("192.0.2.1", ""), Site("a:1", None)
    session.begin(nursery, 1)
    one.send("pins", "add", client, site, PINNED)
    one.send("ticket", b"ours", b"packed")
    session.begin(nursery, 2)  # nothing has waited for the first one's messages
    names = [message[0] for message, _ in await other.receive()]
    assert names == ["share", "learned", "pins", "ticket", "begin"]
    assert session.interceptor.passthrough_cache.reason(client, site) == PINNED
    nursery.cancel_scope.cancel()


async def test_what_a_flow_announces_is_known_to_all_other_processes(session, nursery):
    """Whichever process carries it: a worker looks up what a client asks for in a tunnel."""
    one, other = session.starter.started
    for number in (1, 2):
        session.begin(nursery, number)
    expectations = session.services.expectations
    announced = [Announcement(protocol="ftp-data", transport="tcp", port=port) for port in (1, 2)]
    expectations.add(announced[0], CLIENT.ip, SERVER.ip, trio.current_time())
    for each in (one, other):
        (message, _) = await heard(each, "announce")
        assert message == ("announce", 0, announced[0], CLIENT.ip, SERVER.ip)
    one.send("announce", 0, announced[1], CLIENT.ip, SERVER.ip)
    (message, _) = await heard(other, "announce")
    assert message == ("announce", 0, announced[1], CLIENT.ip, SERVER.ip)
    assert expectations.take("tcp", SERVER.ip, 2, trio.current_time()) == "ftp-data"
    session.workers.remember("toggle", "toggle")
    messages = [message for message, _ in await heard_up_to(one, "toggle")]
    assert ("announce", 0, announced[1], CLIENT.ip, SERVER.ip) not in messages  # its own
    nursery.cancel_scope.cancel()


async def test_a_new_worker_knows_what_was_announced_before(nursery):
    async with running(FakeSession(alone_up_to=1)) as session:
        session.begin(nursery, 1)
        expectations = session.services.expectations
        for port in (1, 2):
            announced = Announcement(protocol="ftp-data", transport="tcp", port=port)
            expectations.add(announced, CLIENT.ip, SERVER.ip, trio.current_time())
        assert expectations.take("tcp", SERVER.ip, 1, trio.current_time())
        for number in (2, 3):
            session.begin(nursery, number)
        one, _ = await started(session)
        ((what, source, state), _) = await heard(one, "announced")
        assert (what, source) == ("announced", 0)
        there = Expectations()
        there.open = state
        assert there.take("tcp", SERVER.ip, 1, trio.current_time()) is None
        assert there.take("tcp", SERVER.ip, 2, trio.current_time()) == "ftp-data"
        nursery.cancel_scope.cancel()


async def test_without_workers_the_session_carries_flows(session):
    session.starter.works = False
    for each in session.starter.started:
        each.close()
    await told(lambda: not any(each.pid for each in session.workers.workers))
    assert isinstance(session.workers.begin(1, Connection(), session.services), Flow)


async def test_each_flow_is_closed_once_however_the_session_ends(session, nursery):
    for number in (1, 2):
        session.begin(nursery, number)
    one, other = session.starter.started
    close = FlowClose(flow=1, stack=(), reason="shutdown", bytes_up=5, bytes_down=6, duration_s=1.0)

    async def obey():
        await heard(one, "stop")
        one.send("close", CLOSES.values(close))
        one.close()
        await heard(other, "stop")
        other.close()  # with no word of its flow

    nursery.start_soon(obey)
    await session.workers.finish()
    nursery.cancel_scope.cancel()
    assert [(e.flow, e.bytes_up) for e in session.of(FlowClose)] == [(1, 5), (2, 0)]
    assert session.ended == [1, 2]


async def test_a_flow_is_closed_once_where_the_session_does_not_wait_for_its_worker():
    async with trio.open_nursery() as nursery, running(FakeSession()) as session:
        session.starter.started[:] = await started(session)
        session.balance.here.starting += 9
        connection = Connection()
        session.begin(nursery, 1, connection)
    assert not session.of(FlowClose)
    session.workers.close()
    session.workers.close()
    assert [e.reason for e in session.of(FlowClose)] == ["shutdown"]
    assert session.ended == [1]
    assert connection.refused == [None]
