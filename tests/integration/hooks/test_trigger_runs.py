"""Pushes of runs: what they fire, and that no run asks for itself for ever."""

import pytest

from hooks.triggers import origin
from tests.support.hooks_world import HooksWorld
from tests.support.triggers import FILE, Rig, rule


@pytest.fixture
async def rig(world: HooksWorld) -> Rig:
    return Rig(world)


async def _answer(rig: Rig, number: int, *options: str) -> list[str]:
    """A push of a run that answers the last request."""
    last = (await rig.requests())[-1].id
    return await rig.push({"out": str(number)}, f"run.of={last}", *options, by_run=True)


async def test_what_a_run_pushes_fires_only_rules_that_ask_for_it(rig: Rig) -> None:
    rules = rule("train") + rule("evaluate", "from_runs = true", run="evaluation")
    await rig.push({FILE: rules}, "run=train")
    first = {one.rule: one.id for one in await rig.requests()}
    assert first.keys() == {"train", "evaluate"}
    lines = await rig.push({"out": "1"}, f"run.of={first['train']}", by_run=True)
    assert '"train" does not fire: it does not take pushes of runs, see `from_runs`' in lines
    request = (await rig.requests())[-1]
    assert (request.rule, request.chain, request.parent) == ("evaluate", [first["train"]], first["train"])
    assert (await rig.events())[-1]["chain"] == [first["train"]]
    lines = await _answer(rig, 2)
    assert '"evaluate" does not fire: it led to this push itself' in lines
    assert len(await rig.requests()) == 3


async def test_a_push_that_answers_a_request_is_a_runs_whoever_makes_it(rig: Rig) -> None:
    await rig.push({FILE: rule("train")})
    (request,) = await rig.requests()
    lines = await rig.push({"out": "1"}, f"run.of={request.id}", "run=train", by_run=False)
    assert lines == ['"train" does not fire: it does not take pushes of runs, see `from_runs`']


async def test_a_run_that_does_not_say_what_it_answers(rig: Rig) -> None:
    lines = await rig.push({FILE: rule("a", "from_runs = true")}, by_run=True)
    assert lines == ['"a" does not fire: the push of a run says which request it answers: -o run.of=REQUEST']
    for unknown in ("req_" + "0" * 32, "x", "", "req_" + "0" * 500, "\0"):
        (line,) = await rig.push({"x": unknown[:9]}, f"run.of={unknown}", "run=a")
        assert line.startswith("no rule fires: there is no request "), line
    (line,) = await rig.push({"x": "y"}, "run.of=req_1", "run.of=req_2")
    assert line == "no rule fires: a push answers one request, and -o run.of names several"
    assert await rig.fired() == []


async def test_two_rules_do_not_wake_each_other_for_ever(rig: Rig) -> None:
    rules = rule("a", "from_runs = true", "on.paths = ['a']") + rule(
        "b", "from_runs = true", "on.paths = ['b']"
    )
    await rig.push({FILE: rules, "a": "0"})
    for number in range(5):
        last = (await rig.requests())[-1].id
        await rig.push({"ba"[number % 2]: str(number + 1)}, f"run.of={last}", by_run=True)
    assert await rig.fired() == ["a", "b"]


async def test_a_chain_through_rules_that_are_renamed_ends(rig: Rig) -> None:
    await rig.push({FILE: rule("r0", "from_runs = true")})
    for number in range(1, 15):
        last = (await rig.requests())[-1].id
        await rig.push({FILE: rule(f"r{number}", "from_runs = true")}, f"run.of={last}", by_run=True)
    assert len(await rig.requests()) == origin.MAX_CHAIN


async def test_a_run_that_always_names_the_same_request(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hooks.triggers.firing.MAX_PER_PARENT", 3)
    evaluate = rule("evaluate", "from_runs = true", "on.paths = ['out']")
    await rig.push({FILE: rule("train") + evaluate})
    (request,) = await rig.requests()
    said = [await rig.push({"out": str(number)}, f"run.of={request.id}", by_run=True) for number in range(5)]
    assert "times for the same request" in said[-1][-1]
    assert await rig.fired() == ["train"] + ["evaluate"] * 3
    assert len(await rig.events()) == 4


async def test_a_run_that_names_the_same_request_and_renames_its_rules(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hooks.triggers.firing.MAX_CHILDREN", 3)
    await rig.push({FILE: rule("train")})
    (request,) = await rig.requests()
    answers = f"run.of={request.id}"
    said = [
        await rig.push({FILE: rule(f"r{number}", "from_runs = true")}, answers, by_run=True)
        for number in range(5)
    ]
    assert said[-1] == ['"r4" does not fire: rules fired 3 times for the same request']
    assert await rig.fired() == ["train", "r0", "r1", "r2"]


async def test_a_request_of_another_repository_is_answered_too(rig: Rig) -> None:
    await rig.push({FILE: rule("train", "from_runs = true")})
    (request,) = await rig.requests()
    other = await rig.world.new_repository("other")
    here = rig.world.repository
    await rig.world.commit({FILE: rule("train", "from_runs = true").encode()}, repository=other)
    rig.world.repository = other
    await rig.run(f"run.of={request.id}", by_run=True)
    made = (await rig.requests())[-1]
    assert (made.repository_id, made.chain) == (other.id, [request.id]), "a rule of the same name elsewhere"
    rig.world.repository = here
    lines = await rig.push({"x": ""}, f"run.of={made.id}", by_run=True)
    assert lines == ['"train" does not fire: it led to this push itself']
