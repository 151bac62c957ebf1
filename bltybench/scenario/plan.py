"""What a run will send and spend, as far as that is known before it starts; and whether it can run at all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bltybench.errors import UserError
from bltybench.scenario.arrivals.arrivals import schedule
from bltybench.scenario.capacity import CapacitySearch
from bltybench.scenario.cost import Tokens, least_tokens, mean_tokens, requests_per_arrival
from bltybench.scenario.target import Price, Target
from bltybench.scenario.workload import Scenario


@dataclass(frozen=True, slots=True)
class Plan:
    """The first attempts of every call, with answers as long as they may be. Retries come on top."""

    per_request: Tokens
    """Mean of one request."""
    requests: int | None
    """None in a closed loop: it sends as fast as it is answered."""
    price: Price | None
    """Of the scenario's model, where the target has one."""
    at_most: bool = False
    """A search: it sends so many at most, and mostly far fewer."""

    @property
    def prompt_tokens(self) -> int | None:
        """Of all requests."""
        return None if self.requests is None else round(self.requests * self.per_request.prompt)

    @property
    def answer_tokens(self) -> int | None:
        """Of all requests, at most."""
        return None if self.requests is None else round(self.requests * self.per_request.answer)

    @property
    def money(self) -> float | None:
        """What that costs at most; None where it is not known."""
        if self.requests is None or self.price is None:
            return None
        return self.requests * self.price.of(self.per_request.prompt, self.per_request.answer)

    def sentence(self) -> str:
        """Say what the run will send, for people who are about to start it."""
        each = self.per_request
        if self.requests is None:
            said = (
                "Sends as fast as it is answered; each request has about "
                f"{each.prompt:,.0f} prompt tokens and at most {each.answer:,.0f} of answer"
            )
            return said + (
                "" if self.price is None else f", {self.price.of(each.prompt, each.answer):.3g} at most"
            )
        how = "at most" if self.at_most else "about"
        said = (
            f"Will send {how} {self.requests:,} requests with {self.prompt_tokens:,} prompt tokens "
            f"and at most {self.answer_tokens:,} of answers"
        )
        return said + ("" if self.money is None else f", for {self.money:,.4g} at most")

    def exceeds(self, target: Target) -> list[str]:
        """Return the caps of the target's budget that the plan would pass, in words."""
        budget = target.budget
        tokens = None if self.requests is None else self.requests * self.per_request.total
        return [
            f"{cap:,} {unit}"
            for planned, cap, unit in (
                (self.requests, budget.requests, "requests"),
                (tokens, budget.tokens, "tokens"),
                (self.money, budget.money, "of money"),
            )
            if planned is not None and cap is not None and planned > cap
        ]


def make_plan(scenario: Scenario, target_name: str, target: Target, base_dir: Path) -> Plan:
    """Go through the whole schedule once and add up.

    Raises UserError for a mistake in a trace, a schedule without a single request, a money cap without a
    price, and a budget that does not suffice for one request.
    """
    least, plan = _count(scenario, target, base_dir)
    budget = target.budget
    if budget.money is not None and plan.price is None:
        raise UserError(
            f"model '{scenario.model}' has no price, and the budget is in money",
            where=f"targets.{target_name}.prices",
            remedy=f'add  [targets.{target_name}.prices."{scenario.model}"]\n'
            "      input_per_million = …\n"
            "      output_per_million = …",
        )
    if budget.tokens is not None and budget.tokens < least:
        raise UserError(
            f"{budget.tokens:,} tokens do not suffice for one request: the smallest has {least:,}",
            where=f"targets.{target_name}.budget.tokens",
            remedy="raise it, or ask for shorter prompts and answers",
        )
    if budget.money is not None and plan.price is not None:
        each = plan.price.of(plan.per_request.prompt, plan.per_request.answer)
        if budget.money < each:
            raise UserError(
                f"{budget.money:g} does not suffice for one request, which costs about {each:.3g}",
                where=f"targets.{target_name}.budget.money",
                remedy="raise it, or ask for shorter prompts and answers",
            )
    return plan


def _count(scenario: Scenario, target: Target, base_dir: Path) -> tuple[int, Plan]:
    """Return the fewest tokens of a request, and the plan."""
    price = target.prices.get(scenario.model)
    least = least_tokens(scenario, base_dir)
    mean = mean_tokens(scenario, base_dir)
    per_arrival = requests_per_arrival(scenario)
    each = Tokens(mean.prompt / per_arrival, mean.answer / per_arrival)
    if isinstance(scenario.arrivals, CapacitySearch):
        return least, Plan(each, scenario.arrivals.requests, price, at_most=True)
    if not scenario.is_open_loop:
        return least, Plan(each, None, price)
    names = [call.name for call in scenario.mix]
    arrivals = 0
    prompt = answer = 0.0
    recorded: int | None = None
    for arrival in schedule(scenario.arrivals, scenario.duration_s, scenario.seed, base_dir, names):
        arrivals += 1
        prompt += arrival.prompt_tokens or each.prompt
        answer += arrival.max_tokens or each.answer
        if arrival.prompt_tokens is not None and arrival.max_tokens is not None:
            size = arrival.prompt_tokens + arrival.max_tokens
            recorded = size if recorded is None else min(recorded, size)
    if arrivals == 0:
        raise UserError(
            f"nothing would be sent in {scenario.duration_s:g} s",
            where="the scenario's arrivals",
            remedy="raise the rate or duration_s",
        )
    if recorded is not None:
        return recorded, Plan(Tokens(prompt / arrivals, answer / arrivals), arrivals, price)
    return least, Plan(each, round(arrivals * per_arrival), price)
