"""Setup shared by the unit tests."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from support_runs import generator_seconds, realistic, write_run

from bltybench.report.build import build
from bltybench.report.summary import Summary
from bltybench.runs.folder import RunFolder


@pytest.fixture(scope="module", autouse=True)
def no_sockets() -> Iterator[None]:
    """Fail a unit test that connects, binds, or listens. Event loops may still use socket pairs."""

    def refuse(self: socket.socket, *_: Any) -> None:
        raise AssertionError("a unit test must not use sockets: move it to tests/integration")

    with pytest.MonkeyPatch.context() as patch:
        for method in ("connect", "connect_ex", "bind", "listen"):
            patch.setattr(socket.socket, method, refuse)
        yield


@pytest.fixture(scope="session")
def usual_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, Summary]:
    """A realistic run with its complete report, for tests that only read it."""
    path = tmp_path_factory.mktemp("usual") / "20261122-141510-made"
    folder = write_run(path, realistic(), seconds=generator_seconds(90))
    return folder, build(folder)
