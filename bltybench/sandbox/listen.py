"""The sandbox's listening socket."""

from __future__ import annotations

import errno
import socket

from bltybench.errors import UserError

BACKLOG = 1024


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. Port 0 chooses a free one. Raise UserError if the address is unavailable."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(
                f"port {port} is in use",
                where=f"{host}:{port}",
                remedy="choose another with --port, or 0 for a free one",
            ) from error
        raise UserError(f"can't listen: {error.strerror or error}", where=f"{host}:{port}") from error
