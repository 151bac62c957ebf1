"""The notebooks: committed without outputs, and executed on synthetic runs."""

from __future__ import annotations

import ast
import io
import json
import re
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from IPython.core.formatters import DisplayFormatter
from support_runs import attempt, realistic, write_run

from bltybench.errors import UserError
from bltybench.report.notebooks import RUN_VARIABLE, export
from bltybench.runs.folder import RunFolder
from bltybench.runs.sealing.seal import seal

NOTEBOOKS = export.notebooks()

# Warnings of Jupyter in this process. The kernel is another process, with its own warnings.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Proactor event loop:RuntimeWarning"),
    pytest.mark.timeout(300),
]


def test_six_notebooks_exist() -> None:
    assert [path.stem for path in NOTEBOOKS] == [
        "compare",
        "concurrency",
        "latency",
        "rate_limits",
        "rpm",
        "tpm",
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_short_and_has_no_outputs(path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert len(cells) <= 14
    assert "](../docs/" in "".join(cells[0]["source"])
    assert any("## Edit and rerun" in "".join(cell["source"]) for cell in cells)
    for cell in cells:
        if cell["cell_type"] == "code":
            assert len(cell["source"]) <= 8
            assert cell["outputs"] == []
            assert cell["execution_count"] is None


def test_all_notebooks_are_executed_and_exported(tmp_path: Path) -> None:
    run = write_run(tmp_path / "20261122-141510-made", realistic())
    seal(run)
    written = export.export(run)
    assert [path.name for path in written] == [f"{path.stem}.html" for path in NOTEBOOKS]
    for path in written:
        html = path.read_text(encoding="utf-8")
        assert "<title>20261122-141510-made: " in html
        assert '<p class="conclusion"' in html
        assert "<script" not in html
        assert "../docs/" not in html
        assert not re.search(r"https?://(?!www\.w3\.org/)", html)
        assert "Warning" not in html
        if path.stem != "compare":
            assert "<svg" in html


@pytest.fixture(scope="module", params=[[], [attempt()]], ids=["empty", "one"])
def next_to_nothing(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run with no attempt, or with one."""
    path = tmp_path_factory.mktemp("little") / "20261122-141510-made"
    run = write_run(path, request.param, seconds=[])
    seal(run)
    return run


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_has_output_for_a_nearly_empty_run(
    path: Path, next_to_nothing: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Run the cells without a kernel, which takes seconds to start, and display results as IPython does.
    monkeypatch.setenv(RUN_VARIABLE, str(next_to_nothing.path))
    names: dict[str, Any] = {}
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    first, second, *others = (
        run_cell("".join(cell["source"]), names) for cell in cells if cell["cell_type"] == "code"
    )
    assert first == ""
    assert "20261122-141510-made" in second
    assert all(others)
    assert "Traceback" not in "".join(others)


def run_cell(source: str, names: dict[str, Any]) -> str:
    """Run a cell and return its output and all display formats of its last expression."""
    body = ast.parse(source).body
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    shown = ""
    with redirect_stdout(io.StringIO()) as printed:
        exec(compile(ast.Module(body, []), "cell", "exec"), names)  # noqa: S102 - our own
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)  # noqa: S307 - our own
            forms, _ = DisplayFormatter().format(value)  # type: ignore[no-untyped-call]  # not annotated there
            shown = "" if value is None else "".join(map(str, forms.values()))
    return printed.getvalue() + shown


def test_failing_notebook_is_named_in_the_error(tmp_path: Path) -> None:
    broken = json.loads(NOTEBOOKS[0].read_text(encoding="utf-8"))
    broken["cells"] = [cell for cell in broken["cells"] if cell["cell_type"] == "code"][:1]
    broken["cells"][0]["source"] = ["1 / 0"]
    path = tmp_path / "broken.ipynb"
    path.write_text(json.dumps(broken), encoding="utf-8")
    with pytest.raises(UserError, match=r"broken\.ipynb: failed: ZeroDivisionError"):
        export.execute([path], write_run(tmp_path / "20261122-141510-made", []))
