"""A run folder's report: seal, compute, write."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

import msgspec

from bltybench.metrics.analysis import Analysis, load
from bltybench.report.junit import junit
from bltybench.report.markdown import markdown
from bltybench.report.prometheus import prometheus
from bltybench.report.raw import RawFile, hashes
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
    with ThreadPoolExecutor(1) as other:
        # Another core sums up the raw files meanwhile: that does not hold Python's lock.
        raw = other.submit(hashes, folder)
        analysis = load(folder)
    summary = msgspec.structs.replace(summarise(analysis), search=read_search(folder))
    if "json" in formats:
        write_atomically(folder.summary_json, summary.to_json())
    if "junit" in formats:
        write_atomically(folder.junit_xml, junit(summary))
    if "md" in formats:
        write_atomically(folder.summary_md, markdown(summary).encode())
    if "prom" in formats:
        write_atomically(folder.metrics_prom, prometheus(summary).encode())
    if {"html", "csv"} & set(formats):
        _draw(folder, analysis, summary, formats, raw.result())
    if notebooks:
        from bltybench.report.notebooks import export  # noqa: PLC0415  # Jupyter is slow to import

        export(folder)
    return summary


def _draw(
    folder: RunFolder, analysis: Analysis, summary: Summary, formats: Collection[str], raw: list[RawFile]
) -> None:
    """Draw the figures; write their data and the page, as far as ``formats`` asks for them."""
    # What draws is slow to import, and a summary alone has no use for it.
    from bltybench.report.drawing import write_data  # noqa: PLC0415
    from bltybench.report.figures import draw_all  # noqa: PLC0415
    from bltybench.report.limits_section import limits_section  # noqa: PLC0415
    from bltybench.report.page import page  # noqa: PLC0415

    limits = limits_section(folder)
    drawings = [*draw_all(analysis), *(limits.drawings if limits else [])]
    if "csv" in formats:
        write_data(drawings, folder.path / "figures")
    if "html" in formats:
        write_atomically(folder.report_html, page(analysis, summary, drawings, raw, limits).encode())
