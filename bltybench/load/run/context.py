"""One process's part in one run: what it sends to, what it counts, where its records go."""

from __future__ import annotations

import gc
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from gevent.event import Event
from locust.env import Environment
from pydantic import SecretStr

from bltybench.load.capacity.worker import TrialWorker
from bltybench.load.deferred import DeferredRecorder
from bltybench.load.locust_plugin.stats import TokenRows
from bltybench.load.run.audit import Audit
from bltybench.load.run.budget import BudgetAccount
from bltybench.load.run.live import Counter, Tick
from bltybench.load.run.run_spec import RunSpec
from bltybench.runs.folder import RunFolder
from bltybench.runs.spool import Spool
from bltybench.scenario.arrivals.arrivals import Arrival, schedule
from bltybench.scenario.capacity import CapacitySearch
from bltybench.scenario.patterns import Ladder, stage_at
from bltybench.scenario.prompts.compose import Composer, Prepared
from bltybench.scenario.workload import Closed
from bltybench.wire.http.connection import Connection
from bltybench.wire.http.origin import Origin
from bltybench.wire.scheduling.reader import Reader

COLLECTIONS = (10_000, 10, 70)
"""After how many net allocations the smallest garbage collection comes, and after how many of one size the
next larger. With the usual 700, 10, 10 a flood spends 3% on collections that find nothing, and with thousands
of users a full one takes 40 ms and more, in which nothing is read. Nothing is left that only they find."""

AHEAD, AHEAD_NS = 16, 500_000
"""Requests of a closed loop are composed ahead: so many at most, and no longer than this at a time."""


