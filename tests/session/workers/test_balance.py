"""Which process carries the next flow."""

from mitml4.events import FlowClose, FlowLayer
from mitml4.session.workers.balance import Balance, Carrier


def layer(flow):
    return FlowLayer(flow=flow, depth=0, protocol="ssh", speaker="server", action="relayed")


def close(flow):
    return FlowClose(flow=flow, stack=(), reason="closed", bytes_up=0, bytes_down=0, duration_s=0.0)


def test_flows_go_where_the_fewest_start_then_where_the_fewest_are_open():
    balance, worker = Balance(), Carrier()
    here = balance.here
    assert [balance.choose(n, [worker]) for n in (1, 2, 3)] == [here, worker, here]
    balance.publish(layer(1))
    balance.publish(layer(3))
    assert balance.choose(4, [worker]) is here  # it has none that starts, though more are open
    balance.publish(layer(2))
    balance.publish(layer(4))
    assert (here.load, worker.load) == ((0, 3, 3), (0, 1, 1))
    assert balance.choose(5, [worker]) is worker
    balance.publish(close(5))
    for number in (1, 3, 4):
        balance.publish(close(number))
    assert (here.load, worker.load) == ((0, 0, 3), (0, 1, 2))
    assert balance.choose(6, [worker]) is here


def test_flows_that_publish_nothing_are_not_counted_as_open():
    balance, worker = Balance(), Carrier()
    assert [balance.choose(0, [worker]) for _ in range(4)] == [balance.here, worker] * 2
    assert (balance.here.load, worker.load) == ((0, 0, 2), (0, 0, 2))


def test_without_workers_the_session_is_all_there_is():
    balance = Balance()
    assert balance.choose(1, []) is balance.here
    balance.publish(close(1))
    balance.publish(close(1))
    assert balance.here.load == (0, 0, 1)
