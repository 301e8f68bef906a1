"""The arithmetic behind the figures."""

import pytest

from bench.figures import fairness, percentile


@pytest.mark.parametrize(
    ("share", "expected"), [(0.01, 1.0), (0.5, 50.0), (0.95, 95.0), (0.951, 96.0), (1.0, 100.0)]
)
def test_a_percentile_is_the_least_value_that_covers_the_share(
    share: float, expected: float
) -> None:
    assert percentile([float(value) for value in range(100, 0, -1)], share) == expected


@pytest.mark.parametrize(("values", "share"), [([], 0.5), ([1.0], 0.0), ([1.0], 1.1)])
def test_a_percentile_of_nothing_is_refused(values: list[float], share: float) -> None:
    with pytest.raises(ValueError, match="percentile"):
        percentile(values, share)


def test_equal_rates_are_wholly_fair() -> None:
    assert fairness([7.0] * 200) == pytest.approx(1.0)


def test_one_flow_that_gets_all_is_one_nth_fair() -> None:
    assert fairness([9.0, 0.0, 0.0, 0.0]) == pytest.approx(0.25)
