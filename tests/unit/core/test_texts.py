"""Free text from outside."""

import pytest

from core.errors import Unprocessable
from core.texts import checked_text


@pytest.mark.parametrize("text", ["", "plain", "Grüße, 世界 🦜", "a\u200db", "it's 100% <b>fine</b>"])
def test_texts(text: str) -> None:
    assert checked_text(f"  {text}\n", "title", 100) == text


@pytest.mark.parametrize(
    "text", ["a\nb", "a\tb", "a\0b", "a\x1b[1mb", "a\x7fb", "a\x85b", "a\u202eb", "\udc80"]
)
def test_texts_of_one_line_that_cannot_be(text: str) -> None:
    with pytest.raises(Unprocessable) as refused:
        checked_text(text, "title", 100)
    assert refused.value.fields == {"field": "title"}


def test_lines() -> None:
    assert checked_text("a\n\tb\r\nc", "description", 100, lines=True) == "a\n\tb\r\nc"
    with pytest.raises(Unprocessable):
        checked_text("a\0b", "description", 100, lines=True)


def test_the_limit() -> None:
    assert checked_text("x" * 10, "title", 10) == "x" * 10
    with pytest.raises(Unprocessable, match="longer than 10"):
        checked_text("x" * 11, "title", 10)
