from __future__ import annotations

import segno

from mitml4.sinks.qr import qr_lines


def test_the_lines_are_the_modules_of_the_code() -> None:
    text = "http://192.0.2.1/"
    lines = qr_lines(text)
    assert len({len(line) for line in lines}) == 1
    modules = {" ": (0, 0), "▄": (0, 1), "▀": (1, 0), "█": (1, 1)}
    rows = [[modules[char][half] for char in line] for line in lines for half in (0, 1)]
    expected = [
        list(map(int, row)) for row in segno.make_qr(text, error="m", mask=2).matrix_iter(border=2)
    ]
    assert rows[: len(expected)] == expected
    assert not any(map(any, rows[len(expected) :]))
