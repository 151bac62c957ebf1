"""The page's section on rate limits: documented, announced, and observed, with the evidence and advice."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bltybench.limits.findings.model import (
    AnswerRecord,
    FindingsRecord,
    FitRecord,
)
from bltybench.limits.models.families import BUCKETS, FAMILIES, prose_name, with_article
from bltybench.limits.observations.answer import SUBJECTS
from bltybench.limits.observations.thresholds import ANSWERS
from bltybench.limits.probe.protocol import STAGE_PREFIX
from bltybench.limits.sharing import is_of
from bltybench.metrics.limiter import decisions, maker_of
from bltybench.report.figures.drawing import Drawing
from bltybench.report.figures.limits import ModelName, draw_all
from bltybench.report.run_limits import analyzed_attempts, recorded_findings, timing_of
from bltybench.runs.attempt import Attempt
from bltybench.runs.folder import RunFolder
from bltybench.runs.manifest import Manifest, TargetInfo
from bltybench.scenario.api.documented_limits import TOKENS, amounts, limits_on, per_minute

NOTHING = "–"
UNKNOWN = "unknown"
WINDOW_START = {"clock": "clock", "first_hit": "first request", "other": "neither clock nor first request"}
YES_NO = {True: "yes", False: "no"}

TableRow = tuple[str, str, str, str]
"""Property, documented, announced, observed."""


@dataclass(frozen=True, slots=True)
class LimitsSection:
    """What a run shows about the limits that it met."""

    probed: bool
    """Whether the findings are a probe's; otherwise they are inferred from the attempts."""
    damaged: str | None
    """Why ``limits.json`` can't be read, if it is there."""
    part: str | None
    """Which attempts of a long run the section is from; None if from all."""
    record: FindingsRecord
    says: list[str]
    """Its sentences, except those that its answers repeat."""
    rows: list[TableRow]
    still_open: tuple[str, ...]
    """What remains unknown: why the limiter does, and the questions without an answer."""
    rejected: list[tuple[str, int]]
    """Families that were ruled out, with the decisions that contradict each."""
    drawings: list[Drawing]

    @property
    def excess(self) -> str | None:
        """Why 60 s can hold more than the limit per minute; None if the algorithm does not say so."""
        families = {fit.family for fit in self.record.consistent}
        if families and all(family in FAMILIES and FAMILIES[family].kind == "window" for family in families):
            return "per window · 60 s can span two"
        if self.record.observed is not None and len(families) == 1 and families <= BUCKETS:
            return f"per minute · plus a burst of {self.record.observed.limit}"
        return None

    @property
    def confidence(self) -> float | None:
        """Confidence of the family that was found, never 1; None if several fit, which it does not cover."""
        if self.record.status != "found" or self.record.confidence is None:
            return None
        return min(self.record.confidence, ANSWERS.max_confidence)


def limits_section(folder: RunFolder, *, draw: bool = True) -> LimitsSection | None:
    """Return the section, from the probe's ``limits.json`` if there is one; None if the run is empty.

    Without ``draw``, it has no drawings, which take most of the time.
    """
    manifest = folder.manifest()
    analyzed = analyzed_attempts(folder)
    attempts = analyzed.attempts
    if not attempts:
        return None
    start_s = manifest.clock.wall_ns / 1e9
    record, probed, damaged = recorded_findings(folder, attempts)
    slots = record.in_flight if record.observed is None else None
    # The probe's other experiments test other limits.
    own = [attempt for attempt in attempts if not str(attempt.stage).startswith(STAGE_PREFIX)]
    in_flight = slots.limit if slots else None
    # The figures compare refusals with what was accepted later, which another limit may have decided on.
    one_limit = not record.parts and all(one.shared or not one.refused for one in record.sharing)
    decided = decisions(own, start_s, maker_of(record.observed), in_flight, timing_of(folder))
    # An ordinary run asked no questions, so what its headers show is among the sentences.
    shown = {answer.says for answer in record.answers} if probed else set()
    return LimitsSection(
        probed=probed,
        damaged=damaged,
        part=analyzed.part,
        record=record,
        says=[line for line in record.says if line not in shown],
        rows=_rows(record, attempts, manifest),
        still_open=_still_open(record),
        rejected=[
            (
                prose_name(ruled_out.family)
                + (" that counts refused requests" if ruled_out.count_refused else ""),
                ruled_out.contradictions,
            )
            for ruled_out in record.rejected
        ],
        drawings=draw_all(decided, _model_name(record)) if draw and one_limit else [],
    )


