"""The command line, one module per command."""

import sys

from bltybench.errors import UserError

CANNOT_RUN = 2
INTERRUPTED = 130


def main() -> int:
    """Run ``bltybench`` with this process's arguments and return the exit code.

    0 success, 1 a check failed, 2 could not run (usage, or an error the user can fix), 130 interrupted.
    """
    try:
        # Imported here so that Ctrl-C during imports is handled below, and importing main is cheap.
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
    """Remove control characters: a message may quote a file or a server."""
    return "".join(char for char in text.expandtabs() if char.isprintable() or char == "\n")


def _interrupted() -> int:
    print("bltybench: interrupted", file=sys.stderr)
    return INTERRUPTED
