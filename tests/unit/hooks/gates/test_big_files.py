"""The command that puts big files into LFS; that it works, tests/e2e/test_gates.py shows."""

import pytest

from hooks.gates.big_files import migration


@pytest.mark.parametrize(
    ("paths", "include"),
    [
        (["model.bin"], "--include=/model.bin"),
        (["a b/größe.bin", "x.bin"], "'--include=/a b/größe.bin,/x.bin'"),
        (["it's,[1]*.bin"], "'--include=/it?s??1??.bin'"),
        ([f"{number}.bin" for number in range(3)], "'--include=*.bin'"),
        (["1.bin", "2.bin", "3.bin", "Makefile"], "'--include=*.bin,/Makefile'"),
        (["$(id)`id`;\\x"], "'--include=/??id??id???x'"),
        (["\\xff.bin"], "'--include=/?xff.bin'"),
    ],
)
def test_patterns(paths: list[str], include: str) -> None:
    assert migration(paths, ["main"], accepted=False) == (
        f"`git lfs migrate import {include} main` puts it into LFS; then push again"
    )


def test_branches() -> None:
    text = migration(["a"], ["main", "it's"], accepted=False)
    assert text.startswith("`git lfs migrate import --include=/a main 'it'\"'\"'s'`")
    text = migration(["a"], ["main"], accepted=True)
    assert "--include-ref=refs/heads/main" in text
    assert "--force-with-lease" in text


def test_never_too_long() -> None:
    assert (
        len(migration([f"{'d' * 30}{number}" for number in range(10_000)], ["main"], accepted=False)) < 1000
    )
