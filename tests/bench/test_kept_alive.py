"""What wrk and h2load print becomes counts and medians; failed requests are never counted."""

import pytest

from bench.kept_alive import Load, parse_h2load, parse_wrk
from bench.peers import NotMeasuredError

H2LOAD = """\
Application protocol: h2

finished in 2.00s, 1.50 req/s, 3.95KB/s
requests: 3 total, 3 started, 3 done, 3 succeeded, {failed} failed, {errored} errored, 0 timeout
"""
LOG = "1790000000000000\t200\t900\n1790000000000001\t200\t100\n1790000000000002\t200\t300\n"


def test_wrk_counts_requests() -> None:
    shown = 'Running 2s test\n{"requests": 40, "seconds": 2.0, "median_us": 125.0, "failed": 0}\n'
    assert parse_wrk(shown) == Load(requests=40, seconds=2.0, median_ms=0.125)


@pytest.mark.parametrize(("requests", "failed"), [(40, 1), (0, 0)])
def test_failed_requests_of_wrk_are_no_figure(requests: int, failed: int) -> None:
    shown = f'{{"requests": {requests}, "seconds": 2.0, "median_us": 1.0, "failed": {failed}}}\n'
    with pytest.raises(NotMeasuredError, match="failed"):
        parse_wrk(shown)


def test_h2load_counts_requests() -> None:
    shown = H2LOAD.format(failed=0, errored=0)
    assert parse_h2load(shown, LOG, 2) == Load(requests=3, seconds=2, median_ms=0.3)


@pytest.mark.parametrize(
    ("shown", "log", "why"),
    [
        ("Application protocol: http/1.1\n", LOG, "HTTP/2"),
        (H2LOAD.format(failed=1, errored=0), LOG, "1 failed"),
        (H2LOAD.format(failed=0, errored=1), LOG, "1 errored"),
        (H2LOAD.format(failed=0, errored=0), "", "failed"),
        (H2LOAD.format(failed=0, errored=0), LOG.replace("200", "502"), "status 502"),
    ],
)
def test_what_h2load_could_not_do_is_no_figure(shown: str, log: str, why: str) -> None:
    with pytest.raises(NotMeasuredError, match=why):
        parse_h2load(shown, log, 2)
