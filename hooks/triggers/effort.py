"""What matching may cost: whoever pushes chooses the patterns, and the texts that they are tried on."""

from collections.abc import Collection

# One for each pattern's character at each character of a text. About a second of one core.
MAX_EFFORT = 1 << 34
# A character costs as much as so many of those, however few patterns there are.
_CHARACTER = 10_000


class TooMuchEffort(Exception):
    """It is not even to be begun."""


class Effort:
    """What is left for one push."""

    def __init__(self) -> None:
        self._left = MAX_EFFORT

    def affords(self, patterns: Collection[str], texts: Collection[str]) -> bool:
        """Takes off what it costs to try all of `patterns` on all of `texts`, unless that is too much."""
        size = sum(map(len, patterns))
        # Patterns are read, too, before they are tried.
        cost = (size + sum(map(len, texts))) * (size + _CHARACTER)
        if cost > self._left:
            return False
        self._left -= cost
        return True

    def spend(self, patterns: Collection[str], texts: Collection[str]) -> None:
        """The same. Raises `TooMuchEffort`."""
        if not self.affords(patterns, texts):
            raise TooMuchEffort
