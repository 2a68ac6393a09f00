"""Segments are decoded once, and what cannot be a value is none."""

from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st

from modelyard.api.parameters import PLAIN, Rule, decode

REVISION = Rule(slashes=True)
FILE = Rule(slashes=True, tail=True, raw=True)


def test_a_slash_passes_only_where_the_rule_says() -> None:
    assert decode("a%2Fb", PLAIN) is None
    assert decode("feature%2Fa", REVISION) == "feature/a"
    assert decode("a/b%2Fc", FILE) == "a/b/c"


def test_decoding_happens_once() -> None:
    assert decode("%252e%252e%252f", PLAIN) == "%2e%2e%2f"
    assert decode("%252F", PLAIN) == "%2F"


def test_nul_never_passes() -> None:
    assert [decode("a%00b", rule) for rule in (PLAIN, REVISION, FILE)] == [None, None, None]


def test_bytes_that_are_no_text_pass_only_in_file_names() -> None:
    assert decode("%ff", PLAIN) is None
    assert decode("%ff", REVISION) is None
    assert decode("%ff", FILE) == "\udcff"


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
def test_every_name_survives(name: str) -> None:
    assert decode(quote(name, safe=""), FILE) == name


@given(st.binary(min_size=1).filter(lambda data: b"\0" not in data))
def test_every_file_name_survives(name: bytes) -> None:
    decoded = decode(quote(name, safe=""), FILE)
    assert decoded is not None
    assert decoded.encode("utf-8", "surrogateescape") == name
