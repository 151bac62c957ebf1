"""The notebooks of ``analysis/``, executed on a run and exported as HTML into its folder."""

from __future__ import annotations

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
"""Bound on one cell."""

RUN_VARIABLE = "BLTYBENCH_RUN"


def notebooks() -> list[Path]:
    """Return the notebooks that come with bltybench."""
    return sorted(starter_file("analysis").glob("*.ipynb"))


def execute(path: Path, run: RunFolder) -> Any:
    """Execute a notebook on a run and return it, outputs filled in. Raises UserError naming what failed."""
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]  # not annotated there
    # The kernel is a process of its own and takes what it should look at from its environment.
    environment = {**os.environ, RUN_VARIABLE: str(run.path.absolute())}
    client = NotebookClient(notebook, timeout=TIMEOUT_S, kernel_name="python3")
    manager = client.create_kernel_manager()
    with tempfile.TemporaryDirectory(prefix="bltybench-") as folder:
        # Sockets in a folder of our own, not TCP ports that anyone on this machine could connect to.
        manager.transport, manager.ip = "ipc", f"{folder}/kernel"
        try:
            client.execute(env=environment, cwd=str(run.path))
        except CellExecutionError as error:
            raise UserError(f"failed: {error.ename}: {error.evalue}", where=path.name) from error
    return notebook


def export(run: RunFolder) -> list[Path]:
    """Execute every notebook on a run and write it as ``notebooks/NAME.html``; return what was written."""
    folder = run.path / "notebooks"
    folder.mkdir(exist_ok=True)
    exporter = HTMLExporter(template_name="lab")  # type: ignore[no-untyped-call]  # not annotated there
    written: list[Path] = []
    for path in notebooks():
        with warnings.catch_warnings():
            # nbconvert asks for alternative texts that notebooks cannot carry on their outputs.
            warnings.filterwarnings("ignore", message="Alternative text is missing")
            body, _ = exporter.from_notebook_node(execute(path, run))
        target = folder / f"{path.stem}.html"
        write_atomically(target, body.encode())
        written.append(target)
    return written
