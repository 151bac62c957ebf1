"""What the users of one process share during one run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NoReturn

from gevent.event import Event
from locust.env import Environment
from locust.exception import RescheduleTask, StopUser

from bltybench.errors import UserError
from bltybench.load.client_policy import ClientPolicy, limits_to_keep
from bltybench.load.first_calls import FirstCalls
from bltybench.load.run.budget import BudgetAccount
from bltybench.load.run.clock import RunClock
from bltybench.load.run.record_sink import RecordSink
from bltybench.load.run.request_source import RequestSource
from bltybench.load.run.run_spec import RunSpec
from bltybench.load.run.upstream import Upstream, open_upstreams
from bltybench.load.trials.search_worker import SearchWorker
from bltybench.load.trials.tournament_worker import TournamentWorker
from bltybench.load.trials.worker import TrialWorker
from bltybench.policies.pacing.pacer import Share
from bltybench.runs.folder import RunFolder
from bltybench.scenario.api.routes import Route, Router
from bltybench.scenario.prompts import tokens
from bltybench.scenario.target import Target
from bltybench.scenario.trials.capacity import CapacitySearch
from bltybench.scenario.trials.tournament import Tournament
from bltybench.scenario.workload import Scenario
from bltybench.wire.answer_check import expected_answer
from bltybench.wire.scheduling.reader import Reader

ABORT_MESSAGE = "bltybench_abort"
"""Locust message to the process that owns the run: a call can't be sent or recorded, so the run ends."""

FAILING_MESSAGE = "bltybench_failing"
"""Locust message to the same process: this process's share of the first calls failed alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """One process's part in a run.

    Only the clock, source, sink, budgets, policy, and trial worker have state.
    """

    environment: Environment
    worker: str
    """The process's name in the records."""
    scenario_name: str
    scenario: Scenario
    upstreams: Mapping[str, Upstream]
    """The targets by name, the first one first."""
    router: Router
    folder: RunFolder
    reader: Reader
    clock: RunClock
    source: RequestSource
    sink: RecordSink
    policy: ClientPolicy
    trial_worker: TrialWorker | None
    """This process's part in the trials of a capacity search or a tournament."""
    user_numbers: Iterator[int]
    """Numbers for new users, unique in the run."""
    call_numbers: Iterator[int]
    """Numbers for new calls, unique in the process."""
    outcomes_matter: bool
    """Whether the outcome of a call decides what is sent next."""

    @property
    def upstream(self) -> Upstream:
        """The first target, and usually the only one."""
        return next(iter(self.upstreams.values()))

    def budget_of(self, route: Route) -> BudgetAccount:
        """Return this process's share of the budget of a route's target."""
        return self.upstreams[route.target].budget

    @property
    def budget_exhausted(self) -> bool:
        """Whether the budget of a target is exhausted, which ends the run."""
        return any(upstream.budget.exhausted for upstream in self.upstreams.values())

    def ended(self, *, scheduled: bool) -> Event:
        """Return the event after which a call sends nothing more.

        An arrival that was due in time is sent, however late. Without a schedule, none was due. The calls of
        a tournament's policy end before those of the next one.
        """
        if isinstance(self.trial_worker, TournamentWorker):
            return self.trial_worker.ended
        return self.clock.stopping if scheduled else self.clock.over

    def give_up(self) -> type[Exception]:
        """Return what to raise in a user whose call ends because nothing more may be sent."""
        next_policy = isinstance(self.trial_worker, TournamentWorker) and not self.clock.over.is_set()
        return RescheduleTask if next_policy and not self.budget_exhausted else StopUser

    def next_call_id(self) -> str:
        """Return an id for a new call, unique in the run."""
        return f"{self.worker}-{next(self.call_numbers)}"

    def abort(self, error: UserError) -> NoReturn:
        """Ask the process that owns the run to print an error and end the run, and stop the calling user."""
        _end_run(self.environment, error)
        raise StopUser

    def stop(self) -> None:
        """End the load of this process."""
        self.clock.stop()
        if self.trial_worker is not None:
            self.trial_worker.stop()


def open_context(
    spec: RunSpec, environment: Environment, worker: str, index: int = 0, workers: int = 1
) -> RunContext:
    """Return the context of a worker. Raises UserError if the target's key or a scenario file is unusable."""
    # Its vocabulary takes 0.3 s to load, for which the first response to count would stall the load.
    tokens.load()
    scenario = Scenario.model_validate(spec.scenario)
    targets = {name: Target.model_validate(table) for name, table in spec.targets.items()}
    upstreams = open_upstreams(targets, index, workers)
    budgets = [upstream.budget for upstream in upstreams.values()]
    clock = RunClock(spec.clock, scenario.duration_s)
    base_dir = Path(spec.files.base_dir)
    policy = ClientPolicy(
        scenario,
        limits_to_keep(scenario, targets, base_dir),
        Share(index, workers),
        now_s=clock.now_s,
        start_s=lambda: clock.start_wall_ns / 1e9,
    )
    reader = Reader()
    end_run = partial(_end_run, environment)
    first_calls = FirstCalls(workers, partial(_report_failing, environment))
    sink = RecordSink(
        spec.folder, worker, clock, reader, environment.stats, end_run=end_run, first_calls=first_calls
    )
    place: dict[str, Any] = {
        "index": index,
        "workers": workers,
        "now_s": clock.now_s,
        "budget_exhausted": lambda: any(budget.exhausted for budget in budgets),
    }
    trial_worker: TrialWorker | None = None
    if isinstance(scenario.arrivals, CapacitySearch):
        trial_worker = SearchWorker(scenario.arrivals, scenario, **place)
    elif isinstance(scenario.arrivals, Tournament):
        trial_worker = TournamentWorker(scenario.arrivals, scenario, policy, base_dir, **place)
    with ExitStack() as failed:
        # Otherwise this process would hold the folder's lock although it takes no part.
        failed.callback(sink.close)
        context = RunContext(
            environment=environment,
            worker=worker,
            scenario_name=spec.scenario_name,
            scenario=scenario,
            upstreams=upstreams,
            router=Router(
                scenario.seed,
                {name: _key_weights(upstream) for name, upstream in upstreams.items()},
                scenario.retry.fallback,
            ),
            folder=spec.folder,
            reader=reader,
            clock=clock,
            source=RequestSource(
                scenario,
                spec,
                clock,
                sink.audit,
                index=index,
                workers=workers,
                trial_worker=trial_worker,
                policy=policy,
            ),
            sink=sink,
            policy=policy,
            trial_worker=trial_worker,
            user_numbers=count(index, workers),
            call_numbers=count(1),
            outcomes_matter=scenario.retry.policy != "none"
            or bool(scenario.retry.fallback)
            or any(budget.counts_tokens for budget in budgets)
            or scenario.pacing.policy != "none"
            or trial_worker is not None,
        )
        failed.pop_all()
    for options in (*targets.values(), *scenario.mix):
        expected_answer(options.body)  # imports what checks answers before the run begins
    return context


def _key_weights(upstream: Upstream) -> Mapping[str, float]:
    """Return the weights of the keys that are set. A sandbox has a public key instead."""
    return upstream.target.keys or dict.fromkeys(upstream.access.keys, 1.0)


def _end_run(environment: Environment, error: UserError) -> None:
    """Ask the process that owns the run to print an error and end the run."""
    if environment.runner is not None:
        environment.runner.send_message(ABORT_MESSAGE, {"error": str(error)})


def _report_failing(environment: Environment, kind: str) -> None:
    if environment.runner is not None:
        environment.runner.send_message(FAILING_MESSAGE, {"kind": kind})
