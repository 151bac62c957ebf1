from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from bltybench.scenario.trials.tournament import Competitor, competitor
from bltybench.scenario.workload import Scenario

CALLS = {"kind": "bursts", "size": 5, "every_s": 60}
ARRIVALS = {"kind": "tournament", "policies": ["none", "openai+limiter"], "calls": CALLS, "stage_s": 4}


def scenario(arrivals: dict[str, Any] | None = None, **changes: Any) -> Scenario:
    document = {"title": "t", "model": "m", "duration_s": 60, "users": 9, "mix": [{"name": "chat"}]}
    return Scenario.model_validate(document | {"arrivals": ARRIVALS | (arrivals or {})} | changes)


def test_policies_are_named_by_retries_and_pacing() -> None:
    assert competitor(" openai + limiter ") == Competitor("openai", "limiter")
    assert scenario().arrivals.policies == ("none", "openai + limiter")  # type: ignore[union-attr]
    assert scenario().pacings == {"none", "limiter"}


@pytest.mark.parametrize(
    ("arrivals", "changes", "message"),
    [
        ({"policies": ["none", "opnai"]}, {}, "'opnai' is no retry policy: use none, fixed"),
        ({"policies": ["none", "none + evn"]}, {}, "'evn' is no pacing: use none, token_bucket"),
        ({"policies": ["none", "none +"]}, {}, "'' is no pacing"),
        ({"policies": ["none"]}, {}, "at least 2 items"),
        ({"policies": ["none + even", "none+even"]}, {}, "policies has 'none \\+ even' twice"),
        ({"calls": {"kind": "closed"}}, {}, "does not match any of the expected tags"),
        ({}, {"duration_s": 7}, "duration_s must be 8 or more: stage_s for each of the policies"),
        ({}, {"warm_up_calls": 1}, "every call of a tournament counts"),
        ({}, {"mix": [{"name": "chat", "turns": {}}]}, "its mix can't have turns"),
        ({}, {"retry": {"policy": "fixed"}}, "remove pacing and retry.policy"),
        ({}, {"pacing": {"policy": "even"}}, "remove pacing and retry.policy"),
    ],
)
def test_tournaments_that_make_no_sense_are_errors(
    arrivals: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        scenario(arrivals, **changes)


def test_each_policy_gets_the_calls_of_one_stage() -> None:
    one = scenario().of_one_policy()
    assert (one.arrivals.kind, one.duration_s) == ("bursts", 4)
    assert one.of_one_policy() is one
