"""The page of a comparison. docs/compare.md describes it."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from bltybench.report import templating
from bltybench.report.comparison.changes import draw_changes
from bltybench.report.comparison.model import ComparedSide, Comparison, in_sentence, name_of, value_of
from bltybench.report.comparison.overlays import draw_distributions
from bltybench.report.figures.drawing import write_data
from bltybench.runs.folder import write_atomically


def write_page(
    path: Path, comparison: Comparison, sides: Sequence[ComparedSide], answers: Sequence[str]
) -> None:
    """Write a comparison as one HTML document, and its figures' data as CSV to ``NAME-figures``.

    ``answers`` has the answer of each side's first run.
    """
    changes = [draw_changes(comparison, number) for number in range(len(comparison.candidates))]
    distributions = draw_distributions(sides)
    data = path.with_name(f"{path.stem}-figures")
    html = templating.render(
        "compare.html.j2",
        comparison=comparison,
        changes=[[templating.figure(drawing, data.name) for drawing in drawn] for drawn in changes],
        distributions=[templating.figure(drawing, data.name) for drawing in distributions],
        sides=[comparison.base, *(candidate.side for candidate in comparison.candidates)],
        answers=answers,
        name_of=name_of,
        in_sentence=in_sentence,
        value_of=value_of,
    )
    write_data([*chain.from_iterable(changes), *distributions], data)
    write_atomically(path, html.encode())
