"""Pushes of runs: which rules they may fire."""

import pytest

from core.models import RequestKind
from hooks.triggers.options import TriggerOptions
from hooks.triggers.origin import MAX_CHAIN, Origin
from hooks.triggers.spec import RuleSpec

PLAIN = RuleSpec(name="a", run=RequestKind.TRAINING)
ASKING = RuleSpec(name="a", run=RequestKind.TRAINING, from_runs=True)


@pytest.mark.parametrize(
    ("origin", "rule", "why"),
    [
        (Origin(False), PLAIN, None),
        (Origin(False), ASKING, None),
        (Origin(True, ("req_1",)), PLAIN, "from_runs"),
        (Origin(True), ASKING, "-o run.of"),
        (Origin(True, ("req_1",), frozenset({("r", "b"), ("other", "a")})), ASKING, None),
        (Origin(True, ("req_1",), frozenset({("r", "a")})), ASKING, "led to this push itself"),
        (Origin(True, ("req_1",) * (MAX_CHAIN - 1)), ASKING, None),
        (Origin(True, ("req_1",) * MAX_CHAIN), ASKING, "one after the other"),
    ],
)
def test_refusals(origin: Origin, rule: RuleSpec, why: str | None) -> None:
    refusal = origin.refusal("r", rule)
    assert refusal is None if why is None else why in str(refusal)


def test_push_options() -> None:
    read = TriggerOptions.of(
        ["gate.allow=x", "run=a", "run=b", "run=a", "run.of=req_1", "runner=1", "skipped", "run=a=b"]
    )
    assert read == TriggerOptions(run=("a", "b", "a=b"), answers=("req_1",))
    assert TriggerOptions.of(["skip"]).skip
    assert TriggerOptions.of(["skip=yes"]) == TriggerOptions()
