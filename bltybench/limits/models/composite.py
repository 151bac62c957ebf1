"""All of several: a request must fit in every one of them, and is charged in all or in none."""

from __future__ import annotations

from collections.abc import Sequence

from bltybench.limits.models.base import Admission, Model


class AllOf:
    """Several models at once, each with its own limit, period or unit.

    Accept iff every model would; then charge each. A refusal is charged to the models that count refusals.
    The wait of a refusal is the longest of theirs: a model that fits once goes on to fit while nobody sends,
    so that wait is exact too.
    """

    def __init__(self, models: Sequence[Model]) -> None:
        if not models:
            raise ValueError("all of nothing limits nothing")
        self.models = tuple(models)

    def decide_each(self, t_s: float, costs: Sequence[float]) -> list[Admission]:
        """Return each model's own decision; the request is accepted iff all of them are."""
        pairs = list(zip(self.models, costs, strict=True))
        peeked = [model.peek(t_s, cost) for model, cost in pairs]
        if all(decision.accepted for decision in peeked):
            return [model.decide(t_s, cost) for model, cost in pairs]
        return [
            self._refused(model, t_s, cost, decision)
            for (model, cost), decision in zip(pairs, peeked, strict=True)
        ]

    @staticmethod
    def _refused(model: Model, t_s: float, cost: float, peeked: Admission) -> Admission:
        if not model.count_refused:
            return peeked
        model.charge(t_s, cost)
        return peeked if peeked.accepted else model.peek(t_s, cost)

    def decide(self, t_s: float, cost: float = 1.0) -> Admission:
        """Return one decision for the same cost in each: that of the model that binds first."""
        decisions = self.decide_each(t_s, [cost] * len(self.models))
        refusals = [decision for decision in decisions if not decision.accepted]
        if refusals:
            return max(refusals, key=lambda decision: decision.retry_after_s or 0.0)
        return min(decisions, key=lambda decision: decision.remaining)
