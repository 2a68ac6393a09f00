"""What a rule is. The same form in `.modelyard.toml` and over REST."""

import re
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from core.models import RequestKind
from hooks.triggers.matching import check_patterns
from hooks.triggers.parameters import check_parameters
from hooks.triggers.places import Path

MAX_RULES = 100

# Of all patterns in one list together: they are tried on each path of a push.
_MAX_PATTERN_CHARACTERS = 4000
NAME_WORDS = "a name has 1 to 64 letters, digits, `.`, `_` and `-`, and starts with one of the first two"

_NAME = re.compile("[A-Za-z0-9][A-Za-z0-9._-]*")

RuleName = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=64,
        pattern="^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="Letters, digits, `.`, `_` and `-`; one rule of a repository has it.",
    ),
]
Pattern = Annotated[str, Meta(min_length=1, max_length=200)]
Patterns = Annotated[tuple[Pattern, ...], Meta(max_length=100)]
Wanted = Pattern | Annotated[tuple[Pattern, ...], Meta(min_length=1, max_length=100)]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class On(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """Which pushes a rule is about: branches or tags, and what changed in them, as patterns.

    Without `branches` and `tags` it is the default branch. `paths` must match a path that the push changed;
    in a new branch or tag every path counts as changed. A pattern behind `!` takes away.
    """

    branches: Patterns | None = None
    tags: Patterns | None = None
    paths: Patterns | None = None


class When(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """What must be true of the model or dataset in the commit: all that is given.

    A text, or each of several, is a pattern for one value, in any case; of several one is enough. What the
    commit does not say fulfils nothing. `has_errors`: whether files were found to be broken.
    """

    task: Wanted | None = None
    library: Wanted | None = None
    license: Wanted | None = None
    language: Wanted | None = None
    tag: Wanted | None = None
    architecture: Wanted | None = None
    dtype: Wanted | None = None
    quantisation: Wanted | None = None
    base_model: Wanted | None = None
    dataset: Wanted | None = None
    min_parameters: Count | None = None
    max_parameters: Count | None = None
    min_context_length: Count | None = None
    min_rows: Count | None = None
    max_rows: Count | None = None
    has_errors: bool | None = None


class RuleSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """On these pushes, when that is true of the commit, ask for a run with these parameters.

    `parameters` is any JSON; in its strings `${commit}`, `${ref}`, `${branch}`, `${tag}` and `${repository}`
    are filled in. `from_runs`: pushes that are themselves the result of a run count too.
    """

    name: RuleName
    run: RequestKind
    on: On = On()
    when: When = When()
    from_runs: bool = False
    parameters: dict[str, Any] = {}


def wanted(value: Wanted) -> tuple[str, ...]:
    """The patterns of a condition, ready for values in lower case."""
    return tuple(one.lower() for one in ((value,) if isinstance(value, str) else value))


def texts_of(when: When) -> dict[str, Wanted]:
    """The conditions on texts that are given, by name."""
    given = msgspec.structs.asdict(when)
    return {name: value for name, value in given.items() if isinstance(value, str | tuple)}


def check_rule(rule: RuleSpec) -> Iterator[tuple[Path, str]]:
    """What is wrong with a rule beyond its types: where in it, and why."""
    if _NAME.fullmatch(rule.name) is None:  # `$` also matches before a line break at the end
        yield ("name",), NAME_WORDS
    for key in ("branches", "tags", "paths"):
        yield from _check_list(getattr(rule.on, key) or (), ("on", key), paths=key == "paths")
    named = {key: names for key in ("branches", "tags") if (names := getattr(rule.on, key)) is not None}
    if named and not any(named.values()):
        yield ("on", next(iter(named))), "this rule is about no branch and no tag"
    if rule.on.paths == ():
        yield ("on", "paths"), "this rule is about no path"
    for key, value in texts_of(rule.when).items():
        yield from _check_list(wanted(value), ("when", key), paths=False, single=isinstance(value, str))
    for key in ("parameters", "rows"):
        least, most = getattr(rule.when, f"min_{key}"), getattr(rule.when, f"max_{key}")
        if least is not None and most is not None and least > most:
            yield ("when", f"min_{key}"), f"this is more than max_{key}"
    yield from check_parameters(rule.parameters, ("parameters",))


def _check_list(
    patterns: tuple[str, ...], path: Path, *, paths: bool, single: bool = False
) -> Iterator[tuple[Path, str]]:
    for index, why in check_patterns(patterns, paths=paths):
        yield path if single else (*path, index), why
    for index, pattern in enumerate(patterns):
        if not pattern.isprintable():
            yield path if single else (*path, index), "a pattern has printable characters only"
    if sum(map(len, patterns)) > _MAX_PATTERN_CHARACTERS:
        yield path, f"the patterns of a list have {_MAX_PATTERN_CHARACTERS} characters at most together"
