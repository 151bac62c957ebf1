"""Shared by all tests."""

from __future__ import annotations

import os

# Importing Locust patches the standard library. The tests' own process must stay as it is: servers, threads
# and other clients run in it. Locust itself runs in processes of its own, patched as usual.
os.environ["LOCUST_SKIP_MONKEY_PATCH"] = "1"
import locust  # noqa: F401 - after the variable that it reads

del os.environ["LOCUST_SKIP_MONKEY_PATCH"]
