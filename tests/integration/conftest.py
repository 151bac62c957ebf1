"""Setup shared by the integration tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support_locust import end_started
from support_wire import Server

from bltybench.wire import Reader


@pytest.fixture(autouse=True)
def nothing_left_running() -> Iterator[None]:
    """Stop Locust processes that a failed test left running."""
    yield
    end_started()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server in its own process, with a different behavior for each path."""
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def reader() -> Reader:
    """A reader for one test's responses."""
    return Reader()
