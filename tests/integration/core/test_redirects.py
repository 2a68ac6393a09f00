"""Old addresses lead to where things went, and never hide what lives there now."""

import pytest

from core.access import SYSTEM, Actor, Permission
from core.errors import (
    AccountNotFound,
    AlreadyExists,
    PermissionDenied,
    RepositoryNotFound,
    Unprocessable,
)
from core.models import Role, Transport
from core.names import parse_address
from tests.support.core_services import Core


async def where(core: Core, path: str, actor: Actor = SYSTEM) -> str:
    """Under which path a repository answers now."""
    return (await core.repositories.open(actor, parse_address(path), Permission.READ)).path


async def test_a_renamed_repository_answers_at_every_former_name(core: Core) -> None:
    alice = await core.user("alice")
    first = await core.repository("alice/a")
    await core.repositories.move(alice, first.address, parse_address("alice/b"))
    moved = await core.repositories.move(alice, first.address, parse_address("alice/c"))
    assert (moved.id, moved.path) == (first.id, "alice/c")
    for path in ("alice/a", "alice/b", "alice/c"):
        assert await where(core, path) == "alice/c"
    pushed = await core.repositories.open_or_create(alice, first.address, Transport.HTTP)
    assert pushed.id == first.id


async def test_back_and_forth(core: Core) -> None:
    alice = await core.user("alice")
    repository = await core.repository("alice/a")
    for path in ("alice/b", "alice/a", "alice/b", "alice/a"):
        await core.repositories.move(alice, repository.address, parse_address(path))
        assert await where(core, "alice/a") == await where(core, "alice/b") == path


async def test_a_new_repository_ends_the_redirect(core: Core) -> None:
    alice = await core.user("alice")
    first = await core.repository("alice/a")
    await core.repositories.move(alice, first.address, parse_address("alice/b"))
    second = await core.repository("alice/a")
    assert second.id != first.id
    assert await where(core, "alice/a") == "alice/a"
    await core.repositories.delete(alice, second.address)
    with pytest.raises(RepositoryNotFound):
        await where(core, "alice/a")
    assert await where(core, "alice/b") == "alice/b"


async def test_types_do_not_share_redirects(core: Core) -> None:
    alice = await core.user("alice")
    model = await core.repository("alice/a")
    await core.repositories.move(alice, model.address, parse_address("alice/b"))
    with pytest.raises(RepositoryNotFound):
        await where(core, "datasets/alice/a")
    with pytest.raises(Unprocessable):
        await core.repositories.move(alice, model.address, parse_address("datasets/alice/a"))


async def test_transfer(core: Core) -> None:
    alice, bob = await core.user("alice"), await core.user("bob")
    await core.accounts.create_organisation(bob, "acme")
    repository = await core.repository("alice/a", actor=alice)
    await core.collaboration.set_collaborator(alice, repository.address, "bob", Role.ADMIN)
    to = parse_address("acme/a")
    with pytest.raises(PermissionDenied):
        await core.repositories.move(alice, repository.address, to)
    moved = await core.repositories.move(bob, repository.address, to)
    assert moved.path == "acme/a"
    assert await where(core, "alice/a", bob) == "acme/a"
    with pytest.raises(RepositoryNotFound):
        await where(core, "alice/a", alice)
    with pytest.raises(AccountNotFound):
        await core.repositories.move(bob, to, parse_address("nobody/a"))


async def test_whoever_becomes_owner_keeps_no_role_for_later(core: Core) -> None:
    alice, bob = await core.user("alice"), await core.user("bob")
    repository = await core.repository("alice/a", actor=alice)
    await core.collaboration.set_collaborator(alice, repository.address, "bob", Role.ADMIN)
    await core.repositories.move(bob, repository.address, parse_address("bob/a"))
    await core.repositories.move(SYSTEM, repository.address, parse_address("alice/a"))
    with pytest.raises(RepositoryNotFound):
        await where(core, "alice/a", bob)


async def test_a_taken_name_is_not_moved_to(core: Core) -> None:
    alice = await core.user("alice")
    first, second = await core.repository("alice/a"), await core.repository("alice/b")
    with pytest.raises(AlreadyExists) as taken:
        await core.repositories.move(alice, first.address, second.address)
    assert taken.value.fields == {"path": "alice/b"}
    assert await where(core, "alice/a") == "alice/a"


async def test_a_renamed_owner(core: Core) -> None:
    alice = await core.user("alice")
    repository = await core.repository("alice/a", actor=alice)
    await core.repositories.move(alice, repository.address, parse_address("alice/b"))
    await core.accounts.rename(alice, "alice", "alicia")
    for path in ("alice/a", "alice/b", "alicia/a", "alicia/b"):
        assert await where(core, path, alice) == "alicia/b"
    created = await core.repositories.open_or_create(alice, parse_address("alice/fresh"), Transport.SSH)
    assert created.path == "alicia/fresh"


async def test_whoever_takes_a_name_takes_its_addresses(core: Core) -> None:
    alice = await core.user("alice")
    await core.repository("alice/a", actor=alice)
    await core.accounts.rename(alice, "alice", "alicia")
    await core.user("alice")
    with pytest.raises(RepositoryNotFound):
        await where(core, "alice/a")
    theirs = await core.repository("alice/a")
    assert await where(core, "alice/a") == theirs.path == "alice/a"
    assert await where(core, "alicia/a") == "alicia/a"


async def test_a_redirect_shows_nothing_to_strangers(core: Core) -> None:
    alice, bob = await core.user("alice"), await core.user("bob")
    repository = await core.repository("alice/a", actor=alice)
    await core.repositories.move(alice, repository.address, parse_address("alice/b"))
    with pytest.raises(RepositoryNotFound) as former:
        await where(core, "alice/a", bob)
    with pytest.raises(RepositoryNotFound) as never:
        await where(core, "alice/never", bob)
    assert str(former.value) == str(never.value)
