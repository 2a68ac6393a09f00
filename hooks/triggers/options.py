"""What whoever pushes says about rules: `-o skip`, `-o run=NAME`, `-o run.of=REQUEST`."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class TriggerOptions:
    """The push options that are about rules.

    Attributes:
        skip: no rule is to fire.
        run: names of rules that are to fire whatever their conditions say, in the order they were given.
        answers: ids of the requests that the push is the result of; more than one makes no sense.
    """

    skip: bool = False
    run: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()

    @classmethod
    def of(cls, options: Iterable[str]) -> Self:
        """Reads them; options about other things are none of ours."""
        given = list(options)
        pairs = [option.partition("=") for option in given]
        return cls(
            skip="skip" in given,
            run=tuple(dict.fromkeys(value for name, _, value in pairs if name == "run")),
            answers=tuple(dict.fromkeys(value for name, _, value in pairs if name == "run.of")),
        )
