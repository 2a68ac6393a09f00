"""What a command answers: one JSON document for programs, a table or a sentence for people."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec
import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

Document = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of a command.

    Attributes:
        document: what `--json` prints.
        text: what a person reads when there is no table.
        columns: the keys of the documents that make a table; `document` is then a list of them.
        failure: one line for standard error; the exit status is 1 when there is one.
    """

    document: object
    text: str = ""
    columns: tuple[str, ...] = ()
    failure: str = ""


def done(sentence: str, /, **document: object) -> Answer:
    """Something was changed; `sentence` says what."""
    return Answer(document, sentence)


def record(document: Document) -> Answer:
    """One thing, a line for each of its fields."""
    width = max(map(len, document), default=0)
    lines = (f"{name.ljust(width)}  {one_line(cell(value))}".rstrip() for name, value in document.items())
    return Answer(document, "\n".join(lines))


def listing(documents: Iterable[Document], columns: str, *, failure: str = "") -> Answer:
    """Many things of one kind; people see the named columns only."""
    return Answer(list(documents), columns=tuple(columns.split()), failure=failure)


def show(answer: Answer, *, as_json: bool) -> None:
    """Prints the answer on standard output."""
    if as_json:
        encoded = msgspec.json.encode(answer.document, enc_hook=str)
        typer.echo(msgspec.json.format(encoded, indent=2).decode())
    elif answer.columns:
        assert isinstance(answer.document, list)
        rows = [[cell(row.get(name)) for name in answer.columns] for row in answer.document]
        _show_table(answer.columns, rows)
    elif answer.text:
        typer.echo(answer.text)


def _show_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    # A pipe gets one line per row and tabs between the cells, as `cut` and `awk` like it.
    if not sys.stdout.isatty():
        for row in rows:
            typer.echo("\t".join(map(one_line, row)))
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in columns:
        table.add_column(name.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(Text(one_line(value)) for value in row))
    Console().print(table)


def cell(value: object) -> str:
    """How a person sees a value."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case datetime():
            return value.astimezone().strftime("%Y-%m-%d %H:%M")
        case list() | tuple():
            return ", ".join(map(cell, value))
        case _:
            return str(value)


def one_line(text: str) -> str:
    """The text without line breaks and without anything that a terminal would obey."""
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}"
        for character in " ".join(text.split())
    )
