"""From the shared options to the settings."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from core.settings import Settings, load_settings
from modelyard.cli.framework import Invocation

_CONFIG_VARIABLE = "MODELYARD_CONFIG"


def settings_of(context: typer.Context, **sections: Mapping[str, Any]) -> Settings:
    """The settings in force: the file, the environment, then options; `sections` adds those of a command.

    Raises:
        SettingsError: they cannot be used; the message names the key.
    """
    invocation = Invocation.of(context)
    file = invocation.config or _named(os.environ.get(_CONFIG_VARIABLE))
    overrides = {
        name: {key: value for key, value in values.items() if value is not None}
        for name, values in sections.items()
    }
    if invocation.data is not None:
        overrides.setdefault("server", {})["data"] = str(invocation.data)
    return load_settings(file, overrides=overrides)


def _named(text: str | None) -> Path | None:
    return Path(text) if text else None
