"""What a run was: everything a reader needs to believe it, compare it and repeat it, and no secret."""

from __future__ import annotations

import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec
import psutil

from bltybench.runs.attempt import FORMAT_VERSION

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

REPORTED_PACKAGES = ("bltybench", "locust", "gevent", "httptools", "msgspec", "pandas", "pyarrow")


class Clock(msgspec.Struct, frozen=True, kw_only=True):
    """The anchor that ties the run's axis (ns from its start) to the monotonic and the wall clock."""

    monotonic_ns: int
    wall_ns: int
    boot_id: str | None = None
    """Monotonic clocks compare only within one boot of one machine."""

    @classmethod
    def now(cls) -> Clock:
        """Anchor an axis at this moment."""
        return cls(monotonic_ns=time.monotonic_ns(), wall_ns=time.time_ns(), boot_id=boot_id())

    def local_start_ns(self) -> int:
        """Return the run's start on *this* machine's monotonic clock (ns).

        On the machine that made the anchor this is exact; elsewhere it goes by the wall clocks of the
        two machines and is as good as their agreement.
        """
        if self.boot_id is not None and self.boot_id == boot_id():
            return self.monotonic_ns
        return time.monotonic_ns() - (time.time_ns() - self.wall_ns)


class TargetInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Where the load went. Holds the *name* of the key's variable, never the key."""

    name: str
    base_url: str
    api_key_env: str | None = None
    requests_per_min: int | None = None
    tokens_per_min: int | None = None
    concurrency: int | None = None
    budget: dict[str, float | None] = {}
    """The caps: requests, tokens, money."""
    prices: dict[str, dict[str, float]] = {}
    """By model: input_per_million, output_per_million."""


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """The machine that made the load."""

    name: str
    system: str
    cpus: int
    memory_bytes: int

    @classmethod
    def here(cls) -> Host:
        """Describe this machine."""
        return cls(
            name=platform.node(),
            system=f"{platform.system()} {platform.release()} {platform.machine()}",
            cpus=psutil.cpu_count() or 1,
            memory_bytes=psutil.virtual_memory().total,
        )


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """``manifest.json`` of a run folder."""

    format_version: int = FORMAT_VERSION
    run_id: str
    created: str
    """UTC, ISO 8601."""
    scenario: str
    resolved: dict[str, Any]
    """The scenario as it ran, defaults and overrides applied."""
    target: TargetInfo
    command: list[str]
    """The command that repeats the run."""
    versions: dict[str, str]
    host: Host
    clock: Clock
    workers: int = 1
    ended_ns: int | None = None
    """When the load stopped, on the run's axis; None while it runs or if it was killed."""
    planned_calls: int | None = None
    """Open loop: how many calls were due until the load stopped. None for a closed loop, or while it runs."""
    ended: str | None = None
    """Why it stopped: completed, interrupted, budget."""


def boot_id() -> str | None:
    """Return the identifier of this boot of this machine, None where the system does not tell."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return None


def package_versions() -> dict[str, str]:
    """Return the versions of what measures and reports, with Python's own."""
    found = {"python": platform.python_version()}
    for name in REPORTED_PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
