"""Arrival times of received bytes: kernel timestamps, converted to the monotonic clock.

The kernel timestamps received data with the wall clock (``CLOCK_REALTIME``), while all other times are
``time.monotonic_ns``. The two clocks differ by a constant that changes only when the wall clock is set. The
difference is measured once, checked at each read, and measured again when it has changed. Around such a step,
timestamps are ambiguous, and the time right after the read is used instead.
"""

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
"""linux/net_tstamp.h: timestamp received data in software, and report the timestamps."""

_TIMESPECS_BYTES: Final = 48
_software_stamp = struct.Struct("@2q").unpack_from
"""struct scm_timestamping: three timespecs, the first of which is the software timestamp."""
ANCILLARY_BYTES: Final = socket.CMSG_SPACE(_TIMESPECS_BYTES)

OFFSET_TOLERANCE_NS: Final = 200_000
"""Change in the clocks' difference above which it is measured again. They are read one after the other."""
STEP_QUIET_NS: Final = 1_000_000_000
"""Time after a step of the wall clock in which the kernel can hold bytes timestamped before it."""
ORDER_TOLERANCE_NS: Final = 1_000_000
"""Timestamps further in the future, or further before the previous read, are discarded."""

Ancillary = list[tuple[int, int, bytes]]

Arrival = tuple[int, int, int]
"""Arrival of a read's last byte (monotonic), time since the previous read, and time in the kernel, all in
nanoseconds. The last is -1 without a kernel timestamp; the first is then the time right after the read. Each
read makes one of these bare tuples; a named tuple costs several times as much."""


class StampClock:
    """Converts the kernel's wall-clock timestamps to monotonic ones. One serves the whole process."""

    def __init__(
        self, monotonic_ns: Callable[[], int] = time.monotonic_ns, wall_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self._monotonic_ns = monotonic_ns
        self._wall_ns = wall_ns
        self._offset_ns = self._measure_offset()
        self._ambiguous_until_ns = 0

    def arrival(self, ancillary: Ancillary, previous_ns: int) -> Arrival:
        """Return when a read's bytes arrived. Never raises.

        ``previous_ns``, the connection's previous arrival or the time of sending, cannot be later than that.
        """
        monotonic_ns, wall_ns = self._monotonic_ns, self._wall_ns  # local names: one lookup each
        now_ns = monotonic_ns()
        offset_ns = self._offset_ns
        if not -OFFSET_TOLERANCE_NS < wall_ns() - now_ns - offset_ns < OFFSET_TOLERANCE_NS:
            self._check_for_step(now_ns)
            offset_ns = self._offset_ns
        if now_ns < self._ambiguous_until_ns:
            return (now_ns, now_ns - previous_ns, -1)
        for level, kind, data in ancillary:
            if kind == SO_TIMESTAMPING and level == socket.SOL_SOCKET and len(data) == _TIMESPECS_BYTES:
                seconds, nanoseconds = _software_stamp(data)
                at_ns = seconds * 1_000_000_000 + nanoseconds - offset_ns
                gap_ns, lag_ns = at_ns - previous_ns, now_ns - at_ns
                if gap_ns >= 0 and lag_ns >= 0:
                    return (at_ns, gap_ns, lag_ns)
                if gap_ns < -ORDER_TOLERANCE_NS or lag_ns < -ORDER_TOLERANCE_NS:
                    break
                at_ns = max(previous_ns, min(at_ns, now_ns))
                return (at_ns, at_ns - previous_ns, now_ns - at_ns)
        return (now_ns, now_ns - previous_ns, -1)

    def _check_for_step(self, now_ns: int) -> None:
        """Distinguish a step of the wall clock from an interruption between the two clock calls."""
        offset_ns = self._measure_offset()
        if abs(offset_ns - self._offset_ns) >= OFFSET_TOLERANCE_NS:
            self._ambiguous_until_ns = now_ns + STEP_QUIET_NS
        self._offset_ns = offset_ns

    def _measure_offset(self) -> int:
        """Return wall clock minus monotonic clock, from the tightest of a few brackets."""
        best_width, best_offset = sys.maxsize, 0
        for _ in range(8):
            before = self._monotonic_ns()
            wall = self._wall_ns()
            after = self._monotonic_ns()
            if after - before < best_width:
                best_width, best_offset = after - before, wall - (before + after) // 2
        return best_offset


def keep_stamping() -> None:
    """Make the kernel timestamp packets for the rest of this process.

    It does so only while some socket asks for it, and starts a moment after the first one asks. Without this
    unused socket, the first responses of a process's only connection arrive without timestamps.
    """
    keeper = _socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    enable(keeper)
    keeper.detach()


def enable(sock: _socket.socket) -> bool:
    """Ask the kernel to timestamp what ``sock`` receives. Return False if it cannot (not Linux)."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, RX_SOFTWARE | SOFTWARE)
    except OSError:
        return False
    return True
