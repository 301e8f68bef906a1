"""What is learned of a client at a site: sequences of what connections show, and what follows."""

from __future__ import annotations

from dataclasses import dataclass, field

from mitml4.process import Process, RunningProcess
from mitml4.tls.pinning import (
    CHANNEL_BINDING,
    CLIENT_CERTIFICATE,
    PINNED,
    Client,
    PassthroughCache,
    Site,
    Visit,
)

HOUR = 3600.0
NEEDS = "no shared cipher"


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        self.now += 0.001  # nothing happens at the same moment
        return self.now


@dataclass
class Story:
    """Plays words such as `A refused`, each a connection of its own, or a clock that goes on."""

    learns_pins: bool = True
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.passthrough_cache = PassthroughCache(self.clock, learns_pins=self.learns_pins)

    def visit(self, who: str) -> Visit:
        """`A`, or `A/other` for another site."""
        name, _, site = who.partition("/")
        host = site or "www.example"
        return self.passthrough_cache.visit(Client(name, "t13d"), Site(f"{host}:443", host))

    def play(self, story: str) -> None:
        for line in filter(None, map(str.strip, story.split(","))):
            who, verb = line.split(" ")
            if who == "wait":
                self.clock.now += float(verb)
                continue
            visit = self.visit(who)
            match verb:
                case "empty" | "certificate":
                    visit.answered_request(verb == "empty")
                case "needs" | "needs_no":
                    getattr(visit, verb)(NEEDS)
                case _:
                    getattr(visit, verb)()


def test_what_connections_show_decides_what_is_passed_through() -> None:
    for story, who, verdict in (
        ("", "A", None),
        # an alert counts at once: for this client at this site
        ("A refused", "A", "pinned"),
        ("A refused", "B", None),
        ("A refused", "A/other.example", None),
        ("A refused, wait 299", "A", "pinned"),
        ("A refused, wait 301", "A", None),
        ("A refused, A accepted", "A", None),
        ("A refused, B accepted", "A", "pinned"),
        ("A refused, A/other.example accepted", "A", "pinned"),
        # leaving counts the second time in a row
        ("A left", "A", None),
        ("A left, A left", "A", "pinned"),
        ("A left, A left", "B", None),
        ("A left, B left", "A", None),
        ("A left, A/other.example left", "A", None),
        ("A left, A accepted, A left", "A", None),
        ("A left, A accepted, A left, A left", "A", "pinned"),
        ("A left, B accepted, A left", "A", "pinned"),
        ("A left, wait 900, A left", "A", "pinned"),
        ("A left, wait 3601, A left", "A", None),
        ("A left, wait 3601, A left, A left", "A", "pinned"),
        ("A left, A left, wait 301", "A", None),
        ("A left, A left, wait 301, A left", "A", "pinned"),  # nothing was accepted since
        ("A left, A left, A accepted", "A", None),
        ("A left, A left, wait 301, A accepted, A left", "A", None),
        # several clients speak for all, as long as nobody accepts
        ("A refused, B refused", "C", None),
        ("A refused, A refused, A refused", "C", None),
        ("A refused, B refused, C refused", "D", "pinned"),
        ("A refused, B refused, C refused", "D/other.example", None),
        ("A refused, B refused, wait 301, C refused", "D", None),
        ("A refused, B refused, C refused, wait 301", "D", None),
        ("Z accepted, A refused, B refused, C refused", "D", None),
        ("Z accepted, wait 301, A refused, B refused, C refused", "D", "pinned"),
        ("A refused, B refused, C refused, Z accepted", "D", None),
        ("A refused, B refused, C refused, Z accepted", "A", "pinned"),
        ("A needs, B needs, C refused", "D", None),
        ("A needs, B needs, C needs", "D", NEEDS),
        ("A needs, B needs, C needs, Z accepted", "D", NEEDS),
        ("A needs, B needs, C needs, C needs_no", "D", None),
        ("A needs, B needs, C needs, C needs_no", "A", NEEDS),
        # what the server needs
        ("A needs", "A", NEEDS),
        ("A needs", "B", None),
        ("A needs, A accepted", "A", NEEDS),
        ("A needs, A needs_no", "A", None),
        ("A refused, A needs_no", "A", "pinned"),
        ("A needs, wait 301", "A", None),
        # the client's own answer to a request for its certificate
        ("A certificate", "A", "client certificate"),
        ("A certificate", "B", None),
        ("A certificate, A empty", "A", None),
        ("A certificate, wait 200, A certificate, wait 200", "A", "client certificate"),
        ("A certificate, B certificate, C certificate", "D", "client certificate"),
        ("D empty, A certificate, B certificate, C certificate", "D", None),
        ("A empty, A refused", "A", "pinned"),
    ):
        told = Story()
        told.play(story)
        assert told.visit(who).passthrough_reason == verdict


