"""Creating, changing, deleting and listing repositories."""

import pytest
from sqlalchemy import func, select

from core.access import ANONYMOUS, SYSTEM, Actor, ActorKind, Permission
from core.database import Database
from core.errors import (
    AccountNotFound,
    AlreadyExists,
    AuthenticationRequired,
    InvalidName,
    PermissionDenied,
    RepositoryNotFound,
    Unprocessable,
)
from core.models import (
    BranchRule,
    Collaborator,
    DeletedRepository,
    ObjectFormat,
    OutboxEvent,
    Ref,
    Repository,
    RepositoryType,
    Role,
    Scope,
    SshKey,
    Transport,
    Visibility,
)
from core.names import parse_address
from core.settings import AuthSettings, RepositorySettings
from tests.support.core_services import Core
from tests.support.ssh_public_keys import public_key_text


async def events(database: Database) -> list[tuple[str, str | None, dict[str, object]]]:
    async with database.read() as session:
        rows = await session.scalars(select(OutboxEvent).order_by(OutboxEvent.id))
        return [(row.name, row.repository_id, row.payload) for row in rows]


async def add_branch(database: Database, repository_id: str, branch: str) -> None:
    async with database.transaction() as session:
        session.add(Ref(repository_id=repository_id, name=f"refs/heads/{branch}", oid="a" * 40))


async def test_what_a_new_repository_is_like(core: Core) -> None:
    alice = await core.user("alice")
    created = await core.repositories.create(alice, parse_address("datasets/Alice/Data.Set.git"))
    assert created.path == "datasets/alice/data.set"
    assert created.type is RepositoryType.DATASET
    assert created.visibility is Visibility.PRIVATE
    assert created.default_branch == "main"
    assert created.object_format is ObjectFormat.SHA1
    assert created.refs_version == 0
    assert await core.repositories.open(alice, created.address, Permission.ADMIN) == created
    payload = {"id": created.id, "path": created.path, "actor": "alice"}
    assert await events(core.database) == [("repository.created", created.id, payload)]


async def test_a_model_and_a_dataset_may_share_a_name(core: Core) -> None:
    await core.user("alice")
    model = await core.repository("alice/same")
    dataset = await core.repository("datasets/alice/same")
    assert model.id != dataset.id
    with pytest.raises(AlreadyExists) as taken:
        await core.repository("alice/same")
    assert taken.value.fields == {"path": "alice/same"}


async def test_creating_asks_for_everything_at_once(core: Core) -> None:
    alice = await core.user("alice")
    created = await core.repositories.create(
        alice,
        parse_address("alice/full"),
        visibility=Visibility.PUBLIC,
        description="  Two\nlines ",
        default_branch="trunk",
        object_format=ObjectFormat.SHA256,
    )
    assert (created.visibility, created.description) == (Visibility.PUBLIC, "Two\nlines")
    assert (created.default_branch, created.object_format) == ("trunk", ObjectFormat.SHA256)


@pytest.mark.parametrize("name", ["a.lock", "settings", "a..b", "resolve", "x.wiki"])
async def test_names_that_cannot_be(core: Core, name: str) -> None:
    alice = await core.user("alice")
    address = parse_address("alice/x")
    with pytest.raises(InvalidName):
        await core.repositories.create(alice, type(address)(address.type, address.owner, name))


@pytest.mark.parametrize("text", ["x" * 1001, "a\0b", "a\x1b[31mb", "\ud800", "a\u202eb"])
async def test_texts_that_cannot_be(core: Core, text: str) -> None:
    alice = await core.user("alice")
    with pytest.raises(Unprocessable):
        await core.repositories.create(alice, parse_address("alice/x"), description=text)
    created = await core.repository("alice/x")
    with pytest.raises(Unprocessable):
        await core.repositories.update(alice, created.address, description=text)


async def test_who_may_create_where(core: Core) -> None:
    alice, bob, root = (
        await core.user("alice"),
        await core.user("bob"),
        await core.user("ruth", is_admin=True),
    )
    await core.accounts.create_organisation(alice, "acme")
    await core.organisations.set_member(alice, "acme", "bob", Role.READ)
    with pytest.raises(PermissionDenied):
        await core.repository("alice/theirs", actor=bob)
    with pytest.raises(PermissionDenied):
        await core.repository("acme/theirs", actor=bob)
    await core.organisations.set_member(alice, "acme", "bob", Role.WRITE)
    for number, (actor, path) in enumerate(
        [(bob, "bob/x"), (bob, "acme/x"), (alice, "acme/y"), (root, "bob/z"), (SYSTEM, "alice/x")]
    ):
        assert (await core.repository(path, actor=actor)).path == path, number
    with pytest.raises(AuthenticationRequired):
        await core.repository("alice/z", actor=ANONYMOUS)
    with pytest.raises(AuthenticationRequired):
        await core.repository("nobody/z", actor=ANONYMOUS)
    with pytest.raises(AccountNotFound):
        await core.repository("nobody/z", actor=alice)
    reading = Actor(ActorKind.USER, "alice", user_id=alice.user_id, scope=Scope.READ)
    with pytest.raises(PermissionDenied):
        await core.repository("alice/z", actor=reading)


