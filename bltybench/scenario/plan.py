"""The plan of a run: what it will send and spend, and whether it can start."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from bltybench.errors import UserError
from bltybench.scenario.api.weights import fraction
from bltybench.scenario.arrivals.arrivals import expected_arrivals, schedule
from bltybench.scenario.cost import Tokens, least_tokens, mean_choices, mean_tokens, requests_per_arrival
from bltybench.scenario.prompts.request_files import require_bounds, without_bounds
from bltybench.scenario.target import Price, Target
from bltybench.scenario.trials.capacity import CapacitySearch
from bltybench.scenario.trials.tournament import Tournament
from bltybench.scenario.workload import Scenario
from bltybench.text import sanitize

MAX_ARRIVALS = 100_000_000
"""Maximum requests of a drawn schedule. Going through as many takes a minute or more in every process."""


@dataclass(frozen=True, slots=True)
class Plan:
    """First attempts of all calls, with completions as long as allowed. Retries are not included."""

    per_request: Tokens
    """Mean tokens of one request."""
    requests: int | None
    """None for a closed loop, which sends as fast as it receives responses."""
    price: Price | None
    """Mean price of the scenario's models, if the target has that of each."""
    at_most: bool = False
    """Whether a search: ``requests`` is then its cap, and it usually sends far fewer."""
    unbounded: str | None = None
    """Which bodies have no bound of their completion, so that there is none for the run; None if all have."""

    @property
    def prompt_tokens(self) -> int | None:
        """Total prompt tokens."""
        return None if self.requests is None else round(self.requests * self.per_request.prompt)

    @property
    def answer_tokens(self) -> int | None:
        """Maximum total completion tokens."""
        return None if self.requests is None else round(self.requests * self.per_request.answer)

    @property
    def money(self) -> float | None:
        """Maximum total cost. None if unknown."""
        if self.requests is None or self.price is None:
            return None
        return self.requests * self.price.of(self.per_request.prompt, self.per_request.answer)

    def sentence(self) -> str:
        """Return what the run will send, as shown before it starts."""
        request = self.per_request
        if self.unbounded is not None:
            return self._without_bound(self.unbounded)
        if self.requests is None:
            text = (
                "Closed loop: sends as fast as it receives responses. Each request has about "
                f"{request.prompt:,.0f} prompt tokens and at most {request.answer:,.0f} completion tokens"
            )
            cost = (
                "" if self.price is None else f", at most {self.price.of(request.prompt, request.answer):.3g}"
            )
            return text + cost
        text = (
            f"Sends {'at most' if self.at_most else 'about'} {self.requests:,} requests with "
            f"{self.prompt_tokens:,} prompt tokens and at most {self.answer_tokens:,} completion tokens"
        )
        return text + ("" if self.money is None else f", for at most {self.money:,.4g}")

    def _without_bound(self, which: str) -> str:
        prompt = self.per_request.prompt
        text = f"Closed loop: sends as fast as it receives responses. Each request has about {prompt:,.0f}"
        if self.requests is not None:
            text = f"Sends {'at most' if self.at_most else 'about'} {self.requests:,} requests with "
            text += f"{self.prompt_tokens:,}"
        cost = "" if self.price is None else " or the cost"
        return (
            f"{text} prompt tokens. Nothing bounds the completion tokens{cost}: {which} have neither "
            "max_tokens nor max_completion_tokens"
        )

    def exceeds(self, target: Target) -> list[str]:
        """Return the caps of the target's budget that the plan would exceed, as text."""
        budget = target.budget
        tokens = None if self.requests is None else self.requests * self.per_request.total
        caps = (
            (self.requests, budget.requests, "requests"),
            (tokens, budget.tokens, "tokens"),
            (self.money, budget.money, "of money"),
        )
        return [
            f"{cap:,} {unit}"
            for planned, cap, unit in caps
            if planned is not None and cap is not None and planned > cap
        ]

    def leaves(self, target: Target, *, requests: int, tokens: int) -> bool:
        """Return whether the target's budget has room for more than the plan; never if it caps money."""
        budget = target.budget
        if budget.money is not None:
            return False
        if budget.requests is None and budget.tokens is None:
            return True
        if self.requests is None:
            return False
        room = (
            (self.requests + requests, budget.requests),
            (self.requests * self.per_request.total + tokens, budget.tokens),
        )
        return all(cap is None or needed <= cap for needed, cap in room)


Plans = Mapping[str, Plan | None]
"""Plans by target; None for one that gets only calls that fail elsewhere."""


def make_plans(name: str, scenario: Scenario, targets: Mapping[str, Target], base_dir: Path) -> Plans:
    """Return the plan of each target's expected part of the load. Raise UserError as ``make_plan``."""
    if len(targets) == 1:
        return {one: make_plan(name, scenario, one, target, base_dir) for one, target in targets.items()}
    plans: dict[str, Plan | None] = {}
    for target_name, target in targets.items():
        part, share = _part_of(scenario, target_name)
        plan = make_plan(name, part, target_name, target, base_dir) if share else None
        if plan is not None and plan.requests is not None:
            plan = replace(plan, requests=round(plan.requests * share))
        plans[target_name] = plan
    return plans