def test_connections_side_by_side_that_leave_together_count_as_one() -> None:
    """As when a program is killed that has several; those of another try count again."""
    told = Story()
    together = [told.visit("A") for _ in range(16)]
    assert [visit.left() for visit in together] == [False] * 16
    assert told.visit("A").passthrough_reason is None
    overlapping = [told.visit("A") for _ in range(2)]
    assert [visit.left() for visit in overlapping] == [True, False]
    assert told.visit("A").passthrough_reason == "pinned"


def test_a_client_without_a_certificate_is_remembered_for_an_hour() -> None:
    told = Story()
    assert not told.visit("A").declines
    told.play("A empty")
    assert told.visit("A").declines
    assert not told.visit("B").declines
    assert not told.visit("A/other.example").declines
    told.play("A certificate")
    assert told.visit("A").passthrough_reason == "client certificate"
    told.play("A empty, wait 3601")
    assert not told.visit("A").declines


def test_pins_are_not_learned_where_they_are_not_wanted() -> None:
    told = Story(learns_pins=False)
    told.play("A refused, A left, A left, A needs")
    assert told.visit("A").passthrough_reason == NEEDS
    told.play("A needs_no, B refused, C refused")
    assert told.visit("A").passthrough_reason is None


def test_a_person_lets_the_pins_of_a_host_be_forgotten() -> None:
    cache = PassthroughCache(lambda: 0.0)
    client = Client("192.0.2.1", "t13d")
    sites = [
        Site("a.test:443", None),
        Site("192.0.2.9:443", "a.test"),
        Site("[2001:db8::1]:443", None),
    ]
    other, certificate = Site("b.test:443", "b.test"), Site("a.test:444", "a.test")
    for site in (*sites, other):
        cache.visit(client, site).refused()
    cache.visit(client, certificate).needs(CLIENT_CERTIFICATE)
    cache.forget_pins("a.test")
    reasons = [cache.reason(client, site) for site in sites]
    assert reasons == [None, None, "pinned"]
    cache.forget_pins("2001:db8::1")
    assert cache.reason(client, sites[2]) is None
    assert cache.reason(client, other) == "pinned"
    assert cache.reason(client, certificate) == CLIENT_CERTIFICATE
    cache.visit(client, sites[0]).refused()
    assert cache.reason(client, sites[0]) == "pinned"


def test_the_tables_are_bounded() -> None:
    told = Story()
    for number in range(5000):
        told.play(f"{number}/{number}.example refused, {number}/{number}.example accepted")
        told.play(f"{number} refused")
    assert told.visit("0/0.example").passthrough_reason is None
    assert told.visit("4999").passthrough_reason == "pinned"
    sizes = {
        name: len(table) for name, table in vars(told.passthrough_cache).items() if name[0] == "_"
    }
    assert max(sizes.values()) <= 4096


def test_what_a_server_offers_is_kept_for_an_hour() -> None:
    told = Story()
    told.visit("A").needs(CHANNEL_BINDING)
    told.play("wait 3599")
    assert told.visit("A").passthrough_reason == "channel binding"
    told.play("wait 2")
    assert told.visit("A").passthrough_reason is None


def test_sessions_that_were_passed_through_count_at_any_port_of_the_host() -> None:
    clock = Clock()
    cache = PassthroughCache(clock)

    def visit(port: int = 30000, *, address: str = "192.0.2.1", hello: str = "one") -> Visit:
        return cache.visit(Client(address, hello), Site.of(f"192.0.2.9:{port}", "a.test"))

    assert not visit().has_closed_sessions
    visit(21).leave_sessions(closed=True)
    assert visit(hello="another, as it resumes").has_closed_sessions
    assert not visit(address="192.0.2.2").has_closed_sessions
    visit(21).leave_sessions(closed=False)
    assert not visit().has_closed_sessions
    visit(21).leave_sessions(closed=True)
    clock.now += 3601
    assert not visit().has_closed_sessions


def test_a_program_older_than_the_session_concerns_only_itself() -> None:
    """Restarted, it may trust the CA; one that refuses although it was started later does not."""
    cache = PassthroughCache(lambda: 0.0)
    process = Process(pid=7, uid=0, name="app", command=("app",), cgroup=None)
    old, same_number, new = (RunningProcess(process, started) for started in (10, 20, 30))
    assert cache.program_of(old) is None
    cache.trusted_since_s = 25

    def visit(running: RunningProcess | None) -> Visit:
        program = cache.program_of(running)
        return cache.visit(Client("192.0.2.1", "t13d", program), Site("a.test:443", "a.test"))

    visit(old).refused()
    assert visit(old).passthrough_reason == PINNED
    for other in (same_number, new, None):
        assert visit(other).passthrough_reason is None
    visit(new).refused()
    assert [visit(each).passthrough_reason for each in (new, None)] == [PINNED, PINNED]
    assert visit(same_number).passthrough_reason is None