async def test_only_administrators_create_if_the_settings_say_so(database: Database) -> None:
    core = Core.on(database, repositories=RepositorySettings(creators="admins"))
    alice, root = await core.user("alice"), await core.user("ruth", is_admin=True)
    with pytest.raises(PermissionDenied, match="administrator"):
        await core.repository("alice/x", actor=alice)
    await core.repository("alice/x", actor=root)


async def test_changing_visibility_and_description(core: Core) -> None:
    alice, bob = await core.user("alice"), await core.user("bob")
    created = await core.repository("alice/x")
    with pytest.raises(RepositoryNotFound):
        await core.repositories.open(bob, created.address, Permission.READ)
    changed = await core.repositories.update(
        alice, created.address, visibility=Visibility.PUBLIC, description="Seen"
    )
    assert (changed.visibility, changed.description) == (Visibility.PUBLIC, "Seen")
    assert (changed.refs_version, changed.state) == (created.refs_version, created.state)
    assert await core.repositories.open(bob, created.address, Permission.READ) == changed
    with pytest.raises(PermissionDenied):
        await core.repositories.update(bob, created.address, description="mine")


async def test_another_default_branch_is_another_state(core: Core) -> None:
    alice = await core.user("alice")
    created = await core.repository("alice/x")
    changed = await core.repositories.update(alice, created.address, default_branch="trunk")
    assert changed.default_branch == "trunk"
    assert changed.refs_version == created.refs_version + 1
    assert changed.state != created.state
    assert (await events(core.database))[-1][0] == "repository.default_branch_changed"
    await add_branch(core.database, created.id, "next")
    with pytest.raises(Unprocessable, match="no branch gone"):
        await core.repositories.update(alice, created.address, default_branch="gone")
    assert (await core.repositories.open(alice, created.address, Permission.READ)) == changed
    changed = await core.repositories.update(alice, created.address, default_branch="next")
    assert changed.default_branch == "next"
    with pytest.raises(InvalidName):
        await core.repositories.update(alice, created.address, default_branch="a..b")


async def test_deleting_leaves_nothing_but_work_for_the_sweeper(core: Core) -> None:
    alice = await core.user("alice")
    await core.user("bob")
    created = await core.repository("alice/x")
    await add_branch(core.database, created.id, "main")
    await core.collaboration.set_collaborator(alice, created.address, "bob", Role.READ)
    await core.collaboration.add_deploy_key(alice, created.address, public_key_text())
    await core.collaboration.add_branch_rule(alice, created.address, "main")
    await core.repositories.move(alice, created.address, parse_address("alice/y"))
    secret, _ = await core.keyring.mint_token(
        alice, "alice", "ci", Scope.READ, repository=parse_address("alice/y")
    )
    await core.repositories.delete(alice, parse_address("alice/x"))
    for path in ("alice/x", "alice/y"):
        with pytest.raises(RepositoryNotFound):
            await core.repositories.open(alice, parse_address(path), Permission.READ)
    async with core.database.read() as session:
        for table in (Repository, Ref, Collaborator, SshKey, BranchRule):
            assert await session.scalar(select(func.count()).select_from(table)) == 0, table
        gone = (await session.scalars(select(DeletedRepository))).one()
    assert (gone.repository_id, gone.address) == (created.id, "alice/y")
    was = {
        "id": created.id,
        "type": "model",
        "owner": "alice",
        "name": "y",
        "path": "alice/y",
        "visibility": "private",
        "default_branch": "main",
    }
    payload = {"id": created.id, "path": "alice/y", "actor": "alice", "repository": was}
    told = await events(core.database)
    assert told[-1] == ("repository.deleted", None, payload)
    # Those that nobody has heard yet still say what they are about.
    assert [event[2].get("repository") for event in told] == [was] * len(told)
    with pytest.raises(AuthenticationRequired):
        await core.credentials.authenticate_token(secret, "")
    again = await core.repository("alice/y")
    assert again.id != created.id


