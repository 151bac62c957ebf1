"""What the users of one process send next, and when."""

import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from gevent.event import Event

from bltybench.load.client_policy import ClientPolicy
from bltybench.load.run.audit import Audit
from bltybench.load.run.clock import RunClock
from bltybench.load.run.run_spec import RunSpec
from bltybench.load.trials.worker import TrialWorker
from bltybench.scenario.arrivals.arrivals import Arrival, schedule
from bltybench.scenario.patterns import Closed, Ladder, Stage, stage_at
from bltybench.scenario.prompts.compose import Composer, Prepared
from bltybench.scenario.trials.capacity import CapacitySearch
from bltybench.scenario.workload import Scenario

MAX_AHEAD, MAX_AHEAD_NS = 16, 500_000
"""Maximum requests of a closed loop composed ahead in one batch, and the maximum time for it."""


class Sessions:
    """The calls of recorded sessions that a user of this process has claimed and that have not ended.

    A call of a session is not sent before the answer to the one before it has ended.
    """

    def __init__(self) -> None:
        self._ended: dict[int, Event] = {}

    def begin(self, index: int) -> None:
        """Add the call of an arrival, which a user has claimed."""
        self._ended[index] = Event()

    def end(self, index: int) -> None:
        """Let the calls that wait for this one continue, whatever its outcome."""
        ended = self._ended.pop(index, None)
        if ended is not None:
            ended.set()

    def wait(self, index: int) -> bool:
        """Wait until a call has ended. Return whether that took time."""
        ended = self._ended.get(index)
        if ended is None:
            return False
        ended.wait()
        return True


class RequestSource:
    """Hands out the requests of one worker. In trials, ``trial_worker`` decides what is sent."""

    def __init__(
        self,
        scenario: Scenario,
        spec: RunSpec,
        clock: RunClock,
        audit: Audit,
        *,
        index: int,
        workers: int,
        trial_worker: TrialWorker | None,
        policy: ClientPolicy,
    ) -> None:
        arrivals = scenario.arrivals
        self.think_s: float | None = None
        """Pause after a response in a closed loop; None in an open loop."""
        if isinstance(arrivals, Closed | Ladder):
            self.think_s = arrivals.think_s
        elif isinstance(arrivals, CapacitySearch) and arrivals.load == "users":
            self.think_s = 0.0
        base_dir = Path(spec.files.base_dir)
        self.sessions = Sessions()
        self.composer = Composer(scenario, base_dir, nonce=spec.folder.path.name)
        self._clock = clock
        self._audit = audit
        self._trial_worker = trial_worker
        self._policy = policy
        self._duration_s = scenario.duration_s
        self._steps: tuple[Stage, ...] = scenario.stages() if isinstance(arrivals, Ladder) else ()
        self._composed: deque[Prepared] = deque()
        self._closed_index = index
        self._workers = workers
        self._arrivals: Iterator[Arrival] = iter(())
        if scenario.is_open_loop:
            every = schedule(arrivals, scenario.duration_s, scenario.seed, base_dir)
            self._arrivals = (arrival for arrival in every if arrival.worker(workers) == index)

    # Open loop

    def next_arrival(self) -> Arrival | None:
        """Claim this process's next arrival; None if there are no more.

        An idle user claims an arrival before it is due. A later claim means that all users were busy, which
        the audit counts unless pacing holds requests: it would have held this one, too.
        """
        if self._trial_worker is not None:
            arrival = self._trial_worker.next_arrival()
        else:
            arrival = next(self._arrivals, None)
            self._clock.wait_until_known()
            if arrival is not None and arrival.at_s < self._clock.now_s() and not self._policy.holding:
                self._audit.late_claim()
        if arrival is not None and arrival.session is not None:
            self.sessions.begin(arrival.index)
        return arrival

    def count_unclaimed(self) -> int:
        """Return how many arrivals were due by now, or by the end of the load, and never found a user."""
        until_s = min(self._clock.now_s(), self._duration_s)
        return sum(arrival.at_s < until_s for arrival in self._arrivals)

    # Closed loop

    def stage_now(self) -> str | None:
        """Return the stage of a call that begins now, if the number of users defines the stages."""
        if self._trial_worker is not None:
            return self._trial_worker.stage
        step = self._step_now()
        return None if step is None else self._steps[step].name

    def wait_for_place(self, user: int) -> bool:
        """Wait until the load includes ``user``. Return False if it never will again."""
        if self._trial_worker is not None:
            return self._trial_worker.wait_for_place(user)
        if not self._steps:
            return True
        self._clock.wait_until(0)
        steps = self._steps[self._step_now() or 0 :]
        step = next((step for step in steps if user < (step.users or 0)), None)
        return step is not None and self._clock.wait_until(round(step.begin_s * 1e9))

    def next_prepared(self) -> Prepared:
        """Return the next request of a closed loop. Workers share the request numbers.

        Requests are composed in batches because code that has just run is still in the CPU's cache.
        """
        composed = self._composed
        if not composed:
            until_ns = time.monotonic_ns() + MAX_AHEAD_NS
            while not composed or (len(composed) < MAX_AHEAD and time.monotonic_ns() < until_ns):
                composed.append(self.composer.prepare(self._closed_index))
                self._closed_index += self._workers
        return composed.popleft()

    def _step_now(self) -> int | None:
        return stage_at(self._steps, self._clock.now_s()) if self._steps else None
