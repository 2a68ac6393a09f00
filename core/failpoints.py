"""Named points at which a test may kill the process, to prove that nothing acknowledged is lost.

`MODELYARD_FAILPOINT=NAME[:N]` makes the process send itself SIGKILL at the N-th pass of that point.
Compiled in always, inert without the variable.
"""

import os
import signal

from core.errors import SettingsError

_known: dict[str, str] = {}
_passes = 0


def declare(name: str, description: str) -> str:
    """Registers a failpoint at import time and returns its name."""
    _known[name] = description
    return name


def known() -> dict[str, str]:
    """Every declared failpoint with what it stands before."""
    return dict(sorted(_known.items()))


def check() -> None:
    """Refuses a name that nobody declared; call it once everything is imported.

    Raises:
        SettingsError: the variable is set to something that would never fire.
    """
    armed = os.environ.get("MODELYARD_FAILPOINT")
    if armed is None:
        return
    name, _, count = armed.partition(":")
    if name not in _known or (count and not count.isdigit()):
        raise SettingsError(f"MODELYARD_FAILPOINT={armed}: no such failpoint")


def reach(name: str) -> None:
    """Dies here if this is the pass that the environment asked for."""
    armed = os.environ.get("MODELYARD_FAILPOINT")
    if armed is None:
        return
    wanted, _, count = armed.partition(":")
    if name != wanted:
        return
    global _passes  # noqa: PLW0603 - one counter per process is what N counts
    _passes += 1
    if _passes == int(count or 1):
        os.kill(os.getpid(), signal.SIGKILL)
