"""One run as its owner sees it, the master or the only process: directory, specification, and report."""

import logging
import os
import shlex
import sys
import time
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gevent
import msgspec
from gevent import subprocess
from gevent.event import Event

from bltybench import __version__
from bltybench.errors import CANNOT_RUN, UserError
from bltybench.load.distributed.inbox import Inbox
from bltybench.load.distributed.presence import PartState, part_of
from bltybench.load.distributed.scenario_files import ScenarioFiles
from bltybench.load.run.live import Live
from bltybench.load.run.run_spec import RunSpec
from bltybench.load.run.upstream import all_secrets
from bltybench.runs.folder import RunFolder, create_run
from bltybench.runs.manifest import (
    Clock,
    Host,
    Manifest,
    TargetInfo,
    UnfinishedWorker,
    package_versions,
)
from bltybench.runs.ownership import WriterLock
from bltybench.scenario.api.access import Access
from bltybench.scenario.arrivals.arrivals import schedule
from bltybench.scenario.file.resolve import Resolved
from bltybench.scenario.target import Target

logger = logging.getLogger("bltybench")

MAX_PREPARE_S = 60.0
"""Maximum wait for all processes to be ready, in seconds, in addition to that for their planning."""
MAX_PLANNING_RATIO = 10
"""Maximum ratio of a process's time to go through the schedule to that of the master's planning. Processes
that prepare at the same time share the cores."""
DRAIN_S = 30.0
"""Time for requests in flight to finish when a run ends, in seconds. Locust's --stop-timeout overrides it."""
NOTICE_S = 2.0
"""Interval of the messages that records of workers have not arrived yet, in seconds."""
MAX_CLOSE_S = 10.0
"""Time for workers to write their last records, in seconds."""
KILLED = "ended unexpectedly: it was killed or crashed"
"""What happened to a worker whose lock was released before it had said how its part ended."""


