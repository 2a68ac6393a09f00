"""The shape of access tokens."""

import string
import zlib

from hypothesis import given
from hypothesis import strategies as st

from core.tokens import digest, is_token, is_well_formed, new_secret


def test_a_new_token() -> None:
    secret = new_secret()
    assert secret.startswith("myd_")
    assert len(secret) == 50
    assert set(secret[4:]) <= set(string.ascii_letters + string.digits)
    assert is_token(secret)
    assert is_well_formed(secret)
    assert len({new_secret() for _ in range(100)}) == 100


def test_the_checksum_is_what_scanners_expect() -> None:
    """CRC-32 of the random part, in base62 of digits, upper and lower case, as GitHub does it."""
    secret = new_secret()
    alphabet = string.digits + string.ascii_uppercase + string.ascii_lowercase
    value = 0
    for character in secret[-6:]:
        value = value * 62 + alphabet.index(character)
    assert value == zlib.crc32(secret[4:44].encode())


@given(st.integers(4, 49), st.sampled_from(string.ascii_letters + string.digits))
def test_one_wrong_character_is_seen(position: int, character: str) -> None:
    secret = new_secret()
    changed = secret[:position] + character + secret[position + 1 :]
    assert is_well_formed(changed) is (changed == secret)


@given(st.text(max_size=80) | st.builds("myd_{}".format, st.text(max_size=60)))
def test_other_texts_are_no_tokens(text: str) -> None:
    assert not is_well_formed(text)


def test_the_digest_tells_tokens_apart() -> None:
    first, second = new_secret(), new_secret()
    assert digest(first) == digest(first) != digest(second)
    assert first not in digest(first)
