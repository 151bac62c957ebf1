"""An index page: one line per run, with a link to its report."""

import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from bltybench.report import templating
from bltybench.report.summary import Summary
from bltybench.runs.folder import RunFolder


def index(runs: Sequence[tuple[RunFolder, Summary]], directory: Path) -> str:
    """Return the page for ``directory``: its links are relative to it."""
    rows = [
        (quote(os.path.relpath(folder.report_html, directory).replace(os.sep, "/")), summary)
        for folder, summary in sorted(runs, key=lambda run: run[1].created, reverse=True)
    ]
    return templating.render("index.html.j2", rows=rows)
