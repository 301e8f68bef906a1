"""Reading py-spy's stacks."""

from bench.profile import self_times


def test_samples_count_for_the_innermost_frame() -> None:
    stacks = [
        "main (a.py:1);relay (b.py:2);send (c.py:3) 6",
        "main (a.py:1) 1",
        "x;send (c.py:3) 1",
    ]
    assert self_times(stacks) == [("send (c.py:3)", 7 / 8), ("main (a.py:1)", 1 / 8)]
