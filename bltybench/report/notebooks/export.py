"""Execution of the notebooks in ``analysis/`` on a run, and their export as HTML."""

import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
from markupsafe import Markup
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbconvert.filters import markdown2html

from bltybench.errors import UserError
from bltybench.report import templating
from bltybench.report.notebooks import RUN_VARIABLE
from bltybench.report.notebooks.display import COLORS
from bltybench.runs.folder import RunFolder, write_atomically
from bltybench.scenario.file.starter import starter_file

TIMEOUT_S = 300
"""Maximum time of one cell."""

DOCS_LINK = re.compile(r'href="\.\./docs/[^"]*"')
"""A link to the docs, as the notebooks have them."""
EDITABLE = "## Edit and rerun"
"""Heading of the cell to edit, whose code is not folded."""


@dataclass(frozen=True, slots=True)
class ExportedCell:
    """A cell of an exported notebook: text, or code with its outputs as HTML."""

    markdown: Markup | None = None
    code: str = ""
    open: bool = False
    """Whether the code is unfolded."""
    outputs: list[Markup] = field(default_factory=list)


def notebooks() -> list[Path]:
    """Return the notebooks that come with bltybench."""
    return sorted(starter_file("analysis").glob("*.ipynb"))


def execute(paths: Sequence[Path], run: RunFolder) -> list[Any]:
    """Execute notebooks on a run and return them with their outputs. Raises UserError if a cell fails.

    They share one kernel, because a kernel takes seconds to import pandas and matplotlib.
    """
    read = [nbformat.read(path, as_version=4) for path in paths]  # type: ignore[no-untyped-call]  # as below
    cells = [cell for notebook in read for cell in notebook.cells]
    joined = nbformat.v4.new_notebook(cells=cells)  # type: ignore[no-untyped-call]  # not annotated there
    environment = {**os.environ, RUN_VARIABLE: str(run.path.absolute())}
    client = NotebookClient(joined, timeout=TIMEOUT_S, kernel_name="python3")
    manager = client.create_kernel_manager()
    with tempfile.TemporaryDirectory(prefix="bltybench-") as directory:
        # Sockets in a private directory: any user of this machine can connect to a TCP port.
        manager.transport, manager.ip = "ipc", f"{directory}/kernel"
        try:
            client.execute(env=environment, cwd=str(run.path))
        except CellExecutionError as error:
            failed = next(path for path, notebook in zip(paths, read, strict=True) if _has_error(notebook))
            raise UserError(f"failed: {error.ename}: {error.evalue}", where=failed.name) from error
    return read


def _has_error(notebook: Any) -> bool:
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", []))
    return any(output.output_type == "error" for output in outputs)


def export(run: RunFolder) -> list[Path]:
    """Execute every notebook on a run, write ``notebooks/NAME.html``, and return the paths."""
    directory = run.path / "notebooks"
    directory.mkdir(exist_ok=True)
    written: list[Path] = []
    paths = notebooks()
    for path, notebook in zip(paths, execute(paths, run), strict=True):
        target = directory / f"{path.stem}.html"
        write_atomically(target, to_html(notebook, run.path.absolute().name).encode())
        written.append(target)
    return written


def to_html(notebook: Any, run_id: str) -> str:
    """Return an executed notebook as one page that loads nothing and has its code folded."""
    first = str(notebook.cells[0].source)
    title = first.partition("\n")[0].removeprefix("# ")
    return templating.render(
        "notebook.html.j2", title=title, run_id=run_id, cells=list(_cells(notebook.cells))
    )


def _cells(cells: Iterable[Any]) -> Iterator[ExportedCell]:
    """Yield text and code. Code without output goes with the next code."""
    code, to_edit = "", False
    for cell in cells:
        if cell.cell_type == "markdown":
            to_edit = EDITABLE in cell.source
            # The folder of a run has no docs. Its page has the method.
            html = DOCS_LINK.sub('href="../report.html#method"', str(markdown2html(cell.source)))
            yield ExportedCell(markdown=Markup(html))  # noqa: S704 - text of our own notebooks
        else:
            code = f"{code}\n\n{cell.source}".strip()
            if cell.outputs:
                yield ExportedCell(code=code, open=to_edit, outputs=[_output(out) for out in cell.outputs])
                code = ""


def _output(output: Any) -> Markup:
    data = output.get("data", {})
    if "text/html" in data:
        # Escaped by the functions that made it, and the page's policy allows no scripts.
        return Markup(data["text/html"].replace(COLORS, ""))  # noqa: S704
    return Markup("<pre>{}</pre>").format(data.get("text/plain", output.get("text", "")))
