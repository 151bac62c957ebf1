"""The manifest: everything needed to interpret, compare, and repeat a run, and no secrets."""

from __future__ import annotations

import platform
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import psutil
from pydantic import ValidationError

from bltybench.errors import UserError
from bltybench.runs.attempt import FORMAT_VERSION
from bltybench.runs.clocks import WorkerClock
from bltybench.scenario.api.documented_limits import Limit, usual_limits
from bltybench.scenario.base import MAX_DURATION_S
from bltybench.scenario.workload import Scenario

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

TIME_NAMESPACE = Path("/proc/self/ns/time")
FIRST_TIME_NAMESPACE = "time:[4026531834]"
"""The namespace in which a machine starts (linux/proc_ns.h)."""

MAX_INTEGER = 2**53
"""Largest integer that a float represents exactly. No count comes near it."""
MAX_RUN_NS = int((MAX_DURATION_S + 86_400) * 1e9)
"""Latest time on a run's axis: that of the longest scenario and a day to finish it."""
MAX_WALL_NS = 2**62
"""Latest start of a run, in the year 2116."""

Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_INTEGER)]
Cap = Annotated[float, msgspec.Meta(ge=0, le=1e300)]

REPORTED_PACKAGES = ("bltybench", "locust", "gevent", "httptools", "msgspec", "pandas", "pyarrow")


class Clock(msgspec.Struct, frozen=True, kw_only=True):
    """The anchor that ties the run's axis (ns since its start) to the monotonic and wall clocks."""

    monotonic_ns: Annotated[int, msgspec.Meta(ge=-MAX_WALL_NS, le=MAX_WALL_NS)]
    wall_ns: Annotated[int, msgspec.Meta(ge=0, le=MAX_WALL_NS)]
    boot_id: str | None = None
    """Monotonic clocks are comparable only within one boot of one machine."""

    @classmethod
    def now(cls) -> Clock:
        """Return an anchor at the current time."""
        return cls(monotonic_ns=time.monotonic_ns(), wall_ns=time.time_ns(), boot_id=boot_id())

    def local_start_ns(self) -> int:
        """Return the run's start on this machine's monotonic clock, in ns.

        It is exact on the machine that created the anchor. Another machine gets an estimate by the wall
        clocks, until it has measured its clock (``load.distributed.clock_exchange``).
        """
        if self.boot_id is not None and self.boot_id == boot_id():
            return self.monotonic_ns
        return time.monotonic_ns() - (time.time_ns() - self.wall_ns)


class TargetInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The target of the load. Holds the name of the key's variable, never the key."""

    name: str
    base_url: str
    api_key_env: str | None = None
    keys: dict[str, Cap] = {}
    """Names of the variables of several keys, with their weights."""
    limits: list[Limit] = []
    """Documented limits."""
    limits_per: tuple[Literal["key", "model"], ...] = ("key",)
    """What has those limits of its own."""
    requests_per_min: Count | msgspec.UnsetType | None = msgspec.UNSET
    """Documented limit in a manifest of version 1, like the next two. ``documented`` has them all."""
    tokens_per_min: Count | msgspec.UnsetType | None = msgspec.UNSET
    concurrency: Count | msgspec.UnsetType | None = msgspec.UNSET
    budget: dict[str, Cap | None] = {}
    """Caps on requests, tokens, and money."""
    prices: dict[str, dict[str, Cap]] = {}
    """Per model: input_per_million, output_per_million."""
    proxy: str | None = None
    """Host and port of the proxy, if there is one."""
    body: dict[str, Any] = {}
    """Keys that the target adds to each request body."""
    max_tokens_key: str | None = None
    """Key of the request body that bounds a completion. Default: max_tokens."""
    header_names: list[str] = []
    query_names: list[str] = []
    """Names of the headers and query parameters that the target adds. Their values can be secret."""

    @property
    def documented(self) -> list[Limit]:
        """The documented limits, whichever version wrote the manifest."""
        older = (self.requests_per_min, self.tokens_per_min, self.concurrency)
        return self.limits or usual_limits(*(value or None for value in older))


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """The machine that generated the load."""

    name: str
    system: str
    cpus: Count
    memory_bytes: Count

    @classmethod
    def here(cls) -> Host:
        """Return a description of this machine."""
        return cls(
            name=platform.node(),
            system=f"{platform.system()} {platform.release()} {platform.machine()}",
            cpus=psutil.cpu_count() or 1,
            memory_bytes=psutil.virtual_memory().total,
        )


class UnfinishedWorker(msgspec.Struct, frozen=True, kw_only=True):
    """A worker that did not take part until the end of the run."""

    name: str
    """Its name in the records."""
    reason: str
    """What happened, as the end of a sentence about the worker."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """``manifest.json`` of a run folder."""

    format_version: int = FORMAT_VERSION
    run_id: str
    created: str
    """UTC, ISO 8601."""
    label: str = ""
    """Name of the run in comparisons; empty if the user gave none."""
    scenario: str
    resolved: dict[str, Any]
    """The scenario as run, with defaults and overrides applied."""
    target: TargetInfo
    other_targets: list[TargetInfo] = []
    """Further targets of a run with several."""
    command: list[str]
    """The command that repeats the run."""
    versions: dict[str, str]
    host: Host
    clock: Clock
    workers: Count = 1
    ended_ns: Annotated[int, msgspec.Meta(ge=0, le=MAX_RUN_NS)] | None = None
    """End of the load on the run's axis. None while the run is active, or if it was killed."""
    planned_calls: Count | None = None
    """Open loop: number of calls due before the load ended. None for a closed loop, or during the run."""
    ended: str | None = None
    """Why the load ended: completed, interrupted, budget, worker lost, or first calls failed."""
    unfinished_workers: list[UnfinishedWorker] = []
    worker_clocks: list[WorkerClock] = []
    """Clocks of workers on other machines. The sealed records are on the run's axis."""
    merged_workers: list[str] = []
    """Workers whose records were merged after the run."""
    unrecorded: list[str] = []
    """User classes of the locustfile whose requests were not recorded."""
    load_test_shape: str | None = None
    """The locustfile's LoadTestShape, if it decided on the number of users."""

    @property
    def target_names(self) -> str:
        """The names of all targets, with commas between."""
        return ", ".join(target.name for target in self.targets)

    @property
    def targets(self) -> list[TargetInfo]:
        """All targets, the first one first."""
        return [self.target, *self.other_targets]


def boot_id() -> str | None:
    """Return the ID of this boot of this machine, or None if the system does not report it.

    Processes in a time namespace (a container can be in one) have a monotonic clock of their own.
    """
    try:
        boot = BOOT_ID.read_text().strip()
    except OSError:
        return None
    with suppress(OSError):  # older systems have no such namespaces
        if (namespace := TIME_NAMESPACE.readlink().name) != FIRST_TIME_NAMESPACE:
            return f"{boot} {namespace}"
    return boot


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that measure and report."""
    versions = {"python": platform.python_version()}
    for name in REPORTED_PACKAGES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def read_scenario(manifest: Manifest) -> Scenario:
    """Return the scenario as it ran. Raises UserError if this version can't read it."""
    try:
        return Scenario.model_validate(manifest.resolved)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(str(part) for part in ("resolved", *first["loc"]))
        raise UserError(
            f"its scenario cannot be read: {key}: {first['msg']}",
            where=f"manifest.json of {manifest.run_id}",
            remedy="read it with the version of bltybench that wrote it",
        ) from None
