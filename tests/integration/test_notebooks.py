"""The notebooks: committed without outputs, and whole on a made run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support_runs import attempt, realistic, write_run

from bltybench.errors import UserError
from bltybench.report import notebooks
from bltybench.runs.attempt import Attempt
from bltybench.runs.store import seal

NOTEBOOKS = notebooks.notebooks()

# The kernel is another process; its own warnings stay there. What remains is Jupyter's machinery in this one.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Proactor event loop:RuntimeWarning"),
    pytest.mark.timeout(300),
]


def test_the_five_are_there() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["concurrency", "latency", "rate_limits", "rpm", "tpm"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_thin_and_without_outputs(path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert len(cells) <= 9
    for cell in cells:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_runs(path: Path, tmp_path: Path) -> None:
    run = write_run(tmp_path / "20261122-141510-made", realistic())
    seal(run)
    executed = notebooks.execute(path, run)
    shown = [output for cell in executed.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("20261122-141510-made" in output.get("text", "") for output in shown)
    assert not any(output.output_type == "error" or output.get("name") == "stderr" for output in shown)


@pytest.mark.parametrize("attempts", [[], [attempt()]], ids=["empty", "one"])
def test_exported_even_where_there_is_next_to_nothing(attempts: list[Attempt], tmp_path: Path) -> None:
    run = write_run(tmp_path / "20261122-141510-made", attempts, seconds=[])
    written = notebooks.export(run)
    assert [path.name for path in written] == [f"{path.stem}.html" for path in NOTEBOOKS]
    assert all("20261122-141510-made" in path.read_text(encoding="utf-8") for path in written)


def test_a_notebook_that_fails_is_named(tmp_path: Path) -> None:
    broken = json.loads(NOTEBOOKS[0].read_text(encoding="utf-8"))
    broken["cells"] = [cell for cell in broken["cells"] if cell["cell_type"] == "code"][:1]
    broken["cells"][0]["source"] = ["1 / 0"]
    path = tmp_path / "broken.ipynb"
    path.write_text(json.dumps(broken), encoding="utf-8")
    with pytest.raises(UserError, match=r"broken\.ipynb: failed: ZeroDivisionError"):
        notebooks.execute(path, write_run(tmp_path / "20261122-141510-made", []))
