"""A run folder's report: seal, compute, write."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from bltybench.metrics.analysis import load
from bltybench.report.drawing import write_data
from bltybench.report.figures import draw_all
from bltybench.report.junit import junit
from bltybench.report.limits_section import limits_section
from bltybench.report.markdown import markdown
from bltybench.report.page import page
from bltybench.report.prometheus import prometheus
from bltybench.report.summary import Summary, summarise
from bltybench.runs.folder import RunFolder, write_atomically
from bltybench.runs.formats import USUAL
from bltybench.runs.search import read_search
from bltybench.runs.store import seal


def build(folder: RunFolder, *, notebooks: bool = False, formats: Collection[str] = USUAL) -> Summary:
    """Make the report of a run and return its summary.

    Seals the run if that was not done (which is all of ``parquet``), then writes the files of ``formats``,
    names of ``runs.formats``; with ``notebooks`` also each notebook, executed, as ``notebooks/*.html``. The
    same run gives the same bytes (notebooks excepted). Raises UserError where the run cannot be read.
    """
    seal(folder)
    analysis = load(folder)
    summary = msgspec.structs.replace(summarise(analysis), search=read_search(folder))
    drawn = bool({"html", "csv"} & set(formats))
    limits = limits_section(folder) if drawn else None
    drawings = [*draw_all(analysis), *(limits.drawings if limits else [])] if drawn else []
    if "csv" in formats:
        write_data(drawings, folder.path / "figures")
    if "json" in formats:
        write_atomically(folder.summary_json, summary.to_json())
    if "junit" in formats:
        write_atomically(folder.junit_xml, junit(summary))
    if "md" in formats:
        write_atomically(folder.summary_md, markdown(summary).encode())
    if "prom" in formats:
        write_atomically(folder.metrics_prom, prometheus(summary).encode())
    if "html" in formats:
        write_atomically(folder.report_html, page(analysis, summary, drawings, folder, limits).encode())
    if notebooks:
        from bltybench.report.notebooks import export  # noqa: PLC0415  # Jupyter is slow to import

        export(folder)
    return summary
