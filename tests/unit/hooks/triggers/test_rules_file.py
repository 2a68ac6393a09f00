"""`.modelyard.toml`: what is wrong in it is told by line and column, and whatever it holds, nothing fails."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.models import RequestKind
from hooks.triggers.rules_file import MAX_BYTES, parse_rules
from hooks.triggers.spec import On, RuleSpec, When
from tests.support.costs import costs_at_most

RULE = '[[rule]]\nname = "a"\nrun = "training"\n'


def test_a_rule_with_everything() -> None:
    found = parse_rules(
        b"""
[[rule]]
name = "finetune"
run = "training"
on.branches = ["main", "release/*"]
on.tags = ["v*"]
on.paths = ["data/**", "!data/README.md"]
when = { task = "text-generation", min_parameters = 1_000_000, dtype = ["BF16", "F16"], has_errors = false }
from_runs = true
parameters = { epochs = 3, learning_rate = 1e-4, start = "${commit}", nested = { list = [1, "a"] } }

[[rule]]
name = "evaluate"
run = "evaluation"
"""
    )
    assert found.problems == ()
    assert found.rules == (
        RuleSpec(
            name="finetune",
            run=RequestKind.TRAINING,
            on=On(branches=("main", "release/*"), tags=("v*",), paths=("data/**", "!data/README.md")),
            when=When(
                task="text-generation", min_parameters=1_000_000, dtype=("BF16", "F16"), has_errors=False
            ),
            from_runs=True,
            parameters={
                "epochs": 3,
                "learning_rate": 1e-4,
                "start": "${commit}",
                "nested": {"list": [1, "a"]},
            },
        ),
        RuleSpec(name="evaluate", run=RequestKind.EVALUATION),
    )


def test_no_rules() -> None:
    for text in (b"", b"# nothing\n", b"rule = []\n"):
        assert parse_rules(text) == parse_rules(b"")
        assert parse_rules(text).problems == ()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[[rule]]\nname = \n", "2:8: invalid value"),
        ("a = 1 b", "1:7: expected newline or end of document"),
        ("a = [1,\n2", "2:2: unclosed array"),
        ("\ufeff" + RULE, "1:1: invalid statement"),
        (b'a = 1\r\nb = "\xc3\xa9\xff"', "2:7: this is not UTF-8"),
        ("a = " + "9" * 5000, "1:5: this number is too long"),
        ("a = " + "[" * 60_000, "1:29: this is nested too deeply"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "1:1: this file is in Git LFS"),
        ("rules = 1", "1:1: unknown key `rules`"),
        ("[rule]\nname = 'a'\n", "1:1: rules are written as `[[rule]]`"),
        ("rule = [1]", "1:1: rules are written as"),
        ('[[rule]]\nname = "a"', "1:1: the rule has no `run`"),
        ('[[rule]]\nrun = "training"', "1:1: the rule has no `name`"),
        (RULE + "colour = 1", "4:1: unknown key `colour`; known are name, run, on"),
        (RULE + "on.branch = ['main']", "4:4: unknown key `branch`; known are branches, tags, paths"),
        (RULE + "when = { task = 'x', size = 1 }", "4:22: unknown key `size`"),
        (RULE.replace("training", "traning"), "3:1: `run` is one of training, evaluation, deployment"),
        (RULE.replace('"a"', '"a b"'), "2:1: a name has"),
        (RULE.replace('"a"', '"a\\n"'), "2:1: a name has"),
        (RULE.replace('"a"', '"' + "a" * 65 + '"'), "2:1: a name has"),
        (RULE + RULE, "5:1: there is a rule `a` already"),
        (RULE + "on.branches = 'main'", "4:4: expected `array`, got `str`"),
        (RULE + "on.branches = ['a', 1]", "4:21: expected `str`, got `int`"),
        (RULE + "on.branches = ['a',\n  '[b']", "5:3: `[b`: `[` is not closed"),
        (RULE + "on.branches = ['refs/heads/main']", "4:16: `refs/heads/main`: write names without"),
        (RULE + "on.branches = []", "4:4: this rule is about no branch and no tag"),
        (RULE + "on.tags = []", "4:4: this rule is about no branch and no tag"),
        (RULE + "on.paths = []", "4:4: this rule is about no path"),
        (RULE + "on.paths = ['!a']", "4:13: this list only takes away"),
        (RULE + "on.tags = ['a\\tb']".replace("'", '"'), "4:12: a pattern has printable characters only"),
        (RULE + f"on.tags = ['{'a' * 201}']", "4:12: expected `str` of length <= 200"),
        (
            RULE + f"on.tags = {['a' * 190 + str(number) for number in range(30)]}",
            "4:4: the patterns of a list",
        ),
        (RULE + "when.task = ''", "4:6: expected `str` of length >= 1"),
        (RULE + "when.task = '[a'", "4:6: `[a`: `[` is not closed"),
        (RULE + "when.min_rows = 2\nwhen.max_rows = 1", "4:6: this is more than max_rows"),
        (RULE + "when.min_parameters = -1", "4:6: expected `int` >= 0"),
        (RULE + "when.min_parameters = 1.5", "4:6: expected `int"),
        (RULE + "parameters = { a = [1, nan] }", "4:24: numbers are finite"),
        (RULE + "parameters.a = 9223372036854775808", "4:12: integers have 64 bits"),
        (RULE + "[rule.parameters]\nday = 2020-01-01", "5:1: write this date as a string"),
        (RULE + '[rule.parameters]\nday = "\\u0000"', "5:1: text must not hold NULs"),
        (RULE + '[rule.parameters]\n"a\\u0000" = 1', "4:1: text must not hold NULs"),
        (RULE + "parameters.a = '${COMMIT}'", "4:12: `${COMMIT}` is not known, only ${commit}, ${ref}"),
        (RULE + "parameters.a = ['x', '${commit']", "4:22: `${` is not known"),
        (RULE + "parameters.a = '" + "${ref}" * 101 + "'", "4:1: words are filled in at 100 places at most"),
        (RULE + f"parameters.a = '{'x' * 65_400}{chr(0xE9) * 100}'", "4:1: parameters are 65536 bytes"),
        (RULE + "parameters = " + "{a = " * 17 + "1" + "}" * 17, "parameters may be 16 levels deep"),
        (
            "".join(RULE.replace('"a"', f'"a{number}"') for number in range(101)),
            "301:1: a file has 100 rules",
        ),
    ],
)
def test_problems(text: str | bytes, problem: str) -> None:
    found = parse_rules(text.encode() if isinstance(text, str) else text)
    assert found.rules == ()
    assert len(found.problems) == 1, found.problems
    shown = str(found.problems[0])
    assert shown.startswith(".modelyard.toml:")
    assert problem in shown
    assert not problem[0].isdigit() or shown.startswith(f".modelyard.toml:{problem}"), shown


def test_every_problem_is_told_in_the_order_of_the_lines() -> None:
    text = RULE + "colour = 1\n" + RULE + "when.task = '['\n[[rule]]\nname = 'c'\n"
    found = parse_rules(text.encode())
    assert [(one.line, one.column) for one in found.problems] == [(4, 1), (8, 6), (9, 1)]


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(
    st.one_of(
        st.binary(max_size=60),
        st.lists(
            st.sampled_from(
                [
                    *RULE.split("\n"),
                    "on.paths",
                    "when",
                    "parameters",
                    " = ",
                    "[",
                    "]",
                    "{",
                    "}",
                    ",",
                    "'**'",
                    "'['",
                    "1",
                    "nan",
                    '"',
                    "'''",
                    "\n",
                    ".",
                    "task",
                    "true",
                    "1979-05-27",
                    "${",
                    "\\u0000",
                    "é",
                ]
            ),
            max_size=25,
        ).map(lambda parts: RULE.encode() + "".join(parts).encode()),
    )
)
def test_no_file_is_too_strange(data: bytes) -> None:
    found = parse_rules(data)
    lines = data.decode("utf-8", "replace").count("\n") + 1
    for problem in found.problems:
        assert 1 <= problem.line <= lines
        assert problem.column >= 1
        assert problem.message
    assert not (found.problems and found.rules)


def _filled(unit: str) -> bytes:
    return (unit * (MAX_BYTES // len(unit)))[:MAX_BYTES].encode()


@pytest.mark.parametrize(
    "data",
    [
        _filled("["),
        _filled("a."),
        _filled('"'),
        _filled("'"),
        _filled('"""'),
        _filled("a = [\n"),
        _filled("[a.b.c.d.e.f.g.h]\n"),
        _filled("${"),
        _filled('[[rule]]\nname="a"\nrun="training"\n'),
        ("#" + "\n#".join(["1" * 3990] * 14) + "\nx = " + "1" * 5000).encode(),
        ("[" + "a." * 16_000 + "b]\n" + "".join(f"k{number}=1\n" for number in range(4000))).encode(),
        (RULE + "parameters.a = '" + "$${" * 20_000 + "'").encode(),
        (RULE + "parameters.a = [" + "0," * 32_000 + "]").encode(),
        (RULE + "on.paths = [" + "'" + "*a" * 100 + "'," * 1 + "]").encode(),
        (RULE + "parameters.a = {" + ", ".join(f"k{number} = 1" for number in range(6000)) + "}").encode(),
    ],
)
def test_no_file_is_slow(data: Any) -> None:
    with costs_at_most(1):
        parse_rules(data)


def test_the_recipes_in_the_documentation_are_rules() -> None:
    text = (Path(__file__).parents[4] / "docs" / "triggers.md").read_text()
    examples = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    assert len(examples) == 6
    assert text.count("\n### ", text.index("## Five recipes")) == 5
    for example in examples:
        found = parse_rules(example.encode())
        assert found.problems == ()
        assert found.rules
