"""``python -m bltybench.sandbox``: the child of SandboxProcess, with its settings on stdin."""

import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from bltybench.errors import UserError
from bltybench.sandbox.process import ServeRequest
from bltybench.sandbox.serve import serve
from bltybench.scenario.target import SandboxSettings


def _end_with_parent(stop: Callable[[], None]) -> None:
    """Stop when stdin closes, because the parent has died."""

    def wait() -> None:
        sys.stdin.buffer.read()
        stop()

    threading.Thread(target=wait, name="parent", daemon=True).start()


def main() -> int:
    """Serve as the line on stdin says. Return exit code 0, or 2 if serving failed."""
    line = sys.stdin.buffer.readline()
    try:
        order = msgspec.json.decode(line, type=ServeRequest)
    except msgspec.DecodeError:
        print("bltybench: internal command; run `bltybench sandbox` instead", file=sys.stderr)
        return 2
    settings = SandboxSettings.model_validate_json(order.settings)
    try:
        serve(
            settings,
            socket.socket(fileno=order.fd),
            Path(order.log_path) if order.log_path else None,
            ca_file=Path(order.ca_file) if order.ca_file else None,
            on_start=_end_with_parent,
        )
    except UserError as error:
        print(f"bltybench: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
