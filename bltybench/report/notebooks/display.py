"""What the notebooks in ``analysis/`` show: sentences, figures, tables with units, and lists, as HTML."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from markupsafe import Markup

from bltybench.metrics.analysis import Analysis
from bltybench.report import text
from bltybench.report.figures import style
from bltybench.report.figures.drawing import Drawing
from bltybench.report.notebooks.cells import cell, is_part_of_a_cell, label
from bltybench.report.summary import records

COLORS = ' style="{}"'.format(" ".join(f"{name}: {color};" for color, name in style.VARIABLES.items()))
"""Light colors of figures. The export removes them, because its style sheet has its own."""
MAX_ROWS = 30
"""Maximum rows of a table."""


@dataclass(frozen=True, slots=True, repr=False)
class Html:
    """A piece of HTML that notebooks display."""

    html: Markup

    def _repr_html_(self) -> str:
        return str(self.html)


def heading(run: Analysis) -> Html:
    """Show which run this is, and whether its numbers describe the server."""
    manifest = run.manifest
    facts = [
        manifest.run_id,
        run.scenario.title or manifest.scenario,
        f"{manifest.target_names}, {', '.join(run.scenario.models_on())}",
        f"{pd.Timestamp(manifest.created):%Y-%m-%d %H:%M} UTC",
        text.duration(run.end_ns / 1e9),
        text.count(len(run.attempts), "attempt"),
    ]
    reasons = [finding.reason for finding in run.findings if finding.reason]
    verdict = "VALID: the load generator was not the bottleneck."
    if reasons:
        verdict = f"INVALID: {'; '.join(reasons)}. These numbers may not describe the server."
    line = " · ".join(text.bounded(fact) for fact in facts)
    return Html(Markup('<p class="quiet">{}<br>{}</p>').format(line, text.bounded(verdict, 600)))


def conclusion(says: str) -> Html:
    """Show the notebook's conclusion."""
    return Html(Markup('<p class="conclusion" style="font-size: 1.3em"><b>{}</b></p>').format(says))


def sentence(says: str) -> Html:
    """Show a sentence."""
    return Html(_sentence(says))


def bullets(lines: Sequence[str], *, empty: str) -> Html:
    """Show a list, or the sentence ``empty`` if it has no items."""
    if not lines:
        return sentence(empty)
    items = Markup("").join(Markup("<li>{}</li>").format(text.bounded(line, 600)) for line in lines)
    return Html(Markup('<ul class="method">{}</ul>').format(items))


def figures(*drawings: Drawing, empty: str = "There is nothing to draw.") -> Html:
    """Show figures, each below its title and sentence, or the sentence ``empty`` if there are none."""
    titled = (Markup("<h3>{}</h3>{}{}").format(one.title, _sentence(one.says), _svg(one)) for one in drawings)
    return Html(Markup("").join(titled) or _sentence(empty))


def figure(drawing: Drawing, *, empty: str = "") -> Html:
    """Show a figure without its title; if there is nothing to draw, ``empty`` or the figure's sentence."""
    return Html(_svg(drawing) or _sentence(empty or drawing.says))


def table(frame: pd.DataFrame, *, empty: str, unit: str = "") -> Html:
    """Show a frame with units, or the sentence ``empty`` if it has no rows. ``unit``: that of statistics."""
    if frame.empty:
        return sentence(empty)
    columns = [name for name in frame.columns if not is_part_of_a_cell(name, frame.columns)]
    styles = {name: f"text-align: {'right' if _is_number(frame[name]) else 'left'}" for name in columns}
    rows = [
        _row("td", [(styles[name], cell(name, row)) for name in columns])
        for row in records(frame.head(MAX_ROWS))
    ]
    head = _row("th", [(styles[name], label(name, unit)) for name in columns])
    shown = Markup('<div class="scroll"><table><thead>{}</thead><tbody>{}</tbody></table></div>').format(
        head, Markup("").join(rows)
    )
    if len(frame) > MAX_ROWS:
        shown += _sentence(f"The first {MAX_ROWS} of {len(frame):,} rows.")
    return Html(shown)


def transposed(frame: pd.DataFrame) -> Html:
    """Show a frame with a row for each of its columns. Its first column has the headings."""
    first, *columns = frame.columns
    left, right = "text-align: left", "text-align: right"
    rows = records(frame)
    head = _row("th", [(left, ""), *((right, cell(first, row)) for row in rows)])
    body = [
        _row("td", [(left, label(name)), *((right, cell(name, row)) for row in rows)]) for name in columns
    ]
    return Html(
        Markup('<div class="scroll"><table><thead>{}</thead><tbody>{}</tbody></table></div>').format(
            head, Markup("").join(body)
        )
    )


def _is_number(column: "pd.Series[Any]") -> bool:
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def _row(tag: str, cells: Iterable[tuple[str, str]]) -> Markup:
    filled = [Markup('<{} style="{}">{}</{}>').format(tag, how, content, tag) for how, content in cells]
    return Markup("<tr>{}</tr>").format(Markup("").join(filled))


def _sentence(says: str) -> Markup:
    return Markup('<p class="says">{}</p>').format(says)


def _svg(drawing: Drawing) -> Markup:
    if not drawing.wide:
        return Markup("")
    # Browsers don't show hidden elements. The export's style sheet shows the narrow drawing on phones.
    width = drawing.wide.partition('viewBox="0 0 ')[2].partition(" ")[0]
    svg = Markup(
        '<div class="wide" style="max-width: {}px">{}</div><div class="narrow" hidden>{}</div>'
    ).format(
        width,
        Markup(drawing.wide),  # noqa: S704 - drawn by us; matplotlib escapes its texts
        Markup(drawing.narrow),  # noqa: S704 - drawn by us; matplotlib escapes its texts
    )
    return Markup('<figure class="figure"{}>{}</figure>').format(Markup(COLORS), svg)  # noqa: S704
