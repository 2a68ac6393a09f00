"""`docs/cli.md`, made from the commands themselves: `python -m modelyard.cli.reference > docs/cli.md`."""

import re
import sys
from collections.abc import Iterator
from typing import Any

from modelyard.cli.framework import Invocation, is_shared
from modelyard.cli.root import ENTRIES, build_root, load

_HEAD = """\
# The command line

<!-- Made by `python -m modelyard.cli.reference`; a test fails when it is stale. -->

`modelyard` runs the server and administers it. The administration commands work straight on the database and
the object store that the configuration names, beside a running server or without one; whoever can read the
data directory may run them, and the audit log knows them as `system`.

- Standard output holds the answer: a table or a sentence at a terminal, tab-separated lines in a pipe, one
  JSON document with `--json`. Standard error holds one line that says why something was refused or failed.
- The exit status is 0 when it is done, 1 when it was refused or failed, 2 when the command was used wrongly.
- Settings come from the file that `--config` or `MODELYARD_CONFIG` names, then from
  `MODELYARD_SECTION__KEY` in the environment, then from options.

## Options of every command

They are accepted before and after the names of the commands.
"""


def reference() -> str:
    """The whole page."""
    root = build_root()
    context = root.make_context("modelyard", [], resilient_parsing=True, obj=Invocation())
    parts = [_HEAD, *_parameters(root, context, shared=True)]
    for name in ENTRIES:
        parts += _describe(load(name), name, context, level=2)
    return "\n".join(parts)


def _describe(command: Any, name: str, parent: Any, *, level: int) -> Iterator[str]:
    context = command.make_context(name, [], parent=parent, resilient_parsing=True)
    children = getattr(command, "commands", {})
    yield "#" * level + f" `{context.command_path}`\n"
    yield (command.help or "").strip() + "\n"
    if not children:
        # typer marks an argument that has a metavar with braces, which say nothing.
        usage = re.sub(r"\{([^}]+)\}", r"\1", " ".join(command.collect_usage_pieces(context)))
        yield f"```\n{context.command_path} {usage}\n```\n"
        yield from _parameters(command, context, shared=False)
    for child_name, child in children.items():
        yield from _describe(child, child_name, context, level=level + 1)


def _parameters(command: Any, context: Any, *, shared: bool) -> Iterator[str]:
    records = [
        parameter.get_help_record(context)
        for parameter in command.params
        if is_shared(parameter) == shared and not getattr(parameter, "hidden", False)
    ]
    if not records:
        return
    yield "| | |\n|---|---|"
    for names, text in records:
        yield f"| `{_names(names)}` | {_cell(text)} |"
    yield ""


def _names(text: str) -> str:
    """The names of a parameter, with what it takes instead of the Python type of it."""
    for python, shown in (("<int range>", "N"), ("<int>", "N"), ("<str>", "TEXT"), ("<path>", "FILE")):
        text = text.replace(python, shown)
    words = text.strip().split(" ")
    # An argument's own name says what it is.
    return _cell(" ".join(words) if words[0].startswith("-") else words[0])


def _cell(text: str) -> str:
    return text.replace("\\[", "[").replace("  [", " [").replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(reference())
