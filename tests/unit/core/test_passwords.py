"""Passwords: what may be one, what is stored, and what is remembered."""

import asyncio
import time

import pytest

from core.errors import Unprocessable
from core.passwords import Passwords
from core.settings import AuthSettings

GOOD = "correct horse battery"


async def test_what_is_stored() -> None:
    passwords = Passwords(AuthSettings())
    first, second = await passwords.hash(GOOD), await passwords.hash(GOOD)
    assert first.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert first != second
    assert await passwords.verify(GOOD, first)
    assert await passwords.verify(GOOD, second)
    assert not await passwords.verify(GOOD + " ", first)
    assert not await passwords.verify(GOOD, None)


@pytest.mark.parametrize("password", ["", "123456789", "x" * 1025, "é" * 513, "myd_" + "x" * 20])
async def test_what_cannot_be_one(password: str) -> None:
    with pytest.raises(Unprocessable):
        await Passwords(AuthSettings()).hash(password)


async def test_any_text_is_verified() -> None:
    passwords = Passwords(AuthSettings(password_min_length=1))
    for password in ("ü" * 10, "\0", "\ud800", "x" * 1024):
        stored = await passwords.hash(password)
        assert await passwords.verify(password, stored)
        assert not await passwords.verify("x" * 100_000, stored)


async def test_what_is_remembered_hangs_on_the_stored_hash() -> None:
    passwords = Passwords(AuthSettings())
    stored, other = await passwords.hash(GOOD), await passwords.hash(GOOD)
    assert not passwords.is_remembered(GOOD, stored)
    await passwords.verify("something else", stored)
    assert not passwords.is_remembered("something else", stored)
    await passwords.verify(GOOD, stored)
    assert passwords.is_remembered(GOOD, stored)
    assert not passwords.is_remembered(GOOD, other)
    assert not passwords.is_remembered(GOOD, None)
    assert not passwords.is_remembered("something else", stored)


async def test_nothing_is_remembered_for_longer_than_the_settings_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passwords, never = (
        Passwords(AuthSettings(password_cache_seconds=60)),
        Passwords(AuthSettings(password_cache_seconds=0)),
    )
    stored = await passwords.hash(GOOD)
    assert await passwords.verify(GOOD, stored)
    assert await never.verify(GOOD, stored)
    assert not never.is_remembered(GOOD, stored)
    present = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: present + 59)
    assert passwords.is_remembered(GOOD, stored)
    monkeypatch.setattr(time, "monotonic", lambda: present + 61)
    assert not passwords.is_remembered(GOOD, stored)


async def test_unknown_users_take_as_long_as_known_ones() -> None:
    passwords = Passwords(AuthSettings())
    stored = await passwords.hash(GOOD)

    async def fastest(hashed: str | None) -> float:
        times = []
        for number in range(5):
            start = time.process_time()
            await passwords.verify(f"wrong {number}", hashed)
            times.append(time.process_time() - start)
        return min(times)

    known, unknown = await fastest(stored), await fastest(None)
    assert 0.1 < known / unknown < 10


async def test_the_loop_keeps_running_while_passwords_are_hashed() -> None:
    passwords = Passwords(AuthSettings())
    work = asyncio.gather(*(passwords.hash(GOOD) for _ in range(8)))
    turns = 0
    while not work.done():
        await asyncio.sleep(0)
        turns += 1
    await work
    assert turns > 20
