"""The seeded choice of a fault."""

import random
from collections.abc import Mapping


def draw(rates: Mapping[str, float], seed: int, kind: str, ordinal: int) -> str | None:
    """Return the fault of the ``ordinal``-th request or connection (``kind``), or None."""
    at = random.Random(f"{seed}/{kind}/{ordinal}").random()
    for name, rate in rates.items():
        if at < rate:
            return name
        at -= rate
    return None
