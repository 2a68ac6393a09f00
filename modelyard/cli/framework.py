"""What every command has in common: the shared options, async bodies, and how an answer is shown.

The shared options are accepted at every level, so `modelyard --data D user list` and
`modelyard user list --data D` are the same; the one nearest to the command wins.
"""

import asyncio
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar, cast

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from modelyard.cli.output import Answer, one_line, show

_PANEL = "Options of every command"


@dataclass(slots=True)
class Invocation:
    """The shared options, as far as they were read."""

    data: Path | None = None
    config: Path | None = None
    json: bool = False
    debug: bool = False

    @classmethod
    def of(cls, context: typer.Context) -> Self:
        """The one object of this run of the program."""
        return context.ensure_object(cls)


def _remember(context: typer.Context, parameter: typer.CallbackParam, value: object) -> None:
    if value and parameter.name:
        setattr(Invocation.of(context), parameter.name, value)


def _shared(name: str, text: str, metavar: str | None = None) -> Any:
    return typer.Option(
        name, metavar=metavar, help=text, callback=_remember, expose_value=False, rich_help_panel=_PANEL
    )


def _declare(
    data: Annotated[
        Path | None, _shared("--data", "Directory of everything the server keeps.", "DIR")
    ] = None,
    config: Annotated[
        Path | None, _shared("--config", "Configuration file; also MODELYARD_CONFIG.", "FILE")
    ] = None,
    json: Annotated[bool, _shared("--json", "Print one JSON document.")] = False,
    debug: Annotated[bool, _shared("--debug", "Show the traceback of an error.")] = False,
) -> None:
    """Only its parameters matter: they become those of every command."""


def is_shared(parameter: Any) -> bool:
    """Whether a parameter is one of those that every command has."""
    return getattr(parameter, "rich_help_panel", None) == _PANEL


def _shared_parameters() -> list[Any]:
    app = typer.Typer(add_completion=False)
    app.command()(_declare)
    return get_command(app).params


def _without_flag_types(parameters: list[Any]) -> list[Any]:
    for parameter in parameters:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""  # typer would show `<bool>` beside a flag that takes no value
    return parameters


# Where the signatures below say Any, typer has a class that it keeps to itself.


class Command(TyperCommand):
    """A command whose function may be async and returns what is to be shown."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += _shared_parameters()

    def get_params(self, ctx: Any) -> list[Any]:
        return _without_flag_types(super().get_params(ctx))

    def invoke(self, ctx: Any) -> None:
        """Runs the function, then shows the `Answer` that it returned.

        Raises:
            typer.Exit: with status 1, when the answer tells of a failure.
        """
        result = super().invoke(ctx)
        if inspect.iscoroutine(result):
            result = asyncio.run(result)
        if isinstance(result, Answer):
            show(result, as_json=Invocation.of(ctx).json)
            if result.failure:
                sys.stdout.flush()
                sys.stderr.write(f"modelyard: {one_line(result.failure)}\n")
                raise typer.Exit(1)


class Group(TyperGroup):
    """A noun: a group of commands that takes the shared options too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += _shared_parameters()

    def get_params(self, ctx: Any) -> list[Any]:
        return _without_flag_types(super().get_params(ctx))


def _no_callback() -> None:  # without one, typer melts a group of one command into that command
    pass


_Function = TypeVar("_Function", bound=Callable[..., Any])


class Noun:
    """A group of commands about one kind of thing."""

    def __init__(self) -> None:
        self._app = typer.Typer(cls=Group, add_completion=False, rich_markup_mode="markdown")
        self._app.callback()(_no_callback)

    def command(self, name: str) -> Callable[[_Function], _Function]:
        """Makes a function the command `modelyard NOUN NAME`; its docstring is the help."""
        return self._app.command(name, cls=Command)

    def add(self, noun: "Noun", name: str, summary: str) -> None:
        """Makes another group a part of this one."""
        self._app.add_typer(noun._app, name=name, help=summary)

    def build(self) -> TyperCommand | TyperGroup:
        return cast(TyperGroup, get_command(self._app))


class Verb:
    """A command that stands alone."""

    def __init__(self, function: Callable[..., Any]) -> None:
        """The docstring of `function` is the help."""
        self._app = typer.Typer(add_completion=False, rich_markup_mode="markdown")
        self._app.command(cls=Command)(function)

    def build(self) -> TyperCommand | TyperGroup:
        return cast(TyperCommand, get_command(self._app))
