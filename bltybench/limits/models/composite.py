"""Several limiters at once: a request must fit all of them, and is charged to all or to none."""

from collections.abc import Sequence

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

    @staticmethod
    def _refused(model: Model, t_s: float, cost: float, peeked: Admission) -> Admission:
        if not model.count_refused:
            return peeked
        model.charge(t_s, cost)
        return peeked if peeked.accepted else model.peek(t_s, cost)
