"""Findings while a file is read: a file that is wrong in a thousand places gets one finding for each kind."""

from dataclasses import dataclass, field

from hooks.formats.parsed import Finding, Severity

_SHOWN = 3


@dataclass(slots=True)
class _Kind:
    severity: Severity
    total: int = 0
    first: list[str] = field(default_factory=list)


class Complaints:
    """Collects what is wrong, by code. `remedy` ends the message of every error: what to do about it."""

    def __init__(self, remedy: str) -> None:
        self._remedy = remedy
        self._kinds: dict[str, _Kind] = {}

    def add(self, code: str, message: str, severity: Severity = Severity.ERROR) -> None:
        """One more of this kind; the first severity counts."""
        kind = self._kinds.setdefault(code, _Kind(severity))
        kind.total += 1
        if kind.total <= _SHOWN:
            kind.first.append(message)

    def warn(self, code: str, message: str) -> None:
        self.add(code, message, Severity.WARNING)

    def __contains__(self, code: str) -> bool:
        return code in self._kinds

    def findings(self) -> tuple[Finding, ...]:
        """One for each code, in the order of their first appearance."""
        return tuple(
            Finding(kind.severity, code, "; ".join(self._parts(kind))) for code, kind in self._kinds.items()
        )

    def _parts(self, kind: _Kind) -> list[str]:
        more = [f"and {kind.total - _SHOWN:,} more like this"] if kind.total > _SHOWN else []
        remedy = [self._remedy] if kind.severity is Severity.ERROR else []
        return kind.first + more + remedy
