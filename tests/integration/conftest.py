"""Shared by the integration tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support_locust import end_started
from support_wire import Server

from bltybench.wire import Reader


@pytest.fixture(autouse=True)
def nothing_left_running() -> Iterator[None]:
    """End the Locust processes of a test that failed before it could."""
    yield
    end_started()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server that answers each path in a way of its own, in a process of its own."""
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def reader() -> Reader:
    """What the client makes of bytes."""
    return Reader()
