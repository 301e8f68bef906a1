"""Root over its network suffices, and root of less does not."""

from __future__ import annotations

from mitml4.net.firewall.host_rules import RulesHiddenError
from mitml4.net.isolation import enter_network, enter_user_namespace
from mitml4.net.trial.child import run_in_child
from mitml4.session.doctor.check import Check
from mitml4.session.doctor.prerequisites import Power, check_privilege


def test_root_over_its_network_suffices(on_host) -> None:
    power = on_host(lambda: Power.find(has_nft=True))
    assert power.suffices
    assert power.rules is not None
    assert check_privilege(power).state == "ok"


def test_root_of_a_user_namespace_does_not_suffice() -> None:
    def work() -> tuple[Power, Check]:
        enter_network()
        enter_user_namespace(root=True)
        power = Power.find(has_nft=True)
        return power, check_privilege(power)

    ((power, check),) = run_in_child(work, timeout_s=30)
    assert power.is_capable
    assert not power.suffices
    assert isinstance(power.trouble, RulesHiddenError)
    assert check.state == "fail"
