"""Which process carries the next flow."""

import pytest

from mitml4.events import FlowClose, FlowError, FlowLayer
from mitml4.session.workers.balance import Balance, Carrier


def layer(flow):
    return FlowLayer(flow=flow, depth=0, protocol="ssh", speaker="server", action="relayed")


def error(flow, kind="internal"):
    reason = "Too many open files"
    return FlowError(flow=flow, depth=0, side="server", stage="connect", kind=kind, reason=reason)


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


class Clock:
    now_s = 0.0

    def __call__(self):
        return self.now_s


def lose(balance, number):
    balance.publish(error(number))
    balance.publish(close(number))


@pytest.mark.parametrize("is_session", [False, True])
def test_a_process_that_loses_its_flows_is_avoided_for_longer_each_time(is_session):
    clock, worker = Clock(), Carrier()
    balance = Balance(clock)
    broken, sound = (balance.here, worker) if is_session else (worker, balance.here)
    lost_at = []
    for number in range(1, 1001):  # 20 seconds
        if balance.choose(number, [worker]) is broken:
            lost_at.append(clock.now_s)
            lose(balance, number)
        else:
            balance.publish(layer(number))
        clock.now_s += 0.02
    assert sound.open == 1000 - len(lost_at)
    assert lost_at == pytest.approx([lost_at[0] + wait for wait in (0, 1, 3, 7, 15)], abs=0.05)


def test_flows_that_are_lost_together_count_once():
    clock, worker = Clock(), Carrier()
    balance = Balance(clock)
    for number in range(1, 9):
        balance.choose(number, [worker])
    for number in range(2, 9, 2):
        lose(balance, number)
    assert worker.avoided_until == 1
    assert {balance.choose(number, [worker]) for number in range(10, 40)} == {balance.here}


def test_a_process_whose_flows_come_further_again_is_as_the_others():
    clock, worker = Clock(), Carrier()
    balance = Balance(clock)
    assert [balance.choose(number, [worker]) for number in (1, 2, 3, 4)][3] is worker
    lose(balance, 2)
    balance.publish(layer(4))  # it had begun before
    assert worker.avoided_s == 1
    clock.now_s = 1
    assert balance.choose(5, [worker]) is worker
    balance.publish(layer(5))
    assert worker.avoided_s == 0


def test_errors_of_servers_and_of_all_processes_change_nothing():
    clock, worker = Clock(), Carrier()
    balance = Balance(clock)
    for number in (1, 2):
        balance.choose(number, [worker])
    balance.publish(error(2, "refused"))
    assert not worker.avoided_s
    for number in (1, 2):
        lose(balance, number)
    assert [balance.choose(number, [worker]) for number in (3, 4)] == [balance.here, worker]
