"""Words in parameters."""

from typing import Any

import pytest

from hooks.triggers.parameters import check_parameters, filled_in

WORDS = {"commit": "c0ffee", "ref": "refs/heads/main", "branch": "main", "tag": "", "repository": "a/b"}


@pytest.mark.parametrize(
    ("value", "filled"),
    [
        ("${commit}", "c0ffee"),
        ("x${branch}y${tag}z", "xmainyz"),
        ("$${commit} $commit $ {commit}", "${commit} $commit $ {commit}"),
        ("$$${commit}", "$${commit}"),
        ("{commit}", "{commit}"),
        (
            ["${ref}", {"${ref}": "${repository}"}, 1, None, True],
            ["refs/heads/main", {"${ref}": "a/b"}, 1, None, True],
        ),
    ],
)
def test_words_are_filled_in(value: Any, filled: Any) -> None:
    assert list(check_parameters({"a": value}, ())) == []
    assert filled_in({"a": value}, WORDS) == {"a": filled}


def test_what_is_filled_in_is_not_read_again() -> None:
    assert filled_in("${branch}", {**WORDS, "branch": "${commit}"}) == "${commit}"


@pytest.mark.parametrize(
    "text", ["${}", "${ commit}", "${commit", "${environ}", "${commit.__class__}", "${a}${b}"]
)
def test_other_words_are_refused(text: str) -> None:
    assert next(path for path, _ in check_parameters({"a": text}, ("parameters",))) == ("parameters", "a")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**63, -(2**63) - 1, "\0", "\ud800", object()])
def test_values_that_are_no_json_everywhere(value: Any) -> None:
    for parameters in ({"a": value}, {"a": [1, {"b": value}]}):
        assert len(list(check_parameters(parameters, ()))) == 1
    if isinstance(value, str):
        assert len(list(check_parameters({value: 1}, ()))) == 1
