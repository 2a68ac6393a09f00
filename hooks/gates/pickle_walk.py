"""What a pickle imports, without unpickling it: a walk over its operations, in little memory.

The walk goes at least as far as Python's unpickler does. It takes arguments that the unpickler would refuse,
so that nothing hides behind one that only a reader like `pickletools` stumbles over, and ends where the
unpickler cannot but fail: at an unknown operation, an empty stack, the end of the file.
"""

import io
import pickletools
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import IO, Final

# Longer names are nobody's module or class.
_NAME_BYTES: Final = 200
_NAMES_KEPT: Final = 200_000
_IMPORTS_KEPT: Final = 1000
_LINE_BYTES: Final = 64 * 1024
# No file is longer.
_LONGEST: Final = 2**62
_DOTTED: Final = re.compile(rb"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", re.ASCII)


class End(Enum):
    """How a walk ended: at the operation that ends a pickle; where the unpickler fails; out of allowance."""

    WHOLE = "whole"
    BROKEN = "broken"
    TOO_LONG = "too long"


@dataclass(frozen=True, slots=True)
class Import:
    """A global that the unpickler would look up; None for a part that is made while it runs."""

    module: str | None
    name: str | None


@dataclass(slots=True)
class Budget:
    """How many operations may still be walked over."""

    operations: int


@dataclass(frozen=True, slots=True)
class _Operation:
    """`length`: bytes of the argument, if that is fixed; `pops` and `pushes` count values beside the mark."""

    name: str
    length: int
    prefix: int
    signed: bool
    lines: int
    marked: bool
    pops: int
    pushes: int
    is_text: bool

    @property
    def is_plain(self) -> bool:
        """Whether it does nothing but to put values in the place of others."""
        return not (
            self.prefix or self.lines or self.marked or self.is_text or self.name in _ASIDE | _GETS | _OTHERS
        )


_PREFIXES: Final = {
    pickletools.TAKEN_FROM_ARGUMENT1: (1, False),
    pickletools.TAKEN_FROM_ARGUMENT4: (4, True),
    pickletools.TAKEN_FROM_ARGUMENT4U: (4, False),
    pickletools.TAKEN_FROM_ARGUMENT8U: (8, False),
}
_TWO_LINES: Final = frozenset({"GLOBAL", "INST"})
_TEXTS: Final = frozenset({"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"})
_PUTS: Final = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
_GETS: Final = frozenset({"GET", "BINGET", "LONG_BINGET"})
# These leave the stack as it is.
_ASIDE: Final = frozenset({"PROTO", "FRAME", "MEMOIZE"}) | _PUTS
_OTHERS: Final = frozenset({"STOP", "MARK", "POP", "STACK_GLOBAL", "BININT"})


def _operations() -> Iterator[tuple[bytes, _Operation]]:
    for one in pickletools.opcodes:
        wanted = one.arg.n if one.arg else 0
        prefix, signed = _PREFIXES.get(wanted, (0, False))
        before = list(one.stack_before)
        marked = pickletools.markobject in before
        yield (
            one.code.encode("latin-1"),
            _Operation(
                name=one.name,
                length=max(wanted, 0),
                prefix=prefix,
                signed=signed,
                lines=(2 if one.name in _TWO_LINES else 1) if wanted == pickletools.UP_TO_NEWLINE else 0,
                marked=marked,
                pops=before.index(pickletools.markobject) if marked else len(before),
                pushes=len(one.stack_after),
                is_text=one.name in _TEXTS,
            ),
        )


_OPERATIONS: Final = dict(_operations())
# Most of what is in a pickle, which is gone through in a third of the time.
_PLAIN: Final = {
    code: (one.length, one.pops, one.pushes) for code, one in _OPERATIONS.items() if one.is_plain
}


class _Broken(Exception):
    """Here the unpickler fails."""


