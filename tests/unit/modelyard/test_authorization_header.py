import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InvalidCredentials
from modelyard.authentication import parse_authorization


def basic(text: str | bytes) -> str:
    data = text.encode() if isinstance(text, str) else text
    return "Basic " + base64.b64encode(data).decode()


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (basic("ann:secret"), ("ann", "secret")),
        (basic("ann:se:cr:et"), ("ann", "se:cr:et")),
        (basic(":myd_token"), ("", "myd_token")),
        (basic("bjørn:пароль"), ("bjørn", "пароль")),
        ("bAsIc " + basic("ann:x").split()[1], ("ann", "x")),
        ("Bearer myd_abc", (None, "myd_abc")),
        ("bearer   myd_abc  ", (None, "myd_abc")),
    ],
)
def test_well_formed(header: str, expected: tuple[str | None, str]) -> None:
    assert parse_authorization([header]) == expected


@pytest.mark.parametrize(
    "headers",
    [
        [""],
        ["Basic"],
        ["Bearer"],
        ["Bearer two words"],
        ["Basic !!!!"],
        ["Basic YQ"],  # wrong padding
        [basic("nocolon")],
        [basic("ann:")],
        [basic(b"ann:\xff\xfe")],
        [basic("ann\0:secret")],
        [basic("a" * 300 + ":secret")],
        [basic("ann:" + "s" * 5000)],
        ["Digest username=ann"],
        ["Negotiate abc"],
        ["Bearer " + "a" * 5000],
        [basic("ann:one"), basic("bea:two")],
    ],
)
def test_malformed(headers: list[str]) -> None:
    with pytest.raises(InvalidCredentials):
        parse_authorization(headers)


@given(st.text(max_size=200))
def test_anything_is_either_read_or_refused(header: str) -> None:
    try:
        _, secret = parse_authorization([header])
    except InvalidCredentials:
        return
    assert secret
