"""Compare each decision of the API, and its headers, with what a limiter model predicts."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate

import numpy as np
import pandas as pd

from bltybench.limits.findings.model import FitRecord
from bltybench.limits.fit.in_flight import predict_accepted
from bltybench.limits.fit.result import model_options
from bltybench.limits.models.base import Model
from bltybench.limits.models.composite import Both
from bltybench.limits.models.families import FAMILIES
from bltybench.limits.models.leaky_queue import Waiting
from bltybench.limits.observations.extract import EXACT, NS, Timing, answered_ns, observed
from bltybench.limits.observations.observation import Observation
from bltybench.runs.attempt import Attempt

NEEDED = ["needed_at_least_s", "needed_at_most_s", "needed_by_model_s"]
NUMBERS = ["at_s", "remaining", "remaining_expected", "retry_after_s", *NEEDED]
DECISIONS = ("at_s", "observed", "predicted", *NUMBERS[1:])
"""Columns of ``decisions``."""
ROUNDING_S = 1.0
"""Excess of an accurate Retry-After that is rounded up to whole seconds, in seconds."""
DECISION_POINTS = (0.5, 0.0, 1.0)
"""Fractions of the time from sending to deciding at which the model decides; the best one is used."""

Make = Callable[[], Model]
Pairs = Sequence[tuple[Attempt, Observation]]


def maker_of(fit: FitRecord | None) -> Make | None:
    """Return a function that makes the model of a fit; None if its family is unknown."""
    if fit is None or fit.family not in FAMILIES:
        return None
    options = model_options(
        fit.family,
        phase_s=fit.phase_s,
        ticks=fit.ticks,
        count_refused=fit.count_refused,
        free=fit.free,
        spread=fit.spread,
    )
    make = partial(FAMILIES[fit.family].model, fit.limit, fit.period_s, **options)
    if (seats := fit.seats) is not None:
        return lambda: Waiting(make(), seats)
    also = maker_of(fit.also)
    return make if also is None else lambda: Both(make(), also())


def decisions(
    attempts: Sequence[Attempt],
    start_s: float,
    make: Make | None,
    slots: int | None = None,
    timing: Timing = EXACT,
) -> pd.DataFrame:
    """Return one row per attempt that reveals a decision of the request limit, in sending order.

    ``start_s`` is the run's start in Unix time. ``make`` returns a new model; otherwise ``slots`` is a
    concurrency limit. ``timing`` is how exactly the attempts are timed. Columns (DECISIONS):

    - ``at_s``: time of sending, on the run's axis
    - ``observed``, ``predicted``: ``accepted`` or ``refused``; null if unknown
    - ``remaining``, ``remaining_expected``: after the request, as announced and in the model
    - of refusals, from the response on: ``retry_after_s``; ``needed_at_least_s``, the last refusal before the
      next acceptance; ``needed_at_most_s``, that acceptance, null if there was none; ``needed_by_model_s``

    The model is charged with the observed decisions, not with its own. If timing uncertainty allows both
    decisions, ``predicted`` equals ``observed``.
    """
    pairs = sorted(observed(attempts, start_s, timing), key=lambda pair: pair[1].sent_s)
    frame = pd.DataFrame(index=range(len(pairs)), columns=list(DECISIONS), dtype="object")
    frame["at_s"] = [observation.sent_s - start_s for _, observation in pairs]
    frame["observed"] = [_name(observation.accepted) for _, observation in pairs]
    frame["remaining"] = [attempt.remaining_requests for attempt, _ in pairs]
    frame["retry_after_s"] = [attempt.retry_after_s for attempt, _ in pairs]
    frame[["needed_at_least_s", "needed_at_most_s"]] = _needed(pairs)
    if make is not None and pairs:
        predictions = [_predict(pairs, make(), point) for point in DECISION_POINTS]
        frame[["predicted", "remaining_expected", "needed_by_model_s"]] = max(
            predictions, key=lambda made: int((made["predicted"] == frame["observed"]).sum())
        )
    elif slots is not None:
        fits = {id(attempt): fit for attempt, fit in predict_accepted(attempts, slots)}
        frame["predicted"] = [_name(fits.get(id(attempt))) for attempt, _ in pairs]
    for name in ("retry_after_s", *NEEDED):
        frame[name] = frame[name].where(frame["observed"] == "refused", None)
    frame[NUMBERS] = frame[NUMBERS].astype("Float64")
    return frame.astype({"observed": "str", "predicted": "str"})


def retry_after_waits(decided: pd.DataFrame) -> pd.DataFrame:
    """Return the refusals of ``decisions`` that had a Retry-After, with a verdict on it in ``says``.

    ``too short``: a request sent after it was refused. ``longer than needed``: a request was accepted more
    than 1 s before it expired. Otherwise ``not contradicted``.
    """
    waits = decided[(decided["observed"] == "refused") & decided["retry_after_s"].notna()]
    given = waits["retry_after_s"]
    short = (waits["needed_at_least_s"] > given).fillna(False).to_numpy(dtype=np.bool_)
    long = (waits["needed_at_most_s"] < given - ROUNDING_S).fillna(False).to_numpy(dtype=np.bool_)
    says = np.select([short, long], ["too short", "longer than needed"], "not contradicted")
    return waits[["at_s", "retry_after_s", *NEEDED]].assign(says=says).reset_index(drop=True)


def remaining_counts(decided: pd.DataFrame) -> pd.DataFrame:
    """Return how often each value of Remaining was announced, by the value in the model.

    Columns: ``observed``, ``expected`` (whole requests), ``announced``, ``answers`` (number of responses).
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


