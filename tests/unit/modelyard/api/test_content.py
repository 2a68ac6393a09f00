"""Ranges after RFC 9110, and file names that cannot break out of their header."""

from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import RangeNotSatisfiable
from modelyard.api.content import Span, disposition, parse_range


@pytest.mark.parametrize(
    ("header", "span"),
    [
        ("bytes=0-0", Span(0, 1)),
        ("bytes=2-", Span(2, 10)),
        ("bytes=2-4", Span(2, 5)),
        ("bytes=-3", Span(7, 10)),
        ("bytes=-30", Span(0, 10)),
        ("bytes=8-99", Span(8, 10)),
        (None, None),
        ("", None),
        ("bytes=-", None),
        ("bytes=4-2", None),
        ("bytes=0-1,3-4", None),
        ("lines=0-1", None),
        ("bytes=٣-٤", None),
        ("bytes=0x1-2", None),
        ("bytes=1-9999999999999999999999", None),
    ],
)
def test_ranges_of_ten_bytes(header: str | None, span: Span | None) -> None:
    assert parse_range(header, 10) == span


@pytest.mark.parametrize(
    ("header", "size"), [("bytes=10-", 10), ("bytes=-0", 10), ("bytes=0-", 0), ("bytes=-5", 0)]
)
def test_ranges_that_hold_nothing(header: str, size: int) -> None:
    with pytest.raises(RangeNotSatisfiable):
        parse_range(header, size)


@given(st.binary())
def test_a_file_name_stays_in_its_header(name: bytes) -> None:
    header = disposition("attachment", name)
    assert header.isascii()
    assert header.isprintable()
    assert header.count('"') == 2
    assert unquote_to_bytes(header.rpartition("''")[2]) == name
