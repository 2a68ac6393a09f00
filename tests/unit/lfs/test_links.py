import base64
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.access import ANONYMOUS, Actor, ActorKind
from core.errors import InvalidCredentials
from core.models import Scope
from core.tokens import is_token
from lfs.errors import LinkRefused
from lfs.links import SESSION_PREFIX, Link, Links, Session, Use

NOW = 1_800_000_000
ACTOR = Actor(
    ActorKind.USER,
    "ann",
    user_id=7,
    scope=Scope.WRITE,
    repository_id="r" * 32,
    read_only=True,
    credential="token:12",
    address="2001:db8::1",
)
LINK = Link(Use.PART, "f" * 32, "a" * 64, 2**62, ACTOR, NOW + 60, "e" * 32, 17)
LINKS = Links(b"k" * 32)
OTHERS = Links(b"l" * 32)


def refused(text: str, now: float = NOW) -> str:
    with pytest.raises(LinkRefused) as caught:
        LINKS.verify(text, now=now)
    return caught.value.message


def test_what_was_signed_comes_back() -> None:
    text = LINKS.sign(LINK)
    assert LINKS.verify(text, now=NOW) == LINK
    assert len(text) < 500
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.")


def test_of_nobody() -> None:
    link = replace(LINK, actor=replace(ANONYMOUS, address="192.0.2.1"))
    assert LINKS.verify(LINKS.sign(link), now=NOW) == link


def test_nobody_is_an_administrator_by_signature() -> None:
    link = replace(LINK, actor=replace(ACTOR, is_admin=True))
    assert LINKS.verify(LINKS.sign(link), now=NOW) == LINK


def test_expiry() -> None:
    text = LINKS.sign(LINK)
    assert LINKS.verify(text, now=LINK.expires - 0.01) == LINK
    refused(text, now=LINK.expires)


def test_another_key() -> None:
    refused(OTHERS.sign(LINK))


def test_every_refusal_says_the_same() -> None:
    text = LINKS.sign(LINK)
    wrong = [
        "",
        ".",
        "..",
        "x",
        text[:-1],
        text[1:],
        text + "A",
        text + ".",
        f"{text}\n",
        "é" * 50,
        "A" * 10_000,
    ]
    wrong += [text.replace(".", ""), text + "=", text.partition(".")[0] + ".", "." + text.partition(".")[2]]
    wrong += [LINKS.sign_session(Session("f" * 32, True, ACTOR, NOW + 60)).removeprefix(SESSION_PREFIX)]
    assert len({refused(one) for one in wrong} | {refused(text, now=NOW + 99)}) == 1


def test_no_character_can_be_changed() -> None:
    text = LINKS.sign(LINK)
    for position, character in enumerate(text):
        refused(text[:position] + ("A" if character != "A" else "B") + text[position + 1 :])


def test_what_a_link_says_cannot_be_rewritten() -> None:
    grant, subject, tag = LINKS.sign(LINK).split(".")
    for other in (replace(LINK, size=5), replace(LINK, part=18), replace(LINK, expires=NOW + 61)):
        body = LINKS.sign(other).rpartition(".")[0]
        assert body != f"{grant}.{subject}"
        refused(f"{body}.{tag}")
    raw = base64.urlsafe_b64decode(grant + "=" * (-len(grant) % 4))
    padded = base64.urlsafe_b64encode(raw + b"\0").decode().rstrip("=")
    refused(f"{padded}.{subject}.{tag}")


def test_links_of_one_grant() -> None:
    grant = LINKS.grant(LINK.repository_id, LINK.actor, LINK.expires)
    first, second = grant.sign(Use.DOWNLOAD, "a" * 64, 0), grant.sign(Use.UPLOAD, "b" * 64, 1)
    plain = replace(LINK, upload_id="", part=0)
    assert LINKS.verify(first, now=NOW) == replace(plain, use=Use.DOWNLOAD, size=0)
    assert LINKS.verify(second, now=NOW) == replace(plain, use=Use.UPLOAD, oid="b" * 64, size=1)
    refused(f"{first.rpartition('.')[0]}.{second.rpartition('.')[2]}")


@given(st.text(max_size=300))
def test_noise_is_refused(text: str) -> None:
    refused(text)


@pytest.mark.parametrize("writes", [True, False])
def test_sessions(writes: bool) -> None:
    session = Session("f" * 32, writes, ACTOR, NOW + 60)
    token = LINKS.sign_session(session)
    assert token.startswith(SESSION_PREFIX)
    assert not is_token(token)
    assert LINKS.verify_session(token, now=NOW) == session


@pytest.mark.parametrize(
    "change", [lambda t: t[:-1], lambda t: t.removeprefix(SESSION_PREFIX), lambda t: t + "A"]
)
def test_broken_sessions(change: "object") -> None:
    assert callable(change)
    token = LINKS.sign_session(Session("f" * 32, True, ACTOR, NOW + 60))
    with pytest.raises(InvalidCredentials):
        LINKS.verify_session(change(token), now=NOW)


def test_expired_and_strange_sessions() -> None:
    token = LINKS.sign_session(Session("f" * 32, True, ACTOR, NOW + 60))
    for links, text, now in (
        (LINKS, token, NOW + 60),
        (OTHERS, token, NOW),
        (LINKS, SESSION_PREFIX + LINKS.sign(LINK), NOW),
    ):
        with pytest.raises(InvalidCredentials):
            links.verify_session(text, now=now)
