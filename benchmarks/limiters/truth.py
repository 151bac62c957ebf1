"""What is true about a limiter: its algorithm, its settings, and the right answer to each question."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from bltybench.limits.findings.model import Value

Registry = Literal["PyPI", "npm", "Debian"]
Accepted = tuple[Value, ...]
"""The answers that are right. None among them means that there is nothing to find."""


class Setting(NamedTuple):
    """A limit and its period."""

    limit: int
    period_s: int


SETTINGS = (Setting(8, 4), Setting(20, 6))
"""Settings of most limiters: short periods, so that a probe takes minutes."""
NOTHING: Accepted = (None,)
HONEST: Accepted = ("honest",)
ABSENT: Accepted = ("absent",)
IRRELEVANT: Accepted = (True, False, None)
"""A full window refuses whether it counts refused requests or not."""

DEFAULTS: Mapping[str, Accepted] = {
    "concurrency_limit": NOTHING,
    "concurrency_excess": NOTHING,
    "cancelled_frees_slot": NOTHING,
    "token_limit": NOTHING,
    "token_period_s": NOTHING,
    "token_algorithm": NOTHING,
    "tokens_charged": NOTHING,
    "tokens_charged_at": NOTHING,
    "malformed_counts": (True,),
    "unknown_model_counts": (True,),
    "wrong_key_counts": (True,),
    "models_endpoint_counts": (False,),
    "models_endpoint_shares": (False,),
    "refused_counts": (False,),
    "limit_per_key": (False,),
    "limit_per_model": (False,),
    "limit_header": NOTHING,
    "remaining_header": NOTHING,
    "reset_header": NOTHING,
    "retry_after": ABSENT,
}
"""Right answers for a limiter without headers that limits each address, before the API reads the request."""

WINDOW = {"refused_counts": IRRELEVANT}
PER_KEY = {"limit_per_key": (True,), "wrong_key_counts": (False,)}
"""A wrong key has a limit of its own."""
EVERY_PATH = {"models_endpoint_counts": (True,), "models_endpoint_shares": (True,)}
HEADERS = {"limit_header": HONEST, "remaining_header": HONEST, "retry_after": HONEST}
UNTIL_WINDOW_END = {"reset_header": ("window_end",)}
UNTIL_FIRST_UNIT = {"reset_header": ("first_unit",)}
NO_REQUEST_LIMIT = {
    "malformed_counts": NOTHING,
    "unknown_model_counts": NOTHING,
    "wrong_key_counts": NOTHING,
    "models_endpoint_counts": NOTHING,
    "models_endpoint_shares": NOTHING,
    "refused_counts": NOTHING,
    "limit_per_key": NOTHING,
    "limit_per_model": NOTHING,
    "retry_after": (None, "absent"),
}


@dataclass(frozen=True, slots=True)
class Limiter:
    """A limiter that others wrote, and the right answers about it."""

    name: str
    registry: Registry
    package: str
    source: str
    """File or page from which the answers follow."""
    families: tuple[str, ...]
    """Families that decide as it does; empty if none does."""
    answers: Mapping[str, Accepted] = field(default_factory=dict)
    """The answers in which it differs from DEFAULTS."""
    settings: tuple[Setting, Setting] = SETTINGS
    concurrency: bool = False
    """Whether it limits the requests in flight, to the limit of the setting, and nothing else."""
    statuses: tuple[int, ...] = (429,)
    """Statuses of its refusals."""
    max_late: float = 0.0
    """Fraction of a period by which a window can last longer."""
    redis: bool = False
    """Whether it keeps its state in a Redis server."""
    remark: str = ""

    def accepted(self, question: str, setting: Setting) -> Accepted:
        """Return the right answers to a question."""
        if self.concurrency and question == "concurrency_limit":
            return (setting.limit,)
        return self.answers.get(question, DEFAULTS[question])


def merged(*parts: Mapping[str, Accepted]) -> dict[str, Accepted]:
    """Return the answers of all parts. Later parts replace earlier ones."""
    return {question: accepted for part in parts for question, accepted in part.items()}