class Run:
    """A run from its start to its report."""

    def __init__(
        self,
        resolved: Resolved,
        reports: str,
        workers: list[str],
        planning_s: float,
        formats: Collection[str],
        *,
        strict: bool = False,
        label: str = "",
        unrecorded: Sequence[str] = (),
        load_test_shape: str | None = None,
    ) -> None:
        self.resolved = resolved
        self.strict = strict
        self._report_options = ["--format", ",".join(sorted(formats)), *(["--strict"] if strict else [])]
        self.workers = workers
        self.live = Live()
        self.ended_s: float | None = None
        """When the load ended, on the run's axis. The report is written after that."""
        self.exit_code: int | None = None
        """Exit code of the report, which is complete then."""
        self.closing_text = ""
        """The report's summary for the terminal."""
        self.key_names: set[str] = set()
        """Environment variables that hold keys, other than the target's."""
        self.folder = create_run(Path(reports), resolved.name)
        # Nobody may report the run before its manifest is complete, whatever its workers do.
        self._lock = WriterLock(self.folder.path)
        self.started = Event()
        """Set when the zero of the axis is known, because all processes are ready."""
        self.max_silence_s = MAX_PLANNING_RATIO * planning_s
        """Maximum time for which preparing can block a worker, in seconds."""
        self.max_prepare_s = MAX_PREPARE_S + self.max_silence_s
        self.worker_failed = False
        """Whether an exception was not handled in a worker."""
        self.first_calls_failed = False
        """Whether the run stops because its first calls failed alike."""
        self.inbox = Inbox(self.folder)
        """The records of workers that do not see the run's directory."""
        self.gathered = Event()
        """Set when no more records of workers are expected."""
        self._seen_alive: set[str] = set()
        self._unfinished: dict[str, UnfinishedWorker] = {}
        self.clock = _clock_in(self.max_prepare_s)
        self._manifest = msgspec.structs.replace(
            self._describe(label), unrecorded=list(unrecorded), load_test_shape=load_test_shape
        )
        self.folder.write_manifest(self._manifest)

    def start(self, lead_s: float) -> None:
        """Let the load begin ``lead_s`` from now. All processes are ready."""
        self.clock = _clock_in(lead_s)
        self._update_manifest(clock=self.clock)
        # On other file systems, locks of other machines can be invisible.
        self._seen_alive = {name for name in self.worker_names if self._part(name) is PartState.RUNNING}
        self.started.set()

    @property
    def worker_names(self) -> list[str]:
        """Names of the workers in the records."""
        return [worker_name(index) for index in range(len(self.workers))]

    def is_killed(self, name: str) -> bool:
        """Return whether a worker is known to have ended without finishing its part."""
        return name in self._seen_alive and self._part(name) is PartState.UNKNOWN

    def lose(self, name: str, reason: str) -> None:
        """Note why a worker did not take part until the end. The first reason counts."""
        self._unfinished.setdefault(name, UnfinishedWorker(name=name, reason=reason))

    @property
    def lost_workers(self) -> bool:
        """Whether a worker did not take part until the end."""
        return bool(self._unfinished)

    @property
    def unrecorded(self) -> list[str]:
        """User classes whose requests are not recorded, because they do not derive from ChatUser."""
        return self._manifest.unrecorded

    @property
    def duration_s(self) -> float | None:
        """When the load ends by itself, on the run's axis; None if it lasts until it is stopped."""
        scenario = self.resolved.scenario
        return scenario.duration_s if scenario.has_time_limit else None

    def spec(self) -> RunSpec:
        """Return the specification for the processes that generate the load."""
        return RunSpec(
            version=__version__,
            run_path=str(self.folder.path.absolute()),
            clock=self.clock,
            files=ScenarioFiles.of(self.resolved),
            scenario_name=self.resolved.name,
            scenario=self.resolved.scenario.model_dump(mode="json"),
            targets={name: target.model_dump(mode="json") for name, target in self.resolved.targets.items()},
            workers=self.workers,
        )

    def now_s(self) -> float:
        """Return the current time on the run's axis."""
        return (time.monotonic_ns() - self.clock.monotonic_ns) / 1e9

    def finish(self, reason: str) -> None:
        """Wait for the workers' last records, complete the manifest, and have the report written.

        Sets ``exit_code`` and ``closing_text``. Call it once, when nothing more is sent.
        """
        self.ended_s = ended_s = max(0.0, self.now_s())
        self._wait_for_workers()
        self.inbox.close()
        self.gathered.set()
        unwritten = ""
        try:
            self._update_manifest(
                ended_ns=round(ended_s * 1e9),
                ended="first calls failed" if self.first_calls_failed else reason,
                planned_calls=self._calls_due_until(ended_s),
                unfinished_workers=list(self._unfinished.values()),
            )
        except UserError as error:
            # The report then treats the run as one that was killed.
            unwritten = f"bltybench: {error}\n"
        self._lock.release()
        logger.info("Making the report")
        secret = (target.secret_variables for target in self.resolved.targets.values())
        hidden = self.key_names.union(*secret)
        self.exit_code, self.closing_text = _report(self.folder, self._report_options, hidden)
        if unwritten:
            self.exit_code, self.closing_text = CANNOT_RUN, unwritten + self.closing_text

    def _update_manifest(self, **changes: Any) -> None:
        self._manifest = msgspec.structs.replace(self._manifest, **changes)
        self.folder.write_manifest(self._manifest)

    def _describe(self, label: str) -> Manifest:
        resolved = self.resolved
        accesses = {name: target.access(name) for name, target in resolved.targets.items()}
        secrets = all_secrets(list(accesses.values()))
        first, *others = (_info(name, resolved.targets[name], access) for name, access in accesses.items())
        return Manifest(
            run_id=self.folder.path.name,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            label=_without(secrets, label),
            scenario=resolved.name,
            resolved=resolved.scenario.model_dump(mode="json"),
            target=first,
            other_targets=others,
            command=["locust", *(_without(secrets, arg) for arg in sys.argv[1:])],
            versions=package_versions(),
            host=Host.here(),
            clock=self.clock,
            workers=max(1, len(self.workers)),
        )

    def _calls_due_until(self, at_s: float) -> int | None:
        scenario = self.resolved.scenario
        if not scenario.is_open_loop:
            return None
        until_s = min(at_s, scenario.duration_s)
        arrivals = schedule(scenario.arrivals, scenario.duration_s, scenario.seed, self.resolved.base_dir)
        return sum(arrival.at_s < until_s for arrival in arrivals)

    def _wait_for_workers(self) -> None:
        """Wait until every worker has finished its part. Note those that did not.

        Records that still arrive extend the wait.
        """
        wait_s = MAX_CLOSE_S + (DRAIN_S if self.started.is_set() else 0.0)
        begin_s = notice_s = time.monotonic()
        waiting = [name for name in self.worker_names if name not in self._unfinished]
        while waiting and time.monotonic() < max(begin_s + wait_s, self.inbox.last_new_s + MAX_CLOSE_S):
            if self.inbox and time.monotonic() > notice_s + NOTICE_S:
                notice_s = time.monotonic()
                received_mb = self.inbox.received_bytes / 1e6
                logger.info("Waiting for records of %s; %.1f MB received", ", ".join(waiting), received_mb)
            for name in waiting:
                if self.is_killed(name):
                    self.lose(name, KILLED)
            waiting = [
                name
                for name in waiting
                if name not in self._unfinished and self._part(name) in {PartState.RUNNING, PartState.UNKNOWN}
            ]
            gevent.sleep(0.1 if waiting else 0.0)
        for name in waiting:
            self.lose(name, f"did not finish within {wait_s:g} s after the end of the load")
        self.worker_failed = any(self._part(name) is PartState.FAILED for name in self.worker_names)

    def _part(self, name: str) -> PartState:
        return part_of(self.folder, name)


