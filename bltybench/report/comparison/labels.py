"""Names of the sides of a comparison: given by the user, or what differs between them."""

from collections import Counter
from collections.abc import Sequence

from bltybench.errors import UserError
from bltybench.metrics.likeness import value_at, variations
from bltybench.metrics.outline import Outline
from bltybench.report import text
from bltybench.report.comparison.model import ComparedSide

MAX_PARTS = 2
"""Maximum variations in a label."""
NAMING = (".policy", ".kind")
"""Ends of the keys that name what a table says, so that its other keys are not needed."""
PLAIN = ("target.name", "model")
"""Variations whose value alone says what it is. They come first."""


def name_sides(sides: Sequence[Sequence[Outline]], given: Sequence[str] | None = None) -> list[ComparedSide]:
    """Return the sides with distinct labels: ``given``, those of the runs, or what differs between the runs.

    Labels start with the scenario if the sides' scenarios differ.
    """
    if given and len(given) != len(sides):
        raise UserError(
            f"{text.count(len(given), 'label')} for {len(sides)} sides",
            where="--label",
            remedy="give one for the base, and one for each candidate",
        )
    scenarios = [side[0].manifest.scenario for side in sides]
    differing = _differing(sides, by_scenario=len({*scenarios}) == len(sides))
    own = [side[0].manifest.label or found for side, found in zip(sides, differing, strict=True)]
    labels = list(given or own)
    if len({*scenarios}) > 1:
        labels = [", ".join(filter(None, pair)) for pair in zip(scenarios, labels, strict=True)]
    starts = [side[0].manifest.created[:19].replace("T", " ") for side in sides]
    for more in (starts, [side[0].manifest.run_id for side in sides]):
        counts = Counter(labels)
        labels = [
            ", ".join(filter(None, pair)) if not pair[0] or counts[pair[0]] > 1 else pair[0]
            for pair in zip(labels, more, strict=True)
        ]
    return [
        ComparedSide(f"{label} ({len(side)} runs)" if len(side) > 1 else label, side)
        for label, side in zip(labels, sides, strict=True)
    ]


def _differing(sides: Sequence[Sequence[Outline]], *, by_scenario: bool) -> list[str]:
    """Return what differs between the sides, unless the scenarios' names say it already."""
    if by_scenario:
        return [""] * len(sides)
    base, *others = (side[0] for side in sides)
    keys = list(dict.fromkeys(found.key for other in others for found in variations(base, other)))
    if "target.name" in keys:
        keys = [key for key in keys if key == "target.name" or not key.startswith("target.")]
    named = [key.rpartition(".")[0] for key in keys if key.endswith(NAMING)]
    keys = [
        key for key in keys if key.endswith(NAMING) or not key.startswith(tuple(f"{one}." for one in named))
    ]
    keys.sort(key=lambda key: (key not in PLAIN, not key.endswith(NAMING)))
    return [", ".join(_part(side[0], key) for key in keys[:MAX_PARTS]) for side in sides]


def _part(run: Outline, key: str) -> str:
    value = value_at(run, key)
    if key in PLAIN:
        return value
    table, _, name = key.rpartition(".")
    return f"{table if key.endswith(NAMING) else name} {value}"
