"""One page over several runs: a line each, with a way to the report."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from bltybench.report import templating
from bltybench.report.summary import Summary
from bltybench.runs.folder import RunFolder


def index(runs: Sequence[tuple[RunFolder, Summary]], place: Path) -> str:
    """Return the page, its links relative to ``place``, the folder that it will lie in."""
    rows = [
        (quote(os.path.relpath(folder.report_html, place).replace(os.sep, "/")), summary)
        for folder, summary in sorted(runs, key=lambda run: run[1].created, reverse=True)
    ]
    return templating.environment().get_template("index.html.j2").render(rows=rows)
