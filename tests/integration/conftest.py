"""Shared by the integration tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support_locust import end_started


@pytest.fixture(autouse=True)
def nothing_left_running() -> Iterator[None]:
    """End the Locust processes of a test that failed before it could."""
    yield
    end_started()
