"""Rules that are made over REST, and the list of what rules asked for."""

import msgspec
import pytest

from core.access import SYSTEM
from core.errors import AlreadyExists, NotFound, PermissionDenied
from core.models import RequestKind, Role
from hooks.triggers.errors import InvalidRule
from hooks.triggers.spec import On, RuleSpec, When
from tests.support.hooks_world import HooksWorld
from tests.support.triggers import FILE, Rig, rule

CARD = b"---\nlicense: mit\n---\n"


@pytest.fixture
async def rig(world: HooksWorld) -> Rig:
    return Rig(world)


async def test_a_rule_made_over_rest(rig: Rig) -> None:
    address = rig.world.repository.address
    spec = RuleSpec(
        name="nightly",
        run=RequestKind.DEPLOYMENT,
        on=On(branches=("dev",), paths=("*.bin",)),
        when=When(license=("mit",)),
        parameters={"a": [1, {"b": None}]},
    )
    made = await rig.rules.add(SYSTEM, address, spec)
    assert made.spec == spec
    assert [one.spec for one in await rig.rules.rules(SYSTEM, address)] == [spec]
    await rig.push({"README.md": CARD, "x.bin": "x"}, branch="dev")
    (request,) = await rig.requests()
    assert (await rig.events())[0]["source"] == "rest"
    assert request.parameters == {"a": [1, {"b": None}]}
    await rig.rules.update(SYSTEM, address, "nightly", {}, enabled=False)
    await rig.push({"x.bin": "y"}, branch="dev")
    changed = await rig.rules.update(SYSTEM, address, "nightly", {"when": When()}, enabled=True)
    assert (changed.spec.when, changed.spec.on, changed.enabled) == (When(), spec.on, True)
    assert len(await rig.requests()) == 1
    await rig.push({"x.bin": "z"}, branch="dev")
    assert len(await rig.requests()) == 2
    await rig.rules.remove(SYSTEM, address, "nightly")
    await rig.push({"x.bin": "1"}, branch="dev")
    assert len(await rig.requests()) == 2
    actions = [one.action for one in await rig.world.lfs.core.audit.list(SYSTEM, target="ann/model")]
    assert actions[:4] == [
        "trigger_rule:remove",
        "trigger_rule:update",
        "trigger_rule:update",
        "trigger_rule:add",
    ]


async def test_it_takes_the_place_of_one_in_the_file(rig: Rig) -> None:
    address = rig.world.repository.address
    await rig.rules.add(SYSTEM, address, RuleSpec(name="a", run=RequestKind.EVALUATION))
    await rig.push({FILE: rule("a") + rule("b")})
    assert {one.rule: one.kind for one in await rig.requests()} == {
        "a": RequestKind.EVALUATION,
        "b": RequestKind.TRAINING,
    }


async def test_rules_that_cannot_be(rig: Rig) -> None:
    address = rig.world.repository.address
    good = RuleSpec(name="a", run=RequestKind.TRAINING)
    with pytest.raises(InvalidRule) as refused:
        await rig.rules.add(SYSTEM, address, RuleSpec(name="x", run=good.run, on=On(paths=("a", "[b"))))
    errors = refused.value.fields["errors"]
    assert errors == [{"in": "body", "path": "$.on.paths[1]", "message": "`[b`: `[` is not closed"}]
    await rig.rules.add(SYSTEM, address, good)
    with pytest.raises(AlreadyExists):
        await rig.rules.add(SYSTEM, address, good)
    with pytest.raises(InvalidRule):
        await rig.rules.update(SYSTEM, address, "a", {"parameters": {"x": "${nope}"}})
    for call in (
        rig.rules.read(SYSTEM, address, "b"),
        rig.rules.update(SYSTEM, address, "b", {}),
        rig.rules.remove(SYSTEM, address, "b"),
        rig.rules.request(SYSTEM, address, "req_1"),
    ):
        with pytest.raises(NotFound):
            await call
    assert [one.spec for one in await rig.rules.rules(SYSTEM, address)] == [good]


async def test_requests_are_listed_newest_first_in_pages(rig: Rig) -> None:
    address = rig.world.repository.address
    for number in range(4):
        await rig.push({FILE: rule("a") + rule("b", run="evaluation"), "x": str(number)})
    everything = await rig.rules.requests(SYSTEM, address)
    assert len(everything) == 8
    assert [one.created_at for one in everything] == sorted(
        (one.created_at for one in everything), reverse=True
    )
    pages, after = [], None
    while page := await rig.rules.requests(SYSTEM, address, limit=3, after=after):
        pages += page
        after = page[-1].cursor
    assert pages == everything
    assert {one.rule for one in await rig.rules.requests(SYSTEM, address, rule="a")} == {"a"}
    assert len(await rig.rules.requests(SYSTEM, address, kind=RequestKind.EVALUATION)) == 4
    assert await rig.rules.requests(SYSTEM, address, ref="refs/heads/x") == []
    whole = await rig.rules.request(SYSTEM, address, everything[0].id)
    assert msgspec.json.decode(whole.payload)["request_id"] == whole.id


async def test_who_may_see_and_make_rules(rig: Rig) -> None:
    core, address = rig.world.lfs.core, rig.world.repository.address
    await rig.push({FILE: rule("a")})
    (request,) = await rig.requests()
    reader, writer = await core.user("reader"), await core.user("writer")
    await core.collaboration.set_collaborator(SYSTEM, address, "reader", Role.READ)
    await core.collaboration.set_collaborator(SYSTEM, address, "writer", Role.WRITE)
    spec = RuleSpec(name="x", run=RequestKind.TRAINING)
    assert len(await rig.rules.requests(writer, address)) == 1
    assert await rig.rules.rules(writer, address) == []
    for refused in (
        rig.rules.requests(reader, address),
        rig.rules.request(reader, address, request.id),
        rig.rules.rules(reader, address),
        rig.rules.read(reader, address, "x"),
        rig.rules.add(writer, address, spec),
        rig.rules.update(writer, address, "x", {}),
        rig.rules.remove(writer, address, "x"),
    ):
        with pytest.raises(PermissionDenied):
            await refused
    other = await rig.world.new_repository("other")
    with pytest.raises(NotFound):
        await rig.rules.request(SYSTEM, other.address, request.id)
