"""The workers of a run, as the process that owns it sees them: which are ready, and which are lost."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

from gevent.event import Event
from locust import runners
from locust.dispatch import UsersDispatcher
from locust.runners import STATE_MISSING, MasterRunner, Runner, WorkerNode

from bltybench.load.run.run import KILLED, Run

HELLO_MESSAGE = "bltybench_hello"
"""Message of a worker that can receive messages: which process it is."""
READY_MESSAGE = "bltybench_ready"
"""Message of a process whose users wait for the load to begin."""
START_MESSAGE = "bltybench_start"
"""Message to all processes of a run: its time axis."""
DECLINE_MESSAGE = "bltybench_decline"
"""Message of a worker that can't take part: why."""
REFUSE_MESSAGE = "bltybench_refuse"
"""Message to a worker that connected too late."""
HURRY_MESSAGE = "bltybench_hurry"
"""Message to the remaining workers before a run that lost one is stopped: don't wait for long responses."""

ALONE = "local"
"""Locust's id of a single process, which sends messages to itself."""
LEFT = "left before the end"
"""What happened to a worker that ended by itself."""
WATCH_INTERVAL_S = 0.5
"""Interval of the checks for lost workers, in seconds."""
MAX_SILENCE_S = 4
"""Maximum time without a heartbeat of a worker, in seconds."""
MAX_CUT_S = 30
"""The same for a worker that does not see the run's directory, because the network can fail. A connection
that is cut for 10 s can take 20 s to recover: TCP tries again at growing intervals."""
MIN_PREPARE_SILENCE_S = 20.0
"""Time for which a worker can be silent while it prepares, in seconds, even if the master's planning was
fast. It loads a tokenizer, for example, which takes long on a busy machine."""
LEAVE_GRACE_S = 2.0
"""Time after which a worker that left is lost, in seconds. After Ctrl-C, workers can leave first."""


class FixedWorkers(UsersDispatcher):
    """Locust's distribution of users, limited to the workers with which the run started.

    Workers share the schedule and the budget by their number. A worker that connects later therefore takes no
    part, and the users of a lost worker are not replaced.
    """

    def add_worker(self, worker_node: WorkerNode) -> None:
        """Ignore a worker that connected after the start, or that Locust had missed for a while."""

    def remove_worker(self, worker_node: WorkerNode) -> None:
        """Leave the distribution as it is. The run ends (``Crew.lost``)."""

    @property
    def dispatch_in_progress(self) -> bool:
        """Whether Locust must not distribute the users again."""
        return True


class Crew:
    """The processes that generate the load of one run."""

    def __init__(self, runner: Runner, run: Run, processes: Mapping[str, str]) -> None:
        """``processes`` has a description of each worker's process, by Locust's id."""
        self.closed = Event()
        """Set when the run stops. From then on, workers may leave."""
        self.left_early: list[str] = []
        """Locust's ids of the workers that had left when the run stopped."""
        self._runner = runner
        self._run = run
        self._processes = processes
        self._names = dict(zip(run.workers, run.worker_names, strict=True))
        self._not_ready = set(run.workers or [ALONE])
        self._all_ready = Event()
        self._remote: set[str] = set()
        self._absent_since_s: dict[str, float] = {}

    def name_of(self, client_id: str) -> str:
        """Return a worker's name in the records; ``?`` if it takes no part."""
        return self._names.get(client_id, "?")

    def __contains__(self, client_id: str) -> bool:
        return client_id in self._names

    def describe(self, client_id: str) -> str:
        """Return the name of a worker for people."""
        return f"worker {self.name_of(client_id)} ({self._processes.get(client_id, client_id)})"

    def take_ready(self, client_id: str, *, is_remote: bool) -> None:
        """Note that a process is ready. A remote one does not see the run's directory."""
        if is_remote:
            self._remote.add(client_id)
        self._not_ready.discard(client_id)
        if not self._not_ready:
            self._all_ready.set()

    def wait_until_ready(self) -> str | None:
        """Wait until all processes are ready. Return what is wrong if one will not be; None if they are."""
        give_up_s = time.monotonic() + self._run.max_prepare_s
        while not self._all_ready.wait(WATCH_INTERVAL_S) and not self.closed.is_set():
            if lost := self.find_lost():
                return lost
            if time.monotonic() > give_up_s:
                reason = f"was not ready within {self._run.max_prepare_s:.0f} s"
                return "; ".join([self.lose(client_id, reason) for client_id in sorted(self._not_ready)])
        return None

    def watch(self) -> str | None:
        """Return what is wrong as soon as a worker is lost; None when the run stops."""
        while not self.closed.wait(WATCH_INTERVAL_S):
            if lost := self.find_lost():
                return lost
        return None

    def watch_end(self) -> None:
        """Note remote workers that stop responding while the run ends. The others have locks to look at."""
        while not self._run.gathered.wait(WATCH_INTERVAL_S):
            self.find_lost()

    def close(self) -> None:
        """Let the workers leave from now on."""
        if not self.closed.is_set():
            self.find_lost()
            self.left_early = [client_id for client_id, (reason, _) in self._absent() if reason == LEFT]
            self.closed.set()

    def find_lost(self) -> str:
        """Note the workers that are lost now, and return a description of them; empty if there are none."""
        now_s = time.monotonic()
        return "; ".join(
            self.lose(client_id, reason)
            for client_id, (reason, grace_s) in self._absent()
            if now_s - self._absent_since_s.setdefault(client_id, now_s) >= grace_s
        )

    def lose(self, client_id: str, reason: str) -> str:
        """Note that a worker does not take part until the end, and return a description of what happened."""
        if client_id in self._names:
            self._run.lose(self._names[client_id], reason)
        if isinstance(self._runner, MasterRunner) and (node := self._runner.clients.get(client_id)):
            # Otherwise Locust would wait for its users until it misses the worker itself.
            node.state, node.user_classes_count = STATE_MISSING, {}
        return f"{self.describe(client_id)} {reason}"

    def _absent(self) -> Iterator[tuple[str, tuple[str, float]]]:
        """Yield each worker that is not there, why, and for how long that is no loss."""
        if not isinstance(self._runner, MasterRunner):
            return
        # A long preparation blocks a worker's heartbeat.
        prepares_s = max(MIN_PREPARE_SILENCE_S, self._run.max_silence_s)
        silence_s = 0.0 if self._run.started.is_set() else prepares_s
        for client_id, name in self._names.items():
            node: Any = self._runner.clients.get(client_id)
            if self.closed.is_set() and (node is None or client_id not in self._remote):
                continue
            if self._run.is_killed(name):
                yield client_id, (KILLED, 0.0)
            elif node is None:
                yield client_id, (LEFT, LEAVE_GRACE_S)
            elif node.state == STATE_MISSING or self._is_silent(client_id, node):
                yield client_id, ("stopped responding", silence_s)
            else:
                self._absent_since_s.pop(client_id, None)

    def _is_silent(self, client_id: str, node: WorkerNode) -> bool:
        silent_s: int = runners.HEARTBEAT_LIVENESS - node.heartbeat
        return silent_s > (MAX_CUT_S if client_id in self._remote else MAX_SILENCE_S)


def tolerate_cuts() -> None:
    """Let Locust wait longer for a silent worker than ``Crew`` does, which decides whether it is lost."""
    runners.HEARTBEAT_LIVENESS = 2 * MAX_CUT_S
