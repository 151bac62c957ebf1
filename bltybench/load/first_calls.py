"""The first calls of a run: if all of them fail alike, the load tests nothing but a mistake."""

from collections.abc import Callable

from bltybench.runs.attempt import Attempt, Outcome

MAX_ALIKE = 20
"""Number of first calls of a run that may fail alike. The run ends with the last of them."""


class FirstCalls:
    """Follows the first calls of one process until one succeeds, is refused, or fails in another way."""

    def __init__(self, workers: int, report: Callable[[str], None]) -> None:
        """``report`` receives the kind of failure once this process's share of MAX_ALIKE has failed."""
        self._left = -(-MAX_ALIKE // workers)
        self._report = report
        self._kind: tuple[Outcome, int | None, str | None] | None = None

    def add(self, attempt: Attempt, *, refused: bool) -> None:
        """Note the last attempt of a call. Refusals are results, and the run itself cancels attempts."""
        if self._left == 0 or attempt.outcome is Outcome.CANCELLED:
            return
        kind = (attempt.outcome, attempt.status, attempt.error_type)
        if attempt.outcome is Outcome.OK or refused or self._kind not in {None, kind}:
            self._left = 0
            return
        self._kind = kind
        self._left -= 1
        if self._left == 0:
            self._report(" ".join(str(part) for part in kind if part is not None).replace("_", " "))