async def test_push_to_create(core: Core) -> None:
    alice, bob = await core.user("alice"), await core.user("bob")
    address = parse_address("datasets/alice/fresh")
    created = await core.repositories.open_or_create(alice, address, Transport.SSH)
    assert (created.path, created.visibility) == ("datasets/alice/fresh", Visibility.PRIVATE)
    assert await core.repositories.open_or_create(alice, address, Transport.HTTP) == created
    for path in ("datasets/alice/fresh", "alice/other", "nobody/x"):
        with pytest.raises(RepositoryNotFound) as refused:
            await core.repositories.open_or_create(bob, parse_address(path), Transport.HTTP)
        assert refused.value.fields == {}
    with pytest.raises(AuthenticationRequired):
        await core.repositories.open_or_create(ANONYMOUS, parse_address("alice/z"), Transport.HTTP)
    with pytest.raises(InvalidName):
        await core.repositories.open_or_create(alice, parse_address("alice/settings"), Transport.HTTP)


async def test_push_to_create_as_the_settings_say(database: Database) -> None:
    public = Core.on(database, repositories=RepositorySettings(push_to_create="public"))
    alice = await public.user("alice")
    created = await public.repositories.open_or_create(alice, parse_address("alice/a"), Transport.HTTP)
    assert created.visibility is Visibility.PUBLIC
    off = Core.on(database, repositories=RepositorySettings(push_to_create="off"))
    assert await off.repositories.open_or_create(alice, created.address, Transport.HTTP) == created
    with pytest.raises(RepositoryNotFound):
        await off.repositories.open_or_create(alice, parse_address("alice/b"), Transport.HTTP)


async def test_a_reader_who_pushes_is_told_so(core: Core) -> None:
    alice, bob = await core.user("alice"), await core.user("bob")
    created = await core.repository("alice/x", actor=alice, visibility=Visibility.PUBLIC)
    with pytest.raises(PermissionDenied):
        await core.repositories.open_or_create(bob, created.address, Transport.HTTP)


async def test_pages_hold_every_visible_repository_once_and_in_order(core: Core) -> None:
    alice, bob = await core.user("alice"), await core.user("bob")
    paths = ["alice/a-b", "alice/a.b", "alice/a_b", "alice/ab", "datasets/alice/ab", "bob/a", "bob/b"]
    for path in paths:
        await core.repository(path)
    await core.repositories.update(SYSTEM, parse_address("bob/b"), visibility=Visibility.PUBLIC)
    seen: list[tuple[str, str, str]] = []
    after = None
    while page := await core.repositories.list_visible(alice, limit=2, after=after):
        seen += [info.cursor for info in page]
        after = page[-1].cursor
    assert seen == sorted(seen)
    assert len(seen) == len(set(seen)) == 6
    assert ("bob", "model", "a") not in seen
    assert [info.path for info in await core.repositories.list_visible(ANONYMOUS)] == ["bob/b"]
    assert len(await core.repositories.list_visible(SYSTEM)) == len(paths)
    assert [info.path for info in await core.repositories.list_visible(bob)] == ["bob/a", "bob/b"]


async def test_lists_are_narrowed(core: Core) -> None:
    alice = await core.user("alice")
    await core.user("bob")
    for path in ("alice/resnet-50", "alice/u_net", "datasets/alice/images", "bob/resnet"):
        await core.repository(path)
    unet = parse_address("alice/u_net")
    await core.repositories.update(alice, unet, description="100% ResNet-free")

    async def paths(owner: str | None = None, search: str | None = None) -> list[str]:
        found = await core.repositories.list_visible(SYSTEM, owner=owner, search=search)
        return [info.path for info in found]

    assert await paths(owner="Bob") == ["bob/resnet"]
    assert await paths(search="RESNET") == ["alice/resnet-50", "alice/u_net", "bob/resnet"]
    assert await paths(search="0% r") == ["alice/u_net"]
    assert await paths(search="_") == ["alice/u_net"]
    assert await paths(owner="alice", search="images") == ["datasets/alice/images"]
    datasets = await core.repositories.list_visible(SYSTEM, type=RepositoryType.DATASET)
    assert [info.path for info in datasets] == ["datasets/alice/images"]
    with pytest.raises(AccountNotFound):
        await paths(owner="nobody")
    with pytest.raises(Unprocessable):
        await paths(search="a\0b")


async def test_a_restricted_token_lists_its_repository_and_public_ones(database: Database) -> None:
    core = Core.on(database, auth=AuthSettings(anonymous_read=True))
    alice = await core.user("alice")
    for name in ("one", "two"):
        await core.repository(f"alice/{name}")
    await core.repository("alice/open", visibility=Visibility.PUBLIC)
    one = parse_address("alice/one")
    secret, _ = await core.keyring.mint_token(alice, "alice", "ci", Scope.WRITE, repository=one)
    actor = await core.credentials.authenticate_token(secret, "")
    found = [info.path for info in await core.repositories.list_visible(actor)]
    assert found == ["alice/one", "alice/open"]
