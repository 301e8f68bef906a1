"""Reading py-spy's stacks."""

from bench.profile import self_times


def test_samples_count_for_the_innermost_frame() -> None:
    stacks = [
        "main (a.py:1);relay (b.py:2);send (c.py:3) 6",
        "main (a.py:1) 1",
        "x;send (c.py:3) 1",
    ]
    assert self_times(stacks) == [("send (c.py:3)", 7 / 8), ("main (a.py:1)", 1 / 8)]


def test_functions_without_a_symbol_are_taken_together() -> None:
    assert self_times(["a;0x7f62 (libc.so.6) 2", "b;0xbb75 (libc.so.6) 3"]) == [
        ("? (libc.so.6)", 1.0)
    ]
