"""A request of another HTTP client, to be sent and recorded as an attempt of a user."""

from collections import deque
from dataclasses import dataclass, field

from gevent.event import Event

from bltybench.load.recorder import CallContext
from bltybench.wire.exchange import Exchange
from bltybench.wire.http.connection import Connection


class Pieces(list[bytes]):
    """The pieces of a body, which also go to whoever reads them while they arrive.

    The record empties the list whenever it has parsed the pieces so far, so ``unread`` has its own.
    """

    def __init__(self) -> None:
        super().__init__()
        self.unread: deque[bytes] = deque()
        self.arrived = Event()

    def append(self, piece: bytes) -> None:
        """Keep a piece, and wake its reader."""
        super().append(piece)
        self.unread.append(piece)
        self.arrived.set()


@dataclass(slots=True, kw_only=True, eq=False)
class ForwardedRequest:
    """One attempt of a call, with the other client's headers and the target's key."""

    call: CallContext
    number: int
    """Attempts of the call before this one."""
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    connection: Connection
    pieces: Pieces = field(default_factory=Pieces)
    exchange: Exchange | None = None
    """None until it is sent."""
