"""Which process carries the next flow."""

from mitml4.events import FlowClose, FlowLayer
from mitml4.session.workers.balance import Balance, Carrier


def layer(flow):
    return FlowLayer(flow=flow, depth=0, protocol="ssh", speaker="server", action="relayed")


def close(flow):
    return FlowClose(flow=flow, stack=(), reason="closed", bytes_up=0, bytes_down=0, duration_s=0.0)


def test_flows_go_where_the_fewest_are_open_and_those_that_start_count_twice():
    balance, worker = Balance(), Carrier()
    here = balance.here
    assert [balance.choose(n, [worker]) for n in (1, 2, 3)] == [here, worker, here]
    assert balance.choose(4, [worker]) is worker
    for number in (1, 3):
        balance.publish(layer(number))
    assert balance.choose(5, [worker]) is here  # 2 open, none starts; the worker's 2 do
    assert balance.choose(6, [worker]) is worker  # one more is open here, and one starts
    assert balance.choose(7, [worker]) is here
    for number in (1, 3, 5, 7):
        balance.publish(close(number))
    assert (here.open, worker.open) == (0, 3)
    assert balance.choose(8, [worker]) is here


def test_a_process_that_has_just_been_started_does_not_get_all_flows():
    balance, worker = Balance(), Carrier()
    for number in range(1, 1001):
        balance.choose(number, [])
        balance.publish(layer(number))
    chosen = [balance.choose(number, [worker]) for number in range(2000, 2050)]
    assert chosen[:8] == [worker] * 8
    assert 15 < chosen.count(balance.here) < 25


def test_flows_that_publish_nothing_are_not_counted_as_open():
    balance, worker = Balance(), Carrier()
    assert [balance.choose(0, [worker]) for _ in range(4)] == [balance.here, worker] * 2
    assert not balance.here.open
    assert not worker.open


def test_without_workers_the_session_is_all_there_is():
    balance = Balance()
    assert balance.choose(1, []) is balance.here
    balance.publish(close(1))
    balance.publish(close(1))
    assert not balance.here.open
