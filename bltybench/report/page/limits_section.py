"""The page's section on rate limits: documented, announced and observed, the evidence, and what to do."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from bltybench.limits.findings.conclude import find
from bltybench.limits.findings.narrative import NAMES
from bltybench.limits.observations.evidence import Row
from bltybench.metrics.limiter import TELLING, decisions, maker_of, telling
from bltybench.report.figures.drawing import Drawing
from bltybench.report.figures.limits import Named, draw_all
from bltybench.runs.folder import RunFolder
from bltybench.runs.manifest import TargetInfo
from bltybench.runs.store import ATTEMPT_SCHEMA, attempt_columns

MOST = 2000
"""Attempts in a row that are looked at: a probe's whole record, and of a long run what tells most."""
SUREST = 0.9999
"""Nothing is shown as certain."""
EXPERIMENT = "probe: "
"""Before the stage of attempts that a probe sent to learn of something else than the limit of requests."""
NOTHING = "–"
UNKNOWN = "cannot tell"


@dataclass(frozen=True, slots=True)
class Answered:
    """One question about the limits and what came of it, whatever it was about."""

    question: str
    answer: str
    confidence: float | None
    evidence: list[str]


@dataclass(frozen=True, slots=True)
class LimitsSection:
    """What is known of the limits that a run met."""

    probed: bool
    """Whether a probe asked; else it is what an ordinary run implies."""
    found: bool
    """Whether one family of limiters is left that explains what was seen."""
    attempts: int
    confidence: float | None
    says: list[str]
    advice: list[str]
    rows: list[tuple[str, str, str, str]]
    """What, documented, announced, observed."""
    answers: list[Answered]
    rejected: list[tuple[str, int]]
    """Families that do not explain the run, and how many decisions contradict each."""
    drawings: list[Drawing]


def limits_section(folder: RunFolder) -> LimitsSection | None:
    """Read what a probe left in ``limits.json``, or work out what the run implies; None of an empty run."""
    manifest = folder.manifest()
    others = set(ATTEMPT_SCHEMA.names) - set(TELLING)
    chosen = telling(pa.table(dict(attempt_columns(folder, without=others))), MOST)
    # A column after another: of a long run only the rows that are looked at are held.
    columns = attempt_columns(folder, without={"gaps_us"})
    rows = pa.table({name: column.take(chosen) for name, column in columns}).to_pylist()
    if not rows:
        return None
    start_s = manifest.clock.wall_ns / 1e9
    stored = _stored(folder)
    section = None if stored is None else _section(stored, rows, manifest.target, start_s, probed=True)
    if section is not None:
        return section
    # Nothing was asked: what the headers turned out to be is among the sentences and in the figures.
    found = find(rows, start_s, manifest.target.requests_per_min).to_dict() | {"answers": []}
    return _section(found, rows, manifest.target, start_s, probed=False)


