"""The equal requests of the token experiment, and the exact size of a limit on used tokens."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from benchmarks.simulation.virtual_api import VirtualApi, virtual_limits
from bltybench.limits.experiments.results import with_role
from bltybench.limits.experiments.tokens_analysis import analyze
from bltybench.limits.experiments.tokens_roles import BATCHES, PARTS, RESIZED_UNIT, UNIT, equal_units, spent
from bltybench.limits.experiments.tokens_steps import steps
from bltybench.limits.observations.answer import Answer
from bltybench.limits.observations.probe_result import ProbeResult
from bltybench.limits.probe.context import ProbeContext
from bltybench.scenario.target import RateLimit

LIMIT = RateLimit(limit=4000, period_s=3.0)
UNITS = (UNIT, RESIZED_UNIT)
CONTEXT = ProbeContext(never_refused=True, tokens_left=3_000_000, expected_period_s=3.0)


def run_experiment(
    api: VirtualApi, context: ProbeContext = CONTEXT
) -> tuple[dict[str, Answer], list[ProbeResult]]:
    results = api.play(steps(context, api.now_s))
    return {answer.question: answer for answer in analyze(results, context)}, results


def used_tokens(
    seed: int, ttft_s: float, spoil: Callable[[int], tuple[int, str] | None] = lambda _: None
) -> VirtualApi:
    """Return an API that charges tokens when a response ends."""
    limits = virtual_limits(tokens=LIMIT, tokens_charged="used")
    api = VirtualApi(limits, seed=seed, ttft_s=ttft_s, latency_s=0.01, spoil=spoil)
    api.now_s += 0.7 * seed
    return api


@pytest.mark.parametrize(("seed", "ttft_s"), [(1, 0.01), (3, 0.2), (4, 0.2)])
def test_limit_on_used_tokens_is_exact_however_far_the_search_exceeded_it(seed: int, ttft_s: float) -> None:
    answers, _ = run_experiment(used_tokens(seed, ttft_s))
    bounds = answers["token_limit"].range
    assert bounds is not None
    assert bounds[0] <= 4000 <= bounds[1]
    assert bounds[1] - bounds[0] <= 200
    assert answers["token_period_s"].value == pytest.approx(3.0, rel=0.05)
    assert answers["tokens_charged_at"].value == "end"


def test_units_of_another_size_follow_if_few_fit() -> None:
    _, results = run_experiment(used_tokens(4, 0.2))
    sizes = {role: {unit.prompt_tokens // 10 for unit in with_role(results, role)} for role in UNITS}
    assert len(with_role(results, UNITS[0])) < 5
    assert max(sizes[UNITS[1]]) < min(sizes[UNITS[0]])
    assert equal_units(results) == with_role(results, UNITS[1])


def test_failed_measurement_of_the_exact_size_is_repeated() -> None:
    spoiled: set[str] = set()

    def spoil(_: int) -> tuple[int, str] | None:
        role = api.requests[-1].request.role
        if role not in {PARTS[0], BATCHES[0]} or role in spoiled:
            return None
        spoiled.add(role)
        return 500, "server_error"

    api = used_tokens(1, 0.01, spoil)
    answers, results = run_experiment(api)
    assert spoiled == {PARTS[0], BATCHES[0]}
    assert with_role(results, PARTS[1])
    assert with_role(results, BATCHES[1])
    bounds = answers["token_limit"].range
    assert bounds is not None
    assert bounds[1] - bounds[0] <= 200
    assert answers["tokens_charged_at"].value == "end"


def test_refused_units_use_no_tokens_of_the_budget() -> None:
    rule = RateLimit(limit=150_000, period_s=5.0)
    api = VirtualApi(virtual_limits(tokens=rule, tokens_charged="refunded"), latency_s=0.002, ttft_s=0.002)
    context = ProbeContext(never_refused=True, tokens_left=1_000_000)
    answers, results = run_experiment(api, context)
    units = equal_units(results)
    assert len(units) > context.tokens_left // units[0].prompt_tokens
    assert spent(results) <= context.tokens_left
    assert answers["token_period_s"].value == pytest.approx(5.0, rel=0.05)
