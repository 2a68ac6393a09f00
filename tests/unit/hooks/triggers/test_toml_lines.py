"""Positions in TOML: every key and item is found where it stands, and no text makes the scanner fail."""

import tomllib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hooks.triggers.places import Path
from hooks.triggers.toml_lines import MAX_DEPTH, TomlLines, TooDeep

DOCUMENT = '''\
# a comment with [brackets] = "and more"
top = "a"
"quoted key".'and more' . bare = 1
many = [ 1, # one
  "two ] # no comment", [3,
  4], { five = 5, six.seven = [7] } ]

[table] # header
text = """
[[rule]] in a string \\""" "
"""
literal = \'\'\'
x = ''
\'\'\'

[[rule]]
name = "a"
on.branches = ["main",
   "dev"]
[rule.parameters.deep]
x = 1

  [[rule]]
name = "b"
[[rule.inner]]
y = 1
[[rule.inner]]
z = 2
'''


@pytest.mark.parametrize(
    ("path", "position"),
    [
        ((), (1, 1)),
        (("top",), (2, 1)),
        (("quoted key",), (3, 1)),
        (("quoted key", "and more"), (3, 14)),
        (("quoted key", "and more", "bare"), (3, 27)),
        (("many", 0), (4, 10)),
        (("many", 1), (5, 3)),
        (("many", 2), (5, 25)),
        (("many", 2, 1), (6, 3)),
        (("many", 3, "five"), (6, 9)),
        (("many", 3, "six", "seven"), (6, 23)),
        (("many", 3, "six", "seven", 0), (6, 32)),
        (("table",), (8, 1)),
        (("table", "text"), (9, 1)),
        (("table", "literal"), (12, 1)),
        (("rule", 0), (16, 1)),
        (("rule", 0, "name"), (17, 1)),
        (("rule", 0, "on"), (18, 1)),
        (("rule", 0, "on", "branches"), (18, 4)),
        (("rule", 0, "on", "branches", 1), (19, 4)),
        (("rule", 0, "parameters", "deep", "x"), (21, 1)),
        (("rule", 1), (23, 3)),
        (("rule", 1, "name"), (24, 1)),
        (("rule", 1, "inner", 1, "z"), (28, 1)),
        (("rule", 1, "missing"), (23, 3)),
        (("rule", 0, "on", "paths", 7), (18, 1)),
    ],
)
def test_positions(path: Path, position: tuple[int, int]) -> None:
    tomllib.loads(DOCUMENT)
    assert TomlLines(DOCUMENT).find(path) == position


@pytest.mark.parametrize(
    "text",
    [
        "a." * MAX_DEPTH + "a = 1",
        "[" + "a." * MAX_DEPTH + "a]",
        "a = " + "[" * 100_000,
        "a = " + "{a = " * 10_000,
        "[a.b.c.d]\n" + "e." * (MAX_DEPTH - 4) + "f = 1",
    ],
)
def test_depth_is_refused_before_anybody_recurses(text: str) -> None:
    with pytest.raises(TooDeep):
        TomlLines(text)


KEY = st.text("abc", min_size=1, max_size=2)
SCALAR = st.sampled_from(
    ["1", "1.5", "true", '"a # b"', "'[x]'", '"""\n]\n"""', "'''a'''", "1979-05-27 07:32:00"]
)


@st.composite
def _value(draw: st.DrawFn, depth: int = 0) -> tuple[str, Any]:
    """An inline value as text, and its shape: a dict, a list, or None."""
    kind = draw(st.integers(0, 4 if depth < 3 else 2))
    gap = draw(st.sampled_from(["", " ", "\n", " # c\n "]))
    if kind == 3:
        items = draw(st.lists(_value(depth + 1), max_size=3))
        return "[" + gap + f",{gap}".join(text for text, _ in items) + gap + "]", [
            shape for _, shape in items
        ]
    if kind == 4:
        members = draw(st.dictionaries(KEY, _value(depth + 1), max_size=3))
        text = ", ".join(f"{key} = {value}" for key, (value, _) in members.items())
        return "{" + text + "}", {key: shape for key, (_, shape) in members.items()}
    return draw(SCALAR), None


@st.composite
def _document(draw: st.DrawFn) -> tuple[str, Any]:
    text, shape = "", {}
    for key, (value, inner) in draw(st.dictionaries(KEY, _value(), max_size=3)).items():
        text += f"{key} = {value}\n"
        shape[key] = inner
    for name in draw(st.lists(st.sampled_from(["table", "other"]), unique=True)):
        shape[name] = []
        for _ in range(draw(st.integers(1, 3))):
            members = draw(st.dictionaries(KEY, _value(), max_size=3))
            text += f"[[{name}]]\n" + "".join(f"  {key}={value}\n" for key, (value, _) in members.items())
            shape[name].append({key: inner for key, (_, inner) in members.items()})
    return text, shape


def _paths(shape: Any, path: Path = ()) -> list[Path]:
    found = [path]
    if isinstance(shape, dict):
        for key, inner in shape.items():
            found += _paths(inner, (*path, key))
    if isinstance(shape, list):
        for index, inner in enumerate(shape):
            found += _paths(inner, (*path, index))
    return found


@settings(max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(_document())
def test_every_key_is_found_where_it_stands(made: tuple[str, Any]) -> None:
    text, shape = made
    tomllib.loads(text)
    lines, positions = TomlLines(text), {}
    for path in _paths(shape)[1:]:
        line, column = positions[path] = lines.find(path)
        if isinstance(path[-1], str) and path not in {("table",), ("other",)}:
            assert text.split("\n")[line - 1][column - 1 :].startswith(path[-1]), (path, text)
    own = [position for path, position in positions.items() if path not in {("table",), ("other",)}]
    assert len(own) == len(set(own)), "no two at one place"


TOKENS = st.sampled_from([*"ab=.,[]{}\"'\n# \\1", '"""', "'''", "[[", "]]", " = ", "a = "])


@settings(max_examples=2000, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(st.lists(TOKENS, max_size=25).map("".join))
def test_what_tomllib_reads_is_read_to_its_end(text: str) -> None:
    """So that nothing deep comes to `tomllib` behind something that the scanner lost its way at."""
    lines = TomlLines(text)
    try:
        document = tomllib.loads(text)
    except ValueError:
        return
    for key in document:
        assert (key,) in lines._offsets
    assert lines._at >= len(text)
