"""A run folder's report: seal, compute, write."""

from __future__ import annotations

import msgspec
import pandas as pd

from bltybench.metrics.analysis import load
from bltybench.report.figures import Drawing, draw_all
from bltybench.report.junit import junit
from bltybench.report.page import page
from bltybench.report.summary import Summary, summarise
from bltybench.runs.folder import RunFolder, write_atomically
from bltybench.runs.search import read_search
from bltybench.runs.store import seal


def build(folder: RunFolder, *, notebooks: bool = False) -> Summary:
    """Make the whole report of a run and return its summary.

    Seals the run if that was not done, then writes ``summary.json``, ``report.html``, ``junit.xml`` and
    ``figures/*.csv``; with ``notebooks`` also each notebook, executed, as ``notebooks/*.html``. The same run
    gives the same bytes (notebooks excepted). Raises UserError where the run cannot be read.
    """
    seal(folder)
    analysis = load(folder)
    summary = msgspec.structs.replace(summarise(analysis), search=read_search(folder))
    drawings = draw_all(analysis)
    _write_data(folder, drawings)
    write_atomically(folder.summary_json, summary.to_json())
    write_atomically(folder.junit_xml, junit(summary))
    write_atomically(folder.report_html, page(analysis, summary, drawings, folder).encode())
    if notebooks:
        from bltybench.report.notebooks import export  # noqa: PLC0415  # Jupyter is slow to import

        export(folder)
    return summary


def _write_data(folder: RunFolder, drawings: list[Drawing]) -> None:
    """Write the data behind every figure, so that anyone can draw it anew."""
    (folder.path / "figures").mkdir(exist_ok=True)
    for drawing in drawings:
        for name, data in drawing.data.items():
            _to_csv(data, folder, name)


def _to_csv(data: pd.DataFrame, folder: RunFolder, name: str) -> None:
    text = data.to_csv(index=False, float_format="%.10g", lineterminator="\n")
    write_atomically(folder.path / "figures" / f"{name}.csv", text.encode())
