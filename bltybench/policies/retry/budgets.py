"""Retry budgets: limits on the retries of all calls of a client, so that retries can't multiply an outage."""

from collections import deque

GRPC_MAX_TOKENS, GRPC_TOKEN_RATIO = 10.0, 0.1
"""Maximum tokens of gRPC's retry throttling, and tokens that a success restores: its design's examples."""
FINAGLE_CALLS_PER_RETRY = 5
"""Calls that pay for one retry: Finagle's default of 20%."""
FINAGLE_RESERVE = 100
"""Retries that need no calls: Finagle's default of 10 per second over its 10 s."""
FINAGLE_TTL_S = 10.0
"""Seconds after which calls and retries no longer count: Finagle's default."""


class RetryBudget:
    """Base class. It allows every retry."""

    def begin(self, now_s: float) -> None:
        """Count a new call."""
        del now_s

    def succeed(self) -> None:
        """Count a successful attempt."""

    def fail(self) -> None:
        """Count a failed attempt that could be retried."""

    def take(self, now_s: float) -> bool:
        """Return whether a retry is allowed, and count it."""
        del now_s
        return True


class GrpcBudget(RetryBudget):
    """gRPC's retry throttling: a failure costs a token, and retries need more than half of the maximum."""

    def __init__(self) -> None:
        self._tokens = GRPC_MAX_TOKENS

    def succeed(self) -> None:
        """Restore a part of a token."""
        self._tokens = min(GRPC_MAX_TOKENS, self._tokens + GRPC_TOKEN_RATIO)

    def fail(self) -> None:
        """Take a token."""
        self._tokens = max(0.0, self._tokens - 1)

    def take(self, now_s: float) -> bool:
        """Return whether a retry is allowed."""
        del now_s
        return self._tokens > GRPC_MAX_TOKENS / 2


class FinagleBudget(RetryBudget):
    """Finagle's retry budget: retries are at most a fraction of recent calls, plus a reserve."""

    def __init__(self) -> None:
        self._changes: deque[tuple[float, int]] = deque()
        self._balance = FINAGLE_RESERVE * FINAGLE_CALLS_PER_RETRY

    def begin(self, now_s: float) -> None:
        """Deposit a new call."""
        self._change(now_s, 1)

    def take(self, now_s: float) -> bool:
        """Return whether a retry is allowed, and withdraw it."""
        self._expire(now_s)
        allowed = self._balance >= FINAGLE_CALLS_PER_RETRY
        if allowed:
            self._change(now_s, -FINAGLE_CALLS_PER_RETRY)
        return allowed

    def _change(self, now_s: float, amount: int) -> None:
        self._expire(now_s)
        self._changes.append((now_s, amount))
        self._balance += amount

    def _expire(self, now_s: float) -> None:
        while self._changes and self._changes[0][0] <= now_s - FINAGLE_TTL_S:
            self._balance -= self._changes.popleft()[1]
