"""Pairs of limits that a request has to fit both: a short one for bursts, and a long one."""

import random

from bltybench.limits.fit.result import Fit, Verdict
from bltybench.limits.models import Both, Model
from bltybench.limits.models.base import Admission
from bltybench.limits.models.families import FAMILIES

MIN_HITS = 3
"""Refusals that each limit must have made alone. With fewer, both can't be known."""
MAX_ERROR = 0.02
"""Maximum relative error of a period that is outside the reported range."""
MAX_PRECISION = 0.2
"""Half width of the range of a period, relative to the period, above which a verdict counts as abstained."""
RATIOS = (5.0, 6.0, 10.0, 12.0, 20.0, 60.0)
"""Ratios of the long period to the short one."""
MIN_PERIOD_S = 0.5
"""Minimum of the short period, in seconds."""
MIN_LONG_LIMIT, MIN_LONG_PERIOD_S = 15, 5.0
"""Minimum of the long limit, and of its period in seconds. A short one has to fit below."""

KINDS = {
    f"{short}, {long}": (short, long)
    for short, long in (
        ("fixed_window", "fixed_window"),
        ("sliding_log", "sliding_log"),
        ("token_bucket", "fixed_window"),
        ("fixed_window", "sliding_log"),
        ("sliding_log", "first_hit_window"),
        ("fixed_window", "token_bucket"),
        ("token_bucket", "sliding_log"),
        ("sliding_log", "fixed_window"),
    )
}
"""The families of the short and of the long limit."""


class Pair(Both):
    """Two limits, and how many refusals each of them made alone."""

    def __init__(self, short: Model, long: Model) -> None:
        super().__init__(short, long)
        self.alone = [0, 0]

    def decide(self, t_s: float, cost: float = 1.0) -> Admission:
        """Decide, and count a refusal that only one limit made."""
        refused = [not model.peek(t_s, cost).accepted for model in self.models]
        if sum(refused) == 1:
            self.alone[refused.index(True)] += 1
        return super().decide(t_s, cost)

    @property
    def both_hit(self) -> bool:
        """Whether each limit alone refused often enough."""
        return min(self.alone) >= MIN_HITS

    def is_described_by(self, fit: Fit) -> bool:
        """Return whether a fit is these two limits."""
        if fit.also is None:
            return False
        pairs = ((fit.also, fit), (fit, fit.also))
        return any(all(map(_is_of, self.models, pair)) for pair in pairs)


def make_pair(kind: str, limit: int, period_s: float, rng: random.Random) -> Pair:
    """Return a pair whose long limit has this limit and period.

    The short one sustains a higher rate, but holds fewer requests.
    """
    short, long = KINDS[kind]
    ratio = rng.choice([ratio for ratio in RATIOS if period_s >= ratio * MIN_PERIOD_S])
    held = min(max(2, round(limit * rng.uniform(1.5, 4) / ratio)), limit // 2)
    return Pair(FAMILIES[short].model(held, period_s / ratio), FAMILIES[long].model(limit, period_s))


def judge(verdict: Verdict, pair: Pair) -> str:
    """Return whether a verdict is right: these two limits, or the only one of them that refused."""
    if not verdict.consistent:
        return "abstained"
    if verdict.has_two_limits:
        right = any(pair.is_described_by(fit) for fit in verdict.consistent)
    else:
        right = not pair.both_hit and any(
            _is_of(model, fit) for fit in verdict.consistent for model in pair.models
        )
    if not right:
        return "wrong"
    precise = verdict.consistent[0].precision <= MAX_PRECISION
    return "right" if verdict.status == "found" and precise else "abstained"


def _is_of(model: Model, fit: Fit) -> bool:
    low_s, high_s = fit.period_range_s
    return (
        type(model) is FAMILIES[fit.family].model
        and fit.limit_range[0] <= model.limit <= fit.limit_range[1]
        and low_s * (1 - MAX_ERROR) <= model.period_s <= high_s * (1 + MAX_ERROR)
    )
