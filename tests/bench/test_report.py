"""Samples become tables; every number that a reader sees passes through here."""

import pytest

from bench.report import Report, Sample, Spread, compare, parse_size, spread

TWO_ROUNDS = [
    Sample("tls-download", "direct", 1, {"mb_per_s": 1000.0}),
    Sample("tls-download", "mitml4", 1, {"mb_per_s": 500.0, "cpu_s_per_gb": 1.5}),
    Sample("tls-download", "direct", 2, {"mb_per_s": 400.0}),
    Sample("tls-download", "mitml4", 2, {"mb_per_s": 300.0, "cpu_s_per_gb": 1.7}),
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1", 1), ("64K", 64_000), ("200M", 200_000_000), ("1G", 10**9), ("2g", 2 * 10**9)],
)
def test_a_size_is_read_in_powers_of_ten(text: str, expected: int) -> None:
    assert parse_size(text) == expected


@pytest.mark.parametrize("text", ["", "G", "1.5G", "-1M", "0", "10T", "1GG", "M1", "1 G"])
def test_what_is_not_a_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a size"):
        parse_size(text)


def test_a_spread_is_median_least_and_greatest() -> None:
    assert spread([3.0, 1.0, 8.0]) == Spread(3.0, 1.0, 8.0)


def test_a_spread_hides_bounds_that_look_alike() -> None:
    assert Spread(1.001, 1.0, 1.002).show(2) == "1.00"
    assert Spread(1.0, 0.5, 2.0).show(1) == "1.0 (0.5–2.0)"


def test_peers_are_compared_with_direct_of_the_same_round() -> None:
    assert compare(TWO_ROUNDS, "mitml4", "mb_per_s", "ratio") == [0.5, 0.75]
    assert compare(TWO_ROUNDS, "mitml4", "mb_per_s", "added") == [-500.0, -100.0]


def test_a_round_without_direct_is_not_compared() -> None:
    assert compare(TWO_ROUNDS[1:], "mitml4", "mb_per_s", "ratio") == [0.75]


def test_the_table_shows_medians_ratios_and_gaps() -> None:
    shown = Report({}, {}, samples=TWO_ROUNDS).to_markdown()
    assert "| peer | MB/s | × direct | CPU s/GB |" in shown
    assert "| direct | 700 (400–1000) | – | – |" in shown
    assert "| mitml4 | 400 (300–500) | 0.62 (0.50–0.75) | 1.60 (1.50–1.70) |" in shown


def test_what_was_not_measured_is_said_with_its_reason() -> None:
    report = Report({}, {}, not_measured=[("http2-download", "squid", "it answered in HTTP/1.1")])
    assert "- http2-download, squid: it answered in HTTP/1.1" in report.to_markdown()


def test_json_carries_every_sample() -> None:
    samples = Report({}, {}, samples=TWO_ROUNDS).to_json()["samples"]
    assert samples[1] == {
        "figure": "tls-download",
        "peer": "mitml4",
        "round": 1,
        "values": {"mb_per_s": 500.0, "cpu_s_per_gb": 1.5},
    }