class Session:
    """Lives from the start of a run to its end; users of this process share it.

    ``worker`` names the process in the records; it is the ``index``-th of ``workers``.
    """

    def __init__(self, job: RunSpec, environment: Environment, worker: str, index: int, workers: int) -> None:
        self.begin(job)
        self.environment = environment
        self.worker = worker
        self.scenario_name = job.scenario_name
        self.scenario = job.read_scenario()
        self.target = job.read_target()
        self.key: SecretStr | None = self.target.api_key(job.target_name)
        self.folder = RunFolder(Path(job.run_path))
        self.origin = Origin(
            self.target.base_url,
            self.target.timeouts,
            verify_tls=self.target.verify_tls,
            ca_file=self.target.ca_file,
            secrets=[self.key.get_secret_value()] if self.key else [],
        )
        self.reader = Reader()
        self.later = DeferredRecorder(self.reader)
        self.purse = BudgetAccount(self.target.budget, self.target.prices, index, workers)
        self.spool = Spool(self.folder.attempts_spool / f"{worker}.jsonl")
        self.generator_spool = Spool(self.folder.generator_spool / f"{worker}.jsonl")
        self.counter = Counter()
        self.audit = Audit(worker)
        self.token_rows = TokenRows(environment.stats)
        self.over = Event()
        """Set when the scenario's time is over: no new calls and no retries, but arrivals that were due."""
        self.stopping = Event()
        """Set when the run ends: nothing at all is sent from then on, and what is in flight may finish."""
        self.finished = False
        """Set by a user that had something to do and has done it, before the scenario's time is over."""
        self.open_calls = 0
        self._index = index
        self._workers = workers
        self._calls = 0
        self._users = 0
        self._closed_index = index
        self._stages = self.scenario.stages() if isinstance(self.scenario.arrivals, Ladder) else ()
        self._prepared: deque[Prepared] = deque()
        self.composer = Composer(self.scenario, job.base, nonce=self.folder.path.name)
        arrivals = self.scenario.arrivals
        self.part: TrialWorker | None = None
        """Where the scenario searches: this process's part in the trials, which decide what is sent."""
        self.think_s: float | None = arrivals.think_s if isinstance(arrivals, Closed | Ladder) else None
        """Closed loop: the pause after an answer. None in an open loop: its calls are due at fixed times."""
        if isinstance(arrivals, CapacitySearch):
            self.think_s = 0.0 if arrivals.load == "users" else None
            self.part = TrialWorker(
                arrivals,
                seed=self.scenario.seed,
                warm_up_s=self.scenario.warm_up_s,
                index=index,
                workers=workers,
                now_s=lambda: self.now_ns() / 1e9,
                spent=lambda: self.purse.exhausted,
            )
        self.outcomes_matter = (
            self.scenario.retry.policy != "none" or self.purse.counts_tokens or self.part is not None
        )
        """Whether what is sent next depends on what became of what was sent before."""
        self._arrivals = self._own_arrivals()
        self._usual_collector = gc.get_threshold()
        gc.set_threshold(*COLLECTIONS)

    @property
    def in_flight(self) -> int:
        """Our own open attempts: sent, and not answered to the end."""
        return self.open_calls - self.reader.unread

    def begin(self, job: RunSpec) -> None:
        """Take the order's clock: its zero is when the load begins."""
        self.job = job
        self.start_ns = job.clock.local_start_ns()

    def now_ns(self) -> int:
        """Return this moment on the run's axis."""
        return time.monotonic_ns() - self.start_ns

    def wait_until(self, at_ns: int) -> bool:
        """Sleep until ``at_ns`` on the run's axis; False where the run's time is over first."""
        left_s = (at_ns - self.now_ns()) / 1e9
        if left_s <= 0:
            return not self.over.is_set()
        return not self.over.wait(left_s)

    def stop_when_over(self) -> None:
        """Say that the scenario's time is over when it is. Runs as a greenlet."""
        self.wait_until(round(self.scenario.duration_s * 1e9))
        self.over.set()

    def stop(self) -> None:
        """End the run in this process."""
        self.over.set()
        self.stopping.set()
        if self.part is not None:
            self.part.stop()

    def connection(self) -> Connection:
        """Return a connection of its own for a user."""
        return Connection(self.origin, self.reader)

    def next_user(self) -> int:
        """Return a number for a new user, unique in the run."""
        self._users += 1
        return (self._users - 1) * self._workers + self._index

    def next_call_id(self) -> str:
        """Return an id for a new logical request, unique in the run."""
        self._calls += 1
        return f"{self.worker}-{self._calls}"

    def next_arrival(self) -> Arrival | None:
        """Claim the next arrival of the schedule that is this process's; None when there are no more.

        A user that was free before an arrival was due has claimed it by then. So a claim that comes later
        means that all users were busy, which is counted.
        """
        if self.part is not None:
            return self.part.next_arrival()
        arrival = next(self._arrivals, None)
        if arrival is not None and arrival.at_s * 1e9 < self.now_ns():
            self.audit.late_claim()
        return arrival

    def count_unclaimed(self) -> int:
        """Return how many arrivals were due by now, or by the end of the load, and found no user at all."""
        until_s = min(self.now_ns() / 1e9, self.scenario.duration_s)
        return sum(arrival.at_s < until_s for arrival in self._arrivals)

    def stage_now(self) -> str | None:
        """Return the stage that a call which begins now belongs to, where users make the stages."""
        if self.part is not None:
            return self.part.stage
        stage = stage_at(self._stages, self.now_ns() / 1e9)
        return None if stage is None else self._stages[stage].name

    def wait_for_place(self, user: int) -> bool:
        """Wait until ``user`` is among those that the ladder wants; False where it never will be again."""
        if self.part is not None:
            return self.part.wait_for_place(user)
        if not self._stages:
            return True
        self.wait_until(0)
        now = stage_at(self._stages, self.now_ns() / 1e9) or 0
        place = next((stage for stage in self._stages[now:] if user < (stage.users or 0)), None)
        return place is not None and self.wait_until(round(place.begin_s * 1e9))

    def next_prepared(self) -> Prepared:
        """Return the next request of a closed loop; the workers share the numbers between them.

        Several are composed at once, where that is quickly done: see ``DeferredRecorder`` for why.
        """
        prepared = self._prepared
        if not prepared:
            until_ns = time.monotonic_ns() + AHEAD_NS
            while not prepared or (len(prepared) < AHEAD and time.monotonic_ns() < until_ns):
                prepared.append(self.composer.prepare(self._closed_index))
                self._closed_index += self._workers
        return prepared.popleft()

    def prepare(self, arrival: Arrival) -> Prepared:
        """Compose the request of an arrival."""
        return self.composer.prepare(arrival.index, arrival)

    def _own_arrivals(self) -> Iterator[Arrival]:
        """Return this worker's share of the one schedule: every ``workers``-th arrival."""
        scenario = self.scenario
        if not scenario.is_open_loop:
            return iter(())
        arrivals = schedule(scenario.arrivals, scenario.duration_s, scenario.seed, self.job.base)
        return (arrival for arrival in arrivals if arrival.index % self._workers == self._index)

    def tick(self) -> Tick:
        """Return what was counted since the last time, for those who watch."""
        return self.counter.take(self.now_ns() / 1e9, self.in_flight)

    def second(self, *, users: int, never_sent: int = 0) -> None:
        """Put the second that is over on record."""
        self.later.settle()
        self.generator_spool.append(
            self.audit.second(
                self.now_ns(),
                users=users,
                in_flight=self.in_flight,
                backlog=self.reader.backlog,
                never_sent=never_sent,
            )
        )
        self.spool.flush()
        self.generator_spool.flush()
        self.token_rows.flush()

    def close(self) -> None:
        """Write out the records and say that this process has no more."""
        gc.set_threshold(*self._usual_collector)
        self.later.settle()
        self.audit.close()
        self.spool.close()
        self.generator_spool.close()
        done_marker(self.folder, self.worker).touch()


def done_marker(folder: RunFolder, worker: str) -> Path:
    """Return the path of the empty file that a worker leaves beside its spool when it is finished."""
    return folder.attempts_spool / f"{worker}.done"
