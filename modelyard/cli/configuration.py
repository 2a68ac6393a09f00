"""`modelyard config …`."""

from collections.abc import Mapping
from typing import Any

import msgspec
import typer
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from core.database import Database
from core.settings import Settings
from modelyard.cli.framework import Noun
from modelyard.cli.output import Answer, done
from modelyard.cli.settings import settings_of
from modelyard.client import Proxies
from modelyard.listening import Listen
from modelyard.tls import certificate_of
from storage.build import build_store

command = Noun()

_SECRETS = frozenset({("storage", "access_key"), ("storage", "secret_key")})
_MASK = "********"


@command.command("check")
async def check(context: typer.Context) -> Answer:
    """Say whether a server could start with the configuration; an unknown key is an error that names it.

    Connects to nothing; `modelyard doctor` does.
    """
    settings = settings_of(context)
    # Each part judges its own settings where it is made, and is made without touching anything.
    Listen.parse("[http] listen", settings.http.listen)
    Listen.parse("[ssh] listen", settings.ssh.listen)
    Proxies(settings.http.trusted_proxies)
    certificate_of(settings.http)
    database = Database(settings.database_url, settings.database)
    await database.close()
    store = build_store(settings)
    await store.close()
    return done("the configuration can be used", valid=True)


@command.command("show")
def show(context: typer.Context) -> Answer:
    """Print every setting as it is in force, as TOML; secrets are masked."""
    sections = masked(settings_of(context))
    return Answer(sections, "\n\n".join(_toml(name, values) for name, values in sections.items()))


def masked(settings: Settings) -> dict[str, dict[str, Any]]:
    """The settings with secrets replaced, as they may be shown."""
    sections: dict[str, dict[str, Any]] = msgspec.to_builtins(settings)
    for section, key in _SECRETS:
        if sections[section][key]:
            sections[section][key] = _MASK
    if url := sections["database"]["url"]:
        try:
            sections["database"]["url"] = make_url(url).render_as_string(hide_password=True)
        except ArgumentError:  # then nobody knows where in it a password may be
            sections["database"]["url"] = _MASK
    return sections


def _toml(section: str, values: Mapping[str, Any]) -> str:
    # A string, number, boolean or list of strings is written alike in TOML and JSON.
    lines = (f"{key} = {msgspec.json.encode(value).decode()}" for key, value in values.items())
    return "\n".join([f"[{section}]", *lines])
