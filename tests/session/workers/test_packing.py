"""Instances as tuples of their values."""

import pickle

from mitml4.events import FlowClose
from mitml4.session.workers.packing import CLOSES, Packing


def test_an_instance_comes_out_as_it_went_in():
    close = FlowClose(
        flow=1, stack=("tls", "ssh"), reason="closed", bytes_up=2, bytes_down=3, duration_s=0.5
    )
    values = pickle.loads(pickle.dumps(CLOSES.values(close)))
    assert CLOSES.made(values) == close


def test_some_fields_can_come_in_another_way(ticket):
    packing = Packing(type(ticket), "suite", "site")
    values = packing.values(ticket)
    assert "a" not in values
    assert packing.made(values, suite=ticket.suite, site="a") == ticket