def _needed(pairs: Pairs) -> pd.DataFrame:
    """Return, from each response on, the time to the last refusal and to the first acceptance after it."""
    accepted = pd.Series([observation.accepted for _, observation in pairs], dtype="boolean")
    sent_s = pd.Series([observation.sent_s for _, observation in pairs], dtype="float64")
    decided_s = pd.Series([observation.decided_s for _, observation in pairs], dtype="float64")
    latency_s = [(answered_ns(attempt) - (attempt.sent_ns or 0)) / NS for attempt, _ in pairs]
    received_s = sent_s + pd.Series(latency_s, dtype="float64")
    until_accepted = accepted.fillna(False).cumsum()
    last_refused_s = sent_s.where(~accepted.fillna(True)).groupby(until_accepted).transform("last")
    next_accepted_s = decided_s.where(accepted.fillna(False)).bfill()
    return pd.DataFrame(
        {
            "least": (last_refused_s - received_s).clip(lower=0),
            "most": (next_accepted_s - received_s).clip(lower=0),
        }
    )


def _predict(pairs: Pairs, model: Model, decision_point: float) -> pd.DataFrame:
    uncertainty_s = float(np.median([observation.decided_s - observation.sent_s for _, observation in pairs]))
    # Requests in flight together overlap, and the model's clock can't go back.
    starts_s = list(accumulate((observation.sent_s for _, observation in pairs), max))
    now_s = starts_s[0] - uncertainty_s
    costs = _costs([observation.accepted for _, observation in pairs], count_refused=model.count_refused)
    made: list[tuple[str | None, float, float | None]] = []
    for (_, observation), start_s, cost in zip(pairs, starts_s, costs, strict=True):
        now_s = max(now_s, start_s - uncertainty_s)
        peeked = model.peek(now_s)
        predicted: bool | None = None
        if observation.accepted is not None:
            predicted = peeked.accepted
        if observation.accepted:
            latest_s = max(observation.decided_s, start_s) + uncertainty_s
            predicted = predicted or now_s + (peeked.retry_after_s or 0.0) <= latest_s
        now_s = max(now_s, start_s + decision_point * max(observation.decided_s - start_s, 0.0))
        model.charge(now_s, cost)
        after = model.peek(now_s)
        made.append((_name(predicted), max(0.0, after.remaining), after.retry_after_s))
    return pd.DataFrame(made, columns=["predicted", "remaining", "needed"], dtype="object")


def _costs(accepted: Sequence[bool | None], *, count_refused: bool) -> list[float]:
    """Return what each request costs. A lost response between two acceptances counts as one too."""
    known = pd.Series(pd.array(list(accepted), dtype="boolean"))
    charged = known.where(known.notna(), known.ffill() & known.bfill()).fillna(False) | count_refused
    return charged.astype("float64").tolist()
