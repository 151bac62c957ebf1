"""When bytes reached this machine: kernel receive stamps, brought onto the monotonic axis.

The kernel stamps received data with the wall clock (``CLOCK_REALTIME``) while everything else here is
measured on ``time.monotonic_ns``. The two differ by a constant that changes only when somebody sets the
clock, so the difference is measured once, checked at each read, and measured again when it has moved.
Around such a step stamps cannot be told apart and the time right after the read is used instead.
"""

from __future__ import annotations

import _socket
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Final

SO_TIMESTAMPING: Final = 37
RX_SOFTWARE: Final = 1 << 3
SOFTWARE: Final = 1 << 4
"""linux/net_tstamp.h: make receive stamps in software, and report them."""

_TIMESPECS_BYTES: Final = 48
_software_stamp = struct.Struct("@2q").unpack_from
"""struct scm_timestamping: three timespecs, the first is the software stamp."""
ANCILLARY_BYTES: Final = socket.CMSG_SPACE(_TIMESPECS_BYTES)

OFFSET_TOLERANCE_NS: Final = 200_000
"""The two clocks are read one after the other; a difference beyond this is looked at more closely."""
STEP_QUIET_NS: Final = 1_000_000_000
"""After a step of the wall clock, bytes stamped before it may still lie in the kernel for this long."""
ORDER_TOLERANCE_NS: Final = 1_000_000
"""A stamp further in the future, or further before the previous read, is not believed."""

Ancillary = list[tuple[int, int, bytes]]

Arrival = tuple[int, int, int]
"""When the last byte of a read arrived (monotonic ns), how long after the read before it, and how long it lay
in the kernel; -1 where the kernel does not say, and then the first is the time right after the read. A bare
tuple: one is made for every read, and a named one costs several times as much."""


class StampClock:
    """Turns the kernel's wall-clock stamps into monotonic ones. One serves a whole process."""

    def __init__(
        self,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._monotonic_ns = monotonic_ns
        self._wall_ns = wall_ns
        self._offset_ns = self._measure_offset()
        self._doubt_until_ns = 0

    def arrival(self, ancillary: Ancillary, floor_ns: int) -> Arrival:
        """Return when a read's bytes arrived. Never raises.

        ``floor_ns`` is what cannot have been later: the previous read on the connection, or the sending.
        """
        monotonic_ns, wall_ns = self._monotonic_ns, self._wall_ns  # called so, they are not looked up anew
        now_ns = monotonic_ns()
        offset_ns = self._offset_ns
        if not -OFFSET_TOLERANCE_NS < wall_ns() - now_ns - offset_ns < OFFSET_TOLERANCE_NS:
            self._check_for_step(now_ns)
            offset_ns = self._offset_ns
        if now_ns < self._doubt_until_ns:
            return (now_ns, now_ns - floor_ns, -1)
        for level, kind, data in ancillary:
            if kind == SO_TIMESTAMPING and level == socket.SOL_SOCKET and len(data) == _TIMESPECS_BYTES:
                seconds, nanoseconds = _software_stamp(data)
                at_ns = seconds * 1_000_000_000 + nanoseconds - offset_ns
                gap_ns, lag_ns = at_ns - floor_ns, now_ns - at_ns
                if gap_ns >= 0 and lag_ns >= 0:
                    return (at_ns, gap_ns, lag_ns)
                if gap_ns < -ORDER_TOLERANCE_NS or lag_ns < -ORDER_TOLERANCE_NS:
                    break
                at_ns = max(floor_ns, min(at_ns, now_ns))
                return (at_ns, at_ns - floor_ns, now_ns - at_ns)
        return (now_ns, now_ns - floor_ns, -1)

    def _check_for_step(self, now_ns: int) -> None:
        """Tell a step of the wall clock from having been interrupted between the two clock calls."""
        offset_ns = self._measure_offset()
        if abs(offset_ns - self._offset_ns) >= OFFSET_TOLERANCE_NS:
            self._doubt_until_ns = now_ns + STEP_QUIET_NS
        self._offset_ns = offset_ns

    def _measure_offset(self) -> int:
        """Wall clock minus monotonic clock, from the tightest of a few brackets."""
        best_width, best_offset = sys.maxsize, 0
        for _ in range(8):
            before = self._monotonic_ns()
            wall = self._wall_ns()
            after = self._monotonic_ns()
            if after - before < best_width:
                best_width, best_offset = after - before, wall - (before + after) // 2
        return best_offset


def keep_stamping() -> None:
    """Have the kernel stamp from now on, for as long as this process lives.

    It stamps packets only while some socket asks for it, and begins a moment after the first has asked: the
    only connection of a process got its first answers, and at times all of them, without stamps. So one
    socket that is never used asks before any other and is left open.
    """
    keeper = _socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    enable(keeper)
    keeper.detach()


def enable(sock: _socket.socket) -> bool:
    """Ask the kernel to stamp what ``sock`` receives. False where it cannot (not Linux)."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, RX_SOFTWARE | SOFTWARE)
    except OSError:
        return False
    return True
