"""The command line, one module per command."""

import gc
import os
import sys

from bltybench.errors import CANNOT_RUN, UserError, os_error

INTERRUPTED = 130
COLLECTION_THRESHOLDS = (100_000, 20, 100)
"""Thresholds of the three generations of garbage collection.

Imports and commands release hardly any object that they create, so frequent collections only cost time.
"""


def main() -> int:
    """Run ``bltybench`` with this process's arguments and return the exit code.

    0 success, 1 a check failed, 2 could not run (usage, or an error the user can fix), 130 interrupted.
    """
    try:
        code = _run()
        sys.stdout.flush()
    except UserError as error:
        return _refuse(error)
    except OSError as error:
        _give_up_broken_output()
        return _refuse(os_error(error))
    except KeyboardInterrupt:
        return _interrupted()
    return _interrupted() if code == INTERRUPTED else code


def _run() -> int:
    gc.set_threshold(*COLLECTION_THRESHOLDS)
    try:
        # Imported here so that Ctrl-C during imports is handled, and importing main is cheap.
        from bltybench.cli.app import app  # noqa: PLC0415

        app(prog_name="bltybench")
    except SystemExit as done:
        # typer ends every command this way, and turns Ctrl-C into a silent 130.
        return done.code if isinstance(done.code, int) else 0
    return 0


def _give_up_broken_output() -> None:
    """Discard what stdout can't take. Python flushes it again at exit, and would print a second error."""
    try:
        sys.stdout.flush()
    except OSError:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _refuse(error: UserError) -> int:
    print(f"bltybench: {error}", file=sys.stderr)
    return CANNOT_RUN


def _interrupted() -> int:
    print("bltybench: interrupted", file=sys.stderr)
    return INTERRUPTED
