"""Shared by all tests."""

from __future__ import annotations

import os

# Importing Locust patches the standard library. The tests' own process must stay as it is: servers, threads
# and other clients run in it. Locust itself runs in processes of its own, patched as usual.
os.environ["LOCUST_SKIP_MONKEY_PATCH"] = "1"
import locust  # noqa: F401 - after the variable that it reads

del os.environ["LOCUST_SKIP_MONKEY_PATCH"]

# The processes that tests start find compiled what the ones before them read, as a user's do: half of a
# command's start goes into compiling otherwise.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
