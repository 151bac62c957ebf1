"""The page of a comparison. docs/compare.md describes it."""

from collections.abc import Sequence
from pathlib import Path

from bltybench.report import templating
from bltybench.report.comparison import overlays
from bltybench.report.comparison.model import Comparison, Side, name_of
from bltybench.report.figures.drawing import write_data
from bltybench.runs.folder import write_atomically


def write_page(path: Path, comparison: Comparison, sides: Sequence[Side]) -> None:
    """Write a comparison as one HTML document, and its figures' data as CSV to ``NAME-figures``."""
    drawings = overlays.draw_all(comparison, sides)
    data = path.with_name(f"{path.stem}-figures")
    html = templating.render(
        "compare.html.j2",
        comparison=comparison,
        figures=[templating.figure(drawing, data.name) for drawing in drawings],
        sides=[comparison.base, *(candidate.side for candidate in comparison.candidates)],
        name_of=name_of,
    )
    write_data(drawings, data)
    write_atomically(path, html.encode())
