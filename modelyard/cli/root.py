"""The top of the command line: which commands there are, and where each lives."""

import importlib
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from modelyard.cli.framework import Group, Noun, Verb


class Entry(NamedTuple):
    """A top-level command: the module whose `command` is it, and its line in the help."""

    module: str
    summary: str


ENTRIES = {
    "serve": Entry("serving", "Run the server."),
    "migrate": Entry("migrating", "Bring the database to the version of this program."),
    "doctor": Entry("doctor", "Examine the installation and name a remedy for each finding."),
    "gc": Entry("collecting", "Repack repositories now and sweep what nothing needs."),
    "config": Entry("configuration", "Check and show the configuration."),
    "user": Entry("users", "Manage users."),
    "org": Entry("organisations", "Manage organisations and their members."),
    "token": Entry("tokens", "Manage access tokens."),
    "key": Entry("keys", "Manage the SSH keys of users."),
    "repo": Entry("repositories", "Manage repositories."),
    "lfs": Entry("lfs", "Collect, restore, check and move large files; usage and quotas."),
    "webhook": Entry("webhooks", "Manage webhooks and what they were sent; try receivers out."),
    "audit": Entry("auditing", "Read the log of changes to rights and credentials."),
    "tls": Entry("certificates", "Make certificates."),
    "version": Entry("version", "Print the version."),
}


class Root(Group):
    """Shows its commands from `ENTRIES` and imports the module of the one that is run.

    The services take most of a second to import; a help screen or a typing mistake must not wait for that.
    """

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command to run, imported."""
        name, found, rest = super().resolve_command(ctx, args)
        return name, load(name) if name and found else found, rest


def load(name: str) -> TyperCommand | TyperGroup:
    """Imports a top-level command."""
    declared = importlib.import_module(f"modelyard.cli.{ENTRIES[name].module}").command
    assert isinstance(declared, Noun | Verb)
    command = declared.build()
    command.name = name
    command.help = command.help or ENTRIES[name].summary
    return command


def _root() -> None:
    """Modelyard: a Git server for machine-learning models and datasets."""


def build_root() -> Root:
    """The whole command line; nothing below the top is imported yet."""
    app = typer.Typer(cls=Root)
    app.callback()(_root)
    root = get_command(app)
    assert isinstance(root, Root)
    root.commands = {name: TyperCommand(name, help=entry.summary) for name, entry in ENTRIES.items()}
    return root
