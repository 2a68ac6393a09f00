"""Patterns: what they match, which lists refuse them, and that nothing makes them slow."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hooks.triggers.matching import InvalidPattern, PatternLists, check_patterns
from tests.support.costs import costs_at_most


def _chosen(patterns: Sequence[str], text: str, *, paths: bool) -> bool:
    (chosen,) = PatternLists([patterns], paths=paths).chosen([text])
    return chosen


@pytest.mark.parametrize(
    ("patterns", "matching", "others"),
    [
        ("data/**", "data/x data/a/b", "data x/data/y database/x"),
        ("data/", "data/x a/data/x data/a/b", "data a/data"),
        ("/data", "data data/x", "a/data/x"),
        ("data", "data a/data a/data/b", "database adata"),
        ("*.safetensors", "a.safetensors x/y/a.safetensors .safetensors", "a.safetensors2 safetensors"),
        ("/*.json", "config.json", "a/config.json"),
        ("src/*.py", "src/a.py src/.py src/a.py/b", "src/x/a.py a.py"),
        ("a/**/b", "a/b a/x/b a/x/y/b a/b/c", "ab a/xb x/a/b"),
        ("**/b", "b x/b x/y/b/z", "xb"),
        ("**/**/b", "b x/b x/y/b", "xb"),
        ("a/**/**/b", "a/b a/x/y/b", "ab"),
        ("a/**/*", "a/b a/b/c", "a"),
        ("**", "a a/b", ""),
        ("a**b", "ab axxb c/ab", "a/b"),
        ("a?c", "abc x/abc", "a/c ac abbc"),
        ("[a-cx]1", "a1 c1 x1", "d1 -1 /1"),
        ("[!a-c]1", "d1 -1", "a1 1"),
        ("[]a]1", "]1 a1", "b1"),
        ("[a-]1", "a1 -1", "b1"),
        (r"\*", "* x/*", "a"),
        (r"\!a", "!a", "a"),
        ("é*", "é éa", "e"),
        ("data/** !data/README.md", "data/x data/a/README.md", "data/README.md"),
        ("** !*.md docs/a.md", "x docs/a.md", "a.md docs/b.md"),
        ("*.bin !old/", "a.bin new/a.bin", "old/a.bin old/x/a.bin"),
    ],
)
def test_paths(patterns: str, matching: str, others: str) -> None:
    for path in matching.split():
        assert _chosen(patterns.split(), path, paths=True), path
    for path in others.split():
        assert not _chosen(patterns.split(), path, paths=True), path


@pytest.mark.parametrize(
    ("patterns", "matching", "others"),
    [
        ("main", "main", "mainline x/main main/x"),
        ("release/*", "release/1 release/", "release/1/2 release x/release/1"),
        ("release/**", "release/1 release/1/2", "release"),
        ("v[0-9]*", "v1 v1.0", "v vx v1/2"),
        ("*", "a", "a/b"),
        ("** !wip/**", "a a/b wip", "wip/a"),
        ("", "", "a"),
    ],
)
def test_names(patterns: str, matching: str, others: str) -> None:
    for name in matching.split():
        assert _chosen(patterns.split(), name, paths=False), name
    for name in others.split():
        assert not _chosen(patterns.split(), name, paths=False), name


def test_lists_are_judged_each_for_itself() -> None:
    lists = PatternLists([["a"], [], ["b", "!b"], ["*", "!a"], ["c"]], paths=True)
    assert lists.chosen(["a", "b"]) == [True, False, False, True, False]
    assert lists.chosen([]) == [False] * 5


@pytest.mark.parametrize(
    ("pattern", "paths", "why"),
    [
        ("", True, "empty"),
        ("!", False, "empty"),
        ("[a", True, "not closed"),
        ("[", False, "not closed"),
        ("[z-a]", True, "no range"),
        ("a\\", True, "nothing follows"),
        ("./a", True, "start at the root"),
        ("a/../b", True, "start at the root"),
        ("a//b", True, "start at the root"),
        ("/", True, "start at the root"),
        ("refs/heads/main", False, "without `refs/heads/`"),
    ],
)
def test_patterns_that_cannot_be(pattern: str, paths: bool, why: str) -> None:
    found = list(check_patterns(["ok", pattern], paths=paths))
    assert [index for index, _ in found] == [1]
    assert why in found[0][1]
    with pytest.raises(InvalidPattern, match=r"\w"):
        PatternLists([[pattern]], paths=paths)


def test_a_list_that_only_takes_away() -> None:
    assert [index for index, _ in check_patterns(["!a", "!b"], paths=True)] == [0]


def _matches(pattern: str, text: str) -> bool:
    """The plain definition, for names: one character after the other, trying every way."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        end = len(pattern) - len(pattern.lstrip("*"))
        stop = next((place for place, one in enumerate(text) if one == "/"), len(text))
        return any(_matches(pattern[end:], text[taken:]) for taken in range(stop + 1))
    if not text:
        return False
    fits = text[0] != "/" if pattern[0] == "?" else text[0] == pattern[0]
    return fits and _matches(pattern[1:], text[1:])


@settings(max_examples=1000, deadline=None, database=None)
@given(st.text("ab*?/", min_size=1, max_size=8), st.text("ab/", max_size=10))
def test_agrees_with_the_definition(pattern: str, text: str) -> None:
    if "**" in pattern:  # whose parts are in the tables above
        pattern = pattern.replace("**", "*")
    if "**" not in pattern:
        assert _chosen([pattern], text, paths=False) == _matches(pattern, text)


def test_nothing_is_slow() -> None:
    """What a backtracking matcher would not end on before the sun does."""
    lists = PatternLists([["a*" * 50 + "b"] * 30, ["**/a/" * 20 + "**/b"], ["?*" * 60]], paths=True)
    with costs_at_most(2):
        chosen = lists.chosen(["a/" * 1000 + "a" * 2000, "a" * 4000])
    assert chosen == [False, False, True]