def _part_of(scenario: Scenario, target: str) -> tuple[Scenario, float]:
    """Return the calls that a target gets, and their expected fraction of all calls."""
    weights = [
        (call, call.weight * fraction(scenario.choices(call).targets, target)) for call in scenario.mix
    ]
    mix = tuple(call.model_copy(update={"weight": weight}) for call, weight in weights if weight)
    total = sum(call.weight for call in scenario.mix)
    return scenario.model_copy(update={"mix": mix}), sum(weight for _, weight in weights) / total


def make_plan(name: str, scenario: Scenario, target_name: str, target: Target, base_dir: Path) -> Plan:
    """Iterate over the whole schedule of the scenario ``name`` once and sum it.

    Raise UserError for a missing mix, an invalid trace, a schedule without requests, a money cap without a
    price, or a budget that can't cover one request.
    """
    if not scenario.mix:
        raise UserError(
            "the scenario has no mix, so there is nothing to replay",
            where=f"scenarios.{name}.mix",
            remedy="add calls to its mix, or run it with user classes that derive from ChatUser",
        )
    require_bounds(name, scenario, target, base_dir)
    smallest, plan = _count(name, scenario, target, _mean_price(scenario, target), base_dir)
    plan = replace(plan, unbounded=without_bounds(scenario, base_dir))
    budget = target.budget
    if budget.money is not None and plan.price is None:
        names = [target.model_name(model) for model in scenario.models_on(target_name)]
        model = sanitize(next(model for model in names if model not in target.prices))
        raise UserError(
            f"model '{model}' has no price, but the budget caps money",
            where=f"targets.{target_name}.prices",
            remedy=f'add  [targets.{target_name}.prices."{model}"]\n'
            "      input_per_million = …\n"
            "      output_per_million = …",
        )
    too_low = None
    if budget.tokens is not None and budget.tokens < smallest:
        too_low = (
            "tokens",
            f"{budget.tokens:,} tokens can't cover one request: the smallest needs {smallest:,}",
        )
    elif budget.money is not None and plan.price is not None:
        cost = plan.price.of(plan.per_request.prompt, plan.per_request.answer)
        if budget.money < cost:
            too_low = "money", f"{budget.money:g} can't cover one request, which costs about {cost:.3g}"
    if too_low:
        cap, what = too_low
        remedy = "raise it, or request shorter prompts and completions"
        raise UserError(what, where=f"targets.{target_name}.budget.{cap}", remedy=remedy)
    return plan


def _mean_price(scenario: Scenario, target: Target) -> Price | None:
    """Return the mean price of the models, by how often each is chosen; None if that of one is unknown."""
    shares: dict[str, float] = {}
    for call in scenario.mix:
        models = scenario.choices(call).models
        for model in models:
            own = target.model_name(model)
            shares[own] = shares.get(own, 0.0) + call.weight * fraction(models, model)
    if not shares.keys() <= target.prices.keys():
        return None
    total = sum(shares.values())
    parts = [(share / total, target.prices[model]) for model, share in shares.items()]
    return Price(
        input_per_million=sum(share * price.input_per_million for share, price in parts),
        output_per_million=sum(share * price.output_per_million for share, price in parts),
    )


def _count(
    name: str, scenario: Scenario, target: Target, price: Price | None, base_dir: Path
) -> tuple[int, Plan]:
    """Return the smallest number of tokens of a request, and the plan."""
    smallest = least_tokens(scenario, base_dir, target)
    mean = mean_tokens(scenario, base_dir, target)
    per_arrival, per_answer = requests_per_arrival(scenario), mean_choices(scenario, target)
    per_request = Tokens(mean.prompt / per_arrival, mean.answer / per_arrival)
    if isinstance(scenario.arrivals, Tournament):
        smallest, one = _count(name, scenario.of_one_policy(), target, price, base_dir)
        return smallest, replace(one, requests=(one.requests or 0) * len(scenario.arrivals.policies))
    if isinstance(scenario.arrivals, CapacitySearch):
        return smallest, Plan(per_request, scenario.arrivals.requests, price, at_most=True)
    if not scenario.is_open_loop:
        return smallest, Plan(per_request, None, price)
    if expected_arrivals(scenario.arrivals, scenario.duration_s) > MAX_ARRIVALS:
        raise UserError(
            f"more than {MAX_ARRIVALS:,} requests would be sent in {scenario.duration_s:g} s",
            where=f"scenarios.{name}.arrivals",
            remedy="lower the rate or duration_s",
        )
    # Recorded bodies keep their own lengths.
    has_lengths = not any(call.requests for call in scenario.mix)
    names = [call.name for call in scenario.mix]
    arrivals = 0
    prompt = answer = 0.0
    recorded: int | None = None
    for arrival in schedule(scenario.arrivals, scenario.duration_s, scenario.seed, base_dir, names):
        arrivals += 1
        if not has_lengths:
            continue
        prompt += arrival.prompt_tokens or per_request.prompt
        answer += arrival.max_tokens * per_answer if arrival.max_tokens else per_request.answer
        if arrival.prompt_tokens is not None and arrival.max_tokens is not None:
            size = arrival.prompt_tokens + round(arrival.max_tokens * per_answer)
            recorded = size if recorded is None else min(recorded, size)
    if arrivals == 0:
        raise UserError(
            f"nothing would be sent in {scenario.duration_s:g} s",
            where=f"scenarios.{name}.arrivals",
            remedy="raise the rate or duration_s",
        )
    if recorded is not None:
        return recorded, Plan(Tokens(prompt / arrivals, answer / arrivals), arrivals, price)
    return smallest, Plan(per_request, round(arrivals * per_arrival), price)