def _info(name: str, target: Target, access: Access) -> TargetInfo:
    return TargetInfo(
        name=name,
        base_url=target.base_url,
        api_key_env=target.api_key_env,
        keys=target.keys or {},
        limits=target.documented,
        limits_per=target.limits_per,
        budget=target.budget.model_dump(),
        prices={model: price.model_dump() for model, price in target.prices.items()},
        proxy=access.proxy.address if access.proxy else None,
        body=target.body,
        max_tokens_key=target.max_tokens_key,
        header_names=sorted(target.headers),
        query_names=sorted(target.query),
    )


def worker_name(index: int) -> str:
    """Return the name of worker ``index`` in the records."""
    return f"w{index}"


def _without(secrets: Sequence[str], text: str) -> str:
    for secret in secrets:
        text = text.replace(secret, "***")
    return text


def _clock_in(lead_s: float) -> Clock:
    """Return a clock whose zero is ``lead_s`` from now."""
    now = Clock.now()
    lead_ns = round(lead_s * 1e9)
    return msgspec.structs.replace(
        now, monotonic_ns=now.monotonic_ns + lead_ns, wall_ns=now.wall_ns + lead_ns
    )


def _report(folder: RunFolder, options: Sequence[str], hidden: Collection[str]) -> tuple[int, str]:
    """Write the report in a separate process, because pandas and gevent can't share one.

    Return its exit code and output. The ``hidden`` environment variables, which hold keys, are not passed on.
    """
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    if sys.stdout.isatty():
        environment.setdefault("FORCE_COLOR", "1")
    done = subprocess.run(
        # -P: a module in the current folder must not replace one of Python's.
        [sys.executable, "-P", "-m", "bltybench", "report", str(folder.path), *options],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        # Ctrl-C in the terminal ends the load, but must not end the report.
        start_new_session=True,
    )
    text = done.stdout
    if done.returncode not in (0, 1):
        text += f"\nThe records are safe. Try again: bltybench report {shlex.quote(str(folder.path))}\n"
    return done.returncode, text
