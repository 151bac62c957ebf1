"""A run folder's report: seal, compute, write."""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from bltybench.metrics.analysis import Analysis, load
from bltybench.report.export.junit import junit
from bltybench.report.export.markdown import markdown
from bltybench.report.export.prometheus import prometheus
from bltybench.report.export.raw import RawFile, hashes
from bltybench.report.subprocess_task import beside
from bltybench.report.summary import Summary, summarize
from bltybench.runs.folder import RunFolder, write_atomically
from bltybench.runs.formats import USUAL
from bltybench.runs.search import read_search
from bltybench.runs.store import seal

if TYPE_CHECKING:
    from bltybench.report.page.limits_section import LimitsSection


def build(folder: RunFolder, *, notebooks: bool = False, formats: Collection[str] = USUAL) -> Summary:
    """Make the report of a run and return its summary.

    Seals the run if that was not done (which is all of ``parquet``), then writes the files of ``formats``,
    names of ``runs.formats``; with ``notebooks`` also each notebook, executed, as ``notebooks/*.html``. The
    same run gives the same bytes (notebooks excepted). Raises UserError where the run cannot be read.
    """
    seal(folder)
    with ExitStack() as others:
        limits: Callable[[], LimitsSection | None] | None = None
        if {"html", "csv"} & set(formats):
            # What draws is slow to import, and a summary alone has no use for it.
            from bltybench.report.page.limits_section import limits_section  # noqa: PLC0415

            limits = others.enter_context(beside(partial(limits_section, folder)))
        # Another core sums up the raw files meanwhile: that does not hold Python's lock.
        raw = others.enter_context(ThreadPoolExecutor(1)).submit(hashes, folder)
        analysis = load(folder)
        summary = msgspec.structs.replace(summarize(analysis), search=read_search(folder))
        if "json" in formats:
            write_atomically(folder.summary_json, summary.to_json())
        if "junit" in formats:
            write_atomically(folder.junit_xml, junit(summary))
        if "md" in formats:
            write_atomically(folder.summary_md, markdown(summary).encode())
        if "prom" in formats:
            write_atomically(folder.metrics_prom, prometheus(summary).encode())
        if limits is not None:
            _draw(folder, analysis, summary, formats, raw.result(), limits)
    if notebooks:
        from bltybench.report.notebooks.export import export  # noqa: PLC0415

        export(folder)
    return summary


def _draw(  # noqa: PLR0917  # all that a page is made of
    folder: RunFolder,
    analysis: Analysis,
    summary: Summary,
    formats: Collection[str],
    raw: list[RawFile],
    limits: Callable[[], LimitsSection | None],
) -> None:
    """Draw the figures; write their data and the page, as far as ``formats`` asks for them."""
    from bltybench.report.figures.drawing import write_data  # noqa: PLC0415
    from bltybench.report.figures.figures import draw_all  # noqa: PLC0415
    from bltybench.report.page.page import page  # noqa: PLC0415

    drawings = draw_all(analysis)
    section = limits()
    drawings += section.drawings if section else []
    if "csv" in formats:
        write_data(drawings, folder.path / "figures")
    if "html" in formats:
        write_atomically(folder.report_html, page(analysis, summary, drawings, raw, section).encode())
