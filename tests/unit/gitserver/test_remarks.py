"""Lines for whoever pushes: nothing in them drives a terminal, and nobody is flooded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitserver.remarks import Remarks, one_line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("models/größe 1.bin", "models/größe 1.bin"),
        ("a\nremote: b", "a\\x0aremote: b"),
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        (b"caf\xe9".decode("utf-8", "surrogateescape"), "caf\\xe9"),
        ("evil\u202egpj", "evil\\u202egpj"),
        ("two\u2028lines", "two\\u2028lines"),
    ],
)
def test_one_line(text: str, shown: str) -> None:
    assert one_line(text) == shown


@given(st.text(st.characters(codec=None), max_size=50), st.integers(3, 20))
def test_any_text_becomes_one_short_line(text: str, limit: int) -> None:
    line = one_line(text, limit)
    assert line.isprintable()
    assert len(line) <= limit
    assert line.encode().decode() == line


def test_a_long_line_says_that_it_was_cut() -> None:
    assert one_line("x" * 2000) == "x" * 997 + "..."
    assert one_line("x" * 1000) == "x" * 1000


def test_many_lines_are_counted() -> None:
    remarks = Remarks()
    for number in range(1000):
        remarks.add(f"line {number}")
    assert remarks.lines[:2] == ("line 0", "line 1")
    assert remarks.lines[399:] == ("line 399", "... and 600 more lines")
    assert Remarks().lines == ()
