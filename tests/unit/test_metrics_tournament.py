from __future__ import annotations

from typing import Any

import msgspec
import pytest
from support_runs import attempt_at, audit_table, generator_seconds, manifest, table

from bltybench.metrics.analysis import Analysis, analyze
from bltybench.metrics.policy_choice import IntervalEstimate, Standing, TournamentResult, ranked, recommend
from bltybench.metrics.tournament import tournament_result
from bltybench.report.standings import standing_rows
from bltybench.runs.attempt import Attempt
from bltybench.runs.trials.tournament import PolicyStage, TournamentCourse
from bltybench.scenario.target import RateLimit, SandboxLimits

STAGE_S = 60.0
LIMITS = SandboxLimits(requests=RateLimit(limit=10, period_s=10), tokens=None, concurrency=None)


def course(*names: str, ended: str | None = "completed", **fields: Any) -> TournamentCourse:
    stages = [
        PolicyStage(
            stage=name,
            pause_s=10.0,
            pause_reason="the known limits have refilled by then",
            begin_s=100.0 * number,
            end_s=100.0 * number + STAGE_S,
            drained_s=100.0 * number + STAGE_S,
            sent=60,
            settled=True,
            no_free_user=0,
        )
        for number, name in enumerate(names)
    ]
    known: dict[str, Any] = {"limits": LIMITS.model_dump(mode="json"), "period_s": 10.0}
    policies = [*names, *(["never"] if ended is None else [])]
    return TournamentCourse(
        stage_s=STAGE_S, policies=policies, ended=ended, stages=stages, **(known | fields)
    )


def calls(
    stage: str, begin_s: float, *, every_s: float = 1.0, refused: int = 0, ok: bool = True
) -> list[Attempt]:
    """Return calls that are each refused ``refused`` times and then succeed, if they do."""
    rows = []
    for number in range(int(STAGE_S / every_s)):
        due_s = begin_s + number * every_s
        about: dict[str, Any] = {"stage": stage, "call_id": f"{stage}-{number}", "max_tokens": 5}
        about["wanted_prompt_tokens"] = 7
        for index in range(refused):
            waits = {"waited_s": 0.1} if ok or index < refused - 1 else {}
            rows.append(attempt_at(due_s + index / 10, "rate_limited", attempt=index, **about, **waits))
        if ok:
            rows.append(attempt_at(due_s + refused / 10, attempt=refused, **about))
    return rows


def analyzed(*attempts: Attempt, **fields: Any) -> Analysis:
    arrivals = {
        "kind": "tournament",
        "policies": ["none", "openai"],
        "calls": {"kind": "constant", "rate_per_min": 60},
        "stage_s": STAGE_S,
    }
    resolved = manifest().resolved | {"arrivals": arrivals, "duration_s": 300.0, "retry": {}, "checks": {}}
    seconds = generator_seconds(200, **fields)
    return analyze(table(*attempts), audit_table(seconds), manifest(resolved=resolved, ended_ns=200 * 10**9))


def result(analysis: Analysis, played: TournamentCourse) -> TournamentResult:
    found = tournament_result(analysis, played)
    assert found is not None
    return found


def test_policies_are_compared_by_their_own_calls() -> None:
    analysis = analyzed(*calls("fixed", 0.0, refused=1), *calls("none + even", 100.0))
    found = result(analysis, course("fixed", "none + even"))
    best, second = found.standings
    assert (best.policy, best.rank, second.policy, second.rank) == ("none + even", 1, "fixed", 2)
    assert best.goodput_per_min == second.goodput_per_min == IntervalEstimate(60, 60, 60)
    assert (best.refusals_per_success, second.refusals_per_success) == (
        IntervalEstimate(0, 0, 0),
        IntervalEstimate(1, 1, 1),
    )
    assert (best.calls, best.ok, best.gave_up, best.cut_off) == (60, 60, 0, 0)
    assert (best.wasted_tokens, second.wasted_tokens) == (0, 60 * 7)
    assert best.success_p50_s is not None
    assert best.success_p50_s.value == pytest.approx(0.02)
    assert best.success_p95_s is None  # too few calls
    assert best.makespan_s == pytest.approx(59.02)
    assert best.below_optimum_percent == pytest.approx(0)
    assert found.recommended == "none + even"
    assert found.recommendation == (
        "Use none + even: of the 2 policies whose goodput and success rate can't be distinguished, it has "
        "the fewest refusals per success, 0 (0 to 0). The next is fixed, with 1 (1 to 1)."
    )
    rows = standing_rows(found)
    assert rows[0][:4] == ["none + even", "1", "60.0 (60.0 to 60.0)", "60 of 60"]


