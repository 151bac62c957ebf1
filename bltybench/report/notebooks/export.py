"""Execution of the notebooks in ``analysis/`` on a run, and their export as HTML."""

import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbconvert import HTMLExporter

from bltybench.errors import UserError
from bltybench.runs.folder import RunFolder, write_atomically
from bltybench.scenario.file.starter import starter_file

TIMEOUT_S = 300
"""Maximum time of one cell."""

RUN_VARIABLE = "BLTYBENCH_RUN"
"""Environment variable that tells the kernel, a process of its own, which run to read."""


def notebooks() -> list[Path]:
    """Return the notebooks that come with bltybench."""
    return sorted(starter_file("analysis").glob("*.ipynb"))


def execute(path: Path, run: RunFolder) -> Any:
    """Execute a notebook on a run and return it with its outputs. Raises UserError if a cell fails."""
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]  # not annotated there
    environment = {**os.environ, RUN_VARIABLE: str(run.path.absolute())}
    client = NotebookClient(notebook, timeout=TIMEOUT_S, kernel_name="python3")
    manager = client.create_kernel_manager()
    with tempfile.TemporaryDirectory(prefix="bltybench-") as directory:
        # Sockets in a private directory: any user of this machine can connect to a TCP port.
        manager.transport, manager.ip = "ipc", f"{directory}/kernel"
        try:
            client.execute(env=environment, cwd=str(run.path))
        except CellExecutionError as error:
            raise UserError(f"failed: {error.ename}: {error.evalue}", where=path.name) from error
    return notebook


def export(run: RunFolder) -> list[Path]:
    """Execute every notebook on a run, write ``notebooks/NAME.html``, and return the paths."""
    directory = run.path / "notebooks"
    directory.mkdir(exist_ok=True)
    exporter = HTMLExporter(template_name="lab")  # type: ignore[no-untyped-call]  # not annotated there
    written: list[Path] = []
    for path in notebooks():
        with warnings.catch_warnings():
            # nbconvert expects alternative texts, but outputs of cells can't have any.
            warnings.filterwarnings("ignore", message="Alternative text is missing")
            body, _ = exporter.from_notebook_node(execute(path, run))
        target = directory / f"{path.stem}.html"
        write_atomically(target, body.encode())
        written.append(target)
    return written
