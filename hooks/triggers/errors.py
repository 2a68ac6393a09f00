"""What can be wrong with a rule."""

from collections.abc import Sequence

from core.errors import Unprocessable
from hooks.triggers.places import Path, shown


class InvalidRule(Unprocessable):
    """A rule that can never fire, or must not; `errors` says what is wrong where, as JSON paths."""

    code = "invalid_rule"

    def __init__(self, problems: Sequence[tuple[Path, str]]) -> None:
        path, message = problems[0]
        super().__init__(
            f"{shown(path)}: {message}",
            errors=[{"in": "body", "path": shown(place), "message": why} for place, why in problems],
        )
