"""The judgment of probes against limiters of other projects, and the list of these limiters."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.limiters import page
from benchmarks.limiters.api import CHAT, KEYS, LIST, reply
from benchmarks.limiters.catalog import LIMITERS
from benchmarks.limiters.gateways import GATEWAYS
from benchmarks.limiters.judge import judge, judge_answer, replay_passed
from benchmarks.limiters.page import Probed
from benchmarks.limiters.python_limiters import MAKE
from benchmarks.limiters.truth import DEFAULTS, Limiter, Setting
from bltybench.limits.findings.model import (
    AnnouncedRecord,
    AnswerRecord,
    BusiestRecord,
    DocumentedRecord,
    FindingsRecord,
    FitRecord,
    HeaderRecord,
    ProportionRecord,
    Value,
)
from bltybench.limits.observations.answer import SUBJECTS

SETTING = Setting(8, 4)
WINDOW = Limiter("w", "PyPI", "p", "s", ("first_hit_window",), settings=(SETTING, SETTING))
NO_PROPORTION = ProportionRecord(count=0, of=0, interval=None)


def fit(
    family: str = "first_hit_window", limit: int = 8, period_s: float = 4.0, width: float = 0.01
) -> FitRecord:
    return FitRecord(
        family=family,
        limit=limit,
        limit_range=(limit, limit),
        period_s=period_s,
        period_range_s=(period_s * (1 - width), period_s * (1 + width)),
        rate_per_min=60 * limit / period_s,
        phase=None,
        phase_s=None,
        ticks=None,
        count_refused=None,
        contradictions=0,
    )


def found(*fits: FitRecord, **changes: Any) -> FindingsRecord:
    fields: dict[str, Any] = {
        "run_id": "r",
        "status": "found" if len(fits) == 1 else "ambiguous" if fits else "unknown",
        "reason": None,
        "confidence": None,
        "attempts": 100,
        "accepted": 60,
        "refused": 40,
        "refusal_status": 429,
        "documented": DocumentedRecord(requests_per_min=None),
        "announced": AnnouncedRecord(limit=None, dialect=None),
        "observed": fits[0] if fits else None,
        "consistent": fits,
        "rejected": (),
        "busiest_minute": BusiestRecord(accepted=60, at=None),
        "headers": HeaderRecord(
            remaining_steps=NO_PROPORTION,
            retry_enough=NO_PROPORTION,
            retry_early=NO_PROPORTION,
            without_retry_after=NO_PROPORTION,
        ),
        "says": (),
    }
    return FindingsRecord(**(fields | changes))


def answer(
    value: Value, bounds: tuple[float, float | None] | None = None, *, question: str = "q"
) -> AnswerRecord:
    return AnswerRecord(
        question=question, value=value, range=bounds, confidence=None, evidence=(), reason=None, says=""
    )


def limit_judgment(result: FindingsRecord, limiter: Limiter = WINDOW) -> str:
    return judge(result, limiter, SETTING)[0].judged


def test_right_family_with_right_limit_and_period_is_right() -> None:
    assert limit_judgment(found(fit())) == "right"


@pytest.mark.parametrize(
    "wrong", [fit("sliding_log"), fit(limit=9), fit(period_s=5.0)], ids=["family", "limit", "period"]
)
def test_other_family_limit_or_period_is_wrong(wrong: FitRecord) -> None:
    assert limit_judgment(found(wrong)) == "wrong"


def test_no_family_several_with_the_right_one_or_a_wide_range_is_abstained() -> None:
    assert limit_judgment(found()) == "abstained"
    assert limit_judgment(found(fit(), fit("fixed_window"))) == "abstained"
    assert limit_judgment(found(fit(width=0.3))) == "abstained"


def test_several_families_without_the_right_one_are_wrong() -> None:
    assert limit_judgment(found(fit("sliding_log"), fit("token_bucket"))) == "wrong"


def test_late_window_is_right_up_to_its_longest_period() -> None:
    late = replace(WINDOW, max_late=0.0625)
    assert limit_judgment(found(fit(period_s=4.25)), late) == "right"
    assert limit_judgment(found(fit(period_s=4.6)), late) == "wrong"


def test_family_of_an_unmodeled_limiter_is_right_only_if_it_repeats_the_decisions() -> None:
    unmodeled = replace(WINDOW, families=())
    good, bad = (ProportionRecord(count=count, of=100, interval=None) for count in (99, 98))
    assert limit_judgment(found(), unmodeled) == "abstained"
    assert limit_judgment(found(fit(), replayed=good), unmodeled) == "right"
    assert limit_judgment(found(fit(), replayed=bad), unmodeled) == "wrong"


def test_any_rate_is_wrong_if_there_is_only_a_concurrency_limit() -> None:
    slots = replace(WINDOW, families=(), concurrency=True)
    assert limit_judgment(found(), slots) == "right"
    assert limit_judgment(found(fit()), slots) == "wrong"
    assert slots.accepted("concurrency_limit", SETTING) == (8,)


def test_status_of_refusals_is_judged_if_there_were_any() -> None:
    assert [one.judged for one in judge(found(fit(), refusal_status=503), WINDOW, SETTING)] == [
        "right",
        "wrong",
    ]
    assert len(judge(found(fit(), refused=0), WINDOW, SETTING)) == 1


@pytest.mark.parametrize(
    ("value", "accepted", "judged"),
    [
        (True, (True,), "right"),
        (False, (True,), "wrong"),
        (None, (True,), "abstained"),
        (None, (None,), "right"),
        (8, (None,), "wrong"),
        (1, (True,), "wrong"),
        ("honest", ("honest", "too_short"), "right"),
        ("too_long", ("honest", "too_short"), "wrong"),
        (3, (3,), "right"),
        (4, (3,), "wrong"),
        (True, (1,), "wrong"),
    ],
)
def test_answer_is_judged_by_the_values_that_are_right(
    value: Value, accepted: tuple[Value, ...], judged: str
) -> None:
    assert judge_answer(answer(value), accepted) == judged


def test_number_is_judged_by_its_range() -> None:
    assert judge_answer(answer(8, (8, 9)), (8,)) == "right"
    assert judge_answer(answer(8, (5, 9)), (8,)) == "abstained"
    assert judge_answer(answer(5, (5, None)), (8,)) == "abstained"
    assert judge_answer(answer(10, (9, 11)), (8,)) == "wrong"


def test_replay_passes_from_99_percent() -> None:
    def replayed(count: int, of: int) -> bool | None:
        return replay_passed(found(replayed=ProportionRecord(count=count, of=of, interval=None)))

    assert (replayed(99, 100), replayed(989, 1000)) == (True, False)
    assert replay_passed(found()) is None


def test_page_counts_answers_and_lists_those_that_are_wrong() -> None:
    nothing = answer(None, question="token_limit")
    replayed = ProportionRecord(count=9, of=10, interval=None)
    result = found(fit("sliding_log"), replayed=replayed, answers=(nothing,))
    probed = Probed(
        limiter=WINDOW,
        setting=SETTING,
        judged=tuple(judge(result, WINDOW, SETTING)),
        requests=100,
        seconds=60.0,
        replayed=result.replayed,
        replay_passed=replay_passed(result),
        stopped=None,
    )
    text = page.page([probed])
    assert "All answers: right 2, abstained 0, wrong 1." in text
    assert "If there was something to find: right 1, abstained 0, wrong 1." in text
    assert "| w | 8 per 4 s | wrong | found: 8 per 4 s, sliding log | 2 |  | 1 | 90% | 100 | 60 |" in text
    assert "| w (8 per 4 s) | request_limit | 8 per 4 s, first hit window |" in text
    assert page.details([probed]).splitlines()[-1] == "REPLAY w (8 per 4 s): 90%"


def test_every_limiter_has_a_server_and_known_questions() -> None:
    node = (Path(page.__file__).parent / "node_limiters.mjs").read_text()
    for limiter in LIMITERS:
        served = {"PyPI": limiter.name in MAKE, "npm": f'"{limiter.name}": ' in node}
        assert served.get(limiter.registry, limiter.name in GATEWAYS), limiter.name
        assert set(limiter.answers) <= set(DEFAULTS), limiter.name
    assert set(DEFAULTS) == set(SUBJECTS)
    assert len({limiter.name for limiter in LIMITERS}) == len(LIMITERS)
    assert len({limiter.package for limiter in LIMITERS}) >= 20


def test_pinned_packages_have_no_registry_address() -> None:
    folder = Path(page.__file__).parent
    lock = json.loads((folder / "package-lock.json").read_text())
    assert not [name for name, package in lock["packages"].items() if "resolved" in package]
    lines = [line for line in (folder / "requirements.txt").read_text().splitlines() if line[0] != "#"]
    assert all("==" in line and "/" not in line for line in lines)


def test_chat_api_answers_good_and_invalid_requests() -> None:
    def status(authorization: str, body: object) -> int:
        return reply("POST", CHAT, authorization, json.dumps(body).encode()).status

    good = {"model": "deepseek-chat", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
    key = f"Bearer {KEYS[0]}"
    assert status(key, good) == 200
    assert status("Bearer sk-other", good) == 401
    assert status(key, good | {"messages": []}) == 400
    assert status(key, good | {"model": "other"}) == 404
    assert reply("GET", LIST, key, b"").status == 200
    streamed = reply("POST", CHAT, key, json.dumps(good | {"stream": True}).encode())
    assert len(streamed.chunks) == 3
    assert streamed.chunks[-1].endswith(b"data: [DONE]\n\n")
