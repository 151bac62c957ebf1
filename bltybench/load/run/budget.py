"""The caps on what a process may spend: nothing is sent that could pass them."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from bltybench.errors import UserError
from bltybench.scenario.target import Budget, Price


def share(cap: int | None, index: int, workers: int) -> int | None:
    """Return the part of ``cap`` for worker ``index`` of ``workers``; the parts add up to the cap."""
    if cap is None:
        return None
    return cap // workers + (1 if index < cap % workers else 0)


class Spend(msgspec.Struct, frozen=True, gc=False):
    """The tokens and the money of one attempt: what it may cost, or what it did."""

    tokens: int
    money: float = 0.0

    def __sub__(self, other: Spend) -> Spend:
        """Return the difference."""
        return Spend(self.tokens - other.tokens, self.money - other.money)


NOTHING = Spend(0)


class BudgetAccount:
    """What is left of a budget in this process: its share of each cap.

    Before an attempt the most that it can cost is put aside, prompt + max_tokens; afterwards the difference
    to what was used is put back. So a cap can be left partly unused, never overshot.
    """

    def __init__(
        self, budget: Budget, prices: Mapping[str, Price] | None = None, index: int = 0, workers: int = 1
    ) -> None:
        self._requests = share(budget.requests, index, workers)
        self._tokens = share(budget.tokens, index, workers)
        self._money = None if budget.money is None else budget.money / workers
        self._prices = prices or {}
        self.exhausted = False

    @property
    def counts_tokens(self) -> bool:
        """Whether a cap depends on how long prompts and answers are."""
        return self._tokens is not None or self._money is not None

    def cost(self, model: str, prompt_tokens: int | None, answer_tokens: int | None) -> Spend:
        """Return what so many tokens cost; money only where there is a cap on it.

        Raises UserError where a cap cannot be kept, because the answer's length or the price is not known.
        """
        if answer_tokens is None and self.counts_tokens:
            raise UserError(
                "max_tokens is not given, and the budget has a cap on what answers cost",
                remedy="give max_tokens in every call, or cap requests only",
            )
        prompt, answer = prompt_tokens or 0, answer_tokens or 0
        if self._money is None:
            return Spend(prompt + answer)
        price = self._prices.get(model)
        if price is None:
            raise UserError(
                f"model '{model[:60]}' has no price, and the budget is in money",
                remedy="add it to the target's prices in scenarios.toml",
            )
        return Spend(prompt + answer, price.of(prompt, answer))

    def take(self, spend: Spend) -> bool:
        """Put one request and ``spend`` aside; False, for ever after, where they are not there."""
        short = (
            (self._requests is not None and self._requests < 1)
            or (self._tokens is not None and self._tokens < spend.tokens)
            or (self._money is not None and self._money < spend.money)
        )
        if short:
            self.exhausted = True
        if self.exhausted:
            return False
        if self._requests is not None:
            self._requests -= 1
        self.give_back(NOTHING - spend)
        return True

    def give_back(self, spend: Spend) -> None:
        """Return what was put aside and not used."""
        if self._tokens is not None:
            self._tokens += spend.tokens
        if self._money is not None:
            self._money += spend.money