@dataclass(slots=True)
class Walk:
    """A walk over one pickle; `run` it once.

    `data` must be seekable; what is passed over is not read where seeking costs nothing.

    Attributes:
        imports: what was found, in order, each once.
        crowded: there were more than are kept.
        number: the last whole number, for formats that begin with one.
    """

    data: IO[bytes]
    budget: Budget
    imports: dict[Import, None] = field(default_factory=dict)
    crowded: bool = False
    number: int | None = None
    _depth: int = 0
    _marks: "array[int]" = field(default_factory=lambda: array("q"))
    _memo: dict[int, str] = field(default_factory=dict)
    _memoized: int = 0
    _numbered: bool = False
    _top: str | None = None
    _below: str | None = None

    def run(self) -> End:
        """Walks to the end. What `data` raises passes through."""
        try:
            while code := self.data.read(1):
                self.budget.operations -= 1
                if self.budget.operations < 0:
                    return End.TOO_LONG
                if (plain := _PLAIN.get(code)) is not None:
                    length, pops, pushes = plain
                    if (length and len(self.data.read(length)) < length) or self._depth < pops:
                        return End.BROKEN
                    self._depth += pushes - pops
                    self._below, self._top = self._top, None
                    continue
                operation = _OPERATIONS.get(code)
                if operation is None:
                    return End.BROKEN
                if operation.name == "STOP":
                    return End.WHOLE
                self._step(operation)
        except _Broken:
            return End.BROKEN
        return End.BROKEN

    def _step(self, operation: _Operation) -> None:
        argument = self._argument(operation)
        name = operation.name
        if name in _ASIDE:
            self._note(name)
            return
        if name in _TWO_LINES:
            # Before the stack is looked at, as one of Python's two unpicklers does.
            module, _, attribute = argument.partition(b"\n")
            self._add(Import(_decoded(module), _decoded(attribute)))
        self._move(operation)
        text = None
        if operation.is_text:
            text = _name(argument)
        elif name in _GETS:
            # Who mixes both ways of numbering counts on readers that get them wrong.
            text = None if self._numbered else self._memo.get(_index(operation, argument))
        elif name == "STACK_GLOBAL":
            self._add(Import(self._below, self._top))
        elif name in {"LONG1", "BININT"}:
            self.number = int.from_bytes(argument, "little", signed=True)
        self._below, self._top = self._top, text

    def _note(self, name: str) -> None:
        if name in _PUTS:
            self._numbered = True
        elif name == "MEMOIZE":
            if self._top is not None and len(self._memo) < _NAMES_KEPT:
                self._memo[self._memoized] = self._top
            self._memoized += 1

    def _move(self, operation: _Operation) -> None:
        """Follows the height of the stack, as far as to see that something is taken from an empty one."""
        if operation.name == "MARK":
            self._marks.append(self._depth)
            return
        if operation.name == "POP" and self._marks and self._marks[-1] == self._depth:
            self._marks.pop()
            return
        if operation.marked:
            if not self._marks:
                raise _Broken
            self._depth = self._marks.pop()
        self._depth -= operation.pops
        if self._depth < 0:
            raise _Broken
        self._depth += operation.pushes

    def _argument(self, operation: _Operation) -> bytes:
        if operation.lines:
            return b"\n".join(self._line() for _ in range(operation.lines))
        length = operation.length
        if operation.prefix:
            length = int.from_bytes(self._exactly(operation.prefix), "little", signed=operation.signed)
            if not 0 <= length <= _LONGEST:
                raise _Broken
        if length <= _NAME_BYTES:
            return self._exactly(length) if length else b""
        self.data.seek(length - 1, io.SEEK_CUR)
        self._exactly(1)
        return b""

    def _exactly(self, length: int) -> bytes:
        data = self.data.read(length)
        if len(data) < length:
            raise _Broken
        return data

    def _line(self) -> bytes:
        line = piece = self.data.readline(_LINE_BYTES)
        while len(piece) == _LINE_BYTES and not piece.endswith(b"\n"):
            piece = self.data.readline(_LINE_BYTES)
        if not line:
            raise _Broken
        # The unpickler drops the last character whatever it is, at the end of the file as well.
        return line[:-1][: _NAME_BYTES + 1]

    def _add(self, found: Import) -> None:
        if len(self.imports) < _IMPORTS_KEPT:
            self.imports[found] = None
        elif found not in self.imports:
            self.crowded = True


def _index(operation: _Operation, argument: bytes) -> int:
    if operation.lines:
        return int(argument) if argument.isdigit() else -1
    return int.from_bytes(argument, "little")


def _name(text: bytes) -> str | None:
    return text.decode() if len(text) <= _NAME_BYTES and _DOTTED.fullmatch(text) else None


def _decoded(text: bytes) -> str:
    return text.decode("utf-8", "backslashreplace")
