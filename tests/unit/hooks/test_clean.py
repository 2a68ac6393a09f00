import json
import math
from datetime import date
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hooks.formats.clean import (
    BadJson,
    clean_json,
    clean_number,
    clean_object,
    clean_text,
    load_json,
    named,
    quoted,
)
from hooks.formats.parsed import Severity
from tests.support.bounds import memory_of
from tests.support.parsed_checks import escapes_nul

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates(),
    lambda inner: (
        st.lists(inner, max_size=6)
        | st.dictionaries(st.text() | st.integers() | st.none(), inner, max_size=6)
        | st.tuples(inner)
    ),
    max_leaves=40,
)


class TestText:
    def test_keeps_what_is_storable(self) -> None:
        assert clean_text("Schöne Grüße\n\t🤗", 100) == "Schöne Grüße\n\t🤗"

    def test_replaces_what_postgresql_refuses(self) -> None:
        assert clean_text("a\0b\ud83dc", 100) == "a\ufffdb\ufffdc"

    def test_cuts_to_the_limit(self) -> None:
        assert clean_text("x" * 11, 10) == "x" * 9 + "…"
        assert clean_text("x" * 10, 10) == "x" * 10

    def test_quoted_moves_no_terminal(self) -> None:
        assert quoted("a\x1b[2J\n\u202eb") == '"a\\u001b[2J\\u000a\\u202eb"'

    def test_named_counts_the_rest(self) -> None:
        assert named(["a", "b", "c"], 3, limit=2) == '"a", "b", and 1 more'
        assert named(["a"], 1) == '"a"'


class TestValues:
    @pytest.mark.parametrize("number", [0, -(2**63), 2**63 - 1, 1.5, True])
    def test_numbers_of_64_bits_stay(self, number: float) -> None:
        assert clean_number(number) == number

    @pytest.mark.parametrize(
        ("number", "text"),
        [(2**63, "9223372036854775808"), (math.nan, "nan"), (-math.inf, "-inf")],
    )
    def test_other_numbers_become_text(self, number: float, text: str) -> None:
        assert clean_number(number) == text

    def test_an_endless_number_costs_nothing(self) -> None:
        assert clean_number(1 << 10_000_000) == "an integer of 10,000,001 bits"

    def test_what_yaml_reads_becomes_json(self) -> None:
        value = {date(2026, 11, 22): {"x"}, 1: (b"y", None)}
        assert clean_json(value) == {"2026-11-22": ["x"], "1": ["a value of type bytes", None]}

    def test_a_cut_list_says_how_long_it_was(self) -> None:
        assert clean_json([1, 2, 3], length=2) == {"length": 3, "first": [1, 2]}
        assert clean_json({"a": 1, "b": 2}, length=1) == {"length": 2, "first": {"a": 1}}

    def test_an_object_stays_one(self) -> None:
        assert clean_object({"a": 1, "b": 2}, length=1) == {"a": 1}

    def test_depth(self) -> None:
        assert clean_json([[[1]]], depth=2) == [["…"]]

    def test_characters_are_counted_over_all(self) -> None:
        cleaned = clean_object({str(key): "x" * 100 for key in range(100)}, characters=1000)
        assert sum(len(key) + len(text) for key, text in cleaned.items()) <= 1001

    @given(_VALUES)
    @settings(max_examples=200, database=None)
    def test_the_result_is_strict_json_and_bounded(self, value: Any) -> None:
        cleaned = clean_json(value, depth=4, values=30, length=5, text=10)
        text = json.dumps(cleaned, allow_nan=False, ensure_ascii=False)
        text.encode()
        assert "\0" not in text
        assert not escapes_nul(text)
        assert len(text) < 30 * 6 * 120


class TestJson:
    @given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
    @settings(max_examples=100, database=None)
    def test_reads_what_is_json(self, value: Any) -> None:
        assert load_json(json.dumps(value).encode()) == value

    @pytest.mark.parametrize(
        ("text", "message", "line", "column"),
        [
            (b'{"a": 1,\n "b" 2}', "not JSON: expecting ':' delimiter", 2, 6),
            (b'{"a":\n\xff}', "not UTF-8", 2, 1),
            (b"", "not JSON: it is empty", 1, 1),
            (b"\xef\xbb\xbf{}", "not JSON: it begins with a byte order mark", 1, 1),
            (b'{"a": NaN}', "not JSON: NaN is no JSON value", None, None),
            (b'{"a": 1, "b": {"c": 1, "c": 2}}', 'the JSON has the key "c" twice in one object', None, None),
            (b"9" * 5000, "the JSON has a number of too many digits", None, None),
            (b'["\\ud83d"]', "the JSON has half of a surrogate pair in a text", None, None),
        ],
    )
    def test_says_what_is_wrong_and_where(
        self, text: bytes, message: str, line: int | None, column: int | None
    ) -> None:
        with pytest.raises(BadJson) as caught:
            load_json(text)
        assert (caught.value.message, caught.value.line, caught.value.column) == (message, line, column)
        assert not caught.value.too_large
        assert caught.value.finding("the file").severity is Severity.ERROR

    def test_a_whole_surrogate_pair_is_a_character(self) -> None:
        assert load_json(b'["\\ud83e\\udd17"]') == ["🤗"]

    @pytest.mark.parametrize(
        "data",
        [
            b"[" * 100_000,
            b'{"a":' * 100_000,
            b"[" + b"{}," * 1_000_000 + b"0]",
            b"[" + b"[]," * 1_000_000 + b"0]",
            b"[" + b"0," * 4_000_000 + b"0]",
        ],
    )
    def test_what_is_too_large_is_said_so(self, data: bytes) -> None:
        with pytest.raises(BadJson) as caught:
            load_json(data)
        assert caught.value.too_large
        assert caught.value.finding("the file").severity is Severity.WARNING

    @pytest.mark.parametrize(
        "data",
        [
            b"{" + b",".join(b'"%06d":0' % number for number in range(650_000)) + b"}",
            b"[" + b",".join(b'{"%06d":0}' % number for number in range(300_000)) + b"]",
            b'["' + "🤗".encode() + b"x" * 16_000_000 + b'"]',
        ],
        ids=["keys", "objects", "text"],
    )
    def test_what_is_just_not_too_large_takes_less_than_200_mb(self, data: bytes) -> None:
        assert memory_of(lambda: load_json(data)) < 200_000_000
