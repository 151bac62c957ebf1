"""The report of a run folder: seal, compute, write."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from bltybench.metrics.analysis import Analysis, load
from bltybench.report.export.junit import junit
from bltybench.report.export.markdown import markdown
from bltybench.report.export.prometheus import prometheus
from bltybench.report.export.raw import RawFile, hashes
from bltybench.report.subprocess_task import in_subprocess
from bltybench.report.summary import Summary, summary_of
from bltybench.runs.folder import RunFolder, write_atomically
from bltybench.runs.formats import USUAL
from bltybench.runs.ownership import sole_owner
from bltybench.runs.sealing.seal import seal

if TYPE_CHECKING:
    from bltybench.report.page.limits_section import LimitsSection


LIMITS_SECTION = "bltybench.report.page.limits_section"
"""Module that imports matplotlib, which takes half a second and which a summary alone does not need."""


def build(
    folder: RunFolder, *, notebooks: bool = False, formats: Collection[str] = USUAL, strict: bool = False
) -> Summary:
    """Write the report of a run and return its summary.

    Seal the run if needed (the format ``parquet``), and write the other ``formats`` (``runs.formats``). With
    ``notebooks``, also execute each notebook and write it as ``notebooks/*.html``. The same run gives the
    same bytes, except for notebooks. If ``strict``, a run that is INVALID or not decided fails. Wait for
    another report of the run. Raises UserError if the run is still active or can't be read.
    """
    with sole_owner(folder.path):
        with ThreadPoolExecutor(1) as other:
            # Arrow does most of the work without Python's lock, which the import needs.
            sealing = other.submit(seal, folder)
            if _draws(formats):
                importlib.import_module(LIMITS_SECTION)
            sealing.result()
        return _build(folder, notebooks=notebooks, formats=formats, strict=strict)


def _draws(formats: Collection[str]) -> bool:
    return bool({"html", "csv"} & set(formats))


def _build(folder: RunFolder, *, notebooks: bool, formats: Collection[str], strict: bool) -> Summary:
    with ExitStack() as tasks:
        limits: Callable[[], LimitsSection | None] | None = None
        if _draws(formats):
            from bltybench.report.page.limits_section import limits_section  # noqa: PLC0415 - as above

            limits = tasks.enter_context(in_subprocess(partial(limits_section, folder)))
        # Hashing releases Python's lock, so a thread is enough to use another core.
        raw = tasks.enter_context(ThreadPoolExecutor(1)).submit(hashes, folder)
        analysis = load(folder)
        summary = summary_of(folder, analysis, strict=strict)
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
        from bltybench.report.notebooks.export import export  # noqa: PLC0415 - Jupyter takes 1 s to import

        export(folder)
    return summary


def _draw(  # noqa: PLR0917 - all parts of a page
    folder: RunFolder,
    analysis: Analysis,
    summary: Summary,
    formats: Collection[str],
    raw: list[RawFile],
    limits: Callable[[], LimitsSection | None],
) -> None:
    """Draw the figures, and write their data and the page if ``formats`` has them."""
    from bltybench.report.figures.drawing import write_data  # noqa: PLC0415 - as above: matplotlib
    from bltybench.report.figures.run_figures import draw_all  # noqa: PLC0415 - as above
    from bltybench.report.page.page import page  # noqa: PLC0415 - as above

    drawings = draw_all(analysis, summary.tournament)
    section = limits()
    drawings += section.drawings if section else []
    if "csv" in formats:
        write_data(drawings, folder.path / "figures")
    if "html" in formats:
        write_atomically(folder.report_html, page(analysis, summary, drawings, raw, section).encode())
