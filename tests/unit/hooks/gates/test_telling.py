"""Lines for whoever pushes: refusals first, and never too many."""

from hooks.gates.problem import Problem
from hooks.gates.telling import LINES, Telling


def test_refusals_first_and_each_remedy_once() -> None:
    telling = Telling()
    telling.warn([Problem("w", "is odd")])
    telling.refuse([Problem("a", "is bad", "mend it"), Problem("b", "is bad", "mend it")], "override it")
    telling.note("something else")
    assert telling.lines() == [
        "a: is bad",
        "b: is bad",
        "  mend it",
        "  override it",
        "warning: w: is odd",
        "warning: something else",
    ]


def test_never_too_many() -> None:
    telling = Telling()
    for gate in range(7):
        telling.refuse(
            [Problem(f"{gate}/{number}", "is bad", f"mend {number}") for number in range(1000)], "x"
        )
        telling.warn([Problem(f"{gate}/{number}", "is odd") for number in range(1000)])
    lines = telling.lines()
    assert len(lines) == LINES
    assert "and 970 more of the kind" in lines
    assert lines[-1].startswith("and ")


def test_a_problem_of_the_whole_push() -> None:
    telling = Telling()
    telling.refuse([Problem("", "there is too much")], "")
    assert telling.lines() == ["there is too much"]