def _stored(folder: RunFolder) -> dict[str, Any] | None:
    try:
        found = json.loads((folder.path / "limits.json").read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _section(
    found: Mapping[str, Any], rows: Sequence[Row], target: TargetInfo, start_s: float, *, probed: bool
) -> LimitsSection | None:
    """Return the section, or None where ``found`` is damaged."""
    try:
        observed = found["observed"]
        answers = _answers(found.get("answers", []))
        slots = found.get("in_flight") if observed is None else None
        # Other experiments of a probe ask about other limits.
        own = [row for row in rows if not str(row["stage"]).startswith(EXPERIMENT)]
        decided = decisions(own, start_s, maker_of(observed), slots and int(slots["limit"]))
        return LimitsSection(
            probed=probed,
            found=found["status"] == "found",
            attempts=int(found["attempts"]),
            confidence=None if found["confidence"] is None else min(float(found["confidence"]), SUREST),
            # What the answers say stands beside their evidence.
            says=[str(line) for line in found["says"] if line not in {each.answer for each in answers}],
            advice=[str(line) for line in found.get("advice", [])],
            rows=_rows(found, rows, target),
            answers=answers,
            rejected=[(_name(each), int(each["contradictions"])) for each in found["rejected"]],
            drawings=draw_all(decided, _named(found)),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _named(found: Mapping[str, Any]) -> Named | None:
    observed, slots = found["observed"], found.get("in_flight")
    if observed is None and slots:
        return Named(f"a limit of {slots['limit']} in flight", sure=True)
    if maker_of(observed) is None:
        return None
    return Named(f"a {NAMES[observed['family']]}", sure=found["status"] == "found")


def _rows(
    found: Mapping[str, Any], rows: Sequence[Row], target: TargetInfo
) -> list[tuple[str, str, str, str]]:
    documented, announced, observed = target.requests_per_min, found["announced"]["limit"], found["observed"]
    limit = ("Requests", f"{documented} a minute" if documented else NOTHING, _or_nothing(announced))
    resets = [row["reset_requests_s"] for row in rows if row["reset_requests_s"] is not None]
    period = (
        "Period",
        "60 s" if documented else NOTHING,
        f"resets up to {max(resets):.3g} s away" if resets else NOTHING,
    )
    if observed is None:
        table = [(*limit, _without_fit(found)), (*period, UNKNOWN)]
    else:
        table = [
            (*limit, _limit(observed)),
            (*period, _period(observed)),
            ("In the long run", limit[1], NOTHING, f"{observed['rate_per_min']:g} a minute"),
            ("Algorithm", NOTHING, NOTHING, _algorithm(found)),
            ("Windows begin with", NOTHING, NOTHING, _aligned(found)),
            ("Refused requests count", NOTHING, NOTHING, _counted(found)),
        ]
    table += _honesty(found)
    tokens = [row["limit_tokens"] for row in rows if row["limit_tokens"] is not None]
    common = Counter(tokens).most_common(1)[0][0] if tokens else None
    if target.tokens_per_min or tokens:
        per_min = f"{target.tokens_per_min:,} a minute" if target.tokens_per_min else NOTHING
        table.append(("Tokens", per_min, _or_nothing(common), _asked(found, "token")))
    slots = found.get("in_flight")
    if target.concurrency or slots:
        most = _span("at most", *slots["limit_range"]) if slots else _asked(found, "concurren")
        table.append(("In flight", _or_nothing(target.concurrency), NOTHING, most))
    return [row for row in table if set(row[1:]) != {NOTHING}]


ALIGNED = {"clock": "the clock", "first_hit": "the first request", "other": "neither clock nor requests"}
COUNTED = {True: "yes", False: "no", None: UNKNOWN}


def _counted(found: Mapping[str, Any]) -> str:
    """Say whether refused requests count: by the algorithm, or where that leaves it open, as asked."""
    by_fit = found["observed"]["count_refused"]
    asked = (each["value"] for each in found["answers"] if each["question"] == "refused_counts")
    return COUNTED[next(asked, None) if by_fit is None else by_fit]


def _limit(observed: Mapping[str, Any]) -> str:
    least, most = observed["limit_range"]
    bucket = observed["family"] == "token_bucket"
    said = (
        f"bursts of {observed['limit']}" if bucket else f"{observed['limit']} in {observed['period_s']:.4g} s"
    )
    return said if least == most else f"{said} ({least} to {most})"


def _span(before: str, least: int, most: int) -> str:
    return f"{before} {least}" if least == most else f"{before} {least} to {most}"


def _period(observed: Mapping[str, Any]) -> str:
    least, most = observed["period_range_s"]
    filled = " to fill it" if observed["family"] == "token_bucket" else ""
    return f"{observed['period_s']:.4g} s{filled} ({least:.4g} to {most:.4g})"


def _without_fit(found: Mapping[str, Any]) -> str:
    if found["status"] == "never_refused":
        return f"at least {found['busiest_minute']['accepted']} in 60 s"
    return "all refused" if found["status"] == "always_refused" else UNKNOWN


def _algorithm(found: Mapping[str, Any]) -> str:
    names = dict.fromkeys(NAMES.get(each["family"], str(each["family"])) for each in found["consistent"])
    return " or ".join(names)


def _aligned(found: Mapping[str, Any]) -> str:
    known = [ALIGNED[each["phase"]] for each in found["consistent"] if each["phase"] in ALIGNED]
    return " or ".join(dict.fromkeys(known)) or NOTHING


def _honesty(found: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return rows on what headers claim and what came of it."""
    told = found["headers"]
    table = []
    none, enough, early = told["without_retry_after"], told["retry_enough"], told["retry_early"]
    if found["refused"]:
        named = f"on {none['of'] - none['count']} of {none['of']} refusals" if none["of"] else NOTHING
        asked = [f"enough in {enough['count']} of {enough['of']} cases"] if enough["of"] else []
        asked += [f"too long in {early['count']} of {early['of']}"] if early["of"] else []
        table.append(("Retry-After", NOTHING, named, "; ".join(asked) or UNKNOWN))
        refused = f"{found['refusal_status']} ({found['refused']} of {found['attempts']} requests)"
        table.append(("Refused with", NOTHING, NOTHING, refused))
    steps = told["remaining_steps"]
    if steps["of"]:
        table.append(("Remaining", NOTHING, "yes", f"fell by one in {steps['count']} of {steps['of']} steps"))
    return table


def _asked(found: Mapping[str, Any], word: str) -> str:
    about = [each for each in found.get("answers", []) if word in str(each["question"])]
    numbers = [each["value"] for each in about if type(each.get("value")) in {int, float}]
    return _or_nothing(numbers[0]) if numbers else "see below" if about else "not looked at"


def _answers(answers: Sequence[Mapping[str, Any]]) -> list[Answered]:
    """Return all answers, those that nothing else is known about as well."""
    return [
        Answered(
            question=str(each["question"]).replace("_", " "),
            answer=str(each.get("says") or _or_nothing(each.get("value"))),
            confidence=each.get("confidence"),
            evidence=[str(line) for line in each.get("evidence") or []],
        )
        for each in answers
    ]


def _name(each: Mapping[str, Any]) -> str:
    return NAMES.get(each["family"], str(each["family"])) + (
        ", counting refusals" if each["count_refused"] else ""
    )


def _or_nothing(value: object) -> str:
    return NOTHING if value is None else f"{value:,}" if isinstance(value, int) else str(value)
