"""Cursors: whatever is listed is seen once, in order; what the server did not sign is refused."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InvalidCursor
from modelyard.api.cursors import Cursors, Window

CURSORS = Cursors(b"a secret of this deployment")


@given(st.tuples(st.text(), st.text(), st.integers(-(2**63), 2**63 - 1)))
def test_a_key_comes_back(key: tuple[str, str, int]) -> None:
    assert CURSORS.read("list_users", CURSORS.write("list_users", key), tuple[str, str, int]) == key


@given(st.text(max_size=200))
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(InvalidCursor):
        CURSORS.read("list_users", text, str)


@given(st.data())
def test_a_changed_cursor_is_refused(data: st.DataObject) -> None:
    cursor = CURSORS.write("list_users", "alice")
    index = data.draw(st.integers(0, len(cursor) - 2))  # of the last character not every bit counts
    other = data.draw(st.sampled_from("abcXYZ019-_=!").filter(lambda character: character != cursor[index]))
    with pytest.raises(InvalidCursor):
        CURSORS.read("list_users", cursor[:index] + other + cursor[index + 1 :], str)


def test_a_cursor_of_another_operation_or_server_is_refused() -> None:
    cursor = CURSORS.write("list_users", "alice")
    with pytest.raises(InvalidCursor):
        CURSORS.read("list_tokens", cursor, str)
    with pytest.raises(InvalidCursor):
        Cursors(b"another secret").read("list_users", cursor, str)


@given(st.sets(st.integers()), st.integers(1, 7))
def test_pages_show_everything_once_and_in_order(numbers: set[int], limit: int) -> None:
    seen: list[int] = []
    after: Any = None
    while True:
        page = Window(limit, after).page_of_all(numbers, lambda number: number, lambda number: number)
        assert len(page.items) <= limit
        seen += page.items
        if page.last is None:
            break
        assert page.items, "an empty page must be the last"
        after = CURSORS.read("x", CURSORS.write("x", page.last), int)
    assert seen == sorted(numbers)
