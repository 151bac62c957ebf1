"""Shared by the unit tests."""

from __future__ import annotations

import pytest
from support_runs import generator_seconds, realistic, write_run

from bltybench.report import Summary, build
from bltybench.runs.folder import RunFolder


@pytest.fixture(scope="session")
def usual_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, Summary]:
    """A realistic run with its whole report, for tests that only look at it."""
    path = tmp_path_factory.mktemp("usual") / "20261122-141510-made"
    folder = write_run(path, realistic(), seconds=generator_seconds(90))
    return folder, build(folder)
