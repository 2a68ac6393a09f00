"""What holds for the answer of every parser, whatever it was given; and ways to spoil a file."""

import json
import re
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from hooks.formats.parsed import Parsed
from hooks.formats.source import BytesSource, Source
from tests.support.costs import costs_at_most

MOST_OUTPUT = 2 * 1024**2 + 256 * 1024
SECONDS = 2
_MOVES_TERMINALS = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def parse_soundly(parse: Callable[[Source], Parsed], data: bytes) -> Parsed:
    """Parse, and fail unless the answer can be stored, served and shown, and cost little."""
    with costs_at_most(SECONDS):
        parsed = parse(BytesSource(data))
    assert_storable(parsed.metadata)
    assert parsed.metadata is not None or parsed.findings
    for finding in parsed.findings:
        assert finding.code == finding.code.lower().replace("_", "-")
        assert not _MOVES_TERMINALS.search(finding.message), ascii(finding.message)
        assert len(finding.message) < 2000
        assert finding.line is None or finding.line > 0
    return parsed


def assert_storable(value: Any) -> None:
    """It is JSON that PostgreSQL takes, without numbers that clients cannot read."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False)
    assert len(text.encode()) < MOST_OUTPUT  # halves of surrogate pairs do not encode
    assert not escapes_nul(text)
    assert max((abs(number) for number in _integers(value)), default=0) <= 2**63


def _integers(value: Any) -> list[int]:
    if isinstance(value, dict):
        return [number for item in value.values() for number in _integers(item)]
    if isinstance(value, list):
        return [number for item in value for number in _integers(item)]
    return [value] if isinstance(value, int) else []


@st.composite
def spoiled(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """One of the files with a few bytes replaced, removed, repeated or put in, or the file cut."""
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        length = draw(st.integers(0, 12))
        how = draw(st.sampled_from(["replace", "remove", "repeat", "cut", "extreme"]))
        if how == "replace":
            data[start : start + length] = draw(st.binary(max_size=12))
        elif how == "remove":
            del data[start : start + length]
        elif how == "repeat":
            data[start:start] = data[start : start + length] * draw(st.integers(1, 20))
        elif how == "cut":
            del data[start:]
        else:
            data[start : start + length] = draw(
                st.sampled_from(
                    [b"\xff" * 10, b"\x80" * 9 + b"\x01", b"\0" * 8, b"[" * 2000, b'"', b"\xff" * 4]
                )
            )
    return bytes(data)


def anything(originals: list[bytes]) -> st.SearchStrategy[bytes]:
    return st.binary(max_size=200) | spoiled(originals)


def escapes_nul(text: str) -> bool:
    r"""Whether JSON says U+0000, which PostgreSQL does not take, and not a backslash before `u0000`."""
    return re.search(r"(?<!\\)(?:\\\\)*\\u0000", text) is not None
