"""What a limiter's model says of each attempt, beside what the API did and what its headers announced."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from bltybench.limits.fit.in_flight import admitted
from bltybench.limits.fit.result import model_options
from bltybench.limits.models.base import Model
from bltybench.limits.models.families import FAMILIES
from bltybench.limits.observations.evidence import NS, STAND_INS, Row, seen
from bltybench.limits.observations.observation import Observation
from bltybench.runs.attempt import Outcome

COLUMNS = (
    "sent_ns",
    "headers_ns",
    "end_ns",
    "outcome",
    "status",
    "error_type",
    "error_code",
    "error_message",
    "limit_requests",
    "remaining_requests",
    "reset_requests_s",
    "limit_tokens",
    "retry_after_s",
    "header_dialect",
)
"""What of an attempt says something of the limit of requests."""

DECISIONS = (
    "at_s",
    "observed",
    "predicted",
    "remaining",
    "remaining_expected",
    "retry_after_s",
    "needed_at_least_s",
    "needed_at_most_s",
    "needed_by_model_s",
)
WHOLE_SECONDS = 1.0
"""Rounding up to whole seconds makes an honest Retry-After up to so much longer than needed."""
PLACES = (0.5, 0.0, 1.0)
"""Where between sending and answer a decision is taken to fall."""


def maker_of(fit: Mapping[str, Any] | None) -> Callable[[], Model] | None:
    """Return what makes the limiter of a fit of ``limits.json``; None where there is none of its name."""
    if fit is None or fit.get("family") not in FAMILIES:
        return None
    family = str(fit["family"])
    options = model_options(
        family, **{name: fit.get(name) for name in ("phase_s", "ticks", "count_refused", "free")}
    )
    return partial(FAMILIES[family].model, int(fit["limit"]), float(fit["period_s"]), **options)


TELLING = ("sent_ns", "outcome", "status")
"""What ``telling`` looks at."""


def telling(attempts: pa.Table, most: int) -> pa.Array:
    """Return the rows of at most ``most`` successive attempts, those among which refusals ended most often.

    They are in the order of sending; what was never sent is left out.
    """
    sent_ns = attempts["sent_ns"]
    order = pc.sort_indices(sent_ns).to_numpy()
    order = order[: len(sent_ns) - sent_ns.null_count]  # nulls come last
    if len(order) > most:
        ok = pc.equal(attempts["outcome"], Outcome.OK.value).to_numpy()[order]
        refused = pc.equal(attempts["outcome"], Outcome.RATE_LIMITED.value).to_numpy()[order]
        stood_in = np.isin(attempts["status"].fill_null(0).to_numpy()[order], STAND_INS)
        ends = np.concatenate([[0], np.cumsum((refused | stood_in)[:-1] & ok[1:])])
        within = ends[most - 1 :] - ends[: len(ends) - most + 1]
        first = int(within.argmax())
        order = order[first : first + most]
    return pa.array(order)


def decisions(
    rows: Sequence[Row],
    start_s: float,
    make: Callable[[], Model] | None,
    slots: int | None = None,
) -> pd.DataFrame:
    """Return one row an attempt that says something of the limit of requests, in the order of sending.

    ``rows`` have COLUMNS, ``start_s`` is the run's start in Unix time, ``make`` gives a new model,
    or ``slots`` is a limit of requests in flight. Columns (DECISIONS): ``at_s`` (sent, on the run's axis);
    ``observed`` and ``predicted`` (accepted, refused, null where it is not known);
    ``remaining`` (announced) and ``remaining_expected`` (by the model, after the request); of refusals
    ``retry_after_s`` as told, ``needed_at_least_s`` (the last refusal before the next acceptance),
    ``needed_at_most_s`` (that acceptance; null where none came) and ``needed_by_model_s``, all from the
    answer on. The model is charged with what was observed, not with what it would have done. Where the
    decision fell within the doubt about its time, ``predicted`` is what was observed.
    """
    pairs = sorted(seen(rows, start_s), key=lambda pair: pair[1].sent_s)
    frame = pd.DataFrame(index=range(len(pairs)), columns=list(DECISIONS), dtype="object")
    frame["at_s"] = [sight.sent_s - start_s for _, sight in pairs]
    frame["observed"] = [_name(sight.accepted) for _, sight in pairs]
    for column, key in (("remaining", "remaining_requests"), ("retry_after_s", "retry_after_s")):
        frame[column] = [row[key] for row, _ in pairs]
    frame[["needed_at_least_s", "needed_at_most_s"]] = _needed(pairs)
    if make is not None and pairs:
        frame[["predicted", "remaining_expected", "needed_by_model_s"]] = _best_prediction(pairs, make)
    elif slots is not None:
        fits = {id(row): fit for row, fit in admitted(rows, slots)}
        frame["predicted"] = [_name(fits.get(id(row))) for row, _ in pairs]
    refused = frame["observed"] == "refused"
    for name in ("retry_after_s", "needed_at_least_s", "needed_at_most_s", "needed_by_model_s"):
        frame[name] = frame[name].where(refused, None)
    numbers = [name for name in DECISIONS if name not in {"observed", "predicted"}]
    frame[numbers] = frame[numbers].astype("Float64")
    return frame.astype({"observed": "str", "predicted": "str"})


def waits(decided: pd.DataFrame) -> pd.DataFrame:
    """Return the refusals of ``decisions`` that named a Retry-After, with ``says``.

    ``says``: ``too short`` (refused again after it was over), ``longer than needed`` (something was let in
    more than a second before it was over), or ``not contradicted``.
    """
    told = decided[(decided["observed"] == "refused") & decided["retry_after_s"].notna()]
    columns = ["at_s", "retry_after_s", "needed_at_least_s", "needed_at_most_s", "needed_by_model_s"]
    given = told["retry_after_s"]
    short = (told["needed_at_least_s"] > given).fillna(False).to_numpy(dtype=np.bool_)
    long = (told["needed_at_most_s"] < given - WHOLE_SECONDS).fillna(False).to_numpy(dtype=np.bool_)
    says = np.select([short, long], ["too short", "longer than needed"], "not contradicted")
    return told[columns].assign(says=says).reset_index(drop=True)


def remainders(decided: pd.DataFrame) -> pd.DataFrame:
    """Return how often Remaining said what, against what the model expects.

    Columns: ``observed``, ``expected`` (whole requests), ``announced``, ``answers``.
    """
    known = decided[decided["remaining"].notna() & decided["remaining_expected"].notna()]
    pairs = pd.DataFrame(
        {
            "observed": known["observed"],
            "expected": np.floor(known["remaining_expected"].astype("float64") + 1e-6).astype("int64"),
            "announced": known["remaining"].astype("int64"),
        }
    )
    counted = pairs.groupby(["observed", "expected", "announced"], dropna=True).size()
    return counted.rename("answers").reset_index()


def _name(accepted: bool | None) -> str | None:
    return None if accepted is None else "accepted" if accepted else "refused"


def _needed(pairs: Sequence[tuple[Row, Observation]]) -> pd.DataFrame:
    """From each answer on: when something was last refused and first accepted after it."""
    least: list[float] = [0.0] * len(pairs)
    most: list[float | None] = [None] * len(pairs)
    accepted_s: float | None = None
    refused_s: float | None = None
    for i in range(len(pairs) - 1, -1, -1):
        row, sight = pairs[i]
        if sight.accepted:
            accepted_s, refused_s = sight.decided_s, None
            continue
        if sight.accepted is None:
            continue
        refused_s = sight.sent_s if refused_s is None else refused_s
        told_s = sight.sent_s + ((row["headers_ns"] or row["end_ns"]) - row["sent_ns"]) / NS
        least[i] = max(0.0, refused_s - told_s)
        most[i] = None if accepted_s is None else max(0.0, accepted_s - told_s)
    return pd.DataFrame({"least": least, "most": most}, dtype="object")


def _best_prediction(pairs: Sequence[tuple[Row, Observation]], make: Callable[[], Model]) -> pd.DataFrame:
    """Of several places within an exchange where the decision may fall, take the one that explains most."""
    observed = [_name(sight.accepted) for _, sight in pairs]
    tried = [_predicted(pairs, make(), share) for share in PLACES]
    return max(tried, key=lambda said: int((said["predicted"] == observed).sum()))


def _predicted(pairs: Sequence[tuple[Row, Observation]], model: Model, share: float) -> pd.DataFrame:
    doubt_s = float(np.median([sight.decided_s - sight.sent_s for _, sight in pairs]))
    # With requests in flight together the clock must not go back.
    starts = list(accumulate((sight.sent_s for _, sight in pairs), max))
    now_s = starts[0] - doubt_s
    charged = _charged([sight.accepted for _, sight in pairs], count_refused=model.count_refused)
    said: list[tuple[str | None, float, float | None]] = []
    for (_, sight), start_s, cost in zip(pairs, starts, charged, strict=True):
        now_s = max(now_s, start_s - doubt_s)
        peeked = model.peek(now_s)
        fits_s = now_s + (peeked.retry_after_s or 0.0)
        open_until_s = max(sight.decided_s, start_s) + doubt_s
        if sight.accepted is None:
            predicted = None
        elif sight.accepted:
            predicted = peeked.accepted or fits_s <= open_until_s
        else:
            predicted = peeked.accepted
        now_s = max(now_s, start_s + share * max(sight.decided_s - start_s, 0.0))
        model.charge(now_s, cost)
        after = model.peek(now_s)
        said.append((_name(predicted), max(0.0, after.remaining), after.retry_after_s))
    return pd.DataFrame(said, columns=["predicted", "remaining", "needed"], dtype="object")


def _charged(accepted: Sequence[bool | None], *, count_refused: bool) -> list[float]:
    """Return what each request costs. A lost answer between two acceptances was most likely one too."""
    costs: list[float] = []
    for i, known in enumerate(accepted):
        one = known
        if one is None:
            before = next((each for each in reversed(accepted[:i]) if each is not None), None)
            after = next((each for each in accepted[i + 1 :] if each is not None), None)
            one = before is True and after is True
        costs.append(1.0 if one or count_refused else 0.0)
    return costs
