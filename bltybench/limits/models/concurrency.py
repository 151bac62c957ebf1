"""Concurrency: a limit on the requests in flight."""

from bltybench.limits.models.base import Admission


class Concurrency:
    """A semaphore that refuses instead of waiting: accept iff in_use < limit, then in_use += 1.

    A slot is released when another request ends, so a refusal has no ``retry_after_s``.
    """

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ValueError(f"limit must be 1 or more: {limit}")
        self.limit = limit
        self.in_use = 0

    def acquire(self) -> Admission:
        """Take a slot if one is available."""
        accepted = self.in_use < self.limit
        if accepted:
            self.in_use += 1
        return Admission(accepted, None, self.limit, self.limit - self.in_use, 0.0)

    def release(self) -> None:
        """Release a slot. Raises RuntimeError if none is taken."""
        if self.in_use == 0:
            raise RuntimeError("released more often than acquired")
        self.in_use -= 1
