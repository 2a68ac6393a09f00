"""Names and addresses: the one normaliser that every face uses."""

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InvalidName, RepositoryNotFound
from core.models import RepositoryType
from core.names import (
    Address,
    check_account_name,
    check_branch_name,
    check_repository_name,
    check_tag_name,
    is_valid_ref,
    parse_address,
)

_HOSTILE = st.text(st.sampled_from("aA0._-/\\%~: \0\n\u212a\u2024\u2215é"), max_size=60)


@pytest.mark.parametrize(
    ("path", "canonical"),
    [
        ("alice/net", "alice/net"),
        ("/alice/net.git/", "alice/net"),
        ("Alice/NET.git", "alice/net"),
        ("models/alice/net", "alice/net"),
        ("datasets/alice/net", "datasets/alice/net"),
        ("datasets/alice/net.git", "datasets/alice/net"),
        ("models/net", "models/net"),  # nobody can be called so: it will not be found
        ("alice/a.b_c-d", "alice/a.b_c-d"),
    ],
)
def test_addresses(path: str, canonical: str) -> None:
    assert parse_address(path).path == canonical


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "alice",
        "alice/",
        "alice//net",
        "a/b/c",
        "spaces/alice/net",
        "datasets/models/alice/net",
        "../alice/net",
        "alice/..",
        "alice/...git",
        "alice/.git",
        "alice/net/../other",
        "alice/%2e%2e",
        "alice/net%00",
        "alice/net\0",
        "alice/net\n",
        "alice\\net",
        "alice/-net",
        "alice/net.",
        "-alice/net",
        "alice./net",
        "al\u212ae/net",
        "alice/n\u00e9t",
        "alice/" + "x" * 97,
        "x" * 40 + "/net",
        "alice/net:x",
        "~alice/net",
    ],
)
def test_addresses_that_nothing_can_have(path: str) -> None:
    with pytest.raises(RepositoryNotFound):
        parse_address(path)


@given(_HOSTILE)
def test_whatever_is_parsed_is_safe_and_canonical(path: str) -> None:
    try:
        address = parse_address(path)
    except RepositoryNotFound:
        return
    assert parse_address(address.path) == address
    assert set(address.owner) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert set(address.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-._")
    assert ".." not in address.name


@given(_HOSTILE)
def test_whatever_may_be_created_can_be_reached(name: str) -> None:
    try:
        check_repository_name(name)
    except InvalidName:
        return
    for kind in RepositoryType:
        address = Address(kind, "alice", name)
        assert parse_address(address.path) == address == parse_address(f"{address.path}.git")


@pytest.mark.parametrize("name", ["a", "0", "a-b", "a" * 39, "admin"])
def test_account_names(name: str) -> None:
    assert check_account_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "A", "a_b", "a.b", "-a", "a-", "a--b", "a" * 40, "api", "datasets", "models", "anonymous", "a\n"],
)
def test_account_names_that_cannot_be(name: str) -> None:
    with pytest.raises(InvalidName):
        check_account_name(name)


@pytest.mark.parametrize(
    "name", ["a.git", "a.lock", "a.wiki", "a..b", ".a", "a.", "-a", "A", "a b", "info", "a\0"]
)
def test_repository_names_that_cannot_be(name: str) -> None:
    with pytest.raises(InvalidName):
        check_repository_name(name)


@pytest.mark.parametrize("name", ["main", "feature/a", "a@b", "release-1.0", "ü", "a.b", "{x}"])
def test_branch_and_tag_names(name: str) -> None:
    assert check_branch_name(name) == check_tag_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "HEAD", "-x", "a..b", "a b", "a~1", "a^", "a:b", "a?", "a*", "a[", "a\\b", "/a", "a/", "a//b"],
)
def test_branch_names_that_cannot_be(name: str) -> None:
    with pytest.raises(InvalidName):
        check_branch_name(name)


def test_refs_are_judged_as_git_does() -> None:
    """Against the real `git check-ref-format`, except for the length, which is ours."""
    odd = [
        "~",
        "^",
        ":",
        "?",
        "*",
        "[",
        "\\",
        " ",
        "..",
        "@{",
        "//",
        "/.",
        ".lock",
        ".lock/",
        "@",
        "}",
        "\x7f",
        "é",
    ]
    names = [f"refs/heads/a{part}b" for part in odd] + [f"refs/heads/a{part}" for part in [*odd, ".", "/"]]
    names += [f"refs/heads/{part}a" for part in odd] + ["refs/heads/", "refs/heads", "refs/x", "refs/heads/@"]
    for name in names:
        judged = subprocess.run(["git", "check-ref-format", name], capture_output=True).returncode == 0
        assert (is_valid_ref(name) and name.count("/") >= 2) is (judged and name.count("/") >= 2), name


def test_a_ref_lies_below_refs_and_is_not_endless() -> None:
    assert not is_valid_ref("HEAD")
    assert not is_valid_ref("heads/main")
    assert is_valid_ref("refs/heads/" + "x" * 501)
    assert not is_valid_ref("refs/heads/" + "x" * 502)
