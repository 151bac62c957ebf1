"""The command line: one module a verb."""

from __future__ import annotations

import sys

from bltybench.errors import UserError

CANNOT_RUN = 2
INTERRUPTED = 130


def main() -> int:
    """Run ``bltybench`` with the arguments of this process and return its exit code.

    0 fine, 1 a check failed, 2 could not run (usage, or something the user can mend), 130 interrupted.
    """
    try:
        # Imported here so that Ctrl-C while modules load is met below, and importing main costs nothing.
        from bltybench.cli.app import app  # noqa: PLC0415

        app(prog_name="bltybench")
    except UserError as error:
        print(f"bltybench: {_printable(str(error))}", file=sys.stderr)
        return CANNOT_RUN
    except KeyboardInterrupt:
        return _interrupted()
    except SystemExit as done:
        # typer ends every command this way, and turns Ctrl-C into a silent 130.
        if done.code == INTERRUPTED:
            return _interrupted()
        return done.code if isinstance(done.code, int) else 0
    return 0


def _printable(text: str) -> str:
    """Drop what could steer a terminal: a message may quote a file or a server."""
    return "".join(char for char in text.expandtabs() if char.isprintable() or char == "\n")


def _interrupted() -> int:
    print("bltybench: interrupted", file=sys.stderr)
    return INTERRUPTED