def _rows(record: FindingsRecord, attempts: Sequence[Attempt], manifest: Manifest) -> list[TableRow]:
    """Return the properties of the limit, or of that of each part."""
    if not record.parts:
        return _table(record, attempts, manifest.target)
    targets = {target.name: target for target in manifest.targets}
    rows: list[TableRow] = []
    for part in record.parts:
        own = [attempt for attempt in attempts if is_of(attempt, part.owner)]
        target = targets.get(part.owner.get("target", ""), manifest.target)
        table = _table(part.findings, own, target)
        rows += [(f"{part.name}: {what}", *values) for what, *values in table]  # type: ignore[misc]
    return rows


def _still_open(record: FindingsRecord) -> tuple[str, ...]:
    if record.parts:
        return tuple(f"{part.name}: {line}" for part in record.parts for line in _still_open(part.findings))
    found: list[str] = []
    if record.status in {"ambiguous", "unknown"} and record.reason is not None:
        found.append(record.reason)
    if isinstance(record.stopped, str):
        found.append(
            f"the probe stopped early: {record.stopped} (continue with --probe-resume {record.run_id})"
        )
    return *found, *(
        SUBJECTS.get(answer.question, answer.question.replace("_", " "))
        for answer in record.answers
        if answer.value is None
    )


def _model_name(record: FindingsRecord) -> ModelName | None:
    if record.observed is None:
        limit = record.in_flight and record.in_flight.limit
        return ModelName(f"a concurrency limit of {limit}", certain=True) if limit else None
    if record.observed.family not in FAMILIES:
        return None
    text = with_article(record.observed.family)
    if record.observed.also is not None:
        text = f"{text} and {with_article(record.observed.also.family)}"
    return ModelName(text, certain=record.status == "found")


def _table(record: FindingsRecord, attempts: Sequence[Attempt], target: TargetInfo) -> list[TableRow]:
    limits = limits_on(target.documented, "requests")
    documented = amounts(limits) or NOTHING
    period = ", ".join(f"{limit.period_s:g} s" for limit in limits) or NOTHING
    announced, observed = _or_nothing(record.announced.limit), record.observed
    resets = [attempt.reset_requests_s for attempt in attempts if attempt.reset_requests_s is not None]
    reset = f"reset at most {max(resets):.3g} s ahead" if resets else NOTHING
    if observed is None:
        table = [
            ("Requests", documented, announced, _without_fit(record)),
            ("Period", period, reset, UNKNOWN),
        ]
    else:
        names = dict.fromkeys(prose_name(fit.family) for fit in record.consistent)
        starts = dict.fromkeys(WINDOW_START[fit.phase] for fit in record.consistent if fit.phase)
        table = [
            ("Requests", documented, announced, _limit(observed)),
            ("Period", period, reset, _period(observed)),
            ("Long-term rate", documented, NOTHING, f"{observed.rate_per_min:g} per minute"),
            ("Algorithm", NOTHING, NOTHING, " or ".join(names)),
            ("Start of windows", NOTHING, NOTHING, " or ".join(starts) or NOTHING),
            ("Refused requests counted", NOTHING, NOTHING, _counts_refused(record, observed)),
        ]
    if observed is not None and observed.also is not None:
        table += _second_limit(observed, observed.also)
    table += _refusals(record)
    tokens = [attempt.limit_tokens for attempt in attempts if attempt.limit_tokens is not None]
    token_limits = limits_on(target.documented, *TOKENS)
    if token_limits or tokens:
        documented = amounts(token_limits) or NOTHING
        common = Counter(tokens).most_common(1)[0][0] if tokens else None
        table.append(("Tokens", documented, _or_nothing(common), _measured(record.answers, "token")))
    slots, concurrency = record.in_flight, per_minute(target.documented, "concurrency")
    if concurrency or slots:
        in_flight = _measured(record.answers, "concurren")
        if slots:
            in_flight = f"at most {_range(*slots.limit_range)}"
        table.append(("In flight", _or_nothing(concurrency), NOTHING, in_flight))
    return [row for row in table if set(row[1:]) != {NOTHING}]


