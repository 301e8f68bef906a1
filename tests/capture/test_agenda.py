"""What has to be done at a time of the capture."""

from __future__ import annotations

from math import inf

from mitml4.capture.agenda import Agenda


def test_what_is_due_is_done_in_its_order_and_once() -> None:
    agenda = Agenda()
    done: list[tuple[float, int]] = []
    for due_s, number in ((3.0, 1), (2.0, 4), (2.0, 3), (9.0, 2)):
        agenda.add(due_s, number, lambda time_s, number: done.append((time_s, number)))
    assert agenda.due_s == 2.0
    assert [*agenda.pass_to(1.9)] == []
    assert [*agenda.pass_to(3.5)] == [(2.0, 3), (2.0, 4), (3.0, 1)]
    assert done == [(3.5, 3), (3.5, 4), (3.5, 1)]
    assert agenda.due_s == 9.0
    assert [*agenda.pass_to(inf)] == [(9.0, 2)]
    assert agenda.due_s == inf


def test_what_is_put_off_is_due_later() -> None:
    agenda = Agenda()
    agenda.add(1.0, 1, lambda time_s, number: agenda.add(time_s + 1, number, lambda *_: None))
    assert [*agenda.pass_to(1.5)] == [(1.0, 1)]
    assert agenda.due_s == 2.5
