"""Where something stands in a document: the keys and indices that lead there."""

import re

Path = tuple[str | int, ...]

_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]")


def shown(path: Path) -> str:
    """A place as a JSON path: `$.on.branches[1]`."""
    return "$" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)


def read(text: str) -> Path:
    """The place that a JSON path of msgspec names, as far as it is exact."""
    path: list[str | int] = []
    end = 1
    while step := _STEP.match(text, end):
        path.append(step[1] if step[2] is None else int(step[2]))
        end = step.end()
    return tuple(path)
