"""The caps on what a process may spend: nothing is sent that could pass them."""

from __future__ import annotations

from bltybench.scenario.target import Budget


def share(cap: int | None, index: int, workers: int) -> int | None:
    """Return the part of ``cap`` for worker ``index`` of ``workers``; the parts add up to the cap."""
    if cap is None:
        return None
    return cap // workers + (1 if index < cap % workers else 0)


class Purse:
    """What is left of a budget in this process.

    Before an attempt its tokens are put aside as prompt + max_tokens; afterwards the difference to what was
    used is put back. So a cap can be left partly unused, never overshot.
    """

    def __init__(self, budget: Budget, index: int = 0, workers: int = 1) -> None:
        self._requests = share(budget.requests, index, workers)
        self._tokens = share(budget.tokens, index, workers)
        self.exhausted = False

    def take(self, tokens: int) -> bool:
        """Put one request and ``tokens`` aside; False, for ever after, where they are not there."""
        short = (self._requests is not None and self._requests < 1) or (
            self._tokens is not None and self._tokens < tokens
        )
        if short:
            self.exhausted = True
        if self.exhausted:
            return False
        if self._requests is not None:
            self._requests -= 1
        if self._tokens is not None:
            self._tokens -= tokens
        return True

    def give_back(self, tokens: int) -> None:
        """Return tokens that were put aside and not used."""
        if self._tokens is not None:
            self._tokens += tokens
