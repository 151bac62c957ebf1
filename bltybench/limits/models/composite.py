"""Several limiters at once: a request must fit all of them, and is charged to all or to none."""

from collections.abc import Sequence
from dataclasses import replace

from bltybench.limits.models.base import Admission, Model


class AllOf:
    """Several models, each with its own limit, period, or unit.

    A request is accepted, and charged to each model, iff every model accepts it. A refused request is charged
    to the models that count refused ones. Its wait is the longest of theirs, which is exact: a request that
    fits a model keeps fitting while nothing is sent.
    """

    def __init__(self, models: Sequence[Model]) -> None:
        if not models:
            raise ValueError("at least one model is required")
        self.models = tuple(models)

    def decide_each(self, t_s: float, costs: Sequence[float]) -> list[Admission]:
        """Return the decision of each model; the request is accepted iff all accept it."""
        pairs = list(zip(self.models, costs, strict=True))
        peeked = [model.peek(t_s, cost) for model, cost in pairs]
        if all(decision.accepted for decision in peeked):
            return [model.decide(t_s, cost) for model, cost in pairs]
        return [
            self._refused(model, t_s, cost, decision)
            for (model, cost), decision in zip(pairs, peeked, strict=True)
        ]

    def take_each(self, t_s: float, costs: Sequence[float]) -> list[float | None]:
        """Return the wait of each model that refuses, in seconds, and None of each that accepts.

        It decides as ``decide_each`` and is faster.
        """
        pairs = list(zip(self.models, costs, strict=True))
        accepted = [model.accepts(t_s, cost) for model, cost in pairs]
        if all(accepted):
            for model, cost in pairs:
                model.charge(t_s, cost)
            return [None] * len(pairs)
        for model, cost in pairs:
            model.refuse(t_s, cost)
        return [
            None if fits else model.wait_s(t_s, cost)
            for (model, cost), fits in zip(pairs, accepted, strict=True)
        ]

    def delay_s(self, t_s: float) -> float:
        """Return the seconds for which a request that was charged at ``t_s`` is queued."""
        return max(model.delay_s(t_s) for model in self.models)

    @staticmethod
    def _refused(model: Model, t_s: float, cost: float, peeked: Admission) -> Admission:
        model.refuse(t_s, cost)
        return peeked if peeked.accepted else model.peek(t_s, cost)


class Both(Model):
    """Two limits on the same requests, as one model.

    A request is accepted, and charged to both, iff both accept it. ``limit`` and ``period_s`` are those of
    ``first``. Source: Azure OpenAI, "Understanding rate limits": requests per 1 or 10 s and per minute.
    """

    counts_refused = False

    def __init__(self, first: Model, second: Model) -> None:
        if first.count_refused or second.count_refused:
            raise ValueError("two limits at once can't count refused requests")
        super().__init__(first.limit, first.period_s)
        self.models = (first, second)

    def _advance(self, t_s: float) -> None:
        for model in self.models:
            model.peek(t_s)

    def _fits(self, t_s: float, cost: float) -> bool:
        return all(model._fits(t_s, cost) for model in self.models)

    def _free_at(self, t_s: float, cost: float) -> float:
        waits_s = (model.peek(t_s, cost).retry_after_s or 0.0 for model in self.models)
        return t_s + max(waits_s)

    def _charge(self, t_s: float, cost: float) -> None:
        for model in self.models:
            model.charge(t_s, cost)

    def _refund(self, charged_s: float, cost: float) -> None:
        for model in self.models:
            model.refund(self._last_s, charged_s, cost)

    def _admission(self, t_s: float, cost: float, *, accepted: bool, delay_s: float = 0.0) -> Admission:
        admission = super()._admission(t_s, cost, accepted=accepted, delay_s=delay_s)
        return replace(admission, limit=self._tighter(t_s).limit)

    def _tighter(self, t_s: float) -> Model:
        """Return the limit that accepts less, which headers are about."""
        return min(self.models, key=lambda model: model.remaining(t_s))

    def remaining(self, t_s: float) -> float:
        """Return the cost that still fits both."""
        return self._tighter(t_s).remaining(t_s)

    def reset_s(self, t_s: float) -> float:
        """Return the seconds until the limit that accepts less is completely available."""
        return self._tighter(t_s).reset_s(t_s)

    def delay_s(self, t_s: float) -> float:
        """Return the longer of both delays."""
        return max(model.delay_s(t_s) for model in self.models)
