"""The caps on what one process may spend."""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from bltybench.errors import UserError
from bltybench.scenario.target import Budget, Price


def share(cap: int | None, index: int, workers: int) -> float:
    """Return the share of ``cap`` of worker ``index`` of ``workers``. The shares add up to the cap."""
    return math.inf if cap is None else cap // workers + (index < cap % workers)


class Spend(msgspec.Struct, frozen=True, gc=False):
    """Tokens and money that one attempt used or can use."""

    tokens: int
    money: float = 0.0

    def __sub__(self, other: Spend) -> Spend:
        return Spend(self.tokens - other.tokens, self.money - other.money)


NOTHING = Spend(0)


class BudgetAccount:
    """This process's share of each cap of a budget.

    It reserves the maximum cost of each attempt, prompt + max_tokens, and refunds the unused part afterwards.
    A cap is therefore never exceeded, but may be left partly unspent.
    """

    def __init__(
        self, budget: Budget, prices: Mapping[str, Price] | None = None, index: int = 0, workers: int = 1
    ) -> None:
        self._requests = share(budget.requests, index, workers)
        self._tokens = share(budget.tokens, index, workers)
        self._money = math.inf if budget.money is None else budget.money / workers
        self._prices = prices or {}
        self._counts_money = budget.money is not None
        self.counts_tokens = self._counts_money or budget.tokens is not None
        """Whether a cap depends on the length of prompts and completions."""
        self.exhausted = False

    def cost(self, model: str, prompt_tokens: int | None, completion_tokens: int | None) -> Spend:
        """Return what an attempt costs; its money is 0 unless money is capped.

        Raises UserError if a cap can't be kept because the completion's length or the price is unknown.
        """
        if completion_tokens is None and self.counts_tokens:
            raise UserError(
                "a call has no max_tokens or max_completion_tokens, but the budget caps tokens or money",
                remedy="pass one of them in every call, or cap requests only",
            )
        prompt, completion = prompt_tokens or 0, completion_tokens or 0
        if not self._counts_money:
            return Spend(prompt + completion)
        price = self._prices.get(model)
        if price is None:
            raise UserError(
                f"model '{model[:60]}' has no price, but the budget caps money",
                remedy="add it to the target's prices in scenarios.toml",
            )
        return Spend(prompt + completion, price.of(prompt, completion))

    def take(self, spend: Spend) -> bool:
        """Reserve one request and ``spend``. Return False, permanently, once the budget can't cover them."""
        if self._requests < 1 or self._tokens < spend.tokens or self._money < spend.money:
            self.exhausted = True
        if self.exhausted:
            return False
        self._requests -= 1
        self.give_back(NOTHING - spend)
        return True

    def give_back(self, spend: Spend) -> None:
        """Refund what was reserved and not used."""
        self._tokens += spend.tokens
        self._money += spend.money