def _second_limit(first: FitRecord, second: FitRecord) -> list[TableRow]:
    """Return the limit that requests have to fit too, and which refusals came from which."""
    alone = f"{first.refusals} by the first alone, {second.refusals} by the second alone"
    return [
        ("Second limit", NOTHING, NOTHING, f"{_limit(second)}, {prose_name(second.family)}"),
        ("Refusals by one limit", NOTHING, NOTHING, alone),
    ]


def _counts_refused(record: FindingsRecord, observed: FitRecord) -> str:
    """Return whether refused requests count: by the algorithm, or if it leaves that open, by experiment."""
    values = [answer.value for answer in record.answers if answer.question == "refused_counts"]
    by_experiment = bool(values[0]) if values and values[0] is not None else None
    counted = by_experiment if observed.count_refused is None else observed.count_refused
    return UNKNOWN if counted is None else YES_NO[counted]


def _limit(observed: FitRecord) -> str:
    bucket = observed.family in BUCKETS
    limit = f"bursts of {observed.limit}" if bucket else f"{observed.limit} per {observed.period_s:.4g} s"
    low, high = observed.limit_range
    return limit if low == high else f"{limit} ({_range(low, high)})"


def _period(observed: FitRecord) -> str:
    low_s, high_s = observed.period_range_s
    filled = " to fill" if observed.family in BUCKETS else ""
    return f"{observed.period_s:.4g} s{filled} ({low_s:.4g} to {high_s:.4g})"


def _without_fit(record: FindingsRecord) -> str:
    if record.status == "never_refused":
        return f"at least {record.busiest_minute.accepted} in 60 s"
    return "all refused" if record.status == "always_refused" else UNKNOWN


def _refusals(record: FindingsRecord) -> list[TableRow]:
    """Return the rows on refusals, and on what headers claim."""
    headers = record.headers
    table: list[TableRow] = []
    missing, enough, early = headers.without_retry_after, headers.retry_enough, headers.retry_early
    if record.refused:
        announced = f"on {missing.of - missing.count} of {missing.of} refusals" if missing.of else NOTHING
        observed = [f"enough in {enough.count} of {enough.of} tested waits"] if enough.of else []
        observed += [f"longer than needed in {early.count} of {early.of}"] if early.of else []
        table.append(("Retry-After", NOTHING, announced, "; ".join(observed) or UNKNOWN))
        statuses = ", ".join(map(str, record.refusal_statuses)) or record.refusal_status
        status = f"{statuses} ({record.refused} of {record.attempts} requests)"
        table.append(("Refusal status", NOTHING, NOTHING, status))
    remaining = [answer.value for answer in record.answers if answer.question == "remaining_header"]
    if remaining:
        accurate = {"honest": "accurate", "wrong": "wrong"}.get(str(remaining[0]), UNKNOWN)
        table.append(("Remaining", NOTHING, NOTHING if remaining[0] is None else "yes", accurate))
    return table


def _measured(answers: Iterable[AnswerRecord], word: str) -> str:
    """Return the first number among the answers about ``word``."""
    values = [answer.value for answer in answers if word in answer.question]
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    return _or_nothing(numbers[0]) if numbers else "see below" if values else "not measured"


def _range(low: int, high: int) -> str:
    return f"{low}" if low == high else f"{low} to {high}"


def _or_nothing(value: float | None) -> str:
    return NOTHING if value is None else f"{value:,}" if isinstance(value, int) else str(value)
