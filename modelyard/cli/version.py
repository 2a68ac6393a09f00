"""`modelyard version`."""

import platform
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version

from modelyard.cli.framework import Verb
from modelyard.cli.output import Answer, done


def version() -> Answer:
    """Print the version."""
    try:
        number = installed_version("modelyard")
    except PackageNotFoundError:  # run from a checkout that was never installed
        number = "unknown"
    return done(f"modelyard {number}", version=number, python=platform.python_version())


command = Verb(version)