def test_policy_whose_calls_give_up_is_below_the_optimum() -> None:
    failing = [*calls("none", 0.0)[:30], *calls("none", 0.0, refused=1, ok=False)[30:]]
    found = result(analyzed(*failing, *calls("openai", 100.0)), course("none", "openai"))
    none = found.standings[1]
    assert (none.policy, none.ok, none.gave_up) == ("none", 30, 30)
    assert none.below_optimum_percent == pytest.approx(50)
    assert none.ok_share.value == 0.5


def test_policies_whose_intervals_overlap_are_not_decided() -> None:
    analysis = analyzed(*calls("none", 0.0), *calls("openai", 100.0))
    found = result(analysis, course("none", "openai"))
    assert [one.rank for one in found.standings] == [1, 1]
    assert found.recommended is None
    assert found.recommendation.startswith("Not decided between none, openai: their intervals overlap.")


def test_invalid_run_recommends_nothing() -> None:
    analysis = analyzed(
        *calls("none", 0.0), *calls("openai", 100.0, refused=1), stall_us=900_000, cpu_share=1.0
    )
    found = result(analysis, course("none", "openai"))
    assert (found.recommended, found.recommendation[:27]) == (None, "Not decided: the rates of t")


def test_invalid_call_latency_leaves_the_other_criteria() -> None:
    slow = msgspec.structs.replace(
        standing("slow", (60, 55, 65), 0.5), success_p95_s=IntervalEstimate(9, 8, 10)
    )
    fast = msgspec.structs.replace(slow, policy="fast", success_p95_s=IntervalEstimate(2, 1, 3))
    assert [one.rank for one in ranked([slow, fast])] == [1, 2]
    assert [one.rank for one in ranked([slow, fast], timed=False)] == [1, 1]
    assert recommend([slow, fast], course("slow", "fast"), valid=True)[1] == "fast"
    assert recommend([slow, fast], course("slow", "fast"), valid=True, timed=False)[1] is None


def test_a_batch_has_no_intervals_so_nothing_is_decided() -> None:
    one = calls("none", 0.0)[:1] * 1
    batch = [*one, *calls("openai", 100.0, refused=1)[:2]]
    found = result(analyzed(*batch), course("none", "openai"))
    by_name = {standing.policy: standing for standing in found.standings}
    assert by_name["none"].refusals_per_success == IntervalEstimate(0, None, None)
    assert found.recommended is None


def test_unknown_limits_leave_the_distance_from_the_optimum_unknown() -> None:
    analysis = analyzed(*calls("none", 0.0), *calls("openai", 100.0))
    found = result(analysis, course("none", "openai", limits=None, period_s=None))
    assert [one.below_optimum_percent for one in found.standings] == [None, None]


@pytest.mark.parametrize(("remaining", "recovered"), [(9, True), (4, False), (None, None)])
def test_first_response_shows_whether_the_limits_had_refilled(
    remaining: int | None, recovered: bool | None
) -> None:
    first, *rest = calls("none", 0.0)
    announced: dict[str, Any] = {}
    if remaining is not None:
        announced = {"limit_requests": 10, "remaining_requests": remaining}
    shown = attempt_at(0.0, stage="none", call_id=first.call_id, **announced)
    found = result(analyzed(shown, *rest, *calls("openai", 100.0)), course("none", "openai"))
    by_name = {standing.policy: standing for standing in found.standings}
    assert by_name["none"].recovered is recovered
    assert ("The limits had not refilled before none." in found.recommendation) == (recovered is False)


def standing(policy: str, goodput: tuple[float, float, float], refusals: float) -> Standing:
    return Standing(
        policy=policy,
        rank=1,
        calls=9,
        ok=9,
        gave_up=0,
        cut_off=0,
        goodput_per_min=IntervalEstimate(*goodput),
        ok_share=IntervalEstimate(1, 1, 1),
        refusals_per_success=IntervalEstimate(refusals, refusals, refusals),
        success_p50_s=None,
        success_p95_s=None,
        success_p99_s=None,
        wasted_tokens=0,
        makespan_s=1,
        recovered=None,
        no_free_user=0,
    )


def test_fewer_refusals_do_not_make_up_for_a_lower_goodput() -> None:
    found = ranked(
        [
            standing("slow", (30, 28, 32), 0.0),
            standing("fast", (60, 55, 65), 0.9),
            standing("also fast", (58, 53, 63), 0.5),
        ]
    )
    assert [(one.policy, one.rank) for one in found] == [("also fast", 1), ("fast", 2), ("slow", 3)]


def test_unfinished_tournament_says_so() -> None:
    nothing, why = "Not decided: there is nothing to compare.", "their turn: the run was stopped."
    alone = recommend([standing("none", (1, 1, 1), 0)], course("none", ended=None), valid=True)
    assert alone == (f"{nothing} Only 1 of 2 policies had {why}", None)
    assert recommend([], course(ended=None), valid=True) == (
        f"{nothing} Only 0 of 1 policies had {why}",
        None,
    )
