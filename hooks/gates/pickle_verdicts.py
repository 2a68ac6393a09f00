"""What to think of the things that pickles import: picklescan knows, and is asked without giving it the file.

picklescan keeps every operation of a pickle in memory, and reads files differently than the unpickler in
places. So `pickle_walk` reads, and picklescan judges a pickle that only imports the same.
"""

import io
import logging
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise

from picklescan.scanner import SafetyLevel, scan_pickle_bytes

from hooks.gates.pickle_walk import Import

# It repeats each name as a warning; they are told to whoever pushes, and may be anything.
logging.getLogger("picklescan").disabled = True


class Verdict(IntEnum):
    """Worse ones are greater. `HIDDEN`: the name is made while the pickle is read."""

    HARMLESS = 0
    UNKNOWN = 1
    HIDDEN = 2
    DANGEROUS = 3


@dataclass(frozen=True, slots=True)
class Judged:
    """An import, as `module.name`, and what it is."""

    name: str
    verdict: Verdict


def judge(imports: Collection[Import]) -> list[Judged]:
    """A verdict for each, the worst first."""
    asked = {alias for one in imports for alias in _aliases(one)}
    known = _ask(asked)
    judged = []
    for one in imports:
        if one.module is None or one.name is None:
            judged.append(Judged(f"{one.module or '?'}.{one.name or '?'}", Verdict.HIDDEN))
        else:
            verdict = max(known.get(alias, Verdict.UNKNOWN) for alias in _aliases(one))
            judged.append(Judged(f"{one.module}.{one.name}", verdict))
    return sorted(judged, key=lambda found: -found.verdict)


def _aliases(one: Import) -> Iterator[tuple[str, str]]:
    """What the import may end at: names of Python 2, and what lies behind a dotted name."""
    if one.module is None or one.name is None:
        return
    yield one.module, one.name
    if (one.module, one.name) in NAME_MAPPING:
        yield NAME_MAPPING[one.module, one.name]
    elif one.module in IMPORT_MAPPING:
        yield IMPORT_MAPPING[one.module], one.name
    parts = one.name.split(".")
    if len(parts) > 1:
        yield from pairwise(parts)
        yield ".".join([one.module, *parts[:-1]]), parts[-1]


def _ask(imports: Collection[tuple[str, str]]) -> dict[tuple[str, str], Verdict]:
    # A line feed or a blank would make it read something else.
    plain = [one for one in imports if all(text.isascii() and text.isidentifier() for text in _parts(one))]
    operations = b"".join(f"c{module}\n{name}\n0".encode() for module, name in plain)
    result = scan_pickle_bytes(io.BytesIO(b"\x80\x02%sN." % operations), "", multiple_pickles=False)
    verdicts = {
        SafetyLevel.Innocuous: Verdict.HARMLESS,
        SafetyLevel.Suspicious: Verdict.UNKNOWN,
        SafetyLevel.Dangerous: Verdict.DANGEROUS,
    }
    return {(found.module, found.name): verdicts[found.safety] for found in result.globals}


def _parts(one: tuple[str, str]) -> list[str]:
    module, name = one
    return [*module.split("."), *name.split(".")]
