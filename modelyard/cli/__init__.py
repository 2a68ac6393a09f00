"""The `modelyard` command: runs the server and administers it.

One module per noun. Only this one, `root`, `framework` and `output` are imported to show the help; the
module of a command, with the services behind it, is imported when that command runs.
"""

import sys
import traceback
from typing import NoReturn

import typer

from core.errors import ModelyardError
from modelyard.cli.framework import Invocation
from modelyard.cli.output import one_line
from modelyard.cli.root import build_root

_USAGE = 2


def main() -> NoReturn:
    """Runs one command and exits: 0 done, 1 refused or failed, 2 wrong usage, 130 interrupted.

    Whatever goes wrong is one line on standard error; `--debug` adds the traceback.
    """
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Runs one command and returns its exit status."""
    invocation = Invocation()
    try:
        return build_root().main(arguments, prog_name="modelyard", standalone_mode=False, obj=invocation) or 0
    except typer.TyperException as error:
        return _refuse(_explain(error), error.exit_code)
    except typer.Abort:
        return _refuse("aborted", 1)
    except ModelyardError as error:
        if invocation.debug:
            traceback.print_exc()
        return _refuse(error.message, 1)
    except Exception as error:  # noqa: BLE001 - the outermost frame: users get one line, not a traceback
        if invocation.debug:
            traceback.print_exc()
            return 1
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return _refuse(f"internal error: {what} (run it again with --debug for the traceback)", 1)


def _explain(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    if error.exit_code != _USAGE or context is None:
        return error.format_message()
    message = error.format_message().rstrip(".")
    return f"{message}{'' if message.endswith('?') else '.'} Try '{context.command_path} --help'."


def _refuse(message: str, status: int) -> int:
    sys.stderr.write(f"modelyard: {one_line(message)}\n")
    return status
