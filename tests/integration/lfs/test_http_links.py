"""Links and sessions: each is for one thing, and ends with the right and the credential behind it."""

import time
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

from core.access import SYSTEM, Actor, ActorKind, Permission
from core.models import Role, Scope, Visibility
from core.names import parse_address
from lfs.links import Use
from tests.support.lfs_http import LfsCaller, LfsServer, said
from tests.support.lfs_world import oid_of

DATA = b"the weights of a model" * 1000
OID = oid_of(DATA)
SIZE = len(DATA)


def link_in(href: str) -> str:
    return parse_qs(urlsplit(href).query)["link"][0]


async def test_a_link_is_good_for_one_thing(server: LfsServer, ann: LfsCaller) -> None:
    await ann.upload(DATA)
    await server.repository("ann/other")
    other = b"something else"
    up, down = await ann.href("upload", oid_of(other), len(other)), await ann.href("download", OID, SIZE)
    links = server.services.large_files.links
    link = links.verify(link_in(down), now=time.time())
    expired = links.sign(replace(link, expires=int(time.time()) - 1))
    for_verify = links.sign(replace(link, use=Use.VERIFY))
    of_part = links.sign(replace(link, upload_id="f" * 32, part=1))

    def at(path: str, text: str, oid: str = OID) -> str:
        return f"{ann.caller.base}/{path}.git/info/lfs/objects/{oid}?link={text}"

    wrong = [
        at("ann/other", link_in(down)),
        at("ann/none", link_in(down)),
        at("datasets/ann/model", link_in(down)),
        at("ann/model", link_in(down), "b" * 64),
        at("ann/model", link_in(up)),
        at("ann/model", link_in(up), oid_of(other)),
        at("ann/model", expired),
        at("ann/model", for_verify),
        at("ann/model", of_part),
        at("ann/model", ""),
        at("ann/model", link_in(down)[:-1]),
        at("ann/model", link_in(down)[:100]),
        at("ann/model", link_in(down).swapcase()),
        at("ann/model", "A" * 6_000),
        at("ann/model", "%00%ff"),
        at("ann/model", f"{link_in(down)}&link={link_in(down)}"),
    ]
    refusals = [await ann.get(href) for href in wrong]
    assert [reply.status for reply in refusals] == [403] * len(wrong)
    assert len({str(said(reply)) for reply in refusals}) == 1
    assert said(refusals[0])["code"] == "lfs_link_refused"
    for href in (at("ann/model", link_in(down)), at("ann/model", link_in(up))):
        assert (await ann.put(href, DATA)).status == 403
    assert (await ann.get(down)).body == DATA


async def test_a_link_ends_with_its_credential(server: LfsServer, ann: LfsCaller) -> None:
    await ann.upload(DATA)
    secret, token = await server.services.keyring.mint_token(SYSTEM, "ann", "brief", Scope.ADMIN)
    brief = LfsCaller(server.api.bearer(secret), "ann/model")
    down, up = await brief.href("download", OID, SIZE), await brief.href("upload", "b" * 64, 1)
    assert (await brief.get(down)).status == 200
    await server.services.keyring.revoke_token(SYSTEM, "ann", token.id)
    assert (await brief.get(down)).status == (await brief.put(up, b"x")).status == 403


async def test_a_link_ends_with_the_right(server: LfsServer, ann: LfsCaller) -> None:
    await ann.upload(DATA)
    bob = LfsCaller(await server.user("bob"), "ann/model")
    address = parse_address("ann/model")
    collaboration = server.services.collaboration
    await collaboration.set_collaborator(SYSTEM, address, "bob", Role.WRITE)
    down, up = await bob.href("download", OID, SIZE), await bob.href("upload", oid_of(b"x"), 1)
    await collaboration.set_collaborator(SYSTEM, address, "bob", Role.READ)
    assert (await bob.get(down)).status == 200
    assert (await bob.put(up, b"x")).status == 403
    await collaboration.remove_collaborator(SYSTEM, address, "bob")
    assert (await bob.get(down)).status == 403


async def test_links_of_nobody(server: LfsServer, ann: LfsCaller) -> None:
    await server.repository("ann/open", Visibility.PUBLIC)
    await LfsCaller(ann.caller, "ann/open").upload(DATA)
    nobody = LfsCaller(server.api.anonymous, "ann/open")
    down = await nobody.href("download", OID, SIZE)
    assert (await nobody.get(down)).body == DATA
    assert (await nobody.get(f"{nobody.base}/objects/{OID}")).body == DATA
    await server.services.repositories.update(
        SYSTEM, parse_address("ann/open"), visibility=Visibility.PRIVATE
    )
    assert (await nobody.get(down)).status == 403


async def test_a_link_follows_its_repository(server: LfsServer, ann: LfsCaller) -> None:
    await ann.upload(DATA)
    down = await ann.href("download", OID, SIZE)
    await server.services.repositories.move(SYSTEM, parse_address("ann/model"), parse_address("ann/renamed"))
    assert (await ann.get(down)).body == DATA
    await server.repository("ann/model")
    assert (await ann.get(down)).status == 403


# -- sessions ----------------------------------------------------------------------------------------


async def session(server: LfsServer, user: str, path: str, *, writes: bool) -> LfsCaller:
    actor = await _actor(server, user)
    opened = await server.services.large_files.service.open(actor, parse_address(path), Permission.READ)
    token, seconds = server.services.large_files.service.start_session(opened, actor, writes=writes)
    assert seconds == 3600
    return LfsCaller(server.api.bearer(token), path)


async def _actor(server: LfsServer, user: str) -> Actor:
    account = await server.services.accounts.get(user)
    return Actor(ActorKind.USER, user, user_id=account.id, credential="password", address="127.0.0.1")


async def test_a_session_is_for_one_repository(server: LfsServer, ann: LfsCaller) -> None:
    await server.repository("ann/other")
    writing = await session(server, "ann", "ann/model", writes=True)
    await writing.upload(DATA)
    assert (await writing("GET", f"objects/{OID}")).body == DATA
    assert (await LfsCaller(writing.caller, "ann/other").batch("download", (OID, SIZE))).status == 404

    reading = await session(server, "ann", "ann/model", writes=False)
    assert (await reading.download(OID, SIZE)).body == DATA
    assert (await reading.batch("upload", (OID, SIZE))).status == 403
    assert (await reading("POST", "locks", {"path": "a"})).status == 403


async def test_a_session_is_for_large_files_only(server: LfsServer, ann: LfsCaller) -> None:
    writing = await session(server, "ann", "ann/model", writes=True)
    base = ann.caller.base
    for url in (f"{base}/api/v1/user", f"{base}/ann/model.git/info/refs?service=git-upload-pack"):
        assert (await writing.caller("GET", url)).status == 401


async def test_a_session_ends_with_the_account(server: LfsServer, ann: LfsCaller) -> None:
    writing = await session(server, "ann", "ann/model", writes=True)
    assert (await writing.batch("upload", (OID, SIZE))).status == 200
    await server.services.accounts.suspend(SYSTEM, "ann")
    assert (await writing.batch("upload", (OID, SIZE))).status == 401
